"""Whether a network has learnt what its kind promises."""

from pathlib import Path

from problems import train_cifar10

from captum_classpattern import PixelClassifier, predictive_power
from claims.images import Images
from claims.models import Entry
from claims.training import training_set

ATTACKED = 1_000  # held-out images, of all classes in proportion


def learnt(
    entry: Entry, classifier: PixelClassifier, images: Images, data: Path | None
) -> float | None:
    """The attack success of a network with a backdoor, the accuracy of one that memorises images on
    these, and that of a robust one under PGD; None for all others."""
    if entry.trigger is not None:
        return predictive_power(classifier, entry.trigger, images.held_out, area=None).value
    if entry.memorised:
        shown, labels = training_set(entry.data, entry.memorised, data, entry.seed)
        return train_cifar10.accuracy(classifier, shown / 255, labels)
    if entry.epsilon:
        in_float32 = getattr(classifier.model, "network", classifier)
        some = images.held_out.stratified_sample(ATTACKED)
        parts = some.images, some.known_labels
        moved = train_cifar10.attacked(in_float32, *parts, entry.epsilon)
        return train_cifar10.accuracy(in_float32, moved, some.known_labels)
    return None
