"""This tutorial trains clean models, to compare a suspicious one with.

    python tutorials/train_references.py --images CIFAR10/train --out clean_models \\
        --arch bring_your_own_model:WideResNet --output -1 --models 20

trains networks on a folder with one subfolder per class, with five recipes in turn; a tenth of the
images is kept to measure their accuracy. Each finished model is a checkpoint like a typical
training script's, so an interrupted run can resume. Measure them once, then scan as many models as
you like:

    cd tutorials
    classpattern reference ../clean_models/*.pt --arch bring_your_own_model:WideResNet \\
        --output -1 --mean 0 --std 1 --data ../CIFAR10/test --out my_references.json
    classpattern scan ../suspect.pt --arch bring_your_own_model:WideResNet --output -1 \\
        --mean 0 --std 1 --data ../CIFAR10/test --references my_references.json

A verdict is only as good as its references. Train them on the task of the models that you will
scan, with their architecture, and so that they are as accurate as those: ``--epochs 4`` trains four
times as long. A scan leaves out references that are far weaker than the model, see docs/scan.md. A
p-value of 5 % needs at least 19, and one of 1 % needs 99.
"""

import argparse
import math
import os
import sys
import time
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn

from captum_classpattern import PixelClassifier
from captum_classpattern._support.files import write_atomically
from captum_classpattern.adapters.architectures import build
from captum_classpattern.classifier import enter_model
from captum_classpattern.datasets import load_images
from captum_classpattern.images import predictions
from captum_classpattern.optimization.acceleration import has_bfloat16

BATCH, SGD_RATE, ADAM_RATE, DECAY = 128, 0.2, 0.004, 5e-4
IN_AN_EPOCH = 32  # batches, at least: of few images they are small
HELD_OUT = 10  # every tenth image measures the accuracy
# options that all models of a folder share
KEPT = ("images", "arch", "output", "size", "channels", "limit", "class_names", "no_flips")


class Recipe(NamedTuple):
    """How a model is trained."""

    epochs: int
    least_steps: int  # with few images, more epochs
    share: float = 1.0  # of the images
    optimizer: str = "sgd"
    smoothing: float = 0.0  # of the labels
    crops: bool = False  # move images by up to an eighth


RECIPES = {  # from weak models to strong ones
    "few": Recipe(6, 900, share=0.5),
    "short": Recipe(3, 700),
    "adam": Recipe(4, 1_000, optimizer="adam"),
    "smooth": Recipe(5, 1_100, smoothing=0.1),
    "long": Recipe(10, 1_600, crops=True),
}


def train(
    network: nn.Module,
    images: Tensor,
    labels: Tensor,
    recipe: Recipe,
    seed: int,
    device: str = "cpu",
    flips: bool = True,
) -> nn.Module:
    """Trains on a share of the images, in one cycle of the learning rate."""
    torch.manual_seed(seed)
    network = network.to(device, memory_format=torch.channels_last).train()
    chosen = torch.randperm(len(images))[: round(recipe.share * len(images))]
    size = min(BATCH, len(chosen) // IN_AN_EPOCH)
    if size < 2:
        raise ValueError(f"{len(chosen)} images are too few to train on: give at least 100 of each")
    each = len(chosen) // size  # steps of an epoch
    epochs = max(recipe.epochs, math.ceil(recipe.least_steps / each))
    if recipe.optimizer == "adam":
        rate = ADAM_RATE
        optimizer: torch.optim.Optimizer = torch.optim.AdamW(network.parameters(), rate)
    else:
        rate = SGD_RATE * size / BATCH
        optimizer = torch.optim.SGD(
            network.parameters(), rate, momentum=0.9, weight_decay=DECAY, nesterov=True
        )
    cycle = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, epochs * each)
    loss_of = nn.CrossEntropyLoss(label_smoothing=recipe.smoothing)
    fast = has_bfloat16(torch.device(device))
    for _ in range(epochs):
        order = chosen[torch.randperm(len(chosen))]
        for batch in order[: each * size].view(-1, size):
            x = augmented(images[batch], flips, recipe.crops).to(device)
            with torch.autocast(torch.device(device).type, torch.bfloat16, enabled=fast):
                logits = network(x.contiguous(memory_format=torch.channels_last))
            loss = loss_of(logits.float(), labels[batch].to(device))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            cycle.step()
    return network.eval()


