"""LabelledImages: the same images, labels and hashes from any source; a Dataset itself."""

import dataclasses
import itertools
import pickle
import random
import re
import weakref
from pathlib import Path

import numpy as np
import pytest
import torch
from entered import entered
from hypothesis import given, settings
from hypothesis import strategies as st
from refusals import refusal
from torch import nn
from torch.utils.data import DataLoader, Dataset, Subset, TensorDataset, default_collate
from torch.utils.data import sampler as samplers

import captum_classpattern as cp
from captum_classpattern.classifier import PixelClassifier, enter_model, preserve_state
from captum_classpattern.comparison import BestRandomMask
from captum_classpattern.images import LabelledImages, ensure_labels, evenly_spaced
from captum_classpattern.images.source import READ_AT_ONCE, listed_labels

IMAGES = torch.rand(10, 3, 4, 5, generator=torch.Generator().manual_seed(0))
LABELS = torch.tensor([3, 1, 4, 1, 5, 9, 2, 6, 5, 3])
ALONE, PAIRS = TensorDataset(IMAGES), TensorDataset(IMAGES, LABELS)


class Plain(Dataset):
    """Images alone, or pairs with plain ints as labels."""

    def __init__(self, labelled):
        self.labelled = labelled

    def __len__(self):
        return len(IMAGES)

    def __getitem__(self, index):
        return (IMAGES[index], int(LABELS[index])) if self.labelled else IMAGES[index]


def shifted_collate(pairs):
    images, labels = zip(*pairs)
    return torch.stack(images), torch.tensor(labels) + 1


SOURCES = {
    "tensor and labels": (IMAGES, LABELS),
    "tensor and array": (IMAGES, LABELS.numpy()),
    "tensors of integers of 8 bits": (IMAGES, LABELS.to(torch.uint8)),
    "data set of pairs with ints": (Plain(labelled=True), None),
    "data set of images": (Plain(labelled=False), LABELS),
    "data set of 1-tuples": (ALONE, LABELS),
    "data set of pairs with other labels": (TensorDataset(IMAGES, LABELS + 1), LABELS),
    "list of pairs": ([(image, label) for image, label in zip(IMAGES, LABELS)], None),
    "loader": (DataLoader(PAIRS, batch_size=3, shuffle=True), None),
    "loader with a collate_fn": (
        DataLoader(TensorDataset(IMAGES, LABELS - 1), collate_fn=shifted_collate),
        None,
    ),
    "source": (LabelledImages(IMAGES, LABELS), None),
    "source and labels": (LabelledImages(IMAGES, LABELS + 1), LABELS),
    "subset of a source": (Subset(LabelledImages(Plain(labelled=True)), range(10)), None),
    "loader of a source": (DataLoader(LabelledImages(IMAGES, LABELS), batch_size=3), None),
    "pair": ((PAIRS, LABELS), None),
}


@pytest.mark.parametrize("kind", SOURCES)
def test_all_kinds_give_the_same(kind):
    source = LabelledImages.of(*SOURCES[kind])
    for i in (0, 9, -1, -10, torch.tensor(4), np.int64(4)):
        image, label = source[i]
        assert torch.equal(image, IMAGES[i])
        assert (label, type(label)) == (int(LABELS[i]), int)
    assert [label for _, label in source] == LABELS.tolist()
    assert (len(source), source.shape) == (10, (3, 4, 5))
    assert source.labels.dtype == torch.int64
    assert torch.equal(source.labels, LABELS)
    assert source.hashes == LabelledImages(IMAGES).hashes
    assert torch.equal(torch.cat(list(source.in_order(4))), IMAGES)
    assert [len(batch) for batch in source.in_order(4)] == [4, 4, 2]
    for indices in ([7], [2, 2, 9], [0, 5]):
        assert torch.equal(source.take(indices), IMAGES[indices])
    assert torch.equal(source.images, IMAGES)


