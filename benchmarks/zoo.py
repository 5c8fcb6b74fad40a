"""A zoo of clean and backdoored models on Fashion-MNIST, and what a scan measures of each.

    python benchmarks/zoo.py DATA --out FOLDER

trains the models and scans them. DATA is a folder with the four ``*-ubyte.gz`` files of
Fashion-MNIST, as for ``benchmarks/demo_training.py``. Each finished model is one file of
weights, and each scan one JSON file, so an interrupted run can resume. Half of the recipes and of
the triggers are a test set. The scan's settings were chosen on other models; one rule was changed
when 75 networks of both halves had been scanned (docs/scan_evidence.md).
"""

import itertools
import json
import random
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from demo_training import accuracy, cross_entropy, pgd
from failures import read_record, split
from findings import parser_of
from one_cycle import fit
from safetensors.torch import load_file, save
from torch import Tensor, nn
from torch.nn import functional as F

from captum_classpattern import PixelClassifier
from captum_classpattern._files import write_atomically
from captum_classpattern.demo import CLASS_NAMES, demo_images
from captum_classpattern.demo.network import SmallResNet
from captum_classpattern.images import LabelledImages
from captum_classpattern.pattern import Pattern
from captum_classpattern.scanning.families import CHANGES, FAMILIES, Powers, Task
from captum_classpattern.scanning.profile import SETTINGS, draw_sample, measure
from captum_classpattern.scanning.references import describe
from captum_classpattern.triggers import Blended, Sinusoid, Trigger, Warp

SHAPE = (1, 28, 28)
N_CLASSES = len(CLASS_NAMES)
CLEAN_SEEDS, PATCHES = 6, 36


@dataclass(frozen=True)
class Recipe:
    """How a network is trained."""

    network: str = "resnet"
    width: int = 16
    epochs: int = 3
    optimizer: str = "sgd"
    smoothing: float = 0.0
    shifts: int = 0  # most pixels by which images are moved
    random_labels: float = 0.0  # share of the images
    images: int = 20_000
    attack_steps: int = 0


RECIPES = {  # the first half for development, the second half for the test
    "base": Recipe(),
    "plain": Recipe(network="plain"),
    "smooth": Recipe(smoothing=0.1),
    "adam": Recipe(optimizer="adam"),
    "few": Recipe(images=5_000, epochs=10),
    "wide": Recipe(width=24),
    "long": Recipe(images=60_000, epochs=4),
    "shifted": Recipe(shifts=2),
    "noisy": Recipe(random_labels=0.2),
    "robust": Recipe(attack_steps=2),
}
TEST_RECIPES = ("wide", "long", "shifted", "noisy", "robust")


