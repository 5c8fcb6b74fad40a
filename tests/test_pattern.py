"""Pattern: the algebra of masks, the checks, the files."""

import dataclasses
import json
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from captum.robust import Perturbation
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from captum_classpattern import Pattern
from captum_classpattern.images import LabelledImages
from captum_classpattern.pattern import FORMAT, pixels_kept
from captum_classpattern.scores.power import check_unseen

DTYPES = [torch.float16, torch.bfloat16, torch.float32, torch.float64]
quick = settings(max_examples=40, deadline=None, database=None)


def same_bits(a, b):
    return (
        a.dtype == b.dtype
        and a.shape == b.shape
        and torch.equal(a.contiguous().view(torch.uint8), b.contiguous().view(torch.uint8))
    )


def random_images(*shape, seed=0, dtype=torch.float32):
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


def random_pattern(c=3, h=4, w=5, seed=0, dtype=torch.float32, **kwargs):
    canvas = random_images(c, h, w, seed=seed, dtype=dtype)
    return Pattern(canvas, random_images(1, h, w, seed=seed + 1, dtype=dtype), 2, **kwargs)


@st.composite
def patterns(draw):
    """Greyscale and colour, all dtypes, masks with few levels (many ties) and with many."""
    c, h, w = draw(st.sampled_from([1, 3])), draw(st.integers(2, 7)), draw(st.integers(2, 7))
    dtype, levels = draw(st.sampled_from(DTYPES)), draw(st.sampled_from([1, 3, 200]))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 1000)))
    mask = torch.randint(0, levels + 1, (1, h, w), generator=generator).double() / levels
    canvas = torch.rand(c, h, w, generator=generator)
    return Pattern(canvas.to(dtype), mask.to(dtype), draw(st.integers(0, 9)), {"seed": 1})


@st.composite
def patterns_and_areas(draw):
    pattern = draw(patterns())
    total = pattern.mask.numel()
    return pattern, draw(st.floats(0, 1).filter(lambda area: 0 < round(area * total) < total))


@st.composite
def patterns_and_images(draw):
    pattern = draw(patterns())
    dtype, seed = draw(st.sampled_from(DTYPES)), draw(st.integers(0, 1000))
    return pattern, random_images(3, *pattern.canvas.shape, seed=seed, dtype=dtype)


@quick
@given(patterns_and_areas())
def test_topk_keeps_the_largest_weights_with_ties_in_reading_order(case):
    pattern, area = case
    weights = pattern.mask.flatten().tolist()
    ranked = sorted(range(len(weights)), key=lambda i: (-weights[i], i))
    expected = set(ranked[: round(area * len(weights))])
    top = pattern.topk(area)
    assert top.mask.flatten().tolist() == [float(i in expected) for i in range(len(weights))]
    assert top.mask.shape == pattern.mask.shape
    assert top.mask.dtype == pattern.mask.dtype
    assert top.canvas is pattern.canvas
    assert (top.target, top.info) == (pattern.target, pattern.info)


@quick
@given(patterns_and_areas())
def test_topk_twice_is_topk_once(case):
    pattern, area = case
    once = pattern.topk(area)
    assert same_bits(once.topk(area).mask, once.mask)
    assert once.area == round(area * once.mask.numel()) / once.mask.numel()


@quick
@given(patterns_and_images())
def test_an_empty_mask_changes_nothing(case):
    pattern, images = case
    empty = dataclasses.replace(pattern, mask=torch.zeros_like(pattern.mask))
    assert same_bits(empty.stamp(images), images)
    assert empty.area == 0


@quick
@given(patterns_and_images())
def test_a_full_mask_gives_the_canvas(case):
    pattern, images = case
    full = dataclasses.replace(pattern, mask=torch.ones_like(pattern.mask))
    expected = pattern.canvas.to(images.dtype).expand_as(images)
    assert same_bits(full.stamp(images), expected)
    assert full.area == 1


@quick
@given(patterns_and_images())
def test_strength_0_changes_nothing_and_strength_1_is_a_stamp(case):
    pattern, images = case
    assert same_bits(pattern.perturb(images, strength=0), images)
    assert same_bits(pattern.perturb(images, strength=1), pattern.stamp(images))


