"""Class-wise patterns for Captum: what makes a classifier say a class, on almost any image."""

from importlib.metadata import version

from captum_classpattern.attribution import ClassPattern
from captum_classpattern.canvases import select_canvases
from captum_classpattern.classifier import PixelClassifier
from captum_classpattern.comparison import Comparison, compare, known_methods
from captum_classpattern.metrics import PredictivePower, predictive_power
from captum_classpattern.pattern import Pattern
from captum_classpattern.search import SearchResult, search_masks
from captum_classpattern.visualization import plot_patterns

__version__ = version("captum_classpattern")
__all__ = [
    "ClassPattern",
    "Comparison",
    "Pattern",
    "PixelClassifier",
    "PredictivePower",
    "SearchResult",
    "compare",
    "known_methods",
    "plot_patterns",
    "predictive_power",
    "search_masks",
    "select_canvases",
]
