"""What tests of figures have in common: reading them back."""

from itertools import combinations

import matplotlib
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.text import Text

matplotlib.use("Agg")


def pixels(axis):
    return np.asarray(axis.images[0].get_array())


def badly_placed(figure):
    """Texts that overlap another one, or stick out of the figure."""
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    texts = [t for t in figure.findobj(Text) if t.get_visible() and t.get_text().strip()]
    boxes = [(t.get_text(), t.get_window_extent(canvas.get_renderer())) for t in texts]
    out = [a for a, box in boxes if box.x0 < 0 or box.y0 < 0]
    out += [a for a, box in boxes if box.x1 > figure.bbox.x1 or box.y1 > figure.bbox.y1]
    return out + [(a, b) for (a, one), (b, two) in combinations(boxes, 2) if one.overlaps(two)]
