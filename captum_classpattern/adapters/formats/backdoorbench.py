"""BackdoorBench's attack and defense results (Wu et al. 2022, arXiv 2206.12654)."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torchvision.transforms.v2 import Resize

from captum_classpattern.adapters.architectures import told_by_file
from captum_classpattern.adapters.fitting import build_to_fit, load_weights
from captum_classpattern.adapters.found import Found, input_size
from captum_classpattern.adapters.weights import Weights
from captum_classpattern.pattern import Pattern

# normalisation is outside its models: a data set's mean and standard deviation
NORMALISATION: Mapping[str, tuple[Sequence[float], Sequence[float]]] = {
    "cifar10": ((0.4914, 0.4822, 0.4465), (0.247, 0.243, 0.261)),
    "cifar100": ((0.5071, 0.4865, 0.4409), (0.2673, 0.2564, 0.2762)),
    "mnist": ((0.5,), (0.5,)),
    "tiny": ((0.4802, 0.4481, 0.3975), (0.2302, 0.2265, 0.2262)),
    "gtsrb": ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0)),
    "celeba": ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0)),
    "imagenet": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
}
VIT_SIZE = 224
FEWEST, MOST = 20, 500  # poisoned images that a trigger is recovered from
FORMATS = ("PNG", "JPEG")  # by content: EPS, for one, would start another program
DEEPEST = 16  # folders of a stored path that are looked for
LARGEST = 0.1  # share of the pixels: a patch


def recognise(content: Any) -> bool:
    """Whether this is one of BackdoorBench's files."""
    return isinstance(content, Mapping) and {"model_name", "num_classes", "model"} <= set(content)


def read(content: Any, where: str, arch: str | None, num_classes: int | None, path: Path) -> Found:
    """The network that the file names; the data set's normalisation; the trigger, from the
    poisoned test images beside the file."""
    arch = arch or told_by_file(content["model_name"], where)
    state = Weights.of(content["model"], where).state
    network, count = build_to_fit(arch, num_classes, state)
    if num_classes is None and count not in (None, content["num_classes"]):
        raise ValueError(
            f"{where} tells of {content['num_classes']!r:.20} classes, but its weights of {count}: "
            "pass num_classes"
        )
    if arch.startswith("vit_"):  # these enlarge their images, after the normalisation
        resize = Resize((VIT_SIZE, VIT_SIZE), antialias=True)
        network = nn.Sequential(resize, network)
    fit = load_weights(network, state, where)
    data = content.get("clean_data")
    data = data if isinstance(data, str) else None
    mean: Sequence[float] | None
    std: Sequence[float] | None
    mean, std = NORMALISATION.get(str(data), (None, None))
    from_ = f"BackdoorBench's for {data}"
    if fit.inside or fit.mean is not None:
        mean, std, from_ = fit.normalisation
    height, width, channels = (*_listed(content.get("img_size")), None, None, None)[:3]
    size = input_size((channels, height, width))
    trigger, told = recover_trigger(content.get("bd_test"), path)
    details = {"weights": "model", "arch": arch, "num_classes": count, **fit.as_dict()}
    return Found(
        network, mean, std, from_, None, size, trigger,
        {**details, "data": data, "trigger": told},
    )  # fmt: skip


def _listed(told: Any) -> list[Any]:
    return list(told) if isinstance(told, tuple | list) else []


def recover_trigger(bd_test: Any, path: Path) -> tuple[Pattern | None, str]:
    """The patch that all poisoned test images share: the pixels that are alike in all of them.
    Without them, or if the trigger is no patch, None; and a sentence on how it was found."""
    container = bd_test.get("bd_data_container") if isinstance(bd_test, Mapping) else None
    entries = container.get("data_dict") if isinstance(container, Mapping) else None
    if not isinstance(entries, Mapping) or not entries:
        return None, "not known: the file lists no poisoned test images"
    listed = [entry for entry in entries.values() if isinstance(entry, Mapping)]
    images = list(_images(listed, path.parent))
    if len(images) < FEWEST or len({image.shape for image in images}) > 1:
        return None, (
            f"not known: {len(images)} of the {len(entries)} poisoned test images lie beside the "
            f"file, at least {FEWEST} of one size are needed"
        )
    stacked = torch.stack(images)
    low, high = stacked.amin(0), stacked.amax(0)
    mask = (low == high).all(0, keepdim=True).float()
    share = float(mask.mean())
    if not 0 < share <= LARGEST:
        return None, f"no patch: {share:.0%} of the pixels are alike in all poisoned test images"
    told_of = [entry.get("other_info") for entry in listed]
    labels = {int(info[0]) for info in told_of if isinstance(info, list | tuple) and info}
    if len(labels) != 1:
        return None, f"a patch, but it leads to {len(labels)} classes"
    told = f"the {int(mask.sum())} pixels that are alike in {len(images)} poisoned test images"
    return Pattern(mask * low, mask, labels.pop(), {"trigger": told}), told


def _images(entries: list[Mapping[str, Any]], folder: Path) -> Iterator[Tensor]:
    """The poisoned images that lie below the folder; the stored paths begin elsewhere."""
    for entry in entries[:: max(1, -(-len(entries) // MOST))]:
        parts = PurePosixPath(str(entry.get("path", ""))).parts[-DEEPEST:]
        if ".." in parts:
            continue
        for start in range(len(parts)):
            file = folder.joinpath(*parts[start:])
            try:
                if Path(parts[start]).is_absolute() or not file.is_file():
                    continue
                with Image.open(file, formats=FORMATS) as image:
                    pixels = np.array(image if image.mode == "L" else image.convert("RGB"))
            except (OSError, SyntaxError, ValueError, Image.DecompressionBombError):
                break  # no image, or no path at all
            yield torch.from_numpy(np.atleast_3d(pixels)).permute(2, 0, 1).float() / 255
            break
