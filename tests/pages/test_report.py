"""The report of a comparison has each number of it, and needs nothing but itself."""

import base64
import json
import re
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch
from reports import AREAS, Page, small_comparison, without_figures
from shown import percent

from captum_classpattern.comparison import report
from captum_classpattern.comparison.records import figure_names, strongest_names

EVIL = "</script><script>alert('x')</script>\"&{{ 7 * 7 }}<!--"


@pytest.fixture
def written(tmp_path):
    """Writes a page and reads it back."""
    return lambda comparison: comparison.to_html(tmp_path / "report.html").read_text("utf-8")


@pytest.fixture
def unillustrated(written, monkeypatch):
    without_figures(monkeypatch)
    return written


@pytest.fixture(scope="module")
def usual(tmp_path_factory):
    """The page of the small comparison."""
    path = tmp_path_factory.mktemp("usual") / "report.html"
    with pytest.MonkeyPatch.context() as patch:
        without_figures(patch)
        small_comparison().to_html(path)
    return path.read_text(encoding="utf-8")


def data_of(html):
    return json.loads(
        re.search(r'<script type="application/json" id="data">(.*?)</script>', html)[1]
    )


def test_the_page_is_well_formed_and_needs_nothing_but_itself(usual):
    page = Page(usual)
    assert not re.search(r"https?:|url\(|@import|@font-face", usual)
    ids = page.attributes("id")
    assert len(ids) == len(set(ids))
    links = [*page.attributes("src"), *page.attributes("href")]
    assert {link[1:] for link in links if not link.startswith("data:")} <= set(ids)
    assert ("html", {"lang": "en"}) in page.tags
    assert "default-src 'none'" in page.attributes("content")[0]
    assert not page.attributes("onclick")
    levels = [int(tag[1]) for tag, _ in page.tags if re.fullmatch(r"h\d", tag)]
    assert (levels[0], levels.count(1)) == (1, 1)
    assert all(after <= before + 1 for before, after in pairwise(levels))


def test_the_summary_the_numbers_and_the_slider_are_not_folded(usual):
    page = Page(usual)
    tags = [tag for tag, _ in page.tags]
    assert "canvas" in tags[: tags.index("details")]
    assert "img" not in tags[: tags.index("details")]
    assert not [attrs for tag, attrs in page.tags if tag == "details" and "open" in attrs]
    assert small_comparison().summary in page.text.replace("\N{NO-BREAK SPACE}", " ")
    names = ["model", "method"]
    heads = [head[:2] for head, *_ in page.tables.values()]
    assert heads == [names] * 4  # at the compared area, at each, differences and metrics


def table_of(html, number):
    return [*Page(html).tables.values()][number]


def test_differences_are_in_points(usual):
    head, *rows = table_of(usual, 2)
    assert head == ["model", "method", "other", "difference"]
    for row, found in zip(rows, small_comparison().differences(), strict=True):
        points = [100 * found[f"difference{end}"] for end in ("", "_low", "_high")]
        written = "{:+.1f}\xa0% ({:+.1f} to {:+.1f})".format(*points)
        assert row == [found["model"], found["method"], found["other"], written]


def interrupted(comparison):
    settings = {**comparison.settings, "complete": False}
    return replace(comparison, models={**comparison.models, "bad": None}, settings=settings)


VARIANTS = {  # and what it says
    "nothing was scored": (
        lambda comparison: replace(comparison, records=[]),
        "No pattern was scored. No method gave a map.",
    ),
    "no accuracy": (interrupted, "), bad 5 methods. This comparison was interrupted."),
    "two channels": (
        lambda _: small_comparison(channels=2),
        "Only canvases with one or three channels can be shown as images.",
    ),
    "little room": (lambda comparison: comparison, "it shows only 2 of the 4 canvases here."),
}


