"""The faster private copies: when they are made, that they say the same, and whose model stays."""

import copy
import time
import types
import warnings

import pytest
import torch
from torch import nn

from captum_classpattern import ClassPattern, acceleration, search_masks
from captum_classpattern.acceleration import accelerated

CANVASES = torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(1))
BASELINES = torch.rand(12, 3, 8, 8, generator=torch.Generator().manual_seed(2))
LABELS = [0, 1, 2] * 4
ALL = ("bfloat16", "channels_last", "folded")


def norm(channels=4, **kwargs):
    """A batch norm in use, so that leaving it out would show."""
    generator = torch.Generator().manual_seed(7)
    layer = nn.BatchNorm2d(channels, **kwargs)
    for values in (layer.weight, layer.bias, layer.running_mean):
        if values is not None:
            nn.init.normal_(values, generator=generator)
    if layer.running_var is not None:
        nn.init.uniform_(layer.running_var, 0.5, 2, generator=generator)
    return layer


class Net(nn.Module):
    """Convolution, ``middle``, and a head; ``way`` is how they are called."""

    def __init__(self, *middle, way=None, channels=4):
        super().__init__()
        torch.manual_seed(0)
        self.conv = nn.Conv2d(3, channels, 3, padding=1)
        self.again = nn.Conv2d(channels, channels, 3, padding=1)
        self.middle = nn.Sequential(*middle)
        self.head = nn.Linear(channels, 3)
        self.way = way
        self.eval()
        nn.init.normal_(self.head.weight, std=2)

    def forward(self, images):
        made = self.conv(images)
        features = self.middle(made) if self.way is None else self.way(self, made)
        return self.logits_of(features)

    def logits_of(self, features):
        return self.head(features.tanh().mean((2, 3)))

    def doubled(self, images):
        return 2 * self(images)


@pytest.fixture
def take(monkeypatch):
    """Has the ways taken that are named, if they can be built, whatever the time they need."""

    def choose(*ways):
        def ratio(old, new, images, arguments):
            return 2.0 if new.ways[-1] in ways else 0.5

        monkeypatch.setattr(acceleration, "SMALL", 0.0)
        monkeypatch.setattr(acceleration, "_ratio", ratio)

    return choose


@pytest.fixture
def take_what_works(monkeypatch):
    """Every way is measured, and any speed is a gain."""
    monkeypatch.setattr(acceleration, "SMALL", 0.0)
    monkeypatch.setattr(acceleration, "GAIN", 0.0)


def faster(net, canvases=CANVASES, additional=(), most=None):
    return accelerated(net, canvases, additional, most)


def search(net, **kwargs):
    kwargs = {"baseline_labels": LABELS, "n_steps": 3, "area": 0.2, **kwargs}
    return search_masks(net, CANVASES, [0, 1], BASELINES, **kwargs)


def state_of(net):
    """All of a model that a copy might share with it."""
    tensors = {**dict(net.named_parameters()), **dict(net.named_buffers())}
    return {
        "tensors": {
            name: (
                id(tensor),
                tensor._version,
                tensor.dtype,
                tensor.stride(),
                tensor.requires_grad,
                tensor.detach().double().numpy().tobytes(),
                tensor.grad is None,
            )
            for name, tensor in tensors.items()
        },
        "parts": {name: (id(part), part.training) for name, part in net.named_modules()},
        "hooks": {name: list(part._forward_hooks) for name, part in net.named_modules()},
    }


# ---- what is taken


def test_all_ways_are_taken_where_each_gains(take_what_works):
    fast = faster(Net(norm(), nn.ReLU()))
    assert fast.ways == ALL


@pytest.mark.parametrize(
    "ways", [(), ("bfloat16",), ("channels_last", "folded"), ("folded",), ("bfloat16", "folded")]
)
def test_only_ways_that_gain_are_taken(take, ways):
    take(*ways)
    net = Net(norm())
    fast = faster(net)
    assert getattr(fast, "ways", ()) == ways
    assert (fast is net) == (ways == ())


def test_a_gain_of_less_than_a_tenth_is_none(monkeypatch, take):
    take()
    ratios = iter([1.09, 1.1, 1.0])
    monkeypatch.setattr(acceleration, "_ratio", lambda *_: next(ratios))
    assert faster(Net(norm())).ways == ("channels_last",)


