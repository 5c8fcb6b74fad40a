"""What the image processors of transformers do to the values of pixels: each class has its own
defaults and steps, so it is asked to process a few plain images."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from captum_classpattern._support.files import printable
from captum_classpattern._support.validation import import_optional

SETTINGS = (  # of a processor, that may change the values of pixels
    "do_rescale", "rescale_factor", "rescale_offset", "do_normalize", "image_mean", "image_std",
    "include_top", "do_flip_channel_order",
)  # fmt: skip
SIDES = ("crop_size", "size")  # of a processor, which may resize and then crop
MAX_CHANNELS = 4


class FlippedChannels(nn.Module):
    """A network that takes blue, green, red."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, pixels: Tensor) -> Any:
        return self.network(pixels.flip(1))


def find_normalisation(
    processor: Mapping[str, Any], channels: int
) -> tuple[list[float], list[float], bool]:
    """The mean and std by which a processor normalises pixels in [0, 1], in the order of their
    channels, and whether it then reverses this order. An error if it does anything else."""
    if not 1 <= channels <= MAX_CHANNELS:
        raise ValueError(f"it has {channels} channels")
    own = _class_of(processor)(**{key: processor[key] for key in SETTINGS if key in processor})
    colour = torch.arange(1, channels + 1) * 51
    levels = torch.stack([torch.zeros_like(colour), torch.full_like(colour, 255), colour])
    images = levels.to(torch.uint8)[:, :, None, None].expand(-1, -1, 4, 4)
    steps = {name: False for name in ("do_resize", "do_center_crop") if hasattr(own, name)}
    values = own([*images], **steps, input_data_format="channels_first", return_tensors="pt")[
        "pixel_values"
    ].double()
    if values.shape != images.shape or (values != values[:, :, :1, :1]).any():
        raise ValueError("it does more than to scale, to normalise and to flip channels")
    black, white, seen = values[:, :, 0, 0]
    scale, share = white - black, colour.double() / 255
    order = next(
        (order for order in (1, -1) if torch.allclose((seen - black) / scale, _in(order, share))),
        None,
    )
    if order is None or not (scale > 0).all():
        raise ValueError("it changes the values of pixels in an unusual way")
    mean, std = (
        [float(f"{each:.7g}") for each in _in(order, of_channels).tolist()]
        for of_channels in (0 - black / scale, 1 / scale)
    )
    return mean, std, order == -1


def _in(order: int, channels: Tensor) -> Tensor:
    """Values by channel, as they are or reversed."""
    return channels if order == 1 else channels.flip(0)


def _class_of(processor: Mapping[str, Any]) -> Any:
    """The class of transformers that a processor names, perhaps as it was called before."""
    transformers = import_optional("transformers")
    named = processor.get("image_processor_type") or processor.get("feature_extractor_type")
    name = str(named).replace("FeatureExtractor", "ImageProcessor").removesuffix("Fast")
    found = getattr(transformers, name, None) if "ImageProcessor" in name else None
    if not (isinstance(found, type) and issubclass(found, transformers.BaseImageProcessor)):
        raise ValueError(f"transformers has no image processor {printable(name):.80}")
    return found


def find_input_size(processor: Mapping[str, Any], channels: int) -> list[Any] | None:
    """(C, H, W) of the images after a processor's resizing and cropping, if it says so."""
    names = SIDES if processor.get("do_center_crop") else SIDES[1:]
    for size in map(processor.get, names):
        match size:
            case {"height": height, "width": width}:
                return [channels, height, width]
            case {"shortest_edge": side} | int(side):
                return [channels, side, side]
    return None
