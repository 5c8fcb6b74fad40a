"""What the search costs over the bare network, and what searching together gains, as ratios.

    python benchmarks/speed.py

Prints a Markdown table for the embedded natural model; all figures come from one run.
"""

import statistics
import time
from collections.abc import Callable

import torch

from captum_classpattern import search_masks, select_canvases
from captum_classpattern.demo import demo_images, demo_models

STEPS, REPEATS = 40, 5


def median_seconds(work: Callable[[], object]) -> float:
    work()
    seconds = []
    for _ in range(REPEATS):
        started = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - started)
    return statistics.median(seconds)


model, search = demo_models()["natural"], demo_images().search
targets = list(range(10))
canvases = torch.cat(
    [select_canvases(model, search.images, search.labels, target, n=1) for target in targets]
)


def searched(rows: list[int]) -> None:
    search_masks(
        model,
        canvases[rows],
        [targets[row] for row in rows],
        search.images,
        baseline_labels=search.labels,
        n_steps=STEPS,
    )


def bare(count: int) -> None:
    labels = torch.zeros(count, dtype=torch.int64)
    for _ in range(STEPS):
        images = torch.rand(count, 1, 28, 28, requires_grad=True)
        loss = torch.nn.functional.cross_entropy(model(images), labels)
        torch.autograd.grad(loss, images)


together = median_seconds(lambda: searched(targets))
alone = median_seconds(lambda: [searched([row]) for row in targets])
bare_forty, bare_four = median_seconds(lambda: bare(40)), median_seconds(lambda: bare(4))
print("| figure | ratio |\n|---|---|")
print(f"| time of ten canvases searched together, over one by one | {together / alone:.2f} |")
print(f"| ten together, over the bare network on the same batches | {together / bare_forty:.2f} |")
print(f"| one canvas, over the bare network on the same batches | {alone / 10 / bare_four:.2f} |")
