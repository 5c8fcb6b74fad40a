"""torchvision's pretrained models. Its files are plain state dicts."""

from typing import Any

import torchvision

from captum_classpattern.adapters.architectures import TORCHVISION, unknown_network
from captum_classpattern.adapters.formats.timm import imagenet_ids
from captum_classpattern.adapters.interface import LoadedNetwork

IMAGENET_CLASSES = 1000


def load_pretrained(name: str) -> LoadedNetwork:
    """A model with its default weights, or ``NAME/WEIGHTS``; torchvision downloads or finds it."""
    arch, _, version = name.partition("/")
    if arch not in TORCHVISION:
        raise unknown_network(f"torchvision:{arch}")
    versions: Any = torchvision.models.get_model_weights(arch).__members__
    weights = versions.get(version or "DEFAULT")
    if weights is None:
        raise ValueError(
            f"torchvision's {arch} has no weights {version!r}: it has {', '.join(versions)}"
        )
    transforms, names = weights.transforms(), weights.meta["categories"]
    [side] = set(transforms.crop_size)
    return LoadedNetwork(
        torchvision.models.get_model(arch, weights=weights),
        transforms.mean,
        transforms.std,
        "the weights' transforms",
        names,
        imagenet_ids() if len(names) == IMAGENET_CLASSES else None,
        (3, side, side),
        details={
            "arch": f"torchvision:{arch}",
            "weights": weights.name,
            "num_classes": len(names),
        },
    )
