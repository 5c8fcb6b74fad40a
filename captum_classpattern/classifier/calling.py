"""Calling a classifier with care: its device and precision, its mode, random seeds, its outputs."""

import contextlib
import functools
import itertools
import os
import random
import re
import sys
import threading
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from contextvars import ContextVar
from pathlib import Path
from typing import Any, TypeAlias
from weakref import WeakSet

import captum.log
import numpy as np
import torch
from torch import Tensor, nn

from captum_classpattern._support.validation import ArgumentTypeError, Notice

Classifier: TypeAlias = Callable[..., Tensor]
MIN_LABELLED = 20  # images, to tell whether a model is guessing
MIN_GAIN = 0.1  # of the way from chance to perfect accuracy: less is close to guessing
WRONG_SHAPE = re.compile(r"\b(shape|size|dim|channel|height|width)", re.IGNORECASE)  # in errors
# in errors that are no OutOfMemoryError
NO_MEMORY = re.compile(r"ALLOC_FAILED|out of memory|can't allocate memory", re.IGNORECASE)
WAIT = 60.0  # seconds for another thread, until there is a notice
CPU_IMAGES, DEVICE_IMAGES = 32, 512  # classified in one call
WRONG_CODE = re.compile(r"contiguous|stride|tensor number", re.IGNORECASE)  # of view, of cat
COUNTED = ContextVar("COUNTED", default=True)  # whether passes count as passes of a method
_noticed: WeakSet[Any] = WeakSet()  # models whose softmax was reported
_one_thread = threading.RLock()  # holds what preserve_state changes


def find_module(forward_func: Classifier | None) -> nn.Module | None:
    """The module behind a classifier, if there is one: itself, or that of a bound method."""
    owner = getattr(forward_func, "__self__", forward_func)
    return owner if isinstance(owner, nn.Module) else None


def attribute_of(classifier: Any, name: str) -> Any:
    """An attribute of a classifier, or of the model behind a bound method, a wrapper or a
    DataParallel; None without it."""
    owner = getattr(classifier, "__self__", classifier)
    inner = (getattr(owner, wrapped, None) for wrapped in ("module", "model"))
    return next((getattr(each, name) for each in (owner, *inner) if hasattr(each, name)), None)


def device_and_dtype(forward_func: Classifier, like: Tensor) -> tuple[torch.device, torch.dtype]:
    """Device and precision of a classifier's parameters, else of its buffers; those of ``like`` if
    it has none. Numbers of one byte only store weights: nothing is computed in them."""
    module = find_module(forward_func)
    tensors = () if module is None else itertools.chain(module.parameters(), module.buffers())
    floats = [tensor for tensor in tensors if tensor.is_floating_point()]
    device = next((tensor.device for tensor in floats), like.device)
    return device, next((tensor.dtype for tensor in floats if tensor.itemsize > 1), like.dtype)


def images_at_once(device: torch.device) -> int:
    """How many images are classified in one call on a device."""
    return CPU_IMAGES if device.type == "cpu" else DEVICE_IMAGES


def on_device(values: Tensor, device: torch.device) -> Tensor:
    """The values on a device, without waiting for what a CUDA device is doing."""
    if device.type == "cuda" and values.device.type == "cpu":
        return values.pin_memory().to(device, non_blocking=True)
    return values.to(device)


def lacks_memory(error: BaseException) -> bool:
    """Whether an error says that a device has too little memory."""
    return isinstance(error, torch.OutOfMemoryError) or bool(NO_MEMORY.search(str(error)))


@contextmanager
def preserve_state(forward_func: Classifier | None, seed: int) -> Iterator[None]:
    """Runs a block with seeded random generators, the model (if any) in eval mode, gradients on,
    deterministic cuDNN kernels and no autocast. Afterwards, even after an error, all of these are
    restored. One thread at a time does so, because they belong to the process."""
    module, cudnn = find_module(forward_func), torch.backends.cudnn
    if not _one_thread.acquire(timeout=WAIT):  # the other thread may wait for this one
        warn("this call waits for one in another thread: calls of this package take turns", Notice)
        _one_thread.acquire()
    with ExitStack() as stack:
        stack.callback(_one_thread.release)
        stack.callback(random.setstate, random.getstate())
        stack.callback(np.random.set_state, np.random.get_state())
        for name, value in (("benchmark", False), ("deterministic", True)):
            stack.callback(setattr, cudnn, name, getattr(cudnn, name))
            setattr(cudnn, name, value)
        kind, devices = _accelerators_in_use()
        for device in filter(torch.is_autocast_enabled, {"cpu", kind or "cpu"}):
            stack.enter_context(torch.autocast(device, enabled=False))
        stack.enter_context(in_eval_mode([] if module is None else [module]))
        stack.enter_context(torch.random.fork_rng(devices, device_type=kind))
        stack.enter_context(torch.inference_mode(False))
        stack.enter_context(torch.enable_grad())
        seed_generators(seed)
        yield


