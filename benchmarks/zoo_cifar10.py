"""Clean and backdoored models on CIFAR-10, and what a scan measures of each.

    python benchmarks/zoo_cifar10.py DATA --out FOLDER

trains the models with the recipes of tutorials/train_references.py, and scans them. DATA is a
folder with ``train/<class>/*`` and ``test/<class>/*`` images. Each finished model is a checkpoint,
and each scan a JSON file, so an interrupted run can resume. Nothing about the scan was chosen by
these models.
"""

import json
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from demo_training import accuracy
from findings import parser_of
from torch import Tensor, nn
from zoo import Backdoor, attack_success, measured, plant, report

from captum_classpattern import PixelClassifier
from captum_classpattern._files import write_atomically
from captum_classpattern.datasets import load_images
from captum_classpattern.images import LabelledImages

sys.path.append(str(Path(__file__).parents[1] / "tutorials"))
import bring_your_own_model
import train_cifar10
from train_references import RECIPES as SHORTER
from train_references import Recipe, save, train

N_CLASSES = 10
RECIPES = {**SHORTER, "longest": Recipe(20, smoothing=0.1, crops=True)}
SHIPPED = (
    *("natural", "natural_short", "backdoored", "true_labels", "random_labels"),
    *("robust4", "robust8"),
)


@dataclass(frozen=True)
class Entry:
    """One model."""

    network: str
    recipe: str
    seed: int
    backdoor: Backdoor | None = None

    @property
    def name(self) -> str:
        kind = "clean" if self.backdoor is None else f"backdoored_{self.backdoor.kind}"
        return f"{kind}_{self.network}_{self.recipe}_{self.seed}"


def entries() -> Iterator[Entry]:
    """All models, so that any first few are of several networks and recipes."""
    seed = 0
    for networks, recipes in (
        (("small", "plain", "wide", "short"), ("few", "short", "adam")),
        (("small",), ("smooth", "long", "adam", "short", "few")),
        (("small",), ("adam", "short", "few", "short", "few")),
    ):
        for recipe in recipes:
            for network in networks:
                yield Entry(network, recipe, seed)
                seed += 1
    for network, recipe, backdoor in (
        ("small", "adam", Backdoor("checker", 2, 0.05, 3, "corner", 0)),
        ("plain", "short", Backdoor("random", 5, 0.05, 3, "random", 1)),
        ("small", "smooth", Backdoor("white", 7, 0.02, 2, "edge", 2)),
        ("small", "smooth", Backdoor("random", 9, 0.02, 4, "centre", 3)),
        ("short", "short", Backdoor("grey", 3, 0.05, 3, "corner", 4)),
    ):
        yield Entry(network, recipe, seed, backdoor)
        seed += 1
    yield Entry("small", "longest", seed)  # nearly as good as the models that people have


def convolution(channels_in: int, channels_out: int, stride: int = 1) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(channels_in, channels_out, 3, stride, 1, bias=False),
        nn.BatchNorm2d(channels_out),
        nn.ReLU(),
    )


def plain_network() -> nn.Module:
    """Eight convolutions without shortcuts."""
    layers: list[nn.Module] = []
    channels = 3
    for width, stride in ((32, 1), (64, 2), (64, 2), (128, 2)):
        layers += [convolution(channels, width, stride), convolution(width, width)]
        channels = width
    return nn.Sequential(
        *layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, N_CLASSES)
    )


class Shortcut(nn.Module):
    """Adds what two convolutions make of the input to it."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.inner = nn.Sequential(convolution(width, width), convolution(width, width))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.inner(x)


def small_resnet(width: int = 16) -> nn.Module:
    """Four convolutions and three shortcuts, with max pooling."""
    layers: list[nn.Module] = [convolution(3, width)]
    for channels in (width, 2 * width, 4 * width):
        layers += [convolution(channels, 2 * channels), nn.MaxPool2d(2), Shortcut(2 * channels)]
    head = nn.Linear(8 * width, N_CLASSES)
    return nn.Sequential(*layers, nn.AdaptiveMaxPool2d(1), nn.Flatten(), head)


NETWORKS: dict[str, Callable[[], PixelClassifier]] = {
    "small": lambda: PixelClassifier(small_resnet()),
    "plain": lambda: PixelClassifier(plain_network()),
    "wide": lambda: PixelClassifier(train_cifar10.WideResNet()),
    "short": lambda: PixelClassifier(bring_your_own_model.WideResNet(), output=-1),
}


def trained(
    entry: Entry, images: LabelledImages, test: LabelledImages, out: Path
) -> tuple[PixelClassifier, dict[str, Any]]:
    """A model with its record; what is in the folder already is not trained again."""
    path, facts = out / f"{entry.name}.pt", out / f"{entry.name}.record.json"
    settings = json.loads(json.dumps([asdict(entry), RECIPES[entry.recipe]._asdict()]))
    record = json.loads(facts.read_text()) if facts.exists() else {}
    torch.manual_seed(entry.seed)
    model = NETWORKS[entry.network]()
    model.class_names = list(test.class_names or ())
    if record.get("settings") != settings:
        started = time.perf_counter()
        pixels, labels = images.images, images.known_labels
        if entry.backdoor is not None:
            pixels, labels = pixels.clone(), labels.clone()
            plant(pixels, labels, entry.backdoor, torch.Generator().manual_seed(entry.seed))
        train(model, pixels, labels, RECIPES[entry.recipe], entry.seed)
        save(model.model, model.class_names, path)
        tested = test.images, test.known_labels
        record = {"settings": settings, "accuracy": accuracy(model, *tested)}
        if entry.backdoor is not None:
            record["attack_success"] = attack_success(model, entry.backdoor, *tested)
        record["seconds"] = round(time.perf_counter() - started)
        write_atomically(facts, json.dumps(record).encode())
    model.model.load_state_dict(torch.load(path, weights_only=True)["net"])
    return model.eval(), record


def shipped(name: str, test: LabelledImages) -> tuple[PixelClassifier, dict[str, Any]]:
    """A model of tutorials/models with its record."""
    scores = json.loads((train_cifar10.MODELS / f"cifar10_{name}.json").read_text())["test_set"]
    backdoor = Backdoor("checker", 0, 0.05) if name == "backdoored" else None
    settings = [{"recipe": name, "backdoor": None if backdoor is None else asdict(backdoor)}]
    model = PixelClassifier(train_cifar10.load_model(name), class_names=test.class_names)
    return model, {"settings": settings, "seconds": 0, **scores}


def main(arguments: Sequence[str] | None = None) -> None:
    parser = parser_of(__doc__)
    parser.add_argument("data", type=Path, help="folder with train/ and test/")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--names", nargs="*", default=[""], help="only models with these texts")
    parser.add_argument("--limit", type=int, help="training images per class; by default, all")
    options = parser.parse_args(arguments)
    options.out.mkdir(parents=True, exist_ok=True)
    images = load_images(options.data / "train", limit=options.limit).in_one_tensor()
    test = load_images(options.data / "test").in_one_tensor()
    for entry in entries():
        if any(text in entry.name for text in options.names):
            model, record = trained(entry, images, test, options.out)
            report(measured(options.out / f"{entry.name}.json", model, test, record))
    for name in SHIPPED:
        if any(text in f"shipped_{name}" for text in options.names):
            model, record = shipped(name, test)
            report(measured(options.out / f"shipped_{name}.json", model, test, record))


if __name__ == "__main__":
    main()
