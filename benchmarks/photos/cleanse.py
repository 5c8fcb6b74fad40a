"""Neural Cleanse on the four trojans, with the photos and about the passes of a scan."""

from collections.abc import Iterator
from pathlib import Path

from checking import checked
from findings import Row
from rivals.inversion import neural_cleanse
from torch import Tensor
from torch.nn.functional import avg_pool2d

from captum_classpattern import Pattern
from captum_classpattern.scores.power import Scorer
from photos.likeness import picture_of, ranks_of
from photos.moving import about, photo_parts
from photos.planting import TROJANS, load

PASSES = 1_440  # two longer searches of a scan
SHARES = (24, 6)  # thousandths of the pixels: as many as a patch of 35 and of 17 pixels a side
WINDOW = 32  # pixels a side that are compared with the drawings


def cleanse_rows(network: str, photos: Path, out: Path, done: set) -> Iterator[list[Row]]:
    """The power of its patterns on photos that no search has seen."""
    model, (search, held_out) = load(network, out), photo_parts(photos)
    scorer = Scorer(checked(model, held_out), held_out)
    for name, y in TROJANS.items():
        if (network, name) in done:
            continue
        found = neural_cleanse(model, search, y, passes=PASSES)
        row: dict = {**about(network, model), "trojan": name, "class": y, "seed": 0}
        row |= {"passes": PASSES, "powers": {}}
        for thousandths in SHARES:
            power = scorer.power(found.pattern.topk(thousandths / 1000))
            row["powers"][thousandths], row["n"] = power.value, power.n
        yield [row | ranks_of(densest(found.pattern.topk(SHARES[0] / 1000)), name)]


def densest(pattern: Pattern) -> Tensor:
    """The window of a pattern with the most pixels, on grey."""
    held = avg_pool2d((pattern.mask[None] > 0).float(), WINDOW, 1)[0, 0]
    top, left = divmod(int(held.argmax()), held.shape[1])
    return picture_of(pattern)[:, top : top + WINDOW, left : left + WINDOW]
