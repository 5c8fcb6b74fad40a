"""``write_gallery``: the folder of a survey or of a sweep as a static site, with one page per model
and class. It is made of findings; their patterns are read one class at a time."""

import json
import os
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, TypeAlias
from urllib.parse import quote

import torch
from markupsafe import Markup
from tqdm import tqdm

from captum_classpattern._files import replace_folder
from captum_classpattern.adapters.load import model_name
from captum_classpattern.classifier.class_names import as_file_name, file_safe
from captum_classpattern.pages.kinds.finding import NOTE, SCORES, score_rows
from captum_classpattern.pages.kinds.survey import facts
from captum_classpattern.pages.kinds.sweep import summary
from captum_classpattern.pages.parts import Column, Table, plain, png, read_files, render
from captum_classpattern.pattern import Pattern, pixels_kept
from captum_classpattern.scores.power import ENOUGH_IMAGES
from captum_classpattern.surveys import Finding, Survey, Sweep, stands_out
from captum_classpattern.surveys.store import RESULTS, Store, read_finding
from captum_classpattern.visualization.drawing import check_channels
from captum_classpattern.visualization.formats import percent, percent_area

CANVASES = ("show", "hide")
MARKER, FORMAT = "gallery.json", "captum_classpattern gallery"
PARTS = {"index.html", MARKER, "assets", "models"}  # all that a gallery's folder holds
LEFT_BY_FILE_MANAGERS = {".ds_store", "thumbs.db", "desktop.ini"}
SWEEP = "sweep.json"
NAMES = (Column("canvas", "canvas"), Column("pixels", "area", percent_area))
MODELS = (
    Column("model", "model"),
    Column("accuracy", "accuracy", percent, missing=""),
    Column("classes", "classes"),
    Column("above controls", "above", missing=""),
    Column("strongest class", "strongest", missing=""),
)


def write_gallery(
    folder: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    canvases: str = "show",
    title: str | None = None,
    downloads: bool = True,
    show_progress: bool = False,
) -> Path:
    r"""
    Writes the folder of a survey or of a sweep as a static site: an index of all classes, which can
    be searched and sorted, and one page per model and class.

    The site opens from the disk and from any web server, and loads nothing from the network. The
    address of a class is ``models/<model>/<class number>_<name>.html``. It stays when other classes
    and models are added to the folder. Names are escaped, and a content security policy allows only
    the site's own script. Patterns are read one class at a time. Neither the paths of checkpoints
    nor why a class failed are published, since they may hold the names of your folders.

    The site is written next to ``out`` and renamed when it is complete.

    Args:
        folder (str or PathLike): What ``survey(..., folder=...)``, :meth:`Survey.save` or
            ``classpattern search`` wrote, or what :func:`sweep` or ``classpattern sweep`` wrote,
            finished or not. ``<model>`` is the model's folder in the sweep; for a survey it is the
            name of the checkpoint, or of ``folder`` if the model did not come from one.
        out (str or PathLike): The folder of the site. It must be new, empty, or a gallery, which
            is replaced.
        canvases (str): ``"show"`` shows each canvas next to its pattern, and three held-out images
            with the pattern. ``"hide"`` is for photos that must not be published: no file then
            holds any pixel of a held-out image, nor of a canvas outside of its pattern, and
            downloaded patterns are binary. Default: "show".
        title (str, optional): Heading of the index, to which all pages link by it. Default: None
            (it names the model, or the number of models).
        downloads (bool): Whether each pattern can be downloaded, as a file for
            :meth:`Pattern.load`. At 224 x 224 pixels such a file has 0.8 MB. Default: True.
        show_progress (bool): Draws a progress bar. Default: False.

    Returns:
        *Path*: The index, ``index.html``.

    Raises:
        FileNotFoundError: If the folder holds neither a survey nor a sweep, or if a pattern is
            missing.
        ValueError: If no class is finished, a file is damaged, canvases are not greyscale or colour
            images, or ``out`` holds anything that is not a gallery's.

    Examples::

        >>> from tempfile import mkdtemp
        >>> from captum_classpattern import LabelledImages, survey
        >>> net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 3)).eval()
        >>> images, labels = torch.rand(120, 1, 8, 8), torch.arange(120) % 3
        >>> found = survey(
        ...     net, (images[:60], labels[:60]), (images[60:], labels[60:]),
        ...     areas=(0.1,), canvases={"white": 1}, n_steps=2)
        >>> folder = mkdtemp()
        >>> found.save(folder + "/linear")
        >>> index = write_gallery(folder + "/linear", folder + "/site")
        >>> sorted(path.name for path in index.parent.glob("models/linear/*.html"))
        ['0.html', '1.html', '2.html']
    """
    if canvases not in CANVASES:
        raise ValueError(f"`canvases` must be {' or '.join(map(repr, CANVASES))}, got {canvases!r}")
    folder, out = Path(folder), Path(out)
    _check_replaceable(out, folder)
    models = read_models(folder)
    pages = Pages(models, title, canvases == "show", downloads)
    count = sum(len(model.best) for model in models)
    with (
        replace_folder(out.resolve()) as new,
        tqdm(total=count, desc="pages", unit="page", disable=not show_progress) as progress,
    ):
        for name, data in pages.files().items():
            _write(new / name, data)
        for model in models:
            for target, findings in model.classes.items():
                for finding in findings:
                    _write_patterns(new, pages, model, finding)
                page = pages.class_page(model, target)
                _write(new / address(model, model.best[target]), page)
                progress.update()
            if len(models) > 1 and model.best:
                _write(new / address(model), pages.index(model))
    return out / "index.html"


