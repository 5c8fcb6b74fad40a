"""The control that searches at random: the best of many random masks."""

import time
from collections.abc import Iterator
from itertools import takewhile
from typing import Any

import torch
from captum.log import log_usage
from torch import Tensor

from captum_classpattern._validation import check_count, check_positive, check_seed
from captum_classpattern.attribution import single_tensor
from captum_classpattern.class_names import parse_targets
from captum_classpattern.classifier import preserve_state
from captum_classpattern.comparison.controls import (
    BUDGET,
    Control,
    WithBaselines,
    masks_for,
    mean_probabilities,
)
from captum_classpattern.pattern import pixels_kept
from captum_classpattern.scores.power import random_mask


class BestRandomMask(WithBaselines, Control):
    r"""
    The best of as many random masks as a budget pays for.

    Each mask is stamped, in the pixels of the input, on the same baselines of other classes. The
    one with the highest mean probability of the class wins. An image that only goes forward is
    half a pass, so that a budget pays for 2 * budget / n_images masks.

    Args:
        forward_func (Callable): Classifier from pixels (B, C, H, W) in [0, 1] to logits (B, K).
        baselines (Tensor, Dataset or DataLoader): Images to stamp, (C, H, W) each, in [0, 1].
        baseline_labels (Tensor or Sequence[int], optional): Their classes. Default: None (those of
            the Dataset, else the classifier's predictions).

    Examples::

        >>> net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 3)).eval()
        >>> best = BestRandomMask(net, torch.rand(30, 1, 8, 8), torch.arange(30) % 3)
        >>> mask = best.attribute(torch.rand(1, 1, 8, 8), target=1, area=3 / 64, budget=100)
        >>> int(mask.sum())
        3
    """

    @log_usage()  # type: ignore[untyped-decorator]
    def attribute(
        self,
        inputs: Tensor | tuple[Tensor],
        target: Any = None,
        additional_forward_args: Any = None,
        *,
        area: float = 0.05,
        seed: int = 0,
        budget: int = BUDGET,
        n_images: int = 20,
        max_seconds: float | None = None,
    ) -> Tensor | tuple[Tensor, ...]:
        r"""
        Tries the same masks on each input.

        Args:
            inputs (Tensor or tuple[Tensor]): Images (N, C, H, W) in [0, 1].
            target (int, str, Tensor or list): The class, by number or name, or one for each input.
            additional_forward_args (Any, optional): Not used.
            area (float): Share of the pixels in a mask. Default: 0.05.
            seed (int): Default: 0.
            budget (int): Passes for each input, at least those of one mask. Default: 3,500.
            n_images (int): Number of baselines of other classes to stamp. Default: 20.
            max_seconds (float, optional): Draws no further mask after that time for an input.
                Default: None.

        Returns:
            *Tensor*: 1 in the best mask and 0 elsewhere, shaped like ``inputs``.

        Raises:
            ValueError: If all baselines are of a target's class, a setting is out of range, or the
                area rounds to no pixel or to all.
        """
        for name, value in (("budget", budget), ("n_images", n_images)):
            check_count(name, value)
        if max_seconds is not None:
            check_positive("max_seconds", max_seconds)
        check_seed(seed)
        images = single_tensor(inputs)
        targets = parse_targets(target, len(images), self.forward_func)
        k = pixels_kept(area, images.shape[2:])
        with preserve_state(self.forward_func, 0):
            found = [
                self._best(image, label, k, seed, budget, n_images, max_seconds)
                for image, label in zip(images.detach(), targets)
            ]
        return masks_for(torch.stack(found), inputs)

    def _best(
        self,
        image: Tensor,
        target: int,
        k: int,
        seed: int,
        budget: int,
        n_images: int,
        max_seconds: float | None,
    ) -> Tensor:
        """The best mask (1, H, W) of one input."""
        images, started = self._to_stamp(target, n_images, image), time.perf_counter()
        count = max(1, 2 * budget // len(images))

        def in_time(number: int) -> bool:
            late = max_seconds is not None and time.perf_counter() - started > max_seconds
            return not number or not late

        tried = zip(takewhile(in_time, range(count)), random_masks(image, k, seed))
        patterns = ((mask, image) for _, mask in tried)
        scores = mean_probabilities(self.forward_func, patterns, images, target)
        masks = zip(list(scores), random_masks(image, k, seed))  # drawn again, not kept
        return max(masks, key=lambda pair: pair[0])[1]


def random_masks(like: Tensor, k: int, seed: int) -> Iterator[Tensor]:
    """Masks (1, H, W) of k random pixels, without end."""
    generator = torch.Generator().manual_seed(seed)
    while True:
        yield random_mask(k, like.shape[-2:], generator)
