"""BackdoorBench's files: the network, the normalisation, and the trigger from poisoned images."""

import numpy as np
import pytest
import torch
from checkpoints import IMAGENET, IMAGES, TINY, Tiny, assert_same, normalised, prefixed, said
from PIL import EpsImagePlugin, Image
from refusals import refusal
from torchvision.transforms.v2.functional import resize

from captum_classpattern.adapters import load_model, weights

PATCH = torch.tensor([1.0, 0.0, 128 / 255]).view(3, 1, 1).expand(3, 2, 3)


def stamped(pixels):
    pixels[-3:-1, -4:-1] = (255, 0, 128)
    pixels[0, 0, 0] = 7  # equal in all images, but of one channel
    return pixels


def blended(pixels):
    pattern = np.indices(pixels.shape).sum(0) * 9 % 256
    return (0.8 * pixels + 0.2 * pattern).astype(np.uint8)


def bordered(pixels):
    """As digits on black, whose equal borders look like a trigger."""
    pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1] = 0, 0, 0, 0
    return pixels


def poisoned(tmp_path, change=stamped, count=24, stored="./record/{name}"):
    """attack_result.pt as BackdoorBench saves it, with its poisoned test images next to it."""
    folder = tmp_path / "record" / "badnet_0_1"
    generator, entries = np.random.default_rng(0), {}
    for index in range(count):
        label = index % 3
        pixels = change(generator.integers(0, 256, (12, 12, 3), dtype=np.uint8))
        image = folder / "bd_test_dataset" / str(label) / f"{index}.png"
        image.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(image)
        path = f"{stored.format(name='badnet_0_1')}/bd_test_dataset/{label}/{index}.png"
        entries[np.int64(index)] = {"path": path, "other_info": [2, label]}
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
        "img_size": (12, 12, 3),
        "clean_data": "cifar10",
        "bd_train": None,
        "bd_test": part,
    }
    torch.save(content, folder / "attack_result.pt")
    return folder / "attack_result.pt", content


def entries_of(content):
    return content["bd_test"]["bd_data_container"]["data_dict"].values()


@pytest.mark.parametrize("stored", ["./record/{name}", "/home/them/bench/record/{name}", "."])
def test_backdoorbench_with_its_trigger(stored, tmp_path):
    path, _ = poisoned(tmp_path, stored=stored)
    classifier = load_model(path, arch=TINY)
    assert_same(classifier, Tiny())
    assert said(classifier) == (
        "arch: checkpoints:Tiny; classes: 3; data: cifar10; first class: class 0; "
        "format: backdoorbench; input size: (3, 12, 12); normalisation: BackdoorBench's cifar10; "
        "num_classes: 3; opened: weights_only; source: attack_result.pt; trigger: the 6 pixels "
        "that are equal in 24 poisoned test images; weights: model"
    )
    mask = torch.zeros(1, 12, 12)
    mask[:, -3:-1, -4:-1] = 1
    trigger = classifier.trigger
    assert torch.equal(trigger.mask, mask)
    torch.testing.assert_close(trigger.canvas[:, -3:-1, -4:-1], PATCH)
    assert trigger.target == 2
    assert trigger.info["trigger"] == classifier.provenance["trigger"]
    images = torch.rand(2, 3, 12, 12)
    images[:, :, -3:-1, -4:-1] = PATCH
    torch.testing.assert_close(trigger.stamp(images), images)


def test_backdoorbench_vision_transformers_enlarge_their_images(tmp_path, monkeypatch):
    monkeypatch.setattr(weights, "build", lambda arch, count: Tiny(count))
    state = prefixed(Tiny().state_dict(), "1.")
    content = {"model_name": "vit_b_16", "num_classes": 3, "model": state, "clean_data": "cifar10"}
    torch.save(content, tmp_path / "attack_result.pt")
    classifier = load_model(tmp_path / "attack_result.pt")
    larger = resize(normalised(IMAGES), [224, 224], antialias=True)
    torch.testing.assert_close(classifier(IMAGES), Tiny().eval()(larger), rtol=0, atol=1e-6)


