"""The formats of checkpoints.

To add a format, write a class like ``Plain``, with a ``name``, ``matches`` and ``load``, and add it
to ``FORMATS``.
"""

from captum_classpattern.adapters.formats.backdoorbench import BackdoorBench
from captum_classpattern.adapters.formats.huggingface import HuggingFace, load_from_huggingface
from captum_classpattern.adapters.formats.plain import Plain, Robustness, load_from_torchvision
from captum_classpattern.adapters.formats.robustbench import RobustBench, load_from_robustbench
from captum_classpattern.adapters.formats.timm import Timm, load_from_timm
from captum_classpattern.adapters.formats.trojanzoo import TrojanZoo
from captum_classpattern.adapters.interface import Format

# the first one that matches a file loads it; Plain matches every file
FORMATS: tuple[Format, ...] = (
    HuggingFace(), BackdoorBench(), TrojanZoo(), Robustness(), Timm(), RobustBench(), Plain(),
)  # fmt: skip
# pretrained models, as in "timm:NAME"
PRETRAINED = {
    "huggingface": load_from_huggingface,
    "timm": load_from_timm,
    "torchvision": load_from_torchvision,
    "robustbench": load_from_robustbench,
}
