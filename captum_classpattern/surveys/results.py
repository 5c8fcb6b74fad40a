"""``survey`` and ``Survey``: the patterns of all classes of one model, with their scores."""

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy.typing as npt

from captum_classpattern.classifier import Classifier
from captum_classpattern.images import Images, ImagesAndLabels, LabelledImages, Labels
from captum_classpattern.results import Result, as_table
from captum_classpattern.scores.power import Scores
from captum_classpattern.surveys.findings import Finding, best_of_each, stands_out
from captum_classpattern.surveys.search import SurveySearch, SurveySettings
from captum_classpattern.surveys.store import RESULTS, Store

CANVASES: Mapping[str, int] = {"positive": 32, "white": 1, "black": 1}
AREAS = (0.05, 0.01)
COLUMNS = {  # of an area, in the tables of findings and of surveys
    "power": "power_{:g}",
    "power_low": "power_{:g}_low",
    "power_high": "power_{:g}_high",
    "random_pixels": "random_pixels_{:g}",
    "other_canvas": "other_canvas_{:g}",
    "beats_controls": "beats_controls_{:g}",
}


class Survey(Result):
    r"""
    The findings of many classes of one model, as :func:`survey` gives them.

    Iterating runs the search, and gives each finding as soon as its class is finished. Findings are
    kept: a second iteration repeats them, and an interrupted one continues with the missing
    classes. Methods that need all findings finish the search first.

    Args:
        findings (Iterable[Finding]): Findings that are there already. Default: none.
        n_classes (int, optional): Number of classes that the model has. Without it, nothing is said
            about standing out. Default: None.

    Attributes:
        finished (list[Finding]): The findings so far.
        n_classes (int or None): Number of classes that the model has.
        classes (list[int]): The classes that were searched or will be.
        canvases (list[str]): The kinds of canvas.
        areas (list[float]): The areas, first the one of :attr:`Finding.pattern`.
        provenance (Mapping): Where the model came from, for one of :func:`load_model`.
    """

    def __init__(
        self,
        findings: Iterable[Finding] = (),
        n_classes: int | None = None,
        *,
        search: SurveySearch | None = None,
        store: Store | None = None,
        info: Mapping[str, Any] | None = None,
    ) -> None:
        self.finished = found = list(findings)
        self.n_classes = n_classes
        self._search, self._store, self._info = search, store, dict(info or {})
        self._running: Iterator[bool] | None = None
        if search is None:
            self.classes = list(dict.fromkeys(finding.target for finding in found))
            self.canvases = list(dict.fromkeys(finding.canvas for finding in found))
            self.areas = list(found[0].scores if found else ())
            self.provenance = self._info.get("provenance", {})
        else:
            self.classes, self.canvases = search.classes, list(search.settings.canvases)
            self.areas, self.provenance = list(search.settings.areas), search.provenance

    def __iter__(self) -> Iterator[Finding]:
        position = 0
        while position < len(self.finished) or self._find_more():
            yield self.finished[position]
            position += 1

    def __len__(self) -> int:
        return len(self.finished) + len(self.canvases) * len(self._missing())

    def __repr__(self) -> str:
        done, total = len(self.finished), len(self)
        count = total if done == total else f"{done} of {total}"
        areas = ", ".join(f"{area:g}" for area in self.areas)
        return f"Survey({count} findings on {', '.join(self.canvases)} canvases, areas {areas})"

    def _missing(self) -> list[int]:
        """The classes that are still to be searched."""
        done = {finding.target for finding in self.finished}
        return [target for target in self.classes if target not in done]

    def _find_more(self) -> bool:
        """Searches until one more class is finished; False if there is none."""
        if self._running is None:
            self._running = self._find_missing()
        try:
            return next(self._running, False)
        except BaseException:
            self._running = None  # the next call starts again with what is missing
            raise

    def _find_missing(self) -> Iterator[bool]:
        missing = self._missing()
        if self._store and not missing:
            self._store.write_summary(self.info)
        for findings in self._search.find(missing) if self._search else ():
            if self._store:
                self._store.add(findings)
                self._store.write_summary(self.info)
            self.finished += findings
            yield True

    @property
    def findings(self) -> list[Finding]:
        """All findings: one for each class and kind of canvas."""
        return list(self)

    @property
    def info(self) -> dict[str, Any]:
        """How the classes were searched: ``settings``, the model's ``provenance`` and ``accuracy``
        on the held-out images, numbers of images, ``versions`` and ``seconds``."""
        return self._info if self._search is None else self._search.info

    @property
    def model(self) -> Classifier | None:
        """The classifier that is searched; None if the survey was loaded."""
        return None if self._search is None else self._search.forward_func

    @property
    def held_out(self) -> LabelledImages | None:
        """The held-out images; None if the survey was loaded."""
        return None if self._search is None else self._search.labelled_held_out

    def scores(self, canvas: str, area: float) -> dict[int, Scores]:
        r"""
        The scores of each class on a kind of canvas at an area, as :func:`stands_out` takes them.

        Args:
            canvas (str): Kind of canvas.
            area (float): One of the areas that were searched.

        Returns:
            *dict[int, Scores]*: By class.

        Raises:
            ValueError: If nothing was searched there.
        """
        found = {f.target: f.scores for f in self if f.canvas == canvas and area in f.scores}
        if not found:
            raise ValueError(f"no class was searched on {canvas!r} canvases at area {area}")
        return {target: scores[area] for target, scores in found.items()}

    def strongest(self, canvas: str, area: float) -> str:
        r"""
        A sentence: which class's pattern is strongest on a kind of canvas, and whether it stands
        out, see :func:`stands_out`.

        Args:
            canvas (str): Kind of canvas.
            area (float): One of the areas that were searched.

        Returns:
            *str*: For example "white canvas, 0.05 of the pixels: cat, 90.0%; next dog, 50.0%. It
            stands out."
        """
        scores, labels = self.scores(canvas, area), {f.target: f.label for f in self}
        first, *others = sorted(scores, key=lambda target: -scores[target].power.value)
        power = scores[first].power
        text = f"{canvas} canvas, {area:.3g} of the pixels: {labels[first]}, {power.value:.1%}"
        if others:
            text += f"; next {labels[others[0]]}, {scores[others[0]].power.value:.1%}"
        if self.n_classes is None:
            return f"{text}."
        if len(scores) < self.n_classes:
            verb = "was" if len(scores) == 1 else "were"
            searched = f"{len(scores)} of {self.n_classes} classes {verb} searched"
            return f"{text}; {searched}, so whether it stands out is not known."
        if not scores[first].enough_images:
            return f"{text}; {power.n} images are too few to tell whether it stands out."
        return text + (". It stands out." if stands_out(scores, first, self.n_classes) else ".")

    def best_canvases(self) -> list[Finding]:
        """For each class the finding on the canvas that did best on the judging images."""
        return best_of_each(self)

    def table(self) -> Any:
        r"""
        One row for each class and kind of canvas.

        Returns:
            *pandas.DataFrame*: The columns are ``class``, ``class_name``, ``canvas``, the number of
            held-out ``images``, ``no_pattern``, and for each area such as 0.05 ``power_0.05`` with
            the ends of its 95 % interval (``power_0.05_low``, ``power_0.05_high``), the controls
            ``random_pixels_0.05`` and ``other_canvas_0.05``, and ``beats_controls_0.05``.
        """
        rows = []
        for finding in self:
            row: dict[str, Any] = {}
            for each in finding.rows():
                area = each.pop("area")
                of_area = {title.format(area): each.pop(name) for name, title in COLUMNS.items()}
                row = {**each, **row, **of_area}
            rows.append(row)
        return as_table(rows)

    def plot(
        self,
        forward_func: Classifier | None = None,
        images: "Images | None" = None,
        labels: Labels = None,
        *,
        max_classes: int = 20,
        title: str = "The best canvas of each class",
        seed: int = 0,
        use_pyplot: bool = True,
    ) -> tuple[Any, npt.NDArray[Any]]:
        r"""
        Draws the best canvas of each class, see :func:`plot_patterns`; if there are many classes,
        those with the highest power.

        Args:
            forward_func (Callable, optional): The classifier. It must be given if the survey was
                loaded from a folder. Default: None (the one that was searched).
            images (Tensor, Dataset or DataLoader, optional): The held-out images, likewise.
                Default: None.
            labels (Tensor or Sequence[int], optional): Their classes, as in :func:`plot_patterns`.
                Default: None.
            max_classes (int): Draw at most this many classes. Default: 20.
            title (str): Title of the figure.
            seed (int): Seed of the choice of held-out images that are shown. Default: 0.
            use_pyplot (bool): As in :func:`plot_patterns`. Default: True.

        Returns:
            *tuple[Figure, ndarray]*: The figure and its axes, one row for each class.

        Raises:
            ValueError: If a classifier and images are needed, or as :func:`plot_patterns`.
        """
        forward_func = self.model if forward_func is None else forward_func
        images = self.held_out if images is None else images
        if forward_func is None or images is None:
            raise ValueError(
                "a survey that was loaded needs a classifier and held-out images to be drawn: call "
                "plot(classifier, images)"
            )
        return self._draw(
            forward_func=forward_func,
            images=images,
            labels=labels,
            max_classes=max_classes,
            title=title,
            seed=seed,
            use_pyplot=use_pyplot,
        )

    def save(self, folder: str | os.PathLike[str]) -> None:
        r"""
        Writes all findings into a folder, as ``survey(..., folder=...)`` does.

        Args:
            folder (str or PathLike): The folder. If it holds findings already, they must have been
                made with the same settings; those of other classes stay.

        Raises:
            ValueError: If the folder holds findings of other settings.
        """
        info = {"settings": {}, "n_classes": self.n_classes, "classes": self.classes, **self.info}
        store = Store(Path(folder), info["settings"])
        for target in dict.fromkeys(finding.target for finding in self):
            store.add([finding for finding in self.finished if finding.target == target])
        store.write_summary(info)

    @classmethod
    def load(cls, folder: str | os.PathLike[str]) -> "Survey":
        r"""
        Reads the findings in a folder that ``survey(..., folder=...)``, :meth:`save` or
        ``classpattern search`` wrote, finished or not.

        Args:
            folder (str or PathLike): The folder.

        Returns:
            *Survey*: The findings, class by class. To draw them, :meth:`plot` needs the classifier
            and held-out images.

        Raises:
            FileNotFoundError: If there is no survey in the folder.
            ValueError: If a file is damaged (a pattern's file: when the pattern is first used).
        """
        store = Store(Path(folder))
        if not store.summary:
            raise FileNotFoundError(f"there is no {RESULTS} of a survey in {folder}")
        info = {key: value for key, value in store.summary.items() if key != "rows"}
        return cls(store.findings(), info.get("n_classes"), info=info)


