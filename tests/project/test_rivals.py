"""The methods of other authors equal plain, slow versions, and keep what they promise."""

import math

import numpy as np
import pytest
import torch
from plain_adam import PlainAdam
from refusals import refusal
from scipy import special
from scripts import imported
from test_captum_contract import make_net, state_of_caller
from torch import nn

from captum_classpattern.comparison.maps import PrivateModel
from captum_classpattern.images import LabelledImages

rivals = imported("benchmarks", "rivals")
anomaly_index, mm_bd, mm_bd_p_value = rivals.anomaly_index, rivals.mm_bd, rivals.mm_bd_p_value
cbd, cbd_alarm = rivals.cbd, rivals.cbd_alarm
neural_cleanse, pixel_inversion = rivals.neural_cleanse, rivals.pixel_inversion
universal_patch, universal_perturbation = rivals.universal_patch, rivals.universal_perturbation
pytestmark = pytest.mark.script

LABELS = torch.arange(30) % 3
HEIGHT, WIDTH = 6, 5


def net_of(channels, gain=3.0):
    with torch.random.fork_rng():
        torch.manual_seed(2)
        net = nn.Sequential(nn.Conv2d(channels, 6, 3), nn.Tanh(), nn.Flatten(), nn.Linear(72, 3))
    with torch.no_grad():
        net[0].weight.mul_(gain)
        net[3].weight.mul_(gain)
    return net.double().eval()


def stubborn(channels):
    """Never predicts class 1."""
    net = net_of(channels)
    with torch.no_grad():
        net[3].bias[1] -= 500
    return net


def images(n=30, channels=1, seed=6):
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(n, channels, HEIGHT, WIDTH, generator=generator, dtype=torch.float64)


# ---- plain versions


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


def plain_batches(chance, others, size, count):
    """So many batches, each chosen when it is needed."""
    for _ in range(count):
        chosen = chance.choice(len(others), size, replace=len(others) < size)
        yield others[torch.from_numpy(chosen)]


