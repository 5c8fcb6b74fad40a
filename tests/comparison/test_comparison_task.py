"""The other image of a class, with which a map's stability is measured."""

from comparisons import CANVASES, LABELS, SEARCH, TARGETS

from captum_classpattern.comparison.task import other_images_of
from captum_classpattern.images import LabelledImages

SOURCE = LabelledImages(SEARCH, LABELS, argument="baselines")


def places(images):
    """Which search images these are."""
    return [int((image == SEARCH).flatten(1).all(1).nonzero()) for image in images]


def test_the_other_image_of_a_class_is_not_a_canvas():
    others = other_images_of(SOURCE, SEARCH[:57], LABELS[:57].tolist(), seed=0)
    assert sorted(places(others.values())) == [57, 58, 59]
    for target, image in others.items():
        assert LABELS[places([image])[0]] == target
    assert not other_images_of(SOURCE, SEARCH, LABELS.tolist(), seed=0)
    of_one_class = SOURCE.with_labels([0] * 60)
    assert list(other_images_of(of_one_class, CANVASES, TARGETS, seed=0)) == [0]
