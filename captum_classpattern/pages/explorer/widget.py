"""The widget: choices of class, canvas, area and image, and the panel that they change."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from io import BytesIO
from typing import Any

import torch
from torch import Tensor

from captum_classpattern.classifier import Classifier, device_and_dtype, logits_of, preserve_state
from captum_classpattern.datasets.pixels import read_to_fit
from captum_classpattern.pages.explorer.areas import Cut, cut, nearest, own_pixels, steps
from captum_classpattern.pages.explorer.panel import (
    Example,
    Stamped,
    canvas_name,
    kept_text,
    panel,
)
from captum_classpattern.pages.parts import paragraph
from captum_classpattern.pattern import Pattern, image_hash
from captum_classpattern.surveys import Finding

IN_SEARCH = "This image was used in the search."


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
        widgets = import_ipywidgets()
        self._findings, self._model, self._names = list(findings), model, names
        self._examples_of, self._own = examples_of, list[Example]()
        self._before: dict[Example, Tensor] = {}  # probabilities (K,) without a pattern
        self._quiet = False
        self._logits = self._checked_logits()
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
        with self._quietly():
            self._offer_classes()
            self.area.value = nearest(self._steps, own_pixels(self.finding))
        for control, offer in (
            (self.target, self._offer_canvases),
            (self.canvas, self._offer_areas),
            (self.area, None),
            (self.image, None),
        ):
            control.observe(self._handler(offer), "value")
        self.next.on_click(lambda _: self._show_next())
        self.upload.observe(lambda change: self._add(change["new"]), "value")
        self._redraw()

    def _repr_mimebundle_(self, **options: Any) -> Any:
        """What a notebook shows: the widget, or where it does not run, what it showed first."""
        shown = self.box._repr_mimebundle_(**options)
        return {**shown, "text/plain": repr(self), "text/html": self.panel.value}

    def __repr__(self) -> str:
        chosen = f"{self.finding.label}, {canvas_name(self.finding)}, {kept_text(self._cut)}"
        return f"Explorer({chosen})"

    @property
    def finding(self) -> Finding:
        """The finding of the chosen class and canvas."""
        return self._of_class(self.target.value)[int(self.canvas.value)]

    @property
    def pattern(self) -> Pattern:
        """The binary pattern that is shown."""
        return self._cut.binary

    @property
    def stamped(self) -> Tensor | None:
        """The stamped image that is shown, (C, H, W); None without an image."""
        example = self._example
        return None if example is None else self._stamp(example).cpu()

    # ---- what can be chosen

    def _offer_classes(self) -> None:
        labels = {finding.target: finding.label for finding in self._findings}
        _offer(self.target, [(label, target) for target, label in labels.items()])
        self.target.layout.display = "none" if len(labels) == 1 else ""
        self._offer_canvases()

    def _offer_canvases(self) -> None:
        names = [canvas_name(finding) for finding in self._of_class(self.target.value)]
        _offer(self.canvas, [(name, place) for place, name in enumerate(numbered(names))])
        self.canvas.layout.display = "none" if len(names) == 1 else ""
        try:
            self._examples, self._missing = self._examples_of(self.target.value), ""
        except ValueError as error:  # the panel says why there are no images
            self._examples, self._missing = [], str(error)
        self._offer_images(0)
        self._offer_areas()

    def _offer_areas(self) -> None:
        before = self.area.value
        self._steps = steps(self.finding)
        texts = []
        for kept in self._steps:
            shown = cut(self.finding, kept)
            texts.append(kept_text(shown) + (", scored" if shown.scores else ""))
        _offer(self.area, [*zip(texts, self._steps)], nearest(self._steps, before))
        self.area.disabled = len(self._steps) == 1

    def _offer_images(self, chosen: int) -> None:
        names = numbered([example.name for example in self._shown_examples])
        _offer(self.image, [(name, place) for place, name in enumerate(names)], chosen)
        self.image.disabled = self.next.disabled = len(names) < 2

    def _of_class(self, target: int) -> list[Finding]:
        return [finding for finding in self._findings if finding.target == target]

    @property
    def _shown_examples(self) -> list[Example]:
        return [*self._examples, *self._own]

    # ---- what is shown

    @property
    def _cut(self) -> Cut:
        return cut(self.finding, self.area.value)

    @property
    def _example(self) -> Example | None:
        if not self._shown_examples:
            return None
        return self._shown_examples[int(self.image.value)]

    def _on_device(self, image: Tensor) -> Tensor:
        return image.to(*device_and_dtype(self._model, image))

    def _stamp(self, example: Example) -> Tensor:
        """The image with the pattern, where the model is."""
        return self.pattern.stamp(self._on_device(example.image))

    def _predict(self, image: Tensor) -> Tensor:
        """The model's probabilities (K,)."""
        with preserve_state(self._model, 0), torch.no_grad():
            return self._logits(image[None]).float().softmax(1)[0].cpu()

    def _classify(self, example: Example) -> Stamped:
        """The image with the pattern, and what the model predicts before and after."""
        stamped = self._stamp(example)
        if example not in self._before:  # another area does not change it
            self._before[example] = self._predict(self._on_device(example.image))
        return Stamped(stamped.cpu(), self._before[example], self._predict(stamped))

    def _remark(self, example: Example) -> str:
        used = image_hash(example.image) in (self.finding.pattern.seen or ())
        return IN_SEARCH if used else ""

    def _redraw(self, note: str = "") -> None:
        example = self._example
        stamped, remark = None, ""
        if example is not None:
            stamped, remark = self._classify(example), self._remark(example)
        shown = panel(self.finding, self._cut, example, stamped, self._names, remark)
        note = note or self._missing
        self.panel.value = str(shown + paragraph(note) if note else shown)

    def _checked_logits(self) -> Classifier:
        canvas = self._findings[0].pattern.canvas
        sample = canvas[None].to(*device_and_dtype(self._model, canvas))
        with preserve_state(self._model, 0):
            return logits_of(self._model, sample, [f.target for f in self._findings])

    # ---- what happens on a change

    def _handler(self, offer: Callable[[], None] | None) -> Callable[[Any], None]:
        def changed(_: Any) -> None:
            if not self._quiet:
                with self._quietly():
                    if offer is not None:
                        offer()
                self._redraw()

        return changed

    @contextmanager
    def _quietly(self) -> Iterator[None]:
        """The controls change in this block without a redraw for each."""
        self._quiet = True
        try:
            yield
        finally:
            self._quiet = False

    def _show_next(self) -> None:
        self.image.value = (self.image.value + 1) % len(self._shown_examples)

    def _add(self, files: Sequence[Any]) -> None:
        """Adds an uploaded image and shows it; a file that is no image gives a message."""
        for file in files:
            try:
                content = BytesIO(bytes(file["content"]))
                image = read_to_fit(content, file["name"], self.pattern.canvas.shape)
            except ValueError as error:
                self._redraw(str(error))
                return
            self._own.append(Example(image, file["name"], "your image"))
            with self._quietly():
                self._offer_images(len(self._shown_examples) - 1)
            self._redraw()


def _offer(control: Any, options: list[tuple[str, int]], value: int | None = None) -> None:
    """Sets the options of a control and chooses one (None: the first)."""
    control.options = options
    if options:
        control.value = options[0][1] if value is None else value


def numbered(names: Sequence[str]) -> list[str]:
    """The names; those that occur more than once with their number: Bag 1, Bag 2."""
    counts = dict.fromkeys(names, 0)
    result = []
    for name in names:
        counts[name] += 1
        result.append(f"{name} {counts[name]}" if list(names).count(name) > 1 else name)
    return result


def import_ipywidgets() -> Any:
    """ipywidgets, or an error that names the extra."""
    try:
        import ipywidgets
    except ImportError as error:
        raise ImportError(
            "explore needs ipywidgets: pip install 'captum_classpattern[explore]'"
        ) from error
    return ipywidgets
