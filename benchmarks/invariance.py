"""How far can patterns be moved, thinned out or blurred before they lose half of their power?

It searches the strongest pattern of each class of the CIFAR-10 models, and measures its power on
held-out images under the transforms of torchvision; a backdoored model's trigger is also measured.
Without ``--cifar10``, it takes the demo's models. It resumes after an interruption.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from statistics import fmean
from typing import Any, NamedTuple

import torch
from checking import checked
from cifar10 import InBfloat16
from findings import Row, Table, append_rows, head, line, parser_of_rows, read_rows, report
from matplotlib.figure import Figure
from problems import Problem, cifar10_problems, demo_problems, train_cifar10
from torch import Tensor, nn
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import functional as F

from captum_classpattern import ClassPattern, LabelledImages, Pattern, select_canvases
from captum_classpattern.demo import TRIGGER_TARGET
from captum_classpattern.scores import Scores
from captum_classpattern.scores.power import Scorer, power_of, random_pixels
from captum_classpattern.triggers import BadNets
from captum_classpattern.visualization.style import CONTROL, HIGHLIGHTS, OTHERS

CIFAR10_MODELS = ("natural", "backdoored", "robust8")
TARGETS = {"demo, backdoored": TRIGGER_TARGET, "CIFAR-10, backdoored": train_cifar10.TARGET}
AREA, CANVASES, CLASSES, IMAGES = 0.05, 32, 5, 200
DRAWS = 3  # of random pixels
DIRECTIONS = ((0, 1), (1, 0), (0, -1), (-1, 0))  # right, down, left, up

# Paul Tol's "muted" colours, which colour-blind readers can tell apart
COLOURS = (*OTHERS[:2], *HIGHLIGHTS[:2], OTHERS[3], OTHERS[2])

# ---- transforms of a pattern: its canvas and its mask move together, outside it is empty


def affine(pattern: Pattern, angle: float = 0.0, scale: float = 1.0, x: int = 0, y: int = 0) -> Any:
    """Moves a pattern; turns and scales are about the pixel nearest to its centre of mass."""
    row, column = pattern.mask[0].nonzero().double().mean(0).add(0.5).floor().tolist()
    parts = F.affine(
        torch.cat([pattern.canvas, pattern.mask]),
        *(angle, [x, y], scale, [0.0, 0.0]),
        interpolation=InterpolationMode.NEAREST,
        center=[column + 0.5, row + 0.5],
    )
    return replace(pattern, canvas=parts[:-1], mask=parts[-1:])


def shift(pattern: Pattern, value: int, direction: tuple[int, int]) -> Pattern:
    return affine(pattern, x=value * direction[1], y=value * direction[0])


def wrapped_shift(pattern: Pattern, value: int, direction: tuple[int, int]) -> Pattern:
    """What leaves the image comes back on the opposite side."""
    steps = [value * step for step in direction]
    canvas, mask = (part.roll(steps, (1, 2)) for part in (pattern.canvas, pattern.mask))
    return replace(pattern, canvas=canvas, mask=mask)


def lose_pixels(pattern: Pattern, value: float, draw: int) -> Pattern:
    """Removes a share of the pixels at random; a larger share also removes those of a smaller."""
    mask, places = pattern.mask.flatten().clone(), pattern.mask.flatten().nonzero().flatten()
    order = torch.randperm(len(places), generator=torch.Generator().manual_seed(draw))
    mask[places[order[: round(value * len(places))]]] = 0
    return replace(pattern, mask=mask.view_as(pattern.mask))


# ---- all transforms


def blur(images: Tensor, value: float, _: None) -> Tensor:
    return F.gaussian_blur(images, [2 * math.ceil(3 * value) + 1] * 2, [value] * 2)


def jpeg(images: Tensor, value: int, _: None) -> Tensor:
    return F.jpeg((255 * images).round().byte(), value) / 255


class Transform(NamedTuple):
    """Its values, the one that changes nothing, its variants, and the function of a pattern or of
    stamped images, a value and a variant."""

    values: Sequence[float]
    unit: str
    rest: float
    function: Callable[[Any, Any, Any], Any]
    variants: Sequence[Any] = (None,)
    of_images: bool = False


SHIFTS, FACTORS = (0, 1, 2, 3, 4, 6, 8, 12), (0.25, 0.5, 0.75, 1, 1.25, 1.5, 2)
SCALES, ANGLES = (0.5, 0.7, 0.85, 1, 1.2, 1.5, 2), (0, 5, 10, 20, 30, 45, 90, 180)
LOSSES, SIGMAS = (0, 0.1, 0.25, 0.5, 0.75, 0.9), (0, 0.5, 0.75, 1, 1.5, 2, 3)
HUES, QUALITIES = (0, 15, 30, 60, 90, 120, 180), (5, 15, 30, 50, 75, 90, 100)
SHARE, SIGMA, SIGNS, ONE = "share of the pixels", "standard deviation, pixels", (1, -1), (None,)
TRANSFORMS = {
    "shift": Transform(SHIFTS, "pixels", 0, shift, DIRECTIONS),
    "wrapped shift": Transform(SHIFTS, "pixels", 0, wrapped_shift, DIRECTIONS),
    "scale": Transform(SCALES, "times", 1, lambda p, v, _: affine(p, scale=v)),
    "rotation": Transform(ANGLES, "degrees", 0, lambda p, v, s: affine(p, angle=s * v), SIGNS),
    "pixel loss": Transform(LOSSES, SHARE, 0, lose_pixels, (0, 1, 2)),
    "brightness": Transform(
        FACTORS, "times", 1, lambda x, v, _: F.adjust_brightness(x, v), ONE, True
    ),
    "contrast": Transform(FACTORS, "times", 1, lambda x, v, _: F.adjust_contrast(x, v), ONE, True),
    "hue": Transform(HUES, "degrees", 0, lambda x, v, s: F.adjust_hue(x, s * v / 360), SIGNS, True),
    "blur": Transform(SIGMAS, SIGMA, 0, blur, ONE, True),
    "JPEG": Transform(QUALITIES, "quality", 100, jpeg, ONE, True),
}

# ---- measuring


class Changed(nn.Module):
    """A classifier of images that are changed first."""

    def __init__(self, model: nn.Module, change: Callable[..., Tensor], *how: Any) -> None:
        super().__init__()
        self.model, self.change, self.how = model, change, how

    def forward(self, images: Tensor) -> Tensor:
        return self.model(self.change(images, *self.how))


def scores_at(plain: Scorer, binary: Pattern, transform: Transform, value: float) -> Scores:
    """The power of a binary pattern and of as many random pixels of its canvas, and the rate
    without a pattern, all under the same transform: means over its variants."""
    found, at_random = [], []
    rests, moves = value == transform.rest, not transform.of_images
    variants = transform.variants[:1] if rests else transform.variants
    for i in range(max(len(variants), DRAWS)):
        patterns, scorer = [binary, random_pixels(binary, binary.area, i % DRAWS)], plain
        variant = variants[i % len(variants)]
        if moves and not rests:
            patterns = [transform.function(each, value, variant) for each in patterns]
        elif not rests:
            classifier = Changed(plain.model.logits, transform.function, value, variant)
            scorer = Scorer(checked(classifier.eval(), plain.images), plain.images)
        if i < len(variants):
            found.append(scorer.power(patterns[0]))
        at_random.append(scorer.power(patterns[1]).value)
    n = found[0].n
    hits, bare = (n * fmean(getattr(p, name) for p in found) for name in ("value", "without"))
    return Scores(power_of(hits, n, bare), fmean(at_random))


def half_power(margins: dict[float, float], rest: float) -> dict[str, float | bool]:
    """The largest range of values around the one at rest in which at least half of the margin at
    rest is left, linear between neighbours; it is open where it ends at the last tested value."""
    half = margins[rest] / 2
    ends: dict[str, float | bool] = {}
    sides = {
        "low": [v for v in margins if v <= rest][::-1],
        "high": [v for v in margins if v >= rest],
    }
    for name, outwards in sides.items():
        ends[name], ends[f"open_{name}"] = outwards[-1], len(outwards) > 1
        for near, far in pairwise(outwards):
            above, below = margins[near], margins[far]
            if below < half:
                ends[name] = near + (above - half) / (above - below) * (far - near)
                ends[f"open_{name}"] = False
                break
    return ends


def row_of(problem: Problem, pattern: Pattern, name: str) -> Row:
    """The powers of a binary pattern along a transform, and what is kept of its margin above the
    stronger control; None unless the power at rest is above both."""
    transform, images = TRANSFORMS[name], LabelledImages(*problem[4:]).stratified_sample(IMAGES)
    scorer = Scorer(checked(problem.model, images), images)
    found = {v: scores_at(scorer, pattern, transform, v) for v in transform.values}
    margins = {v: each.power.value - each.strongest_control for v, each in found.items()}
    rests, is_above = margins[transform.rest], found[transform.rest].beats_controls
    return {
        "model": problem.name,
        "class": pattern.target,
        "transform": name,
        "unit": transform.unit,
        "rest": transform.rest,
        "images": found[transform.rest].power.n,
        "values": list(found),
        "power": [each.power.value for each in found.values()],
        "random_pixels": [each.random_pixels for each in found.values()],
        "no_pattern": [each.power.without for each in found.values()],
        "kept": [margin / rests if is_above else None for margin in margins.values()],
        "half_power": half_power(margins, transform.rest) if is_above else None,
    }


def pattern_of(problem: Problem, target: int, is_trigger: bool) -> Pattern:
    """The true trigger, or the strongest pattern of a class."""
    if is_trigger:
        return BadNets(tuple(problem.images.shape[1:])).pattern(target)
    parts = problem.model, problem.images, problem.labels
    n = min(CANVASES, int((problem.labels == target).sum()))
    canvases = select_canvases(*parts, target=target, n=n)
    [pattern] = ClassPattern(*parts).search(canvases, target, area=AREA, keep=1)
    return pattern.topk(AREA)


def measure(problems: Sequence[Problem], out: Path) -> None:
    """Appends the rows that the file lacks."""
    key = "model", "class", "is_trigger", "transform"
    done = {tuple(row[name] for name in key) for row in read_rows(out)}
    for problem in problems:
        patterns = [(y, False) for y in problem.classes[:CLASSES]]
        patterns += [(y, True) for name, y in TARGETS.items() if name == problem.name]
        names = [name for name in TRANSFORMS if name != "hue" or problem.images.shape[1] == 3]
        for which in patterns:
            missing = [name for name in names if (problem.name, *which, name) not in done]
            if missing:
                print(f"measuring {problem.name}, {'trigger, ' * which[1]}class {which[0]}")
                pattern = pattern_of(problem, *which)
                rows = (row_of(problem, pattern, name) for name in missing)
                append_rows(out, ({**row, "is_trigger": which[1]} for row in rows))


# ---- tables and figure


def tables(rows: Sequence[Row]) -> list[Table]:
    return [("Where half of the predictive power stays", ranges(rows))]


def ranges(rows: Sequence[Row]) -> Iterator[str]:
    """For each transform the mean range over which half of the power stays."""
    names = [name for name, _ in groups(rows)]
    yield head("transform", "unit", *names)
    for transform in dict.fromkeys(row["transform"] for row in rows):
        of_transform = [row for row in rows if row["transform"] == transform]
        by_name = dict(groups(of_transform))
        ranges = (mean_range(by_name.get(name, ())) for name in names)
        yield line(transform, of_transform[0]["unit"], *ranges)


def mean_range(rows: Sequence[Row]) -> str:
    """The mean ends of the ranges, and how many patterns are above their controls if some are
    not; a plus sign marks an end that some pattern reaches without losing half of its power."""
    ends = [row["half_power"] for row in rows if row["half_power"] is not None]
    if not ends:
        return ""
    low, high = (fmean(half[end] for half in ends) for end in ("low", "high"))
    signs = ("+" if any(half[f"open_{end}"] for half in ends) else "" for end in ("low", "high"))
    text = " to ".join(f"{end:.3g}{sign}" for end, sign in zip((low, high), signs))
    return text if len(ends) == len(rows) else f"{text} ({len(ends)} of {len(rows)})"


def groups(rows: Sequence[Row]) -> Iterator[tuple[str, list[Row]]]:
    """The rows of each model, those of a backdoor's class and trigger apart."""
    found: dict[str, list[Row]] = {}
    for row in rows:
        backdoor, name = TARGETS.get(row["model"]), row["model"]
        if backdoor is not None:
            is_its = f"class {backdoor}" if row["class"] == backdoor else "other classes"
            name += ", its trigger" if row["is_trigger"] else f", {is_its}"
        found.setdefault(name, []).append(row)
    return iter(found.items())


