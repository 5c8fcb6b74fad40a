"""Trains the networks of a zoo, and measures each as a scan does.

    python benchmarks/scan_zoo.py fashion DATA --zoo confirmation --out FOLDER

DATA is a folder with the four ``*-ubyte.gz`` files of Fashion-MNIST, or for ``cifar10`` one with
``train/<class>/*`` and ``test/<class>/*`` images. Each finished network is a file of weights, and
each scan a JSON file, so an interrupted run can resume; ``--part 0/2`` makes every second network.
"""

import json
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from demo_training import accuracy
from failures import read_record
from findings import parser_of
from safetensors.torch import load_file, save
from zoo import DATA_SETS, Entry, confirmation, development, references, train
from zoo.training import Images, attack_success

from captum_classpattern import PixelClassifier
from captum_classpattern._files import write_atomically

ZOOS = {"references": references, "development": development, "confirmation": confirmation}


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


def report(name: str, record: dict[str, Any]) -> None:
    """Prints a network in a line."""
    success = record.get("attack_success")
    attacked = "" if success is None else f", attack success {success:.3f}"
    print(
        f"{name}: trained in {record['seconds']} s, accuracy {record['accuracy']:.3f}{attacked}",
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
    options = parser.parse_args(arguments)
    first, every = map(int, options.part.split("/"))
    options.out.mkdir(parents=True, exist_ok=True)
    load = DATA_SETS[options.data_set].load
    data = {split: load(options.data, split) for split in ("train", "test")}
    entries = [
        entry
        for entry in ZOOS[options.zoo](options.data_set)
        if any(text in entry.name for text in options.names)
    ]
    for entry in entries[first::every]:
        _, record = trained(entry, options.data_set, data, options.out)
        report(entry.name, record)


if __name__ == "__main__":
    main()
