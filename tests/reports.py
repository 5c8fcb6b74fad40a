"""Shared by tests of reports: a small comparison, and a parser of the page."""

from functools import cache
from html.parser import HTMLParser

import torch
from captum.attr import Saliency
from markupsafe import Markup

from captum_classpattern import ClassPattern, Pattern, PixelClassifier
from captum_classpattern.comparison import BestRandomMask, RandomPixels, compare, report

AREAS = [0.05, 0.1, 0.3]
VOID = {"meta", "link", "img", "input", "rect", "br"}


@cache
def small_comparison(
    *, models=("clean", "bad"), method="Saliency", class_names=("ant", "bee", "cat"), channels=1
):
    """Two models, four methods that work and one that fails, two classes on two canvases each."""
    torch.manual_seed(0)
    images, labels = torch.rand(90, channels, 8, 8), torch.arange(90) % 3
    nets = {
        name: torch.nn.Sequential(
            torch.nn.Flatten(), torch.nn.Linear(64 * channels, 8), torch.nn.Linear(8, 3)
        ).eval()
        for name in models
    }
    for net in nets.values():
        for part in list(net)[1:]:
            part.weight.data *= 6
    named = {name: PixelClassifier(net, class_names=class_names) for name, net in nets.items()}
    search, held_out = (images[:45], labels[:45]), (images[45:], labels[45:])
    pixels = torch.zeros(1, 8, 8)
    pixels[0, 5:, 5:] = 1

    def broken(model):
        raise RuntimeError(f"no {method} here")

    return compare(
        named,
        torch.cat([images[:2], torch.ones(2, channels, 8, 8)]),
        [0, 1, 0, 1],
        search=(search[0], search[1]),
        held_out=(held_out[0], held_out[1]),
        methods={
            "ClassPattern": (lambda m: ClassPattern(m, *search), {"n_steps": 2}),
            method: Saliency,
            "RandomPixels": RandomPixels,
            "BestRandomMask": (lambda m: BestRandomMask(m, *search), {"budget": 100}),
            "broken": broken,
        },
        areas=AREAS,
        area=0.1,
        canvas_kinds=["positive"] * 2 + ["white"] * 2,
        triggers={models[-1]: Pattern(torch.ones(channels, 8, 8), pixels, 0)},
        stamped=2,
    )


def without_figures(monkeypatch):
    """Reports with figures that are empty: to draw them takes long."""
    monkeypatch.setattr(report, "draw", lambda title, *_: Markup('<img alt="{}">').format(title))


class Page(HTMLParser):
    """Tags with their attributes, all text, and the cells of each table by its place."""

    def __init__(self, html):
        super().__init__()
        self.tags, self.texts, self.tables, self.open = [], [], {}, []
        self.prose = []  # the texts outside of tables
        self.feed(html)
        self.close()
        assert not self.open, f"never closed: {self.open}"

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag == "table":
            self.rows = self.tables.setdefault(len(self.tables), [])
        elif tag == "tr":
            self.rows.append([])
        elif tag in ("td", "th"):
            self.rows[-1].append("")
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        if tag not in VOID:
            assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] not in ("script", "style"):
            self.texts.append(data)
            if "table" not in self.open and data.strip():
                self.prose.append(" ".join(data.split()))
            if {"td", "th"} & set(self.open):
                self.rows[-1][-1] += data

    @property
    def text(self):
        return " ".join(" ".join(self.texts).split())

    @property
    def lines(self):
        """The texts, one a line, for a snapshot."""
        return "\n".join(" ".join(text.split()) for text in self.texts if text.strip())

    def attributes(self, name):
        return [attrs[name] for _, attrs in self.tags if name in attrs]
