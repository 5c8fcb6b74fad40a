"""Captum's metrics have the values that Captum computes."""

import pytest
import torch
from captum.attr import InputXGradient, Saliency
from captum.metrics import infidelity, infidelity_perturb_func_decorator, sensitivity_max
from comparisons import CANVASES, TARGETS, Searching, compared, conv_net, from_function, linear_net
from torch import nn

from captum_classpattern import Pattern
from captum_classpattern.comparison.records import format_error


def image_records(comparison, method):
    return comparison.select(method=method, level="image", ranking="signed", kind="canvas")


@pytest.mark.filterwarnings("ignore:Input Tensor 0 did not already require gradients")
@pytest.mark.parametrize("method", [Saliency, InputXGradient])
@pytest.mark.parametrize("seed", [0, 3])
def test_they_are_captums(method, seed):
    net = conv_net()
    comparison = compared(models={"conv": net}, methods={"m": method}, seed=seed)
    attribution, images = method(net), CANVASES.clone()

    @infidelity_perturb_func_decorator(method is InputXGradient)
    def noisy(inputs):
        return inputs - 0.05 * torch.randn_like(inputs)

    unfaithful, moved = [], []
    for image, target in zip(images.split(1), TARGETS):  # each canvas alone, seeded alike
        torch.manual_seed(seed)
        unfaithful += infidelity(
            net,
            noisy,
            image,
            attribution.attribute(image, target).detach(),
            target=target,
            n_perturb_samples=10,
            normalize=True,
        )
        torch.manual_seed(seed)
        moved += sensitivity_max(
            attribution.attribute, image, perturb_radius=0.02, n_perturb_samples=3, target=target
        )
    records = image_records(comparison, "m")
    unfaithful, moved = ([float(value) for value in values] for values in (unfaithful, moved))
    assert [r.score("infidelity") for r in records] == pytest.approx(unfaithful, rel=1e-4)
    assert [r.score("sensitivity") for r in records] == pytest.approx(moved, rel=1e-4)
    assert min(unfaithful) > 0


def test_the_gradient_of_a_linear_model_is_faithful_and_a_turned_one_is_not():
    weight = linear_net()[1].weight.detach().view(3, 3, 6, 6)
    comparison = compared(
        methods={
            "true": from_function(lambda images, targets: weight[list(targets)].clone()),
            "times": from_function(lambda images, targets: 7 * weight[list(targets)]),
            "turned": from_function(lambda images, targets: weight[list(targets)].flip(-1)),
        }
    )
    found = {
        name: [r.score("infidelity") for r in image_records(comparison, name)]
        for name in ("true", "times", "turned")
    }
    assert max(found["true"] + found["times"]) < 1e-5  # whatever the scale
    assert min(found["turned"]) > 0.001
    assert {r.score("sensitivity") for r in comparison.records if r.level == "image"} <= {0.0, None}


def test_they_are_of_the_signed_maps_of_images_alone():
    comparison = compared(
        triggers={"linear": Pattern(torch.ones(3, 6, 6), torch.eye(6)[None], 1)},
        methods={"InputXGradient": InputXGradient, "Searching": Searching},
    )
    for r in comparison.records:
        wanted = (r.level, r.ranking) == ("image", "signed") and r.kind == "canvas"
        assert (r.score("infidelity") is not None) == wanted
        assert (r.score("sensitivity") is not None) == (wanted and r.method == "InputXGradient")


def test_a_metric_that_fails_costs_no_more_than_itself():
    def function(images, targets):
        if len(images) > 1:
            raise RuntimeError("not\n  so many")
        return images

    comparison = compared(methods={"m": from_function(function)})
    [failure] = comparison.failures
    assert (failure.what, failure.reason) == ("sensitivity_max", "RuntimeError: not so many")
    assert all(r.score("infidelity") > 0 for r in image_records(comparison, "m"))
    assert all(r.score("sensitivity") is None for r in comparison.records)


class Root(nn.Module):
    """No number for pixels below 0, which Captum's noise leads to."""

    def __init__(self):
        super().__init__()
        self.net = linear_net()

    def forward(self, images):
        return self.net(images.sqrt())


def test_values_that_are_no_numbers_are_left_out():
    comparison = compared(models={"root": Root().eval()}, methods={"Saliency": Saliency})
    dark = compared(
        models={"root": Root().eval()},
        methods={"Saliency": Saliency},
        canvases=CANVASES.clamp(0.3, 0.7),
    )
    assert all(r.score("infidelity") is None for r in image_records(comparison, "Saliency"))
    assert all(r.score("infidelity") > 0 for r in image_records(dark, "Saliency"))


def test_maps_that_are_zero_have_numbers():
    zero = from_function(lambda images, targets: torch.zeros_like(images))
    for r in image_records(compared(methods={"zero": zero}), "zero"):
        assert r.score("infidelity") > 0
        assert r.score("sensitivity") == 0


def test_errors_are_formatted_in_one_line():
    assert format_error(ValueError("one\n two")) == "ValueError: one two"
    assert format_error(AssertionError()) == "AssertionError"
