"""``Survey``: the patterns of all classes of one model, with their scores."""

import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from captum_classpattern._support.files import check_folder
from captum_classpattern.classifier.class_names import ClassNames, label_of
from captum_classpattern.results import Result, fitting
from captum_classpattern.scores.power import Scores
from captum_classpattern.surveys.findings import (
    HELD_OUT,
    NAMES,
    WHAT,
    Finding,
    best_of_each,
    canvas_in_words,
    how_to_read,
    scores_table,
    stands_out,
    what_to_try,
)
from captum_classpattern.surveys.folder import MODEL, RESULTS, SurveyFolder

MOST, MOST_OF_A_PAGE = 20, 100  # classes that a figure or a notebook, and a page, show


@dataclass(frozen=True, repr=False)
class Survey(Result):
    r"""
    The findings of many classes of one model, as :func:`survey` returns them. Iterating gives the
    findings. ``plot`` draws the best canvas of each class, as :func:`plot_patterns` does, with its
    :attr:`Finding.examples`: a row for each class, the 20 strongest if there are more.

    Attributes:
        findings (list[Finding]): One for each class and kind of canvas.
        n_classes (int or None): Number of classes that the model has. Without it, nothing is said
            about standing out.
        info (Mapping): How the classes were searched: ``settings``, the model's ``provenance`` and
            ``accuracy`` on the held-out images, numbers of images, ``versions`` and ``seconds``.
    """

    findings: list[Finding] = field(default_factory=list)
    n_classes: int | None = None
    info: Mapping[str, Any] = field(default_factory=dict)

    def __iter__(self) -> Iterator[Finding]:
        return iter(self.findings)

    def __len__(self) -> int:
        return len(self.findings)

    def __repr__(self) -> str:
        if not self.findings:
            return "Survey(0 findings)"
        areas = ", ".join(f"{area:g}" for area in self.areas)
        canvases = ", ".join(self.canvases)
        return f"Survey({len(self)} findings on {canvases} canvases, areas {areas})"

    @property
    def classes(self) -> list[int]:
        """The classes that were found."""
        return list(dict.fromkeys(finding.target for finding in self))

    @property
    def canvases(self) -> list[str]:
        """The kinds of canvas."""
        return list(dict.fromkeys(finding.canvas for finding in self))

    @property
    def areas(self) -> list[float]:
        """The areas, first the one of :attr:`Finding.pattern`."""
        return list(self.findings[0].scores) if self.findings else []

    def scores(self, canvas: str, area: float) -> dict[int, Scores]:
        """The scores of each class on a kind of canvas at an area, by class, as :func:`stands_out`
        takes them. An error if nothing was searched there."""
        found = {f.target: f.scores for f in self if f.canvas == canvas and area in f.scores}
        if not found:
            raise ValueError(f"no class was searched on {canvas!r} canvases at area {area}")
        return {target: scores[area] for target, scores in found.items()}

    def strongest(self, canvas: str, area: float) -> str:
        """A sentence: which class's pattern is strongest on a kind of canvas at an area, and
        whether it stands out, see :func:`stands_out`. For example: "white canvas, 5 % of the
        pixels: cat, 90.0 %; next dog, 50.0 %. cat stands out.\""""
        scores, labels = self.scores(canvas, area), {f.target: f.label for f in self}
        ranked = sorted(scores, key=lambda target: -scores[target].power.value)
        powers = [f"{labels[y]}, {100 * scores[y].power.value:.1f} %" for y in ranked[:2]]
        where = f"{canvas_in_words(canvas)}, {100 * area:.3g} % of the pixels"
        text = f"{where}: {'; next '.join(powers)}."
        if self.n_classes is not None and stands_out(scores, ranked[0], self.n_classes):
            text += f" {labels[ranked[0]]} stands out."
        return text

    def best_canvases(self) -> list[Finding]:
        """For each class the finding on the canvas that did best on the validation images."""
        return best_of_each(self)

    def finding(self, target: int | str) -> Finding:
        """The finding of a class, by its number or name, as :func:`explain_class` returns it: on
        the canvas that did best on the validation images, with the others in
        :attr:`Finding.others`."""
        labels = {finding.target: finding.label for finding in self}
        if isinstance(target, str) and labels:
            names = [labels.get(y, label_of(y)) for y in range(max(labels) + 1)]
            target = ClassNames(names).find(target)
        of_class = [finding for finding in self if finding.target == target]
        if not of_class:
            raise ValueError(f"the survey has no class {target!r}")
        [best] = best_of_each(of_class)
        return replace(best, others=tuple(each for each in of_class if each is not best))

    def table(self, full: bool = False) -> Any:
        """One row for each class, kind of canvas and area, with the columns of
        :meth:`Finding.table`."""
        return fitting((row for finding in self for row in finding.rows()), NAMES, full)

    def plot(self, *, use_pyplot: bool = True) -> tuple[Any, Any]:
        from captum_classpattern.visualization.patterns import draw_patterns

        best = self._strongest_first()
        if not best:
            raise ValueError("there is nothing to draw: no class was found")
        title = "The best canvas of each class"
        if len(best) > MOST:
            title += f" ({MOST} of {len(best)}, the strongest)"
        rows = [finding.figure_row(finding.label) for finding in best[:MOST]]
        return draw_patterns(rows, area=self.areas[0], title=title, use_pyplot=use_pyplot)

    def _strongest_first(self) -> list[Finding]:
        return sorted(self.best_canvases(), key=lambda finding: -finding.power.value)

    def text(self) -> str:
        """The model's accuracy, and how many classes have patterns above their controls."""
        source = (self.info.get("provenance") or {}).get("source")
        accuracy = self.info.get("accuracy")
        scores = [finding.scores[finding.area] for finding in self.best_canvases()]
        above = sum(each.beats_controls for each in scores)
        texts = ["Class patterns" if source is None else f"Class patterns of {source}"]
        if accuracy is not None:
            texts.append(f"The model's accuracy is {100 * accuracy:.1f} % {HELD_OUT}.")
        if any(each.enough_images for each in scores):
            have = "has" if above == 1 else "have"
            texts.append(
                f"{above:,} of {len(scores):,} classes {have} a pattern above its controls."
            )
        elif scores:
            texts.append("There are too few held-out images to compare patterns with controls.")
        else:
            texts.append("No class was found.")
        if self.n_classes is not None and 0 < len(scores) < self.n_classes:
            texts.append(
                f"The survey has {len(scores):,} of the model's {self.n_classes:,} classes, so "
                "none is said to stand out."
            )
        texts.append(what_to_try(self))
        return "\n".join((texts[0], " ".join(filter(None, texts[1:]))))

    def shown_table(self) -> Any:
        return scores_table({"": self.findings})

    def sections(self, whole: bool) -> Iterable[Any]:
        from captum_classpattern.pages import parts

        best = self._strongest_first()
        shown, listed = best[: MOST_OF_A_PAGE if whole else MOST], []
        if not best:
            return
        for first in shown:
            kind = canvas_in_words(first.canvas).capitalize()  # a notebook stays small:
            listed.append(first.card(first.label, kind, self.findings, examples=whole))
        few = f"The {len(shown)} strongest of {len(best):,} classes are"
        yield parts.listed(listed)
        yield (
            f"{WHAT} {few if len(shown) < len(best) else 'Each class is'} shown, the "
            f"strongest first. The area is {100 * best[0].area:.3g} %."
        )
        yield how_to_read(best)
        targets = {first.target for first in shown}
        scores = [finding for finding in self.findings if whole or finding.target in targets]
        yield parts.folded("All scores", scores_table({"": scores}, full=True))
        settings = dict(self.info.get("settings") or {})
        if isinstance(model := settings.get(MODEL), Mapping):  # its probes are for folders
            settings[MODEL] = model.get("weights")
        yield parts.settings({"settings": settings, "versions": self.info.get("versions")})

    def save(self, folder: str | os.PathLike[str]) -> None:
        """Writes all findings into a folder, as ``survey(..., folder=...)`` does. Findings of other
        classes stay; an error if they were made with other settings."""
        info = {"settings": {}, **self.info, "n_classes": self.n_classes, "classes": self.classes}
        check_folder(folder)
        store = SurveyFolder(Path(folder), info["settings"])
        store.contents()  # or an error, before any is replaced
        for target in self.classes:
            store.add([finding for finding in self if finding.target == target])
        store.write_summary(info)

    @classmethod
    def load(cls, folder: str | os.PathLike[str]) -> "Survey":
        """Reads the findings in a folder that ``survey(..., folder=...)``, :meth:`save` or
        ``classpattern search`` wrote, finished or not. An error if there are none, or a file is
        damaged. Patterns are read when they are first used."""
        info, findings = SurveyFolder(Path(folder)).contents()
        if not info:
            raise FileNotFoundError(f"there is no {RESULTS} of a survey in {folder}")
        info.pop("rows", None)
        return Survey(findings, info.get("n_classes"), info)


class SurveyInterrupted(KeyboardInterrupt):
    """An interrupt of :func:`survey`. ``survey`` holds the classes that were finished: in a
    notebook, ``sys.last_value.survey``."""

    @property
    def survey(self) -> Survey:
        return self.args[0]  # type: ignore[no-any-return]
