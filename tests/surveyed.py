"""Findings that are made up, for tests of what is done with them; and short surveys."""

import itertools
import json

import pytest
import torch
from torch import nn

from captum_classpattern._support import progress
from captum_classpattern.pattern import Pattern
from captum_classpattern.scores.examples import StampedImages
from captum_classpattern.scores.power import power_of
from captum_classpattern.surveys import Finding, Scores, survey


def stamped(pattern, labels=("cat", "owl")):
    """Images with the pattern of a finding that is made up, and predictions for them."""
    generator = torch.Generator().manual_seed(pattern.target)
    images = torch.randint(256, (2, *pattern.canvas.shape), generator=generator) / 255
    found = pattern.target, pattern.target + 1
    return StampedImages(pattern.stamp(images), labels, found, ("dog", "owl"), (0.75, 0.5), images)


def finding(target, canvas, hits, *, search_power=0.5, control=0.02, n=100, class_name=None):
    """A finding at two areas, whose first pattern turns ``hits`` of n images."""
    info = {"search_images_hash": "x", "settings": {}, "passes": 1}
    if class_name is not None:
        info["class_name"] = class_name
    patterns = {
        area: Pattern(
            torch.ones(1, 8, 8),
            torch.full((1, 8, 8), area),
            target,
            {**info, "search_power": power},
        )
        for area, power in ((0.05, search_power), (0.01, 0.0))
    }
    scores = {
        0.05: Scores(power_of(hits, n, 1), control, 0.03),
        0.01: Scores(power_of(2, n, 1), 0.0, 0.0),
    }
    return Finding(patterns, canvas, scores, class_name)


def assert_alike(findings, others):
    """The same pixels, counts and settings; opacities and margins up to rounding."""
    for one, other in zip(findings, others, strict=True):
        assert (one.target, one.canvas) == (other.target, other.canvas)
        assert one.class_name == other.class_name
        for area, pattern in one.patterns.items():
            same, scores = other.patterns[area], other.scores[area].as_columns()
            assert one.scores[area].as_columns() == pytest.approx(scores, abs=1e-5)
            assert pattern.seen == same.seen
            settings = [json.dumps(each.info["settings"]) for each in (pattern, same)]
            assert settings[0] == settings[1]  # in a file, pairs are lists
            assert torch.equal(pattern.mask > 0, same.mask > 0)
            torch.testing.assert_close(pattern.mask, same.mask, atol=1e-4, rtol=0)
            torch.testing.assert_close(pattern.canvas, same.canvas, atol=1e-4, rtol=0)


# ---- and short surveys of a small model


SEARCH, HELD_OUT = torch.rand(2, 60, 1, 6, 6, generator=torch.Generator().manual_seed(0))
LABELS = torch.arange(60) % 3


def network():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Flatten(), nn.Linear(36, 3)).eval()
    with torch.no_grad():
        net[1].weight.mul_(3)
    return net


NET = network()


def begun(net=NET, search=SEARCH, held_out=HELD_OUT, **settings):
    """A short survey of three classes on two kinds of canvas."""
    settings = {"areas": (0.2, 0.1), "classes_together": 1, **settings}
    settings = {"canvases": {"positive": 1, "white": 1}, "n_steps": 1, **settings}
    return survey(net, (search, LABELS), (held_out, LABELS), **settings)


def error_of_bar(net, *images, **settings):
    """How far the bar of a survey is from the share of its passes that are spent, at most. A pass
    is one image forward and back; without gradients it is half of one."""
    spent, shown = [], []

    def counted(pixels):
        spent.append(len(pixels) * (1 if pixels.requires_grad else 0.5))
        bar, _ = progress._bar.get()
        shown.append(0 if bar is None else bar.n)  # None: the model is checked
        return net(pixels)

    survey(counted, *images, show_progress=True, **settings)
    shares = (part / sum(spent) for part in itertools.accumulate(spent))
    return max(abs(place - share) for place, share in zip(shown, shares))
