"""A wrapper that turns a model of normalised images into a classifier over [0, 1] pixels."""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import lru_cache
from typing import Any, cast
from weakref import WeakSet

import torch
from torch import Tensor, nn

from captum_classpattern._support.validation import ArgumentTypeError, Notice
from captum_classpattern.classifier.calling import (
    Classifier,
    check_callable,
    hint_about_channels,
    warn,
)
from captum_classpattern.pattern import Pattern

_noticed: WeakSet[nn.Module] = WeakSet()  # networks that were said to have no mean and std


class PixelClassifier(nn.Module):
    r"""
    Turns a model of normalised images into a classifier over [0, 1] pixels.

    The wrapped model keeps its mode (train or eval), device and precision.

    Args:
        model (nn.Module): Any image classifier.
        mean (float or Sequence[float], optional): Mean of the pixels, one per channel, in units
            where pixels lie in [0, 1]. Default: None (0).
        std (float or Sequence[float], optional): Standard deviation, likewise. Default: None (1).
        output (int or str, optional): Where the logits are if the model returns a tuple (an index
            such as ``-1``) or a dict (``"logits"``). Default: None (its ``.logits``, or itself).
        class_names (Sequence[str], optional): Name of each class, for tables and plots; also
            available as ``.classes``. Default: None.
        input_size (tuple[int, int, int], optional): The (C, H, W) that the model was made for.
            Default: None (unknown).
        trigger (Pattern, optional): The true trigger of a backdoored model. Default: None.
        class_ids (Sequence[str], optional): Another name of each class that images may be sorted
            by, such as its WordNet id. Default: None.
        provenance (dict, optional): Where the model comes from, as reported by
            :func:`~captum_classpattern.adapters.load_model`. Default: None ({}).

    Raises:
        TypeError: If ``model`` is not an ``nn.Module``.
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
        *,
        input_size: tuple[int, int, int] | None = None,
        trigger: Pattern | None = None,
        class_ids: Sequence[str] | None = None,
        provenance: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        if not isinstance(model, nn.Module):
            raise ArgumentTypeError(
                f"model must be a torch.nn.Module, got {type(model).__name__}; a plain function "
                "from [0, 1] pixels to logits needs no PixelClassifier"
            )
        self.model = model
        self.output = output
        self.class_names = None if class_names is None else [str(name) for name in class_names]
        self.input_size, self.trigger = input_size, trigger
        self.class_ids = None if class_ids is None else [str(name) for name in class_ids]
        self.provenance = dict(provenance or {})
        # not buffers: these are float64, which some devices lack
        self.mean, self.std = _per_channel(mean, 0.0, "mean"), _per_channel(std, 1.0, "std")
        if not bool((self.std > 0).all()):
            raise ValueError(f"`std` must be positive, got {std}")
        channels = {self.mean.shape[1], self.std.shape[1]} - {1}
        if len(channels) > 1:
            raise ValueError(
                f"`mean` and `std` must be given for as many channels, got {mean} and {std}"
            )
        self.training = model.training  # not self.train(): that would change the model

    @property
    def classes(self) -> list[str] | None:
        """The class names, under the name that torchvision uses."""
        return self.class_names

    def forward(self, images: Tensor, *additional: Any) -> Tensor:
        r"""
        Normalises and classifies the images, and picks the logits.

        Args:
            images (Tensor): (N, C, H, W) in [0, 1].
            *additional: Passed on to the model.

        Returns:
            *Tensor*: Logits (N, K).
        """
        channels = max(self.mean.shape[1], self.std.shape[1])
        if channels > 1 and images.shape[1] != channels:
            raise ValueError(
                f"images have {images.shape[1]} channels (shape {tuple(images.shape)}), but `mean` "
                f"and `std` are given for {channels}{hint_about_channels(images.shape, channels)}"
            )
        normalised = (images - _at(self.mean, images)) / _at(self.std, images)
        result = self.model(normalised, *additional)
        if self.output is None:
            return cast(Tensor, getattr(result, "logits", result))
        with suppress(KeyError, IndexError, TypeError):
            if not isinstance(result, Tensor) and isinstance(result[self.output], Tensor):
                return cast(Tensor, result[self.output])
        held = f" with keys {list(result)}" if isinstance(result, dict) else ""
        if isinstance(result, tuple | list):
            held = f" of {len(result)}"
        if isinstance(result, Tensor):
            held = f" of shape {tuple(result.shape)}: leave out `output`"
        raise ValueError(
            f"`output={self.output!r}` does not pick the logits: the model returned a "
            f"{type(result).__name__}{held}"
        )


def over_pixels(
    model: Classifier,
    mean: float | Sequence[float] | None,
    std: float | Sequence[float] | None,
    class_names: Sequence[str] | None = None,
) -> Classifier:
    """The model that a user gives, with the ``mean`` and ``std`` of its images if it needs them, as
    a classifier over [0, 1] pixels. Gives one notice if a network may need them."""
    check_callable(model)
    plain = isinstance(model, nn.Module) and not isinstance(model, PixelClassifier)
    if not plain and (mean is not None or std is not None):
        raise ArgumentTypeError(
            "`mean` and `std` are for an nn.Module of normalised images, got a "
            f"{type(model).__name__}, which normalises its images itself: leave them out"
        )
    if (mean is None) != (std is None):
        given, missing = ("mean", "std") if std is None else ("std", "mean")
        raise ValueError(f"there is a `{given}` but no `{missing}`: give both, or neither")
    if not plain:
        return model
    network = cast(nn.Module, model)
    held = (
        name
        for part in network.modules()
        for name in {**vars(part), **part._buffers, **part._parameters}
    )
    normalises = any("mean" in name.lower() and name != "running_mean" for name in held)
    if mean is None and network not in _noticed and not normalises:
        _noticed.add(network)
        warn(
            "the network gets pixels in [0, 1] as they are: if it was trained on normalised "
            "images, give PixelClassifier(model, mean, std); PixelClassifier(model, 0, 1) says "
            "that it was not, without this notice (explain_class, survey and scan also take `mean` "
            "and `std`)",
            Notice,
        )
    if mean is None and class_names is None and not hasattr(network, "config"):
        return model
    return PixelClassifier(network, mean, std, class_names=class_names)


def _per_channel(value: float | Sequence[float] | None, default: float, name: str) -> Tensor:
    tensor = torch.as_tensor(default if value is None else value, dtype=torch.float64).clone()
    if tensor.ndim > 1 or not bool(tensor.isfinite().all()):
        raise ValueError(f"`{name}` must be a number, or one per channel, got {value}")
    if bool((tensor.abs() > 1).any()):
        raise ValueError(
            f"`{name}` must be in units where pixels lie in [0, 1], got {value}: divide it by 255"
        )
    return tensor.view(1, -1, 1, 1)


def _at(values: Tensor, images: Tensor) -> Tensor:
    """The values on the images' device, in their precision."""
    if torch.jit.is_tracing():  # type: ignore[attr-defined, no-untyped-call]
        return values.to(images)
    version = 0 if values.is_inference() else values._version  # counts changes in place
    return _copied(values, version, images.device, images.dtype)


@lru_cache(maxsize=64)
def _copied(values: Tensor, version: int, device: torch.device, dtype: torch.dtype) -> Tensor:
    """A cached copy on a device, since copying in each call would wait for the device."""
    with torch.inference_mode(False):  # tensors from within it allow no gradients
        return values.to(device, dtype, copy=True)
