"""A comparison's outcome: records chosen, patterns, figures."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from captum.attr import InputXGradient
from comparisons import AREAS, CANVASES, Searching, compared, linear_net
from figures import badly_placed
from matplotlib import pyplot
from shown import HOSTILE, read

from captum_classpattern import Pattern, predictive_power
from captum_classpattern.comparison import RandomPixels
from captum_classpattern.comparison.records import figure_names, mean_power
from captum_classpattern.pages.report import write_report
from captum_classpattern.visualization.formats import percent


def broken_on_other(model):
    if not torch.equal(model[1].weight, linear_net(1)[1].weight):
        raise RuntimeError("not on this one")
    return InputXGradient(model)


MASK = torch.zeros(1, 6, 6)
MASK[0, 0] = 1


@pytest.fixture(scope="module")
def comparison():
    return compared(
        models={"one": linear_net(1), "other": linear_net(2)},
        methods={
            "Searching": Searching,
            "InputXGradient": InputXGradient,
            "broken": broken_on_other,
            "RandomPixels": RandomPixels,
        },
        canvas_kinds=["photo", "photo", "photo", "white"],
        triggers={"other": Pattern(torch.ones(3, 6, 6), MASK, 1)},
        class_names=["ant", "bee", "cat"],
    )


def texts(figure):
    return [t.get_text() for t in figure.findobj(pyplot.Text) if t.get_text().strip()]


# ---- records


def test_it_says_what_it_is(comparison):
    assert repr(comparison) == "Comparison(2 models, 4 methods, 4 canvases, 1 failures)"


def test_select(comparison):
    found = comparison.select(model="one", method="InputXGradient", level="class", canvas=2)
    assert [(r.ranking, r.target) for r in found] == [("signed", 2), ("absolute", 2)]
    assert comparison.select() == comparison.records
    assert comparison.select(method="nobody") == []
    with pytest.raises(AttributeError, match="colour"):
        comparison.select(colour="red")


def test_its_patterns_are_not_scored_on_search_images(comparison):
    from comparisons import LABELS, SEARCH

    pattern = comparison.pattern_of(comparison.records[0])
    with pytest.raises(ValueError, match="images were used to search this pattern"):
        predictive_power(linear_net(1), pattern, SEARCH, LABELS, 0.1)


def test_a_class_is_chosen_by_name_too(comparison):
    assert comparison.select(target="cat") == comparison.select(target=2) != []
    by_name, by_number = (
        comparison.plot(model="one", target=target, use_pyplot=False)[1] for target in ("cat", 2)
    )
    assert by_name.shape == by_number.shape
    with pytest.raises(ValueError, match="the model has no class 'dog'"):
        comparison.select(target="dog")


@pytest.mark.parametrize("area", [None, *AREAS])
def test_patterns_of_records_score_as_recorded(comparison, area):
    from comparisons import HELD_OUT, LABELS

    nets = {"one": linear_net(1), "other": linear_net(2)}
    for record in comparison.records:
        if record.kind == "stamped" and area not in (None, 0.1):
            continue
        pattern = comparison.pattern_of(record, area)
        assert torch.equal(pattern.canvas, comparison.canvas_of(record))
        assert pattern.target == record.target
        assert pattern.info["area"] == (area or 0.1)
        assert pattern.info["method"] == record.name
        if record.powers and record.canvas == 1:
            power = predictive_power(nets[record.model], pattern, HELD_OUT, LABELS, area=None)
            assert power == record.powers[area or 0.1]


def test_canvases_of_records(comparison):
    for record in comparison.records:
        canvas = comparison.canvas_of(record)
        if record.kind == "stamped":
            assert torch.equal(canvas, comparison.stamped[record.model][record.canvas - 4])
        else:
            assert torch.equal(canvas, CANVASES[record.canvas])


# ---- maps


def images_of(axes):
    return [
        [None if not a.images else np.asarray(a.images[0].get_array()) for a in row] for row in axes
    ]


def test_a_plot_of_one_model_has_a_row_for_each_canvas(comparison):
    figure, axes = comparison.plot(show="maps", use_pyplot=False)
    assert axes.shape == (3, 5)  # of the first kind; the canvas and four methods
    for row, drawn in enumerate(images_of(axes)):
        for column, name in enumerate(("Searching", "InputXGradient", "broken", "RandomPixels")):
            [r] = comparison.select(
                model="one", method=name, level="image", ranking="signed", canvas=row
            )
            np.testing.assert_allclose(drawn[column + 1], r.map.numpy())
            assert percent(r.powers[0.1].value) in texts(figure)
    assert {"ant", "bee", "cat"} <= set(texts(figure))
    assert not badly_placed(figure)


def test_a_plot_of_a_class_has_a_row_for_each_model(comparison):
    figure, axes = comparison.plot(target=2, show="maps", use_pyplot=False)
    assert axes.shape == (2, 5)
    for model, drawn in zip(("one", "other"), images_of(axes)):
        for column, name in enumerate(("Searching", "InputXGradient", "broken", "RandomPixels")):
            found = comparison.select(
                model=model, method=name, level="image", ranking="signed", canvas=2
            )
            if found:
                np.testing.assert_allclose(drawn[column + 1], found[0].map.numpy())
            else:
                assert (model, name) == ("other", "broken")
                assert drawn[column + 1] is None
    assert {"one", "other", "failed"} <= set(texts(figure))
    _, both = comparison.plot(target=2, use_pyplot=False)
    assert both.shape == (4, 5)
    _, alone = comparison.plot(target=2, model="other", use_pyplot=False, show="patterns")
    assert alone.shape == (1, 4)  # what failed there is no column


def test_methods_are_chosen_by_their_names(comparison):
    names = ["InputXGradient, class mean", "Searching"]
    figure, axes = comparison.plot(methods=names, target=0, use_pyplot=False, show="maps")
    assert axes.shape == (2, 3)
    [r] = comparison.select(
        model="one", method="InputXGradient", level="class", ranking="signed", canvas=0
    )
    np.testing.assert_allclose(images_of(axes)[0][1], r.map.numpy())
    assert "Searching" in " ".join(texts(figure)).replace("\n", " ")


def test_kinds_of_canvases(comparison):
    _, white = comparison.plot(kind="white", use_pyplot=False, show="maps")
    assert white.shape == (1, 5)
    figure, stamped = comparison.plot(kind="stamped", use_pyplot=False, show="maps")
    assert stamped.shape == (2, 5)
    for record in comparison.select(kind="stamped", model="one", level="image", ranking="signed"):
        assert f"IoU {record.scores['iou']:.2f}" in texts(figure)


def test_the_error_says_what_can_be_drawn(comparison):
    words = "there is nothing to draw for model 'nobody', class None, canvas None: models are "
    with pytest.raises(ValueError, match=words + r"\['one', 'other'\], classes \[0, 1, 2\]"):
        comparison.plot(model="nobody")
    with pytest.raises(ValueError, match=r"canvases \['photo', 'stamped', 'white'\]"):
        comparison.plot(kind="black")
    with pytest.raises(ValueError, match="nothing to draw for model None, class 7"):
        comparison.plot(target=7)
    for draw in (comparison.plot, comparison.plot_curves):
        with pytest.raises(ValueError, match=r"there is no record of 'Lime' here: there are \['S"):
            draw(methods=["Lime"])
    with pytest.raises(ValueError, match="none of these canvases has been scored"):
        comparison.plot_curves(kind="stamped")


def test_pyplot_is_used_only_if_so_asked(comparison):
    pyplot.close("all")
    comparison.plot(use_pyplot=False)
    comparison.plot_curves(use_pyplot=False)
    assert not pyplot.get_fignums()
    comparison.plot(show="maps")
    comparison.plot_curves()
    assert len(pyplot.get_fignums()) == 2
    pyplot.close("all")


# ---- curves


def lines(axis):
    """Of the methods, without those that mark an area."""
    return {x.get_label(): x.get_xydata() for x in axis.get_lines() if x.get_label()[0] != "_"}


def test_curves_are_the_records(comparison):
    _, axes = comparison.plot_curves(use_pyplot=False)
    assert [axis.get_title() for axis in axes] == ["one", "other"]
    for model, axis in zip(("one", "other"), axes):
        drawn = lines(axis)
        scored = comparison.select(kind="photo", model=model)
        assert set(drawn) <= set(figure_names(comparison.select(kind="photo"), comparison.area))
        assert "Searching" in drawn
        for name in drawn:
            chosen = [r for r in scored if r.name == name]
            assert len(chosen) == 3
            expected = [
                (a, mean_power((r.target, r.powers[a]) for r in chosen).value) for a in AREAS
            ]
            np.testing.assert_allclose(drawn[name], expected)


def test_curves_of_chosen_methods_and_kinds(comparison):
    _, axes = comparison.plot_curves(
        kind="white", methods=["RandomPixels", "InputXGradient"], use_pyplot=False
    )
    for model, axis in zip(("one", "other"), axes):
        drawn = lines(axis)
        assert set(drawn) == {"RandomPixels", "InputXGradient"}
        [r] = comparison.select(kind="white", model=model, method="RandomPixels")
        np.testing.assert_allclose(drawn["RandomPixels"], [(a, r.powers[a].value) for a in AREAS])


def test_a_method_that_failed_on_one_model_is_drawn_on_the_other(comparison):
    _, axes = comparison.plot_curves(methods=["broken", "RandomPixels"], use_pyplot=False)
    assert [set(lines(axis)) for axis in axes] == [{"broken", "RandomPixels"}, {"RandomPixels"}]
    _, axes = comparison.plot_curves(methods=["broken"], use_pyplot=False)
    assert [axis.get_title() for axis in axes] == ["one"]


# ---- in notebooks


def test_a_notebook_shows_patterns_mean_powers_and_verdicts(comparison, tmp_path):
    page = read(comparison, pictures=1 + len(figure_names(comparison.select(), comparison.area)))
    [(head, *rows)] = page.tables.values()
    assert head == ["method", "model", "canvas", "power", "95 % interval", "no pattern"]
    means = [row for row in comparison.rows() if row.get("level") == "image"]
    for row in (row for row in means if row["ranking"] == "signed" and row["kind"] == "white"):
        power = row[f"power_{comparison.area:g}"]
        name = row["method"] + (" (control)" if row["control"] else "")
        [shown] = [r for r in rows if r[:3] == [name, row["model"], "white"]]
        assert shown[3] == f"{100 * power:.1f}\N{NO-BREAK SPACE}%"
    verdicts = comparison.verdicts()
    holds = sum(verdict["holds"] for verdict in verdicts)
    assert f"Verdicts: {holds} of {len(verdicts)} hold" in page.text
    assert "1 failure." in page.text
    page_of_all = comparison.to_html(tmp_path / "report.html")
    assert write_report(comparison, tmp_path / "same.html").read_bytes() == page_of_all.read_bytes()


def test_names_of_models_and_classes_are_escaped(comparison):
    records = [
        replace(record, model=HOSTILE if record.model == "one" else "other")
        for record in comparison.records
    ]
    hostile = replace(
        comparison,
        records=records,
        models={HOSTILE: None, "other": None},
        class_names=[HOSTILE] * 3,
    )
    assert [tag for tag, _ in read(hostile).tags if tag == "img"] == [
        tag for tag, _ in read(comparison).tags if tag == "img"
    ]
