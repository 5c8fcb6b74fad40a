"""Clean models of a task, trained here for a scan to compare with."""

import math
import time
from collections.abc import Mapping
from contextlib import closing
from copy import deepcopy
from dataclasses import dataclass, field
from functools import reduce
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors.torch import load_file, save
from torch import Tensor, nn

from captum_classpattern._support.files import write_atomically
from captum_classpattern._support.hashes import combined_hash
from captum_classpattern._support.progress import advance_bar, name_stage, passes_bar, say_expected
from captum_classpattern._support.validation import ArgumentTypeError
from captum_classpattern.images import Images, LabelledImages, Labels
from captum_classpattern.optimization.acceleration import has_bfloat16
from captum_classpattern.optimization.settings import SearchSettings
from captum_classpattern.scanning.profile import passes_of
from captum_classpattern.scanning.references import ReferenceSet
from captum_classpattern.scanning.task import ScanTask
from captum_classpattern.surveys.folder import Folder
from captum_classpattern.surveys.on_ray import check_engine, run_on_ray

BATCH, SGD_RATE, ADAM_RATE, DECAY = 128, 0.2, 0.004, 5e-4
IN_AN_EPOCH = 32  # batches, at least: of few images they are small
FEWEST_IMAGES = 4 * IN_AN_EPOCH  # so that half of them make batches of two
RESETS = ("reset_parameters", "_reset_parameters")  # methods of torch's modules
SETTINGS = "training.json"  # in the folder


class Recipe(NamedTuple):
    """How a model is trained."""

    epochs: int
    least_steps: int  # with few images, more epochs
    share: float = 1.0  # of the images
    optimizer: str = "sgd"
    smoothing: float = 0.0  # of the labels
    crops: bool = False  # move images by up to an eighth


RECIPES = {  # from weak models to strong ones
    "few": Recipe(6, 900, share=0.5),
    "short": Recipe(3, 700),
    "adam": Recipe(4, 1_000, optimizer="adam"),
    "smooth": Recipe(5, 1_100, smoothing=0.1),
    "long": Recipe(10, 1_600, crops=True),
}


@dataclass(frozen=True, eq=False)
class ReferenceTraining:
    r"""
    How a scan trains clean models to compare with: with the architecture of the scanned model, with
    new random weights, by five recipes in turn.

    Args:
        images (LabelledImages, Tensor, Dataset or DataLoader): Training images of all classes, of
            the size that the model takes.
        labels (Tensor, Sequence[int] or Sequence[str], optional): Their classes. Default: None
            (those that come with the images).
        models (int): How many are trained. A p-value of 5 % needs 19. Default: 20.
        epochs (float): By how much the recipes' epochs are multiplied. Default: 1.0.
        flips (bool): Whether half of the images are mirrored; better not of digits. Default: True.
        engine, address, workers, ray_options: As in :func:`sweep`, each task makes one reference.
    """

    images: Images
    labels: Labels = None
    models: int = 20
    epochs: float = 1.0
    flips: bool = True
    engine: str = "local"
    address: str | None = None
    workers: int | None = None
    ray_options: Mapping[str, Any] = field(default_factory=dict)


