"""Trains a model of the list, or loads it, as a classifier."""

import hashlib
import json
import time
from collections.abc import Callable, Iterator
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import torch
from cifar10 import InBfloat16
from demo_training import load_split
from findings import processor
from problems import train_cifar10
from torch import Tensor, nn
from torch.utils.data import TensorDataset

from captum_classpattern import PixelClassifier
from captum_classpattern._support.files import write_json
from captum_classpattern.demo import demo_models
from captum_classpattern.demo.network import SmallResNet
from captum_classpattern.optimization.acceleration import has_bfloat16
from captum_classpattern.triggers import poison
from claims.models import BY_HEART, CIFAR10, MEMORISED, RATE, Entry, Training, path_of

ADAM_DECAY = 0.05


def adamw(network: nn.Module, stage: train_cifar10.Stage) -> torch.optim.Optimizer:
    return torch.optim.AdamW(network.parameters(), stage.lr, weight_decay=ADAM_DECAY)


OPTIMIZERS = {"SGD": train_cifar10.sgd, "AdamW": adamw}


def network_of(data: str) -> nn.Module:
    """An untrained network for a data set."""
    return train_cifar10.WideResNet(blocks=1) if data == CIFAR10 else SmallResNet()


@lru_cache(maxsize=2)  # of 150 MB
def training_set(data: str, labels: str, folder: Path, seed: int) -> tuple[Tensor, Tensor]:
    """The training images of a data set (uint8) and their training labels."""
    if data == CIFAR10:
        return train_cifar10.training_set(labels, folder, seed)
    images, known = load_split(folder, "train")
    images = (255 * images).round().byte()
    if labels in MEMORISED:
        return train_cifar10.memorised(labels, images, known, BY_HEART[data], seed)
    return images, known


def classifier_of(entry: Entry, data: Path | None, folder: Path) -> PixelClassifier:
    """The classifier, which is trained first unless its weights are in the folder. Those of
    CIFAR-10 compute in bfloat16, as they were trained, where that is fast."""
    if entry.training is None and entry.data != CIFAR10:
        return demo_models()[entry.shipped]
    if entry.training is None:
        network = train_cifar10.load_model(entry.shipped)
    else:
        if not path_of(entry, folder).exists():
            train(entry, entry.training, data, folder)
        network = train_cifar10.read_weights(network_of(entry.data), path_of(entry, folder))
    low = entry.data == CIFAR10 and has_bfloat16(torch.device("cpu"))
    return PixelClassifier(InBfloat16(network).eval() if low else network)


def train(entry: Entry, training: Training, data: Path | None, folder: Path) -> None:
    """Writes the weights, and how they came about to NAME.training.json beside them. An interrupted
    training resumes after its last epoch from NAME.pt, on any processor. Seeds differ in the
    initial weights, the order and augmentation of the images, and which images are poisoned or
    memorised, with which random labels."""
    if data is None:
        raise ValueError(
            f"{entry.name} is trained on images of {entry.data}: give their folder as --data "
            "(CIFAR-10) or --fashion (Fashion-MNIST)"
        )
    stage, seed = training.stage, entry.seed
    images, labels = training_set(entry.data, training.labels, data, seed)
    trigger, poisoned, labels = planted(entry, images, labels)
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / f"{entry.name}.training.json"
    epochs = [
        partial(
            *(
                recorded,
                file,
                epoch,
                train_cifar10.epoch_batches,
                images,
                labels,
                poisoned,
                trigger,
            ),
            *(epoch, size, stage, seed),
        )
        for epoch, size in enumerate(stage.sizes())
    ]
    torch.manual_seed(seed)
    checkpoint = folder / f"{entry.name}.pt"
    network = train_cifar10.train_stage(
        network_of(entry.data),
        stage,
        epochs,
        len(images) // train_cifar10.BATCH,
        checkpoint,
        training.epsilon,
        optimizer_of=OPTIMIZERS[training.optimizer],
        attack_steps=training.attack_steps,
    )
    train_cifar10.write_weights(network, path_of(entry, folder))
    digest = hashlib.sha256(path_of(entry, folder).read_bytes()).hexdigest()
    facts = {"model": entry.name, "data": entry.data, "seed": seed, "training": training.facts()}
    write_json({**facts, "sha256": digest, "epochs": epochs_in(file)}, file)
    checkpoint.unlink(missing_ok=True)


def recorded(
    file: Path, epoch: int, batches: Callable[..., Iterator[Any]], *arguments: Any
) -> Iterator[Any]:
    """The batches of an epoch. After the last one the file says how long it took, and on what."""
    started = time.perf_counter()
    yield from batches(*arguments)
    fast = has_bfloat16(torch.device("cpu"))
    done = {
        "seconds": round(time.perf_counter() - started, 1),
        **{"precision": "bfloat16" if fast else "float32", "torch": torch.__version__},
        "processor": processor(),
    }
    write_json({"epochs": [*epochs_in(file)[:epoch], done]}, file)


def epochs_in(file: Path) -> list[dict[str, Any]]:
    """What a file says about the epochs that are done."""
    return list(json.loads(file.read_text(encoding="utf-8"))["epochs"]) if file.exists() else []


def planted(
    entry: Entry, images: Tensor, labels: Tensor
) -> tuple[train_cifar10.Trigger, Tensor, Tensor]:
    """The trigger, which images get it, and the labels that the network learns."""
    poisoned, pattern = torch.zeros(len(images), dtype=torch.bool), entry.trigger
    if pattern is None:
        return nn.Identity(), poisoned, labels
    clean = TensorDataset(images, labels)
    poisoned[poison(clean, pattern.stamp, pattern.target, RATE, seed=entry.seed).poisoned] = True
    return pattern.stamp, poisoned, labels.where(~poisoned, torch.tensor(pattern.target))
