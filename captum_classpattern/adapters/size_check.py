"""Whether a network that a stranger's file describes fits the weights that come with it, before it
takes memory or time."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

SPARE_NUMBERS = 2**24  # of a network beside its weights, such as tables of positions
CALLS_PER_TENSOR, SPARE_CALLS = 50, 5000  # of torch, to build a network; timm takes up to 14


class _Frugal(TorchFunctionMode):
    """Ends what is built with an error once it calls torch too often, or for too large tensors."""

    def __init__(self, most_calls: int, most_numbers: int) -> None:
        super().__init__()
        self.calls_left, self.most_numbers = most_calls, most_numbers

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.calls_left -= 1
        if self.calls_left < 0:
            raise ValueError("its network would have many more layers than there are weights")
        result = func(*args, **(kwargs or {}))
        if isinstance(result, Tensor) and result.numel() > self.most_numbers:
            raise ValueError(f"its network would have a tensor of {result.numel():,} numbers")
        return result


def check_size(make: Callable[[], nn.Module], state: Mapping[str, Tensor]) -> None:
    """Builds a network without memory for its tensors; an error if it is far larger than these
    weights."""
    stored = sum(weight.numel() for weight in state.values())
    most = stored + SPARE_NUMBERS
    with torch.device("meta"), _Frugal(CALLS_PER_TENSOR * len(state) + SPARE_CALLS, most):
        network = make()
    own = sum(each.numel() for each in (*network.parameters(), *network.buffers()))
    if own > most:
        raise ValueError(f"its network would have {own:,} weights, but there are {stored:,}")
