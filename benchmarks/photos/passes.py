"""Where the time of a pass at 224 pixels goes: bare passes, and those of a search."""

import time
from collections.abc import Callable, Iterator

import torch
from findings import Row
from problems import Problem
from torch import nn

from captum_classpattern import Cells, ClassPattern
from captum_classpattern.optimization.acceleration import accelerated
from captum_classpattern.optimization.settings import SearchSettings
from captum_classpattern.scanning import triage

IMAGES, REPEATS, ROUNDS = 16, 2, 2


def time_rows(problem: Problem, model: nn.Module) -> Iterator[list[Row]]:
    """The milliseconds of a pass, the least of some repeats, with the threads of this process."""
    images = problem.images[:IMAGES]
    faster = accelerated(model, images[:1], (), "auto")
    for name, network in {"as it is": model, "folded": faster}.items():
        forward = least(lambda network=network: forward_of(network, images))
        both = least(lambda network=network: both_of(network, images))
        yield [timed(f"bare, {name}", forward=forward, both=both)]
    explainer = ClassPattern(model, problem.images, problem.labels)
    explainer.accuracy_is_known = True
    ways = {"pixels": {}, "cells": {"feature_mask": Cells(32)}}
    ways["pixels, 32 images at once"] = {"internal_batch_size": 32}
    for name, given in ways.items():
        taken: list[float] = []
        for _ in range(REPEATS):
            started = time.perf_counter()
            [found] = explainer.search(images[:1], 0, n_steps=ROUNDS, **given)
            taken.append((time.perf_counter() - started) / found.info["passes"])
        yield [timed(f"search, {name}", both=min(taken))]
    settings = SearchSettings(solver=triage.SHORT)
    started = time.perf_counter()
    found = triage.search_cells(explainer, images.shape[1:], range(triage.TOGETHER), settings)
    taken_together = time.perf_counter() - started
    expected = [triage.expected_passes(n, len(problem.images)) for n in (0, len(found))]
    passes = expected[1] - expected[0]
    yield [timed("short searches of a scan", both=taken_together / passes)]


def timed(what: str, **seconds: float) -> Row:
    return {
        "what": what,
        "threads": torch.get_num_threads(),
        **{name: round(1000 * value, 1) for name, value in seconds.items()},
    }


def least(run: Callable[[], None]) -> float:
    """The least time of an image."""
    run()
    taken = []
    for _ in range(REPEATS):
        started = time.perf_counter()
        run()
        taken.append((time.perf_counter() - started) / IMAGES)
    return min(taken)


def forward_of(network: Callable, images: torch.Tensor) -> None:
    with torch.no_grad():
        network(images)


def both_of(network: Callable, images: torch.Tensor) -> None:
    leaf = images.clone().requires_grad_()
    torch.autograd.grad(network(leaf).logsumexp(1).sum(), leaf)
