"""The solver that also learns colours finds what a plain, slow version finds."""

import numpy as np
import pytest
import torch
from plain_solvers import PlainAdam, Problem, binary, cross_entropy, exchanged, miss
from searched import split_for_validation
from small_models import conv_net
from torch import nn

from captum_classpattern import ClassPattern
from captum_classpattern.images import LabelledImages
from captum_classpattern.optimization import Learned, grid_cells

LABELS = torch.arange(30) % 3
HEIGHT, WIDTH = 6, 5
PIXELS = HEIGHT * WIDTH
AREAS, ROUNDS, SOFT = (8 / PIXELS, 3 / PIXELS), 6, 66


def net_of(channels):
    return conv_net(channels, HEIGHT, WIDTH, gain=3.0)


def images(n, channels, seed):
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(n, channels, HEIGHT, WIDTH, generator=generator, dtype=torch.float64)


def learned(canvases, targets, *, net=None, baselines=None, **settings):
    channels = canvases.shape[1]
    baselines = images(30, channels, 6) if baselines is None else baselines
    explainer = ClassPattern(net or net_of(channels), baselines, LABELS)
    settings = {"n_steps": 5, "precision": "full", "solver": "learned", **settings}
    return explainer.search(canvases, targets, **settings)


def plain_gradient(problem, mask, colours, batch, loss_of):
    """The mean loss, and the means of g and g x over the images x, image by image."""
    losses, slope, at_images = [], 0, 0
    for image in problem.images[batch]:
        stamped = (mask * colours + (1 - mask) * image).requires_grad_()
        loss = loss_of(problem.net(stamped[None]).softmax(1)[0, problem.target])
        (g,) = torch.autograd.grad(loss, stamped)
        losses.append(float(loss.detach()))
        slope, at_images = slope + g / len(batch), at_images + g * image / len(batch)
    return sum(losses) / len(losses), slope, at_images


def plain_start(problem, batches, rate):
    """The soft mask and its colours."""
    place = torch.zeros(1, HEIGHT, WIDTH).double()
    shade = problem.canvas.clamp(0.02, 0.98).logit()
    adam_place, adam_shade = PlainAdam(rate), PlainAdam(rate)
    weight, streak, mean, smallest, best = 0.001, 0, None, np.inf, None
    for batch in batches:
        mask, colours = torch.sigmoid(place), torch.sigmoid(shade)
        loss, slope, at_images = plain_gradient(problem, mask, colours, batch, cross_entropy)
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


def mask_of(held):
    return torch.from_numpy(binary(held, PIXELS)).view(1, HEIGHT, WIDTH)


def plain_rounds(problem, held, colours, trend, batches, rate):
    """Rounds of swaps and of steps of the colours; ``held`` is a set of places."""
    adam = PlainAdam(rate)
    for number, batch in enumerate(batches):
        mask = mask_of(held)
        loss, slope, at_images = plain_gradient(problem, mask, colours, batch, miss)
        bright = (slope < 0).double()
        worth = torch.where(mask > 0, slope * colours, slope * bright) - at_images
        worth = worth.sum(0).flatten()
        worth = worth / worth.norm()
        trend = worth if trend is None else 0.7 * trend + 0.3 * worth
        colours = (colours + adam.step(slope * mask)).clamp(0, 1)
        count = max(1, round(len(held) / 6 * (1 - number / len(batches))))
        tried = exchanged(held, trend.tolist(), count)
        colours = torch.where(mask_of(tried - held) > 0, bright, colours)
        if plain_gradient(problem, mask_of(tried), colours, batch, miss)[0] < loss:
            held = tried
    return held, colours, trend


def highest(values, places, count):
    values = values.tolist()
    return set(sorted(places, key=lambda i: (-values[i], i))[:count])


