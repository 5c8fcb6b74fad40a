"""Colours, blur and JPEG, by formulas for single pixels and by another library."""

import colorsys
import io

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
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


@pytest.mark.parametrize("images", [IMAGES, GREY, IMAGES[:, :2]])
def test_values_at_rest_are_exact(images):
    for function, rest in ((brighten, 1), (change_contrast, 1), (blur, 0)):
        assert torch.equal(function(images, rest, 0), images)
    if images.shape[1] == 3:
        assert torch.equal(turn_hue(images, 0, 0), images)
    if images.shape[1] != 2:
        assert torch.equal(jpeg(images, 100, 0), images)


@pytest.mark.parametrize("factor", [0.0, 0.4, 1.5, 3.0])
@pytest.mark.parametrize("images", [IMAGES, GREY])
def test_brightness_and_contrast_are_those_of_torchvision(images, factor):
    torch.testing.assert_close(
        brighten(images, factor, 0), functional.adjust_brightness(images, factor)
    )
    expected = functional.adjust_contrast(images, factor)
    torch.testing.assert_close(change_contrast(images, factor, 0), expected, atol=1e-3, rtol=0)


@pytest.mark.parametrize("degrees", [10, 90, 180])
@pytest.mark.parametrize("direction", [0, 1])
def test_hue_keeps_luma_and_greys_and_turns_chroma(degrees, direction):
    faint = 0.45 + 0.1 * IMAGES  # nothing is clipped
    turned = turn_hue(faint, degrees, direction)
    luma = torch.tensor([0.299, 0.587, 0.114]).view(3, 1, 1)
    torch.testing.assert_close((turned * luma).sum(1), (faint * luma).sum(1))
    grey = GREY.expand(-1, 3, -1, -1)
    torch.testing.assert_close(turn_hue(grey, degrees, direction), grey, atol=1e-3, rtol=0)
    chroma = torch.tensor([colorsys.rgb_to_yiq(*pixel) for pixel in faint[0].flatten(1).T.tolist()])
    after = torch.tensor([colorsys.rgb_to_yiq(*pixel) for pixel in turned[0].flatten(1).T.tolist()])
    angle = torch.atan2(after[:, 2], after[:, 1]) - torch.atan2(chroma[:, 2], chroma[:, 1])
    expected = torch.tensor(degrees * (1 - 2 * direction)).deg2rad()
    coloured = chroma[:, 1:].norm(dim=1) > 0.01  # the angle of a grey is noise
    assert coloured.sum() > 50
    assert (torch.cos(angle - expected)[coloured] > 0.99).all()


@pytest.mark.parametrize("degrees", [15, 120])
def test_the_hue_comes_back(degrees):
    faint = 0.45 + 0.1 * IMAGES
    back = turn_hue(turn_hue(faint, degrees, 0), degrees, 1)
    torch.testing.assert_close(back, faint)
    torch.testing.assert_close(turn_hue(faint, 360, 0), faint)


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
@pytest.mark.parametrize("quality", [95, 75, 50, 20, 5])
def test_jpeg_is_close_to_libjpeg(shape, quality):
    generator = torch.Generator().manual_seed(0)
    smooth = torch.rand(8, shape[0], 6, 6, generator=generator)
    images = F.interpolate(smooth, size=shape[1:], mode="bicubic").clamp(0, 1)
    images[:, :, 5:9, 5:9] = (torch.rand(8, shape[0], 4, 4, generator=generator) > 0.5).float()
    ours = (255 * jpeg(images, quality, 0)).permute(0, 2, 3, 1)
    theirs = torch.stack([pillow(image, quality) for image in images]).float()
    lost = (255 * images.permute(0, 2, 3, 1) - theirs).abs().mean()
    assert (ours - theirs).abs().mean() < (1.2 if shape[0] == 3 else 0.6)  # of 255 levels
    assert (ours - theirs).abs().mean() < 0.3 * lost
    assert ((ours - theirs).abs() <= 2).float().mean() > 0.85


@pytest.mark.parametrize("value", [0.25, 2.0])
def test_pixels_stay_in_the_unit_range_and_each_image_alone(value):
    for function in (brighten, change_contrast, blur):
        changed = function(IMAGES, value, 0)
        assert 0 <= changed.min() <= changed.max() <= 1
        torch.testing.assert_close(function(IMAGES[2:3], value, 0), changed[2:3])
    for function, strength in ((turn_hue, 120), (jpeg, 10)):
        changed = function(IMAGES, strength, 0)
        assert 0 <= changed.min() <= changed.max() <= 1
        torch.testing.assert_close(function(IMAGES[2:3], strength, 0), changed[2:3])


@pytest.mark.parametrize(
    ("function", "images", "value", "text"),
    [
        (brighten, IMAGES, -1, "are factors from 0, got -1"),
        (change_contrast, IMAGES, -0.5, "are factors from 0, got -0.5"),
        (blur, IMAGES, -1, "standard deviation from 0, in pixels, got -1"),
        (jpeg, IMAGES, 0, "quality is a number from 1 to 100, got 0"),
        (jpeg, IMAGES, 101, "quality is a number from 1 to 100, got 101"),
        (jpeg, IMAGES[:, :2], 50, "images with 1 or 3 channels, got 2"),
    ],
)
def test_errors(function, images, value, text):
    with pytest.raises(ValueError, match=text):
        function(images, value, 0)
