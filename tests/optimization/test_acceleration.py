"""The faster private copies: when they are made, that they say the same, and whose model stays."""

import copy
import subprocess
import sys
import time
import types
import warnings

import pytest
import torch
from torch import nn

from captum_classpattern import ClassPattern, search_masks
from captum_classpattern.optimization import acceleration
from captum_classpattern.optimization.acceleration import accelerated

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


RULE = acceleration.choose_speedups


@pytest.fixture
def take(monkeypatch):
    """Has these ways taken, whatever the device."""
    return lambda *ways: monkeypatch.setattr(acceleration, "choose_speedups", lambda *_: ways)


@pytest.fixture
def with_bfloat16(monkeypatch):
    """The rule itself, on a device that has bfloat16, or has not."""

    def choose(has):
        monkeypatch.setattr(acceleration, "choose_speedups", RULE)
        monkeypatch.setattr(acceleration, "has_bfloat16", lambda device: has)

    choose(True)
    return choose


def faster(net, canvases=CANVASES, additional=(), precision="auto"):
    return accelerated(net, canvases, additional, precision)


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


# ---- the rule


CPU = torch.device("cpu")


@pytest.mark.parametrize(
    ("net", "has", "ways"),
    [
        (Net(norm()), True, ALL),
        (Net(norm()), False, ("folded",)),
        (Net(), True, ("bfloat16", "channels_last")),
        (Net(), False, ()),
        (nn.Sequential(nn.Flatten(), nn.Linear(192, 3)), True, ()),
        (lambda images: images.mean((2, 3)), True, ()),
    ],
    ids=["norms", "norms, no bfloat16", "no norms", "no norms, no bfloat16", "linear", "function"],
)
def test_the_speedups_follow_from_the_layers_and_the_device(with_bfloat16, net, has, ways):
    with_bfloat16(has)
    assert RULE(net, CPU, "auto") == ways


def test_bfloat16_can_be_demanded_anywhere(with_bfloat16):
    with_bfloat16(False)
    assert RULE(Net(norm()), CPU, "bfloat16") == ALL
    assert RULE(lambda images: images.mean((2, 3)), CPU, "bfloat16") == ("bfloat16",)
    info = explained(precision="bfloat16").info
    assert (info["precision"], info["accelerated_by"]) == ("bfloat16", list(ALL))


@pytest.mark.parametrize(("has", "precision"), [(True, "bfloat16"), (False, "float32")])
def test_what_was_chosen_is_recorded(with_bfloat16, has, precision):
    with_bfloat16(has)
    assert explained().info["precision"] == precision
    assert explained(precision="full").info["precision"] == "float32"
    assert explained(precision="full").info["accelerated_by"] == []


def explained(**kwargs):
    explainer = ClassPattern(Net(norm()), BASELINES, LABELS)
    [pattern] = explainer.search(CANVASES[:1], 0, n_steps=2, area=0.2, **kwargs)
    return pattern


def test_bfloat16_that_fails_is_an_error_only_if_it_was_demanded(with_bfloat16):
    net = Fragile(norm())
    assert faster(net).speedups == ("folded",) or faster(net).speedups == (
        "channels_last",
        "folded",
    )
    with pytest.raises(ValueError, match="`precision='bfloat16'` can't be used, since this model"):
        faster(net, precision="bfloat16")


def test_bfloat16_that_would_be_ignored_is_refused(with_bfloat16):
    with pytest.raises(ValueError, match="is for float32 models, but this one is torch"):
        faster(Net(norm()).double(), CANVASES.double(), precision="bfloat16")
    with pytest.raises(ValueError, match="is not for `solver='paper'`, which uses the model"):
        search(Net(norm()), precision="bfloat16", solver="paper")


def test_a_full_device_does_not_choose_the_precision(with_bfloat16):
    class Full(Net):
        def __deepcopy__(self, memo):
            raise torch.OutOfMemoryError("full")

    with pytest.raises(torch.OutOfMemoryError, match="no room for a private copy of the model"):
        faster(Full(norm()))


@pytest.mark.parametrize(
    ("capability", "hip", "has"), [((8, 0), None, True), ((7, 5), None, False), ((0, 0), "6", True)]
)
def test_cuda_devices_by_their_compute_capability(monkeypatch, capability, hip, has):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    monkeypatch.setattr(torch.version, "hip", hip)
    assert acceleration.has_bfloat16(torch.device("cuda")) == has


@pytest.mark.parametrize(
    ("avx", "amx", "has"), [(True, False, True), (False, True, True), (False, False, False)]
)
def test_cpus_by_their_instructions(monkeypatch, avx, amx, has):
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: avx)
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: amx)
    assert acceleration.has_bfloat16(CPU) == has
    assert not acceleration.has_bfloat16(torch.device("mps"))


def test_nothing_is_timed(with_bfloat16, monkeypatch):
    """The stopwatch that chose in version 0.1 gave other masks beside a busy process."""

    def no_time():
        raise AssertionError("a clock was read")

    monkeypatch.setattr(time, "perf_counter", no_time)
    monkeypatch.setattr(time, "time", no_time)
    assert faster(Net(norm())).speedups == ALL


def test_the_same_masks_in_another_process_on_a_busy_machine():
    """At the same number of threads, bit for bit, by the rule of this machine."""
    busy = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(2)]
    try:
        runs = [subprocess.Popen([sys.executable, "-c", SEARCH], stdout=-1) for _ in range(2)]
        hashes = [run.communicate()[0] for run in runs]
    finally:
        for process in busy:
            process.kill()
            process.wait()
    alone = subprocess.run([sys.executable, "-c", SEARCH], stdout=-1, check=True).stdout
    assert hashes == [alone, alone]
    assert len(alone.split()) == 6


