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
MODEL = demo_models()["natural"]
IMAGES = demo_images().search


@pytest.fixture(scope="module")
def canvases():
    return torch.cat([select_canvases(MODEL, IMAGES, target=y, n=1) for y in CLASSES])


def explain(model, inputs, targets, **_):
    """The masks of a very short search, as Quantus wants them."""
    images = torch.as_tensor(inputs, dtype=torch.float32)
    explainer = ClassPattern(model, IMAGES)
    return explainer.attribute(images, targets.tolist(), area=KEPT / 784, n_steps=1).numpy()


@pytest.fixture(scope="module")
def masks(canvases):
    return explain(MODEL, canvases.numpy(), np.array(CLASSES))


def score(metric, canvases, explain_func=explain, **given):
    """The values of a metric, a canvas each."""
    given |= {"x_batch": canvases.numpy(), "y_batch": np.array(CLASSES)}
    return metric(model=MODEL, explain_func=explain_func, **given)


def gini(values):
    """The Gini coefficient by its definition: the mean difference of two values over twice their
    mean."""
    values = np.abs(values).ravel().astype(np.float64)
    return np.abs(values[:, None] - values[None]).mean() / (2 * values.mean())


def test_sparseness_is_the_gini_coefficient_of_the_mask(canvases, masks):
    found = score(quantus.Sparseness(**QUIET), canvases, a_batch=masks)
    assert found == pytest.approx([gini(mask) for mask in masks], abs=1e-3)
    binary = (masks > 0).astype(np.float32)
    found = score(quantus.Sparseness(**QUIET), canvases, a_batch=binary)
    assert found == pytest.approx([1 - KEPT / 784] * 2, abs=1e-3)  # all binary masks of this area


def test_random_logit_is_one_for_a_map_that_ignores_the_class(canvases, masks):
    metric = quantus.RandomLogit(num_classes=10, **QUIET)
    assert score(metric, canvases, lambda **_: masks) == pytest.approx([1, 1])
    assert all(-1 <= value < 0.99 for value in score(metric, canvases))
