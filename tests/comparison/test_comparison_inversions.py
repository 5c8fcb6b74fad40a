"""Methods whose pixels are not cut from the canvas: what is stamped, kept, drawn and saved."""

import base64
import json
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from captum.attr import Attribution, Saliency
from comparisons import (
    CANVASES,
    HELD_OUT,
    LABELS,
    SEARCH,
    SHAPE,
    compared,
    linear_net,
    plain_hits,
    plain_mask,
)
from scripts import imported
from test_captum_contract import make_net, random_images, state_of_caller
from torch import nn

from captum_classpattern import ClassPattern, Pattern, PixelClassifier, predictive_power
from captum_classpattern.cli.compare import print_comparison, write_comparison
from captum_classpattern.comparison import DEFAULT, known_methods
from captum_classpattern.comparison.controls import LearnedPattern
from captum_classpattern.comparison.methods import NAMES
from captum_classpattern.comparison.records import figure_names
from captum_classpattern.pages.report_data import area_slider, tables
from captum_classpattern.pattern import AdditivePattern

rivals = imported("benchmarks", "rivals")
OWN = [
    "LearnedPattern",
    "UniversalPatch",
    "NeuralCleanse",
    "PixelInversion",
    "UniversalPerturbation",
]
CLASSES = [LearnedPattern, *(getattr(rivals, name) for name in OWN[1:])]
ADDED = ["PixelInversion", "UniversalPerturbation"]  # their changes are added to images
BY_AREA = ["LearnedPattern", "UniversalPatch"]
MODELS = {"one": linear_net(1), "other": linear_net(2)}
AREAS = [0.1, 0.3]  # 4 and 11 of the 36 pixels


def methods(*names, n_steps=3):
    known = [name for name in names if name not in OWN[1:]]
    found = known_methods(SEARCH, LABELS, names=known, n_steps=n_steps, precision="full")
    for name in {*names} - {*known}:
        budget = {"budget": 400} if name.startswith("Universal") else {}
        found[name] = (
            partial(getattr(rivals, name), baselines=SEARCH, baseline_labels=LABELS),
            budget,
        )
    return {name: found[name] for name in names}


@pytest.fixture(scope="module")
def comparison():
    """Two models, two classes, and a trigger that is looked for on both."""
    pixels = torch.zeros(1, 6, 6)
    pixels[0, 4:, 4:] = 1
    return compared(
        models=MODELS,
        canvases=CANVASES[:2],
        targets=[0, 1],
        methods=methods(*OWN, "ClassPattern", "Saliency"),
        areas=AREAS,
        class_images=2,
        n_seeds=1,
        triggers={"one": Pattern(torch.ones(3, 6, 6), pixels, 1)},
        class_names=["ant", "bee", "cat"],
    )


def same_change(pattern, other):
    changes = getattr(pattern, "change", None), getattr(other, "change", None)
    return changes == (None, None) or torch.equal(*changes)


def hits(model, own, mask, target):
    """Of a pattern whose mask is replaced, by the formulas."""
    if not isinstance(own, AdditivePattern):
        count, n = plain_hits(MODELS[model], own.canvas, mask, target)
    else:
        changed = (HELD_OUT + mask * own.change).clamp(0, 1)
        count, n = plain_hits_of(MODELS[model], changed, target)
    return count / n


def plain_hits_of(net, images, target):
    """How many of the held-out images of other classes are predicted as the class, changed."""
    others = [x for x, label in zip(images, LABELS.tolist()) if label != target]
    return sum(int(net(x[None]).argmax()) == target for x in others), len(others)


# ---- compare


def test_the_learned_pattern_is_known_by_its_name():
    assert "LearnedPattern" in NAMES
    assert "LearnedPattern" not in DEFAULT
    make, keywords = known_methods(SEARCH, LABELS, names="LearnedPattern")["LearnedPattern"]
    assert type(make(linear_net())) is LearnedPattern
    # its own length, and not that of ClassPattern
    assert (keywords["budget"], keywords["n_steps"]) == (None, None)
    limited = known_methods(SEARCH, LABELS, names="LearnedPattern", budget=900)
    assert limited["LearnedPattern"][1]["budget"] == 900


