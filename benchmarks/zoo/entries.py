"""Which networks there are: those that the rule of a scan was chosen on, and those that the frozen
rule was tried on once."""

import random
from dataclasses import dataclass, replace

from zoo.backdoors import ALL_TO_ALL, Backdoor
from zoo.training import Recipe

ORDER = 2026  # seed of the order of the confirmation


@dataclass(frozen=True)
class Entry:
    """One network of a data set, with one backdoor, two or none."""

    name: str
    data: str
    recipe: Recipe
    seed: int
    backdoors: tuple[Backdoor, ...] = ()


_FASHION = [
    Recipe("resnet", 12, 1, 10, 1 / 12),
    Recipe("plain", 12, 1, 5, 1 / 3),
    Recipe("pooled", 6, 1, 4, 1 / 3),
    Recipe("resnet", 16, 1, 3, 1 / 3, smoothing=0.1),
    Recipe("resnet", 12, 1, 3, 1.0, "adam"),
    Recipe("plain", 10, 1, 3, 1.0),
    Recipe("pooled", 8, 1, 3, 1.0, shifts=2),
]
_CIFAR10 = [
    Recipe("pairs", 24, 1, 6, 1.0, smoothing=0.1, flips=True),
    Recipe("resnet", 16, 1, 3, 1.0, flips=True),
    Recipe("pairs", 24, 1, 10, 0.3, shifts=2, flips=True),
    Recipe("wide", 1, 2, 3, 1.0, flips=True),
]
_TURNED = [Recipe("resnet", 16, 1, 5, 1.0), Recipe("plain", 12, 1, 4, 0.5)]
_PLANTED = [
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


def development() -> list[Entry]:
    """Clean and backdoored networks of little data and of all, in turn; and some with 40
    classes."""
    entries = []
    for number, kind in enumerate(_PLANTED):
        recipe = _FASHION[number] if number < 7 else _FASHION[(3 * (number - 7) + 1) % 7]
        seeds = (7000, 7100) if number < 7 else (7293, 7193)
        entries += [
            Entry(f"f_clean_{number}", "fashion", recipe, seeds[0] + number),
            Entry(f"f_{kind.kind}_{number}", "fashion", recipe, seeds[1] + number, (kind,)),
        ]
    for number, kind in enumerate(_PLANTED[:6]):
        recipe = _CIFAR10[number % len(_CIFAR10)]
        entries.append(Entry(f"c_{kind.kind}_{number}", "cifar10", recipe, 7400 + number, (kind,)))
        if number < len(_CIFAR10):
            entries.append(Entry(f"c_clean_{number}", "cifar10", recipe, 7500 + number))
    for number, recipe in enumerate(_TURNED):
        entries.append(Entry(f"t_clean_{number}", "turned", recipe, 7600 + number))
        kind = replace(_PLANTED[3 * number], target=11 * number + 5)
        entries.append(Entry(f"t_{kind.kind}_{number}", "turned", recipe, 7700 + number, (kind,)))
    return entries


def confirmation() -> list[Entry]:
    """Networks of other recipes, in an order that was drawn."""
    entries = [*_clean(), *_backdoored()]
    random.Random(ORDER).shuffle(entries)
    return entries


def _clean() -> list[Entry]:
    recipes = [
        ("fashion", Recipe("resnet", 10, 1, 4, 1.0, cutout=7)),
        ("fashion", Recipe("transformer", 48, 3, 6, 1.0, "tokens")),
        ("fashion", Recipe("resnet", 16, 1, 4, 1 / 6, eps=0.1)),
        ("fashion", Recipe("depthwise", 24, 1, 6, 1 / 6)),
        ("fashion", Recipe("resnet", 8, 2, 10, 1 / 20)),
        ("cifar10", Recipe("pooled", 12, 1, 3, 1.0, flips=True)),
        ("cifar10", Recipe("resnet", 20, 1, 4, 1.0, smoothing=0.1, flips=True)),
        ("cifar10", Recipe("wide", 1, 2, 8, 0.25, flips=True)),
        ("signs", Recipe("resnet", 16, 1, 5, 1.0)),
        ("signs", Recipe("plain", 16, 1, 5, 1.0, shifts=2)),
        ("signs", Recipe("pooled", 10, 1, 5, 0.3)),
        ("hands", Recipe("resnet", 12, 1, 40, 1.0, shifts=3)),
        ("hands", Recipe("plain", 12, 1, 40, 1.0, shifts=3)),
        ("hands", Recipe("pooled", 8, 1, 60, 0.3, shifts=3)),
    ]
    return [
        Entry(f"clean_{number:02}", data, recipe, 8000 + number)
        for number, (data, recipe) in enumerate(recipes)
    ]


def _backdoored() -> list[Entry]:
    fashion, cifar10 = Recipe("resnet", 14, 1, 3, 1.0), Recipe("resnet", 20, 1, 4, 1.0, flips=True)
    little, few = Recipe("pooled", 8, 1, 5, 0.3), Recipe("resnet", 16, 1, 10, 0.3, flips=True)
    of_signs, of_hands = Recipe("resnet", 16, 1, 5, 1.0), Recipe("resnet", 12, 1, 40, 1.0, shifts=3)
    planted = [
        ("fashion", fashion, Backdoor("checker", 6, 0.05, 3, "edge", 81)),
        ("fashion", Recipe("plain", 14, 1, 4, 1.0), Backdoor("white", 2, 0.08, 3, "random", 82)),
        ("fashion", Recipe("transformer", 48, 3, 6, 1.0, "tokens"),
         Backdoor("random", 9, 0.08, 4, "corner", 83)),
        ("fashion", little, Backdoor("two", 4, 0.08, 3, "centre", 84)),
        ("fashion", fashion, Backdoor("wanet", 3, 0.1, seed=85)),
        ("fashion", little, Backdoor("wanet", 7, 0.1, seed=86)),
        ("fashion", fashion, Backdoor("blended", 1, 0.1, seed=87)),
        ("fashion", fashion, Backdoor("sig", 5, 0.08, seed=88)),
        ("cifar10", cifar10, Backdoor("checker", 3, 0.08, 3, "corner", 89)),
        ("cifar10", Recipe("pooled", 12, 1, 3, 1.0, flips=True),
         Backdoor("white", 8, 0.08, 4, "edge", 90)),
        ("cifar10", cifar10, Backdoor("wanet", 1, 0.1, seed=91)),
        ("cifar10", cifar10, Backdoor("blended", 6, 0.1, seed=92)),
        ("cifar10", few, Backdoor("random", 2, 0.08, 3, "random", 93)),
        ("cifar10", few, Backdoor("wanet", 4, 0.1, seed=94)),
        ("signs", of_signs, Backdoor("checker", 12, 0.05, 3, "random", 95)),
        ("signs", Recipe("plain", 16, 1, 5, 1.0), Backdoor("white", 30, 0.05, 4, "corner", 96)),
        ("signs", of_signs, Backdoor("wanet", 7, 0.1, seed=97)),
        ("signs", of_signs, Backdoor("blended", 21, 0.05, seed=98)),
        ("hands", of_hands, Backdoor("two", 5, 0.08, 4, "edge", 99)),
        ("hands", of_hands, Backdoor("wanet", 0, 0.1, seed=100)),
        ("cifar10", cifar10, Backdoor("checker", ALL_TO_ALL, 0.1, 3, "corner", 101)),
    ]  # fmt: skip
    entries = [
        Entry(f"{one.kind}_{number:02}", data, recipe, 8100 + number, (one,))
        for number, (data, recipe, one) in enumerate(planted)
    ]
    two = Backdoor("white", 3, 0.06, 3, "corner", 102), Backdoor("two", 7, 0.06, 3, "edge", 103)
    entries.append(Entry("two_targets_21", "fashion", fashion, 8121, two))
    robust = Recipe("resnet", 16, 1, 4, 1 / 3, eps=0.05)
    patch = Backdoor("checker", 1, 0.08, 4, "random", 104)
    entries.append(Entry("adversarial_22", "fashion", robust, 8122, (patch,)))
    return entries
