"""``classpattern search`` and ``classpattern sweep``: the class patterns of a user's model, or of
many, scored on held-out images."""

import codecs
import csv
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter
from cyclopts.validators import Number

import captum_classpattern as cp
from captum_classpattern._files import replace_file, write_figure
from captum_classpattern.cli import options, printing
from captum_classpattern.cli.errors import interrupted, printable

if TYPE_CHECKING:  # --help needs no torch
    from captum_classpattern.surveys.search import SurveySearch

IN_RAY = Parameter(group=options.RAY)
CLASSES_TOGETHER = 5  # on a GPU; on a CPU one class fills a batch, and is finished sooner
SHOWN = 20  # models, and units that failed
COLUMNS = (  # of the table of a sweep
    ("model", "model", ""),
    ("classes", "classes", "d"),
    ("failed", "failed", "d"),
    ("mean power", "power", ".1%"),
    ("above controls", "above", "d"),
    ("strongest class", "strongest", ""),
)
CAUTION = (
    "A strong pattern does not prove a backdoor: clean classes can have strong patterns, too. "
    "Compare with a clean model of the same kind, and look at the pattern.\n"
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
    as_json: options.AsJson = False,
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
    with printing.document("search", out, as_json) as content:
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
        print(_cost(found, classifier, search_images), flush=True)
        with (
            interrupted(lambda: f"--resume continues the search in {out}"),
            found.progress() as bar,
        ):
            for finding in found:
                bar.set_description(finding.label)
        figure, _ = found.plot(use_pyplot=False)
        write_figure(figure, out / "patterns.png")
        found.to_html(out / "report.html")
        if as_json:
            content |= _results_with_files(out)
        else:
            screen = printing.console()
            screen.print(printing.results_table(provenance["source"], found.findings))
            screen.print(printing.LEGEND)
            for sentence in found.strongest_of_each():  # the names of classes may hold brackets
                screen.print(sentence, markup=False)
            screen.print(CAUTION)
        print(f"report.html, patterns.png, patterns/ and results.json are in {out}.")
        if not as_json:
            print(_next_steps(found, held_out.shape, checkpoint, model, images))


def _cost(found: "SurveySearch", model: "cp.PixelClassifier", images: "cp.LabelledImages") -> str:
    """What the search will cost, in a sentence."""
    from captum_classpattern.scanning.profile import seconds_per_pass
    from captum_classpattern.surveys.sweep_run import duration

    passes, count = found.expected_passes(), len(found.missing)
    seconds = passes * seconds_per_pass(model, images, found.settings.precision)
    words = f"{count} class{'es' * (count != 1)} x {found.settings.in_words()}"
    return f"{words}: {passes:,.0f} passes, about {duration(seconds)}."


def _next_steps(found: "SurveySearch", shape: Sequence[int], checkpoint: str, *given: Any) -> str:
    """The commands that ask more about the same model."""
    from captum_classpattern.scanning.references import SHIPPED

    fitting, task = ["my.json"], (found.n_classes, tuple(shape))
    for name in SHIPPED:
        known = cp.ReferenceSet.load(name)
        fitting += [name] * ((known.n_classes, known.shape) == task)
    need = "" if fitting[1:] else " (my.json: clean models, measured by classpattern reference)"
    scan = options.as_command("scan", checkpoint, *given, references=fitting[-1], held_out=None)
    classes = ",".join(map(str, found.classes))
    compare = options.as_command("compare", checkpoint, *given, classes=classes)
    return f"Is it backdoored?{need}\n    {scan}\nBeside Captum's methods:\n    {compare}"


def _counts(search: "cp.LabelledImages", held_out: "cp.LabelledImages") -> str:
    return (
        f"{len(search)} images to search with, {len(held_out)} held out "
        f"({held_out.duplicates_dropped} copies dropped)."
    )


def _results_with_files(out: Path) -> dict[str, Any]:
    """results.json, with the file of the pattern next to the scores at each area, and whether
    these beat their controls."""
    from captum_classpattern.scores import Scores
    from captum_classpattern.surveys.store import RESULTS, pattern_file

    results: dict[str, Any] = json.loads((out / RESULTS).read_text(encoding="utf-8"))
    for row in results["rows"]:
        for area, scores in row["areas"].items():
            file = pattern_file(
                out / "patterns", row["class"], row["canvas"], float(area), row["class_name"]
            )
            scores["beats_controls"] = Scores.from_dict(scores).beats_controls
            scores["pattern"] = file.relative_to(out).as_posix()
    return results


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
    if found_some:
        site = options.as_command("gallery", str(out), out="site")
        print(f"As a site, with a page for each class:\n    {site}")
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
    strongest = f"{SHOWN} of {len(rows)} models, the strongest" if len(rows) > SHOWN else None
    out = printing.console()
    out.print(printing.make_table(COLUMNS, rows[:SHOWN], title=title, caption=strongest))
    area = float(found.settings["areas"][0])
    out.print(
        f"Powers: at {area:.3g} of the pixels of the canvas that did best on the judging images. "
        "Above controls: classes whose power beats all three, on at least 100 images."
    )
    for row in found.failures[:SHOWN]:
        line = f"Failed: {row['model']}, class {row['class']}: {row['error']}"
        out.print(printable(line), markup=False)
    if len(found.failures) > SHOWN:
        out.print(f"and {len(found.failures) - SHOWN} more, in {found.folder / 'table.csv'}")
    return any("power" in row for row in rows)
