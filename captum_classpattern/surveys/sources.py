"""The models of a sweep: where each comes from, by what name, and in which folder it is written."""

import csv
import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TextIO, TypeAlias

from torch import nn

from captum_classpattern._validation import ArgumentTypeError
from captum_classpattern.adapters import check_arch_from_file, load_model
from captum_classpattern.adapters.load import check_folders, is_pretrained, model_name, split_name
from captum_classpattern.classifier import Classifier
from captum_classpattern.classifier.class_names import file_safe
from captum_classpattern.classifier.fingerprints import hash_of_model

AnyPath: TypeAlias = "str | os.PathLike[str]"
Models: TypeAlias = "Mapping[str, Any] | AnyPath | Sequence[AnyPath]"

CHECKPOINTS = (".pt", ".pth", ".safetensors", ".ckpt", ".bin", ".tar")
LOADING = (  # of load_model, and allowed in a manifest
    *("arch", "num_classes", "mean", "std", "format", "output", "class_names"),
)
COLUMNS = (  # of Sweep.table, before those of the manifest and the error
    *("model", "class", "class_name", "canvas", "area", "power", "power_low", "power_high"),
    *("images", "no_pattern", "top5", "mean_margin", "random_pixels", "other_canvas"),
    *("beats_controls", "search_power"),
)
FIRST_LOOK, FAILED = "first_look", "failed"  # folders that no model can have


@dataclass(frozen=True)
class ModelSource:
    """One model of a sweep, by the name that tables call it.

    It has the ``path`` of a checkpoint (or ``"torchvision:NAME"`` and the like), and ``options`` of
    :func:`load_model`; or ``fetch`` returns a model that was given as it is. ``columns`` is what
    else is known of it, for the tables. One that was read from a ``file`` has the ``hash`` of such
    a model.
    """

    name: str
    path: str | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    columns: Mapping[str, Any] = field(default_factory=dict)
    fetch: Callable[[], Classifier] | None = None
    folder: str = ""  # by default, after its name
    hash: str | None = None
    file: Path | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "folder", self.folder or file_safe(self.name))
        if self.path is not None and not is_pretrained(self.path):  # for any working folder
            object.__setattr__(self, "path", os.path.abspath(self.path))

    def open(self, device: str | None = None) -> Classifier:
        """The classifier, on a device; a plain function stays where it is."""
        if self.fetch is not None:
            model = self.fetch()
        elif self.path is None:
            raise ValueError(
                f"the model {self.name!r} was given as it is, and is not in the folder: pass it, "
                f"as in models={{{self.name!r}: ...}}"
            )
        else:
            if self.file is not None and "arch" in self.options:
                check_arch_from_file(self.options["arch"], self.file)
            model = load_model(self.path, **self.options)
        if device is not None and isinstance(model, nn.Module):
            model = model.to(device)
        return model

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for sweep.json. Whether pickle is trusted is not written: a file must not
        decide that."""
        if self.path is None:
            opened_by = {"hash": hash_of_model(self.fetch()) if self.fetch else self.hash}
        else:
            options = {k: v for k, v in self.options.items() if k in LOADING and v is not None}
            opened_by = {"path": self.path, **options}
        return {"name": self.name, "folder": self.folder, **opened_by, **self.columns}

    @classmethod
    def from_dict(cls, row: Any, file: Path) -> "ModelSource":
        """The source that :meth:`as_dict` wrote into a file, which may be damaged, or come from a
        stranger: its folder becomes a part of paths."""
        known = dict(row) if isinstance(row, dict) else {}
        name, folder, path = (known.pop(key, None) for key in ("name", "folder", "path"))
        if not all(isinstance(text, str) for text in (name, folder, "" if path is None else path)):
            raise ValueError(f"each model in {file} needs a name and a folder, got {row!r:.200}")
        if folder != file_safe(folder) or folder.startswith(".") or not folder:
            raise ValueError(
                f"{file} names the folder {folder!r:.200}, which is not the name of a folder next "
                "to it"
            )
        digest = known.pop("hash", None)
        given = {key: known.pop(key) for key in LOADING if key in known}
        options = {key: value for key, value in given.items() if value is not None}
        return cls(name, path, options, known, None, folder, digest, file)


def read_models(models: Models, options: Mapping[str, Any] | None = None) -> list[ModelSource]:
    """The models that a user lists, see :func:`sweep`; ``options`` say how checkpoints are opened,
    where nothing else is said."""
    if isinstance(models, Mapping):
        sources = [_describe(str(name), given) for name, given in models.items()]
    else:
        given = [models] if isinstance(models, str | os.PathLike) else models
        sources = [each for one in given for each in _expand(os.fspath(one), options or {})]
    if not sources:
        raise ValueError("there are no models: give checkpoints, a manifest, or a dict of models")
    for source in sources:
        folder = source.folder.casefold()
        if folder in (FIRST_LOOK, FAILED, "") or folder.startswith("."):
            raise ValueError(f"a model can't be named {source.name!r}: give it another name")
    check_folders([source.name for source in sources])
    return sources


def _describe(name: str, given: Any) -> ModelSource:
    """The model of a dict's entry."""
    if isinstance(given, ModelSource):
        return given
    if isinstance(given, str | os.PathLike):
        return ModelSource(name, os.fspath(given))
    if isinstance(given, Mapping):
        row = {"name": name, **given}
        trusted = {key: row.pop(key) for key in ("trust_pickle",) if key in row}
        return _of_row(row, trusted, f"the model {name!r}", Path())
    if not callable(given):
        raise ArgumentTypeError(
            f"the model {name!r} must be a classifier, the path of a checkpoint, or a dict with "
            f"its path, got {type(given).__name__}"
        )
    return ModelSource(name, fetch=lambda: given)


