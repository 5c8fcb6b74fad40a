"""``classpattern scan``: is this model backdoored?"""

import sys
from pathlib import Path
from typing import Annotated

from cyclopts import Group, Parameter

from captum_classpattern.cli.options import (
    OUTPUT,
    ComputeOptions,
    ModelOptions,
    SourceOptions,
    read_as,
)

SCAN = Parameter(group=Group("Scan", sort_key=4))
EXIT_CODES = {"nothing found": 0, "suspicious": 3, "inconclusive": 4}


def _alpha(text: str) -> float:
    alpha = float(text)
    if not 0 < alpha < 1:
        raise ValueError(f"it must be between 0 and 1, such as 0.05, got {text!r}")
    return alpha


def scan(
    checkpoint: str,
    /,
    *,
    model: ModelOptions = ModelOptions(),
    images: SourceOptions,
    compute: ComputeOptions = ComputeOptions(),
    references: Annotated[str, SCAN],
    alpha: Annotated[float, read_as(_alpha), SCAN] = 0.05,
    out: Annotated[Path | None, Parameter(group=OUTPUT)] = None,
    json: Annotated[bool, Parameter(group=OUTPUT)] = False,
) -> None:
    """Ask whether a model is backdoored, by comparing it with clean ones.

    For example:

        classpattern scan my_model.pt --arch resnet18 --data my_images --references clean.json

    The exit code is 0 if nothing was found, 3 if the model is suspicious, 4 if the result is
    inconclusive, and 2 for wrong input.

    Args:
        checkpoint: A checkpoint file, or torchvision:NAME, timm:NAME or robustbench:NAME.
        references: The clean models: a file that classpattern reference wrote, or demo or cifar10,
            which come with the package.
        alpha: The largest p-value that is suspicious.
        out: A folder for scan.json, the figure and the patterns. By default, nothing is written.
        json: Print the result as one JSON object, and nothing else, on standard output.
    """
    from captum_classpattern.cli.printing import console, write_figure
    from captum_classpattern.scan import ReferenceSet
    from captum_classpattern.scan import scan as run

    clean = ReferenceSet.load(references)
    classifier = model.open(checkpoint)
    source = images.load_all([classifier], seed=compute.seed)
    found = run(
        classifier,
        source,
        references=clean,
        alpha=alpha,
        seed=compute.seed,
        precision=compute.precision,
        show_progress=sys.stderr.isatty(),
    )
    if out is not None:
        found.save(out)
        figure, _ = found.plot(use_pyplot=False)
        write_figure(figure, out / "scan.png")
    if json:
        print(found.to_json())
    else:
        console().print(f"{found.verdict.capitalize()}. {found.reason}", markup=False)
    raise SystemExit(EXIT_CODES[found.verdict])