class Plan(NamedTuple):
    """A training that is decided: of so many images, in epochs of so many steps of so many."""

    recipe: Recipe
    images: int
    epochs: int
    steps: int
    size: int

    @classmethod
    def of(cls, recipe: Recipe, images: int, factor: float) -> "Plan":
        used = round(recipe.share * images)
        size = min(BATCH, used // IN_AN_EPOCH)
        steps = used // size
        epochs = max(recipe.epochs, recipe.least_steps / steps)
        return cls(recipe, used, math.ceil(factor * epochs), steps, size)

    @property
    def passes(self) -> int:
        return self.epochs * self.steps * self.size


@dataclass(frozen=True, eq=False)
class _Work:
    """The references of a scan: each is trained and measured, and kept in a file of its own."""

    network: nn.Module
    training: ReferenceTraining
    fit: LabelledImages
    images: LabelledImages
    settings: SearchSettings
    folder: Path

    @property
    def names(self) -> list[str]:
        recipes = [*RECIPES]
        return [f"{recipes[n % len(recipes)]}_{n}" for n in range(self.training.models)]

    def file(self, name: str) -> Path:
        return self.folder / f"{name}.safetensors"

    def plan(self, name: str) -> Plan:
        return Plan.of(RECIPES[name.partition("_")[0]], len(self.fit), self.training.epochs)

    def begin(self) -> None:
        """Raises an error if the folder has references that were trained otherwise."""
        shapes = [f"{name} {[*value.shape]}" for name, value in self.network.state_dict().items()]
        training = {name: getattr(self.training, name) for name in ("epochs", "flips")}
        training |= {"images": combined_hash(self.fit.hashes), "network": combined_hash(shapes)}
        folder = Folder(self.folder, training, kind="training of references")
        if not folder.read(SETTINGS):
            folder.write(SETTINGS, {})

    def run(self, name: str) -> tuple[None]:
        """Trains a model, unless its weights are there, and measures it."""
        weights, plan = self.folder / f"{name}_weights.safetensors", self.plan(name)
        network = untrained(self.network, self.names.index(name))
        if weights.exists():
            network.load_state_dict(load_file(weights))
            advance_bar(2 * plan.passes)
        else:
            name_stage(f"training {name}")
            train(network, self.fit, plan, self.names.index(name), flips=self.training.flips)
            state = network.state_dict().items()
            write_atomically(weights, save({key: each.cpu().clone() for key, each in state}))
        name_stage(f"measuring {name}")
        measured = ReferenceSet.for_models(network.eval(), self.images)
        recipe = {"recipe": name, "epochs": plan.epochs, "images": plan.images}
        own: Any = {key: getattr(self.settings, key) for key in ("seed", "precision")}
        measured.add(name, network, self.images, recipe=recipe, **own, show_progress=False)
        measured.save(self.file(name))
        return (None,)


def train_references(task: ScanTask, training: ReferenceTraining, folder: Path) -> ReferenceSet:
    """Trains clean models like that of a task, and measures them with its images. What is finished
    is kept in the folder."""
    model, network, shown = task.model, task.model.call, task.settings.show_progress
    if not isinstance(network, nn.Module):
        raise ArgumentTypeError(
            f"`make_references` trains a torch.nn.Module, got a {type(network).__name__}: give the "
            "network itself, or `references`"
        )
    check_engine(training.engine, training.address, training.workers, training.ray_options)
    fit = LabelledImages.of(training.images, training.labels, model, argument="training images")
    check_training_images(fit := fit.without(task.images), task)
    work = _Work(network, training, fit.in_one_tensor(), task.images, task.settings, folder)
    work.begin()
    left = [name for name in work.names if not work.file(name).exists()]
    measured, in_training = len(left) * passes_of(model.n_classes), seconds_of_a_step(work)
    trained = sum(work.plan(name).passes for name in left)
    seconds = trained * in_training + (measured + passes_of(model.n_classes)) * task.pass_seconds
    say_expected(seconds / (training.workers or 1), shown)
    outcomes: Any = ((name, *work.run(name)) for name in left)
    if training.engine == "ray":
        of_ray = training.address, training.workers, {"num_cpus": 1, **training.ray_options}
        outcomes = run_on_ray(work.run, left, *of_ray)
    with passes_bar("References", trained + measured, shown), closing(outcomes):
        for name, reason, *_ in outcomes:
            if reason is not None:
                raise ValueError(f"the reference {name} could not be made: {reason}")
    first, *others = (ReferenceSet.load(work.file(name)) for name in work.names)
    made = reduce(ReferenceSet.with_models, others, first)
    made.save(folder.with_suffix(".safetensors"))  # for other scans
    return made


def check_training_images(images: LabelledImages, task: ScanTask) -> None:
    """Raises an error unless models of the task can be trained on these images."""
    if images.labels is None:
        raise ValueError("the training images of `make_references` have no labels: give them")
    if images.shape != task.images.shape:
        raise ValueError(
            f"the training images are of {images.shape}, those of the scan of {task.images.shape}: "
            "give both in one size"
        )
    counts = torch.bincount(images.known_labels, minlength=task.model.n_classes)
    if len(images) < FEWEST_IMAGES or not counts.all():
        raise ValueError(
            f"{len(images)} training images, {int(counts.min())} of one class, are too few: give "
            "at least 100 of each class"
        )


def seconds_of_a_step(work: _Work) -> float:
    """How long it takes to train on an image."""
    plan = work.plan(work.names[-1])._replace(epochs=1, steps=1)
    network = untrained(work.network, 0)
    for _ in range(2):  # the first one takes longer
        started = time.perf_counter()
        train(network, work.fit, plan, 0, flips=True)
    return (time.perf_counter() - started) / plan.size


def untrained(network: nn.Module, seed: int) -> nn.Module:
    """A copy with new random weights. Parameters of modules that can't reset theirs are put into
    random order, which keeps their scale."""
    torch.manual_seed(seed)
    new = deepcopy(network).float()
    for part in new.modules():
        if reset := next(filter(None, (getattr(part, name, None) for name in RESETS)), None):
            reset()
            continue
        for parameter in part.parameters(recurse=False):
            order = torch.randperm(parameter.numel(), device=parameter.device)
            parameter.data = parameter.data.flatten()[order].view_as(parameter)
    return new


@torch.enable_grad()
def train(
    network: nn.Module, images: LabelledImages, plan: Plan, seed: int, *, flips: bool
) -> None:
    """Trains on a share of the images, in one cycle of the learning rate."""
    torch.manual_seed(seed)
    device = next(network.parameters()).device
    network.requires_grad_().train()
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    chosen, recipe = torch.randperm(len(images))[: plan.images], plan.recipe
    if recipe.optimizer == "adam":
        rate = ADAM_RATE
        optimizer: torch.optim.Optimizer = torch.optim.AdamW(network.parameters(), rate)
    else:
        rate = SGD_RATE * plan.size / BATCH
        optimizer = torch.optim.SGD(
            network.parameters(), rate, momentum=0.9, weight_decay=DECAY, nesterov=True
        )
    cycle = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, plan.epochs * plan.steps)
    loss_of = nn.CrossEntropyLoss(label_smoothing=recipe.smoothing)
    for _ in range(plan.epochs):
        order = chosen[torch.randperm(len(chosen))]
        for batch in order[: plan.steps * plan.size].view(-1, plan.size):
            x = augmented(images.take(batch.tolist()), flips, recipe.crops).to(device)
            with torch.autocast(device.type, torch.bfloat16, enabled=has_bfloat16(device)):
                logits = network(x.contiguous(memory_format=torch.channels_last))
            loss = loss_of(logits.float(), images.known_labels[batch].to(device))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            cycle.step()
            advance_bar(2 * plan.size)
    network.eval().requires_grad_(False)
    network.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]


def augmented(images: Tensor, flips: bool, crops: bool) -> Tensor:
    """Images (N, C, H, W): with flips, half of them mirrored; with crops, moved by up to an
    eighth."""
    if flips:
        images = images.where(torch.rand(len(images), 1, 1, 1) < 0.5, images.flip(3))
    if not crops:
        return images
    height, width = images.shape[2:]
    margin = max(1, height // 8)
    padded = nn.functional.pad(images, (margin,) * 4)
    rows, columns = torch.randint(2 * margin + 1, (2, len(images))).tolist()
    return torch.stack(
        [image[:, r : r + height, c : c + width] for image, r, c in zip(padded, rows, columns)]
    )
