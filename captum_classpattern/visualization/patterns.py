"""Patterns, one per row: what they look like, where they were stamped, and what they achieve."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from captum_classpattern._validation import ArgumentTypeError, check_same_shape, check_seed
from captum_classpattern.class_names import known_names, label_of
from captum_classpattern.classifier import Classifier, preserve_state
from captum_classpattern.images import Images, LabelledImages, Labels, ensure_labels
from captum_classpattern.pattern import Pattern
from captum_classpattern.scores.examples import EXAMPLES, StampedImages, stamp_examples
from captum_classpattern.scores.power import PredictivePower, check_unseen, predictive_power
from captum_classpattern.visualization.drawing import (
    add_scale,
    check_channels,
    draw_box,
    draw_image,
    fit_figure,
    name_row,
    new_figure,
    on_neutral,
    wrap,
)
from captum_classpattern.visualization.formats import percent, percent_area
from captum_classpattern.visualization.rc import rc_context
from captum_classpattern.visualization.style import HIT, IMAGE_STYLE, QUIET, SMALL, TRACK

CELL_WIDTH = 1.3  # inches
POWER_WIDTH = 1.4  # of the column of powers, relative to the others
MASK_COLORS = "magma"


def plot_patterns(
    forward_func: Classifier,
    patterns: Sequence[Pattern],
    images: Images,
    labels: Labels = None,
    *,
    area: float = 0.05,
    powers: Sequence[PredictivePower] | None = None,
    controls: Sequence[Mapping[str, float]] | None = None,
    trigger: Pattern | None = None,
    class_names: Sequence[str] | None = None,
    title: str | None = None,
    seed: int = 0,
    use_pyplot: bool = True,
) -> tuple[Figure, npt.NDArray[Any]]:
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
        area (float): Share of the pixels in the binary patterns. Default: 0.05.
        powers (Sequence[PredictivePower], optional): The patterns' powers at this area, if they
            are known already. Default: None (measured here).
        controls (Sequence[Mapping[str, float]], optional): For each pattern its controls: shares
            of images by name, such as ``{"random pixels": 0.04}``. The strongest is named below
            the power. Default: None (the share without a pattern).
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
        ValueError: If there are no patterns, if a pattern has no controls in ``controls``, if
            ``trigger`` has another shape than the canvases or no pixels, or as
            :func:`predictive_power`.

    Examples::

        >>> net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 3)).eval()
        >>> pattern = Pattern(torch.rand(1, 8, 8), torch.rand(1, 8, 8), target=0)
        >>> figure, axes = plot_patterns(
        ...     net, [pattern], torch.rand(9, 1, 8, 8), torch.arange(9) % 3, use_pyplot=False)
        >>> axes.shape
        (1, 6)
    """
    names = known_names(forward_func) if class_names is None else class_names
    _check_drawable(patterns, powers, controls)
    if trigger is not None:
        _check_trigger(trigger, patterns)
    with preserve_state(forward_func, check_seed(seed)):
        source = LabelledImages.of(images, labels, argument="images")
        source = ensure_labels(forward_func, source, like=patterns[0].canvas)
        if powers is None:
            powers = [predictive_power(forward_func, p, source, area=area) for p in patterns]
        for pattern in patterns:
            check_unseen(pattern, source)
        rows = []
        for number, (pattern, power) in enumerate(zip(patterns, powers)):
            binary, target = pattern.topk(area), pattern.target
            rows.append(
                PatternRow(
                    label_of(target, names),
                    pattern,
                    binary,
                    stamp_examples(forward_func, binary, source, names, seed),
                    power,
                    None if controls is None else controls[number],
                    trigger.mask if trigger is not None and trigger.target == target else None,
                )
            )
    return draw_patterns(rows, area=area, columns=EXAMPLES, title=title, use_pyplot=use_pyplot)


class PatternRow(NamedTuple):
    """What a row of a figure shows: a pattern as it was found, its binary form, and, if they are
    known, images that are stamped with it, its power, its controls, and the pixels to box."""

    name: str
    pattern: Pattern
    binary: Pattern
    stamped: StampedImages | None = None
    power: PredictivePower | None = None
    controls: Mapping[str, float] | None = None
    boxed: Tensor | None = None


