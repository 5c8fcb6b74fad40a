"""``classpattern demo``: what there is to find in the embedded models, as a page."""

import json
import shutil
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, cast

from cyclopts import Parameter

import captum_classpattern as cp
from captum_classpattern._files import write_atomically, write_figure, write_json
from captum_classpattern.cli.compare import compare_on_canvases, write_comparison
from captum_classpattern.cli.errors import interrupted
from captum_classpattern.cli.options import ComputeOptions, OutputFolder, SearchOptions
from captum_classpattern.cli.search import CAUTION
from captum_classpattern.results import Result

BATCH = 48  # images in one pass
PLANTED_AREA, PLANTED_BUDGET = 0.01, 2_000  # of the first pattern
GRADIENTS = ("IntegratedGradients", "Saliency", "DeepLift", "GradientShap")
METHODS = ("ClassPattern", *GRADIENTS, "RandomPixels", "BestRandomMask")
ALL = ("natural", "backdoored", "robust")


@dataclass(frozen=True)
class Length:
    """How much a demo searches and scores."""

    rounds: int = 3  # of each search
    areas: tuple[float, ...] = (0.05,)
    positive: int = 2  # canvases of each class
    held_out: int = 300  # images to score on
    scanned: tuple[str, ...] = ("backdoored",)  # models
    compared: tuple[str, ...] = ("natural",)  # models
    methods: tuple[str, ...] = METHODS


QUICK = Length()
FULL = Length(6, (0.05, 0.01), 4, 1_000, ALL, ALL, (*METHODS, "Occlusion", "GuidedGradCam"))


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

    started, length = time.perf_counter(), FULL if full else QUICK
    settings = {**searches.keywords(), "full": full, "versions": versions()}
    keywords = {**searches.keywords(), "show_progress": sys.stderr.isatty()}
    _prepare(out, settings)
    models, stages = cp.demo_models(), 3 + comparison
    with interrupted(f"the same command continues with what is missing in {out}"):
        found = Found(out / "index.html", _planted(out, keywords))
        found.show(f"1 of {stages}: a planted trigger.")
        for name, model in models.items():
            found.surveys[name] = _survey(model, name, length, out, keywords)
            found.show(f"2 of {stages}: the patterns of the {name} model.")
        for name in length.scanned:
            found.scans[name] = _scan(models[name], out / "scan" / name, keywords)
            found.show(f"3 of {stages}: the scan of the {name} model.")
        if comparison:
            found.compared = _compare(models, length, out / "comparison", searches)
            found.show(f"4 of {stages}: the comparison.")
    results = {"complete": True, "seconds": round(time.perf_counter() - started), **settings}
    results["sentences"] = found.sentences
    results["rows"] = [
        {"model": name, **row.as_dict()} for name, of in found.surveys.items() for row in of
    ]
    write_json(results, out / "results.json")
    print(f"Finished in {results['seconds']} s. Open {found.path}")


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


@dataclass
class Found:
    """What a demo has found so far, and its page: first the pattern of the trigger's class."""

    path: Path
    planted: "cp.surveys.Finding"
    surveys: dict[str, "cp.surveys.Survey"] = field(default_factory=dict)
    scans: dict[str, "cp.scanning.Scan"] = field(default_factory=dict)
    compared: "cp.comparison.Comparison | None" = None

    @property
    def sentences(self) -> list[str]:
        """The results in words."""
        return [
            f"The backdoored model: {_after_title(self.planted)}",
            *(
                f"The {name} model: {_after_title(survey)} {survey.strongest_of_each()[0]}"
                for name, survey in self.surveys.items()
            ),
            *[CAUTION] * bool(self.surveys),
            *(f"Scan of the {n} model: {s.verdict}. {s.reason}" for n, s in self.scans.items()),
            *([self.compared.summary] if self.compared else []),
        ]

    def show(self, last: str) -> None:
        """Writes the page, and prints what it shows since the last step."""
        from captum_classpattern.pages.parts import content_of, render
        from captum_classpattern.pages.report_data import numbers_table

        page = render(
            "demo.html",
            title="The demo: three models that classify clothes",
            found=self,
            pattern=content_of(self.planted.text(), self.planted.sections(whole=False))[1],
            numbers=numbers_table(self.compared) if self.compared else None,
        )
        write_atomically(self.path, page)
        print(f"{last} {self.path} shows it.", flush=True)


def _after_title(result: Result) -> str:
    return result.text().partition("\n")[2]


def _planted(out: Path, keywords: Mapping[str, Any]) -> "cp.surveys.Finding":
    """The pattern of the trigger's class, as a figure: the first result."""
    images = cp.demo_images()
    planted = cp.explain_class(
        cp.demo_models()["backdoored"],
        images.search,
        target=cp.demo.TRIGGER_TARGET,
        held_out=images.held_out,
        area=PLANTED_AREA,
        canvases="white",
        budget=PLANTED_BUDGET,
        **keywords,
    )
    figure, _ = planted.plot(use_pyplot=False)
    write_figure(figure, out / "planted.png")
    return planted


def _survey(
    model: "cp.PixelClassifier", name: str, length: Length, out: Path, keywords: Mapping[str, Any]
) -> "cp.surveys.Survey":
    """The patterns of all classes of a model, as a page."""
    images = cp.demo_images()
    batch = {"internal_batch_size": keywords["internal_batch_size"] or BATCH}
    survey = cp.survey(
        model,
        images.search,
        images.held_out.stratified_sample(length.held_out),
        classes_together=len(cp.demo.CLASS_NAMES),
        canvases={"positive": length.positive, "white": 1},
        areas=length.areas,
        n_steps=length.rounds,
        folder=out / name,
        resume=True,
        **{**keywords, **batch},
    )
    survey.to_html(out / f"{name}.html")
    return survey


def _scan(
    model: "cp.PixelClassifier", folder: Path, keywords: Mapping[str, Any]
) -> "cp.scanning.Scan":
    """Whether a model is backdoored, as a page and as a figure."""
    images = cp.demo_images().search
    scan: Any = cp.scan(model, images, references="demo", folder=folder, **keywords)
    scan.save(folder)
    scan.to_html(folder / "scan.html")
    return cast("cp.scanning.Scan", scan)  # since there are references


def _compare(
    models: Mapping[str, "cp.PixelClassifier"], length: Length, out: Path, searches: ComputeOptions
) -> "cp.comparison.Comparison":
    """Some methods on every second class, as a report."""
    images, classes = cp.demo_images(), [*range(0, len(cp.demo.CLASS_NAMES), 2)]
    comparison = compare_on_canvases(
        {name: models[name] for name in length.compared},
        (images.search, images.held_out),
        SearchOptions(classes=classes, n_steps=length.rounds, **searches.keywords()),
        length.methods,
        metrics=(),
        areas=length.areas,
        stamped=1,
        max_images=100,
        n_seeds=1,
    )
    write_comparison(comparison, out)
    return comparison
