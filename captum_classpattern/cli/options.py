"""The options that commands share, one class per panel of the help: what each option means, how it
is checked, and what the options of a panel open."""

import json
import os
import re
import sys
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeAlias

from cyclopts import CoercionError, Group, Parameter, Token
from cyclopts.validators import Number

if TYPE_CHECKING:  # imported where they are used, so that --help needs no torch
    from captum_classpattern.adapters import PixelClassifier
    from captum_classpattern.datasets import LabelledImages

MAIN = Group("Options", sort_key=1)  # the panels of the help, what most people need first
MORE_MODEL = Group("More about the model", sort_key=2)
MORE_IMAGES = Group("More about the images", sort_key=3)
MORE_SEARCH = Group("More about the search", sort_key=4)
RAY = Group("Many cores or machines, with Ray", sort_key=5)
MORE = Group("More options", sort_key=6)


def read_as(parse: Callable[[str], Any], metavar: str | None = None) -> Parameter:
    """Reads the value of an option with ``parse``, whose ValueError says what it must be."""

    def convert(_: type, tokens: Sequence[Token]) -> Any:
        last = tokens[-1]  # of an option that is given several times
        try:
            return parse(last.value)
        except ValueError as error:
            raise CoercionError(msg=str(error), token=last) from error

    return Parameter(converter=convert, n_tokens=1, metavar=metavar)


def names_among(text: str, known: Collection[str], what: str) -> list[str]:
    """The names of a list such as Saliency,LRP; an error if one is not known."""
    from captum_classpattern._validation import suggest_names

    names = [name.strip() for name in text.split(",")]
    unknown = [name for name in names if name not in known]
    if unknown:
        raise ValueError(
            f"there is no {what} {unknown[0]!r}{suggest_names(unknown[0], known)}\n\n"
            f"Choose from {', '.join(known)}."
        )
    return names


def _whole_number(text: str, *, least: int) -> int:
    if not re.fullmatch(r"\d{1,19}", text) or int(text) not in range(least, 2**63):
        raise ValueError(f"it must be a whole number from {least} up, got {text!r}")
    return int(text)


def _position_or_name(text: str) -> int | str:
    return int(text) if re.fullmatch(r"-?\d+", text) else text


def _numbers(text: str) -> list[float]:
    try:
        return [float(part) for part in text.split(",")]
    except ValueError:
        message = f"it must be numbers such as 0.5 or 0.485,0.456,0.406, got {text!r}"
        raise ValueError(message) from None


def _folder(text: str) -> Path:
    path = Path(text)
    if path.is_file():
        raise ValueError(f"it must be a folder, but {text} is a file")
    existing = next(folder for folder in (path, *path.absolute().parents) if folder.exists())
    if not existing.is_dir() or not os.access(existing, os.W_OK):
        raise ValueError(f"{text} can't be written, because of {existing}: give another folder")
    return path


def _source(text: str) -> str:
    if not text.startswith("torchvision:") and not Path(text).exists():
        raise ValueError(f"{text} does not exist; give a folder, an .npz file, or torchvision:NAME")
    return text


def _device(text: str) -> str:
    import torch

    try:
        torch.empty(0, device=text)
    except (AssertionError, RuntimeError) as error:
        reason = str(error).partition("\n")[0]
        raise ValueError(f"{text} can't be used here: {reason}") from error
    return text


def _check_area(_: type, area: float | None) -> None:
    if area is not None and not 0 < area < 1:
        raise ValueError("It is the share of the pixels, between 0 and 1, such as 0.05.")


def _selection(text: str) -> list[str | range]:
    """Names, and ranges of numbers, of a list such as dog,0,3-5."""
    chosen: list[str | range] = []
    for part in (part.strip() for part in text.split(",")):
        if numbers := re.fullmatch(r"(\d+)(?:\s*-\s*(\d+))?", part):
            first, last = int(numbers[1]), int(numbers[2] or numbers[1])
            if last < first:
                raise ValueError(f"the range {part} is empty: give {last}-{first}")
            chosen.append(range(first, last + 1))
        elif re.fullmatch(r"[\d\s-]*", part):
            raise ValueError(
                f"it must be names, numbers and ranges, such as dog,0,3-5, got {text!r}"
            )
        else:
            chosen.append(part)
    return chosen


