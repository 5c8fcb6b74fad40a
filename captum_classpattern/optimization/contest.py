"""A search whose canvases compete: the weak ones are dropped, and the passes go to the others."""

from typing import Any

import torch
from torch import Tensor

from captum_classpattern.classifier import Classifier
from captum_classpattern.images import LabelledImages
from captum_classpattern.optimization.holdout import judge_masks
from captum_classpattern.optimization.masks import strongest
from captum_classpattern.optimization.objective import Batch
from captum_classpattern.optimization.pool import SCREENED, SCREENING, Pool
from captum_classpattern.optimization.search import Search


class Contest:
    r"""
    The search of a pool's entrants, in their order. Only the judging images decide who goes on.

    ``forward_func`` is the classifier as it is, which judges after the screening. Unless
    ``judges_all``, only canvases that may be dropped are judged, and there are no other curves.
    """

    def __init__(
        self, forward_func: Classifier, pool: Pool, search: Search, *, judges_all: bool = True
    ) -> None:
        self.forward_func, self.pool, self.search = forward_func, pool, search
        self.judges_all = judges_all
        # of each entrant its power on judging images, after how many passes
        self.curves: dict[int, list[tuple[int, float]]] = {row: [] for row in search.rows}
        self.images_judged = 0  # before the end
        self.screened = False  # whether there were so many canvases

    def run(self) -> None:
        """Runs the search to its end."""
        first_masks = self._screen()
        before = self.search.passes
        for _ in self.search.checkpoints:
            self.images_judged += self._judge(self.pool.early_judges)
            self.search.keep(sorted(self.winners))
        self.search.finish()
        # what there was no time for keeps the mask of the screening, or has none
        untouched = (self.search.passes == before).to(first_masks.device).view(-1, 1, 1, 1)
        self.search.masks = first_masks.where(untouched, self.search.masks)
        self._judge(self.pool.judges)

    def at_area(self, area: float) -> "Contest":
        """The finished search of the winners at a smaller area, which starts from their masks."""
        search = self.search.at_area(area, sorted(self.winners))
        other = Contest(self.forward_func, self.pool, search, judges_all=self.judges_all)
        search.finish()
        other._judge(self.pool.judges)
        return other

    @property
    def passes(self) -> int:
        """The passes of all entrants at this area, and half a pass for each image that was judged
        early."""
        return self.search.passes_here + -(-self.images_judged // 2)

    @property
    def winners(self) -> list[int]:
        """The entrants whose patterns are kept: group by group, the best of each group first."""
        return self.pool.best(self.search.rows, self._powers)

    def info(self, row: int) -> dict[str, Any]:
        """What the search knows of the pattern of an entrant."""
        result, curve = self.search.result(), self.curves[row]
        mask, losses = result.masks[row], result.losses[row]
        info = {
            "passes": int(result.passes[row]),
            "loss_curve": losses[losses.isfinite()].tolist(),
            "power_curve": [list(point) for point in curve],
            "search_power": curve[-1][1] if curve else None,
            "mask_pixels": int(mask.count_nonzero()),
            "empty_mask": not bool(mask.any()),
            "stopped_early": self.search.stopped_early,
        }
        overlap = self._overlap(row)
        return info if overlap is None else {**info, "starts_iou": overlap}

    def _screen(self) -> Tensor:
        """Leaves the most promising entrants of each large group to the search. The masks of the
        screening; they are empty where there was none."""
        rows = self.pool.crowded(self.search.rows, SCREENED)
        if not rows:
            return torch.zeros_like(self.search.masks)
        self.screened = True
        quick = self.search.anew(SCREENING, rows)
        quick.finish()
        self.search.add_passes(quick)
        scores = {row: -loss for row, loss in self._losses(quick).items()}
        self.search.keep(sorted(self.pool.best(self.search.rows, scores, SCREENED)))
        masks = torch.zeros_like(quick.masks)
        masks[rows] = quick.masks[rows]
        return masks

    def _losses(self, search: Search) -> dict[int, float]:
        """The losses of a search's masks on some of the judging images."""
        judges = self.pool.screening_judges
        images = judges.in_one_tensor().images.to(search.masks.device)
        losses: dict[int, Tensor] = {}
        for row in search.rows:
            others = judges.known_labels != self.pool.entrants[row].stream.target
            batch = Batch(images, [row], [torch.nonzero(others).flatten().tolist()])
            self.images_judged += len(batch.places)
            mask = search.masks[row : row + 1]
            losses[row], _ = search.objective.evaluate(mask, batch, bounded=True, gradient=False)
        return {row: float(loss.nan_to_num(torch.inf)) for row, loss in losses.items()}

    def _judge(self, judges: LabelledImages) -> int:
        """Extends the curves of those that are still searched; returns how many images it took."""
        rows = self.search.rows
        if not self.judges_all:
            rows = self.pool.crowded(rows)
        counts = judge_masks(self.forward_func, self.search, judges, rows)
        passes = self.search.passes.tolist()
        for row, (hits, n) in counts.items():
            if n:
                self.curves[row].append((passes[row], hits / n))
        return sum(n for _, n in counts.values())

    @property
    def _powers(self) -> dict[int, float]:
        """The last known power of each entrant."""
        return {row: curve[-1][1] for row, curve in self.curves.items() if curve}

    def _overlap(self, row: int) -> float | None:
        """The IoU of a pattern and the strongest other start on its image, if there is one."""
        entrants, powers = self.pool.entrants, self._powers
        group, image = entrants[row].group, entrants[row].image
        others = [
            other
            for other in powers
            if other != row and entrants[other].group == group and entrants[other].image == image
        ]
        if not others:
            return None
        other = max(others, key=lambda other: powers[other])
        binary = strongest(self.search.masks[[row, other]], self.search.kept_pixels) > 0
        return float((binary[0] & binary[1]).sum() / (binary[0] | binary[1]).sum())
