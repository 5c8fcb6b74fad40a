"""RobustBench's models (Croce et al. 2021, arXiv 2010.09670), by name or from a checkpoint file."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import nn

from captum_classpattern.adapters.architectures import optional
from captum_classpattern.adapters.fitting import NORMALISERS, load_weights
from captum_classpattern.adapters.found import Found
from captum_classpattern.adapters.weights import Weights

SIZES = {"cifar10": 32, "cifar100": 32, "imagenet": 224}
DEFAULT = ("cifar10", "Linf")
# of a model's own normalisation, which many files leave out, since the network sets it
OWN = ("num_batches_tracked", *(name for pair in NORMALISERS for name in pair))
OF_SEVERAL = ("last", "best")  # of files with two sets of weights RobustBench takes the last
INSIDE = "the model itself"


def by_name(name: str) -> Found:
    """A model of the zoo, ``[DATA/THREAT/]NAME``, which RobustBench downloads or finds."""
    data, threat, model = parts(name)
    load_model = optional("robustbench").load_model
    try:
        network: nn.Module = load_model(model, dataset=data, threat_model=threat)
    except KeyError as error:
        raise ValueError(f"RobustBench's {data}/{threat}/{model} is not in its zoo") from error
    return Found(
        network, (0.0,), (1.0,), INSIDE, input_size=(3, SIZES[data], SIZES[data]),
        details={"arch": f"{data}/{threat}/{model}"},
    )  # fmt: skip


def recognise(path: Path) -> bool:
    """Whether the file lies where RobustBench keeps it: DATA/THREAT/NAME.pt."""
    return path.parent.parent.name in SIZES and path.parent.name in ("Linf", "L2", "corruptions")


def read(content: Any, where: str, arch: str | None, path: Path) -> Found:
    """The zoo's network of a name, and a file's weights; RobustBench needs to be installed."""
    if arch is None and not recognise(path):
        raise ValueError(
            f"{where}: pass arch, the model's name in RobustBench, such as 'Carmon2019Unlabeled' "
            "or 'cifar100/Linf/NAME'"
        )
    told = "/".join(path.with_suffix("").parts[-3:])
    data, threat, model = parts(arch or told)
    optional("robustbench")
    zoo = optional("robustbench").model_zoo.models.model_dicts
    models = {
        name: entry
        for set_, threats in zoo.items()
        for kind, named in threats.items()
        if (set_.value, kind.value) == (data, threat)
        for name, entry in named.items()
    }
    if model not in models or isinstance(models[model]["gdrive_id"], list):
        why = "is an ensemble of several files" if model in models else "is not in its zoo"
        raise ValueError(f"{where}: RobustBench's {data}/{threat}/{model} {why}")
    network: nn.Module = models[model]["model"]()
    if isinstance(content, Mapping):
        held = (content.get(key) for key in OF_SEVERAL)
        content = next((part for part in held if isinstance(part, Mapping)), content)
    weights = Weights.of(content, where)
    state = {k.removeprefix("module."): v for k, v in weights.state.items()}
    inner = getattr(network, "model", None)
    wrapped = inner is not None and not any(key.startswith("model.") for key in state)
    fit = load_weights(inner if wrapped and inner is not None else network, state, where, OWN)
    details = {**weights.told, "arch": f"{data}/{threat}/{model}", **fit.as_dict()}
    size = SIZES[data]
    own = ((0.0,), (1.0,), INSIDE) if fit.mean is None or wrapped else fit.normalisation
    return Found(network, *own, input_size=(3, size, size), details=details)


def parts(name: str) -> tuple[str, str, str]:
    """Data set, threat model and name."""
    given = name.split("/")
    if len(given) not in (1, 3) or (len(given) == 3 and given[0] not in SIZES):
        raise ValueError(
            f"RobustBench's models are named NAME or DATA/THREAT/NAME, with DATA one of "
            f"{', '.join(SIZES)} and THREAT such as Linf, got {name!r}"
        )
    data, threat, model = given if len(given) == 3 else (*DEFAULT, name)
    return data, threat, model
