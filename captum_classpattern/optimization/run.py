"""From a classifier, canvases and baselines to masks."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from torch import Tensor

from captum_classpattern._validation import as_arguments, check_pixels, check_same_shape
from captum_classpattern.classifier import Classifier, additional_rows, logits_of, preserve_state
from captum_classpattern.classifier.class_names import parse_targets
from captum_classpattern.images import Images, LabelledImages, Labels, ensure_labels
from captum_classpattern.optimization.acceleration import accelerated
from captum_classpattern.optimization.features import Features, numbered
from captum_classpattern.optimization.objective import Objective
from captum_classpattern.optimization.schedule import Schedule, Stream
from captum_classpattern.optimization.search import Search, SearchResult, Solver
from captum_classpattern.optimization.settings import SearchSettings

CPU_BATCH, CPU_PIXELS = 32, 8 * 224**2  # larger steps spend their time on fresh memory pages


def search_masks(
    forward_func: Classifier,
    canvases: Tensor,
    target: int | str | Tensor | list[int] | list[str],
    baselines: Images,
    *,
    baseline_labels: Labels = None,
    additional_forward_args: Any = None,
    feature_mask: Tensor | Callable[[Tensor], Tensor] | None = None,
    solver: str | Solver = "swap",
    area: float = 0.05,
    n_steps: int | None = None,
    seed: int = 0,
    precision: str = "auto",
    internal_batch_size: int | None = None,
    show_progress: bool = False,
) -> SearchResult:
    r"""
    Searches, for each canvas, the mask whose pixels make the classifier predict the target (Zhao
    et al. 2021, arXiv 2101.06898, section 3.2).

    The default solver, :class:`~captum_classpattern.optimization.Swap`, finds stronger patterns in
    a fraction of the time; :class:`~captum_classpattern.optimization.PaperLoop` is the published
    loop.

    The searches are independent: N canvases together give the masks of N searches alone, up to
    rounding. Epoch e visits the baselines in the order ``numpy.random.default_rng([seed,
    e]).permutation(len(baselines))``, without those of the target's class. The caller's model,
    gradients and random state stay as they are.

    The same seed, settings, number of threads and kind of device give the same masks bit for bit,
    if the model's own operations do. Another ``internal_batch_size`` or number of threads takes
    sums in another order, which moves the last bits of a loss (in bfloat16 its third digit): swaps
    that are nearly even can fall the other way. The masks then differ as those of two seeds do.

    Args:
        forward_func (Callable): Classifier from pixels (B, C, H, W) in [0, 1] to logits (B, K).
        canvases (Tensor): The images to cut patterns from, (N, C, H, W) in [0, 1].
        target (int, str, Tensor or list): The class, by its number or by its name in the
            classifier's ``class_names``; or one for each canvas.
        baselines (LabelledImages, Tensor, Dataset or DataLoader): The images that the masks are
            stamped on, (C, H, W) each, in [0, 1]; a Dataset or DataLoader gives images or pairs
            of image and label. A batch at a time is moved to the canvases' device.
        baseline_labels (Tensor or Sequence[int], optional): Their classes. Default: None (the
            Dataset's own, else the classifier's predictions).
        additional_forward_args (Any, optional): Passed to ``forward_func`` after the images; of
            a Tensor with N rows, each canvas gets its row. Default: None.
        feature_mask (Tensor or Callable, optional): Pixels that are kept together or not at all, as
            in Captum: the number of each pixel's feature, int (H, W), (1, H, W) or, for each
            canvas, (N, 1 or C, H, W), alike in all channels; or a function from a canvas
            (C, H, W) to such numbers, (H, W), such as ``Cells(32)`` or one that segments it (a
            canvas of one colour has 32 x 32 cells then). Features are taken by what they gain
            per pixel, until the next one would exceed the area. Default: None (each pixel is one).
        solver (str or Solver): ``"swap"``, ``"paper"``, ``"learned"`` (which also changes the
            colours, which only :meth:`ClassPattern.search` returns), or a solver with settings,
            such as ``PaperLoop(epochs=2)``. Default: "swap".
        area (float): Share of the pixels that the masks of the swap solver have. The paper's loop
            does not use it. Default: 0.05.
        n_steps (int, optional): Rounds of the swap solver, or steps of the paper's loop. Default:
            None (12 rounds; or the loop's 5 epochs).
        seed (int): Seed of the order of the baselines. Default: 0.
        precision (str): ``"auto"`` lets the swap solver work on a private copy of the model with
            its batch norms folded, and in bfloat16 and channels_last where a convolutional network
            is on a device made for bfloat16 (CUDA from compute capability 8.0, CPUs with AMX or
            AVX-512 bfloat16); ``"bfloat16"`` demands it anywhere; ``"full"`` uses the model as it
            is. Default: "auto".
        internal_batch_size (int, optional): Most images in one call of ``forward_func``. It
            changes memory, and masks only by rounding (see above). Default: None (32 on CPUs, 8
            at 224 pixels; on other devices all images of a step; halved if the memory is too
            small).
        show_progress (bool): Draws a progress bar. Default: False.

    Returns:
        *SearchResult*: ``masks``, float32 (N, 1, H, W) in [0, 1] on the canvases' device;
        ``losses`` (N, steps), those of the rounds for the swap solver; ``passes`` (N,), how
        often the model ran forward and backward on an image for each canvas (two runs forward
        alone count as one).

    Raises:
        TypeError: If an argument is of a wrong type, or the classifier returns no Tensor.
        ValueError: If a shape, a range or a target does not fit, no baselines are left without
            those of the target's class, or the loss becomes NaN or infinite; also if there is one
            feature for all pixels, or one that is larger than the area.

    Examples::

        >>> net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 3)).eval()
        >>> canvases, baselines = torch.rand(2, 1, 8, 8), torch.rand(20, 1, 8, 8)
        >>> masks, losses, passes = search_masks(
        ...     net, canvases, [0, 2], baselines, baseline_labels=[1] * 20, n_steps=10)
        >>> masks.shape, masks.count_nonzero((1, 2, 3)).tolist(), losses.shape
        (torch.Size([2, 1, 8, 8]), [3, 3], torch.Size([2, 10]))
    """
    settings = SearchSettings.of(locals(), areas=[area])
    source = LabelledImages.of(baselines, baseline_labels, argument="baselines")
    check_pixels(canvases, "canvases")
    targets = parse_targets(target, len(canvases), forward_func)
    ids = numbered(settings.feature_mask, canvases, settings.areas)
    settings = replace(settings, feature_mask=ids)
    with preserve_state(forward_func, settings.seed):
        streams = [Stream(target) for target in targets]
        arguments = as_arguments(additional_forward_args)
        search = begin_search(forward_func, canvases, streams, source, settings, arguments)
        search.finish()
        return search.result()


def begin_search(
    forward_func: Classifier,
    canvases: Tensor,
    streams: list[Stream],
    source: LabelledImages,
    settings: SearchSettings,
    arguments: tuple[Any, ...] = (),
    *,
    started: float = 0.0,
) -> Search:
    """A search of canvases that has not begun; to be called and used under ``preserve_state``. The
    feature mask of the settings is one that was ``numbered``."""
    check_same_shape(canvases, source.shape)
    canvases = canvases.detach().clone()  # out of inference mode, which allows no gradients
    arguments = tuple(
        argument.clone() if isinstance(argument, Tensor) and argument.is_inference() else argument
        for argument in arguments
    )
    targets, batch_size = [stream.target for stream in streams], settings.internal_batch_size
    first_arguments = additional_rows(arguments, slice(1), len(canvases))
    classifier = logits_of(forward_func, canvases[:1], targets, first_arguments, source)
    source = ensure_labels(
        forward_func,
        source,
        like=canvases,
        additional_forward_args=arguments or None,
        batch_size=batch_size,
    )
    if settings.solver.accelerates:
        classifier = accelerated(classifier, canvases, arguments, settings.precision)
    if batch_size is None and canvases.device.type == "cpu":
        batch_size = max(1, min(CPU_BATCH, CPU_PIXELS // canvases[0, 0].numel()))
    ids = settings.feature_mask
    return Search(
        settings.solver,
        Objective(classifier, canvases, targets, arguments, batch_size),
        Schedule(source, streams, settings.seed),
        streams,
        settings.area,
        n_steps=settings.n_steps,
        deadline=None if settings.max_seconds is None else started + settings.max_seconds,
        show_progress=settings.show_progress,
        features=Features.of(ids) if isinstance(ids, Tensor) else None,
    )
