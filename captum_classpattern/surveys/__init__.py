"""All classes of a model: their patterns, scored, in a folder that a search can resume from."""

from captum_classpattern.scores import Scores
from captum_classpattern.surveys.explain import explain_class
from captum_classpattern.surveys.findings import Finding, stands_out
from captum_classpattern.surveys.results import Survey, survey

__all__ = [
    "Finding",
    "Scores",
    "Survey",
    "explain_class",
    "stands_out",
    "survey",
]
