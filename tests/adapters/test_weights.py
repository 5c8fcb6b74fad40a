"""From a checkpoint's content to a network: weights found, renamed, and loaded strictly."""

from collections import OrderedDict

import pytest
import torch
from checkpoints import prefixed
from refusals import refusal, refusals
from torch import nn
from torch.optim.swa_utils import AveragedModel

from captum_classpattern.adapters import weights
from captum_classpattern.adapters.weights import (
    AVERAGED_KEYS,
    KEYS,
    Weights,
    find_weights,
    load_network,
    locate_weights,
)


class Net(nn.Module):
    """Small, with a batch norm: its running_mean is not a normalisation of pixels."""

    def __init__(self, num_classes=3, width=4):
        super().__init__()
        self.conv = nn.Conv2d(3, width, 3)
        self.bn = nn.BatchNorm2d(width)
        self.fc = nn.Linear(width, num_classes)


class HeadFirst(nn.Module):
    """Its classifier is not its last layer."""

    def __init__(self, num_classes=10):
        super().__init__()
        self.head, self.proj = nn.Linear(4, num_classes), nn.Linear(4, 16)


class Transposed(nn.Module):
    """Its classifier is stored as (features, classes)."""

    def __init__(self, num_classes=10):
        super().__init__()
        self.head = nn.Parameter(torch.zeros(8, num_classes))


class Choosy(Net):
    def __init__(self, num_classes):
        if num_classes not in (10, 100):
            raise RuntimeError("10 or 100")
        super().__init__(num_classes)


class Weightless(nn.Module):
    pass


def fixed():
    return Net(3)


def net(num_classes=3):
    torch.manual_seed(num_classes)
    made = Net(num_classes)
    made.bn.running_mean.normal_()
    return made


STATE = net().state_dict()
FIVE = net(5).state_dict()


def fit(state, network=None, path="m.pt"):
    return weights.load_weights(network or Net(), Weights(state, path))


def load(network, state, num_classes=None):
    return load_network(f"{__name__}:{network}", Weights(state, "m.pt"), num_classes)


def likeliest(content):
    return next(locate_weights(content))


@pytest.mark.parametrize("name", [*KEYS, *AVERAGED_KEYS])
def test_weights_are_found(name):
    assert likeliest({"epoch": 3, name: STATE}) == (name, STATE)
    assert likeliest({"epoch": 3, name: {"state_dict": STATE}})[0] == f"{name}.state_dict"
    network = net()
    assert likeliest({name: network}) == (name, network)


def test_the_likeliest_weights_are_taken():
    assert likeliest({"state_dict_ema": FIVE, "state_dict": STATE})[1] is STATE
    assert likeliest({"net": {"epoch": 1}, "weights": STATE})[0] == "weights"
    assert likeliest(STATE) == ("", STATE)
    assert likeliest(OrderedDict(STATE))[0] == ""


def without(*names):
    return {key: value for key, value in STATE.items() if not key.startswith(names)}


def copies(change):
    changed = {**STATE, "fc.bias": STATE["fc.bias"] + change}
    return {**STATE, **prefixed(changed, "attacker.")}


def with_value(value):
    return find_weights({**STATE, "fc.weight": value}, "m.pt")


class Needy(Net):
    """Must be called with an argument that is not the number of classes."""

    def __init__(self, depth=None):
        if depth is None:
            raise AssertionError("depth should be a number")


REFUSALS = {
    "a factory that needs arguments": lambda: load_network(Needy, find_weights(STATE, "m.pt")),
    # what has no weights
    "other keys": lambda: find_weights({"epoch": 3, "loss": 1.0}, "m.pt"),
    "too deep": lambda: find_weights({"model": {"net": {"ema": STATE}}}, "m.pt"),
    "keys that are numbers": lambda: find_weights({1: torch.rand(2, 2)}, "m.pt"),
    "nothing to learn": lambda: find_weights({"a": torch.rand(2)}, "m.pt"),
    "many keys": lambda: find_weights({str(n): n for n in range(99)}, "m.pt"),
    "an empty dict": lambda: find_weights({}, "m.pt"),
    # tensors whose values are not in the file
    "an expanded tensor": lambda: with_value(torch.zeros(1, 4).expand(10**9, 4)),
    "a meta tensor": lambda: with_value(torch.zeros(3, 4, device="meta")),
    "a sparse tensor": lambda: with_value(torch.zeros(3, 4).to_sparse()),
    "five tensors in one storage": lambda: find_weights(
        dict.fromkeys("abcde", torch.zeros(10, 10)), "m.pt"
    ),
    # what does not fit
    "no network": lambda: load_network(None, find_weights({"net": STATE}, "m.pt")),
    "a mean without a deviation": lambda: fit({**STATE, "mean": torch.rand(3)}),
    "a mean of nine channels": lambda: fit({**STATE, "mean": torch.rand(9), "std": torch.rand(9)}),
    "a statistic": lambda: fit({**STATE, "bn.running_mean2": torch.rand(3)}),
    "a key that ends alike": lambda: fit({**STATE, "aux_fc.bias": STATE["fc.bias"].clone()}),
    "second copies that differ": lambda: fit(copies(1)),
    "a prefix": lambda: fit(prefixed(without("fc.bias"), "module.")),
    "another number of classes": lambda: load("Net", STATE, 5),
    "a factory for three classes": lambda: load("fixed", FIVE),
    "another network": lambda: load("Net", {"other": torch.rand(2, 2)}),
    "a network without weights": lambda: load("Weightless", STATE),
    "a factory for few numbers of classes": lambda: load("Choosy", net(10).state_dict()),
    "one class": lambda: load("Net", STATE, 1),
    "too many classes": lambda: load("Net", STATE, 1_000_001),
}


