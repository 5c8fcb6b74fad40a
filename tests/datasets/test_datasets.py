"""Images from folders, npz files and torchvision, written here and read back."""

import contextlib
import hashlib
import pickle
import struct
import subprocess
import sys

import numpy as np
import pytest
import torch
import torchvision
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps

from captum_classpattern.datasets import LabelledImages, load_images

NOISE = np.random.default_rng(0)


def pixels(height=8, width=8, channels=3):
    return NOISE.integers(0, 256, (height, width, channels)[: 3 if channels > 1 else 2], np.uint8)


def write(path, array=None, mode=None, **options):
    """Writes an image file; returns its pixels, as lossless formats keep them."""
    array = pixels() if array is None else array
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(array)
    (image.convert(mode) if mode else image).save(path, **options)
    return torch.from_numpy(array).float().view(*array.shape[:2], -1).permute(2, 0, 1) / 255


@pytest.fixture
def pets(tmp_path):
    """Three classes of JPEG files: 4 birds, 3 cats, 2 dogs."""
    for name, count in (("dog", 2), ("cat", 3), ("bird", 4)):
        for i in range(count):
            write(tmp_path / "pets" / name / f"{i}.jpg")
    return tmp_path / "pets"


def test_class_folders_as_torchvision_reads_them(pets):
    loaded = load_images(pets)
    reference = torchvision.datasets.ImageFolder(pets, torchvision.transforms.ToTensor())
    assert torch.equal(loaded.images, torch.stack([image for image, _ in reference]))
    assert loaded.images.dtype == torch.float32
    assert loaded.labels.tolist() == reference.targets
    assert loaded.labels.dtype == torch.int64
    assert loaded.class_names == ("bird", "cat", "dog")
    assert loaded.counts == {"bird": 4, "cat": 3, "dog": 2}
    assert repr(loaded) == f"LabelledImages(9 images 3x8x8, 3 classes, {pets})"


@pytest.mark.parametrize(
    ("folders", "labels", "names"),
    [
        (["2", "10", "0"], [0, 10, 2], ("0", "1", "2", "3", *"456789", "10")),
        (["00003_stop", "1_go", "2"], [3, 1, 2], ("0", "1_go", "2", "00003_stop")),
        (["1_go", "stop"], [0, 1], ("1_go", "stop")),
        (["20210101_a", "20210102_b"], [0, 1], ("20210101_a", "20210102_b")),
        (["B", "a", "n01"], [0, 1, 2], ("B", "a", "n01")),
    ],
)
def test_the_numbers_of_class_folders(tmp_path, folders, labels, names):
    for folder in folders:
        write(tmp_path / folder / "a.png")
    alphabetical = labels == sorted(labels)
    with (
        contextlib.nullcontext()
        if alphabetical
        else pytest.warns(UserWarning, match="numbered by their names .* not alphabetically")
    ):
        loaded = load_images(tmp_path)
    assert loaded.labels.tolist() == labels
    assert loaded.class_names == names


def test_two_folders_of_one_number(tmp_path):
    write(tmp_path / "1_a" / "a.png")
    write(tmp_path / "01_b" / "a.png")
    with pytest.raises(
        ValueError, match=r"folders 01_b and 1_a in .* have the same number, 1: rename"
    ):
        load_images(tmp_path)


def test_a_flat_folder_with_other_files_in_it(tmp_path):
    expected = [write(tmp_path / name) for name in ("a.PNG", "b.png")]
    for name in ("labels.csv", "Thumbs.db", "._a.png", ".hidden.png", "readme.txt"):
        (tmp_path / name).write_bytes(b"no image")
    (tmp_path / "notes").mkdir()
    loaded = load_images(str(tmp_path))
    assert torch.equal(loaded.images, torch.stack(expected))
    assert (loaded.labels, loaded.class_names, loaded.counts) == (None, None, {})
    assert repr(loaded) == f"LabelledImages(2 images 3x8x8, no labels, {tmp_path})"


def test_other_files_in_class_folders(pets):
    (pets / "cat" / "labels.csv").write_text("0.jpg,cat")
    (pets / ".ipynb_checkpoints").mkdir()
    (pets / "__MACOSX").mkdir()
    (pets / "readme.txt").write_text("pets")
    assert load_images(pets).counts == {"bird": 4, "cat": 3, "dog": 2}


def test_an_empty_class_folder(pets):
    (pets / "emu").mkdir()
    with pytest.raises(ValueError, match=r"class folders emu in .* no images .* \.jpg, .*: remove"):
        load_images(pets)


