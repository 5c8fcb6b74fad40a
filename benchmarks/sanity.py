"""Do the maps depend on the model? The sanity checks of Adebayo et al. (2018, arXiv 1810.03292).

    python benchmarks/sanity.py --cifar10 FOLDER --out sanity.jsonl --figure sanity.png

randomises the demo's natural model layer by layer, and compares the CIFAR-10 model ``true_labels``
with ``random_labels``, which has memorised permuted labels. One canvas per class, all methods of
``known_methods`` but the slowest. It prints a table for each test, and draws the demo's curves.
Each finished method is appended to the file, so that the same command continues after an
interruption. ``--rows FILE`` prints the tables of a finished file at once.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import torch
from captum.attr import Attribution
from cifar10 import InBfloat16
from findings import Row, Table, append_rows, head, line, parser_of, print_tables, read_rows
from problems import Problem, cifar10_problems, demo_problems, train_cifar10
from torch import Tensor, nn

from captum_classpattern import known_methods, sanity_check, select_canvases
from captum_classpattern.comparison import Agreement, Failure, SanityCheck
from captum_classpattern.comparison.methods import NAMES
from captum_classpattern.comparison.records import grouped

# the first two ablate the same cells as Lime; the last explains no canvas
LEFT_OUT = ("FeatureAblation", "ShapleyValueSampling", "LearnedPattern")
AREA, IMAGES, STEPS, SEED = 0.05, 200, 6, 0
BUDGET = 1_000  # passes per canvas of a search
OTHER = "random_labels"
SHOWN = (  # in the figure
    *("ClassPattern", "IntegratedGradients", "InputXGradient", "DeepLift", "Saliency"),
    *("GuidedBackprop", "GuidedGradCam", "Occlusion", "Lime", "the image itself"),
)
IMAGE = "the image itself"  # a control that knows the canvas but not the model
OF_GROUP = ("ranking", "test", "randomised")
OF_CANVAS = ("target", "seed", "iou", "correlation", "power")


class Image(Attribution):
    """The map is the canvas: its brightest pixels come first."""

    def attribute(self, inputs: Tensor, target: Any = None) -> Tensor:
        return inputs.clone()


class Case(NamedTuple):
    """A model with its images, and what it is compared with: itself with random layers, in this
    number of steps, or a second model with other labels."""

    problem: Problem
    n_steps: int = 0
    other: nn.Module | None = None

    @property
    def classes(self) -> list[int]:
        return sorted(set(self.problem.labels.tolist()))

    def canvases(self) -> Tensor:
        """A correctly classified image of middle confidence for each class."""
        model, images, labels = self.problem[1:4]
        return torch.cat(
            [select_canvases(model, images, labels, target=y, n=1) for y in self.classes]
        )


def cases(cifar10: Path | None) -> list[Case]:
    natural = next(p for p in demo_problems() if p.name == "demo, natural")
    demo = Case(natural, STEPS)
    if cifar10 is None:
        return [demo]
    [true] = cifar10_problems(cifar10, ["true_labels"])
    true = true._replace(model=InBfloat16(true.model).eval())
    other = InBfloat16(train_cifar10.load_model(OTHER)).eval()
    return [demo, Case(true, other=other)]


def check_of(case: Case, canvases: Tensor, name: str, budget: int) -> SanityCheck:
    """The check of one method on one case."""
    problem = case.problem
    search = (problem.images, problem.labels)
    return sanity_check(
        problem.model,
        canvases,
        case.classes,
        search=search,
        held_out=(problem.held_out, problem.held_out_labels),
        methods={IMAGE: Image}
        if name == IMAGE
        else known_methods(*search, names=[name], budget=budget),
        other=case.other,
        area=AREA,
        n_steps=case.n_steps,
        max_images=IMAGES,
        seed=SEED,
    )


def row_of(check: SanityCheck, model: str, method: str, budget: int) -> Row:
    """All of a check in one row: for each ranking, test and number of random layers the values of
    the canvases."""
    groups = grouped(((a.ranking, a.test, a.randomised), a) for a in check.agreements)
    return {
        "model": model,
        "method": method,
        "budget": budget,
        "layers": check.layers,
        "steps": check.steps,
        "chance": check.chance,
        "random_pixels": check.random_pixels,
        "no_pattern": check.no_pattern,
        "maps": [
            dict(zip(OF_GROUP, key))
            | {name: [rounded(getattr(a, name)) for a in group] for name in OF_CANVAS}
            for key, group in groups.items()
        ],
        "failures": [{"at": f.model, "reason": f.reason} for f in check.failures],
    }


def rounded(value: float) -> float:
    return value if isinstance(value, int) else round(value, 5)


def checks(rows: Sequence[Row]) -> dict[str, SanityCheck]:
    """The check of each model, with all methods."""
    found: dict[str, SanityCheck] = {}
    for row in rows:
        model, method = row["model"], row["method"]
        if model not in found:
            controls = ("random_pixels", "no_pattern")
            found[model] = SanityCheck(
                *([tuple(layer) for layer in row["layers"]], row["steps"], [], [], row["chance"]),
                **{name: {int(y): value for y, value in row[name].items()} for name in controls},
            )
        for group in row["maps"]:
            shared = {name: group[name] for name in OF_GROUP}
            for canvas, values in enumerate(zip(*(group[name] for name in OF_CANVAS))):
                own = dict(zip(OF_CANVAS, values))
                found[model].agreements.append(
                    Agreement(method=method, canvas=canvas, **shared, **own)
                )
        for failure in row["failures"]:
            found[model].failures.append(Failure(failure["at"], method, "maps", failure["reason"]))
    return found


def rows_with(path: Path, budget: int) -> list[Row]:
    """The rows of a file with this budget; none if there is no file."""
    return [row for row in read_rows(path) if row["budget"] == budget]


def measure(found: Sequence[Case], out: Path, names: Sequence[str], budget: int) -> None:
    """Appends the rows of the methods that the file lacks."""
    done = {(row["model"], row["method"]) for row in rows_with(out, budget)}
    for case in found:
        model = case.problem.name
        missing = [name for name in names if (model, name) not in done]
        canvases = case.canvases() if missing else torch.empty(0)
        for name in missing:
            print(f"checking {name} on {model}", flush=True)
            row = row_of(check_of(case, canvases, name, budget), model, name, budget)
            append_rows(out, [row])


# ---- tables


def tables(found: Mapping[str, SanityCheck]) -> Iterator[Table]:
    """A table for each model and test."""
    for model, check in found.items():
        test = "layers" if check.layers else "labels"
        yield f"{model}: {test}", table(check, test)


def table(check: SanityCheck, test: str) -> Iterator[str]:
    """A row for each method, the one that changes least first."""
    verdicts, orders = (
        {(v["method"], v["ranking"]): v for v in check.verdicts(measure) if v["test"] == test}
        for measure in ("iou", "correlation")
    )
    methods = [method for method, ranking in verdicts if ranking == "signed"]
    methods.sort(key=lambda method: -verdicts[method, "signed"]["after"])
    rows = check.rows()
    shown = steps_shown(check) if test == "layers" else []
    after = "all" if test == "layers" else "other labels"
    yield head(
        "method", "between seeds", *(name for name, _ in shown), f"{after} (95 %)", "verdict",
        "absolute: verdict", "order: signed", "absolute", "power", "power after",
        "above random pixels",
    )  # fmt: skip
    for method in methods:
        signed = verdicts[method, "signed"]
        absolute = verdicts.get((method, "absolute"))
        yield line(
            method,
            f"{signed['between_seeds']:.2f}",
            *(f"{iou_at(rows, method, count):.2f}" for _, count in shown),
            with_interval(signed, "after", ".2f"),
            signed["verdict"],
            f"{absolute['after']:.2f}: {absolute['verdict']}" if absolute else "",
            *(order(orders, method, ranking) for ranking in ("signed", "absolute")),
            f"{signed['power']:.1%}",
            f"{signed['power_after']:.1%}",
            points(signed),
        )
    yield f"\n{controls(check)}"
    for failure in check.failures:
        yield f"\n{failure.method} fails ({failure.model}): {failure.reason}"


def order(orders: Mapping[Any, Row], method: str, ranking: str) -> str:
    """The rank correlation after, with all layers random or other labels."""
    row = orders.get((method, ranking))
    return f"{row['after']:.2f}" if row else ""


def steps_shown(check: SanityCheck) -> list[tuple[str, int]]:
    """The first step, and the one that is closest to half of the layers."""
    half = min(check.steps[1:], key=lambda count: abs(count - len(check.layers) / 2))
    return [("last layer", check.steps[1]), (f"{half} of {len(check.layers)} layers", half)]


def iou_at(rows: Sequence[Row], method: str, count: int) -> float:
    """The mean IoU of a method's signed maps when this many layers are random."""
    wanted = {"method": method, "ranking": "signed", "test": "layers", "layers": count}
    found = (row for row in rows if all(row.get(key) == value for key, value in wanted.items()))
    return float(next((row["iou"] for row in found), float("nan")))


