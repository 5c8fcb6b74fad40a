"""The powers of many patterns on one classifier, such as the patterns of other models."""

from collections.abc import Sequence

from captum_classpattern.classifier import Classifier, device_and_dtype, preserve_state
from captum_classpattern.images import Images, LabelledImages, Labels, ensure_labels, predictions
from captum_classpattern.pattern import Pattern
from captum_classpattern.scores.power import (
    PredictivePower,
    count_hits,
    images_to_score,
    power_of,
)


def transfer_powers(
    forward_func: Classifier,
    patterns: Sequence[Pattern],
    images: Images,
    labels: Labels = None,
    area: float | None = 0.05,
) -> list[PredictivePower]:
    r"""
    The predictive power of each of many patterns on one classifier: what is left of it if the
    patterns were searched on other models.

    They are the powers of :func:`predictive_power`, but the images without a pattern are classified
    once for all patterns. For P patterns and N images, that takes (P + 1) x N forward passes at
    most. Call it for each classifier to get a matrix of what transfers.

    Args:
        patterns (Sequence[Pattern]): The patterns, of any classes. Each is moved to the
            classifier's device.
        forward_func, images, labels, area: As in :func:`predictive_power`, for each pattern.

    Returns:
        *list[PredictivePower]*: One for each pattern, in their order.

    Raises:
        ValueError: If there are no patterns, or as :func:`predictive_power`.

    Examples::

        >>> net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 3)).eval()
        >>> patterns = [Pattern(torch.rand(1, 8, 8), torch.rand(1, 8, 8), y) for y in range(3)]
        >>> powers = transfer_powers(net, patterns, torch.rand(60, 1, 8, 8), [0, 1, 2] * 20)
        >>> [power.n for power in powers]
        [40, 40, 40]
    """
    if not patterns:
        raise ValueError("there are no patterns to score: give at least one")
    source = LabelledImages.of(images, labels)
    device, _ = device_and_dtype(forward_func, patterns[0].canvas)
    moved = [pattern.to(device) for pattern in patterns]
    with preserve_state(forward_func, seed=0):
        source = ensure_labels(forward_func, source, like=moved[0].canvas)
        unstamped = predictions(forward_func, source, like=moved[0].canvas)
        powers = []
        for pattern in moved:
            others = images_to_score(forward_func, pattern, source, None)
            binary = pattern if area is None else pattern.topk(area)
            is_other = source.known_labels != pattern.target
            without = int((unstamped[is_other] == pattern.target).sum())
            hits = count_hits(forward_func, binary, others)
            powers.append(power_of(hits, len(others), without))
    return powers
