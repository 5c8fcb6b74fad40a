"""Folders of Hugging Face's transformers and of timm, written with random weights and read back."""

import json
import shutil

import numpy as np
import pytest
import torch
from PIL import Image
from refusals import refusals
from safetensors.torch import load_file, save_file

from captum_classpattern import ClassPattern, explain_class, load_model
from captum_classpattern.adapters.formats import PRETRAINED

transformers = pytest.importorskip("transformers")
timm = pytest.importorskip("timm")

NAMES = ["ant", "bee", "cat", "dog"]
LABELS = {"id2label": dict(enumerate(NAMES)), "label2id": {n: i for i, n in enumerate(NAMES)}}
SMALL = {"image_size": 32, "patch_size": 4, "num_channels": 3, **LABELS}
SQUARE = {"height": 32, "width": 32}


def vit(**settings):
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    config = transformers.ViTConfig(**sizes, intermediate_size=37, **{**SMALL, **settings})
    return transformers.ViTForImageClassification(config)


def convnext():
    sizes = {"hidden_sizes": [8, 16, 16, 16], "depths": [1, 1, 1, 1]}
    config = transformers.ConvNextConfig(**sizes, **LABELS)
    return transformers.ConvNextForImageClassification(config)


def swin():
    sizes = {"embed_dim": 8, "depths": [1, 1], "num_heads": [2, 2], "window_size": 4}
    return transformers.SwinForImageClassification(transformers.SwinConfig(**sizes, **SMALL))


def resnet():
    sizes = {"embedding_size": 8, "hidden_sizes": [8, 16], "depths": [1, 1], "layer_type": "basic"}
    return transformers.ResNetForImageClassification(transformers.ResNetConfig(**sizes, **LABELS))


def mobilenet():
    names = dict(enumerate(["background", *NAMES]))
    config = transformers.MobileNetV2Config(image_size=32, depth_multiplier=0.35, id2label=names)
    return transformers.MobileNetV2ForImageClassification(config)


NETWORKS = {  # a network, its processor, and what of this changes images that have the size already
    "ViT": (vit, transformers.ViTImageProcessor(size=SQUARE), {}),
    "ConvNeXt, cropped": (
        convnext,
        transformers.ConvNextImageProcessor(size={"shortest_edge": 32}, crop_pct=0.875),
        {"do_resize": False},
    ),
    "Swin, not normalised": (
        swin,
        transformers.ViTImageProcessor(size=SQUARE, do_normalize=False),
        {},
    ),
    "ResNet, scaled to -1 and 1": (
        resnet,
        transformers.ViTImageProcessor(
            size=SQUARE, rescale_factor=1 / 127.5, image_mean=[1.0] * 3, image_std=[0.8, 1.0, 1.2]
        ),
        {},
    ),
    "MobileNetV2, cropped": (
        mobilenet,
        transformers.MobileNetV2ImageProcessor(size={"shortest_edge": 36}, crop_size=SQUARE),
        {"do_resize": False},
    ),
    "as EfficientNet, divided twice": (
        resnet,
        transformers.EfficientNetImageProcessor(size=SQUARE, image_std=[0.4, 0.5, 0.6]),
        {},
    ),
    "as EfficientNet, scaled and shifted": (
        resnet,
        transformers.EfficientNetImageProcessor(
            size=SQUARE, rescale_factor=1 / 127.5, rescale_offset=True, do_normalize=False
        ),
        {},
    ),
}


def saved(folder, make=vit, processor=NETWORKS["ViT"][1], **settings):
    """A folder as ``save_pretrained`` writes it, and the network."""
    torch.manual_seed(0)
    network = make(**settings).eval()
    network.save_pretrained(folder)
    if processor is not None:
        processor.save_pretrained(folder)
    return network


