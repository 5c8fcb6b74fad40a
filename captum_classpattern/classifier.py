"""Classifiers over [0, 1] pixels: the wrapper for a user's model, and calling one with care."""

import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn

Classifier: TypeAlias = Callable[..., Tensor]


class PixelClassifier(nn.Module):
    r"""
    Makes a classifier over [0, 1] pixels of a model that wants normalised ones.

    The wrapped model is used as it is: its mode (train or eval), device and precision stay.

    Args:
        model (nn.Module): Any image classifier.
        mean (float or Sequence[float], optional): Mean of the pixels, one a channel, in units
            where pixels lie in [0, 1]. Default: None (0).
        std (float or Sequence[float], optional): Standard deviation, likewise. Default: None (1).
        output (int or str, optional): Where the logits are if the model returns a tuple (an
            index such as ``-1``) or a dict (a key such as ``"logits"``). Default: None.
        class_names (Sequence[str], optional): Name of each class, for tables and plots.
            Default: None.

    Raises:
        TypeError: If ``model`` is no ``nn.Module``.
        ValueError: If a mean or std cannot belong to pixels in [0, 1].

    Examples::

        >>> resnet = torchvision.models.resnet18().eval()
        >>> classifier = PixelClassifier(
        ...     resnet, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
        >>> classifier(torch.rand(2, 3, 64, 64)).shape
        torch.Size([2, 1000])
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        model: nn.Module,
        mean: float | Sequence[float] | None = None,
        std: float | Sequence[float] | None = None,
        output: int | str | None = None,
        class_names: Sequence[str] | None = None,
    ) -> None:
        super().__init__()
        if not isinstance(model, nn.Module):
            raise TypeError(
                f"model must be a torch.nn.Module, got {type(model).__name__}; a plain function "
                "from [0, 1] pixels to logits needs no PixelClassifier"
            )
        self.model = model
        self.output = output
        self.class_names = None if class_names is None else [str(name) for name in class_names]
        self.register_buffer("mean", _per_channel(mean, 0.0, "mean"), persistent=False)
        self.register_buffer("std", _per_channel(std, 1.0, "std"), persistent=False)
        if not bool((self.std > 0).all()):
            raise ValueError(f"std must be positive, got {std}")
        self.training = model.training  # not self.train(): that would change the model

    def forward(self, images: Tensor, *additional: Any) -> Tensor:
        r"""
        Normalises, classifies and picks the logits.

        Args:
            images (Tensor): (N, C, H, W) in [0, 1].
            *additional: Handed on to the model.

        Returns:
            *Tensor*: Logits (N, K).
        """
        channels = self.mean.shape[1]
        if channels > 1 and images.shape[1] != channels:
            raise ValueError(
                f"images have {images.shape[1]} channels (shape {tuple(images.shape)}), but mean "
                f"and std are given for {channels}"
            )
        normalised = (images - self.mean.to(images)) / self.std.to(images)
        result = self.model(normalised, *additional)
        return result if self.output is None else _pick(result, self.output)


def _per_channel(value: float | Sequence[float] | None, default: float, name: str) -> Tensor:
    tensor = torch.as_tensor(default if value is None else value, dtype=torch.float64)
    if tensor.ndim > 1 or not bool(tensor.isfinite().all()):
        raise ValueError(f"{name} must be a number, or one a channel, got {value}")
    if bool((tensor.abs() > 1).any()):
        raise ValueError(f"{name} must be in units where pixels lie in [0, 1], got {value}: divide by 255")
    return tensor.view(1, -1, 1, 1)


def _pick(result: Any, output: int | str) -> Tensor:
    try:
        logits = result[output]
    except (KeyError, IndexError, TypeError) as error:
        held = f" with keys {list(result)}" if isinstance(result, dict) else ""
        length = f" of {len(result)}" if isinstance(result, tuple | list) else ""
        raise ValueError(
            f"output={output!r} does not pick the logits: the model returned a "
            f"{type(result).__name__}{length}{held}"
        ) from error
    if not isinstance(logits, Tensor):
        raise TypeError(f"output={output!r} picks a {type(logits).__name__}, expected a Tensor")
    return logits


def find_module(forward_func: Classifier) -> nn.Module | None:
    """The module behind a classifier, where it can be seen: itself, or that of a bound method."""
    owner = getattr(forward_func, "__self__", forward_func)
    return owner if isinstance(owner, nn.Module) else None


def placement(forward_func: Classifier, like: Tensor) -> tuple[torch.device, torch.dtype]:
    """Device and precision that a classifier's parameters ask for; those of ``like`` without any."""
    module = find_module(forward_func)
    parameters = () if module is None else module.parameters()
    for parameter in parameters:
        if parameter.is_floating_point():
            return parameter.device, parameter.dtype
    return like.device, like.dtype


@contextmanager
def evaluating(forward_func: Classifier) -> Iterator[None]:
    """Puts a model that was left in train mode into eval mode, with a warning, and back again."""
    module = find_module(forward_func)
    modes = {} if module is None else {m: m.training for m in module.modules()}
    if module is not None and any(modes.values()):
        warnings.warn(
            "the model is in train mode: it is put into eval mode for this call and back after "
            "it; call model.eval() to silence this",
            UserWarning,
            stacklevel=4,
        )
        module.eval()
    try:
        yield
    finally:
        for part, mode in modes.items():
            part.training = mode


def check_classifier(
    forward_func: Classifier, sample: Tensor, targets: Sequence[int], additional: tuple[Any, ...] = ()
) -> int:
    """Runs a classifier once on a few images, and says what is wrong with it, if anything is.

    Returns the number of classes.
    """
    device, dtype = placement(forward_func, sample)
    if device != sample.device:
        raise ValueError(
            f"the images are on {sample.device}, but the model's parameters are on {device}: move "
            "one of them"
        )
    with torch.no_grad():
        logits = forward_func(sample.to(dtype), *additional)
    check_logits(logits, len(sample))
    classes = logits.shape[1]
    wrong = sorted({t for t in targets if t >= classes})
    if wrong:
        raise ValueError(
            f"target {wrong[0]} is out of range: the model has {classes} classes, so targets go "
            f"from 0 to {classes - 1}"
        )
    rows = logits.double()
    if bool((rows >= 0).all()) and torch.allclose(rows.sum(1), torch.ones(len(rows)).to(rows), atol=1e-3):
        warnings.warn(
            "the model's outputs are all >= 0 and sum to 1, so they look like probabilities: the "
            "search takes logits; leave out the softmax",
            UserWarning,
            stacklevel=4,
        )
    return classes


def check_logits(logits: Any, count: int) -> None:
    """Raises an error unless these are finite logits (count, K) with K >= 2."""
    if not isinstance(logits, Tensor):
        raise TypeError(
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


def predict(forward_func: Classifier, images: Tensor) -> Tensor:
    """The class that a classifier says for each image (N, C, H, W); int64 (N,) on its device."""
    device, dtype = placement(forward_func, images)
    with torch.no_grad():
        logits = forward_func(images.to(device, dtype))
    check_logits(logits, len(images))
    return logits.argmax(1)