def test_a_loader_with_workers_reads_it():
    batches = [*DataLoader(LabelledImages(ALONE, LABELS), batch_size=4, num_workers=2)]
    assert [len(labels) for _, labels in batches] == [4, 4, 2]
    assert torch.equal(torch.cat([batch for batch, _ in batches]), IMAGES)


@pytest.mark.parametrize("images", [IMAGES, ALONE, Plain(labelled=False)])
def test_without_labels_items_are_images(images):
    source = LabelledImages(images)
    assert source.labels is None
    assert source.subset(torch.tensor([1])).labels is None
    assert torch.equal(default_collate([source[1], source[-1]]), IMAGES[[1, 9]])
    graph = LabelledImages([image.clone().requires_grad_() * 1 for image in IMAGES])
    assert not graph.images.requires_grad


def brightest_channel(images):
    return images.mean((2, 3))


class Shifted(nn.Module):
    def forward(self, images, shift):
        return brightest_channel(images) + shift[:, None]


def test_predictions_are_used_only_if_there_are_no_labels():
    predicted = ensure_labels(
        entered(brightest_channel, IMAGES), LabelledImages(Plain(labelled=False))
    )
    assert torch.equal(predicted.labels, IMAGES.mean((2, 3)).argmax(1))
    for images, labels in ((IMAGES, LABELS), (Plain(labelled=True), None)):
        model = entered(nn.Flatten(1).eval().forward, IMAGES)
        source = ensure_labels(model, LabelledImages(images, labels))
        assert torch.equal(source.labels, LABELS)


def test_named_labels_are_matched_also_with_additional_arguments_and_without_names():
    named = LabelledImages(IMAGES, LABELS % 3, ("cat", "ant", "bee"))
    model = PixelClassifier(Shifted().eval(), class_names=["ant", "bee", "cat"])
    with enter_model(model, IMAGES, additional=(torch.ones(10),)) as model:
        matched = ensure_labels(model, named, additional_forward_args=torch.ones(10))
        assert torch.equal(matched.labels, torch.tensor([2, 0, 1])[LABELS % 3])
        assert ensure_labels(model, matched, additional_forward_args=torch.ones(10)) is matched
    two = LabelledImages(IMAGES, LABELS % 2, ("cat", "ant"))
    with pytest.raises(ValueError, match="2 classes"):
        ensure_labels(entered(brightest_channel, IMAGES), two)


@pytest.mark.parametrize("read", [False, True])
@pytest.mark.parametrize("images", [IMAGES, ALONE, Plain(labelled=True)])
def test_whatever_is_derived_has_its_own_images_and_labels(images, read):
    source = LabelledImages(images, LABELS, description="ten")
    if read:
        assert torch.equal(source.images, IMAGES)
    part = source.subset(torch.tensor([8, 1, 5, 0]))
    inner = part.subset([2, 0])
    relabelled = inner.with_labels([7, 8])
    loaded, twin = relabelled.in_one_tensor(), pickle.loads(pickle.dumps(relabelled))
    assert (loaded.in_memory, loaded.argument) == (True, "images")
    assert repr(twin) == repr(relabelled) == "LabelledImages(2 images 3x4x5, 2 classes, ten)"
    for derived, places, labels in (
        (part, [8, 1, 5, 0], [5, 1, 9, 3]),
        (inner, [5, 8], [9, 5]),
        (relabelled, [5, 8], [7, 8]),
        (loaded, [5, 8], [7, 8]),
        (twin, [5, 8], [7, 8]),
        (source, range(10), LABELS.tolist()),
    ):
        assert len(derived) == len(places)
        assert derived.labels.tolist() == labels
        assert torch.equal(derived[-1][0], IMAGES[places[-1]])
        assert torch.equal(torch.cat([*derived.in_order()]), IMAGES[places])
        assert derived.hashes == [source.hashes[i] for i in places]
        assert torch.equal(derived.images, IMAGES[places])


