"""``classpattern compare``: class patterns and Captum's methods on a user's models."""

import json
import sys
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from captum_classpattern.cli.documents import only_json, write_document
from captum_classpattern.cli.options import (
    MAIN,
    MORE_SEARCH,
    Area,
    AsJson,
    Count,
    ImageOptions,
    ModelOptions,
    OutputFolder,
    SearchOptions,
    checkpoints_by_name,
    import_from_here,
    names_among,
    read_as,
)


def _methods(text: str) -> list[str]:
    from captum_classpattern.comparison.methods import NAMES

    names = [name.strip() for name in text.split(",")]
    known = [name for name in names if ":" not in name]
    if known:
        names_among(",".join(known), [*NAMES, "MODULE:NAME"], "method")
    return names


def compare(
    *models: Annotated[str, Parameter(required=True)],
    model: ModelOptions = ModelOptions(),
    images: ImageOptions,
    searches: SearchOptions = SearchOptions(),
    methods: Annotated[list[str] | None, read_as(_methods, "LIST"), Parameter(group=MAIN)] = None,
    area: Annotated[Area, Parameter(group=MAIN)] = 0.05,
    out: OutputFolder = Path("classpattern-compare"),
    as_json: AsJson = False,
    canvases: Annotated[Count, Parameter(group=MORE_SEARCH)] = 1,
    white: Annotated[bool, Parameter(group=MORE_SEARCH)] = False,
    max_images: Annotated[Count, Parameter(group=MORE_SEARCH)] = 500,
) -> None:
    """Compare patterns with Captum's methods on the same images.

    For example:

        classpattern compare clean.pt suspect.pt --arch resnet18 --data my_images
        classpattern compare old=a.pt new=b.pt --data my_images --methods Saliency,LRP

    A report shows the maps, the predictive power of their pixels, and what holds for these models.

    Args:
        models: Checkpoint files, or torchvision:NAME or timm:NAME, each with a name of your choice
            if you like, as in old=a.pt.
        methods: Names of methods, separated by commas. By default, ClassPattern and 17 others.
            MODULE:NAME is a function of yours, from model and images to an Attribution.
        area: The share of the pixels at which the methods are compared.
        out: The folder for the report, the figures and the patterns.
        as_json: Print the result as JSON, and nothing else.
        canvases: The images per class from which pixels are cut. The first model chooses them.
        white: Add a white canvas for each class.
        max_images: Score on at most this many held-out images.
    """
    checkpoints = checkpoints_by_name(models)

    from captum_classpattern._validation import import_named
    from captum_classpattern.cli.comparing import run_comparison
    from captum_classpattern.comparison import DEFAULT

    with only_json(as_json):
        for own in (name for name in methods or () if ":" in name):
            import_from_here()  # a wrong name is refused before models are loaded
            import_named(own, f"method {own!r}")
        opened = {name: model.open(checkpoint) for name, checkpoint in checkpoints.items()}
        classifiers = [*opened.values()]
        search, held_out = images.load(classifiers, seed=searches.seed)
        comparison, code = run_comparison(
            opened,
            search,
            held_out,
            searches.find_classes(classifiers[0], search),
            methods=methods or DEFAULT,
            searches=searches,
            out=out,
            title="Class patterns next to Captum's methods",
            canvases=canvases,
            white=white,
            show_tables=not as_json,
            show_progress=sys.stderr.isatty(),
            area=area,
            max_images=max_images,
        )
    if as_json:
        write_document("compare", out, json.loads(comparison.to_json()))
    if code:
        raise SystemExit(code)
