"""The changes that an invariance profile tests, by name, and those that users define."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from numbers import Real
from typing import Any

import torch
from torch import Tensor

from captum_classpattern._validation import ArgumentTypeError, check_count
from captum_classpattern.pattern import Pattern
from captum_classpattern.scores.invariance import colours, geometry

TARGETS = ("pattern", "canvas", "image")


@dataclass(frozen=True)
class Transform:
    r"""
    A change of a pattern or of stamped images. The function is called as
    ``function(what, value, variant)``:

    - if ``of="pattern"``, what is the binary :class:`~captum_classpattern.Pattern`, before
      stamping; the function returns one of the same shape, and must move canvas and mask together;
    - if ``of="canvas"``, what are the pixels of the pattern's canvas, (1, C, H, W); its mask
      stays;
    - if ``of="image"``, what are the stamped images (N, C, H, W).

    Pixels lie in [0, 1], before and after. The power at a value is the mean over the variants,
    such as the directions of a shift. The function is not called at ``rest``, where nothing
    changes.

    Args:
        name (str): What tables and figures call it.
        values (Sequence[float]): How strong it is to be: the values to test.
        unit (str): Of the values.
        rest (float): The value that changes nothing.
        of (str): What is changed: ``"pattern"``, ``"canvas"`` or ``"image"``.
        function (Callable): The change.
        variants (int): In how many ways it is done, from 0 to ``variants - 1``. Default: 1.
        channels (Sequence[int], optional): The numbers of channels that it takes. Default: None
            (any).

    Raises:
        TypeError: If the function can't be called, or a value is not a number.
        ValueError: If there is no value besides ``rest``, one is given twice or is not finite, or
            ``of`` or ``variants`` does not fit.

    Examples::

        >>> def gamma(images, value, variant):
        ...     return images ** value
        >>> Transform("gamma", (0.5, 2.0), "exponent", 1.0, "image", gamma).values
        (0.5, 2.0)
        >>> from dataclasses import replace
        >>> hue = known_transforms()["hue"]
        >>> of_pattern = replace(hue, name="hue of the pattern", of="canvas")
        >>> of_pattern.variants, of_pattern.unit
        (2, 'degrees')
    """

    name: str
    values: Sequence[float]
    unit: str
    rest: float
    of: str
    function: Callable[[Any, float, int], Any]
    variants: int = 1
    channels: Sequence[int] | None = None

    def __post_init__(self) -> None:
        if self.of not in TARGETS:
            raise ValueError(f"of must be one of {', '.join(TARGETS)}, got {self.of!r}")
        if not callable(self.function):
            raise ArgumentTypeError(
                f"the function of transform {self.name!r} must be a callable "
                f"(what, value, variant), got {self.function!r:.80}"
            )
        check_count("variants", self.variants)
        values = sorted(self._number(value) for value in self.values)
        tested = [value for value in values if value != self._number(self.rest)]
        if not tested or len({*values}) < len(values):
            raise ValueError(
                f"transform {self.name!r} needs different values, and one besides its rest, "
                f"{self.rest:g}, got {self.values!r:.80}"
            )
        object.__setattr__(self, "values", tuple(tested))
        object.__setattr__(self, "rest", float(self.rest))

    def _number(self, value: Any) -> float:
        if not isinstance(value, Real) or isinstance(value, bool):
            raise ArgumentTypeError(
                f"the values of transform {self.name!r} must be numbers, got {value!r:.80}"
            )
        if not math.isfinite(value):
            raise ValueError(f"the values of transform {self.name!r} must be finite, got {value}")
        return float(value)

    def of_pattern(self, pattern: Pattern, value: float, variant: int) -> Pattern:
        """The changed pattern; the same if this changes the stamped images."""
        if self.of == "image" or value == self.rest:
            return pattern
        if self.of == "canvas":
            canvas = self._checked(pattern.canvas[None], value, variant)
            return replace(pattern, canvas=canvas[0])
        changed = self.function(pattern, value, variant)
        if not isinstance(changed, Pattern) or changed.canvas.shape != pattern.canvas.shape:
            raise ArgumentTypeError(
                f"transform {self.name!r} must return a Pattern of the same shape at {value:g}, "
                f"got {changed!r:.80}"
            )
        return changed

    def of_images(self, images: Tensor, value: float, variant: int) -> Tensor:
        """The changed images (N, C, H, W); the same if this changes the pattern."""
        if self.of != "image" or value == self.rest:
            return images
        exact = torch.promote_types(images.dtype, torch.float32)  # no colours in half precision
        return self._checked(images.to(exact), value, variant)

    def fits(self, channels: int) -> bool:
        """Whether it takes images with this number of channels."""
        return self.channels is None or channels in self.channels

    def _checked(self, images: Tensor, value: float, variant: int) -> Tensor:
        changed = self.function(images, value, variant)
        if not isinstance(changed, Tensor) or changed.shape != images.shape:
            got = tuple(changed.shape) if isinstance(changed, Tensor) else repr(changed)[:80]
            raise ArgumentTypeError(
                f"transform {self.name!r} must return images of shape {tuple(images.shape)} at "
                f"{value:g}, got {got}"
            )
        low, high = map(float, changed.detach().aminmax())
        if not (low >= 0 and high <= 1):  # written so that NaN fails too
            raise ValueError(
                f"transform {self.name!r} must return pixels in [0, 1] at {value:g}, got values "
                f"from {low:g} to {high:g}: clamp them"
            )
        return changed


SHIFTS, FACTORS = (1, 2, 3, 4, 6, 8, 12), (0.25, 0.5, 0.75, 1.25, 1.5, 2)
SCALES, ANGLES = (0.5, 0.7, 0.85, 1.2, 1.5, 2), (5, 10, 20, 30, 45, 90, 180)
LOSSES, SIGMAS = (0.1, 0.25, 0.5, 0.75, 0.9), (0.5, 0.75, 1, 1.5, 2, 3)
HUES, QUALITIES = (15, 30, 60, 90, 120, 180), (90, 75, 50, 30, 15, 5)
ALL = (
    Transform("shift", SHIFTS, "pixels", 0, "pattern", geometry.shift, 4),
    Transform("wrapped shift", SHIFTS, "pixels", 0, "pattern", geometry.wrapped_shift, 4),
    Transform("scale", SCALES, "times", 1, "pattern", geometry.scale),
    Transform("rotation", ANGLES, "degrees", 0, "pattern", geometry.rotate, 2),
    Transform("pixel loss", LOSSES, "share of the pixels", 0, "pattern", geometry.lose_pixels, 3),
    Transform("brightness", FACTORS, "times", 1, "image", colours.brighten),
    Transform("contrast", FACTORS, "times", 1, "image", colours.change_contrast),
    Transform("hue", HUES, "degrees", 0, "image", colours.turn_hue, 2, (3,)),
    Transform("blur", SIGMAS, "standard deviation, pixels", 0, "image", colours.blur),
    Transform(
        "JPEG", QUALITIES, "quality", colours.NO_COMPRESSION, "image", colours.jpeg, 1, (1, 3)
    ),
)


def known_transforms() -> dict[str, Transform]:
    r"""
    The built-in transforms by their names.

    Of the pattern: ``"shift"``, ``"wrapped shift"``, ``"scale"``, ``"rotation"`` and
    ``"pixel loss"``. Of the stamped images: ``"brightness"``, ``"contrast"``, ``"hue"``,
    ``"blur"`` and ``"JPEG"``. See :doc:`../what_changes_a_pattern` for what each value is.

    Geometry takes the nearest pixel, so that masks stay binary. Colours are clipped to [0, 1].
    :func:`dataclasses.replace` gives any of them other values.

    Returns:
        *dict[str, Transform]*: In this order.

    Examples::

        >>> from dataclasses import replace
        >>> far = replace(known_transforms()["shift"], values=(4, 8, 16, 32))
        >>> far.values, far.rest
        ((4.0, 8.0, 16.0, 32.0), 0.0)
    """
    return {transform.name: transform for transform in ALL}
