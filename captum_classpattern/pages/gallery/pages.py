"""The pages of a gallery: their addresses, and what the templates fill in."""

from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

from captum_classpattern.classifier.class_names import file_safe
from captum_classpattern.pages.gallery.source import ClassEntry, Model
from captum_classpattern.pages.kinds.finding import above_controls, control_cells
from captum_classpattern.pages.tables import Cell, Table, text_table
from captum_classpattern.pages.templating import (
    encode,
    new_environment,
    policy,
    read_style,
    read_template,
    settings_lines,
)
from captum_classpattern.pattern import pixels_kept
from captum_classpattern.scores import Scores
from captum_classpattern.scores.intervals import Interval
from captum_classpattern.scores.power import ENOUGH_IMAGES
from captum_classpattern.visualization.formats import SPACE, percent, percent_area, percent_range

OWN_FILES = "'self' file:"  # opened from the disk or from a server
BARS = {  # what is measured, and its label
    "pattern": "This pattern",
    "no pattern": "No pattern",
    "random pixels": "Random pixels",
    "other canvas": "Same mask, other canvas",
}
MODELS = ("model", "accuracy", "classes", "above controls", "strongest class")
NUMBERS = ("pixels", "power", "95 % interval", "no pattern", "random pixels", "other canvas")

Card: TypeAlias = tuple[Model, ClassEntry]  # it shows the best pattern of a class of a model


class Pages:
    """Renders the pages of a gallery, each as bytes.

    Args:
        models (Sequence[Model]): The models, in their order.
        title (str, optional): Heading of the index, to which all pages link by it. Default: None
            (it names the model, or the number of models).
        show_canvases (bool): Whether canvases are shown.
        downloads (bool): Whether patterns can be downloaded.
    """

    def __init__(
        self, models: Sequence[Model], title: str | None, show_canvases: bool, downloads: bool
    ) -> None:
        self.models, self.show_canvases, self.downloads = models, show_canvases, downloads
        many = len(models) > 1
        found = [model for model in models if model.classes]
        of = found[0].name if len(found) == 1 else f"{len(found)} models"
        environment = new_environment()
        environment.globals |= {
            "title": f"Class patterns of {of}" if title is None else title,
            "policy": policy(f"{OWN_FILES} data:", script=OWN_FILES, style=OWN_FILES),
            "enough": ENOUGH_IMAGES,
            "many": many,
            "names_model": many or title is None,
            "show_canvases": show_canvases,
            "downloads": downloads,
            "address": self.address,
            "image": self.image,
            "canvas_image": self.canvas_image,
            "download": self.download,
            "kept_text": kept_text,
            "bars": bars,
        }
        self._index = environment.get_template("gallery_index.html")
        self._page = environment.get_template("gallery_class.html")
        self._same: dict[tuple[int, str | None], list[Card]] = {}
        for model in models:
            for entry in model.classes.values():
                self._same.setdefault((entry.target, entry.name), []).append((model, entry))
        self.assets = {
            "gallery.css": read_style("gallery.css"),
            "gallery.js": read_template("gallery.js"),
        }

    def address(self, model: Model, entry: ClassEntry | None = None) -> str:
        """The page of a class, or of a model."""
        return f"models/{model.folder}/{'index' if entry is None else entry.stem}.html"

    def image(self, model: Model, entry: ClassEntry, canvas: str, area: float) -> str:
        """The image of a pattern."""
        return f"{self._pattern(model, entry, canvas)}_{area:g}.png"

    def canvas_image(self, model: Model, entry: ClassEntry, canvas: str) -> str:
        """The image of a canvas."""
        return f"{self._pattern(model, entry, canvas)}_canvas.png"

    def download(self, model: Model, entry: ClassEntry, canvas: str, area: float) -> str:
        """The file of a pattern."""
        return f"{self._pattern(model, entry, canvas)}_{area:g}.safetensors"

    @staticmethod
    def _pattern(model: Model, entry: ClassEntry, canvas: str) -> str:
        return f"models/{model.folder}/patterns/{entry.stem}_{file_safe(canvas)}"

    def index(self) -> bytes:
        """All classes, each with its pattern of the model that did best on the judging images."""
        best = [max(same, key=lambda card: card[1].search_power) for same in self._same.values()]
        return self._render_index(best, None)

    def model_index(self, model: Model) -> bytes:
        """All classes of one of several models."""
        return self._render_index([(model, entry) for entry in model.classes.values()], model)

    def _render_index(self, cards: Sequence[Card], model: Model | None) -> bytes:
        shown = self.models if model is None else [model]
        several = len(shown) > 1
        scores = [entry.shown for _, entry in cards]
        page = self._index.render(
            root="" if model is None else "../../",
            model=model,
            cards=sorted(cards, key=lambda card: (-card[1].shown.power.value, card[1].target)),
            areas=list(dict.fromkeys(entry.area for _, entry in cards)),
            compared=sum(each.enough_images for each in scores),
            above=sum(each.beats_controls for each in scores),
            models=self._models_table() if several else None,
            remark="" if several else remark(shown[0]),
            any_remark=any(map(remark, shown)),
            facts=[] if several else facts(shown[0]),
        )
        return encode(page)

    def _models_table(self) -> Table:
        """A row for each model. One without a finished class has no page."""
        further = list(dict.fromkeys(key for model in self.models for key in model.columns))
        remarks = ["remarks"] * any(map(remark, self.models))
        rows = []
        for model in self.models:
            accuracy, entries = model.info.get("accuracy"), list(model.classes.values())
            name: str | Cell = model.name
            above, strongest = "", Cell("")
            if entries:
                name = Cell(model.name, address=self.address(model))
                first = max(entries, key=lambda entry: entry.shown.power.value)
                address = self.address(model, first)
                strongest = Cell(
                    first.label, address=address, after=f", {percent(first.shown.power.value)}"
                )
                enough = any(entry.shown.enough_images for entry in entries)
                count = sum(entry.shown.beats_controls for entry in entries)
                above = f"{count}" if enough else "too few images"
            rows.append(
                [
                    name,
                    "" if accuracy is None else percent(accuracy),
                    f"{len(entries)}",
                    above,
                    strongest,
                    *(cell(model.columns.get(key)) for key in further),
                    *[remark(model)] * len(remarks),
                ]
            )
        return text_table([*MODELS, *further, *remarks], rows, numbers=MODELS[1:4])

    def class_page(self, model: Model, entry: ClassEntry) -> bytes:
        """The page of a class of a model."""
        order = list(model.classes)
        place = order.index(entry.target)
        before = model.classes[order[place - 1]] if place else None
        after = model.classes[order[place + 1]] if place + 1 < len(order) else None
        same = self._same[entry.target, entry.name]
        variants = [
            (canvas, area, areas[area])
            for canvas, areas in entry.scores.items()
            for area in sorted(areas)  # in the order of the slider
        ]
        page = self._page.render(
            root="../../",
            model=model,
            entry=entry,
            variants=variants,
            numbers=_numbers_table(variants),
            canvases=list(entry.scores),
            before=before and (self.address(model, before), before.label),
            after=after and (self.address(model, after), after.label),
            others=same if len(same) > 1 else [],
            index=self.address(model) if len(self.models) > 1 else "index.html",
            facts=facts(model),
        )
        return encode(page)


