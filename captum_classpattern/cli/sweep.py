"""``classpattern sweep``: the class patterns of many models, on one machine or many."""

import codecs
import csv
from collections import Counter
from collections.abc import Sequence
from statistics import fmean
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter
from cyclopts.validators import Number

from captum_classpattern._files import replace_file
from captum_classpattern.cli.errors import interrupted, printable
from captum_classpattern.cli.options import (
    MAIN,
    MORE_SEARCH,
    RAY,
    Count,
    ImageOptions,
    ModelOptions,
    OutputFolder,
    SurveyOptions,
    import_from_here,
)
from captum_classpattern.cli.printing import console, make_table, write_figure

if TYPE_CHECKING:  # imported where they are used, so that --help needs no torch
    from captum_classpattern.adapters import PixelClassifier
    from captum_classpattern.surveys import Finding, Sweep
    from captum_classpattern.surveys.sources import ModelSource

ON_RAY = Parameter(group=RAY)  # the panel of the help
SHOWN = 20  # models, and units that failed


def sweep(
    *models: Annotated[str, Parameter(required=True)],
    model: ModelOptions = ModelOptions(),
    images: ImageOptions,
    searches: SurveyOptions = SurveyOptions(),
    out: OutputFolder,
    first_look: Annotated[bool, Parameter(group=MAIN)] = False,
    ray: Annotated[bool | str, Parameter(metavar="[ADDRESS]"), ON_RAY] = False,
    workers: Annotated[Count | None, ON_RAY] = None,
    gpus_per_task: Annotated[
        float | None, Parameter(validator=Number(gt=0), metavar="N"), ON_RAY
    ] = None,
    keep: Annotated[
        float, Parameter(validator=Number(gt=0, lte=1), group=MORE_SEARCH, metavar="SHARE")
    ] = 0.2,
    threads: Annotated[Count, Parameter(group=MORE_SEARCH)] = 1,
) -> None:
    """Find the patterns of many models, on one machine or many.

    For example:

        classpattern sweep zoo.csv --data my_images --out zoo --first-look
        classpattern sweep a.pt b.pt --arch resnet18 --data my_images --out two --ray

    Each class of each model is written as soon as it is finished. The same command resumes an
    interrupted sweep, and tries again what failed.

    Args:
        models: Checkpoint files, folders of them, torchvision:NAME or timm:NAME, each with a name
            of your choice if you like, as in old=a.pt. Or a manifest: a CSV or JSON Lines file
            with the columns path, name, arch, mean, std and any others, which go into the tables.
        out: The folder for everything that is found.
        first_look: Search all classes of all models with a tenth of the passes at the first area,
            and then only the best of them fully.
        ray: Run on the cluster at this address, such as --ray=auto, or without an address, put
            last, on all cores. It needs pip install 'captum_classpattern[ray]'.
        workers: The classes that are searched at a time, with --ray and no address. By default, one
            for each core.
        gpus_per_task: The GPUs of each search, such as 1 or 0.25. Models then run on cuda.
        keep: The share of all classes of all models that --first-look leaves.
        threads: The threads of each search. Another number changes results in the last digits.
    """
    from captum_classpattern.surveys import sweep as run_sweep
    from captum_classpattern.surveys.engines import import_ray
    from captum_classpattern.surveys.sources import read_models

    if ray:
        import_ray()  # before anything takes long
    elif workers is not None or gpus_per_task is not None:
        option = "--workers" if workers is not None else "--gpus-per-task"
        raise ValueError(f"{option} is for Ray: pass --ray, too")
    sources = read_models(models, model.loading())
    import_from_here()
    classifier = _open_first(sources)
    search_images, held_out = images.load([classifier], seed=searches.seed)
    classes = searches.find_classes(classifier, search_images)
    print(
        f"Models: {len(sources)}. Classes: {len(classes)}. {len(search_images)} images to search "
        f"with, {len(held_out)} held out ({held_out.duplicates_dropped} copies dropped).",
        flush=True,
    )
    with interrupted(lambda: f"the same command resumes the sweep in {out}"):
        found = run_sweep(
            {source.name: source for source in sources},
            search_images,
            held_out,
            folder=out,
            classes=classes,
            first_look=first_look,
            keep=keep,
            engine="ray" if ray else "local",
            address=ray if isinstance(ray, str) else None,
            workers=workers,
            threads=threads,
            gpus_per_task=gpus_per_task,
            device=None if gpus_per_task and model.device == "cpu" else model.device,
            show_progress=True,
            **searches.keywords(),
        )
    if found.first_look is not None:
        print_sweep(found.first_look, "First look")
    written = ["table.csv"]
    if found_some := print_sweep(found, "Sweep"):
        figure, _ = found.plot(use_pyplot=False)
        write_figure(figure, out / "power.png")
        written.append("power.png")
    print(f"{', '.join(written)} and a folder for each model are in {out}.")
    if not found_some:
        raise SystemExit(1)


