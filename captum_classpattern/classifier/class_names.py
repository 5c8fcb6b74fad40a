"""Names of classes: which class a name means, and how images get the class numbers of a model."""

import hashlib
import itertools
import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from functools import cache, cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from captum_classpattern._support.validation import (
    ArgumentTypeError,
    Notice,
    is_whole,
    join_names,
    suggest_names,
)
from captum_classpattern.classifier.calling import attribute_of, warn

MAX_LENGTH = 40  # characters of a class's name in a file name
MAX_BYTES = 240  # of a name of a file or folder: with an ending at most 255
UNSAFE = r"[^\w.-]"  # in the name of a file
DEVICE = r"(con|prn|aux|nul|(com|lpt)[0-9¹²³])(\.|$)"  # not file names in Windows
NUMBERINGS = ("alphabetical", "numbers", "dataset")  # see LabelledImages
NUMBERED = r"([0-9]{1,5})(?:_(.*))?"  # a class folder: a number, and perhaps a name
WORDNET_ID = "n[0-9]{8}"  # ImageNet's classes are numbered in the alphabetical order of these
REMEDY = (
    "give the names of the model's classes in their order (`class_names`), or number the folders, "
    "such as 3_dog"
)


def simplified(name: str) -> str:
    """Without case, with spaces, underscores and hyphens alike, and accents as one character."""
    return re.sub(r"[\s_-]+", " ", unicodedata.normalize("NFC", name)).strip().casefold()


def parts_of(name: str) -> list[str]:
    """The parts of a description with commas."""
    return [part.strip() for part in name.split(",") if part.strip()]


@cache
def imagenet_names() -> dict[str, str]:
    """The names of ImageNet's 1,000 classes, by their WordNet ids, in the order of the classes."""
    lines = (Path(__file__).parent / "data/imagenet.txt").read_text(encoding="utf-8").splitlines()
    return dict(line.split(" ", 1) for line in lines)


class ClassNames(tuple[str, ...]):
    """The names of a classifier's classes in the order of their numbers, which may be descriptions
    with commas, such as "tench, Tinca tinca"; and other names, such as WordNet ids. Where these are
    all there is, the classes get ImageNet's names."""

    ids: tuple[str, ...]

    def __new__(cls, names: Sequence[str], ids: Sequence[str] | None = None) -> "ClassNames":
        given = tuple(str(name) for name in names)
        own = super().__new__(cls, (imagenet_names().get(name, name) for name in given))
        own.ids = tuple(ids) if ids is not None and len(ids) == len(given) else given
        return own

    @classmethod
    def of(
        cls, classifier: Any, count: int | None = None, given: Sequence[str] | None = None
    ) -> "ClassNames | None":
        """The names of a classifier's classes: those that its user gives, else its own; None if it
        has none, or only placeholders. Raises an error unless there are ``count``, if given."""
        ids, own = (attribute_of(classifier, name) for name in ("class_ids", "class_names"))
        own = own.tolist() if isinstance(own, np.ndarray) else own
        config = attribute_of(classifier, "config")
        own = own or names_by_number(getattr(config, "id2label", None), count)
        if given is not None:
            return cls(check_names(given, count), ids)
        names = check_names(own, count) if own and not isinstance(own, Mapping) else ()
        return cls(names, ids) if [*names] != placeholders(len(names)) else None

    def find(self, name: str) -> int:
        """The number of the class that has this name or id; else, of the one that has it apart from
        case, spaces, underscores and hyphens; else, of the one with it among the parts of its
        description. Raises an error if several have it, or none."""
        spellings = dict.fromkeys((name, imagenet_names().get(name, name)))
        for spelling, level in itertools.product(spellings, range(3)):
            key = simplified(spelling) if level else spelling
            fitting: list[int] = self._numbers_by_name[level].get(key, [])
            if len(fitting) == 1:
                return fitting[0]
            if fitting:
                listed = " and ".join(f"{number} ({self[number]})" for number in fitting)
                raise ValueError(f"{name!r} fits the classes {listed}: give the number instead")
        parts = dict.fromkeys(part for full in self for part in parts_of(full))
        raise ValueError(f"the model has no class {name!r}{suggest_names(name, parts)}")

    def match(self, given: Mapping[int, str]) -> tuple[dict[int, int], list[str]]:
        """The class that each of these names means, by the number that it has here; and what is
        wrong with names of no class, or of several, or of one that another name means."""
        numbers, problems = dict[int, int](), list[str]()
        for number, name in given.items():
            try:
                meant = self.find(name)
            except ValueError as error:
                problems.append(str(error))
                continue
            if other := [given[n] for n, taken in numbers.items() if taken == meant]:
                same = f"are both the model's class {meant} ({self[meant]})"
                problems.append(f"{other[0]!r} and {name!r} {same}")
            numbers[number] = meant
        return numbers, problems

    @cached_property
    def _numbers_by_name(self) -> list[Mapping[str, list[int]]]:
        """The classes by their exact names, by their simplified names, and by parts of these."""
        levels: list[Mapping[str, list[int]]] = [defaultdict(list) for _ in range(3)]
        for number, name in enumerate(self):
            exact = [name, self.ids[number]]
            spellings = exact, map(simplified, exact), map(simplified, parts_of(name))
            for numbers, names in zip(levels, spellings):
                for spelling in set(names):
                    numbers[spelling].append(number)
        return levels


