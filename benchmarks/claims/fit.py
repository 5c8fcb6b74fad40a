"""How well a pattern shows a trigger: anywhere, and at its place."""

from torch import Tensor
from torch.nn import functional as F

from captum_classpattern import Pattern


def best_fit(pattern: Pattern, trigger: Pattern) -> float:
    """The share of the trigger's pixels that the pattern shows, at the position where it shows
    most. A pixel in the trigger's colour counts 1, one that is different by half of the range 0,
    and the opposite colour -1."""
    selected, agreement = at_all_positions(pattern, trigger)
    return float((selected * agreement).sum(0).max() / trigger.mask.sum())


def most_fit(pattern: Pattern, trigger: Pattern) -> float:
    """The best fit that any mask on the pattern's canvas can have."""
    _, agreement = at_all_positions(pattern, trigger)
    return float(agreement.clamp(min=0).sum(0).max() / trigger.mask.sum())


def at_all_positions(pattern: Pattern, trigger: Pattern) -> tuple[Tensor, Tensor]:
    """Which pixels around the trigger's the pattern has, and how well the canvas agrees with the
    trigger there: (pixels, positions) each."""
    rows, columns = trigger.mask[0].nonzero().unbind(1)
    box = slice(rows.min(), rows.max() + 1), slice(columns.min(), columns.max() + 1)
    patch, shape = trigger.canvas[:, *box], trigger.mask[0][box].shape
    colours = F.unfold(pattern.canvas[None], shape)[0].unflatten(0, (len(patch), -1))
    distance = (colours - patch.flatten(1)[:, :, None]).abs().mean(0)
    selected = F.unfold((pattern.mask[None] > 0).float(), shape)[0]
    return selected, (1 - 2 * distance) * trigger.mask[0][box].flatten()[:, None]


def in_common(pattern: Pattern, trigger: Pattern) -> int:
    """How many of the trigger's pixels the pattern has, in any colour."""
    return int(((pattern.mask > 0) & (trigger.mask > 0)).sum())
