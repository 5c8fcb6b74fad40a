"""A moving patch: where it is put, its gradients, its search, what it finds and refuses."""

import itertools
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from entered import entered
from refusals import refusals
from searched import split_for_validation
from small_models import conv_net, random_images
from torch import nn

from captum_classpattern import ClassPattern, MovingPatch, predictive_power
from captum_classpattern.images import LabelledImages
from captum_classpattern.optimization.moves import draw_moves, place, pull_back
from captum_classpattern.optimization.plan import EARLY_IMAGES, validation_subset
from captum_classpattern.optimization.solvers.moving import NATURAL_COLOURS
from captum_classpattern.pattern import MovingPattern
from captum_classpattern.scores.power import judge

HEIGHT, WIDTH, SIDE = 9, 12, 4
PIXELS = {"levels": 1, "natural_colours": False, "opacity": 0.5}  # each pixel and channel by itself
LABELS = torch.arange(30) % 3
IMAGES = random_images(30, 1, HEIGHT, WIDTH)


def moves(uniform, size=(HEIGHT, WIDTH), side=SIDE, scale=(0.8, 1.3), angle=40.0):
    return draw_moves(np.asarray(uniform, float), size, side, scale, angle)


def plain_place(square, uniform, size, scale, angle):
    """A square (C, S, S), a pixel of the image after another, in float64."""
    side, (height, width) = square.shape[-1], size
    s = scale[0] + (scale[1] - scale[0]) * uniform[0]
    t = math.radians(angle) * (2 * uniform[1] - 1)
    reach = s * side * (math.cos(t) + abs(math.sin(t))) / 2
    reaches = min(reach, width / 2), min(reach, height / 2)
    centre = [r - 0.5 + (n - 2 * r) * u for r, n, u in zip(reaches, (width, height), uniform[2:])]
    placed = []
    for y in range(height):
        for x in range(width):
            dx, dy = (x - centre[0]) / s, (y - centre[1]) / s
            u = math.cos(t) * dx + math.sin(t) * dy + (side - 1) / 2
            v = -math.sin(t) * dx + math.cos(t) * dy + (side - 1) / 2
            value = torch.zeros(len(square), dtype=square.dtype)
            for row in range(max(0, math.floor(v)), min(side, math.floor(v) + 2)):
                for column in range(max(0, math.floor(u)), min(side, math.floor(u) + 2)):
                    weight = (1 - abs(u - column)) * (1 - abs(v - row))
                    value = value + weight * square[:, row, column]
            placed.append(value)
    return torch.stack(placed, 1).view(-1, height, width)


@pytest.mark.parametrize("side", [3, 4, 8])  # also where a turned square does not fit
def test_placing_equals_a_plain_interpolation(side):
    uniform = np.random.default_rng(side).random((6, 4))
    squares = random_images(6, 2, side, side, seed=1).double()
    placed = place(squares.float(), moves(uniform, side=side), (HEIGHT, WIDTH))
    for own, square, numbers in zip(placed, squares, uniform):
        plain = plain_place(square, numbers, (HEIGHT, WIDTH), (0.8, 1.3), 40.0)
        torch.testing.assert_close(own.double(), plain, atol=2e-5, rtol=0)


@pytest.mark.parametrize(("scale", "angle"), [((0.3, 0.5), 45.0), ((1.4, 1.4), 45.0), ((1, 1), 0)])
def test_gradients_are_pulled_back_as_autograd_has_them(scale, angle):
    drawn = moves(np.random.default_rng(0).random((40, 4)), scale=scale, angle=angle)
    squares = random_images(40, 2, SIDE, SIDE, seed=1).requires_grad_()
    placed = place(squares, drawn, (HEIGHT, WIDTH))
    slopes = random_images(*placed.shape, seed=2) - 0.5
    [expected] = torch.autograd.grad(placed, squares, slopes)
    torch.testing.assert_close(pull_back(slopes, drawn, SIDE), expected, atol=1e-4, rtol=0)


