"""Faster calls of a classifier for the many passes of a search, but never for powers.

The device and the layers of the network decide what is done. Nothing is timed, so a search gives
the same masks on a busy machine.
"""

import copy
import types
import warnings
from collections import Counter, defaultdict
from typing import Any

import torch
from torch import Tensor, nn
from torch.backends import cudnn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from captum_classpattern._support.files import reason_of
from captum_classpattern._support.validation import Notice
from captum_classpattern.classifier import (
    CheckedModel,
    Classifier,
    additional_rows,
    find_module,
    lacks_memory,
    preserve_state,
    seed_generators,
    uncounted,
    warn,
)
from captum_classpattern.classifier.fingerprints import are_close
from captum_classpattern.classifier.gradients import NoGradient
from captum_classpattern.images import LabelledImages, evenly_spaced

FEW = 4  # images, on which a copy is tried
EXACT, ROUGH = 1e-3, 0.1  # of the logits' range: how far margins may be off, and in bfloat16


class NoRoomForCopy(torch.OutOfMemoryError):
    """A device has no room for a private copy of the model."""


def accelerated(
    model: CheckedModel,
    images: LabelledImages,
    arguments: tuple[Any, ...],
    precision: str,
    count: int = 0,
) -> Classifier:
    """The classifier itself, or a private copy of it that is faster on its device, if that gives
    the same for a few images, with the ``arguments`` of the first of ``count`` canvases. Without
    arguments, there is one copy per precision as long as the model is entered."""
    if precision == "bfloat16" and model.dtype not in (torch.float32, torch.bfloat16):
        raise ValueError(
            f"`precision='bfloat16'` is for float32 models, but this one is {model.dtype}: pass "
            "`precision='auto'` or `precision='full'`, or model.float()"
        )
    if precision == "full" or model.dtype != torch.float32:
        return model.logits
    if not arguments and precision in model.copies:
        return model.copies[precision]
    with preserve_state(model.call, 0), uncounted():
        places = 2 * evenly_spaced(len(images), FEW)  # at least two: a copy may fail with several
        few = images.take(places[:FEW]).to(model.device, model.dtype)
        first = torch.zeros(len(few), dtype=torch.int64, device=model.device)
        faster = _tried(model, precision, few, *additional_rows(arguments, first, count))
    if not arguments:
        model.copies[precision] = faster
    return faster


def _tried(model: CheckedModel, precision: str, *sample: Any) -> Classifier:
    """A faster classifier, or the model as it is, with a notice that says why."""
    speedups = choose_speedups(model.logits, model.device, precision)
    if not speedups:
        return model.logits
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about a copy that may not be used
            faster = _faster(model.logits, speedups, *sample)
            problem = _difference(model, faster, *sample)
    except NoGradient:
        raise
    except Exception as error:  # in the model's own code, which may work as it is
        if lacks_memory(error):  # which must not choose the precision
            raise NoRoomForCopy(
                "the device has no room for a private copy of the model: pass `precision='full'` "
                "to search with the model as it is"
            ) from error
        problem = reason_of(error).removesuffix(".")
    if not problem:
        return faster
    if precision == "bfloat16":
        raise ValueError(
            f"`precision='bfloat16'` can't be used, since this model fails in it ({problem}): pass "
            "`precision='auto'` or `precision='full'`"
        )
    warn(
        "the search calls the model as it is, which may be slower, since a faster copy of it "
        f"({', '.join(speedups)}) fails: {problem}; `precision='full'` tries none",
        Notice,
    )
    return model.logits


def _difference(
    model: CheckedModel, faster: "_Accelerated", images: Tensor, *arguments: Any
) -> str:
    """How a copy differs from the model by more than rounding; empty if it does not."""
    with torch.no_grad():
        own = _exact(model.logits, images, *arguments)
    for call, tolerance in ((faster.call, EXACT), (faster, ROUGH)):
        leaf = images.clone().requires_grad_()
        logits = _exact(call, leaf, *arguments)
        shift = (logits.detach() - own).mean(1, keepdim=True)  # margins are differences of logits
        if not are_close(own, logits.detach() - shift, tolerance):
            return "its logits differ from the model's by more than rounding"
        gradient = model.gradients.at(leaf, logits, logits.detach().softmax(1))
        if not bool(gradient.isfinite().all()):
            return "its gradient is not finite"
    return ""


def _exact(call: Classifier, images: Tensor, *arguments: Any) -> Tensor:
    """The logits from the same seed, without TF32, whose rounding would seem to change them."""
    with cudnn.flags(enabled=cudnn.enabled, deterministic=True, allow_tf32=False):
        seed_generators(0)
        return call(images.clone(), *arguments).float()


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
    CPUs with AMX or AVX-512 bfloat16, unless torch is told to use older instructions."""
    if device.type == "cuda":
        return torch.version.hip is not None or torch.cuda.get_device_capability(device) >= (8, 0)
    if device.type != "cpu" or not torch.backends.cpu.get_cpu_capability().startswith("AVX512"):
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
    forward_func: Classifier, speedups: tuple[str, ...], images: Tensor, *arguments: Any
) -> _Accelerated:
    """A copy of the classifier with these speedups; of all but autocast, which needs none."""
    call, owner = forward_func, find_module(forward_func)
    if owner is not None and speedups != ("bfloat16",):
        copied = copy.deepcopy(owner).requires_grad_(False)
        if "channels_last" in speedups:
            copied.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        is_method = owner is not forward_func
        call = types.MethodType(forward_func.__func__, copied) if is_method else copied  # type: ignore[attr-defined]
        if "folded" in speedups:
            _fold(copied, call, images, *arguments)
    return _Accelerated(call, speedups)


def _fold(module: nn.Module, call: Classifier, images: Tensor, *arguments: Any) -> None:
    """Folds each batch norm into the convolutions directly before it, by watching one pass, unless
    something else uses their outputs, as the graph of gradients says."""
    made = dict[Any, nn.Conv2d]()  # by the node of its output
    taken = defaultdict[nn.BatchNorm2d, list[Any]](list)  # the nodes of its inputs

    def watch(part: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
        if type(part) is nn.Conv2d:
            made[output.grad_fn] = part
        elif isinstance(part, nn.BatchNorm2d):
            taken[part].append(inputs[0].grad_fn)

    hooks = [part.register_forward_hook(watch) for part in module.modules()]
    nodes: list[Any] = [call(images.clone().requires_grad_().clone(), *arguments).grad_fn]
    for hook in hooks:
        hook.remove()
    uses, calls = Counter[Any](), Counter(made.values())
    for node in nodes:
        before = [each for each, _ in getattr(node, "next_functions", ()) if each is not None]
        nodes += [each for each in dict.fromkeys(before) if each not in uses]
        uses.update(before)
    once = {node: part for node, part in made.items() if uses[node] == calls[part] == 1}
    for norm, sources in taken.items():
        if norm.running_mean is None or not {*sources} <= {*once}:
            continue
        for convolution in map(once.__getitem__, sources):
            fused = fuse_conv_bn_eval(convolution, norm)
            convolution.weight, convolution.bias = fused.weight, fused.bias
        for parent in module.modules():
            for name, child in parent.named_children():
                if child is norm:
                    setattr(parent, name, nn.Identity())
