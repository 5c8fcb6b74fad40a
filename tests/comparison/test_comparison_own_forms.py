"""Patterns with free colours are stamped, drawn and saved in their own form."""

import base64
from dataclasses import replace
from functools import partial

import pytest
import torch
from captum.attr import Attribution
from comparisons import (
    CANVASES,
    HELD_OUT,
    LABELS,
    SEARCH,
    SHAPE,
    TARGETS,
    compared,
    linear_net,
    plain_hits,
    plain_mask,
)
from reports import without_figures
from scripts import imported

from captum_classpattern import ClassPattern, Pattern, PixelClassifier, predictive_power
from captum_classpattern.cli.compare import write_comparison
from captum_classpattern.cli.printing import print_result
from captum_classpattern.comparison import known_methods
from captum_classpattern.comparison.controls import LearnedPattern
from captum_classpattern.comparison.records import figure_names
from captum_classpattern.comparison.report import area_slider, tables
from captum_classpattern.pattern import AdditivePattern

rivals = imported("benchmarks", "rivals")
INVERT = {  # the method, and the function that it calls
    rivals.UniversalPatch: rivals.universal_patch,
    rivals.NeuralCleanse: rivals.neural_cleanse,
    rivals.PixelInversion: rivals.pixel_inversion,
    rivals.UniversalPerturbation: rivals.universal_perturbation,
}
CLASSES = {method.__name__: method for method in (LearnedPattern, *INVERT)}
OWN = [*CLASSES]
ADDED = ["PixelInversion", "UniversalPerturbation"]  # their changes are added to images
BY_AREA = ["LearnedPattern", "UniversalPatch"]
NAMES = ["ant", "bee", "cat"]
MODELS = {"one": linear_net(1), "other": linear_net(2)}
AREAS = [0.1, 0.3]  # 4 and 11 of the 36 pixels
EACH = pytest.mark.parametrize("name", OWN)


@pytest.fixture(scope="module")
def comparison():
    """Two models, two classes, and a trigger that is looked for on both."""
    pixels = torch.zeros(1, 6, 6)
    pixels[0, 4:, 4:] = 1
    known = ["LearnedPattern", "ClassPattern", "Saliency"]
    methods = known_methods(SEARCH, LABELS, names=known, n_steps=3, precision="full")
    for name in OWN[1:]:
        make = partial(CLASSES[name], baselines=SEARCH, baseline_labels=LABELS)
        methods[name] = make, {"budget": 400 if name == "UniversalPatch" else 64}
    return compared(
        models={name: PixelClassifier(net, class_names=NAMES) for name, net in MODELS.items()},
        canvases=CANVASES[:2],
        targets=[0, 1],
        methods={name: methods[name] for name in (*OWN, *known[1:])},
        areas=AREAS,
        n_seeds=1,
        stamped=1,
        triggers={"one": Pattern(torch.ones(3, 6, 6), pixels, 1)},
    )


def same_form(pattern, other):
    changes = getattr(pattern, "change", None), getattr(other, "change", None)
    assert torch.equal(pattern.canvas, other.canvas)
    return changes == (None, None) or torch.equal(*changes)


def share(model, own, mask, target):
    """Of the held-out images of other classes that are predicted as the class, by the formulas."""
    mask = mask.float()
    if isinstance(own, AdditivePattern):
        changed = (HELD_OUT + mask * own.change).clamp(0, 1)
    else:
        changed = mask * own.canvas + (1 - mask) * HELD_OUT
    nothing = torch.zeros(6, 6, dtype=torch.bool)
    hits, n = plain_hits(MODELS[model], own.canvas, nothing, target, images=changed)
    return hits / n


# ---- compare


@EACH
def test_powers_are_those_of_the_pixels_in_their_own_form(comparison, name):
    records, differ = comparison.select(method=name), 0
    assert not comparison.failures
    assert [(r.model, r.canvas, r.kind) for r in records] == [
        (model, i, "canvas" if i < 2 else "stamped") for model in MODELS for i in range(3)
    ]
    for r in records:
        areas = AREAS if r.kind == "canvas" else [0.1]
        assert list(r.masks) == list(r.own) == areas
        assert (r.searches, r.control, r.cut_from_canvas) == (name in BY_AREA, False, False)
        assert r.name == f"{name}, free colours"
        assert r.precision == ("float32" if name == "LearnedPattern" else None)
        for area in areas:
            own, mask, pattern = r.own[area], r.masks[area], comparison.pattern_of(r, area)
            assert isinstance(own, AdditivePattern) == (name in ADDED)
            assert int(mask.sum()) == round(36 * area)
            if area == 0.1 or name not in BY_AREA:
                assert torch.equal(mask[0], plain_mask(r.map, area))
                assert own is r.own[0.1]
            assert same_form(pattern, own)
            assert torch.equal(pattern.mask.bool(), mask)
            assert not torch.equal(pattern.canvas, comparison.canvas_of(r))
            assert (pattern.target, pattern.info["area"]) == (r.target, area)
            if r.kind == "canvas":
                expected = share(r.model, own, mask, r.target)
                assert r.powers[area].value == expected
                cut = plain_hits(MODELS[r.model], CANVASES[r.canvas], mask[0], r.target)
                differ += expected != cut[0] / cut[1]
    assert differ >= 3  # the colours of the canvas would have given other powers


