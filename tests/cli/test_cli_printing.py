"""The table of findings and the JSON that the commands print."""

from rich.console import Console
from surveyed import finding

from captum_classpattern.cli.printing import TABLE_WIDTH, console, finite, results_table


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


def test_a_terminal_without_colours_is_wide_enough_for_the_tables(monkeypatch):
    monkeypatch.setenv("TERM", "dumb")
    monkeypatch.setenv("FORCE_COLOR", "1")  # rich takes the output for a terminal
    assert console().width >= TABLE_WIDTH


def test_numbers_that_json_does_not_have_are_null():
    given = {"a": [float("nan"), 1.5, (float("inf"), 2)], "b": {"c": -float("inf")}, "d": None}
    assert finite(given) == {"a": [None, 1.5, [None, 2]], "b": {"c": None}, "d": None}
    assert finite({"x": True, "y": "nan"}) == {"x": True, "y": "nan"}