def test_a_patch_lies_inside_and_reaches_all_corners():
    uniform = np.random.default_rng(0).random((2000, 4))
    uniform[:4] = [[0, 0.5, 0, 0], [0, 0.5, 0, 1], [0, 0.5, 1, 0], [0, 0.5, 1, 1]]
    ones = torch.ones(len(uniform), 1, SIDE, SIDE)
    placed = place(ones, moves(uniform, scale=(1, 1.05)), (HEIGHT, WIDTH))
    area = placed.sum((1, 2, 3)) / SIDE**2
    # what would be cut off at an edge is missing in the sum
    assert area.min() > 0.98
    assert area.max() < 1.05**2 + 0.02
    corners = [placed[i, 0, row, column] for i, (column, row) in enumerate(
        [(0, 0), (0, -1), (-1, 0), (-1, -1)]
    )]  # fmt: skip
    assert torch.stack(corners).min() > 0.99


class Problem(nn.Module):
    """The search as the formulas have it: a loop over images, placed pixel by pixel."""

    def __init__(self, net, images, labels, target, solver, seed, start=0):
        super().__init__()
        self.net, self.images, self.target, self.solver = net, images, target, solver
        self.others = [i for i, y in enumerate(labels) if y != target]
        self.chance = np.random.default_rng([seed, target, start])
        key = (seed, 0, start) if start else (seed, 0)
        order = np.random.default_rng(key).permutation(len(images)).tolist()
        self.order = [i for i in order if labels[i] != target]

    def run(self, steps):
        side, solver = self.solver.side, self.solver
        channels = self.images.shape[1]
        halved = [max(3, round(side / 2**level)) for level in range(solver.levels)]
        sides = sorted(set(halved), reverse=True)
        noise = [self.chance.normal(0, 0.1, (channels, n, n)) for n in sides]
        grids = [torch.from_numpy(each).requires_grad_() for each in noise]
        o = torch.full((1, side, side), math.log(solver.opacity / (1 - solver.opacity)))
        o = o.double().requires_grad_()
        adam = torch.optim.Adam([*grids, o], solver.rate, (0.5, 0.9))
        losses = []

        def drawn():
            z = sum(plain_enlargement(grid, side) for grid in grids)
            if solver.natural_colours and channels == 3:
                mixed = [[m * z[j] for j, m in enumerate(row)] for row in NATURAL_COLOURS]
                z = torch.stack([sum(row) for row in mixed])
            return z.sigmoid(), o.sigmoid()

        for step in range(steps):
            c, a = drawn()
            batch = self.order[step * solver.batch_size : (step + 1) * solver.batch_size]
            entropies = []
            for image, numbers in zip(self.images[batch], self.chance.random((len(batch), 4))):
                both = torch.cat([a * c, a])
                size = image.shape[1:]
                *pixels, opacity = plain_place(both, numbers, size, solver.scale, solver.angle)
                logits = self.net((image * (1 - opacity) + torch.stack(pixels))[None])
                entropies.append(-logits.log_softmax(1)[0, self.target])
            loss = sum(entropies) / len(entropies)
            losses.append(float(loss.detach()))
            differences = [
                smooth(x[:, 1:] - x[:, :-1]).mean() + smooth(x[:, :, 1:] - x[:, :, :-1]).mean()
                for x in (c, a)
            ]
            adam.zero_grad()
            (loss + solver.tv * sum(differences)).backward()
            adam.step()
        return *(each.detach() for each in drawn()), losses


def smooth(differences):
    """About their absolute values."""
    return (differences**2 + 1e-6) ** 0.5


def plain_enlargement(grid, side):
    """A grid (C, s, s) as (C, side, side): each pixel from the four nearest centres."""
    n, rows = grid.shape[-1], []
    for y, x in itertools.product(range(side), repeat=2):
        value = 0
        v, u = (min(max((i + 0.5) * n / side - 0.5, 0), n - 1) for i in (y, x))
        for row, column in itertools.product(range(n), repeat=2):
            value = (
                value
                + max(0, 1 - abs(v - row)) * max(0, 1 - abs(u - column)) * grid[:, row, column]
            )
        rows.append(value)
    return torch.stack(rows, 1).view(-1, side, side)


