"""``classpattern apply``: a pattern that was found, on images."""

from collections import Counter
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

import captum_classpattern as cp
from captum_classpattern._files import write_atomically
from captum_classpattern.cli import options


def apply(
    pattern: Path,
    /,
    *images: Annotated[Path, Parameter(required=True)],
    out: options.OutputFolder,
    area: options.Area | None = None,
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
    from captum_classpattern.classifier.class_names import as_file_name
    from captum_classpattern.datasets.pixels import read_to_fit
    from captum_classpattern.pages.parts import png

    stamp = cp.Pattern.load(pattern)
    class_name = stamp.info.get("class_name")
    share = stamp.info.get("settings", {}).get("area") if area is None else area
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
        stamped = binary.stamp(read_to_fit(image, image, binary.canvas.shape))
        write_atomically(out / name, png(stamped))
    kept = f"{int(binary.mask.count_nonzero())} pixels, {100 * binary.area:.1f} %"
    print(f"{len(names)} images with the pattern of {stamp.label} ({kept}) are in {out}.")