@quick
@given(patterns_and_images())
def test_a_single_image_is_stamped_as_in_a_batch(case):
    pattern, images = case
    batch = pattern.stamp(images)
    for image, stamped in zip(images, batch):
        assert same_bits(pattern.stamp(image), stamped)


@quick
@given(patterns_and_areas())
def test_a_binary_stamp_takes_each_pixel_from_the_canvas_or_the_image(case):
    pattern, area = case
    top = pattern.topk(area)
    image = random_images(*pattern.canvas.shape, seed=7, dtype=pattern.canvas.dtype)
    expected = torch.where(top.mask.bool(), pattern.canvas, image)
    assert same_bits(top.stamp(image), expected)


def test_stamp_by_hand():
    canvas = torch.tensor([[[1.0, 0.0], [0.5, 1.0]]])
    pattern = Pattern(canvas, torch.tensor([[[1.0, 0.5], [0.0, 0.25]]]), 0)
    images = torch.full((1, 1, 2, 2), 0.5)
    assert pattern.stamp(images)[0, 0].tolist() == [[1.0, 0.25], [0.5, 0.625]]
    assert pattern.perturb(images, 0.5)[0, 0].tolist() == [[0.75, 0.375], [0.5, 0.5625]]
    assert pattern.pixels[0].tolist() == [[1.0, 0.0], [0.0, 0.25]]
    assert pattern.area == 0.4375
    assert images.eq(0.5).all()


def test_the_mask_is_shared_by_the_channels():
    pattern = random_pattern(c=3)
    images = random_images(2, 3, 4, 5, seed=9)
    for channel in range(3):
        grey = Pattern(pattern.canvas[channel : channel + 1], pattern.mask, 0)
        alone = grey.stamp(images[:, channel : channel + 1])
        assert torch.equal(pattern.stamp(images)[:, channel : channel + 1], alone)


def test_frozen():
    with pytest.raises(dataclasses.FrozenInstanceError):
        random_pattern().target = 1


def test_compared_by_identity_and_hashable():
    pattern, twin = random_pattern(), random_pattern()
    assert pattern == pattern
    assert pattern != twin
    assert len({pattern, twin, pattern}) == 2


def test_is_a_perturbation_of_captum():
    pattern = random_pattern()
    images = random_images(2, 3, 4, 5)
    assert isinstance(pattern, Perturbation)
    assert torch.equal(pattern(images), pattern.stamp(images))


def test_info_is_not_shared():
    a, b = random_pattern(), random_pattern()
    a.info["x"] = 1
    assert b.info == {}


def test_to_moves_both_tensors_and_nothing_else_changes():
    pattern = random_pattern(info={"seed": 3})
    moved = pattern.to("cpu")
    assert torch.equal(moved.canvas, pattern.canvas)
    assert torch.equal(moved.mask, pattern.mask)
    assert (moved.target, moved.info) == (2, {"seed": 3})


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("channels", [1, 3])
def test_save_and_load_give_the_same_bits(tmp_path, dtype, channels):
    info = {"seed": 3, "search_power": None, "loss_curve": [0.1, 2.5], "text": "żółw"}
    pattern = random_pattern(c=channels, dtype=dtype, info=info)
    pattern.save(tmp_path / "p.safetensors")
    loaded = Pattern.load(str(tmp_path / "p.safetensors"))
    assert same_bits(loaded.canvas, pattern.canvas)
    assert same_bits(loaded.mask, pattern.mask)
    assert (loaded.target, loaded.info) == (2, info)
    assert [file.name for file in tmp_path.iterdir()] == ["p.safetensors"]


def test_save_takes_any_layout(tmp_path):
    turned = random_images(4, 5, 3).permute(2, 0, 1)
    pattern = Pattern(turned, random_images(1, 5, 4).transpose(1, 2), 0)
    pattern.save(tmp_path / "p.safetensors")
    loaded = Pattern.load(tmp_path / "p.safetensors")
    assert torch.equal(loaded.canvas, turned)
    assert torch.equal(loaded.mask, pattern.mask)


