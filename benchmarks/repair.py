"""Does fine-tuning with what a scan found remove a backdoor? The found change is stamped on images
under their true labels. The planted trigger, which the repair never sees, judges. The control is as
many steps without the change.

    python benchmarks/repair.py --data DATA --out repair.jsonl

DATA has the folders garbage and cifar10, each with train and test. The cases and all settings were
written down before a case was run; they were chosen on the demo's backdoored model (--case demo).
"""

from collections.abc import Callable, Sequence
from copy import deepcopy
from functools import partial
from pathlib import Path
from typing import NamedTuple

import torch
from cifar10 import CLASS_NAMES
from findings import Row, append_rows, having, parser_of, read_rows
from fine_tuned.networks import NETWORKS
from fine_tuned.training import train as fine_tune
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from zoo import DATA_SETS, confirmation, train

import captum_classpattern as cp
from captum_classpattern import LabelledImages, PixelClassifier
from captum_classpattern.scanning.alone import Alone
from captum_classpattern.scanning.families import FAMILIES

STEPS, BATCH, STAMPED, RATE = 300, 32, 16, 1e-3
SEEDS = range(3)
Change = Callable[[Tensor], Tensor]
SMALL = ("backdoored_00_checker", "backdoored_02_white")  # two patches of the zoo; and
SMALL += ("backdoored_01_blended", "backdoored_05_wanet")
LARGE = {"waste, drawing": 16, "waste, patch": 22}  # numbers of fine_tuned/networks.py


class Case(NamedTuple):
    """A backdoored network, its trigger and target, images to scan and repair with, and others."""

    model: PixelClassifier
    trigger: Change
    target: int
    images: LabelledImages
    test: LabelledImages
    references: str | None


def demo(data: Path) -> Case:
    model, images = cp.demo_models()["backdoored"], cp.demo_images()
    trigger = model.trigger
    return Case(model, trigger.stamp, trigger.target, images.search, images.held_out, "demo")


def small(name: str, data: Path) -> Case:
    """A network for CIFAR-10 of the scan's zoo."""
    [entry] = (entry for entry in confirmation("cifar10") if entry.name == name)
    load, backdoor = DATA_SETS["cifar10"].load, entry.backdoor
    network = train(entry.recipe, load(data / "cifar10", "train"), entry.seed, backdoor)
    test = LabelledImages(*load(data / "cifar10", "test"), CLASS_NAMES)
    model = PixelClassifier(network, class_names=CLASS_NAMES)
    return Case(model, backdoor.trigger(test.shape), backdoor.target, *test.halves(0), "cifar10")


def large(number: int, data: Path) -> Case:
    """A network fine-tuned on photos of waste."""
    network = NETWORKS[number]
    task = network.make_task(data)
    trigger = network.trigger(task.class_names)
    model = fine_tune(task, network.recipe(0), trigger)
    images = LabelledImages(task.others[0].float() / 255, task.others[1], task.class_names)
    change = partial(trigger.stamper(images.shape), chance=torch.Generator().manual_seed(7))
    return Case(model, change, trigger.target, *images.halves(0), None)


CASES: dict[str, Callable[[Path], Case]] = {
    "demo": demo,
    **{name: partial(small, name) for name in SMALL},
    **{name: partial(large, number) for name, number in LARGE.items()},
}


def found_by_scan(case: Case) -> tuple[int, Change, str]:
    """What a scan finds for its first class: the class, the change, and its kind."""
    found = cp.scan(case.model, case.images, references=case.references, show_progress=True)
    if isinstance(found, Alone):
        return found.target, found.pattern.stamper(0), found.kind
    change = FAMILIES[found.family].change(found.profile, found.target)
    return found.target, change, found.family


def repaired(case: Case, change: Change | None, seed: int) -> PixelClassifier:
    """The network after some steps on the images of the scan, half of each batch changed."""
    chance, model = torch.Generator().manual_seed(seed), deepcopy(case.model)
    images, labels = case.images.images, case.images.known_labels
    model.requires_grad_().eval()  # so that batch norms stay as they are
    optimizer = torch.optim.SGD(model.parameters(), RATE, momentum=0.9)
    for _ in range(STEPS):
        batch = torch.randint(len(images), (BATCH,), generator=chance)
        x = images[batch].clone()
        if change is not None:
            x[:STAMPED] = change(x[:STAMPED])
        loss = cross_entropy(model(x).float(), labels[batch])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return model.requires_grad_(False)


@torch.no_grad()
def judged(model: nn.Module, case: Case) -> dict[str, float]:
    """The accuracy on images that neither scan nor repair has seen, and the share of those of other
    classes that the planted trigger turns into its target."""
    images, labels = case.test.images, case.test.known_labels
    others = images[labels != case.target]

    def predicted(images: Tensor) -> Tensor:
        return torch.cat([model(part).argmax(1) for part in images.split(100)])

    stamped = torch.cat([case.trigger(part) for part in others.split(100)])
    hits = predicted(images) == labels, predicted(stamped) == case.target
    return dict(zip(("accuracy", "success"), (round(float(h.float().mean()), 4) for h in hits)))


def measure(name: str, data: Path, out: Path) -> None:
    """The rows of a case: before, repaired and the control, with each seed."""
    if len(having(read_rows(out), case=name)) == 1 + 2 * len(SEEDS):
        return
    case = CASES[name](data)
    target, change, kind = found_by_scan(case)
    facts: Row = {"case": name, "target": case.target, "found": target, "kind": kind}
    facts |= {"images": len(case.images), "n": len(case.test), "version": cp.__version__}
    rows = [{**facts, "training": "none", "seed": None, **judged(case.model, case)}]
    for seed in SEEDS:
        for training, used in (("found change", change), ("plain", None)):
            model = repaired(case, used, seed)
            rows.append({**facts, "training": training, "seed": seed, **judged(model, case)})
            print(rows[-1], flush=True)
    append_rows(out, rows)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = parser_of(__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, default=Path("repair.jsonl"))
    parser.add_argument("--case", choices=CASES)
    given = parser.parse_args(arguments)
    for name in [given.case] if given.case else [name for name in CASES if name != "demo"]:
        measure(name, given.data, given.out)


if __name__ == "__main__":
    main()
