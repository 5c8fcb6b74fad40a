"""The paper's claims on CIFAR-10 with their controls; prints the tables of docs/claims.md.

    python benchmarks/paper.py DATA --out FOLDER

DATA is a folder with ``test/<class>/*`` images of CIFAR-10. The seed determines the search images,
the held-out images and the searches. Findings are saved in FOLDER, so an interrupted run can
resume. ``--only GROUP`` selects groups. All groups take about two hours of one core.

The models are those of ``tutorials/models``. Groups with missing models are skipped. Train the
models with ``tutorials/train_cifar10.py``; those of group ``epochs`` with ``natural_short --keep 1
2 4 8 12`` (in a copy of the repository, because this overwrites the model). ``--other`` is a
checkpoint of ``tutorials/bring_your_own_model.py --rate 0``, another network for claim 3.

``--protocol authors`` searches and scores as the authors' scripts do, beside our protocol on the
same models, and prints their tables alone: about half an hour of one core.
"""

import contextlib
import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import paper_backdoor as backdoor
import paper_protocol as protocol
import paper_tables as tables
from findings import parser_of
from paper_figures import class_patterns, trigger_patterns
from paper_search import (
    CLASS_NAMES,
    EPOCHS,
    GROUPS,
    HELD_OUT,
    STAMPED_ON,
    model,
    parts,
    search,
    stamped_on_others,
    weights_file,
)
from paper_tables import Seeds
from problems import SEARCH, train_cifar10

from captum_classpattern.adapters import load_model
from captum_classpattern.classifier import Classifier
from captum_classpattern.pattern import Pattern
from captum_classpattern.scores.localisation import changed_pixels

AREA, SMALL, TARGET = 0.05, 0.01, train_cifar10.TARGET
DPI = 180  # of figures
Found = dict[tuple[str, str], Seeds]  # by group and model


def search_all(data: Path, out: Path, rounds: int, groups: list[str]) -> Found:
    """The findings of all models of the groups, by seed; groups with missing models are skipped."""
    found: Found = {}
    for name in groups:
        models = GROUPS[name].models
        missing = [kind for kind in models if not weights_file(kind).exists()]
        if missing:
            print(f"skipped: {name}, missing models: {', '.join(missing)}", flush=True)
            continue
        for seed in range(GROUPS[name].seeds):
            for kind in models:
                findings = search(data, out, name, kind, seed, rounds)
                found.setdefault((name, kind), []).append(findings)
    return found


def claim_1(found: Found) -> Iterator[str]:
    natural, short = found["kinds", "natural"], found["robust", "natural_short"]
    yield from tables.predictive({"natural": natural, "natural_short": short}, CLASS_NAMES)
    yield ""
    yield from tables.each_class(natural, CLASS_NAMES)


def claim_2(found: Found, data: Path) -> Iterator[str]:
    natural, backdoored = (found["kinds", name] for name in ("natural", "backdoored"))
    yield from backdoor.suspicious({"backdoored": backdoored}, natural, TARGET, CLASS_NAMES)
    pixels = changed_pixels(trigger(), parts(data, 0).images)
    yield f"\nThe trigger changes {int(pixels.sum())} of {pixels.numel()} pixels.\n"
    models = {
        "backdoored": backdoored,
        "one canvas of each kind": found["trigger_canvases", "backdoored"],
    }
    yield from backdoor.trigger_found(models, natural, TARGET, trigger(), pixels)


def other_triggers(found: Found) -> Iterator[str]:
    models = {name: found["no_patch", name] for name in ("blended", "clean_label")}
    clean = found["no_patch", "natural_short"]
    yield from backdoor.suspicious(models, clean, TARGET, CLASS_NAMES)


def claim_3(found: Found, data: Path, other: Path | None) -> Iterator[str]:
    models: dict[str, Classifier] = {name: model(name) for name in STAMPED_ON}
    if other:
        arch = "bring_your_own_model:WideResNet"
        models["another network"] = load_model(other, arch=arch, output=-1, mean=0, std=1)
    rows = [
        row
        for seed, findings in enumerate(found["kinds", "natural"])
        for row in stamped_on_others(data, findings, seed, models)
    ]
    yield from tables.transferred(rows)


def claim_4(found: Found) -> Iterator[str]:
    training = {
        "natural_short": "plain, 16 epochs",
        "robust4": "4/255, 8 epochs",
        "robust8": "8/255, 16 epochs",
    }
    models = {name: (how, found["robust", name]) for name, how in training.items()}
    natural = {"natural": ("plain, 64 epochs", found["kinds", "natural"])}
    yield from tables.shapes({**natural, **models}, AREA)
    yield ""
    (_, control), *_ = models.values()
    robust = {f"{name} - natural_short": models[name][1] for name in ("robust4", "robust8")}
    yield from tables.simpler(control, robust, AREA)


