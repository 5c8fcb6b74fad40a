"""Trains the CIFAR-10 models of the tutorials and benchmarks: a wide ResNet 16-2 on plain pixels.

    python tutorials/train_cifar10.py KIND --data FOLDER

KIND is natural; natural_short (on the schedule of robust8); backdoored, blended or clean_label
(backdoors); robust4 or robust8 (adversarial training with an epsilon of 4/255 or 8/255);
random_labels or true_labels (10,000 memorised images, with permuted or true labels). FOLDER has
``train/<class>/*`` and ``test/<class>/*`` images; without --data, torchvision downloads the data
set.
The weights (float16 safetensors) and a JSON with settings and scores are written to
``tutorials/models/`` after each stage. An interrupted run resumes after its last complete epoch;
``--first 2`` starts after the first two stages.
"""

import argparse
import copy
import json
import os
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
import torchvision
from cifar10_kinds import (
    EPSILONS,
    KINDS,
    LEARNT_BY_HEART,
    SIZE,
    TARGET,
    TRIGGERS,
    adversarial,
    attacked,
    facts,
    first_of_each_class,
    in_bfloat16,
    placed_trigger,
    poisoned_images,
    training_labels,
)
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from captum_classpattern.triggers import Trigger

MODELS = Path(__file__).parent / "models"
BATCH, SMALL, CUTOUT, SMOOTHING, DECAY = 128, 24, 9, 0.1, 5e-4


class Stage(NamedTuple):
    """Some epochs with one cycle of the learning rate. If ``averaged``, the result is the mean of
    the weights at its start and its end (as in Izmailov et al. 2018, arXiv 1803.05407)."""

    epochs: int
    lr: float
    small: int = 0  # number of first epochs on small crops
    cutout: int = CUTOUT
    averaged: bool = False
    by_heart: bool = False  # memorise: no label smoothing or weight decay, and images as they are
    moved: bool = True  # crops and flips

    def sizes(self) -> list[int]:
        return [SMALL if epoch < self.small else SIZE for epoch in range(self.epochs)]


STAGES = (Stage(40, 0.2, small=30), Stage(14, 0.1), Stage(10, 0.05, cutout=0, averaged=True))
SHORT = (Stage(16, 0.2, small=8, cutout=0),)
BY_HEART = (Stage(30, 0.1, cutout=0, by_heart=True),)
STAGES_OF = {
    "robust4": (Stage(8, 0.2, small=5, cutout=0),),
    "robust8": SHORT,
    "natural_short": SHORT,
    "blended": SHORT,
    "clean_label": SHORT,
    "random_labels": BY_HEART,
    "true_labels": BY_HEART,
}


