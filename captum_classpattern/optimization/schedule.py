"""Which baselines the patterns of each target are stamped on, step by step."""

import itertools
from collections import Counter
from collections.abc import Iterator, Mapping
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from captum_classpattern.images import LabelledImages


class Schedule:
    """One seeded stream of baselines for each target, whatever else is searched with it.

    All targets share one shuffle per epoch, each without its own class, so that most images are
    fetched once for all of them. A batch ends where an epoch does.
    """

    def __init__(self, source: LabelledImages, targets: list[int], seed: int) -> None:
        self.source, self.seed = source, seed
        self.seen: set[int] = set()
        self._labels = source.known_labels.numpy()
        counts = Counter(self._labels.tolist())
        self.others: dict[int, int] = {}  # how many baselines each target has
        for target in dict.fromkeys(targets):
            self.others[target] = len(source) - counts[target]
            if self.others[target] == 0:
                raise ValueError(
                    f"no baselines are left for target {target}: all {len(source)} are labelled "
                    f"{target}; give images of other classes too"
                )
        self._epochs = {target: itertools.count() for target in self.others}
        self._remaining: dict[int, Iterator[int]] = {target: iter(()) for target in self.others}

    def _next_batch(self, target: int, size: int) -> list[int]:
        """The next images of other classes; each epoch visits all of them, in a fresh order."""
        batch = list(itertools.islice(self._remaining[target], size))
        while not batch:
            order = _shuffled(len(self.source), self.seed, next(self._epochs[target]))
            self._remaining[target] = iter(order[self._labels[order] != target].tolist())
            batch = list(itertools.islice(self._remaining[target], size))
        return batch

    def steps(
        self, size: int, counts: Mapping[int, int], device: torch.device
    ) -> Iterator[tuple[Tensor, dict[int, list[int]]]]:
        """The images of the next steps on a device, and which of them each target meets.

        Each target takes part in ``counts[target]`` steps, and is left out afterwards.
        """
        plan: Iterator[dict[int, list[int]]] = (
            {t: self._next_batch(t, size) for t, count in counts.items() if number < count}
            for number in range(max(counts.values()))
        )
        plan, again = itertools.tee(plan)
        needed, used = itertools.tee(sorted(set().union(*batches.values())) for batches in plan)
        for batches, indices, images in zip(again, used, self.source.batches(needed)):
            self.seen.update(indices)
            place = {index: i for i, index in enumerate(indices)}
            picks = {target: [place[i] for i in batch] for target, batch in batches.items()}
            yield images.to(device), picks


@lru_cache(maxsize=2)
def _shuffled(count: int, seed: int, epoch: int) -> "np.ndarray[tuple[int], np.dtype[np.int64]]":
    return np.random.default_rng([seed, epoch]).permutation(count)
