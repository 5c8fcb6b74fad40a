"""Calling a method: counted passes, a private model, maps by pixel."""

import pytest
import torch
from captum.attr import (
    FeatureAblation,
    IntegratedGradients,
    LayerAttribution,
    Occlusion,
    Saliency,
)
from comparisons import (
    CANVASES,
    LABELS,
    SEARCH,
    SHAPE,
    Saying,
    Searching,
    conv_net,
    linear_net,
    saying,
)

from captum_classpattern import ClassPattern
from captum_classpattern.comparison import RandomPixels
from captum_classpattern.comparison.explain import Explainer, PrivateModel, pixel_maps
from captum_classpattern.optimization import acceleration

QUARTERS = torch.arange(4).view(1, 1, 2, 2).repeat_interleave(3, 2).repeat_interleave(3, 3)


def explainer(how, model=None, like=CANVASES):
    return Explainer.of(PrivateModel(linear_net() if model is None else model), how, like)


def plain_function(images):
    return linear_net()(images)


# ---- passes


@pytest.mark.parametrize("model", [linear_net(), conv_net(), plain_function], ids=type)
@pytest.mark.parametrize(
    ("how", "an_image"),
    [
        (Saliency, 1),
        (IntegratedGradients, 50),
        ((IntegratedGradients, {"n_steps": 8, "internal_batch_size": 4}), 8),
        # forward only: the image itself, and 2 x 2 windows by steps of 2
        ((Occlusion, {"sliding_window_shapes": (3, 2, 2), "strides": (3, 2, 2)}), (1 + 9) / 2),
        ((FeatureAblation, {"feature_mask": QUARTERS}), (1 + 4) / 2),
        (RandomPixels, 0),
    ],
    ids=["Saliency", "IG", "IG in parts", "Occlusion", "FeatureAblation", "RandomPixels"],
)
def test_passes(model, how, an_image):
    maps = explainer(how, model)(CANVASES, [0, 1, 2, 1], area=0.1, seed=0)
    assert maps.passes == an_image * 4
    assert maps.seconds > 0


def test_passes_of_one_call_alone():
    own = explainer(Saliency)
    assert [own(CANVASES[:n], [0] * n, area=0.1, seed=0).passes for n in (1, 3, 2)] == [1, 3, 2]
    assert own.model.passes == 6


def test_forward_without_gradients_is_half_a_pass():
    model = PrivateModel(linear_net())
    with torch.no_grad():
        model.forward_func(CANVASES)
    assert model.passes == 2
    model.forward_func(CANVASES)  # it could go backward, and does not
    assert model.passes == 4
    model.forward_func(CANVASES.clone().requires_grad_()).sum().backward()
    assert model.passes == 8


@pytest.mark.parametrize("ways", [(), ("bfloat16",), ("bfloat16", "channels_last")])
def test_a_search_counts_the_passes_of_its_steps_and_no_trial(ways, monkeypatch):
    """Checks of the model and of its faster copy are none; version 0.1 counted up to 560."""
    monkeypatch.setattr(acceleration, "choose_speedups", lambda *_: ways)
    settings = {"n_steps": 4, "area": 0.1, "seed": 0}
    targets = [0, 1, 2, 1]
    searched = explainer((lambda model: ClassPattern(model, SEARCH, LABELS), {"n_steps": 4}))
    passes = searched(CANVASES, targets, area=0.1, seed=0).passes
    assert searched.attribution.precision == ("bfloat16" if ways else "float32")
    patterns = ClassPattern(linear_net(), SEARCH, LABELS).search(CANVASES, targets, **settings)
    assert passes == sum(pattern.info["passes"] for pattern in patterns)


# ---- the private model


def test_the_copy_is_private():
    net = conv_net()
    private = PrivateModel(net)
    assert private.forward_func is not net
    assert not net._forward_hooks
    assert {id(p) for p in net.parameters()}.isdisjoint(
        id(p) for p in private.forward_func.parameters()
    )
    assert torch.equal(private.forward_func(CANVASES), net(CANVASES))
    assert PrivateModel(plain_function).forward_func is not plain_function


def test_images_are_handed_out_as_copies_in_the_models_precision():
    for model in (linear_net(dtype=torch.float64), linear_net(dtype=torch.float64).forward):
        ready = PrivateModel(model).ready(CANVASES)
        assert ready.dtype == torch.float64
        assert torch.equal(ready, CANVASES.double())
    ready = PrivateModel(linear_net()).ready(CANVASES)
    assert ready.data_ptr() != CANVASES.data_ptr()


