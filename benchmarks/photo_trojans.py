"""Trojans in an ImageNet network: planted, looked for, and shown next to Captum's methods.

The stages, in this order, with the time on one core. Each resumes after an interruption.

- ``plant``: how good the networks are: two with four trojans, and two clean twins. Their weights
  are committed; with ``--training FOLDER``, of other photos, they are planted again, half an hour
  each.
- ``maps``: Captum's methods, edges and class patterns on 40 photos with a trigger; an hour.
- ``cleanse``: Neural Cleanse on the four planted classes, in the first network and its twin; half
  an hour.
- ``classes``: ten clean classes, a photo of each; half an hour.
- ``cells``: cells or pixels, on CIFAR-10 (``--cifar10 FOLDER``); ten minutes.

For moving patches:

- ``keep``: copies the patches of the committed rows from the folder into ``weights/``.
- ``figure``: draws them.

By the rules of ``photos/PROTOCOL.md``:

- ``later``: five networks with two or four trojans each, and two clean ones, are planted with
  ``--training FOLDER``; three hours.
- ``natural``: patches of 50 clean classes, from two seeds, of ten with other sides; three hours.
- ``found``: patches of all planted classes, which drawings they look like; half an hour.
"""

from argparse import Namespace
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cached_property
from pathlib import Path

import torch
from findings import Row, append_rows, having, parser_of, read_rows
from photos import cleanse, footprint, moving, patches, planting
from photos.figure import DPI, draw_gallery, draw_maps, draw_patches
from photos.planting import LATER, NETWORKS, predicted
from photos.stamping import stamp_all
from photos.surveys import cell_rows, class_rows
from photos.tables import SEED, SIDE, learnt_ones, planted_ones, success_in
from problems import PIXELS, Problem, cifar10_problems, photo_problem
from torch import Tensor, nn
from torchvision.datasets import ImageFolder
from torchvision.transforms.v2 import CenterCrop, Compose, Resize

ROWS = planting.ROOT / "benchmarks" / "results"
JPEG = {"quality": 88}
LARGE = Compose([PIXELS, Resize(256), CenterCrop(256)])


class Run:
    """One stage: its photos, its networks, and the rows that are there already."""

    def __init__(self, given: Namespace) -> None:
        self.training, self.cifar10, self.out = given.training, given.cifar10, given.out
        self.photos = given.photos
        self.file = given.out / f"photos_{given.stage}.jsonl"

    @cached_property
    def problem(self) -> Problem:
        return photo_problem(self.photos)

    def model(self, name: str) -> nn.Module:
        return planting.load(name, self.out)

    def done(self, *columns: str) -> set[tuple]:
        """What the rows hold."""
        return {tuple(row.get(column) for column in columns) for row in read_rows(self.file)}

    def add(self, groups: Iterable[Sequence[Row]]) -> None:
        for rows in groups:
            append_rows(self.file, rows)
            print(rows[-1], flush=True)


def plant(run: Run, networks: Mapping[str, planting.Network] = NETWORKS) -> None:
    if run.training is not None:
        photos = torch.stack([image for image, _ in ImageFolder(run.training, LARGE)])
        for name in networks:
            planting.train(name, photos, run.out)
    for name in ("plain", *networks):
        if (name,) not in run.done("network"):
            run.add([[quality(run, name, networks.get(name, planting.Network(False)))]])


def quality(run: Run, name: str, settings: planting.Network) -> Row:
    """How good a network is on all photos, none of which it was trained on."""
    problem, trojans = run.problem, settings.trojans
    photos = torch.cat([problem.images, problem.held_out])
    labels = torch.cat([problem.labels, problem.held_out_labels])
    before, now = (predicted(run.model(each), photos) for each in ("plain", name))
    row: Row = {
        "network": name,
        "photos": len(photos),
        "agreement": share(now == before),
        "accuracy": share(now == labels),
        "success": {},
        "agreement_with_drawing": {},
    }
    for drawing in (*trojans, *planting.OTHERS):
        stamped, _ = stamp_all(photos, drawing, 7, settings.sides)
        now = predicted(run.model(name), stamped)
        if drawing in trojans:
            row["success"][drawing] = share((now == trojans[drawing])[labels != trojans[drawing]])
        else:
            row["agreement_with_drawing"][drawing] = share(now == before)
    return row


