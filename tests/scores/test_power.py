"""Predictive power is that of a plain loop, of one pattern or of many, and beats its controls if
each interval of a difference says so."""

import json

import pytest
import torch
from entered import entered
from hypothesis import example, given, settings
from hypothesis import strategies as st
from refusals import refusals
from torch import Tensor, nn

import captum_classpattern.scores.power as power_module
from captum_classpattern import LabelledImages, Pattern, predictive_power
from captum_classpattern.scores import PredictivePower, Scores
from captum_classpattern.scores.intervals import newcombe, wilson
from captum_classpattern.scores.power import Scorer, StampTest, judge_each, power_of, random_pixels

IMAGES = torch.rand(81, 1, 4, 5, generator=torch.Generator().manual_seed(0))
LABELS = torch.arange(81) % 3


class Net(nn.Module):
    """A linear classifier that predicts each class for some images, and counts its images."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(1)
        self.layers = nn.Sequential(nn.Flatten(), nn.Linear(20, 3)).eval()
        with torch.no_grad():
            self.layers[1].bias -= self.layers(IMAGES).mean(0)
        self.images = 0

    def forward(self, images):
        self.images += len(images)
        return self.layers(images)


NET = Net().eval()


def random_pattern(target=1, seed=2, **kwargs):
    generator = torch.Generator().manual_seed(seed)
    canvas, mask = (torch.rand(1, 4, 5, generator=generator) for _ in range(2))
    return Pattern(canvas, mask, target, **kwargs)


def patterns(**kwargs):
    return [random_pattern(target, seed, **kwargs) for seed, target in enumerate((0, 1, 2, 1))]


def power(pattern=None, images=IMAGES, labels=LABELS, net=NET, **kwargs):
    return predictive_power(net, pattern or random_pattern(), images, labels, **kwargs)


def plain_power(pattern, labels, area):
    """One image at a time."""
    mask = (pattern if area is None else pattern.topk(area)).mask
    hits = bare = n = 0
    margins = []
    for image, label in zip(IMAGES, labels.tolist()):
        if label == pattern.target:
            continue
        stamped = mask * pattern.canvas + (1 - mask) * image
        hits += int(NET(stamped[None]).argmax()) == pattern.target
        others = NET(stamped[None])[0].tolist()
        margins.append(others.pop(pattern.target) - max(others))
        bare += int(NET(image[None]).argmax()) == pattern.target
        n += 1
    mean = pytest.approx(sum(margins) / n, abs=1e-5)
    return PredictivePower(hits / n, wilson(hits, n), n, bare / n, None, mean)


@pytest.mark.parametrize("target", range(3))
@pytest.mark.parametrize("size", [1, 7, 81])
def test_margins_are_those_of_a_plain_loop(target, size):
    """Of a class its logit less the largest other one, whatever the batches are."""
    logits = [row.tolist() for row in NET(IMAGES).detach()]
    margins = [row.pop(target) - max(row) for row in logits]
    images = LabelledImages(IMAGES)
    test, model = StampTest(Tensor.detach, target, images), entered(NET, IMAGES)
    [(hits, margin, top5)] = judge_each(model, [test], size)
    assert hits == sum(each > 0 for each in margins)
    assert margin == pytest.approx(sum(margins) / len(margins), abs=1e-6)
    none = StampTest(Tensor.detach, target, images.subset([]))
    assert judge_each(model, [none]) == [(0, 0, None)]
    assert top5 is None


def test_the_share_among_the_five_first_is_that_of_a_plain_loop():
    numbered = LabelledImages((torch.arange(50) / 50).view(50, 1, 1, 1))
    logits = torch.randn(50, 30, generator=torch.Generator().manual_seed(0))
    judged = StampTest(lambda part: logits[(part[:, 0, 0, 0] * 50).round().long()], 4, numbered)
    [found] = judge_each(entered(lambda part: part, logits), [judged], 7)
    ranks = [row.argsort(descending=True).tolist().index(4) for row in logits]
    assert found.top5 == sum(rank < 5 for rank in ranks) > found.hits == ranks.count(0)


@pytest.mark.parametrize(("most", "sizes"), [(40, [30, 20, 25, 36]), (200, [111])])
def test_patterns_that_share_calls_get_the_hits_of_each_alone(most, sizes, monkeypatch):
    """As on a device that is no CPU."""
    judged = [
        StampTest(Tensor.neg, target, LabelledImages(IMAGES).subset(range(*places)))
        for target, places in [(1, (30,)), (0, (30, 50)), (0, (0,)), (2, (20, 81))]
    ]
    given, calls = [], power_module._calls

    def shared(judged, device, dtype, size):
        return calls(judged, torch.device("meta"), dtype, size)

    def net(images):
        given.append(len(images))
        return NET(images)

    model = entered(net, IMAGES)
    given.clear()
    alone = [judge_each(model, [each], 25)[0] for each in judged]
    assert given == [25, 5, 20, 25, 25, 11]
    given.clear()
    monkeypatch.setattr(Tensor, "to", lambda images, *place, **how: images)
    monkeypatch.setattr(power_module, "_calls", shared)
    monkeypatch.setattr(power_module, "images_at_once", lambda device: most)
    monkeypatch.setattr(LabelledImages, "in_order", lambda each, *_: each.images.split(25))
    together = judge_each(model, judged)
    assert given == sizes
    for one, other in zip(together, alone, strict=True):
        assert (one.hits, one.top5) == (other.hits, None)
        assert one.margin == pytest.approx(other.margin, abs=1e-6)


# ---- one pattern


@pytest.mark.parametrize("area", [0.05, 0.5, None])
@pytest.mark.parametrize("labels", [LABELS, None])
def test_powers_are_those_of_a_plain_loop(area, labels):
    known = NET(IMAGES).argmax(1) if labels is None else labels
    expected = [plain_power(pattern, known, area) for pattern in patterns()]
    assert [power(pattern, labels=labels, area=area) for pattern in patterns()] == expected
    scorer = Scorer(entered(NET, IMAGES), LabelledImages(IMAGES, labels))  # of all classes
    binary = [pattern if area is None else pattern.topk(area) for pattern in patterns()]
    assert [scorer.power(pattern) for pattern in binary] == expected
    assert len({each.value for each in expected}) > 1
    assert any(each.without > 0 for each in expected) == (labels is not None)
    for each in expected:
        assert float(each) == each.value


def test_labelled_images_and_other_precisions_give_the_same_power():
    assert power(images=LabelledImages(IMAGES, LABELS), labels=None) == power()
    half = power(net=Net().eval().bfloat16(), area=0.5)
    assert half.value == pytest.approx(power(area=0.5).value, abs=0.1)


SEEN = frozenset(LabelledImages(IMAGES[:40], LABELS[:40]).hashes)
OF_CLASS_1 = frozenset(LabelledImages(IMAGES[1:2], LABELS[1:2]).hashes)
REFUSALS = {
    "images of the search": lambda: power(random_pattern(seen=SEEN), IMAGES[38:], LABELS[38:]),
    "images of the search that are not known": lambda: power(random_pattern(seen=None)),
    "no images of other classes": lambda: power(labels=[1] * 81),
    "images of another size": lambda: power(images=torch.rand(81, 1, 5, 5)),
    "too small an area": lambda: power(area=0.01),
    "no random pixels": lambda: random_pixels(random_pattern(), 0.0, 1),
}


def test_refusals(snapshot):
    assert refusals(REFUSALS) == snapshot


def test_other_images_than_those_of_the_search_are_scored():
    rest = IMAGES[40:], LABELS[40:]
    assert power(random_pattern(seen=SEEN), *rest) == power(random_pattern(), *rest)
    assert power(random_pattern(seen=OF_CLASS_1)) == power()  # of its own class, so left out


def test_random_pixels_are_as_many_and_each_equally_likely():
    pattern = random_pattern(info={"seed": 1})
    first, again, other = (random_pixels(pattern, 0.25, seed) for seed in (1, 1, 2))
    assert first.mask.sum() == 5
    assert set(first.mask.unique().tolist()) == {0.0, 1.0}
    assert torch.equal(first.mask, again.mask)
    assert not torch.equal(first.mask, other.mask)
    assert first.canvas is pattern.canvas
    assert (first.target, first.mask.shape) == (pattern.target, pattern.mask.shape)
    masks = [random_pixels(pattern, 0.25, seed).mask for seed in range(200)]
    assert (torch.stack(masks).mean(0) - 0.25).abs().max() < 0.12  # 4 standard deviations


# ---- a power next to its controls


LARGE, SMALL = st.integers(0, 150), st.integers(0, 60)


@given(hits=LARGE, without=LARGE, random=SMALL, other=st.none() | SMALL)
@example(hits=60, without=40, random=0, other=None)  # with 60 images, 40 of 150 would not do
@settings(max_examples=60, deadline=None, derandomize=True)
def test_a_power_beats_its_controls_if_each_interval_is_above_0(hits, without, random, other):
    shares = [None if count is None else count / 60 for count in (random, other)]
    scores = Scores(power_of(hits, 150, without), *shares, control_images=60)
    counts = {"no pattern": (without, 150), "random pixels": (random, 60)}
    counts |= {} if other is None else {"other canvas": (other, 60)}
    assert scores.controls == {name: count / n for name, (count, n) in counts.items()}
    assert scores.strongest_control == max(count / n for count, n in counts.values())
    expected = all(newcombe(hits, 150, *count)[0] > 0 for count in counts.values())
    assert scores.beats_controls == expected
    assert Scores.from_dict(json.loads(json.dumps(scores.as_dict()))) == scores
    columns = {
        "power": hits / 150,
        "no_pattern": without / 150,
        "random_pixels": shares[0],
        **({} if shares[1] is None else {"other_canvas": shares[1]}),
        "control": max(without / 150, shares[0], shares[1] or 0),
        "beats_controls": expected,
    }
    assert columns.items() <= scores.as_columns().items()


@pytest.mark.parametrize("n", [49, 98, 103])
def test_the_interval_of_a_mean_of_counts_is_that_of_the_nearest_whole_number(n):
    for half in range(1, 2 * n, 2):
        assert power_of(half / 2, n, 0).interval == wilson(round(half / 2), n)
