"""The folder in which a scan keeps its patterns."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from captum_classpattern.pattern import Pattern
from captum_classpattern.surveys.folder import Folder

SEARCH = "search.json"  # in a folder of patterns: says what they depend on
PATTERNS = "patterns"  # their folder


@dataclass
class PatternFolder(Folder):
    """The patterns of one scan, by number of pixels, or of the search, and class."""

    kind: str = "scan"
    any_version: bool = False  # a p-value compares models that were searched alike

    def find(self, keys: Iterable[tuple[int, int]]) -> dict[tuple[int, int], Pattern] | None:
        """These patterns, or None unless all are there."""
        paths = {key: self._file(*key) for key in keys}
        if not self.read(SEARCH) or not all(path.exists() for path in paths.values()):
            return None
        return {key: Pattern.load(path) for key, path in paths.items()}

    def add(self, patterns: Mapping[tuple[int, int], Pattern]) -> None:
        """Writes patterns, next to others of the same scan."""
        if not self.read(SEARCH):
            for path in self.path.glob("*.safetensors"):
                if re.fullmatch(r"\d+_\d+", path.stem):  # not those of a survey
                    path.unlink()  # of a scan that is not known
            self.write(SEARCH, {})
        for key, pattern in patterns.items():
            pattern.save(self._file(*key))

    def replace(self, patterns: Mapping[tuple[int, int], Pattern]) -> None:
        """Writes patterns in place of those of any other scan. Those of this scan stay until they
        are written again, so that it can resume whenever it is stopped."""
        try:
            self.read(SEARCH)
        except ValueError:  # of another scan, or damaged
            (self.path / SEARCH).unlink()  # so that :meth:`add` removes its patterns
        self.add(patterns)

    def _file(self, size: int, target: int) -> Path:
        return self.path / f"{target}_{size}.safetensors"
