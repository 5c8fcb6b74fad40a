"""Which baselines the patterns are stamped on, step by step."""

import itertools
from collections import Counter
from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from captum_classpattern.classifier import on_device
from captum_classpattern.images import LabelledImages


class Stream(NamedTuple):
    """An endless stream of baselines: those that are not of the target's class, in the order of one
    of its starts."""

    target: int
    start: int = 0


class Schedule:
    """A seeded stream of baselines for each target and start, whatever else is searched with it.

    Streams of the same start share one shuffle per epoch, each without its target's class, so that
    most images are fetched once for all of them. A batch ends where an epoch does.
    """

    def __init__(self, source: LabelledImages, streams: list[Stream], seed: int) -> None:
        self.source, self.seed = source, seed
        self.seen: set[int] = set()
        self._labels = source.known_labels.numpy()
        counts = Counter(self._labels.tolist())
        self.others: dict[Stream, int] = {}  # how many baselines each stream has
        for stream in dict.fromkeys(streams):
            self.others[stream] = len(source) - counts[stream.target]
            if self.others[stream] == 0:
                raise ValueError(
                    f"no baselines are left for target {stream.target}: all {len(source)} are "
                    f"labelled {stream.target}; give images of other classes too"
                )
        self._epochs = {stream: itertools.count() for stream in self.others}
        self._remaining: dict[Stream, Iterator[int]] = {stream: iter(()) for stream in self.others}

    def again(self) -> "Schedule":
        """The same streams from their beginning; what they show also counts as seen here."""
        other = Schedule(self.source, list(self.others), self.seed)
        other.seen = self.seen
        return other

    def _next_batch(self, stream: Stream, size: int) -> list[int]:
        """The next images of other classes; each epoch visits all of them, in a fresh order."""
        batch = list(itertools.islice(self._remaining[stream], size))
        while not batch:
            key = (self.seed, next(self._epochs[stream]), stream.start)
            order = _shuffled(len(self.source), key if stream.start else key[:2])
            self._remaining[stream] = iter(order[self._labels[order] != stream.target].tolist())
            batch = list(itertools.islice(self._remaining[stream], size))
        return batch

    def steps(
        self, size: int, counts: Mapping[Stream, int], device: torch.device
    ) -> Iterator[tuple[Tensor, dict[Stream, list[int]]]]:
        """The images of the next steps on a device, and which of them each stream meets.

        Each stream takes part in ``counts[stream]`` steps. It is left out afterwards, or once it is
        removed from ``counts``.
        """
        for number in range(max(counts.values())):
            streams = [stream for stream, count in counts.items() if number < count]
            if not streams:
                return
            batches = {stream: self._next_batch(stream, size) for stream in streams}
            indices = sorted(set().union(*batches.values()))
            images = self.source.take(indices)
            self.seen.update(indices)
            place = {index: i for i, index in enumerate(indices)}
            picks = {stream: [place[i] for i in batch] for stream, batch in batches.items()}
            yield on_device(images, device), picks


@lru_cache(maxsize=4)
def _shuffled(count: int, key: tuple[int, ...]) -> "np.ndarray[tuple[int], np.dtype[np.int64]]":
    return np.random.default_rng(key).permutation(count)
