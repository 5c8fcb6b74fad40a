"""The page that write_report makes, read back."""

import base64
import json
import re
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from reports import AREAS, Page, small_comparison

from captum_classpattern.comparison import Metric
from captum_classpattern.comparison.records import figure_names, strongest_names
from captum_classpattern.pages import report, report_data
from captum_classpattern.pages.report import write_report
from captum_classpattern.pages.report_data import tables
from captum_classpattern.scores.power import PredictivePower
from captum_classpattern.visualization.formats import number

VERDICTS = [
    {"holds": True, "text": "Patterns reach 40.0 %.", "claim": "It works"},
    {"holds": False, "text": "No class reaches 90 %.", "title": "Almost any image"},
]
EVIL = "</script><script>alert('x')</script>\"&{{ 7 * 7 }}<!--"


@pytest.fixture
def written(tmp_path):
    """Writes a page and reads it back."""

    def write(comparison=None, **keywords):
        path = write_report(comparison or small_comparison(), tmp_path / "report.html", **keywords)
        return path.read_text(encoding="utf-8")

    return write


@pytest.fixture
def unillustrated(written, monkeypatch):
    """The same without figures, which take long."""
    monkeypatch.setattr(report, "draw_figures", lambda comparison, figures: [])
    return written


@pytest.fixture(scope="module")
def usual(tmp_path_factory):
    """The page of the small comparison with two verdicts."""
    path = tmp_path_factory.mktemp("usual") / "report.html"
    return write_report(small_comparison(), path, verdicts=VERDICTS).read_text(encoding="utf-8")


def data_of(html):
    return json.loads(
        re.search(r'<script type="application/json" id="data">(.*?)</script>', html)[1]
    )


def test_the_page_needs_nothing_but_itself(usual):
    html = usual
    page = Page(html)
    assert not re.search(r"https?:|url\(|@import|@font-face", html)
    links = [*page.attributes("src"), *page.attributes("href")]
    assert all(link.startswith(("#", "data:")) for link in links)
    ids = page.attributes("id")
    assert len(ids) == len(set(ids))
    assert all(link[1:] in ids for link in links if link.startswith("#"))
    assert ("html", {"lang": "en"}) in page.tags
    assert "default-src 'none'" in page.attributes("content")[0]
    assert not page.attributes("style")
    assert not page.attributes("onclick")


def test_headings_leave_no_level_out(usual):
    levels = [int(tag[1]) for tag, _ in Page(usual).tags if tag[:1] == "h"
              and tag[1:].isdigit()]  # fmt: skip
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after <= before + 1 for before, after in pairwise(levels))


def test_verdicts_that_fail_come_first(unillustrated):
    text = Page(unillustrated(verdicts=VERDICTS, title="Ants & bees")).text
    parts = [
        "Ants & bees",
        "Fails",
        "Almost any image",
        "No class",
        "Holds",
        "It works",
        "Patterns reach",
        "Power of 10",
    ]
    places = [text.index(part) for part in parts]
    assert places == sorted(places)


def test_the_order_is_models_slider_verdicts_numbers_and_the_rest_folded(usual):
    page = Page(usual)
    assert [attrs["id"] for tag, attrs in page.tags if tag == "section" and "id" in attrs] == [
        "patterns",
        "verdicts",
        "numbers",
        "more",
    ]
    tags = [tag for tag, _ in page.tags]
    assert "canvas" in tags[: tags.index("details")]
    assert "img" not in tags[: tags.index("details")]
    models = small_comparison().models
    first = page.text.split("Class and canvas")[0]
    assert all(f"{name} (accuracy {100 * a:.1f} %)" in first for name, a in models.items())
    assert not [attrs for tag, attrs in page.tags if tag == "details" and "open" in attrs]
    summaries = re.findall("<summary>([^<]+)</summary>", usual)
    assert summaries == [
        "How to read this page",
        "Power over the area",
        "Maps of all methods",
        "Numbers of the slider",
        "All tables: every method, metric and area",
        "Failures (2)",
        "Models and settings",
    ]


def test_only_the_first_of_many_models_are_named_at_the_top(unillustrated):
    comparison = small_comparison()
    models = {f"net {number}": 0.5 for number in range(8)} | comparison.models
    text = Page(unillustrated(replace(comparison, models=models), verdicts=())).text
    first = text.split("Class and canvas")[0]
    assert "net 5 (accuracy 50.0 %), and 4 more" in first
    assert "net 6" not in first


