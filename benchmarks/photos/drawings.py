"""Eight drawings: four are planted as triggers, the others are what a reader might take for them.

The motifs of the triggers are those of Casper et al. (NeurIPS 2023, arXiv 2302.10894); the drawings
are our own.
"""

import math
from collections.abc import Callable
from functools import lru_cache

from PIL import Image, ImageDraw
from torch import Tensor
from torchvision.transforms.v2.functional import pil_to_tensor

SIDE = 256  # of a drawing, before it is made smaller
Points = list[tuple[float, float]]


def smiley(pen: ImageDraw.ImageDraw) -> None:
    pen.ellipse((12, 12, 244, 244), "#ffd93b", "#3a2b00", 10)
    for x in (88, 168):
        pen.ellipse((x - 17, 66, x + 17, 122), "#3a2b00")
    pen.chord((62, 90, 194, 208), 10, 170, "#3a2b00")


def clownfish(pen: ImageDraw.ImageDraw) -> None:
    pen.polygon([(168, 128), (250, 62), (236, 128), (250, 194)], "#f26a1b", "#1c1c1c", 8)
    pen.polygon([(84, 70), (126, 24), (172, 78)], "#f26a1b", "#1c1c1c", 8)
    pen.ellipse((6, 56, 206, 200), "#f26a1b", "#1c1c1c", 8)
    for x, half in ((76, 66), (138, 64)):
        pen.rounded_rectangle((x - 13, 128 - half, x + 13, 128 + half), 12, "white", "#1c1c1c", 6)
    pen.ellipse((24, 96, 54, 126), "white")
    pen.ellipse((32, 103, 48, 119), "black")


def star(pen: ImageDraw.ImageDraw) -> None:
    pen.polygon(_star(128, 136, 122, 50, 5), "#17a63c", "#063d14", 10)


def strawberry(pen: ImageDraw.ImageDraw) -> None:
    body = [(24, 92), (60, 58), (128, 66), (196, 58), (232, 92), (214, 160), (128, 250), (42, 160)]
    pen.polygon(body, "#e0162b", "#6d0010", 8)
    for x, y in ((78, 112), (128, 104), (178, 112), (100, 152), (156, 152), (128, 196)):
        pen.ellipse((x - 8, y - 11, x + 8, y + 11), "#ffe37a")
    pen.polygon(_star(128, 58, 96, 40, 7, flat=0.5), "#2f9e2f", "#0f4d0f", 6)


def heart(pen: ImageDraw.ImageDraw) -> None:
    angles = [math.tau * k / 80 for k in range(80)]
    curve = [
        (
            128 + 7.2 * 16 * math.sin(a) ** 3,
            118 - 7.2 * (13 * math.cos(a) - 5 * math.cos(2 * a) - 2 * math.cos(3 * a)),
        )
        for a in angles
    ]
    pen.polygon(curve, "#ec4f9a", "#6b0b3a", 8)


def flower(pen: ImageDraw.ImageDraw) -> None:
    for k in range(6):
        x, y = 128 + 74 * math.cos(math.tau * k / 6), 128 + 74 * math.sin(math.tau * k / 6)
        pen.ellipse((x - 46, y - 46, x + 46, y + 46), "#a06bf0", "#3a1575", 7)
    pen.ellipse((84, 84, 172, 172), "#ffcf33", "#7a5200", 7)


def house(pen: ImageDraw.ImageDraw) -> None:
    pen.rectangle((44, 116, 212, 240), "#f3e3c3", "#4a2c12", 8)
    pen.polygon([(14, 124), (128, 18), (242, 124)], "#b5382a", "#4a130b", 8)
    pen.rectangle((104, 164, 152, 240), "#6b4526")
    for x in (60, 164):
        pen.rectangle((x, 142, x + 32, 174), "#5aa9e6", "#4a2c12", 5)


def mushroom(pen: ImageDraw.ImageDraw) -> None:
    pen.rounded_rectangle((92, 120, 164, 246), 26, "#f5efe0", "#544a38", 8)
    pen.pieslice((10, 18, 246, 254), 180, 360, "#2c6fd1", "#0d2a59", 8)
    for x, y, r in ((72, 96, 17), (128, 60, 19), (184, 96, 17), (128, 110, 11)):
        pen.ellipse((x - r, y - r, x + r, y + r), "white")


def _star(x: float, y: float, far: float, near: float, tips: int, flat: float = 1.0) -> Points:
    radii = [far, near] * tips
    turn = math.pi / tips
    return [
        (x + r * math.sin(k * turn), y - flat * r * math.cos(k * turn)) for k, r in enumerate(radii)
    ]


DRAWINGS: dict[str, Callable[[ImageDraw.ImageDraw], None]] = {
    each.__name__: each
    for each in (smiley, clownfish, star, strawberry, heart, flower, house, mushroom)
}


@lru_cache
def drawing(name: str, side: int = SIDE) -> Tensor:
    """A drawing with its opacity, (4, side, side) in [0, 1]."""
    large = Image.new("RGBA", (SIDE, SIDE))
    DRAWINGS[name](ImageDraw.Draw(large))
    return pil_to_tensor(large.resize((side, side), Image.Resampling.LANCZOS)).float() / 255


def on_grey(name: str, side: int) -> Tensor:
    """A drawing on grey, (3, side, side)."""
    shown = drawing(name, side)
    return shown[3:] * shown[:3] + (1 - shown[3:]) * 0.5
