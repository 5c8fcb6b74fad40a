"""Do the maps depend on the model? The sanity checks of Adebayo et al. (2018, arXiv 1810.03292).

It randomises the demo's natural model layer by layer, from the output to the input, and compares
the CIFAR-10 model ``true_labels`` with ``random_labels``, which has memorised permuted labels. Each
map is compared with that of the original model and another seed. It resumes after an interruption.
"""

import copy
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

import torch
from captum.attr import Attribution
from checking import checked
from cifar10 import InBfloat16
from findings import (
    Row,
    Table,
    append_rows,
    having,
    head,
    iou_by_chance,
    line,
    parser_of_rows,
    read_rows,
    report,
)
from matplotlib.figure import Figure
from problems import Problem, cifar10_problems, demo_problems, train_cifar10
from scipy.stats import rankdata
from torch import Tensor, nn

from captum_classpattern import Pattern, known_methods
from captum_classpattern._support.topk import pixels_kept
from captum_classpattern.classifier import enter_model
from captum_classpattern.comparison.maps import bind, top_pixels
from captum_classpattern.comparison.methods import METHOD_NAMES, Method
from captum_classpattern.scores import mean_pairwise_iou
from captum_classpattern.scores.intervals import bootstrap_over_classes
from captum_classpattern.scores.power import Scorer, random_pixels
from captum_classpattern.visualization.style import CONTROL, HIGHLIGHTS

# the first two ablate the same cells as Lime; the last explains no canvas
LEFT_OUT = ("FeatureAblation", "ShapleyValueSampling", "LearnedPattern")
AREA, IMAGES, STEPS, SEEDS = 0.05, 200, 6, (0, 1)  # of the original maps, and of all others
DRAWS = 3  # of random pixels
BUDGET = 1_000  # passes per canvas of a search
OTHER = "random_labels"
SHOWN = (  # in the figure
    *("ClassPattern", "IntegratedGradients", "InputXGradient", "DeepLift", "Saliency"),
    *("GuidedBackprop", "GuidedGradCam", "Occlusion", "Lime", "the image itself"),
)
IMAGE = "the image itself"  # a control that knows the canvas but not the model
ByClass = Mapping[int, float]


class Image(Attribution):
    """The map is the canvas: its brightest pixels come first."""

    def attribute(self, inputs: Tensor, target: Any = None) -> Tensor:
        return inputs.clone()


# ---- random layers


def layers_from_top(model: nn.Module, sample: Tensor) -> list[str]:
    """The modules with parameters or running statistics of their own, from the output to the input,
    as a forward pass first calls them."""
    called: list[str] = []
    hooks = [
        part.register_forward_pre_hook(lambda part, inputs, name=name: called.append(name))
        for name, part in model.named_modules()
        if [*part.parameters(recurse=False)] or hasattr(part, "reset_running_stats")
    ]
    with torch.no_grad():
        model(sample)
    for hook in hooks:
        hook.remove()
    return list(dict.fromkeys(called))[::-1]


def randomised(model: nn.Module, layers: Sequence[str], seed: int) -> nn.Module:
    """A copy whose layers, in this order, are as PyTorch initialises them; a batch norm loses its
    running statistics as well."""
    twin = copy.deepcopy(model).eval()
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        for name in layers:
            twin.get_submodule(name).reset_parameters()
    return twin


def steps_of(n_layers: int, n_steps: int) -> list[int]:
    """How many layers are random at each step: none, one, then evenly spaced up to all of them."""
    return [0, *(1 + round(i * (n_layers - 1) / (n_steps - 1)) for i in range(n_steps))]


# ---- measuring


def rank_correlation(first: Tensor, second: Tensor) -> float:
    """Spearman's; equal values share the mean of their ranks. 0 if a map is constant, since it has
    no order."""
    ranks = [torch.from_numpy(rankdata(each.flatten())) for each in (first, second)]
    a, b = (each - each.mean() for each in ranks)
    lengths = float(a.norm() * b.norm())
    return 1.0 if first.equal(second) else float(a @ b) / lengths if lengths else 0.0


def groups_of(
    first: Tensor,
    maps: Tensor,
    problem: Problem,
    canvases: Tensor,
    scorer: Scorer,
) -> Iterator[dict[str, Any]]:
    """How maps agree with the original ones, and the power of their pixels, canvas by canvas; also
    ranked by absolute value, if an original one has negative values."""
    rankings = {"signed": (first, maps), "absolute": (first.abs(), maps.abs())}
    for ranking in ("signed", "absolute")[: 1 + bool((first < 0).any())]:
        orders = [*zip(*rankings[ranking])]
        masks = [[top_pixels(each, AREA) for each in pair] for pair in orders]
        patterns = [
            Pattern(canvas, mask.to(canvas), y)
            for canvas, (_, mask), y in zip(canvases, masks, problem.classes)
        ]
        values = {
            "iou": [mean_pairwise_iou(pair) for pair in masks],
            "correlation": [rank_correlation(*pair) for pair in orders],
            "power": [scorer.power(pattern).value for pattern in patterns],
        }
        rounded = {name: [round(v, 5) for v in found] for name, found in values.items()}
        yield {"ranking": ranking, "target": problem.classes, **rounded}


