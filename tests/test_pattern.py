"""Patterns: the algebra of their masks, stamping and adding, the checks, the files."""

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
from refusals import refusals
from safetensors.torch import save_file

from captum_classpattern import Pattern, predictive_power
from captum_classpattern.pattern import PATTERN_FORMAT, AdditivePattern

DTYPES = [torch.float16, torch.bfloat16, torch.float32, torch.float64]
SEEN = frozenset(f"{number:012x}" for number in range(50_000))
CANVAS, MASK = torch.full((3, 4, 5), 0.5), torch.full((1, 4, 5), 0.5)
PATTERN = Pattern(CANVAS, MASK, 0)
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


def additive_pattern(scale=1.0, **changes):
    parts = {
        "canvas": random_images(3, 4, 5),
        "mask": random_images(1, 4, 5, seed=1),
        "target": 1,
        "change": scale * (2 * random_images(3, 4, 5, seed=2) - 1),
    }
    return AdditivePattern(**{**parts, **changes})


@st.composite
def patterns(draw):
    """Greyscale and colour, all dtypes, masks with few levels (many ties) and with many."""
    c, h, w = draw(st.sampled_from([1, 3])), draw(st.integers(2, 7)), draw(st.integers(2, 7))
    dtype, levels = draw(st.sampled_from(DTYPES)), draw(st.sampled_from([1, 3, 200]))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 1000)))
    mask = torch.randint(0, levels + 1, (1, h, w), generator=generator).double() / levels
    canvas = torch.rand(c, h, w, generator=generator)
    return Pattern(canvas.to(dtype), mask.to(dtype), draw(st.integers(0, 9)), {"seed": 1})


@quick
@given(patterns(), st.data())
def test_topk_keeps_the_largest_weights_with_ties_in_reading_order(pattern, data):
    total = pattern.mask.numel()
    area = data.draw(st.floats(0, 1).filter(lambda area: 0 < round(area * total) < total))
    weights = pattern.mask.flatten().tolist()
    ranked = sorted(range(total), key=lambda i: (-weights[i], i))
    expected = {i for i in ranked[: round(area * total)] if weights[i] > 0}
    top = pattern.topk(area)
    assert top.mask.flatten().tolist() == [float(i in expected) for i in range(total)]
    assert (top.mask.shape, top.mask.dtype) == (pattern.mask.shape, pattern.mask.dtype)
    assert top.canvas is pattern.canvas
    assert (top.target, top.info) == (pattern.target, pattern.info)
    assert same_bits(top.topk(area).mask, top.mask)  # also where it has fewer pixels
    assert top.area == len(expected) / total
    image = random_images(*pattern.canvas.shape, seed=7, dtype=pattern.canvas.dtype)
    assert same_bits(top.stamp(image), torch.where(top.mask.bool(), pattern.canvas, image))


@quick
@given(patterns(), st.sampled_from(DTYPES), st.integers(0, 1000))
def test_a_stamp_of_nothing_of_all_and_of_each_image_and_channel_alone(pattern, dtype, seed):
    images = random_images(3, *pattern.canvas.shape, seed=seed, dtype=dtype)
    stamped = pattern.stamp(images)
    assert same_bits(torch.stack([pattern.stamp(image) for image in images]), stamped)
    for c, canvas in enumerate(pattern.canvas[:, None]):
        assert same_bits(replace(pattern, canvas=canvas).stamp(images[:, [c]]), stamped[:, [c]])
    assert same_bits(pattern(images), stamped)  # as captum.robust calls it
    assert same_bits(pattern.perturb(images, strength=1), stamped)
    assert same_bits(pattern.perturb(images, strength=0), images)
    empty, full = (replace(pattern, mask=torch.full_like(pattern.mask, x)) for x in (0, 1))
    assert same_bits(empty.stamp(images), images)
    assert same_bits(full.stamp(images), pattern.canvas.to(dtype).expand_as(images))
    assert (empty.area, full.area) == (0, 1)
    assert [each.at_own_area() for each in (empty, full)] == [empty, full]  # the same objects


