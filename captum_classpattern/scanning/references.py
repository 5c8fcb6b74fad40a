"""Clean models that a scanned model is compared with."""

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Unpack

import numpy as np
from safetensors import safe_open
from safetensors.numpy import save

from captum_classpattern._support import files
from captum_classpattern._support.hashes import combined_hash
from captum_classpattern._support.validation import check_options, is_whole, join_names
from captum_classpattern.classifier import (
    MIN_GAIN,
    CheckedModel,
    Classifier,
    difference,
    enter_model,
)
from captum_classpattern.classifier.class_names import label_of, simplified
from captum_classpattern.images import Images, LabelledImages, Labels, first_of
from captum_classpattern.optimization.settings import ComputeOptions, SearchSettings
from captum_classpattern.scanning.decision import ClassScores, Doubt
from captum_classpattern.scanning.families import CHANGES, SIZES
from captum_classpattern.scanning.profile import SETTINGS, Profile, identity_for_references, measure
from captum_classpattern.scanning.task import PER_CLASS, ScanTask
from captum_classpattern.scores.intervals import wilson

FORMAT = "captum_classpattern references"
FIELDS = ("n_classes", "class_names", "shape", "images", "settings")
TRAINED_ON = "trained on"  # in a recipe
MEASURE = "classpattern reference MODEL ... --data IMAGES --out NEW.json"
OWN_ONES = (
    "let the scan make clean models of the same task, in some minutes each, with "
    f"`make_references`, or measure at least 19 of your own with '{MEASURE}'"
)
FACTOR = 3  # by which the number of validation images may differ from the references'
WEAK = 0.7  # of the model's accuracy above guessing: references below it are left out
ENDING = "_references.safetensors"
NUMBERS = ("judged", "powers", "others", "gains")  # of a model in a file: arrays
SHIPPED = {  # the sets that come with the package, by name
    path.name.removesuffix(ENDING): path
    for path in sorted(Path(__file__).parent.glob(f"data/*{ENDING}"))
}


