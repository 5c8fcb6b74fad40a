"""The rows of class_patterns.jsonl: added one model at a time, read as scores by class."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock
from findings import Row, read_rows, write_rows

from captum_classpattern.scores import Scores
from captum_classpattern.scores.power import power_of
from claims.models import entries

FILE, TRANSFER = "class_patterns.jsonl", "class_patterns_transfer.jsonl"
COUNTS = ("hits", "n", "no_pattern")  # of held-out images
CONTROLS = ("random_pixels", "other_canvas")  # chosen as the pattern was
SHARED = ("canvases", "images", "areas", "settings")  # of all models of a data set
NAMES = ("model", "source_weights", "tested")  # no two rows have the same


def add_rows(path: Path, rows: Sequence[Row]) -> None:
    """Adds rows, all or none, in the order of the list of models. Several processes may do so."""
    places = {entry.name: number for number, entry in enumerate(entries())}
    path.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(path.with_suffix(".lock")):
        known = read_rows(path)
        there = [[row.get(name) for name in NAMES] for row in known]
        again = [row["model"] for row in rows if [row.get(name) for name in NAMES] in there]
        if again:
            raise ValueError(
                f"{path} has a row of {', '.join(again)} already: delete it to measure again, or "
                "choose another folder"
            )
        known += rows
        write_rows(path, sorted(known, key=lambda row: places.get(row["model"], len(places))))


def check_shared(row: Row, rows: Iterable[Row]) -> None:
    """Raises an error if a model of the same data set was measured on something else."""
    for other in rows:
        for name in SHARED:
            if other["data"] == row["data"] and other[name] != row[name]:
                raise ValueError(
                    f"{other['model']} was measured with other {name} than {row['model']}: all "
                    "rows of a file must share them; choose another folder"
                )


@dataclass(frozen=True, eq=False)
class Measured:
    """A model's row."""

    row: Row

    @property
    def kind(self) -> str:
        return str(self.row["kind"])

    @property
    def settings(self) -> list[tuple[str, float]]:
        """Kinds of canvas and areas."""
        patterns: Mapping[str, Mapping[str, Any]] = self.row["patterns"]
        return [(kind, float(area)) for kind, by_area in patterns.items() for area in by_area]

    def column(self, canvas: str, area: float, name: str) -> dict[int, float]:
        """A value of each class's pattern on a kind of canvas at an area."""
        values = self.row["patterns"][canvas][f"{area:g}"][name]
        return dict(zip(self.row["classes"], values))

    def has(self, canvas: str, area: float, name: str) -> bool:
        return name in self.row["patterns"][canvas][f"{area:g}"]

    def share(self, canvas: str, area: float, name: str) -> dict[int, float]:
        """A count of held-out images by class, as a share of them."""
        images = self.column(canvas, area, "n")
        return {y: hits / images[y] for y, hits in self.column(canvas, area, name).items()}

    def above_none(self, canvas: str, area: float, name: str = "hits") -> dict[int, float]:
        """A power by class, minus that of no pattern."""
        none = self.share(canvas, area, "no_pattern")
        return {y: power - none[y] for y, power in self.share(canvas, area, name).items()}

    def scores(self, canvas: str, area: float) -> dict[int, Scores]:
        """The power of each class's pattern and its controls."""
        hits, images, none = (self.column(canvas, area, name) for name in COUNTS)
        random, other = (self.share(canvas, area, name) for name in CONTROLS)
        return {
            y: Scores(power_of(hits[y], int(images[y]), none[y]), random[y], other[y]) for y in hits
        }


Runs = Mapping[int, Measured]  # of a kind, by training seed


def by_kind(rows: Iterable[Row]) -> dict[str, dict[int, Measured]]:
    """The models of each kind, by their training seed."""
    kinds: dict[str, dict[int, Measured]] = {}
    for row in rows:
        kinds.setdefault(row["kind"], {})[row["seed"]] = Measured(row)
    return kinds
