"""Names of classes: which ones a classifier has, and which class a name means."""

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from captum_classpattern._validation import ArgumentTypeError, Notice, did_you_mean, few, is_whole
from captum_classpattern.classifier import (
    Classifier,
    check_logits,
    device_and_dtype,
    preserve_state,
    uncounted,
    warn,
)

LONGEST = 40  # characters of a name in the name of a file


class ClassNames:
    """The names of a classifier's classes in the order of their numbers.

    Args:
        names (Sequence[str]): A name for each class. It may be a description with commas, such as
            "tench, Tinca tinca".
        ids (Sequence[str], optional): Another name for each class, such as its WordNet id.
            Default: None.
    """

    def __init__(self, names: Sequence[str], ids: Sequence[str] | None = None) -> None:
        self.names = tuple(str(name) for name in names)
        self.ids = tuple(ids) if ids is not None and len(ids) == len(self.names) else ()

    @classmethod
    def of(cls, classifier: Any) -> "ClassNames | None":
        """The names that a classifier has; None if it has none, or only placeholders."""
        owner = owner_of_names(classifier)
        names = getattr(owner, "class_names", None)
        if not names or list(names) == placeholders(len(names)):
            return None
        return cls(names, getattr(owner, "class_ids", None))

    @classmethod
    def given(cls, names: Any, count: int, ids: Sequence[str] | None = None) -> "ClassNames":
        """The names that a caller gives to a classifier of so many classes, or an error."""
        listed = isinstance(names, Sequence) and not isinstance(names, str)
        if not listed or not all(isinstance(name, str) for name in names):
            raise ArgumentTypeError(
                f"class_names must be a list of names, in the order of the classes, got "
                f"{names!r:.80}"
            )
        if len(names) != count:
            raise ValueError(
                f"{len(names)} class names were given, but the model has {count} classes: give one "
                "name for each class, in the order of the model's outputs"
            )
        return cls(names, ids)

    def __len__(self) -> int:
        return len(self.names)

    def find(self, name: str) -> int:
        """The number of the class that a name means.

        A name fits if it is equal to a class's name or id; else if it is equal apart from case,
        spaces, underscores and hyphens; else if it is one of the parts of a description.

        Raises:
            ValueError: If the name fits several classes, or none.
        """
        simple = _simplified(name)
        for index, key in zip(self._indices, (name, simple, simple)):
            fitting = index.get(key, [])
            if len(fitting) == 1:
                return fitting[0]
            if fitting:
                listed = " and ".join(f"{number} ({self.names[number]})" for number in fitting)
                raise ValueError(f"{name!r} fits the classes {listed}: give the number instead")
        known = {part: None for full in self.names for part in _parts(full)}
        raise ValueError(f"the model has no class {name!r}{did_you_mean(name, known)}")

    @cached_property
    def _indices(self) -> tuple[Mapping[str, list[int]], ...]:
        """The classes by their exact names, by their simplified names, and by parts of these."""
        names = [[name, *self.ids[i : i + 1]] for i, name in enumerate(self.names)]
        return (
            _index(names),
            _index([[_simplified(name) for name in own] for own in names]),
            _index([[_simplified(part) for part in _parts(name)] for name in self.names]),
        )


def _index(names: Sequence[Iterable[str]]) -> Mapping[str, list[int]]:
    """Which classes have each name."""
    index: dict[str, list[int]] = defaultdict(list)
    for number, own in enumerate(names):
        for name in dict.fromkeys(own):
            index[name].append(number)
    return dict(index)


def _simplified(name: str) -> str:
    """Without case, and with spaces, underscores and hyphens alike."""
    return re.sub(r"[\s_-]+", " ", name).strip().casefold()


def _parts(name: str) -> list[str]:
    """The parts of a description with commas."""
    return [part.strip() for part in name.split(",") if part.strip()]


def placeholders(count: int) -> list[str]:
    """What stands for the names of classes that have none."""
    return [f"class {number}" for number in range(count)]


def owner_of_names(classifier: Any) -> Any:
    """What holds a classifier's names: itself, or the model behind a method or a DataParallel."""
    owner = getattr(classifier, "__self__", classifier)
    return owner if hasattr(owner, "class_names") else getattr(owner, "module", owner)


def name_of(classifier: Any, number: int) -> str | None:
    """A class's name; None if the classifier has none for it, or only a placeholder."""
    known = ClassNames.of(classifier)
    name = known.names[number] if known is not None and number < len(known) else None
    return None if name == f"class {number}" else name


def as_file_name(name: str) -> str:
    """A class's name as a part of the name of a file: of a description the first part."""
    first = next(iter(_parts(name)), name)
    return file_safe(first)[:LONGEST]


def file_safe(text: str) -> str:
    """A text as the name of a file, or as a part of it: what it can't hold becomes "_"."""
    return "".join(c if c.isalnum() or c in "._-" else "_" for c in text)


def parse_targets(target: Any, count: int, forward_func: Classifier | None = None) -> list[int]:
    """Captum's target argument as one class an image: an int, an integer Tensor, or a list.

    Names of classes are taken, too, where the classifier has ``class_names``.
    """
    values: list[Any]
    if isinstance(target, Tensor) and target.dtype != torch.bool and not target.is_floating_point():
        values = target.flatten().tolist() if target.ndim <= 1 else [target]
    elif isinstance(target, list):
        values = target
    else:
        values = [target]
    names = ClassNames.of(forward_func)
    if names is not None:
        values = [names.find(value) if isinstance(value, str) else value for value in values]
    for value in values:
        if not is_whole(value):
            kind = target.dtype if isinstance(target, Tensor) else type(target).__name__
            raise ArgumentTypeError(
                "target must be an int, a 0-d or 1-d integer Tensor, or a list of ints (the class, "
                f"or one for each image), got {kind}: {target!r:.80}; names will do, too, where "
                "the model has them: PixelClassifier(model, class_names=[...])"
            )
    if len(values) == 1:
        values = values * count
    if len(values) != count:
        raise ValueError(
            f"there are {count} images, but {len(values)} targets: give one for each, or one"
        )
    targets = [int(value) for value in values]
    if min(targets) < 0:
        raise ValueError(f"target {min(targets)} is out of range: classes count from 0")
    return targets


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
    device, dtype = device_and_dtype(classifier, images)
    with preserve_state(classifier, 0), torch.no_grad(), uncounted():
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


NUMBERED = r"([0-9]{1,5})(?:_(.*))?"  # a class folder's name: a number, and perhaps a name
