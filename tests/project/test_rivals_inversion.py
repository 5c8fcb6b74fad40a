"""Detectors of other authors: against plain, slow versions, and what they find and promise."""

import math

import numpy as np
import pytest
import torch
from scipy import special
from scripts import imported
from test_captum_contract import make_net, random_images, state_of_caller
from torch import nn

from captum_classpattern.comparison.maps import PrivateModel
from captum_classpattern.images import LabelledImages

rivals = imported("benchmarks", "rivals")
anomaly_index, mm_bd, mm_bd_p_value = rivals.anomaly_index, rivals.mm_bd, rivals.mm_bd_p_value
neural_cleanse, pixel_inversion = rivals.neural_cleanse, rivals.pixel_inversion
_Weight = rivals.inversion._Weight

LABELS = torch.arange(30) % 3
HEIGHT, WIDTH = 6, 5
BOTH = pytest.mark.parametrize("invert", [neural_cleanse, pixel_inversion])


def net_of(channels, gain=3.0):
    with torch.random.fork_rng():
        torch.manual_seed(2)
        net = nn.Sequential(nn.Conv2d(channels, 6, 3), nn.Tanh(), nn.Flatten(), nn.Linear(72, 3))
    with torch.no_grad():
        net[0].weight.mul_(gain)
        net[3].weight.mul_(gain)
    return net.double().eval()


def images(n, channels=1, seed=6):
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(n, channels, HEIGHT, WIDTH, generator=generator, dtype=torch.float64)


# ---- plain versions


class PlainAdam:
    """Kingma and Ba 2015, arXiv 1412.6980, algorithm 1."""

    def __init__(self):
        self.first, self.second, self.steps = 0.0, 0.0, 0

    def step(self, gradient):
        self.steps += 1
        self.first = 0.5 * self.first + 0.5 * gradient
        self.second = 0.9 * self.second + 0.1 * gradient**2
        first = self.first / (1 - 0.5**self.steps)
        second = self.second / (1 - 0.9**self.steps)
        return -0.1 * first / (second**0.5 + 1e-8)


def plain_weight(successes, start, factor, patience, enough):
    """The weight after so many epochs."""
    weight, streak = start, 0
    for success in successes:
        streak = max(streak, 0) + 1 if success >= enough else min(streak, 0) - 1
        if streak == patience:
            weight = weight * factor if weight > 0 else 0.001
        if streak == -patience:
            weight = weight / factor**1.5
        if abs(streak) == patience:
            streak = 0
    return weight


def plain_loss(net, images, target):
    """The gradient of the mean cross-entropy at each image, and the share that is the class."""
    slopes, hits = [], 0
    for image in images:
        free = image.clone().requires_grad_()
        logits = net(free[None])
        loss = -logits.log_softmax(1)[0, target] / len(images)
        slopes.append(torch.autograd.grad(loss, free)[0])
        hits += int(logits.argmax()) == target
    return slopes, hits / len(images)