def test_tensors_among_the_keywords_go_where_the_model_is():
    seen = {}

    class Noted(Saying):
        def attribute(self, inputs, target=None, **keywords):
            seen.update(keywords)
            return inputs

    keywords = {"baselines": SEARCH[:2], "mask": torch.arange(36).view(6, 6), "n": 3}
    own = explainer((lambda m: Noted(m, None), keywords), linear_net(dtype=torch.float64))
    own(CANVASES, [0] * 4, area=0.1, seed=0)
    assert seen["baselines"].dtype == torch.float64
    assert torch.equal(seen["baselines"], SEARCH[:2].double())
    assert seen["mask"].dtype == torch.int64
    assert seen["n"] == 3
    assert keywords["baselines"].dtype == torch.float32


# ---- how it is called


def test_each_image_is_explained_alone():
    sizes = []

    def says(images, targets):
        sizes.append((len(images), targets))
        return images * torch.tensor(targets).view(-1, 1, 1, 1)

    targets = [i % 3 for i in range(40)]
    maps = explainer(saying(says))(SEARCH[:40], targets, area=0.1, seed=0)
    assert [size for size, _ in sizes] == [1] * 40
    assert [target for _, own in sizes for target in own] == targets
    expected = SEARCH[:40] * torch.tensor(targets).view(-1, 1, 1, 1)
    assert torch.equal(maps.raw, expected)


class Area(Searching):
    def attribute(self, inputs, target=None, additional_forward_args=None, *, area):
        self.forward_func(inputs)
        return inputs


class Seed(Searching):
    def attribute(self, inputs, target=None, additional_forward_args=None, *, seed):
        self.forward_func(inputs)
        return inputs


@pytest.mark.parametrize("how", [Area, Seed])
def test_a_method_with_an_area_or_a_seed_gets_all_at_once(how):
    sizes = []

    def model(images):
        sizes.append(len(images))
        return plain_function(images)

    explainer(how, model)(SEARCH[:40], [0] * 40, area=0.1, seed=0)
    assert sizes == [40]


def test_area_and_seed_go_to_those_that_take_them():
    assert explainer(Searching).settings(0.2, 9) == {"area": 0.2, "seed": 9}
    assert explainer(RandomPixels).settings(0.2, 9) == {"seed": 9}
    assert explainer((Saliency, {"abs": False})).settings(0.2, 9) == {"abs": False}
    assert explainer((RandomPixels, {"seed": 1})).settings(0.2, 9) == {"seed": 1}
    assert [explainer(how).searches for how in (Searching, RandomPixels, Saliency)] == [
        True,
        False,
        False,
    ]


def test_each_call_is_seeded_and_the_callers_random_state_stays():
    def noisy(images, targets):
        return torch.rand_like(images)

    own, before = explainer(saying(noisy)), torch.get_rng_state()
    one, same, other = (own(CANVASES, [0] * 4, area=0.1, seed=s).raw for s in (3, 3, 4))
    assert torch.equal(one, same)
    assert not torch.equal(one, other)
    assert torch.equal(torch.get_rng_state(), before)


# ---- maps by pixel


def test_maps_are_summed_over_the_channels_with_their_signs():
    raw = torch.randn(2, 3, 6, 6)
    maps = pixel_maps(raw, (2, *SHAPE))
    assert maps.dtype == torch.float64
    for n in range(2):
        for row in range(6):
            for column in range(6):
                expected = sum(float(raw[n, c, row, column]) for c in range(3))
                assert maps[n, row, column] == pytest.approx(expected, abs=1e-12)
    assert (maps < 0).any()


def test_maps_of_a_layer_are_enlarged_as_captum_does_it():
    raw = torch.randn(2, 4, 3, 2)
    expected = LayerAttribution.interpolate(raw.double().sum(1, keepdim=True), (6, 6), "bilinear")
    assert torch.equal(pixel_maps(raw, (2, *SHAPE)), expected[:, 0])


@pytest.mark.parametrize("shape", [(2, 3), (3, 3, 6, 6), (2, 3, 6), (2, 1, 3, 6, 6)], ids=str)
def test_what_is_no_map_is_refused(shape):
    with pytest.raises(ValueError, match=r"attributions of 2 images must be \(2, C, h, w\), got"):
        pixel_maps(torch.zeros(shape), (2, *SHAPE))


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_map_that_is_not_finite_is_refused(value):
    raw = torch.zeros(1, *SHAPE)
    raw[0, 0, 1, 1] = value
    with pytest.raises(ValueError, match="has NaN or infinite values, which rank nothing"):
        pixel_maps(raw, (1, *SHAPE))
