"""Which baselines each target meets at each step of a search."""

import itertools
from collections import Counter
from collections.abc import Iterator
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from captum_classpattern.images import LabelledImages
from captum_classpattern.optimization.settings import Settings


class Step(NamedTuple):
    """The images of one step, and which of them each target meets (none once it has finished)."""

    images: Tensor
    picks: dict[int, list[int]]


class Schedule:
    """One seeded stream of baselines a target, whatever else is searched with it.

    All targets share one shuffle an epoch, each without its own class, so that most images are
    fetched once for all of them. A batch ends where an epoch does.
    """

    def __init__(self, source: LabelledImages, targets: list[int], settings: Settings) -> None:
        self.source, self.seed = source, settings.seed
        self.seen: set[int] = set()
        self.labels = source.known_labels.numpy()
        self.sizes: dict[int, list[int]] = {}
        self.sign_steps = 0
        counts = Counter(self.labels.tolist())
        for target in dict.fromkeys(targets):
            left = len(source) - counts[target]
            if left == 0:
                raise ValueError(
                    f"no baselines are left for target {target}: all {len(source)} are labelled "
                    f"{target}; give images of other classes too"
                )
            self.sizes[target], signs = settings.batch_sizes(len(source), left)
            self.sign_steps = max(self.sign_steps, signs)
        self.n_steps = max(map(len, self.sizes.values()))

    def _stream(self, target: int) -> Iterator[list[int]]:
        """Batches for one target: each epoch all others' images, in a fresh order."""
        others: Iterator[int] = iter(())
        epochs = itertools.count()
        for size in self.sizes[target]:
            batch = list(itertools.islice(others, size))
            while not batch:
                order = _shuffled(len(self.source), self.seed, next(epochs))
                others = (int(i) for i in order if self.labels[i] != target)
                batch = list(itertools.islice(others, size))
            yield batch

    def _rounds(self) -> Iterator[dict[int, list[int]]]:
        """A step of all targets at once; those that have finished are left out."""
        for batches in itertools.zip_longest(*map(self._stream, self.sizes)):
            yield {t: batch for t, batch in zip(self.sizes, batches) if batch is not None}

    def steps(self, device: torch.device) -> Iterator[Step]:
        """The steps, their images on the given device."""
        rounds, again = itertools.tee(self._rounds())
        needed = (sorted(set().union(*batches.values())) for batches in rounds)
        wanted, indices = itertools.tee(needed)
        for batches, used, images in zip(again, indices, self.source.batches(wanted)):
            self.seen.update(used)
            place = {index: i for i, index in enumerate(used)}
            picks = {target: [place[i] for i in batch] for target, batch in batches.items()}
            yield Step(images.to(device), picks)


@lru_cache(maxsize=2)
def _shuffled(count: int, seed: int, epoch: int) -> "np.ndarray[tuple[int], np.dtype[np.int64]]":
    return np.random.default_rng([seed, epoch]).permutation(count)
