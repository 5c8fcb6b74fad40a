"""``classpattern search``: the class patterns of a user's model, scored on held-out images."""

from pathlib import Path

import captum_classpattern as cp
from captum_classpattern._support.files import write_figure
from captum_classpattern.cli import options
from captum_classpattern.cli.printing import interrupted, print_result, say, say_line

LEGEND = (
    "Power: the share of held-out images of other classes that the model assigns to the class once "
    "they are stamped with the pattern (95 % Wilson interval). It beats its controls if "
    "it is above all of them, on at least 100 images (95 % interval of each difference above 0)."
)
CAUTION = (
    "A strong pattern does not prove a backdoor: clean classes can also have strong patterns. "
    "Compare with a clean model of the same kind, and look at the pattern."
)


def search(
    checkpoint: str,
    /,
    *,
    model: options.ModelOptions = options.ModelOptions(),
    images: options.ImageOptions,
    searches: options.CanvasOptions = options.CanvasOptions(),
    out: options.OutputFolder = Path("classpattern-search"),
) -> None:
    """Find the patterns of a model's classes, and score them.

    For example:

        classpattern search my_model.pt --arch my_net:MyNet --data my_images --size 64
        classpattern search timm:resnet18.a1_in1k --data my_images --classes dog,3-5

    Each pattern is scored on held-out images, next to its controls. The same command continues an
    interrupted search.

    Args:
        checkpoint: A checkpoint file, a folder that save_pretrained wrote, torchvision:NAME,
            timm:NAME, huggingface:NAME or robustbench:NAME.
        out: The folder for report.html, results.json, the figure and the findings.
    """
    classifier = model.open(checkpoint)
    search_images, held_out = images.load([classifier], seed=searches.seed)
    _say_what_is_loaded(classifier, search_images, held_out)
    with interrupted(f"the same command continues the search in {out}"):
        survey = cp.survey(
            classifier,
            search_images,
            held_out,
            classes=searches.find_classes(classifier, search_images),
            folder=out,
            resume=True,
            **searches.keywords(),
        )
    figure, _ = survey.plot(use_pyplot=False)
    write_figure(figure, out / "patterns.png")
    survey.to_html(out / "report.html")
    print_result(survey)
    best = max(survey, key=lambda each: each.search_powers[each.area])
    say(LEGEND, survey.strongest(best.canvas, survey.areas[0]), CAUTION)
    say_line(f"report.html, patterns.png, findings/ and results.json are in {out}.")


def _say_what_is_loaded(
    classifier: "cp.PixelClassifier", images: "cp.LabelledImages", held_out: "cp.LabelledImages"
) -> None:
    """Describes the model and the images, before a search that may be long."""
    from captum_classpattern.classifier import enter_model
    from captum_classpattern.images import predictions

    provenance = classifier.provenance
    say_line(
        f"{provenance['source']}: {provenance['format']}, "
        f"{provenance.get('arch') or 'the network in it'}; "
        f"normalised by {provenance['normalisation']['from']}."
    )
    say_line(
        f"{len(images)} images to search with, {len(held_out)} held out "
        f"({held_out.duplicates_dropped} copies dropped)."
    )
    if held_out.labels is not None:
        with enter_model(classifier, held_out.first()) as checked:
            right = held_out.accuracy_of(predictions(checked, held_out))
        say_line(f"The model classifies {100 * right:.1f} % of the held-out images correctly.")
