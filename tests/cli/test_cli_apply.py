"""``classpattern apply``: image files in, stamped image files out."""

from pathlib import Path

import numpy as np
import pytest
import torch
from command_line import error_of, run
from PIL import Image

from captum_classpattern import Pattern

CANVAS = torch.linspace(0, 1, 3 * 6 * 8).view(3, 6, 8)
MASK = torch.linspace(0, 1, 48).view(1, 6, 8)


@pytest.fixture(autouse=True)
def _files(tmp_path, monkeypatch):
    """A pattern, and two images of its size."""
    monkeypatch.chdir(tmp_path)
    Pattern(CANVAS, MASK, 3, {"settings": {"area": 0.25}}).save("pattern.safetensors")
    save_noise("a.png")
    save_noise("b.bmp")
    Path("text.png").write_text("no picture")


def save_noise(path, shape=(6, 8, 3)):
    pixels = np.random.default_rng(len(path)).integers(0, 256, shape, dtype=np.uint8)
    Image.fromarray(pixels).save(path)


def pixels_of(path):
    with Image.open(path) as image:
        return torch.from_numpy(np.array(image))


def test_by_default_the_searched_area_is_stamped():
    before = pixels_of("a.png")
    result = run("apply pattern.safetensors a.png b.bmp --out new/out")
    assert result.exit_code == 0, result.output
    assert "2 images with the pattern of class 3 (12 pixels, 25.0 %) are in" in result.stdout
    assert {path.name for path in Path("new/out").iterdir()} == {"a_class3.png", "b_class3.png"}
    kept = torch.zeros(48, dtype=torch.bool)
    kept[MASK.flatten().argsort(descending=True)[:12]] = True
    colours = (CANVAS * 255).round().byte().permute(1, 2, 0)
    expected = torch.where(kept.view(6, 8, 1), colours, before)
    assert torch.equal(pixels_of("new/out/a_class3.png"), expected)
    assert torch.equal(pixels_of("a.png"), before)


def test_a_pattern_that_knows_its_class_names_the_files_and_the_area_can_be_chosen():
    Pattern(CANVAS, MASK, 3, {"class_name": "guinea pig, Cavia cobaya"}).save("pig.safetensors")
    result = run("apply pig.safetensors a.png --out out --area 0.5")
    text = "1 images with the pattern of guinea pig, Cavia cobaya (24 pixels, 50.0 %) are in out.\n"
    assert result.stdout == text
    assert [path.name for path in Path("out").iterdir()] == ["a_guinea_pig.png"]


def test_images_are_resized_cropped_and_coloured_to_fit():
    save_noise("grey.png", (30, 20))
    assert run("apply pattern.safetensors grey.png --out out").exit_code == 0
    with Image.open("out/grey_class3.png") as written:
        assert (written.size, written.mode) == ((8, 6), "RGB")


def test_a_grey_pattern_writes_grey_images():
    # without settings, the whole mask is used
    Pattern(CANVAS[:1], MASK, 0).save("grey.safetensors")
    save_noise("grey.png", (6, 8))
    assert run("apply grey.safetensors grey.png --out out").exit_code == 0
    expected = ((MASK * CANVAS[:1] + (1 - MASK) * pixels_of("grey.png") / 255) * 255).round()
    assert (pixels_of("out/grey_class0.png") - expected[0]).abs().max() <= 1


ERRORS = {
    "no image there": "apply pattern.safetensors none.png --out out",
    "not an image": "apply pattern.safetensors text.png --out out",
    "one name twice": "apply pattern.safetensors x/a.png y/a.jpg --out out",
    "no pattern there": "apply missing.safetensors a.png --out out",
    "not a pattern": "apply a.png a.png --out out",
    "area above 1": "apply missing.safetensors missing.png --out out --area 2",
}


@pytest.mark.parametrize("case", ERRORS)
def test_errors(case, snapshot):
    text, _, _ = error_of(ERRORS[case]).partition(": Error while")  # the words of safetensors
    assert text == snapshot
    assert not list(Path().glob("out/*.png"))
