"""Names of classes: which ones a classifier has, and which class a name means."""

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from typing import Any

from captum_classpattern.errors import ArgumentTypeError
from captum_classpattern.suggestions import did_you_mean

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
