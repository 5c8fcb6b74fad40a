"""``classpattern demo``: the patterns of the embedded models, and the paper's claims."""

import json
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter
from tqdm import tqdm

from captum_classpattern._files import write_json
from captum_classpattern.cli.errors import interrupted
from captum_classpattern.cli.options import MAIN, ComputeOptions, OutputFolder, SearchOptions
from captum_classpattern.cli.printing import console, print_tables, write_figure

if TYPE_CHECKING:  # imported where they are used, so that --help needs no torch
    from captum_classpattern.surveys import Survey

ROUNDS = 6  # of each search: with 8 canvases about a sixth of the default's passes
CANVASES = {"positive": 8, "white": 1}
BATCH = 48  # images in one pass
COMPARED = (
    *("ClassPattern", "IntegratedGradients", "Saliency", "DeepLift", "GradientShap", "Occlusion"),
    *("RandomPixels", "BestCrop", "ClassMean"),  # controls
)
COMPARED_ROUNDS = 6
SMALL_COMPARISON: dict[str, Any] = {  # smaller than in classpattern compare
    "areas": (0.01, 0.05),
    "class_images": 0,
    "stamped": 1,
    "max_images": 100,
    "n_seeds": 2,
}


def demo(
    *,
    searches: ComputeOptions = ComputeOptions(),
    comparison: Annotated[bool, Parameter(negative="--no-comparison", group=MAIN)] = True,
    out: OutputFolder = Path("classpattern-demo"),
) -> None:
    """Find and check the patterns of three models that are included.

    For example:

        classpattern demo
        classpattern demo --no-comparison --out my_folder

    The models classify Fashion-MNIST: a natural one, a backdoored one and a robust one. All takes
    two to four minutes on two cores. If the folder holds an interrupted demo with the same
    options, it is continued. The results of any other demo in the folder are replaced.

    Args:
        comparison: End with a small comparison with Captum's methods.
        out: The folder for results.json, the figures and the patterns.
    """
    started = time.perf_counter()

    from captum_classpattern.attribution import versions
    from captum_classpattern.cli.demo_claims import make_verdicts
    from captum_classpattern.demo import demo_images, demo_trigger
    from captum_classpattern.scores.localisation import changed_pixels

    settings = {**searches.keywords(), "versions": versions()}
    _prepare(out, settings)
    surveys: dict[str, Survey] = {}

    def summary(*, complete: bool) -> dict[str, Any]:
        seconds = round(time.perf_counter() - started)
        return {"complete": complete, "seconds": seconds, **settings}

    def what_is_kept() -> str:
        _report(surveys, [], summary(complete=False), out)
        if count := sum(len(survey.finished) for survey in surveys.values()):
            return (
                f"the {count} finished patterns are in {out}; the same command continues from there"
            )
        return "no pattern was finished yet (all classes of a model are searched together)"

    with interrupted(what_is_kept):
        _search_all(surveys, out, searches)
    pixels = changed_pixels(demo_trigger(), demo_images().held_out.images)
    _report(surveys, make_verdicts(surveys, pixels), summary(complete=True), out)
    _scan(out / "scan", searches)
    if comparison:
        _compare(out / "comparison", searches)


def _prepare(out: Path, settings: dict[str, Any]) -> None:
    """Keeps the findings in the folder if they are of an unfinished demo with these settings, and
    removes those of any other demo."""
    from captum_classpattern.demo import MODELS
    from captum_classpattern.surveys.store import remove_findings

    path = out / "results.json"
    unfinished = {"complete": False, **settings, "rows": [], "verdicts": []}
    if path.exists():
        previous = json.loads(path.read_text())
        if "verdicts" not in previous:
            raise ValueError(f"{path} is not from a demo: pass another --out")
        if {**previous, "rows": []}.items() >= unfinished.items():
            print(f"Continuing the unfinished demo in {out}.")
            return
        for name in MODELS:
            remove_findings(out / name)
    out.mkdir(parents=True, exist_ok=True)
    write_json(unfinished, path)


def _search_all(surveys: "dict[str, Survey]", out: Path, searches: ComputeOptions) -> None:
    """Searches all classes of each model in its own folder, and draws the model's figure."""
    from captum_classpattern.demo import CLASS_NAMES, demo_images, demo_models
    from captum_classpattern.surveys import survey

    images = demo_images()
    for name, model in demo_models().items():
        surveys[name] = survey(
            model,
            images.search,
            images.held_out,
            classes_together=len(CLASS_NAMES),
            canvases=CANVASES,
            n_steps=ROUNDS,
            internal_batch_size=BATCH,
            show_progress=sys.stderr.isatty(),
            folder=out / name,
            resume=True,
            **searches.keywords(),
        )
        for _ in tqdm(surveys[name], desc=f"{name} model", unit="pattern"):
            pass
        title = f"Fashion-MNIST, {name} model: the best canvas of each class"
        figure, _ = surveys[name].plot(title=title, seed=searches.seed, use_pyplot=False)
        write_figure(figure, out / f"{name}.png")


def _report(
    surveys: "dict[str, Survey]", verdicts: list[dict[str, Any]], summary: dict[str, Any], out: Path
) -> None:
    """Writes results.json, and prints the tables and the verdicts."""
    from captum_classpattern.demo import TRIGGER_TARGET

    rows = [
        {"model": name, **finding.as_dict()}
        for name, survey in surveys.items()
        for finding in survey.finished
    ]
    results = {"trigger_target": TRIGGER_TARGET, "rows": rows, "verdicts": verdicts}
    write_json({**summary, **results}, out / "results.json")
    print_tables({f"{name} model": survey.finished for name, survey in surveys.items()})
    for verdict in verdicts:
        outcome = "holds" if verdict["holds"] else "FAILS"
        console().print(f"Claim {verdict['claim']} {outcome}: {verdict['text']}\n")
    if summary["complete"]:
        print(f"{len(rows)} patterns in {summary['seconds']} s.")
        print(f"Figures, patterns and results.json are in {out}.")


def _scan(out: Path, searches: ComputeOptions) -> None:
    """Asks of each model whether it is backdoored, and prints the verdicts."""
    from captum_classpattern.demo import demo_images, demo_models
    from captum_classpattern.scanning import ReferenceSet, scan

    images, references = demo_images(), ReferenceSet.load("demo")
    print(f"\nIs a model backdoored? Each one is compared with {len(references)} clean models.\n")
    for name, model in demo_models().items():
        found = scan(
            model,
            images.search,
            references=references,
            show_progress=sys.stderr.isatty(),
            **searches.keywords(),
        )
        found.save(out / name)
        console().print(f"{name} model, {found.verdict}: {found.reason}\n", markup=False)
    print(f"The figures and patterns of the scans are in {out}.\n")


def _compare(out: Path, searches: ComputeOptions) -> None:
    """Compares some methods on the three models, on every second class."""
    from captum_classpattern.cli.comparing import run_comparison
    from captum_classpattern.demo import CLASS_NAMES, demo_images, demo_models

    images = demo_images()
    _, code = run_comparison(
        demo_models(),
        images.search,
        images.held_out,
        range(0, len(CLASS_NAMES), 2),
        methods=COMPARED,
        searches=SearchOptions(n_steps=COMPARED_ROUNDS, **searches.keywords()),
        out=out,
        title="Fashion-MNIST: class patterns next to Captum's methods",
        show_progress=True,
        **SMALL_COMPARISON,
    )
    if code:
        raise SystemExit(code)
