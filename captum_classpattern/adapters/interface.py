"""What a checkpoint format is, what it is given, and what it returns."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from torch import nn

from captum_classpattern.adapters.safe_load import open_checkpoint
from captum_classpattern.pattern import Pattern


class CheckpointFile:
    """A checkpoint file. It is opened safely when its content is first used.

    Args:
        path (Path): The file.
        trust_pickle (bool): Whether opening the file may run its author's code. Default: False.

    A format that does not use ``content`` can read ``path`` in its own way.
    """

    def __init__(self, path: Path, trust_pickle: bool = False) -> None:
        self.path, self.trust_pickle = path, trust_pickle
        self.opened_by = "the format"  # unless content is used

    @cached_property
    def content(self) -> Any:
        """Usually a dict; its tensors are on the CPU."""
        content, self.opened_by = open_checkpoint(self.path, self.trust_pickle)
        return content

    def check_layout(self, matches: bool, format: str) -> None:
        """Raises an error if the caller named a format that the file does not match."""
        if not matches:
            raise ValueError(
                f"{self.path} does not have the layout of {format}: leave out `format`"
            )


@dataclass(frozen=True)
class LoadOptions:
    """What the caller of :func:`load_model` says about the network, if anything."""

    arch: str | None = None
    num_classes: int | None = None


@dataclass
class LoadedNetwork:
    """A network with its weights, and what its source says about it.

    Args:
        network (nn.Module): Takes normalised images, returns logits.
        mean (Sequence[float], optional): Mean of the pixels, for pixels in [0, 1]. Default: None
            (not known).
        std (Sequence[float], optional): Standard deviation, likewise.
        normalised_by (str): Where mean and std come from. Default: "".
        class_names (Sequence[str], optional): In the order of the logits. Default: None.
        class_ids (Sequence[str], optional): Other names, such as WordNet ids. Default: None.
        input_size (Sequence[int], optional): (C, H, W). A size that images can't have is ignored.
            Default: None (not known).
        trigger (Pattern, optional): The true trigger of a backdoored model. Default: None.
        details (dict): More for the provenance. Default: {}.
    """

    network: nn.Module
    mean: Sequence[float] | None = None
    std: Sequence[float] | None = None
    normalised_by: str = ""
    class_names: Sequence[str] | None = None
    class_ids: Sequence[str] | None = None
    input_size: Sequence[int] | None = None
    trigger: Pattern | None = None
    details: dict[str, Any] = field(default_factory=dict)


@runtime_checkable
class Format(Protocol):
    """A checkpoint format: any object with a name and these two functions, such as a module.

    ``captum_classpattern.adapters.formats.FORMATS`` lists the built-in ones. Any other can be
    passed to :func:`load_model` as ``format``; :doc:`../extend` has an example.
    """

    @property
    def name(self) -> str:
        """As in ``format="name"`` and the provenance."""

    def matches(self, file: CheckpointFile, options: LoadOptions) -> bool:
        """Whether the file is of this format. Called unless the caller names the format."""

    def load(self, file: CheckpointFile, options: LoadOptions) -> LoadedNetwork:
        """Builds the network and loads its weights, or raises a ValueError that says why not."""
