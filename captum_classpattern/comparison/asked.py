"""What a user asks of a comparison: taken, or refused with an error that says what to do."""

from collections.abc import Mapping, Sequence

from captum_classpattern._validation import ArgumentTypeError
from captum_classpattern.classifier import Classifier
from captum_classpattern.comparison.methods import DEFAULT, Method
from captum_classpattern.comparison.records import STAMPED
from captum_classpattern.pattern import pixels_kept

AREAS = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2)


def checked_by_name(
    models: Mapping[str, Classifier], methods: Mapping[str, Method] | Sequence[str] | str | None
) -> tuple[Mapping[str, Classifier], Mapping[str, Method] | Sequence[str]]:
    """Models and methods by name, or an error that says how to give them."""
    if not isinstance(models, Mapping):
        raise ArgumentTypeError(
            f"models must be a dict of classifiers by name, got {type(models).__name__}: give "
            '{"mine": model}'
        )
    if not models:
        raise ValueError("models is empty: give a dict of classifiers by name")
    if methods is None or isinstance(methods, str):
        return models, DEFAULT if methods is None else [methods]
    for name, method in methods.items() if isinstance(methods, Mapping) else ():
        make = method[0] if isinstance(method, tuple) else method
        if not callable(make):
            raise ArgumentTypeError(
                f"method {name!r} must be a function from a model to an Attribution, such as the "
                f"class itself, alone or in a pair with the keywords of attribute; got "
                f"{type(make).__name__}: an object is bound to one model"
            )
    return models, methods


def checked_areas(area: float, areas: Sequence[float] | None, size: Sequence[int]) -> list[float]:
    """All areas in order; of the default ones those that keep a pixel of such images."""
    total = size[0] * size[1]
    wanted = [a for a in AREAS if round(a * total) > 0] if areas is None else areas
    every = sorted({float(one) for one in (*wanted, area)})
    for one in every:
        pixels_kept(one, size)
    return every


def checked_kinds(kinds: Sequence[str] | None, count: int) -> list[str]:
    if kinds is None:
        return ["canvas"] * count
    if len(kinds) != count:
        raise ValueError(f"there are {count} canvases, but {len(kinds)} canvas_kinds")
    if STAMPED in kinds:
        raise ValueError(f"canvas_kinds: {STAMPED!r} is what compare makes; use another word")
    return list(kinds)
