"""``classpattern sweep``: the class patterns of many models, on one machine or many."""

import codecs
import csv
import sys
from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby
from statistics import fmean
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter
from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

from captum_classpattern._files import replace_file
from captum_classpattern.cli.errors import printable
from captum_classpattern.cli.options import (
    MAIN,
    MORE_SEARCH,
    RAY,
    Area,
    Count,
    ImageOptions,
    ModelOptions,
    OutputFolder,
    SearchOptions,
    import_from_here,
)
from captum_classpattern.cli.printing import console, write_figure

if TYPE_CHECKING:  # imported where they are used, so that --help needs no torch
    from captum_classpattern.adapters import PixelClassifier
    from captum_classpattern.sweeps import Sweep
    from captum_classpattern.sweeps.sources import ModelSource

ON_RAY = Parameter(group=RAY)  # the panel of the help
SHOWN = 20  # models, and units that failed


def _check_share(_: type, share: float) -> None:
    if not 0 < share <= 1:
        raise ValueError("It is a share above 0 and up to 1, such as 0.2.")


def _check_gpus(_: type, gpus: float | None) -> None:
    if gpus is not None and not gpus > 0:
        raise ValueError("It is a number above 0, such as 1 or 0.25.")


def sweep(
    *models: Annotated[str, Parameter(required=True)],
    model: ModelOptions = ModelOptions(),
    images: ImageOptions,
    searches: SearchOptions = SearchOptions(),
    area: Annotated[list[Area] | None, Parameter(group=MAIN, metavar="SHARE")] = None,
    out: OutputFolder,
    first_look: Annotated[bool, Parameter(group=MAIN)] = False,
    ray: Annotated[bool | str, Parameter(metavar="[ADDRESS]"), ON_RAY] = False,
    workers: Annotated[Count | None, ON_RAY] = None,
    gpus_per_task: Annotated[
        float | None, Parameter(validator=_check_gpus, metavar="N"), ON_RAY
    ] = None,
    canvases: Annotated[Count, Parameter(group=MORE_SEARCH)] = 32,
    keep: Annotated[
        float, Parameter(validator=_check_share, group=MORE_SEARCH, metavar="SHARE")
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
        area: The share of the pixels. Give it several times for more. By default, 0.05 and 0.01.
        out: The folder for everything that is found.
        first_look: Search all classes of all models with a tenth of the passes at the first area,
            and then only the best of them fully.
        ray: Run on the cluster at this address, such as --ray=auto, or without an address, put
            last, on all cores. It needs pip install 'captum_classpattern[ray]'.
        workers: The classes that are searched at a time, with --ray and no address. By default, one
            for each core.
        gpus_per_task: The GPUs of each search, such as 1 or 0.25. Models then run on cuda.
        canvases: Images per class that compete to be its canvas. A white and a black canvas are
            searched, too.
        keep: The share of all classes of all models that --first-look leaves.
        threads: The threads of each search. Another number changes results in the last digits.
    """
    from captum_classpattern.surveys.results import AREAS, CANVASES
    from captum_classpattern.sweeps import sweep as run_sweep
    from captum_classpattern.sweeps.engines import import_ray
    from captum_classpattern.sweeps.sources import read_models

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
    try:
        found = run_sweep(
            {source.name: source for source in sources},
            search_images,
            held_out,
            folder=out,
            classes=classes,
            canvases={**CANVASES, "positive": canvases},
            areas=area or AREAS,
            budget=searches.budget,
            n_steps=searches.n_steps,
            max_seconds=searches.max_seconds,
            seed=searches.seed,
            precision=searches.precision,
            internal_batch_size=searches.internal_batch_size,
            first_look=first_look,
            keep=keep,
            engine="ray" if ray else "local",
            address=ray if isinstance(ray, str) else None,
            workers=workers,
            threads=threads,
            gpus_per_task=gpus_per_task,
            device=None if gpus_per_task and model.device == "cpu" else model.device,
            show_progress=True,
        )
    except KeyboardInterrupt:
        print(f"\nInterrupted: the same command resumes the sweep in {out}.", file=sys.stderr)
        raise SystemExit(130) from None
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
    from captum_classpattern.sweeps.units import reason_of

    reasons = []
    for source in sources:
        try:
            return source.open()  # type: ignore[return-value]  # a checkpoint
        except Exception as error:  # it fails again, in its units
            reasons.append(f"{source.name}: {reason_of(error)}")
    raise ValueError("none of the models can be opened. " + "; ".join(reasons[:3]))


def print_sweep(found: "Sweep", title: str) -> bool:
    """Prints a row for each model, and the units that failed; writes all rows into table.csv.
    Returns whether anything was found. Rows are read one at a time: there may be millions."""
    first = float(found.settings["areas"][0])
    failed: list[str] = []
    summaries = []
    with replace_file(found.folder / "table.csv") as file:
        writer = csv.DictWriter(codecs.getwriter("utf-8")(file), found.columns)
        writer.writeheader()
        for model, rows in groupby(_written(found.rows(), writer), lambda row: row["model"]):
            summaries.append(_summary(model, rows, first, failed))
    out = console()
    table = Table(title=title, title_justify="left", title_style="bold", box=SIMPLE_HEAD)
    for name, justify in (
        *(("model", "left"), ("classes", "right"), ("failed", "right")),
        *(("mean power", "right"), ("above controls", "right"), ("strongest class", "left")),
    ):
        table.add_column(name, justify=justify, no_wrap=True)  # type: ignore[arg-type]
    summaries.sort(key=lambda summary: -summary[0])
    for _, *cells in summaries[:SHOWN]:
        table.add_row(*(Text(printable(cell)) for cell in cells))
    if len(summaries) > SHOWN:
        table.caption = f"{SHOWN} of {len(summaries)} models, the strongest"
    out.print(table)
    out.print(
        f"Powers: at {first:.3g} of the pixels of the canvas that did best on the judging images. "
        "Above controls: classes whose power beats all three, on at least 100 images."
    )
    for line in failed[:SHOWN]:
        out.print(printable(f"Failed: {line}"), markup=False)
    if len(failed) > SHOWN:
        out.print(f"and {len(failed) - SHOWN} more, in {found.folder / 'table.csv'}")
    return any(mean >= 0 for mean, *_ in summaries)


def _written(
    rows: Iterable[dict[str, Any]], writer: "csv.DictWriter[str]"
) -> Iterator[dict[str, Any]]:
    """The rows, each written into a file on its way."""
    for row in rows:
        writer.writerow(row)
        yield row


def _summary(
    model: str, rows: Iterable[dict[str, Any]], area: float, failed: list[str]
) -> tuple[Any, ...]:
    """A model's mean power, to sort by, and the cells of its row. Its failures are added to
    ``failed``."""
    failed_before = len(failed)
    best: dict[int, dict[str, Any]] = {}  # of each class the canvas that did best when judged
    for row in rows:
        if row["error"] is not None:
            failed.append(f"{model}, class {row['class']}: {row['error']}")
        elif row["area"] == area:
            before = best.get(row["class"])
            if before is None or row["search_power"] > before["search_power"]:
                best[row["class"]] = row
    from captum_classpattern.class_names import label_of

    count = str(len(failed) - failed_before)
    if not best:
        return (-1.0, model, "0", count, "", "", "")
    mean = fmean(row["power"] for row in best.values())
    strongest = max(best.values(), key=lambda row: row["power"])
    label = strongest["class_name"] or label_of(strongest["class"])
    above = sum(row["beats_controls"] for row in best.values())
    cells = (model, str(len(best)), count, f"{mean:.1%}", str(above))
    return (mean, *cells, f"{label}, {strongest['power']:.1%}")
