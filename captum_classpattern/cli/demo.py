"""``classpattern demo``: what there is to find in the embedded models, as a page."""

import json
import shutil
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean
from typing import Annotated, Any, cast

from cyclopts import Parameter

import captum_classpattern as cp
from captum_classpattern._files import write_atomically, write_figure, write_json
from captum_classpattern.cli.compare import run_comparison
from captum_classpattern.cli.errors import interrupted
from captum_classpattern.cli.options import ComputeOptions, OutputFolder, SearchOptions

BATCH = 48  # images in one pass
PLANTED_AREA, PLANTED_BUDGET = 0.01, 2_000  # of the first pattern
GRADIENTS = ("IntegratedGradients", "Saliency", "DeepLift", "GradientShap")


@dataclass(frozen=True)
class Length:
    """How much a demo searches and scores."""

    rounds: int  # of each search
    areas: tuple[float, ...]
    positive: int  # canvases of each class
    held_out: int  # images to score on
    scanned: tuple[str, ...]  # models
    compared: tuple[str, ...]  # models
    methods: tuple[str, ...]
    compared_areas: tuple[float, ...]


QUICK = Length(
    rounds=3,
    areas=(0.05,),
    positive=2,
    held_out=300,
    scanned=("backdoored",),
    compared=("natural",),
    methods=("ClassPattern", *GRADIENTS, "RandomPixels", "BestRandomMask"),
    compared_areas=(0.05,),
)
FULL = Length(
    rounds=6,
    areas=(0.05, 0.01),
    positive=4,
    held_out=1_000,
    scanned=("natural", "backdoored", "robust"),
    compared=("natural", "backdoored", "robust"),
    methods=(*QUICK.methods, "Occlusion", "GuidedGradCam"),
    compared_areas=(0.01, 0.05),
)


def demo(
    *,
    searches: ComputeOptions = ComputeOptions(),
    full: Annotated[bool, Parameter(negative="")] = False,
    comparison: Annotated[bool, Parameter(negative="--no-comparison")] = True,
    out: OutputFolder = Path("classpattern-demo"),
) -> None:
    """Find and check the patterns of three models that are included.

    For example:

        classpattern demo
        classpattern demo --full --out my_folder

    The models classify Fashion-MNIST: a natural one, a backdoored one and a robust one. The demo
    takes one to two minutes on two cores. Its page is there from the first pattern on. If the
    folder holds an interrupted demo with the same options, it is continued. The results of any
    other demo in the folder are replaced.

    Args:
        full: Search longer, score on more images, scan and compare all three models.
        comparison: End with a small comparison with Captum's methods.
        out: The folder for index.html, which links everything else in it.
    """
    from captum_classpattern.attribution import versions

    started, settings = time.perf_counter(), {**searches.keywords(), "full": full}
    _prepare(out, settings | {"versions": versions()})
    page = out / "index.html"
    with interrupted(f"the same command continues with what is missing in {out}"):
        for found in _findings(FULL if full else QUICK, comparison, out, searches):
            write_atomically(page, found.page())
            print(f"{found.last} {page} shows it.", flush=True)
    results = {
        "complete": True,
        "seconds": round(time.perf_counter() - started),
        **settings,
        "versions": versions(),
        "sentences": found.sentences,
        "rows": found.rows,
    }
    write_json(results, out / "results.json")
    print(f"Finished in {results['seconds']} s. Open {page}")


def _prepare(out: Path, settings: Mapping[str, Any]) -> None:
    """Keeps the findings in the folder if they are of an unfinished demo with these settings, and
    removes those of any other demo."""
    path = out / "results.json"
    unfinished = {"complete": False, **settings}
    if path.exists():
        previous = json.loads(path.read_text())
        if "complete" not in previous:
            raise ValueError(f"{path} is not from a demo: pass another --out")
        if previous == unfinished:
            print(f"Continuing the unfinished demo in {out}.")
            return
        for name in (*cp.demo.MODELS, "scan", "comparison"):
            shutil.rmtree(out / name, ignore_errors=True)
    out.mkdir(parents=True, exist_ok=True)
    write_json(unfinished, path)


