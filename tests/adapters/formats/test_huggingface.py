"""Folders of Hugging Face's transformers and of timm, written with random weights and read back."""

import hashlib
import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from refusals import refusals
from safetensors.torch import load_file, save_file

from captum_classpattern import ClassPattern, explain_class, load_model
from captum_classpattern.classifier.class_names import ClassNames

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


def mobilevit():
    sizes = {"hidden_sizes": [8, 8, 8], "neck_hidden_sizes": [8] * 7, "num_attention_heads": 2}
    config = transformers.MobileViTConfig(**sizes, image_size=32, **LABELS)
    return transformers.MobileViTForImageClassification(config)


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
    "MobileViT, with flipped channels": (
        mobilevit,
        transformers.MobileViTImageProcessor(size={"shortest_edge": 32}, crop_size=SQUARE),
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


def logits_of(network, processor, pixels, **unchanged):
    """The logits of images of bytes, as transformers gives them."""
    given = [Image.fromarray(each) for each in pixels]
    with torch.no_grad():
        return network(**processor(images=given, return_tensors="pt", **unchanged)).logits


def some_pixels():
    """Three images of bytes, and as a Tensor in [0, 1]."""
    pixels = np.random.default_rng(0).integers(0, 256, (3, 32, 32, 3), np.uint8)
    return pixels, torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 255


def assert_same(classifier, images, expected):
    with torch.no_grad():
        torch.testing.assert_close(classifier(images), expected, atol=1e-5, rtol=0)


@pytest.mark.filterwarnings("ignore:class 0 of")
@pytest.mark.parametrize("name", NETWORKS)
def test_a_folder_gives_the_logits_that_its_own_processor_leads_to(tmp_path, name):
    make, processor, unchanged = NETWORKS[name]
    network, classifier = saved(tmp_path, make, processor), load_model(tmp_path)
    pixels, images = some_pixels()
    assert_same(classifier, images, logits_of(network, processor, pixels, **unchanged))
    assert classifier.class_names == [*network.config.id2label.values()]
    assert classifier.input_size == (3, 32, 32)
    assert not any(part.training for part in classifier.modules())


@pytest.mark.parametrize(
    ("kind", "settings"),
    [
        ("ViTImageProcessor", {}),
        ("ViTImageProcessorFast", {"image_mean": [0.4] * 3}),
        ("ConvNextFeatureExtractor", {"image_std": [0.2, 0.3, 0.4]}),
        ("MobileViTImageProcessor", {}),
        ("MobileViTImageProcessor", {"do_flip_channel_order": False}),
        ("EfficientNetImageProcessor", {"image_std": [0.4] * 3}),
    ],
)
def test_a_processor_that_leaves_settings_out_has_those_of_its_class(tmp_path, kind, settings):
    network = saved(tmp_path, processor=None)
    values = {"image_processor_type": kind, **settings}
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(values))
    own = kind.replace("FeatureExtractor", "ImageProcessor").removesuffix("Fast")
    processor = getattr(transformers, own)(**settings)
    steps = {step: False for step in ("do_resize", "do_center_crop") if hasattr(processor, step)}
    pixels, images = some_pixels()
    assert_same(load_model(tmp_path), images, logits_of(network, processor, pixels, **steps))


def test_provenance_has_the_hashes_of_the_files_that_were_read(tmp_path):
    saved(tmp_path)
    (tmp_path / "training_args.bin").write_bytes(b"not read")
    given = load_model(tmp_path).provenance
    files = ("config.json", "preprocessor_config.json", "model.safetensors")
    hashes = {name: hashlib.sha256((tmp_path / name).read_bytes()).hexdigest() for name in files}
    assert given["sha256"] == hashes
    assert (given["opened"], given["format"]) == ("safetensors", "huggingface")
    assert (given["arch"], given["num_classes"]) == ("ViTForImageClassification", 4)
    assert given["normalisation"]["from"] == "preprocessor_config.json"


def test_weights_in_several_files_in_half_precision_and_in_a_cache_of_links(tmp_path):
    network = saved(tmp_path / "whole")
    expected = logits_of(network, NETWORKS["ViT"][1], some_pixels()[0])
    network.save_pretrained(tmp_path / "shards", max_shard_size="20KB")
    network.half().save_pretrained(tmp_path / "half")
    for folder in ("shards", "half"):
        NETWORKS["ViT"][1].save_pretrained(tmp_path / folder)
    assert len([*(tmp_path / "shards").glob("*.safetensors")]) > 1
    cache = tmp_path / "cache/snapshots/abc"
    cache.mkdir(parents=True)
    for number, file in enumerate((tmp_path / "shards").iterdir()):
        (tmp_path / f"cache/{number}").write_bytes(file.read_bytes())
        (cache / file.name).symlink_to(f"../../{number}")
    for folder in ("shards", "cache/snapshots/abc"):
        assert_same(load_model(tmp_path / folder), some_pixels()[1], expected)
    half = load_model(tmp_path / "half")
    assert {weight.dtype for weight in half.parameters()} == {torch.float32}
    torch.testing.assert_close(half(some_pixels()[1]).detach(), expected, atol=1e-2, rtol=0)


