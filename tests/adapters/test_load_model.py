"""load_model: each format in its real layout gives the original network's logits and says how."""

import argparse
import enum
import hashlib
import importlib
import json
import os
import sys
import types
import warnings
from collections import OrderedDict

import numpy as np
import pytest
import torch
import torchvision
from PIL import EpsImagePlugin, Image
from safetensors.torch import save_file
from torch import nn
from torchvision.transforms.v2.functional import resize

from captum_classpattern.adapters import load_model, weights
from captum_classpattern.adapters.architectures import preactresnet18
from captum_classpattern.adapters.formats import trojanzoo
from captum_classpattern.adapters.formats.timm import _with_config, imagenet_ids
from captum_classpattern.class_names import ClassNames

IMAGENET = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
MEAN, STD = (0.4914, 0.4822, 0.4465), (0.247, 0.243, 0.261)
IMAGES = torch.rand(4, 3, 8, 8, generator=torch.Generator().manual_seed(0))


class Tiny(nn.Module):
    def __init__(self, num_classes=3):
        super().__init__()
        torch.manual_seed(num_classes)
        self.conv = nn.Conv2d(3, 4, 3)
        self.bn = nn.BatchNorm2d(4)
        self.fc = nn.Linear(4, num_classes)
        self.bn.running_mean.normal_()
        self.bn.running_var.uniform_(0.5, 2)

    def forward(self, images):
        return self.fc(self.bn(self.conv(images)).relu().mean((2, 3)))


class Twice(Tiny):
    """Features and logits, as in many a published small model."""

    def forward(self, images):
        return images, super().forward(images)


TINY = f"{__name__}:Tiny"


def prefixed(state, prefix):
    return {prefix + key: value for key, value in state.items()}


def normalised(images, mean=MEAN, std=STD):
    return torchvision.transforms.functional.normalize(images, mean, std)


def assert_same(classifier, network, mean=MEAN, std=STD, images=IMAGES):
    """Logits as of the original network on normalised images; eval mode; a plain provenance."""
    with torch.no_grad():
        expected = network.eval()(normalised(images, mean, std))
        assert (classifier(images) - expected).abs().max() <= 1e-6
    assert float(expected.std(0).max()) > 1e-4  # the images matter
    assert not any(part.training for part in classifier.modules())
    assert json.loads(json.dumps(classifier.provenance))


# state dicts and checkpoints of any script


@pytest.mark.parametrize("prefix", ["", "module.", "_orig_mod.", "model.", "1."])
@pytest.mark.parametrize("holder", [None, "state_dict", "net", "model"])
@pytest.mark.parametrize("ending", ["pt", "pth", "tar", "th"])
def test_plain_checkpoints(prefix, holder, ending, tmp_path):
    path, network = tmp_path / f"checkpoint.{ending}", Tiny(5)
    state = prefixed(network.state_dict(), prefix)
    optimizer = torch.optim.SGD(network.parameters(), 0.1, momentum=0.9).state_dict()
    content = state if holder is None else {"epoch": 3, "optimizer": optimizer, holder: state}
    torch.save(content, path, _use_new_zipfile_serialization=ending != "tar")
    classifier = load_model(path, arch=TINY, mean=MEAN, std=STD)
    assert_same(classifier, network)
    keys = network.state_dict()
    assert classifier.provenance == {
        "format": "plain",
        "source": str(path),
        "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
        "opened": "weights_only",
        "weights": holder or "",
        "also_held": [],
        "arch": TINY,
        "num_classes": 5,
        "renamed": {prefix + key: key for key in keys} if prefix else {},
        "ignored": {},
        "missing": [],
        "normalisation": {"mean": MEAN, "std": STD, "from": "the caller"},
    }
    assert classifier.classes == [f"class {number}" for number in range(5)]
    assert (classifier.input_size, classifier.trigger) == (None, None)


def test_safetensors(tmp_path):
    network = Tiny()
    save_file(network.state_dict(), tmp_path / "model.safetensors")
    classifier = load_model(str(tmp_path / "model.safetensors"), arch=TINY, mean=MEAN, std=STD)
    assert_same(classifier, network)
    assert classifier.provenance["opened"] == "safetensors"


def test_half_precision_weights(tmp_path):
    network = Tiny().half()
    torch.save(network.state_dict(), tmp_path / "model.pt")
    assert_same(load_model(tmp_path / "model.pt", arch=TINY, mean=MEAN, std=STD), network.float())


def test_output_picks_the_logits(tmp_path):
    torch.save(Tiny().state_dict(), tmp_path / "model.pt")
    settings = {"arch": f"{__name__}:Twice", "mean": MEAN, "std": STD}
    assert_same(load_model(tmp_path / "model.pt", output=-1, **settings), Tiny())
    with pytest.raises(ValueError, match="output=5 does not pick the logits"):
        load_model(tmp_path / "model.pt", output=5, **settings)(IMAGES)


def test_normalisation_inside_comes_from_the_checkpoint(tmp_path):
    inside = {"normalize.mean": torch.tensor(MEAN), "normalize.std": torch.tensor(STD)}
    torch.save({**inside, **prefixed(Tiny().state_dict(), "model.")}, tmp_path / "model.pt")
    classifier = load_model(tmp_path / "model.pt", arch=TINY)
    assert_same(classifier, Tiny())
    told = classifier.provenance
    assert told["normalisation"]["from"] == "the checkpoint"
    assert told["normalisation"]["mean"] == pytest.approx(MEAN)
    assert told["ignored"] == dict.fromkeys(inside, "the normalisation, now outside")


