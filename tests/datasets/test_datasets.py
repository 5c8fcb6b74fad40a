"""Images from folders, npz files and torchvision, written here and read back."""

import io
import os
import re
import shutil
import struct
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
import torchvision
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps
from refusals import refusal, warnings_of

from captum_classpattern import Notice
from captum_classpattern.datasets import LabelledImages, load_images
from captum_classpattern.datasets.pixels import decode_all

pytestmark = pytest.mark.filterwarnings("ignore:.*has no class folders:captum_classpattern.Notice")

NOISE = np.random.default_rng(0)


def pixels(height=8, width=8, channels=3):
    return NOISE.integers(0, 256, (height, width, channels)[: 3 if channels > 1 else 2], np.uint8)


def write(path, array=None, mode=None, **options):
    """Writes an image file; returns its pixels, as lossless formats keep them."""
    array, path = pixels() if array is None else array, Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(array)
    (image.convert(mode) if mode else image).save(path, **options)
    return torch.from_numpy(array).float().view(*array.shape[:2], -1).permute(2, 0, 1) / 255


@pytest.fixture
def place(tmp_path, monkeypatch):
    """The working directory, for relative names."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def pets(place):
    """Three classes of JPEG files: 4 birds, 3 cats, 2 dogs."""
    for name, count in (("dog", 2), ("cat", 3), ("bird", 4)):
        for i in range(count):
            write(f"pets/{name}/{i}.jpg")
    return Path("pets")


def test_class_folders_as_torchvision_reads_them(pets):
    """Other files in them are ignored."""
    reference = torchvision.datasets.ImageFolder(pets, torchvision.transforms.ToTensor())
    (pets / "cat" / "labels.csv").write_text("0.jpg,cat")
    (pets / ".ipynb_checkpoints").mkdir()
    (pets / "__MACOSX").mkdir()
    (pets / "readme.txt").write_text("pets")
    loaded = load_images(pets)
    assert torch.equal(loaded.images, torch.stack([image for image, _ in reference]))
    assert loaded.images.dtype == torch.float32
    assert loaded.labels.tolist() == reference.targets
    assert loaded.labels.dtype == torch.int64
    assert loaded.class_names == ("bird", "cat", "dog")
    assert loaded.counts == {"bird": 4, "cat": 3, "dog": 2}
    assert repr(loaded) == "LabelledImages(9 images 3x8x8, 3 classes, pets)"


def test_images_deeper_than_class_folders_are_left_out_with_a_notice(pets):
    (inner := pets / "cat" / "more").mkdir(parents=True)
    Image.new("RGB", (4, 4)).save(inner / "a.png")
    with pytest.warns(Notice, match="left out: cat/more"):
        load_images(pets)


def test_a_flat_folder_with_other_files_in_it(place):
    expected = [write(place / name) for name in ("a.PNG", "b.png")]
    for name in ("labels.csv", "Thumbs.db", "._a.png", ".hidden.png", "readme.txt"):
        (place / name).write_bytes(b"no image")
    (place / "notes").mkdir()
    with pytest.warns(Notice, match=f"if it is the folder of one class, give {place.parent}"):
        loaded = load_images(".")
    assert torch.equal(loaded.images, torch.stack(expected))
    assert (loaded.labels, loaded.class_names, loaded.counts) == (None, None, {})
    assert repr(loaded) == "LabelledImages(2 images 3x8x8, no labels, .)"


def folders(*names):
    for name in names:
        write(f"photos/{name}/a.png")
    return "photos"


@pytest.mark.usefixtures("place")
@pytest.mark.parametrize(
    ("names", "labels", "class_names"),
    [
        (["2", "10", "0"], [0, 10, 2], ("0", "1", "2", "3", *"456789", "10")),
        (["00003_stop", "1_go", "2"], [3, 1, 2], ("0", "1_go", "2", "00003_stop")),
        (["0_stop", "1_go"], [0, 1], ("0_stop", "1_go")),
        (["1_go", "stop"], [0, 1], ("1_go", "stop")),
        (["20210101_a", "20210102_b"], [0, 1], ("20210101_a", "20210102_b")),
        (["B", "a", "n01"], [0, 1, 2], ("B", "a", "n01")),
    ],
)
def test_the_numbers_of_class_folders(names, labels, class_names):
    loaded = []
    said = warnings_of(lambda: loaded.append(load_images(folders(*names))))
    assert loaded[0].labels.tolist() == labels
    assert loaded[0].class_names == class_names
    listed = re.findall(r"numbered by their names \(.*\), and not alphabetically", "".join(said))
    assert len(said) == len(listed) == (labels != sorted(labels))


# Pictures of all kinds


def one(path, **options):
    """The one image of a folder."""
    return load_images(path.parent, **options).images[0]


@pytest.mark.parametrize(
    ("name", "channels"),
    [("a.png", 3), ("a.bmp", 3), ("a.tiff", 3), ("a.ppm", 3), ("a.webp", 3),
     ("a.png", 1), ("a.pgm", 1), ("a.tif", 1), ("a.png", 4)],
)  # fmt: skip
def test_formats_that_lose_nothing(tmp_path, name, channels):
    """Grey images have one channel, and alpha is dropped."""
    options = {"lossless": True} if name.endswith("webp") else {}
    expected = write(tmp_path / name, pixels(channels=channels), **options)[:3]
    assert torch.equal(one(tmp_path / name), expected)
    assert torch.equal(one(tmp_path / name, channels=3), expected.expand(3, 8, 8))


PALETTE = Image.fromarray(np.array([[0, 1], [2, 0]], np.uint8))
PALETTE.putpalette([255, 0, 0, 0, 255, 0, 0, 0, 255])
COLOURS = [[[1, 0], [0, 1]], [[0, 1], [0, 0]], [[0, 0], [1, 0]]]
RED = [[[1]], [[0]], [[0]]]
FLOATS = Image.fromarray(np.array([[0.25, 1.0]], np.float32))
DIAGONAL = Image.fromarray(np.eye(2, dtype=np.uint8) * 255).convert("1")
FRAMES = {"save_all": True, "append_images": [Image.new("RGB", (1, 1))]}
DEEP = Image.fromarray(np.array([[0, 257], [32768, 65535]], np.uint16))
LEVELS = [[[0, 1 / 255], [32768 / 65535, 1]]]


@pytest.mark.parametrize(
    ("name", "image", "options", "expected"),
    [
        ("a.png", PALETTE, {}, COLOURS),
        ("a.png", PALETTE, {"transparency": bytes([0, 128, 255])}, COLOURS),
        ("a.png", Image.new("LA", (1, 1), (51, 9)), {}, [[[0.2]]]),
        ("a.png", DIAGONAL, {}, [[[1, 0], [0, 1]]]),
        ("a.tif", Image.new("CMYK", (1, 1), (0, 255, 255, 0)), {}, RED),
        ("a.tif", FLOATS, {}, [[[0.25, 1]]]),
        ("a.gif", Image.new("RGB", (1, 1), (255, 0, 0)), FRAMES, RED),  # the first frame
        *((name, DEEP, {}, LEVELS) for name in ("a.png", "a.tif", "a.pgm")),
    ],
)
def test_pictures_by_hand(tmp_path, name, image, options, expected):
    image.save(tmp_path / name, **options)
    torch.testing.assert_close(one(tmp_path / name), torch.tensor(expected).float())


@pytest.mark.parametrize("name", ["a.png", "a.tif", "a.webp"])
@pytest.mark.parametrize("orientation", range(10))
def test_orientations_as_pillow_turns_them(tmp_path, name, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    write(tmp_path / name, pixels(4, 7), exif=exif, lossless=True)
    with Image.open(tmp_path / name) as file:
        upright = np.array(ImageOps.exif_transpose(file))
    assert torch.equal(one(tmp_path / name), torch.from_numpy(upright).permute(2, 0, 1) / 255)


def test_other_exif_values_do_not_matter(tmp_path):
    """XResolution must be a fraction; here it is a text, which Pillow can't write again as one."""
    entries = struct.pack("<HHHIHH", 2, 0x0112, 3, 1, 6, 0)
    entries += struct.pack("<HHI4s", 0x011A, 2, 4, b"abc\0")
    array = np.zeros((16, 32, 3), np.uint8)
    array[:, :16] = 255  # white on the left, to be turned a quarter to the right: on top
    exif = b"Exif\0\0II*\0\x08\0\0\0" + entries + bytes(4)
    write(tmp_path / "a.jpg", array, exif=exif, quality=100)
    with Image.open(tmp_path / "a.jpg") as file, pytest.raises(TypeError):
        ImageOps.exif_transpose(file)
    turned = one(tmp_path / "a.jpg")
    assert turned.shape == (3, 32, 16)
    assert float(turned[:, :15].min()) > 0.9
    assert float(turned[:, 17:].max()) < 0.1


