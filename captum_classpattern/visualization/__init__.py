"""Patterns, attribution maps and scores as matplotlib figures, from plain rows and Tensors."""

from captum_classpattern.visualization.curves import plot_curves
from captum_classpattern.visualization.heat_map import plot_heat_map
from captum_classpattern.visualization.maps import plot_maps
from captum_classpattern.visualization.patterns import plot_patterns

__all__ = [
    "plot_curves",
    "plot_heat_map",
    "plot_maps",
    "plot_patterns",
]
