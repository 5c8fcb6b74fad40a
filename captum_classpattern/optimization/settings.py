"""The settings of a search, validated once."""

import platform
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, is_dataclass
from importlib.metadata import version
from typing import Any, TypedDict

from torch import Tensor

from captum_classpattern._support.validation import (
    ArgumentTypeError,
    check_area,
    check_numbers,
    check_seed,
)
from captum_classpattern.optimization.features import in_words
from captum_classpattern.optimization.solvers import SOLVERS, MovingPatch

PRECISIONS = ("auto", "full", "bfloat16")
PARTS = ("name", "accelerates", "run")  # of a solver


class ComputeOptions(TypedDict, total=False):
    """The keywords that all searches and scans share, see :meth:`ClassPattern.search`."""

    seed: int
    precision: str
    internal_batch_size: int | None
    show_progress: bool | None


class SearchOptions(ComputeOptions, total=False):
    """Those that all searches share."""

    budget: int | None
    n_steps: int | None
    feature_mask: Tensor | Callable[[Tensor], Tensor] | None


class PatternOptions(SearchOptions, total=False):
    """Those of :meth:`ClassPattern.search` besides its images, target and area."""

    keep: int | None
    solver: Any


@dataclass(frozen=True)
class SearchSettings:
    """What decides a search's result, and how it is run. The public functions list these settings,
    make one object of them, and pass it on; see :meth:`ClassPattern.search`.

    ``solver`` becomes a solver, if it is a name. ``areas`` becomes a tuple of distinct floats.
    """

    solver: Any = "swap"
    areas: Sequence[float] = (0.05,)
    n_steps: int | None = None
    seed: int = 0
    precision: str = "auto"
    internal_batch_size: int | None = None
    show_progress: bool | None = None
    budget: int | None = None
    keep: int | None = None
    feature_mask: Tensor | Callable[[Tensor], Tensor] | None = field(default=None, compare=False)

    def __post_init__(self) -> None:
        """Raises an error that names the first setting out of range; keeps plain numbers."""
        solver = self.solver
        if isinstance(solver, str) and solver in SOLVERS:
            solver = SOLVERS[solver]()
        if isinstance(solver, type) or not all(hasattr(solver, name) for name in PARTS):
            error = ValueError if isinstance(solver, str) else ArgumentTypeError
            lacking = [f"`{name}`" for name in PARTS if not hasattr(solver, name)]
            which = "" if isinstance(solver, str | type) else f", which lacks {', '.join(lacking)}"
            raise error(
                f"solver must be one of {', '.join(SOLVERS)}, or an object with {', '.join(PARTS)} "
                f"such as PaperLoop(epochs=2), got {solver!r}{which}"
            )
        object.__setattr__(self, "solver", solver)
        features: Any = self.feature_mask
        if isinstance(features, tuple) and len(features) == 1:
            [features] = features  # of Captum's inputs
        if not (features is None or isinstance(features, Tensor) or callable(features)):
            raise ArgumentTypeError(
                "`feature_mask` must be an integer Tensor, or a function from a canvas (C, H, W) "
                f"to one, got {type(features).__name__}"
            )
        object.__setattr__(self, "feature_mask", features)
        if self.precision not in PRECISIONS:
            raise ValueError(
                f"`precision` must be one of {', '.join(PRECISIONS)}, got {self.precision!r}"
            )
        if self.precision == "bfloat16" and not solver.accelerates:
            raise ValueError(
                f"`precision='bfloat16'` is not for `solver={solver.name!r}`, which uses the model "
                "as it is: leave `precision` out"
            )
        if self.areas is None or isinstance(self.areas, (int, float)) or len(self.areas) == 0:
            raise ValueError(
                f"give a list of at least one area, such as [0.05, 0.01], got {self.areas!r}"
            )
        for area in self.areas:
            check_area(area)
        object.__setattr__(self, "areas", tuple(dict.fromkeys(map(float, self.areas))))
        check_seed(self.seed)
        check_numbers(self, counts=("budget", "n_steps", "internal_batch_size", "keep"))

    @property
    def is_patch(self) -> bool:
        """Whether a moving patch is searched, which has no canvas."""
        return isinstance(self.solver, MovingPatch)

    @property
    def area(self) -> float:
        """The largest area, which is searched first."""
        return max(self.areas)

    def as_dict(self) -> dict[str, Any]:
        """What decides the result, as plain values for JSON."""
        solver = self.solver
        return {
            "solver": solver.name,
            "solver_settings": asdict(solver) if is_dataclass(solver) else {},  # type: ignore[arg-type]
            "area": self.area,
            **self.limits(),
            **({"areas": list(self.areas)} if len(self.areas) > 1 else {}),
        }

    def limits(self) -> dict[str, Any]:
        """What decides the result besides the solver and the areas."""
        names = ("budget", "n_steps", "seed", "precision")
        given = {name: getattr(self, name) for name in names}
        if self.feature_mask is not None:
            given["feature_mask"] = in_words(self.feature_mask)
        return given


def versions() -> dict[str, str]:
    """Versions of the packages that a result depends on."""
    packages = ("captum_classpattern", "captum", "torch", "numpy")
    return {"python": platform.python_version(), **{name: version(name) for name in packages}}
