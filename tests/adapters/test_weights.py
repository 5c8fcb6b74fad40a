"""From a checkpoint's content to a network: weights found, renamed, and loaded strictly."""

import sys
from collections import OrderedDict

import pytest
import torch
from checkpoints import prefixed
from torch import nn

from captum_classpattern._validation import summary_of
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

    def forward(self, images):
        return self.fc(self.bn(self.conv(images)).mean((2, 3)))


def fixed():
    return Net(3)


class Weightless(nn.Module):
    pass


def net(num_classes=3):
    torch.manual_seed(num_classes)
    made = Net(num_classes)
    made.bn.running_mean.normal_()
    return made.eval()


def load_weights(network, state, path):
    return weights.load_weights(network, Weights(state, path))


def likeliest(content):
    return next(locate_weights(content))


STATE = net().state_dict()


IMAGES = torch.rand(4, 3, 5, 6, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("name", [*KEYS, *AVERAGED_KEYS])
def test_weights_are_found(name):
    assert likeliest({"epoch": 3, name: STATE}) == (name, STATE)
    assert likeliest({"epoch": 3, name: {"state_dict": STATE}})[0] == f"{name}.state_dict"
    network = net()
    assert likeliest({name: network}) == (name, network)


def test_the_likeliest_weights_are_taken():
    other = net(4).state_dict()
    assert likeliest({"state_dict_ema": other, "state_dict": STATE})[1] is STATE
    assert likeliest({"net": {"epoch": 1}, "weights": STATE})[0] == "weights"
    assert likeliest(STATE) == ("", STATE)
    assert likeliest(OrderedDict(STATE))[0] == ""


@pytest.mark.parametrize(
    ("content", "text"),
    [
        ({"epoch": 3, "loss": 1.0}, r"m.pt has no weights: it is a dict with the keys epoch, loss"
         ", expected a state dict, or one under state_dict, model_state_dict, model, net, "),
        ({"model": {"a": {"net": STATE}}}, "a dict with the keys model, expected"),
        ({1: torch.rand(2, 2)}, "a dict with the keys 1,"),
        ({"a": torch.rand(2, 2), "b": 3}, "a dict with the keys a, b,"),
        ({"a": torch.rand(2)}, "a dict with the keys a,"),  # nothing to learn
        ({str(n): n for n in range(99)}, "keys 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, expected"),
        ({}, "has no weights"),
        ([STATE], "it is of type list, expected"),
        (torch.rand(2, 2), "it is of type Tensor, expected"),
        (3, "it is of type int, expected"),
    ],
)  # fmt: skip
def test_no_weights(content, text):
    with pytest.raises(ValueError, match=text):
        find_weights(content, "m.pt")


def test_the_first_and_last_weights_help_to_find_the_network():
    text = (
        r"m\.pt has weights, but does not say for which network: pass `arch`, the network: a name "
        r"of torchvision or timm, .*cifar_resnet18.* Its first weights are conv\.weight "
        r"\(4, 3, 3, 3\), its last fc\.weight \(3, 4\)$"
    )
    with pytest.raises(ValueError, match=text):
        weights.load_network(None, find_weights({"net": STATE}, "m.pt"))


@pytest.mark.parametrize("prefix", ["", "module.", "_orig_mod.", "model.", "1.", "module.model."])
def test_prefixes_are_removed(prefix):
    network = Net()
    fit = load_weights(network, prefixed(STATE, prefix), "")
    torch.testing.assert_close(network.state_dict(), STATE, rtol=0, atol=0)
    assert fit.details["renamed"] == ({prefix + key: key for key in STATE} if prefix else {})
    assert (fit.details["ignored"], fit.details["missing"], fit.mean) == ({}, [], None)


def test_a_prefix_of_the_network_itself_stays():
    network = nn.Sequential(OrderedDict(model=Net()))
    fit = load_weights(network, prefixed(STATE, "model."), "")
    assert fit.details["renamed"] == {}
    fit = load_weights(network, prefixed(STATE, "module.model."), "")
    assert fit.details["renamed"]["module.model.fc.bias"] == "model.fc.bias"


def test_batch_counters_may_be_missing():
    old = {k: v for k, v in STATE.items() if k != "bn.num_batches_tracked"}
    assert load_weights(Net(), old, "").details["missing"] == ["bn.num_batches_tracked"]


def test_half_precision_weights_become_single_precision():
    network = Net()
    load_weights(
        network, {k: v.half() if v.is_floating_point() else v for k, v in STATE.items()}, ""
    )
    assert network.fc.weight.dtype == torch.float32
    assert torch.equal(network.fc.weight, STATE["fc.weight"].half().float())


@pytest.mark.parametrize(
    ("mean", "std"),
    [
        ("normalizer.new_mean", "normalizer.new_std"),
        ("module.normalize.mean", "module.normalize.std"),
        ("norm.mean", "norm.std"),
        ("mu", "sigma"),
        ("0.mean", "0.std"),
        ("mean", "std"),
    ],
)
def test_normalisation_is_taken_out(mean, std):
    values = torch.tensor([0.5, 0.25, 0.125]), torch.tensor([0.25, 0.5, 0.75])
    state = {mean: values[0].view(3, 1, 1), std: values[1].view(1, 3, 1, 1)[0], **STATE}
    fit = load_weights(Net(), state, "")
    assert (fit.mean, fit.std) == (values[0].tolist(), values[1].tolist())
    assert fit.details["ignored"] == dict.fromkeys((mean, std), "the normalisation, now outside")


@pytest.mark.parametrize(
    "extra",
    [
        {"mean": torch.rand(3)},  # no std
        {"mean": torch.rand(3), "std": torch.rand(1)},
        {"mean": torch.rand(9), "std": torch.rand(9)},  # no pixels'
        {"bn.running_mean2": torch.rand(3)},
        {"a_mean": torch.rand(3), "a_std": torch.rand(3)},
    ],
)
def test_other_tensors_are_unexpected(extra):
    with pytest.raises(ValueError, match=f"unexpected: {', '.join(extra)}"):
        load_weights(Net(), {**STATE, **extra}, "")


def test_second_copies_are_ignored_if_they_are_copies():
    copies = prefixed(STATE, "attacker.")
    fit = load_weights(Net(), {**STATE, **copies}, "")
    assert fit.details["ignored"] == dict.fromkeys(copies, "a second copy")
    copies["attacker.fc.bias"] = copies["attacker.fc.bias"] + 1
    with pytest.raises(ValueError, match=r"unexpected: attacker\.conv.*attacker\.fc\.bias$"):
        load_weights(Net(), {**STATE, **copies}, "")


def test_the_choice_between_two_networks_in_a_file_is_deterministic():
    """Both fit: the first in the alphabet is taken, and the other one is reported as left over."""
    names = ["teacher.", "student.", "another."]
    both = {k: v for name in names for k, v in prefixed(net(len(name)).state_dict(), name).items()}
    both = {key: torch.rand(value.shape) for key, value in both.items()}
    for order in (both, dict(reversed(both.items()))):
        with pytest.raises(ValueError, match=r"after the prefix 'another\.'\)"):
            load_weights(Net(), order, "")


def test_every_mismatch_is_listed():
    state = {key: value for key, value in STATE.items() if not key.startswith("conv.")}
    state |= {"extra.a": torch.rand(1), "extra.b": torch.rand(1), "fc.weight": torch.rand(7, 4)}
    text = (
        r"m\.pt does not fit into Net; weights missing: 2 \(conv\.weight, \.\.\.\); unexpected: 2 "
        r"\(extra\.a, \.\.\.\); of another shape: 1 \(fc\.weight \(7, 4\) instead of \(3, 4\)\)"
        r"\. Check `arch` and `num_classes`\n\nmissing: conv\.weight, conv\.bias\nunexpected: "
        r"extra\.a, extra\.b\nof another shape: fc\.weight \(7, 4\) instead of \(3, 4\)"
    )
    network = Net()
    before = {key: value.clone() for key, value in network.state_dict().items()}
    with pytest.raises(ValueError, match=text):
        load_weights(network, state, "m.pt")
    torch.testing.assert_close(network.state_dict(), before, rtol=0, atol=0)  # nothing was loaded


def test_long_lists_come_last():
    extra = {f"extra.{number:02}": torch.rand(1) for number in range(13)}
    with pytest.raises(ValueError, match="unexpected") as caught:
        load_weights(Net(), {**STATE, **extra}, "m.pt")
    assert summary_of(caught.value) == (
        "m.pt does not fit into Net; weights unexpected: 13 (extra.00, ...). Check `arch` and "
        "`num_classes`"
    )
    assert str(caught.value).endswith(f"unexpected: {', '.join(extra)}")


def test_errors_name_the_prefix():
    state = prefixed(STATE, "module.")
    del state["module.fc.bias"]
    with pytest.raises(
        ValueError, match=r"into Net \(after the prefix 'module\.'\); weights missing: 1"
    ):
        load_weights(Net(), state, "")


def test_the_network_has_as_many_classes_as_the_weights():
    for classes in (3, 7):
        state = prefixed(net(classes).state_dict(), "module.")
        loaded = load_network(f"{__name__}:Net", Weights(state, ""))
        assert (loaded.network.fc.out_features, loaded.details["num_classes"]) == (classes, classes)


def test_num_classes_takes_precedence():
    with pytest.raises(ValueError, match=r"fc\.weight \(3, 4\) instead of \(5, 4\)"):
        load_network(f"{__name__}:Net", Weights(STATE, ""), 5)


def test_a_factory_that_takes_no_classes():
    loaded = load_network(f"{__name__}:fixed", Weights(STATE, ""))
    assert (loaded.network.fc.out_features, loaded.details["num_classes"]) == (3, None)
    with pytest.raises(ValueError, match=r"shape: 2 \(fc\.weight \(5, 4\) instead of \(3, 4\)"):
        load_network(f"{__name__}:fixed", Weights(net(5).state_dict(), ""))


def test_classes_are_unknown_if_no_key_of_the_classifier_fits():
    with pytest.raises(ValueError, match=r"into Net; weights missing: 8 \(conv\.weight, "):
        load_network(f"{__name__}:Net", Weights({"other": torch.rand(2, 2)}, ""))
    with pytest.raises(
        ValueError, match=r"into Weightless; weights unexpected: 9 \(conv\.weight, "
    ):
        load_network(f"{__name__}:Weightless", Weights(STATE, ""))


@pytest.mark.parametrize(
    "value",
    [
        torch.zeros(1, 4).expand(10**9, 4),
        torch.zeros(3, 4, device="meta"),
        torch.zeros(3, 4).to_sparse(),
    ],
    ids=["expanded", "meta", "sparse"],
)
def test_tensors_whose_values_are_not_in_the_file(value):
    with pytest.raises(ValueError, match=r"the file does not hold all values of the tensor fc\.we"):
        find_weights({**STATE, "fc.weight": value}, "model.pt")


def test_a_key_with_the_same_ending_is_not_a_copy():
    state = {**STATE, "aux_fc.bias": STATE["fc.bias"].clone()}
    with pytest.raises(ValueError, match=r"unexpected: 1 \(aux_fc\.bias\)\. Check"):
        load_weights(Net(), state, "")


class HeadFirst(nn.Module):
    """Its classifier is not its last layer."""

    def __init__(self, num_classes=10):
        super().__init__()
        self.head, self.proj = nn.Linear(4, num_classes), nn.Linear(4, 16)


def test_the_classifier_is_what_changes_with_the_number_of_classes():
    loaded = load_network(f"{__name__}:HeadFirst", Weights(HeadFirst(5).state_dict(), ""))
    assert (loaded.network.head.out_features, loaded.details["num_classes"]) == (5, 5)


class Transposed(nn.Module):
    """Its classifier is stored as (features, classes)."""

    def __init__(self, num_classes=10):
        super().__init__()
        self.head = nn.Parameter(torch.zeros(8, num_classes))


class Choosy(Net):
    def __init__(self, num_classes):
        assert num_classes in (10, 100)
        super().__init__(num_classes)


MADE_ON_IMPORT = """
import torch
from torch import nn
MEAN = torch.tensor([0.5])


class Late(nn.Module):
    def __init__(self, num_classes=10):
        super().__init__()
        self.fc = nn.Linear(int(torch.linspace(0, 4, 3).numpy()[-1]), num_classes)
"""


def test_classes_are_counted_along_the_axis_that_changes():
    loaded = load_network(f"{__name__}:Transposed", Weights(Transposed(5).state_dict(), ""))
    assert loaded.details["num_classes"] == 5


def test_a_factory_that_only_takes_some_numbers_of_classes():
    with pytest.raises(ValueError, match=r"can't be built for 7 classes .* pass `num_classes`"):
        load_network(f"{__name__}:Choosy", Weights(net(10).state_dict(), ""))
    loaded = load_network(f"{__name__}:Choosy", Weights(net(10).state_dict(), ""), 10)
    assert loaded.network.fc.out_features == 10


def test_a_users_module_is_not_imported_on_the_meta_device(tmp_path, monkeypatch):
    """Not on the meta device, where what it makes would stay."""
    (tmp_path / "late_module.py").write_text(MADE_ON_IMPORT)
    monkeypatch.syspath_prepend(str(tmp_path))
    state = {"fc.weight": torch.zeros(3, 4), "fc.bias": torch.zeros(3)}
    assert load_network("late_module:Late", Weights(state, "")).details["num_classes"] == 3
    assert sys.modules["late_module"].MEAN.device.type == "cpu"


def test_many_tensors_that_share_one_storage():
    one = torch.zeros(10, 10)
    with pytest.raises(ValueError, match=r"the file does not hold all values of the tensor fc"):
        find_weights({f"fc{i}.weight": one for i in range(5)}, "model.pt")