def test_the_folder_above_is_refused(pets):
    with pytest.raises(ValueError, match=r"pets in .* give the folder whose folders hold the im"):
        load_images(pets.parent)


def test_a_folder_without_images(tmp_path):
    (tmp_path / "a.txt").write_text("")
    with pytest.raises(ValueError, match=r"has no images: looked for \.bmp, .*\.webp"):
        load_images(tmp_path)


def test_images_next_to_folders_of_images(pets):
    write(pets / "stray.png")
    with pytest.raises(ValueError, match=r"both images \(stray\.png\) and folders .* \(bird\)"):
        load_images(pets)


@pytest.mark.parametrize("name", ["nowhere", "nowhere.npz"])
def test_a_source_that_is_not_there(tmp_path, name):
    with pytest.raises(
        FileNotFoundError, match=rf"an \.npz file, or .*, but .*{name} is not there"
    ):
        load_images(tmp_path / name)


def test_a_source_of_another_kind(tmp_path):
    (tmp_path / "images.tar").write_bytes(b"")
    with pytest.raises(ValueError, match=r"from a folder, an \.npz file, .* is none of these"):
        load_images(tmp_path / "images.tar")


# Pictures of all kinds


def one(path, **options):
    """The one image of a folder."""
    return load_images(path.parent, **options).images[0]


@pytest.mark.parametrize("name", ["a.png", "a.bmp", "a.tiff", "a.ppm", "a.webp"])
def test_formats_that_lose_nothing(tmp_path, name):
    options = {"lossless": True} if name.endswith("webp") else {}
    assert torch.equal(write(tmp_path / name, **options), one(tmp_path / name))


@pytest.mark.parametrize("name", ["a.png", "a.pgm", "a.tif"])
def test_grey_images_have_one_channel(tmp_path, name):
    expected = write(tmp_path / name, pixels(channels=1))
    assert torch.equal(one(tmp_path / name), expected)
    assert torch.equal(one(tmp_path / name, channels=3), expected.expand(3, 8, 8))


def test_grey_with_alpha_and_black_and_white_are_grey(tmp_path):
    grey = write(tmp_path / "a.png", pixels(channels=1), mode="LA")
    write(tmp_path / "b.png", np.eye(8, dtype=np.uint8) * 255, mode="1")
    loaded = load_images(tmp_path)
    assert torch.equal(loaded.images, torch.stack([grey, torch.eye(8)[None]]))


@pytest.mark.parametrize("order", ["ab", "ba"])
def test_grey_among_colour_becomes_rgb(tmp_path, order):
    grey = write(tmp_path / f"{order[0]}.png", pixels(channels=1))
    grey_too = write(tmp_path / f"{order[0]}2.png", pixels(channels=1))
    colour = write(tmp_path / f"{order[1]}.png")
    images = {f"{order[0]}.png": grey, f"{order[0]}2.png": grey_too, f"{order[1]}.png": colour}
    expected = [images[name].expand(3, 8, 8) for name in sorted(images)]
    assert torch.equal(load_images(tmp_path).images, torch.stack(expected))


def test_colour_to_grey_as_pillow_does(tmp_path):
    array = pixels()
    write(tmp_path / "a.png", array)
    expected = torch.from_numpy(np.array(Image.fromarray(array).convert("L"))) / 255
    grey = one(tmp_path / "a.png", channels=1)
    assert grey.shape == (1, 8, 8)
    assert float((grey[0] - expected).abs().max()) <= 1 / 255
    write(tmp_path / "a.png", np.full((2, 2, 3), 255, np.uint8))
    assert one(tmp_path / "a.png", channels=1).tolist() == [[[1, 1], [1, 1]]]


def test_alpha_is_dropped(tmp_path):
    array = pixels(channels=4)
    expected = write(tmp_path / "a.png", array)[:3]
    assert torch.equal(one(tmp_path / "a.png"), expected)


def test_palettes_with_and_without_transparency(tmp_path):
    colours = [255, 0, 0, 0, 255, 0, 0, 0, 255]
    for name, options in (("a.png", {}), ("b.png", {"transparency": bytes([0, 128, 255])})):
        image = Image.fromarray(np.array([[0, 1], [2, 0]], np.uint8), "L").copy()
        image.putpalette(colours)
        image.save(tmp_path / name, **options)
    red, green, blue = [1, 0, 0], [0, 1, 0], [0, 0, 1]
    for image in load_images(tmp_path).images:
        assert image.permute(1, 2, 0).tolist() == [[red, green], [blue, red]]


def test_cmyk(tmp_path):
    image = Image.new("CMYK", (2, 2), (0, 255, 255, 0))  # red
    image.save(tmp_path / "a.tif")
    assert one(tmp_path / "a.tif")[:, 0, 0].tolist() == [1, 0, 0]


