"""Folders of images: decoded once, and kept as bytes."""

import os
import pickle

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from refusals import refusal

from captum_classpattern import Notice
from captum_classpattern.datasets import LabelledImages, load_images
from captum_classpattern.datasets.pixels import decode_all

NOISE = np.random.default_rng(0)


def write(path, shape=(12, 16, 3), dtype=np.uint8):
    """Writes an image file; returns its pixels."""
    array = NOISE.integers(0, np.iinfo(dtype).max + 1, shape, dtype)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path)
    return array


def spoil(*paths):
    for path in paths:
        path.write_bytes(b"no image")


@pytest.fixture
def photos(tmp_path):
    """Two classes of five PNG files of 12 x 16 pixels."""
    for i in range(10):
        write(tmp_path / "photos" / "ab"[i % 2] / f"{i}.png")
    return tmp_path / "photos"


def by_hand(folder, size=None):
    """All images by Pillow, and resized to a square by PyTorch, one after the other."""
    images = []
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        with Image.open(path) as file:
            image = torch.tensor(np.array(file)).permute(2, 0, 1) / 255
        if size is not None:
            height, width = image.shape[1:]
            wide = round(width * size / height)
            image = F.interpolate(image[None], (size, wide), mode="bilinear", antialias=True)[0]
            left = (wide - size) // 2
            image = (image[:, :, left : left + size] * 255).round() / 255
        images.append(image)
    return torch.stack(images)


@pytest.mark.parametrize("size", [None, 8])
def test_pixels_are_those_of_pillow(photos, size):
    expected = by_hand(photos, size)
    loaded = load_images(photos, size=size)
    spoil(*photos.rglob("*.png"))  # not read again
    assert torch.equal(loaded.take([9, 0, 0]), expected[[9, 0, 0]])
    assert torch.equal(loaded.images, expected)
    assert torch.equal(torch.cat([*loaded.in_order()]), expected)
    assert torch.equal(loaded.subset([7, 2])[0][0], expected[7])
    assert loaded.hashes == LabelledImages(expected).hashes
    assert loaded.images.dtype == torch.float32
    assert loaded.source.images.dtype == torch.uint8
    assert [len(half) for half in loaded.halves()] == [5, 5]


def test_a_copy_for_another_process_has_the_pixels_as_bytes(photos):
    loaded = load_images(photos, size=40).subset([8, 1, 4])
    expected = loaded.images
    sent = pickle.dumps(loaded)
    assert len(sent) < 10 * 3 * 40 * 40 + 5_000
    twin = pickle.loads(sent)
    assert torch.equal(twin.images, expected)
    assert (twin.labels.tolist(), twin.hashes) == (loaded.labels.tolist(), loaded.hashes)


def test_images_that_do_not_fit_into_memory_are_refused():
    many = range(10**15)
    said = refusal(lambda: decode_all(lambda i: torch.zeros(3, 9, 9).byte(), many, "photos"))
    assert said.startswith("ValueError: the 1,000,000,000,000,000 images of photos don't fit")
    assert "`limit=100`" in said


# What is in the files


@pytest.mark.parametrize("size", [None, 6])
def test_16_bits_are_kept_exactly(tmp_path, size):
    array = write(tmp_path / "grey" / "a.png", (12, 12), np.uint16)
    eight = write(tmp_path / "grey" / "b.png", (12, 12))
    exact = torch.from_numpy(array.astype(np.float32))[None, None] / 65535
    coarse = torch.from_numpy(eight)[None, None] / 255
    if size is not None:
        exact, coarse = (
            F.interpolate(each, size, mode="bilinear", antialias=True) for each in (exact, coarse)
        )
        coarse = (coarse * 255).round() / 255
    loaded = load_images(tmp_path / "grey", size=size)
    assert torch.equal(loaded.images, torch.cat([exact, coarse]))
    assert len(exact.unique()) > 30  # levels between those of 8 bits


