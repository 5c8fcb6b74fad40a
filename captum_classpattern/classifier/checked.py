"""A user's model, checked once: what every public function begins with."""

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_pre_hook

from captum_classpattern._validation import check_seed
from captum_classpattern.classifier.calling import (
    Classifier,
    additional_rows,
    attribute_of,
    check_classifier,
    check_has_weights,
    device_and_dtype,
    find_module,
    in_eval_mode,
    outputs_for,
    preserve_state,
    uncounted,
    with_logits,
)
from captum_classpattern.classifier.class_names import ClassNames
from captum_classpattern.classifier.fingerprints import TOLERANCE, hash_of_model, probe
from captum_classpattern.classifier.pixel_classifier import over_pixels

_entered: "list[CheckedModel]" = []  # of this call: preserve_state lets one thread in at a time


@dataclass(frozen=True, eq=False)
class CheckedModel:
    r"""
    A classifier over [0, 1] pixels that was checked, and what is known of it.

    Attributes:
        call (Callable): The user's model, from pixels (B, C, H, W) to outputs (B, K).
        logits (Callable): The same, or its logarithm if the outputs are probabilities.
        networks (Sequence[nn.Module]): The networks that it runs, also those that a function hides.
        device, dtype: Where it takes its images, and in which precision.
        n_classes (int): K.
        given_names (Sequence[str], optional): The names of its classes that the user gives.
    """

    call: Classifier
    logits: Classifier
    networks: Sequence[nn.Module]
    device: torch.device
    dtype: torch.dtype
    n_classes: int
    given_names: Sequence[str] | None = None

    @property
    def names(self) -> ClassNames | None:
        """The names of its classes: those that the user gives, else its own, if it has any."""
        return ClassNames.of(self.call, self.n_classes, self.given_names)

    @property
    def provenance(self) -> dict[str, Any]:
        """Where it comes from, as :func:`load_model` says it."""
        return attribute_of(self.call, "provenance") or {}

    @property
    def trigger(self) -> Any:
        """The true trigger of a backdoored model, if it is known."""
        return attribute_of(self.call, "trigger")

    def check_device(self, images: Tensor) -> None:
        """Raises an error unless these images are where the model is."""
        if images.device != self.device:
            raise ValueError(
                f"the images are on {images.device}, but the model's parameters are on "
                f"{self.device}: move one of them (a pattern, by pattern.to(device))"
            )

    def identity(self, images: Tensor) -> dict[str, Any]:
        """What tells it from other models, for files: a hash of its weights, and its logits for
        probes made of two of these images, see :func:`probe`. Compare it by :func:`difference`."""
        with preserve_state(self.call, 0), uncounted():
            probes = probe(lambda pixels: outputs_for(self.logits, pixels), images[:2])
        return {"weights": hash_of_model(self.networks), "probes": probes}


@contextmanager
def enter_model(
    model: Any,
    sample: Tensor,
    seed: int = 0,
    *,
    mean: float | Sequence[float] | None = None,
    std: float | Sequence[float] | None = None,
    class_names: Sequence[str] | None = None,
    additional: tuple[Any, ...] = (),
) -> Iterator[CheckedModel]:
    """Checks a model on the first of some images (N, C, H, W). Until the end of the block it is in
    eval mode, and the generators have this seed, see :func:`preserve_state`. What this call has
    entered before is not checked again."""
    call, seed = over_pixels(model, mean, std, class_names), check_seed(seed)
    with preserve_state(call, seed):
        if known := [each for each in _entered if each.call is call]:
            yield known[-1]
            return
        device, dtype = device_and_dtype(call, sample)
        first, count = sample[:1].to(device, dtype), len(sample)
        module = find_module(call)
        with _networks_run(module) as networks:
            of_first = additional_rows(additional, slice(1), count)
            outputs = check_classifier(call, first, (), of_first)
        roots = _roots_of([*networks])
        with in_eval_mode(roots):
            logits = with_logits(call, outputs, dtype)
            if not attribute_of(call, "is_random"):
                twice = torch.zeros(2, dtype=torch.int64)
                _check_steady(logits, first, additional_rows(additional, twice, count))
            checked = CheckedModel(
                call, logits, roots, device, dtype, outputs.shape[1], class_names
            )
            _entered.append(checked)
            try:
                with preserve_state(call, seed):  # checks may have drawn from the generators
                    yield checked
            finally:
                _entered.remove(checked)


@contextmanager
def _networks_run(module: nn.Module | None) -> Iterator[dict[nn.Module, bool]]:
    """This network, and those that run in this block and thread, whatever hides them; and whether
    they were in train mode, which none of them runs in here."""
    modes: dict[nn.Module, bool] = (
        {} if module is None else {module: getattr(module, "training", False)}
    )
    thread = threading.get_ident()
    if module is not None and any(hasattr(part, "_orig_mod") for part in module.modules()):
        yield modes  # hooks would compile it again
        return

    def note(part: nn.Module, _: Any) -> None:
        if threading.get_ident() == thread and part not in modes:
            check_has_weights([part])
            modes[part] = part.training
            if part.training:
                part.training = False

    hook = register_module_forward_pre_hook(note)
    try:
        yield modes
    finally:
        hook.remove()
        for part in (part for part, mode in modes.items() if mode):
            part.training = True


def _roots_of(networks: Sequence[nn.Module]) -> list[nn.Module]:
    """Those that are no part of an earlier one."""
    roots, parts = list[nn.Module](), set[nn.Module]()
    for network in networks:
        if network not in parts:
            roots.append(network)
            parts.update(network.modules())
    return roots


def _check_steady(logits: Classifier, first: Tensor, arguments: tuple[Any, ...]) -> None:
    """Raises an error unless an image has the same logits in each call, whatever is beside it."""
    pairs = [torch.cat([first, other]) for other in (1 - first, 1 - first, first / 2)]
    with uncounted():
        outputs = [outputs_for(logits, pair, arguments).float() for pair in pairs]
    one, again, beside = (each[0] for each in outputs)
    everything = torch.stack(outputs)
    most = TOLERANCE * float(everything.max() - everything.min())
    for other, where in ((again, "in another call"), (beside, "next to another image")):
        if float((one - other).abs().max()) > most:
            raise ValueError(
                f"the model gives the same image other logits {where}, as a network in train mode "
                "does: put each network that it uses into eval mode, by network.eval(), and use "
                "no dropout or batch statistics in functions of your own; if it is random on "
                "purpose, set `model.is_random = True`"
            )
