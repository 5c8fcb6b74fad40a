"""Simple ways to choose pixels, which every method of attribution must be held against."""

from typing import Any

import torch
from captum.attr import Attribution
from captum.log import log_usage
from torch import Tensor

from captum_classpattern._validation import check_seed
from captum_classpattern.attribution import single_tensor
from captum_classpattern.class_names import parse_targets
from captum_classpattern.classifier import Classifier
from captum_classpattern.images import Images, LabelledImages, Labels, ensure_labels


class RandomPixels(Attribution):  # type: ignore[misc]  # captum's class is untyped
    r"""
    A random map: each pixel's value is drawn uniformly from [0, 1), the same for all channels.

    Args:
        forward_func (Callable): Not called.

    Examples::

        >>> RandomPixels(lambda x: x.mean((2, 3))).attribute(torch.rand(2, 3, 8, 8)).shape
        torch.Size([2, 3, 8, 8])
    """

    @log_usage()  # type: ignore[untyped-decorator]
    def attribute(
        self,
        inputs: Tensor | tuple[Tensor],
        target: Any = None,
        additional_forward_args: Any = None,
        *,
        seed: int = 0,
    ) -> Tensor | tuple[Tensor, ...]:
        r"""
        Draws a map for each input.

        Args:
            inputs (Tensor or tuple[Tensor]): Images (N, C, H, W).
            target (Any, optional): Not used.
            additional_forward_args (Any, optional): Not used.
            seed (int): Default: 0.

        Returns:
            *Tensor*: Shaped like ``inputs``.
        """
        images = single_tensor(inputs)
        generator = torch.Generator().manual_seed(check_seed(seed))
        drawn = torch.rand((len(images), 1, *images.shape[2:]), generator=generator)
        return like_inputs(drawn.to(images).expand_as(images).contiguous(), inputs)


class ClassMean(Attribution):  # type: ignore[misc]  # captum's class is untyped
    r"""
    How near each value of the input is to its mean over the class's images: 1 - abs(x - mean).

    Args:
        forward_func (Callable): Only asked for labels, where the images have none.
        baselines (Tensor, Dataset or DataLoader): Images (C, H, W) each, in [0, 1].
        baseline_labels (Tensor or Sequence[int], optional): Their classes. Default: None (the
            Dataset's own, else the classifier's predictions).

    Examples::

        >>> images = torch.tensor([0.25, 0.75, 1.0]).view(3, 1, 1, 1).expand(3, 1, 2, 2)
        >>> near = ClassMean(lambda x: x.mean((2, 3)), images, [4, 4, 0])
        >>> near.attribute(torch.tensor([[[[0.5, 0.6], [0.0, 1.0]]]]), target=4)
        tensor([[[[1.0000, 0.9000], [0.5000, 0.5000]]]])
    """

    def __init__(
        self, forward_func: Classifier, baselines: Images, baseline_labels: Labels = None
    ) -> None:
        super().__init__(forward_func)
        self._baselines = ensure_labels(
            forward_func, LabelledImages.of(baselines, baseline_labels, argument="baselines")
        )

    @log_usage()  # type: ignore[untyped-decorator]
    def attribute(
        self,
        inputs: Tensor | tuple[Tensor],
        target: Any = None,
        additional_forward_args: Any = None,
    ) -> Tensor | tuple[Tensor, ...]:
        r"""
        Compares each input with the mean image of its target.

        Args:
            inputs (Tensor or tuple[Tensor]): Images (N, C, H, W).
            target (int, str, Tensor or list): The class, by number or name, or one for each input.
            additional_forward_args (Any, optional): Not used.

        Returns:
            *Tensor*: Shaped like ``inputs``.

        Raises:
            ValueError: If no baseline is of a target.
        """
        images = single_tensor(inputs)
        targets = parse_targets(target, len(images), self.forward_func)
        means = {label: self._mean(label).to(images) for label in set(targets)}
        wanted = torch.stack([means[label] for label in targets])
        return like_inputs(1 - (images.detach() - wanted).abs(), inputs)

    def _mean(self, label: int) -> Tensor:
        own = self._baselines.subset(torch.nonzero(self._baselines.known_labels == label).flatten())
        if not len(own):
            raise ValueError(f"none of the {len(self._baselines)} baselines is of class {label}")
        total = sum(images.double().sum(0) for images in own.in_order())
        return torch.as_tensor(total / len(own))


def like_inputs(result: Tensor, inputs: Tensor | tuple[Tensor]) -> Tensor | tuple[Tensor, ...]:
    """In a tuple if the inputs are."""
    return (result,) if isinstance(inputs, tuple) else result
