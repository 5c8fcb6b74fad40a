"""The tables of docs/results/architectures.md, and the figure of docs/what_changes_a_pattern.md."""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from statistics import fmean

import numpy as np
import torch
from architecture_models import TEACHER
from architecture_rows import LABELS, POSITIVE, WHITE, Found, pooled
from findings import ByClass, Row, Table, format_values, head, iou_by_chance, line, mean_of
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from captum_classpattern._support.formats import percent
from captum_classpattern.demo import CLASS_NAMES
from captum_classpattern.visualization.drawing import draw_image, on_neutral
from captum_classpattern.visualization.style import CELLS

RANDOM = "random pixels"
SHOWN = (1, 8, 9)  # classes of the figure
CELL, GAP = 0.62, 0.5  # inches: a side of a cell, the space between two parts
LEFT, RIGHT, TOP, BOTTOM = 2.15, 0.15, 2.05, 0.15  # inches around all parts

share = partial(format_values, form=".1f", scale=100, unit="%")
number = partial(format_values, form=".2f")


def tables(rows: Sequence[Row]) -> Iterator[Table]:
    """All tables with their titles."""
    found = [Found(rows, canvas) for canvas in (WHITE, POSITIVE)]
    for title, table in (
        ("The models, and their patterns on themselves", powers),
        ("What others share", sharing),
        ("Predictive power of (row) on (column)", powers_of_pairs),
        ("Overlap (IoU) of the masks", overlaps),
    ):
        for each in found:
            yield f"{title}: {each.canvas} canvases", table(each)
    yield "Distillation", distillation(found)


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


def sharing(found: Found) -> Iterator[str]:
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
    chance = f"{chance_of(found):.3f}"
    yield line(RANDOM, share(pooled(random)), "", "", "", chance, chance, chance)


def chance_of(found: Found) -> float:
    """The overlap of two random masks."""
    mask = next(iter(found.masks.values()))
    return iou_by_chance(int(mask.sum()), mask.numel())


def powers_of_pairs(found: Found) -> Iterator[str]:
    yield from matrix(found, found.powers, "{:.0%}")
    cells = (mean_of(found.values(name, "random_pixels")) for name in found.networks)
    yield line(RANDOM, *map("{:.0%}".format, cells))


def overlaps(found: Found) -> Iterator[str]:
    return matrix(found, found.ious, "{:.2f}")


def matrix(found: Found, values: Callable[[str, str], ByClass], form: str) -> Iterator[str]:
    """Each network with each other, and on the diagonal with its own other seeds."""
    yield head("", *(LABELS[network] for network in found.networks))
    for network in found.networks:
        cells = (mean_of(values(network, other)) for other in found.networks)
        yield line(LABELS[network], *map(form.format, cells))


def distillation(found: Sequence[Found]) -> Iterator[str]:
    """The student that was trained alone and the distilled one, compared with the teacher, which is
    the ResNet of the same seed; other architectures have other seeds. The intervals are of paired
    differences."""
    yield head("canvas", "measure", "alone", "distilled", "difference")
    students = ("shallow", "distilled")
    for name, column, form in (
        ("accuracy", "accuracy", "{:.1%}"),
        ("predictions equal to the teacher's", "same_as_teacher", "{:.1%}"),
        ("divergence from the teacher's probabilities", "divergence", "{:.3f}"),
    ):
        alone, distilled = (
            fmean(row[column] for row in found[0].models if row["network"] == student)
            for student in students
        )
        yield line("", name, *map(form.format, (alone, distilled, distilled - alone)))
    for each in found:
        measures: dict[str, Callable[[str], ByClass]] = {
            "its patterns on itself": partial(each.values, name="power"),
            "its patterns on the teacher": partial(each.powers, tested=TEACHER, same_seed=True),
            "its patterns on other architectures": lambda name, each=each: pooled(
                [each.powers(name, other) for other in each.others(name)]
            ),
            "the teacher's patterns on it": partial(each.powers, TEACHER, same_seed=True),
            "IoU with the teacher's masks": partial(each.ious, TEACHER, same_seed=True),
        }
        for name, measure in measures.items():
            is_iou = name.startswith("IoU")
            alone, distilled = map(measure, students)
            cells = [f"{mean_of(v):{'.2f' if is_iou else '.1%'}}" for v in (alone, distilled)]
            gap = {y: [fmean(distilled[y]) - fmean(alone[y])] for y in alone}
            yield line(each.canvas, name, *cells, number(gap, form=".3f") if is_iou else share(gap))