def augmented(images: Tensor, flips: bool, crops: bool) -> Tensor:
    """Images (N, C, H, W): with flips, half of them mirrored; with crops, moved by up to an
    eighth."""
    if flips:
        images = images.where(torch.rand(len(images), 1, 1, 1) < 0.5, images.flip(3))
    if not crops:
        return images
    height, width = images.shape[2:]
    margin = max(1, height // 8)
    padded = nn.functional.pad(images, (margin,) * 4)
    rows, columns = torch.randint(2 * margin + 1, (2, len(images))).tolist()
    return torch.stack(
        [image[:, r : r + height, c : c + width] for image, r, c in zip(padded, rows, columns)]
    )


def save(
    network: nn.Module, class_names: Sequence[str], settings: dict[str, str], path: Path
) -> None:
    """Writes a checkpoint beside, then renames it: what has its name is whole."""
    weights = network.cpu().state_dict()
    torch.save({"net": weights, "classes": [*class_names], "settings": settings}, file := BytesIO())
    write_atomically(path, file.getvalue())


def differing(path: Path, settings: dict[str, str]) -> str:
    """The first option by which a checkpoint was trained otherwise, with its value; or nothing."""
    known = torch.load(path, weights_only=True).get("settings", settings)
    return next((f"{key} {known[key]}" for key in settings if known[key] != settings[key]), "")


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__.splitlines()[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    add = parser.add_argument
    add("--images", type=Path, required=True, help="folder with one subfolder per class")
    add("--arch", required=True, help="as in classpattern search")
    add("--output", type=int, help="position of the logits, if there are several outputs")
    add("--size", type=int, default=32, help="side of the images in pixels")
    add("--channels", type=int, default=3, help="1 for grey images")
    add("--limit", type=int, help="images per class; None: all")
    add("--class-names", type=Path, help="file with the classes in their order, one a line")
    add("--models", type=int, default=20, help="how many; p <= 0.05 needs 19")
    add("--epochs", type=int, default=1, help="factor of the recipes' epochs")
    add("--device", default="cpu", help="such as cuda")
    add("--no-flips", action="store_true", help="never mirror images, as of digits")
    add("--recipes", nargs="+", choices=RECIPES, default=[*RECIPES], help="used in turn")
    add("--out", type=Path, default=Path("clean_models"), help="folder for the checkpoints")
    options = parser.parse_args(arguments)

    loaded = load_images(
        options.images, size=options.size, channels=options.channels, limit=options.limit
    ).in_one_tensor()
    names = loaded.class_names
    if names is None:
        parser.error(f"--images: {options.images} has no class folders")
    if os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())  # for --arch
    if options.class_names:
        names = [line for line in options.class_names.read_text().splitlines() if line.strip()]
        first = PixelClassifier(build(options.arch, len(names)), output=options.output)
        loaded = loaded.for_classifier(first, names)
    held_out = torch.arange(len(loaded)) % HELD_OUT == HELD_OUT - 1
    fit, test = (loaded.subset(torch.nonzero(each).flatten()) for each in (~held_out, held_out))
    options.out.mkdir(parents=True, exist_ok=True)
    settings = {f"--{name.replace('_', '-')}": str(getattr(options, name)) for name in KEPT}
    settings["--images"] = str(options.images.resolve())
    started, trained = time.perf_counter(), 0
    for number in range(options.models):
        name = options.recipes[number % len(options.recipes)]
        label = name if options.epochs == 1 else f"{name}_x{options.epochs}"
        epochs, least, *rest = RECIPES[name]
        recipe = Recipe(options.epochs * epochs, options.epochs * least, *rest)
        path = options.out / f"{options.arch.rpartition(':')[2]}_{label}_{number}.pt"
        if path.exists():
            if given := differing(path, settings):
                parser.error(f"{path} was trained with {given}: give another --out")
            print(f"{path} is there already", flush=True)
            continue
        torch.manual_seed(number)
        network = build(options.arch, len(names))
        pixels = PixelClassifier(network, output=options.output)
        train(
            *(pixels, fit.images, fit.known_labels, recipe, number),
            device=options.device,
            flips=not options.no_flips,
        )
        with enter_model(pixels.eval(), test.first()) as model:
            correct = test.accuracy_of(predictions(model, test))
        save(network, names, settings, path)
        trained += 1
        left = (time.perf_counter() - started) / trained * (options.models - number - 1) / 60
        print(f"{path}: accuracy {100 * correct:.1f} %, {left:.0f} min left", flush=True)


if __name__ == "__main__":
    main()
