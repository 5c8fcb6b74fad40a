"""The solver that learns colours, too: against a plain, slow version, and what it finds."""

import itertools
import time

import numpy as np
import pytest
import torch
from torch import nn

from captum_classpattern import ClassPattern, search_masks
from captum_classpattern.images import LabelledImages
from captum_classpattern.optimization import Learned
from captum_classpattern.optimization.holdout import split_for_judging
from captum_classpattern.optimization.objective import Batch, Objective

LABELS = torch.arange(30) % 3
HEIGHT, WIDTH = 6, 5


def net_of(channels, gain=3.0):
    torch.manual_seed(2)
    net = nn.Sequential(nn.Conv2d(channels, 6, 3), nn.Tanh(), nn.Flatten(), nn.Linear(72, 3))
    with torch.no_grad():
        net[0].weight.mul_(gain)
        net[3].weight.mul_(gain)
    return net.double().eval()


def images(n, channels, seed):
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(n, channels, HEIGHT, WIDTH, generator=generator, dtype=torch.float64)


class PlainAdam:
    """Kingma and Ba 2015, arXiv 1412.6980, algorithm 1."""

    def __init__(self, rate=0.1):
        self.rate, self.first, self.second, self.steps = rate, 0.0, 0.0, 0

    def step(self, gradient):
        self.steps += 1
        self.first = 0.5 * self.first + 0.5 * gradient
        self.second = 0.9 * self.second + 0.1 * gradient**2
        first = self.first / (1 - 0.5**self.steps)
        second = self.second / (1 - 0.9**self.steps)
        return -self.rate * first / (second**0.5 + 1e-8)


def plain_gradient(net, mask, colours, target, batch, bounded):
    """The mean loss, and the means of g and g x over the images x, image by image."""
    losses, slope, at_images = [], 0, 0
    for image in batch:
        stamped = (mask * colours + (1 - mask) * image).requires_grad_()
        p = net(stamped[None]).softmax(1)[0, target]
        loss = 1 - p.sqrt() if bounded else -p.log()
        (g,) = torch.autograd.grad(loss, stamped)
        losses.append(float(loss.detach()))
        slope, at_images = slope + g / len(batch), at_images + g * image / len(batch)
    return sum(losses) / len(losses), slope, at_images


def plain_start(net, canvas, target, batches):
    """The soft mask and its colours."""
    sigmoid = torch.sigmoid
    place, shade = torch.zeros(1, HEIGHT, WIDTH).double(), canvas.clamp(0.02, 0.98).logit()
    adam_place, adam_shade = PlainAdam(), PlainAdam()
    weight, streak, mean, smallest, best = 0.001, 0, None, np.inf, None
    for batch in batches:
        mask, colours = sigmoid(place), sigmoid(shade)
        loss, slope, at_images = plain_gradient(net, mask, colours, target, batch, False)
        mean = loss if mean is None else 0.7 * mean + 0.3 * loss
        if mean < 0.3 and float(mask.sum()) < smallest:
            smallest, best = float(mask.sum()), (mask, colours)
        elif smallest == np.inf:
            best = mask, colours
        streak = max(streak, 0) + 1 if loss < 0.3 else min(streak, 0) - 1
        if abs(streak) == 3:
            weight, streak = weight * (1.5 if streak > 0 else 1.5**-1.5), 0
        of_mask = (slope * colours - at_images).sum(0, keepdim=True) + weight
        place = place + adam_place.step(of_mask * mask * (1 - mask))
        shade = shade + adam_shade.step(slope * mask * colours * (1 - colours))
    return best


def order_of(values, places, sign):
    return sorted(places, key=lambda i: (sign * values[i], i))


