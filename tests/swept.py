"""Tiny networks and images to sweep, and what tests compare of the folders."""

import time

import torch
from surveyed import assert_alike
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


def assert_holds(folder, part):
    """Each unit of ``part`` is in ``folder``, with the same findings."""
    for path in part.glob(UNITS):
        (_, ours), (_, others) = map(read_findings, (folder / path.relative_to(part), path))
        assert_alike(ours, others)


def times_of(folder):
    """When each unit was written: a unit that is searched again would be written again."""
    return {path.relative_to(folder): path.stat().st_mtime_ns for path in folder.glob(UNITS)}