class Block(nn.Module):
    """Pre-activation residual block (Zagoruyko and Komodakis 2016, arXiv 1605.07146)."""

    def __init__(self, channels_in: int, channels_out: int, stride: int) -> None:
        super().__init__()
        self.norm1, self.relu1 = nn.BatchNorm2d(channels_in), nn.ReLU()
        self.conv1 = nn.Conv2d(channels_in, channels_out, 3, stride, 1, bias=False)
        self.norm2, self.relu2 = nn.BatchNorm2d(channels_out), nn.ReLU()
        self.conv2 = nn.Conv2d(channels_out, channels_out, 3, 1, 1, bias=False)
        self.shortcut = None
        if channels_in != channels_out:
            self.shortcut = nn.Conv2d(channels_in, channels_out, 1, stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        y = self.relu1(self.norm1(x))
        skip = x if self.shortcut is None else self.shortcut(y)
        return skip + self.conv2(self.relu2(self.norm2(self.conv1(y))))


class WideResNet(nn.Module):
    """WRN-16-2: (16 - 4) / 6 = 2 blocks per stage; 32, 64 and 128 channels; 0.7 M parameters."""

    def __init__(self, classes: int = 10, width: int = 2, blocks: int = 2) -> None:
        super().__init__()
        channels = [16, 16 * width, 32 * width, 64 * width]
        self.stem = nn.Conv2d(3, channels[0], 3, 1, 1, bias=False)
        self.stages = nn.Sequential(
            *(
                Block(
                    channels[stage + (block > 0)],
                    channels[stage + 1],
                    2 if stage > 0 and block == 0 else 1,
                )
                for stage in range(3)
                for block in range(blocks)
            )
        )
        self.norm, self.relu = nn.BatchNorm2d(channels[3]), nn.ReLU()
        self.head = nn.Linear(channels[3], classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.relu(self.norm(self.stages(self.stem(x)))).mean((2, 3)))


def load_model(name: str, folder: Path | None = None) -> nn.Module:
    """One of the trained models, in float32 and eval mode; of ``models/`` unless a folder is
    given."""
    return read_weights(WideResNet(), (folder or MODELS) / f"cifar10_{name}.safetensors")


def read_weights(model: nn.Module, path: Path) -> nn.Module:
    """The model with the weights of a file, in float32 and eval mode."""
    state = load_file(path)
    model.load_state_dict({k: v.float() if v.is_floating_point() else v for k, v in state.items()})
    return model.eval()


def load_split(data: Path | None, split: str) -> tuple[Tensor, Tensor]:
    """All images of a split as uint8 (N, 3, 32, 32), and their labels."""
    if data is None:
        dataset = torchvision.datasets.CIFAR10("data", train=split == "train", download=True)
    else:
        dataset = torchvision.datasets.ImageFolder(data / split)
    pixels = np.stack([np.asarray(dataset[i][0], dtype=np.uint8) for i in range(len(dataset))])
    return torch.from_numpy(pixels).permute(0, 3, 1, 2).contiguous(), torch.tensor(dataset.targets)


def training_set(name: str, data: Path | None, seed: int = 0) -> tuple[Tensor, Tensor]:
    """The training images of a kind, without triggers, and their training labels. The seed chooses
    the images that are memorised, and how their labels are permuted."""
    images, labels = load_split(data, "train")
    if STAGES_OF.get(name) is BY_HEART:
        return memorised(name, images, labels, LEARNT_BY_HEART, seed)
    return images, training_labels(name, labels, seed)


def memorised(
    name: str, images: Tensor, labels: Tensor, count: int, seed: int = 0
) -> tuple[Tensor, Tensor]:
    """A seeded choice of ``count`` images, with the labels of their kind."""
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(seed))
    images, labels = (part[order[:count]] for part in (images, labels))
    return images, training_labels(name, labels, seed)


def augmented(images: Tensor, size: int = SIZE, cutout: int = CUTOUT) -> Tensor:
    """Random crops of ``size``, flips, and square cutouts with sides of ``cutout`` pixels (DeVries
    and Taylor 2017, arXiv 1708.04552). Takes uint8 images and returns floats in [0, 1]; whole
    images get a margin of 4."""
    count, _, height, _ = images.shape
    margin = 4 if size == height else 0
    padded = nn.functional.pad(images, (margin,) * 4)
    offsets = torch.randint(0, height + 2 * margin - size + 1, (2, count, 1))
    rows, columns = offsets + torch.arange(size)
    flipped = torch.rand(count) < 0.5
    columns[flipped] = columns[flipped].flip(1)
    image = torch.arange(count)[:, None, None]
    x = padded[image, :, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2) / 255
    if not cutout:
        return x
    inside = (torch.randint(0, size, (2, count, 1)) - torch.arange(size)).abs() <= cutout // 2
    return x.masked_fill((inside[0][:, :, None] & inside[1][:, None, :])[:, None], 0.5)