@dataclass(repr=False)
class ReferenceSet:
    r"""
    What a scan measured on clean models, for comparison with other models of the same task.

    The models should be like those that will be scanned: the same classes and images, and
    accuracies that cover those of the models in use for the task. Models that are far
    weaker than a scanned one are left out of the comparison.

    Args:
        n_classes (int): How many classes the models have.
        shape (Sequence[int]): (C, H, W) of the images.
        profiles (Mapping[str, Profile]): What was measured on each model, by its name.
        images (Mapping): How many images there were, where they are from, and one hash of them.
            Other images of the same task may be used for a scan.
        settings (Mapping): Settings of the searches. Default: this version's.
        recipes (Mapping[str, Mapping]): How each model was trained, by its name, as far as it is
            known: settings and their values. Default: {}.
        class_names (Sequence[str], optional): The names of the classes, in the order of the models'
            outputs. Default: None (not known).

    Examples::

        >>> clean = ReferenceSet.load("cifar10")  # comes with the package
        >>> clean.n_classes, clean.shape, len(clean) >= 19
        (10, (3, 32, 32), True)
    """

    n_classes: int
    shape: tuple[int, int, int]
    profiles: dict[str, Profile] = field(default_factory=dict)
    images: Mapping[str, Any] = field(default_factory=dict)
    settings: Mapping[str, Any] = field(default_factory=lambda: dict(SETTINGS))
    recipes: dict[str, Mapping[str, Any]] = field(default_factory=dict)
    class_names: Sequence[str] | None = None

    def __post_init__(self) -> None:
        if self.class_names is not None:
            self.class_names = [str(name) for name in self.class_names]

    def __repr__(self) -> str:
        return f"ReferenceSet({len(self)} models, {self.n_classes} classes, {tuple(self.shape)})"

    def __len__(self) -> int:
        return len(self.profiles)

    @classmethod
    def for_models(cls, model: Classifier, images: Images, labels: Labels = None) -> "ReferenceSet":
        """An empty set for models that are like this one, measured with these images."""
        with enter_model(model, first_of(images)) as checked:
            return cls._like(checked, LabelledImages.of(images, labels, checked))

    @classmethod
    def _like(cls, model: CheckedModel, images: LabelledImages) -> "ReferenceSet":
        channels, height, width = images.shape
        shape, names = (channels, height, width), names_of(model, images)
        return cls(model.n_classes, shape, images=describe(images), class_names=names)

    def add(
        self,
        name: str,
        model: Classifier,
        images: Images,
        labels: Labels = None,
        *,
        recipe: Mapping[str, Any] | None = None,
        **options: Unpack[ComputeOptions],
    ) -> None:
        r"""
        Measures a clean model.

        Args:
            name (str): The model's name in the set. One of the same name is replaced.
            images (LabelledImages, Tensor, Dataset or DataLoader): Images of all classes, the same
                for all models of the set.
            recipe (Mapping, optional): How it was trained, in values that JSON can represent, such
                as ``{"network": "ResNet-18", "epochs": 30}``. Default: None (not known).
            model, labels, seed, precision, internal_batch_size, show_progress: As in :func:`scan`.

        Raises:
            TypeError, ValueError: If the recipe has other values; if the model has another number
                of classes than the set, or the same weights as another one, or the images differ.
        """
        check_options(ReferenceSet.add, options, ComputeOptions)
        settings = SearchSettings(**options)
        trained = files.parse_json(files.to_json(dict(recipe or {})))  # as it is read back
        with enter_model(model, first_of(images), settings.seed) as checked:
            source = LabelledImages.of(images, labels, checked)
            own = ReferenceSet._like(checked, source)
            own.profiles[name] = Profile({}, [], model=identity_for_references(checked, source))
            self._check_fit(own)
            measured = measure(ScanTask.of(checked, source, settings))
        # patterns and changes take much memory, and files of references do not keep them
        own.profiles[name] = replace(measured, patterns={}, changes={})
        self.profiles[name] = own.in_order(self.class_names or ()).profiles[name]
        self.recipes = {**self.recipes, name: trained}

    def with_models(self, others: "ReferenceSet") -> "ReferenceSet":
        """The set with the models of another one, their classes in its own order; an error unless
        they fit, and models of the same name are the same."""
        self._check_fit(others)
        for name in self.profiles.keys() & others.profiles:
            if difference(self.profiles[name].model, others.profiles[name].model):
                raise ValueError(
                    f"{name} is another model in each of the two sets: give one another name"
                )
        others = others.in_order(self.class_names or ())
        profiles, recipes = self.profiles | others.profiles, self.recipes | others.recipes
        names = self.class_names or others.class_names
        return replace(self, profiles=profiles, recipes=recipes, class_names=names)

    def _check_fit(self, others: "ReferenceSet") -> None:
        """Raises an error unless the models of another set can be added to this one."""
        if self.images and others.images.get("hash") != self.images.get("hash"):
            description = self.images.get("description")
            raise ValueError(
                "the models of the set were measured with other images"
                f"{f' (of {description})' if description else ''}: give the same images for all"
            )
        for name, each in others.profiles.items():
            if (twin := self.name_of(each.model)) not in (None, name):
                raise ValueError(
                    f"{name} is the same model as {twin}: each reference must be another one"
                )
        self.check(others.n_classes, others.shape, others.class_names)

    @classmethod
    def load(cls, source: "str | Path | ReferenceSet") -> "ReferenceSet":
        """Reads a file that :meth:`save` wrote, or a set that comes with the package, by its name:
        ``"demo"`` or ``"cifar10"``. A path is always a file; a set is returned as it is."""
        if isinstance(source, ReferenceSet):
            return source
        path = Path(source) if isinstance(source, Path) else SHIPPED.get(source, Path(source))
        if not path.is_file():
            raise FileNotFoundError(
                f"`references`: there is no file {source}; give the name of a set that comes with "
                f"the package ({', '.join(SHIPPED)}), or make one from clean models with "
                "'classpattern reference'"
            )
        again = "make it again from clean models with 'classpattern reference'"
        with files.reading(f"`references`: {source}", "holds no references", again):
            data = _contents(path)
            if data["format"] != FORMAT:
                raise ValueError("it is not a file of references")
            theirs, count = {**data["settings"]}, len(data["models"])
            others = [key for key in {**theirs, **SETTINGS} if theirs.get(key) != SETTINGS.get(key)]
            if not others:
                return cls._read(data)
        raise ValueError(
            f"`references`: {source} was measured by another version, with other settings "
            f"({', '.join(sorted(others))}): measure its {count} models again, with '{MEASURE}'"
        )

    @classmethod
    def _read(cls, data: Mapping[str, Any]) -> "ReferenceSet":
        """The set of a file of this version; an error unless all numbers are there and possible."""
        channels, height, width = data["shape"]
        models = {model["name"]: model for model in data["models"]}
        if len(models) != len(data["models"]):
            raise ValueError("two models have the same name")
        references = cls(
            **{name: data.get(name) for name in FIELDS} | {"shape": (channels, height, width)},
            profiles={name: Profile.from_dict(model) for name, model in models.items()},
            recipes={name: model.get("recipe", {}) for name, model in models.items()},
        )
        files.check_kinds(data, images=dict, class_names=list)
        if not all(map(is_whole, references.shape)):
            raise ValueError(f"its shape is {data['shape']}")
        for name, each in references.profiles.items():
            kinds = {"name": str, "recipe": dict, "images": int, "computed": dict}
            files.check_kinds(models[name], **kinds, model=str | dict)
            difference(each.model, each.model)  # fails if it is neither a hash nor a model
            held = [set(values) for values in (each.powers, each.others, each.gains)]
            shares, gains = [*each.powers.values(), *each.others.values()], each.gains.values()
            accuracy = [] if each.accuracy is None else [each.accuracy]
            if not (
                held == [set(SIZES), set(CHANGES), set(CHANGES)]
                and {len(each.n_validation), *map(len, (*shares, *gains))} == {references.n_classes}
                and all(0 <= share <= 1 for values in (*shares, accuracy) for share in values)
                and all(math.isfinite(gain) for values in gains for gain in values)
                and all(isinstance(count, int) and count > 0 for count in each.n_validation)
            ):
                raise ValueError(f"{name} lacks numbers, or has impossible ones")
        return references

    def save(self, path: str | Path) -> None:
        """Writes the set; a file that is there already is replaced whole or not at all. If its name
        ends in ``.json``, it is JSON, else safetensors with the words as metadata."""
        path = Path(path)
        data: dict[str, Any] = {"format": FORMAT, **{name: getattr(self, name) for name in FIELDS}}
        data["models"] = [
            {"name": name, "recipe": self.recipes.get(name, {}), **each.as_dict()}
            for name, each in self.profiles.items()
        ]
        as_json = path.suffix.lower() == ".json"
        written = (files.to_json(data, indent=1) + "\n").encode() if as_json else _as_arrays(data)
        files.write_atomically(path, written)

    def scores(self, n: ClassScores) -> dict[str, ClassScores]:
        """The scores of the models' classes in each family, (n, K), see :meth:`Profile.scores`."""
        each = [profile.scores(n) for profile in self.profiles.values()]
        return {family: np.array([one[family] for one in each]) for family in each[0]}

    @property
    def accuracies(self) -> list[float]:
        """The known accuracies."""
        known = (profile.accuracy for profile in self.profiles.values())
        return [accuracy for accuracy in known if accuracy is not None]

    def differs(self, name: str, model: Classifier, images: LabelledImages) -> bool:
        """Whether the reference of this name is another model than this one."""
        with enter_model(model, images.first()) as checked:
            return bool(
                difference(self.profiles[name].model, identity_for_references(checked, images))
            )

    def name_of(self, model: Any) -> str | None:
        """The name of the reference that is this model, by its
        :func:`~captum_classpattern.scanning.profile.identity_for_references`, or None."""
        same = (name for name, each in self.profiles.items() if not difference(each.model, model))
        return next(same, None)

    def check(
        self, n_classes: int, shape: Sequence[int], names: Sequence[str] | None = None
    ) -> None:
        """Raises an error unless a model of this many classes, with images of this shape, can be
        compared with these; also if none of its class names is theirs, or some are at other
        positions."""
        if n_classes != self.n_classes:
            raise ValueError(
                f"the model has {n_classes} classes, the references have {self.n_classes}: "
                f"{OWN_ONES}"
            )
        if tuple(shape) != tuple(self.shape):
            raise ValueError(
                f"the images are of {tuple(shape)}, those of the references of "
                f"{tuple(self.shape)}: give images of that size (`size`, `channels`), or {OWN_ONES}"
            )
        theirs = list(self.class_names or ())
        ours, needed = ([*map(simplified, each or ())] for each in (names, theirs))
        if names and needed and {*ours}.isdisjoint(needed):
            raise ValueError(
                f"the model has other classes ({join_names([*names])}) than the references "
                f"({join_names(theirs)}): {OWN_ONES}; "
                "or, if the classes are the same, give them the same names (`class_names`)"
            )
        if have_same_names(ours, needed):
            return  # they can be put into the same order
        for name in filter(ours.__contains__, needed):
            if ours.index(name) != needed.index(name):
                raise ValueError(
                    f"the class {name} is number {ours.index(name)} of the model, and number "
                    f"{needed.index(name)} of the references: give all classes the names of the "
                    f"references (`class_names`): {join_names(theirs)}"
                )

    def in_order(self, class_names: Sequence[str]) -> "ReferenceSet":
        """The set with the classes in this order, if its names are the same, and all different."""
        names, wanted = ([*map(simplified, each)] for each in (self.class_names or (), class_names))
        if names == wanted or not have_same_names(names, wanted):
            return self
        order = [names.index(name) for name in wanted]
        profiles = {name: each.in_order(order) for name, each in self.profiles.items()}
        return replace(self, profiles=profiles, class_names=[*class_names])

    def without_weak(self, accuracy: float | None) -> "ReferenceSet":
        """The set without the models that are far less accurate than this: the patterns of a weak
        model are strong in all classes, and would hide a backdoored class."""
        if accuracy is None:
            return self
        chance = 1 / self.n_classes
        least = chance + WEAK * (accuracy - chance)
        profiles = {
            name: each
            for name, each in self.profiles.items()
            if each.accuracy is None or each.accuracy >= least
        }
        recipes = {name: self.recipes[name] for name in profiles if name in self.recipes}
        return replace(self, profiles=profiles, recipes=recipes)

    def doubt_about(self, profile: Profile) -> Doubt | None:
        """Why these models may not be like a scanned one, or None."""
        accuracy, chance = profile.accuracy, 1 / self.n_classes
        images = float(np.median(profile.n_validation))
        usual = float(np.median([each.n_validation for each in self.profiles.values()]))
        if not usual / FACTOR <= images <= usual * FACTOR:
            return Doubt(
                f"too {'few' if images < usual else 'many'} images",
                f"Each power was measured on {images:.0f} images, and those of the references on "
                f"{usual:.0f}, so the scores cannot be compared.",
                "Give as many images of each class as for the references, "
                f"{PER_CLASS} if possible.",
            )
        if accuracy is None:
            return None
        correct = f"The model classifies {100 * accuracy:.1f} % of the images correctly"
        if accuracy < chance + MIN_GAIN * (1 - chance):
            return Doubt(
                "the model guesses",
                f"{correct}, hardly more than by guessing.",
                "Check its mean and standard deviation, its classes and its weights.",
            )
        best = max(self.accuracies, default=1.0)
        if wilson(round(accuracy * profile.images), profile.images)[0] > best:
            return Doubt(
                "better than all references",
                f"{correct}, the best reference {100 * best:.1f} %. A better model can look "
                "suspicious without a backdoor.",
                "Add references that are as accurate: train them longer, or measure models from "
                "people you trust.",
            )
        return None

    def notes_on(
        self, profile: Profile, images: LabelledImages, names: list[str] | None
    ) -> list[str]:
        """What else a user should know about the comparison with a scanned model."""
        notes, theirs = [], self.images
        if theirs and describe(images)["hash"] != theirs.get("hash"):
            parts = theirs.get("description"), f"{theirs.get('count')} images"
            described = ", ".join(filter(None, parts))
            notes.append(
                f"The references were measured with other images ({described}). They should be of "
                "the same task."
            )
        seen = range(self.n_classes) if images.labels is None else images.labels.tolist()
        if absent := sorted({*range(self.n_classes)}.difference(seen)):
            unseen = join_names([label_of(y, names) for y in absent])
            notes.append(f"There are no images of {unseen}. Give images of all classes.")
        ours, needed = ({*map(simplified, each or ())} for each in (names, self.class_names))
        if self.class_names and ours != needed:
            own = "other names" if names else "no names"
            notes.append(
                f"The classes of the model have {own}. They should be those of the references, in "
                f"this order: {join_names([*self.class_names])}."
            )
        precision = profile.computed.get("precision")
        others = {each.computed.get("precision") for each in self.profiles.values()} - {None}
        if others - {precision}:
            listed = " and ".join(sorted(map(str, others)))
            notes.append(f"The references were searched in {listed}, this model in {precision}.")
        if profile.accuracy is None or not self.accuracies:
            notes.append(
                "Without labels, accuracies can't be compared: the references may be far weaker "
                "than the model, or far better."
            )
        if twin := self.name_of(profile.model):
            notes.append(f"This model is one of the references, {twin}.")
        return notes


