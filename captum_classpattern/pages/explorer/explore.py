"""``explore``: results, a model and images in one widget for notebooks."""

from collections.abc import Sequence
from functools import cache
from typing import Any

import torch

from captum_classpattern._validation import ArgumentTypeError, check_same_shape, check_seed
from captum_classpattern.classifier import Classifier, PixelClassifier, preserve_state
from captum_classpattern.classifier.class_names import ClassNames, label_of
from captum_classpattern.images import Images, LabelledImages, Labels, ensure_labels
from captum_classpattern.pages.explorer.panel import Example
from captum_classpattern.pages.explorer.widget import Explorer, import_ipywidgets
from captum_classpattern.pattern import Pattern
from captum_classpattern.scores.examples import choose_images
from captum_classpattern.scores.power import hashes_seen
from captum_classpattern.surveys import Finding, Survey
from captum_classpattern.visualization.drawing import check_channels

EXAMPLES = 8  # held-out images to choose from
CHUNK = 32  # of candidates that are looked at together


def explore(
    results: Survey | Finding | Pattern | Sequence[Finding | Pattern],
    model: Classifier | None = None,
    images: "Images | None" = None,
    labels: Labels = None,
    *,
    seed: int = 0,
) -> Explorer:
    r"""
    Opens patterns in a notebook, as a widget: choose a class, a canvas, the number of pixels and an
    image, or upload an image of your own. It shows the pattern, the stamped image, what the model
    predicts before and after, and, where it was scored, the power next to its controls.

    Needs ipywidgets: ``pip install 'captum_classpattern[explore]'``.

    Args:
        results (Survey, Finding, Pattern or a list): What to show. The search of a survey is
            finished first.
        model (Callable, optional): Classifier from pixels (B, C, H, W) in [0, 1] to logits (B, K).
            Default: None (the one that was searched; patterns from files need one, and so do
            results of several models).
        images (LabelledImages, Tensor, Dataset or DataLoader, optional): Images to stamp, (C, H, W)
            each, in [0, 1]. At most eight are offered, chosen at random among those that are not of
            the class and were not used in the search. Default: None (the held-out images of the
            results, if they have any; else only images that you upload).
        labels (Tensor or Sequence[int], optional): Their classes. Default: None (those that come
            with the images, else the classifier's predictions).
        seed (int): Seed of the choice of images. Default: 0.

    Returns:
        *Explorer*: Its ``pattern`` and ``stamped`` are what is shown.

    Raises:
        ImportError: If ipywidgets is not installed.
        TypeError: If ``results`` are of another type.
        ValueError: If there are no patterns, no model or several models, if all images were used in
            the search of the first class (of another class, the widget says so), or if model,
            patterns and images do not fit.

    Examples::

        >>> net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 3)).eval()
        >>> pattern = Pattern(torch.rand(1, 8, 8), torch.rand(1, 8, 8), target=2)
        >>> explorer = explore(pattern, net, torch.rand(9, 1, 8, 8))
        >>> explorer.area.value = 4
        >>> int(explorer.pattern.mask.sum()), explorer.stamped.shape
        (4, torch.Size([1, 8, 8]))
    """
    import_ipywidgets()
    check_seed(seed)
    findings = _findings(results)
    holders = [*(results if isinstance(results, Sequence) else [results]), *findings]
    if model is None:
        model = _only_model(_known("model", holders))
    if images is None:
        source = next(iter(_known("held_out", holders)), None)
    else:
        source = _numbered(model, images, labels)
    names = None if source is None else source.class_names
    if names is None:
        known = ClassNames.of(model)
        names = None if known is None else known.names
    if source is not None:
        check_same_shape(findings[0].pattern.canvas[None], source.shape, "images")
        with preserve_state(model, seed):
            source = ensure_labels(model, source, like=findings[0].pattern.canvas)

    @cache
    def examples_of(target: int) -> list[Example]:
        seen = [p for f in findings if f.target == target for p in f.patterns.values()]
        return [] if source is None else _examples(source, target, seen, names, seed)

    examples_of(findings[0].target)  # an error here, not in the widget
    return Explorer(findings, model, examples_of, names)


