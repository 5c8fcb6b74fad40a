"""The time of a step of the search, relative to the bare passes of its batch."""

import statistics
import time
from collections.abc import Callable, Iterator
from functools import partial

import torch
from problems import Problem, row

from captum_classpattern.classifier import Classifier, preserve_state
from captum_classpattern.images import LabelledImages
from captum_classpattern.optimization.objective import Batch
from captum_classpattern.optimization.run import begin_search
from captum_classpattern.optimization.schedule import Stream
from captum_classpattern.optimization.settings import SearchSettings

STEPS = 30


def seconds(function: Callable[[], object], device: torch.device) -> float:
    started = time.perf_counter()
    function()
    wait_for(device)
    return time.perf_counter() - started


def wait_for(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()


def bare_passes(
    forward_func: Classifier, images: torch.Tensor, size: int | None, times: int
) -> None:
    """Forward and backward to the images, in parts of ``size``, several times."""
    for _ in range(times):
        for part in images.split(size or len(images)):
            leaf = part.detach().requires_grad_()
            torch.autograd.grad(forward_func(leaf).float().logsumexp(1).sum(), leaf)


def overhead(problem: Problem, canvases: int) -> Iterator[str]:
    """Two rows for one problem: sign-gradient steps, and rounds of swaps. The values are medians
    over steps; each step is timed next to its bare passes."""
    device = next(problem.model.parameters()).device
    chosen = problem.images[:canvases].to(device)
    targets = problem.labels[:canvases].tolist()
    source = LabelledImages(problem.images, problem.labels, argument="images")
    stages: list[list[float]] = []  # the ratios of each stage of the solver
    with preserve_state(problem.model, 0):
        streams = [Stream(target) for target in targets]
        settings = SearchSettings(n_steps=STEPS)
        search = begin_search(problem.model, chosen, streams, source, settings)
        forward_func, size = search.objective.forward_func, search.objective.internal_batch_size
        batches = search.batches

        def timed(batch_size: int, n_steps: int | None) -> Iterator[Batch]:
            times = 1 if not stages else 1 + settings.solver.proposals
            stages.append([])
            started = time.perf_counter()
            for batch in batches(batch_size, n_steps):
                yield batch
                wait_for(device)
                ours = time.perf_counter() - started
                if len(stages[-1]) < STEPS:
                    count = len(batch.places)
                    images = torch.rand(count, *chosen.shape[1:], device=device)
                    work = partial(bare_passes, forward_func, images, size, times)
                    stages[-1].append(ours / seconds(work, device))
                started = time.perf_counter()

        search.batches = timed  # type: ignore[method-assign, assignment]
        search.finish()
    for kind, ratios in zip(("sign-gradient steps", "rounds of swaps"), stages):
        ratio = statistics.median(ratios[3:])
        name = f"{kind}, time relative to bare passes, {problem.name}, canvases: {canvases}"
        yield row(name, "1", f"{ratio:.3f}", "<= 1.05", ratio <= 1.05)
