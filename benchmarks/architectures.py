"""Seven architectures on Fashion-MNIST: does a pattern need a deep network?

It trains three models of each, searches the patterns of all classes on the same canvases, and
stamps the patterns of each model on the images of each other. It resumes after an interruption.
"""

from collections.abc import Iterator, Mapping, Sequence
from itertools import product
from pathlib import Path
from statistics import fmean
from typing import NamedTuple

import torch
from architecture_models import NETWORKS, TEACHER, softened, trained
from architecture_rows import POSITIVE, WHITE, packed, unpacked
from architecture_tables import draw, tables
from demo_training import load_split
from findings import Row, append_rows, having, parser_of_rows, read_rows, report
from problems import transfer_powers
from torch import Tensor
from torch.nn import functional as F

from captum_classpattern import ClassPattern, LabelledImages, Pattern, PixelClassifier
from captum_classpattern.scores import Scores
from captum_classpattern.scores.power import random_pixels

AREA, DRAWS, SEEDS, BUDGET = 0.05, 3, 3, 6_000  # DRAWS: of random pixels; passes per class
SEARCH, HELD_OUT = 2_000, 400  # test images
DIGITS = 5  # of the shares in the rows


class Key(NamedTuple):
    """A trained model."""

    network: str
    seed: int


class Canvas(NamedTuple):
    """A canvas for a class. A positive one has the number of its test image."""

    kind: str
    target: int
    image: int | None
    pixels: Tensor


class Images(NamedTuple):
    """The images of all searches, and those of all scores."""

    search: LabelledImages
    held_out: LabelledImages

    @classmethod
    def read(cls, data: Path) -> "Images":
        """The first test images, and the next ones, without exact copies of the first."""
        images, labels = load_split(data, "t10k")
        search = LabelledImages(images[:SEARCH], labels[:SEARCH])
        others = LabelledImages(images[SEARCH:], labels[SEARCH:]).without(search)
        return cls(search, others.subset(range(HELD_OUT)))


