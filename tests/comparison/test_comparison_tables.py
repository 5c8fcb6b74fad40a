"""Records as rows of plain values."""

import json
from dataclasses import replace
from statistics import mean

import pandas
import pytest
import torch
from captum.attr import InputXGradient
from comparisons import AREAS, CANVASES, LABELS, Searching, compared, from_function, linear_net

from captum_classpattern import Pattern
from captum_classpattern.comparison import METRICS, RandomPixels
from captum_classpattern.scores.power import power_of


def broken(model):
    raise RuntimeError("does not work")


@pytest.fixture(scope="module")
def comparison():
    mask = torch.zeros(1, 6, 6)
    mask[0, 0] = 1
    return compared(
        models={"one": linear_net(1), "other": linear_net(2)},
        targets=[0, 1, 2, 0],
        methods={
            "InputXGradient": InputXGradient,
            "Searching": Searching,
            "broken": broken,
            "RandomPixels": RandomPixels,
        },
        canvas_kinds=["a", "a", "b", "a"],
        held_out_labels=LABELS % 2,  # so that classes have different numbers of images
        triggers={"other": Pattern(torch.ones(3, 6, 6), mask, 1)},
    )


def group(comparison, row):
    names = ("model", "method", "level", "ranking", "kind")
    return comparison.select(**{name: row[name] for name in names})


def rows_of(comparison, records):
    return replace(comparison, records=records, failures=[]).rows()


def method_rows(comparison):
    return [row for row in comparison.rows() if "failure" not in row]


def test_a_row_for_each_method_model_level_ranking_and_kind(comparison):
    rows = method_rows(comparison)
    groups = [group(comparison, row) for row in rows]
    assert {id(r) for group in groups for r in group} == {id(r) for r in comparison.records}
    assert sum(map(len, groups)) == len(comparison.records)
    assert [row["canvases"] for row in rows] == [len(group) for group in groups]
    assert {row["kind"] for row in rows} == {"a", "b", "stamped"}
    assert {(row["method"], row["control"]) for row in rows} == {
        ("InputXGradient", False),
        ("Searching", False),
        ("RandomPixels", True),
    }


def plain_mean(records, value):
    """Over classes, of the means over each class's records; None where none was measured."""
    by_class = {}
    for r in records:
        if value(r) is not None:
            by_class.setdefault(r.target, []).append(value(r))
    return mean(mean(values) for values in by_class.values()) if by_class else None


def test_means_are_means_over_classes(comparison):
    found = set()
    for row in method_rows(comparison):
        records = group(comparison, row)
        names = [m.name for m in METRICS if m.name not in ("on", "passes", "seconds")]
        plain = {name: plain_mean(records, lambda r, name=name: r.score(name)) for name in names}
        for name in ("passes", "seconds"):  # costs, per canvas
            known = [value for r in records if (value := r.score(name)) is not None]
            plain[name] = mean(known) if known else None
        for name, value in plain.items():
            if value is None:
                assert name not in row
            else:
                found.add(name)
                assert row[name] == pytest.approx(value)
    assert len(found) >= 14


def averaged(records, power):
    """Value and ends of the interval; for so few classes, the means of theirs."""
    return {
        "": plain_mean(records, lambda r: power(r).value),
        "_low": plain_mean(records, lambda r: power(r).interval[0]),
        "_high": plain_mean(records, lambda r: power(r).interval[1]),
    }


def test_powers_are_means_over_classes_with_intervals(comparison):
    sizes = {p.n for r in comparison.records for p in r.powers.values()}
    assert sizes == {20, 40, 60}  # 40 images are of class 0, 20 of class 1, none of class 2
    scored = 0
    for row in method_rows(comparison):
        records = group(comparison, row)
        if row["kind"] == "stamped":
            assert not [key for key in row if key.startswith(("power", "on_", "no_pattern"))]
            continue
        scored += 1
        for area in AREAS:
            for end, value in averaged(records, lambda r, area=area: r.powers[area]).items():
                assert row[f"power_{area:g}{end}"] == pytest.approx(value)
        bare = plain_mean(records, lambda r: r.powers[0.1].without)
        assert row["no_pattern"] == pytest.approx(bare)
        [other] = {"one", "other"} - {row["model"]}
        if (row["level"], row["ranking"]) == ("image", "signed"):
            for end, value in averaged(
                records, lambda r, other=other: r.scores["on"][other]
            ).items():
                assert row[f"on_{other}{end}"] == pytest.approx(value)
        else:
            assert f"on_{other}" not in row
        assert f"on_{row['model']}" not in row
        assert ("rethresholded_0.3" in row) == (row["method"] == "Searching")
        if row["method"] == "Searching":
            for area in (0.06, 0.3):
                cut = averaged(records, lambda r, area=area: r.rethresholded[area])
                for end, value in cut.items():
                    assert row[f"rethresholded_{area:g}{end}"] == pytest.approx(value)
    assert scored == 24