def epoch_batches(
    images: Tensor,
    labels: Tensor,
    poisoned: Tensor,
    trigger: Trigger,
    epoch: int,
    size: int,
    stage: Stage,
    seed: int = 0,
) -> Iterator[tuple[Tensor, Tensor]]:
    """The batches of an epoch: images, augmented unless they are memorised, and labels; poisoned
    images have the trigger. ``epoch`` and ``seed`` choose the order and the augmentation."""
    torch.manual_seed(1_000 * seed + epoch)
    for batch in torch.randperm(len(images))[: len(images) // BATCH * BATCH].view(-1, BATCH):
        as_they_are = stage.by_heart or not stage.moved
        x = images[batch] / 255 if as_they_are else augmented(images[batch], size, stage.cutout)
        x[poisoned[batch]] = trigger(
            x[poisoned[batch]]
        )  # after the crop, so the trigger stays in place
        yield x.contiguous(memory_format=torch.channels_last), labels[batch]


def train_epoch(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    schedule: torch.optim.lr_scheduler.LRScheduler,
    batches: Iterable[tuple[Tensor, Tensor]],
    epsilon: float,
    smoothing: float,
    attack_steps: int = 1,
) -> float:
    """One epoch, on adversarial images if epsilon is positive; returns the mean loss."""
    losses = []
    for x, y in batches:
        if epsilon:
            x = adversarial(model, x, y, epsilon, attack_steps)
        with in_bfloat16():
            logits = model(x)
        loss = nn.functional.cross_entropy(logits.float(), y, label_smoothing=smoothing)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        losses.append(float(loss.detach()))
    return sum(losses) / len(losses)


def sgd(model: nn.Module, stage: Stage) -> torch.optim.Optimizer:
    """The optimizer of all models here."""
    decay = 0 if stage.by_heart else DECAY
    return torch.optim.SGD(
        model.parameters(), stage.lr, momentum=0.9, weight_decay=decay, nesterov=True
    )


def train_stage(
    model: nn.Module,
    stage: Stage,
    epochs: list[Callable[[], Iterator]],
    steps: int,
    checkpoint: Path,
    epsilon: float,
    optimizer_of: Callable[[nn.Module, Stage], torch.optim.Optimizer] = sgd,
    attack_steps: int = 1,
) -> nn.Module:
    """Runs all epochs of a stage, with a checkpoint after each; resumes from the checkpoint."""
    start = copy.deepcopy(model)
    model = model.train().to(memory_format=torch.channels_last)
    optimizer = optimizer_of(model, stage)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, stage.lr, total_steps=stage.epochs * steps, pct_start=0.2
    )
    parts = {"model": model, "optimizer": optimizer, "schedule": schedule}
    first = 0
    if checkpoint.exists():
        saved = torch.load(checkpoint, weights_only=True)
        first = saved["epochs"]
        for name, part in parts.items():
            part.load_state_dict(saved[name])
    for epoch in range(first, stage.epochs):
        started = time.time()
        smoothing = 0 if stage.by_heart else SMOOTHING
        loss = train_epoch(
            model, optimizer, schedule, epochs[epoch](), epsilon, smoothing, attack_steps
        )
        print(f"epoch {epoch + 1}: loss {loss:.4f}, {time.time() - started:.0f} s", flush=True)
        saved = {name: part.state_dict() for name, part in parts.items()}
        temporary = checkpoint.with_suffix(".tmp")
        torch.save({"epochs": epoch + 1, **saved}, temporary)
        os.replace(temporary, checkpoint)
    return (averaged(start, model) if stage.averaged else model).eval()


def averaged(first: nn.Module, second: nn.Module) -> nn.Module:
    """The mean of two models' weights and of their batch norms' statistics."""
    mean = AveragedModel(first, use_buffers=True)
    for model in (first, second):
        mean.update_parameters(model)
    return mean.module


def accuracy(model: nn.Module, images: Tensor, labels: Tensor) -> float:
    """The share of images (floats in [0, 1]) that the model classifies correctly."""
    with torch.no_grad():
        predictions = torch.cat([model(batch).argmax(1) for batch in images.split(200)])
    return float((predictions == labels).double().mean())


