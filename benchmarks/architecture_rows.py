"""The rows of benchmarks/architectures.py, grouped by network and class."""

from collections.abc import Mapping, Sequence
from functools import cached_property
from itertools import product

import torch
from findings import ByClass, Row, having
from torch import Tensor

from captum_classpattern.scores import mean_pairwise_iou

WHITE, POSITIVE = "white", "positive"
LABELS = {  # of the networks, in the order of the tables
    "linear": "linear",
    "mlp": "MLP",
    "shallow": "shallow CNN, alone",
    "distilled": "shallow CNN, distilled",
    "plain": "plain CNN",
    "resnet": "ResNet",
    "vit": "ViT",
}
SHALLOW = {"shallow", "distilled"}  # one architecture


def packed(mask: Tensor) -> str:
    """The places of a binary mask (1, H, W) in reading order, as hexadecimal digits."""
    places: list[int] = mask.flatten().nonzero().flatten().tolist()
    return f"{sum(1 << place for place in places):x}"


def unpacked(text: str, side: int = 28) -> Tensor:
    """The mask (1, side, side) of :func:`packed`."""
    bits = int(text, 16)
    mask = torch.tensor([float(bits >> place & 1) for place in range(side * side)])
    return mask.view(1, side, side)


class Found:
    """What was measured on one kind of canvas: values by class, for the models of a network."""

    def __init__(self, rows: Sequence[Row], canvas: str) -> None:
        self.canvas, self.models = canvas, having(rows, kind="model")
        self.patterns = having(rows, kind="pattern", canvas=canvas)
        self.transfers = having(rows, kind="transfer", canvas=canvas)
        found = {row["network"] for row in self.models}
        self.networks = [name for name in LABELS if name in found]
        self.classes = sorted({row["class"] for row in self.patterns})
        self.seeds = sorted({row["seed"] for row in self.models})

    def others(self, network: str) -> list[str]:
        """The networks of other architectures."""
        same = SHALLOW if network in SHALLOW else {network}
        return [name for name in self.networks if name not in same]

    def searched(self, network: str) -> list[Row]:
        """The patterns of a network's models."""
        return having(self.patterns, network=network, search_seed=0)

    def values(self, network: str, name: str) -> ByClass:
        """A column of a network's patterns."""
        rows = self.searched(network)
        return {y: [row[name] for row in rows if row["class"] == y] for y in self.classes}

    def powers(self, network: str, tested: str, *, same_seed: bool = False) -> ByClass:
        """The powers of a network's patterns on the models of another, or of the same, that were
        trained with other seeds (or with the same)."""
        powers = [
            row["powers"]
            for row in having(self.transfers, network=network, tested=tested)
            if (row["seed"] == row["tested_seed"]) == same_seed
        ]
        return {y: [power[str(y)] for power in powers] for y in self.classes}

    def ious(self, network: str, other: str, *, same_seed: bool = False) -> ByClass:
        """The overlaps of the masks of two networks, or of two models of one, that were trained
        with other seeds (or with the same)."""
        pairs = [(a, b) for a, b in product(self.seeds, self.seeds) if (a == b) == same_seed]
        return {
            y: [self._iou((network, a, 0, y), (other, b, 0, y)) for a, b in pairs]
            for y in self.classes
        }

    def ious_of_searches(self, network: str) -> ByClass:
        """The overlaps of the masks of two searches on one model."""
        return {y: [self._iou((network, 0, 0, y), (network, 0, 1, y))] for y in self.classes}

    def _iou(self, *keys: tuple[str, int, int, int]) -> float:
        return mean_pairwise_iou([self.masks[key] for key in keys])

    @cached_property
    def masks(self) -> Mapping[tuple[str, int, int, int], Tensor]:
        """By network, seed, search seed and class."""
        return {
            (row["network"], row["seed"], row["search_seed"], row["class"]): unpacked(row["mask"])
            for row in self.patterns
        }


def pooled(parts: Sequence[ByClass]) -> ByClass:
    """The mean of each of several groups, by class, so that each group counts alike."""
    return {y: [sum(part[y]) / len(part[y]) for part in parts] for y in parts[0]}
