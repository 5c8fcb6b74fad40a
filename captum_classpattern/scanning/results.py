"""What a scan says: in words, in a table, a figure and a page."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from torch import Tensor

from captum_classpattern._files import write_figure, write_json
from captum_classpattern.pattern import Pattern
from captum_classpattern.results import Result, as_table, as_texts
from captum_classpattern.scanning.decision import (
    INCONCLUSIVE,
    NOTHING,
    SUSPICIOUS,
    Decision,
    decide,
)
from captum_classpattern.scanning.families import (
    CHANGES,
    FAMILY_NAMES,
    PATCHES,
    PATTERNS,
    SCORED,
    PatternFolder,
    unit_of,
)
from captum_classpattern.scanning.profile import Look, Profile
from captum_classpattern.scanning.references import ReferenceSet

ROWS = 10  # classes on a page
COLUMNS_EXPLAINED = (
    "Excess: how far the score of the class is above its mean over all models. Standardised: how "
    "far that is above the excess of the median class, next to the same class of the clean models, "
    "in standard deviations. Power: the share of other images that are predicted as the class, for "
    "patterns of so many pixels and for other changes. Gain: how far the change raises the "
    "distance of its logit from the largest other one, on average; 1 is the usual distance of the "
    "model's two largest logits."
)
ANOTHER_KIND = (
    "All classes are easier to reach than those of the references, not one class alone: the median "
    "class differs more from the references than that of any of them. So the model is of another "
    "kind. Add references with its architecture and training."
)
AGAIN = "Scan again with another seed and other images, into another folder."
NEXT_STEPS = {
    SUSPICIOUS: (
        f"{AGAIN} A backdoor should be found again, with the same class.",
        "Scan another clean model of the task. If {name} comes first there, too, it is a feature "
        "of the class that models learn, not a backdoor of this one.",
        "Until something else explains it, do not use the model. Train it again on images that you "
        "have checked, or get it from a source that you trust.",
    ),
    NOTHING: (
        f"{AGAIN} A search can miss a trigger. But each scan is a further chance of a false alarm.",
        "Still possible: triggers that differ from image to image, large patches, triggers that "
        "few training images had, and attackers who knew this scan. If much depends on the model, "
        "look at its training images, or train it again.",
    ),
    INCONCLUSIVE: (
        "Do what the reason says, then scan again. Until then, the scan neither accuses nor clears "
        "the model. Look at what it found for {name}: it may show a trigger.",
    ),
}


@dataclass(frozen=True, repr=False)
class Scan(Decision, Result):
    r"""
    What a scan found, and how sure it is. ``plot`` draws for each family what was found, images
    with it and the model's predictions, and the standardised excess of all classes, next to the
    references. It has the attributes of a
    :class:`~captum_classpattern.scanning.decision.Decision`, such as ``verdict``, ``p_value`` and
    ``target``, and:

    Attributes:
        alpha (float): The largest p-value that is suspicious.
        notes (list[str]): In which ways the references may differ from the model.
        profile (Profile): What was measured of the model.
        references (ReferenceSet): What it was compared with.
        class_names (list[str]): The name of each class.
        looks (dict[str, Look]): A closer look at the first class of each family.
        source (str or None): Where the model comes from, if it says so: the ``source`` of its
            provenance.
    """

    alpha: float
    notes: list[str]
    profile: Profile
    references: ReferenceSet
    class_names: list[str]
    looks: Mapping[str, Look] = field(default_factory=dict)
    source: str | None = None

    @classmethod
    def of_profile(
        cls,
        profile: Profile,
        references: ReferenceSet,
        alpha: float,
        class_names: list[str],
        notes: Sequence[str] = (),
    ) -> "Scan":
        """The verdict on what was measured, without a closer look at images."""
        comparable = references.doubt_about(profile) is None
        decision = decide(profile.scores(), references.scores(), alpha, comparable=comparable)
        return cls(
            **vars(decision),
            alpha=alpha,
            notes=list(notes),
            profile=profile,
            references=references,
            class_names=class_names,
        )

    def __repr__(self) -> str:
        return f"Scan({', '.join(filter(None, (self.verdict, self.target_name, self.p_text)))})"

    @property
    def p_text(self) -> str:
        """The p-value in words; none if the scan is inconclusive."""
        return "" if self.verdict == INCONCLUSIVE else f"p = {self.p_value:.2g}"

    @property
    def headline(self) -> str:
        """``Suspicious, p = 0.02``."""
        return ", ".join(filter(None, (self.verdict.capitalize(), self.p_text)))

    @property
    def target_name(self) -> str:
        """The name of the class with the largest standardised excess."""
        return self.class_names[self.target]

    @property
    def pattern(self) -> Pattern:
        """The pattern of the first class, with the fewest pixels that have most of its best power.
        What another family has found is in ``profile.changes``."""
        return self.profile.pattern_of(self.target)

    @property
    def reason(self) -> str:
        """The verdict in words, with the power of the closer look, if there was one."""
        name, n, unit = self.target_name, len(self.references), unit_of(self.references.shape)
        if self.p_value is None:
            return (
                f"A p-value of {self.alpha:g} needs at least {self.needed} references, and there "
                f"are {n}: add {self.needed - n} more. Of all classes, {name} differs most from "
                "them."
            )
        if self.verdict == INCONCLUSIVE:
            return self.references.doubt_about(self.profile) or ANOTHER_KIND
        if self.verdict == NOTHING:
            *first, last = (
                f"patterns of {min(SCORED)} to {max(SCORED)} {unit}",
                *(FAMILY_NAMES[name] for name in CHANGES),
            )
            return (
                f"No class differs from the clean references by {', '.join(first)} or {last} "
                f"({self.p_text}). This does not show that the model is clean."
            )
        effect = ""
        if look := self.looks.get(self.family):
            what = f"{self.profile.enough_pixels(self.target)} {unit}"
            what, power = what if self.family == PATCHES else "it", look.power
            low, high = (100 * end for end in power.interval)
            effect = (
                f" With {what}, the model predicts {name} for {100 * power.value:.1f} % of "
                f"{power.n} {'unseen' if look.unseen else 'validation'} images of other classes "
                f"(95 % interval {low:.1f} to {high:.1f}), and for {100 * power.without:.1f} % of "
                "them as they are."
            )
        return (
            f"{name} has {FAMILY_NAMES[self.family]} unlike those of the {n} clean references "
            f"({self.p_text}).{effect} If this model were like the references, this would happen "
            f"in at most {100 * self.alpha:g} % of cases. It does not prove a backdoor."
        )

    @property
    def likeness(self) -> str:
        """How accurate the model and its references are, in words."""
        own, usual, count = self.profile.accuracy, self.references.accuracies, len(self.references)
        if own is None or not usual:
            return f"It was compared with {count} references; the accuracies are not known."
        return (
            f"The model classifies {100 * own:.1f} % of {self.profile.images} images correctly, "
            f"the {count} references {100 * min(usual):.1f} to {100 * max(usual):.1f} %."
        )

    @property
    def next_steps(self) -> list[str]:
        """What to do now."""
        return [step.format(name=self.target_name) for step in NEXT_STEPS[self.verdict]]

    def text(self) -> str:
        """The verdict, why, and how the references differ from the model."""
        source = "" if self.source is None else f": {self.source}"
        notes = (f"Note: {note}" for note in self.notes)
        return "\n".join((f"{self.headline}{source}", self.reason, *notes, self.likeness))

    def table(self) -> Any:
        """A pandas DataFrame with a row for each class, the most suspicious first: its excess over
        the references and the same standardised, in the family of the largest one; its powers and
        gains."""
        return as_table(
            {
                "class": target,
                "name": self.class_names[target],
                "excess": float(self.comparison.excess[target]),
                "standardised": float(self.comparison.standardised[target]),
                **self.profile.values_of(target),
            }
            for target in self.comparison.order
        )

    def shown_table(self) -> Any:
        table = self.table().head(ROWS)
        forms = {key: ".0%" if key.startswith("power") else "+.2f" for key in table.columns[2:]}
        return as_texts(table, {"name": "", **forms})

    def plot(self, *, use_pyplot: bool = True) -> tuple[Any, Any]:
        from captum_classpattern.visualization.formats import percent, percent_range
        from captum_classpattern.visualization.scans import FamilyRow, draw_families

        rows = []
        for family, each in self.comparisons.items():
            names, excess = [self.class_names[y] for y in each.order], each.standardised[each.order]
            row = FamilyRow(FAMILY_NAMES[family], names, excess, each.usual_standardised)
            if (look := self.looks.get(family)) and self.references.shape[0] in (1, 3):
                power = f"{percent(look.power.value)} ({percent_range(*look.power.interval)})"
                captions = map(
                    "{} \N{RIGHTWARDS ARROW} {}".format, look.before.names, look.after.captions
                )
                hits = [predicted == look.target for predicted in look.after.predicted]
                examples = [*zip(look.after.images, captions, hits)]
                row = replace(row, image=self.picture_of(family), power=power, examples=examples)
            rows.append(row)
        note = (
            f"Dots: all classes, the first in orange. Grey lines: {len(self.references)} clean "
            "models, each by its largest excess: how far a class is above the median class, next "
            "to the same class of the clean models, in standard deviations."
        )
        if self.bound is not None:
            note += f" Right of the dotted line, p is at most {self.alpha:g}."
        unseen = all(look.unseen for look in self.looks.values())
        images = "held-out images" if unseen else "images"
        return draw_families(
            rows, self.bound, title=self.headline, note=note, images=images, use_pyplot=use_pyplot
        )

    def picture_of(self, family: str) -> Tensor:
        """An image of what a family has found for its first class."""
        from captum_classpattern.visualization.drawing import on_neutral

        target = self.comparisons[family].target
        if family == PATCHES:
            return on_neutral(self.profile.pattern_of(target))
        return CHANGES[family](self.references.shape).picture(self.profile.changes[family][target])

    def sections(self, whole: bool) -> Iterable[Any]:
        from captum_classpattern.pages import parts as html

        yield self.plot
        yield html.heading("What next")
        yield self.next_steps
        yield html.folded(f"The first {ROWS} classes", COLUMNS_EXPLAINED, self.shown_table())

    def as_dict(self) -> dict[str, Any]:
        """The result as plain values."""
        profile, families = self.profile, dict[str, dict[str, Any]]()
        powers = {**{str(size): each for size, each in profile.powers.items()}, **profile.others}
        for family, each in self.comparisons.items():
            families[family] = {
                "target": each.target,
                "target_name": self.class_names[each.target],
                "lead": each.largest,
                "leads": each.standardised.tolist(),
                "reference_leads": each.usual_standardised.tolist(),
            }
            if look := self.looks.get(family):
                families[family] |= {**look.power.as_columns(), "unseen_images": look.unseen}
        first = ("verdict", "target", "target_name", "p_value", "alpha", "family", "reason")
        return {
            **{name: getattr(self, name) for name in (*first, "next_steps")},
            "families": families,
            "n_references": len(self.references),
            "likeness": self.likeness,
            "accuracy": profile.accuracy,
            "notes": self.notes,
            "search": dict(profile.key),
            "classes": [
                {
                    "class": target,
                    "name": name,
                    "powers": {of: each[target] for of, each in powers.items()},
                    "gains": {of: each[target] for of, each in profile.gains.items()},
                    "excess": float(self.comparison.excess[target]),
                }
                for target, name in enumerate(self.class_names)
            ],
        }

    def save(self, folder: str | Path) -> None:
        """Writes scan.json, scan.png, and the patterns of all classes, in place of those of any
        other scan in the folder."""
        folder = Path(folder)
        PatternFolder(folder / PATTERNS, self.profile.key).replace(self.profile.patterns)
        write_json(self.as_dict(), folder / "scan.json")
        figure, _ = self.plot(use_pyplot=False)
        write_figure(figure, folder / "scan.png")
