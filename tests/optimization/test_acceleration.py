"""The faster private copies: when they are made, that they say the same, and whose model stays."""

import warnings
from itertools import product

import pytest
import torch
from refusals import refusals, warnings_of
from searched import search_masks
from torch import nn

from captum_classpattern import ClassPattern, LabelledImages
from captum_classpattern.classifier import enter_model
from captum_classpattern.optimization import acceleration
from captum_classpattern.optimization.acceleration import accelerated, choose_speedups

CANVASES = torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(1))
BASELINES = torch.rand(12, 3, 8, 8, generator=torch.Generator().manual_seed(2))
LABELS = [0, 1, 2] * 4
ALL = ("bfloat16", "channels_last", "folded")
CPU = torch.device("cpu")


def norm(**kwargs):
    """A batch norm in use, so that leaving it out would show."""
    generator = torch.Generator().manual_seed(7)
    layer = nn.BatchNorm2d(4, **kwargs)
    for name, values in layer.state_dict().items():
        if name != "num_batches_tracked":
            nn.init.uniform_(values, 0.5 - ("var" not in name), 2, generator=generator)
    return layer


class Net(nn.Module):
    """Convolution, ``middle``, and a head; ``way`` is how they are called."""

    def __init__(self, *middle, way=None):
        super().__init__()
        torch.manual_seed(0)
        self.conv = nn.Conv2d(3, 4, 3, padding=1)
        self.again = nn.Conv2d(4, 4, 3, padding=1)
        self.middle = nn.Sequential(*middle)
        self.head = nn.Linear(4, 3)
        self.way = way
        self.eval()
        nn.init.normal_(self.head.weight, std=2)

    def forward(self, images):
        made = self.conv(images)
        return self.logits_of(self.way(self, made) if self.way else self.middle(made))

    def logits_of(self, features):
        return self.head(features.tanh().mean((2, 3)))

    def doubled(self, images):
        return 2 * self(images)


class Stubborn(Net):
    error = TypeError("no copies")

    def __deepcopy__(self, memo):
        raise self.error


class Full(Stubborn):
    error = torch.OutOfMemoryError("full")


class Fragile(Net):
    """Wrong where it runs in half precision, of which it also warns."""

    def logits_of(self, features):
        if features.dtype == torch.float32:
            return super().logits_of(features)
        warnings.warn("half precision", stacklevel=1)
        return super().logits_of(features) * torch.nan


class Merging(Net):
    """Merges batch and channels, which channels_last allows for a single image alone."""

    def logits_of(self, features):
        grouped = features.view(2 * len(features), -1, 8, 8)
        return super().logits_of(grouped.view_as(features))


class Remembering(Net):
    """Its hook writes into the object itself, also when a copy is called."""

    def __init__(self, *middle):
        super().__init__(*middle)
        self.conv.register_forward_hook(lambda part, inputs, made: setattr(self, "made", made))

    def logits_of(self, features):
        return super().logits_of(features if not hasattr(self, "made") else self.made)


class Shifted(Net):
    """Of the same margins, but in bfloat16 all logits are equal."""

    def logits_of(self, features):
        return super().logits_of(features) + 30_000


@pytest.fixture
def with_bfloat16(monkeypatch):
    """The device has bfloat16, or has not."""

    def choose(has):
        monkeypatch.setattr(acceleration, "has_bfloat16", lambda device: has)

    choose(True)
    return choose


def faster(net, images=BASELINES, additional=(), precision="auto"):
    with enter_model(net, CANVASES.to(images), additional=additional) as model:
        images = LabelledImages(images, torch.tensor(LABELS))
        return accelerated(model, images, additional, precision, len(CANVASES))


def speedups(net, **kwargs):
    return getattr(faster(net, **kwargs), "speedups", ())


def search(net, **kwargs):
    kwargs = {"baseline_labels": LABELS, "n_steps": 3, "area": 0.2, **kwargs}
    return search_masks(net, CANVASES, [0, 1], BASELINES, **kwargs)


def explained(**kwargs):
    [pattern] = ClassPattern(Net(norm()), BASELINES, LABELS).search(
        CANVASES[:1], 0, n_steps=2, area=0.2, **kwargs
    )
    return pattern.info["precision"], pattern.info["accelerated_by"]


@pytest.mark.parametrize(
    ("net", "has", "precision", "ways"),
    [
        (Net(norm()), True, "auto", ALL),
        (Net(norm()), False, "auto", ("channels_last", "folded")),
        (Net(norm()), False, "bfloat16", ALL),
        (Net(), True, "auto", ("bfloat16", "channels_last")),
        (nn.Sequential(nn.Flatten(), nn.Linear(192, 3)), True, "auto", ()),
        (lambda images: images.mean((2, 3)), True, "auto", ()),
        (lambda images: images.mean((2, 3)), False, "bfloat16", ("bfloat16",)),
    ],
)
def test_the_speedups_follow_from_the_layers_and_the_device(
    with_bfloat16, net, has, precision, ways
):
    with_bfloat16(has)
    assert choose_speedups(net, CPU, precision) == ways
    without = () if has or precision == "bfloat16" else ("channels_last",)
    elsewhere = choose_speedups(net, torch.device("mps"), precision)
    assert elsewhere == tuple(way for way in ways if way not in without)


