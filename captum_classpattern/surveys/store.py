"""The folder of a survey. Each class is one file, which appears whole or not at all, so that a
search can continue, and many processes can write into one folder."""

import json
from collections import UserDict
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from captum_classpattern._files import write_atomically, write_json
from captum_classpattern._validation import Notice, is_whole
from captum_classpattern.classifier import warn
from captum_classpattern.classifier.class_names import as_file_name
from captum_classpattern.pattern import Pattern
from captum_classpattern.scores.examples import StampedImages
from captum_classpattern.scores.power import Scores
from captum_classpattern.surveys.findings import Finding

RESULTS = "results.json"
SWEEP_FORMAT = "captum_classpattern sweep"
VERSION = "captum_classpattern"  # the one setting that may differ on resume


class Store:
    """The findings in a folder, by class (``found``).

    ``findings/<class>.json`` holds the scores of a class, ``patterns/`` its patterns, ``examples/``
    the images that they are shown on, and ``results.json`` a summary of all. What is in the folder
    must have been found with the same ``settings``, unless these are None.
    """

    def __init__(self, folder: Path, settings: Mapping[str, Any] | None = None) -> None:
        self.folder, self.settings = folder, settings
        self.found: dict[int, list[Finding]] = {}
        self._files: set[Path] = set()  # those that were read, or written here
        summary = folder / RESULTS
        self.summary = self._checked(summary) if summary.exists() else {}
        self.read_new()
        if self.summary.get("rows") and not self._files:
            raise ValueError(
                f"{summary} has scores, but the files in {folder / 'findings'} are missing, as in "
                "version 0.1: search again, into another folder"
            )

    def read_new(self) -> bool:
        """Reads the classes that were added since the last call; False if there are none."""
        new = set(self.folder.glob("findings/*.json")) - self._files
        for path in new:
            self._read(path)
        self._files |= new
        return bool(new)

    def findings(self) -> list[Finding]:
        """All findings in the folder, class by class, on each kind of canvas."""
        return [finding for target in sorted(self.found) for finding in self.found[target]]

    def add(self, findings: Sequence[Finding]) -> None:
        """Writes all findings of one class."""
        folder, target = self.folder / "patterns", findings[0].target
        folder.mkdir(parents=True, exist_ok=True)
        for finding in findings:
            for area, pattern in finding.patterns.items():
                path = pattern_file(folder, target, finding.canvas, area, finding.class_name)
                pattern.save(path)
            save_examples(finding, examples_file(folder, target, finding.canvas))
        rows = [finding.as_dict() for finding in findings]
        path = findings_file(self.folder, target)
        path.parent.mkdir(exist_ok=True)
        write_json({"settings": self.settings, "rows": rows}, path)
        self.found[target] = [read_finding(row, folder) for row in rows]
        self._files.add(path)

    def write_summary(self, info: Mapping[str, Any]) -> None:
        """Writes results.json, with the classes that other processes search or have added. It is
        complete when all of these are there."""
        self.folder.mkdir(parents=True, exist_ok=True)
        self.read_new()
        path, classes = self.folder / RESULTS, set(info["classes"])
        while True:
            if path.exists():
                classes.update(json.loads(path.read_text()).get("classes", ()))
            summary = {"complete": classes <= self.found.keys(), **info, "classes": sorted(classes)}
            write_json({**summary, "rows": [each.as_dict() for each in self.findings()]}, path)
            if not self.read_new():  # else the summary of another process may be lost
                return

    def _checked(self, path: Path) -> dict[str, Any]:
        """What is in a file, which must be of the same search."""
        data = read_json(path, "survey")
        if self.settings is not None:
            check_same(data["settings"], self.settings, path, "search")
        return data

    def _read(self, path: Path) -> None:
        """Takes over the class of a file, if all kinds of canvas are there."""
        data = self._checked(path)
        try:
            findings = [read_finding(row, self.folder / "patterns") for row in data["rows"]]
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise ValueError(
                f"{path} is damaged ({type(error).__name__}: {error}): remove it and search its "
                "classes again, or choose another folder"
            ) from error
        if findings and len(findings) == len(data["settings"].get("canvases", findings)):
            self.found[findings[0].target] = findings


def read_json(path: Path, kind: str) -> dict[str, Any]:
    """The file that describes a survey or a sweep."""
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is damaged ({error}): choose another folder") from error
    known = data if isinstance(data, dict) else {}
    is_sweep = known.get("format") == SWEEP_FORMAT
    if not (is_sweep if kind == "sweep" else "settings" in known):
        raise ValueError(f"{path} is not from a {kind}: choose another folder")
    return known


