"""What a user hands in: taken, or refused with an error that says what to do."""

import difflib
from collections.abc import Iterable, Sequence
from dataclasses import fields
from numbers import Integral, Real
from typing import Any

import torch
from torch import Tensor


class ArgumentTypeError(TypeError):
    """An argument of a wrong type. The command line shows these as a line, but a plain
    ``TypeError``, which is a fault of the code, with its traceback."""


class Notice(UserWarning):
    """What the package has done on the caller's behalf, and how to say it otherwise."""


def check_pixels(images: Any, name: str, *, slack: float = 0.0) -> None:
    """Raises an error unless these are images (N, C, H, W), finite and in [0, 1] (plus slack)."""
    if not isinstance(images, Tensor) or not images.is_floating_point():
        kind = images.dtype if isinstance(images, Tensor) else type(images).__name__
        hint = ": divide by 255" if kind is torch.uint8 else ""
        raise ArgumentTypeError(
            f"{name} must be a floating point Tensor (N, C, H, W), got {kind}{hint}"
        )
    if images.ndim != 4:
        raise ValueError(f"{name} must be (N, C, H, W), got shape {tuple(images.shape)}")
    if images.numel() == 0:
        raise ValueError(f"{name} has no images or no pixels, got shape {tuple(images.shape)}")
    if not bool(torch.isfinite(images).all()):
        raise ValueError(f"{name} has NaN or infinite pixels: check how the images are loaded")
    low, high = float(images.detach().min()), float(images.detach().max())
    if low < -slack or high > 1 + slack:
        raise ValueError(
            f"{name} must have pixels in [0, 1], got values from {low:.4g} to {high:.4g}; these "
            "look like normalised images: give plain pixels, and wrap the model in "
            "PixelClassifier(model, mean, std), which normalises inside"
            + (
                "; captum's NoiseTunnel adds noise with stdevs=1.0 by default, which is too much "
                "for pixels: pass stdevs=0.05 or less"
                if slack
                else ""
            )
        )


def parse_labels(labels: Any, count: int, name: str) -> Tensor:
    """Labels as int64 (count,) on the CPU, or an error that says what is wrong with them."""
    try:
        tensor = torch.as_tensor(labels)
    except (TypeError, ValueError, RuntimeError) as error:
        raise ArgumentTypeError(
            f"the labels of {name} must be integers, got {labels!r:.80}"
        ) from error
    if tensor.is_floating_point() or tensor.is_complex() or tensor.dtype == torch.bool:
        raise ArgumentTypeError(f"the labels of {name} must be integers, got {tensor.dtype}")
    if tensor.shape != (count,):
        raise ValueError(
            f"{name} has {count} images, so its labels must have shape ({count},), got "
            f"{tuple(tensor.shape)}"
        )
    return tensor.detach().to("cpu", torch.int64)


def is_whole(value: Any) -> bool:
    """Whether this is an integer: Python's or NumPy's, but no bool."""
    return isinstance(value, Integral) and not isinstance(value, bool)


def as_arguments(additional_forward_args: Any) -> tuple[Any, ...]:
    """Captum's additional arguments (None, one, or a tuple of them) as a tuple."""
    if additional_forward_args is None:
        return ()
    single = not isinstance(additional_forward_args, tuple)
    return (additional_forward_args,) if single else additional_forward_args


def check_seed(seed: Any) -> int:
    """The seed as an int, or an error unless it is a whole number that is not negative."""
    if not is_whole(seed) or not 0 <= seed < 2**63:
        raise ValueError(f"seed must be a whole number from 0 to 2**63 - 1, got {seed!r}")
    return int(seed)


def to_plain_numbers(settings: Any) -> None:
    """Makes the numbers of a frozen dataclass Python's own: JSON can't hold NumPy's."""
    for field in fields(settings):
        value = getattr(settings, field.name)
        if isinstance(value, Real) and not isinstance(value, bool):
            plain = int(value) if isinstance(value, Integral) else float(value)
            object.__setattr__(settings, field.name, plain)


def check_count(name: str, value: Any) -> None:
    """Raises an error unless a setting is a whole number from 1."""
    if not is_whole(value) or value < 1:
        raise ValueError(f"{name} must be a whole number from 1, got {value!r}")


def check_same_shape(canvases: Tensor, shape: tuple[int, ...]) -> None:
    """Raises an error unless canvases and baselines are of one (C, H, W)."""
    if canvases.shape[1:] != shape:
        raise ValueError(
            f"canvases and baselines must be of one shape (C, H, W), got canvases of "
            f"{tuple(canvases.shape[1:])} and baselines of {shape}"
        )


SHOWN = 10


def few(names: Sequence[str]) -> str:
    """The first ten names, and how many more there are."""
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """The end of a message that refuses a name: the closest known names, else the first few."""
    by_lower = {other.lower(): other for other in known}
    close = difflib.get_close_matches(name.lower(), by_lower, n=3)
    shown = [by_lower[other] for other in close]
    return f": did you mean {' or '.join(shown)}?" if shown else f"; there are {few([*known])}"
