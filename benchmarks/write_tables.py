"""The pages in docs/results: all tables, made from the rows in benchmarks/results.

    python benchmarks/write_tables.py
    python benchmarks/write_tables.py --only stability

The tests compare these pages with the rows. To add one, add it to PAGES. What the rows show is
written by hand in benchmarks/notes, and comes before the tables.
"""

import tomllib
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import architecture_tables
import compare_methods
import gallery
import invariance
import protocol
import quantus_metrics
import repair
import sanity
import scan_tables
import stability
from claims import statements
from claims import tables as class_patterns
from claims.models import CIFAR10, FASHION
from findings import Row, Table, head, line, parser_of, read_rows
from fine_tuned import tables as fine_tuned
from photos import tables as photo_tables

from captum_classpattern._support.files import hash_of_file

ROOT = Path(__file__).parents[1]
DIGITS = 12  # of a hash that is shown
ROWS, OUT = ROOT / "benchmarks" / "results", ROOT / "docs" / "results"
NOTES = ROOT / "benchmarks" / "notes"  # with links as from OUT
BRACKETS = "Brackets are 95 % intervals over the classes ([bootstrap](../method.md#intervals))."


class Page(NamedTuple):
    title: str
    about: str  # what was measured, with a link to the page that explains it
    note: str  # how often it was measured, and what the columns are
    tables: Callable[[Sequence[Row]], Iterable[Table]]


