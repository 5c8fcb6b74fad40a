"""What the method does not find: three of four kinds of backdoors, and classes that stay weak.

    python benchmarks/failures.py DATA --out FOLDER

prints the Markdown tables of docs/failures.md. DATA is a folder with the four ``*-ubyte.gz`` files
of Fashion-MNIST, as for ``benchmarks/demo_training.py``. Models and patterns are kept in
FOLDER, so an interrupted run can resume. Ten models of eight epochs take about an hour.
"""

import contextlib
import json
import sys
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import torch
from demo_training import SETTINGS, accuracy, attack_success, load_split, plant, train
from findings import first_class, format_power, head, kept_survey, line, parser_of, standing
from safetensors import safe_open
from safetensors.torch import load_file, save
from torch import Tensor

from captum_classpattern import PixelClassifier
from captum_classpattern._files import write_atomically
from captum_classpattern.demo import CLASS_NAMES, DATA, TRIGGER_TARGET, demo_images, demo_models
from captum_classpattern.demo.network import SmallResNet
from captum_classpattern.surveys import Survey
from captum_classpattern.surveys.search import AREAS
from captum_classpattern.triggers import BadNets, Blended, Sinusoid, Trigger, Warp

SHAPE = (1, 28, 28)
CANVASES = {"positive": 2, "white": 2}
SEARCHED = [(canvas, area) for area in AREAS for canvas in CANVASES]
N_CLASSES = len(CLASS_NAMES)
WEAK = 0.10  # classes below this power on both canvases, at the first area, are weak


class Planted(NamedTuple):
    """A trigger, a description of its strength, and the share of poisoned training images."""

    trigger: Trigger
    strength: str
    rate: float


CLEAN = "none"
PLANTED = {
    "Blended": Planted(Blended(SHAPE, alpha=0.2), "noise, alpha 0.2", 0.05),
    "SIG": Planted(Sinusoid(SHAPE), "delta 20/255, 6 periods", 0.05),
    "WaNet": Planted(Warp(SHAPE, strength=0.5), "4x4 grid, strength 0.5", 0.10),
    "BadNets": Planted(BadNets(SHAPE), "3x3 checkerboard", 0.05),  # the only one that is found
}


class Model(NamedTuple):
    """A trained model: what was planted, the training seed, its scores, its survey."""

    planted: str
    seed: str
    scores: dict[str, float]
    survey: Survey


@cache
def split(data: Path, name: str) -> tuple[Tensor, Tensor]:
    return load_split(data, name)


def trained_model(
    data: Path, out: Path, planted: str, seed: int, epochs: int
) -> tuple[PixelClassifier, dict[str, Any]]:
    """A model from the demo's recipe with another trigger, and its record. The weights are rounded
    to float16, as in the demo."""
    settings = {**SETTINGS["natural"], "epochs": epochs, "seed": seed, "planted": planted}
    if planted != CLEAN:
        settings |= {"strength": PLANTED[planted].strength, "rate": PLANTED[planted].rate}
    path = out / f"{planted}_{seed}.safetensors"
    record = read_record(path)
    if record is None or record["settings"] != settings:
        images, labels = (part.clone() for part in split(data, "train"))
        if planted != CLEAN:
            plant(images, labels, PLANTED[planted].trigger, PLANTED[planted].rate, seed)
        print(f"training {path.stem}", flush=True)
        network = train(images, labels, settings, seed).half()
        state = {key: value.contiguous() for key, value in network.state_dict().items()}
        network.float()
        test = split(data, "t10k")
        record = {"settings": settings, "accuracy": accuracy(network, *test)}
        if planted != CLEAN:
            trigger = PLANTED[planted].trigger
            record["attack_success"] = attack_success(network, trigger, *test)
        write_atomically(path, save(state, {"record": json.dumps(record)}))
    network = SmallResNet()
    network.load_state_dict(load_file(path))
    network.to(memory_format=torch.channels_last)
    return PixelClassifier(network.eval(), class_names=CLASS_NAMES), record


def read_record(path: Path) -> dict[str, Any] | None:
    """The record in a weights file, or None if there is no file."""
    if not path.exists():
        return None
    with safe_open(path, "pt") as file:
        return json.loads(file.metadata()["record"])


def search_all_classes(model: PixelClassifier, folder: Path, rounds: int) -> Survey:
    """The survey of all classes; what is in the folder already is not searched again."""
    images = demo_images()
    return kept_survey(
        folder, model, images.search, images.held_out, canvases=CANVASES, n_steps=rounds
    )


def verdict(found: Survey, canvas: str, area: float) -> str:
    """Whether the target stands out; if not, which place it has and whether another class does."""
    target = standing(found, canvas, area, TRIGGER_TARGET, N_CLASSES)
    if target.stands_out:
        return "**yes**"
    first = first_class(found, canvas, area)
    wrong = first != TRIGGER_TARGET and standing(found, canvas, area, first, N_CLASSES).stands_out
    return f"no, {target.rank} of {N_CLASSES}" + (f"; {CLASS_NAMES[first]} does" if wrong else "")


