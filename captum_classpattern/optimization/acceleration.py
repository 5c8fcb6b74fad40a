"""Faster calls of a classifier for the many passes of a search, but never for powers.

The device and the layers of the network decide what is done. Nothing is timed, so a search gives
the same masks on a busy machine.
"""

import copy
import types
import warnings
from typing import Any

import torch
from torch import Tensor, nn
from torch.backends import cudnn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from captum_classpattern.classifier import (
    CheckedModel,
    Classifier,
    additional_rows,
    find_module,
    lacks_memory,
    preserve_state,
    seed_generators,
    uncounted,
)


class NoRoomForCopy(torch.OutOfMemoryError):
    """A device has no room for a private copy of the model."""


def accelerated(
    model: CheckedModel, canvases: Tensor, additional: tuple[Any, ...], precision: str
) -> Classifier:
    """The classifier itself, or a private copy of it that is faster on its device. Without
    additional arguments, there is one copy per precision as long as the model is entered.

    A copy that fails on the first canvas is not used: some networks can't run in bfloat16, say.
    Then the speedups are tried one by one.
    """
    if precision == "bfloat16" and model.dtype not in (torch.float32, torch.bfloat16):
        raise ValueError(
            f"`precision='bfloat16'` is for float32 models, but this one is {model.dtype}: pass "
            "`precision='auto'` or `precision='full'`, or model.float()"
        )
    if precision == "full" or model.dtype != torch.float32:
        return model.logits
    if additional or precision not in model.copies:
        first = canvases[:1].to(model.dtype)  # two images: a copy may fail with several alone
        rows = torch.zeros(2, dtype=torch.int64, device=canvases.device)
        sample = torch.cat([first, 1 - first]), additional_rows(additional, rows, len(canvases))
        faster = _fastest(model.logits, sample, precision)
        if additional:
            return faster
        model.copies[precision] = faster
    return model.copies[precision]


