"""``classpattern demo``: the patterns of the embedded models, and the paper's claims."""

import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from tqdm import tqdm

from captum_classpattern.cli import options
from captum_classpattern.cli.printing import console, friendly_errors, print_tables, write_figure

if TYPE_CHECKING:  # imported by the command alone, so that --help answers at once
    from captum_classpattern.surveys import Survey

ROUNDS = 15  # of the default 80: a search takes a fifth of the time, and is little weaker
BATCH = 48  # images in one pass: a step of one canvas a class is 40
COMPARED = (
    *("ClassPattern", "IntegratedGradients", "Saliency", "DeepLift", "GradientShap", "Occlusion"),
    *("RandomPixels", "BestCrop", "ClassMean"),  # controls
)
COMPARED_ROUNDS = 10
SMALL_COMPARISON: dict[str, Any] = {  # classpattern compare has more of all of these
    "areas": (0.01, 0.05),
    "class_images": 0,
    "stamped": 1,
    "max_images": 100,
    "n_seeds": 2,
}


def demo(
    out: Annotated[
        Path, typer.Option(help="Folder for results.json, figures and patterns.", file_okay=False)
    ] = Path("classpattern-demo"),
    seed: Annotated[int, typer.Option(min=0, max=2**63 - 1, help="Seed of the searches.")] = 0,
    comparison: Annotated[
        bool, typer.Option(help="End with a small comparison with Captum's other methods.")
    ] = True,
    precision: options.Precision = "auto",
) -> None:
    """Search, check and show the class patterns of three embedded Fashion-MNIST models."""
    with friendly_errors():
        options.check_precision(precision)
        _demo(out, seed, precision, comparison=comparison)


def _demo(out: Path, seed: int, precision: str, *, comparison: bool) -> None:
    started = time.perf_counter()

    from captum_classpattern.demo import demo_images, demo_trigger
    from captum_classpattern.demo.claims import make_verdicts
    from captum_classpattern.scores.localisation import changed_pixels

    out.mkdir(parents=True, exist_ok=True)
    surveys: dict[str, Survey] = {}
    try:
        _search_all(surveys, out, seed, precision)
    except KeyboardInterrupt:
        _finish(surveys, [], out, started, seed, complete=False)
        count = sum(len(survey.found) for survey in surveys.values())
        kept = (
            f"the {count} patterns that were finished are in {out}; the same command goes on there"
            if count
            else "no pattern was finished yet (all classes of a model are searched together)"
        )
        typer.echo(f"\nInterrupted: {kept}.", err=True)
        raise typer.Exit(130) from None
    pixels = changed_pixels(demo_trigger(), demo_images().held_out.images)
    _finish(surveys, make_verdicts(surveys, pixels), out, started, seed, complete=True)
    if comparison:
        _compare(out / "comparison", seed, precision)


def _search_all(surveys: "dict[str, Survey]", out: Path, seed: int, precision: str) -> None:
    """Searches all classes of each model in a folder of its own, and draws the model's figure."""
    from captum_classpattern.demo import CLASS_NAMES, demo_images, demo_models
    from captum_classpattern.surveys import survey

    images = demo_images()
    for name, model in demo_models().items():
        surveys[name] = survey(
            model,
            images.search,
            images.held_out,
            classes_together=len(CLASS_NAMES),
            n_steps=ROUNDS,
            seed=seed,
            precision=precision,
            internal_batch_size=BATCH,
            show_progress=sys.stderr.isatty(),
            folder=out / name,
            resume=True,
        )
        for _ in tqdm(surveys[name], desc=f"{name} model", unit="pattern"):
            pass
        title = f"Fashion-MNIST, {name} model: the best canvas of each class"
        figure, _ = surveys[name].plot(title=title, seed=seed, use_pyplot=False)
        write_figure(figure, out / f"{name}.png")


def _compare(out: Path, seed: int, precision: str) -> None:
    """Some of Captum's methods and the class pattern side by side on the three models, on every
    second class."""
    from captum_classpattern.cli.side_by_side import choose_canvases, compared
    from captum_classpattern.comparison import compare, known_methods
    from captum_classpattern.demo import CLASS_NAMES, demo_images, demo_models

    images, models = demo_images(), demo_models()
    search, held_out = images.search, images.held_out
    canvases, targets, kinds = choose_canvases(
        models, search, range(0, len(CLASS_NAMES), 2), seed=seed
    )
    compared(
        out,
        "Fashion-MNIST: class patterns next to Captum's methods",
        lambda: compare(
            models,
            canvases,
            targets,
            search=search,
            held_out=held_out,
            methods=known_methods(
                search,
                names=COMPARED,
                n_steps=COMPARED_ROUNDS,
                precision=precision,
            ),
            canvas_kinds=kinds,
            seed=seed,
            show_progress=True,
            **SMALL_COMPARISON,
        ),
    )


def _finish(
    surveys: "dict[str, Survey]",
    verdicts: list[dict[str, Any]],
    out: Path,
    started: float,
    seed: int,
    *,
    complete: bool,
) -> None:
    """Writes results.json, and prints the tables and the verdicts."""
    from captum_classpattern.attribution import versions
    from captum_classpattern.demo import TRIGGER_TARGET
    from captum_classpattern.surveys.store import write_json

    found = {f"{name} model": survey.found for name, survey in surveys.items()}
    seconds = time.perf_counter() - started
    write_json(
        {
            "complete": complete,
            "seconds": round(seconds, 1),
            "seed": seed,
            "versions": versions(),
            "trigger_target": TRIGGER_TARGET,
            "rows": [
                {"model": name, **finding.as_dict()}
                for name, survey in surveys.items()
                for finding in survey.found
            ],
            "verdicts": verdicts,
        },
        out / "results.json",
    )
    print_tables(found)
    for verdict in verdicts:
        outcome = "holds" if verdict["holds"] else "FAILS"
        console().print(f"Claim {verdict['claim']} {outcome}: {verdict['text']}\n")
    if complete:
        count = sum(map(len, found.values()))
        typer.echo(
            f"{count} patterns in {seconds:.0f} s. Figures, patterns and results.json are in {out}."
        )
