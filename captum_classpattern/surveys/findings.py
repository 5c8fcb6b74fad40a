"""What a survey finds for a class: its patterns, and their scores next to their controls."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from captum_classpattern._support.formats import percent_area, shortened
from captum_classpattern.classifier.class_names import label_of
from captum_classpattern.optimization.canvases import PATCH, STRATEGIES
from captum_classpattern.pattern import Pattern
from captum_classpattern.results import Result, as_table, as_texts, fitting
from captum_classpattern.scores.examples import StampedImages
from captum_classpattern.scores.figure import figure_row
from captum_classpattern.scores.power import CONTROLS, PredictivePower, Scores

IN_WORDS = {  # controls, as texts name them
    "other canvas": "the same mask on another class's canvas",
    "other patch": "another class's patch",
}
WHAT = (  # on pages
    "A class pattern is a few pixels of one image, the canvas, or a patch with its own colours. "
    "Stamped on other images, it makes the model predict the class."
)
NAMES = ("class", "name")  # columns
LITTLE = 0.1  # power: with less, a result says what to try
TOO_STRONG = 0.5  # a control: with a stronger one, the area is too large
HELD_OUT = "on the held-out images"  # of an accuracy


def stands_out(scores: Mapping[int, Scores], target: int, n_classes: int) -> bool:
    r"""
    Whether a class's pattern stands out among those of all classes of the model.

    It does if all classes were searched, if its power is above that of every other class (the
    95 % interval of each difference lies above 0, see
    :func:`~captum_classpattern.scores.intervals.newcombe`), and if it beats its controls
    (:attr:`Scores.beats_controls`, which needs at least 100 images).

    The intervals are over the images. They do not include what another seed or canvas would change.

    Args:
        scores (Mapping[int, Scores]): The scores of each class that was searched, on one kind of
            canvas and at one area: :meth:`Survey.scores`.
        target (int): The class.
        n_classes (int): Number of classes that the model has.

    Returns:
        *bool*: Also False if there are too few classes or images to tell.

    Examples::

        >>> from captum_classpattern.scores.power import power_of
        >>> strong, weak = power_of(400, 500, 5), power_of(90, 500, 5)
        >>> scores = {0: Scores(strong, 0.02, 0.02), 1: Scores(weak, 0.02, 0.02)}
        >>> stands_out(scores, 0, n_classes=2), stands_out(scores, 0, n_classes=10)
        (True, False)
    """
    first = scores[target]
    powers = (other.power for y, other in scores.items() if y != target)
    return (
        len(scores) == n_classes > 1
        and first.beats_controls
        and all(first.interval_above(power.value, power.n)[0] > 0 for power in powers)
    )


@dataclass(frozen=True, repr=False)
class Finding(Result):
    r"""
    The best pattern of one class on one kind of canvas for each area, and its scores. Its figure
    has a row for each kind of canvas, a patch first: the canvas, the binary pattern of the
    first area, the :attr:`examples`, if there are any, and the power.

    Args:
        patterns (Mapping[float, Pattern]): The pattern of each area, as it was searched. Those of a
            folder are read when they are used.
        canvas (str): The kind of canvas.
        scores (dict[float, Scores]): Its power at each area, and its controls.
        class_name (str, optional): The name of the class. Default: None.
        others (tuple[Finding, ...]): The findings of the class on the other kinds of canvas, from
            :func:`explain_class`. Default: ().
        stamped (Mapping[float, StampedImages], optional): Three held-out images with the binary
            pattern of each area, and what the model predicts for them. Default: None
            (unknown).
        accuracy (float, optional): The model's accuracy on the held-out images, from
            :func:`explain_class`. Default: None.
    """

    patterns: Mapping[float, Pattern]
    canvas: str
    scores: dict[float, Scores]
    class_name: str | None = None
    others: tuple["Finding", ...] = ()
    stamped: Mapping[float, StampedImages] | None = None
    accuracy: float | None = None

    def __repr__(self) -> str:
        parts = [self.label]
        for area in self.scores:
            scores = {each.canvas: each.scores[area] for each in self.on_each_canvas}
            powers = (
                f"{canvas_in_words(kind)} {100 * s.power.value:.1f} %" for kind, s in scores.items()
            )
            control = max(s.strongest_control for s in scores.values())
            pixels = f"{100 * area:.3g} % of the pixels: {', '.join(powers)}"
            parts.append(f"{pixels}, controls at most {100 * control:.1f} %")
        if not self.scores[self.area].enough_images:
            parts.append(f"{self.power.n} images are too few to compare it with its controls")
        if self.accuracy is not None:
            parts.append(f"the model's accuracy {100 * self.accuracy:.1f} % {HELD_OUT}")
        if hint := what_to_try(self.on_each_canvas):
            parts.append(hint[0].lower() + hint[1:].removesuffix("."))
        return f"Finding({'; '.join(parts)})"

    @property
    def on_each_canvas(self) -> list["Finding"]:
        """This finding and :attr:`others`: the patch first, then the one on a positive canvas."""
        order = [PATCH, *STRATEGIES, *(each.canvas for each in self.others), self.canvas]
        return sorted((self, *self.others), key=lambda each: order.index(each.canvas))

    @property
    def pattern(self) -> Pattern:
        """The pattern of the first area. Its mask has weights; :attr:`mask` is binary."""
        return next(iter(self.patterns.values()))

    @property
    def area(self) -> float:
        """The first area."""
        return next(iter(self.patterns))

    @property
    def power(self) -> PredictivePower:
        """The predictive power at the first area."""
        return self.scores[self.area].power

    @property
    def mask(self) -> Tensor:
        """The binary mask of the first area, (1, H, W). Of a moving patch, the opacity of the
        patch itself, from 0 to 1."""
        return self.pattern.topk(self.area).mask

    @property
    def examples(self) -> StampedImages | None:
        """The held-out images with the binary pattern of the first area, if they are known."""
        return (self.stamped or {}).get(self.area)

    @property
    def target(self) -> int:
        """The patterns' class."""
        return int(self._row["class"]) if self._row else self.pattern.target

    @property
    def _row(self) -> Mapping[str, Any] | None:
        """What :meth:`as_dict` wrote into the file of the patterns, which need not be read then."""
        return getattr(self.patterns, "row", None)

    @property
    def is_patch(self) -> bool:
        """Whether it is a moving patch, which has no canvas."""
        return self.canvas == PATCH

    @property
    def search_powers(self) -> dict[float, float]:
        """The power of each area's pattern on the validation images, which chose its canvas."""
        areas = self.as_dict()["areas"]
        return {float(area): each["search_power"] for area, each in areas.items()}

    @property
    def label(self) -> str:
        """The name of the class, or "class 3" if it has none."""
        return self.class_name or label_of(self.target)

    def stamp(self, images: Tensor, **places: Any) -> Tensor:
        """Puts the binary pattern of the first area on images (N, C, H, W) or (C, H, W), as
        :meth:`Pattern.stamp`; a patch also takes ``places`` and ``seed``."""
        return self.pattern.topk(self.area).stamp(images, **places)

    def text(self) -> str:
        """The power at the first area, next to the strongest control."""
        low, high = (100 * end for end in self.power.interval)
        scores, control = self.scores[self.area], self.scores[self.area].strongest_name
        what = f"{100 * self.area:.3g} % of the pixels of a {self.canvas} canvas"
        if self.is_patch:
            height, width = self.pattern.mask.shape[1:]
            what = f"a patch of {height} x {width} pixels at random places"
        control = IN_WORDS.get(control, control)
        lines = (
            f"Class pattern: {self.label}",
            f"Stamped with {what}, {100 * self.power.value:.1f} % of {self.power.n:,} held-out "
            f"images of other classes are predicted as {self.label} (95 % interval {low:.1f} to "
            f"{high:.1f}). The strongest control, {control}, reaches "
            f"{100 * scores.strongest_control:.1f} %.",
            what_to_try(self.on_each_canvas),
        )
        return "\n".join(filter(None, lines))

    def shown_table(self) -> Any:
        return scores_table({"": [self, *self.others]})

    def plot(self, *, use_pyplot: bool = True) -> tuple[Any, Any]:
        from captum_classpattern.visualization.patterns import draw_patterns

        kinds, title = self.on_each_canvas, self.label if self.others else None
        words = [canvas_in_words(each.canvas).replace(" ", "\n") for each in kinds]
        names = [word if self.others else each.label for word, each in zip(words, kinds)]
        rows = [each.figure_row(name) for each, name in zip(kinds, names)]
        return draw_patterns(rows, area=self.area, title=title, use_pyplot=use_pyplot)

    def figure_row(self, name: str) -> Any:
        """The first area as a row of a figure, and on a card of a page."""
        pattern, scores = self.pattern, self.scores[self.area]
        return figure_row(name, pattern, pattern.topk(self.area), self.examples, scores)

    def sections(self, whole: bool) -> Iterable[Any]:
        from captum_classpattern.pages import parts

        findings, shown = [self, *self.others], []  # first the one that the text is about
        for each in findings:
            note = "Best on the validation images." * (each is self and bool(self.others))
            shown.append(each.card(canvas_in_words(each.canvas).capitalize(), note))
        accuracy = None if self.accuracy is None else f"{100 * self.accuracy:.1f} % {HELD_OUT}"
        settings = {key: self.pattern.info.get(key) for key in ("settings", "passes", "versions")}
        return [
            parts.listed(shown),
            how_to_read(findings),
            parts.folded("All scores", scores_table({"": findings}, full=True)),
            parts.settings({"accuracy": accuracy, **settings}),
        ]

    def card(
        self, title: str, note: str, findings: Iterable["Finding"] = (), examples: bool = True
    ) -> Any:
        """Its part of a page: the power, the canvas, the pattern, stamped images, and the patterns
        of the same class among other findings."""
        from markupsafe import Markup

        from captum_classpattern.pages import parts

        canvas, alt = self.pattern.canvas, f"pattern of {self.label}"
        if self.is_patch:
            pictures, kept = [], f"on grey; it covers {percent_area(self.area)} of an image"
        else:
            pictures = [parts.picture(canvas, f"canvas of {self.label}", "canvas")]
            kept = f"{percent_area(self.area)} of its pixels"
        pictures.append(parts.pattern_picture(canvas, self.mask, alt, kept))
        if examples and self.examples is not None:
            words = Markup('{} → <span class="{}">{}</span>')
            predictions = self.examples.predictions_for(self.target)
            for image, (label, predicted, hit) in zip(self.examples.images, predictions):
                text = words.format(label, "hit" if hit else "", predicted)
                own = f"{label} with the {alt}"
                pictures.append(parts.picture(image, own, text, most=parts.THUMBNAIL))
        for other in findings:
            if other.target == self.target and other is not self:
                own = f"{other.canvas}: {100 * other.power.value:.1f} %"
                shown = other.pattern.canvas, other.mask
                pictures.append(parts.pattern_picture(*shown, f"{alt}, {own}", own))
        return parts.macro("card", title, note, self.scores[self.area], pictures)

    def table(self, full: bool = False) -> Any:
        r"""
        One row for each kind of canvas, this one first, and area.

        Args:
            full (bool): Whether to return all columns. Default: False (six columns, which fit a
                terminal; a long name is shortened).

        Returns:
            *pandas.DataFrame*: The columns are ``class``, ``name``, ``power``, the strongest
            ``control``, ``canvas`` and ``area``. With ``full``, there are also ``low`` and
            ``high``, the ends of the power's 95 % interval; the number of held-out ``images``; the
            controls ``no_pattern``, ``random_pixels``, ``other_canvas`` and, for a patch,
            ``best_square``, if they were measured; and ``beats_controls``, see
            :attr:`Scores.beats_controls`. Models of at least 20 classes have ``top5``;
            ``mean_margin`` is the logit of the class minus the largest other one, see
            :class:`PredictivePower`. Findings of :func:`explain_class` also have the model's
            ``accuracy``.
        """
        findings = (self, *self.others)
        return fitting((row for each in findings for row in each.rows()), NAMES, full)

    def rows(self) -> list[dict[str, Any]]:
        """The pattern of each area with its scores, as :meth:`table` lists them."""
        accuracy = {} if self.accuracy is None else {"accuracy": self.accuracy}
        return [
            {
                **{"class": self.target, "name": self.label},
                **dict.fromkeys(("power", "low", "high", "control")),  # their places
                **{"canvas": self.canvas, "area": area},
                **scores.as_columns(),
                **accuracy,
            }
            for area, scores in self.scores.items()
        ]

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        names, row = ("search_power", "passes", "precision"), self._row
        infos = {a: row["areas"][str(a)] if row else self.patterns[a].info for a in self.scores}
        info = row or self.pattern.info
        return {
            "areas": {
                str(area): {
                    **{name: infos[area].get(name) for name in names},
                    **scores.as_dict(),
                }
                for area, scores in self.scores.items()
            },
            **{name: info.get(name) for name in ("search_images_hash", "settings")},
            "class": self.target,
            "class_name": self.class_name,
            "canvas": self.canvas,
        }