def test_refusals(snapshot):
    assert refusals(REFUSALS) == snapshot


def test_every_mismatch_is_listed_and_nothing_is_loaded(snapshot):
    extra = {f"extra.{number:02}": torch.rand(1) for number in range(13)}
    state = {**without("conv."), **extra, "fc.weight": torch.rand(7, 4)}
    network = Net()
    before = {key: value.clone() for key, value in network.state_dict().items()}
    with pytest.raises(ValueError, match="unexpected: 13") as caught:
        fit(state, network)
    assert str(caught.value) == snapshot
    assert str(caught.value).partition("\n\n")[2].startswith("missing: ")
    torch.testing.assert_close(network.state_dict(), before, rtol=0, atol=0)


@pytest.mark.parametrize("prefix", ["", "module.", "_orig_mod.", "model.", "1.", "module.model."])
def test_prefixes_are_removed(prefix):
    network = Net()
    loaded = fit(prefixed(STATE, prefix), network)
    torch.testing.assert_close(network.state_dict(), STATE, rtol=0, atol=0)
    assert loaded.details["renamed"] == ({prefix + key: key for key in STATE} if prefix else {})
    assert (loaded.details["ignored"], loaded.details["missing"]) == ({}, [])
    assert loaded.mean is None


def test_a_prefix_of_the_network_itself_stays():
    network = nn.Sequential(OrderedDict(model=Net()))
    assert fit(prefixed(STATE, "model."), network).details["renamed"] == {}
    loaded = fit(prefixed(STATE, "module.model."), network)
    assert loaded.details["renamed"]["module.model.fc.bias"] == "model.fc.bias"
    assert "missing: 8" in refusal(lambda: fit(prefixed(STATE, "my_")))  # no prefix without a dot


@pytest.mark.parametrize("prefix", ["", "0.", "norm.", "module.normalize."])
@pytest.mark.parametrize("names", [("new_mean", "new_std"), ("mu", "sigma"), ("mean", "std")])
def test_normalisation_is_taken_out(prefix, names):
    mean, std = (prefix + name for name in names)
    values = torch.tensor([0.5, 0.25, 0.125]), torch.tensor([0.25, 0.5, 0.75])
    loaded = fit({mean: values[0].view(3, 1, 1), std: values[1].view(1, 3, 1, 1)[0], **STATE})
    assert (loaded.mean, loaded.std) == (values[0].tolist(), values[1].tolist())
    outside = dict.fromkeys((mean, std), "the normalisation, now outside")
    assert loaded.details["ignored"] == outside


def test_a_normalisation_in_units_of_255_is_converted():
    loaded = fit(
        {"mean": torch.tensor([127.5, 51.0, 255.0]), "std": torch.full((3,), 63.75), **STATE}
    )
    assert loaded.mean == pytest.approx([0.5, 0.2, 1.0])
    assert loaded.std == pytest.approx([0.25] * 3)
    assert loaded.details["ignored"]["mean"] == "the normalisation, now outside (in units of 255)"


def test_batch_counters_may_be_missing_and_second_copies_are_ignored():
    loaded = fit(without("bn.num_batches_tracked"))
    assert loaded.details["missing"] == ["bn.num_batches_tracked"]
    second = dict.fromkeys(prefixed(STATE, "attacker."), "a second copy")
    assert fit(copies(0)).details["ignored"] == second


def test_a_counter_of_averaged_weights_is_ignored():
    averaged = AveragedModel(net()).state_dict()
    assert [*load("Net", averaged).details["ignored"]] == ["n_averaged"]


class Lazy(nn.Module):
    def __init__(self, num_classes=3):
        super().__init__()
        self.conv, self.head = nn.Conv2d(3, 2, 3), nn.LazyLinear(num_classes)


def test_lazy_layers_get_the_shape_of_their_weights():
    trained = Lazy()
    trained.head(torch.zeros(1, 5))
    loaded = load_network(Lazy, find_weights(trained.state_dict(), "m.pt"))
    assert torch.equal(loaded.network.head.weight, trained.head.weight)


def test_the_choice_between_two_networks_in_a_file_is_deterministic():
    """Both fit: the first in the alphabet is taken, and the other one is reported as left over."""
    names = "teacher.", "student.", "another."
    both = {name + key: torch.rand(STATE[key].shape) for name in names for key in STATE}
    for order in (both, dict(reversed(both.items()))):
        assert "after the prefix 'another.')" in refusal(lambda order=order: fit(order))


@pytest.mark.parametrize(
    ("network", "state", "classes"),
    [
        ("Net", prefixed(STATE, "module."), 3),
        ("Net", prefixed(net(7).state_dict(), "module."), 7),
        ("HeadFirst", HeadFirst(5).state_dict(), 5),
        ("Transposed", Transposed(5).state_dict(), 5),
        ("fixed", STATE, None),  # takes no number
    ],
)
def test_the_network_has_as_many_classes_as_the_weights(network, state, classes):
    loaded = load(network, state)
    assert loaded.details["num_classes"] == classes
    for loaded_one, stored in zip(
        loaded.network.state_dict().values(), state.values(), strict=True
    ):
        assert torch.equal(loaded_one, stored)