@pytest.mark.parametrize(
    ("channels", "tv", "steps", "form"),
    [(1, 0.0, 4, {}), (3, 0.0, 4, {}), (3, 3.0, 2, {}), (3, 1.0, 4, PIXELS)],
)
def test_equals_the_plain_search(channels, tv, steps, form):
    images = random_images(30, channels, HEIGHT, WIDTH).double()
    net = conv_net(channels, HEIGHT, WIDTH)
    solver = MovingPatch(SIDE, steps=steps, batch_size=5, tv=tv, angle=30, starts=1, **form)
    explainer = ClassPattern(net, images, LABELS, check_accuracy=False)
    [found] = explainer.search(target=1, solver=solver, seed=3)
    fit, validation = split_for_validation(LabelledImages.of(images, LABELS), 3)
    plain = Problem(net, fit.images, fit.labels.tolist(), 1, solver, 3)
    colours, opacity, losses = plain.run(steps)
    torch.testing.assert_close(found.canvas, colours, atol=2e-4, rtol=0)
    torch.testing.assert_close(found.mask.double(), opacity, atol=2e-4, rtol=0)
    assert found.info["loss_curve"] == pytest.approx(losses, abs=1e-4)
    assert found.info["passes"] == min(16, 5 * steps)  # 16 are of other classes
    hits = judge(entered(net, images), found, validation.without_class(1), seed=3)
    assert found.info["search_power"] == hits.hits / len(validation.without_class(1))
    assert found.info["search_margin"] == pytest.approx(hits.margin)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_the_start_that_is_best_after_15_percent_of_the_steps_goes_on(seed):
    images, net = random_images(30, 3, HEIGHT, WIDTH).double(), conv_net(3, HEIGHT, WIDTH)
    solver = MovingPatch(SIDE, steps=4, batch_size=4, starts=3)
    explainer = ClassPattern(net, images, LABELS, check_accuracy=False)
    [found] = explainer.search(target=1, solver=solver, seed=seed)
    fit, validation = split_for_validation(LabelledImages.of(images, LABELS), seed)
    model, labels, margins = entered(net, images), fit.labels.tolist(), []
    others = validation_subset(validation, EARLY_IMAGES).without_class(1)  # in this order
    starts = [Problem(net, fit.images, labels, 1, solver, seed, start) for start in range(3)]
    for problem in starts:
        colours, opacity, _ = problem.run(1)
        patch = replace(found, canvas=colours.float(), mask=opacity.float())
        margins.append(judge(model, patch, others, seed=seed).margin)
    best = margins.index(max(margins))
    colours, *_ = Problem(net, fit.images, labels, 1, solver, seed, best).run(4)
    torch.testing.assert_close(found.canvas, colours, atol=2e-4, rtol=0)
    scored = 3 * len(others)
    assert found.info["passes"] == 16
    assert found.info["passes_together"] == 2 * 4 + 16 + -(-scored // 2)


def search(target=1, images=IMAGES, labels=LABELS, net=None, side=SIDE, **options):
    solver = options.pop("solver", None) or MovingPatch(side, steps=6, batch_size=8, starts=1)
    net = net or conv_net(images.shape[1], HEIGHT, WIDTH).float()
    explainer = ClassPattern(net, images, labels, check_accuracy=False)
    return explainer.search(target=target, solver=solver, precision="full", **options)


def test_numpy_numbers_become_pythons_own(tmp_path):
    of_numpy = MovingPatch(np.int64(SIDE), steps=2, scale=np.array([0.9, 1.0]), tv=np.float32(2))
    assert of_numpy == MovingPatch(SIDE, steps=2, scale=(0.9, 1.0), tv=2.0)
    search(solver=of_numpy)[0].save(tmp_path / "patch.safetensors")


def assert_alike(one, other, atol=1e-4):
    torch.testing.assert_close(one.canvas, other.canvas, atol=atol, rtol=0)
    torch.testing.assert_close(one.mask, other.mask, atol=atol, rtol=0)


def test_classes_together_are_as_alone_and_a_seed_decides():
    together, again = search([0, 1, 2]), search([0, 1, 2])
    for target, one, same in zip(range(3), together, again):
        assert (one.target, type(one)) == (target, MovingPattern)
        assert torch.equal(one.canvas, same.canvas)
        assert torch.equal(one.mask, same.mask)
        assert_alike(one, search(target)[0])
        assert (one.canvas - search(target, seed=1)[0].canvas).abs().max() > 0.01
    assert (together[0].canvas - together[1].canvas).abs().max() > 0.01
    [in_parts] = search(1, internal_batch_size=3)
    assert_alike(in_parts, together[1])


def test_budget_and_steps_decide_the_length():
    assert search(n_steps=2)[0].info["passes"] == 16
    assert search(budget=30)[0].info["passes"] == 24  # whole steps of 8
    [best] = search([1] * 10, budget=250, keep=1)
    assert best.info["passes_together"] == 240  # all ten run to the end


def test_of_two_copies_the_one_with_the_larger_margin_is_returned():
    solver = MovingPatch(SIDE, steps=3, starts=1)
    both = search([1] * 5, solver=solver, seed=1, keep=5)  # no screening by pixels
    margins = [each.info["search_margin"] for each in both]
    assert margins == sorted(set(margins), reverse=True)
    [best] = search([1] * 5, solver=solver, seed=1, keep=1)
    assert best.info["search_margin"] == pytest.approx(margins[0])
    assert all(each.mask.min() > 0 for each in both)


class Bright(nn.Module):
    """A linear map; a white square of 3 x 3, anywhere, is class 3."""

    def __init__(self, size=16):
        super().__init__()
        torch.manual_seed(0)
        self.linear = nn.Linear(size * size, 5)

    def forward(self, images):
        logits = self.linear(images.flatten(1))
        brightest = nn.functional.avg_pool2d(images, 3, 1).amax((1, 2, 3))
        return logits + 60 * (brightest - 0.87)[:, None] * torch.eye(5)[3]


def test_a_planted_trigger_that_works_anywhere_is_found():
    images, held_out = random_images(60, 1, 16, 16), random_images(150, 1, 16, 16, seed=1)
    found = search(
        [3, 1], images, torch.arange(60) % 3, Bright().eval(), solver=MovingPatch(6, steps=40)
    )
    planted, clean = (predictive_power(Bright().eval(), p, held_out, [0] * 150) for p in found)
    assert planted.without < 0.2
    assert planted.value > 0.95
    assert clean.value < clean.without + 0.1
    [patch, _] = found
    held = LabelledImages(held_out, torch.zeros(150, dtype=torch.int64))
    powers = [predictive_power(Bright().eval(), patch.at(*p), held).value for p in patch.grid()]
    assert min(powers) > 0.9
    bright = torch.nn.functional.avg_pool2d(patch.canvas * patch.mask, 3, 1).max()
    assert bright > 0.85


REFUSED = {
    "a side below 3": lambda: MovingPatch(side=2),
    "a side that is no whole number": lambda: MovingPatch(side=4.5),
    "a negative weight": lambda: MovingPatch(4, tv=-1),
    "an infinite weight": lambda: MovingPatch(4, tv=math.inf),
    "an angle that is no number": lambda: MovingPatch(4, angle="8"),
    "a scale that is too large": lambda: MovingPatch(4, scale=(1, 2)),
    "a scale of texts": lambda: MovingPatch(4, scale=("0.9", "1.05")),
    "a scale from above": lambda: MovingPatch(4, scale=(1.1, 1)),
    "an angle that is too large": lambda: MovingPatch(4, angle=90),
    "an opacity of 1": lambda: MovingPatch(4, opacity=1),
    "too many levels": lambda: MovingPatch(4, levels=9),
    "natural colours in words": lambda: MovingPatch(4, natural_colours="no"),
    "no level": lambda: MovingPatch(4, levels=0),
    "no steps": lambda: MovingPatch(4, steps=0),
    "a side as large as the image": lambda: search(side=HEIGHT),
    "images that are too small": lambda: search(
        images=random_images(30, 1, 7, 9), net=conv_net(1, 7, 9).float(), side=3
    ),
    "a canvas": lambda: ClassPattern(conv_net(1, HEIGHT, WIDTH).float(), IMAGES, LABELS).search(
        IMAGES[:1], 1, solver=MovingPatch(4)
    ),
    "several areas": lambda: search(area=[0.1, 0.2]),
    "features": lambda: search(feature_mask=torch.zeros(HEIGHT, WIDTH).long()),
    "no target": lambda: search(None),
    "a target that is a matrix": lambda: search(torch.zeros(2, 2).long()),
    "attribute": lambda: ClassPattern(nn.Flatten(), IMAGES, LABELS).attribute(
        IMAGES[:1], 1, solver=MovingPatch(4)
    ),
    "no canvas for another solver": lambda: search(solver="swap"),
}


def test_refusals(snapshot):
    assert refusals(REFUSED) == snapshot
