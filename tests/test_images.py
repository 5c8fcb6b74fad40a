"""LabelledImages: the same images, labels and hashes from any source; a Dataset itself."""

import itertools
import pickle
import random
import weakref
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.utils.data import DataLoader, Dataset, Subset, TensorDataset, default_collate

from captum_classpattern import (
    ClassPattern,
    Pattern,
    compare,
    known_methods,
    plot_patterns,
    predictive_power,
    search_masks,
    select_canvases,
    survey,
)
from captum_classpattern.classifier import preserve_state
from captum_classpattern.comparison import BestCrop, ClassMean
from captum_classpattern.images import BATCH, LabelledImages, ensure_labels, evenly_spaced

IMAGES = torch.rand(10, 3, 4, 5, generator=torch.Generator().manual_seed(0))
LABELS = torch.tensor([3, 1, 4, 1, 5, 9, 2, 6, 5, 3])


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
    "tensor and list": (IMAGES, LABELS.tolist()),
    "tensor and array": (IMAGES, LABELS.numpy()),
    "tensors of integers of 8 bits": (IMAGES, LABELS.to(torch.uint8)),
    "data set of pairs": (TensorDataset(IMAGES, LABELS), None),
    "data set of pairs with ints": (Plain(labelled=True), None),
    "data set of images": (Plain(labelled=False), LABELS),
    "data set of 1-tuples": (TensorDataset(IMAGES), LABELS),
    "list of pairs": ([(image, label) for image, label in zip(IMAGES, LABELS)], None),
    "loader": (DataLoader(TensorDataset(IMAGES, LABELS), batch_size=3, shuffle=True), None),
    "loader with a collate_fn": (
        DataLoader(TensorDataset(IMAGES, LABELS - 1), collate_fn=shifted_collate),
        None,
    ),
    "source": (LabelledImages(IMAGES, LABELS), None),
    "source and labels": (LabelledImages(IMAGES, LABELS + 1), LABELS),
}


@pytest.mark.parametrize("kind", SOURCES)
def test_all_kinds_give_the_same(kind):
    source = LabelledImages.of(*SOURCES[kind])
    assert len(source) == 10
    assert source.shape == (3, 4, 5)
    assert source.labels.dtype == torch.int64
    assert torch.equal(source.labels, LABELS)
    assert source.hashes == LabelledImages(IMAGES).hashes
    assert torch.equal(torch.cat(list(source.in_order(4))), IMAGES)
    assert [len(batch) for batch in source.in_order(4)] == [4, 4, 2]
    plan = [[7], [2, 2, 9], [0, 5]]
    for indices, batch in zip(plan, source.batches(plan), strict=True):
        assert torch.equal(batch, IMAGES[indices])


def test_labelled_images_are_used_as_they_are():
    source = LabelledImages(IMAGES, LABELS)
    assert LabelledImages.of(source) is source


@pytest.mark.parametrize("images", [IMAGES, Plain(labelled=False)])
def test_without_labels(images):
    source = LabelledImages(images)
    assert source.labels is None
    assert source.subset(torch.tensor([1])).labels is None


def test_labels_that_are_passed_in_replace_the_data_sets():
    source = LabelledImages(Plain(labelled=True), LABELS + 1)
    assert torch.equal(source.labels, LABELS + 1)


def test_other_labels_leave_the_original_alone():
    source = LabelledImages(IMAGES, LABELS)
    twin = source.with_labels([0] * 10)
    assert twin.labels.tolist() == [0] * 10
    assert torch.equal(source.labels, LABELS)
    assert twin.hashes == source.hashes


def test_predictions_are_used_only_if_there_are_no_labels():
    def brightest_channel(images):
        return images.mean((2, 3))

    predicted = ensure_labels(brightest_channel, LabelledImages(Plain(labelled=False)))
    assert torch.equal(predicted.labels, IMAGES.mean((2, 3)).argmax(1))
    for images, labels in ((IMAGES, LABELS), (Plain(labelled=True), None)):
        source = ensure_labels(brightest_channel, LabelledImages(images, labels))
        assert torch.equal(source.labels, LABELS)


@pytest.mark.parametrize("images", [IMAGES, Plain(labelled=False)])
def test_subsets_and_subsets_of_them(images):
    source = LabelledImages(images, LABELS)
    part = source.subset(torch.tensor([8, 1, 5, 0]))
    assert len(part) == 4
    assert part.labels.tolist() == [5, 1, 9, 3]
    assert part.hashes == [source.hashes[i] for i in (8, 1, 5, 0)]
    assert torch.equal(torch.cat(list(part.in_order())), IMAGES[[8, 1, 5, 0]])
    inner = part.subset(torch.tensor([2, 0]))
    assert inner.labels.tolist() == [9, 5]
    assert torch.equal(next(inner.batches([[0, 1]])), IMAGES[[5, 8]])
    assert torch.equal(source.labels, LABELS)
    assert len(source) == 10
    assert part.with_labels([0, 1, 2, 3]).labels.tolist() == [0, 1, 2, 3]


