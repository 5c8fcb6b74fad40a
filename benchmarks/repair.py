"""Does fine-tuning with what a scan found remove a backdoor? The found change is stamped on images
under their true labels. The planted trigger, which this repair never sees, judges.

    python benchmarks/repair.py --data DATA --out FOLDER

Controls: as many steps without a change, with the change that was found for another class, and with
the planted trigger itself. DATA has the folders garbage and cifar10, each with train and test. All
cases and settings were written down before a case was run; the settings were chosen on the demo's
backdoored model (--case demo). Rows are added to FOLDER/repair.jsonl; the same call resumes.
"""

from collections.abc import Callable, Iterator, Sequence
from copy import deepcopy
from functools import partial
from pathlib import Path
from typing import NamedTuple

import torch
from cifar10 import CLASS_NAMES
from findings import Row, Table, append_rows, having, head, line, parser_of, read_rows
from fine_tuned.networks import NETWORKS
from fine_tuned.training import train
from torch import Generator, Tensor, nn
from torch.nn.functional import cross_entropy
from zoo import DATA_SETS, confirmation
from zoo import train as train_small

import captum_classpattern as cp
from captum_classpattern import LabelledImages, Pattern, PixelClassifier

STEPS, BATCH, STAMPED, RATE = 300, 32, 16, 1e-3
SEEDS, OF_CONTROLS = (0, 1, 2), (0,)
BEFORE, FOUND, NOTHING = "none", "found change", "no change"
CONTROLS = "change of another class", "planted trigger"
REPAIRS = FOUND, NOTHING, *CONTROLS
Change = Callable[[Tensor, Generator], Tensor]
SMALL = {  # entries of zoo/entries.py
    "checker_08": "CIFAR-10, checkerboard",
    "white_09": "CIFAR-10, white patch",
    "blended_11": "CIFAR-10, Blended",
    "wanet_10": "CIFAR-10, WaNet",
}
WORDS = SMALL | {  # those of version 0.5, whose rows are kept
    "backdoored_00_checker": "CIFAR-10, checkerboard",
    "backdoored_02_white": "CIFAR-10, white patch",
    "backdoored_01_blended": "CIFAR-10, Blended",
    "backdoored_05_wanet": "CIFAR-10, WaNet",
}
LARGE = {"waste, drawing": 16, "waste, patch": 22}  # numbers of fine_tuned/networks.py


class Case(NamedTuple):
    """A backdoored network, its trigger and target, images to scan and repair with, and others."""

    model: PixelClassifier
    trigger: Change
    target: int
    images: LabelledImages
    test: LabelledImages


def demo(data: Path) -> Case:
    model, images = cp.demo_models()["backdoored"], cp.demo_images()
    trigger = model.trigger
    change = always(trigger.stamp)
    return Case(model, change, trigger.target, images.search, images.held_out)


def small(name: str, data: Path) -> Case:
    """A network for CIFAR-10 of the scan's confirmation."""
    [entry] = (entry for entry in confirmation() if entry.name == name)
    load, [backdoor] = DATA_SETS["cifar10"].load, entry.backdoors
    parts = {part: load(data / "cifar10", part) for part in ("train", "test")}
    network = train_small(entry.recipe, parts["train"], entry.seed, entry.backdoors)
    model = PixelClassifier(network, class_names=[*CLASS_NAMES])
    test = LabelledImages(*parts["test"], CLASS_NAMES)
    change = always(backdoor.trigger(test.shape))
    return Case(model, change, backdoor.target, *test.halves(0))


def large(number: int, data: Path) -> Case:
    """A network fine-tuned on photos of waste."""
    network = NETWORKS[number]
    task = network.make_task(data)
    trigger = network.trigger(task.class_names)
    model = train(task, network.recipe(0), trigger)
    images = LabelledImages(task.others[0].float() / 255, task.others[1], task.class_names)
    change = trigger.stamper(images.shape)
    return Case(model, change, trigger.target, *images.halves(0))


CASES: dict[str, Callable[[Path], Case]] = {
    "demo": demo,
    **{name: partial(small, name) for name in SMALL},
    **{name: partial(large, number) for name, number in LARGE.items()},
}


def always(change: Callable[[Tensor], Tensor]) -> Change:
    """A change without chance."""
    return lambda images, _: change(images)


def anew(pattern: Pattern) -> Change:
    """A pattern whose places are drawn anew for each batch, if it moves."""

    def change(images: Tensor, chance: Generator) -> Tensor:
        return pattern.stamper(int(torch.randint(2**31, (1,), generator=chance)))(images)

    return change