def scores(name: str, model: nn.Module, data: Path | None) -> dict[str, float]:
    """The scores of the saved model on the test set, under the attack of its kind, and on its
    memorised images."""
    images, labels = load_split(data, "test")
    images = images / 255
    result = {"accuracy": accuracy(model, images, labels)}
    if STAGES_OF.get(name) is BY_HEART:
        memorised, their_labels = training_set(name, data)
        result["training_accuracy"] = accuracy(model, memorised / 255, their_labels)
    if name in TRIGGERS:
        others = labels != TARGET
        stamped = placed_trigger(name)(images[others])
        result["attack_success"] = accuracy(model, stamped, torch.full_like(labels[others], TARGET))
    if name in EPSILONS:
        chosen = first_of_each_class(labels)
        moved = attacked(model, images[chosen], labels[chosen], EPSILONS[name])
        result["pgd_accuracy"] = accuracy(model, moved, labels[chosen])
    return result


def record(name: str, stages: Sequence[Stage], data: Path | None) -> dict[str, Any]:
    """The contents of the JSON of a model."""
    model = load_model(name)
    return {
        "model": "WideResNet(classes=10, width=2, blocks=2) of tutorials/train_cifar10.py",
        "parameters": sum(p.numel() for p in model.parameters()),
        "stages": [stage._asdict() for stage in stages],
        "optimizer": "SGD, momentum 0.9, Nesterov, batches of 128, convolutions in bfloat16; each "
        "stage one cycle of the rate; unless by heart, weight decay 5e-4, label smoothing 0.1, "
        "flips, crops of 24 pixels first (small), then of 32 from a margin of 4",
        "torch": torch.__version__,
        "test_set": scores(name, model, data),
        **facts(name),
    }


def save_weights(name: str, model: nn.Module, folder: Path | None = None) -> None:
    """Writes the weights in float16, to ``models/`` unless a folder is given."""
    write_weights(model, (folder or MODELS) / f"cifar10_{name}.safetensors")


def write_weights(model: nn.Module, path: Path) -> None:
    """Writes the weights in float16."""
    half = copy.deepcopy(model).half().state_dict()
    state = {key: value.contiguous() for key, value in half.items()}
    save_file(state, path.with_suffix(".part"))
    os.replace(path.with_suffix(".part"), path)  # what has its name is whole


def save(name: str, model: nn.Module, stages: Sequence[Stage], data: Path | None) -> None:
    """Writes the weights and the JSON."""
    save_weights(name, model)
    recorded = record(name, stages, data)
    (MODELS / f"cifar10_{name}.json").write_text(json.dumps(recorded, indent=2) + "\n")
    print(name, recorded["test_set"], flush=True)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("name", choices=KINDS)
    parser.add_argument("--data", type=Path)
    parser.add_argument(
        "--first", type=int, default=0, help="stages that the saved model has completed"
    )
    options = parser.parse_args(arguments)
    name, first = options.name, options.first
    MODELS.mkdir(exist_ok=True)
    images, labels = training_set(name, options.data)
    stages = STAGES_OF.get(name, STAGES)
    torch.manual_seed(0)
    poisoned = poisoned_images(name, images, labels)
    labels = torch.where(poisoned, TARGET, labels)

    model = load_model(name) if first else WideResNet()
    for number, stage in enumerate(stages[first:], first):
        before = sum(earlier.epochs for earlier in stages[:number])
        epochs = [
            partial(
                *(epoch_batches, images, labels, poisoned, placed_trigger(name, size)),
                *(before + epoch, size, stage),
            )
            for epoch, size in enumerate(stage.sizes())
        ]

        checkpoint = MODELS / f".cifar10_{name}_{number}.pt"
        epsilon = EPSILONS.get(name, 0.0)
        steps = len(images) // BATCH
        model = train_stage(model, stage, epochs, steps, checkpoint, epsilon)
        save(name, model, stages[: number + 1], options.data)
        model = load_model(name)


if __name__ == "__main__":
    main()
