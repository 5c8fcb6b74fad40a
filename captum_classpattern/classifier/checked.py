"""A user's model, checked once: what every public function begins with."""

import sys
import threading
import warnings
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_pre_hook

from captum_classpattern._support.validation import check_seed
from captum_classpattern.classifier.calling import (
    Classifier,
    additional_rows,
    attribute_of,
    check_classifier,
    check_has_weights,
    check_logits,
    device_and_dtype,
    find_module,
    in_eval_mode,
    lacks_memory,
    preserve_state,
    uncounted,
    with_logits,
)
from captum_classpattern.classifier.class_names import ClassNames
from captum_classpattern.classifier.fingerprints import (
    TOLERANCE,
    are_close,
    hash_of_weights,
    in_few_numbers,
    probes_of,
)
from captum_classpattern.classifier.gradients import Gradients
from captum_classpattern.classifier.pixel_classifier import PixelClassifier, over_pixels

_entered: "list[CheckedModel]" = []  # of this call: preserve_state lets one thread in at a time


@dataclass(frozen=True, eq=False)
class CheckedModel:
    r"""
    A classifier over [0, 1] pixels that was checked, and what is known of it.

    Attributes:
        call (Callable): The user's model, from pixels (B, C, H, W) to outputs (B, K). Methods of
            others, such as Captum's, get it.
        logits (Callable): The same, or its logarithm if the outputs are probabilities. Searches
            call it, or a faster copy; whatever classifies images calls :meth:`outputs`.
        networks (Sequence[nn.Module]): The networks that it runs, also those that a function hides.
        device, dtype: Where it takes its images, and in which precision.
        n_classes (int): K.
        given_names (Sequence[str], optional): The names of its classes that the user gives.
        copies (dict): Faster private copies of it that a search has made, by precision.
        gradients (Gradients): What searches have seen of its gradients.
    """

    call: Classifier
    logits: Classifier
    networks: Sequence[nn.Module]
    device: torch.device
    dtype: torch.dtype
    n_classes: int
    given_names: Sequence[str] | None = None
    copies: dict[str, Classifier] = field(default_factory=dict)
    gradients: Gradients = field(default_factory=Gradients)

    @cached_property
    def names(self) -> ClassNames | None:
        """The names of its classes: those that the user gives, else its own, if it has any."""
        if isinstance(self.given_names, ClassNames):
            return self.given_names
        return ClassNames.of(self.call, self.n_classes, self.given_names)

    def outputs(self, images: Tensor, additional: tuple[Any, ...] = ()) -> Tensor:
        """The logits (N, K) for images (N, C, H, W). The model gets a copy on its device, which it
        may change; half by half where memory is too small."""
        try:
            with torch.no_grad():
                outputs = self.logits(images.to(self.device, self.dtype, copy=True), *additional)
            check_logits(outputs, len(images))
            return outputs
        except RuntimeError as error:
            if not lacks_memory(error) or len(images) == 1:
                raise
        half = len(images) // 2
        parts = [
            self.outputs(images[part], additional_rows(additional, part, len(images)))
            for part in (slice(half), slice(half, None))
        ]
        return torch.cat(parts)

    @property
    def provenance(self) -> dict[str, Any]:
        """Where it comes from, as :func:`load_model` says it."""
        return attribute_of(self.call, "provenance") or {}

    @property
    def trigger(self) -> Any:
        """The true trigger of a backdoored model, if it is known."""
        return attribute_of(self.call, "trigger")

    def identity(self, images: Tensor) -> dict[str, Any]:
        """What tells it from other models, for files: hashes of its weights, and its logits for
        probes made of two of these images, see :func:`probes_of`. Compare it by
        :func:`difference`."""
        before, probes = self._plain_tensors(), {}
        with preserve_state(self.call, 0), uncounted(), torch.no_grad():
            for name, probe in probes_of(images[:2]).items():
                logits = self.logits(probe[None].to(self.device, self.dtype))
                probes[name] = in_few_numbers(logits[0])
        # what a pass changes is no weight, such as a layer's last output
        constants = [t for key, t in self._plain_tensors().items() if before.get(key) is t]
        weights = hash_of_weights(self.networks, constants)
        return {"weights": weights, "probes": probes}

    def _plain_tensors(self) -> dict[tuple[nn.Module, str], Tensor]:
        """The tensors that layers hold besides parameters and buffers. The mean and std of a
        PixelClassifier show in the probes."""
        layers = (part for network in self.networks for part in network.modules())
        own = (part for part in layers if not isinstance(part, PixelClassifier))
        held = ((part, name, value) for part in own for name, value in vars(part).items())
        return {(part, name): value for part, name, value in held if isinstance(value, Tensor)}


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
        networks, parts = list[nn.Module](), set[nn.Module]()
        with _networks_run(find_module(call)) as have_run:
            of_first = additional_rows(additional, slice(1), count)
            outputs = check_classifier(call, first, of_first)
            logits = with_logits(call, outputs, dtype)
            checked = CheckedModel(call, logits, (), device, dtype, outputs.shape[1], class_names)
            if not attribute_of(call, "is_random"):
                twice = torch.zeros(2, dtype=torch.int64)
                _check_steady(checked, first, additional_rows(additional, twice, count), of_first)
        for network in have_run:
            if network not in parts:  # of those that came before
                networks.append(network)
                parts.update(network.modules())
        checked = replace(checked, networks=networks)
        with in_eval_mode(networks):
            _entered.append(checked)
            try:
                with preserve_state(call, seed):  # checks may have drawn from the generators
                    yield checked
            finally:
                _entered.remove(checked)


