"""What a scan with references says: the decision, in words, rows and a figure."""

from collections import Counter
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
    Doubt,
    decide,
    references_needed,
)
from captum_classpattern.scanning.families import CHANGES, FAMILIES, PATCHES, SIZES, unit_of
from captum_classpattern.scanning.profile import Profile, UnseenCheck
from captum_classpattern.scanning.references import TRAINED_ON, ReferenceSet
from captum_classpattern.scanning.results import NEXT_STEPS, Scan, with_images

COLUMNS_EXPLAINED = (
    "Lead: how far the class is ahead of the median class, compared with the same class of clean "
    "models, in standard deviations. Excess: how far the score of the class is above its mean over "
    "all models. Power: the share of the validation images that are predicted as the class with "
    "patterns of each size and with other changes (texts give it for unseen images). Gain: how far "
    "the change raises the mean distance of the class's logit from the largest other one; 1 is the "
    "usual distance of the model's two largest logits."
)
STRONG, AHEAD = 0.5, 0.25  # a power, and how far it is above those of all references
STRONG_PATTERN = "a strong pattern"
AS_ACCURATE = " that are not far less accurate than the model"
OTHER_REFERENCES = "Add references with the architecture and the training of the model."
CLOSE = (
    f"Classes of clean networks of other kinds lead as far; above {LEAST:g}, a model is suspicious."
)
LOOK_AT_REFERENCES = (
    "Look at the references that lead furthest in the figure. Are they clean, and as accurate as "
    "the model? Replace those that are not."
)
ANOTHER_KIND = Doubt(
    "another kind of model",
    "All classes are easier to reach than those of the references, not one class alone: the "
    "excess of the median class is larger than that of any reference.",
    OTHER_REFERENCES,
)


class StrongPattern(NamedTuple):
    """The power of a pattern, and that of the strongest reference for its class and size."""

    power: float
    usual: float
    size: int
    target: int


