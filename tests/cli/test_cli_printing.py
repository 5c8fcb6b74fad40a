"""The tables and sentences that the commands print."""

import io
import subprocess
import sys
from dataclasses import dataclass
from types import SimpleNamespace

import pytest

from captum_classpattern import cli
from captum_classpattern.cli.printing import plain_errors, print_result, say
from captum_classpattern.results import Result, as_table, as_texts


@dataclass(frozen=True)
class Shown(Result):
    rows: list

    def text(self):
        return "A\x07 title"

    def shown_table(self):
        forms = {"class": "", "power": ".1%", "n": "d", "above": ".0f"}
        return as_texts(as_table(self.rows), forms)


def test_a_table_has_the_columns_that_have_a_format(capsys):
    rows = [
        {"class": "[b]", "power": 0.25, "n": 3, "other": 1},
        {"class": "dog\x1b[2J", "power": None, "n": 12, "above": "few"},
        {"class": "cat", "power": 0.0, "n": 0},
        {"class": "cow", "n": None},
        {"class": "owl"},
    ]
    print_result(Shown(rows), 4)
    title, _, head, first, second, third, empty, *end = capsys.readouterr().out.split("\n")
    assert (title, end) == ("A? title", ["", ""])
    assert head.split() == ["class", "power", "n", "above"]
    assert first.split() == ["[b]", "25.0", "%", "3"]
    assert second.split() == ["dog?[2J", "12", "few"]
    assert third.split() == ["cat", "0.0", "%", "0"]
    assert empty.split() == ["cow"]


@pytest.mark.parametrize("encoding", ["ascii", "cp1252"])
def test_any_console_can_print_any_name(encoding, monkeypatch):
    """Imitated: consoles of Windows and of old systems know few characters."""
    written = io.TextIOWrapper(io.BytesIO(), encoding)  # as Python opens them, with strict errors
    monkeypatch.setattr(sys, "stdout", written)
    app = SimpleNamespace(meta=lambda _: say("Köter 犬, caf\udce9"))
    monkeypatch.setattr(cli, "app", app)
    cli.main([])
    shown = {"ascii": r"K\xf6ter \u72ac, caf?", "cp1252": r"Köter \u72ac, caf?"}[encoding]
    assert written.buffer.getvalue().decode(encoding).splitlines() == [shown]


def test_a_closed_pipe_ends_a_command_quietly():
    """As in: classpattern ... | head -1."""
    code = """
from types import SimpleNamespace
from captum_classpattern import cli
from captum_classpattern.cli.printing import plain_errors, say_line

def meta(_):
    with plain_errors(False, []):
        for _ in range({lines}):
            say_line("a line")
            {more}

cli.app = SimpleNamespace(meta=meta)
cli.main([])
"""
    for lines, more in ((100_000, ""), (1, "print('b', end='')")):
        with subprocess.Popen(
            [sys.executable, "-c", code.format(lines=lines, more=more)],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        ) as process:  # fmt: skip
            process.stdout.close()
            assert process.stderr.read() == b""
        assert process.returncode == 141


def test_sentences_fit_the_terminal_and_name_options(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "20")
    with plain_errors(False, {"--area"}):
        say("one two three four five six", "a/path/that/is-longer/than/the/terminal", "an `area`")
    say("an `area`")
    lines = ["one two three four", "five six", "a/path/that/is-longer/than/the/terminal"]
    lines += ["an --area", "an area"]
    assert capsys.readouterr().out.splitlines() == lines
