"""What draws each kind of result: a module for each, with the parts of its page and its figures.

``parts(result, whole)`` gives a title and the parts below it, ``plot(result, ...)`` a figure. With
``whole``, it is for a page, which may be longer than what a notebook shows. A kind whose page is
not made of such parts has ``write(result, path)``, too.
"""

from importlib import import_module
from os import PathLike
from pathlib import Path
from typing import Any

from markupsafe import Markup

from captum_classpattern.pages.parts import encode, read_files, write_page
from captum_classpattern.results import Result

# By the name of the result's class: an object with these functions, or the name of a module of this
# package, which is imported when it is needed, since some of them take seconds.
KINDS: dict[str, Any] = {
    "Pattern": "pattern",
    "PredictivePower": "power",
    "Finding": "finding",
    "Survey": "survey",
    "Sweep": "sweep",
    "Scan": "scan",
    "Triage": "triage",
    "Comparison": "comparison",
}


def kind_of(result: Result) -> Any:
    """The entry of a result's type, or of the type that it is derived from."""
    for each in type(result).__mro__:
        kind = KINDS.get(each.__name__)
        ours = each.__module__.startswith("captum_classpattern.")
        if kind is not None and (ours or not isinstance(kind, str)):
            return import_module(f"{__name__}.{kind}") if isinstance(kind, str) else kind
    raise TypeError(
        f"nothing draws a {type(result).__name__}: add the name of its class to KINDS in {__name__}"
    )


def fragment_of(result: Result) -> str:
    """What a notebook shows of a result: a title in bold, and parts below it."""
    title, parts = kind_of(result).parts(result)
    style, content = read_files("parts.css"), Markup("\n").join(parts)
    fragment = Markup('<div class="classpattern">\n<style>{}</style>\n<p><b>{}</b></p>\n{}\n</div>')
    return encode(fragment.format(style, title, content)).decode()


def write_page_of(result: Result, path: str | PathLike[str]) -> Path:
    """Writes the page of a result, which needs no other file; returns its path."""
    kind = kind_of(result)
    if hasattr(kind, "write"):
        return Path(kind.write(result, path))
    title, parts = kind.parts(result, whole=True)
    return write_page(Path(path), title, parts)


def draw(result: Result, figure: str, **options: Any) -> Any:
    """A figure of a result, by the name of the function that draws it."""
    return getattr(kind_of(result), figure)(result, **options)