@pytest.mark.parametrize(
    ("given", "mean", "std", "told"),
    [
        ({"mean": 0.25, "std": 0.5}, (0.25,) * 3, (0.5,) * 3, "the caller"),
        ({"mean": 0.25}, (0.25,) * 3, STD, "the caller, std by the checkpoint"),
        ({"std": 0.5}, MEAN, (0.5,) * 3, "the caller, mean by the checkpoint"),
    ],
)
def test_the_caller_goes_before_the_checkpoint(given, mean, std, told, tmp_path):
    inside = {"mean": torch.tensor(MEAN), "std": torch.tensor(STD)}
    torch.save({**inside, **Tiny().state_dict()}, tmp_path / "model.pt")
    classifier = load_model(tmp_path / "model.pt", arch=TINY, **given)
    assert_same(classifier, Tiny(), mean, std)
    assert classifier.provenance["normalisation"]["from"] == told


def test_no_normalisation_is_warned_of(tmp_path):
    path = tmp_path / "model.pt"
    torch.save(Tiny().state_dict(), path)
    text = (
        r"model\.pt does not say how its pixels were normalised, so they are used unchanged, in "
        r"\[0, 1\]: pass the mean and std .* \(mean=0 and std=1 if it was trained with unchanged"
    )
    with pytest.warns(UserWarning, match=text) as caught:
        classifier = load_model(path, arch=TINY)
    assert [warning.filename for warning in caught] == [__file__]
    assert classifier.provenance["normalisation"]["from"].startswith(
        "nothing: pixels are used unch"
    )
    assert torch.equal(classifier(IMAGES), Tiny().eval()(IMAGES))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        plain = load_model(path, arch=TINY, mean=0, std=1)
    assert torch.equal(plain(IMAGES), classifier(IMAGES))


@pytest.mark.parametrize(
    ("held", "names"),
    [
        ({"class_to_idx": {"dog": 1, "cat": 0, "eel": 2}}, ["cat", "dog", "eel"]),
        ({"classes": ["a", "b", "c"]}, ["a", "b", "c"]),
        ({"class_names": ("a", "b", "c")}, ["a", "b", "c"]),
        ({"classes": ["a", "b"]}, ["class 0", "class 1", "class 2"]),  # not of this network
        ({"class_to_idx": {str(n): n for n in range(9)}}, ["class 0", "class 1", "class 2"]),
        ({"classes": 3}, ["class 0", "class 1", "class 2"]),
        ({"classes": [1, 2, 3]}, ["class 0", "class 1", "class 2"]),
    ],
)
def test_class_names(held, names, tmp_path):
    torch.save({"net": Tiny().state_dict(), **held}, tmp_path / "model.pt")
    classifier = load_model(tmp_path / "model.pt", arch=TINY, mean=0, std=1)
    assert classifier.classes == classifier.class_names == names


def test_class_names_that_the_caller_gives(tmp_path):
    torch.save({"net": Tiny().state_dict(), "classes": ["a", "b", "c"]}, tmp_path / "model.pt")
    settings = {"arch": TINY, "mean": 0, "std": 1}
    classifier = load_model(tmp_path / "model.pt", **settings, class_names=("cat", "dog", "eel"))
    assert classifier.class_names == ["cat", "dog", "eel"]
    with pytest.raises(ValueError, match="2 class names were given, but the model has 3 classes"):
        load_model(tmp_path / "model.pt", **settings, class_names=["cat", "dog"])
    with pytest.raises(TypeError, match="class_names must be a list of names"):
        load_model(tmp_path / "model.pt", **settings, class_names="cat")


def test_a_network_that_the_file_names(tmp_path):
    network = torchvision.models.squeezenet1_1(num_classes=3)
    torch.save({"arch": "squeezenet1_1", "net": network.state_dict()}, tmp_path / "model.pt")
    classifier = load_model(tmp_path / "model.pt", mean=MEAN, std=STD)
    assert_same(classifier, network, images=torch.rand(2, 3, 40, 40))
    assert classifier.provenance["arch"] == "squeezenet1_1"


def test_no_network(tmp_path):
    torch.save({"net": Tiny().state_dict()}, tmp_path / "model.pt")
    text = (
        r"model\.pt has weights, but does not say for which network: pass arch\. arch names .* Its "
        r"first weights are conv\.weight \(4, 3, 3, 3\), its last fc\.weight \(3, 4\)"
    )
    with pytest.raises(ValueError, match=text):
        load_model(tmp_path / "model.pt")


