"""A network for a checkpoint's weights: built for its classes, keys renamed, loaded strictly."""

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from captum_classpattern.adapters.architectures import FAMILIES, build, installed
from captum_classpattern.adapters.weights import LISTED

# what normalisation inside a model is called, by the end of its keys: mean, then std
NORMALISERS = (
    ("normalizer.new_mean", "normalizer.new_std"),
    ("normalize.mean", "normalize.std"),
    ("normalizer.mean", "normalizer.std"),
    ("norm.mean", "norm.std"),
    ("mean", "std"),
    ("mu", "sigma"),
)
MOST_CLASSES = 1_000_000
FEW, MORE = 7, 11  # classes; what differs between the two is the classifier
BYTE = 255


@dataclass
class Fit:
    """How a state dict was fitted to a network: ``renamed`` keys (theirs to the network's), those
    that were ``ignored`` and why, the normalisation that they held, and whether the network has
    one ``inside``."""

    renamed: dict[str, str] = field(default_factory=dict)
    ignored: dict[str, str] = field(default_factory=dict)
    missing: list[str] = field(default_factory=list)  # that may be
    mean: list[float] | None = None
    std: list[float] | None = None
    inside: bool = False

    @property
    def normalisation(self) -> tuple[Sequence[float] | None, Sequence[float] | None, str]:
        """Mean, standard deviation, and where they are from."""
        if self.inside:
            return (0.0,), (1.0,), "the model itself"
        return self.mean, self.std, "the checkpoint"

    def as_dict(self) -> dict[str, Any]:
        """What goes into the provenance."""
        return {"renamed": self.renamed, "ignored": self.ignored, "missing": self.missing}


def load_weights(
    network: nn.Module,
    state: Mapping[str, Tensor],
    where: str,
    may_lack: tuple[str, ...] = ("num_batches_tracked",),
) -> Fit:
    """Loads a state dict whose keys may all carry one prefix, as those of DataParallel do.

    What is left over must be a normalisation, which is taken out and returned, or a second copy
    of what was loaded. Of the network's keys those that end in ``may_lack`` may be missing.

    Raises:
        ValueError: If keys are missing or unexpected, or shapes differ; it lists them.
    """
    wanted = network.state_dict()
    prefix = _prefix(wanted, state)
    taken = {prefix + key: key for key in wanted if prefix + key in state}
    fit = Fit(renamed={old: new for old, new in taken.items() if old != new})
    left = [key for key in state if key not in taken]
    fit.inside = any(
        new.endswith(f".{mean}") or new == mean
        for new in taken.values()
        for mean, std in NORMALISERS
        if new.removesuffix(mean) + std in wanted and wanted[new].numel() <= 4
    )
    if not fit.inside:
        _take_normaliser(fit, state, left)
    fit.ignored |= dict.fromkeys(_copies(taken, state, left), "a second copy")
    lacking = [key for key in wanted if prefix + key not in state]
    fit.missing = [key for key in lacking if key.endswith(may_lack)]
    missing = [key for key in lacking if not key.endswith(may_lack)]
    unexpected = [key for key in left if key not in fit.ignored]
    shapes = [
        f"{old} {tuple(state[old].shape)} against {tuple(wanted[new].shape)}"
        for old, new in taken.items()
        if state[old].shape != wanted[new].shape
    ]
    if missing or unexpected or shapes:
        raise ValueError(_mismatch(network, where, prefix, missing, unexpected, shapes))
    network.load_state_dict({new: state[old] for old, new in taken.items()}, strict=False)
    return fit


def _prefix(wanted: Mapping[str, Any], state: Mapping[str, Any]) -> str:
    """What stands before the network's names in the state dict: where most of them fit."""
    prefixes = {""}
    for key in list(wanted)[:3] + list(wanted)[-3:]:
        prefixes.update(k.removesuffix(key) for k in state if k.endswith("." + key))
    shortest_first = sorted(prefixes, key=lambda p: (len(p), p))
    return max(shortest_first, key=lambda p: sum(p + key in state for key in wanted))