def test_stamp_by_hand():
    canvas = torch.tensor([[[1.0, 0.0], [0.5, 1.0]]])
    pattern = Pattern(canvas, torch.tensor([[[1.0, 0.5], [0.0, 0.25]]]), 0)
    images = torch.full((1, 1, 2, 2), 0.5)
    assert pattern.stamp(images)[0, 0].tolist() == [[1.0, 0.25], [0.5, 0.625]]
    assert pattern.perturb(images, 0.5)[0, 0].tolist() == [[0.75, 0.375], [0.5, 0.5625]]
    assert pattern.pixels[0].tolist() == [[1.0, 0.0], [0.0, 0.25]]
    assert pattern.area == 0.4375
    assert images.eq(0.5).all()


def test_a_pattern_is_a_perturbation_that_is_compared_by_identity_and_owns_its_info():
    info = {"seed": 1}
    pattern, twin = (Pattern(CANVAS, MASK, np.int64(2), info) for _ in range(2))
    assert isinstance(pattern, Perturbation)
    assert pattern == pattern != twin
    assert len({pattern, twin, pattern}) == 2
    assert type(pattern.target) is int
    for other in (twin, pattern.topk(0.5)):
        other.info["seed"] = 2
    assert pattern.info == info == {"seed": 1}
    random_pattern().info["x"] = 1
    assert random_pattern().info == {}


def test_a_searched_pattern_has_the_area_of_its_search_and_its_powers_only_there():
    """Its pixels weigh from 0.5 to 1: their mean would be 0.034 at an area of 0.05."""
    known = {"search_power": 0.9, "search_margin": 2.0, "settings": {"area": 0.05}, "seed": 1}
    graded = random_pattern(info=known)
    assert repr(graded) == "Pattern(target=2, canvas=(3, 4, 5), area=0.0500, search_power=0.9)"
    assert (graded.topk(0.05).info, graded.topk(0.05).area) == (known, 0.05)
    larger = graded.topk(0.25)
    assert (larger.info, larger.area) == ({"settings": {"area": 0.05}, "seed": 1}, 0.25)
    mean = pytest.approx(float(graded.mask.mean()))
    for invalid in (None, [], {"area": "large"}, {"area": None}):
        assert random_pattern(info={"settings": invalid}).area == mean
    assert "search_power" not in repr(random_pattern(info={"search_power": [1]}))


@pytest.mark.parametrize("make", [random_pattern, additive_pattern])
def test_a_move_takes_all_along(monkeypatch, make):
    pattern, moved = make(info={"seed": 3}), []
    monkeypatch.setattr(torch.Tensor, "to", lambda tensor, device: moved.append(device) or tensor)
    there = pattern.to("cuda")
    assert moved == ["cuda"] * len(pattern._tensors())
    assert vars(there) == vars(pattern)
    assert type(there) is type(pattern)


# ---- patterns that are added


@pytest.mark.parametrize("strength", [1.0, 0.25])
def test_a_change_is_added_pixel_by_pixel(strength):
    added, images = additive_pattern(), random_images(40, 3, 4, 5)
    stamped = added.perturb(images, strength)
    for n, c, y, x in [(0, 0, 0, 0), (7, 1, 2, 3), (39, 2, 3, 1), (3, 0, 3, 2)]:
        value = images[n, c, y, x] + strength * added.mask[0, y, x] * added.change[c, y, x]
        assert float(stamped[n, c, y, x]) == pytest.approx(min(max(float(value), 0), 1))
    assert torch.equal(added.perturb(images[0], strength), stamped[0])
    assert stamped.min() == 0 or stamped.max() == 1 or strength < 1
    assert torch.equal(additive_pattern(canvas=CANVAS).perturb(images, strength), stamped)
    assert torch.equal(additive_pattern(0.0).stamp(images), images)
    assert torch.equal(added.perturb(images, 0.0), images)
    assert torch.equal(additive_pattern(mask=0 * MASK).stamp(images), images)


