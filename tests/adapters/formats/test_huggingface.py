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
from captum_classpattern.cli.options import ModelOptions

transformers = pytest.importorskip("transformers")
timm = pytest.importorskip("timm")

CONFIG, PROCESSOR, WEIGHTS = "config.json", "preprocessor_config.json", "model.safetensors"
NAMES = ["ant", "bee", "cat", "dog"]
SQUARE = {"height": 32, "width": 32}
VIT = {
    "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 37,
    "image_size": 32, "patch_size": 4,
}  # fmt: skip
SWIN = {"image_size": 32, "embed_dim": 8, "depths": [1, 1], "num_heads": [2, 2], "window_size": 4}
SIZES = {
    "ViT": VIT,
    "ConvNext": {"hidden_sizes": [8, 16, 16, 16], "depths": [1, 1, 1, 1]},
    "Swin": SWIN,
    "ResNet": {"embedding_size": 8, "hidden_sizes": [8, 16], "depths": [1, 1]},
    "MobileNetV2": {"image_size": 32, "depth_multiplier": 0.35},
    "Siglip": {"vision_config": VIT},
}
WIDE = {"rescale_factor": 1 / 127.5, "image_mean": [1.0] * 3, "image_std": [0.8, 1.0, 1.2]}
BYTES = {"do_rescale": False, "image_mean": [127.5] * 3, "image_std": [60.0] * 3}
CROPPED = {"size": {"shortest_edge": 36}, "crop_size": SQUARE}
CASES = {  # a network, an image processor, and its settings
    "plain": ("ViT", "ViT", {"size": SQUARE}),
    "nested": ("Siglip", "Siglip", {"size": SQUARE}),
    "cropped": ("MobileNetV2", "MobileNetV2", CROPPED),
    "resized and cropped": ("ConvNext", "ConvNext", {"size": {"shortest_edge": 32}}),
    "not normalised": ("Swin", "ViT", {"size": SQUARE, "do_normalize": False}),
    "scaled to -1 and 1": ("ResNet", "ViT", {"size": SQUARE, **WIDE}),
    "not scaled": ("ResNet", "ViT", {"size": SQUARE, **BYTES}),
    "divided twice": ("ResNet", "EfficientNet", {"size": SQUARE, "image_std": [0.4, 0.5, 0.6]}),
    "only divided": (
        "ResNet", "EfficientNet",
        {"size": SQUARE, "image_std": [0.4, 0.5, 0.6], "do_normalize": False},
    ),
}  # fmt: skip


def processor_of(kind="ViT", **settings):
    return getattr(transformers, f"{kind}ImageProcessor")(**settings or {"size": SQUARE})


def saved(folder, kind="ViT", processor=None, names=NAMES):
    """The network of a folder as ``save_pretrained`` writes it."""
    torch.manual_seed(0)
    config = getattr(transformers, f"{kind}Config")(**SIZES[kind], id2label=dict(enumerate(names)))
    network = getattr(transformers, f"{kind}ForImageClassification")(config).eval()
    network.save_pretrained(folder)
    (processor or processor_of()).save_pretrained(folder)
    return network


def logits_of(network, processor, pixels):
    """The logits of images of bytes that have the right size, as transformers gives them."""
    given = [Image.fromarray(each) for each in pixels]
    steps = {step: False for step in ("do_resize", "do_center_crop") if hasattr(processor, step)}
    with torch.no_grad():
        return network(**processor(images=given, return_tensors="pt", **steps)).logits


def some_pixels():
    """Three images of bytes, and as a Tensor in [0, 1]."""
    pixels = np.random.default_rng(0).integers(0, 256, (3, 32, 32, 3), np.uint8)
    return pixels, torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 255


def assert_same(classifier, images, expected):
    with torch.no_grad():
        torch.testing.assert_close(classifier(images), expected, atol=1e-5, rtol=0)


def changed(folder, file=CONFIG, **changes):
    """A folder whose settings were changed; None takes one away."""
    values = {**json.loads((folder / file).read_text()), **changes}
    kept = {key: each for key, each in values.items() if each is not None}
    (folder / file).write_text(json.dumps(kept))


