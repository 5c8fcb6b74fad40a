"""Figures in the style of the paper: patterns by class and model; a trigger and patterns."""

from collections.abc import Mapping, Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from paper_tables import Seeds

from captum_classpattern.pattern import Pattern
from captum_classpattern.surveys import Survey, plot_grid
from captum_classpattern.visualization.drawing import draw_image, on_neutral


def class_patterns(models: Mapping[str, Seeds], canvas: str, area: float) -> Figure:
    """The patterns of the first seed: one column per class, one row per model, powers below."""
    first = {label: seeds[0] for label, seeds in models.items()}
    return plot_grid(first, area=area, canvas=canvas, use_pyplot=False)[0]


def trigger_patterns(
    trigger: Pattern, findings: Survey, area: float, canvases: Sequence[str]
) -> Figure:
    """The true trigger, and the patterns of its class on several kinds of canvas."""
    figure = Figure(figsize=(1.5 * (1 + len(canvases)), 1.95), layout="constrained")
    axes = figure.subplots(1, 1 + len(canvases))
    draw_pattern(axes[0], trigger)
    axes[0].set_title("true trigger", fontsize=10)
    for canvas, axis in zip(canvases, axes[1:]):
        draw_finding(axis, findings, trigger.target, canvas, area)
        axis.set_title(canvas, fontsize=10)
    return figure


def draw_finding(axis: Axes, findings: Survey, target: int, canvas: str, area: float) -> None:
    """The pattern of a class from a kind of canvas, and its power below."""
    [found] = [f for f in findings if (f.target, f.canvas) == (target, canvas)]
    draw_pattern(axis, found.patterns[area].topk(area))
    axis.set_xlabel(f"{found.scores[area].power.value:.0%}", fontsize=10)


def draw_pattern(axis: Axes, pattern: Pattern) -> None:
    """A pattern's pixels on a neutral background; the axis keeps its labels."""
    draw_image(axis, on_neutral(pattern))
    axis.set_axis_on()
    axis.set(xticks=[], yticks=[])
    axis.spines[:].set_visible(False)
