"""One search: its objective, its schedule, its solvers, and its pool of canvases."""

from captum_classpattern.optimization.attribution import ClassPattern
from captum_classpattern.optimization.canvases import select_canvases
from captum_classpattern.optimization.features import Cells, grid_cells
from captum_classpattern.optimization.search import Search, Solver
from captum_classpattern.optimization.solvers import SOLVERS, Learned, MovingPatch, PaperLoop, Swap

__all__ = [
    "SOLVERS",
    "Cells",
    "ClassPattern",
    "Learned",
    "MovingPatch",
    "PaperLoop",
    "Search",
    "Solver",
    "Swap",
    "grid_cells",
    "select_canvases",
]
