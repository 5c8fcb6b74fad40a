"""``classpattern apply``: stamps a pattern on image files."""

import io
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from captum_classpattern.cli.options import check_area
from captum_classpattern.cli.printing import friendly_errors

if TYPE_CHECKING:  # imported by the command alone, so that --help answers at once
    from captum_classpattern.pattern import Pattern


def apply(
    pattern: Annotated[Path, typer.Argument(help="File of a pattern, *.safetensors.")],
    images: Annotated[list[Path], typer.Argument(help="Image files.")],
    out: Annotated[Path, typer.Option(help="Folder for the stamped images.", file_okay=False)],
    area: Annotated[
        float | None,
        typer.Option(help="Share of the pixels to stamp. By default, what it was searched at."),
    ] = None,
) -> None:
    """Stamp a pattern on images. Images of another size are resized until they just cover the
    pattern's, and cropped at their centre. Writes PNG files: of photo.jpg, photo_dog.png if the
    pattern knows the name of its class, else photo_class3.png."""
    with friendly_errors():
        if area is not None:
            check_area(area)

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
                f"several images would become {', '.join(sorted(twice))}: stamp them in turn, "
                "into folders of their own"
            )
        out.mkdir(parents=True, exist_ok=True)
        for image, name in names.items():
            write_atomically(out / name, _stamped(binary, image))
    kept = f"{int(binary.mask.count_nonzero())} pixels, {binary.area:.1%}"
    of_class = f"class {stamp.target}" if class_name is None else str(class_name)
    typer.echo(f"{len(names)} images with the pattern of {of_class} ({kept}) in {out}.")


def _stamped(pattern: "Pattern", path: Path) -> bytes:
    """An image file with the pattern on it, as PNG."""
    import numpy as np
    from PIL import Image

    from captum_classpattern.datasets.pixels import (
        DECODE_ERRORS,
        decode,
        resize_crop,
        to_channels,
    )

    try:
        image = decode(path)
    except FileNotFoundError:
        raise FileNotFoundError(f"there is no image at {path}") from None
    except DECODE_ERRORS as error:
        raise ValueError(f"{path} can't be read as an image: {error}") from error
    channels, height, width = pattern.canvas.shape
    stamped = pattern.stamp(resize_crop(to_channels(image, channels), height, width))
    pixels = (stamped * 255).round().byte().permute(1, 2, 0).numpy()
    written = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(pixels.squeeze(2) if channels == 1 else pixels)).save(
        written, "png"
    )
    return written.getvalue()
