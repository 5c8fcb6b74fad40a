"""The weights of a checkpoint: where they are, and how they are loaded into a network, strictly."""

import contextlib
import itertools
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_module_registration_hook
from torch.nn.parameter import is_lazy

from captum_classpattern._support.validation import import_optional
from captum_classpattern.adapters.architectures import FAMILIES, Arch, arch_name, build
from captum_classpattern.adapters.interface import LoadedNetwork

# where checkpoints keep the weights, the most common key first; then averages of them
KEYS = ("state_dict", "model_state_dict", "model", "net", "network", "model_state", "weights")
AVERAGED_KEYS = ("state_dict_ema", "model_ema", "ema_state_dict", "ema")
# how the keys of a normalisation inside a model end: mean, then std
NORMALISERS = (("new_mean", "new_std"), ("mean", "std"), ("mu", "sigma"))
ITSELF = (0.0,), (1.0,), "the model itself"  # mean and std of a model that normalises its pixels
MAX_CLASSES = 1_000_000
MAX_CHANNELS = 4
MAX_SHARING = 4  # how many tensors may share each byte that is stored, on average
# of a network beside its weights: timm's have up to 4 modules a tensor, and tables of positions
MODULES_PER_TENSOR, SPARE_MODULES, SPARE_NUMBERS = 10, 1000, 2**24
PROBE = 997  # classes: a network for so many has this size in its classifier alone


@dataclass(frozen=True)
class Weights:
    """The weights in a checkpoint.

    Args:
        value (Mapping[str, Tensor] or nn.Module): A state dict, or a whole model.
        path (PathLike): The file, for messages.
        key (str): Where they are in the checkpoint. Default: "" (they are all of it).
    """

    value: Mapping[str, Tensor] | nn.Module
    path: object
    key: str = ""

    @property
    def state(self) -> Mapping[str, Tensor]:
        """The state dict, also of a whole model."""
        return self.value.state_dict() if isinstance(self.value, nn.Module) else self.value


def find_weights(content: Any, path: object) -> Weights:
    """Finds the weights in a checkpoint.

    Args:
        content (Any): What is in the file: a state dict, a model, or a dict with either under a
            usual key, such as ``"state_dict"``.
        path (PathLike): The file, for messages.

    Raises:
        ValueError: If there are no weights; the error says what there is instead.
    """
    key, value = next(locate_weights(content), ("", None))
    if value is None:
        held = f"of type {type(content).__name__}"
        if isinstance(content, Mapping):
            held = f"a dict with the keys {', '.join(map(str, list(content)[:10]))}"
        raise ValueError(
            f"{path} has no weights: it is {held}, expected a state dict, or one under "
            f"{', '.join(KEYS)}"
        )
    if not isinstance(value, nn.Module):
        _check_storage(value, path)
    return Weights(value, path, key)


def locate_weights(content: Any, depth: int = 2) -> Iterator[tuple[str, Any]]:
    """All weights in a checkpoint with their keys, most likely first: state dicts or models."""
    if isinstance(content, nn.Module) or is_state_dict(content):
        yield "", content
    elif isinstance(content, Mapping) and depth:
        for name in (*KEYS, *AVERAGED_KEYS):
            for key, value in locate_weights(content.get(name), depth - 1):
                yield f"{name}.{key}".strip("."), value


def is_state_dict(content: Any) -> bool:
    """Whether this maps names to tensors, and has a weight matrix or kernel among them."""
    return (
        isinstance(content, Mapping)
        and all(isinstance(k, str) and isinstance(v, Tensor) for k, v in content.items())
        and any(value.ndim > 1 for value in content.values())
    )


def _check_storage(state: Mapping[str, Tensor], path: object) -> None:
    """Raises an error for tensors that are larger than what the file stores of them."""
    stored: dict[int, int] = {}
    total = 0
    for key, value in state.items():
        size = value.numel() * value.element_size()
        complete = value.layout == torch.strided and value.device.type == "cpu"
        if complete:
            storage = value.untyped_storage()
            stored[storage.data_ptr()] = storage.nbytes()
            total += size
            complete = size <= storage.nbytes() and total <= MAX_SHARING * sum(stored.values())
        if not complete:
            raise ValueError(
                f"{path}: the file does not hold all values of the tensor {key[:80]} (shape "
                f"{tuple(value.shape)}, {value.layout}, on {value.device})"
            )


