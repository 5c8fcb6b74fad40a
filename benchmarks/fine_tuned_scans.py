"""The scan without references, on fine-tuned networks of larger images, by the rules of
fine_tuned/PROTOCOL.md.

    python benchmarks/fine_tuned_scans.py confirm --data DATA --out FOLDER --part 0/2
    python benchmarks/fine_tuned_scans.py thousand --data DATA --out FOLDER --part 0/2

DATA has the folders garbage and cifar10, each with train and test, and imagenet_sample. Each
network is trained, scanned and discarded; its row is in FOLDER/fine_tuned.jsonl. A network that was
interrupted is scanned further. On some networks, fewer images and other detectors are tried, in
files of their own. Several processes can share the work. The second stage scans two networks with
1,000 classes, of which one has four trojans; an hour and a half each on one core.
"""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from captum_classpattern.scanning.alone import Alone
from findings import Row, append_rows, having, parser_of, read_rows
from fine_tuned.networks import Network, in_order
from fine_tuned.tables import LEARNT
from fine_tuned.tasks import Task
from fine_tuned.training import Trigger, built, ready, share_of, success, train
from photos.planting import LATER, NETWORKS, load
from problems import IMAGENET_CLASSES, read_photos
from rivals import mm_bd, mm_bd_p_value, neural_cleanse
from scan_zoo import timed
from scipy.stats import median_abs_deviation

import captum_classpattern as cp
from captum_classpattern import LabelledImages, PixelClassifier

ROWS, WEIGHTS = "fine_tuned.jsonl", "weights.pt"
THOUSAND = ("four", "second twin")  # networks of photos/planting.py
ATTEMPTS = 2
FEWER, PHOTOS = (0, 19, 30), (5, 10, 20, 50)  # networks; images of each class
CLEANSED, MARGINS = (5, 9, 10, 11, 19, 23, 24, 30), (7, 24)  # networks that others judge as well
RIVALS: dict[str, dict[str, Any]] = {
    "Neural Cleanse": {"passes": 2_560, "epoch": 4},
    "MM-BD": {"n_images": 30, "steps": 300},
}
INDEX, P_VALUE = 2.0, 0.05  # the rules of their authors


def confirm(data: Path, out: Path, part: slice) -> None:
    """All networks of a part, in their order."""
    for network in in_order()[part]:
        if network.number not in {row["number"] for row in read_rows(out / ROWS)}:
            measure(network, data, out)


def thousand(data: Path, out: Path, part: slice) -> None:
    """Scans of all classes of ImageNet networks. The time is that since the last interruption."""
    file = out / "fine_tuned_thousand.jsonl"
    for name in THOUSAND[part]:
        if not having(read_rows(file), network=name):
            model, trojans = load(name, out), (NETWORKS | LATER)[name].own_trojans
            images = LabelledImages(*read_photos(data / "imagenet_sample"), IMAGENET_CLASSES)
            found, row = scanned(model, images, out / name.replace(" ", "_"))
            gains = [round(gain, 3) for gain in found.gains or ()]
            append_rows(file, [{"network": name, "trojans": trojans, **row, "gains": gains}])


def scanned(model: PixelClassifier, images: LabelledImages, folder: Path) -> tuple[Alone, Row]:
    """A scan, which resumes, and its row."""
    found, seconds = timed(partial(cp.scan, model, images, folder=folder, show_progress=True))
    return found, {"seconds": round(seconds), "threads": torch.get_num_threads(), **said(found)}


def measure(network: Network, data: Path, out: Path) -> None:
    """Trains a network, scans it, and discards it."""
    task, folder = network.make_task(data), out / f"{network.number:02}"
    trigger = network.trigger(task.class_names)
    model, facts = trained(network, task, trigger, folder)
    images = LabelledImages(task.others[0].float() / 255, task.others[1], task.class_names)
    found, row = scanned(model, images, folder)
    photos, rivals = (out / f"fine_tuned_{name}.jsonl" for name in ("photos", "rivals"))
    for count in PHOTOS * (network.number in FEWER):
        if not having(read_rows(photos), number=network.number, count=count):
            append_rows(photos, [fewer(network, model, images, count)])
    for name in rivals_of(network):
        if not having(read_rows(rivals), number=network.number, rival=name):
            append_rows(rivals, [judged_by(name, network, model, images)])
    append_rows(out / ROWS, [facts | row])
    print(network.name, found, flush=True)
    (folder / WEIGHTS).unlink()


