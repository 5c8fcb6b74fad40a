"""What a comparison measures: one record for each method, model and canvas, one failure for each
thing that failed; and means over classes."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TypeAlias, TypeVar

from torch import Tensor

from captum_classpattern.pattern import Pattern
from captum_classpattern.scores.intervals import Estimate, Measured, mean_over_classes, newcombe
from captum_classpattern.scores.power import PredictivePower

K = TypeVar("K")
T = TypeVar("T")
Score: TypeAlias = float | PredictivePower
FIRST_COLUMNS = ("model", "method", "kind", "control", "cut_from_canvas")  # of a table
STAMPED_KIND = "stamped"  # of the canvases that carry a trigger


@dataclass(frozen=True, eq=False)
class Record:
    r"""
    The map of one method for one canvas and model, and its scores. A :class:`Metric` gets it
    without these.

    Args:
        model (str): Name of the model.
        method (str): Name of the method.
        canvas (int): Index of the canvas. Stamped canvases follow those that were given.
        kind (str): Kind of the canvas; ``"stamped"`` if it carries the true trigger.
        target (int): The class.
        control (bool): Whether the method is a control, such as :class:`RandomPixels`.
        map (Tensor): One value per pixel, by which pixels are ranked, float64 (H, W).
        masks (dict[float, Tensor]): The binary mask at each area, bool (1, H, W).
        powers (dict[float, PredictivePower]): The predictive power at each area; empty for
            stamped canvases.
        searches (bool): Whether the method ran again for each area.
        scores (dict): The value of each metric by its name, such as ``scores["iou"]``. Metrics that
            do not apply are left out. While metrics are measured, it has those that the method's
            runs give: ``passes`` and ``seconds``, ``stability_seeds``, and the fields of
            :class:`Localisation`, averaged over the seeds for canvases without the trigger.
        precision (str, optional): The number format that a search computed in, such as "bfloat16".
        cut_from_canvas (bool): Whether the pixels are those of the canvas. Otherwise the method
            also chooses their colours.
        own (dict[float, Pattern]): For such a method, what it found at each area, in its own form:
            for instance with a soft mask.
        area (float): That of the comparison, at which metrics are measured.
        image (Tensor): The canvas, (C, H, W).
    """

    model: str
    method: str
    canvas: int
    kind: str
    target: int
    control: bool
    map: Tensor
    masks: dict[float, Tensor]
    powers: dict[float, PredictivePower] = field(default_factory=dict)
    searches: bool = False
    scores: dict[str, Score] = field(default_factory=dict)
    precision: str | None = None
    cut_from_canvas: bool = True
    own: dict[float, Pattern] = field(default_factory=dict)
    area: float = field(kw_only=True)
    image: Tensor = field(kw_only=True)

    @property
    def name(self) -> str:
        """The method's name, followed by "free colours" if it chooses these."""
        return full_name(self.method, self.cut_from_canvas)

    @property
    def stamped(self) -> bool:
        """Whether the canvas carries the trigger."""
        return self.kind == STAMPED_KIND

    @property
    def mask(self) -> Tensor:
        """A copy of the mask at the comparison's area, bool (1, H, W)."""
        return self.masks[self.area].clone()

    @property
    def pattern(self) -> Pattern:
        """The binary pattern at the comparison's area."""
        return self.pattern_at(self.area)

    def pattern_at(self, area: float) -> Pattern:
        """The binary pattern at one of the areas, cut from the canvas or in its own form."""
        if area in self.own:
            return replace(self.own[area], mask=self.masks[area].to(self.own[area].mask))
        return Pattern(self.image.clone(), self.masks[area].to(self.image), self.target)


def full_name(method: str, cut_from_canvas: bool) -> str:
    """The name of a method in tables and figures."""
    return method if cut_from_canvas else f"{method}, free colours"


def search_names(records: Iterable[Record]) -> list[str]:
    """Names of the methods that search a pattern of the class, and are not controls."""
    searches = (r for r in records if (r.searches or not r.cut_from_canvas) and not r.control)
    return list(dict.fromkeys(r.name for r in searches))


def control_names(records: Iterable[Record]) -> list[str]:
    """Names of the controls."""
    return list(dict.fromkeys(r.name for r in records if r.control))


def by_name(records: Iterable[Record]) -> dict[str, list[Record]]:
    """The records of each name."""
    return grouped((record.name, record) for record in records)


def grouped(pairs: Iterable[tuple[K, T]]) -> dict[K, list[T]]:
    """The values of each key, in order."""
    groups: dict[K, list[T]] = {}
    for key, value in pairs:
        groups.setdefault(key, []).append(value)
    return groups


@dataclass(frozen=True)
class Failure:
    """
    What failed, and why.

    Args:
        model (str): Name of the model.
        method (str): Name of the method.
        what (str): ``"maps"``, or the title of the metric that failed.
        reason (str): The error in one line.
    """

    model: str
    method: str
    what: str
    reason: str


# ---- means over classes


def mean_power(powers: Iterable[tuple[int, PredictivePower]]) -> Estimate:
    """The mean over classes of powers, each given with its class."""
    return mean_over_classes(grouped((y, (p.value, p.interval)) for y, p in powers))


def mean_powers(records: Sequence[Record], area: float) -> dict[str, Estimate]:
    """The mean power of each method that was scored."""
    groups = by_name([record for record in records if record.powers])
    return {name: mean_power((r.target, r.powers[area]) for r in groups[name]) for name in groups}


def mean_difference(
    records: Iterable[Record], area: float, shares: Mapping[int, float]
) -> Estimate:
    """The mean over classes of each record's power minus another share of the same images, by
    canvas: the power of another method there, or the share without a pattern."""
    differences = list[tuple[int, Measured]]()
    for record in records:
        power, share = record.powers[area], shares[record.canvas]
        hits, other_hits = (round(value * power.n) for value in (power.value, share))
        interval = newcombe(hits, power.n, other_hits, power.n)
        differences.append((record.target, (power.value - share, interval)))
    return mean_over_classes(grouped(differences))


# ---- which methods are shown

MOST_METHODS, MOST_CONTROLS = 9, 2  # methods in a figure, and controls among them, at most


def strongest_names(records: Sequence[Record], area: float) -> list[str]:
    """Names of all methods that were scored, strongest first."""
    powers = mean_powers(records, area)
    return sorted(powers, key=lambda name: -powers[name].value)


def figure_names(records: Sequence[Record], area: float) -> list[str]:
    """Names of the methods that a figure has room for: the strongest ones, and below them the
    strongest controls."""
    names, controls = strongest_names(records, area), control_names(records)
    last = [name for name in names if name in controls][:MOST_CONTROLS]
    others = [name for name in names if name not in controls]
    return [*others[: MOST_METHODS - len(last)], *last]
