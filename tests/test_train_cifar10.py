"""The training script of the CIFAR-10 models."""

import importlib.util
from pathlib import Path

import pytest
import torch
from torch.nn.functional import pad

TUTORIALS = Path(__file__).parent.parent / "tutorials"


@pytest.fixture(scope="module")
def script():
    spec = importlib.util.spec_from_file_location("train_cifar10", TUTORIALS / "train_cifar10.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(("size", "margin"), [(32, 4), (24, 0)])
def test_augmented_images_are_crops_flips_and_cutouts(script, size, margin):
    """Each is one crop, plain or mirrored, but for one grey square of 9, clipped at the border."""
    torch.manual_seed(0)
    images = torch.randint(0, 256, (12, 3, 32, 32), dtype=torch.uint8)  # none is 0.5
    found, holes = [], []
    for image, result in zip(images, script.augmented(images, size)):
        assert result.shape == (3, size, size)
        grey = (result == 0.5).all(0)
        rows, columns = grey.any(1).nonzero().flatten(), grey.any(0).nonzero().flatten()
        box = torch.zeros_like(grey)
        box[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1] = True
        assert torch.equal(grey, box)
        for ends in (rows, columns):
            at_border = ends[0] == 0 or ends[-1] == size - 1
            assert len(ends) == 9 or (at_border and 5 <= len(ends) < 9)
        padded = pad(image, (margin,) * 4) / 255
        starts = range(32 + 2 * margin - size + 1)
        crops = {(r, c): padded[:, r : r + size, c : c + size] for r in starts for c in starts}
        fits = [
            (*place, flipped)
            for place, crop in crops.items()
            for flipped in (False, True)
            if torch.equal(result[:, ~grey], (crop.flip(2) if flipped else crop)[:, ~grey])
        ]
        assert len(fits) == 1
        found += fits
        holes.append((int(rows[0]), int(columns[0])))
    assert {flipped for *_, flipped in found} == {False, True}
    assert len({(r, c) for r, c, _ in found}) > 6
    assert len(set(holes)) > 6


def test_whole_images_are_augmented_by_default(script):
    assert script.augmented(torch.zeros(2, 3, 32, 32, dtype=torch.uint8)).shape == (2, 3, 32, 32)
