"""What a scan says: in words, in a table, a figure and a page."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

from torch import Tensor

from captum_classpattern._support.files import write_figure, write_json
from captum_classpattern.results import Result, as_table, as_texts
from captum_classpattern.scanning.decision import INCONCLUSIVE, NOTHING, SUSPICIOUS
from captum_classpattern.scanning.folder import PATTERNS, PatternFolder
from captum_classpattern.scores.examples import StampedImages

COLUMNS = 6  # of a table that fits a terminal
AGAIN = "Scan again with another seed and other images, into another folder."
NEXT_STEPS = {
    SUSPICIOUS: (
        f"{AGAIN} A backdoor should be found again, with the same class.",
        "Scan a clean model of the task. If {name} comes first there as well, it may be "
        "a feature of the class that models learn.",
        "Until something else explains it, do not use the model. Train it again on images that you "
        "have checked, or get it from a source that you trust.",
    ),
    NOTHING: (
        f"{AGAIN} A search can miss a trigger. But each scan is a further chance of a false alarm.",
        "Still possible: triggers that are blended into all pixels or differ from image to image, "
        "patches that the search missed, and attackers who knew this scan. If much depends on the "
        "model, look at its training images, or train it again.",
    ),
    INCONCLUSIVE: (
        "{remedy}",
        "Look at what was found for {name}: it may show a trigger.",
        "Scan again. Until then, the scan neither accuses nor clears the model.",
    ),
}


@dataclass(frozen=True, repr=False, kw_only=True)
class Scan(Result):
    r"""
    What a scan found, and how sure it is: with references a
    :class:`~captum_classpattern.scanning.compared.Compared`, without them a
    :class:`~captum_classpattern.scanning.alone.Alone`.

    Attributes:
        verdict (str): ``"suspicious"``, ``"nothing found"`` or ``"inconclusive"``.
        target (int): The most suspicious class, whatever the verdict.
        class_names (list[str]): The name of each class.
        headline, reason (str): The verdict in a line, and why.
        next_steps (list[str]): What to do now.
        pattern (Pattern): What was found for the target, as a pattern or moving patch.
        source (str or None): Where the model comes from, if it says so: the ``source`` of its
            provenance.
    """

    class_names: list[str]
    source: str | None = None

    # each kind of scan has its own, and a `verdict`
    target = headline = reason = remarks = next_steps = rows = kept = property()
    legend: ClassVar[str]  # of the table
    rows_shown: ClassVar[int]  # on a page

    @property
    def target_name(self) -> str:
        """The name of the most suspicious class, the target."""
        name: str = self.class_names[self.target]
        return name

    def text(self) -> str:
        """The verdict, why, and what it rests on."""
        source = [] if self.source is None else [f"Model: {self.source}."]
        lines: list[str] = [self.headline, self.reason, *source, *self.remarks]
        return "\n".join(lines)

    def table(self, full: bool = False) -> Any:
        """A pandas DataFrame with a row for each class, the most suspicious first. With references:
        the power of the fewest ``pixels`` that reach most of the best one; its ``lead`` and its
        excess over the references, in the family of the largest one; with ``full`` also all powers
        and gains. Without: its power by each kind of change, the lower of two searches, and for
        many classes its gain."""
        table = as_table(self.rows())
        return table if full else table.iloc[:, :COLUMNS]

    def shown_table(self, full: bool = False) -> Any:
        table = self.table(full).head(self.rows_shown).drop(columns="class")
        forms = {key: ".0%" if key.startswith("power") else "+.2f" for key in table}
        others = {"name": "", "pixels": ""}
        return as_texts(table, forms | {key: others[key] for key in others.keys() & forms})

    def draw(self, title: str | None, *, use_pyplot: bool = True) -> tuple[Any, Any]:
        """The figure, with or without a title: pages have it above."""
        raise NotImplementedError

    def plot(self, *, use_pyplot: bool = True) -> tuple[Any, Any]:
        return self.draw(self.headline, use_pyplot=use_pyplot)

    def sections(self, whole: bool) -> Iterable[Any]:
        from captum_classpattern.pages import parts as html

        shown, count = self.shown_table(full=True), len(self.class_names)
        yield partial(self.draw, None)
        yield html.heading("What next")
        yield self.next_steps
        of_all = f" of {count:,}" if count > len(shown) else ""
        yield html.folded(f"The first {len(shown)}{of_all} classes", self.legend, shown)

    def as_dict(self) -> dict[str, Any]:
        """The result as plain values."""
        names = ("verdict", "target", "target_name", "reason", "next_steps")
        return {name: getattr(self, name) for name in names} | {"search": dict(self.kept[0])}

    def save(self, folder: str | Path) -> None:
        """Writes scan.json and the patterns, in place of those of any other scan in the folder; and
        scan.png, unless the images have neither one nor three channels."""
        (key, patterns), folder = self.kept, Path(folder)
        PatternFolder(folder / PATTERNS, key).replace(patterns)
        write_json(self.as_dict(), folder / "scan.json")
        try:
            write_figure(self.plot(use_pyplot=False)[0], folder / "scan.png")
        except ValueError:  # such images can't be drawn
            (folder / "scan.png").unlink(missing_ok=True)  # of another scan


def with_images(
    row: Any,
    image: Tensor,
    power: str,
    before: StampedImages,
    after: StampedImages,
    target: int,
) -> Any:
    """A row of the figure with what was found for a class, and images with it."""
    turns = zip(before.names, after.captions)
    captions = (f"{was} \N{RIGHTWARDS ARROW} {now}" for was, now in turns)
    hits = [predicted == target for predicted in after.predicted]
    examples = [*zip(after.images, captions, hits)]
    return replace(row, image=image, power=power, examples=examples)
