"""Patterns, their searches, attribution maps and scores as matplotlib figures."""

import sys

from captum_classpattern.visualization.curves import plot_curves
from captum_classpattern.visualization.heat_map import plot_heat_map
from captum_classpattern.visualization.maps import plot_maps
from captum_classpattern.visualization.patterns import plot_patterns
from captum_classpattern.visualization.search import plot_search

__all__ = ["plot_curves", "plot_heat_map", "plot_maps", "plot_patterns", "plot_search"]

if "ipykernel" in sys.modules:
    # The first figure loads the backend of notebooks, which turns on the interactive mode by which
    # they show figures. In the rc_context of a figure, this would be undone at its end.
    from matplotlib import pyplot

    pyplot.draw_if_interactive()
