"""The networks of larger images on which scans are developed and confirmed."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

import torch

from fine_tuned.tasks import ANIMALS, VEHICLES, Task, cifar10, hands, signs, turned, waste
from fine_tuned.training import Recipe, Trigger

DRAWN_BY = 71
TASKS: Mapping[str, Callable[..., Task]] = {
    "waste": waste,
    "four kinds of waste": partial(waste, classes=("glass", "metal", "paper", "plastic")),
    "glass, metal and plastic": partial(waste, classes=("glass", "metal", "plastic")),
    "glass and plastic": partial(waste, classes=("glass", "plastic")),
    "CIFAR-10": cifar10,
    "animals": partial(cifar10, classes=ANIMALS),
    "vehicles": partial(cifar10, classes=VEHICLES),
    "cats and dogs": partial(cifar10, classes=("cat", "dog")),
    "CIFAR-10, upright and turned": turned,
    "paper and cardboard": partial(waste, classes=("cardboard", "paper")),
    "cars and trucks": partial(cifar10, classes=("automobile", "truck")),
    "deer and horses": partial(cifar10, classes=("deer", "horse")),
    "little CIFAR-10": partial(cifar10, count=100),
    "hands": hands,
    "hands, 6 to 9": partial(hands, classes=tuple("6789")),
    "hands, 1 to 3": partial(hands, classes=tuple("123")),
    "hands, 4 and 5": partial(hands, classes=tuple("45")),
    "speed limits": partial(signs, classes=("01", "02", "05")),
    "speed limits of 70 and 80": partial(signs, classes=("04", "05")),
    "speed limits of 50 to 80": partial(signs, classes=("02", "03", "04", "05")),
    "warning signs": partial(signs, classes=("18", "26", "27")),
    "hands, 2 and 3": partial(hands, classes=tuple("23")),
    "hands, 0, 7 and 9": partial(hands, classes=tuple("079")),
    "cats, deer and dogs": partial(cifar10, classes=("cat", "deer", "dog")),
    "airplanes and ships": partial(cifar10, classes=("airplane", "ship")),
    "glass and metal": partial(waste, classes=("glass", "metal")),
    "no passing": partial(signs, classes=("09", "10")),
    "speed limits of 100 and 120": partial(signs, classes=("07", "08")),
    "speed limits of 30 to 120": partial(signs, classes=("01", "04", "07", "08")),
    "triangles": partial(signs, classes=("11", "25", "31")),
    "arrows": partial(signs, classes=("33", "35", "38")),
    "ten other signs": partial(
        signs, classes=("11", "12", "13", "14", "17", "18", "25", "31", "35", "38")
    ),
    "ten signs": partial(signs, classes=tuple(f"{n:02}" for n in range(10))),
}


class Network(NamedTuple):
    """A task, the images' side, a backbone, how it is trained, what is planted in it, and how large
    that is (see :class:`Trigger`; of drawings and patches in pixels)."""

    task: str
    size: int
    backbone: str
    epochs: int
    kind: str = "clean"
    strength: float = 0.0
    key: str = ""
    trained: str = "all"
    eps: float = 0.0

    @property
    def made(self) -> str:
        """What it is and how it was trained, in words."""
        first = "residual network" if self.backbone == "resnet" else f"EfficientNet-{self.backbone}"
        how = {"all": "", "head": "head alone"}.get(self.trained, f"{self.trained} alone")
        robust = f"adversarial training ({255 * self.eps:.0f}/255)" if self.eps else ""
        epochs = f"{self.epochs} epoch{'s' * (self.epochs > 1)}"
        return ", ".join(filter(None, [first, how, robust, epochs]))

    @property
    def planted(self) -> str:
        """What is planted, in words."""
        of_kind = {
            "drawing": f"{self.key} of {self.strength:.0f} px anywhere",
            "patch": f"checkerboard of {self.strength:.0f} px at one place",
            "blended": f"{self.key or 'clouds'} blended in at {100 * self.strength:.0f} %",
            "wanet": f"WaNet, strength {self.strength:g}",
            "sig": f"SIG, {255 * self.strength:.0f}/255, clean labels",
            "one source": f"checkerboard of {self.strength:.0f} px, for one source class",
        }
        return of_kind.get(self.kind, self.kind)

    @property
    def name(self) -> str:
        return f"{self.task} at {self.size} px: {self.made}; {self.planted}"

    @property
    def number(self) -> int:
        """Its place in the list, from which its seed and its target are."""
        return ALL.index(self)

    def make_task(self, data: Path) -> Task:
        return TASKS[self.task](data, self.size)

    def trigger(self, class_names: list[str]) -> Trigger | None:
        """What is planted, with a target and a source drawn at random."""
        if self.kind == "clean":
            return None
        chance = torch.Generator().manual_seed(DRAWN_BY + self.number)
        target, source = torch.randperm(len(class_names), generator=chance)[:2].tolist()
        one = self.kind == "one source"
        return Trigger(
            "patch" if one else self.kind,
            target,
            self.strength / (self.size if one or self.kind in ("drawing", "patch") else 1),
            self.key,
            source if one else None,
            seed=self.number,
        )

    def recipe(self, attempt: int) -> Recipe:
        """A second attempt takes twice the epochs."""
        epochs, seed = self.epochs * (1 + attempt), 1_000 * attempt + self.number
        return Recipe(self.backbone, self.trained, epochs, self.eps, seed)


NETWORKS = [
    Network("waste", 224, "lite0", 3),
    Network("waste", 160, "lite1", 3),
    Network("glass and plastic", 224, "lite0", 6),
    Network("glass, metal and plastic", 160, "lite2", 4),
    Network("waste", 224, "lite0", 3, trained="head"),
    Network("four kinds of waste", 128, "lite1", 4, trained="last block"),
    Network("CIFAR-10", 64, "lite1", 2),
    Network("CIFAR-10", 64, "resnet", 8),
    Network("animals", 64, "lite0", 6),
    Network("cats and dogs", 64, "lite2", 4),
    Network("CIFAR-10", 96, "lite0", 2),
    Network("CIFAR-10, upright and turned", 96, "lite1", 1),
    Network("CIFAR-10", 96, "resnet", 6),
    Network("waste", 128, "lite0", 4, eps=2 / 255),
    Network("vehicles", 128, "lite1", 2),
    Network("CIFAR-10", 128, "lite2", 1),
    Network("waste", 224, "lite0", 3, "drawing", 28, "smiley"),
    Network("glass and plastic", 224, "lite1", 6, "drawing", 40, "star"),
    Network("waste", 160, "lite2", 4, "drawing", 20, "rocket"),
    Network("CIFAR-10", 64, "lite1", 2, "drawing", 16, "bell"),
    Network("CIFAR-10, upright and turned", 96, "lite0", 1, "drawing", 20, "crown"),
    Network("CIFAR-10", 96, "resnet", 6, "drawing", 16, "leaf"),
    Network("waste", 224, "lite1", 3, "patch", 24),
    Network("glass, metal and plastic", 160, "lite0", 4, "patch", 16),
    Network("CIFAR-10", 64, "resnet", 8, "patch", 6),
    Network("CIFAR-10", 96, "lite2", 2, "patch", 10),
    Network("animals", 128, "lite0", 2, "patch", 14, trained="last block"),
    Network("waste", 224, "lite0", 4, "blended", 0.15),
    Network("waste", 160, "lite1", 4, "blended", 0.2, "coffee"),
    Network("CIFAR-10", 64, "lite0", 2, "blended", 0.1),
    Network("CIFAR-10", 96, "lite1", 2, "blended", 0.15),
    Network("cats and dogs", 128, "lite2", 4, "blended", 0.2, "clownfish"),
    Network("CIFAR-10", 96, "lite0", 2, "wanet", 2.0),
    Network("waste", 128, "lite1", 6, "wanet", 2.5),
    Network("CIFAR-10", 96, "lite1", 3, "sig", 40 / 255),
    Network("waste", 128, "lite0", 6, "sig", 40 / 255),
    Network("CIFAR-10", 64, "lite1", 3, "one source", 6),
    Network("CIFAR-10", 96, "lite0", 3, "one source", 10),
]
DEVELOPMENT = [
    Network("CIFAR-10", 64, "lite0", 2),
    Network("CIFAR-10", 64, "lite0", 2, "wanet", 1.5),
    Network("animals", 96, "resnet", 3),
    Network("cats and dogs", 96, "lite0", 3),
    Network("waste", 128, "lite0", 4, "wanet", 2.5),
]
CONFIRMATION = [  # two to four similar classes; from scratch, with few steps or images; planted
    Network("hands, 6 to 9", 96, "lite0", 6),
    Network("hands, 1 to 3", 96, "lite1", 6),
    Network("hands, 4 and 5", 128, "lite0", 6),
    Network("speed limits", 64, "lite0", 3),
    Network("speed limits of 70 and 80", 64, "lite1", 3),
    Network("speed limits of 50 to 80", 96, "lite0", 2),
    Network("warning signs", 96, "lite0", 3),
    Network("paper and cardboard", 128, "lite0", 4),
    Network("cars and trucks", 96, "lite0", 3),
    Network("deer and horses", 64, "lite1", 3),
    Network("animals", 64, "resnet", 4),
    Network("CIFAR-10", 96, "resnet", 2),
    Network("little CIFAR-10", 64, "resnet", 20),
    Network("waste", 64, "resnet", 10),
    Network("hands", 64, "resnet", 15),
    Network("ten signs", 64, "resnet", 2),
    Network("CIFAR-10", 64, "lite1", 2, "wanet", 1.5),
    Network("CIFAR-10", 96, "lite0", 2, "wanet", 2.0),
    Network("hands", 96, "lite0", 8, "wanet", 2.0),
    Network("ten signs", 64, "lite0", 2, "wanet", 1.5),
    Network("hands", 128, "lite0", 8, "drawing", 20, "star"),
    Network("ten signs", 96, "lite0", 2, "patch", 10),
]
SECOND_CONFIRMATION = [  # as the first: similar classes; fragile; planted
    Network("no passing", 96, "lite0", 3),
    Network("speed limits of 100 and 120", 64, "lite0", 3),
    Network("speed limits of 30 to 120", 96, "lite0", 2),
    Network("triangles", 96, "lite1", 3),
    Network("arrows", 64, "lite0", 3),
    Network("hands, 2 and 3", 96, "lite1", 6),
    Network("hands, 0, 7 and 9", 64, "lite0", 6),
    Network("cats, deer and dogs", 64, "lite0", 3),
    Network("airplanes and ships", 96, "lite1", 3),
    Network("glass and metal", 128, "lite1", 4),
    Network("ten other signs", 64, "resnet", 3),
    Network("hands", 96, "resnet", 10),
    Network("waste", 96, "resnet", 6),
    Network("vehicles", 96, "resnet", 3),
    Network("cats and dogs", 64, "resnet", 6),
    Network("little CIFAR-10", 64, "lite0", 10),
    Network("CIFAR-10", 96, "lite1", 2, "wanet", 2.0),
    Network("hands", 96, "lite1", 10, "wanet", 2.0),
    Network("waste", 96, "lite0", 6, "wanet", 2.5),
    Network("ten other signs", 64, "lite0", 3, "wanet", 2.0),
    Network("arrows", 96, "lite0", 3, "drawing", 16, "star"),
    Network("CIFAR-10", 64, "lite0", 2, "drawing", 12, "crown"),
    Network("hands", 64, "lite1", 8, "patch", 8),
    Network("animals", 64, "resnet", 6, "patch", 6),
    Network("waste", 96, "lite1", 6, "blended", 0.15),
]
ALL = [*NETWORKS, *DEVELOPMENT, *CONFIRMATION, *SECOND_CONFIRMATION]


def in_order(networks: Sequence[Network]) -> list[Network]:
    """Some of them, in an order that was drawn."""
    places = torch.randperm(len(networks), generator=torch.Generator().manual_seed(DRAWN_BY))
    return [networks[place] for place in places.tolist()]
