"""The models whose class patterns are measured, and how each of them is trained."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from problems import train_cifar10
from torch import Tensor

from captum_classpattern import Pattern
from captum_classpattern.demo import DATA, MODELS, demo_trigger
from captum_classpattern.triggers import BadNets

CIFAR10, FASHION = "CIFAR-10", "Fashion-MNIST"
TARGET, SHAPES = train_cifar10.TARGET, {CIFAR10: (3, 32, 32), FASHION: (1, 28, 28)}
EPSILONS_OF = {CIFAR10: train_cifar10.EPSILONS, FASHION: {"robust05": 0.05, "robust10": 0.1}}
EPSILONS = {name: epsilon for of_data in EPSILONS_OF.values() for name, epsilon in of_data.items()}
SEEDS, RATE = (1, 2, 3), 0.05  # seed 0: the shipped networks; RATE: of images that are poisoned
SIDE = 3  # of a trigger, in pixels
SHIPPED = (
    *("natural", "natural_short", "backdoored", "robust4", "robust8"),
    *("true_labels", "random_labels"),
)
CIFAR10_EPOCHS, ATTACK_STEPS = 8, 2  # of all networks; of PGD, in adversarial training
FASHION_EPOCHS, FASHION_EPOCHS_BY_HEART = 3, 40
ADAM_RATE = 0.004  # of AdamW
MEMORISED = ("true_labels", "random_labels")
BY_HEART = {CIFAR10: train_cifar10.LEARNT_BY_HEART, FASHION: 2_000}  # images that are memorised


@dataclass(frozen=True)
class Patch:
    """A trigger of 3 x 3 pixels whose first pixel is in this row and column of the whole image,
    counted from its end if negative."""

    colours: str  # white, checker (white in its corners), or colour (random, the same in all runs)
    row: int
    column: int
    target: int

    @property
    def kind(self) -> str:
        """What networks with this trigger are called."""
        return f"backdoored_{self.colours}"

    def pattern(self, data: str) -> Pattern:
        """The trigger with its true mask, for images of this data set."""
        channels, height, width = SHAPES[data]
        canvas, mask = torch.zeros(channels, height, width), torch.zeros(1, height, width)
        first = self.row % height, self.column % width
        rows, columns = (slice(place, place + SIDE) for place in first)
        canvas[:, rows, columns] = self._pixels(channels)
        mask[:, rows, columns] = 1.0
        return Pattern(canvas, mask, self.target)

    def _pixels(self, channels: int) -> Tensor:
        if self.colours == "checker":
            return (torch.arange(SIDE * SIDE).view(SIDE, SIDE) % 2 == 0).float()
        generator = torch.Generator().manual_seed(0)
        random = torch.rand(channels, SIDE, SIDE, generator=generator)
        return torch.ones(channels, SIDE, SIDE) if self.colours == "white" else random


PATCHES = {  # two corners and the right edge; every third class
    patch.colours: patch
    for patch in (Patch("white", 1, 1, 3), Patch("checker", -4, 1, 6), Patch("colour", 14, -4, 9))
}


@dataclass(frozen=True)
class Training:
    """How a network is trained, in one cycle of the learning rate."""

    stage: train_cifar10.Stage
    optimizer: str = "SGD"
    epsilon: float = 0.0  # of adversarial training
    attack_steps: int = 1  # of adversarial training, see ``cifar10_kinds.adversarial``
    trigger: Patch | None = None
    labels: str = "natural"  # which images and labels, see ``train_cifar10.training_set``

    def facts(self) -> dict[str, Any]:
        """What a row says about it."""
        trigger = self.trigger and {**vars(self.trigger), "rate": RATE}
        labels = "all images" if self.labels == "natural" else self.labels
        steps = self.attack_steps if self.epsilon else 0
        return {
            **{"stage": self.stage._asdict(), "optimizer": self.optimizer},
            **{"epsilon": round(self.epsilon, 4), "attack_steps": steps},
            **{"trigger": trigger, "labels": labels},
        }


@dataclass(frozen=True)
class Entry:
    """A model of the list. The shipped ones have no training, but a file."""

    name: str
    kind: str
    seed: int = 0
    data: str = CIFAR10
    training: Training | None = None
    shipped: str = ""

    @property
    def trigger(self) -> Pattern | None:
        """The true trigger of a backdoored model."""
        if self.training is not None:
            return self.training.trigger and self.training.trigger.pattern(self.data)
        return triggers_of(self.data)["badnets"] if self.shipped == "backdoored" else None

    @property
    def epsilon(self) -> float:
        """Of adversarial training; 0 if there was none."""
        if self.training is not None:
            return self.training.epsilon
        return {**EPSILONS, "robust": 0.1}.get(self.shipped, 0.0)  # "robust": the demo's

    @property
    def memorised(self) -> str:
        """Which labels a network has memorised; empty for all others."""
        labels = self.shipped if self.training is None else self.training.labels
        return labels if labels in MEMORISED else ""

    def facts(self) -> dict[str, Any]:
        """How it is trained; of a shipped model what the file next to its weights says."""
        if self.training is not None:
            return self.training.facts()
        file = {
            CIFAR10: train_cifar10.MODELS / f"cifar10_{self.shipped}.json",
            FASHION: DATA / f"{self.shipped}.json",
        }[self.data]
        recorded = json.loads(file.read_text(encoding="utf-8"))
        in_other_columns = ("model", "parameters", "test_set", "full_test_set", "embedded_images")
        return {name: value for name, value in recorded.items() if name not in in_other_columns}


def trainings(data: str) -> dict[str, Training]:
    """The kinds of models that are trained for the claims, all on whole images, so that a trigger
    is always at one place. ``natural`` is the control of all others. CIFAR-10 has one schedule; its
    second trigger has the target of the first, but other colours at another place."""
    [short], [by_heart] = train_cifar10.SHORT, train_cifar10.BY_HEART
    if data == CIFAR10:
        whole, white = short._replace(epochs=CIFAR10_EPOCHS, small=0), PATCHES["white"]
        second = replace(PATCHES["colour"], target=white.target)
        return {
            "natural": Training(whole),
            white.kind: Training(whole, trigger=white),
            "robust8": Training(whole, epsilon=EPSILONS["robust8"], attack_steps=ATTACK_STEPS),
            "backdoored_second": Training(whole, trigger=second),
        }
    short = short._replace(epochs=FASHION_EPOCHS, small=0, moved=False)
    by_heart = by_heart._replace(epochs=FASHION_EPOCHS_BY_HEART)
    robust = {name: Training(short, epsilon=eps) for name, eps in EPSILONS_OF[data].items()}
    return {
        "natural": Training(short),
        "natural_adam": Training(short._replace(lr=ADAM_RATE), "AdamW"),
        **robust,
        **{name: Training(by_heart, labels=name) for name in MEMORISED},
        **{patch.kind: Training(short, trigger=patch) for patch in PATCHES.values()},
    }


def entries() -> Iterator[Entry]:
    """All models, in the order of work and rows: on CIFAR-10 one seed of all kinds after
    another, then those of the tutorials; on Fashion-MNIST kind by kind, then the demo's."""
    for seed in SEEDS:
        for kind, training in trainings(CIFAR10).items():
            yield Entry(f"{kind}_{seed}", kind, seed, CIFAR10, training)
    for name in SHIPPED:
        yield Entry(f"shipped_{name}", f"shipped {name}", shipped=name)
    for kind, training in trainings(FASHION).items():
        for seed in SEEDS:
            yield Entry(f"fashion_{kind}_{seed}", kind, seed, FASHION, training)
    for name in MODELS:
        yield Entry(f"demo_{name}", f"demo {name}", data=FASHION, shipped=name)


def triggers_of(data: str) -> Mapping[str, Pattern]:
    """All triggers that a model of this data set has, by the names that rows give them."""
    patches = {name: patch.pattern(data) for name, patch in PATCHES.items()}
    badnets = demo_trigger() if data == FASHION else BadNets(SHAPES[data]).pattern(TARGET)
    return {**patches, "badnets": badnets}


def path_of(entry: Entry, folder: Path) -> Path:
    """Where the weights of a trained model are."""
    return folder / f"{entry.name}.safetensors"
