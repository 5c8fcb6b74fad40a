"""The natural networks' patterns on other networks: one row per pair of models."""

from collections.abc import Iterator, Sequence

from architecture_rows import POSITIVE, unpacked
from findings import Row
from problems import transfer_powers

from captum_classpattern import LabelledImages, Pattern, PixelClassifier
from captum_classpattern.scores.power import random_pixels
from claims.images import Canvases, Images
from claims.models import Entry
from claims.rows import Measured
from claims.verdicts import AREA

SOURCE = "natural"  # the kind of network whose patterns are tested
IMAGES = 1_000  # held-out images, of all classes in proportion


def patterns_of(
    source: Measured, canvases: Canvases, seen: frozenset[str], kind: str = POSITIVE
) -> list[Pattern]:
    """The binary patterns of a row on a kind of canvas."""
    places, masks = (source.column(kind, AREA, name) for name in ("canvas", "mask"))
    found = []
    for y, place in places.items():
        canvas = canvases[kind][y][int(place)]
        mask = unpacked(str(masks[y]), canvas.shape[-1])
        found.append(Pattern(canvas, mask, y, seen=seen))
    return found


def pairs(
    sources: Sequence[Row], tested: Entry, classifier: PixelClassifier, images: Images,
    canvases: Canvases,
) -> Iterator[Row]:  # fmt: skip
    """A row for each source on one model: hits of the patterns, and of the same number of random
    pixels of their canvases, drawn once: not the best of many, as in the rows of models."""
    some: LabelledImages = images.held_out.stratified_sample(IMAGES)
    seen = frozenset(images.search.hashes)
    for source in sources:
        patterns = patterns_of(Measured(source), canvases, seen)
        drawn = [random_pixels(each, AREA, each.target) for each in patterns]
        powers = transfer_powers(classifier, [*patterns, *drawn], some)
        found, at_random = powers[: len(patterns)], powers[len(patterns) :]
        yield {
            **{"model": source["model"], "source_weights": source["weights"]},
            **{"tested": tested.name, "kind": tested.kind, "seed": tested.seed},
            "data": tested.data,
            "classes": [each.target for each in patterns],
            "n": [power.n for power in found],
            "hits": [round(power.value * power.n) for power in found],
            "one_random_mask": [round(power.value * power.n) for power in at_random],
            "no_pattern": [round(power.without * power.n) for power in found],
        }


def tested_models(entries: Sequence[Entry]) -> list[Entry]:
    """All models that are trained for the claims."""
    return [entry for entry in entries if entry.training is not None]


def missing(rows: Sequence[Row], sources: Sequence[Row], tested: Entry) -> list[Row]:
    """The sources of the same data set that were not tested on a model yet."""
    done = {(row["model"], row["source_weights"]) for row in rows if row["tested"] == tested.name}
    wanted = (each for each in sources if (each["kind"], each["data"]) == (SOURCE, tested.data))
    return [each for each in wanted if (each["model"], each["weights"]) not in done]