@pytest.mark.filterwarnings("ignore:class 0 of")
@pytest.mark.parametrize("name", NETWORKS)
def test_a_folder_gives_the_logits_that_its_own_processor_leads_to(tmp_path, name):
    make, processor, unchanged = NETWORKS[name]
    network, classifier = saved(tmp_path, make, processor), load_model(tmp_path)
    pixels = np.random.default_rng(0).integers(0, 256, (3, 32, 32, 3), np.uint8)
    given = [Image.fromarray(each) for each in pixels]
    with torch.no_grad():
        inputs = processor(images=given, return_tensors="pt", **unchanged)
        expected = network(**inputs).logits
        images = torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 255
        torch.testing.assert_close(classifier(images), expected, atol=1e-5, rtol=0)
    assert classifier.class_names == [*network.config.id2label.values()]
    assert classifier.input_size == (3, 32, 32)
    assert classifier.provenance["opened"] == "safetensors"
    assert not any(part.training for part in classifier.modules())


@pytest.mark.parametrize("names", [None, NAMES])
def test_a_folder_of_timm_gives_its_logits(tmp_path, names):
    torch.manual_seed(0)
    network = timm.create_model("resnet10t", num_classes=4).eval()
    config = {"label_names": names} if names else {}
    timm.models.save_for_hf(network, tmp_path, config, safe_serialization=True)
    classifier, images = load_model(tmp_path), torch.rand(2, 3, 64, 64)
    mean, std = (
        torch.tensor(network.pretrained_cfg[of]).view(1, 3, 1, 1) for of in ("mean", "std")
    )
    with torch.no_grad():
        torch.testing.assert_close(classifier(images), network((images - mean) / std))
    assert classifier.class_names == (names or [f"class {i}" for i in range(4)])
    assert classifier.input_size == tuple(network.pretrained_cfg["input_size"])


def test_networks_without_names_and_those_with_a_background(tmp_path):
    saved(tmp_path / "unnamed", id2label={0: "LABEL_0", 1: "LABEL_1"})
    assert load_model(tmp_path / "unnamed").class_names == ["class 0", "class 1"]
    saved(tmp_path / "background", mobilenet, NETWORKS["MobileNetV2, cropped"][1])
    with pytest.warns(UserWarning, match="class 0 of .* is 'background', so classes by number"):
        load_model(tmp_path / "background")


def test_a_network_in_python_needs_its_mean_and_std_alone(tmp_path):
    network, images = saved(tmp_path), torch.rand(80, 3, 32, 32)
    labels = torch.arange(80) % 4
    found = explain_class(network, images, labels, "bee", mean=0.5, std=0.5, n_steps=2)
    from_folder = explain_class(load_model(tmp_path), images, labels, "bee", n_steps=2)
    assert (found.label, found.target) == ("bee", 1)
    assert torch.equal(found.pattern.canvas, from_folder.pattern.canvas)
    assert found.power == from_folder.power
    explainer = ClassPattern(network, images, labels, check_accuracy=False)
    [pattern] = explainer.search(images[:1], "cat", n_steps=2)
    assert pattern.target == 2


def test_mean_and_std_of_the_caller_come_first(tmp_path):
    saved(tmp_path, processor=None)
    classifier = load_model(tmp_path, mean=0.25, std=0.5)
    assert (classifier.mean.item(), classifier.std.item()) == (0.25, 0.5)
    assert classifier.provenance["normalisation"]["from"] == "the caller"


def test_the_hub_is_asked_for_settings_and_safetensors_alone(tmp_path, monkeypatch):
    saved(tmp_path)
    asked = {}

    def snapshot_download(name, **options):
        asked.update(options, name=name)
        return str(tmp_path)

    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot_download)
    classifier = load_model("huggingface:owner/net@v2")
    assert (asked["name"], asked["revision"]) == ("owner/net", "v2")
    assert not [each for each in asked["allow_patterns"] if not each.endswith(("json", "tensors"))]
    assert (classifier.class_names, classifier.provenance["format"]) == (NAMES, "huggingface")


# ---- what is refused


def edited(folder, file="config.json", **changes):
    """A folder whose settings were changed; None takes one away."""
    saved(folder)
    path = folder / file
    values = {**json.loads(path.read_text()), **changes}
    path.write_text(json.dumps({key: each for key, each in values.items() if each is not None}))
    return folder


def without_weights(folder, name):
    saved(folder)
    weights = load_file(folder / "model.safetensors")
    kept = {key: each for key, each in weights.items() if not key.startswith(name)}
    save_file(kept, folder / "model.safetensors", {"format": "pt"})
    return folder