def plain_search(problem, rate):
    """Of each area the mask, the colours and the passes."""
    fewer = -(-ROUNDS * 2 // 3)
    batches = problem.batches([8] * SOFT + [10] * (ROUNDS + fewer))
    halves = [2 * len(batch) for batch in batches[:SOFT]] + [3 * len(b) for b in batches[SOFT:]]
    soft, colours = plain_start(problem, batches[:SOFT], rate)
    worth = (soft * (colours - 0.5).abs().clamp(min=0.2).amax(0)).flatten()
    held, trend, done, found = range(PIXELS), None, SOFT, []
    for area, rounds in zip(AREAS, (ROUNDS, fewer)):
        held = highest(worth, held, round(area * PIXELS))
        steps = batches[done : done + rounds]
        held, colours, trend = plain_rounds(problem, held, colours, trend, steps, rate)
        worth, done = -trend, done + rounds
        found.append((mask_of(held), colours, -(-sum(halves[:done]) // 2)))
    return found


def assert_plain(pattern, plain):
    mask, colours, passes = plain
    assert torch.equal(pattern.mask, mask.float())
    ours = pattern.canvas * pattern.mask
    torch.testing.assert_close(ours, colours * pattern.mask, atol=2e-3, rtol=0)
    assert pattern.info["passes"] == passes


@pytest.mark.parametrize(
    ("channels", "seed", "rate"), [(1, 0, 0.1), (1, 1, 0.2), (3, 2, 0.2), (3, 0, 0.1)]
)
def test_equals_the_plain_search_at_two_areas(channels, seed, rate):
    [canvas], baselines = images(1, channels, 5), images(30, channels, 6)
    given = {"area": AREAS, "n_steps": ROUNDS, "seed": seed}
    found = learned(canvas[None], 1, solver=Learned(rate=rate), **given)
    fit, validation = split_for_validation(LabelledImages.of(baselines, LABELS), seed)
    others = validation.without_class(1).images
    problem = Problem(net_of(channels), canvas, 1, fit.images, fit.labels.tolist(), seed)
    for area, plain in zip(AREAS, plain_search(problem, rate)):
        [pattern] = found[area]
        assert_plain(pattern, plain)
        hits = problem.net(pattern.stamp(others)).argmax(1) == 1
        assert pattern.info["search_power"] == hits.sum() / len(others)


@pytest.mark.filterwarnings("ignore:the model's outputs are all >= 0")
@pytest.mark.parametrize(
    ("seed", "best"),
    [(3, 2), (6, 0)],  # the last would be 1 by the margins of probabilities
)
def test_of_all_starts_the_one_with_the_largest_margin_goes_on(seed, best):
    """Each is a plain search from its own colours that meets the images in its own order."""
    canvas, net = torch.full((1, 1, HEIGHT, WIDTH), 0.5).double(), net_of(1)
    fit, validation = split_for_validation(LabelledImages.of(images(30, 1, 6), LABELS), seed)
    others, margins, plain = validation.without_class(1).images, [], []
    for start in range(3):
        chance = np.random.default_rng([seed, 1, start])
        first = torch.from_numpy(chance.integers(2, size=canvas[0].shape)) if start else canvas[0]
        given = fit.images, fit.labels.tolist(), seed, start
        plain.append(plain_search(Problem(net, first.double(), 1, *given), 0.1))
        mask, colours, _ = plain[-1][0]
        logits = net(torch.where(mask > 0, colours, others)).detach()
        margins.append(float((logits[:, 1] - logits[:, [0, 2]].amax(1)).mean()))
    assert margins.index(max(margins)) == best
    given = {"area": AREAS, "n_steps": ROUNDS, "seed": seed}
    given["solver"] = Learned(starts=3)
    found, again = (learned(canvas, 1, keep=keep, **given) for keep in (None, 1))
    softened = learned(canvas, 1, net=nn.Sequential(net, nn.Softmax(1)).eval(), **given)
    together = sum(each[0][2] for each in plain) + plain[best][1][2] - plain[best][0][2]
    for area, expected in zip(AREAS, plain[best]):
        [pattern], [same], [other] = found[area], again[area], softened[area]
        assert_plain(pattern, expected)
        assert_plain(other, expected)
        assert torch.equal(same.mask, pattern.mask)
        assert torch.equal(same.canvas, pattern.canvas)
        assert pattern.info["passes_together"] == together  # no start is screened


def test_the_larger_area_keeps_its_colours_and_the_caller_the_canvases():
    canvases = images(2, 1, 5)
    before = canvases.clone()
    found = learned(canvases, 1, area=[0.3, 0.1])
    for pattern, expected in zip(found[0.3], learned(canvases, 1, area=[0.3])[0.3]):
        assert torch.equal(pattern.canvas, expected.canvas)
        assert not torch.equal(pattern.canvas, canvases[0])
        assert 0 <= pattern.canvas.min() < pattern.canvas.max() <= 1
    assert torch.equal(canvases, before)


def test_a_screened_pool_begins_each_area_with_the_colours_that_were_given():
    canvases = images(3, 1, 5)
    found = learned(canvases, 1, area=AREAS, keep=1)
    for area in AREAS:
        [pattern], [alone] = found[area], learned(canvases, 1, area=area, keep=1)
        assert torch.equal(pattern.mask, alone.mask)
        assert torch.equal(pattern.canvas, alone.canvas)


def test_cells_of_a_grid_are_searched_like_pixels():
    """A network that averages over cells sees what another one sees of small images."""
    canvases, baselines, settings = images(2, 1, 5), images(30, 1, 6), {"n_steps": 4}
    settings["area"] = areas = 8 / 30, 3 / 30
    pooled = nn.Sequential(nn.AvgPool2d((3, 2)), net_of(1)).double().eval()

    def enlarged(pixels):
        return pixels.repeat_interleave(3, -2).repeat_interleave(2, -1)

    small = learned(canvases, [1, 2], **settings)
    settings |= {"net": pooled, "baselines": enlarged(baselines)}
    cells = grid_cells(3 * HEIGHT, 2 * WIDTH, HEIGHT, WIDTH)
    large = learned(enlarged(canvases), [1, 2], feature_mask=cells, **settings)
    for area in areas:
        for pixels, cells in zip(small[area], large[area], strict=True):
            assert torch.equal(cells.mask, enlarged(pixels.mask))
            expected = enlarged(pixels.canvas).float()  # colours are float32
            torch.testing.assert_close(cells.canvas.float(), expected)
            assert cells.info["search_power"] == pixels.info["search_power"]
