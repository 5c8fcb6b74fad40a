"""``classpattern scan``: is a model backdoored?"""

from pathlib import Path

import captum_classpattern as cp
from captum_classpattern.cli import options
from captum_classpattern.cli.printing import interrupted, print_result, say, say_line

FIRST_PRINTED = 10  # classes
EXIT_CODES = {"nothing found": 0, "suspicious": 3, "inconclusive": 4}


def scan_command(
    checkpoint: str,
    /,
    *,
    model: options.ModelOptions = options.ModelOptions(),
    images: options.SourceOptions,
    compute: options.ComputeOptions = options.ComputeOptions(),
    out: options.OutputFolder | None = None,
    exit_zero: bool = False,
) -> int:
    """Ask whether a model is backdoored.

    For example:

        classpattern scan my_model.pt --arch my_nets:Net --data my_images
        classpattern scan torchvision:resnet50 --data my_photos

    For each class, the scan searches for small changes of images that make the model predict it: a
    few pixels or a patch, a perturbation of all pixels, and a smooth warp. A class that one change
    takes far ahead of all other classes is suspicious.

    The exit code is 0 if nothing was found, 3 if the model is suspicious, 4 if the scan is
    inconclusive, and 2 after an error. The same command resumes an interrupted scan, and keeps the
    groups of classes that are finished.

    Args:
        checkpoint: A checkpoint file, or torchvision:NAME, timm:NAME or huggingface:NAME.
        out: The folder for scan.html, scan.json, scan.png and patterns. By default,
            classpattern-scan/CHECKPOINT- and six digits of a hash of its path.
        exit_zero: Exit with 0, whatever the verdict.
    """
    from captum_classpattern.adapters.load import folder_name
    from captum_classpattern.scanning.results import LEGEND

    folder = Path("classpattern-scan") / folder_name(checkpoint) if out is None else out
    classifier = model.open(checkpoint)
    source = images.load_all([classifier], seed=compute.seed)
    with interrupted(f"the same command resumes from {folder}"):
        found = cp.scan(classifier, source, folder=folder, **compute.keywords())
    found.to_html(folder / "scan.html")
    print_result(found, FIRST_PRINTED)
    say(LEGEND, "")
    say("What next", *(f"{n}. {step}" for n, step in enumerate(found.next_steps, 1)))
    say("To load what was found, in Python:")
    for line in found.lines_to_load.split("\n"):
        say_line(f"    {line}")
    picture = ", scan.png" * (folder / "scan.png").exists()
    say_line(f"scan.html, scan.json{picture} and patterns/ are in {folder}.")
    return 0 if exit_zero else EXIT_CODES[found.verdict]