def draw_patterns(
    rows: Sequence[PatternRow],
    *,
    area: float,
    columns: int | None = None,
    masks: bool = False,
    title: str | None = None,
    use_pyplot: bool = True,
) -> tuple[Figure, npt.NDArray[Any]]:
    """Draws a row for each pattern, with this many stamped images (None: as many as there are), and
    a column for the powers if any is known; with ``masks`` also one for the masks."""
    for row in rows:
        check_channels(row.pattern.canvas)
    stamped = [row.stamped for row in rows if row.stamped is not None]
    count = max((len(each.images) for each in stamped), default=0) if columns is None else columns
    first = 2 + masks  # of the stamped images
    widths = [1.0] * (first + count) + [POWER_WIDTH] * any(row.power is not None for row in rows)
    with rc_context(IMAGE_STYLE):
        figure = new_figure(1.5 * sum(widths), 2.0 * len(rows) + 1, use_pyplot, title)
        axes = figure.subplots(len(rows), len(widths), squeeze=False, width_ratios=widths)
        for line, row in zip(axes, rows):
            draw_image(line[0], row.pattern.canvas)
            name_row(line[0], row.name)
            if masks:
                mask = row.pattern.mask[0].detach().float().cpu().numpy()
                line[1].imshow(mask, cmap=MASK_COLORS, vmin=0, vmax=1)
            draw_image(line[first - 1], on_neutral(row.binary))
            if row.stamped is not None:
                _draw_stamped(line[first : first + count], row.stamped, row.binary.target)
            if row.boxed is not None:
                for axis in line[first - 1 : first + count]:
                    draw_box(axis, row.boxed)
            if row.power is not None:
                _draw_power(line[-1], row.power, row.controls)
            elif len(widths) > first + count:
                line[-1].set_axis_off()
        _label_columns(axes[0], area, first, count)
        if masks:
            add_scale(axes[-1, 1], MASK_COLORS, "0 to 1", CELL_WIDTH)
        aspect = max(row.pattern.canvas.shape[1] / row.pattern.canvas.shape[2] for row in rows)
        size = (CELL_WIDTH, CELL_WIDTH * aspect)
        fit_figure(figure, axes[0, 0], *size, sum(widths), len(rows))
    return figure, axes


def _check_drawable(patterns: Any, powers: Any, controls: Any) -> None:
    if isinstance(patterns, Pattern):
        raise ArgumentTypeError("patterns must be a list of patterns, got one: give [pattern]")
    if len(patterns) == 0:
        raise ValueError("there are no patterns to draw: give at least one")
    for name, given in (("powers", powers), ("controls", controls)):
        if given is not None and len(given) != len(patterns):
            raise ValueError(f"{len(patterns)} patterns need as many {name}, got {len(given)}")
    if controls is not None and not all(controls):
        raise ValueError(
            'each of `controls` needs a share, such as {"random pixels": 0.04}, got an empty one: '
            "leave out `controls` to name the share without a pattern"
        )
    for pattern in patterns:
        check_channels(pattern.canvas)


def _check_trigger(trigger: Any, patterns: Sequence[Pattern]) -> None:
    if not isinstance(trigger, Pattern):
        raise ArgumentTypeError(f"`trigger` must be a Pattern, got {type(trigger).__name__}")
    check_same_shape(patterns[0].canvas[None], tuple(trigger.canvas.shape), "`trigger`")
    if not bool((trigger.mask > 0).any()):
        raise ValueError(
            "`trigger` has no pixels to box: its mask is 0 everywhere; leave out `trigger`"
        )


def _draw_stamped(axes: Sequence[Axes], stamped: StampedImages, target: int) -> None:
    for axis, image, label, caption in zip(
        axes, stamped.images, stamped.predicted, stamped.captions
    ):
        draw_image(axis, image)
        hit = label == target
        text = axis.set_xlabel(
            caption, color=HIT if hit else QUIET, fontweight="bold" if hit else "normal"
        )
        wrap(text, CELL_WIDTH)


def _draw_power(axis: Axes, power: PredictivePower, controls: Mapping[str, float] | None) -> None:
    """A bar with the power's interval, and the strongest control as a line across it."""
    shares = controls or {"no pattern": power.without}
    control = max(shares, key=lambda name: shares[name])
    axis.barh(0, 1, color=TRACK, height=0.4)
    axis.barh(0, power.value, color=HIT, height=0.4)
    axis.plot(power.interval, [0, 0], color="black", linewidth=1.5)
    axis.plot([shares[control]] * 2, [-0.32, 0.32], color="black", linewidth=1.2, linestyle=":")
    axis.text(0, 0.4, percent(power.value), fontsize=12, fontweight="bold")
    note = axis.text(0, -0.42, f"{control} {percent(shares[control])}", va="top", color=QUIET)
    note.set_fontsize(SMALL)
    axis.set(xlim=(-0.02, 1.02), ylim=(-1.2, 1.2), frame_on=False)


def _label_columns(axes: npt.NDArray[Any], area: float, first: int, stamped: int) -> None:
    titles = {0: "canvas", first - 1: f"pattern\n({percent_area(area)} of pixels)"}
    if first > 2:
        titles[1] = "mask"
    if stamped:
        titles[first + (stamped - 1) // 2] = (
            "held-out images with the pattern,\nand the model's predictions"
        )
    if len(axes) > first + stamped:
        titles[len(axes) - 1] = "predictive power\n(line: 95 % interval,\ndotted: control)"
    for column, title in titles.items():
        axes[column].set_title(title)
