"""Networks by name, and the ResNets for small images by their formula."""

import re

import captum.attr
import pytest
import torch
import torchvision
from checkpoints import TINY, Tiny, without
from refusals import refusal
from torch import nn
from torch.nn.functional import batch_norm, conv2d

from captum_classpattern.adapters.architectures import build
from captum_classpattern.adapters.cifar_resnets import (
    Block,
    BottleneckBlock,
    CifarResNet,
    PreActBlock,
)

LETTERS = "not a function"


def needs_classes(num_classes):
    return Tiny(num_classes)


def takes_anything(**settings):
    return Tiny(**settings)


def fixed():
    return Tiny(3)


def no_module():
    return [1]


@pytest.mark.parametrize("name", ["resnet18", "torchvision:resnet18", "vgg11", "vit_b_16"])
def test_torchvisions_networks(name):
    with torch.device("meta"):
        made, default = build(name, 7), build(name, None)
        model = torchvision.models.get_model(name.rpartition(":")[2], num_classes=7)
    assert made.state_dict().keys() == model.state_dict().keys()
    assert list(made.parameters())[-1].shape == (7,)
    assert list(default.parameters())[-1].shape == (1000,)


def test_timms_networks():
    timm = pytest.importorskip("timm")
    with torch.device("meta"):
        wanted = timm.create_model("resnet18", num_classes=7).state_dict()
        assert build("timm:resnet18", 7).state_dict().keys() == wanted.keys()
        assert build("vit_tiny_patch16_224", 7).head.out_features == 7
        assert build("timm:vit_tiny_patch16_224", None).head.out_features == 1000
        assert type(build("resnet18", 7)) is torchvision.models.ResNet  # torchvision's goes first


OWN = "import torch\ndef make(num_classes=2):\n    return torch.nn.Linear(4, num_classes)\n"


def test_factories_of_the_user(tmp_path, monkeypatch):
    assert "no module 'ones_own': give MODULE:NAME" in refusal(lambda: build("ones_own:make", None))
    (tmp_path / "ones_own.py").write_text(OWN)
    monkeypatch.syspath_prepend(tmp_path)
    assert build("ones_own:make", 5).out_features == 5
    for name, given, classes in (
        (TINY, 7, 7),
        (TINY, None, 3),
        (f"{__name__}:needs_classes", 7, 7),
        (f"{__name__}:takes_anything", 7, 7),
        (f"{__name__}:fixed", 7, 3),
    ):
        assert build(name, given).fc.out_features == classes


@pytest.mark.parametrize(
    ("arch", "text"),
    [  # the names that are listed depend on the versions
        ("resnet81", r"^ValueError.* in torchvision or timm; did you mean .*resnet18.*\?"),
        ("preactresnet81", r"did you mean preactresnet18"),
        (
            "qqqqqqq",
            r"'qqqqqqq' in torchvision or timm; for one of your own, give MODULE:NAME, such as",
        ),
        ("torchvision:vit_tiny_patch16_224", r"no network 'torchvision:vit_tiny"),
        ("fasterrcnn_resnet50_fpn", r"there is no network 'fasterrcnn_resnet50_fpn'"),
        ("qqqq.zzzz", r"give MODULE:NAME, such as `arch=qqqq:zzzz`$"),
        (
            "resnet81",
            r"For a network of your own, give MODULE:NAME, such as `arch=my_file:resnet81`",
        ),
        (
            "nets/mine.py:Net",
            r"'nets/mine.py' is not a module: give MODULE:NAME, with dots and without .py",
        ),
        ("mine.py:Net", r"there is no module 'mine': give MODULE:NAME, with dots and without .py"),
        ("a b:Net", r"'a b' is not a module: give MODULE:NAME"),
        (f"{__name__}:fixd", r"`arch=.*:fixd`: .* no function or class 'fixd': did you mean fix"),
        (f"{__name__}:LETTERS", r"has no function or class 'LETTERS'"),
        (f"{__name__}:", r"has no function or class ''"),
        (f"{__name__}:needs_classes", r"needs a number of classes: pass `num_classes`"),
        (f"{__name__}:no_module", r"TypeError: .* must make a torch\.nn\.Module, got a list"),
        ("no.such:thing", r"^ImportError: `arch=no.such:thing`: there is no module 'no': give MOD"),
        ("broken_one:f", r"^ImportError: .*broken_one imports 'nowhere_to_be_found', which is not"),
        ("wrong_one:f", r"^AttributeError: module 'os' has no attribute 'nothing'"),
    ],
)
def test_unknown_networks(arch, text, tmp_path, monkeypatch):
    (tmp_path / "broken_one.py").write_text("import nowhere_to_be_found\n")
    (tmp_path / "wrong_one.py").write_text("import os\nos.nothing\n")
    monkeypatch.syspath_prepend(tmp_path)
    said, _, _ = refusal(lambda: build(arch, None)).partition("\n\n")
    assert re.search(text, said)