def numbers_of(labels: Any, names: ClassNames | None) -> Any:
    """Labels that are names become the numbers of these classes; others stay unchanged."""
    listed = isinstance(labels, Iterable) and not isinstance(labels, Tensor | str)
    if names is None or not listed or not all(isinstance(label, str) for label in labels):
        return labels
    return [names.find(label) for label in labels]


def check_names(names: Any, count: int | None) -> Sequence[str]:
    """The names of the classes, from a user; an error unless they are ``count`` (None: any)."""
    is_list = isinstance(names, Sequence) and not isinstance(names, str)
    if not is_list or not all(isinstance(name, str) for name in names):
        raise ArgumentTypeError(
            f"`class_names` must be a list of names, in the order of the classes, got {names!r:.80}"
        )
    if count not in (None, len(names)):
        raise ValueError(
            f"there are {len(names)} class names, but the model has {count} classes: give one "
            "name for each class, in the order of the model's outputs"
        )
    return tuple(names)


def distinct_names(names: Mapping[int, str]) -> dict[int, str]:
    """The names of classes; with their numbers where some share one, like ImageNet's cranes."""
    times = Counter(names.values())
    return {i: name if times[name] == 1 else f"{name} ({i})" for i, name in names.items()}


def label_of(number: int, names: Sequence[str] | None = None) -> str:
    """What a class is called: its name among these, or else "class 3"."""
    return f"class {number}" if names is None or number >= len(names) else str(names[number])


def names_by_number(labels: Any, count: int | None) -> list[str] | None:
    """The names of classes in the ``id2label`` of transformers, if it has ``count`` of them."""
    if not isinstance(labels, Mapping) or count not in (None, len(labels)):
        return None
    by_number = {str(number): str(name) for number, name in labels.items()}
    names = [by_number.get(str(number), "") for number in range(len(by_number))]
    return names if all(names) and names[:1] not in ([], ["LABEL_0"]) else None


def placeholders(count: int) -> list[str]:
    """Names for classes that have none."""
    return [label_of(number) for number in range(count)]


def name_of(number: int, names: Sequence[str] | None) -> str | None:
    """A class's name; None if it has none, or only a placeholder."""
    name = label_of(number, names)
    return None if name == label_of(number) else name


def as_file_name(name: str) -> str:
    """A class's name as a part of a file name: the first part of a description, shortened."""
    return re.sub(UNSAFE, "_", next(iter(parts_of(name)), name))[:MAX_LENGTH]


def file_safe(text: str) -> str:
    """A text as a file or folder name on all systems. A long one ends with a hash."""
    safe = re.sub(rf"{UNSAFE}|\.$", "_", text)
    safe = f"_{safe}" if re.match(DEVICE, safe, re.IGNORECASE) else safe
    if len(whole := safe.encode()) <= MAX_BYTES:
        return safe
    digest = hashlib.blake2b(whole, digest_size=6).hexdigest()
    return f"{whole[: MAX_BYTES - 13].decode(errors='ignore')}-{digest}"


def parse_targets(target: Any, count: int | None, names: ClassNames | None = None) -> list[int]:
    """Captum's target argument as one class per image, or as many as it has (None): an int, an
    integer Tensor, or a list.

    Where there are ``names``, the classes may also be given by name.
    """
    values: list[Any] = target if isinstance(target, list) else [target]
    if isinstance(target, Tensor) and target.dtype != torch.bool and not target.is_floating_point():
        values = target.flatten().tolist() if target.ndim <= 1 else [target]
    values = [y.item() if isinstance(y, Tensor) and y.ndim == 0 else y for y in values]
    if names is not None:
        values = [names.find(value) if isinstance(value, str) else value for value in values]
    elif given := [value for value in values if isinstance(value, str)]:
        raise ValueError(
            f"{given[0]!r} is a name, but the classes have none here: give numbers, or "
            "`class_names` (in Python: PixelClassifier(model, class_names=[...])); if you gave the "
            "folder of one class as the images, give its parent"
        )
    if not all(map(is_whole, values)):
        kind = target.dtype if isinstance(target, Tensor) else type(target).__name__
        raise ArgumentTypeError(
            "target must be an int, a 0-d or 1-d integer Tensor, or a list of ints (the class, "
            f"or one for each image), got {kind}: {target!r:.80}; names also work if the "
            "model has them: PixelClassifier(model, class_names=[...])"
        )
    if not values:
        raise ValueError("`target` is empty: give at least one class")
    if len(values) == 1:
        values = values * (count or 1)
    if len(values) != (count or len(values)):
        raise ValueError(
            f"there are {count} images, but {len(values)} targets: give one for each, or one"
        )
    targets = [int(value) for value in values]
    if min(targets) < 0:
        raise ValueError(f"target {min(targets)} is out of range: classes count from 0")
    return targets