def test_each_verdict_is_a_line_with_its_number_and_its_control(unillustrated):
    comparison = small_comparison()
    html = unillustrated()
    lines = [
        " ".join(Page(line).text.split())
        for line in re.findall("<details><summary>\n(.*?)</summary>", html, re.DOTALL)
    ]
    verdicts = sorted(comparison.verdicts(), key=lambda verdict: verdict["holds"])
    assert len(lines) == len(verdicts) == 5
    for line, verdict in zip(lines, verdicts):
        outcome = "\N{CHECK MARK} Holds" if verdict["holds"] else "\N{BALLOT X} Fails"
        model = f"{verdict['model']}: " if "model" in verdict else ""
        control = f" against {verdict['control']}" if "control" in verdict else ""
        assert line == f"{outcome} {model}{verdict['title']} {verdict['value']}{control}"
    assert [v["title"] for v in verdicts if "control" not in v] == ["All methods gave maps"]


def test_the_numbers_are_a_row_a_model_and_a_column_a_method(usual):
    comparison = small_comparison()
    head, *rows = Page(usual).tables["table-numbers"]
    head = [heading.replace("\u200b", "") for heading in head]
    assert head == [
        "model",
        "canvas",
        "ClassPattern",
        "Saliency",
        "RandomPixels (control)",
        "BestCrop (control)",
        "no pattern (control)",
    ]
    kinds = ("positive", "white")
    assert [row[:2] for row in rows] == [[m, kind] for m in ("clean", "bad") for kind in kinds]
    for model, kind, *cells in rows:
        means = {
            row["method"]: row
            for row in comparison.rows()
            if (row["model"], row.get("kind"), row.get("ranking")) == (model, kind, "signed")
            and row["level"] == "image"
        }
        for name, cell in zip(head[2:], cells):
            row = means.get(name.removesuffix(" (control)"), means["ClassPattern"])
            value = row["no_pattern" if name.startswith("no pattern") else "power_0.1"]
            assert cell.startswith(f"{100 * value:.1f}\xa0%")


@pytest.mark.parametrize("verdict", [{"text": "x"}, {"holds": "yes", "text": "x"}, {"holds": True}])
def test_a_verdict_must_hold_or_fail(unillustrated, verdict):
    with pytest.raises(ValueError, match='verdict 1 must have "holds"'):
        unillustrated(verdicts=[VERDICTS[0], verdict])


def test_without_verdicts_there_is_no_section_for_them(unillustrated):
    assert "Verdicts" not in Page(unillustrated(verdicts=())).text


def test_by_default_the_page_has_the_verdicts_of_the_comparison(unillustrated):
    text = Page(unillustrated()).text
    for verdict in small_comparison().verdicts():
        assert verdict["title"] in text
        assert " ".join(verdict["text"].split()) in text


def written_as(key, value):
    """How the page writes a score, worked out independently; None for the ends of intervals."""
    if key.endswith(("_low", "_high")):
        return None
    if key.startswith(("power_", "rethresholded_", "on_", "no_pattern")):
        return f"{100 * value:.1f}\N{NO-BREAK SPACE}%"
    if key == "seconds" and value < 99.5:
        return "< 0.001" if value < 0.001 else f"{value:.2g}"
    if key in ("seconds", "passes", "infidelity", "sensitivity", "components"):
        return f"{value:.3g}" if value < 99.5 else f"{value:,.0f}"
    return f"{value:.3f}"


def test_each_number_of_the_table_is_in_a_row_of_its_method(usual):
    comparison = small_comparison()
    tables = Page(usual).tables
    compact = ("table-by-area", "table-numbers")
    lines = [line for key, table in tables.items() if key not in compact for line in table]
    for row in replace(comparison, failures=[]).rows():
        name = row["method"] + ", class mean" * (row["level"] == "class")
        own = [c for line in lines if line[0].startswith(name) for c in line
               if row["model"] in line and row["kind"] in line]  # fmt: skip
        scores = {k: v for k, v in row.items() if isinstance(v, float)}
        if row["kind"] == "stamped":  # cost as much as the others, and stand in no other table
            scores = {k: v for k, v in scores.items() if k not in ("passes", "seconds")}
        assert scores
        for key, value in scores.items():
            text = written_as(key, value)
            if text is not None:
                assert any(re.match(rf"{re.escape(text)}( |$)", cell) for cell in own), (name, key)


