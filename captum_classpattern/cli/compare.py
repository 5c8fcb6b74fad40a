"""``classpattern compare``: class patterns and Captum's methods on a user's models. The demo also
runs such a comparison."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

import captum_classpattern as cp
from captum_classpattern._support.files import write_atomically
from captum_classpattern.cli import options
from captum_classpattern.cli.printing import INTERRUPTED, print_result, say, say_line

POWER_LEGEND = """\
Power: the share of held-out images of other classes that are predicted as the class once they are
stamped with the pixels that a method ranks first, averaged over classes. The 95 % interval
comes from a bootstrap over the classes. If there are fewer than 5 classes or all are equal, it is
over the images, and holds for these classes alone.
"""
NAMES = options.read_as(lambda text: [name.strip() for name in text.split(",")], "LIST")


def compare(
    *models: Annotated[str, Parameter(required=True)],
    model: options.ModelOptions = options.ModelOptions(),
    images: options.ImageOptions,
    searches: options.ClassOptions = options.ClassOptions(),
    methods: Annotated[list[str] | None, NAMES] = None,
    area: options.Area = 0.05,
    out: options.OutputFolder = Path("classpattern-compare"),
    canvases: Annotated[options.Count, options.IN_SEARCH] = 1,
    white: Annotated[bool, options.IN_SEARCH] = False,
    max_images: Annotated[options.Count, options.IN_SEARCH] = 500,
) -> int:
    """Compare patterns with Captum's methods on the same images.

    For example:

        classpattern compare clean.pt suspect.pt --arch resnet18 --data my_images
        classpattern compare old=a.pt new=b.pt --data my_images --methods Saliency,LRP

    A report shows the maps and the predictive power of their pixels.

    Args:
        models: Checkpoint files, torchvision:NAME, timm:NAME or huggingface:NAME, each optionally
            with a name of your choice, as in old=a.pt.
        methods: Names of methods, separated by commas. By default, ClassPattern and 13 others.
            MODULE:NAME is your own function from model and images to an Attribution.
        area: The share of the pixels at which the methods are compared.
        out: The folder for the report and the patterns.
        canvases: How many images per class to cut pixels from. The first model chooses them.
        white: Add a white canvas for each class.
        max_images: Score on at most this many held-out images.
    """
    from captum_classpattern.comparison import DEFAULT, Interrupted

    checkpoints = options.checkpoints_by_name(models)
    opened = {name: model.open(checkpoint) for name, checkpoint in checkpoints.items()}
    if any(":" in name for name in methods or ()):
        options.import_from_here()
    try:
        comparison = compare_on_canvases(
            opened,
            images.load([*opened.values()], seed=searches.seed),
            searches,
            methods or DEFAULT,
            canvases=canvases,
            white=white,
            area=area,
            max_images=max_images,
        )
    except Interrupted as stopped:
        comparison = stopped.comparison
    print_result(comparison)
    when = "" if comparison.settings["complete"] else " before the interrupt"
    say(POWER_LEGEND if comparison.records else f"No method gave a map{when}.")
    if comparison.records or comparison.failures:
        write_comparison(comparison, out)
        written = "report.html, patterns" if comparison.records else "report.html"
        say_line(f"{written} and comparison.json are in {out}.")
    if not comparison.settings["complete"]:
        say_line("Interrupted. The methods that had finished are reported.")
        return INTERRUPTED
    return 0 if comparison.records else 1


def compare_on_canvases(
    models: "Mapping[str, cp.PixelClassifier]",
    images: "tuple[cp.LabelledImages, cp.LabelledImages]",
    searches: options.ClassOptions,
    methods: Sequence[str],
    *,
    canvases: int = 1,
    white: bool = False,
    **more: Any,
) -> "cp.comparison.Comparison":
    """Compares methods on ``canvases`` images of each class that the first model classifies
    correctly, and perhaps on a white canvas for each class."""
    import torch

    (search, held_out), first = images, next(iter(models.values()))
    classes, keywords = searches.find_classes(first, search), searches.keywords()
    seed = keywords.pop("seed")
    positive = torch.cat(
        [cp.select_canvases(first, search, target=y, n=canvases, seed=seed).cpu() for y in classes]
    )
    blank = classes if white else []
    return cp.compare(
        models,
        torch.cat([positive, torch.ones(len(blank), *positive.shape[1:])]),
        [*(y for y in classes for _ in range(canvases)), *blank],
        search=search,
        held_out=held_out,
        methods=cp.known_methods(search, names=methods, **keywords),
        canvas_kinds=["positive"] * len(positive) + ["white"] * len(blank),
        seed=seed,
        **more,
    )


def write_comparison(comparison: "cp.comparison.Comparison", out: Path) -> None:
    """Writes comparison.json, the report, and the patterns searched on the first kind of canvas."""
    from captum_classpattern.classifier.class_names import as_file_name, file_safe, label_of
    from captum_classpattern.comparison.records import search_names

    out.mkdir(parents=True, exist_ok=True)
    write_atomically(out / "comparison.json", (comparison.to_json() + "\n").encode())
    comparison.to_html(out / "report.html")
    records = comparison.select(kind=comparison.kinds[0])
    searched = search_names(records)
    for record in (record for record in records if record.name in searched):
        folder = out / "patterns" / file_safe(record.model)
        folder.mkdir(parents=True, exist_ok=True)
        number, name = str(record.target), comparison.class_name(record.target)
        label = number if name == label_of(record.target) else f"{number}_{as_file_name(name)}"
        for area in record.masks:
            file = file_safe(f"{record.method}_{record.canvas}_{label}_{area:g}")
            comparison.pattern_of(record, area).save(folder / f"{file}.safetensors")