@contextmanager
def in_eval_mode(networks: Sequence[nn.Module]) -> Iterator[None]:
    """Runs a block with networks in eval mode. Afterwards, each part has its own mode again. Parts
    whose ``train`` does more than that, such as LoRA's, get their weights back bit for bit."""
    check_has_weights(networks)
    parts = (part for network in networks for part in network.modules())
    modes = {part: part.training for part in parts if hasattr(part, "training")}  # not if frozen
    if not any(modes.values()):
        yield
        return
    warn(
        "the model is in train mode: it is put into eval mode for this call and back after it; "
        "call model.eval() to silence this"
    )
    special = [part for part in modes if type(part).train is not nn.Module.train]
    tensors = (each for part in special for each in (*part.parameters(), *part.buffers()))
    kept = {tensor: tensor.detach().clone() for tensor in tensors}
    try:
        for network in networks:
            with suppress(NotImplementedError):  # exported programs have no modes
                network.eval()
        yield
    finally:
        for part in special:
            with suppress(NotImplementedError):
                part.train(modes[part])
        for part, mode in modes.items():
            part.training = mode
        for tensor, values in kept.items():
            tensor.data.copy_(values)


def check_has_weights(networks: Sequence[nn.Module]) -> None:
    """Raises an error if all weights are on the device meta."""
    weights = [weight.is_meta for network in networks for weight in network.parameters()]
    if weights and all(weights):
        raise ValueError("the model is on the device meta, so it has no weights: load them first")


def seed_generators(seed: int) -> None:
    """Seeds the random generators of Python, NumPy, torch and the accelerators in use."""
    # torch.manual_seed would also seed the devices that are not in use yet
    torch.default_generator.manual_seed(seed)
    kind, devices = _accelerators_in_use()
    if kind is not None and devices:
        module: Any = torch.get_device_module(kind)
        several = hasattr(module, "manual_seed_all")  # MPS is one device
        (module.manual_seed_all if several else module.manual_seed)(seed)
    random.seed(seed)
    np.random.seed(seed % 2**32)


def _accelerators_in_use() -> tuple[str | None, Sequence[int]]:
    """The kind of accelerator that torch has, such as "cuda" or "mps", and the numbers of its
    devices; none where it is not in use yet."""
    accelerator = torch.accelerator.current_accelerator()
    if accelerator is None:
        return None, ()
    module: Any = torch.get_device_module(accelerator)
    is_in_use = getattr(module, "is_initialized", None) or module.is_available  # of MPS
    return accelerator.type, range(torch.accelerator.device_count() if is_in_use() else 0)


@contextmanager
def uncounted() -> Iterator[None]:
    """Passes in this block only check a model: they don't count as passes of a method."""
    token = COUNTED.set(False)
    try:
        yield
    finally:
        COUNTED.reset(token)


def warn(message: str, category: type[UserWarning] = UserWarning) -> None:
    """A warning that points at the first line outside this package."""
    here = os.path.dirname(os.path.dirname(__file__)) + os.sep  # of the package
    log = os.path.dirname(captum.log.__file__) + os.sep
    skipped = here, log, contextlib.__file__, functools.__file__
    level, frame = 2, sys._getframe(1)
    while frame.f_back and frame.f_code.co_filename.startswith(skipped):
        level, frame = level + 1, frame.f_back
    warnings.warn(message, category, stacklevel=level)


def additional_rows(
    additional: tuple[Any, ...], rows: Tensor | slice, count: int
) -> tuple[Any, ...]:
    """The additional arguments for some of ``count`` canvases, expanded as Captum does: a Tensor
    with one row per canvas gives its rows, anything else stays."""
    return tuple(
        argument[rows]
        if isinstance(argument, Tensor) and argument.shape[:1] == (count,)
        else argument
        for argument in additional
    )


def check_callable(model: Any) -> None:
    """Raises an error unless this can be called."""
    if isinstance(model, type) and issubclass(model, nn.Module):
        raise ArgumentTypeError(
            f"model is the class {model.__name__}, not a network: give one with its weights, such "
            f"as cp.load_model(path, arch={model.__name__})"
        )
    if callable(model):
        return
    is_checkpoint = isinstance(model, str | Path | Mapping)
    raise ArgumentTypeError(
        f"model must be a classifier from [0, 1] pixels to logits, got {type(model).__name__}: "
        "give a PixelClassifier, a function, or an nn.Module"
        + ("; open a checkpoint by cp.load_model(path, arch=...)" if is_checkpoint else "")
    )