def test_an_empty_subset():
    part = LabelledImages(IMAGES, LABELS).subset(torch.tensor([], dtype=torch.int64))
    assert (len(part), part.hashes, part.labels.tolist(), part.shape) == (0, [], [], (3, 4, 5))
    assert list(part.in_order()) == []


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


def test_a_data_set_is_fetched_a_batch_at_a_time():
    data = Recorder(500)
    source = LabelledImages(data)
    assert data.batches == []
    assert source.labels.tolist() == [i % 3 for i in range(500)]
    assert len(source.hashes) == 500
    # the first one to see whether the items have labels; then all, once for labels and hashes
    assert list(itertools.chain(*data.batches)) == [0, *range(500)]
    part = source.subset(torch.arange(0, 500, 2))
    assert sum(len(batch) for batch in part.in_order()) == 250
    assert max(map(len, data.batches)) == BATCH
    assert data.most_alive <= 2 * BATCH


class Noisy(Dataset):
    """A random transform with each of the three generators."""

    def __len__(self):
        return 8

    def __getitem__(self, index):
        noise = torch.rand(1, 2, 2) + random.random() + np.random.rand()
        return noise / 3, index % 2


def states():
    return torch.get_rng_state().tolist(), random.getstate(), np.random.get_state()[1].tolist()


def test_random_transforms_leave_the_callers_generators_alone():
    source = LabelledImages(DataLoader(Noisy()))
    before, drawn = states(), []
    for _ in range(2):
        with preserve_state(lambda images: images, seed=5):
            drawn.append(torch.cat(list(source.in_order())))
    assert torch.equal(drawn[0], drawn[1])
    assert states() == before


def test_reading_draws_nothing_itself():
    before = states()
    source = LabelledImages(DataLoader(TensorDataset(IMAGES), shuffle=True), LABELS)
    list(source.in_order())
    assert states() == before


class Ragged(Dataset):
    def __len__(self):
        return 70

    def __getitem__(self, index):
        return torch.rand(1, 2, 2 if index < 65 else 3)


@pytest.mark.parametrize(
    ("images", "labels", "error", "text"),
    [
        (torch.rand(4, 4), None, ValueError, r"images must be \(N, C, H, W\), got shape \(4, 4\)"),
        (torch.rand(0, 1, 2, 2), None, ValueError, "images has no images"),
        ([], None, ValueError, "images has no images"),
        (Ragged(), None, ValueError, r"one shape, got \(1, 2, 2\) and \(1, 2, 3\)"),
        ([IMAGES[0] * 255], None, ValueError, r"images must have pixels in \[0, 1\]"),
        ([{"pixels": IMAGES[0]}], None, TypeError, r"got a dict with keys \['pixels'\]"),
        (["cat.png"], None, TypeError, "images must yield images, or pairs .*; got a list"),
        ([(IMAGES[0], 0.5)], None, TypeError, "the labels of images must be integers"),
        (IMAGES, [0, 1], ValueError, r"has 10 images, .* shape \(10,\), got \(2,\)"),
        (IMAGES, LABELS > 2, TypeError, r"labels of images must be integers, got torch\.bool"),
        (iter([IMAGES[0]]), None, TypeError, "images must be a Tensor .*, got list_iterator"),
    ],
)
def test_refused(images, labels, error, text):
    def look():
        source = LabelledImages(images, labels)
        return source.labels, source.hashes

    with pytest.raises(error, match=text):
        look()


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
    loader = DataLoader(data, sampler=torch.utils.data.SubsetRandomSampler([4, 0]))
    assert LabelledImages(loader).labels.tolist() == LABELS[[4, 0]].tolist()


@pytest.mark.parametrize("targets", [(LABELS + 1).tolist(), ["a"] * 10, [1, 2], None, LABELS / 2])
def test_listed_labels_that_differ_from_the_items(targets):
    assert torch.equal(LabelledImages(Listed(targets)).labels, LABELS)