def _check_replaceable(out: Path, folder: Path) -> None:
    """Raises an error if writing the site would remove anything but a gallery."""
    if out.exists() and not out.is_dir():
        raise ValueError(f"{out} is a file: give a folder for the gallery")
    if folder.resolve().is_relative_to(out.resolve()):
        raise ValueError(f"{folder} lies in {out}, which is replaced: give another folder")
    found = {path.name for path in out.iterdir()} if out.exists() else set()
    entries = {name for name in found if name.lower() not in LEFT_BY_FILE_MANAGERS}
    others = sorted(entries - PARTS)
    if others or (entries and MARKER not in entries):
        held = ", ".join((others or sorted(entries))[:3])
        raise ValueError(
            f"{out} is not a gallery, or not only: it holds {held}. A gallery replaces its folder: "
            "give a new or empty one"
        )


# ---- what is shown


@dataclass(frozen=True)
class Model:
    """A model: what pages call it, its folder in the site, what was found so far, the folder of
    that survey, height and width of the patterns, what a sweep's manifest says about it, and what
    is missing."""

    name: str
    folder: str
    survey: Survey
    path: Path
    size: tuple[int, int] = (0, 0)
    columns: Mapping[str, Any] = field(default_factory=dict)
    remark: str = ""

    @cached_property
    def best(self) -> dict[int, Finding]:
        """For each class the finding on the canvas that did best on the judging images."""
        return {finding.target: finding for finding in self.survey.best_canvases()}

    @cached_property
    def classes(self) -> dict[int, list[Finding]]:
        """The findings of each class."""
        found: dict[int, list[Finding]] = {}
        for finding in self.survey:
            found.setdefault(finding.target, []).append(finding)
        return found

    @cached_property
    def outstanding(self) -> Collection[tuple[int, str, float]]:
        """The class, canvas and area of each pattern that stands out."""
        found = set()
        for canvas, area in {(each.canvas, area) for each in self.survey for area in each.scores}:
            scores = self.survey.scores(canvas, area)
            first = max(scores, key=lambda target: scores[target].power.value)
            if stands_out(scores, first, self.survey.n_classes or 0):
                found.add((first, canvas, area))
        return found

    def read(self, finding: Finding) -> Finding:
        """The finding with its patterns, which are forgotten with it."""
        return read_finding(finding.as_dict(), self.path / "patterns")


def read_models(folder: Path) -> list[Model]:
    """All models of a sweep's folder, also those of which no class is finished; or the one of a
    survey's folder."""
    if (folder / SWEEP).exists():
        models = [*_of_sweep(Sweep(folder))]
    elif (folder / RESULTS).is_file():
        survey = Survey.load(folder)
        name = _name_of(survey.provenance) or folder.resolve().name
        model = Model(name, file_safe(name).strip(".") or "model", survey, folder)
        models = [_checked(model, survey.info.get("classes", ()))]
    else:
        raise FileNotFoundError(
            f"there is no survey and no sweep in {folder}: it has neither {RESULTS} nor {SWEEP}. "
            "Give the folder that classpattern search or classpattern sweep wrote"
        )
    if not any(model.best for model in models):
        raise ValueError(f"no class in {folder} is finished yet: there is nothing to show")
    return models


