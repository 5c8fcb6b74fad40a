"""Which baselines each canvas meets at each step of a search."""

import itertools
from collections import Counter
from collections.abc import Iterator
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from captum_classpattern.images import ImageSource


class Step(NamedTuple):
    """One step: pair p stamps canvas ``rows[p]`` on ``images[picks[p]]``; each canvas has
    ``counts`` pairs."""

    images: Tensor
    rows: Tensor
    picks: Tensor
    counts: Tensor


class Schedule:
    """One seeded stream of baselines a target, whatever else is searched with it.

    All targets share one shuffle an epoch, each without its own class, so that most images are
    fetched once for all of them.
    """

    def __init__(
        self,
        source: ImageSource,
        targets: list[int],
        batch_size: int,
        n_epochs: int,
        n_steps: int | None,
        seed: int,
    ) -> None:
        self.source, self.targets = source, targets
        self.batch_size, self.seed = batch_size, seed
        assert source.labels is not None
        self.labels: list[int] = source.labels.tolist()
        self.lengths: dict[int, int] = {}
        counts = Counter(self.labels)
        for target in dict.fromkeys(targets):
            left = len(source) - counts[target]
            if left == 0:
                raise ValueError(
                    f"no baselines are left for target {target}: all {len(source)} are labelled "
                    f"{target}; give images of other classes too"
                )
            self.lengths[target] = n_steps or n_epochs * -(-left // batch_size)
        self.n_steps = max(self.lengths.values())

    def _stream(self, target: int) -> Iterator[list[int]]:
        """Endless batches for one target: each epoch all others' images, in a fresh order."""
        for epoch in itertools.count():
            order = _shuffled(len(self.source), self.seed, epoch)
            others = (i for i in order if self.labels[i] != target)
            while batch := list(itertools.islice(others, self.batch_size)):
                yield batch

    def _rounds(self) -> Iterator[dict[int, list[int]]]:
        """A step of all targets at once; those that have finished are left out."""
        streams = {t: itertools.islice(self._stream(t), n) for t, n in self.lengths.items()}
        for batches in itertools.zip_longest(*streams.values()):
            yield {t: batch for t, batch in zip(streams, batches) if batch is not None}

    def steps(self, device: torch.device) -> Iterator[Step]:
        """The steps, their tensors on the given device."""
        needed = (_union(batches) for batches in self._rounds())
        for batches, images in zip(self._rounds(), self.source.batches(needed)):
            place = {index: i for i, index in enumerate(_union(batches))}
            own = [batches.get(target, []) for target in self.targets]
            counts = torch.tensor([len(batch) for batch in own])
            rows = torch.arange(len(own)).repeat_interleave(counts)
            picks = torch.tensor([place[index] for batch in own for index in batch])
            yield Step(images.to(device), rows.to(device), picks.to(device), counts.to(device))


def _union(batches: dict[int, list[int]]) -> list[int]:
    return sorted(set().union(*batches.values()))


@lru_cache(maxsize=2)
def _shuffled(count: int, seed: int, epoch: int) -> list[int]:
    order: list[int] = np.random.default_rng([seed, epoch]).permutation(count).tolist()
    return order