class TestLoaders:
    """The sampler of a DataLoader is followed, or there is an error."""

    images = torch.rand(12, 1, 4, 4, generator=torch.Generator().manual_seed(5))

    def test_a_subset_sampler_is_followed(self):
        sampler = torch.utils.data.SubsetRandomSampler([7, 2, 9])
        loader = DataLoader(TensorDataset(self.images, torch.arange(12)), sampler=sampler)
        source = LabelledImages(loader, argument="baselines")
        assert len(source) == 3
        assert sorted(source.labels.tolist()) == [2, 7, 9]
        assert torch.equal(source.take([0, 1, 2]), self.images[source.labels])

    def test_a_subset_sampler_within_batches_is_followed(self):
        batches = torch.utils.data.BatchSampler(
            torch.utils.data.SubsetRandomSampler([3, 4]), 2, False
        )
        loader = DataLoader(TensorDataset(self.images), batch_sampler=batches)
        assert LabelledImages(loader, [0, 1], argument="baselines").labels.tolist() == [0, 1]

    @pytest.mark.parametrize(
        "sampler",
        [
            torch.utils.data.RandomSampler(range(12), num_samples=5),
            torch.utils.data.SequentialSampler(range(5)),
        ],
    )
    def test_samplers_of_some_items_are_refused(self, sampler):
        loader = DataLoader(TensorDataset(self.images), sampler=sampler)
        with pytest.raises(ValueError, match=r"has a sampler .* that the search can't follow"):
            LabelledImages(loader, argument="baselines")

    def test_no_images_are_an_error(self):
        empty = LabelledImages(Subset(TensorDataset(self.images), []))
        for look in (lambda: empty.take([0]), lambda: empty.labels):
            with pytest.raises(ValueError, match="images has no images"):
                look()

    def test_a_sampler_of_another_kind_is_refused(self):
        sampler = torch.utils.data.WeightedRandomSampler([1.0] * 12, 4)
        loader = DataLoader(TensorDataset(self.images), sampler=sampler)
        with pytest.raises(ValueError, match=r"WeightedRandomSampler.*torch\.utils\.data\.Subset"):
            LabelledImages(loader, argument="baselines")

    @pytest.mark.parametrize("kwargs", [{"batch_size": None}, {"batch_sampler": [[0, 1], [2]]}])
    def test_unusual_batches_are_refused(self, kwargs):
        loader = DataLoader(TensorDataset(self.images), **kwargs)
        with pytest.raises(ValueError, match=r"has a sampler .* that the search can't follow"):
            LabelledImages(loader, argument="baselines")

    @pytest.mark.parametrize(
        "items",
        [
            [(object(), 0), (object(), 1)],
            [(torch.rand(1, 4, 4), 0), (torch.rand(1, 5, 4), 1)],
            [None, None],
        ],
    )
    def test_items_that_do_not_make_a_batch(self, items):
        with pytest.raises(TypeError, match=r"items of baselines don't make.*ToTensor.*Resize"):
            _ = LabelledImages(items, argument="baselines").labels

    def test_a_collate_fn_that_drops_items(self):
        loader = DataLoader(
            TensorDataset(self.images), batch_size=4, collate_fn=lambda items: items[0][0][None]
        )
        with pytest.raises(ValueError, match="made 1 images of 12 items: it must keep each"):
            _ = LabelledImages(loader, argument="baselines").hashes

    @pytest.mark.parametrize("images", [{"a": torch.rand(1, 4, 4)}, iter([])])
    def test_images_without_a_length_or_an_order(self, images):
        with pytest.raises(TypeError, match="with a length and access by index"):
            LabelledImages(images, argument="baselines")


