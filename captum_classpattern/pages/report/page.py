"""The page: everything that it shows goes through one template, which escapes it."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from captum_classpattern._files import write_atomically
from captum_classpattern.comparison import Comparison
from captum_classpattern.comparison.records import counted
from captum_classpattern.comparison.verdicts import FOUND_AT_ALL
from captum_classpattern.pages.parts import render, settings_lines
from captum_classpattern.pages.report.area_slider import area_slider
from captum_classpattern.pages.report.figures import CURVES, GIVEN, MAPS, PageFigure, draw_figures
from captum_classpattern.pages.report.tables import LEVELS, numbers_table, tables
from captum_classpattern.pages.tables import Column, Table
from captum_classpattern.scores.intervals import FEWEST_CLASSES
from captum_classpattern.visualization.formats import percent

TITLE = "Class patterns and other methods"
GROUPS = (CURVES, MAPS, GIVEN)
MOST_MODELS = 6  # in the line below the title
ACCURACIES = (
    Column("model", "model"),
    Column("accuracy on the held-out images", "accuracy", percent, missing="not known (no labels)"),
)
FAILURE = (
    Column("method", "method"), Column("model", "model"),
    Column("what failed", "what"), Column("reason", "reason"),
)  # fmt: skip


def write_report(
    comparison: Comparison,
    path: str | Path,
    *,
    title: str = TITLE,
    verdicts: Sequence[Mapping[str, Any]] | None = None,
    figures: Mapping[str, Any] | None = None,
) -> Path:
    r"""
    Writes a comparison as one HTML page: the patterns with a slider over the area, the verdicts and
    their numbers, and, folded, all figures, tables and settings.

    The page needs no network and no other file. Names and error messages are escaped, and a
    content security policy allows only the page's own script. The same comparison gives the same
    file. An existing file is replaced as a whole or not at all.

    Args:
        comparison (Comparison): The outcome of :func:`~captum_classpattern.compare`.
        path (str or Path): The file to write.
        title (str): Heading of the page. Default: "Class patterns and other methods".
        verdicts (Sequence[Mapping]): Claims that were tested: ``"holds"`` (bool), ``"text"`` (str,
            with the numbers) and optionally a ``"claim"`` or ``"title"``, a ``"model"``, a
            ``"value"`` and its ``"control"``, which make one line. Those that fail come first.
            Default: None (:meth:`Comparison.verdicts`).
        figures (Mapping[str, Figure], optional): Further matplotlib figures by their title.
            Default: None.

    Returns:
        *Path*: The file.

    Raises:
        ValueError: If a verdict has no ``"holds"`` that is True or False, or no ``"text"``.

    Examples::

        >>> from tempfile import mkdtemp
        >>> from captum_classpattern.comparison import RandomPixels, compare
        >>> net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 3)).eval()
        >>> images, labels = torch.rand(60, 1, 8, 8), torch.arange(60) % 3
        >>> comparison = compare(
        ...     {"linear": net}, images[:1], 0,
        ...     search=(images[:30], labels[:30]), held_out=(images[30:], labels[30:]),
        ...     methods={"RandomPixels": RandomPixels}, areas=[0.05, 0.1])
        >>> page = write_report(
        ...     comparison, mkdtemp() + "/report.html",
        ...     verdicts=[{"holds": False, "text": "Random pixels reach 90 %."}])
        >>> page.name, "Random pixels reach 90 %" in page.read_text(encoding="utf-8")
        ('report.html', True)
    """
    drawn = draw_figures(comparison, figures or {})
    return write_report_page(comparison, path, drawn, title=title, verdicts=verdicts)


def write_report_page(
    comparison: Comparison,
    path: str | Path,
    figures: Sequence[PageFigure],
    *,
    title: str = TITLE,
    verdicts: Sequence[Mapping[str, Any]] | None = None,
) -> Path:
    """The page of :func:`write_report`, with figures that were already drawn."""
    slider, shown = area_slider(comparison), tables(comparison)
    accuracies = [{"model": name, "accuracy": known} for name, known in comparison.models.items()]
    page = render(
        "report.html",
        title=title,
        models=comparison.models,
        most_models=MOST_MODELS,
        summary=_summary(comparison),
        interrupted=comparison.settings.get("complete") is False,
        slider=slider,
        verdicts=_sorted_verdicts(comparison.verdicts() if verdicts is None else verdicts),
        numbers=numbers_table(comparison),
        figures={group: [f for f in figures if f.group == group] for group in GROUPS},
        tables=shown,
        facets=_facets(shown),
        failures=Table(FAILURE, [f.as_dict() for f in comparison.failures], "failures", "Failures"),
        fewest_classes=FEWEST_CLASSES,
        found_from=f"{FOUND_AT_ALL:g}",
        accuracies=Table(ACCURACIES, accuracies),
        settings=settings_lines(comparison.settings),
    )
    path = Path(path)
    write_atomically(path, page)
    return path


def _summary(comparison: Comparison) -> str:
    methods = {record.method for record in comparison.records}
    methods |= {failure.method for failure in comparison.failures}
    parts = [
        counted(len(methods), "method"),
        f"{counted(len(comparison.canvases), 'canvas', 'canvases')} of "
        f"{counted(len(set(comparison.targets)), 'class', 'classes')}",
    ]
    images = comparison.settings.get("held_out_images")
    if isinstance(images, int):
        parts.append(
            f"scored on {counted(images, 'held-out image')} that are not among the search images"
        )
    version = comparison.settings.get("versions", {}).get("captum_classpattern")
    made = f" Made with captum_classpattern {version}." if version else ""
    return f"{', '.join(parts)}.{made}"


def _sorted_verdicts(verdicts: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Those that fail first."""
    checked = []
    for number, verdict in enumerate(verdicts):
        holds, text = verdict.get("holds"), verdict.get("text")
        if not isinstance(holds, bool) or not isinstance(text, str):
            raise ValueError(
                f'verdict {number} must have "holds" (True or False) and "text" (str), got '
                f"{dict(verdict)!r:.200}"
            )
        claim = verdict.get("claim") or verdict.get("title") or ""
        line = {key: str(verdict.get(key) or "") for key in ("model", "value", "control")}
        checked.append({"holds": holds, "claim": str(claim), "text": text, **line})
    return sorted(checked, key=lambda verdict: verdict["holds"])


def _facets(shown: Sequence[Table]) -> dict[str, list[tuple[str, bool]]]:
    """What the tables are filtered by: the values of each facet, and whether each is checked."""
    values: dict[str, dict[str, bool]] = {}
    for row in (row for table in shown for row in table.rows):
        for name, value in row["facets"].items():
            values.setdefault(name, {})[value] = (name, value) != ("map of", LEVELS["class"])
    return {name: [*checked.items()] for name, checked in values.items() if len(checked) > 1}
