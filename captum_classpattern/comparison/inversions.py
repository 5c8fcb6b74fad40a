"""Methods whose pixels are not cut from a canvas: their colours, or a change, are searched, too."""

from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import torch
from captum.attr import Attribution
from captum.log import log_usage
from torch import Tensor

from captum_classpattern.attribution import ClassPattern, single_tensor
from captum_classpattern.class_names import parse_targets
from captum_classpattern.classifier import Classifier
from captum_classpattern.comparison.controls import BUDGET, WithBaselines, masks_for
from captum_classpattern.comparison.universal import universal_patch, universal_perturbation
from captum_classpattern.images import Images, Labels
from captum_classpattern.pattern import Pattern
from captum_classpattern.scanning.rivals import Inversion, neural_cleanse, pixel_inversion


class LearnedPattern(Attribution):  # type: ignore[misc]  # captum's class is untyped
    r"""
    The few pixels that make the classifier predict a class, in the colours that do it best, see
    :class:`~captum_classpattern.optimization.Learned`.

    Args:
        forward_func (Callable): Classifier from pixels (B, C, H, W) in [0, 1] to logits (B, K).
        baselines (Tensor, Dataset or DataLoader): Images to stamp, (C, H, W) each, in [0, 1].
        baseline_labels (Tensor or Sequence[int], optional): Their classes. Default: None (those of
            the Dataset, else the classifier's predictions).

    Attributes:
        patterns (list[Pattern]): After ``attribute``, what was found for each input, in its own
            form.
        free (str): What is searched.

    Examples::

        >>> net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 3)).eval()
        >>> learned = LearnedPattern(net, torch.rand(30, 1, 8, 8), torch.arange(30) % 3)
        >>> mask = learned.attribute(torch.full((1, 1, 8, 8), 0.5), target=1, area=3 / 64)
        >>> int(mask.sum()), learned.patterns[0].canvas.shape
        (3, torch.Size([1, 8, 8]))
    """

    free: ClassVar[str] = "places and colours"

    def __init__(
        self, forward_func: Classifier, baselines: Images, baseline_labels: Labels = None
    ) -> None:
        super().__init__(forward_func)
        self._search = ClassPattern(forward_func, baselines, baseline_labels).search
        self.patterns: list[Pattern] = []
        self.precision: str | None = None

    @log_usage()  # type: ignore[untyped-decorator]
    def attribute(
        self,
        inputs: Tensor | tuple[Tensor],
        target: Any = None,
        additional_forward_args: Any = None,
        *,
        area: float = 0.05,
        seed: int = 0,
        budget: int | None = None,
        n_steps: int | None = None,
        max_seconds: float | None = None,
        precision: str = "auto",
        internal_batch_size: int | None = None,
    ) -> Tensor | tuple[Tensor, ...]:
        r"""
        Searches pixels and colours; the colours begin at those of the inputs.

        Args:
            inputs (Tensor or tuple[Tensor]): Images (N, C, H, W) in [0, 1].
            target (int, str, Tensor or list): The class, by number or name, or one for each input.
            additional_forward_args (Any, optional): As in :meth:`ClassPattern.search`.
            area (float): Share of the pixels. Default: 0.05.
            seed (int): Default: 0.
            budget, n_steps, max_seconds, precision, internal_batch_size: As in
                :meth:`ClassPattern.search`.

        Returns:
            *Tensor*: The masks, shaped like ``inputs``.
        """
        images = single_tensor(inputs).detach().clamp(0, 1)
        found = self._search(
            images,
            target,
            additional_forward_args=additional_forward_args,
            solver="learned",
            area=area,
            seed=seed,
            budget=budget,
            n_steps=n_steps,
            max_seconds=max_seconds,
            precision=precision,
            internal_batch_size=internal_batch_size,
        )
        self.patterns, self.precision = found, found[0].info["precision"]
        masks = torch.stack([pattern.mask for pattern in found])
        return masks_for(masks, inputs)