@pytest.mark.parametrize("name", ["a.png", "a.tif", "a.pgm"])
def test_16_bit_grey(tmp_path, name):
    array = np.array([[0, 257], [32768, 65535]], np.uint16)
    Image.fromarray(array).save(tmp_path / name)
    assert one(tmp_path / name)[0].tolist() == [
        [0, pytest.approx(1 / 255)],
        [pytest.approx(32768 / 65535), 1],
    ]


def test_pictures_of_floats(tmp_path):
    Image.fromarray(np.array([[0.25, 1.0]], np.float32)).save(tmp_path / "a.tif")
    assert one(tmp_path / "a.tif").tolist() == [[[0.25, 1.0]]]
    Image.fromarray(np.array([[0.25, 200.0]], np.float32)).save(tmp_path / "a.tif")
    with pytest.raises(ValueError, match=r"a\.tif \(its pixels are not from 0 to 1\)"):
        _ = load_images(tmp_path).images


def test_exif_orientation(tmp_path):
    array = np.zeros((16, 32, 3), np.uint8)
    array[:, :16] = 255  # white on the left, to be turned a quarter to the right: on top
    exif = Image.Exif()
    exif[0x0112] = 6
    write(tmp_path / "a.jpg", array, exif=exif, quality=100)
    turned = one(tmp_path / "a.jpg")
    assert turned.shape == (3, 32, 16)
    assert float(turned[:, :15].min()) > 0.9
    assert float(turned[:, 17:].max()) < 0.1


@pytest.mark.parametrize("name", ["a.png", "a.tif", "a.webp"])
@pytest.mark.parametrize("orientation", range(10))
def test_orientations_as_pillow_turns_them(tmp_path, name, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    write(tmp_path / name, pixels(4, 7), exif=exif, lossless=True)
    with Image.open(tmp_path / name) as file:
        upright = np.array(ImageOps.exif_transpose(file))
    assert torch.equal(one(tmp_path / name), torch.from_numpy(upright).permute(2, 0, 1) / 255)


def exif_with_a_text_as_resolution(orientation):
    """XResolution must be a fraction, and Pillow can't write it again as one."""
    entries = struct.pack("<HHHIHH", 2, 0x0112, 3, 1, orientation, 0)
    entries += struct.pack("<HHI4s", 0x011A, 2, 4, b"abc\0")
    return b"Exif\0\0II*\0\x08\0\0\0" + entries + bytes(4)


def test_other_exif_values_do_not_matter(tmp_path):
    exif = exif_with_a_text_as_resolution(6)
    write(tmp_path / "a.jpg", pixels(4, 7), exif=exif)
    with Image.open(tmp_path / "a.jpg") as file, pytest.raises(TypeError):
        ImageOps.exif_transpose(file)
    assert one(tmp_path / "a.jpg").shape == (3, 7, 4)


def test_an_animation_gives_its_first_frame(tmp_path):
    frames = [Image.new("L", (4, 4), grey) for grey in (255, 0)]
    frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:])
    assert one(tmp_path / "a.gif").unique().tolist() == [1.0]


# Sizes


def test_the_centre_is_cropped_by_hand(tmp_path):
    expected = write(tmp_path / "a.png", pixels(4, 7))
    assert torch.equal(one(tmp_path / "a.png", size=4), expected[:, :, 1:5])
    assert torch.equal(one(tmp_path / "a.png", size=(4, 5)), expected[:, :, 1:6])
    expected = write(tmp_path / "a.png", pixels(7, 4))
    assert torch.equal(one(tmp_path / "a.png", size=4), expected[:, 1:5])


def test_shrinking_averages_by_hand(tmp_path):
    """Half the size, antialiased: weights 1, 3, 3, 1 along each axis, cut off at the edges; then
    rounded to 256 levels."""
    grey = np.zeros((8, 8), np.uint8)
    grey[:, 4:] = 255
    write(tmp_path / "a.png", grey)
    small = one(tmp_path / "a.png", size=4)
    levels = torch.tensor([[0, 1 / 8, 7 / 8, 1]]).mul(255).round()
    assert torch.equal(small[0], levels.expand(4, 4) / 255)


