"""Results as HTML: what a notebook shows of them, and pages of one file.

Pictures are PNG data inside the page. All texts are escaped. The same result gives the same bytes.
"""

from collections.abc import Iterable, Sequence
from io import BytesIO
from os import PathLike
from pathlib import Path
from typing import Any

import torch
from markupsafe import Markup
from PIL import Image
from torch import Tensor

from captum_classpattern._files import write_atomically
from captum_classpattern.pages.templating import (
    data_uri,
    encode,
    new_environment,
    policy,
    read_style,
)
from captum_classpattern.pattern import Pattern
from captum_classpattern.visualization.drawing import on_neutral
from captum_classpattern.visualization.style import EDGE

SIDE, MOST_PIXELS = 128, 224  # of a picture: small ones are enlarged, large ones reduced
THUMBNAIL = 112  # pixels of a photo that is only shown for comparison
DPI = 80  # of figures
FIGURE = "display:inline-block;margin:0 12px 8px 0;vertical-align:top;max-width:{}px"
OUTLINE = f"outline:1px solid {EDGE}"  # so that a white canvas shows


def fragment(title: str, *parts: Markup) -> str:
    """What a notebook shows of a result: a line in bold, and parts below it."""
    text = Markup("<div>\n<p><b>{}</b></p>\n{}\n</div>").format(title, Markup("\n").join(parts))
    return encode(text).decode()


def write_page(path: str | PathLike[str], title: str, *parts: Markup) -> Path:
    """Writes the same as a page that needs no other file; returns its path."""
    page = (
        new_environment()
        .get_template("page.html")
        .render(
            title=title,
            policy=policy("data:", style="'unsafe-inline'"),
            style=read_style(),
            content=Markup("\n").join(parts),
        )
    )
    write_atomically(Path(path), encode(page))
    return Path(path)


def paragraph(text: str) -> Markup:
    """A line of text."""
    return Markup("<p>{}</p>").format(text)


def table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> Markup:
    """A table of texts. The first cell of each row is its name."""
    head = Markup("").join(Markup("<th>{}</th>").format(column) for column in columns)
    body = Markup("\n").join(
        Markup("<tr><td>{}</td></tr>").format(Markup("</td><td>").join(row)) for row in rows
    )
    return Markup(
        '<div class="scroll"><table>\n<thead><tr>{}</tr></thead>\n'
        "<tbody>\n{}\n</tbody></table></div>"
    ).format(head, body)


def folded(summary: str, *parts: Markup) -> Markup:
    """Parts that open on a click."""
    return Markup("<details><summary>{}</summary>\n{}\n</details>").format(
        summary, Markup("\n").join(parts)
    )


def side_by_side(*captioned: Markup) -> Markup:
    """Pictures next to each other."""
    return Markup("<div>{}</div>").format(Markup("\n").join(captioned))


def picture(
    image: Tensor, alt: str, caption: str = "", *, least: int = SIDE, most: int = MOST_PIXELS
) -> Markup:
    """An image (C, H, W) in [0, 1] with a caption; a note if it is neither grey nor in colour. Its
    longer side is about ``least`` pixels if the image is smaller, and at most ``most``."""
    if image.shape[0] not in (1, 3):
        return paragraph(f"{alt}: {image.shape[0]} channels, so it can't be shown")
    shown = _resized(image.detach().float().cpu(), least, most)
    height, width = shown.shape[1:]
    return _figure(png(shown), width, height, alt, caption)


def pattern_picture(binary: Pattern, alt: str, caption: str = "", *, least: int = SIDE) -> Markup:
    """A pattern's pixels on a ground that is neither black nor white."""
    if binary.canvas.shape[0] not in (1, 3):
        return picture(binary.canvas, alt)
    return picture(on_neutral(binary), alt, caption, least=least)


def drawing(figure: Any, alt: str) -> Markup:
    """A matplotlib figure."""
    data, size = figure_png(figure, DPI)
    return Markup('<div class="scroll paper">{}</div>').format(_figure(data, *size, alt, ""))


def figure_png(figure: Any, dpi: int) -> tuple[bytes, tuple[int, int]]:
    """A matplotlib figure as PNG, and its width and height. A palette of 256 colours, whose
    extremes are kept, takes less than half of the space."""
    buffer, written = BytesIO(), BytesIO()
    figure.savefig(buffer, format="png", dpi=dpi)
    drawn = Image.open(buffer).convert("RGB").quantize(256, Image.Quantize.MAXCOVERAGE)
    drawn.save(written, "png", optimize=True)
    return written.getvalue(), drawn.size


def _figure(data: bytes, width: int, height: int, alt: str, caption: str) -> Markup:
    image = Markup('<img src="{}" width="{}" height="{}" alt="{}" style="{}">').format(
        data_uri(data), width, height, alt, OUTLINE
    )
    text = Markup("\n<figcaption>{}</figcaption>").format(caption) if caption else ""
    style = FIGURE.format(max(width, SIDE))
    return Markup('<figure style="{}">{}{}</figure>').format(style, image, text)


def _resized(image: Tensor, least: int, most: int) -> Tensor:
    """The image: enlarged by a whole number, so that its pixels stay squares, or reduced."""
    side = max(image.shape[1:])
    if side <= most:
        factor = max(1, least // side)
        return image.repeat_interleave(factor, 1).repeat_interleave(factor, 2)
    size = [max(1, round(n * most / side)) for n in image.shape[1:]]
    reduced = torch.nn.functional.interpolate(image[None], size, mode="bilinear", antialias=True)
    return reduced[0].clamp(0, 1)


def png(image: Tensor) -> bytes:
    """An image (C, H, W) in [0, 1]: grey or in colour, and perhaps with a channel of opacity."""
    pixels = (image.detach().cpu() * 255).round().byte().permute(1, 2, 0).numpy()
    written = BytesIO()
    Image.fromarray(pixels.squeeze(2) if pixels.shape[2] == 1 else pixels).save(written, "png")
    return written.getvalue()
