"""``classpattern sweep``: the class patterns of many models, scored on held-out images."""

from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

import captum_classpattern as cp
from captum_classpattern._support.files import write_atomically
from captum_classpattern.cli import options
from captum_classpattern.cli.printing import interrupted, print_result, say, say_line

SHOWN = 20  # models, and reasons of failures


def sweep_command(
    *models: Annotated[str, Parameter(required=True)],
    model: options.ModelOptions = options.ModelOptions(),
    images: options.ImageOptions,
    searches: options.CanvasOptions = options.CanvasOptions(),
    out: options.OutputFolder,
    ray: options.RayOptions = options.RayOptions(),
) -> int:
    """Find the patterns of many models, on one machine or many.

    For example:

        classpattern sweep zoo.csv --data my_images --out zoo
        classpattern sweep a.pt b.pt --arch resnet18 --data my_images --out two --ray

    Classes are written as soon as they are finished. The same command resumes an interrupted
    sweep, and retries what failed. At the end, it writes a site: site/index.html.

    Args:
        models: Checkpoint files, torchvision:NAME, timm:NAME or huggingface:NAME, each optionally
            with a name of your choice, as in old=a.pt. Or a manifest: a CSV file with the columns
            path, name, arch, mean, std and others.
        out: The folder for everything that is found, and for the site.
    """
    from captum_classpattern.surveys.sources import read_models

    engine = ray.keywords()
    device = {} if model.device == "cpu" else {"device": model.device}  # else Ray's choice
    sources = read_models(models, {**model.loading(), **device})
    options.import_from_here()
    classifier = _open_first(sources)
    search_images, held_out = images.load([classifier], seed=searches.seed)
    classes = searches.find_classes(classifier, search_images)
    say_line(
        f"{len(sources)} models, {len(classes)} classes; {len(search_images)} images to search "
        f"with, {len(held_out)} held out."
    )
    with interrupted(f"the same command resumes the sweep in {out}"):
        sweep = cp.sweep(
            {source.name: source for source in sources},
            search_images,
            held_out,
            folder=out,
            classes=classes,
            **engine,
            **searches.keywords(),
        )
    return _report(sweep, out)


def _report(sweep: "cp.surveys.Sweep", out: Path) -> int:
    """Writes the table and the site, and prints what was found; returns the exit code."""
    from captum_classpattern.surveys.sources import SITE

    table = sweep.table(full=True).to_csv(index=False)
    write_atomically(out / "table.csv", table.encode(errors="backslashreplace"))
    print_result(sweep, SHOWN)
    say(*(f"Failed: {name}: {why}" for name, why in [*sweep.failures.items()][:SHOWN]))
    if max(len(sweep.models), len(sweep.failures)) > SHOWN:
        say_line(f"The first {SHOWN} are shown; table.csv has all.")
    if not any(map(len, sweep.surveys.values())):
        return 1
    index = sweep.to_html(out / SITE)
    say_line(f"table.csv and a folder for each model are in {out}; the site is {index}.")
    return 0


def _open_first(sources: Sequence[Any]) -> Any:
    """The first model that can be opened; it decides how the images are loaded and numbered."""
    for source in sources[:-1]:
        with suppress(Exception):  # it fails again, in its survey
            return source.open()
    return sources[-1].open()