def _class_names(text: str) -> list[str]:
    """The names in a file: a JSON list, or one a line."""
    path = Path(text)
    try:
        content = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise ValueError(f"there is no file {path}") from None
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not a text file ({error})") from error
    if content.lstrip().startswith(("[", "{")):
        try:
            names = json.loads(content)
        except ValueError as error:
            raise ValueError(f"{path} is not JSON ({error})") from error
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            raise ValueError(f"{path} must hold a JSON list of names")
        return names
    lines = [line.strip() for line in content.rstrip().splitlines()]
    if "" in lines:
        raise ValueError(f"line {lines.index('') + 1} of {path} is empty: give one name per line")
    return lines


Count: TypeAlias = Annotated[int, read_as(partial(_whole_number, least=1), "N")]
Numbers: TypeAlias = Annotated[list[float], read_as(_numbers, "NUMBERS"), Parameter(group=MAIN)]
Source: TypeAlias = Annotated[str, read_as(_source, "IMAGES")]
Data: TypeAlias = Annotated[Source, Parameter(group=MAIN)]
Area: TypeAlias = Annotated[float, Parameter(validator=_check_area, metavar="SHARE")]
OutputFolder: TypeAlias = Annotated[Path, read_as(_folder, "FOLDER"), Parameter(group=MAIN)]
AsJson: TypeAlias = Annotated[
    bool,
    Parameter(name="--json", group=MAIN, help="Print the result as JSON, and nothing else."),
]


@Parameter(name="*", group=MORE_MODEL)
@dataclass(frozen=True, kw_only=True)
class ModelOptions:
    """What a checkpoint needs to be opened."""

    arch: Annotated[str | None, Parameter(group=MAIN, metavar="NAME")] = None
    """The network, by a name of torchvision or timm, or package.module:factory. By default, that of
    the file."""
    mean: Numbers | None = None
    """The mean of the training pixels, from 0 to 1, such as 0.485,0.456,0.406. By default, that of
    the file."""
    std: Numbers | None = None
    """Their standard deviation, such as 0.229,0.224,0.225. By default, that of the file."""
    device: Annotated[str, read_as(_device, "NAME"), Parameter(group=MAIN)] = "cpu"
    """Where the model runs, such as cpu, cuda or cuda:1."""
    class_names: Annotated[list[str] | None, read_as(_class_names, "FILE")] = None
    """The names of the classes by output, one a line or a JSON list, to which class folders are
    matched."""
    num_classes: Annotated[int | None, read_as(partial(_whole_number, least=2), "N")] = None
    """The number of classes. By default, that of the weights of the last layer."""
    output: Annotated[
        int | str | None,
        read_as(_position_or_name, "INDEX|NAME"),
        Parameter(allow_leading_hyphen=True),
    ] = None
    """Which of several outputs holds the logits: a position such as -1, or a name such as
    logits."""
    format: Annotated[str | None, Parameter(metavar="NAME")] = None
    """One of backdoorbench, trojanzoo, robustbench, robustness, timm, plain. By default,
    recognised."""
    trust_pickle: bool = False
    """Also open files that can run any code. Only for files from people you trust."""

    def open(self, checkpoint: str) -> "PixelClassifier":
        """Opens a checkpoint as a classifier on the device."""
        from captum_classpattern.adapters import load_model
        from captum_classpattern.adapters.architectures import FAMILIES

        source = (self.arch or "").rpartition(":")[0]
        if source not in ("", *FAMILIES):
            import_from_here()
        return load_model(checkpoint, **self.loading()).to(self.device)

    def loading(self) -> dict[str, Any]:
        """The options as load_model takes them."""
        return {name: value for name, value in vars(self).items() if name != "device"}


def import_from_here() -> None:
    """Finds a user's package.module:factory in the working folder, after everything installed."""
    if os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())


def checkpoints_by_name(models: tuple[str, ...]) -> dict[str, str]:
    """The checkpoints by their names, see :func:`split_name`; an error if two would be written to
    the same files."""
    from captum_classpattern.adapters.names import split_name
    from captum_classpattern.class_names import file_safe

    named: dict[str, str] = {}
    for given in models:
        name, checkpoint = split_name(given)
        for other in named:
            if file_safe(other) == file_safe(name):
                raise ValueError(
                    f"the models {other!r} and {name!r} would be written to the same files: give "
                    f"one another name, as in other={checkpoint}"
                )
        named[name] = checkpoint
    return named


