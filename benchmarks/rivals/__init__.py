"""Published methods to compare with, written from the papers. The four classes are methods of
``compare``: ``classpattern compare ... --methods ClassPattern,benchmarks.rivals:NeuralCleanse``."""

from .inversion import Inversion, neural_cleanse, pixel_inversion
from .margins import mm_bd, mm_bd_p_value
from .methods import NeuralCleanse, PixelInversion, UniversalPatch, UniversalPerturbation
from .noise import cbd, cbd_alarm
from .universal import universal_patch, universal_perturbation

__all__ = [
    "Inversion", "NeuralCleanse", "PixelInversion", "UniversalPatch", "UniversalPerturbation",
    "cbd", "cbd_alarm", "mm_bd", "mm_bd_p_value", "neural_cleanse",
    "pixel_inversion", "universal_patch", "universal_perturbation",
]  # fmt: skip
