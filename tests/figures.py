"""Reads figures back for the tests of what they show."""

from itertools import combinations

import matplotlib
import numpy as np
from matplotlib import pyplot
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.text import Text
from refusals import refusals

matplotlib.use("Agg")


def pixels(axis):
    return np.asarray(axis.images[0].get_array())


def line_of(axis, name):
    [line] = [line for line in axis.get_lines() if line.get_label() == name]
    return line


def legend_of(figure):
    return [text.get_text() for legend in figure.legends for text in legend.get_texts()]


def texts_in(axis):
    return [text.get_text() for text in axis.texts]


def refused(calls):
    """What the calls refuse, before they open a figure."""
    before = pyplot.get_fignums()
    text = refusals(calls)
    assert pyplot.get_fignums() == before
    return text


def check_layout(figure):
    """No text overlaps another and nothing is cut off, also where pixels are few."""
    assert [badly_placed(figure, dpi) for dpi in (50, 100)] == [[], []]
    assert figure.get_figwidth() < 15


def height_of_panels(figure, axes):
    """Of the lowest of them, in inches."""
    return min(axis.get_position().height * figure.get_figheight() for axis in axes)


def scale_labels(figure):
    """The texts below the colour scales, from left to right."""
    scales = [axis for axis in figure.axes if axis.get_label() == "<colorbar>"]
    return [axis.get_xlabel() for axis in sorted(scales, key=lambda a: a.get_position().x0)]


def badly_placed(figure, dpi=100):
    """Texts that overlap another text or run over an image's edge, and what is cut off."""
    figure.set_dpi(dpi)
    renderer = FigureCanvasAgg(figure).get_renderer()
    figure.draw_without_rendering()
    texts = [t for t in figure.findobj(Text) if t.get_visible() and t.get_text().strip()]
    boxes = [(t.get_text(), t.get_window_extent(renderer)) for t in texts]
    images = [("an image", axis.get_window_extent()) for axis in figure.axes if axis.images]
    page = figure.bbox.padded(0.01)
    bad = [name for name, box in boxes + images if not contains(page, box)]
    bad += [(a, b) for (a, one), (b, two) in combinations(boxes, 2) if one.overlaps(two)]
    bad += [(a, b) for (a, one), (b, two) in combinations(images, 2) if one.overlaps(two)]
    return bad + [
        (name, image)
        for name, box in boxes
        for image, place in images
        if box.overlaps(place) and not contains(place.padded(1), box)
    ]


def contains(box, inner):
    return box.x0 <= inner.x0 and box.y0 <= inner.y0 and inner.x1 <= box.x1 and inner.y1 <= box.y1
