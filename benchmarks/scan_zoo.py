"""Trains the networks of a zoo, and measures each as a scan does; or measures published networks.

Each finished network is a file of weights, and what was measured of it a row in a JSON file, so an
interrupted run can resume.
"""

import csv
import importlib.util
import itertools
import json
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias

from captum_classpattern.scanning.profile import SETTINGS, Profile, measure
from captum_classpattern.scanning.references import TRAINED_ON, ReferenceSet, describe
from demo_training import accuracy
from findings import parser_of, read_record, read_rows, write_rows
from rivals import cbd, mm_bd, neural_cleanse
from safetensors.torch import load_file, save
from torch import Tensor
from zoo import DATA_SETS, Entry, Recipe, confirmation, references, train, tutorials
from zoo.training import Images, attack_success

from captum_classpattern import PixelClassifier
from captum_classpattern._support.files import write_atomically
from captum_classpattern.classifier import enter_model
from captum_classpattern.demo import demo_images
from captum_classpattern.images import LabelledImages
from captum_classpattern.optimization.settings import SearchSettings
from captum_classpattern.pattern import Pattern
from captum_classpattern.scanning.task import PACKAGE_VERSION, PER_CLASS, ScanTask

sys.path.append(str(Path(__file__).parents[1] / "tutorials"))
import train_cifar10

ZOOS = {"references": references, "confirmation": confirmation}
DESCRIPTIONS = {
    "fashion": "Fashion-MNIST, the demo's search images",
    "cifar10": "CIFAR-10, the test images as JPEG files",
}
DIGITS = 4  # after the point, in rows
LEAST_ACCURACY = 0.6  # of the references that come with the package
PUBLISHED = Path(__file__).parent / "zoo" / "networks_of_others.csv"
NOT_PLANTED = "clean"  # in that file
RIVALS: dict[str, dict[str, Any]] = {
    # with this noise, clean references predict one class for about half of the copies
    "CBD": {"sigma": 0.3, "draws": 1024},
    "MM-BD": {"n_images": 30, "steps": 300},
    "Neural Cleanse": {"passes": 1280},
}
Row: TypeAlias = dict[str, Any]
Measured: TypeAlias = tuple[str, PixelClassifier, Row]  # name, network, record


def trained(
    entry: Entry, data_set: str, data: dict[str, Images], out: Path
) -> tuple[PixelClassifier, dict[str, Any]]:
    """A network with its record; what is in the folder already is not trained again. Weights are
    rounded to float16."""
    path = out / f"{entry.name}.safetensors"
    settings, record = settings_of(entry, data_set), read_record(path)
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
    return opened(record, load_file(path)), record


def settings_of(entry: Entry, data_set: str) -> Row:
    """What decides how a network is trained, as plain values."""
    return dict(json.loads(json.dumps({"data": data_set, "entry": asdict(entry)})))


def opened(record: Row, weights: Mapping[str, Tensor]) -> PixelClassifier:
    """A network of its weights."""
    known = DATA_SETS[record["settings"]["data"]]
    network = Recipe(**record["settings"]["entry"]["recipe"]).build(known.shape[0])
    network.load_state_dict(weights)
    return PixelClassifier(network.eval(), class_names=list(known.class_names))


def scan_images(data_set: str, test: Images) -> LabelledImages:
    """The images that all networks of a data set are measured with."""
    if data_set == "fashion":
        search = demo_images().search
        test = search.images, search.known_labels
    return LabelledImages(*test, DATA_SETS[data_set].class_names, DESCRIPTIONS[data_set])


