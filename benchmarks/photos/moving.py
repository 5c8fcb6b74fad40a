"""Moving patches on photographs: of clean classes and of trojans."""

from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import torch
from checking import checked
from findings import Row, kept_survey
from problems import LITE_SIZES, read_photos
from torch import Tensor, nn
from torch.nn.functional import interpolate

import captum_classpattern
from captum_classpattern import ClassPattern, LabelledImages
from captum_classpattern.classifier import CheckedModel
from captum_classpattern.classifier.fingerprints import hash_of_weights
from captum_classpattern.optimization.solvers.moving import MovingPatch
from captum_classpattern.pattern import MovingPattern
from captum_classpattern.scores.power import SQUARES, Scorer, best_of
from photos.likeness import picture_of, rank_of_eight, seeded
from photos.planting import LATER, NETWORKS, NUMBERS, load
from photos.stamping import edges, stamp_all

HELD_OUT = 3  # every third photo scores
COUNT, DRAWN_BY = 50, 70  # clean classes, and the seed that draws them
OF_0_4 = 52  # the seed that drew the classes of version 0.4
# classes on which patches were tried: zebra, castle, soccer ball, tench, tiger beetle, Tibetan
# terrier, black swan, hook, academic gown, cliff dwelling, cucumber, snail, sarong, pencil box,
# submarine
LOOKED_AT = (340, 483, 805, 0, 300, 200, 100, 600, 400, 500, 943, 113, 775, 709, 833)
SEEDS = (0, 1)
FOUND = ("planted", "small", "large", "few", "four", "last", "second twin")
TROJAN = MovingPatch(32, opacity=0.5, scale=(0.8, 1.1), angle=15.0)
STAMPED = 10  # photos whose edges are judged
NATURAL = (  # how many of the clean classes are searched, with which side and seed
    (COUNT, 96, 0),
    (10, 64, 0),
    (COUNT, 96, 1),
    (10, 32, 0),
)
FOLDER, FILE = "natural_{}_{}_{}", "found_{}_{}.safetensors"  # of surveys; of a trojan's patch
TOGETHER = 10  # classes of one survey


def photo_parts(folder: Path, network: str = "plain") -> tuple[LabelledImages, LabelledImages]:
    """The photos to search with, two of three, and those to score on, as a network takes them."""
    images, labels = read_photos(folder, LITE_SIZES[NUMBERS.get(network, 0)])
    scores = torch.arange(len(images)) % HELD_OUT == HELD_OUT - 1
    return LabelledImages(images[~scores], labels[~scores]), LabelledImages(
        images[scores], labels[scores]
    )


def about(network: str, model: nn.Module) -> Row:
    """What a row depends on."""
    version = captum_classpattern.__version__
    return {"network": network, "model": hash_of_weights([model], []), "version": version}


def found_rows(network: str, photos: Path, out: Path, done: set) -> Iterator[list[Row]]:
    """A patch of each planted class, its power on photos that no search has seen, and where its
    drawing comes among eight. The control are the edges of stamped photos."""
    model, (search, held_out) = load(network, out), photo_parts(photos)
    scorer, explainer = Scorer(checked(model, held_out), held_out), ClassPattern(model, search)
    settings = (NETWORKS | LATER)[network]
    for name, y in settings.trojans.items():
        if (network, name) in done:
            continue
        [patch] = explainer.search(target=y, solver=TROJAN)
        power = scorer.power(patch)
        stamped, _ = stamp_all(held_out.images[:STAMPED], name, 0, settings.sides)
        outlines = [edges(photo).float().expand(3, -1, -1) for photo in stamped]
        ranks = {each: rank_of_eight(picture_of(patch), name, each) for each in NUMBERS}
        of_edges = {
            each: [rank_of_eight(1 - shown / shown.max(), name, each) for shown in outlines]
            for each in NUMBERS
        }
        row = {**about(network, model), "trojan": name, "class": y, "seed": 0, "n": power.n}
        row |= {"power": power.value, "without": power.without, "ranks": ranks, "edges": of_edges}
        patch.save(out / FILE.format(network, name))
        yield [{**row, "passes": patch.info["passes_together"]}]


