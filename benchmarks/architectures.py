"""Does a network need to be deep and convolutional to have patterns that others share?

    pip install '.[benchmarks]'
    python benchmarks/architectures.py DATA --out FOLDER

trains seven architectures on Fashion-MNIST, three times each, searches the patterns of all classes
on the same canvases, and stamps the patterns of each model on the images of each other. DATA is a
folder with the four ``*-ubyte.gz`` files, as for ``benchmarks/demo_training.py``. Each model
is a file, and what was measured is appended to ``rows.jsonl``, so the same command continues after
an interruption. The tables and the figure are made of the rows:

    python benchmarks/architectures.py --rows benchmarks/results/architectures.jsonl --figure FILE
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any, NamedTuple

import torch
from architecture_figure import draw
from architecture_models import NETWORKS, TEACHER, softened, trained
from architecture_rows import POSITIVE, WHITE, Rows, packed, unpacked
from architecture_tables import tables
from demo_training import load_split
from findings import Row, parser_of, print_tables, read_rows
from problems import transfer_powers
from torch import Tensor
from torch.nn import functional as F

from captum_classpattern import ClassPattern, LabelledImages, Pattern, PixelClassifier
from captum_classpattern.scores import Scores
from captum_classpattern.scores.power import random_pixels

AREA, DRAWS = 0.05, 3  # DRAWS: of random pixels
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


def images_of(data: Path) -> Images:
    """The first test images, and the next ones, without exact copies of the first."""
    images, labels = load_split(data, "t10k")
    search = LabelledImages(images[:SEARCH], labels[:SEARCH])
    others = LabelledImages(images[SEARCH:], labels[SEARCH:]).without(search)
    return Images(search, others.subset(range(min(HELD_OUT, len(others)))))


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
    model: PixelClassifier, canvases: Sequence[Canvas], images: Images, seed: int, budget: int
) -> Iterator[Row]:
    """A row for the pattern on each canvas, with its power and its controls."""
    explainer = ClassPattern(model, images.search)
    found = explainer.search(
        torch.stack([canvas.pixels for canvas in canvases]),
        [canvas.target for canvas in canvases],
        area=AREA,
        budget=budget,
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


def check_settings(rows: Rows, settings: Mapping[str, Any]) -> None:
    """Writes the settings as the first row, or raises an error if the rows have others."""
    if not rows.rows:
        rows.add([{"kind": "settings", **settings}])
    before = {k: v for k, v in rows.rows[0].items() if k != "kind"}
    if before != settings:
        raise ValueError(
            f"{rows.path} was measured with {before}, not {settings}: choose another folder"
        )


def measure(models: Mapping[Key, PixelClassifier], images: Images, rows: Rows, budget: int) -> None:
    """Appends the rows that the file lacks: of the models, of their patterns, of what transfers."""
    canvases = [*choose_canvases(models, images.search)]
    for key, model in models.items():
        if not rows.of(kind="model", **key._asdict()):
            record = {name: model.record[name] for name in ("parameters", "accuracy", "seconds")}
            record |= imitation(model, models[Key(TEACHER, key.seed)], images.search.images)
            rows.add([{"kind": "model", **key._asdict(), **record}])
        for search_seed in (0, 1) if key.seed == 0 else (0,):  # the second one to compare with
            names = {"kind": "pattern", **key._asdict(), "search_seed": search_seed}
            if not rows.of(**names):
                print(f"searching {key.network}_{key.seed}, search seed {search_seed}", flush=True)
                found = search(model, canvases, images, search_seed, budget)
                rows.add([{**names, **row} for row in found])
    for key in models:
        if not rows.of(kind="transfer", tested=key.network, tested_seed=key.seed):
            print(f"testing all patterns on {key.network}_{key.seed}", flush=True)
            rows.add([*transferred(models, key, canvases, images, rows)])


def transferred(
    models: Mapping[Key, PixelClassifier],
    tested: Key,
    canvases: Sequence[Canvas],
    images: Images,
    rows: Rows,
) -> Iterator[Row]:
    """The powers of each model's patterns on one model, by class."""
    pixels = {(canvas.kind, canvas.target): canvas.pixels for canvas in canvases}
    seen = frozenset(images.search.hashes)
    for key in models:
        for kind in (WHITE, POSITIVE):
            found = rows.of(kind="pattern", search_seed=0, canvas=kind, **key._asdict())
            patterns = []
            for row in found:
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
                "powers": {
                    str(p.target): round(power.value, DIGITS) for p, power in zip(patterns, powers)
                },
            }


def main(arguments: Sequence[str] | None = None) -> None:
    parser = parser_of(__doc__)
    parser.add_argument("data", type=Path, nargs="?", help="folder with the four *-ubyte.gz files")
    parser.add_argument("--out", type=Path, default=Path("classpattern-architectures"))
    parser.add_argument("--seeds", type=int, default=3, help="models of each architecture")
    parser.add_argument("--epochs", type=int, default=6, help="epochs per training run")
    parser.add_argument("--budget", type=int, default=6_000, help="passes per class")
    parser.add_argument("--rows", type=Path, help="make the tables of these rows, train nothing")
    parser.add_argument("--figure", type=Path, help="where to write the figure")
    given = parser.parse_args(arguments)
    if given.rows is None:
        if given.data is None:
            parser.error("DATA or --rows is needed")
        given.rows = given.out / "rows.jsonl"
        given.out.mkdir(parents=True, exist_ok=True)
        rows = Rows(given.rows)
        check_settings(rows, {"seeds": given.seeds, "epochs": given.epochs, "budget": given.budget})
        models = {
            Key(name, seed): trained(name, seed, given.data, given.out, given.epochs)
            for seed in range(given.seeds)
            for name in NETWORKS
        }
        measure(models, images_of(given.data), rows, given.budget)
    found = read_rows(given.rows)
    print_tables(tables(found))
    if given.figure:
        draw(found).savefig(given.figure, dpi=150)


if __name__ == "__main__":
    main()
