"""What a pattern is worth: power with its controls and intervals, localisation, shape."""

from captum_classpattern.scores.localisation import (
    Localisation,
    changed_pixels,
    localisation_iou,
    localise,
)
from captum_classpattern.scores.power import PredictivePower, predictive_power
from captum_classpattern.scores.shape import Simplicity, mean_pairwise_iou, simplicity

__all__ = [
    "Localisation",
    "PredictivePower",
    "Simplicity",
    "changed_pixels",
    "localisation_iou",
    "localise",
    "mean_pairwise_iou",
    "predictive_power",
    "simplicity",
]
