"""torchvision's pretrained models. Its files are plain state dicts."""

from typing import Any

from captum_classpattern.adapters.architectures import torchvision_names, unknown_network
from captum_classpattern.adapters.interface import LoadedNetwork
from captum_classpattern.classifier.class_names import imagenet_names


def load_from_torchvision(name: str) -> LoadedNetwork:
    """A model with its default weights, or ``NAME/WEIGHTS``; torchvision downloads or finds it."""
    from torchvision.models import get_model, get_model_weights  # slow to import

    arch, _, version = name.partition("/")
    if arch not in torchvision_names():
        raise unknown_network(f"torchvision:{arch}")
    versions: Any = get_model_weights(arch).__members__
    weights = versions.get(version or "DEFAULT")
    if weights is None:
        raise ValueError(
            f"torchvision's {arch} has no weights {version!r}: it has {', '.join(versions)}"
        )
    transforms, names = weights.transforms(), weights.meta["categories"]
    network = get_model(arch, weights=weights)
    [side] = set(transforms.crop_size)
    loaded = LoadedNetwork(network, transforms.mean, transforms.std, "the weights' transforms")
    loaded.class_names, loaded.input_size = names, (3, side, side)
    loaded.class_ids = [*imagenet_names()] if len(names) == 1000 else None
    loaded.details = {
        "arch": f"torchvision:{arch}", "weights": weights.name, "num_classes": len(names),
    }  # fmt: skip
    return loaded
