"""Trains a model of the list, or loads it, as a classifier."""

from functools import lru_cache, partial
from pathlib import Path

import torch
from paper_search import InBfloat16
from problems import train_cifar10
from torch import Tensor, nn
from torch.utils.data import TensorDataset

from captum_classpattern import PixelClassifier
from captum_classpattern.demo import demo_models
from captum_classpattern.triggers import poison
from claims.models import CIFAR10, RATE, Entry, Training, path_of

ADAM_DECAY = 0.05
training_set = lru_cache(maxsize=2)(train_cifar10.training_set)  # of 150 MB


def adamw(network: nn.Module, stage: train_cifar10.Stage) -> torch.optim.Optimizer:
    return torch.optim.AdamW(network.parameters(), stage.lr, weight_decay=ADAM_DECAY)


OPTIMIZERS = {"SGD": train_cifar10.sgd, "AdamW": adamw}


def classifier_of(entry: Entry, data: Path | None, folder: Path) -> PixelClassifier:
    """The classifier, which is trained first unless its weights are in the folder. Those of
    CIFAR-10 compute in bfloat16, as they were trained."""
    if entry.data != CIFAR10:
        return demo_models()[entry.shipped]
    if entry.training is None:
        network = train_cifar10.load_model(entry.shipped)
    else:
        if not path_of(entry, folder).exists():
            train(entry.name, entry.training, entry.seed, data, folder)
        network = train_cifar10.load_model(entry.name, folder)
    return PixelClassifier(InBfloat16(network).eval())


def train(name: str, training: Training, seed: int, data: Path | None, folder: Path) -> None:
    """Writes the weights. An interrupted training resumes after its last epoch. Seeds differ in the
    initial weights, the order and augmentation of the images, and which images are poisoned or
    memorised, with which random labels."""
    stage = training.stage
    images, labels = training_set(training.labels, data, seed)
    trigger, poisoned, labels = planted(training, images, labels, seed)
    epochs = [
        partial(
            *(train_cifar10.epoch_batches, images, labels, poisoned, trigger),
            *(epoch, size, stage, seed),
        )
        for epoch, size in enumerate(stage.sizes())
    ]
    torch.manual_seed(seed)
    folder.mkdir(parents=True, exist_ok=True)
    checkpoint = folder / f".{name}.pt"
    network = train_cifar10.train_stage(
        train_cifar10.WideResNet(),
        stage,
        epochs,
        len(images) // train_cifar10.BATCH,
        checkpoint,
        training.epsilon,
        optimizer_of=OPTIMIZERS[training.optimizer],
    )
    train_cifar10.save_weights(name, network, folder)
    checkpoint.unlink(missing_ok=True)


def planted(
    training: Training, images: Tensor, labels: Tensor, seed: int
) -> tuple[train_cifar10.Trigger, Tensor, Tensor]:
    """The trigger, which images get it, and the labels that the network learns."""
    poisoned = torch.zeros(len(images), dtype=torch.bool)
    if training.trigger is None:
        return nn.Identity(), poisoned, labels
    pattern = training.trigger.pattern()
    dirty = poison(TensorDataset(images, labels), pattern.stamp, pattern.target, RATE, seed=seed)
    poisoned[dirty.poisoned] = True
    return pattern.stamp, poisoned, labels.where(~poisoned, torch.tensor(pattern.target))
