"""Folders of images: peak memory and time of a first run, of a second run from the cache, and of
tensors in memory.

Synthetic photos are written as JPEG files. Each run is a separate process, which predicts the
classes of all photos with a small network. Memory is anonymous memory, in which mapped files are
not counted (Linux only). Then one process reads the photos from the cache and as tensors, in turn,
and predicts their classes; ratios are those of passes next to each other.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from statistics import median

import numpy as np
import torch
from PIL import Image
from torch import nn

from captum_classpattern.datasets import load_images
from captum_classpattern.images import LabelledImages, predictions

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


def small_network() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 16, 7, 4), nn.ReLU(), nn.Conv2d(16, 32, 3, 2), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, CLASSES),
    ).eval()  # fmt: skip


def measure(folder: Path, cache: Path, kind: str, size: int) -> dict[str, float]:
    """Seconds until the images are ready and hashed, and the peak memory, until their classes are
    predicted, too."""
    peak = Peak()
    peak.start()
    network = small_network()
    started = time.perf_counter()
    images = load_images(folder, size=size, cache=cache)
    if kind == "tensors":
        images = images.in_one_tensor()
    assert len(images.hashes) == len(images)
    ready = time.perf_counter() - started
    predictions(network, images)
    return {"peak": peak.value, "ready": ready}


def measure_in_process(folder: Path, cache: Path, kind: str, size: int) -> dict[str, float]:
    command = [sys.executable, __file__, "--measure", folder, cache, kind, size]
    done = subprocess.run([*map(str, command)], check=True, capture_output=True, text=True)
    return json.loads(done.stdout.splitlines()[-1])


def read(images: LabelledImages) -> None:
    for _ in images.in_order():
        pass


def compare(folder: Path, cache: Path, size: int, passes: int) -> dict[str, list[list[float]]]:
    """Seconds of each pass from the cache and over tensors, taken in turn, by what is done."""
    network, cached = small_network(), load_images(folder, size=size, cache=cache)
    sources = cached, cached.in_one_tensor()
    work = {"reading": read, "predicting": partial(predictions, network)}
    seconds: dict[str, list[list[float]]] = {name: [[], []] for name in work}
    for i in range(passes):
        for name, run in work.items():
            for kind in (0, 1) if i % 2 == 0 else (1, 0):  # no kind is always the first
                started = time.perf_counter()
                run(sources[kind])
                seconds[name][kind].append(time.perf_counter() - started)
    return seconds


def table(count: int, size: int, passes: int, in_memory: int) -> Iterator[str]:
    """The lines of the tables. Tensors are measured on at most ``in_memory`` photos."""
    with tempfile.TemporaryDirectory() as temporary:
        folder, few, cache = (Path(temporary, name) for name in ("photos", "few", "cache"))
        write_photos(folder, count)
        if in_memory < count:
            write_photos(few, in_memory)
        else:
            few, in_memory = folder, count
        time.sleep(2.1)  # younger files are not cached
        yield f"{count:,} photos of {WIDTH} x {HEIGHT}, read at {size} px; {torch.__version__}\n"
        yield "| | photos | ready, s | peak, MiB |"
        yield "|---|---|---|---|"
        peaks = []
        for name, photos, number, kind in (
            ("first run", folder, count, "files"),
            ("second run", folder, count, "files"),
            ("tensors in memory", few, in_memory, "tensors"),
        ):
            cost = measure_in_process(photos, cache, kind, size)
            peaks.append(cost["peak"])
            yield f"| {name} | {number:,} | {cost['ready']:.1f} | {cost['peak']:.0f} |"
        peak = max(peaks[:2])
        yield f"\nPeak memory of a folder: {peak:.0f} MiB ({verdict(peak, MEMORY_GOAL)}).\n"
        what = f"{in_memory:,} photos, {passes} passes"
        yield f"| {what} | cache, ms/photo | tensors | ratio | range |"
        yield "|---|---|---|---|---|"
        for work, (cached, tensors) in compare(few, cache, size, passes).items():
            ratios = [a / b for a, b in zip(cached, tensors)]
            ratio = median(ratios)
            each = [f"{1000 * median(times) / in_memory:.2f}" for times in (cached, tensors)]
            goal = f" ({verdict(ratio, TIME_GOAL)})" if work == "predicting" else ""
            yield (
                f"| {work} | {' | '.join(each)} | {ratio:.2f}{goal} "
                f"| {min(ratios):.2f} to {max(ratios):.2f} |"
            )


def verdict(value: float, goal: float) -> str:
    return f"goal <= {goal}: {'met' if value <= goal else '**missed**'}"


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=2_000, help="photos")
    parser.add_argument("--size", type=int, default=224, help="side in pixels")
    parser.add_argument(
        "--passes", type=int, default=9, help="passes over cache and tensors, in turn"
    )
    parser.add_argument("--in-memory", type=int, default=2_000, help="most photos as tensors")
    parser.add_argument("--measure", nargs=4, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.measure:
        folder, cache, kind, size = options.measure
        print(json.dumps(measure(Path(folder), Path(cache), kind, int(size))))
        return
    for line in table(options.count, options.size, options.passes, options.in_memory):
        print(line, flush=True)


if __name__ == "__main__":
    main()
