"""What a format's reader finds in a source."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import nn

from captum_classpattern.pattern import Pattern

MOST_PIXELS = 4096  # of a side


def input_size(told: Any) -> tuple[int, int, int] | None:
    """A size (C, H, W) that a file tells, if it is one of images; else None."""
    if not isinstance(told, tuple | list) or len(told) != 3:
        return None
    if not all(isinstance(side, int) and 0 < side <= MOST_PIXELS for side in told):
        return None
    channels, height, width = told
    return (channels, height, width) if channels in (1, 3) else None


@dataclass
class Found:
    """A network with its weights, and what the source says of it.

    ``details`` go into the provenance: the arch, what was renamed, ignored or missing, and so on.
    """

    network: nn.Module
    mean: Sequence[float] | None = None
    std: Sequence[float] | None = None
    normalised_by: str = ""  # where mean and std come from
    class_names: Sequence[str] | None = None
    input_size: tuple[int, int, int] | None = None
    trigger: Pattern | None = None
    details: dict[str, Any] = field(default_factory=dict)
    class_ids: Sequence[str] | None = None  # such as WordNet's