def choose_canvases(
    models: Mapping[Key, PixelClassifier], images: LabelledImages
) -> Iterator[Canvas]:
    """For each class a white canvas, and the search image of median confidence: of the images that
    all models classify correctly, the one whose rank by log-odds, averaged over the models, is the
    median. If there is no such image, those that most models classify correctly are taken."""
    labels = images.known_labels
    confidences = [confidence(model, images) for model in models.values()]
    n_right = torch.stack([is_right for _, is_right in confidences]).sum(0)
    rank = torch.stack([ranks_within(odds, labels) for odds, _ in confidences]).mean(0)
    for target in sorted(set(labels.tolist())):
        of_class = labels == target
        candidates = (of_class & (n_right == n_right[of_class].max())).nonzero().flatten()
        image = int(candidates[rank[candidates].argsort(stable=True)[len(candidates) // 2]])
        pixels = images.images[image]
        yield Canvas(WHITE, target, None, torch.ones_like(pixels))
        yield Canvas(POSITIVE, target, image, pixels)


@torch.no_grad()
def confidence(model: PixelClassifier, images: LabelledImages) -> tuple[Tensor, Tensor]:
    """The log-odds of each image's class against all others, and whether it is predicted."""
    logits = torch.cat([model(x) for x in images.images.split(500)]).double()
    own = F.one_hot(images.known_labels, logits.shape[1]).bool()
    others = logits.masked_fill(own, -torch.inf)
    return logits[own] - others.logsumexp(1), logits[own] > others.amax(1)


def imitation(model: PixelClassifier, teacher: PixelClassifier, images: Tensor) -> Row:
    """How close a model is to the teacher: the share of equal predictions, and the divergence of
    the probabilities at the temperature of distillation."""
    own, wanted = softened(model, images), softened(teacher, images)
    return {
        "same_as_teacher": float((own.argmax(1) == wanted.argmax(1)).float().mean()),
        "divergence": float(F.kl_div(own.log(), wanted, reduction="batchmean")),
    }


def ranks_within(values: Tensor, labels: Tensor) -> Tensor:
    """The rank of each value among those of its class, from 0 to 1."""
    ranks = torch.zeros_like(values)
    for label in labels.unique():
        of_class = labels == label
        ranks[of_class] = values[of_class].argsort().argsort().double() / of_class.sum()
    return ranks


def search(
    model: PixelClassifier, canvases: Sequence[Canvas], images: Images, seed: int
) -> Iterator[Row]:
    """A row for the pattern on each canvas, with its power and its controls."""
    explainer = ClassPattern(model, images.search)
    found = explainer.search(
        torch.stack([canvas.pixels for canvas in canvases]),
        [canvas.target for canvas in canvases],
        area=AREA,
        budget=BUDGET,
        seed=seed,
    )
    patterns = [pattern.topk(AREA) for pattern in found]
    draws = [random_pixels(p, AREA, draw) for p in patterns for draw in range(DRAWS)]
    powers = transfer_powers(model, [*patterns, *draws], images.held_out)
    for number, (canvas, pattern) in enumerate(zip(canvases, patterns)):
        power = powers[number]
        first = len(patterns) + DRAWS * number
        random = fmean(drawn.value for drawn in powers[first : first + DRAWS])
        yield {
            "canvas": canvas.kind,
            "class": canvas.target,
            "image": canvas.image,
            "mask": packed(pattern.mask),
            "power": round(power.value, DIGITS),
            "images": power.n,
            "no_pattern": round(power.without, DIGITS),
            "random_pixels": round(random, DIGITS),
            "beats_controls": Scores(power, random).beats_controls,
        }


def measure(models: Mapping[Key, PixelClassifier], images: Images, out: Path) -> None:
    """Appends the rows that the file lacks: of the models, of their patterns, of what transfers."""
    canvases = [*choose_canvases(models, images.search)]
    rows = read_rows(out)

    def add(found: Sequence[Row]) -> None:
        append_rows(out, found)
        rows.extend(found)

    for key, model in models.items():
        names = key._asdict()
        if not having(rows, kind="model", **names):
            record = {name: model.record[name] for name in ("parameters", "accuracy", "seconds")}
            record |= imitation(model, models[Key(TEACHER, key.seed)], images.search.images)
            add([{"kind": "model", **names, **record}])
        for search_seed in (0, 1) if key.seed == 0 else (0,):  # the second one to compare with
            known = {"kind": "pattern", **names, "search_seed": search_seed}
            if not having(rows, **known):
                print(f"searching {key.network}_{key.seed}, search seed {search_seed}", flush=True)
                add([{**known, **row} for row in search(model, canvases, images, search_seed)])
    for key in models:
        if not having(rows, kind="transfer", tested=key.network, tested_seed=key.seed):
            print(f"testing all patterns on {key.network}_{key.seed}", flush=True)
            add([*transferred(models, key, canvases, images, rows)])


def transferred(
    models: Mapping[Key, PixelClassifier],
    tested: Key,
    canvases: Sequence[Canvas],
    images: Images,
    rows: Sequence[Row],
) -> Iterator[Row]:
    """The powers of each model's patterns on one model, by class."""
    pixels = {(canvas.kind, canvas.target): canvas.pixels for canvas in canvases}
    seen = frozenset(images.search.hashes)
    for key, kind in product(models, (WHITE, POSITIVE)):
        patterns = []
        for row in having(rows, kind="pattern", search_seed=0, canvas=kind, **key._asdict()):
            canvas = pixels[kind, row["class"]]
            mask = unpacked(row["mask"], canvas.shape[-1])
            patterns.append(Pattern(canvas, mask, row["class"], seen=seen))
        powers = transfer_powers(models[tested], patterns, images.held_out)
        yield {
            "kind": "transfer",
            **key._asdict(),
            "tested": tested.network,
            "tested_seed": tested.seed,
            "canvas": kind,
            "powers": {str(p.target): round(q.value, DIGITS) for p, q in zip(patterns, powers)},
        }


def main(arguments: Sequence[str] | None = None) -> None:
    parser = parser_of_rows(__doc__, "architectures")
    parser.add_argument("data", type=Path, nargs="?", help="folder with the four *-ubyte.gz files")
    parser.add_argument("--models", type=Path, default=Path("classpattern-architectures"))
    given = parser.parse_args(arguments)
    if given.rows is None:
        if given.data is None:
            parser.error("DATA or --rows is needed")
        given.models.mkdir(parents=True, exist_ok=True)
        models = {
            Key(name, seed): trained(name, seed, given.data, given.models)
            for seed in range(SEEDS)
            for name in NETWORKS
        }
        measure(models, Images.read(given.data), given.out)
    report(given, tables, draw)


if __name__ == "__main__":
    main()
