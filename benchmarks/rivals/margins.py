"""MM-BD, and the statistic by which it judges a model."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
from scipy import stats

from captum_classpattern.classifier import Classifier, check_targets, enter_model
from captum_classpattern.scores.power import margins_of

from .inversion import uniform


def mm_bd(
    forward_func: Classifier,
    shape: Sequence[int],
    n_classes: int,
    *,
    n_images: int = 30,
    steps: int = 300,
    seed: int = 0,
) -> npt.NDArray[np.float64]:
    """MM-BD: the largest margin that any image gives each of K classes, (K,) (Wang et al. 2024,
    IEEE S&P, "MM-BD: Post-Training Detection of Backdoor Attacks with Arbitrary Backdoor Pattern
    Types Using a Maximum Margin Statistic"). It needs no images, only their ``shape`` (C, H, W): it
    changes random ones by gradient ascent with a rate of 0.01, which ends where the margins change
    by less than 0.001 % of themselves. :func:`mm_bd_p_value` makes them a p-value."""
    found = []
    like = torch.zeros(1, *shape)
    with enter_model(forward_func, like, seed) as model:
        check_targets([n_classes - 1], model.n_classes)
        for target in range(n_classes):
            chance = np.random.default_rng([seed, target])
            images = uniform(chance, (n_images, *shape), like).to(model.device, model.dtype)
            last = torch.full((n_images,), torch.inf, device=model.device)
            for _ in range(steps):
                images.requires_grad_()
                margins = margins_of(model.logits(images.clamp(0, 1)).float(), target)
                (slope,) = torch.autograd.grad(margins.sum(), images)
                images = images.detach() + 0.01 * slope
                change = (margins.detach() - last).abs().max() / margins.detach().abs().max()
                last = margins.detach()
                if float(change) < 1e-5:
                    break
            found.append(float(last.max()))
    return np.array(found)


def mm_bd_p_value(margins: Sequence[float] | npt.NDArray[np.float64]) -> float:
    """MM-BD's own p-value: a gamma distribution is fitted to all margins but the largest. Margins
    below 0 count as 1e-6, since a gamma distribution has no negative values."""
    *others, largest = sorted(max(float(margin), 1e-6) for margin in margins)
    if others[0] == others[-1]:  # no distribution to fit
        return float(largest == others[0])
    shape, _, scale = stats.gamma.fit(others, floc=0)
    return float(1 - stats.gamma.cdf(largest, shape, scale=scale) ** len(margins))
