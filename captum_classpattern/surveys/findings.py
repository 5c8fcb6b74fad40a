"""What a survey finds for a class: its patterns, and their scores next to their controls."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from captum_classpattern.pattern import Pattern
from captum_classpattern.scores.intervals import Interval
from captum_classpattern.scores.power import (
    ENOUGH_IMAGES,
    PredictivePower,
    beats,
    interval_above,
)


@dataclass(frozen=True)
class Scores:
    """A pattern's predictive power at one area, and its controls at the same area.

    ``control_images`` is the number of images on which random pixels and the other canvas were
    scored; None if these were all images.
    """

    power: PredictivePower
    random_pixels: float
    other_canvas: float
    control_images: int | None = None

    @property
    def strongest_control(self) -> float:
        """The largest of no pattern, random pixels, and the same mask over another canvas."""
        return max(self.power.without, self.random_pixels, self.other_canvas)

    @property
    def enough_images(self) -> bool:
        """Whether there are enough images (100) to say that a power beats its controls."""
        return self.power.n >= ENOUGH_IMAGES

    @property
    def beats_controls(self) -> bool:
        """
        Whether the power beats all three controls, on at least 100 images: the 95 % interval of
        the difference to each of them lies above 0.
        """
        n = self.control_images or self.power.n
        controls = (
            (self.power.without, self.power.n),
            (self.random_pixels, n),
            (self.other_canvas, n),
        )
        return beats(self.power, controls)

    def interval_above(self, value: float, n: int) -> Interval:
        """
        The 95 % interval of the difference between the power and another share, of n images; see
        :func:`~captum_classpattern.scores.intervals.newcombe`.
        """
        return interval_above(self.power, value, n)

    def as_dict(self) -> dict[str, Any]:
        """Plain numbers, for JSON."""
        return {
            "power": self.power.value,
            "interval": list(self.power.interval),
            "n": self.power.n,
            "no_pattern": self.power.without,
            "random_pixels": self.random_pixels,
            "other_canvas": self.other_canvas,
            "control_images": self.control_images,
        }

    @classmethod
    def from_dict(cls, row: Mapping[str, Any]) -> "Scores":
        """The scores that :meth:`as_dict` wrote."""
        low, high = row["interval"]
        power = PredictivePower(row["power"], (low, high), row["n"], row["no_pattern"])
        return cls(power, row["random_pixels"], row["other_canvas"], row.get("control_images"))


def stands_out(scores: Mapping[int, Scores], target: int, n_classes: int) -> bool:
    r"""
    Whether a class's pattern stands out among those of all classes of the model.

    It does if all classes were searched, if its power is above that of every other class (the
    95 % interval of each difference lies above 0, see
    :func:`~captum_classpattern.scores.intervals.newcombe`), and if it beats its controls
    (:attr:`Scores.beats_controls`, which needs at least 100 images).

    The intervals are over the images. They do not include how much another seed or canvas would
    change.

    Args:
        scores (Mapping[int, Scores]): The scores of each class that was searched, on one kind of
            canvas and at one area: :meth:`Survey.scores`.
        target (int): The class.
        n_classes (int): Number of classes that the model has.

    Returns:
        *bool*: Also False if there are too few classes or images to say so.

    Examples::

        >>> from captum_classpattern.scores.power import power_of
        >>> strong, weak = power_of(400, 500, 5), power_of(90, 500, 5)
        >>> scores = {0: Scores(strong, 0.02, 0.02), 1: Scores(weak, 0.02, 0.02)}
        >>> stands_out(scores, 0, n_classes=2), stands_out(scores, 0, n_classes=10)
        (True, False)
    """
    first = scores[target]
    powers = (other.power for y, other in scores.items() if y != target)
    return (
        len(scores) == n_classes > 1
        and first.beats_controls
        and all(first.interval_above(power.value, power.n)[0] > 0 for power in powers)
    )


@dataclass(frozen=True)
class Finding:
    """The best pattern of one class on one kind of canvas for each area, and its scores."""

    patterns: dict[float, Pattern]
    canvas: str
    scores: dict[float, Scores]
    class_name: str | None = None

    @property
    def pattern(self) -> Pattern:
        """The pattern of the first area."""
        return next(iter(self.patterns.values()))

    @property
    def target(self) -> int:
        """The patterns' class."""
        return self.pattern.target

    @property
    def label(self) -> str:
        """The name of the class, or its number."""
        return str(self.target) if self.class_name is None else self.class_name

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return {
            "class": self.target,
            "class_name": self.class_name,
            "canvas": self.canvas,
            "areas": {
                str(area): {
                    **scores.as_dict(),
                    "search_power": self.patterns[area].info["search_power"],
                    "passes": self.patterns[area].info["passes"],
                    "precision": self.patterns[area].info.get("precision"),
                }
                for area, scores in self.scores.items()
            },
            "search_images_hash": self.pattern.info["search_images_hash"],
            "settings": self.pattern.info["settings"],
        }
