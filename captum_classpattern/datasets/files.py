"""Image files as a Dataset that decodes them once, when the first is needed."""

from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from pathlib import Path

import torch
from torch import Tensor
from torch.utils.data import Dataset
from tqdm import tqdm

from captum_classpattern._validation import join_names
from captum_classpattern.datasets.pixels import DECODE_ERRORS, as_floats, decode, fit


class ImageFiles(Dataset[Tensor]):
    """The images of files, float32 (C, H, W) in [0, 1]. The first that is asked for decodes all of
    them, since one RGB image makes all of them RGB; they stay in memory, as bytes if they can. An
    error names those that can't be read, unless nobody asks for these (``skip``)."""

    in_unit_range = True  # nobody needs to check the pixels

    def __init__(
        self,
        folder: Path,
        names: Sequence[str],
        sides: tuple[int, int] | None = None,
        channels: int | None = None,
        *,
        skip: bool = False,
    ) -> None:
        self.folder, self.names = folder.absolute(), names  # the working directory may change
        self.sides, self.channels, self.skip = sides, channels, skip

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: int) -> Tensor:
        return self.__getitems__([index])[0]

    def __getitems__(self, indices: Sequence[int]) -> list[Tensor]:
        """The images of a batch."""
        images, errors = self.decoded
        if errors and not self.skip:
            raise unreadable_files(errors, self.names, self.folder)
        return [*as_floats(images[list(indices)])]

    @cached_property
    def decoded(self) -> tuple[Tensor, dict[int, str]]:
        """What :func:`decode_all` returns for all files."""
        return decode_all(self._decode, range(len(self)), self.names, self.folder)

    def _decode(self, index: int) -> Tensor:
        return fit(decode(self.folder / self.names[index]), self.sides, self.channels)


def decode_all(
    decode: Callable[[int], Tensor], chosen: Sequence[int], names: Sequence[str], source: object
) -> tuple[Tensor, dict[int, str]]:
    """Images (len(chosen), C, H, W): uint8, or float32 if any is. Images that can't be read are
    blank, and their errors are returned by index."""
    images, errors, first = torch.empty(0), dict[int, str](), None
    for place, i in enumerate(tqdm(chosen, "Reading images", delay=5, disable=None, leave=False)):
        try:
            image = decode(i)
        except DECODE_ERRORS as error:
            errors[i] = str(error)
            continue
        found = names[i], *image.shape[1:]
        if first is None:
            first, images = found, _blank(image, len(chosen), source)
        if first[1:] != found[1:]:
            raise ValueError(
                f"the images of {source} have several sizes: {first[0]} is {first[1]}x{first[2]} "
                f"(height x width), {found[0]} is {found[1]}x{found[2]}; pass `size`"
            )
        if len(image) > images.shape[1]:  # the first RGB image, after grey ones
            images = images.repeat(1, len(image), 1, 1)
        if image.is_floating_point():
            images = as_floats(images)
        images[place] = as_floats(image) if images.is_floating_point() else image
    return images, errors


def _blank(like: Tensor, count: int, source: object) -> Tensor:
    """So many blank images; an error if they are too many for the memory."""
    try:
        return like.new_zeros(count, *like.shape)
    except RuntimeError as error:
        size = like.numel() * like.element_size() * count / 2**30
        raise ValueError(
            f"the {count:,} images of {source} don't fit into memory ({size:,.1f} GiB): load fewer "
            "of each class (`limit=100`), or make them smaller (`size=224`)"
        ) from error


def unreadable_files(errors: Mapping[int, str], names: Sequence[str], source: object) -> ValueError:
    """The error about images that can't be read, by their places among the names of all."""
    listed = join_names([f"{names[i]} ({error})" for i, error in errors.items()])
    return ValueError(
        f"{len(errors)} of {len(names)} images of {source} can't be read: {listed}; repair or "
        "remove them, or skip them (`on_error='skip'`)"
    )
