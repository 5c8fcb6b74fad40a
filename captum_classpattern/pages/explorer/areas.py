"""At which numbers of pixels the patterns of a finding can be shown, and which one it is there."""

from typing import NamedTuple

import numpy as np

from captum_classpattern.pattern import Pattern
from captum_classpattern.scores import Scores
from captum_classpattern.surveys import Finding

STEPS = 24  # of the slider, evenly spaced on a logarithmic scale


class Cut(NamedTuple):
    """Some pixels of a pattern: the binary pattern, the area that the slider names, the area that
    was searched, and the scores, if these pixels were scored."""

    binary: Pattern
    area: float
    searched_at: float
    scores: Scores | None


def steps(finding: Finding) -> list[int]:
    """Numbers of pixels, from 1 to the most that a pattern ranks, in which the searched ones are.

    A mask of zeros and ones does not rank its pixels: it is only shown as it is.
    """
    searched = {_own_pixels(area, pattern) for area, pattern in finding.patterns.items()}
    most = max((_most(pattern) for pattern in finding.patterns.values()), default=0)
    spaced = np.geomspace(1, most, STEPS).round().astype(int).tolist() if most else []
    return sorted(searched.union(spaced))


def cut(finding: Finding, kept: int) -> Cut:
    """The pixels of the highest weights: of the pattern that was searched at this number, else at
    the next larger one."""
    patterns = sorted(finding.patterns.items())
    able = [
        (area, pattern)
        for area, pattern in patterns
        if kept <= _most(pattern) or kept == _own_pixels(area, pattern)
    ]
    large = [(area, p) for area, p in able if _own_pixels(area, p) >= kept]
    searched_at, pattern = large[0] if large else able[-1]
    if kept != _own_pixels(searched_at, pattern):
        area = kept / pattern.mask.numel()
        return Cut(pattern.topk(area), area, searched_at, None)
    ranked = _most(pattern) and 0 < kept < pattern.mask.numel()
    binary = pattern.topk(searched_at) if ranked else pattern
    return Cut(binary, searched_at, searched_at, finding.scores.get(searched_at))


def nearest(options: list[int], kept: int) -> int:
    """The option nearest to a number of pixels."""
    return min(options, key=lambda option: abs(option - kept))


def own_pixels(finding: Finding) -> int:
    """The number of pixels of the first pattern."""
    return _own_pixels(finding.area, finding.pattern)


def _own_pixels(area: float, pattern: Pattern) -> int:
    return round(area * pattern.mask.numel())


def _most(pattern: Pattern) -> int:
    """How many pixels the weights of a mask rank, at most all but one; 0 if all weigh the same."""
    weights = pattern.mask[pattern.mask > 0]
    if not bool((weights != weights[:1]).any()):
        return 0
    return min(len(weights), pattern.mask.numel() - 1)