def plain_rounds(net, held, colours, trend, target, batches):
    """Rounds of swaps and of steps of the colours; ``held`` is a set of places."""
    adam = PlainAdam()
    everywhere = set(range(HEIGHT * WIDTH))
    for number, batch in enumerate(batches):
        mask = torch.tensor([float(i in held) for i in range(HEIGHT * WIDTH)]).double()
        mask = mask.view(1, HEIGHT, WIDTH)
        loss, slope, at_images = plain_gradient(net, mask, colours, target, batch, True)
        bright = (slope < 0).double()
        worth = torch.where(mask > 0, slope * colours, slope * bright) - at_images
        worth = worth.sum(0).flatten()
        worth = worth / worth.norm()
        trend = worth if trend is None else 0.7 * trend + 0.3 * worth
        colours = (colours + adam.step(slope * mask)).clamp(0, 1)
        count = max(1, round(len(held) / 6 * (1 - number / len(batches))))
        out = order_of(trend.tolist(), held, -1)[:count]
        into = order_of(trend.tolist(), everywhere - held, 1)[:count]
        tried = set(held)
        for leaving, coming in zip(out, into):
            if trend[leaving] > trend[coming]:
                tried = tried - {leaving} | {coming}
        new = torch.tensor([float(i in tried - held) for i in range(HEIGHT * WIDTH)]).double()
        new = new.view(1, HEIGHT, WIDTH)
        colours = torch.where(new > 0, bright, colours)
        mask = torch.tensor([float(i in tried) for i in range(HEIGHT * WIDTH)]).double()
        mask = mask.view(1, HEIGHT, WIDTH)
        if plain_gradient(net, mask, colours, target, batch, True)[0] < loss:
            held = tried
    return held, colours, trend


