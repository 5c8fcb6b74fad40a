"""The folder in which a survey, a sweep or a scan keeps what is finished. Each file appears whole
or not at all, so that a search can continue, and many processes can write into one folder."""

import weakref
from collections import UserDict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from numbers import Real
from pathlib import Path
from typing import Any

from safetensors import safe_open
from safetensors.torch import save

from captum_classpattern._support import files
from captum_classpattern._support.validation import Notice, is_whole
from captum_classpattern.classifier import difference, warn
from captum_classpattern.classifier.class_names import as_file_name
from captum_classpattern.optimization.canvases import PATCH
from captum_classpattern.pattern import Pattern
from captum_classpattern.scores.examples import StampedImages
from captum_classpattern.scores.power import Scores
from captum_classpattern.surveys.findings import Finding

RESULTS = "results.json"
REMEDY = "remove it, or choose another folder"
OUR_VERSION = "captum_classpattern"  # the setting that has it
MODEL = "model"  # the setting that says which model it is
OF_0_4 = {"predictions", "outputs", "threads"}  # settings of its folders
PREDICTED = ("labels", "predicted", "names", "probabilities")  # of images with a pattern


@dataclass
class Folder:
    """Files of JSON, each with the ``settings`` that it depends on. Those that are read must have
    been written with the same settings, unless these are None.

    Args:
        path (Path): The folder. It is made when the first file is written.
        settings (Mapping, optional): All that the files depend on. Default: None (any).
        kind (str): What error messages call the search. Default: "search".
        any_version (bool): Whether another version of the package is a notice, not an error.
            Default: True.
        format (str, optional): What each file says, if others could be taken for it. Default: None.
    """

    path: Path
    settings: Mapping[str, Any] | None = None
    kind: str = "search"
    any_version: bool = True
    format: str | None = None

    def read(self, name: str) -> dict[str, Any]:
        """What a file holds; nothing if there is none."""
        path = self.path / name
        if not path.is_file():
            return {}
        with files.reading(path, f"is not from a {self.kind}", REMEDY):
            data = files.parse_json(files.read_text(path))
        values = data if isinstance(data, dict) else {}
        settings = values.get("settings", ())
        if not isinstance(settings, dict | None) or values.get("format") != self.format:
            raise ValueError(f"{path} is not from a {self.kind}: choose another folder")
        if self.settings is not None:
            self._check_same(settings or {}, path)
        return values

    def write(self, name: str, data: Mapping[str, Any]) -> None:
        """Writes a file, in place of one that is there."""
        path = self.path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        format = {"format": self.format} if self.format else {}
        files.write_json({**format, "settings": self.settings, **data}, path)

    def _check_same(self, theirs: Mapping[str, Any], path: Path) -> None:
        """Raises an error unless a file has our settings."""
        ours = files.parse_json(files.to_json(self.settings))
        models = theirs.get(MODEL), ours.get(MODEL)
        if OF_0_4 & theirs.keys():
            raise ValueError(
                f"{path} is of version {theirs.get(OUR_VERSION)}, which did not write down what "
                "tells one model from another: choose another folder"
            )
        both = {key: (theirs.get(key), ours.get(key)) for key in {**ours, **theirs}}
        differing = {k: pair for k, pair in both.items() if k != MODEL and pair[0] != pair[1]}
        if differing.keys() - ({OUR_VERSION} if self.any_version else set()):
            listed = "; ".join(f"{k} {a} then, {b} now" for k, (a, b) in differing.items())
            raise ValueError(
                f"{path} is of another {self.kind} ({listed:.500}): pass the same settings and "
                "files, or choose another folder"
            )
        with files.reading(path, f"is not from a {self.kind}", REMEDY):
            other = difference(*models) if MODEL in ours else ""
        if other:
            raise ValueError(
                f"{path} is of another model ({other} differ): pass the same model, with the same "
                "settings of its own, or choose another folder"
            )
        if differing:
            version = theirs.get(OUR_VERSION)
            warn(f"what the folder holds was found by version {version} of {OUR_VERSION}", Notice)


