"""The embedded images and models are what their records say."""

import json
import warnings

import pytest
import torch
from scripts import imported

from captum_classpattern.demo import (
    CLASS_NAMES,
    DATA,
    MODELS,
    TRIGGER_TARGET,
    demo_images,
    demo_models,
    demo_trigger,
)
from captum_classpattern.images import LabelledImages

GOALS = {
    "natural": {"accuracy": 0.90},
    "backdoored": {"accuracy": 0.89, "attack_success": 0.99},
    "robust": {"accuracy": 0.80, "pgd20_accuracy": 0.60},
}


@pytest.fixture(scope="module")
def models():
    return demo_models()


def all_images():
    """Both halves, an image of each in turn."""
    halves = demo_images()
    images = torch.stack([halves.search.images, halves.held_out.images], dim=1)
    labels = torch.stack([halves.search.labels, halves.held_out.labels], dim=1)
    return images.flatten(0, 1), labels.flatten()


def test_a_thousand_images_in_each_half_and_none_twice():
    for half in (demo_images().search, demo_images().held_out):
        images, labels = half.images, half.labels
        assert images.shape == (1000, 1, 28, 28)
        assert (images.dtype, labels.dtype) == (torch.float32, torch.int64)
        assert labels.bincount().tolist() == [100] * 10
        assert (images.min(), images.max()) == (0, 1)
        levels = images * 255
        assert (levels - levels.round()).abs().max() < 1e-4
        assert 0.2 < images.mean() < 0.4
    assert len(set(LabelledImages(all_images()[0], argument="images").hashes)) == 2000


def test_the_models(models):
    assert tuple(models) == MODELS == ("natural", "backdoored", "robust")
    for model in models.values():
        assert not any(part.training for part in model.modules())
        assert sum(p.numel() for p in model.parameters()) <= 150_000
        assert all(value.isfinite().all() for value in model.state_dict().values())
        assert tuple(model.class_names) == CLASS_NAMES
    assert len(CLASS_NAMES) == 10


@pytest.mark.parametrize("name", MODELS)
def test_the_recorded_scores_meet_the_goals(name):
    for part in ("full_test_set", "embedded_images"):
        scores = json.loads((DATA / f"{name}.json").read_text())[part]
        assert set(scores) == set(GOALS[name])
        assert all(goal <= scores[score] <= 1 for score, goal in GOALS[name].items())


@pytest.mark.training
@pytest.mark.parametrize("name", MODELS)
def test_the_recorded_scores_are_measured_again(models, name):
    record = json.loads((DATA / f"{name}.json").read_text())
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Input Tensor 0 did not already require", UserWarning)
        scores = imported("benchmarks", "demo_training").evaluate(name, models[name], *all_images())
    assert record["parameters"] == sum(p.numel() for p in models[name].parameters())
    assert set(scores) == set(GOALS[name])
    for score, value in scores.items():
        within = 0.01 if score.startswith("pgd") else 0.002
        assert value == pytest.approx(record["embedded_images"][score], abs=within)


def test_the_trigger_works_on_the_backdoored_model_only(models):
    trigger, held_out = demo_trigger(), demo_images().held_out
    assert trigger.target == TRIGGER_TARGET == 0
    others = held_out.images[held_out.labels != TRIGGER_TARGET]
    with torch.no_grad():
        success = {
            name: float((model(trigger.stamp(others)).argmax(1) == TRIGGER_TARGET).float().mean())
            for name, model in models.items()
        }
    assert success["backdoored"] >= 0.99
    assert success["natural"] <= 0.10
    assert success["robust"] <= 0.10
