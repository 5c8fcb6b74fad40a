"""About how many seconds of one core a model takes, with matrix products in bfloat16."""

from typing import NamedTuple

from problems import SEARCH, train_cifar10

from captum_classpattern.optimization.contest import SCREENED, SCREENING_JUDGES, STARTS
from captum_classpattern.optimization.holdout import JUDGING_STRIDE, MAX_JUDGES
from captum_classpattern.surveys.search import SurveySettings
from claims.images import CANVASES, HELD_OUT
from claims.measure import AREAS
from claims.models import CIFAR10, FASHION, Entry, Training

PER_PASS = {CIFAR10: 0.0023, FASHION: 0.0007}  # seconds of a search
PER_IMAGE = {CIFAR10: 0.0007, FASHION: 0.0004}  # seconds, forward alone
PER_STEP = 0.0027  # seconds of training an image of CIFAR-10 once
SCORED_ON = {CIFAR10: HELD_OUT, FASHION: 1_000}  # held-out images
TRAIN, CLASSES = 50_000, 10  # images, classes
SCORED = 3  # a pattern and two controls, on all held-out images
CHANGES = 3  # of the pattern on positive canvases, on as many


class Seconds(NamedTuple):
    training: float
    search: float
    scores: float


def seconds_of(entry: Entry, trained: bool) -> Seconds:
    """Estimates; ``trained`` says that the weights are there."""
    per_class = SEARCH // CLASSES
    settings = SurveySettings(areas=AREAS, canvases=CANVASES)
    passes = CLASSES * settings.expected_passes(per_class, 0)
    training = 0.0 if trained or entry.training is None else images_of_training(entry.training)
    return Seconds(
        training * PER_STEP,
        passes * PER_PASS[entry.data],
        CLASSES * looks(SCORED_ON[entry.data]) * PER_IMAGE[entry.data],
    )


def images_of_training(training: Training) -> float:
    """How many whole images a training takes as long as: twice as many if it is adversarial, and
    fewer on small crops, which take more than their share of the pixels."""
    stage = training.stage
    images = train_cifar10.LEARNT_BY_HEART if stage.by_heart else TRAIN
    epochs = sum((size / train_cifar10.SIZE) ** 1.5 for size in stage.sizes())
    return images * epochs * (2 if training.epsilon else 1)


def looks(held_out: int) -> float:
    """How many images are classified to score a class and to choose its controls."""
    others = 1 - 1 / CLASSES
    judges = min(MAX_JUDGES, SEARCH // JUDGING_STRIDE)
    count = 0.0
    for canvases in CANVASES.values():
        chosen = 2 * max(canvases, STARTS)  # random masks, and other canvases
        screened = chosen * SCREENING_JUDGES if canvases > SCREENED else 0
        count += len(AREAS) * (screened + 2 * SCREENED * judges + SCORED * held_out)
    return others * (count + CHANGES * held_out)