@pytest.mark.parametrize(
    "content",
    [
        {"arch": "dangerous:run", "state_dict": {"a": torch.rand(2, 2)}},
        {"arch": "dangerous:run", "state_dict": {"a": torch.rand(2, 2)}, "optimizer": 1,
         "version": 2},
        {"model_name": "dangerous:run", "num_classes": 3, "model": {"a": torch.rand(2, 2)}},
    ],
)  # fmt: skip
def test_a_file_does_not_choose_what_is_called(content, tmp_path, monkeypatch):
    """Else any function of any package that is installed would be a stranger's to call."""
    (tmp_path / "dangerous.py").write_text(
        f"import pathlib\ndef run():\n    pathlib.Path({str(tmp_path / 'made')!r}).touch()\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    sys.modules.pop("dangerous", None)
    torch.save(content, tmp_path / "model.pt")
    with pytest.raises(ValueError, match=r"its network is '(timm:)?dangerous:run'; a file may not"):
        load_model(tmp_path / "model.pt")
    assert not (tmp_path / "made").exists()
    assert "dangerous" not in sys.modules
    with pytest.raises(TypeError, match="must make a torch"):  # it is one, if the caller says so
        load_model(tmp_path / "model.pt", arch="dangerous:run", num_classes=3)
    assert (tmp_path / "made").exists()


@pytest.mark.parametrize(
    ("settings", "error", "text"),
    [
        ({"format": "keras"}, ValueError, "format must be one of backdoorbench, .*, got 'keras'"),
        (
            {"format": "backdoorbench"},
            ValueError,
            "m.pt does not have the layout of backdoorbench",
        ),
        ({"format": "trojanzoo"}, ValueError, "not have the layout of trojanzoo"),
        ({"format": "robustness"}, ValueError, "not have the layout of robustness"),
        ({"format": "timm"}, ValueError, "has weights, but does not say for which network"),
        ({"format": "robustbench"}, ValueError, "m.pt: pass arch, the model's name in RobustBench"),
        (
            {"arch": TINY, "num_classes": 7},
            ValueError,
            "m.pt does not fit into Tiny; wrong shapes: ",
        ),
        ({"arch": "resnet18"}, ValueError, "does not fit into ResNet; missing: conv1.weight, bn1"),
        ({"arch": TINY, "mean": 120}, ValueError, "mean must be in units .* divide it by 255"),
    ],
)
def test_wrong_settings(settings, error, text, tmp_path):
    torch.save(Tiny().state_dict(), tmp_path / "m.pt")
    with pytest.raises(error, match=text):
        load_model(tmp_path / "m.pt", **settings)


@pytest.mark.parametrize("name", ["torchvision:resnet18", "timm:resnet18"])
def test_a_file_goes_before_a_name(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.save(Tiny().state_dict(), name)
    assert_same(load_model(name, arch=TINY, mean=MEAN, std=STD), Tiny())


# BackdoorBench


PATCH = torch.tensor([1.0, 0.0, 128 / 255]).view(3, 1, 1).expand(3, 2, 3)


def poisoned(tmp_path, change, count=24, target=2, stored="./record/{name}", size=(12, 12)):
    """attack_result.pt as BackdoorBench saves it, with its poisoned test images beside it."""
    folder = tmp_path / "record" / "badnet_0_1"
    generator, entries = np.random.default_rng(0), {}
    for index in range(count):
        label = index % 3
        pixels = change(generator.integers(0, 256, (*size, 3), dtype=np.uint8))
        image = folder / "bd_test_dataset" / str(label) / f"{index}.png"
        image.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(image)
        path = f"{stored.format(name='badnet_0_1')}/bd_test_dataset/{label}/{index}.png"
        entries[np.int64(index)] = {"path": path, "other_info": [target, label]}
    part = {
        "bd_data_container": {
            "save_folder_path": "./record/badnet_0_1/bd_test_dataset",
            "data_dict": entries,
            "save_file_format": ".png",
        },
        "getitem_all": True,
        "original_index_array": np.arange(count),
        "poison_indicator": np.ones(count),
    }
    content = {
        "model_name": "preactresnet18",
        "num_classes": 3,
        "model": Tiny().state_dict(),
        "data_path": "./data/cifar10",
        "img_size": (*size, 3),
        "clean_data": "cifar10",
        "bd_train": None,
        "bd_test": part,
    }
    torch.save(content, folder / "attack_result.pt")
    return folder / "attack_result.pt", content


def stamped(pixels):
    pixels[-3:-1, -4:-1] = (255, 0, 128)
    return pixels


@pytest.mark.parametrize("stored", ["./record/{name}", "/home/them/bench/record/{name}", "."])
def test_backdoorbench_with_its_trigger(stored, tmp_path):
    path, _ = poisoned(tmp_path, stamped, stored=stored)
    classifier = load_model(path, arch=TINY)
    assert_same(classifier, Tiny())
    mask = torch.zeros(1, 12, 12)
    mask[:, -3:-1, -4:-1] = 1
    trigger = classifier.trigger
    assert torch.equal(trigger.mask, mask)
    torch.testing.assert_close(trigger.canvas[:, -3:-1, -4:-1], PATCH)
    assert trigger.target == 2
    told = "the 6 pixels that are equal in 24 poisoned test images"
    assert classifier.provenance["trigger"] == trigger.info["trigger"] == told
    assert classifier.provenance["normalisation"]["from"] == "BackdoorBench's cifar10"
    assert classifier.provenance["data"] == "cifar10"
    assert classifier.provenance["format"] == "backdoorbench"
    assert classifier.input_size == (3, 12, 12)
    images = torch.rand(2, 3, 12, 12)
    images[:, :, -3:-1, -4:-1] = PATCH
    torch.testing.assert_close(trigger.stamp(images), images)


def test_backdoorbenchs_usual_network(tmp_path):
    torch.manual_seed(0)
    network = preactresnet18(num_classes=4)
    content = {"model_name": "preactresnet18", "num_classes": 4, "model": network.state_dict()}
    torch.save(content, tmp_path / "defense_result.pt")
    classifier = load_model(tmp_path / "defense_result.pt", mean=MEAN, std=STD)
    assert_same(classifier, network)
    assert classifier.provenance["arch"] == "preactresnet18"
    assert classifier.provenance["trigger"].startswith("not known: the file lists no poisoned")
    with pytest.warns(UserWarning, match="does not say how its pixels were normalised"):
        load_model(tmp_path / "defense_result.pt", arch="preactresnet18")


def test_backdoorbenchs_vision_transformers_enlarge_their_images(tmp_path, monkeypatch):
    monkeypatch.setattr(weights, "build", lambda arch, count: Tiny(count))
    state = prefixed(Tiny().state_dict(), "1.")
    content = {"model_name": "vit_b_16", "num_classes": 3, "model": state, "clean_data": "cifar10"}
    torch.save(content, tmp_path / "attack_result.pt")
    classifier = load_model(tmp_path / "attack_result.pt")
    larger = resize(normalised(IMAGES), [224, 224], antialias=True)
    torch.testing.assert_close(classifier(IMAGES), Tiny().eval()(larger), rtol=0, atol=1e-6)


def blended(pixels):
    pattern = np.indices(pixels.shape).sum(0) * 9 % 256
    return (0.8 * pixels + 0.2 * pattern).astype(np.uint8)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (blended, "not a patch: 0% of the pixels are equal in all poisoned test images"),
        (lambda pixels: np.full_like(pixels, 7), "not a patch: 100% of the pixels are equal"),
    ],
)
def test_a_trigger_that_is_no_patch(change, told, tmp_path):
    path, _ = poisoned(tmp_path, change)
    classifier = load_model(path, arch=TINY)
    assert classifier.trigger is None
    assert classifier.provenance["trigger"].startswith(told)


