"""What a step of the search costs over the bare forward and backward passes of its batch."""

import statistics
import time
from collections.abc import Callable, Iterator

import torch
from problems import Problem, row

from captum_classpattern.classifier import Classifier, undisturbed
from captum_classpattern.images import ImageSource
from captum_classpattern.search import begin_search
from captum_classpattern.settings import Settings

STEPS = 30


def seconds(work: Callable[[], object], device: torch.device) -> float:
    started = time.perf_counter()
    work()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - started


def bare(forward_func: Classifier, images: torch.Tensor, size: int | None) -> None:
    """Forward and back to the images, in parts of ``size``."""
    for part in images.split(size or len(images)):
        leaf = part.detach().requires_grad_()
        torch.autograd.grad(forward_func(leaf).float().logsumexp(1).sum(), leaf)


def overhead(problem: Problem, canvases: int) -> Iterator[str]:
    """The line of one problem: the median over steps of both, taken in turn."""
    device = next(problem.model.parameters()).device
    chosen = problem.images[:canvases].to(device)
    targets = problem.labels[:canvases].tolist()
    source = ImageSource(problem.images, problem.labels, name="images")
    settings = Settings(n_steps=2 * STEPS)
    with undisturbed(problem.model, 0):
        search = begin_search(problem.model, chosen, targets, source, settings, None, None, False)
        forward_func, size = search.objective.forward_func, search.objective.internal_batch_size
        ours, theirs = [], []
        for step in range(STEPS):
            before = int(search.passes.sum())
            ours.append(seconds(lambda until=step + 1: search.advance(until), device))
            shown = int(search.passes.sum()) - before
            images = torch.rand(shown, *chosen.shape[1:], device=device)
            theirs.append(seconds(lambda images=images: bare(forward_func, images, size), device))
    ratios = [a / b for a, b in zip(ours[3:], theirs[3:])]
    ratio = statistics.median(ratios)
    name = f"step over bare passes, {problem.name}, {canvases} canvases"
    yield row(name, "1", f"{ratio:.3f}", "<= 1.05", ratio <= 1.05)
