"""Captum's own metrics of a method's maps, where they mean something."""

from collections.abc import Callable
from dataclasses import dataclass
from math import isfinite
from typing import Any

import torch
from captum.metrics import infidelity, infidelity_perturb_func_decorator, sensitivity_max
from torch import Tensor

from captum_classpattern.comparison.crop import is_control
from captum_classpattern.comparison.explain import Explainer, Maps, one_by_one
from captum_classpattern.comparison.methods import AT_ONCE
from captum_classpattern.comparison.scene import Scene

NOISE, NOISY = 0.05, 10  # infidelity: standard deviation, and noisy copies of an image
RADIUS, MOVED = 0.02, 3  # sensitivity_max: radius (L-inf), and images tried in it


@dataclass(frozen=True)
class CaptumMetrics:
    """One value for each canvas that is not stamped, or none; and why not."""

    infidelity: list[float]
    sensitivity: list[float]
    failures: dict[str, str]


def captum_metrics(
    explainer: Explainer, scene: Scene, images: Tensor, first: Maps, area: float, seed: int
) -> CaptumMetrics:
    """Infidelity, if maps have the images' shape; sensitivity too, but for searches and controls.

    A search is seeded and belongs to the class: how it moves with its canvas says little, and
    each moved canvas would be a search of its own. Random pixels depend on the batch.
    """
    failures: dict[str, str] = {}
    given = slice(0, scene.given)
    images, targets = images[given], list(scene.targets[given])
    whole = first.raw.shape[1:] == images.shape[1:]

    def tried(name: str, measure: Callable[[slice], Tensor]) -> list[float]:
        values: list[float] = []
        try:
            for row in one_by_one(len(images)):
                with explainer.quietly(seed):
                    values += measure(row).detach().cpu().double().tolist()
            wrong = sum(not isfinite(value) for value in values)
            if wrong:
                failures[name] = f"NaN or infinite for {wrong} of {len(values)} canvases"
            return values
        except Exception as error:  # a metric that can't be had costs no more than itself
            failures[name] = told(error)
            return []

    return CaptumMetrics(
        tried("infidelity", lambda r: _infidelity(explainer, images[r], targets[r], first.raw[r]))
        if whole
        else [],
        tried(
            "sensitivity_max",
            lambda row: sensitivity_max(
                explainer.attribution.attribute,
                images[row],
                perturb_radius=RADIUS,
                n_perturb_samples=MOVED,
                max_examples_per_batch=AT_ONCE,
                target=targets[row],
                **explainer.settings(area, seed),
            ),
        )
        if whole and not explainer.searches and not is_control(explainer.attribution)
        else [],
        failures,
    )


def _infidelity(explainer: Explainer, images: Tensor, targets: list[int], raw: Tensor) -> Tensor:
    """Yeh et al. 2019, arXiv 1901.09392, with small Gaussian noise; blind to the map's scale."""
    times_inputs = bool(getattr(explainer.attribution, "multiplies_by_inputs", False))

    @infidelity_perturb_func_decorator(times_inputs)  # type: ignore[untyped-decorator]
    def moved(inputs: Tensor) -> Any:
        return inputs - NOISE * torch.randn_like(inputs)

    value: Tensor = infidelity(
        explainer.model.forward_func,
        moved,
        images,
        raw,
        target=targets,
        n_perturb_samples=NOISY,
        max_examples_per_batch=AT_ONCE,
        normalize=True,
    )
    return value


def told(error: Exception) -> str:
    """An error in a line."""
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
