"""The search: the mask of each canvas that makes a classifier say the canvas's target."""

import itertools
from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy
from tqdm import tqdm

from captum_classpattern.checks import check_classifier, check_pixels, parse_targets, predict
from captum_classpattern.classifier import Classifier, placement, undisturbed
from captum_classpattern.images import Images, ImageSource, Labels

SOLVERS = ("paper",)


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
    solver: str = "paper",
    alpha: float = 0.2,
    step_size: float = 0.02,
    batch_size: int = 4,
    n_epochs: int = 5,
    n_steps: int | None = None,
    seed: int = 0,
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

    The searches are independent: N canvases together give the masks of N searches alone. Epoch
    e visits the baselines in the order ``numpy.random.default_rng([seed, e]).permutation(len(
    baselines))``, without those of class y. The caller's model, gradients and random state
    stay as they are.

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
        solver (str): ``"paper"``. Default: "paper".
        alpha (float): Weight of the classification loss, in [0, 1]. Default: 0.2.
        step_size (float): Step of the sign update. Default: 0.02.
        batch_size (int): Baselines a step. Default: 4.
        n_epochs (int): Times that each baseline is visited. Default: 5.
        n_steps (int, optional): Steps instead of epochs. Default: None.
        seed (int): Seed of the order of the baselines. Default: 0.
        internal_batch_size (int, optional): Most images in one call of ``forward_func``;
            changes memory, never the result. Default: None (all of a step).
        show_progress (bool): Draws a progress bar. Default: False.

    Returns:
        *SearchResult*: ``masks``, float32 (N, 1, H, W) in [0, 1] on the canvases' device;
        ``losses`` (N, steps); ``passes`` (N,), the number of baselines that each was shown.

    Raises:
        TypeError: If an argument is of a wrong type, or the classifier returns no Tensor.
        ValueError: If a shape, a range or a target does not fit, no baselines are left after
            those of class y are removed, or the loss becomes NaN or infinite.

    Examples::

        >>> net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 3))
        >>> canvases, baselines = torch.rand(2, 1, 8, 8), torch.rand(20, 1, 8, 8)
        >>> masks, losses, passes = search_masks(
        ...     net, canvases, [0, 2], baselines, baseline_labels=[1] * 20, n_steps=10)
        >>> masks.shape, losses.shape, passes.tolist()
        (torch.Size([2, 1, 8, 8]), torch.Size([2, 10]), [40, 40])
    """
    check_settings(solver, alpha, step_size, batch_size, n_epochs, n_steps, internal_batch_size)
    with undisturbed(forward_func, seed):
        canvases, targets, additional = check_search_inputs(
            forward_func, canvases, target, additional_forward_args
        )
        source = labelled_source(forward_func, baselines, baseline_labels, name="baselines")
        if source.shape != canvases.shape[1:]:
            raise ValueError(
                f"canvases and baselines must be of one shape (C, H, W), got canvases of "
                f"{tuple(canvases.shape[1:])} and baselines of {source.shape}"
            )
        plan = _Plan(source, targets, batch_size, n_epochs, n_steps, seed)
        return _paper_loop(
            forward_func,
            canvases,
            targets,
            plan,
            additional,
            alpha=alpha,
            step_size=step_size,
            internal_batch_size=internal_batch_size,
            show_progress=show_progress,
        )


def _paper_loop(
    forward_func: Classifier,
    canvases: Tensor,
    targets: list[int],
    plan: "_Plan",
    additional: tuple[Any, ...],
    *,
    alpha: float,
    step_size: float,
    internal_batch_size: int | None,
    show_progress: bool,
) -> SearchResult:
    count, (height, width) = len(canvases), canvases.shape[-2:]
    half = height * width / 2
    masks = torch.full((count, 1, height, width), 0.5, device=canvases.device)
    losses = torch.full((count, plan.steps), torch.nan, device=canvases.device)
    passes = torch.zeros(count, dtype=torch.int64)
    for step, (images, rows, picks) in enumerate(plan.batches(canvases, show_progress)):
        shares = torch.bincount(rows, minlength=count)
        active = shares > 0
        gradient, ce = _data_gradient(
            forward_func, canvases, masks, targets, images, rows, picks, additional, internal_batch_size
        )
        size = masks.sum((1, 2, 3)) / half
        losses[active, step] = (alpha * ce + (1 - alpha) * size)[active]
        if not bool(losses[active, step].isfinite().all()):
            raise ValueError(
                f"the loss is NaN or infinite at step {step}: the model's logits are, for images "
                "stamped with a mask; check the model's precision and normalisation"
            )
        gradient = alpha * gradient + (1 - alpha) / half
        masks[active] = (masks - step_size * gradient.sign()).clamp(0, 1)[active]
        passes += shares.cpu()
    return SearchResult(masks, losses, passes)


def _data_gradient(
    forward_func: Classifier,
    canvases: Tensor,
    masks: Tensor,
    targets: list[int],
    images: Tensor,
    rows: Tensor,
    picks: Tensor,
    additional: tuple[Any, ...],
    internal_batch_size: int | None,
) -> tuple[Tensor, Tensor]:
    """Each mask's mean cross-entropy over its own images, and the gradient of that.

    Pair p stamps the canvas ``rows[p]`` on the image ``picks[p]``. Each mask appears in its own
    pairs alone, so the gradient of the sum over all pairs holds every mask's own.
    """
    _, dtype = placement(forward_func, canvases)
    labels = torch.tensor(targets, device=canvases.device)
    weights = 1 / torch.bincount(rows, minlength=len(masks))[rows]
    ce, gradient = torch.zeros(len(masks), device=masks.device), torch.zeros_like(masks)
    for part in torch.arange(len(rows)).split(internal_batch_size or len(rows)):
        row, pick = rows[part], picks[part]
        leaf = masks.detach().requires_grad_()
        mask = leaf[row].to(dtype)
        stamped = mask * canvases[row].to(dtype) + (1 - mask) * images[pick].to(dtype)
        logits = forward_func(stamped, *additional_rows(additional, row, len(canvases)))
        each = weights[part] * cross_entropy(logits.float(), labels[row], reduction="none")
        gradient += torch.autograd.grad(each.sum(), leaf)[0]
        ce.index_add_(0, row, each.detach())
    return gradient, ce


class _Plan:
    """Which baselines each canvas meets at each step: one seeded stream a target."""

    def __init__(
        self,
        source: ImageSource,
        targets: list[int],
        batch_size: int,
        n_epochs: int,
        n_steps: int | None,
        seed: int,
    ) -> None:
        self.source, self.targets = source, targets
        self.batch_size, self.seed = batch_size, seed
        self.labels = source.labels.tolist() if source.labels is not None else []
        self.n_steps: dict[int, int] = {}
        for target in targets:
            left = len(source) - self.labels.count(target)
            if left == 0:
                raise ValueError(
                    f"no baselines are left for target {target}: all {len(source)} are labelled "
                    f"{target}; give images of other classes too"
                )
            self.n_steps[target] = n_steps or n_epochs * -(-left // batch_size)
        self.steps = max(self.n_steps.values())

    def _stream(self, target: int) -> Iterator[list[int]]:
        """The steps of one target: in each epoch all others' images once, in a fresh order."""
        epochs = (
            (i for i in _shuffled(len(self.source), self.seed, epoch) if self.labels[i] != target)
            for epoch in itertools.count()
        )
        batches = (
            batch
            for epoch in epochs
            for batch in iter(lambda it=epoch: list(itertools.islice(it, self.batch_size)), [])
        )
        return itertools.islice(batches, self.n_steps[target])

    def _rounds(self) -> Iterator[dict[int, list[int]]]:
        """A step of all targets at once; those that have finished are left out."""
        streams = {target: self._stream(target) for target in self.n_steps}
        for batches in itertools.zip_longest(*streams.values()):
            yield {t: batch for t, batch in zip(streams, batches) if batch is not None}

    def batches(self, canvases: Tensor, show_progress: bool) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """For each step its images, and which canvas meets which of them."""
        wanted = (sorted(set().union(*batches.values())) for batches in self._rounds())
        fetched = self.source.batches(wanted)
        rounds = tqdm(self._rounds(), "search", self.steps, disable=not show_progress, leave=False)
        for batches, images in zip(rounds, fetched):
            place = {index: i for i, index in enumerate(sorted(set().union(*batches.values())))}
            pairs = [
                (row, place[index])
                for row, target in enumerate(self.targets)
                for index in batches.get(target, [])
            ]
            rows, picks = torch.tensor(pairs, device=canvases.device).T
            yield images.to(canvases.device), rows, picks


