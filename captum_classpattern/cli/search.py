"""``classpattern search``: the class patterns of a user's model, scored on held-out images."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import captum_classpattern as cp
from captum_classpattern._files import write_figure
from captum_classpattern.cli import options, printing
from captum_classpattern.cli.errors import interrupted

if TYPE_CHECKING:  # --help needs no torch
    from captum_classpattern.surveys.search import SurveySearch

CLASSES_TOGETHER = 5  # on a GPU; on a CPU one class fills a batch, and is finished sooner
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
