"""A pool of canvases: who competes, what it costs, who is dropped, and that the survivors do not
notice."""

import pytest
import torch
from plain_solvers import Problem, plain_loop, plain_shrink, plain_swaps
from refusals import refusals
from searched import (
    SCREENING_IMAGES,
    Own,
    Shrink,
    most_canvases,
    split_for_validation,
    validation_subset,
)
from small_models import conv_net, fixed, linear_net, random_images
from torch import nn

from captum_classpattern import ClassPattern
from captum_classpattern.images import LabelledImages
from captum_classpattern.optimization import PaperLoop, Swap
from captum_classpattern.optimization.masks import strongest

IMAGES = random_images(3000, 1, 5, 5)
LABELS = torch.arange(3000) % 3
CANVASES = random_images(8, 1, 5, 5, seed=1)
FIT, VALIDATION = split_for_validation(LabelledImages.of(IMAGES, LABELS), 0)
AREAS = (0.2, 0.48, 0.08)


def blank(*colours):
    return torch.stack([torch.full((1, 5, 5), colour) for colour in colours])


class Counter(nn.Module):
    """Counts the images of the passes that a gradient is wanted of."""

    def __init__(self):
        super().__init__()
        self.net, self.passes = linear_net(25, seen=IMAGES), 0
        self.eval()

    def forward(self, images, shift=0.0):
        self.passes += len(images) * torch.is_grad_enabled()
        return self.net(images) + shift


def search(canvases=CANVASES, target=0, *, net=None, given=(IMAGES, LABELS), method="search", **kw):
    """The patterns or masks, and how many passes with a gradient they took."""
    counter = Counter() if net is None else net
    settings = {"precision": "full", "n_steps": None if "budget" in kw else 4, "area": 0.2, **kw}
    explainer = ClassPattern(counter, *given, check_accuracy=False)
    found = getattr(explainer, method)(canvases, target, **settings)
    return found, getattr(counter, "passes", None)


def place(pattern, canvases=CANVASES):
    """Which canvas it is on."""
    [found] = [i for i, canvas in enumerate(canvases) if torch.equal(pattern.canvas, canvas)]
    return found


CONV_NET = conv_net(1, 5, 5, maps=4, seen=IMAGES.double())
FEW = LabelledImages.of(IMAGES[:600], LABELS[:600])


def conv_search(canvases, target, **kwargs):
    kwargs = {"n_steps": 4, "precision": "full", **kwargs}
    return ClassPattern(CONV_NET, FEW).search(canvases, target, **{"area": 0.2, **kwargs})


def plain_problem(canvas, target, seed, start=0):
    fit, _ = split_for_validation(FEW, seed)
    images, labels = fit.images.double(), fit.known_labels.tolist()
    return Problem(CONV_NET, canvas.double(), target, images, labels, seed, start)


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


def candidates(canvases, targets, keep, **settings):
    """For each the first canvas that is equal, and the number of its start; and the classes of the
    patterns that are kept."""
    noted, given = [], list(zip(canvases.tolist(), targets))

    def run(search):
        for canvas, stream in zip(search.canvases.tolist(), search.streams):
            noted.append(f"{given.index((canvas, stream.target))}{stream.start}")
        yield from ()

    solver = Own(run, **settings.pop("of_solver", {}))
    patterns, _ = search(canvases, targets, keep=keep, solver=solver, **settings)
    return " ".join(noted), [pattern.target for pattern in patterns]


@pytest.mark.parametrize(
    ("canvases", "targets", "keep", "expected", "kept"),
    [
        # every canvas starts once and a blank one twice
        (torch.cat([CANVASES[:2], blank(1.0)]), [0, 1, 0], None, "00 10 20 21", [0, 1, 0]),
        (torch.cat([CANVASES[:2], blank(1.0)]), [0, 1, 0], 3, "00 10 20 21", [0, 0, 1]),
        # copies of a blank canvas are further starts where they compete
        (blank(1.0, 0.0, 1.0, 1.0, 1.0), [0, 0, 0, 0, 1], 1, "00 01 02 10 11 40 41", [0, 1]),
        (blank(1.0, 1.0), [0, 0], None, "00 01 00 01", [0, 0]),
        # copies of a photo do not compete
        (CANVASES[[0, 0, 1, 0]], [0, 1, 0, 1], 2, "00 10 20", [0, 0, 1]),
        # no more patterns than canvases
        (blank(1.0), [0], 5, "00 01", [0]),
    ],
)
def test_the_candidates_and_how_many_are_kept(canvases, targets, keep, expected, kept):
    assert candidates(canvases, targets, keep) == (expected, kept)


