"""What all results share that show themselves in a notebook."""

from base64 import b64decode
from io import BytesIO

from PIL import Image
from reports import Page

HOSTILE = "<img src=x onerror=alert(1)> & \"'\N{LATIN SMALL LETTER E WITH ACUTE}\udcff"
DATA = "data:image/png;base64,"


def read(result, *, pictures=None):
    """The parsed HTML of a result, after the checks that hold for all: every picture is PNG data of
    the size that is stated, nothing else is loaded or run, it is small, and always the same."""
    html = result._repr_html_()
    assert result._repr_html_() == html
    assert len(html.encode()) < 160_000
    return check(html, pictures=pictures)


def check(html, *, pictures=None):
    page = Page(html)
    images = [attributes for tag, attributes in page.tags if tag == "img"]
    assert pictures in (None, len(images))
    for image in images:
        assert image["src"].startswith(DATA)
        decoded = Image.open(BytesIO(b64decode(image["src"].removeprefix(DATA))))
        decoded.load()
        assert decoded.size == (int(image["width"]), int(image["height"]))
        assert min(decoded.size) > 0
        assert image["alt"]
    names = {name for _, attributes in page.tags for name in attributes}
    assert names <= {"src", "width", "height", "alt", "style", "lang", "charset", "scope"} | {
        "http-equiv", "content", "name", "class", "viewbox", "d", "aria-hidden",
        "preserveaspectratio", "tabindex",
    }  # fmt: skip
    tags = {tag for tag, _ in page.tags}
    assert not tags & {"script", "iframe", "link", "a"}
    return page


def percent(share):
    return f"{100 * share:.1f}\xa0%"


def cells_of(scores):
    """The power, the strongest control and the other controls of a pattern, as pages write them."""
    power, (low, high) = scores.power, (100 * end for end in scores.power.interval)
    cells = [f"{percent(power.value)} ({low:.1f} to {high:.1f})", percent(scores.strongest_control)]
    shares = (power.without, scores.random_pixels, scores.other_canvas)
    above = "yes" if scores.beats_controls else "no"
    return [*cells, f"{power.n}", *map(percent, shares), above]


def table_of(page):
    """The rows of the last table, by their first cell."""
    *_, (head, *rows) = page.tables.values()
    return {row[0]: dict(zip(head[1:], row[1:])) for row in rows}