def test_subsets_by_a_mask_or_a_class():
    source = LabelledImages(IMAGES, LABELS)
    for mask in (LABELS == 5, (LABELS == 5).tolist()):
        assert torch.equal(source.subset(mask).images, IMAGES[LABELS == 5])
    assert torch.equal(source.of_class(5).images, IMAGES[LABELS == 5])
    assert torch.equal(source.without_class(5).images, IMAGES[LABELS != 5])
    with pytest.raises(IndexError):
        source.subset([True, False])


def test_images_that_were_moved_keep_labels_and_hashes():
    images = LabelledImages(IMAGES, LABELS).subset([3, 1])
    moved = images.to(torch.device("cpu"), torch.bfloat16)
    assert torch.equal(moved.images, IMAGES[[3, 1]].bfloat16())
    assert LabelledImages(moved.images).hashes != images.hashes  # so they were taken over
    assert moved.hashes == images.hashes
    assert torch.equal(moved.labels, images.labels)
    assert torch.equal(moved.subset([1]).images, IMAGES[[1]].bfloat16())
    data = LabelledImages(Plain(labelled=True))
    assert data.to(torch.device("cpu"), torch.float16) is data


BYTES = (IMAGES * 255).round().to(torch.uint8)


@pytest.mark.parametrize("images", [BYTES, [*BYTES], TensorDataset(BYTES, LABELS)])
def test_bytes_are_pixels_in_256_steps(images):
    """A Tensor of them stays as it is."""
    floats = LabelledImages(BYTES / 255, LABELS)
    source = LabelledImages(images, LABELS).subset([3, 1, 8])
    assert torch.equal(source.images, floats.images[[3, 1, 8]])
    assert torch.equal(source.take([2, 2]), floats.images[[8, 8]])
    assert torch.equal(source[1][0], floats[1][0])
    assert source.hashes == floats.subset([3, 1, 8]).hashes
    moved = source.in_one_tensor().to(torch.device("cpu"), torch.float64)
    assert torch.equal(moved.images.float(), source.images)
    assert moved.source.images.dtype == (torch.uint8 if images is BYTES else torch.float64)


def test_it_never_changes_and_copies_with_other_fields_are_made_by_replace():
    source = LabelledImages(IMAGES, LABELS, ("a", "b"))
    for name in ("labels", "images", "description"):
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(source, name, None)
    other = dataclasses.replace(source, labels=[*range(10)], class_names=list("abcdefghij"))
    assert other.labels.tolist() == [*range(10)]
    assert other.class_names == tuple("abcdefghij")
    assert torch.equal(source.labels, LABELS)
    assert other.source is source.source
    part = source.subset([3, 1])
    other = dataclasses.replace(part, source=IMAGES[5:7])
    assert other.labels.tolist() == [1, 1]
    assert other.hashes == LabelledImages(IMAGES[5:7]).hashes != part.hashes
    with pytest.raises(ValueError, match="3 images, so its labels must have shape"):
        dataclasses.replace(part, source=IMAGES[:3])


def test_another_name_for_the_same_images_shares_what_was_read():
    source = LabelledImages(BYTES, LABELS)
    named = LabelledImages.of(source, argument="baselines")
    assert named.images.data_ptr() == source.images.data_ptr()
    assert vars(pickle.loads(pickle.dumps(source)).source).keys() == {
        field.name for field in dataclasses.fields(source.source)
    }


def test_hashes_recognise_copies_in_any_precision():
    image, other = IMAGES[:1], IMAGES[:1].clone()
    other[0, 0, 0, 0] = 1 - other[0, 0, 0, 0]
    images = torch.cat([image, other, image])
    hashes = LabelledImages(images).hashes
    assert hashes[0] == hashes[2] != hashes[1]
    assert LabelledImages(images.double()).hashes == hashes
    in_256_steps = (images * 255).round() / 255
    assert LabelledImages(in_256_steps).hashes == hashes


