"""torchvision's pretrained models by name."""

from typing import Any

import torchvision

from captum_classpattern.adapters.formats.timm import IMAGENET_CLASSES, imagenet_ids
from captum_classpattern.adapters.found import Found


def by_name(name: str) -> Found:
    """A model with its default weights, or ``NAME/WEIGHTS``; torchvision downloads or finds it."""
    arch, _, wanted = name.partition("/")
    if arch not in torchvision.models.list_models(torchvision.models):
        raise ValueError(
            f"torchvision has no classifier {arch!r}: see torchvision.models.list_models()"
        )
    weights: Any = torchvision.models.get_model_weights(arch)
    entry = weights.__members__.get(wanted or "DEFAULT")
    if entry is None:
        known = ", ".join(weights.__members__)
        raise ValueError(f"torchvision's {arch} has no weights {wanted!r}: it has {known}")
    transforms = entry.transforms()
    [side] = set(transforms.crop_size)
    categories = entry.meta["categories"]
    return Found(
        torchvision.models.get_model(arch, weights=entry),
        transforms.mean,
        transforms.std,
        "the weights' transforms",
        categories,
        (3, side, side),
        details={
            "arch": f"torchvision:{arch}",
            "weights": entry.name,
            "num_classes": len(categories),
        },
        class_ids=imagenet_ids() if len(categories) == IMAGENET_CLASSES else None,
    )
