"""``classpattern demo``: what there is to find in the embedded models, as a page."""

import json
import shutil
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, cast

from cyclopts import Parameter

import captum_classpattern as cp
from captum_classpattern._files import write_atomically, write_figure, write_json
from captum_classpattern.cli.compare import run_comparison
from captum_classpattern.cli.errors import interrupted
from captum_classpattern.cli.options import ComputeOptions, OutputFolder, SearchOptions
from captum_classpattern.cli.printing import say

ROUNDS = 6  # of each search: with 4 canvases about a sixth of the default's passes
CANVASES = {"positive": 4, "white": 1}
BATCH = 48  # images in one pass
COMPARED = (
    *("ClassPattern", "IntegratedGradients", "Saliency", "DeepLift", "GradientShap", "Occlusion"),
    *("GuidedGradCam", "RandomPixels", "BestRandomMask", "ClassMean"),  # three controls
)
COMPARED_ROUNDS = 6
SMALL_COMPARISON: dict[str, Any] = {  # smaller than in classpattern compare
    "areas": (0.01, 0.05),
    "class_images": 0,
    "stamped": 1,
    "max_images": 100,
    "n_seeds": 1,
}
STAGES = (
    "search the patterns of all classes",
    "scan each model for a backdoor",
    "compare the patterns with Captum's methods",
)


def demo(
    *,
    searches: ComputeOptions = ComputeOptions(),
    comparison: Annotated[bool, Parameter(negative="--no-comparison")] = True,
    out: OutputFolder = Path("classpattern-demo"),
) -> None:
    """Find and check the patterns of three models that are included.

    For example:

        classpattern demo
        classpattern demo --no-comparison --out my_folder

    The models classify Fashion-MNIST: a natural one, a backdoored one and a robust one. The whole
    demo takes two to six minutes on two cores, depending on the processor. If the folder holds an
    interrupted demo with the same options, it is continued. The results of any other demo in the
    folder are replaced.

    Args:
        comparison: End with a small comparison with Captum's methods.
        out: The folder for index.html, which links everything else in it.
    """
    from captum_classpattern.attribution import versions
    from captum_classpattern.pages.kinds.finding import parts
    from captum_classpattern.pages.parts import render
    from captum_classpattern.pages.report_data import numbers_tables

    started, models = time.perf_counter(), cp.demo_models()
    settings = {**searches.keywords(), "versions": versions()}
    _prepare(out, settings)
    stages = STAGES if comparison else STAGES[:-1]
    print("Three small networks that classify clothes: natural, backdoored and robust.")
    with interrupted(lambda: f"the same command continues with what is missing in {out}"):
        _begin(stages, 0)
        surveys = {name: _search(model, name, out, searches) for name, model in models.items()}
        _begin(stages, 1)
        scans = {name: _scan(models[name], out / "scan" / name, searches) for name in models}
        compared = None
        if comparison:
            _begin(stages, 2)
            compared = _compare(out / "comparison", searches)
    planted = _planted(surveys["backdoored"])
    strongest = {name: survey.strongest_of_each() for name, survey in surveys.items()}
    found = what_was_found(planted, surveys, scans, compared)
    page = render(
        "demo.html",
        title="The demo: three models of Fashion-MNIST",
        found=found,
        planted=planted,
        pattern=parts(planted)[1],
        surveys=surveys,
        strongest=strongest,
        area=surveys["natural"].areas[0],
        scans=scans,
        numbers=numbers_tables(compared)[0] if compared else None,
    )
    write_atomically(out / "index.html", page)
    results: dict[str, Any] = {
        "complete": True,
        "seconds": round(time.perf_counter() - started),
        **settings,
        "rows": [
            {"model": name, **finding.as_dict()}
            for name, survey in surveys.items()
            for finding in survey.finished
        ],
        "verdicts": [
            {"model": name, "text": text} for name, each in strongest.items() for text in each
        ],
    }
    write_json(results, out / "results.json")
    say(" ".join(found))
    print(f"Finished in {results['seconds']} s. Open {out / 'index.html'}")


def _prepare(out: Path, settings: Mapping[str, Any]) -> None:
    """Keeps the findings in the folder if they are of an unfinished demo with these settings, and
    removes those of any other demo."""
    path = out / "results.json"
    unfinished = {"complete": False, **settings, "verdicts": []}
    if path.exists():
        previous = json.loads(path.read_text())
        if "verdicts" not in previous:
            raise ValueError(f"{path} is not from a demo: pass another --out")
        if previous == unfinished:
            print(f"Continuing the unfinished demo in {out}.")
            return
        for name in cp.demo.MODELS:
            shutil.rmtree(out / name, ignore_errors=True)
    out.mkdir(parents=True, exist_ok=True)
    write_json(unfinished, path)