@pytest.mark.parametrize("has", [True, False])
def test_what_was_chosen_is_recorded(with_bfloat16, has):
    with_bfloat16(has)
    bfloat16 = "bfloat16", list(ALL)
    assert explained() == (bfloat16 if has else ("float32", ["channels_last", "folded"]))
    assert explained(precision="bfloat16") == bfloat16
    assert explained(precision="full") == ("float32", [])


REFUSALS = {
    "bfloat16 that fails": lambda: faster(Fragile(norm()), precision="bfloat16"),
    "bfloat16 for float64": lambda: faster(Net().double(), BASELINES.double(), (), "bfloat16"),
    # a full device does not choose the precision
    "no room for a copy": lambda: faster(Full(norm())),
}


def test_refusals(with_bfloat16, snapshot):
    assert refusals(REFUSALS) == snapshot


def test_what_a_device_can_do(monkeypatch):
    """CUDA by the compute capability, CPUs by their instructions and by those torch may use."""
    for capability, hip, has in ((8, 0), None, True), ((7, 5), None, False), ((0, 0), "6", True):
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _, own=capability: own)
        monkeypatch.setattr(torch.version, "hip", hip)
        assert acceleration.has_bfloat16(torch.device("cuda")) == has
    for allowed, avx, amx in product(("AVX512", "AVX2", "DEFAULT"), (True, False), (True, False)):
        monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda own=allowed: own)
        monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda own=avx: own)
        monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda own=amx: own)
        assert acceleration.has_bfloat16(CPU) == (allowed == "AVX512" and (avx or amx))
        assert not acceleration.has_bfloat16(torch.device("mps"))


def test_models_of_other_precision_are_left_alone_but_not_for_images_of_another(with_bfloat16):
    for dtype in (torch.float64, torch.bfloat16, torch.float16):
        net = Net(norm()).to(dtype)
        for call in (net, net.doubled):
            assert faster(call, BASELINES.to(dtype)) == call
        assert speedups(Net(norm()), images=BASELINES.to(dtype)) == ALL


@pytest.mark.parametrize("kind", [Stubborn, Fragile, Merging, Remembering, Shifted])
def test_a_model_whose_copy_fails_is_searched_as_it_is_and_a_notice_says_why(
    with_bfloat16, kind, snapshot
):
    """But not what is only tried."""
    net, images = kind(norm()), LabelledImages(BASELINES, torch.tensor(LABELS))
    with enter_model(net, CANVASES) as model:
        assert warnings_of(lambda: accelerated(model, images, (), "auto")) == snapshot
        assert accelerated(model, images, (), "auto") is net


def through_twice(net, made):
    return net.middle[1](net.again(net.again(net.middle[0](made))))


def used_elsewhere(net, made):
    """As in networks whose norms come first."""
    return made + net.middle[1](net.again(net.middle[0](made).relu()))


GROUPED = nn.Sequential(nn.Conv2d(4, 4, 3, groups=2, bias=False), norm())
# how many batch norms a copy has; the way, and the middle
FOLDED = {
    "plain": (0, None, norm(eps=0.1), nn.ReLU(inplace=True)),
    "grouped and nested, without bias": (0, None, norm(), nn.ReLU(), GROUPED),
    "norm of two convolutions": (0, lambda n, x: n.middle(n.again(n.middle(x).relu())), norm()),
    "no running statistics": (1, None, norm(track_running_stats=False)),
    "ReLU between": (1, None, nn.ReLU(), norm()),
    "one of two, after a convolution that is called twice": (1, through_twice, norm(), norm()),
    "output used elsewhere": (1, lambda n, x: n.middle(x) + x, norm()),
    "output used elsewhere, behind a norm of its own": (1, used_elsewhere, norm(), norm()),
    "in-place ReLU between": (1, None, nn.ReLU(inplace=True), norm()),
    "norm used twice": (1, lambda n, x: n.middle(n.middle(x).relu()), norm()),
}


def norms_in(net):
    return sum(isinstance(part, nn.BatchNorm2d) for part in net.modules())


@pytest.mark.parametrize("case", FOLDED)
def test_folded_batch_norms_leave_the_logits_alone(with_bfloat16, case):
    with_bfloat16(False)
    left, way, *middle = FOLDED[case]
    net = Net(*middle, way=way)
    norms, fast, ways = norms_in(net), faster(net), ("channels_last", "folded")
    assert (fast.speedups, norms_in(fast), norms_in(net)) == (ways, left, norms)
    torch.testing.assert_close(fast(BASELINES), net(BASELINES), atol=1e-5, rtol=1e-5)


