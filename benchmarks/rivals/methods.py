"""The inversions as methods of ``compare``: a class is made of a model and the search images."""

from collections.abc import Callable
from typing import Any, ClassVar

import torch
from captum.attr import Attribution
from torch import Tensor

from captum_classpattern.classifier import Classifier, enter_model, uncounted
from captum_classpattern.classifier.class_names import ClassNames, parse_targets
from captum_classpattern.images import Images, LabelledImages, Labels, ensure_labels
from captum_classpattern.optimization.attribution import masks_for, single_tensor
from captum_classpattern.pattern import Pattern

from .inversion import Inversion, neural_cleanse, pixel_inversion
from .universal import universal_patch, universal_perturbation


class _Inverted(Attribution):
    """One pattern for each class, whatever the input. ``patterns`` are what was found for each
    input in its own form, and ``free`` says what is searched."""

    invert: Callable[..., Inversion]
    free: ClassVar[str]

    def __init__(
        self, forward_func: Classifier, baselines: Images, baseline_labels: Labels = None
    ) -> None:
        super().__init__(forward_func)
        self._baselines = LabelledImages.of(baselines, baseline_labels, argument="baselines")
        self.patterns: list[Pattern] = []

    def attribute(
        self,
        inputs: Tensor | tuple[Tensor],
        target: Any = None,
        additional_forward_args: Any = None,
        *,
        seed: int = 0,
        budget: int | None = None,
        **settings: Any,
    ) -> Tensor | tuple[Tensor, ...]:
        """Inverts each class once, with ``budget`` passes, or as many as the function's default.
        Returns the maps that rank the pixels, shaped like the inputs, whose pixels are not used."""
        targets = parse_targets(
            target, len(single_tensor(inputs)), ClassNames.of(self.forward_func)
        )
        settings |= {"seed": seed} if budget is None else {"seed": seed, "passes": budget}
        with uncounted(), enter_model(self.forward_func, self._baselines.first()) as model:
            baselines = ensure_labels(model, self._baselines)
        found = {
            y: type(self).invert(self.forward_func, baselines, y, **settings)
            for y in dict.fromkeys(targets)
        }
        self.patterns = [found[y].own_form for y in targets]
        return masks_for(torch.stack([found[y].pattern.mask for y in targets]), inputs)


class NeuralCleanse(_Inverted):
    """The soft mask of :func:`neural_cleanse`, with its colours."""

    invert = staticmethod(neural_cleanse)
    free = "places and colours, with a soft mask"


class PixelInversion(_Inverted):
    """How much :func:`pixel_inversion` changes each pixel. Its change is added to images."""

    invert = staticmethod(pixel_inversion)
    free = "places and changes"


class UniversalPatch(_Inverted):
    """The square of :func:`universal_patch`, with its colours."""

    invert = staticmethod(universal_patch)
    free = "place and colours of a square"

    def attribute(
        self,
        inputs: Tensor | tuple[Tensor],
        target: Any = None,
        additional_forward_args: Any = None,
        *,
        area: float = 0.05,
        seed: int = 0,
        budget: int | None = None,
    ) -> Tensor | tuple[Tensor, ...]:
        """As in :class:`NeuralCleanse`, for a square of this share of the pixels."""
        return super().attribute(inputs, target, area=area, seed=seed, budget=budget)


class UniversalPerturbation(_Inverted):
    """What each pixel of the change of :func:`universal_perturbation` is worth."""

    invert = staticmethod(universal_perturbation)
    free = "changes of all pixels, 10/255 at most"
