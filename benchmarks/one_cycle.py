"""Training with a one-cycle schedule, as the benchmarks of Fashion-MNIST do it."""

from collections.abc import Callable

import torch
from torch import Tensor

BATCH = 128


def fit(
    optimizer: torch.optim.Optimizer,
    loss_of: Callable[[Tensor], Tensor],
    n_images: int,
    epochs: int,
) -> None:
    """Lowers a loss. ``loss_of`` gets the places of a batch among the training images. The
    learning rate of the optimizer is the peak of the cycle."""
    steps = n_images // BATCH
    peak = optimizer.param_groups[0]["lr"]
    cycle = torch.optim.lr_scheduler.OneCycleLR(optimizer, peak, epochs * steps)
    for _ in range(epochs):
        for batch in torch.randperm(n_images)[: steps * BATCH].view(-1, BATCH):
            loss = loss_of(batch)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            cycle.step()
