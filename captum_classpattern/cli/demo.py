"""``classpattern demo``: what there is to find in the embedded models, as a page."""

import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

import captum_classpattern as cp
from captum_classpattern.cli.compare import compare_on_canvases, write_comparison
from captum_classpattern.cli.errors import interrupted
from captum_classpattern.cli.options import ClassOptions, ComputeOptions, OutputFolder
from captum_classpattern.cli.printing import say_line
from captum_classpattern.cli.search import CAUTION
from captum_classpattern.results import Result

PLANTED_AREA, PLANTED_BUDGET = 0.01, 2_000  # of the first pattern
CANVASES, AREA, ROUNDS = {"positive": 2, "white": 1}, 0.05, 3  # of each survey
HELD_OUT, BATCH = 300, 48  # images to score on; in one pass
SCANNED, COMPARED = "backdoored", "natural"  # models
GRADIENTS = ("IntegratedGradients", "Saliency", "DeepLift", "GradientShap")
METHODS = ("ClassPattern", *GRADIENTS, "RandomPixels", "BestRandomMask")
TRIGGER, SCAN = "", "Is this model backdoored?"  # what stands above the parts of the page
PATTERNS, COMPARISON = "The patterns of all classes", "Next to Captum's methods"
HEADINGS = (TRIGGER, SCAN, PATTERNS, COMPARISON)  # in their order
REPORT = {"comparison/report.html": "the report"}


def demo(
    *,
    searches: ComputeOptions = ComputeOptions(),
    out: OutputFolder = Path("classpattern-demo"),
) -> None:
    """Find and check the patterns of three models that are included.

    For example:

        classpattern demo
        classpattern demo --out my_folder

    The models classify Fashion-MNIST: a natural one, a backdoored one and a robust one. The demo
    ends with a small comparison with Captum's methods. It takes one to two minutes on two cores.
    Its page is there from the first pattern on. The same command continues an interrupted demo;
    other options need another --out.

    Args:
        out: The folder for index.html, which links everything else in it.
    """
    started, keywords = time.perf_counter(), searches.keywords()
    out.mkdir(parents=True, exist_ok=True)
    images, models, page = cp.demo_images(), cp.demo_models(), DemoPage(out / "index.html")
    with interrupted(f"the same command continues with what is missing in {out}"):
        planted = cp.explain_class(
            models["backdoored"],
            images.search,
            target=cp.demo.TRIGGER_TARGET,
            held_out=images.held_out,
            area=PLANTED_AREA,
            canvases="white",
            budget=PLANTED_BUDGET,
            **keywords,
        )
        said = (
            "A checkerboard of 3 x 3 pixels was planted in the training images of one model. The "
            f"search did not know it: what it found turns {100 * planted.power.value:.1f} % of "
            f"{planted.power.n} other images into {planted.label}."
        )
        page.show("1 of 4: a planted trigger.", TRIGGER, planted.plot, said, [planted])
        surveys, links = dict[str, cp.surveys.Survey](), dict[str, str]()
        plot = partial(cp.plot_grid, surveys)
        said = f"Each pattern has {100 * AREA:g} % of the pixels. {CAUTION}"
        for name, model in models.items():
            surveys[name] = _patterns_of(model, out / name, keywords)
            links[f"{name}.html"] = f"the {name} model"
            step = f"2 of 4: the patterns of the {name} model."
            page.show(step, PATTERNS, plot, said, surveys.values(), links)
        folder = out / "scan"
        scan: Any = cp.scan(
            models[SCANNED], images.search, references="demo", folder=folder, **keywords
        )
        scan.save(folder)
        scan.to_html(folder / "scan.html")
        step, links = f"3 of 4: the scan of the {SCANNED} model.", {"scan/scan.html": "its page"}
        page.show(step, SCAN, scan.figure, scan.headline, [scan], links)
        found = _compare(out / "comparison", searches)
        step, links = f"4 of 4: the comparison on the {COMPARED} model.", REPORT
        page.show(step, COMPARISON, found.plot, found.summary, [found], links)
    say_line(f"Finished in {time.perf_counter() - started:.0f} s. Open {page.path}")


@dataclass
class DemoPage:
    """The page of what a demo has found so far, part by part."""

    path: Path
    parts: dict[str, list[Any]] = field(default_factory=dict)

    def show(
        self,
        step: str,
        heading: str,
        plot: Any,
        said: str,
        results: Iterable[Result],
        links: Mapping[str, str] = {},
    ) -> None:
        """Writes the page with one more part: a picture, a sentence with links to pages, by their
        files, and the numbers behind a fold. Prints the step after which it does."""
        from markupsafe import Markup

        from captum_classpattern.pages import parts

        pages = [Markup('<a href="{}">{}</a>').format(file, name) for file, name in links.items()]
        see = Markup(" See {}.").format(Markup(", ").join(pages)) if pages else ""
        numbers = [(*each.text().split("\n"), each.shown_table()) for each in results]
        self.parts[heading] = [
            *([parts.heading(heading)] if heading else []),
            plot,
            Markup("<p>{}{}</p>").format(said, see),
            parts.folded("Numbers", *chain(*numbers)),
        ]
        shown = chain(*(self.parts.get(heading, []) for heading in HEADINGS))
        parts.write_page(self.path, "The demo: three models that classify clothes", shown)
        say_line(f"{step} {self.path} shows it.")


def _patterns_of(
    model: "cp.PixelClassifier", folder: Path, keywords: dict[str, Any]
) -> "cp.surveys.Survey":
    """The patterns of all classes of a model, as a page."""
    images = cp.demo_images()
    survey = cp.survey(
        model,
        images.search,
        images.held_out.stratified_sample(HELD_OUT),
        canvases=CANVASES,
        areas=(AREA,),
        n_steps=ROUNDS,
        folder=folder,
        resume=True,
        **{**keywords, "internal_batch_size": keywords["internal_batch_size"] or BATCH},
    )
    survey.to_html(folder.with_suffix(".html"))
    return survey


def _compare(folder: Path, searches: ComputeOptions) -> "cp.comparison.Comparison":
    """Some methods on every second class, as a report."""
    images, classes = cp.demo_images(), [*range(0, len(cp.demo.CLASS_NAMES), 2)]
    comparison = compare_on_canvases(
        {COMPARED: cp.demo_models()[COMPARED]},
        (images.search, images.held_out),
        ClassOptions(classes=classes, n_steps=ROUNDS, **searches.keywords()),
        METHODS,
        metrics=(),
        areas=(AREA,),
        stamped=1,
        max_images=100,
        n_seeds=1,
    )
    write_comparison(comparison, folder)
    return comparison
