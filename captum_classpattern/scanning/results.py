"""What a scan found: in words, in a table, a figure and a page; and its folder."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

from safetensors import safe_open
from safetensors.torch import save
from torch import Tensor

from captum_classpattern._support import files
from captum_classpattern._support.formats import percent as percent_of
from captum_classpattern._support.validation import counted, is_whole, join_names
from captum_classpattern.pattern import Pattern
from captum_classpattern.results import Result, as_table, as_texts
from captum_classpattern.scanning.changes import Change, changes_for
from captum_classpattern.scanning.decision import (
    DOUBT,
    FEWEST_CLASSES,
    FRAGILE,
    INCONCLUSIVE,
    NOTHING,
    SUSPICIOUS,
    Bounds,
    Decision,
    decide,
    lower_of_two,
)
from captum_classpattern.scanning.folder import PATTERNS, PatternFolder
from captum_classpattern.scanning.search import Found
from captum_classpattern.scores.examples import StampedImages

ROWS = 10  # of the table on a page and in the terminal
SCAN, EXAMPLES = "scan.json", "examples.safetensors"
FORMAT = "captum_classpattern.Scan"
NUMBERS = ("power", "gain", "score")  # of what a search found
PREDICTED = ("labels", "predicted", "names", "probabilities")  # of images
percent = partial(percent_of, digits=0)
LEGEND = (
    "Power: the share of unseen images that the model predicts as the class with this change. "
    "Images of the class, or predicted as it without the change, don't count. Lead: how far the "
    "class is ahead of the next one, as a multiple of the bound; of two searches, the lower counts."
)
AGAIN = "Scan again with another seed and other images, into another folder."
NEXT_STEPS = {
    SUSPICIOUS: (
        f"{AGAIN} A backdoor should be found again, with the same class.",
        "Scan a clean model of the task. If {name} comes first there as well, it may be a feature "
        "of the class that models learn.",
        "Until something else explains it, do not use the model. Train it again on images that you "
        "have checked, get it from a source that you trust, or train the change away: give images "
        "with it their true labels.",
    ),
    NOTHING: (
        f"{AGAIN} A search can miss a trigger. But each scan is a further chance of a false alarm.",
        "Still possible: triggers that the scan did not search for, such as a faint picture or a "
        "sine wave over the whole image, triggers that differ from image to image or work for "
        "images of one class only, and attackers who knew this scan. If much depends on the model, "
        "look at its training images, or train it again.",
    ),
    INCONCLUSIVE: (
        "Scan again with more images, which this scan has not used.",
        "Look at what was found for {name}: it may show a trigger.",
        "Until then, the scan neither accuses nor clears the model.",
    ),
}
LOAD = """\
from captum_classpattern.scanning import Scan
changed = Scan.load({folder!r}).pattern.stamp(images)  # images with the change, to train on"""