def test_each_way_is_compared_with_the_best_before_it(monkeypatch, take):
    take()
    compared = []

    def ratio(old, new, images, arguments):
        compared.append((getattr(old, "ways", ()), new.ways))
        return 0.5 if new.ways[-1] == "bfloat16" else 2.0

    monkeypatch.setattr(acceleration, "_ratio", ratio)
    faster(Net(norm()))
    assert compared == [
        ((), ("bfloat16",)),
        ((), ("channels_last",)),
        (("channels_last",), ("channels_last", "folded")),
    ]


@pytest.mark.parametrize("slow_in_half", [True, False])
def test_the_time_decides(take_what_works, monkeypatch, slow_in_half):
    """A model that waits in one of the precisions, by far the most of its time."""

    class Slow(Net):
        def logits_of(self, features):
            if (features.dtype == torch.bfloat16) == slow_in_half:
                time.sleep(0.03)
            return super().logits_of(features)

    monkeypatch.setattr(acceleration, "GAIN", 2.0)
    ways = getattr(faster(Slow(norm())), "ways", ())
    assert ("bfloat16" in ways) == (not slow_in_half)


def test_quick_models_are_not_measured(monkeypatch, take):
    take(*ALL)
    monkeypatch.setattr(acceleration, "SMALL", float("inf"))
    net = Net(norm())
    assert faster(net) is net


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16])
def test_models_of_other_precision_are_left_alone(take, dtype):
    take(*ALL)
    net = Net(norm()).to(dtype)
    assert faster(net) is net
    assert faster(net.doubled, CANVASES.to(dtype)).__func__ is Net.doubled


def test_a_function_on_float64_images_is_left_alone(take):
    take(*ALL)
    net = Net(norm()).double()

    def function(images):
        return net(images)

    assert faster(function, CANVASES.double()) is function


def test_a_function_gets_autocast_only(take_what_works):
    net = Net(norm())
    before = state_of(net)
    fast = faster(lambda images: net(images))
    assert fast.ways == ("bfloat16",)
    found = fast(CANVASES)
    assert not torch.equal(found.float(), net(CANVASES))
    torch.testing.assert_close(found.float(), net(CANVASES), atol=0.1, rtol=0)
    assert state_of(net) == before


def test_a_model_that_cannot_be_copied_gets_autocast_only(take_what_works):
    class Stubborn(Net):
        def __deepcopy__(self, memo):
            raise TypeError("no copies")

    net = Stubborn(norm())
    assert faster(net).ways == ("bfloat16",)
    assert search(net).losses.isfinite().all()


def test_a_model_that_cannot_be_copied_and_gains_nothing_is_searched_as_it_is(take):
    take("channels_last", "folded")

    class Stubborn(Net):
        def __deepcopy__(self, memo):
            raise TypeError("no copies")

    net = Stubborn(norm())
    assert faster(net) is net
    assert torch.equal(search(net).masks, search(Net(norm()), precision="full").masks)


class Fragile(Net):
    """Wrong where it runs in half precision."""

    def logits_of(self, features):
        logits = super().logits_of(features)
        return logits * (torch.nan if features.dtype == torch.bfloat16 else 1)


def test_not_a_number_in_bfloat16_is_no_way(take_what_works):
    net = Fragile(norm())
    assert faster(net).ways == ("channels_last", "folded")
    assert search(net).losses.isfinite().all()


def test_an_error_in_bfloat16_is_no_way(take_what_works):
    class Strict(Net):
        def logits_of(self, features):
            assert features.dtype == torch.float32
            return super().logits_of(features)

    assert faster(Strict(norm())).ways == ("channels_last", "folded")


def test_a_model_that_fails_while_it_is_measured_is_left_to_the_search(take_what_works):
    class Broken(Net):
        def logits_of(self, features):
            raise RuntimeError("broken")

    net = Broken(norm())
    assert faster(net) is net


def test_no_warnings_of_ways_that_are_only_tried(take_what_works):
    class Noisy(Fragile):
        def logits_of(self, features):
            if features.dtype == torch.bfloat16:
                warnings.warn("half precision", stacklevel=1)
            return super().logits_of(features)

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        assert faster(Noisy(norm())).ways == ("channels_last", "folded")
    assert caught == []


# ---- folding


def norms_in(net):
    return sum(isinstance(part, nn.BatchNorm2d) for part in net.modules())


