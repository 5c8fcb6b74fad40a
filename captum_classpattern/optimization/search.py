"""The search: the mask of each canvas that makes a classifier say the canvas's target."""

import itertools
from typing import Any, NamedTuple

import torch
from torch import Tensor
from tqdm import tqdm

from captum_classpattern._validation import (
    as_arguments,
    check_count,
    check_pixels,
    check_same_shape,
)
from captum_classpattern.class_names import parse_targets
from captum_classpattern.classifier import (
    Classifier,
    first_of,
    logits_of,
    preserve_state,
)
from captum_classpattern.images import Images, LabelledImages, Labels, ensure_labels
from captum_classpattern.optimization.acceleration import accelerated
from captum_classpattern.optimization.objective import Objective
from captum_classpattern.optimization.schedule import Schedule, Step
from captum_classpattern.optimization.settings import Settings
from captum_classpattern.pattern import pixels_kept

DECAY = 0.8  # of the running mean of the gradients
SWAPPED = 8  # the first rounds swap the eighth part of the pixels
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
    target: int | str | Tensor | list[int] | list[str],
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

    With ``solver="swap"``, the default, it takes fewer of these steps (five a round, in batches
    of 4), keeps the strongest pixels of the given area, and then improves this binary mask,
    which is what is used in the end. In each round those of its pixels that help least are to
    be swapped for as many others that would help most, by a running mean of the gradient of
    1 - sqrt(p), where p is the target's probability; the swap is made if that loss falls on the
    same batch. It is of an eighth of the pixels in the first round, falling to one. The masks
    hold the pixels of the area alone, weighted from 0.5 to 1 by what they help.

    The searches are independent: N canvases together give the masks of N searches alone, up to
    rounding. Epoch e visits the baselines in the order ``numpy.random.default_rng([seed,
    e]).permutation(len(baselines))``, without those of class y. The caller's model, gradients
    and random state stay as they are.

    The same seed, settings, number of threads and kind of device give the same masks bit for bit,
    as far as the model's own operations do. Another ``internal_batch_size`` or number of threads
    gives the same masks up to rounding: sums are taken in another order, which moves the last bits
    of a loss (in bfloat16 its third digit). Swaps that are nearly even can then fall the other
    way, so that masks differ, though no more than those of two seeds.

    Args:
        forward_func (Callable): Classifier from pixels (B, C, H, W) in [0, 1] to logits (B, K).
        canvases (Tensor): The images to cut patterns from, (N, C, H, W) in [0, 1].
        target (int, str, Tensor or list): The class, by its number or by its name in the
            classifier's ``class_names``; or one for each canvas.
        baselines (Tensor, Dataset or DataLoader): The images to win over, (C, H, W) each, in
            [0, 1]; a Dataset or DataLoader gives images or pairs of image and label. A batch at
            a time is moved to the canvases' device.
        baseline_labels (Tensor or Sequence[int], optional): Their classes. Default: None (the
            Dataset's own, else the classifier's predictions).
        additional_forward_args (Any, optional): Handed to ``forward_func`` after the images; of
            a Tensor with N rows, each canvas gets its row. Default: None.
        solver (str): ``"swap"`` or ``"paper"``. Default: "swap".
        area (float): Share of the pixels that the swap solver's masks hold. Default: 0.05.
        alpha (float): Weight of the classification loss in the steps by the sign, in [0, 1].
            Default: 0.2.
        step_size (float): Size of these steps. Default: 0.02.
        batch_size (int, optional): Baselines a step of the paper's solver, or a round of the
            swap solver. Default: None (4 and 16).
        n_epochs (int, optional): Times that each baseline is visited, by the swap solver in its
            rounds (its steps by the sign come on top). Default: None (5 with the paper's solver).
        n_steps (int, optional): Steps of the paper's solver, or rounds of the swap solver,
            instead of epochs. Default: None (80 rounds, unless ``n_epochs`` is given).
        seed (int): Seed of the order of the baselines. Default: 0.
        precision (str): ``"auto"`` lets the swap solver work on a private copy of the model with
            its batch norms folded, and in bfloat16 and channels_last where a network of
            convolutions is on a device made for bfloat16 (CUDA from compute capability 8.0, CPUs
            with AMX or AVX-512 bfloat16); ``"bfloat16"`` asks for it anywhere; ``"full"`` uses
            the model as it is. Default: "auto".
        internal_batch_size (int, optional): Most images in one call of ``forward_func``;
            changes memory, and the masks only as rounding does (see above). Default: None (32
            on CPUs, elsewhere all of a step; halved if the device's memory is too small).
        show_progress (bool): Draws a progress bar. Default: False.

    Returns:
        *SearchResult*: ``masks``, float32 (N, 1, H, W) in [0, 1] on the canvases' device;
        ``losses`` (N, steps), of the swap solver those of its rounds; ``passes`` (N,), how
        often the model was run forward and back on an image for each (of the runs forward
        alone, as in trying a swap, two count as one).

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
    with preserve_state(forward_func, settings.seed):
        search = begin_search(
            forward_func,
            canvases,
            target,
            LabelledImages.of(baselines, baseline_labels, argument="baselines"),
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
    source: LabelledImages,
    settings: Settings,
    additional_forward_args: Any,
    internal_batch_size: int | None,
    show_progress: bool,
) -> "Search":
    """A search that has been checked and not begun; to be called, and used, preserve_state."""
    if internal_batch_size is not None:
        check_count("internal_batch_size", internal_batch_size)
    check_pixels(canvases, "canvases")
    check_same_shape(canvases, source.shape)
    canvases, targets, additional = check_search_inputs(
        forward_func, canvases, target, additional_forward_args
    )
    first, arguments = first_of(canvases, additional)
    logits = logits_of(forward_func, first, targets, arguments)
    source = ensure_labels(
        forward_func,
        source,
        like=canvases,
        additional_forward_args=additional_forward_args,
        batch_size=internal_batch_size,
    )
    if internal_batch_size is None and canvases.device.type == "cpu":
        internal_batch_size = CPU_BATCH
    schedule = Schedule(source, targets, settings)
    if settings.swaps:
        logits = accelerated(logits, canvases, additional, settings.precision)
    objective = Objective(logits, canvases, targets, additional, internal_batch_size)
    return Search(objective, schedule, settings, show_progress)


class Search:
    """A search in the making: taken in parts, between which losing canvases may be dropped.

    Both solvers start with the paper's steps by the sign of the gradient. The swap solver then
    makes each mask binary and swaps pixels: the ones that it holds and that help least, for
    others that would help most, if that is better.
    """

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
        self.halves = [0] * count  # of a pass forward and back
        self.number = 0
        self._steps = schedule.steps(device)
        self._bar = tqdm(desc="search", total=schedule.n_steps, disable=not show_progress)

    def advance(self, until: int | None = None) -> None:
        """Goes on until a number of steps is done, or all."""
        until = self.schedule.n_steps if until is None else until
        for step in itertools.islice(self._steps, until - self.number):
            swapping = self.number >= self.schedule.sign_steps
            if self.number == self.schedule.sign_steps:
                self._make_binary()
            (self._swap if swapping else self._sign_step)(step)
            for row in self.rows:
                shown = len(step.picks.get(self.objective.targets[row], ()))
                self.halves[row] += 3 * shown if swapping else 2 * shown
            self.number += 1
            self._bar.update()
            if self.number % CHECK_EVERY == 0:
                self._check()
        self._check()
        if self.number == self.schedule.n_steps:
            self._bar.close()

    @property
    def passes(self) -> Tensor:
        """Of each canvas; a run forward alone counts half."""
        return torch.tensor([-(-halves // 2) for halves in self.halves])

    def stops(self) -> list[int]:
        """Where losing canvases may be dropped: half through the steps by the sign, after them, and
        after each quarter of the rounds."""
        signs = self.schedule.sign_steps
        rounds = self.schedule.n_steps - signs
        return [signs // 2, *sorted({signs + rounds * part // 4 for part in range(4)})]

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

    def _make_binary(self) -> None:
        """The strongest pixels are held; what the masks say of all is where the trend begins."""
        self.trend = _normalised(0.5 - self.masks)
        self.masks = _strongest(self.masks, self.kept)

    def _swap(self, step: Step) -> None:
        """Tries to swap pixels of each binary mask: many in the first rounds, one in the last."""
        rounds = self.schedule.n_steps - self.schedule.sign_steps
        left = (self.schedule.n_steps - self.number) / rounds
        most = min(self.kept, self.masks[0].numel() - self.kept) / SWAPPED
        masks = self.masks[self.rows]
        loss, slope = self.objective.value_and_gradient(masks, self.rows, step, bounded=True)
        trend = DECAY * self.trend[self.rows] + (1 - DECAY) * _normalised(slope)
        self.trend[self.rows] = trend
        swapped = _swapped(masks, trend, max(1, round(most * left)))
        better = self.objective.value(swapped, self.rows, step) < loss
        self._take(step, swapped.where(better.view(-1, 1, 1, 1), masks), loss)

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
        signs = self.schedule.sign_steps
        swapped = self.number > signs
        masks = _weighted(self.masks, self.trend) if swapped else self.masks
        return SearchResult(masks, self.losses[:, signs % self.schedule.n_steps :], self.passes)


def _normalised(slope: Tensor) -> Tensor:
    """Each one divided by its norm, by its largest entry first: squares of tiny ones vanish."""
    slope = slope / slope.abs().amax((1, 2, 3), keepdim=True).clamp(min=TINY)
    return slope / slope.square().sum((1, 2, 3), keepdim=True).sqrt().clamp(min=TINY)


def _strongest(masks: Tensor, kept: int) -> Tensor:
    """The binary masks of the largest values; of ties (to rounding) the first in reading order."""
    order = (masks * 1e5).round().flatten(1).argsort(dim=1, descending=True, stable=True)
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


def check_search_inputs(
    forward_func: Classifier, canvases: Tensor, target: Any, additional_forward_args: Any
) -> tuple[Tensor, list[int], tuple[Any, ...]]:
    """Canvases (copied), one target each, and the additional arguments as a tuple; or an error."""
    targets = parse_targets(target, len(canvases), forward_func)
    additional = tuple(
        argument.clone() if isinstance(argument, Tensor) and argument.is_inference() else argument
        for argument in as_arguments(additional_forward_args)
    )
    canvases = canvases.detach().clone()  # out of inference mode, which knows no gradients
    return canvases, targets, additional