class Recorder(Dataset):
    """Records its batches, and how many images are in memory at once."""

    def __init__(self, count):
        self.count, self.batches = count, []
        self.alive = self.most_alive = 0

    def __len__(self):
        return self.count

    def __getitems__(self, indices):
        self.batches.append(list(indices))
        return [self.image(index) for index in indices]

    def image(self, index):
        image = torch.full((1, 2, 2), index / self.count)
        self.alive += 1
        self.most_alive = max(self.alive, self.most_alive)
        weakref.finalize(image, self.forget)
        return image, index % 3

    def forget(self):
        self.alive -= 1


def test_a_data_set_is_fetched_once_a_batch_at_a_time():
    data = Recorder(500)
    source = LabelledImages(data)
    assert data.batches == []
    for name in ("baselines", "held-out images", "images"):
        named = LabelledImages.of(source, argument=name)
        assert named.labels.tolist() == [i % 3 for i in range(500)]
    assert len(source.hashes) == 500
    # once for labels and hashes
    assert [*itertools.chain(*data.batches)] == [*range(500)]
    part = source.subset(torch.arange(0, 500, 2))
    assert sum(len(batch) for batch in part.in_order()) == 250
    assert max(map(len, data.batches)) == READ_AT_ONCE
    assert data.most_alive <= 2 * READ_AT_ONCE
    data.batches.clear()
    assert len(LabelledImages(data).images) == 500
    assert [*itertools.chain(*data.batches)] == [*range(500)]


class Noisy(Dataset):
    """A random transform with each of the three generators."""

    def __len__(self):
        return 8

    def __getitem__(self, index):
        noise = torch.rand(1, 2, 2) + random.random() + np.random.rand()
        return noise / 3, index % 2


def states():
    return torch.get_rng_state().tolist(), random.getstate(), np.random.get_state()[1].tolist()


def test_reading_leaves_the_callers_generators_alone():
    before, drawn = states(), []
    for _ in LabelledImages(DataLoader(ALONE, shuffle=True), LABELS).in_order():
        assert states() == before
    source = LabelledImages(DataLoader(Noisy()))
    for _ in range(2):
        with preserve_state(lambda images: images, seed=5):
            drawn.append(torch.cat(list(source.in_order())))
    assert torch.equal(drawn[0], drawn[1])
    assert states() == before


class Ragged(Dataset):
    def __len__(self):
        return 70

    def __getitem__(self, index):
        return torch.rand(1, 2, 2 if index < 65 else 3)


def read(images, labels=None):
    source = LabelledImages(images, labels, argument="photos")
    return source.labels, source.hashes


def with_sampler(sampler):
    return LabelledImages(DataLoader(ALONE, sampler=sampler), argument="photos")


NONE = Subset(ALONE, [])
REFUSALS = {
    "a matrix": lambda: read(torch.rand(4, 4)),
    "a tensor of no images": lambda: read(torch.rand(0, 1, 2, 2)),
    "an empty list": lambda: read([]),
    "the images of an empty data set": lambda: LabelledImages(NONE).take([0]),
    "several sizes": lambda: read(Ragged()),
    "NaN among the pixels": lambda: read(torch.full((2, 1, 2, 2), float("nan"))),
    "pixels up to 255": lambda: read([torch.full((1, 2, 2), 255.0)]),
    "pixels that are rounded up": lambda: read(torch.full((2, 1, 2, 2), 1.0000001)),
    "pixels that are rounded down": lambda: read(torch.full((2, 1, 2, 2), -1e-8)),
    "items that are dicts": lambda: read([{"pixels": IMAGES[0]}]),
    "labels with a fraction": lambda: read([(IMAGES[0], 0.5)]),
    "too few labels": lambda: read(IMAGES, [0, 1]),
    "labels that are bools": lambda: read(IMAGES, LABELS > 2),
    "an iterator": lambda: read(iter([IMAGES[0]])),
    "a dict": lambda: read({"a": IMAGES}),
    "a path": lambda: read(Path("pets/cats")),
    "another numbering": lambda: LabelledImages(IMAGES, numbering="random"),
    "classes without labels": lambda: LabelledImages(IMAGES).of_class(0),
    "an index after the last": lambda: LabelledImages(IMAGES, argument="photos")[10],
    "a slice": lambda: LabelledImages(IMAGES)[:2],
    "items that are objects": lambda: read([(object(), 0), (object(), 1)]),
    "a random part": lambda: with_sampler(samplers.RandomSampler(range(10), num_samples=5)),
    "the first items": lambda: with_sampler(samplers.SequentialSampler(range(5))),
    "a loader without batches": lambda: read(DataLoader(ALONE, batch_size=None)),
    "a loader of given batches": lambda: read(DataLoader(ALONE, batch_sampler=[[0, 1], [2]])),
    "a collate_fn that drops items": lambda: read(
        DataLoader(ALONE, collate_fn=lambda items: items[0][0][None])
    ),
}