def plain_epochs(chance, others, steps, size, epoch):
    """The batches of each epoch."""
    for _ in range(steps // epoch):
        yield [
            others[torch.from_numpy(chance.choice(len(others), size, replace=len(others) < size))]
            for _ in range(epoch)
        ]


def plain_cleanse(net, others, target, seed, steps, size, epoch):
    """Mask, colours and success."""
    chance = np.random.default_rng([seed, target])
    place = torch.from_numpy(np.arctanh((chance.random((1, HEIGHT, WIDTH)) - 0.5) * 1.999))
    shade = torch.from_numpy(np.arctanh((chance.random(others.shape[1:]) - 0.5) * 1.999))
    adams, successes, best = (PlainAdam(), PlainAdam()), [], None
    for batches in plain_epochs(chance, others, steps, size, epoch):
        weight, hits = plain_weight(successes, 0.0, 2.0, 5, 0.99), []
        for batch in batches:
            mask, colours = place.tanh() / (2 + 1e-7) + 0.5, shade.tanh() / (2 + 1e-7) + 0.5
            stamped = [mask * colours + (1 - mask) * x for x in batch]
            slopes, share = plain_loss(net, stamped, target)
            hits.append(share)
            of_mask = sum((g * (colours - x)).sum(0, keepdim=True) for g, x in zip(slopes, batch))
            of_colours = sum(g * mask for g in slopes)
            place = place + adams[0].step((of_mask + weight) * (1 - place.tanh() ** 2) / (2 + 1e-7))
            shade = shade + adams[1].step(of_colours * (1 - shade.tanh() ** 2) / (2 + 1e-7))
        successes.append(sum(hits) / len(hits))
        found = mask, colours, successes[-1]
        good = successes[-1] >= 0.99
        if best is None or best[2] < 0.99 or (good and mask.sum() < best[0].sum()):
            best = found
    return best


def plain_pixels(net, others, target, seed, steps, size, epoch):
    """The change, its success, and in how many epochs a better one was found. After each of these,
    the search continues from the change that was found (Tao et al. 2022)."""
    chance = np.random.default_rng([seed, target])
    parts = [torch.from_numpy(chance.random(others.shape[1:])) for _ in range(2)]
    adams, successes, best, records = (PlainAdam(), PlainAdam()), [], None, 0
    for batches in plain_epochs(chance, others, steps, size, epoch):
        weight, hits = plain_weight(successes, 0.001, 1.5, 10, 0.9), []
        for batch in batches:
            up, down = (part.clamp(0, 1) for part in parts)
            sums = [x + up - down for x in batch]
            slopes, share = plain_loss(net, [x.clamp(0, 1) for x in sums], target)
            hits.append(share)
            slope = sum(g * ((x >= 0) & (x <= 1)) for g, x in zip(slopes, sums))
            price, moves = 0.0, []
            for part, sign, adam in zip(parts, (1, -1), adams):
                largest = (part == part.amax(0)).double()  # channels that are equal share it
                price += float((part.amax(0) / 10).tanh().div(2).add(0.5).sum())
                of_price = largest / largest.sum(0) * (1 - (part / 10).tanh() ** 2) / 20
                inside = (part >= 0) & (part <= 1)
                moves.append(adam.step(sign * slope * inside + weight * of_price))
            parts = [part + move for part, move in zip(parts, moves)]
        successes.append(sum(hits) / len(hits))
        up, down = (part.where(part >= 1 / 255, 0) for part in (up, down))
        change = up - down
        pixels = int((change != 0).any(0).sum())
        good = successes[-1] >= 0.9
        if good and (best is None or best[3] < 0.9 or (price < best[0] and pixels < best[1])):
            best, records = (price, pixels, change, successes[-1]), records + 1
            parts = [up, down]
        elif best is None or best[3] < 0.9:
            best = price, pixels, change, successes[-1]
    return best[2], best[3], records


STEPS, SIZE = 80, 8


def inverted(invert, channels, seed, *, net=None, target=1, size=SIZE, epoch=1):
    return invert(
        net or net_of(channels), images(30, channels), target, labels=LABELS,
        passes=STEPS * size, batch_size=size, epoch=epoch, seed=seed,
    )  # fmt: skip


def stubborn(channels):
    """Never predicts class 1."""
    net = net_of(channels)
    with torch.no_grad():
        net[3].bias[1] -= 500
    return net


CASES = pytest.mark.parametrize(
    ("channels", "seed", "size", "epoch", "make"),
    [
        *((channels, seed, SIZE, 1, net_of) for channels in (1, 3) for seed in (0, 1, 2)),
        (1, 3, 5, 3, net_of),
        (1, 4, 25, 2, net_of),  # more than there are images of other classes
        (1, 5, SIZE, 1, stubborn),
    ],
)


@CASES
def test_neural_cleanse_equals_the_plain_one(channels, seed, size, epoch, make):
    net, others = make(channels), images(30, channels)[LABELS != 1]
    found = inverted(neural_cleanse, channels, seed, net=net, size=size, epoch=epoch)
    mask, colours, success = plain_cleanse(net, others, 1, seed, STEPS, size, epoch)
    torch.testing.assert_close(found.pattern.mask, mask.float(), atol=1e-4, rtol=0)
    torch.testing.assert_close(found.pattern.canvas, colours.float(), atol=1e-4, rtol=0)
    assert found.size == pytest.approx(float(mask.sum()), rel=1e-4)
    assert found.success == pytest.approx(success)
    assert found.success == (0.0 if make is stubborn else 1.0)


@CASES
def test_pixel_inversion_equals_the_plain_one(channels, seed, size, epoch, make):
    net, others = make(channels), images(30, channels)[LABELS != 1]
    found = inverted(pixel_inversion, channels, seed, net=net, size=size, epoch=epoch)
    change, success, records = plain_pixels(net, others, 1, seed, STEPS, size, epoch)
    colours = (others + change).clamp(0, 1).mean(0)
    largest = change.abs().amax(0, keepdim=True)
    torch.testing.assert_close(found.pattern.mask, largest.float(), atol=1e-3, rtol=0)
    torch.testing.assert_close(found.pattern.canvas, colours.float(), atol=1e-3, rtol=0)
    assert found.size == int((largest > 0).sum())
    assert found.success == pytest.approx(success)
    assert (found.success >= 0.9) == (records > 0) == (make is not stubborn)


@BOTH
def test_what_is_returned(invert):
    found = inverted(invert, 3, 0)
    assert isinstance(found, rivals.Inversion)
    pattern = found.pattern
    assert (pattern.target, pattern.canvas.shape) == (1, (3, HEIGHT, WIDTH))
    assert pattern.mask.shape == (1, HEIGHT, WIDTH)
    assert {pattern.canvas.dtype, pattern.mask.dtype} == {torch.float32}
    assert not pattern.mask.requires_grad
    mask = pattern.mask
    size = mask.sum() if invert is neural_cleanse else (mask > 0).sum()
    assert found.size == pytest.approx(float(size), rel=1e-6)
    stamped = pattern.stamp(images(30, 3)[LABELS != 1])
    if invert is neural_cleanse:  # the change of pixel inversion has no single colour
        assert (net_of(3)(stamped).argmax(1) == 1).float().mean() > 0.7


# ---- the weight


def weights_after(weight, successes):
    values = []
    for success in successes:
        weight.update(success)
        values.append(weight.value)
    return values


def test_the_weight_of_neural_cleanse_step_by_step():
    weight = _Weight(0.0, 0.001, 2.0, patience=5, success=0.99)
    assert weights_after(weight, [1.0] * 4 + [0.98]) == [0] * 5
    assert weights_after(weight, [0.0] * 9) == [0] * 9  # half of nothing
    assert weights_after(weight, [0.99] * 5) == [0, 0, 0, 0, 0.001]
    assert weights_after(weight, [1.0] * 5) == [0.001] * 4 + [0.002]
    assert weights_after(weight, [0.0] * 4 + [1.0]) == [0.002] * 5
    assert weights_after(weight, [1.0] * 4) == [0.002] * 3 + [0.004]
    low = 0.004 / math.sqrt(8)
    assert weights_after(weight, [0.98] * 5) == pytest.approx([0.004] * 4 + [low])
    assert weights_after(weight, [0.5] * 5) == pytest.approx([low] * 4 + [low / math.sqrt(8)])


def test_the_weight_of_pixel_inversion_step_by_step():
    weight = _Weight(0.001, 0.001, 1.5, patience=10, success=0.9)
    assert weights_after(weight, [0.9] * 10) == pytest.approx([0.001] * 9 + [0.0015])
    assert weights_after(weight, [1.0] * 9 + [0.89]) == pytest.approx([0.0015] * 10)
    low = 0.0015 / 1.5 / math.sqrt(1.5)
    assert weights_after(weight, [0.0] * 9) == pytest.approx([0.0015] * 8 + [low])


@pytest.mark.parametrize(("start", "factor", "patience"), [(0.0, 2.0, 5), (0.001, 1.5, 10)])
def test_the_weight_equals_the_plain_one(start, factor, patience):
    chance = np.random.default_rng(0)
    weight, successes = _Weight(start, 0.001, factor, patience=patience, success=0.9), []
    for length in chance.integers(1, 14, 40):  # runs of one kind
        successes += [float(chance.choice([0.5, 0.9]))] * int(length)
    for number in range(len(successes)):
        weight.update(successes[number])
        expected = plain_weight(successes[: number + 1], start, factor, patience, 0.9)
        assert weight.value == pytest.approx(expected)


class NineOfTen(nn.Module):
    """Gives its class to all images but the first, for a while; then to none."""

    def __init__(self):
        super().__init__()
        self.anchor, self.calls = nn.Parameter(torch.zeros(())), 0

    def forward(self, pixels):
        self.calls += len(pixels) == 10
        wins = torch.arange(len(pixels)).clamp(max=1) if self.calls <= 20 else 0
        logit = wins * torch.ones(len(pixels)) + 0 * pixels.sum((1, 2, 3))
        return torch.stack([torch.full_like(logit, 0.5), logit], 1)


def test_nine_of_ten_is_a_success_of_pixel_inversion():
    given = images(10).float()
    found = pixel_inversion(
        NineOfTen().eval(), given, 1, labels=[0] * 10, passes=300, batch_size=10
    )
    assert found.success == pytest.approx(0.9)  # and not the last one, with 0


# ---- which images, and how many


@BOTH
def test_images_of_the_class_are_never_used(invert):
    net, given = net_of(1), images(30)
    expected = inverted(invert, 1, 0)
    for label, same in ((1, True), (0, False)):
        changed = given.clone()
        changed[label == LABELS] = 0.5
        found = invert(net, changed, 1, labels=LABELS, passes=STEPS * SIZE, batch_size=SIZE)
        assert torch.equal(found.pattern.mask, expected.pattern.mask) == same
        assert torch.equal(found.pattern.canvas, expected.pattern.canvas) == same


@BOTH
def test_without_labels_the_predictions_are_taken(invert):
    net, given = net_of(1), images(30)
    predicted = net(given).argmax(1)
    assert len(predicted.unique()) > 1
    settings = {"passes": 80, "batch_size": 8}
    one = invert(net, given, 1, **settings)
    other = invert(net, given, 1, labels=predicted, **settings)
    assert torch.equal(one.pattern.mask, other.pattern.mask)
    data = LabelledImages(given, predicted)
    third = invert(net, data, 1, **settings)
    assert torch.equal(one.pattern.canvas, third.pattern.canvas)


@BOTH
@pytest.mark.parametrize(
    ("settings", "passes"),
    [
        ({}, 1280),
        ({"passes": 320}, 320),
        ({"passes": 96, "batch_size": 4, "epoch": 8}, 96),
        ({"passes": 100, "batch_size": 8}, 96),
        ({"passes": 100, "batch_size": 8, "epoch": 5}, 80),
    ],
)
def test_passes_are_those_that_were_promised(invert, settings, passes):
    private = PrivateModel(net_of(1))
    invert(private.forward_func, images(30), 1, labels=LABELS, **settings)
    assert private.passes == passes


@BOTH
def test_the_seed_chooses_start_and_batches(invert):
    one, same, other = (inverted(invert, 1, seed).pattern for seed in (0, 0, 1))
    assert torch.equal(one.mask, same.mask)
    assert torch.equal(one.canvas, same.canvas)
    assert not torch.equal(one.mask, other.mask)


# ---- a backdoor

SIDE = 10
PATCH = {(7, 7): 1.0, (7, 8): -1.0, (8, 7): -1.0, (8, 8): 1.0}


def row_images(n=60):
    """Images that are brighter in the two rows of their class, of five."""
    generator = torch.Generator().manual_seed(0)
    pixels, labels = 0.2 + 0.2 * torch.rand(n, 1, SIDE, SIDE, generator=generator), torch.arange(n)
    for y in range(5):
        pixels[labels % 5 == y, :, 2 * y : 2 * y + 2] += 0.4
    return pixels, labels % 5


class Rows(nn.Module):
    """Compares the rows of the classes; four pixels, bright and dark in turn, are a backdoor."""

    def __init__(self, backdoor=None):
        super().__init__()
        generator = torch.Generator().manual_seed(1)
        self.weights = nn.Parameter(1 + 0.1 * torch.randn(5, 2 * SIDE, generator=generator))
        self.backdoor = backdoor

    def forward(self, pixels):
        logits = (pixels.view(-1, 5, 2 * SIDE) * self.weights).sum(2)
        if self.backdoor is None:
            return logits
        contrast = sum(sign * pixels[:, 0, i, j] for (i, j), sign in PATCH.items())
        one_hot = nn.functional.one_hot(torch.tensor(self.backdoor), 5)
        return logits + one_hot * nn.functional.softplus(10 * contrast - 3).unsqueeze(1)


@BOTH
@pytest.mark.parametrize("target", [0, 3])
def test_a_patch_backdoor_has_the_smallest_inversion(invert, target):
    pixels, labels = row_images()
    bad, clean = Rows(target).eval(), Rows().eval()
    assert torch.equal(bad(pixels).argmax(1), labels)
    passes = 1_280 if invert is neural_cleanse else 3_200
    found = [invert(bad, pixels, y, labels=labels, passes=passes) for y in range(5)]
    sizes = [one.size for one in found]
    assert min(one.success for one in found) > 0.9
    assert int(np.argmin(sizes)) == target
    assert 2 * sizes[target] < min(size for y, size in enumerate(sizes) if y != target)
    assert 2 * sizes[target] < invert(clean, pixels, target, labels=labels, passes=passes).size
    held = found[target].pattern.topk(4 / SIDE**2).mask[0].nonzero().tolist()
    assert len({*map(tuple, held)} & {*PATCH}) >= 3
    if invert is neural_cleanse:
        assert anomaly_index(sizes) > 2


def test_a_backdoor_has_the_largest_margin():
    bad, clean = (mm_bd(net.eval(), (1, SIDE, SIDE), 5, steps=100) for net in (Rows(3), Rows()))
    assert int(np.argmax(bad)) == 3
    assert bad[3] > clean.max() + 3
    assert mm_bd_p_value(bad) < 0.01 * mm_bd_p_value(clean)


# ---- margins


def plain_margins(net, channels, classes, n_images, steps, seed):
    """For each class the largest margin, and after how many steps each search ended."""
    found, taken = [], []
    for target in range(classes):
        chance = np.random.default_rng([seed, target])
        pixels = [*torch.from_numpy(chance.random((n_images, channels, HEIGHT, WIDTH)))]
        last, count = [math.inf] * n_images, 0
        for _ in range(steps):
            margins, count = [], count + 1
            for i, image in enumerate(pixels):
                free = image.clone().requires_grad_()
                logits = net(free.clamp(0, 1)[None])[0]
                margin = logits[target] - max(logits[y] for y in range(classes) if y != target)
                margins.append(float(margin.detach()))
                pixels[i] = image + 0.01 * torch.autograd.grad(margin, free)[0]
            still = all(abs(a - b) < 1e-5 * abs(a) for a, b in zip(margins, last))
            last = margins
            if still:
                break
        found.append(max(last))
        taken.append(count)
    return found, taken


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("channels", [1, 3])
def test_margins_equal_the_plain_ones(channels, seed):
    net = net_of(channels)
    found = mm_bd(net, (channels, HEIGHT, WIDTH), 3, n_images=4, steps=40, seed=seed)
    expected, _ = plain_margins(net, channels, 3, 4, 40, seed)
    assert found.shape == (3,)
    np.testing.assert_allclose(found, expected, rtol=1e-4)


def test_the_search_for_margins_ends_where_they_stay():
    """The pixels of a linear net end at 0 and 1, where nothing moves them any more."""
    net = nn.Sequential(nn.Flatten(), nn.Linear(HEIGHT * WIDTH, 3)).double().eval()
    with torch.no_grad():
        net[1].weight.copy_(torch.randn(3, 30, generator=torch.Generator().manual_seed(0)).sign())
        net[1].weight.mul_(5)
    private = PrivateModel(net)
    found = mm_bd(private.forward_func, (1, HEIGHT, WIDTH), 3, n_images=2)
    expected, taken = plain_margins(net, 1, 3, 2, 300, 0)
    np.testing.assert_allclose(found, expected, rtol=1e-4)
    assert 2 * sum(taken) <= private.passes <= 2 * (sum(taken) + 3)  # by a rounding error
    assert max(taken) < 300
    private = PrivateModel(net)
    mm_bd(private.forward_func, (1, HEIGHT, WIDTH), 3, n_images=2, steps=1)
    assert private.passes == 3 * 2


def test_margins_depend_on_the_seed_alone():
    net = net_of(1)
    one, same, other = (mm_bd(net, (1, HEIGHT, WIDTH), 3, steps=3, seed=s) for s in (0, 0, 1))
    assert one.tolist() == same.tolist()
    assert not set(one.tolist()) & set(other.tolist())


@pytest.mark.filterwarnings("ignore:the model's outputs are all >= 0 and sum to 1")
def test_a_softmax_at_the_end_changes_nothing():
    net, given = net_of(1), images(30)
    softmax = nn.Sequential(net, nn.Softmax(1)).eval()
    for invert in (neural_cleanse, pixel_inversion):
        one, other = (
            invert(model, given, 1, labels=LABELS, passes=160, batch_size=8)
            for model in (net, softmax)
        )
        torch.testing.assert_close(one.pattern.mask, other.pattern.mask, atol=1e-3, rtol=0)
    one, other = (mm_bd(model, (1, HEIGHT, WIDTH), 3, steps=5) for model in (net, softmax))
    np.testing.assert_allclose(one, other, rtol=1e-3)


# ---- statistics


def plain_p_value(margins):
    """The gamma distribution of most likelihood solves log(k) - digamma(k) = log(mean) - mean of
    the logs."""
    *others, largest = sorted(margins)
    mean = sum(others) / len(others)
    gap = math.log(mean) - sum(math.log(x) for x in others) / len(others)
    low, high = 1e-3, 1e6
    for _ in range(200):
        k = math.sqrt(low * high)
        low, high = (k, high) if math.log(k) - special.digamma(k) > gap else (low, k)
    return 1 - special.gammainc(k, largest / (mean / k)) ** len(margins)


@pytest.mark.parametrize("n", [3, 10, 43])
def test_the_p_value_equals_a_direct_computation(n):
    chance = np.random.default_rng(n)
    margins = chance.gamma(4.0, 2.0, n)
    chance.shuffle(margins)
    assert mm_bd_p_value(margins) == pytest.approx(plain_p_value(margins.tolist()), abs=1e-6)
    assert mm_bd_p_value(sorted(margins)) == pytest.approx(mm_bd_p_value(margins), abs=1e-9)


def test_margins_below_zero_count_as_nearly_zero():
    margins = [-3.0, 2.0, 3.0, 0.0, 5.0]
    expected = plain_p_value([1e-6, 2.0, 3.0, 1e-6, 5.0])
    assert mm_bd_p_value(margins) == pytest.approx(expected, abs=1e-6)
    assert 0 < expected < 1


def test_margins_that_are_all_negative_but_one():
    """There is no distribution to fit."""
    assert mm_bd_p_value([-1.0, -3.0, 2.0, -0.5]) == 0
    assert mm_bd_p_value([-1.0, -3.0, -2.0, -0.5]) == 1


def test_an_outlier_has_a_small_p_value():
    usual = [5.0, 6.0, 7.0, 8.0, 5.5, 6.5, 7.5, 6.2, 7.1]
    values = [mm_bd_p_value([*usual, largest]) for largest in (8.0, 12.0, 30.0)]
    assert values[0] > 0.3
    assert values[1] < 0.05
    assert values[2] < 1e-6
    assert values == sorted(values, reverse=True)


def test_the_anomaly_index_by_hand():
    # the median is 12, the deviations 2, 0, 2, 4 and 10; their median is 2
    assert anomaly_index([10, 12, 14, 16, 2]) == pytest.approx(10 / (1.4826 * 2), rel=1e-4)
    assert anomaly_index(np.array([2, 16, 14, 12, 10])) == pytest.approx(3.372, abs=1e-3)
    # a large mask is no sign of a backdoor: the smallest one is 4 below the median
    assert anomaly_index([10, 12, 14, 16, 100]) == pytest.approx(4 / (1.4826 * 2), rel=1e-4)


def test_an_anomaly_among_equal_sizes():
    assert anomaly_index([5, 5, 5, 5, 1]) == math.inf
    assert anomaly_index([5, 5, 5, 5, 9]) == 0
    assert anomaly_index([5, 5, 5]) == 0
    assert anomaly_index([5]) == 0


# ---- what is refused, and the caller's state


@BOTH
def test_arguments_that_are_refused(invert):
    net, given = net_of(1), images(30)
    with pytest.raises(ValueError, match="all 30 images are of class 1: give others, too"):
        invert(net, given, 1, labels=[1] * 30)
    with pytest.raises(ValueError, match="target 3 is out of range: the model has 3 classes"):
        invert(net, given, 3, labels=LABELS)
    with pytest.raises(ValueError, match="images has 30 images, so its labels must have shape"):
        invert(net, given, 1, labels=[1] * 29)
    for name, value in (("passes", 0), ("batch_size", -1), ("epoch", 1.5)):
        with pytest.raises(
            ValueError, match=f"`{name}` must be a whole number from 1, got {value}"
        ):
            invert(net, given, 1, labels=LABELS, **{name: value})


def margins_of(net, pixels, target, **settings):
    return mm_bd(net, pixels.shape[1:], 3, n_images=3, steps=3)


@pytest.mark.filterwarnings("ignore:the model is in train mode")
@pytest.mark.parametrize("labelled", [True, False])
@pytest.mark.parametrize("call", [neural_cleanse, pixel_inversion, margins_of])
def test_the_callers_state_stays(call, labelled):
    net, pixels = make_net(), random_images(15, seed=6)
    for parameter in net.parameters():
        parameter.grad = torch.full_like(parameter, 0.5)
    net[0].bias.requires_grad_(False)
    net[1].training = net[3].training = True
    labels = torch.arange(15) % 3 if labelled else None
    before = state_of_caller(net, pixels)
    with torch.no_grad():
        found = call(net, pixels, 1, labels=labels, passes=48)
    assert state_of_caller(net, pixels) == before
    torch.rand(3)
    expected = call(make_net(), pixels, 1, labels=labels, passes=48)  # in eval mode
    if call is margins_of:
        assert found.tolist() == expected.tolist()
    else:
        assert torch.equal(found.pattern.mask, expected.pattern.mask)


@BOTH
def test_an_error_half_way_changes_nothing(invert):
    class Failing(nn.Module):
        def __init__(self):
            super().__init__()
            self.net, self.calls = make_net(), 0

        def forward(self, pixels):
            self.calls += 1
            if self.calls == 3:
                raise RuntimeError("the third call")
            return self.net(pixels)

    net, pixels = Failing().eval(), random_images(15, seed=6)
    before = state_of_caller(net, pixels)
    with pytest.raises(RuntimeError, match="the third call"):
        invert(net, pixels, 1, labels=torch.arange(15) % 3)
    assert state_of_caller(net, pixels) == before
