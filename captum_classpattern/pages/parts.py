"""What pages and notebooks show of a result: its text, its table, its figure and further parts.

Pictures are PNG data inside the page. All texts are escaped. The same result gives the same bytes.
"""

import re
from base64 import b64encode
from collections.abc import Iterable, Mapping
from hashlib import sha256
from io import BytesIO
from pathlib import Path
from typing import Any

import torch
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup, escape
from PIL import Image
from torch import Tensor

from captum_classpattern._support import formats
from captum_classpattern._support.files import write_atomically
from captum_classpattern._support.validation import counted
from captum_classpattern.visualization import style
from captum_classpattern.visualization.drawing import levels, on_neutral

SIDE, MOST_PIXELS = 128, 224  # of a picture: small ones are enlarged, large ones reduced
THUMBNAIL = 112  # pixels of a photo that is only shown for comparison
LARGE_DPI, DPI, SMALL = 80, 110, 7  # of figures; inches that fit on a small screen
FIGURE = "display:inline-block;margin:0 12px 8px 0;vertical-align:top;max-width:{}px"
OUTLINE = f"outline:1px solid {style.EDGE}"  # so that a white canvas shows
TEMPLATES = Path(__file__).with_name("templates")


# ---- pages


def read_files(*names: str) -> Markup:
    """The text of style sheets or scripts, which are next to the templates."""
    return Markup("".join((TEMPLATES / name).read_text(encoding="utf-8") for name in names))


def render(template: str, **values: Any) -> bytes:
    """A page. All values are escaped, and one that is missing is an error. Names may hold lone
    surrogates, which UTF-8 can't encode."""
    page = ENVIRONMENT.get_template(template).render(values)
    return page.encode("utf-8", "xmlcharrefreplace")


def write_page(path: Path, text: str, sections: Iterable[Any]) -> Path:
    """Writes the page of a result from its text and its sections; returns its path."""
    return write(path, render("page.html", **content_of(text, sections)))


def write(path: Path, page: bytes) -> Path:
    """Writes a page, and the folders that it needs; returns its path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, page)
    return path


def content_of(text: str, sections: Iterable[Any]) -> dict[str, str]:
    """The first line of a text as the title; and as HTML the first section, if it is a picture, the
    other lines, and the other sections."""
    title, *lines = text.split("\n")
    parts = [*sections]
    picture = [part for part in parts[:1] if callable(part) or isinstance(part, Markup)]
    shown = (section(each, title) for each in (*picture, *lines, *parts[len(picture) :]))
    content = Markup("\n").join(shown).replace(" %", f"{formats.SPACE}%")
    return {"title": title, "content": Markup(content)}


def section(part: Any, title: str) -> Markup:
    """A part of a result's page, see :meth:`Result.sections`."""
    if isinstance(part, Markup):
        return part
    if isinstance(part, str):
        return Markup("<p>{}</p>").format(_with_code(part))
    if isinstance(part, list):
        items = Markup("\n").join(Markup("<li>{}</li>").format(_with_code(each)) for each in part)
        return Markup("<ol>{}</ol>").format(items)
    if not callable(part):
        return table(part)
    try:
        figure, _ = part(use_pyplot=False)
    except ValueError as error:  # images of two channels, for example
        return section(str(error), title)
    return drawing(figure, title)


def _with_code(text: str) -> Markup:
    """A text whose parts in backticks are code."""
    return Markup(re.sub("`(.+?)`", r"<code>\1</code>", str(escape(text))))


def macro(name: str, *values: Any) -> Markup:
    """A part that pages and templates share."""
    return Markup(getattr(ENVIRONMENT.get_template("macros.html").module, name)(*values))


def plain(value: Any) -> str:
    """A setting as text."""
    if isinstance(value, list | tuple):
        return ", ".join(map(plain, value)) or "none"
    return "defaults" if value == {} else "none" if value is None else str(value)


ENVIRONMENT = Environment(
    loader=FileSystemLoader(TEMPLATES),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
    keep_trailing_newline=True,
)
ENVIRONMENT.filters |= {
    "percent": formats.percent,
    "percent_area": formats.percent_area,
    "percent_range": lambda interval: formats.percent_range(*interval),
    "axis": lambda share: f"{100 * share:.4g}",
    # a script or style sheet, as a content security policy allows it
    "hashed": lambda text: f"'sha256-{b64encode(sha256(text.encode()).digest()).decode()}'",
    "plain": plain,
}