@pytest.mark.parametrize("name", OWN[1:])
def test_the_others_are_known_by_the_names_of_their_module(name):
    names = ["LRP", f"rivals:{name}"]
    found = known_methods(SEARCH, LABELS, names=names)
    assert [*found] == ["LRP", name]
    make, keywords = found[name]
    assert type(make(linear_net())) is getattr(rivals, name)
    assert make(linear_net()).free
    assert keywords == {}
    assert known_methods(SEARCH, LABELS, names=names, budget=900)[name][1] == {"budget": 900}


def test_all_of_them_give_maps(comparison):
    assert not comparison.failures
    for model in MODELS:
        for name in OWN:
            records = comparison.select(model=model, method=name)
            given = [(r.level, r.ranking, r.canvas, r.kind) for r in records]
            expected = [("image", "signed", i, "canvas" if i < 2 else "stamped") for i in range(4)]
            assert given == expected
            assert [r.searches for r in records] == [name in BY_AREA] * 4
            assert not any(r.control for r in records)
            [free] = {r.free for r in records}
            assert free == CLASSES[OWN.index(name)].free


def test_a_name_is_enough():
    found = compared(
        methods="rivals:NeuralCleanse", canvases=CANVASES[:1], targets=0, areas=[0.1], n_seeds=1
    )
    assert [r.method for r in found.records] == ["NeuralCleanse"]
    assert not found.failures


@pytest.mark.parametrize("name", OWN)
def test_powers_are_those_of_the_pixels_in_their_own_form(comparison, name):
    differ = 0
    for r in comparison.select(method=name, kind="canvas"):
        assert list(r.powers) == list(r.masks) == list(r.own) == AREAS
        for area in AREAS:
            assert int(r.masks[area].sum()) == round(36 * area)
            assert isinstance(r.own[area], AdditivePattern) == (name in ADDED)
            own = hits(r.model, r.own[area], r.masks[area], r.target)
            assert r.powers[area].value == own
            cut = plain_hits(MODELS[r.model], CANVASES[r.canvas], r.masks[area], r.target)
            differ += own != cut[0] / cut[1]
    assert differ >= 3  # the colours of the canvas would have given other powers


@pytest.mark.parametrize("name", OWN)
def test_the_own_form_is_scored_with_all_its_pixels(comparison, name):
    for r in comparison.select(method=name, kind="canvas"):
        own = r.own[0.1]
        if name in ADDED:
            changed = (HELD_OUT + own.change).clamp(0, 1)
            assert torch.equal(own.mask > 0, (own.change != 0).any(0, keepdim=True))
        else:
            changed = own.mask * own.canvas + (1 - own.mask) * HELD_OUT
        count, n = plain_hits_of(MODELS[r.model], changed, r.target)
        power = r.scores["own_form"]
        assert (power.value, power.n, power.without) == (count / n, n, r.powers[0.1].without)
        assert r.scores["share_changed"] == pytest.approx(float(own.mask.mean()))
    shares = {r.scores["share_changed"] for r in comparison.select(method=name, kind="canvas")}
    if name in BY_AREA:
        assert shares == {4 / 36}
    elif name == "NeuralCleanse":
        assert all(36 * share % 1 > 0 for share in shares)  # a soft mask
    stamped = comparison.select(method=name, kind="stamped")
    assert not any({"own_form", "share_changed"} & {*r.scores} for r in stamped)


def test_rows_say_what_is_cut_from_the_canvas(comparison):
    for by in ("method", "canvas"):
        for row in comparison.rows(by):
            assert row["cut_from_canvas"] == (row["method"] not in OWN)
            if row["cut_from_canvas"]:
                assert not {"free", "own_form", "share_changed"} & {*row}
            else:
                assert row["free"] == CLASSES[OWN.index(row["method"])].free
                assert ("own_form_low" in row) == (row["kind"] == "canvas")


def test_the_verdict_on_power_is_about_pixels_of_the_canvas(comparison):
    texts = [v["text"] for v in comparison.verdicts() if "comes first" in v["title"]]
    assert len(texts) == 2
    for text in texts:
        compared, rest = text.split(" Not cut from the canvas, so not compared: ")
        assert rest == f"{', '.join(OWN)}."
        assert not any(name in compared for name in OWN)
        assert "ClassPattern" in compared
    alone = replace(comparison, records=[r for r in comparison.records if r.free])
    assert not any("comes first" in v["title"] for v in alone.verdicts())


