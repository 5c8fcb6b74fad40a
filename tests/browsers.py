"""Pages in a browser, as the tests look at them."""

import shutil
from contextlib import contextmanager

import pytest

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
FOUND = next((path for name in BROWSERS if (path := shutil.which(name))), None)
MARKS = [
    pytest.mark.browser,
    pytest.mark.skipif(FOUND is None, reason=f"none of {', '.join(BROWSERS)} is on PATH"),
]


@contextmanager
def started_browser():
    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    with sync_api.sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=FOUND, args=["--no-sandbox"])
        yield started
        started.close()


@contextmanager
def watched_pages(browser):
    """A function that opens a file as a page. At the end there must be no error, no message, and no
    request but for the file, and for what is in the folder of an index."""
    contexts, wrong = [], []

    def open_page(file, **settings):
        context = browser.new_context(**{"viewport": {"width": 1280, "height": 900}, **settings})
        contexts.append(context)
        page = context.new_page()
        page.on("console", lambda message: wrong.append(message.text))
        page.on("pageerror", lambda error: wrong.append(str(error)))
        own = file.parent if file.name == "index.html" else file
        allowed = (own.as_uri(), "data:")
        page.on("request", lambda r: r.url.startswith(allowed) or wrong.append(r.url))
        page.goto(file.as_uri())
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert not wrong


def check_colours(page, selector, *, dark):
    """Text is light on dark or dark on light, with enough contrast."""
    text, ground = page.eval_on_selector(
        f"{selector} >> visible=true",
        "e => { let g = e; while (getComputedStyle(g).backgroundColor === 'rgba(0, 0, 0, 0)')"
        " g = g.parentElement;"
        " return [getComputedStyle(e).color, getComputedStyle(g).backgroundColor]; }",
    )
    text, ground = (luminance(colour) for colour in (text, ground))
    assert (text > ground) is dark
    assert (max(text, ground) + 0.05) / (min(text, ground) + 0.05) >= 4.5  # WCAG AA


def luminance(colour):
    """Relative luminance of ``rgb(1, 2, 3)``, by WCAG 2."""
    levels = [int(part) / 255 for part in colour[4:-1].split(",")]
    red, green, blue = (x / 12.92 if x <= 0.04045 else ((x + 0.055) / 1.055) ** 2.4 for x in levels)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue
