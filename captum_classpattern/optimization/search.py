"""The state of a search that a solver works on: its masks, its batches, its losses."""

import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, Protocol

import torch
from torch import Tensor

from captum_classpattern._support.progress import new_bar
from captum_classpattern._support.topk import pixels_kept
from captum_classpattern.optimization.features import Features, Pixels
from captum_classpattern.optimization.objective import Batch, Objective
from captum_classpattern.optimization.schedule import Schedule, Stream

CHECK_EVERY = 16  # steps between looks at the losses: each look waits for the device


class Solver(Protocol):
    """What finds the masks: a frozen dataclass that owns its settings and defaults will do.

    Results call it ``name``. Where it ``accelerates``, its passes may run on a faster copy of the
    model (see ``precision`` of :meth:`ClassPattern.search`). To be used with ``budget``, it also
    has ``passes(n_steps)``: how many passes one canvas has taken at the ``yield``, if there is one,
    and at the end. ``pool_budget`` may say how many passes a pool takes without a budget,
    ``starts`` how often a canvas of one colour starts (otherwise twice), and ``chosen_by_margin``
    that the mean margin on the validation images decides, not the power.
    """

    @property
    def name(self) -> str: ...

    @property
    def accelerates(self) -> bool: ...

    def run(self, search: "Search") -> Iterator[None]:
        """Improves ``search.masks``, over ``search.batches(...)``. It may yield once, where the
        masks are scored and the weaker canvases dropped."""


