"""Which images a model takes, and which numbers their classes have."""

from collections.abc import Sequence

import torch

from captum_classpattern.adapters import PixelClassifier
from captum_classpattern.classifier import device_and_dtype
from captum_classpattern.classifier.class_names import ClassNames
from captum_classpattern.datasets import LabelledImages


def check_takes(model: PixelClassifier, images: LabelledImages) -> None:
    """Raises an error unless the model takes such images, and returns one Tensor."""
    sample = images.take([0])
    device, dtype = device_and_dtype(model, sample)
    try:
        with torch.no_grad():
            logits = model(sample.to(device, dtype))
    except torch.OutOfMemoryError:
        raise
    except RuntimeError as error:
        reason = str(error).strip().partition("\n")[0]
        _, channels, height, width = sample.shape
        raise ValueError(
            f"the model does not take images of {height}x{width} pixels and {channels} channels: "
            f"give those that it was trained with, or their --size ({reason})"
        ) from error
    if not isinstance(logits, torch.Tensor):
        raise ValueError(
            f"the model returns a {type(logits).__name__}: say which part holds the logits, such "
            "as --output -1 or --output logits"
        )


def channels_of(model: PixelClassifier) -> int | None:
    """The number of channels that a model takes; if it is not stated, that of its first
    convolution."""
    if model.input_size is not None:
        return model.input_size[0]
    kernel = next((p for p in model.parameters() if p.ndim == 4), None)
    return int(kernel.shape[1]) if kernel is not None and kernel.shape[1] in (1, 3) else None


def number_classes(loaded: LabelledImages, models: Sequence[PixelClassifier]) -> LabelledImages:
    """Images with the class numbers of the models, which must agree. A model without class names
    takes those of the images."""
    numbered = [loaded.for_classifier(model) for model in models]
    for model, images in zip(models, numbered):
        if loaded.labels is not None:
            labels = [each.known_labels for each in (loaded, numbered[0], images)]
            differing = (labels[1] != labels[2]).nonzero().flatten().tolist()
            if differing:
                label, first, other = (int(each[differing[0]]) for each in labels)
                raise ValueError(
                    "the models number the classes differently: "
                    f"{(loaded.class_names or ())[label]} is class {first} of "
                    f"{models[0].provenance['source']}, but class {other} of "
                    f"{model.provenance['source']}; compare models with the same order of classes, "
                    "or give the names with --class-names FILE if they are wrong"
                )
        if images.class_names is not None and ClassNames.of(model) is None:
            model.class_names = list(images.class_names)
    return numbered[0]


def numbers_of(part: str | range, model: PixelClassifier) -> Sequence[int]:
    """The numbers of classes that a part of a list of classes means."""
    names, count = ClassNames.of(model), len(model.class_names or ())
    if isinstance(part, range):
        if count and part[-1] >= count:
            raise ValueError(
                f"{part[-1]} is out of range: the model has {count} classes, numbered from 0 to "
                f"{count - 1}"
            )
        return part
    if names is None:
        raise ValueError(
            f"{part!r} is a name, but neither the model nor the images name the classes: give "
            "numbers, or --class-names FILE"
        )
    return [names.find(part)]
