"""Scores of patterns: predictive power, localisation of triggers, shape and agreement of masks."""

from captum_classpattern.scores.figure import plot_patterns
from captum_classpattern.scores.localisation import Localisation, changed_pixels, localise
from captum_classpattern.scores.power import PredictivePower, Scores, predictive_power
from captum_classpattern.scores.shape import Simplicity, mean_pairwise_iou, simplicity

__all__ = [
    "Localisation",
    "PredictivePower",
    "Scores",
    "Simplicity",
    "changed_pixels",
    "localise",
    "mean_pairwise_iou",
    "plot_patterns",
    "predictive_power",
    "simplicity",
]
