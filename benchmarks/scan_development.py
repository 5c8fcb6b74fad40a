"""Networks of small images on which the rule of a scan was chosen: each is trained, and every class
is searched twice with every change. A row holds all numbers that a rule can use.

    python benchmarks/scan_development.py FASHION CIFAR10 --out FOLDER

FASHION is the folder of Fashion-MNIST, CIFAR10 that of CIFAR-10 as JPEG files. What is in --out
already is not made again; the weights stay there.
"""

import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from demo_training import accuracy
from findings import Row, append_rows, parser_of, read_rows
from zoo import DATA_SETS, Backdoor, Entry, Recipe, train
from zoo.training import Images, attack_success

from captum_classpattern import LabelledImages, PixelClassifier
from captum_classpattern.classifier import enter_model
from captum_classpattern.optimization.settings import SearchSettings
from captum_classpattern.scanning.changes import changes_for
from captum_classpattern.scanning.search import Searches
from captum_classpattern.scanning.task import ScanTask

ROWS = "scan_networks_development.jsonl"
IMAGES = 1000  # of the test images, equally many of each class
DIGITS = 4


def entries() -> Iterator[tuple[str, Entry]]:
    """Data set and network: clean ones and backdoored ones, of little data and of all."""
    little = [
        Recipe("resnet", 12, 1, 10, 1 / 12),
        Recipe("plain", 12, 1, 5, 1 / 3),
        Recipe("pooled", 6, 1, 4, 1 / 3),
        Recipe("resnet", 16, 1, 3, 1 / 3, smoothing=0.1),
    ]
    full = [
        Recipe("resnet", 12, 1, 3, 1.0, "adam"),
        Recipe("plain", 10, 1, 3, 1.0),
        Recipe("pooled", 8, 1, 3, 1.0, shifts=2),
    ]
    fashion = little + full
    kinds = [
        Backdoor("checker", 4, 0.08, 3, "random", 11),
        Backdoor("white", 0, 0.08, 3, "edge", 12),
        Backdoor("two", 6, 0.08, 4, "corner", 13),
        Backdoor("random", 3, 0.08, 5, "centre", 14),
        Backdoor("wanet", 5, 0.1, seed=15),
        Backdoor("blended", 2, 0.1, seed=16),
        Backdoor("two", 1, 0.08, 2, "random", 17),
        Backdoor("white", 7, 0.08, 2, "corner", 18),
        Backdoor("wanet", 9, 0.1, seed=19),
        Backdoor("random", 8, 0.08, 3, "edge", 20),
    ]
    for number, recipe in enumerate(fashion):
        yield "fashion", Entry(f"f_clean_{number}", recipe, 7000 + number)
        kind = kinds[number]
        yield "fashion", Entry(f"f_{kind.kind}_{number}", recipe, 7100 + number, kind)
    for number, kind in enumerate(kinds[len(fashion) :]):
        recipe = fashion[(3 * number + 1) % len(fashion)]
        name = f"f_{kind.kind}_{len(fashion) + number}"
        yield "fashion", Entry(name, recipe, 7200 + number, kind)
        yield "fashion", Entry(f"f_clean_{len(fashion) + number}", recipe, 7300 + number)
    cifar10 = [
        Recipe("pairs", 24, 1, 6, 1.0, smoothing=0.1, flips=True),
        Recipe("resnet", 16, 1, 3, 1.0, flips=True),
        Recipe("pairs", 24, 1, 10, 0.3, shifts=2, flips=True),
        Recipe("wide", 1, 2, 3, 1.0, flips=True),
    ]
    for number, kind in enumerate(kinds[:6]):
        recipe = cifar10[number % len(cifar10)]
        yield "cifar10", Entry(f"c_{kind.kind}_{number}", recipe, 7400 + number, kind)
        if number < len(cifar10):
            yield "cifar10", Entry(f"c_clean_{number}", recipe, 7500 + number)


def row_of(data_set: str, entry: Entry, data: dict[str, Images], out: Path) -> Row:
    """The row of a network."""
    weights, started = out / f"{entry.name}.pt", time.perf_counter()
    known = DATA_SETS[data_set]
    if weights.exists():
        network = entry.recipe.build(known.shape[0])
        network.load_state_dict(torch.load(weights, weights_only=True))
    else:
        network = train(entry.recipe, data["train"], entry.seed, entry.backdoor)
        torch.save(network.state_dict(), weights)
    trained, planted = time.perf_counter(), entry.backdoor
    images, labels = data["test"]
    places = [torch.nonzero(labels == y).flatten()[: IMAGES // 10] for y in range(10)]
    chosen = torch.cat(places)
    source = LabelledImages(images[chosen], labels[chosen], known.class_names)
    model = PixelClassifier(network.eval(), class_names=[*known.class_names])
    return {
        "name": entry.name,
        "data": data_set,
        "entry": asdict(entry),
        "accuracy": round(accuracy(network, *data["test"]), DIGITS),
        "success": planted and round(attack_success(network, planted, data["test"]), DIGITS),
        "training_seconds": round(trained - started),
        **measured(model, source),
    }


def measured(model: PixelClassifier, images: LabelledImages) -> Row:
    """Of each change and class, what two searches found: power and gain."""
    rows, seconds = dict[str, Any](), dict[str, float]()
    with enter_model(model, images.take([0]), 0) as checked:
        names, settings = [*images.class_names], SearchSettings(show_progress=False)
        changes = changes_for(images.shape)
        searches = Searches(ScanTask.of(checked, images, settings, names), changes, None)
        for kind in changes:
            started, rows[kind] = time.perf_counter(), {}
            for n in range(2):
                for y, found in searches.measured(kind, range(len(names)), n).items():
                    numbers = round(found.power, DIGITS), round(found.gain, DIGITS)
                    rows[kind].setdefault(y, []).append(numbers)
            seconds[kind] = round(time.perf_counter() - started, 1)
    return {"seconds": seconds, "found": rows}


def main(arguments: Sequence[str] | None = None) -> None:
    parser = parser_of(__doc__)
    parser.add_argument("fashion", type=Path, metavar="FASHION")
    parser.add_argument("cifar10", type=Path, metavar="CIFAR10")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--only", default="", help="names that begin like this")
    options = parser.parse_args(arguments)
    options.out.mkdir(parents=True, exist_ok=True)
    file, folders = options.out / ROWS, {"fashion": options.fashion, "cifar10": options.cifar10}
    data = dict[str, dict[str, Images]]()
    for data_set, entry in entries():
        if entry.name in {row["name"] for row in read_rows(file)}:
            continue
        if not entry.name.startswith(options.only):
            continue
        if data_set not in data:
            load = DATA_SETS[data_set].load
            data = {data_set: {part: load(folders[data_set], part) for part in ("train", "test")}}
        append_rows(file, [row_of(data_set, entry, data[data_set], options.out)])
        print(entry.name, flush=True)


if __name__ == "__main__":
    main()