SEARCH = """
import hashlib, torch
from captum_classpattern import ClassPattern
from captum_classpattern.demo import demo_images, demo_models
torch.set_num_threads(1)
found = demo_images().search
explainer = ClassPattern(demo_models()["natural"], found)
targets = [0, 1, 2, 3, 4, 5]
canvases = torch.stack([found.images[found.labels == target][0] for target in targets])
for pattern in explainer.search(canvases, targets, n_steps=4):
    print(hashlib.sha256(pattern.mask.numpy().tobytes()).hexdigest())
"""


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


def test_a_function_gets_autocast_only(with_bfloat16):
    net = Net(norm())
    before = state_of(net)
    fast = faster(lambda images: net(images), precision="bfloat16")
    assert fast.speedups == ("bfloat16",)
    found = fast(CANVASES)
    assert not torch.equal(found.float(), net(CANVASES))
    torch.testing.assert_close(found.float(), net(CANVASES), atol=0.1, rtol=0)
    assert state_of(net) == before


def test_a_model_that_cannot_be_copied_gets_autocast_only(with_bfloat16):
    class Stubborn(Net):
        def __deepcopy__(self, memo):
            raise TypeError("no copies")

    net = Stubborn(norm())
    assert faster(net).speedups == ("bfloat16",)
    assert search(net).losses.isfinite().all()


def test_a_model_that_cannot_be_copied_is_searched_as_it_is_without_bfloat16(with_bfloat16):
    with_bfloat16(False)

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


def test_not_a_number_in_bfloat16_is_not_used(with_bfloat16):
    net = Fragile(norm())
    assert faster(net).speedups == ("channels_last", "folded")
    assert search(net).losses.isfinite().all()


def test_an_error_in_bfloat16_is_not_used(with_bfloat16):
    class Strict(Net):
        def logits_of(self, features):
            assert features.dtype == torch.float32
            return super().logits_of(features)

    assert faster(Strict(norm())).speedups == ("channels_last", "folded")


def test_a_model_that_fails_is_left_to_the_search(with_bfloat16):
    class Broken(Net):
        def logits_of(self, features):
            raise RuntimeError("broken")

    net = Broken(norm())
    assert faster(net) is net


def test_no_warnings_about_speedups_that_are_only_tried(with_bfloat16):
    class Noisy(Fragile):
        def logits_of(self, features):
            if features.dtype == torch.bfloat16:
                warnings.warn("half precision", stacklevel=1)
            return super().logits_of(features)

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        assert faster(Noisy(norm())).speedups == ("channels_last", "folded")
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
    assert fast.speedups == ("folded",)
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
    assert fast.speedups == ("folded",)
    torch.testing.assert_close(fast(BASELINES), net(BASELINES), atol=1e-5, rtol=1e-5)


# ---- whose model it is


@pytest.mark.parametrize("method", ["forward", "doubled"])
def test_a_bound_method_is_called_on_the_copy(with_bfloat16, method):
    net = Net(norm())
    fast = faster(getattr(net, method))
    assert fast.speedups == ALL
    assert isinstance(fast.call, types.MethodType)
    assert fast.call.__self__ is not net
    expected = getattr(net, method)(BASELINES)
    torch.testing.assert_close(fast(BASELINES).float(), expected, atol=0.2, rtol=0)


def test_the_callers_model_stays_as_it_is(with_bfloat16):
    net, calls = Net(norm(), nn.ReLU(inplace=True)), []
    net.conv.register_forward_hook(lambda *_: calls.append(1))
    net.conv.bias.requires_grad_(False)
    net.head.weight.grad = torch.ones_like(net.head.weight)
    before, random = state_of(net), torch.get_rng_state()
    assert faster(net).speedups == ALL
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


def test_the_copys_parameters_need_no_gradients(with_bfloat16):
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


# a call checks the model, then come 25 sign steps and 3 rounds of
# four calls, by the model itself or by its copy
@pytest.mark.parametrize(
    ("settings", "calls"),
    [({"precision": "full"}, 1 + 25 + 12), ({"solver": "paper"}, 1 + 3), ({}, 1)],
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
    check, signs, rounds = ([(False, True)] * count for count in (1, 25, 4))
    judging = [(True, False)] * 2  # of each pattern, after the first round and at the end
    assert searched == check + signs + rounds + judging + rounds + judging


def test_a_copy_follows_the_models_weights(take):
    take("channels_last")
    net = Net(norm())
    faster(net)
    with torch.no_grad():
        net.head.bias.add_(3.0)
    torch.testing.assert_close(faster(net)(BASELINES), net(BASELINES), atol=1e-5, rtol=1e-5)


def test_additional_arguments_reach_the_copy(with_bfloat16):
    class Shifted(Net):
        def forward(self, images, shift, scale):
            assert len(shift) == len(images)
            return scale * super().forward(images) + shift

    shifts = torch.tensor([[50.0, 0, 0], [0, 50.0, 0]])
    net = Shifted(norm())
    assert faster(net, additional=(shifts, 0.5)).speedups == ALL
    losses = search(net, additional_forward_args=(shifts, 0.5)).losses
    assert losses.max() < 1e-6


def test_a_model_that_draws_random_numbers_finds_the_same_again(with_bfloat16):
    class Dice(Net):
        def logits_of(self, features):
            return super().logits_of(features) + torch.randn(3)

    net = Dice(norm())
    results = [search(net, seed=seed) for seed in (1, 1, 2)]
    assert torch.equal(results[0].masks, results[1].masks)
    assert torch.equal(results[0].losses, results[1].losses)
    assert not torch.equal(results[0].losses, results[2].losses)
