"""Folders of images: decoded when they are needed, and kept in a cache that processes share."""

import os
import pickle
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image, ImageFile

from captum_classpattern import Notice, images
from captum_classpattern.datasets import LabelledImages, files, load_images
from captum_classpattern.datasets.files import SETTLED
from captum_classpattern.datasets.pixels import fit

NOISE = np.random.default_rng(0)


def write(path, shape=(12, 16, 3), dtype=np.uint8, age=100.0):
    """Writes an image file that was changed some seconds ago; returns its pixels."""
    array = NOISE.integers(0, np.iinfo(dtype).max + 1, shape, dtype)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path)
    changed = time.time() - age
    os.utime(path, (changed, changed))
    return array


@pytest.fixture
def photos(tmp_path):
    """Two classes of five PNG files of 12 x 16 pixels."""
    for i in range(10):
        write(tmp_path / "photos" / "ab"[i % 2] / f"{i}.png")
    return tmp_path / "photos"


@pytest.fixture
def cache(tmp_path):
    return tmp_path / "kept"


@pytest.fixture
def parts_of_three(monkeypatch):
    monkeypatch.setattr(files, "LONGEST_PART", 3)


@pytest.fixture
def no_decoding(monkeypatch):
    """Lets a test forbid that images are decoded from now on, or even that files are opened."""

    def forbid(*, opening=False):
        def fail(*args, **kwargs):
            raise AssertionError("an image file was read")

        monkeypatch.setattr(ImageFile.ImageFile, "load", fail)
        if opening:
            monkeypatch.setattr(Image, "open", fail)

    return forbid


def by_hand(folder, size=None):
    """All images by Pillow, and resized to a square by PyTorch, one after the other."""
    images = []
    for path in sorted(folder.rglob("*.png")):
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


def test_labels_are_known_without_opening_a_file(photos, cache, no_decoding):
    for path in photos.rglob("*.png"):
        path.write_bytes(b"no image")
    no_decoding(opening=True)
    loaded = load_images(photos, cache=cache)
    assert (len(loaded), loaded.counts) == (10, {"a": 5, "b": 5})
    assert loaded.labels.tolist() == [0] * 5 + [1] * 5
    assert loaded.class_names == ("a", "b")
    assert repr(loaded) == f"LabelledImages(10 images, 2 classes, {photos})"
    assert len(load_images(photos, classes=["b"], limit=2, cache=cache)) == 2
    assert not cache.exists()


@pytest.mark.parametrize("size", [None, 8])
@pytest.mark.usefixtures("parts_of_three")
def test_pixels_are_those_of_pillow_with_and_without_a_cache(photos, cache, size, no_decoding):
    expected = by_hand(photos, size)
    filled, without = (load_images(photos, size=size, cache=each) for each in (cache, False))
    hashes = LabelledImages(expected).hashes
    for loaded in (filled, without):
        assert torch.equal(loaded.images, expected)
        assert torch.equal(torch.cat([*loaded.in_order()]), expected)
        assert torch.equal(loaded.take([9, 0, 0]), expected[[9, 0, 0]])
        assert torch.equal(loaded.subset([7, 2])[0][0], expected[7])
        assert loaded.hashes == hashes
        assert loaded.images.dtype == torch.float32
        assert loaded.in_one_tensor().in_memory
        assert not loaded.in_memory
    no_decoding()
    again = load_images(photos, size=size, cache=cache)
    assert torch.equal(again.images, expected)
    assert again.hashes == hashes
    assert [len(half) for half in again.halves()] == [5, 5]


@pytest.mark.usefixtures("parts_of_three")
def test_without_a_cache_nothing_is_written_and_little_is_kept(photos, tmp_path, monkeypatch):
    monkeypatch.setenv("CLASSPATTERN_CACHE", "off")
    for cache in (False, True):
        before = set(tmp_path.rglob("*"))
        loaded = load_images(photos, cache=cache)
        assert loaded.shape == (3, 12, 16)
        assert set(tmp_path.rglob("*")) == before
    (photos / "a" / "0.png").unlink()
    with pytest.raises(ValueError, match=r"a/0\.png could be read before, but not now: .*No such"):
        _ = loaded.images


