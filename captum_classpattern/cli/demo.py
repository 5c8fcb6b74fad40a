"""``classpattern demo``: the patterns of the embedded models, and the paper's claims."""

import sys
import time
from pathlib import Path
from typing import Annotated, Any

import typer
from tqdm import tqdm

from captum_classpattern.attribution import versions
from captum_classpattern.cli.printing import console, draw_best, print_tables
from captum_classpattern.cli.side_by_side import choose_canvases, compared
from captum_classpattern.comparison import compare, known_methods
from captum_classpattern.demo import (
    CLASS_NAMES,
    TRIGGER_TARGET,
    demo_images,
    demo_models,
    demo_trigger,
)
from captum_classpattern.demo.story import tell
from captum_classpattern.metrics import changed_pixels
from captum_classpattern.results import save_patterns, write_json
from captum_classpattern.survey import CANVASES, Finding, survey

SCORED, AVERAGED = 100, 5  # of the comparison: held-out images; images of a class in its mean map
ROUNDS = 15  # of the default 80: all of it within a minute, and little weaker


def demo(
    out: Annotated[
        Path, typer.Option(help="Folder for results.json, figures and patterns.", file_okay=False)
    ] = Path("classpattern-demo"),
    seed: Annotated[int, typer.Option(min=0, max=2**63 - 1, help="Seed of the searches.")] = 0,
    comparison: Annotated[
        bool, typer.Option(help="End with the comparison with Captum's other methods.")
    ] = True,
) -> None:
    """Search, check and show the class patterns of three embedded Fashion-MNIST models."""
    started = time.perf_counter()
    out.mkdir(parents=True, exist_ok=True)
    findings: dict[str, list[Finding]] = {}
    try:
        _search_all(findings, out, seed)
    except KeyboardInterrupt:
        _finish(findings, [], out, started, seed, complete=False)
        count = sum(map(len, findings.values()))
        kept = (
            f"the {count} patterns that were finished are in {out / 'patterns'}, their scores in "
            f"{out / 'results.json'}"
            if count
            else "no pattern was finished yet (five classes are searched at a time)"
        )
        typer.echo(f"\nInterrupted: {kept}.", err=True)
        raise typer.Exit(130) from None
    pixels = changed_pixels(demo_trigger(), demo_images().held_out.images)
    verdicts = tell(findings, pixels)
    _finish(findings, verdicts, out, started, seed, complete=True)
    if comparison:
        _compare(out / "comparison", seed)


def _search_all(findings: dict[str, list[Finding]], out: Path, seed: int) -> None:
    """Fills the findings, and writes each pattern as soon as it is there, each model's figure."""
    images, models = demo_images(), demo_models()
    terminal = sys.stderr.isatty()
    total = len(models) * len(CLASS_NAMES) * len(CANVASES)
    with tqdm(total=total, desc="patterns", unit="pattern") as bar:
        for name, model in models.items():
            bar.set_postfix_str(f"{name} model")
            findings[name] = []
            for finding in survey(
                model,
                images.search.images,
                images.search.labels,
                images.held_out.images,
                images.held_out.labels,
                n_steps=ROUNDS,
                seed=seed,
                show_progress=terminal,
            ):
                save_patterns(finding, out / "patterns" / name)
                findings[name].append(finding)
                bar.update()
            draw_best(
                model,
                findings[name],
                images.held_out.images,
                images.held_out.labels,
                out / f"{name}.png",
                f"Fashion-MNIST, {name} model: the better canvas of each class",
                seed,
            )


def _compare(out: Path, seed: int) -> None:
    """Captum's methods and the class pattern side by side on the three models."""
    images, models = demo_images(), demo_models()
    search, held_out = images.search, images.held_out
    canvases, targets, kinds = choose_canvases(
        models, search.images, search.labels, range(len(CLASS_NAMES)), seed=seed
    )
    compared(
        out,
        "Fashion-MNIST: class patterns beside Captum's methods",
        lambda: compare(
            models,
            canvases,
            targets,
            baselines=search.images,
            baseline_labels=search.labels,
            images=held_out.images,
            labels=held_out.labels,
            methods=known_methods(search.images, search.labels, n_steps=ROUNDS),
            canvas_kinds=kinds,
            class_images=AVERAGED,
            max_images=SCORED,
            seed=seed,
            show_progress=True,
        ),
    )


def _finish(
    findings: dict[str, list[Finding]],
    verdicts: list[dict[str, Any]],
    out: Path,
    started: float,
    seed: int,
    *,
    complete: bool,
) -> None:
    """Writes results.json, and prints the tables and the verdicts."""
    seconds = time.perf_counter() - started
    write_json(
        {
            "complete": complete,
            "seconds": round(seconds, 1),
            "seed": seed,
            "versions": versions(),
            "trigger_target": TRIGGER_TARGET,
            "rows": [
                {"model": name, "class_name": CLASS_NAMES[finding.target], **finding.as_dict()}
                for name, found in findings.items()
                for finding in found
            ],
            "verdicts": verdicts,
        },
        out / "results.json",
    )
    print_tables({f"{name} model": found for name, found in findings.items()}, CLASS_NAMES)
    for verdict in verdicts:
        outcome = "holds" if verdict["holds"] else "FAILS"
        console().print(f"Claim {verdict['claim']} {outcome}: {verdict['text']}\n")
    if complete:
        count = sum(map(len, findings.values()))
        typer.echo(
            f"{count} patterns in {seconds:.0f} s. Figures, patterns and results.json are in {out}."
        )