def load_network(
    arch: Arch | None, weights: Weights, num_classes: int | None = None
) -> LoadedNetwork:
    """Builds a network, and loads weights into it.

    Args:
        arch (str or Callable, optional): The network, as for :func:`load_model`; None is an error
            that says how to name it.
        weights (Weights): A state dict, from :func:`find_weights`.
        num_classes (int, optional): Default: None (as many as the weights have).

    Raises:
        ImportError: If the network's package is not installed.
        ValueError: If there is no such network, or the weights do not fit into it.
    """
    if arch is None:
        shapes = [f"{key} {tuple(v.shape)}" for key, v in weights.state.items() if v.ndim > 1]
        raise ValueError(
            f"{weights.path} has weights, but does not say for which network: for one of your own, "
            "give MODULE:NAME, such as `arch=my_net:MyNet` for the class MyNet in my_net.py (in "
            "Python: or the class itself); otherwise a name of torchvision or timm, such as "
            "`arch=resnet18`, or one of the ResNets for 32-pixel images (cifar_resnet18, "
            "cifar_resnet50, preactresnet18). Its first weights are "
            f"{shapes[0]}, its last {shapes[-1]}"
        )
    count = num_classes if num_classes is not None else _count_classes(arch, weights.state)
    if count is not None and not 1 < count <= MAX_CLASSES:
        raise ValueError(
            f"{arch_name(arch)} can't be built for {count} classes: pass `num_classes`"
        )
    return load_weights(build(arch, count), weights, arch=arch_name(arch), num_classes=count)


def _count_classes(arch: Arch, state: Mapping[str, Tensor]) -> int | None:
    """How many classes the weights have, if they have the keys of the network's classifier: their
    size where a network for PROBE classes has the size PROBE."""
    import_optional("timm", required=False)  # what it makes on import would stay on "meta"
    expected: Mapping[str, Tensor] = {}
    if arch_name(arch).rpartition(":")[0] in ("", *FAMILIES):
        with contextlib.suppress(Exception), torch.device("meta"):  # some read their weights
            expected = build(arch, PROBE).state_dict()
    expected = expected or build(arch, PROBE).state_dict()
    _, keys = _match_names(expected, state)
    counts = [
        size
        for name, key in keys.items()
        if not is_lazy(expected[name]) and state[key].ndim == expected[name].ndim
        for size, probe in zip(state[key].shape, expected[name].shape)
        if probe == PROBE
    ]
    return max(counts, default=None)


def check_size(make: Callable[[], nn.Module], state: Mapping[str, Tensor]) -> None:
    """Raises an error if a stranger's network, built without memory, far exceeds its weights."""
    modules_left = MODULES_PER_TENSOR * len(state) + SPARE_MODULES

    def count_module(*_: Any) -> None:
        nonlocal modules_left
        modules_left -= 1
        if modules_left < 0:
            raise ValueError("its network would have many more layers than there are weights")

    with register_module_module_registration_hook(count_module), torch.device("meta"):
        network = make()
    stored = sum(weight.numel() for weight in state.values())
    own = sum(each.numel() for each in (*network.parameters(), *network.buffers()))
    if own > stored + SPARE_NUMBERS:
        raise ValueError(f"its network would have {own:,} numbers, far more than its weights")


