"""A pool of canvases: who competes, what it costs, who is dropped, and that the survivors do not
notice."""

import time

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from plain_swaps import plain_areas
from torch import nn

from captum_classpattern import ClassPattern, search_masks
from captum_classpattern.images import LabelledImages
from captum_classpattern.optimization import PaperLoop, Swap
from captum_classpattern.optimization.contest import (
    SCREENED,
    SCREENING_JUDGES,
    Contest,
    Pool,
    most_canvases,
)
from captum_classpattern.optimization.holdout import judging_subset, split_for_judging
from captum_classpattern.optimization.masks import strongest
from captum_classpattern.optimization.run import begin_search
from captum_classpattern.optimization.schedule import Stream
from captum_classpattern.optimization.search import Search
from captum_classpattern.optimization.settings import SearchSettings
from captum_classpattern.optimization.solvers.shrink import Shrink

IMAGES = torch.rand(3000, 1, 5, 5, generator=torch.Generator().manual_seed(0))
LABELS = torch.arange(3000) % 3
CANVASES = torch.rand(8, 1, 5, 5, generator=torch.Generator().manual_seed(1))
JUDGES = split_for_judging(LabelledImages.of(IMAGES, LABELS), 0)[1]


def blank(*colours):
    return torch.stack([torch.full((1, 5, 5), colour) for colour in colours])


class Counter(nn.Module):
    """Counts the images of the passes that a gradient is wanted of, and of the others."""

    def __init__(self):
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(1)
            self.net = nn.Sequential(nn.Flatten(), nn.Linear(25, 3))
        with torch.no_grad():
            self.net[1].weight.mul_(6)
            self.net[1].bias -= self.net(IMAGES).mean(0)
        self.passes = 0
        self.eval()

    def forward(self, images):
        self.passes += len(images) * torch.is_grad_enabled()
        return self.net(images)


def search(canvases=CANVASES, target=0, **kwargs):
    """The patterns, and how many passes with a gradient they took."""
    counter = Counter()
    settings = {"precision": "full", **kwargs}
    if not {"n_steps", "budget"} & set(settings):
        settings["n_steps"] = 4
    patterns = search_of(ClassPattern(counter, IMAGES, LABELS), canvases, target, **settings)
    return patterns, counter.passes


def search_of(explainer, canvases, target, **settings):
    """The patterns at an area, or at several."""
    if "areas" in settings:
        return explainer.search_areas(canvases, target, **settings)
    return explainer.search(canvases, target, **{"area": 0.2, **settings})


def place(pattern, canvases=CANVASES):
    """Which canvas it is on."""
    [found] = [i for i, canvas in enumerate(canvases) if torch.equal(pattern.canvas, canvas)]
    return found


def conv_net():
    """In float64, so that sums in another order make no difference to a mask."""
    with torch.random.fork_rng():
        torch.manual_seed(2)
        layers = [nn.Conv2d(1, 4, 3), nn.Tanh(), nn.Flatten(), nn.Linear(36, 3)]
    net = nn.Sequential(*layers).double().eval()
    with torch.no_grad():
        net[0].weight.mul_(4)
        net[3].weight.mul_(4)
        net[3].bias -= net(IMAGES.double()).mean(0)
    return net


CONV_NET = conv_net()
FEW = LabelledImages.of(IMAGES[:600], LABELS[:600])


def conv_search(canvases, target, **kwargs):
    kwargs = {"n_steps": 4, "precision": "full", **kwargs}
    return search_of(ClassPattern(CONV_NET, FEW), canvases, target, **kwargs)


def plain_search(canvas, target, rounds, seed, **kwargs):
    """What plain swaps find, area by area."""
    fit, _ = split_for_judging(FEW, seed)
    images, labels = fit.images.double(), fit.known_labels.tolist()
    return plain_areas(
        CONV_NET, canvas.double(), target, images, labels, rounds, seed=seed, **kwargs
    )


def assert_same(found, expected):
    """Of two lists of patterns."""
    assert [pattern.target for pattern in found] == [pattern.target for pattern in expected]
    for one, other in zip(found, expected):
        assert torch.equal(one.canvas, other.canvas)
        assert same_masks(one.mask, other.mask)


def same_masks(one, other):
    """The same pixels, and the same weights up to rounding."""
    other = torch.as_tensor(other, dtype=one.dtype).view(one.shape)
    return torch.equal(one > 0, other > 0) and torch.allclose(one, other, atol=1e-4, rtol=0)


def pool(canvases, targets, keep, judges=JUDGES, **settings):
    return Pool(canvases, targets, SearchSettings(keep=keep, **settings), judges)


def entrants(canvases, targets, keep):
    return [
        (entrant.canvas, entrant.stream.start) for entrant in pool(canvases, targets, keep).entrants
    ]