class Painted(Attribution):
    """A method of one's own with patterns, which takes neither an area nor a seed."""

    patterns = ()

    def attribute(self, inputs, target=None, additional_forward_args=None):
        mask = torch.full((1, 6, 6), 0.5)
        self.patterns = [Pattern(1 - image, mask, y) for image, y in zip(inputs, target)]
        return inputs


def test_colours_of_a_method_that_explains_images_one_at_a_time():
    found = compared(methods={"Painted": Painted})
    assert not found.failures
    assert [r.canvas for r in found.records] == [0, 1, 2, 3]
    for r in found.records:
        assert not r.cut_from_canvas
        assert all(torch.equal(own.canvas, 1 - CANVASES[r.canvas]) for own in r.own.values())


# ---- rows, figures, the report and files


def test_rows_tables_and_figures_mark_them(comparison):
    marked = {f"{name}, free colours" for name in OWN}
    for by in ("method", "canvas"):
        for row in comparison.rows(by):
            assert row["cut_from_canvas"] == (row["method"] not in OWN)
    assert marked <= {*figure_names(comparison.records, 0.1)}
    names = {*tables(comparison)["Predictive power at each area"]["method"]}
    assert marked <= names
    assert not {*OWN} & names


@EACH
def test_the_slider_draws_the_pixels_that_were_scored(comparison, name):
    """In their own colours, or in those of the canvas for a method without."""
    names = ("ClassPattern", name)
    few = [r for r in comparison.select(model="one", kind="canvas") if r.method in names]
    data = area_slider(replace(comparison, models={"one": 0.5}, records=few))
    shown = [method["name"].partition(",")[0] for method in data["methods"]]
    assert sorted(shown) == sorted(names)
    for column, method in enumerate(shown):
        for number, canvas in enumerate(data["canvases"]):
            [r] = [r for r in few if (r.method, r.canvas) == (method, number)]
            cell = data["cells"][0][number][column]
            images = cell["pixels"] or [canvas["pixels"]] * len(AREAS)
            assert (cell["pixels"] == []) == (r.method == "ClassPattern")
            for area, image in zip(AREAS, images, strict=True):
                drawn = torch.tensor([*base64.b64decode(image)]).view(6, 6, 3).permute(2, 0, 1)
                kept, scored = r.masks[area][0], comparison.pattern_of(r, area).canvas
                assert torch.equal(drawn[:, kept], (255 * scored).round()[:, kept])


def test_patterns_are_written_and_printed(comparison, tmp_path, capsys, monkeypatch):
    records = comparison.select(model="one", kind="canvas", canvas=1)
    part = replace(comparison, models={"one": comparison.models["one"]}, records=records)
    without_figures(monkeypatch)
    write_comparison(part, tmp_path)
    for r in records:
        for area in AREAS if r.method in OWN else ():
            name = f"{r.method}_1_1_bee_{area:g}.safetensors"
            pattern = Pattern.load(tmp_path / "patterns" / "one" / name)
            assert same_form(pattern, r.own[area])
            assert torch.equal(pattern.mask.bool(), r.masks[area])
            power = predictive_power(MODELS["one"], pattern, HELD_OUT, LABELS, area=None)
            rounded = pytest.approx(r.powers[area].mean_margin)
            assert power == replace(r.powers[area], mean_margin=rounded)
    print_result(part)
    lines = capsys.readouterr().out.splitlines()
    for name in OWN:
        assert any(f" {name}, free colours " in line for line in lines)


# ---- Captum's contract


SETTINGS = {
    **{name: {"budget": 64} for name in OWN},
    "LearnedPattern": {"n_steps": 2, "area": 0.1, "precision": "full"},
    "UniversalPatch": {"budget": 400, "area": 0.1},
}


@EACH
def test_attribute_returns_what_the_search_finds(name):
    settings, names = {**SETTINGS[name], "seed": 3}, ["ant", "bee", "cat"]
    method = CLASSES[name](PixelClassifier(linear_net(), class_names=names), SEARCH, LABELS)
    assert len(method.patterns) == 0
    [result] = method.attribute((CANVASES,), target=["ant", "bee", "cat", "bee"], **settings)
    if name == "LearnedPattern":
        search = ClassPattern(linear_net(), SEARCH, LABELS).search
        expected = masks = search(CANVASES, TARGETS, solver="learned", **settings)
    else:  # it depends on the class alone
        settings["passes"] = settings.pop("budget")
        invert = partial(INVERT[CLASSES[name]], linear_net(), SEARCH, labels=LABELS)
        found = [invert(target=y, **settings) for y in TARGETS]
        expected, masks = [f.own_form for f in found], [f.pattern for f in found]
    assert torch.equal(result, torch.stack([p.mask for p in masks]).expand_as(CANVASES))
    assert all(same_form(*pair) for pair in zip(method.patterns, expected, strict=True))
    assert [pattern.target for pattern in method.patterns] == TARGETS
    given = (CANVASES[:1].double() - 0.01).requires_grad_()  # as a method with noise gives them
    tensor = method.attribute(given, target=0, **SETTINGS[name])
    assert (tensor.shape, tensor.dtype) == ((1, *SHAPE), torch.float64)
    assert not tensor.requires_grad
    assert not method.patterns[0].canvas.requires_grad