@pytest.mark.parametrize("case", VARIANTS)
def test_what_else_a_page_may_say(case, unillustrated, usual, monkeypatch):
    """The texts that it does not have otherwise."""
    if case == "little room":
        monkeypatch.setattr(report, "MAX_CHARACTERS", 1000)
    make, text = VARIANTS[case]
    html = unillustrated(make(small_comparison()))
    page = Page(html)
    for part in re.findall(r"[^.]+", text):
        assert part.strip() in page.text
        assert part.strip() not in Page(usual).text
    assert bool(page.tables) == (case != "nothing was scored")
    if case == "little room":
        assert len(data_of(html)["canvases"]) == 2


def test_a_figure_that_cannot_be_drawn_says_why(written):
    comparison = small_comparison(channels=2)
    records = comparison.select(kind="white", model="bad", method="RandomPixels")
    html = written(replace(comparison, records=records))
    assert "Maps and patterns: bad, white canvases only greyscale and colour" in Page(html).text


def test_the_numbers_are_a_row_for_each_method_with_its_strongest_control(usual):
    """The strongest first, on the first kind of canvas: what a notebook and the terminal show."""
    comparison = small_comparison()
    head, *rows = table_of(usual, 0)
    assert head == ["model", "method", "power", "control", "canvas"]
    expected = [
        row
        for row in comparison.rows()
        if (row.get("canvas"), row.get("area")) == ("positive", 0.1)
    ]
    expected.sort(key=lambda row: ([*comparison.models].index(row["model"]), -row["power"]))
    for row, of in zip(rows, expected, strict=True):
        name = of["method"] + " (control)" * of["is_control"]
        ends = f"({100 * of['low']:.1f} to {100 * of['high']:.1f})"
        power = f"{percent(of['power'])} {ends}"
        assert row == [of["model"], name, power, percent(of["control"]), "positive"]


def written_as(key, value):
    """How the page writes a score, worked out independently."""
    if key in ("power", "control", "no_pattern"):
        return percent(value)
    if key == "area":
        return f"{100 * value:g}\xa0%"
    return f"{value:.3g}" if value < 99.5 else f"{value:,.0f}"


def test_each_number_of_the_table_is_in_a_row_of_its_method(usual):
    lines = [line for table in [*Page(usual).tables.values()][1:] for line in table]
    for row in replace(small_comparison(), failures=[]).rows():
        own = [c for line in lines if line[1].startswith(row["method"]) for c in line
               if {row["model"], row["canvas"]} <= {*line}]  # fmt: skip
        scores = {k: v for k, v in row.items() if isinstance(v, float) and k not in ("low", "high")}
        if row["power"] is None:
            del scores["area"]  # of its metrics
        assert scores
        for key, value in scores.items():
            text = re.escape(written_as(key, value))
            assert any(re.match(f"{text}( |$)", cell) for cell in own), (row["method"], key)


def test_failures_settings_and_accuracies_are_on_the_page(usual):
    comparison = small_comparison()
    page = Page(usual)
    assert "Not run here: broken: RuntimeError: no Saliency here." in page.text
    for name in ("search_images_hash", "held_out_images_hash", "seed", "max_images"):
        assert f"{name} {comparison.settings[name]}" in page.text
    assert comparison.settings["versions"]["torch"] in page.text
    for name, accuracy in comparison.models.items():
        assert f"{name} (accuracy {100 * accuracy:.1f} %)" in page.text


def test_each_figure_has_its_title_as_alt_text(usual):
    alts = [attrs["alt"] for tag, attrs in Page(usual).tags if tag == "img"]
    assert len(alts) == 2 + 2 * 3  # curves of two kinds, and maps of three kinds
    assert alts[1] == "Predictive power over the area, white canvases"
    assert alts[-1] == "Maps and patterns: bad, stamped canvases"