def test_every_canvas_starts_once_and_a_blank_one_twice():
    canvases = torch.cat([CANVASES[:2], blank(1.0), CANVASES[2:3]])
    for keep in (None, 1, 3):
        found = entrants(canvases, [0, 1, 0, 0], keep)
        assert found == [(0, 0), (1, 0), (2, 0), (2, 1), (3, 0)]


def test_copies_of_a_blank_canvas_are_further_starts_where_they_compete():
    canvases = blank(1.0, 0.0, 1.0, 1.0, 1.0)
    competing = entrants(canvases, [0, 0, 0, 0, 1], 1)
    assert competing == [(0, 0), (0, 1), (1, 0), (1, 1), (3, 2), (4, 0), (4, 1)]
    alone = entrants(canvases, [0, 0, 0, 0, 1], None)
    assert alone == [(canvas, start) for canvas in range(5) for start in (0, 1)]


def test_copies_of_a_photo_do_not_compete():
    canvases = CANVASES[[0, 0, 1, 0]]
    assert entrants(canvases, [0] * 4, 2) == [(0, 0), (2, 0)]
    assert entrants(canvases, [0, 1, 0, 1], 2) == [(0, 0), (1, 0), (2, 0)]
    assert entrants(canvases, [0] * 4, None) == [(0, 0), (1, 0), (2, 0), (3, 0)]
    patterns, _ = search(CANVASES[[0, 0]], keep=2)
    assert len(patterns) == 1


def test_a_blank_canvas_starts_once_where_nothing_could_judge():
    without = LabelledImages.of(IMAGES[:4], torch.zeros(4, dtype=torch.int64))
    found = pool(blank(1.0, 1.0), [0, 1], None, without).entrants
    assert [entrant.stream.start for entrant in found] == [0, 0, 1]


def test_no_more_patterns_than_canvases():
    assert pool(blank(1.0), [0], 5).kept == {0: 1}
    assert pool(CANVASES, [0] * 5 + [1] * 3, 4).kept == {0: 4, 1: 3}
    patterns, _ = search(blank(1.0), keep=5)
    assert len(patterns) == 1


# a round is 4 batches of 16, after 25 batches of 4; judged after 2 of 4 rounds
@pytest.mark.parametrize(
    ("keep", "rounds"),
    [(None, 8 * 4), (1, 2 + 2 + 1 + 1), (2, 4 + 4 + 2 + 2), (3, 6 + 6 + 3 + 3), (8, 8 * 4)],
)
def test_weak_canvases_are_dropped_early(keep, rounds):
    patterns, done = search(keep=keep)
    screened = 8 if keep in (1, 2, 3) else 0
    starts = 2 * keep if screened else 8
    assert done == screened * 40 + starts * 100 + rounds * 64
    assert len(patterns) == (keep or 8)
    passes = 100 + 4 * 64 + 40 * bool(screened)
    assert [pattern.info["passes"] for pattern in patterns] == [passes] * len(patterns)
    few = len(judging_subset(JUDGES, 100).without_class(0))
    screening = screened * len(judging_subset(JUDGES, SCREENING_JUDGES).without_class(0))
    together = done + (starts * few + screening + 1) // 2
    assert [pattern.info["passes_together"] for pattern in patterns] == [together] * len(patterns)
    assert [len(pattern.info["loss_curve"]) for pattern in patterns] == [4] * len(patterns)


@pytest.mark.parametrize("keep", [None, 1, 2])
@pytest.mark.parametrize("budget", [3_000, 5_000, 12_000])
def test_a_budget_is_used_and_not_exceeded(budget, keep):
    patterns, _ = search(keep=keep, budget=budget)
    steps = patterns[0].info["settings"]["n_steps"]
    per_step = {None: 8 * 84, 1: 2 * 84, 2: 4 * 84}[keep]
    # it is reckoned as if all judging images were of other classes; a third is not
    judged = {None: 8, 1: 2, 2: 4}[keep] * len(judging_subset(JUDGES, 100))
    judged += len(judging_subset(JUDGES, SCREENING_JUDGES)) * (8 if keep else 0)
    assert budget - per_step - judged / 6 < patterns[0].info["passes_together"] <= budget
    again, _ = search(keep=keep, n_steps=steps)
    assert [torch.equal(a.mask, b.mask) for a, b in zip(patterns, again)] == [True] * len(patterns)
    assert [p.info["settings"]["budget"] for p in patterns] == [budget] * len(patterns)


@pytest.mark.parametrize("budget", [430, 500, 645, 650, 860, 1_000, 2_000, 7_000])
def test_a_budget_suffices_for_its_number_of_canvases(budget):
    """With 100 judging images, which is the most."""
    n = most_canvases(budget)
    for canvases in (CANVASES[:1].expand(n, -1, -1, -1), blank(1.0)):
        assert pool(canvases, [0] * len(canvases), 1, budget=budget).steps() >= 1