PAGES = {
    "claims": Page(
        "The paper's claims: all verdicts",
        "Do the paper's claims hold on small networks? [The rule](../../benchmarks/claims/pooled.py"
        ") was frozen before networks were trained on CIFAR-10, and chosen when the rows of "
        "Fashion-MNIST were known.",
        "A statement is about a difference: its mean over classes in each training seed, then the "
        "mean of the seeds with a 95 % t-interval. It *holds* if the interval lies on the claim's "
        "side of 0, *does not hold* if it lies on the other, and is *not shown* if it contains 0, "
        "or with fewer than three seeds. In claim 2, intervals end at 100 points. Differences are "
        "in points; pieces are counted, total variation and the share of high frequencies go from "
        "0 to 1. A *setting* is a canvas and an area, with one trigger in claim 2, one kind of "
        "tested network in claim 3 and one epsilon in claim 4. *No seeds*: the canvas cannot show "
        "half of the trigger. *Strongest control*: the mean of the strongest of three, class by "
        f"class. *n*: classes x training seeds x held-out images. {BRACKETS} After the means of "
        "the seeds, they are t-intervals. Rows of Fashion-MNIST and of *shipped natural* are of "
        "version 0.3. The last table is "
        "exploratory: by the rule, networks whose trigger works on fewer than 90 % of the images "
        "do not count.",
        lambda rows: statements.tables(ROWS),
    ),
    "class_patterns": Page(
        "Class patterns of networks trained on Fashion-MNIST",
        "[The paper's claims](claims.md), on networks that were trained for them with three "
        "seeds, and on [the demo's](../index.md).",
        "The default search, 900 held-out images of other classes for each pattern, canvases that "
        "all networks share: the best of 32 positive ones, a white and a black one. The controls "
        "are chosen as the pattern was: the best of as many. *Learnt*: the attack success of a "
        "backdoor, the accuracy on memorised images, or that under PGD; *: below the bound. "
        f"{BRACKETS} After the means of the seeds, they are 95 % t-intervals over the seeds; "
        "with a single class, the range of the seeds. *Strongest control*: the mean of the "
        "strongest of three, class by class. *n*: classes x training seeds x held-out images. "
        "[The verdicts](claims.md).",
        lambda rows: class_patterns.tables(ROWS, FASHION),
    ),
    "class_patterns_cifar10": Page(
        "Class patterns of networks trained on CIFAR-10",
        "[The paper's claims](claims.md) on small wide ResNets, four kinds with three training "
        "seeds, and on larger ones, [those of the tutorials](../../tutorials/README.md#models).",
        "As [those of Fashion-MNIST](class_patterns.md), with 882 to 912 held-out images. No "
        f"verdict uses the *shipped* networks, which have one training seed. {BRACKETS}",
        lambda rows: class_patterns.tables(ROWS, CIFAR10),
    ),
    "stability": Page(
        "Two searches of the same class",
        "Do the patterns of two searches agree, with another seed, canvas or network?",
        "Ten classes, one canvas of a kind for each class, 5 % of the pixels, about 1,000 "
        "passes (a white canvas starts twice), 300 held-out images. *Classes*: patterns of two "
        "classes. *Long*: four times the passes. *Found by all*: the share of a pattern's "
        "pixels that all four searches found. *Spread*: the standard deviation between seeds. "
        f"{BRACKETS}",
        stability.tables,
    ),
    "invariance": Page(
        "Shifts, blur, colours and other changes",
        "How much of the predictive power stays when a pattern is moved or cut, or the stamped "
        "image is changed?",
        "CIFAR-10, the first five classes of each model, the best of 32 positive canvases, 5 % "
        "of the pixels, about 180 held-out images. The range over which half of the power above "
        "the controls stays; a plus sign marks an end that some pattern reaches at the last "
        "tested value. All rows were measured with the `invariance_profile` of versions 0.2 and "
        "0.3 before its JPEG became libjpeg's: JPEG is an approximation of it, about one of 255 "
        "levels off, hues turn in the chroma plane of YIQ, and a blur repeats the border. The "
        "script now uses torchvision's transforms: libjpeg, hues in HSV, and a mirrored border.",
        invariance.tables,
    ),
    "sanity": Page(
        "Random weights and other labels",
        "Do the maps depend on the model? Maps of a network next to those of the same network "
        "with random layers, or of one that memorised the same images with other labels.",
        "Ten classes, one canvas each, two seeds, 200 held-out images, searches of 1,000 "
        "passes. Up to the verdict: the IoU of the highest 5 % of the pixels. *Absolute*: "
        "ranked by absolute value. *Order*: the rank correlation of all pixels. *Power after*: "
        "that of the pixels which the other network ranks first, on the original one. A star: "
        f"the interval is above random pixels. BestCrop, ClassMean, NearestImage and "
        f"NearestFeatures were controls of version 0.3. {BRACKETS}",
        sanity.tables,
    ),
    "architectures": Page(
        "Seven architectures",
        "Does a pattern need a deep network? The patterns of seven networks trained on "
        "Fashion-MNIST, on the network itself and on the others.",
        "Three training seeds, ten classes, the same two canvases per class, 5 % of the pixels, "
        "400 held-out images. On the diagonals: other training seeds. Pairs of architectures "
        "also have different seeds; distillation compares student and teacher of one seed. The "
        f"two shallow CNNs count as one architecture. {BRACKETS}",
        architecture_tables.tables,
    ),
    "rivals": Page(
        "Other methods",
        "[Captum's methods, controls, and methods that choose colours](../results_to_cite.md), on "
        "the same canvases as the class pattern.",
        "Ten classes, one positive canvas each, one seed, 3,500 passes for a search, 5 % of the "
        "pixels, 100 held-out images on the demo's models and 150 on CIFAR-10. Each method at "
        "its best of up to four variants: its map of the canvas or the mean of its maps over "
        "images of the class (*mean*), ranked by value or by absolute value (*abs.*). In "
        "italics: controls. *Own form*: all that a method found, such as a soft mask. *Mean of "
        f"the mask*: the share of the pixels that this changes. {BRACKETS}",
        compare_methods.tables,
    ),
    "quantus": Page(
        "Metrics of Quantus",
        "[Metrics of Quantus](../compare.md#quantus) for a class pattern, "
        "Integrated Gradients and random pixels.",
        "The demo's natural model, ten classes, one positive canvas each, 5 % of the pixels; "
        f"for the predictive power 300 held-out images. {BRACKETS}",
        quantus_metrics.tables,
    ),
    "gallery": Page(
        "An ImageNet classifier",
        "Every tenth class of EfficientNet-lite0, on a white canvas. [Patches](photos.md) do more.",
        "224 pixels, of which 5 % are kept; about 1,130 passes a class; 150 held-out photos. "
        "The order is that of the held-out powers, so those of the strongest are a little too "
        "high.",
        gallery.tables,
    ),
    "photos": Page(
        "Photographs: classes and trojans of ImageNet networks",
        "Patches for clean classes of EfficientNet-lite0; trojans, planted and looked for, next to "
        "Captum's methods.",
        "A patch that moves: 200 photos to search with, 100 to score on, at random places; 944 "
        "to 948 passes; brackets are Wilson intervals. Controls of clean "
        "classes: no patch, its "
        "pixels in random order, a patch of another class, the best of 32 squares of a photo of "
        "the class, and the best of 32 collages of photos of other classes. *Edges*: the same "
        "with the edges of ten stamped photos. Methods: on 75 other "
        "photos; their seconds beside another process. A scan uses all 300. Fixed pixels: version"
        " 0.3, 150 photos to search with, 149 or 150 to score on. 224 pixels. *Planted*: four "
        "trojans. *Specific*: the same, and trained to ignore four other drawings; settings were "
        "chosen on it. *Four*: four other trojans, and trained to ignore the same drawings. "
        "*Twin*: that of the specific network, without "
        "trojans. *Second twin*: that of the planted one, with another seed. *Plain*: as "
        "published. *Inside*: the share of the highest pixels, at most as many as the trigger "
        "has, that lie in it. *In cells*: the same for the mean of the map over cells of 7 x 7. "
        "*Cells minus*: in points, paired by photo; brackets are 95 % intervals over the photos. "
        "*Distance*: the mean absolute difference between a map and the footprint ([Casper et al."
        " 2023](https://arxiv.org/abs/2302.10894)). In italics: controls.",
        lambda rows: photo_tables.tables(ROWS),
    ),
    "protocol": Page(
        "The authors' protocol and ours",
        "[The paper's claims](claims.md): how much of the predictive power comes from the "
        "choice of the images that are counted?",
        f"CIFAR-10, two canvases per class, 50 of 1,024 pixels, one search seed. {BRACKETS}",
        lambda rows: [("Step by step", protocol.tables(rows))],
    ),
    "fine_tuned": Page(
        "Scans of version 0.5 on larger images",
        "[How good is a scan?](../scan.md#how-good-it-is) 38 networks for images of 64 to 224 "
        "pixels, trained and scanned with version 0.5. The rule of version 0.6 for larger images "
        "was chosen on them.",
        "*Waste*: photos of cardboard, glass, metal, paper, plastic and trash. CIFAR-10 is "
        "enlarged. EfficientNets are published for ImageNet, and fine-tuned; residual networks are "
        "trained from scratch. *Success*: the share of the images of other "
        "classes that the trigger turns; a trigger is *learnt* from 90 %, and one that is not is "
        "planted once more with twice the epochs. *Target*: the power of the planted class, by a "
        "patch anywhere, by cells at one place, by a smooth perturbation; the lesser of two "
        "searches. *Largest power of other classes*: of any search. Minutes of one core of an AMD "
        "EPYC with bfloat16, beside another process; *as said* at the start, by the frozen "
        "version. Neural Cleanse cannot exceed its bound with two or three classes. In brackets: "
        "95 % intervals over networks, as if these were independent.",
        lambda rows: fine_tuned.tables(ROWS),
    ),
    "repair": Page(
        "Repair: training away what a scan found",
        "[Fine-tuning](../../tutorials/4_your_own_network.ipynb) with the change that a scan "
        "found, stamped on images under their true labels. The planted trigger, which the repair "
        "does not see, judges.",
        f"{repair.STEPS} steps of {repair.BATCH} images, {repair.STAMPED} of them stamped; SGD at "
        f"{repair.RATE}, momentum 0.9, batch norms in eval mode, no augmentation. Networks and "
        "scans are of version 0.5; *waste* are EfficientNets (*drawing*: lite0, *patch*: lite1), "
        "fine-tuned on photos of waste at 224 pixels. *Success*: the share of the test images of "
        "other classes that are predicted as the planted class with the trigger. Values are those "
        "of each seed. "
        "*By*: what decided the scan. *Images*: those that repair used, of which a scan takes at "
        "most 50 of each class. *Planted*, *found*: the numbers of the classes.",
        repair.tables,
    ),
    "scan_confirmation": Page(
        "Scans of new networks",
        "[How good is a scan?](../scan.md#how-good-it-is) Networks that were trained and scanned "
        "after the rule was frozen, for [small](../../benchmarks/zoo/PROTOCOL.md) and for "
        "[larger images](../../benchmarks/fine_tuned/PROTOCOL.md).",
        "*Right class*: the scan is suspicious, and all suspicious classes have a trigger. A "
        "backdoor is *learnt* if its trigger works on at least 90 % of the test images of other "
        "classes; 80 % for larger images. Larger images were confirmed twice, with other networks: "
        "the *first rule* did not compare classes across changes. "
        "*Power*: that of the first class. *Largest strength*: how far the first class "
        "is ahead of the others, as a share of the bound, with the change for which this is "
        "largest. Minutes of one core, beside another process. Images of *Fashion-MNIST*, "
        "*CIFAR-10* and *traffic signs* have 28 or 32 pixels a side, *signs of hands* 48. "
        "Intervals are over networks, as if these were independent.",
        lambda rows: scan_tables.tables(ROWS),
    ),
}