def test_poisoned_images_that_are_not_there(tmp_path):
    path, _ = poisoned(tmp_path, stamped)
    moved = tmp_path / "elsewhere.pt"
    path.rename(moved)
    for file in (tmp_path / "record").rglob("*.png"):
        file.unlink()
    classifier = load_model(moved, arch=TINY)
    assert classifier.trigger is None
    assert classifier.provenance["trigger"] == (
        "not known: 0 of the 24 poisoned test images are next to the file, at least 20 of one size "
        "are needed"
    )


def test_poisoned_images_that_are_damaged(tmp_path):
    path, _ = poisoned(tmp_path, stamped, count=22)
    files = sorted((tmp_path / "record").rglob("*.png"))
    files[0].write_bytes(b"<html>")
    files[1].write_bytes(files[1].read_bytes()[:60])
    classifier = load_model(path, arch=TINY)
    assert classifier.provenance["trigger"].endswith("are equal in 20 poisoned test images")
    files[2].write_bytes(b"")
    assert "19 of the 22 poisoned" in load_model(path, arch=TINY).provenance["trigger"]


def test_poisoned_images_that_would_start_a_program(tmp_path, monkeypatch):
    """Pillow goes by content, not by name, and lets Ghostscript draw what is PostScript."""
    path, _ = poisoned(tmp_path, stamped, count=12)
    drawn, result = [], Image.new("RGB", (9, 9)).im
    monkeypatch.setattr(EpsImagePlugin, "Ghostscript", lambda *a: (drawn.append(a), result)[1])
    files = sorted((tmp_path / "record").rglob("*.png"))
    for file in files:
        file.write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n%%EOF\n")
    classifier = load_model(path, arch=TINY)
    assert drawn == []
    assert classifier.provenance["trigger"].startswith("not known: 0 of the 12 poisoned")
    with Image.open(files[0]) as image:
        image.convert("RGB")
    assert len(drawn) == 1  # such are they


def test_poisoned_images_of_several_targets(tmp_path):
    path, content = poisoned(tmp_path, stamped)
    for index, entry in content["bd_test"]["bd_data_container"]["data_dict"].items():
        entry["other_info"] = [int(index) % 2, 0]
    torch.save(content, path)
    classifier = load_model(path, arch=TINY)
    assert classifier.trigger is None
    assert classifier.provenance["trigger"] == "a patch, but for 2 target classes"


@pytest.mark.parametrize(
    "hostile", ["../../x.png", "../x.png", "/{}/x.png", "a/../../../x.png", "a" * 300, "a\0b", ""]
)
def test_hostile_paths_are_not_opened(hostile, tmp_path, monkeypatch):
    path, content = poisoned(tmp_path, stamped)
    for place in (tmp_path, tmp_path / "record"):
        Image.new("RGB", (12, 12)).save(place / "x.png")
    for entry in content["bd_test"]["bd_data_container"]["data_dict"].values():
        entry["path"] = hostile.format(tmp_path)
    torch.save(content, path)
    opened, original = [], Image.open
    monkeypatch.setattr(
        Image, "open", lambda file, **k: (opened.append(file), original(file, **k))[1]
    )
    classifier = load_model(path, arch=TINY)
    assert opened == []
    assert classifier.provenance["trigger"].startswith("not known: 0 of the 24")


@pytest.mark.parametrize("bd_test", [None, 3, {}, {"bd_data_container": {"data_dict": [1]}},
                                     {"bd_data_container": {"data_dict": {1: 2}}}])  # fmt: skip
def test_poisoned_images_listed_otherwise(bd_test, tmp_path):
    path, content = poisoned(tmp_path, stamped)
    torch.save({**content, "bd_test": bd_test}, path)
    classifier = load_model(path, arch=TINY)
    assert_same(classifier, Tiny())
    assert classifier.provenance["trigger"].startswith("not known: ")


# TrojanZoo


def of_trojanzoo(classes=4):
    """A torchvision ResNet-18 for small images, and its state dict by TrojanZoo's names."""
    torch.manual_seed(0)
    network = torchvision.models.resnet18(num_classes=classes)
    network.conv1, network.maxpool = nn.Conv2d(3, 64, 3, 1, 1, bias=False), nn.Identity()
    state = {
        f"classifier.{key}" if key.startswith("fc") else f"features.{key}": value
        for key, value in network.state_dict().items()
    }
    return network, OrderedDict(state)


def put(content, *parts):
    path = parts[0].joinpath(*parts[1:])
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save(content, path)
    return path


CIFAR = (0.49139968, 0.48215827, 0.44653124), (0.24703233, 0.24348505, 0.26158768)


