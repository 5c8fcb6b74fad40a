"""Is this model backdoored? The scan of one model."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Unpack

from captum_classpattern._support.files import check_folder
from captum_classpattern._support.validation import ArgumentTypeError, check_options
from captum_classpattern.classifier import CheckedModel, Classifier, enter_model
from captum_classpattern.classifier.class_names import placeholders
from captum_classpattern.images import Images, LabelledImages, Labels, ensure_labels, first_of
from captum_classpattern.optimization.plan import LARGE, is_large
from captum_classpattern.optimization.settings import ComputeOptions, SearchSettings
from captum_classpattern.scanning.alone import MOST_IMAGES, Alone, scan_alone
from captum_classpattern.scanning.compared import Compared
from captum_classpattern.scanning.families import PATCHES
from captum_classpattern.scanning.folder import PATTERNS
from captum_classpattern.scanning.profile import check_on_unseen, measure, passes_of
from captum_classpattern.scanning.references import SHIPPED, ReferenceSet, names_of
from captum_classpattern.scanning.task import ScanTask, in_memory
from captum_classpattern.scanning.training import ReferenceTraining, train_references

REFERENCES = "references"  # a folder for those that are trained here


def scan(
    model: Classifier,
    images: Images,
    labels: Labels = None,
    *,
    references: str | Path | ReferenceSet | None = None,
    make_references: "Images | ReferenceTraining | None" = None,
    mean: float | Sequence[float] | None = None,
    std: float | Sequence[float] | None = None,
    class_names: Sequence[str] | None = None,
    alpha: float = 0.05,
    folder: str | Path | None = None,
    **options: Unpack[ComputeOptions],
) -> Compared | Alone:
    r"""
    Asks whether a model is backdoored.

    With ``references``, it compares the model with clean models. For each class, it tries three
    changes: a few pixels with their places and colours (see
    :class:`~captum_classpattern.optimization.Learned`), one small perturbation of all pixels, and
    one smooth warp. Each is to make the model predict the class for images of other classes. A
    backdoored class is easier to reach than the same class of clean models.
    :func:`~captum_classpattern.scanning.decision.decide` explains the p-value. It holds only
    nearly, since references that are far less accurate than the model are left out.

    Images of at least 64 pixels a side need no references. On one half of the images, the scan then
    searches for a patch that works anywhere, a few cells at one place (the patch, and all cells
    together, take at most 2 % of the area), and a small perturbation. The other half judges. With
    100 classes or more, a short search of a patch ranks all, and the first 20 are searched longer.
    There is no p-value, and ``alpha`` is not used, see
    :class:`~captum_classpattern.scanning.alone.Alone`.

    Args:
        model (Callable): Classifier from pixels (B, C, H, W) in [0, 1] to logits (B, K). An
            ``nn.Module`` of normalised images needs ``mean`` and ``std``.
        images (LabelledImages, Tensor, Dataset or DataLoader): Clean images of all classes, of
            which 50 per class are used; without references at most 600, of any classes. Best not
            the model's training images. Classes that have names are matched with the model's.
        labels (Tensor, Sequence[int] or Sequence[str], optional): Their classes, by number or name.
            Default: None (those that come with the images, else the classifier's predictions).
        references (ReferenceSet, str or Path): The clean models, or a file of them, or the name of
            a set that comes with the package, ``"demo"`` or ``"cifar10"``. Default: None, for
            images of at least 64 pixels a side.
        make_references (LabelledImages, Dataset, DataLoader or ReferenceTraining, optional):
            Training images of all classes, with labels. 20 clean models (for an ``alpha`` of 5 %)
            with the architecture of ``model`` are trained on them, measured, and used as
            references. What is finished is kept in the ``folder``, which is required; its
            ``references.safetensors`` keeps them for other scans. Further settings:
            :class:`~captum_classpattern.scanning.ReferenceTraining`. Default: None.
        mean, std, class_names (optional): As in :func:`explain_class`.
        alpha (float): The largest p-value that is suspicious. It needs at least 1 / alpha - 1
            references. Default: 0.05.
        folder (str or Path, optional): Where patterns are kept after each group of classes (at most
            ten on a CPU), so that the same scan can resume after an interrupt. Default: None.
        seed, precision, internal_batch_size: As in :meth:`ClassPattern.search`.
        show_progress (bool, optional): As in :func:`explain_class`. Default: None.

    Returns:
        *Scan*: The verdict, the class, what makes the model predict it, and what to do next; with
        references also the p-value.

    Raises:
        TypeError: If there are no ``references``, and the images are smaller than 64 pixels.
        ValueError: If the references have another number of classes, size of images or version of
            the search, or there are none; or if the model predicts one class for all images; or,
            without references, if fewer than ten images judge a class, or no number of cells from
            16 to 64 divides a side.

    Examples::

        >>> images, labels = torch.rand(60, 1, 8, 8), torch.arange(60) % 3
        >>> nets = [torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 3)).eval()
        ...         for _ in range(3)]
        >>> clean = ReferenceSet.for_models(nets[0], images, labels)
        >>> for number, net in enumerate(nets[:2]):
        ...     clean.add(f"clean {number}", net, images, labels)
        >>> found = scan(nets[2], images, labels, references=clean)
        >>> found.verdict, found.p_value  # two references are too few
        ('inconclusive', None)
    """
    check_options(scan, options, ComputeOptions)
    where = check_folder(folder)
    settings, sample = SearchSettings(**options), first_of(images)
    if not 0 < alpha < 1:
        raise ValueError(f"`alpha` must be between 0 and 1, got {alpha}")
    clean = _references(references, make_references)
    with enter_model(
        model, sample, settings.seed, mean=mean, std=std, class_names=class_names
    ) as checked:
        source = LabelledImages.of(images, labels, checked)
        return _judge(checked, source, clean, alpha, where, settings)


def _judge(
    model: CheckedModel,
    images: LabelledImages,
    clean: ReferenceSet | ReferenceTraining | None,
    alpha: float,
    folder: Path | None,
    settings: SearchSettings,
) -> Compared | Alone:
    """What a scan of a model finds, with images that have its class numbers."""
    names = names_of(model, images)
    listed = names or placeholders(model.n_classes)
    try:
        if clean is None:
            _check_large(images.shape)
            search, rest = images.halves(settings.seed)
            task = ScanTask.of(model, search, settings, MOST_IMAGES)
            judges = in_memory(ensure_labels(model, rest).stratified_sample(MOST_IMAGES))
            return scan_alone(task, judges, listed, folder)
        if isinstance(clean, ReferenceSet):
            clean.check(model.n_classes, images.shape, names)
        task = ScanTask.of(model, images, settings)
        if isinstance(clean, ReferenceTraining):
            if folder is None:
                raise ArgumentTypeError("`make_references` needs a `folder`, where they are kept")
            clean = train_references(task, clean, alpha, folder / REFERENCES)
        else:
            task.say_expected(passes_of(model.n_classes))
        profile = measure(task, folder and folder / PATTERNS)
    except KeyboardInterrupt:
        resumes = f"the same scan resumes from {folder}"
        what_next = "to keep finished patches, pass `folder`" if folder is None else resumes
        raise KeyboardInterrupt(what_next) from None
    notes = clean.notes_on(profile, images, names)
    clean, origin = clean.in_order(names or ()), model.provenance.get("source")
    found = Compared.of(profile, clean, alpha, listed, notes, origin)
    shown = {family: each.target for family, each in found.comparisons.items()}
    if found.doubted_pattern:
        shown[PATCHES] = found.doubted_pattern.target
    return replace(found, looks=check_on_unseen(task, profile, shown, listed))


def _references(
    given: str | Path | ReferenceSet | None,
    training: "Images | ReferenceTraining | None",
) -> ReferenceSet | ReferenceTraining | None:
    """What the model is compared with, or how to make it."""
    if training is None:
        known = None if given is None else ReferenceSet.load(given)
        if known is not None and not len(known):
            raise ValueError("`references` holds no models: add clean ones with ReferenceSet.add")
        return known
    if given is not None:
        raise ArgumentTypeError("`references` and `make_references` exclude one another: give one")
    return training if isinstance(training, ReferenceTraining) else ReferenceTraining(training)


def _check_large(shape: Sequence[int]) -> None:
    """Raises an error unless images (C, H, W) can be scanned without references."""
    if not is_large(shape):
        shipped = " or ".join(f"`references='{name}'`" for name in SHIPPED)
        raise ArgumentTypeError(
            f"for images of less than {LARGE} pixels a side (these have {shape[1]}x{shape[2]}) a "
            "scan compares the model with at least 19 clean models of the same task: pass "
            "`make_references`, training images with which 20 are made in some minutes each, or "
            "`references`, a file that 'classpattern reference' makes of your own, or, for the "
            f"tasks of the sets that come with the package, {shipped}"
        )
