"""``explain_class`` and ``survey``: the search of one class of a model, or of many. Of each pool of
canvases the best is kept, and scored with its controls."""

import os
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Unpack

from torch import Tensor

from captum_classpattern._support import validation
from captum_classpattern._support.files import check_folder
from captum_classpattern._support.progress import passes_bar
from captum_classpattern._support.topk import pixels_kept
from captum_classpattern.classifier import (
    CheckedModel,
    Classifier,
    check_targets,
    enter_model,
    warn_if_guessing,
)
from captum_classpattern.classifier.class_names import ClassNames, parse_targets
from captum_classpattern.images import (
    Images,
    ImagesAndLabels,
    LabelledImages,
    Labels,
    ensure_labels,
    first_of,
    hash_of_images,
    identity_of,
)
from captum_classpattern.optimization.canvases import PATCH
from captum_classpattern.optimization.features import check_can_resume, check_for_all
from captum_classpattern.optimization.settings import SearchOptions, versions
from captum_classpattern.scores.power import Scorer
from captum_classpattern.surveys.findings import Finding
from captum_classpattern.surveys.folder import MODEL, OUR_VERSION, RESULTS, SurveyFolder
from captum_classpattern.surveys.results import Survey, SurveyInterrupted
from captum_classpattern.surveys.settings import SurveyOptions, SurveySettings
from captum_classpattern.surveys.task import SurveyTask


def search_classes(
    model: CheckedModel,
    search: LabelledImages,
    held_out: LabelledImages,
    settings: SurveySettings,
    classes: Sequence[int],
    folder: Path | None = None,
) -> Survey:
    """Finds all classes that are not in the folder, and writes each when it is finished. The
    held-out images are classified once; it warns if the model is close to guessing."""
    started = time.perf_counter()
    with passes_bar("Searching", 1, settings.show_progress, a_pass=0.0):  # of one model
        check_images(search, held_out, settings)
        check_targets(classes, model.n_classes)
        task, info = _begin(model, search, held_out, settings, classes, folder is not None)
        store, findings = None, list[Finding]()
        if folder is not None:
            store = SurveyFolder(folder, info["settings"])
            _, stored = store.contents()
            kinds = Counter(finding.target for finding in stored)
            findings = [each for each in stored if kinds[each.target] == len(settings.canvases)]
        done = {finding.target for finding in findings}
        task.patches.update({each.target: {**each.patterns} for each in findings if each.is_patch})
        missing = [y for y in classes if y not in done]
        try:
            for of_class in task.find(missing) if missing else [[]]:
                info["seconds"] = round(time.perf_counter() - started, 1)
                if store is not None:
                    if of_class:
                        store.add(of_class)
                    store.write_summary(info)
                findings += of_class
        except KeyboardInterrupt:
            raise SurveyInterrupted(Survey(findings, model.n_classes, info)) from None
    return Survey(findings, model.n_classes, info)


def _begin(
    model: CheckedModel,
    search: LabelledImages,
    held_out: LabelledImages,
    settings: SurveySettings,
    classes: Sequence[int],
    kept: bool,
) -> tuple[SurveyTask, dict[str, Any]]:
    """What finds the classes, and how they are searched, for results.json. Without labels, nothing
    is known of accuracy."""
    validation.check_labels(held_out.labels, model.n_classes, "the held-out images")
    held_out.names_for(model)  # or an error
    names, labelled = search.names_for(model), ensure_labels(model, search)
    if search.labels is not None and not labelled.known_labels.equal(search.labels):
        raise ValueError(
            "the search images have other class numbers than the model: number both sets by "
            "images.for_classifier(model)"
        )
    model, accuracy = replace(model, given_names=names), None
    scorer = Scorer(model, held_out.to(model.device, model.dtype))
    if held_out.labels is not None:
        accuracy = held_out.accuracy_of(scorer.predicted)
        warn_if_guessing(accuracy, held_out.labels, model.n_classes, "held-out images")
    info = {
        "settings": {
            MODEL: identity_of(model, search),
            **survey_identity(settings, search, held_out, kept),
        },
        "provenance": model.provenance,
        "accuracy": accuracy,
        "n_classes": model.n_classes,
        "classes": list(classes),
        "search_images": search.counts,
        "held_out_images": held_out.counts,
        "versions": versions(),
    }
    return SurveyTask(model, labelled, scorer, settings, classes), info


