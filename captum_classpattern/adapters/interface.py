"""What a checkpoint format is, what it is given, and what it returns."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from torch import nn

from captum_classpattern.adapters.safe_load import open_checkpoint
from captum_classpattern.pattern import Pattern

MAX_SIDE = 4096  # pixels


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
        input_size (tuple[int, int, int], optional): (C, H, W). Default: None (not known).
        trigger (Pattern, optional): The true trigger of a backdoored model. Default: None.
        details (dict): More for the provenance. Default: {}.
    """

    network: nn.Module
    mean: Sequence[float] | None = None
    std: Sequence[float] | None = None
    normalised_by: str = ""
    class_names: Sequence[str] | None = None
    class_ids: Sequence[str] | None = None
    input_size: tuple[int, int, int] | None = None
    trigger: Pattern | None = None
    details: dict[str, Any] = field(default_factory=dict)


@runtime_checkable
class Format(Protocol):
    """A checkpoint format: any object with a name and these two functions, such as a module.

    ``captum_classpattern.adapters.formats.FORMATS`` lists the built-in ones. Any other can be
    passed to :func:`load_model` as ``format``.

    Examples::

        >>> from captum_classpattern.adapters import find_weights, load_model, load_network
        >>> class Run:
        ...     name = "run"
        ...     def matches(self, file, options):
        ...         return isinstance(file.content, dict) and "run" in file.content
        ...     def load(self, file, options):
        ...         run = file.content["run"]
        ...         loaded = load_network(run["arch"], find_weights(run["weights"], file.path))
        ...         loaded.mean, loaded.std, loaded.normalised_by = (0.5,), (0.5,), "the run"
        ...         return loaded
        >>> path = getfixture("tmp_path") / "run.pt"
        >>> state = torchvision.models.squeezenet1_1(num_classes=3).state_dict()
        >>> torch.save({"run": {"arch": "squeezenet1_1", "weights": state}}, path)
        >>> load_model(path, format=Run())(torch.rand(2, 3, 40, 40)).shape
        torch.Size([2, 3])
    """

    @property
    def name(self) -> str:
        """As in ``format="name"`` and the provenance."""

    def matches(self, file: CheckpointFile, options: LoadOptions) -> bool:
        """Whether the file is of this format. Called unless the caller names the format."""

    def load(self, file: CheckpointFile, options: LoadOptions) -> LoadedNetwork:
        """Builds the network and loads its weights, or raises a ValueError that says why not."""


def as_input_size(value: Any) -> tuple[int, int, int] | None:
    """The size (C, H, W) that a file gives, if images can have it; else None."""
    if not isinstance(value, tuple | list) or len(value) != 3:
        return None
    if not all(isinstance(side, int) and 0 < side <= MAX_SIDE for side in value):
        return None
    channels, height, width = value
    return (channels, height, width) if channels in (1, 3) else None
