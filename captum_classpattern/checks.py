"""What a user hands in: taken, or refused with an error that says what to do."""

from collections.abc import Sequence
from contextlib import suppress
from numbers import Integral
from typing import Any
from weakref import WeakSet

import torch
from torch import Tensor

from captum_classpattern.class_names import ClassNames
from captum_classpattern.classifier import (
    Classifier,
    LogProbabilities,
    additional_rows,
    placement,
    uncounted,
    warn,
)
from captum_classpattern.errors import ArgumentTypeError, Notice

ENOUGH = 20  # labelled images, to say whether a model is guessing
BETTER = 0.1  # of the way from chance to perfect: less is close to guessing
_of_probabilities: WeakSet[Any] = WeakSet()  # models whose softmax was noticed


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


def parse_targets(target: Any, count: int, forward_func: Classifier | None = None) -> list[int]:
    """Captum's target argument as one class an image: an int, an integer Tensor, or a list.

    Names of classes are taken, too, where the classifier has ``class_names``.
    """
    values: list[Any]
    if isinstance(target, Tensor) and target.dtype != torch.bool and not target.is_floating_point():
        values = target.flatten().tolist() if target.ndim <= 1 else [target]
    elif isinstance(target, list):
        values = target
    else:
        values = [target]
    names = ClassNames.of(forward_func)
    if names is not None:
        values = [names.find(value) if isinstance(value, str) else value for value in values]
    for value in values:
        if not is_whole(value):
            kind = target.dtype if isinstance(target, Tensor) else type(target).__name__
            raise ArgumentTypeError(
                "target must be an int, a 0-d or 1-d integer Tensor, or a list of ints (the class, "
                f"or one for each image), got {kind}: {target!r:.80}; names will do, too, where "
                "the model has them: PixelClassifier(model, class_names=[...])"
            )
    if len(values) == 1:
        values = values * count
    if len(values) != count:
        raise ValueError(
            f"there are {count} images, but {len(values)} targets: give one for each, or one"
        )
    targets = [int(value) for value in values]
    if min(targets) < 0:
        raise ValueError(f"target {min(targets)} is out of range: classes count from 0")
    return targets


def check_classifier(
    forward_func: Classifier,
    sample: Tensor,
    targets: Sequence[int],
    additional: tuple[Any, ...] = (),
) -> int:
    """Runs a classifier once on a few images, and says what is wrong with it, if anything is.

    Returns the number of classes.
    """
    return _outputs(forward_func, sample, targets, additional).shape[1]


def logits_of(
    forward_func: Classifier,
    sample: Tensor,
    targets: Sequence[int],
    additional: tuple[Any, ...] = (),
) -> Classifier:
    """The classifier, checked; or, with a notice, the logarithm of one that ends in a softmax."""
    outputs = _outputs(forward_func, sample, targets, additional)
    widths = outputs.element_size(), placement(forward_func, sample)[1].itemsize
    sums, slack = outputs.float().sum(1), 1e-2 if min(widths) < 4 else 1e-4
    if not (bool((outputs >= 0).all()) and bool(((sums - 1).abs() <= slack).all())):
        return forward_func
    owner: Any = getattr(forward_func, "__self__", forward_func)
    with suppress(TypeError):  # of what can't be remembered
        if owner in _of_probabilities:
            return LogProbabilities(forward_func)
        _of_probabilities.add(owner)
    warn(
        "the model's outputs are all >= 0 and sum to 1, so they look like probabilities: the "
        "search takes their logarithm; leave out the softmax to avoid this notice",
        Notice,
    )
    return LogProbabilities(forward_func)


def _outputs(
    forward_func: Classifier, sample: Tensor, targets: Sequence[int], additional: tuple[Any, ...]
) -> Tensor:
    """What a classifier returns for a few images; an error if it is no logits of these classes."""
    device, dtype = placement(forward_func, sample)
    if device != sample.device:
        raise ValueError(
            f"the images are on {sample.device}, but the model's parameters are on {device}: move "
            "one of them (a pattern, by pattern.to(device))"
        )
    with torch.no_grad(), uncounted():
        logits = forward_func(sample.to(dtype), *additional)
    check_logits(logits, len(sample))
    classes = logits.shape[1]
    wrong = sorted({t for t in targets if t >= classes})
    if wrong:
        raise ValueError(
            f"target {wrong[0]} is out of range: the model has {classes} classes, so targets go "
            f"from 0 to {classes - 1}"
        )
    return logits


