"""BackdoorBench's attack and defense results (Wu et al. 2022, arXiv 2206.12654)."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path, PurePosixPath
from typing import Any

import torch
from torch import Tensor, nn

from captum_classpattern.adapters.architectures import check_arch_from_file
from captum_classpattern.adapters.interface import CheckpointFile, LoadedNetwork, LoadOptions
from captum_classpattern.adapters.weights import find_weights, load_network
from captum_classpattern.datasets.pixels import as_floats, decode
from captum_classpattern.pattern import Pattern

# of the data sets, outside the models: mean and standard deviation
NORMALISATION: Mapping[Any, tuple[Sequence[float], Sequence[float]]] = {
    "cifar10": ((0.4914, 0.4822, 0.4465), (0.247, 0.243, 0.261)),
    "cifar100": ((0.5071, 0.4865, 0.4409), (0.2673, 0.2564, 0.2762)),
    "mnist": ((0.5,), (0.5,)),
    "tiny": ((0.4802, 0.4481, 0.3975), (0.2302, 0.2265, 0.2262)),
    "gtsrb": ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0)),
    "celeba": ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0)),
    "imagenet": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
}
VIT_SIZE = 224
MIN_IMAGES, MAX_IMAGES = 20, 500  # poisoned images that a trigger is recovered from
MAX_FOLDERS = 16  # of a stored path
MAX_PATCH = 0.1  # share of the pixels


class BackdoorBench:
    """The results of attacks and defenses."""

    name = "backdoorbench"

    def matches(self, file: CheckpointFile, options: LoadOptions) -> bool:
        return {"model_name", "num_classes", "model"} <= set(file.entries)

    def load(self, file: CheckpointFile, options: LoadOptions) -> LoadedNetwork:
        """Loads the network that the file names, with the normalisation of its data set; recovers
        the trigger from the poisoned test images next to the file."""
        content, path = file.content, file.path
        arch = options.arch or check_arch_from_file(content["model_name"], path)
        weights = find_weights({"model": content["model"]}, path)
        loaded = load_network(arch, weights, options.num_classes)
        count = loaded.details["num_classes"]
        if options.num_classes is None and count not in (None, content["num_classes"]):
            raise ValueError(
                f"{path} says that it has {content['num_classes']!r:.20} classes, but its weights "
                f"have {count}: pass `num_classes`"
            )
        # these enlarge their images, after the normalisation
        if loaded.details["arch"].startswith("vit_"):
            from torchvision.transforms.v2 import Resize  # slow to import

            resize = Resize((VIT_SIZE, VIT_SIZE), antialias=True)
            loaded.network = nn.Sequential(resize, loaded.network)
        data = content.get("clean_data")
        data = data if isinstance(data, str) else None
        if loaded.mean is None and data in NORMALISATION:
            loaded.mean, loaded.std = NORMALISATION[data]
            loaded.normalised_by = f"BackdoorBench's {data}"
        size = content.get("img_size")  # (H, W, C)
        if isinstance(size, tuple | list) and len(size) == 3:
            loaded.input_size = (size[2], *size[:2])
        loaded.trigger, how = _recover_trigger(content.get("bd_test"), path)
        loaded.details |= {"data": data, "trigger": how}
        return loaded


def _recover_trigger(bd_test: Any, path: Path) -> tuple[Pattern | None, str]:
    """The patch that all poisoned test images share (the pixels that are equal in all of them), and
    how it was found; or None, and why there is none."""
    container = bd_test.get("bd_data_container") if isinstance(bd_test, Mapping) else None
    listed = container.get("data_dict") if isinstance(container, Mapping) else None
    if not isinstance(listed, Mapping) or not listed:
        return None, "not known: the file lists no poisoned test images"
    entries = [entry for entry in listed.values() if isinstance(entry, Mapping)]
    images = list(_images(entries, path.parent))
    if len(images) < MIN_IMAGES or len({image.shape for image in images}) > 1:
        return None, (
            f"not known: {len(images)} of the {len(listed)} poisoned test images are next to the "
            f"file, at least {MIN_IMAGES} of one size are needed"
        )
    stacked = torch.stack(images)
    low, high = stacked.amin(0), stacked.amax(0)
    mask = (low == high).all(0, keepdim=True).float()
    share = float(mask.mean())
    if not 0 < share <= MAX_PATCH:
        return (
            None,
            f"not a patch: {100 * share:.0f} % of the pixels are equal in all poisoned test images",
        )
    infos = [entry.get("other_info") for entry in entries]
    given = [info[0] for info in infos if isinstance(info, list | tuple) and info]
    labels = {int(label) for label in given if str(label).isdecimal()}
    if len(labels) != 1:
        return None, f"a patch, but for {len(labels)} target classes"
    how = f"the {int(mask.sum())} pixels that are equal in {len(images)} poisoned test images"
    return Pattern(mask * low, mask, labels.pop(), {"trigger": how}), how


def _images(entries: list[Mapping[str, Any]], folder: Path) -> Iterator[Tensor]:
    """The poisoned images that are below the folder. Stored paths begin at some other folder."""
    for entry in entries[:: max(1, -(-len(entries) // MAX_IMAGES))]:
        parts = PurePosixPath(str(entry.get("path", ""))).parts[-MAX_FOLDERS:]
        files = [folder.joinpath(*parts[start:]) for start in range(len(parts))]
        with suppress(Exception):  # not an image, or not a path
            below = [file for file in files if file.is_relative_to(folder)]
            if ".." not in parts and (file := next(filter(Path.is_file, below), None)):
                yield as_floats(decode(file))
