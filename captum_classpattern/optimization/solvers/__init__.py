"""Solvers: how the masks of a search are found, each in one file; those in ``SOLVERS`` can be
chosen by name. A scan's changes of whole images, which have no masks, lie beside them."""

from captum_classpattern.optimization.search import Solver
from captum_classpattern.optimization.solvers.learned import Learned
from captum_classpattern.optimization.solvers.moving import MovingPatch
from captum_classpattern.optimization.solvers.paper import PaperLoop
from captum_classpattern.optimization.solvers.swap import Swap

__all__ = ["SOLVERS", "Learned", "MovingPatch", "PaperLoop", "Swap"]

SOLVERS: dict[str, type[Solver]] = {"swap": Swap, "paper": PaperLoop, "learned": Learned}