@Parameter(name="*", group=MORE_IMAGES)
@dataclass(frozen=True, kw_only=True)
class SourceOptions:
    """The images of a command."""

    data: Data
    """A folder of class folders or images, an .npz file, or torchvision:NAME."""
    size: Annotated[Count | None, Parameter(group=MAIN)] = None
    """The side in pixels to resize to. By default, the model's if it is known."""
    limit: Count | None = None
    """At most this many images per class, chosen at random. By default, all."""
    root: Annotated[Path | None, Parameter(metavar="FOLDER")] = None
    """The folder of torchvision's data sets. By default, data."""
    download: bool = False
    """Download torchvision's data set if it is not in its folder."""
    on_error: Literal["raise", "skip"] = "raise"
    """Whether images that can't be read are an error."""

    def load_all(
        self,
        models: "Sequence[PixelClassifier]",
        *,
        seed: int,
        shape: tuple[int, int, int] | None = None,
        source: str | None = None,
    ) -> "LabelledImages":
        """The images of --data, or of another source, of the size that the first model takes, or
        else of this shape, with the class numbers of the models."""
        from captum_classpattern.datasets import load_images

        shape = models[0].input_size or shape
        loaded = load_images(
            source or self.data,
            size=self.size or (shape and shape[1:]),
            channels=_channels(models[0]),
            limit=self.limit,
            seed=seed,
            root=self.root,
            download=self.download,
            on_error=self.on_error,
        )
        for model in models:
            _check_takes(model, loaded)
        return _number_classes(loaded, models)


@dataclass(frozen=True, kw_only=True)
class ImageOptions(SourceOptions):
    """The images to search with, and the held-out images to score on."""

    data: Data
    """A folder of class folders or images, an .npz file, or torchvision:NAME. Half is held out."""
    held_out: Source | None = None
    """Other images to score on, in any form of --data. By default, one half of --data."""

    def load(
        self, models: "Sequence[PixelClassifier]", *, seed: int
    ) -> "tuple[LabelledImages, LabelledImages]":
        """The search images and the held-out images, as :meth:`load_all` gives them."""
        images = self.load_all(models, seed=seed)
        if self.held_out is None:
            return images.halves(seed)
        held_out = self.load_all(models, seed=seed, source=self.held_out)
        return images, held_out.without(images)


def _check_takes(model: "PixelClassifier", images: "LabelledImages") -> None:
    """Raises an error unless the model takes such images, and returns one Tensor."""
    import torch

    from captum_classpattern.classifier import device_and_dtype

    sample = images.take([0])
    device, dtype = device_and_dtype(model, sample)
    try:
        with torch.no_grad():
            logits = model(sample.to(device, dtype))
    except torch.OutOfMemoryError:
        raise
    except RuntimeError as error:
        reason = str(error).strip().partition("\n")[0]
        _, channels, height, width = sample.shape
        raise ValueError(
            f"the model does not take images of {height}x{width} pixels and {channels} channels: "
            f"give those that it was trained with, or their --size ({reason})"
        ) from error
    if not isinstance(logits, torch.Tensor):
        raise ValueError(
            f"the model returns a {type(logits).__name__}: say which part holds the logits, such "
            "as --output -1 or --output logits"
        )


def _channels(model: "PixelClassifier") -> int | None:
    """The number of channels that a model takes; if it is not stated, that of its first
    convolution."""
    if model.input_size is not None:
        return model.input_size[0]
    kernel = next((p for p in model.parameters() if p.ndim == 4), None)
    return int(kernel.shape[1]) if kernel is not None and kernel.shape[1] in (1, 3) else None


def _number_classes(
    loaded: "LabelledImages", models: "Sequence[PixelClassifier]"
) -> "LabelledImages":
    """Images with the class numbers of the models, which must agree. A model without class names
    takes those of the images."""
    from captum_classpattern.class_names import ClassNames

    numbered = [loaded.for_classifier(model) for model in models]
    for model, images in zip(models, numbered):
        if loaded.labels is not None:
            labels = [each.known_labels for each in (loaded, numbered[0], images)]
            differing = (labels[1] != labels[2]).nonzero().flatten().tolist()
            if differing:
                label, first, other = (int(each[differing[0]]) for each in labels)
                raise ValueError(
                    "the models number the classes differently: "
                    f"{(loaded.class_names or ())[label]} is class {first} of "
                    f"{models[0].provenance['source']}, but class {other} of "
                    f"{model.provenance['source']}; compare models with the same order of classes, "
                    "or give the names with --class-names FILE if they are wrong"
                )
        if images.class_names is not None and ClassNames.of(model) is None:
            model.class_names = list(images.class_names)
    return numbered[0]


