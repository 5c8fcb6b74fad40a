"""The search: the mask of each canvas that makes a classifier say the canvas's target."""

from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy
from tqdm import tqdm

from captum_classpattern.checks import (
    check_loss,
    check_pixels,
    check_same_shape,
    check_search_inputs,
    check_seed,
    check_settings,
)
from captum_classpattern.classifier import Classifier, additional_rows, placement, undisturbed
from captum_classpattern.images import Images, ImageSource, Labels, labelled_source
from captum_classpattern.schedule import Schedule, Step


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

        >>> net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 3)).eval()
        >>> canvases, baselines = torch.rand(2, 1, 8, 8), torch.rand(20, 1, 8, 8)
        >>> masks, losses, passes = search_masks(
        ...     net, canvases, [0, 2], baselines, baseline_labels=[1] * 20, n_steps=10)
        >>> masks.shape, losses.shape, passes.tolist()
        (torch.Size([2, 1, 8, 8]), torch.Size([2, 10]), [40, 40])
    """
    seed = check_seed(seed)
    check_settings(solver, alpha, step_size, batch_size, n_epochs, n_steps, internal_batch_size)
    with undisturbed(forward_func, seed):
        source = ImageSource.of(baselines, baseline_labels, name="baselines")
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
        schedule = Schedule(source, targets, batch_size, n_epochs, n_steps, seed)
        objective = _Objective(forward_func, canvases, targets, additional, internal_batch_size)
        return _paper_loop(objective, schedule, alpha, step_size, show_progress)


@dataclass(frozen=True)
class _Objective:
    """How well the classifier recognises stamped images, for many canvases at once."""

    forward_func: Classifier
    canvases: Tensor
    targets: list[int]
    additional: tuple[Any, ...]
    internal_batch_size: int | None

    def value_and_gradient(self, masks: Tensor, step: Step) -> tuple[Tensor, Tensor]:
        """Each mask's mean cross-entropy over its own images (N,), and the gradients (N, 1, H, W).

        A mask appears in its own pairs alone, so the gradient of the sum over all pairs holds
        every mask's own.
        """
        _, dtype = placement(self.forward_func, self.canvases)
        targets = torch.tensor(self.targets, device=masks.device)
        weights = 1 / step.counts[step.rows]
        value, gradient = torch.zeros(len(masks), device=masks.device), torch.zeros_like(masks)
        size = self.internal_batch_size or len(weights)
        for start in range(0, len(weights), size):
            part = slice(start, start + size)
            row, pick = step.rows[part], step.picks[part]
            leaf = masks.detach().requires_grad_()
            mask, canvas, image = leaf[row], self.canvases[row], step.images[pick]
            stamped = mask.to(dtype) * canvas.to(dtype) + (1 - mask.to(dtype)) * image.to(dtype)
            additional = additional_rows(self.additional, row, len(masks))
            logits = self.forward_func(stamped, *additional).float()
            if not logits.requires_grad:
                raise ValueError(
                    "the model's logits carry no gradient: it must not run under torch.no_grad, "
                    "detach its outputs or round them"
                )
            loss = weights[part] * cross_entropy(logits, targets[row], reduction="none")
            gradient += torch.autograd.grad(loss.sum(), leaf)[0]
            value.index_add_(0, row, loss.detach())
        return value, gradient


def _paper_loop(
    objective: _Objective, schedule: Schedule, alpha: float, step_size: float, show_progress: bool
) -> SearchResult:
    count, _, height, width = objective.canvases.shape
    device, half = objective.canvases.device, height * width / 2
    masks = torch.full((count, 1, height, width), 0.5, device=device)
    losses = torch.full((count, schedule.n_steps), torch.nan, device=device)
    passes = torch.zeros(count, dtype=torch.int64, device=device)
    steps = tqdm(schedule.steps(device), "search", schedule.n_steps, disable=not show_progress)
    for number, step in enumerate(steps):
        active = step.counts > 0  # a target with fewer baselines may have finished
        value, gradient = objective.value_and_gradient(masks, step)
        loss = alpha * value + (1 - alpha) * masks.sum((1, 2, 3)) / half
        check_loss(loss[active], number)
        losses[active, number] = loss[active]
        gradient = alpha * gradient + (1 - alpha) / half
        masks[active] = (masks - step_size * gradient.sign()).clamp(0, 1)[active]
        passes += step.counts
    return SearchResult(masks, losses, passes.cpu())
