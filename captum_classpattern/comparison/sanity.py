"""Do the maps depend on the model? Random layers, and a second model with other labels."""

import copy
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from statistics import fmean
from typing import Any

import torch
from torch import Tensor, nn

from captum_classpattern._validation import (
    ArgumentTypeError,
    check_area,
    check_count,
    check_pixels,
    is_whole,
)
from captum_classpattern.classifier import Classifier, device_and_dtype, preserve_state, uncounted
from captum_classpattern.classifier.class_names import parse_targets
from captum_classpattern.classifier.fingerprints import hash_of_model
from captum_classpattern.comparison.agreement import Agreement, Layer, SanityCheck
from captum_classpattern.comparison.maps import CanvasResult, MapSet, PixelMap, rankings_of
from captum_classpattern.comparison.methods import Method, known_methods
from captum_classpattern.comparison.run import check_methods, run_methods, seeds_from
from captum_classpattern.comparison.task import CachedScorer, Task, prepared, provenance
from captum_classpattern.images import ImagesAndLabels
from captum_classpattern.pattern import Pattern, pixels_kept
from captum_classpattern.scores.power import random_pixels
from captum_classpattern.scores.stability import mean_pairwise_iou, rank_correlation

DRAWS = 3  # of random pixels
ORIGINAL = "original"