def test_a_blank_canvas_starts_once_where_there_are_no_validation_images_or_colours_are_learned():
    of_class_0 = IMAGES[:8], [0] * 5 + [1, 2, 2]  # those for validation
    assert candidates(blank(1.0, 1.0), [0, 1], None, given=of_class_0)[0] == "00 10 11"
    assert candidates(blank(1.0), [0], 1, of_solver={"starts": 1})[0] == "00"


def idle(search):
    yield from ()


SWAPS = Own(idle, passes=Swap().passes, pool_budget=Swap.pool_budget)  # what they would take


def steps(canvases, targets, keep, **settings):
    settings = {"n_steps": None, "solver": SWAPS, **settings}
    patterns, _ = search(canvases, targets, keep=keep, **settings)
    return patterns[0].info["settings"]["n_steps"]


@pytest.mark.parametrize("budget", [430, 500, 645, 650, 860, 1_000, 2_000, 7_000])
def test_a_budget_suffices_for_its_number_of_canvases(budget):
    """With 100 validation images, which is the most."""
    n = most_canvases(budget)
    for canvases in (random_images(n, 1, 5, 5, seed=1), blank(1.0)):
        assert steps(canvases, [0] * len(canvases), 1, budget=budget) >= 1


def test_the_number_of_steps_is_that_of_each_class_alone():
    given = {"given": (IMAGES, torch.arange(3000) % 10 // 9), "budget": 2_000}
    alone = [steps(CANVASES, [y] * 8, 1, **given) for y in (0, 1)]
    both = steps(torch.cat([CANVASES, CANVASES]), [0] * 8 + [1] * 8, 1, **given)
    assert alone == [both, both]


def test_the_default_budget_is_that_of_the_solver_for_each_pattern_that_is_kept():
    eight = CANVASES, [0] * 8
    for keep in (1, 2):
        assert steps(*eight, keep) == steps(*eight, keep, budget=7_000 * keep)
    assert steps(*eight, None) is None
    assert steps(*eight, 1, solver=Own(idle)) is None  # its own length
    assert steps(CANVASES[:3], [0] * 3, 3) == steps(CANVASES[:3], [0] * 3, 10)
    assert steps(*eight, 1, n_steps=3, budget=50_000) == 3


REFUSALS = {
    "too small a budget": lambda: search(keep=1, budget=500),
    "too small a budget of attribute": lambda: search(CANVASES[:3], method="attribute", budget=10),
    "a class of no number, and too small a budget": lambda: search(CANVASES, 7, budget=10),
    "budget for unknown passes": lambda: search(solver=Own(fixed), budget=500),
    "area of no pixel": lambda: search(area=[0.2, 0.001]),
}


def test_refusals(snapshot):
    assert refusals(REFUSALS) == snapshot


# a round is 4 batches of 16, after 25 batches of 4; scored after 2 of 4 rounds
@pytest.mark.parametrize(("keep", "rounds"), [(None, 8 * 4), (1, 4 + 2), (3, 12 + 6)])
def test_weak_canvases_are_dropped_early(keep, rounds):
    patterns, done = search(keep=keep)
    screened = 8 if keep else 0
    starts = 2 * keep if keep else 8
    assert done == screened * 40 + starts * 100 + rounds * 64
    few = len(validation_subset(VALIDATION, 100).without_class(0))
    screening = screened * len(validation_subset(VALIDATION, SCREENING_IMAGES).without_class(0))
    together = done + (starts * few + screening + 1) // 2
    passes = 100 + 4 * 64 + 40 * bool(screened)
    infos = [pattern.info for pattern in patterns]
    assert [info["passes"] for info in infos] == [passes] * (keep or 8)
    assert {info["passes_together"] for info in infos} == {together}
    assert {len(info["loss_curve"]) for info in infos} == {4}
    if keep is None:
        assert [place(pattern) for pattern in patterns] == list(range(8))


@pytest.mark.parametrize(
    ("budget", "keep", "starts"), [(3_000, 1, 2), (5_000, 2, 4), (3_000, None, 8)]
)
def test_a_budget_is_used_and_not_exceeded(budget, keep, starts):
    patterns, _ = search(keep=keep, budget=budget)
    # it is reckoned as if all validation images were of other classes; a third is not
    scored = starts * len(validation_subset(VALIDATION, 100))
    scored += len(validation_subset(VALIDATION, SCREENING_IMAGES)) * (8 if keep else 0)
    assert budget - starts * 84 - scored / 6 < patterns[0].info["passes_together"] <= budget
    for pattern in patterns:
        assert pattern.info["settings"]["budget"] == budget
        assert pattern.info["settings"]["n_steps"] == len(pattern.info["loss_curve"])


def test_the_budget_of_attribute_is_for_each_input():
    given = {"method": "attribute", "budget": 1_000}
    one, three = (search(CANVASES[:n], **given)[1] for n in (1, 3))
    assert 1_000 - 64 - 20 - 100 < one <= 1_000
    assert three == 3 * one


PICTURES = torch.cat([CANVASES[:4], blank(0.0, 0.8)])


@pytest.mark.parametrize(
    ("pictures", "targets", "keep", "areas", "sizes"),
    [
        ([0, 4, 1, 5, 2, 3], [0, 1, 0, 1, 0, 1], 1, (0.48, 0.2), (5, 100)),  # all are
        ([0, 4, 1, 5, 4], [2, 1, 2, 1, 1], 1, (0.2,), (16, None)),  # those of class 1 are
        ([4, 1, 0, 4, 5, 2], [1, 0, 0, 1, 1, 0], 2, (0.48, 0.2), (7, 40)),
    ],
)
def test_any_pool_gives_the_patterns_of_each_class_alone(pictures, targets, keep, areas, sizes):
    """For any two internal batch sizes."""
    given, (size, other) = {"area": areas, "keep": keep, "n_steps": 3, "seed": 1}, sizes
    canvases = PICTURES[pictures]
    together = conv_search(canvases, targets, internal_batch_size=size, **given)
    for target in set(targets):
        own = canvases[torch.tensor(targets) == target]
        alone = conv_search(own, target, internal_batch_size=other, **given)
        for area in areas:
            assert_same([p for p in together[area] if p.target == target], alone[area])


# where no canvas is screened: two photos of each of two classes, or two and a blank one
@pytest.mark.parametrize(
    ("canvases", "target", "keep"),
    [
        (CANVASES[:4], [0, 0, 1, 1], 1),
        (torch.cat([CANVASES[:2], blank(0.0)]), 0, 2),
        (CANVASES[:2], [0, 0], None),
    ],
)
def test_a_survivors_masks_at_all_areas_are_those_of_a_search_alone(canvases, target, keep):
    settings = {"area": (0.48, 0.2), "seed": 1}
    found = conv_search(canvases, target, keep=keep, **settings)
    for area, patterns in found.items():
        assert len(patterns) == 2
        for pattern in patterns:
            assert len(pattern.info["loss_curve"]) == {0.48: 4, 0.2: 3}[area]
            [alone] = conv_search(pattern.canvas[None], pattern.target, **settings)[area]
            assert_same([pattern], [alone])
            assert pattern.info["search_power"] == alone.info["search_power"]
            assert pattern.info["loss_curve"] == pytest.approx(alone.info["loss_curve"], abs=1e-5)


@pytest.mark.parametrize("target", [0, 1])
def test_the_screening_equals_a_plain_one_and_the_lowest_loss_on_validation_images_passes(target):
    few = validation_subset(split_for_validation(FEW, 0)[1], SCREENING_IMAGES)
    few, losses = few.without_class(target).images, []
    for pattern in conv_search(CANVASES, target, solver=Shrink(), n_steps=None):
        problem = plain_problem(pattern.canvas, target, 0)
        assert pattern.mask.flatten().tolist() == plain_shrink(problem, kept=5).tolist()
        with torch.no_grad():
            p = CONV_NET(pattern.stamp(few).double()).softmax(1)[:, target]
        losses.append(float((1 - p.sqrt()).mean()))
    searched = []

    def run(search):
        searched.append([*search.rows])
        for _ in Swap().run(search):
            yield
            searched.append([*search.rows])

    conv_search(CANVASES, target, keep=1, solver=Own(run))
    assert searched[0] == sorted(sorted(range(8), key=losses.__getitem__)[:2])
    assert [len(rows) for rows in searched] == [2, 1]


@pytest.mark.parametrize(
    ("kind", "target", "seed", "better"),
    [
        ("photos", 0, 4, 0),
        ("photos", 1, 0, 0),  # the other one would be better at the end
        ("photos", 2, 0, 1),
        ("blank", 1, 2, 1),  # the other one would be better at the end
        ("blank", 1, 6, 0),  # they are equal, so the first one stays
    ],
)
def test_what_survives_is_the_better_one_half_way(kind, target, seed, better):
    """Of two photos, or of the two starts of a blank canvas."""
    canvases = CANVASES[:2] if kind == "photos" else blank(0.8)
    few, powers, masks = validation_subset(split_for_validation(FEW, seed)[1], 100), [], []
    others = few.without_class(target).images
    for canvas, start in zip(canvases.expand(2, -1, -1, -1), [0, int(kind == "blank")]):
        [plain] = plain_swaps(plain_problem(canvas, target, seed, start), 4, areas=[0.2])
        held = torch.from_numpy(plain.half_way > 0).view(1, 5, 5)
        hits = CONV_NET(torch.where(held, canvas, others).double()).argmax(1) == target
        powers.append(int(hits.sum()) / len(others))
        masks.append(plain.mask)
    assert powers.index(max(powers)) == better
    [survivor] = conv_search(canvases, target, keep=1, seed=seed)
    assert [same_masks(survivor.mask, mask) for mask in masks].count(True) == 1
    assert same_masks(survivor.mask, masks[better])
    assert survivor.info["power_curve"][0][1] == powers[better]


def test_the_overlap_of_two_starts():
    """By a solver that searches both to the end."""
    kwargs = {"solver": PaperLoop(step_size=0.1), "n_steps": 9, "seed": 1}
    canvases, masks = torch.cat([blank(0.8), CANVASES[:1]]), []
    pattern, photo = conv_search(canvases, 0, **kwargs)
    assert "starts_iou" not in photo.info
    for start in (0, 1):
        mask = plain_loop(plain_problem(canvases[0], 0, 1, start), 9, step_size=0.1)[0]
        masks.append(torch.from_numpy(mask).view(1, 1, 5, 5))
    assert [same_masks(pattern.mask, mask) for mask in masks].count(True) == 1
    one, other = (strongest(mask, 5) * (mask > 0) for mask in masks)
    overlap = float((one * other).sum() / (one + other).clamp(max=1).sum())
    assert 0 < overlap < 1
    assert pattern.info["starts_iou"] == pytest.approx(overlap)


def test_more_starts_than_copies_do_not_push_out_a_photo():
    """A pattern of so many black pixels wins over the images whose last pixel is as dark."""
    photos = blank(0.0, 0.0)
    photos[:, 0, 4, 4] = torch.tensor([0.3, 0.6])

    def net(images):
        wins = (images == 0).float().mean((1, 2, 3)) - images[:, 0, 4, 4]
        return torch.stack([torch.full_like(wins, -1), wins - 1], 1)

    def pixels_of(canvases, keep, *counts):
        def run(search):
            for batch in search.batches(4, 1):
                search.loss(search.masks[batch.index], batch)
            held = torch.arange(25) < torch.tensor(counts)[:, None]
            search.masks = held.float().view(-1, 1, 5, 5)
            yield from ()

        given = {"net": net, "given": (IMAGES, LABELS % 2), "area": 0.4, "solver": Own(run)}
        patterns, _ = search(canvases, 1, keep=keep, **given)
        return [pattern.info["mask_pixels"] for pattern in patterns]

    assert pixels_of(torch.cat([photos, blank(0.0)]), 2, 3, 0, 9, 6) == [9, 3]
    assert pixels_of(torch.cat([blank(0.0, 0.0), photos[:1]]), 3, 3, 8, 5) == [8, 5, 3]


@pytest.mark.parametrize("canvases", [CANVASES, blank(*[1.0] * 8)])
def test_additional_arguments_follow_the_survivors(canvases):
    """Each canvas has its own shift of class 0; only where it is large all say so. So copies of a
    blank canvas all compete."""
    shifts = torch.zeros(8, 3)
    shifts[:, 0] = -100.0
    shifts[5, 0] = 100.0
    [pattern], _ = search(canvases, keep=1, additional_forward_args=shifts)
    assert torch.equal(pattern.canvas, canvases[5])
    assert pattern.info["search_power"] == 1.0


class Summed(Counter):
    def forward(self, images, shift):
        return super().forward(images, shift.sum())


@pytest.mark.parametrize(("net", "shape"), [(Summed, 2), (Counter, (1, 3))])
def test_a_shared_tensor_stays_whole_on_a_blank_canvas(net, shape):
    shift = torch.zeros(shape)
    [pattern], _ = search(blank(1.0), net=net(), additional_forward_args=shift)
    assert pattern.topk(0.2).mask.sum() == 5
    assert "starts_iou" not in pattern.info  # Tensors may differ from canvas to canvas


def test_areas_go_from_the_largest_to_the_smaller_ones():
    patterns, done = search(CANVASES[:2], keep=1, area=AREAS, n_steps=6)
    assert list(patterns) == list(AREAS)
    [largest], first = search(CANVASES[:2], keep=1, area=0.48, n_steps=6)
    assert torch.equal(patterns[0.48][0].mask, largest.mask)
    assert done == first + 2 * 4 * 64  # the start is not repeated
    for area, earlier in {0.48: 0, 0.2: 1, 0.08: 2}.items():
        [pattern] = patterns[area]
        info, rounds = pattern.info, 6 if area == 0.48 else 4
        assert place(pattern) == place(largest)
        assert info["settings"]["area"] == area
        assert info["mask_pixels"] == round(25 * area)
        assert info["settings"]["n_steps"] == len(info["loss_curve"]) == rounds
        assert info["settings"]["areas"] == list(AREAS)
        assert info["passes"] == largest.info["passes"] + earlier * 4 * 64
        assert info["power_curve"][-1] == [info["passes"], info["search_power"]]
        assert info["passes_together"] == largest.info["passes_together"] + 2 * 4 * 64
        others = VALIDATION.without_class(0)
        with torch.no_grad():
            hits = Counter()(pattern.topk(area).stamp(others.images)).argmax(1) == 0
        assert info["search_power"] == hits.sum() / len(others)


def test_a_pool_that_is_screened_is_searched_anew_at_each_area():
    patterns, done = search(keep=1, area=(0.2, 0.48))
    alone = {area: search(keep=1, area=area) for area in (0.2, 0.48)}
    assert done == sum(passes for _, passes in alone.values())
    for area, [pattern] in patterns.items():
        [expected], _ = alone[area]
        assert_same([pattern], [expected])
        assert pattern.info["power_curve"] == expected.info["power_curve"]
    together = sum(pattern.info["passes_together"] for [pattern], _ in alone.values())
    assert patterns[0.2][0].info["passes_together"] == together


@pytest.mark.parametrize(
    ("rounds", "areas", "seed", "kwargs"),
    [
        (1, (0.48, 0.2), 0, {}),
        (6, (0.48, 0.2, 0.08), 3, {}),
        (16, (0.48, 0.44), 0, {"batch_size": 2}),  # the trend alone would choose others
    ],
)
def test_a_smaller_area_equals_plain_swaps_that_go_on(rounds, areas, seed, kwargs):
    given = {"area": areas, "seed": seed}
    found = conv_search(CANVASES[:1], 1, n_steps=rounds, solver=Swap(**kwargs), **given)
    expected = plain_swaps(plain_problem(CANVASES[0], 1, seed), rounds, areas=areas, **kwargs)
    for area, plain in zip(areas, expected):
        [pattern] = found[area]
        assert same_masks(pattern.mask, plain.mask)
        assert pattern.info["loss_curve"] == pytest.approx(plain.losses, abs=1e-5)
        assert pattern.info["passes"] == plain.passes
