"""A faster way to call a classifier in the many passes of a search; scores never use it."""

import copy
import time
import types
import warnings
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_weights

from captum_classpattern.classifier import (
    Classifier,
    additional_rows,
    find_module,
    placement,
    undisturbed,
)

WAYS = ("bfloat16", "channels_last", "folded")  # clear gains first: they are chosen by time
MEASURED = 16  # images
GAIN = 1.1  # what a way must gain to be used
SMALL, LARGE = 0.002, 0.5  # seconds: too short to measure or to matter; too long to repeat
_chosen: WeakKeyDictionary[nn.Module, dict[Any, tuple[str, ...]]] = WeakKeyDictionary()


def accelerated(
    forward_func: Classifier, canvases: Tensor, additional: tuple[Any, ...], most: int | None
) -> Classifier:
    """The classifier itself, or a private copy in the ways that a quick measurement found faster.

    In one process, a module's images of one shape are always treated in the same way.
    """
    module, (device, dtype) = find_module(forward_func), placement(forward_func, canvases)
    if dtype != torch.float32:
        return forward_func
    rows = torch.arange(min(MEASURED, most or MEASURED), device=canvases.device) % len(canvases)
    images, arguments = canvases[rows], additional_rows(additional, rows, len(canvases))
    known = {} if module is None else _chosen.setdefault(module, {})
    method = getattr(forward_func, "__name__", "")
    key = (method, tuple(images.shape[1:]), device, torch.get_num_threads())
    with undisturbed(forward_func, 0), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about ways that will not be taken
        try:
            return _built(forward_func, known[key], images, arguments)
        except (KeyError, ValueError):  # not chosen yet, or the model has changed since
            known[key] = _choose(forward_func, images, arguments)
            return _built(forward_func, known[key], images, arguments)


def _choose(
    forward_func: Classifier, images: Tensor, arguments: tuple[Any, ...]
) -> tuple[str, ...]:
    """The ways that gain at least a tenth each, on top of those before them."""
    ways: tuple[str, ...] = ()
    best = forward_func
    try:
        _seconds(best, images, arguments)  # the first call prepares things
        if _seconds(best, images, arguments) < SMALL:
            return ways
    except (RuntimeError, ValueError):
        return ways  # the search will say what is wrong
    for way in WAYS:
        try:
            candidate = _built(forward_func, (*ways, way), images, arguments)
            faster = _ratio(best, candidate, images, arguments) >= GAIN
        except Exception:  # whatever it is: this model can't go this way
            continue
        if faster:
            ways, best = (*ways, way), candidate
    return ways


def _ratio(old: Classifier, new: Classifier, images: Tensor, arguments: tuple[Any, ...]) -> float:
    """How many times faster the new one is, by the best of some alternating runs."""
    first = _seconds(new, images, arguments)  # prepares things
    fast, slow = [], []
    for _ in range(1 if first > LARGE else 5):
        fast.append(_seconds(new, images, arguments))
        slow.append(_seconds(old, images, arguments))
    return min(slow) / min(fast)


def _seconds(forward_func: Classifier, images: Tensor, arguments: tuple[Any, ...]) -> float:
    """Time of a pass forward and back to the images."""
    leaf = images.detach().clone().requires_grad_()
    started = time.perf_counter()
    logits = forward_func(leaf, *arguments).float()
    (slope,) = torch.autograd.grad(logits.logsumexp(1).sum(), leaf)
    if not bool(slope.isfinite().all()):  # also waits for the device
        raise ValueError("the gradient is not finite")
    return time.perf_counter() - started


def _built(
    forward_func: Classifier, ways: tuple[str, ...], images: Tensor, arguments: tuple[Any, ...]
) -> Classifier:
    if not ways:
        return forward_func
    owner = find_module(forward_func)
    if owner is None or ways == ("bfloat16",):  # autocast needs no copy
        if ways != ("bfloat16",):
            raise ValueError("only a module can be copied")
        return _Accelerated(forward_func, ways)
    twin = copy.deepcopy(owner).requires_grad_(False)
    if "channels_last" in ways:
        twin.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    call = twin if owner is forward_func else types.MethodType(forward_func.__func__, twin)  # type: ignore[attr-defined]
    if "folded" in ways:
        _fold(twin, call, images, arguments)
    return _Accelerated(call, ways)


class _Accelerated(nn.Module):
    """Calls a classifier under autocast, with images in the memory format that suits it."""

    def __init__(self, call: Classifier, ways: tuple[str, ...]) -> None:
        super().__init__()
        self.call, self.ways = call, ways
        self.module = find_module(call)  # so that its device and precision can be seen
        self.training = False

    def forward(self, images: Tensor, *additional: Any) -> Tensor:
        if "channels_last" in self.ways:
            images = images.contiguous(memory_format=torch.channels_last)
        enabled = "bfloat16" in self.ways
        with torch.autocast(images.device.type, torch.bfloat16, enabled=enabled):
            return self.call(images, *additional)


def _fold(module: nn.Module, call: Classifier, images: Tensor, arguments: tuple[Any, ...]) -> None:
    """Puts each batch norm that directly follows a convolution into it; an error if that
    changes the logits, as where the convolution's output is also used elsewhere."""
    with torch.no_grad():
        before = call(images, *arguments)
        for convolution, norm in _followed(module, call, images, arguments):
            assert norm.running_mean is not None
            assert norm.running_var is not None
            convolution.weight, convolution.bias = fuse_conv_bn_weights(
                convolution.weight,
                convolution.bias,
                norm.running_mean,
                norm.running_var,
                norm.eps,
                norm.weight,
                norm.bias,
            )
            for parent in module.modules():
                for name, child in parent.named_children():
                    if child is norm:
                        setattr(parent, name, nn.Identity())
        after = call(images, *arguments)
    if not torch.allclose(before, after, atol=1e-3 * float(before.abs().max()), rtol=0):
        raise ValueError("the batch norms can't be folded")


def _followed(
    module: nn.Module, call: Classifier, images: Tensor, arguments: tuple[Any, ...]
) -> list[tuple[nn.Conv2d, nn.BatchNorm2d]]:
    """The pairs of convolution and batch norm, by watching one pass."""
    outputs: list[tuple[nn.Module, Tensor]] = []
    pairs: list[tuple[nn.Conv2d, nn.BatchNorm2d]] = []

    def watch(part: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
        if type(part) is nn.Conv2d:
            outputs.append((part, output))
        elif isinstance(part, nn.BatchNorm2d) and part.running_mean is not None:
            pairs.extend(
                (source, part)
                for source, made in outputs
                if made is inputs[0] and isinstance(source, nn.Conv2d)
            )

    hooks = [part.register_forward_hook(watch) for part in module.modules()]
    call(images, *arguments)
    for hook in hooks:
        hook.remove()
    called = [source for source, _ in outputs]
    return [pair for pair in pairs if called.count(pair[0]) == 1]