def _of_sweep(sweep: Sweep) -> Iterator[Model]:
    """The models of a sweep, in its order."""
    for name in sweep.models:
        path, columns = sweep.folder_of(name), sweep.sources[name].columns
        looks = [path] if sweep.first_look is None else [path, sweep.first_look.folder / path.name]
        opened = any((look / RESULTS).exists() for look in looks)
        # without a summary, which someone removed, there may still be findings
        survey = sweep.survey(name) if (path / RESULTS).exists() else Survey(Store(path).findings())
        failed = {row["class"] for row in sweep.failures if row["model"] == name}
        model = Model(name, path.name, survey, path, columns=columns)
        yield _checked(model, sweep.classes, failed, opened)


def _checked(
    model: Model, wanted: Collection[int], failed: Collection[int] = (), opened: bool = True
) -> Model:
    """The model with the size of its patterns, and a remark on what is missing. Reasons are left
    out, since they may hold the names of files."""
    counts = {"failed": len(failed), "not searched": len({*wanted} - {*model.best, *failed})}
    remark = ", ".join(
        f"{n:,} class{'' if n == 1 else 'es'} {what}" for what, n in counts.items() if n
    )
    if failed and not opened:
        remark = "could not be opened"
    size = (0, 0)
    if model.best:
        height, width = model.read(next(iter(model.best.values()))).pattern.mask.shape[1:]
        size = (height, width)
    return replace(model, size=size, remark=remark)


def _name_of(provenance: Any) -> str | None:
    """A name for a model that was loaded by :func:`load_model`: that of its file, without the
    folders, which are private, or of its architecture."""
    known = provenance if isinstance(provenance, Mapping) else {}
    source, arch = known.get("source"), known.get("arch")
    if isinstance(source, str):
        return model_name(source)
    return re.split(r"[:/\\]", arch)[-1] if isinstance(arch, str) else None


# ---- files


def address(model: Model, finding: Finding | None = None) -> str:
    """The page of a class, or of a model."""
    return f"models/{model.folder}/{'index' if finding is None else _stem(finding)}.html"


def file_of(model: Model, finding: Finding, end: str) -> str:
    """A file of a finding: ``canvas.png``, or an area with ``.png`` or ``.safetensors``."""
    return f"models/{model.folder}/patterns/{_stem(finding)}_{file_safe(finding.canvas)}_{end}"


def _stem(finding: Finding) -> str:
    """How the names of the class's files begin: ``12_house_finch``."""
    name, number = finding.class_name, f"{finding.target}"
    return number if name is None else f"{number}_{as_file_name(str(name))}"


def _write_patterns(new: Path, pages: "Pages", model: Model, saved: Finding) -> None:
    """The images of a finding's patterns and of its canvas, and the patterns to download."""
    finding = model.read(saved)
    check_channels(finding.pattern.canvas)
    if pages.show_canvases:
        canvas = png(finding.pattern.canvas.float())
        _write(new / file_of(model, finding, "canvas.png"), canvas)
    for area, pattern in finding.patterns.items():
        binary = pattern.topk(area)
        _write(new / file_of(model, finding, f"{area:g}.png"), pattern_png(binary))
        if pages.show_canvases and finding.stamped:
            for number, image in enumerate(finding.stamped[area].images, 1):
                _write(new / file_of(model, finding, f"{area:g}_{number}.png"), png(image))
        if pages.downloads:
            shown = pattern if pages.show_canvases else replace(binary, canvas=binary.pixels)
            # with the hashes of the search images, so that it can be scored
            shown.save(new / file_of(model, finding, f"{area:g}.safetensors"))


def pattern_png(binary: Pattern) -> bytes:
    """The pixels that a binary mask keeps. All others are transparent, and black where a program
    ignores transparency, so that nothing of the canvas is in the file."""
    alpha = binary.mask.float()
    return png(torch.cat([binary.canvas.float() * alpha, alpha]))


def _write(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)


# ---- pages

Card: TypeAlias = tuple[Model, Finding]  # it shows the best pattern of a class of a model