def test_without_timm_other_names_still_work(monkeypatch):
    without(monkeypatch, "timm")
    said = refusal(lambda: build("vit_tiny_patch16_224", None))
    assert "(timm is not installed: pip install 'captum_classpattern[timm]')" in said
    with torch.device("meta"):
        assert build("resnet18", 5).fc.out_features == 5


def normalised(x, bn):
    return batch_norm(x, bn.running_mean, bn.running_var, bn.weight, bn.bias, eps=bn.eps)


def convolved(x, conv):
    return conv2d(x, conv.weight, stride=conv.stride, padding=conv.padding)


def basic(x, block):
    out = normalised(convolved(x, block.conv1), block.bn1).clamp(min=0)
    out = normalised(convolved(out, block.conv2), block.bn2)
    if hasattr(block, "conv3"):
        out = normalised(convolved(out.clamp(min=0), block.conv3), block.bn3)
    if len(block.shortcut):
        x = normalised(convolved(x, block.shortcut[0]), block.shortcut[1])
    return (out + x).clamp(min=0)


def pre_activated(x, block):
    active = normalised(x, block.bn1).clamp(min=0)
    out = convolved(active, block.conv1)
    out = convolved(normalised(out, block.bn2).clamp(min=0), block.conv2)
    return out + (convolved(active, block.shortcut[0]) if hasattr(block, "shortcut") else x)


def small_network(block):
    """One block in each stage, and batch norms that do something."""
    torch.manual_seed(0)
    network = CifarResNet(block, [1, 1, 1, 1], 3).eval()
    for part in network.modules():
        if isinstance(part, nn.BatchNorm2d):
            part.running_mean.normal_()
            part.running_var.uniform_(0.5, 2)
            nn.init.uniform_(part.weight, 0.5, 2)
            nn.init.normal_(part.bias)
    return network


@pytest.mark.parametrize(
    ("block", "plain"), [(Block, basic), (BottleneckBlock, basic), (PreActBlock, pre_activated)]
)
def test_networks_by_their_formula(block, plain):
    network, images = small_network(block), torch.rand(2, 3, 16, 20)
    with torch.no_grad():
        x = convolved(images, network.conv1)
        if block is not PreActBlock:
            x = normalised(x, network.bn1).clamp(min=0)
        for [made] in (network.layer1, network.layer2, network.layer3, network.layer4):
            got, x = made(x), plain(x, made)
            torch.testing.assert_close(got, x, rtol=1e-4, atol=1e-4)
        assert x.shape[2:] == (2, 3)
        expected = x.mean((2, 3)) @ network.linear.weight.T + network.linear.bias
        torch.testing.assert_close(network(images), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("name", "count", "keys", "first", "shortcut"),
    [
        ("preactresnet18", 11_171_146, 102, "conv1.weight", "layer2.0.shortcut.0.weight"),
        ("cifar_resnet18", 11_173_962, 122, "bn1.running_mean", "layer2.0.shortcut.1.bias"),
        ("cifar_resnet50", 23_520_842, 320, "layer1.0.conv3.weight", "layer1.0.shortcut.0.weight"),
    ],
)
def test_networks_have_the_names_and_sizes_of_their_checkpoints(name, count, keys, first, shortcut):
    with torch.device("meta"):
        network, hundred = build(name, None), build(name, 100)
    state = network.state_dict()
    assert sum(parameter.numel() for parameter in network.parameters()) == count
    assert len(state) == keys
    assert {first, shortcut, "linear.weight"} <= set(state)
    assert "layer1.0.shortcut.0.weight" not in state or name == "cifar_resnet50"
    assert hundred.linear.out_features == 100
    assert list(state)[-2:] == ["linear.weight", "linear.bias"]


@pytest.mark.parametrize("block", [PreActBlock, Block, BottleneckBlock])
def test_deep_lift_can_explain_them(block):
    """It refuses a ReLU module that is called several times."""
    image = torch.rand(1, 3, 16, 16, requires_grad=True)
    with pytest.warns(UserWarning, match="hooks"):
        map = captum.attr.DeepLift(small_network(block)).attribute(image, target=1)
    assert bool(map.isfinite().all())
    assert bool(map.any())