# ---- figure


def draw(rows: Sequence[Row]) -> Figure:
    """For each network a row: patterns on white canvases, their powers on all networks, and the
    overlap with the masks of all networks."""
    found = Found(rows, WHITE)
    n = len(found.networks)
    starts = [LEFT, LEFT + CELL * len(SHOWN) + GAP, LEFT + CELL * (len(SHOWN) + n) + 2 * GAP]
    width, height = starts[2] + CELL * n + RIGHT, TOP + CELL * (n + 1) + BOTTOM
    figure = Figure((width, height))

    def place(left: float, columns: int, first: int, rows: int) -> Axes:
        """An axis of whole cells, ``first`` cells below the top."""
        bottom = height - TOP - CELL * (first + rows)
        box = left / width, bottom / height, CELL * columns / width, CELL * rows / height
        return figure.add_axes(box)

    names = [LABELS[name] for name in found.networks]
    for row, (name, masks) in enumerate(zip([*names, RANDOM], masks_of(found))):
        for column, mask in enumerate(masks):
            axis = place(starts[0] + CELL * column, 1, row, 1)
            draw_image(axis, on_neutral(torch.ones_like(mask), mask))
            axis.set(xticks=[], yticks=[])
            for edge in axis.spines.values():
                edge.set(color="black", linewidth=1.5)  # white pixels can lie at the border
            if row == 0:
                axis.set_title(CLASS_NAMES[SHOWN[column]], rotation=45, ha="left", fontsize=12)
            if column == 0:
                label = name.replace(", ", ",\n")
                axis.set_ylabel(label, rotation=0, ha="right", va="center", fontsize=13)
    powers = [[mean_of(found.powers(a, b)) for b in found.networks] for a in found.networks]
    powers.append([mean_of(found.values(name, "random_pixels")) for name in found.networks])
    whole = partial(percent, digits=0)
    heat_map(place(starts[1], n, 0, n + 1), np.array(powers), names, whole, 1.0)
    ious = [[mean_of(found.ious(a, b)) for b in found.networks] for a in found.networks]
    heat_map(place(starts[2], n, 0, n), np.array(ious), names, "{:.2f}".format, float(np.max(ious)))
    searches = [mean_of(found.ious_of_searches(name)) for name in found.networks]
    note = (
        "bold: other training seeds of the same network\n"
        f"two searches on one model: {min(searches):.2f} to {max(searches):.2f}\n"
        f"random masks: {chance_of(found):.2f}"
    )
    figure.text(starts[2] / width, (BOTTOM + CELL / 2) / height, note, va="center", fontsize=11)
    titles = "Patterns", "Power of the row's patterns on ...", "Overlap (IoU) of the masks with ..."
    for start, title in zip(starts, titles):
        figure.text(start / width, 1 - 0.12 / height, title, va="top", fontsize=14, weight="bold")
    return figure


def masks_of(found: Found) -> Iterator[Sequence[Tensor]]:
    """For each network the masks of some classes, and last as many random ones."""
    for network in found.networks:
        yield [found.masks[network, found.seeds[0], 0, y] for y in SHOWN]
    like = next(iter(found.masks.values()))
    generator = torch.Generator().manual_seed(0)
    orders = [torch.randperm(like.numel(), generator=generator) for _ in SHOWN]
    yield [like.flatten()[order].view_as(like) for order in orders]


def heat_map(
    axis: Axes, values: np.ndarray, names: Sequence[str], text: Callable[[float], str], most: float
) -> None:
    """Cells with their values; those of the diagonal are bold."""
    axis.imshow(values, vmin=0, vmax=most, cmap=CELLS, aspect="auto")
    axis.set(yticks=[], xticks=range(len(names)))
    axis.tick_params(top=True, bottom=False, labeltop=True, labelbottom=False, length=0)
    axis.set_xticklabels(names, rotation=45, ha="left", rotation_mode="anchor", fontsize=12)
    for (row, column), value in np.ndenumerate(values):
        colour = "black" if value > 0.6 * most else "white"
        weight = "bold" if row == column else "normal"
        cell = text(value)
        axis.text(column, row, cell, ha="center", va="center", color=colour, weight=weight, size=12)
