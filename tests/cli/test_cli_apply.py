"""``classpattern apply``: image files in, stamped image files out."""

import numpy as np
import pytest
import torch
from command_line import run
from PIL import Image

from captum_classpattern import Pattern

CANVAS = torch.linspace(0, 1, 3 * 6 * 8).view(3, 6, 8)
MASK = torch.linspace(0, 1, 48).view(1, 6, 8)


@pytest.fixture
def pattern(tmp_path):
    path = tmp_path / "pattern.safetensors"
    Pattern(CANVAS, MASK, 3, {"settings": {"area": 0.25}}).save(path)
    return path


def image_file(path, shape=(6, 8, 3), seed=0):
    pixels = np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)
    Image.fromarray(pixels).save(path)
    return path, torch.from_numpy(pixels)


def test_by_default_the_searched_area_is_stamped(pattern, tmp_path):
    first, pixels = image_file(tmp_path / "a.png")
    second, _ = image_file(tmp_path / "b.bmp", seed=1)
    out = tmp_path / "new" / "out"
    result = run(["apply", str(pattern), str(first), str(second), "--out", str(out)])
    assert result.exit_code == 0, result.output
    assert "2 images with the pattern of class 3 (12 pixels, 25.0%) are in" in result.output
    assert sorted(path.name for path in out.iterdir()) == ["a_class3.png", "b_class3.png"]
    stamped = torch.from_numpy(np.array(Image.open(out / "a_class3.png"))).permute(2, 0, 1)
    kept = (MASK.flatten().argsort(descending=True) < 0).new_zeros(48)
    kept[MASK.flatten().argsort(descending=True)[:12]] = True
    expected = torch.where(
        kept.view(1, 6, 8), (CANVAS * 255).round().byte(), pixels.permute(2, 0, 1)
    )
    assert torch.equal(stamped, expected)
    assert torch.equal(torch.from_numpy(np.array(Image.open(first))), pixels)  # left as it was


def test_a_pattern_that_knows_its_class_names_the_files(tmp_path):
    path = tmp_path / "pattern.safetensors"
    Pattern(CANVAS, MASK, 3, {"class_name": "guinea pig, Cavia cobaya"}).save(path)
    image, _ = image_file(tmp_path / "a.png")
    result = run(["apply", str(path), str(image), "--out", str(tmp_path / "out")])
    assert result.exit_code == 0, result.output
    assert "1 images with the pattern of guinea pig, Cavia cobaya (" in result.output
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["a_guinea_pig.png"]


def test_an_area_is_refused_before_anything_is_read(tmp_path):
    line = ["apply", "missing.safetensors", "missing.png", "--out", str(tmp_path), "--area", "2"]
    result = run(line)
    assert result.exit_code == 2
    assert '"2.0" for --area. It is the share of the pixels, between 0 and 1' in result.output


def test_the_area_can_be_chosen(pattern, tmp_path):
    image, _ = image_file(tmp_path / "a.png")
    line = ["apply", str(pattern), str(image), "--out", str(tmp_path), "--area", "0.5"]
    assert "(24 pixels, 50.0%)" in run(line).output


def test_images_are_resized_cropped_and_coloured_to_fit(pattern, tmp_path):
    image, _ = image_file(tmp_path / "grey.png", (30, 20))
    result = run(["apply", str(pattern), str(image), "--out", str(tmp_path)])
    assert result.exit_code == 0, result.output
    with Image.open(tmp_path / "grey_class3.png") as written:
        assert (written.size, written.mode) == ((8, 6), "RGB")


def test_a_grey_pattern_writes_grey_images(tmp_path):
    path = tmp_path / "grey.safetensors"
    Pattern(CANVAS[:1], MASK, 0).save(path)  # without settings, the whole mask is used
    image, pixels = image_file(tmp_path / "a.png", (6, 8))
    result = run(["apply", str(path), str(image), "--out", str(tmp_path)])
    assert result.exit_code == 0, result.output
    stamped = torch.from_numpy(np.array(Image.open(tmp_path / "a_class0.png")))
    expected = ((MASK * CANVAS[:1] + (1 - MASK) * pixels / 255) * 255).round()
    assert (stamped - expected[0]).abs().max() <= 1


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda folder: [folder / "none.png"], "there is no image at"),
        (lambda folder: [folder / "text.png"], "can't be read as an image"),
        (lambda folder: [folder / "x" / "a.png", folder / "y" / "a.jpg"], "several images would"),
    ],
)
def test_wrong_images_are_refused(make, message, pattern, tmp_path):
    (tmp_path / "text.png").write_text("no picture")
    images = [str(path) for path in make(tmp_path)]
    result = run(["apply", str(pattern), *images, "--out", str(tmp_path / "out")])
    assert result.exit_code == 2
    assert message in " ".join(result.output.split())
    assert not list((tmp_path / "out").glob("*.png"))


def test_a_file_that_is_not_a_pattern_is_refused(tmp_path):
    image, _ = image_file(tmp_path / "a.png")
    result = run(["apply", str(image), str(image), "--out", str(tmp_path / "out")])
    assert result.exit_code == 2
    assert "is not a pattern written by Pattern.save" in " ".join(result.output.split())