def test_resizing_as_torchvision_does(tmp_path):
    write(tmp_path / "a.jpg", pixels(40, 60))
    image = torchvision.transforms.functional.to_tensor(Image.open(tmp_path / "a.jpg"))
    resized = torchvision.transforms.functional.resize(image, 20, antialias=True)
    expected = torchvision.transforms.functional.center_crop(resized, 20)
    assert torch.equal(one(tmp_path / "a.jpg", size=20), (expected * 255).round() / 255)


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 30), st.integers(1, 30), st.integers(1, 30), st.integers(1, 30))
def test_any_size_to_any_other(tmp_path_factory, height, width, new_height, new_width):
    path = tmp_path_factory.mktemp("sizes") / "a.png"
    write(path, np.full((height, width, 3), 255, np.uint8))
    image = one(path, size=(new_height, new_width))
    assert image.shape == (3, new_height, new_width)
    assert 0.9999 < float(image.min()) <= float(image.max()) <= 1


def test_several_sizes_need_a_size(tmp_path):
    write(tmp_path / "a.png", pixels(8, 9))
    write(tmp_path / "b.png", pixels(8, 9))
    write(tmp_path / "c.png", pixels(9, 8))
    with pytest.raises(
        ValueError, match=r"several sizes: a\.png is 8x9 .*, c\.png is 9x8; pass `size`"
    ):
        _ = load_images(tmp_path).images
    assert load_images(tmp_path, size=8).images.shape == (3, 3, 8, 8)


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"size": 0}, r"`size` must be .*, got 0"),
        ({"size": 2.5}, r"`size` must be a whole number from 1, or \(H, W\) of such, got 2\.5"),
        ({"size": (8,)}, r"`size` must be .*, got \(8,\)"),
        ({"size": (8, -1)}, r"`size` must be .*, got \(8, -1\)"),
        ({"channels": 2}, r"channels must be 1, 3, or None .*, got 2"),
        ({"limit": 0}, r"`limit` must be .*, got 0"),
        ({"limit": 1.5}, r"`limit` must be .*, got 1\.5"),
        ({"classes": "cat"}, r"`classes` must be a list .*, got 'cat'"),
        ({"classes": []}, r"`classes` must be a list .*, got \[\]"),
    ],
)
def test_settings_out_of_range(pets, options, match):
    with pytest.raises(ValueError, match=match):
        load_images(pets, **options)


# Files that can't be read


def test_unreadable_files_are_named(pets):
    (pets / "cat" / "0.jpg").write_bytes(b"")
    write(pets / "dog" / "1.jpg", pixels(64, 64))
    whole = (pets / "dog" / "1.jpg").read_bytes()
    (pets / "dog" / "1.jpg").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(
        ValueError,
        match=r"2 of 9 images of .*pets can't be read: cat/0\.jpg \(cannot identify .*\), "
        r"dog/1\.jpg \(.*truncated.*\); repair or remove them",
    ):
        load_images(pets).take([0])


def test_broken_png_files(tmp_path):
    write(tmp_path / "a.png", pixels(32, 32))
    whole = (tmp_path / "a.png").read_bytes()
    for cut in (20, 60, len(whole) // 2):
        (tmp_path / "a.png").write_bytes(whole[:cut])
        with pytest.raises(ValueError, match=r"1 of 1 images .* can't be read: a\.png \("):
            _ = load_images(tmp_path).images


@pytest.mark.parametrize("error", [TypeError, KeyError, ZeroDivisionError])
def test_any_error_of_pillow_names_the_file(tmp_path, monkeypatch, error):
    for name in ("a.png", "b.png"):
        write(tmp_path / name)

    def fail(path, **kwargs):
        if path.name == "a.png":
            raise error("of an odd file")
        return opened(path, **kwargs)

    opened = Image.open
    monkeypatch.setattr(Image, "open", fail)
    named = rf"a\.png \({error.__name__}: .*of an odd file"
    with pytest.raises(ValueError, match=f"1 of 2 images .* can't be read: {named}"):
        _ = load_images(tmp_path, cache=False).images
    with pytest.warns(UserWarning, match=r"are skipped: a\.png"):
        assert len(load_images(tmp_path, cache=False, on_error="skip")) == 1


def test_ten_unreadable_files_are_named_and_the_others_counted(tmp_path):
    for i in range(13):
        (tmp_path / f"{i:02}.png").write_bytes(b"no image")
    with pytest.raises(
        ValueError, match=r"13 of 13 .* 09\.png \(.*\) and 3 more; repair"
    ) as caught:
        _ = load_images(tmp_path).images
    assert "10.png" not in str(caught.value)


@pytest.mark.parametrize("limit", [63, 40, 10])
def test_pictures_over_pillows_limit(tmp_path, monkeypatch, limit):
    """Pillow itself only warns up to twice the limit."""
    write(tmp_path / "big.png", pixels(8, 8))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit)
    with pytest.raises(ValueError, match=r"big\.png \(Image size \(64 pixels\) exceeds limit of"):
        _ = load_images(tmp_path).images


