"""Training with a one-cycle schedule, as the benchmarks of Fashion-MNIST do it."""

from collections.abc import Callable

import torch
from torch import Tensor
from tqdm import tqdm

BATCH = 128


def fit(
    optimizer: torch.optim.Optimizer,
    loss_of: Callable[[Tensor], Tensor],
    n_images: int,
    epochs: int,
    rising: float = 0.3,
    generator: torch.Generator | None = None,
) -> None:
    """Lowers a loss. ``loss_of`` gets the places of a batch among the training images. The
    learning rate of the optimizer is the peak of the cycle, which it reaches after the share
    ``rising`` of the steps."""
    steps = n_images // BATCH
    peak = optimizer.param_groups[0]["lr"]
    has_momentum = not {"momentum", "betas"}.isdisjoint(optimizer.defaults)  # AdaGrad has none
    cycle = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, peak, epochs * steps, pct_start=rising, cycle_momentum=has_momentum
    )
    for _ in tqdm(range(epochs), "training", unit="epoch", leave=False, disable=None):
        order = torch.randperm(n_images, generator=generator)
        for batch in order[: steps * BATCH].view(-1, BATCH):
            loss = loss_of(batch)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            cycle.step()
