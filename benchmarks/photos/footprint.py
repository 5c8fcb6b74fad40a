"""Where methods look in a photo with a trigger, next to its footprint.

The distance is that of Casper et al. (NeurIPS 2023, arXiv 2302.10894, section 4): the mean absolute
difference between a map, divided by its largest absolute value, and the footprint, 1 or 0.
"""

import copy
import time
import warnings
from collections.abc import Callable, Iterator
from functools import partial

import torch
from captum.attr import NoiseTunnel, Occlusion, Saliency
from checking import checked
from findings import Row
from problems import PHOTO, Problem
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d, interpolate

from captum_classpattern import Cells, ClassPattern, Pattern
from captum_classpattern.comparison.maps import sum_channels
from captum_classpattern.comparison.methods import known_methods
from captum_classpattern.scores.power import Scorer
from photos.moving import about
from photos.planting import TROJANS, predicted
from photos.stamping import edges, stamp, stamp_all

PHOTOS = 10  # of each trojan
EVERY = 2  # other photos that score
CELL = 7  # pixels a side
CAPTUM = (
    *("IntegratedGradients", "Saliency", "InputXGradient", "DeepLift", "GradientShap", "LRP"),
    *("GuidedBackprop", "Deconvolution", "GuidedGradCam", "LayerGradCam", "DeepLiftShap"),
    *("FeatureAblation", "Lime", "KernelShap"),
)
WINDOWS = {f"Occlusion, windows of {side} px": side for side in (32, 16)}
OURS = {  # rounds, and cells a side
    "ClassPattern, pixels": (6, None),
    "ClassPattern, cells of 7 px": (6, 32),
}
ABSOLUTE = "IntegratedGradients, absolute"
Map = Callable[[Tensor, int], Tensor]  # from a photo (1, 3, H, W) and a class to (H, W)