def what_to_try(findings: Iterable[Finding]) -> str:
    """What a text says if a control of each class is strong, or none of these is a pattern with
    power; otherwise nothing."""
    findings = list(findings)
    if findings and (control := _least_of_the_strongest_controls(findings)) > TOO_STRONG:
        area = findings[0].area
        return (
            f"A control reaches {100 * control:.1f} %, so {100 * area:.3g} % of the pixels is too "
            f"large an area to tell classes apart: search a smaller one, `area={area / 4:.2g}`."
        )
    if not findings or not all(
        each.power.value < LITTLE or each.scores[each.area].is_weak for each in findings
    ):
        return ""
    if max(each.power.value for each in findings) >= LITTLE:
        return "No pattern above its controls was found: try other `canvases`, or another `seed`."
    patch = (
        "" if any(each.is_patch for each in findings) else "a moving patch (`canvases='patch'`), "
    )
    return (
        f"No strong pattern was found: try {patch}a larger `area`, a larger `budget`, or another "
        "`seed`."
    )


def _least_of_the_strongest_controls(findings: Iterable[Finding]) -> float:
    """The strongest control of each class, and of these the least. The share without a pattern
    does not count: no area changes it."""
    strongest = dict[int, float]()
    for each in findings:
        controls = each.scores[each.area].controls
        highest = max(share for name, share in controls.items() if name != "no pattern")
        strongest[each.target] = max(highest, strongest.get(each.target, 0.0))
    return min(strongest.values())