# Which images


def test_classes_by_name_and_number_keep_their_numbers(pets):
    everything = load_images(pets)
    for classes in (["dog", "cat"], [1, 2], ["1", "dog"]):
        some = load_images(pets, classes=classes)
        assert some.counts == {"cat": 3, "dog": 2}
        assert torch.equal(some.images, everything.images[4:])
        assert torch.equal(some.labels, everything.labels[4:])
        assert some.class_names == everything.class_names


@pytest.mark.parametrize(
    ("wanted", "match"),
    [
        ("Cat", r"no images of a class 'Cat': did you mean cat\?"),
        ("emu", r"no images of a class 'emu'; there are bird, cat, dog"),
        (3, r"no images of a class 3; there are bird, cat, dog"),
        (-1, r"no images of a class -1; there are bird, cat, dog"),
    ],
)
def test_a_class_that_is_not_there(pets, wanted, match):
    with pytest.raises(ValueError, match=match):
        load_images(pets, classes=["cat", wanted])


def test_classes_without_labels(tmp_path):
    write(tmp_path / "a.png")
    with pytest.raises(ValueError, match=r"has no labels to choose classes by: leave it out"):
        load_images(tmp_path, classes=[0])


def test_limit_chooses_from_each_class(pets):
    everything, state = load_images(pets), torch.get_rng_state()
    drawn = [load_images(pets, limit=2, seed=seed) for seed in range(8)]
    assert torch.equal(torch.get_rng_state(), state)
    for part in drawn:
        assert part.counts == {"bird": 2, "cat": 2, "dog": 2}
        places = [
            next(i for i in range(9) if torch.equal(image, everything.images[i]))
            for image in part.images
        ]
        assert places == sorted(set(places))
        assert torch.equal(part.labels, everything.labels[places])
    again = load_images(pets, limit=2, seed=3)
    assert torch.equal(again.images, drawn[3].images)
    assert any(not torch.equal(part.images, drawn[0].images) for part in drawn)
    birds = load_images(pets, limit=2, seed=3, classes=["bird"])
    assert torch.equal(birds.images, drawn[3].images[:2])
    assert load_images(pets, limit=100).counts == everything.counts


def test_only_the_chosen_images_are_loaded(pets):
    (pets / "dog" / "0.jpg").write_bytes(b"no image")
    assert len(load_images(pets, classes=["bird", "cat"])) == 7


def test_limit_without_labels(tmp_path):
    for i in range(5):
        write(tmp_path / f"{i}.png")
    assert len(load_images(tmp_path, limit=3)) == 3


# npz


@pytest.mark.parametrize("layout", ["NHWC", "NCHW"])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("dtype", ["u1", "f2", "f4", ">f8"])
def test_npz(tmp_path, layout, channels, dtype):
    whole = NOISE.integers(0, 256, (5, channels, 6, 7), np.uint8)
    x = whole if dtype == "u1" else (whole / 255).astype(dtype)
    x = x.transpose(0, 2, 3, 1) if layout == "NHWC" else x
    np.savez_compressed(tmp_path / "a.npz", x=x, y=np.array([3, 0, 0, 2, 3], np.int32))
    loaded = load_images(tmp_path / "a.npz")
    expected = torch.from_numpy(whole).float() / 255
    slack = 1e-3 if dtype == "f2" else 1e-7
    torch.testing.assert_close(loaded.images, expected, rtol=0, atol=slack)
    assert loaded.labels.tolist() == [3, 0, 0, 2, 3]
    assert loaded.labels.dtype == torch.int64
    assert loaded.counts == {"0": 2, "2": 1, "3": 2}
    assert load_images(tmp_path / "a.npz", classes=[3], size=4).images.shape == (2, channels, 4, 4)


def test_npz_of_grey_images_without_labels(tmp_path):
    x = NOISE.integers(0, 256, (3, 4, 5), np.uint8)
    np.savez(tmp_path / "a.npz", x=x)
    loaded = load_images(tmp_path / "a.npz")
    assert torch.equal(loaded.images[:, 0], torch.from_numpy(x).float() / 255)
    assert loaded.labels is None


GOOD = np.zeros((2, 4, 5), np.uint8)