def kept_text(area: float, size: tuple[int, int]) -> str:
    """``5 % of the pixels, 3 of 64``."""
    kept, total = pixels_kept(area, size), size[0] * size[1]
    return f"{percent_area(area)} of the pixels, {kept:,} of {total:,}"


def bars(scores: Scores) -> list[tuple[str, float, Interval]]:
    """The power and its controls: a label, the share, and its 95 % interval."""
    measured = scores.with_intervals.items()
    return [(BARS[name], value, (low, high)) for name, (value, low, high) in measured]


def _numbers_table(variants: Sequence[tuple[str, float, Scores]]) -> Table:
    """All patterns of a class with their scores."""
    rows = [
        (
            canvas,
            percent_area(area),
            percent(scores.power.value),
            f"{percent_range(*scores.power.interval)}{SPACE}%",
            *control_cells(scores),
            above_controls(scores),
        )
        for canvas, area, scores in variants
    ]
    return text_table(("canvas", *NUMBERS, "above controls"), rows, numbers=NUMBERS)


def remark(model: Model) -> str:
    """What a model lacks: ``2 classes failed, 1 class not searched``. Reasons are left out, since
    they may hold the names of files."""
    if model.failed and not model.opened:
        return "could not be opened"
    parts = {"failed": model.failed, "not searched": model.missing}
    return ", ".join(
        f"{n:,} class{'' if n == 1 else 'es'} {what}" for what, n in parts.items() if n
    )


def cell(value: Any) -> str:
    """A value of a further column of a sweep, as a cell of a table."""
    if isinstance(value, list):
        return ", ".join(map(cell, value))
    return "" if value is None else str(value)


def facts(model: Model) -> list[tuple[str, str]]:
    """How a model was searched, as lines. ``provenance`` is left out, since it holds paths."""
    info = model.info
    accuracy = info.get("accuracy")
    known: Mapping[str, Any] = {
        **{key: cell(value) or None for key, value in model.columns.items()},
        "accuracy on the held-out images": None if accuracy is None else percent(accuracy),
        "classes of the model": info.get("n_classes"),
        "settings": info.get("settings") or None,
        "versions": info.get("versions"),
    }
    return settings_lines({key: value for key, value in known.items() if value is not None})
