"""Numbers as the page writes them: each is written here, and nowhere else."""

import math
from collections.abc import Mapping
from typing import Any

NONE = DASH = "\N{EN DASH}"
SPACE, INTO = "\N{NO-BREAK SPACE}", "\N{SINGLE RIGHT-POINTING ANGLE QUOTATION MARK}"


def percent(share: float) -> str:
    """``38.7 %``."""
    return f"{100 * share:.1f}{SPACE}%"


def percent_area(area: float) -> str:
    """``5 %``, ``0.5 %``: an area as it was given."""
    return f"{100 * area:.3g}{SPACE}%"


def between(low: float, high: float) -> str:
    """``30.1-47.9``, with a dash: an interval, in percent."""
    return f"{100 * low:.1f}{DASH}{100 * high:.1f}"


def decimals(value: float) -> str:
    """``0.146``."""
    return f"{value:.3f}" if math.isfinite(value) else "not a number"


def digits(value: float) -> str:
    """Three digits, however large or small; ``3,600`` where it is a thousand or more."""
    if not math.isfinite(value):
        return "not a number"
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def seconds(value: float) -> str:
    """As digits, but nothing finer than a thousandth."""
    return "< 0.001" if value < 0.001 else digits(value)


def counted(number: int, one: str, many: str | None = None) -> str:
    """``1 canvas``, ``6 canvases``."""
    return f"{number:,} {one if number == 1 else many or one + 's'}"


def settings_lines(settings: Mapping[str, Any], above: str = "") -> list[tuple[str, str]]:
    """Nested settings as lines, each with the names that lead to it."""
    lines: list[tuple[str, str]] = []
    for key, value in settings.items():
        name = f"{above} {INTO} {key}" if above else str(key)
        if isinstance(value, Mapping) and value:
            lines += settings_lines(value, name)
        else:
            lines.append((name, _plain(value)))
    return lines


def _plain(value: Any) -> str:
    if value == {}:
        return "defaults"
    if value is None or value == []:
        return "none"
    if isinstance(value, list | tuple):
        return ", ".join(_plain(one) for one in value)
    return str(value)
