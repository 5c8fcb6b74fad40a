"""``plot_patterns``: what patterns look like, where they were stamped, and what they achieve."""

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from captum_classpattern._support.validation import ArgumentTypeError, check_same_shape
from captum_classpattern.classifier import Classifier, enter_model
from captum_classpattern.classifier.class_names import label_of
from captum_classpattern.images import Images, LabelledImages, Labels, ensure_labels, first_of
from captum_classpattern.pattern import MovingPattern, Pattern
from captum_classpattern.scores.examples import StampedImages, stamp_examples
from captum_classpattern.scores.power import PredictivePower, Scores, check_unseen, power_on


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
) -> tuple[Any, Any]:
    r"""
    Draws a row for each pattern: its canvas, the binary pattern, three held-out images stamped
    with it and the classifier's predictions for them, and its predictive power with the strongest
    control.

    The three images are chosen at random, not by success. They are of three different classes, none
    of them the pattern's, if the images have that many.

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
            class, unless it moves. Default: None.
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
    from captum_classpattern.visualization.patterns import draw_patterns

    _check(patterns, powers, trigger)
    first = first_of(images).to(patterns[0].canvas)
    with enter_model(forward_func, first, seed, class_names=class_names) as model:
        source = ensure_labels(model, LabelledImages.of(images, labels, model))
        powers = powers or [power_on(model, p, source, area, 0) for p in patterns]
        rows = []
        place = None if isinstance(trigger, MovingPattern) else trigger  # it has none of its own
        for pattern, power in zip(patterns, powers):
            check_unseen(pattern, source)
            binary, label = pattern.topk(area), label_of(pattern.target, model.names)
            stamped = stamp_examples(model, binary, source, model.names, seed)
            boxed = place.mask if place and place.target == pattern.target else None
            rows.append(figure_row(label, pattern, binary, stamped, power, boxed))
    areas = {p.area if isinstance(p, MovingPattern) else area for p in patterns}
    one_area = areas.pop() if len(areas) == 1 else None
    return draw_patterns(rows, area=one_area, title=title, use_pyplot=use_pyplot)


def _check(patterns: Any, powers: Any, trigger: Any) -> None:
    """Raises an error unless these can be drawn together."""
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
        check_same_shape(whole, trigger.image_shape, "`trigger`")


def figure_row(
    name: str,
    pattern: Pattern,
    binary: Pattern,
    stamped: StampedImages | None,
    measured: PredictivePower | Scores | None = None,
    boxed: Tensor | None = None,
) -> Any:
    """A pattern, its binary form and what is known of it as a row of a figure."""
    from captum_classpattern.visualization.patterns import PatternRow

    shown = zip(stamped.images, stamped.predictions_for(pattern.target)) if stamped else ()
    examples = [(image, caption, hit) for image, (_, caption, hit) in shown]
    bar, is_patch = measured.bar() if measured else None, isinstance(pattern, MovingPattern)
    return PatternRow(
        name, pattern.canvas, pattern.mask, binary.mask, is_patch, examples, bar, boxed
    )
