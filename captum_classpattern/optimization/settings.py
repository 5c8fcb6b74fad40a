"""The settings of a search, validated once."""

from dataclasses import asdict, dataclass
from numbers import Real
from typing import Any, cast

from captum_classpattern._validation import (
    ArgumentTypeError,
    check_count,
    check_seed,
    to_plain_numbers,
)
from captum_classpattern.optimization.search import Solver
from captum_classpattern.optimization.solvers import find_solver

PRECISIONS = ("auto", "full", "bfloat16")


@dataclass(frozen=True)
class SearchSettings:
    """What decides a search's result; described in :func:`search_masks`."""

    solver: "str | Solver" = "swap"
    area: float = 0.05
    n_steps: int | None = None
    seed: int = 0
    precision: str = "auto"

    def __post_init__(self) -> None:
        """Raises an error that names the first setting out of range; keeps plain numbers."""
        object.__setattr__(self, "solver", find_solver(self.solver))
        if self.precision not in PRECISIONS:
            raise ValueError(
                f"precision must be one of {', '.join(PRECISIONS)}, got {self.precision!r}"
            )
        if self.precision == "bfloat16" and not self.chosen_solver.accelerates:
            raise ValueError(
                f"precision='bfloat16' is not for solver={self.chosen_solver.name!r}, which uses "
                "the model as it is: leave precision out"
            )
        if isinstance(self.area, bool) or not isinstance(self.area, Real):
            raise ArgumentTypeError(
                f"area must be a number, the share of pixels, got {self.area!r}"
            )
        if self.n_steps is not None:
            check_count("n_steps", self.n_steps)
        check_seed(self.seed)
        to_plain_numbers(self)

    @property
    def chosen_solver(self) -> Solver:
        """The solver as an object."""
        return cast(Solver, self.solver)

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        solver = self.chosen_solver
        settings: dict[str, Any] = asdict(solver) if hasattr(solver, "__dataclass_fields__") else {}  # type: ignore[call-overload]
        return {
            "solver": solver.name,
            "solver_settings": settings,
            "area": self.area,
            "n_steps": self.n_steps,
            "seed": self.seed,
            "precision": self.precision,
        }