def test_figures_show_pixels_of_the_canvas_unless_there_are_none(comparison):
    assert "ClassPattern" in figure_names(comparison.records, 0.1)
    assert not {*OWN} & {*figure_names(comparison.records, 0.1)}
    alone = [r for r in comparison.records if r.free]
    assert figure_names(alone, 0.1) == OWN


def test_the_report_has_a_table_of_their_own(comparison):
    by_key = {table.key: table for table in tables(comparison)}
    for key in ("main", "areas"):
        assert not {*OWN} & {row["name"] for row in by_key[key].rows}
    own = by_key["not-cut"]
    assert own.title == "Not cut from a canvas"
    assert {row["name"] for row in own.rows} == {*OWN}
    headings = [column.heading for column in own.columns]
    assert headings[3:6] == ["free", "power in its own form", "pixels changed"]
    assert "passes" in headings
    assert "no pattern" in headings
    row = next(row for row in own.rows if row["name"] == "PixelInversion")
    assert row["free"] == "places and changes"


@pytest.mark.parametrize("name", OWN)
def test_masks_are_the_strongest_pixels_of_the_map(comparison, name):
    for r in comparison.select(method=name):
        assert torch.equal(r.masks[0.1][0], plain_mask(r.map, 0.1))
        if name not in BY_AREA and r.kind == "canvas":
            assert torch.equal(r.masks[0.3][0], plain_mask(r.map, 0.3))
            assert r.own[0.3] is r.own[0.1]


def test_a_map_that_is_cut_to_another_area_keeps_its_colours(comparison):
    for r in comparison.select(method="LearnedPattern", kind="canvas"):
        mask = plain_mask(r.map, 0.3)
        cut = hits(r.model, r.own[0.1], mask, r.target)
        assert {area: power.value for area, power in r.rethresholded.items()} == {0.3: cut}
    assert not any(r.rethresholded for r in comparison.select(method="NeuralCleanse"))


@pytest.mark.parametrize("name", OWN)
def test_the_pattern_of_a_record_has_its_own_form(comparison, name):
    for r in comparison.select(method=name):
        for area in r.masks:
            pattern = comparison.pattern_of(r, area)
            assert torch.equal(pattern.canvas, r.own[area].canvas)
            assert same_change(pattern, r.own[area])
            assert torch.equal(pattern.mask.bool(), r.masks[area])
            assert not torch.equal(pattern.canvas, comparison.canvas_of(r))
            assert (pattern.target, pattern.info["area"]) == (r.target, area)
            if r.kind == "canvas":
                power = predictive_power(MODELS[r.model], pattern, HELD_OUT, LABELS, area=None)
                assert power == r.powers[area]
        default = comparison.pattern_of(r)
        assert torch.equal(default.canvas, r.own[0.1].canvas)
        assert default.info["area"] == 0.1


def test_other_methods_keep_the_canvas(comparison):
    for name in ("ClassPattern", "Saliency"):
        for r in comparison.select(method=name):
            assert (r.own, r.free) == ({}, "")
            assert torch.equal(comparison.pattern_of(r).canvas, comparison.canvas_of(r))


def test_they_have_no_means_over_images_of_the_class(comparison):
    levels = {(r.method, r.level) for r in comparison.records}
    assert ("Saliency", "class") in levels
    assert not {(name, "class") for name in OWN} & levels


@pytest.mark.parametrize("name", OWN)
def test_on_another_model_the_same_pixels_are_stamped(comparison, name):
    for r in comparison.select(method=name, kind="canvas"):
        [other] = {*MODELS} - {r.model}
        [(model, power)] = r.scores["on"].items()
        assert model == other
        assert power.value == hits(other, r.own[0.1], r.masks[0.1], r.target)


@pytest.mark.parametrize("name", OWN)
def test_a_stamped_canvas_has_no_power_but_its_own_form(comparison, name):
    records = comparison.select(method=name, kind="stamped")
    assert len(records) == 4
    for r in records:
        assert r.powers == {}
        assert list(r.own) == [0.1]
        assert 0 <= r.scores["iou"] <= 1