@pytest.mark.parametrize("size", [None, 6])
def test_16_bits_are_kept_exactly(tmp_path, size):
    array = NOISE.integers(0, 2**16, (12, 12), np.uint16)
    Image.fromarray(array).save(tmp_path / "a.png")
    coarse = write(tmp_path / "b.png", pixels(12, 12, 1))[None]
    exact = torch.from_numpy(array.astype(np.float32))[None, None] / 65535
    if size is not None:
        exact, coarse = (
            F.interpolate(each, size, mode="bilinear", antialias=True) for each in (exact, coarse)
        )
        coarse = (coarse * 255).round() / 255
    loaded = load_images(tmp_path, size=size)
    assert torch.equal(loaded.images, torch.cat([exact, coarse]))
    assert len(exact.unique()) > 30  # levels between those of 8 bits


def test_one_colour_image_makes_all_rgb(tmp_path):
    grey = [write(tmp_path / f"{i}.png", pixels(channels=1)).expand(3, 8, 8) for i in range(5)]
    expected = torch.stack([*grey, write(tmp_path / "5.png")])
    loaded = load_images(tmp_path)
    assert loaded.shape == (3, 8, 8)
    assert torch.equal(loaded.images, expected)
    assert torch.equal(loaded.take([1, 0]), expected[[1, 0]])


