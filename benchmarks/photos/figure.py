"""The figures: a photo with a trigger, and what three methods show; what a search has found."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path

import torch
from findings import Row
from problems import PHOTO, Problem
from skimage import data
from torch import Tensor, nn

from captum_classpattern import ClassPattern, Pattern
from captum_classpattern.pages.parts import figure_png
from captum_classpattern.scores.power import Scorer
from captum_classpattern.visualization.drawing import on_neutral
from captum_classpattern.visualization.formats import percent
from captum_classpattern.visualization.grid import Cell, draw_grid
from photos import discovery
from photos.drawings import on_grey
from photos.footprint import ABSOLUTE, Map, inside, methods, of_patterns, strongest
from photos.planting import TROJANS
from photos.stamping import stamp

TROJAN, SEED, ROUNDS, CELLS = "smiley", 1, 12, 32
WIDTH, DPI = 2.2, 168
LARGE, SHOWN = 112, 56  # pixels of a drawing, and of the part of a pattern that is shown


def figure_rows(problem: Problem, model: nn.Module, out: Path) -> Sequence[Row]:
    """Draws the figure, and returns what it says. The photo is ``coffee`` (Rachel Michetti,
    CC0)."""
    target = TROJANS[TROJAN]
    photo = PHOTO(data.coffee())
    stamped, footprint = stamp(photo, TROJAN, torch.Generator().manual_seed(SEED))
    area = float(footprint.float().mean())
    names = model.class_names
    known = methods(problem, model)
    explainer = ClassPattern(model, problem.images, problem.labels)
    shown: dict[str, Map] = {
        "Integrated Gradients": known[ABSOLUTE],
        "Occlusion": known["Occlusion"],
        "class pattern": partial(of_patterns, explainer, area=area, rounds=ROUNDS, cells=CELLS),
    }
    scorer = Scorer(model, problem.parts[1])
    rows: list[Row] = []
    cells = [Cell(photo, f"predicted: {predicted(model, photo)}")]
    cells.append(Cell(stamped, f"predicted: {predicted(model, stamped)}"))
    for name, map_of in shown.items():
        binary = strongest(map_of(stamped[None], target), stamped[None], target, area)
        power = scorer.power(binary)
        figures = {"power": power.value, "n": power.n, "inside": inside(binary, footprint)}
        rows.append({"method": name, **figures})
        text = f"on other photos: {percent(power.value, 0)}"
        cells.append(Cell(on_neutral(binary), text, power.value > 0.5))
    about = {"photo": "coffee", "trojan": TROJAN, "class": names[target], "area": area}
    titles = ["photo", "with the trigger", *shown]
    drawn, _ = draw_grid([("", cells)], titles, width=WIDTH, use_pyplot=False)
    picture, _ = figure_png(drawn, DPI)
    (out / "photos.png").write_bytes(picture)
    return [{**about, **row} for row in rows]


def draw_found(problem: Problem, model: nn.Module, out: Path) -> None:
    """Draws what ``discovery`` found, next to the drawings that were planted."""
    scorer = Scorer(model, problem.parts[1])
    kinds = {discovery.CELLS: "planted", discovery.CLEANSE: "planted_cleanse"}
    rows = {"planted": [Cell(on_grey(name, LARGE)) for name in TROJANS]}
    for label, file in kinds.items():
        rows[label] = []
        for y in TROJANS.values():
            binary = Pattern.load(out / f"{file}_{y}.safetensors").topk(discovery.SHARES[0] / 1000)
            power = scorer.power(binary).value
            cell = Cell(discovery.densest(binary, SHOWN), percent(power, 0), power > 0.5)
            rows[label].append(cell)
    drawn, _ = draw_grid(rows.items(), [*TROJANS], width=1.6, use_pyplot=False)
    picture, _ = figure_png(drawn, DPI)
    (out / "photos_found.png").write_bytes(picture)


def predicted(model: nn.Module, photo: Tensor) -> str:
    with torch.no_grad():
        return str(model.class_names[int(model(photo[None]).argmax())])