@pytest.mark.parametrize(
    ("arrays", "match"),
    [
        ({"images": GOOD, "y": [0, 1]}, r"has no array x, only images, y\. Write it by np\.savez"),
        ({}, r"has no array x, only nothing"),
        ({"x": np.array([None, "a"])}, r"can't be used: Object arrays cannot be loaded"),
        ({"x": GOOD, "y": np.array([None, 1])}, r"can't be used: Object arrays cannot be loaded"),
        ({"x": GOOD.astype(int)}, r"must be uint8, or floats .*, got int64: .* x\.astype\(np\.uin"),
        ({"x": GOOD.astype(bool)}, r"must be uint8, or floats in \[0, 1\], got bool"),
        ({"x": GOOD.astype(str)}, r"must be uint8, or floats in \[0, 1\], got <U"),
        ({"x": GOOD - 1.5}, r"floats of x in .* \[0, 1\], got values from -1\.5 to -1\.5: divide"),
        ({"x": GOOD + 255.0}, r"got values from 255 to 255"),
        ({"x": GOOD + np.nan}, r"got values from nan to nan"),
        ({"x": np.zeros((2, 3, 8, 3), np.uint8)}, r"\(2, 3, 8, 3\) could be both of the first"),
        ({"x": np.zeros((2, 8, 8, 4), np.uint8)}, r"\(2, 8, 8, 4\) is none of these"),
        ({"x": np.zeros((8, 8, 3), np.uint8)}, r"\(8, 8, 3\) is none of these"),
        ({"x": np.zeros((8, 8), np.uint8)}, r"\(8, 8\) is none of these"),
        ({"x": np.zeros((0, 8, 8), np.uint8)}, r"\(0, 8, 8\) is none of these"),
        ({"x": GOOD, "y": [0]}, r"y in .* one for each of 2 images, got int64 of shape \(1,\)"),
        ({"x": GOOD, "y": [[0], [1]]}, r"got int64 of shape \(2, 1\)"),
        ({"x": GOOD, "y": [0.0, 1.0]}, r"must be class numbers from 0, .*, got float64"),
        ({"x": GOOD, "y": [0, -1]}, r"must be class numbers from 0, .*: array\(\[ 0, -1\]\)"),
        ({"x": GOOD, "y": ["cat", "dog"]}, r"must be class numbers from 0, .*, got <U3"),
    ],
)
def test_npz_that_does_not_fit(tmp_path, arrays, match):
    np.savez(tmp_path / "a.npz", **arrays)
    with pytest.raises(ValueError, match=match):
        load_images(tmp_path / "a.npz")