def test_top_pixels_keep_their_change_and_are_scored():
    added, images = additive_pattern(), random_images(40, 3, 4, 5)
    top = added.topk(0.25)
    assert (type(top), int(top.mask.sum())) == (AdditivePattern, 5)
    power = predictive_power(lambda x: x.flatten(1)[:, :3], added, images, [0] * 40, area=0.25)
    expected = (images + top.mask * added.change).clamp(0, 1).flatten(1)[:, :3]
    assert power.value == float((expected.argmax(1) == 1).double().mean())


# ---- what is refused


def with_value(tensor, value):
    changed = tensor.clone()
    changed[0, 1, 1] = value
    return changed


REFUSALS = {
    "canvas (H, W)": lambda: Pattern(CANVAS[0], MASK, 0),
    "mask of another size": lambda: Pattern(CANVAS, MASK.mT, 0),
    "canvas with NaN": lambda: Pattern(with_value(CANVAS, torch.nan), MASK, 0),
    "mask below 0": lambda: Pattern(CANVAS, with_value(MASK, -0.25), 0),
    "canvas of bytes": lambda: Pattern((CANVAS * 255).byte(), MASK, 0),
    "target True": lambda: Pattern(CANVAS, MASK, True),
    "target -1": lambda: Pattern(CANVAS, MASK, -1),
    "another target later": lambda: setattr(PATTERN, "target", 1),
    "area of no pixel": lambda: PATTERN.topk(0.02),
    "area of all pixels": lambda: PATTERN.topk(0.99),
    "area NaN": lambda: PATTERN.topk(torch.nan),
    "images of one channel": lambda: PATTERN.stamp(torch.rand(2, 1, 4, 5)),
    "images of bytes": lambda: PATTERN.stamp(torch.zeros(2, 3, 4, 5, dtype=torch.uint8)),
    "strength NaN": lambda: PATTERN.perturb(CANVAS, torch.nan),
    "change of one channel": lambda: additive_pattern(change=MASK),
    "change with NaN": lambda: additive_pattern(change=with_value(CANVAS, torch.nan)),
    "change of integers": lambda: additive_pattern(change=CANVAS.long()),
    "area of one pixel": lambda: Pattern(CANVAS[:, :1, :1], MASK[:, :1, :1], 0).topk(0.05),
    "no file": lambda: Pattern.load("absent.safetensors"),
}


def test_refusals(snapshot):
    assert refusals(REFUSALS) == snapshot


# ---- files


INFO = {"seed": 3, "search_power": None, "loss_curve": [0.1, 2.5], "text": "żółw"}
SQUARE = random_images(1, 4, 4)
SAVED = {
    **{str(dtype): random_pattern(dtype=dtype, info=INFO) for dtype in DTYPES},
    "additive": additive_pattern(info=INFO, seen=frozenset(["0" * 12])),
    "not contiguous": Pattern(random_images(4, 4, 3).permute(2, 0, 1), SQUARE.mT, 0),
    "with gradients": Pattern(CANVAS.clone().requires_grad_(), MASK.clone().requires_grad_(), 0),
    "one tensor": Pattern(SQUARE, SQUARE, 0),
    "search images are unknown": random_pattern(seen=None),
    "50,000 search images": random_pattern(seen=SEEN),
}


@pytest.mark.parametrize("case", SAVED)
def test_a_file_keeps_all_of_a_pattern(tmp_path, case):
    pattern = SAVED[case]
    assert 0 < pattern.area < 1
    pattern.save(tmp_path / "p")
    loaded = Pattern.load(str(tmp_path / "p"))
    assert type(loaded) is type(pattern)
    for name, tensor in pattern._tensors().items():
        assert same_bits(getattr(loaded, name), tensor.detach())
    for name in ("target", "info", "seen"):
        assert getattr(loaded, name) == getattr(pattern, name)
    assert [file.name for file in tmp_path.iterdir()] == ["p"]
    assert (tmp_path / "p").stat().st_size < 2_000 + 6 * len(pattern.seen or ())