def test_the_main_table_has_intervals_and_marks_controls(usual):
    comparison = small_comparison()
    head, *rows = Page(usual).tables["table-main"]
    assert head[:5] == ["method", "model", "canvas", "power at 10\xa0%", "no pattern"]
    [row] = [r for r in rows if r[:3] == ["RandomPixels control", "bad", "white"]]
    records = comparison.select(model="bad", method="RandomPixels", kind="white")
    [expected] = replace(comparison, records=records, failures=[]).rows()
    low, high = (100 * expected[f"power_0.1_{end}"] for end in ("low", "high"))
    assert row[3].endswith(f"({low:.1f}\N{EN DASH}{high:.1f})")
    assert not [r for r in rows if r[2] == "stamped"]


def test_hidden_and_visible_triggers_have_separate_tables(usual):
    tables = Page(usual).tables
    assert {row[2] for row in tables["table-hidden"][1:]} == {"positive", "white"}
    assert {row[2] for row in tables["table-visible"][1:]} == {"stamped"}
    owners = {(row[1], row[3]) for row in tables["table-hidden"][1:]}
    assert owners == {("bad", "this model's"), ("clean", "another model's (control)")}
    models = [row[1] for row in tables["table-visible"][1:]]
    assert models == ["bad"] * 5 + ["clean"] * 5
    assert "ClassPattern searches" in {row[0] for row in tables["table-visible"]}
    assert tables["table-hidden"][0][3:] == [
        "trigger",
        "IoU", "average precision", "pointing game", "relevance mass", "relevance rank"
    ]  # fmt: skip


def test_failures_settings_and_accuracies_are_on_the_page(usual):
    comparison = small_comparison()
    page = Page(usual)
    failed = [row[:3] for row in page.tables["table-failures"]]
    assert ["broken", "bad", "maps"] in failed
    assert "RuntimeError: no Saliency here" in page.text
    for name in ("search_images_hash", "held_out_images_hash", "seed", "max_images"):
        assert f"{name} {comparison.settings[name]}" in page.text
    assert comparison.settings["versions"]["torch"] in page.text
    for name, accuracy in comparison.models.items():
        assert [name, f"{100 * accuracy:.1f}\xa0%"] in page.tables[None]


def test_each_figure_has_its_numbers_as_alt_text(written):
    figure = Figure()
    figure.subplots().set_title("of mine")
    page = Page(written(figures={"Another one": figure}))
    alts = [attrs["alt"] for tag, attrs in page.tags if tag == "img"]
    assert len(alts) == 2 + 2 * 3 + 1  # curves of two kinds, maps of three kinds, and one more
    assert all("\xa0%" in alt or "IoU" in alt for alt in alts[:-1])
    assert alts[-1] == "Another one. It shows: of mine."
    power = small_comparison().select(model="bad", method="ClassPattern", kind="white")
    average = sum(record.powers[0.3].value for record in power) / 2
    assert f"to {100 * average:.1f}\xa0% at 30\xa0%" in alts[1].split("bad:")[1]


def test_names_and_errors_are_escaped(written, usual):
    names = (f"{EVIL}0", f"{EVIL}1", f"{EVIL}2")
    comparison = small_comparison(
        models=(f"a{EVIL}", f"b{EVIL}"), method=f"m{EVIL}", class_names=names
    )
    html = written(
        comparison,
        title=f"t{EVIL}",
        verdicts=[{"holds": False, "text": f"v{EVIL}", "claim": f"c{EVIL}"}],
        figures={f"f{EVIL}": Figure()},
    )
    assert len(re.findall("<script", html)) == 2  # the data and the page's own
    assert len(re.findall("</script", html)) == 2
    assert not re.findall("<!--", html)
    page = Page(html)
    for first in "abmvcf":
        assert f"{first}{EVIL}" in page.text
    assert f"no m{EVIL} here" in page.text
    data = data_of(html)
    assert data["models"] == [f"a{EVIL}", f"b{EVIL}"]
    assert data["canvases"][0]["name"] == f"{names[0]}, positive canvas"
    assert {tag for tag, _ in page.tags} == {tag for tag, _ in Page(usual).tags}


def test_lone_surrogates_are_written(unillustrated):
    comparison = small_comparison()
    html = unillustrated(replace(comparison, settings={"lone\ud800": "\ud800"}))
    assert "lone" in Page(html).text


def test_the_same_comparison_gives_the_same_file(written, usual):
    assert written(verdicts=VERDICTS) == usual


def test_a_file_is_replaced_and_nothing_else_is_left(tmp_path, unillustrated):
    (tmp_path / "report.html").write_text("old")
    unillustrated()
    assert [path.name for path in tmp_path.iterdir()] == ["report.html"]