def measured(
    path: Path,
    zoo: str,
    model: PixelClassifier,
    record: Row,
    images: LabelledImages,
    seed: int = 0,
    rivals: bool = False,
) -> Row:
    """The row of a network and a seed of the scan. What is in its file already, with the same
    settings, is not measured again."""
    row = json.loads(path.read_text()) if path.exists() else {}
    entry = dict(record["settings"]["entry"])
    settings = {"name": entry.pop("name"), "zoo": zoo, "data": record["settings"]["data"], **entry}
    settings |= {"scan_seed": seed, "statistic": SETTINGS, "images": describe(images)}
    known = all(row.get(name) == value for name, value in rounded(settings).items())
    if not known:
        with enter_model(model, images.take([0]), seed) as checked:
            settled = SearchSettings(seed=seed)
            profile, seconds = timed(lambda: measure(ScanTask.of(checked, images, settled)))
        row = rounded(settings) | {
            "accuracy": record["accuracy"],
            "attack_success": record.get("attack_success"),
            "seconds": {"training": record["seconds"], "scan": seconds},
            "version": PACKAGE_VERSION,
            "profile": profile.as_dict(),
            "rivals": {},
        }
        if entry["backdoor"] is not None:
            target = entry["backdoor"]["target"]
            row["shown"] = pixels_of(profile.patterns[profile.enough_pixels(target), target])
    missing = [name for name in RIVALS if rivals and name not in row["rivals"]]
    if known and not missing:
        return row
    for name in missing:
        scores, seconds = timed(partial(rival_scores, name, model, images))
        row["rivals"][name] = {"settings": RIVALS[name], "scores": scores, "seconds": seconds}
    write_atomically(path, json.dumps(compact(row)).encode())
    return row


def rival_scores(name: str, model: PixelClassifier, images: LabelledImages) -> list[float]:
    """What a rival measures of each class."""
    with enter_model(model, images.take([0])) as checked:
        n_classes = checked.n_classes
    if name == "MM-BD":
        return mm_bd(model, images.shape, n_classes, **RIVALS[name]).tolist()
    sample = images.stratified_sample(PER_CLASS * n_classes)
    if name == "CBD":
        return cbd(model, sample, n_classes, **RIVALS[name]).tolist()
    return [neural_cleanse(model, sample, y, **RIVALS[name]).size for y in range(n_classes)]


def timed(run: Callable[[], Any]) -> tuple[Any, float]:
    """What a function returns, and the seconds that it takes."""
    started = time.perf_counter()
    return run(), time.perf_counter() - started


def pixels_of(pattern: Pattern) -> list[list[float]]:
    """The row, the column and the colours of each pixel of a pattern."""
    places = pattern.mask[0].nonzero().tolist()
    return [[i, j, *pattern.canvas[:, i, j].tolist()] for i, j in places]


def compact(row: Row) -> Row:
    """A row with few digits, but for what verdicts are made of, so that equal powers stay equal."""
    found: Row = rounded(row) | {"profile": row["profile"]}
    return found


