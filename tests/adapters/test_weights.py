"""From a checkpoint's content to a network: weights found, renamed, loaded strictly; networks."""

import importlib
import sys
import types
import warnings
from collections import OrderedDict

import pytest
import torch
import torchvision
from torch import nn
from torch.nn.functional import batch_norm, conv2d

from captum_classpattern.adapters import architectures
from captum_classpattern.adapters.architectures import (
    Block,
    BottleneckBlock,
    CifarResNet,
    PreActBlock,
    build,
    cifar_resnet18,
    cifar_resnet50,
    preactresnet18,
)
from captum_classpattern.adapters.weights import (
    AVERAGED_KEYS,
    KEYS,
    build_to_fit,
    find_weights,
    load_weights,
    locate_weights,
)


class Net(nn.Module):
    """Small, with a batch norm: its running_mean and running_std are no normalisation."""

    def __init__(self, num_classes=3, width=4):
        super().__init__()
        self.conv = nn.Conv2d(3, width, 3)
        self.bn = nn.BatchNorm2d(width)
        self.fc = nn.Linear(width, num_classes)

    def forward(self, images):
        return self.fc(self.bn(self.conv(images)).mean((2, 3)))


def needs_classes(num_classes):
    return Net(num_classes)


def takes_anything(**settings):
    return Net(**settings)


def fixed():
    return Net(3)


def no_module():
    return [1]


class Weightless(nn.Module):
    pass


def net(num_classes=3):
    torch.manual_seed(num_classes)
    made = Net(num_classes)
    made.bn.running_mean.normal_()
    return made.eval()


def prefixed(state, prefix):
    return {prefix + key: value for key, value in state.items()}


STATE = net().state_dict()
IMAGES = torch.rand(4, 3, 5, 6, generator=torch.Generator().manual_seed(0))

# where the weights are


@pytest.mark.parametrize("name", [*KEYS, *AVERAGED_KEYS])
def test_weights_are_found(name):
    assert locate_weights({"epoch": 3, name: STATE}) == (name, STATE)
    assert locate_weights({"epoch": 3, name: {"state_dict": STATE}})[0] == f"{name}.state_dict"
    network = net()
    assert locate_weights({name: network}) == (name, network)


def test_the_likeliest_weights_are_taken():
    other = net(4).state_dict()
    assert locate_weights({"state_dict_ema": other, "state_dict": STATE})[1] is STATE
    assert locate_weights({"net": {"epoch": 1}, "weights": STATE})[0] == "weights"
    assert locate_weights(STATE) == ("", STATE)
    assert locate_weights(OrderedDict(STATE))[0] == ""


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


def test_the_hint_tells_first_and_last_weights():
    hint = find_weights({"net": STATE}, "").arch_help
    assert "pass arch. arch names a network of torchvision or timm" in hint
    assert hint.endswith(
        "Its first weights are conv.weight (4, 3, 3, 3), its last fc.weight (3, 4)"
    )


# loading


@pytest.mark.parametrize("prefix", ["", "module.", "_orig_mod.", "model.", "1.", "module.model."])
def test_prefixes_are_taken_off(prefix):
    network = Net()
    fit = load_weights(network, prefixed(STATE, prefix), "")
    torch.testing.assert_close(network.state_dict(), STATE, rtol=0, atol=0)
    assert fit.details["renamed"] == ({prefix + key: key for key in STATE} if prefix else {})
    assert (fit.details["ignored"], fit.details["missing"], fit.mean) == ({}, [], None)


def test_a_prefix_that_the_network_has_itself_stays():
    network = nn.Sequential(OrderedDict(model=Net()))
    fit = load_weights(network, prefixed(STATE, "model."), "")
    assert fit.details["renamed"] == {}
    fit = load_weights(network, prefixed(STATE, "module.model."), "")
    assert fit.details["renamed"]["module.model.fc.bias"] == "model.fc.bias"


def test_batch_counters_may_be_missing():
    old = {k: v for k, v in STATE.items() if k != "bn.num_batches_tracked"}
    assert load_weights(Net(), old, "").details["missing"] == ["bn.num_batches_tracked"]