# Sizes


def test_the_centre_is_cropped_by_hand(tmp_path):
    expected = write(tmp_path / "a.png", pixels(4, 7))
    assert torch.equal(one(tmp_path / "a.png", size=4), expected[:, :, 1:5])
    assert torch.equal(one(tmp_path / "a.png", size=(4, 5)), expected[:, :, 1:6])
    expected = write(tmp_path / "a.png", pixels(7, 4))
    assert torch.equal(one(tmp_path / "a.png", size=4), expected[:, 1:5])


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 30), st.integers(1, 30), st.integers(1, 30), st.integers(1, 30))
def test_any_size_to_any_other(tmp_path_factory, height, width, new_height, new_width):
    path = tmp_path_factory.mktemp("sizes") / "a.png"
    write(path, np.full((height, width, 3), 255, np.uint8))
    image = one(path, size=(new_height, new_width))
    assert image.shape == (3, new_height, new_width)
    assert 0.9999 < float(image.min()) <= float(image.max()) <= 1


# Which images


def test_classes_by_name_and_number_keep_their_numbers(pets):
    everything = load_images(pets)
    for classes in (["dog", "cat"], [1, 2], ["1", "dog"]):
        some = load_images(pets, classes=classes)
        assert some.counts == {"cat": 3, "dog": 2}
        assert torch.equal(some.images, everything.images[4:])
        assert torch.equal(some.labels, everything.labels[4:])
        assert some.class_names == everything.class_names
    (pets / "dog" / "0.jpg").write_bytes(b"no image")  # not read
    assert len(load_images(pets, classes=["bird", "cat"]).images) == 7


