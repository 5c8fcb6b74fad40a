"""``classpattern apply`` and ``classpattern gallery``: what was found, on images and as a site."""

import sys
from collections import Counter
from pathlib import Path
from typing import Annotated, Literal

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


def gallery(
    folder: Path,
    /,
    *,
    out: options.OutputFolder = Path("classpattern-gallery"),
    canvases: Literal["show", "hide"] = "show",
    title: Annotated[str | None, Parameter(metavar="TEXT")] = None,
    downloads: Annotated[bool, Parameter(negative="--no-downloads")] = True,
) -> None:
    """Make a site of the patterns of a search or a sweep.

    For example:

        classpattern gallery classpattern-search --out site
        classpattern gallery sweep --canvases hide --out site

    It has a page for each model and class, opens from the disk and from any web server, and loads
    nothing from the network.

    Args:
        folder: The folder that classpattern search or classpattern sweep wrote, finished or not.
        out: The folder for the site: new, empty, or a gallery, which is replaced.
        canvases: Hide all pixels outside of patterns if photos must not be published.
        title: The heading of the first page. By default, it names the model, or says how many there
            are.
        downloads: Offer each pattern as a file. A pattern of 224 x 224 pixels has 0.8 MB.
    """
    index = cp.write_gallery(
        folder,
        out,
        canvases=canvases,
        title=title,
        downloads=downloads,
        show_progress=sys.stderr.isatty(),
    )
    count = sum(path.name != "index.html" for path in out.glob("models/*/*.html"))
    print(f"The gallery has {count} page{'' if count == 1 else 's'}: open {index}.")
