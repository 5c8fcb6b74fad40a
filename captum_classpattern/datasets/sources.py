"""Sources of images: folders, ``.npz`` files and the data sets of torchvision."""

import inspect
import os
import re
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from captum_classpattern._support.files import reading
from captum_classpattern._support.validation import (
    ArgumentTypeError,
    Notice,
    join_names,
    parse_labels,
    suggest_names,
    values_from,
)
from captum_classpattern.classifier import warn
from captum_classpattern.classifier.class_names import NUMBERED
from captum_classpattern.datasets.pixels import decode, read_array
from captum_classpattern.images.source import listed_labels

EXTENSIONS = (".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp")


class Listing(NamedTuple):
    """The images of a source, none of them loaded yet."""

    description: str
    names: Sequence[str]  # of the images, for errors
    labels: list[int] | None
    class_names: tuple[str, ...] | None
    load: Callable[[int], Tensor]  # (C, H, W), uint8 or floats
    numbering: str = "dataset"  # as in LabelledImages


def list_images(
    source: str | os.PathLike[str], split: str, root: str | os.PathLike[str] | None, download: bool
) -> Listing:
    """What a source holds, see :func:`~captum_classpattern.datasets.load_images`."""
    path = Path(source)
    if isinstance(source, str) and source.startswith("torchvision:"):
        return _of_torchvision(source, split, Path("data" if root is None else root), download)
    if path.is_dir():
        return _of_folder(path)
    if path.suffix.lower() == ".npz" and path.is_file():
        return _of_npz(path)
    error = ValueError if path.exists() else FileNotFoundError
    raise error(
        f"images come from a folder, an .npz file, or 'torchvision:NAME', but "
        f"{os.fspath(source)} is {'none of these' if path.exists() else 'not there'}"
    )


def _of_folder(path: Path) -> Listing:
    """A folder of class folders, or a folder of images; other files are ignored."""
    inside = sorted(p for p in path.iterdir() if not p.name.startswith((".", "__MACOSX")))
    folders, files = [p for p in inside if p.is_dir()], _images_in(path)
    filled = {folder: images for folder in folders if (images := _images_in(folder))}
    if files and filled:
        raise ValueError(
            f"{path} has both images ({files[0].name}) and folders of images "
            f"({next(iter(filled)).name}): give a folder of class folders, or one of images"
        )
    if not files and not folders:
        raise ValueError(f"{path} has no images: looked for {', '.join(EXTENSIONS)}")
    labels, names, numbering = None, None, "numbers"
    if not files:
        empty = [folder.name for folder in folders if folder not in filled]
        if empty:
            raise ValueError(
                f"the class folders {join_names(empty)} in {path} have no images directly in them "
                f"(looked for {', '.join(EXTENSIONS)}): remove them, or give the folder whose "
                "folders hold the images"
            )
        inner = (each for folder in folders for each in folder.iterdir() if each.name[0] != ".")
        others = (each for each in inner if each.suffix.lower() not in EXTENSIONS and each.is_dir())
        if nested := sorted(str(each.relative_to(path)) for each in others if _images_in(each)):
            warn(f"images in folders of class folders are left out: {join_names(nested)}", Notice)
        numbers, names, numbering = _numbered([folder.name for folder in folders], path)
        files = [file for folder in folders for file in filled[folder]]
        labels = [n for n, folder in zip(numbers, folders) for _ in filled[folder]]
    else:
        warn(
            f"{path} has no class folders, so a model's predictions are the classes of its images; "
            f"if it is the folder of one class, give {path.resolve().parent}",
            Notice,
        )
    file_names = [str(file.relative_to(path)) for file in files]
    return Listing(str(path), file_names, labels, names, lambda i: decode(files[i]), numbering)


def _images_in(folder: Path) -> list[Path]:
    return sorted(
        path
        for path in folder.iterdir()
        if path.suffix.lower() in EXTENSIONS and not path.is_dir() and path.name[0] != "."
    )


def _numbered(folders: list[str], path: Path) -> tuple[list[int], tuple[str, ...], str]:
    """The class number of each folder, the name of each class number, and the numbering."""
    matches = [re.fullmatch(NUMBERED, folder) for folder in folders]
    numbers = [int(match[1]) for match in matches if match]
    if len(numbers) < len(folders):
        return list(range(len(folders))), tuple(folders), "alphabetical"
    named: dict[int, str] = {}
    for number, folder in zip(numbers, folders):
        if number in named:
            raise ValueError(
                f"the class folders {named[number]} and {folder} in {path} have the same number, "
                f"{number}: rename one"
            )
        named[number] = folder
    if numbers != sorted(numbers):
        warn(
            f"the class folders of {path} are numbered by their names ({join_names(folders)}), and "
            "not alphabetically, as torchvision's ImageFolder would do",
            Notice,
        )
    return numbers, tuple(named.get(i, str(i)) for i in range(max(named) + 1)), "numbers"