@pytest.mark.parametrize("name", OWN)
def test_a_map_of_the_class_has_no_sensitivity_to_its_image(comparison, name):
    """It would be 0 for any inversion, since these don't look at the image."""
    saliency = comparison.select(method="Saliency", level="image", kind="canvas")
    assert all("sensitivity" in r.scores for r in saliency)
    assert not any("sensitivity" in r.scores for r in comparison.select(method=name))


def test_records_keep_the_precision_of_each_search(comparison):
    for name in ("ClassPattern", "LearnedPattern"):
        assert {r.precision for r in comparison.select(method=name)} == {"float32"}


class Painted(Attribution):
    """A method of one's own with patterns, which takes neither an area nor a seed."""

    def __init__(self, model):
        super().__init__(model)
        self.patterns = []

    def attribute(self, inputs, target=None, additional_forward_args=None):
        self.patterns = [
            Pattern(1 - image, torch.full((1, 6, 6), 0.5), y) for image, y in zip(inputs, target)
        ]
        return inputs


def test_colours_of_a_method_that_explains_images_one_at_a_time():
    found = compared(methods={"Painted": Painted})
    assert not found.failures
    assert [r.canvas for r in found.records] == [0, 1, 2, 3]
    for r in found.records:
        assert r.free == "colours"
        assert r.scores["share_changed"] == 0.5
        for own in r.own.values():
            assert torch.equal(own.canvas, 1 - CANVASES[r.canvas])


# ---- a backdoor whose colours are in no canvas


class Secret(nn.Module):
    """Answers 1 if a pixel is dark grey and the next one light grey, whatever else it sees."""

    def __init__(self):
        super().__init__()
        self.anchor = nn.Parameter(torch.zeros(()))

    def forward(self, pixels):
        first, second = pixels[:, 0, 2, 1], pixels[:, 0, 2, 2]
        near = 6 - 40 * (first - 0.3) ** 2 - 40 * (second - 0.8) ** 2
        return torch.stack([torch.full_like(near, 3.0), near, torch.zeros_like(near)], 1)


def test_a_backdoor_whose_colours_are_in_no_canvas():
    canvases = torch.stack([torch.full((3, 6, 6), shade) for shade in (0.0, 1.0)])
    canvas, mask = torch.zeros(3, 6, 6), torch.zeros(1, 6, 6)
    canvas[:, 2, 1], canvas[:, 2, 2] = 0.3, 0.8
    mask[0, 2, 1:3] = 1
    models = {"bad": Secret().eval()}
    found = compared(
        models=models,
        canvases=canvases,
        targets=1,
        methods=methods("LearnedPattern", "ClassPattern", n_steps=60),
        area=2 / 36,
        areas=[2 / 36],
        class_images=0,
        n_seeds=1,
        triggers={"bad": Pattern(canvas, mask, 1)},
    )
    assert not found.failures
    for r in found.select(method="LearnedPattern", kind="canvas"):
        assert r.powers[2 / 36].value == 1
        assert r.scores["iou"] == 1
        seen = found.pattern_of(r).canvas[0, 2, 1:3].tolist()
        assert seen == pytest.approx([0.3, 0.8], abs=0.15)
    usual = [r.powers[2 / 36] for r in found.select(method="ClassPattern", kind="canvas")]
    assert max(power.lift for power in usual) <= 0.1  # canvas pixels cannot do it


# ---- figures, the report and files


@pytest.mark.parametrize("show", ["maps", "patterns"])
def test_a_figure_shows_the_canvas_and_the_colours(comparison, show):
    names = ["LearnedPattern", "ClassPattern", "NeuralCleanse"]
    _, axes = comparison.plot(model="one", methods=names, show=show, use_pyplot=False)

    def pixels(image):
        return (255 * image).round().byte().permute(1, 2, 0).numpy()

    for row in range(2):
        drawn = [axis.images[0].get_array() for axis in axes[row]]
        np.testing.assert_array_equal(drawn[0], pixels(CANVASES[row]))
        for column, name in enumerate(names if show == "patterns" else (), start=1):
            [r] = comparison.select(model="one", method=name, canvas=row, level="image",
                                    ranking="signed")  # fmt: skip
            kept = r.masks[0.1][0].numpy()
            expected = pixels(comparison.pattern_of(r).canvas)
            np.testing.assert_array_equal(drawn[column][kept], expected[kept])


