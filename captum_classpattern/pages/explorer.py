"""``explore``: results, a model and images in one widget for notebooks."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from io import BytesIO
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from captum_classpattern._validation import (
    ArgumentTypeError,
    check_same_shape,
    check_seed,
    import_optional,
)
from captum_classpattern.classifier import (
    Classifier,
    PixelClassifier,
    device_and_dtype,
    logits_of,
    preserve_state,
)
from captum_classpattern.classifier.class_names import known_names, label_of
from captum_classpattern.datasets.pixels import read_to_fit
from captum_classpattern.images import Images, LabelledImages, Labels, ensure_labels
from captum_classpattern.pages.parts import ENVIRONMENT
from captum_classpattern.pattern import Pattern, image_hash
from captum_classpattern.scores import Scores
from captum_classpattern.scores.examples import choose_images
from captum_classpattern.scores.power import hashes_seen
from captum_classpattern.surveys import Finding, Survey
from captum_classpattern.visualization.drawing import check_channels
from captum_classpattern.visualization.formats import percent_area

__all__ = ["Explorer", "explore"]

EXAMPLES = 8  # held-out images to choose from
CHUNK = 32  # of candidates that are looked at together
STEPS = 24  # of the slider, evenly spaced on a logarithmic scale
TOP = 3  # classes of a prediction
IN_SEARCH = "This image was used in the search."
TEMPLATE = ENVIRONMENT.get_template("explorer.html")


def explore(
    results: Survey | Finding | Pattern | Sequence[Finding | Pattern],
    model: Classifier | None = None,
    images: "Images | None" = None,
    labels: Labels = None,
    *,
    seed: int = 0,
) -> "Explorer":
    r"""
    Opens patterns in a notebook, as a widget: choose a class, a canvas, the number of pixels and an
    image, or upload an image of your own. It shows the pattern, the stamped image, what the model
    predicts before and after, and, where it was scored, the power next to its controls.

    Needs ipywidgets: ``pip install 'captum_classpattern[explore]'``.

    Args:
        results (Survey, Finding, Pattern or a list): What to show. The search of a survey is
            finished first.
        model (Callable, optional): Classifier from pixels (B, C, H, W) in [0, 1] to logits (B, K).
            Default: None (the one that was searched; patterns from files need one, and so do
            results of several models).
        images (LabelledImages, Tensor, Dataset or DataLoader, optional): Images to stamp, (C, H, W)
            each, in [0, 1]. At most eight are offered, chosen at random among those that are not of
            the class and were not used in the search. Default: None (the held-out images of the
            results, if they have any; else only images that you upload).
        labels (Tensor or Sequence[int], optional): Their classes. Default: None (those that come
            with the images, else the classifier's predictions).
        seed (int): Seed of the choice of images. Default: 0.

    Returns:
        *Explorer*: Its ``pattern`` and ``stamped`` are what is shown.

    Raises:
        ImportError: If ipywidgets is not installed.
        TypeError: If ``results`` are of another type.
        ValueError: If there are no patterns, no model or several models, if all images were used in
            the search of the first class (of another class, the widget says so), or if model,
            patterns and images do not fit.

    Examples::

        >>> net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 3)).eval()
        >>> pattern = Pattern(torch.rand(1, 8, 8), torch.rand(1, 8, 8), target=2)
        >>> explorer = explore(pattern, net, torch.rand(9, 1, 8, 8))
        >>> explorer.area.value = 4
        >>> int(explorer.pattern.mask.sum()), explorer.stamped.shape
        (4, torch.Size([1, 8, 8]))
    """
    import_optional("ipywidgets", extra="explore")
    check_seed(seed)
    findings = _findings(results)
    holders = [*(results if isinstance(results, Sequence) else [results]), *findings]
    if model is None:
        model = _only_model(_known("model", holders))
    source = next(iter(_known("held_out", holders)), None)
    if images is not None:
        source = LabelledImages.of(images, labels, argument="images")
        if labels is None and source.class_names is not None:
            source = source.for_classifier(model)
    names = None if source is None else source.class_names
    names = known_names(model) if names is None else names
    if source is not None:
        canvas = findings[0].pattern.canvas
        check_same_shape(canvas[None], source.shape, "images")
        with preserve_state(model, seed):
            source = ensure_labels(model, source, like=canvas)

    @cache
    def examples_of(target: int) -> list[Example]:
        seen = [p for f in findings if f.target == target for p in f.patterns.values()]
        return [] if source is None else _examples(source, target, seen, names, seed)

    examples_of(findings[0].target)  # an error here, not in the widget
    return Explorer(findings, model, examples_of, names)


# ---- what is given


def _findings(results: Any) -> list[Finding]:
    """All findings in the results, in their order."""
    if isinstance(results, Survey):
        found = results.findings
    elif isinstance(results, Finding):
        found = results.on_each_canvas
    elif isinstance(results, Pattern):
        name = results.info.get("class_name")
        found = [Finding({results.area: results}, "", {}, None if name is None else str(name))]
    elif isinstance(results, Sequence) and not isinstance(results, str):
        found = [finding for result in results for finding in _findings(result)]
    else:
        raise ArgumentTypeError(
            "results must be a Survey, a Finding, a Pattern or a list of these, got "
            f"{type(results).__name__}"
        )
    if not found:
        raise ValueError("results have no patterns: give a search that found some")
    for finding in found:
        check_channels(finding.pattern.canvas)
        shape = tuple(finding.pattern.canvas.shape)
        check_same_shape(found[0].pattern.canvas[None], shape, "other canvases")
    return found


def _known(name: str, holders: Sequence[Any]) -> list[Any]:
    """The classifiers or the held-out images that the results hold."""
    known = (getattr(holder, name, None) for holder in holders)
    return [value for value in known if value is not None]


def _only_model(models: Sequence[Classifier]) -> Classifier:
    """The classifier of the results; an error if they hold none or several."""
    identities = [_identity(model) for model in models]  # some classifiers have no hash
    distinct = [model for i, model in enumerate(models) if identities.index(identities[i]) == i]
    if not distinct:
        raise ValueError(
            "`model` is missing: these results do not hold their classifier; call "
            "explore(results, model, images)"
        )
    if len(distinct) > 1:
        raise ValueError(
            f"these results are of {len(distinct)} models: explore one model at a time, or give "
            "`model`"
        )
    return distinct[0]


def _identity(model: Classifier) -> Any:
    """Equal for one network; each call of ``explain_class`` may wrap it anew."""
    if not isinstance(model, PixelClassifier):
        return model
    constants = (tuple(each.flatten().tolist()) for each in (model.mean, model.std))
    return id(model.model), model.output, *constants


@dataclass(frozen=True, eq=False)
class Example:
    """An image (C, H, W) to stamp, what it is called, and what it is."""

    image: Tensor
    name: str
    kind: str = "image"


def _examples(
    source: LabelledImages,
    target: int,
    patterns: Sequence[Pattern],
    names: Sequence[str] | None,
    seed: int,
) -> list[Example]:
    """Some images of other classes that no search of these patterns used."""
    order = choose_images(source, target, len(source), seed)
    seen = frozenset[str]().union(*map(hashes_seen, patterns))
    chosen: list[int] = []
    for start in range(0, len(order), CHUNK):
        part = order[start : start + CHUNK]
        hashes = source.hashes_at(part) if seen else [""] * len(part)
        chosen += [i for i, image in zip(part, hashes) if image not in seen]
        if len(chosen) >= EXAMPLES:
            break
    if order and not chosen:
        raise ValueError(
            f"all {len(order)} images of other classes were used to search these patterns: give "
            "held-out images"
        )
    if not chosen:
        return []
    shown = chosen[:EXAMPLES]
    labels = [label_of(label, names) for label in source.known_labels[shown].tolist()]
    kind = "held-out image" if seen else "image"
    return [Example(image, label, kind) for image, label in zip(source.take(shown), labels)]


# ---- at which numbers of pixels a finding can be shown


class Cut(NamedTuple):
    """Some pixels of a pattern: the binary pattern, the area that the slider names, the area that
    was searched, and the scores, if these pixels were scored."""

    binary: Pattern
    area: float
    searched_at: float
    scores: Scores | None

    @property
    def text(self) -> str:
        """``39 pixels, 5 %``."""
        kept = int((self.binary.mask > 0).sum())
        return f"{kept:,} {'pixel' if kept == 1 else 'pixels'}, {percent_area(self.area)}"


def cuts(finding: Finding) -> dict[int, Cut]:
    """What the slider offers, by the number of pixels: from 1 to the most that a pattern ranks, and
    as patterns were searched. At each number it is the pattern that was searched there or at the
    next larger one. A mask of zeros and ones does not rank its pixels: it is only shown as it is.
    """
    patterns = dict(sorted(finding.patterns.items()))
    own = {area: _own_pixels(area, pattern) for area, pattern in patterns.items()}
    ranked = {area: _ranked(pattern) for area, pattern in patterns.items()}
    most = max(ranked.values(), default=0)
    spaced = np.geomspace(1, most, STEPS).round().astype(int).tolist() if most else []
    found = {}
    for kept in sorted({*own.values(), *spaced}):
        able = [area for area in patterns if kept <= ranked[area] or kept == own[area]]
        searched_at = next((area for area in able if own[area] >= kept), able[-1])
        pattern, total = patterns[searched_at], patterns[searched_at].mask.numel()
        if kept != own[searched_at]:
            area = kept / total
            found[kept] = Cut(pattern.topk(area), area, searched_at, None)
        else:
            can_be_cut = ranked[searched_at] and 0 < kept < total
            binary = pattern.topk(searched_at) if can_be_cut else pattern
            scores = finding.scores.get(searched_at)
            found[kept] = Cut(binary, searched_at, searched_at, scores)
    return found


def nearest(options: Iterable[int], kept: int) -> int:
    """The option nearest to a number of pixels."""
    return min(options, key=lambda option: abs(option - kept))


def _own_pixels(area: float, pattern: Pattern) -> int:
    return round(area * pattern.mask.numel())


def _ranked(pattern: Pattern) -> int:
    """How many pixels the weights of a mask rank, at most all but one; 0 if all weigh the same."""
    weights = pattern.mask[pattern.mask > 0]
    ranked = bool((weights != weights[:1]).any())
    return min(len(weights), pattern.mask.numel() - 1) if ranked else 0


# ---- the widget


class Explorer:
    r"""
    The widget of :func:`explore`. A notebook shows it if it is the last line of a cell.

    Its controls are ipywidgets, whose ``value`` can also be set in code.

    Attributes:
        target (Dropdown): The class; hidden if there is only one.
        canvas (ToggleButtons): The canvas, by its place among those of the class; hidden if there
            is only one.
        area (SelectionSlider): The number of pixels.
        image (Dropdown): The image, by its place in the list.
        next (Button): Shows the next image; after the last one, the first.
        upload (FileUpload): Takes an image of your own.
        panel (HTML): What all of these change.
        box (VBox): All of them, to place into other widgets.
    """

    def __init__(
        self,
        findings: Sequence[Finding],
        model: Classifier,
        examples_of: Callable[[int], list[Example]],
        names: Sequence[str] | None,
    ) -> None:
        widgets = import_optional("ipywidgets", extra="explore")
        self._findings, self._model, self._names = list(findings), model, names
        self._examples_of, self._own = examples_of, list[Example]()
        self._before: dict[Example, Tensor] = {}  # probabilities (K,) without a pattern
        canvas = self._findings[0].pattern.canvas
        with preserve_state(model, 0):
            targets = [finding.target for finding in findings]
            self._logits = logits_of(model, self._on_device(canvas[None]), targets)
        wide, button = {"width": "100%", "max_width": "640px"}, {"width": "auto"}
        self.target = widgets.Dropdown(description="class")
        self.canvas = widgets.ToggleButtons(style={"button_width": "auto"})
        self.area = widgets.SelectionSlider(
            options=[("", 0)], description="area", layout=wide, continuous_update=False
        )
        self.image = widgets.Dropdown(description="image")
        self.next = widgets.Button(description="next image", layout=button)
        self.upload = widgets.FileUpload(accept="image/*", description="your image", layout=button)
        self.panel = widgets.HTML(layout={"width": "100%"})
        rows = [
            widgets.HBox([self.target, self.canvas], layout={"flex_flow": "row wrap"}),
            self.area,
            widgets.HBox([self.image, self.next, self.upload], layout={"flex_flow": "row wrap"}),
        ]
        self.box = widgets.VBox([*rows, self.panel])
        with self._then_redrawn():
            labels = {finding.target: finding.label for finding in self._findings}
            options = [(label, target) for target, label in labels.items()]
            _offer(self.target, options, options[0][1])
            self.target.layout.display = "none" if len(labels) == 1 else ""
            self._offer_canvases()
            own = _own_pixels(self.finding.area, self.finding.pattern)
            self.area.value = nearest(self._cuts, own)
        for control in (self.target, self.canvas, self.area, self.image):
            control.observe(self._changed, "value")
        self.next.on_click(self._show_next)
        self.upload.observe(self._add, "value")

    def _repr_mimebundle_(self, **options: Any) -> Any:
        """What a notebook shows: the widget, or where it does not run, what it showed first."""
        shown = self.box._repr_mimebundle_(**options)
        return {**shown, "text/plain": repr(self), "text/html": self.panel.value}

    def __repr__(self) -> str:
        return f"Explorer({self.finding.label}, {_canvas(self.finding)}, {self._cut.text})"

    @property
    def finding(self) -> Finding:
        """The finding of the chosen class and canvas."""
        return self._of_class[int(self.canvas.value)]

    @property
    def pattern(self) -> Pattern:
        """The binary pattern that is shown."""
        return self._cut.binary

    @property
    def stamped(self) -> Tensor | None:
        """The stamped image that is shown, (C, H, W); None without an image."""
        example = self._example
        return None if example is None else self.pattern.stamp(self._on_device(example.image)).cpu()

    @property
    def _of_class(self) -> list[Finding]:
        return [finding for finding in self._findings if finding.target == self.target.value]

    @property
    def _cut(self) -> Cut:
        return self._cuts[self.area.value]

    @property
    def _example(self) -> Example | None:
        shown = [*self._examples, *self._own]
        return shown[int(self.image.value)] if shown else None

    # ---- what happens on a change

    @contextmanager
    def _then_redrawn(self) -> Iterator[None]:
        """The controls change in this block, and then the panel, once."""
        self._quiet = True
        try:
            yield
        finally:
            self._quiet = False
        self._redraw()

    def _changed(self, change: Mapping[str, Any]) -> None:
        if not self._quiet:
            with self._then_redrawn():
                if change["owner"] is self.target:
                    self._offer_canvases()
                elif change["owner"] is self.canvas:
                    self._offer_areas()

    def _show_next(self, _: Any) -> None:
        self.image.value = (self.image.value + 1) % len(self.image.options)

    def _add(self, change: Mapping[str, Any]) -> None:
        """Adds an uploaded image and shows it; a file that is no image gives a message."""
        for file in change["new"]:
            try:
                content = BytesIO(bytes(file["content"]))
                image = read_to_fit(content, file["name"], self.pattern.canvas.shape)
            except ValueError as error:
                self._redraw(str(error))
                return
            self._own.append(Example(image, file["name"], "your image"))
            with self._then_redrawn():
                self._offer_images(len(self._examples) + len(self._own) - 1)

    # ---- what can be chosen

    def _offer_canvases(self) -> None:
        names = [_canvas(finding) for finding in self._of_class]
        _offer(self.canvas, [(name, place) for place, name in enumerate(numbered(names))])
        self.canvas.layout.display = "none" if len(names) == 1 else ""
        try:
            self._examples, self._missing = self._examples_of(self.target.value), ""
        except ValueError as error:  # the panel says why there are no images
            self._examples, self._missing = [], str(error)
        self._offer_images(0)
        self._offer_areas()

    def _offer_areas(self) -> None:
        self._cuts = cuts(self.finding)
        texts = [shown.text + (", scored" if shown.scores else "") for shown in self._cuts.values()]
        _offer(self.area, [*zip(texts, self._cuts)], nearest(self._cuts, self.area.value))
        self.area.disabled = len(self._cuts) == 1

    def _offer_images(self, chosen: int) -> None:
        names = numbered([example.name for example in (*self._examples, *self._own)])
        _offer(self.image, [(name, place) for place, name in enumerate(names)], chosen)
        self.image.disabled = self.next.disabled = len(names) < 2

    # ---- what is shown

    def _redraw(self, note: str = "") -> None:
        """The panel: pictures, predictions, the power, and a note."""
        finding, shown, example = self.finding, self._cut, self._example
        values: dict[str, Any] = {"finding": finding, "cut": shown, "example": example}
        if example is not None:
            image = self._on_device(example.image)
            stamped = shown.binary.stamp(image)
            if example not in self._before:  # another area does not change it
                self._before[example] = self._predict(image)
            values["stamped"] = stamped
            values["before"] = self._top_classes(self._before[example])
            values["after"] = self._top_classes(self._predict(stamped))
            searched = image_hash(example.image) in (finding.pattern.seen or ())
            values["remark"] = IN_SEARCH if searched else ""
        self.panel.value = TEMPLATE.render(
            values, name=_canvas(finding), note=note or self._missing
        )

    def _on_device(self, image: Tensor) -> Tensor:
        return image.to(*device_and_dtype(self._model, image))

    def _predict(self, image: Tensor) -> Tensor:
        """The model's probabilities (K,)."""
        with preserve_state(self._model, 0), torch.no_grad():
            return self._logits(image[None]).float().softmax(1)[0].cpu()

    def _top_classes(self, probabilities: Tensor) -> list[tuple[str, float, bool]]:
        """The three most likely classes and the pattern's class, with their probabilities, and
        which one is the pattern's."""
        target = self.finding.target
        order = probabilities.argsort(descending=True, stable=True).tolist()[:TOP]
        return [
            (label_of(y, self._names), float(probabilities[y]), y == target)
            for y in dict.fromkeys([*order, target])
        ]


def _canvas(finding: Finding) -> str:
    """``white canvas``; ``canvas`` if its kind is unknown."""
    return f"{finding.canvas} canvas".strip()


def _offer(control: Any, options: list[tuple[str, int]], value: int = 0) -> None:
    """Sets the options of a control and chooses one."""
    control.options = options
    if options:
        control.value = value


def numbered(names: Sequence[str]) -> list[str]:
    """The names; those that occur more than once with their number: Bag 1, Bag 2."""
    return [
        f"{name} {names[: place + 1].count(name)}" if names.count(name) > 1 else name
        for place, name in enumerate(names)
    ]