def pickled(folder):
    network = saved(folder)
    (folder / "model.safetensors").unlink()
    torch.save(network.state_dict(), folder / "pytorch_model.bin")
    return folder


def linked(folder, tmp_path):
    saved(folder)
    target = tmp_path / "elsewhere.safetensors"
    shutil.move(folder / "model.safetensors", target)
    (folder / "model.safetensors").symlink_to(target)
    return folder


def of_timm(folder, **config):
    network = timm.create_model("resnet10t", num_classes=4)
    timm.models.save_for_hf(network, folder, safe_serialization=True)
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **config}))
    return folder


CODE = {"AutoModelForImageClassification": "evil.Net"}
FOLDERS = {
    "a detector": lambda f: edited(f, model_type="detr", architectures=["DetrForObjectDetection"]),
    "a text model": lambda f: edited(f, model_type="bert", architectures=["BertModel"]),
    "a network without its classifier": lambda f: edited(f, architectures=["ViTModel"]),
    "no image processor": lambda f: (saved(f, processor=None), f)[1],
    "code of its author": lambda f: edited(f, model_type="mine", auto_map=CODE),
    "weights that are missing": lambda f: without_weights(f, "classifier"),
    "weights of another size": lambda f: edited(f, hidden_size=64),
    "pickled weights": pickled,
    "a config that is a list": lambda f: (saved(f), (f / "config.json").write_text("[]"), f)[2],
    "a config of huge numbers": lambda f: edited(f, hidden_size=10**9),
    "a config of many layers": lambda f: edited(f, num_hidden_layers=10**5),
    "a config of large layers": lambda f: edited(f, intermediate_size=10**6),
    "names that are a number": lambda f: edited(f, id2label=7),
    "a processor of texts": lambda f: edited(f, "preprocessor_config.json", image_std="wide"),
    "a processor of zeros": lambda f: edited(f, "preprocessor_config.json", rescale_factor=0),
    "timm, a file to load": lambda f: of_timm(f, model_args={"checkpoint_path": "evil.pt"}),
    "timm, a function to call": lambda f: of_timm(f, architecture="os:system"),
    "timm, no such network": lambda f: of_timm(f, architecture="resnet_of_mine"),
}


def opened(folder, tmp_path, **options):
    """The error about a folder, without its place."""
    try:
        load_model(folder, **options)
    except Exception as error:
        raise type(error)(str(error).replace(str(tmp_path), "").partition("\n\n")[0]) from error


def test_folders_that_are_refused(tmp_path, snapshot, monkeypatch):
    folders = {name: tmp_path / str(number) for number, name in enumerate(FOLDERS)}
    calls = {
        name: lambda name=name: opened(FOLDERS[name](folders[name]), tmp_path) for name in FOLDERS
    }
    calls["a link out of the folder"] = lambda: opened(linked(tmp_path / "l", tmp_path), tmp_path)
    calls["an `arch` beside"] = lambda: opened(tmp_path / "l", tmp_path, arch="resnet18")
    monkeypatch.setattr("os.system", lambda _: pytest.fail("a folder ran something"))
    assert refusals(calls) == snapshot


def test_pickled_weights_are_read_if_the_folder_is_trusted(tmp_path):
    pickled(tmp_path)
    assert load_model(tmp_path, trust_pickle=True).provenance["opened"] == "pickle"


def test_names_that_the_hub_does_not_give(monkeypatch, snapshot):
    from huggingface_hub import errors

    def failing(error):
        def snapshot_download(*_, **__):
            raise error

        monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot_download)
        PRETRAINED["huggingface"]("owner/net")

    response = type("Response", (), {"headers": {}, "request": None, "status_code": 403})()
    kinds = {
        "gated": errors.GatedRepoError("Access is restricted", response=response),
        "missing": errors.RepositoryNotFoundError("404 Client Error", response=response),
        "no network": errors.LocalEntryNotFoundError("No connection"),
    }
    assert (
        refusals({name: lambda error=error: failing(error) for name, error in kinds.items()})
        == snapshot
    )