def test_the_working_directory_may_change(photos, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    loaded = load_images("photos", cache="kept")
    assert loaded.description == "photos"
    monkeypatch.chdir("/")
    assert torch.equal(loaded.images, by_hand(photos))
    assert (tmp_path / "kept").exists()


def test_a_small_folder_is_decoded_once_without_a_cache(photos, no_decoding):
    loaded = load_images(photos, cache=False)
    first = loaded.take([3])
    no_decoding()
    assert torch.equal(loaded.take([3]), first)
    assert torch.equal(loaded.images[3:4], first)


@pytest.mark.parametrize("named", ["argument", "variable", "xdg", "home"])
def test_the_folder_of_the_cache(photos, tmp_path, monkeypatch, named):
    for variable in ("CLASSPATTERN_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    folders = {"home": tmp_path / "home" / ".cache" / "captum_classpattern"}
    folders |= {"xdg": tmp_path / "xdg" / "captum_classpattern", "variable": tmp_path / "variable"}
    if named == "xdg":
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    if named == "variable":
        monkeypatch.setenv("CLASSPATTERN_CACHE", str(tmp_path / "variable"))
    given = {"cache": str(tmp_path / "argument")} if named == "argument" else {}
    load_images(photos, **given).take([0])
    assert len([*folders.get(named, tmp_path / "argument").iterdir()]) == 1


def test_a_cache_of_another_type(photos):
    with pytest.raises(TypeError, match="cache must be True, False or a folder, got int"):
        load_images(photos, cache=3)
    with pytest.raises(ValueError, match=r"a folder, got '': .* '\.' for the working directory"):
        load_images(photos, cache="")


def test_a_user_without_a_home_folder(photos, tmp_path, monkeypatch):
    for variable in ("CLASSPATTERN_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setattr(os.path, "expanduser", lambda path: path)
    expected = by_hand(photos)
    message = (
        r"can't be kept anywhere \(this user has no home folder\), .* give a folder \(cache=, "
    )
    with pytest.warns(Notice, match=message) as warned:
        loaded = load_images(photos)
    assert len(warned) == 1
    assert torch.equal(loaded.images, expected)
    np.savez(tmp_path / "a.npz", x=np.zeros((2, 4, 4), np.uint8))
    assert len(load_images(tmp_path / "a.npz")) == 2
    assert len(load_images(photos, cache=False)) == len(load_images(photos, cache=tmp_path)) == 10


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="needs Linux")
def test_the_cache_is_memory_mapped_and_keeps_no_file_open(photos, cache):
    for _ in range(2):  # filled, and found
        loaded = load_images(photos, cache=cache)
        loaded.take([0])
        [path] = cache.iterdir()
        assert str(path) in Path("/proc/self/maps").read_text()
        opened = {os.path.realpath(each) for each in Path("/proc/self/fd").iterdir()}
        assert str(path) not in opened


def test_what_a_cached_file_depends_on(photos, cache):
    for i, options in enumerate(
        ({}, {"size": 8}, {"size": (8, 9)}, {"channels": 1}, {"size": 8, "channels": 1})
    ):
        for _ in range(2):
            load_images(photos, cache=cache, **options).take([0])
        assert len([*cache.iterdir()]) == i + 1
    moved = photos.rename(photos.with_name("moved"))
    load_images(moved, cache=cache).take([0])
    assert len([*cache.iterdir()]) == 6


@pytest.mark.parametrize("age", [90.0, 200.0])
def test_a_file_that_changed_is_decoded_again(tmp_path, cache, age):
    """To another image of as many bytes, with a later or an earlier time."""
    path = tmp_path / "photos" / "a.bmp"
    write(path)
    size, before = path.stat().st_size, load_images(path.parent, cache=cache).images
    array = write(path, age=age)
    assert path.stat().st_size == size
    after = load_images(path.parent, cache=cache).images
    assert torch.equal(after, torch.from_numpy(array).permute(2, 0, 1)[None] / 255)
    assert not torch.equal(after, before)


@pytest.mark.parametrize("how", ["overwritten", "replaced"])
def test_a_file_that_changed_and_kept_its_time_and_size(tmp_path, cache, how):
    """As after ``cp -p`` or ``rsync -t``."""
    path = tmp_path / "photos" / "a.bmp"
    write(path)
    load_images(path.parent, cache=cache).take([0])
    before = path.stat()
    time.sleep(0.02)  # a step of the clock of the file system
    other = path if how == "overwritten" else tmp_path / "other.bmp"
    array = write(other)
    os.utime(other, ns=(before.st_atime_ns, before.st_mtime_ns))
    other.replace(path)
    after = path.stat()
    assert (after.st_mtime_ns, after.st_size) == (before.st_mtime_ns, before.st_size)
    expected = torch.from_numpy(array).permute(2, 0, 1)[None] / 255
    assert torch.equal(load_images(path.parent, cache=cache).images, expected)


@pytest.mark.parametrize("of", ["this package", "Pillow", "libjpeg"])
def test_other_decoders_do_not_read_the_cache(photos, cache, monkeypatch, of):
    load_images(photos, cache=cache).take([0])
    if of == "this package":
        monkeypatch.setattr("captum_classpattern.datasets.files.PIXELS_VERSION", 0)
    elif of == "Pillow":
        monkeypatch.setattr("PIL.__version__", "another")
    else:
        monkeypatch.setattr("PIL.features.version", lambda name: f"another {name}")
    for _ in range(2):
        load_images(photos, cache=cache).take([0])
    assert len([*cache.iterdir()]) == 2


@pytest.mark.usefixtures("parts_of_three")
def test_a_file_that_could_still_change_unnoticed_is_kept_later(
    photos, cache, monkeypatch, no_decoding
):
    write(photos / "a" / "0.png", age=SETTLED / 2)
    expected = by_hand(photos)
    loaded = load_images(photos, cache=cache)
    assert torch.equal(loaded.images, expected)
    assert torch.equal(loaded.take([0]), expected[:1])
    assert len([*cache.iterdir()]) == 3
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now + SETTLED + 1)
    assert torch.equal(loaded.take([1]), expected[1:2])
    assert len([*cache.iterdir()]) == 4
    no_decoding()
    assert torch.equal(torch.cat([*loaded.in_order()]), expected)


@pytest.mark.usefixtures("parts_of_three")
def test_a_file_that_is_gone_does_not_decode_its_part_again_and_again(photos, monkeypatch, cache):
    write(photos / "a" / "0.png", age=SETTLED / 2)
    loaded, expected = load_images(photos, cache=cache), by_hand(photos)
    loaded.take([0])
    (photos / "a" / "0.png").unlink()
    opened, decode = [], files.decode
    monkeypatch.setattr(files, "decode", lambda path: (opened.append(path.name), decode(path))[1])
    now = time.time()
    for later in (now + 10, now + 20):
        monkeypatch.setattr(time, "time", lambda later=later: later)
        assert torch.equal(loaded.take([1]), expected[1:2])
    assert opened == ["2.png"] * 2


def test_a_file_from_the_future_is_kept(photos, cache):
    """The clock of a file server can be ahead."""
    write(photos / "a" / "0.png", age=-3600)
    load_images(photos, cache=cache).take([0])
    assert len([*cache.iterdir()]) == 1


def test_a_cached_file_that_is_deleted_while_it_is_opened(photos, cache, monkeypatch):
    expected = load_images(photos, cache=cache).images
    [path] = cache.iterdir()
    mapped, deleted = torch.UntypedStorage.from_file, []

    def delete_and_map(*args, **kwargs):
        if not deleted:
            path.unlink()
            deleted.append(path)
        return mapped(*args, **kwargs)

    monkeypatch.setattr(torch.UntypedStorage, "from_file", delete_and_map)
    assert torch.equal(load_images(photos, cache=cache).images, expected)
    assert deleted == [path]
    assert path.exists()


@pytest.mark.usefixtures("parts_of_three")
def test_hashes_are_kept_with_the_pixels(photos, cache, monkeypatch):
    write(photos / "a" / "0.png", (12, 16))  # grey, in a part with colours
    for name in ("3", "5", "7"):
        write(photos / "b" / f"{name}.png", (12, 16))  # a part of grey ones, from image 6 on
    for name in ("1", "9"):
        write(photos / "b" / f"{name}.png", (12, 16, 3))
    hashed = []
    for options in ({}, {"channels": 1, "size": 6}, {"channels": 3}):
        expected = LabelledImages(load_images(photos, cache=False, **options).images).hashes
        assert load_images(photos, cache=cache, **options).hashes == expected
        hashed.clear()
        with monkeypatch.context() as patch:
            patch.setattr(images, "image_hash", lambda image: hashed.append(image) or "")
            again = load_images(photos, cache=cache, **options)
            _ = again.images
            known = again.hashes
        grey = [] if options else [6, 7, 8]  # of which all become RGB
        assert len(hashed) == len(grey)
        assert [h for i, h in enumerate(known) if i not in grey] == [
            h for i, h in enumerate(expected) if i not in grey
        ]


# Without a size


def test_large_images_are_decoded_in_small_parts(tmp_path, cache, monkeypatch):
    """The first file that can be read tells their size."""
    folder = tmp_path / "photos"
    arrays = [write(folder / f"{i}.bmp", (20, 30, 3)) for i in range(7)]
    (folder / "00.bmp").write_bytes(b"no image")
    os.utime(folder / "00.bmp", (0, 0))
    monkeypatch.setattr(files, "PART_BYTES", 3 * 20 * 30 * 3 + 10)
    together, decode_all = [], files.decode_all
    monkeypatch.setattr(
        files,
        "decode_all",
        lambda d, chosen, *_: together.append(len(chosen)) or decode_all(d, chosen, *_),
    )
    with pytest.warns(UserWarning, match=r"1 of 8 images .* are skipped: 00\.bmp"):
        loaded = load_images(folder, cache=cache, on_error="skip")
    assert sorted(together) == [2, 3, 3]
    assert torch.equal(loaded.images, torch.from_numpy(np.stack(arrays)).permute(0, 3, 1, 2) / 255)


def test_images_that_need_no_change_stay_as_they_are():
    for image in (torch.zeros(3, 4, 5, dtype=torch.uint8), torch.rand(1, 4, 5)):
        assert fit(image, None, None) is image


@pytest.mark.parametrize("damage", ["empty", "half", "garbage", "header"])
def test_a_damaged_cache_is_written_again(photos, cache, damage):
    expected = load_images(photos, cache=cache).images
    [path] = cache.iterdir()
    whole = path.read_bytes()
    damaged = {
        "empty": b"",
        "half": whole[: len(whole) // 2],
        "garbage": b"\xff" * len(whole),
        "header": whole[:20] + b"?" + whole[21:],
    }
    path.write_bytes(damaged[damage])
    assert torch.equal(load_images(photos, cache=cache).images, expected)
    assert path.read_bytes() == whole


@pytest.mark.usefixtures("parts_of_three")
def test_a_folder_that_can_not_be_written(photos, tmp_path):
    (tmp_path / "file").write_text("")
    expected = by_hand(photos)
    loaded = load_images(photos, cache=tmp_path / "file" / "kept")
    message = r"can't be kept in .*kept \(Not a directory\), .* another folder \(cache=, "
    with pytest.warns(UserWarning, match=message) as warned:
        assert torch.equal(loaded.images, expected)
    assert len(warned) == 1


# Several processes

PROCESS = """
import os, signal, sys
from captum_classpattern.datasets import files, load_images
files.LONGEST_PART = 3
{before}
print("ready", flush=True)
sys.stdin.readline()
print(*load_images(sys.argv[1], cache=sys.argv[2]).hashes)
"""


def start(photos, cache, before=""):
    """A process that will read the images."""
    command = [
        sys.executable,
        "-c",
        PROCESS.format(before=before),
        str(photos),
        str(cache),
    ]
    return subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1
    )


@pytest.mark.usefixtures("parts_of_three")
def test_processes_fill_one_cache_at_once(photos, cache):
    processes = [start(photos, cache) for _ in range(2)]
    for process in processes:
        assert process.stdout.readline() == "ready\n"
    for process in processes:
        process.stdin.write("go\n")
    expected = LabelledImages(by_hand(photos)).hashes
    for process in processes:
        printed, _ = process.communicate()
        assert process.returncode == 0
        assert printed.split() == expected
    assert sorted(path.suffix for path in cache.iterdir()) == [".safetensors"] * 4
    assert load_images(photos, cache=cache).hashes == expected


@pytest.mark.usefixtures("parts_of_three")
def test_a_process_that_is_killed_while_it_writes_leaves_nothing_half(photos, cache):
    killed_in_the_third_file = """
finish, count = os.fsync, [0]
def write_half(file):
    count[0] += 1
    if count[0] == 3:
        os.ftruncate(file, os.fstat(file).st_size // 2)
        os.kill(os.getpid(), signal.SIGKILL)
    finish(file)
os.fsync = write_half
"""
    process = start(photos, cache, killed_in_the_third_file)
    process.communicate("go\n")
    assert process.returncode == -signal.SIGKILL
    whole = {path: path.read_bytes() for path in cache.glob("*.safetensors")}
    assert len(whole) == 2
    assert torch.equal(load_images(photos, cache=cache).images, by_hand(photos))
    assert len([*cache.glob("*.safetensors")]) == 4
    assert all(path.read_bytes() == data for path, data in whole.items())


@pytest.mark.usefixtures("parts_of_three")
@pytest.mark.parametrize("cached", [True, False])
def test_a_copy_for_another_process_has_no_pixels(photos, cache, cached, no_decoding):
    loaded = load_images(photos, size=40, cache=cache if cached else False).subset([8, 1, 4])
    expected = loaded.images
    sent = pickle.dumps(loaded)
    assert len(sent) < expected.numel() / 3  # the smallest of images would be as many bytes
    if cached:
        no_decoding()
    twin = pickle.loads(sent)
    assert torch.equal(twin.images, expected)
    assert (twin.labels.tolist(), twin.hashes) == (loaded.labels.tolist(), loaded.hashes)


@pytest.mark.usefixtures("parts_of_three")
def test_a_copy_where_the_cache_is_not_fills_it_part_by_part(photos, cache):
    loaded = load_images(photos, cache=cache)
    expected, sent = loaded.images, pickle.dumps(loaded)
    for path in cache.iterdir():
        path.unlink()
    assert torch.equal(pickle.loads(sent).take([4, 3]), expected[[4, 3]])
    assert len([*cache.iterdir()]) == 1


@pytest.mark.usefixtures("parts_of_three")
def test_a_file_that_broke_before_another_process_reads_it_is_never_blank(photos, cache):
    loaded = load_images(photos, cache=cache)
    expected, sent = loaded.images, pickle.dumps(loaded)
    (photos / "a" / "2.png").write_bytes(b"no image")
    os.utime(photos / "a" / "2.png", (0, 0))
    for _ in range(2):  # the part is decoded, and found in the cache
        twin = pickle.loads(sent)
        assert torch.equal(twin.take([0, 2]), expected[[0, 2]])
        with pytest.raises(ValueError, match=r"a/2\.png could be read before, but not now"):
            twin.take([1])


# What is in the files


@pytest.mark.parametrize("size", [None, 6])
def test_16_bits_are_kept_exactly(tmp_path, cache, size):
    array = write(tmp_path / "grey" / "a.png", (12, 12), np.uint16)
    eight = write(tmp_path / "grey" / "b.png", (12, 12))
    exact = torch.from_numpy(array.astype(np.float32))[None, None] / 65535
    coarse = torch.from_numpy(eight)[None, None] / 255
    if size is not None:
        exact, coarse = (
            F.interpolate(each, size, mode="bilinear", antialias=True) for each in (exact, coarse)
        )
        coarse = (coarse * 255).round() / 255
    for folder in (False, cache, cache):
        loaded = load_images(tmp_path / "grey", size=size, cache=folder)
        assert torch.equal(loaded.images, torch.cat([exact, coarse]))
    assert len(exact.unique()) > 30  # levels between those of 8 bits


@pytest.mark.parametrize("cached", [True, False])
@pytest.mark.usefixtures("parts_of_three")
def test_one_colour_image_in_another_part_makes_all_rgb(tmp_path, cache, cached):
    folder = tmp_path / "grey"
    grey = [write(folder / f"{i}.png", (8, 8)) for i in range(5)]
    colour = write(folder / "5.png", (8, 8, 3))
    expected = [np.stack([each] * 3, axis=2) for each in grey] + [colour]
    expected = torch.from_numpy(np.stack(expected)).permute(0, 3, 1, 2) / 255
    for _ in range(2):
        loaded = load_images(folder, cache=cache if cached else False)
        assert loaded.shape == (3, 8, 8)
        assert torch.equal(loaded.images, expected)
        assert torch.equal(loaded.take([1, 0]), expected[[1, 0]])


@pytest.mark.usefixtures("parts_of_three")
def test_several_sizes_in_several_parts(photos, cache):
    write(photos / "b" / "9.png", (9, 9, 3))
    with pytest.raises(ValueError, match=r"several sizes: .* is (9x9|12x16) .*; pass `size`"):
        load_images(photos, cache=cache).take([0])
    assert load_images(photos, size=8, cache=cache).shape == (3, 8, 8)


def test_arrays_and_files_of_the_same_images_are_equal(photos, tmp_path, cache):
    arrays = (by_hand(photos).permute(0, 2, 3, 1).numpy() * 255).round().astype(np.uint8)
    np.savez(tmp_path / "photos.npz", x=arrays)
    for options in ({}, {"size": 7}, {"channels": 1, "size": (5, 6)}):
        from_files = load_images(photos, cache=cache, **options)
        from_arrays = load_images(tmp_path / "photos.npz", **options)
        assert torch.equal(from_files.images, from_arrays.images)
        assert from_files.hashes == from_arrays.hashes


# Files that can't be read


@pytest.mark.parametrize("cached", [True, False])
@pytest.mark.usefixtures("parts_of_three")
def test_unreadable_files_are_named_before_anything_else(photos, cache, cached):
    for name in ("a/0.png", "b/9.png"):
        (photos / name).write_bytes(b"no image")
        os.utime(photos / name, (0, 0))
    loaded = load_images(photos, cache=cache if cached else False)
    for look in (lambda: loaded.take([3]), lambda: loaded.halves(), lambda: loaded.images):
        with pytest.raises(
            ValueError,
            match=r"2 of 10 images of .* can't be read: a/0\.png \(cannot .*\), b/9\.png \(.*\); "
            r"repair or remove them, or skip them \(`on_error='skip'`\)",
        ):
            look()


def skipped(photos, **options):
    with pytest.warns(UserWarning, match=r"2 of 10 images .* are skipped: a/0\.png, b/9\.png"):
        return load_images(photos, on_error="skip", **options)


@pytest.mark.parametrize("cached", [True, False])
@pytest.mark.usefixtures("parts_of_three")
def test_unreadable_files_are_skipped_and_counted(photos, cache, cached):
    expected = by_hand(photos)
    whole = (photos / "a" / "0.png").read_bytes()
    for name in ("a/0.png", "b/9.png"):
        (photos / name).write_bytes(b"no image")
        os.utime(photos / name, (0, 0))
    for _ in range(2):
        loaded = skipped(photos, cache=cache if cached else False)
        assert loaded.counts == {"a": 4, "b": 4}
        assert loaded.description == f"{photos} (2 unreadable images skipped)"
        assert torch.equal(loaded.images, expected[1:-1])
        assert loaded.labels.tolist() == [0] * 4 + [1] * 4
        assert loaded.hashes == LabelledImages(expected[1:-1]).hashes
        twin = pickle.loads(pickle.dumps(loaded.subset([7])))
        assert torch.equal(twin.images, expected[8:9])
    (photos / "a" / "0.png").write_bytes(whole)
    with pytest.warns(UserWarning, match="1 of 10 images"):
        repaired = load_images(photos, on_error="skip", cache=cache if cached else False)
    assert torch.equal(repaired.images, expected[:-1])


@pytest.mark.skipif(os.name != "posix", reason="needs a folder that can't be read")
def test_a_file_that_could_not_be_read_for_a_while_is_tried_again(photos, cache, monkeypatch):
    """Its time and size stay the same."""
    expected, opened = by_hand(photos), Image.open

    def fails(path, *args, **kwargs):
        if path.name in ("0.png", "9.png"):
            raise OSError("the network is down")
        return opened(path, *args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(Image, "open", fails)
        assert len(skipped(photos, cache=cache)) == 8
    assert torch.equal(load_images(photos, on_error="skip", cache=cache).images, expected)
    assert torch.equal(load_images(photos, cache=cache).images, expected)


def test_nothing_that_can_be_read_is_left(photos, cache):
    for path in photos.rglob("*.png"):
        path.write_bytes(b"no image")
    with pytest.raises(ValueError, match=r"10 of 10 images of .* can't be read"):
        load_images(photos, on_error="skip", cache=cache)


def test_another_word_for_what_to_do(photos):
    with pytest.raises(ValueError, match="`on_error` must be 'raise' or 'skip', got 'ignore'"):
        load_images(photos, on_error="ignore")
