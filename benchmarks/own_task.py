"""Scans of an own task, as a new user meets it: 2,500 training images, 20 references that the first
scan makes, and a clean and a backdoored network of another recipe for each of four seeds.

FASHION is the folder of Fashion-MNIST. What is in --out already is not made again.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from findings import Row, append_rows, parser_of, read_rows
from PIL import Image
from scan_evidence import LEARNT
from torch import nn
from zoo import DATA_SETS, Backdoor, Recipe, train
from zoo.networks import resnet
from zoo.training import Images, attack_success

from captum_classpattern import PixelClassifier, load_images, scan
from captum_classpattern.scanning.task import PACKAGE_VERSION

PER_CLASS = {"train": 250, "test": 100}
SEEDS = range(4)
WIDTH = 12
SUSPECT = Recipe("resnet", WIDTH, 1, 60, 1.0, smoothing=0.05, shifts=2)  # of no reference
PLACES = ("corner", "edge", "centre", "random")


def network(num_classes: int = 10) -> nn.Module:
    """The architecture of references and suspects."""
    assert num_classes == 10
    return resnet(1, WIDTH, 1)


def backdoor(seed: int) -> Backdoor:
    return Backdoor("checker", (3 * seed + 1) % 10, 0.1, 3, PLACES[seed], 700 + seed)


def write_images(data: Images, folder: Path, per_class: int) -> None:
    """The first images of each class, in a folder of their class."""
    for label in range(10):
        (folder / str(label)).mkdir(parents=True, exist_ok=True)
        chosen = data[0][data[1] == label][:per_class]
        for number, image in enumerate(chosen.mul(255).round().byte()):
            Image.fromarray(image[0].numpy()).save(folder / str(label) / f"{number:03}.png")


def opened(weights: dict[str, torch.Tensor]) -> PixelClassifier:
    model = network()
    model.load_state_dict(weights)
    return PixelClassifier(model.eval(), class_names=[*map(str, range(10))])


def measured(seed: int, planted: Backdoor | None, out: Path, data: dict[str, Images]) -> Row:
    """The row of a clean or backdoored network: what it is, and what the scan says."""
    training, images = (load_images(out / part, size=28, channels=1) for part in PER_CLASS)
    known = out / "scan" / "references.safetensors"
    making = {"make_references": training, "folder": known.parent, "show_progress": True}
    how: Any = {"references": known} if known.exists() else making
    trained = train(SUSPECT, data["train"], 500 + seed, planted)
    found = scan(
        opened(trained.state_dict()), images, folder=out / "scan", show_progress=True, **how
    )
    look = found.looks[found.family]
    return {
        "seed": seed,
        "planted": planted is not None,
        "attack_success": planted and round(attack_success(trained, planted, data["test"]), 4),
        "target": planted and planted.target,
        "accuracy": found.profile.accuracy,
        "references": len(found.references),
        "left_out": found.left_out,
        "verdict": found.verdict,
        "doubt": found.doubt and found.doubt.name,
        "class": found.target,
        "family": found.family,
        "excess": round(found.comparison.largest, 2),
        "p_value": found.p_value,
        "power": round(look.power.value, 4),
        "n": look.power.n,
        "model": found.profile.model,
        "version": PACKAGE_VERSION,
    }


def summary(rows: Sequence[Row]) -> Iterator[str]:
    for planted in (False, True):
        group = [row for row in rows if row["planted"] == planted]
        counts = [row for row in group if not planted or row["attack_success"] >= LEARNT]
        alarms = [row for row in counts if row["verdict"] == "suspicious"]
        right = sum(not planted or row["class"] == row["target"] for row in alarms)
        kind = "backdoored" if planted else "clean"
        yield f"{kind}: {right} of {len(counts)} suspicious ({len(group)} trained)"


def main(arguments: Sequence[str] | None = None) -> None:
    parser = parser_of(__doc__)
    parser.add_argument("fashion", type=Path, metavar="FASHION")
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args(arguments)
    out, load = options.out.resolve(), DATA_SETS["fashion"].load
    data = {split: load(options.fashion, split) for split in PER_CLASS}
    for split, count in PER_CLASS.items():
        if not (out / split).exists():
            write_images(data[split], out / split, count)
    file = out / "own_task.jsonl"
    few = load_images(out / "train", size=28, channels=1).in_one_tensor()
    data["train"] = few.images, few.known_labels
    done = {(row["seed"], row["planted"]) for row in read_rows(file)}
    for seed in SEEDS:
        for planted in (None, backdoor(seed)):
            if (seed, planted is not None) not in done:
                row = measured(seed, planted, out, data)
                append_rows(file, [row])
                print(row, flush=True)
    print(*summary(read_rows(file)), sep="\n")


if __name__ == "__main__":
    main()
