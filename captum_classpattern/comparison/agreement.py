"""How well maps agree with those of the original model: records, rows, verdicts and a figure."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import fmean
from typing import Any

import numpy.typing as npt

from captum_classpattern.comparison.records import Failure, counted, grouped
from captum_classpattern.results import Result, as_table
from captum_classpattern.scores.intervals import FEWEST_CLASSES, bootstrap_over_classes

Layer = tuple[str, ...]  # names of modules: one, and those that run inside it unseen
MEASURES = ("iou", "correlation")


@dataclass(frozen=True)
class Agreement:
    r"""
    One map of one canvas, compared with the map that the method gave for the original model.

    Args:
        method, ranking, canvas, target: As in :class:`Record`.
        test (str): ``"layers"`` if the map is of the model with random layers, ``"labels"`` if it
            is of the other model.
        randomised (int): How many layers are random; 0 if only the seed differs.
        seed (int): Seed of the weights and of the method.
        iou (float): Intersection over union of the highest pixels of the two maps.
        correlation (float): Their rank correlation, see
            :func:`~captum_classpattern.scores.rank_correlation`.
        power (float, optional): Predictive power of the map's highest pixels on the original model;
            None without held-out images.
    """

    method: str
    ranking: str
    test: str
    randomised: int
    seed: int
    canvas: int
    target: int
    iou: float
    correlation: float
    power: float | None = None


@dataclass(frozen=True, eq=False, repr=False)
class SanityCheck(Result):
    r"""
    The outcome of :func:`sanity_check`.

    Args:
        layers (list[tuple[str, ...]]): The layers from the output to the input, each by the names
            of its modules.
        steps (list[int]): How many of them are random at each step, from 0 on.
        agreements (list[Agreement]): One for each method, ranking, step, seed and canvas.
        failures (list[Failure]): What failed, and why. ``model`` is the step.
        chance (float): The IoU of two random masks of this area, about k / (2 n - k) for k of n
            pixels.
        random_pixels (dict[int, list[float]]): For each class the power of as many random pixels of
            its canvases; empty without held-out images.
        no_pattern (dict[int, float]): For each class the share of images of other classes that are
            classified as the class without a pattern; empty without held-out images.
        settings (dict): All settings, hashes of the images, and versions.
    """

    layers: list[Layer]
    steps: list[int]
    agreements: list[Agreement]
    failures: list[Failure]
    chance: float
    random_pixels: dict[int, list[float]] = field(default_factory=dict)
    no_pattern: dict[int, float] = field(default_factory=dict)
    settings: dict[str, Any] = field(default_factory=dict)

    def __repr__(self) -> str:
        methods = len({a.method for a in self.agreements})
        canvases = len({a.canvas for a in self.agreements})
        return (
            f"SanityCheck({counted(methods, 'method')}, {counted(canvases, 'canvas', 'canvases')}, "
            f"{counted(len(self.layers), 'layer')} in {counted(len(self.steps) - 1, 'step')}, "
            f"{counted(len(self.failures), 'failure')})"
        )

    def rows(self) -> list[dict[str, Any]]:
        r"""
        The agreement at each step as plain values.

        Returns:
            *list[dict]*: One row for each method, ranking and step, with means over classes and
            their 95 % intervals (:term:`bootstrap over classes`; None with fewer than five
            classes). ``layers`` is how many layers are random (None for the other model),
            ``lowest`` is the last of them. The row of 0 layers is the agreement between seeds.
            With held-out images there are the ``power`` of each map's pixels on the original model,
            and its controls. A failure is a row whose ``failure`` gives the reason.
        """
        rows: list[dict[str, Any]] = []
        for (method, ranking, test, count), group in self._groups().items():
            row: dict[str, Any] = {
                "method": method,
                "ranking": ranking,
                "test": test,
                "layers": count if test == "layers" else None,
                "lowest": self.layers[count - 1][0] if count else None,
                "canvases": len({a.canvas for a in group}),
            }
            for measure in (*MEASURES, "power") if self.random_pixels else MEASURES:
                row |= _mean(measure, _by_class(group, measure))
            if self.random_pixels:
                row["random_pixels"] = fmean(map(fmean, self.random_pixels.values()))
                row["no_pattern"] = fmean(self.no_pattern.values())
            rows.append(row)
        return rows + [
            {"method": f.method, "failure": f"{f.model}: {f.reason}"} for f in self.failures
        ]

    def table(self) -> Any:
        """:meth:`rows` as a pandas DataFrame."""
        return as_table(self.rows())

    def verdicts(self, measure: str = "iou") -> list[dict[str, Any]]:
        r"""
        Which methods' maps change, by one rule.

        Three means over classes are compared by their 95 % intervals (:term:`bootstrap over
        classes`). *Between seeds* is the agreement of two maps of the unchanged model; it is 1 for
        a method without randomness. *After* is the agreement of the original map with the one of
        the model whose layers are all random, or of the other model. *Lost* is the difference of
        the two, canvas by canvas.

        - ``"random"``: between seeds is not above chance. The maps of the unchanged model do not
          agree with each other, so the test is not applicable.
        - ``"no change"``: lost is not above 0.
        - ``"most stays"``: lost is above 0, and after is more than half-way from chance to between
          seeds.
        - ``"part stays"``: lost is above 0, and after is above chance, but not above half-way.
        - ``"gone"``: lost is above 0, and after is not above chance.

        Args:
            measure (str): ``"iou"``, whose chance is :attr:`chance`, or ``"correlation"``, whose
                chance is 0. Default: "iou".

        Returns:
            *list[dict]*: One row for each method, ranking and test. With fewer than five classes,
            intervals and verdicts are None. With held-out images, ``power_above_random`` is how
            much more power the pixels have after than as many random ones, canvas by canvas.

        Raises:
            ValueError: If ``measure`` is neither.
        """
        if measure not in MEASURES:
            raise ValueError(f"measure must be 'iou' or 'correlation', got {measure!r}")
        groups = self._groups()
        rows = []
        for (method, ranking, test, count), group in groups.items():
            before = groups.get((method, ranking, "layers", 0))
            if before is not None and (test == "labels" or count == self.steps[-1] > 0):
                row = {"method": method, "ranking": ranking, "test": test}
                rows.append(row | self._verdict(before, group, measure))
        return rows

    def _verdict(
        self, before: Sequence[Agreement], group: Sequence[Agreement], measure: str
    ) -> dict[str, Any]:
        chance = self.chance if measure == "iou" else 0.0
        seeds, after = (_by_class(part, measure) for part in (before, group))
        lost = {y: [fmean(seeds[y]) - fmean(after[y])] for y in after}
        half = {y: [fmean(after[y]) - (fmean(seeds[y]) + chance) / 2] for y in after}
        row = _mean("between_seeds", seeds) | _mean("after", after) | _mean("lost", lost)
        row["verdict"] = None
        if row["after_low"] is not None:
            above_half = _mean("half", half)["half_low"] > 0
            rules = {
                "random": row["between_seeds_low"] <= chance,
                "no change": row["lost_low"] <= 0,
                "most stays": above_half,
                "part stays": row["after_low"] > chance,
                "gone": True,
            }
            row["verdict"] = next(verdict for verdict, holds in rules.items() if holds)
        if self.random_pixels:
            powers = _by_class(group, "power")
            above = {y: [fmean(powers[y]) - fmean(self.random_pixels[y])] for y in powers}
            row |= _mean("power", _by_class(before, "power"))
            row |= _mean("power_after", powers) | _mean("power_above_random", above)
        return row

    def _groups(self) -> dict[tuple[str, str, str, int], list[Agreement]]:
        """The agreements of each method, ranking, test and number of random layers."""
        return grouped(((a.method, a.ranking, a.test, a.randomised), a) for a in self.agreements)

    def plot(
        self, *, ranking: str = "signed", title: str | None = None, use_pyplot: bool = True
    ) -> tuple[Any, npt.NDArray[Any]]:
        """
        Draws a panel for each method: the agreement with the original map, over the share of the
        layers that are random. The left end is the agreement between seeds.

        Args:
            ranking (str): ``"signed"``, or ``"absolute"`` for the methods whose maps have negative
                values. Default: "signed".
            title (str, optional): Default: None.
            use_pyplot (bool): As in Captum's visualizer. Default: True.

        Returns:
            *tuple[Figure, ndarray]*: The figure, and its panels' axes, in order.

        Raises:
            ValueError: If no layer was randomised, or no method has this ranking.
        """
        return self._draw(**locals())


def _by_class(group: Iterable[Agreement], name: str) -> dict[int, list[float]]:
    """The values of a field for each class."""
    return grouped((agreement.target, getattr(agreement, name)) for agreement in group)


def _mean(name: str, values: Mapping[int, Sequence[float]]) -> dict[str, Any]:
    """The mean over classes and the ends of its interval; None with fewer than five classes."""
    if len(values) < FEWEST_CLASSES:
        mean, low, high = fmean(map(fmean, values.values())), None, None
    else:
        estimate = bootstrap_over_classes(values)
        mean, (low, high) = estimate.value, estimate.interval
    return {name: mean, f"{name}_low": low, f"{name}_high": high}
