"""Folders of images: decoded when they are needed, and kept in a cache that processes share."""

import multiprocessing
import os
import pickle
import signal
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

NOISE = np.random.default_rng(0)


def write(path, shape=(12, 16, 3), dtype=np.uint8, age=100.0):
    """Writes an image file that was changed some seconds ago; returns its pixels."""
    array = NOISE.integers(0, np.iinfo(dtype).max + 1, shape, dtype)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path)
    changed = time.time() - age
    os.utime(path, (changed, changed))
    return array


def spoil(*paths):
    for path in paths:
        path.write_bytes(b"no image")
        os.utime(path, (0, 0))


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


def test_labels_are_known_without_opening_a_file(photos, cache, no_decoding):
    spoil(*photos.rglob("*.png"))
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


def test_arrays_and_files_of_the_same_images_are_equal(photos, tmp_path, cache):
    arrays = (by_hand(photos).permute(0, 2, 3, 1).numpy() * 255).round().astype(np.uint8)
    np.savez(tmp_path / "photos.npz", x=arrays)
    for options in ({}, {"size": 7}, {"channels": 1, "size": (5, 6)}):
        from_files = load_images(photos, cache=cache, **options)
        from_arrays = load_images(tmp_path / "photos.npz", **options)
        assert torch.equal(from_files.images, from_arrays.images)
        assert from_files.hashes == from_arrays.hashes


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


def test_a_small_folder_is_decoded_once_without_a_cache(photos, no_decoding):
    loaded = load_images(photos, cache=False)
    first = loaded.take([3])
    no_decoding()
    assert torch.equal(loaded.take([3]), first)
    assert torch.equal(loaded.images[3:4], first)