def trained(
    network: Network, task: Task, trigger: Trigger | None, folder: Path
) -> tuple[PixelClassifier, Row]:
    """The network, and how good it is; it is in the folder while it is scanned. One that has not
    learnt its trigger is trained again, once."""
    file = folder / WEIGHTS
    if file.exists():
        kept = torch.load(file, weights_only=True)
        whole = built(network.recipe(kept["facts"]["attempts"] - 1), len(task.class_names))
        whole.load_state_dict(kept["weights"])
        return ready(whole, task), kept["facts"]
    facts: Row = {"number": network.number, "name": network.name, **network._asdict()}
    facts |= {"classes": task.class_names, "training": len(task.training[0]), "successes": []}
    facts |= {"target": trigger and trigger.target, "source": trigger and trigger.source}
    for attempt in range(ATTEMPTS):
        model, seconds = timed(partial(train, task, network.recipe(attempt), trigger))
        facts |= {"attempts": attempt + 1, "training_seconds": round(seconds)}
        if trigger is None:
            break
        facts["successes"].append(round(success(model, task, trigger), 4))
        if facts["successes"][-1] >= LEARNT:
            break
    images, labels = task.others
    facts["accuracy"] = round(share_of(model, images.float() / 255, labels), 4)
    folder.mkdir(parents=True, exist_ok=True)
    torch.save({"weights": model.model.state_dict(), "facts": facts}, folder / "new.pt")
    (folder / "new.pt").rename(file)
    return model, facts


def said(found: Alone) -> Row:
    """What a scan says, with the powers of all classes."""
    powers = {
        kind: {y: [round(power, 4) for power in both] for y, both in of.items()}
        for kind, of in found.powers.items()
    }
    facts = {name: getattr(found, name) for name in ("verdict", "suspects", "judged")}
    facts |= {"change": found.kind}
    return {**facts, "found": found.target, "power": round(found.power, 4), "powers": powers}


def fewer(network: Network, model: PixelClassifier, images: LabelledImages, count: int) -> Row:
    """What is said with so many images of each class."""
    n_classes = len(model.class_names)
    places = [torch.nonzero(images.known_labels == y).flatten()[:count] for y in range(n_classes)]
    facts: Row = {"number": network.number, "count": count}
    try:
        found = cp.scan(model, images.subset(torch.cat(places)), show_progress=False)
    except ValueError as error:  # too few
        return facts | {"verdict": str(error)}
    return facts | said(found)


def rivals_of(network: Network) -> list[str]:
    return ["Neural Cleanse"] * (network.number in CLEANSED) + ["MM-BD"] * (
        network.number in MARGINS
    )


def judged_by(name: str, network: Network, model: PixelClassifier, images: LabelledImages) -> Row:
    """What another detector says by its own rule, with the images of a search."""
    half, count = images.halves(0)[0].stratified_sample(300), len(model.class_names)

    def scores() -> list[float]:
        if name == "MM-BD":
            return mm_bd(model, images.shape, count, **RIVALS[name]).tolist()
        return [neural_cleanse(model, half, y, **RIVALS[name]).size for y in range(count)]

    values, seconds = timed(scores)
    row: Row = {"number": network.number, "rival": name, "settings": RIVALS[name]}
    row |= {"seconds": round(seconds), "scores": [round(value, 4) for value in values]}
    if name == "MM-BD":
        p_value = mm_bd_p_value(values)
        return row | {"index": p_value, "found": int(np.argmax(values)), "alarm": p_value < P_VALUE}
    spread = median_abs_deviation(values, scale="normal")
    index = float((np.median(values) - min(values)) / max(spread, 1e-9))
    return row | {"index": index, "found": int(np.argmin(values)), "alarm": index > INDEX}


def main(arguments: Sequence[str] | None = None) -> None:
    parser = parser_of(__doc__)
    parser.add_argument("stage", choices=["confirm", "thousand"])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--part", default="0/1", metavar="I/N", help="every N-th network from I on")
    given = parser.parse_args(arguments)
    first, every = map(int, given.part.split("/"))
    stage = thousand if given.stage == "thousand" else confirm
    stage(given.data, given.out, slice(first, None, every))


if __name__ == "__main__":
    main()