@contextmanager
def _networks_run(module: nn.Module | None) -> Iterator[dict[nn.Module, bool]]:
    """This network, and those that run in this block and thread, whatever hides them; and whether
    they were in train mode. None of them runs in it here."""
    modes, thread = dict[nn.Module, bool](), threading.get_ident()
    if module is not None:
        modes[module] = getattr(module, "training", False)  # frozen ones have no mode

    def note(part: nn.Module, _: Any) -> None:
        if threading.get_ident() == thread and part not in modes:
            check_has_weights([part])
            modes[part] = part.training
            if part.training:
                part.training = False

    with ExitStack() as stack:
        if "torch._dynamo" in sys.modules:  # hooks would have compiled parts compiled again
            stack.enter_context(torch.compiler.set_stance("force_eager"))
            stack.enter_context(warnings.catch_warnings())
            warnings.filterwarnings("ignore", "Using `torch.compile")
        stack.callback(register_module_forward_pre_hook(note).remove)
        try:
            yield modes
        finally:
            for part in (part for part, mode in modes.items() if mode):
                part.training = True


def _check_steady(
    model: CheckedModel, first: Tensor, arguments: tuple[Any, ...], of_first: tuple[Any, ...]
) -> None:
    """Raises an error unless an image has the same logits in each call, whatever is beside it. A
    model that takes one image at a time is called with it alone."""
    other = torch.rand(first.shape, generator=torch.Generator().manual_seed(0)).to(first)
    pairs = [[first, 1 - first], [first, 1 - first], [other, first]]
    with uncounted():
        try:
            outputs = [model.outputs(torch.cat(pair), arguments).float() for pair in pairs]
            one, again, beside = outputs[0][0], outputs[1][0], outputs[2][1]
        except (RuntimeError, AssertionError):
            one, again = (model.outputs(first, of_first)[0].float() for _ in range(2))
            beside = one
    for same, tolerance, where in (
        (again, 1e-4, "in another call"),
        (beside, TOLERANCE, "next to another image"),
    ):
        if not are_close(one, same, tolerance):
            raise ValueError(
                f"the model gives the same image other logits {where}, as a network in train mode "
                "does: put each network that it uses into eval mode, by network.eval(), and use "
                "no dropout or batch statistics in functions of your own; if it is random on "
                "purpose, set `model.is_random = True`"
            )
