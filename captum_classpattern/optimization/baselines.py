"""Which baselines the patterns are stamped on, step by step."""

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import lru_cache

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from captum_classpattern.classifier import on_device
from captum_classpattern.images import LabelledImages


class Stream:
    """An endless stream of baselines: the images that are not of a class, in the order of one of
    its starts. Each epoch visits all of them, in a fresh order; a batch ends where an epoch does.

    Streams of the same start share one shuffle per epoch, each without its own class, so that most
    images are fetched once for all of them.
    """

    def __init__(self, images: LabelledImages, target: int, start: int, seed: int) -> None:
        self.target, self.start, self.seed = target, start, seed
        self._labels = images.known_labels.numpy()
        self.length = int((self._labels != target).sum())  # of an epoch
        if self.length == 0:
            raise ValueError(
                f"no baselines are left for target {target}: all {len(images)} are labelled "
                f"{target}; give images of other classes too"
            )
        self._epochs = itertools.count()
        self._remaining: Iterator[int] = iter(())

    def take(self, size: int) -> list[int]:
        """The places of the next images."""
        batch = list(itertools.islice(self._remaining, size))
        if not batch:
            key = (self.seed, next(self._epochs), self.start)
            order = _shuffled(len(self._labels), key if self.start else key[:2])
            self._remaining = iter(order[self._labels[order] != self.target].tolist())
            batch = list(itertools.islice(self._remaining, size))
        return batch


@lru_cache(maxsize=4)
def _shuffled(count: int, key: tuple[int, ...]) -> npt.NDArray[np.int64]:
    return np.random.default_rng(key).permutation(count)


@dataclass(eq=False)
class Batch:
    """The images of one step, the candidates that take part, and which images each of them meets.

    With ``moves``, (pairs, 2, 3), what is stamped is a square that moves.
    """

    images: Tensor
    rows: list[int]
    picks: list[list[int]]
    moves: Tensor | None = None
    index: Tensor = field(init=False)  # the rows, on the device
    places: list[int] = field(init=False)  # of each pair of canvas and image, a place in ``rows``
    pairs: Tensor = field(init=False)  # of each pair the place, the canvas and the image
    counts: Tensor = field(init=False)  # how many images each canvas meets, at least 1

    def __post_init__(self) -> None:
        self.places = [place for place, pick in enumerate(self.picks) for _ in pick]
        rows = [self.rows[place] for place in self.places]
        pairs = [self.places, rows, list(itertools.chain(*self.picks))]
        counts = [max(1, len(pick)) for pick in self.picks]
        self.index, self.pairs, self.counts = (
            on_device(torch.tensor(numbers, dtype=torch.int64), self.images.device)
            for numbers in (self.rows, pairs, counts)
        )