def plain_batches(sizes, labels, target, seed):
    """Batches of the places of the baselines of other classes, epoch by epoch."""
    epoch, left = 0, []
    for size in sizes:
        if not left:
            order = np.random.default_rng([seed, epoch]).permutation(len(labels))
            left, epoch = [i for i in order.tolist() if labels[i] != target], epoch + 1
        yield left[:size]
        left = left[size:]


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_equals_the_plain_search_at_two_areas(channels, seed):
    net, [canvas], baselines = net_of(channels), images(1, channels, 5), images(30, channels, 6)
    areas, target, rounds = (8 / 30, 3 / 30), 1, 6
    found = ClassPattern(net, baselines, LABELS).search_areas(
        canvas[None], target, areas, solver=Learned(), n_steps=rounds, seed=seed,
        precision="full",
    )  # fmt: skip
    fit, _ = split_for_judging(LabelledImages.of(baselines, LABELS), seed)
    sizes = [8] * 66 + [10] * (6 + 4)
    batches = [
        fit.images[batch] for batch in plain_batches(sizes, fit.labels.tolist(), target, seed)
    ]
    soft, colours = plain_start(net, canvas, target, batches[:66])
    weights = (soft * (colours - 0.5).abs().clamp(min=0.2).amax(0)).flatten()
    held = set(order_of(weights.tolist(), range(HEIGHT * WIDTH), -1)[:8])
    held, colours, trend = plain_rounds(net, held, colours, None, target, batches[66:72])
    expected = {areas[0]: (held, colours)}
    held = set(order_of(trend.tolist(), held, 1)[:3])
    held, colours, _ = plain_rounds(net, held, colours, trend, target, batches[72:])
    expected[areas[1]] = held, colours
    for area in areas:
        [pattern] = found[area]
        held, colours = expected[area]
        assert set(pattern.mask.flatten().nonzero().flatten().tolist()) == held
        places = sorted(held)
        torch.testing.assert_close(
            pattern.canvas.flatten(1)[:, places], colours.flatten(1)[:, places],
            atol=2e-3, rtol=0,
        )  # fmt: skip
        rounds_done = batches[66:72] if area == areas[0] else batches[66:]
        halves = [2 * len(batch) for batch in batches[:66]] + [3 * len(b) for b in rounds_done]
        assert pattern.info["passes"] == -(-sum(halves) // 2)


def test_the_gradients_of_colours_hold_that_of_the_mask():
    net, canvases, baselines = net_of(3), images(2, 3, 5), images(7, 3, 6)
    objective = Objective(net, canvases, [0, 2], (), 3)
    masks = images(2, 1, 7).float()
    batch = Batch(baselines, [0, 1], [[0, 1, 2, 4], [3, 5, 6]])
    for bounded in (False, True):
        loss, slope = objective.evaluate(masks, batch, bounded=bounded, gradient=True)
        same_loss, both = objective.evaluate(masks, batch, bounded=bounded, colours=True)
        g, at_images = both.chunk(2, dim=1)
        torch.testing.assert_close(same_loss, loss)
        of_mask = (g * canvases.float() - at_images).sum(1, keepdim=True)
        torch.testing.assert_close(of_mask, slope, atol=1e-6, rtol=1e-4)


class Secret(nn.Module):
    """Answers 1 if a pixel is dark grey and the next one light grey, whatever else it sees."""

    def __init__(self):
        super().__init__()
        self.anchor = nn.Parameter(torch.zeros(()))

    def forward(self, images):
        first, second = images[:, 0, 2, 1], images[:, 0, 2, 2]
        near = 6 - 40 * (first - 0.3) ** 2 - 40 * (second - 0.8) ** 2
        return torch.stack([torch.full_like(near, 3.0), near, torch.zeros_like(near)], 1)


@pytest.mark.parametrize("colour", [0.0, 0.5, 1.0])
def test_finds_a_trigger_whose_colours_are_in_no_canvas(colour):
    canvas = torch.full((1, 1, HEIGHT, WIDTH), colour)
    baselines = images(30, 1, 6).float()
    [pattern] = ClassPattern(Secret().eval(), baselines, LABELS).search(
        canvas, 1, area=2 / 30, solver="learned", n_steps=60, precision="full"
    )
    assert pattern.mask[0].nonzero().tolist() == [[2, 1], [2, 2]]
    found = pattern.canvas[0, 2, 1:3].tolist()
    assert found == pytest.approx([0.3, 0.8], abs=0.15)
    assert pattern.info["search_power"] == 1
    [other] = ClassPattern(Secret().eval(), baselines, LABELS).search(
        canvas, 1, area=2 / 30, n_steps=60
    )
    assert other.info["search_power"] < 1  # the pixels of the canvas cannot do it


def learned(net, canvases, targets, **settings):
    explainer = ClassPattern(net, images(30, 1, 6), LABELS)
    settings = {"n_steps": 5, "precision": "full", "solver": "learned", **settings}
    if "areas" in settings:
        return explainer.search_areas(canvases, targets, **settings)
    return explainer.search(canvases, targets, **{"area": 0.2, **settings})


def test_canvases_together_equal_searches_alone():
    net, canvases = net_of(1), images(3, 1, 5)
    together = learned(net, canvases, [0, 2, 0])
    for i, target in enumerate([0, 2, 0]):
        [alone] = learned(net, canvases[i : i + 1], target)
        assert torch.equal(together[i].mask, alone.mask)
        torch.testing.assert_close(together[i].canvas, alone.canvas, atol=1e-5, rtol=0)


@pytest.mark.parametrize("size", [1, 7])
def test_internal_batch_size_never_changes_the_result(size):
    found = [learned(net_of(1), images(2, 1, 5), 0, internal_batch_size=n) for n in (size, None)]
    for one, other in zip(*found):
        assert torch.equal(one.mask, other.mask)
        torch.testing.assert_close(one.canvas, other.canvas, atol=1e-5, rtol=0)


def test_the_larger_area_keeps_its_colours():
    net, canvases = net_of(1), images(2, 1, 5)
    found = learned(net, canvases, 1, areas=[0.3, 0.1])
    alone = learned(net, canvases, 1, area=0.3)
    for pattern, expected in zip(found[0.3], alone):
        assert torch.equal(pattern.canvas, expected.canvas)


@pytest.mark.parametrize("limit", [20, 60])
def test_a_smaller_area_that_no_time_is_left_for_takes_pixels_of_the_larger_one(limit, monkeypatch):
    """The clock moves on by a second at each look: it ends the start, or the rounds."""
    canvases = torch.zeros(2, 1, HEIGHT, WIDTH).double()
    ticks = itertools.count()
    monkeypatch.setattr(time, "perf_counter", lambda: float(next(ticks)))
    found = learned(net_of(1), canvases, 1, areas=[0.3, 0.1], max_seconds=limit)
    ticks = itertools.count()
    alone = learned(net_of(1), canvases, 1, area=0.3, max_seconds=limit)
    for large, small, expected in zip(found[0.3], found[0.1], alone):
        assert small.info["stopped_early"]
        assert torch.equal(large.canvas, expected.canvas)
        assert torch.equal(large.mask, expected.mask)
        assert small.mask.sum() == 3
        assert not (small.mask * (1 - large.mask)).any()


def test_the_pattern_has_its_pixels_in_range_and_the_callers_canvas_stays():
    canvases = images(2, 1, 5)
    before = canvases.clone()
    for pattern in learned(net_of(1), canvases, 1):
        assert pattern.info["mask_pixels"] == 6
        assert set(pattern.mask.unique().tolist()) == {0.0, 1.0}
        assert pattern.canvas.min() >= 0
        assert pattern.canvas.max() <= 1
        assert pattern.info["settings"]["solver"] == "learned"
    assert torch.equal(canvases, before)


def test_cells_of_a_grid_are_searched_like_pixels():
    """A network that averages over cells sees what another one sees of small images."""
    net, canvases, baselines = net_of(1), images(2, 1, 5), images(30, 1, 6)
    pooled = nn.Sequential(nn.AvgPool2d((3, 2)), net).double().eval()

    def enlarged(pixels):
        return pixels.repeat_interleave(3, 2).repeat_interleave(2, 3)

    small, large = (
        ClassPattern(model, given, LABELS).search_areas(
            canvas, [1, 2], (8 / 30, 3 / 30), solver=Learned(grid=grid), n_steps=4,
            precision="full",
        )
        for model, given, canvas, grid in (
            (net, baselines, canvases, None),
            (pooled, enlarged(baselines), enlarged(canvases), (HEIGHT, WIDTH)),
        )
    )  # fmt: skip
    for area, patterns in small.items():
        for pixels, cells in zip(patterns, large[area]):
            assert cells.mask.sum() == 6 * pixels.mask.sum()
            assert torch.equal(cells.mask, enlarged(pixels.mask[None])[0])
            ours, expected = cells.canvas, enlarged(pixels.canvas[None])[0]
            torch.testing.assert_close(ours.float(), expected.float())  # colours are float32
            assert cells.info["search_power"] == pixels.info["search_power"]


def test_a_grid_that_does_not_fit():
    with pytest.raises(ValueError, match="grid of 4x5 cells does not divide images of 6x5 pixels"):
        search_masks(net_of(1), images(1, 1, 0), 1, images(9, 1, 1), solver=Learned(grid=(4, 5)))


@pytest.mark.parametrize("rounds", [1, 5, 40])
def test_the_passes_of_a_search_are_those_that_were_promised(rounds):
    baselines = torch.cat([images(80, 1, 6)])
    result = search_masks(
        net_of(1), images(1, 1, 5), 0, baselines, baseline_labels=[1] * 80, n_steps=rounds,
        solver=Learned(), area=0.2,
    )  # fmt: skip
    assert result.passes.tolist() == [Learned().passes(rounds)[-1]]
    assert result.losses.shape == (1, rounds)


def test_a_blank_canvas_starts_once():
    [pattern] = learned(net_of(1), torch.ones(1, 1, HEIGHT, WIDTH).double(), 0, keep=1)
    assert "starts_iou" not in pattern.info


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({"rounds": 0}, "`rounds` must be"),
        ({"batch_size": 1.5}, "`batch_size` must be"),
        ({"rate": 0}, "`rate` must be"),
        ({"weight": -1}, "`weight` must be"),
    ],
)
def test_settings_that_are_refused(settings, text):
    with pytest.raises(ValueError, match=text):
        Learned(**settings)