@dataclass(frozen=True, repr=False, kw_only=True)
class Scan(Result):
    r"""
    What a scan found. ``plot`` shows what was found for the first class with each kind of change,
    three unseen images with it, and how far each class is ahead or behind.

    Attributes:
        verdict (str): ``"suspicious"``, ``"nothing found"`` or ``"inconclusive"``.
        target (int), target_name (str): The most suspicious class, whatever the verdict.
        suspects (list[int]): All suspicious classes.
        kind (str): The kind of change that makes the target so, such as ``"25_pixels"``.
        power (float): The share of unseen images that the model predicts as the target with this
            change, the lower of two searches.
        pattern (Pattern): What was found for it: its ``stamp`` changes images.
        headline, reason (str): The verdict in a line, and why.
        found (dict): For each kind of change, of each class that was searched to the end, what one
            or two searches found.
        examples (dict): For each kind, three unseen images as they are, and with the change of the
            target.
        judged (list[int]): For each class, how many images judge it: unseen by any search, not of
            the class, and not predicted as it without the change.
        accuracy (float or None): The model's accuracy on the search images, if they are labelled.
        shape (tuple[int, int, int]): C, H and W of the images.
        class_names (list[str]): The name of each class.
        key (dict): All that the searches depend on.
        source (str or None): Where the model comes from, if it says so.
        folder (Path or None): The folder in which the scan is kept.
    """

    found: Mapping[str, Mapping[int, Sequence[Found]]]
    examples: Mapping[str, tuple[StampedImages, StampedImages]]
    judged: list[int]
    accuracy: float | None
    shape: tuple[int, ...]
    class_names: list[str]
    key: Mapping[str, Any]
    source: str | None = None
    folder: Path | None = None

    def __repr__(self) -> str:
        words = self.changes[self.kind].words
        return f"Scan({self.verdict}, {self.target_name}, {words}, {percent(self.power)})"

    @cached_property
    def changes(self) -> dict[str, Change]:
        """The kinds of change that were searched for."""
        return changes_for(self.shape)

    @cached_property
    def decision(self) -> Decision:
        """See :func:`~captum_classpattern.scanning.decision.decide`."""
        measures = {
            kind: {y: [each.measure for each in both] for y, both in of.items()}
            for kind, of in self.found.items()
        }
        bounds = {kind: Bounds(each.lead, each.power) for kind, each in self.changes.items()}
        return decide(measures, bounds, len(self.class_names))

    @property
    def verdict(self) -> str:
        return self.decision.verdict

    @property
    def kind(self) -> str:
        return self.decision.kind

    @property
    def target(self) -> int:
        return self.decision.ahead.classes[0]

    @property
    def target_name(self) -> str:
        return self.class_names[self.target]

    @property
    def suspects(self) -> list[int]:
        standings = self.decision.standings.values() if self.verdict == SUSPICIOUS else ()
        ordered = sorted(standings, key=lambda each: -each.strength)
        return [*dict.fromkeys(y for each in ordered if each.strength >= 1 for y in each.classes)]

    @property
    def power(self) -> float:
        return self.power_of(self.kind, self.target)

    def power_of(self, kind: str, target: int) -> float:
        """The lower power of the searches of a class."""
        return min(each.power for each in self.found[kind][target])

    @property
    def pattern(self) -> Pattern:
        return self.shown(self.kind).pattern

    def shown(self, kind: str) -> Found:
        """What was found for the target with a kind of change, by the stronger of two searches; for
        another class, if the target was not searched to the end."""
        return max(self.found[kind][self.shown_class(kind)], key=lambda each: each.score)

    def shown_class(self, kind: str) -> int:
        """The class whose change of this kind is shown."""
        ahead = self.decision.standings[kind].classes[0]
        return self.target if self.target in self.found[kind] else ahead

    @property
    def headline(self) -> str:
        words, share, name = self.changes[self.kind].words, percent(self.power), self.target_name
        images = f"{share} of {self.judged[self.target]} unseen images of other classes"
        said = f"With {words}, the model predicts {name} for {images}"
        others = [y for y in self.found[self.kind] if y not in self.decision.ahead.classes]
        if self.verdict == SUSPICIOUS and others:
            most = max(self.power_of(self.kind, y) for y in others)
            return f"Suspicious. {said}; other classes reach {percent(most)}."
        if self.verdict == NOTHING:
            return f"Nothing found. No class is far ahead of the others. {said}."
        return f"{self.verdict.capitalize()}. {said}."

    @property
    def reason(self) -> str:
        if self.verdict == NOTHING:
            tried = join_names([each.words for each in self.changes.values()])
            return (
                f"For each class, the scan searched for {tried}. This does not show that the model "
                "is clean: it may have other triggers, and attackers who know the scan were not "
                "tested."
            )
        if self.verdict == SUSPICIOUS:
            also = join_names([self.class_names[y] for y in self.suspects if y != self.target])
            return (
                f"Without the change, it predicts {self.target_name} for none of them. "
                f"{f'Also suspicious: {also}. ' if also else ''}A suspicious class reaches the "
                f"bounds in two searches; {self.target_name} reaches "
                f"{self.decision.ahead.strength:.1f} times the bounds. This does not prove a "
                "backdoor."
            )
        return self._doubt()

    def _doubt(self) -> str:
        """Why the scan is inconclusive."""
        decision, count = self.decision, len(self.class_names)
        if count < FEWEST_CLASSES and not any(each.power for each in self.changes.values()):
            return (
                f"Images of this size are judged by how far one class is ahead of the others. With "
                f"{counted(count, 'class', 'classes')}, that says too little: it needs "
                f"{FEWEST_CLASSES}."
            )
        known = "" if self.accuracy is None else f" Its accuracy is {percent(self.accuracy)}."
        if decision.ahead.strength >= 1:
            return (
                f"{self.target_name} is far enough ahead of the others. But with some change, "
                f"another class reaches {percent(decision.other)} as well, as in fragile networks: "
                f"from {percent(FRAGILE)}, the scan does not decide.{known}"
            )
        if len(decision.reacting) > 1:
            return (
                f"{len(decision.reacting)} of {count} classes react to such a change, and none is "
                f"far ahead of the others, as in fragile networks.{known}"
            )
        if decision.disagreeing:
            return (
                f"One search found {self.target_name} far enough ahead of the others, and another "
                "one did not."
            )
        return (
            f"{self.target_name} reaches {percent(decision.ahead.strength)} of the bounds of a "
            f"suspicious class. From {percent(DOUBT)}, the scan does not decide."
        )

    @property
    def next_steps(self) -> list[str]:
        """What to do now (list[str])."""
        return [step.format(name=self.target_name) for step in NEXT_STEPS[self.verdict]]

    @property
    def lines_to_load(self) -> str:
        """The Python lines that load what was found and put it on images."""
        return LOAD.format(folder=str(self.folder or "the folder"))

    @property
    def remarks(self) -> list[str]:
        """What else to know."""
        said = [] if self.source is None else [f"Model: {self.source}."]
        if self.accuracy is not None:
            said.append(f"The model's accuracy is {percent(self.accuracy)} on the search images.")
        searched = max(map(len, self.found.values()))
        if searched < len(self.class_names):
            said.append(
                f"With each change, a short search ranked all {len(self.class_names):,} classes. "
                f"Only the first {searched} were searched to the end."
            )
        return said

    def text(self) -> str:
        """The verdict, why, and what it rests on."""
        return "\n".join([self.headline, self.reason, *self.remarks])

    def table(self, full: bool = False) -> Any:
        """A pandas DataFrame with a row for each class that was searched to the end with some
        change, the most suspicious first: for each kind of change, its power and its lead. With
        ``full``, also the score of each search."""
        return as_table(self.rows(full))

    def rows(self, full: bool) -> Iterator[dict[str, Any]]:
        """The rows of the table."""
        leads = {kind: self.leads(kind) for kind in self.found}
        classes = {y for of in leads.values() for y in of}
        first = {y: max(of[y] for of in leads.values() if y in of) for y in classes}
        for y in sorted(classes, key=lambda y: (y != self.target, -first[y])):
            row: dict[str, Any] = {"class": y, "name": self.class_names[y]}
            for kind, of in self.found.items():
                known = y in of
                row[f"power_{kind}"] = self.power_of(kind, y) if known else None
                row[f"lead_{kind}"] = leads[kind][y] if known else None
                if full:
                    row[f"scores_{kind}"] = [each.score for each in of[y]] if known else None
            yield row

    def leads(self, kind: str) -> dict[int, float]:
        """How far each class is ahead of the next one, or behind the first, by the lower score of
        its searches, as a multiple of the bound."""
        lower, bound = self._lower(kind), self.changes[kind].lead
        ahead = self.decision.standings[kind]
        best = lower[ahead.classes[-1]] - ahead.lead  # the score that the others reach
        return {y: round((score - best) / bound, 6) for y, score in lower.items()}

    def _lower(self, kind: str) -> dict[int, float]:
        measures = {y: [each.measure for each in both] for y, both in self.found[kind].items()}
        return {y: each.score for y, each in lower_of_two(measures).items()}

    def shown_table(self) -> Any:
        table = self.table().head(ROWS).drop(columns="class")
        forms = {key: ".0%" if key.startswith("power") else "+.2f" for key in table}
        return as_texts(table, forms | {"name": ""})

    def plot(self, *, use_pyplot: bool = True) -> tuple[Any, Any]:
        return self.draw(self.headline, use_pyplot=use_pyplot)

    def draw(self, title: str | None, *, use_pyplot: bool = True) -> tuple[Any, Any]:
        """The figure, with or without a title: pages have it above."""
        from captum_classpattern.visualization.scans import draw_changes

        note = (
            f"Dots: how far each class is ahead of the next one or behind the first, as a multiple "
            f"of the bound; {self.target_name} in orange. Dotted lines: inconclusive, suspicious."
        )
        rows = [self._figure_row(kind) for kind in self.found]
        return draw_changes(rows, title=title, note=note, use_pyplot=use_pyplot)

    def _figure_row(self, kind: str) -> Any:
        """What was found for the target, images with it, and the leads of all classes."""
        from captum_classpattern.visualization.drawing import on_neutral
        from captum_classpattern.visualization.scans import ChangeRow

        leads, y, pattern = self.leads(kind), self.shown_class(kind), self.shown(kind).pattern
        order = sorted(leads, key=lambda each: (each != y, -leads[each]))
        names = [self.class_names[each] for each in order]
        row = ChangeRow(
            self.changes[kind].words, names, [leads[each] for each in order], [DOUBT, 1.0]
        )
        if len(pattern.canvas) not in (1, 3):
            return row
        before, after = self.examples[kind]
        turns = zip(before.names, after.captions)
        captions = (f"{was} \N{RIGHTWARDS ARROW} {now}" for was, now in turns)
        hits = [predicted == y for predicted in after.predicted]
        return replace(
            row,
            image=on_neutral(pattern.canvas, pattern.mask),
            power=percent(self.power_of(kind, y)),
            examples=[*zip(after.images, captions, hits)],
        )

    def sections(self, whole: bool) -> Iterable[Any]:
        from captum_classpattern.pages import parts as html

        shown, count = self.shown_table(), len(self.class_names)
        yield partial(self.draw, None)
        yield html.heading("What next")
        yield self.next_steps
        yield from ["To load what was found:", html.code(self.lines_to_load)]
        of_all = f" of {count:,}" if count > len(shown) else ""
        yield html.folded(f"The first {len(shown)}{of_all} classes", LEGEND, shown)

    def as_dict(self) -> dict[str, Any]:
        """The result as plain values: what it says, and what :meth:`load` reads."""
        said = ("verdict", "target", "target_name", "suspects", "kind", "power", "reason")
        known = ("judged", "accuracy", "shape", "class_names", "source")
        found = {
            kind: {
                y: [{name: getattr(each, name) for name in NUMBERS} for each in both]
                for y, both in of.items()
            }
            for kind, of in self.found.items()
        }
        values = {name: getattr(self, name) for name in (*said, *known)}
        return {**values, "next_steps": self.next_steps, "found": found}

    def save(self, folder: str | Path) -> None:
        """Writes scan.json, the patterns and the examples, from which :meth:`load` reads the scan;
        and scan.png, unless the images have neither one nor three channels. Another scan in the
        folder is an error."""
        path = Path(folder)
        PatternFolder(path / PATTERNS, self.key).add(self._patterns())
        tensors, words = dict[str, Tensor](), dict[str, Any]()
        for kind, both in self.examples.items():
            for when, each in zip(("before", "after"), both):
                tensors[f"{kind}/{when}"] = each.images.float().clone().contiguous()
                words[f"{kind}/{when}"] = {name: getattr(each, name) for name in PREDICTED}
        metadata = {"format": FORMAT, "examples": files.to_json(words)}
        files.write_atomically(path / EXAMPLES, save(tensors, metadata))
        data = {"format": FORMAT, **self.as_dict(), "search": dict(self.key)}
        files.write_json(data, path / SCAN)
        try:
            files.write_figure(self.plot(use_pyplot=False)[0], path / "scan.png")
        except ValueError:  # such images can't be drawn
            (path / "scan.png").unlink(missing_ok=True)

    def _patterns(self) -> dict[str, Pattern]:
        """All patterns, by the names of their files."""
        patterns = dict[str, Pattern]()
        for kind, of in self.found.items():
            for y, both in of.items():
                for n, each in enumerate(both, 1):
                    patterns[f"{y}_{kind}_{n}"] = each.pattern
        return patterns

    @classmethod
    def load(cls, folder: str | Path) -> "Scan":
        r"""
        Reads a scan that :meth:`save`, ``scan(folder=...)`` or ``classpattern scan`` has written.

        Args:
            folder (str or Path): Its folder.

        Returns:
            *Scan*

        Raises:
            FileNotFoundError: If the folder has no scan, or one that is not finished.
            ValueError: If a file is damaged.

        Examples::

            >>> import tempfile
            >>> folder, images = tempfile.mkdtemp(), torch.rand(120, 1, 8, 8)
            >>> layers = torch.nn.Flatten(), torch.nn.LayerNorm(64), torch.nn.Linear(64, 3)
            >>> net = torch.nn.Sequential(*layers).eval()
            >>> found = scan(net, images, torch.arange(120) % 3, folder=folder)
            >>> Scan.load(folder).verdict == found.verdict
            True
        """
        path = Path(folder)
        if not (path / SCAN).is_file():
            raise FileNotFoundError(f"{path} has no finished scan: there is no {SCAN} in it")
        remedy = "remove it and scan again, or choose another folder"
        with files.reading(path / SCAN, "is not from a scan", remedy):
            data = files.parse_json(files.read_text(path / SCAN))
            if data.get("format") != FORMAT:
                raise ValueError(f"its format is {data.get('format')!r:.80}")
            files.check_kinds(data, found=dict, class_names=list, search=dict, source=str)
            shape, count = tuple(map(int, data["shape"])), len(data["class_names"])
            expected, key = changes_for(shape), dict(data["search"])
            if data["found"].keys() != expected.keys() or len(data["judged"]) != count:
                raise ValueError("it has other changes, or other classes")
            searches = {
                kind: {int(y): [*map(_numbers, both)] for y, both in of.items()}
                for kind, of in data["found"].items()
            }
            classes = {y for of in searches.values() for y in of}
            if not all(0 <= y < count for y in classes) or not all(map(len, searches.values())):
                raise ValueError("it has classes that the model has not")
            accuracy, source = data["accuracy"], data["source"]
            accuracy = None if accuracy is None else _share(accuracy)
            judged = [*map(int, data["judged"])]
        store = PatternFolder(path / PATTERNS, key)
        found = {
            kind: {
                y: [
                    Found(_pattern(store, f"{y}_{kind}_{n}"), *each)
                    for n, each in enumerate(both, 1)
                ]
                for y, both in of.items()
            }
            for kind, of in searches.items()
        }
        return cls(
            found=found,
            examples=_read_examples(path / EXAMPLES, remedy),
            judged=judged,
            accuracy=accuracy,
            shape=shape,
            class_names=[*map(str, data["class_names"])],
            key=key,
            source=source,
            folder=path,
        )


