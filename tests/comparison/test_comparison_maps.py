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
    FunctionMethod,
    Searching,
    conv_net,
    from_function,
    linear_net,
    plain_mask,
)
from hypothesis import given, settings
from hypothesis import strategies as st

from captum_classpattern import ClassPattern
from captum_classpattern.comparison import RandomPixels
from captum_classpattern.comparison.maps import (
    BoundMethod,
    MapSet,
    PixelMap,
    PrivateModel,
    sum_channels,
)
from captum_classpattern.comparison.task import Task
from captum_classpattern.optimization import acceleration

QUARTERS = torch.arange(4).view(1, 1, 2, 2).repeat_interleave(3, 2).repeat_interleave(3, 3)


def bound(method, model=None, like=CANVASES):
    return BoundMethod(method, linear_net() if model is None else model, like)


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
    maps = bound(how, model)(CANVASES, [0, 1, 2, 1], area=0.1, seed=0)
    assert maps.passes == an_image * 4
    assert maps.seconds > 0


def test_passes_of_one_call_alone():
    method = bound(Saliency)
    assert [method(CANVASES[:n], [0] * n, area=0.1, seed=0).passes for n in (1, 3, 2)] == [1, 3, 2]
    assert method.model.passes == 6


def test_forward_without_gradients_is_half_a_pass():
    model = PrivateModel(linear_net())
    with torch.no_grad():
        model.forward_func(CANVASES)
    assert model.passes == 2
    model.forward_func(CANVASES)  # it could go backward, and does not
    assert model.passes == 4
    model.forward_func(CANVASES.clone().requires_grad_()).sum().backward()
    assert model.passes == 8


@pytest.mark.parametrize("speedups", [(), ("bfloat16",), ("bfloat16", "channels_last")])
def test_a_search_counts_the_passes_of_its_steps_but_no_checks(speedups, monkeypatch):
    """Checks of the model and of its faster copy do not count; version 0.1 counted up to 560."""
    monkeypatch.setattr(acceleration, "choose_speedups", lambda *_: speedups)
    settings = {"n_steps": 4, "area": 0.1, "seed": 0}
    targets = [0, 1, 2, 1]
    searched = bound((lambda model: ClassPattern(model, SEARCH, LABELS), {"n_steps": 4}))
    passes = searched(CANVASES, targets, area=0.1, seed=0).passes
    assert searched.attribution.precision == ("bfloat16" if speedups else "float32")
    patterns = ClassPattern(linear_net(), SEARCH, LABELS).search(CANVASES, targets, **settings)
    assert passes == sum(pattern.info["passes"] for pattern in patterns)


def test_of_a_search_only_the_two_starts_of_a_blank_canvas_are_judged():
    searched = bound((lambda model: ClassPattern(model, SEARCH, LABELS), {"n_steps": 4}))
    white = torch.ones(1, *SHAPE)
    passes = searched(white, [0], area=0.1, seed=0).passes
    # 25 steps of 4 images, then rounds of 16 that take four passes; one of them, which ends an
    # epoch of the 32 images, has 12. After two of four rounds one start is dropped, by 8 images
    # that only go forward.
    assert passes == 2 * (25 * 4 + (16 + 12) * 4) + 2 * 8 / 2 + (16 + 16) * 4


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


def test_images_are_copied_in_the_models_precision():
    for model in (linear_net(dtype=torch.float64), linear_net(dtype=torch.float64).forward):
        ready = PrivateModel(model).prepare(CANVASES)
        assert ready.dtype == torch.float64
        assert torch.equal(ready, CANVASES.double())
    ready = PrivateModel(linear_net()).prepare(CANVASES)
    assert ready.data_ptr() != CANVASES.data_ptr()


def test_tensors_among_the_keywords_go_where_the_model_is():
    seen = {}

    class Noted(FunctionMethod):
        def attribute(self, inputs, target=None, **keywords):
            seen.update(keywords)
            return inputs

    keywords = {"baselines": SEARCH[:2], "mask": torch.arange(36).view(6, 6), "n": 3}
    method = bound((lambda m: Noted(m, None), keywords), linear_net(dtype=torch.float64))
    method(CANVASES, [0] * 4, area=0.1, seed=0)
    assert seen["baselines"].dtype == torch.float64
    assert torch.equal(seen["baselines"], SEARCH[:2].double())
    assert seen["mask"].dtype == torch.int64
    assert seen["n"] == 3
    assert keywords["baselines"].dtype == torch.float32


# ---- how it is called


