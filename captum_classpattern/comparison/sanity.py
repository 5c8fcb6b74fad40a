"""Do the maps depend on the model? How well they agree with those of the original model, where
layers are random, or a second model has learnt other labels."""

import copy
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from statistics import fmean
from typing import Any

import numpy.typing as npt
import torch
from torch import Tensor, nn

from captum_classpattern._validation import (
    ArgumentTypeError,
    check_area,
    check_count,
    check_pixels,
)
from captum_classpattern.classifier import Classifier, device_and_dtype, preserve_state, uncounted
from captum_classpattern.classifier.class_names import parse_targets
from captum_classpattern.classifier.fingerprints import hash_of_model
from captum_classpattern.comparison.maps import CanvasResult, MapSet, PixelMap, rankings_of
from captum_classpattern.comparison.methods import Method, known_methods
from captum_classpattern.comparison.records import Failure, counted, grouped
from captum_classpattern.comparison.run import check_methods, run_methods, seeds_from
from captum_classpattern.comparison.task import CachedScorer, Task, prepared, provenance
from captum_classpattern.images import ImagesAndLabels
from captum_classpattern.pattern import Pattern, pixels_kept
from captum_classpattern.results import Result, as_table
from captum_classpattern.scores.intervals import FEWEST_CLASSES, bootstrap_over_classes
from captum_classpattern.scores.power import random_pixels
from captum_classpattern.scores.stability import mean_pairwise_iou, rank_correlation

Layer = tuple[str, ...]  # names of modules: one, and those that run inside it unseen
MEASURES = ("iou", "correlation")
DRAWS = 3  # of random pixels
ORIGINAL = "original"


@dataclass(frozen=True)
class Agreement:
    r"""
    One map of one canvas, compared with the map that the method gave for the original model.

    Args:
        method, ranking, canvas, target: As in :class:`Record`.
        test (str): ``"layers"`` if the map is of the model with random layers, ``"labels"`` if it
            is of the other model.
        randomised (int): How many layers are random; 0 if only the seed differs.
        seed (int): Seed of the weights and of the method.
        iou (float): Intersection over union of the highest pixels of the two maps.
        correlation (float): Their rank correlation, see
            :func:`~captum_classpattern.scores.rank_correlation`.
        power (float, optional): Predictive power of the map's highest pixels on the original model;
            None without held-out images.
    """

    method: str
    ranking: str
    test: str
    randomised: int
    seed: int
    canvas: int
    target: int
    iou: float
    correlation: float
    power: float | None = None


