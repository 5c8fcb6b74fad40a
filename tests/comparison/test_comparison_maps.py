"""Methods are called with care, their passes are counted, and their maps ranked by pixel."""

from functools import partial

import pytest
import torch
from captum.attr import FeatureAblation, IntegratedGradients, LayerAttribution, Occlusion, Saliency
from comparisons import (
    CANVASES,
    LABELS,
    SEARCH,
    SHAPE,
    FunctionMethod,
    bound,
    conv_net,
    from_function,
    linear_net,
    plain_mask,
)
from hypothesis import given, settings
from hypothesis import strategies as st
from refusals import refusals

from captum_classpattern import ClassPattern
from captum_classpattern.comparison import RandomPixels
from captum_classpattern.comparison.maps import Task, explain, sum_channels, top_pixels
from captum_classpattern.optimization import acceleration

QUARTERS = torch.arange(4).view(1, 1, 2, 2).repeat_interleave(3, 2).repeat_interleave(3, 3)


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
def test_passes_of_one_call(model, how, an_image):
    method = bound(how, model)
    for n in (4, 1):
        made = method(CANVASES[:n], [0, 1, 2, 1][:n], area=0.1, seed=0)
        assert made.passes == an_image * n
        assert made.seconds > 0


@pytest.mark.parametrize("speedups", [(), ("bfloat16", "channels_last")])
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


# ---- the private model, and how a method is called


class Noted(FunctionMethod):
    def attribute(self, inputs, target=None, **keywords):
        self.function.update(keywords, inputs=inputs)
        return inputs


def test_images_and_keywords_go_where_the_model_is():
    net, seen = linear_net(dtype=torch.float64), {}
    keywords = {"baselines": SEARCH[:2], "mask": torch.arange(36).view(6, 6), "n": 3}
    for model in (net, net.forward):
        method = bound((lambda m: Noted(m, seen), keywords), model)
        method(CANVASES[:1], [0], area=0.1, seed=0)
        for name, values in (("inputs", CANVASES[:1]), ("baselines", SEARCH[:2])):
            assert seen[name].dtype == torch.float64
            assert torch.equal(seen[name], values.double())
        assert (seen["mask"].dtype, seen["n"]) == (torch.int64, 3)
    assert keywords["baselines"].dtype == torch.float32


def test_each_image_is_explained_alone():
    given = []

    def function(images, targets):
        given.append((len(images), targets))
        return images * targets[0]

    targets = [i % 3 for i in range(5)]
    made = bound(from_function(function))(SEARCH[:5], targets, area=0.1, seed=0)
    assert given == [(1, [target]) for target in targets]
    expected = SEARCH[:5] * torch.tensor(targets).view(-1, 1, 1, 1)
    assert torch.equal(made.maps, expected.double().sum(1))


@pytest.mark.parametrize(
    ("keywords", "passed"),
    [({}, {"area": 0.2, "seed": 9}), ({"seed": 1}, {"area": 0.2, "seed": 1})],
)
def test_area_and_seed_go_to_the_methods_that_take_them(keywords, passed):
    class Taking(Noted):
        def attribute(self, inputs, target=None, *, area, seed):
            return super().attribute(inputs, target, area=area, seed=seed)

    for how, expected in ((Taking, passed), (Noted, keywords)):
        method = bound((partial(how, function={}), keywords))
        method(CANVASES, [0] * 4, area=0.2, seed=9)
        seen = {**method.attribution.function, "inputs": None}
        assert (seen, method.searches) == ({**expected, "inputs": None}, how is Taking)


def test_each_call_is_seeded_and_the_callers_random_state_stays():
    method = bound(from_function(lambda images, targets: torch.rand_like(images)))
    before = torch.get_rng_state()
    one, same, other = (method(CANVASES, [0] * 4, area=0.1, seed=s).maps for s in (3, 3, 4))
    assert torch.equal(one, same)
    assert not torch.equal(one, other)
    assert torch.equal(torch.get_rng_state(), before)


def test_methods_may_write_into_the_images_that_they_get():
    before = CANVASES.clone()
    bound(from_function(lambda images, targets: images.zero_()))(before, [0] * 4, area=0.1, seed=0)
    assert torch.equal(CANVASES, before)


def test_a_method_without_randomness_runs_once_for_all_seeds():
    task = Task("m", CANVASES, [0] * 4, ["canvas"] * 4, 0.1, [0.1], [0, 1, 2])
    calls, shares = [], []
    plain = from_function(lambda images, targets: calls.append(1) or images)
    for result in explain("plain", bound(plain), task, shares.append):
        assert result.scores["stability_seeds"] == 1
    assert len(calls) == 4 + 1  # once for each canvas, and once to see that nothing is random
    unseeded = from_function(lambda images, targets: torch.rand_like(images))
    assert sum(shares) <= 1
    for method in (RandomPixels, unseeded):
        for result in explain("random", bound(method), task, shares.append):
            assert result.scores["stability_seeds"] < 1


# ---- maps by pixel


def test_maps_are_summed_over_the_channels_with_their_signs():
    raw = torch.randn(2, 3, 6, 6)
    maps = sum_channels(raw, (2, *SHAPE))
    assert maps.dtype == torch.float64
    for (n, row, column), value in zip(maps.new_ones(2, 6, 6).nonzero().tolist(), maps.flatten()):
        expected = sum(float(raw[n, c, row, column]) for c in range(3))
        assert float(value) == pytest.approx(expected, abs=1e-12)
    assert (maps < 0).any()
    alike = raw[:, :1].expand(2, 3, 6, 6)  # in all channels, such as a mask: not three times
    assert torch.equal(sum_channels(alike, (2, *SHAPE)), raw[:, 0].double())


def test_maps_of_a_layer_are_enlarged_as_captum_does_it():
    raw = torch.randn(2, 4, 3, 2)
    expected = LayerAttribution.interpolate(raw.double().sum(1, keepdim=True), (6, 6), "bilinear")
    assert torch.equal(sum_channels(raw, (2, *SHAPE)), expected[:, 0])


REFUSALS = {
    "no images": lambda: sum_channels(torch.zeros(2, 3), (2, *SHAPE)),
    "another number of images": lambda: sum_channels(torch.zeros(3, 3, 6, 6), (2, *SHAPE)),
    "no channels": lambda: sum_channels(torch.zeros(2, 3, 6), (2, *SHAPE)),
    "five dimensions": lambda: sum_channels(torch.zeros(2, 1, 3, 6, 6), (2, *SHAPE)),
    "not a number": lambda: sum_channels(torch.full((2, 3, 6, 6), torch.nan), (2, *SHAPE)),
    "infinite": lambda: sum_channels(torch.full((2, 3, 6, 6), torch.inf), (2, *SHAPE)),
    "no attribution": lambda: bound(lambda model: 3),
}


def test_refusals(snapshot):
    assert refusals(REFUSALS) == snapshot


# ---- ranking


@settings(max_examples=60, deadline=None, database=None)
@given(
    st.lists(st.integers(-3, 3), min_size=36, max_size=36),
    st.sampled_from([1e-30, 1.0, 1e30]),
    st.integers(1, 35),
)
def test_the_strongest_pixels_are_those_of_a_stable_sort(values, scale, k):
    map = torch.tensor(values, dtype=torch.float64).view(6, 6) * scale
    for ranked in (map, 1 + map.sign() * 1e-15):  # also if they are nearly equal
        mask = top_pixels(ranked, k / 36)
        assert torch.equal(mask[0], plain_mask(ranked, k / 36))
        assert int(mask.sum()) == k
