"""What every method gets to see."""

import pytest
import torch
from comparisons import CANVASES, LABELS, SEARCH, TARGETS

from captum_classpattern import Pattern
from captum_classpattern.comparison.scene import set_scene, with_trigger
from captum_classpattern.images import LabelledImages
from captum_classpattern.scores.localisation import changed_pixels

SOURCE = LabelledImages(SEARCH, LABELS, argument="baselines")
MASK = torch.zeros(1, 6, 6)
MASK[0, 4:, 4:] = 1
TRIGGER = Pattern(torch.ones(3, 6, 6), MASK, 1)


def scene(canvases=CANVASES, targets=TARGETS, source=SOURCE, class_images=3, seed=0):
    kinds = ["canvas"] * len(canvases)
    return set_scene(canvases, targets, kinds, source, class_images=class_images, seed=seed)


def places(images):
    """Which search images these are."""
    return [int((image == SEARCH).flatten(1).all(1).nonzero()) for image in images]


@pytest.mark.parametrize("count", [1, 7, 20, 50])
def test_images_of_each_class_by_lot(count):
    own = scene(class_images=count)
    assert list(own.of_class) == [0, 1, 2]
    for target, images in own.of_class.items():
        chosen = places(images)
        assert len(chosen) == len(set(chosen)) == min(count, 20)
        assert all(LABELS[i] == target for i in chosen)
    again, other = scene(class_images=count), scene(class_images=count, seed=1)
    for target, images in own.of_class.items():
        assert torch.equal(images, again.of_class[target])
        assert not torch.equal(images, other.of_class[target])


def test_another_image_of_the_class_is_no_canvas():
    own = scene(canvases=SEARCH[:57], targets=LABELS[:57].tolist(), class_images=20)
    assert sorted(places(own.another.values())) == [57, 58, 59]
    for target, image in own.another.items():
        assert LABELS[places([image])[0]] == target
    assert not scene(canvases=SEARCH, targets=LABELS.tolist(), class_images=20).another


def test_a_class_without_search_images_has_none():
    only = LabelledImages(SEARCH, torch.zeros(60, dtype=torch.int64), argument="baselines")
    own = scene(source=only)
    assert list(own.of_class) == list(own.another) == [0]
    assert own.given == 4


def test_a_trigger_adds_stamped_images_of_other_classes_evenly():
    pixels = changed_pixels(TRIGGER, SEARCH)
    plain = scene()
    own = with_trigger(plain, TRIGGER, pixels, SOURCE, 4)
    assert own.given == 4
    assert own.kinds == ["canvas"] * 4 + ["stamped"] * 4
    assert own.targets == [*TARGETS, 1, 1, 1, 1]
    assert torch.equal(own.canvases[:4], CANVASES)
    others = [i for i in range(60) if LABELS[i] != 1]
    expected = [others[place] for place in (0, 13, 26, 39)]
    assert torch.equal(own.canvases[4:], TRIGGER.stamp(SEARCH[expected]))
    assert own.trigger_area == 4 / 36
    assert [own.shows_trigger(target) for target in (0, 1, 2)] == [False, True, False]
    assert plain.trigger_area is None
    assert not any(plain.shows_trigger(target) for target in (0, 1, 2))
    assert with_trigger(plain, TRIGGER, pixels, SOURCE, 99).canvases.shape[0] == 44


def test_without_images_of_the_class_there_is_still_another_one():
    own = scene(class_images=0)
    assert own.of_class == {}
    assert list(own.another) == [0, 1, 2]