@pytest.mark.parametrize("kind", ["bytes", "empty", "npy", "pickle", "half"])
def test_a_file_that_is_not_an_npz(tmp_path, kind):
    path = tmp_path / "a.npz"
    np.savez(path, x=GOOD)
    whole = path.read_bytes()
    np.save(tmp_path / "a.npy", GOOD)
    written = {
        "bytes": b"no archive",
        "empty": b"",
        "npy": (tmp_path / "a.npy").read_bytes(),
        "pickle": b"\x80\x04K\x01.",
        "half": whole[: len(whole) // 2],
    }
    path.write_bytes(written[kind])
    with pytest.raises(ValueError, match=r"a\.npz can't be used: .* Write it by np\.savez"):
        load_images(path)


# torchvision


def write_cifar(root):
    """CIFAR-10's files with 2 images per batch, and their checksums."""
    base = torchvision.datasets.CIFAR10
    folder, rows = root / base.base_folder, NOISE.integers(0, 256, (12, 3072), np.uint8)
    folder.mkdir(parents=True)

    def save(name, content):
        (folder / name).write_bytes(pickle.dumps(content))
        return [name, hashlib.md5((folder / name).read_bytes()).hexdigest()]

    train = [
        save(f"data_batch_{i + 1}", {"data": rows[2 * i : 2 * i + 2], "labels": [i, 9 - i]})
        for i in range(5)
    ]
    test = save("test_batch", {"data": rows[10:], "labels": [8, 3]})
    meta = save("batches.meta", {"label_names": [f"class {i}" for i in range(10)]})
    lists = {"train_list": train, "test_list": [test]}
    lists["meta"] = {**base.meta, "filename": meta[0], "md5": meta[1]}
    return torch.from_numpy(rows).view(12, 3, 32, 32).float() / 255, lists


def test_torchvision(tmp_path, monkeypatch):
    rows, lists = write_cifar(tmp_path)
    for name, value in lists.items():
        monkeypatch.setattr(torchvision.datasets.CIFAR10, name, value)
    loaded = load_images("torchvision:CIFAR10", root=tmp_path)
    assert torch.equal(loaded.images, rows[10:])
    assert loaded.labels.tolist() == [8, 3]
    assert loaded.class_names == tuple(f"class {i}" for i in range(10))
    assert loaded.description == "torchvision:CIFAR10 (test)"
    train = load_images("torchvision:CIFAR10", root=tmp_path, split="train", classes=["class 9"])
    assert torch.equal(train.images, rows[1:2])
    assert train.counts == {"class 9": 1}


class Pairs:
    """A data set like torchvision's that has labels only in its items."""

    def __init__(self, root, split="train", transform=None, download=False):
        self.arguments = (root, split, download)
        type(self).last = self
        if split not in ("train", "test", "val"):
            raise ValueError(f"Unknown value '{split}'")

    def __len__(self):
        return 4

    def __getitem__(self, index):
        if not 0 <= index < 4:
            raise IndexError
        return Image.new("L", (3, 2), index * 51), index % 2


@pytest.fixture
def known(monkeypatch):
    """Lets a test add data sets to torchvision's."""

    def add(name, data_set):
        monkeypatch.setattr(torchvision.datasets, name, data_set, raising=False)
        names = (*torchvision.datasets.__all__, name)
        monkeypatch.setattr(torchvision.datasets, "__all__", names)

    return add


def test_torchvision_data_sets_that_list_no_labels(known):
    known("Pairs", Pairs)
    loaded = load_images("torchvision:Pairs", split="val", download=True)
    assert loaded.labels.tolist() == [0, 1, 0, 1]
    assert loaded.images[:, 0, 0, 0].tolist() == [pytest.approx(i / 5) for i in range(4)]
    assert loaded.images.shape == (4, 1, 2, 3)
    assert loaded.class_names is None
    assert (str(Pairs.last.arguments[0]), *Pairs.last.arguments[1:]) == ("data", "val", True)
    load_images("torchvision:Pairs")
    assert Pairs.last.arguments[1:] == ("test", False)


def test_images_of_a_torchvision_data_set_that_can_not_be_read(known):
    class Broken(Pairs):
        targets = (0, 1, 0, 1)

        def __getitem__(self, index):
            if index == 2:
                raise OSError("image file is truncated")
            return super().__getitem__(index)

    known("Broken", Broken)
    with pytest.raises(ValueError, match=r"1 of 4 images .* image 2 \(.*truncated\); repair"):
        load_images("torchvision:Broken")
    with pytest.warns(UserWarning, match=r"1 of 4 images of .* are skipped: image 2"):
        loaded = load_images("torchvision:Broken", on_error="skip")
    assert (*loaded.labels.tolist(), len(loaded.images)) == (0, 1, 1, 3)
    assert loaded.images[:, 0, 0, 0].tolist() == [0.0, *(pytest.approx(i / 5) for i in (1, 3))]


def test_torchvision_data_sets_of_other_things(known):
    class Boxes(Pairs):
        def __getitem__(self, index):
            return super().__getitem__(index)[0], {"boxes": []}

    class Videos(Pairs):
        def __getitem__(self, index):
            super().__getitem__(index)
            return torch.zeros(8, 3, 4, 4), 0

    known("Boxes", Boxes)
    known("Videos", Videos)
    with pytest.raises(ValueError, match=r"labels of torchvision:Boxes must be class numbers"):
        load_images("torchvision:Boxes")
    with pytest.raises(TypeError, match=r"torchvision:Videos gives a Tensor, not an image and its"):
        load_images("torchvision:Videos")


@pytest.mark.parametrize(
    "name", ["CIFAR10", "FashionMNIST", "SVHN", "STL10", "GTSRB", "Flowers102"]
)
def test_torchvision_data_sets_that_are_not_there(tmp_path, name):
    with pytest.raises(
        FileNotFoundError, match=rf"torchvision:{name} is not in {tmp_path}, .* `download=True`"
    ):
        load_images(f"torchvision:{name}", root=tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_download_that_fails(tmp_path, known):
    class Offline(Pairs):
        def __init__(self, root, split="train", download=False):
            raise RuntimeError("no route to host")

    known("Offline", Offline)
    with pytest.raises(FileNotFoundError, match=r"could not be downloaded to .*: no route to host"):
        load_images("torchvision:Offline", root=tmp_path, download=True)


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("cifar10", r": did you mean CIFAR10 or CIFAR100\?"),
        ("FashionMINST", r": did you mean FashionMNIST"),
        ("Nonsense", r"; there are CIFAR10, .* and \d+ more"),
        ("FakeData", r"; there are CIFAR10, "),
        ("ImageFolder", r"; there are CIFAR10, "),
    ],
)
def test_unknown_torchvision_data_sets(name, hint):
    with pytest.raises(ValueError, match=rf"no data set '{name}' of images in splits{hint}"):
        load_images(f"torchvision:{name}")