def survey(
    forward_func: Classifier,
    search: ImagesAndLabels,
    held_out: ImagesAndLabels,
    *,
    classes: Sequence[int | str] | None = None,
    canvases: Mapping[str, int] = CANVASES,
    areas: Sequence[float] = AREAS,
    classes_together: int = 5,
    budget: int | None = None,
    n_steps: int | None = None,
    max_seconds: float | None = None,
    seed: int = 0,
    precision: str = "auto",
    internal_batch_size: int | None = None,
    show_progress: bool = False,
    folder: str | os.PathLike[str] | None = None,
    resume: bool = False,
) -> Survey:
    r"""
    Searches the patterns of many classes, and scores each with its controls on held-out images.

    Canvases are chosen among the search images. For each kind of canvas, the pattern that does best
    on the judging images is kept, see ``keep`` of :meth:`ClassPattern.search` and
    :meth:`ClassPattern.search_areas`. The controls are: no pattern; as many random pixels of the
    same canvas (3 draws, each on a third of the images); and the same mask over the positive canvas
    of the next class. The last two are scored on at most 300 of the images.

    The call only checks its arguments. With a folder, it also reads all images and classifies the
    held-out ones, to compare them with what is there. The search runs while the result is iterated.

    Args:
        forward_func (Callable): Classifier from pixels (B, C, H, W) in [0, 1] to logits (B, K).
        search (LabelledImages): The images that patterns are cut from and searched on. A Dataset
            or DataLoader will do, or a pair of images and labels.
        held_out (LabelledImages): The images that patterns are scored on, likewise.
        classes (Sequence[int or str], optional): Which classes, by their numbers or by their names
            in the classifier's ``class_names``. Default: None (all).
        canvases (Mapping[str, int]): At most how many canvases of each kind and class, see
            :func:`select_canvases`; also at most one for each 215 passes of the budget. White
            canvases are all the same: each beyond the second is one more start of the search.
            Default: {"positive": 32, "white": 1, "black": 1}.
        areas (Sequence[float]): Areas to search and score at. Default: (0.05, 0.01).
        classes_together (int): Number of classes that are searched in one batch. Default: 5.
        budget (int, optional): Passes per class and kind of canvas, at the largest area or at each
            area of a pool, as in :meth:`ClassPattern.search`; at least 430. Default: None (7,000).
        max_seconds (float, optional): Stops each group of classes and kind of canvas after that
            time, with what was found. Default: None.
        n_steps, seed, precision, internal_batch_size: As in :func:`explain_class`.
        show_progress (bool): Draws a progress bar for each group of classes. Default: False.
        folder (str or PathLike, optional): Where each class is written as soon as it is finished.
            Default: None (nowhere).
        resume (bool): Continues the search in the folder: its findings come first, and only the
            classes that are missing are searched. Several processes may share a folder. Each must
            pass ``resume=True`` and the same settings, and its own ``classes``. Default: False (a
            folder that holds findings is an error).

    Returns:
        *Survey*: An iterable of one :class:`Finding` for each class and kind of canvas.

    Raises:
        TypeError, ValueError: As :func:`search_masks` and :func:`predictive_power`; also if the
            folder holds findings of other settings, or any without ``resume``.

    Examples::

        >>> net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 3)).eval()
        >>> labels = torch.arange(60) % 3
        >>> search = LabelledImages(torch.rand(60, 1, 8, 8), labels)
        >>> held_out = LabelledImages(torch.rand(60, 1, 8, 8), labels)
        >>> found = survey(net, search, held_out, areas=(0.1,), classes=[2], n_steps=10)
        >>> found
        Survey(0 of 3 findings on positive, white, black canvases, areas 0.1)
        >>> [(f.target, f.canvas, f.scores[0.1].power.n) for f in found]
        [(2, 'positive', 40), (2, 'white', 40), (2, 'black', 40)]
    """
    settings = SurveySettings.of(locals())
    task = SurveySearch(forward_func, search, held_out, settings, classes)
    if folder is None:
        return Survey(n_classes=task.n_classes, search=task)
    if not resume and (Path(folder) / RESULTS).exists():
        raise ValueError(
            f"{folder} holds results already: pass `resume=True` to continue, or another folder"
        )
    store = Store(Path(folder), task.depends_on)
    return Survey(store.findings(), task.n_classes, search=task, store=store)