def canvas_in_words(canvas: str) -> str:
    """A kind of canvas, as texts name it."""
    return canvas if canvas == PATCH else f"{canvas} canvas"


def how_to_read(findings: Iterable[Finding]) -> Any:
    """What the numbers and pictures on the cards of these findings mean, behind a fold."""
    from captum_classpattern.pages import parts

    shown = [*findings]
    squares = any("best square" in each.scores[each.area].controls for each in shown)
    kinds = {each.is_patch for each in shown}
    return parts.folded("How to read", parts.macro("how_to_read", kinds, squares))


def best_of_each(findings: Iterable[Finding]) -> list[Finding]:
    """For each class the finding on the canvas whose pattern of the first area did best on the
    validation images."""
    best: dict[int, Finding] = {}
    for each in findings:
        rival = best.get(each.target)
        if rival is None or each.search_powers[each.area] > rival.search_powers[rival.area]:
            best[each.target] = each
    return list(best.values())


def scores_table(findings: Mapping[str, Iterable[Finding]], full: bool = False) -> Any:
    """The scores of findings as texts, a row for each area, by the name of their model, if any: the
    columns of :meth:`Finding.table`, which fit a terminal, or with all controls."""
    rows = [
        {
            **({"model": model} if model else {}),
            **row,
            "name": finding.label if full else shortened(finding.label),
            "area": f"{100 * area:.3g} %",
            "beats_controls": scores.beats_controls if scores.enough_images else "too few images",
        }
        for model, of_model in findings.items()
        for finding in of_model
        for row, (area, scores) in zip(finding.rows(), finding.scores.items())
    ]
    shares = dict.fromkeys(CONTROLS, ".1%")
    more = {"images": ",", "no_pattern": ".1%", **shares, "beats_controls": ""}
    forms = {"model": "", "class": "", "name": "", "power": ".1%", "control": ".1%", "canvas": ""}
    return as_texts(as_table(rows), {**forms, "area": "", **(more if full else {})})
