"""Which networks there are: references, those that settings were chosen on, and those that the
frozen settings were tried on once."""

import itertools
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from zoo.backdoors import Backdoor
from zoo.training import Recipe


@dataclass(frozen=True)
class Entry:
    """One network of a data set."""

    name: str
    recipe: Recipe
    seed: int
    backdoor: Backdoor | None = None


def references(data: str) -> list[Entry]:
    """Clean networks. Their recipes are drawn at random, each value of a setting equally often; on
    Fashion-MNIST the last third is trained longer instead, on all images."""
    found: list[Entry] = []
    for given in itertools.chain(*map(_drawn, DRAWN[data])):
        number = len(found)
        network, width, blocks = given.pop("network")
        (share, epochs), tokens = given.pop("length"), network in ("transformer", "mixer")
        if tokens:
            given["optimizer"], epochs = "tokens", 2 * epochs
        if given["eps"]:
            share, epochs = share / 2, min(epochs, 4)
        recipe = Recipe(network, width, blocks, epochs, share, **given)
        if data == "fashion" and number >= LONG_FROM:
            network, width, blocks = LONG[number % len(LONG)]
            epochs, optimizer = 6 + 2 * (number // len(LONG) % 2), ("sgd", "adam")[number % 2]
            given = {"smoothing": 0.1 * (number % 3 == 0), "shifts": 2 * (number % 4 == 0)}
            recipe = Recipe(network, width, blocks, epochs, 1.0, optimizer, **given)
        found.append(Entry(f"reference_{number:02}_{network}", recipe, 1000 + number))
    return found


def _drawn(values: dict[str, Sequence[Any]]) -> Iterator[dict[str, Any]]:
    """As many combinations as there are networks."""
    count = len(values["network"])
    chance = random.Random(count)
    columns = [
        chance.sample([each[i % len(each)] for i in range(count)], count)
        for each in values.values()
    ]
    return (dict(zip(values, row)) for row in zip(*columns))


LONG_FROM = 40  # of Fashion-MNIST's
LONG = ("resnet", 16, 1), ("pooled", 6, 1), ("resnet", 12, 1), ("plain", 12, 1), ("resnet", 8, 2)


_FASHION: dict[str, Sequence[Any]] = {
    "network": 6
    * (
        *(("resnet", 8, 1), ("resnet", 12, 1), ("resnet", 16, 1), ("resnet", 8, 2)),
        *(("plain", 8, 1), ("plain", 12, 1), ("pooled", 6, 1)),
        *(("depthwise", 24, 1), ("transformer", 48, 2), ("mixer", 48, 2)),
    ),
    "length": ((1 / 12, 10), (1 / 3, 3), (1 / 3, 5), (1.0, 2), (1.0, 3)),
    "optimizer": ("sgd", "sgd", "adam"),
    "smoothing": (0.0, 0.0, 0.1),
    "shifts": (0, 0, 2),
    "flips": (False, False, True),
    "random_labels": (0.0, 0.0, 0.0, 0.1, 0.2),
    "eps": (0.0, 0.0, 0.0, 0.0, 0.05, 0.1),
}
_CIFAR10: dict[str, Sequence[Any]] = {
    "network": (
        *(4 * (("resnet", 16, 1), ("pooled", 8, 1), ("wide", 1, 2), ("plain", 12, 1))),
        *(("resnet", 24, 1), ("pooled", 12, 1), ("wide", 2, 1)),
        *(("depthwise", 40, 1), ("transformer", 64, 3), ("mixer", 64, 3)),
    ),
    "length": ((0.2, 8), (1.0, 2), (1.0, 3), (1.0, 5)),
    "optimizer": ("sgd", "sgd", "adam"),
    "smoothing": (0.0, 0.0, 0.1),
    "shifts": (0, 0, 4),
    "flips": (True, True, False),
    "random_labels": (0.0, 0.0, 0.0, 0.0, 0.1),
    "eps": (0.0,) * 10 + (0.01,),
}
_SMALL: dict[str, Sequence[Any]] = {
    "network": (
        *(3 * (("resnet", 12, 1), ("pooled", 6, 1), ("plain", 8, 1))),
        *(("wide", 1, 1), ("wide", 1, 1), ("depthwise", 24, 1)),
    ),
    "length": ((0.2, 10), (1.0, 2), (1.0, 4)),
}
DRAWN = {"fashion": [_FASHION], "cifar10": [_CIFAR10, _CIFAR10 | _SMALL]}


def tutorials() -> list[Entry]:
    """The clean CIFAR-10 networks of the tutorials, as nearly as a recipe can describe them."""
    wide = Recipe("wide", 2, 2, 16, 1.0, smoothing=0.1, shifts=4, flips=True)
    recipes = {
        "natural": replace(wide, epochs=64, cutout=9),
        "natural_short": wide,
        "robust4": replace(wide, epochs=8, eps=4 / 255, attack_steps=1),
        "robust8": replace(wide, eps=8 / 255, attack_steps=1),
        "true_labels": Recipe("wide", 2, 2, 30, 0.2),
    }
    return [Entry(f"tutorials_{kind}", recipe, 0) for kind, recipe in recipes.items()]


def _planted(name: str, number: int, recipe: Recipe, seed: int, backdoor: Backdoor) -> Entry:
    """A backdoored network. Its training is not adversarial, which forgets triggers."""
    recipe = replace(recipe, eps=0.0)
    return Entry(f"{name}_{number:02}_{backdoor.kind}", recipe, seed + number, backdoor)


def confirmation(data: str) -> Iterator[Entry]:
    """The networks whose results are published: clean ones of recipes that no reference has, and
    backdoored ones of such recipes."""
    recipes = list(itertools.chain(*zip(*NEW[data].values())))  # each kind once, and again
    for number, (kind, recipe) in enumerate(zip(itertools.cycle(NEW[data]), recipes)):
        yield Entry(f"clean_{number:02}_{kind}", recipe, 2000 + number)
    kinds = [kind for kind in NEW[data] if kind not in ("adversarial", "little", "noisy")]
    planted = [recipe for name in range(len(recipes) // len(NEW[data])) for recipe in
               (NEW[data][kind][name] for kind in kinds)]  # fmt: skip
    for number, backdoor in enumerate(backdoors(data)):
        yield _planted("backdoored", number, planted[number % len(planted)], 2100, backdoor)


_OPTIMIZERS = "rmsprop", "nadam", "adagrad", "no momentum"
_TRANSFORMERS = (32, 3, 8), (48, 4, 8), (64, 2, 8), (64, 3, 10)
_MIXERS = (32, 3, 6), (48, 4, 6), (64, 2, 6), (64, 3, 8)
_DEPTHWISE = (16, 2, 3), (32, 1, 4), (32, 2, 4), (48, 1, 4)
NEW: dict[str, dict[str, list[Recipe]]] = {
    "fashion": {
        "depth": [
            *(Recipe(blocks=2), Recipe(width=8, blocks=3)),
            *(Recipe("plain", 8, 2, epochs=4), Recipe("pooled", 6, 2)),
        ],
        "width": [Recipe(width=6), Recipe(width=20), Recipe(width=28), Recipe("pooled", 12)],
        "optimiser": [Recipe(optimizer=name) for name in _OPTIMIZERS],
        "augmentation": [
            *(Recipe(cutout=9, epochs=5), Recipe(noise=0.1, epochs=4)),
            *(Recipe(mixup=0.5, epochs=5), Recipe(shifts=4, flips=True, epochs=5)),
        ],
        "little": [
            *(Recipe(share=0.03, epochs=25), Recipe(share=0.06, epochs=12)),
            *(Recipe("plain", 12, share=0.15, epochs=6), Recipe(share=0.6, width=12)),
        ],
        "noisy": [
            *(Recipe(random_labels=share) for share in (0.05, 0.15, 0.3)),
            Recipe("plain", 12, random_labels=0.4),
        ],
        "adversarial": [
            *(Recipe(eps=0.03, share=1 / 6), Recipe(eps=0.07, share=1 / 6)),
            Recipe("plain", 12, eps=0.1, share=1 / 6),
            Recipe(eps=0.15, share=1 / 6, epochs=4),
        ],
        "transformer": [Recipe("transformer", *s, optimizer="tokens") for s in _TRANSFORMERS],
        "mixer": [Recipe("mixer", *sizes, optimizer="tokens") for sizes in _MIXERS],
        "depthwise": [Recipe("depthwise", *sizes) for sizes in _DEPTHWISE],
    },
    "cifar10": {
        "depth": [Recipe("wide", 1, 3, 5, 1.0, flips=True), Recipe("resnet", 16, 3, 4, 1.0)],
        "width": [
            Recipe("pooled", 16, 1, 4, 1.0, flips=True),
            Recipe("wide", 3, 1, 4, 1.0, flips=True, shifts=4),
        ],
        "optimiser": [
            Recipe("wide", 2, 2, 4, 1.0, "nadam", flips=True),
            Recipe("resnet", 24, 1, 4, 1.0, "rmsprop"),
        ],
        "augmentation": [
            Recipe("pooled", 12, 1, 6, 1.0, flips=True, cutout=9),
            Recipe("wide", 2, 1, 5, 1.0, flips=True, mixup=0.5),
        ],
        "depthwise": [
            Recipe("depthwise", 48, 2, 4, 1.0, flips=True),
            Recipe("transformer", 64, 4, 8, 1.0, "tokens", flips=True),
        ],
    },
}


def backdoors(data: str) -> list[Backdoor]:
    """Patches of 1 to 25 pixels, then other kinds. More than are needed, since some will be learnt
    weakly; the last of a kind are trained only if too few of the others are learnt."""
    patches, others, reported = {"fashion": (56, 10, 6), "cifar10": (10, 4, 0)}[data]
    chance = random.Random(7)

    def mixed(*values: Any) -> list[Any]:
        return chance.sample([values[i % len(values)] for i in range(patches)], patches)

    columns = (
        mixed("checker", "white", "two", "random"),
        mixed(*range(10)),
        mixed(0.02, 0.05, 0.1) if data == "fashion" else mixed(0.05, 0.1),
        mixed(1, 2, 3, 4, 5, 2, 3, 4, 5) if data == "fashion" else mixed(2, 3, 4),
        mixed("corner", "edge", "centre", "random"),
    )
    found = [Backdoor(*row, seed=100 + number) for number, row in enumerate(zip(*columns))]
    found = [replace(each, rate=0.1) if each.side == 1 else each for each in found]
    for number, kind in enumerate(others * ("blended", "sig", "wanet")):
        found.append(Backdoor(kind, (3 * number + 1) % 10, 0.1, seed=200 + number))
    for number in range(reported):
        found.append(Backdoor("bpp", (3 * number + 2) % 10, 0.1, seed=300 + number))
        found.append(Backdoor("adaptive", (3 * number + 5) % 10, 0.05, seed=300 + number))
        found.append(Backdoor("checker", 0, 0.1, 3, "corner", 300 + number, all_to_all=True))
    return found
