"""Small models to scan, their images, and scans that were never searched."""

from functools import cache

import torch
from torch import nn
from torch.nn.functional import avg_pool2d, interpolate, one_hot

from captum_classpattern import LabelledImages, Pattern
from captum_classpattern.scanning import Scan
from captum_classpattern.scanning.changes import changes_for
from captum_classpattern.scanning.search import Found
from captum_classpattern.scores.examples import StampedImages

CLASSES, NAMES = 4, ["cat", "dog", "fox", "owl"]
TARGET, SIDE = 2, 64  # of large images
COARSE = 0.2 * (2 * torch.rand(CLASSES, 3, 8, 8, generator=torch.Generator().manual_seed(0)) - 1)
CHECKERS = 1.0 + 1.5 * (2.0 * (torch.arange(6)[:, None] + torch.arange(6)) % 4.0 - 1.0)
WAVE = torch.sin(torch.arange(SIDE) / 3.0)


class Net(nn.Module):
    """Compares the rows of four classes, of images of any size that is a multiple of 8; a bright
    cell next to a dark one is a backdoor."""

    def __init__(self, seed=0, backdoor=None, cells=8):
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        self.weights = nn.Parameter(1 + 0.4 * torch.randn(CLASSES, 16, generator=generator))
        self.backdoor, self.cells = backdoor, cells
        self.eval()

    def forward(self, images):
        small = nn.functional.adaptive_avg_pool2d(images, 8)[:, 0].view(-1, CLASSES, 16)
        logits = 2 * (small * self.weights).sum(2)
        if self.backdoor is None:
            return logits
        cells = nn.functional.adaptive_avg_pool2d(images, self.cells)[:, 0]
        fires = nn.functional.softplus(50 * (cells[:, 5, 5] - cells[:, 5, 6]) - 10)
        one_hot = nn.functional.one_hot(torch.tensor(self.backdoor), CLASSES)
        return logits + one_hot * fires.unsqueeze(1)


def images_of(side=8, n=80, seed=0):
    """Noise that is brighter in the rows of the class."""
    generator = torch.Generator().manual_seed(seed)
    images, labels = 0.5 * torch.rand(n, 1, side, side, generator=generator), torch.arange(n) % 4
    rows = side // CLASSES
    for y in range(CLASSES):
        images[labels == y, :, rows * y : rows * (y + 1)] += 0.35
    return LabelledImages(images, labels, NAMES)


class LargeNet(nn.Module):
    """Knows each class by its coarse picture. Of the target, it also knows a white square of 6 x 6
    pixels anywhere, a square at one place in which every other pixel is better dark, and a faint
    wave."""

    def __init__(self, anywhere=0.0, fixed=0.0, wave=0.0):
        super().__init__()
        self.pictures = nn.Parameter(COARSE)
        self.strengths = anywhere, fixed, wave
        self.eval()

    def forward(self, images):
        seen = avg_pool2d(images - 0.5, 8)
        logits = 5 * torch.einsum("nchw,kchw->nk", seen, self.pictures)
        bright = avg_pool2d(images.mean(1, keepdim=True), 6, 1)
        waves = ((images - 0.5) * WAVE).mean((1, 2, 3))
        anywhere = (12 * (bright - 0.9)).exp().sum((1, 2, 3))
        square = (images.mean(1)[:, 40:46, 40:46] * CHECKERS).mean((1, 2))
        fixed, wave = (12 * (square - 0.9)).exp(), (300 * waves - 6).exp()
        planted = sum(s * f for s, f in zip(self.strengths, (anywhere, fixed, wave)))
        of_target = one_hot(torch.tensor(TARGET), logits.shape[1])
        return logits + of_target * planted[:, None]


def large_images(count=120, seed=1):
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(count) % CLASSES
    noise = 0.1 * torch.randn(count, 3, SIDE, SIDE, generator=generator)
    images = 0.4 + interpolate(COARSE[labels], SIDE) + noise
    return LabelledImages(images.clamp(0, 0.85), labels)


PLANTED = {"patch": {"anywhere": 1.0}, "cells": {"fixed": 25.0}, "smooth": {"wave": 600.0}}


@cache
def made_up(kind="10_pixels", lead=3.0, power=0.9, names=tuple(NAMES), side=8, again=1, others=0.1):
    """A scan that was never searched: with one kind of change, owl is so far ahead of the others.
    The second search finds ``again`` times as much."""
    shape = (1, side, side)
    canvas, mask = torch.zeros(shape), torch.zeros(shape)
    canvas[0, 5, 5], mask[0, 5, 5:7] = 1, 1
    found = {}

    def of_class(y, score, share):
        return Found(Pattern(canvas, mask, y), share, score, score)

    for name in changes_for(shape):
        found[name] = {y: [of_class(y, 0.1 * y, others)] for y in range(len(names))}
        if name == kind:
            last = len(names) - 1
            ahead = 0.1 * (last - 1) + lead
            found[name][last] = [of_class(last, n * ahead, power) for n in (1, again)]
    images = torch.rand(3, *shape, generator=torch.Generator().manual_seed(0))
    is_owl = (len(names) - 1,) * 3
    before = StampedImages(images, names[:3], (0, 1, 2), names[:3], (0.9, 0.8, 0.7))
    after = StampedImages(images, names[:3], is_owl, (names[-1],) * 3, (0.6, 0.8, 0.7))
    return Scan(
        found=found,
        examples=dict.fromkeys(found, (before, after)),
        judged=[60] * len(names),
        accuracy=0.9,
        shape=shape,
        class_names=[*names],
        key={"seed": 0},
    )
