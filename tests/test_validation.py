"""Warnings about a model, and what a search may not do to a device."""

import warnings

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from captum_classpattern import ClassPattern, PixelClassifier, compare, search_masks
from captum_classpattern.classifier import warn_if_guessing

LABELS = torch.arange(60) % 3
SHADES = torch.tensor([0.2, 0.5, 0.8])


def images(seed=0):
    """Dark, grey and light ones: the class is how light they are."""
    noise = 0.1 * torch.rand(60, 1, 6, 6, generator=torch.Generator().manual_seed(seed))
    return SHADES[LABELS].view(-1, 1, 1, 1) + noise - 0.05


class ByShade(nn.Module):
    """Takes normalised images: the classes' means are -10, 0 and 10."""

    def forward(self, x):
        return -((x.mean((1, 2, 3))[:, None] - torch.tensor([-10.0, 0.0, 10.0])) ** 2)


RAW = ByShade().eval()
RIGHT = PixelClassifier(RAW, mean=0.5, std=0.03)
GUESSING = "classifies only 33.3% of 60 baselines correctly, which is close to guessing"


def test_a_model_of_normalised_images_that_gets_pixels_is_reported():
    explainer = ClassPattern(RAW, images(), LABELS)
    with pytest.warns(UserWarning, match=GUESSING) as caught:
        explainer.search(images(1)[:1], 0, n_steps=1, area=0.2)
    assert [warning.filename for warning in caught] == [__file__]
    with warnings.catch_warnings():  # once an explainer
        warnings.simplefilter("error")
        explainer.attribute(images(1)[:1], 0, n_steps=1, area=0.2)


@pytest.mark.parametrize("labels", [None, LABELS])
def test_a_model_that_is_right_or_provides_the_labels_is_not_reported(labels):
    model = RIGHT if labels is not None else RAW
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        ClassPattern(model, images(), labels).search(images(1)[:1], 0, n_steps=1, area=0.2)


def test_a_few_images_are_not_enough_to_tell():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        explainer = ClassPattern(RAW, images()[:18], LABELS[:18])
        explainer.search(images(1)[:1], 0, n_steps=1, area=0.2)


def test_compare_names_the_model_that_guesses():
    with pytest.warns(UserWarning, match=r"60 held-out images \(model 'raw'\) correctly") as w:
        compare(
            {"right": RIGHT, "raw": RAW},
            images(2)[:1],
            0,
            search=(images(), LABELS),
            held_out=(images(1), LABELS),
            methods=["RandomPixels"],
            areas=[0.2],
            area=0.2,
        )
    assert len(w) == 1


@pytest.mark.parametrize(
    ("accuracy", "labels", "classes", "warned"),
    [
        (0.0, [0, 1] * 20, 1000, True),  # two class folders that are not the model's 0 and 1
        (0.6, [0, 1] * 20, 1000, False),
        (0.54, [0, 1] * 20, 2, True),  # a half is what a coin gives
        (0.56, [0, 1] * 20, 2, False),
        (0.9, [0] * 38 + [1] * 2, 2, True),  # so does calling all of them class 0
        (0.0, [0, 1] * 9, 2, False),  # too few to tell
    ],
)
def test_guessing_is_accuracy_at_chance(accuracy, labels, classes, warned):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        warn_if_guessing(accuracy, torch.tensor(labels), classes, "images")
    assert bool(caught) == warned


class NoFloat64(TorchDispatchMode):
    """Like a device that has no float64, such as Apple's mps."""

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        made = result if isinstance(result, tuple | list) else [result]
        for tensor in made:
            if isinstance(tensor, torch.Tensor) and tensor.dtype == torch.float64:
                raise TypeError(f"{function} makes float64")
        return result


def test_a_search_needs_no_float64_on_the_device():
    canvases, baselines = images(1)[:2], images()
    with NoFloat64():
        search_masks(RAW, canvases, [0, 1], baselines, baseline_labels=LABELS, n_steps=2, area=0.2)
    assert not [b for b in RIGHT.buffers() if b.dtype == torch.float64]


def test_cudnn_does_not_time_kernels_during_a_search(monkeypatch):
    seen = []

    class Watching(ByShade):
        def forward(self, x):
            cudnn = torch.backends.cudnn
            seen.append((cudnn.benchmark, cudnn.deterministic))
            return super().forward(x)

    monkeypatch.setattr(torch.backends.cudnn, "benchmark", True)
    search_masks(
        Watching().eval(), images(1)[:1], 0, images(), baseline_labels=LABELS, n_steps=1, area=0.2
    )
    assert set(seen) == {(False, True)}
    assert torch.backends.cudnn.benchmark
