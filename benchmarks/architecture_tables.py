"""The tables of docs/results/architectures.md."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from statistics import fmean

import torch
from architecture_models import TEACHER
from architecture_rows import LABELS, POSITIVE, WHITE, Found, pooled
from findings import ByClass, Row, Table, format_values, head, line, mean_of
from torch import Tensor

from captum_classpattern.scores import simplicity

RANDOM = "random pixels"
RANDOM_MASKS = 200
SHAPES = {  # column: the score of scores.simplicity
    "total variation": "total_variation",
    "fine detail": "high_frequency_share",
    "pieces": "components",
}


def tables(rows: Sequence[Row]) -> Iterator[Table]:
    """All tables with their titles."""
    found = [Found(rows, canvas) for canvas in (WHITE, POSITIVE)]
    for each in found:
        yield f"The models, and their patterns on themselves: {each.canvas} canvases", powers(each)
    for each in found:
        yield f"What others share: {each.canvas} canvases", sharing_table(each)
    for each in found:
        powers_of_pairs = matrix(each, each.powers, "{:.0%}".format, random=True)
        yield f"Predictive power of (row) on (column): {each.canvas} canvases", powers_of_pairs
    for each in found:
        overlaps = matrix(each, each.ious, "{:.2f}".format)
        yield f"Overlap (IoU) of the masks: {each.canvas} canvases", overlaps
    yield "Distillation", distillation_table(found)
    yield "Shape of the masks", shape_table(found)


def share(values: ByClass) -> str:
    """A mean over classes in per cent, with its interval."""
    return format_values(values, ".1f", 100, "%")


def number(values: ByClass, digits: int = 2) -> str:
    """A mean over classes with its interval."""
    return format_values(values, f".{digits}f")


def powers(found: Found) -> Iterator[str]:
    """The models, and the powers of their patterns on themselves."""
    controls = (RANDOM, "no pattern", "above controls")
    yield head("network", "parameters", "accuracy (lowest to highest)", "power", *controls)
    for network in found.networks:
        models = [row for row in found.models if row["network"] == network]
        accuracies = [row["accuracy"] for row in models]
        above = [row["beats_controls"] for row in found.searched(network)]
        yield line(
            LABELS[network],
            f"{models[0]['parameters']:,}",
            f"{fmean(accuracies):.1%} ({100 * min(accuracies):.1f} to {100 * max(accuracies):.1f})",
            share(found.values(network, "power")),
            f"{mean_of(found.values(network, 'random_pixels')):.1%}",
            f"{mean_of(found.values(network, 'no_pattern')):.1%}",
            f"{sum(above)} of {len(above)}",
        )


def sharing_table(found: Found) -> Iterator[str]:
    """How much of the power, and of the masks, a network shares with others."""
    on = [f"on {whom}" for whom in ("itself", "other seeds", "other architectures")]
    iou = [f"IoU: {whom}" for whom in ("two searches", "two seeds", "other architectures")]
    yield head("patterns of", *on, "those of others on it", *iou)
    for network in found.networks:
        others = found.others(network)
        yield line(
            LABELS[network],
            share(found.values(network, "power")),
            share(found.powers(network, network)),
            share(pooled([found.powers(network, other) for other in others])),
            share(pooled([found.powers(other, network) for other in others])),
            number(found.ious_of_searches(network)),
            number(found.ious(network, network)),
            number(pooled([found.ious(network, other) for other in others])),
        )
    random = [found.values(network, "random_pixels") for network in found.networks]
    chance = f"{iou_by_chance(found):.3f}"
    yield line(RANDOM, share(pooled(random)), "", "", "", chance, chance, chance)


def iou_by_chance(found: Found) -> float:
    """About the overlap of two random masks of k out of n pixels: k / (2 n - k)."""
    mask = next(iter(found.masks.values()))
    k, n = int(mask.sum()), mask.numel()
    return k / (2 * n - k)


def matrix(
    found: Found,
    values: Callable[[str, str], ByClass],
    text: Callable[[float], str],
    *,
    random: bool = False,
) -> Iterator[str]:
    """Each network with each other, and on the diagonal with its own other seeds."""
    yield head("", *(LABELS[network] for network in found.networks))
    for network in found.networks:
        cells = [text(mean_of(values(network, other))) for other in found.networks]
        yield line(LABELS[network], *cells)
    if random:
        cells = [text(mean_of(found.values(name, "random_pixels"))) for name in found.networks]
        yield line(RANDOM, *cells)


def distillation_table(found: Sequence[Found]) -> Iterator[str]:
    """The student that was trained alone and the distilled one, compared with the teacher, which is
    the ResNet of the same seed; other architectures have other seeds. The intervals are of paired
    differences."""
    yield head("canvas", "measure", "alone", "distilled", "difference")
    for name, column, text in (
        ("accuracy", "accuracy", "{:.1%}"),
        ("predictions equal to the teacher's", "same_as_teacher", "{:.1%}"),
        ("divergence from the teacher's probabilities", "divergence", "{:.3f}"),
    ):
        alone, distilled = (
            fmean(row[column] for row in found[0].models if row["network"] == student)
            for student in ("shallow", "distilled")
        )
        yield line("", name, *map(text.format, (alone, distilled, distilled - alone)))
    for each in found:
        measures: dict[str, Callable[[str], ByClass]] = {
            "its patterns on itself": lambda name, each=each: each.values(name, "power"),
            "its patterns on the teacher": lambda name, each=each: each.powers(
                name, TEACHER, same_seed=True
            ),
            "its patterns on other architectures": lambda name, each=each: pooled(
                [each.powers(name, other) for other in each.others(name)]
            ),
            "the teacher's patterns on it": lambda name, each=each: each.powers(
                TEACHER, name, same_seed=True
            ),
        }
        for name, measure in measures.items():
            alone, distilled = measure("shallow"), measure("distilled")
            cells = [f"{mean_of(values):.1%}" for values in (alone, distilled)]
            yield line(each.canvas, name, *cells, share(difference(distilled, alone)))
        alone, distilled = (
            each.ious(name, TEACHER, same_seed=True) for name in ("shallow", "distilled")
        )
        cells = [f"{mean_of(values):.2f}" for values in (alone, distilled)]
        gap = number(difference(distilled, alone), 3)
        yield line(each.canvas, "IoU with the teacher's masks", *cells, gap)


def difference(first: ByClass, second: ByClass) -> Mapping[int, list[float]]:
    """First minus second, by class."""
    return {y: [fmean(first[y]) - fmean(second[y])] for y in first}


def shape_table(found: Sequence[Found]) -> Iterator[str]:
    """How simple the masks are; lower is simpler."""
    columns = [f"{each.canvas}: {name}" for each in found for name in SHAPES]
    yield head("masks of", *columns)
    for network in found[0].networks:
        cells = []
        for each in found:
            scores = shapes_of(each, network)
            cells += [number(scores[score], digits(score)) for score in SHAPES.values()]
        yield line(LABELS[network], *cells)
    mask = next(iter(found[0].masks.values()))
    random = [simplicity(mask) for mask in random_masks(mask)]
    means = {score: fmean(getattr(each, score) for each in random) for score in SHAPES.values()}
    yield line(RANDOM, *[f"{means[s]:.{digits(s)}f}" for s in SHAPES.values()] * len(found))


def digits(score: str) -> int:
    return 1 if score == "components" else 3


def shapes_of(found: Found, network: str) -> Mapping[str, ByClass]:
    """The scores of a network's masks."""
    scored = {
        y: [simplicity(found.masks[network, seed, 0, y]) for seed in found.seeds]
        for y in found.classes
    }
    return {
        score: {y: [float(getattr(each, score)) for each in scored[y]] for y in scored}
        for score in SHAPES.values()
    }


def random_masks(like: Tensor) -> Iterator[Tensor]:
    """Masks of as many pixels at random places."""
    generator = torch.Generator().manual_seed(0)
    for _ in range(RANDOM_MASKS):
        order = torch.randperm(like.numel(), generator=generator)
        yield like.flatten()[order].view_as(like)
