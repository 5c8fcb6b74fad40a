"""``classpattern reference``: what a scan measures of clean models."""

import sys
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter
from tqdm import tqdm

from captum_classpattern.cli.options import (
    OUTPUT,
    ComputeOptions,
    ModelOptions,
    SourceOptions,
    checkpoints_by_name,
)


def reference(
    *models: Annotated[str, Parameter(required=True)],
    model: ModelOptions = ModelOptions(),
    images: SourceOptions,
    compute: ComputeOptions = ComputeOptions(),
    out: Annotated[Path, Parameter(group=OUTPUT)] = Path("references.json"),
) -> None:
    """Measure clean models, so that other models can be scanned against them.

    For example:

        classpattern reference clean/*.pt --arch resnet18 --data my_images --out references.json

    The models should be like those that will be scanned: the same classes, and accuracies that span
    theirs. Nineteen are needed for p-values down to 0.05. Models that are in the file of --out
    already, by their names, are not measured again.

    Args:
        models: Checkpoint files. Put a name and an equals sign before a model to choose its name,
            as in first=a.pt.
        out: The file for the references.
    """
    checkpoints = checkpoints_by_name(models)

    from captum_classpattern.scan import ReferenceSet

    known = ReferenceSet.load(out) if out.exists() else None
    for name, checkpoint in tqdm(checkpoints.items(), desc="references", unit="model"):
        if known is not None and name in known.profiles:
            continue
        classifier = model.open(checkpoint)
        source = images.load_all([classifier], seed=compute.seed)
        known = known or ReferenceSet.for_models(classifier, source)
        known.add(name, classifier, source, seed=compute.seed, precision=compute.precision)
        known.save(out)
    print(f"{out} holds {len(known or ())} references.", file=sys.stderr)