@pytest.mark.parametrize("images", [IMAGES, TensorDataset(IMAGES), Plain(labelled=False)])
class TestAsADataset:
    """Items, and what PyTorch builds from them."""

    def test_items(self, images):
        source = LabelledImages(images, LABELS)
        for i in (0, 9, -1, -10, torch.tensor(4), np.int64(4)):
            image, label = source[i]
            assert torch.equal(image, IMAGES[i])
            assert label == int(LABELS[i])
            assert type(label) is int
        assert [label for _, label in source] == LABELS.tolist()
        part = source.subset([4, 2])
        assert torch.equal(part[-1][0], IMAGES[2])

    def test_items_without_labels_are_images(self, images):
        source = LabelledImages(images)
        assert torch.equal(source[3], IMAGES[3])
        assert torch.equal(default_collate([source[1], source[-1]]), IMAGES[[1, 9]])

    @pytest.mark.parametrize("index", [10, -11])
    def test_an_index_out_of_range(self, images, index):
        with pytest.raises(IndexError, match=rf"photos has 10 images, .* not include .*{index}"):
            LabelledImages(images, LABELS, argument="photos")[index]

    def test_a_slice_is_not_an_index(self, images):
        with pytest.raises(TypeError, match="slice"):
            LabelledImages(images, LABELS)[:2]

    @pytest.mark.parametrize("workers", [0, 2])
    def test_a_loader_reads_it(self, images, workers):
        loader = DataLoader(LabelledImages(images, LABELS), batch_size=4, num_workers=workers)
        batches = list(loader)
        assert [len(labels) for _, labels in batches] == [4, 4, 2]
        assert torch.equal(torch.cat([batch for batch, _ in batches]), IMAGES)
        assert torch.equal(torch.cat([labels for _, labels in batches]), LABELS)

    def test_data_sets_of_it_are_images_again(self, images):
        inner = LabelledImages(images, LABELS)
        for outer in (LabelledImages(inner), LabelledImages(DataLoader(inner))):
            assert torch.equal(outer.labels, LABELS)
            assert torch.equal(outer.images, IMAGES)
        part = LabelledImages(Subset(inner, [7, 1]))
        assert part.labels.tolist() == LABELS[[7, 1]].tolist()
        assert part.hashes == [inner.hashes[7], inner.hashes[1]]

    def test_it_survives_pickling(self, images):
        source = LabelledImages(images, LABELS, description="ten").subset([3, 0])
        twin = pickle.loads(pickle.dumps(source))
        assert repr(twin) == repr(source) == "LabelledImages(2 images 3x4x5, 2 classes, ten)"
        assert torch.equal(twin.images, IMAGES[[3, 0]])
        assert twin.labels.tolist() == source.labels.tolist()


def test_an_item_loads_no_other_item():
    data = Listed(None)
    assert LabelledImages(data)[3][1] == 1
    assert data.loaded == {3}
    assert len(next(iter(DataLoader(LabelledImages(data), batch_size=2)))) == 2
    assert data.loaded == {0, 1, 3}


def test_a_repr_loads_nothing():
    data = Listed(None)
    source = LabelledImages(data, description="plain")
    assert repr(source) == "LabelledImages(10 images, plain)"
    assert data.loaded == set()
    assert source.shape == (3, 4, 5)
    assert source.labels is not None
    assert repr(source) == "LabelledImages(10 images 3x4x5, 7 classes, plain)"


def test_labels_are_read_once_for_all_functions():
    data = Recorder(40)
    source = LabelledImages(data)
    for name in ("baselines", "held-out images", "images"):
        assert LabelledImages.of(source, argument=name).labels.tolist() == [
            i % 3 for i in range(40)
        ]
    assert list(itertools.chain(*data.batches)) == [0, *range(40)]


@pytest.mark.parametrize("images", [IMAGES, TensorDataset(IMAGES)])
def test_what_is_derived_from_read_images_is_not_stale(images):
    source = LabelledImages(images, LABELS)
    assert torch.equal(source.images, IMAGES)
    part = source.subset([5, 3])
    assert torch.equal(part.images, IMAGES[[5, 3]])
    assert torch.equal(part.subset([1]).images, IMAGES[[3]])
    relabelled = part.with_labels([7, 8])
    assert torch.equal(relabelled.images, IMAGES[[5, 3]])
    assert (relabelled.labels.tolist(), part.labels.tolist()) == ([7, 8], [9, 1])
    loaded = relabelled.in_one_tensor()
    assert loaded.in_memory
    assert torch.equal(loaded.images, IMAGES[[5, 3]])
    assert loaded.hashes == [source.hashes[5], source.hashes[3]]
    assert (loaded.labels.tolist(), loaded.argument) == ([7, 8], "images")
    assert torch.equal(source.images, IMAGES)


def test_all_images_are_read_once():
    data = Recorder(40)
    assert len(LabelledImages(data).images) == 40
    assert list(itertools.chain(*data.batches)) == [*range(40)]


def test_all_images_of_a_tensor_are_not_copied():
    assert LabelledImages(IMAGES).images.data_ptr() == IMAGES.data_ptr()


def test_a_subset_by_a_mask():
    source = LabelledImages(IMAGES, LABELS)
    for mask in (LABELS == 5, (LABELS == 5).tolist()):
        assert torch.equal(source.subset(mask).images, IMAGES[LABELS == 5])
    assert torch.equal(source.of_class(5).images, IMAGES[LABELS == 5])
    assert torch.equal(source.without_class(5).images, IMAGES[LABELS != 5])
    with pytest.raises(IndexError):
        source.subset([True, False])


# ---- every public function takes images in every form