class _Inverted(WithBaselines):
    """What the inversions have in common: one pattern for each class, whatever the input."""

    invert: Callable[..., Inversion]
    free: ClassVar[str]

    def __init__(
        self, forward_func: Classifier, baselines: Images, baseline_labels: Labels = None
    ) -> None:
        super().__init__(forward_func, baselines, baseline_labels)
        self.patterns: list[Pattern] = []

    @log_usage()  # type: ignore[untyped-decorator]
    def attribute(
        self,
        inputs: Tensor | tuple[Tensor],
        target: Any = None,
        additional_forward_args: Any = None,
        *,
        seed: int = 0,
        passes: int = 1_280,
    ) -> Tensor | tuple[Tensor, ...]:
        r"""
        Inverts each class once.

        Args:
            inputs (Tensor or tuple[Tensor]): Images (N, C, H, W); only their number is used.
            target (int, str, Tensor or list): The class, by number or name, or one for each input.
            additional_forward_args (Any, optional): Not used.
            seed (int): Default: 0.
            passes (int): For each class. Default: 1,280.

        Returns:
            *Tensor*: The soft masks, shaped like ``inputs``.
        """
        return self._inverted(inputs, target, seed=seed, passes=passes)

    def _inverted(
        self, inputs: Tensor | tuple[Tensor], target: Any, **settings: Any
    ) -> Tensor | tuple[Tensor, ...]:
        """The masks that rank the pixels; keeps the patterns in their own form."""
        images = single_tensor(inputs)
        targets: Sequence[int] = parse_targets(target, len(images), self.forward_func)
        found = {
            y: type(self).invert(self.forward_func, self._baselines, y, **settings)
            for y in dict.fromkeys(targets)
        }
        self.patterns = [found[y].own_form for y in targets]
        masks = torch.stack([found[y].pattern.mask for y in targets])
        return masks_for(masks, inputs)


class NeuralCleanse(_Inverted):
    r"""
    The soft mask and the colours of Neural Cleanse, see
    :func:`~captum_classpattern.scanning.rivals.neural_cleanse`.

    Args:
        forward_func (Callable): Classifier from pixels (B, C, H, W) in [0, 1] to logits (B, K).
        baselines (Tensor, Dataset or DataLoader): Images to stamp, (C, H, W) each, in [0, 1].
        baseline_labels (Tensor or Sequence[int], optional): Their classes. Default: None (those of
            the Dataset, else the classifier's predictions).

    Attributes:
        patterns (list[Pattern]): After ``attribute``, what was found for each input, in its own
            form.
        free (str): What is searched.

    Examples::

        >>> net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 3)).eval()
        >>> rival = NeuralCleanse(net, torch.rand(30, 1, 8, 8), torch.arange(30) % 3)
        >>> rival.attribute(torch.rand(2, 1, 8, 8), target=1).shape
        torch.Size([2, 1, 8, 8])
    """

    invert = staticmethod(neural_cleanse)
    free = "places and colours, with a soft mask"


class PixelInversion(_Inverted):
    r"""
    How much pixel inversion changes each pixel, see
    :func:`~captum_classpattern.scanning.rivals.pixel_inversion`. Its change is added to images.

    Args:
        forward_func (Callable): Classifier from pixels (B, C, H, W) in [0, 1] to logits (B, K).
        baselines (Tensor, Dataset or DataLoader): Images to stamp, (C, H, W) each, in [0, 1].
        baseline_labels (Tensor or Sequence[int], optional): Their classes. Default: None (those of
            the Dataset, else the classifier's predictions).

    Attributes:
        patterns (list[Pattern]): After ``attribute``, what was found for each input, in its own
            form.
        free (str): What is searched.

    Examples::

        >>> net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 3)).eval()
        >>> rival = PixelInversion(net, torch.rand(30, 1, 8, 8), torch.arange(30) % 3)
        >>> rival.attribute(torch.rand(2, 1, 8, 8), target=1).shape
        torch.Size([2, 1, 8, 8])
    """

    invert = staticmethod(pixel_inversion)
    free = "places and changes"


