"""Clean models of a task, trained here for a scan to compare with."""

import itertools
import math
import os
import time
from collections.abc import Mapping, Sequence
from contextlib import closing
from copy import deepcopy
from dataclasses import dataclass
from functools import reduce
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors.torch import load_file, save
from torch import Tensor, nn

from captum_classpattern._support.files import reason_of, write_atomically
from captum_classpattern._support.progress import advance_bar, name_stage, passes_bar
from captum_classpattern._support.validation import (
    ArgumentTypeError,
    check_count,
    check_positive,
    join_names,
)
from captum_classpattern.classifier import CheckedModel, PixelClassifier, enter_model
from captum_classpattern.classifier.calling import LogProbabilities, preserve_state
from captum_classpattern.images import (
    Images,
    LabelledImages,
    Labels,
    hash_of_images,
    predictions,
)
from captum_classpattern.optimization.acceleration import has_bfloat16
from captum_classpattern.optimization.settings import ComputeOptions
from captum_classpattern.scanning.decision import references_needed
from captum_classpattern.scanning.profile import SETTINGS, passes_of
from captum_classpattern.scanning.references import ReferenceSet, names_of
from captum_classpattern.scanning.task import ScanTask, in_memory
from captum_classpattern.surveys.folder import Folder, locked
from captum_classpattern.surveys.on_ray import check_engine, run_on_ray

