"""Colours, blur and JPEG are those of formulas for single pixels and of other libraries."""

import colorsys
import io

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from refusals import refusal
from scipy.ndimage import gaussian_filter
from torchvision.transforms.v2 import functional

from captum_classpattern.scores.invariance.colours import (
    blur,
    brighten,
    change_contrast,
    jpeg,
    turn_hue,
)

IMAGES = torch.rand(4, 3, 12, 10, generator=torch.Generator().manual_seed(0))
GREY = IMAGES[:, :1]
FAINT = 0.45 + 0.1 * IMAGES  # nothing is clipped


@pytest.mark.parametrize("images", [IMAGES, GREY, IMAGES[:, :2]])
def test_values_at_rest_are_exact(images):
    channels = images.shape[1]
    assert torch.equal(brighten(images, 1, 0), images)
    assert torch.equal(change_contrast(images, 1, 0), images)
    assert torch.equal(blur(images, 0, 0), images)
    assert channels != 3 or torch.equal(turn_hue(images, 0, 0), images)
    assert channels == 2 or torch.equal(jpeg(images, 100, 0), images)


@pytest.mark.parametrize("factor", [0.0, 0.4, 1.5, 3.0])
@pytest.mark.parametrize("images", [IMAGES, GREY])
def test_brightness_and_contrast_are_those_of_torchvision(images, factor):
    expected = functional.adjust_brightness(images, factor)
    torch.testing.assert_close(brighten(images, factor, 0), expected)
    expected = functional.adjust_contrast(images, factor)
    torch.testing.assert_close(change_contrast(images, factor, 0), expected, atol=1e-3, rtol=0)


@pytest.mark.parametrize("degrees", [10, 90, 180])
@pytest.mark.parametrize("direction", [0, 1])
def test_hue_keeps_luma_and_greys_and_turns_chroma(degrees, direction):
    turned = turn_hue(FAINT, degrees, direction)
    luma = torch.tensor([0.299, 0.587, 0.114]).view(3, 1, 1)
    torch.testing.assert_close((turned * luma).sum(1), (FAINT * luma).sum(1))
    torch.testing.assert_close(turn_hue(turned, degrees, 1 - direction), FAINT)
    grey = GREY.expand(-1, 3, -1, -1)
    torch.testing.assert_close(turn_hue(grey, degrees, direction), grey, atol=1e-3, rtol=0)
    before, after = (
        torch.tensor([colorsys.rgb_to_yiq(*pixel) for pixel in images[0].flatten(1).T.tolist()])
        for images in (FAINT, turned)
    )
    angle = torch.atan2(after[:, 2], after[:, 1]) - torch.atan2(before[:, 2], before[:, 1])
    expected = torch.tensor(degrees * (1 - 2 * direction)).deg2rad()
    coloured = before[:, 1:].norm(dim=1) > 0.01  # the angle of a grey is noise
    assert coloured.sum() > 50
    assert (torch.cos(angle - expected)[coloured] > 0.99).all()


@pytest.mark.parametrize("sigma", [0.5, 1.0, 2.0])
def test_blur_is_a_gaussian_filter(sigma):
    reach = int(np.ceil(3 * sigma))
    for image, blurred in zip(IMAGES, blur(IMAGES, sigma, 0)):
        expected = gaussian_filter(
            image.double().numpy(), (0, sigma, sigma), mode="nearest", radius=(0, reach, reach)
        )
        torch.testing.assert_close(blurred.double(), torch.from_numpy(expected), atol=1e-5, rtol=0)


def pillow(image, quality):
    levels = (255 * image).round().byte().permute(1, 2, 0).numpy()
    file = io.BytesIO()
    Image.fromarray(levels.squeeze()).save(file, "JPEG", quality=quality)
    return torch.from_numpy(np.asarray(Image.open(file)).reshape(levels.shape).copy())


@pytest.mark.parametrize("shape", [(1, 28, 28), (1, 30, 33), (3, 32, 32), (3, 28, 29)])
@pytest.mark.parametrize("quality", [95, 75, 55, 20, 5])
def test_jpeg_is_that_of_libjpeg(shape, quality):
    generator = torch.Generator().manual_seed(0)
    smooth = torch.rand(8, shape[0], 6, 6, generator=generator)
    images = F.interpolate(smooth, size=shape[1:], mode="bicubic").clamp(0, 1)
    images[:, :, 5:9, 5:9] = (torch.rand(8, shape[0], 4, 4, generator=generator) > 0.5).float()
    ours = (255 * jpeg(images, quality, 0)).permute(0, 2, 3, 1)
    theirs = torch.stack([pillow(image, quality) for image in images]).float()
    assert (ours - theirs).abs().max() <= 1e-3


@pytest.mark.parametrize(("function", "value"), [(turn_hue, 120), (jpeg, 10), (blur, 0.25)])
def test_pixels_stay_in_the_unit_range_and_each_image_alone(function, value):
    changed = function(IMAGES, value, 0)
    assert 0 <= changed.min() <= changed.max() <= 1
    torch.testing.assert_close(function(IMAGES[2:3], value, 0), changed[2:3])


REFUSALS = {
    "brightness below 0": lambda: brighten(IMAGES, -1, 0),
    "contrast below 0": lambda: change_contrast(IMAGES, -0.5, 0),
    "blur below 0": lambda: blur(IMAGES, -1, 0),
    "quality 0": lambda: jpeg(IMAGES, 0, 0),
    "quality 50.5": lambda: jpeg(IMAGES, 50.5, 0),
    "quality 101": lambda: jpeg(IMAGES, 101, 0),
    "JPEG of two channels": lambda: jpeg(IMAGES[:, :2], 50, 0),
}


@pytest.mark.parametrize("case", REFUSALS)
def test_refusals(case, snapshot):
    assert refusal(REFUSALS[case]) == snapshot
