"""``classpattern search`` and ``classpattern sweep``: the class patterns of a user's model, or of
many, scored on held-out images."""

import codecs
import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter
from cyclopts.validators import Number

import captum_classpattern as cp
from captum_classpattern._files import replace_file, write_figure
from captum_classpattern.cli import options
from captum_classpattern.cli.errors import interrupted
from captum_classpattern.cli.printing import print_table, say
from captum_classpattern.results import as_table

IN_RAY = Parameter(group=options.RAY)
CLASSES_TOGETHER = 5  # on a GPU; on a CPU one class fills a batch, and is finished sooner
SHOWN = 20  # models, and units that failed
SCORES = {"class": "", "canvas": "", "area": "g", "images": "d"} | dict.fromkeys(
    ("power", "power_low", "power_high", "no_pattern", "random_pixels", "other_canvas"), ".1%"
)
OF_MODELS = {"model": "", "classes": "d", "failed": "d", "power": ".1%", "above": ".0f"}
LEGEND = (
    "Power: the share of held-out images of other classes that the model assigns to the class once "
    "they are stamped with the pattern (low, high: 95 % Wilson interval). It beats its controls if "
    "it is above all three, on at least 100 images (95 % interval of each difference above 0)."
)
CAUTION = (
    "A strong pattern does not prove a backdoor: clean classes can have strong patterns, too. "
    "Compare with a clean model of the same kind, and look at the pattern."
)


def search(
    checkpoint: str,
    /,
    *,
    model: options.ModelOptions = options.ModelOptions(),
    images: options.ImageOptions,
    searches: options.SurveyOptions = options.SurveyOptions(),
    out: options.OutputFolder = Path("classpattern-search"),
    resume: bool = False,
) -> None:
    """Find the patterns of a model's classes, and score them.

    For example:

        classpattern search my_model.pt --arch my_net:MyNet --data my_images --size 64
        classpattern search timm:resnet18.a1_in1k --data my_images --classes dog,3-5

    Each pattern is scored on held-out images, next to its controls.

    Args:
        checkpoint: A checkpoint file, or torchvision:NAME, timm:NAME or robustbench:NAME.
        out: The folder for report.html, results.json, the figure and the patterns.
        resume: Continue the unfinished search in the folder.
    """
    if (out / "results.json").exists() and not resume:
        raise ValueError(
            f"{out} holds results already: pass --resume to continue them, or another --out"
        )
    classifier = model.open(checkpoint)
    search_images, held_out = images.load([classifier], seed=searches.seed)
    found = cp.survey(
        classifier,
        search_images,
        held_out,
        classes=searches.find_classes(classifier, search_images),
        classes_together=1 if model.device.startswith("cpu") else CLASSES_TOGETHER,
        folder=out,
        resume=resume,
        **searches.keywords(),
    )
    provenance, accuracy = classifier.provenance, found.info["accuracy"]
    print(
        f"{provenance['source']}: {provenance['format']}, "
        f"{provenance.get('arch') or 'the network in it'}; "
        f"normalised by {provenance['normalisation']['from']}.\n"
        f"{_counts(search_images, held_out)}"
    )
    if accuracy is not None:
        print(f"The model classifies {100 * accuracy:.1f} % of the held-out images correctly.")
    if found.finished:
        finished = dict.fromkeys(finding.label for finding in found.finished)
        print(f"Already finished: {', '.join(finished)}.")
    with (
        interrupted(lambda: f"--resume continues the search in {out}"),
        found.progress(desc="Searching", disable=None),  # on a terminal
    ):
        findings = list(found)
    figure, _ = found.plot(use_pyplot=False)
    write_figure(figure, out / "patterns.png")
    found.to_html(out / "report.html")
    rows = [{**row, "class": each.label} for each in findings for row in each.rows()]
    print_table(as_table(rows), {**SCORES, "beats_controls": ""}, provenance["source"])
    say(LEGEND, *found.strongest_of_each(), CAUTION)
    print(f"report.html, patterns.png, patterns/ and results.json are in {out}.")


