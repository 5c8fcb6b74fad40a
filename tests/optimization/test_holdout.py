"""Successive halving in ClassPattern.search: which canvases are dropped, and what that saves."""

import pytest
import torch
from torch import nn

from captum_classpattern import ClassPattern, Pattern
from captum_classpattern.images import LabelledImages
from captum_classpattern.optimization.holdout import judging_subset, keep_best, weakest

IMAGES = torch.rand(60, 1, 5, 5, generator=torch.Generator().manual_seed(0))
LABELS = torch.arange(60) % 3
CANVASES = torch.rand(8, 1, 5, 5, generator=torch.Generator().manual_seed(1))


def judged(*scores):
    """Patterns of (class, power)."""
    image, mask = torch.zeros(1, 2, 2), torch.ones(1, 2, 2)
    return [Pattern(image, mask, target, {"search_power": power}) for target, power in scores]


@pytest.mark.parametrize(
    ("scores", "keep", "lost"),
    [
        ([(0, 0.1), (0, 0.4), (0, 0.3), (0, 0.2)], 1, {0, 3}),
        ([(0, 0.1), (0, 0.4), (0, 0.3), (0, 0.2)], 3, {0}),
        ([(0, 0.1), (0, 0.4), (0, 0.3), (0, 0.2)], 4, set()),
        ([(0, 0.1), (0, 0.4), (0, 0.3), (0, 0.2)], 9, set()),
        ([(0, 0.1), (0, 0.2), (0, 0.3)], 1, {0}),  # the better half of 3 is 2
        ([(0, 0.5)], 1, set()),
        ([(0, 0.5), (0, 0.5), (0, 0.5), (0, 0.5)], 1, {2, 3}),  # of equals the first stay
        ([(1, 0.1), (0, 0.9), (1, 0.2), (0, 0.8), (1, 0.0), (1, 0.3)], 1, {0, 3, 4}),
        ([(1, 0.1), (0, 0.9), (1, 0.2), (0, 0.8), (1, 0.0), (1, 0.3)], 2, {0, 4}),
    ],
)
def test_the_weaker_half_of_each_class_is_dropped(scores, keep, lost):
    assert weakest(judged(*scores), keep) == lost


def test_those_that_would_be_kept_are_not_dropped():
    scores = [(target, (7 * i) % 11 / 11) for i in range(11) for target in (0, 1)]
    patterns = judged(*scores)
    for keep in (1, 3, 6, 11):
        best = keep_best(patterns, keep, [pattern.target for pattern in patterns])
        stay = [p for i, p in enumerate(patterns) if i not in weakest(patterns, keep)]
        assert len(best) == 2 * keep
        assert all(any(pattern is other for other in stay) for pattern in best)


class Counter(nn.Module):
    """Counts the images of the passes that a gradient is wanted of: those of the search."""

    def __init__(self):
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(1)
            self.net = nn.Sequential(nn.Flatten(), nn.Linear(25, 3))
        with torch.no_grad():
            self.net[1].weight.mul_(6)
            self.net[1].bias -= self.net(IMAGES).mean(0)
        self.work = 0
        self.eval()

    def forward(self, images):
        self.work += len(images) * torch.is_grad_enabled()
        return self.net(images)


def search(canvases=CANVASES, target=0, **kwargs):
    """The patterns, and the work that went into them."""
    counter = Counter()
    settings = {"n_steps": 8, "area": 0.2, "precision": "full", **kwargs}
    patterns = ClassPattern(counter, IMAGES, LABELS).search(canvases, target, **settings)
    return patterns, counter.work


def place(pattern):
    """Which canvas it is on."""
    [found] = [i for i, canvas in enumerate(CANVASES) if torch.equal(pattern.canvas, canvas)]
    return found


# 40 sign steps of 4 are five epochs of 32; half of the canvases are dropped half through them,
# after them and after rounds 2, 4 and 6; a round shows 16 of the 32 others
@pytest.mark.parametrize(
    ("keep", "halves_of_signs", "rounds"),
    [
        (None, 8 + 8, 8 * 8),
        (1, 8 + 4, 2 * (2 + 1 + 1 + 1)),
        (2, 8 + 4, 8 * 2),
        (5, 8 + 5, 8 * 5),
        (8, 8 + 8, 8 * 8),
        (9, 8 + 8, 8 * 8),
    ],
)
def test_weak_canvases_are_dropped_early(keep, halves_of_signs, rounds):
    patterns, done = search(keep=keep)
    assert done == halves_of_signs * 80 + rounds * 16
    assert len(patterns) == min(keep or 8, 8)
    assert [pattern.info["passes"] for pattern in patterns] == [160 + 8 * 24] * len(patterns)
    together = halves_of_signs * 80 + rounds * 24  # a round is half a pass more, forward alone ...
    together += {1: 8 + 4 + 2, 2: 8 + 4, 5: 8}.get(keep, 0) * 8 // 2  # and so are 8 early judges
    assert [pattern.info["passes_together"] for pattern in patterns] == [together] * len(patterns)
    assert [len(pattern.info["loss_curve"]) for pattern in patterns] == [8] * len(patterns)


