"""The names of models that a user gives by a checkpoint or by the name of a pretrained model."""

import hashlib
import os
import re
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from captum_classpattern.adapters.formats import PRETRAINED
from captum_classpattern.classifier.class_names import file_safe

LONGEST = 80  # characters of a model's name in that of a folder


def is_pretrained(source: str) -> bool:
    """Whether a source names a pretrained model, such as timm:resnet18; a file of this name comes
    first."""
    return source.partition(":")[0] in PRETRAINED and not Path(source).exists()


def model_name(source: str) -> str:
    r"""
    The name of a model that its user did not name: of a file its name without folders and ending,
    of a pretrained model all that follows the package. Folders stay private.

    Examples::

        >>> model_name("runs/a/epoch=1-step=2.ckpt"), model_name(r"C:\models\net.pt")
        ('epoch=1-step=2', 'net')
        >>> model_name("timm:resnet18.a1_in1k"), model_name("robustbench:cifar10/L2/Standard")
        ('resnet18.a1_in1k', 'cifar10/L2/Standard')
        >>> model_name("timm:local-dir:/home/kim/net")
        'net'
    """
    last = re.split(r"[/\\]", source.rstrip("/\\"))[-1]
    if is_pretrained(source):  # local-dir: and hf-hub: of timm precede a path
        return last if source.count(":") > 1 else source.partition(":")[2]
    return PurePosixPath(last).stem


def split_name(given: str) -> tuple[str, str]:
    r"""
    A model's name and its source, as in ``name=source``. A file whose name holds an equals sign is
    a source.

    Examples::

        >>> split_name("old=runs/a.pt"), split_name("runs/a.pt")
        (('old', 'runs/a.pt'), ('a', 'runs/a.pt'))
    """
    name, equals, source = given.partition("=")
    if not name or not equals or is_pretrained(given) or Path(given).exists():
        return model_name(given), given
    return name, source


def check_folders(names: Sequence[str]) -> None:
    """Raises an error if what is found of two models would be written to the same folder."""
    folders: dict[str, str] = {}
    for name in names:
        folder = file_safe(name).casefold()  # as file systems may compare them
        if folder in folders:
            raise ValueError(
                f"the models {folders[folder]!r} and {name!r} would be written to the same folder: "
                "give one another name, as in name=checkpoint, or by the column name of a manifest"
            )
        folders[folder] = name


def folder_name(source: str) -> str:
    r"""
    A name for the folder of what was found of a model: its name, and a hash of where it is, since
    many files are called model.pt.

    Examples::

        >>> folder_name("timm:resnet18.a1_in1k")
        'resnet18.a1_in1k-0ee52d'
    """
    place = source if is_pretrained(source) else os.path.abspath(source)
    digest = hashlib.blake2b(place.encode(), digest_size=3).hexdigest()
    return f"{file_safe(model_name(source)).strip('._')[:LONGEST]}-{digest}"
