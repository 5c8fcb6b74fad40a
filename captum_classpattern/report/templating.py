"""How pages are made: templates that escape everything."""

from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

TEMPLATES = Path(__file__).with_name("templates")


def new_environment(*folders: Path) -> Environment:
    """Templates of these folders and of the report. A value that is missing is an error."""
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


def encode(page: str) -> bytes:
    """A page as bytes; names may hold lone surrogates, which UTF-8 can't encode."""
    return page.encode("utf-8", "xmlcharrefreplace")