def canvases(found: Found) -> Iterator[str]:
    backdoored = found["trigger_canvases", "backdoored"]
    yield from tables.canvas_kinds(found["canvases", "natural"], CLASS_NAMES, backdoored, TARGET)


def epochs(found: Found, data: Path) -> Iterator[str]:
    _, _, *held_out = parts(data, 0)
    names = {str(epoch): f"natural_short_epoch{epoch}" for epoch in EPOCHS}
    names["16 (the last)"] = "natural_short"
    models = {
        label: (train_cifar10.accuracy(model(name), *held_out), found["epochs", name])
        for label, name in names.items()
    }
    yield from tables.over_training(models, AREA)


def random_labels(found: Found) -> Iterator[str]:
    models = {}
    for name in GROUPS["memorised"].models:  # the JSON of a model has its scores
        scores = json.loads(weights_file(name).with_suffix(".json").read_text())["test_set"]
        models[name] = scores, found["memorised", name]
    yield from tables.memorisation(models, CLASS_NAMES)


def all_tables(found: Found, data: Path, other: Path | None) -> Iterator[str]:
    """All tables for which there are findings, with headings."""
    sections: list[tuple[str, set[str], Iterator[str]]] = [
        ("Claim 1: predictive power on natural models", {"kinds", "robust"}, claim_1(found)),
        ("Claim 2: the backdoored class", {"kinds", "trigger_canvases"}, claim_2(found, data)),
        ("Claim 2: triggers that are not patches", {"no_patch"}, other_triggers(found)),
        ("Claim 3: clean patterns as triggers", {"kinds"}, claim_3(found, data, other)),
        ("Claim 4: shape and training epsilon", {"kinds", "robust"}, claim_4(found)),
        ("Which canvas", {"canvases", "trigger_canvases"}, canvases(found)),
        ("During training", {"epochs"}, epochs(found, data)),
        ("Random labels", {"memorised"}, random_labels(found)),
    ]
    for heading, needed, lines in sections:
        if needed <= {group for group, _ in found}:
            yield f"\n### {heading}\n"
            yield from lines


def trigger() -> Pattern:
    """The trigger of the backdoored model."""
    return train_cifar10.placed_trigger("backdoored").pattern(TARGET)


def draw_figures(found: Found, out: Path) -> None:
    """The two figures of docs/claims.md."""
    rows = {
        "natural": found["kinds", "natural"],
        "backdoored": found["kinds", "backdoored"],
        "robust, 4/255": found["robust", "robust4"],
        "robust, 8/255": found["robust", "robust8"],
    }
    kinds = ["positive", "white", "black", "grey", "noise"]
    backdoored = found["trigger_canvases", "backdoored"][0]
    patterns = class_patterns(rows, "positive", AREA)
    patterns.savefig(out / "paper_patterns.png", dpi=DPI)
    triggers = trigger_patterns(trigger(), backdoored, SMALL, kinds)
    triggers.savefig(out / "paper_trigger.png", dpi=DPI)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = parser_of(__doc__)
    parser.add_argument("data", type=Path, help="folder with CIFAR-10's test/<class>/*")
    parser.add_argument("--out", type=Path, default=Path("classpattern-paper"))
    parser.add_argument("--rounds", type=int, default=12, help="rounds per search")
    parser.add_argument("--only", nargs="*", choices=list(GROUPS), help="only these groups")
    parser.add_argument("--other", type=Path, help="checkpoint of bring_your_own_model.py")
    parser.add_argument("--protocol", choices=("ours", "authors"), default="ours")
    options = parser.parse_args(arguments)
    if options.protocol == "authors":
        if options.only or options.other or options.rounds != parser.get_default("rounds"):
            parser.error("--protocol authors takes no --only, --other or --rounds")
        with contextlib.redirect_stdout(sys.stderr):
            rows = protocol.measure(options.data, options.out / "protocol.jsonl")
        print(*protocol.tables(rows), sep="\n")
        return
    with contextlib.redirect_stdout(sys.stderr):  # standard output gets only the tables
        found = search_all(options.data, options.out, options.rounds, options.only or list(GROUPS))
    seeds = ", ".join(f"{name} {group.seeds}" for name, group in GROUPS.items())
    print(
        f"{options.rounds} rounds per search, {SEARCH:,} search images, {HELD_OUT} held-out images;"
    )
    print(f"models in bfloat16; seeds: {seeds}.")
    for row in all_tables(found, options.data, options.other):
        print(row)
    if not options.only:
        draw_figures(found, options.out)


if __name__ == "__main__":
    main()
