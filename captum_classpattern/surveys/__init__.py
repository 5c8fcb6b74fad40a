"""All classes of a model, or of many: their patterns, scored, in a folder that a search can resume
from."""

from captum_classpattern.scores import Scores
from captum_classpattern.surveys.findings import Finding, stands_out
from captum_classpattern.surveys.grid import plot_grid
from captum_classpattern.surveys.results import Survey, SurveyInterrupted
from captum_classpattern.surveys.survey import explain_class, survey
from captum_classpattern.surveys.sweep_results import Sweep
from captum_classpattern.surveys.sweeps import sweep

__all__ = [
    "Finding",
    "Scores",
    "Survey",
    "SurveyInterrupted",
    "Sweep",
    "explain_class",
    "plot_grid",
    "stands_out",
    "survey",
    "sweep",
]