def _take_normaliser(fit: Fit, state: Mapping[str, Tensor], left: list[str]) -> None:
    """A mean and a standard deviation of the pixels among the keys that the network lacks."""
    for mean_name, std_name in NORMALISERS:
        for key in left:
            before = key.removesuffix(mean_name)
            other = before + std_name
            if key == before or before[-1:] not in ("", ".") or other not in left:
                continue
            mean, std = (state[name].detach().float().flatten() for name in (key, other))
            if mean.shape == std.shape and 0 < len(mean) <= 4 and fit.mean is None:
                scale = BYTE if float(torch.cat([mean, std]).max()) > 1 else 1
                fit.mean, fit.std = (mean / scale).tolist(), (std / scale).tolist()
                units = " (in units of 255)" if scale == BYTE else ""
                fit.ignored |= dict.fromkeys((key, other), f"the normalisation, now outside{units}")


def _copies(taken: Mapping[str, str], state: Mapping[str, Tensor], left: list[str]) -> list[str]:
    """Keys of whole second copies of what was loaded, each under a prefix of its own."""
    some = next(iter(taken), None)
    if some is None:
        return []
    ending = "." + taken[some]
    prefixes = [key.removesuffix(ending) + "." for key in left if key.endswith(ending)]
    copies: list[str] = []
    spare = set(left)
    for prefix in prefixes:
        pairs = {prefix + new: old for old, new in taken.items()}
        if all(key in spare and _same(state[key], state[old]) for key, old in pairs.items()):
            copies += pairs
    return copies


def _same(a: Tensor, b: Tensor) -> bool:
    return a.shape == b.shape and torch.equal(a, b)


def _mismatch(
    network: nn.Module,
    where: str,
    prefix: str,
    missing: list[str],
    unexpected: list[str],
    shapes: list[str],
) -> str:
    after = f" (after the prefix {prefix!r})" if prefix else ""
    parts = [
        f"{name}: {', '.join(keys[:LISTED])}"
        + (f" and {len(keys) - LISTED} more" if len(keys) > LISTED else "")
        for name, keys in (("missing", missing), ("unexpected", unexpected), ("shapes", shapes))
        if keys
    ]
    return (
        f"{where} does not fit into {type(network).__name__}{after}; {'; '.join(parts)}. Check "
        "arch and num_classes"
    )


def build_to_fit(
    arch: str, num_classes: int | None, state: Mapping[str, Tensor]
) -> tuple[nn.Module, int | None]:
    """The network for as many classes as the weights of its classifier tell apart; and how many."""
    if num_classes is None:
        few, more = (_shapes(arch, count) for count in (FEW, MORE))
        prefix = _prefix(few, state)
        heads = [
            (key, axis)
            for key in few
            for axis, side in enumerate(few[key])
            if side == FEW and more.get(key, ())[axis : axis + 1] == (MORE,)
        ]
        told = {
            int(state[prefix + key].shape[axis])
            for key, axis in heads
            if prefix + key in state and state[prefix + key].ndim == len(few[key])
        }
        num_classes = max(told, default=None)
    return build(arch, check_count_of_classes(num_classes)), num_classes


def check_count_of_classes(count: int | None) -> int | None:
    """The number of classes that a file tells, or an error if it can't be one."""
    if count is not None and not 1 < count <= MOST_CLASSES:
        raise ValueError(f"the checkpoint tells of {count} classes: pass num_classes")
    return count


def _shapes(arch: str, count: int) -> dict[str, tuple[int, ...]]:
    """The shapes of a network's weights; those of known networks without making the weights."""
    installed("timm")  # imported here: what a module makes under "meta" would stay there
    if arch.rpartition(":")[0] in ("", *FAMILIES):
        with contextlib.suppress(Exception), torch.device("meta"):  # it reads its own weights
            return _shapes_of(build(arch, count))
    try:
        return _shapes_of(build(arch, count))
    except (ImportError, TypeError, ValueError):
        raise
    except Exception as error:
        raise ValueError(
            f"arch={arch} makes no network for {count} classes ({type(error).__name__}: {error}): "
            "pass num_classes"
        ) from error


def _shapes_of(network: nn.Module) -> dict[str, tuple[int, ...]]:
    return {key: tuple(value.shape) for key, value in network.state_dict().items()}