def with_interval(row: Row, name: str, form: str, scale: float = 1) -> str:
    """A mean with its interval, if it has one."""
    ends = [row[f"{name}{end}"] for end in ("", "_low", "_high")]
    value, *interval = (f"{scale * end:{form}}" for end in ends if end is not None)
    return f"{value} ({' to '.join(interval)})" if interval else value


def points(row: Row) -> str:
    """How many points of power the pixels have above random ones; a star if the interval is."""
    star = "*" if (row["power_above_random_low"] or 0) > 0 else ""
    return with_interval(row, "power_above_random", ".1f", 100) + star


def controls(check: SanityCheck) -> str:
    """What the numbers are compared with."""
    row = check.rows()[0]
    return (
        f"Random masks have an IoU of {check.chance:.3f}; random pixels a power of "
        f"{row['random_pixels']:.1%}, no pattern {row['no_pattern']:.1%}."
    )


def main(arguments: Sequence[str] | None = None) -> None:
    parser = parser_of(__doc__)
    parser.add_argument("--cifar10", type=Path, help="folder with test/<class>/; else the demo")
    parser.add_argument("--out", type=Path, default=Path("sanity.jsonl"))
    parser.add_argument("--rows", type=Path, help="only print the tables of this file")
    parser.add_argument("--figure", type=Path, help="file of the first model's curves")
    parser.add_argument("--methods", nargs="+", help="names of known_methods")
    parser.add_argument("--budget", type=int, default=BUDGET, help="passes of a search")
    given = parser.parse_args(arguments)
    if not given.rows:
        names = given.methods or [IMAGE, *(name for name in NAMES if name not in LEFT_OUT)]
        measure(cases(given.cifar10), given.out, names, given.budget)
    found = checks(rows_with(given.rows or given.out, given.budget))
    print_tables(tables(found))
    if given.figure:
        first = next(iter(found.values()))
        shown = sorted(first.agreements, key=lambda a: [*SHOWN, a.method].index(a.method))
        shown = [a for a in shown if a.method in SHOWN] or first.agreements
        figure, _ = replace(first, agreements=shown).plot(use_pyplot=False)
        figure.savefig(given.figure, dpi=150)


if __name__ == "__main__":
    main()
