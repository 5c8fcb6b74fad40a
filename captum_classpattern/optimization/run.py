"""From a classifier, canvases and baselines to a search that has not begun."""

from typing import Any

from torch import Tensor

from captum_classpattern._validation import check_same_shape
from captum_classpattern.classifier import Classifier, additional_rows, logits_of
from captum_classpattern.images import LabelledImages, ensure_labels
from captum_classpattern.optimization.acceleration import accelerated
from captum_classpattern.optimization.features import Features
from captum_classpattern.optimization.objective import Objective
from captum_classpattern.optimization.schedule import Schedule, Stream
from captum_classpattern.optimization.search import Search
from captum_classpattern.optimization.settings import SearchSettings

CPU_BATCH, CPU_PIXELS = 32, 8 * 224**2  # larger steps spend their time on fresh memory pages


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
        show_progress=bool(settings.show_progress),
        features=Features.of(ids) if isinstance(ids, Tensor) else None,
    )