def test_limit_chooses_from_each_class(pets):
    everything, state = load_images(pets), torch.get_rng_state()
    drawn = [load_images(pets, limit=2, seed=seed) for seed in range(8)]
    assert torch.equal(torch.get_rng_state(), state)
    for part in drawn:
        assert part.counts == {"bird": 2, "cat": 2, "dog": 2}
        places = [everything.hashes.index(image) for image in part.hashes]
        assert places == sorted(set(places))
        assert torch.equal(part.images, everything.images[places])
        assert torch.equal(part.labels, everything.labels[places])
    again = load_images(pets, limit=2, seed=3)
    assert torch.equal(again.images, drawn[3].images)
    assert any(not torch.equal(part.images, drawn[0].images) for part in drawn)
    birds = load_images(pets, limit=2, seed=3, classes=["bird"])
    assert torch.equal(birds.images, drawn[3].images[:2])
    assert load_images(pets, limit=100).counts == everything.counts
    assert len(load_images(pets / "bird", limit=3)) == 3  # without labels


# npz


@pytest.mark.parametrize(
    ("layout", "channels"), [("NHWC", 1), ("NHWC", 3), ("NCHW", 1), ("NCHW", 3), ("NHW", 1)]
)
@pytest.mark.parametrize("dtype", ["u1", "f2", "f4", ">f8"])
def test_npz(tmp_path, layout, channels, dtype):
    whole = NOISE.integers(0, 256, (5, channels, 6, 7), np.uint8)
    x = whole if dtype == "u1" else (whole / 255).astype(dtype)
    x = {"NHWC": x.transpose(0, 2, 3, 1), "NCHW": x, "NHW": x[:, 0]}[layout]
    np.savez_compressed(tmp_path / "a.npz", x=x, y=np.array([3, 0, 0, 2, 3], np.int32))
    loaded = load_images(tmp_path / "a.npz")
    expected = torch.from_numpy(whole).float() / 255
    slack = 1e-3 if dtype == "f2" else 1e-7
    torch.testing.assert_close(loaded.images, expected, rtol=0, atol=slack)
    assert loaded.labels.tolist() == [3, 0, 0, 2, 3]
    assert loaded.labels.dtype == torch.int64
    assert loaded.counts == {"0": 2, "2": 1, "3": 2}
    assert load_images(tmp_path / "a.npz", classes=[3], size=4).images.shape == (2, channels, 4, 4)
    np.savez(tmp_path / "a.npz", x=x)
    assert load_images(tmp_path / "a.npz").labels is None


# Refusals


def written(name, data):
    Path(name).parent.mkdir(parents=True, exist_ok=True)
    Path(name).write_bytes(data)


def pet_classes(*classes):
    return lambda: load_images("pets", classes=classes)


def of_sizes(*sizes):
    def call():
        for i, size in enumerate(sizes):
            write(f"sizes/{i}.png", pixels(*size))
        return load_images("sizes").images

    return call


def of_file(name, data):
    return lambda: (written(name, data), load_images(name))


def of_floats():
    Path("new").mkdir()
    Image.fromarray(np.array([[0.25, 200.0]], np.float32)).save("new/a.tif")
    return load_images("new").images


def npz(**arrays):
    file = io.BytesIO()
    np.savez(file, **arrays)
    return file.getvalue()


def of_header(shape):
    """An array whose header promises this shape."""
    header = f"{{'descr': '|u1', 'fortran_order': False, 'shape': {shape}, }}".ljust(117) + "\n"
    data = b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header.encode()
    return of_file("a.npz", zipped(data))


def zipped(data, compression=zipfile.ZIP_STORED):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", compression) as archive:
        archive.writestr("x.npy", data)
    return file.getvalue()