@dataclass(frozen=True, repr=False)
class Compared(Decision, Scan):
    r"""
    A scan with references: a decision, and what it rests on. ``plot`` draws for each family what
    was found, images with it and the model's predictions, and the standardised excess of all
    classes, next to the references.

    Attributes:
        alpha (float): The largest p-value that is suspicious.
        notes (list[str]): In which ways the references may differ from the model.
        profile (Profile): What was measured on the model.
        references (ReferenceSet): What it was compared with.
        left_out (list[str]): References that are far less accurate than the model, so that they
            don't count. If too few others are left, the figure shows all of them.
        looks (dict[str, UnseenCheck]): A closer look at the class shown for each family.
        doubted_pattern (StrongPattern or None): The strong pattern for which the scan is
            inconclusive.
    """

    alpha: float
    notes: list[str]
    profile: Profile
    references: ReferenceSet
    left_out: list[str] = field(default_factory=list)
    looks: Mapping[str, UnseenCheck] = field(default_factory=dict)
    doubted_pattern: StrongPattern | None = None

    legend = COLUMNS_EXPLAINED
    rows_shown = 10

    @classmethod
    def of(
        cls,
        profile: Profile,
        references: ReferenceSet,
        alpha: float,
        class_names: list[str],
        notes: Sequence[str] = (),
        source: str | None = None,
    ) -> "Compared":
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
            source=source,
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
        """The p-value, if there is one, and whether it is the smallest possible."""
        if self.p_value is None:
            return ""
        n = len(self.references)
        smallest = f", the smallest that {n} references allow" * (self.ahead == n)
        return f"p = {self.p_value:.2g}{smallest}"

    @property
    def ahead(self) -> int:
        """How many references the model leads; 0 if there is no p-value."""
        n = len(self.references)
        return 0 if self.p_value is None else n + 1 - round(self.p_value * (n + 1))

    @property
    def headline(self) -> str:
        """``Suspicious: cat leads the other classes further than any class of 98 clean models.``"""
        n, ahead, verdict = len(self.references), self.ahead, self.verdict.capitalize()
        name = self.target_name
        if self.verdict == SUSPICIOUS:
            models = f"{n}" if ahead == n else f"{ahead} of {n}"
            further = f"leads the other classes further than any class of {models} clean models."
            return f"{verdict}: {name} {further}"
        if self.doubt is None:
            others = f"classes of {n - ahead} of {counted(n, 'clean model')} lead as far"
            return f"{verdict}. The easiest class is {name}, and {others}."
        if self.doubted_pattern:
            name = self.class_names[self.doubted_pattern.target]
            return f"{verdict} ({STRONG_PATTERN}): look at what was found for {name}."
        return f"{verdict} ({self.doubt.name}). The easiest class is {name}."

    @property
    def pattern(self) -> Pattern:
        """The pattern of the first class, with the fewest pixels that reach most of its best power.
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
        if (unlike := self.references.doubt_about(self.profile)) or self.verdict != INCONCLUSIVE:
            return unlike
        n, name, lead = len(self.references), self.target_name, self.comparison.largest
        if strong := self.doubted_pattern:
            strong_name, unit = self.class_names[strong.target], unit_of(self.references.shape)
            strong_lead = self.comparisons[PATCHES].standardised[strong.target]
            return Doubt(
                STRONG_PATTERN,
                f"With {strong.size} {unit}, the model predicts {strong_name} for "
                f"{100 * strong.power:.0f} % of the validation images, and no reference for more "
                f"than {100 * strong.usual:.0f} %. But over all sizes, the lead of {strong_name} "
                f"is only {strong_lead:.1f} standard deviations ({self.p_text}).",
                OTHER_REFERENCES,
            )
        if self.p_value is None:
            left, kind = n - len(self.left_out), AS_ACCURATE * bool(self.left_out)
            return Doubt(
                "too few references",
                f"A p-value of {self.alpha:g} needs at least {self.needed} references{kind}, and "
                f"there are {left}. Of all classes, {name} differs most from those of the "
                "references.",
                f"Add at least {self.needed - left} clean models{kind}: `make_references` trains "
                "some (better with more epochs), and classpattern reference measures your own.",
            )
        if self.comparison.of_another_kind:
            return ANOTHER_KIND
        if lead > LEAST:
            return Doubt(
                "the references differ too much",
                f"{name} leads by {lead:.1f} standard deviations, but classes of {n - self.ahead} "
                f"of the {n} references lead as far ({self.p_text}).",
                LOOK_AT_REFERENCES,
            )
        return Doubt(
            "a small lead",
            f"{name} leads by more than the classes of {self.ahead} of the {n} references "
            f"({self.p_text}), but only by {lead:.2f} standard deviations. {CLOSE}",
            OTHER_REFERENCES,
        )

    @property
    def reason(self) -> str:
        """The verdict in words, with the power of the closer look, if there was one."""
        if self.doubt:
            return self.doubt.reason
        name, n = self.target_name, len(self.references)
        if self.verdict == NOTHING:
            others = " or ".join(each.words for each in CHANGES.values())
            patterns = f"patterns of {min(SIZES)} to {max(SIZES)} {unit_of(self.references.shape)}"
            return (
                f"No class differs from the clean references by {patterns}, {others} "
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
            f" With {what}, the model predicts {self.target_name} for "
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
        recipes = self.references.recipes.values()
        kinds = Counter(str(recipe.get(TRAINED_ON) or "") for recipe in recipes)
        if trained_on := [
            f"{k} ({n})" if len(kinds) > 1 else k for k, n in kinds.most_common() if k
        ]:
            said.append(f"These were trained on {', '.join(trained_on)}.")
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
        shown = self.doubted_pattern or self
        known = {"name": self.class_names[shown.target]}
        known |= {"remedy": self.doubt.remedy if self.doubt else ""}
        return [step.format(**known) for step in NEXT_STEPS[self.verdict]]

    def rows(self) -> Iterator[dict[str, Any]]:
        """Of each class, the most suspicious first: the power of the fewest ``pixels`` that reach
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

    def draw(self, title: str | None, *, use_pyplot: bool = True) -> tuple[Any, Any]:
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
        return draw_families(rows, title=title, **how)

    def _figure_row(self, family: str) -> Any:
        """A row of the figure: what was found, images with it, and the leads of all classes."""
        from captum_classpattern.visualization.scans import FamilyRow

        each, look, shape = self.comparisons[family], self.looks.get(family), self.references.shape
        row = FamilyRow(
            f"{FAMILIES[family].words}: {self.class_names[look.target if look else each.target]}",
            [self.class_names[y] for y in each.order],
            each.standardised[each.order],
            each.usual_standardised,
            [] if self.bound is None else [self.bound],
        )
        if look is None or shape[0] not in (1, 3):
            return row
        power = f"{percent(look.power.value)} ({percent_range(*look.power.interval)})"
        picture = FAMILIES[family].picture(self.profile, look.target, shape)
        return with_images(row, picture, power, look.before, look.after, look.target)

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
        return super().as_dict() | {
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
        """What is saved: what the search depends on, and its patterns."""
        return self.profile.key, self.profile.patterns
