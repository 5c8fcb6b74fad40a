"""How the page writes numbers and settings."""

import math
from collections.abc import Mapping
from typing import Any

from captum_classpattern.visualization.formats import DASH as DASH
from captum_classpattern.visualization.formats import SPACE as SPACE
from captum_classpattern.visualization.formats import percent as percent
from captum_classpattern.visualization.formats import percent_area as percent_area
from captum_classpattern.visualization.formats import percent_range as percent_range

ARROW = "\N{SINGLE RIGHT-POINTING ANGLE QUOTATION MARK}"


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
