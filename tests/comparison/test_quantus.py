"""Metrics of Quantus run on class patterns, with the values that they should have."""

import numpy as np
import pytest
import torch

from captum_classpattern import ClassPattern, select_canvases
from captum_classpattern.demo import demo_images, demo_models

quantus = pytest.importorskip("quantus", exc_type=ImportError)  # OpenCV needs libGL

CLASSES = [0, 8]
KEPT = 49  # pixels of 784: PixelFlipping only takes steps that divide the number of pixels
QUIET = {"disable_warnings": True}


@pytest.fixture(scope="module")
def model():
    return demo_models()["natural"]


@pytest.fixture(scope="module")
def canvases(model):
    images = demo_images().search
    return torch.cat([select_canvases(model, images, target=y, n=1) for y in CLASSES])


def explain(model, inputs, targets, **_):
    """The masks of a very short search, as Quantus wants them."""
    explainer = ClassPattern(model, demo_images().search)
    images = torch.as_tensor(inputs, dtype=torch.float32)
    masks = explainer.attribute(images, targets.tolist(), area=KEPT / 784, n_steps=1)
    return masks.numpy()


@pytest.fixture(scope="module")
def masks(model, canvases):
    return explain(model, canvases.numpy(), np.array(CLASSES))


def score(metric, model, canvases, explain_func=explain, **given):
    """The values of a metric, a canvas each."""
    return metric(
        model=model,
        x_batch=canvases.numpy(),
        y_batch=np.array(CLASSES),
        explain_func=explain_func,
        **given,
    )


def gini(values):
    """The Gini coefficient by its definition: the mean difference of two values over twice their
    mean."""
    values = np.abs(values).ravel().astype(np.float64)
    return np.abs(values[:, None] - values[None]).mean() / (2 * values.mean())


def test_sparseness_is_the_gini_coefficient_of_the_mask(model, canvases, masks):
    found = score(quantus.Sparseness(**QUIET), model, canvases, a_batch=masks)
    assert found == pytest.approx([gini(mask) for mask in masks], abs=1e-3)
    binary = (masks > 0).astype(np.float32)
    found = score(quantus.Sparseness(**QUIET), model, canvases, a_batch=binary)
    assert found == pytest.approx([1 - KEPT / 784] * 2, abs=1e-3)  # all binary masks of this area


def test_pixel_flipping_blackens_the_pattern_first(model, canvases, masks):
    assert float(canvases.amin()) == 0  # Quantus takes the smallest value of a canvas as black
    metric = quantus.PixelFlipping(features_in_step=KEPT, **QUIET)
    curves = np.array(score(metric, model, canvases, a_batch=masks, softmax=True))
    assert curves.shape == (2, 784 // KEPT)
    pattern = torch.tensor(masks) > 0
    for step, images in ((0, canvases.masked_fill(pattern, 0.0)), (-1, torch.zeros_like(canvases))):
        with torch.no_grad():
            expected = model(images).softmax(1)[[0, 1], CLASSES]
        assert curves[:, step] == pytest.approx(expected.numpy(), abs=1e-4)


def test_random_logit_is_one_for_a_map_that_ignores_the_class(model, canvases, masks):
    metric = quantus.RandomLogit(num_classes=10, **QUIET)
    assert score(metric, model, canvases, lambda **_: masks) == pytest.approx([1, 1])
    assert all(-1 <= value < 0.99 for value in score(metric, model, canvases))


def test_mprt_is_one_for_a_map_that_ignores_the_model(model, canvases, masks):
    metric = quantus.MPRT(skip_layers=True, return_last_correlation=True, **QUIET)
    assert score(metric, model, canvases, lambda **_: masks) == pytest.approx([1, 1])
    found = score(metric, model, canvases)
    assert len(found) == 2
    assert all(-1 <= value < 0.5 for value in found)


def test_max_sensitivity_is_zero_if_the_canvas_stays_and_large_if_it_does_not(model, canvases):
    metric = quantus.MaxSensitivity(nr_samples=1, perturb_func=lambda arr, **_: arr, **QUIET)
    with pytest.warns(UserWarning, match="didn't cause change in input"):
        assert score(metric, model, canvases) == [0, 0]  # the search is seeded
    np.random.seed(0)
    metric = quantus.MaxSensitivity(nr_samples=1, lower_bound=0.05, **QUIET)
    assert all(0.1 < value < 2**0.5 + 0.1 for value in score(metric, model, canvases))