def test_the_number_of_steps_is_that_of_each_class_alone():
    """Whatever share of the images is of the class."""
    few = LabelledImages(JUDGES.images, torch.arange(len(JUDGES.images)) % 10 // 9)
    for budget in (2_000, 7_000):
        alone = [pool(CANVASES, [y] * 8, 1, few, budget=budget).steps() for y in (0, 1)]
        targets, canvases = [0] * 8 + [1] * 8, torch.cat([CANVASES, CANVASES])
        both = pool(canvases, targets, 1, few, budget=budget).steps()
        assert alone == [both, both]


def test_a_budget_is_for_as_many_patterns_as_can_be_kept():
    three = pool(CANVASES[:3], [0] * 3, 3).steps()
    assert pool(CANVASES[:3], [0] * 3, 10).steps() == three


class Shifted(Counter):
    """Adds a further argument to the logits."""

    def forward(self, images, shift):
        return super().forward(images) + shift


@pytest.mark.parametrize("shape", [(2,), (3,), (1, 3)])
def test_a_shared_tensor_stays_whole_on_a_blank_canvas(shape):
    shift = torch.zeros(shape)
    explainer = ClassPattern(Shifted() if shape[-1] == 3 else Summed(), IMAGES, LABELS)
    [pattern] = explainer.search(
        blank(1.0), 0, area=0.2, n_steps=2, additional_forward_args=shift, precision="full"
    )
    assert pattern.topk(0.2).mask.sum() == 5
    assert "starts_iou" not in pattern.info  # Tensors may differ from canvas to canvas


class Summed(Counter):
    def forward(self, images, shift):
        return super().forward(images) + shift.sum()


def test_copies_of_a_blank_canvas_with_rows_of_their_own_all_compete():
    shift = torch.tensor([[-100.0, 0, 0], [100.0, 0, 0]])
    explainer = ClassPattern(Shifted(), IMAGES, LABELS)
    [best] = explainer.search(
        blank(1.0, 1.0), 0, keep=1, area=0.2, n_steps=2, additional_forward_args=shift,
        precision="full",
    )  # fmt: skip
    assert best.info["search_power"] == 1


def test_a_budget_is_for_each_class():
    for targets in ([0] * 8, [0, 1] * 4):
        _, done = search(target=targets, keep=1, budget=4_000)
        assert done <= 4_000 * len(set(targets))
    assert done > 2 * 3_000


def test_the_budget_of_attribute_is_for_each_input():
    counter = Counter()
    explainer = ClassPattern(counter, IMAGES, LABELS)
    explainer.attribute(CANVASES[:3], 0, area=0.2, budget=1_000, precision="full")
    assert 3 * (1_000 - 64 - 20 - 100) < counter.passes <= 3 * 1_000
    one = Counter()
    ClassPattern(one, IMAGES, LABELS).attribute(
        CANVASES[:1], 0, area=0.2, budget=1_000, precision="full"
    )
    assert counter.passes == 3 * one.passes
    with pytest.raises(
        ValueError, match=r"one step on each canvas takes \d+ passes; give a larger"
    ):
        explainer.attribute(CANVASES[:3], 0, area=0.2, budget=10)


def test_the_default_budget_is_that_of_the_solver_for_each_pattern_that_is_kept():
    for keep in (1, 2):
        steps = pool(CANVASES, [0] * 8, keep).steps()
        assert steps == pool(CANVASES, [0] * 8, keep, budget=7_000 * keep).steps()
    assert pool(CANVASES, [0] * 8, None).steps() is None
    published = pool(CANVASES, [0] * 8, 1, solver="paper").steps()
    assert published is None  # its length is the published one


def test_the_steps_override_the_budget():
    patterns, _ = search(keep=1, n_steps=3, budget=50_000)
    assert patterns[0].info["settings"]["n_steps"] == 3


def test_the_papers_loop_has_a_budget_too():
    patterns, done = search(CANVASES[:3], solver="paper", budget=600)
    assert done == 600
    assert [pattern.info["passes"] for pattern in patterns] == [200] * 3


def test_a_budget_that_is_too_small():
    text = (
        r"`budget=500` is too small: one step on each canvas takes \d{3} passes per class; give a "
        "larger `budget` or fewer canvases"
    )
    with pytest.raises(ValueError, match=text):
        search(keep=1, budget=500)


def test_a_solver_without_known_passes_has_no_budget():
    class Fixed:
        name, accelerates = "fixed", False

        def run(self, search):
            yield from ()

    text = r"solver='fixed' does not say how many passes .* `n_steps`"
    with pytest.raises(ValueError, match=text):
        search(solver=Fixed(), budget=500)


def test_without_keep_every_canvas_is_searched_whole_and_in_order():
    patterns, _ = search()
    assert [place(pattern) for pattern in patterns] == list(range(8))
    assert {pattern.info["passes"] for pattern in patterns} == {100 + 4 * 64}


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
@pytest.mark.parametrize("targets", [[0] * 8, [2, 0, 0, 0, 2, 1, 0, 0]])
def test_a_survivors_mask_is_that_of_a_search_alone(targets, seed):
    """Screened or not: the screening has its own stream of baselines."""
    patterns, _ = search(target=targets, keep=1, seed=seed)
    assert len(patterns) == len(set(targets))
    for pattern in patterns:
        i = place(pattern)
        [alone], _ = search(CANVASES[i : i + 1], targets[i], seed=seed)
        torch.testing.assert_close(pattern.mask, alone.mask, atol=1e-5, rtol=0)
        assert pattern.info["search_power"] == alone.info["search_power"]
        assert pattern.info["loss_curve"] == pytest.approx(alone.info["loss_curve"], abs=1e-5)


@pytest.mark.parametrize("size", [7, 64])
def test_a_pool_finds_the_same_for_any_internal_batch_size(size):
    [one], _ = search(keep=1, seed=1)
    [other], _ = search(keep=1, seed=1, internal_batch_size=size)
    assert place(one) == place(other)
    torch.testing.assert_close(one.mask, other.mask, atol=1e-5, rtol=0)


PICTURES = torch.cat([CANVASES[:4], blank(0.0, 0.8)])


@st.composite
def pools(draw, fewest_classes=1):
    """Canvases of up to three classes, some of them blank, some of them equal, and settings."""
    classes = draw(st.integers(fewest_classes, 3))
    count = draw(st.integers(classes, 6))
    length = {"min_size": count - classes, "max_size": count - classes}
    targets = [*range(classes), *draw(st.lists(st.integers(0, classes - 1), **length))]
    pictures = draw(st.lists(st.integers(0, 5), min_size=count, max_size=count))
    kwargs = {
        "keep": draw(st.sampled_from([1, 2, None])),
        "n_steps": draw(st.integers(1, 3)),
        "seed": draw(st.integers(0, 5)),
        "internal_batch_size": draw(st.sampled_from([None, 7, 16, 100])),
    }
    return PICTURES[pictures], targets, kwargs


some_pools = settings(max_examples=12, deadline=None, derandomize=True)


@some_pools
@given(drawn=pools(2), areas=st.sampled_from([(0.48, 0.2), (0.2,)]))
def test_classes_together_give_the_patterns_of_each_class_alone(drawn, areas):
    canvases, targets, kwargs = drawn
    classes = {y: canvases[torch.tensor(targets) == y] for y in targets}
    if len({is_screened(own, [y] * len(own), kwargs["keep"]) for y, own in classes.items()}) > 1:
        areas = areas[:1]  # at a smaller one, those that are not screened would not go on
    together = conv_search(canvases, targets, areas=areas, **kwargs)
    for target, own in classes.items():
        alone = conv_search(own, target, areas=areas, **kwargs)
        for area in areas:
            assert_same([p for p in together[area] if p.target == target], alone[area])


def is_screened(canvases, targets, keep):
    found = pool(canvases, targets, keep)
    return found.crowded(range(len(found.entrants)), SCREENED) != []


@some_pools
@given(drawn=pools(), size=st.sampled_from([5, 40]))
def test_any_pool_is_the_same_for_any_internal_batch_size(drawn, size):
    canvases, targets, kwargs = drawn
    other = {**kwargs, "internal_batch_size": size}
    assert_same(conv_search(canvases, targets, **kwargs), conv_search(canvases, targets, **other))


@some_pools
@given(drawn=pools())
def test_each_pattern_of_a_pool_is_that_of_one_of_its_entrants_alone(drawn):
    canvases, targets, kwargs = drawn
    keep = kwargs.pop("keep")
    left = pool(canvases, targets, keep).entrants
    for pattern in conv_search(canvases, targets, keep=keep, **kwargs):
        found = next(
            entrant
            for entrant in left
            if entrant.stream.target == pattern.target
            and torch.equal(canvases[entrant.canvas], pattern.canvas)
            and same_masks(pattern.mask, mask_of(pattern.canvas, entrant.stream, kwargs))
        )
        left.remove(found)


def mask_of(canvas, stream, kwargs):
    """The mask of one canvas that meets one stream of baselines."""
    fit, _ = split_for_judging(FEW, kwargs["seed"])
    chosen = SearchSettings(areas=[0.2], precision="full", **kwargs)
    search = begin_search(CONV_NET, canvas[None], [stream], fit, chosen)
    search.finish()
    return search.masks[0]


def test_smaller_areas_are_the_same_alone_and_together():
    settings = {"areas": (0.48, 0.2, 0.08), "n_steps": 4}
    together, _ = search(CANVASES[:3], [0, 1, 0], **settings)
    for i, target in enumerate([0, 1, 0]):
        alone, _ = search(CANVASES[i : i + 1], target, **settings)
        for area, [pattern] in alone.items():
            torch.testing.assert_close(pattern.mask, together[area][i].mask, atol=1e-5, rtol=0)


@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize("kind", ["photos", "blank"])
def test_a_survivors_masks_at_all_areas_are_those_of_a_search_alone(kind, seed):
    """Where no canvas is screened: two photos of each of two classes, or two and a blank one."""
    settings = {"areas": (0.48, 0.2), "seed": seed}
    if kind == "photos":
        found = conv_search(CANVASES[:4], [0, 0, 1, 1], keep=1, **settings)
    else:
        found = conv_search(torch.cat([CANVASES[:2], blank(0.0)]), 0, keep=2, **settings)
        assert sum(not pattern.canvas.any() for pattern in found[0.2]) == 1
    for area, patterns in found.items():
        assert len(patterns) == 2
        for pattern in patterns:
            assert len(pattern.info["loss_curve"]) == {0.48: 4, 0.2: 3}[area]
            alone = conv_search(pattern.canvas[None], pattern.target, **settings)
            assert_same([pattern], alone[area])


def plain_shrink(net, canvas, target, baselines, labels, *, kept):
    """The screening of one canvas, image by image."""
    order = np.random.default_rng([0, 0]).permutation(len(baselines))
    others = [i for i in order if labels[i] != target]
    half, pixels = canvas[0].numel() / 2, canvas[0].numel()
    mask, trend = torch.full((pixels,), 0.5).double(), torch.zeros(pixels).double()
    for step in range(10):
        m, total = mask.clone().requires_grad_(), 0
        for i in others[4 * step : 4 * step + 4]:
            stamped = m.view(1, *canvas.shape[1:]) * canvas + (1 - m.view(1, 5, 5)) * baselines[i]
            p = net(stamped[None].double())[0].softmax(0)[target]
            total = total + (-p.log() if step < 2 else 1 - p.sqrt()) / 4
        (slope,) = torch.autograd.grad(total, m)
        trend = trend + slope / slope.norm()
        left = round(half * (kept / half) ** (step / 9))
        mask = torch.zeros(pixels).double()
        mask[sorted(range(pixels), key=lambda i: (trend[i], i))[:left]] = 1
    return mask.view(1, *canvas.shape[1:])


def test_the_screening_equals_a_plain_one():
    net = Counter().double()
    masks = search_masks(
        Counter(), CANVASES, 0, IMAGES, baseline_labels=LABELS, solver=Shrink(), area=0.2
    ).masks
    for canvas, mask in zip(CANVASES, masks):
        expected = plain_shrink(net, canvas.double(), 0, IMAGES.double(), LABELS, kept=5)
        assert torch.equal(mask.double(), expected)


def test_those_with_the_lowest_loss_on_judging_images_pass_the_screening():
    net = Counter()
    fit, judges = split_for_judging(LabelledImages.of(IMAGES, LABELS), 0)
    few = judging_subset(judges, SCREENING_JUDGES).without_class(0)
    masks = search_masks(net, CANVASES, 0, fit, solver=Shrink(), area=0.2).masks
    losses = []
    for canvas, mask in zip(CANVASES, masks):
        with torch.no_grad():
            p = net(torch.where(mask > 0, canvas, few.images)).softmax(1)[:, 0]
        losses.append(float((1 - p.sqrt()).mean()))
    passed = sorted(sorted(range(8), key=losses.__getitem__)[:2])
    explainer = ClassPattern(net, IMAGES, LABELS)
    seen = []
    original = Contest._judge

    def spy(self, *arguments):
        seen.append(list(self.search.rows))
        return original(self, *arguments)

    Contest._judge = spy
    try:
        explainer.search(CANVASES, 0, keep=1, area=0.2, n_steps=4, precision="full")
    finally:
        Contest._judge = original
    assert seen[0] == passed
    assert [len(rows) for rows in seen] == [2, 1]


def test_the_papers_solver_searches_what_was_screened_to_the_end():
    [_], done = search(keep=1, solver="paper", n_steps=16)
    assert done == 8 * 40 + 2 * 64


@pytest.mark.parametrize(
    ("count", "left"), [(40, 40), (100, 100), (199, 100), (200, 100), (450, 90)]
)
def test_the_judging_subset_has_all_labels(count, left):
    labels = torch.randint(0, 5, (count,), generator=torch.Generator().manual_seed(0))
    judge = LabelledImages(torch.rand(count, 1, 2, 2), labels, argument="baselines")
    few = judging_subset(judge, 100)
    assert len(few) == left
    share = left / count
    for label in range(5):
        all_of_it, kept = int((labels == label).sum()), int((few.labels == label).sum())
        assert abs(kept - share * all_of_it) <= 1


def test_all_judge_where_nearly_all_have_one_label():
    labels = torch.tensor([0] * 398 + [1] * 2)
    judge = LabelledImages(torch.rand(400, 1, 2, 2), labels, argument="baselines")
    assert judging_subset(judge, 100) is judge


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


def test_a_blank_canvas_gives_the_better_of_its_two_starts():
    canvases = torch.cat([blank(1.0), CANVASES[:1]])
    patterns, _ = search(canvases, seed=2)
    assert [place(pattern, canvases) for pattern in patterns] == [0, 1]
    first, other = patterns
    assert "starts_iou" not in other.info
    assert 0 <= first.info["starts_iou"] <= 1
    assert first.info["settings"]["n_steps"] == 4


def plain_power(mask, canvas, target, judges):
    """The share of the images of other classes that the mask's pixels turn into the target."""
    hits = []
    for image, label in zip(judges.images, judges.known_labels):
        if label != target:
            stamped = torch.where(torch.from_numpy(mask > 0), canvas, image)
            hits.append(int(CONV_NET(stamped[None].double()).argmax()) == target)
    return sum(hits) / len(hits)


@pytest.mark.parametrize(
    ("kind", "target", "seed", "better"),
    [
        ("photos", 0, 4, 0),
        ("photos", 1, 0, 0),  # the other one would be better at the end
        ("photos", 2, 0, 1),
        ("photos", 0, 5, 1),
        ("blank", 1, 3, 0),
        ("blank", 1, 2, 1),  # the other one would be better at the end
        ("blank", 0, 6, 1),  # the other one would be better at the end
        ("blank", 1, 6, 0),  # they are equal, so the first one stays
    ],
)
def test_what_survives_is_the_better_one_half_way(kind, target, seed, better):
    """Of two photos, or of the two starts of a blank canvas."""
    canvases = CANVASES[:2] if kind == "photos" else blank(0.8)
    few, powers, masks = judging_subset(split_for_judging(FEW, seed)[1], 100), [], []
    for canvas, start in zip(canvases.expand(2, -1, -1, -1), [0, int(kind == "blank")]):
        [plain] = plain_search(canvas, target, 4, seed, areas=[0.2], start=start)
        powers.append(plain_power(plain.half_way, canvas, target, few))
        masks.append(plain.mask)
    assert powers.index(max(powers)) == better
    [survivor] = conv_search(canvases, target, keep=1, seed=seed)
    assert [same_masks(survivor.mask, mask) for mask in masks].count(True) == 1
    assert same_masks(survivor.mask, masks[better])
    assert survivor.info["power_curve"][0][1] == powers[better]


def test_the_overlap_of_two_starts():
    """By a solver that searches both to the end."""
    kwargs = {"solver": PaperLoop(step_size=0.1), "n_steps": 9}
    for seed in (0, 1, 2):
        [pattern] = conv_search(blank(0.8), 0, seed=seed, **kwargs)
        one, other = (
            strongest(mask_of(blank(0.8)[0], Stream(0, start), {"seed": seed, **kwargs})[None], 5)
            for start in (0, 1)
        )
        assert 0 < pattern.info["starts_iou"] < 1
        assert pattern.info["starts_iou"] == pytest.approx(
            float((one * other).sum() / (one + other).clamp(max=1).sum())
        )


def test_attribute_gives_the_masks_of_search():
    canvases = torch.cat([blank(1.0), CANVASES[:2]])
    explainer = ClassPattern(Counter(), IMAGES, LABELS)
    patterns = explainer.search(canvases, [0, 1, 2], area=0.2, n_steps=4)
    masks = explainer.attribute(canvases, [0, 1, 2], area=0.2, n_steps=4)
    assert torch.equal(masks, torch.stack([pattern.mask for pattern in patterns]))


def test_the_power_curve():
    [pattern], _ = search(CANVASES[:1], n_steps=8)
    passes, powers = zip(*pattern.info["power_curve"])
    assert list(passes) == list(Swap().passes(8)) == [160 + 4 * 64, 160 + 8 * 64]
    assert all(0 <= power <= 1 for power in powers)
    assert powers[-1] == pattern.info["search_power"]
    [pattern], _ = search(CANVASES[:1], solver=PaperLoop(), n_steps=8)
    assert [passes for passes, _ in pattern.info["power_curve"]] == [32]


@pytest.mark.parametrize("solver", ["swap", "paper"])
def test_max_seconds_stops_with_a_valid_pattern(solver, monkeypatch):
    """The clock moves on by a second at each look."""
    ticks = iter(range(10_000))
    for limit, early in ((5, True), (15, True), (5_000, False)):
        monkeypatch.setattr(time, "perf_counter", lambda: float(next(ticks)))
        patterns, _ = search(CANVASES[:2], solver=solver, n_steps=20, max_seconds=limit)
        monkeypatch.undo()
        whole = {"swap": Swap().passes(20)[-1], "paper": 80}[solver]
        for pattern in patterns:
            assert pattern.info["stopped_early"] is early
            assert (pattern.info["passes"] < whole) is early
            assert pattern.topk(0.2).mask.sum() == 5
            assert pattern.info["settings"]["max_seconds"] == limit


@pytest.mark.parametrize("solver", ["swap", "paper"])
def test_a_search_that_ends_in_time_is_not_stopped_early(solver, monkeypatch):
    """The clock stands still until the last step has begun."""
    now, steps = [0.0], []
    monkeypatch.setattr(time, "perf_counter", lambda: now[0])
    record = Search.record

    def late(self, *given):
        steps.append(record(self, *given))
        now[0] = 10.0 * (len(steps) == 3)

    monkeypatch.setattr(Search, "record", late)
    [pattern], _ = search(CANVASES[:1], solver=solver, n_steps=3, max_seconds=5)
    assert len(pattern.info["loss_curve"]) == 3
    assert not pattern.info["stopped_early"]


@pytest.mark.parametrize("keep", [None, 1])
def test_a_search_without_time_takes_one_step(keep):
    patterns, done = search(CANVASES[:4], keep=keep, max_seconds=1e-9)
    assert done == 4 * 4
    for pattern in patterns:
        assert pattern.info["stopped_early"]
        assert pattern.info["passes"] == 4
        assert pattern.info["mask_pixels"] == 5


def test_a_canvas_that_no_time_is_left_for_has_an_empty_mask(monkeypatch):
    """The clock moves on by a second at each look: one class's screening takes all the time."""
    ticks = iter(range(10_000))
    monkeypatch.setattr(time, "perf_counter", lambda: float(next(ticks)))
    patterns, _ = search(CANVASES[:4], [0, 0, 0, 1], keep=1, max_seconds=5)
    assert [pattern.info["empty_mask"] for pattern in patterns] == [False, True]
    assert patterns[1].info["passes"] == 0


def test_a_pool_that_is_stopped_after_its_screening_gives_the_masks_of_the_screening(monkeypatch):
    """The clock moves on by a second at each look: the screening looks before each step but
    the first."""
    ticks = iter(range(10_000))
    monkeypatch.setattr(time, "perf_counter", lambda: float(next(ticks)))
    [pattern], _ = search(keep=1, max_seconds=9.5)
    monkeypatch.undo()
    assert (pattern.info["stopped_early"], pattern.info["passes"]) == (True, 40)
    fit, _ = split_for_judging(LabelledImages.of(IMAGES, LABELS), 0)
    i = place(pattern)
    masks = search_masks(Counter(), CANVASES, 0, fit, solver=Shrink(), area=0.2).masks
    assert torch.equal(pattern.topk(0.2).mask, masks[i])


def test_a_screening_that_is_stopped_early_keeps_its_best_pixels(monkeypatch):
    ticks = iter(range(10_000))
    monkeypatch.setattr(time, "perf_counter", lambda: float(next(ticks)))
    [pattern], _ = search(keep=1, max_seconds=4.5)
    monkeypatch.undo()
    assert 0 < pattern.info["passes"] < 40
    assert pattern.topk(0.2).mask.sum() == 5
    assert pattern.topk(0.2).mask.flatten()[:5].sum() < 5  # not the first in reading order


AREAS = (0.2, 0.48, 0.08)


def test_areas_go_from_the_largest_to_the_smaller_ones():
    patterns, done = search(CANVASES[:2], keep=1, areas=AREAS, n_steps=6)
    assert list(patterns) == list(AREAS)
    earlier = {0.48: 0, 0.2: 1, 0.08: 2}
    [largest], first = search(CANVASES[:2], keep=1, area=0.48, n_steps=6)
    for area, found in patterns.items():
        [pattern] = found
        rounds = 6 if area == 0.48 else 4
        assert pattern.info["settings"]["area"] == area
        assert pattern.info["mask_pixels"] == round(25 * area)
        assert pattern.info["settings"]["n_steps"] == len(pattern.info["loss_curve"]) == rounds
        assert pattern.info["settings"]["areas"] == list(AREAS)
        assert pattern.info["search_power"] == pattern.info["power_curve"][-1][1]
        assert pattern.info["passes"] == largest.info["passes"] + earlier[area] * 4 * 64
        assert pattern.info["power_curve"][-1][0] == pattern.info["passes"]
    assert torch.equal(patterns[0.48][0].mask, largest.mask)
    assert len({place(found[0]) for found in patterns.values()}) == 1
    assert done == first + 2 * 4 * 64  # the start is not repeated
    together = {found[0].info["passes_together"] for found in patterns.values()}
    assert together == {largest.info["passes_together"] + 2 * 4 * 64}


def test_a_pool_that_is_screened_is_searched_anew_at_each_area():
    patterns, done = search(keep=1, areas=AREAS, n_steps=6)
    alone = {area: search(keep=1, area=area, n_steps=6) for area in AREAS}
    assert done == sum(passes for _, passes in alone.values())
    for area, found in patterns.items():
        [pattern], ([expected], _) = found, alone[area]
        assert torch.equal(pattern.canvas, expected.canvas)
        assert torch.equal(pattern.mask, expected.mask)
        assert pattern.info["power_curve"] == expected.info["power_curve"]
    together = sum(pattern.info["passes_together"] for [pattern], _ in alone.values())
    assert patterns[0.2][0].info["passes_together"] == together


def test_masks_of_smaller_areas_begin_inside_those_of_larger_ones():
    patterns, _ = search(CANVASES[:3], areas=[0.48, 0.2], n_steps=1)
    for large, small in zip(patterns[0.48], patterns[0.2]):
        changed = ((small.mask > 0) & (large.mask == 0)).sum()
        assert changed <= 3  # three proposals of one pixel each


@pytest.mark.parametrize("seed", [0, 3])
@pytest.mark.parametrize(
    ("rounds", "areas", "kwargs"),
    [
        (1, (0.48, 0.2), {}),
        (5, (0.6, 0.12), {"batch_size": 9, "proposals": 2}),
        (6, (0.48, 0.2, 0.08), {}),
        (16, (0.48, 0.44), {"batch_size": 2}),  # the trend alone would choose others
    ],
)
def test_a_smaller_area_equals_plain_swaps_that_go_on(rounds, areas, kwargs, seed):
    given = {"areas": areas, "seed": seed}
    found = conv_search(CANVASES[:1], 1, n_steps=rounds, solver=Swap(**kwargs), **given)
    for area, plain in zip(areas, plain_search(CANVASES[0], 1, rounds, **given, **kwargs)):
        [pattern] = found[area]
        assert same_masks(pattern.mask, plain.mask)
        assert pattern.info["loss_curve"] == pytest.approx(plain.losses, abs=1e-5)
        assert pattern.info["passes"] == plain.passes


def test_the_power_at_an_area_is_that_of_its_binary_mask():
    patterns, _ = search(CANVASES[:2], areas=AREAS)
    net = Counter()
    for area, found in patterns.items():
        for pattern in found:
            others, binary = JUDGES.without_class(0), pattern.topk(area)
            with torch.no_grad():
                hits = net(binary.stamp(others.images)).argmax(1) == 0
            assert pattern.info["search_power"] == hits.sum() / len(others)


def test_the_papers_loop_is_searched_once_for_all_areas():
    patterns, done = search(CANVASES[:1], areas=AREAS, solver="paper", n_steps=5)
    assert done == 20
    assert torch.equal(patterns[0.2][0].mask, patterns[0.08][0].mask)


@pytest.mark.parametrize("solver", ["swap", "paper"])
def test_areas_that_no_time_is_left_for_take_the_pixels_of_the_largest(solver, monkeypatch):
    """The clock moves on by a second at each look."""
    ticks = iter(range(10_000))
    monkeypatch.setattr(time, "perf_counter", lambda: float(next(ticks)))
    found, _ = search(CANVASES[:1], areas=AREAS, solver=solver, n_steps=20, max_seconds=10)
    [largest] = found[0.48]
    assert largest.info["passes"] > 0
    for area in (0.2, 0.08):
        [pattern] = found[area]
        assert pattern.info["stopped_early"]
        assert pattern.info["passes"] == largest.info["passes"]  # none were added
        taken, of_largest = pattern.topk(area).mask, largest.topk(0.48).mask
        assert int(taken.sum()) == round(area * 25)
        assert not (taken * (1 - of_largest)).any()
        if solver == "paper":
            assert torch.equal(pattern.mask, largest.mask)


@pytest.mark.parametrize(
    ("areas", "text"),
    [
        ([], "`areas` must hold at least one area"),
        ([0.2, 0.001], "0.001 of 5x5 = 25 pixels rounds to none or all"),
        ([0.2, 1.2], "1.2 of 5x5 = 25 pixels rounds to a number out of range"),
    ],
)
def test_areas_that_are_refused(areas, text):
    with pytest.raises(ValueError, match=text):
        search(areas=areas)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_the_starts_of_a_blank_canvas_do_not_push_out_a_photo(seed):
    canvases = torch.cat([CANVASES[:2], blank(0.0)])
    patterns, _ = search(canvases, 1, keep=2, seed=seed)
    assert len({place(pattern, canvases) for pattern in patterns}) == 2
    copies = torch.cat([blank(0.0, 0.0), CANVASES[:1]])
    assert pool(copies, [1] * 3, 3).best([0, 1, 2], {0: 0.1, 1: 0.2, 2: 0.15}) == [1, 2, 0]
