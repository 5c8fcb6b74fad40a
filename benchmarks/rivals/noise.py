"""CBD: the class that noisy images are taken for most often."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch

from captum_classpattern.classifier import Classifier, check_targets, enter_model
from captum_classpattern.images import LabelledImages, predictions

BATCH = 256


def cbd(
    forward_func: Classifier,
    images: LabelledImages,
    n_classes: int,
    *,
    sigma: float = 1.14,
    draws: int = 1024,
    seed: int = 0,
) -> npt.NDArray[np.float64]:
    """The shares (K,) of noisy copies that are classified as each class, around one image of every
    class: the first that is classified correctly (Xiang et al. 2023, NeurIPS, arXiv 2310.17498,
    "CBD: A Certified Backdoor Detector Based on Local Dominant Probability"). The noise is that of
    the paper for CIFAR-10. :func:`cbd_alarm` judges the largest share."""
    labels, first = images.known_labels, images.take([0])
    with enter_model(forward_func, first, seed) as model, torch.no_grad():
        check_targets([n_classes - 1], model.n_classes)
        right = predictions(model, images) == labels
        counts = np.zeros(n_classes)
        for y in range(n_classes):
            # of True and False the maximum comes first
            place = int(torch.where(labels == y, 1 + right.int(), 0).argmax())
            image = images.take([place])
            noise = np.random.default_rng([seed, y]).normal(0, sigma, (draws, *image.shape[1:]))
            for part in torch.split(torch.from_numpy(noise), BATCH):
                outputs = model.logits((image + part).to(model.device, model.dtype))
                counts += np.bincount(outputs.argmax(1).tolist(), minlength=n_classes)
    return counts / counts.sum()


def cbd_alarm(largest: float, clean: Sequence[float], theta: float = 0.05) -> bool:
    """CBD's own rule: whether a local dominant probability is above all but a share of those of
    clean models, of which the largest fifth does not count."""
    kept = len(clean) - len(clean) // 5
    below = sum(value < largest for value in clean)
    return below >= kept - int((kept + 1) * theta)
