"""``classpattern gallery``: the findings of a search as a static site."""

import sys
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from captum_classpattern.cli.options import OUTPUT, OutputFolder


def gallery(
    folder: Path,
    /,
    *,
    canvases: Annotated[Literal["show", "hide"], Parameter(group=OUTPUT)] = "show",
    downloads: Annotated[bool, Parameter(negative="--no-downloads", group=OUTPUT)] = True,
    title: Annotated[str | None, Parameter(group=OUTPUT)] = None,
    out: OutputFolder = Path("classpattern-gallery"),
) -> None:
    """Make a static site of the patterns in a folder, with one page per model and class.

    The site opens from the disk and from any web server, and loads nothing from the network.

    For example:

        classpattern gallery classpattern-search --out site
        classpattern gallery sweep --canvases hide --out site

    Args:
        folder: The folder that classpattern search or classpattern sweep wrote, finished or not.
        canvases: Show each canvas next to its pattern, or hide all pixels outside of the patterns,
            for photos that must not be published.
        downloads: Offer each pattern as a file. A pattern of 224 x 224 pixels has 0.8 MB.
        title: The heading of the index, to which all pages link by it. By default, it names the
            model, by its checkpoint if it came from one, or the number of models.
        out: The folder for the site. It must be new, empty, or a gallery, which is replaced.
    """
    from captum_classpattern.gallery import write_gallery

    index = write_gallery(
        folder,
        out,
        canvases=canvases,
        title=title,
        downloads=downloads,
        show_progress=sys.stderr.isatty(),
    )
    count = sum(path.name != "index.html" for path in out.glob("models/*/*.html"))
    print(f"The gallery has {count} page{'' if count == 1 else 's'}: open {index}.")