def test_the_slider_gets_masks_and_powers_of_each_area(usual):
    comparison = small_comparison()
    data = data_of(usual)
    assert data["areas"] == ["5\xa0%, 3 of 64", "10\xa0%, 6 of 64", "30\xa0%, 19 of 64"]
    assert data["start"]["area"] == 1
    names = [method["name"] for method in data["methods"]]
    assert names == ["ClassPattern", "Saliency", "RandomPixels", "BestCrop"]
    assert data["methods"][0]["how"] == data["methods"][3]["how"] == "Searched again for each area."
    assert [method["control"] for method in data["methods"]] == [False, False, True, True]
    levels = np.frombuffer(base64.b64decode(data["canvases"][1]["pixels"]), dtype=np.uint8)
    assert np.abs(levels / 255 - comparison.canvases[1].flatten().numpy()).max() < 0.003
    for record in comparison.select(level="image", kind="white", model="bad"):
        cell = data["cells"][1][record.canvas][names.index(record.name)]
        for area, packed, power in zip(AREAS, cell["masks"], cell["powers"]):
            bits = np.unpackbits(np.frombuffer(base64.b64decode(packed), dtype=np.uint8))
            assert torch.from_numpy(bits).view(1, 8, 8).bool().equal(record.masks[area])
            assert power["text"] == f"{100 * record.powers[area].value:.1f}\xa0%"
        cut = cell["cut"]
        assert cut[1] is None
        assert (cut[0] is None) == (record.name != "ClassPattern")


def test_the_slider_starts_with_the_strongest_pattern(usual):
    comparison, data = small_comparison(), data_of(usual)
    records = [r for r in comparison.select(method="ClassPattern") if r.powers]
    powers = [r.powers[0.1].value for r in records]
    start = data["start"]
    [first] = comparison.select(
        method="ClassPattern", model=data["models"][start["model"]], canvas=start["canvas"]
    )
    assert data["methods"][start["method"]]["name"] == "ClassPattern"
    assert first.powers[0.1].value == max(powers) > min(powers)


def test_without_scripts_the_same_numbers_are_a_table(usual):
    comparison = small_comparison()
    head, *rows = Page(usual).tables["table-by-area"]
    assert len(rows) == 2 * 4 * 4
    [record] = comparison.select(model="clean", method="ClassPattern", canvas=3)
    [row] = [r for r in rows if r[:3] == ["ClassPattern", "clean", "bee, white canvas"]]
    assert head[3:] == ["5\xa0%", "10\xa0%", "30\xa0%", "no pattern"]
    for area, cell in zip(AREAS, row[3:]):
        assert cell.startswith(f"{100 * record.powers[area].value:.1f}\xa0% (")


def test_a_page_shows_only_as_many_canvases_as_there_is_room_for(unillustrated, monkeypatch):
    monkeypatch.setattr(report_data, "MAX_CHARACTERS", 1000)
    html = unillustrated()
    assert len(data_of(html)["canvases"]) == 2
    assert "only 2 of the 4 canvases" in Page(html).text


def test_canvases_that_cannot_be_drawn_still_have_numbers(written):
    page = Page(written(small_comparison(channels=2)))
    assert "This figure could not be drawn: only greyscale and colour images" in page.text
    assert "Only canvases with one or three channels" in page.text
    assert page.tables["table-main"]
    assert page.tables["table-by-area"]


def test_where_all_failed_the_page_says_so(unillustrated):
    text = Page(unillustrated(replace(small_comparison(), records=[]), verdicts=())).text
    for part in ("No pattern was scored.", "No method gave a map."):
        assert part in text


def test_a_figure_has_room_for_eight_methods():
    records = list(small_comparison().records)
    more = [replace(r, method=f"{r.method} {i}") for i in range(9) for r in records
            if r.method == "Saliency"]  # fmt: skip
    names = figure_names(records + more, 0.1)
    assert names[0] == "ClassPattern"
    assert names[-2:] == ["RandomPixels", "BestCrop"]
    assert len(names) == 8


def test_a_method_is_shown_in_its_better_ranking():
    own = [r for r in small_comparison().records if r.method == "Saliency" and r.powers]

    def absolute(value):
        power = replace(own[0].powers[0.1], value=value)
        return [replace(r, ranking="absolute", powers={0.1: power}) for r in own]

    assert strongest_names([*absolute(-1.0), *own], 0.1) == ["Saliency"]
    assert strongest_names([*own, *absolute(2.0)], 0.1) == ["Saliency, absolute"]


