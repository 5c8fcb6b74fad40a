"""load_model: each checkpoint gives the original network's logits, and says how."""

import hashlib
import sys
from functools import partial

import pytest
import torch
import torchvision
from checkpoints import (
    IMAGES,
    MEAN,
    STD,
    TINY,
    UNCHANGED,
    Normalising,
    Tiny,
    assert_same,
    prefixed,
    put,
    said,
    without,
)
from refusals import refusal, refusals, warnings_of

from captum_classpattern.adapters import load_model

PIXELS = {"mean": MEAN, "std": STD}


class Twice(Tiny):
    """Features and logits, as in many a published small model."""

    def forward(self, images):
        return images, super().forward(images)


def of_three_classes():
    return Tiny(3)


def here(name):
    return f"{__name__}:{name}"


@pytest.fixture
def path(tmp_path, monkeypatch):
    """The file model.pt in the working directory, with a small network of three classes."""
    monkeypatch.chdir(tmp_path)
    return put(Tiny().state_dict(), tmp_path, "model.pt")


@pytest.mark.parametrize("prefix", ["", "module.", "_orig_mod.", "1."])
@pytest.mark.parametrize(
    ("holder", "name"),
    [(None, "model.pt"), ("state_dict", "checkpoint.tar"), ("net", "net.pth"), ("model", "m.th")],
)
def test_plain_checkpoints(prefix, holder, name, tmp_path):
    path, network = tmp_path / name, Tiny(5)
    state = prefixed(network.state_dict(), prefix)
    optimizer = torch.optim.SGD(network.parameters(), 0.1, momentum=0.9).state_dict()
    content = state if holder is None else {"epoch": 3, "optimizer": optimizer, holder: state}
    torch.save(content, path, _use_new_zipfile_serialization=not name.endswith("tar"))
    classifier = load_model(path, arch=TINY, **PIXELS)
    assert_same(classifier, network)
    assert classifier.provenance == {
        "format": "plain",
        "source": str(path),
        "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
        "opened": "weights_only",
        "weights": holder or "",
        "arch": TINY,
        "num_classes": 5,
        "renamed": {prefix + key: key for key in network.state_dict()} if prefix else {},
        "ignored": {},
        "missing": [],
        "normalisation": {"mean": MEAN, "std": STD, "from": "the caller"},
    }
    assert classifier.classes == [f"class {number}" for number in range(5)]
    assert (classifier.input_size, classifier.trigger) == (None, None)


def test_output_picks_the_logits(path):
    assert_same(load_model(path, arch=here("Twice"), output=-1, **PIXELS), Tiny())
    with pytest.raises(ValueError, match="`output=5` does not pick the logits"):
        load_model(path, arch=here("Twice"), output=5, **PIXELS)(IMAGES)


@pytest.mark.parametrize(
    ("given", "mean", "std", "source"),
    [
        ({}, MEAN, STD, "the checkpoint"),
        ({"mean": 0.25, "std": 0.5}, (0.25,) * 3, (0.5,) * 3, "the caller"),
    ],
)
def test_the_normalisation_is_the_callers_or_else_the_checkpoints(given, mean, std, source, path):
    inside = {"normalize.mean": torch.tensor(MEAN), "normalize.std": torch.tensor(STD)}
    torch.save({**inside, **prefixed(Tiny().state_dict(), "model.")}, path)
    classifier = load_model(path, arch=TINY, **given)
    assert_same(classifier, Tiny(), mean, std)
    assert classifier.provenance["normalisation"]["from"] == source
    outside = "the normalisation, now outside"
    assert classifier.provenance["ignored"] == dict.fromkeys(inside, outside)


def test_a_network_that_normalises_itself_gives_no_warning(path):
    torch.save(Normalising(5).state_dict(), path)
    classifier = load_model(path, arch="checkpoints:Normalising")
    assert_same(classifier, Normalising(5), *UNCHANGED)
    assert classifier.provenance["normalisation"]["from"] == "the model itself"


def test_an_unknown_normalisation_gives_a_warning(path, snapshot):
    assert warnings_of(lambda: load_model("model.pt", arch=TINY)) == snapshot
    with pytest.warns(UserWarning, match="normalised") as caught:
        classifier = load_model(path, arch=TINY)
    assert [warning.filename for warning in caught] == [__file__]
    assert classifier.provenance["normalisation"]["from"] == "nothing: pixels are used unchanged"
    assert_same(classifier, Tiny(), 0.0, 1.0)
    assert_same(load_model(path, arch=TINY, mean=0, std=1), Tiny(), 0.0, 1.0)  # and no warning


USUAL = ["class 0", "class 1", "class 2"]