def test_tensors_that_require_gradients(tmp_path):
    image = random_images(3, 4, 5).requires_grad_()
    pattern = Pattern(image, random_images(1, 4, 5).requires_grad_(), 0)
    assert 0 < pattern.area < 1
    pattern.save(tmp_path / "p.safetensors")
    assert torch.equal(Pattern.load(tmp_path / "p.safetensors").canvas, image)


def test_save_takes_one_tensor_as_canvas_and_mask(tmp_path):
    image = random_images(1, 4, 5)
    Pattern(image, image, 0).save(tmp_path / "p.safetensors")
    loaded = Pattern.load(tmp_path / "p.safetensors")
    assert torch.equal(loaded.canvas, image)
    assert torch.equal(loaded.mask, image)


def test_the_file_holds_only_a_json_header_and_numbers(tmp_path):
    pattern = random_pattern(info={"seed": 3})
    pattern.save(tmp_path / "p.safetensors")
    content = (tmp_path / "p.safetensors").read_bytes()
    length = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + length])
    metadata = header.pop("__metadata__")
    assert len(bytes.fromhex(metadata.pop("sha256"))) == 32
    assert metadata == {"format": FORMAT, "target": "2", "info": '{"seed": 3}'}
    assert set(header) == {"canvas", "mask"}
    end = max(entry["data_offsets"][1] for entry in header.values())
    assert len(content) == 8 + length + end == 8 + length + 4 * (3 * 20 + 20)


def test_a_save_that_json_can_not_represent_keeps_the_old_file(tmp_path):
    path = tmp_path / "p.safetensors"
    random_pattern(info={"seed": 3}).save(path)
    before = path.read_bytes()
    with pytest.raises(TypeError, match="not JSON serializable"):
        random_pattern(seed=5, info={"mask": torch.ones(1)}).save(path)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(("owner", "step"), [(os, "fsync"), (Path, "replace")])
def test_a_save_that_fails_keeps_the_old_file(tmp_path, monkeypatch, owner, step):
    path = tmp_path / "p.safetensors"
    random_pattern().save(path)
    before = path.read_bytes()

    def fail(*arguments):
        raise OSError("disk full")

    monkeypatch.setattr(owner, step, fail)
    with pytest.raises(OSError, match="disk full"):
        random_pattern(seed=5).save(path)
    monkeypatch.undo()
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_load_of_a_missing_file(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no pattern file at .*absent\.safetensors"):
        Pattern.load(tmp_path / "absent.safetensors")


def metadata(**changes):
    return {"format": FORMAT, "target": "0", "info": "{}", **changes}


@pytest.mark.parametrize(
    ("tensors", "meta", "reason"),
    [
        ({"canvas": 0.5}, None, "its metadata has format None"),
        ({"canvas": 0.5, "mask": 0.5}, {"format": "other"}, "its metadata has format 'other'"),
        ({"canvas": 0.5}, metadata(), "mask"),
        ({"canvas": 0.5, "mask": 2.0}, metadata(), r"mask must lie in \[0, 1\]"),
        ({"canvas": 0.5, "mask": 0.5}, metadata(target="cat"), "cat"),
        ({"canvas": 0.5, "mask": 0.5}, metadata(target="-1"), "non-negative int, got -1"),
        ({"canvas": 0.5, "mask": 0.5}, metadata(info="{"), "Expecting"),
        ({"canvas": 0.5, "mask": 0.5}, {"format": FORMAT, "info": "{}"}, "target"),
    ],
)
def test_load_of_another_safetensors_file(tmp_path, tensors, meta, reason):
    path = tmp_path / "other.safetensors"
    save_file({name: torch.full((1, 2, 2), value) for name, value in tensors.items()}, path, meta)
    with pytest.raises(
        ValueError, match=rf"other\.safetensors is not a pattern written by .*{reason}"
    ):
        Pattern.load(path)


@pytest.mark.parametrize("content", [b"", b"just some text, longer than a header", b"\x80\x04N."])
def test_load_of_a_file_of_another_format(tmp_path, content):
    path = tmp_path / "notes.txt"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"notes\.txt is not a pattern written by Pattern\.save"):
        Pattern.load(path)


CANVAS, MASK = torch.full((3, 4, 5), 0.5), torch.full((1, 4, 5), 0.5)


def with_value(tensor, value):
    changed = tensor.clone()
    changed[0, 1, 1] = value
    return changed


