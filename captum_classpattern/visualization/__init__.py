"""Patterns, their searches, attribution maps and scores as matplotlib figures."""

from captum_classpattern.visualization.curves import plot_curves, plot_search
from captum_classpattern.visualization.maps import plot_maps
from captum_classpattern.visualization.overviews import plot_grid, plot_heat_map, plot_powers
from captum_classpattern.visualization.patterns import plot_patterns

__all__ = [
    "plot_curves",
    "plot_grid",
    "plot_heat_map",
    "plot_maps",
    "plot_patterns",
    "plot_powers",
    "plot_search",
]
