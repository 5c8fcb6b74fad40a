"""The command line."""

from collections.abc import Callable, Sequence
from typing import Annotated

from cyclopts import App, Parameter

import captum_classpattern
from captum_classpattern.cli.apply import apply
from captum_classpattern.cli.compare import compare
from captum_classpattern.cli.demo import demo
from captum_classpattern.cli.errors import plain_errors
from captum_classpattern.cli.gallery import gallery
from captum_classpattern.cli.options import OTHER
from captum_classpattern.cli.scan import reference, scan
from captum_classpattern.cli.search import search
from captum_classpattern.cli.sweep import sweep

# as the help lists them
COMMANDS: tuple[Callable[..., None], ...] = (
    *(demo, search, sweep, scan, reference, compare, gallery, apply),
)

app = App(
    name="classpattern",
    help="Class-wise patterns: the few pixels that make an image classifier predict a class.",
    version=captum_classpattern.__version__,
    version_flags="--version",
    help_format="markdown",
    default_parameter=Parameter(
        negative="",
        allow_repeating=True,  # the last value counts
        show_default=lambda value: None if value is False else value,
    ),
    result_action="return_value",
)
app["--help"].group = app["--version"].group = OTHER
for position, command in enumerate(COMMANDS):
    app.command(command, sort_key=position)


@app.meta.default
def _run(
    *tokens: Annotated[str, Parameter(show=False, allow_leading_hyphen=True)],
    debug: Annotated[bool, Parameter(group=OTHER)] = False,
) -> None:
    """Runs a command.

    Args:
        tokens: The command and its options.
        debug: Show the traceback of an error. By default, an error is one line.
    """
    with plain_errors(debug):
        app(tokens, exit_on_error=False, print_error=False)


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the command line; ``arguments`` are those of the process unless they are given."""
    app.meta(arguments)
