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
    Fashion-MNIST the last third is trained longer instead, on all images, and on CIFAR-10 some
    more are."""
    recipes: list[Recipe] = []
    for given in itertools.chain(*map(_drawn, DRAWN[data])):
        number = len(recipes)
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
        recipes.append(recipe)
    recipes += STRONG if data == "cifar10" else []
    return [
        Entry(f"reference_{number:02}_{recipe.network}", recipe, 1000 + number)
        for number, recipe in enumerate(recipes)
    ]


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


STRONG = [  # of CIFAR-10
    Recipe("pairs", 28, 1, 14, 1.0, smoothing=0.1, shifts=3, flips=True),
    Recipe("pooled", 18, 1, 14, 1.0, smoothing=0.1, shifts=2, flips=True),
    Recipe("pairs", 48, 2, 16, 1.0, smoothing=0.1, shifts=3, flips=True, cutout=8),
    Recipe("resnet", 24, 1, 12, 1.0, shifts=2, flips=True),
    Recipe("pairs", 36, 2, 12, 1.0, smoothing=0.05, shifts=3, flips=True),
    Recipe("plain", 24, 1, 14, 1.0, smoothing=0.1, shifts=2, flips=True),
    Recipe("pairs", 48, 1, 16, 1.0, smoothing=0.2, shifts=3, flips=True),
    Recipe("wide", 2, 2, 10, 1.0, smoothing=0.1, shifts=2, flips=True),
    Recipe("pairs", 36, 1, 14, 1.0, shifts=2, flips=True, cutout=8),
    Recipe("pooled", 24, 1, 12, 1.0, smoothing=0.2, shifts=2, flips=True),
    Recipe("pairs", 44, 2, 16, 1.0, smoothing=0.15, shifts=2, flips=True),
    Recipe("wide", 2, 2, 11, 1.0, smoothing=0.05, shifts=3, flips=True),
    Recipe("pairs", 36, 2, 13, 1.0, smoothing=0.2, shifts=2, flips=True, noise=0.01),
]

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


def confirmation(data: str) -> Iterator[Entry]:
    """The networks whose results are published: of recipes that no reference has, clean and
    backdoored in turn, so that those that are trained first are of all kinds."""
    recipes, planted = NEW[data], backdoors(data)
    clean = (Entry(f"clean_{i:02}_{r.network}", r, 4000 + i) for i, r in enumerate(recipes * 2))
    bad = (
        Entry(f"backdoored_{i:02}_{each.kind}", recipes[i % len(recipes)], 4100 + i, each)
        for i, each in enumerate(planted)
    )
    for number in range(len(planted)):
        if number < CLEAN:
            yield next(clean)
        yield next(bad)


CLEAN = 10  # of each data set
NEW: dict[str, list[Recipe]] = {
    "fashion": [
        Recipe("resnet", 10, 1, 4, 1.0, cutout=7),
        Recipe("plain", 10, 1, 5, 1.0, noise=0.05),
        Recipe("pooled", 8, 1, 4, 1.0, mixup=0.3),
        Recipe("resnet", 14, 1, 6, 0.5, "nadam"),
        Recipe("depthwise", 32, 2, 6, 1.0),
        Recipe("wide", 1, 1, 3, 1.0, smoothing=0.05),
        Recipe("resnet", 10, 2, 4, 1.0, "rmsprop", shifts=1),
        Recipe("pooled", 10, 2, 4, 1.0, flips=True),
        Recipe("transformer", 48, 3, 8, 1.0, "tokens"),
        Recipe("plain", 16, 2, 4, 1.0, smoothing=0.2),
    ],
    "cifar10": [
        Recipe("pairs", 32, 1, 12, 1.0, smoothing=0.2, shifts=2, flips=True),
        Recipe("pairs", 32, 1, 12, 1.0, smoothing=0.1, shifts=1, flips=True, cutout=6),
        Recipe("pairs", 32, 2, 11, 1.0, smoothing=0.1, shifts=2, flips=True),
        Recipe("pairs", 40, 1, 10, 1.0, smoothing=0.1, shifts=2, flips=True, noise=0.01),
        Recipe("pairs", 32, 2, 11, 1.0, shifts=2, flips=True, mixup=0.1),
    ],
}


def backdoors(data: str) -> list[Backdoor]:
    """Patches of all sizes and kinds of colours, and the triggers that change all pixels in turn,
    SIG with clean labels and WaNet with its noise mode."""
    sides = {"fashion": (3, 5, 2, 4, 7, 1, 6, 3, 5, 4, 2), "cifar10": (3, 6, 4, 7, 5, 3)}[data]
    colours, places = ("checker", "white", "two", "random"), ("random", "edge", "corner", "centre")
    rates = {"blended": 0.1, "sig": 0.08, "wanet": 0.1}
    patches = [
        Backdoor(colours[i % 4], (7 * i + 2) % 10, 0.08, side, places[(i + i // 4) % 4], 400 + i)
        for i, side in enumerate(sides)
    ]
    others = [
        Backdoor(kind, (3 * i + 2) % 10, rates[kind], seed=500 + i)
        for i, kind in enumerate(3 * [*rates])
    ]
    mixed = itertools.zip_longest(patches, others)
    return [each for pair in mixed for each in pair if each is not None]
