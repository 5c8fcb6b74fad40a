"""Canvases, search images and triggers of a task, and scores on held-out images."""

import pytest
import torch
from comparisons import CANVASES, HELD_OUT, LABELS, SEARCH, TARGETS, conv_net, linear_net

from captum_classpattern import Pattern, predictive_power
from captum_classpattern.comparison.task import (
    CachedScorer,
    Task,
    add_trigger,
    check_held_out,
    images_of_classes,
)
from captum_classpattern.images import LabelledImages
from captum_classpattern.scores.localisation import changed_pixels

HELD = LabelledImages(HELD_OUT, LABELS, argument="held-out images")
SOURCE = LabelledImages(SEARCH, LABELS, argument="baselines")
MASK = torch.zeros(1, 6, 6)
MASK[0, 4:, 4:] = 1
TRIGGER = Pattern(torch.ones(3, 6, 6), MASK, 1)


def task(canvases=CANVASES, targets=TARGETS, source=SOURCE, class_images=3, seed=0):
    images = images_of_classes(source, canvases, targets, count=class_images, seed=seed)
    return Task("m", canvases, targets, ["canvas"] * len(canvases), 0.1, [0.1], [seed], *images)


def places(images):
    """Which search images these are."""
    return [int((image == SEARCH).flatten(1).all(1).nonzero()) for image in images]


@pytest.mark.parametrize("count", [1, 7, 20, 50])
def test_images_of_each_class_are_chosen_at_random(count):
    built = task(class_images=count)
    assert list(built.class_images) == [0, 1, 2]
    for target, images in built.class_images.items():
        chosen = places(images)
        assert len(chosen) == len(set(chosen)) == min(count, 20)
        assert all(LABELS[i] == target for i in chosen)
    again, other = task(class_images=count), task(class_images=count, seed=1)
    for target, images in built.class_images.items():
        assert torch.equal(images, again.class_images[target])
        assert not torch.equal(images, other.class_images[target])


def test_the_other_image_of_a_class_is_not_a_canvas():
    built = task(canvases=SEARCH[:57], targets=LABELS[:57].tolist(), class_images=20)
    assert sorted(places(built.other_images.values())) == [57, 58, 59]
    for target, image in built.other_images.items():
        assert LABELS[places([image])[0]] == target
    assert not task(canvases=SEARCH, targets=LABELS.tolist(), class_images=20).other_images


def test_a_class_without_search_images_has_none():
    only = LabelledImages(SEARCH, torch.zeros(60, dtype=torch.int64), argument="baselines")
    built = task(source=only)
    assert list(built.class_images) == list(built.other_images) == [0]
    assert built.n_unstamped == 4


def test_a_trigger_adds_evenly_spaced_stamped_images_of_other_classes():
    plain = task()
    built = add_trigger(plain, TRIGGER, SOURCE, HELD_OUT, 4)
    assert torch.equal(built.trigger_pixels, changed_pixels(TRIGGER, HELD_OUT))
    assert built.n_unstamped == 4
    assert built.kinds == ["canvas"] * 4 + ["stamped"] * 4
    assert built.targets == [*TARGETS, 1, 1, 1, 1]
    assert torch.equal(built.canvases[:4], CANVASES)
    others = [i for i in range(60) if LABELS[i] != 1]
    expected = [others[place] for place in (0, 13, 26, 39)]
    assert torch.equal(built.canvases[4:], TRIGGER.stamp(SEARCH[expected]))
    assert built.trigger_area == 4 / 36
    assert [built.has_trigger_for(target) for target in (0, 1, 2)] == [False, True, False]
    assert plain.trigger_area is None
    assert not any(plain.has_trigger_for(target) for target in (0, 1, 2))
    assert add_trigger(plain, TRIGGER, SOURCE, HELD_OUT, 99).canvases.shape[0] == 44


def test_without_class_images_there_is_still_another_image():
    built = task(class_images=0)
    assert built.class_images == {}
    assert list(built.other_images) == [0, 1, 2]


# ---- scores


@pytest.mark.parametrize("net", [linear_net(), conv_net(), linear_net(dtype=torch.float64)])
def test_power_is_predictive_power(net):
    generator = torch.Generator().manual_seed(0)
    scorer, values = CachedScorer(net, HELD, CANVASES), set()
    for target in (0, 1, 2, 1, 0):
        pattern = Pattern(CANVASES[0], torch.rand(1, 6, 6, generator=generator), target).topk(0.4)
        expected = predictive_power(net, pattern, HELD_OUT, LABELS, area=None)
        assert scorer.power(pattern) == expected
        values |= {expected.value, expected.without}
    assert len(values) > 4


# ---- held-out images


@pytest.mark.parametrize("most", [1, 3, 10, 31, 60, 1000])
def test_some_images_evenly_over_all_labels(most):
    labels = torch.tensor([0] * 30 + [2] * 20 + [1] * 10)
    source = LabelledImages(HELD_OUT, labels).stratified_sample(most)
    assert len(source) == len(set(source.hashes)) == min(most, 60)
    for label, count in ((0, 30), (2, 20), (1, 10)):
        assert abs(int((source.labels == label).sum()) - len(source) * count / 60) <= 1
    where = [
        int((one == HELD_OUT).flatten(1).all(1).nonzero()) for one in next(source.in_order(99))
    ]
    assert labels[where].tolist() == source.labels[: len(where)].tolist()


def test_overlaps_are_counted_and_named():
    check_held_out(HELD, CANVASES, [0], SOURCE)
    mixed = LabelledImages(torch.cat([HELD_OUT[:5], SEARCH[7:9]]), argument="held-out images")
    with pytest.raises(ValueError, match="2 of the 7 held-out images are among the search images"):
        check_held_out(mixed.with_labels([0] * 7), CANVASES, [1], SOURCE)
    with pytest.raises(ValueError, match="canvas 1 is one of the held-out images: choose"):
        check_held_out(HELD, torch.stack([SEARCH[0], HELD_OUT[3]]), [0], SOURCE)


def test_what_cannot_be_scored_is_refused():
    check_held_out(HELD, CANVASES, [0, 1, 2, 1], SOURCE)
    with pytest.raises(ValueError, match=r"must have the canvases' shape \(3, 6, 5\), got \(3, 6"):
        check_held_out(HELD, CANVASES[..., :5], [0], SOURCE)
    ones = LabelledImages(HELD_OUT, [1] * 60, argument="held-out images")
    check_held_out(ones, CANVASES, [0, 2], SOURCE)
    with pytest.raises(ValueError, match="all 60 held-out images are of class 1: give images of"):
        check_held_out(ones, CANVASES, [0, 1], SOURCE)


def test_held_out_images_are_moved_once(monkeypatch):
    moved, to = [], LabelledImages.to
    monkeypatch.setattr(LabelledImages, "to", lambda *args: moved.append(args[1:]) or to(*args))
    scorer = CachedScorer(linear_net(dtype=torch.float64), HELD, CANVASES)
    assert scorer.images.images.dtype == torch.float64
    assert scorer.images.hashes == HELD.hashes
    scorer.power(TRIGGER)
    scorer.power(Pattern(torch.zeros(3, 6, 6), MASK, 1))
    assert moved == [(torch.device("cpu"), torch.float64)]
