"""All that was found for a class as one safetensors file: the patterns of all areas and kinds of
canvas, the images that they are shown on, and the scores."""

import weakref
from collections import UserDict
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from numbers import Real
from pathlib import Path
from typing import Any

from safetensors import safe_open
from safetensors.torch import save
from torch import Tensor

from captum_classpattern._support import files
from captum_classpattern._support.validation import is_whole
from captum_classpattern.optimization.canvases import PATCH
from captum_classpattern.pattern import Pattern
from captum_classpattern.scores.examples import StampedImages
from captum_classpattern.scores.power import Scores
from captum_classpattern.surveys.findings import Finding

FORMAT = "captum_classpattern.Finding"
WORDS = ("settings", "rows", "examples")  # metadata that is read at once
PREDICTED = ("labels", "predicted", "names", "probabilities")  # of images with a pattern
AGAIN = "remove it and search its class again, or choose another folder"


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
        findings = [
            _finding_of(row, path, words["examples"].get(row["canvas"], ()))
            for row in words["rows"]
        ]
        if not findings or any(f"{each.target}" != path.stem for each in findings):
            raise ValueError("it has no findings of this class")
    return words["settings"] or {}, findings


def _finding_of(row: Mapping[str, Any], path: Path, with_examples: Iterable[str]) -> Finding:
    """The finding of a row, with examples at these areas, or an error of some kind."""
    files.check_kinds(row, class_name=str, areas=dict)
    target, canvas = row["class"], row["canvas"]
    if not is_whole(target) or not 0 <= target < 2**31 or not isinstance(canvas, str):
        raise ValueError(f"it has a class {target!r} with the canvas {canvas!r}")
    if not row["areas"]:
        raise ValueError("it has no areas")
    for area, values in row["areas"].items():
        if not 0 < float(area) < 1 or not 0 <= values["search_power"] <= 1:
            raise ValueError(f"it has an area {area!r} without its search power")
    scores = {
        float(area): Scores.from_dict(values, moving=canvas == PATCH)
        for area, values in row["areas"].items()
    }
    file = path.absolute(), canvas
    patterns = Saved(scores, partial(_read_pattern, *file))
    examples = Saved(map(float, with_examples), partial(_read_examples, *file, patterns))
    return Finding(patterns, canvas, scores, row["class_name"], stamped=examples or None, row=row)


def _read_pattern(path: Path, canvas: str, area: float) -> Pattern:
    """A pattern of a file that :func:`pack_findings` made."""
    if not path.is_file():
        raise FileNotFoundError(f"{path} is gone, which held the pattern")
    with files.reading(path, "has no findings", AGAIN), safe_open(path, "pt") as file:
        key = f"{canvas}/{area}"
        metadata = files.parse_json(file.metadata()["patterns"])[key]
        names = [name for name in file.keys() if name.startswith(f"{key}/")]  # noqa: SIM118
        tensors = {name.removeprefix(f"{key}/"): file.get_tensor(name) for name in names}
        return Pattern.unpacked(tensors, metadata)


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
