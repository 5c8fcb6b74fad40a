"""The figure of docs/index.md: three classes of the demo's backdoored model.

The classes are the backdoored one, the strongest of the others, and the weakest, on white canvases
with 1 % of the pixels. The trigger's place is boxed. It prints the row of each class.
"""

import json
from collections.abc import Sequence
from pathlib import Path

from findings import kept_survey, parser_of
from matplotlib.figure import Figure

from captum_classpattern import plot_patterns
from captum_classpattern.demo import CLASS_NAMES, demo_images, demo_models, demo_trigger
from captum_classpattern.surveys import Finding, Survey

MODEL, CANVAS, AREA, ROUNDS = "backdoored", "white", 0.01, 6
DPI = 144


def three_classes(found: Survey) -> list[Finding]:
    """The trigger's class, the strongest of the others, and the weakest."""
    of_class = {each.target: each for each in found if each.canvas == CANVAS}
    suspect = of_class.pop(demo_trigger().target)
    others = sorted(of_class.values(), key=lambda each: each.scores[AREA].power.value)
    return [suspect, others[-1], others[0]]


def draw(shown: Sequence[Finding]) -> Figure:
    figure, _ = plot_patterns(
        demo_models()[MODEL],
        [each.patterns[AREA] for each in shown],
        demo_images().held_out,
        area=AREA,
        powers=[each.scores[AREA] for each in shown],
        trigger=demo_trigger(),
        use_pyplot=False,
    )
    return figure


def main(arguments: Sequence[str] | None = None) -> None:
    parser = parser_of(__doc__)
    parser.add_argument("folder", type=Path, help="where the survey is kept")
    parser.add_argument("--figure", type=Path, help="also draw the figure")
    options = parser.parse_args(arguments)
    images, areas = demo_images(), (0.05, AREA)
    search = {"canvases": CANVAS, "areas": areas, "n_steps": ROUNDS, "classes_together": 10}
    shown = three_classes(
        kept_survey(options.folder, demo_models()[MODEL], images.search, images.held_out, **search)
    )
    for each in shown:
        row = {"class": each.target, "class_name": CLASS_NAMES[each.target], "canvas": CANVAS}
        scores = each.scores[AREA]
        power = {**scores.as_dict(), "beats_controls": scores.beats_controls}
        print(json.dumps({**row, "area": AREA, **power}))
    if options.figure:
        draw(shown).savefig(options.figure, dpi=DPI)


if __name__ == "__main__":
    main()