def survey_identity(
    settings: SurveySettings, search: LabelledImages, held_out: LabelledImages, kept: bool = True
) -> dict[str, Any]:
    """What decides the findings of a model, for the files of a folder. Without one, a Dataset is
    not read as a whole for its hash."""
    hashed = kept or search.in_memory
    return {
        "search_images": hash_of_images(search) if hashed else None,
        "held_out_images": hash_of_images(held_out),
        "canvases": settings.canvases,
        "areas": list(settings.areas),
        **settings.limits(),
        OUR_VERSION: versions()[OUR_VERSION],
    }


def find_classes(
    classes: Sequence[int | str] | None,
    names: ClassNames | None,
    images: LabelledImages,
    model: CheckedModel | None = None,
) -> list[int]:
    """The numbers of classes that are given by numbers or names; of None, those of all that have
    images: without labels, those that the model predicts."""
    if classes is None:
        labelled = images if model is None else ensure_labels(model, images)
        return sorted({*labelled.known_labels.tolist()})
    if isinstance(classes, str):
        raise validation.ArgumentTypeError(f"`classes` must be a list of classes, got {classes!r}")
    if len(classes) == 0:
        raise ValueError("`classes` is empty: leave it out to search all")
    return list(dict.fromkeys(parse_targets([*classes], None, names)))


def check_images(
    search: LabelledImages, held_out: LabelledImages, settings: SurveySettings
) -> None:
    """Raises an error if the images differ in shape, or cannot be searched with these settings."""
    if search.shape != held_out.shape:
        raise ValueError(
            "search images and held-out images must have the same shape (C, H, W), got "
            f"{search.shape} and {held_out.shape}"
        )
    for area in settings.areas:
        pixels_kept(area, search.shape[1:])
    for patch in settings.patches(search.shape) if PATCH in settings.canvases else ():
        patch.check_images(search.shape, "a smaller `area`")
    check_for_all(settings.feature_mask, search.shape[1:])


