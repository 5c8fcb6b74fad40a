"""The first look: a cheap search of all units, to find those that are worth a full one."""

import math
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from captum_classpattern.images import LabelledImages
from captum_classpattern.optimization import Swap
from captum_classpattern.optimization.pool import LEAST_BUDGET, most_canvases
from captum_classpattern.surveys.search import CONTROL_IMAGES
from captum_classpattern.surveys.store import Store
from captum_classpattern.sweeps.folder import SweepFolder
from captum_classpattern.sweeps.sources import ModelSource

CHEAPER = 10  # times fewer passes
SCORED_ON = 300  # held-out images: its scores are for the table alone


def cheap(options: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of a first look: the first area alone, a tenth of the passes, and as many
    canvases as these can make use of."""
    budget = max(LEAST_BUDGET, (options["budget"] or Swap.pool_budget) // CHEAPER)
    most = most_canvases(budget)
    cheaper: dict[str, Any] = {
        "areas": [*options["areas"]][:1],
        "canvases": {kind: min(n, most) for kind, n in options["canvases"].items()},
    }
    if options["n_steps"] is None:
        cheaper["budget"] = budget
    else:
        cheaper["n_steps"] = max(1, options["n_steps"] // 4)
    return {**options, **cheaper}


def search_cost(options: Mapping[str, Any]) -> float:
    """What the search of a unit costs, to compare settings of one sweep: about its passes, or its
    rounds."""
    areas = len(options["areas"])
    if options["n_steps"] is None:
        return float(areas * len(options["canvases"]) * (options["budget"] or Swap.pool_budget))
    return float(areas * sum(options["canvases"].values()) * options["n_steps"])


def scoring_cost(options: Mapping[str, Any], held_out: LabelledImages) -> float:
    """What the scoring of a unit costs: about the images that its patterns are stamped on."""
    n = len(held_out)
    patterns = len(options["areas"]) * len(options["canvases"])
    return float(patterns * (n + 2 * min(n, CONTROL_IMAGES)))


def choose(
    folder: SweepFolder, sources: Sequence[ModelSource], classes: Collection[int], keep: float
) -> set[tuple[str, int]]:
    """The best share of the units of a first look: (model, class), by the power on the judging
    images, which are search images. So the held-out images, on which the patterns are scored in
    the end, decide nothing."""
    powers: list[tuple[float, int, int, str]] = []
    for number, source in enumerate(sources):
        for target, rows in Store(folder.path / source.folder).rows.items():
            if target in classes:
                found = [values["search_power"] for r in rows for values in r["areas"].values()]
                powers.append((-max(found), number, target, source.name))
    powers.sort()
    count = math.ceil(keep * len(powers) - 1e-9)
    return {(name, target) for _, _, target, name in powers[:count]}