@pytest.mark.parametrize(
    ("held", "given", "names"),
    [
        ({"class_to_idx": {"dog": 1, "cat": 2, "eel": 0}}, None, ["eel", "dog", "cat"]),
        ({"classes": ["a", "b", "c"]}, None, ["a", "b", "c"]),
        ({"class_names": ("a", "b", "c")}, None, ["a", "b", "c"]),
        ({"classes": ["a", "b", "c"]}, ("cat", "dog", "eel"), ["cat", "dog", "eel"]),
        ({"classes": ["a", "b"]}, None, USUAL),  # not of this network
        ({"class_to_idx": {str(n): n for n in range(9)}}, None, USUAL),
        ({"classes": 3}, None, USUAL),
        ({"classes": [1, 2, 3]}, None, USUAL),
    ],
)
def test_class_names(held, given, names, path):
    torch.save({"net": Tiny().state_dict(), **held}, path)
    classifier = load_model(path, arch=TINY, **PIXELS, class_names=given)
    assert classifier.classes == classifier.class_names == names


def test_the_file_names_its_network(path, snapshot):
    network = torchvision.models.squeezenet1_1(num_classes=3)
    others = {"state_dict_ema": Tiny(5).state_dict()}
    torch.save({"arch": "squeezenet1_1", "net": network.state_dict(), **others}, path)
    classifier = load_model(path, **PIXELS)
    assert_same(classifier, network, images=torch.rand(2, 3, 40, 40))
    assert said(classifier) == snapshot


@pytest.mark.parametrize(
    "content",
    [
        {"arch": "dangerous:run", "state_dict": {"a": torch.rand(2, 2)}},
        {"arch": "dangerous:run", "state_dict": {"a": torch.eye(2)}, "optimizer": 1, "version": 2},
        {"model_name": "dangerous:run", "num_classes": 3, "model": {"a": torch.rand(2, 2)}},
    ],
)
def test_a_file_cannot_choose_what_is_called(content, path, monkeypatch):
    """Otherwise a file could call any function of any installed package."""
    made = path.parent / "made"
    (path.parent / "dangerous.py").write_text(
        f"import pathlib\ndef run():\n    pathlib.Path({str(made)!r}).touch()\n"
    )
    monkeypatch.syspath_prepend(path.parent)
    sys.modules.pop("dangerous", None)
    torch.save(content, path)
    with pytest.raises(ValueError, match=r"its network is '(timm:)?dangerous:run'; a file may not"):
        load_model(path)
    assert not made.exists()
    assert "dangerous" not in sys.modules
    with pytest.raises(TypeError, match="must make a torch"):  # it is one, if the caller says so
        load_model(path, arch="dangerous:run", num_classes=3)
    assert made.exists()


def test_a_network_may_be_given_by_its_class_a_function_or_itself(path):
    own = Tiny()
    torch.nn.init.zeros_(own.fc.weight)
    for arch, name in (
        (Tiny, "checkpoints:Tiny"),
        (of_three_classes, here("of_three_classes")),
        (own, "checkpoints:Tiny"),
    ):
        classifier = load_model(path, arch=arch, **PIXELS)
        assert_same(classifier, Tiny())
        assert classifier.provenance["arch"] == name
        assert type(classifier.provenance["arch"]) is str
    assert not own.fc.weight.any()  # the caller's stays as it is


plain, tiny = partial(load_model, "model.pt"), partial(load_model, "model.pt", arch=TINY)
REFUSALS = {
    "no network": plain,
    "another format": lambda: plain(format="keras"),
    "the layout of backdoorbench": lambda: plain(format="backdoorbench"),
    "timm without a network": lambda: plain(format="timm"),
    "robustbench without a name": lambda: plain(format="robustbench"),
    "another number of classes": lambda: tiny(num_classes=7, **PIXELS),
    "a mean in units of 255": lambda: tiny(mean=120, std=1),
    "a mean alone": lambda: tiny(mean=0.5),
    "too few names": lambda: tiny(**PIXELS, class_names=["cat", "dog"]),
    "a network instead of a file": lambda: load_model("resnet18"),
    "a missing file": lambda: load_model("missing.pt"),
    "a number as a network": lambda: plain(arch=5),
    "a pretrained model and a network": lambda: load_model("timm:resnet18", arch="resnet18"),
    "a pretrained model and a format": lambda: load_model("torchvision:resnet18", format="plain"),
}


@pytest.mark.usefixtures("path")
def test_refusals(snapshot):
    assert refusals(REFUSALS) == snapshot


@pytest.mark.parametrize("name", ["timm", "robustbench"])
def test_a_missing_package_names_its_extra(name, monkeypatch, tmp_path):
    without(monkeypatch, name)
    content = {"arch": "x", "state_dict": Tiny().state_dict(), "optimizer": {}, "version": 2}
    path = put(content, tmp_path, "last.pth.tar")
    if name == "robustbench":
        path = put(Tiny().state_dict(), tmp_path, "cifar10", "Linf", "Tiny2024.pt")
    text = f"needs {name}, which is not installed: pip install 'captum_classpattern[{name}]'"
    for source in (f"{name}:resnet18", path):
        assert text in refusal(lambda source=source: load_model(source))
    assert_same(load_model(path, arch=TINY, **PIXELS), Tiny())
