"""The time of a step of the search, relative to the bare passes of its batch."""

import statistics
import time
from collections.abc import Callable, Iterator
from functools import partial

import torch
from problems import Problem, row

from captum_classpattern.classifier import Classifier, preserve_state
from captum_classpattern.images import LabelledImages
from captum_classpattern.optimization.search import begin_search
from captum_classpattern.optimization.settings import Settings

STEPS = 30


def seconds(function: Callable[[], object], device: torch.device) -> float:
    started = time.perf_counter()
    function()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - started


def bare_passes(
    forward_func: Classifier, images: torch.Tensor, size: int | None, again: bool
) -> None:
    """Forward and backward to the images, in parts of ``size``; if ``again``, forward once more."""
    for part in images.split(size or len(images)):
        leaf = part.detach().requires_grad_()
        torch.autograd.grad(forward_func(leaf).float().logsumexp(1).sum(), leaf)
    if again:
        with torch.no_grad():
            for part in images.split(size or len(images)):
                forward_func(part)


def overhead(problem: Problem, canvases: int) -> Iterator[str]:
    """Two lines for one problem: sign-gradient steps and rounds of swaps. Medians over steps; each
    step is timed next to its bare passes."""
    device = next(problem.model.parameters()).device
    chosen = problem.images[:canvases].to(device)
    targets = problem.labels[:canvases].tolist()
    source = LabelledImages(problem.images, problem.labels, argument="images")
    with preserve_state(problem.model, 0):
        search = begin_search(
            problem.model, chosen, targets, source, Settings(n_steps=STEPS), None, None, False
        )
        forward_func, size = search.objective.forward_func, search.objective.internal_batch_size
        for kind, swaps in (("sign-gradient steps", False), ("rounds of swaps", True)):
            if swaps:
                search.advance(search.schedule.sign_steps)
            ratios = []
            for _ in range(STEPS):
                before, done = sum(search.halves), search.number + 1
                ours = seconds(lambda until=done: search.advance(until), device)
                n_images = (sum(search.halves) - before) // (3 if swaps else 2)
                images = torch.rand(n_images, *chosen.shape[1:], device=device)
                work = partial(bare_passes, forward_func, images, size, swaps)
                ratios.append(ours / seconds(work, device))
            ratio = statistics.median(ratios[3:])
            name = f"{kind}, time relative to bare passes, {problem.name}, canvases: {canvases}"
            yield row(name, "1", f"{ratio:.3f}", "<= 1.05", ratio <= 1.05)
