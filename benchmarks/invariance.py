"""Invariance profiles of the patterns of all classes: natural, backdoored and robust models.

    python benchmarks/invariance.py --cifar10 FOLDER --out invariance.jsonl

searches the strongest pattern of each class of the CIFAR-10 models, profiles it on held-out images,
and prints a summary and a table for each transform. A backdoored model's trigger is profiled, too.
Without ``--cifar10``, it takes the demo's models. Each finished class is appended to the file, so
that the same command continues after an interruption, and prints the tables of a finished file at
once.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from statistics import fmean
from typing import Any

import torch
from cifar10 import InBfloat16
from findings import (
    Row,
    Table,
    append_rows,
    format_values,
    head,
    line,
    parser_of,
    print_tables,
    read_rows,
)
from matplotlib.figure import Figure
from problems import TARGETS, Problem, cifar10_problems, demo_problems, strongest

from captum_classpattern import InvarianceProfile, LabelledImages, Pattern, invariance_profile
from captum_classpattern.scores.invariance import known_transforms
from captum_classpattern.triggers import BadNets
from captum_classpattern.visualization.style import CONTROL, HIGHLIGHTS, OTHERS

CIFAR10_MODELS = ("natural", "backdoored", "robust8")
AREA = 0.05  # of the searched patterns
SETTINGS = ("canvas", "budget", "most_images")  # rows of other settings are left alone

COLUMNS = 5  # panels of the figure in a row
# Paul Tol's "muted" colours, which colour-blind readers can tell apart
COLOURS = (*OTHERS[:2], *HIGHLIGHTS[:2], OTHERS[3], OTHERS[2])

Key = tuple[str, int, bool]  # model, class, whether it is the true trigger


def rows_of(profile: InvarianceProfile, key: Key, settings: Mapping[str, Any]) -> Iterator[Row]:
    """A row for each transform."""
    model, target, is_trigger = key
    for name, curve in profile.curves.items():
        half, points = curve.half_power_range, list(curve.points.values())
        yield {
            "model": model,
            "class": target,
            "is_trigger": is_trigger,
            **settings,
            "transform": name,
            "unit": curve.transform.unit,
            "rest": curve.transform.rest,
            "images": profile.power.n,
            "values": list(curve.points),
            "power": [point.power.value for point in points],
            "random_pixels": [point.random_pixels for point in points],
            "no_pattern": [point.power.without for point in points],
            "kept": [curve.kept(value) for value in curve.points],
            "half_power": half and asdict(half),
        }


def key_of(row: Row) -> Key:
    return row["model"], row["class"], row["is_trigger"]


def keys(problem: Problem, classes: int | None) -> list[Key]:
    """The patterns of a model: one for each class, and its trigger."""
    found: list[Key] = [(problem.name, y, False) for y in sorted(set(problem.labels.tolist()))]
    backdoor = TARGETS.get(problem.name)
    return found[:classes] + ([] if backdoor is None else [(problem.name, backdoor, True)])


def pattern_of(problem: Problem, key: Key, canvas: str, budget: int | None) -> Pattern:
    """The true trigger, or the strongest pattern of a class."""
    _, target, is_trigger = key
    if is_trigger:
        trigger = BadNets(tuple(problem.images.shape[1:])).pattern(target)
        return trigger.to(next(problem.model.parameters()).device)
    return strongest(problem, target, canvas, budget=budget, area=AREA)


def measure(
    problems: Sequence[Problem],
    out: Path,
    settings: Mapping[str, Any],
    transforms: Sequence[str] | None,
    classes: int | None,
) -> None:
    """Appends the rows that the file lacks."""
    known = known_transforms()
    done: dict[Key, set[str]] = {}
    for row in read_rows(out):
        if all(row[name] == settings[name] for name in SETTINGS):
            done.setdefault(key_of(row), set()).add(row["transform"])
    for problem in problems:
        fitting = [n for n in transforms or known if known[n].fits(problem.images.shape[1])]
        for key in keys(problem, classes):
            missing = [name for name in fitting if name not in done.get(key, ())]
            if not missing:
                continue
            print(f"profiling {key[0]}, {'trigger' if key[2] else f'class {key[1]}'}", flush=True)
            pattern = pattern_of(problem, key, settings["canvas"], settings["budget"])
            held_out = LabelledImages(problem.held_out, problem.held_out_labels)
            profile = invariance_profile(
                problem.model,
                pattern,
                held_out.stratified_sample(settings["most_images"]),
                transforms=missing,
                area=None if key[2] else AREA,
            )
            append_rows(out, rows_of(profile, key, settings))


def tables(rows: Sequence[Row]) -> Iterator[Table]:
    """The ranges of all transforms, then a table for each."""
    yield "Where half of the predictive power stays", summary(rows)
    for transform in dict.fromkeys(row["transform"] for row in rows):
        of_transform = [row for row in rows if row["transform"] == transform]
        yield f"{transform} ({of_transform[0]['unit']})", by_value(of_transform)


def by_value(rows: Sequence[Row]) -> Iterator[str]:
    """One transform: each model is a row, a backdoor's class and trigger two more."""
    values = [value for value in rows[0]["values"] if value != rows[0]["rest"]]
    yield head(
        "patterns", "above controls", "half stays: from", "to", "width (95 %)", "open",
        *(f"{value:g}" for value in values),
    )  # fmt: skip
    for name, group in groups(rows):
        yield line(name, *cells(group, values))