BATCH, SGD_RATE, ADAM_RATE, DECAY = 128, 0.2, 0.004, 5e-4
IN_AN_EPOCH = 32  # batches, at least: of few images they are small
FEWEST_IMAGES = 4 * IN_AN_EPOCH  # so that half of them make batches of two
FEWEST_OF_A_CLASS = 20
RATES = 1.0, 0.1  # the second after a collapse
LOOKED_AT = 200  # images
RESETS = ("reset_parameters", "_reset_parameters")  # methods of torch's modules
TRAINING = "training.json"  # in the folder
OWN_ONES = "train clean models yourself, and measure them with 'classpattern reference'"


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
    How a scan trains clean models to compare with: with the scanned model's architecture and new
    random weights, by five recipes in turn.

    Args:
        images (LabelledImages, Tensor, Dataset or DataLoader): Training images of all classes, of
            the size that the model takes. Those that the scan uses are left out.
        labels (Tensor, Sequence[int] or Sequence[str], optional): Their classes. Default: None
            (those that come with the images).
        models (int, optional): How many are trained. Default: None (one more than ``alpha`` needs,
            so 20 for 5 %).
        epochs (float): By how much the recipes' epochs are multiplied. Default: 1.0.
        flips (bool): Whether half of the images are mirrored; better not for digits. Default: True.
        engine, address, workers, ray_options: As in :func:`sweep`; each task makes one reference,
            and ``ray_options`` are for Ray alone. Another number of threads gives other references.

    Examples::

        >>> images, labels = torch.rand(260, 1, 8, 8), torch.arange(260) % 3
        >>> layers = torch.nn.Flatten(), torch.nn.LayerNorm(64), torch.nn.Linear(64, 3)
        >>> net = torch.nn.Sequential(*layers).eval()
        >>> training = ReferenceTraining(images[60:], labels[60:], models=2, epochs=0.01)
        >>> found = scan(net, images[:60], labels[:60], make_references=training,
        ...              folder=getfixture("tmp_path"))
        >>> len(found.references), found.verdict
        (2, 'inconclusive')
    """

    images: Images
    labels: Labels = None
    models: int | None = None
    epochs: float = 1.0
    flips: bool = True
    engine: str = "local"
    address: str | None = None
    workers: int | None = None
    ray_options: Mapping[str, Any] | None = None


class Plan(NamedTuple):
    """A decided training: its images, its epochs, their steps, and the images of each step."""

    recipe: Recipe
    images: int
    epochs: int
    steps: int
    size: int
    flips: bool = True
    rate: float = 1.0  # of learning, as a share of the usual one

    @classmethod
    def of(cls, recipe: Recipe, images: int, factor: float, flips: bool = True) -> "Plan":
        used = round(recipe.share * images)
        size = min(BATCH, used // IN_AN_EPOCH)
        steps = used // size
        epochs = max(recipe.epochs, recipe.least_steps / steps)
        return cls(recipe, used, math.ceil(factor * epochs), steps, size, flips)

    @property
    def passes(self) -> int:
        return self.epochs * self.steps * self.size


@dataclass(frozen=True, eq=False)
class _Work:
    """The references of a scan by name, each of which is trained, measured and kept in a file of
    its own. A worker gets a copy."""

    network: nn.Module
    names: list[str] | None  # of its classes
    as_log: bool  # its outputs are probabilities
    device: torch.device
    fit: LabelledImages
    plans: Mapping[str, Plan]
    images: LabelledImages
    computed: Mapping[str, Any]  # options of searches
    folder: Path

    def file(self, name: str) -> Path:
        return self.folder / f"{name}.safetensors"

    def weights(self, name: str) -> Path:
        return self.folder / f"{name}_weights.safetensors"

    def run(self, name: str) -> tuple[str | None]:
        """Makes a reference, unless its weights are there already; returns why it failed."""
        try:
            self._make(name, 1_000 * self.computed["seed"] + [*self.plans].index(name))
        except Exception as error:
            return (reason_of(error),)
        return (None,)

    def untrained(self, seed: int) -> nn.Module:
        """A network with random weights, and the names of the classes."""
        network = untrained(self.network, seed).to(self.device)
        if isinstance(network, PixelClassifier):
            network.class_names = self.names
        return network

    def trained(self, plan: Plan, seed: int) -> nn.Module:
        """A network that was trained."""
        network = self.untrained(seed)
        with preserve_state(None, seed):
            train(LogProbabilities(network) if self.as_log else network, self.fit, plan)
        return network

    def has_learnt(self, network: nn.Module) -> bool:
        """Whether it predicts several classes: a fast training may collapse."""
        some = self.fit.stratified_sample(LOOKED_AT)
        with enter_model(network.eval(), some.first()) as model:
            return len({*predictions(model, some).tolist()}) > 1

    def _make(self, name: str, seed: int) -> None:
        plan, weights = self.plans[name], self.weights(name)
        if weights.exists():
            network = self.untrained(seed)
            network.load_state_dict(load_file(weights))
            advance_bar(2 * plan.passes)
        else:
            name_stage(f"training {name}")
            networks = (self.trained(plan._replace(rate=rate), seed) for rate in RATES)
            learnt = next(filter(self.has_learnt, networks), None)
            if learnt is None:
                raise ValueError(f"it predicts one class for all images: {OWN_ONES}")
            network, state = learnt, learnt.state_dict().items()
            kept = {key: each.cpu().clone().contiguous() for key, each in state}
            write_atomically(weights, save(kept))
        network.eval().requires_grad_(False)
        name_stage(f"measuring {name}")
        measured = ReferenceSet.for_models(network, self.images)
        recipe = {"recipe": name, "epochs": plan.epochs, "images": plan.images}
        measured.add(name, network, self.images, recipe=recipe, **self.computed)
        measured.save(self.file(name))


def train_references(
    task: ScanTask, training: ReferenceTraining, alpha: float, folder: Path
) -> ReferenceSet:
    """Trains clean models like that of a task, and measures them with its images. What is finished
    is kept in the folder."""
    model, settings = task.model, task.settings
    needs = {"num_cpus": 1, **(training.ray_options or {})}
    count = references_needed(alpha) + 1 if training.models is None else training.models
    check_count("models", count)
    check_positive("epochs", training.epochs)
    if training.engine == "local" and training.ray_options:
        raise ValueError("`ray_options` are for `engine='ray'`")
    on_ray, places = training.engine == "ray", [("scanned", model.device)]
    check_engine(training.engine, training.address, training.workers, needs, places)
    network, workers = _network_of(model), training.workers or os.cpu_count() or 1
    work = _Work(
        deepcopy(network).cpu() if on_ray else network,  # workers may lack its device
        names_of(model, task.images),
        model.logits is not model.call,
        torch.device("cuda") if on_ray and needs.get("num_gpus") else model.device,
        fit := in_memory(_training_images(training, task)),
        _plans(training, count, len(fit)),
        task.images,
        {
            **{key: getattr(settings, key) for key in ComputeOptions.__annotations__},
            "show_progress": False,
        },
        folder.absolute(),
    )
    with locked(work.folder):
        _begin(work, training, task)
        left = [name for name in work.plans if not work.file(name).exists()]
        at_once = 1.0  # of all that is made here; each worker of Ray has threads of its own
        if on_ray:
            at_once = workers * max(1, needs["num_cpus"]) / torch.get_num_threads()
        measuring, seconds = passes_of(model.n_classes), _training_seconds(work, left) / at_once
        task.say_expected((len(left) / at_once + 1) * measuring, seconds)
        outcomes: Any = ((name, *work.run(name)) for name in left)
        if on_ray:
            outcomes = run_on_ray(work.run, left, training.address, training.workers, needs)
        passes = {name: work.plans[name].passes + measuring for name in left}
        with (
            passes_bar("References", sum(passes.values()), settings.show_progress),
            closing(outcomes),
        ):
            for name, reason, *_ in outcomes:
                if reason is not None:
                    raise ValueError(f"the reference {name} was not made ({reason})")
                advance_bar(2 * passes[name] if on_ray else 0)
    first, *others = (ReferenceSet.load(work.file(name)) for name in work.plans)
    made = reduce(ReferenceSet.with_models, others, first)
    made.save(folder.with_suffix(".safetensors"))  # for other scans
    return made


def _training_images(training: ReferenceTraining, task: ScanTask) -> LabelledImages:
    """The images to train on; an error unless models of the task can be trained on them."""
    given = LabelledImages.of(
        training.images, training.labels, task.model, argument="the training images"
    )
    if given.shape != task.images.shape:
        raise ValueError(
            f"the training images are of {given.shape}, those of the scan of {task.images.shape}: "
            "give both in one size"
        )
    names, theirs = given.class_names, task.images.class_names
    if names and theirs and names != theirs:
        raise ValueError(
            f"the training images have the classes {join_names(names)}, those of the scan "
            f"{join_names(theirs)}: give both the same names"
        )
    given = given.with_labels(given.known_labels).without(task.images)
    counts = torch.bincount(given.known_labels, minlength=task.model.n_classes)
    if len(given) < FEWEST_IMAGES or counts.min() < FEWEST_OF_A_CLASS:
        raise ValueError(
            f"{len(given)} training images that the scan does not use, {int(counts.min())} of one "
            f"class, are too few: give at least {FEWEST_IMAGES}, and {FEWEST_OF_A_CLASS} of each "
            "class, better hundreds"
        )
    return given


def _network_of(model: CheckedModel) -> nn.Module:
    """The network of a model; an error unless all that it learnt can be replaced."""
    network = model.call
    if not isinstance(network, nn.Module):
        raise ArgumentTypeError(
            f"`make_references` trains a torch.nn.Module, got a {type(network).__name__}: give the "
            f"network itself, or {OWN_ONES}"
        )
    shown, run = {*network.modules()}, (part for each in model.networks for part in each.modules())
    others = (part for part in run if part not in shown)
    hidden = [part for part in others if next(part.parameters(recurse=False), None) is not None]
    if hidden or next(network.parameters(), None) is None:
        parts = f"a {type(hidden[0]).__name__}" if hidden else "all of its parameters"
        raise ArgumentTypeError(
            f"`make_references` can't replace what the {type(network).__name__} learnt: it hides "
            f"{parts} from its modules(); register it as an attribute, or {OWN_ONES}"
        )
    return network


def _begin(work: _Work, training: ReferenceTraining, task: ScanTask) -> None:
    """Raises an error if the folder has references that were trained differently."""
    settings = {"epochs": training.epochs, "flips": training.flips, "recipes": RECIPES}
    settings |= {"training images": hash_of_images(work.fit)}
    folder = Folder(
        work.folder,
        task.identity(SETTINGS | settings),
        kind="training of references",
        any_version=False,
    )
    if not folder.read(TRAINING):
        folder.write(TRAINING, {})


def _training_seconds(work: _Work, left: Sequence[str]) -> float:
    """About how long it takes to train what is left; an error if a copy can't be trained."""
    plans = [work.plans[name] for name in left if not work.weights(name).exists()]
    if not plans:
        return 0.0
    step = plans[-1]._replace(epochs=1, steps=1)
    try:
        for _ in range(2):  # the first one takes longer
            started = time.perf_counter()
            next(work.trained(step, 0).parameters()).cpu()  # waits for a GPU
    except Exception as error:
        raise ValueError(
            f"a copy of the model can't be trained ({reason_of(error)}): {OWN_ONES}"
        ) from error
    return sum(plan.passes for plan in plans) * (time.perf_counter() - started) / step.size


