"""Controls: simple ways to choose pixels that every method must beat."""

from collections.abc import Iterable, Iterator
from itertools import islice, product
from typing import Any

import torch
from captum.attr import Attribution
from captum.log import log_usage
from torch import Tensor

from captum_classpattern._validation import check_count, check_seed
from captum_classpattern.attribution import single_tensor
from captum_classpattern.class_names import parse_targets
from captum_classpattern.classifier import Classifier, device_and_dtype, preserve_state
from captum_classpattern.images import Images, LabelledImages, Labels, ensure_labels, evenly_spaced
from captum_classpattern.pattern import pixels_kept

AT_ONCE = 48  # stamped images in one call
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
        return masks_for(drawn, inputs)


class WithBaselines(Attribution):  # type: ignore[misc]  # captum's class is untyped
    """What methods have in common that use images and their classes."""

    def __init__(
        self, forward_func: Classifier, baselines: Images, baseline_labels: Labels = None
    ) -> None:
        super().__init__(forward_func)
        with preserve_state(forward_func, 0):
            self._baselines = ensure_labels(
                forward_func, LabelledImages.of(baselines, baseline_labels, argument="baselines")
            )

    def _of_class(self, target: int) -> LabelledImages:
        """The baselines of a class, at least one."""
        of_class = self._baselines.of_class(target)
        if not len(of_class):
            raise ValueError(f"none of the {len(self._baselines)} baselines is of class {target}")
        return of_class

    def _to_stamp(self, target: int, n_images: int, like: Tensor) -> Tensor:
        """At most this many baselines of other classes, evenly spaced, on the classifier's
        device."""
        others = self._baselines.without_class(target)
        if not len(others):
            raise ValueError(f"all {len(self._baselines)} baselines are of class {target}")
        chosen = others.take(evenly_spaced(len(others), n_images))
        return chosen.to(*device_and_dtype(self.forward_func, like))


class ClassMean(WithBaselines, Control):
    r"""
    How close each value of the input is to its mean over images of the class: 1 - abs(x - mean).

    Args:
        forward_func (Callable): Only used to label the images if they have no labels.
        baselines (Tensor, Dataset or DataLoader): Images (C, H, W) each, in [0, 1].
        baseline_labels (Tensor or Sequence[int], optional): Their classes. Default: None (those of
            the Dataset, else the classifier's predictions).

    Examples::

        >>> images = torch.tensor([0.25, 0.75, 1.0]).view(3, 1, 1, 1).expand(3, 1, 2, 2)
        >>> near = ClassMean(lambda x: x.mean((2, 3)), images, [4, 4, 0])
        >>> near.attribute(torch.tensor([[[[0.5, 0.6], [0.0, 1.0]]]]), target=4)
        tensor([[[[1.0000, 0.9000], [0.5000, 0.5000]]]])
    """

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
        of_class = self._of_class(label)
        total = sum(images.double().sum(0) for images in of_class.in_order())
        return torch.as_tensor(total / len(of_class))


