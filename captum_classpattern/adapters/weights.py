"""Where the weights are in a checkpoint."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from captum_classpattern.adapters.architectures import HOW

# where checkpoints keep the weights, the likeliest first
HOLDERS = ("state_dict", "model_state_dict", "model", "net", "network", "model_state", "weights")
AVERAGED = ("state_dict_ema", "model_ema", "ema_state_dict", "ema")
LISTED = 10
SHARED = 4  # how often the keys of a file may share what it stores


def holder_of(content: Any, depth: int = 2) -> tuple[str, Any] | None:
    """Where the weights are in a checkpoint ("" if it is itself a state dict), and these: a
    mapping of names to tensors, or a whole module. None if there are none."""
    if isinstance(content, nn.Module) or is_state_dict(content):
        return "", content
    if isinstance(content, Mapping) and depth:
        for name in (*HOLDERS, *AVERAGED):
            found = holder_of(content.get(name), depth - 1)
            if found is not None:
                return f"{name}.{found[0]}".strip("."), found[1]
    return None


def is_state_dict(content: Any) -> bool:
    """Whether this maps names to tensors, and holds something to learn."""
    return (
        isinstance(content, Mapping)
        and all(isinstance(k, str) and isinstance(v, Tensor) for k, v in content.items())
        and any(v.ndim > 1 for v in content.values())
    )


class Weights(NamedTuple):
    """Weights in a checkpoint: the key they lie under, what lies there, and the other keys that
    hold weights, too."""

    key: str
    held: Any
    also: list[str]

    @classmethod
    def of(cls, content: Any, where: str) -> "Weights":
        """Finds them, or raises an error that tells what the checkpoint holds."""
        found = holder_of(content)
        if found is None:
            held = (
                f"a dict with the keys {', '.join(map(str, list(content)[:LISTED]))}"
                if isinstance(content, Mapping)
                else f"a {type(content).__name__}"
            )
            raise ValueError(
                f"{where} holds no weights: it is {held}, expected a state dict, or one under "
                f"{', '.join(HOLDERS)}"
            )
        key, held = found
        if not isinstance(held, nn.Module):
            _check_stored(held, where)
        holders = (name for name in (*HOLDERS, *AVERAGED) if isinstance(content, Mapping))
        also = [n for n in holders if n != key.partition(".")[0] and holder_of(content.get(n), 1)]
        return cls(key, held, also if key else [])

    @property
    def told(self) -> dict[str, Any]:
        """What goes into the provenance."""
        return {"weights": self.key, "also_held": self.also}

    @property
    def state(self) -> Mapping[str, Tensor]:
        """The weights by name, also those of a whole module."""
        state: Mapping[str, Tensor]
        state = self.held.state_dict() if isinstance(self.held, nn.Module) else self.held
        return state

    @property
    def hint(self) -> str:
        """What to do if the network is not known, with what the weights tell of it."""
        shapes = [f"{k} {tuple(v.shape)}" for k, v in self.held.items() if v.ndim > 1]
        return f"pass arch. {HOW}. Its first weights are {shapes[0]}, its last {shapes[-1]}"


def _check_stored(state: Mapping[str, Tensor], where: str) -> None:
    """Raises an error for tensors that are larger than what is stored of them."""
    stored: dict[int, int] = {}
    total = 0
    for key, value in state.items():
        size = value.numel() * value.element_size()
        plain = value.layout == torch.strided and value.device.type == "cpu"
        if plain:
            storage = value.untyped_storage()
            stored[storage.data_ptr()] = storage.nbytes()
            total += size
        whole = plain and size <= storage.nbytes() and total <= SHARED * sum(stored.values())
        if not whole:
            raise ValueError(
                f"{where}: {key[:80]} is no tensor with all its values in the file (shape "
                f"{tuple(value.shape)}, {value.layout}, on {value.device})"
            )