def _survey(
    model: CheckedModel,
    images: LabelledImages,
    held_out: "ImagesAndLabels | None",
    settings: SurveySettings,
    classes: Sequence[Any] | None,
    *,
    folder: Path | None = None,
) -> Survey:
    """The survey of classes by their numbers or names (None: all that have images). Half of the
    images are held out, unless others are given."""
    names = images.names_for(model)
    model = replace(model, given_names=names)
    if held_out is None:
        search, unseen = images.halves(settings.seed)
    else:
        unseen = LabelledImages.of(held_out, None, model, argument="held-out images")
        search = images
    targets = find_classes(classes, names, search, model)
    return search_classes(model, search, unseen, settings, targets, folder)


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
    canvases: str | Sequence[str] | Mapping[str, int] | int | None = None,
    area: float | None = None,
    **options: Unpack[SearchOptions],
) -> Finding:
    r"""
    Finds the pattern of a class: the few pixels that make the model predict the class on as many
    other images as possible (Zhao et al. 2021, arXiv 2101.06898).

    It splits the images into two halves, class by class. Patterns are searched on the first half,
    on positive, white and black canvases. On images of at least 64 pixels a side, they are searched
    on positive canvases, and as a patch that works anywhere, see :class:`MovingPatch`. The second
    half only scores them, next to controls, see :class:`~captum_classpattern.scores.Scores`. The
    finding that did best on the validation images, a part of the first half, is returned.

    It warns if the model is close to guessing. For all classes, see :func:`survey`.

    Args:
        model (Callable): A :class:`PixelClassifier`, or any other classifier from pixels
            (B, C, H, W) in [0, 1] to logits (B, K). An ``nn.Module`` of normalised images needs
            ``mean`` and ``std``.
        images (LabelledImages, Tensor, Dataset or DataLoader): The images, (C, H, W) each, in
            [0, 1]. Classes of :class:`LabelledImages` are matched with the model's by name, see
            :meth:`LabelledImages.for_classifier`.
        labels (Tensor, Sequence[int] or Sequence[str], optional): Their classes, by the model's
            numbers or names. Default: None (those that come with the images, else the model's
            predictions).
        target (int or str): The class, by its number or its name. Required.
        held_out (LabelledImages, optional): The images to score on, none of them among
            ``images``. A Dataset or DataLoader with labels will do, or a pair of images and labels.
            Default: None (half of ``images``).
        mean (float or Sequence[float], optional): Mean of the pixels by which the model's images
            are normalised, see :class:`PixelClassifier`. Default: None.
        std (float or Sequence[float], optional): Standard deviation, likewise. Default: None.
        class_names (Sequence[str], optional): The name of each class of the model, in their order.
            Default: None (the model's, else those of the images).
        canvases (str, Sequence[str], Mapping[str, int] or int, optional): The kinds of canvas, or
            at most how many canvases of each kind, see :func:`select_canvases`; or ``"patch"``, a
            moving patch; or how many positive ones, next to the other usual kinds. Default: None
            ({"positive": 32, "white": 1, "black": 1}; from 64 pixels a side {"positive": 32,
            "patch": 1}, without the patch if it can't move or a ``feature_mask`` is given).
        area (float, optional): Share of the pixels in the pattern, or of the image that a patch
            covers. Default: None (0.05; from 64 pixels a side 0.18: 96 x 96 pixels of 224 x 224).
        budget (int, optional): Passes per kind of canvas. Scoring, and the search of the patch that
            is a control, come on top. On small images, patterns from fewer than 2,000 are weaker,
            and vary more from seed to seed. Default: None (7,000; from 64 pixels a side 960, or 430
            next to a patch, which takes about 950).
        seed (int): Seed of the split, of the search and of the random pixels. Default: 0.
        show_progress (bool, optional): Shows progress: a bar or, where stderr is a log, a line
            every half minute. Default: None (after five seconds).
        n_steps (int, optional): Rounds on each canvas; without canvases, steps of the patch.
            Default: None.
        feature_mask, precision, internal_batch_size: As in :meth:`ClassPattern.search`. The
            control of random pixels keeps single pixels, whatever the ``feature_mask``.

    Returns:
        *Finding*: The pattern, its power and its controls, and :attr:`Finding.others`, the findings
        on the other kinds of canvas. It shows itself in a notebook; ``plot()`` draws it.

    Raises:
        TypeError: If the model, the images or the target are of a wrong type, or a model that is
            not an ``nn.Module`` is given ``mean`` or ``std``.
        ValueError: If the class is unknown or has no images, or as :func:`survey`.

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
    if isinstance(labels, str) or (target is None and validation.is_whole(labels)):
        raise validation.ArgumentTypeError(
            f"the third argument is `labels`, got {labels!r}: name the class `target={labels!r}`"
        )
    if target is None:
        raise ValueError("`target` is missing: give the class to explain, such as `target='dog'`")
    if isinstance(target, list | tuple) or (isinstance(target, Tensor) and target.ndim):
        raise validation.ArgumentTypeError(
            f"`target` is one class (for several: survey), got {target!r:.80}"
        )
    validation.check_options(explain_class, options, SearchOptions)
    sample, seed = first_of(images), options.get("seed", 0)
    with enter_model(model, sample, seed, mean=mean, std=std, class_names=class_names) as checked:
        given = LabelledImages.of(images, labels, checked)
        areas = None if area is None else [area]
        settings = SurveySettings.of(given.shape, areas, canvases, **options)
        settings = replace(settings, areas=settings.areas[:1])
        survey = _survey(checked, given, held_out, settings, [target])
    explained = [replace(finding, accuracy=survey.info["accuracy"]) for finding in survey]
    return Survey(explained).finding(explained[0].target)


def survey(
    forward_func: Classifier,
    search: ImagesAndLabels,
    held_out: "ImagesAndLabels | None" = None,
    *,
    classes: Sequence[int | str] | None = None,
    mean: float | Sequence[float] | None = None,
    std: float | Sequence[float] | None = None,
    class_names: Sequence[str] | None = None,
    folder: str | os.PathLike[str] | None = None,
    resume: bool = False,
    **options: Unpack[SurveyOptions],
) -> Survey:
    r"""
    Finds the patterns of many classes, and scores each with its controls on held-out images.

    Canvases are chosen among the search images. For each kind of canvas, the pattern that does best
    on the validation images is kept, see ``keep`` of :meth:`ClassPattern.search`. The controls are:
    no pattern; the same number of random pixels of the canvas (3 draws, each on a third of the
    images); and the same mask on the positive canvas of the next class. The last two are scored on
    at most 300 of the images. A moving patch has other controls, see
    :class:`~captum_classpattern.scores.Scores`: the other patch is that of the next class, which is
    searched as well if the class is searched alone.

    Args:
        forward_func (Callable): Classifier from pixels (B, C, H, W) in [0, 1] to logits (B, K). An
            ``nn.Module`` of normalised images needs ``mean`` and ``std``.
        search (LabelledImages): The images that patterns are cut from and searched on. A Dataset
            or DataLoader will do, or a pair of images and labels.
        held_out (LabelledImages, optional): The images that patterns are scored on, likewise.
            Default: None (half of ``search``).
        classes (Sequence[int or str], optional): Which classes, by their numbers or by their names
            in the classifier's ``class_names``, or else the images'. Default: None (all that have
            search images).
        mean, std, class_names (optional): As in :func:`explain_class`.
        folder (str or PathLike, optional): Where classes are written as soon as they are finished,
            so that an interrupt loses no finished class. Default: None (nowhere).
        resume (bool): Continues the search in the folder: its findings come first, and only the
            classes that are missing are searched. Several processes may share a folder. Each must
            pass ``resume=True`` and the same settings, and its own ``classes``. Default: False (a
            folder that holds findings is an error).
        areas (Sequence[float], optional): Areas to search and score at. Default: None ((0.05,
            0.01); from 64 pixels a side (0.18,)).
        canvases (str, Sequence[str], Mapping[str, int] or int, optional): The kinds of canvas, or
            at most how many of each kind and class, see :func:`select_canvases`; also at most one
            for each 215 passes of the budget. White canvases are all the same: each beyond the
            second is one more start of the search. ``"patch"`` is a :class:`MovingPatch` that
            covers the area. Default: None, as in :func:`explain_class`.
        classes_together (int, optional): Number of classes that are searched together. It changes
            masks by rounding at most, except for a class with copies among its canvases, which
            takes fewer rounds next to others. Default: None (on a CPU 10, or 1 for images of at
            least 64 pixels a side; 32 on another device; half as many if its memory is too small
            for batches of one image).
        budget (int, optional): Passes per class and kind of canvas, at the largest area or at each
            area of a pool, as in :meth:`ClassPattern.search`. Default: None, as in
            :func:`explain_class`.
        n_steps, show_progress (optional): As in :func:`explain_class`. Default: None.
        feature_mask, seed, precision, internal_batch_size: As in :meth:`ClassPattern.search`.

    Returns:
        *Survey*: One :class:`Finding` for each class and kind of canvas, class by class.

    Raises:
        TypeError, ValueError: As :meth:`ClassPattern.search` and :func:`predictive_power`; also if
            the folder holds findings of other settings, or any without ``resume``.
        SurveyInterrupted: A ``KeyboardInterrupt`` whose ``survey`` holds the classes that were
            finished.

    Examples::

        >>> net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 3)).eval()
        >>> labels = torch.arange(60) % 3
        >>> search = LabelledImages(torch.rand(60, 1, 8, 8), labels)
        >>> held_out = LabelledImages(torch.rand(60, 1, 8, 8), labels)
        >>> found = survey(net, search, held_out, areas=(0.1,), classes=[2], n_steps=10)
        >>> found
        Survey(3 findings on positive, white, black canvases, areas 0.1)
        >>> [(f.target, f.canvas, f.scores[0.1].power.n) for f in found]
        [(2, 'positive', 40), (2, 'white', 40), (2, 'black', 40)]
    """
    validation.check_options(survey, options, SurveyOptions)
    place = check_folder(folder)
    if place is not None and not resume and (place / RESULTS).exists():
        raise ValueError(
            f"{place} holds results already: pass `resume=True` to continue, or another folder"
        )
    sample, seed = first_of(search, "search images"), options.get("seed", 0)
    with enter_model(
        forward_func, sample, seed, mean=mean, std=std, class_names=class_names
    ) as model:
        images = LabelledImages.of(search, None, model, argument="search images")
        settings = SurveySettings.of(images.shape, **options)
        if place is not None:
            check_can_resume(settings.feature_mask)
        return _survey(model, images, held_out, settings, classes, folder=place)
