"""The search: the mask of each canvas that makes a classifier say the canvas's target."""

import itertools
from typing import Any, NamedTuple

import torch
from torch import Tensor
from tqdm import tqdm

from captum_classpattern.acceleration import accelerated
from captum_classpattern.checks import (
    check_count,
    check_pixels,
    check_same_shape,
    check_search_inputs,
)
from captum_classpattern.classifier import Classifier, undisturbed
from captum_classpattern.images import Images, ImageSource, Labels, labelled_source
from captum_classpattern.objective import Objective
from captum_classpattern.pattern import pixels_kept
from captum_classpattern.schedule import Schedule, Step
from captum_classpattern.settings import Settings

DECAY = 0.8  # of the running mean of the gradients
SOFT = 0.5  # how far the swap solver's masks are from binary at first, towards 0.5 everywhere
TINY = torch.finfo().tiny
CHECK_EVERY = 16  # steps between looks at the losses: a look waits for the device
CPU_BATCH = 32  # larger steps spend their time on fresh memory pages


class SearchResult(NamedTuple):
    """Masks (N, 1, H, W), losses (N, steps; NaN after a mask's last step), and passes (N,)."""

    masks: Tensor
    losses: Tensor
    passes: Tensor


def search_masks(
    forward_func: Classifier,
    canvases: Tensor,
    target: int | Tensor | list[int],
    baselines: Images,
    *,
    baseline_labels: Labels = None,
    additional_forward_args: Any = None,
    solver: str = "swap",
    area: float = 0.05,
    alpha: float = 0.2,
    step_size: float = 0.02,
    batch_size: int | None = None,
    n_epochs: int | None = None,
    n_steps: int | None = None,
    seed: int = 0,
    precision: str = "auto",
    internal_batch_size: int | None = None,
    show_progress: bool = False,
) -> SearchResult:
    r"""
    Searches, for each canvas, the mask whose pixels make the classifier say the target.

    With ``solver="paper"`` it minimises over the mask m of a canvas x_c, for the target y,

        alpha * CE(f(m * x_c + (1 - m) * x_n), y) + (1 - alpha) * sum(m) / (H * W / 2)

    by m <- clip(m - step_size * sign(gradient), 0, 1), from m = 0.5, over shuffled batches of
    baselines x_n that are not of class y (Zhao et al. 2021, arXiv 2101.06898, section 3.2,
    with the settings of the authors' code for CIFAR-10).

    With ``solver="swap"``, the default, it improves the mask that is used in the end: a binary
    one that holds the pixels of the given area. In each round those of its pixels that help least
    are swapped for others that would help more, by a running mean of the gradient of
    1 - sqrt(p), where p is the target's probability: of all pixels in the first round, falling to
    one by the square of the rounds that are left. The gradient is taken at a softened mask,
    halfway to 0.5 everywhere in the first round and binary in the last. The returned masks hold
    the pixels of the area alone, weighted from 0.5 to 1 by what they help.

    The searches are independent: N canvases together give the masks of N searches alone, up to
    rounding. Epoch e visits the baselines in the order ``numpy.random.default_rng([seed,
    e]).permutation(len(baselines))``, without those of class y. The caller's model, gradients
    and random state stay as they are.

    Args:
        forward_func (Callable): Classifier from pixels (B, C, H, W) in [0, 1] to logits (B, K).
        canvases (Tensor): The images to cut patterns from, (N, C, H, W) in [0, 1].
        target (int, Tensor or list[int]): The class, or one for each canvas.
        baselines (Tensor, Dataset or DataLoader): The images to win over, (C, H, W) each, in
            [0, 1]; a Dataset or DataLoader gives images or pairs of image and label. A batch at
            a time is moved to the canvases' device.
        baseline_labels (Tensor or Sequence[int], optional): Their classes. Default: None (the
            Dataset's own, else the classifier's predictions).
        additional_forward_args (Any, optional): Handed to ``forward_func`` after the images; of
            a Tensor with N rows, each canvas gets its row. Default: None.
        solver (str): ``"swap"`` or ``"paper"``. Default: "swap".
        area (float): Share of the pixels that the swap solver's masks hold. Default: 0.05.
        alpha (float): Weight of the paper's solver's classification loss, in [0, 1]. Default: 0.2.
        step_size (float): Step of the paper's solver. Default: 0.02.
        batch_size (int, optional): Baselines a step of the paper's solver, or a round of the
            swap solver. Default: None (4 and 16).
        n_epochs (int, optional): Times that each baseline is visited. Default: None (5 with the
            paper's solver).
        n_steps (int, optional): Steps of the paper's solver, or rounds of the swap solver,
            instead of epochs. Default: None (100 rounds, unless ``n_epochs`` is given).
        seed (int): Seed of the order of the baselines. Default: 0.
        precision (str): ``"auto"`` lets the swap solver work on a private copy of the model in
            bfloat16, channels_last and with batch norms folded, each where a quick measurement
            shows a gain; ``"full"`` uses the model as it is. Default: "auto".
        internal_batch_size (int, optional): Most images in one call of ``forward_func``;
            changes memory, never the result. Default: None (32 on CPUs, elsewhere all of a
            step; halved if the device's memory is too small).
        show_progress (bool): Draws a progress bar. Default: False.

    Returns:
        *SearchResult*: ``masks``, float32 (N, 1, H, W) in [0, 1] on the canvases' device;
        ``losses`` (N, steps); ``passes`` (N,), how often the model was run forward and back on
        an image for each.

    Raises:
        TypeError: If an argument is of a wrong type, or the classifier returns no Tensor.
        ValueError: If a shape, a range or a target does not fit, no baselines are left after
            those of class y are removed, or the loss becomes NaN or infinite.

    Examples::

        >>> net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 3)).eval()
        >>> canvases, baselines = torch.rand(2, 1, 8, 8), torch.rand(20, 1, 8, 8)
        >>> masks, losses, passes = search_masks(
        ...     net, canvases, [0, 2], baselines, baseline_labels=[1] * 20, n_steps=10)
        >>> masks.shape, masks.count_nonzero((1, 2, 3)).tolist(), losses.shape
        (torch.Size([2, 1, 8, 8]), [3, 3], torch.Size([2, 10]))
    """
    settings = Settings(
        solver, area, alpha, step_size, batch_size, n_epochs, n_steps, seed, precision
    )
    with undisturbed(forward_func, settings.seed):
        search = begin_search(
            forward_func,
            canvases,
            target,
            ImageSource.of(baselines, baseline_labels, name="baselines"),
            settings,
            additional_forward_args,
            internal_batch_size,
            show_progress,
        )
        search.advance()
        return search.result()