@pytest.mark.parametrize("case", REFUSALS)
def test_refusals(case, snapshot):
    said = refusal(REFUSALS[case])
    assert re.sub(r"batch \((?!got ).*\): each", "batch (...): each", said) == snapshot  # by torch


class Listed(Plain):
    """Lists its labels as torchvision's data sets do, and records which items are loaded."""

    def __init__(self, targets):
        super().__init__(labelled=True)
        self.targets, self.loaded = targets, set()

    def __getitem__(self, index):
        self.loaded.add(index)
        return super().__getitem__(index)


@pytest.mark.parametrize("targets", [LABELS.tolist(), LABELS, LABELS.numpy()])
def test_listed_labels_make_loading_unnecessary(targets):
    data = Listed(targets)
    part = Subset(Subset(data, range(1, 10)), [8, 2, 0])
    assert LabelledImages(part).labels.tolist() == LABELS[[9, 3, 1]].tolist()
    assert data.loaded == {9, 3, 1}
    data.loaded.clear()
    assert torch.equal(LabelledImages(data).labels, LABELS)
    assert len(data.loaded) == 8  # at most that many are tried
    loader = DataLoader(data, sampler=samplers.SubsetRandomSampler([4, 0]))
    assert LabelledImages(loader).labels.tolist() == LABELS[[4, 0]].tolist()


@pytest.mark.parametrize("targets", [(LABELS + 1).tolist(), ["a"] * 10, [1, 2], None, LABELS / 2])
def test_listed_labels_that_differ_from_the_items(targets):
    assert torch.equal(LabelledImages(Listed(targets)).labels, LABELS)


def test_listed_labels_are_transformed_as_those_of_the_items_are():
    class Transformed(Listed):
        def target_transform(self, label):
            return 7 if label == LABELS[4] else int(label)  # at a place that is not tried

        def __getitem__(self, index):
            image, label = super().__getitem__(index)
            return image, self.target_transform(label)

    data = Transformed(LABELS.tolist())
    expected = [data[i][1] for i in range(10)]
    data.loaded.clear()
    assert LabelledImages(data).labels.tolist() == expected
    assert len(data.loaded) == 8
    assert LabelledImages(Subset(data, torch.arange(10))).labels.tolist() == expected
    data.target_transform = lambda label: label.item()  # of other labels than those that are listed
    assert listed_labels(data) is None


def test_neither_an_item_nor_a_repr_loads_other_items():
    data = Listed(None)
    source = LabelledImages(data, description="plain")
    assert repr(source) == "LabelledImages(10 images, plain)"
    assert data.loaded == set()
    assert source[3][1] == 1
    assert data.loaded == {3}
    assert len(next(iter(DataLoader(source, batch_size=2)))) == 2
    assert data.loaded == {0, 1, 3}
    named = LabelledImages.of(source.subset([5, 3]), argument="baselines")
    assert data.loaded == {0, 1, 3}
    assert (named.description, named.labels.tolist()) == ("plain", LABELS[[5, 3]].tolist())
    assert data.loaded == {0, 1, 3, 5}
    assert source.labels is not None
    assert repr(source) == "LabelledImages(10 images 3x4x5, plain)"
    assert repr(source.subset([1, 3])) == "LabelledImages(2 images 3x4x5, 1 classes, plain)"


