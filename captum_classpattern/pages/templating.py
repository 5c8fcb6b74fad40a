"""How pages are made: templates that escape everything."""

from base64 import b64encode
from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from captum_classpattern.visualization.formats import (
    SPACE,
    percent,
    percent_area,
    percent_range,
)

ARROW = "\N{SINGLE RIGHT-POINTING ANGLE QUOTATION MARK}"
TEMPLATES = Path(__file__).with_name("templates")


def new_environment() -> Environment:
    """The templates of all pages. A value that is missing is an error."""
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {
        "percent": percent,
        "percent_area": percent_area,
        "percent_range": lambda interval: f"{percent_range(*interval)}{SPACE}%",
        "data_uri": data_uri,
        "axis": lambda share: f"{100 * share:.4g}",
    }
    return environment


def read_template(name: str) -> str:
    """The text of a file next to the templates."""
    return (TEMPLATES / name).read_text(encoding="utf-8")


def read_style(*names: str) -> Markup:
    """The style sheet that all pages share, followed by a page's own ones."""
    return Markup("".join(map(read_template, ("page.css", *names))))


def hash_source(text: str) -> str:
    """A script or style sheet as a content security policy allows it."""
    return f"'sha256-{b64encode(sha256(text.encode()).digest()).decode()}'"


def policy(images: str, *, script: str = "'none'", style: str = "'none'") -> str:
    """A content security policy: what a page may load, and nothing else."""
    return (
        f"default-src 'none'; img-src {images}; script-src {script}; style-src {style}; "
        "base-uri 'none'; form-action 'none'"
    )


def data_uri(png: bytes) -> str:
    """A PNG image as an address that holds it."""
    return f"data:image/png;base64,{b64encode(png).decode()}"


def encode(page: str) -> bytes:
    """A page as bytes; names may hold lone surrogates, which UTF-8 can't encode."""
    return page.encode("utf-8", "xmlcharrefreplace")


def settings_lines(settings: Mapping[str, Any], parent: str = "") -> list[tuple[str, str]]:
    """Nested settings as lines, each with its path of names."""
    lines: list[tuple[str, str]] = []
    for key, value in settings.items():
        name = f"{parent} {ARROW} {key}" if parent else str(key)
        if isinstance(value, Mapping) and value:
            lines += settings_lines(value, name)
        else:
            lines.append((name, _plain(value)))
    return lines


def _plain(value: Any) -> str:
    if value == {}:
        return "defaults"
    if value is None or value == []:
        return "none"
    if isinstance(value, list | tuple):
        return ", ".join(_plain(item) for item in value)
    return str(value)
