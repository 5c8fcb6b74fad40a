"""Classes can be given by name wherever they can be given by number."""

import pytest
import torch
from torch import nn

from captum_classpattern import (
    ClassPattern,
    PixelClassifier,
    compare,
    search_masks,
    select_canvases,
)
from captum_classpattern.comparison import BestCrop, ClassMean
from captum_classpattern.surveys import survey

NAMES = ["cat", "house dog", "eel"]
IMAGES = torch.rand(60, 1, 8, 8, generator=torch.Generator().manual_seed(0))
LABELS = torch.arange(60) % 3


@pytest.fixture
def model():
    torch.manual_seed(0)
    network = nn.Sequential(nn.Flatten(), nn.Linear(64, 3)).eval()
    return PixelClassifier(network, class_names=NAMES)


@pytest.mark.parametrize(
    ("named", "numbers"),
    [("House_Dog", 1), (["eel", "cat"], [2, 0]), (["eel", 0], [2, 0]), ("eel", torch.tensor(2))],
)
def test_search_and_attribute(model, named, numbers):
    explainer = ClassPattern(model, IMAGES, LABELS)
    by_name, by_number = (
        explainer.search(IMAGES[:2], target, n_steps=3) for target in (named, numbers)
    )
    assert [p.target for p in by_name] == [p.target for p in by_number]
    assert all(torch.equal(p.mask, q.mask) for p, q in zip(by_name, by_number))
    assert [p.info["class_name"] for p in by_name] == [NAMES[p.target] for p in by_name]
    maps = [explainer.attribute(IMAGES[:2], target=t, n_steps=3) for t in (named, numbers)]
    assert torch.equal(*maps)


def test_search_masks_and_select_canvases(model):
    masks = [
        search_masks(model, IMAGES[:1], t, IMAGES, baseline_labels=LABELS, n_steps=3).masks
        for t in ("eel", 2)
    ]
    assert torch.equal(*masks)
    canvases = [select_canvases(model, IMAGES, LABELS, t, 2) for t in ("house-dog", 1)]
    assert torch.equal(*canvases)


def test_survey(model):
    def findings(classes):
        return survey(
            model, (IMAGES[:30], LABELS[:30]), (IMAGES[30:], LABELS[30:]),
            classes=classes, areas=(0.1,), n_steps=2,
        )  # fmt: skip

    assert [f.target for f in findings(["eel", "cat", 2])] == [2, 2, 2, 0, 0, 0]


def test_compare_and_its_controls(model):
    canvases = IMAGES[:2]
    comparison = compare(
        {"mine": model}, canvases, ["cat", "eel"],
        search=(IMAGES[:30], LABELS[:30]), held_out=(IMAGES[30:], LABELS[30:]),
        methods=["Saliency"], n_seeds=1, area=0.1,
    )  # fmt: skip
    assert comparison.targets == [0, 2]
    for control in (ClassMean(model, IMAGES, LABELS), BestCrop(model, IMAGES, LABELS)):
        maps = [control.attribute(canvases, target=target) for target in ("eel", 2)]
        assert torch.equal(*maps)


def test_unknown_names(model):
    explainer = ClassPattern(model, IMAGES, LABELS)
    with pytest.raises(ValueError, match="the model has no class 'house dgo': did you mean house"):
        explainer.search(IMAGES[:1], "house dgo")
    for names in (None, ["class 0", "class 1", "class 2"]):
        model.class_names = names
        text = r"target must be an int, .* got list: \['eel'\]; names work, too, if the model"
        with pytest.raises(TypeError, match=text):
            explainer.search(IMAGES[:1], ["eel"])


@pytest.mark.parametrize("wrong", [True, 0.5, None, [True], ["eel", 0.5], ("eel",)])
def test_other_types_are_refused(model, wrong):
    with pytest.raises(TypeError, match="target must be an int"):
        ClassPattern(model, IMAGES, LABELS).search(IMAGES[:2], wrong)


def test_classes_without_names_have_no_class_name(model):
    model.class_names = ["class 0", "class 1", "class 2"]
    [pattern] = ClassPattern(model, IMAGES, LABELS).search(IMAGES[:1], 1, n_steps=2)
    assert "class_name" not in pattern.info