@lru_cache(maxsize=2)
def _shuffled(count: int, seed: int, epoch: int) -> list[int]:
    order: list[int] = np.random.default_rng([seed, epoch]).permutation(count).tolist()
    return order


def additional_rows(additional: tuple[Any, ...], rows: Tensor, count: int) -> tuple[Any, ...]:
    """Captum's expansion of additional arguments: a Tensor with a row a canvas gives its rows."""
    return tuple(
        argument[rows] if isinstance(argument, Tensor) and argument.shape[:1] == (count,) else argument
        for argument in additional
    )


def labelled_source(
    forward_func: Classifier, images: Images, labels: Labels, *, name: str
) -> ImageSource:
    """The images with labels: the given ones, a data set's own, or the classifier's predictions."""
    source = ImageSource.of(images, labels, name=name)
    if source.labels is not None:
        return source
    everything = torch.arange(len(source)).split(64)
    predicted = [predict(forward_func, x).cpu() for x in source.batches(i.tolist() for i in everything)]
    return source.labelled(torch.cat(predicted))


def check_search_inputs(
    forward_func: Classifier, canvases: Tensor, target: Any, additional_forward_args: Any
) -> tuple[Tensor, list[int], tuple[Any, ...]]:
    """Canvases (copied), one target each, and the additional arguments as a tuple; or an error."""
    check_pixels(canvases, "canvases")
    targets = parse_targets(target, len(canvases))
    additional: tuple[Any, ...] = ()
    if additional_forward_args is not None:
        single = not isinstance(additional_forward_args, tuple)
        additional = (additional_forward_args,) if single else additional_forward_args
    canvases = canvases.detach().clone()  # an inference tensor could not be searched over
    first = torch.zeros(1, dtype=torch.int64, device=canvases.device)
    rows = additional_rows(additional, first, len(canvases))
    check_classifier(forward_func, canvases[:1], targets, rows)
    return canvases, targets, additional


def check_settings(
    solver: str,
    alpha: float,
    step_size: float,
    batch_size: int,
    n_epochs: int,
    n_steps: int | None,
    internal_batch_size: int | None,
) -> None:
    """Raises an error that names the first setting out of range."""
    if solver not in SOLVERS:
        raise ValueError(f"solver must be one of {', '.join(SOLVERS)}, got {solver!r}")
    if not 0 <= alpha <= 1:
        raise ValueError(f"alpha must lie in [0, 1], got {alpha}")
    if not step_size > 0:
        raise ValueError(f"step_size must be positive, got {step_size}")
    counts: Sequence[tuple[str, int | None]] = (
        ("batch_size", batch_size),
        ("n_epochs", n_epochs),
        ("n_steps", n_steps),
        ("internal_batch_size", internal_batch_size),
    )
    for name, value in counts:
        if value is not None and (not isinstance(value, int) or value < 1):
            raise ValueError(f"{name} must be a whole number from 1, got {value!r}")
