"""Names of classes: which class a name means, and how images get the class numbers of a model."""

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from captum_classpattern._validation import (
    ArgumentTypeError,
    Notice,
    is_whole,
    join_names,
    suggest_names,
)
from captum_classpattern.classifier import Classifier, warn

MAX_LENGTH = 40  # characters of a class's name in a file name
NUMBERINGS = ("alphabetical", "numbers", "dataset")  # see LabelledImages
NUMBERED = r"([0-9]{1,5})(?:_(.*))?"  # a class folder: a number, and perhaps a name
WORDNET_ID = "n[0-9]{8}"  # ImageNet's classes are numbered in the alphabetical order of these
REMEDY = (
    "give the names of the model's classes in their order (`class_names`), or number the folders, "
    "such as 3_dog"
)


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
        names = _attribute(classifier, "class_names")
        if not names or list(names) == placeholders(len(names)):
            return None
        return cls(names, _attribute(classifier, "class_ids"))

    @classmethod
    def parse(cls, names: Any, count: int, ids: Sequence[str] | None = None) -> "ClassNames":
        """The names that a user gives to the classes; an error unless these are ``count`` names."""
        is_list = isinstance(names, Sequence) and not isinstance(names, str)
        if not is_list or not all(isinstance(name, str) for name in names):
            raise ArgumentTypeError(
                f"`class_names` must be a list of names, in the order of the classes, got "
                f"{names!r:.80}"
            )
        if len(names) != count:
            raise ValueError(
                f"{len(names)} class names were given, but the model has {count} classes: give one "
                "name for each class, in the order of the model's outputs"
            )
        return cls(names, ids)

    @classmethod
    def of_outputs(cls, classifier: Any, count: int, names: Any = None) -> "ClassNames | None":
        """The names for a classifier's ``count`` outputs: those of the user, else its own."""
        if names is not None:
            return cls.parse(names, count, _attribute(classifier, "class_ids"))
        known = _attribute(classifier, "class_names")
        if known and len(known) != count:
            raise ValueError(
                f"the model names {len(known)} classes, but it has {count} outputs: give a name "
                "for each output, in their order"
            )
        return cls.of(classifier)

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
        raise ValueError(f"the model has no class {name!r}{suggest_names(name, known)}")

    @cached_property
    def _indices(self) -> tuple[Mapping[str, list[int]], ...]:
        """The classes by their exact names, by their simplified names, and by parts of these."""
        names = [[name, *self.ids[i : i + 1]] for i, name in enumerate(self.names)]
        return (
            _index(names),
            _index([[_simplified(name) for name in names_of_class] for names_of_class in names]),
            _index([[_simplified(part) for part in _parts(name)] for name in self.names]),
        )


def distinct_names(names: Mapping[int, str]) -> dict[int, str]:
    """The names of classes, with their numbers where some share a name, as ImageNet's two cranes
    do."""
    times = Counter(names.values())
    return {i: name if times[name] == 1 else f"{name} ({i})" for i, name in names.items()}


def label_of(number: int, names: Sequence[str] | None = None) -> str:
    """How a class is called: by its name among these, or else "class 3"."""
    return f"class {number}" if names is None or number >= len(names) else str(names[number])


def placeholders(count: int) -> list[str]:
    """Names for classes that have none."""
    return [label_of(number) for number in range(count)]


def name_of(classifier: Any, number: int) -> str | None:
    """A class's name; None if the classifier has none for it, or only a placeholder."""
    name = label_of(number, known_names(classifier))
    return None if name == label_of(number) else name


def known_names(classifier: Any) -> tuple[str, ...] | None:
    """The names of a classifier's classes; None if it has none, or only placeholders."""
    known = ClassNames.of(classifier)
    return None if known is None else known.names


def as_file_name(name: str) -> str:
    """A class's name as a part of a file name: the first part of a description, shortened."""
    first = next(iter(_parts(name)), name)
    return file_safe(first)[:MAX_LENGTH]


def file_safe(text: str) -> str:
    """A text as a part of a file name, with "_" for characters that a file name can't hold."""
    return "".join(c if c.isalnum() or c in "._-" else "_" for c in text)


