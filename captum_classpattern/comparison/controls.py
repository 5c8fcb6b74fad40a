"""Controls: simple ways to choose pixels that every method must beat; and the learned pattern."""

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import Any

import torch
from captum.attr import Attribution
from torch import Tensor

from captum_classpattern._support.topk import pixels_kept
from captum_classpattern._support.validation import (
    ArgumentTypeError,
    check_count,
    check_pixels,
    check_seed,
)
from captum_classpattern.classifier import (
    CheckedModel,
    Classifier,
    check_targets,
    enter_model,
    uncounted,
)
from captum_classpattern.classifier.class_names import ClassNames, parse_targets
from captum_classpattern.images import Images, LabelledImages, Labels, ensure_labels, evenly_spaced
from captum_classpattern.optimization.attribution import (
    SLACK,
    ClassPattern,
    Inputs,
    log_usage,
    masks_for,
    single_tensor,
)
from captum_classpattern.pattern import Pattern
from captum_classpattern.scores.power import random_mask

STAMPED_AT_ONCE = 48  # stamped images in one call
BUDGET = 3_500  # passes of a search on one canvas


class Control:
    """Marks the methods that are controls."""


class RandomPixels(Attribution, Control):  # type: ignore[misc]  # captum's class is untyped
    r"""
    A random map: each pixel's value is drawn uniformly from [0, 1), the same for all channels.

    Args:
        forward_func (Callable): Not called.

    Examples::

        >>> RandomPixels(lambda x: x.mean((2, 3))).attribute(torch.rand(2, 3, 8, 8)).shape
        torch.Size([2, 3, 8, 8])
    """

    @log_usage()
    def attribute(
        self,
        inputs: Inputs,
        target: Any = None,
        additional_forward_args: Any = None,
        *,
        seed: int = 0,
    ) -> Inputs:
        """Draws a map for each input (N, C, H, W), shaped like these; the target is not used."""
        images: Tensor = single_tensor(inputs)
        generator = torch.Generator().manual_seed(check_seed(seed))
        drawn = torch.rand((len(images), 1, *images.shape[2:]), generator=generator)
        return masks_for(drawn, inputs)


