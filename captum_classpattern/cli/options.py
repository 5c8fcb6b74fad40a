"""The options that commands share, one class per panel of the help, and what they open."""

import os
import re
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeAlias

from cyclopts import Group, Parameter
from cyclopts.validators import Number

import captum_classpattern as cp  # its names are loaded when they are used: --help needs no torch
from captum_classpattern._support.files import check_folder, parse_json, read_text, reading

if TYPE_CHECKING:
    from torch import Tensor

MAIN = Group("Options", sort_key=1)  # the panels of the help, what most people need first
MORE_MODEL = Group("More about the model", sort_key=2)
MORE_IMAGES = Group("More about the images", sort_key=3)
MORE_SEARCH = Group("More about the search", sort_key=4)
RAY = Group("Many cores or machines, with Ray", sort_key=5)
MORE = Group("More options", sort_key=6)


def read_as(parse: Callable[[str], Any], metavar: str) -> Parameter:
    """Reads the last value that an option is given with ``parse``, whose ValueError is shown."""
    return Parameter(
        converter=lambda _, tokens: parse(tokens[-1].value), n_tokens=1, metavar=metavar
    )


def at_least(low: int) -> Parameter:
    """A whole number from ``low`` that fits into 64 bits."""
    return Parameter(validator=Number(gte=low, lt=2**63), metavar="N")


def _device(text: str) -> str:
    import torch

    try:
        torch.zeros(1, device=text).cpu()  # "meta" holds no values
    except (AssertionError, RuntimeError) as error:
        reason = str(error).partition("\n")[0]
        raise ValueError(f"{text} can't be used here: {reason}") from error
    return text


def _names_in(file: str) -> list[str]:
    """The names of classes in a file: a JSON list, or one per line."""
    with reading(file, "has no names", "give a file with a JSON list of names, or one per line"):
        content = read_text(Path(file)).strip()
        is_json = content.startswith(("[", "{"))
        return parse_json(content) if is_json else list(map(str.strip, content.splitlines()))


def _classes(text: str) -> list[int | str]:
    """The names and numbers of a list such as dog,0,3-5."""
    chosen: list[int | str] = []
    for part in map(str.strip, text.split(",")):
        if not (numbers := re.fullmatch(r"(\d{1,6})(?:\s*-\s*(\d{1,6}))?", part)):
            chosen.append(part)
            continue
        first, last = int(numbers[1]), int(numbers[2] or numbers[1])
        if last < first:
            raise ValueError(f"the range {part} is empty: give {last}-{first}")
        chosen += range(first, last + 1)
    return chosen


def _kinds(text: str) -> int | list[str]:
    """A number of canvases, or kinds of them."""
    if text.isdigit() and int(text) < 1:
        raise ValueError(f"it must be at least 1, or kinds such as positive,patch, got {text}")
    if text.isdigit():
        return int(text)
    kinds = [*map(str.strip, text.split(","))]
    if any(kind.isdigit() for kind in kinds):
        raise ValueError(f"it must be a number or kinds such as positive,patch, not both: {text}")
    return kinds


IN_MAIN, IN_SEARCH = Parameter(group=MAIN), Parameter(group=MORE_SEARCH)
Count: TypeAlias = Annotated[int, at_least(1)]
Numbers: TypeAlias = Annotated[
    list[float], read_as(lambda text: [float(part) for part in text.split(",")], "NUMBERS"), IN_MAIN
]
Source: TypeAlias = Annotated[str, Parameter(metavar="IMAGES")]
Area: TypeAlias = Annotated[float, Parameter(validator=Number(gt=0, lt=1), metavar="SHARE")]
OutputFolder: TypeAlias = Annotated[Path, read_as(check_folder, "FOLDER")]


