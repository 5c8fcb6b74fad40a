"""``classpattern search``: the class patterns of a user's model, scored on held-out images."""

import itertools
import json
import sys
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter
from tqdm import tqdm

from captum_classpattern.cli.documents import only_json, write_document
from captum_classpattern.cli.errors import interrupted
from captum_classpattern.cli.options import (
    MAIN,
    AsJson,
    ImageOptions,
    ModelOptions,
    OutputFolder,
    SurveyOptions,
)
from captum_classpattern.cli.printing import console, print_tables, write_figure

CLASSES_TOGETHER = 5  # on a GPU; on a CPU one class fills a batch, and is finished sooner
CAUTION = (
    "A strong pattern does not prove a backdoor: clean classes can have strong patterns, too. "
    "Compare with a clean model of the same kind, and look at the pattern.\n"
)


def search(
    checkpoint: str,
    /,
    *,
    model: ModelOptions = ModelOptions(),
    images: ImageOptions,
    searches: SurveyOptions = SurveyOptions(),
    out: OutputFolder = Path("classpattern-search"),
    resume: Annotated[bool, Parameter(group=MAIN)] = False,
    as_json: AsJson = False,
) -> None:
    """Find the patterns of a model's classes, and score them.

    For example:

        classpattern search my_model.pt --arch resnet18 --data my_images --size 64
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
    from captum_classpattern.surveys import survey

    with only_json(as_json):
        classifier = model.open(checkpoint)
        search_images, held_out = images.load([classifier], seed=searches.seed)
        found = survey(
            classifier,
            search_images,
            held_out,
            classes=searches.find_classes(classifier, search_images),
            classes_together=1 if model.device.startswith("cpu") else CLASSES_TOGETHER,
            show_progress=sys.stderr.isatty(),
            folder=out,
            resume=resume,
            **searches.keywords(),
        )
        provenance, accuracy = classifier.provenance, found.info["accuracy"]
        print(
            f"{provenance['source']}: {provenance['format']}, "
            f"{provenance.get('arch') or 'the network in it'}; "
            f"normalised by {provenance['normalisation']['from']}.\n"
            f"{len(search_images)} images to search with, {len(held_out)} held out"
            f" ({held_out.duplicates_dropped} copies dropped)."
        )
        if accuracy is not None:
            print(f"The model classifies {accuracy:.1%} of the held-out images correctly.")
        if found.finished:
            finished = dict.fromkeys(finding.label for finding in found.finished)
            print(f"Already finished: {', '.join(finished)}.")
        with interrupted(lambda: f"--resume continues the search in {out}"):
            for _ in tqdm(found, desc="patterns", unit="pattern"):
                pass
        figure, _ = found.plot(seed=searches.seed, use_pyplot=False)
        write_figure(figure, out / "patterns.png")
        found.to_html(out / "report.html")
        if not as_json:
            print_tables({provenance["source"]: found.findings})
            for kind, area in itertools.product(found.canvases, found.areas):
                # the names of classes may hold brackets
                console().print(found.strongest(kind, area), markup=False)
            console().print(CAUTION)
        print(f"report.html, patterns.png, patterns/ and results.json are in {out}.")
    if as_json:
        write_document("search", out, results_with_files(out))


def results_with_files(out: Path) -> dict[str, Any]:
    """results.json, with the file of the pattern next to the scores at each area, and whether
    these beat their controls."""
    from captum_classpattern.scores import Scores
    from captum_classpattern.surveys.store import RESULTS, find_pattern_file

    results: dict[str, Any] = json.loads((out / RESULTS).read_text(encoding="utf-8"))
    for row in results["rows"]:
        for area, scores in row["areas"].items():
            file = find_pattern_file(
                out / "patterns", row["class"], row["canvas"], float(area), row["class_name"]
            )
            scores["beats_controls"] = Scores.from_dict(scores).beats_controls
            scores["pattern"] = file.relative_to(out).as_posix()
    return results