def maps_of(
    method: Method, model: Any, canvases: Tensor, classes: Sequence[int], seed: int
) -> Tensor:
    """A method's maps of canvases (N, H, W)."""
    with enter_model(model, canvases, seed) as checked:
        return bind(method, checked)(canvases, classes, area=AREA, seed=seed).maps


def row_of(problem: Problem, other: nn.Module | None, canvases: Tensor, name: str) -> Row:
    """All of a method on one model, in one row: compared with a second model with other labels, or
    with itself with random layers, in steps."""
    classes = problem.classes
    search, held_out = problem.parts
    scorer = Scorer(checked(problem.model, canvases), held_out.stratified_sample(IMAGES))
    method = Image if name == IMAGE else known_methods(search, names=name, budget=BUDGET)[name]
    layers = [] if other is not None else layers_from_top(problem.model, canvases[:1])
    steps = steps_of(len(layers), STEPS) if other is None else [0]
    tests = [("layers", n) for n in steps] + [("labels", 0)] * (other is not None)
    maps: list[dict[str, Any]] = []
    failures, at = [], "original"
    try:
        first = maps_of(method, problem.model, canvases, classes, SEEDS[0])
        for test, count in tests:
            at = f"{count} of {len(layers)} layers" if test == "layers" else "other model"
            model = randomised(problem.model, layers[:count], SEEDS[1])
            model = other if test == "labels" else model
            found = maps_of(method, model, canvases, classes, SEEDS[1])
            for group in groups_of(first, found, problem, canvases, scorer):
                maps.append({"test": test, "randomised": count, **group})
    except Exception as error:
        failures = [{"at": at, "reason": f"{type(error).__name__}: {error}"}]
    at_random, bare = {}, {}
    for canvas, y in zip(canvases, classes):
        whole = Pattern(canvas, torch.ones_like(canvas[:1]), y)
        powers = [scorer.power(random_pixels(whole, AREA, seed)) for seed in range(DRAWS)]
        at_random[y], bare[y] = [fmean(power.value for power in powers)], powers[0].without
    return {
        "model": problem.name,
        "method": name,
        "budget": BUDGET,
        "layers": layers,
        "steps": steps,
        "chance": iou_by_chance(pixels_kept(AREA, canvases.shape[-2:]), canvases[0, 0].numel()),
        "random_pixels": at_random,
        "no_pattern": bare,
        "maps": maps,
        "failures": failures,
    }


def measure(problem: Problem, other: nn.Module | None, out: Path) -> None:
    """Appends the rows of the methods that the file lacks."""
    done = {row["method"] for row in having(read_rows(out), model=problem.name)}
    canvases = problem.canvases()
    for name in (IMAGE, *METHOD_NAMES):
        if name not in (*LEFT_OUT, *done):
            print(f"checking {name} on {problem.name}", flush=True)
            append_rows(out, [row_of(problem, other, canvases, name)])


# ---- verdicts


def verdict_of(before: ByClass, after: ByClass, chance: float) -> str:
    """What a change of the model does, by the agreement between seeds, the agreement after the
    change, and that of chance, each by its 95 % interval over classes."""
    lost = {y: before[y] - after[y] for y in after}
    above_half = {y: after[y] - (before[y] + chance) / 2 for y in after}
    rules = {
        "random": interval(before)[0] <= chance,
        "no change": interval(lost)[0] <= 0,
        "most stays": interval(above_half)[0] > 0,
        "part stays": interval(after)[0] > chance,
        "gone": True,
    }
    return next(verdict for verdict, holds in rules.items() if holds)


def interval(values: ByClass) -> tuple[float, float]:
    return bootstrap_over_classes({y: [value] for y, value in values.items()}).interval


def with_interval(values: ByClass, form: str, scale: float = 1) -> str:
    """The mean over classes with its interval."""
    mean, low, high = (scale * each for each in (fmean(values.values()), *interval(values)))
    return f"{mean:{form}} ({low:{form}} to {high:{form}})"


def by_class(row: Row, name: str, *where: Any) -> ByClass:
    """The values of a row's canvases for a ranking, a test and a number of random layers."""
    key = "ranking", "test", "randomised"
    [group] = [group for group in row["maps"] if tuple(group[k] for k in key) == where]
    return dict(zip(group["target"], group[name]))


# ---- tables and figure


def tables(rows: Sequence[Row]) -> Iterator[Table]:
    """A table for each model and its test."""
    for model in dict.fromkeys(row["model"] for row in rows):
        of_model = having(rows, model=model)
        test = "layers" if of_model[0]["layers"] else "labels"
        yield f"{model}: {test}", table(of_model, test)


