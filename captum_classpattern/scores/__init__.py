"""Scores of patterns: predictive power with intervals, localisation of triggers, shape of masks,
agreement of several searches."""

from captum_classpattern.scores.localisation import (
    Localisation,
    changed_pixels,
    localise,
)
from captum_classpattern.scores.power import (
    PredictivePower,
    Scores,
    predictive_power,
    transfer_powers,
)
from captum_classpattern.scores.shape import (
    Simplicity,
    components,
    high_frequency_share,
    simplicity,
    total_variation,
)
from captum_classpattern.scores.stability import mean_pairwise_iou

__all__ = [
    "Localisation",
    "PredictivePower",
    "Scores",
    "Simplicity",
    "changed_pixels",
    "components",
    "high_frequency_share",
    "localise",
    "mean_pairwise_iou",
    "predictive_power",
    "simplicity",
    "total_variation",
    "transfer_powers",
]
