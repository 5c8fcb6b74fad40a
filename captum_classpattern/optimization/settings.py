"""The settings of a search, validated once."""

from dataclasses import asdict, dataclass, is_dataclass
from typing import Any

from captum_classpattern._validation import (
    check_area,
    check_count,
    check_positive,
    check_seed,
    to_plain_numbers,
)
from captum_classpattern.optimization.solvers import find_solver

PRECISIONS = ("auto", "full", "bfloat16")


@dataclass(frozen=True)
class SearchSettings:
    """What decides a search's result, and how it is run; described in :func:`search_masks`."""

    solver: Any = "swap"  # a name, which becomes the solver
    area: float = 0.05
    n_steps: int | None = None
    seed: int = 0
    precision: str = "auto"
    internal_batch_size: int | None = None
    show_progress: bool = False
    budget: int | None = None
    max_seconds: float | None = None

    def __post_init__(self) -> None:
        """Raises an error that names the first setting out of range; keeps plain numbers."""
        solver = find_solver(self.solver)
        object.__setattr__(self, "solver", solver)
        if self.precision not in PRECISIONS:
            raise ValueError(
                f"`precision` must be one of {', '.join(PRECISIONS)}, got {self.precision!r}"
            )
        if self.precision == "bfloat16" and not solver.accelerates:
            raise ValueError(
                f"`precision='bfloat16'` is not for `solver={solver.name!r}`, which uses the model "
                "as it is: leave `precision` out"
            )
        check_area(self.area)
        for name in ("budget", "n_steps", "internal_batch_size"):
            if getattr(self, name) is not None:
                check_count(name, getattr(self, name))
        if self.max_seconds is not None:
            check_positive("max_seconds", self.max_seconds)
        check_seed(self.seed)
        to_plain_numbers(self)

    def as_dict(self) -> dict[str, Any]:
        """What decides the result, as plain values for JSON."""
        solver = self.solver
        return {
            "solver": solver.name,
            "solver_settings": asdict(solver) if is_dataclass(solver) else {},  # type: ignore[arg-type]
            "area": self.area,
            "budget": self.budget,
            "n_steps": self.n_steps,
            "max_seconds": self.max_seconds,
            "seed": self.seed,
            "precision": self.precision,
        }
