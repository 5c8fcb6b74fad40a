"""Captum's contract over the search: ``ClassPattern``."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar, Unpack, overload

from captum.attr import Attribution
from torch import Tensor

from captum_classpattern._support.validation import (
    ArgumentTypeError,
    check_pixels,
    check_same_shape,
)
from captum_classpattern.classifier import (
    MIN_LABELLED,
    CheckedModel,
    Classifier,
    enter_model,
    guessing_below,
    uncounted,
    warn_if_guessing,
)
from captum_classpattern.classifier.class_names import ClassNames, parse_targets
from captum_classpattern.images import Images, LabelledImages, Labels, ensure_labels, predictions
from captum_classpattern.optimization.competition import compete, find_patterns, masks_of_canvases
from captum_classpattern.optimization.features import number_features
from captum_classpattern.optimization.plan import (
    SearchPlan,
    decide_patches,
    decide_search,
    split_for_validation,
)
from captum_classpattern.optimization.search import Solver
from captum_classpattern.optimization.settings import PatternOptions, SearchSettings
from captum_classpattern.pattern import Pattern

if TYPE_CHECKING:  # Captum's decorator has no types, and would take away those of attribute
    AnyFunction = TypeVar("AnyFunction", bound=Callable[..., Any])

    def log_usage() -> Callable[[AnyFunction], AnyFunction]: ...

else:
    from captum.log import log_usage

Inputs = TypeVar("Inputs", Tensor, tuple[Tensor, ...])  # as in Captum
SLACK = 0.25
# baselines by which the model's accuracy is checked; and if these leave it open, whether it guesses
CHECKED, IN_DOUBT = 100, 1_000
DOUBT = 0.15  # of the accuracy on 100 baselines: three standard errors


class ClassPattern(Attribution):  # type: ignore[misc]  # captum's class is untyped
    r"""
    Class-wise patterns: for a class, the small set of pixels of one canvas image that makes the
    classifier predict the class on as many other images as possible (Zhao et al. 2021, arXiv
    2101.06898, "What Do Deep Nets Learn? Class-wise Patterns Revealed in the Input Space").

    It explains the class, not an input: :meth:`search` returns patterns with their evidence,
    :meth:`attribute` returns masks in the form of Captum's other methods.

    About a fifth of the baselines, at most 500, are validation images: no mask is fitted to them.
    Where there are no labels, the classifier's predictions are taken, once, at the first search.

    Args:
        forward_func (Callable): Classifier from pixels (B, C, H, W) in [0, 1] to logits (B, K): a
            :class:`PixelClassifier`, or any callable like it.
        baselines (LabelledImages, Tensor, Dataset or DataLoader): The images that a pattern is
            stamped on, (C, H, W) each, in [0, 1]. Images of the target are left out. Required.
        baseline_labels (Tensor, Sequence[int] or Sequence[str], optional): Their classes, by number
            or name. Default: None (the Dataset's own, else the classifier's predictions).
        multiply_by_inputs (bool): Whether :meth:`attribute` multiplies the masks by the inputs, as
            in ``captum.attr.IntegratedGradients``. Default: False.
        check_accuracy (bool): Whether the first search warns if the model is right on few of the
            labelled baselines. Default: True.

    Attributes:
        precision (str or None): Number format of the last :meth:`attribute`, such as "bfloat16".

    Raises:
        TypeError: If there are no baselines, or they are of the wrong type.
        ValueError: If their pixels, shapes or labels do not fit (for a Dataset or DataLoader, at
            the first search, which looks at all images once).

    Examples::

        >>> net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 3)).eval()
        >>> images, labels = torch.rand(40, 1, 8, 8), torch.arange(40) % 3
        >>> explainer = ClassPattern(net, images, labels)
        >>> [pattern] = explainer.search(images[:4], target=2, keep=1, n_steps=10)
        >>> pattern.target, pattern.mask.shape
        (2, torch.Size([1, 8, 8]))
        >>> explainer.attribute(images[:4], target=2, n_steps=10).shape
        torch.Size([4, 1, 8, 8])
    """

    def __init__(
        self,
        forward_func: Classifier,
        baselines: "Images | None" = None,
        baseline_labels: Labels = None,
        multiply_by_inputs: bool = False,
        *,
        check_accuracy: bool = True,
    ) -> None:
        super().__init__(forward_func)
        if baselines is None:
            raise ArgumentTypeError(
                "`baselines` is missing: here, they are the images that patterns are stamped on, "
                "some of each class, as in ClassPattern(model, baselines, baseline_labels)"
            )
        names = None if baseline_labels is None else ClassNames.of(forward_func)
        self._baselines = LabelledImages.of(
            baselines, baseline_labels, names=names, argument="baselines"
        )
        self._multiply_by_inputs = multiply_by_inputs
        self._check_accuracy = check_accuracy
        self.precision: str | None = None

    @property
    def multiplies_by_inputs(self) -> bool:
        """Whether :meth:`attribute` multiplies the masks by the inputs."""
        return self._multiply_by_inputs

    @overload
    def search(
        self,
        canvases: Tensor | None = None,
        target: int | str | Tensor | list[int] | list[str] | None = None,
        *,
        area: float = 0.05,
        additional_forward_args: Any = None,
        **options: Unpack[PatternOptions],
    ) -> list[Pattern]: ...

    @overload
    def search(
        self,
        canvases: Tensor | None = None,
        target: int | str | Tensor | list[int] | list[str] | None = None,
        *,
        area: Sequence[float],
        additional_forward_args: Any = None,
        **options: Unpack[PatternOptions],
    ) -> dict[float, list[Pattern]]: ...

    def search(
        self,
        canvases: Tensor | None = None,
        target: int | str | Tensor | list[int] | list[str] | None = None,
        *,
        area: float | Sequence[float] = 0.05,
        keep: int | None = None,
        budget: int | None = None,
        additional_forward_args: Any = None,
        feature_mask: Tensor | Callable[[Tensor], Tensor] | None = None,
        solver: str | Solver = "swap",
        n_steps: int | None = None,
        seed: int = 0,
        precision: str = "auto",
        internal_batch_size: int | None = None,
        show_progress: bool | None = False,
        baselines: None = None,
    ) -> list[Pattern] | dict[float, list[Pattern]]:
        r"""
        Finds one pattern per canvas, or with ``keep`` the best of a pool of canvases, and scores
        each on validation images: baselines that it was not fitted to.

        The default solver, :class:`~captum_classpattern.optimization.Swap`, finds stronger patterns
        than the published loop, :class:`~captum_classpattern.optimization.PaperLoop`, in a fraction
        of its time. Without ``keep``, N canvases give the same patterns as N separate searches, up
        to rounding. The caller's model, gradients and random state stay as they are.

        The same seed and settings give the same masks on the same processor with as many threads,
        if the model's own operations do. Another processor, number of threads or
        ``internal_batch_size``, or other canvases in the same call, change the rounding of sums,
        and swaps that are nearly even can fall the other way. The masks then differ as those of two
        seeds do.

        Several areas take less time than as many calls: at each smaller area, the search starts
        from the patterns of the next larger one, with two thirds of the rounds. A pool that is
        screened is searched anew at each area, since the best canvases differ by area.

        Args:
            canvases (Tensor): The images to cut patterns from, (N, C, H, W) in [0, 1]; see
                :func:`select_canvases`. A :class:`MovingPatch` has none; otherwise required.
            target (int, str, Tensor or list): The class, by its number or by its name in the
                classifier's ``class_names``; or one for each canvas or moving patch. Required.
            area (float or Sequence[float]): Share of the pixels at which the patterns are searched
                and scored, or several. The paper's loop uses it for scoring alone. A moving patch's
                side sets its area. Default: 0.05.
            keep (int, optional): The most patterns of each class to return at each area, best on
                the validation images first. The different canvases of a class compete: a quick
                screening leaves two per pattern, and the weaker one is dropped half-way. Default:
                None (one for each canvas, in order).
            budget (int, optional): Passes per class, for all its canvases and for scoring them
                early; with several areas, for the largest, or for each if a pool is screened. All
                classes of a call take as many rounds as the one with the most canvases, so others
                take fewer passes. One that is too small for any round gives one, with a notice.
                Default: None ("swap" with ``keep``: 7,000 for each pattern;
                otherwise the solver's own length, which for "swap" is about 1,000 per canvas).
            additional_forward_args (Any, optional): Passed to ``forward_func`` after the images;
                from a Tensor with N rows, each canvas gets its own. Default: None.
            feature_mask (Tensor or Callable, optional): Pixels that are kept together or not at
                all, as in Captum: the number of each pixel's feature, int (H, W), (1, H, W) or, for
                each canvas, (N, 1 or C, H, W), the same in all channels. Or a function from a
                canvas (C, H, W) to such numbers, (H, W), such as ``Cells(32)`` or one that segments
                it (then a canvas of one colour gets 32 x 32 cells). Features are chosen by their
                gain per pixel, until the next one would exceed the area. Default: None (each pixel
                is one).
            solver (str or Solver): ``"swap"``, ``"paper"``, ``"learned"`` (which also changes the
                canvases' colours), or a solver with settings, such as ``PaperLoop(epochs=2)`` or
                ``MovingPatch(side=32)``. Default: "swap".
            n_steps (int, optional): Rounds of the swap solver, or steps of the paper's loop, on
                each canvas that is searched to the end. It overrides the budget. Default: None (12
                rounds without ``keep``; or the loop's 5 epochs).
            seed (int): Seed of the order of the baselines, and of the choice of validation images.
                Default: 0.
            precision (str): ``"auto"`` lets all solvers but the paper's work on a private copy of
                the model with its batch norms folded. Then a convolutional network runs in
                channels_last on CPUs, and in bfloat16 on devices made for it (CUDA from compute
                capability 8.0, CPUs with AMX or AVX-512 bfloat16). If the differences of its logits
                are others, apart from rounding, or it fails, a notice says so, and the model is
                used as it is. ``"bfloat16"`` demands bfloat16; ``"full"`` uses the model as it is.
                Default: "auto".
            internal_batch_size (int, optional): Most images in one call of ``forward_func``. It
                affects memory, and masks only by rounding (see above). Default: None (32 on CPUs, 8
                at 224 pixels; 1,024 on other devices, 160 at 224 pixels; halved if the memory is
                too small).
            show_progress (bool): Draws a progress bar. Default: False.

        Returns:
            *list[Pattern] or dict[float, list[Pattern]]*: The patterns; for several areas, by area.
            Their ``info`` holds the settings, the seed, what the search cost and how it went; the
            keys are explained on the page *JSON for other programs*. Their ``seen`` has the
            hashes of the search images.

        Raises:
            TypeError: If an argument is of the wrong type, or the classifier returns no Tensor.
            ValueError: If a shape, a range or a target does not fit, no baselines are left without
                those of the target's class, or the loss becomes NaN or infinite; if an area rounds
                to no pixel or to all, or there is no area; if there is one feature for all pixels,
                or one that is larger than the area; or if ``keep`` is given and there are no
                validation images.

        Examples::

            >>> net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 3)).eval()
            >>> images, labels = torch.rand(40, 1, 8, 8), torch.arange(40) % 3
            >>> explainer = ClassPattern(net, images, labels)
            >>> found = explainer.search(images[:2], 2, area=[0.2, 0.1], n_steps=10)
            >>> {area: [int(p.mask.count_nonzero()) for p in of_area]
            ...  for area, of_area in found.items()}
            {0.2: [13, 13], 0.1: [6, 6]}
        """
        _refuse_baselines("search", baselines)
        several = isinstance(area, Sequence) and not isinstance(area, str)
        areas: Any = area if several else [area]
        settings = SearchSettings(
            solver=solver,
            areas=areas,
            n_steps=n_steps,
            seed=seed,
            precision=precision,
            internal_batch_size=internal_batch_size,
            show_progress=show_progress,
            budget=budget,
            keep=keep,
            feature_mask=feature_mask,
        )
        if settings.is_patch:
            if canvases is not None or several or settings.feature_mask is not None:
                raise ValueError(
                    "a moving patch needs no `canvases` and no `feature_mask`, and has the area of "
                    "its side: leave them out, and call search once for each side"
                )
            targets = parse_targets(target, None, ClassNames.of(self.forward_func))
        else:
            check_pixels(canvases, "canvases")
            targets = parse_targets(target, len(canvases), ClassNames.of(self.forward_func))  # type: ignore[arg-type]
        with self._decided(canvases, targets, settings, additional_forward_args) as plan:
            patterns = find_patterns(plan)
        return patterns if several else next(iter(patterns.values()))

    @log_usage()  # NoiseTunnel calls attribute.__wrapped__
    def attribute(
        self,
        inputs: Inputs,
        target: int | str | Tensor | list[int] | list[str] | None = None,
        additional_forward_args: Any = None,
        *,
        feature_mask: Tensor | Callable[[Tensor], Tensor] | None = None,
        solver: str | Solver = "swap",
        area: float = 0.05,
        budget: int | None = None,
        n_steps: int | None = None,
        seed: int = 0,
        precision: str = "auto",
        internal_batch_size: int | None = None,
        show_progress: bool = False,
        baselines: None = None,
        return_convergence_delta: bool = False,
    ) -> Inputs:
        r"""
        The masks that :meth:`search` finds with the inputs as canvases, in Captum's form.

        A pattern belongs to the class: inputs that are equal, with the same target and the same
        features, share one search. Inputs may leave [0, 1] by up to 0.25, as under NoiseTunnel, and
        are clamped.

        Args:
            inputs (Tensor or tuple[Tensor]): Canvases (N, C, H, W) in [0, 1], or a tuple of one.
            target (int, str, Tensor or list): The class, by its number or by its name in the
                classifier's ``class_names``; or one for each input. Default: None, which is an
                error: a pattern has a class.
            budget (int, optional): Passes per input. Default: None (the solver's own length, for
                "swap" about 1,000).
            return_convergence_delta (bool): As in Captum; there is none, so True is an error.
            additional_forward_args and all others: As in :meth:`search`.

        Returns:
            *Tensor* or *tuple[Tensor]* of **attributions**: The masks, in [0, 1], the same for
            all channels, times the inputs if ``multiply_by_inputs``; shaped like the inputs.

        Raises:
            TypeError, ValueError: As :meth:`search`; also for several areas or a moving patch.
        """
        _refuse_baselines("attribute", baselines)
        if return_convergence_delta:
            raise ArgumentTypeError(
                "attribute has no convergence delta, since masks don't add up to an output, and "
                "has_convergence_delta() is False: leave out `return_convergence_delta`"
            )
        settings = SearchSettings(
            solver=solver,
            areas=[area],
            n_steps=n_steps,
            seed=seed,
            precision=precision,
            internal_batch_size=internal_batch_size,
            show_progress=show_progress,
            budget=budget,
            feature_mask=feature_mask,
        )
        if settings.is_patch:
            raise ValueError(
                "a moving patch has no place in an input, so it has no mask: call "
                "search(target=..., solver=MovingPatch(...)), which returns the patch"
            )
        images = single_tensor(inputs)
        check_pixels(images, "inputs", slack=SLACK)
        targets = parse_targets(target, len(images), ClassNames.of(self.forward_func))
        canvases = images.detach().clamp(0, 1)
        arguments = additional_forward_args
        with self._decided(canvases, targets, settings, arguments, masks_only=True) as plan:
            self.precision = plan.precision
            [search] = compete(plan).values()
            masks = masks_of_canvases(search).to(images.dtype)
            if self.multiplies_by_inputs:
                masks = masks * images.detach()
            return masks_for(masks, inputs)  # here, where a caller's inference mode is off

    def attribute_future(self, *_: Any, **__: Any) -> NoReturn:
        """Not implemented, as for Captum's own methods: use :meth:`attribute`."""
        raise NotImplementedError(
            "attribute_future is not implemented for ClassPattern: use attribute"
        )

    @contextmanager
    def _decided(
        self,
        canvases: Tensor | None,
        targets: list[int],
        settings: SearchSettings,
        additional_forward_args: Any,
        *,
        masks_only: bool = False,
    ) -> Iterator[SearchPlan]:
        """The decided search of canvases, or of moving patches without any. The model is entered
        until the end of the block."""
        if canvases is None:
            sample = self._baselines.first().expand(len(targets), -1, -1, -1)
        else:
            check_same_shape(sample := canvases, self._baselines.shape)
        given = () if additional_forward_args is None else additional_forward_args
        arguments = given if isinstance(given, tuple) else (given,)
        call, batch_size = self.forward_func, settings.internal_batch_size
        with enter_model(call, sample, settings.seed, additional=arguments) as model:
            features = None
            if canvases is not None:  # or an error, before labels are predicted
                features = number_features(settings.feature_mask, canvases, settings.areas)
            if self._baselines.labels is None:
                self._check_accuracy = False  # the labels will be the model's predictions
            self._baselines = ensure_labels(
                model, self._baselines,
                additional_forward_args=arguments or None, batch_size=batch_size,
            )  # fmt: skip
            required = [] if settings.keep is None else targets
            split = split_for_validation(self._baselines, settings.seed, required)
            if canvases is None:
                plan = decide_patches(model, targets, split, settings, arguments)
            else:
                plan = decide_search(
                    model, canvases, targets, split, settings, arguments,
                    masks_only=masks_only, features=features,
                )  # fmt: skip
            if not arguments:
                self._warn_if_guessing(model, batch_size)
            yield plan

    def _warn_if_guessing(self, model: CheckedModel, batch_size: int | None) -> None:
        """Warns, once, if the model is right on few of the labelled baselines."""
        if not self._check_accuracy or len(self._baselines) < MIN_LABELLED:
            return
        self._check_accuracy = False
        for most in (CHECKED, IN_DOUBT):
            baselines = self._baselines.stratified_sample(most)
            with uncounted():
                predicted = predictions(model, baselines, batch_size)
            accuracy = baselines.accuracy_of(predicted)
            if accuracy > guessing_below(baselines.known_labels, model.n_classes) + DOUBT:
                return
            if len(baselines) == len(self._baselines):  # there are no others
                break
        warn_if_guessing(accuracy, baselines.known_labels, model.n_classes, "baselines")


def _refuse_baselines(method: str, baselines: object) -> None:
    """Raises an error about baselines where most of Captum's methods take them."""
    if baselines is not None:
        raise ArgumentTypeError(
            f"{method} takes no `baselines`: give them to the constructor, as in "
            "ClassPattern(model, baselines)"
        )


def single_tensor(inputs: Any) -> Any:
    """The one Tensor of Captum's ``inputs``, which may be in a tuple."""
    if isinstance(inputs, tuple):
        if len(inputs) != 1:
            raise ValueError(
                f"inputs must be one Tensor, or a tuple of one, got a tuple of {len(inputs)}: a "
                "pattern lives on one image"
            )
        return inputs[0]
    return inputs


def masks_for(maps: Tensor, inputs: Inputs) -> Inputs:
    """Maps (N, 1 or C, H, W) in Captum's form: shaped like the inputs, in a tuple if these are."""
    images = single_tensor(inputs)
    masks = maps.to(images).expand_as(images).contiguous()
    return (masks,) if isinstance(inputs, tuple) else masks
