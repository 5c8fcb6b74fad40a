"""RobustBench's models (Croce et al. 2021, arXiv 2010.09670), by name or from a checkpoint file."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import nn

from captum_classpattern._support.validation import import_optional
from captum_classpattern.adapters.architectures import arch_name
from captum_classpattern.adapters.interface import CheckpointFile, LoadedNetwork, LoadOptions
from captum_classpattern.adapters.weights import ITSELF, NORMALISERS, find_weights, load_weights

SIDES = {"cifar10": 32, "cifar100": 32, "imagenet": 224}  # pixels, by data set
THREATS = ("Linf", "L2", "corruptions")
# many files lack a model's normalisation, since the network sets it
MAY_LACK = ("num_batches_tracked", *(name for pair in NORMALISERS for name in pair))
CHOICE = ("last", "best")  # from files with two sets of weights, RobustBench takes the last


class RobustBench:
    """A file in RobustBench's folders."""

    name = "robustbench"

    def matches(self, file: CheckpointFile, options: LoadOptions) -> bool:
        """Whether the file lies where RobustBench keeps it: DATA/THREAT/NAME.pt."""
        return options.format == self.name or (options.arch is None and _in_zoo(file.path))

    def load(self, file: CheckpointFile, options: LoadOptions) -> LoadedNetwork:
        """Loads the weights into the network of the zoo, which RobustBench builds."""
        path = file.path
        if options.arch is None and not _in_zoo(path):
            raise ValueError(
                f"{path}: pass `arch`, the model's name in RobustBench, such as "
                "'Carmon2019Unlabeled' or 'cifar100/Linf/NAME'"
            )
        given = None if options.arch is None else arch_name(options.arch)
        arch, data, threat, model = _parse(given or "/".join(path.with_suffix("").parts[-3:]))
        zoo = import_optional("robustbench").model_zoo.models.model_dicts
        by_name = {
            (of_data.value, of_threat.value): models
            for of_data, threats in zoo.items()
            for of_threat, models in threats.items()
        }
        entry = by_name.get((data, threat), {}).get(model)
        if entry is None or isinstance(entry["gdrive_id"], list):
            why = "is not in its zoo" if entry is None else "is an ensemble of several files"
            raise ValueError(f"{path}: RobustBench's {arch} {why}")
        network: nn.Module = entry["model"]()
        parts = [part for part in map(file.entries.get, CHOICE) if isinstance(part, Mapping)]
        weights = find_weights(parts[0] if parts else file.content, path)
        inner: Any = getattr(network, "model", None)
        of_outer = any(key.removeprefix("module.").startswith("model.") for key in weights.state)
        whole = inner is None or of_outer
        loaded = load_weights(network if whole else inner, weights, MAY_LACK, arch=arch)
        if loaded.mean is None or not whole:
            loaded.mean, loaded.std, loaded.normalised_by = ITSELF
        loaded.network, loaded.input_size = network, (3, SIDES[data], SIDES[data])
        return loaded


def load_from_robustbench(name: str) -> LoadedNetwork:
    """A model of the zoo, ``[DATA/THREAT/]NAME``, which RobustBench downloads or finds."""
    arch, data, threat, model = _parse(name)
    load_model = import_optional("robustbench").load_model
    try:
        network: nn.Module = load_model(model, dataset=data, threat_model=threat)
    except KeyError as error:
        raise ValueError(f"RobustBench's {arch} is not in its zoo") from error
    size = (3, SIDES[data], SIDES[data])
    return LoadedNetwork(network, *ITSELF, input_size=size, details={"arch": arch})


def _in_zoo(path: Path) -> bool:
    return path.parent.parent.name in SIDES and path.parent.name in THREATS


def _parse(name: str) -> tuple[str, str, str, str]:
    """The model's full name; its data set, threat model and short name."""
    parts = name.split("/") if "/" in name else ["cifar10", "Linf", name]
    if len(parts) != 3 or parts[0] not in SIDES:
        raise ValueError(
            f"RobustBench's models are named NAME or DATA/THREAT/NAME, with DATA one of "
            f"{', '.join(SIDES)} and THREAT such as Linf, got {name!r}"
        )
    data, threat, model = parts
    return "/".join(parts), data, threat, model
