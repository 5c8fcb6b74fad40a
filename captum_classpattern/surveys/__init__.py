"""All classes of a model: their patterns, scored, in a folder from which a search can go on."""

from captum_classpattern.surveys.findings import Finding, Scores, stands_out
from captum_classpattern.surveys.survey import Survey, survey

__all__ = ["Finding", "Scores", "Survey", "stands_out", "survey"]
