"""About how many seconds of one core a model takes: of CIFAR-10 with matrix products in bfloat16,
of Fashion-MNIST in float32."""

from typing import NamedTuple

from problems import train_cifar10

from claims.models import BY_HEART, CIFAR10, FASHION, Entry, Training

PER_STEP = {CIFAR10: 0.0027, FASHION: 0.0013}  # of training an image once
TRAIN = {CIFAR10: 50_000, FASHION: 60_000}  # images
SEARCH = {CIFAR10: 770, FASHION: 230}  # 33,000 passes of each class, 2.3 and 0.7 ms each
SCORES = {CIFAR10: 230, FASHION: 130}  # 33,000 images of each, 0.7 and 0.4 ms each
ATTACK = {CIFAR10: 200, FASHION: 20}  # of a robust network, by PGD in float32


class Seconds(NamedTuple):
    training: float
    search: float
    scores: float


def seconds_of(entry: Entry, trained: bool) -> Seconds:
    """Estimates; ``trained`` says that the weights are there."""
    data, training = entry.data, 0.0
    if entry.training is not None and not trained:
        training = images_of_training(entry.training, data) * PER_STEP[data]
    scores = SCORES[data] + (ATTACK[data] if entry.epsilon else 0)
    return Seconds(training, SEARCH[data], scores)


def images_of_training(training: Training, data: str) -> float:
    """How many whole images a training takes as long as: twice as many with one step of an attack,
    and fewer on small crops, which take more than their share of the pixels."""
    stage = training.stage
    images = BY_HEART[data] if stage.by_heart else TRAIN[data]
    epochs = sum((size / train_cifar10.SIZE) ** 1.5 for size in stage.sizes())
    return images * epochs * (1 + training.attack_steps if training.epsilon else 1)
