"""What the page and the terminal show of a scan."""

import re
from dataclasses import replace

import pytest
from scanned import NAMES, made_up
from shown import HOSTILE, check, read, table_of

from captum_classpattern.cli.printing import print_result


def html_of(found):
    return found.to_html("scan.html").read_text(encoding="utf-8")


@pytest.fixture(autouse=True)
def _in_an_empty_folder(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)


CASES = {
    "suspicious": {},
    "a perturbation": {"kind": "perturbation"},
    "nothing found": {"lead": 0.0},
    "two searches disagree": {"again": 0.2},
    "three classes": {"names": ("cat", "dog", "owl")},
}


def test_a_page_in_words(snapshot):
    text = check(html_of(replace(made_up(), source="owls.pt")), pictures=1).text
    assert re.sub(r"(?<=[.?:]) ", "\n", text) == snapshot


@pytest.mark.parametrize("case", CASES)
def test_what_is_printed(case, capsys):
    """The verdict in words, and the first classes."""
    found = made_up(**CASES[case])
    print_result(found)
    lines = [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]
    said = " ".join(lines)
    for text in (found.headline, found.reason, *found.remarks):
        assert " ".join(text.split()) in said
    for name in found.shown_table()["name"]:
        assert any(line.startswith(f"{name} ") for line in lines)


def test_the_table_of_a_page_has_each_class():
    found = made_up()
    rows = table_of(read(found))
    assert list(rows) == ["owl", "fox", "dog", "cat"]
    for y, name in enumerate(NAMES):
        for kind in found.found:
            words = kind.replace("_", " ")
            assert rows[name][f"power {words}"] == f"{100 * found.power_of(kind, y):.0f}\xa0%"
            assert rows[name][f"lead {words}"] == f"{found.leads(kind)[y]:+.2f}"


def test_names_are_shown_as_texts():
    page = read(made_up(), pictures=1)
    hostile = made_up(names=(HOSTILE, *NAMES[1:]))
    assert [tag for tag, _ in read(hostile).tags] == [tag for tag, _ in page.tags]
    check(html_of(hostile), pictures=1)
