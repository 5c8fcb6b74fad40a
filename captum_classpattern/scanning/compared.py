"""What a scan with references says: the decision, in words, rows and a figure."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np

from captum_classpattern._support.formats import percent, percent_range
from captum_classpattern._support.validation import counted, join_names
from captum_classpattern.pattern import Pattern
from captum_classpattern.scanning.decision import (
    INCONCLUSIVE,
    LEAST,
    NOTHING,
    SUSPICIOUS,
    Decision,
    decide,
    references_needed,
)
from captum_classpattern.scanning.doubts import STRONG_PATTERN, UNDECIDED, Doubt, first_doubt
from captum_classpattern.scanning.families import CHANGES, FAMILIES, PATCHES, SIZES, unit_of
from captum_classpattern.scanning.profile import Profile, UnseenCheck
from captum_classpattern.scanning.references import ReferenceSet
from captum_classpattern.scanning.results import NEXT_STEPS

COLUMNS_EXPLAINED = (
    "Lead: how far the class is ahead of the median class, compared with the same class of clean "
    "models, in standard deviations. Excess: how far the score of the class is above its mean over "
    "all models. Power: the share of the validation images that are predicted as the class, for "
    "patterns of so many pixels and for other changes (texts give it for unseen images). Gain: how "
    "far the change raises the distance of its logit from the largest other one, on average; 1 is "
    "the usual distance of the model's two largest logits."
)
STRONG, AHEAD = 0.5, 0.25  # a power, and how far it is above those of all references


class StrongPattern(NamedTuple):
    """The power of a pattern, and that of the strongest reference for its class and size."""

    power: float
    usual: float
    size: int
    target: int


@dataclass(frozen=True)
class Compared(Decision):
    r"""
    A model that was compared with clean ones: a decision, and what it rests on.

    Attributes:
        alpha (float): The largest p-value that is suspicious.
        notes (list[str]): In which ways the references may differ from the model.
        profile (Profile): What was measured of the model.
        references (ReferenceSet): What it was compared with.
        class_names (list[str]): The name of each class.
        left_out (list[str]): References that are far less accurate than the model, so that they
            don't count. If too few others are left, the figure shows all of them.
        looks (dict[str, UnseenCheck]): A closer look at the class that is shown of each family.
        doubted_pattern (StrongPattern or None): The strong pattern for which the scan is
            inconclusive.
    """

    alpha: float
    notes: list[str]
    profile: Profile
    references: ReferenceSet
    class_names: list[str]
    left_out: list[str] = field(default_factory=list)
    looks: Mapping[str, UnseenCheck] = field(default_factory=dict)
    doubted_pattern: StrongPattern | None = None

    legend = COLUMNS_EXPLAINED  # of the table
    rows_shown = 10
    can_be_drawn = True

    @classmethod
    def of(
        cls,
        profile: Profile,
        references: ReferenceSet,
        alpha: float,
        class_names: list[str],
        notes: Sequence[str] = (),
    ) -> "Compared":
        """The judgement of what was measured, without a closer look at images."""
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

    @property
    def shown(self) -> dict[str, int]:
        """The class of each family that is shown: the first, or that of the strong pattern."""
        first = {family: each.target for family, each in self.comparisons.items()}
        return first | ({PATCHES: self.doubted_pattern.target} if self.doubted_pattern else {})

    @property
    def in_short(self) -> str:
        """The p-value, if there is one."""
        return "" if self.p_value is None else f"p = {self.p_value:.2g}"

    @property
    def p_text(self) -> str:
        """The same, and whether it is the smallest possible."""
        n = len(self.references)
        return f"{self.in_short}{f', the smallest that {n} references allow' * (self.ahead == n)}"

    @property
    def ahead(self) -> int | None:
        """How many references the model leads, if there is a p-value."""
        n = len(self.references)
        return None if self.p_value is None else n + 1 - round(self.p_value * (n + 1))

    @property
    def headline(self) -> str:
        """``Suspicious: cat leads the other classes further than any class of 98 clean models.``"""
        n, ahead, verdict = len(self.references), self.ahead, self.verdict.capitalize()
        name = self.class_names[self.target]
        if self.verdict == SUSPICIOUS:
            models = f"{n}" if ahead == n else f"{ahead} of {n}"
            further = f"leads the other classes further than any class of {models} clean models."
            return f"{verdict}: {name} {further}"
        if self.doubt is None:
            others = f"classes of {n - (ahead or 0)} of {counted(n, 'clean model')} lead as far"
            return f"{verdict}. The easiest class is {name}, and {others}."
        if self.doubted_pattern:
            name = self.class_names[self.doubted_pattern.target]
            return f"{verdict} ({STRONG_PATTERN}): look at what was found for {name}."
        return f"{verdict} ({self.doubt.name}). The easiest class is {name}."

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
        n, left_out, strong = len(self.references), self.left_out, self.doubted_pattern
        left = n - len(left_out)
        known: dict[str, Any] = {
            **{"n": n, "ahead": self.ahead, "behind": n - (self.ahead or 0), "left": left},
            **{"name": self.class_names[self.target], "lead": self.comparison.largest},
            **{"p": self.p_text, "alpha": self.alpha, "needed": self.needed},
            **{"missing": self.needed - left, "unit": unit_of(self.references.shape)},
            "as_accurate": " that are not far less accurate than the model" * bool(left_out),
            "of_another_kind": self.comparison.of_another_kind,
            "strong": strong,
        }
        if strong:
            leads = self.comparisons[PATCHES].standardised
            known |= {"strong_name": self.class_names[strong.target]}
            known |= {"strong_percent": 100 * strong.power, "usual_percent": 100 * strong.usual}
            known |= {"strong_lead": leads[strong.target]}
        return self.references.doubt_about(self.profile) or first_doubt(UNDECIDED, known)

    @property
    def reason(self) -> str:
        """The verdict in words, with the power of the closer look, if there was one."""
        if self.doubt:
            return self.doubt.reason
        name, n = self.class_names[self.target], len(self.references)
        if self.verdict == NOTHING:
            additive, warp = (each.words for each in CHANGES.values())
            patterns = f"patterns of {min(SIZES)} to {max(SIZES)} {unit_of(self.references.shape)}"
            return (
                f"No class differs from the clean references by {patterns}, {additive} or {warp} "
                f"({self.p_text}). This does not show that the model is clean."
            )
        return (
            f"{name} has {FAMILIES[self.family].words} unlike those of the {n} clean references: "
            f"it leads by {self.comparison.largest:.1f} standard deviations, where more than "
            f"{LEAST:g} are suspicious ({self.p_text}).{self._effect()} If this model were like "
            f"the references, this would happen in at most {100 * self.alpha:g} % of cases. It "
            "does not prove a backdoor."
        )

    def _effect(self) -> str:
        """What a closer look has shown."""
        if (look := self.looks.get(self.family)) is None:
            return ""
        pixels = f"{self.profile.enough_pixels(self.target)} {unit_of(self.references.shape)}"
        what, power = pixels if self.family == PATCHES else "it", look.power
        low, high = (100 * end for end in power.interval)
        return (
            f" With {what}, the model predicts {self.class_names[self.target]} for "
            f"{100 * power.value:.1f} % of {power.n} {'unseen' if look.unseen else 'validation'} "
            f"images of other classes (95 % interval {low:.1f} to {high:.1f}), and for "
            f"{100 * power.without:.1f} % of them as they are."
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
    def remarks(self) -> list[str]:
        return [*(f"Note: {note}" for note in self.notes), self.likeness]

    @property
    def next_steps(self) -> list[str]:
        """What to do now."""
        remedy, target = self.doubt.remedy if self.doubt else "", self.target
        if self.doubted_pattern:
            target = self.doubted_pattern.target
        known = {"name": self.class_names[target], "remedy": remedy}
        return [step.format(**known) for step in NEXT_STEPS[self.verdict]]

    def rows(self) -> Iterator[dict[str, Any]]:
        """Of each class, the most suspicious first: the power of the fewest ``pixels`` that have
        most of the best one; its ``lead`` and its excess over the references, in the family of the
        largest one; all powers and gains."""
        powers, gains = self.profile.all_powers, self.profile.gains
        for target in self.comparison.order:
            pixels = self.profile.enough_pixels(target)
            yield {
                "class": target,
                "name": self.class_names[target],
                "power": powers[str(pixels)][target],
                "pixels": pixels,
                "lead": float(self.comparison.standardised[target]),
                "excess": float(self.comparison.excess[target]),
                **{f"power_{of}": each[target] for of, each in powers.items()},
                **{f"gain_{of}": each[target] for of, each in gains.items()},
            }

    def figure(self, title: str | None, use_pyplot: bool) -> tuple[Any, Any]:
        from captum_classpattern.visualization.scans import draw_families

        note = (
            f"Dots: all classes, the first in orange. Grey lines: {len(self.references)} clean "
            "models, each by its largest lead: how far a class is above the median class, next "
            "to the same class of the clean models, in standard deviations."
        )
        if self.bound is not None:
            note += (
                f" A class right of the dotted line ({self.bound:g}) is suspicious if p is small."
            )
        rows = [self._figure_row(family) for family in self.comparisons]
        unseen = all(look.unseen for look in self.looks.values())
        images = "held-out images" if unseen else "images"
        how: dict[str, Any] = {"note": note, "images": images, "use_pyplot": use_pyplot}
        return draw_families(rows, self.bound, title=title, **how)

    def _figure_row(self, family: str) -> Any:
        """A row of the figure: what was found, images with it, and the leads of all classes."""
        from captum_classpattern.visualization.scans import FamilyRow

        each, look, shape = self.comparisons[family], self.looks.get(family), self.references.shape
        row = FamilyRow(
            f"{FAMILIES[family].words}: {self.class_names[look.target if look else each.target]}",
            [self.class_names[y] for y in each.order],
            each.standardised[each.order],
            each.usual_standardised,
        )
        if look is None or shape[0] not in (1, 3):
            return row
        turns = zip(look.before.names, look.after.captions)
        captions = (f"{before} \N{RIGHTWARDS ARROW} {after}" for before, after in turns)
        hits = [predicted == look.target for predicted in look.after.predicted]
        return replace(
            row,
            image=FAMILIES[family].picture(self.profile, look.target, shape),
            power=f"{percent(look.power.value)} ({percent_range(*look.power.interval)})",
            examples=[*zip(look.after.images, captions, hits)],
        )

    def as_dict(self) -> dict[str, Any]:
        """The judgement as plain values."""
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
        return {
            **{name: getattr(self, name) for name in ("p_value", "alpha", "bound", "family")},
            "doubt": self.doubt and self.doubt.name,
            "families": families,
            "n_references": len(self.references),
            **{name: getattr(self, name) for name in ("left_out", "likeness", "notes")},
            "accuracy": profile.accuracy,
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
        """What is saved beside it: what the search depends on, and its patterns."""
        return self.profile.key, self.profile.patterns
