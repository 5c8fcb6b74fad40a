"""Is this model backdoored? The scan of one model."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Unpack

from captum_classpattern._support.files import check_folder
from captum_classpattern._support.validation import ArgumentTypeError, check_options
from captum_classpattern.classifier import Classifier, enter_model, seed_generators
from captum_classpattern.classifier.class_names import placeholders
from captum_classpattern.images import Images, LabelledImages, Labels, first_of
from captum_classpattern.optimization.settings import ComputeOptions, SearchSettings
from captum_classpattern.scanning.changes import changes_for
from captum_classpattern.scanning.results import Scan
from captum_classpattern.scanning.search import Searches
from captum_classpattern.scanning.task import ScanTask
from captum_classpattern.scores.examples import before_and_after

GONE = ("references", "make_references", "alpha")  # arguments of version 0.5


def scan(
    model: Classifier,
    images: Images,
    labels: Labels = None,
    *,
    mean: float | Sequence[float] | None = None,
    std: float | Sequence[float] | None = None,
    class_names: Sequence[str] | None = None,
    folder: str | Path | None = None,
    **options: Unpack[ComputeOptions],
) -> Scan:
    r"""
    Asks whether a model is backdoored.

    For each class, it searches one half of the images for small changes that make the model predict
    the class: below 64 pixels a side, these are 25 or 10 pixels at one place, a small perturbation
    of all pixels and a smooth warp; from there on, a patch that works anywhere, a few cells at one
    place, a smooth perturbation and a warp. The other half judges. A class is suspicious if one
    change takes it far ahead of all other classes of the model, in two searches; see
    :func:`~captum_classpattern.scanning.decision.decide`. On larger images, a short search ranks
    the classes, and only the first quarter, at least three and at most 20, are searched to the end;
    on smaller ones, the first 20.

    Args:
        model (Callable): Classifier from pixels (B, C, H, W) in [0, 1] to logits (B, K). An
            ``nn.Module`` of normalised images needs ``mean`` and ``std``.
        images (LabelledImages, Tensor, Dataset or DataLoader): Clean images, of which at most 700
            are used. Best not the model's training images. Classes that have names are matched with
            the model's.
        labels (Tensor, Sequence[int] or Sequence[str], optional): Their classes, by number or name.
            Default: None (those that come with the images, else the classifier's predictions).
        mean, std, class_names (optional): As in :func:`explain_class`.
        folder (str or Path, optional): Where the scan is kept, and its patterns after each group of
            classes (four on a CPU), so that the same scan can resume after an interrupt.
            :meth:`Scan.load` reads it. Default: None.
        seed, precision, internal_batch_size: As in :meth:`ClassPattern.search`.
        show_progress (bool, optional): As in :func:`explain_class`. Default: None.

    Returns:
        *Scan*: The verdict, the class, what makes the model predict it, and what to do next.

    Raises:
        ValueError: If the model predicts one class for all images, fewer than ten images judge a
            class, or, from 64 pixels a side, no number of cells from 16 to 64 divides a side.

    Examples::

        >>> images, labels = torch.rand(160, 1, 8, 8), torch.arange(160) % 4
        >>> layers = torch.nn.Flatten(), torch.nn.LayerNorm(64), torch.nn.Linear(64, 4)
        >>> net = torch.nn.Sequential(*layers).eval()
        >>> found = scan(net, images, labels)
        >>> found.verdict in ("suspicious", "nothing found", "inconclusive")
        True
        >>> found.pattern.stamp(images).shape
        torch.Size([160, 1, 8, 8])
    """
    if gone := [f"`{name}`" for name in GONE if name in options]:
        raise ArgumentTypeError(
            f"{gone[0]} went with version 0.6: a scan needs no clean models any more, so leave it "
            "out"
        )
    check_options(scan, options, ComputeOptions)
    where = check_folder(folder)
    settings, sample = SearchSettings(**options), first_of(images)
    with enter_model(
        model, sample, settings.seed, mean=mean, std=std, class_names=class_names
    ) as checked:
        source = LabelledImages.of(images, labels, checked)
        names = [*(source.names_for(checked) or placeholders(checked.n_classes))]
        changes = changes_for(source.shape)
        task = ScanTask.of(checked, source, settings, names)
        searches = Searches(task, changes, where)
        try:
            found = searches.run()
        except KeyboardInterrupt:
            resumes = f"the same scan resumes from {where}"
            what_next = "to keep finished patterns, pass `folder`" if where is None else resumes
            raise KeyboardInterrupt(what_next) from None
        result = Scan(
            found=found,
            examples={},
            judged=[len(each) for each in task.judges],
            accuracy=task.accuracy,
            shape=tuple(source.shape),
            class_names=names,
            key=searches.key,
            source=checked.provenance.get("source"),
            folder=where,
        )
        examples = {}
        for kind in found:
            seed_generators(settings.seed)
            y, pattern = result.shown_class(kind), result.shown(kind).pattern
            change, judges = pattern.stamper(settings.seed), task.judges[y]
            examples[kind] = before_and_after(checked, change, judges, y, names, settings.seed)
    result = replace(result, examples=examples)
    if where is not None:
        result.save(where)
    return result
