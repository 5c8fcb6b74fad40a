"""The first look: a cheap search of all units, to find those that are worth a full one."""

import math
from collections.abc import Collection, Sequence
from dataclasses import replace

from captum_classpattern.optimization.contest import LEAST_BUDGET, most_canvases
from captum_classpattern.surveys.search import SurveySettings
from captum_classpattern.surveys.sources import ModelSource
from captum_classpattern.surveys.store import Store
from captum_classpattern.surveys.sweep_folder import SweepFolder

CHEAPER = 10  # times fewer passes
SCORED_ON = 300  # held-out images: its scores are for the table alone


def cheap(settings: SurveySettings) -> SurveySettings:
    """The settings of a first look: the first area alone, a tenth of the passes, and as many
    canvases as these can make use of."""
    budget = max(LEAST_BUDGET, settings.passes // CHEAPER)
    most = most_canvases(budget)
    canvases = {kind: min(n, most) for kind, n in settings.canvases.items()}
    first = replace(settings, areas=settings.areas[:1], canvases=canvases)
    if settings.n_steps is None:
        return replace(first, budget=budget)
    return replace(first, n_steps=max(1, settings.n_steps // 4))


def search_cost(settings: SurveySettings) -> float:
    """What the search of a unit costs, to compare settings of one sweep: about its passes, or its
    rounds."""
    if settings.n_steps is None:
        each = float(len(settings.canvases) * settings.passes)
    else:
        each = float(sum(settings.canvases.values()) * settings.n_steps)
    return len(settings.areas) * each


def choose(
    folder: SweepFolder, sources: Sequence[ModelSource], classes: Collection[int], keep: float
) -> set[tuple[str, int]]:
    """The best share of the units of a first look: (model, class), by the power on the judging
    images, which are search images. So the held-out images, on which the patterns are scored in
    the end, decide nothing."""
    powers: list[tuple[float, int, int, str]] = []
    for number, source in enumerate(sources):
        best: dict[int, float] = {}  # of each class
        for finding in Store(folder.path / source.folder).findings():
            power = max(finding.search_powers.values())
            best[finding.target] = max(power, best.get(finding.target, power))
        powers += [(-best[y], number, y, source.name) for y in best if y in classes]
    powers.sort()
    count = math.ceil(keep * len(powers) - 1e-9)
    return {(name, target) for _, _, target, name in powers[:count]}
