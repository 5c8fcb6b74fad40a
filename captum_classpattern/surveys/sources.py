"""The models of a sweep: where each comes from, and by what name."""

import csv
import io
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

from torch import nn

from captum_classpattern._support.files import hash_of_file, parse_json, read_text, reading
from captum_classpattern._support.validation import ArgumentTypeError
from captum_classpattern.adapters import load_model
from captum_classpattern.adapters.load import check_folders, is_pretrained, model_name, split_name
from captum_classpattern.classifier.class_names import file_safe

Models: TypeAlias = "Mapping[str, Any] | str | os.PathLike[str] | Sequence[str | os.PathLike[str]]"

LOADING = ("arch", "num_classes", "mean", "std", "format", "output", "class_names")
SITE = "site"  # the folder of the command's site, which no model can have


@dataclass(frozen=True)
class ModelSource:
    """One model of a sweep by its name: a ``model`` that was given as it is, or the ``path`` of a
    checkpoint with ``options`` of :func:`load_model`."""

    name: str
    path: str | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    model: Any = None

    def open(self, device: str | None = None) -> Any:
        """The classifier, on its own device or else this one; a plain function stays where it is.
        With "cuda" for a model on "cuda:1", it is the first GPU: Ray numbers those of a task anew.
        """
        options = dict(self.options)
        own = options.pop("device", None) or device
        place = device if str(own).startswith(f"{device}:") else own
        model = load_model(self.path, **options) if self.path else self.model
        return model.to(place) if place and isinstance(model, nn.Module) else model

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for sweep.json. The hash is that of the file. Neither the device nor
        whether pickle is trusted is among them."""
        row: dict[str, Any] = {"name": self.name, "folder": folder_of(self.name)}
        if self.path is None:
            return row
        digest = None
        with suppress(OSError):  # of no file, or one that only its worker can read
            digest = hash_of_file(Path(self.path))[:16]
        given = {k: v for k, v in self.options.items() if k in LOADING and v is not None}
        row |= {"path": self.path, "hash": digest}
        for option, value in given.items():
            try:
                row[option] = parse_json(json.dumps(value, default=lambda array: array.tolist()))
            except (TypeError, AttributeError, ValueError):
                raise ArgumentTypeError(
                    f"`{option}` must be text or numbers in a sweep, got {value!r:.80}"
                ) from None
        return row


def folder_of(name: str) -> str:
    """The folder of a model's survey, next to sweep.json."""
    folder = file_safe(name)
    if not folder or folder.startswith(".") or folder.casefold() == SITE:
        raise ValueError(f"a model can't be named {name!r:.80}: give it another name")
    return folder


def read_models(models: Models, options: Mapping[str, Any] | None = None) -> list[ModelSource]:
    """The models that a user lists; ``options`` open checkpoints that have none of their own."""
    if isinstance(models, Mapping):
        sources = [_source_of(str(name), given, {}) for name, given in models.items()]
    else:
        sources, defaults = [], options or {}
        for one in [models] if isinstance(models, str | os.PathLike) else models:
            if (name := os.fspath(one)).endswith(".csv"):
                sources += _read_manifest(Path(name), defaults)
            elif name.endswith(".jsonl") or os.path.isdir(name):
                raise ValueError(f"give FOLDER/*.pt or a manifest in CSV, not {name!r:.80}")
            else:
                sources.append(_source_of(*split_name(name), defaults))
    if not sources:
        raise ValueError(
            f"there are no models in {models!r:.300}: give checkpoints, a manifest, or a dict"
        )
    check_folders([source.name for source in sources if folder_of(source.name)])
    return sources


def _source_of(name: str, given: Any, defaults: Mapping[str, Any]) -> ModelSource:
    """The model of a dict's entry, or of a manifest's row, whose other columns are left alone."""
    if isinstance(given, ModelSource):
        return given
    row = {"path": given} if isinstance(given, str | os.PathLike) else given
    if isinstance(row, Mapping) and isinstance(row.get("path"), str | os.PathLike):
        options = {key: row[key] for key in (*LOADING, "device", "trust_pickle") if key in row}
        path = os.fspath(row["path"])
        place = path if is_pretrained(path) else os.path.abspath(path)  # for any working folder
        return ModelSource(name, place, {**defaults, **options})
    if callable(given):
        return ModelSource(name, model=given)
    wanted = "a classifier, the path of a checkpoint, or a dict with its path"
    raise ArgumentTypeError(f"the model {name!r} must be {wanted}, got {type(given).__name__}")


def _read_manifest(file: Path, defaults: Mapping[str, Any]) -> Iterator[ModelSource]:
    """The models of a CSV file, see docs/many_models.md."""
    if not file.is_file():
        raise FileNotFoundError(f"there is no manifest {file}")
    with reading(file, "is no table in UTF-8", "save it again, in spreadsheets as CSV UTF-8"):
        reader = csv.DictReader(io.StringIO(read_text(file), newline=""), skipinitialspace=True)
        rows = [(reader.line_num, row) for row in reader]
    for line, row in rows:
        try:
            if None in row or None in row.values():
                raise ValueError("it has other columns than the header")
            cells = {key.strip(): text.strip() for key, text in row.items()}
            if not any(cells.values()):
                continue  # an empty row, as spreadsheets write at the end
            row = {key: text for key, text in cells.items() if text and key != "class_names"}
            for key, text in row.items():
                if key in ("mean", "std"):
                    numbers = [float(part) for part in text.replace(",", " ").split()]
                    row[key] = numbers[0] if len(numbers) == 1 else numbers
                elif key == "num_classes" or (key == "output" and text.lstrip("-").isdigit()):
                    row[key] = int(text)
            if "trust_pickle" in row:
                raise ValueError("pickle can't be trusted here: pass `trust_pickle` instead")
            if "path" not in row:
                raise ValueError("it has no path: give a checkpoint in the column path")
        except ValueError as error:
            raise ValueError(f"{file}, line {line}: {error}") from error
        if not is_pretrained(path := row["path"]):
            row["path"] = file.parent / path
        yield _source_of(row.get("name") or model_name(path), row, defaults)
