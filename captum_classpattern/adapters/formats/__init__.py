"""The formats of checkpoints, a module each.

To add a format, write a module like ``plain``, with a ``name``, ``matches`` and ``load``, and add
it to ``FORMATS``.
"""

from captum_classpattern.adapters.formats import (
    backdoorbench,
    plain,
    robustbench,
    robustness,
    timm,
    torchvision,
    trojanzoo,
)
from captum_classpattern.adapters.interface import Format

# the first one that matches a file loads it; plain matches every file
FORMATS: tuple[Format, ...] = (backdoorbench, trojanzoo, robustness, timm, robustbench, plain)
# pretrained models, as in "timm:NAME"
PRETRAINED = {
    "timm": timm.load_pretrained,
    "torchvision": torchvision.load_pretrained,
    "robustbench": robustbench.load_pretrained,
}
