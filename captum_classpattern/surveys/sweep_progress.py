"""How far a sweep is: a bar in a terminal, a line a minute in a log file."""

import sys
import time
from statistics import fmean

from tqdm import tqdm

from captum_classpattern.surveys.units import Outcome

EVERY = 60.0  # seconds between lines in a log file


class Progress:
    """Counts the units that are to be searched, and writes that to standard error if asked to."""

    def __init__(self, total: int, name: str, show: bool) -> None:
        self.total, self.name, self.show = total, name, show
        self.failed = 0
        self._outcomes: list[Outcome] = []  # of the units that were found
        self.started = self._written = time.monotonic()
        bar = show and total > 0 and sys.stderr.isatty()
        self._bar = tqdm(total=total, desc=name, unit="unit", disable=not bar)

    def add(self, outcome: Outcome) -> None:
        """Counts a unit."""
        if outcome.error is None:
            self._outcomes.append(outcome)
        else:
            self.failed += 1
            self._bar.set_postfix(failed=self.failed, refresh=False)
        self._bar.update()
        now = time.monotonic()
        if self.show and self._bar.disable and now - self._written >= EVERY:
            self._written = now
            self.write(self.line())

    def line(self) -> str:
        """Units done, failed and left, and the time left."""
        left, passed = self.total - self.done, time.monotonic() - self.started
        text = f"{self.name}: {self.done} of {self.total} units done"
        text += f" ({self.failed} failed)" if self.failed else ""
        if left:
            text += f", {left} left, about {duration(passed / max(1, self.done) * left)}"
        return text

    def write(self, text: str) -> None:
        """A line above the bar, or in the log."""
        if self.show:
            tqdm.write(text, file=sys.stderr)

    @property
    def found(self) -> int:
        """Units that did not fail."""
        return len(self._outcomes)

    @property
    def done(self) -> int:
        """Units that were found or failed."""
        return self.found + self.failed

    def mean(self, part: str) -> float:
        """The mean time of a unit on its worker: all ``"seconds"``, those of its search
        (``"searching"``), or of its ``"scoring"``."""
        return fmean(getattr(outcome, part) for outcome in self._outcomes)

    def close(self) -> None:
        self._bar.close()
        if self.show and self._bar.disable and self.total:
            self.write(self.line())


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