@pytest.mark.parametrize("names", [None, NAMES, dict(enumerate(NAMES))])
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
    assert classifier.class_names == (NAMES if names else [f"class {i}" for i in range(4)])
    assert classifier.input_size == tuple(network.pretrained_cfg["input_size"])
    assert {*classifier.provenance["sha256"]} == {"config.json", "model.safetensors"}


def test_a_network_of_timm_that_transformers_saved(tmp_path):
    config = transformers.TimmWrapperConfig(architecture="resnet10t", **LABELS)
    config.pretrained_cfg = {"mean": [0.5] * 3, "std": [0.25] * 3, "input_size": [3, 64, 64]}
    network = transformers.TimmWrapperForImageClassification(config).eval()
    network.save_pretrained(tmp_path)
    classifier, images = load_model(tmp_path), torch.rand(2, 3, 64, 64)
    assert_same(classifier, images, network((images - 0.5) / 0.25).logits.detach())
    assert classifier.class_names == NAMES


@pytest.mark.parametrize("settings", [{"global_pool": "max"}, {"in_chans": 1}])
def test_settings_of_timm_are_those_of_the_network(tmp_path, settings):
    network = timm.create_model("resnet10t", num_classes=4, **settings).eval()
    timm.models.save_for_hf(network, tmp_path, safe_serialization=True)
    images = torch.rand(2, settings.get("in_chans", 3), 64, 64)
    classifier = load_model(tmp_path, mean=0, std=1)
    assert_same(classifier, images, network(images).detach())
    edited_config(tmp_path, model_args=None)  # older versions only write how it pools
    if "in_chans" not in settings:
        assert_same(load_model(tmp_path, mean=0, std=1), images, network(images).detach())


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
    assert str(found.power) == str(from_folder.power)  # attention may round differently
    explainer = ClassPattern(network, images, labels, check_accuracy=False)
    [pattern] = explainer.search(images[:1], "cat", n_steps=2)
    assert pattern.target == 2


def test_mean_and_std_of_the_caller_come_first(tmp_path):
    saved(tmp_path, processor=None)
    classifier = load_model(tmp_path, mean=0.25, std=0.5)
    assert (classifier.mean.item(), classifier.std.item()) == (0.25, 0.5)
    assert classifier.provenance["normalisation"]["from"] == "the caller"
    (tmp_path / "preprocessor_config.json").write_text('{"image_processor_type": "Of_mine"}')
    assert load_model(tmp_path, mean=0.25, std=0.5).mean.item() == 0.25


def test_names_that_do_not_fit_are_left_out(tmp_path):
    saved(tmp_path)
    for labels in ({"ant": 0, "bee": 1, "cat": 2, "dog": 3}, {"0": "ant"}, {}):
        edited_config(tmp_path, id2label=labels, num_labels=4)
        assert load_model(tmp_path).class_names == [f"class {i}" for i in range(4)]


def test_names_of_a_network_in_python_that_do_not_fit_are_left_out(tmp_path):
    network = saved(tmp_path)
    assert ClassNames.of(network, 4) == tuple(NAMES)
    for labels in ({"ant": 0, "bee": 1}, {0: "ant", 7: "bee"}, {0: "ant"}, 7):
        network.config.__dict__["id2label"] = labels
        assert ClassNames.of(network, 4) is None


def test_settings_of_others_are_left_out(tmp_path):
    network = saved(tmp_path)
    expected = logits_of(network, NETWORKS["ViT"][1], some_pixels()[0])
    others = {"return_dict": False, "dtype": "float16", "fusion_config": {"patch_embeddings": True}}
    edited_config(tmp_path, **others, output_attentions=True, _attn_implementation="sdpa")
    classifier = load_model(tmp_path)
    assert_same(classifier, some_pixels()[1], expected)
    assert classifier.model.config._attn_implementation == "eager"


