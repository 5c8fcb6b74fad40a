"""Controls: simple ways to choose pixels that every method must beat; and the learned pattern."""

import time
from collections.abc import Callable, Iterable, Iterator
from itertools import islice, product
from math import inf
from typing import Any, ClassVar, TypeAlias

import torch
from captum.attr import Attribution
from torch import Tensor, nn

from captum_classpattern._validation import check_count, check_positive, check_seed
from captum_classpattern.attribution import ClassPattern, log_usage, single_tensor
from captum_classpattern.classifier import Classifier, device_and_dtype, find_module, preserve_state
from captum_classpattern.classifier.class_names import parse_targets
from captum_classpattern.images import Images, LabelledImages, Labels, ensure_labels, evenly_spaced
from captum_classpattern.optimization.settings import SearchSettings
from captum_classpattern.pattern import Pattern, pixels_kept
from captum_classpattern.scores.power import random_mask

AT_ONCE = 48  # stamped images in one call
BUDGET = 3_500  # passes of a search on one canvas
BY = ("pixels", "features")

Inputs: TypeAlias = Tensor | tuple[Tensor]
Maps: TypeAlias = Tensor | tuple[Tensor, ...]


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
    ) -> Maps:
        """Draws a map for each input (N, C, H, W), shaped like these; the target is not used."""
        images = single_tensor(inputs)
        generator = torch.Generator().manual_seed(check_seed(seed))
        drawn = torch.rand((len(images), 1, *images.shape[2:]), generator=generator)
        return masks_for(drawn, inputs)


class WithBaselines(Attribution):  # type: ignore[misc]  # captum's class is untyped
    """What methods have in common that use images and their classes; see :class:`BestCrop`."""

    def __init__(
        self, forward_func: Classifier, baselines: Images, baseline_labels: Labels = None
    ) -> None:
        super().__init__(forward_func)
        self._known: dict[int, Tensor] = {}  # what is kept of the baselines of each class
        with preserve_state(forward_func, 0):
            self._baselines = ensure_labels(
                forward_func, LabelledImages.of(baselines, baseline_labels, argument="baselines")
            )

    def _each(self, inputs: Inputs, target: Any, find: Callable[[Tensor, int], Tensor]) -> Maps:
        """The maps in Captum's form; ``find`` makes one of an image (C, H, W) and its class."""
        images = single_tensor(inputs)
        targets = parse_targets(target, len(images), self.forward_func)
        with preserve_state(self.forward_func, 0):
            found = [find(image, label) for image, label in zip(images.detach(), targets)]
        return masks_for(torch.stack(found), inputs)

    def _to_stamp(self, target: int, n_images: int, like: Tensor) -> Tensor:
        """At most this many baselines of other classes, on the classifier's device."""
        others = self._baselines.without_class(target)
        if not len(others):
            raise ValueError(f"all {len(self._baselines)} baselines are of class {target}")
        chosen = others.take(evenly_spaced(len(others), n_images))
        return chosen.to(*device_and_dtype(self.forward_func, like))


class Closeness(WithBaselines, Control):
    """How close each value of the input is to that of an image of its class."""

    @log_usage()
    def attribute(
        self, inputs: Inputs, target: Any = None, additional_forward_args: Any = None
    ) -> Maps:
        r"""
        Compares each input with an image of its target. Arguments are those of
        :meth:`BestCrop.attribute`.

        Raises:
            ValueError: If no baseline is of a target. For :class:`NearestImage` also if all of them
                are copies of the input, or the classifier has no features.
        """

        def closeness(image: Tensor, label: int) -> Tensor:
            of_class, total = self._baselines.of_class(label), len(self._baselines)
            if not len(of_class):
                raise ValueError(f"none of the {total} baselines is of class {label}")
            return 1 - (image - self._other(image, label, of_class)).abs()

        return self._each(inputs, target, closeness)

    def _other(self, image: Tensor, label: int, of_class: LabelledImages) -> Tensor:
        """The image that an input is compared with."""
        raise NotImplementedError


class ClassMean(Closeness):
    r"""
    How close each value of the input is to its mean over images of the class: 1 - abs(x - mean).

    Args:
        forward_func (Callable): Only used to label the images if they have no labels.
        baselines, baseline_labels: As in :class:`BestCrop`.

    Examples::

        >>> images = torch.tensor([0.25, 0.75, 1.0]).view(3, 1, 1, 1).expand(3, 1, 2, 2)
        >>> near = ClassMean(lambda x: x.mean((2, 3)), images, [4, 4, 0])
        >>> near.attribute(torch.tensor([[[[0.5, 0.6], [0.0, 1.0]]]]), target=4)
        tensor([[[[1.0000, 0.9000], [0.5000, 0.5000]]]])
    """

    def _other(self, image: Tensor, label: int, of_class: LabelledImages) -> Tensor:
        if label not in self._known:
            total = sum(images.double().sum(0) for images in of_class.in_order())
            self._known[label] = torch.as_tensor(total / len(of_class))
        return self._known[label].to(image)


