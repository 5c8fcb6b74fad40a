"""Scans some networks of a zoo with other seeds, other images and in other precisions.

The networks are those of scan_zoo.py, which are not trained here. It resumes after an interruption.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TypeAlias

import torch
from findings import append_rows, parser_of, read_record, read_rows
from safetensors.torch import load_file
from scan_zoo import compact, opened, rounded, scan_images, timed
from zoo import DATA_SETS, Entry, confirmation
from zoo.training import Images

from captum_classpattern.images import LabelledImages
from captum_classpattern.optimization.settings import SearchSettings
from captum_classpattern.scanning.profile import SETTINGS, measure

SETS, FEW = 5, 20  # sets of other images; images of each class
CHOSEN = {"fashion": (5, 7, 3), "cifar10": (2, 2, 1)}  # clean, patches, other backdoors

Variation: TypeAlias = tuple[str, int | str, LabelledImages, SearchSettings]  # what varies, value


def chosen(data_set: str) -> list[Entry]:
    """The networks, spread evenly over the list, and one of each further kind of backdoor."""
    entries = list(confirmation(data_set))
    clean = [entry for entry in entries if entry.backdoor is None]
    planted = [(entry, entry.backdoor) for entry in entries if entry.backdoor is not None]
    patches = [entry for entry, each in planted if each.is_patch and not each.all_to_all]
    others = [entry for entry, each in planted if not each.is_patch][:3]
    parts = zip((clean, patches, others), CHOSEN[data_set])
    return [part[i * len(part) // count] for part, count in parts for i in range(count)]


def variations(data_set: str, test: Images) -> Iterator[Variation]:
    """All scans of a network. Sets of images are disjoint; those of Fashion-MNIST also of the usual
    images."""
    usual, usually = scan_images(data_set, test), SearchSettings()
    for seed in range(5):
        yield ("seed", seed, usual, SearchSettings(seed=seed))
    names, labels = DATA_SETS[data_set].class_names, usual.known_labels
    source = LabelledImages(*test, names)
    if data_set == "fashion":
        known = {*usual.hashes}
        source = source.subset([i for i, each in enumerate(source.hashes) if each not in known])
    for number in range(SETS):
        places = range(number, len(source), SETS)
        yield ("images", number, source.subset([*places]), usually)
    few = [torch.nonzero(labels == y).flatten()[:FEW] for y in range(len(names))]
    yield (f"{FEW} images a class", "", usual.subset(torch.cat(few)), usually)
    for precision in ("full", "bfloat16"):
        yield ("precision", precision, usual, SearchSettings(precision=precision))


def main(arguments: Sequence[str] | None = None) -> None:
    parser = parser_of(__doc__)
    parser.add_argument("data_set", choices=DATA_SETS)
    parser.add_argument("data", type=Path, help="its folder")
    parser.add_argument("--out", type=Path, required=True, help="the folder of the weights")
    parser.add_argument("--rows", type=Path, required=True)
    options = parser.parse_args(arguments)
    test = DATA_SETS[options.data_set].load(options.data, "test")
    entries, scans = chosen(options.data_set), list(variations(options.data_set, test))
    done = {
        (row["data"], row["name"], row["varied"], row["value"])
        for row in read_rows(options.rows)
        if row["statistic"] == rounded(SETTINGS)
    }
    for entry in entries:
        record = read_record(path := options.out / f"{entry.name}.safetensors")
        if record is None:
            print(f"{entry.name}: not trained yet", flush=True)
            continue
        model = opened(record, load_file(path))
        for varied, value, images, settings in scans:
            key = options.data_set, entry.name, varied, value
            if key not in done:
                profile, seconds = timed(lambda: measure(model, images, settings))  # noqa: B023
                row = dict(zip(("data", "name", "varied", "value"), key))
                row |= {"statistic": SETTINGS, "seconds": seconds, "profile": profile.as_dict()}
                append_rows(options.rows, [compact(row)])
                print(*key, f"{seconds:.0f} s", flush=True)


if __name__ == "__main__":
    main()
