"""Other detectors of backdoors next to a scan, at equal passes, on the zoo's models.

    python benchmarks/scan_rivals.py DATA --zoo ZOO --out FOLDER

runs Neural Cleanse, pixel inversion, MM-BD and a search on a white canvas on the patches of the
test half and on four clean models of each recipe, and prints a table. DATA and ZOO are the data
and the folder of zoo.py. Each model is one JSON file, so an interrupted run can resume. The table
of what was measured before is printed by

    python benchmarks/scan_rivals.py --zoo benchmarks/results/zoo.jsonl \\
        --out benchmarks/results/scan_rivals.jsonl
"""

import json
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import torch
from findings import head, line, parser_of, read_rows
from rivals import anomaly_index, mm_bd, mm_bd_p_value, neural_cleanse, pixel_inversion
from scan_evidence import ALPHA, Model, by_kind, read, scan_of, share
from zoo import N_CLASSES, SHAPE, entries, trained

from captum_classpattern import ClassPattern, PixelClassifier
from captum_classpattern._files import write_atomically
from captum_classpattern.demo import demo_images
from captum_classpattern.images import LabelledImages
from captum_classpattern.optimization.holdout import split_for_judging
from captum_classpattern.scanning.decision import SUSPICIOUS, conformal_test
from captum_classpattern.scanning.profile import draw_sample

PASSES = 1_290  # of each rival and class, as many as a scan takes
MM_IMAGES = 30
WHITE_AREA = 0.01
KINDS = ("all-to-one patch", "clean")
SEEDS = 4  # clean models of each recipe

Rows: TypeAlias = dict[str, dict[str, Any]]  # what the rivals measured, by model
Rule: TypeAlias = Callable[[Model], tuple[bool, int]]  # whether a model is flagged, and the class


def white_powers(model: PixelClassifier, sample: LabelledImages) -> list[float]:
    """The power of the best 1 % of a white canvas, for each class."""
    found = ClassPattern(model, sample).search(
        torch.ones(N_CLASSES, *SHAPE),
        list(range(N_CLASSES)),
        area=WHITE_AREA,
        budget=PASSES,
        keep=1,
    )
    powers = {pattern.target: float(pattern.info["search_power"] or 0) for pattern in found}
    return [powers[y] for y in range(N_CLASSES)]


def rivals_of(
    model: PixelClassifier, sample: LabelledImages
) -> dict[str, Callable[[], list[float]]]:
    """What each rival measures of each class; a class is the more suspicious, the larger it is."""
    fit, _ = split_for_judging(sample, 0)

    def sizes(invert: Callable[..., Any]) -> list[float]:
        found = [invert(model, fit, y, passes=PASSES) for y in range(N_CLASSES)]
        return [-float(np.log(max(each.size, 0.5))) for each in found]

    steps = PASSES // MM_IMAGES
    return {
        "Neural Cleanse": lambda: sizes(neural_cleanse),
        "pixel inversion": lambda: sizes(pixel_inversion),
        "MM-BD": lambda: mm_bd(model, SHAPE, N_CLASSES, n_images=MM_IMAGES, steps=steps).tolist(),
        "white canvas, 1 %": lambda: white_powers(model, sample),
    }


def measured(name: str, data: Path, zoo: Path, out: Path) -> dict[str, Any]:
    """All rivals on one model; what is in the folder already is not run again."""
    path = out / f"{name}.json"
    row = json.loads(path.read_text()) if path.exists() else {}
    row = {"name": name, "scores": {}, "seconds": {}, **row}
    [entry] = [entry for entry in entries() if entry.name == name]
    model, _ = trained(entry, data, zoo)
    sample, _ = draw_sample(model, demo_images().search, N_CLASSES, 0)
    for rival, run in rivals_of(model, sample).items():
        if rival not in row["scores"]:
            started = time.perf_counter()
            row["scores"][rival] = run()
            row["seconds"][rival] = round(time.perf_counter() - started, 1)
            write_atomically(path, (json.dumps(row) + "\n").encode())
    return row