class BestCrop(WithBaselines, Control):
    r"""
    The square of the input that works best as a pattern on some of the baselines.

    A square of k pixels has sides of round(sqrt(k)); the remaining pixels form one more row.
    Squares on a coarse grid over the input are tried first, then the neighbours of the best one,
    at half the distance each time.

    Args:
        forward_func (Callable): Classifier from pixels (B, C, H, W) in [0, 1] to logits (B, K).
        baselines (Tensor, Dataset or DataLoader): Images to stamp, (C, H, W) each, in [0, 1].
        baseline_labels (Tensor or Sequence[int], optional): Their classes. Default: None (those of
            the Dataset, else the classifier's predictions).

    Examples::

        >>> net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 3)).eval()
        >>> crop = BestCrop(net, torch.rand(30, 1, 8, 8), torch.arange(30) % 3)
        >>> mask = crop.attribute(torch.rand(1, 1, 8, 8), target=1, area=9 / 64)
        >>> rows, columns = mask[0, 0].any(1), mask[0, 0].any(0)
        >>> int(mask.sum()), int(rows.sum()), int(columns.sum())
        (9, 3, 3)
    """

    @log_usage()  # type: ignore[untyped-decorator]
    def attribute(
        self,
        inputs: Tensor | tuple[Tensor],
        target: Any = None,
        additional_forward_args: Any = None,
        *,
        area: float = 0.05,
        n_images: int = 12,
        n_positions: int = 100,
    ) -> Tensor | tuple[Tensor, ...]:
        r"""
        Finds the best square of each input, by the mean probability of its target.

        Args:
            inputs (Tensor or tuple[Tensor]): Images (N, C, H, W) in [0, 1].
            target (int, str, Tensor or list): The class, by number or name, or one for each input.
            additional_forward_args (Any, optional): Not used.
            area (float): Share of the pixels in the square. Default: 0.05.
            n_images (int): Number of baselines of other classes to stamp. Default: 12.
            n_positions (int): At most this many squares on the coarse grid. Default: 100.

        Returns:
            *Tensor*: 1 in the square and 0 elsewhere, shaped like ``inputs``.

        Raises:
            ValueError: If all baselines are of a target's class, or the area rounds to no pixel or
                to all.
        """
        for name, value in (("n_images", n_images), ("n_positions", n_positions)):
            check_count(name, value)
        images = single_tensor(inputs)
        targets = parse_targets(target, len(images), self.forward_func)
        with preserve_state(self.forward_func, 0):
            found = [
                self._best(image, label, area, n_images, n_positions)
                for image, label in zip(images.detach(), targets)
            ]
        return masks_for(torch.stack(found), inputs)

    def _best(
        self, image: Tensor, target: int, area: float, n_images: int, n_positions: int
    ) -> Tensor:
        """The mask (1, H, W) of one input's best square."""
        images = self._to_stamp(target, n_images, image)
        image = image.to(images)
        height, width = image.shape[1:]
        k = pixels_kept(area, (height, width))
        side = min(round(k**0.5), width)
        last_top, last_left = height - -(-k // side), width - side
        if last_top < 0:
            raise ValueError(f"a square of {k} pixels does not fit into {height}x{width}")
        step = next(
            s
            for s in range(1, height + width)
            if (last_top // s + 1) * (last_left // s + 1) <= n_positions
        )
        scores: dict[tuple[int, int], float] = {}

        def score(places: list[tuple[int, int]]) -> None:
            new = [
                (top, left)
                for top, left in dict.fromkeys(places)
                if 0 <= top <= last_top and 0 <= left <= last_left and (top, left) not in scores
            ]
            squares = ((square(k, side, *place, height, width), image) for place in new)
            found = mean_probabilities(self.forward_func, squares, images, target)
            scores.update(zip(new, found))

        score(list(product(range(0, last_top + 1, step), range(0, last_left + 1, step))))
        while step > 1:
            step = step // 2
            top, left = max(scores, key=lambda place: scores[place])
            steps = (-step, 0, step)
            score([(top + down, left + right) for down, right in product(steps, steps)])
        return square(k, side, *max(scores, key=lambda place: scores[place]), height, width)


def mean_probabilities(
    forward_func: Classifier,
    patterns: Iterable[tuple[Tensor, Tensor]],
    images: Tensor,
    target: int,
) -> Iterator[float]:
    """The mean probability of a class on images that are stamped with each of some patterns, given
    as masks (1, H, W) and canvases (C, H, W)."""
    patterns, at_once = iter(patterns), max(1, AT_ONCE // len(images))
    while batch := list(islice(patterns, at_once)):
        masks, canvases = (torch.stack(parts)[:, None].to(images) for parts in zip(*batch))
        stamped = masks * canvases + (1 - masks) * images  # (patterns, images, C, H, W)
        with torch.no_grad():
            logits = forward_func(stamped.flatten(0, 1)).float()
        yield from logits.softmax(1)[:, target].view(len(batch), -1).mean(1).tolist()


def square(k: int, side: int, top: int, left: int, height: int, width: int) -> Tensor:
    """The first k pixels of a square in reading order, (1, H, W)."""
    inside = torch.zeros(-(-k // side), side).flatten()
    inside[:k] = 1.0
    mask = torch.zeros(1, height, width)
    mask[0, top : top + -(-k // side), left : left + side] = inside.view(-1, side)
    return mask


def is_control(attribution: Attribution) -> bool:
    """Whether a method is one of the controls."""
    return isinstance(attribution, Control)


def masks_for(masks: Tensor, inputs: Tensor | tuple[Tensor]) -> Tensor | tuple[Tensor, ...]:
    """Masks (N, 1, H, W) in Captum's form: the same for all channels, shaped like the inputs."""
    images = single_tensor(inputs)
    return like_inputs(masks.to(images).expand_as(images).contiguous(), inputs)


def like_inputs(result: Tensor, inputs: Tensor | tuple[Tensor]) -> Tensor | tuple[Tensor, ...]:
    """The result in a tuple if the inputs are in one."""
    return (result,) if isinstance(inputs, tuple) else result
