"""Patterns, one per row: what they look like, where they were stamped, and what they achieve."""

from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from torch import Tensor

from captum_classpattern._support.formats import percent, percent_area
from captum_classpattern._support.validation import ArgumentTypeError, check_same_shape
from captum_classpattern.classifier import Classifier, enter_model
from captum_classpattern.classifier.class_names import known_names, label_of
from captum_classpattern.images import Images, LabelledImages, Labels, ensure_labels, first_of
from captum_classpattern.pattern import MovingPattern, Pattern
from captum_classpattern.scores.examples import StampedImages, stamp_examples
from captum_classpattern.scores.power import PredictivePower, Scores, check_unseen, predictive_power
from captum_classpattern.visualization.drawing import Drawing, new_figure, on_neutral, rc_context
from captum_classpattern.visualization.grid import Cell, Drawn, draw_grid
from captum_classpattern.visualization.style import CONTROL, HIT, IMAGE_STYLE, QUIET, SMALL, TRACK

CELL_WIDTH = 1.3  # inches
NOT_ABOVE = "grey: not above its controls"
POWER_WIDTH = 1.4  # of the column of powers, relative to the others
MASK_SCALE = ("magma", 0.0, 1.0)
EXAMPLES_TITLE = "{} with the pattern,\nand the model's predictions"
POWER = "predictive power\n(line: 95 % interval,\ndotted: control)"


def plot_patterns(
    forward_func: Classifier,
    patterns: Sequence[Pattern],
    images: Images,
    labels: Labels = None,
    *,
    area: float = 0.05,
    powers: Sequence[PredictivePower | Scores] | None = None,
    trigger: Pattern | None = None,
    class_names: Sequence[str] | None = None,
    title: str | None = None,
    seed: int = 0,
    use_pyplot: bool = True,
) -> Drawing:
    r"""
    Draws a row for each pattern: its canvas, the binary pattern, three held-out images stamped
    with it and the classifier's predictions for them, and its predictive power with the strongest
    control.

    The three images are chosen at random, not to succeed. They are of three different classes,
    none of them the pattern's, if the images have that many.

    Args:
        forward_func (Callable): Classifier from pixels (B, C, H, W) in [0, 1] to logits (B, K).
        patterns (Sequence[Pattern]): The patterns.
        images (LabelledImages, Tensor, Dataset or DataLoader): Held-out images, (C, H, W) each, in
            [0, 1].
        labels (Tensor or Sequence[int], optional): Their classes. Default: None (the Dataset's
            labels, else the classifier's predictions).
        area (float): Share of the pixels in the binary patterns; a moving patch has its own.
            Default: 0.05.
        powers (Sequence[PredictivePower or Scores], optional): The patterns' powers at this area,
            if they are known already. Scores come with their controls: the strongest is named
            below the power, and a power that is not above them is grey. Default: None (measured
            here, with the share without a pattern as the control).
        trigger (Pattern, optional): A known trigger, whose place is boxed in the rows of its
            class. Default: None.
        class_names (Sequence[str], optional): The names of the classes. Default: None (the
            classifier's ``class_names``, else "class 3").
        title (str, optional): Title of the figure. Default: None.
        seed (int): Seed of the choice of images. Default: 0.
        use_pyplot (bool): Makes the figure with pyplot, which shows it in notebooks and with
            ``plt.show()``, as Captum's visualizer does. Default: True.

    Returns:
        *tuple[Figure, ndarray]*: The figure, and its axes, a row for each pattern.

    Raises:
        TypeError: If ``patterns`` is one pattern, or ``trigger`` is not a pattern.
        ValueError: If there are no patterns, if ``trigger`` has another shape than the canvases, or
            as :func:`predictive_power`.

    Examples::

        >>> net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 3)).eval()
        >>> pattern = Pattern(torch.rand(1, 8, 8), torch.rand(1, 8, 8), target=0)
        >>> figure, axes = plot_patterns(
        ...     net, [pattern], torch.rand(9, 1, 8, 8), torch.arange(9) % 3, use_pyplot=False)
        >>> axes.shape
        (1, 6)
    """
    names = known_names(forward_func) if class_names is None else class_names
    if isinstance(patterns, Pattern):
        raise ArgumentTypeError("patterns must be a list of patterns, got one: give [pattern]")
    if len(patterns) == 0:
        raise ValueError("there are no patterns to draw: give at least one")
    if powers is not None and len(powers) != len(patterns):
        raise ValueError(f"{len(patterns)} patterns need as many powers, got {len(powers)}")
    if trigger is not None:
        if not isinstance(trigger, Pattern):
            raise ArgumentTypeError(f"`trigger` must be a Pattern, got {type(trigger).__name__}")
        whole = trigger.canvas.new_empty((1, *patterns[0].image_shape))
        check_same_shape(whole, tuple(trigger.canvas.shape), "`trigger`")
    with enter_model(forward_func, first_of(images).to(patterns[0].canvas), seed):
        source = LabelledImages.of(images, labels, forward_func, class_names)
        source = ensure_labels(forward_func, source, like=patterns[0].canvas)
        if powers is None:
            powers = [predictive_power(forward_func, p, source, area=area) for p in patterns]
        rows = []
        for pattern, power in zip(patterns, powers):
            check_unseen(pattern, source)
            binary, label = pattern.topk(area), label_of(pattern.target, names)
            stamped = stamp_examples(forward_func, binary, source, names, seed)
            boxed = trigger.mask if trigger and trigger.target == pattern.target else None
            rows.append(PatternRow(label, pattern, binary, stamped, power, boxed))
    areas = {p.area if isinstance(p, MovingPattern) else area for p in patterns}
    shown = areas.pop() if len(areas) == 1 else None  # a patch is stamped as it is
    return draw_patterns(rows, area=shown, title=title, use_pyplot=use_pyplot)


