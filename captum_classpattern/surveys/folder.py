"""The folder in which a survey, a sweep or a scan keeps what is finished. Each file appears whole
or not at all, so that a search can continue, and many processes can write into one folder.

All that was found for a class is one safetensors file: the patterns of all areas and kinds of
canvas, the images that they are shown on, and the scores."""

import weakref
from collections import UserDict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from numbers import Real
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from safetensors import safe_open
from safetensors.torch import save
from torch import Tensor

from captum_classpattern._support import files
from captum_classpattern._support.validation import Notice, is_whole
from captum_classpattern.classifier import difference, warn
from captum_classpattern.optimization.canvases import PATCH
from captum_classpattern.pattern import Pattern
from captum_classpattern.scores.examples import StampedImages
from captum_classpattern.scores.power import Scores
from captum_classpattern.surveys.findings import Finding

RESULTS = "results.json"
FINDING = "findings/{}.safetensors"  # of a class
FORMAT = "captum_classpattern.Finding"
WORDS = ("settings", "rows", "examples")  # metadata that is read at once
PREDICTED = ("labels", "predicted", "names", "probabilities")  # of images with a pattern
REMEDY = "remove it, or choose another folder"
AGAIN = "remove it and search its class again, or choose another folder"
OUR_VERSION = "captum_classpattern"  # the setting that has it
MODEL = "model"  # the setting that says which model it is


@dataclass
class Folder:
    """JSON files, each with the ``settings`` that it depends on. Those that are read must have been
    written with the same settings, unless these are None.

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
        self.check_same(settings or {}, path)
        return values

    def write(self, name: str, data: Mapping[str, Any]) -> None:
        """Writes a file, in place of one that is there."""
        path = self.path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        format = {"format": self.format} if self.format else {}
        files.write_json({**format, "settings": self.settings, **data}, path)

    def check_same(self, theirs: Mapping[str, Any], path: Path) -> None:
        """Raises an error unless a file has our settings, if we have any."""
        if self.settings is None:
            return
        ours = files.parse_json(files.to_json(self.settings))
        models = theirs.get(MODEL), ours.get(MODEL)
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

    ``findings/<class>.safetensors`` holds all that was found for a class, and ``results.json`` a
    summary of all.
    """

    _by_class: dict[int, list[Finding]] = field(default_factory=dict, init=False)

    def contents(self) -> tuple[dict[str, Any], list[Finding]]:
        """The summary, if there is one, and all findings, class by class, on each kind of canvas;
        an error if any file has other settings."""
        summary = self.summary()
        self._read_new()
        return summary, self._all()

    def _all(self) -> list[Finding]:
        return [finding for target in sorted(self._by_class) for finding in self._by_class[target]]

    def add(self, findings: Sequence[Finding]) -> None:
        """Writes all findings of one class."""
        path = self.path / FINDING.format(findings[0].target)
        path.parent.mkdir(parents=True, exist_ok=True)
        files.write_atomically(path, pack_findings(findings, self.settings))
        self._by_class.pop(findings[0].target, None)  # it is to be read again

    def write_summary(self, info: Mapping[str, Any]) -> None:
        """Writes results.json, with the classes that other processes search or have added. It is
        complete when all of these are there."""
        classes = set(info["classes"])
        self._read_new()
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
        known = {self.path / FINDING.format(target) for target in self._by_class}
        new = {*self.path.glob(FINDING.format("*"))} - known
        for path in new:
            settings, findings = read_findings(path)
            self.check_same(settings, path)
            self._by_class[findings[0].target] = findings
        return bool(new)


def locked(folder: Path) -> Any:
    """The lock of a folder, which is made. The operating system lifts it when the process ends,
    however it ends."""
    folder.mkdir(parents=True, exist_ok=True)
    try:
        return FileLock(folder / ".lock", timeout=0).acquire()
    except Timeout:
        raise ValueError(f"another call is writing into {folder}: wait for it or stop it") from None


def pack_findings(findings: Sequence[Finding], settings: Mapping[str, Any] | None) -> bytes:
    """The findings of a class as safetensors: all tensors of the patterns, and the images that they
    are shown on; the rows of the findings, and what is predicted for the images, as JSON."""
    tensors, patterns, examples = dict[str, Tensor](), dict[str, Any](), dict[str, Any]()
    for finding in findings:
        for area, pattern in finding.patterns.items():
            key = f"{finding.canvas}/{area}"
            own, patterns[key] = pattern.packed()
            tensors |= {f"{key}/{name}": tensor for name, tensor in own.items()}
        for area, stamped in (finding.stamped or {}).items():
            if stamped.unstamped is not None:  # the same images for each area
                levels = (255 * stamped.unstamped.float()).round().byte().contiguous()
                tensors[f"{finding.canvas}/images"] = levels
                predicted = {name: getattr(stamped, name) for name in PREDICTED}
                examples.setdefault(finding.canvas, {})[str(area)] = predicted
    rows = [finding.as_dict() for finding in findings]
    parts = {"settings": settings, "rows": rows, "patterns": patterns, "examples": examples}
    words = {name: files.to_json(part) for name, part in parts.items()}
    return save(tensors, {"format": FORMAT, **words})