def test_trojanzoo_by_its_path(tmp_path):
    network, state = of_trojanzoo()
    path = put(state, tmp_path, "image", "cifar10", "resnet18_comp.pth")
    classifier = load_model(path)
    assert_same(classifier, network, *CIFAR)
    told = classifier.provenance
    assert (told["format"], told["arch"], told["num_classes"]) == ("trojanzoo", "resnet18_comp", 4)
    assert told["normalisation"]["from"] == "TrojanZoo's cifar10"
    assert (classifier.input_size, classifier.trigger) == ((3, 32, 32), None)
    with pytest.raises(ValueError, match=r"shapes: classifier\.fc\.weight \(4, 512\) instead of"):
        load_model(path, num_classes=5)
    elsewhere = path.rename(tmp_path / "model.pth")
    text = r"of TrojanZoo, whose path should name its network, but 'model' is not one that can be"
    with pytest.raises(ValueError, match=text):
        load_model(elsewhere)
    with pytest.warns(UserWarning, match="does not say how its pixels were normalised"):
        classifier = load_model(elsewhere, arch="resnet18_comp")
    assert_same(classifier, network, (0, 0, 0), (1, 1, 1))


def test_trojanzoos_attack_and_its_mark(tmp_path):
    network, state = of_trojanzoo()
    folder = tmp_path / "attack" / "image" / "cifar10" / "resnet18_comp" / "badnet"
    name = "square_white_tar3_alpha0.50_mark(2,5)"
    path = put(state, folder, f"{name}.pth")
    assert load_model(path).trigger is None
    mark = np.random.default_rng(0).random((4, 2, 5)).astype(np.float32)
    np.save(folder / f"{name}.npy", mark)
    classifier = load_model(path)
    assert_same(classifier, network, *CIFAR)
    trigger = classifier.trigger
    assert trigger.target == 3
    assert trigger.canvas.shape == (3, 32, 32)
    assert np.array_equal(trigger.canvas[:, :2, :5], mark[:3])
    assert np.array_equal(trigger.mask[:, :2, :5], mark[3:])
    assert float(trigger.mask.sum()) == pytest.approx(mark[3].sum())
    assert classifier.provenance["trigger"].startswith(f"{name}.npy, in the upper left corner")


def harmful(made):
    class Payload:
        def __reduce__(self):
            return os.system, (f"touch '{made}'",)

    return np.array([Payload()], object)


@pytest.mark.parametrize("kind", ["other size", "objects", "text", "names", "empty", "too large"])
def test_trojanzoos_marks_that_are_none(kind, tmp_path):
    size = "40,2" if kind == "too large" else "2,5"
    stem = f"square_white_tar3_alpha1.00_mark({size})"
    file = tmp_path / f"{stem}.npy"
    if kind == "other size":
        np.save(file, np.ones((4, 3, 5)))
    elif kind == "too large":
        np.save(file, np.ones((4, 40, 2)))
    elif kind == "objects":
        np.save(file, harmful(tmp_path / "made"), allow_pickle=True)
    elif kind == "names":
        np.save(file, np.array(["a"]))
    else:
        file.write_text("<html>" if kind == "text" else "")
    assert trojanzoo._load_trigger(file, (3, 32, 32)) is None
    assert not (tmp_path / "made").exists()


def test_trojanzoos_vgg_with_several_linear_layers(tmp_path):
    torch.manual_seed(0)
    features = torchvision.models.vgg11().features
    layers = OrderedDict(fc1=nn.Linear(512, 6), relu1=nn.ReLU(), fc2=nn.Linear(6, 4))
    classifier = nn.Sequential(layers)
    state = prefixed(features.state_dict(), "features.")
    state |= prefixed(classifier.state_dict(), "classifier.")
    path = put(state, tmp_path, "gtsrb", "vgg11_comp.pth")
    loaded, images = load_model(path), torch.rand(2, 3, 32, 32)
    mean, std = (0.3403, 0.3121, 0.3214), (0.2724, 0.2608, 0.2669)
    pooled = nn.Sequential(features, nn.AdaptiveAvgPool2d(1), nn.Flatten(), classifier)
    assert_same(loaded, pooled, mean, std, images)
    assert isinstance(loaded.model, trojanzoo.SmallImageNetwork)


# RobustBench


class Data(enum.Enum):
    cifar_10 = "cifar10"
    imagenet = "imagenet"


class Threat(enum.Enum):
    Linf = "Linf"
    L2 = "L2"


class Inside(Tiny):
    """With its normalisation inside, as RobustBench's are."""

    def __init__(self):
        super().__init__(10)
        self.register_buffer("mu", torch.tensor(MEAN).view(1, 3, 1, 1))
        self.register_buffer("sigma", torch.tensor(STD).view(1, 3, 1, 1))

    def forward(self, images):
        return super().forward((images - self.mu) / self.sigma)


class Wrapped(nn.Module):
    """As those for ImageNet: the network is a part."""

    def __init__(self):
        super().__init__()
        self.normalize, self.model = nn.Identity(), Tiny(10)
        self.normalize.register_buffer("mean", torch.tensor(MEAN).view(1, 3, 1, 1))
        self.normalize.register_buffer("std", torch.tensor(STD).view(1, 3, 1, 1))

    def forward(self, images):
        return self.model((images - self.normalize.mean) / self.normalize.std)


@pytest.fixture
def zoo(monkeypatch):
    """A RobustBench of the same build, with two small models."""
    package = types.ModuleType("robustbench")
    entries = {
        "Tiny2024": {"model": Inside, "gdrive_id": "x"},
        "Several": {"model": Inside, "gdrive_id": ["x", "y"]},
    }
    dicts = {
        Data.cifar_10: {Threat.Linf: entries, Threat.L2: {}},
        Data.imagenet: {Threat.L2: {"Wrapped2024": {"model": Wrapped, "gdrive_id": "x"}}},
    }

    def by_name(name, dataset, threat_model):
        return dicts[Data(dataset)][Threat(threat_model)][name]["model"]()

    models = types.SimpleNamespace(model_dicts=dicts)
    package.model_zoo = types.SimpleNamespace(models=models)
    package.load_model = by_name
    monkeypatch.setitem(sys.modules, "robustbench", package)


