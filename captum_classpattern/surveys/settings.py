"""How classes are searched: kinds of canvas, areas, and what suits the size of the images."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from captum_classpattern._support.validation import ArgumentTypeError, check_count, is_whole
from captum_classpattern.optimization import MovingPatch, Swap
from captum_classpattern.optimization.canvases import BLANK, PATCH, SOLID_COLOURS, STRATEGIES
from captum_classpattern.optimization.plan import (
    LARGE_BUDGET,
    LEAST_BUDGET,
    is_large,
    most_canvases,
)
from captum_classpattern.optimization.settings import SearchOptions, SearchSettings
from captum_classpattern.optimization.solvers.moving import SMALLEST

CANVASES: Mapping[str, int] = {"positive": 32, "white": 1, "black": 1}
AREAS = (0.05, 0.01)
# of large images: blank canvases show little
LARGE_CANVASES: Mapping[str, int] = {"positive": 32, PATCH: 1}
LARGE_AREAS = (0.18,)
BESIDE_PATCH = LEAST_BUDGET  # passes for canvases next to a patch
NO_IMAGES = (*BLANK, PATCH)  # kinds that need no image of the class


class SurveyOptions(SearchOptions, total=False):
    """The keywords that :func:`survey` and :func:`sweep` share, see there."""

    areas: Sequence[float] | None
    canvases: str | Sequence[str] | Mapping[str, int] | int | None
    classes_together: int | None


@dataclass(frozen=True)
class SurveySettings(SearchSettings):
    """How each class is searched: the :class:`SurveyOptions`. ``canvases`` becomes a dict: at most
    how many canvases of each kind compete."""

    areas: Sequence[float] = AREAS
    canvases: Any = field(default_factory=lambda: CANVASES)
    classes_together: int | None = None
    keep: int | None = field(default=1, init=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.classes_together is not None:
            check_count("classes_together", self.classes_together)
        given = [self.canvases] if isinstance(self.canvases, str) else self.canvases
        if isinstance(given, list | tuple):
            most = CANVASES["positive"]
            given = {kind: 1 if kind in NO_IMAGES else most for kind in given}
        if not isinstance(given, Mapping) or not given:
            error = ValueError if given == {} else ArgumentTypeError
            raise error(
                "`canvases` must say how many of each kind, such as {'positive': 32, 'white': 1}, "
                f"or name kinds, such as 'white', got {self.canvases!r:.80}"
            )
        for kind, n in given.items():
            if kind not in (*STRATEGIES, PATCH):
                kinds = ", ".join((*STRATEGIES, PATCH))
                raise ValueError(f"`canvases` has the kind {kind!r}: choose from {kinds}")
            check_count(f"canvases[{kind!r}]", n)
            if kind == PATCH and n != 1:
                raise ValueError(f"`canvases` has {n} of 'patch': it has no canvas, so give 1")
        object.__setattr__(self, "canvases", {kind: int(n) for kind, n in given.items()})

    @classmethod
    def of(
        cls, shape: Sequence[int], areas: Any = None, canvases: Any = None, **options: Any
    ) -> "SurveySettings":
        """The settings, with what suits images (C, H, W) where nothing is given. A number is that
        of positive canvases, next to the other usual kinds. A patch that can't move is left out of
        these, and so is one next to a ``feature_mask``."""
        large = is_large(shape)
        if areas is None:
            areas = LARGE_AREAS if large else AREAS
        usual = dict(LARGE_CANVASES if large else CANVASES)
        if is_whole(canvases):
            usual["positive"], canvases = canvases, None
        given = cls(areas=areas, canvases=usual if canvases is None else canvases, **options)
        square = max(given.areas) * math.prod(shape[1:])
        can_move = square <= (min(shape[1:]) - 1) ** 2
        if canvases is None and not (can_move and given.feature_mask is None):
            usual.pop(PATCH, None)
            given = replace(given, canvases=usual)
        if large and given.budget is None and given.n_steps is None:
            budget = BESIDE_PATCH if PATCH in given.canvases else LARGE_BUDGET
            given = replace(given, solver=Swap(pool_budget=budget))
        return given

    def patches(self, shape: Sequence[int]) -> list[MovingPatch]:
        """For each area the smallest moving patch that covers it on images (C, H, W)."""
        sides = [math.ceil(math.sqrt(a * math.prod(shape[1:])) - 1e-6) for a in self.areas]
        return [MovingPatch(max(SMALLEST, side)) for side in sides]

    def pool_size(self, kind: str, images: int) -> int:
        """How many canvases compete: no more than the budget can use, or the class has images."""
        most: int = self.canvases[kind]
        if self.n_steps is None:
            most = min(most, most_canvases(self.budget or self.solver.pool_budget))
        return most if kind in NO_IMAGES else max(1, min(most, images))


def shared_search(kind: str, size: int) -> tuple[str, int]:
    """Which search pools of so many canvases share: those of one colour are searched together."""
    return ("" if kind in SOLID_COLOURS else kind, size)