def _numbers(values: Mapping[str, Any]) -> list[float]:
    """What a stranger's file says of one search: power, gain and score."""
    power, *others = (values[name] for name in NUMBERS)
    return [_share(power), *map(float, others)]


def _share(value: Any) -> float:
    """A share in a stranger's file."""
    if not 0 <= (share := float(value)) <= 1:
        raise ValueError(f"it has a share of {share}")
    return share


def _pattern(store: PatternFolder, name: str) -> Pattern:
    """A pattern of the folder of a finished scan."""
    if (known := store.find([name])) is None:
        raise FileNotFoundError(f"{store.path} lacks {name}.safetensors: scan again")
    return known[0]


def _read_examples(path: Path, remedy: str) -> dict[str, tuple[StampedImages, StampedImages]]:
    """The images of a stranger's file, with what was predicted for them."""
    with files.reading(path, "has no examples", remedy), safe_open(path, "pt") as file:
        words = files.parse_json((file.metadata() or {})["examples"])
        read = dict[str, StampedImages]()
        for name, packed in words.items():
            images = file.get_tensor(name)
            predicted: dict[str, Any] = {each: tuple(packed[each]) for each in PREDICTED}
            predicted["probabilities"] = tuple(map(_share, predicted["probabilities"]))
            if {len(images), *map(len, predicted.values())} != {len(images)} or not all(
                map(is_whole, predicted["predicted"])
            ):
                raise ValueError(f"it has other predictions than images for {name}")
            read[name] = StampedImages(images, **predicted)
        kinds = dict.fromkeys(name.partition("/")[0] for name in words)
        return {kind: (read[f"{kind}/before"], read[f"{kind}/after"]) for kind in kinds}