def sanity_check(
    forward_func: Classifier,
    canvases: Tensor,
    targets: int | str | Tensor | list[int] | list[str],
    *,
    search: ImagesAndLabels,
    methods: Mapping[str, Method] | Sequence[str] | str | None = None,
    held_out: "ImagesAndLabels | None" = None,
    other: Classifier | None = None,
    area: float = 0.05,
    n_steps: int = 6,
    seed: int = 0,
    n_seeds: int = 2,
    max_images: int = 500,
    precision: str = "auto",
    show_progress: bool = False,
) -> SanityCheck:
    r"""
    Do a method's maps depend on the model? The sanity checks of Adebayo et al. (2018, arXiv
    1810.03292), for the methods of :func:`compare`.

    - **Layers**: the weights are randomised layer by layer from the output to the input, and stay
      random ("cascading"). The first step is the last layer alone. The others share the remaining
      layers evenly. A batch norm loses its running statistics, too.
    - **Labels**: the maps of a second model, such as one that was trained on permuted labels.

    At each step each method's map of each canvas is compared with its map of the original model,
    by the IoU of the highest pixels and by the rank correlation of all. Random methods and searches
    give other maps with another seed, too. So the maps that are compared always have different
    seeds, and the first row, without a random layer, is the agreement between seeds. "Changes"
    means: agrees less than that. With held-out images, the highest pixels of each map are also
    stamped on images for the *original* model: pixels chosen on a random network should have no
    more power than random pixels. :meth:`SanityCheck.verdicts` has the rule.

    Args:
        forward_func (nn.Module): Classifier from pixels (B, C, H, W) in [0, 1] to logits (B, K). It
            is not changed: layers are randomised on copies. Without ``n_steps`` it can be any
            function.
        canvases (Tensor): Images to explain, (N, C, H, W) in [0, 1]. Intervals and verdicts need
            five classes.
        targets (int, str, Tensor or list): The class, by number or name, or one for each canvas.
        search, methods, max_images, precision, show_progress: As in :func:`compare`.
        held_out (LabelledImages, optional): Held-out images, to measure power. Default: None (no
            power).
        other (Callable, optional): The second model. Default: None (no test of labels).
        area (float): Share of the pixels whose IoU and power is measured. Default: 0.05.
        n_steps (int): Number of steps of the randomisation, at most one for each layer; 0 leaves it
            out. Default: 6.
        seed (int): Seed of the original maps. Default: 0.
        n_seeds (int): Number of seeds from ``seed`` on. Each one after the first has its own
            random weights, and is compared with the original map. Default: 2.

    Returns:
        *SanityCheck*: Rows, verdicts and a figure. A method that fails at a step becomes a row with
        the reason.

    Raises:
        TypeError, ValueError: If the model has no layers to randomise, there is nothing to test, or
            images, targets, methods or areas do not fit, as in :func:`compare`.

    Examples::

        >>> net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 16), torch.nn.ReLU(),
        ...                           torch.nn.Linear(16, 5)).eval()
        >>> images, labels = torch.rand(40, 1, 8, 8), torch.arange(40) % 5
        >>> class Itself(captum.attr.Attribution):
        ...     def attribute(self, inputs, target=None):
        ...         return inputs.clone()  # whatever the model is
        >>> check = sanity_check(
        ...     net, images[:5], [0, 1, 2, 3, 4], search=(images, labels), area=0.1,
        ...     methods={"Saliency": captum.attr.Saliency, "Itself": Itself})
        >>> check
        SanityCheck(2 methods, 5 canvases, 2 layers in 2 steps, 0 failures)
        >>> [(row["method"], row["verdict"]) for row in check.verdicts()]
        [('Saliency', 'gone'), ('Itself', 'no change')]
    """
    chosen = check_methods(methods)
    check_pixels(canvases, "canvases")
    canvases = canvases.detach()
    targets = parse_targets(targets, len(canvases), forward_func)
    check_area(area)
    k = pixels_kept(float(area), canvases.shape[-2:])
    _check_arguments(forward_func, n_steps, n_seeds, other)
    seeds = seeds_from(seed, n_seeds)
    models = [forward_func] if other is None else [forward_func, other]
    with prepared(models, canvases, targets, search, held_out, max_images, seed) as (
        _,
        search,
        images,
    ):
        if not isinstance(chosen, Mapping):
            chosen = known_methods(search, names=chosen, precision=precision)
        scorer = None if images is None else CachedScorer(forward_func, images, canvases)
        layers: list[Layer] = []
        if isinstance(forward_func, nn.Module) and n_steps:
            sample = canvases[:1].to(*device_and_dtype(forward_func, canvases))
            layers = layers_from_top(forward_func, sample)
            if not layers:
                raise ValueError(
                    "the model has no layers with parameters, so none can be randomised"
                )
        check = SanityCheck(
            layers=layers,
            steps=[0, *_steps(len(layers), n_steps)],
            agreements=[],
            failures=[],
            chance=k / (2 * canvases[0, 0].numel() - k),
            settings={
                "area": float(area),
                "n_steps": n_steps,
                "seed": seeds[0],
                "n_seeds": n_seeds,
                **provenance(search, images, chosen),
                "max_images": max_images,
                "model": hash_of_model(forward_func),
                "other": None if other is None else hash_of_model(other),
            },
        )
        if scorer is not None:
            for canvas, target in zip(canvases, targets):
                whole = Pattern(canvas, torch.ones_like(canvas[:1]), target)
                draws = [random_pixels(whole, area, seeds[0] + i) for i in range(DRAWS)]
                powers = [*map(scorer.power, draws)]
                check.random_pixels.setdefault(target, []).append(fmean(p.value for p in powers))
                check.no_pattern[target] = powers[0].without
        kinds, area = ["canvas"] * len(targets), float(area)
        task = Task(ORIGINAL, canvases, targets, kinds, area, [area], seeds)
        tests = {f"{count} of {len(layers)} layers": ("layers", count) for count in check.steps[1:]}
        if other is not None:
            tests["other model"] = ("labels", 0)
        remaining = dict(chosen)
        originals: dict[str, Sequence[PixelMap]] = {}

        def cases() -> Iterator[tuple[Classifier, Task]]:
            yield forward_func, task
            for name in chosen.keys() - originals.keys():
                del remaining[name]  # it has failed, so there is nothing to compare with
            for where, (test, count) in tests.items():
                for seed in seeds[1:]:  # of the weights and of the methods
                    model: Any = other if test == "labels" else forward_func
                    if test == "layers":
                        model = randomised(model, layers[:count], seed)
                    yield model, replace(task, model=where, seeds=[seed])

        def add(method: str, maps: MapSet) -> None:
            """The agreement of each map with that of the original model and the first seed."""
            first = originals.setdefault(method, maps.images)
            test, count = tests.get(maps.task.model, ("layers", 0))
            runs = [*zip(maps.task.seeds, maps.seeds)]
            for seed, run in runs[1:] if maps.task.model == ORIGINAL else runs:
                for ranking in rankings_of(first):
                    for canvas, pair in enumerate(zip(first, run)):
                        pattern = CanvasResult(maps, "image", ranking, canvas, pair[1]).pattern
                        iou = mean_pairwise_iou([m.mask(ranking, area) for m in pair])
                        correlation = rank_correlation(*(m.ranked_by(ranking) for m in pair))
                        power = None if scorer is None else scorer.power(pattern).value
                        where = (method, ranking, test, count, seed, canvas, pattern.target)
                        check.agreements.append(Agreement(*where, iou, correlation, power))

        total = 1 + (n_seeds - 1) * len(tests)
        run_methods(cases(), remaining, add, check.failures, "sanity check", total, show_progress)
    return check