def read_findings(path: Path) -> tuple[dict[str, Any], list[Finding]]:
    """The settings and the findings of a file that :func:`pack_findings` made. Patterns are read
    from it when they are used."""
    with files.reading(path, "has no findings", AGAIN), safe_open(path, "pt") as file:
        metadata = file.metadata() or {}
        if metadata.get("format") != FORMAT:
            raise ValueError(f"its metadata has format {metadata.get('format')!r}")
        words = {name: files.parse_json(metadata[name]) for name in WORDS}
        files.check_kinds(words, settings=dict, examples=dict)
        findings = []
        for row in words["rows"]:
            files.check_kinds(row, class_name=str, areas=dict)
            target, canvas = row["class"], row["canvas"]
            if not is_whole(target) or not 0 <= target < 2**31 or not isinstance(canvas, str):
                raise ValueError(f"it has a class {target!r} with the canvas {canvas!r}")
            scores = dict[float, Scores]()
            for area, values in row["areas"].items():
                if not 0 < float(area) < 1 or not 0 <= values["search_power"] <= 1:
                    raise ValueError(f"it has an area {area!r} without its search power")
                scores[float(area)] = Scores.from_dict(values, moving=canvas == PATCH)
            if not scores:
                raise ValueError("it has no areas")
            place = path.absolute(), canvas
            patterns = Saved(scores, partial(_read_pattern, *place), row)
            shown = {*map(float, words["examples"].get(canvas, ()))}
            if shown and shown != {*scores}:
                raise ValueError(f"it has examples of the areas {sorted(shown)}")
            examples = Saved(shown, partial(_read_examples, *place, patterns)) or None
            name = row["class_name"]
            findings.append(Finding(patterns, canvas, scores, name, stamped=examples))
        if not findings or any(f"{each.target}" != path.stem for each in findings):
            raise ValueError("it has no findings of this class")
    return words["settings"] or {}, findings


def _read_pattern(path: Path, canvas: str, area: float) -> Pattern:
    """A pattern of a file that :func:`pack_findings` made."""
    if not path.is_file():
        raise FileNotFoundError(f"{path} is gone, which held the pattern")
    with files.reading(path, "has no findings", AGAIN), safe_open(path, "pt") as file:
        key = f"{canvas}/{area}"
        metadata = files.parse_json(file.metadata()["patterns"])[key]
        names = [name for name in file.keys() if name.startswith(f"{key}/")]  # noqa: SIM118
        tensors = {name.removeprefix(f"{key}/"): file.get_tensor(name) for name in names}
        pattern = Pattern.unpacked(tensors, metadata)
        if f"{pattern.target}" != path.stem:
            raise ValueError(f"it has a pattern of class {pattern.target}")
        return pattern


def _read_examples(
    path: Path, canvas: str, patterns: Mapping[float, Pattern], area: float
) -> StampedImages:
    """The example images with the pattern of an area."""
    pattern = patterns[area]
    with files.reading(path, "has no examples", AGAIN), safe_open(path, "pt") as file:
        packed = files.parse_json(file.metadata()["examples"])[canvas][str(area)]
        images = file.get_tensor(f"{canvas}/images") / 255
        predicted = {name: tuple(packed[name]) for name in PREDICTED}
        for kind, values in zip((str, int, str, Real), predicted.values()):
            if len(values) != len(images) or not all(isinstance(each, kind) for each in values):
                raise ValueError(f"it has {values!r:.80} for {len(images)} images")
        stamped = pattern.topk(area).stamp(images)
        return StampedImages(stamped, unstamped=images, **predicted)


class Saved(UserDict[float, Any]):
    """What a row has for each area, read when it is used, and kept as long as it is used: the
    patterns of many classes may be large. The row of patterns says what they are."""

    def __init__(
        self, areas: Iterable[float], read: Callable[[float], Any], row: Any = None
    ) -> None:
        super().__init__(dict.fromkeys(areas))
        self._read, self.row = read, row

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