def own_rule(rival: str, scores: Sequence[float]) -> bool | None:
    """Whether the rival's own rule calls a model backdoored; None if it has none."""
    if rival == "Neural Cleanse":
        return anomaly_index(np.exp(-np.array(scores))) > 2
    if rival == "MM-BD":
        return mm_bd_p_value(scores) <= ALPHA
    return None


def by_own_rule(rival: str, rows: Rows) -> Rule:
    """Whether the rival's own rule flags a model, and the class."""

    def decide(model: Model) -> tuple[bool, int]:
        scores = rows[model.name]["scores"][rival]
        return bool(own_rule(rival, scores)), int(np.argmax(scores))

    return decide


def by_comparison(rival: str, rows: Rows, references: Sequence[Model]) -> Rule:
    """Whether a model is suspicious by the rule of a scan, and the class."""
    known = [rows[model.name]["scores"][rival] for model in references]

    def decide(model: Model) -> tuple[bool, int]:
        found = conformal_test(rows[model.name]["scores"][rival], known)
        return found.p_value <= ALPHA, found.target

    return decide


def by_scan(references: Sequence[Model]) -> Rule:
    def decide(model: Model) -> tuple[bool, int]:
        found = scan_of(model, references)
        return found.verdict == SUSPICIOUS, found.target

    return decide


def table(models: Sequence[Model], rows: Rows) -> Iterator[str]:
    """What each rule finds among the patches of the test half, and its false alarms."""
    references = [m for m in models if m.kind == "clean" and not m.is_test]
    groups = by_kind([m for m in models if m.is_test])
    patches, clean = (groups.get(kind, []) for kind in KINDS)
    seconds = {"scan": [float(m.row["seconds"]) for m in models]}
    rules: list[tuple[str, str, Rule]] = [("scan", "calibrated", by_scan(references))]
    for rival in next(iter(rows.values()))["scores"]:
        seconds[rival] = [row["seconds"][rival] for row in rows.values()]
        if own_rule(rival, rows[references[0].name]["scores"][rival]) is not None:
            rules.append((rival, "its own", by_own_rule(rival, rows)))
        rules.append((rival, "calibrated", by_comparison(rival, rows, references)))
    yield head(
        "detector", "rule", "patches found, right class", "false alarms", "target first", "seconds"
    )
    for name, rule, decide in rules:
        found = [(*decide(model), model.backdoor.target) for model in patches if model.backdoor]
        yield line(
            name,
            rule,
            share(sum(flag and target == wanted for flag, target, wanted in found), len(found)),
            share(sum(decide(model)[0] for model in clean), len(clean)),
            f"{sum(target == wanted for _, target, wanted in found)} of {len(found)}",
            f"{np.median(seconds[name]):.1f}",
        )


def chosen(models: Sequence[Model]) -> list[Model]:
    """The models on which all detectors are compared."""
    return [
        m
        for m in models
        if (m.kind == KINDS[0] and m.is_test) or (m.kind == KINDS[1] and m.entry["seed"] < SEEDS)
    ]


def main(arguments: Sequence[str] | None = None) -> None:
    parser = parser_of(__doc__)
    parser.add_argument("data", type=Path, nargs="?", help="folder with the four *-ubyte.gz files")
    parser.add_argument("--zoo", type=Path, required=True, help="the folder of zoo.py, or its rows")
    parser.add_argument("--out", type=Path, required=True, help="a folder, or a file of rows")
    options = parser.parse_args(arguments)
    models, rows = chosen(read(options.zoo)), {}
    if options.data is None:
        rows = {row["name"]: row for row in read_rows(options.out)}
    else:
        options.out.mkdir(parents=True, exist_ok=True)
        for model in models:
            rows[model.name] = measured(model.name, options.data, options.zoo, options.out)
            print(model.name, rows[model.name]["seconds"], flush=True)
    for each in table(models, rows):
        print(each)


if __name__ == "__main__":
    main()