def test_the_sampler_of_a_loader_is_followed():
    sampler = samplers.SubsetRandomSampler(torch.tensor([7, 2, 9]))
    source = LabelledImages(DataLoader(TensorDataset(IMAGES, torch.arange(10)), sampler=sampler))
    assert len(source) == 3
    assert sorted(source.labels.tolist()) == [2, 7, 9]
    assert torch.equal(source.take([0, 1, 2]), IMAGES[source.labels])
    batches = samplers.BatchSampler(samplers.SubsetRandomSampler([3, 4]), 2, False)
    loader = DataLoader(ALONE, batch_sampler=batches)
    assert LabelledImages(loader, [0, 1]).labels.tolist() == [0, 1]


@given(st.integers(0, 400), st.integers(1, 400))
def test_evenly_spaced_places_are_those_of_a_ruler(count, most):
    places = evenly_spaced(count, most)
    assert len(places) == len(set(places)) == min(count, most)
    step = (count - 1) / max(1, len(places) - 1)
    assert all(abs(place - i * step) <= 0.5001 for i, place in enumerate(places))


def test_a_sample_of_each_class_in_proportion_is_evenly_spaced_in_the_order_of_the_classes():
    source = LabelledImages(torch.rand(10, 1, 4, 4), [1, 0, 1, 1, 0, 1, 1, 0, 1, 1])
    sample = source.stratified_sample(4)
    order = [1, 4, 7, 0, 2, 3, 5, 6, 8, 9]
    assert torch.equal(sample.images, source.images[[order[i] for i in evenly_spaced(10, 4)]])


# ---- every public function takes images in every form

SEARCH = torch.rand(30, 1, 6, 6, generator=torch.Generator().manual_seed(1))
HELD_OUT = torch.rand(30, 1, 6, 6, generator=torch.Generator().manual_seed(2))
CLASSES = torch.arange(30) % 3
FORMS = [
    lambda images: LabelledImages(images, CLASSES),
    lambda images: TensorDataset(images, CLASSES),
    lambda images: DataLoader(TensorDataset(images, CLASSES), batch_size=7),
    lambda images: (images, CLASSES),
]
torch.manual_seed(0)
NET = nn.Sequential(nn.Flatten(), nn.Linear(36, 3)).eval()


def baselines_of_deep_lift(*images):
    _, settings = cp.known_methods(*images, names=["DeepLiftShap"])["DeepLiftShap"]
    return settings["baselines"]


ONE_SET = {
    "ClassPattern": lambda *images: (
        cp.ClassPattern(NET, *images).search(HELD_OUT[:1], 0, n_steps=1)[0].mask
    ),
    "select_canvases": lambda *images: cp.select_canvases(NET, *images, target=1),
    "predictive_power": lambda *images: cp.predictive_power(
        NET, cp.Pattern(SEARCH[0], SEARCH[1], 0), *images, area=0.2
    ),
    "known_methods": baselines_of_deep_lift,
    "BestRandomMask": lambda *images: BestRandomMask(NET, *images).attribute(
        HELD_OUT[:1], target=1, area=0.2, budget=100
    ),
}


def same(first, second):
    return torch.equal(first, second) if isinstance(first, torch.Tensor) else first == second


@pytest.mark.parametrize("name", ONE_SET)
def test_functions_of_one_set(name):
    expected = ONE_SET[name](HELD_OUT, CLASSES)
    assert all(same(ONE_SET[name](form(HELD_OUT)), expected) for form in FORMS)


def surveyed(search, held_out):
    findings = cp.survey(
        NET, search, held_out, classes=[1], areas=(0.2,), canvases={"white": 1}, n_steps=1
    )
    return [(f.target, f.scores) for f in findings]


def compared(search, held_out):
    comparison = cp.compare(
        {"net": NET}, SEARCH[:1], 0, search=search, held_out=held_out,
        methods=["RandomPixels"], areas=[0.2], area=0.2, n_seeds=1,
    )  # fmt: skip
    return [record.powers for record in comparison.records]