@Parameter(name="*", group=MORE_SEARCH)
@dataclass(frozen=True, kw_only=True)
class ComputeOptions:
    """How any search is computed. The fields of this class and of those below have the names of
    the library's settings, which check them again."""

    seed: Annotated[int, read_as(partial(_whole_number, least=0), "N")] = 0
    """The seed of everything that is random."""
    precision: Literal["auto", "full", "bfloat16"] = "auto"
    """Full as in the model, or faster in bfloat16."""

    def keywords(self) -> dict[str, Any]:
        """The options as the library's functions take them."""
        return dict(vars(self))


@Parameter(name="*", group=MORE_SEARCH)
@dataclass(frozen=True, kw_only=True)
class BatchOptions(ComputeOptions):
    """How it is computed, for commands whose batches can be chosen."""

    internal_batch_size: Count | None = None
    """The most images in one pass. Fewer need less memory. By default, it suits the device."""


@Parameter(name="*", group=MORE_SEARCH)
@dataclass(frozen=True, kw_only=True)
class SearchOptions(BatchOptions):
    """Which classes are searched, and how."""

    classes: Annotated[
        list[str | range] | None, read_as(_selection, "LIST"), Parameter(group=MAIN)
    ] = None
    """Names, numbers and ranges, such as dog,0,3-5. By default, all classes that have images."""
    budget: Count | None = None
    """Passes for each class, kind of canvas and area. By default, 7000 (in compare 3500)."""
    n_steps: Count | None = None
    """Rounds on each canvas that is searched to the end. Overrides --budget."""
    max_seconds: Annotated[float | None, Parameter(validator=Number(gt=0), metavar="SECONDS")] = (
        None
    )
    """Stop each search after this time, with what was found. By default, never."""

    def keywords(self) -> dict[str, Any]:
        """The options as the library's functions take them, without the classes, whose numbers
        :meth:`find_classes` gives."""
        return {name: value for name, value in super().keywords().items() if name != "classes"}

    def find_classes(self, model: "PixelClassifier", images: "LabelledImages") -> list[int]:
        """The numbers of the chosen classes."""
        from captum_classpattern.images import predictions

        if self.classes is None:
            labels = predictions(model, images) if images.labels is None else images.labels
            return sorted(set(labels.tolist()))
        try:
            chosen = [number for part in self.classes for number in _numbers_of(part, model)]
        except ValueError as error:
            raise ValueError(f"--classes: {error}") from None
        return list(dict.fromkeys(chosen))


@Parameter(name="*", group=MORE_SEARCH)
@dataclass(frozen=True, kw_only=True)
class SurveyOptions(SearchOptions):
    """The options of a search of one or many models."""

    area: Annotated[list[Area] | None, Parameter(group=MAIN, metavar="SHARE")] = None
    """The share of the pixels. Give it several times for more. By default, 0.05 and 0.01."""
    canvases: Count = 32
    """Images per class that compete to be its canvas. A white and a black canvas are searched,
    too."""

    def keywords(self) -> dict[str, Any]:
        """The options as ``survey`` takes them, without the classes."""
        from captum_classpattern.surveys.results import AREAS, CANVASES

        keywords = super().keywords()
        keywords["areas"] = keywords.pop("area") or AREAS
        return {**keywords, "canvases": {**CANVASES, "positive": self.canvases}}


def _numbers_of(part: str | range, model: "PixelClassifier") -> Sequence[int]:
    """The numbers of classes that a part of a list of classes means."""
    from captum_classpattern.class_names import ClassNames

    names, count = ClassNames.of(model), len(model.class_names or ())
    if isinstance(part, range):
        if count and part[-1] >= count:
            raise ValueError(
                f"{part[-1]} is out of range: the model has {count} classes, numbered from 0 to "
                f"{count - 1}"
            )
        return part
    if names is None:
        raise ValueError(
            f"{part!r} is a name, but neither the model nor the images name the classes: give "
            "numbers, or --class-names FILE"
        )
    return [names.find(part)]
