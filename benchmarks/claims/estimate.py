"""About how many seconds of one core a model takes, with matrix products in bfloat16."""

from typing import NamedTuple

from problems import train_cifar10

from claims.models import CIFAR10, FASHION, Entry, Training

PER_STEP = 0.0027  # of training an image of CIFAR-10 once
TRAIN = 50_000  # images
SEARCH = {CIFAR10: 770, FASHION: 230}  # 33,000 passes of each class, 2.3 and 0.7 ms each
SCORES = {CIFAR10: 360, FASHION: 130}  # 52,000 and 33,000 images of each, 0.7 and 0.4 ms each
ATTACK = 200  # of a robust network, by PGD in float32


class Seconds(NamedTuple):
    training: float
    search: float
    scores: float


def seconds_of(entry: Entry, trained: bool) -> Seconds:
    """Estimates; ``trained`` says that the weights are there."""
    training = 0.0 if trained or entry.training is None else images_of_training(entry.training)
    scores = SCORES[entry.data] + (ATTACK if entry.epsilon else 0)
    return Seconds(training * PER_STEP, SEARCH[entry.data], scores)


def images_of_training(training: Training) -> float:
    """How many whole images a training takes as long as: twice as many if it is adversarial, and
    fewer on small crops, which take more than their share of the pixels."""
    stage = training.stage
    images = train_cifar10.LEARNT_BY_HEART if stage.by_heart else TRAIN
    epochs = sum((size / train_cifar10.SIZE) ** 1.5 for size in stage.sizes())
    return images * epochs * (2 if training.epsilon else 1)
