"""Embedded images and models: real data and real classifiers to try everything on."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file

from captum_classpattern.classifier import PixelClassifier
from captum_classpattern.demo.network import SmallResNet
from captum_classpattern.images import LabelledImages
from captum_classpattern.pattern import Pattern
from captum_classpattern.triggers import BadNets

DATA = Path(__file__).parent / "data"
MODELS = ("natural", "backdoored", "robust")
TRIGGER_TARGET = 0
CLASS_NAMES = (
    "T-shirt", "Trouser", "Pullover", "Dress", "Coat",
    "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot",
)  # fmt: skip


@dataclass(frozen=True)
class DemoImages:
    """2,000 test images of Fashion-MNIST: one half to search on, the other to score on."""

    search: LabelledImages
    held_out: LabelledImages


def demo_images() -> DemoImages:
    r"""
    The embedded Fashion-MNIST test images (Xiao et al. 2017, arXiv 1708.07747), 200 per class.

    Returns:
        *DemoImages*: ``.search`` and ``.held_out``, 1,000 images each, without overlap.

    Examples::

        >>> images = demo_images()
        >>> images.search.images.shape, images.held_out.labels.bincount().tolist()[:3]
        (torch.Size([1000, 1, 28, 28]), [100, 100, 100])
    """
    classes = [np.load(path) for path in sorted((DATA / "fashion_mnist").glob("*.npz"))]
    labels, halves = torch.arange(len(classes)).repeat_interleave(100), {}
    for name in ("search", "held_out"):
        pixels = torch.from_numpy(np.concatenate([file[name] for file in classes]))
        images, described = pixels.float().div(255)[:, None], name.replace("_", "-")
        source = f"Fashion-MNIST, {described} half"
        halves[name] = LabelledImages(images, labels, CLASS_NAMES, source)
    return DemoImages(**halves)


def demo_models() -> dict[str, PixelClassifier]:
    r"""
    The embedded classifiers: natural, backdoored and adversarially trained ("robust").

    A JSON file next to each model's weights records how it was trained and how it scores.

    Returns:
        *dict[str, PixelClassifier]*: In eval mode, on the CPU.

    Examples::

        >>> models = demo_models()
        >>> list(models)
        ['natural', 'backdoored', 'robust']
        >>> models["natural"](demo_images().held_out.images[:5]).shape
        torch.Size([5, 10])
    """
    models = {}
    for name in MODELS:
        network = SmallResNet()
        weights = load_file(DATA / f"{name}.safetensors")
        network.load_state_dict(weights)  # float16 values, copied into float32 parameters
        # a fifth faster on a CPU; the stubs lack this form of .to()
        network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        models[name] = PixelClassifier(
            network.eval(),
            class_names=CLASS_NAMES,
            trigger=demo_trigger() if name == "backdoored" else None,
            provenance={"source": name},
        )
    return models


def demo_trigger() -> Pattern:
    r"""
    The true trigger of the backdoored model: a 3x3 checkerboard for class 0.

    Returns:
        *Pattern*: The patch, its mask and its target.

    Examples::

        >>> demo_trigger().target, int(demo_trigger().mask.sum())
        (0, 9)
    """
    return BadNets((1, 28, 28)).pattern(TRIGGER_TARGET)