@pytest.mark.parametrize("case", CASES)
def test_a_folder_gives_the_logits_that_its_own_processor_leads_to(tmp_path, case):
    kind, processor_kind, settings = CASES[case]
    processor = processor_of(processor_kind, **settings)
    network, (pixels, images) = saved(tmp_path, kind, processor), some_pixels()
    classifier = load_model(tmp_path)
    assert_same(classifier, images, logits_of(network, processor, pixels))
    assert (classifier.class_names, classifier.input_size) == (NAMES, (3, 32, 32))
    assert not any(part.training for part in classifier.modules())


@pytest.mark.parametrize("kind", ["ViTImageProcessorFast", "ConvNextFeatureExtractor"])
def test_older_processors_leave_out_how_they_scale(tmp_path, kind):
    network, (pixels, images) = saved(tmp_path), some_pixels()
    key = "feature_extractor_type" if "Extractor" in kind else "image_processor_type"
    given = {"size": 32, "image_mean": [0.4, 0.5, 0.6], "image_std": [0.2, 0.3, 0.4]}
    (tmp_path / PROCESSOR).write_text(json.dumps({key: kind, **given}))
    assert_same(load_model(tmp_path), images, logits_of(network, processor_of(**given), pixels))


def test_provenance_has_the_hashes_of_the_files_that_were_read(tmp_path):
    saved(tmp_path)
    (tmp_path / "training_args.bin").write_bytes(b"not read")
    given, files = load_model(tmp_path).provenance, (CONFIG, PROCESSOR, WEIGHTS)
    hashes = {name: hashlib.sha256((tmp_path / name).read_bytes()).hexdigest() for name in files}
    assert given["sha256"] == hashes
    assert (given["opened"], given["format"]) == ("safetensors", "huggingface")
    assert (given["arch"], given["num_classes"]) == ("ViTForImageClassification", 4)
    assert given["normalisation"]["from"] == PROCESSOR


def test_weights_in_half_precision_and_in_a_cache_of_links(tmp_path):
    network, (pixels, images) = saved(tmp_path / "whole"), some_pixels()
    expected = logits_of(network, processor_of(), pixels)
    cache, blobs = tmp_path / "cache/snapshots/abc", tmp_path / "cache/blobs"
    cache.mkdir(parents=True)
    blobs.mkdir()
    for file in (tmp_path / "whole").iterdir():
        file.rename(blobs / f"{file.name}0")
        (cache / file.name).symlink_to(f"../../blobs/{file.name}0")
    assert_same(load_model(cache), images, expected)
    network.half().save_pretrained(tmp_path / "half")
    half = load_model(tmp_path / "half", mean=0.5, std=0.5)
    assert {weight.dtype for weight in half.parameters()} == {torch.float32}
    torch.testing.assert_close(half(images).detach(), expected, atol=1e-2, rtol=0)


def test_weights_of_older_folders_are_read_without_running_what_is_in_them(tmp_path):
    torch.save(saved(tmp_path).state_dict(), tmp_path / "pytorch_model.bin")
    (tmp_path / WEIGHTS).unlink()
    assert load_model(tmp_path).provenance["opened"] == "weights_only"


@pytest.mark.parametrize("names", [None, NAMES])
def test_a_folder_of_timm_gives_its_logits(tmp_path, names):
    network = timm.create_model("resnet10t", num_classes=4).eval()
    config = {"label_names": names} if names else {}
    timm.models.save_for_hf(network, tmp_path, config, safe_serialization=True)
    classifier, images, own = load_model(tmp_path), torch.rand(2, 3, 64, 64), network.pretrained_cfg
    mean, std = (torch.tensor(own[of]).view(1, 3, 1, 1) for of in ("mean", "std"))
    assert_same(classifier, images, network((images - mean) / std).detach())
    assert classifier.class_names == (names or [f"class {i}" for i in range(4)])
    assert classifier.input_size == tuple(own["input_size"])
    assert {*classifier.provenance["sha256"]} == {CONFIG, WEIGHTS}


def test_a_network_of_timm_that_transformers_saved(tmp_path):
    labels = {"id2label": dict(enumerate(NAMES)), "label2id": {n: i for i, n in enumerate(NAMES)}}
    config = transformers.TimmWrapperConfig(architecture="resnet10t", **labels)
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
    assert_same(load_model(tmp_path, mean=0, std=1), images, network(images).detach())
    if "in_chans" not in settings:  # older versions only write how it pools
        changed(tmp_path, model_args=None)
        assert_same(load_model(tmp_path, mean=0, std=1), images, network(images).detach())