def load_weights(
    network: nn.Module,
    weights: Weights,
    may_lack: tuple[str, ...] = ("num_batches_tracked",),
    **details: Any,
) -> LoadedNetwork:
    """Loads a state dict, whose keys may have one prefix, as those of DataParallel do. Other keys
    must be a normalisation, which is taken out and returned, or a second copy of what was loaded.
    Keys of the network that end in ``may_lack`` may be missing."""
    expected, state = network.state_dict(), weights.state
    prefix, keys = _match_names(expected, state)
    fitting = {name: state[key] for name, key in keys.items()}
    renamed = {key: name for name, key in keys.items() if key != name}
    used = {*keys.values()}
    leftover = {key: value for key, value in state.items() if key not in used}
    absent = [name for name in expected if name not in fitting]
    loaded = LoadedNetwork(network)
    ignored = _explain_leftover(loaded, fitting, leftover)
    problems = {
        "missing": [name for name in absent if not name.endswith(may_lack)],
        "unexpected": [key for key in leftover if key not in ignored],
        "of another shape": [
            f"{prefix}{name} {tuple(value.shape)} instead of {tuple(expected[name].shape)}"
            for name, value in fitting.items()
            if not is_lazy(expected[name]) and value.shape != expected[name].shape
        ],
    }
    if wrong := {problem: keys for problem, keys in problems.items() if keys}:
        after = f" (after the prefix {prefix!r})" if prefix else ""
        counts = "; ".join(
            f"{problem}: {len(keys)} ({keys[0]}{', ...' if len(keys) > 1 else ''})"
            for problem, keys in wrong.items()
        )
        listed = "\n".join(f"{problem}: {', '.join(keys)}" for problem, keys in wrong.items())
        raise ValueError(
            f"{weights.path} does not fit into {type(network).__name__}{after}; weights {counts}. "
            f"Check `arch` (MODULE:NAME for a network of your own) and `num_classes`\n\n{listed}"
        )
    network.load_state_dict(fitting, strict=False)
    details |= {"renamed": renamed, "ignored": ignored, "missing": absent, "weights": weights.key}
    loaded.details = details
    return loaded


def _explain_leftover(
    loaded: LoadedNetwork, fitting: Mapping[str, Tensor], leftover: Mapping[str, Tensor]
) -> dict[str, str]:
    """Which leftover weights are ignored, and why: a mean and std, which are set unless the network
    has its own; complete second copies of what is loaded; and counters."""
    ignored: dict[str, str] = {}
    has_own = any(_normalisers(fitting))
    if has_own:
        loaded.mean, loaded.std, loaded.normalised_by = ITSELF
    for keys in () if has_own else _normalisers(leftover):
        both = torch.stack([leftover[key].detach().float().flatten() for key in keys])
        in_bytes = float(both.max()) > 1
        values = (both / 255 if in_bytes else both).tolist()
        if loaded.mean is None:
            (loaded.mean, loaded.std), loaded.normalised_by = values, "the checkpoint"
        if values == [loaded.mean, loaded.std]:
            units = " (in units of 255)" if in_bytes else ""
            ignored |= dict.fromkeys(keys, f"the normalisation, now outside{units}")
    first = "." + next(iter(fitting), "")
    for prefix in [key.removesuffix(first) for key in leftover if key.endswith(first)]:
        copy = {f"{prefix}.{name}": value for name, value in fitting.items()}
        if all(key in leftover and torch.equal(leftover[key], copy[key]) for key in copy):
            ignored |= dict.fromkeys(copy, "a second copy")
    counters = (key for key in leftover if key.endswith("n_averaged"))
    return ignored | dict.fromkeys(counters, "how often weights were averaged")


def _match_names(
    expected: Mapping[str, Any], state: Mapping[str, Any]
) -> tuple[str, dict[str, str]]:
    """The prefix of the network's names in the state dict, that with which most fit; and the key of
    each name that is there."""
    prefixes = {""}
    for name in list(expected)[:3] + list(expected)[-3:]:
        prefixes.update(key.removesuffix(name) for key in state if key.endswith("." + name))
    shortest_first = sorted(prefixes, key=lambda prefix: (len(prefix), prefix))
    prefix = max(shortest_first, key=lambda start: sum(start + name in state for name in expected))
    return prefix, {name: prefix + name for name in expected if prefix + name in state}


def _normalisers(state: Mapping[str, Tensor]) -> Iterator[tuple[str, str]]:
    """Pairs of keys that hold a mean and a standard deviation of pixels."""
    for key, (mean, std) in itertools.product(state, NORMALISERS):
        other = key.removesuffix(mean) + std
        if not f".{key}".endswith(f".{mean}") or other not in state:
            continue
        if 0 < state[key].numel() == state[other].numel() <= MAX_CHANNELS:
            yield key, other
