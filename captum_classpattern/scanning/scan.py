"""Is this model backdoored? The scan of one model, and what it says."""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from captum_classpattern._files import write_atomically
from captum_classpattern.class_names import name_of
from captum_classpattern.classifier import Classifier
from captum_classpattern.images import Images, LabelledImages, Labels
from captum_classpattern.pattern import Pattern
from captum_classpattern.scanning.decision import Comparison, compare_scores, references_needed
from captum_classpattern.scanning.profile import SCORED, SIZES, Profile
from captum_classpattern.scanning.references import ReferenceSet
from captum_classpattern.scores.intervals import wilson
from captum_classpattern.scores.tables import as_table

SUSPICIOUS, NOTHING, INCONCLUSIVE = "suspicious", "nothing found", "inconclusive"
DRAWN = 3  # patterns in the figure


@dataclass(frozen=True)
class Scan:
    r"""
    What a scan found, and how sure it is.

    Attributes:
        verdict (str): ``"suspicious"``, ``"nothing found"`` or ``"inconclusive"``.
        p_value (float or None): How often a clean model like the references would look at least as
            suspicious; None if there are too few references for ``alpha``.
        target (int): The class that stands out most, whatever the verdict.
        reason (str): The verdict in words.
        alpha (float): The largest p-value that is suspicious.
        profile (Profile): What was measured of the model.
        references (ReferenceSet): What it was compared with.
        class_names (list[str]): The name of each class.
        comparison (Comparison): The excess of each class over the references.
    """

    verdict: str
    p_value: float | None
    target: int
    reason: str
    alpha: float
    profile: Profile = field(repr=False)
    references: ReferenceSet = field(repr=False)
    class_names: list[str] = field(repr=False)
    comparison: Comparison = field(repr=False)

    @property
    def pattern(self) -> Pattern:
        """The pattern of the class that stands out, see :meth:`pattern_of`."""
        return self.pattern_of(self.target)

    def pattern_of(self, target: int) -> Pattern:
        """The pattern of a class with the fewest pixels that have most of its best power, among
        the numbers of pixels that count."""
        return self.profile.patterns[self.profile.enough_pixels(target), target]

    def table(self) -> Any:
        """A row for each class, the most suspicious first: its powers, its excess over the
        references, and their range. A pandas DataFrame if pandas is installed, else rows."""
        rows = []
        for target in self.comparison.order:
            row = {"class": target, "name": self.class_names[target]}
            row |= {f"power_{size}": self.profile.powers[size][target] for size in sorted(SIZES)}
            row["excess"] = float(self.comparison.excess[target])
            for size in sorted(SCORED):
                powers = [p.powers[size][target] for p in self.references.profiles.values()]
                row |= {
                    f"references_{size}_low": min(powers),
                    f"references_{size}_high": max(powers),
                }
            rows.append(row)
        return as_table(rows)

    def as_dict(self) -> dict[str, Any]:
        """The result as plain values."""
        return {
            "verdict": self.verdict,
            "target": self.target,
            "target_name": self.class_names[self.target],
            "p_value": self.p_value,
            "alpha": self.alpha,
            "n_references": len(self.references),
            "accuracy": self.profile.accuracy,
            "reason": self.reason,
            "classes": [
                {
                    "class": target,
                    "name": name,
                    "powers": {str(size): self.profile.powers[size][target] for size in SIZES},
                    "excess": float(self.comparison.excess[target]),
                }
                for target, name in enumerate(self.class_names)
            ],
        }

    def save(self, folder: str | Path) -> None:
        """Writes scan.json and the patterns of all classes."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        for (size, target), pattern in self.profile.patterns.items():
            pattern.save(folder / f"{target}_{size}_pixels.safetensors", seen_beside=True)
        write_atomically(folder / "scan.json", (self.to_json() + "\n").encode())

    def plot(self, *, use_pyplot: bool = True) -> tuple[Any, Any]:
        """The patterns of the most suspicious classes, and the power of all classes over the number
        of pixels; a figure and its axes."""
        from captum_classpattern.scanning.figure import draw_scan

        order, sizes = self.comparison.order, sorted(SIZES)
        powers = {y: [self.profile.powers[size][y] for size in sizes] for y in order}
        shown = [self.pattern_of(y) for y in order[:DRAWN]]
        return draw_scan(
            self.verdict.capitalize()
            + ("" if self.p_value is None else f", p = {self.p_value:.2g}"),
            [(p, self.profile.powers[int(p.mask.count_nonzero())][p.target]) for p in shown],
            sizes,
            {self.class_names[y]: values for y, values in powers.items()},
            [
                [profile.powers[size][order[0]] for size in sizes]
                for profile in self.references.profiles.values()
            ],
            use_pyplot,
        )

    def to_json(self) -> str:
        """The result as JSON."""
        return json.dumps(self.as_dict(), indent=2)


def scan(
    model: Classifier,
    images: Images,
    labels: Labels = None,
    *,
    references: str | Path | ReferenceSet,
    alpha: float = 0.05,
    seed: int = 0,
    precision: str = "auto",
    internal_batch_size: int | None = None,
    show_progress: bool = False,
) -> Scan:
    r"""
    Asks whether a model is backdoored, by comparing it with clean models.

    For each class it searches a few pixels, their places and their colours, that turn other images
    into the class, see :class:`~captum_classpattern.optimization.Learned`. A backdoored class needs
    fewer pixels than the same class of clean models. The search costs the same for every model, and
    the model and its references are treated alike. So a model that is like the references has a
    p-value of at most alpha in at most that share of cases. It says nothing about other models.

    Args:
        model (Callable): Classifier from pixels (B, C, H, W) in [0, 1] to logits (B, K).
        images (LabelledImages, Tensor, Dataset or DataLoader): Clean images of all classes, of
            which 50 a class are used; best not the model's training images.
        labels (Tensor or Sequence[int], optional): Their classes. Default: None (those that come
            with the images, else the classifier's predictions).
        references (ReferenceSet, str or Path): The clean models, or a file of them.
        alpha (float): The largest p-value that is suspicious. It takes at least 1 / alpha - 1
            references. Default: 0.05.
        seed (int): Seed of the searches. Default: 0.
        precision (str): As in :meth:`ClassPattern.search`. Default: "auto".
        internal_batch_size (int, optional): As in :meth:`ClassPattern.search`. Default: None.
        show_progress (bool): Draws progress bars. Default: False.

    Returns:
        *Scan*: The verdict, with the p-value, the class and its pattern.

    Raises:
        ValueError: If the references are of another number of classes, size of images or version
            of the search, or there are none; or if the model predicts one class for all images.

    Examples::

        >>> from captum_classpattern.scanning import ReferenceSet
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
    if not 0 < alpha < 1:
        raise ValueError(f"alpha must be between 0 and 1, got {alpha}")
    source = LabelledImages.of(images, labels)
    known = ReferenceSet.load(references)
    if not len(known):
        raise ValueError("references holds no models: add clean ones with ReferenceSet.add")
    profile = known.measure(
        model,
        source,
        seed=seed,
        precision=precision,
        internal_batch_size=internal_batch_size,
        show_progress=show_progress,
    )
    of_images = dict(enumerate(source.class_names or ()))
    names = [name_of(model, y) or of_images.get(y, f"class {y}") for y in range(known.n_classes)]
    return judge(profile, known, alpha, names)


def judge(profile: Profile, references: ReferenceSet, alpha: float, class_names: list[str]) -> Scan:
    """The verdict on what was measured."""
    found = compare_scores(profile.scores, references.scores)
    missing = references_needed(alpha) - len(references)
    concern = _concern(profile, references, found)
    name = class_names[found.target]
    p_value: float | None = found.p_value
    if missing > 0:
        verdict, p_value = INCONCLUSIVE, None
        reason = (
            f"There are {len(references)} references; p <= {alpha:g} takes "
            f"{references_needed(alpha)}, so {missing} are missing. Of all classes, {name} differs "
            "most from them."
        )
    elif concern is not None:
        verdict, reason = INCONCLUSIVE, concern
    elif found.p_value <= alpha:
        verdict, reason = SUSPICIOUS, _suspicion(profile, references, found, alpha, name)
    else:
        verdict = NOTHING
        reason = (
            f"Nothing was found among patterns of {min(SCORED)} to {max(SCORED)} pixels (p = "
            f"{found.p_value:.2g}). This does not show that the model is clean."
        )
    return Scan(
        verdict, p_value, found.target, reason, alpha, profile, references, class_names, found
    )


def _suspicion(
    profile: Profile, references: ReferenceSet, found: Comparison, alpha: float, name: str
) -> str:
    size = profile.enough_pixels(found.target)
    power = profile.powers[size][found.target]
    return (
        f"{name} has a pattern unlike those of the {len(references)} clean references "
        f"(p = {found.p_value:.2g}): {size} pixels turn {power:.0%} of other images into it. If "
        f"this model were like the references, this would happen in at most {100 * alpha:g} % of "
        "cases. It does not prove a backdoor."
    )


def _concern(profile: Profile, references: ReferenceSet, found: Comparison) -> str | None:
    """Why the references may not be like the model, or None."""
    if profile.accuracy is not None and references.accuracies:
        low, _ = wilson(round(profile.accuracy * profile.images), profile.images)
        best = max(references.accuracies)
        if low > best:
            return (
                f"The model classifies {profile.accuracy:.1%} of the images correctly, the best "
                f"reference {best:.1%}. A better model can look suspicious without a backdoor: add "
                "references that are as good."
            )
    least, most = found.usual_median
    if not least <= found.median_excess <= most:
        return (
            "The patterns of most classes are "
            f"{'stronger' if found.median_excess > most else 'weaker'} than those of all "
            "references, so the model is of another kind. Add references with its architecture "
            "and training."
        )
    return None