def test_networks_without_names_and_those_with_a_background(tmp_path):
    saved(tmp_path / "unnamed", names=["LABEL_0", "LABEL_1"])
    assert load_model(tmp_path / "unnamed").class_names == ["class 0", "class 1"]
    saved(tmp_path / "background", "MobileNetV2", names=["background", *NAMES])
    with pytest.warns(UserWarning, match="class 0 of .* is 'background': the others begin at 1"):
        assert load_model(tmp_path / "background").class_names == ["background", *NAMES]


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


def test_names_that_do_not_fit_are_left_out(tmp_path):
    network = saved(tmp_path)
    assert ClassNames.of(network, 4) == tuple(NAMES)
    for labels in ({"0": "ant"}, {"0": "ant", "1": "bee", "2": "cat", "7": "dog"}, {"ant": 0}, {}):
        changed(tmp_path, id2label=labels, num_labels=4)
        assert load_model(tmp_path).class_names == [f"class {i}" for i in range(4)]
        network.config.__dict__["id2label"] = labels
        assert ClassNames.of(network, 4) is None


def test_settings_of_others_are_left_out(tmp_path):
    expected = logits_of(saved(tmp_path), processor_of(), some_pixels()[0])
    others = {"return_dict": False, "dtype": "float16", "fusion_config": {"patch_embeddings": True}}
    changed(tmp_path, **others, output_attentions=True)
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
    classifier = ModelOptions().open("huggingface:owner/net@v2")
    assert (asked["name"], asked["revision"]) == ("owner/net", "v2")
    assert {*asked["allow_patterns"]} == {CONFIG, PROCESSOR, WEIGHTS, "adapter_config.json"}
    assert (classifier.class_names, classifier.provenance["format"]) == (NAMES, "huggingface")


# ---- what is refused

DEEP = {"architectures": ["EfficientNetForImageClassification"], "depth_coefficient": 1e5}
CODE = {"AutoModelForImageClassification": "evil.Net"}
CHANGES = {  # of a folder's config.json: the network that it is of, and what is changed
    "an empty configuration": ("ViT", {"architectures": None}),
    "a detector": ("ViT", {"architectures": ["DetrForObjectDetection"]}),
    "a text model": ("ViT", {"architectures": ["BertModel"]}),
    "a name that can't be printed": ("ViT", {"architectures": ["\x1b[2JViT"]}),
    "code of its author": ("ViT", {"auto_map": CODE}),
    "quantised weights": ("ViT", {"quantization_config": {"load_in_4bit": True}}),
    "attention from a hub": ("ViT", {"_attn_implementation": "evil/kernel"}),
    "nested attention": ("ViT", {"vision": {"attn_implementation": {"": "evil/kernel"}}}),
    "weights of another size": ("ConvNext", {"hidden_sizes": [8, 16, 16, 8]}),
    "a huge number": ("ViT", {"hidden_size": 10**9}),
    "many layers": ("ViT", {"num_hidden_layers": 10**5}),
    "many stages": ("ConvNext", {"depths": [0] * 2000}),
    "a factor of layers": ("ViT", DEEP),
    "large layers": ("ViT", {"intermediate_size": 2 * 10**5}),
    "large windows": ("Swin", {"window_size": 300}),
    "names that are a number": ("ViT", {"id2label": 7}),
    "timm, a file to load": ("timm", {"model_args": {"checkpoint_path": "evil.pt"}}),
    "timm, a size that is a text": ("timm", {"model_args": {"img_size": "large"}}),
    "timm, a function to call": ("timm", {"architecture": "os:system"}),
    "timm, another hub": ("timm", {"architecture": "timm:hf_hub:evil/net"}),
    "timm, no such network": ("timm", {"architecture": "resnet_of_mine"}),
    "timm, a giant": ("timm", {"architecture": "vit_giant_patch14_dinov2"}),
    "timm, without classes": ("timm", {"num_classes": 0, "model_args": None}),
    "timm, a mean of texts": ("timm", {"mean": ["grey"]}),
}
FILES = {  # of a folder: one that is something else, and what writes it
    "no weights": (WEIGHTS, lambda p: None),
    "weights in several files": (WEIGHTS, lambda p: (p.parent / f"{p.name}.index.json").touch()),
    "weights that are missing": (WEIGHTS, lambda p: save_file({"a": torch.ones(2, 2)}, p)),
    "pickled code": (WEIGHTS, lambda p: torch.save(Evil(), p.parent / "pytorch_model.bin")),
    "a link out of the folder": (CONFIG, lambda p: p.symlink_to("../elsewhere.json")),
    "an adapter": ("adapter_config.json", lambda p: p.write_text("{}")),
    "a config that is a list": (CONFIG, lambda p: p.write_text("[]")),
    "a config that nests": (CONFIG, lambda p: p.write_text("[" * 10**5 + "]" * 10**5)),
    "a huge config": (CONFIG, lambda p: p.write_text(" " * 2**24 + "{}")),
    "no image processor": (PROCESSOR, lambda p: None),
    "a processor of mine": (PROCESSOR, lambda p: p.write_text('{"image_processor_type": "Mine"}')),
    "flipped channels": (PROCESSOR, lambda p: p.write_text('{"do_flip_channel_order": true}')),
}
KINDS = {"loop": lambda path: path.symlink_to(path.name), "folder": Path.mkdir}
KINDS |= {"pipe": os.mkfifo} if hasattr(os, "mkfifo") else {}


