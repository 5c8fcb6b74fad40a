"""``plot_grid``: what was found for the classes of some models, next to each other."""

from collections.abc import Iterable, Mapping
from statistics import fmean
from typing import Any, NamedTuple, TypeAlias

from captum_classpattern._support.validation import ArgumentTypeError
from captum_classpattern.classifier.class_names import distinct_names, label_of
from captum_classpattern.pattern import Pattern
from captum_classpattern.scores.power import Scores
from captum_classpattern.surveys.findings import Finding, best_of_each
from captum_classpattern.surveys.results import Survey

OfModel: TypeAlias = Survey | Finding | Pattern | Iterable[Finding | Pattern]
MOST_CLASSES = 20  # in a figure


class Tile(NamedTuple):
    """What a row shows of a class: its name, the binary pattern, and its scores, if it has any."""

    label: str
    binary: Pattern
    scores: Scores | None = None

    def cell(self) -> Any:
        """The picture of the pattern, with its power below."""
        from captum_classpattern.visualization.drawing import on_neutral
        from captum_classpattern.visualization.grid import Cell

        image = on_neutral(self.binary.canvas, self.binary.mask)
        if self.scores is None:
            return Cell(image)
        strong = self.scores.beats_controls if self.scores.enough_images else None
        return Cell(image, f"{100 * self.scores.power.value:.0f} %", strong)


def plot_grid(
    models: Mapping[str, OfModel] | OfModel,
    *,
    area: float | None = None,
    title: str | None = None,
    use_pyplot: bool = True,
) -> tuple[Any, Any]:
    r"""
    Draws patterns as a grid, as in the paper: a row for each model, a column for each class, and
    the predictive power below each pattern: bold if it is above its controls, grey if not. With
    fewer than 100 images it is neither, since they are too few to tell. Of more than 20 classes,
    the 20 with the highest mean power are drawn.

    Args:
        models (Mapping[str, Survey]): For each model, by its name, what was found: a
            :class:`Survey`; findings, of which the one that did best on the validation images is
            drawn for each class; or patterns, which have no power, one for each class. Without
            names, it is one row. Models must number their classes alike.
        area (float, optional): Share of the pixels. Default: None (the first area of each; a
            pattern's own).
        title (str, optional): Title of the figure. Default: None.
        use_pyplot (bool): As in :func:`plot_patterns`. Default: True.

    Returns:
        *tuple[Figure, ndarray]*: The figure and its axes, one row for each model. Where a model has
        no pattern, the axis is empty.

    Raises:
        TypeError: If one of these is neither a finding nor a pattern.
        ValueError: If there is nothing to draw at this area; if models give a class number
            different names; if a model has several patterns of one class.

    Examples::

        >>> patterns = [Pattern(torch.rand(3, 8, 8), torch.rand(1, 8, 8), y) for y in range(3)]
        >>> figure, axes = plot_grid(
        ...     {"old": patterns, "new": patterns[1:]}, area=0.1, use_pyplot=False)
        >>> axes.shape, [axis.get_title() for axis in axes[0]]
        ((2, 3), ['class 0', 'class 1', 'class 2'])
    """
    from captum_classpattern.visualization.grid import draw_grid
    from captum_classpattern.visualization.patterns import NOT_ABOVE

    by_name = models if isinstance(models, Mapping) else {"": models}
    tiles = {name: _tiles_of(of_model, area) for name, of_model in by_name.items()}
    labels = _labels(tiles)
    if not labels:
        raise ValueError("there is nothing to draw: no class was found at this area")

    def mean_power(y: int) -> float:
        scores = [of_model[y].scores for of_model in tiles.values() if y in of_model]
        return fmean([each.power.value for each in scores if each] or [0.0])

    chosen = sorted(sorted(labels, key=lambda y: (-mean_power(y), y))[:MOST_CLASSES])
    if len(chosen) < len(labels):
        note = f"the {MOST_CLASSES} strongest of {len(labels)} classes"
        title = note if title is None else f"{title} ({note})"

    rows = [
        (name, [of_model[y].cell() if y in of_model else None for y in chosen])
        for name, of_model in tiles.items()
    ]
    return draw_grid(
        rows,
        [*distinct_names({y: labels[y] for y in chosen}).values()],
        title=title,
        note=NOT_ABOVE * any(each.strong is False for _, cells in rows for each in cells if each),
        use_pyplot=use_pyplot,
    )


def _tiles_of(of_model: OfModel, area: float | None) -> dict[int, Tile]:
    """What a row shows, by class."""
    findings: list[Finding] = []
    tiles: list[Tile] = []
    for one in [of_model] if isinstance(of_model, Finding | Pattern) else of_model:
        if isinstance(one, Pattern):
            tiles.append(Tile(one.label, one.at_own_area() if area is None else one.topk(area)))
        elif isinstance(one, Finding):
            findings += [one] * (area in (None, *one.scores))
        else:
            raise ArgumentTypeError(
                f"each model needs a Survey, findings or patterns, got {type(one).__name__}"
            )
    for finding in best_of_each(findings):
        share = finding.area if area is None else area
        binary = finding.patterns[share].topk(share)
        tiles.append(Tile(finding.label, binary, finding.scores[share]))
    by_class: dict[int, Tile] = {}
    for tile in tiles:
        if by_class.setdefault(tile.binary.target, tile) is not tile:
            raise ValueError(
                f"a model has several patterns of {tile.label}: give one for each class, or each "
                "in a row of its own, by a name"
            )
    return by_class


def _labels(models: Mapping[str, Mapping[int, Tile]]) -> dict[int, str]:
    """The name of each class; an error if two models give one number different names."""
    named: dict[int, tuple[str, str]] = {}  # by class: a model, and its name of the class
    for model, tiles in models.items():
        for target, tile in tiles.items():
            if tile.label == label_of(target):
                continue
            first, other = named.setdefault(target, (model, tile.label))
            names = {text.partition(",")[0].lower() for text in (tile.label, other)}
            if len(names) > 1:
                raise ValueError(
                    f"class {target} is {other!r} in {first!r}, but {tile.label!r} in {model!r}: "
                    "draw models whose classes have the same numbers, or each in a figure of its "
                    "own"
                )
    targets = dict.fromkeys(target for tiles in models.values() for target in tiles)
    return {y: named[y][1] if y in named else label_of(y) for y in targets}
