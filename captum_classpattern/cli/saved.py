"""``classpattern gallery``: what was found, as a site."""

import sys
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

import captum_classpattern as cp
from captum_classpattern.cli import options


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