class NearestImage(Closeness):
    r"""
    How close each value of the input is to that of the nearest baseline of the class:
    1 - abs(x - nearest).

    The nearest one has the smallest Euclidean distance, of pixels or of the classifier's features:
    the input of its last ``torch.nn.Linear``. Copies of the input don't count.

    Args:
        forward_func, baselines, baseline_labels: As in :class:`BestCrop`.
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

    def _other(self, image: Tensor, label: int, of_class: LabelledImages) -> Tensor:
        """The nearest baseline of the class, which is no copy of the image."""
        in_pixels = torch.cat(
            [(batch.to(image) - image).flatten(1).norm(dim=1) for batch in of_class.in_order()]
        )
        distances = in_pixels
        if self._by_features:
            own = last_features(self.forward_func, image[None])
            if label not in self._known:
                parts = [last_features(self.forward_func, batch) for batch in of_class.in_order()]
                self._known[label] = torch.cat(parts)
            distances = (self._known[label] - own).norm(dim=1)
        distances = distances.where(in_pixels.to(distances) > 0, torch.inf)
        if bool(distances.isinf().all()):
            raise ValueError(f"all baselines of class {label} are copies of the input: give others")
        return of_class.take([int(distances.argmin())])[0].to(image)


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

    @log_usage()
    def attribute(
        self,
        inputs: Inputs,
        target: Any = None,
        additional_forward_args: Any = None,
        *,
        area: float = 0.05,
        n_images: int = 12,
        n_positions: int = 100,
    ) -> Maps:
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

        def best(image: Tensor, label: int) -> Tensor:
            images = self._to_stamp(label, n_images, image)
            image = image.to(images)
            height, width = image.shape[1:]
            k = pixels_kept(area, (height, width))
            side, last_top, last_left, step = places_of_square(k, height, width, n_positions)
            scores: dict[tuple[int, int], float] = {}
            places = [*product(range(0, last_top + 1, step), range(0, last_left + 1, step))]
            while True:
                squares = ((square(k, side, *place, height, width), image) for place in places)
                found = mean_probabilities(self.forward_func, squares, images, label)
                scores.update(zip(places, found))
                top, left = max(scores, key=lambda place: scores[place])
                if step == 1:
                    return square(k, side, top, left, height, width)
                step = step // 2
                near = product((top - step, top, top + step), (left - step, left, left + step))
                places = [
                    (y, x)
                    for y, x in near
                    if 0 <= y <= last_top and 0 <= x <= last_left and (y, x) not in scores
                ]

        return self._each(inputs, target, best)


class BestRandomMask(WithBaselines, Control):
    r"""
    The best of as many random masks as a budget pays for.

    Each mask is stamped, in the pixels of the input, on the same baselines of other classes. The
    one with the highest mean probability of the class wins. An image that only goes forward is
    half a pass, so that a budget pays for 2 * budget / n_images masks.

    Args:
        forward_func, baselines, baseline_labels: As in :class:`BestCrop`.

    Examples::

        >>> net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 3)).eval()
        >>> best = BestRandomMask(net, torch.rand(30, 1, 8, 8), torch.arange(30) % 3)
        >>> mask = best.attribute(torch.rand(1, 1, 8, 8), target=1, area=3 / 64, budget=100)
        >>> int(mask.sum())
        3
    """

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
        max_seconds: float | None = None,
    ) -> Maps:
        r"""
        Tries the same masks on each input.

        Args:
            inputs, target, additional_forward_args: As in :meth:`BestCrop.attribute`.
            area, seed: As in :meth:`ClassPattern.search`.
            budget (int): Passes for each input, at least those of one mask. Default: 3,500.
            n_images (int): Number of baselines of other classes to stamp. Default: 20.
            max_seconds (float, optional): Draws no further mask after that time for an input.
                Default: None.

        Returns:
            *Tensor*: 1 in the best mask and 0 elsewhere, shaped like ``inputs``.

        Raises:
            ValueError: As in :meth:`BestCrop.attribute`; also if a setting is out of range.
        """
        for name, value in (("budget", budget), ("n_images", n_images)):
            check_count(name, value)
        most_seconds = inf if max_seconds is None else max_seconds
        check_positive("max_seconds", most_seconds)
        check_seed(seed)
        k = pixels_kept(area, single_tensor(inputs).shape[2:])

        def best(image: Tensor, label: int) -> Tensor:
            images, started = self._to_stamp(label, n_images, image), time.perf_counter()
            generator, masks = torch.Generator().manual_seed(seed), list[Tensor]()

            def patterns() -> Iterator[tuple[Tensor, Tensor]]:
                for number in range(max(1, 2 * budget // len(images))):
                    if time.perf_counter() - started > most_seconds and number:
                        return
                    masks.append(random_mask(k, image.shape[1:], generator))
                    yield masks[-1], image

            scores = [*mean_probabilities(self.forward_func, patterns(), images, label)]
            return masks[scores.index(max(scores))]

        return self._each(inputs, target, best)


class LearnedPattern(Attribution):  # type: ignore[misc]  # captum's class is untyped
    r"""
    The few pixels that make the classifier predict a class, in the colours that do it best, see
    :class:`~captum_classpattern.optimization.Learned`.

    Args:
        forward_func, baselines, baseline_labels: As in :class:`BestCrop`.

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
        self._search = ClassPattern(forward_func, baselines, baseline_labels)
        self.patterns: list[Pattern] = []
        self.precision: str | None = None

    @log_usage()
    def attribute(
        self,
        inputs: Inputs,
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
    ) -> Maps:
        """
        Searches pixels and colours; the colours begin at those of the inputs. Returns the masks,
        shaped like these. Arguments are those of :meth:`ClassPattern.search`.
        """
        images = single_tensor(inputs).detach().clamp(0, 1)
        settings = SearchSettings.of(locals(), solver="learned", areas=[area])
        [self.patterns] = self._search.search_with(
            settings, images, target, additional_forward_args
        ).values()
        self.precision = self.patterns[0].info["precision"]
        return masks_for(torch.stack([pattern.mask for pattern in self.patterns]), inputs)


