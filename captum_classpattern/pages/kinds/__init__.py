"""What draws each kind of result: a module for each, with the parts of its page and its figures.

``parts(result, whole)`` gives a title and the parts below it, ``plot(result, ...)`` a figure. With
``whole``, it is for a page, which may be longer than what a notebook shows. A kind whose page is
not made of such parts has ``write(result, path)``, too.
"""

from os import PathLike
from pathlib import Path
from typing import Any

from captum_classpattern.comparison import Comparison, SanityCheck
from captum_classpattern.invariance import InvarianceProfile
from captum_classpattern.pages.kinds import (
    comparison,
    finding,
    pattern,
    power,
    profile,
    sanity,
    scan,
    survey,
    sweep,
)
from captum_classpattern.pages.parts import fragment, write_page
from captum_classpattern.pattern import Pattern
from captum_classpattern.results import Result
from captum_classpattern.scanning import Scan
from captum_classpattern.scores import PredictivePower
from captum_classpattern.surveys import Finding, Survey
from captum_classpattern.sweeps import Sweep

KINDS: dict[type[Result], Any] = {
    Pattern: pattern,
    PredictivePower: power,
    Finding: finding,
    Survey: survey,
    Sweep: sweep,
    Scan: scan,
    Comparison: comparison,
    SanityCheck: sanity,
    InvarianceProfile: profile,
}


def kind_of(result: Result) -> Any:
    """The entry of a result's type, or of the type that it is derived from."""
    for each in type(result).__mro__:
        if each in KINDS:
            return KINDS[each]
    raise TypeError(f"nothing draws a {type(result).__name__}: add its type to KINDS in {__name__}")


def fragment_of(result: Result) -> str:
    """What a notebook shows of a result."""
    title, parts = kind_of(result).parts(result)
    return fragment(title, *parts)


def write_page_of(result: Result, path: str | PathLike[str]) -> Path:
    """Writes the page of a result; returns its path."""
    kind = kind_of(result)
    if hasattr(kind, "write"):
        return Path(kind.write(result, path))
    title, parts = kind.parts(result, whole=True)
    return write_page(path, title, *parts)


def draw(result: Result, figure: str, **options: Any) -> Any:
    """A figure of a result, by the name of the function that draws it."""
    return getattr(kind_of(result), figure)(result, **options)
