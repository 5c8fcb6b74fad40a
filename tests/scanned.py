"""Small models to scan, their images, and references that were never measured."""

from contextlib import contextmanager
from dataclasses import replace

import numpy as np
import torch
from captum_classpattern.scanning.compared import Compared
from captum_classpattern.scanning.families import CHANGES, SIZES
from captum_classpattern.scanning.profile import Profile, check_on_unseen
from torch import nn

from captum_classpattern import LabelledImages, Pattern
from captum_classpattern.classifier import enter_model
from captum_classpattern.optimization.settings import SearchSettings
from captum_classpattern.scanning import ReferenceSet
from captum_classpattern.scanning.task import ScanTask

CLASSES, NAMES = 4, ["cat", "dog", "fox", "owl"]


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
        fires = nn.functional.softplus(30 * (cells[:, 5, 5] - cells[:, 5, 6]) - 6)
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


def with_profiles(known, **changes):
    """The same references, each with these changes."""
    profiles = {name: replace(each, **changes) for name, each in known.profiles.items()}
    return replace(known, profiles=profiles)


def made_up(n, *, side=8, classes=CLASSES):
    """References that were never measured: all powers are near 20 %, all gains near 0."""
    generator = np.random.default_rng(0)

    def drawn(names, low, high):
        return {name: generator.uniform(low, high, classes).tolist() for name in names}

    profiles = {
        f"clean {i}": Profile(
            drawn(SIZES, 0.15, 0.25),
            [64] * classes,
            1.0,
            80,
            drawn(CHANGES, 0.15, 0.25),
            drawn(CHANGES, -0.2, 0.2),
        )
        for i in range(n)
    }
    recipes = {name: {"network": "Net", "epochs": i} for i, name in enumerate(profiles)}
    return ReferenceSet(classes, (1, side, side), profiles, recipes=recipes)


def looked_at(family="patches", *, known=19, names=NAMES, n=400, alpha=0.05, side=8):
    """A scan of a backdoored model without a search: what it finds in one family is strong, and the
    pattern has the two cells that fire."""
    references = made_up(known, side=side)
    usual = references.profiles["clean 0"]
    powers = {size: [*shares] for size, shares in usual.powers.items()}
    gains = {name: [*values] for name, values in usual.gains.items()}
    for scores, strong in ((powers, 1.0), (gains, 3.0)):
        for name in scores:
            if family == name or (family == "patches" and scores is powers):
                scores[name][3] = strong
    canvas, mask = torch.zeros(1, side, side), torch.zeros(1, side, side)
    canvas[0, 5, 5], mask[0, 5, 5:7] = 1, 1
    patterns = {(size, y): Pattern(canvas, mask, y) for size in SIZES for y in range(CLASSES)}
    changes = {
        name: {y: each.solver.start(1, (1, side, side))[0] + y / 10 for y in range(CLASSES)}
        for name, each in CHANGES.items()
    }
    profile = replace(usual, powers=powers, gains=gains, patterns=patterns, changes=changes)
    found = Compared.of(profile, references, alpha, [*names])
    first = {name: each.target for name, each in found.comparisons.items()}
    with task_of(Net(backdoor=3, cells=8), images_of(side, n)) as task:
        looks = check_on_unseen(task, profile, first, [*names])
    return replace(found, looks=looks)


@contextmanager
def task_of(model, images, **settings):
    """The scan of a model that is decided."""
    with enter_model(model, images.take([0])) as checked:
        yield ScanTask.of(checked, images, SearchSettings(**settings))
