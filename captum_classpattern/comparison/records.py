"""What a comparison holds: a record for each map, and what failed."""

from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from captum_classpattern.scores.localisation import Localisation
from captum_classpattern.scores.power import PredictivePower
from captum_classpattern.scores.shape import Simplicity

STAMPED = "stamped"


@dataclass(frozen=True, eq=False)
class Record:
    r"""
    One method's map for one canvas and model, and its scores.

    Args:
        model (str): Name of the model.
        method (str): Name of the method.
        level (str): ``"image"`` for the map of the canvas itself, ``"class"`` for the mean of the
            maps of some search images of the class.
        ranking (str): ``"signed"`` ranks pixels by the map, ``"absolute"`` by its absolute value.
        canvas (int): Which canvas; stamped ones count on after those given.
        kind (str): Kind of canvas; ``"stamped"`` ones carry the true trigger.
        target (int): The class.
        control (bool): Whether the method is one of the simple ones that others are held against.
        map (Tensor): By pixel, float64 (H, W).
        masks (dict[float, Tensor]): The binary mask, bool (1, H, W), at each area.
        powers (dict[float, PredictivePower]): At each area; empty for stamped canvases.
        searches (bool): Whether the method was called anew for each area.
        rethresholded (dict[float, PredictivePower]): Of a method that does, and is no control,
            the map of the comparison's own area cut to the other areas; else empty.
        transfer (dict[str, PredictivePower]): On each other model, at the comparison's area; of
            the signed maps of images.
        simplicity (Simplicity): Of the mask at the comparison's area.
        localisation (Localisation, optional): Of the true trigger, for its class.
        stability (dict[str, float]): IoU of the mask with that of another seed (``"seeds"``) and
            with that of another search image of the class (``"canvases"``).
        infidelity (float, optional): Captum's, normalised.
        sensitivity (float, optional): Captum's ``sensitivity_max``.
        passes (float): That the map took: an image forward and backward.
        seconds (float): That the map took.
        precision (str, optional): What a search computed in, such as "bfloat16".
    """

    model: str
    method: str
    level: str
    ranking: str
    canvas: int
    kind: str
    target: int
    control: bool
    map: Tensor
    masks: dict[float, Tensor]
    powers: dict[float, PredictivePower] = field(default_factory=dict)
    searches: bool = False
    rethresholded: dict[float, PredictivePower] = field(default_factory=dict)
    transfer: dict[str, PredictivePower] = field(default_factory=dict)
    simplicity: Simplicity | None = None
    localisation: Localisation | None = None
    stability: dict[str, float] = field(default_factory=dict)
    infidelity: float | None = None
    sensitivity: float | None = None
    passes: float | None = None
    seconds: float | None = None
    precision: str | None = None

    @property
    def name(self) -> str:
        """The method's name, with its level and ranking where they are not the usual ones."""
        return full_name(self.method, self.level, self.ranking)


def full_name(method: str, level: str, ranking: str) -> str:
    """A method's name, with its level and ranking where they are not the usual ones."""
    unusual = {"class mean": level == "class", "absolute": ranking == "absolute"}
    return ", ".join([method, *(word for word, wanted in unusual.items() if wanted)])


@dataclass(frozen=True)
class Failure:
    """What could not be had of a method on a model (its maps, or one of Captum's metrics), and
    why."""

    model: str
    method: str
    what: str
    reason: str

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return {
            "model": self.model,
            "method": self.method,
            "what": self.what,
            "reason": self.reason,
        }