# ---- stamping


def mean_probabilities(
    forward_func: Classifier, patterns: Iterable[tuple[Tensor, Tensor]], images: Tensor, target: int
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


def places_of_square(k: int, height: int, width: int, most: int) -> tuple[int, int, int, int]:
    """The side of a square of k pixels, its last row and its last column in an image, and the step
    of a grid with at most so many places for it."""
    side = min(round(k**0.5), width)
    last_top, last_left = height - -(-k // side), width - side
    if last_top < 0:
        raise ValueError(f"a square of {k} pixels does not fit into {height}x{width}")
    step = 1
    while (last_top // step + 1) * (last_left // step + 1) > most:
        step += 1
    return side, last_top, last_left, step


def square(k: int, side: int, top: int, left: int, height: int, width: int) -> Tensor:
    """The first k pixels of a square in reading order, (1, H, W)."""
    inside = torch.zeros(-(-k // side), side).flatten()
    inside[:k] = 1.0
    mask = torch.zeros(1, height, width)
    mask[0, top : top + -(-k // side), left : left + side] = inside.view(-1, side)
    return mask


def masks_for(maps: Tensor, inputs: Inputs) -> Maps:
    """Maps (N, 1 or C, H, W) in Captum's form: shaped like the inputs, in a tuple if these are."""
    images = single_tensor(inputs)
    shaped = maps.to(images).expand_as(images).contiguous()
    return (shaped,) if isinstance(inputs, tuple) else shaped


# ---- inside a classifier


def last_call(
    forward_func: Classifier, images: Tensor, fits: Callable[[nn.Module, Any], bool]
) -> tuple[nn.Module, tuple[Any, ...], Any] | None:
    """The last module to finish in a forward pass that fits, given it and its output: with its
    inputs and its output. None if none does, or the classifier is a mere function."""
    module, last = find_module(forward_func), list[Any]()

    def keep(*call: Any) -> None:
        if fits(call[0], call[-1]):
            last[:] = [call]  # no others, which would hold all that a large batch becomes

    parts = () if module is None else module.modules()
    hooks = [part.register_forward_hook(keep) for part in parts]
    try:
        with torch.no_grad():
            forward_func(images)
    finally:
        for hook in hooks:
            hook.remove()
    return last[0] if last else None


def last_features(forward_func: Classifier, images: Tensor) -> Tensor:
    """The input (B, D) of a classifier's last ``torch.nn.Linear``; an error if it has none."""
    images = images.to(*device_and_dtype(forward_func, images))
    last = last_call(forward_func, images, lambda part, _: isinstance(part, nn.Linear))
    features: Tensor | None = last[1][0] if last else None
    if features is None or len(features) != len(images):
        raise ValueError(
            "the features of an image are the input of the model's last torch.nn.Linear, one row "
            "per image, but the model has none: use by='pixels'"
        )
    return features.flatten(1).float()
