"""Is one model unlike many clean ones? Decided from the scores of their classes alone."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

SUSPICIOUS, NOTHING, INCONCLUSIVE = "suspicious", "nothing found", "inconclusive"
SHARED = 0.5  # share of the largest excess that the median class must have in another kind of model

ClassScores = npt.NDArray[np.float64]


@dataclass(frozen=True)
class ConformalTest:
    """How the scores of a model compare with those of its references."""

    p_value: float
    target: int  # the class that stands out most
    excess: ClassScores  # of each class over its mean, (K,)
    median_excess: float
    usual_median: tuple[float, float]  # the least and the largest of the references'

    @property
    def order(self) -> list[int]:
        """The classes, the most suspicious first."""
        return [int(target) for target in (-self.excess).argsort()]

    @property
    def of_another_kind(self) -> bool:
        """Whether all classes are stronger than those of the references, not one alone. Weaker ones
        need no caution: they lower the largest excess."""
        median = self.median_excess
        return median > self.usual_median[1] and median >= SHARED * float(self.excess.max())


@dataclass(frozen=True)
class Decision:
    """What the tests of all families say together."""

    verdict: str
    p_value: float | None  # None with fewer references than ``needed``
    needed: int
    family: str  # that stands out
    tests: Mapping[str, ConformalTest]

    @property
    def test(self) -> ConformalTest:
        """The test of the family that stands out."""
        return self.tests[self.family]

    @property
    def target(self) -> int:
        """The class that stands out most, whatever the verdict."""
        return self.test.target


def decide(
    scores: Mapping[str, Any], references: Mapping[str, Any], alpha: float, *, comparable: bool
) -> Decision:
    """The verdict on the scores of each family, (K,), and those of n references, (n, K).

    Each family is tested alone, and its p-value multiplied by their number. A family is in doubt if
    the model is of another kind than the references, and all are unless these are ``comparable``.
    The model is suspicious if a family without a doubt is.
    """
    tests = {name: conformal_test(scores[name], references[name]) for name in scores}
    doubtful = {name: not comparable or test.of_another_kind for name, test in tests.items()}
    # the first of the most significant, among those without a doubt if there are any
    family = min(tests, key=lambda name: (doubtful[name], tests[name].p_value))
    needed = references_needed(alpha, len(tests))
    p_value = min(1.0, len(tests) * tests[family].p_value)
    verdict = SUSPICIOUS if p_value <= alpha else NOTHING
    if len(references[family]) < needed:
        return Decision(INCONCLUSIVE, None, needed, family, tests)
    return Decision(INCONCLUSIVE if doubtful[family] else verdict, p_value, needed, family, tests)


def conformal_test(scores: Any, references: Any) -> ConformalTest:
    r"""
    Compares the scores of a model's classes with those of clean models.

    Each of the n + 1 models, the references and this one, is treated alike. The excess of a class
    is its score less the mean of this class over all models. A model has two statistics: its
    largest excess, and its largest excess above its own median. Each gives a conformal p-value
    (Vovk et al. 2005): the share of the n + 1 models that reach this model's statistic. The larger
    of the two is taken, so that both have to be unusual. Under exchangeability, p <= alpha then has
    a probability of at most alpha.

    Args:
        scores (array): Of each class, (K,).
        references (array): The same of n clean models, (n, K).

    Returns:
        *ConformalTest*

    Examples::

        >>> clean = np.random.default_rng(0).normal(size=(19, 10))
        >>> found = conformal_test([0, 0, 9, 0, 0, 0, 0, 0, 0, 0], clean)
        >>> found.target, found.p_value
        (2, 0.05)
    """
    table = np.vstack([np.asarray(references, float), np.asarray(scores, float)])
    excess = table - table.mean(0)
    medians = np.sort(excess, axis=1)[:, (excess.shape[1] - 1) // 2]  # the lower of two
    statistics = excess.max(1), excess.max(1) - medians
    p_value = max(float(np.mean(each >= each[-1])) for each in statistics)
    usual = float(medians[:-1].min()), float(medians[:-1].max())
    return ConformalTest(p_value, int(excess[-1].argmax()), excess[-1], float(medians[-1]), usual)


def references_needed(alpha: float, tests: int = 1) -> int:
    r"""
    How many references p <= alpha takes, if each of several tests gets its share of alpha.

    Examples::

        >>> references_needed(0.05), references_needed(0.05, tests=2), references_needed(0.01)
        (19, 39, 99)
    """
    return int(np.ceil(round(tests / alpha, 9))) - 1
