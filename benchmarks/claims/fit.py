"""How well a pattern shows a trigger: anywhere, and at its place."""

from torch.nn import functional as F

from captum_classpattern import Pattern


def best_fit(pattern: Pattern, trigger: Pattern) -> float:
    """The share of the trigger's pixels that the pattern shows, at the position where it shows
    most. A pixel in the trigger's colour counts 1, one that is different by half of the range 0,
    and the opposite colour -1."""
    rows, columns = trigger.mask[0].nonzero().unbind(1)
    box = slice(rows.min(), rows.max() + 1), slice(columns.min(), columns.max() + 1)
    patch, shape = trigger.canvas[:, *box], trigger.mask[0][box].shape
    colours = F.unfold(pattern.canvas[None], shape)[0].unflatten(0, (len(patch), -1))
    distance = (colours - patch.flatten(1)[:, :, None]).abs().mean(0)  # (pixels, positions)
    selected = F.unfold((pattern.mask[None] > 0).float(), shape)[0]
    agreement = selected * (1 - 2 * distance) * trigger.mask[0][box].flatten()[:, None]
    return float(agreement.sum(0).max() / trigger.mask.sum())


def in_place(pattern: Pattern, trigger: Pattern) -> float:
    """The IoU of the pattern's pixels with those of the trigger."""
    selected, true = pattern.mask > 0, trigger.mask > 0
    return float((selected & true).sum() / (selected | true).sum())
