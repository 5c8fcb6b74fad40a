"""``classpattern demo``: the patterns of the embedded models, and the paper's claims."""

import json
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import mean
from typing import Annotated, Any, TypeAlias

from cyclopts import Parameter
from tqdm import tqdm

import captum_classpattern as cp
from captum_classpattern._files import write_figure, write_json
from captum_classpattern.cli.compare import run_comparison
from captum_classpattern.cli.errors import interrupted
from captum_classpattern.cli.options import ComputeOptions, OutputFolder, SearchOptions
from captum_classpattern.cli.printing import console, print_tables

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
Verdict: TypeAlias = dict[str, Any]
ALMOST_ANY = 0.9
LOCATED = 0.5  # IoU: two thirds of the pixels coincide


def demo(
    *,
    searches: ComputeOptions = ComputeOptions(),
    comparison: Annotated[bool, Parameter(negative="--no-comparison")] = True,
    out: OutputFolder = Path("classpattern-demo"),
) -> int:
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
    from captum_classpattern.scores.localisation import changed_pixels

    images, settings = cp.demo_images(), {**searches.keywords(), "versions": versions()}
    _prepare(out, settings)
    surveys: dict[str, cp.Survey] = {}

    def report(verdicts: Sequence[Verdict] = (), *, complete: bool = False) -> dict[str, Any]:
        """Writes results.json, which is returned, and prints the tables."""
        rows = [
            {"model": name, **finding.as_dict()}
            for name, survey in surveys.items()
            for finding in survey.finished
        ]
        results = {
            "complete": complete,
            "seconds": round(time.perf_counter() - started),
            **settings,
            "trigger_target": cp.demo.TRIGGER_TARGET,
            "rows": rows,
            "verdicts": verdicts,
        }
        write_json(results, out / "results.json")
        print_tables({f"{name} model": survey.finished for name, survey in surveys.items()})
        return results

    def what_is_kept() -> str:
        if count := len(report()["rows"]):
            return (
                f"the {count} finished patterns are in {out}; the same command continues from there"
            )
        return "no pattern was finished yet (all classes of a model are searched together)"

    with interrupted(what_is_kept):
        for name, model in cp.demo_models().items():
            surveys[name] = cp.survey(
                model,
                images.search,
                images.held_out,
                classes_together=len(cp.demo.CLASS_NAMES),
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
    pixels = changed_pixels(cp.demo.demo_trigger(), images.held_out.images)
    verdicts = make_verdicts(surveys, pixels)
    written = report(verdicts, complete=True)
    for verdict in verdicts:
        outcome = "holds" if verdict["holds"] else "FAILS"
        console().print(f"Claim {verdict['claim']} {outcome}: {verdict['text']}\n")
    print(f"{len(written['rows'])} patterns in {written['seconds']} s.")
    print(f"Figures, patterns and results.json are in {out}.")
    _scan(out / "scan", searches)
    return _compare(out / "comparison", searches) if comparison else 0


def _prepare(out: Path, settings: Mapping[str, Any]) -> None:
    """Keeps the findings in the folder if they are of an unfinished demo with these settings, and
    removes those of any other demo."""
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
        for name in cp.demo.MODELS:
            remove_findings(out / name)
    out.mkdir(parents=True, exist_ok=True)
    write_json(unfinished, path)


def _scan(out: Path, searches: ComputeOptions) -> None:
    """Asks of each model whether it is backdoored, and prints the verdicts."""
    images, references = cp.demo_images(), cp.ReferenceSet.load("demo")
    print(f"\nIs a model backdoored? Each one is compared with {len(references)} clean models.\n")
    for name, model in cp.demo_models().items():
        found = cp.scan(
            model,
            images.search,
            references=references,
            show_progress=sys.stderr.isatty(),
            **searches.keywords(),
        )
        found.save(out / name)
        console().print(f"{name} model, {found.verdict}: {found.reason}\n", markup=False)
    print(f"The figures and patterns of the scans are in {out}.\n")


def _compare(out: Path, searches: ComputeOptions) -> int:
    """Compares some methods on the three models, on every second class. Returns the exit code."""
    images, classes = cp.demo_images(), range(0, len(cp.demo.CLASS_NAMES), 2)
    _, code = run_comparison(
        cp.demo_models(),
        (images.search, images.held_out),
        SearchOptions(classes=[classes], n_steps=COMPARED_ROUNDS, **searches.keywords()),
        out,
        "Fashion-MNIST: class patterns next to Captum's methods",
        methods=COMPARED,
        show_progress=True,
        **SMALL_COMPARISON,
    )
    return code


# ---- the paper's claims, checked on the demo's numbers


def make_verdicts(surveys: "Mapping[str, cp.Survey]", trigger_pixels: Any) -> list[Verdict]:
    """Which claims hold, and why, each with a control.

    Args:
        surveys (Mapping[str, Survey]): The survey of each of the three models.
        trigger_pixels (Tensor): The pixels that the true trigger changes, bool (1, H, W).

    Returns:
        *list[dict]*: ``claim``, ``model``, ``holds`` and ``text`` of each verdict.
    """
    backdoored = surveys["backdoored"]
    return [
        *(_small_patterns(name, survey) for name, survey in surveys.items()),
        *(
            _stands_out(surveys, canvas, area)
            for canvas in backdoored.canvases
            for area in backdoored.areas
        ),
        _trigger_located(surveys, trigger_pixels),
    ]


def _small_patterns(model: str, survey: "cp.Survey") -> Verdict:
    """Claim 1: one small pattern per class makes the model predict the class on almost any
    image."""
    from captum_classpattern.scores.intervals import mean_over_classes

    area = survey.areas[0]
    scores = {f.target: f.scores[area] for f in survey.best_canvases()}
    power = {y: s.power.value for y, s in scores.items()}
    weakest, strongest = min(power, key=power.__getitem__), max(power, key=power.__getitem__)
    average = mean_over_classes({y: [(s.power.value, s.power.interval)] for y, s in scores.items()})
    low, high = average.interval
    failing = [y for y, s in scores.items() if not s.beats_controls]
    almost = [y for y, value in power.items() if value >= ALMOST_ANY]
    by_canvas = {
        canvas: mean(s.power.value for s in survey.scores(canvas, area).values())
        for canvas in survey.canvases
    }
    without, random_pixels, other_canvas = (
        mean(s.controls[name] for s in scores.values())
        for name in ("no pattern", "random pixels", "other canvas")
    )
    text = (
        f"{model} model, {area:.0%} of the pixels: with the class's best canvas, chosen on search "
        f"images, the pattern turns {average.value:.1%} of the held-out images of other classes "
        f"into its class on average ({100 * low:.1f}-{100 * high:.1f}, {average.description}), "
        f"from {power[weakest]:.1%} ({_names(weakest)}) to "
        f"{power[strongest]:.1%} ({_names(strongest)}). Average by canvas: "
        + ", ".join(f"{canvas} {value:.1%}" for canvas, value in by_canvas.items())
        + f". Controls: no pattern {without:.1%}, random pixels {random_pixels:.1%}, same mask "
        f"over another class's canvas {other_canvas:.1%}. "
        f"{len(scores) - len(failing)} of {len(scores)} classes beat all three controls"
        + (f"; {_names(*failing)} do not" if failing else "")
        + f". 'Almost any image' ({ALMOST_ANY:.0%} or more) holds for "
        + (f"{_names(*almost)} only." if almost else "no class.")
    )
    return {"claim": 1, "model": model, "holds": len(almost) == len(power), "text": text}


def _stands_out(surveys: "Mapping[str, cp.Survey]", canvas: str, area: float) -> Verdict:
    """Claim 2: on a backdoored model, the pattern of the trigger's class stands out."""
    from captum_classpattern.surveys import stands_out

    trigger, against = cp.demo.TRIGGER_TARGET, {}
    for model in ("backdoored", "natural"):
        scores = surveys[model].scores(canvas, area)
        rival = max((y for y in scores if y != trigger), key=lambda y: scores[y].power.value)
        own, other = (f"{scores[y].power.value:.1%}" for y in (trigger, rival))
        against[model] = own, other, _names(rival)
    holds = stands_out(
        surveys["backdoored"].scores(canvas, area), trigger, len(cp.demo.CLASS_NAMES)
    )
    text = (
        f"{canvas} canvas, {area:.0%} of the pixels: the backdoor's class {_names(trigger)} "
        f"{'stands out' if holds else 'does not stand out'}, with "
        "{} against {} for the strongest other class, {}. ".format(*against["backdoored"])
        + "Control, the natural model: {} against {} ({}).".format(*against["natural"])
    )
    return {"claim": 2, "model": "backdoored", "holds": holds, "text": text}


def _trigger_located(surveys: "Mapping[str, cp.Survey]", pixels: Any) -> Verdict:
    """Whether the strongest pixels of the smallest pattern are those of the true trigger."""
    from captum_classpattern.scores.localisation import localisation_iou

    iou = {
        (model, f.target, f.canvas): localisation_iou(f.patterns[min(f.patterns)], pixels)
        for model in ("backdoored", "natural")
        for f in surveys[model]
    }
    trigger = cp.demo.TRIGGER_TARGET
    target = {c: v for (m, y, c), v in iou.items() if (m, y) == ("backdoored", trigger)}
    clean = [v for (m, y, _), v in iou.items() if (m, y) == ("natural", trigger)]
    others = [v for (m, y, _), v in iou.items() if m == "backdoored" and y != trigger]
    best = max(target.values())
    on_canvases = ", ".join(f"{value:.2f} on the {c} canvas" for c, value in target.items())
    holds = best >= LOCATED and best > max(*others, *clean)
    text = (
        f"the true trigger was {'found' if holds else 'not found'}. IoU of the pattern's "
        f"{int(pixels.sum())} strongest pixels with the {int(pixels.sum())} that the trigger "
        f"changes: {on_canvases}. Controls: at most {max(others):.2f} for the other classes of "
        f"this model, at most {max(clean):.2f} for this class on the natural model. (A canvas can "
        "only show those pixels of the trigger that it contains: a white canvas contains none of "
        "the black ones.)"
    )
    return {"claim": 2, "model": "backdoored", "holds": holds, "text": text}


def _names(*classes: int) -> str:
    return ", ".join(cp.demo.CLASS_NAMES[y] for y in classes)