@dataclass(frozen=True, eq=False, repr=False)
class SanityCheck(Result):
    r"""
    The outcome of :func:`sanity_check`.

    Args:
        layers (list[tuple[str, ...]]): The layers from the output to the input, each by the names
            of its modules.
        steps (list[int]): How many of them are random at each step, from 0 on.
        agreements (list[Agreement]): One for each method, ranking, step, seed and canvas.
        failures (list[Failure]): What failed, and why. ``model`` is the step.
        chance (float): The IoU of two random masks of this area, about k / (2 n - k) for k of n
            pixels.
        random_pixels (dict[int, list[float]]): For each class the power of as many random pixels of
            its canvases; empty without held-out images.
        no_pattern (dict[int, float]): For each class the share of images of other classes that are
            classified as the class without a pattern; empty without held-out images.
        settings (dict): All settings, hashes of the images, and versions.
    """

    layers: list[Layer]
    steps: list[int]
    agreements: list[Agreement]
    failures: list[Failure]
    chance: float
    random_pixels: dict[int, list[float]] = field(default_factory=dict)
    no_pattern: dict[int, float] = field(default_factory=dict)
    settings: dict[str, Any] = field(default_factory=dict)

    def __repr__(self) -> str:
        methods = len({a.method for a in self.agreements})
        canvases = len({a.canvas for a in self.agreements})
        return (
            f"SanityCheck({counted(methods, 'method')}, {counted(canvases, 'canvas', 'canvases')}, "
            f"{counted(len(self.layers), 'layer')} in {counted(len(self.steps) - 1, 'step')}, "
            f"{counted(len(self.failures), 'failure')})"
        )

    def rows(self) -> list[dict[str, Any]]:
        r"""
        The agreement at each step as plain values.

        Returns:
            *list[dict]*: One row for each method, ranking and step, with means over classes and
            their 95 % intervals (:term:`bootstrap over classes`; None with fewer than five
            classes). ``layers`` is how many layers are random (None for the other model),
            ``lowest`` is the last of them. The row of 0 layers is the agreement between seeds.
            With held-out images there are the ``power`` of each map's pixels on the original model,
            and its controls. A failure is a row whose ``failure`` gives the reason.
        """
        rows: list[dict[str, Any]] = []
        for (method, ranking, test, count), group in self._groups().items():
            row: dict[str, Any] = {
                "method": method,
                "ranking": ranking,
                "test": test,
                "layers": count if test == "layers" else None,
                "lowest": self.layers[count - 1][0] if count else None,
                "canvases": len({a.canvas for a in group}),
            }
            for measure in (*MEASURES, "power") if self.random_pixels else MEASURES:
                row |= _mean(measure, _by_class(group, measure))
            if self.random_pixels:
                row["random_pixels"] = fmean(map(fmean, self.random_pixels.values()))
                row["no_pattern"] = fmean(self.no_pattern.values())
            rows.append(row)
        return rows + [
            {"method": f.method, "failure": f"{f.model}: {f.reason}"} for f in self.failures
        ]

    def table(self) -> Any:
        """:meth:`rows` as a pandas DataFrame."""
        return as_table(self.rows())

    def verdicts(self, measure: str = "iou") -> list[dict[str, Any]]:
        r"""
        Which methods' maps change, by one rule.

        The agreement after the change is compared with that between seeds and with chance, by 95 %
        intervals over classes: :doc:`../what_changes_a_pattern` has the rules.

        Args:
            measure (str): ``"iou"``, whose chance is :attr:`chance`, or ``"correlation"``, whose
                chance is 0. Default: "iou".

        Returns:
            *list[dict]*: One row for each method, ranking and test. With fewer than five classes,
            intervals and verdicts are None. With held-out images, ``power_above_random`` is how
            much more power the pixels have after than as many random ones, canvas by canvas.

        Raises:
            ValueError: If ``measure`` is neither.
        """
        if measure not in MEASURES:
            raise ValueError(f"measure must be 'iou' or 'correlation', got {measure!r}")
        groups = self._groups()
        rows = []
        for (method, ranking, test, count), group in groups.items():
            before = groups.get((method, ranking, "layers", 0))
            if before is not None and (test == "labels" or count == self.steps[-1] > 0):
                row = {"method": method, "ranking": ranking, "test": test}
                rows.append(row | self._verdict(before, group, measure))
        return rows

    def _verdict(
        self, before: Sequence[Agreement], group: Sequence[Agreement], measure: str
    ) -> dict[str, Any]:
        chance = self.chance if measure == "iou" else 0.0
        seeds, after = (_by_class(part, measure) for part in (before, group))
        lost = {y: [fmean(seeds[y]) - fmean(after[y])] for y in after}
        half = {y: [fmean(after[y]) - (fmean(seeds[y]) + chance) / 2] for y in after}
        row = _mean("between_seeds", seeds) | _mean("after", after) | _mean("lost", lost)
        row["verdict"] = None
        if row["after_low"] is not None:
            above_half = _mean("half", half)["half_low"] > 0
            rules = {
                "random": row["between_seeds_low"] <= chance,
                "no change": row["lost_low"] <= 0,
                "most stays": above_half,
                "part stays": row["after_low"] > chance,
                "gone": True,
            }
            row["verdict"] = next(verdict for verdict, holds in rules.items() if holds)
        if self.random_pixels:
            powers = _by_class(group, "power")
            above = {y: [fmean(powers[y]) - fmean(self.random_pixels[y])] for y in powers}
            row |= _mean("power", _by_class(before, "power"))
            row |= _mean("power_after", powers) | _mean("power_above_random", above)
        return row

    def _groups(self) -> dict[tuple[str, str, str, int], list[Agreement]]:
        """The agreements of each method, ranking, test and number of random layers."""
        return grouped(((a.method, a.ranking, a.test, a.randomised), a) for a in self.agreements)

    def plot(
        self, *, ranking: str = "signed", use_pyplot: bool = True
    ) -> tuple[Any, npt.NDArray[Any]]:
        """
        Draws a panel for each method: the agreement with the original map, over the share of the
        layers that are random. The left end is the agreement between seeds.

        Args:
            ranking (str): ``"signed"``, or ``"absolute"`` for the methods whose maps have negative
                values. Default: "signed".
            use_pyplot (bool): As in Captum's visualizer. Default: True.

        Returns:
            *tuple[Figure, ndarray]*: The figure, and its panels' axes, in order.

        Raises:
            ValueError: If no layer was randomised, or no method has this ranking.
        """
        return self._draw(**locals())


def _by_class(group: Iterable[Agreement], name: str) -> dict[int, list[float]]:
    """The values of a field for each class."""
    return grouped((agreement.target, getattr(agreement, name)) for agreement in group)


def _mean(name: str, values: Mapping[int, Sequence[float]]) -> dict[str, Any]:
    """The mean over classes and the ends of its interval; None with fewer than five classes."""
    if len(values) < FEWEST_CLASSES:
        mean, low, high = fmean(map(fmean, values.values())), None, None
    else:
        estimate = bootstrap_over_classes(values)
        mean, (low, high) = estimate.value, estimate.interval
    return {name: mean, f"{name}_low": low, f"{name}_high": high}


# ---- the check


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
    begun = prepared(models, canvases, targets, search, held_out, max_images, seed)
    with begun as (_, search, images):
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
            first, found = originals.get(method, maps.images), []
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
                        found.append(Agreement(*where, iou, correlation, power))
            originals[method] = first
            check.agreements.extend(found)

        total = 1 + (n_seeds - 1) * len(tests)
        run_methods(cases(), remaining, add, check.failures, "sanity check", total, show_progress)
    return check


# ---- arguments


def _check_arguments(forward_func: Classifier, n_steps: int, n_seeds: int, other: Any) -> None:
    check_count("n_seeds", n_seeds, least=2)  # one of them for the original maps
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
