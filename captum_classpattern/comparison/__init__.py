"""Class patterns side by side with Captum's methods, on many models."""

from captum_classpattern.comparison.asked import AREAS
from captum_classpattern.comparison.comparing import compare
from captum_classpattern.comparison.controls import ClassMean, RandomPixels
from captum_classpattern.comparison.crop import BestCrop
from captum_classpattern.comparison.methods import DEFAULT, Method, known_methods
from captum_classpattern.comparison.records import STAMPED, Failure, Record
from captum_classpattern.comparison.result import Comparison, Interrupted

__all__ = [
    "AREAS",
    "DEFAULT",
    "STAMPED",
    "BestCrop",
    "ClassMean",
    "Comparison",
    "Failure",
    "Interrupted",
    "Method",
    "RandomPixels",
    "Record",
    "compare",
    "known_methods",
]