@Parameter(name="*", group=MORE_MODEL)
@dataclass(frozen=True, kw_only=True)
class ModelOptions:
    """What a checkpoint needs to be opened.

    Args:
        arch: The network: MODULE:NAME for your own, such as my_net:MyNet, or a name of torchvision
            or timm. By default, read from the file.
        mean: The mean of the training pixels, such as 0.485,0.456,0.406. By default, read from the
            file.
        std: The standard deviation of the training pixels, such as 0.229,0.224,0.225.
        device: Where the model runs, such as cpu, cuda or cuda:1.
        class_names: A file of class names in the order of the outputs, one per line or as a JSON
            list. Class folders are matched to them.
        num_classes: The number of classes. By default, that of the last layer's weights.
        output: Which of several outputs holds the logits, such as -1 or logits.
        format: One of huggingface, backdoorbench, trojanzoo, robustbench, robustness, timm, plain.
            Recognised by default.
        trust_pickle: Also open files that can run any code. Only for files from people you trust.
    """

    arch: Annotated[str | None, Parameter(metavar="NAME"), IN_MAIN] = None
    mean: Numbers | None = None
    std: Numbers | None = None
    device: Annotated[str, read_as(_device, "NAME"), IN_MAIN] = "cpu"
    class_names: Annotated[list[str] | None, read_as(_names_in, "FILE")] = None
    num_classes: Annotated[int | None, at_least(2)] = None
    output: Annotated[
        int | str | None, Parameter(metavar="INDEX|NAME", allow_leading_hyphen=True)
    ] = None
    format: Annotated[str | None, Parameter(metavar="NAME")] = None
    trust_pickle: bool = False

    def open(self, checkpoint: str) -> "cp.PixelClassifier":
        """Opens a checkpoint as a classifier on the device."""
        from captum_classpattern.adapters.architectures import FAMILIES

        if (self.arch or "").rpartition(":")[0] not in ("", *FAMILIES):
            import_from_here()
        return cp.load_model(checkpoint, **self.loading()).to(self.device)

    def loading(self) -> dict[str, Any]:
        """The options as load_model takes them."""
        return {name: value for name, value in vars(self).items() if name != "device"}


def import_from_here() -> None:
    """Finds a user's MODULE:NAME in the working folder, after everything installed."""
    if os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())


def checkpoints_by_name(models: Sequence[str]) -> dict[str, str]:
    """The checkpoints by their names, see :func:`split_name`."""
    from captum_classpattern.adapters.load import check_folders, split_name

    named = [split_name(given) for given in models]
    check_folders([name for name, _ in named])
    return dict(named)


@Parameter(name="*", group=MORE_IMAGES)
@dataclass(frozen=True, kw_only=True)
class SourceOptions:
    """The images of a command.

    Args:
        data: A folder of class folders or images, an .npz file, or torchvision:NAME.
        size: The side in pixels to resize to. By default, the model's, if known.
        limit: Use at most this many images per class, or in all if they have no class folders,
            chosen at random. By default, all.
        root: The folder of torchvision's data sets. By default, the folder data.
        download: Download torchvision's data set if it is not in its folder.
    """

    data: Annotated[Source, IN_MAIN]
    size: Annotated[Count | None, IN_MAIN] = None
    limit: Count | None = None
    root: Annotated[Path | None, Parameter(metavar="FOLDER")] = None
    download: bool = False

    def load_all(
        self,
        models: "Sequence[cp.PixelClassifier]",
        *,
        seed: int,
        shape: tuple[int, int, int] | None = None,
        source: str | None = None,
    ) -> "cp.LabelledImages":
        """The images of --data or another source, in the shape that the first model states or else
        this one; without any, grey or in colour as the model takes them. They get the class numbers
        of the models, which must agree. Models without class names get the images'."""
        from captum_classpattern.classifier.class_names import ClassNames

        first, where = models[0], source or self.data
        shape = first.input_size or shape
        own: Any = {name: getattr(self, name) for name in ("limit", "root", "download")}
        own |= {"size": self.size or (shape and shape[1:]), "seed": seed}
        images = cp.load_images(where, channels=shape and shape[0], **own)
        if shape is None and (channels := _other_channels(first, images.first())):
            images = cp.load_images(where, channels=channels, **own)
        labelled = images.labels is not None
        numbered = [images.for_classifier(model) for model in models]
        for model, images in zip(models, numbered):
            if labelled and not numbered[0].known_labels.equal(images.known_labels):
                raise ValueError(
                    f"{model.provenance['source']} numbers the classes differently from "
                    f"{first.provenance['source']}: compare models with the same order of classes, "
                    "or give the names with --class-names FILE if they are wrong"
                )
            if images.class_names is not None and ClassNames.of(model) is None:
                model.class_names = list(images.class_names)
        return numbered[0]


def _other_channels(model: "cp.PixelClassifier", image: "Tensor") -> int | None:
    """1 or 3, if the model takes images with so many channels but fails on this one (1, C, H, W)
    as it is; None if it takes it, or neither: that error comes with its use."""
    from captum_classpattern.classifier import enter_model

    for channels in (None, 1, 3):
        shown = image if channels is None else image[:, :1].expand(-1, channels, -1, -1)
        with suppress(Exception), enter_model(model, shown):
            return channels
    return None