def text_of(name: str) -> str:
    """A page in Markdown."""
    page, notes = PAGES[name], NOTES / f"{name}.md"
    parts = [f"# {page.title}", page.about]
    if notes.exists():
        parts += [notes.read_text(encoding="utf-8").strip(), "## How to read the tables"]
    parts.append(page.note)
    for title, lines in page.tables(read_rows(ROWS / f"{name}.jsonl")):
        parts += [f"## {title}", "\n".join(lines)]
    return "\n\n".join(parts) + "\n"


def index() -> str:
    """The page that lists the others."""
    about = "Each page is written from the rows in `benchmarks/results` by `write_tables.py`."
    links = [f"- [{page.title}]({name}.md)" for name, page in PAGES.items()]
    title = "## How the rows came about"
    return "\n".join(
        ["# Tables with committed rows", "", about, "", *links, "", title, "", *provenance(), ""]
    )


def provenance() -> Iterator[str]:
    """For each file of rows: how it was measured, with the hashes of the networks."""
    yield "Hashes are of the files of weights. *Rows*: each row says it."
    yield ""
    known = tomllib.loads((ROWS / "provenance.toml").read_text(encoding="utf-8"))
    columns = ("script", "version", "seeds", "settings", "n", "processor")
    yield head("rows", "networks", *columns)
    for name, facts in known.items():
        networks = facts["networks"]
        if isinstance(networks, list):
            hashes = (hash_of_file(ROOT / each)[:DIGITS] for each in networks)
            networks = ", ".join(f"{name_of(w)} ({short})" for w, short in zip(networks, hashes))
        script = f"`{facts['script']}`"
        yield line(f"`{name}`", networks, script, *(facts[column] for column in columns[1:]))


def name_of(weights: str) -> str:
    return f"{'demo_' * ('/demo/' in weights)}{Path(weights).name.partition('.')[0]}"


def main(arguments: Sequence[str] | None = None) -> None:
    parser = parser_of(__doc__)
    parser.add_argument("--only", choices=PAGES, help="one page")
    parser.add_argument("--out", type=Path, default=OUT)
    given = parser.parse_args(arguments)
    given.out.mkdir(parents=True, exist_ok=True)
    for name in [given.only] if given.only else PAGES:
        (given.out / f"{name}.md").write_text(text_of(name), encoding="utf-8")
    (given.out / "index.md").write_text(index(), encoding="utf-8")


if __name__ == "__main__":
    main()