def summary(rows: Sequence[Row]) -> Iterator[str]:
    """A row for each transform: the mean range over which half of the power stays."""
    names = [name for name, _ in groups(rows)]
    yield head("transform", "unit", *names)
    for transform in dict.fromkeys(row["transform"] for row in rows):
        of_transform = [row for row in rows if row["transform"] == transform]
        by_name = dict(groups(of_transform))
        ranges = (mean_range(by_name.get(name, ())) for name in names)
        yield line(transform, of_transform[0]["unit"], *ranges)


def mean_range(rows: Sequence[Row]) -> str:
    """The mean ends of the ranges, and how many patterns are above their controls if some are
    not; a plus sign marks an end that some pattern reaches without losing half of its power."""
    ends = [row["half_power"] for row in rows if row["half_power"] is not None]
    if not ends:
        return ""
    low, high = (fmean(half[end] for half in ends) for end in ("low", "high"))
    signs = ("+" if any(half[f"open_{end}"] for half in ends) else "" for end in ("low", "high"))
    text = " to ".join(f"{end:.3g}{sign}" for end, sign in zip((low, high), signs))
    return text if len(ends) == len(rows) else f"{text} ({len(ends)} of {len(rows)})"


def groups(rows: Sequence[Row]) -> Iterator[tuple[str, list[Row]]]:
    """The rows of each model, those of a backdoor apart."""
    for model in dict.fromkeys(row["model"] for row in rows):
        of_model = [row for row in rows if row["model"] == model]
        searched = [row for row in of_model if not row["is_trigger"]]
        backdoor = TARGETS.get(model)
        others = [row for row in searched if row["class"] != backdoor]
        if others:
            yield f"{model}{'' if backdoor is None else ', other classes'}", others
        if backdoor is not None:
            yield f"{model}, class {backdoor}", [r for r in searched if r["class"] == backdoor]
            yield f"{model}, its trigger", [row for row in of_model if row["is_trigger"]]


def cells(rows: Sequence[Row], values: Sequence[float]) -> Iterator[str]:
    """How many patterns are above their controls, and the means over these: the range over which
    half of the power stays, and at each value the share that stays and, in brackets, the power of
    random pixels."""
    above = [row for row in rows if row["half_power"] is not None]
    yield f"{len(above)} of {len(rows)}"
    if not above:
        yield from [""] * (4 + len(values))
        return
    ends = [row["half_power"] for row in above]
    yield f"{fmean(half['low'] for half in ends):.2f}"
    yield f"{fmean(half['high'] for half in ends):.2f}"
    yield width(above)
    yield f"{sum(half['open_low'] or half['open_high'] for half in ends)}"
    for value in values:
        places = [(row, row["values"].index(value)) for row in above]
        kept = fmean(row["kept"][place] for row, place in places)
        random = fmean(row["random_pixels"][place] for row, place in places)
        yield f"{kept:.0%} ({random:.1%})"


