"""Solvers: how the masks of a search are found. Each is one file, and those in ``SOLVERS`` can be
chosen by name."""

from typing import Any

from captum_classpattern._validation import ArgumentTypeError
from captum_classpattern.optimization.search import Solver
from captum_classpattern.optimization.solvers.learned import Learned
from captum_classpattern.optimization.solvers.paper import PaperLoop
from captum_classpattern.optimization.solvers.swap import Swap

__all__ = ["SOLVERS", "Learned", "PaperLoop", "Swap", "find_solver"]

PARTS = ("name", "accelerates", "run")  # of a solver
SOLVERS: dict[str, type[Solver]] = {"swap": Swap, "paper": PaperLoop, "learned": Learned}


def find_solver(solver: Any) -> Solver:
    """The solver of a name, with its default settings; or the given object, if it is a solver."""
    if isinstance(solver, str) and solver in SOLVERS:
        return SOLVERS[solver]()
    if isinstance(solver, type) or not all(hasattr(solver, name) for name in PARTS):
        error = ValueError if isinstance(solver, str) else ArgumentTypeError
        raise error(
            f"solver must be one of {', '.join(SOLVERS)}, or an object with {', '.join(PARTS)} "
            f"such as PaperLoop(epochs=2), got {solver!r}"
        )
    return solver  # type: ignore[no-any-return]
