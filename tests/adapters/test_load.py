"""load_model: each checkpoint gives the original network's logits, and says how."""

import hashlib
import sys
import warnings

import pytest
import torch
import torchvision
from checkpoints import IMAGENET, IMAGES, MEAN, STD, TINY, Tiny, assert_same, prefixed, put, without
from safetensors.torch import save_file

from captum_classpattern.adapters import load_model


class Twice(Tiny):
    """Features and logits, as in many a published small model."""

    def forward(self, images):
        return images, super().forward(images)


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
    with pytest.raises(ValueError, match="`output=5` does not pick the logits"):
        load_model(tmp_path / "model.pt", output=5, **settings)(IMAGES)


def test_normalisation_inside_comes_from_the_checkpoint(tmp_path):
    inside = {"normalize.mean": torch.tensor(MEAN), "normalize.std": torch.tensor(STD)}
    torch.save({**inside, **prefixed(Tiny().state_dict(), "model.")}, tmp_path / "model.pt")
    classifier = load_model(tmp_path / "model.pt", arch=TINY)
    assert_same(classifier, Tiny())
    provenance = classifier.provenance
    assert provenance["normalisation"]["from"] == "the checkpoint"
    assert provenance["normalisation"]["mean"] == pytest.approx(MEAN)
    assert provenance["ignored"] == dict.fromkeys(inside, "the normalisation, now outside")


@pytest.mark.parametrize(
    ("given", "mean", "std", "source"),
    [
        ({"mean": 0.25, "std": 0.5}, (0.25,) * 3, (0.5,) * 3, "the caller"),
        ({"mean": 0.25}, (0.25,) * 3, STD, "the caller, std by the checkpoint"),
        ({"std": 0.5}, MEAN, (0.5,) * 3, "the caller, mean by the checkpoint"),
    ],
)
def test_the_caller_takes_precedence_over_the_checkpoint(given, mean, std, source, tmp_path):
    inside = {"mean": torch.tensor(MEAN), "std": torch.tensor(STD)}
    torch.save({**inside, **Tiny().state_dict()}, tmp_path / "model.pt")
    classifier = load_model(tmp_path / "model.pt", arch=TINY, **given)
    assert_same(classifier, Tiny(), mean, std)
    assert classifier.provenance["normalisation"]["from"] == source


def test_an_unknown_normalisation_gives_a_warning(tmp_path):
    path = tmp_path / "model.pt"
    torch.save(Tiny().state_dict(), path)
    text = (
        r"model\.pt does not say how its pixels were normalised, so they are used unchanged, in "
        r"\[0, 1\]: pass the `mean` and `std` .* \(`mean=0` and `std=1` if it was trained with"
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


def test_class_names_from_the_caller(tmp_path):
    torch.save({"net": Tiny().state_dict(), "classes": ["a", "b", "c"]}, tmp_path / "model.pt")
    settings = {"arch": TINY, "mean": 0, "std": 1}
    classifier = load_model(tmp_path / "model.pt", **settings, class_names=("cat", "dog", "eel"))
    assert classifier.class_names == ["cat", "dog", "eel"]
    with pytest.raises(ValueError, match="2 class names were given, but the model has 3 classes"):
        load_model(tmp_path / "model.pt", **settings, class_names=["cat", "dog"])
    with pytest.raises(TypeError, match="`class_names` must be a list of names"):
        load_model(tmp_path / "model.pt", **settings, class_names="cat")


def test_a_network_that_the_file_names(tmp_path):
    network = torchvision.models.squeezenet1_1(num_classes=3)
    torch.save({"arch": "squeezenet1_1", "net": network.state_dict()}, tmp_path / "model.pt")
    classifier = load_model(tmp_path / "model.pt", mean=MEAN, std=STD)
    assert_same(classifier, network, images=torch.rand(2, 3, 40, 40))
    assert classifier.provenance["arch"] == "squeezenet1_1"


def test_an_unknown_network_is_an_error(tmp_path):
    torch.save({"net": Tiny().state_dict()}, tmp_path / "model.pt")
    text = (
        r"model\.pt has weights, but does not say for which network: pass `arch`, the network: .* "
        r"Its first weights are conv\.weight \(4, 3, 3, 3\), its last fc\.weight \(3, 4\)"
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
def test_a_file_cannot_choose_what_is_called(content, tmp_path, monkeypatch):
    """Otherwise a file could call any function of any installed package."""
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
        ({"format": "keras"}, ValueError, "`format` must be one of .*trojanzoo.*, got 'keras'"),
        (
            {"format": "backdoorbench"},
            ValueError,
            "m.pt does not have the layout of backdoorbench",
        ),
        ({"format": "trojanzoo"}, ValueError, "not have the layout of trojanzoo"),
        ({"format": "robustness"}, ValueError, "not have the layout of robustness"),
        ({"format": "timm"}, ValueError, "has weights, but does not say for which network"),
        (
            {"format": "robustbench"},
            ValueError,
            "m.pt: pass `arch`, the model's name in RobustBench",
        ),
        (
            {"arch": TINY, "num_classes": 7},
            ValueError,
            "m.pt does not fit into Tiny; weights of another shape: 2 ",
        ),
        (
            {"arch": "resnet18"},
            ValueError,
            "does not fit into ResNet; weights missing: 1.. .conv1.weight, ",
        ),
        (
            {"arch": TINY, "mean": 120, "std": 1},
            ValueError,
            "`mean` must be in units .* divide it by 255",
        ),
    ],
)
def test_wrong_settings(settings, error, text, tmp_path):
    torch.save(Tiny().state_dict(), tmp_path / "m.pt")
    with pytest.raises(error, match=text):
        load_model(tmp_path / "m.pt", **settings)