# ---- arguments


def _check_arguments(forward_func: Classifier, n_steps: int, n_seeds: int, other: Any) -> None:
    if not is_whole(n_seeds) or n_seeds < 2:
        raise ValueError(
            f"`n_seeds` must be a whole number from 2, got {n_seeds!r}: one for the original maps, "
            "and one for those that are compared with them"
        )
    check_count("n_steps", n_steps, least=0)
    if not n_steps and other is None:
        raise ValueError("there is nothing to test: give `n_steps`, another model, or both")
    if n_steps and not isinstance(forward_func, nn.Module):
        raise ArgumentTypeError(
            "only the layers of a torch.nn.Module can be randomised, got "
            f"{type(forward_func).__name__}: give the module, or `n_steps=0` and another model"
        )


def _steps(n_layers: int, n_steps: int) -> list[int]:
    """How many layers are random at each step: one, then evenly spaced up to all of them."""
    n = min(n_layers, n_steps)
    if n < 2:
        return [n_layers] * n
    return [1 + round(i * (n_layers - 1) / (n - 1)) for i in range(n)]


# ---- random layers


def layers_from_top(model: nn.Module, sample: Tensor) -> list[Layer]:
    r"""
    The layers of a model from the output to the input, as a forward pass calls them.

    A layer is a module that has parameters or running statistics itself, outside its submodules.
    One that is called several times counts where it is called first. A module that is never
    called, because the module around it uses its parameters directly, belongs to the layer of that
    module. If there is none, it is left out.

    Args:
        model (nn.Module): The classifier. It is not changed.
        sample (Tensor): One image (1, C, H, W) to pass through it.

    Returns:
        *list[tuple[str, ...]]*: For each layer the names of its modules, as in ``named_modules``.

    Examples::

        >>> net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(4, 3), torch.nn.ReLU(),
        ...                           torch.nn.Linear(3, 2))
        >>> layers_from_top(net, torch.rand(1, 1, 2, 2))
        [('3',), ('1',)]
    """
    twin = copy.deepcopy(model).eval()
    own = {
        name: part
        for name, part in twin.named_modules()
        if [*part.parameters(recurse=False)] or hasattr(part, "reset_running_stats")
    }
    called: list[str] = []

    def watch(name: str) -> Any:
        return lambda part, inputs: None if name in called else called.append(name)

    for name, part in own.items():
        part.register_forward_pre_hook(watch(name))
    with torch.no_grad(), uncounted():
        twin(sample)
    layers = {name: [name] for name in called}
    for name in own:
        around = [other for other in called if not other or name.startswith(f"{other}.")]
        if name not in layers and around:
            layers[max(around, key=len)].append(name)
    return [tuple(layers[name]) for name in reversed(called)]


def randomised(model: nn.Module, layers: Sequence[Layer], seed: int) -> nn.Module:
    r"""
    A copy of a model whose layers, in this order, have new random weights.

    A module with ``reset_parameters`` is initialised as PyTorch does it, which also resets the
    running statistics of a batch norm. Parameters that this leaves as they were, such as those of
    a weight norm, and the parameters of any other module are drawn from a normal distribution with
    the mean and the standard deviation of their values. The first layers get the same weights
    however many follow.

    Args:
        model (nn.Module): The classifier. It is not changed.
        layers (Sequence[tuple[str, ...]]): Some of its layers, see :func:`layers_from_top`.
        seed (int): Seed of the weights.

    Returns:
        *nn.Module*: The copy, in eval mode.

    Examples::

        >>> net = torch.nn.Linear(4, 3)
        >>> other = randomised(net, [("",)], seed=1)
        >>> bool((net.weight == other.weight).any())
        False
    """
    twin = copy.deepcopy(model).eval()
    with preserve_state(twin, seed), torch.no_grad():
        for name in (name for layer in layers for name in layer):
            part = twin.get_submodule(name)
            trained = [values.clone() for values in part.parameters(recurse=False)]
            reset = getattr(part, "reset_parameters", None)
            if callable(reset):
                reset()
            for values, before in zip(part.parameters(recurse=False), trained):
                is_left = values.equal(before) and values.is_floating_point()
                if is_left and values.numel() > 1 and float(values.std()) > 0:
                    values.normal_(float(values.mean()), float(values.std()))
    return twin
