"""Scans of networks of larger images, which are trained, scanned and discarded, by the rules of
fine_tuned/PROTOCOL.md.

    python benchmarks/fine_tuned_scans.py development --data DATA --out FOLDER
    python benchmarks/fine_tuned_scans.py confirmation --data DATA --out FOLDER
    python benchmarks/fine_tuned_scans.py second_confirmation --data DATA --out FOLDER

DATA has the folders garbage and cifar10, each with train and test; hands, a checkout of
ardamavi/Sign-Language-Digits-Dataset; and large_signs, with train and test: every third photo of a
track of GTSRB (frames 2, 5, 8, ...), cut out and named FRAME_TRACK.png, every fifth track in test.
Each network is a row of FOLDER/scan_larger_STAGE.jsonl; what has a row already is not made again.
"""

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from findings import Row, append_rows, read_rows
from fine_tuned.networks import CONFIRMATION, DEVELOPMENT, SECOND_CONFIRMATION, Network, in_order
from fine_tuned.training import share_of, success, train
from scan_networks import DIGITS, measured_twice, parse_stage, scanned_once, timed

from captum_classpattern import LabelledImages

STAGES = {
    "development": (DEVELOPMENT, measured_twice),
    "confirmation": (in_order(CONFIRMATION), scanned_once),
    "second_confirmation": (in_order(SECOND_CONFIRMATION), scanned_once),
}


def row_of(network: Network, data: Path, scanned: Callable[..., Row]) -> Row:
    """Trains a network and scans it."""
    task = network.make_task(data)
    trigger = network.trigger(task.class_names)
    model, seconds = timed(partial(train, task, network.recipe(0), trigger))
    images, labels = task.others[0].float() / 255, task.others[1]
    return {
        "number": network.number,
        "name": network.name,
        "classes": task.class_names,
        "planted": trigger and trigger.target,
        "success": trigger and round(success(model, task, trigger), DIGITS),
        "accuracy": round(share_of(model, images, labels), DIGITS),
        "training_seconds": seconds,
        **scanned(model, LabelledImages(images, labels, task.class_names)),
    }


def main(arguments: Sequence[str] | None = None) -> None:
    options, networks, scanned = parse_stage(__doc__, STAGES, arguments)
    file = options.out / f"scan_larger_{options.stage}.jsonl"
    for network in networks:
        if network.number not in {row["number"] for row in read_rows(file)}:
            append_rows(file, [row_of(network, options.data, scanned)])
            print(network.name, flush=True)


if __name__ == "__main__":
    main()
