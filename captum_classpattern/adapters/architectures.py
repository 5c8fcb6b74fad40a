"""Networks by name: torchvision's, timm's, those of ``cifar``, or what a user's function makes."""

import importlib
import inspect
from collections.abc import Callable
from difflib import get_close_matches
from types import ModuleType
from typing import Any

import torchvision
from torch import nn

from captum_classpattern._validation import ArgumentTypeError
from captum_classpattern.adapters.cifar import cifar_resnet18, cifar_resnet50, preactresnet18

OWN = {f.__name__: f for f in (preactresnet18, cifar_resnet18, cifar_resnet50)}
FAMILIES = ("timm", "torchvision")
HOW = (
    "arch names a network of torchvision or timm, such as 'resnet18', 'torchvision:vgg11' or "
    "'timm:vit_tiny_patch16_224', or a function or class that makes it, as 'package.module:factory'"
)


def build(arch: str, num_classes: int | None) -> nn.Module:
    """A network with random weights, for a number of classes (its own default if None).

    Raises:
        ImportError: If timm or the module of the factory is not installed.
        ValueError: If no such network is known.
    """
    family, _, name = arch.rpartition(":")
    classes = {} if num_classes is None else {"num_classes": num_classes}
    if family not in ("", *FAMILIES):
        return _made_by(family, name, classes)
    if family == "" and name.lower() in OWN:
        return OWN[name.lower()](**classes)
    if family != "timm" and name in torchvision.models.list_models(torchvision.models):
        settings = {**classes, **_untrained(name)}
        network: nn.Module = torchvision.models.get_model(name, weights=None, **settings)
        return network
    timm = optional("timm") if family == "timm" else installed("timm")
    if timm is not None and family != "torchvision" and timm.is_model(name):
        made: nn.Module = timm.create_model(name, pretrained=False, **classes)
        return made
    known = [*OWN, *torchvision.models.list_models(torchvision.models)]
    known += timm.list_models() if timm else []
    close = get_close_matches(name, sorted(set(known)), 3, 0.5)
    hint = f"; did you mean {', '.join(close)}?" if close else "."
    without = "" if timm else " (timm is not installed: pip install 'captum_classpattern[timm]')"
    raise ValueError(f"there is no network {arch!r}{hint} {HOW}{without}")


def told_by_file(arch: Any, where: str) -> str:
    """The network that a file names, if it may: a factory would be code of the file's choosing."""
    told = arch if isinstance(arch, str) else f"a {type(arch).__name__}"
    if told.rpartition(":")[0] not in ("", *FAMILIES):
        raise ValueError(
            f"{where} says that its network is {told!r}; a file may not choose what is imported "
            "and called: if you trust that function, pass it as arch"
        )
    return told


def _made_by(module_name: str, name: str, classes: dict[str, int]) -> nn.Module:
    """What a user's function or class makes, told the number of classes if it asks for it."""
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        raise ImportError(
            f"arch={module_name}:{name}: there is no module {error.name!r}; run this where "
            f"'python -c \"import {module_name}\"' works, or set PYTHONPATH"
        ) from error
    factory: Callable[..., Any] | None = getattr(module, name, None)
    if not callable(factory):
        raise ValueError(f"arch={module_name}:{name}: {module_name} has no function {name!r}")
    parameters = inspect.signature(factory).parameters
    takes_any = any(p.kind is inspect.Parameter.VAR_KEYWORD for p in parameters.values())
    asked = parameters.get("num_classes")
    if not classes and asked is not None and asked.default is inspect.Parameter.empty:
        raise ValueError(f"arch={module_name}:{name} wants a number of classes: pass num_classes")
    made = _called(factory, classes if asked is not None or takes_any else {})
    if not isinstance(made, nn.Module):
        raise ArgumentTypeError(
            f"arch={module_name}:{name} must make a torch.nn.Module, got a {type(made).__name__}"
        )
    return made


def _called(factory: Callable[..., Any], classes: dict[str, int]) -> Any:
    try:
        return factory(**classes)
    except TypeError:
        if "num_classes" in inspect.signature(factory).parameters or not classes:
            raise
        return factory()  # it seemed to take anything


def _untrained(name: str) -> dict[str, bool]:
    """What spares a warning, and minutes of drawing weights that are replaced."""
    return {"init_weights": False} if name in ("googlenet", "inception_v3") else {}


def optional(name: str) -> ModuleType:
    """A package that is installed with the extra of its name; or an error that says so."""
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name != name:
            raise ImportError(
                f"{name} is installed, but can't be imported ({error}): see its page for what it "
                "needs"
            ) from error
        raise ImportError(
            f"this needs {name}, which is not installed: pip install 'captum_classpattern[{name}]'"
        ) from error


def installed(name: str) -> ModuleType | None:
    try:
        return optional(name)
    except ImportError:
        return None