@dataclass(frozen=True, kw_only=True)
class ImageOptions(SourceOptions):
    """The images to search with, and the held-out images to score on.

    Args:
        data: A folder of class folders or images, an .npz file, or torchvision:NAME. Half is held
            out.
        held_out: Other images to score on, in any form of --data. By default, one half of --data.
    """

    held_out: Source | None = None

    def load(
        self, models: "Sequence[cp.PixelClassifier]", *, seed: int
    ) -> "tuple[cp.LabelledImages, cp.LabelledImages]":
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
    the library's settings, which check them again.

    Args:
        seed: The seed of everything that is random.
        precision: Full keeps the model's; auto takes bfloat16 where the device is made for it.
        internal_batch_size: At most this many images in one pass. By default, it suits the device.
    """

    seed: Annotated[int, at_least(0)] = 0
    precision: Literal["auto", "full", "bfloat16"] = "auto"
    internal_batch_size: Count | None = None

    def keywords(self) -> dict[str, Any]:
        """The options as the library's functions take them, without the classes."""
        return {name: value for name, value in vars(self).items() if name != "classes"}


@Parameter(name="*", group=RAY)
@dataclass(frozen=True, kw_only=True)
class RayOptions:
    """Where a command's models are processed.

    Args:
        ray: Run on the cluster at this address, such as --ray=auto. Without an address, --ray
            comes last, and runs on all cores. It needs pip install 'captum_classpattern[ray]'.
        workers: How many models to process at a time, with --ray and no address. By default, one
            per core.
        ray_options: What each model needs, such as '{"num_gpus": 0.5, "num_cpus": 2}'. By default,
            one core. The number of cores changes the last digits of results.
    """

    ray: Annotated[bool | str, Parameter(metavar="[ADDRESS]")] = False
    workers: Count | None = None
    ray_options: Annotated[
        dict[str, Any] | None, read_as(lambda text: dict(parse_json(text)), "JSON")
    ] = None

    def keywords(self) -> dict[str, Any]:
        """The options as the library takes them."""
        if not self.ray and (self.workers is not None or "num_gpus" in (self.ray_options or {})):
            raise ValueError(
                "--workers, and num_gpus in --ray-options, are for Ray: also pass --ray"
            )
        return {
            "engine": "ray" if self.ray else "local",
            "address": self.ray if isinstance(self.ray, str) else None,
            "workers": self.workers,
            "ray_options": self.ray_options,
        }


@dataclass(frozen=True, kw_only=True)
class ClassOptions(ComputeOptions):
    """Which classes are searched, and how.

    Args:
        classes: Names, numbers and ranges, such as dog,0,3-5. By default, all classes that have
            images.
        budget: Passes for each class, kind of canvas and area. By default, 7000, in compare 3500.
            For images of at least 64 pixels a side, 960, or 430 next to a patch, which takes about
            950.
        n_steps: Rounds on each canvas that is searched to the end. Overrides --budget.
    """

    classes: Annotated[list[int | str] | None, read_as(_classes, "LIST"), IN_MAIN] = None
    budget: Count | None = None
    n_steps: Count | None = None

    def find_classes(self, model: "cp.PixelClassifier", images: "cp.LabelledImages") -> list[int]:
        """The numbers of the chosen classes."""
        from captum_classpattern.classifier import enter_model
        from captum_classpattern.surveys.survey import find_classes

        with enter_model(model, images.first()) as checked:
            return find_classes(self.classes, checked.names, images, checked)


@dataclass(frozen=True, kw_only=True)
class CanvasOptions(ClassOptions):
    """The options for searching one or many models.

    Args:
        areas: The pattern's share of the pixels. Repeat it for several areas. By default, 0.05 and
            0.01; for images of at least 64 pixels a side, 0.18.
        canvases: Kinds of canvas, such as positive,patch (a patch that works anywhere). Or how many
            images per class compete to be its canvas, next to a white and a black one (from 64
            pixels a side, a patch instead). By default, 32 with these.
        cells: Keep or drop whole cells of N x N pixels. By default, single pixels.
    """

    areas: Annotated[list[Area] | None, Parameter("--area", metavar="SHARE"), IN_MAIN] = None
    canvases: Annotated[int | list[str] | None, read_as(_kinds, "N|LIST")] = None
    cells: Annotated[int | None, at_least(2)] = None

    def keywords(self) -> dict[str, Any]:
        """The options as ``survey`` takes them, without the classes."""
        from captum_classpattern.optimization import Cells

        keywords = super().keywords()
        cells = keywords.pop("cells")
        return keywords | {"feature_mask": None if cells is None else Cells(cells)}