def _plans(training: ReferenceTraining, count: int, images: int) -> dict[str, Plan]:
    """How each reference is trained, by its name."""
    recipes = itertools.islice(itertools.cycle(RECIPES.items()), count)
    return {
        f"{name}_{number}": Plan.of(recipe, images, training.epochs, training.flips)
        for number, (name, recipe) in enumerate(recipes)
    }


def untrained(network: nn.Module, seed: int) -> nn.Module:
    """A copy with new random weights: all parameters are put into random order, which keeps their
    scale, and then modules that can reset theirs do so."""
    with preserve_state(None, seed):
        new = deepcopy(network).float()
        for parameter in new.parameters():
            order = torch.randperm(parameter.numel(), device=parameter.device)
            parameter.data = parameter.data.flatten()[order].view_as(parameter)
        for part in new.modules():
            if reset := next(filter(None, (getattr(part, name, None) for name in RESETS)), None):
                reset()
    return new


def train(network: nn.Module, images: LabelledImages, plan: Plan) -> None:
    """Trains on a share of the images, in one cycle of the learning rate."""
    device, recipe = next(network.parameters()).device, plan.recipe
    network.requires_grad_().train()
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    chosen = torch.randperm(len(images))[: plan.images]
    if recipe.optimizer == "adam":
        rate = plan.rate * ADAM_RATE
        optimizer: torch.optim.Optimizer = torch.optim.AdamW(network.parameters(), rate)
    else:
        rate = plan.rate * SGD_RATE * plan.size / BATCH
        optimizer = torch.optim.SGD(
            network.parameters(), rate, momentum=0.9, weight_decay=DECAY, nesterov=True
        )
    cycle = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, plan.epochs * plan.steps)
    loss_of = nn.CrossEntropyLoss(label_smoothing=recipe.smoothing)
    for _ in range(plan.epochs):
        order = chosen[torch.randperm(len(chosen))]
        for batch in order[: plan.steps * plan.size].view(-1, plan.size):
            x = augmented(images.take(batch.tolist()), plan.flips, recipe.crops).to(device)
            with torch.autocast(device.type, torch.bfloat16, enabled=has_bfloat16(device)):
                logits = network(x.contiguous(memory_format=torch.channels_last))
            loss = loss_of(logits.float(), images.known_labels[batch].to(device))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            cycle.step()
            advance_bar(2 * plan.size)
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