@pytest.mark.parametrize(
    ("canvas", "mask", "target", "error", "text"),
    [
        (CANVAS[0], MASK, 0, ValueError, r"canvas must be \(C, H, W\), got \(4, 5\)"),
        (CANVAS[None], MASK, 0, ValueError, r"canvas must be .*, got \(1, 3, 4, 5\)"),
        (CANVAS, MASK[0], 0, ValueError, r"expected \(1, 4, 5\), got \(4, 5\)"),
        (CANVAS, CANVAS, 0, ValueError, r"mask must be \(1, H, W\).*got \(3, 4, 5\)"),
        (CANVAS, MASK.mT, 0, ValueError, r"expected \(1, 4, 5\), got \(1, 5, 4\)"),
        (with_value(CANVAS, 1.5), MASK, 0, ValueError, r"canvas must lie in \[0, 1\].*to 1\.5"),
        (with_value(CANVAS, torch.nan), MASK, 0, ValueError, "canvas must lie in .*nan"),
        (CANVAS, with_value(MASK, -0.25), 0, ValueError, r"mask must lie in .*from -0\.25"),
        (CANVAS, with_value(MASK, torch.nan), 0, ValueError, "mask must lie in .*nan"),
        (CANVAS, with_value(MASK, torch.inf), 0, ValueError, "mask must lie in .*inf"),
        ((CANVAS * 255).byte(), MASK, 0, TypeError, "canvas must be a floating .*got torch.uint8"),
        (CANVAS, MASK > 0, 0, TypeError, "mask must be a floating .*got torch.bool"),
        (CANVAS.tolist(), MASK, 0, TypeError, "canvas must be a floating point Tensor.*got list"),
        (CANVAS, MASK, True, TypeError, "target must be a non-negative int, got True"),
        (CANVAS, MASK, -1, TypeError, "target must be a non-negative int, got -1"),
        (CANVAS, MASK, 1.0, TypeError, r"target must be a non-negative int, got 1\.0"),
        (CANVAS, MASK, "cat", TypeError, "target must be a non-negative int, got 'cat'"),
    ],
)
def test_refused(canvas, mask, target, error, text):
    with pytest.raises(error, match=text):
        Pattern(canvas, mask, target)


@pytest.mark.parametrize("area", [0.0, 0.02, 1.0, 0.99])
def test_an_area_of_no_pixel_or_of_all(area):
    with pytest.raises(ValueError, match=rf"{area} of 4x5 = 20 pixels rounds to none or all"):
        random_pattern().topk(area)


@pytest.mark.parametrize("area", [-0.1, 1.5, 50, float("nan")])
def test_an_area_out_of_range(area):
    with pytest.raises(ValueError, match=r"a number out of range; choose from 0\.05 to 0\.95"):
        random_pattern().topk(area)


@pytest.mark.parametrize(
    ("area", "size", "k"), [(0.05, (28, 28), 39), (0.05, (32, 32), 51), (0.01, (10, 10), 1)]
)
def test_pixels_kept(area, size, k):
    assert pixels_kept(area, size) == k


@pytest.mark.parametrize("shape", [(4, 5), (2, 1, 4, 5), (2, 3, 5, 4), (1, 2, 3, 4, 5)])
def test_images_of_another_shape(shape):
    with pytest.raises(ValueError, match=r"images must be \(N, 3, 4, 5\) or \(3, 4, 5\).*got \("):
        random_pattern().stamp(torch.rand(shape))


@pytest.mark.parametrize("strength", [-0.1, 1.1, float("nan")])
def test_a_strength_out_of_range(strength):
    with pytest.raises(ValueError, match=rf"strength must lie in \[0, 1\], got {strength}"):
        random_pattern().perturb(torch.rand(3, 4, 5), strength)


def test_repr_is_short_however_long_the_search_was():
    info = {"search_power": 0.5, "losses": [0.5] * 50_000}
    pattern = Pattern(torch.rand(3, 8, 8), torch.full((1, 8, 8), 0.25), 2, info)
    assert repr(pattern) == "Pattern(target=2, canvas=(3, 8, 8), area=0.2500, search_power=0.5)"


