"""Neural Cleanse and pixel inversion, and what all inversions have in common."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from captum_classpattern._support.validation import check_count
from captum_classpattern.classifier import Classifier, check_targets, enter_model, preserve_state
from captum_classpattern.images import Images, LabelledImages, Labels, ensure_labels, first_of
from captum_classpattern.pattern import AdditivePattern, Pattern

PASSES = 1_280  # as many as a scan takes a class
RATE, BETAS = 0.1, (0.5, 0.9)  # of Adam, in both inversions
TINY, EDGE = 1e-7, 1e-3


class Inversion(NamedTuple):
    """A pattern that an optimiser found for a class, its size in pixels, how many of the last
    images are predicted as it, and the change (C, H, W) if that is added to images."""

    pattern: Pattern
    size: float
    success: float
    change: Tensor | None = None

    @property
    def own_form(self) -> Pattern:
        """What was searched: the mask on its colours, or the change of all pixels."""
        if self.change is None:
            return self.pattern
        changed = (self.change != 0).any(0, keepdim=True).to(self.change)
        return AdditivePattern(
            self.pattern.canvas, changed, self.pattern.target, change=self.change
        )


def neural_cleanse(
    forward_func: Classifier, images: Images, target: int, **settings: Any
) -> Inversion:
    """Neural Cleanse: the smallest soft mask, with colours, that makes the model predict a class
    (Wang et al. 2019, IEEE S&P, section IV). Arguments are those of :class:`InversionTask`.

    It minimises the cross-entropy plus a weight times the sum of the mask, the size. The weight is
    0 at first, and 0.001 after five epochs with a success of 99 %. Then it doubles after five such
    epochs in a row, and is divided by 2 to the power of 1.5 after five others.
    """
    task = InversionTask(forward_func, images, target, **settings)
    with task.begun() as chance:
        mask = _spread(uniform(chance, (1, *task.shape[1:]), task.first)).requires_grad_()
        colours = _spread(uniform(chance, task.shape, task.first)).requires_grad_()
        adam = torch.optim.Adam([mask, colours], RATE, BETAS)
        weight = _Weight(0.0, 0.001, 2.0, patience=5, success=0.99)
        best: tuple[float, float, Tensor, Tensor] | None = None
        for wins, batches in task.epochs(chance):
            for batch in batches:
                soft, shade = _squashed(mask), _squashed(colours)
                stamped = soft * shade + (1 - soft) * batch
                loss = task.loss(stamped, wins) + weight.value * soft.sum()
                adam.zero_grad()
                loss.backward(inputs=[mask, colours])
                adam.step()
            success, size = float(np.mean(wins)), float(soft.detach().sum())
            smaller = success >= weight.success and best is not None and size < best[0]
            if smaller or best is None or best[1] < weight.success:  # the last one, if none is good
                best = size, success, soft.detach(), shade.detach()
            weight.update(success)
        assert best is not None
        size, success, soft, shade = best
    return Inversion(task.pattern(shade, soft), size, success)


def pixel_inversion(
    forward_func: Classifier, images: Images, target: int, **settings: Any
) -> Inversion:
    """Pixel inversion: an additive change of few pixels that makes the model predict a class (Tao
    et al. 2022, CVPR, "Better Trigger Inversion Optimization in Backdoor Scanning"). Arguments are
    those of :class:`InversionTask`.

    One tensor raises pixels and another lowers them. Both pay, pixel by pixel, for the hyperbolic
    tangent of their largest channel. The weight of this price grows by half after ten epochs with a
    success of 90 %, and is divided by 1.5 to the power of 1.5 after ten others. Where the change
    has become cheaper and of fewer pixels, changes below 1 / 255 are set to zero. The mask says how
    much each pixel changes, the canvas its mean colour on the images.
    """
    task = InversionTask(forward_func, images, target, **settings)
    with task.begun() as chance:
        parts = [uniform(chance, task.shape, task.first).requires_grad_() for _ in range(2)]
        adam = torch.optim.Adam(parts, RATE, BETAS)
        weight = _Weight(0.001, 0.001, 1.5, patience=10, success=0.9)
        best: tuple[float, float, float, Tensor] | None = None
        for wins, batches in task.epochs(chance):
            for batch in batches:
                before = [part.detach().clamp(0, 1) for part in parts]
                change = parts[0].clamp(0, 1) - parts[1].clamp(0, 1)
                price = torch.stack([_price(part) for part in parts]).sum()
                loss = task.loss((batch + change).clamp(0, 1), wins) + weight.value * price
                adam.zero_grad()
                loss.backward(inputs=parts)
                adam.step()
            success, cost = float(np.mean(wins)), float(price.detach())
            kept = [part.where(part >= 1 / 255, 0) for part in before]
            change = kept[0] - kept[1]
            size = float((change != 0).any(0).sum())
            none_good = best is None or best[2] < weight.success
            least = (np.inf, np.inf) if best is None or none_good else best[:2]
            better = success >= weight.success and cost < least[0] and size < least[1]
            if better or none_good:  # the last one, if none is good
                best = cost, size, success, change
            if better:  # the search continues from what was found
                with torch.no_grad():
                    for part, value in zip(parts, kept):
                        part.copy_(value)
            weight.update(success)
        assert best is not None
        _, size, success, change = best
        colours = task.mean_of(lambda images: (images + change).clamp(0, 1))
    pattern = task.pattern(colours, change.abs().amax(0, keepdim=True))
    return Inversion(pattern, size, success, change.detach().float().cpu())


class InversionTask:
    """What every inversion begins with: a classifier, and images of other classes than the target.
    ``passes`` is how many images go forward and backward in all, ``batch_size`` how many in a step,
    and ``epoch`` the steps between decisions about the weight (as published, all images)."""

    def __init__(
        self,
        forward_func: Classifier,
        images: Images,
        target: int,
        *,
        labels: Labels = None,
        passes: int = PASSES,
        batch_size: int = 16,
        epoch: int = 1,
        seed: int = 0,
    ) -> None:
        for name, value in (("passes", passes), ("batch_size", batch_size), ("epoch", epoch)):
            check_count(name, value)
        self.passes, self.batch_size, self.epoch = passes, batch_size, epoch
        self.target, self.seed, self._given = target, seed, forward_func
        with enter_model(forward_func, first_of(images)) as model:
            given = ensure_labels(model, LabelledImages.of(images, labels))
            others = given.without_class(target)
            if not len(others):
                raise ValueError(
                    f"all {len(given)} images are of class {target}: give others as well"
                )
            check_targets([target], model.n_classes)
            place, self.forward_func = (model.device, model.dtype), model.logits
            self.images, self.first = others.to(*place), others.take([0]).to(*place)
        self.shape = self.images.shape

    @contextmanager
    def begun(self) -> Iterator[np.random.Generator]:
        """Random numbers, while the classifier is in eval mode; afterwards all is as it was."""
        with preserve_state(self._given, self.seed):
            yield np.random.default_rng([self.seed, self.target])

    def epochs(self, chance: np.random.Generator) -> Iterator[tuple[list[float], Iterator[Tensor]]]:
        """For each epoch a list that :meth:`loss` fills with the successes of its batches, and
        these batches."""
        for _ in range(max(1, self.passes // (self.batch_size * self.epoch))):
            yield [], (self._batch(chance) for _ in range(self.epoch))

    def _batch(self, chance: np.random.Generator) -> Tensor:
        n, size = len(self.images), self.batch_size
        chosen = chance.choice(n, size, replace=n < size)
        return self.images.take(chosen.tolist()).to(self.first)

    def mean_of(self, change: Callable[[Tensor], Tensor]) -> Tensor:
        """The mean of all images, each changed."""
        batches = (change(images.to(self.first)) for images in self.images.in_order())
        return sum(batch.double().sum(0) for batch in batches) / len(self.images)

    def loss(self, stamped: Tensor, wins: list[float]) -> Tensor:
        """The cross-entropy, whose success is added to ``wins``."""
        logits = self.forward_func(stamped)
        wins.append(int((logits.argmax(1) == self.target).sum()) / len(stamped))
        wanted = torch.full((len(stamped),), self.target, device=stamped.device)
        return F.cross_entropy(logits.float(), wanted)

    def pattern(self, colours: Tensor, mask: Tensor) -> Pattern:
        return Pattern(colours.float().cpu(), mask.float().cpu().clamp(0, 1), self.target)


class _Weight:
    """A weight that grows after some good epochs in a row, and shrinks after as many bad ones."""

    def __init__(
        self, value: float, least: float, factor: float, *, patience: int, success: float
    ) -> None:
        self.value, self.least, self.factor = value, least, factor
        self.patience, self.success = patience, success
        self.good = self.bad = 0

    def update(self, success: float) -> None:
        good = success >= self.success
        self.good, self.bad = (self.good + 1, 0) if good else (0, self.bad + 1)
        if self.good >= self.patience:
            self.value = self.value * self.factor if self.value else self.least
            self.good = 0
        elif self.bad >= self.patience:
            self.value /= self.factor**1.5
            self.bad = 0


def uniform(chance: np.random.Generator, shape: Sequence[int], like: Tensor) -> Tensor:
    return torch.from_numpy(chance.random(shape)).to(like)


def _squashed(values: Tensor) -> Tensor:
    """Values in (0, 1)."""
    return values.tanh() / (2 + TINY) + 0.5


def _spread(values: Tensor) -> Tensor:
    """What :func:`_squashed` turns into these values."""
    return ((values - 0.5) * (2 - EDGE)).atanh()


def _price(part: Tensor) -> Tensor:
    return (((part / 10).tanh() / 2 + 0.5).amax(0)).sum()
