"""A comparison's outcome: records that are chosen, rows, tables, JSON, patterns and figures."""

import json
import pickle
from dataclasses import asdict, replace
from statistics import mean

import numpy as np
import pandas
import pytest
import torch
from captum.attr import InputXGradient
from comparisons import (
    AREAS,
    CANVASES,
    HELD_OUT,
    LABELS,
    SEARCH,
    Searching,
    all_facts,
    compared,
    linear_net,
)
from figures import badly_placed
from matplotlib import pyplot
from refusals import refusal
from shown import HOSTILE, read

from captum_classpattern import Pattern, PixelClassifier, predictive_power
from captum_classpattern._support.formats import percent
from captum_classpattern.comparison import METRICS, RandomPixels
from captum_classpattern.comparison.records import figure_names, mean_power

NETS = {"one": linear_net(1), "other": linear_net(2)}
CLASSES = ["ant", "bee", "cat"]
NAMES = ["Searching", "InputXGradient", "broken", "RandomPixels"]
PAIRED = LABELS % 2  # 40 images are of class 0, 20 of class 1, none of class 2
PIXEL = torch.zeros(1, 6, 6)
PIXEL[0, 0, 0] = 1


def broken_on_other(model):
    if not torch.equal(model.model[1].weight, NETS["one"][1].weight):
        raise RuntimeError("not on this one")
    return InputXGradient(model)


@pytest.fixture(scope="module")
def comparison():
    return compared(
        models={name: PixelClassifier(net, class_names=CLASSES) for name, net in NETS.items()},
        targets=[0, 1, 2, 0],
        methods=dict(zip(NAMES, (Searching, InputXGradient, broken_on_other, RandomPixels))),
        canvas_kinds=["photo", "photo", "white", "photo"],
        held_out_labels=PAIRED,
        triggers={"other": Pattern(torch.ones(3, 6, 6), PIXEL, 1)},
    )


# ---- records


def test_records_are_chosen_by_their_fields(comparison, snapshot):
    assert repr(comparison) == snapshot
    found = comparison.select(model="one", method="InputXGradient", kind="white")
    assert [(r.canvas, r.target) for r in found] == [(2, 2)]
    assert comparison.select() == comparison.records
    assert comparison.select(method="nobody") == []
    assert comparison.select(target="cat") == comparison.select(target=2) != []
    assert all_facts(pickle.loads(pickle.dumps(comparison))) == all_facts(comparison)


def test_patterns_of_records_score_as_recorded(comparison):
    for r in comparison.records:
        stamped = comparison.stamped[r.model]
        canvas = stamped[r.canvas - 4] if r.kind == "stamped" else CANVASES[r.canvas]
        assert torch.equal(comparison.canvas_of(r), canvas)
        for area in (None, *r.masks):
            pattern = comparison.pattern_of(r, area)
            assert torch.equal(pattern.canvas, canvas)
            assert torch.equal(pattern.mask.bool(), r.masks[area or 0.1])
            info = {"method": r.name, "model": r.model, "area": area or 0.1}
            assert (pattern.target, pattern.info) == (r.target, info)
            if r.powers and r.canvas == 1:
                power = predictive_power(NETS[r.model], pattern, HELD_OUT, PAIRED, area=None)
                assert power == r.powers[area or 0.1]


# ---- rows


def rows_of(comparison, by="method"):
    return [row for row in comparison.rows(by) if "failure" not in row]


def plain_mean(records, values):
    """Over classes, of the means over each class's records; None where none was measured."""
    by_class = {}
    for r, value in zip(records, values):
        if value is not None:
            by_class.setdefault(r.target, []).append(value)
    return mean(mean(values) for values in by_class.values()) if by_class else None


def plain_row(records, row):
    """All of a row that is averaged; of few classes, intervals are the means of theirs."""
    measured = {m.name: [r.scores.get(m.name) for r in records] for m in METRICS}
    plain = {name: plain_mean(records, values) for name, values in measured.items()}
    for name in ("passes", "seconds"):  # costs, per canvas
        plain[name] = mean(measured[name])
    plain = {name: value for name, value in plain.items() if row["area"] == 0.1}
    if row["canvas"] != "stamped":
        powers = [r.powers[row["area"]] for r in records]
        plain["no_pattern"] = plain_mean(records, [power.without for power in powers])
        values = zip(*((power.value, *power.interval) for power in powers))
        for name, of_name in zip(("power", "low", "high"), values):
            plain[name] = plain_mean(records, of_name)
    return {name: value for name, value in plain.items() if value is not None}