def test_canvases_that_repeat_narrow_no_interval(comparison):
    """Ten canvases scored on the same images were counted as ten times as many images."""
    [first, *_] = comparison.select(method="RandomPixels", kind="b")
    [once], [often] = (rows_of(comparison, [first] * count) for count in (1, 10))
    assert once["power_0.1_low"] == first.powers[0.1].interval[0]
    for end in ("", "_low", "_high"):
        assert often[f"power_0.1{end}"] == pytest.approx(once[f"power_0.1{end}"])


def test_of_five_classes_on_the_interval_is_as_wide_as_they_differ(comparison):
    [first, *_] = comparison.select(method="RandomPixels", kind="b")
    hits = (1, 2, 5, 10, 20, 30, 60, 120, 300, 598)  # of 600
    records = [
        replace(first, target=y, powers={0.1: power_of(count, 600, 0)})
        for y, count in enumerate(hits)
    ]
    [row] = rows_of(comparison, records)
    assert row["power_0.1"] == pytest.approx(sum(hits) / 6000)
    assert row["power_0.1_low"] < 0.1
    assert row["power_0.1_high"] > 0.35  # pooled: 20.0 %


def test_a_row_for_each_record(comparison):
    rows = [row for row in comparison.rows("canvas") if "failure" not in row]
    assert len(rows) == len(comparison.records)
    for row, r in zip(rows, comparison.records):
        assert (row["model"], row["method"], row["level"]) == (r.model, r.method, r.level)
        assert (row["canvas"], row["class"], row["kind"]) == (r.canvas, r.target, r.kind)
        for area, power in r.powers.items():
            expected = [row[f"power_{area:g}{end}"] for end in ("", "_low", "_high")]
            assert expected == [power.value, *power.interval]
        assert row.get("iou") == r.score("iou")
        assert row["components"] == r.scores["components"]
        assert row.get("infidelity") == r.score("infidelity")


@pytest.mark.parametrize("by", ["method", "canvas"])
def test_failures_are_rows(comparison, by):
    assert comparison.rows(by)[-2:] == [
        {"model": model, "method": "broken", "failure": "maps: RuntimeError: does not work"}
        for model in ("one", "other")
    ]


def test_by_is_method_or_canvas(comparison):
    for ask in (comparison.rows, comparison.table):
        with pytest.raises(ValueError, match="by must be 'method' or 'canvas', got 'class'"):
            ask("class")


# ---- tables


@pytest.mark.parametrize("by", ["method", "canvas"])
def test_a_table_is_a_data_frame(comparison, by):
    table, rows = comparison.table(by), comparison.rows(by)
    assert isinstance(table, pandas.DataFrame)
    assert len(table) == len(rows)
    assert list(table.columns) == list(dict.fromkeys(key for row in rows for key in row))
    for (_, line), row in zip(table.iterrows(), rows):
        for key, value in line.items():
            assert pandas.isna(value) if row.get(key) is None else value == row[key]


def test_no_methods_make_an_empty_table():
    assert len(compared(methods={}).table()) == 0


# ---- JSON


def strict(text):
    def refuse(constant):
        raise AssertionError(f"{constant} is no JSON")

    return json.loads(text, parse_constant=refuse)


def test_json_is_strict_and_complete(comparison):
    content = strict(comparison.to_json())
    assert content["models"] == comparison.models
    assert content["class_names"] is None
    assert content["settings"] == comparison.settings
    assert content["metrics"] == [metric.as_dict() for metric in METRICS]
    assert content["rows"] == [row for row in comparison.rows("canvas") if "failure" not in row]
    assert content["failures"] == [failure.as_dict() for failure in comparison.failures]


def test_json_stays_json_where_captums_metrics_are_no_numbers():
    net = linear_net()

    def no_numbers(images):
        return net(images.sqrt())  # none for pixels below 0, where noise leads to

    def huge(images):
        return net(images) * 1e30  # its square is infinite

    for model in (no_numbers, huge):
        comparison = compared(models={"m": model}, methods={"InputXGradient": InputXGradient})
        content = strict(comparison.to_json())
        assert len(content["rows"]) == len(comparison.records) == 16
        assert not [row for row in content["rows"] if "infidelity" in row]


def test_a_search_alone_has_no_class_mean():
    rows = compared(methods={"Searching": Searching, "plus": from_function(lambda i, t: i)}).rows()
    assert [(row["method"], row["level"]) for row in rows] == [
        ("Searching", "image"),
        ("plus", "image"),
        ("plus", "class"),
    ]
    assert len(CANVASES) == rows[0]["canvases"] == 4