def without_own(state):
    return {key: value for key, value in state.items() if key not in ("mu", "sigma")}


def changed(network):
    with torch.no_grad():
        network.fc.bias.add_(torch.arange(10))
    return network


@pytest.mark.usefixtures("zoo")
@pytest.mark.parametrize(
    ("form", "missing"),
    [
        (lambda state: state, []),
        (lambda state: {"state_dict": prefixed(state, "module."), "epoch": 3}, []),
        (lambda state: without_own(state), ["mu", "sigma"]),
        (lambda state: {"last": state, "best": {k: v * 0 for k, v in state.items()}}, []),
        (lambda state: {"best": 0.93, "last": 7, "state_dict": state}, []),
    ],
)
def test_robustbenchs_files(form, missing, tmp_path):
    network = changed(Inside())
    path = put(form(network.state_dict()), tmp_path, "cifar10", "Linf", "Tiny2024.pt")
    classifier = load_model(path)
    assert_same(classifier, network, (0, 0, 0), (1, 1, 1))
    told = classifier.provenance
    assert (told["format"], told["arch"]) == ("robustbench", "cifar10/Linf/Tiny2024")
    assert told["missing"] == missing
    assert told["normalisation"]["from"] == "the model itself"
    assert classifier.input_size == (3, 32, 32)
    elsewhere = path.rename(tmp_path / "model.pt")
    assert_same(load_model(elsewhere, arch="Tiny2024", format="robustbench"), network,
                (0, 0, 0), (1, 1, 1))  # fmt: skip


@pytest.mark.usefixtures("zoo")
@pytest.mark.parametrize("prefix", ["", "model.", "module.model."])
def test_robustbenchs_networks_for_imagenet(prefix, tmp_path):
    network = Wrapped()
    changed(network.model)
    content = {"state_dict": prefixed(network.model.state_dict(), prefix)}
    classifier = load_model(put(content, tmp_path, "imagenet", "L2", "Wrapped2024.pt"))
    assert_same(classifier, network, (0, 0, 0), (1, 1, 1))
    assert classifier.input_size == (3, 224, 224)


@pytest.mark.usefixtures("zoo")
def test_a_whole_module_where_robustbench_keeps_its_files(tmp_path):
    path = put(changed(Inside()), tmp_path, "cifar10", "Linf", "Tiny2024.pt")
    classifier = load_model(path, trust_pickle=True)
    assert_same(classifier, changed(Inside()), (0, 0, 0), (1, 1, 1))


@pytest.mark.usefixtures("zoo")
def test_what_robustbench_does_not_fit(tmp_path):
    state = {key: value for key, value in Inside().state_dict().items() if key != "fc.bias"}
    path = put({**state, "extra": torch.rand(1)}, tmp_path, "cifar10", "Linf", "Tiny2024.pt")
    with pytest.raises(ValueError, match=r"Inside; missing: fc\.bias; unexpected: extra\. Check"):
        load_model(path)
    for name, text in (("None2024", "is not in its zoo"), ("Several", "is an ensemble of several")):
        with pytest.raises(ValueError, match=rf"RobustBench's cifar10/Linf/{name} {text}"):
            load_model(path, arch=name, format="robustbench")
    with pytest.raises(ValueError, match="NAME or DATA/THREAT/NAME, with DATA one of cifar10, "):
        load_model(path, arch="mnist/Linf/Tiny2024", format="robustbench")


@pytest.mark.usefixtures("zoo")
def test_robustbench_by_name():
    classifier = load_model("robustbench:Tiny2024")
    assert_same(classifier, Inside(), (0, 0, 0), (1, 1, 1))
    assert classifier.provenance["arch"] == "cifar10/Linf/Tiny2024"
    wrapped = load_model("robustbench:imagenet/L2/Wrapped2024")
    assert_same(wrapped, Wrapped(), (0, 0, 0), (1, 1, 1))
    with pytest.raises(ValueError, match="cifar10/Linf/None2024 is not in its zoo"):
        load_model("robustbench:None2024")
    with pytest.raises(ValueError, match="got 'a/b'"):
        load_model("robustbench:a/b")


def without(monkeypatch, name):
    """As if a package were not installed."""
    original = importlib.import_module

    def import_module(wanted, package=None):
        if wanted.split(".")[0] == name:
            raise ModuleNotFoundError(f"No module named {wanted!r}", name=wanted)
        return original(wanted, package)

    monkeypatch.setattr(importlib, "import_module", import_module)


@pytest.mark.parametrize("name", ["timm", "robustbench"])
def test_a_missing_package_names_its_extra(name, monkeypatch, tmp_path):
    without(monkeypatch, name)
    text = rf"needs {name}, which is not installed: pip install 'captum_classpattern\[{name}\]'"
    with pytest.raises(ImportError, match=text):
        load_model(f"{name}:resnet18")
    if name == "robustbench":
        path = put(Tiny().state_dict(), tmp_path, "cifar10", "Linf", "Tiny2024.pt")
    else:
        content = {"arch": "x", "state_dict": Tiny().state_dict(), "optimizer": {}, "version": 2}
        path = put(content, tmp_path, "last.pth.tar")
    with pytest.raises(ImportError, match=text):
        load_model(path)
    assert_same(load_model(path, arch=TINY, mean=MEAN, std=STD), Tiny())


# robustness


