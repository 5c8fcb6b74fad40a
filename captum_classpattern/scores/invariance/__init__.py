"""Under which changes of the pattern, or of the stamped image, predictive power stays."""

from captum_classpattern.scores.invariance.profile import (
    HalfPowerRange,
    InvarianceCurve,
    InvarianceProfile,
    invariance_profile,
)
from captum_classpattern.scores.invariance.transforms import Transform, known_transforms

__all__ = [
    "HalfPowerRange",
    "InvarianceCurve",
    "InvarianceProfile",
    "Transform",
    "invariance_profile",
    "known_transforms",
]
