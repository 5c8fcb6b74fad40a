"""The command line."""

import io
import os
import platform
import sys
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from typing import Annotated, Any

from cyclopts import App, Group, Parameter

from captum_classpattern.cli.compare import compare
from captum_classpattern.cli.demo import demo
from captum_classpattern.cli.options import MAIN, MORE
from captum_classpattern.cli.printing import NO_READER, plain_errors
from captum_classpattern.cli.scan import scan_command
from captum_classpattern.cli.search import search
from captum_classpattern.cli.sweep import sweep_command

# as the help lists them
COMMANDS: dict[str, dict[str, Any]] = {
    "Start here": {"demo": demo},
    "One model": {"search": search, "scan": scan_command, "compare": compare},
    "Many models": {"sweep": sweep_command},
}
# of version 0.5, with which scans compared models
GONE = {"reference", "--references", "--make-references", "--alpha", "--epochs", "--no-flips"}
PACKAGES = ("captum_classpattern", "captum", "torch", "torchvision", "numpy")
HELP = """\
Find the few pixels that make an image classifier predict a class.

For example:

    classpattern demo
    classpattern search my_model.pt --arch my_net:MyNet --data my_images
    classpattern scan my_model.pt --data my_images

Each command shows its options and examples with --help.
"""


def version_report() -> str:
    """What a bug report needs: the versions, one per line. Nothing slow is imported."""
    lines = []
    for package in PACKAGES:
        try:
            lines.append(f"{package} {version(package)}")
        except PackageNotFoundError:  # such as a build of PyTorch under another name
            lines.append(f"{package} of an unknown version")
    return "\n".join([*lines, f"Python {platform.python_version()}, {platform.platform()}"])


app = App(
    name="classpattern",
    help=HELP,
    usage="Usage: classpattern COMMAND [OPTIONS]",
    version=version_report,
    version_flags="--version",
    version_format="plaintext",
    group_parameters=MAIN,
    help_format="markdown",
    default_parameter=Parameter(
        negative="",
        allow_repeating=True,  # the last value counts
        show_default=lambda value: None if value is False else value,
    ),
    result_action="return_value",
)
app["--help"].group = app["--version"].group = MORE
for number, (title, commands) in enumerate(COMMANDS.items()):
    panel = Group(title, sort_key=number)
    for position, (name, command) in enumerate(commands.items()):
        app.command(command, name=name, group=panel, sort_key=position)


@app.meta.default
def _run(
    *tokens: Annotated[str, Parameter(show=False, allow_leading_hyphen=True)],
    debug: Annotated[bool, Parameter(group=MORE)] = False,
) -> None:
    """Runs a command.

    Args:
        tokens: The command and its options.
        debug: Show everything that an error lists, and its traceback.
    """
    commands = [app[name] for group in COMMANDS.values() for name in group]
    arguments = [a for command in commands for a in command.assemble_argument_collection()]
    with plain_errors(debug, {name for argument in arguments for name in argument.names}):
        if tokens[:1] in (("scan",), ("reference",)):
            refuse_what_is_gone(tokens)
        code = app(tokens, exit_on_error=False, print_error=False)
    if code:
        raise SystemExit(code)


def refuse_what_is_gone(tokens: Sequence[str]) -> None:
    """Raises an error if these words have a command or an option of version 0.5."""
    for token in tokens:
        if (name := token.partition("=")[0]) in GONE:
            raise ValueError(
                f"{name} went with version 0.6: a scan needs no clean models any more, so leave it "
                "out"
            )


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the command line, with the process's arguments unless others are given."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # not all consoles know all characters
    try:
        app.meta(arguments)
        sys.stdout.flush()
    except BrokenPipeError:  # as in: classpattern ... | head -1
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # for the last flush
        raise SystemExit(NO_READER) from None
