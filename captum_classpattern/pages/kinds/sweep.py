"""A sweep: the power of each class of each model, and a row for each model."""

from collections import Counter
from collections.abc import Sequence
from statistics import fmean
from typing import Any

from markupsafe import Markup

from captum_classpattern.classifier.class_names import distinct_names, label_of
from captum_classpattern.pages.parts import Column, drawing, paragraph, table_of
from captum_classpattern.surveys import Finding, Sweep
from captum_classpattern.visualization import plot_heat_map
from captum_classpattern.visualization.drawing import Drawing
from captum_classpattern.visualization.formats import percent, percent_area

MOST_MODELS = 50  # in the table
COLUMNS = (  # and before them the model and its classes
    Column("mean power", "power", percent),
    Column("strongest class", "first", lambda each: f"{each.label}, {percent(each.power.value)}"),
    Column("above their controls", "above"),
)


def parts(sweep: Sweep, whole: bool = False) -> tuple[str, list[Markup]]:
    """Of the findings so far, on the best canvases, at the first area."""
    area = float(sweep.settings["areas"][0])
    rows = model_rows(sweep)
    found = Column("classes", "classes", f"{{}} of {len(sweep.classes)}".format)
    counts = f"{len(sweep.models):,} models, {len(sweep.classes):,} classes"
    failed = f", {len(sweep.failures):,} units failed" if sweep.failures else ""
    left_out = f" The {MOST_MODELS} strongest models are listed." * (len(rows) > MOST_MODELS)
    shown = [paragraph(f"{counts}{failed}.{left_out}")]
    if any("power" in row for row in rows):
        figure, _ = sweep.plot(use_pyplot=False)
        shown.append(drawing(figure, "predictive power of each class of each model"))
    return "Sweep", [
        *shown,
        table_of([Column("model", "model"), found, *COLUMNS], rows[:MOST_MODELS]),
        paragraph(
            f"Power of {percent_area(area)} of the pixels on held-out images, on the "
            "canvas that did best on the judging images."
        ),
    ]


def model_rows(sweep: Sweep) -> list[dict[str, Any]]:
    """A row for each model, the strongest first: how many of its classes were found and failed, and
    the :func:`summary` of those that were found."""
    failed, rows = Counter(row["model"] for row in sweep.failures), []
    for name in sweep.models:  # one at a time: there may be thousands
        best = sweep.best_canvases(name)
        row = {"model": name, "classes": len(best), "failed": failed[name]}
        rows.append(row | summary(best) if best else row)
    return sorted(rows, key=lambda row: -row.get("power", -1.0))


def summary(best: Sequence[Finding]) -> dict[str, Any]:
    """The findings of a model, one for each class, as a row of a table: their mean power at the
    first area, the finding with the highest power, and how many are above their controls."""
    scores = [each.scores[each.area] for each in best]
    powers = [each.power.value for each in scores]
    enough = any(each.enough_images for each in scores)
    return {
        "power": fmean(powers),
        "first": best[powers.index(max(powers))],
        "above": sum(each.beats_controls for each in scores) if enough else "too few images",
    }


def plot(sweep: Sweep, *, area: float | None, canvas: str | None, use_pyplot: bool) -> Drawing:
    share = float(sweep.settings["areas"][0] if area is None else area)
    found = [
        (model, each.target, each.class_name, each.scores[share])
        for model in sweep.models
        for each in sweep.best_canvases(model, canvas)
        if share in each.scores
    ]
    if not found:
        on = "" if canvas is None else f" on {canvas!r} canvases"
        raise ValueError(f"nothing was found{on} at area {share}")
    kind = "the best canvas" if canvas is None else f"a {canvas} canvas"
    labels = distinct_names({target: name for _, target, name, _ in reversed(found) if name})
    values: dict[str, dict[str, float]] = {}
    faint: set[tuple[str, str]] = set()
    for model, target, _, scores in found:
        label = labels.get(target, label_of(target))
        values.setdefault(model, {})[label] = scores.power.value
        if scores.is_weak:
            faint.add((model, label))
    return plot_heat_map(
        values,
        faint=faint,
        title=f"Predictive power of {percent_area(share)} of the pixels of {kind}",
        use_pyplot=use_pyplot,
    )