@pytest.mark.parametrize(
    "layer", [norm(), norm(affine=False), norm(eps=0.1)], ids=["plain", "no affine", "large eps"]
)
@pytest.mark.parametrize("bias", [True, False])
def test_folded_batch_norms_leave_the_logits_alone(take, layer, bias):
    take("folded")
    net = Net(copy.deepcopy(layer), nn.ReLU(inplace=True))
    if not bias:
        net.conv.bias = None
    fast = faster(net)
    assert fast.ways == ("folded",)
    assert (norms_in(fast), norms_in(net)) == (0, 1)
    torch.testing.assert_close(fast(BASELINES), net(BASELINES), atol=1e-5, rtol=1e-5)


def test_grouped_and_nested_convolutions_are_folded(take):
    take("folded")
    torch.manual_seed(3)
    block = nn.Sequential(nn.Conv2d(4, 4, 3, groups=2, bias=False), norm())
    net = Net(norm(), nn.ReLU(), block, nn.ReLU())
    fast = faster(net)
    assert (norms_in(fast), norms_in(net)) == (0, 2)
    torch.testing.assert_close(fast(BASELINES), net(BASELINES), atol=1e-5, rtol=1e-5)


def also_elsewhere(net, made):
    return net.middle(made) + made


def norm_also_on_other_things(net, made):
    return net.middle(net.middle(made).relu())


@pytest.mark.parametrize(
    ("middle", "way"),
    [
        ((norm(),), also_elsewhere),
        ((nn.ReLU(inplace=True), norm()), None),
        ((norm(),), norm_also_on_other_things),
    ],
    ids=["output used elsewhere", "in-place ReLU between", "norm used twice"],
)
def test_batch_norms_that_cannot_be_folded(take, middle, way):
    take("folded")
    net = Net(*copy.deepcopy(middle), way=way)
    assert faster(net) is net


@pytest.mark.parametrize(
    "middle",
    [(norm(track_running_stats=False),), (nn.ReLU(), norm())],
    ids=["no running statistics", "ReLU between"],
)
def test_batch_norms_that_are_left_in_place(take, middle):
    take("folded")
    net = Net(*copy.deepcopy(middle))
    fast = faster(net)
    assert norms_in(fast) == 1
    assert torch.equal(fast(BASELINES), net(BASELINES))


def test_a_convolution_that_is_called_twice_keeps_its_norm(take):
    """The other one in the same model is folded."""

    def called_twice(net, made):
        first, second = net.middle
        return second(net.again(net.again(first(made))))

    take("folded")
    net = Net(norm(), norm(), way=called_twice)
    fast = faster(net)
    assert norms_in(fast) == 1
    torch.testing.assert_close(fast(BASELINES), net(BASELINES), atol=1e-5, rtol=1e-5)


def test_one_norm_after_two_convolutions_is_folded_into_both(take):
    take("folded")
    net = Net(norm(), way=lambda net, made: net.middle(net.again(net.middle(made).relu())))
    fast = faster(net)
    assert fast.ways == ("folded",)
    torch.testing.assert_close(fast(BASELINES), net(BASELINES), atol=1e-5, rtol=1e-5)


# ---- whose model it is


@pytest.mark.parametrize("method", ["forward", "doubled"])
def test_a_method_becomes_that_of_the_copy(take_what_works, method):
    net = Net(norm())
    fast = faster(getattr(net, method))
    assert fast.ways == ALL
    assert isinstance(fast.call, types.MethodType)
    assert fast.call.__self__ is not net
    expected = getattr(net, method)(BASELINES)
    torch.testing.assert_close(fast(BASELINES).float(), expected, atol=0.2, rtol=0)


def test_the_callers_model_stays_as_it_is(take_what_works):
    net, calls = Net(norm(), nn.ReLU(inplace=True)), []
    net.conv.register_forward_hook(lambda *_: calls.append(1))
    net.conv.bias.requires_grad_(False)
    net.head.weight.grad = torch.ones_like(net.head.weight)
    before, random = state_of(net), torch.get_rng_state()
    assert faster(net).ways == ALL
    assert state_of(net) == before
    assert torch.equal(torch.get_rng_state(), random)
    result = search(net)
    assert state_of(net) == before
    assert torch.equal(torch.get_rng_state(), random)
    assert calls
    assert result.masks.dtype == result.losses.dtype == torch.float32
    assert not torch.equal(result.losses, search(net, precision="full").losses)  # it was used
    torch.testing.assert_close(
        result.losses, search(net, precision="full").losses, atol=0.05, rtol=0
    )


