"""Checks of the arguments that users pass. Every error says what to do about it."""

import difflib
import importlib
import inspect
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import fields
from numbers import Integral, Real
from typing import Any

import torch
from torch import Tensor

MAX_NAMES = 10  # in a message


class ArgumentTypeError(TypeError):
    """An argument has the wrong type. The command line prints these errors in one line, but a
    plain ``TypeError``, which is a bug, with its traceback."""


class Notice(UserWarning):
    """Says what the package decided for the caller, and how to decide otherwise."""


def check_options(
    function: Callable[..., Any], options: Mapping[str, Any], known: type[Any]
) -> None:
    """Raises an error if a function got keywords that are neither its own arguments nor in the
    TypedDict of its options."""
    own = [name for name in inspect.signature(function).parameters if name != "self"]
    names = [*own[:-1], *known.__annotations__]  # the last one is **options
    for name in (name for name in options if name not in names):
        similar = similar_names(name, names)
        hint = f": {similar}" if similar else f"; there are {join_names(names, len(names))}"
        raise ArgumentTypeError(f"{function.__qualname__} has no argument `{name}`{hint}")


def import_named(name: str, shown: str) -> Callable[..., Any]:
    """A user's function or class, given as package.module:name; ``shown`` is how errors begin."""
    module_name, _, own = name.rpartition(":")
    if not all(map(str.isidentifier, module_name.split("."))):
        raise ValueError(
            f"{shown}: {module_name!r} is not a module: give MODULE:NAME, with dots and without .py"
        )
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if f"{module_name}.".startswith(f"{error.name}."):
            raise ImportError(
                f"{shown}: there is no module {error.name!r}: give MODULE:NAME, with dots and "
                "without .py; run this in the folder that has it, or set PYTHONPATH"
            ) from error
        raise ImportError(
            f"{shown}: {module_name} imports {error.name!r}, which is not installed"
        ) from error
    named: Callable[..., Any] | None = getattr(module, own, None)
    if not callable(named):
        others = [n for n, value in vars(module).items() if callable(value) and n[0] != "_"]
        hint = suggest_names(own, others) if others else ""
        raise ValueError(f"{shown}: {module_name} has no function or class {own!r}{hint}")
    return named


def import_optional(name: str, *, required: bool = True) -> Any:
    """Imports a package whose extra has its name. A missing one is an error, or None."""
    try:
        return importlib.import_module(name)
    except ImportError as error:
        if not required:
            return None
        if isinstance(error, ModuleNotFoundError) and error.name == name:
            raise ImportError(
                f"this needs {name}, which is not installed: pip install "
                f"'captum_classpattern[{name}]'"
            ) from error
        raise


def check_float_tensor(value: Any, name: str, form: str) -> None:
    """Raises an error unless this is a floating point Tensor; ``form`` completes the message."""
    if not isinstance(value, Tensor) or not value.is_floating_point():
        kind = value.dtype if isinstance(value, Tensor) else type(value).__name__
        hint = ": divide by 255" if kind is torch.uint8 else ""
        if isinstance(value, Tensor) and value.ndim == 1:
            hint = ": these look like labels; give images with labels as a pair, (images, labels)"
        raise ArgumentTypeError(f"{name} must be a floating point Tensor {form}, got {kind}{hint}")


def check_unit_range(tensor: Any, name: str, form: str = "in [0, 1]") -> None:
    """Raises an error unless this is a floating point Tensor whose values lie in [0, 1]."""
    check_float_tensor(tensor, name, form)
    low, high = map(float, tensor.detach().aminmax()) if tensor.numel() else (0, 1)
    if not (low >= 0 and high <= 1):  # written so that NaN fails too
        raise ValueError(f"{name} must lie in [0, 1], got {values_from(low, high)}")


def check_pixels(images: Any, name: str, *, slack: float = 0.0, allow_bytes: bool = False) -> None:
    """Raises an error unless these are finite images (N, C, H, W) in [-slack, 1 + slack], or images
    of uint8, if allowed."""
    are_bytes = allow_bytes and isinstance(images, Tensor) and images.dtype == torch.uint8
    if not are_bytes:
        check_float_tensor(images, name, "(N, C, H, W)")
    if images.ndim != 4:
        raise ValueError(f"{name} must be (N, C, H, W), got shape {tuple(images.shape)}")
    if images.numel() == 0:
        raise ValueError(f"{name} has no images or no pixels, got shape {tuple(images.shape)}")
    if are_bytes:
        return
    low, high = map(float, images.detach().aminmax())  # one pass; NaN if any is
    if not (math.isfinite(low) and math.isfinite(high)):
        raise ValueError(f"{name} has NaN or infinite pixels: check how the images are loaded")
    if low < -slack or high > 1 + slack:
        hint = "these look like normalised images: give plain pixels, and let the model normalise "
        hint += "them: pass `mean` and `std`, or wrap it in PixelClassifier(model, mean, std)"
        if low > -1e-4:
            hint = "divide by 255" if high > 10 else "scale or clamp them"
        elif slack:
            hint += "; with captum's NoiseTunnel, pass stdevs=0.05 or less"
        raise ValueError(f"{name} must have pixels in [0, 1], got {values_from(low, high)}: {hint}")


def values_from(low: float, high: float) -> str:
    """Such as "values from 0 to 255", also if the largest value hardly differs from 1."""
    shown = f"1 + {high - 1:.1g}" if 1 < high < 1.0005 else f"{high:.4g}"
    return f"values from {low:.4g} to {shown}"


