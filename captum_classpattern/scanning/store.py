"""The folder of a scan: patterns that are finished stay, so that an interrupted scan can resume."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from captum_classpattern._files import write_atomically
from captum_classpattern.attribution import versions
from captum_classpattern.classifier import Classifier
from captum_classpattern.fingerprints import hash_of_images, hash_of_model
from captum_classpattern.images import LabelledImages
from captum_classpattern.pattern import Pattern

SEARCH = "search.json"


@dataclass(frozen=True)
class Store:
    """The patterns of one model, images and settings, by number of pixels and class."""

    folder: Path

    @classmethod
    def of(
        cls, folder: Path, model: Classifier, images: LabelledImages, settings: Mapping[str, Any]
    ) -> "Store":
        """The store in a folder; an error if it holds the patterns of another search."""
        name = "captum_classpattern"
        key = {
            "model": hash_of_model(model),
            "images": hash_of_images(images),
            name: versions()[name],
            **settings,
        }
        path = folder / SEARCH
        if path.exists():
            known = json.loads(path.read_text())
            differing = sorted(k for k in {**known, **key} if known.get(k) != key.get(k))
            if differing:
                raise ValueError(
                    f"{folder} holds the patterns of another scan (another "
                    f"{', '.join(differing)}): choose another folder"
                )
        folder.mkdir(parents=True, exist_ok=True)
        write_atomically(path, (json.dumps(key, indent=1) + "\n").encode())
        return cls(folder)

    def find(self, keys: Iterable[tuple[int, int]]) -> dict[tuple[int, int], Pattern] | None:
        """These patterns, or None unless all are there."""
        paths = {key: pattern_path(self.folder, *key) for key in keys}
        if not all(path.exists() for path in paths.values()):
            return None
        return {key: Pattern.load(path) for key, path in paths.items()}

    def add(self, patterns: Mapping[tuple[int, int], Pattern]) -> None:
        """Writes patterns."""
        write_patterns(self.folder, patterns)


def pattern_path(folder: Path, size: int, target: int) -> Path:
    return folder / f"{target}_{size}.safetensors"


def write_patterns(folder: Path, patterns: Mapping[tuple[int, int], Pattern]) -> None:
    """A file for each pattern, named after its class and its number of pixels."""
    folder.mkdir(parents=True, exist_ok=True)
    for key, pattern in patterns.items():
        pattern.save(pattern_path(folder, *key), seen_beside=True)
