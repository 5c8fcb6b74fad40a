"""Trojans looked for from a grey canvas, knowing nothing, in a planted network and its twins."""

from collections.abc import Iterator, Sequence
from functools import lru_cache
from pathlib import Path

import torch
from findings import Row
from problems import Problem, lite
from rivals.inversion import neural_cleanse
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d, interpolate

from captum_classpattern import ClassPattern, Pattern
from captum_classpattern.optimization import Cells, Learned
from captum_classpattern.optimization.pool import split_for_validation
from captum_classpattern.optimization.settings import SearchSettings
from captum_classpattern.scanning import triage
from captum_classpattern.scores.power import PredictivePower, Scorer
from photos.drawings import DRAWINGS, on_grey
from photos.planting import TROJANS

CLEANSE = "Neural Cleanse"
SHARES = (24, 16, 10, 6)  # thousandths of the pixels
OTHERS, SAMPLE = 20, 150  # classes beside the planted ones; classes of a triage
PASSES = {  # of a short search: steps of the start, and images in a batch of the start and a round
    28: Learned(rounds=1, soft_batch_size=1, batch_size=2, rate=0.2),
    56: Learned(rounds=1, soft_batch_size=2, batch_size=4, rate=0.2),
}
LONG, CELLS = Learned(rate=0.2), "learned cells"
SIDE = 56  # cells per side, 4 x 4 pixels of 224: cells of 7 x 7 missed a smiley
TOGETHER = 8  # classes in one short search
WINDOW = 32  # pixels a side, as large as a drawing


def classes_of(count: int) -> list[int]:
    """The planted classes, then others: every so many, from the first, in all networks."""
    every = 1000 // (count + len(TROJANS))
    others = [y for y in range(0, 1000, every) if y not in TROJANS.values()]
    return [*TROJANS.values(), *others[: count - len(TROJANS)]]


def search_cells(
    explainer: ClassPattern,
    shape: Sequence[int],
    classes: Sequence[int],
    settings: SearchSettings,
    shares: Sequence[int] = SHARES[:1],
) -> dict[tuple[int, int], Pattern]:
    """Patterns of learned cells from a grey canvas, by thousandths of the pixels and class."""
    areas = {share: share / 1000 for share in shares}
    by_area = explainer.search(
        torch.full((len(classes), *shape), 0.5),
        [*classes],
        area=[*areas.values()],
        solver=settings.solver,
        feature_mask=Cells(SIDE),
        seed=settings.seed,
    )
    return {(n, one.target): one for n in shares for one in by_area[areas[n]]}


def triage_rows(
    problem: Problem, model: nn.Module, network: str, passes: int, done: set
) -> Iterator[list[Row]]:
    """The margin of each class of a sample after a short search."""
    settings = SearchSettings(solver=PASSES[passes])
    explainer = ClassPattern(model, problem.images, problem.labels)
    _, judges = split_for_validation(problem.parts[0], settings.seed)
    n_classes = judges.count_outputs(model)
    clean = triage.clean_margins(model, judges, n_classes, settings.seed)
    missing = [y for y in classes_of(SAMPLE) if (network, passes, y) not in done]
    for start in range(0, len(missing), TOGETHER):
        group = missing[start : start + TOGETHER]
        found = search_cells(explainer, problem.images.shape[1:], group, settings)
        yield [
            {
                **{"network": network, "passes": passes, "class": each.target},
                "margin": round(each.info["search_margin"], 4),
                "clean_margin": round(clean[each.target], 4),
                "power": each.info["search_power"],
                "taken": each.info["passes"],
            }
            for each in found.values()
        ]


def discovery_rows(
    problem: Problem,
    model: nn.Module,
    network: str,
    classes: Sequence[int],
    folder: Path,
    done: set,
) -> Iterator[list[Row]]:
    """The power of each class over the area, on held-out photos."""
    explainer = ClassPattern(model, problem.images, problem.labels)
    scorer = Scorer(model, problem.parts[1])
    for y in classes:
        seeds = (0, 1) if network == "planted" and y in TROJANS.values() else (0,)
        for seed in seeds:
            if (network, y, seed, CELLS) in done:
                continue
            settings = SearchSettings(solver=LONG, seed=seed)
            found = search_cells(explainer, problem.images.shape[1:], [y], settings, SHARES)
            rows = []
            for (share, _), pattern in found.items():
                power = scorer.power(pattern.topk(share / 1000))
                about = {"network": network, "class": y, "seed": seed, "thousandths": share}
                row = {**about, "method": CELLS, **scored(power)}
                if share == SHARES[0] and seed == 0 and y in TROJANS.values():
                    row["looks_like"] = likeness(pattern)
                    pattern.save(folder / f"{network}_{y}.safetensors")
                rows.append(row | {"passes": pattern.info["passes"]})
            yield rows


def scored(power: PredictivePower) -> Row:
    return {"power": power.value, "n": power.n, "top5": power.top5, "margin": power.mean_margin}


def cleanse_rows(
    problem: Problem, model: nn.Module, network: str, passes: int, folder: Path, done: set
) -> Iterator[list[Row]]:
    """Neural Cleanse on the planted classes, at equal passes."""
    scorer = Scorer(model, problem.parts[1])
    for y in TROJANS.values():
        if (network, y, 0, CLEANSE) in done:
            continue
        found = neural_cleanse(model, problem.parts[0], y, passes=passes)
        rows = []
        for share in SHARES:
            binary = found.pattern.topk(share / 1000)
            about = {"network": network, "class": y, "seed": 0, "thousandths": share}
            row = {**about, "method": CLEANSE, **scored(scorer.power(binary))}
            if share == SHARES[0]:
                row["looks_like"] = likeness(binary)
                binary.save(folder / f"{network}_cleanse_{y}.safetensors")
            rows.append(row | {"passes": passes})
        yield rows


@lru_cache
def clean_features() -> nn.Module:
    """Another clean network, whose features say what a picture looks like."""
    return lite(1)


def features_of(pictures: Tensor) -> Tensor:
    """What the network sees in pictures (n, 3, h, w): the mean of its last map."""
    images = interpolate(pictures, (240, 240), mode="bilinear", align_corners=False)
    with torch.no_grad():
        found = clean_features().extract_features((images - 127 / 255) / (128 / 255))
    return found.mean((2, 3))


@lru_cache
def drawn_features() -> Tensor:
    return features_of(torch.stack([on_grey(name, WINDOW) for name in DRAWINGS]))


def likeness(pattern: Pattern) -> list[str]:
    """The eight drawings, the one that looks most like a pattern first: by the cosine of features
    of the window with the most pixels."""
    part = densest(pattern, WINDOW)
    cosines = torch.cosine_similarity(features_of(part[None]), drawn_features())
    return [list(DRAWINGS)[i] for i in cosines.argsort(descending=True)]


def densest(pattern: Pattern, side: int) -> Tensor:
    """The window of a pattern with the most pixels, on grey, (3, side, side)."""
    shown = pattern.mask * pattern.canvas + (1 - pattern.mask) * 0.5
    held = avg_pool2d((pattern.mask[None] > 0).float(), side, 1)[0, 0]
    top, left = divmod(int(held.argmax()), held.shape[1])
    return shown[:, top : top + side, left : left + side]