# ---- parts


def heading(text: str) -> Markup:
    """What is above some parts."""
    return Markup("<h2>{}</h2>").format(text)


def code(text: str) -> Markup:
    """Lines to copy."""
    return Markup("<pre><code>{}</code></pre>").format(text)


def listed(cards: Iterable[Markup]) -> Markup:
    """Cards in a grid."""
    return Markup('<ul class="found">\n{}\n</ul>').format(Markup("\n").join(cards))


def table(frame: Any) -> Markup:
    """A DataFrame of texts. The first column is the name of the row."""
    rows = frame.astype(object).where(frame.notna(), formats.DASH).to_numpy().tolist()
    return Markup(macro("table_of", [*frame.columns], rows).replace(" %", f"{formats.SPACE}%"))


def folded(summary: str, *sections: Any) -> Markup:
    """Sections that open on a click."""
    parts = Markup("\n").join(section(each, summary) for each in sections)
    return Markup("<details><summary>{}</summary>\n{}\n</details>").format(summary, parts)


def settings(values: Mapping[str, Any]) -> Markup:
    """Settings that open on a click, without unknown ones; nothing if none is known."""
    known = {key: value for key, value in values.items() if value not in (None, {})}
    return folded("Images and settings", macro("settings", known)) if known else Markup("")


def picture(image: Tensor, alt: str, caption: str = "", *, most: int = MOST_PIXELS) -> Markup:
    """An image (C, H, W) in [0, 1] with a caption; a note if it is neither grey nor in colour.
    Small ones are enlarged. The longer side is at most ``most`` pixels."""
    if image.shape[0] not in (1, 3):
        channels = counted(image.shape[0], "channel")
        return section(f"{alt}: {channels}, so it can't be shown", alt)
    shown, side = image.detach().float().cpu(), max(image.shape[1:])
    if side > most:
        size = [max(1, round(n * most / side)) for n in shown.shape[1:]]
        resize = torch.nn.functional.interpolate
        shown = resize(shown[None], size, mode="bilinear", antialias=True)[0].clamp(0, 1)
    else:  # by a whole number, so that its pixels stay squares
        factor = max(1, SIDE // side)
        shown = shown.repeat_interleave(factor, 1).repeat_interleave(factor, 2)
    pixels, written = levels(shown), BytesIO()
    Image.fromarray(pixels.squeeze(2) if pixels.shape[2] == 1 else pixels).save(written, "png")
    return _figure(written.getvalue(), (shown.shape[2], shown.shape[1]), alt, caption)


def pattern_picture(canvas: Tensor, mask: Tensor, alt: str, caption: str = "") -> Markup:
    """The pixels of a canvas that a mask keeps, on a ground that is neither black nor white."""
    can_be_drawn = canvas.shape[0] in (1, 3)
    return picture(on_neutral(canvas, mask) if can_be_drawn else canvas, alt, caption)


ENVIRONMENT.globals |= {"read_files": read_files, "table": table, "counted": counted}


def drawing(figure: Any, alt: str) -> Markup:
    """A matplotlib figure, in a box that scrolls unless the figure is small. A palette of 256
    colours, whose extremes are kept, takes less than half of the space."""
    small, buffer, written = figure.get_figwidth() <= SMALL, BytesIO(), BytesIO()
    figure.savefig(buffer, format="png", dpi=DPI if small else LARGE_DPI)
    image = Image.open(buffer).convert("RGB").quantize(256, Image.Quantize.MAXCOVERAGE)
    image.save(written, "png", optimize=True)
    drawn = _figure(written.getvalue(), image.size, alt, "")
    return drawn if small else Markup('<div class="scroll paper">{}</div>').format(drawn)


def _figure(data: bytes, size: tuple[int, int], alt: str, caption: str) -> Markup:
    source = f"data:image/png;base64,{b64encode(data).decode()}"
    image = Markup('<img src="{}" width="{}" height="{}" alt="{}" style="{}">').format(
        source, *size, alt, OUTLINE
    )
    text = Markup("\n<figcaption>{}</figcaption>").format(caption) if caption else ""
    width = FIGURE.format(max(size[0], SIDE))
    return Markup('<figure style="{}">{}{}</figure>').format(width, image, text)