def test_the_page_says_what_is_measured_and_how(usual):
    text = Page(usual).text
    assert "scored on 45 held-out images that are not among the search images." in text
    terms = ("Pattern Some pixels", "Power The share of held-out", "Canvas Positive canvases")
    terms += ("Controls Simple ways", "95 % interval For one canvas", "Verdict A method comes")
    assert all(term in text for term in (*terms, "Limits A strong pattern does not prove"))
    assert (
        "Methods that search for an area get the number of pixels that the trigger changes" in text
    )
    assert "A white canvas is blank" in text
    assert "interrupted" not in text


def test_an_unknown_accuracy_and_an_interrupt_are_mentioned(unillustrated):
    comparison = small_comparison()
    models = {**comparison.models, "bad": None}
    settings = {**comparison.settings, "complete": False}
    page = Page(unillustrated(replace(comparison, models=models, settings=settings), verdicts=()))
    assert ["bad", "not known (no labels)"] in page.tables[None]
    assert "This comparison was interrupted. It contains only the methods that were finished." in (
        page.text
    )


def test_the_page_names_the_methods_that_searched_again(unillustrated):
    comparison = small_comparison()
    text = Page(unillustrated(comparison, verdicts=())).text
    assert "Searched again for each area: ClassPattern, BestCrop. All others have one map" in text
    own = [replace(r, searches=False) for r in comparison.records if r.method == "Saliency"]
    text = Page(unillustrated(replace(comparison, records=own), verdicts=())).text
    assert "Methods have one map, whose highest pixels are kept." in text
    assert "earched again for each area" not in text.split("Numbers of the slider")[0]


def test_alt_texts_have_means_over_classes():
    comparison = small_comparison()
    records = comparison.select(model="bad", kind="white", method="RandomPixels")
    assert [record.target for record in records] == [0, 1]
    none = PredictivePower(0.0, (0.0, 0.1), 10, 0.0)
    all_ = PredictivePower(1.0, (0.9, 1.0), 30, 0.0)
    first, second = (
        replace(record, powers=dict.fromkeys(AREAS, power))
        for record, power in zip(records, (none, all_))
    )
    own = [first, second, second, second]  # more canvases give a class no more weight
    assert "RandomPixels from 50.0\xa0% at 5\xa0% of the pixels to 50.0" in report._ends(
        own, "bad", ["RandomPixels"]
    )
    text = report._scores(own, "RandomPixels", 0.1)
    assert text == "RandomPixels power 50.0\xa0% (0.0\xa0% to 100.0\xa0%)"


@pytest.mark.parametrize(
    ("value", "spec", "unit", "text"),
    [
        (123.4, ".2g", "s", "123"),
        (99.5, ".2g", "s", "100"),
        (99.4, ".2g", "s", "99"),
        (3600.0, ".2g", "s", "3,600"),
        (-1234.5, ".3f", "", "-1,234"),
        (0.0009, ".2g", "s", "< 0.001"),
        (0.0009, ".2g", "", "0.0009"),
        (0.0012, ".2g", "s", "0.0012"),
    ],
)
def test_numbers_are_written_without_exponents(value, spec, unit, text):
    assert number(value, spec, unit) == text


def test_short_times_are_written_as_bounds():
    comparison = small_comparison()
    for record in comparison.records:
        if "seconds" in record.scores:
            record.scores["seconds"] = 0.0001
    [main, *_] = tables(comparison)
    [times] = [column for column in main.columns if column.heading == "time (s)"]
    assert {times.text(row) for row in main.rows} == {"< 0.001", "\N{EN DASH}"}


def test_a_metric_may_be_called_trigger():
    comparison = small_comparison()
    metric = Metric("trigger", lambda *_: None, "overlap", table="Finding the trigger")
    comparison = replace(comparison, metrics=[*comparison.metrics, metric])
    for record in comparison.records:
        record.scores["trigger"] = 0.25
    [hidden] = [table for table in tables(comparison) if table.key == "hidden"]
    [overlap] = [column for column in hidden.columns if column.heading == "overlap"]
    assert {overlap.text(row) for row in hidden.rows} == {"0.25"}


def test_powers_on_other_models_are_in_the_order_of_the_models():
    comparison = small_comparison(models=("one", "two", "three"))
    [transfer] = [table for table in tables(comparison) if table.title.startswith("Transfer")]
    headings = [column.heading for column in transfer.columns]
    assert headings[3:] == ["power on one", "power on two", "power on three"]
