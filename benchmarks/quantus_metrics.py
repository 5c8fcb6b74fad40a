"""Metrics of Quantus for class patterns, Integrated Gradients and random pixels.

    pip install -e '.[quantus]'
    python benchmarks/quantus_metrics.py --out quantus.jsonl

explains one canvas per class of the demo's natural model and prints the tables of
docs/other_methods.md. Each finished metric is appended to the file, so that the same command
continues after an interruption, and the tables of a finished file are printed at once:

    python benchmarks/quantus_metrics.py --rows benchmarks/results/quantus.jsonl
"""

from collections.abc import Callable, Iterator, Sequence
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import torch
from captum.attr import IntegratedGradients
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
from problems import Problem, demo_problems
from torch import Tensor, nn

from captum_classpattern import (
    ClassPattern,
    LabelledImages,
    Pattern,
    predictive_power,
    select_canvases,
)
from captum_classpattern.comparison import RandomPixels
from captum_classpattern.pattern import pixels_kept

IMAGES = 300  # held-out images of the predictive power, at most
AREA, NOISY = 0.05, 5  # noisy copies of a canvas
METRICS = {  # in the order of the table, with the better direction and the possible values
    "predictive power": ("higher", "0 to 1"),
    "PixelFlipping": ("lower", "0 to 1"),
    "Sparseness": ("higher", "0 to 1"),
    "RandomLogit": ("lower", "-1 to 1"),
    "MPRT": ("lower", "-1 to 1"),
    "MaxSensitivity": ("lower", "from 0"),
}
COMPARING = ("RandomLogit", "MPRT", "MaxSensitivity")  # these compare the maps of two calls
METHODS = ("ClassPattern", "IntegratedGradients", "random pixels")
REFERENCES = ("two seeds", "two random masks")

Method = Callable[[nn.Module, Tensor, list[int]], Tensor]


def methods_of(images: LabelledImages, n_steps: int | None) -> dict[str, Method]:
    """The map of each canvas, by each method."""

    def class_pattern(model: nn.Module, inputs: Tensor, targets: list[int]) -> Tensor:
        return ClassPattern(model, images).attribute(inputs, targets, area=AREA, n_steps=n_steps)

    def integrated_gradients(model: nn.Module, inputs: Tensor, targets: list[int]) -> Tensor:
        return IntegratedGradients(model).attribute(inputs, target=targets).detach()

    def random_pixels(model: nn.Module, inputs: Tensor, targets: list[int]) -> Tensor:
        return RandomPixels(model).attribute(inputs)

    return dict(zip(METHODS, (class_pattern, integrated_gradients, random_pixels)))


def pairs_of(
    problem: Problem, canvases: Tensor, classes: list[int], n_steps: int | None
) -> dict[str, tuple[Tensor, Tensor]]:
    """What a metric that compares two maps is read against: two searches that differ by their seed
    alone, and two random masks."""
    explainer = ClassPattern(problem.model, problem.images, problem.labels)
    searched = [
        explainer.attribute(canvases, classes, area=AREA, n_steps=n_steps, seed=seed)
        for seed in (0, 1)
    ]
    kept = pixels_kept(AREA, canvases.shape[-2:])
    ranks = torch.rand((2, *canvases.shape), generator=torch.Generator().manual_seed(0))
    random = (ranks >= ranks.flatten(2).topk(kept).values[..., -1:, None, None]).float()
    return dict(zip(REFERENCES, (tuple(searched), tuple(random))))


def for_quantus(method: Method) -> Callable[..., Any]:
    """A method as Quantus calls it: with arrays, and with arguments that we have no use for."""

    def explain(model: nn.Module, inputs: Any, targets: Any, **_: Any) -> Any:
        images = torch.as_tensor(inputs, dtype=torch.float32)
        return method(model, images, targets.tolist()).numpy()

    return explain


def quantus_metrics(n_classes: int) -> dict[str, Any]:
    """Each metric with the settings of the table."""
    import quantus  # an extra

    quiet = {"disable_warnings": True}
    return {
        "PixelFlipping": quantus.PixelFlipping(features_in_step=28, **quiet),
        "Sparseness": quantus.Sparseness(**quiet),
        "RandomLogit": quantus.RandomLogit(num_classes=n_classes, **quiet),
        "MPRT": quantus.MPRT(skip_layers=True, return_last_correlation=True, **quiet),
        "MaxSensitivity": quantus.MaxSensitivity(nr_samples=NOISY, lower_bound=0.02, **quiet),
    }


