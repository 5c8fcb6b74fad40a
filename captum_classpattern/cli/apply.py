"""``classpattern apply``: stamps a pattern on image files."""

import io
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from captum_classpattern.cli.options import MAIN, Area, OutputFolder

if TYPE_CHECKING:  # imported where it is used, so that --help needs no torch
    from captum_classpattern.pattern import Pattern


def apply(
    pattern: Path,
    /,
    *images: Annotated[Path, Parameter(required=True)],
    out: OutputFolder,
    area: Annotated[Area | None, Parameter(group=MAIN)] = None,
) -> None:
    """Stamp a pattern on images.

    For example:

        classpattern apply 3_dog_white_0.05.safetensors photo.jpg --out stamped

    The stamped images are PNG files, named after the image and the class, such as photo_dog.png,
    or photo_class3.png if the pattern does not know the name of its class. Images of another size
    are resized until they just cover the pattern, and cropped at the centre.

    Args:
        pattern: The file of a pattern, which ends in .safetensors.
        images: Image files.
        out: The folder for the stamped images.
        area: The share of the pixels to stamp. By default, that of the search.
    """
    from captum_classpattern._files import write_atomically
    from captum_classpattern.class_names import as_file_name
    from captum_classpattern.pattern import Pattern

    stamp = Pattern.load(pattern)
    class_name = stamp.info.get("class_name")
    searched_at = stamp.info.get("settings", {}).get("area")
    share = searched_at if area is None else area
    binary = stamp if share is None else stamp.topk(float(share))
    ending = f"class{stamp.target}" if class_name is None else as_file_name(str(class_name))
    names = {image: f"{image.stem}_{ending}.png" for image in images}
    twice = [name for name, count in Counter(names.values()).items() if count > 1]
    if twice:
        raise ValueError(
            f"several images would be written to {', '.join(sorted(twice))}: stamp them one after "
            "another, into different folders"
        )
    out.mkdir(parents=True, exist_ok=True)
    for image, name in names.items():
        write_atomically(out / name, _stamped_png(binary, image))
    kept = f"{int(binary.mask.count_nonzero())} pixels, {binary.area:.1%}"
    print(f"{len(names)} images with the pattern of {stamp.label} ({kept}) are in {out}.")


def _stamped_png(pattern: "Pattern", path: Path) -> bytes:
    import numpy as np
    from PIL import Image

    from captum_classpattern.datasets.pixels import read_to_fit

    image = read_to_fit(path, path, pattern.canvas.shape)
    pixels = (pattern.stamp(image) * 255).round().byte().permute(1, 2, 0).numpy()
    written = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(pixels.squeeze(2) if len(image) == 1 else pixels)).save(
        written, "png"
    )
    return written.getvalue()