def test_the_hub_is_asked_for_settings_and_safetensors_alone(tmp_path, monkeypatch):
    saved(tmp_path)
    asked = {}

    def snapshot_download(name, **options):
        asked.update(options, name=name)
        return str(tmp_path)

    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot_download)
    classifier = load_model("huggingface:owner/net@v2")
    assert (asked["name"], asked["revision"]) == ("owner/net", "v2")
    patterns = ["config.json", "preprocessor_config.json", "model*.safetensors*"]
    assert asked["allow_patterns"] == patterns
    assert (classifier.class_names, classifier.provenance["format"]) == (NAMES, "huggingface")
    (tmp_path / "preprocessor_config.json").unlink()
    assert load_model("huggingface:owner/net", mean=0.25, std=0.5).mean.item() == 0.25


# ---- what is refused


def edited_config(folder, file="config.json", **changes):
    """A folder whose settings were changed; None takes one away."""
    path = folder / file
    values = {**json.loads(path.read_text()), **changes}
    path.write_text(json.dumps({key: each for key, each in values.items() if each is not None}))
    return folder


def edited(folder, file="config.json", make=vit, **changes):
    saved(folder, make)
    return edited_config(folder, file, **changes)


def with_weights(folder, change):
    saved(folder)
    weights = change(load_file(folder / "model.safetensors"))
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    return folder


def with_index(folder, index):
    saved(folder)
    (folder / "model.safetensors").unlink()
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    return folder


def pickled(folder, **more):
    network = saved(folder)
    (folder / "model.safetensors").unlink()
    torch.save({**network.state_dict(), **more}, folder / "pytorch_model.bin")
    return folder


def replaced(folder, file, make):
    """A folder in which a file is something else."""
    saved(folder)
    (folder / file).unlink()
    make(folder / file)
    return folder


def in_loop(path):
    path.symlink_to(path.name)


def of_timm(folder, **config):
    network = timm.create_model("resnet10t", num_classes=4)
    timm.models.save_for_hf(network, folder, safe_serialization=True)
    return edited_config(folder, **config)


class Evil:
    def __reduce__(self):
        return print, ("a folder ran something",)


def without_head(weights):
    return {key: each for key, each in weights.items() if not key.startswith("classifier")}


CODE = {"AutoModelForImageClassification": "evil.Net"}
EFFICIENTNET = {"model_type": "efficientnet", "architectures": None}
FAR = {"weight_map": {"a": "../elsewhere.safetensors"}}
FOLDERS = {
    "no configuration": lambda f: (f.mkdir(), f)[1],
    "no weights": lambda f: replaced(f, "model.safetensors", lambda _: None),
    "an empty configuration": lambda f: replaced(f, "config.json", lambda p: p.write_text("{}")),
    "a detector": lambda f: edited(f, model_type="detr", architectures=["DetrForObjectDetection"]),
    "a text model": lambda f: edited(f, model_type="bert", architectures=["BertModel"]),
    "a network without its classifier": lambda f: edited(f, architectures=["ViTModel"]),
    "a name that can't be printed": lambda f: edited(f, architectures=["\x1b[2JViT"]),
    "a network of patches": lambda f: edited(f, model_type="siglip2", architectures=None),
    "a network that loops": lambda f: edited(f, model_type="levit", architectures=None),
    "code of its author": lambda f: edited(f, model_type="mine", auto_map=CODE),
    "code for a known network": lambda f: edited(f, auto_map=CODE),
    "quantised weights": lambda f: edited(f, quantization_config={"load_in_4bit": True}),
    "an adapter": lambda f: ((edited(f) / "adapter_config.json").write_text("{}"), f)[1],
    "attention from a hub": lambda f: edited(f, _attn_implementation="evil/kernel"),
    "nested attention": lambda f: edited(f, vision={"attn_implementation": {"": "evil/kernel"}}),
    "weights that are missing": lambda f: with_weights(f, without_head),
    "weights of nothing": lambda f: with_weights(f, lambda w: {**w, "extra": torch.ones(3)}),
    "weights of another size": lambda f: edited(f, make=convnext, hidden_sizes=[8, 16, 16, 8]),
    "fewer layers than weights": lambda f: edited(f, make=convnext, depths=[1, 1, 1, 0]),
    "an index that leaves the folder": lambda f: with_index(f, FAR),
    "an index of numbers": lambda f: with_index(f, {"weight_map": {"a": 3}}),
    "an index of nothing": lambda f: with_index(f, {}),
    "pickled code": lambda f: pickled(f, evil=Evil()),
    "a config that is a list": lambda f: replaced(f, "config.json", lambda p: p.write_text("[]")),
    "a config that nests": lambda f: replaced(
        f, "config.json", lambda p: p.write_text("[" * 10**5 + "]" * 10**5)
    ),
    "a huge config": lambda f: replaced(
        f, "config.json", lambda p: p.write_text(" " * 2**24 + "{}")
    ),
    "a config of huge numbers": lambda f: edited(f, hidden_size=10**9),
    "a million classes": lambda f: edited(f, id2label=None, num_labels=10**6),
    "many classes": lambda f: edited(f, id2label=None, num_labels=10**5),
    "many layers": lambda f: edited(f, num_hidden_layers=10**5),
    "many layers in stages": lambda f: edited(f, make=convnext, depths=[10**5] * 4),
    "many stages": lambda f: edited(f, make=convnext, depths=[1] * 2000),
    "a factor of layers": lambda f: edited(f, **EFFICIENTNET, depth_coefficient=1e5),
    "large layers": lambda f: edited(f, intermediate_size=2 * 10**5),
    "large windows": lambda f: edited(f, make=swin, window_size=300),
    "names that are a number": lambda f: edited(f, id2label=7),
    "no image processor": lambda f: replaced(f, PROCESSOR, lambda _: None),
    "a processor of mine": lambda f: edited(f, PROCESSOR, image_processor_type="OfMine"),
    "a processor of pages": lambda f: edited(
        f, PROCESSOR, image_processor_type="DonutImageProcessor"
    ),
    "timm, a file to load": lambda f: of_timm(f, model_args={"checkpoint_path": "evil.pt"}),
    "timm, a size that is a text": lambda f: of_timm(f, model_args={"img_size": "large"}),
    "timm, a function to call": lambda f: of_timm(f, architecture="os:system"),
    "timm, another hub": lambda f: of_timm(f, architecture="timm:hf_hub:evil/net"),
    "timm, no such network": lambda f: of_timm(f, architecture="resnet_of_mine"),
    "timm, no network": lambda f: of_timm(f, architecture=None, model_type="timm_wrapper"),
    "timm, a giant": lambda f: of_timm(f, architecture="vit_giant_patch14_dinov2"),
    "timm, without classes": lambda f: of_timm(f, num_classes=0, model_args=None),
    "timm, a mean of texts": lambda f: of_timm(f, mean=["0.5"]),
    "timm, names that are numbers": lambda f: of_timm(f, label_names=[1, 2, 3, 4]),
}
PROCESSOR = "preprocessor_config.json"
KINDS = {"pipe": os.mkfifo, "loop": in_loop, "folder": Path.mkdir} if hasattr(os, "mkfifo") else {}


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
    calls["an `arch` beside"] = lambda: opened(saved_in(tmp_path), tmp_path, arch="resnet18")
    monkeypatch.setattr("os.system", lambda _: pytest.fail("a folder ran something"))
    assert refusals(calls) == snapshot