def test_unknown_splits(tmp_path):
    with pytest.raises(ValueError, match=r"CIFAR10 must be 'train' or 'test', got 'val'"):
        load_images("torchvision:CIFAR10", split="val", root=tmp_path)
    with pytest.raises(ValueError, match=r"STL10 can't be opened with split 'val': .*'unlabeled'"):
        load_images("torchvision:STL10", split="val", root=tmp_path)


# Halves


def numbered(values, labels=None):
    """Images that differ in brightness."""
    images = torch.tensor(values).float().view(-1, 1, 1, 1).expand(-1, 1, 2, 2) / 255
    return LabelledImages(images, None if labels is None else torch.tensor(labels))


@settings(max_examples=60, deadline=None)
@given(
    pairs=st.lists(st.tuples(st.integers(0, 255), st.integers(0, 3)), min_size=2, max_size=40),
    labelled=st.booleans(),
    seed=st.integers(0, 100),
)
def test_halves_share_no_image(pairs, labelled, seed):
    values, labels = zip(*pairs)
    whole = numbered(values, labels if labelled else None)
    state = torch.get_rng_state()
    try:
        search, held_out = whole.halves(seed)
    except ValueError:
        assert len(set(values)) <= len(values) // 2 + len(values) % 2  # copies alone
        return
    assert torch.equal(torch.get_rng_state(), state)
    hashes = [
        set(LabelledImages(half.images, argument="images").hashes) for half in (search, held_out)
    ]
    assert not hashes[0] & hashes[1]
    assert len(hashes[0] | hashes[1]) == len(set(values))
    assert len(search) + len(held_out) + held_out.duplicates_dropped == len(values)
    assert len(search) == (len(values) + 1) // 2
    assert search.duplicates_dropped == 0
    for half in (search, held_out):
        brightness = (half.images[:, 0, 0, 0] * 255).round().long().tolist()
        classes = half.labels.tolist() if labelled else labels[: len(half)]
        assert not labelled or set(zip(brightness, classes)) <= set(pairs)
        assert (half.labels is None) == (not labelled)


@pytest.mark.parametrize("seed", range(5))
def test_halves_are_stratified(seed):
    labels = [0] * 7 + [1] * 4 + [2] * 1 + [3] * 8
    search, held_out = numbered(range(20), labels).halves(seed)
    for name, count in numbered(range(20), labels).counts.items():
        share = search.counts.get(name, 0)
        assert abs(2 * share - count) <= 1
        assert share + held_out.counts.get(name, 0) == count
    assert (len(search), len(held_out)) == (10, 10)


def test_halves_are_seeded_and_keep_order_and_names():
    whole = LabelledImages(numbered(range(20)).images, torch.arange(20) % 2, ("cat", "dog"), "pets")
    drawn = [
        whole.halves(seed)[0].images[:, 0, 0, 0].mul(255).round().tolist() for seed in (1, 1, 2)
    ]
    assert drawn[0] == drawn[1] == sorted(drawn[0])
    assert drawn[0] != drawn[2]
    search, held_out = whole.halves(seed=7)
    assert search.class_names == held_out.class_names == ("cat", "dog")
    assert search.description == "pets, search half (seed 7)"
    assert held_out.description == "pets, held-out half (seed 7)"
    assert whole.description == "pets"


def test_the_half_with_the_only_image_of_a_class_is_random():
    drawn = {tuple(numbered(range(6), range(6)).halves(seed)[0].counts) for seed in range(9)}
    assert len(drawn) > 3


@pytest.mark.parametrize("seed", range(5))
def test_copies_are_dropped_by_hand(seed):
    """The only two images of class 0 are copies: one in each half, one is dropped."""
    search, held_out = numbered([1, 1, 2, 3], [0, 0, 1, 1]).halves(seed)
    assert (search.counts, held_out.counts) == ({"0": 1, "1": 1}, {"1": 1})
    assert (search.duplicates_dropped, held_out.duplicates_dropped) == (0, 1)


@pytest.mark.parametrize("values", [[5], [5, 5], [5, 5, 5, 5]])
def test_images_that_can_not_be_split(values):
    left = len(values) // 2
    with pytest.raises(
        ValueError, match=rf"all {left} images of held-out .* copies .* give other im"
    ):
        numbered(values).halves()


def test_torchvision_is_only_imported_for_its_own_data_sets(pets):
    """It is slow to import."""
    code = f"""
import sys
from captum_classpattern import datasets
before = "torchvision" in sys.modules
datasets.load_images({str(pets)!r})
assert before or "torchvision" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", code], check=True)
