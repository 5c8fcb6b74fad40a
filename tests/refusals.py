"""What a call refuses, or warns of, as text to compare with a snapshot."""

import warnings
from collections.abc import Callable, Mapping
from typing import Any

import pytest


def refusal(call: Callable[[], Any]) -> str:
    """The error that the call raises: its type and its text."""
    with pytest.raises(Exception) as caught:  # noqa: PT011 - the text is compared by the caller
        call()
    return f"{caught.type.__name__}: {caught.value}"


def warnings_of(call: Callable[[], Any]) -> list[str]:
    """The texts of the call's warnings, in order."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        call()
    return [f"{one.category.__name__}: {one.message}" for one in caught]


def refusals(calls: Mapping[str, Callable[[], Any]]) -> str:
    """The error that each call raises: a line for each, as one text to compare with a snapshot."""
    lines = []
    for name, call in calls.items():
        try:
            call()
            lines.append(f"{name}: nothing is refused")
        except Exception as error:
            lines.append(f"{name}: {type(error).__name__}: {error}")
    return "\n".join(lines)