def _begin(stages: Sequence[str], number: int) -> None:
    print(f"Stage {number + 1} of {len(stages)}: {stages[number]}", flush=True)


def _search(
    model: "cp.PixelClassifier", name: str, out: Path, searches: ComputeOptions
) -> "cp.Survey":
    """The patterns of all classes of a model, as a page and as a figure."""
    images = cp.demo_images()
    found = cp.survey(
        model,
        images.search,
        images.held_out,
        classes_together=len(cp.demo.CLASS_NAMES),
        canvases=CANVASES,
        n_steps=ROUNDS,
        show_progress=sys.stderr.isatty(),
        folder=out / name,
        resume=True,
        **replace(searches, internal_batch_size=searches.internal_batch_size or BATCH).keywords(),
    )
    for _ in found:  # it searches while it is iterated
        pass
    title = f"Fashion-MNIST, {name} model: the best canvas of each class"
    figure, _ = found.plot(title=title, use_pyplot=False)
    write_figure(figure, out / f"{name}.png")
    found.to_html(out / f"{name}.html")
    return found


def _scan(model: "cp.PixelClassifier", folder: Path, searches: ComputeOptions) -> "cp.Scan":
    """Whether a model is backdoored, as a page and as a figure."""
    scanned = cp.scan(
        model,
        cp.demo_images().search,
        references="demo",
        folder=folder,
        show_progress=sys.stderr.isatty(),
        **searches.keywords(),
    )
    found = cast("cp.Scan", scanned)  # since there are references
    found.save(folder)
    found.to_html(folder / "scan.html")
    return found


def _compare(out: Path, searches: ComputeOptions) -> "cp.Comparison":
    """Some methods on the three models, on every second class, as a report."""
    from captum_classpattern.comparison.metrics import CAPTUM, METRICS

    images, classes = cp.demo_images(), range(0, len(cp.demo.CLASS_NAMES), 2)
    found = run_comparison(
        cp.demo_models(),
        (images.search, images.held_out),
        SearchOptions(classes=[classes], n_steps=COMPARED_ROUNDS, **searches.keywords()),
        out,
        "Fashion-MNIST: class patterns next to Captum's methods",
        methods=COMPARED,
        metrics=[m for m in METRICS if not (m.table == CAPTUM or "stability" in m.name)],  # slow
        show_progress=sys.stderr.isatty(),
        **SMALL_COMPARISON,
    )
    if not found.settings["complete"]:
        raise KeyboardInterrupt
    return found


# ---- what was found


def _planted(survey: "cp.Survey") -> "cp.Finding":
    """The pattern of the trigger's class at the smallest area, on the canvas that did best when it
    was judged."""
    area, of_class = min(survey.areas), [f for f in survey if f.target == cp.demo.TRIGGER_TARGET]
    best = max(of_class, key=lambda finding: finding.search_powers[area])
    return replace(best, patterns={area: best.patterns[area]}, scores={area: best.scores[area]})


def what_was_found(
    planted: "cp.Finding",
    surveys: "Mapping[str, cp.Survey]",
    scans: "Mapping[str, cp.Scan]",
    comparison: "cp.Comparison | None",
) -> list[str]:
    """The results in sentences."""
    from captum_classpattern.pages.kinds.sweep import summary
    from captum_classpattern.scanning.decision import SUSPICIOUS

    pixels, power = int(planted.mask.sum()), planted.power
    best = {name: summary(survey.best_canvases()) for name, survey in surveys.items()}
    means = [f"{100 * found['power']:.1f} % ({name})" for name, found in best.items()]
    verdicts = [
        f"{name}, {scan.verdict}{f' ({scan.target_name})' * (scan.verdict == SUSPICIOUS)}"
        for name, scan in scans.items()
    ]
    strong = best["natural"]["first"]
    found = [
        f"Stamped with {pixels} pixels of a {planted.canvas} canvas, {100 * power.value:.1f} % of "
        f"the held-out images of other classes are predicted as {planted.label} by the backdoored "
        f"model, and {100 * power.without:.1f} % without them.",
        f"The scans: {'; '.join(verdicts)}.",
        f"With {100 * strong.area:.0f} % of the pixels, the mean power over all classes is "
        f"{', '.join(means)}.",
        f"A strong pattern does not prove a backdoor: on the natural model, that of {strong.label} "
        f"has {100 * strong.power.value:.1f} %.",
    ]
    for verdict in comparison.verdicts()[:1] if comparison else ():
        found.append(
            f"Next to Captum's methods, on some canvases of the {verdict['model']} model: "
            f"ClassPattern, {verdict['value']}; {verdict['control']}."
        )
    return found
