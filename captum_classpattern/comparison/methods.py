"""The methods of a comparison by name: Captum's, the class pattern and the controls."""

import importlib.util
import inspect
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, TypeAlias

import torch
from captum import attr
from torch import Tensor, nn

from captum_classpattern._support.validation import ArgumentTypeError, import_named
from captum_classpattern.classifier import Classifier, device_and_dtype, find_module
from captum_classpattern.comparison.controls import (
    BUDGET,
    BestRandomMask,
    LearnedPattern,
    RandomPixels,
)
from captum_classpattern.images import Images, LabelledImages, Labels, evenly_spaced
from captum_classpattern.optimization import Swap
from captum_classpattern.optimization.attribution import ClassPattern
from captum_classpattern.optimization.features import grid_cells
from captum_classpattern.optimization.plan import LARGE_BUDGET, is_large
from captum_classpattern.optimization.settings import SearchSettings

Make: TypeAlias = Callable[[Any], attr.Attribution]
Method: TypeAlias = Make | tuple[Make, Mapping[str, Any]]

DEFAULT = (
    "ClassPattern", "IntegratedGradients", "Saliency", "InputXGradient", "DeepLift", "GradientShap",
    "Occlusion", "GuidedGradCam", "LayerGradCam", "LRP", "Lime", "KernelShap", "RandomPixels",
    "BestRandomMask",
)  # fmt: skip
METHOD_NAMES = (  # of all known methods
    *DEFAULT,
    *("DeepLiftShap", "GuidedBackprop", "Deconvolution", "FeatureAblation", "ShapleyValueSampling"),
    "LearnedPattern",  # its colours are free
)
CELLS_PER_SIDE = 7  # superpixels per side
REFERENCES = 20  # baselines of GradientShap and DeepLiftShap
PERTURBED_AT_ONCE = 64


def known_methods(
    baselines: Images,
    baseline_labels: Labels = None,
    *,
    names: Sequence[str] | str = DEFAULT,
    budget: int | None = None,
    n_steps: int | None = None,
    precision: str = "auto",
    internal_batch_size: int | None = None,
) -> dict[str, Method]:
    r"""
    Methods to compare, by the names of their classes.

    Lime, KernelShap (98 samples each), FeatureAblation and ShapleyValueSampling use superpixels,
    the 7 x 7 cells of a grid. Occlusion slides a window as large as a cell by half its size.
    GradientShap and DeepLiftShap use 20 of the baselines. The Grad-CAMs use the model's last
    feature map. Everything else follows Captum's defaults.

    Args:
        baselines (Tensor, Dataset or DataLoader): Search images, (C, H, W) each, in [0, 1].
        baseline_labels (Tensor or Sequence[int], optional): Their classes. Default: None (those of
            the Dataset, else the classifier's predictions).
        names (Sequence[str] or str): Which methods. Besides the default ones there are
            DeepLiftShap, GuidedBackprop, Deconvolution, FeatureAblation, ShapleyValueSampling, and
            LearnedPattern, whose pixels have free colours. A name such as
            ``"my_methods:Mine"`` is a method of your own: what it names in that module is called
            with the model and the search images (:class:`LabelledImages`), and returns an
            ``Attribution``. It is called "Mine".
        budget (int, optional): Passes per canvas of the methods that search; also of a method of
            your own, if it is a class whose ``attribute`` takes a ``budget``. Default: None (3,500;
            from 64 pixels a side 960; for LearnedPattern, those of a scan).
        n_steps (int, optional): Rounds of ClassPattern and LearnedPattern, instead of a budget.
            BestRandomMask gets the passes of ClassPattern. Default: None.
        precision (str): ``"auto"``, ``"full"`` or ``"bfloat16"``, for ClassPattern's searches, as
            in :meth:`ClassPattern.search`. Default: "auto".
        internal_batch_size (int, optional): At most this many images in one forward pass of
            ClassPattern's searches. Default: None.

    Returns:
        *dict[str, tuple[Callable, dict]]*: For each name a function from a model to the
        attribution object, and the keywords of its ``attribute``, as :func:`compare` takes them.

    Raises:
        ImportError, ValueError: If a name is unknown, or two methods have the same name.

    Examples::

        >>> methods = known_methods(torch.rand(30, 1, 28, 28), torch.arange(30) % 3)
        >>> len(methods), methods["IntegratedGradients"][1]
        (14, {'internal_batch_size': 64})
        >>> methods["NoiseTunnel"] = (
        ...     lambda model: captum.attr.NoiseTunnel(captum.attr.Saliency(model)),
        ...     {"stdevs": 0.05, "nt_samples": 8})
    """
    source = LabelledImages.of(baselines, baseline_labels, argument="baselines")
    learning = {
        "budget": budget,
        "n_steps": n_steps,
        "precision": precision,
        "internal_batch_size": internal_batch_size,
    }
    SearchSettings(**learning)  # type: ignore[arg-type]  # refuses those out of range
    own_budget = budget
    if budget is None and n_steps is None:
        own_budget = LARGE_BUDGET if is_large(source.shape) else BUDGET
    passes = Swap().passes(n_steps)[-1] if n_steps else own_budget
    searches: dict[str, tuple[Any, dict[str, Any]]] = {  # what get the search images
        "ClassPattern": (ClassPattern, {**learning, "budget": own_budget}),
        "LearnedPattern": (LearnedPattern, learning),
        "BestRandomMask": (BestRandomMask, {"budget": passes}),
    }
    methods: dict[str, Method] = {}
    for name in dict.fromkeys([names] if isinstance(names, str) else names):
        if not isinstance(name, str):
            raise ArgumentTypeError(
                f"a method in a list is a name, got {name!r:.80}: give your own as a dict, such as "
                "{'Mine': a function from a model to an Attribution}"
            )
        own = name.rpartition(":")[2]
        if own in methods:
            raise ValueError(f"two methods are named {own!r}: rename one of them")
        if own != name:
            methods[own] = _own_method(name, source, budget)
        elif name in searches:
            make, keywords = searches[name]
            methods[name] = partial(make, baselines=source), keywords
        elif name in METHOD_NAMES:
            methods[name] = partial(_make, name, source), _keywords(name, source)
        else:
            raise ValueError(
                f"there is no method {name!r}: choose from {', '.join(METHOD_NAMES)}, or give a "
                "function from a model to an Attribution, or the name of your own as MODULE:NAME"
            )
    return methods