def test_the_papers_solver_searches_all_to_the_end():
    [_], done = search(keep=1, solver="paper", n_steps=16)
    assert done == 8 * 64


def test_without_keep_every_canvas_is_searched_whole_and_in_order():
    patterns, _ = search(keep=None)
    assert [place(pattern) for pattern in patterns] == list(range(8))
    assert {pattern.info["passes"] for pattern in patterns} == {160 + 8 * 24}


@pytest.mark.parametrize("keep", [1, 2, 3, 20])
def test_the_same_number_of_each_class_survives(keep):
    targets = [2, 0, 0, 0, 2, 1, 0, 0]
    patterns, _ = search(target=targets, keep=keep)
    found = [pattern.target for pattern in patterns]
    assert found == [2] * min(keep, 2) + [0] * min(keep, 5) + [1]
    for target in (0, 1, 2):
        powers = [p.info["search_power"] for p in patterns if p.target == target]
        assert powers == sorted(powers, reverse=True)
    assert all(targets[place(pattern)] == pattern.target for pattern in patterns)
    assert all(pattern.info["searched_together"] == 8 for pattern in patterns)


@pytest.mark.parametrize("seed", [0, 3])
def test_a_survivors_mask_is_that_of_a_search_alone(seed):
    targets = [2, 0, 0, 0, 2, 1, 0, 0]
    patterns, _ = search(target=targets, keep=1, seed=seed)
    assert len(patterns) == 3
    for pattern in patterns:
        i = place(pattern)
        [alone], _ = search(CANVASES[i : i + 1], targets[i], seed=seed)
        torch.testing.assert_close(pattern.mask, alone.mask, atol=1e-5, rtol=0)
        assert pattern.info["search_power"] == alone.info["search_power"]
        assert pattern.info["passes"] == alone.info["passes"]
        assert pattern.info["loss_curve"] == pytest.approx(alone.info["loss_curve"], abs=1e-5)


def test_the_survivors_judged_best_at_the_first_stop():
    """Half through the sign steps, which a search of as many by the sign alone repeats."""
    signs, _ = search(solver="paper", n_steps=20)
    lost = weakest(signs, 4)
    assert len(lost) == 4
    assert len({pattern.info["search_power"] for pattern in signs}) > 2
    kept, _ = search(keep=4)
    assert {place(pattern) for pattern in kept} == set(range(8)) - lost


@pytest.mark.parametrize(
    ("count", "left"), [(40, 40), (100, 100), (199, 100), (200, 100), (450, 90)]
)
def test_the_judging_subset_has_all_labels(count, left):
    labels = torch.randint(0, 5, (count,), generator=torch.Generator().manual_seed(0))
    judge = LabelledImages(torch.rand(count, 1, 2, 2), labels, argument="baselines")
    few = judging_subset(judge)
    assert len(few) == left
    share = left / count
    for label in range(5):
        all_of_it, kept = int((labels == label).sum()), int((few.labels == label).sum())
        assert abs(kept - share * all_of_it) <= 1


def test_all_judge_where_nearly_all_have_one_label():
    labels = torch.tensor([0] * 398 + [1] * 2)
    judge = LabelledImages(torch.rand(400, 1, 2, 2), labels, argument="baselines")
    assert judging_subset(judge) is judge


def test_additional_arguments_follow_the_survivors():
    """Each canvas has its own shift of class 0; only where it is large all say so."""
    counter = Counter()
    shifts = torch.zeros(8, 3)
    shifts[:, 0] = -100.0
    shifts[5, 0] = 100.0
    explainer = ClassPattern(lambda images, shift: counter(images) + shift, IMAGES, LABELS)
    settings = {"area": 0.2, "n_steps": 4, "additional_forward_args": shifts}
    [pattern] = explainer.search(CANVASES, 0, keep=1, **settings)
    assert place(pattern) == 5
    assert pattern.info["search_power"] == 1.0
