"""The pages of a gallery: their addresses, and what the templates fill in."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from captum_classpattern.class_names import file_safe
from captum_classpattern.pages import (
    encode,
    new_environment,
    policy,
    read_style,
    read_template,
)
from captum_classpattern.pages.gallery.source import ClassEntry, Model
from captum_classpattern.pages.report.formats import (
    SPACE,
    percent,
    percent_area,
    percent_range,
    settings_lines,
)
from captum_classpattern.pattern import pixels_kept
from captum_classpattern.scores.intervals import Interval, wilson
from captum_classpattern.scores.power import ENOUGH_IMAGES
from captum_classpattern.surveys import Scores

OWN_FILES = "'self' file:"  # opened from the disk or from a server
SMALL = 128  # pixels: up to this size, thumbnails show each pixel as a square


@dataclass(frozen=True)
class Bar:
    """A share of images with its 95 % interval, as one line of a chart."""

    label: str
    value: float
    interval: Interval


@dataclass(frozen=True)
class Card:
    """A pattern among others: the page that it links to, its image, a name, its scores."""

    address: str
    image: str
    size: tuple[int, int]
    small: bool
    label: str
    named: bool
    target: int
    canvas: str
    area: float
    scores: Scores
    note: str = ""
    current: bool = False


@dataclass(frozen=True)
class Variant:
    """The pattern of a class on one kind of canvas at one area."""

    canvas: str
    area: float
    kept: str
    image: str
    canvas_image: str | None
    download: str | None
    scores: Scores
    stands_out: bool
    shown: bool

    @property
    def name(self) -> str:
        """``white canvas, 5 % of the pixels``."""
        return f"{self.canvas} canvas, {percent_area(self.area)} of the pixels"

    @property
    def bars(self) -> list[Bar]:
        """The power and its controls."""
        power = self.scores.power
        n = self.scores.control_images or power.n
        controls = {
            "No pattern": (power.without, power.n),
            "Random pixels": (self.scores.random_pixels, n),
            "Same mask, other canvas": (self.scores.other_canvas, n),
        }
        return [
            Bar("This pattern", power.value, power.interval),
            *(Bar(k, v, wilson(round(v * m), m)) for k, (v, m) in controls.items()),
        ]


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
        self.title = f"Class patterns of {of}" if title is None else title
        environment = new_environment(Path(__file__).with_name("templates"))
        environment.filters |= {
            "percent": percent,
            "percent_area": percent_area,
            "percent_range": lambda interval: f"{percent_range(*interval)}{SPACE}%",
            "axis": lambda share: f"{100 * share:.4g}",
        }
        environment.globals |= {
            "title": self.title,
            "policy": policy(f"{OWN_FILES} data:", script=OWN_FILES, style=OWN_FILES),
            "enough": ENOUGH_IMAGES,
            "many": many,
            "names_model": many or title is None,
        }
        self._index = environment.get_template("gallery_index.html")
        self._page = environment.get_template("gallery_class.html")
        self._same: dict[tuple[int, str | None], list[tuple[Model, ClassEntry]]] = {}
        for model in models:
            for entry in model.classes.values():
                self._same.setdefault((entry.target, entry.name), []).append((model, entry))
        self.assets = {
            "gallery.css": read_style(environment, "gallery.css"),
            "gallery.js": read_template(environment, "gallery.js"),
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
        cards = []
        for same in self._same.values():
            model, entry = max(same, key=lambda pair: pair[1].search_power)
            note = model.name if len(self.models) > 1 else ""
            cards.append(self._card(model, entry, entry.label, note))
        return self._render_index(cards, None)

    def model_index(self, model: Model) -> bytes:
        """All classes of one of several models."""
        cards = [self._card(model, entry, entry.label) for entry in model.classes.values()]
        return self._render_index(cards, model)

    def _render_index(self, cards: Sequence[Card], model: Model | None) -> bytes:
        shown = self.models if model is None else [model]
        several = len(shown) > 1
        rows = [self._model_row(m) for m in shown] if several else []
        page = self._index.render(
            root="" if model is None else "../../",
            model=model,
            cards=sorted(cards, key=lambda card: (-card.scores.power.value, card.target)),
            areas=list(dict.fromkeys(card.area for card in cards)),
            compared=sum(card.scores.enough_images for card in cards),
            above=sum(card.scores.beats_controls for card in cards),
            columns=list(dict.fromkeys(key for m in shown for key in m.columns)) if several else [],
            rows=rows,
            remark="" if several else remark(shown[0]),
            any_remark=any(row["remark"] for row in rows),
            facts=[] if several else facts(shown[0]),
        )
        return encode(page)

    def _model_row(self, model: Model) -> dict[str, Any]:
        """A model's line in the table of models. One without a finished class has no page."""
        entries = list(model.classes.values())
        accuracy = model.info.get("accuracy")
        row: dict[str, Any] = {
            "name": model.name,
            "address": None,
            "accuracy": "" if accuracy is None else percent(accuracy),
            "classes": len(entries),
            "above": "",
            "strongest": "",
            "columns": {key: cell(value) for key, value in model.columns.items()},
            "remark": remark(model),
        }
        if entries:
            strongest = max(entries, key=lambda entry: entry.shown.power.value)
            row |= {
                "address": self.address(model),
                "above": sum(entry.shown.beats_controls for entry in entries)
                if any(entry.shown.enough_images for entry in entries)
                else "too few images",
                "strongest": strongest.label,
                "strongest_address": self.address(model, strongest),
                "power": percent(strongest.shown.power.value),
            }
        return row

    def _card(
        self,
        model: Model,
        entry: ClassEntry,
        label: str,
        note: str = "",
        current: bool = False,
    ) -> Card:
        return Card(
            address=self.address(model, entry),
            image=self.image(model, entry, entry.best, entry.area),
            size=model.size,
            small=max(model.size) <= SMALL,
            label=label,
            named=entry.name is not None,
            target=entry.target,
            canvas=entry.best,
            area=entry.area,
            scores=entry.shown,
            note=note,
            current=current,
        )

    def class_page(self, model: Model, entry: ClassEntry) -> bytes:
        """The page of a class of a model."""
        order = list(model.classes)
        place = order.index(entry.target)
        before = model.classes[order[place - 1]] if place else None
        after = model.classes[order[place + 1]] if place + 1 < len(order) else None
        same = self._same[entry.target, entry.name]
        page = self._page.render(
            root="../../",
            model=model,
            entry=entry,
            variants=list(self._variants(model, entry)),
            canvases=list(entry.scores),
            before=before and (self.address(model, before), before.label),
            after=after and (self.address(model, after), after.label),
            others=[self._card(m, e, m.name, "", m is model) for m, e in same]
            if len(same) > 1
            else [],
            index=self.address(model) if len(self.models) > 1 else "index.html",
            facts=facts(model),
        )
        return encode(page)

    def _variants(self, model: Model, entry: ClassEntry) -> Iterator[Variant]:
        """Canvas by canvas, with the areas in the order of the slider."""
        height, width = model.size
        for canvas, areas in entry.scores.items():
            for area in sorted(areas):
                yield Variant(
                    canvas=canvas,
                    area=area,
                    kept=f"{percent_area(area)} of the pixels, "
                    f"{pixels_kept(area, model.size):,} of {height * width:,}",
                    image=self.image(model, entry, canvas, area),
                    canvas_image=self.canvas_image(model, entry, canvas)
                    if self.show_canvases
                    else None,
                    download=self.download(model, entry, canvas, area) if self.downloads else None,
                    scores=areas[area],
                    stands_out=(entry.target, canvas, area) in model.outstanding,
                    shown=(canvas, area) == (entry.best, entry.area),
                )


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
