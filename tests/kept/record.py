"""What searches, scans and a comparison found, as JSON: masks as hashes, and rows.

    python tests/kept/record.py > tests/kept/kept.json

``test_kept.py`` runs this on one thread, with vector instructions that every processor has, so that
sums are rounded alike on processors of one kind. It repeats one of the five scans, which take 40 s
each (``scan``). Record again only where a change is meant to find other masks, and say so in the
changelog.
"""

import hashlib
import json
import sys
import warnings
from collections.abc import Iterable, Iterator, Sequence
from functools import cache, partial
from typing import Any

import torch
from torch import Tensor

import captum_classpattern as cp
from captum_classpattern import Cells, ClassPattern, Pattern
from captum_classpattern.optimization import Learned, PaperLoop

AREAS = [0.05, 0.01]
FULL = {"precision": "full"}


def digest(tensors: Iterable[Tensor]) -> str:
    """A hash of Tensors of float32."""
    parts = [tensor.detach().float().contiguous().numpy().tobytes() for tensor in tensors]
    return hashlib.blake2b(b"".join(parts), digest_size=8).hexdigest()


@cache
def demo() -> tuple[dict[str, cp.PixelClassifier], cp.LabelledImages, cp.LabelledImages]:
    images = cp.demo_images()
    return cp.demo_models(), images.search, images.held_out


def first(images: cp.LabelledImages, target: int, count: int) -> Tensor:
    """The first images of a class."""
    return images.images[images.labels == target][:count]


def found(patterns: Iterable[Pattern]) -> dict[str, Any]:
    patterns = [*patterns]
    return {
        "masks": digest(each.mask for each in patterns),
        "canvases": digest(each.canvas for each in patterns),
        "search_power": [round(each.info["search_power"], 6) for each in patterns],
    }


def searches() -> Iterator[tuple[str, dict[str, Any]]]:
    """Ten searches: solvers, kinds of canvas, features, pools, several areas and classes."""
    models, images, _ = demo()

    def of_class(target: int, count: int = 2) -> Tensor:
        return first(images, target, count)

    def search(name: str, canvases: Tensor, target: Any, **settings: Any) -> list[Pattern]:
        explainer = ClassPattern(models[name], images)
        return explainer.search(canvases, target, **{"n_steps": 6, **FULL, **settings})

    white = torch.ones(1, 1, 28, 28)
    yield "swap, two canvases", found(search("natural", of_class(8), "Bag"))
    yield "swap, white", found(search("backdoored", white, 0, area=0.01, seed=1))
    yield "a pool", found(search("natural", of_class(1, 8), 1, keep=2))
    mixed = torch.cat([of_class(0, 1), of_class(5, 1)])
    yield "two classes", found(search("robust", mixed, [0, 5]))
    yield "cells", found(search("natural", of_class(3, 1), 3, area=0.1, feature_mask=Cells(14)))
    yield "the paper's loop", found(search("natural", of_class(2, 1), 2, solver=PaperLoop()))
    yield (
        "a pool and a budget",
        found(search("robust", of_class(4, 4), 4, keep=1, n_steps=None, budget=800)),
    )
    learned = search("backdoored", torch.full_like(white, 0.5), 0, area=0.02, solver=Learned())
    yield "learned colours", found(learned)
    explainer = ClassPattern(models["natural"], images)
    areas = explainer.search(of_class(7), 7, area=AREAS, n_steps=6, **FULL)
    yield "two areas", found(each for area in AREAS for each in areas[area])
    masks = explainer.attribute(of_class(9), 9, n_steps=6, **FULL)
    yield "attribute", {"masks": digest(masks)}


SCANS = (("backdoored", 0), ("natural", 0), ("robust", 0), ("backdoored", 1), ("natural", 1))


def scans(chosen: Sequence[tuple[str, int]] = SCANS) -> Iterator[tuple[str, dict[str, Any]]]:
    """Five scans of the demo's models."""
    models, images, _ = demo()
    for name, seed in chosen:
        scan = cp.scan(models[name], images, seed=seed, **FULL)
        standings = scan.decision.standings
        yield (
            f"{name}, seed {seed}",
            {
                "verdict": scan.verdict,
                "target": scan.target_name,
                "kind": scan.kind,
                "leads": {kind: round(each.lead, 4) for kind, each in standings.items()},
                "powers": {kind: round(each.power, 6) for kind, each in standings.items()},
                "masks": digest(scan.shown(kind).pattern.mask for kind in standings),
            },
        )


def comparison() -> Iterator[tuple[str, dict[str, Any]]]:
    """Four methods on two canvases of two models: the power of each."""
    models, images, held_out = demo()
    canvases = torch.cat([first(images, target, 1) for target in (0, 8)])
    names = ("ClassPattern", "IntegratedGradients", "Occlusion", "RandomPixels", "BestRandomMask")
    compared = cp.compare(
        {name: models[name] for name in ("natural", "backdoored")},
        canvases,
        [0, 8],
        search=images,
        held_out=held_out,
        methods=cp.known_methods(images, names=names, n_steps=4, **FULL),
        areas=(0.01, 0.05),
        stamped=1,
        max_images=100,
        n_seeds=1,
    )
    for record in compared.records:
        powers = {f"{area:g}": round(each.value, 6) for area, each in record.powers.items()}
        yield f"{record.model}, {record.method}, canvas {record.canvas}", powers


PARTS = {"searches": searches, "scans": scans, "comparison": comparison}
ONE = {"scan": partial(scans, SCANS[:1])}

if __name__ == "__main__":
    warnings.simplefilter("error")
    torch.set_num_threads(1)
    result = {part: dict({**PARTS, **ONE}[part]()) for part in sys.argv[1:] or PARTS}
    print(json.dumps(result, indent=1))