def _findings(results: Any) -> list[Finding]:
    """All findings in the results, in their order."""
    if isinstance(results, Survey):
        found = results.findings
    elif isinstance(results, Finding):
        found = [results, *results.others]
    elif isinstance(results, Pattern):
        found = [_as_finding(results)]
    elif isinstance(results, Sequence) and not isinstance(results, str):
        found = [finding for result in results for finding in _findings(result)]
    else:
        raise ArgumentTypeError(
            "results must be a Survey, a Finding, a Pattern or a list of these, got "
            f"{type(results).__name__}"
        )
    if not found:
        raise ValueError("results have no patterns: give a search that found some")
    for finding in found:
        check_channels(finding.pattern.canvas)
        shape = tuple(finding.pattern.canvas.shape)
        check_same_shape(found[0].pattern.canvas[None], shape, "other canvases")
    return found


def _known(name: str, holders: Sequence[Any]) -> list[Any]:
    """The classifiers or the held-out images that the results hold."""
    known = [getattr(holder, name, None) for holder in holders]
    return [value for value in known if value is not None]


def _only_model(models: Sequence[Classifier]) -> Classifier:
    """The classifier of the results; an error if they hold none or several."""
    distinct: list[Classifier] = []
    for model in models:
        if not any(_is_same(model, other) for other in distinct):
            distinct.append(model)
    if not distinct:
        raise ValueError(
            "`model` is missing: these results do not hold their classifier; call "
            "explore(results, model, images)"
        )
    if len(distinct) > 1:
        raise ValueError(
            f"these results are of {len(distinct)} models: explore one model at a time, or give "
            "`model`"
        )
    return distinct[0]


def _is_same(model: Classifier, other: Classifier) -> bool:
    """Whether these are one classifier; each call of ``explain_class`` may wrap it anew."""
    if not (isinstance(model, PixelClassifier) and isinstance(other, PixelClassifier)):
        return model == other
    return (
        model.model is other.model
        and model.output == other.output
        and torch.equal(model.mean, other.mean)
        and torch.equal(model.std, other.std)
    )


def _as_finding(pattern: Pattern) -> Finding:
    """A pattern without scores."""
    name = pattern.info.get("class_name")
    return Finding({pattern.area: pattern}, "", {}, None if name is None else str(name))


def _numbered(model: Classifier, images: Images, labels: Labels) -> LabelledImages:
    """The images with the class numbers of the model."""
    source = LabelledImages.of(images, labels, argument="images")
    if labels is None and source.class_names is not None:
        return source.for_classifier(model)
    return source


def _examples(
    source: LabelledImages,
    target: int,
    patterns: Sequence[Pattern],
    names: Sequence[str] | None,
    seed: int,
) -> list[Example]:
    """Some images of other classes that no search of these patterns used."""
    order = choose_images(source, target, len(source), seed)
    seen = frozenset[str]().union(*map(hashes_seen, patterns))
    chosen: list[int] = []
    for start in range(0, len(order), CHUNK):
        part = order[start : start + CHUNK]
        hashes = source.hashes_at(part) if seen else [""] * len(part)
        chosen += [i for i, image in zip(part, hashes) if image not in seen]
        if len(chosen) >= EXAMPLES:
            break
    if order and not chosen:
        raise ValueError(
            f"all {len(order)} images of other classes were used to search these patterns: give "
            "held-out images"
        )
    if not chosen:
        return []
    shown = chosen[:EXAMPLES]
    labels = [label_of(label, names) for label in source.known_labels[shown].tolist()]
    kind = "held-out image" if seen else "image"
    return [Example(image, label, kind) for image, label in zip(source.take(shown), labels)]
