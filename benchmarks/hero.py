"""The first figure of the README: a class of CIFAR-10 whose pattern has the median power.

Of the ten classes it is the lower one of the two in the middle. Its pattern and controls are those
of the row ``shipped_natural`` of ``results/class_patterns.jsonl``, on a positive canvas with 5 % of
the pixels. The three images are held-out ones of other classes, chosen at random, not to succeed.
Nothing is searched; the figure takes a few seconds.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median_low

from architecture_rows import POSITIVE
from checking import checked
from cifar10 import CLASS_NAMES
from claims.images import Images, images_of, reference_of, shared_canvases
from claims.models import CIFAR10
from claims.rows import FILE, Measured
from claims.transfer import patterns_of
from claims.verdicts import AREA
from findings import parser_of, read_rows
from matplotlib.axes import Axes
from matplotlib.figure import Figure, SubFigure
from torch import Tensor

from captum_classpattern import Pattern
from captum_classpattern._support.formats import percent, percent_area
from captum_classpattern.scores import Scores
from captum_classpattern.scores.examples import StampedImages, choose_images, with_predictions
from captum_classpattern.visualization.drawing import draw_image, on_neutral, rc_context
from captum_classpattern.visualization.style import CONTROL, HIT, IMAGE_STYLE, QUIET, TRACK

RESULTS = Path(__file__).parent / "results"
MODEL = "shipped_natural"
CONTROLS = {  # how the row's controls are named in the figure
    "other canvas": "same places,\nanother photo",
    "random pixels": "random places",
    "no pattern": "no pattern",
}
EXAMPLES, SEED = 3, 0
SIZE, WIDTHS, DPI = (8.6, 2.42), (2.95, 3.15, 2.6), 220  # the whole in inches, its three parts


def measured() -> Measured:
    [row] = [row for row in read_rows(RESULTS / FILE) if row["model"] == MODEL]
    return Measured(row)


def median_class(scores: Mapping[int, Scores]) -> int:
    """The class of median power; of an even number, the lower one of the middle."""
    powers = {target: each.power.value for target, each in scores.items()}
    return next(y for y, power in powers.items() if power == median_low(powers.values()))


def before_and_after(pattern: Pattern, images: Images) -> list[StampedImages]:
    """Unseen images of other classes without and with the pattern, and the predictions."""
    model = checked(reference_of(CIFAR10), images.held_out)
    chosen = choose_images(images.held_out, pattern.target, SEED)
    unseen, labels = images.held_out.take(chosen), images.held_out.known_labels[chosen]
    shown: Sequence[Tensor] = (unseen, pattern.stamp(unseen))
    return [with_predictions(model, each, labels, CLASS_NAMES) for each in shown]


def draw(pattern: Pattern, scores: Scores, examples: Sequence[StampedImages]) -> Figure:
    """From left to right: canvas, pattern, images before and after, power and controls."""
    name = CLASS_NAMES[pattern.target]
    with rc_context(IMAGE_STYLE):
        figure = Figure(figsize=SIZE, layout="constrained")
        left, middle, right = figure.subfigures(1, 3, width_ratios=WIDTHS)
        draw_pattern(left, pattern, name)
        draw_examples(middle, examples, pattern.target)
        axis = right.subplots()
        axis.set_title(f"photos of other classes\npredicted as {name}")
        draw_bars(axis, scores)
    return figure


def draw_pattern(figure: SubFigure, pattern: Pattern, name: str) -> None:
    """The canvas, and its pixels that are the pattern."""
    titles = f"canvas:\na {name}", f"pattern:\n{percent_area(AREA)} of its pixels"
    images = pattern.canvas, on_neutral(pattern.canvas, pattern.mask)
    for axis, title, image in zip(figure.subplots(1, 2), titles, images):
        axis.set_title(title)
        axis.set_anchor("N")
        draw_image(axis, image)


def draw_examples(figure: SubFigure, examples: Sequence[StampedImages], target: int) -> None:
    """A row before and a row after, with the predictions."""
    lines = figure.subplots(2, EXAMPLES)
    lines[0, EXAMPLES // 2].set_title("unseen photos,\nand the predictions")
    for line, row, when in zip(lines, examples, ("before", "after")):
        line[0].set_ylabel(when, rotation=0, ha="right", va="center", color=QUIET)
        for axis, image, name, predicted in zip(line, row.images, row.names, row.predicted):
            draw_image(axis, image)
            hit = predicted == target
            style = {"color": HIT, "fontweight": "bold"} if hit else {}
            axis.set_xlabel(name, **style)


def draw_bars(axis: Axes, scores: Scores) -> None:
    """A bar for the power with its interval, and one for each control, the strongest first."""
    controls = sorted(scores.controls.items(), key=lambda named: -named[1])
    bars = {"pattern": scores.power.value, **{CONTROLS[name]: share for name, share in controls}}
    for place, (name, share) in enumerate(bars.items()):
        first = place == 0
        axis.barh(place, 1, color=TRACK, height=0.56)
        axis.barh(place, share, color=HIT if first else CONTROL, height=0.56)
        weight = "bold" if first else "normal"
        axis.text(-0.04, place, name, ha="right", va="center", fontweight=weight)
        end = scores.power.interval[1] if first else share
        axis.text(end + 0.03, place, percent(share, 0), va="center", fontweight=weight)
    axis.plot(scores.power.interval, [0, 0], color="black", linewidth=1.5)
    axis.set(xlim=(-0.8, 1.02), ylim=(len(bars) - 0.4, -0.6), frame_on=False)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = parser_of(__doc__)
    parser.add_argument("data", type=Path, help="folder with CIFAR-10's test/<class>/*")
    parser.add_argument("--figure", type=Path, default=Path("hero.png"))
    options = parser.parse_args(arguments)
    images, model = images_of(CIFAR10, options.data), measured()
    canvases = shared_canvases(RESULTS / f"canvases_{CIFAR10}.json", CIFAR10, images)
    scores = model.scores(POSITIVE, AREA)
    target = median_class(scores)
    pattern = patterns_of(model, canvases, frozenset())[target]
    figure = draw(pattern, scores[target], before_and_after(pattern, images))
    figure.savefig(options.figure, dpi=DPI)


if __name__ == "__main__":
    main()