def test_figures_have_room_for_nine_methods():
    records = list(small_comparison().records)
    own = [r for r in records if r.method == "Saliency"]
    more = [replace(r, method=f"{r.method} {i}") for i in range(9) for r in own]
    names = figure_names(records + more, 0.1)
    assert (names[0], {*names[-2:]}) == ("ClassPattern", {"RandomPixels", "BestRandomMask"})
    assert (len(names), "Saliency" in " ".join(names)) == (9, True)


def test_the_slider_gets_masks_and_powers_of_each_area(usual):
    comparison, data = small_comparison(), data_of(usual)
    assert data["areas"] == ["5\xa0%, 3 of 64", "10\xa0%, 6 of 64", "30\xa0%, 19 of 64"]
    names = [method["name"] for method in data["methods"]]
    again = [method["how"] == "Searched again for each area." for method in data["methods"]]
    controls = [method["control"] for method in data["methods"]]
    assert names == strongest_names([r for r in comparison.records if r.powers], 0.1)
    assert {*zip(names, again, controls)} == {
        ("ClassPattern", True, False), ("Saliency", False, False),
        ("RandomPixels", False, True), ("BestRandomMask", True, True),
    }  # fmt: skip
    levels = np.frombuffer(base64.b64decode(data["canvases"][1]["pixels"]), dtype=np.uint8)
    assert np.abs(levels / 255 - comparison.canvases[1].flatten().numpy()).max() < 0.003
    for record in comparison.select(kind="white", model="bad"):
        cell = data["cells"][1][record.canvas][names.index(record.name)]
        for area, packed, power in zip(AREAS, cell["masks"], cell["powers"]):
            bits = np.unpackbits(np.frombuffer(base64.b64decode(packed), dtype=np.uint8))
            assert torch.from_numpy(bits).view(1, 8, 8).bool().equal(record.masks[area])
            assert power["text"] == percent(record.powers[area].value)
    start = data["start"]  # at the strongest pattern of the compared area
    assert (start["area"], names[start["method"]]) == (1, "ClassPattern")
    records = [r for r in comparison.select(method="ClassPattern") if r.powers]
    powers = {(r.model, r.canvas): r.powers[0.1].value for r in records}
    first = powers[data["models"][start["model"]], start["canvas"]]
    assert first == max(powers.values()) > min(powers.values())


def test_the_summary_has_the_number_of_held_out_images(unillustrated):
    comparison = small_comparison()
    other = replace(comparison, settings=comparison.settings | {"held_out_images": 44})
    assert "scored on 44 held-out images that are not among the search" in unillustrated(other)


def test_names_and_errors_are_escaped(unillustrated, usual):
    names, models = [f"{EVIL}{i}" for i in range(3)], (f"a{EVIL}", f"b{EVIL}")
    comparison = small_comparison(models=models, method=f"m{EVIL}", class_names=(*names,))
    html = unillustrated(
        replace(comparison, settings={**comparison.settings, "lone\ud800": "\ud800"})
    )
    # the scripts are the data and the page's own
    assert [html.count(text) for text in ("<script", "</script", "<!--")] == [2, 2, 0]
    page, data = Page(html), data_of(html)
    for text in (*(f"{first}{EVIL}" for first in "abm"), f"no m{EVIL} here", "lone"):
        assert text in page.text
    assert data["models"] == [*models]
    assert data["canvases"][0]["name"] == f"{names[0]}, positive canvas"
    assert {tag for tag, _ in page.tags} == {tag for tag, _ in Page(usual).tags}


def test_a_file_is_replaced_and_the_same_comparison_gives_the_same_file(tmp_path, written):
    (tmp_path / "report.html").write_text("old")
    comparison = small_comparison()
    records = comparison.select(model="bad", method="Saliency", kind="white")
    small = replace(comparison, models={"bad": 0.5}, records=records)
    html = written(small)
    assert html == written(small)
    sizes = [int(attrs["width"]) for tag, attrs in Page(html).tags if tag == "img"]
    assert (len(sizes), min(sizes) > 100) == (1 + 1, True)
    assert [path.name for path in tmp_path.iterdir()] == ["report.html"]
