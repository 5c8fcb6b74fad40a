"""The page: everything that it shows goes through one template, which escapes it."""

from base64 import b64encode
from collections.abc import Mapping, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any

from markupsafe import Markup

from captum_classpattern._files import write_atomically
from captum_classpattern.comparison import Comparison
from captum_classpattern.comparison.records import counted
from captum_classpattern.report.area_slider import area_slider
from captum_classpattern.report.figures import PageFigure, draw_figures
from captum_classpattern.report.formats import percent, settings_lines
from captum_classpattern.report.tables import LEVELS, Row, Table, tables, text_cell
from captum_classpattern.report.templating import encode, new_environment, read_template

TITLE = "Class patterns and other methods"


def write_report(
    comparison: Comparison,
    path: str | Path,
    *,
    title: str = TITLE,
    verdicts: Sequence[Mapping[str, Any]] | None = None,
    figures: Mapping[str, Any] | None = None,
) -> Path:
    r"""
    Writes a comparison as one HTML page: verdicts, figures, a slider over the area, tables that
    can be sorted and filtered, and all settings.

    The page needs no network and no other file. Names and error messages are escaped, and a
    content security policy allows only the page's own script. The same comparison gives the same
    file. An existing file is replaced as a whole or not at all.

    Args:
        comparison (Comparison): The outcome of :func:`~captum_classpattern.compare`.
        path (str or Path): The file to write.
        title (str): Heading of the page. Default: "Class patterns and other methods".
        verdicts (Sequence[Mapping]): Claims that were tested: ``"holds"`` (bool), ``"text"`` (str,
            with the numbers) and optionally a ``"claim"`` or ``"title"``. Those that fail come
            first. Default: None (:meth:`Comparison.verdicts`).
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
    return write_page(comparison, path, drawn, title=title, verdicts=verdicts)


def write_page(
    comparison: Comparison,
    path: str | Path,
    figures: Sequence[PageFigure],
    *,
    title: str = TITLE,
    verdicts: Sequence[Mapping[str, Any]] | None = None,
) -> Path:
    """The page of :func:`write_report`, with figures that were already drawn."""
    environment = new_environment()
    script = Markup(read_template(environment, "report.js"))
    style = Markup("".join(read_template(environment, name) for name in ("base.css", "report.css")))
    page = environment.get_template("report.html").render(
        title=title,
        script=script,
        style=style,
        policy=f"default-src 'none'; img-src data:; script-src {_hash(script)}; "
        f"style-src {_hash(style)}; base-uri 'none'; form-action 'none'",
        summary=_summary(comparison),
        verdicts=_sorted_verdicts(comparison.verdicts() if verdicts is None else verdicts),
        figures=figures,
        slider=area_slider(comparison),
        tables=tables(comparison),
        facets=_facets(comparison),
        failures=_failures(comparison),
        interrupted=comparison.settings.get("complete") is False,
        models=[(name, _accuracy(value)) for name, value in comparison.models.items()],
        settings=settings_lines(comparison.settings),
    )
    path = Path(path)
    write_atomically(path, encode(page))
    return path


def _hash(text: str) -> str:
    return f"'sha256-{b64encode(sha256(text.encode()).digest()).decode()}'"


def _accuracy(value: float | None) -> str:
    return "not known (no labels)" if value is None else percent(value)


def _summary(comparison: Comparison) -> str:
    methods = {record.method for record in comparison.records}
    methods |= {failure.method for failure in comparison.failures}
    parts = [
        counted(len(comparison.models), "model"),
        counted(len(methods), "method"),
        f"{counted(len(comparison.canvases), 'canvas', 'canvases')} of "
        f"{counted(len(set(comparison.targets)), 'class', 'classes')}",
    ]
    images = comparison.settings.get("held_out_images")
    if isinstance(images, int):
        parts.append(
            f"scored on {counted(images, 'held-out image')} that are not among the search images"
        )
    return ", ".join(parts)


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
        checked.append({"holds": holds, "claim": str(claim), "text": text})
    return sorted(checked, key=lambda verdict: verdict["holds"])


def _facets(comparison: Comparison) -> dict[str, list[tuple[str, bool]]]:
    """What the tables are filtered by: the values of each facet, and whether each is checked."""
    records = comparison.records
    values = {
        "model": dict.fromkeys(record.model for record in records),
        "canvas": dict.fromkeys(record.kind for record in records),
        "map of": dict.fromkeys(LEVELS[record.level] for record in records),
        "ranking": dict.fromkeys(record.ranking for record in records),
    }
    return {
        name: [(value, (name, value) != ("map of", LEVELS["class"])) for value in of_facet]
        for name, of_facet in values.items()
        if len(of_facet) > 1
    }


def _failures(comparison: Comparison) -> Table:
    rows = [
        Row([text_cell(text) for text in (f.method, f.model, f.what, f.reason)])
        for f in comparison.failures
    ]
    return Table("failures", "Failures", "", ["method", "model", "what failed", "reason"], rows)
