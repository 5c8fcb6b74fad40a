"""The options that commands share, one class per panel of the help: what each option means, how it
is checked, and what the options of a panel open."""

import os
import sys
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeAlias

from cyclopts import CoercionError, Group, Parameter, Token
from cyclopts.validators import Number

from captum_classpattern.cli import values

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


Count: TypeAlias = Annotated[int, read_as(partial(values.whole_number, least=1), "N")]
Numbers: TypeAlias = Annotated[
    list[float], read_as(values.numbers, "NUMBERS"), Parameter(group=MAIN)
]
Source: TypeAlias = Annotated[str, read_as(values.source, "IMAGES")]
Data: TypeAlias = Annotated[Source, Parameter(group=MAIN)]
Area: TypeAlias = Annotated[float, Parameter(validator=values.check_area, metavar="SHARE")]
OutputFolder: TypeAlias = Annotated[Path, read_as(values.folder, "FOLDER"), Parameter(group=MAIN)]
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
    device: Annotated[str, read_as(values.device, "NAME"), Parameter(group=MAIN)] = "cpu"
    """Where the model runs, such as cpu, cuda or cuda:1."""
    class_names: Annotated[list[str] | None, read_as(values.class_names, "FILE")] = None
    """The names of the classes by output, one a line or a JSON list, to which class folders are
    matched."""
    num_classes: Annotated[int | None, read_as(partial(values.whole_number, least=2), "N")] = None
    """The number of classes. By default, that of the weights of the last layer."""
    output: Annotated[
        int | str | None,
        read_as(values.position_or_name, "INDEX|NAME"),
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
    """The checkpoints by their names, see :func:`split_name`."""
    from captum_classpattern.adapters.names import check_folders, split_name

    named = [split_name(given) for given in models]
    check_folders([name for name, _ in named])
    return dict(named)


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
        from captum_classpattern.cli.matching import channels_of, check_takes, number_classes
        from captum_classpattern.datasets import load_images

        shape = models[0].input_size or shape
        loaded = load_images(
            source or self.data,
            size=self.size or (shape and shape[1:]),
            channels=channels_of(models[0]),
            limit=self.limit,
            seed=seed,
            root=self.root,
            download=self.download,
            on_error=self.on_error,
        )
        for model in models:
            check_takes(model, loaded)
        return number_classes(loaded, models)


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


@Parameter(name="*", group=MORE_SEARCH)
@dataclass(frozen=True, kw_only=True)
class ComputeOptions:
    """How any search is computed. The fields of this class and of those below have the names of
    the library's settings, which check them again."""

    seed: Annotated[int, read_as(partial(values.whole_number, least=0), "N")] = 0
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
        list[str | range] | None, read_as(values.selection, "LIST"), Parameter(group=MAIN)
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
        from captum_classpattern.cli.matching import numbers_of
        from captum_classpattern.images import predictions

        if self.classes is None:
            labels = predictions(model, images) if images.labels is None else images.labels
            return sorted(set(labels.tolist()))
        try:
            chosen = [number for part in self.classes for number in numbers_of(part, model)]
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