@dataclass
class SurveyFolder(Folder):
    """The findings in a survey's folder.

    ``findings/<class>.json`` holds the scores of a class, ``patterns/`` its patterns, ``examples/``
    the images that they are shown on, and ``results.json`` a summary of all.
    """

    _by_class: dict[int, list[Finding]] = field(default_factory=dict, init=False)
    _files: set[Path] = field(default_factory=set, init=False)  # that were read, or written here

    def findings(self) -> list[Finding]:
        """All findings in the folder, class by class, on each kind of canvas; an error if any file
        has other settings."""
        self.summary()
        return self._all()

    def _all(self) -> list[Finding]:
        self._read_new()
        return [finding for target in sorted(self._by_class) for finding in self._by_class[target]]

    def add(self, findings: Sequence[Finding]) -> None:
        """Writes all findings of one class."""
        folder, target = self.path / "patterns", findings[0].target
        folder.mkdir(parents=True, exist_ok=True)
        for finding in findings:
            for area, pattern in finding.patterns.items():
                path = pattern_file(folder, target, finding.canvas, area, finding.class_name)
                pattern.save(path)
            save_examples(finding, examples_file(folder, target, finding.canvas))
        rows = [finding.as_dict() for finding in findings]
        self.write(f"findings/{target}.json", {"rows": rows})
        self._by_class[target] = [read_finding(row, folder) for row in rows]
        self._files.add(self.path / f"findings/{target}.json")

    def write_summary(self, info: Mapping[str, Any]) -> None:
        """Writes results.json, with the classes that other processes search or have added. It is
        complete when all of these are there."""
        classes = set(info["classes"])
        while True:
            classes.update(self.summary().get("classes", ()))
            rows = [finding.as_dict() for finding in self._all()]
            complete = classes <= self._by_class.keys()
            summary = {**info, "complete": complete, "classes": sorted(classes), "rows": rows}
            self.write(RESULTS, summary)
            if not self._read_new():  # else the summary of another process may be lost
                return

    def summary(self) -> dict[str, Any]:
        """What results.json holds, or nothing."""
        values = self.read(RESULTS)
        with files.reading(self.path / RESULTS, "is not from a survey", REMEDY):
            files.check_kinds(values, n_classes=int, provenance=dict, accuracy=Real)
            if "classes" in values:
                values["classes"] = [*map(int, values["classes"])]
        return values

    def _read_new(self) -> bool:
        """Reads the classes that were added since the last call; False if there are none."""
        new = set(self.path.glob("findings/*.json")) - self._files
        for path in new:
            self._read_class(path)
        self._files |= new
        return bool(new)

    def _read_class(self, path: Path) -> None:
        """Takes over the class of a file."""
        data = self.read(f"findings/{path.name}")
        again = "remove it and search its classes again, or choose another folder"
        with files.reading(path, "has no findings", again):
            findings = [read_finding(row, self.path / "patterns") for row in data["rows"]]
        if findings:
            self._by_class[findings[0].target] = findings


def pattern_file(folder: Path, target: int, canvas: str, area: float, name: str | None) -> Path:
    """The file of a pattern, such as ``1_guinea_pig_white_0.05.safetensors``."""
    label = f"{target}" if name is None else f"{target}_{as_file_name(name)}"
    return folder / f"{label}_{canvas}_{area:g}.safetensors"


def read_finding(row: Mapping[str, Any], folder: Path) -> Finding:
    """The finding of a row, or an error of some kind. Its patterns are read from the folder when
    they are used."""
    files.check_kinds(row, class_name=str, areas=dict)
    target, canvas, name = row["class"], row["canvas"], row["class_name"]
    plain = isinstance(canvas, str) and Path(canvas).name == canvas  # a part of names of files
    if not is_whole(target) or not 0 <= target < 2**31 or not plain or not row["areas"]:
        raise ValueError(f"it has a class {target!r} with the canvas {canvas!r}")
    moving, areas = canvas == PATCH, row["areas"].items()
    scores = {float(area): Scores.from_dict(values, moving=moving) for area, values in areas}
    for area, values in row["areas"].items():
        if not 0 < float(area) < 1 or not 0 <= values["search_power"] <= 1:
            raise ValueError(f"it has an area {area!r} without its search power")
    file = partial(pattern_file, folder.absolute(), target, canvas, name=name)
    patterns = Saved(scores, lambda area: Pattern.load(file(area)))
    path = examples_file(folder.absolute(), target, canvas)
    stamped = Saved(scores, partial(load_examples, path, patterns)) if path.exists() else None
    return Finding(patterns, canvas, scores, name, stamped=stamped, row=row)


class Saved(UserDict[float, Any]):
    """What a row has for each area, read when it is used, and kept as long as it is used: the
    patterns of many classes may be large."""

    def __init__(self, areas: Iterable[float], read: Callable[[float], Any]) -> None:
        super().__init__(dict.fromkeys(areas))
        self._read = read

    def __getitem__(self, area: float) -> Any:
        last = self.data[area]  # a weak reference
        value = last and last()
        if value is None:
            value = self._read(area)
            self.data[area] = weakref.ref(value)
        return value

    def __reduce__(self) -> tuple[Any, ...]:
        """A copy for another process or file has the values themselves."""
        return dict, (dict(self),)


# ---- the images that patterns are shown on, next to the folder of patterns


def examples_file(folder: Path, target: int, canvas: str) -> Path:
    """The file of the images of a class and a kind of canvas."""
    return folder.parent / "examples" / f"{target}_{canvas}.safetensors"


def save_examples(finding: Finding, path: Path) -> None:
    """Writes the images without a pattern, and what is predicted with the pattern of each area."""
    by_area = finding.stamped or {}
    images = next((stamped.unstamped for stamped in by_area.values()), None)
    if images is not None:
        words = {a: {name: getattr(by_area[a], name) for name in PREDICTED} for a in by_area}
        levels = (255 * images.float()).round().byte().contiguous()
        path.parent.mkdir(exist_ok=True)
        files.write_atomically(path, save({"images": levels}, {"areas": files.to_json(words)}))


def load_examples(path: Path, patterns: Mapping[float, Pattern], area: float) -> StampedImages:
    """The images that :func:`save_examples` wrote, with the pattern of an area."""
    with files.reading(path, "has no images with predictions", "remove it, which leaves them out"):
        with safe_open(path, "pt") as file:
            images = file.get_tensor("images") / 255
            words = files.parse_json(file.metadata()["areas"])
        predicted = {name: tuple(words[str(area)][name]) for name in PREDICTED}
        stamped = patterns[area].topk(area).stamp(images)
        for kind, values in zip((str, int, str, Real), predicted.values()):
            if len(values) != len(images) or not all(isinstance(each, kind) for each in values):
                raise ValueError(f"it has {values!r:.80} for {len(images)} images")
    return StampedImages(stamped, unstamped=images, **predicted)
