"""The searches for the paper's claims on CIFAR-10: models, canvases and areas."""

from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import torch
from findings import kept_survey
from problems import Parts, cifar10_parts, train_cifar10
from torch import Tensor, nn

from captum_classpattern import Pattern, PixelClassifier, predictive_power
from captum_classpattern.classifier import Classifier, predict
from captum_classpattern.optimization.canvases import STRATEGIES
from captum_classpattern.scores import Scores
from captum_classpattern.scores.power import random_pixels
from captum_classpattern.surveys import Survey

CLASS_NAMES = (
    *("airplane", "automobile", "bird", "cat", "deer"),
    *("dog", "frog", "horse", "ship", "truck"),
)
EPOCHS = (1, 2, 4, 8, 12)
HELD_OUT = 500
TWO_KINDS = {"positive": 2, "white": 1}


class Group(NamedTuple):
    """Models with the same searches: the number of canvases of each kind, and the areas."""

    models: tuple[str, ...]
    canvases: dict[str, int]
    areas: tuple[float, ...]
    seeds: int = 3
    labels_by_model: bool = False  # the model's predictions are the images' classes


GROUPS = {
    "kinds": Group(("natural", "backdoored"), TWO_KINDS, (0.05, 0.01, 0.005)),
    "robust": Group(("natural_short", "robust4", "robust8"), TWO_KINDS, (0.05,)),
    "canvases": Group(("natural",), dict.fromkeys(STRATEGIES, 1), (0.05,), 1),
    "trigger_canvases": Group(("backdoored",), dict.fromkeys(STRATEGIES, 1), (0.01,), 1),
    "no_patch": Group(("natural_short", "blended", "clean_label"), TWO_KINDS, (0.05, 0.01), 1),
    "memorised": Group(("true_labels", "random_labels"), TWO_KINDS, (0.05,), 1, True),
    "epochs": Group(
        (*(f"natural_short_epoch{epoch}" for epoch in EPOCHS), "natural_short"),
        {"positive": 1},
        (0.05,),
        1,
    ),
}
STAMPED_ON = ("natural", "natural_short", "backdoored", "robust4", "robust8")


@cache
def parts(data: Path, seed: int) -> Parts:
    return cifar10_parts(data, seed, HELD_OUT)


def weights_file(name: str) -> Path:
    return train_cifar10.MODELS / f"cifar10_{name}.safetensors"


class InBfloat16(nn.Module):
    """A network with matrix products in bfloat16, as in training; several times faster on CPUs."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network.to(memory_format=torch.channels_last)

    def forward(self, images: Tensor) -> Tensor:
        images = images.contiguous(memory_format=torch.channels_last)
        with torch.autocast(images.device.type, torch.bfloat16):
            logits: Tensor = self.network(images)
        return logits.float()


@cache
def model(name: str) -> PixelClassifier:
    network = InBfloat16(train_cifar10.load_model(name)).eval()
    return PixelClassifier(network, class_names=CLASS_NAMES)


def predictions(network: PixelClassifier, images: Tensor, pattern: Pattern | None = None) -> Tensor:
    """The predicted class of each image, stamped with a pattern if there is one."""
    batches = images.split(200)
    stamped = batches if pattern is None else (pattern.stamp(batch) for batch in batches)
    return torch.cat([predict(network, batch) for batch in stamped])


def search(data: Path, out: Path, group_name: str, name: str, seed: int, rounds: int) -> Survey:
    """The survey of one model with one seed, of all classes; kept in a folder."""
    group = GROUPS[group_name]
    images, labels, held_out, held_out_labels = parts(data, seed)
    if group.labels_by_model:
        labels, held_out_labels = (predictions(model(name), part) for part in (images, held_out))
    return kept_survey(
        out / f"{group_name}_{name}_{seed}_{rounds}",
        model(name),
        (images, labels),
        (held_out, held_out_labels),
        canvases=group.canvases,
        areas=group.areas,
        n_steps=rounds,
        seed=seed,
    )


def stamped_on_others(
    data: Path, findings: Survey, seed: int, others: Mapping[str, Classifier]
) -> Iterator[dict[str, Any]]:
    """The power of patterns of positive canvases on unseen images, on their own model and on other
    models. The controls are random pixels of the same canvas, and no pattern."""
    _, _, held_out, labels = parts(data, seed)
    for finding in findings:
        if finding.canvas != "positive":
            continue
        area, pattern = next(iter(finding.patterns.items()))
        random_pattern = random_pixels(pattern, area, 100 * seed + finding.target)
        for name, classifier in others.items():
            power = predictive_power(classifier, pattern, held_out, labels, area)
            at_random = predictive_power(classifier, random_pattern, held_out, labels, area)
            yield {
                "class": finding.target,
                "on": name,
                "power": power.value,
                "above_both": Scores(power, at_random.value, other_canvas=0.0).beats_controls,
                "random_pixels": at_random.value,
                "no_pattern": power.without,
            }
