"""Metrics of Quantus for class patterns, Integrated Gradients and random pixels: one canvas per
class of the demo's natural model. Needs ``pip install -e '.[quantus]'``."""

from collections.abc import Callable, Iterator, Sequence
from itertools import product
from typing import Any

import numpy as np
import torch
from captum.attr import IntegratedGradients
from findings import (
    Row,
    Table,
    format_values,
    head,
    line,
    measured_here,
    parser_of_rows,
    report,
    write_rows,
)
from problems import Problem, demo_problems
from torch import Tensor, nn

from captum_classpattern import (
    ClassPattern,
    LabelledImages,
    Pattern,
    predictive_power,
)
from captum_classpattern._support.topk import pixels_kept
from captum_classpattern.comparison import RandomPixels

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


def methods_of(images: LabelledImages) -> dict[str, Method]:
    """The map of each canvas, by each method."""
    return {
        "ClassPattern": lambda model, inputs, targets: ClassPattern(model, images).attribute(
            inputs, targets, area=AREA
        ),
        "IntegratedGradients": lambda model, inputs, targets: (
            IntegratedGradients(model).attribute(inputs, target=targets).detach()
        ),
        "random pixels": lambda model, inputs, targets: RandomPixels(model).attribute(inputs),
    }


def pairs_of(problem: Problem, canvases: Tensor, classes: list[int]) -> dict[str, list[Tensor]]:
    """What a metric that compares two maps is read against: two searches that differ by their seed
    alone, and two random masks."""
    explainer = ClassPattern(problem.model, problem.images, problem.labels)
    searched = [explainer.attribute(canvases, classes, area=AREA, seed=seed) for seed in (0, 1)]
    kept = pixels_kept(AREA, canvases.shape[-2:])
    ranks = torch.rand((2, *canvases.shape), generator=torch.Generator().manual_seed(0))
    random = (ranks >= ranks.flatten(2).topk(kept).values[..., -1:, None, None]).float()
    return dict(zip(REFERENCES, (searched, [*random])))


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
    search, held_out = problem.parts
    held_out, found, seen = held_out.stratified_sample(IMAGES), [], frozenset(search.hashes)
    for canvas, ranks, y in zip(canvases, method(problem.model, canvases, classes), classes):
        low, high = ranks.aminmax()
        mask = ((ranks - low) / (high - low).clamp(min=1e-12)).mean(0, keepdim=True)
        pattern = Pattern(canvas, mask.clamp(0, 1), y, seen=seen)
        found.append(predictive_power(problem.model, pattern, held_out, area=AREA).value)
    return found


def by_quantus(
    problem: Problem,
    metric: str,
    canvases: Tensor,
    classes: list[int],
    method: Method,
    maps: Any = None,
) -> list[float]:
    """A metric's value for each canvas; of a curve, the mean. The maps are those of the method
    unless they are given."""

    def explain(model: nn.Module, inputs: Any, targets: Any, **_: Any) -> Any:
        images = torch.as_tensor(inputs, dtype=torch.float32)
        return method(model, images, targets.tolist()).numpy()

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


def measured(problem: Problem) -> Iterator[Row]:
    """A row of each metric and method, or pair of maps."""
    classes = problem.classes
    given = problem.canvases(), classes
    for metric, (name, method) in product(METRICS, methods_of(problem.parts[0]).items()):
        if metric == "predictive power":
            values = powers(problem, method, *given)
        else:
            values = by_quantus(problem, metric, *given, method)
        yield {"metric": metric, "method": name, "classes": classes, "values": values}
    for metric, (name, pair) in product(COMPARING, pairs_of(problem, *given).items()):
        values = by_quantus(problem, metric, *given, lambda *_, b=pair[1]: b, pair[0].numpy())
        yield {"metric": metric, "method": name, "classes": classes, "values": values}


def tables(rows: Sequence[Row]) -> Iterator[Table]:
    """The means over classes, with their intervals; and the metrics that compare two maps, next to
    the pairs of maps that they are read against."""
    means = {
        (row["metric"], row["method"]): format_values(
            {y: [value] for y, value in zip(row["classes"], row["values"])}, ".2f"
        )
        for row in rows
    }
    every = (
        line(metric, *about[::-1], *(means[metric, name] for name in METHODS))
        for metric, about in METRICS.items()
    )
    yield "Metrics", [head("metric", "values", "better", *METHODS), *every]
    columns = ("ClassPattern", *REFERENCES)
    compared = (line(metric, *(means[metric, name] for name in columns)) for metric in COMPARING)
    yield "Next to two searches and two random masks", [head("metric", *columns), *compared]


def main(arguments: Sequence[str] | None = None) -> None:
    given = parser_of_rows(__doc__, "quantus").parse_args(arguments)
    if given.rows is None:
        write_rows(given.out, measured_here(measured(demo_problems()[0])))
    report(given, tables)


if __name__ == "__main__":
    main()