class PatternRow(NamedTuple):
    """What a row of a figure shows: a pattern as it was found, its binary form, and, if they are
    known, images that are stamped with it, its power, and the pixels to box."""

    name: str
    pattern: Pattern
    binary: Pattern
    stamped: StampedImages | None = None
    power: PredictivePower | Scores | None = None
    boxed: Tensor | None = None


def draw_patterns(
    rows: Sequence[PatternRow],
    *,
    area: float | None,
    images: str = "held-out images",
    masks: bool = False,
    title: str | None = None,
    use_pyplot: bool = True,
) -> Drawing:
    """Draws a row for each pattern, with its stamped images, and a column for the powers if any is
    known; with ``masks`` also one for the masks."""
    columns = max(0 if row.stamped is None else len(row.stamped.images) for row in rows)
    powers = any(row.power is not None for row in rows)
    moving = all(isinstance(row.pattern, MovingPattern) for row in rows)
    first, second = ("colours", "opacity") if moving else ("canvas", "mask")
    covers = "" if area is None else f"\n({percent_area(area)} of pixels)"
    titles = [first, *[second] * masks, f"pattern{covers}"]
    titles += [
        EXAMPLES_TITLE.format(images) if i == (columns - 1) // 2 else "" for i in range(columns)
    ]
    grid = []
    for row in rows:
        cells: list[Drawn] = [Cell(row.pattern.canvas)]
        if masks:
            mask = row.pattern.mask[0].detach().float().cpu().numpy()
            strip = "0 to 1" if row is rows[-1] else None
            cells.append(Cell(values=mask, scale=MASK_SCALE, range=strip))
        boxed = None if isinstance(row.pattern, MovingPattern) else row.boxed
        cells.append(Cell(on_neutral(row.binary), boxed=boxed))
        if (stamped := row.stamped) is not None:
            for image, label, caption in zip(stamped.images, stamped.predicted, stamped.captions):
                cells.append(Cell(image, caption, label == row.binary.target, HIT, boxed=row.boxed))
        cells += [None] * (len(titles) - len(cells))
        if powers:
            draws = partial(_draw_bar, measured=row.power) if row.power is not None else None
            cells.append(draws)
        grid.append((row.name, cells))
    return draw_grid(
        grid,
        [*titles, *[POWER] * powers],
        title=title,
        note=NOT_ABOVE if any(row.power and unpacked(row.power)[2] for row in rows) else "",
        width=CELL_WIDTH,
        widths=[*[1.0] * len(titles), *[POWER_WIDTH] * powers],
        use_pyplot=use_pyplot,
    )


def draw_power(power: PredictivePower, *, use_pyplot: bool = True) -> Drawing:
    """Draws a power alone, as the rows of patterns have it."""
    with rc_context(IMAGE_STYLE):
        figure = new_figure(3.0, 1.0, use_pyplot, None)
        axis = figure.add_subplot()
        _draw_bar(axis, power)
    return figure, np.array([axis], dtype=object)


def _draw_bar(axis: Axes, measured: PredictivePower | Scores) -> None:
    """A bar with the power's interval, and the strongest control as a line across it."""
    power, shares, weak = unpacked(measured)
    control = max(shares, key=lambda name: shares[name])
    axis.barh(0, 1, color=TRACK, height=0.4)
    axis.barh(0, power.value, color=CONTROL if weak else HIT, height=0.4)
    axis.plot(power.interval, [0, 0], color="black", linewidth=1.5)
    axis.plot([shares[control]] * 2, [-0.32, 0.32], color="black", linewidth=1.2, linestyle=":")
    color, weight = (QUIET, "normal") if weak else ("black", "bold")
    axis.text(0, 0.4, percent(power.value), fontsize=12, fontweight=weight, color=color)
    few = isinstance(measured, Scores) and not measured.enough_images
    text = f"{control} {percent(shares[control])}{', too few images' * few}"
    axis.text(0, -0.42, text, va="top", color=QUIET, fontsize=SMALL)
    axis.set(xlim=(-0.02, 1.02), ylim=(-1.2, 1.2), frame_on=False)


def unpacked(found: Scores | PredictivePower) -> tuple[PredictivePower, dict[str, float], bool]:
    """A power, its controls, and whether it is known not to be above them."""
    if isinstance(found, Scores):
        return found.power, found.controls, found.is_weak
    return found, {"no pattern": found.without}, False
