"""How numbers and names are written."""

import math

DASH, SPACE = "\N{EN DASH}", "\N{NO-BREAK SPACE}"
LONGEST = 24  # characters of a name in a figure


def shortened(name: str, longest: int = LONGEST) -> str:
    """A name as a label of a figure."""
    return name if len(name) <= longest else f"{name[: longest - 1]}\N{HORIZONTAL ELLIPSIS}"


def percent(share: float, digits: int = 1) -> str:
    """``38.7 %``, in figures and pages; ``39 %`` without digits after the point."""
    return f"{100 * share:.{digits}f}{SPACE}%"


def percent_area(area: float) -> str:
    """``5 %``, ``0.5 %``: an area as it was given."""
    return f"{100 * area:.3g}{SPACE}%"


def percent_range(low: float, high: float) -> str:
    """``30.1-47.9``, with a dash: an interval, in percent."""
    return f"{100 * low:.1f}{DASH}{100 * high:.1f}"


def number(value: float, spec: str = ".3g") -> str:
    """A number in a format; ``150`` and ``3,600`` from a hundred up to a billion."""
    if not math.isfinite(value):
        return "not a number"
    return f"{value:,.0f}" if 99.5 <= abs(value) < 1e9 else f"{value:{spec}}"
