"""The style of all figures: the ground of patterns, colours, and sizes of texts."""

from typing import Any

NO_PIXEL = (0.65, 0.53, 0.69)  # the ground, mauve: a colour that photos rarely have
GREY = 0.5  # below what is partly transparent

QUIET = "#57606a"  # texts that explain
EDGE = "#c4cad1"  # around images, so that a white canvas shows
HIT = "#1a7f37"  # a prediction that a pattern has turned; also in bold, for colour-blind readers
TRACK = "#e6eaef"  # behind bars and lines

HIGHLIGHTS = ("#e8590c", "#111111", "#1f6feb")
CONTROL = "#8c959f"
# Paul Tol's "muted" colours, which colour-blind readers can tell apart, and three more
OTHERS = (
    "#332288", "#44aa99", "#cc6677", "#88ccee", "#117733", "#aa4499",
    "#ddaa33", "#882255", "#999933", "#8a4b12", "#4477dd", "#96d35f",
)  # fmt: skip
CELLS = "viridis"  # of shares, in heat maps

SMALL = 9  # points, for notes; other texts have 10
IMAGE_STYLE: dict[Any, Any] = {
    "text.parse_math": False,  # names come from files
    "font.size": 10,
    "axes.edgecolor": EDGE,
    "axes.linewidth": 0.6,
    "axes.facecolor": "white",
    "axes.grid": False,
    "axes.labelsize": "medium",
    "axes.titlesize": "medium",
    "figure.titlesize": 13,
    "figure.titleweight": "bold",
    **dict.fromkeys(["xtick.bottom", "xtick.labelbottom", "ytick.left", "ytick.labelleft"], False),
}
CURVE_STYLE: dict[Any, Any] = {
    "text.parse_math": False,
    "font.size": 10,
    "axes.titlesize": 11,
    "axes.titleweight": "bold",
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": TRACK,
    "axes.spines.top": False,
    "axes.spines.right": False,
}