def test_the_file_holds_only_a_json_header_and_numbers(tmp_path):
    random_pattern(info={"seed": 3}).save(tmp_path / "p.safetensors")
    content = (tmp_path / "p.safetensors").read_bytes()
    length = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + length])
    metadata = header.pop("__metadata__")
    assert metadata == {"format": PATTERN_FORMAT, "target": "2", "info": '{"seed": 3}'}
    assert set(header) == {"canvas", "mask"}
    end = max(entry["data_offsets"][1] for entry in header.values())
    assert len(content) == 8 + length + end == 8 + length + 4 * (3 * 20 + 20)


@pytest.mark.parametrize("step", [None, (os, "fsync"), (Path, "replace")])
def test_a_save_that_fails_keeps_the_old_file(tmp_path, monkeypatch, step):
    """At a step of writing, or since JSON can't represent the info."""
    path, info = tmp_path / "p.safetensors", {} if step else {"mask": torch.ones(1)}
    PATTERN.save(path)
    before = path.read_bytes()
    if step:
        monkeypatch.setattr(*step, lambda *_: 1 / 0)
    with pytest.raises((ZeroDivisionError, TypeError), match=r"division|not JSON serializable"):
        random_pattern(info=info).save(path)
    monkeypatch.undo()
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def write(path, tensors, info="{}", **changes):
    """A safetensors file as a stranger may have made it."""
    made = {
        name: torch.full((1, 2, 2), value) if isinstance(value, float) else value
        for name, value in {"canvas": 0.5, "mask": 0.5, **tensors}.items()
        if value is not None
    }
    metadata = {"format": PATTERN_FORMAT, "target": "0", "info": info, **changes}
    save_file(made, path, {name: text for name, text in metadata.items() if text is not None})


@pytest.mark.parametrize(
    ("tensors", "metadata", "reason"),
    [
        ({}, {"format": None}, "its metadata has format None"),
        ({"mask": None}, {}, "it holds canvas, not canvas and mask"),
        ({"other": 1.0}, {}, "it holds canvas, mask, other, not canvas and mask"),
        ({"seen": torch.zeros(5, dtype=torch.uint8)}, {}, "hashes must be uint8"),
        ({"mask": 2.0}, {}, r"mask must lie in \[0, 1\]"),
        ({}, {"target": "cat"}, "cat"),
        ({}, {"target": "-1"}, "non-negative int, got -1"),
        ({}, {"info": "[]"}, "its info is not a JSON object"),
        ({"canvas": torch.zeros(1, 0, 2), "mask": torch.zeros(1, 0, 2)}, {}, r"got \(1, 0, 2\)"),
        *(
            ({}, {"size": size}, "at least .* got")
            for size in ("[2.5, 8]", '"88"', "[1, 8]", "[8]", "8")
        ),
        ({}, {"info": f'{{"settings": {{"area": {"9" * 400}}}}}'}, "it has the number 9999"),
    ],
)
def test_an_untrusted_file_is_an_error_and_not_a_crash(tmp_path, tensors, metadata, reason):
    write(tmp_path / "p.safetensors", tensors, **metadata)
    with pytest.raises(
        ValueError, match=rf"p\.safetensors is damaged, or was not .*{reason}.*: save"
    ):
        Pattern.load(tmp_path / "p.safetensors")


def test_a_file_of_another_format(tmp_path):
    for content in (b"", b"just some text, longer than a header"):
        (tmp_path / "notes.txt").write_bytes(content)
        with pytest.raises(
            ValueError, match=r"notes\.txt is damaged, or was not written by Pattern"
        ):
            Pattern.load(tmp_path / "notes.txt")


@pytest.mark.parametrize("info", ['{"seen_file": "../seen"}', '{"search_images_hash": "0"}'])
def test_search_images_whose_hashes_are_not_in_the_file_are_unknown(tmp_path, info):
    write(tmp_path / "p", {}, info)
    loaded = Pattern.load(tmp_path / "p")
    assert (loaded.seen, "seen_file" in loaded.info) == (None, False)