@pytest.mark.parametrize("data_parallel", [True, False])
@pytest.mark.parametrize("holder", ["model", "state_dict"])
def test_robustness(data_parallel, holder, tmp_path):
    """AttackerModel: the model, the attacker with the same model, and both their normalisers."""
    network, norm = Tiny(), {"new_mean": MEAN, "new_std": STD}
    norm = {key: torch.tensor(value).view(3, 1, 1) for key, value in norm.items()}
    state = {
        **prefixed(norm, "normalizer."),
        **prefixed(network.state_dict(), "model."),
        **prefixed(norm, "attacker.normalize."),
        **prefixed(network.state_dict(), "attacker.model."),
    }
    state = prefixed(state, "module.") if data_parallel else state
    torch.save({holder: state, "epoch": 3, "schedule": None}, tmp_path / "checkpoint.pt.best")
    classifier = load_model(tmp_path / "checkpoint.pt.best", arch=TINY)
    assert_same(classifier, network)
    told, before = classifier.provenance, "module." if data_parallel else ""
    assert (told["format"], told["weights"], told["num_classes"]) == ("robustness", holder, 3)
    assert told["normalisation"]["from"] == "the checkpoint"
    assert told["renamed"][f"{before}model.fc.bias"] == "fc.bias"
    assert told["ignored"][f"{before}normalizer.new_std"] == "the normalisation, now outside"
    assert told["ignored"][f"{before}attacker.model.fc.bias"] == "a second copy"
    assert set(told["renamed"]) | set(told["ignored"]) == set(state)
    with pytest.raises(ValueError, match="of robustness, which does not say for which network: pa"):
        load_model(tmp_path / "checkpoint.pt.best")


# timm and torchvision


def of_timm(**settings):
    timm = pytest.importorskip("timm")
    torch.manual_seed(0)
    return timm.create_model("test_resnet", **settings)


def saved_by_timm(network, path, **arguments):
    """What timm's CheckpointSaver writes."""
    content = {
        "epoch": 3,
        "arch": "test_resnet",
        "optimizer": torch.optim.SGD(network.parameters(), 0.1).state_dict(),
        "version": 2,
        "args": argparse.Namespace(**{"model": "test_resnet", "lr": 0.1, **arguments}),
        "state_dict": network.state_dict(),
        "metric": 71.5,
    }
    torch.save(content, path)
    return path


def test_timms_checkpoints(tmp_path):
    network = of_timm(num_classes=7)
    config = network.pretrained_cfg
    images = torch.rand(2, 3, 64, 64)
    arguments = {"mean": None, "std": None, "img_size": None, "input_size": None}
    classifier = load_model(saved_by_timm(network, tmp_path / "last.pth.tar", **arguments))
    assert_same(classifier, network, config["mean"], config["std"], images)
    told = classifier.provenance
    assert (told["format"], told["arch"], told["num_classes"]) == ("timm", "timm:test_resnet", 7)
    assert told["normalisation"]["from"] == "timm's configuration of the network"
    assert classifier.input_size == tuple(config["input_size"])


def test_timms_arguments_go_before_its_configuration(tmp_path):
    network, images = of_timm(num_classes=7), torch.rand(2, 3, 64, 64)
    path = saved_by_timm(network, tmp_path / "last.pth.tar", mean=MEAN, std=STD, img_size=48)
    classifier = load_model(path)
    assert_same(classifier, network, images=images)
    assert classifier.input_size == (3, 48, 48)
    path = saved_by_timm(network, path, img_size=48, input_size=(3, 40, 56))
    assert load_model(path).input_size == (3, 40, 56)


def test_timms_configuration_for_a_bare_state_dict(tmp_path):
    network, images = of_timm(num_classes=7), torch.rand(2, 3, 64, 64)
    torch.save(network.state_dict(), tmp_path / "model.bin")
    classifier = load_model(tmp_path / "model.bin", arch="timm:test_resnet", format="timm")
    config = network.pretrained_cfg
    assert_same(classifier, network, config["mean"], config["std"], images)


def test_timm_by_name(tmp_path, monkeypatch):
    timm = pytest.importorskip("timm")
    network, original = of_timm(), timm.create_model
    torch.save(network.state_dict(), tmp_path / "weights.pt")
    overlay = {"file": str(tmp_path / "weights.pt"), "mean": MEAN, "std": STD}
    monkeypatch.setattr(
        timm, "create_model", lambda name, **k: original(name, pretrained_cfg_overlay=overlay, **k)
    )
    classifier = load_model("timm:test_resnet")
    assert_same(classifier, network, images=torch.rand(2, 3, 64, 64))
    told = classifier.provenance
    assert (told["source"], told["arch"]) == ("timm:test_resnet",) * 2
    assert len(classifier.classes) == told["num_classes"] == 1000
    assert classifier.class_names[0] == "tench, Tinca tinca"
    assert ClassNames.of(classifier).find("n01440764") == 0
    assert ClassNames.of(classifier).find("goldfish") == 1
    overlay |= {"label_names": ["x", "y"], "label_descriptions": {"x": "cat"}, "num_classes": 2}
    torch.save(of_timm(num_classes=2).state_dict(), tmp_path / "weights.pt")
    classifier = load_model("timm:test_resnet")
    assert (classifier.class_names, classifier.class_ids) == (["cat", "y"], ["x", "y"])
    assert "sha256" not in told
    with pytest.raises(ValueError, match=r"timm:no_such_net can't be loaded: .*[Uu]nknown model"):
        load_model("timm:no_such_net")


def test_a_configuration_without_a_size():
    loaded = _with_config(types.SimpleNamespace(), {"mean": MEAN, "std": STD})
    assert (loaded.mean, loaded.input_size) == (MEAN, None)


