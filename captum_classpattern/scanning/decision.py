"""Is one model unlike many clean ones? Decided from the scores of their classes alone."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

SUSPICIOUS, NOTHING, INCONCLUSIVE = "suspicious", "nothing found", "inconclusive"
SHARED = 0.5  # share of the largest excess that the median class must have in another kind of model
STEADY = 0.1  # least variance of a class, as a share of the family's mean variance
LEAST = 4.5  # standard deviations: clean networks of other kinds are closer to their references

ClassScores = npt.NDArray[np.float64]


class Doubt(NamedTuple):
    """Why a scan is inconclusive: in a few words, in a sentence, and what to do about it."""

    name: str
    reason: str
    remedy: str


@dataclass(frozen=True)
class FamilyComparison:
    """How the classes of a model compare with those of its references, in one family."""

    excess: ClassScores  # of each class over its mean, (K,)
    standardised: ClassScores  # the excess of each class, see :func:`decide`, (K,)
    usual_standardised: ClassScores  # that of the first class of each reference, (n,)
    of_another_kind: bool  # all classes are stronger than those of the references, not one alone

    @property
    def largest(self) -> float:
        """The standardised excess of the first class."""
        return float(self.standardised.max())

    @property
    def order(self) -> list[int]:
        """The classes, the most suspicious first."""
        return [int(target) for target in (-self.standardised).argsort(kind="stable")]

    @property
    def target(self) -> int:
        """The first class."""
        return self.order[0]


@dataclass(frozen=True)
class Decision:
    """What all families say together.

    Attributes:
        verdict (str): ``"suspicious"``, ``"nothing found"`` or ``"inconclusive"``.
        p_value (float or None): How often a clean model like the references would look at least as
            suspicious; None if there are too few references for ``alpha``.
        needed (int): How many references ``alpha`` needs.
        bound (float or None): The standardised excess above which a model can be suspicious, 4.5;
            None if there are too few references for ``alpha``.
        family (str): The one with the largest standardised excess: ``"patches"``, ``"additive"`` or
            ``"warp"``.
        comparisons (dict[str, FamilyComparison]): How the classes compare, for each family.
    """

    verdict: str
    p_value: float | None
    needed: int
    bound: float | None
    family: str
    comparisons: Mapping[str, FamilyComparison]

    @property
    def comparison(self) -> FamilyComparison:
        """That of the family with the largest standardised excess."""
        return self.comparisons[self.family]

    @property
    def target(self) -> int:
        """The class with the largest standardised excess, whatever the verdict."""
        return self.comparison.target


def decide(
    scores: Mapping[str, Any], references: Mapping[str, Any], alpha: float, *, comparable: bool
) -> Decision:
    r"""
    The verdict on a model, from its classes' scores in each family and those of clean models.

    Each of the n + 1 models, the references and this one, is treated alike. The excess of a class
    is its score less the mean of this class over all models. Less the model's median excess, it is
    standardised by the mean and the standard deviation of the same class in the other models. The
    statistic of a model is its largest standardised excess of all classes and families. The p-value
    is the share of the n + 1 models whose statistic is at least as large (conformal, Vovk et al.
    2005): for a model that is like its references, p <= alpha has a probability of at most alpha.
    Clean models of other kinds also lie outside their references, but not far. So a suspicious
    model must also have a statistic above 4.5. If p-value and statistic disagree, the verdict is
    "inconclusive".

    Args:
        scores (Mapping): Of each family, an array (K,).
        references (Mapping): The same of n clean models, (n, K).
        alpha (float): The largest p-value that is suspicious.
        comparable (bool): Whether the model may be compared with the references.

    Returns:
        *Decision*

    Examples::

        >>> clean = np.random.default_rng(0).normal(size=(19, 10))
        >>> scores = {"patches": [0, 0, 9, 0, 0, 0, 0, 0, 0, 0]}
        >>> found = decide(scores, {"patches": clean}, 0.05, comparable=True)
        >>> found.verdict, found.target, found.p_value
        ('suspicious', 2, 0.05)
    """
    statistics, comparisons = [], {}
    for name, values in scores.items():
        table = np.vstack([np.asarray(references[name], float), np.asarray(values, float)])
        excess = table - table.mean(0)
        medians = np.sort(excess, axis=1)[:, (excess.shape[1] - 1) // 2]  # the lower of two
        standardised = standardise(excess - medians[:, None]).round(9)  # equal leads stay equal
        statistics.append(standardised.max(1))
        comparisons[name] = FamilyComparison(
            excess[-1],
            standardised[-1],
            statistics[-1][:-1],
            # weaker ones need no caution: they lower the largest excess
            bool(medians[-1] > medians[:-1].max() and medians[-1] >= SHARED * excess[-1].max()),
        )
    largest = np.max(statistics, axis=0)  # of each model
    family = max(comparisons, key=lambda name: comparisons[name].largest)
    n, needed = len(largest) - 1, references_needed(alpha)
    if n < needed:
        return Decision(INCONCLUSIVE, None, needed, None, family, comparisons)
    p_value = float(np.mean(largest >= largest[-1]))
    as_far = int(np.floor(round(alpha * (n + 1), 9)))  # models that may be so, with this one
    passed = float(np.sort(largest[:-1])[-as_far])  # by models whose p-value is at most alpha
    rare, far = not largest[-1] <= passed, bool(largest[-1] > LEAST)  # NaN clears no model
    verdict = SUSPICIOUS if rare else NOTHING
    if not comparable or comparisons[family].of_another_kind or rare != far:
        verdict = INCONCLUSIVE
    return Decision(verdict, p_value, needed, LEAST, family, comparisons)


def standardise(values: ClassScores) -> ClassScores:
    """Each value, (n + 1, K), less the mean of the others of its column, by their standard
    deviation."""
    n, centred = len(values) - 1, values - values.mean(0)
    deviations: ClassScores = centred
    if n > 1:
        means = -centred / n  # of the others
        variances = ((centred**2).sum(0) - centred**2) / n - means**2
        least = (STEADY * variances.mean(1, keepdims=True)).clip(min=1e-12)
        deviations = (centred - means) / np.sqrt(np.maximum(variances, least))
    return deviations


def references_needed(alpha: float) -> int:
    r"""
    How many references p <= alpha needs.

    Examples::

        >>> references_needed(0.05), references_needed(0.01)
        (19, 99)
    """
    return int(np.ceil(round(1 / alpha, 9))) - 1
