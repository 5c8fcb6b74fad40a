"""How pages are made: templates that escape everything."""

from base64 import b64encode
from hashlib import sha256
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

TEMPLATES = Path(__file__).with_name("templates")


def new_environment(*folders: Path) -> Environment:
    """Templates of these folders and those that all pages share. A value that is missing is an
    error."""
    return Environment(
        loader=FileSystemLoader([*folders, TEMPLATES]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )


def read_template(environment: Environment, name: str) -> str:
    """The text of a file next to the templates."""
    assert environment.loader is not None
    return environment.loader.get_source(environment, name)[0]


def read_style(environment: Environment, *names: str) -> Markup:
    """The style sheet that all pages share, followed by a page's own ones."""
    return Markup("".join(read_template(environment, name) for name in ("page.css", *names)))


def hash_source(text: str) -> str:
    """A script or style sheet as a content security policy allows it."""
    return f"'sha256-{b64encode(sha256(text.encode()).digest()).decode()}'"


def policy(images: str, *, script: str = "'none'", style: str = "'none'") -> str:
    """A content security policy: what a page may load, and nothing else."""
    return (
        f"default-src 'none'; img-src {images}; script-src {script}; style-src {style}; "
        "base-uri 'none'; form-action 'none'"
    )


def encode(page: str) -> bytes:
    """A page as bytes; names may hold lone surrogates, which UTF-8 can't encode."""
    return page.encode("utf-8", "xmlcharrefreplace")
