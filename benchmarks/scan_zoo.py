"""Trains the networks of a zoo, and measures each as a scan does.

    python benchmarks/scan_zoo.py fashion DATA --zoo confirmation --out FOLDER

DATA is a folder with the four ``*-ubyte.gz`` files of Fashion-MNIST, or for ``cifar10`` one with
``train/<class>/*`` and ``test/<class>/*`` images. Each finished network is a file of weights, and
what was measured of it a row in a JSON file, so an interrupted run can resume; ``--part 0/2`` makes
every second network. ``--rows FILE`` gathers the rows of the folder instead.
"""

import json
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from demo_training import accuracy
from failures import read_record
from findings import parser_of, read_rows, write_rows
from safetensors.torch import load_file, save
from zoo import DATA_SETS, Entry, confirmation, development, references, train
from zoo.training import Images, attack_success

from captum_classpattern import PixelClassifier
from captum_classpattern._files import write_atomically
from captum_classpattern.demo import demo_images
from captum_classpattern.images import LabelledImages
from captum_classpattern.pattern import Pattern
from captum_classpattern.scanning.profile import SETTINGS, measure
from captum_classpattern.scanning.references import describe

ZOOS = {"references": references, "development": development, "confirmation": confirmation}
DIGITS = 4  # after the point, in rows


def trained(
    entry: Entry, data_set: str, data: dict[str, Images], out: Path
) -> tuple[PixelClassifier, dict[str, Any]]:
    """A network with its record; what is in the folder already is not trained again. Weights are
    rounded to float16."""
    path, known = out / f"{entry.name}.safetensors", DATA_SETS[data_set]
    settings = json.loads(json.dumps({"data": data_set, "entry": asdict(entry)}))
    network, record = entry.recipe.build(known.shape[0]), read_record(path)
    if record is None or record["settings"] != settings:
        started = time.perf_counter()
        network = train(entry.recipe, data["train"], entry.seed, entry.backdoor).half()
        state = {key: value.contiguous() for key, value in network.state_dict().items()}
        network.float()
        record = {"settings": settings, "accuracy": accuracy(network, *data["test"])}
        if entry.backdoor is not None:
            record["attack_success"] = attack_success(network, entry.backdoor, data["test"])
        record["seconds"] = round(time.perf_counter() - started)
        write_atomically(path, save(state, {"record": json.dumps(record)}))
    network.load_state_dict(load_file(path))
    return PixelClassifier(network.eval(), class_names=list(known.class_names)), record


def scan_images(data_set: str, test: Images) -> LabelledImages:
    """The images that all networks of a data set are measured with."""
    if data_set == "fashion":
        return demo_images().search
    return LabelledImages(*test, DATA_SETS[data_set].class_names, "CIFAR-10, the test images")


def measured(
    path: Path, zoo: str, model: PixelClassifier, record: dict[str, Any], images: LabelledImages
) -> dict[str, Any]:
    """The row of a network. What is in its file already, with the same settings, is not measured
    again."""
    row = json.loads(path.read_text()) if path.exists() else {}
    entry = dict(record["settings"]["entry"])
    settings = rounded(
        {
            "name": entry.pop("name"),
            "zoo": zoo,
            "data": record["settings"]["data"],
            **entry,  # recipe, seed, backdoor
            "statistic": SETTINGS,
            "images": describe(images),
        }
    )
    if any(row.get(name) != value for name, value in settings.items()):
        started = time.perf_counter()
        profile = measure(model, images)
        row = settings | {
            "accuracy": record["accuracy"],
            "attack_success": record.get("attack_success"),
            "seconds": {"training": record["seconds"], "scan": time.perf_counter() - started},
            "profile": profile.as_dict(),
        }
        if entry["backdoor"] is not None:
            target = entry["backdoor"]["target"]
            row["shown"] = pixels_of(profile.patterns[profile.enough_pixels(target), target])
        write_atomically(path, json.dumps(rounded(row)).encode())
    return json.loads(path.read_text())


def pixels_of(pattern: Pattern) -> list[list[float]]:
    """The row, the column and the colours of each pixel of a pattern."""
    places = pattern.mask[0].nonzero().tolist()
    return [[i, j, *pattern.canvas[:, i, j].tolist()] for i, j in places]


def rounded(value: Any) -> Any:
    """Plain values, as they are read back, with a few digits after the point."""
    if isinstance(value, dict):
        return {str(key): rounded(each) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [rounded(each) for each in value]
    return round(value, DIGITS) if isinstance(value, float) else value


def gather(folder: Path, file: Path) -> None:
    """Puts the rows of a folder into a file, in place of others of the same data set."""
    found = [json.loads(path.read_text()) for path in folder.glob("*.json")]
    data = {row["data"] for row in found}
    rows = [row for row in read_rows(file) if row["data"] not in data]
    write_rows(file, sorted([*rows, *found], key=lambda row: (row["data"], row["name"])))


def report(row: dict[str, Any]) -> None:
    """Prints a network in a line."""
    success, seconds = row["attack_success"], row["seconds"]
    attacked = "" if success is None else f", attack success {success:.3f}"
    print(
        f"{row['name']}: trained in {seconds['training']} s, accuracy {row['accuracy']:.3f}"
        f"{attacked}, scanned in {seconds['scan']:.0f} s",
        flush=True,
    )


def main(arguments: Sequence[str] | None = None) -> None:
    parser = parser_of(__doc__)
    parser.add_argument("data_set", choices=DATA_SETS)
    parser.add_argument("data", type=Path, help="its folder")
    parser.add_argument("--zoo", choices=ZOOS, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--names", nargs="*", default=[""], help="only networks with these texts")
    parser.add_argument("--part", default="0/1", help="such as 0/2 for every second network")
    parser.add_argument("--rows", type=Path, help="where to gather the rows that are in --out")
    options = parser.parse_args(arguments)
    if options.rows is not None:
        gather(options.out, options.rows)
        return
    first, every = map(int, options.part.split("/"))
    options.out.mkdir(parents=True, exist_ok=True)
    load = DATA_SETS[options.data_set].load
    data = {split: load(options.data, split) for split in ("train", "test")}
    images = scan_images(options.data_set, data["test"])
    entries = [
        entry
        for entry in ZOOS[options.zoo](options.data_set)
        if any(text in entry.name for text in options.names)
    ]
    for entry in entries[first::every]:
        model, record = trained(entry, options.data_set, data, options.out)
        path = options.out / f"{entry.name}.json"
        report(measured(path, options.zoo, model, record, images))


if __name__ == "__main__":
    main()
