"""Class patterns side by side with Captum's methods, on many models."""

from captum_classpattern.comparison.controls import BestRandomMask, LearnedPattern, RandomPixels
from captum_classpattern.comparison.maps import Task
from captum_classpattern.comparison.methods import DEFAULT, known_methods
from captum_classpattern.comparison.metrics import METRICS, Metric
from captum_classpattern.comparison.records import Failure, Record
from captum_classpattern.comparison.results import Comparison, Interrupted
from captum_classpattern.comparison.run import compare

__all__ = [
    "DEFAULT",
    "METRICS",
    "BestRandomMask",
    "Comparison",
    "Failure",
    "Interrupted",
    "LearnedPattern",
    "Metric",
    "RandomPixels",
    "Record",
    "Task",
    "compare",
    "known_methods",
]
