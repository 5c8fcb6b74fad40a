"""A sweep: the power of each class of each model, and a row for each model."""

from statistics import fmean

from markupsafe import Markup

from captum_classpattern.classifier.class_names import distinct_names, label_of
from captum_classpattern.pages.parts import drawing, paragraph, table
from captum_classpattern.surveys import Sweep
from captum_classpattern.visualization import plot_heat_map
from captum_classpattern.visualization.drawing import Drawing
from captum_classpattern.visualization.formats import percent, percent_area

MOST_MODELS = 50  # in the table
COLUMNS = ("model", "classes", "mean power", "strongest class", "above their controls")


def parts(sweep: Sweep, whole: bool = False) -> tuple[str, list[Markup]]:
    """Of the findings so far, on the best canvases, at the first area."""
    area = float(sweep.settings["areas"][0])
    rows = sorted((_row(sweep, name, area) for name in sweep.models), key=lambda row: -row[0])
    counts = f"{len(sweep.models):,} models, {len(sweep.classes):,} classes"
    failed = f", {len(sweep.failures):,} units failed" if sweep.failures else ""
    left_out = f" The {MOST_MODELS} strongest models are listed." * (len(rows) > MOST_MODELS)
    shown = [paragraph(f"{counts}{failed}.{left_out}")]
    if rows and rows[0][0] >= 0:
        figure, _ = sweep.plot(use_pyplot=False)
        shown.append(drawing(figure, "predictive power of each class of each model"))
    return "Sweep", [
        *shown,
        table(COLUMNS, [cells for _, cells in rows[:MOST_MODELS]]),
        paragraph(
            f"Power of {percent_area(area)} of the pixels on held-out images, on the "
            "canvas that did best on the judging images."
        ),
    ]


def _row(sweep: Sweep, name: str, area: float) -> tuple[float, tuple[str, ...]]:
    """A model's mean power (-1 if nothing was found yet), and its cells."""
    best = [each for each in sweep.best_canvases(name) if area in each.scores]
    done = f"{len(best)} of {len(sweep.classes)}"
    if not best:
        return -1.0, (name, done, "", "", "too few images")
    scores = [each.scores[area] for each in best]
    powers = [each.power.value for each in scores]
    strongest = best[powers.index(max(powers))]
    label = strongest.class_name or label_of(strongest.target)
    above = sum(each.beats_controls for each in scores)
    return fmean(powers), (
        name,
        done,
        percent(fmean(powers)),
        f"{label}, {percent(max(powers))}",
        f"{above}" if any(each.enough_images for each in scores) else "too few images",
    )


def plot(sweep: Sweep, *, area: float | None, canvas: str | None, use_pyplot: bool) -> Drawing:
    share = float(sweep.settings["areas"][0] if area is None else area)
    values: dict[str, dict[int, float]] = {name: {} for name in sweep.models}
    names: dict[int, str] = {}  # of the classes
    for name in sweep.models:
        for each in sweep.best_canvases(name, canvas):
            if share in each.scores:
                values[name][each.target] = each.scores[share].power.value
                if each.class_name:
                    names.setdefault(each.target, each.class_name)
    if not any(values.values()):
        on = "" if canvas is None else f" on {canvas!r} canvases"
        raise ValueError(f"nothing was found{on} at area {share}")
    kind = "the best canvas" if canvas is None else f"a {canvas} canvas"
    labels = distinct_names(names)
    return plot_heat_map(
        {
            name: {labels.get(target, label_of(target)): power for target, power in row.items()}
            for name, row in values.items()
            if row
        },
        title=f"Predictive power of {share:.3g} of the pixels of {kind}",
        use_pyplot=use_pyplot,
    )
