"""The choice of canvases: the images whose pixels become patterns."""

import torch
from torch import Tensor

from captum_classpattern._support.validation import check_count, check_seed
from captum_classpattern.classifier import CheckedModel, Classifier, check_targets, enter_model
from captum_classpattern.classifier.class_names import ClassNames, parse_targets
from captum_classpattern.images import (
    Images,
    LabelledImages,
    Labels,
    ensure_labels,
    first_of,
    outputs_in_order,
)

SOLID_COLOURS = {"white": 1.0, "black": 0.0, "grey": 0.5}
BLANK = (*SOLID_COLOURS, "noise")  # these need no image of the class
PATCH = "patch"  # in surveys: a moving patch, which has no canvas
STRATEGIES = ("positive", "negative", "confident", "random", *BLANK)


def select_canvases(
    forward_func: Classifier,
    images: Images,
    labels: Labels = None,
    target: int | str | None = None,
    n: int = 4,
    strategy: str = "positive",
    *,
    seed: int = 0,
) -> Tensor:
    r"""
    Chooses the canvases for a class: the images whose pixels become patterns (Zhao et al. 2021,
    arXiv 2101.06898, section 3.2).

    Pass search images, never images that the patterns will be scored on.

    Args:
        forward_func (Callable): Classifier from pixels (B, C, H, W) in [0, 1] to logits (B, K).
        images (LabelledImages, Tensor, Dataset or DataLoader): The images, (C, H, W) each, in
            [0, 1]. Classes that have names are matched with the classifier's, see
            :meth:`LabelledImages.for_classifier`.
        labels (Tensor, Sequence[int] or Sequence[str], optional): Their classes, by number or name.
            Default: None (those that come with the images, else the classifier's predictions).
        target (int or str): The class, by its number or by its name in the classifier's
            ``class_names``. Required.
        n (int): How many canvases. Default: 4.
        strategy (str): ``"positive"`` chooses correctly classified images of the target, spread
            evenly over the model's confidence (others follow if there are too few);
            ``"confident"`` chooses the target's images with the highest log-odds, ``"negative"``
            those with the lowest, ``"random"`` any of them; ``"white"``, ``"black"``, ``"grey"``
            (0.5) and ``"noise"`` (uniform) are blank canvases. Default: "positive".
        seed (int): Seed for ``"random"`` and ``"noise"``. Default: 0.

    The model's confidence in an image says little about the pattern on it. To find the best canvas,
    search a pool with ``keep``, see :meth:`ClassPattern.search`.

    Returns:
        *Tensor*: The canvases (n, C, H, W) on the classifier's device, the most confident first
        (``"negative"``: the least confident; ``"random"``: in random order).

    Raises:
        ValueError: If the strategy is unknown, the target is out of range, or there are fewer
            than ``n`` images of the target.

    Examples::

        >>> net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 3)).eval()
        >>> images, labels = torch.rand(30, 1, 8, 8), torch.arange(30) % 3
        >>> select_canvases(net, images, labels, target=1, n=2).shape
        torch.Size([2, 1, 8, 8])
    """
    [number] = parse_targets(target, 1, ClassNames.of(forward_func))
    with enter_model(forward_func, first_of(images), seed) as model:
        # without labels of its own, blank canvases need no classes
        source = LabelledImages.of(images, labels, None if labels is None else model)
        return canvases_for(model, source, number, n, strategy, seed)


def canvases_for(
    model: CheckedModel, images: LabelledImages, target: int, n: int, strategy: str, seed: int
) -> Tensor:
    """See :func:`select_canvases`."""
    if strategy not in STRATEGIES:
        raise ValueError(f"strategy must be one of {', '.join(STRATEGIES)}, got {strategy!r}")
    check_count("n", n)
    generator = torch.Generator().manual_seed(check_seed(seed))
    check_targets([target], model.n_classes)
    device, dtype = model.device, images.take([0]).dtype
    shape = (n, *images.shape)
    if strategy == "noise":
        noise = torch.rand(shape, generator=generator, dtype=torch.float32)
        return noise.to(device, dtype)
    if strategy in SOLID_COLOURS:
        return torch.full(shape, SOLID_COLOURS[strategy], device=device, dtype=dtype)
    images = LabelledImages.of(images, None, model)
    candidates = ensure_labels(model, images).of_class(target)
    if len(candidates) < n:
        raise ValueError(
            f"{len(candidates)} of the {len(images)} images are of class {target}, fewer than "
            f"n={n}: give more of them, or choose a blank canvas such as 'white'"
        )
    if strategy == "random":
        order = torch.randperm(len(candidates), generator=generator)
    else:  # by log p / (1 - p) of the target, which does not saturate, unlike p
        log_odds, is_right = [], []
        for outputs in outputs_in_order(model, candidates):
            own = outputs.cpu().double()
            others = torch.cat([own[:, :target], own[:, target + 1 :]], dim=1)
            log_odds.append(own[:, target] - others.logsumexp(1))
            is_right.append(own[:, target] > others.amax(1))
        odds, right = torch.cat(log_odds), torch.cat(is_right)
        order = torch.argsort(odds, descending=strategy != "negative", stable=True)
    if strategy == "positive":
        order = torch.cat([order[right[order]], order[~right[order]]])
        count = max(n, int(right.sum()))  # others fill up if too few are right
        order = order[[(2 * i + 1) * count // (2 * n) for i in range(n)]]
    return candidates.take(order[:n].tolist()).to(device)
