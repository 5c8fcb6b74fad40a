"""``Sweep``: the surveys of many models in a folder, and their site."""

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from math import nan
from pathlib import Path
from statistics import fmean, median
from typing import Any

from captum_classpattern._support.files import reading
from captum_classpattern._support.formats import shortened
from captum_classpattern._support.validation import check_area, counted
from captum_classpattern.adapters.load import check_folders
from captum_classpattern.classifier.class_names import distinct_names, label_of
from captum_classpattern.results import Result, as_table, as_texts, fitting
from captum_classpattern.surveys.findings import Finding
from captum_classpattern.surveys.folder import REMEDY, RESULTS, Folder
from captum_classpattern.surveys.results import Survey
from captum_classpattern.surveys.sources import folder_of

SWEEP = "sweep.json"
MOST_MODELS = 50  # in the table of a notebook
TO_SCAN = (
    "A difference does not show a backdoor, and a backdoored model need not differ. To ask whether "
    "a model is backdoored, run classpattern scan on it."
)
sweep_folder = partial(Folder, kind="sweep", format="captum_classpattern sweep")


@dataclass(frozen=True, repr=False)
class Sweep(Result):
    r"""
    The surveys in a sweep's folder, finished or not, as they were when it was read: load it again
    for what a running sweep has added. A notebook and ``plot()`` show the power of each class
    (columns) in each model (rows) at the first area.

    Attributes:
        folder (Path): The folder.
        settings (Mapping): What the findings depend on.
        classes (list[int]): The classes that were searched or will be.
        rows (Mapping[str, Mapping]): The row of each model in the file, by its name.
        failures (Mapping[str, str]): The models that failed, and why.
        surveys (Mapping[str, Survey]): What was found, by model; nothing if it is damaged.
    """

    folder: Path
    settings: Mapping[str, Any]
    classes: list[int]
    rows: Mapping[str, Mapping[str, Any]]
    failures: Mapping[str, str]
    surveys: Mapping[str, Survey] = field(default_factory=dict)

    @classmethod
    def load(cls, folder: str | os.PathLike[str]) -> "Sweep":
        """Reads the surveys in a sweep's folder; an error if there is none. A model with a damaged
        file is among the failures. Patterns are read when they are used."""
        unread = read_sweep(Path(folder))
        surveys, failures = {}, dict(unread.failures)
        for name in unread.rows:
            place = unread.folder / folder_of(name)
            try:
                surveys[name] = Survey.load(place) if (place / RESULTS).exists() else Survey()
            except ValueError as error:
                failures.setdefault(name, str(error))
        return replace(unread, surveys=surveys, failures=failures)

    @property
    def models(self) -> list[str]:
        """The names of the models."""
        return [*self.rows]

    def __repr__(self) -> str:
        return f"Sweep({counted(len(self.models), 'model')}, {self._classes})"

    @property
    def _classes(self) -> str:
        failed = f", {len(self.failures):,} failed" * bool(self.failures)
        return f"{counted(len(self.classes), 'class', 'classes')}{failed}"

    def survey(self, model: str) -> Survey:
        """The survey of one model by its name; an empty one if nothing was found so far."""
        if model not in self.rows:
            raise ValueError(f"the sweep has no model {model!r}: it has {', '.join(self.models)}")
        return self.surveys.get(model, Survey())

    def table(self, full: bool = False) -> Any:
        """A row for each model, class, kind of canvas and area: ``model`` and ``name``, then as
        :meth:`Finding.table`. With ``full`` also all of its columns, the power on the validation
        images (``search_power``), and rows of the models that failed, with the reason
        (``error``)."""
        rows: list[dict[str, Any]] = []
        for name in self.models:
            for finding in self.survey(name):
                powers = finding.search_powers
                rows += (
                    {"model": name, **row, "search_power": powers[row["area"]], "error": None}
                    for row in finding.rows()
                )
        failed = ({"model": name, "error": why} for name, why in self.failures.items())
        return fitting([*rows, *failed] if full else rows, ("model", "name"), full)

    @cached_property
    def best(self) -> dict[int, dict[str, Finding]]:
        """Of each class that was found, by model, the finding that did best on the validation
        images. Classes and models are in the order of the sweep, as in all tables and figures."""
        by_class: dict[int, dict[str, Finding]] = {target: {} for target in self.classes}
        for name in self.models:
            for finding in self.survey(name).best_canvases():
                by_class.setdefault(finding.target, {})[name] = finding
        return {target: by_model for target, by_model in by_class.items() if by_model}

    @cached_property
    def leads(self) -> dict[int, tuple[float, float, str]]:
        """Of each class that several models have, the largest first: how far the strongest model's
        power is above the median of the others, this median, and the model."""
        found = {}
        for target, by_model in self.best.items():
            first, *others = sorted(by_model, key=lambda name: -by_model[name].power.value)
            if others:
                usual = median(by_model[name].power.value for name in others)
                found[target] = by_model[first].power.value - usual, usual, first
        return dict(sorted(found.items(), key=lambda each: -each[1][0]))

    def text(self) -> str:
        """Where the models differ, and what does not follow from it."""
        area, said = float(self.settings["areas"][0]), f"{self._classes}."
        for target, (lead, usual, model) in [*self.leads.items()][:1]:
            if not lead:
                said += " The models do not differ in their strongest patterns."
                continue
            finding = self.best[target][model]
            rest = [name for name in self.best[target] if name != model]
            whose = rest[0] if len(rest) == 1 else f"the median of the {len(rest):,} others"
            said += (
                f" The models differ most in {finding.label}: {100 * finding.power.value:.1f} % in "
                f"{model}, {100 * usual:.1f} % in {whose}.\n{TO_SCAN}"
            )
        models = counted(len(self.models), "model")
        return f"Class patterns of {models}: power of {100 * area:.3g} % of the pixels\n{said}"

    def shown_table(self) -> Any:
        """A row for each model, of the best canvases at the first area."""
        rows = []
        for name in self.models:
            best = [by_model[name] for by_model in self.best.values() if name in by_model]
            scores, failed = [each.scores[each.area] for each in best], name in self.failures
            enough = any(each.enough_images for each in scores)
            above = sum(each.beats_controls for each in scores) if enough else "too few images"
            leads = [
                f"{shortened(self.best[target][name].label)}, {100 * lead:+.0f} points"
                for target, (lead, _, model) in self.leads.items()
                if model == name and lead
            ]
            row = {
                "model": name,
                "power": fmean(each.power.value for each in scores) if scores else None,
                "classes": f"{len(best)} of {len(self.classes)}{', failed' * failed}",
                "above_controls": above if scores else None,
                "furthest_above_others": leads[0] if leads else None,
            }
            rows.append(row)
        table = as_table(rows)
        return as_texts(table, {name: ".1%" if name == "power" else "" for name in table})

    def sections(self, whole: bool) -> Iterable[Any]:
        models = self.shown_table()
        figure = [self.plot] * ("power" in models)
        if whole or len(models) <= MOST_MODELS:
            return [*figure, models]
        few = f"The first {MOST_MODELS} of {len(models):,} models:"
        return [*figure, few, models.head(MOST_MODELS)]

    def to_html(self, path: str | os.PathLike[str]) -> Path:
        from captum_classpattern.surveys.site import write_site

        return write_site(self, Path(path))

    def plot(self, *, use_pyplot: bool = True) -> tuple[Any, Any]:
        from captum_classpattern.visualization.heat_map import plot_heat_map

        named = {y: [each.class_name for each in of.values()] for y, of in self.best.items()}
        names = {y: shortened(next(filter(None, of), label_of(y))) for y, of in named.items()}
        labels = distinct_names(names)
        models = distinct_names({i: shortened(name) for i, name in enumerate(self.models)})
        values, faint = dict[str, dict[str, float]](), set[tuple[str, str]]()
        for name, model in zip(self.models, models.values()):
            best = {labels[y]: of.get(name) for y, of in self.best.items()}
            values[model] = {y: each.power.value if each else nan for y, each in best.items()}
            scores = {y: each.scores[each.area] for y, each in best.items() if each}
            faint |= {(model, y) for y, each in scores.items() if each.is_weak}
        area = 100 * float(self.settings["areas"][0])
        title = f"Predictive power of {area:.3g} % of the pixels of the best canvas"
        return plot_heat_map(values, faint=faint, title=title, use_pyplot=use_pyplot)


def read_sweep(folder: Path, settings: Mapping[str, Any] | None = None) -> Sweep:
    """The sweep in a folder, without its surveys; an error if it has other settings than these."""
    if not (folder / SWEEP).exists():
        raise FileNotFoundError(f"there is no {SWEEP} of a sweep in {folder}")
    data = sweep_folder(folder, settings).read(SWEEP)
    with reading(folder / SWEEP, "is not from a sweep", REMEDY):
        rows = {row["name"]: row for row in data["models"]}
        check_folders([name for name in rows if folder_of(name)])
        check_area(data["settings"]["areas"][0])
        failures = {name: str(why) for name, why in data.get("failures", {}).items()}
        return Sweep(folder, data["settings"], [*map(int, data["classes"])], rows, failures)


def write_sweep(sweep: Sweep) -> None:
    """Writes sweep.json, without what the surveys' own folders hold."""
    data = {"classes": sweep.classes, "failures": sweep.failures, "models": [*sweep.rows.values()]}
    sweep_folder(sweep.folder, sweep.settings).write(SWEEP, data)
