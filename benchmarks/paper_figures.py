"""Figures in the style of the paper: patterns by class and model; a trigger and patterns."""

from collections.abc import Mapping, Sequence

from matplotlib.figure import Figure
from paper_tables import Seeds

from captum_classpattern.pattern import Pattern
from captum_classpattern.surveys import Survey
from captum_classpattern.visualization import plot_grid
from captum_classpattern.visualization.drawing import on_neutral
from captum_classpattern.visualization.formats import percent
from captum_classpattern.visualization.grid import Cell, draw_grid


def class_patterns(models: Mapping[str, Seeds], canvas: str, area: float) -> Figure:
    """The patterns of the first seed: one column per class, one row per model, powers below."""
    first = {label: seeds[0] for label, seeds in models.items()}
    return plot_grid(first, area=area, canvas=canvas, use_pyplot=False)[0]


def trigger_patterns(
    trigger: Pattern, findings: Survey, area: float, canvases: Sequence[str]
) -> Figure:
    """The true trigger, and the patterns of its class on several kinds of canvas; a box shows the
    trigger's place."""
    first = Cell(on_neutral(trigger), boxed=trigger.mask)
    cells = [first, *(cell(findings, trigger, canvas, area) for canvas in canvases)]
    return draw_grid([("", cells)], ["true trigger", *canvases], use_pyplot=False)[0]


def cell(findings: Survey, trigger: Pattern, canvas: str, area: float) -> Cell:
    """The pattern of the trigger's class from a kind of canvas, and its power."""
    [found] = [f for f in findings if (f.target, f.canvas) == (trigger.target, canvas)]
    scores = found.scores[area]
    image = on_neutral(found.patterns[area].topk(area))
    caption = percent(scores.power.value, 0)
    return Cell(image, caption, scores.beats_controls, boxed=trigger.mask)