def test_half_precision_goes_into_single():
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
def test_what_is_no_normalisation_is_unexpected(extra):
    with pytest.raises(ValueError, match=f"unexpected: {', '.join(extra)}"):
        load_weights(Net(), {**STATE, **extra}, "")


def test_second_copies_are_ignored_if_they_are_copies():
    copies = prefixed(STATE, "attacker.")
    fit = load_weights(Net(), {**STATE, **copies}, "")
    assert fit.details["ignored"] == dict.fromkeys(copies, "a second copy")
    copies["attacker.fc.bias"] = copies["attacker.fc.bias"] + 1
    with pytest.raises(ValueError, match=r"unexpected: attacker\.conv.*attacker\.fc\.bias\. Check"):
        load_weights(Net(), {**STATE, **copies}, "")


def test_of_two_networks_in_a_file_the_choice_is_no_chance():
    """Both fit: the first by the alphabet is taken, and that the other is left over is told."""
    names = ["teacher.", "student.", "another."]
    both = {k: v for name in names for k, v in prefixed(net(len(name)).state_dict(), name).items()}
    both = {key: torch.rand(value.shape) for key, value in both.items()}
    for order in (both, dict(reversed(both.items()))):
        with pytest.raises(ValueError, match=r"after the prefix 'another\.'\)"):
            load_weights(Net(), order, "")


def test_all_that_does_not_fit_is_listed():
    state = {key: value for key, value in STATE.items() if not key.startswith("conv.")}
    state |= {"extra.a": torch.rand(1), "extra.b": torch.rand(1), "fc.weight": torch.rand(7, 4)}
    text = (
        r"m\.pt does not fit into Net; missing: conv\.weight, conv\.bias; unexpected: extra\.a, "
        r"extra\.b; wrong shapes: fc\.weight \(7, 4\) instead of \(3, 4\)\. Check arch and nu"
    )
    network = Net()
    before = {key: value.clone() for key, value in network.state_dict().items()}
    with pytest.raises(ValueError, match=text):
        load_weights(network, state, "m.pt")
    torch.testing.assert_close(network.state_dict(), before, rtol=0, atol=0)  # nothing was loaded


def test_long_lists_are_cut():
    extra = {f"extra.{number:02}": torch.rand(1) for number in range(13)}
    with pytest.raises(ValueError, match=r"unexpected: extra\.00, .*, extra\.09 and 3 more\. Che"):
        load_weights(Net(), {**STATE, **extra}, "")


def test_the_prefix_is_told():
    state = prefixed(STATE, "module.")
    del state["module.fc.bias"]
    with pytest.raises(ValueError, match=r"into Net \(after the prefix 'module\.'\); missing: fc"):
        load_weights(Net(), state, "")


# as many classes as the weights tell apart


def test_classes_are_those_of_the_weights():
    for classes in (3, 7):
        state = prefixed(net(classes).state_dict(), "module.")
        network, count = build_to_fit(f"{__name__}:Net", None, state)
        assert (network.fc.out_features, count) == (classes, classes)
        load_weights(network, state, "")


def test_given_classes_are_kept():
    network, count = build_to_fit(f"{__name__}:Net", 5, STATE)
    assert (network.fc.out_features, count) == (5, 5)


def test_a_factory_that_takes_no_classes():
    network, count = build_to_fit(f"{__name__}:fixed", None, STATE)
    assert (network.fc.out_features, count) == (3, None)
    network, _ = build_to_fit(f"{__name__}:fixed", None, net(5).state_dict())
    with pytest.raises(ValueError, match=r"shapes: fc\.weight \(5, 4\) instead of \(3, 4\)"):
        load_weights(network, net(5).state_dict(), "")


def test_another_network_has_no_classes_to_tell():
    assert build_to_fit(f"{__name__}:Net", None, {"other": torch.rand(2, 2)})[1] is None
    network, count = build_to_fit(f"{__name__}:Weightless", None, STATE)
    assert count is None
    with pytest.raises(ValueError, match=r"into Weightless; unexpected: conv\.weight, "):
        load_weights(network, STATE, "")


# networks by name


