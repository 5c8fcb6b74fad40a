"""The folder in which a scan keeps what is finished."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from captum_classpattern.pattern import Pattern
from captum_classpattern.surveys.folder import Folder

SEARCH = "search.json"  # in a folder of patterns: says what they depend on
PATTERNS = "patterns"  # their folder


@dataclass
class PatternFolder(Folder):
    """The patterns of one scan, by names such as ``3_patch_1``: of class 3, by the first search of
    a patch."""

    kind: str = "scan"
    any_version: bool = False  # verdicts rest on searches that are all alike

    def find(self, names: Iterable[str]) -> list[Pattern] | None:
        """These patterns, or None unless all are there."""
        paths = [self._file(name) for name in names]
        if not self.read(SEARCH) or not all(path.exists() for path in paths):
            return None
        return [Pattern.load(path) for path in paths]

    def add(self, patterns: Mapping[str, Pattern]) -> None:
        """Writes patterns, beside others of the same scan. Those of another scan are an error."""
        if not self.read(SEARCH):
            self.write(SEARCH, {})
        for name, pattern in patterns.items():
            pattern.save(self._file(name))

    def _file(self, name: str) -> Path:
        return self.path / f"{name}.safetensors"