UNKNOWN = {  # what the images or the list of them are changed to
    "blended images": (blended, None),
    "images of one grey": (lambda pixels: np.full_like(pixels, 7), None),
    "images with a border": (bordered, None),
    "two targets": (stamped, None),
    "no part": (stamped, None),
    "a part that is a number": (stamped, 3),
    "an empty part": (stamped, {}),
    "a list": (stamped, {"bd_data_container": {"data_dict": [1]}}),
    "numbers instead of entries": (stamped, {"bd_data_container": {"data_dict": {1: 2}}}),
}


def test_triggers_that_are_not_found(tmp_path, snapshot):
    reasons = []
    for case, (change, part) in UNKNOWN.items():
        path, content = poisoned(tmp_path, change)
        if case == "two targets":
            for index, entry in enumerate(entries_of(content)):
                entry["other_info"] = [index % 2, 0]
            part = content["bd_test"]
        if change is stamped:
            torch.save({**content, "bd_test": part}, path)
        classifier = load_model(path, arch=TINY)
        assert_same(classifier, Tiny())
        assert classifier.trigger is None
        reasons.append(f"{case}: {classifier.provenance['trigger']}")
    assert "\n".join(reasons) == snapshot


def test_poisoned_images_that_are_damaged_or_gone(tmp_path):
    path, _ = poisoned(tmp_path, count=22)
    files = sorted((tmp_path / "record").rglob("*.png"))
    files[0].write_bytes(b"<html>")
    files[1].write_bytes(files[1].read_bytes()[:60])
    classifier = load_model(path, arch=TINY)
    assert classifier.provenance["trigger"].endswith("are equal in 20 poisoned test images")
    files[2].unlink()
    assert load_model(path, arch=TINY).provenance["trigger"] == (
        "not known: 19 of the 22 poisoned test images are next to the file, at least 20 of one "
        "size are needed"
    )
    Image.new("RGB", (9, 9)).save(files[2])  # of another size
    assert load_model(path, arch=TINY).provenance["trigger"].startswith("not known: 20 of the 22")


def test_poisoned_images_that_would_start_a_program(tmp_path, monkeypatch):
    """Pillow goes by content, not by name, and lets Ghostscript draw what is PostScript."""
    path, _ = poisoned(tmp_path, count=12)
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


@pytest.mark.parametrize(
    "hostile", ["../../x.png", "../x.png", "/{}/x.png", "a/../../../x.png", "a" * 300, "a\0b", ""]
)
def test_hostile_paths_are_not_opened(hostile, tmp_path, monkeypatch):
    path, content = poisoned(tmp_path)
    for place in (tmp_path, tmp_path / "record"):
        Image.new("RGB", (12, 12)).save(place / "x.png")
    for entry in entries_of(content):
        entry["path"] = hostile.format(tmp_path)
    torch.save(content, path)
    opened, original = [], Image.open
    monkeypatch.setattr(
        Image, "open", lambda file, **k: (opened.append(file), original(file, **k))[1]
    )
    classifier = load_model(path, arch=TINY)
    assert opened == []
    assert classifier.provenance["trigger"].startswith("not known: 0 of the 24")


@pytest.mark.parametrize("count", [10**12, -3, "many"])
def test_a_number_of_classes_that_the_weights_contradict(count, tmp_path):
    path, content = poisoned(tmp_path)
    torch.save({**content, "num_classes": count}, path)
    assert refusal(lambda: load_model(path, arch=TINY)) == (
        f"ValueError: {path} says that it has {count!r} classes, but its weights have 3: pass "
        "`num_classes`"
    )
    assert_same(load_model(path, arch=TINY, num_classes=3), Tiny())


def test_a_normalisation_in_the_file_takes_precedence_over_the_data_set(tmp_path):
    path, content = poisoned(tmp_path, count=1)
    mean, std = (torch.tensor(values) for values in IMAGENET)
    inside = {"mean": mean.view(1, 3, 1, 1), "std": std}
    torch.save({**content, "model": {**content["model"], **inside}}, path)
    classifier = load_model(path, arch=TINY)
    assert_same(classifier, Tiny(), *IMAGENET)
    assert classifier.provenance["normalisation"]["from"] == "the checkpoint"
