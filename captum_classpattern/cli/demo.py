"""``classpattern demo``: what there is to find in the embedded models, as a page."""

import time
from collections.abc import Iterable
from functools import partial
from pathlib import Path
from typing import Any

import captum_classpattern as cp
from captum_classpattern.cli.compare import compare_on_canvases, write_comparison
from captum_classpattern.cli.options import ClassOptions, ComputeOptions, OutputFolder
from captum_classpattern.cli.printing import interrupted, say_line
from captum_classpattern.cli.search import CAUTION
from captum_classpattern.results import Result

PLANTED_AREA, PLANTED_BUDGET = 0.01, 2_000  # of the first pattern
CANVASES, AREA, ROUNDS = {"positive": 2, "white": 1}, 0.05, 3  # of each survey
HELD_OUT, BATCH = 300, 48  # images to score on; in one pass
SCANNED, COMPARED = "backdoored", "natural"  # models
GRADIENTS = ("IntegratedGradients", "Saliency", "DeepLift", "GradientShap")
METHODS = ("ClassPattern", *GRADIENTS, "RandomPixels", "BestRandomMask")
PLANTED = (
    "A checkerboard of 3 x 3 pixels was planted in the training images of one model. The search "
    "did not know it. With the pattern found, the model predicts {} for {:.1f} % of {} other "
    "images."
)
BOUND = "Only a class right of the second dotted line is suspicious."
SCAN, PATTERNS, COMPARISON = HEADINGS = (  # of the page, in their order
    "Is this model backdoored?", "The patterns of all classes", "Next to Captum's methods"
)  # fmt: skip


def demo(
    *,
    searches: ComputeOptions = ComputeOptions(),
    out: OutputFolder = Path("classpattern-demo"),
) -> None:
    """Find and check the patterns of three included models.

    For example:

        classpattern demo
        classpattern demo --out my_folder

    The models classify Fashion-MNIST: a natural one, a backdoored one and a robust one. The demo
    ends with a small comparison with Captum's methods. In all, it takes one to two minutes on two
    cores. Its page appears with the first pattern. The same command continues an interrupted demo;
    other options need another --out.

    Args:
        out: The folder for index.html, which links to everything else there.
    """
    started, keywords = time.perf_counter(), searches.keywords()
    out.mkdir(parents=True, exist_ok=True)
    images, models, folder = cp.demo_images(), cp.demo_models(), out / "scan"
    page, surveys = DemoPage(out / "index.html"), {}
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
        said = PLANTED.format(planted.label, 100 * planted.power.value, planted.power.n)
        page.show("", planted.plot, said, [planted], {})
        page.write("1 of 4: a planted trigger.")
        said = f"Each pattern has {100 * AREA:g} % of the pixels. {CAUTION}"
        for name, model in models.items():
            surveys[name] = _patterns_of(model, out / name, keywords)
            links = {f"{each}.html": f"the {each} model" for each in surveys}
            page.show(PATTERNS, partial(cp.plot_grid, surveys), said, surveys.values(), links)
            page.write(f"2 of 4: the patterns of the {name} model.")
        scan = cp.scan(models[SCANNED], images.search, folder=folder, **keywords)
        scan.to_html(folder / "scan.html")
        links = {"scan/scan.html": "its page"}
        said = f"{scan.headline} {BOUND}"
        page.show(SCAN, partial(scan.draw, None), said, [scan], links)
        page.write(f"3 of 4: the scan of the {SCANNED} model.")
        compared = _compare(out / "comparison", searches)
        links = {"comparison/report.html": "the report"}
        page.show(COMPARISON, compared.plot, compared.summary, [compared], links)
        page.write(f"4 of 4: the comparison on the {COMPARED} model.")
    say_line(f"Finished in {time.perf_counter() - started:.0f} s. Open {page.path}")


class DemoPage:
    """The page of what a demo has found so far; each part is drawn once."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.parts: dict[str, list[Any]] = {title: [] for title in ("", *HEADINGS)}

    def show(
        self, title: str, plot: Any, said: str, results: Iterable[Result], links: dict[str, str]
    ) -> None:
        """Adds a part: a picture, a sentence with links to pages by file, and the numbers."""
        from markupsafe import Markup

        from captum_classpattern.pages.parts import folded, heading, section

        pages = [Markup('<a href="{}">{}</a>').format(*link) for link in links.items()]
        see = Markup(" See {}.").format(Markup(", ").join(pages)) if pages else ""
        numbers = ((*each.text().split("\n"), each.shown_table()) for each in results)
        self.parts[title] = [
            *([heading(title)] if title else []),
            section(plot, "The demo"),
            Markup("<p>{}{}</p>").format(said, see),
            folded("Numbers", *(part for of_one in numbers for part in of_one)),
        ]

    def write(self, step: str) -> None:
        """Writes the page, and prints the step that was finished."""
        from captum_classpattern.pages.parts import write_page

        sections = (each for part in self.parts.values() for each in part)
        write_page(self.path, "The demo: three models that classify clothes", sections)
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