@pytest.mark.parametrize("name", ["resnet18", "torchvision:resnet18", "vgg11", "vit_b_16"])
def test_torchvisions_networks(name):
    with torch.device("meta"):
        made, told = build(name, 7), build(name, None)
        model = torchvision.models.get_model(name.rpartition(":")[2], num_classes=7)
    assert made.state_dict().keys() == model.state_dict().keys()
    assert list(made.parameters())[-1].shape == (7,)
    assert list(told.parameters())[-1].shape == (1000,)


def test_networks_that_draw_slowly_give_no_warning():
    with torch.device("meta"), warnings.catch_warnings():
        warnings.simplefilter("error")
        assert build("googlenet", 5).fc.out_features == 5


def test_timms_networks():
    timm = pytest.importorskip("timm")
    with torch.device("meta"):
        wanted = timm.create_model("resnet18", num_classes=7).state_dict()
        assert build("timm:resnet18", 7).state_dict().keys() == wanted.keys()
        assert build("vit_tiny_patch16_224", 7).head.out_features == 7
        assert build("timm:vit_tiny_patch16_224", None).head.out_features == 1000
        assert type(build("resnet18", 7)) is torchvision.models.ResNet  # torchvision's goes first


def test_networks_of_ones_own():
    assert build(f"{__name__}:Net", 7).fc.out_features == 7
    assert build(f"{__name__}:Net", None).fc.out_features == 3
    assert build(f"{__name__}:needs_classes", 7).fc.out_features == 7
    assert build(f"{__name__}:takes_anything", 7).fc.out_features == 7
    assert build(f"{__name__}:fixed", 7).fc.out_features == 3


def test_a_module_of_ones_own(tmp_path, monkeypatch):
    (tmp_path / "ones_own.py").write_text(
        "import torch\ndef make(num_classes=2):\n    return torch.nn.Linear(4, num_classes)\n"
    )
    (tmp_path / "broken_one.py").write_text("import nowhere_to_be_found\n")
    (tmp_path / "wrong_one.py").write_text("import os\nos.nothing\n")
    with pytest.raises(ImportError, match="no module 'ones_own'; run this where 'python -c"):
        build("ones_own:make", None)
    monkeypatch.syspath_prepend(tmp_path)
    assert build("ones_own:make", 5).out_features == 5
    with pytest.raises(ImportError, match="broken_one:f: there is no module 'nowhere_to_be_found'"):
        build("broken_one:f", None)
    with pytest.raises(AttributeError, match="'os' has no attribute 'nothing'"):
        build("wrong_one:f", None)


@pytest.mark.parametrize(
    ("arch", "error", "text"),
    [
        ("resnet81", ValueError, r"no network 'resnet81'; did you mean .*resnet18.*\? arch names"),
        ("preactresnet81", ValueError, r"did you mean preactresnet18"),
        ("qqqqqqq", ValueError, r"there is no network 'qqqqqqq'\. arch names a network of torch"),
        ("torchvision:vit_tiny_patch16_224", ValueError, "no network 'torchvision:vit_tiny"),
        ("fasterrcnn_resnet50_fpn", ValueError, "there is no network 'fasterrcnn_resnet50_fpn'"),
        (f"{__name__}:Nett", ValueError, f"arch={__name__}:Nett: {__name__} has no function 'Nett"),
        (f"{__name__}:STATE", ValueError, "has no function 'STATE'"),
        (f"{__name__}:", ValueError, "has no function ''"),
        (f"{__name__}:needs_classes", ValueError, "needs_classes needs a number of classes: pass"),
        (f"{__name__}:no_module", TypeError, r"must make a torch\.nn\.Module, got a list"),
        ("no.such:thing", ImportError, r"arch=no.such:thing: there is no module 'no'; run this"),
    ],
)
def test_unknown_networks(arch, error, text):
    with pytest.raises(error, match=text):
        build(arch, None)


def without(monkeypatch, *names):
    """As if these packages were not installed."""
    original = importlib.import_module

    def import_module(name, package=None):
        if name.split(".")[0] in names:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
        return original(name, package)

    monkeypatch.setattr(importlib, "import_module", import_module)


