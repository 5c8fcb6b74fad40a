"""The state of a search that a solver works on: its masks, its batches, its losses."""

from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import Tensor

from captum_classpattern._support.progress import new_bar
from captum_classpattern._support.topk import pixels_kept
from captum_classpattern._support.validation import ArgumentTypeError
from captum_classpattern.classifier import on_device
from captum_classpattern.optimization.baselines import Batch, Stream
from captum_classpattern.optimization.features import Features, Pixels
from captum_classpattern.optimization.objective import check_gradients, evaluate

if TYPE_CHECKING:
    from captum_classpattern.optimization.plan import SearchPlan

CHECK_EVERY = 16  # steps between looks at the losses: each look waits for the device


class Solver(Protocol):
    """An object that finds the masks, such as a frozen dataclass with its settings and defaults.

    Results call it ``name``. If it ``accelerates``, its passes may run on a faster copy of the
    model (see ``precision`` of :meth:`ClassPattern.search`). With ``budget``, it also needs
    ``passes(n_steps)``: how many passes one canvas has taken at the ``yield``, if there is one, and
    at the end; with None, for the steps that it chooses itself. It may have ``pool_budget``, how
    many passes a pool takes without a budget, and ``starts``, how often a canvas of one colour
    starts (otherwise twice). With ``chosen_by_margin``, the mean margin on the validation images
    decides, not the power.
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
    What a solver needs: many independent masks, searched together, one for each candidate of the
    plan, at one area. A canvas that starts twice has two masks.

    With features (pixels that are kept together), a solver's masks and gradients are those of the
    features, (N, 1, 1, F). If ``n_steps`` is None, the solver chooses it.

    Attributes:
        canvases (Tensor): (N, C, H, W); a solver may change their colours.
        masks (Tensor): float32 (N, 1, H, W) in [0, 1], 0.5 at first: the masks found so far.
        rows (list[int]): The candidates that are still searched; the weakest may be dropped.
        losses (list[Tensor]): The losses (N,) of each step, NaN for masks that it left alone.
        trend (Tensor or None): What a solver knows of the pixels for a search at another area:
            (N, 1, H, W), lowest where a pixel helps most.
        powers, margins (dict[int, float]): The last power of each candidate on validation images,
            and the mean margin.
        curves (dict[int, list]): Passes and powers of each candidate.
        scored_early (int): How many images were scored before the end.
        was_screened (bool): Whether there were so many candidates that a quick search came first.
        images_per_call (int): The most images in one call of the model; halved where the device's
            memory is too small.
        copies_images (bool): Whether the model changes its images in place, so that it needs a copy
            of them.
    """

    plan: "SearchPlan"
    solver: Solver
    area: float
    n_steps: int | None
    canvases: Tensor
    streams: list[Stream]
    images_per_call: int
    copies_images: bool = False
    seen: set[int] = field(default_factory=set)  # places of the baselines that were used

    def __post_init__(self) -> None:
        count, _, height, width = self.canvases.shape
        self.units: Pixels | Features = self.plan.features or Pixels((height, width))
        shape = count, 1, *self.units.shape
        self.masks = torch.full(shape, 0.5, dtype=torch.float32, device=self.canvases.device)
        self.rows = list(range(count))
        self.losses: list[Tensor] = []
        self.trend: Tensor | None = None
        self.powers: dict[int, float] = {}
        self.margins: dict[int, float] = {}
        self.curves: dict[int, list[list[float]]] = defaultdict(list)
        self.scored_early, self.was_screened = 0, False
        self.half_passes = [0] * count  # of each canvas at this area
        self._earlier = [0] * count  # at larger areas
        self._steps_done = 0
        self._unchecked: list[tuple[int, Tensor]] = []  # steps, and whether losses are finite
        self._bar = new_bar("search", 0, bool(self.plan.settings.show_progress))

    @classmethod
    def of(cls, plan: "SearchPlan") -> "Search":
        """A search at the largest area, which has not begun."""
        settings = plan.settings
        return cls(
            plan,
            settings.solver,
            settings.area,
            plan.n_steps,
            plan.canvases.clone(),
            plan.new_streams(),
            plan.images_per_call,
        )

    # ---- for solvers

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
        steps = self.solver.run(self)
        if not isinstance(steps, Iterable):
            raise ArgumentTypeError(
                f"`run` of solver {self.solver.name!r} must be a generator, got a "
                f"{type(steps).__name__}: end it in `yield from ()`"
            )
        for _ in steps:
            self._check_losses()
            yield
        self._bar.close()

    def finish(self) -> None:
        """Runs the search to its end without a pause."""
        for _ in self.run():
            pass

    def batches(self, batch_size: int, n_steps: int | None, *, epochs: int = 1) -> Iterator[Batch]:
        """``n_steps`` batches of baselines for each canvas; if it is None, as many as visit each
        baseline ``epochs`` times. Each call continues where the last one ended."""
        lengths = {
            stream: n_steps or epochs * -(-stream.length // batch_size)
            for stream in self._streams_in_use
        }
        self._bar.total += max(lengths.values())
        for number in range(max(lengths.values())):
            streams = [each for each in self._streams_in_use if number < lengths[each]]
            if not streams:
                break
            yield self._next_batch(streams, batch_size)
            self._steps_done += 1
            self._bar.update()
            if self._steps_done % CHECK_EVERY == 1:
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
        any colour is worth, see :func:`evaluate`; one pass per image."""
        losses, both = self._evaluate(masks, batch, bounded, gradient=True, colours=True)
        slopes, at_images = both.chunk(2, dim=1)
        return losses, slopes, at_images

    def record(self, batch: Batch, losses: Tensor) -> None:
        """Keeps the losses of a step; the search stops with an error if they are not finite."""
        step = torch.full_like(self.masks[:, 0, 0, 0], torch.nan)
        step[batch.index] = losses
        self.losses.append(step)
        self._unchecked.append((self._steps_done, losses.isfinite().all()))

    # ---- other searches of the same candidates

    def restart(self, **changes: Any) -> "Search":
        """The search from its beginning, with another area or solver, on canvases as they were at
        first."""
        canvases, streams = self.plan.canvases.clone(), self.plan.new_streams()
        return replace(self, canvases=canvases, streams=streams, **changes)

    def continue_at(self, area: float, rows: list[int]) -> "Search":
        """A search of some of the candidates at a smaller area. If the solver keeps a trend, it
        goes on from these masks and takes two thirds of the steps; otherwise it begins anew."""
        if self.trend is None:
            other = replace(self, area=area, streams=self.plan.new_streams())
        else:
            other = replace(self, area=area, canvases=self.canvases.clone())
            other.masks, other.trend = self.masks.clone(), self.trend
            if not any(self._earlier):  # the second area sets n_steps for all further ones
                other.n_steps = max(1, -(-2 * len(self.losses) // 3))
        other._earlier = [a + b for a, b in zip(self._earlier, self.half_passes)]
        other.rows = rows
        return other

    # ---- what it cost, and how it went

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

    @property
    def _streams_in_use(self) -> list[Stream]:
        """Those of the candidates that are still searched; no others are loaded."""
        return list(dict.fromkeys(self.streams[row] for row in self.rows))

    def _next_batch(self, streams: list[Stream], size: int) -> Batch:
        """The next images of some streams. An image that several of them meet is loaded once."""
        picks = {stream: stream.take(size) for stream in streams}
        numbers = sorted(set().union(*picks.values()))
        images = on_device(self.plan.split.fit.take(numbers), self.canvases.device)
        self.seen.update(numbers)
        place = {number: i for i, number in enumerate(numbers)}
        rows = [row for row in self.rows if self.streams[row] in picks]
        own = [[place[number] for number in picks[self.streams[row]]] for row in rows]
        return Batch(images, rows, own)

    def _evaluate(
        self, masks: Tensor, batch: Batch, bounded: bool, gradient: bool, colours: bool = False
    ) -> tuple[Tensor, Tensor]:
        """What the objective says. Counts the passes; the losses are looked at later."""
        features = self.units.at(batch.index)
        losses, slopes = evaluate(
            self, features.spread(masks), batch, bounded=bounded, gradient=gradient, colours=colours
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
                f"the loss is NaN or infinite at step {step}: so are the model's logits for "
                "images stamped with a mask; check the model's precision and normalisation"
            )
        self._unchecked.clear()
        plan = self.plan
        check_gradients(plan.model, plan.split.fit, plan.arguments, len(self.canvases))
