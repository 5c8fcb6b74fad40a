"""Networks by name: torchvision's, timm's, ResNets for 32-pixel images, or a user's function."""

import copy
import inspect
import itertools
from collections.abc import Callable
from typing import Any, TypeAlias

from torch import nn

from captum_classpattern._support.validation import (
    ArgumentTypeError,
    import_named,
    import_optional,
    similar_names,
)

Arch: TypeAlias = str | Callable[..., nn.Module]  # a network, or what makes it
FAMILIES = ("timm", "torchvision")


def torchvision_names() -> list[str]:
    """The names of torchvision's classifiers."""
    from torchvision import models  # slow to import

    names: list[str] = models.list_models(models)
    return names


def arch_name(arch: Arch) -> str:
    """The name of a network, also of one that is given as a class, a function or itself."""
    if isinstance(arch, str):
        return arch
    named = type(arch) if isinstance(arch, nn.Module) else arch
    return f"{named.__module__}:{getattr(named, '__qualname__', type(named).__name__)}"


def build(arch: Arch, num_classes: int | None) -> nn.Module:
    """A network with random weights for this many classes (None: its default), or a copy of one."""
    if isinstance(arch, nn.Module):
        return copy.deepcopy(arch)
    family, _, name = arch_name(arch).rpartition(":")
    classes = {} if num_classes is None else {"num_classes": num_classes}
    network: nn.Module
    if not isinstance(arch, str) or family not in ("", *FAMILIES):
        return _build_with_factory(arch, classes)
    from torchvision.models import get_model  # slow to import, here and in cifar_resnets

    from captum_classpattern.adapters.cifar_resnets import CIFAR_RESNETS, CifarResNet

    if family == "" and name.lower() in CIFAR_RESNETS:
        block, depths = CIFAR_RESNETS[name.lower()]
        return CifarResNet(block, depths, **classes)
    if family != "timm" and name in torchvision_names():
        # their slow initialisation, with its warning, would be wasted
        faster = {"init_weights": False} if name in ("googlenet", "inception_v3") else {}
        network = get_model(name, weights=None, **classes, **faster)
        return network
    timm = import_optional("timm", required=family == "timm")
    if timm is None or family == "torchvision" or not timm.is_model(name):
        raise unknown_network(arch)
    network = timm.create_model(name, pretrained=False, **classes)
    return network


def unknown_network(arch: str) -> ValueError:
    """The error about a name that neither torchvision nor timm knows, with similar names."""
    from captum_classpattern.adapters.cifar_resnets import CIFAR_RESNETS

    family, _, name = arch.rpartition(":")
    networks: dict[str, list[str]] = {}
    if family != "timm":
        networks["torchvision"] = [*torchvision_names(), *CIFAR_RESNETS]
    if family != "torchvision" and (timm := import_optional("timm", required=False)) is not None:
        networks["timm"] = timm.list_models()
    missing = not family and "timm" not in networks
    without = " (timm is not installed: pip install 'captum_classpattern[timm]')" if missing else ""
    hint = similar_names(name, itertools.chain(*networks.values()))
    if not family:
        example = ":".join(name.rsplit(".", 1)) if "." in name else f"my_file:{name}"
        start = f"{hint} For a network of your own" if hint else "for one of your own"
        hint = f"{start}, give MODULE:NAME, such as `arch={example}`"
    hint = f"; {hint}" if hint else ""
    listed = "".join(f"\n\nNetworks of {of}: {', '.join(all)}" for of, all in networks.items())
    return ValueError(
        f"there is no network {arch!r} in {' or '.join(networks)}{without}{hint}{listed}"
    )


def check_arch_from_file(arch: Any, path: object) -> str:
    """
    Checks the network that a file names, for :func:`load_network`: a file may not choose what is
    imported and called.

    Args:
        arch (Any): What the file says, such as "resnet18" or "timm:vit_tiny_patch16_224".
        path (PathLike): The file, for the message.

    Returns:
        *str*: The name.

    Raises:
        ValueError: If it names no network, such as "package.module:function".

    Examples::

        >>> check_arch_from_file("resnet18", "model.pt")
        'resnet18'
    """
    name = arch if isinstance(arch, str) else f"a {type(arch).__name__}"
    if name.rpartition(":")[0] not in ("", *FAMILIES):
        raise ValueError(
            f"{path} says that its network is {name!r}; a file may not choose what is imported "
            "and called: if you trust that function, pass it as `arch`"
        )
    return name


def _build_with_factory(arch: Arch, classes: dict[str, int]) -> nn.Module:
    """What a user's function or class makes. It gets the number of classes if it takes it."""
    shown = f"`arch={arch_name(arch)}`"
    factory = import_named(arch, shown) if isinstance(arch, str) else arch
    parameters = inspect.signature(factory).parameters
    parameter = parameters.get("num_classes")
    if not classes and parameter is not None and parameter.default is inspect.Parameter.empty:
        raise ValueError(f"{shown} needs a number of classes: pass `num_classes`")
    takes_any = any(p.kind is inspect.Parameter.VAR_KEYWORD for p in parameters.values())
    given = classes if parameter is not None or takes_any else {}
    try:
        network = factory(**given)
    except Exception as error:
        if isinstance(error, TypeError) and parameter is None and given:
            return _build_with_factory(arch, {})  # its keywords do not include num_classes
        how = f"with num_classes={classes['num_classes']}" if given else "without arguments"
        raise ValueError(
            f"{shown} can't be called {how} ({type(error).__name__}: {error}): give a function "
            "that can be, such as def make(num_classes=10): return MyNet(num_classes, depth=18) in "
            f"my_net.py, by `arch=my_net:make`{', or the right `num_classes`' * bool(given)}"
        ) from error
    if not isinstance(network, nn.Module):
        raise ArgumentTypeError(
            f"{shown} must make a torch.nn.Module, got a {type(network).__name__}"
        )
    return network