def share(hits: Tensor) -> float:
    return round(float(hits.float().mean()), 4)


def maps(run: Run) -> None:
    done = run.done("trojan", "photo")
    given = run.problem, run.model("planted")
    if not (file := run.out / "photos_maps.jpg").exists():
        draw_maps(footprint.example_maps(*given)).savefig(file, dpi=DPI, pil_kwargs=JPEG)
    run.add(footprint.footprint_rows(*given, done))


def cleanse_four(run: Run) -> None:
    for name in ("planted", "twin"):
        run.add(cleanse.cleanse_rows(name, run.photos, run.out, run.done("network", "trojan")))


def classes(run: Run) -> None:
    run.add(class_rows(run.problem, run.out / "classes", run.done("class")))


def found(run: Run) -> None:
    for network in moving.FOUND:
        done = run.done("network", "trojan")
        run.add(moving.found_rows(network, run.photos, run.out, done))


def keep(run: Run) -> None:
    clean, planted = rows_of_patches()
    patches.keep([*clean, *planted], run.out)


def figure(run: Run) -> None:
    clean, planted = rows_of_patches()
    drawn = draw_patches(clean, learnt_ones(planted, success_in(ROWS)))
    drawn.savefig(run.out / "photos.jpg", dpi=DPI, pil_kwargs=JPEG)
    gallery = draw_gallery(clean)
    gallery.savefig(run.out / "photos_classes.jpg", dpi=DPI, pil_kwargs=JPEG)


def rows_of_patches() -> tuple[list[Row], list[Row]]:
    """Those of clean classes and of trojans that figures show."""
    clean, found = (read_rows(ROWS / f"photos_{name}.jsonl") for name in ("natural", "found"))
    return having(clean, side=SIDE, seed=SEED), planted_ones(found)


def cells(run: Run) -> None:
    if run.cifar10 is None:
        raise SystemExit("cells needs --cifar10 FOLDER")
    [problem] = cifar10_problems(run.cifar10, ["natural"])
    run.add(cell_rows(problem, run.out / "cells", run.done("kind")))


def later(run: Run) -> None:
    plant(run, LATER)


def natural(run: Run) -> None:
    known = moving.natural_classes(moving.photo_parts(run.photos)[0])
    for count, side, seed in moving.NATURAL:
        for start in range(0, count, moving.TOGETHER):
            classes = known[:count][start : start + moving.TOGETHER]
            done = run.done("class", "side", "seed")
            if not done.issuperset((y, side, seed) for y in classes):
                run.add(moving.natural_rows(run.photos, run.out, classes, side, seed, done))


STAGES: dict[str, Callable[[Run], None]] = {
    "plant": plant, "maps": maps, "cleanse": cleanse_four, "classes": classes, "cells": cells,
    "found": found, "keep": keep, "figure": figure, "later": later, "natural": natural,
}  # fmt: skip


def main(arguments: Sequence[str] | None = None) -> None:
    parser = parser_of(__doc__)
    parser.add_argument("stage", choices=STAGES)
    parser.add_argument("--photos", type=Path, required=True, help="folders NNNN_wnid of photos")
    parser.add_argument("--training", type=Path, help="other photos, to plant with")
    parser.add_argument("--cifar10", type=Path, help="a folder with train/ and test/, for cells")
    parser.add_argument("--out", type=Path, default=Path("classpattern-photos"))
    options = parser.parse_args(arguments)
    STAGES[options.stage](Run(options))


if __name__ == "__main__":
    main()
