"""What is measured on maps, besides predictive power: to add a metric, add it to METRICS."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from math import isfinite
from typing import Any, TypeAlias

from torch import Tensor

from captum_classpattern._support.files import reason_of
from captum_classpattern._support.validation import ArgumentTypeError
from captum_classpattern.classifier import Classifier
from captum_classpattern.comparison.maps import BoundMethod, Task
from captum_classpattern.comparison.records import FIRST_COLUMNS, Failure, Record, Score
from captum_classpattern.scores.power import PredictivePower
from captum_classpattern.scores.shape import components, high_frequency_share, total_variation

Measure: TypeAlias = Callable[[Classifier, Record, Task], Any]

RESERVED = (  # columns that no metric may be named after
    *FIRST_COLUMNS, "canvas", "canvases", "class", "precision", "failure", "no_pattern", "name",
    "role",
)  # fmt: skip


@dataclass(frozen=True)
class Metric:
    r"""
    A score of a method's map or pattern, with all that tables and reports need to show it.

    Args:
        name (str): Its key in ``Record.scores``, and its column in tables and JSON.
        measure (Callable): A function of (classifier, result, task). The classifier is a private
            copy of the model. The :class:`Record` has ``map``, ``mask``, ``pattern`` and
            ``target``. The :class:`Task` has the canvases, seeds and the trigger. Change none of
            them in place. The function returns a number, a :class:`PredictivePower`, or None if the
            metric does not apply. Random generators are seeded for each call.
        title (str): Title of the column in reports.
        unit (str): Such as ``"pixels"``. Default: "".
        better (str, optional): ``"higher"`` or ``"lower"``. Default: None (neither).
        description (str): What it measures, for readers of the report. Default: "".

    Raises:
        ValueError: If ``better`` is something else.

    Examples::

        >>> def kept(classifier, result, task):
        ...     return result.mask.sum()
        >>> metric = Metric("kept", kept, "pixels kept", better="lower")
        >>> net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 3)).eval()
        >>> images, labels = torch.rand(60, 1, 8, 8), torch.arange(60) % 3
        >>> comparison = compare(
        ...     {"linear": net}, images[:1], 0, metrics=[*METRICS, metric], area=0.25,
        ...     search=(images[:30], labels[:30]), held_out=(images[30:], labels[30:]),
        ...     methods={"Saliency": captum.attr.Saliency})
        >>> comparison.records[0].scores["kept"]
        16.0
    """

    name: str
    measure: Measure
    title: str
    unit: str = ""
    better: str | None = None
    description: str = ""

    def __post_init__(self) -> None:
        if self.better not in (None, "higher", "lower"):
            raise ValueError(f"`better` must be 'higher', 'lower' or None, got {self.better!r}")

    @property
    def heading(self) -> str:
        """The title with the unit."""
        return f"{self.title} ({self.unit})" if self.unit else self.title

    @property
    def note(self) -> str:
        """The description and the good direction."""
        parts = [self.description, f"{self.better} is better" if self.better else ""]
        return "; ".join(part for part in parts if part)


# ---- the metrics


def built_in(
    classifier: Classifier,
    result: Record,
    task: Task,
    *,
    name: str,
    score: Callable[[Tensor], float] | None,
) -> Score | None:
    """A score of the mask (H, W), or what the runs of the method say: its cost, its stability, how
    well it finds the trigger."""
    return result.scores.get(name) if score is None else score(result.mask[0].double())


#: The built-in metrics, in the order of their columns.
METRICS = tuple(
    Metric(name, partial(built_in, name=name, score=score), *described)
    for name, score, *described in (
        ("iou", None, "IoU", "", "higher",
         "overlap of the trigger with the same number of the map's strongest pixels"),
        ("average_precision", None, "average precision", "", "higher",
         "area under the curve of precision over recall"),
        ("pointing_game", None, "pointing game", "", "higher",
         "whether the strongest pixel is one of the trigger's"),
        ("relevance_mass", None, "relevance mass", "", "higher",
         "share of the positive values on the trigger"),
        ("relevance_rank", None, "relevance rank", "", "higher",
         "share of the trigger that is among the same number of strongest pixels"),
        ("total_variation", total_variation, "total variation", "", "lower",
         "length of the edges per pixel of the image"),
        ("high_frequency_share", high_frequency_share, "high-frequency share", "", "lower",
         "share of the spectral energy in fine detail"),
        ("components", components, "pieces", "", "lower",
         "number of pieces that do not touch"),
        ("stability_seeds", None, "IoU, other seed", "", "higher",
         "overlap of the masks that different seeds give"),
        ("passes", None, "passes", "", "lower",
         "images that went forward and backward, per canvas"),
        ("seconds", None, "time", "s", "lower", "computing time per canvas"),
    )
)  # fmt: skip


# ---- measuring


def check_metrics(metrics: Iterable[Metric]) -> list[Metric]:
    """The metrics as a list, or an error that says how to give them."""
    metrics = [metrics] if isinstance(metrics, Metric) else list(metrics)
    for metric in metrics:
        if not isinstance(metric, Metric):
            raise ArgumentTypeError(
                f"metrics must hold Metric objects, got {type(metric).__name__}: give "
                "[*METRICS, Metric(name, function, title)]"
            )
    names = [metric.name for metric in metrics]
    intervals = {f"{name}_{end}" for name in names for end in ("low", "high")}
    for number, name in enumerate(names):
        of_power = f"{name}_".startswith("power_")
        if name in names[:number] or name in RESERVED or name in intervals or of_power:
            raise ValueError(f"there is another column named {name!r}: rename this metric")
    return metrics


def measure_records(
    records: Sequence[Record], method: BoundMethod, task: Task, metrics: Sequence[Metric]
) -> tuple[list[Record], list[Failure]]:
    """The records with their powers and scores. A metric that fails becomes a failure, and does not
    stop the others."""
    scorer, failures = task.scorers[task.model], []
    private = replace(task, canvases=task.canvases.clone())  # metrics may change them
    powers = [
        {} if r.stamped else {a: scorer.power(r.pattern_at(a)) for a in r.masks} for r in records
    ]
    scores: list[dict[str, Score]] = [{} for _ in records]
    for metric in metrics:
        try:
            values = list[Score | None]()
            for record in records:
                own_map = replace(record, map=record.map.clone())
                with method.seeded(task.seed):
                    value = metric.measure(method.model, own_map, private)
                    plain = value is None or isinstance(value, PredictivePower)
                    values.append(value if plain else float(value))
        except Exception as error:
            reason = reason_of(error)
        else:
            measured = [value is not None for value in values].count(True)
            wrong = [value is None or isfinite(value) for value in values].count(False)
            reason = f"NaN or infinite for {wrong} of {measured} canvases" if wrong else ""
            for of_canvas, value in zip(scores, values):
                if value is not None and isfinite(value):
                    of_canvas[metric.name] = value
        if reason:
            failures.append(Failure(task.model, records[0].method, metric.title, reason))
    found = zip(records, powers, scores)
    return [replace(r, powers=of, scores=own) for r, of, own in found], failures
