"""Folders of images: peak memory and time of a first run, of a second run from the cache, and of
tensors in memory.

Synthetic photos are written as JPEG files. Each run is a separate process, which predicts the
classes of all photos several times with a small network. Memory is anonymous memory, in which
mapped files are not counted (Linux only).
"""

import argparse
import json
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import nn

from captum_classpattern.datasets import load_images
from captum_classpattern.images import predictions

HEIGHT, WIDTH = 375, 500  # of the photos
CLASSES = 10
MEMORY_GOAL, TIME_GOAL = 1024, 1.2  # MiB; times as long as tensors in memory


def write_photos(folder: Path, count: int) -> None:
    """Smooth colours with some noise, different in each photo."""
    chance = np.random.default_rng(0)
    for i in range(count):
        coarse = Image.fromarray(chance.integers(0, 256, (6, 8, 3), np.uint8))
        smooth = np.asarray(coarse.resize((WIDTH, HEIGHT), Image.Resampling.BICUBIC), np.int16)
        noise = chance.integers(-12, 13, smooth.shape, np.int16)
        path = folder / f"class_{i % CLASSES}" / f"{i:06}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray((smooth + noise).clip(0, 255).astype(np.uint8)).save(path, quality=90)


def anonymous_memory() -> float:
    """MiB of this process."""
    status = Path("/proc/self/status").read_text()
    return int(status.split("RssAnon:")[1].split()[0]) / 1024


class Peak(threading.Thread):
    """The peak of the anonymous memory, looked at 100 times a second."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.value = 0.0

    def run(self) -> None:
        while True:
            self.value = max(self.value, anonymous_memory())
            time.sleep(0.01)


def measure(folder: Path, cache: Path, kind: str, size: int, passes: int) -> dict[str, float]:
    """Peak memory; seconds until the images are ready and hashed; the best time of some passes in
    which the images are only read, and of passes in which their classes are predicted."""
    peak = Peak()
    peak.start()
    network = nn.Sequential(
        nn.Conv2d(3, 16, 7, 4), nn.ReLU(), nn.Conv2d(16, 32, 3, 2), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, CLASSES),
    ).eval()  # fmt: skip
    started = time.perf_counter()
    images = load_images(folder, size=size, cache=cache)
    if kind == "tensors":
        images = images.in_one_tensor()
    assert len(images.hashes) == len(images)
    ready = time.perf_counter() - started
    seconds: dict[str, list[float]] = {"reading": [], "predicting": []}
    for _ in range(passes):
        started = time.perf_counter()
        for _ in images.in_order():
            pass
        seconds["reading"].append(time.perf_counter() - started)
        started = time.perf_counter()
        predictions(network, images)
        seconds["predicting"].append(time.perf_counter() - started)
    best = {name: min(times) for name, times in seconds.items()}
    return {"peak": peak.value, "ready": ready, **best}


def measure_in_process(folder: Path, cache: Path, kind: str, *numbers: int) -> dict[str, float]:
    command = [sys.executable, __file__, "--measure", folder, cache, kind, *numbers]
    done = subprocess.run([*map(str, command)], check=True, capture_output=True, text=True)
    return json.loads(done.stdout.splitlines()[-1])


def table(count: int, size: int, passes: int, in_memory: int) -> Iterator[str]:
    """The lines of the table. Tensors are measured on at most ``in_memory`` photos, in a run next
    to one from the cache of the same photos."""
    with tempfile.TemporaryDirectory() as temporary:
        folder, cache = Path(temporary, "photos"), Path(temporary, "cache")
        write_photos(folder, count)
        time.sleep(2.1)  # younger files are not cached
        few = folder
        if in_memory < count:
            few = Path(temporary, "few")
            write_photos(few, in_memory)
            time.sleep(2.1)
        yield f"{count:,} photos of {WIDTH} x {HEIGHT}, read at {size} px; {torch.__version__}\n"
        yield "| | photos | ready, s | reading, ms/photo | predicting, ms/photo | peak, MiB |"
        yield "|---|---|---|---|---|---|"
        runs = [("first run", folder, "files"), ("second run", folder, "files")]
        if few != folder:
            runs += [("first run", few, "files"), ("second run", few, "files")]
        runs += [("tensors in memory", few, "tensors")]
        costs = []
        for name, photos, kind in runs:
            cost = measure_in_process(photos, cache, kind, size, passes)
            costs.append(cost)
            number = count if photos == folder else in_memory
            yield (
                f"| {name} | {number:,} | {cost['ready']:.1f} "
                f"| {1000 * cost['reading'] / number:.2f} "
                f"| {1000 * cost['predicting'] / number:.2f} | {cost['peak']:.0f} |"
            )
    peak, (cached, tensors) = max(cost["peak"] for cost in costs[:2]), costs[-2:]
    yield f"\nPeak memory: {peak:.0f} MiB ({verdict(peak, MEMORY_GOAL)})."
    for work in ("reading", "predicting"):
        ratio = cached[work] / tensors[work]
        yield f"Time of {work} from the cache: {ratio:.2f} of that of tensors" + (
            f" ({verdict(ratio, TIME_GOAL)})." if work == "predicting" else "."
        )


def verdict(value: float, goal: float) -> str:
    return f"goal <= {goal}: {'met' if value <= goal else '**missed**'}"


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=2_000, help="photos")
    parser.add_argument("--size", type=int, default=224, help="side in pixels")
    parser.add_argument("--passes", type=int, default=3, help="passes over the photos")
    parser.add_argument("--in-memory", type=int, default=2_000, help="most photos as tensors")
    parser.add_argument("--measure", nargs=5, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.measure:
        folder, cache, kind, size, passes = options.measure
        print(json.dumps(measure(Path(folder), Path(cache), kind, int(size), int(passes))))
        return
    for line in table(options.count, options.size, options.passes, options.in_memory):
        print(line, flush=True)


if __name__ == "__main__":
    main()