def test_a_missing_package_names_its_extra(monkeypatch):
    without(monkeypatch, "timm")
    text = r"this needs timm, which is not installed: pip install 'captum_classpattern\[timm\]'"
    with pytest.raises(ImportError, match=text):
        build("timm:resnet18", None)
    with pytest.raises(ValueError, match=r"\(timm is not installed: pip install .*\[timm\]'\)"):
        build("vit_tiny_patch16_224", None)
    with torch.device("meta"):
        assert build("resnet18", 5).fc.out_features == 5


def test_what_a_package_lacks_itself_is_told_as_it_is(monkeypatch):
    broken = types.ModuleType("broken_package")
    monkeypatch.setitem(sys.modules, "broken_package", broken)
    original = importlib.import_module

    def import_module(name):
        if name == "broken_package":
            raise ModuleNotFoundError("No module named 'deeper'", name="deeper")
        return original(name)

    monkeypatch.setattr(importlib, "import_module", import_module)
    with pytest.raises(ImportError, match=r"is installed, but can't be imported \(No .* 'deeper'"):
        architectures.import_optional("broken_package")


# the networks for small images


def normalised(x, bn):
    """Batch norm by its formula."""
    mean, variance = bn.running_mean.view(1, -1, 1, 1), bn.running_var.view(1, -1, 1, 1)
    scale, shift = bn.weight.view(1, -1, 1, 1), bn.bias.view(1, -1, 1, 1)
    return (x - mean) / (variance + bn.eps).sqrt() * scale + shift