@dataclass(frozen=True)
class Found:
    """What a demo has found so far: first the pattern of the trigger's class, then more."""

    last: str  # what was found last
    planted: "cp.surveys.Finding"
    surveys: "Mapping[str, cp.surveys.Survey]"
    scans: "Mapping[str, cp.scanning.Scan]"
    compared: "cp.comparison.Comparison | None" = None

    @property
    def sentences(self) -> list[str]:
        """The results in words."""
        planted, power = self.planted, self.planted.power
        found = [
            f"{int(planted.mask.sum())} pixels of a {planted.canvas} canvas make the backdoored "
            f"model predict {planted.label} for {100 * power.value:.1f} % of the held-out images "
            f"of other classes. Without them, it predicts {planted.label} for "
            f"{100 * power.without:.1f} %."
        ]
        best = {name: survey.best_canvases() for name, survey in self.surveys.items()}
        if best:
            means = (
                f"{100 * fmean(each.power.value for each in of_model):.1f} % ({name})"
                for name, of_model in best.items()
            )
            first = max(best["natural"], key=lambda each: each.power.value)
            found += [
                f"With {100 * first.area:.0f} % of the pixels, the mean power over the ten classes "
                f"is {', '.join(means)}.",
                "A strong pattern does not prove a backdoor: on the natural model, that of "
                f"{first.label} reaches {100 * first.power.value:.1f} %.",
            ]
        for name, scan in self.scans.items():
            words = ", ".join(filter(None, (scan.verdict, scan.target_name, scan.p_text)))
            found.append(f"Scan of the {name} model: {words}.")
        return found + ([self.compared.summary] if self.compared else [])

    @property
    def rows(self) -> list[dict[str, Any]]:
        """A row for each model, class and kind of canvas."""
        return [
            {"model": name, **finding.as_dict()}
            for name, survey in self.surveys.items()
            for finding in survey
        ]

    def page(self) -> bytes:
        """The page of all that was found so far."""
        from captum_classpattern.pages.parts import content_of, render
        from captum_classpattern.pages.report_data import numbers_table

        planted = self.planted
        return render(
            "demo.html",
            title="The demo: three models that classify clothes",
            found=self,
            pattern=content_of(planted.text(), planted.sections(whole=False))[1],
            numbers=numbers_table(self.compared) if self.compared else None,
        )


def _findings(
    length: Length, comparison: bool, out: Path, searches: ComputeOptions
) -> Iterator[Found]:
    """What was found, after each stage."""
    models, stages = cp.demo_models(), 3 + comparison
    yield (found := Found(f"1 of {stages}: a planted trigger.", _planted(out, searches), {}, {}))
    for name, model in models.items():
        surveys = {**found.surveys, name: _search(model, name, length, out, searches)}
        last = f"2 of {stages}: the patterns of the {name} model."
        yield (found := replace(found, last=last, surveys=surveys))
    for name in length.scanned:
        scans = {**found.scans, name: _scan(models[name], out / "scan" / name, searches)}
        last = f"3 of {stages}: the scan of the {name} model."
        yield (found := replace(found, last=last, scans=scans))
    if comparison:
        compared = _compare(length, out / "comparison", searches)
        yield replace(found, last=f"4 of {stages}: the comparison.", compared=compared)


def _planted(out: Path, searches: ComputeOptions) -> "cp.surveys.Finding":
    """The pattern of the trigger's class, as a figure: the first result."""
    images = cp.demo_images()
    found = cp.explain_class(
        cp.demo_models()["backdoored"],
        images.search,
        target=cp.demo.TRIGGER_TARGET,
        held_out=images.held_out,
        area=PLANTED_AREA,
        canvases="white",
        budget=PLANTED_BUDGET,
        show_progress=sys.stderr.isatty(),
        **searches.keywords(),
    )
    figure, _ = found.plot(use_pyplot=False)
    write_figure(figure, out / "planted.png")
    return found


def _search(
    model: "cp.PixelClassifier", name: str, length: Length, out: Path, searches: ComputeOptions
) -> "cp.surveys.Survey":
    """The patterns of all classes of a model, as a page."""
    images = cp.demo_images()
    found = cp.survey(
        model,
        images.search,
        images.held_out.stratified_sample(length.held_out),
        classes_together=len(cp.demo.CLASS_NAMES),
        canvases={"positive": length.positive, "white": 1},
        areas=length.areas,
        n_steps=length.rounds,
        folder=out / name,
        resume=True,
        show_progress=sys.stderr.isatty(),
        **replace(searches, internal_batch_size=searches.internal_batch_size or BATCH).keywords(),
    )
    found.to_html(out / f"{name}.html")
    return found


def _scan(
    model: "cp.PixelClassifier", folder: Path, searches: ComputeOptions
) -> "cp.scanning.Scan":
    """Whether a model is backdoored, as a page and as a figure."""
    scanned = cp.scan(
        model,
        cp.demo_images().search,
        references="demo",
        folder=folder,
        show_progress=sys.stderr.isatty(),
        **searches.keywords(),
    )
    found = cast("cp.scanning.Scan", scanned)  # since there are references
    found.save(folder)
    found.to_html(folder / "scan.html")
    return found


def _compare(length: Length, out: Path, searches: ComputeOptions) -> "cp.comparison.Comparison":
    """Some methods on every second class, as a report."""
    images, classes = cp.demo_images(), range(0, len(cp.demo.CLASS_NAMES), 2)
    models = {name: cp.demo_models()[name] for name in length.compared}
    found = run_comparison(
        models,
        (images.search, images.held_out),
        SearchOptions(classes=[classes], n_steps=length.rounds, **searches.keywords()),
        out,
        "Class patterns next to Captum's methods, on clothes",
        methods=length.methods,
        metrics=(),
        areas=length.compared_areas,
        stamped=1,
        max_images=100,
        n_seeds=1,
        show_progress=sys.stderr.isatty(),
    )
    if not found.settings["complete"]:
        raise KeyboardInterrupt
    return found
