"""The swap solver as plain, slow loops over images and pixels."""

from typing import NamedTuple

import numpy as np
import torch


class Swapped(NamedTuple):
    """What is found at one area: masks (H, W) half-way and at the end, the losses of the rounds,
    the passes so far, and how many swaps were refused."""

    half_way: np.ndarray
    mask: np.ndarray
    losses: list
    passes: int
    refused: int


def plain_swaps(net, canvas, target, baselines, labels, rounds, *, area, **settings):
    """The swap solver with one canvas at one area."""
    [found] = plain_areas(net, canvas, target, baselines, labels, rounds, areas=[area], **settings)
    return found


def plain_areas(
    net,
    canvas,
    target,
    baselines,
    labels,
    rounds,
    *,
    areas,
    batch_size=16,
    proposals=3,
    seed=0,
    start=0,
):
    """The swap solver with one canvas, at areas that become smaller: each goes on from the pixels
    and the trend of the one before, with the next baselines.

    Only the mask of the sign steps is in float32: its rounding tells apart what would be ties.
    """
    height, width = canvas.shape[1:]
    pixels = height * width

    def evaluate(mask, batch, loss_of):
        mask = np.asarray(mask).reshape(height, width)
        loss, slope = plain_slope(net, canvas, target, baselines, batch, mask, loss_of)
        return loss, slope.flatten()

    steps = min(100, max(25, 5 * rounds))
    fewer = max(1, -(-2 * rounds // 3))
    sizes = [4] * steps + [batch_size] * (rounds + fewer * (len(areas) - 1))
    batches = plain_batches(sizes, labels, target, seed, start)
    shown = [len(batch) for batch in batches]
    soft = np.full(pixels, 0.5, dtype=np.float32)
    for batch in batches[:steps]:
        _, slope = evaluate(soft, batch, lambda p: -p.log())
        signs = np.sign(0.2 * slope + 0.8 / (pixels / 2)).astype(np.float32)
        soft = np.clip(soft - np.float32(4 / steps) * signs, 0, 1)
    trend = (0.5 - soft.astype(np.float64)) / norm(soft - 0.5)
    worth, done, passes, found = soft, steps, sum(shown[:steps]), []
    for area in areas:
        kept = round(area * pixels)
        held = set(sorted(range(pixels), key=lambda i: (-worth[i].round(5), i))[:kept])
        end = done + (fewer if found else rounds)
        half_way, held, trend, losses, refused = plain_rounds(
            evaluate, batches[done:end], held, trend, proposals
        )
        passes += (1 + proposals) * sum(shown[done:end])
        masks = [weights.reshape(height, width) for weights in (half_way, weighed(held, trend))]
        found.append(Swapped(*masks, losses, passes, refused))
        worth = binary(held, pixels) - trend / (2 * abs(trend).max())
        done = end
    return found


def plain_rounds(evaluate, batches, held, trend, proposals):
    """All rounds at one area, from the pixels that are held at first."""
    rounds, pixels, kept = len(batches), len(trend), len(held)
    losses, refused = [], 0
    for r, batch in enumerate(batches):
        count = max(1, round(min(kept, pixels - kept) / 8 * (1 - r / (0.7 * rounds))))
        loss, slope = evaluate(binary(held, pixels), batch, miss)
        losses.append(loss)
        trend = 0.9 * trend + 0.1 * slope / norm(slope)
        for _ in range(proposals):
            out = sorted(held, key=lambda i: (-trend[i], i))[:count]
            into = sorted(set(range(pixels)) - held, key=lambda i: (trend[i], i))[:count]
            tried = held
            for leaving, coming in zip(out, into):
                if trend[leaving] > trend[coming]:
                    tried = tried - {leaving} | {coming}
            loss_tried, slope_tried = evaluate(binary(tried, pixels), batch, miss)
            worth = 0.45 * (slope + slope_tried) / 2 / max(norm(slope), norm(slope_tried))
            for i in tried ^ held:
                trend[i] = (trend[i] + worth[i]) / 2
            if loss_tried < loss:
                held, loss, slope = tried, loss_tried, slope_tried
                trend = 0.8 * trend + 0.2 * slope / norm(slope)
            elif tried != held:
                refused += 1
        if r + 1 == (rounds + 1) // 2:
            half_way = weighed(held, trend)
    return half_way, held, trend, losses, refused


def plain_batches(sizes, labels, target, seed, start):
    """Epoch after epoch; a batch ends where its epoch does. Starts but the first have shuffles of
    their own."""
    batches, left, epoch = [], [], 0
    for size in sizes:
        if not left:
            key = [seed, epoch, start] if start else [seed, epoch]
            order = np.random.default_rng(key).permutation(len(labels))
            left, epoch = [i for i in order if labels[i] != target], epoch + 1
        batches.append(left[:size])
        left = left[size:]
    return batches


def plain_slope(net, canvas, target, baselines, batch, mask, loss_of):
    """Mean loss over a batch, image by image, and its gradient with respect to the mask."""
    m, total = torch.from_numpy(mask).double().requires_grad_(), 0.0
    for i in batch:
        logits = net((m * canvas + (1 - m) * baselines[i])[None])[0]
        total = total + loss_of(logits.softmax(0)[target]) / len(batch)
    (slope,) = torch.autograd.grad(total, m)
    return float(total.detach()), slope.numpy()


def weighed(held, trend):
    """Weights from 0.5 to 1 of the pixels that are held."""
    helps = {i: -trend[i] for i in held}
    low, high = min(helps.values()), max(helps.values())
    weights = np.zeros(len(trend))
    for i in held:
        weights[i] = 0.5 + 0.5 * (helps[i] - low) / (high - low)
    return weights


def binary(held, pixels):
    return np.array([float(i in held) for i in range(pixels)])


def miss(p):
    return 1 - p.sqrt()


def norm(slope):
    return np.sqrt((slope**2).sum())
