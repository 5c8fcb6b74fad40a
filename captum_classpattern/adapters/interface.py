"""What a checkpoint format is, what it is given, and what it returns."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

from torch import nn

from captum_classpattern.adapters.safe_load import CheckpointFile as CheckpointFile
from captum_classpattern.pattern import Pattern


@dataclass(frozen=True)
class LoadOptions:
    """What the caller of :func:`load_model` says about the network, and the name of the format if
    the caller chose it."""

    arch: str | Callable[..., nn.Module] | None = None
    num_classes: int | None = None
    format: str | None = None


@dataclass
class LoadedNetwork:
    """A network with its weights, and what its source says about it.

    Args:
        network (nn.Module): Takes normalised images, returns logits.
        mean (float or Sequence[float], optional): Mean of the pixels, for pixels in [0, 1].
            Default: None (not known).
        std (float or Sequence[float], optional): Standard deviation, likewise.
        normalised_by (str): Where mean and std come from. Default: "".
        needs_normalisation (str): Text of an error, unless the caller gives mean and std.
            Default: "".
        class_names (Sequence[str], optional): In the order of the logits. Default: None.
        class_ids (Sequence[str], optional): Other names, such as WordNet ids. Default: None.
        input_size (Sequence[int], optional): (C, H, W). A size that images can't have is ignored.
            Default: None (not known).
        trigger (Pattern, optional): The true trigger of a backdoored model. Default: None.
        details (dict): More for the provenance. Default: {}.
    """

    network: nn.Module
    mean: float | Sequence[float] | None = None
    std: float | Sequence[float] | None = None
    normalised_by: str = ""
    needs_normalisation: str = ""
    class_names: Sequence[str] | None = None
    class_ids: Sequence[str] | None = None
    input_size: Sequence[int] | None = None
    trigger: Pattern | None = None
    details: dict[str, Any] = field(default_factory=dict)


@runtime_checkable
class Format(Protocol):
    """A checkpoint format: any object with a name and these two methods.

    ``captum_classpattern.adapters.formats.FORMATS`` lists the built-in ones. Any other can be
    passed to :func:`load_model` as ``format``; :doc:`../extend` has an example.
    """

    @property
    def name(self) -> str:
        """As in ``format="name"`` and the provenance."""

    def matches(self, file: CheckpointFile, options: LoadOptions) -> bool:
        """Whether the file is of this format. If not, although the caller chose the format, that
        is an error."""

    def load(self, file: CheckpointFile, options: LoadOptions) -> LoadedNetwork:
        """Builds the network and loads its weights, or raises a ValueError that says why not."""
