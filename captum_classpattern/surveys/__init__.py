"""All classes of a model: their patterns, scored, in a folder that can be resumed."""

from captum_classpattern.surveys.survey import Finding, Scores, stands_out, survey

__all__ = ["Finding", "Scores", "stands_out", "survey"]
