"""A model without gradients is refused, and one that has some is not."""

import copy

import pytest
import torch
from refusals import refusals
from small_models import linear_net, random_images
from torch import nn

from captum_classpattern import ClassPattern, LabelledImages, MovingPatch, explain_class, scan
from captum_classpattern.classifier import enter_model
from captum_classpattern.optimization.solvers.whole_image import Perturbation, Warp

IMAGES, LABELS = random_images(60, height=8, width=8), torch.arange(60) % 3
NET = linear_net(64, gain=1.0, seen=IMAGES)


class Changed(nn.Module):
    """A network behind a change of its images."""

    def __init__(self, change):
        super().__init__()
        self.network, self.change = NET, change
        self.eval()

    def forward(self, images, *_):
        return self.network(self.change(images))


def rounded(images):
    return (255 * images).round() / 255


def search(change=rounded, canvases=IMAGES[:2], target=0, **settings):
    explainer = ClassPattern(Changed(change), IMAGES, LABELS, check_accuracy=False)
    settings = {"n_steps": 2, "area": 0.2, **settings}
    return explainer.search(canvases, target, **settings)


def attribute(**settings):
    explainer = ClassPattern(Changed(rounded), IMAGES, LABELS, check_accuracy=False)
    return explainer.attribute(IMAGES[:2], 0, n_steps=2, area=0.2, **settings)


def whole_image(solver, change=rounded):
    with enter_model(Changed(change), IMAGES) as model:
        return solver.run(model, LabelledImages(IMAGES, LABELS), [0], 0, 8)


REFUSALS = {
    "a search": search,
    "of a pool": lambda: search(canvases=IMAGES[:9], keep=1),
    "by the paper's loop": lambda: search(solver="paper"),
    "of colours": lambda: search(solver="learned"),
    "of a moving patch": lambda: search(canvases=None, solver=MovingPatch(side=3)),
    "integers": lambda: search(lambda images: (images > 0.5).float()),
    "an attribution": attribute,
    "with arguments": lambda: attribute(additional_forward_args=torch.zeros(2, 5)),
    "an explanation": lambda: explain_class(Changed(rounded), IMAGES, LABELS, 0, budget=500),
    "a scan": lambda: scan(Changed(rounded), IMAGES, LABELS),
    "a perturbation": lambda: whole_image(Perturbation(steps=2)),
    "detached images": lambda: search(torch.Tensor.detach),
    "a perturbation of detached images": lambda: whole_image(Perturbation(), torch.Tensor.detach),
}


def test_refusals(snapshot):
    assert refusals(REFUSALS) == snapshot


def where_it_is_bright(images):
    """Dark images have no gradient."""
    is_dark = images.mean((1, 2, 3), keepdim=True) < 0.35
    return torch.where(is_dark, rounded(images), images)


@pytest.mark.parametrize("solver", ["swap", "paper"])
def test_a_model_whose_gradient_is_zero_for_some_classes_or_images_is_not_refused(solver):
    assert len(search(where_it_is_bright, torch.zeros(1, 1, 8, 8), solver=solver)) == 1


def test_a_class_that_is_certain_needs_no_gradient():
    """Nor does a warp of images of one colour."""
    certain = copy.deepcopy(NET)
    certain[-1].bias.data[0] += 1000
    explainer = ClassPattern(certain, IMAGES, LABELS, check_accuracy=False)
    [pattern] = explainer.search(IMAGES[:1], 0, n_steps=2, area=0.2)
    assert pattern.info["search_power"] == 1
    grey = LabelledImages(torch.full_like(IMAGES, 0.5), LABELS)
    with enter_model(NET, IMAGES) as entered:
        Warp(steps=2).run(entered, grey, [0], 0, 8)
