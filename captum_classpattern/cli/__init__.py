"""The command line."""

from typing import Annotated

import typer

import captum_classpattern
from captum_classpattern.cli.apply import apply
from captum_classpattern.cli.compare import compare
from captum_classpattern.cli.demo import demo
from captum_classpattern.cli.search import search

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)
for command in (demo, search, compare, apply):
    app.command()(command)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(captum_classpattern.__version__)
        raise typer.Exit


@app.callback()
def main(
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="Print the version."
        ),
    ] = False,
) -> None:
    """Class-wise patterns: the few pixels that make an image classifier predict a class."""