class Pages:
    """Renders the pages of a gallery, each as bytes. ``title`` and ``downloads`` are those of
    :func:`write_gallery`."""

    def __init__(
        self, models: Sequence[Model], title: str | None, show_canvases: bool, downloads: bool
    ) -> None:
        self.models, self.show_canvases, self.downloads = models, show_canvases, downloads
        found = [model.name for model in models if model.best]
        of = found[0] if len(found) == 1 else f"{len(found)} models"
        self._shared = {
            "title": f"Class patterns of {of}" if title is None else title,
            "enough": ENOUGH_IMAGES,
            "many": len(models) > 1,
            "names_model": len(models) > 1 or title is None,
            "show_canvases": show_canvases,
            "downloads": downloads,
            "address": address,
            "file_of": file_of,
            "pixels_kept": pixels_kept,
            "facts": lambda model: facts(model.survey.info, model.columns),
            "note": NOTE,
        }
        self._same: dict[tuple[int, str | None], list[Card]] = {}
        for model in models:
            for best in model.best.values():
                self._same.setdefault((best.target, best.class_name), []).append((model, best))

    def files(self) -> dict[str, bytes]:
        """The files that all pages share, and the index."""
        return {
            MARKER: json.dumps({"format": FORMAT}).encode(),
            "assets/gallery.css": read_files("page.css", "parts.css", "gallery.css").encode(),
            "assets/gallery.js": read_files("gallery.js").encode(),
            "index.html": self.index(),
        }

    def index(self, model: Model | None = None) -> bytes:
        """All classes, each with its pattern of the model that did best on the judging images; or
        the classes of one of several models."""
        shown = self.models if model is None else [model]
        cards = [(each, best) for each in shown for best in each.best.values()]
        if model is None:
            cards = [
                max(same, key=lambda card: card[1].search_powers[card[1].area])
                for same in self._same.values()
            ]
        scores = [best.scores[best.area] for _, best in cards]
        alone = shown[0] if len(shown) == 1 else None
        return render(
            "gallery_index.html",
            **self._shared,
            root="" if model is None else "../../",
            model=model,
            cards=sorted(cards, key=lambda card: (-card[1].power.value, card[1].target)),
            compared=sum(each.enough_images for each in scores),
            above=sum(each.beats_controls for each in scores),
            alone=alone,
            models=None if alone else self._models_table(),
            any_remark=any(each.remark for each in shown),
        )

    def _models_table(self) -> Table:
        """A row for each model. One without a finished class has no page."""
        further = dict.fromkeys(key for model in self.models for key in model.columns)
        columns = [*MODELS, *(Column(key, f"further {key}", plain, missing="") for key in further)]
        if any(model.remark for model in self.models):
            columns.append(Column("remarks", "remark"))
        link, rows = Markup('<a href="{}">{}</a>'), []
        for model in self.models:
            row: dict[str, Any] = {
                "model": model.name,
                "accuracy": model.survey.info.get("accuracy"),
                "classes": len(model.best),
                "remark": model.remark,
                **{f"further {key}": value for key, value in model.columns.items()},
            }
            if model.best:
                row |= summary([*model.best.values()])
                first = row["first"]
                row["model"] = link.format(quote(address(model)), model.name)
                strongest = link.format(quote(address(model, first)), first.label)
                row["strongest"] = strongest + f", {percent(first.power.value)}"
            rows.append(row)
        return Table(columns, rows)

    def class_page(self, model: Model, target: int) -> bytes:
        """The page of a class of a model."""
        findings, best = model.classes[target], model.best[target]
        order, place = [None, *model.best.values(), None], [*model.best].index(target)
        same = self._same[target, best.class_name]
        rows = [  # in the order of the slider
            row for each in findings for row in sorted(score_rows([each]), key=lambda r: r["area"])
        ]
        return render(
            "gallery_class.html",
            **self._shared,
            root="../../",
            model=model,
            best=best,
            findings=findings,
            stamped={
                (each.canvas, area): stamped.predictions_for(target)
                for each in map(model.read, findings)
                for area, stamped in (each.stamped or {}).items()
            },
            numbers=Table([*NAMES, *SCORES], rows),
            before=order[place],
            after=order[place + 2],
            others=same if len(same) > 1 else [],
        )