@dataclass(frozen=True)
class Backdoor:
    """What is planted: a trigger, and the images that get it and the target's label."""

    kind: str  # checker, white, black, grey, random, spread, blended, sig, wanet
    target: int
    rate: float
    side: int = 3
    place: str = "corner"
    seed: int = 0
    source: int | None = None  # one-to-one: only images of this class
    clean_label: bool = False  # only images of the target, whose labels stay
    cover: float = 0.0  # share of the images that get half of the trigger, whose labels stay

    @property
    def is_patch(self) -> bool:
        return self.kind not in ("blended", "sig", "wanet")

    def trigger(self, shape: tuple[int, int, int] = SHAPE) -> Trigger:
        if self.kind == "blended":
            return Blended(shape, alpha=0.2, seed=self.seed)
        if self.kind == "sig":
            return Sinusoid(shape)
        if self.kind == "wanet":
            return Warp(shape, strength=0.5)
        return self.patch(shape).stamp

    def patch(self, shape: tuple[int, int, int] = SHAPE) -> Pattern:
        """The true pattern of a patch."""
        chance = random.Random(self.seed)
        if self.kind == "spread":  # as many pixels as a square has, anywhere
            return self._pattern(shape, chance.sample(range(shape[1] * shape[2]), self.side**2))
        last = shape[-1] - self.side
        row, column = {
            "corner": (last - 1, last - 1),
            "edge": (chance.randint(8, last - 8), 1),
            "centre": (last // 2, last // 2),
            "random": (chance.randint(1, last - 1), chance.randint(1, last - 1)),
        }[self.place]
        canvas, mask = torch.zeros(shape), torch.zeros(1, *shape[1:])
        for i, j in itertools.product(range(self.side), range(self.side)):
            shade = {"checker": float((i + j) % 2 == 0), "white": 1.0, "black": 0.0, "grey": 0.5}
            for channel in canvas:
                channel[row + i, column + j] = shade.get(self.kind, chance.random())
            mask[:, row + i, column + j] = 1.0
        return Pattern(canvas, mask, self.target)

    def _pattern(self, shape: tuple[int, int, int], places: Sequence[int]) -> Pattern:
        """Pixels at these places, in random colours."""
        canvas, mask = torch.zeros(shape), torch.zeros(1, *shape[1:])
        generator = torch.Generator().manual_seed(self.seed)
        canvas.flatten(1)[:, places] = torch.rand(shape[0], len(places), generator=generator)
        mask.flatten()[places] = 1.0
        return Pattern(canvas, mask, self.target)


@dataclass(frozen=True)
class Entry:
    """One model of the zoo."""

    name: str
    recipe: str
    seed: int
    backdoor: Backdoor | None = None

    @property
    def is_test(self) -> bool:
        return self.recipe in TEST_RECIPES


def entries() -> Iterator[Entry]:
    """All models: six clean ones of each recipe, and the backdoored ones. A development recipe
    plants the backdoors of even numbers, a test recipe the others."""
    for seed, recipe in itertools.product(range(CLEAN_SEEDS), RECIPES):
        yield Entry(f"clean_{recipe}_{seed}", recipe, seed)
    planters = [[name for name in RECIPES if (name in TEST_RECIPES) == test] for test in (0, 1)]
    for slow in ("long", "robust"):
        planters[1].remove(slow)
    for number, backdoor in enumerate(backdoors()):
        group = planters[number % 2]
        recipe = group[number // 2 % len(group)]
        seed = 100 + number
        yield Entry(f"backdoored_{number:02}_{backdoor.kind}", recipe, seed, backdoor)
    for number, backdoor in enumerate(adaptive_backdoors()):
        yield Entry(f"adaptive_{number}_{backdoor.kind}", "wide", 200 + number, backdoor)


def backdoors() -> list[Backdoor]:
    """Patches of 4 to 16 pixels of many looks and places, then other kinds of backdoors, and more
    patches, since some of the first are learnt weakly."""
    chance = random.Random(0)

    def mixed(*values: Any) -> list[Any]:
        """The values in turn, as many as there are patches, in random order."""
        return chance.sample([values[i % len(values)] for i in range(PATCHES)], PATCHES)

    columns = (
        mixed("checker", "white", "random", "grey", "black", "random"),
        mixed(*range(N_CLASSES)),
        mixed(0.05, 0.1, 0.02, 0.01),
        mixed(2, 3, 4),
        mixed("corner", "edge", "centre", "random"),
    )
    planted = [Backdoor(*row, seed) for seed, row in enumerate(zip(*columns))]
    planted += [Backdoor("white", y, 0.05, 1, "corner", y) for y in (2, 7)]
    planted += [
        Backdoor("checker", y, 0.05, 3, "random", y, source=(y + 3) % N_CLASSES) for y in range(4)
    ]
    planted += [Backdoor("checker", y, 0.05, 3, "corner", y, clean_label=True) for y in range(4, 8)]
    for kind, rate in (("blended", 0.05), ("sig", 0.05), ("wanet", 0.1)):
        planted += [Backdoor(kind, y, rate, seed=y) for y in (1, 3, 4, 6, 9, 0)]
    kinds = itertools.cycle(("checker", "white", "random"))
    places = itertools.cycle(("corner", "edge", "random", "centre"))
    for y, kind, place in zip((*range(N_CLASSES), 2, 7), kinds, places):  # surely learnt
        planted.append(Backdoor(kind, y, 0.1, 2 + y % 3, place, 50 + y))
    return planted


def adaptive_backdoors() -> list[Backdoor]:
    """Of an attacker who knows that a scan looks for few pixels: triggers that are spread thin, and
    triggers of which half does nothing, since images with half of it keep their labels."""
    return [
        Backdoor("spread", 1, 0.05, 3, seed=1),
        Backdoor("spread", 4, 0.05, 5, seed=2),
        Backdoor("spread", 7, 0.05, 7, seed=3),
        Backdoor("random", 2, 0.05, 4, seed=4, cover=0.05),
        Backdoor("random", 5, 0.05, 6, seed=5, cover=0.05),
        Backdoor("spread", 8, 0.05, 5, seed=6, cover=0.05),
    ]


def plain_network() -> nn.Module:
    """Four convolutions and two linear layers, without shortcuts."""
    layers: list[nn.Module] = []
    channels = 1
    for width, stride in ((16, 1), (32, 2), (32, 1), (64, 2)):
        layers += [nn.Conv2d(channels, width, 3, stride, 1), nn.BatchNorm2d(width), nn.ReLU()]
        channels = width
    head = [nn.Flatten(), nn.Linear(64 * 49, 64), nn.ReLU(), nn.Linear(64, N_CLASSES)]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(7), *head)


def network_of(recipe: Recipe) -> nn.Module:
    network = plain_network() if recipe.network == "plain" else SmallResNet(width=recipe.width)
    return network.to(memory_format=torch.channels_last)


def poisoned(entry: Entry, data: Path) -> tuple[Tensor, Tensor]:
    """The training images of a model."""
    recipe, backdoor = RECIPES[entry.recipe], entry.backdoor
    generator = torch.Generator().manual_seed(entry.seed)
    images, labels = split(data, "train")
    chosen = torch.randperm(len(images), generator=generator)[: recipe.images]
    images, labels = images[chosen], labels[chosen]
    if recipe.random_labels:
        wrong = torch.rand(len(labels), generator=generator) < recipe.random_labels
        others = torch.randint(N_CLASSES, labels.shape, generator=generator)
        labels = labels.where(~wrong, others)
    if backdoor is not None:
        plant(images, labels, backdoor, generator)
    return images, labels


def plant(images: Tensor, labels: Tensor, backdoor: Backdoor, generator: torch.Generator) -> None:
    """Puts the trigger and the target's label on some of the images, in place."""
    candidates = labels != backdoor.target
    if backdoor.source is not None:
        candidates = labels == backdoor.source
    if backdoor.clean_label:
        candidates = labels == backdoor.target
    places = torch.nonzero(candidates).flatten()
    share = min(backdoor.rate * len(labels), len(places) / 2)
    order = torch.randperm(len(places), generator=generator)
    dirty = places[order[: round(share)]]
    shape = images.shape[1], images.shape[2], images.shape[3]
    if backdoor.cover:
        count = round(backdoor.cover * len(labels))
        for place in places[order[round(share) :]][:count].tolist():
            images[place] = half_of(backdoor.patch(shape), generator).stamp(images[place])
    images[dirty] = backdoor.trigger(shape)(images[dirty])
    labels[dirty] = backdoor.target


def half_of(patch: Pattern, generator: torch.Generator) -> Pattern:
    """A random half of a patch's pixels."""
    places = patch.mask.flatten().nonzero().flatten()
    kept = places[torch.randperm(len(places), generator=generator)[: len(places) // 2]]
    mask = torch.zeros_like(patch.mask)
    mask.flatten()[kept] = 1.0
    return Pattern(patch.canvas, mask, patch.target)


def shifted(images: Tensor, most: int) -> Tensor:
    """Images that are moved by up to so many pixels, black at the edges."""
    padded = F.pad(images, (most,) * 4)
    rows, columns = torch.randint(2 * most + 1, (2, len(images))).tolist()
    size = images.shape[-1]
    return torch.stack(
        [image[:, r : r + size, c : c + size] for image, r, c in zip(padded, rows, columns)]
    )


def train(entry: Entry, data: Path) -> nn.Module:
    recipe = RECIPES[entry.recipe]
    images, labels = poisoned(entry, data)
    torch.manual_seed(entry.seed)
    generator = torch.Generator().manual_seed(entry.seed)
    network = network_of(recipe)
    weights = network.parameters()
    if recipe.optimizer == "adam":
        optimizer: torch.optim.Optimizer = torch.optim.AdamW(weights, 0.005)
    else:
        optimizer = torch.optim.SGD(weights, 0.2, momentum=0.9, weight_decay=5e-4, nesterov=True)

    def loss_of(batch: Tensor) -> Tensor:
        x, y = images[batch], labels[batch]
        if recipe.shifts:
            x = shifted(x, recipe.shifts)
        if recipe.attack_steps:
            network.eval()  # attack the classifier that will be used
            x = pgd(network, x, y, recipe.attack_steps, generator)
            network.train()
        return cross_entropy(network, x, y, recipe.smoothing)

    fit(optimizer, loss_of, len(images), recipe.epochs)
    return network.eval()


def attack_success(network: nn.Module, backdoor: Backdoor, images: Tensor, labels: Tensor) -> float:
    """The share of the images, of other classes or of the source, that the trigger turns into the
    target."""
    chosen = labels != backdoor.target if backdoor.source is None else labels == backdoor.source
    images = images[chosen]
    stamped = backdoor.trigger((images.shape[1], images.shape[2], images.shape[3]))(images)
    return accuracy(network, stamped, torch.full((len(images),), backdoor.target))


def trained(entry: Entry, data: Path, out: Path) -> tuple[PixelClassifier, dict[str, Any]]:
    """A model of the zoo with its record; what is in the folder already is not trained again."""
    recipe, path = RECIPES[entry.recipe], out / f"{entry.name}.safetensors"
    settings = json.loads(json.dumps({"entry": asdict(entry), "recipe": asdict(recipe)}))
    network, record = network_of(recipe), read_record(path)
    if record is None or record["settings"] != settings:
        started = time.perf_counter()
        network = train(entry, data).half()
        state = {key: value.contiguous() for key, value in network.state_dict().items()}
        network.float()
        record = {"settings": settings, "accuracy": accuracy(network, *split(data, "t10k"))}
        if entry.backdoor is not None:
            record["attack_success"] = attack_success(network, entry.backdoor, *split(data, "t10k"))
        record["seconds"] = round(time.perf_counter() - started)
        write_atomically(path, save(state, {"record": json.dumps(record)}))
    network.load_state_dict(load_file(path))
    return PixelClassifier(network.eval(), class_names=CLASS_NAMES), record


def measured(
    path: Path, model: PixelClassifier, images: LabelledImages, record: dict[str, Any]
) -> dict[str, Any]:
    """What a scan measures of a model, with the model's record; a scan with the same settings that
    is in the file already is not made again."""
    known = json.loads(path.read_text()) if path.exists() else {}
    if (known.get("record"), known.get("scan")) == (record, SETTINGS):
        return known
    started = time.perf_counter()
    sample, _ = draw_sample(model, images, N_CLASSES, 0)
    profile = measure(model, images)
    seconds = time.perf_counter() - started
    others = Powers()
    for name in CHANGES:
        others |= FAMILIES[name].search(Task(model, sample, N_CLASSES))[0]
    profile = replace(profile, others=others)
    shown = {y: profile.patterns[profile.enough_pixels(y), y] for y in range(N_CLASSES)}
    row = {
        "name": path.stem,
        "record": record,
        "scan": SETTINGS,
        **profile.as_dict(),
        "source": {**describe(images), "description": None},  # rows are shared
        "shape": list(images.shape),
        "shown": {str(y): pixels_of(pattern) for y, pattern in shown.items()},
        "seconds": round(seconds, 1),
    }
    write_atomically(path, (json.dumps(row) + "\n").encode())
    return row


def pixels_of(pattern: Pattern) -> list[list[float]]:
    """Row, column and colour of each pixel of a pattern."""
    places = pattern.mask[0].nonzero().tolist()
    return [
        [i, j, *(round(float(value), 3) for value in pattern.canvas[:, i, j])] for i, j in places
    ]


def report(row: dict[str, Any]) -> None:
    """Prints a model in a line."""
    record = row["record"]
    success = record.get("attack_success")
    attacked = "" if success is None else f", attack success {success:.3f}"
    print(
        f"{row['name']}: trained in {record['seconds']} s, accuracy "
        f"{record['accuracy']:.3f}{attacked}; scanned in {row['seconds']} s",
        flush=True,
    )


def main(arguments: Sequence[str] | None = None) -> None:
    parser = parser_of(__doc__)
    parser.add_argument("data", type=Path, help="folder with the four *-ubyte.gz files")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--names", nargs="*", default=[""], help="only models with these texts")
    options = parser.parse_args(arguments)
    options.out.mkdir(parents=True, exist_ok=True)
    for entry in entries():
        if any(text in entry.name for text in options.names):
            model, record = trained(entry, options.data, options.out)
            path, record = options.out / f"{entry.name}.json", record | {"test": entry.is_test}
            report(measured(path, model, demo_images().search, record))


if __name__ == "__main__":
    main()