def _own_method(name: str, images: LabelledImages, budget: int | None) -> Method:
    """A user's method, which is made of a model and the search images."""
    make = import_named(name, f"method {name!r}")
    attribute = getattr(make, "attribute", None)  # of a class
    takes_budget = attribute and "budget" in inspect.signature(attribute).parameters
    return lambda model: make(model, images), {"budget": budget} if takes_budget and budget else {}


def _make(name: str, source: LabelledImages, model: Classifier) -> Any:
    """The attribution object of a model."""
    method: Any = RandomPixels if name == "RandomPixels" else getattr(attr, name)
    if name in ("Lime", "KernelShap") and importlib.util.find_spec("sklearn") is None:
        raise ImportError("scikit-learn is not installed: pip install 'captum_classpattern[lime]'")
    if name in ("GuidedGradCam", "LayerGradCam"):
        return method(model, feature_layer(model, source.take([0])))
    return method(model)


def _keywords(name: str, source: LabelledImages) -> dict[str, Any]:
    """The keywords of ``attribute``. Images are loaded only for methods that need them."""
    keywords: dict[str, Any] = {}
    if name == "IntegratedGradients":
        keywords["internal_batch_size"] = PERTURBED_AT_ONCE
    if name in ("DeepLiftShap", "GradientShap"):
        keywords["baselines"] = source.take(evenly_spaced(len(source), REFERENCES))
    if name == "GradientShap":
        keywords["n_samples"] = REFERENCES
    if name in ("FeatureAblation", "ShapleyValueSampling", "Lime", "KernelShap"):
        keywords["feature_mask"] = grid_cells(*source.shape[1:])
    if name in ("Lime", "KernelShap"):
        keywords["n_samples"] = 2 * CELLS_PER_SIDE**2
    if name == "Occlusion":
        window = [max(1, -(-side // CELLS_PER_SIDE)) for side in source.shape[1:]]
        keywords["sliding_window_shapes"] = (source.shape[0], *window)
        keywords["strides"] = (source.shape[0], *(max(1, side // 2) for side in window))
    if "feature_mask" in keywords or name == "Occlusion":
        keywords["perturbations_per_eval"] = PERTURBED_AT_ONCE
    return keywords


def feature_layer(model: Classifier, image: Tensor) -> nn.Module:
    """The layer that Grad-CAM uses: the last one whose output for an image (1, C, H, W) is a
    feature map (1, C, h, w) with h * w > 1, such as ``layer4`` of torchvision's ResNets. An error
    if there is none, or only the patch embedding of a vision transformer."""
    module, last = find_module(model), list[nn.Module]()
    if module is None:
        raise ValueError("Grad-CAM needs a torch.nn.Module, because it uses one of its layers")

    def keep(part: nn.Module, _: Any, output: Any) -> None:
        if isinstance(output, Tensor) and output.ndim == 4 and output[0, 0].numel() > 1:
            last[:] = [part]

    hooks = [part.register_forward_hook(keep) for part in module.modules()]
    try:
        with torch.no_grad():
            model(image.to(*device_and_dtype(model, image)))
    finally:
        for hook in hooks:
            hook.remove()
    layer = last[0] if last else None
    cuts = isinstance(layer, nn.Conv2d) and layer.kernel_size == layer.stride != (1, 1)
    if layer is None or cuts:
        raise ValueError(
            "Grad-CAM needs a layer whose output is a feature map (1, C, h, w), but the model "
            f"has {'only patches of the image' if cuts else 'none'}"
        )
    return layer