def _expand(given: str, defaults: Mapping[str, Any]) -> Iterator[ModelSource]:
    """The models of an argument: a manifest, a folder, or one checkpoint."""
    path = Path(given)
    if path.suffix in (".csv", ".jsonl"):
        yield from read_manifest(path, defaults)
    elif path.is_dir():
        files = sorted(p for p in path.rglob("*") if p.suffix in CHECKPOINTS and p.is_file())
        if not files:
            raise ValueError(f"there are no checkpoints ({', '.join(CHECKPOINTS)}) in {given}")
        for file in files:
            name = file.relative_to(path).with_suffix("").as_posix()
            yield ModelSource(name, str(file), defaults)
    else:
        yield ModelSource(*split_name(given), defaults)


def read_manifest(file: AnyPath, options: Mapping[str, Any] | None = None) -> list[ModelSource]:
    """The models of a CSV file or of JSON Lines, see docs/many_models.md; ``options`` say how
    checkpoints are opened, where a cell is empty."""
    path = Path(file)
    if not path.exists():
        raise FileNotFoundError(f"there is no manifest {path}")
    with path.open(encoding="utf-8-sig", newline="") as lines:
        return [
            _of_row(row, dict(options or {}), f"{path}, line {line}", path.parent)
            for line, row in _rows(lines, path)
        ]


def _rows(lines: TextIO, path: Path) -> Iterator[tuple[int, dict[Any, Any]]]:
    """The rows of a manifest with the numbers of their lines."""
    if path.suffix == ".csv":
        reader = csv.DictReader(lines, skipinitialspace=True)
        for row in reader:
            if None in row or None in row.values():
                raise ValueError(
                    f"{path}, line {reader.line_num}: it has other columns than the header "
                    f"({', '.join(reader.fieldnames or ())}); put cells with commas in quotes"
                )
            yield reader.line_num, row
        return
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            known = json.loads(line)
        except ValueError as error:
            raise ValueError(f"{path}, line {number}: it is not JSON ({error})") from error
        if not isinstance(known, dict):
            raise ValueError(
                f"{path}, line {number}: it must be an object such as "
                f'{{"path": "a.pt"}}, got {line.strip():.80}'
            )
        yield number, known


def _of_row(
    row: Mapping[str, Any], defaults: Mapping[str, Any], where: str, folder: Path
) -> ModelSource:
    """The model of a manifest's row; ``where`` says which row it is."""
    row = {str(key).strip(): value for key, value in row.items()}
    if "" in row:
        raise ValueError(f"{where}: a column has no name: give each a name in the header")
    cells = {key: value for key, value in row.items() if value is not None and value != ""}
    if "trust_pickle" in cells:
        raise ValueError(
            f"{where}: a manifest can't say that pickle is trusted: leave it out, and pass "
            "`trust_pickle`"
        )
    path = cells.pop("path", None)
    if not isinstance(path, str | os.PathLike):
        raise ValueError(f"{where}: it has no path: give a checkpoint in the column path")
    checkpoint = os.fspath(path)
    name = str(cells.pop("name", "")) or model_name(checkpoint)
    if not is_pretrained(checkpoint):
        checkpoint = str(folder / checkpoint)
    given = {key: _option(key, cells.pop(key), where) for key in LOADING if key in cells}
    if taken := sorted(cells.keys() & {*COLUMNS, "error", "folder", "hash"}):
        raise ValueError(f"{where}: the column {taken[0]!r} has the name of one of the tables'")
    columns = cells | {key: None for key in row if key not in {*cells, "path", "name", *LOADING}}
    return ModelSource(name, checkpoint, {**defaults, **given}, columns)


def _option(key: str, value: Any, where: str) -> Any:
    """An option of a checkpoint from a cell's text, or from JSON."""
    try:
        if key in ("mean", "std") and isinstance(value, str):
            numbers = [float(part) for part in value.replace(",", " ").split()]
            return numbers[0] if len(numbers) == 1 else numbers
        if key == "num_classes":
            return int(value)
        if key == "output" and isinstance(value, str):
            return int(value) if value.lstrip("-").isdigit() else value
        if key == "class_names" and not isinstance(value, list):
            raise ValueError("it must be a list of names, in a manifest of JSON Lines")
    except ValueError as error:
        raise ValueError(f"{where}: {key} is {value!r}: {error}") from error
    return value