def check_classifier(
    forward_func: Classifier, sample: Tensor, additional: tuple[Any, ...] = ()
) -> Tensor:
    """The outputs for a sample on the classifier's device; an error unless they are finite."""
    try:
        with torch.no_grad(), uncounted():
            logits = forward_func(sample.clone(), *additional)
    except (RuntimeError, AssertionError) as error:  # torchvision's and timm's ViTs assert
        text = next(reversed(str(error).strip().splitlines()), "")  # TorchScript's traceback first
        is_shape = WRONG_SHAPE.search(text) and not WRONG_CODE.search(text)
        if lacks_memory(error) or not is_shape:
            raise
        hint = hint_about_channels(sample.shape, 3 if "to have 3 channels" in text else None) or (
            ": are `size` and channels those that it was trained on (in Python: load_images takes "
            "`size` and `channels`)? Otherwise look for the error in the model"
        )
        raise ValueError(
            f"the model failed on images of shape {tuple(sample.shape[1:])} ({text}){hint}"
        ) from error
    check_logits(logits, len(sample))
    return logits


def check_targets(targets: Sequence[int], classes: int) -> None:
    """Raises an error if a number is too large for a model with so many classes."""
    if too_large := [target for target in targets if target >= classes]:
        raise ValueError(
            f"target {min(too_large)} is out of range: the model has {classes} classes, so targets "
            f"go from 0 to {classes - 1}"
        )


def hint_about_channels(shape: Sequence[int], wanted: int | None) -> str:
    """What to do with images that look like (N, H, W, C), or are grey but should not be."""
    if (shape[1], wanted) == (1, 3):
        return ": repeat the grey images: images.expand(-1, 3, -1, -1), or load_images(channels=3)"
    is_last = shape[-1] in (1, 3) and shape[1] not in (1, 3)
    return ": they look like (N, H, W, C), so permute them by .permute(0, 3, 1, 2)" * is_last


def check_logits(logits: Any, count: int) -> None:
    """Raises an error unless these are finite logits (count, K) with K >= 2."""
    if not isinstance(logits, Tensor):
        raise ArgumentTypeError(
            f"the model must return logits (N, K) as one Tensor, got a {type(logits).__name__}: "
            "say which part holds the logits, such as `output=-1` or `output='logits'` "
            "(in Python: PixelClassifier and load_model take it)"
        )
    if logits.ndim != 2 or len(logits) != count:
        raise ValueError(
            f"the model must return logits ({count}, K) for {count} images, got shape "
            f"{tuple(logits.shape)}"
        )
    if logits.shape[1] < 2:
        raise ValueError(
            "the model returns one column, but a pattern needs at least two classes: for a binary "
            "model with logit z, return torch.cat([torch.zeros_like(z), z], dim=1)"
        )
    if not bool(logits.isfinite().all()):
        raise ValueError(
            "the model's logits are NaN or infinite: check its weights, and the `mean` and `std` "
            "that normalise its inputs"
        )


def with_logits(forward_func: Classifier, outputs: Tensor, dtype: torch.dtype) -> Classifier:
    """The classifier, or its logarithm, with a notice, if its outputs for images of this precision
    look like probabilities."""
    widths = outputs.element_size(), dtype.itemsize
    sums, slack = outputs.float().sum(1), 1e-2 if min(widths) < 4 else 1e-4
    if not (bool((outputs >= 0).all()) and bool(((sums - 1).abs() <= slack).all())):
        return forward_func
    owner: Any = getattr(forward_func, "__self__", forward_func)
    with suppress(TypeError):  # a callable that can't be weakly referenced: the notice repeats
        if owner in _noticed:
            return LogProbabilities(forward_func)
        _noticed.add(owner)
    warn(
        "the model's outputs are all >= 0 and sum to 1, so they look like probabilities: "
        "their logarithm is used; leave out the softmax to avoid this notice",
        Notice,
    )
    return LogProbabilities(forward_func)


class LogProbabilities(nn.Module):
    """The logarithm of a classifier that returns probabilities."""

    def __init__(self, call: Classifier) -> None:
        super().__init__()
        self.call = call
        self.module = find_module(call)  # so that its device and precision can be seen
        self.training = False

    def forward(self, images: Tensor, *additional: Any) -> Tensor:
        shares = self.call(images, *additional)
        shares = shares.to(torch.promote_types(shares.dtype, torch.float32))
        return shares.clamp(min=torch.finfo(torch.float32).tiny).log()


def guessing_below(labels: Tensor, classes: int) -> float:
    """The accuracy on labelled images below which a model is hardly better than chance.

    Chance is the share of the most frequent class; if fewer than half of the model's classes have
    images, it is 1 / classes.
    """
    counts = labels.bincount()
    present = int((counts > 0).sum())
    chance = float(counts.max()) / len(labels) if 2 * present > classes else 1 / classes
    return chance + MIN_GAIN * (1 - chance)


def warn_if_guessing(accuracy: float, labels: Tensor, classes: int, name: str) -> None:
    """Warns if a model classifies labelled images hardly better than chance."""
    if len(labels) >= MIN_LABELLED and accuracy < guessing_below(labels, classes):
        warn(
            f"the model classifies only {100 * accuracy:.1f} % of {len(labels)} {name} correctly, "
            "which is close to guessing: check the `mean` and `std` that normalise its inputs (in "
            "Python: of explain_class, survey and scan, or PixelClassifier(model, mean, std)), the "
            "order of the classes (counted from 0), and the weights"
        )
