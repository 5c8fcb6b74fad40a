"""Figures of many classes and models: their patterns as a grid, their powers as dots."""

from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from statistics import fmean
from typing import Any, TypeAlias

from captum_classpattern._validation import ArgumentTypeError
from captum_classpattern.classifier.class_names import ClassNames, distinct_names, label_of
from captum_classpattern.pattern import Pattern
from captum_classpattern.scores import Scores
from captum_classpattern.surveys.findings import Finding
from captum_classpattern.surveys.results import Survey, best_of_each
from captum_classpattern.visualization.drawing import Drawing, on_neutral
from captum_classpattern.visualization.formats import percent
from captum_classpattern.visualization.grid import Cell, draw_grid
from captum_classpattern.visualization.powers import Dot, draw_powers

Found: TypeAlias = "Survey | Finding | Pattern | Iterable[Finding | Pattern]"
Models: TypeAlias = Mapping[str, Mapping[int, "Finding | Pattern"]]  # by name, then class
MOST_CLASSES = 20  # in a figure
NOT_ABOVE = "grey: not above its controls"


def plot_grid(
    found: "Mapping[str, Found] | Found",
    *,
    area: float | None = None,
    canvas: str | None = None,
    classes: Sequence[int | str] | None = None,
    title: str | None = None,
    use_pyplot: bool = True,
) -> Drawing:
    r"""
    Draws patterns as a grid, as in the paper: a row for each model, a column for each class, and
    the predictive power below each pattern: bold if it is above its controls, grey if not. With
    fewer than 100 images it is neither, since they are too few to say so.

    Args:
        found (Mapping[str, Survey]): For each model, by its name, what was found: a
            :class:`Survey`, which is finished first; findings; or patterns, which have no power,
            one for each class. Without names, it is one row. Models must number their classes
            alike.
        area (float, optional): Share of the pixels. Default: None (the first area of each; a
            pattern's own).
        canvas (str, optional): The kind of canvas, also among :attr:`Finding.others`. Default: None
            (for each class the one that did best on the judging images).
        classes (Sequence[int or str], optional): Which classes, by number or name, in this order.
            Default: None (all in the order of their numbers; if there are more than 20, those with
            the highest power on average).
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
    models = {name: _by_class(each, area, canvas) for name, each in _named(found).items()}
    labels, left_out = _columns(models, area, classes)
    rows = {
        name: [_cell(row[y], area) if y in row else None for y in labels]
        for name, row in models.items()
    }
    faint = any(cell.strong is False for row in rows.values() for cell in row if cell is not None)
    return draw_grid(
        rows.items(),
        list(labels.values()),
        title=_with_note(title, left_out),
        note=NOT_ABOVE if faint else "",
        use_pyplot=use_pyplot,
    )


def plot_powers(
    found: "Mapping[str, Found] | Found",
    *,
    area: float | None = None,
    canvas: str | None = None,
    classes: Sequence[int | str] | None = None,
    title: str | None = None,
    use_pyplot: bool = True,
) -> Drawing:
    r"""
    Draws the predictive power of each class as a dot with its 95 % interval, next to its controls.
    The class with the highest power is at the top. A power that is not above its controls is a
    circle, unless there are fewer than 100 images, which are too few to say so.

    Args:
        found (Mapping[str, Survey]): For each model, by its name, what was found: a
            :class:`Survey`, which is finished first, or findings. Without names, it is one model.
        area (float, optional): Share of the pixels. Default: None (the first area of each).
        canvas (str, optional): As in :func:`plot_grid`. Default: None.
        classes (Sequence[int or str], optional): Which classes, by number or name, from top to
            bottom. Default: None (all, at most 20, the highest power on average first).
        title (str, optional): Title of the figure. Default: None.
        use_pyplot (bool): As in :func:`plot_patterns`. Default: True.

    Returns:
        *tuple[Figure, ndarray]*: The figure, and an array of its one axis.

    Raises:
        TypeError: If one of these is not a finding.
        ValueError: If there is nothing to draw for these choices, or if models give a class number
            different names.

    Examples::

        >>> net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 3)).eval()
        >>> labels = torch.arange(60) % 3
        >>> search = LabelledImages(torch.rand(60, 1, 8, 8), labels)
        >>> held_out = LabelledImages(torch.rand(60, 1, 8, 8), labels)
        >>> found = survey(net, search, held_out, areas=(0.1,), n_steps=5)
        >>> figure, [axis] = plot_powers(found, use_pyplot=False)
        >>> len(axis.get_yticklabels()), axis.get_xlabel()
        (3, 'predictive power')
    """
    models = {name: _by_class(each, area, canvas) for name, each in _named(found).items()}
    for each in (each for row in models.values() for each in row.values()):
        if isinstance(each, Pattern):
            raise ArgumentTypeError(
                "a pattern alone has no power: give what survey or explain_class return"
            )
    labels, left_out = _columns(models, area, classes)
    order = (
        list(labels)
        if classes is not None
        else sorted(labels, key=lambda y: -_mean(models, y, area))
    )
    rows = {
        labels[y]: {name: _dot(row[y], area) for name, row in models.items() if y in row}
        for y in order
    }
    return draw_powers(rows, title=_with_note(title, left_out), use_pyplot=use_pyplot)


def _named(found: Any) -> Mapping[str, Any]:
    return found if isinstance(found, Mapping) else {"": found}


def _by_class(found: Found, area: float | None, canvas: str | None) -> dict[int, Finding | Pattern]:
    """The pattern of each class that a row shows."""
    each: list[Any] = [found] if isinstance(found, Finding | Pattern) else list(found)
    for one in each:
        if not isinstance(one, Finding | Pattern):
            raise ArgumentTypeError(
                f"each model needs a Survey, findings or patterns, got {type(one).__name__}"
            )
    patterns = [one for one in each if isinstance(one, Pattern)]
    findings = [one for one in each if isinstance(one, Finding)]
    if canvas is not None or area is not None:
        findings = [one for finding in findings for one in (finding, *finding.others)]
    chosen = [
        one
        for one in findings
        if canvas in (None, one.canvas) and (area is None or area in one.scores)
    ]
    row: dict[int, Finding | Pattern] = {one.target: one for one in best_of_each(chosen)}
    for pattern in patterns:
        if pattern.target in row:
            raise ValueError(
                f"a model has several patterns of {pattern.label}: give one for each class, or "
                "each in a row of its own, by a name"
            )
        row[pattern.target] = pattern
    return row


def _columns(
    models: Models, area: float | None, classes: Sequence[int | str] | None
) -> tuple[dict[int, str], int]:
    """The names of the classes to draw, and how many classes are left out."""
    names = _names(models)
    if classes is not None:
        chosen = [_number(each, names) for each in classes]
        missing = [str(each) for each, y in zip(classes, chosen) if y not in names]
        if missing:
            raise ValueError(f"nothing was found for class {', '.join(missing)} here")
    else:
        chosen = sorted(names)
        if len(chosen) > MOST_CLASSES:
            chosen = sorted(sorted(chosen, key=lambda y: -_mean(models, y, area))[:MOST_CLASSES])
    if not chosen:
        raise ValueError("there is nothing to draw: no class was found on this canvas at this area")
    labels = distinct_names({y: names[y] for y in chosen})
    return labels, 0 if classes is not None else len(names) - len(chosen)


def _names(models: Models) -> dict[int, str]:
    """The name of each class; an error if two models give one number different names."""
    known: dict[int, tuple[str, str]] = {}  # by class: a model, and its name of the class
    for model, row in models.items():
        for target, one in row.items():
            if (name := one.label) == label_of(target):
                continue
            first, other = known.setdefault(target, (model, name))
            if not _alike(name, other):
                raise ValueError(
                    f"class {target} is {other!r} in {first!r}, but {name!r} in {model!r}: draw "
                    "models whose classes have the same numbers, or each in a figure of its own"
                )
    targets = dict.fromkeys(target for row in models.values() for target in row)
    return {y: known[y][1] if y in known else label_of(y) for y in targets}


def _alike(name: str, other: str) -> bool:
    """Whether one of two names fits the other."""
    for one, names in ((name, [other]), (other, [name])):
        with suppress(ValueError):
            ClassNames(names).find(one)
            return True
    return False


def _number(given: int | str, names: Mapping[int, str]) -> int:
    """The class that a number or a name means."""
    if not isinstance(given, str):
        return given
    return list(names)[ClassNames([*names.values()]).find(given)]


def _mean(models: Models, target: int, area: float | None) -> float:
    """The mean power of a class over the models that have findings of it."""
    found = [row[target] for row in models.values() if target in row]
    powers = [_scores(one, area).power.value for one in found if isinstance(one, Finding)]
    return fmean(powers) if powers else 0.0


def _cell(one: Finding | Pattern, area: float | None) -> Cell:
    if isinstance(one, Pattern):
        return Cell(on_neutral(one.at_own_area() if area is None else one.topk(area)))
    share, scores = one.area if area is None else area, _scores(one, area)
    caption = percent(scores.power.value, 0)
    shown = on_neutral(one.patterns[share].topk(share))
    return Cell(shown, caption, _beats_controls(scores))


def _scores(finding: Finding, area: float | None) -> Scores:
    return finding.scores[finding.area if area is None else area]


def _dot(one: Any, area: float | None) -> Dot:
    scores = _scores(one, area)
    return Dot(scores.power, scores.controls, _beats_controls(scores))


def _beats_controls(scores: Scores) -> bool | None:
    """None if there are too few images to say so."""
    return scores.beats_controls if scores.enough_images else None


def _with_note(title: str | None, left_out: int) -> str | None:
    if not left_out:
        return title
    note = f"the {MOST_CLASSES} strongest of {MOST_CLASSES + left_out} classes"
    return note if title is None else f"{title} ({note})"