def picture(rows: Sequence[Row]) -> Figure:
    """A panel for each transform: the share of the power that stays, a line for each group."""
    figure = Figure((9.5, 7), layout="constrained")
    panels = figure.subplots(3, 4, sharey=True)
    for axis in panels.flat[len(TRANSFORMS) :]:
        axis.remove()
    for axis, (transform, (_, unit, *_)) in zip(panels.flat, TRANSFORMS.items()):
        of_transform = [row for row in rows if row["transform"] == transform]
        for (name, group), color in zip(groups(of_transform), COLOURS):
            above = [row for row in group if row["half_power"] is not None]
            if above:
                kept = [fmean(values) for values in zip(*(row["kept"] for row in above))]
                axis.plot(above[0]["values"], kept, color=color, marker="o", ms=3.5, label=name)
        axis.axhline(0.5, color=CONTROL, linestyle=(0, (5, 2)), linewidth=1, zorder=1)
        axis.set_title(transform, fontsize=11, fontweight="bold")
        axis.set_xlabel(unit, fontsize=9)
        axis.set(ylim=(-0.15, 1.2), yticks=[0, 0.5, 1], yticklabels=["0", "50 %", "100 %"])
        axis.spines[["top", "right"]].set_visible(False)
        axis.tick_params(labelsize=9)
    figure.supylabel("power that stays", fontsize=9)
    lines, names = panels.flat[0].get_legend_handles_labels()
    figure.legend(lines, names, loc="outside lower center", ncols=3, frameon=False, fontsize=10)
    return figure


def main(arguments: Sequence[str] | None = None) -> None:
    parser = parser_of_rows(__doc__, "invariance")
    parser.add_argument("--cifar10", type=Path, help="folder with test/<class>/; else the demo")
    given = parser.parse_args(arguments)
    if not given.rows:
        problems = demo_problems()
        if given.cifar10:  # in bfloat16, as they were trained
            problems = [
                problem._replace(model=InBfloat16(problem.model).eval())
                for problem in cifar10_problems(given.cifar10, CIFAR10_MODELS)
            ]
        measure(problems, given.out)
    report(given, tables, picture)


if __name__ == "__main__":
    main()
