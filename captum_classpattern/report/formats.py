"""How the page writes numbers and settings."""

import math
from collections.abc import Mapping
from typing import Any

DASH, SPACE = "\N{EN DASH}", "\N{NO-BREAK SPACE}"
ARROW = "\N{SINGLE RIGHT-POINTING ANGLE QUOTATION MARK}"


def percent(share: float) -> str:
    """``38.7 %``."""
    return f"{100 * share:.1f}{SPACE}%"


def percent_area(area: float) -> str:
    """``5 %``, ``0.5 %``: an area as it was given."""
    return f"{100 * area:.3g}{SPACE}%"


def percent_range(low: float, high: float) -> str:
    """``30.1-47.9``, with a dash: an interval, in percent."""
    return f"{100 * low:.1f}{DASH}{100 * high:.1f}"


def number(value: float, spec: str = ".3g", unit: str = "") -> str:
    """A number in a format; ``150`` and ``3,600`` from a hundred on."""
    if not math.isfinite(value):
        return "not a number"
    if unit == "s" and value < 0.001:
        return "< 0.001"
    return f"{value:,.0f}" if abs(value) >= 99.5 else f"{value:{spec}}"


def settings_lines(settings: Mapping[str, Any], parent: str = "") -> list[tuple[str, str]]:
    """Nested settings as lines, each with its path of names."""
    lines: list[tuple[str, str]] = []
    for key, value in settings.items():
        name = f"{parent} {ARROW} {key}" if parent else str(key)
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
        return ", ".join(_plain(item) for item in value)
    return str(value)
