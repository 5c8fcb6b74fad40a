"""``write_gallery``: which files a gallery has, and how they are written."""

import json
import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import torch
from tqdm import tqdm

from captum_classpattern._files import replace_folder
from captum_classpattern.pages.gallery.pages import Pages
from captum_classpattern.pages.gallery.source import ClassEntry, Model, read_models
from captum_classpattern.pages.parts import png
from captum_classpattern.pattern import Pattern
from captum_classpattern.surveys import Finding
from captum_classpattern.surveys.store import Store
from captum_classpattern.visualization.drawing import check_channels

CANVASES = ("show", "hide")
MARKER, FORMAT = "gallery.json", "captum_classpattern gallery"
PARTS = {"index.html", MARKER, "assets", "models"}  # all that a gallery's folder holds
LEFT_BY_FILE_MANAGERS = {".ds_store", "thumbs.db", "desktop.ini"}


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
        canvases (str): ``"show"`` shows each canvas next to its pattern. ``"hide"`` is for photos
            that must not be published: no file then holds any pixel of a canvas outside of its
            pattern, and downloaded patterns are binary. Default: "show".
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
    count = sum(len(model.classes) for model in models)
    with (
        replace_folder(out.resolve()) as new,
        tqdm(total=count, desc="pages", unit="page", disable=not show_progress) as progress,
    ):
        _write(new / MARKER, json.dumps({"format": FORMAT}).encode())
        for name, text in pages.assets.items():
            _write(new / "assets" / name, text.encode())
        for model in models:
            for entry, finding in _findings(model):
                _write_patterns(new, pages, model, entry, finding)
            for entry in model.classes.values():
                page = pages.class_page(model, entry)
                _write(new / pages.address(model, entry), page)
                progress.update()
            if len(models) > 1 and model.classes:
                _write(new / pages.address(model), pages.model_index(model))
        _write(new / "index.html", pages.index())
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


def _findings(model: Model) -> Iterator[tuple[ClassEntry, Finding]]:
    """The findings of a model, with the patterns of one class at a time."""
    store = Store(model.survey)
    for target, entry in model.classes.items():
        for finding in store.found.pop(target):
            yield entry, finding


def _write_patterns(
    new: Path, pages: Pages, model: Model, entry: ClassEntry, finding: Finding
) -> None:
    """The images of a finding's patterns and of its canvas, and the patterns to download."""
    check_channels(finding.pattern.canvas)
    if pages.show_canvases:
        _write(
            new / pages.canvas_image(model, entry, finding.canvas),
            png(finding.pattern.canvas.float()),
        )
    for area, pattern in finding.patterns.items():
        binary = pattern.topk(area)
        _write(new / pages.image(model, entry, finding.canvas, area), pattern_png(binary))
        if pages.downloads:
            path = new / pages.download(model, entry, finding.canvas, area)
            shown = pattern if pages.show_canvases else replace(binary, canvas=binary.pixels)
            shown.save(path)  # with the hashes of the search images, so that it can be scored


def pattern_png(binary: Pattern) -> bytes:
    """The pixels that a binary mask keeps. All others are transparent, and black where a program
    ignores transparency, so that nothing of the canvas is in the file."""
    alpha = binary.mask.float()
    return png(torch.cat([binary.canvas.float() * alpha, alpha]))


def _write(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