SEARCH = torch.rand(30, 1, 6, 6, generator=torch.Generator().manual_seed(1))
HELD_OUT = torch.rand(30, 1, 6, 6, generator=torch.Generator().manual_seed(2))
CLASSES = torch.arange(30) % 3
FORMS = {
    "labelled images": lambda images: (LabelledImages(images, CLASSES),),
    "labelled images from a data set": lambda images: (
        LabelledImages(TensorDataset(images, CLASSES)),
    ),
    "tensor and labels": lambda images: (images, CLASSES),
    "data set": lambda images: (TensorDataset(images, CLASSES),),
    "loader": lambda images: (DataLoader(TensorDataset(images, CLASSES), batch_size=7),),
    "pair": lambda images: ((images, CLASSES),),
}


def net():
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(36, 3)).eval()


def masks_of(images, *labels):
    patterns = ClassPattern(net(), images, *labels).search(HELD_OUT[:1], 0, n_steps=2)
    return patterns[0].mask


def drawn(images, *labels):
    pattern = Pattern(HELD_OUT[0], HELD_OUT[1], 0)
    figure, _ = plot_patterns(net(), [pattern], images, *labels, area=0.2, use_pyplot=False)
    return [image.get_array().tolist() for axes in figure.axes for image in axes.images]


ONE_SET = {
    "ClassPattern": masks_of,
    "search_masks": lambda images, labels=None: (
        search_masks(net(), HELD_OUT[:1], 0, images, baseline_labels=labels, n_steps=2).masks
    ),
    "select_canvases": lambda *images: select_canvases(net(), *images, target=1),
    "predictive_power": lambda *images: predictive_power(
        net(), Pattern(SEARCH[0], SEARCH[1], 0), *images, area=0.2
    ),
    "plot_patterns": drawn,
    "known_methods": lambda *images: known_methods(*images, names=["DeepLiftShap"])["DeepLiftShap"][
        1
    ]["baselines"],
    "ClassMean": lambda *images: ClassMean(net(), *images).attribute(HELD_OUT[:1], target=1),
    "BestCrop": lambda *images: BestCrop(net(), *images).attribute(HELD_OUT[:1], target=1),
}


def same(first, second):
    return torch.equal(first, second) if isinstance(first, torch.Tensor) else first == second


@pytest.mark.parametrize("name", ONE_SET)
def test_functions_of_one_set(name):
    expected = ONE_SET[name](HELD_OUT, CLASSES)
    for form in FORMS.values():
        assert same(ONE_SET[name](*form(HELD_OUT)), expected)


def surveyed(search, held_out):
    findings = survey(
        net(), search, held_out, classes=[1], areas=(0.2,), canvases={"white": 1}, n_steps=2
    )
    return [(f.target, f.scores) for f in findings]


def compared(search, held_out):
    comparison = compare(
        {"net": net()}, SEARCH[:1], 0, search=search, held_out=held_out,
        methods=["RandomPixels"], areas=[0.2], area=0.2, n_seeds=1,
    )  # fmt: skip
    return [record.powers for record in comparison.records]


@pytest.mark.parametrize("function", [surveyed, compared])
def test_functions_of_two_sets(function):
    pairs = [
        (form(SEARCH)[0], form(HELD_OUT)[0])
        for name, form in FORMS.items()
        if name != "tensor and labels"  # a pair of these
    ]
    expected = function(*pairs[0])
    assert expected
    assert all(function(*pair) == expected for pair in pairs[1:])


def test_images_that_were_moved_keep_labels_and_hashes():
    images = LabelledImages(IMAGES, LABELS).subset([3, 1])
    moved = images.to(torch.device("cpu"), torch.float16)
    assert torch.equal(moved.images, IMAGES[[3, 1]].half())
    assert moved.hashes == images.hashes
    assert torch.equal(moved.labels, images.labels)
    assert torch.equal(moved.subset([1]).images, IMAGES[[1]].half())
    data = LabelledImages(Plain(labelled=True))
    assert data.to(torch.device("cpu"), torch.float16) is data


def test_a_data_set_in_one_tensor_is_read_once():
    data = LabelledImages(Plain(labelled=True)).subset([4, 2])
    loaded = data.in_one_tensor()
    assert loaded.in_memory
    assert torch.equal(loaded.images, IMAGES[[4, 2]])
    assert torch.equal(loaded.labels, LABELS[[4, 2]])
    assert loaded.hashes == data.hashes
    assert loaded.in_one_tensor() is loaded


@pytest.mark.parametrize("path", ["pets/cats", Path("pets/cats")])
def test_a_path_is_not_images_yet(path):
    with pytest.raises(TypeError, match=r"got the path 'pets/cats' as images: read it by cp.load_"):
        LabelledImages(path)
    with pytest.raises(TypeError, match=r"as held-out images: read it by cp.load_images"):
        LabelledImages.of((path, [0, 1]), argument="held-out images")


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