def table(rows: Sequence[Row], test: str) -> Iterator[str]:
    """A row for each method, the one that changes least first."""
    first = rows[0]
    steps, chance, n_layers = first["steps"], first["chance"], len(first["layers"])
    at_random = {int(y): fmean(powers) for y, powers in first["random_pixels"].items()}
    half = min(steps, key=lambda count: abs(count - n_layers / 2))
    shown = {"last layer": 1, f"{half} of {n_layers} layers": half} if test == "layers" else {}
    after = "all" if test == "layers" else "other labels"
    yield head(
        "method", "between seeds", *shown, f"{after} (95 %)", "verdict", "absolute: verdict",
        "order: signed", "absolute", "power", "power after", "above random pixels",
    )  # fmt: skip
    lines = []
    for row in (row for row in rows if not row["failures"]):
        seeds, last = ("layers", 0), (test, steps[-1])
        found = {
            (ranking, name): [by_class(row, name, ranking, *at) for at in (seeds, last)]
            for ranking in dict.fromkeys(group["ranking"] for group in row["maps"])
            for name in ("iou", "correlation", "power")
        }
        agreed, powers = found["signed", "iou"], found["signed", "power"]
        absolute = found.get(("absolute", "iou"))
        above = {y: power - at_random[y] for y, power in powers[1].items()}
        cells = line(
            row["method"],
            mean(agreed[0]),
            *(mean(by_class(row, "iou", "signed", "layers", count)) for count in shown.values()),
            with_interval(agreed[1], ".2f"),
            verdict_of(*agreed, chance),
            f"{mean(absolute[1])}: {verdict_of(*absolute, chance)}" if absolute else "",
            mean(found["signed", "correlation"][1]),
            mean(found["absolute", "correlation"][1]) if absolute else "",
            *(f"{fmean(each.values()):.1%}" for each in powers),
            with_interval(above, ".1f", 100) + "*" * (interval(above)[0] > 0),
        )
        lines.append((-fmean(agreed[1].values()), cells))
    yield from (cells for _, cells in sorted(lines, key=lambda each: each[0]))
    yield (
        f"\nRandom masks have an IoU of {chance:.3f}; random pixels a power of "
        f"{fmean(at_random.values()):.1%}, no pattern {fmean(first['no_pattern'].values()):.1%}."
    )
    for row in rows:
        for failure in row["failures"]:
            yield f"\n{row['method']} fails ({failure['at']}): {failure['reason']}"


def mean(values: ByClass) -> str:
    return f"{fmean(values.values()):.2f}"


def picture(rows: Sequence[Row]) -> Figure:
    """A panel for each method: agreement with the original maps over the share of random layers of
    the first model."""
    shown = [having(rows, model=rows[0]["model"], method=name)[0] for name in SHOWN]
    figure = Figure((9.5, 7), layout="constrained")
    panels = figure.subplots(3, 4, sharex=True, sharey=True)
    for axis in panels.flat[len(shown) :]:
        axis.remove()
    for axis, row in zip(panels.flat, shown):
        x = [count / len(row["layers"]) for count in row["steps"]]
        for name, label, color in (
            ("iou", "IoU of the highest pixels", HIGHLIGHTS[0]),
            ("correlation", "rank correlation", HIGHLIGHTS[2]),
        ):
            at = [by_class(row, name, "signed", "layers", count) for count in row["steps"]]
            axis.plot(
                x, [fmean(v.values()) for v in at], color=color, marker="o", ms=4, label=label
            )
            axis.fill_between(x, *zip(*map(interval, at)), color=color, alpha=0.18, linewidth=0)
        axis.axhline(row["chance"], color=CONTROL, ls=(0, (5, 2)), label="IoU of random masks")
        axis.set_title(row["method"], fontsize=11, fontweight="bold")
        axis.set(ylim=(-0.32, 1.05), xticks=[0, 0.5, 1], xticklabels=["0", "50 %", "100 %"])
        axis.set(xlabel="random layers", ylabel="agreement")
        axis.label_outer()
        axis.spines[["top", "right"]].set_visible(False)
    lines, names = figure.axes[0].get_legend_handles_labels()
    figure.legend(lines, names, loc="outside lower center", ncols=3, frameon=False)
    return figure


def main(arguments: Sequence[str] | None = None) -> None:
    parser = parser_of_rows(__doc__, "sanity")
    parser.add_argument("--cifar10", type=Path, help="folder with test/<class>/; else the demo")
    given = parser.parse_args(arguments)
    if not given.rows:
        measure(demo_problems()[0], None, given.out)
        if given.cifar10:
            [true] = cifar10_problems(given.cifar10, ["true_labels"])
            other = InBfloat16(train_cifar10.load_model(OTHER)).eval()
            measure(true._replace(model=InBfloat16(true.model).eval()), other, given.out)
    report(given, tables, picture)


if __name__ == "__main__":
    main()
