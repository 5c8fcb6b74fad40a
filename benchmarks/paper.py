"""The paper's claims on CIFAR-10, each with its controls; prints the tables of docs/claims.md.

    python benchmarks/paper.py DATA --out FOLDER

DATA holds ``test/<class>/*`` images of CIFAR-10; the models are those of ``tutorials/models``, and
the weights that ``train_cifar10.py natural_short --keep 1 2 4 8 12`` leaves there. A seed draws
which test images are searched with (2,000) and which are held out (500), and seeds the searches.
Findings are kept in FOLDER, so that an interrupted run goes on; ``--search GROUP`` only searches.
All groups take about two hours of one core.
"""

import argparse
import contextlib
import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import paper_tables as tables
from paper_figures import class_patterns, trigger_patterns
from paper_search import (
    CLASS_NAMES,
    EPOCHS,
    GROUPS,
    accuracy,
    parts,
    search,
    stamped_on_others,
    weights_file,
)
from paper_tables import Seeds
from problems import train_cifar10

from captum_classpattern.metrics import changed_pixels

AREA, SMALL, TARGET = 0.05, 0.01, train_cifar10.TARGET
Found = dict[tuple[str, str], Seeds]  # by group and model


def search_all(data: Path, out: Path, rounds: int, groups: list[str]) -> Found:
    """The findings of all models of the groups, seed by seed."""
    return {
        (name, model): [
            search(data, out, name, model, seed, rounds) for seed in range(GROUPS[name].seeds)
        ]
        for name in groups
        for model in GROUPS[name].models
    }


def all_tables(found: Found, data: Path) -> Iterator[str]:
    """Every table with its heading; a claim's own tables first."""
    natural, backdoored = (found["kinds", name] for name in ("natural", "backdoored"))
    clean = {"natural, short training": found["robust", "natural_short"]}
    trigger = train_cifar10.placed_trigger("backdoored").pattern(TARGET)
    pixels = changed_pixels(trigger, parts(data, 0).images)
    yield "\n### Claim 1: predictive power on natural models\n"
    yield from tables.predictive({"natural": natural, **clean}, CLASS_NAMES)
    yield ""
    yield from tables.each_class(natural, CLASS_NAMES)
    yield "\n### Claim 2: the backdoor's class\n"
    yield from tables.suspicious({"backdoored": backdoored}, natural, TARGET, CLASS_NAMES)
    yield f"\nThe trigger changes {int(pixels.sum())} of {pixels.numel()} pixels.\n"
    sources = {"backdoored": backdoored, "one canvas": found["trigger_canvases", "backdoored"]}
    yield from tables.trigger_found(sources, natural, TARGET, pixels)
    yield "\n### Claim 2: triggers that are no patch (one seed)\n"
    no_patch = {name: found["no_patch", name] for name in ("blended", "clean_label")}
    short = found["no_patch", "natural_short"]
    yield from tables.suspicious(no_patch, short, TARGET, CLASS_NAMES)
    yield "\n### Claim 3: patterns of the natural model as triggers\n"
    rows = [
        row
        for seed, findings in enumerate(natural)
        for row in stamped_on_others(data, findings, seed)
    ]
    yield from tables.transferred(rows)
    yield "\n### Claim 4: shape against the training epsilon\n"
    yield from tables.shapes(
        {
            "natural": ("0", natural),
            "natural_short": ("0", found["robust", "natural_short"]),
            "robust4": ("4/255", found["robust", "robust4"]),
            "robust8": ("8/255", found["robust", "robust8"]),
        },
        AREA,
    )
    yield "\n### Which canvas (one of each kind)\n"
    on_trigger = found["trigger_canvases", "backdoored"]
    yield from tables.canvas_kinds(found["canvases", "natural"], CLASS_NAMES, on_trigger, TARGET)
    yield "\n### As training goes on (one seed, one positive canvas)\n"
    held_out = parts(data, 0).held_out, parts(data, 0).held_out_labels
    names = {str(epoch): f"natural_short_epoch{epoch}" for epoch in EPOCHS}
    names["16, the last"] = "natural_short"
    yield from tables.over_training(
        {
            label: (accuracy(name, *held_out), found["epochs", name])
            for label, name in names.items()
        },
        AREA,
    )
    yield "\n### Random labels (one seed)\n"
    by_heart = {
        name: (scores_of(name), found["by_heart", name]) for name in GROUPS["by_heart"].models
    }
    yield from tables.learnt_by_heart(by_heart, CLASS_NAMES)


def scores_of(name: str) -> dict[str, float]:
    """What the JSON beside a model says that it does on the test set, and on what it has learnt."""
    return json.loads(weights_file(name).with_suffix(".json").read_text())["test_set"]


def draw_figures(found: Found, out: Path) -> None:
    """The two figures of docs/claims.md."""
    rows = {
        "natural": found["kinds", "natural"],
        "backdoored": found["kinds", "backdoored"],
        "robust, 4/255": found["robust", "robust4"],
        "robust, 8/255": found["robust", "robust8"],
    }
    figures: dict[str, Callable] = {
        "paper_patterns": lambda: class_patterns(rows, CLASS_NAMES, "positive", AREA),
        "paper_trigger": lambda: trigger_patterns(
            train_cifar10.placed_trigger("backdoored").pattern(TARGET),
            {"backdoored": found["trigger_canvases", "backdoored"][0]},
            TARGET,
            SMALL,
            ["positive", "white", "black", "grey", "noise"],
        ),
    }
    for name, draw in figures.items():
        draw().savefig(out / f"{name}.png", dpi=110)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path, help="folder that holds CIFAR-10's test/<class>/*")
    parser.add_argument("--out", type=Path, default=Path("classpattern-paper"))
    parser.add_argument("--rounds", type=int, default=40, help="of each search")
    parser.add_argument("--search", nargs="*", choices=list(GROUPS), help="only search these")
    given = parser.parse_args()
    with contextlib.redirect_stdout(sys.stderr):  # the tables alone on the standard output
        found = search_all(given.data, given.out, given.rounds, given.search or list(GROUPS))
    if given.search:
        return
    for text in all_tables(found, given.data):
        print(text)
    draw_figures(found, given.out)


if __name__ == "__main__":
    main()
