"""The class pattern whose colours are searched, too: it is not cut from a canvas."""

from typing import Any, ClassVar

import torch
from captum.attr import Attribution
from captum.log import log_usage
from torch import Tensor

from captum_classpattern.attribution import ClassPattern, single_tensor
from captum_classpattern.classifier import Classifier
from captum_classpattern.comparison.controls import masks_for
from captum_classpattern.images import Images, Labels
from captum_classpattern.pattern import Pattern


class LearnedPattern(Attribution):  # type: ignore[misc]  # captum's class is untyped
    r"""
    The few pixels that make the classifier predict a class, in the colours that do it best, see
    :class:`~captum_classpattern.optimization.Learned`.

    Args:
        forward_func, baselines, baseline_labels: As in :class:`BestCrop`.

    Attributes:
        patterns (list[Pattern]): After ``attribute``, what was found for each input, in its own
            form.
        free (str): What is searched.

    Examples::

        >>> net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 3)).eval()
        >>> learned = LearnedPattern(net, torch.rand(30, 1, 8, 8), torch.arange(30) % 3)
        >>> mask = learned.attribute(torch.full((1, 1, 8, 8), 0.5), target=1, area=3 / 64)
        >>> int(mask.sum()), learned.patterns[0].canvas.shape
        (3, torch.Size([1, 8, 8]))
    """

    free: ClassVar[str] = "places and colours"

    def __init__(
        self, forward_func: Classifier, baselines: Images, baseline_labels: Labels = None
    ) -> None:
        super().__init__(forward_func)
        self._search = ClassPattern(forward_func, baselines, baseline_labels).search
        self.patterns: list[Pattern] = []
        self.precision: str | None = None

    @log_usage()  # type: ignore[untyped-decorator]
    def attribute(
        self,
        inputs: Tensor | tuple[Tensor],
        target: Any = None,
        additional_forward_args: Any = None,
        *,
        area: float = 0.05,
        seed: int = 0,
        budget: int | None = None,
        n_steps: int | None = None,
        max_seconds: float | None = None,
        precision: str = "auto",
        internal_batch_size: int | None = None,
    ) -> Tensor | tuple[Tensor, ...]:
        r"""
        Searches pixels and colours; the colours begin at those of the inputs.

        Args:
            inputs, target: As in :meth:`BestCrop.attribute`.
            additional_forward_args, area, seed, budget: As in :meth:`ClassPattern.search`.
            n_steps, max_seconds, precision: As in :meth:`ClassPattern.search`.
            internal_batch_size: As in :meth:`ClassPattern.search`.

        Returns:
            *Tensor*: The masks, shaped like ``inputs``.
        """
        images = single_tensor(inputs).detach().clamp(0, 1)
        found = self._search(
            images,
            target,
            additional_forward_args=additional_forward_args,
            solver="learned",
            area=area,
            seed=seed,
            budget=budget,
            n_steps=n_steps,
            max_seconds=max_seconds,
            precision=precision,
            internal_batch_size=internal_batch_size,
        )
        self.patterns, self.precision = found, found[0].info["precision"]
        masks = torch.stack([pattern.mask for pattern in found])
        return masks_for(masks, inputs)