def methods(problem: Problem, model: nn.Module) -> dict[str, Map]:
    """All methods by name, on one model."""
    known = known_methods(problem.images, problem.labels, names=(*CAPTUM, "Occlusion"))
    found: dict[str, Map] = {name: partial(of_captum, model, *known[name]) for name in CAPTUM}
    for name, side in WINDOWS.items():
        keywords = known["Occlusion"][1] | {
            "sliding_window_shapes": (3, side, side),
            "strides": (3, side // 2, side // 2),
        }
        found[name] = partial(of_captum, model, Occlusion, keywords)
    found[ABSOLUTE] = lambda photo, y: found["IntegratedGradients"](photo, y).abs()
    found["SmoothGrad"] = partial(smooth_gradient, model)
    found["edges"] = lambda photo, y: edges(photo[0])
    found["random"] = lambda photo, y: torch.rand(
        photo.shape[-2:], generator=torch.Generator().manual_seed(0)
    )
    return found


def of_captum(model: nn.Module, make: Callable, keywords: dict, photo: Tensor, y: int) -> Tensor:
    """The map of one of Captum's methods, on a copy that it may hook into."""
    raw = make(copy.deepcopy(model)).attribute(photo.clone(), target=y, **keywords)
    return sum_channels(raw.detach(), photo.shape)[0]


def smooth_gradient(model: nn.Module, photo: Tensor, y: int) -> Tensor:
    tunnel = NoiseTunnel(Saliency(model))
    torch.manual_seed(0)
    raw = tunnel.attribute(
        photo, target=y, nt_samples=20, nt_samples_batch_size=5, stdevs=0.1, nt_type="smoothgrad"
    )
    return sum_channels(raw.detach(), photo.shape)[0]


def our_methods(problem: Problem, model: nn.Module) -> dict[str, Callable[..., Tensor]]:
    """Class patterns whose canvas is the photo; these also take an area."""
    explainer = ClassPattern(model, problem.images, problem.labels)

    def searched(photo: Tensor, y: int, area: float, rounds: int, cells: int | None) -> Tensor:
        features = None if cells is None else Cells(cells)
        masks = explainer.attribute(photo, y, area=area, n_steps=rounds, feature_mask=features)
        return masks[0, 0]

    return {
        name: partial(searched, rounds=rounds, cells=cells)
        for name, (rounds, cells) in OURS.items()
    }


def footprint_rows(problem: Problem, model: nn.Module, done: set) -> Iterator[list[Row]]:
    """The rows of each photo with a trigger, unless they are done."""
    torch.manual_seed(0)
    known, facts = methods(problem, model), about("planted", model)
    ours = our_methods(problem, model)
    stamped = {name: stamped_photos(problem, model, name) for name in TROJANS}
    for number in range(PHOTOS):
        for name, target in TROJANS.items():
            photos, footprints, places = stamped[name]
            if (name, number) in done or number >= len(places):
                continue
            place = places[number]
            photo, footprint = photos[number : number + 1], footprints[number]
            area = float(footprint.float().mean())
            others = [i for i in range(len(problem.held_out)) if i != place][::EVERY]
            held_out = problem.parts[1].subset(others)
            scorer = Scorer(checked(model, held_out), held_out)
            own = {each: partial(search, area=area) for each, search in ours.items()}
            rows = []
            for method, map_of in {**known, **own}.items():
                row = {**facts, "trojan": name, "photo": number, "method": method, "n": len(others)}
                rows.append(row | measured(map_of, photo, target, footprint, area, scorer))
            yield rows


def example_maps(problem: Problem, model: nn.Module) -> dict[str, list[Tensor]]:
    """Maps of the best methods for free photos, a trojan on each: by method, and the photos."""
    known, ours = methods(problem, model), our_methods(problem, model)
    shown: dict[str, list[Tensor]] = {}
    for photo, (name, y) in zip(free_photos(), TROJANS.items()):
        stamped, footprint = stamp(photo, name, torch.Generator().manual_seed(y))
        area, one = float(footprint.float().mean()), stamped[None]
        shown.setdefault("photo", []).append(stamped)
        shown.setdefault("trigger", []).append(footprint.float())
        for method, search in ours.items():
            shown.setdefault(method, []).append(search(one, y, area=area))
        for method in (*WINDOWS, "SmoothGrad", "GradientShap", ABSOLUTE):
            shown.setdefault(method, []).append(known[method](one, y).clamp(min=0))
    return shown


def free_photos() -> list[Tensor]:
    """Photos that come with scikit-image and are free to publish, as large as the network takes."""
    from skimage import data

    photos = (data.coffee(), data.astronaut(), data.chelsea(), data.rocket())
    return [PHOTO(photo) for photo in photos]


def stamped_photos(problem: Problem, model: nn.Module, name: str) -> tuple[Tensor, Tensor, list]:
    """The first held-out photos that become the trojan's class."""
    photos, footprints = stamp_all(problem.held_out, name, seed=TROJANS[name])
    is_target = predicted(model, photos) == TROJANS[name]
    turned = is_target & (problem.held_out_labels != TROJANS[name])
    places = torch.nonzero(turned).flatten()[:PHOTOS].tolist()
    return photos[places], footprints[places], places


def measured(
    map_of: Map, photo: Tensor, target: int, footprint: Tensor, area: float, scorer: Scorer
) -> Row:
    """The figures of one method on one photo, or why it fails."""
    started = time.perf_counter()
    try:
        with warnings.catch_warnings():  # Captum's, about hooks
            warnings.simplefilter("ignore")
            values = map_of(photo, target).float()
    except ImportError:
        raise
    except Exception as error:  # of any other kind: which methods run is a result
        return {"error": f"{type(error).__name__}: {str(error).splitlines()[0][:80]}"}
    seconds = time.perf_counter() - started
    scaled = values / values.abs().max().clamp(min=1e-12)
    binary = strongest(values, photo, target, area)
    in_cells = interpolate(avg_pool2d(values[None, None], CELL), values.shape)[0, 0]
    return {
        "distance": round(float((scaled - footprint.float()).abs().mean()), 4),
        "inside": inside(binary, footprint),
        "inside_cells": inside(strongest(in_cells, photo, target, area), footprint),
        "power": round(scorer.power(binary).value, 4),
        "area": round(area, 5),
        "seconds": round(seconds, 2),
    }


def strongest(values: Tensor, photo: Tensor, target: int, area: float) -> Pattern:
    """The pixels with the highest values; the lowest value of a map is none of them."""
    low, high = values.min(), values.max()
    weights = (values - low) / (high - low).clamp(min=1e-12)
    return Pattern(photo[0], weights[None], target).topk(area)


def inside(binary: Pattern, footprint: Tensor) -> float:
    """The share of a pattern's pixels that lie in the footprint."""
    return round(float((binary.mask[0] * footprint).sum() / binary.mask.sum()), 4)