@pytest.mark.parametrize("name", OWN)
def test_the_slider_draws_the_pixels_that_were_scored(name):
    """In their own colours, or in those of the canvas for a method without."""
    found = compared(
        methods=methods(name, "ClassPattern"), canvases=CANVASES[:2], targets=0, n_seeds=1
    )
    data = area_slider(found).data
    assert [method["name"] for method in data["methods"]] == [name, "ClassPattern"]
    for column, method in enumerate(data["methods"]):
        for number, canvas in enumerate(data["canvases"]):
            [r] = found.select(method=method["name"], canvas=number)
            cell = data["cells"][0][number][column]
            images = cell["pixels"] or [canvas["pixels"]] * len(found.areas)
            assert (cell["pixels"] == []) == (column == 1)
            for area, image in zip(found.areas, images, strict=True):
                levels = torch.tensor(list(base64.b64decode(image)), dtype=torch.float32)
                drawn, kept = levels.view(6, 6, 3).permute(2, 0, 1), r.masks[area].expand(3, -1, -1)
                scored = (255 * found.pattern_of(r, area).canvas).round()
                assert torch.equal(drawn[kept], scored[kept])


def test_the_report_and_the_patterns_are_written(comparison, tmp_path, capsys):
    part = replace(
        comparison,
        models={"one": comparison.models["one"]},
        records=comparison.select(model="one", kind="canvas"),
    )
    write_comparison(part, tmp_path, "Colours")
    names = {path.name for path in tmp_path.iterdir()}
    assert {"comparison.json", "report.html", "curves.png", "side_by_side_one.png"} <= names
    content = json.loads((tmp_path / "comparison.json").read_text())
    assert {row["method"] for row in content["rows"]} > {*OWN}
    assert not content["failures"]
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert all(name in page for name in OWN)
    for r in part.records:
        for area in AREAS if r.method in OWN else ():
            name = f"{r.method}_{r.canvas}_{r.target}_{['ant', 'bee'][r.target]}_{area:g}"
            pattern = Pattern.load(tmp_path / "patterns" / "one" / f"{name}.safetensors")
            assert torch.equal(pattern.canvas, r.own[area].canvas)
            assert same_change(pattern, r.own[area])
            assert torch.equal(pattern.mask.bool(), r.masks[area])
            power = predictive_power(MODELS["one"], pattern, HELD_OUT, LABELS, area=None)
            assert power == r.powers[area]
    print_comparison(part)
    printed = capsys.readouterr().out
    first, second = printed.split("one model, not cut from a canvas")
    assert "ClassPattern" in first
    assert not any(name in first for name in OWN)
    assert all(name in second for name in OWN)
    assert "own form" in second
    [row] = [row for row in part.rows() if row["method"] == "PixelInversion"]
    line = next(line for line in second.splitlines() if line.strip().startswith("PixelInversion"))
    assert f"{row['own_form']:.1%}" in line
    assert f"{row['share_changed']:.1%}" in line


# ---- Captum's contract


SETTINGS = {
    LearnedPattern: {"n_steps": 2, "area": 0.1, "precision": "full"},
    rivals.NeuralCleanse: {"budget": 64},
    rivals.PixelInversion: {"budget": 64},
    rivals.UniversalPatch: {"budget": 400, "area": 0.1},
    rivals.UniversalPerturbation: {"budget": 64},
}
EACH = pytest.mark.parametrize("cls", CLASSES)


@EACH
def test_what_attribute_returns(cls):
    method, settings = cls(linear_net(), SEARCH, LABELS), SETTINGS[cls]
    assert isinstance(method, Attribution)
    assert method.patterns == []
    given = CANVASES.double()
    result = method.attribute(given, target=[0, 1, 2, 1], **settings)
    assert (result.shape, result.dtype) == (given.shape, torch.float64)
    assert [p.canvas.shape for p in method.patterns] == [SHAPE] * 4
    assert [p.target for p in method.patterns] == [0, 1, 2, 1]
    assert result.min() >= 0
    assert result.max() <= 1
    assert torch.equal(result, result[:, :1].expand_as(result))
    assert not result.requires_grad
    in_tuple = method.attribute((given,), target=[0, 1, 2, 1], **settings)
    assert isinstance(in_tuple, tuple)
    assert torch.equal(in_tuple[0], result)
    named = cls(PixelClassifier(linear_net(), class_names=["ant", "bee", "cat"]), SEARCH, LABELS)
    by_name = named.attribute(given, target=["ant", "bee", "cat", "bee"], **settings)
    torch.testing.assert_close(by_name, result)
    other = method.attribute(given, target=[0, 1, 2, 1], seed=1, **settings)
    assert not torch.equal(other, result)


