"""Patterns, attribution maps and scores as matplotlib figures, from plain rows and Tensors."""

from captum_classpattern.visualization.maps import plot_maps

__all__ = ["plot_maps"]