def _as_arrays(data: Mapping[str, Any]) -> bytes:
    """What JSON would hold, as safetensors: the numbers of all models, (n, K), by their kind and,
    after a slash, what they are of; the rest is JSON in the metadata."""
    rows = defaultdict[str, list[Any]](list)
    for model in data["models"]:
        for kind in NUMBERS:
            for of, values in model[kind].items() if kind != "judged" else [("", model[kind])]:
                rows[f"{kind}/{of}"].append(values)
    words = [{key: model[key] for key in model if key not in NUMBERS} for model in data["models"]]
    arrays = {name: np.array(values) for name, values in rows.items()}
    return save(arrays, {"words": files.to_json({**data, "models": words})})


def _contents(path: Path) -> Any:
    """What a stranger's file of JSON or safetensors holds, as JSON would hold it."""
    with path.open("rb") as file:
        is_text = 0 not in file.read(8)  # safetensors begin with the length of their metadata
    if is_text:
        return files.parse_json(files.read_text(path))
    with safe_open(path, "numpy") as arrays:
        data, names = files.parse_json((arrays.metadata() or {})["words"]), arrays.keys()
        for name in names:
            kind, _, of = name.partition("/")
            for model, values in zip(data["models"], arrays.get_tensor(name).tolist(), strict=True):
                if of:
                    model.setdefault(kind, {})[of] = values
                else:
                    model[kind] = values
    return data


def have_same_names(names: Sequence[str], others: Sequence[str]) -> bool:
    """Whether these are the same names in some order, all different."""
    return sorted(names) == sorted(others) and len({*names}) == len(names)


def describe(images: LabelledImages) -> dict[str, Any]:
    """The images that models were measured with, for comparison."""
    description = images.description or ""
    return {
        "count": len(images),
        "description": "/".join(Path(description).parts[-2:]),  # the set may be shared
        "hash": combined_hash(images.hashes),
    }


def names_of(model: CheckedModel, images: LabelledImages) -> list[str] | None:
    """The names of all classes, see :meth:`LabelledImages.names_for`; None if one is missing."""
    known, count = images.names_for(model), model.n_classes
    return None if known is None or len(known) < count else [*known[:count]]
