"""Every method gets the same canvases, search images and trigger; scores are of held-out images."""

import pytest
import torch
from comparisons import CANVASES, HELD_OUT, LABELS, SEARCH, TARGETS, conv_net, linear_net

from captum_classpattern import Pattern, predictive_power
from captum_classpattern.comparison.task import CachedScorer, Task, images_of_classes
from captum_classpattern.images import LabelledImages
from captum_classpattern.pattern import AdditivePattern

HELD = LabelledImages(HELD_OUT, LABELS, argument="held-out images")
SOURCE = LabelledImages(SEARCH, LABELS, argument="baselines")


def task(canvases=CANVASES, targets=TARGETS, source=SOURCE, class_images=3, seed=0):
    images = images_of_classes(source, canvases, targets, count=class_images, seed=seed)
    return Task("m", canvases, targets, ["canvas"] * len(canvases), 0.1, [0.1], [seed], *images)


def places(images):
    """Which search images these are."""
    return [int((image == SEARCH).flatten(1).all(1).nonzero()) for image in images]


def test_the_other_image_of_a_class_is_not_a_canvas():
    built = task(canvases=SEARCH[:57], targets=LABELS[:57].tolist(), class_images=20)
    assert sorted(places(built.other_images.values())) == [57, 58, 59]
    for target, image in built.other_images.items():
        assert LABELS[places([image])[0]] == target
    assert not task(canvases=SEARCH, targets=LABELS.tolist(), class_images=20).other_images
    assert {y: len(one) for y, one in task(class_images=1).class_images.items()} == {
        0: 1,
        1: 1,
        2: 1,
    }
    alone = task(class_images=0)
    assert (alone.class_images, list(alone.other_images)) == ({}, [0, 1, 2])
    of_one_class = task(source=SOURCE.with_labels([0] * 60))
    assert list(of_one_class.class_images) == list(of_one_class.other_images) == [0]


@pytest.mark.parametrize("net", [conv_net(), linear_net(dtype=torch.float64)], ids=type)
def test_power_is_predictive_power_on_images_that_are_moved_once(net, monkeypatch):
    moved, to = [], LabelledImages.to
    monkeypatch.setattr(LabelledImages, "to", lambda *args: moved.append(args[1:]) or to(*args))
    mask = torch.rand(1, 6, 6, generator=torch.Generator().manual_seed(0)).gt(0.6).float()
    patterns = [
        *(Pattern(canvas, mask, target) for canvas in CANVASES[:2] for target in (0, 1, 2, 1)),
        Pattern(CANVASES[0], 1 - mask, 0),
        Pattern(CANVASES[0], mask / 2, 0),
        AdditivePattern(CANVASES[0], mask, 0, change=CANVASES[0] - 0.5),
        AdditivePattern(CANVASES[0], mask, 0, change=CANVASES[0] / 2),
    ]
    scorer = CachedScorer(net, HELD, CANVASES)
    found = [scorer.power(pattern) for pattern in patterns]
    assert moved == [(torch.device("cpu"), next(net.parameters()).dtype)]
    given = HELD_OUT, LABELS
    assert found == [predictive_power(net, pattern, *given, area=None) for pattern in patterns]
    assert len({power.value for power in found}) > 6