def begin_search(
    forward_func: Classifier,
    canvases: Tensor,
    target: Any,
    source: ImageSource,
    settings: Settings,
    additional_forward_args: Any,
    internal_batch_size: int | None,
    show_progress: bool,
) -> "Search":
    """A search that has been checked and not begun; to be called, and used, undisturbed."""
    if internal_batch_size is not None:
        check_count("internal_batch_size", internal_batch_size)
    check_pixels(canvases, "canvases")
    check_same_shape(canvases, source.shape)
    canvases, targets, additional = check_search_inputs(
        forward_func, canvases, target, additional_forward_args
    )
    source = labelled_source(
        forward_func,
        source,
        None,
        name="baselines",
        like=canvases,
        additional_forward_args=additional_forward_args,
        batch_size=internal_batch_size,
    )
    if internal_batch_size is None and canvases.device.type == "cpu":
        internal_batch_size = CPU_BATCH
    schedule = Schedule(source, targets, settings)
    if settings.swaps and settings.precision == "auto":
        forward_func = accelerated(forward_func, canvases, additional, internal_batch_size)
    objective = Objective(forward_func, canvases, targets, additional, internal_batch_size)
    return Search(objective, schedule, settings, show_progress)


class Search:
    """A search in the making: taken in parts, between which losing canvases may be dropped."""

    def __init__(
        self, objective: Objective, schedule: Schedule, settings: Settings, show_progress: bool
    ) -> None:
        self.objective, self.schedule, self.settings = objective, schedule, settings
        count, _, height, width = objective.canvases.shape
        device = objective.canvases.device
        self.kept = pixels_kept(settings.area, (height, width)) if settings.swaps else 0
        self.rows = list(range(count))  # the canvases that are still searched
        self.masks = torch.full((count, 1, height, width), 0.5, device=device)
        self.trend = torch.zeros_like(self.masks)
        self.losses = torch.full((count, schedule.n_steps), torch.nan, device=device)
        self.finite = torch.ones(schedule.n_steps, dtype=torch.bool, device=device)
        self.passes = torch.zeros(count, dtype=torch.int64)
        self.number = 0
        self._steps = schedule.steps(device)
        self._bar = tqdm(desc="search", total=schedule.n_steps, disable=not show_progress)

    def advance(self, until: int | None = None) -> None:
        """Goes on until a number of steps is done, or all."""
        until = self.schedule.n_steps if until is None else until
        for step in itertools.islice(self._steps, until - self.number):
            (self._swap if self.settings.swaps else self._sign_step)(step)
            for row in self.rows:
                self.passes[row] += len(step.picks.get(self.objective.targets[row], ()))
            self.number += 1
            self._bar.update()
            if self.number % CHECK_EVERY == 0:
                self._check()
        self._check()
        if self.number == self.schedule.n_steps:
            self._bar.close()

    def stops(self) -> list[int]:
        """The steps after which losing canvases may be dropped: each quarter of the search."""
        return [max(1, self.schedule.n_steps * part // 4) for part in (1, 2, 3)]

    def drop(self, losing: set[int]) -> None:
        """Leaves some of the canvases that are still searched, by their place among these."""
        self.rows = [row for place, row in enumerate(self.rows) if place not in losing]

    def _sign_step(self, step: Step) -> None:
        """The paper's step: cross-entropy and size of the mask, by the sign of the gradient."""
        alpha, half = self.settings.alpha, self.masks[0].numel() / 2
        masks = self.masks[self.rows]
        value, slope = self.objective.value_and_gradient(masks, self.rows, step)
        loss = alpha * value + (1 - alpha) * masks.sum((1, 2, 3)) / half
        slope = alpha * slope + (1 - alpha) / half
        self._take(step, (masks - self.settings.step_size * slope.sign()).clamp(0, 1), loss)

    def _swap(self, step: Step) -> None:
        """Swaps pixels of each binary mask: many at soft masks first, one at a time at the end."""
        left = 1 - self.number / self.schedule.n_steps
        masks = self.masks[self.rows]
        softened = masks + SOFT * left * (0.5 - masks)
        loss, slope = self.objective.value_and_gradient(softened, self.rows, step, bounded=True)
        slope = slope / slope.square().sum((1, 2, 3), keepdim=True).sqrt().clamp(min=TINY)
        self.trend[self.rows] = trend = DECAY * self.trend[self.rows] + (1 - DECAY) * slope
        most = min(self.kept, self.masks[0].numel() - self.kept)
        if self.number == 0:  # the masks are 0.5 everywhere
            swapped = _strongest(-trend, self.kept)
        else:
            swapped = _swapped(masks, trend, max(1, round(most * left**2)))
        self._take(step, swapped, loss)

    def _take(self, step: Step, masks: Tensor, losses: Tensor) -> None:
        """Keeps the new masks and losses of the canvases that had images in this step."""
        targets = self.objective.targets
        active = [i for i, row in enumerate(self.rows) if targets[row] in step.picks]
        rows = [self.rows[i] for i in active]
        self.masks[rows], self.losses[rows, self.number] = masks[active], losses[active]
        self.finite[self.number] = losses[active].isfinite().all()

    def _check(self) -> None:
        """Raises an error if a loss was NaN or infinite."""
        if not bool(self.finite.all()):
            raise ValueError(
                f"the loss is NaN or infinite at step {int(self.finite.int().argmin())}: the "
                "model's logits are, for images stamped with a mask; check the model's precision "
                "and normalisation"
            )

    def result(self) -> SearchResult:
        """What has been found so far."""
        masks = _weighted(self.masks, self.trend) if self.settings.swaps else self.masks
        return SearchResult(masks, self.losses, self.passes)


def _strongest(masks: Tensor, kept: int) -> Tensor:
    """The binary masks of the largest values; of ties the first in reading order."""
    order = masks.flatten(1).argsort(dim=1, descending=True, stable=True)
    binary = torch.zeros_like(masks).flatten(1).scatter_(1, order[:, :kept], 1.0)
    return binary.view(masks.shape)


def _swapped(masks: Tensor, trend: Tensor, count: int) -> Tensor:
    """Each binary mask with a number of its pixels swapped for others, where the trend gains.

    Pixels with a large trend raise the loss where they are held, those with a low one would
    lower it; stable sorts, so that ties fall the same way on every run.
    """
    held, slope = masks.flatten(1) > 0, trend.flatten(1)
    out = slope.where(held, -torch.inf).argsort(dim=1, descending=True, stable=True)[:, :count]
    into = slope.where(~held, torch.inf).argsort(dim=1, stable=True)[:, :count]
    gains = (slope.gather(1, out) > slope.gather(1, into)).to(masks.dtype)
    swapped = masks.flatten(1).scatter(1, out, 1 - gains).scatter(1, into, gains)
    return swapped.view(masks.shape)


def _weighted(masks: Tensor, trend: Tensor) -> Tensor:
    """Binary masks whose pixels weigh from 0.5 to 1, by how much their trend lowers the loss."""
    helps = -trend
    low = helps.where(masks > 0, torch.inf).amin((1, 2, 3), keepdim=True)
    high = helps.where(masks > 0, -torch.inf).amax((1, 2, 3), keepdim=True)
    span = (high - low).clamp(min=TINY)
    return masks * (1 - 0.5 * ((high - helps) / span).clamp(0, 1))
