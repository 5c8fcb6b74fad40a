"""``classpattern search``: the class patterns of a user's model, scored on held-out images."""

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from captum_classpattern.cli.options import (
    OUTPUT,
    SEARCH,
    Area,
    Count,
    ImageOptions,
    ModelOptions,
    OutputFolder,
    SearchOptions,
)


def search(
    checkpoint: str,
    /,
    *,
    model: ModelOptions = ModelOptions(),
    images: ImageOptions,
    searches: SearchOptions = SearchOptions(),
    canvases: Annotated[Count, Parameter(group=SEARCH)] = 4,
    area: Annotated[list[Area] | None, Parameter(group=SEARCH)] = None,
    out: OutputFolder = Path("classpattern-search"),
    resume: Annotated[bool, Parameter(group=OUTPUT)] = False,
) -> None:
    """Find the class patterns of your own model, and score them on held-out images.

    For example:

        classpattern search my_model.pt --arch resnet18 --data my_images --size 64
        classpattern search timm:resnet18.a1_in1k --data my_images --classes dog,3-5

    Args:
        checkpoint: A checkpoint file, or torchvision:NAME, timm:NAME or robustbench:NAME.
        canvases: The number of images per class from which patterns are cut. Half as many white
            canvases are added.
        area: The share of the pixels to search at. It can be given several times. By default,
            0.05 and 0.01.
        out: The folder for results.json, the figure and the patterns.
        resume: Continue the unfinished search in the folder of --out.
    """
    if (out / "results.json").exists() and not resume:
        raise ValueError(
            f"{out} holds results already: pass --resume to continue them, or another --out"
        )

    from captum_classpattern.cli.run import Run
    from captum_classpattern.surveys.survey import AREAS

    classifier = model.open(checkpoint)
    search_images, held_out = images.load([classifier], seed=searches.seed)
    run = Run(
        classifier,
        search_images,
        held_out,
        classes=searches.find_classes(classifier, search_images),
        canvases={"positive": canvases, "white": max(1, canvases // 2)},
        areas=tuple(dict.fromkeys(area or AREAS)),
        n_steps=searches.n_steps,
        seed=searches.seed,
        precision=searches.precision,
        internal_batch_size=searches.internal_batch_size,
        out=out,
    )
    run.begin()
    run.describe()
    run.go()