class UniversalPatch(_Inverted):
    r"""
    A square with free colours that works on all images, see
    :func:`~captum_classpattern.comparison.universal.universal_patch`.

    Args:
        forward_func (Callable): Classifier from pixels (B, C, H, W) in [0, 1] to logits (B, K).
        baselines (Tensor, Dataset or DataLoader): Images to stamp, (C, H, W) each, in [0, 1].
        baseline_labels (Tensor or Sequence[int], optional): Their classes. Default: None (those of
            the Dataset, else the classifier's predictions).

    Attributes:
        patterns (list[Pattern]): After ``attribute``, what was found for each input, in its own
            form.
        free (str): What is searched.

    Examples::

        >>> net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 3)).eval()
        >>> rival = UniversalPatch(net, torch.rand(30, 1, 8, 8), torch.arange(30) % 3)
        >>> int(rival.attribute(torch.rand(1, 1, 8, 8), target=1, area=9 / 64, passes=500).sum())
        9
    """

    invert = staticmethod(universal_patch)
    free = "place and colours of a square"

    @log_usage()  # type: ignore[untyped-decorator]
    def attribute(
        self,
        inputs: Tensor | tuple[Tensor],
        target: Any = None,
        additional_forward_args: Any = None,
        *,
        area: float = 0.05,
        seed: int = 0,
        passes: int = BUDGET,
    ) -> Tensor | tuple[Tensor, ...]:
        r"""
        Searches one square for each class.

        Args:
            inputs (Tensor or tuple[Tensor]): Images (N, C, H, W); only their number is used.
            target (int, str, Tensor or list): The class, by number or name, or one for each input.
            additional_forward_args (Any, optional): Not used.
            area (float): Share of the pixels in the square. Default: 0.05.
            seed (int): Default: 0.
            passes (int): For each class. Default: 3,500.

        Returns:
            *Tensor*: 1 in the square and 0 elsewhere, shaped like ``inputs``.
        """
        return self._inverted(inputs, target, area=area, seed=seed, passes=passes)


class UniversalPerturbation(_Inverted):
    r"""
    What each pixel of a small change of all pixels is worth, see
    :func:`~captum_classpattern.comparison.universal.universal_perturbation`.

    Args:
        forward_func (Callable): Classifier from pixels (B, C, H, W) in [0, 1] to logits (B, K).
        baselines (Tensor, Dataset or DataLoader): Images to stamp, (C, H, W) each, in [0, 1].
        baseline_labels (Tensor or Sequence[int], optional): Their classes. Default: None (those of
            the Dataset, else the classifier's predictions).

    Attributes:
        patterns (list[Pattern]): After ``attribute``, what was found for each input, in its own
            form.
        free (str): What is searched.

    Examples::

        >>> net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 3)).eval()
        >>> rival = UniversalPerturbation(net, torch.rand(30, 1, 8, 8), torch.arange(30) % 3)
        >>> rival.attribute(torch.rand(2, 1, 8, 8), target=1, passes=160).shape
        torch.Size([2, 1, 8, 8])
    """

    invert = staticmethod(universal_perturbation)
    free = "changes of all pixels, 10/255 at most"

    @log_usage()  # type: ignore[untyped-decorator]
    def attribute(
        self,
        inputs: Tensor | tuple[Tensor],
        target: Any = None,
        additional_forward_args: Any = None,
        *,
        seed: int = 0,
        passes: int = BUDGET,
    ) -> Tensor | tuple[Tensor, ...]:
        r"""
        Searches one change for each class.

        Args:
            inputs (Tensor or tuple[Tensor]): Images (N, C, H, W); only their number is used.
            target (int, str, Tensor or list): The class, by number or name, or one for each input.
            additional_forward_args (Any, optional): Not used.
            seed (int): Default: 0.
            passes (int): For each class. Default: 3,500.

        Returns:
            *Tensor*: The worth of each pixel's change, shaped like ``inputs``.
        """
        return self._inverted(inputs, target, seed=seed, passes=passes)
