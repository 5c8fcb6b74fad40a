"""Image files as Tensors: decoding, channels, resizing and cropping."""

import math
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import ExifTags, Image
from torch import Tensor

from captum_classpattern._support.files import reason_of
from captum_classpattern._support.progress import advance_bar
from captum_classpattern._support.validation import ArgumentTypeError
from captum_classpattern.images.source import as_floats as as_floats

RESIZED = 2**25  # pixels of an image before it is cropped, else four times those that are kept
UPRIGHT = {  # by the EXIF orientation; 1 is upright
    2: Image.Transpose.FLIP_LEFT_RIGHT, 3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM, 5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270, 7: Image.Transpose.TRANSVERSE, 8: Image.Transpose.ROTATE_90,
}  # fmt: skip
PILLOW_FORMATS = ("BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")  # others would start programs
GREY_MODES = ("1", "L", "LA", "La")


def decode(image: Path | Image.Image) -> Tensor:
    """A file or Pillow image as a Tensor (1, H, W) or (3, H, W): uint8, or float32 in [0, 1] if its
    pixels have more than 8 bits. If a file can't be read, the error may be of any kind."""
    if isinstance(image, Path):
        if not image.is_file():
            raise ValueError("it is no file, or a link to none")
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(image, formats=PILLOW_FORMATS) as file:
                file.load()  # turns a TIFF upright
                turn = UPRIGHT.get(file.getexif().get(ExifTags.Base.Orientation, 1))
                return decode(file if turn is None else file.transpose(turn))
    if image.mode == "F" or image.mode.startswith("I"):
        largest = 1 if image.mode == "F" else 65535  # 16 bits
        pixels = torch.from_numpy(np.array(image, np.float32))[None] / largest
        if not bool(((pixels >= 0) & (pixels <= 1)).all()):
            raise ValueError(f"its pixels are not from 0 to {largest}")
        return pixels
    if image.mode == "P":
        image = image.convert("RGBA")  # else Pillow warns about transparent colours
    array = np.array(image.convert("L" if image.mode in GREY_MODES else "RGB"))
    return torch.from_numpy(array).view(*array.shape[:2], -1).permute(2, 0, 1)


def fit(image: Tensor, sides: tuple[int, int] | None, channels: int | None) -> Tensor:
    """The image with this (H, W) and number of channels, 1 (grey) or 3 (None: unchanged): resized
    until it just covers (H, W), and its centre cropped. An image of uint8 stays one: it is rounded
    to 256 levels, as if it had been saved."""
    if sides is None and channels is None:
        return image
    height, width = sides or image.shape[1:]
    h, w = image.shape[1:]
    scale = max(height / h, width / w)
    size = max(height, round(h * scale)), max(width, round(w * scale))
    if math.prod(size) > max(RESIZED, 4 * height * width) and size != (h, w):
        raise ValueError(f"its {h}x{w} pixels are too long a stripe for {height}x{width}")
    changed = as_floats(image)
    if channels is not None and channels < len(changed):
        luma = changed.new_tensor([0.299, 0.587, 0.114])  # ITU-R 601-2, like Pillow
        changed = torch.einsum("c,chw->hw", luma, changed)[None].clamp(0, 1)
    elif channels is not None:
        changed = changed.expand(channels, -1, -1)
    if size != (h, w):
        resized = F.interpolate(changed[None], size, mode="bilinear", antialias=True)
        changed = resized[0].clamp_(0, 1)
    top, left = (size[0] - height) // 2, (size[1] - width) // 2
    changed = changed[:, top : top + height, left : left + width]
    return (changed * 255).round().to(torch.uint8) if image.dtype == torch.uint8 else changed


def read_array(file: IO[bytes], size: int) -> np.ndarray[Any, Any]:
    """An array in NumPy's format, without pickle, from a stranger's open file of this many bytes,
    which it closes. Memory is requested only if these can hold it."""
    npy = np.lib.format
    with file:
        first = npy.read_magic(file) == (1, 0)
        read = npy.read_array_header_1_0 if first else npy.read_array_header_2_0
        shape, _, dtype = read(file)
        if math.prod(shape) * dtype.itemsize > size:
            raise ValueError(f"its header promises more than it holds, {dtype} {shape}")
        file.seek(0)
        array: np.ndarray[Any, Any] = npy.read_array(file, allow_pickle=False)
        return array


def decode_all(
    load: Callable[[int], Tensor], names: Sequence[str], source: object
) -> tuple[Tensor, dict[int, str]]:
    """The images of a source by their places, (len(names), C, H, W): uint8, or float32 if any is.
    Those that can't be read are blank, and their errors are returned by place."""
    images, errors, first = torch.empty(0), dict[int, str](), ""
    for place in range(len(names)):
        advance_bar(2)
        try:
            image = load(place)
        except ArgumentTypeError:  # of a data set of torchvision
            raise
        except Exception as error:
            errors[place] = reason_of(error)
            continue
        if not first:
            first, size = names[place], image.numel() * image.element_size() * len(names) / 2**30
            try:
                images = image.new_zeros(len(names), *image.shape)
            except RuntimeError as error:
                raise ValueError(
                    f"the {len(names):,} images of {source} don't fit into memory ({size:,.1f} "
                    "GiB): load fewer of each class (`limit=100`), or make them smaller "
                    "(`size=224`)"
                ) from error
        (height, width), (h, w) = images.shape[2:], image.shape[1:]
        if (height, width) != (h, w):
            raise ValueError(
                f"the images of {source} have several sizes: {first} is {height}x{width} "
                f"(height x width), {names[place]} is {h}x{w}; pass `size`"
            )
        if len(image) > images.shape[1]:  # the first RGB image, after grey ones
            images = images.repeat(1, len(image), 1, 1)
        if image.is_floating_point():
            images = as_floats(images)
        images[place] = as_floats(image) if images.is_floating_point() else image
    return images, errors