def test_a_mean_without_a_deviation_is_an_error(tmp_path):
    torch.save(Tiny().state_dict(), tmp_path / "m.pt")
    for given, missing in (("mean", "std"), ("std", "mean")):
        text = f"`{given}` is given, but not `{missing}`, which the source does not say either"
        with pytest.raises(ValueError, match=text):
            load_model(tmp_path / "m.pt", arch=TINY, **{given: 0.5})


def test_a_networks_name_instead_of_a_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(FileNotFoundError, match="pretrained network, give torchvision:resnet18"):
        load_model("resnet18")
    with pytest.raises(FileNotFoundError, match=r"there is no checkpoint file at missing\.pt$"):
        load_model("missing.pt")


@pytest.mark.parametrize("name", ["torchvision:resnet18", "timm:resnet18"])
def test_a_file_takes_precedence_over_a_pretrained_model(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.save(Tiny().state_dict(), name)
    assert_same(load_model(name, arch=TINY, mean=MEAN, std=STD), Tiny())


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


@pytest.mark.parametrize("given", [{"arch": "resnet18"}, {"num_classes": 3}, {"format": "plain"}])
def test_a_pretrained_model_takes_no_arch(given):
    with pytest.raises(ValueError, match="comes with its network and classes: leave out `arch`, "):
        load_model("torchvision:resnet18", **given)


def test_a_normalisation_in_units_of_255(tmp_path):
    network = Tiny(5)
    normalisation = {
        "mean": 255 * torch.tensor(IMAGENET[0]),
        "std": 255 * torch.tensor(IMAGENET[1]),
    }
    torch.save({**network.state_dict(), **normalisation}, tmp_path / "model.pt")
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


def test_a_network_that_normalises_itself_gives_no_warning(tmp_path):
    network = Normalising(5)
    torch.save(network.state_dict(), tmp_path / "model.pt")
    classifier = load_model(tmp_path / "model.pt", arch=f"{__name__}:Normalising")
    assert_same(classifier, network, 0.0, 1.0)
    assert classifier.provenance["normalisation"]["from"] == "the model itself"


def test_other_weights_in_the_file_are_listed(tmp_path):
    networks = Tiny(5), Tiny(5)
    states = [network.state_dict() for network in networks]
    torch.save({"state_dict": states[0], "state_dict_ema": states[1]}, tmp_path / "model.pt")
    classifier = load_model(tmp_path / "model.pt", arch=TINY, mean=MEAN, std=STD)
    assert_same(classifier, networks[0])
    assert classifier.provenance["weights"] == "state_dict"
    assert classifier.provenance["also_held"] == ["state_dict_ema"]


def made_with_three():
    return Tiny(3)


def test_classes_are_counted_by_running_the_network_if_need_be(tmp_path):
    torch.save(Tiny(3).state_dict(), tmp_path / "model.pt")
    arch = f"{__name__}:made_with_three"
    classifier = load_model(tmp_path / "model.pt", arch=arch, mean=MEAN, std=STD)
    assert classifier.classes == ["class 0", "class 1", "class 2"]
