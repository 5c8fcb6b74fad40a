"""Scans of small networks, which are trained, scanned and discarded, by the rules of
zoo/PROTOCOL.md.

    python benchmarks/scan_networks.py development --data DATA --out FOLDER
    python benchmarks/scan_networks.py confirmation --data DATA --out FOLDER

DATA has a folder for each data set of zoo/training.py. Each network is a row of
FOLDER/scan_STAGE.jsonl; what has a row already is not made again. In development, every class is
searched twice with every change, so that other rules can be tried on the rows.
"""

import time
from argparse import Namespace
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import torch
from demo_training import accuracy
from findings import Row, append_rows, parser_of, read_rows
from zoo import DATA_SETS, Entry, confirmation, development, train
from zoo.training import Images, attack_success

import captum_classpattern as cp
from captum_classpattern import LabelledImages, PixelClassifier
from captum_classpattern.classifier import enter_model
from captum_classpattern.optimization.settings import SearchSettings
from captum_classpattern.scanning.changes import changes_for
from captum_classpattern.scanning.search import Found, Searches
from captum_classpattern.scanning.task import PACKAGE_VERSION, ScanTask

IMAGES = 1000  # of the test images, for a scan
DIGITS = 4
T = TypeVar("T")


def timed(action: Callable[[], T]) -> tuple[T, float]:
    """What an action returns, and its seconds."""
    started = time.perf_counter()
    return action(), round(time.perf_counter() - started, 1)


def row_of(entry: Entry, data: dict[str, Images], scanned: Callable[..., Row]) -> Row:
    """Trains a network and scans it."""
    network, seconds = timed(
        partial(train, entry.recipe, data["train"], entry.seed, entry.backdoors)
    )
    names = DATA_SETS[entry.data].class_names
    images = LabelledImages(*data["test"], names).stratified_sample(IMAGES)
    model = PixelClassifier(network, class_names=[*names])
    successes = [attack_success(network, each, data["test"]) for each in entry.backdoors]
    return {
        **asdict(entry),
        "accuracy": round(accuracy(network, *data["test"]), DIGITS),
        "successes": [round(each, DIGITS) for each in successes],
        "training_seconds": seconds,
        "version": PACKAGE_VERSION,
        **scanned(model, images),
    }


def measured_twice(model: PixelClassifier, images: LabelledImages) -> Row:
    """Of each change and class, what two searches found."""
    found, seconds = dict[str, Any](), dict[str, float]()
    names = [*model.class_names]
    with enter_model(model, images.take([0]), 0) as checked:
        task = ScanTask.of(checked, images, SearchSettings(show_progress=False), names)
        searches = Searches(task, changes_for(images.shape), None)
        for kind in searches.changes:
            both, seconds[kind] = timed(
                lambda kind=kind: [searches.measured(kind, range(len(names)), n) for n in range(2)]
            )
            found[kind] = {y: [numbers(each[y]) for each in both] for y in both[0]}
    return {"seconds": seconds, "found": found}


def scanned_once(model: PixelClassifier, images: LabelledImages) -> Row:
    """What a scan says."""
    scan, seconds = timed(partial(cp.scan, model, images, show_progress=False))
    said: Row = {name: getattr(scan, name) for name in ("verdict", "target", "suspects", "kind")}
    said |= {"power": round(scan.power, DIGITS), "reason": scan.reason, "seconds": seconds}
    said["strengths"] = {
        kind: round(each.strength, DIGITS) for kind, each in scan.decision.standings.items()
    }
    found = {
        kind: {y: [numbers(each) for each in both] for y, both in of.items()}
        for kind, of in scan.found.items()
    }
    return {**said, "found": found}


def numbers(found: Found) -> tuple[float, float]:
    """The power and the gain."""
    return round(found.power, DIGITS), round(found.gain, DIGITS)


STAGES = {
    "development": (development(), measured_twice),
    "confirmation": (confirmation(), scanned_once),
}


def parse_stage(
    doc: str | None,
    stages: Mapping[str, tuple[Sequence[T], Callable[..., Row]]],
    arguments: Sequence[str] | None,
) -> tuple[Namespace, Sequence[T], Callable[..., Row]]:
    """The options of a script with stages, the networks that it makes, and how it scans them."""
    parser = parser_of(doc)
    parser.add_argument("stage", choices=[*stages])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--part", default="0/1", metavar="I/N", help="every N-th network from I on")
    options = parser.parse_args(arguments)
    options.out.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    networks, scanned = stages[options.stage]
    first, every = map(int, options.part.split("/"))
    return options, networks[first::every], scanned


def main(arguments: Sequence[str] | None = None) -> None:
    options, entries, scanned = parse_stage(__doc__, STAGES, arguments)
    file, data = options.out / f"scan_{options.stage}.jsonl", dict[str, dict[str, Images]]()
    for entry in entries:
        if entry.name in {row["name"] for row in read_rows(file)}:
            continue
        if entry.data not in data:
            load, folder = DATA_SETS[entry.data].load, options.data / entry.data
            data = {entry.data: {part: load(folder, part) for part in ("train", "test")}}
        append_rows(file, [row_of(entry, data[entry.data], scanned)])
        print(entry.name, flush=True)


if __name__ == "__main__":
    main()
