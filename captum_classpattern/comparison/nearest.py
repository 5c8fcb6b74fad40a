"""Controls that copy: the pixels in which an image is closest to another one of its class."""

from typing import Any

import torch
from captum.log import log_usage
from torch import Tensor, nn

from captum_classpattern.attribution import single_tensor
from captum_classpattern.class_names import parse_targets
from captum_classpattern.classifier import (
    Classifier,
    device_and_dtype,
    find_module,
    preserve_state,
)
from captum_classpattern.comparison.controls import Control, WithBaselines, like_inputs
from captum_classpattern.images import Images, Labels

BY = ("pixels", "features")


class NearestImage(WithBaselines, Control):
    r"""
    How close each value of the input is to that of the nearest baseline of the class:
    1 - abs(x - nearest).

    The nearest one has the smallest Euclidean distance, of pixels or of the classifier's features:
    the input of its last ``torch.nn.Linear``. Copies of the input don't count.

    Args:
        forward_func (Callable): Classifier from pixels (B, C, H, W) in [0, 1] to logits (B, K).
        baselines (Tensor, Dataset or DataLoader): Images (C, H, W) each, in [0, 1].
        baseline_labels (Tensor or Sequence[int], optional): Their classes. Default: None (those of
            the Dataset, else the classifier's predictions).
        by (str): ``"pixels"`` or ``"features"``. Default: "pixels".

    Raises:
        ValueError: If ``by`` is neither.

    Examples::

        >>> images = torch.tensor([0.25, 0.75, 0.5]).view(3, 1, 1, 1).expand(3, 1, 2, 2)
        >>> near = NearestImage(lambda x: x.mean((2, 3)), images, [4, 4, 0])
        >>> near.attribute(torch.tensor([[[[0.5, 0.6], [0.0, 1.0]]]]), target=4)
        tensor([[[[0.7500, 0.8500], [0.2500, 0.7500]]]])
    """

    def __init__(
        self,
        forward_func: Classifier,
        baselines: Images,
        baseline_labels: Labels = None,
        *,
        by: str = "pixels",
    ) -> None:
        if by not in BY:
            raise ValueError(f"by must be 'pixels' or 'features', got {by!r}")
        super().__init__(forward_func, baselines, baseline_labels)
        self._by_features = by == "features"
        self._known: dict[int, Tensor] = {}  # features of the baselines of a class

    @log_usage()  # type: ignore[untyped-decorator]
    def attribute(
        self,
        inputs: Tensor | tuple[Tensor],
        target: Any = None,
        additional_forward_args: Any = None,
    ) -> Tensor | tuple[Tensor, ...]:
        r"""
        Compares each input with the nearest image of its target.

        Args:
            inputs (Tensor or tuple[Tensor]): Images (N, C, H, W).
            target (int, str, Tensor or list): The class, by number or name, or one for each input.
            additional_forward_args (Any, optional): Not used.

        Returns:
            *Tensor*: Shaped like ``inputs``.

        Raises:
            ValueError: If no baseline is of a target, all of them are copies of the input, or the
                classifier has no features.
        """
        images = single_tensor(inputs)
        targets = parse_targets(target, len(images), self.forward_func)
        with preserve_state(self.forward_func, 0):
            nearest = [self._nearest(x, label) for x, label in zip(images.detach(), targets)]
        return like_inputs(1 - (images.detach() - torch.stack(nearest)).abs(), inputs)

    def _nearest(self, image: Tensor, label: int) -> Tensor:
        """The nearest baseline of a class, which is no copy of the image."""
        of_class, batches = self._of_class(label), []
        for batch in of_class.in_order():
            batches.append((batch.to(image) - image).flatten(1).norm(dim=1))
        in_pixels = torch.cat(batches)
        distances = in_pixels
        if self._by_features:
            own = self._features_of(image[None])
            if label not in self._known:
                parts = [self._features_of(batch) for batch in of_class.in_order()]
                self._known[label] = torch.cat(parts)
            distances = (self._known[label] - own).norm(dim=1)
        distances = distances.where(in_pixels.to(distances) > 0, torch.inf)
        if bool(distances.isinf().all()):
            raise ValueError(f"all baselines of class {label} are copies of the input: give others")
        return of_class.take([int(distances.argmin())])[0].to(image)

    def _features_of(self, images: Tensor) -> Tensor:
        images = images.to(*device_and_dtype(self.forward_func, images))
        return last_features(self.forward_func, images).float()


def last_features(forward_func: Classifier, images: Tensor) -> Tensor:
    """The input (B, D) of a classifier's last ``torch.nn.Linear``; an error if it has none."""
    module = find_module(forward_func)
    found: list[Tensor] = []

    def keep(part: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        found.append(inputs[0])

    layers = [] if module is None else [p for p in module.modules() if isinstance(p, nn.Linear)]
    hooks: list[Any] = [layer.register_forward_pre_hook(keep) for layer in layers]
    try:
        with torch.no_grad():
            forward_func(images)
    finally:
        for hook in hooks:
            hook.remove()
    if not found or len(found[-1]) != len(images):
        raise ValueError(
            "the features of an image are the input of the model's last torch.nn.Linear, one row "
            "per image, but the model has none: use by='pixels'"
        )
    return found[-1].flatten(1)