def test_a_searched_pattern_has_the_area_of_its_search():
    """Its pixels weigh from 0.5 to 1: their mean would be 0.034 at an area of 0.05."""
    graded = random_pattern(info={"settings": {"area": 0.05}})
    assert graded.area == 0.05
    assert "area=0.0500" in repr(graded)
    assert graded.topk(0.25).area == 0.25
    assert random_pattern().area == pytest.approx(float(random_pattern().mask.mean()))


SEEN = frozenset(f"{number:012x}" for number in range(50_000))


def test_a_pattern_in_one_file_knows_its_search_images(tmp_path):
    replace(random_pattern(), seen=SEEN).save(tmp_path / "p.safetensors")
    assert Pattern.load(tmp_path / "p.safetensors").seen == SEEN
    assert (tmp_path / "p.safetensors").stat().st_size < 6 * len(SEEN) + 2_000


def test_the_patterns_of_a_search_share_a_file_of_its_search_images(tmp_path):
    for number in range(3):
        pattern = replace(random_pattern(seed=number), seen=SEEN)
        pattern.save(tmp_path / f"{number}.safetensors", seen_beside=True)
    [beside] = tmp_path.glob("seen_*.safetensors")
    assert all((tmp_path / f"{n}.safetensors").stat().st_size < 2_000 for n in range(3))
    loaded = Pattern.load(tmp_path / "0.safetensors")
    assert loaded.seen == SEEN
    moved = tmp_path / "elsewhere.safetensors"
    loaded.save(moved)
    beside.unlink()
    assert Pattern.load(moved).seen == SEEN
    assert Pattern.load(tmp_path / "0.safetensors").seen is None


def test_a_pattern_whose_search_images_are_lost_is_not_scored(tmp_path):
    pattern = replace(random_pattern(), seen=SEEN)
    pattern.save(tmp_path / "p.safetensors", seen_beside=True)
    [beside] = tmp_path.glob("seen_*.safetensors")
    beside.unlink()
    source = LabelledImages(torch.rand(4, 3, 4, 5), [0, 1, 0, 1], argument="images")
    with pytest.raises(ValueError, match=f"hashes .{beside.name}. was not in the pattern's folder"):
        check_unseen(Pattern.load(tmp_path / "p.safetensors"), source)


def test_the_search_images_of_another_search_are_refused(tmp_path):
    pattern = replace(random_pattern(), seen=SEEN)
    pattern.save(tmp_path / "p.safetensors", seen_beside=True)
    [beside] = tmp_path.glob("seen_*.safetensors")
    replace(pattern, seen=frozenset(["0" * 12])).save(tmp_path / "q.safetensors", seen_beside=True)
    [other] = set(tmp_path.glob("seen_*.safetensors")) - {beside}
    other.replace(beside)
    with pytest.raises(ValueError, match=f"{beside.name}, which holds its search images, has chan"):
        Pattern.load(tmp_path / "p.safetensors")


@pytest.mark.parametrize("name", ["../seen_1.safetensors", "/etc/passwd", "a/b"])
def test_an_untrusted_file_can_not_name_another_folder(tmp_path, name):
    random_pattern(info={"seen_file": name}).save(tmp_path / "p.safetensors")
    # saving drops the name of a file that it does not write, so it is put in by hand
    tensors = load_file(tmp_path / "p.safetensors")
    info = json.dumps({"seen_file": name})
    save_file(tensors, tmp_path / "p.safetensors", {"format": FORMAT, "target": "0", "info": info})
    with pytest.raises(ValueError, match="as the file of its search images"):
        Pattern.load(tmp_path / "p.safetensors")


def test_a_pattern_of_version_0_1_is_to_be_searched_again_before_it_is_scored(tmp_path):
    """It has a list of hashes in its info, and no checksum."""
    hashes = sorted(SEEN)[:3]
    info = json.dumps({"search_image_hashes": hashes, "search_images_hash": "x"})
    tensors = {"canvas": torch.rand(3, 4, 5), "mask": torch.rand(1, 4, 5)}
    metadata = {"format": FORMAT, "target": "1", "info": info}
    save_file(tensors, tmp_path / "old.safetensors", metadata)
    source = LabelledImages(torch.rand(4, 3, 4, 5), [0, 1, 0, 1], argument="images")
    with pytest.raises(ValueError, match=r"patterns of version 0\.1: search them again"):
        check_unseen(Pattern.load(tmp_path / "old.safetensors"), source)