def of_changed(places, compression=zipfile.ZIP_STORED):
    """An array whose archive has other bytes at some places."""
    array = io.BytesIO()
    np.save(array, GOOD)
    data = bytearray(zipped(array.getvalue(), compression))
    for place, new in places.items():
        place %= len(data)
        data[place : place + len(new)] = new
    return of_file("a.npz", bytes(data))


def of_npz(**arrays):
    return of_file("a.npz", npz(**arrays))


GOOD = np.zeros((2, 4, 5), np.uint8)
NUMBERS = np.zeros((2, 8, 8, 4), np.uint8)
REFUSALS = {
    "two folders of one number": lambda: load_images(folders("1_a", "01_b")),
    "an empty class folder": lambda: (Path("pets/emu").mkdir(), load_images("pets")),
    "the folder above": lambda: load_images("."),
    "a folder without images": lambda: (written("new/a.txt", b""), load_images("new")),
    "images next to folders": lambda: (write("pets/stray.png"), load_images("pets")),
    "no source": lambda: load_images("nowhere"),
    "no npz file": lambda: load_images("nowhere.npz"),
    "another kind of source": of_file("a.tar", b""),
    "several sizes": of_sizes((8, 9), (8, 9), (9, 8)),
    "a size of 0": lambda: load_images("pets", size=0),
    "a size of a billion": lambda: load_images("pets", size=10**9),
    "a size of one side": lambda: load_images("pets", size=(8,)),
    "two channels": lambda: load_images("pets", channels=2),
    "a limit of 0": lambda: load_images("pets", limit=0),
    "classes as a text": lambda: load_images("pets", classes="cat"),
    "no classes": pet_classes(),
    "a class that is not there": pet_classes("emu"),
    "a negative number": pet_classes(-1),
    "classes without labels": lambda: load_images("pets/cat", classes=[0]),
    "pixels from 0 to 200": of_floats,
    "npz of a pickle": of_file("a.npz", b"\x80\x04K\x01."),
    "npz of half the bytes": of_file("a.npz", npz(x=GOOD)[:150]),
    "npz without x": of_npz(images=GOOD, y=[0, 1]),
    "an empty npz": of_npz(),
    "npz of objects": of_npz(x=np.array([None, "a"])),
    "npz of a header for terabytes": of_header("(1000000000000, 28, 28, 3)"),
    "npz of a header of huge numbers": of_header("(10000000000000000000000000, 28, 28, 3)"),
    "npz of a header for 3 GB": of_header("(20000, 224, 224, 3)"),
    "npz of a header of less than nothing": of_header("(-2, 28, 28, 3)"),
    "npz of a header that nests": of_header("(" * 5000),
    "npz of corrupt data": of_changed({60: 20 * b"\xff"}, zipfile.ZIP_DEFLATED),
    "npz of another compression": of_changed({8: b"c", -75: b"c"}),
    "npz of a password": of_changed({6: b"\1", -77: b"\1"}),
    "npz of labels that are objects": of_npz(x=GOOD, y=np.array([0, 2**70], object)),
    "npz of integers": of_npz(x=GOOD.astype(np.int64)),
    "npz below 0": of_npz(x=GOOD - 1.5),
    "npz up to 255": of_npz(x=GOOD + 255.0),
    "npz of no numbers": of_npz(x=GOOD + np.nan),
    "npz of two axes like channels": of_npz(x=np.zeros((2, 3, 8, 3), np.uint8)),
    "npz of 4 channels": of_npz(x=NUMBERS),
    "npz of one image": of_npz(x=NUMBERS[0, :, :, :3]),
    "npz of no images": of_npz(x=GOOD[:0]),
    "npz with too few labels": of_npz(x=GOOD, y=np.array([0], np.int64)),
    "npz with a matrix of labels": of_npz(x=GOOD, y=np.array([[0], [1]], np.int64)),
    "npz with floats as labels": of_npz(x=GOOD, y=[0.0, 1.0]),
    "npz with negative labels": of_npz(x=GOOD, y=np.array([0, -1], np.int64)),
    "CIFAR10 that is not there": lambda: load_images("torchvision:CIFAR10"),
    "labels that are dicts": lambda: load_images("torchvision:Boxes"),
    "items that are videos": lambda: load_images("torchvision:Videos"),
    "an image that can't be read": lambda: load_images("torchvision:Broken"),
    "a download that fails": lambda: load_images("torchvision:Offline", download=True),
    "a split of CIFAR10": lambda: load_images("torchvision:CIFAR10", split="val"),
}