def test_each_image_is_explained_alone():
    sizes = []

    def function(images, targets):
        sizes.append((len(images), targets))
        return images * torch.tensor(targets).view(-1, 1, 1, 1)

    targets = [i % 3 for i in range(40)]
    maps = bound(from_function(function))(SEARCH[:40], targets, area=0.1, seed=0)
    assert [size for size, _ in sizes] == [1] * 40
    assert [target for _, given in sizes for target in given] == targets
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

    bound(how, model)(SEARCH[:40], [0] * 40, area=0.1, seed=0)
    assert sizes == [40]


def test_area_and_seed_go_to_the_methods_that_take_them():
    assert bound(Searching).settings(0.2, 9) == {"area": 0.2, "seed": 9}
    assert bound(RandomPixels).settings(0.2, 9) == {"seed": 9}
    assert bound((Saliency, {"abs": False})).settings(0.2, 9) == {"abs": False}
    assert bound((RandomPixels, {"seed": 1})).settings(0.2, 9) == {"seed": 1}
    assert [bound(how).searches for how in (Searching, RandomPixels, Saliency)] == [
        True,
        False,
        False,
    ]


def test_each_call_is_seeded_and_the_callers_random_state_stays():
    def noisy(images, targets):
        return torch.rand_like(images)

    method, before = bound(from_function(noisy)), torch.get_rng_state()
    one, same, other = (method(CANVASES, [0] * 4, area=0.1, seed=s).raw for s in (3, 3, 4))
    assert torch.equal(one, same)
    assert not torch.equal(one, other)
    assert torch.equal(torch.get_rng_state(), before)


# ---- maps by pixel


def test_maps_are_summed_over_the_channels_with_their_signs():
    raw = torch.randn(2, 3, 6, 6)
    maps = sum_channels(raw, (2, *SHAPE))
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
    assert torch.equal(sum_channels(raw, (2, *SHAPE)), expected[:, 0])


@pytest.mark.parametrize("shape", [(2, 3), (3, 3, 6, 6), (2, 3, 6), (2, 1, 3, 6, 6)], ids=str)
def test_attributions_of_another_shape_are_refused(shape):
    with pytest.raises(ValueError, match=r"attributions of 2 images must be \(2, C, h, w\), got"):
        sum_channels(torch.zeros(shape), (2, *SHAPE))


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_map_that_is_not_finite_is_refused(value):
    raw = torch.zeros(1, *SHAPE)
    raw[0, 0, 1, 1] = value
    with pytest.raises(ValueError, match="has NaN or infinite values, which cannot be ranked"):
        sum_channels(raw, (1, *SHAPE))


# ---- ranking


@settings(max_examples=60, deadline=None, database=None)
@given(
    st.lists(st.integers(-3, 3), min_size=36, max_size=36),
    st.sampled_from([1e-30, 1.0, 1e30]),
    st.integers(1, 35),
)
def test_the_strongest_pixels_are_those_of_a_stable_sort(values, scale, k):
    map = torch.tensor(values, dtype=torch.float64).view(6, 6) * scale
    for ranking, ranked in (("signed", map), ("absolute", map.abs())):
        mask = PixelMap(map).mask(ranking, k / 36)
        assert torch.equal(mask[0], plain_mask(ranked, k / 36))
        assert int(mask.sum()) == k


def test_the_whole_map_counts_even_where_values_are_nearly_equal():
    map = 1 + torch.arange(36, dtype=torch.float64).view(6, 6) * 1e-15
    assert torch.equal(PixelMap(map).mask("signed", 0.5)[0], plain_mask(map, 0.5))


def test_a_map_is_sorted_once_for_each_ranking(monkeypatch):
    calls, argsort = [], torch.argsort
    monkeypatch.setattr(torch, "argsort", lambda *a, **k: calls.append(1) or argsort(*a, **k))
    pixel_map = PixelMap(torch.randn(6, 6))
    for area in (0.1, 0.2, 0.5):
        for ranking in ("signed", "absolute"):
            pixel_map.mask(ranking, area)
    assert len(calls) == 2


def test_a_method_without_randomness_has_the_same_map_objects_for_all_seeds():
    """So that its maps are ranked, and compared with a trigger, once for all seeds."""
    task = Task("m", CANVASES, [0] * 4, ["canvas"] * 4, 0.1, [0.1], [0, 1, 2])
    maps = MapSet(Saliency, linear_net(), task)
    assert all(run is maps.seeds[0] for run in maps.seeds)
    random = MapSet(RandomPixels, linear_net(), task)
    assert len({id(map) for run in random.seeds for map in run}) == 12