def test_the_copy_wants_no_gradients_of_its_parameters(take_what_works):
    fast = faster(Net(norm()))
    assert not any(parameter.requires_grad for parameter in fast.parameters())
    assert fast.module.conv.weight.is_contiguous(memory_format=torch.channels_last)


class Counter(Net):
    """Counts its calls in a number of its own, which a copy does not share."""

    def __init__(self, *middle):
        super().__init__(*middle)
        self.calls = 0

    def forward(self, images):
        self.calls += 1
        return super().forward(images)


# one call checks the model, then come 15 sign steps and 3 rounds of two calls; two calls measure
# its speed
@pytest.mark.parametrize(
    ("settings", "calls"),
    [({"precision": "full"}, 1 + 15 + 6), ({"solver": "paper"}, 1 + 3), ({}, 1 + 2)],
    ids=["full", "paper", "swap"],
)
def test_who_calls_the_model_itself(take, settings, calls):
    take(*ALL)
    net = Counter(norm())
    search(net, **settings)
    assert net.calls == calls


def test_judging_never_uses_the_copy(take):
    take(*ALL)
    calls = []

    class Watched(Net):
        def forward(self, images):
            calls.append((self is net, torch.is_grad_enabled()))
            return super().forward(images)

    net = Watched(norm())
    pattern, _ = ClassPattern(net, BASELINES, LABELS).search(CANVASES, 0, n_steps=2, area=0.2)
    searched = calls[calls.index((False, True)) :]
    assert pattern.info["accelerated_by"] == list(ALL)
    assert (
        searched == [(False, True)] * 10 + [(False, True), (False, False)] * 2 + [(True, False)] * 2
    )  # one for each pattern


def test_the_choice_is_made_once_for_a_model_and_a_shape(monkeypatch, take):
    take(*ALL)
    made, choose = [], acceleration._choose

    def counted(forward_func, images, arguments):
        made.append(tuple(images.shape))
        return choose(forward_func, images, arguments)

    monkeypatch.setattr(acceleration, "_choose", counted)
    net = Net(norm())
    first, again = faster(net), faster(net)
    assert first.ways == again.ways == ALL
    assert made == [(16, 3, 8, 8)]
    faster(net, CANVASES[:1])  # the number of canvases is no matter
    assert len(made) == 1
    faster(net, CANVASES[..., :6])
    assert made[1:] == [(16, 3, 8, 6)]
    faster(Net(norm()))
    assert len(made) == 3


def test_the_choice_does_not_keep_a_model_alive(take):
    take(*ALL)
    before = len(acceleration._chosen)
    net = Net(norm())
    faster(net)
    assert len(acceleration._chosen) == before + 1
    del net
    assert len(acceleration._chosen) == before


def test_a_copy_follows_the_models_weights(take):
    """The choice is kept, the copy is not."""
    take("channels_last")
    net = Net(norm())
    faster(net)
    with torch.no_grad():
        net.head.bias.add_(3.0)
    torch.testing.assert_close(faster(net)(BASELINES), net(BASELINES), atol=1e-5, rtol=1e-5)


def test_no_more_images_are_measured_than_go_through_the_model_at_once(take_what_works):
    sizes, net = [], Net(norm())
    net.conv.register_forward_hook(lambda part, inputs, output: sizes.append(len(output)))
    search(net, internal_batch_size=3)
    assert max(sizes) == 3


def test_additional_arguments_reach_the_copy(take_what_works):
    class Shifted(Net):
        def forward(self, images, shift, scale):
            assert len(shift) == len(images)
            return scale * super().forward(images) + shift

    shifts = torch.tensor([[50.0, 0, 0], [0, 50.0, 0]])
    net = Shifted(norm())
    assert faster(net, additional=(shifts, 0.5)).ways == ALL
    losses = search(net, additional_forward_args=(shifts, 0.5)).losses
    assert losses.max() < 1e-6


def test_a_model_that_draws_random_numbers_finds_the_same_again(take_what_works):
    class Dice(Net):
        def logits_of(self, features):
            return super().logits_of(features) + torch.randn(3)

    net = Dice(norm())  # measured at the first search, not at the others
    results = [search(net, seed=seed) for seed in (1, 1, 2)]
    assert torch.equal(results[0].masks, results[1].masks)
    assert torch.equal(results[0].losses, results[1].losses)
    assert not torch.equal(results[0].losses, results[2].losses)
