"""The methods of a comparison by name: Captum's, the class pattern and the controls."""

import importlib.util
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

import torch
from captum import attr
from torch import Tensor, nn

from captum_classpattern.attribution import ClassPattern
from captum_classpattern.classifier import Classifier, find_module
from captum_classpattern.comparison.controls import BestCrop, ClassMean, RandomPixels
from captum_classpattern.images import Images, ImageSource, Labels

Make: TypeAlias = Callable[[Any], attr.Attribution]
Method: TypeAlias = Make | tuple[Make, Mapping[str, Any]]

DEFAULT = (
    "ClassPattern",
    "IntegratedGradients",
    "Saliency",
    "InputXGradient",
    "DeepLift",
    "GradientShap",
    "Occlusion",
    "GuidedGradCam",
    "LayerGradCam",
    "LRP",
    "Lime",
    "KernelShap",
    "RandomPixels",
    "BestCrop",
    "ClassMean",
)
CELLS = 7  # superpixels a side
REFERENCES = 20  # search images that GradientShap and DeepLiftShap compare with
AT_ONCE = 64


def known_methods(
    baselines: Images,
    baseline_labels: Labels = None,
    *,
    names: Sequence[str] = DEFAULT,
    n_steps: int | None = None,
) -> dict[str, Method]:
    r"""
    Methods to compare, by the names of their classes.

    All take Captum's defaults where it has any. Lime, KernelShap, FeatureAblation and
    ShapleyValueSampling see superpixels, 7 x 7 cells of a grid; Occlusion slides a window of the
    size of a cell by half of it; GradientShap and DeepLiftShap compare with 20 of the baselines;
    the Grad-CAMs look at the model's last convolution, and fail where there is none.

    Args:
        baselines (Tensor, Dataset or DataLoader): Search images, (C, H, W) each, in [0, 1].
        baseline_labels (Tensor or Sequence[int], optional): Their classes. Default: None (the
            Dataset's own, else the classifier's predictions).
        names (Sequence[str]): Which ones; besides the default ones there are DeepLiftShap,
            GuidedBackprop, Deconvolution, FeatureAblation and ShapleyValueSampling.
        n_steps (int, optional): Rounds of ClassPattern's searches. Default: None (80).

    Returns:
        *dict[str, tuple[Callable, dict]]*: For each name a function from a model to the
        attribution object, and the keywords of its ``attribute``: what :func:`compare` takes as
        ``methods``.

    Raises:
        ValueError: If a name is not known.

    Examples::

        >>> methods = known_methods(torch.rand(30, 1, 28, 28), torch.arange(30) % 3)
        >>> len(methods), methods["IntegratedGradients"][1]
        (15, {'internal_batch_size': 64})
        >>> methods["NoiseTunnel"] = (
        ...     lambda model: captum.attr.NoiseTunnel(captum.attr.Saliency(model)),
        ...     {"stdevs": 0.05, "nt_samples": 8})
    """
    source = ImageSource.of(baselines, baseline_labels, name="baselines")
    found = _all(source, n_steps)
    unknown = [name for name in names if name not in found]
    if unknown:
        raise ValueError(
            f"there is no method {unknown[0]!r}: choose from {', '.join(found)}, or give a "
            "function from a model to an Attribution"
        )
    return {name: found[name] for name in names}


def _all(source: ImageSource, n_steps: int | None) -> dict[str, Method]:
    cells, window = grid_cells(*source.shape[1:]), _window(source.shape)
    evenly = torch.linspace(0, len(source) - 1, min(REFERENCES, len(source))).long()
    references = source.take(evenly.tolist())
    masked = {"feature_mask": cells, "perturbations_per_eval": 64}
    sampled = {**masked, "n_samples": 2 * CELLS**2}
    return {
        "ClassPattern": (lambda m: ClassPattern(m, source), {"n_steps": n_steps}),
        "IntegratedGradients": (attr.IntegratedGradients, {"internal_batch_size": AT_ONCE}),
        "Saliency": (attr.Saliency, {}),
        "InputXGradient": (attr.InputXGradient, {}),
        "DeepLift": (attr.DeepLift, {}),
        "DeepLiftShap": (attr.DeepLiftShap, {"baselines": references}),
        "GradientShap": (attr.GradientShap, {"baselines": references, "n_samples": REFERENCES}),
        "GuidedBackprop": (attr.GuidedBackprop, {}),
        "Deconvolution": (attr.Deconvolution, {}),
        "Occlusion": (
            attr.Occlusion,
            {
                "sliding_window_shapes": window,
                "strides": (window[0], *(max(1, side // 2) for side in window[1:])),
                "perturbations_per_eval": 8,
            },
        ),
        "FeatureAblation": (attr.FeatureAblation, masked),
        "ShapleyValueSampling": (attr.ShapleyValueSampling, {**masked, "n_samples": 5}),
        "GuidedGradCam": (lambda m: attr.GuidedGradCam(m, last_convolution(m)), {}),
        "LayerGradCam": (lambda m: attr.LayerGradCam(m, last_convolution(m)), {}),
        "LRP": (attr.LRP, {}),
        "Lime": (lambda m: _regressing(attr.Lime, m), sampled),
        "KernelShap": (lambda m: _regressing(attr.KernelShap, m), sampled),
        "RandomPixels": (RandomPixels, {}),
        "BestCrop": (lambda m: BestCrop(m, source), {}),
        "ClassMean": (lambda m: ClassMean(m, source), {}),
    }


def _regressing(method: Make, model: Classifier) -> attr.Attribution:
    """A method that fits a regression, which Captum leaves to scikit-learn."""
    if importlib.util.find_spec("sklearn") is None:
        raise ImportError("needs scikit-learn: pip install 'captum_classpattern[lime]'")
    return method(model)


def last_convolution(model: Classifier) -> nn.Module:
    """The convolution that the model names last; an error if there is none.

    Of a residual network that is the one of its last block, of shape (h, w) from 1 x 1 filters
    only if no wider ones come after them.
    """
    module = find_module(model)
    found = [] if module is None else [p for p in module.modules() if isinstance(p, nn.Conv2d)]
    if not found:
        raise ValueError("no torch.nn.Conv2d was found in the model, which Grad-CAM needs")
    wide = [part for part in found if max(part.kernel_size) > 1]
    return (wide or found)[-1]


def grid_cells(height: int, width: int) -> Tensor:
    r"""
    Superpixels: a grid of 7 x 7 cells (fewer where there are fewer pixels), numbered from 0.

    Args:
        height (int): H of the images.
        width (int): W of the images.

    Returns:
        *Tensor*: int64 (1, 1, H, W), a ``feature_mask`` for Captum.

    Examples::

        >>> grid_cells(28, 28).unique().numel()
        49
    """
    rows, columns = (torch.arange(n) * min(CELLS, n) // n for n in (height, width))
    return (rows[:, None] * min(CELLS, width) + columns)[None, None]


def _window(shape: tuple[int, ...]) -> tuple[int, ...]:
    return (shape[0], *(max(1, -(-side // CELLS)) for side in shape[1:]))


def plain_keywords(method: Method) -> dict[str, Any]:
    """A method's keywords as JSON can hold them."""
    keywords = method[1] if isinstance(method, tuple) else {}
    plain = (bool, int, float, str, type(None))
    return {
        name: value
        if isinstance(value, plain)
        else f"Tensor {tuple(value.shape)}"
        if isinstance(value, Tensor)
        else repr(value)
        for name, value in keywords.items()
    }