def state_of(net):
    """All of a model that a copy might share with it."""
    tensors = [*net.named_parameters(), *net.named_buffers()]
    return (
        [(name, id(t), t._version, t.dtype, t.stride(), t.requires_grad) for name, t in tensors],
        [(t.tolist(), t.grad is None) for _, t in tensors],
        [(id(part), part.training, list(part._forward_hooks)) for part in net.modules()],
    )


def test_the_callers_model_stays_as_it_is(with_bfloat16):
    net, calls = Net(norm(), nn.ReLU(inplace=True)), []
    net.conv.register_forward_hook(lambda *_: calls.append(1))
    net.conv.bias.requires_grad_(False)
    net.head.weight.grad = torch.ones_like(net.head.weight)
    before, random = state_of(net), torch.get_rng_state()
    fast = faster(net)
    assert fast.speedups == ALL
    assert not any(parameter.requires_grad for parameter in fast.parameters())
    assert fast.module.conv.weight.is_contiguous(memory_format=torch.channels_last)
    by_function = faster(lambda images: net(images), precision="bfloat16")
    assert by_function.speedups == ("bfloat16",)
    exact, found = net(CANVASES), by_function(CANVASES).float()
    assert not torch.equal(found, exact)
    torch.testing.assert_close(found, exact, atol=0.1, rtol=0)
    losses, exactly = search(net).losses, search(net, precision="full").losses
    assert state_of(net) == before
    assert torch.equal(torch.get_rng_state(), random)
    assert calls
    assert not torch.equal(losses, exactly)  # it was used
    torch.testing.assert_close(losses, exactly, atol=0.05, rtol=0)


def watched():
    """A net, and of each call of it or of its copy, whether it is its own and wants a gradient."""
    calls = []

    class Watched(Net):
        def forward(self, images):
            calls.append((self is net, torch.is_grad_enabled()))
            return super().forward(images)

    net = Watched(norm())
    return net, calls


# four calls check the model, then come 25 sign steps and 3 rounds of four calls; it scores two
# patterns, by some solvers twice
@pytest.mark.parametrize(
    ("settings", "calls"),
    [
        ({"precision": "full"}, 4 + 25 + 12 + 4),
        ({"solver": "paper"}, 4 + 3 + 2),
        ({"solver": "learned"}, 4 + 1 + 2),  # one, with which the copy is compared
    ],
)
def test_who_calls_the_model_itself(with_bfloat16, settings, calls):
    net, called = watched()
    search(net, **settings)
    assert sum(own for own, _ in called) == calls


def test_scoring_never_uses_the_copy(with_bfloat16):
    net, calls = watched()
    pattern, _ = ClassPattern(net, BASELINES, LABELS).search(CANVASES, 0, n_steps=2, area=0.2)
    searched = calls[calls.index((False, True)) :]
    assert pattern.info["accelerated_by"] == list(ALL)
    fold, check, signs, rounds = ([(False, True)] * count for count in (1, 2, 25, 4))
    scoring = [(True, False)] * 2  # of each pattern, after the first round and at the end
    compared = [(True, False)]
    assert searched == fold + compared + check + signs + rounds + scoring + rounds + scoring


def test_additional_arguments_reach_the_copy(with_bfloat16):
    class Arguments(Net):
        def forward(self, images, shift, scale):
            assert len(shift) == len(images)
            return scale * super().forward(images) + shift

    arguments = torch.tensor([[50.0, 0, 0], [0, 50.0, 0]]), 0.5
    assert speedups(Arguments(norm()), additional=arguments) == ALL
    losses = search(Arguments(norm()), additional_forward_args=arguments).losses
    assert losses.max() < 1e-6


def test_a_model_that_draws_random_numbers_finds_the_same_again(with_bfloat16):
    class Dice(Net):
        is_random = True

        def logits_of(self, features):
            return super().logits_of(features) + torch.randn(3)

    net = Dice(norm())
    first, again, other = (search(net, seed=seed) for seed in (1, 1, 2))
    assert torch.equal(first.masks, again.masks)
    assert torch.equal(first.losses, again.losses)
    assert not torch.equal(first.losses, other.losses)


def test_batch_norms_are_folded_without_tf32(with_bfloat16):
    """Its rounding would seem to change the logits."""
    with_bfloat16(False)
    seen = []

    def way(net, made):
        seen.append(torch.backends.cudnn.allow_tf32)
        return net.middle(made)

    before = torch.backends.cudnn.allow_tf32
    with enter_model(Net(norm(), way=way), CANVASES) as model:
        seen.clear()
        images = LabelledImages(BASELINES, torch.tensor(LABELS))
        assert "folded" in accelerated(model, images, (), "auto").speedups
    assert not any(seen[1:])  # after the one that is watched
    assert torch.backends.cudnn.allow_tf32 is before
