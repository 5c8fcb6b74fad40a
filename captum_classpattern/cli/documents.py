"""The JSON documents that ``--json`` prints, for other programs. docs/json.md describes them."""

import json
import math
import os
import sys
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext, redirect_stdout
from pathlib import Path
from typing import Any

VERSION = 1  # of the schemas: fields may be added to a version, but keep their names and meaning


def only_json(wanted: bool) -> AbstractContextManager[object]:
    """With ``--json`` everything that is printed inside goes to stderr, also what a user's model
    prints."""
    return redirect_stdout(sys.stderr) if wanted else nullcontext()


def write_document(command: str, out: Path, content: Mapping[str, Any]) -> None:
    """Prints the result of a command as one JSON document."""
    head = {"schema": f"classpattern/{command}/{VERSION}", "out": os.fspath(out)}
    print(json.dumps(finite({**head, **content}), indent=2, allow_nan=False))


def finite(value: Any) -> Any:
    """The value with null for every number that JSON does not have.

    >>> finite({"loss": [0.5, float("nan")]})
    {'loss': [0.5, None]}
    """
    if isinstance(value, Mapping):
        return {key: finite(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [finite(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
