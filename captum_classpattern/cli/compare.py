"""``classpattern compare``: class patterns and Captum's methods on a user's models."""

import sys
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from captum_classpattern.cli.options import (
    COMPARISON,
    Area,
    Count,
    ImageOptions,
    ModelOptions,
    OutputFolder,
    SearchOptions,
    checkpoints_by_name,
    names_among,
    read_as,
)

PANEL = Parameter(group=COMPARISON)  # of the help


def _methods(text: str) -> list[str]:
    from captum_classpattern.comparison.methods import NAMES

    return names_among(text, NAMES, "method")


def compare(
    *models: Annotated[str, Parameter(required=True)],
    model: ModelOptions = ModelOptions(),
    images: ImageOptions,
    searches: SearchOptions = SearchOptions(),
    methods: Annotated[list[str] | None, read_as(_methods, "LIST"), PANEL] = None,
    canvases: Annotated[Count, PANEL] = 1,
    white: Annotated[bool, PANEL] = False,
    area: Annotated[Area, PANEL] = 0.05,
    max_images: Annotated[Count, PANEL] = 500,
    out: OutputFolder = Path("classpattern-compare"),
) -> None:
    """Compare class patterns with Captum's other methods on the same canvases and images.

    For example:

        classpattern compare clean.pt suspect.pt --arch resnet18 --data my_images
        classpattern compare old=a.pt new=b.pt --data my_images --methods Saliency,LRP

    Args:
        models: Checkpoint files, or torchvision:NAME or timm:NAME. Put a name and an equals sign
            before a model to choose its name in the report, as in old=a.pt.
        methods: The names of the methods, separated by commas. By default, ClassPattern and 17
            others. An unknown name lists them all.
        canvases: The number of images per class from which pixels are cut. They are chosen by the
            first model.
        white: Add a white canvas for each class.
        area: The share of the pixels at which the methods are compared.
        max_images: Score on at most this many held-out images.
        out: The folder for the report, the figures and the patterns.
    """
    checkpoints = checkpoints_by_name(models)

    from captum_classpattern.cli.comparing import run_comparison
    from captum_classpattern.comparison import DEFAULT

    opened = {name: model.open(checkpoint) for name, checkpoint in checkpoints.items()}
    classifiers = [*opened.values()]
    search, held_out = images.load(classifiers, seed=searches.seed)
    run_comparison(
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
        show_progress=sys.stderr.isatty(),
        area=area,
        max_images=max_images,
    )