def convolved(x, conv):
    """Convolution as sums of products, pixel by pixel of the kernel."""
    kernel, (stride, _), (padding, _) = conv.weight, conv.stride, conv.padding
    side = kernel.shape[2]
    height, width = ((n + 2 * padding - side) // stride + 1 for n in x.shape[2:])
    padded = torch.zeros(*x.shape[:2], x.shape[2] + 2 * padding, x.shape[3] + 2 * padding)
    padded[:, :, padding : padding + x.shape[2], padding : padding + x.shape[3]] = x
    result = torch.zeros(len(x), len(kernel), height, width)
    for row in range(side):
        for column in range(side):
            part = padded[
                :,
                :,
                row : row + stride * (height - 1) + 1 : stride,
                column : column + stride * (width - 1) + 1 : stride,
            ]
            result += torch.einsum("nchw,oc->nohw", part, kernel[:, :, row, column])
    return result


def basic(x, block):
    out = normalised(convolved(x, block.conv1), block.bn1).clamp(min=0)
    out = normalised(convolved(out, block.conv2), block.bn2)
    if len(block.shortcut):
        x = normalised(convolved(x, block.shortcut[0]), block.shortcut[1])
    return (out + x).clamp(min=0)


def bottleneck(x, block):
    out = normalised(convolved(x, block.conv1), block.bn1).clamp(min=0)
    out = normalised(convolved(out, block.conv2), block.bn2).clamp(min=0)
    out = normalised(convolved(out, block.conv3), block.bn3)
    if len(block.shortcut):
        x = normalised(convolved(x, block.shortcut[0]), block.shortcut[1])
    return (out + x).clamp(min=0)


def pre_activated(x, block):
    active = normalised(x, block.bn1).clamp(min=0)
    out = convolved(active, block.conv1)
    out = convolved(normalised(out, block.bn2).clamp(min=0), block.conv2)
    return out + (convolved(active, block.shortcut[0]) if hasattr(block, "shortcut") else x)


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("channels", [4, 8, 16])
@pytest.mark.parametrize(
    ("made", "plain"), [(Block, basic), (BottleneckBlock, bottleneck), (PreActBlock, pre_activated)]
)
def test_blocks_by_their_formula(made, plain, channels, stride):
    torch.manual_seed(0)
    network = CifarResNet(made, [1, 1, 1, 1], 2)
    network.inplanes = channels
    [block] = network._make_layer(made, 4, 1, stride).eval()
    for part in block.modules():
        if isinstance(part, nn.BatchNorm2d):
            part.running_mean.normal_()
            part.running_var.uniform_(0.5, 2)
            nn.init.uniform_(part.weight, 0.5, 2)
            nn.init.normal_(part.bias)
    x = torch.randn(2, channels, 6, 5)
    with torch.no_grad():
        torch.testing.assert_close(block(x), plain(x, block), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("make", "count", "keys", "first", "shortcut"),
    [
        (preactresnet18, 11_171_146, 102, "conv1.weight", "layer2.0.shortcut.0.weight"),
        (cifar_resnet18, 11_173_962, 122, "bn1.running_mean", "layer2.0.shortcut.1.bias"),
        (cifar_resnet50, 23_520_842, 320, "layer1.0.conv3.weight", "layer1.0.shortcut.0.weight"),
    ],
)
def test_networks_have_the_names_and_sizes_of_their_checkpoints(make, count, keys, first, shortcut):
    with torch.device("meta"):
        network, hundred = make(), make(num_classes=100)
        assert build(make.__name__, None).state_dict().keys() == network.state_dict().keys()
    state = network.state_dict()
    assert sum(parameter.numel() for parameter in network.parameters()) == count
    assert len(state) == keys
    assert {first, shortcut, "linear.weight"} <= set(state)
    assert "layer1.0.shortcut.0.weight" not in state or make is cifar_resnet50
    assert hundred.linear.out_features == 100
    assert list(state)[-2:] == ["linear.weight", "linear.bias"]


@pytest.mark.parametrize("make", [preactresnet18, cifar_resnet18])
def test_the_whole_network_by_its_parts(make):
    torch.manual_seed(0)
    network, images = make(7).eval(), torch.rand(2, 3, 16, 20)
    with torch.no_grad():
        x = conv2d(images, network.conv1.weight, padding=1)
        if make is cifar_resnet18:
            bn = network.bn1
            x = batch_norm(x, bn.running_mean, bn.running_var, bn.weight, bn.bias).clamp(min=0)
        for stage in (network.layer1, network.layer2, network.layer3, network.layer4):
            assert len(stage) == 2
            x = stage[1](stage[0](x))
        assert x.shape == (2, 512, 2, 3)
        expected = x.mean((2, 3)) @ network.linear.weight.T + network.linear.bias
        torch.testing.assert_close(network(images), expected)
    assert expected.shape == (2, 7)


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


def test_a_key_that_ends_alike_is_no_copy():
    state = {**STATE, "aux_fc.bias": STATE["fc.bias"].clone()}
    with pytest.raises(ValueError, match=r"unexpected: aux_fc\.bias\. Check"):
        load_weights(Net(), state, "")


class HeadFirst(nn.Module):
    """Its classifier is not its last layer."""

    def __init__(self, num_classes=10):
        super().__init__()
        self.head, self.proj = nn.Linear(4, num_classes), nn.Linear(4, 16)


def test_the_classifier_is_what_changes_with_the_number_of_classes():
    network, count = build_to_fit(f"{__name__}:HeadFirst", None, HeadFirst(5).state_dict())
    assert (network.head.out_features, count) == (5, 5)


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
    assert build_to_fit(f"{__name__}:Transposed", None, Transposed(5).state_dict())[1] == 5


def test_a_factory_of_some_numbers_of_classes_only():
    with pytest.raises(ValueError, match=r"can't be built for 7 classes .* pass num_classes"):
        build_to_fit(f"{__name__}:Choosy", None, net(10).state_dict())
    assert build_to_fit(f"{__name__}:Choosy", 10, net(10).state_dict())[0].fc.out_features == 10


def test_a_users_module_is_imported_as_it_is(tmp_path, monkeypatch):
    """Not on the meta device, where what it makes would stay."""
    (tmp_path / "late_module.py").write_text(MADE_ON_IMPORT)
    monkeypatch.syspath_prepend(str(tmp_path))
    _, count = build_to_fit("late_module:Late", None, {"fc.weight": torch.zeros(3, 4)})
    assert count == 3
    assert sys.modules["late_module"].MEAN.device.type == "cpu"


def test_many_tensors_of_one_storage():
    one = torch.zeros(10, 10)
    with pytest.raises(ValueError, match=r"the file does not hold all values of the tensor fc"):
        find_weights({f"fc{i}.weight": one for i in range(5)}, "model.pt")