def check_same(found: Mapping[str, Any], ours: Mapping[str, Any], path: Path, kind: str) -> None:
    """Raises an error unless a file was made with our settings. Another version is a notice."""
    ours = json.loads(json.dumps(ours))
    differing = [key for key in {**ours, **found} if found.get(key) != ours.get(key)]
    if differing == [VERSION]:
        version = found.get(VERSION)
        warn(f"classes in the folder were searched by version {version} of {VERSION}", Notice)
    elif differing:
        listed = "; ".join(f"{k} {found.get(k)} then, {ours.get(k)} now" for k in differing)
        raise ValueError(
            f"{path} is of another {kind} ({listed:.500}): pass the same settings and files, or "
            "choose another folder"
        )


def findings_file(folder: Path, target: int) -> Path:
    """The file of a finished class."""
    return folder / "findings" / f"{target}.json"


def pattern_file(folder: Path, target: int, canvas: str, area: float, name: str | None) -> Path:
    """The file of a pattern, such as ``1_guinea_pig_white_0.05.safetensors``."""
    label = f"{target}" if name is None else f"{target}_{as_file_name(name)}"
    return folder / f"{label}_{canvas}_{area:g}.safetensors"


def read_finding(row: Mapping[str, Any], folder: Path) -> Finding:
    """The finding of a row, or an error of some kind. Its patterns are read from the folder when
    they are used."""
    target, canvas, name = row["class"], row["canvas"], row["class_name"]
    plain = isinstance(canvas, str) and Path(canvas).name == canvas  # a part of names of files
    if not is_whole(target) or not plain or not row["areas"]:
        raise ValueError(f"it has a class {target!r} with the canvas {canvas!r}")
    scores = {float(area): Scores.from_dict(values) for area, values in row["areas"].items()}
    for area, values in row["areas"].items():
        if not 0 < float(area) < 1 or "search_power" not in values:
            raise ValueError(f"it has an area {area!r} without its search power")
    file = partial(pattern_file, folder.absolute(), target, canvas, name=name)
    patterns = Saved(scores, lambda area: Pattern.load(file(area)))
    path = examples_file(folder.absolute(), target, canvas)
    stamped = Saved(scores, partial(load_examples, path, patterns)) if path.exists() else None
    return Finding(patterns, canvas, scores, name, stamped=stamped, row=row)


class Saved(UserDict[float, Any]):
    """What a row has for each area, read when it is first used. Until then it is None."""

    def __init__(self, areas: Iterable[float], read: Callable[[float], Any]) -> None:
        super().__init__(dict.fromkeys(areas))
        self._read = read

    def __getitem__(self, area: float) -> Any:
        if self.data[area] is None:
            self.data[area] = self._read(area)
        return self.data[area]

    def __reduce__(self) -> tuple[Any, ...]:
        """A copy for another process or file has the values themselves."""
        return dict, (dict(self),)


# ---- the images that patterns are shown on, next to the folder of patterns

WORDS = ("labels", "predicted", "names", "probabilities")


def examples_file(folder: Path, target: int, canvas: str) -> Path:
    """The file of the images of a class and a kind of canvas."""
    return folder.parent / "examples" / f"{target}_{canvas}.safetensors"


def save_examples(finding: Finding, path: Path) -> None:
    """Writes the images without a pattern, and what is predicted with the pattern of each area."""
    known = finding.stamped or {}
    images = next((stamped.unstamped for stamped in known.values()), None)
    if images is not None:
        words = {area: {name: getattr(known[area], name) for name in WORDS} for area in known}
        levels = (255 * images.float()).round().byte().contiguous()
        path.parent.mkdir(exist_ok=True)
        write_atomically(path, save({"images": levels}, {"areas": json.dumps(words)}))


def load_examples(path: Path, patterns: Mapping[float, Pattern], area: float) -> StampedImages:
    """The images that :func:`save_examples` wrote, with the pattern of an area."""
    try:
        with safe_open(path, "pt") as file:
            images, words = file.get_tensor("images") / 255, json.loads(file.metadata()["areas"])
        known = {name: tuple(words[str(area)][name]) for name in WORDS}
        stamped = patterns[area].topk(area).stamp(images)
    except (SafetensorError, KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path} is damaged: remove it, which leaves out its images") from error
    return StampedImages(stamped, unstamped=images, **known)