def powers(problem: Problem, method: Method, canvases: Tensor, classes: list[int]) -> list[float]:
    """The predictive power of the pixels that a map ranks highest."""
    held_out = LabelledImages(problem.held_out, problem.held_out_labels).stratified_sample(IMAGES)
    found, seen = [], frozenset(LabelledImages(problem.images).hashes)
    for canvas, ranks, y in zip(canvases, method(problem.model, canvases, classes), classes):
        low, high = ranks.aminmax()
        mask = ((ranks - low) / (high - low).clamp(min=1e-12)).mean(0, keepdim=True)
        pattern = Pattern(canvas, mask.clamp(0, 1), y, seen=seen)
        found.append(predictive_power(problem.model, pattern, held_out, area=AREA).value)
    return found


def values_of(
    problem: Problem, metric: str, method: Method, canvases: Tensor, classes: list[int]
) -> list[float]:
    """The value of each canvas."""
    if metric == "predictive power":
        return powers(problem, method, canvases, classes)
    return by_quantus(problem, metric, canvases, classes, for_quantus(method))


def by_quantus(
    problem: Problem,
    metric: str,
    canvases: Tensor,
    classes: list[int],
    explain: Callable[..., Any],
    maps: Any = None,
) -> list[float]:
    """A metric's value for each canvas; of a curve, the mean. The maps are those of ``explain``
    unless they are given."""
    np.random.seed(0)  # Quantus draws its noise from there
    measured = quantus_metrics(len(classes))[metric](
        model=problem.model,
        x_batch=canvases.numpy(),
        y_batch=np.array(classes),
        a_batch=maps,
        explain_func=explain,
        softmax=metric == "PixelFlipping",
    )
    return [float(np.mean(value)) for value in measured]


def measure(problem: Problem, out: Path, n_steps: int | None) -> None:
    """Appends the rows that the file lacks."""
    classes = sorted(set(problem.labels.tolist()))
    images = LabelledImages(problem.images, problem.labels)
    canvases = torch.cat([select_canvases(problem.model, images, target=y, n=1) for y in classes])
    done = {(row["metric"], row["method"]) for row in read_rows(out)}

    def write(metric: str, name: str, values: list[float]) -> None:
        row = {"metric": metric, "method": name, "classes": classes, "values": values}
        append_rows(out, [row])
        print(f"{metric} of {name}", flush=True)

    for metric, (name, method) in product(METRICS, methods_of(images, n_steps).items()):
        if (metric, name) not in done:
            write(metric, name, values_of(problem, metric, method, canvases, classes))
    if all(pair in done for pair in product(COMPARING, REFERENCES)):
        return
    pairs = pairs_of(problem, canvases, classes, n_steps)
    for metric, (name, (one, other)) in product(COMPARING, pairs.items()):
        if (metric, name) not in done:

            def explain(other: Tensor = other, **_: Any) -> Any:
                return other.numpy()

            found = by_quantus(problem, metric, canvases, classes, explain, one.numpy())
            write(metric, name, found)


def tables(rows: Sequence[Row]) -> Iterator[Table]:
    """The means over classes, with their intervals."""
    yield "Metrics", of_methods(rows)
    yield "Next to two searches and two random masks", of_references(rows)


def of_methods(rows: Sequence[Row]) -> Iterator[str]:
    by_name = {(row["metric"], row["method"]): row for row in rows}
    yield head("metric", "values", "better", *METHODS)
    for metric, (better, values) in METRICS.items():
        yield line(metric, values, better, *(mean(by_name[metric, name]) for name in METHODS))


def of_references(rows: Sequence[Row]) -> Iterator[str]:
    """The metrics that compare two maps, next to the pairs of maps that they are read against."""
    by_name = {(row["metric"], row["method"]): row for row in rows}
    columns = ("ClassPattern", *REFERENCES)
    yield head("metric", *columns)
    for metric in COMPARING:
        yield line(metric, *(mean(by_name[metric, name]) for name in columns))


def mean(row: Row) -> str:
    """The mean over classes with its interval."""
    return format_values({y: [v] for y, v in zip(row["classes"], row["values"])}, ".2f")


def main(arguments: Sequence[str] | None = None) -> None:
    parser = parser_of(__doc__)
    parser.add_argument("--out", type=Path, default=Path("quantus.jsonl"))
    parser.add_argument("--rows", type=Path, help="print the tables of these rows, measure nothing")
    parser.add_argument("--steps", type=int, help="rounds of a search; by default, the solver's")
    given = parser.parse_args(arguments)
    if given.rows is None:
        [problem] = [each for each in demo_problems() if each.name == "demo, natural"]
        measure(problem, given.out, given.steps)
    print_tables(tables(read_rows(given.rows or given.out)))


if __name__ == "__main__":
    main()