def strongest_control(comparison, row, by):
    """Of no pattern and RandomPixels, on the same canvases."""
    if row["canvas"] == "stamped":
        return None
    chosen = {"canvas": row["number"]} if by == "canvas" else {"kind": row["canvas"]}
    records = comparison.select(model=row["model"], method="RandomPixels", **chosen)
    powers = [record.powers[row["area"]] for record in records]
    shares = [[power.value for power in powers], [power.without for power in powers]]
    return max(plain_mean(records, of_one) for of_one in shares)


@pytest.mark.parametrize("by", ["method", "canvas"])
def test_a_row_has_means_over_classes_with_intervals_and_the_strongest_control(comparison, by):
    rows, groups, found = rows_of(comparison, by), [], set()
    for row in rows:
        names = {"model": "model", "method": "method", "canvas": "kind"}
        names |= {"number": "canvas"} if by == "canvas" else {}
        records = comparison.select(**{field: row[name] for name, field in names.items()})
        assert row["area"] in (AREAS if records[0].powers else [0.1])
        groups += [records] * (row["area"] == 0.1)
        expected = plain_row(records, row)
        of = {"class": records[0].target, "precision": records[0].precision}
        of = {**({"canvases": len(records)} if by == "method" else of), "cut_from_canvas": True}
        of |= {name: row[name] for name in names} | {"area": row["area"]}
        of |= {"is_control": row["method"] == "RandomPixels"}
        of |= dict.fromkeys(("power", "low", "high"))
        of["control"] = pytest.approx(strongest_control(comparison, row, by))
        assert row == of | {name: pytest.approx(value) for name, value in expected.items()}
        found |= {*expected}
    listed = [id(r) for group in groups for r in group]
    order = list if by == "canvas" else sorted
    assert order(listed) == order(map(id, comparison.records))
    assert {p.n for r in comparison.records for p in r.powers.values()} == {20, 40, 60}
    assert {"iou", "stability_seeds", "passes"} <= found
    failure = "maps: RuntimeError: not on this one"
    assert comparison.rows(by)[-1] == {"model": "other", "method": "broken", "failure": failure}


@pytest.mark.parametrize("by", ["method", "canvas"])
def test_a_table_is_a_data_frame_of_the_rows(comparison, by):
    table, rows = comparison.table(by, full=True), comparison.rows(by)
    assert isinstance(table, pandas.DataFrame)
    assert list(table.columns) == list(dict.fromkeys(key for row in rows for key in row))
    for (_, line), row in zip(table.iterrows(), rows, strict=True):
        for key, value in line.items():
            assert pandas.isna(value) if row.get(key) is None else value == row[key]
    few = comparison.table(by)
    assert [*few] == ["model", "method", "power", "control", "canvas", "area"]
    shown = table[table["power"].notna()][[*few]].reset_index(drop=True)
    assert few.equals(shown.round({"power": 4, "control": 4}))
    assert len(replace(comparison, records=[], failures=[]).table()) == 0


def test_json_is_complete_and_has_all_areas_in_a_row(comparison):
    content = json.loads(comparison.to_json())
    for row, record in zip(content.pop("rows"), comparison.records, strict=True):
        names = ("model", "method", "kind", "control", "cut_from_canvas", "canvas")
        assert {name: row.pop(name) for name in names} == {n: getattr(record, n) for n in names}
        assert row.pop("class") == record.target
        assert row.pop("precision", None) == record.precision
        for area, power in record.powers.items():
            ends = ("", "_low", "_high")
            numbers = [row.pop(f"power_{area:g}{end}") for end in ends]
            assert numbers == pytest.approx([power.value, *power.interval])
            assert row.get("no_pattern") == pytest.approx(power.without)
        row.pop("no_pattern", None)
        assert row == pytest.approx(record.scores)
    described = ("name", "title", "unit", "better", "description")
    assert content == {
        "models": comparison.models,
        "class_names": ["ant", "bee", "cat"],
        "settings": comparison.settings,
        "differences": comparison.differences(),
        "metrics": [{name: getattr(m, name) for name in described} for m in METRICS],
        "failures": [asdict(failure) for failure in comparison.failures],
    }


# ---- figures


def texts(figure):
    return [t.get_text() for t in figure.findobj(pyplot.Text) if t.get_text().strip()]