def scanned(case: Case, folder: Path) -> tuple[Row, Change, Change]:
    """What a scan says, and the changes that it found for its first class, and for another class
    than that and the target."""
    found = cp.scan(case.model, case.images, folder=folder, show_progress=True)
    first, searched = found.target, sorted(found.found[found.kind])
    other = next(y for y in searched if y not in (first, case.target))
    changes = [anew(found.found[found.kind][y][0].pattern) for y in (first, other)]
    said: Row = {"verdict": found.verdict, "found": first, "other": other, "kind": found.kind}
    said |= {"power": round(found.power, 4), "model": found.key["model"]}
    return said, *changes


def repaired(case: Case, change: Change | None, seed: int) -> PixelClassifier:
    """The network after some steps on the images of the scan, half of each batch changed."""
    chance, model = Generator().manual_seed(seed), deepcopy(case.model)
    images, labels = case.images.images, case.images.known_labels
    model.requires_grad_().eval()  # so that batch norms stay as they are
    optimizer = torch.optim.SGD(model.parameters(), RATE, momentum=0.9)
    for _ in range(STEPS):
        batch = torch.randint(len(images), (BATCH,), generator=chance)
        x = images[batch].clone()
        if change is not None:
            x[:STAMPED] = change(x[:STAMPED], chance)
        loss = cross_entropy(model(x).float(), labels[batch])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return model.requires_grad_(False)


@torch.no_grad()
def judged(model: nn.Module, case: Case) -> dict[str, float]:
    """The accuracy on images that neither scan nor repair has seen, and the share of those of other
    classes that the model predicts as the target with the planted trigger."""
    images, labels, chance = case.test.images, case.test.known_labels, Generator().manual_seed(7)

    def predicted(images: Tensor) -> Tensor:
        return torch.cat([model(part).argmax(1) for part in images.split(100)])

    others = images[labels != case.target]
    stamped = torch.cat([case.trigger(part, chance) for part in others.split(100)])
    hits = predicted(images) == labels, predicted(stamped) == case.target
    return dict(zip(("accuracy", "success"), (round(float(h.float().mean()), 4) for h in hits)))


def measure(name: str, data: Path, out: Path) -> None:
    """The rows of a case: before, and after each training with each seed."""
    file = out / "repair.jsonl"
    how = {"steps": STEPS, "batch": BATCH, "stamped": STAMPED, "rate": RATE}
    known = {(row["training"], row["seed"]) for row in having(read_rows(file), case=name, **how)}
    trainings = [(BEFORE, None), *((t, s) for s in SEEDS for t in (FOUND, NOTHING))]
    trainings += [(t, s) for s in OF_CONTROLS for t in CONTROLS]
    if known >= {*trainings}:
        return
    case = CASES[name](data)
    said, change, other = scanned(case, out / name.replace(", ", "_"))
    changes = dict(zip(REPAIRS, (change, None, other, case.trigger)))
    facts: Row = {"case": name, "target": case.target, **said, "images": len(case.images)}
    facts |= {"n": len(case.test), **how}
    facts |= {"version": cp.__version__, "torch": torch.__version__}
    for training, seed in (each for each in trainings if each not in known):
        model = case.model if seed is None else repaired(case, changes[training], seed)
        row = {**facts, "training": training, "seed": seed, **judged(model, case)}
        append_rows(file, [row])
        print(name, training, seed, row["accuracy"], row["success"], flush=True)


def tables(rows: Sequence[Row]) -> Iterator[Table]:
    """Both values before and after each training, seed by seed, and what the scans found."""
    cases = [*LARGE, *WORDS]
    rows = sorted(rows, key=lambda row: (cases.index(row["case"]), row["seed"] or 0))
    for title, name in (("Success of the planted trigger", "success"), ("Accuracy", "accuracy")):
        yield title, shares(rows, name)
    yield "What the scans found", scans(rows)


def shares(rows: Sequence[Row], name: str) -> Iterator[str]:
    """A value of each network, a column for each training, in the order of the seeds."""
    yield head("network", "before", *REPAIRS)
    for case in dict.fromkeys(row["case"] for row in rows):
        trainings = (having(rows, case=case, training=each) for each in (BEFORE, *REPAIRS))
        values = (", ".join(f"{row[name]:.1%}" for row in seeds) for seeds in trainings)
        yield line(WORDS.get(case, case), *values)


def scans(rows: Sequence[Row]) -> Iterator[str]:
    """What the scan of each network found."""
    yield head("network", "verdict", "planted", "found", "by", "power", "images", "test images")
    for row in having(rows, training=BEFORE):
        case = WORDS.get(row["case"], row["case"])
        found = row["target"], row["found"], row["kind"], f"{row['power']:.1%}"
        yield line(case, row["verdict"], *found, row["images"], row["n"])


def main(arguments: Sequence[str] | None = None) -> None:
    parser = parser_of(__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--case", choices=CASES)
    given = parser.parse_args(arguments)
    given.out.mkdir(parents=True, exist_ok=True)
    for name in [given.case] if given.case else [name for name in CASES if name != "demo"]:
        measure(name, given.data, given.out)


if __name__ == "__main__":
    main()