class BestRandomMask(Attribution, Control):  # type: ignore[misc]  # captum's class is untyped
    r"""
    The best of as many random masks as a budget pays for.

    Each mask is stamped, with the pixels of the input, on the same baselines of other classes. The
    one with the highest mean probability of the class wins. An image that only goes forward is half
    a pass, so a budget pays for 2 * budget / n_images masks.

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

    def __init__(
        self, forward_func: Classifier, baselines: Images, baseline_labels: Labels = None
    ) -> None:
        super().__init__(forward_func)
        names = None if baseline_labels is None else ClassNames.of(forward_func)
        self._baselines = LabelledImages.of(
            baselines, baseline_labels, names=names, argument="baselines"
        )

    @log_usage()
    def attribute(
        self,
        inputs: Inputs,
        target: Any = None,
        additional_forward_args: Any = None,
        *,
        area: float = 0.05,
        seed: int = 0,
        budget: int = BUDGET,
        n_images: int = 20,
    ) -> Inputs:
        r"""
        Tries the same masks on each input.

        Args:
            inputs (Tensor or tuple[Tensor]): Images (N, C, H, W) in [0, 1].
            target (int, str, Tensor or list): The class, by number or name, or one for each input.
            additional_forward_args (Any, optional): Not used.
            area, seed: As in :meth:`ClassPattern.search`.
            budget (int): Passes for each input, at least those of one mask. Default: 3,500.
            n_images (int): Number of baselines of other classes to stamp. Default: 20.

        Returns:
            *Tensor*: 1 in the best mask and 0 elsewhere, shaped like ``inputs``.

        Raises:
            ValueError: If all baselines are of a target's class, the area rounds to no pixel or to
                all, or a setting is out of range.
        """
        for name, value in (("budget", budget), ("n_images", n_images)):
            check_count(name, value)
        check_seed(seed)
        images = single_tensor(inputs).detach()
        targets = parse_targets(target, len(images), ClassNames.of(self.forward_func))
        k = pixels_kept(area, images.shape[2:])

        def best(
            model: CheckedModel, baselines: LabelledImages, image: Tensor, label: int
        ) -> Tensor:
            others = baselines.without_class(label)
            if not len(others):
                raise ValueError(f"all {len(baselines)} baselines are of class {label}")
            stamped: Tensor = others.take(evenly_spaced(len(others), n_images))
            stamped = stamped.to(model.device, model.dtype)
            generator = torch.Generator().manual_seed(seed)
            masks = list[Tensor]()

            def patterns() -> Iterator[tuple[Tensor, Tensor]]:
                for _ in range(max(1, 2 * budget // len(stamped))):
                    masks.append(random_mask(k, image.shape[1:], generator))
                    yield masks[-1], image

            scores = [*mean_probabilities(model.logits, patterns(), stamped, label)]
            return masks[scores.index(max(scores))]

        with enter_model(self.forward_func, images) as model:
            check_targets(targets, model.n_classes)
            with uncounted():
                baselines = ensure_labels(model, self._baselines)
            best_masks = [best(model, baselines, *pair) for pair in zip(images, targets)]
        return masks_for(torch.stack(best_masks), inputs)


class LearnedPattern(ClassPattern):
    r"""
    The few pixels that make the classifier predict a class, in the colours that do it best, see
    :class:`~captum_classpattern.optimization.Learned`.

    Args:
        forward_func, baselines, baseline_labels: As in :class:`BestRandomMask`.

    Attributes:
        patterns (list[Pattern]): After ``attribute``, what was found for each input, in its own
            form.

    Examples::

        >>> net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 3)).eval()
        >>> learned = LearnedPattern(net, torch.rand(30, 1, 8, 8), torch.arange(30) % 3)
        >>> mask = learned.attribute(torch.full((1, 1, 8, 8), 0.5), target=1, area=3 / 64)
        >>> int(mask.sum()), learned.patterns[0].canvas.shape
        (3, torch.Size([1, 8, 8]))
    """

    patterns: Sequence[Pattern] = ()

    @log_usage()
    def attribute(
        self,
        inputs: Inputs,
        target: Any = None,
        additional_forward_args: Any = None,
        *,
        area: float = 0.05,
        seed: int = 0,
        **options: Any,
    ) -> Inputs:
        """
        Finds pixels and colours; the colours begin at those of the inputs. Returns the masks,
        shaped like these, times the inputs if ``multiply_by_inputs``. Other arguments are those of
        :meth:`ClassPattern.search` except ``keep``, since each input has its mask.
        """
        images = single_tensor(inputs)
        check_pixels(images, "inputs", slack=SLACK)
        if options.get("keep") is not None:
            raise ArgumentTypeError(
                "attribute takes no `keep`: call search, which returns patterns"
            )
        self.patterns = self.search(
            images.detach().clamp(0, 1),
            target,
            area=area,
            solver="learned",
            additional_forward_args=additional_forward_args,
            seed=seed,
            **options,
        )
        self.precision = self.patterns[0].info["precision"]
        masks = torch.stack([pattern.mask for pattern in self.patterns])
        return masks_for(masks * images.detach() if self.multiplies_by_inputs else masks, inputs)


# ---- stamping


def mean_probabilities(
    forward_func: Classifier, patterns: Iterable[tuple[Tensor, Tensor]], images: Tensor, target: int
) -> Iterator[float]:
    """The mean probability of a class on images that are stamped with each of some patterns, given
    as masks (1, H, W) and canvases (C, H, W)."""
    patterns, at_once = iter(patterns), max(1, STAMPED_AT_ONCE // len(images))
    while batch := list(islice(patterns, at_once)):
        masks, canvases = (torch.stack(parts)[:, None].to(images) for parts in zip(*batch))
        stamped = masks * canvases + (1 - masks) * images  # (patterns, images, C, H, W)
        with torch.no_grad():
            logits = forward_func(stamped.flatten(0, 1)).float()
        yield from logits.softmax(1)[:, target].view(len(batch), -1).mean(1).tolist()