def test_the_working_directory_may_change(photos, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    loaded = load_images("photos", cache="kept")
    assert loaded.description == "photos"
    monkeypatch.chdir("/")
    assert torch.equal(loaded.images, by_hand(photos))
    assert (tmp_path / "kept").exists()


@pytest.mark.parametrize(
    ("cache", "variables", "folder"),
    [
        ("argument", {"CLASSPATTERN_CACHE": "variable"}, "argument"),
        (True, {"CLASSPATTERN_CACHE": "variable", "XDG_CACHE_HOME": "xdg"}, "variable"),
        (True, {"XDG_CACHE_HOME": "xdg"}, "xdg/captum_classpattern"),
        (True, {}, "home/.cache/captum_classpattern"),
    ],
)
def test_the_folder_of_the_cache(photos, tmp_path, monkeypatch, cache, variables, folder):
    monkeypatch.chdir(tmp_path)
    for variable in ("CLASSPATTERN_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(variable, raising=False)
    for variable, value in {"HOME": str(tmp_path / "home"), **variables}.items():
        monkeypatch.setenv(variable, value)
    load_images(photos, cache=cache).take([0])
    assert len([*tmp_path.rglob("*.safetensors")]) == len([*Path(folder).iterdir()]) == 1


def test_a_user_without_a_home_folder(photos, tmp_path, monkeypatch):
    for variable in ("CLASSPATTERN_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setattr(os.path, "expanduser", lambda path: path)
    message = (
        r"can't be kept anywhere \(this user has no home folder\), .* give a folder \(cache=, "
    )
    with pytest.warns(Notice, match=message) as warned:
        loaded = load_images(photos)
    assert len(warned) == 1
    assert torch.equal(loaded.images, by_hand(photos))
    np.savez(tmp_path / "a.npz", x=np.zeros((2, 4, 4), np.uint8))
    assert len(load_images(tmp_path / "a.npz")) == 2  # and no warning
    assert len(load_images(photos, cache=False)) == len(load_images(photos, cache=tmp_path)) == 10


@pytest.mark.usefixtures("parts_of_three")
def test_a_folder_that_can_not_be_written(photos, tmp_path):
    (tmp_path / "file").write_text("")
    loaded = load_images(photos, cache=tmp_path / "file" / "kept")
    message = r"can't be kept in .*kept \(Not a directory\), .* another folder \(cache=, "
    with pytest.warns(Notice, match=message) as warned:
        assert torch.equal(loaded.images, by_hand(photos))
    assert len(warned) == 1


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="needs Linux")
def test_the_cache_is_memory_mapped_and_keeps_no_file_open(photos, cache):
    for _ in range(2):  # filled, and found
        loaded = load_images(photos, cache=cache)
        loaded.take([0])
        [path] = cache.iterdir()
        assert str(path) in Path("/proc/self/maps").read_text()
        opened = {os.path.realpath(each) for each in Path("/proc/self/fd").iterdir()}
        assert str(path) not in opened


def test_images_of_other_settings_are_kept_separately(photos, cache):
    for i, options in enumerate(
        ({}, {"size": 8}, {"size": (8, 9)}, {"channels": 1}, {"size": 8, "channels": 1})
    ):
        for _ in range(2):
            load_images(photos, cache=cache, **options).take([0])
        assert len([*cache.iterdir()]) == i + 1
    load_images(photos.rename(photos.with_name("moved")), cache=cache).take([0])
    assert len([*cache.iterdir()]) == 6


def change_all_but_time_and_size(path, replace):
    """As ``cp -p`` or ``rsync -t`` do."""
    before = path.stat()
    time.sleep(0.02)  # a step of the clock of the file system
    other = path.with_name("other.bmp") if replace else path
    write(other)
    os.utime(other, ns=(before.st_atime_ns, before.st_mtime_ns))
    other.replace(path)
    assert path.stat().st_mtime_ns == before.st_mtime_ns


CHANGES = {  # of what a part in the cache depends on
    "this package": lambda path, patch: patch.setattr(files, "PIXELS_VERSION", 0),
    "Pillow": lambda path, patch: patch.setattr("PIL.__version__", "another"),
    "libjpeg": lambda path, patch: patch.setattr(
        "PIL.features.version", lambda name: f"new {name}"
    ),
    "the image, later": lambda path, patch: write(path, age=90),
    "the image, with an earlier time": lambda path, patch: write(path, age=200),
    "the image alone": lambda path, patch: change_all_but_time_and_size(path, False),
    "the image, replaced": lambda path, patch: change_all_but_time_and_size(path, True),
}


@pytest.mark.parametrize("change", CHANGES)
def test_whatever_changed_is_decoded_again(tmp_path, cache, change, monkeypatch):
    path = tmp_path / "photos" / "a.bmp"
    write(path)
    size = path.stat().st_size
    before = load_images(path.parent, cache=cache).images
    CHANGES[change](path, monkeypatch)
    for _ in range(2):
        after = load_images(path.parent, cache=cache).images
        assert torch.equal(after, by_hand(path.parent))
    assert len([*cache.iterdir()]) == 2
    assert torch.equal(before, after) == (not change.startswith("the image"))
    assert [file.stat().st_size for file in path.parent.iterdir()] == [size]


@pytest.mark.usefixtures("parts_of_three")
def test_a_file_that_could_still_change_unnoticed_is_kept_later(
    photos, cache, monkeypatch, no_decoding
):
    write(photos / "a" / "0.png", age=SETTLED / 2)
    write(photos / "b" / "9.png", age=-3600)  # the clock of a file server can be ahead
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


@pytest.mark.parametrize("damage", ["empty", "half", "garbage", "header", "deleted while opened"])
def test_a_damaged_cache_is_written_again(photos, cache, damage, monkeypatch):
    expected = load_images(photos, cache=cache).images
    [path] = cache.iterdir()
    whole = path.read_bytes()
    damaged = {
        "empty": b"",
        "half": whole[: len(whole) // 2],
        "garbage": b"\xff" * len(whole),
        "header": whole[:20] + b"?" + whole[21:],
    }
    path.write_bytes(damaged.get(damage, whole))
    mapped, deleted = torch.UntypedStorage.from_file, []

    def delete_and_map(*args, **kwargs):
        if not deleted:
            path.unlink()
            deleted.append(path)
        return mapped(*args, **kwargs)

    if damage == "deleted while opened":
        monkeypatch.setattr(torch.UntypedStorage, "from_file", delete_and_map)
    assert torch.equal(load_images(photos, cache=cache).images, expected)
    assert path.read_bytes() == whole
    assert len(deleted) == (damage == "deleted while opened")


@pytest.mark.usefixtures("parts_of_three")
def test_hashes_are_kept_with_the_pixels(photos, cache, monkeypatch):
    write(photos / "a" / "0.png", (12, 16))  # grey, in a part with colours
    for name in ("3", "5", "7"):
        write(photos / "b" / f"{name}.png", (12, 16))  # a part of grey ones, from image 6 on
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


def test_large_images_are_decoded_in_small_parts(tmp_path, cache, monkeypatch):
    """The first file that can be read tells their size."""
    folder = tmp_path / "photos"
    arrays = [write(folder / f"{i}.bmp", (20, 30, 3)) for i in range(7)]
    spoil(folder / "00.bmp")
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


# Several processes

FORK = multiprocessing.get_context("fork")
forks = pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork")


def hashes_in_one_thread(photos, cache):
    torch.set_num_threads(1)  # as the workers of a DataLoader
    return load_images(photos, cache=cache).hashes


def kill_in_the_third_file(photos, cache):
    """Its data is half written, and not yet on the disk."""
    finish, count = os.fsync, [0]

    def write_half(file):
        count[0] += 1
        if count[0] == 3:
            os.ftruncate(file, os.fstat(file).st_size // 2)
            os.kill(os.getpid(), signal.SIGKILL)
        finish(file)

    os.fsync = write_half
    hashes_in_one_thread(photos, cache)


@forks
@pytest.mark.usefixtures("parts_of_three")
def test_processes_fill_one_cache_at_once(photos, cache):
    with FORK.Pool(2) as pool:
        found = pool.starmap(hashes_in_one_thread, [(photos, cache)] * 2, chunksize=1)
    assert found == [LabelledImages(by_hand(photos)).hashes] * 2
    assert sorted(path.suffix for path in cache.iterdir()) == [".safetensors"] * 4
    assert load_images(photos, cache=cache).hashes == found[0]


@forks
@pytest.mark.usefixtures("parts_of_three")
def test_a_process_that_is_killed_while_it_writes_leaves_nothing_half(photos, cache):
    process = FORK.Process(target=kill_in_the_third_file, args=(photos, cache))
    process.start()
    process.join()
    assert process.exitcode == -signal.SIGKILL
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
    """A file that broke in the meantime is never blank."""
    loaded = load_images(photos, cache=cache)
    expected, sent = loaded.images, pickle.dumps(loaded)
    for path in cache.iterdir():
        path.unlink()
    assert torch.equal(pickle.loads(sent).take([4, 3]), expected[[4, 3]])
    assert len([*cache.iterdir()]) == 1
    spoil(photos / "a" / "2.png")
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
    expected = [np.stack([each] * 3, axis=2) for each in grey] + [
        write(folder / "5.png", (8, 8, 3))
    ]
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


# Files that can't be read


@pytest.mark.parametrize("cached", [True, False])
@pytest.mark.usefixtures("parts_of_three")
def test_unreadable_files_are_named_or_skipped_and_counted(photos, cache, cached):
    expected, options = by_hand(photos), {"cache": cache if cached else False}
    whole = (photos / "a" / "0.png").read_bytes()
    spoil(photos / "a" / "0.png", photos / "b" / "9.png")
    loaded = load_images(photos, **options)
    for look in (lambda: loaded.take([3]), lambda: loaded.halves(), lambda: loaded.images):
        with pytest.raises(
            ValueError,
            match=r"2 of 10 images of .* can't be read: a/0\.png \(cannot .*\), b/9\.png \(.*\); "
            r"repair or remove them, or skip them \(`on_error='skip'`\)",
        ):
            look()
    for _ in range(2):
        with pytest.warns(Notice, match=r"2 of 10 images .* are skipped: a/0\.png, b/9\.png"):
            loaded = load_images(photos, on_error="skip", **options)
        assert loaded.counts == {"a": 4, "b": 4}
        assert loaded.description == f"{photos} (2 unreadable images skipped)"
        assert torch.equal(loaded.images, expected[1:-1])
        assert loaded.labels.tolist() == [0] * 4 + [1] * 4
        assert loaded.hashes == LabelledImages(expected[1:-1]).hashes
        twin = pickle.loads(pickle.dumps(loaded.subset([7])))
        assert torch.equal(twin.images, expected[8:9])
    (photos / "a" / "0.png").write_bytes(whole)
    with pytest.warns(Notice, match="1 of 10 images"):
        repaired = load_images(photos, on_error="skip", **options)
    assert torch.equal(repaired.images, expected[:-1])
    spoil(*photos.rglob("*.png"))
    with pytest.raises(ValueError, match=r"10 of 10 images of .* can't be read"):
        load_images(photos, on_error="skip", **options)


def test_a_file_that_could_not_be_read_for_a_while_is_tried_again(photos, cache, monkeypatch):
    """Its time and size stay the same."""
    expected, opened = by_hand(photos), Image.open

    def fails(path, *args, **kwargs):
        if path.name in ("0.png", "9.png"):
            raise OSError("the network is down")
        return opened(path, *args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(Image, "open", fails)
        with pytest.warns(Notice, match=r"2 of 10 images"):
            assert len(load_images(photos, on_error="skip", cache=cache)) == 8
    assert torch.equal(load_images(photos, on_error="skip", cache=cache).images, expected)
    assert torch.equal(load_images(photos, cache=cache).images, expected)