def rounded(value: Any) -> Any:
    """Plain values, as they are read back, with a few digits after the point."""
    if isinstance(value, dict):
        return {str(key): rounded(each) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [rounded(each) for each in value]
    return round(value, DIGITS) if isinstance(value, float) else value


def rows_in(folder: Path) -> list[Row]:
    rows = [json.loads(path.read_text()) for path in folder.glob("*.json")]
    return sorted(rows, key=key_of)


def gather(found: Sequence[Row], file: Path) -> None:
    """Puts rows into a file, in place of those of the same networks and seeds."""
    rows = {key_of(row): row for row in [*read_rows(file), *found]}
    write_rows(file, [rows[key] for key in sorted(rows)])


def key_of(row: Row) -> tuple[str, str, int]:
    return row["data"], row["name"], row["scan_seed"]


def of_the_tutorials() -> Iterator[Measured]:
    """The clean CIFAR-10 networks of the tutorials; their training is described nearly."""
    for entry in tutorials():
        kind = entry.name.removeprefix("tutorials_")
        facts = json.loads((train_cifar10.MODELS / f"cifar10_{kind}.json").read_text())
        names = list(DATA_SETS["cifar10"].class_names)
        model = PixelClassifier(train_cifar10.load_model(kind), class_names=names)
        record = {"settings": settings_of(entry, "cifar10"), "seconds": 0} | facts["test_set"]
        yield entry.name, model, record


def published(folder: Path, role: str) -> Iterator[Measured]:
    """The networks of others with this role, clean ones first. The folder has their files, and a
    module ``load`` with a function ``load_NAME()`` for each, which takes pixels in [0, 1]."""
    spec = importlib.util.spec_from_file_location("load", folder / "load.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    for row in csv.DictReader(PUBLISHED.open(encoding="utf-8")):
        if row["role"] == role:
            network = getattr(module, f"load_{row['name']}")()
            model = PixelClassifier(network, class_names=list(DATA_SETS["cifar10"].class_names))
            recipe = {"network": row["architecture"], "source": row["repository"]}
            recipe |= {"file": row["sha256"], TRAINED_ON: "original images"}
            entry = {"name": row["name"], "recipe": recipe, "seed": None, "backdoor": None}
            if row["planted"] != NOT_PLANTED:
                entry["backdoor"] = json.loads(row["backdoor"])
            record = {"settings": {"data": "cifar10", "entry": entry}, "seconds": None}
            record |= {"accuracy": float(row["accuracy_jpeg_1000"]) / 100}
            record |= {"attack_success": float(row["attack_success"] or 0) or None}
            yield row["name"], model.eval(), record


def reference_set(rows: Sequence[Row]) -> ReferenceSet:
    """The set of references that rows of one data set describe, without weak ones."""
    rows = [row for row in rows if row["profile"]["accuracy"] >= LEAST_ACCURACY]
    known, row = DATA_SETS[rows[0]["data"]], rows[0]
    return ReferenceSet(
        len(known.class_names),
        known.shape,
        {row["name"]: Profile.from_dict(row["profile"]) for row in rows},
        row["images"] | {"description": DESCRIPTIONS[row["data"]]},
        row["statistic"],
        {row["name"]: described(row["recipe"], row["data"]) for row in rows},
        known.class_names,
    )


def described(recipe: Mapping[str, Any], data_set: str) -> dict[str, Any]:
    """A recipe in words that a scan can show."""
    if TRAINED_ON in recipe:
        return dict(recipe)
    return {
        TRAINED_ON: {"fashion": "original images", "cifar10": "JPEG images"}[data_set],
        "network": recipe["network"],
        "epochs": recipe["epochs"],
        "optimizer": {"tokens": "adamw"}.get(recipe["optimizer"], recipe["optimizer"]),
        "shifts": recipe["shifts"],
        "flips": "yes" if recipe["flips"] else "no",
        "images (share)": recipe["share"],
        "label smoothing": recipe["smoothing"],
        "wrong labels": recipe["random_labels"],
        "adversarial eps": recipe["eps"],
    }


def main(arguments: Sequence[str] | None = None) -> None:
    parser = parser_of(__doc__)
    parser.add_argument("data_set", choices=DATA_SETS)
    parser.add_argument("data", type=Path, help="its folder")
    parser.add_argument("--zoo", choices=ZOOS, required=True)
    parser.add_argument("--published", type=Path, help="measure networks of others instead")
    parser.add_argument("--seeds", type=int, default=1, help="scans of each network")
    parser.add_argument("--rivals", action="store_true", help="also measure other detectors")
    parser.add_argument("--train-only", action="store_true")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--rows", type=Path, help="where to gather the rows that are in --out")
    parser.add_argument("--set", type=Path, help="where to write the set of the rows in --out")
    options = parser.parse_args(arguments)
    entries = [*ZOOS[options.zoo](options.data_set)]
    if options.rows:
        gather(rows_in(options.out), options.rows)
    if options.set:
        reference_set(rows_in(options.out)).save(options.set)
    if options.rows or options.set:
        return
    options.out.mkdir(parents=True, exist_ok=True)
    load = DATA_SETS[options.data_set].load
    test = load(options.data, "test")
    images = scan_images(options.data_set, test)
    if options.published:
        networks = published(options.published, options.zoo)
    else:
        data = {"train": load(options.data, "train"), "test": test}
        networks = (
            (entry.name, *trained(entry, options.data_set, data, options.out)) for entry in entries
        )
        if (options.zoo, options.data_set) == ("references", "cifar10"):
            networks = itertools.chain(of_the_tutorials(), networks)
    for name, model, record in networks:
        success = record.get("attack_success")
        attacked = "" if success is None else f", attack success {success:.3f}"
        print(f"{name}: accuracy {record['accuracy']:.3f}{attacked}", flush=True)
        for seed in range(0 if options.train_only else options.seeds):
            path = options.out / f"{name}{f'_seed{seed}' if seed else ''}.json"
            rivals = options.rivals and not seed
            measured(path, options.zoo, model, record, images, seed, rivals)


if __name__ == "__main__":
    main()