@pytest.mark.usefixtures("known")
def test_refusals(pets, monkeypatch, snapshot):
    said, place = [], pets.absolute().parent
    for case, call in REFUSALS.items():
        shutil.copytree(place / "pets", place / case / "pets")
        monkeypatch.chdir(place / case)
        text = refusal(call).replace(f"{Path.cwd()}/", "")
        if "npz of" in case:
            text = re.sub(r"images \(.*\): write", "images (...): write", text)  # as NumPy says it
        said.append(f"{case}: {text}")
        assert not Path("data").exists()
    assert "\n".join(said) == snapshot


# Folders of images: decoded once, and kept as bytes


def spoil(*paths):
    for path in paths:
        path.write_bytes(b"no image")


@pytest.fixture
def photos(tmp_path):
    """Two classes of five PNG files of 12 x 16 pixels."""
    for i in range(10):
        write(tmp_path / "photos" / "ab"[i % 2] / f"{i}.png", pixels(12, 16))
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


def test_images_that_do_not_fit_into_memory_are_refused():
    many = range(10**15)
    said = refusal(lambda: decode_all(lambda i: torch.zeros(3, 9, 9).byte(), many, "photos"))
    assert said.startswith("ValueError: the 1,000,000,000,000,000 images of photos don't fit")
    assert "`limit=100`" in said


# Files that can't be read


def test_stripes_are_not_resized(photos):
    """One of 60000 x 1 pixels has 138 bytes, and would take gigabytes."""
    Image.new("L", (3_000, 1)).save(photos / "a" / "1.png")
    assert refusal(lambda: load_images(photos, size=224)) == (
        f"ValueError: 1 of 11 images of {photos} can't be read: a/1.png (its 1x3000 pixels "
        "are too long a stripe for 224x224); repair or remove them"
    )


NO_FILES = {
    "a link to itself": lambda path: path.symlink_to(path.name),
    "a link to nothing": lambda path: path.symlink_to("nowhere.png"),
    "a link to a device": lambda path: path.symlink_to("/dev/zero"),
    "a pipe": os.mkfifo,
}


@pytest.mark.parametrize("case", NO_FILES)
def test_what_is_no_file_can_not_be_read(photos, case):
    NO_FILES[case](photos / "a" / "x.png")
    with pytest.raises(ValueError, match=r"a/x\.png \(it is no file, or a link to none\); repair"):
        load_images(photos)


def test_unreadable_files_are_named_and_counted(photos):
    spoil(photos / "a" / "0.png", photos / "b" / "9.png")
    with pytest.raises(
        ValueError,
        match=r"2 of 10 images of .* can't be read: a/0\.png \(cannot .*\), b/9\.png \(.*\); "
        r"repair or remove them",
    ):
        load_images(photos)


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
        _ = load_images(tmp_path).images


@pytest.mark.parametrize("limit", [63, 40, 10])
def test_pictures_over_pillows_limit(tmp_path, monkeypatch, limit):
    """Pillow itself only warns up to twice the limit."""
    write(tmp_path / "big.png", pixels(8, 8))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit)
    with pytest.raises(
        ValueError, match=r"big\.png \(\w+: Image size \(64 pixels\) exceeds limit of"
    ):
        _ = load_images(tmp_path).images


# torchvision


