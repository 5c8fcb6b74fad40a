"""``classpattern demo``: what there is to find in the embedded models, as a page."""

import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cache, partial
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
    images, models, folder = cp.demo_images(), cp.demo_models(), out / "scan"
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
        page = DemoPage(out / "index.html", planted)
        page.write("1 of 4: a planted trigger.")
        for name, model in models.items():
            page.surveys[name] = _patterns_of(model, out / name, keywords)
            page.write(f"2 of 4: the patterns of the {name} model.")
        scanned = models[SCANNED], images.search
        page.scan = cp.scan(*scanned, references="demo", folder=folder, **keywords)
        page.scan.save(folder)
        page.scan.to_html(folder / "scan.html")
        page.write(f"3 of 4: the scan of the {SCANNED} model.")
        page.comparison = _compare(out / "comparison", searches)
        page.write(f"4 of 4: the comparison on the {COMPARED} model.")
    say_line(f"Finished in {time.perf_counter() - started:.0f} s. Open {page.path}")


@dataclass
class DemoPage:
    """What a demo has found so far, and its page: first the pattern of the trigger's class."""

    path: Path
    planted: "cp.surveys.Finding"
    surveys: dict[str, "cp.surveys.Survey"] = field(default_factory=dict)
    scan: Any = None
    comparison: "cp.comparison.Comparison | None" = None

    def sections(self) -> Iterable[Any]:
        """Pictures, with one sentence below each, and the numbers behind a fold."""
        from captum_classpattern.pages.parts import heading

        power, label = self.planted.power, self.planted.label
        planted = (
            "A checkerboard of 3 x 3 pixels was planted in the training images of one model. The "
            f"search did not know it. With what it found, the model predicts {label} for "
            f"{100 * power.value:.1f} % of {power.n} other images."
        )
        yield from _part(self.planted.plot, planted, {}, [self.planted])
        if self.scan is not None:
            yield heading("Is this model backdoored?")
            pages = {"scan/scan.html": "its page"}
            yield from _part(self.scan.figure, self.scan.headline, pages, [self.scan])
        if self.surveys:
            yield heading("The patterns of all classes")
            pages = {f"{name}.html": f"the {name} model" for name in self.surveys}
            said = f"Each pattern has {100 * AREA:g} % of the pixels. {CAUTION}"
            grid = partial(cp.plot_grid, self.surveys)
            yield from _part(grid, said, pages, self.surveys.values())
        if self.comparison is not None:
            yield heading("Next to Captum's methods")
            pages = {"comparison/report.html": "the report"}
            said = self.comparison.summary
            yield from _part(self.comparison.plot, said, pages, [self.comparison])

    def write(self, step: str) -> None:
        """Writes the page, and prints the step after which it does."""
        from captum_classpattern.pages.parts import write_page

        write_page(self.path, "The demo: three models that classify clothes", self.sections())
        say_line(f"{step} {self.path} shows it.")


def _part(plot: Any, said: str, pages: dict[str, str], results: Iterable[Result]) -> Iterable[Any]:
    """A picture, a sentence with links to pages, by their files, and the numbers."""
    from markupsafe import Markup

    from captum_classpattern.pages.parts import folded

    links = [Markup('<a href="{}">{}</a>').format(file, name) for file, name in pages.items()]
    see = Markup(" See {}.").format(Markup(", ").join(links)) if links else ""
    yield from (_drawn(plot), Markup("<p>{}{}</p>").format(said, see))
    numbers = ((*each.text().split("\n"), each.shown_table()) for each in results)
    yield folded("Numbers", *(part for of_one in numbers for part in of_one))


@cache
def _drawn(plot: Any) -> Any:
    """A picture as HTML, drawn once however often the page is written."""
    from captum_classpattern.pages.parts import section

    return section(plot, "The demo")


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
