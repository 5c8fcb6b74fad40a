"""The tables of findings and of a scan, and the JSON that the commands print."""

import json
from dataclasses import replace

import pytest
from rich.console import Console
from scanned import made_up
from surveyed import finding

from captum_classpattern.cli.printing import TABLE_WIDTH, console, document, results_table
from captum_classpattern.cli.scan import print_scan
from captum_classpattern.scanning.families import SIZES
from captum_classpattern.scanning.profile import Profile
from captum_classpattern.scanning.scan import judge


def printed(*findings):
    console = Console(width=120)
    with console.capture() as capture:
        console.print(results_table("a model", findings))
    return capture.get()


def test_the_table_has_powers_intervals_and_controls(snapshot):
    """A star where the power is clearly above all controls, on enough images; a note if few."""
    findings = (
        finding(1, "white", 50, class_name="bee [b]"),
        finding(0, "black", 50, control=0.38),  # the difference may be zero
        finding(0, "white", 50, control=0.45),
    )
    assert printed(*findings) == snapshot
    assert printed(*findings, finding(2, "white", 50, n=60)) == snapshot


def test_a_scan_is_printed_with_the_five_classes_that_differ_most(snapshot, capsys, monkeypatch):
    """Names may hold brackets and control characters."""
    monkeypatch.setenv("COLUMNS", "80")  # the console is wider
    usual = (0.2, 0.4, 0.9, 0.6, 0.5, 0.3)
    powers = {size: [power - size / 200 for power in usual] for size in SIZES}
    names = ["[red]cat", "dog\x1b[2J", "[/bold]", "owl", "fox", "bee"]
    further = {"additive": [0.0] * 6, "warp": [-0.5] * 6}
    profile = Profile(powers, [64] * 6, 0.875, 80, further, further)
    known = made_up(39, classes=6)
    known.profiles["clean 1"] = replace(known.profiles["clean 1"], accuracy=0.825)
    found = judge(profile, known, 0.05, names)
    print_scan(replace(found, notes=["[/i] is noted."]))
    assert capsys.readouterr().out == snapshot


def test_a_terminal_without_colours_is_wide_enough_for_the_tables(monkeypatch):
    monkeypatch.setenv("TERM", "dumb")
    monkeypatch.setenv("FORCE_COLOR", "1")  # rich takes the output for a terminal
    assert console().width >= TABLE_WIDTH


def test_numbers_that_json_does_not_have_are_null(tmp_path, capsys):
    given = {"a": [float("nan"), 1.5, (float("inf"), 2)], "b": {"c": -float("inf")}, "d": None}
    with document("search", tmp_path, wanted=True) as content:
        content |= {**given, "x": True, "y": "nan"}
    printed = json.loads(capsys.readouterr().out, parse_constant=pytest.fail)
    null = {"a": [None, 1.5, [None, 2]], "b": {"c": None}, "d": None, "x": True, "y": "nan"}
    assert printed == {"schema": "classpattern/search/1", "out": str(tmp_path), **null}