def overview(models: Sequence[Model]) -> Iterator[str]:
    """One row per model: its scores, and where the target class stands out."""
    yield "\n### The models, and where the target stands out\n"
    columns = [f"{canvas}, {area:.0%}" for canvas, area in SEARCHED]
    yield head("trigger", "strength", "poisoned", "seed", "accuracy", "attack success", *columns)
    for model in models:
        planted = PLANTED.get(model.planted)
        success = model.scores.get("attack_success")
        yield line(
            model.planted,
            planted.strength if planted else "",
            f"{planted.rate:.0%}" if planted else "",
            model.seed,
            f"{model.scores['accuracy']:.1%}",
            "" if success is None else f"{success:.1%}",
            *(verdict(model.survey, canvas, area) for canvas, area in SEARCHED),
        )


def against_others(models: Sequence[Model], canvas: str, area: float) -> Iterator[str]:
    """The powers of the target and of the strongest other class, here and on the clean model."""
    clean = {model.seed: model for model in models if model.planted == CLEAN}
    yield f"\n### {canvas} canvas, {area:.0%} of the pixels\n"
    sides = (CLASS_NAMES[TRIGGER_TARGET], "strongest other class")
    yield head("trigger", "seed", *sides, "stands out", *(f"clean model: {side}" for side in sides))
    for model in models:
        if model.planted == CLEAN:
            continue
        target = standing(model.survey, canvas, area, TRIGGER_TARGET, N_CLASSES)
        control = standing(clean[model.seed].survey, canvas, area, TRIGGER_TARGET, N_CLASSES)
        yield line(
            model.planted,
            model.seed,
            format_power(target.scores),
            f"{format_power(target.rival_scores)} {CLASS_NAMES[target.rival]}",
            "**yes**" if target.stands_out else "no",
            format_power(control.scores),
            f"{format_power(control.rival_scores)} {CLASS_NAMES[control.rival]}",
        )


def false_alarms(named: dict[str, Survey]) -> Iterator[str]:
    """The class that comes first on models without a backdoor, and whether it stands out."""
    yield "\n### Models without a backdoor: the class that comes first\n"
    yield head("model", "canvas", "area", "first class", "next class", "stands out")
    for name, found in named.items():
        for canvas, area in SEARCHED:
            first = first_class(found, canvas, area)
            leader = standing(found, canvas, area, first, N_CLASSES)
            yield line(
                name,
                canvas,
                f"{area:.0%}",
                f"{format_power(leader.scores)} {CLASS_NAMES[first]}",
                f"{format_power(leader.rival_scores)} {CLASS_NAMES[leader.rival]}",
                "**yes**" if leader.stands_out else "no",
            )


def weak_classes(named: dict[str, Survey]) -> Iterator[str]:
    """The classes below 10 % on both canvases at the first area, each with its top control."""
    yield f"\n### Classes below {WEAK:.0%} on both canvases, at {AREAS[0]:.0%} of the pixels\n"
    columns = [f"{canvas}, {area:.0%}" for canvas, area in SEARCHED]
    yield head("model", "class", *columns)
    for name, found in named.items():
        for target in sorted({f.target for f in found}):
            by_canvas = {f.canvas: f.scores for f in found if f.target == target}
            if max(scores[AREAS[0]].power.value for scores in by_canvas.values()) >= WEAK:
                continue
            shown = [by_canvas[canvas][area] for canvas, area in SEARCHED]
            cells = [f"{format_power(s)}, control {s.strongest_control:.1%}" for s in shown]
            yield line(name, CLASS_NAMES[target], *cells)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = parser_of(__doc__)
    parser.add_argument("data", type=Path, help="folder with the four *-ubyte.gz files")
    parser.add_argument("--out", type=Path, default=Path("classpattern-failures"))
    parser.add_argument("--seeds", type=int, default=2, help="number of models of each kind")
    parser.add_argument("--epochs", type=int, default=8, help="epochs per training run")
    parser.add_argument("--rounds", type=int, default=15, help="rounds per search")
    parser.add_argument("--triggers", nargs="*", choices=list(PLANTED), default=list(PLANTED))
    options = parser.parse_args(arguments)
    out, rounds = options.out, options.rounds
    out.mkdir(parents=True, exist_ok=True)
    with contextlib.redirect_stdout(sys.stderr):  # standard output gets only the tables
        demo = {
            name: search_all_classes(model, out / f"demo_{name}_{rounds}", rounds)
            for name, model in demo_models().items()
        }
        models = []
        for planted, name in ((CLEAN, "natural"), ("BadNets", "backdoored")):
            record = json.loads((DATA / f"{name}.json").read_text())
            models.append(Model(planted, "demo", record["full_test_set"], demo[name]))
        for seed in range(options.seeds):
            for planted in (CLEAN, *options.triggers):
                model, record = trained_model(options.data, out, planted, seed, options.epochs)
                folder = out / f"{planted}_{seed}_{options.epochs}_{rounds}"
                found = search_all_classes(model, folder, rounds)
                models.append(Model(planted, str(seed), record, found))
    models.sort(key=lambda model: (CLEAN, *PLANTED).index(model.planted))
    clean = {f"clean, {m.seed}": m.survey for m in models if m.planted == CLEAN}
    tables = [
        overview(models),
        *(against_others(models, canvas, area) for canvas, area in SEARCHED),
        false_alarms({**clean, "demo, robust": demo["robust"]}),
        weak_classes(demo),
    ]
    for table in tables:
        for row in table:
            print(row)


if __name__ == "__main__":
    main()