PLOTS = [  # what is chosen, the model, and the canvases
    ({}, "one", [0, 1, 3]),  # of the first kind
    ({"model": "other"}, "other", [0, 1, 3]),
    ({"kind": "white"}, "one", [2]),
    ({"kind": "stamped"}, "one", [4, 5]),
]


@pytest.mark.parametrize(("choice", "model", "canvases"), PLOTS)
def test_a_plot_has_a_row_for_each_canvas(comparison, choice, model, canvases):
    present = {record.name for record in comparison.select(model=model)}
    names = [n for n in figure_names(comparison.records, comparison.area) if n in present]
    assert {*names} == {*NAMES} - ({"broken"} if model == "other" else set())
    figure, axes = comparison.plot(**choice, use_pyplot=False)
    assert axes.shape == (2 * len(canvases), 1 + len(names))  # maps and patterns
    shown = " ".join(texts(figure)).replace("\n", " ")
    [first] = {r.target for r in comparison.records if r.canvas == canvases[0] and r.model == model}
    assert all(name in shown for name in (*names, CLASSES[first]))
    assert not badly_placed(figure)
    for canvas, line in zip(canvases, axes[::2]):
        for name, axis in zip(names, line[1:]):
            [r] = comparison.select(model=model, canvas=canvas, name=name)
            np.testing.assert_allclose(axis.images[0].get_array(), r.map.numpy())
            iou = f"IoU {r.scores.get('iou', 0):.2f}"
            assert (percent(r.powers[0.1].value) if r.powers else iou) in shown


@pytest.mark.parametrize("kind", ["photo", "white"])
def test_curves_are_the_mean_powers_of_the_records(comparison, kind):
    _, axes = comparison.plot_curves(kind=None if kind == "photo" else kind, use_pyplot=False)
    assert [axis.get_title() for axis in axes] == [*NETS]
    for axis, model in zip(axes, NETS):
        lines = {x.get_label(): x.get_xydata() for x in axis.get_lines() if x.get_label()[0] != "_"}
        failed = {"broken"} if model == "other" else set()
        assert {*lines} == {*NAMES} - failed
        for name, line in lines.items():
            chosen = comparison.select(kind=kind, model=model, name=name)
            powers = [mean_power((r.target, r.powers[a]) for r in chosen).value for a in AREAS]
            np.testing.assert_allclose(line, [*zip(AREAS, powers)])


def test_pyplot_is_used_only_if_so_asked(comparison):
    pyplot.close("all")
    for use in (False, True):
        comparison.plot(use_pyplot=use, kind="white")
        comparison.plot_curves(use_pyplot=use, kind="white")
        assert len(pyplot.get_fignums()) == 2 * use
    pyplot.close("all")


REFUSALS = {
    "another field": lambda c: c.select(colour="red"),
    "an unknown class": lambda c: c.select(target="dog"),
    "no class names": lambda c: replace(c, class_names=None).select(target="ant"),
    "images of the search": lambda c: predictive_power(
        NETS["one"], c.pattern_of(c.records[0]), SEARCH, LABELS, 0.1
    ),
    "an unknown model": lambda c: c.plot(model="nobody"),
    "an unknown kind": lambda c: c.plot(kind="black"),
    "curves of stamped canvases": lambda c: c.plot_curves(kind="stamped"),
}


@pytest.mark.parametrize("case", REFUSALS)
def test_refusals(comparison, case, snapshot):
    assert refusal(lambda: REFUSALS[case](comparison)) == snapshot


# ---- in notebooks


def test_a_notebook_shows_the_text_the_maps_and_the_powers(comparison):
    few = replace(
        comparison,
        models={"one": 0.5},
        records=[r for r in comparison.select(model="one") if r.canvas in (0, 2)],
        class_names=[HOSTILE] * 3,
        failures=[replace(each, reason=HOSTILE) for each in comparison.failures],
    )
    page = read(few, pictures=1)
    [([*heads], *rows)] = page.tables.values()
    shown = few.shown_table()
    assert heads == [*shown] == ["model", "method", "power", "control", "canvas"]
    written = [[cell.replace(" %", "\N{NO-BREAK SPACE}%") for cell in row] for row in shown.values]
    assert rows == written
    for said in few.text().split("\n"):
        assert " ".join(said.replace("\udcff", "\N{REPLACEMENT CHARACTER}").split()) in page.text
