"""A model's layers from the output to the input, and copies of it with random weights."""

import copy
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from captum_classpattern.classifier import preserve_state, uncounted

Layer = tuple[str, ...]  # names of modules: one, and those that run inside it unseen


def layers_from_top(model: nn.Module, sample: Tensor) -> list[Layer]:
    r"""
    The layers of a model from the output to the input, as a forward pass calls them.

    A layer is a module that has parameters or running statistics itself, outside its submodules.
    One that is called several times counts where it is called first. A module that is never
    called, because the module around it uses its parameters directly, belongs to the layer of that
    module. If there is none, it is left out.

    Args:
        model (nn.Module): The classifier. It is not changed.
        sample (Tensor): One image (1, C, H, W) to pass through it.

    Returns:
        *list[tuple[str, ...]]*: For each layer the names of its modules, as in ``named_modules``.

    Examples::

        >>> net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(4, 3), torch.nn.ReLU(),
        ...                           torch.nn.Linear(3, 2))
        >>> layers_from_top(net, torch.rand(1, 1, 2, 2))
        [('3',), ('1',)]
    """
    twin = copy.deepcopy(model).eval()
    own = {name: part for name, part in twin.named_modules() if _has_state(part)}
    called: list[str] = []

    def watch(name: str) -> Any:
        return lambda part, inputs: None if name in called else called.append(name)

    for name, part in own.items():
        part.register_forward_pre_hook(watch(name))
    with torch.no_grad(), uncounted():
        twin(sample)
    layers = {name: [name] for name in called}
    for name in own:
        around = [other for other in called if not other or name.startswith(f"{other}.")]
        if name not in layers and around:
            layers[max(around, key=len)].append(name)
    return [tuple(layers[name]) for name in reversed(called)]


def _has_state(part: nn.Module) -> bool:
    """Whether a module has parameters or running statistics itself, outside its submodules."""
    return any(True for _ in part.parameters(recurse=False)) or hasattr(part, "reset_running_stats")


def randomised(model: nn.Module, layers: Sequence[Layer], seed: int) -> nn.Module:
    r"""
    A copy of a model whose layers, in this order, have new random weights.

    A module with ``reset_parameters`` is initialised as PyTorch does it, which also resets the
    running statistics of a batch norm. Parameters that this leaves as they were, such as those of
    a weight norm, and the parameters of any other module are drawn from a normal distribution with
    the mean and the standard deviation of their values. The first layers get the same weights
    however many follow.

    Args:
        model (nn.Module): The classifier. It is not changed.
        layers (Sequence[tuple[str, ...]]): Some of its layers, see :func:`layers_from_top`.
        seed (int): Seed of the weights.

    Returns:
        *nn.Module*: The copy, in eval mode.

    Examples::

        >>> net = torch.nn.Linear(4, 3)
        >>> other = randomised(net, [("",)], seed=1)
        >>> bool((net.weight == other.weight).any())
        False
    """
    twin = copy.deepcopy(model).eval()
    with preserve_state(twin, seed), torch.no_grad():
        for name in (name for layer in layers for name in layer):
            part = twin.get_submodule(name)
            trained = [values.clone() for values in part.parameters(recurse=False)]
            reset = getattr(part, "reset_parameters", None)
            if callable(reset):
                reset()
            for values, before in zip(part.parameters(recurse=False), trained):
                is_left = values.equal(before) and values.is_floating_point()
                if is_left and values.numel() > 1 and float(values.std()) > 0:
                    values.normal_(float(values.mean()), float(values.std()))
    return twin