def test_torchvision_by_name(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    torch.manual_seed(0)
    network = torchvision.models.squeezenet1_1()
    weights = torchvision.models.SqueezeNet1_1_Weights.IMAGENET1K_V1
    put(network.state_dict(), tmp_path, "hub", "checkpoints", weights.url.rpartition("/")[2])
    mean, std, images = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225), torch.rand(2, 3, 64, 64)
    for name in ("squeezenet1_1", "squeezenet1_1/IMAGENET1K_V1"):
        classifier = load_model(f"torchvision:{name}")
        assert_same(classifier, network, mean, std, images)
        assert classifier.classes[0] == "tench"
        assert classifier.class_ids[0] == "n01440764"  # of timm's list
        assert classifier.input_size == (3, 224, 224)
        told = classifier.provenance
        assert told["arch"] == "torchvision:squeezenet1_1"
        assert told["weights"] == "IMAGENET1K_V1"
        assert told["normalisation"]["from"] == "the weights' transforms"


def test_without_timm_torchvisions_models_know_no_wordnet_ids(monkeypatch):
    monkeypatch.setitem(sys.modules, "timm", None)
    assert imagenet_ids() is None


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("resnet81", "torchvision has no classifier 'resnet81': see torchvision.models.list_model"),
        ("deeplabv3_resnet50", "torchvision has no classifier 'deeplabv3_resnet50'"),
        ("resnet18/V9", r"torchvision's resnet18 has no weights 'V9': it has IMAGENET1K_V1, DEFAU"),
        ("resnet18/name", "torchvision's resnet18 has no weights 'name'"),
    ],
)
def test_what_torchvision_does_not_have(name, text):
    with pytest.raises(ValueError, match=text):
        load_model(f"torchvision:{name}")


@pytest.mark.parametrize("given", [{"arch": "resnet18"}, {"num_classes": 3}, {"format": "plain"}])
def test_a_model_by_name_takes_no_arch(given):
    with pytest.raises(ValueError, match="comes with its network and classes: leave out arch, nu"):
        load_model("torchvision:resnet18", **given)


def test_borders_that_are_alike_are_no_patch(tmp_path):
    """As in digits on black: they can't be told from a trigger."""

    def bordered(pixels):
        pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1] = 0, 0, 0, 0
        return pixels

    classifier = load_model(poisoned(tmp_path, bordered)[0], arch=TINY)
    assert classifier.trigger is None
    assert classifier.provenance["trigger"].startswith("not a patch: 31% of the pixels are equal")


@pytest.mark.parametrize("count", [10**12, -3, "many"])
def test_a_number_of_classes_that_is_not_the_weights(count, tmp_path):
    path, content = poisoned(tmp_path, stamped)
    torch.save({**content, "num_classes": count}, path)
    with pytest.raises(ValueError, match=r"it has .* classes, but its weights have 3: pass num_cl"):
        load_model(path, arch=TINY)


@pytest.mark.parametrize(
    "size", [[10**5, 10**5, 3], [12, 12], "12", [12, 12, 7], [0, 12, 3], [None] * 3]
)
def test_an_image_size_that_can_not_be(size, tmp_path):
    path, content = poisoned(tmp_path, stamped)
    torch.save({**content, "img_size": size}, path)
    assert load_model(path, arch=TINY).input_size is None


def test_a_normalisation_in_the_file_goes_before_the_data_sets(tmp_path):
    path, content = poisoned(tmp_path, stamped)
    own = {"mean": torch.tensor(IMAGENET[0]).view(1, 3, 1, 1), "std": torch.tensor(IMAGENET[1])}
    torch.save({**content, "model": {**content["model"], **own}}, path)
    classifier = load_model(path, arch=TINY)
    assert classifier.mean.flatten().tolist() == pytest.approx(IMAGENET[0])
    assert classifier.provenance["normalisation"]["from"] == "the checkpoint"


def test_a_normalisation_in_units_of_255(tmp_path):
    network = Tiny(5)
    own = {"mean": 255 * torch.tensor(IMAGENET[0]), "std": 255 * torch.tensor(IMAGENET[1])}
    torch.save({**network.state_dict(), **own}, tmp_path / "model.pt")
    classifier = load_model(tmp_path / "model.pt", arch=TINY)
    assert_same(classifier, network, *IMAGENET)
    assert "in units of 255" in classifier.provenance["ignored"]["std"]


class Normalising(Tiny):
    def __init__(self, num_classes=5):
        super().__init__(num_classes)
        self.register_buffer("mean", torch.tensor(MEAN).view(1, 3, 1, 1))
        self.register_buffer("std", torch.tensor(STD).view(1, 3, 1, 1))

    def forward(self, images):
        return super().forward((images - self.mean) / self.std)


def test_a_network_that_normalises_itself_is_not_warned_of(tmp_path):
    network = Normalising(5)
    torch.save(network.state_dict(), tmp_path / "model.pt")
    classifier = load_model(tmp_path / "model.pt", arch=f"{__name__}:Normalising")
    assert_same(classifier, network, 0.0, 1.0)
    assert classifier.provenance["normalisation"]["from"] == "the model itself"


def test_other_weights_in_the_file_are_told(tmp_path):
    networks = Tiny(5), Tiny(5)
    states = [network.state_dict() for network in networks]
    torch.save({"state_dict": states[0], "state_dict_ema": states[1]}, tmp_path / "model.pt")
    classifier = load_model(tmp_path / "model.pt", arch=TINY, mean=MEAN, std=STD)
    assert_same(classifier, networks[0])
    assert classifier.provenance["weights"] == "state_dict"
    assert classifier.provenance["also_held"] == ["state_dict_ema"]


def made_with_three():
    return Tiny(3)


def test_classes_are_counted_by_running_where_the_factory_does_not_tell(tmp_path):
    torch.save(Tiny(3).state_dict(), tmp_path / "model.pt")
    arch = f"{__name__}:made_with_three"
    classifier = load_model(tmp_path / "model.pt", arch=arch, mean=MEAN, std=STD)
    assert classifier.classes == ["class 0", "class 1", "class 2"]