def _fastest(
    forward_func: Classifier, sample: tuple[Tensor, tuple[Any, ...]], precision: str
) -> Classifier:
    """The classifier with all speedups that it can have, tried on two images and their additional
    arguments."""
    wanted = choose_speedups(forward_func, sample[0].device, precision)
    with preserve_state(forward_func, 0), uncounted(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about speedups that will not be used
        chosen: tuple[str, ...] = ()
        classifier = forward_func
        for more in (wanted, *zip(wanted)):  # all together, or else one by one
            if chosen == wanted:
                break
            faster = _faster(forward_func, (*chosen, *more), *sample)
            if not isinstance(faster, Exception):
                chosen, classifier = (*chosen, *more), faster
            elif more == (precision,):
                raise ValueError(
                    f"`precision='bfloat16'` can't be used, since this model fails in it ({faster})"
                    ": pass `precision='auto'` or `precision='full'`"
                ) from faster
    return classifier


def choose_speedups(
    forward_func: Classifier, device: torch.device, precision: str
) -> tuple[str, ...]:
    """How a classifier is made faster on a device.

    Batch norms are folded into the convolutions before them. A network with a convolution (also
    one that only cuts patches) works in channels_last on a CPU, and in bfloat16 and channels_last
    where the device has matrix products in bfloat16; other networks are too small to gain.
    """
    module = find_module(forward_func)
    module = nn.Module() if module is None else module  # a plain function shows no layers
    convolves = any(weight.ndim == 4 for weight in module.parameters())
    low = precision == "bfloat16" or (convolves and has_bfloat16(device))
    last = convolves and (low or device.type == "cpu")
    speedups = ["bfloat16"] * low + ["channels_last"] * last
    speedups += ["folded"] * any(isinstance(part, nn.BatchNorm2d) for part in module.modules())
    return tuple(speedups)


def has_bfloat16(device: torch.device) -> bool:
    """Whether a device has matrix products in bfloat16: CUDA from compute capability 8.0 and ROCm;
    CPUs with AMX or AVX-512 bfloat16."""
    if device.type == "cuda":
        return torch.version.hip is not None or torch.cuda.get_device_capability(device) >= (8, 0)
    if device.type != "cpu":
        return False
    checks = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    return any(getattr(torch.cpu, check, lambda: False)() for check in checks)


class _Accelerated(nn.Module):
    """Calls a classifier under autocast, with images in the memory format that suits it."""

    def __init__(self, call: Classifier, speedups: tuple[str, ...]) -> None:
        super().__init__()
        self.call, self.speedups = call, speedups
        self.module = find_module(call)  # so that its device and precision can be seen
        self.training = False

    def forward(self, images: Tensor, *additional: Any) -> Tensor:
        if "channels_last" in self.speedups:
            images = images.contiguous(memory_format=torch.channels_last)
        enabled = "bfloat16" in self.speedups
        with torch.autocast(images.device.type, torch.bfloat16, enabled=enabled):
            return self.call(images, *additional)


def _faster(
    forward_func: Classifier, speedups: tuple[str, ...], images: Tensor, arguments: tuple[Any, ...]
) -> Classifier | Exception:
    """The classifier with these speedups, or the error that it fails with: a copy must have the
    same logits, apart from rounding. Lack of memory raises an error: it must not choose the
    precision."""
    call, owner = forward_func, find_module(forward_func)
    try:
        if speedups != ("bfloat16",):  # autocast alone needs no copy
            if owner is None:
                raise ValueError("only a module can be copied")
            copied = copy.deepcopy(owner).requires_grad_(False)
            if "channels_last" in speedups:
                copied.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
            is_method = owner is not forward_func
            call = types.MethodType(forward_func.__func__, copied) if is_method else copied  # type: ignore[attr-defined]
            if "folded" in speedups:
                _fold(copied, call, images, arguments)
            own, after = (_exact(each, images, arguments) for each in (forward_func, call))
            if not torch.allclose(own, after, atol=1e-3 * float(own.abs().max()), rtol=0):
                raise ValueError("a copy of the model has other logits")
        faster = _Accelerated(call, speedups)
        leaf = images.detach().clone().requires_grad_()
        logits = faster(leaf.clone(), *arguments).float()
        (slope,) = torch.autograd.grad(logits.logsumexp(1).sum(), leaf)
        if not bool(slope.isfinite().all()):
            raise ValueError("its gradient is not finite")
    except Exception as error:  # of any kind: this model can't do all of that
        if lacks_memory(error):
            raise NoRoomForCopy(
                "the device has no room for a private copy of the model: pass `precision='full'` "
                "to search with the model as it is"
            ) from error
        return error
    return faster


def _exact(call: Classifier, images: Tensor, arguments: tuple[Any, ...]) -> Tensor:
    """The logits without TF32, whose rounding would seem to change them, from the same seed."""
    exact = cudnn.flags(enabled=cudnn.enabled, deterministic=True, allow_tf32=False)
    with torch.no_grad(), exact:
        seed_generators(0)
        return call(images.clone(), *arguments)


def _fold(module: nn.Module, call: Classifier, images: Tensor, arguments: tuple[Any, ...]) -> None:
    """Folds each batch norm into the convolution directly before it, by watching one pass. That
    changes the logits where the convolution's output is also used elsewhere."""
    outputs: list[tuple[nn.Conv2d, Tensor]] = []
    pairs: list[tuple[nn.Conv2d, nn.BatchNorm2d]] = []

    def watch(part: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
        if type(part) is nn.Conv2d:
            outputs.append((part, output))
        elif isinstance(part, nn.BatchNorm2d) and part.running_mean is not None:
            pairs.extend((source, part) for source, made in outputs if made is inputs[0])

    hooks = [part.register_forward_hook(watch) for part in module.modules()]
    with torch.no_grad():
        call(images.clone(), *arguments)
    for hook in hooks:
        hook.remove()
    called = [convolution for convolution, _ in outputs]
    for convolution, norm in (pair for pair in pairs if called.count(pair[0]) == 1):
        fused = fuse_conv_bn_eval(convolution, norm)
        convolution.weight, convolution.bias = fused.weight, fused.bias
        for parent in module.modules():
            for name, child in parent.named_children():
                if child is norm:
                    setattr(parent, name, nn.Identity())
