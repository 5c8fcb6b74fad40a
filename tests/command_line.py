"""The command line as the tests run it."""

import contextlib
import io
import os
import re
import shlex
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from captum_classpattern.cli import main
from captum_classpattern.surveys.task import SurveyTask

JSON_PAGE = (Path(__file__).parents[1] / "docs" / "api" / "json.md").read_text()


@dataclass(frozen=True)
class Result:
    exit_code: int
    stdout: str
    stderr: str

    @property
    def output(self):
        return self.stdout + self.stderr


def run(arguments):
    """Runs a command, a line or a list, in this process. Errors that are not reported in a line
    are raised."""
    code = 0
    with (
        contextlib.redirect_stdout(io.StringIO()) as stdout,
        contextlib.redirect_stderr(io.StringIO()) as stderr,
    ):
        try:
            main(shlex.split(arguments) if isinstance(arguments, str) else arguments)
        except SystemExit as stopped:
            code = stopped.code or 0
    return Result(code, stdout.getvalue(), stderr.getvalue())


def error_of(arguments, *, at_once=True):
    """What a command that refuses its input says, which is all that it prints if it does so at
    once."""
    result = run(arguments)
    assert result.exit_code == 2, result.output
    assert not (at_once and result.stdout)
    return result.stderr.replace(os.getcwd(), "HERE").removesuffix("\n")


def documented(command, position):
    """The fields of a table in what docs/api/json.md says about a command."""
    sections = re.split(r"^## ", JSON_PAGE, flags=re.MULTILINE)
    [text] = [section for section in sections if section.startswith(f"{command}\n")]
    tables = re.findall(r"\| field \| value \|\n\|.*\n((?:\|.*\n?)+)", text)
    return re.findall(r"^\| `(\w+)` \|", tables[position], re.MULTILINE)


def interrupt_searches(monkeypatch, *, after):
    """Ctrl+C when this many classes of a model are finished and others are left; never if None.
    Returns the classes of each search."""
    find, searched = SurveyTask.find, []

    def interrupted(self, targets):
        searched.append([*targets])
        yield from islice(find(self, targets), after)
        if after is not None and after < len(targets):
            raise KeyboardInterrupt

    monkeypatch.setattr(SurveyTask, "find", interrupted)
    return searched
