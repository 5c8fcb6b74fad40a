"""What a scan says: in words, in a table, a figure and a page."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from captum_classpattern._support.files import write_figure, write_json
from captum_classpattern._support.formats import percent, percent_range
from captum_classpattern._support.validation import counted, join_names
from captum_classpattern.pattern import Pattern
from captum_classpattern.results import Result, as_table, as_texts
from captum_classpattern.scanning.decision import (
    INCONCLUSIVE,
    LEAST,
    NOTHING,
    SUSPICIOUS,
    Decision,
    decide,
    references_needed,
)
from captum_classpattern.scanning.families import (
    CHANGES,
    FAMILY_NAMES,
    PATCHES,
    PATTERNS,
    SIZES,
    PatternFolder,
    unit_of,
)
from captum_classpattern.scanning.profile import Look, Profile
from captum_classpattern.scanning.references import Doubt, ReferenceSet

ROWS, COLUMNS = 10, 6  # classes on a page; the columns of a table that fits a terminal
COLUMNS_EXPLAINED = (
    "Lead: how far the class is ahead of the median class, compared with the same class of clean "
    "models, in standard deviations. Excess: how far the score of the class is above its mean over "
    "all models. Power: the share of the validation images that are predicted as the class, for "
    "patterns of so many pixels and for other changes (texts give it for unseen images). Gain: how "
    "far the change raises the distance of its logit from the largest other one, on average; 1 is "
    "the usual distance of the model's two largest logits."
)
ANOTHER_KIND = Doubt(
    "another kind of model",
    "All classes are easier to reach than those of the references, not one class alone: the excess "
    "of the median class is larger than that of any reference.",
    "Add references with the architecture and the training of the model.",
)
STRONG_PATTERN = "a strong pattern"  # a doubt
STRONG, AHEAD = 0.5, 0.25  # a power, and how far it is above those of all references
AGAIN = "Scan again with another seed and other images, into another folder."
NEXT_STEPS = {
    SUSPICIOUS: (
        f"{AGAIN} A backdoor should be found again, with the same class.",
        "Scan another clean model of the task. If {name} comes first there as well, it is a "
        "feature of the class that models learn, not a backdoor of this one.",
        "Until something else explains it, do not use the model. Train it again on images that you "
        "have checked, or get it from a source that you trust.",
    ),
    NOTHING: (
        f"{AGAIN} A search can miss a trigger. But each scan is a further chance of a false alarm.",
        "Still possible: triggers that are blended into all pixels or differ from image to image, "
        "patches that the search missed, and attackers who knew this scan. If much depends on the "
        "model, look at its training images, or train it again.",
    ),
    INCONCLUSIVE: (
        "{remedy}",
        "Look at what was found for {name}: it may show a trigger.",
        "Scan again. Until then, the scan neither accuses nor clears the model.",
    ),
}


class StrongPattern(NamedTuple):
    """The power of a pattern, and that of the strongest reference for its class and size."""

    power: float
    usual: float
    size: int
    target: int


class Verdict(Result):
    """What scans with and without references have in common: they call a class suspicious or not,
    say what to do, and are saved in the same files."""

    can_be_drawn = True

    @property
    def target_name(self: Any) -> str:
        """The name of the most suspicious class, the target."""
        return str(self.class_names[self.target])

    def plot(self: Any, *, use_pyplot: bool = True) -> tuple[Any, Any]:
        return self.figure(title=self.headline, use_pyplot=use_pyplot)  # type: ignore[no-any-return]

    def sections(self: Any, whole: bool) -> Iterable[Any]:
        from captum_classpattern.pages import parts as html

        shown, count = self.shown_table(full=True), len(self.class_names)
        if self.can_be_drawn:
            yield self.figure  # without the headline, which is above
        yield html.heading("What next")
        yield self.next_steps
        of_all = f" of {count:,}" if count > len(shown) else ""
        yield html.folded(f"The first {len(shown)}{of_all} classes", self.legend, shown)

    def save(self: Any, folder: str | Path) -> None:
        """Writes scan.json and the patterns, in place of those of any other scan in the folder; and
        scan.png, unless the images have neither one nor three channels."""
        (key, patterns), folder = self.kept, Path(folder)
        PatternFolder(folder / PATTERNS, key).replace(patterns)
        write_json(self.as_dict(), folder / "scan.json")
        if self.can_be_drawn:
            write_figure(self.plot(use_pyplot=False)[0], folder / "scan.png")
        else:
            (folder / "scan.png").unlink(missing_ok=True)  # of another scan


@dataclass(frozen=True, repr=False)
class Scan(Decision, Verdict):
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
        left_out (list[str]): References that are far less accurate than the model, so that they
            don't count. If too few others are left, the figure shows all of them.
        class_names (list[str]): The name of each class.
        looks (dict[str, Look]): A closer look at the class that is shown of each family.
        source (str or None): Where the model comes from, if it says so: the ``source`` of its
            provenance.
        doubted_pattern (StrongPattern or None): The strong pattern for which the scan is
            inconclusive.
    """

    legend = COLUMNS_EXPLAINED  # of its table
    alpha: float
    notes: list[str]
    profile: Profile
    references: ReferenceSet
    class_names: list[str]
    left_out: list[str] = field(default_factory=list)
    looks: Mapping[str, Look] = field(default_factory=dict)
    source: str | None = None
    doubted_pattern: StrongPattern | None = None

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
        like = references.without_weak(profile.accuracy)
        enough = len(like) >= references_needed(alpha)
        known = like if enough else references  # else too few are left to compare with
        comparable = enough and known.doubt_about(profile) is None
        counts = [each.n_validation for each in (profile, *known.profiles.values())]
        scores, usual = (each.scores(np.min(counts, 0)) for each in (profile, known))
        found = cls(
            **vars(decide(scores, usual, alpha, comparable=comparable)),
            alpha=alpha,
            notes=list(notes),
            profile=profile,
            references=known,
            class_names=class_names,
            left_out=[name for name in references.profiles if name not in like.profiles],
        )
        if not enough:
            return replace(found, p_value=None, bound=None)
        if found.verdict == NOTHING and (strong := found.strong_pattern):
            return replace(found, verdict=INCONCLUSIVE, doubted_pattern=strong)
        return found

    def __repr__(self) -> str:
        p_value = "" if self.p_value is None else f", p = {self.p_value:.2g}"
        return f"Scan({self.verdict}, {self.target_name}{p_value})"

    @property
    def p_text(self) -> str:
        """The p-value in words, if there is one."""
        n = len(self.references)
        least = f", the smallest that {n} references allow" * (self.ahead == n)
        return "" if self.p_value is None else f"p = {self.p_value:.2g}{least}"

    @property
    def ahead(self) -> int | None:
        """How many references the model leads, if there is a p-value."""
        n = len(self.references)
        return None if self.p_value is None else n + 1 - round(self.p_value * (n + 1))

    @property
    def headline(self) -> str:
        """``Suspicious: cat leads the other classes further than any class of 98 clean models.``"""
        n, ahead, verdict = len(self.references), self.ahead, self.verdict.capitalize()
        if self.verdict == SUSPICIOUS:
            models = f"{n}" if ahead == n else f"{ahead} of {n}"
            return (
                f"{verdict}: {self.target_name} leads the other classes further than any class of "
                f"{models} clean models."
            )
        if self.doubt is None:
            others = f"classes of {n - (ahead or 0)} of {counted(n, 'clean model')} lead as far"
            return f"{verdict}. The easiest class is {self.target_name}, and {others}."
        if self.doubted_pattern:
            name = self.class_names[self.doubted_pattern.target]
            return f"{verdict} ({STRONG_PATTERN}): look at what was found for {name}."
        return f"{verdict} ({self.doubt.name}). The easiest class is {self.target_name}."

    @property
    def pattern(self) -> Pattern:
        """The pattern of the first class, with the fewest pixels that have most of its best power.
        What another family has found is in ``profile.changes``."""
        return self.profile.pattern_of(self.target)

    @property
    def strong_pattern(self) -> StrongPattern | None:
        """A pattern whose power on the validation images is large, and far above that of every
        reference: of the first class if it has one, else that which is furthest above."""
        others = self.references.profiles.values()
        far = [
            StrongPattern(power, max(each.powers[size][target] for each in others), size, target)
            for size, powers in self.profile.powers.items()
            for target, power in enumerate(powers)
        ]
        far = [each for each in far if each.power >= max(STRONG, each.usual + AHEAD)]
        return max(far, key=lambda p: (p.target == self.target, p.power - p.usual), default=None)

    @cached_property
    def doubt(self) -> Doubt | None:
        """Why the scan is inconclusive; None if it is not."""
        if self.verdict != INCONCLUSIVE:
            return None
        if known := self.references.doubt_about(self.profile):
            return known
        if self.doubted_pattern:
            power, usual, size, target = self.doubted_pattern
            name, excess = self.class_names[target], self.comparisons[PATCHES].standardised[target]
            return Doubt(
                STRONG_PATTERN,
                f"With {size} {unit_of(self.references.shape)}, the model predicts "
                f"{name} for {100 * power:.0f} % of the validation images, and "
                f"no reference for more than {100 * usual:.0f} %. But over all sizes, the "
                f"lead of {name} is only {excess:.1f} standard deviations ({self.p_text}).",
                ANOTHER_KIND.remedy,
            )
        name, n = self.target_name, len(self.references)
        if self.p_value is None:
            n -= len(self.left_out)
            as_accurate = " that are not far less accurate than the model" if self.left_out else ""
            return Doubt(
                "too few references",
                f"A p-value of {self.alpha:g} needs at least {self.needed} references"
                f"{as_accurate}, and there are {n}. Of all classes, {name} differs most from those "
                "of the references.",
                f"Measure more clean models with classpattern reference, at least "
                f"{self.needed - n}{as_accurate}. tutorials/train_references.py trains some.",
            )
        if self.comparison.of_another_kind:
            return ANOTHER_KIND
        excess, ahead = self.comparison.largest, self.ahead or 0
        if excess > LEAST:
            return Doubt(
                "the references differ too much",
                f"{name} leads by {excess:.1f} standard deviations, but classes of {n - ahead} of "
                f"the {n} references lead as far ({self.p_text}).",
                "Look at the references that lead furthest in the figure. Are they clean, and as "
                "accurate as the model? Replace those that are not.",
            )
        return Doubt(
            "a small lead",
            f"{name} leads by more than the classes of {ahead} of the {n} references "
            f"({self.p_text}), but only by {excess:.2f} standard deviations. Classes of clean "
            f"networks of other kinds lead as far; above {LEAST:g}, a model is suspicious.",
            ANOTHER_KIND.remedy,
        )

    @property
    def reason(self) -> str:
        """The verdict in words, with the power of the closer look, if there was one."""
        name, n, unit = self.target_name, len(self.references), unit_of(self.references.shape)
        if self.doubt:
            return self.doubt.reason
        if self.verdict == NOTHING:
            additive, warp = (FAMILY_NAMES[family] for family in CHANGES)
            return (
                f"No class differs from the clean references by patterns of {min(SIZES)} to "
                f"{max(SIZES)} {unit}, {additive} or {warp} ({self.p_text}). This does not show "
                "that the model is clean."
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
            f"{name} has {FAMILY_NAMES[self.family]} unlike those of the {n} clean references: it "
            f"leads by {self.comparison.largest:.1f} standard deviations, where more than "
            f"{LEAST:g} are suspicious ({self.p_text}).{effect} If this model were like the "
            f"references, this would happen in at most {100 * self.alpha:g} % of cases. It does "
            "not prove a backdoor."
        )

    @property
    def likeness(self) -> str:
        """How accurate the model and its references are, in words; and their images."""
        own, usual, count = self.profile.accuracy, self.references.accuracies, len(self.references)
        known = counted(count, "reference")
        said = [f"It was compared with {known}; accuracies can't be compared."]
        if own is not None and usual:
            ends = dict.fromkeys(f"{100 * end:.1f}" for end in (min(usual), max(usual)))
            said = [
                f"The model classifies {100 * own:.1f} % of {self.profile.images} images "
                f"correctly, its {known} {' to '.join(ends)} %."
            ]
        if trained_on := self.references.training_images:
            said.append(f"These were trained on {trained_on}.")
        if measured_on := self.references.images.get("description"):
            said.append(f"The references were measured on {measured_on}.")
        if self.left_out:
            said.append(f"Far less accurate, so they don't count: {join_names(self.left_out)}.")
        return " ".join(said)

    @property
    def next_steps(self) -> list[str]:
        """What to do now."""
        remedy, name = self.doubt.remedy if self.doubt else "", self.target_name
        if self.doubted_pattern:
            name = self.class_names[self.doubted_pattern.target]
        return [step.format(name=name, remedy=remedy) for step in NEXT_STEPS[self.verdict]]

    def text(self) -> str:
        """The verdict, why, and how the references differ from the model."""
        source = [] if self.source is None else [f"Model: {self.source}."]
        notes = (f"Note: {note}" for note in self.notes)
        return "\n".join((self.headline, self.reason, *source, *notes, self.likeness))

    def table(self, full: bool = False) -> Any:
        """A pandas DataFrame with a row for each class, the most suspicious first: the power of the
        fewest ``pixels`` that have most of the best one; its ``lead`` and its excess over the
        references, in the family of the largest one. With ``full`` also all powers and
        gains."""
        powers, gains = self.profile.all_powers, self.profile.gains
        pixels = [self.profile.enough_pixels(target) for target in range(len(self.class_names))]
        table = as_table(
            {
                "class": target,
                "name": self.class_names[target],
                "power": powers[str(pixels[target])][target],
                "pixels": pixels[target],
                "lead": float(self.comparison.standardised[target]),
                "excess": float(self.comparison.excess[target]),
                **{f"power_{of}": each[target] for of, each in powers.items()},
                **{f"gain_{of}": each[target] for of, each in gains.items()},
            }
            for target in self.comparison.order
        )
        return table if full else table.iloc[:, :COLUMNS]

    def shown_table(self, full: bool = False) -> Any:
        table = self.table(full).head(ROWS).drop(columns="class")
        forms = {key: ".0%" if key.startswith("power") else "+.2f" for key in table}
        return as_texts(table, forms | {"name": "", "pixels": ""})

    def figure(self, *, title: str | None = None, use_pyplot: bool = True) -> tuple[Any, Any]:
        from captum_classpattern.visualization.drawing import on_neutral
        from captum_classpattern.visualization.scans import FamilyRow, draw_families

        rows = []
        for family, each in self.comparisons.items():
            names, excess = [self.class_names[y] for y in each.order], each.standardised[each.order]
            look = self.looks.get(family)
            shown = self.class_names[look.target if look else each.target]
            row = FamilyRow(
                f"{FAMILY_NAMES[family]}: {shown}", names, excess, each.usual_standardised
            )
            if look and self.references.shape[0] in (1, 3):
                power = f"{percent(look.power.value)} ({percent_range(*look.power.interval)})"
                captions = map(
                    "{} \N{RIGHTWARDS ARROW} {}".format, look.before.names, look.after.captions
                )
                hits = [predicted == look.target for predicted in look.after.predicted]
                examples = [*zip(look.after.images, captions, hits)]
                if family == PATCHES:
                    patch = self.profile.pattern_of(look.target)
                    image = on_neutral(patch.canvas, patch.mask)
                else:
                    change = self.profile.changes[family][look.target]
                    image = CHANGES[family](self.references.shape).picture(change)
                row = replace(row, image=image, power=power, examples=examples)
            rows.append(row)
        note = (
            f"Dots: all classes, the first in orange. Grey lines: {len(self.references)} clean "
            "models, each by its largest lead: how far a class is above the median class, next "
            "to the same class of the clean models, in standard deviations."
        )
        if self.bound is not None:
            note += (
                f" A class right of the dotted line ({self.bound:g}) is suspicious if p is small."
            )
        unseen = all(look.unseen for look in self.looks.values())
        images = "held-out images" if unseen else "images"
        return draw_families(
            rows, self.bound, title=title, note=note, images=images, use_pyplot=use_pyplot
        )

    def as_dict(self) -> dict[str, Any]:
        """The result as plain values."""
        profile, families = self.profile, dict[str, dict[str, Any]]()
        powers = profile.all_powers
        for family, each in self.comparisons.items():
            families[family] = {
                "target": each.target,
                "target_name": self.class_names[each.target],
                "lead": each.largest,
                "leads": each.standardised.tolist(),
                "reference_leads": each.usual_standardised.tolist(),
            }
            if look := self.looks.get(family):
                power = look.power.as_columns() | {"unseen_images": look.unseen}
                power |= {f"power_{end}": power.pop(end) for end in ("low", "high")}
                families[family] |= {"shown": look.target, **power}
        first = ("verdict", "target", "target_name", "p_value", "alpha", "bound", "family")
        return {
            **{name: getattr(self, name) for name in (*first, "reason", "next_steps")},
            "doubt": self.doubt and self.doubt.name,
            "families": families,
            "n_references": len(self.references),
            "left_out": self.left_out,
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

    @property
    def kept(self) -> tuple[Mapping[str, Any], Mapping[tuple[int, int], Pattern]]:
        return self.profile.key, self.profile.patterns