def natural_classes(search: LabelledImages) -> list[int]:
    """Clean classes, drawn at random from those with a photo to search with that nobody has looked
    at."""
    known = sorted(set(search.known_labels.tolist()))
    before, now = (torch.randperm(len(known), generator=seeded(n)) for n in (OF_0_4, DRAWN_BY))
    seen = {*LOOKED_AT, *(known[i] for i in before[:COUNT].tolist())}
    return [known[i] for i in now.tolist() if known[i] not in seen][:COUNT]


def natural_rows(
    photos: Path, out: Path, classes: Sequence[int], side: int, seed: int, done: set
) -> Iterator[list[Row]]:
    """Patches of clean classes in the published network: their power anywhere, with controls, at
    nine places, in other networks, and whether another network names the class."""
    model, (search, held_out) = load("plain", out), photo_parts(photos)
    size = LITE_SIZES[0]
    settings = {"canvases": "patch", "areas": [(side / size) ** 2], "seed": seed}
    folder = out / FOLDER.format(side, seed, classes[0])
    found = kept_survey(folder, model, search, held_out, classes=classes, **settings)
    own = Scorer(checked(model, held_out), held_out)
    others = {name: resized(load(name, out), LITE_SIZES[NUMBERS[name]]) for name in NUMBERS}
    scorers = {name: Scorer(checked(other, held_out), held_out) for name, other in others.items()}
    for finding in found:
        if (finding.target, side, seed) in done:
            continue
        patch, scores = finding.pattern, finding.scores[finding.area]
        collage = best_collage(own.model, patch, search, seed)
        yield [
            {
                **about("plain", model),
                **{"class": finding.target, "class_name": finding.label, "seed": seed},
                "side": patch.side,
                **scores.as_dict(),
                "beats_controls": scores.beats_controls,
                "collage": own.power(collage, seed).value,
                "passes": patch.info["passes_together"],
                "grid": [own.power(patch.at(*place)).value for place in patch.grid().tolist()],
                "transfer": {name: each.power(patch).value for name, each in scorers.items()},
                "named": {name: place_of(other, patch) for name, other in others.items()},
            }
        ]


def best_collage(
    model: CheckedModel, patch: MovingPattern, search: LabelledImages, seed: int
) -> MovingPattern:
    """A control, after Herdt et al. 2025 (arXiv 2502.03422): of 32 squares, each of four parts of
    photos of other classes, the one that raises the mean margin most on 12 other photos."""
    chance, half = np.random.default_rng([seed, patch.target]), patch.side // 2
    others, collages = search.without_class(patch.target), list[MovingPattern]()
    for _ in range(SQUARES):
        photos = others.take(chance.choice(len(others), 4, replace=False).tolist())
        rooms = [size - half + 1 for size in photos.shape[2:]]
        corners = [[int(chance.integers(room)) for room in rooms] for _ in photos]
        cut = [x[:, y : y + half, z : z + half] for x, (y, z) in zip(photos, corners)]
        rows = [torch.cat(pair, 2) for pair in (cut[:2], cut[2:])]
        colours = torch.cat(rows, 1)
        opaque = torch.ones_like(colours[:1])
        collages.append(MovingPattern(colours, opaque, patch.target, size=patch.size))
    return best_of(model, collages, others, seed)


def resized(model: nn.Module, size: int) -> nn.Module:
    """A network that takes larger photos, over those of the published one."""
    enlarge = partial(interpolate, size=(size, size), mode="bilinear", antialias=True)
    return nn.Sequential(Change(enlarge), model).eval()


class Change(nn.Module):
    """A function as a layer."""

    def __init__(self, change: partial[Tensor]) -> None:
        super().__init__()
        self.change = change

    def forward(self, images: Tensor) -> Tensor:
        return self.change(images).clamp(0, 1)


def place_of(model: nn.Module, patch: MovingPattern) -> int:
    """Where the class comes among all that a network sees in the patch on grey, from 1."""
    middle = patch.grid()[4].tolist()
    with torch.no_grad():
        [logits] = model(patch.stamp(torch.full((1, *patch.image_shape), 0.5), middle))
    return 1 + int((logits > logits[patch.target]).sum())
