"""Tiny networks and images to sweep, and what tests compare of the folders."""

import time

import torch
from torch import nn

from captum_classpattern.surveys.folder import read_findings

CLASSES = 3
UNITS = "*/findings/*.safetensors"
QUICK = {"canvases": {"positive": 2, "white": 1}, "areas": (0.1,), "n_steps": 2}


def network(seed):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Flatten(), nn.Linear(64, CLASSES)).eval()


def two():
    return {"old": network(0), "new": network(1)}


class Wait(nn.Module):
    """Makes a network slow, so that it can be interrupted in the middle."""

    def forward(self, logits):
        time.sleep(0.02)
        return logits


def slow():
    """Two networks that find what ``two()`` find."""
    return {name: net.append(Wait()).eval() for name, net in two().items()}


def images(seed, count=45):
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(count, 1, 8, 8, generator=generator), torch.arange(count) % CLASSES


SEARCH, HELD_OUT = images(0), images(1)


def units_in(folder):
    """The finished units: (model's folder, class)."""
    return {(path.parts[-3], int(path.stem)) for path in folder.glob(UNITS)}


def findings_of(folder):
    """What was found, by unit: scores and pixels, all that two equal sweeps share."""
    found = {}
    for path in sorted(folder.glob(UNITS)):
        _, findings = read_findings(path)
        found[path.parts[-3], int(path.stem)] = [
            (each.as_dict(), [pixels_of(pattern) for pattern in each.patterns.values()])
            for each in findings
        ]
    return found


def pixels_of(pattern):
    tensors = [tensor.numpy().tobytes() for tensor in (pattern.canvas, pattern.mask)]
    return (*tensors, pattern.target, pattern.seen)


def times_of(folder):
    """When each unit was written: a unit that is searched again would be written again."""
    return {path.relative_to(folder): path.stat().st_mtime_ns for path in folder.glob(UNITS)}