class Evil:
    def __reduce__(self):
        return print, ("a folder ran something",)


def replaced(folder, file, write):
    """A folder in which a file is something else."""
    saved(folder)
    (folder / file).unlink(missing_ok=True)
    write(folder / file)
    return folder


def refused(folder, name):
    """Opens a folder that is refused; its error does not say where it is."""
    if name in FILES:
        replaced(folder, *FILES[name])
    elif (kind := CHANGES[name][0]) == "timm":
        network = timm.create_model("resnet10t", num_classes=4)
        timm.models.save_for_hf(network, folder, safe_serialization=True)
    else:
        saved(folder, kind)
    if name in CHANGES:
        changed(folder, **CHANGES[name][1])
    try:
        load_model(folder)
    except Exception as error:
        text = str(error).replace(str(folder.parent), "").partition("\n\n")[0]
        raise type(error)(text) from error


def test_folders_that_are_refused(tmp_path, snapshot, monkeypatch):
    (tmp_path / "elsewhere.json").write_text("{}")
    monkeypatch.setattr("os.system", lambda _: pytest.fail("a folder ran something"))
    calls = {
        name: lambda folder=tmp_path / str(number), name=name: refused(folder, name)
        for number, name in enumerate([*CHANGES, *FILES])
    }
    assert refusals(calls) == snapshot


def test_a_folder_takes_no_network_and_no_weights_that_it_does_not_need(tmp_path):
    saved(tmp_path)
    with pytest.raises(FileNotFoundError, match="a folder is read without `arch` and `num_cl"):
        load_model(tmp_path, arch="resnet18")
    weights = {**load_file(tmp_path / WEIGHTS), "extra": torch.ones(3)}
    save_file(weights, tmp_path / WEIGHTS)
    with pytest.raises(ValueError, match=r"not needed, or of another shape: extra\)"):
        load_model(tmp_path)


@pytest.mark.parametrize("key", ["image_std", "rescale_factor", "rescale_offset"])
def test_a_processor_that_is_not_understood_needs_mean_and_std(tmp_path, key):
    saved(tmp_path)
    changed(tmp_path, PROCESSOR, **{key: "wide"})
    with pytest.raises(ValueError, match=r"unusual preprocessor_config.json .*: pass `mean` and"):
        load_model(tmp_path)
    classifier = load_model(tmp_path, mean=0.25, std=0.5)
    assert (classifier.mean.item(), classifier.std.item()) == (0.25, 0.5)
    assert classifier.provenance["normalisation"]["from"] == "the caller"


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_no_file_is_missing(tmp_path, kind):
    for file in (CONFIG, PROCESSOR, WEIGHTS):
        with pytest.raises((ValueError, FileNotFoundError), match=f"has no {file}"):
            load_model(replaced(tmp_path / file, file, KINDS[kind]))


def test_names_that_the_hub_does_not_give(monkeypatch, snapshot):
    from huggingface_hub import errors

    def failing(error):
        def snapshot_download(*_, **__):
            raise error

        monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot_download)
        load_model("huggingface:owner/net")

    response = type("Response", (), {"headers": {}, "request": None, "status_code": 403})()
    kinds = {
        "gated": errors.GatedRepoError("Access is restricted", response=response),
        "missing": errors.RepositoryNotFoundError("404 Client Error", response=response),
        "no network": errors.LocalEntryNotFoundError("No connection"),
    }
    assert refusals({kind: lambda e=error: failing(e) for kind, error in kinds.items()}) == snapshot
