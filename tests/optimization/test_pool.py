"""A pool of canvases: who competes, what it costs, who is dropped, and that the survivors do not
notice."""

import time

import numpy as np
import pytest
import torch
from torch import nn

from captum_classpattern import ClassPattern, search_masks
from captum_classpattern.images import LabelledImages
from captum_classpattern.optimization import PaperLoop, Swap
from captum_classpattern.optimization.contest import Contest
from captum_classpattern.optimization.holdout import judging_subset, split_for_judging
from captum_classpattern.optimization.pool import SCREENING_JUDGES, Pool, most_canvases
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
    settings = {"area": 0.2, "precision": "full", **kwargs}
    if not {"n_steps", "budget"} & set(settings):
        settings["n_steps"] = 4
    patterns = ClassPattern(counter, IMAGES, LABELS).search(canvases, target, **settings)
    return patterns, counter.passes


def place(pattern, canvases=CANVASES):
    """Which canvas it is on."""
    [found] = [i for i, canvas in enumerate(canvases) if torch.equal(pattern.canvas, canvas)]
    return found


def pool(canvases, targets, keep):
    return Pool(canvases, targets, keep, JUDGES)


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
    found = Pool(blank(1.0, 1.0), [0, 1], None, without).entrants
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
        found = pool(canvases, [0] * len(canvases), 1)
        assert found.steps_within(budget, Swap()) >= 1


def test_the_number_of_steps_is_that_of_each_class_alone():
    """Whatever share of the images is of the class."""
    few = LabelledImages(JUDGES.images, torch.arange(len(JUDGES.images)) % 10 // 9)
    for budget in (2_000, 7_000):
        alone = [Pool(CANVASES, [y] * 8, 1, few).steps_within(budget, Swap()) for y in (0, 1)]
        targets = [0] * 8 + [1] * 8
        both = Pool(torch.cat([CANVASES, CANVASES]), targets, 1, few).steps_within(budget, Swap())
        assert alone == [both, both]


def test_a_budget_is_for_as_many_patterns_as_can_be_kept():
    settings = SearchSettings()
    three = pool(CANVASES[:3], [0] * 3, 3).steps(settings)
    assert pool(CANVASES[:3], [0] * 3, 10).steps(settings) == three


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
        settings = SearchSettings()
        steps = pool(CANVASES, [0] * 8, keep).steps(settings)
        assert steps == pool(CANVASES, [0] * 8, keep).steps_within(7_000 * keep, settings.solver)
    assert pool(CANVASES, [0] * 8, None).steps(settings) is None
    loop = SearchSettings(solver="paper")
    assert pool(CANVASES, [0] * 8, 1).steps(loop) is None  # its length is the published one


def test_the_steps_override_the_budget():
    patterns, _ = search(keep=1, n_steps=3, budget=50_000)
    assert patterns[0].info["settings"]["n_steps"] == 3


def test_the_papers_loop_has_a_budget_too():
    patterns, done = search(CANVASES[:3], solver="paper", budget=600)
    assert done == 600
    assert [pattern.info["passes"] for pattern in patterns] == [200] * 3


def test_a_budget_that_is_too_small():
    text = (
        r"budget=500 is too small: one step on each canvas takes \d{3} passes per class; give a "
        "larger budget or fewer canvases"
    )
    with pytest.raises(ValueError, match=text):
        search(keep=1, budget=500)


def test_a_solver_without_known_passes_has_no_budget():
    class Fixed:
        name, accelerates = "fixed", False

        def run(self, search):
            yield from ()

    with pytest.raises(ValueError, match=r"solver='fixed' does not say how many passes .* n_steps"):
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


def test_smaller_areas_are_the_same_alone_and_together():
    settings = {"areas": (0.48, 0.2, 0.08), "n_steps": 4}
    together, _ = search(CANVASES[:3], [0, 1, 0], **settings)
    for i, target in enumerate([0, 1, 0]):
        alone, _ = search(CANVASES[i : i + 1], target, **settings)
        for area, [pattern] in alone.items():
            torch.testing.assert_close(pattern.mask, together[area][i].mask, atol=1e-5, rtol=0)


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


@pytest.mark.parametrize("seed", range(4))
def test_the_start_that_is_kept_is_the_better_one_half_way(seed, monkeypatch):
    contests = []
    run = Contest.run

    def spy(self):
        contests.append(self)
        run(self)

    monkeypatch.setattr(Contest, "run", spy)
    [pattern], _ = search(blank(0.8), keep=1, seed=seed)
    [contest] = contests
    half_way = {row: curve[0][1] for row, curve in contest.curves.items()}
    assert set(half_way) == {0, 1}
    kept = max(half_way, key=lambda row: half_way[row])
    assert contest.winners[0] == kept
    assert torch.equal(pattern.mask, contest.search.masks[kept])
    assert len(contest.curves[kept]) == 2
    assert len(contest.curves[1 - kept]) == 1


def test_the_overlap_of_two_starts():
    masks = torch.zeros(2, 1, 5, 5)
    masks[0, 0, 0, :5], masks[1, 0, 0, 2:5], masks[1, 0, 1, :2] = 1, 1, 1

    class Finished:
        kept_pixels, rows = 5, [0]

    finished = Finished()
    finished.masks = masks
    contest = Contest(Counter(), pool(blank(1.0), [0], None), finished)
    contest.curves = {0: [(1, 0.5)], 1: [(1, 0.4)]}
    assert contest._overlap(0) == pytest.approx(3 / 7)


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
        ([], "areas must hold at least one area"),
        ([0.2, 0.001], "0.001 of 5x5 = 25 pixels rounds to none or all"),
        ([0.2, 1.2], "1.2 of 5x5 = 25 pixels rounds to a number out of range"),
    ],
)
def test_areas_that_are_refused(areas, text):
    with pytest.raises(ValueError, match=text):
        search(areas=areas)