def test_a_file_with_a_flipped_bit_does_not_load(tmp_path):
    path = tmp_path / "p.safetensors"
    pattern = replace(random_pattern(info={"seed": 3}), seen=frozenset(sorted(SEEN)[:2]))
    pattern.save(path)
    content = path.read_bytes()
    for place in range(0, len(content), 7):
        flipped = bytearray(content)
        flipped[place] ^= 1
        path.write_bytes(flipped)
        with pytest.raises(ValueError, match="is not a pattern written by"):
            Pattern.load(path)
    path.write_bytes(content)
    assert torch.equal(Pattern.load(path).mask, pattern.mask)


def test_numpy_integers_are_targets_and_info_is_copied():
    info = {"seed": 1}
    pattern = Pattern(torch.rand(1, 4, 4), torch.rand(1, 4, 4), np.int64(2), info)
    assert type(pattern.target) is int
    pattern.topk(0.5).info["seed"] = 2
    assert pattern.info == info == {"seed": 1}


def test_integer_images_are_refused():
    pattern = Pattern(torch.rand(1, 4, 4), torch.rand(1, 4, 4), 0)
    with pytest.raises(
        TypeError, match=r"images must be a floating point Tensor .* got torch\.uint8"
    ):
        pattern.stamp(torch.zeros(2, 1, 4, 4, dtype=torch.uint8))


@pytest.mark.parametrize(
    ("info", "more"),
    [
        ("[]", {}),
        ("null", {}),
        ("[" * 5_000 + "]" * 5_000, {}),
        ("{}", {"seen": torch.zeros(5, dtype=torch.uint8)}),
        ("{}", {"seen": torch.zeros(2, 6)}),
        ("{}", {"other": torch.tensor(1.0)}),
    ],
)
def test_an_untrusted_file_is_an_error_and_not_a_crash(tmp_path, info, more):
    tensors = {"canvas": torch.rand(3, 4, 5), "mask": torch.rand(1, 4, 5), **more}
    metadata = {"format": FORMAT, "target": "1", "info": info}
    save_file(tensors, tmp_path / "p.safetensors", metadata)
    with pytest.raises(ValueError, match="is not a pattern written by"):
        Pattern.load(tmp_path / "p.safetensors")


@pytest.mark.parametrize("settings", [None, [], {"area": "large"}, {"area": None}])
def test_invalid_settings_do_not_set_the_area(settings):
    pattern = random_pattern(info={"settings": settings})
    assert pattern.area == pytest.approx(float(pattern.mask.mean()))


def test_a_searched_pattern_that_has_lost_its_hashes_is_not_scored(tmp_path):
    tensors = {"canvas": torch.rand(3, 4, 5), "mask": torch.rand(1, 4, 5)}
    info = json.dumps({"search_images_hash": "a" * 32})
    save_file(tensors, tmp_path / "p", {"format": FORMAT, "target": "1", "info": info})
    assert Pattern.load(tmp_path / "p").seen is None


@pytest.mark.parametrize("seen", [None, frozenset(), frozenset(["0" * 12])])
@pytest.mark.parametrize("beside", [True, False])
def test_the_search_images_survive_a_save(tmp_path, seen, beside):
    replace(random_pattern(), seen=seen).save(tmp_path / "p", seen_beside=beside)
    assert Pattern.load(tmp_path / "p").seen == seen


def test_an_invalid_power_does_not_break_the_repr():
    assert "search_power" not in repr(random_pattern(info={"search_power": [1]}))


def test_a_pattern_draws_itself():
    pattern = random_pattern()
    _, axes = pattern.plot(use_pyplot=False)
    assert [axis.get_title() for axis in axes[0]][:2] == ["canvas", "mask"]
    assert axes[0, 0].get_ylabel() == f"class {pattern.target}"
    kept = pattern.at_own_area().mask[0] > 0
    drawn = torch.from_numpy(axes[0, 2].images[0].get_array().data)
    canvas = (255 * pattern.canvas).round().byte().permute(1, 2, 0)
    assert torch.equal(drawn[kept], canvas[kept])
