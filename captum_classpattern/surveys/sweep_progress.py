"""How far a sweep is: a bar in a terminal, which a log file gets once a minute."""

import sys
from statistics import fmean
from typing import Any

from tqdm import tqdm

from captum_classpattern.surveys.units import Outcome

EVERY = 60.0  # seconds between bars in a log file


class Progress:
    """Counts the units that are to be searched, and writes that to standard error if asked to."""

    def __init__(self, total: int, name: str, show: bool) -> None:
        self.name, self.failed = name, 0
        self._outcomes: list[Outcome] = []  # of the units that were found
        often = 0.1 if sys.stderr.isatty() else EVERY
        self.bar: tqdm[Any] = tqdm(
            total=total, desc=name, unit="unit", disable=not show or not total,
            mininterval=often, maxinterval=often, dynamic_ncols=True,
        )  # fmt: skip

    def add(self, outcome: Outcome) -> None:
        """Counts a unit."""
        if outcome.error is None:
            self._outcomes.append(outcome)
        else:
            self.failed += 1
            self.bar.set_postfix(failed=self.failed, refresh=False)
        self.bar.update()

    def write(self, text: str) -> None:
        """A line above the bar, if there is one to write."""
        if text and not self.bar.disable:
            tqdm.write(text, file=sys.stderr)

    @property
    def found(self) -> int:
        """Units that did not fail."""
        return len(self._outcomes)

    def mean(self, part: str) -> float:
        """The mean time of a unit on its worker: all ``"seconds"``, those of its search
        (``"searching"``), or of its ``"scoring"``."""
        return fmean(getattr(outcome, part) for outcome in self._outcomes)


def duration(seconds: float) -> str:
    """A time with two digits or so, in the unit that suits it.

    Examples::

        >>> duration(48), duration(5_400), duration(400_000)
        ('48 s', '90 min', '111 h')
    """
    for size, name in ((3600, "h"), (60, "min")):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {name}"
    return f"{seconds:.0f} s"