def parse_targets(target: Any, count: int, forward_func: Classifier | None = None) -> list[int]:
    """Captum's target argument as one class per image: an int, an integer Tensor, or a list.

    If the classifier has ``class_names``, the classes may also be given by name.
    """
    values: list[Any] = target if isinstance(target, list) else [target]
    if isinstance(target, Tensor) and target.dtype != torch.bool and not target.is_floating_point():
        values = target.flatten().tolist() if target.ndim <= 1 else [target]
    names = ClassNames.of(forward_func)
    if names is not None:
        values = [names.find(value) if isinstance(value, str) else value for value in values]
    for value in values:
        if not is_whole(value):
            kind = target.dtype if isinstance(target, Tensor) else type(target).__name__
            raise ArgumentTypeError(
                "target must be an int, a 0-d or 1-d integer Tensor, or a list of ints (the class, "
                f"or one for each image), got {kind}: {target!r:.80}; names work, too, if the "
                "model has them: PixelClassifier(model, class_names=[...])"
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


def renumber(
    labels: Tensor, source_names: tuple[str, ...] | None, numbering: str,
    names: ClassNames | None, count: int, source: str,
) -> tuple[Tensor, tuple[str, ...] | None]:  # fmt: skip
    """The labels of images with a classifier's class numbers, and the names of the classes.

    ``names`` and ``count`` are the classifier's; ``source`` says where the images are from.
    """
    if source_names is None or numbering == "numbers":
        if int(labels.max()) >= count:
            raise ValueError(
                f"{source} has images of class {int(labels.max())}, but the model has {count:,} "
                f"classes, numbered from 0 to {count - 1}: {REMEDY}"
            )
        if names is None:
            return labels, _names_in_folders(source_names or (), count)
        _warn_of_other_names(source_names or (), labels, names)
        return labels, names.names
    present = sorted(set(labels.tolist()))
    source_names += tuple(str(number) for number in range(len(source_names), present[-1] + 1))
    numbers = _classifier_numbers(source_names, present, numbering, names, count, source)
    labels = torch.tensor([numbers[label] for label in labels.tolist()])
    return labels, source_names if names is None else names.names


def _classifier_numbers(
    source_names: Sequence[str], present: Sequence[int], numbering: str,
    names: ClassNames | None, count: int, source: str,
) -> dict[int, int]:  # fmt: skip
    """The classifier's number for each class of the source that has images."""
    unchanged = {number: number for number in present}
    if names is None:
        if len(source_names) != count:
            listed = join_names([source_names[number] for number in present])
            raise ValueError(
                f"{source} has images of {len(present)} classes ({listed}), but the model has "
                f"{count:,} classes and no names for them: {REMEDY}"
            )
        if numbering == "alphabetical":
            warn(
                f"the model does not name its {count} classes: they are taken in the "
                f"alphabetical order of the folders of {source} ({join_names(source_names)}); if "
                f"that is wrong, {REMEDY}",
                Notice,
            )
        return unchanged
    found, problems = _match(source_names, present, names)
    if not problems:
        return found
    ordered = numbering == "dataset" or all(re.fullmatch(WORDNET_ID, n) for n in source_names)
    if ordered and len(source_names) == count:
        warn(
            f"the names of the {count} classes of {source} are not all the model's "
            f"({problems[0]}): they keep the order that they have in {source}",
            Notice,
        )
        return unchanged
    more = f"; and {len(problems) - 3} more" if len(problems) > 3 else ""
    raise ValueError(
        f"{len(problems)} of {len(present)} classes of {source} can't be matched to the model's "
        f"{count:,} classes: {'; '.join(problems[:3])}{more}. Rename the folders, or {REMEDY}"
    )


def _match(
    source_names: Sequence[str], present: Sequence[int], names: ClassNames
) -> tuple[dict[int, int], list[str]]:
    """The numbers of the classes whose names fit, and what is wrong with the others."""
    found: dict[int, int] = {}
    taken: dict[int, int] = {}
    problems = []
    for number in present:
        try:
            meant = names.find(source_names[number])
        except ValueError as error:
            problems.append(str(error))
            continue
        found[number], other = meant, taken.setdefault(meant, number)
        if other != number:
            problems.append(
                f"{source_names[other]!r} and {source_names[number]!r} are both the model's class "
                f"{meant} ({names.names[meant]})"
            )
    return found, problems


def _warn_of_other_names(folders: Sequence[str], labels: Tensor, names: ClassNames) -> None:
    """A notice if folders such as ``0_dog`` have the names of other classes of the model."""
    found = []
    for number in sorted(set(labels.tolist())):
        match = re.fullmatch(NUMBERED, folders[number]) if number < len(folders) else None
        try:
            meant = names.find(match[2]) if match and match[2] else number
        except ValueError:
            continue  # not a name of the model's
        if meant != number:
            found.append(f"{folders[number]} (the model's class {number} is {names.names[number]})")
    if found:
        warn(
            f"{len(found)} of the numbered folders have the names of other classes of the model, "
            f"but keep their numbers: {join_names(found)}; rename them if that is wrong",
            Notice,
        )


def _names_in_folders(folders: Sequence[str], count: int) -> tuple[str, ...] | None:
    """The names in numbered folders such as ``3_dog``; None if there are only numbers."""
    names = placeholders(count)
    for number, folder in enumerate(folders[:count]):
        match = re.fullmatch(NUMBERED, folder)
        names[number] = (match[2] or names[number]) if match else folder
    return None if names == placeholders(count) else tuple(names)


def _attribute(classifier: Any, name: str) -> Any:
    """An attribute of a classifier, or of the model behind a bound method or a DataParallel."""
    owner = getattr(classifier, "__self__", classifier)
    owner = owner if hasattr(owner, "class_names") else getattr(owner, "module", owner)
    return getattr(owner, name, None)


def _index(names: Sequence[Iterable[str]]) -> Mapping[str, list[int]]:
    """The numbers of the classes that have each name."""
    index: dict[str, list[int]] = defaultdict(list)
    for number, names_of_class in enumerate(names):
        for name in dict.fromkeys(names_of_class):
            index[name].append(number)
    return dict(index)


def _simplified(name: str) -> str:
    """Without case, and with spaces, underscores and hyphens alike."""
    return re.sub(r"[\s_-]+", " ", name).strip().casefold()


def _parts(name: str) -> list[str]:
    """The parts of a description with commas."""
    return [part.strip() for part in name.split(",") if part.strip()]