def test_one_colour_image_makes_all_rgb(tmp_path):
    folder = tmp_path / "grey"
    grey = [write(folder / f"{i}.png", (8, 8)) for i in range(5)]
    expected = [np.stack([each] * 3, axis=2) for each in grey] + [
        write(folder / "5.png", (8, 8, 3))
    ]
    expected = torch.from_numpy(np.stack(expected)).permute(0, 3, 1, 2) / 255
    loaded = load_images(folder)
    assert loaded.shape == (3, 8, 8)
    assert torch.equal(loaded.images, expected)
    assert torch.equal(loaded.take([1, 0]), expected[[1, 0]])


# Files that can't be read


@pytest.mark.parametrize("on_error", ["raise", "skip"])
def test_stripes_are_not_resized(photos, on_error):
    """One of 60000 x 1 pixels has 138 bytes, and would take gigabytes."""
    expected = by_hand(photos, 224)
    Image.new("L", (3_000, 1)).save(photos / "a" / "1.png")
    if on_error == "raise":
        said = refusal(lambda: load_images(photos, size=224))
        assert said == (
            f"ValueError: 1 of 11 images of {photos} can't be read: a/1.png (its 1x3000 pixels "
            "are too long a stripe for 224x224); repair or remove them, or skip them "
            "(`on_error='skip'`)"
        )
        return
    with pytest.warns(Notice, match=r"1 of 11 images .* skipped: a/1\.png"):
        loaded = load_images(photos, size=224, on_error="skip")
    assert torch.equal(loaded.images, expected)


NO_FILES = {
    "a link to itself": lambda path: path.symlink_to(path.name),
    "a link to nothing": lambda path: path.symlink_to("nowhere.png"),
    "a link to a device": lambda path: path.symlink_to("/dev/zero"),
    "a pipe": os.mkfifo,
}


@pytest.mark.parametrize("case", NO_FILES)
def test_what_is_no_file_can_not_be_read(photos, case):
    expected = by_hand(photos)
    NO_FILES[case](photos / "a" / "x.png")
    with pytest.raises(ValueError, match=r"a/x\.png \(it is no file, or a link to none\); repair"):
        load_images(photos)
    with pytest.warns(Notice, match=r"skipped: a/x\.png"):
        assert torch.equal(load_images(photos, on_error="skip").images, expected)


def test_unreadable_files_are_named_or_skipped_and_counted(photos):
    expected = by_hand(photos)
    whole = (photos / "a" / "0.png").read_bytes()
    spoil(photos / "a" / "0.png", photos / "b" / "9.png")
    with pytest.raises(
        ValueError,
        match=r"2 of 10 images of .* can't be read: a/0\.png \(cannot .*\), b/9\.png \(.*\); "
        r"repair or remove them, or skip them \(`on_error='skip'`\)",
    ):
        load_images(photos)
    with pytest.warns(Notice, match=r"2 of 10 images .* are skipped: a/0\.png, b/9\.png"):
        loaded = load_images(photos, on_error="skip")
    assert loaded.counts == {"a": 4, "b": 4}
    assert loaded.description == f"{photos} (2 unreadable images skipped)"
    assert torch.equal(loaded.images, expected[1:-1])
    assert loaded.labels.tolist() == [0] * 4 + [1] * 4
    assert loaded.hashes == LabelledImages(expected[1:-1]).hashes
    twin = pickle.loads(pickle.dumps(loaded.subset([7])))
    assert torch.equal(twin.images, expected[8:9])
    (photos / "a" / "0.png").write_bytes(whole)
    with pytest.warns(Notice, match="1 of 10 images"):
        repaired = load_images(photos, on_error="skip")
    assert torch.equal(repaired.images, expected[:-1])
    spoil(*photos.rglob("*.png"))
    with pytest.raises(ValueError, match=r"10 of 10 images of .* can't be read"):
        load_images(photos, on_error="skip")
