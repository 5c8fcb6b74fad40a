"""Is this model backdoored? The scan of one model."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Unpack

from captum_classpattern._support.files import check_folder
from captum_classpattern._support.validation import ArgumentTypeError, check_options
from captum_classpattern.classifier import CheckedModel, Classifier, enter_model
from captum_classpattern.classifier.class_names import placeholders
from captum_classpattern.images import Images, LabelledImages, Labels, first_of
from captum_classpattern.optimization.settings import ComputeOptions, SearchSettings
from captum_classpattern.scanning.compared import Compared
from captum_classpattern.scanning.families import PATCHES
from captum_classpattern.scanning.folder import PATTERNS
from captum_classpattern.scanning.profile import check_on_unseen, measure
from captum_classpattern.scanning.references import SHIPPED, ReferenceSet, names_of
from captum_classpattern.scanning.task import ScanTask
from captum_classpattern.scanning.triage import FEWEST, MOST_IMAGES, Ranking, rank_classes


def scan(
    model: Classifier,
    images: Images,
    labels: Labels = None,
    *,
    references: str | Path | ReferenceSet | None = None,
    mean: float | Sequence[float] | None = None,
    std: float | Sequence[float] | None = None,
    class_names: Sequence[str] | None = None,
    alpha: float = 0.05,
    folder: str | Path | None = None,
    **options: Unpack[ComputeOptions],
) -> Compared | Ranking:
    r"""
    Asks whether a model is backdoored, by comparing it with clean models.

    For each class it searches three changes: a few pixels with their places and colours, see
    :class:`~captum_classpattern.optimization.Learned`, one small perturbation of all pixels, and
    one smooth warp. Each makes the model predict the class for images of other classes. A
    backdoored class is easier to reach than the same class of clean models. What the p-value says:
    :func:`~captum_classpattern.scanning.decision.decide`; this holds nearly, since references that
    are far less accurate than the model are left out.

    A model of at least 100 classes can be scanned without references: a short search of a patch
    that works anywhere, a seventh of the image wide, ranks all classes, and the first 20 are
    searched longer, see :class:`~captum_classpattern.MovingPatch`. There is no p-value then, and
    ``alpha`` is not used, see :class:`~captum_classpattern.scanning.triage.Ranking`.

    Args:
        model (Callable): Classifier from pixels (B, C, H, W) in [0, 1] to logits (B, K). An
            ``nn.Module`` of normalised images needs ``mean`` and ``std``.
        images (LabelledImages, Tensor, Dataset or DataLoader): Clean images of all classes, of
            which 50 per class are used; without references at most 300, of any classes. Best not
            the model's training images. Classes that have names are matched with the model's.
        labels (Tensor, Sequence[int] or Sequence[str], optional): Their classes, by number or name.
            Default: None (those that come with the images, else the classifier's predictions).
        references (ReferenceSet, str or Path): The clean models, or a file of them, or the name of
            a set that comes with the package, ``"demo"`` or ``"cifar10"``. Default: None, for
            models of at least 100 classes.
        mean, std, class_names (optional): As in :func:`explain_class`.
        alpha (float): The largest p-value that is suspicious. It needs at least 1 / alpha - 1
            references. Default: 0.05.
        folder (str or Path, optional): Where patterns are kept, so that the same scan can resume
            after an interrupt: with references after each group of classes, ten on a CPU.
            Default: None.
        seed, precision, internal_batch_size: As in :meth:`ClassPattern.search`.
        show_progress (bool, optional): As in :func:`explain_class`. Default: None.

    Returns:
        *Scan*: The verdict, the p-value, the class, what makes the model predict it, and what to
        do next. Without references: all classes, ranked, and patches of the first.

    Raises:
        TypeError: If there are no ``references``, and fewer than 100 classes.
        ValueError: If the references are of another number of classes, size of images or version
            of the search, or there are none; or if the model predicts one class for all images.

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
        >>> many = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(256, 100)).eval()
        >>> scan(many, torch.rand(100, 1, 16, 16), torch.arange(100)).verdict  # no references
        'inconclusive'
    """
    check_options("scan", options, ComputeOptions)
    where = check_folder(folder)
    settings, sample = SearchSettings(**options), first_of(images)
    if not 0 < alpha < 1:
        raise ValueError(f"`alpha` must be between 0 and 1, got {alpha}")
    clean = None if references is None else ReferenceSet.load(references)
    with enter_model(
        model, sample, settings.seed, mean=mean, std=std, class_names=class_names
    ) as checked:
        source = LabelledImages.of(images, labels, checked)
        return _judge(checked, source, clean, alpha, where, settings)


def _judge(
    model: CheckedModel,
    images: LabelledImages,
    clean: ReferenceSet | None,
    alpha: float,
    folder: Path | None,
    settings: SearchSettings,
) -> Compared | Ranking:
    """What a scan of a model finds, with images that have its class numbers."""
    count, names = model.n_classes, names_of(model, images)
    listed = names or placeholders(count)
    if clean is None and count < FEWEST:
        shipped = " or ".join(f"`references='{name}'`" for name in SHIPPED)
        raise ArgumentTypeError(
            f"a scan compares a model of fewer than {FEWEST} classes (this one has {count}) with "
            "at least 19 clean models of the same task: pass `references`, a file that "
            "'classpattern reference' makes of them in some minutes each "
            "(tutorials/train_references.py trains them), or, for the tasks of the sets that come "
            f"with the package, {shipped}"
        )
    try:
        if clean is None:
            return rank_classes(ScanTask.of(model, images, settings, MOST_IMAGES), listed, folder)
        if not len(clean):
            raise ValueError("`references` holds no models: add clean ones with ReferenceSet.add")
        clean.check(count, images.shape, names)
        task = ScanTask.of(model, images, settings)
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
