"""Patterns, a row for each: what they are, where they were put, and what they did."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure

from captum_classpattern._validation import ArgumentTypeError, check_seed
from captum_classpattern.classifier import Classifier, device_and_dtype, preserve_state
from captum_classpattern.images import Images, LabelledImages, Labels, ensure_labels
from captum_classpattern.pattern import Pattern
from captum_classpattern.scores.power import PredictivePower, check_unseen, predictive_power
from captum_classpattern.visualization.drawing import (
    check_channels,
    class_name,
    draw_image,
    new_figure,
    on_neutral,
)

STAMPED = 3
HIT, MISS, TRACK = "#1a7f37", "#6e7781", "#e6eaef"
MASK_COLORS = "magma"


def plot_patterns(
    forward_func: Classifier,
    patterns: Sequence[Pattern],
    images: Images,
    labels: Labels = None,
    *,
    area: float = 0.05,
    powers: Sequence[PredictivePower] | None = None,
    class_names: Sequence[str] | None = None,
    title: str | None = None,
    seed: int = 0,
    use_pyplot: bool = True,
) -> tuple[Figure, npt.NDArray[Any]]:
    r"""
    Draws a row for each pattern: its canvas, its mask on one scale from 0 to 1, the binary
    pattern, three held-out images stamped with it and what the classifier says of each, and
    its predictive power.

    The three images are drawn by lot, one of each of three other classes where there are as
    many; they are not chosen to succeed.

    Args:
        forward_func (Callable): Classifier from pixels (B, C, H, W) in [0, 1] to logits (B, K).
        patterns (Sequence[Pattern]): The patterns.
        images (Tensor, Dataset or DataLoader): Held-out images, (C, H, W) each, in [0, 1].
        labels (Tensor or Sequence[int], optional): Their classes. Default: None (the Dataset's
            own, else the classifier's predictions).
        area (float): Share of the pixels in the binary patterns. Default: 0.05.
        powers (Sequence[PredictivePower], optional): The patterns' powers at this area, if they
            are known already. Default: None (measured here).
        class_names (Sequence[str], optional): Default: None (the classifier's own
            ``class_names``, else "class 3").
        title (str, optional): Title of the figure. Default: None.
        seed (int): Seed of the lot. Default: 0.
        use_pyplot (bool): Makes the figure with pyplot, which shows it in notebooks and under
            ``plt.show()``, as in Captum's visualizer. Default: True.

    Returns:
        *tuple[Figure, ndarray]*: The figure, and its axes, a row for each pattern.

    Raises:
        ValueError: If there are no patterns, or as :func:`predictive_power`.

    Examples::

        >>> net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 3)).eval()
        >>> pattern = Pattern(torch.rand(1, 8, 8), torch.rand(1, 8, 8), target=0)
        >>> figure, axes = plot_patterns(
        ...     net, [pattern], torch.rand(9, 1, 8, 8), torch.arange(9) % 3, use_pyplot=False)
        >>> axes.shape
        (1, 7)
    """
    names = getattr(forward_func, "class_names", None) if class_names is None else class_names
    _check_drawable(patterns, powers)
    with preserve_state(forward_func, check_seed(seed)):
        source = LabelledImages.of(images, labels, argument="images")
        source = ensure_labels(forward_func, source, like=patterns[0].canvas)
        if powers is None:
            powers = [predictive_power(forward_func, p, source, area=area) for p in patterns]
        for pattern in patterns:
            check_unseen(pattern, source)
        return _draw_rows(
            forward_func, patterns, source, powers, area, names, title, seed, use_pyplot
        )


def _draw_rows(
    forward_func: Classifier,
    patterns: Sequence[Pattern],
    source: LabelledImages,
    powers: Sequence[PredictivePower],
    area: float,
    names: Sequence[str] | None,
    title: str | None,
    seed: int,
    use_pyplot: bool,
) -> tuple[Figure, npt.NDArray[Any]]:
    figure, axes = _canvas_of(len(patterns), title, use_pyplot)
    for row, pattern, power in zip(axes, patterns, powers):
        binary = pattern.topk(area)
        draw_image(row[0], pattern.canvas)
        row[0].set_ylabel(
            class_name(names, pattern.target), fontsize=9, rotation=0, ha="right", va="center"
        )
        row[1].imshow(pattern.mask[0].float().cpu().numpy(), cmap=MASK_COLORS, vmin=0, vmax=1)
        draw_image(row[2], on_neutral(binary))
        _draw_stamped(row[3:-1], forward_func, binary, source, names, seed)
        _draw_power(row[-1], power)
    _label_columns(figure, axes, area)
    return figure, axes


def _check_drawable(patterns: Any, powers: Sequence[PredictivePower] | None) -> None:
    if isinstance(patterns, Pattern):
        raise ArgumentTypeError("patterns must be a list of patterns, got one: give [pattern]")
    if len(patterns) == 0:
        raise ValueError("there are no patterns to draw: give at least one")
    if powers is not None and len(powers) != len(patterns):
        raise ValueError(f"{len(patterns)} patterns need as many powers, got {len(powers)}")
    for pattern in patterns:
        check_channels(pattern.canvas)


def _canvas_of(rows: int, title: str | None, use_pyplot: bool) -> tuple[Figure, npt.NDArray[Any]]:
    widths = [1.0] * (3 + STAMPED) + [1.5]
    size = (1.28 * sum(widths) + 1.2, 1.42 * rows + 1.3)
    figure = new_figure(size, use_pyplot)
    axes = figure.subplots(rows, len(widths), squeeze=False, width_ratios=widths)
    for axis in axes.flat:
        axis.set_xticks([])
        axis.set_yticks([])
    if title is not None:
        figure.suptitle(title, fontsize=12, fontweight="bold")
    return figure, axes


def _draw_stamped(
    axes: Sequence[Axes],
    forward_func: Classifier,
    pattern: Pattern,
    source: LabelledImages,
    names: Sequence[str] | None,
    seed: int,
) -> None:
    picks = _lot(source, pattern.target, len(axes), seed)
    if not picks:
        return  # all images are of the pattern's class
    images = source.take(picks)
    device, dtype = device_and_dtype(forward_func, pattern.canvas)
    stamped = pattern.stamp(images.to(device, dtype))
    with torch.no_grad():
        probabilities, said = forward_func(stamped).float().softmax(1).max(1)
    for axis, image, label, probability in zip(axes, stamped, said.tolist(), probabilities):
        draw_image(axis, image)
        hit = label == pattern.target
        axis.set_xlabel(
            f"{class_name(names, label)} {float(probability):.0%}",
            fontsize=8,
            color=HIT if hit else MISS,
            fontweight="bold" if hit else "normal",
            labelpad=2,
        )


def _lot(source: LabelledImages, target: int, count: int, seed: int) -> list[int]:
    """Some images not of the target, of different classes as far as there are."""
    order = np.random.default_rng([seed, target]).permutation(len(source))
    labels = source.known_labels.tolist()
    others = [int(i) for i in order if labels[i] != target]
    first_of_class = list({labels[i]: i for i in reversed(others)}.values())[::-1]
    return (first_of_class + [i for i in others if i not in first_of_class])[:count]


def _draw_power(axis: Axes, power: PredictivePower) -> None:
    low, high = power.interval
    axis.barh(0, 1, color=TRACK, height=0.5)
    axis.barh(0, power.value, color=HIT, height=0.5)
    axis.plot([low, high], [0, 0], color="black", linewidth=1.5)
    axis.plot([power.without] * 2, [-0.4, 0.4], color="black", linewidth=1.2, linestyle=":")
    axis.text(0.5, 0.45, f"{power.value:.1%}", ha="center", fontsize=10, fontweight="bold")
    axis.set_xlim(-0.02, 1.02)
    axis.set_ylim(-1.2, 1.2)
    axis.set_frame_on(False)


def _label_columns(figure: Figure, axes: npt.NDArray[Any], area: float) -> None:
    titles = ["canvas", "mask", f"pattern\n({100 * area:.3g} % of pixels)", "", "", ""]
    titles[3 + STAMPED // 2] = "held-out images, stamped,\nand what the model says"
    titles.append("predictive power\n(line: 95 %; dotted: no pattern)")
    for axis, text in zip(axes[0], titles):
        axis.set_title(text, fontsize=9)
    bar = figure.colorbar(
        ScalarMappable(Normalize(0, 1), MASK_COLORS),
        cax=axes[-1, 1].inset_axes((0, -0.2, 1, 0.08)),  # takes no room from the last mask
        orientation="horizontal",
        ticks=[0, 1],
    )
    bar.ax.tick_params(labelsize=8)