def _of_npz(path: Path) -> Listing:
    """The arrays ``x``, images, and ``y``, labels, of an ``.npz`` file."""
    remedy = "write it by np.savez(path, x=images, y=labels), the images uint8 or floats in [0, 1]"
    with reading(path, "has no images", remedy), zipfile.ZipFile(path) as archive:
        names = [name.removesuffix(".npy") for name in archive.namelist()]
        if "x" not in names:
            raise ValueError(f"it has no array x, only {join_names(names) or 'nothing'}")
        entries = {name: archive.getinfo(f"{name}.npy") for name in ("x", "y") if name in names}
        arrays = {n: read_array(archive.open(e), e.file_size) for n, e in entries.items()}
    x, y = arrays["x"], arrays.get("y")
    axes = [axis for axis in (1, 3) if x.ndim == 4 and x.shape[axis] in (1, 3)]
    grey = x.ndim == 3 and x.shape[2] not in (1, 3)  # else it looks like one image (H, W, C)
    if 0 in x.shape or not (grey or len(axes) == 1):
        what = "could be both of the first" if len(axes) == 2 else "is none of these"
        raise ValueError(
            f"x in {path} must be images (N, H, W, C) or (N, C, H, W), C being 1 or 3, or "
            f"(N, H, W), but its shape {x.shape} {what}"
        )
    if x.dtype != np.uint8 and x.dtype.kind != "f":
        raise ValueError(
            f"x in {path} must be uint8, or floats in [0, 1], got {x.dtype}: if its values are "
            "from 0 to 255, save x.astype(np.uint8)"
        )
    if x.dtype.kind == "f" and not (x.min() >= 0 and x.max() <= 1):
        raise ValueError(
            f"floats of x in {path} must be in [0, 1], got "
            f"{values_from(x.min(), x.max())}: divide them by 255, or undo their normalisation"
        )
    pixels = torch.from_numpy(x.astype(np.uint8 if x.dtype == np.uint8 else np.float32, copy=False))
    pixels = pixels[:, None] if grey else pixels.movedim(axes[0], 1)
    names = [f"image {i}" for i in range(len(x))]
    labels = None if y is None else parse_labels(y.tolist(), len(x), str(path)).tolist()
    return Listing(str(path), names, labels, None, pixels.__getitem__, "numbers")


def _torchvision_names() -> dict[str, bool]:
    """The data sets of torchvision that have splits, and whether the split of each is a flag,
    ``train=``."""
    from torchvision import datasets  # slow to import, and only needed here

    by_flag: dict[str, bool] = {}
    for name in datasets.__all__:
        takes = inspect.signature(getattr(datasets, name)).parameters
        needs = [n for n, parameter in takes.items() if parameter.default is parameter.empty]
        if takes.keys() & {"train", "split"} and "download" in takes and needs == ["root"]:
            by_flag[name] = "train" in takes
    return by_flag


def _of_torchvision(source: str, split: str, root: Path, download: bool) -> Listing:
    """A data set of torchvision, by a source such as "torchvision:CIFAR10"."""
    from torchvision import datasets  # slow to import, and only needed here

    by_flag = _torchvision_names()
    name = source.partition(":")[2]
    if name not in by_flag:
        hint = suggest_names(name, by_flag)
        raise ValueError(f"torchvision has no data set {name!r} of images in splits{hint}")
    if by_flag[name] and split not in ("train", "test"):
        raise ValueError(f"split of {source} must be 'train' or 'test', got {split!r}")
    part: dict[str, Any] = {"train": split == "train"} if by_flag[name] else {"split": split}
    try:
        data = getattr(datasets, name)(root=root, download=download, **part)
    except ValueError as error:
        raise ValueError(f"{source} can't be opened with split {split!r}: {error}") from error
    except (RuntimeError, OSError) as error:
        failed = f"could not be downloaded to {root}: {error}"
        absent = (
            f"is not in {root}, or is incomplete: give the `root` that has it, or `download=True`"
        )
        raise FileNotFoundError(f"{source} {failed if download else absent}") from error

    def load(index: int) -> Tensor:
        image = data[index][0]
        if not isinstance(image, Image.Image):
            raise ArgumentTypeError(
                f"{source} gives a {type(image).__name__}, not an image and its class"
            )
        return decode(image)

    listed = listed_labels(data)
    if listed is None:
        listed = parse_labels([item[1] for item in data], len(data), source)  # all are loaded
    classes = getattr(data, "classes", None) or ()
    named = isinstance(classes, list | tuple) and all(isinstance(name, str) for name in classes)
    names = tuple(classes) if named and classes else None
    images = [f"image {i}" for i in range(len(data))]
    return Listing(f"{source} ({split})", images, listed.tolist(), names, load)