def _open_first(sources: "Sequence[ModelSource]") -> "PixelClassifier":
    """The first model that can be opened, which says how the images are loaded and numbered."""
    from captum_classpattern.surveys.units import reason_of

    reasons = []
    for source in sources:
        try:
            return source.open()  # type: ignore[return-value]  # a checkpoint
        except Exception as error:  # it fails again, in its units
            reasons.append(f"{source.name}: {reason_of(error)}")
    raise ValueError("none of the models can be opened. " + "; ".join(reasons[:3]))


def print_sweep(found: "Sweep", title: str) -> bool:
    """Prints a row for each model, and the units that failed; writes all rows into table.csv.
    Returns whether anything was found. Models are read one at a time: there may be thousands."""
    with replace_file(found.folder / "table.csv") as file:
        writer = csv.DictWriter(codecs.getwriter("utf-8")(file), found.columns)
        writer.writeheader()
        writer.writerows(found.rows())
    area = float(found.settings["areas"][0])
    failed = Counter(row["model"] for row in found.failures)
    summaries = []
    for model in found.models:
        best = _best_of(found, model)
        if best or failed[model]:
            summaries.append(_summary(model, best, area, failed[model]))
    summaries.sort(key=lambda summary: -summary[0])
    strongest = f"{SHOWN} of {len(summaries)} models, the strongest"
    out = console()
    out.print(
        make_table(
            ["model", "classes", "failed", "mean power", "above controls", "strongest class"],
            [cells for _, *cells in summaries[:SHOWN]],
            left=("model", "strongest class"),
            title=title,
            caption=strongest if len(summaries) > SHOWN else None,
        )
    )
    out.print(
        f"Powers: at {area:.3g} of the pixels of the canvas that did best on the judging images. "
        "Above controls: classes whose power beats all three, on at least 100 images."
    )
    for row in found.failures[:SHOWN]:
        line = f"Failed: {row['model']}, class {row['class']}: {row['error']}"
        out.print(printable(line), markup=False)
    if len(found.failures) > SHOWN:
        out.print(f"and {len(found.failures) - SHOWN} more, in {found.folder / 'table.csv'}")
    return any(mean >= 0 for mean, *_ in summaries)


def _best_of(found: "Sweep", model: str) -> "list[Finding]":
    """For each class that was found the canvas that did best on the judging images."""
    try:
        return found.survey(model).best_canvases()
    except FileNotFoundError:  # none of its classes was begun
        return []


def _summary(
    model: str, best: "Sequence[Finding]", area: float, failed: int
) -> tuple[float, str, str, str, str, str, str]:
    """A model's mean power, to sort by, and the cells of its row."""
    if not best:
        return (-1.0, model, "0", str(failed), "", "", "")
    scores = [finding.scores[area] for finding in best]
    powers = [each.power.value for each in scores]
    mean, most = fmean(powers), max(powers)
    above = sum(each.beats_controls for each in scores)
    strongest = f"{best[powers.index(most)].label}, {most:.1%}"
    return mean, model, str(len(best)), str(failed), f"{mean:.1%}", str(above), strongest