def width(rows: Sequence[Row]) -> str:
    """The mean width of the ranges. Open ranges count with the width that was tested."""
    widths = {row["class"]: [row["half_power"]["high"] - row["half_power"]["low"]] for row in rows}
    return format_values(widths, ".2f")


def picture(rows: Sequence[Row]) -> Figure:
    """A panel for each transform: the share of the power that stays, a line for each model and for
    a backdoor's class and trigger."""
    shown = list(dict.fromkeys(row["transform"] for row in rows))
    columns = min(COLUMNS, len(shown))
    n_rows = math.ceil(len(shown) / columns)
    figure = Figure((columns * 2.9, n_rows * 2.5 + 0.6), layout="constrained")
    panels = figure.subplots(n_rows, columns, squeeze=False, sharey=True)
    for axis in panels.flat[len(shown) :]:
        axis.remove()
    for axis, transform in zip(panels.flat, shown):
        of_transform = [row for row in rows if row["transform"] == transform]
        for (name, group), color in zip(groups(of_transform), COLOURS):
            above = [row for row in group if row["half_power"] is not None]
            if above:
                kept = [fmean(values) for values in zip(*(row["kept"] for row in above))]
                axis.plot(above[0]["values"], kept, color=color, marker="o", ms=3.5, label=name)
        axis.axhline(0.5, color=CONTROL, linestyle=(0, (5, 2)), linewidth=1, zorder=1)
        axis.set_title(transform, fontsize=11, fontweight="bold")
        axis.set_xlabel(of_transform[0]["unit"], fontsize=9)
        axis.set(ylim=(-0.15, 1.2), yticks=[0, 0.5, 1], yticklabels=["0", "50 %", "100 %"])
        axis.spines[["top", "right"]].set_visible(False)
        axis.tick_params(labelsize=9)
    for row_of_panels in panels:
        row_of_panels[0].set_ylabel("power that stays", fontsize=9)
    lines, names = panels.flat[0].get_legend_handles_labels()
    figure.legend(lines, names, loc="outside lower center", ncols=3, frameon=False, fontsize=10)
    return figure


def main(arguments: Sequence[str] | None = None) -> None:
    parser = parser_of(__doc__)
    parser.add_argument("--cifar10", type=Path, help="folder with test/<class>/; else the demo")
    parser.add_argument("--out", type=Path, default=Path("invariance.jsonl"))
    parser.add_argument("--models", nargs="+", help="some of the models; by default, all")
    parser.add_argument("--canvas", default="positive", help="kind of canvas, such as white")
    parser.add_argument("--budget", type=int, help="passes per class; by default, the solver's")
    parser.add_argument("--images", type=int, default=500, help="held-out images, at most")
    parser.add_argument("--classes", type=int, help="the first classes alone", metavar="N")
    parser.add_argument("--transforms", nargs="+", choices=list(known_transforms()))
    parser.add_argument("--device", type=torch.device, default="cpu")
    parser.add_argument("--figure", type=Path, help="also draw the share of the power that stays")
    given = parser.parse_args(arguments)
    if given.cifar10:
        problems = [  # in bfloat16, as they were trained
            problem._replace(model=InBfloat16(problem.model).eval())
            for problem in cifar10_problems(given.cifar10, given.models or CIFAR10_MODELS)
        ]
    else:
        problems = [
            problem
            for problem in demo_problems()
            if not given.models or problem.name.removeprefix("demo, ") in given.models
        ]
    settings = {"canvas": given.canvas, "budget": given.budget, "most_images": given.images}
    problems = [problem.to(given.device) for problem in problems]
    measure(problems, given.out, settings, given.transforms, given.classes)
    names = {problem.name for problem in problems}
    rows = [
        row
        for row in read_rows(given.out)
        if row["model"] in names and all(row[name] == settings[name] for name in SETTINGS)
    ]
    if given.figure:
        picture(rows).savefig(given.figure, dpi=150)
    print_tables(tables(rows))


if __name__ == "__main__":
    main()
