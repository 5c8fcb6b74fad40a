"""The table of findings that the commands print."""

import pytest
from rich.console import Console
from surveyed import finding

from captum_classpattern.cli.printing import TABLE_WIDTH, console, results_table


def printed(*findings):
    console = Console(width=120)
    with console.capture() as capture:
        console.print(results_table("a model", findings))
    return capture.get()


def test_the_table_has_powers_intervals_and_controls():
    text = printed(finding(1, "white", 50, class_name="bee [b]"))
    row = next(line for line in text.splitlines() if "bee [b]" in line)
    assert row.split() == [
        "bee", "[b]", "white", "50.0%", "(40.4-59.6)*", "2.0%", "(0.6-7.0)",
        "1.0%", "2.0%", "3.0%",
    ]  # fmt: skip
    assert "power at 5 %" in text
    assert "power at 1 %" in text


@pytest.mark.parametrize("control", [0.38, 0.45])
def test_no_star_where_the_difference_to_a_control_may_be_zero(control):
    row = printed(finding(0, "white", 50, control=control)).splitlines()[-2]
    assert "50.0% (40.4-59.6) " in row
    assert "*" not in row


def test_a_table_of_too_few_images_has_no_star_and_says_so():
    few = printed(finding(1, "white", 50), finding(0, "white", 50, n=60))
    rows = [line for line in few.splitlines() if "50" in line or "83" in line]
    assert ["*" in row for row in rows] == [True, False]
    assert few.splitlines()[-1].strip() == (
        "Too few images: 60 were scored. A star and 'stands out' need at least 100."
    )
    assert "Too few" not in printed(finding(1, "white", 50))


def test_a_terminal_without_colours_is_wide_enough_for_the_tables(monkeypatch):
    monkeypatch.setenv("TERM", "dumb")
    monkeypatch.setenv("FORCE_COLOR", "1")  # rich takes the output for a terminal
    assert console().width >= TABLE_WIDTH