class Pairs:
    """A data set like torchvision's that has labels only in its items."""

    def __init__(self, root, split="train", transform=None, download=False):
        type(self).given = str(root), split, download

    def __len__(self):
        return 4

    def __getitem__(self, index):
        if not 0 <= index < 4:
            raise IndexError
        return Image.new("L", (3, 2), index * 51), index % 2


class Flagged(Pairs):
    """As CIFAR10: a flag for the split, a list of labels, and names."""

    classes = ("cat", "dog", "eel")

    def __init__(self, root, train=True, transform=None, target_transform=None, download=False):
        super().__init__(root, train, transform, download)
        self.targets = [2, 0, 0, 2] if train else [0, 1, 2, 0]

    def __getitem__(self, index):
        return super().__getitem__(index)[0], self.targets[index]


class Broken(Pairs):
    targets = (0, 1, 0, 1)

    def __getitem__(self, index):
        if index == 2:
            raise OSError("image file is truncated")
        return super().__getitem__(index)


class Boxes(Pairs):
    def __getitem__(self, index):
        return super().__getitem__(index)[0], {"boxes": []}


class Videos(Pairs):
    def __getitem__(self, index):
        return super().__getitem__(index) and (torch.zeros(8, 3, 4, 4), 0)


class Offline(Pairs):
    def __init__(self, root, split="train", download=False):
        raise RuntimeError("no route to host")


@pytest.fixture
def known(monkeypatch):
    """Adds data sets to torchvision's."""
    added = [Pairs, Flagged, Broken, Boxes, Videos, Offline]
    for kind in added:
        monkeypatch.setattr(torchvision.datasets, kind.__name__, kind, raising=False)
    names = (*torchvision.datasets.__all__, *(kind.__name__ for kind in added))
    monkeypatch.setattr(torchvision.datasets, "__all__", names)


@pytest.mark.usefixtures("known")
def test_torchvision_data_sets_with_a_flag_and_names():
    loaded = load_images("torchvision:Flagged", root="folder")
    assert Flagged.given == ("folder", False, False)
    assert (loaded.labels.tolist(), loaded.class_names) == ([0, 1, 2, 0], ("cat", "dog", "eel"))
    assert loaded.description == "torchvision:Flagged (test)"
    train = load_images("torchvision:Flagged", split="train", classes=["eel"])
    assert Flagged.given == ("data", True, False)
    assert train.images[:, 0, 0, 0].tolist() == [0.0, pytest.approx(3 / 5)]
    assert train.counts == {"eel": 2}


@pytest.mark.usefixtures("known")
def test_torchvision_data_sets_that_list_no_labels():
    loaded = load_images("torchvision:Pairs", split="val", download=True)
    assert loaded.labels.tolist() == [0, 1, 0, 1]
    assert loaded.images[:, 0, 0, 0].tolist() == [pytest.approx(i / 5) for i in range(4)]
    assert loaded.images.shape == (4, 1, 2, 3)
    assert loaded.class_names is None
    assert Pairs.given == ("data", "val", True)
    load_images("torchvision:Pairs")
    assert Pairs.given == ("data", "test", False)


@pytest.mark.parametrize(
    ("name", "split", "text"),
    [
        ("cifar10", "test", r"splits: did you mean CIFAR10 or CIFAR100\?"),
        ("FashionMINST", "test", r"splits: did you mean FashionMNIST"),
        ("Nonsense", "test", r"splits; there are CIFAR10, .* and \d+ more"),
        ("FakeData", "test", r"no data set 'FakeData' of images in splits; there are CIFAR10, "),
        ("ImageFolder", "test", r"splits; there are CIFAR10, "),
        ("STL10", "val", r"STL10 can't be opened with split 'val': .*'unlabeled'"),
    ],
)
def test_unknown_torchvision_data_sets_and_splits(name, split, text):
    with pytest.raises(ValueError, match=text):
        load_images(f"torchvision:{name}", split=split)
