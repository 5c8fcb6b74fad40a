"""What the page, the figure and the terminal say about a scan."""

import re
from dataclasses import replace
from functools import cache

import numpy as np
import pytest
from captum_classpattern.scanning.compared import Compared
from captum_classpattern.scanning.families import FAMILIES
from matplotlib.figure import Figure
from scanned import NAMES, looked_at, made_up
from shown import HOSTILE, check, read, table_of

from captum_classpattern.cli.printing import print_result
from captum_classpattern.visualization.drawing import levels, on_neutral

ARROW = "\N{RIGHTWARDS ARROW}"


scan_of = cache(looked_at)


@pytest.fixture(scope="module")
def found():
    return scan_of()


def html_of(found):
    return found.to_html("scan.html").read_text(encoding="utf-8")


@pytest.fixture(autouse=True)
def _in_an_empty_folder(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)


CASES = {
    "suspicious": {},
    "a perturbation": {"family": "additive"},
    "nothing found": {"family": "nothing"},
    "too few references": {"known": 4},
    "no images left": {"n": 200},
}


def test_a_page_in_words(snapshot, found):
    text = check(html_of(replace(found, source="owls.pt")), pictures=1).text
    assert re.sub(r"(?<=[.?:]) ", "\n", text) == snapshot


@pytest.mark.parametrize("case", CASES)
def test_what_is_printed(case, capsys):
    """The verdict in words, and the first classes."""
    found = scan_of(**CASES[case])
    print_result(found)
    lines = [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]
    said = " ".join(lines)
    for text in (found.reason, found.likeness, *found.notes):
        assert text in said
    for name in found.shown_table()["name"]:
        assert any(line.startswith(f"{name} ") for line in lines)


def test_the_table_of_a_page_has_each_class(found):
    rows = table_of(read(found))
    assert list(rows) == [NAMES[y] for y in found.comparison.order]
    for y, name in enumerate(NAMES):
        assert rows[name]["power 6"] == f"{100 * found.profile.powers[6][y]:.0f}\xa0%"
        assert rows[name]["gain warp"] == f"{found.profile.gains['warp'][y]:+.2f}"
        assert rows[name]["excess"] == f"{found.comparison.excess[y]:+.2f}"
        assert rows[name]["lead"] == f"{found.comparison.standardised[y]:+.2f}"


def test_names_are_shown_as_texts(found):
    page = read(found, pictures=1)
    assert found.reason in page.text
    hostile = looked_at(names=[HOSTILE, *NAMES[1:]])
    assert [tag for tag, _ in read(hostile).tags] == [tag for tag, _ in page.tags]
    check(html_of(hostile), pictures=1)


def test_without_a_look_at_images_there_is_the_chart_alone():
    known = made_up(19)
    found = Compared.of(known.profiles["clean 3"], known, 0.05, NAMES)
    assert found.next_steps[0] in check(html_of(found), pictures=1).text
    figure, axes = found.plot(use_pyplot=False)
    assert isinstance(figure, Figure)
    assert [axis.get_xlabel()[:6] for axis in axes[:, -1]] == ["first:"] * len(FAMILIES)
    print_result(found)


def test_cells_and_channels_that_cannot_be_drawn(found):
    cells = replace(found, references=replace(found.references, shape=(1, 66, 66)))
    assert " cells" in read(cells).text
    other = replace(found, references=replace(found.references, shape=(2, 8, 8)))
    assert len(other.plot(use_pyplot=False)[1]) == len(FAMILIES)


# ---- the figure


def test_the_figure_shows_images_with_predictions_and_the_excess_of_all_classes(found):
    figure, axes = found.plot(use_pyplot=False)
    assert (
        figure.get_suptitle()
        == "Suspicious: owl leads the other classes further than any class of 19 clean models."
    )
    assert found.draw(None, use_pyplot=False)[0].get_suptitle() == ""  # a page has it above
    assert axes.shape == (3, 5)
    assert axes[0, 2].get_title().startswith("held-out images")
    for row, (family, look) in zip(axes, found.looks.items()):
        each = found.comparisons[family]
        words = row[0].get_ylabel().replace("\n", " ")
        assert words == f"{FAMILIES[family].words}: {NAMES[look.target]}"
        image = on_neutral(found.pattern.canvas, found.pattern.mask)
        if family != "patches":
            of_class = found.profile, look.target, found.references.shape
            image = FAMILIES[family].picture(*of_class).expand(3, -1, -1)
        shown = [image, *(each.expand(3, -1, -1) for each in look.after.images)]
        for axis, image in zip(row, shown):
            assert np.array_equal(axis.images[0].get_array(), levels(image))
        for axis, before, after in zip(row[1:], look.before.names, look.after.captions):
            assert axis.get_xlabel().replace("\n", " ") == f"{before} {ARROW} {after}"
        hits = [axis.xaxis.label.get_fontweight() == "bold" for axis in row[1:4]]
        assert hits == [y == look.target for y in look.after.predicted]
        drawn = [list(line.get_xdata()) for line in row[4].lines]
        assert drawn.pop(0) == [found.bound] * 2
        excess = each.standardised[each.order].tolist()
        assert drawn == [each.usual_standardised.tolist(), excess[1:], excess[:1]]
        first = ", ".join(NAMES[y] for y in each.order[:3])
        assert row[4].get_xlabel().replace("\n", " ") == f"first: {first}"
        low, high = row[4].get_xlim()
        assert low < min(map(min, drawn)) <= max(map(max, drawn)) < high
    doubted = replace(found.looks["patches"], target=2)  # a strong pattern of another class
    other = replace(found, looks=found.looks | {"patches": doubted})
    words = other.plot(use_pyplot=False)[1][0, 0].get_ylabel().replace("\n", " ")
    assert words == f"{FAMILIES['patches'].words}: {NAMES[2]}"
    of_patches = other.as_dict()["families"]["patches"]
    assert (of_patches["target"], of_patches["shown"]) == (found.target, 2)
    few = scan_of(n=200).plot(use_pyplot=False)[1]
    assert few[0, 2].get_title().startswith("images")


@pytest.mark.parametrize(("known", "alpha"), [(19, 0.05), (39, 0.05), (40, 0.1), (38, 0.1)])
def test_a_model_can_be_suspicious_only_right_of_the_dotted_line(known, alpha):
    """It lies at 4.5 in each figure. What is rare as well is suspicious."""
    references = made_up(known)
    found = Compared.of(references.profiles["clean 0"], references, alpha, NAMES)
    own = max(each.largest for each in found.comparisons.values())
    assert found.bound == 4.5
    assert (found.verdict == "suspicious") == (found.p_value <= alpha and own > found.bound)
    assert Compared.of(references.profiles["clean 0"], made_up(3), alpha, NAMES).bound is None
