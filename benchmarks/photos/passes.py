"""Where the time of a pass at 224 pixels goes: bare passes, and those of a search."""

import time
from collections.abc import Callable, Iterator

import torch
from findings import Row
from problems import Problem
from torch import nn

from captum_classpattern import Cells, ClassPattern
from captum_classpattern.classifier import enter_model
from captum_classpattern.optimization.acceleration import accelerated

IMAGES, REPEATS, ROUNDS = 16, 2, 2


def time_rows(problem: Problem, model: nn.Module) -> Iterator[list[Row]]:
    """The milliseconds of a pass, the least of some repeats, with the threads of this process."""
    images = problem.images[:IMAGES]
    with enter_model(model, images[:1]) as checked:
        faster = accelerated(checked, images[:1], (), "auto")
    for name, network in {"as it is": model, "made faster": faster}.items():

        @torch.no_grad()
        def forward(network: Callable = network) -> int:
            network(images)
            return IMAGES

        def both(network: Callable = network) -> int:
            leaf = images.clone().requires_grad_()
            torch.autograd.grad(network(leaf).logsumexp(1).sum(), leaf)
            return IMAGES

        yield [row_of(f"bare, {name}", forward=forward, both=both)]
    explainer = ClassPattern(model, problem.images, problem.labels)
    ways = {"pixels": {}, "cells": {"feature_mask": Cells(32)}}
    ways["pixels, 32 images at once"] = {"internal_batch_size": 32}
    for name, given in ways.items():

        def search(given: dict = given) -> int:
            [found] = explainer.search(images[:1], 0, n_steps=ROUNDS, **given)
            return found.info["passes"]

        yield [row_of(f"search, {name}", both=search)]


def row_of(what: str, **runs: Callable[[], int]) -> Row:
    """Times what returns its number of passes."""
    row = {"what": what, "threads": torch.get_num_threads()}
    for name, run in runs.items():
        taken = []
        for _ in range(1 + REPEATS):
            started, passes = time.perf_counter(), run()
            taken.append((time.perf_counter() - started) / passes)
        row[name] = round(1000 * min(taken[1:]), 1)  # the first one warms up
    return row
