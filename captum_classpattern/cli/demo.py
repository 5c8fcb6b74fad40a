"""``classpattern demo``: the patterns of the embedded models, and the paper's claims."""

import sys
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter
from tqdm import tqdm

from captum_classpattern.cli.options import OUTPUT, ComputeOptions, OutputFolder, SearchOptions
from captum_classpattern.cli.printing import console, draw_best, print_tables

if TYPE_CHECKING:  # imported where they are used, so that --help needs no torch
    from captum_classpattern.surveys.survey import Finding

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
    *,
    searches: ComputeOptions = ComputeOptions(),
    comparison: Annotated[bool, Parameter(negative="--no-comparison", group=OUTPUT)] = True,
    out: OutputFolder = Path("classpattern-demo"),
) -> None:
    """Find, check and show the class patterns of three embedded Fashion-MNIST models.

    For example:

        classpattern demo
        classpattern demo --no-comparison --out my_folder

    Args:
        comparison: End with a small comparison with Captum's other methods.
        out: The folder for results.json, the figures and the patterns.
    """
    started = time.perf_counter()
    seed, precision = searches.seed, searches.precision

    from captum_classpattern.demo import demo_images, demo_trigger
    from captum_classpattern.demo.story import make_verdicts
    from captum_classpattern.scores.localisation import changed_pixels

    out.mkdir(parents=True, exist_ok=True)
    findings: dict[str, list[Finding]] = {}
    try:
        _search_all(findings, out, seed, precision)
    except KeyboardInterrupt:
        _finish(findings, [], out, started, seed, complete=False)
        count = sum(map(len, findings.values()))
        kept = (
            f"the {count} finished patterns are in {out / 'patterns'}, their scores in "
            f"{out / 'results.json'}"
            if count
            else "no pattern was finished yet (all classes of a model are searched together)"
        )
        print(f"\nInterrupted: {kept}.", file=sys.stderr)
        raise SystemExit(130) from None
    pixels = changed_pixels(demo_trigger(), demo_images().held_out.images)
    verdicts = make_verdicts(findings, pixels)
    _finish(findings, verdicts, out, started, seed, complete=True)
    if comparison:
        _compare(out / "comparison", searches)


def _search_all(findings: "dict[str, list[Finding]]", out: Path, seed: int, precision: str) -> None:
    """Fills the findings, and writes each pattern as soon as it is there, each model's figure."""
    from captum_classpattern.demo import CLASS_NAMES, demo_images, demo_models
    from captum_classpattern.surveys.results import save_patterns
    from captum_classpattern.surveys.survey import CANVASES, survey

    images, models = demo_images(), demo_models()
    terminal = sys.stderr.isatty()
    total = len(models) * len(CLASS_NAMES) * len(CANVASES)
    with tqdm(total=total, desc="patterns", unit="pattern") as bar:
        for name, model in models.items():
            bar.set_postfix_str(f"{name} model")
            findings[name] = []
            for finding in survey(
                model,
                images.search,
                images.held_out,
                classes_together=len(CLASS_NAMES),
                n_steps=ROUNDS,
                seed=seed,
                precision=precision,
                internal_batch_size=BATCH,
                show_progress=terminal,
            ):
                save_patterns(finding, out / "patterns" / name)
                findings[name].append(finding)
                bar.update()
            draw_best(
                model,
                findings[name],
                images.held_out,
                out / f"{name}.png",
                f"Fashion-MNIST, {name} model: the better canvas of each class",
                seed,
            )


def _compare(out: Path, searches: ComputeOptions) -> None:
    """Compares some methods on the three models, on every second class."""
    from captum_classpattern.cli.comparing import run_comparison
    from captum_classpattern.comparison import compare
    from captum_classpattern.demo import CLASS_NAMES, demo_images, demo_models

    images = demo_images()
    run_comparison(
        partial(compare, **SMALL_COMPARISON),
        demo_models(),
        images.search,
        images.held_out,
        range(0, len(CLASS_NAMES), 2),
        methods=COMPARED,
        searches=SearchOptions(
            n_steps=COMPARED_ROUNDS, seed=searches.seed, precision=searches.precision
        ),
        out=out,
        title="Fashion-MNIST: class patterns next to Captum's methods",
        show_progress=True,
    )


def _finish(
    findings: "dict[str, list[Finding]]",
    verdicts: list[dict[str, Any]],
    out: Path,
    started: float,
    seed: int,
    *,
    complete: bool,
) -> None:
    """Writes results.json, and prints the tables and the verdicts."""
    from captum_classpattern.attribution import versions
    from captum_classpattern.demo import CLASS_NAMES, TRIGGER_TARGET
    from captum_classpattern.surveys.results import write_json

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
        print(
            f"{count} patterns in {seconds:.0f} s. Figures, patterns and results.json are in {out}."
        )
