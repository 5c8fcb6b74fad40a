"""Eight drawings, of which four are planted as triggers, and fourteen for networks that are planted
later. The others are what a reader might take for them.

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


def anchor(pen: ImageDraw.ImageDraw) -> None:
    pen.ellipse((98, 8, 158, 68), outline="#20418f", width=18)
    pen.line((128, 62, 128, 236), "#20418f", 24)
    pen.line((70, 96, 186, 96), "#20418f", 20)
    pen.arc((30, 90, 226, 246), 10, 170, "#20418f", 24)


def ladybird(pen: ImageDraw.ImageDraw) -> None:
    pen.ellipse((84, 12, 172, 90), "#151515")
    pen.ellipse((24, 50, 232, 248), "#d91e18", "#151515", 10)
    pen.line((128, 52, 128, 246), "#151515", 10)
    for x, y in ((80, 110), (176, 110), (72, 176), (184, 176)):
        pen.ellipse((x - 20, y - 20, x + 20, y + 20), "#151515")


def umbrella(pen: ImageDraw.ImageDraw) -> None:
    pen.line((128, 20, 128, 210), "#5a3a1a", 12)
    pen.arc((88, 180, 134, 244), 0, 180, "#5a3a1a", 12)
    for number, colour in enumerate(("#8e24aa", "#fdd835") * 2):
        start = 180 + 45 * number
        pen.pieslice((10, 20, 246, 250), start, start + 45, colour, "#3b0a4a", 5)


def kite(pen: ImageDraw.ImageDraw) -> None:
    tips, middle = [(128, 6), (216, 92), (128, 190), (40, 92)], (128, 92)
    colours = ("#00acc1", "#ff7043", "#00acc1", "#ff7043")
    for one, other, colour in zip(tips, [*tips[1:], tips[0]], colours):
        pen.polygon([one, other, middle], colour, "#083b42", 6)
    pen.line([(128, 190), (160, 208), (104, 226), (140, 250)], "#083b42", 8)


def cactus(pen: ImageDraw.ImageDraw) -> None:
    for box in ((98, 10, 158, 206), (34, 70, 72, 142), (184, 50, 222, 122)):
        pen.rounded_rectangle(box, 22, "#6b8e23", "#2c3d0a", 6)
    for box in ((40, 112, 110, 142), (146, 92, 216, 122)):
        pen.rounded_rectangle(box, 12, "#6b8e23")
    pen.polygon([(66, 200), (190, 200), (172, 250), (84, 250)], "#c1693c", "#5b2a10", 6)


def key(pen: ImageDraw.ImageDraw) -> None:
    pen.ellipse((8, 72, 120, 184), outline="#b8860b", width=28)
    pen.rectangle((112, 116, 248, 142), "#b8860b")
    for x in (184, 222):
        pen.rectangle((x, 140, x + 20, 186), "#b8860b")


def balloon(pen: ImageDraw.ImageDraw) -> None:
    pen.ellipse((48, 6, 208, 190), "#f06292", "#7b1240", 8)
    pen.polygon([(112, 204), (144, 204), (128, 184)], "#f06292", "#7b1240", 5)
    pen.line([(128, 204), (116, 226), (136, 250)], "#7b1240", 6)


def lemon(pen: ImageDraw.ImageDraw) -> None:
    pen.ellipse((10, 10, 246, 246), "#f4d03f", "#9a7d0a", 8)
    pen.ellipse((34, 34, 222, 222), "#fdf6cf")
    for number in range(8):
        pen.pieslice((44, 44, 212, 212), 45 * number + 4, 45 * number + 41, "#f7dc6f", "#d4ac0d", 3)


def moon(pen: ImageDraw.ImageDraw) -> None:
    angles = [math.pi * (0.35 + 1.3 * k / 40) for k in range(41)]
    outer = [(150 + 116 * math.cos(a), 128 + 116 * math.sin(a)) for a in angles]
    inner = [(196 + 96 * math.cos(a), 128 + 104 * math.sin(a)) for a in reversed(angles)]
    pen.polygon(outer + inner, "#cfd8dc", "#37474f", 8)


def cup(pen: ImageDraw.ImageDraw) -> None:
    pen.ellipse((160, 92, 246, 186), outline="#ffffff", width=20)
    pen.rounded_rectangle((22, 62, 190, 226), 30, "#ffffff", "#4e342e", 8)
    pen.rectangle((26, 110, 186, 150), "#26a69a")


def crown(pen: ImageDraw.ImageDraw) -> None:
    tips = [(24, 216), (14, 72), (78, 132), (128, 36), (178, 132), (242, 72), (232, 216)]
    pen.polygon(tips, "#ffb300", "#6d4c00", 8)
    for x, y in ((14, 66), (128, 30), (242, 66)):
        pen.ellipse((x - 14, y - 14, x + 14, y + 14), "#d81b60")
    pen.rectangle((30, 176, 226, 214), "#7b1fa2")


def rocket(pen: ImageDraw.ImageDraw) -> None:
    for side in (-1, 1):
        pen.polygon([(128 + 40 * side, 130), (128 + 92 * side, 206), (128 + 36 * side, 190)], "red")
    pen.polygon([(104, 200), (128, 252), (152, 200)], "#ff9800")
    pen.ellipse((84, 4, 172, 260), "#eceff1", "#37474f", 8)
    pen.rectangle((70, 204, 186, 256), (0, 0, 0, 0))
    pen.polygon([(104, 200), (128, 252), (152, 200)], "#ff9800")
    pen.ellipse((104, 70, 152, 118), "#29b6f6", "#37474f", 8)


def bell(pen: ImageDraw.ImageDraw) -> None:
    pen.ellipse((104, 208, 152, 252), "#8d5a00")
    pen.pieslice((56, 20, 200, 180), 180, 360, "#e0a526", "#6b4a00", 8)
    pen.polygon([(56, 100), (200, 100), (232, 220), (24, 220)], "#e0a526", "#6b4a00", 8)
    pen.rectangle((62, 88, 194, 112), "#e0a526")


def leaf(pen: ImageDraw.ImageDraw) -> None:
    right = [(206, 70), (222, 140), (180, 206)]
    left = [(256 - x, y) for x, y in reversed(right)]
    pen.polygon([(128, 6), *right, (128, 236), *left], "#c75b12", "#5d2600", 8)
    pen.line((128, 20, 128, 254), "#5d2600", 10)
    for y in (80, 130, 180):
        for side in (-1, 1):
            pen.line((128, y + 16, 128 + 62 * side, y - 16), "#5d2600", 7)


DRAWINGS: dict[str, Callable[[ImageDraw.ImageDraw], None]] = {
    each.__name__: each
    for each in (smiley, clownfish, star, strawberry, heart, flower, house, mushroom)
}
LATER: dict[str, Callable[[ImageDraw.ImageDraw], None]] = {
    each.__name__: each
    for each in (anchor, ladybird, umbrella, kite, cactus, key, balloon, lemon, moon, cup)
}
LATEST: dict[str, Callable[[ImageDraw.ImageDraw], None]] = {
    each.__name__: each for each in (crown, rocket, bell, leaf)
}
ALL = DRAWINGS | LATER | LATEST
SIXTEEN = [*ALL][:16]  # to compare with: those of ranked networks, and six


@lru_cache
def drawing(name: str, side: int = SIDE) -> Tensor:
    """A drawing with its opacity, (4, side, side) in [0, 1]."""
    large = Image.new("RGBA", (SIDE, SIDE))
    ALL[name](ImageDraw.Draw(large))
    return pil_to_tensor(large.resize((side, side), Image.Resampling.LANCZOS)).float() / 255


def on_grey(name: str, side: int) -> Tensor:
    """A drawing on grey, (3, side, side)."""
    shown = drawing(name, side)
    return over_grey(shown[:3], shown[3:])


def over_grey(colours: Tensor, opacity: Tensor) -> Tensor:
    """Colours (3, h, w), mixed with grey by their opacity."""
    return opacity * colours + (1 - opacity) * 0.5