@pytest.mark.parametrize("function", [surveyed, compared])
def test_functions_of_two_sets(function):
    expected, *others = [function(form(SEARCH), form(HELD_OUT)) for form in FORMS]
    assert expected
    assert all(other == expected for other in others)


# ---- halves


def numbered(values, labels=None, *more):
    """Images that differ in brightness."""
    images = torch.tensor(values).float().view(-1, 1, 1, 1).expand(-1, 1, 2, 2) / 255
    return LabelledImages(images, None if labels is None else torch.tensor(labels), *more)


@settings(max_examples=60, deadline=None)
@given(
    pairs=st.lists(st.tuples(st.integers(0, 255), st.integers(0, 3)), min_size=2, max_size=40),
    labelled=st.booleans(),
    seed=st.integers(0, 100),
)
def test_halves_share_no_image(pairs, labelled, seed):
    values, labels = zip(*pairs)
    whole = numbered(values, labels if labelled else None)
    state = torch.get_rng_state()
    try:
        search, held_out = whole.halves(seed)
    except ValueError:
        assert len(set(values)) <= len(values) // 2 + len(values) % 2  # copies alone
        return
    assert torch.equal(torch.get_rng_state(), state)
    first, second = (set(LabelledImages(half.images).hashes) for half in (search, held_out))
    assert not first & second
    assert len(first | second) == len(set(values))
    assert len(search) + len(held_out) + held_out.duplicates_dropped == len(values)
    assert len(search) == (len(values) + 1) // 2
    assert search.duplicates_dropped == 0
    for half in (search, held_out):
        brightness = (half.images[:, 0, 0, 0] * 255).round().long().tolist()
        classes = half.labels.tolist() if labelled else labels[: len(half)]
        assert not labelled or set(zip(brightness, classes)) <= set(pairs)
        assert (half.labels is None) == (not labelled)


def test_halves_are_seeded_and_keep_order_and_names():
    whole = numbered(range(20), [0, 1] * 10, ("cat", "dog"), "pets")
    drawn = [whole.halves(seed)[0].images[:, 0, 0, 0].tolist() for seed in (1, 1, 2)]
    assert drawn[0] == drawn[1] == sorted(drawn[0])
    assert drawn[0] != drawn[2]
    search, held_out = whole.halves(seed=7)
    assert search.class_names == held_out.class_names == ("cat", "dog")
    assert search.description == "pets, search half (seed 7)"
    assert held_out.description == "pets, held-out half (seed 7)"
    assert whole.description == "pets"


def test_names_as_labels_are_those_of_the_model():
    pets = numbered(range(4), [0, 0, 1, 1], ("cat", "dog"), "pets")
    net = nn.Sequential(nn.Flatten(), nn.Linear(4, 2)).eval()
    model = entered(cp.PixelClassifier(net, class_names=["dog", "cat"]), pets.images)
    given = ["cat", "cat", "dog", "dog"]
    for labels in (None, given):
        assert LabelledImages.of(pets, labels, model).known_labels.tolist() == [1, 1, 0, 0]
    assert LabelledImages.of(pets, given).known_labels.tolist() == [0, 0, 1, 1]


@pytest.mark.parametrize("seed", range(5))
def test_copies_are_dropped_by_hand(seed):
    """The only two images of class 0 are copies: one in each half, one is dropped."""
    search, held_out = numbered([1, 1, 2, 3], [0, 0, 1, 1]).halves(seed)
    assert (search.counts, held_out.counts) == ({"0": 1, "1": 1}, {"1": 1})
    assert (search.duplicates_dropped, held_out.duplicates_dropped) == (0, 1)


@pytest.mark.parametrize("values", [[5], [5, 5], [5, 5, 5, 5]])
def test_images_that_can_not_be_split(values, snapshot):
    assert refusal(lambda: numbered(values).halves()) == snapshot