def plain_cleanse(net, others, target, seed, steps, size, epoch):
    """Mask, colours, size and success."""
    chance = np.random.default_rng([seed, target])
    place = torch.from_numpy(np.arctanh((chance.random((1, HEIGHT, WIDTH)) - 0.5) * 1.999))
    shade = torch.from_numpy(np.arctanh((chance.random(others.shape[1:]) - 0.5) * 1.999))
    adams, successes, best = (PlainAdam(), PlainAdam()), [], None
    for _ in range(steps // epoch):
        weight, hits = plain_weight(successes, 0.0, 2.0, 5, 0.99), []
        for batch in [*plain_batches(chance, others, size, epoch)]:
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
    mask, colours, success = best
    return mask, colours, float(mask.sum()), success


def plain_pixels(net, others, target, seed, steps, size, epoch):
    """Mask, colours, size and success. After each better change that is found, the search continues
    from it (Tao et al. 2022)."""
    chance = np.random.default_rng([seed, target])
    parts = [torch.from_numpy(chance.random(others.shape[1:])) for _ in range(2)]
    adams, successes, best = (PlainAdam(), PlainAdam()), [], None
    for _ in range(steps // epoch):
        weight, hits = plain_weight(successes, 0.001, 1.5, 10, 0.9), []
        for batch in [*plain_batches(chance, others, size, epoch)]:
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
            best = price, pixels, change, successes[-1]
            parts = [up, down]
        elif best is None or best[3] < 0.9:
            best = price, pixels, change, successes[-1]
    _, pixels, change, success = best
    colours = (others + change).clamp(0, 1).mean(0)
    return change.abs().amax(0, keepdim=True), colours, pixels, success


def square(k, top=0, left=0):
    """The pixels of a square in reading order."""
    side = round(k**0.5)
    return [(top + i // side, left + i % side) for i in range(k)]


def plain_patch(net, others, target, k, passes, size, seed):
    """The colours (C, h, w) of the square, and its place."""
    side, channels = round(k**0.5), others.shape[1]
    rows = -(-k // side)
    tops, lefts = range(HEIGHT - rows + 1), range(WIDTH - side + 1)
    places = [(top, left) for top in tops for left in lefts]

    def stamped(image, colours, place):
        image = image.clone()
        for (row, column), (y, x) in zip(square(k), square(k, *place)):
            image[:, y, x] = colours[:, row, column]
        return image

    chance = np.random.default_rng([seed, target])
    start = torch.from_numpy(chance.random((channels, rows, side))) * 0.98 + 0.01
    raw, adam = torch.log(start / (1 - start)), PlainAdam()
    steps = (passes - len(places) * 12 // 2) // size
    for batch in plain_batches(chance, others, size, steps):
        chosen = [*zip(*(chance.integers(0, len(ends), size) for ends in (tops, lefts)))]
        colours, slope = 1 / (1 + (-raw).exp()), torch.zeros_like(raw)
        batch = [stamped(image, colours, place) for image, place in zip(batch, chosen)]
        slopes, _ = plain_loss(net, batch, target)
        for of_image, place in zip(slopes, chosen):
            for (row, column), (y, x) in zip(square(k), square(k, *place)):
                slope[:, row, column] += of_image[:, y, x]
        raw = raw + adam.step(slope * colours * (1 - colours))
    colours = 1 / (1 + (-raw).exp())
    judging = [others[round(i * (len(others) - 1) / 11)] for i in range(12)]

    def score(place):
        logits = (net(stamped(image, colours, place)[None]) for image in judging)
        return sum(float(each.detach().softmax(1)[0, target]) for each in logits)

    return colours, max(places, key=score)


def plain_perturbation(net, others, target, passes, size, epsilon, seed):
    """The change, and what each pixel's change is worth."""
    chance = np.random.default_rng([seed, target])
    change = torch.zeros(others.shape[1:]).double()
    total = torch.zeros_like(change)
    for batch in plain_batches(chance, others, size, passes // size):
        sums = [image + change for image in batch]
        slopes, _ = plain_loss(net, [image.clamp(0, 1) for image in sums], target)
        slope = sum(g * ((x >= 0) & (x <= 1)) for g, x in zip(slopes, sums))
        total += slope
        change = (change - epsilon / 10 * slope.sign()).clamp(-epsilon, epsilon)
    return change, (-total * change).clamp(min=0).sum(0)


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


@pytest.mark.parametrize(
    ("invert", "plain", "atol"),
    [(neural_cleanse, plain_cleanse, 1e-4), (pixel_inversion, plain_pixels, 1e-3)],
)
@pytest.mark.parametrize(
    ("channels", "seed", "size", "epoch", "make"),
    [
        (1, 0, 8, 1, net_of),
        (3, 1, 8, 1, net_of),
        (1, 3, 5, 3, net_of),
        (1, 6, 10, 1, net_of),
        (1, 4, 25, 2, net_of),  # more than there are images of other classes
        (1, 5, 8, 1, stubborn),
    ],
)
def test_inversions_equal_the_plain_ones(invert, plain, atol, channels, seed, size, epoch, make):
    net, given, steps = make(channels), images(30, channels), 80
    settings = {"passes": steps * size, "batch_size": size, "epoch": epoch, "seed": seed}
    found = invert(net, given, 1, labels=LABELS, **settings)
    mask, colours, pixels, success = plain(net, given[LABELS != 1], 1, seed, steps, size, epoch)
    torch.testing.assert_close(found.pattern.mask, mask.float(), atol=atol, rtol=0)
    torch.testing.assert_close(found.pattern.canvas, colours.float(), atol=atol, rtol=0)
    assert found.pattern.target == 1
    assert found.size == pytest.approx(pixels, rel=1e-4)
    assert found.success == pytest.approx(success)
    assert (found.success >= 0.9) == (make is not stubborn)


def test_nine_of_ten_is_a_success_of_pixel_inversion():
    calls = []

    def model(pixels):
        """Gives its class to all images but the first, for a while; then to none."""
        calls.append(len(pixels) == 10)
        wins = (torch.arange(len(pixels)) > 0) * (sum(calls) <= 20)
        logit = wins + 0 * pixels.sum((1, 2, 3))
        return torch.stack([torch.full_like(logit, 0.5), logit], 1)

    settings = {"labels": [0] * 10, "passes": 300, "batch_size": 10}
    found = pixel_inversion(model, images(10), 1, **settings)
    assert found.success == pytest.approx(0.9)  # and not the last one, with 0


@pytest.mark.parametrize(("channels", "k", "target", "seed"), [(3, 4, 0, 0), (1, 5, 2, 1)])
def test_a_patch_equals_the_plain_one(channels, k, target, seed):
    net, given = net_of(channels), images(30, channels)
    settings = {"area": k / 30, "passes": 300, "batch_size": 8, "seed": seed}
    found = universal_patch(net, given, target, labels=LABELS, **settings)
    colours, place = plain_patch(net, given[target != LABELS], target, k, 300, 8, seed)
    mask, canvas = torch.zeros(1, HEIGHT, WIDTH), found.pattern.canvas.double()
    for (row, column), (y, x) in zip(square(k), square(k, *place)):
        mask[0, y, x] = 1
        torch.testing.assert_close(canvas[:, y, x], colours[:, row, column], atol=1e-4, rtol=0)
    assert torch.equal(found.pattern.mask, mask)
    assert (found.size, found.own_form) == (k, found.pattern)


@pytest.mark.parametrize(("channels", "target", "epsilon"), [(3, 0, 10 / 255), (1, 2, 0.2)])
def test_a_perturbation_equals_the_plain_one(channels, target, epsilon):
    net, given = net_of(channels), images(30, channels)
    others = given[target != LABELS]
    settings = {"epsilon": epsilon, "passes": 200, "batch_size": 8, "seed": target}
    found = universal_perturbation(net, given, target, labels=LABELS, **settings)
    change, worth = plain_perturbation(net, others, target, 200, 8, epsilon, target)
    own, stamped = found.own_form, (others + change).clamp(0, 1)
    for seen, plain, atol in (
        (found.change, change, 1e-6),
        (own.change, change, 1e-6),
        (own.stamp(others), stamped, 1e-6),
        (found.pattern.canvas, stamped.mean(0), 1e-6),
        (found.pattern.mask[0], worth / worth.max(), 1e-5),
    ):
        torch.testing.assert_close(seen.double(), plain, atol=atol, rtol=0)
    assert found.size == int((change != 0).any(0).sum())


def linear():
    """Pixels end at 0 and 1, where nothing moves them any more."""
    net = nn.Sequential(nn.Flatten(), nn.Linear(HEIGHT * WIDTH, 3)).double().eval()
    with torch.no_grad():
        net[1].weight.copy_(torch.randn(3, 30, generator=torch.Generator().manual_seed(0)).sign())
        net[1].weight.mul_(0.5)
    return net


@pytest.mark.parametrize(
    ("net", "channels", "n_images", "steps", "seed"),
    [(net_of(1), 1, 4, 40, 0), (net_of(3), 3, 4, 40, 1), (linear(), 1, 2, 300, 0)],
)
def test_margins_equal_the_plain_ones_and_the_search_ends_where_they_stay(
    net, channels, n_images, steps, seed
):
    settings = {"n_images": n_images, "seed": seed} | ({} if steps == 300 else {"steps": steps})
    private = PrivateModel(net)
    found = mm_bd(private.forward_func, (channels, HEIGHT, WIDTH), 3, **settings)
    expected, taken = plain_margins(net, channels, 3, n_images, steps, seed)
    np.testing.assert_allclose(found, expected, rtol=1e-4)
    early = max(taken) < steps
    assert early == (steps == 300)
    late = private.passes / n_images - sum(taken)
    assert 0 <= late <= 3 * early  # by a rounding error


@pytest.mark.parametrize(("channels", "sigma", "seed"), [(1, 0.5, 0), (3, 1.14, 1)])
def test_shares_of_noisy_images_equal_plain_ones(channels, sigma, seed):
    """Of each class the first image that is classified correctly, if there is one."""
    net, given, counts = net_of(channels), images(30, channels), [0, 0, 0]
    predicted = net(given).argmax(1).tolist()
    for y in range(3):
        of_class = [i for i in range(30) if i % 3 == y]
        place = next((i for i in of_class if predicted[i] == y), of_class[0])
        chance = np.random.default_rng([seed, y])
        for _ in range(20):
            noise = torch.from_numpy(chance.normal(0, sigma, given.shape[1:]))
            counts[int(net((given[place] + noise)[None]).argmax())] += 1
    assert max(counts) < 60
    source = LabelledImages(given, LABELS)
    found = cbd(net, source, 3, sigma=sigma, draws=20, seed=seed)
    assert found.tolist() == [count / 60 for count in counts]


@pytest.mark.parametrize(("count", "place"), [(19, 16), (60, 46), (5, 4)])
def test_the_alarm_of_cbd_by_hand(count, place):
    """Of 19 clean models the largest 3 do not count, and 0 of the other 16 may be above: 17 times
    .05 is less than 1. Of 60 it is 12, and 2 of 48."""
    clean = [i / 100 for i in range(1, count + 1)]
    assert cbd_alarm(clean[place - 1] + 0.001, clean)
    assert not cbd_alarm(clean[place - 1], clean)


# ---- which images, and how many


@pytest.mark.parametrize(
    "invert", [neural_cleanse, pixel_inversion, universal_patch, universal_perturbation]
)
def test_seeds_labels_and_images_of_the_class(invert):
    net, given = net_of(1), images()
    predicted = net(given).argmax(1)
    assert len(predicted.unique()) > 1

    def found(images=given, **settings):
        pattern = invert(net, images, 1, **{"labels": LABELS, "passes": 200, **settings}).pattern
        return torch.cat([pattern.mask, pattern.canvas])

    assert torch.equal(found(), found())
    assert not torch.equal(found(), found(seed=1))
    for same in (found(labels=None), found(LabelledImages(given, predicted), labels=None)):
        assert torch.equal(same, found(labels=predicted))
    for label in (0, 1):
        changed = given.clone()
        changed[label == LABELS] = 0.5
        assert torch.equal(found(changed), found()) == (label == 1)


@pytest.mark.parametrize(
    ("invert", "settings", "passes"),
    [
        (neural_cleanse, {}, 1_280),
        (pixel_inversion, {"passes": 96, "batch_size": 4, "epoch": 8}, 96),
        (neural_cleanse, {"passes": 100, "batch_size": 8}, 96),
        (pixel_inversion, {"passes": 100, "batch_size": 8, "epoch": 5}, 80),
        (universal_perturbation, {}, 3_488),  # 218 whole batches
        (universal_patch, {"area": 4 / 30}, 20 * 6 + 211 * 16),  # 20 places on 12 images each
        (universal_patch, {"area": 9 / 30, "passes": 160}, 12 * 6 + 5 * 16),
    ],
)
def test_passes_are_those_that_were_promised(invert, settings, passes):
    private = PrivateModel(net_of(1))
    invert(private.forward_func, images(), 1, labels=LABELS, **settings)
    assert private.passes == passes


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


@pytest.mark.parametrize(
    "margins",
    [*(np.random.default_rng(n).gamma(4.0, 2.0, n) for n in (3, 10, 43)), [-3, 2, 3, 0, 5]],
)
def test_the_p_value_equals_a_direct_computation(margins):
    """Margins below zero count as nearly zero."""
    expected = plain_p_value([max(float(margin), 1e-6) for margin in margins])
    assert 0 < expected < 1
    for given in (margins, sorted(margins)):
        assert mm_bd_p_value(given) == pytest.approx(expected, abs=1e-6)


def test_the_p_value_where_there_is_no_distribution_to_fit():
    assert mm_bd_p_value([-1.0, -3.0, 2.0, -0.5]) == 0
    assert mm_bd_p_value([-1.0, -3.0, -2.0, -0.5]) == 1


@pytest.mark.parametrize(
    ("sizes", "expected"),
    [
        # the median is 12, the deviations 2, 0, 2, 4 and 10; their median is 2
        ([10, 12, 14, 16, 2], 10 / (1.4826 * 2)),
        # a large mask is no sign of a backdoor: the smallest one is 4 below the median, 14
        ([10, 12, 14, 16, 100], 4 / (1.4826 * 2)),
        ([5, 5, 5, 5, 1], math.inf),
        ([5, 5, 5, 5, 9], 0),
        ([5], 0),
    ],
)
def test_the_anomaly_index_by_hand(sizes, expected):
    assert anomaly_index(sizes) == pytest.approx(expected, rel=1e-4)


# ---- what is refused, and the caller's state


def given(invert, target=1, labels=LABELS, net=None, **settings):
    return lambda: invert(net or net_of(1), images(), target, labels=labels, **settings)


def patch_on_narrow_images():
    flat = nn.Sequential(nn.Flatten(), nn.Linear(120, 3)).eval()
    return universal_patch(flat, torch.rand(6, 1, 2, 60), 1, labels=[0] * 6, area=0.3)


REFUSALS = {
    "no image of another class": given(neural_cleanse, labels=[1] * 30),
    "a class that there is not": given(pixel_inversion, 3),
    "too few labels": given(universal_perturbation, labels=[1] * 29),
    "no passes": given(neural_cleanse, passes=0),
    "no passes of a perturbation": given(universal_perturbation, passes=0),
    "a batch of -1": given(pixel_inversion, batch_size=-1),
    "an epoch of 1.5": given(neural_cleanse, epoch=1.5),
    "too few passes to choose a place": given(universal_patch, area=4 / 30, passes=135),
    "an area without a pixel": given(universal_patch, area=0.001),
    "a square that is too large": patch_on_narrow_images,
    "an epsilon of 0": given(universal_perturbation, epsilon=0),
    "an epsilon of 1.5": given(universal_perturbation, epsilon=1.5),
    "an epsilon of nan": given(universal_perturbation, epsilon=math.nan),
}


@pytest.mark.parametrize("case", REFUSALS)
def test_refusals(case, snapshot):
    assert refusal(REFUSALS[case]) == snapshot


@pytest.mark.filterwarnings("ignore:the model's outputs are all >= 0 and sum to 1")
def test_a_softmax_at_the_end_changes_nothing():
    net = net_of(1)
    softmax = nn.Sequential(net, nn.Softmax(1)).eval()
    one, other = (given(pixel_inversion, passes=160, net=model)() for model in (net, softmax))
    torch.testing.assert_close(one.pattern.mask, other.pattern.mask, atol=1e-3, rtol=0)
    one, other = (mm_bd(model, (1, HEIGHT, WIDTH), 3, steps=5) for model in (net, softmax))
    np.testing.assert_allclose(one, other, rtol=1e-3)


@pytest.mark.filterwarnings("ignore:the model is in train mode")
def test_the_search_for_margins_leaves_the_caller_as_it_was():
    net, settings = make_net(), {"n_images": 3, "steps": 3}
    for parameter in net.parameters():
        parameter.grad = torch.full_like(parameter, 0.5)
    net[1].training = net[3].training = True
    before = state_of_caller(net)
    with torch.no_grad():
        found = mm_bd(net, (3, 8, 8), 3, **settings)
    assert state_of_caller(net) == before
    assert found.tolist() == mm_bd(make_net(), (3, 8, 8), 3, **settings).tolist()  # in eval mode
