"""The solvers as plain, slow loops over images and pixels."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch


class Problem(NamedTuple):
    """One canvas, the class, and the images that the pattern is stamped on, with their labels."""

    net: Callable
    canvas: torch.Tensor
    target: int
    images: torch.Tensor
    labels: list
    seed: int = 0
    start: int = 0

    def batches(self, sizes):
        """The places of images of other classes, epoch after epoch; a batch ends where its epoch
        does. Starts but the first have shuffles of their own."""
        batches, left, epoch = [], [], 0
        for size in sizes:
            if not left:
                key = [self.seed, epoch, self.start] if self.start else [self.seed, epoch]
                order = np.random.default_rng(key).permutation(len(self.labels)).tolist()
                left, epoch = [i for i in order if self.labels[i] != self.target], epoch + 1
            batches.append(left[:size])
            left = left[size:]
        return batches

    def slope(self, mask, batch, loss_of):
        """Mean loss over a batch, image by image, and its gradient with respect to the mask."""
        m = torch.as_tensor(mask).double().view(1, *self.canvas.shape[1:]).requires_grad_()
        total = 0.0
        for i in batch:
            logits = self.net((m * self.canvas + (1 - m) * self.images[i])[None])[0]
            total = total + loss_of(logits.softmax(0)[self.target]) / len(batch)
        (slope,) = torch.autograd.grad(total, m)
        return float(total.detach()), slope.flatten().numpy()


def cross_entropy(p):
    return -p.log()


def miss(p):
    return 1 - p.sqrt()


def plain_loop(problem, steps, *, alpha=0.2, step_size=0.02, batch_size=4):
    """The loop of method.md: its mask, the losses, and the passes.

    Only the mask is in float32: its rounding tells apart what would be ties.
    """
    mask, losses = np.full(problem.canvas[0].numel(), 0.5, dtype=np.float32), []
    half, batches = len(mask) / 2, problem.batches([batch_size] * steps)
    for batch in batches:
        entropy, slope = problem.slope(mask, batch, cross_entropy)
        losses.append(alpha * entropy + (1 - alpha) * mask.sum() / half)
        signs = np.sign(alpha * slope + (1 - alpha) / half).astype(np.float32)
        mask = np.clip(mask - np.float32(step_size) * signs, 0, 1)
    return mask, losses, sum(map(len, batches))


def plain_shrink(problem, *, kept):
    """The mask of the screening."""
    pixels = problem.canvas[0].numel()
    mask, trend, half = np.full(pixels, 0.5), np.zeros(pixels), pixels / 2
    for step, batch in enumerate(problem.batches([4] * 10)):
        _, slope = problem.slope(mask, batch, cross_entropy if step < 2 else miss)
        trend += slope / norm(slope)
        left = round(half * (kept / half) ** (step / 9))
        mask = binary(sorted(range(pixels), key=lambda i: (trend[i], i))[:left], pixels)
    return mask


class Swapped(NamedTuple):
    """What is found at one area: masks half-way and at the end, the losses of the rounds, the
    passes so far, and how many swaps were refused."""

    half_way: np.ndarray
    mask: np.ndarray
    losses: list
    passes: int
    refused: int


def plain_swaps(problem, rounds, *, areas, batch_size=16, proposals=3):
    """The swap solver at areas that become smaller: each goes on from the pixels and the trend of
    the one before, with the next baselines."""
    pixels = problem.canvas[0].numel()
    steps = min(100, max(25, 5 * rounds))
    fewer = max(1, -(-2 * rounds // 3))
    sizes = [4] * steps + [batch_size] * (rounds + fewer * (len(areas) - 1))
    batches = problem.batches(sizes)
    shown = [len(batch) for batch in batches]
    soft, _, passes = plain_loop(problem, steps, step_size=4 / steps)
    trend = (0.5 - soft.astype(np.float64)) / norm(soft - 0.5)
    worth, done, found = soft, steps, []
    for area in areas:
        kept = round(area * pixels)
        held = set(sorted(range(pixels), key=lambda i: (-worth[i].round(5), i))[:kept])
        end = done + (fewer if found else rounds)
        half_way, held, trend, losses, refused = plain_rounds(
            problem, batches[done:end], held, trend, proposals
        )
        passes += (1 + proposals) * sum(shown[done:end])
        found.append(Swapped(half_way, weighed(held, trend), losses, passes, refused))
        worth = binary(held, pixels) - trend / (2 * abs(trend).max())
        done = end
    return found


def plain_rounds(problem, batches, held, trend, proposals):
    """All rounds at one area, from the pixels that are held at first."""
    rounds, pixels, kept = len(batches), len(trend), len(held)
    losses, refused = [], 0
    for r, batch in enumerate(batches):
        count = max(1, round(min(kept, pixels - kept) / 8 * (1 - r / (0.7 * rounds))))
        loss, slope = problem.slope(binary(held, pixels), batch, miss)
        losses.append(loss)
        trend = 0.9 * trend + 0.1 * slope / norm(slope)
        for _ in range(proposals):
            tried = exchanged(held, trend, count)
            loss_tried, slope_tried = problem.slope(binary(tried, pixels), batch, miss)
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


def exchanged(held, trend, count):
    """The pixels that are held once up to so many are exchanged, where the trend says it helps."""
    out = sorted(held, key=lambda i: (-trend[i], i))[:count]
    into = sorted(set(range(len(trend))) - held, key=lambda i: (trend[i], i))[:count]
    for leaving, coming in zip(out, into):
        if trend[leaving] > trend[coming]:
            held = held - {leaving} | {coming}
    return held


def weighed(held, trend):
    """Weights from 0.5 to 1 of the pixels that are held."""
    helps = {i: -trend[i] for i in held}
    low, high = min(helps.values()), max(helps.values())
    weights = np.zeros(len(trend))
    for i in held:
        weights[i] = 0.5 + 0.5 * (helps[i] - low) / (high - low)
    return weights


def binary(held, pixels):
    held = set(held)
    return np.array([float(i in held) for i in range(pixels)])


def norm(slope):
    return np.sqrt((slope**2).sum())


class PlainAdam:
    """Kingma and Ba 2015, arXiv 1412.6980, algorithm 1, for one Tensor."""

    def __init__(self, rate=0.1):
        self.rate = rate
        self.first, self.second, self.steps = 0.0, 0.0, 0

    def step(self, gradient):
        self.steps += 1
        self.first = 0.5 * self.first + 0.5 * gradient
        self.second = 0.9 * self.second + 0.1 * gradient**2
        first = self.first / (1 - 0.5**self.steps)
        second = self.second / (1 - 0.9**self.steps)
        return -self.rate * first / (second**0.5 + 1e-8)