def renumber(images: Any, names: ClassNames | None, count: int) -> tuple[Tensor, ClassNames | None]:
    """The labels of a LabelledImages with the numbers of a classifier's ``count`` classes, which
    may have names; and the names of the classes."""
    labels, source = images.labels, images.description or "the images"
    listed, present = images.class_names or (), sorted(set(labels.tolist()))
    given = {number: listed[number] if number < len(listed) else str(number) for number in present}
    names = names or _imagenet_of(given, count)
    by_name = names is not None and all(  # folders 1 to 10, say, if these are the model's names
        folder.isdigit() and names.count(folder) == 1 for folder in given.values()
    )
    if images.class_names is None or (images.numbering == "numbers" and not by_name):
        return labels, _keep_numbers(listed, present, names, count, source)
    folders = [*listed, *(str(number) for number in range(len(listed), present[-1] + 1))]
    if names is None:
        if len(folders) != count:
            raise ValueError(
                f"{source} has images of {len(given)} classes ({join_names([*given.values()])}), "
                f"but the model has {count:,} classes and no names for them: {REMEDY}"
            )
        if images.numbering == "alphabetical":
            warn(
                "the model does not name its classes: they are taken in the alphabetical order of "
                f"the folders ({join_names(folders)}); if that is wrong, pass `class_names`",
                Notice,
            )
        return labels, ClassNames(folders)
    numbers, problems = names.match(given)
    if not problems:
        return torch.tensor([numbers[label] for label in labels.tolist()]), names
    by_id = all(re.fullmatch(WORDNET_ID, folder) for folder in folders)
    keeps_order = by_id or images.numbering == "dataset"
    if not keeps_order or len(folders) != count or any(n != to for n, to in numbers.items()):
        raise ValueError(
            f"{len(problems)} of {len(given)} classes of {source} can't be matched to the "
            f"model's {count:,} classes ({problems[0]}). Rename the folders, or {REMEDY}"
        )
    warn(
        f"the names of the {count} classes of {source} are not all the model's ({problems[0]}): "
        f"they keep the order that they have in {source}",
        Notice,
    )
    return labels, names


def _imagenet_of(folders: Mapping[int, str], count: int) -> ClassNames | None:
    """ImageNet's classes, if there are as many, and these folders, by their numbers, have the
    WordNet ids of some: alone, or after the number of that class."""
    ids = dict(enumerate(imagenet_names()))
    in_place = all(folder.rpartition("_")[2] == ids.get(n) for n, folder in folders.items())
    are_ids = {*folders.values()} <= {*ids.values()}
    fits = count == len(ids) and (in_place or are_ids)
    return ClassNames([*ids.values()]) if fits else None


def _keep_numbers(
    folders: Sequence[str], present: Sequence[int], names: ClassNames | None, count: int, where: str
) -> ClassNames | None:
    """The names of classes whose numbers are those of folders such as ``3_dog``; None if there are
    only numbers. A notice if the folders have the names of other classes of the model."""
    if present[-1] >= count:
        raise ValueError(
            f"{where} has images of class {present[-1]}, but the model has {count:,} "
            f"classes, numbered from 0 to {count - 1}: {REMEDY}"
        )
    matches = [re.fullmatch(NUMBERED, folder) for folder in folders[:count]]
    if names is None:
        own = {y: match[2] if match else folders[y] for y, match in enumerate(matches)}
        named = [own.get(y) or label_of(y) for y in range(count)]
        return ClassNames(named) if any(own.values()) else None
    numbered = {n: m[2] for n, m in enumerate(matches) if m and m[2] and n in present}
    others = [
        f"{folders[number]} (the model's class {number} is {names[number]})"
        for number, meant in names.match(numbered)[0].items()
        if number != meant
    ]
    if others:
        warn(
            f"{len(others)} of the numbered folders have the names of other classes of the model, "
            f"but keep their numbers: {join_names(others)}; rename them if that is wrong",
            Notice,
        )
    return names


def check_order(
    names: ClassNames | None, given: Sequence[str] | None, numbers: Sequence[int]
) -> None:
    """Raises an error if some of these classes, as other names number them, differ here."""
    if names is None or given is None:
        return
    listed = {y: given[y] for y in sorted({*numbers}) if y < len(given)}
    for number, meant in names.match(listed)[0].items():
        if number != meant:
            which = f"class {number} of the images, {given[number]}, is its class {meant}"
            raise ValueError(
                f"the model numbers the classes differently: {which}; correct the names"
            )