def warn_if_guessing(accuracy: float, labels: Tensor, classes: int, name: str) -> None:
    """Warns where a model classifies labelled images hardly better than chance.

    Chance is the share of the largest class, or, where the images are of less than half of the
    model's classes, one in all classes.
    """
    counts = labels.bincount()
    present = int((counts > 0).sum())
    chance = float(counts.max()) / len(labels) if 2 * present > classes else 1 / classes
    if len(labels) < ENOUGH or accuracy - chance >= BETTER * (1 - chance):
        return
    warn(
        f"the model classifies only {accuracy:.1%} of {len(labels)} {name} correctly, which is "
        "close to guessing: check the mean and std that normalise its inputs (wrap a model of "
        "normalised images in PixelClassifier(model, mean, std)), the order of the classes, and "
        "the weights"
    )


def check_logits(logits: Any, count: int) -> None:
    """Raises an error unless these are finite logits (count, K) with K >= 2."""
    if not isinstance(logits, Tensor):
        raise ArgumentTypeError(
            f"the model must return logits (N, K) as one Tensor, got a {type(logits).__name__}: "
            "wrap it in PixelClassifier(model, output=...), where output is the index or key of "
            "the logits"
        )
    if logits.ndim != 2 or len(logits) != count:
        raise ValueError(
            f"the model must return logits ({count}, K) for {count} images, got shape "
            f"{tuple(logits.shape)}"
        )
    if logits.shape[1] < 2:
        raise ValueError(
            "the model returns one column, but a pattern needs at least two classes: for a binary "
            "model with logit z, return torch.cat([torch.zeros_like(z), z], dim=1)"
        )
    if not bool(logits.isfinite().all()):
        raise ValueError(
            "the model's logits are NaN or infinite: check its weights, and the mean and std that "
            "normalise its inputs"
        )


def predict(forward_func: Classifier, images: Tensor, additional: tuple[Any, ...] = ()) -> Tensor:
    """The class that a classifier says for each image (N, C, H, W); int64 (N,) on its device."""
    device, dtype = placement(forward_func, images)
    with torch.no_grad():
        logits = forward_func(images.to(device, dtype), *additional)
    check_logits(logits, len(images))
    return logits.argmax(1)


def as_arguments(additional_forward_args: Any) -> tuple[Any, ...]:
    """Captum's additional arguments (None, one, or a tuple of them) as a tuple."""
    if additional_forward_args is None:
        return ()
    single = not isinstance(additional_forward_args, tuple)
    return (additional_forward_args,) if single else additional_forward_args


def check_search_inputs(
    forward_func: Classifier, canvases: Tensor, target: Any, additional_forward_args: Any
) -> tuple[Tensor, list[int], tuple[Any, ...]]:
    """Canvases (copied), one target each, and the additional arguments as a tuple; or an error."""
    targets = parse_targets(target, len(canvases), forward_func)
    additional = tuple(
        argument.clone() if isinstance(argument, Tensor) and argument.is_inference() else argument
        for argument in as_arguments(additional_forward_args)
    )
    canvases = canvases.detach().clone()  # out of inference mode, which knows no gradients
    return canvases, targets, additional


def first_of(canvases: Tensor, additional: tuple[Any, ...]) -> tuple[Tensor, tuple[Any, ...]]:
    """The first canvas, and the additional arguments that belong to it."""
    first = torch.zeros(1, dtype=torch.int64, device=canvases.device)
    return canvases[:1], additional_rows(additional, first, len(canvases))


def check_seed(seed: Any) -> int:
    """The seed as an int, or an error unless it is a whole number that is not negative."""
    if not is_whole(seed) or not 0 <= seed < 2**63:
        raise ValueError(f"seed must be a whole number from 0 to 2**63 - 1, got {seed!r}")
    return int(seed)


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