def saved_in(tmp_path):
    saved(tmp_path / "whole")
    return tmp_path / "whole"


@pytest.mark.parametrize(
    "wrong",
    [{"image_std": "wide"}, {"image_std": 0}, {"rescale_factor": 0}, {"image_mean": [0.5] * 4}],
)
@pytest.mark.filterwarnings("ignore")  # of what is divided by zero
def test_a_processor_that_fails_on_plain_images_is_refused(tmp_path, wrong):
    edited(tmp_path, PROCESSOR, **wrong)
    with pytest.raises(ValueError, match=r"unusual preprocessor_config.json .*: pass `mean` and"):
        load_model(tmp_path)


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_no_file_is_missing(tmp_path, kind):
    for file in ("config.json", PROCESSOR, "model.safetensors"):
        folder = replaced(tmp_path / file, file, KINDS[kind])
        missing = "no weights" if file.startswith("model") else f"no {file}"
        with pytest.raises((ValueError, FileNotFoundError), match=missing):
            load_model(folder)


def test_weights_of_older_folders_are_read_without_running_what_is_in_them(tmp_path):
    assert load_model(pickled(tmp_path)).provenance["opened"] == "weights_only"


def test_names_that_the_hub_does_not_give(monkeypatch, snapshot, tmp_path):
    from huggingface_hub import errors

    def failing(error):
        def snapshot_download(*_, **__):
            raise error

        monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot_download)
        load_model("huggingface:owner/net")

    def without_weights():
        saved(tmp_path)
        (tmp_path / "model.safetensors").unlink()
        monkeypatch.setattr("huggingface_hub.snapshot_download", lambda *_, **__: str(tmp_path))
        load_model("huggingface:owner/net")

    response = type("Response", (), {"headers": {}, "request": None, "status_code": 403})()
    kinds = {
        "gated": errors.GatedRepoError("Access is restricted", response=response),
        "missing": errors.RepositoryNotFoundError("404 Client Error", response=response),
        "no network": errors.LocalEntryNotFoundError("No connection"),
        "no text": OSError(),
    }
    calls = {name: lambda error=error: failing(error) for name, error in kinds.items()}
    assert refusals({**calls, "without weights": without_weights}) == snapshot
