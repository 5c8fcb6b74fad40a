"""Patterns, attribution maps and scores as matplotlib figures, from plain rows and Tensors."""

from captum_classpattern.visualization.maps import plot_maps
from captum_classpattern.visualization.patterns import plot_patterns

__all__ = ["plot_maps", "plot_patterns"]
