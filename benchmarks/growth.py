"""Time and peak memory of a search by the numbers of classes, canvases and search images.

Each search runs in a separate process, because the peak memory of a process never falls.
"""

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import torch
from problems import PIXELS, Problem, cifar10_problems, demo_problems
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Subset
from torchvision.datasets import ImageFolder

from captum_classpattern import ClassPattern

ROUNDS = 20
SWEEPS = {
    "classes": (1, 2, 5, 10),
    "canvases": (1, 4, 16),
    "images": (1_000, 5_000, 10_000, 50_000),
}
START = {"classes": 1, "canvases": 4, "images": 1_000}


class RepeatedImages(Dataset[tuple[Tensor, int]]):
    """Any number of images, derived from the embedded ones when they are fetched."""

    def __init__(self, problem: Problem, count: int) -> None:
        self.images, self.targets = problem.images, problem.labels.repeat(-(-count // 1_000))
        self.targets = self.targets[:count]

    def __len__(self) -> int:
        return len(self.targets)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        shade = 1 - index // len(self.images) / 100  # so that no two are equal
        return self.images[index % len(self.images)] * shade, int(self.targets[index])


def measure_search(
    classes: int, canvases: int, images: int, cifar10: Path | None
) -> dict[str, float]:
    """Seconds and peak memory (MiB) of one search."""
    problem = demo_problems()[0] if cifar10 is None else cifar10_problems(cifar10)[0]
    data: Dataset = RepeatedImages(problem, images)
    if cifar10 is not None:
        train = ImageFolder(cifar10 / "train", PIXELS)
        order = torch.randperm(len(train), generator=torch.Generator().manual_seed(0))
        data = Subset(train, order[:images].tolist())
    targets = [target for target in range(classes) for _ in range(canvases)]
    chosen = torch.cat([problem.images[problem.labels == y][:canvases] for y in range(classes)])
    explainer = ClassPattern(problem.model, DataLoader(data, batch_size=32))
    started = time.perf_counter()
    explainer.search(chosen, targets, n_steps=ROUNDS)
    seconds = time.perf_counter() - started
    return {"seconds": seconds, "peak": peak_memory()}


def peak_memory() -> float:
    """MiB of this process: ``ru_maxrss`` would start at the value of its parent."""
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) / 1024


def measure_in_process(numbers: dict[str, int], cifar10: Path | None) -> dict[str, float]:
    command = [sys.executable, __file__, *(f"--{key}={value}" for key, value in numbers.items())]
    if cifar10 is not None:
        command.append(f"--cifar10={cifar10}")
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return json.loads(done.stdout.splitlines()[-1])


def grow(cifar10: Path | None) -> Iterator[str]:
    """The lines of the table; ratios refer to the first row of each sweep."""
    yield f"\n| {ROUNDS} rounds | seconds | time ratio | peak memory, MiB | memory ratio |"
    yield "|---|---|---|---|---|"
    ratio = 0.0
    for name, counts in SWEEPS.items():
        first: dict[str, float] = {}
        for count in counts:
            cost = measure_in_process({**START, name: count}, cifar10)
            first = first or cost
            ratio = cost["peak"] / first["peak"]
            yield (
                f"| {name}: {count:,} | {cost['seconds']:.1f} "
                f"| {cost['seconds'] / first['seconds']:.2f} | {cost['peak']:.0f} | {ratio:.2f} |"
            )
    met = "met" if ratio <= 1.1 else "**missed**"
    yield f"\nPeak memory, 50,000 against 1,000 search images: {ratio:.2f} (goal <= 1.1: {met})."


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    for name in SWEEPS:
        parser.add_argument(f"--{name}", type=int, required=True)
    parser.add_argument("--cifar10", type=Path)
    print(json.dumps(measure_search(**vars(parser.parse_args()))))