def _counts(search: "cp.LabelledImages", held_out: "cp.LabelledImages") -> str:
    return (
        f"{len(search)} images to search with, {len(held_out)} held out "
        f"({held_out.duplicates_dropped} copies dropped)."
    )


def sweep(
    *models: Annotated[str, Parameter(required=True)],
    model: options.ModelOptions = options.ModelOptions(),
    images: options.ImageOptions,
    searches: options.SurveyOptions = options.SurveyOptions(),
    out: options.OutputFolder,
    first_look: bool = False,
    ray: Annotated[bool | str, Parameter(metavar="[ADDRESS]"), IN_RAY] = False,
    workers: Annotated[options.Count | None, IN_RAY] = None,
    gpus_per_task: Annotated[
        float | None, Parameter(validator=Number(gt=0), metavar="N"), IN_RAY
    ] = None,
    keep: Annotated[
        float, Parameter(validator=Number(gt=0, lte=1), metavar="SHARE"), options.IN_SEARCH
    ] = 0.2,
    threads: Annotated[options.Count, options.IN_SEARCH] = 1,
) -> int:
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
    from captum_classpattern._validation import import_optional
    from captum_classpattern.surveys.sources import read_models

    if ray:
        import_optional("ray")  # before anything takes long
    elif workers is not None or gpus_per_task is not None:
        option = "--workers" if workers is not None else "--gpus-per-task"
        raise ValueError(f"{option} is for Ray: pass --ray, too")
    sources = read_models(models, model.loading())
    options.import_from_here()
    classifier = _open_first(sources)
    search_images, held_out = images.load([classifier], seed=searches.seed)
    classes = searches.find_classes(classifier, search_images)
    print(
        f"Models: {len(sources)}. Classes: {len(classes)}. {_counts(search_images, held_out)}",
        flush=True,
    )
    with interrupted(lambda: f"the same command resumes the sweep in {out}"):
        found = cp.sweep(
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
    written = "table.csv"
    if found_some := print_sweep(found, "Sweep"):
        figure, _ = found.plot(use_pyplot=False)
        write_figure(figure, out / "power.png")
        written += ", power.png"
    print(f"{written} and a folder for each model are in {out}.")
    return 0 if found_some else 1


def _open_first(sources: Sequence[Any]) -> Any:
    """The first model that can be opened, which says how the images are loaded and numbered."""
    from captum_classpattern.surveys.sweep_run import reason_of

    reasons = []
    for source in sources:
        try:
            return source.open()
        except Exception as error:  # it fails again, in its units
            reasons.append(f"{source.name}: {reason_of(error)}")
    raise ValueError("none of the models can be opened. " + "; ".join(reasons[:3]))


def print_sweep(found: "cp.Sweep", title: str) -> bool:
    """Prints a row for each model, and the units that failed; writes all rows into table.csv.
    Returns whether anything was found."""
    from captum_classpattern.pages.kinds.sweep import model_rows

    with replace_file(found.folder / "table.csv") as file:
        writer = csv.DictWriter(codecs.getwriter("utf-8")(file), found.columns)
        writer.writeheader()
        writer.writerows(found.rows())
    rows = [row for row in model_rows(found) if row["classes"] or row["failed"]]
    for row in rows:
        if first := row.get("first"):
            row["strongest"] = f"{first.label}, {100 * first.power.value:.1f} %"
    if len(rows) > SHOWN:
        title += f": the strongest {SHOWN} of {len(rows)} models"
    print_table(as_table(rows[:SHOWN]), {**OF_MODELS, "strongest": ""}, title)
    area = float(found.settings["areas"][0])
    say(
        f"Power: mean over the classes, at {area:.3g} of the pixels of the canvas that did best on "
        "the judging images. Above: classes whose power beats all three controls, on at least 100 "
        "images."
    )
    for row in found.failures[:SHOWN]:
        say(f"Failed: {row['model']}, class {row['class']}: {row['error']}")
    if len(found.failures) > SHOWN:
        print(f"and {len(found.failures) - SHOWN} more, in {found.folder / 'table.csv'}")
    return any("power" in row for row in rows)
