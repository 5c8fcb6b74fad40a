"""The folder of a scan: patterns that are finished stay, so that an interrupted scan can resume."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from captum_classpattern._files import write_atomically
from captum_classpattern.pattern import Pattern

SEARCH = "search.json"  # what the patterns in a folder depend on


@dataclass(frozen=True)
class Store:
    """The patterns of one search, by number of pixels and class.

    Args:
        folder (Path): The folder. It is made when there is something to write.
        key (Mapping): All that the patterns depend on.
    """

    folder: Path
    key: Mapping[str, Any]

    def __post_init__(self) -> None:
        object.__setattr__(self, "key", json.loads(json.dumps(self.key)))  # as it is read back

    def check(self) -> None:
        """Raises an error if the folder holds the patterns of another search."""
        path = self.folder / SEARCH
        if not path.exists():
            return
        try:
            known = dict(json.loads(path.read_text()))
        except (TypeError, ValueError) as error:
            raise ValueError(
                f"{path} is damaged ({error}): remove it, or choose another folder"
            ) from error
        differing = sorted(k for k in {**known, **self.key} if known.get(k) != self.key.get(k))
        if differing:
            raise ValueError(
                f"{self.folder} holds the patterns of another scan (another "
                f"{', '.join(differing)}): choose another folder"
            )

    def find(self, keys: Iterable[tuple[int, int]]) -> dict[tuple[int, int], Pattern] | None:
        """These patterns, or None unless all are there."""
        paths = {key: self._path(*key) for key in keys}
        if not (self.folder / SEARCH).exists() or not all(path.exists() for path in paths.values()):
            return None
        return {key: Pattern.load(path) for key, path in paths.items()}

    def add(self, patterns: Mapping[tuple[int, int], Pattern]) -> None:
        """Writes patterns, next to others of the same search."""
        self.check()
        self.folder.mkdir(parents=True, exist_ok=True)
        path = self.folder / SEARCH
        if not path.exists():
            self._remove_patterns()  # of a search that is not known
            write_atomically(path, (json.dumps(self.key, indent=1) + "\n").encode())
        for key, pattern in patterns.items():
            pattern.save(self._path(*key), seen_beside=True)

    def replace(self, patterns: Mapping[tuple[int, int], Pattern]) -> None:
        """Writes patterns in place of those of any other search. Those of this search that are
        there already stay, so that it can resume whenever it is stopped."""
        try:
            self.check()
        except ValueError:  # of another search, or damaged
            self._remove_patterns()  # first, so that no search is taken to have them
            (self.folder / SEARCH).unlink()
        kept = {key for key in patterns if self._path(*key).exists()}
        self.add({key: pattern for key, pattern in patterns.items() if key not in kept})

    def _remove_patterns(self) -> None:
        for path in self.folder.glob("[0-9]*.safetensors"):
            path.unlink()

    def _path(self, size: int, target: int) -> Path:
        """The file of a pattern, named after its class and its number of pixels."""
        return self.folder / f"{target}_{size}.safetensors"
