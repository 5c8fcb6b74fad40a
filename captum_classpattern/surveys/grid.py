"""``plot_grid``: what was found for the classes of some models, next to each other."""

from collections.abc import Iterable, Mapping
from statistics import fmean
from typing import Any, NamedTuple, TypeAlias

from captum_classpattern._validation import ArgumentTypeError
from captum_classpattern.classifier.class_names import distinct_names, label_of
from captum_classpattern.pattern import Pattern
from captum_classpattern.scores.power import Scores
from captum_classpattern.surveys.findings import Finding, best_of_each
from captum_classpattern.surveys.results import Survey

Found: TypeAlias = Survey | Finding | Pattern | Iterable[Finding | Pattern]
MOST_CLASSES = 20  # in a figure


def plot_grid(
    found: Mapping[str, Found] | Found,
    *,
    area: float | None = None,
    canvas: str | None = None,
    title: str | None = None,
    use_pyplot: bool = True,
) -> tuple[Any, Any]:
    r"""
    Draws patterns as a grid, as in the paper: a row for each model, a column for each class, and
    the predictive power below each pattern: bold if it is above its controls, grey if not. With
    fewer than 100 images it is neither, since they are too few to say so. Of more than 20 classes,
    those with the highest power on average are drawn.

    Args:
        found (Mapping[str, Survey]): For each model, by its name, what was found: a
            :class:`Survey`; findings; or patterns, which have no power, one for each class.
            Without names, it is one row. Models must number their classes alike.
        area (float, optional): Share of the pixels. Default: None (the first area of each; a
            pattern's own).
        canvas (str, optional): The kind of canvas, also among :attr:`Finding.others`. Default: None
            (for each class the one that did best on the validation images).
        title (str, optional): Title of the figure. Default: None.
        use_pyplot (bool): As in :func:`plot_patterns`. Default: True.

    Returns:
        *tuple[Figure, ndarray]*: The figure and its axes, one row for each model. Where a model has
        no pattern, the axis is empty.

    Raises:
        TypeError: If one of these is neither a finding nor a pattern.
        ValueError: If there is nothing to draw for these choices; if models give a class number
            different names; if a model has several patterns of one class.

    Examples::

        >>> patterns = [Pattern(torch.rand(3, 8, 8), torch.rand(1, 8, 8), y) for y in range(3)]
        >>> figure, axes = plot_grid(
        ...     {"old": patterns, "new": patterns[1:]}, area=0.1, use_pyplot=False)
        >>> axes.shape, [axis.get_title() for axis in axes[0]]
        ((2, 3), ['class 0', 'class 1', 'class 2'])
    """
    from captum_classpattern.visualization.drawing import on_neutral
    from captum_classpattern.visualization.grid import Cell, draw_grid
    from captum_classpattern.visualization.patterns import NOT_ABOVE

    given = found if isinstance(found, Mapping) else {"": found}
    models = {name: _tiles_of(each, area, canvas) for name, each in given.items()}
    names = _names(models)
    if not names:
        raise ValueError("there is nothing to draw: no class was found on this canvas at this area")
    powers: dict[int, list[float]] = {y: [] for y in names}
    for y, tile in (item for tiles in models.values() for item in tiles.items()):
        powers[y] += [] if tile.scores is None else [tile.scores.power.value]
    chosen = sorted(sorted(names, key=lambda y: (-fmean(powers[y] or [0.0]), y))[:MOST_CLASSES])
    if len(chosen) < len(names):
        note = f"the {MOST_CLASSES} strongest of {len(names)} classes"
        title = note if title is None else f"{title} ({note})"

    def cell(tile: Tile | None) -> Cell | None:
        if tile is None or tile.scores is None:
            return tile and Cell(on_neutral(tile.binary))
        strong = tile.scores.beats_controls if tile.scores.enough_images else None
        return Cell(on_neutral(tile.binary), f"{100 * tile.scores.power.value:.0f} %", strong)

    rows = [(name, [cell(tiles.get(y)) for y in chosen]) for name, tiles in models.items()]
    return draw_grid(
        rows,
        [*distinct_names({y: names[y] for y in chosen}).values()],
        title=title,
        note=NOT_ABOVE * any(each.strong is False for _, cells in rows for each in cells if each),
        use_pyplot=use_pyplot,
    )


class Tile(NamedTuple):
    """What a row shows of a class: its name, the binary pattern, and its scores, if it has any."""

    label: str
    binary: Pattern
    scores: Scores | None


def _tiles_of(found: Found, area: float | None, canvas: str | None) -> dict[int, Tile]:
    """What a row shows, by class."""
    findings: list[Finding] = []
    tiles: list[Tile] = []
    for one in [found] if isinstance(found, Finding | Pattern) else found:
        if isinstance(one, Pattern):
            binary = one.at_own_area() if area is None else one.topk(area)
            tiles.append(Tile(one.label, binary, None))
        elif isinstance(one, Finding):
            findings += [one] if canvas is None and area is None else [one, *one.others]
        else:
            raise ArgumentTypeError(
                f"each model needs a Survey, findings or patterns, got {type(one).__name__}"
            )
    fitting = (f for f in findings if canvas in (None, f.canvas) and area in (None, *f.scores))
    for finding in best_of_each(fitting):
        share = finding.area if area is None else area
        binary = finding.patterns[share].topk(share)
        tiles.append(Tile(finding.label, binary, finding.scores[share]))
    by_class = {tile.binary.target: tile for tile in tiles}
    for tile in tiles:
        if by_class[tile.binary.target] is not tile:
            raise ValueError(
                f"a model has several patterns of {tile.label}: give one for each class, or each "
                "in a row of its own, by a name"
            )
    return by_class


def _names(models: Mapping[str, Mapping[int, Tile]]) -> dict[int, str]:
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