@dataclass(eq=False)
class Search:
    r"""
    What a solver needs: many independent masks, searched together: one for each candidate. A canvas
    that starts twice is there twice.

    With ``features``, pixels that are kept together, all masks and gradients of a solver are those
    of features, (N, 1, 1, F). ``deadline`` is by ``time.perf_counter()``; ``n_steps`` of None
    leaves the length to the solver.

    Attributes:
        masks (Tensor): float32 (N, 1, H, W) in [0, 1], 0.5 at first: the masks found so far.
        rows (list[int]): The candidates that are still searched; the weakest may be dropped.
        losses (list[Tensor]): The losses (N,) of each step, NaN for masks that it left alone.
        trend (Tensor or None): What a solver knows of the pixels for a search at another area:
            (N, 1, H, W), lowest where a pixel helps most.
        stopped_early (bool): Whether the deadline ended the search.
    """

    solver: Solver
    objective: Objective
    schedule: Schedule
    streams: list[Stream]
    area: float
    n_steps: int | None = None
    deadline: float | None = None
    show_progress: bool = False
    features: Features | None = None

    def __post_init__(self) -> None:
        count, _, height, width = self.objective.canvases.shape
        device = self.objective.canvases.device
        self.units: Pixels | Features = self.features or Pixels((height, width))
        shape = count, 1, *self.units.shape
        self.masks = torch.full(shape, 0.5, dtype=torch.float32, device=device)
        self.rows = list(range(count))
        self.losses: list[Tensor] = []
        self.trend: Tensor | None = None
        self.stopped_early = False
        self.half_passes = [0] * count  # of each canvas at this area
        self._earlier = [0] * count  # at larger areas
        self._counts: dict[Stream, int] = {}  # how many batches each stream still may have
        self._steps_done = 0
        self._unchecked: list[tuple[int, Tensor]] = []  # steps, and whether losses are finite
        self._bar = new_bar("search", 0, self.show_progress)

    @property
    def canvases(self) -> Tensor:
        """The canvases (N, C, H, W); a solver may change their colours."""
        return self.objective.canvases

    @property
    def n_pixels(self) -> int:
        """How many pixels a pattern may have; an error if that is 0 or all of them."""
        return pixels_kept(self.area, self.canvases.shape[-2:])

    @property
    def n_entries(self) -> int:
        """About how many entries of a mask, pixels or features, a pattern may have."""
        height, width = self.canvases.shape[-2:]
        return max(1, round(self.n_pixels * self.masks[0].numel() / (height * width)))

    @property
    def pixel_masks(self) -> Tensor:
        """The masks (N, 1, H, W)."""
        return self.units.spread(self.masks)

    def strongest(
        self, weights: Tensor, rows: list[int] | Tensor | None = None, count: int | None = None
    ) -> Tensor:
        """Binary masks of the largest weights per pixel, of some canvases or all: as many pixels as
        a pattern may have, or ``count``."""
        return self.units.at(rows).strongest(weights, count or self.n_pixels)

    def swap(self, masks: Tensor, gradients: Tensor, count: int, rows: Any) -> Tensor:
        """Binary masks of some canvases with up to ``count`` entries swapped, where the gradient
        says that it helps."""
        return self.units.at(rows).swap(masks, gradients, count, self.n_pixels)

    def run(self) -> Iterator[None]:
        """Runs the search; pauses where the solver yields, once the losses are looked at."""
        for _ in self.solver.run(self):
            self._check_losses()
            yield
        self._bar.close()

    def finish(self) -> None:
        """Runs the search to its end without a pause."""
        for _ in self.run():
            pass

    def batches(self, batch_size: int, n_steps: int | None, *, epochs: int = 1) -> Iterator[Batch]:
        """That many batches of baselines for each canvas; if ``n_steps`` is None, as many as visit
        each baseline ``epochs`` times. Each call continues where the last one ended. There are
        none after the deadline, except for the first of a search."""
        self._counts = counts = {
            stream: n_steps or epochs * -(-self.schedule.others[stream] // batch_size)
            for stream in dict.fromkeys(self.streams[row] for row in self.rows)
        }
        steps = self.schedule.steps(batch_size, counts, self.objective.canvases.device)
        self._bar.total += max(counts.values())
        for _ in range(max(counts.values())):
            if self._is_late() or (step := next(steps, None)) is None:
                break
            images, picks = step
            rows = [row for row in self.rows if self.streams[row] in picks]
            yield Batch(images, rows, [picks[self.streams[row]] for row in rows])
            self._steps_done += 1
            self._bar.update()
            if self._steps_done % CHECK_EVERY == 0:
                self._check_losses()
        self._check_losses()

    def loss(self, masks: Tensor, batch: Batch) -> Tensor:
        """Losses (n,) of masks (n, 1, H, W) of the canvases ``batch.rows``: 1 - sqrt(p), where p is
        the probability of the target; half a pass per image."""
        return self._evaluate(masks, batch, bounded=True, gradient=False)[0]

    def loss_and_gradient(
        self, masks: Tensor, batch: Batch, *, bounded: bool = False
    ) -> tuple[Tensor, Tensor]:
        """Losses (n,), the cross-entropy or, if ``bounded``, 1 - sqrt(p), and their gradients
        (n, 1, H, W); one pass per image."""
        return self._evaluate(masks, batch, bounded, gradient=True)

    def loss_and_colour_gradients(
        self, masks: Tensor, batch: Batch, *, bounded: bool = False
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Losses (n,) as in :meth:`loss_and_gradient`, and two Tensors (n, C, H, W) that say what
        any colour is worth, see ``Objective.evaluate``; one pass per image."""
        losses, both = self._evaluate(masks, batch, bounded, gradient=True, colours=True)
        slopes, at_images = both.chunk(2, dim=1)
        return losses, slopes, at_images

    def record(self, batch: Batch, losses: Tensor) -> None:
        """Keeps the losses of a step; the search stops with an error where they are not finite."""
        step = torch.full_like(self.masks[:, 0, 0, 0], torch.nan)
        step[batch.index] = losses
        self.losses.append(step)
        self._unchecked.append((self._steps_done, losses.isfinite().all()))

    def anew(self, solver: Solver, rows: list[int]) -> "Search":
        """A search of some of the canvases by another solver, from the beginning. Its passes count
        here."""
        other = replace(self, solver=solver, schedule=self.schedule.again(), n_steps=None)
        other.half_passes = self.half_passes
        other.drop_all_but(rows)
        return other

    def again(self, area: float, canvases: Tensor) -> "Search":
        """The search from its beginning, at another area, on canvases as they were at first."""
        objective = replace(self.objective, canvases=canvases)
        return replace(self, area=area, objective=objective, schedule=self.schedule.again())

    def at_area(self, area: float, rows: list[int]) -> "Search":
        """A search of some of the canvases at a smaller area. If the solver keeps a trend, it goes
        on from these masks and takes two thirds of the steps; otherwise it begins anew, unless no
        time is left."""
        if self.trend is None:
            other = replace(self, area=area, schedule=self.schedule.again())
        else:
            canvases = self.canvases.clone()  # a solver may change the colours
            other = replace(self, area=area, objective=replace(self.objective, canvases=canvases))
            other.masks, other.trend = self.masks.clone(), self.trend
            other.stopped_early = self.stopped_early
            if not any(self._earlier):  # the second area sets n_steps for all further ones
                other.n_steps = max(1, -(-2 * len(self.losses) // 3))
        other._earlier = [a + b for a, b in zip(self._earlier, self.half_passes)]
        if self.trend is None and other._is_late():
            other.masks = self.masks.clone()  # no step will be taken
        other.drop_all_but(rows)
        return other

    def drop_all_but(self, rows: list[int]) -> None:
        """Continues with some of the canvases alone."""
        self.rows = rows
        for stream in self._counts.keys() - {self.streams[row] for row in rows}:
            del self._counts[stream]  # so that no more of its baselines are loaded

    @property
    def passes(self) -> Tensor:
        """Passes of each canvas, int64 (N,), with those at larger areas."""
        halves = zip(self._earlier, self.half_passes)
        return torch.tensor([-(-(earlier + here) // 2) for earlier, here in halves])

    @property
    def loss_curves(self) -> Tensor:
        """Losses (N, steps), NaN after a mask's last step."""
        empty = self.masks.new_empty(len(self.masks), 0)
        return torch.stack(self.losses, 1) if self.losses else empty

    def _is_late(self) -> bool:
        """Whether the deadline has passed, which never stops a search before its first pass."""
        has_begun = any(self.half_passes) or any(self._earlier)
        if has_begun and self.deadline is not None and time.perf_counter() >= self.deadline:
            self.stopped_early = True
        return self.stopped_early

    def _evaluate(
        self, masks: Tensor, batch: Batch, bounded: bool, gradient: bool, colours: bool = False
    ) -> tuple[Tensor, Tensor]:
        """What the objective says. Counts the passes; the losses are looked at later."""
        features = self.units.at(batch.index)
        losses, slopes = self.objective.evaluate(
            features.spread(masks), batch, bounded=bounded, gradient=gradient, colours=colours
        )
        if gradient:
            slopes = features.sums(slopes)
        each = 2 if gradient else 1  # half passes
        for row, pick in zip(batch.rows, batch.picks):
            self.half_passes[row] += each * len(pick)
        self._unchecked.append((self._steps_done, losses.isfinite().all()))
        return losses, slopes

    def _check_losses(self) -> None:
        if not self._unchecked:
            return
        steps, finite = zip(*self._unchecked)
        together = torch.stack(finite)
        if not bool(together.all()):
            step = steps[int(together.int().argmin())]
            raise ValueError(
                f"the loss is NaN or infinite at step {step}: the model's logits are, for images "
                "stamped with a mask; check the model's precision and normalisation"
            )
        self._unchecked.clear()
