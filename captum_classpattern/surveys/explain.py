"""``explain_class``: the pattern of one class of one model, with its evidence, in one call."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Unpack, cast

from torch import Tensor

from captum_classpattern._validation import ArgumentTypeError, is_whole
from captum_classpattern.classifier import Classifier, over_pixels, preserve_state
from captum_classpattern.images import Images, ImagesAndLabels, LabelledImages, Labels
from captum_classpattern.optimization.settings import SearchOptions
from captum_classpattern.surveys.findings import Finding, best_of_each
from captum_classpattern.surveys.survey import (
    CANVASES,
    SurveySettings,
    find_classes,
    search_classes,
    split_images,
)


class ExplainOptions(SearchOptions, total=False):
    """The keywords of :func:`explain_class` that decide how it searches, see there."""

    area: float


def explain_class(
    model: Classifier,
    images: Images,
    labels: Labels = None,
    target: int | str | None = None,
    *,
    held_out: "ImagesAndLabels | None" = None,
    mean: float | Sequence[float] | None = None,
    std: float | Sequence[float] | None = None,
    class_names: Sequence[str] | None = None,
    canvases: str | Sequence[str] | Mapping[str, int] = CANVASES,
    **options: Unpack[ExplainOptions],
) -> Finding:
    r"""
    Finds the pattern of a class: the few pixels that make the model predict the class on as many
    other images as possible (Zhao et al. 2021, arXiv 2101.06898).

    It splits the images into two halves, class by class. Patterns are searched on the first half,
    on positive, white and black canvases. The second half only scores them, next to three controls.
    The kind of canvas that did best on the validation images, a part of the first half, is
    returned.

    It warns if the model is close to guessing. For all classes of a model, see :func:`survey`.

    Args:
        model (Callable): A :class:`PixelClassifier`, or any other classifier from pixels
            (B, C, H, W) in [0, 1] to logits (B, K). An ``nn.Module`` of normalised images needs
            ``mean`` and ``std``.
        images (LabelledImages, Tensor, Dataset or DataLoader): The images, (C, H, W) each, in
            [0, 1]. Classes of :class:`LabelledImages` are matched with the model's by name, see
            :meth:`LabelledImages.for_classifier`.
        labels (Tensor or Sequence[int], optional): Their classes, in the model's numbers.
            Default: None (those that come with the images).
        target (int or str): The class, by its number or its name. Required.
        held_out (LabelledImages, optional): The images to score on, which ``images`` must not
            have. A Dataset or DataLoader with labels will do, or a pair of images and labels.
            Default: None (half of ``images``).
        mean (float or Sequence[float], optional): Mean of the pixels by which the model's images
            are normalised, see :class:`PixelClassifier`. Default: None.
        std (float or Sequence[float], optional): Standard deviation, likewise. Default: None.
        class_names (Sequence[str], optional): The name of each class of the model, in their order.
            Default: None (the model's, else those of the images).
        canvases (str, Sequence[str] or Mapping[str, int]): The kinds of canvas, or at most how many
            canvases of each kind, see :func:`select_canvases`. Default: {"positive": 32, "white":
            1, "black": 1}.
        area (float): Share of the pixels in the pattern. Default: 0.05.
        budget (int, optional): Passes per kind of canvas. With fewer than 2,000 patterns are
            weaker, and vary from seed to seed. Default: None (7,000).
        n_steps (int, optional): Rounds on each canvas that is searched to the end, instead of a
            budget. Default: None.
        max_seconds (float, optional): Stops the search after that time, with what was found; each
            kind of canvas has an equal share. Choosing the canvases and scoring come on top.
            Default: None.
        feature_mask (Tensor or Callable, optional): Pixels that are kept together, such as
            ``Cells(32)``, see :meth:`ClassPattern.search`. Such patterns are weaker. The control of
            random pixels keeps single pixels. Default: None.
        seed (int): Seed of the split, of the search and of the random pixels. Default: 0.
        precision (str): As in :meth:`ClassPattern.search`. Default: "auto".
        internal_batch_size (int, optional): The most images in one forward pass. Default: None.
        show_progress (bool, optional): Draws a progress bar over the passes, with the time that is
            left. Default: None (after five seconds).

    Returns:
        *Finding*: The pattern, its power and its controls, and :attr:`Finding.others`, the findings
        on the other kinds of canvas. It shows itself in a notebook; ``plot()`` draws it.

    Raises:
        TypeError: If the model, the images or the target are of a wrong type, or a model that is
            not an ``nn.Module`` is given ``mean`` or ``std``.
        ValueError: If there are no labels, the class is unknown or has no images, or as
            :func:`survey`.

    Examples::

        >>> net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 3)).eval()
        >>> images, labels = torch.rand(90, 1, 8, 8), torch.arange(90) % 3
        >>> found = explain_class(
        ...     net, images, labels, "bee", mean=0.5, std=0.5, class_names=["ant", "bee", "cat"],
        ...     n_steps=5)
        >>> found.label, found.scores[0.05].power.n, len(found.others)
        ('bee', 30, 2)
        >>> found.stamp(images[:4]).shape
        torch.Size([4, 1, 8, 8])
    """
    _check_target(target, labels)
    area = options.pop("area", 0.05)
    settings = SurveySettings(areas=[area], canvases=canvases, **cast(SearchOptions, options))
    if settings.max_seconds is not None:
        of_each = settings.max_seconds / len(settings.canvases)
        settings = replace(settings, max_seconds=of_each)
    classifier = over_pixels(model, mean, std, class_names)
    with preserve_state(classifier, settings.seed):  # says once that a model is in train mode
        given = LabelledImages.of(images, labels, classifier, class_names)
        search, unseen, names = split_images(
            classifier, given, held_out, class_names, settings.seed
        )
        _ = search.known_labels, unseen.known_labels  # or an error
        classes = find_classes([cast(Any, target)], names)
        listed = None if names is None else names.names
        survey = search_classes(classifier, search, unseen, settings, classes, listed)
    explained = [
        replace(
            finding,
            accuracy=survey.info["accuracy"],
            search_images=len(search),
            held_out_images=len(unseen),
        )
        for finding in survey
    ]
    [best] = best_of_each(explained)
    return replace(best, others=tuple(each for each in explained if each is not best))


def _check_target(target: Any, labels: Any) -> None:
    """Raises an error unless there is one class, which is not at the place of the labels."""
    if isinstance(labels, str) or (target is None and is_whole(labels)):
        raise ArgumentTypeError(
            f"the third argument is `labels`, got {labels!r}: name the class `target={labels!r}`"
        )
    if target is None:
        raise ValueError("`target` is missing: give the class to explain, such as `target='dog'`")
    if isinstance(target, list | tuple) or (isinstance(target, Tensor) and target.ndim):
        several = target.tolist() if isinstance(target, Tensor) else [*target]
        raise ArgumentTypeError(
            "`target` is one class: for several, use "
            f"survey(model, images, ..., classes={several!r:.80})"
        )
