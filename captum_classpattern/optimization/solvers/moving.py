"""A patch that works anywhere, since it is moved while it is searched."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from numbers import Real
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from captum_classpattern._support.validation import (
    ArgumentTypeError,
    check_count,
    check_numbers,
)
from captum_classpattern.classifier import on_device
from captum_classpattern.optimization.baselines import Batch
from captum_classpattern.optimization.moves import LARGEST_ANGLE, LARGEST_SCALE, draw_moves
from captum_classpattern.optimization.search import Search
from captum_classpattern.optimization.solvers.learned import BETAS

SMALLEST, SMALLEST_IMAGE = 3, 8  # pixels a side
COUNTS = ("side", "steps", "batch_size", "starts", "levels")
MOST_LEVELS = 8
NOISE = 0.1  # standard deviation of the first values of the grids
SMOOTH = 1e-3  # differences of pixels below this count less
RACE = 0.15  # of the steps, after which the best start goes on alone
# what brightness, blue to red, and green to purple add to red, green and blue: the square root
# of the covariance of photos' colours (Olah et al. 2017, doi 10.23915/distill.00007), scaled
NATURAL_COLOURS = ((0.932, 0.323, 0.072), (0.968, 0.0, -0.179), (0.968, -0.323, 0.108))


@dataclass(frozen=True)
class MovingPatch:
    r"""
    Finds a square with its own colours and opacity that works anywhere on an image. It needs no
    canvas, and returns a :class:`~captum_classpattern.pattern.MovingPattern`.

    In each step, the patch is put at a random place of each image, a little scaled and turned
    (bilinear), like the adversarial patch of Brown et al. 2017 (arXiv 1712.09665). With the colours
    c and the opacity a, an image x becomes x (1 - a) + c a. Both are sigmoids: the patch begins
    grey, with a little noise, and with ``opacity``. Adam minimises the cross-entropy plus ``tv``
    times the mean absolute difference of neighbouring pixels of c and of a.

    The colours are the sigmoid of A (w0 + up(w1) + up(w2) + ...): a pyramid of grids, each of half
    the side of the one before and enlarged to that of the patch, so that large shapes are found as
    easily as single pixels. A mixes the channels as in photos, so that brightness changes more
    easily than hue (as in feature visualisation: Olah et al. 2017, doi 10.23915/distill.00007).

    Several starts race: after 15 % of the steps, the one with the largest mean margin on the
    validation images goes on.

    Args:
        side (int): Side of the square in pixels, at least 3.
        steps (int): Steps, unless ``n_steps`` or a budget is given. Default: 170.
        batch_size (int): Baselines per step. Default: 4.
        rate (float): Learning rate of Adam. Default: 0.1.
        tv (float): Weight of the differences of neighbouring pixels, from 0. Default: 1.
        scale (tuple[float, float]): The smallest and largest scale, up to 1.4. Default: (0.9,
            1.05).
        angle (float): The largest angle in degrees, up to 45, either way. Default: 8.
        starts (int): How many patches race. Default: 3.
        opacity (float): The opacity at first, in (0, 1). Default: 0.88.
        levels (int): Grids of the pyramid, from 1 to 8; those below 3 pixels a side are left out.
            With 1, each pixel has its own colour. Default: 4.
        natural_colours (bool): Whether channels are mixed as in photos; images that are not RGB
            never are. Default: True.

    Raises:
        ValueError: If a setting is out of range.

    Examples::

        >>> net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 3)).eval()
        >>> images, labels = torch.rand(40, 1, 8, 8), torch.arange(40) % 3
        >>> [patch] = ClassPattern(net, images, labels).search(
        ...     target=2, solver=MovingPatch(side=3, steps=5))
        >>> patch.colours.shape, patch.stamp(images, seed=1).shape
        (torch.Size([1, 3, 3]), torch.Size([40, 1, 8, 8]))
    """

    side: int
    steps: int = 170
    batch_size: int = 4
    rate: float = 0.1
    tv: float = 1.0
    scale: tuple[float, float] = (0.9, 1.05)
    angle: float = 8.0
    starts: int = 3
    opacity: float = 0.88
    levels: int = 4
    natural_colours: bool = True

    name: ClassVar[str] = "patch"
    accelerates: ClassVar[bool] = True
    chosen_by_margin: ClassVar[bool] = True

    def __post_init__(self) -> None:
        check_count("side", self.side, SMALLEST)
        check_numbers(self, counts=COUNTS, positive=("rate",))
        if not (isinstance(self.tv, Real) and 0 <= self.tv < math.inf):
            raise ValueError(f"`tv` must be a number from 0, got {self.tv!r}")
        is_pair = np.shape(self.scale) == (2,) and all(isinstance(x, Real) for x in self.scale)
        pair = tuple(map(float, self.scale)) if is_pair else (0.0, 0.0)
        angle = self.angle if isinstance(self.angle, Real) else -1
        if not (0 < pair[0] <= pair[1] <= LARGEST_SCALE and 0 <= angle <= LARGEST_ANGLE):
            raise ValueError(
                f"`scale` must be two numbers above 0 and up to {LARGEST_SCALE}, such as (0.9, "
                f"1.05), and `angle` from 0 to {LARGEST_ANGLE:g}, got {self.scale} and {self.angle}"
            )
        if not (isinstance(self.opacity, Real) and 0 < self.opacity < 1):
            raise ValueError(f"`opacity` must lie in (0, 1), got {self.opacity!r}")
        if self.levels > MOST_LEVELS:
            raise ValueError(f"`levels` must be at most {MOST_LEVELS}, got {self.levels}")
        if not isinstance(self.natural_colours, bool):
            raise ArgumentTypeError(
                f"`natural_colours` must be True or False, got {self.natural_colours!r}"
            )
        object.__setattr__(self, "scale", pair)  # Python's own numbers

    def check_images(self, shape: Sequence[int], advice: str = "a smaller `side`") -> None:
        """Raises an error if the patch cannot move on images (C, H, W)."""
        least = max(SMALLEST_IMAGE, self.side + 1)
        if min(shape[1:]) < least:
            smaller = f"{advice}, or " * (least > SMALLEST_IMAGE)
            raise ValueError(
                f"a patch of {self.side} x {self.side} pixels can only move on images of at least "
                f"{least} x {least}, got {shape[1]} x {shape[2]}: choose {smaller}larger images"
            )

    def passes(self, n_steps: int | None = None) -> Sequence[int]:
        """The passes of one patch after the race of the starts, if there are several, and at the
        end, with whole batches."""
        parts = self._parts(n_steps or self.steps)
        return [sum(parts[: i + 1]) * self.batch_size for i in range(len(parts))]

    def _parts(self, steps: int) -> list[int]:
        """The steps of the race, and those of the patch that has won it."""
        race = max(1, round(RACE * steps))
        return [race, steps - race] if self.starts > 1 and race < steps else [steps]

    def run(self, search: Search) -> Iterator[None]:
        """Yields where the weaker starts are dropped."""
        chances = [np.random.default_rng([s.seed, s.target, s.start]) for s in search.streams]
        patches = _Patches(self, search, chances)
        adam = torch.optim.Adam([*patches.grids, patches.opacity_logits], self.rate, BETAS)
        parts = self._parts(search.n_steps or self.steps)
        for number, steps in enumerate(parts, start=1):
            for batch in search.batches(self.batch_size, steps):
                rows, colours, opacity = batch.index, *patches.drawn()
                search.canvases.copy_(colours.detach())
                search.masks.copy_(opacity.detach())
                batch.moves = self._moves(search, batch, chances)
                loss, slope, at_images = search.loss_and_colour_gradients(search.masks[rows], batch)
                search.record(batch, loss)
                colours, opacity = colours[rows], opacity[rows]
                of_opacity = (slope * colours.detach() - at_images).sum(1, keepdim=True)
                roughness = self.tv * (_roughness(colours) + _roughness(opacity))
                adam.zero_grad()
                torch.autograd.backward(
                    [colours, opacity, roughness], [slope * opacity.detach(), of_opacity, None]
                )
                adam.step()
            for of_search, drawn in zip((search.canvases, search.masks), patches.drawn()):
                of_search.copy_(drawn.detach())
            if number < len(parts):
                yield

    def _moves(
        self, search: Search, batch: Batch, chances: Sequence[np.random.Generator]
    ) -> Tensor:
        """Where the patches lie on the images of a batch."""
        drawn = zip(batch.rows, batch.picks)
        uniform = np.concatenate([chances[row].random((len(pick), 4)) for row, pick in drawn])
        size = (batch.images.shape[2], batch.images.shape[3])
        moves = draw_moves(uniform, size, self.side, self.scale, self.angle)
        return moves.to(search.masks.device)


class _Patches:
    """The patches of a search, one for each candidate, as what Adam changes: ``grids`` of the
    colours, the finest first, and ``opacity_logits``."""

    def __init__(
        self, solver: MovingPatch, search: Search, chances: Sequence[np.random.Generator]
    ) -> None:
        device, channels, side = search.masks.device, search.canvases.shape[1], solver.side
        halved = [max(SMALLEST, round(side / 2**level)) for level in range(solver.levels)]
        sides = list(dict.fromkeys(halved))
        shapes = [(channels, n, n) for n in sides]
        grids = [np.stack([c.normal(0, NOISE, shape) for c in chances]) for shape in shapes]
        self.grids = [on_device(torch.from_numpy(g).float(), device) for g in grids]
        logit = math.log(solver.opacity / (1 - solver.opacity))
        self.opacity_logits = torch.full_like(search.masks, logit)
        for leaf in (*self.grids, self.opacity_logits):
            leaf.requires_grad_()
        self.enlarge = [_enlargement(n, side).to(device) for n in sides]
        self.colour = None
        if solver.natural_colours and channels == 3:
            self.colour = torch.tensor(NATURAL_COLOURS, dtype=torch.float32, device=device)

    def drawn(self) -> tuple[Tensor, Tensor]:
        """The colours (N, C, S, S) and the opacity (N, 1, S, S) of the patches."""
        grids = [each @ grid @ each.mT for each, grid in zip(self.enlarge, self.grids)]
        shades = torch.stack(grids).sum(0)
        if self.colour is not None:
            shades = torch.einsum("ij,njhw->nihw", self.colour, shades)
        return shades.sigmoid(), self.opacity_logits.sigmoid()


def _enlargement(side: int, larger: int) -> Tensor:
    """The matrix (larger, side) of a bilinear enlargement. In products with it, gradients are
    summed in the same order on each device."""
    lines = torch.eye(side, dtype=torch.float32)[None]
    return torch.nn.functional.interpolate(lines, larger, mode="linear")[0].mT


def _roughness(patches: Tensor) -> Tensor:
    """The mean absolute difference of neighbouring pixels of patches (n, C, S, S), summed over
    them. It is smooth at 0, so that rounding does not decide between equal pixels."""
    across, down = (
        (patches.diff(dim=dim).square() + SMOOTH**2).sqrt().mean((1, 2, 3)) for dim in (2, 3)
    )
    return (across + down).sum()
