"""The code of docs/extend.md: what tests need of it."""

import re
from pathlib import Path

PAGE = Path(__file__).parents[1] / "docs" / "extend.md"


def blocks():
    """The page's code blocks in order: for each kind of extension its definition, and its use."""
    return re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)


DEFINITIONS = blocks()[::2]
defined = {}
for code in DEFINITIONS:
    exec(compile("import torch\n" + code, PAGE.name, "exec"), defined)
RandomSwaps, TrainingRun, DISTANCE = (
    defined[name] for name in ("RandomSwaps", "TrainingRun", "DISTANCE")
)