def check_fits(images: Any, shape: Sequence[int], name: str, owner: str) -> None:
    """Raises an error unless these are images (N, C, H, W), or one image, of this (C, H, W)."""
    check_float_tensor(images, name, "in [0, 1]")
    c, h, w = shape
    if images.ndim not in (3, 4) or images.shape[-3:] != (c, h, w):
        raise ValueError(
            f"{name} must be (N, {c}, {h}, {w}) or ({c}, {h}, {w}) to fit {owner}, got "
            f"{tuple(images.shape)}"
        )


def check_same_shape(canvases: Tensor, shape: tuple[int, ...], name: str = "baselines") -> None:
    """Raises an error unless canvases and other images have the same (C, H, W)."""
    if canvases.shape[1:] != shape:
        raise ValueError(
            f"canvases and {name} must be of one shape (C, H, W), got canvases of "
            f"{tuple(canvases.shape[1:])} and {name} of {shape}"
        )


def parse_labels(labels: Any, count: int, name: str) -> Tensor:
    """The labels of ``count`` images as int64 (count,) on the CPU."""
    try:
        tensor = torch.as_tensor(labels)
    except (TypeError, ValueError, RuntimeError) as error:
        raise ArgumentTypeError(
            f"the labels of {name} must be integers, or names among the model's `class_names` "
            f"(PixelClassifier(model, class_names=[...]) gives it some), got {labels!r:.80}"
        ) from error
    if tensor.is_floating_point() or tensor.is_complex() or tensor.dtype == torch.bool:
        raise ArgumentTypeError(f"the labels of {name} must be integers, got {tensor.dtype}")
    if tensor.shape != (count,):
        raise ValueError(
            f"{name} has {count} images, so its labels must have shape ({count},), got "
            f"{tuple(tensor.shape)}"
        )
    parsed = tensor.detach().to("cpu", torch.int64)
    if count and int(parsed.min()) < 0:
        raise ValueError(f"the labels of {name} include {int(parsed.min())}: classes count from 0")
    return parsed


def check_labels(labels: Tensor | None, classes: int, name: str) -> None:
    """Raises an error if there are labels that a model with so many classes does not have."""
    if labels is None or not len(labels) or (high := int(labels.max())) < classes:
        return
    low = int(labels.min())
    hint = "subtract 1?" if low > 0 and high == classes else "give the model's class numbers"
    raise ValueError(
        f"the labels of {name} go from {low} to {high}, but the model has {classes} classes, "
        f"numbered from 0 to {classes - 1}: {hint}"
    )


def is_whole(value: Any) -> bool:
    """Whether the value is an integer (Python's or NumPy's) and not a bool."""
    return isinstance(value, Integral) and not isinstance(value, bool)


def check_count(name: str, value: Any, least: int = 1) -> None:
    """Raises an error unless the value is a whole number from ``least``."""
    if not is_whole(value) or value < least:
        raise ValueError(f"`{name}` must be a whole number from {least}, got {value!r}")


def check_positive(name: str, value: Any) -> None:
    """Raises an error unless the value is a finite number above 0."""
    if not isinstance(value, Real) or isinstance(value, bool) or not 0 < float(value) < math.inf:
        finite = "a finite" if value == math.inf else "a"
        raise ValueError(f"`{name}` must be {finite} number above 0, got {value!r}")


def check_seed(seed: Any) -> int:
    """The seed as an int; an error if it isn't a whole number from 0 to 2**63 - 1."""
    if not is_whole(seed) or not 0 <= seed < 2**63:
        raise ValueError(f"`seed` must be a whole number from 0 to 2**63 - 1, got {seed!r}")
    return int(seed)


def check_area(area: Any) -> None:
    """Raises an error unless an area is a number."""
    if isinstance(area, bool) or not isinstance(area, Real):
        raise ArgumentTypeError(
            f"`area` must be a number, the share of pixels to keep, got {area!r}"
        )


def check_numbers(
    settings: Any, *, counts: Sequence[str] = (), positive: Sequence[str] = ()
) -> None:
    """Raises an error unless these settings of a frozen dataclass are whole numbers from 1, or
    above 0; None will do where it is the default. Makes all numbers Python's own: JSON can't hold
    NumPy's."""
    for field in fields(settings):
        value = getattr(settings, field.name)
        if value is None and field.default is None:
            continue
        if field.name in counts:
            check_count(field.name, value)
        if field.name in positive:
            check_positive(field.name, value)
        if isinstance(value, Real) and not isinstance(value, bool):
            plain = int(value) if isinstance(value, Integral) else float(value)
            object.__setattr__(settings, field.name, plain)


def counted(number: int, one: str, many: str = "") -> str:
    """``1 canvas``, ``3,600 images``: a number with its noun, whose usual plural ends in s."""
    return f"{number:,} {one if number == 1 else many or one + 's'}"


def join_names(names: Sequence[str], most: int = MAX_NAMES) -> str:
    """The names, separated by commas; after ``most``, only how many more there are."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def similar_names(name: str, known: Iterable[str]) -> str:
    """A question for an error about an unknown name: similar known names; empty without any."""
    by_lower = {other.lower(): other for other in known}
    close = difflib.get_close_matches(name.lower()[:200], by_lower, n=3)  # it may be long
    return f"did you mean {' or '.join(by_lower[other] for other in close)}?" if close else ""


def suggest_names(name: str, known: Iterable[str]) -> str:
    """The end of an error about an unknown name: similar known names, else the first ten."""
    similar = similar_names(name, known)
    return f": {similar}" if similar else f"; there are {join_names([*known])}"
