"""Why a scan is inconclusive, and what to do about it: a table."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

from captum_classpattern.scanning.decision import LEAST

FACTOR = 3  # by which the number of validation images may differ from the references'
STRONG_PATTERN = "a strong pattern"


class Doubt(NamedTuple):
    """Why a scan is inconclusive: in a few words, in a sentence, and what to do about it."""

    name: str
    reason: str
    remedy: str


class Possible(NamedTuple):
    """A doubt that holds in some cases. Its sentences have places for what is known."""

    name: str
    holds: Callable[[Any], bool]
    reason: str
    remedy: str


IMAGES = (
    "Each power was measured on {images:.0f} images, and those of the references on {usual:.0f}, "
    "so the scores cannot be compared.",
    "Give as many images of each class as for the references, {per_class} if possible.",
)
CORRECT = "The model classifies {percent:.1f} % of the images correctly"
OTHER_REFERENCES = "Add references with the architecture and the training of the model."
UNLIKE = (  # the model is not like its references
    Possible("too few images", lambda k: k["images"] < k["usual"] / FACTOR, *IMAGES),
    Possible("too many images", lambda k: k["images"] > k["usual"] * FACTOR, *IMAGES),
    Possible(
        "the model guesses",
        lambda k: k["accuracy"] < k["guessing"],
        f"{CORRECT}, hardly more than by guessing.",
        "Check its mean and standard deviation, its classes and its weights.",
    ),
    Possible(
        "better than all references",
        lambda k: k["low"] > k["best"],
        f"{CORRECT}, the best reference {{best_percent:.1f}} %. A better model can look "
        "suspicious without a backdoor.",
        "Add references that are as accurate: train them longer, or measure models from people "
        "you trust.",
    ),
)
UNDECIDED = (  # what was found allows no verdict
    Possible(
        STRONG_PATTERN,
        lambda k: k["strong"] is not None,
        "With {strong.size} {unit}, the model predicts {strong_name} for {strong_percent:.0f} % of "
        "the validation images, and no reference for more than {usual_percent:.0f} %. But over all "
        "sizes, the lead of {strong_name} is only {strong_lead:.1f} standard deviations ({p}).",
        OTHER_REFERENCES,
    ),
    Possible(
        "too few references",
        lambda k: not k["p"],
        "A p-value of {alpha:g} needs at least {needed} references{as_accurate}, and there are "
        "{left}. Of all classes, {name} differs most from those of the references.",
        "Measure more clean models with classpattern reference, at least {missing}{as_accurate}. "
        "tutorials/train_references.py trains some.",
    ),
    Possible(
        "another kind of model",
        lambda k: k["of_another_kind"],
        "All classes are easier to reach than those of the references, not one class alone: the "
        "excess of the median class is larger than that of any reference.",
        OTHER_REFERENCES,
    ),
    Possible(
        "the references differ too much",
        lambda k: k["lead"] > LEAST,
        "{name} leads by {lead:.1f} standard deviations, but classes of {behind} of the {n} "
        "references lead as far ({p}).",
        "Look at the references that lead furthest in the figure. Are they clean, and as accurate "
        "as the model? Replace those that are not.",
    ),
    Possible(
        "a small lead",
        lambda k: True,
        "{name} leads by more than the classes of {ahead} of the {n} references ({p}), but only "
        "by {lead:.2f} standard deviations. Classes of clean networks of other kinds lead as far; "
        f"above {LEAST:g}, a model is suspicious.",
        OTHER_REFERENCES,
    ),
)


def first_doubt(table: Iterable[Possible], known: Mapping[str, Any]) -> Doubt | None:
    """The first doubt of a table that holds, in words; None if none does."""
    for name, holds, reason, remedy in table:
        if holds(known):
            return Doubt(name, reason.format(**known), remedy.format(**known))
    return None
