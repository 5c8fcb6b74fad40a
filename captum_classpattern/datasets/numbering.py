"""Which of a classifier's classes each class of a source is."""

import re
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from captum_classpattern.checks import check_logits
from captum_classpattern.class_names import ClassNames, owner_of_names, placeholders
from captum_classpattern.classifier import (
    Classifier,
    placement,
    uncounted,
    undisturbed,
    warn,
)
from captum_classpattern.datasets.sources import NUMBERED
from captum_classpattern.errors import Notice
from captum_classpattern.suggestions import few

NUMBERINGS = ("alphabetical", "numbers", "dataset")
WORDNET_ID = "n[0-9]{8}"  # ImageNet's classes are numbered in the alphabetical order of these
HOW = (
    "name the model's classes in their order (--class-names FILE on the command line, "
    "class_names=[...] in Python), or number the folders, such as 3_dog"
)


def classifier_names(classifier: Classifier, given: Any, images: Tensor) -> tuple[Any, int]:
    """The names of a classifier's classes (:class:`ClassNames` or None), and how many there are."""
    count = _count(classifier, images)
    if given is None:
        return ClassNames.of(classifier), count
    return ClassNames.given(
        given, count, getattr(owner_of_names(classifier), "class_ids", None)
    ), count


def _count(classifier: Classifier, images: Tensor) -> int:
    """How many classes a classifier has, by running it once; an error if it names more or fewer."""
    device, dtype = placement(classifier, images)
    with undisturbed(classifier, 0), torch.no_grad(), uncounted():
        logits = classifier(images[:1].to(device, dtype))
    check_logits(logits, 1)
    names, count = getattr(owner_of_names(classifier), "class_names", None), int(logits.shape[1])
    if names and len(names) != count:
        raise ValueError(
            f"the model names {len(names)} classes, but it has {count} outputs: give a name for "
            "each output, in their order"
        )
    return count


def check_numbers(labels: Tensor, count: int, source: str) -> None:
    """Raises an error if there is a label that a classifier of so many classes doesn't have."""
    largest = int(labels.max())
    if largest >= count:
        raise ValueError(
            f"{source} has images of class {largest}, but the model has {count:,} classes, "
            f"numbered from 0 to {count - 1}: {HOW}"
        )


def warn_of_other_names(folders: Sequence[str], labels: Tensor, names: ClassNames) -> None:
    """A notice if folders such as ``0_dog`` have the names of other classes of the model."""
    found = []
    for number in sorted(set(labels.tolist())):
        match = re.fullmatch(NUMBERED, folders[number]) if number < len(folders) else None
        try:
            meant = names.find(match[2]) if match and match[2] else number
        except ValueError:
            continue  # no name of the model's
        if meant != number:
            found.append(f"{folders[number]} (the model's class {number} is {names.names[number]})")
    if found:
        warn(
            f"{len(found)} of the numbered folders have the names of other classes of the model, "
            f"and are taken by their numbers: {few(found)}; rename them if that is wrong",
            Notice,
        )


def names_of_numbered(folders: Sequence[str], count: int) -> tuple[str, ...] | None:
    """The names behind the numbers of folders such as ``3_dog``; None if there are only numbers."""
    names = placeholders(count)
    for number, folder in enumerate(folders[:count]):
        match = re.fullmatch(NUMBERED, folder)
        names[number] = (match[2] or names[number]) if match else folder
    return None if names == placeholders(count) else tuple(names)


def class_of_each(
    own: Sequence[str], present: Sequence[int], names: ClassNames | None, count: int,
    numbering: str, source: str,
) -> dict[int, int]:  # fmt: skip
    """The classifier's number for each class of a source that has images, or an error.

    Args:
        own (Sequence[str]): The source's names of its classes.
        present (Sequence[int]): Which of them have images.
        names (ClassNames or None): The classifier's.
        count (int): How many classes the classifier has.
        numbering (str): As of :class:`LabelledImages`.
        source (str): Where the images are from, for messages.
    """
    as_they_are = {number: number for number in present}
    ordered = numbering == "dataset" or all(re.fullmatch(WORDNET_ID, name) for name in own)
    if names is None:
        if len(own) != count:
            shown = few([own[number] for number in present])
            raise ValueError(
                f"{source} has images of {len(present)} classes ({shown}), but the model has "
                f"{count:,} classes and no names for them: {HOW}"
            )
        if numbering == "alphabetical":
            warn(
                f"the model does not name its {count} classes: they are taken in the alphabetical "
                f"order of the folders of {source} ({few(own)}); if that is wrong, {HOW}",
                Notice,
            )
        return as_they_are
    found, problems = _matched(own, present, names)
    if problems and ordered and len(own) == count:
        warn(
            f"the names of the {count} classes of {source} are not all the model's "
            f"({problems[0]}): they are taken in the order that they have in {source}",
            Notice,
        )
        return as_they_are
    if problems:
        more = f"; and {len(problems) - 3} more" if len(problems) > 3 else ""
        raise ValueError(
            f"{len(problems)} of {len(present)} classes of {source} can't be matched to the "
            f"model's {count:,} classes: {'; '.join(problems[:3])}{more}. Rename the folders, or "
            f"{HOW}"
        )
    return found


def _matched(
    own: Sequence[str], present: Sequence[int], names: ClassNames
) -> tuple[dict[int, int], list[str]]:
    """The classes whose names fit, and what is wrong with the others."""
    found: dict[int, int] = {}
    problems = []
    for number in present:
        try:
            found[number] = names.find(own[number])
        except ValueError as error:
            problems.append(str(error))
    taken: dict[int, int] = {}
    for number, meant in found.items():
        if meant in taken:
            problems.append(
                f"{own[taken[meant]]!r} and {own[number]!r} are both the model's class {meant} "
                f"({names.names[meant]})"
            )
        taken[meant] = number
    return found, problems