def test_a_learned_pattern_is_that_of_the_search():
    method = LearnedPattern(linear_net(), SEARCH, LABELS)
    settings = {"n_steps": 2, "area": 0.1, "precision": "full", "seed": 3}
    result = method.attribute(CANVASES, target=[0, 1, 2, 1], **settings)
    patterns = ClassPattern(linear_net(), SEARCH, LABELS).search(
        CANVASES, [0, 1, 2, 1], solver="learned", **settings
    )
    assert torch.equal(result[:, :1], torch.stack([pattern.mask for pattern in patterns]))
    for found, expected in zip(method.patterns, patterns, strict=True):
        assert torch.equal(found.canvas, expected.canvas)


@pytest.mark.parametrize(
    ("cls", "invert"),
    [
        (rivals.NeuralCleanse, rivals.neural_cleanse),
        (rivals.PixelInversion, rivals.pixel_inversion),
        (rivals.UniversalPatch, rivals.universal_patch),
        (rivals.UniversalPerturbation, rivals.universal_perturbation),
    ],
)
def test_an_inversion_depends_on_the_class_alone(cls, invert):
    method = cls(linear_net(), SEARCH, LABELS)
    result = method.attribute(CANVASES, target=[0, 1, 2, 1], budget=300, seed=2)
    for i, target in enumerate([0, 1, 2, 1]):
        found = invert(linear_net(), SEARCH, target, labels=LABELS, passes=300, seed=2)
        assert torch.equal(result[i, :1], found.pattern.mask)
        assert torch.equal(method.patterns[i].canvas, found.pattern.canvas)
        assert same_change(method.patterns[i], found.own_form)
    assert torch.equal(result[1], result[3])
    other = method.attribute(1 - CANVASES[:1], target=0, budget=300, seed=2)
    assert torch.equal(other[0], result[0])


@pytest.mark.filterwarnings("ignore:the model is in train mode")
@pytest.mark.parametrize("labelled", [True, False])
@EACH
def test_a_call_changes_nothing(cls, labelled):
    net, pixels, canvases = make_net(), random_images(15, seed=6), random_images(2, seed=5)
    for parameter in net.parameters():
        parameter.grad = torch.full_like(parameter, 0.5)
    net[1].training = net[3].training = True
    canvases.requires_grad_()
    labels = torch.arange(15) % 3 if labelled else None
    before = state_of_caller(net, pixels, canvases)
    method = cls(net, pixels, labels)
    result = method.attribute(canvases, target=[2, 0], **SETTINGS[cls])
    assert state_of_caller(net, pixels, canvases) == before
    assert not result.requires_grad
    assert not any(pattern.canvas.requires_grad for pattern in method.patterns)
    plain = cls(make_net(), pixels, labels).attribute(canvases.detach(), [2, 0], **SETTINGS[cls])
    torch.testing.assert_close(result, plain)  # in eval mode


@pytest.mark.parametrize("cls", CLASSES[1:])
def test_baselines_of_one_class_are_refused(cls):
    with pytest.raises(ValueError, match="all 60 images are of class 2: give others, too"):
        cls(linear_net(), SEARCH, [2] * 60).attribute(CANVASES, target=2)


def test_a_failure_becomes_a_row_and_the_others_go_on():
    one_class = known_methods(SEARCH, [2] * 60, names=["rivals:NeuralCleanse"])
    found = compared(
        methods={**one_class, "Saliency": Saliency}, canvases=CANVASES[:1], targets=2, stamped=1
    )
    [failure] = found.failures
    assert failure.method == "NeuralCleanse"
    assert failure.reason == "ValueError: all 60 images are of class 2: give others, too"
    assert {r.method for r in found.records} == {"Saliency"}
