"""``classpattern scan`` and ``classpattern reference``: is a model backdoored?"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Group, Parameter
from cyclopts.validators import Number
from filelock import FileLock

import captum_classpattern as cp
from captum_classpattern._support.files import check_folder, parse_json
from captum_classpattern.cli import options
from captum_classpattern.cli.printing import interrupted, print_result, say, say_line

FIRST_PRINTED = 10  # classes
TRAINING = Group("References trained here", sort_key=2)
EXIT_CODES = {"nothing found": 0, "suspicious": 3, "inconclusive": 4}


@Parameter(name="*", group=TRAINING)
@dataclass(frozen=True, kw_only=True)
class TrainingOptions:
    """How clean models are trained for comparison.

    Args:
        make_references: Training images in any form of --data, such as my_images/train. 20 clean
            models of the same architecture, or more for a smaller --alpha, are trained on all of
            them, and kept in the folder of the scan, in references.safetensors for other scans.
        epochs: Multiply the epochs of each recipe by this factor, such as 4 or 0.5.
        no_flips: Never mirror images, for example of digits.
    """

    make_references: options.Source | None = None
    epochs: Annotated[float, Parameter(validator=Number(gt=0), metavar="FACTOR")] = 1.0
    no_flips: bool = False

    def training(
        self, load: "Callable[[str], cp.LabelledImages]", engine: dict[str, Any]
    ) -> "cp.scanning.ReferenceTraining | None":
        """The training, on images that ``load`` loads."""
        if self.make_references is not None:
            how = {"epochs": self.epochs, "flips": not self.no_flips, **engine}
            return cp.scanning.ReferenceTraining(load(self.make_references), **how)
        if self.epochs != 1 or self.no_flips or engine["engine"] != "local":
            raise ValueError(
                "--epochs, --no-flips and --ray are for clean models that are trained here: also "
                "pass --make-references FOLDER"
            )
        return None


def scan_command(
    checkpoint: str,
    /,
    *,
    model: options.ModelOptions = options.ModelOptions(),
    images: options.SourceOptions,
    compute: options.ComputeOptions = options.ComputeOptions(),
    references: Annotated[str | None, Parameter(metavar="FILE|NAME")] = None,
    training: TrainingOptions = TrainingOptions(),
    ray: options.RayOptions = options.RayOptions(),
    alpha: Annotated[float, Parameter(validator=Number(gt=0, lt=1), metavar="P")] = 0.05,
    out: options.OutputFolder | None = None,
    exit_zero: bool = False,
) -> int:
    """Ask whether a model is backdoored.

    For example:

        classpattern scan torchvision:resnet50 --data my_photos
        classpattern scan net.pt --arch my:Net --data test --make-references train

    For each class, the scan searches for small changes that make the model predict it. On images of
    at least 64 pixels a side, these are a patch that works anywhere, a few cells at one place and a
    smooth perturbation. No references are needed there: in clean models, such changes rarely do
    much. The scan first says how long it will take.

    On smaller images, they are a few pixels with their colours, a small perturbation and a smooth
    warp. They also have effects in clean models. So the model is compared with references: clean
    models of the same task. --make-references trains them.

    The exit code is 0 if nothing was found, 3 if the model is suspicious, 4 if the scan is
    inconclusive, and 2 after an error. The same command resumes an interrupted scan, and keeps the
    groups of classes that are finished.

    Args:
        checkpoint: A checkpoint file, or torchvision:NAME, timm:NAME or huggingface:NAME.
        references: The clean models: a file that classpattern reference wrote, or demo, or
            cifar10. By default, none, for images of at least 64 pixels a side.
        alpha: The largest p-value that is suspicious. It needs 1 / alpha - 1 references. The class
            must also lead by more than 4.5 standard deviations. Not used without references.
        out: The folder for scan.html, scan.json, scan.png and patterns. By default,
            classpattern-scan/CHECKPOINT- and six digits of a hash of its path.
        exit_zero: Exit with 0, whatever the verdict.
    """
    from captum_classpattern.adapters.load import folder_name

    known = None if references is None else cp.ReferenceSet.load(references)
    folder = Path("classpattern-scan") / folder_name(checkpoint) if out is None else out
    classifier = model.open(checkpoint)
    shape = None if known is None else known.shape
    source = images.load_all([classifier], seed=compute.seed, shape=shape)

    def load(where: str) -> "cp.LabelledImages":
        how: Any = {"seed": compute.seed, "shape": source.shape, "source": where}
        return replace(images, limit=None).load_all([classifier], **how)

    making = training.training(load, ray.keywords())
    with interrupted(f"the same command resumes from {folder}"):
        found = cp.scan(
            classifier,
            source,
            references=known,
            make_references=making,
            alpha=alpha,
            folder=folder,
            **compute.keywords(),
        )
    found.save(folder)
    found.to_html(folder / "scan.html")
    print_result(found, FIRST_PRINTED)
    say(found.legend, "")
    say("What next", *(f"{n}. {step}" for n, step in enumerate(found.next_steps, 1)))
    picture = ", scan.png" * (folder / "scan.png").exists()
    say_line(f"scan.html, scan.json{picture} and patterns/ are in {folder}.")
    return 0 if exit_zero else EXIT_CODES[found.verdict]


def read_recipe(given: Sequence[str]) -> dict[str, Any]:
    """The settings of KEY=VALUE. A value that is valid JSON, such as a number, is read as JSON."""
    recipe: dict[str, Any] = {}
    for text in given:
        key, _, value = text.partition("=")
        if not (key and value):
            raise ValueError(f"--recipe: expected KEY=VALUE, got {text!r}")
        try:
            recipe[key] = parse_json(value)
        except ValueError:
            recipe[key] = value
    return recipe


def reference(
    *models: Annotated[str, Parameter(required=True)],
    model: options.ModelOptions = options.ModelOptions(),
    images: options.SourceOptions,
    compute: options.ComputeOptions = options.ComputeOptions(),
    out: Annotated[Path, Parameter(metavar="FILE")],
    recipe: Annotated[list[str] | None, Parameter(metavar="KEY=VALUE")] = None,
) -> None:
    """Measure clean models as references for scans.

    For example:

        classpattern reference clean/*.pt --data my_images --out my.json

    The file is written after each model. If it exists, models are added to it, and those that it
    holds are skipped. All must be measured with the same images. Models with another --arch, --mean
    or --std need a separate call.

    Args:
        models: Checkpoint files of clean models, torchvision:NAME, timm:NAME or huggingface:NAME,
            each optionally with a name of your choice, as in old=a.pt.
        out: The file for the references, such as my_references.json.
        recipe: How the models were trained, as in --recipe network=ResNet-18 --recipe epochs=30.
    """
    from captum_classpattern.scanning.decision import references_needed

    checkpoints = options.checkpoints_by_name(models)
    trained = read_recipe(recipe or ())
    check_folder(out.parent)
    out.parent.mkdir(parents=True, exist_ok=True)
    for name, checkpoint in checkpoints.items():
        known = cp.ReferenceSet.load(out) if out.exists() else None
        classifier = model.open(checkpoint)
        shape = None if known is None else known.shape
        source = images.load_all([classifier], seed=compute.seed, shape=shape)
        if known is None:
            known = cp.ReferenceSet.for_models(classifier, source)
        if name in known.profiles:
            if known.differs(name, classifier, source):
                raise ValueError(
                    f"{out} has another model of the name {name}: give this one another name, as "
                    f"in other={checkpoint}"
                )
            say_line(f"{name} is in {out} already.")
            continue
        known.add(name, classifier, source, recipe=trained, **compute.keywords())
        with FileLock(out.with_name(f".{out.name[:50]}.lock")):
            if out.exists():  # perhaps with models that another process has added
                known = cp.ReferenceSet.load(out).with_models(known)
            known.save(out)
        accuracy = known.profiles[name].accuracy
        say_line(name if accuracy is None else f"{name}, accuracy {100 * accuracy:.1f} %")
    assert known is not None
    needed = references_needed(0.05)
    say_line(f"Clean models in {out}: {len(known)}. A p-value of 5 % needs at least {needed}.")
