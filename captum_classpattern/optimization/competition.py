"""The competition of the canvases of a search: which go on, which win, and the winners' patterns.

A short form of successive halving (Jamieson and Talwalkar 2016, arXiv 1502.07943): a quick search
leaves a few canvases of a large pool, the weaker of these are dropped half-way, and the best is
kept. The validation images alone decide.
"""

import copy
import math
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor

from captum_classpattern._support.hashes import combined_hash
from captum_classpattern._support.topk import topk_masks
from captum_classpattern.classifier import (
    additional_rows,
    images_at_once,
    on_device,
    seed_generators,
)
from captum_classpattern.classifier.class_names import name_of
from captum_classpattern.images import LabelledImages
from captum_classpattern.optimization.baselines import Batch
from captum_classpattern.optimization.masks import strongest
from captum_classpattern.optimization.objective import evaluate
from captum_classpattern.optimization.plan import (
    EARLY_IMAGES,
    SCREENING,
    SCREENING_IMAGES,
    SearchPlan,
    validation_subset,
)
from captum_classpattern.optimization.search import Search
from captum_classpattern.optimization.settings import versions
from captum_classpattern.pattern import MovingPattern, Pattern
from captum_classpattern.scores.power import StampTest, judge_each


def find_patterns(plan: SearchPlan) -> dict[float, list[Pattern]]:
    """The patterns of a search, by area, with what is known of it."""
    started, searches = time.perf_counter(), compete(plan)
    # of a Tensor all images, of others those that were used, since to hash all would load them
    used = sorted({place for search in searches.values() for place in search.seen})
    fitted = plan.split.fit if plan.split.fit.in_memory else plan.split.fit.subset(used)
    seen = frozenset({*fitted.hashes, *plan.split.validation.hashes})
    evidence = {
        "settings": plan.settings.as_dict(),
        "seed": plan.settings.seed,
        "seconds": round(time.perf_counter() - started, 3),
        "searched_together": len(plan.first),
        "passes_together": sum(
            sum(-(-count // 2) for count in each.half_passes) + -(-each.scored_early // 2)
            for each in searches.values()
        ),
        "precision": plan.precision,
        "accelerated_by": plan.accelerated_by,
        "search_images": len(seen),
        "search_images_hash": combined_hash(seen),
        "versions": versions(),
    }
    return {area: patterns_of(searches[area], evidence, seen) for area in plan.settings.areas}


def compete(plan: SearchPlan) -> dict[float, Search]:
    """The finished search at each area, the largest first. A pool that was screened is searched
    anew at a smaller area, since other canvases are best there; otherwise the winners go on from
    their masks."""
    largest, *smaller = sorted(plan.settings.areas, reverse=True)
    seed_generators(plan.settings.seed)
    search = Search.of(plan)
    _run(search)
    searches = {largest: search}
    for area in smaller:
        if search.was_screened:
            search = search.restart(area=area)
            _run(search)
        else:
            search = search.continue_at(area, sorted(winners(search)))
            search.finish()
            _score(search, plan.split.validation)
        searches[area] = search
    return searches


def _run(search: Search) -> None:
    """Runs a search to its end; the weaker candidates are dropped on the way."""
    _screen(search)
    for _ in search.run():
        _score(search, validation_subset(search.plan.split.validation, EARLY_IMAGES), early=True)
        search.rows = sorted(winners(search))
    _score(search, search.plan.split.validation)


def _screen(search: Search) -> None:
    """Leaves the most promising candidates of each large group to the search."""
    plan, device = search.plan, search.masks.device
    rows = plan.crowded(search.rows, plan.places)
    if not rows:
        return
    search.was_screened = True
    quick = search.restart(solver=SCREENING, n_steps=None)
    quick.half_passes, quick.rows = search.half_passes, rows  # its passes count here
    quick.finish()
    losses: list[Tensor] = []
    validation = validation_subset(plan.split.validation, SCREENING_IMAGES)
    images = on_device(validation.images, device)
    at_once = max(1, images_at_once(device) // SCREENING_IMAGES)
    for start in range(0, len(rows), at_once):
        part = rows[start : start + at_once]
        targets = [plan.candidates[row].target for row in part]
        others = [torch.nonzero(validation.known_labels != y).flatten() for y in targets]
        batch = Batch(images, part, [each.tolist() for each in others])
        search.scored_early += len(batch.places)
        pixels = quick.units.at(batch.index).spread(quick.masks[batch.index])
        losses.append(evaluate(quick, pixels, batch, bounded=True, gradient=False)[0])
    search.images_per_call, search.copies_images = quick.images_per_call, quick.copies_images
    values = torch.cat(losses).tolist()
    scores = {row: -math.inf if math.isnan(x) else -x for row, x in zip(rows, values)}
    search.rows = sorted(plan.best(search.rows, scores, plan.places))


def _score(search: Search, validation: LabelledImages, *, early: bool = False) -> None:
    """Extends the curves of those still searched: how many validation images of other classes are
    predicted as the class with their binary masks."""
    plan = search.plan
    rows = plan.crowded(search.rows) if plan.masks_only else search.rows
    masks = search.pixel_masks
    binary = masks if plan.settings.is_patch else topk_masks(masks, search.n_pixels)

    def stamper(row: int) -> Callable[[Tensor], Tensor]:
        canvas = search.canvases[row]
        if plan.settings.is_patch:
            patch = MovingPattern(canvas, masks[row], plan.candidates[row].target, size=plan.size)
            return patch.stamper(plan.settings.seed)
        return lambda images: torch.where(binary[row] > 0, canvas.to(images), images)

    def additional_for(n: int, row: int) -> tuple[Any, ...]:
        every = torch.full((n,), row)
        return additional_rows(plan.arguments, every, len(plan.canvases))

    others = {y: validation.without_class(y) for y in {plan.candidates[row].target for row in rows}}
    judged = {
        row: StampTest(stamper(row), target, others[target], partial(additional_for, row=row))
        for row in rows
        if len(others[target := plan.candidates[row].target])
    }
    hits = judge_each(plan.model, [*judged.values()], search.images_per_call)
    passes = search.passes.tolist()
    for (row, (_, _, images, _)), of_row in zip(judged.items(), hits):
        search.powers[row], search.margins[row] = of_row.hits / len(images), of_row.margin
        search.curves[row].append([passes[row], search.powers[row]])
        search.scored_early += len(images) * early


def winners(search: Search) -> list[int]:
    """The candidates whose patterns are kept: group by group, the best of each group first."""
    by_margin = getattr(search.solver, "chosen_by_margin", False)
    return search.plan.best(search.rows, search.margins if by_margin else search.powers)


def masks_of_canvases(search: Search) -> Tensor:
    """The best mask of each canvas that was given, (M, 1, H, W), the same for equal ones, where
    each canvas is a group of its own."""
    best = {search.plan.candidates[row].given: row for row in winners(search)}
    return search.pixel_masks[[best[first] for first in search.plan.first]]


def patterns_of(search: Search, evidence: dict[str, Any], seen: frozenset[str]) -> list[Pattern]:
    """The patterns of the winners, with what the search knows of each and further evidence."""
    plan, patterns = search.plan, list[Pattern]()
    masks, losses, passes = search.pixel_masks, search.loss_curves, search.passes
    canvases = [one.given for one in plan.candidates]
    make = partial(MovingPattern, size=plan.size) if plan.settings.is_patch else Pattern
    for row in winners(search):
        mask, target = masks[row].clone(), plan.candidates[row].target
        info: dict[str, Any] = {
            "passes": int(passes[row]),
            "loss_curve": losses[row][losses[row].isfinite()].tolist(),
            "power_curve": search.curves[row],
            "search_power": search.powers.get(row),
            "search_margin": search.margins.get(row),
            "mask_pixels": int(mask.count_nonzero()),
            "empty_mask": not bool(mask.any()),
            **copy.deepcopy(evidence),
        }
        others = [i for i in search.powers if i != row and canvases[i] == canvases[row]]
        if others and not plan.settings.is_patch:  # other starts: the strongest
            pair = masks[[row, max(others, key=search.powers.__getitem__)]]
            one, two = (strongest(pair, search.n_pixels) > 0) & (pair > 0)
            if bool((one | two).any()):
                info["starts_iou"] = float((one & two).sum() / (one | two).sum())
        info["settings"] |= {"area": search.area, "n_steps": search.n_steps}
        if (name := name_of(target, plan.model.names)) is not None:
            info["class_name"] = name
        patterns.append(make(search.canvases[row].clone(), mask, target, info, seen=seen))
    return patterns
