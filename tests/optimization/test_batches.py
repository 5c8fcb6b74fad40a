"""The inputs of a solver: the baselines that each candidate meets, losses and gradients."""

import pytest
import torch
from plain_solvers import Problem, cross_entropy, miss
from searched import Own, split_for_validation
from small_models import conv_net, random_images
from torch.utils.data import Dataset

from captum_classpattern import ClassPattern
from captum_classpattern.images import LabelledImages

COUNTED = [0, 1, 2, 1, 0, 2, 1, 2, 1, 0, 1, 1, 0, 1]


class Numbered(Dataset):
    """An image's pixels tell its place; notes what was asked for."""

    def __init__(self):
        self.asked = []

    def __len__(self):
        return len(COUNTED)

    def __getitems__(self, indices):
        self.asked.append([*indices])
        return [torch.full((1, 4, 4), index / 100) for index in indices]


def places(images):
    return [round(float(image.mean() * 100)) for image in images]


@pytest.mark.parametrize("seed", [0, 5])
def test_each_stream_is_the_plain_one_whatever_else_is_searched(seed):
    """It continues with batches of another size; some streams end before others. The images of a
    step are fetched once for all of them, and none that no candidate meets."""
    data, met, streams = Numbered(), {}, []

    def run(search):
        streams.extend((each.target, each.start) for each in search.streams)
        data.asked.clear()
        for size, steps in ((4, None), (5, 3)):
            for batch in search.batches(size, steps, epochs=3):
                [fetched] = data.asked
                data.asked.clear()
                assert fetched == places(batch.images)
                assert {i for pick in batch.picks for i in pick} == set(range(len(set(fetched))))
                for row, pick in zip(batch.rows, batch.picks):
                    met.setdefault(row, []).append(places(batch.images[pick]))
        yield from ()

    canvases = random_images(5, 1, 4, 4)
    canvases[3:] = 0.5  # starts twice
    explainer = ClassPattern(conv_net(1, 4, 4), data, COUNTED, check_accuracy=False)
    explainer.search(canvases[:4], [2, 0, 1, 0], area=0.5, solver=Own(run), seed=seed)
    assert streams == [(2, 0), (0, 0), (1, 0), (0, 0), (0, 1)]
    fit, _ = split_for_validation(LabelledImages(data, COUNTED, argument="baselines"), seed)
    labels, own = fit.labels.tolist(), places(fit.take(range(len(fit))))
    for row, (target, start) in enumerate(streams):
        others = len(labels) - labels.count(target)
        sizes = [4] * (3 * -(-others // 4)) + [5] * 3
        plain = Problem(None, None, target, None, labels, seed, start).batches(sizes)
        assert met[row] == [[own[i] for i in batch] for batch in plain]
    assert len({len(batches) for batches in met.values()}) > 1


def test_a_start_that_is_given_up_meets_no_more_images():
    met = []

    def run(search):
        batches = search.batches(3, 3)
        met.append(next(batches))
        yield
        met.extend(batches)

    images = random_images(60, 1, 4, 4)
    explainer = ClassPattern(conv_net(1, 4, 4), images, torch.arange(60) % 3, check_accuracy=False)
    explainer.search(torch.ones(1, 1, 4, 4), 0, area=0.5, keep=1, solver=Own(run))
    assert [len(batch.rows) for batch in met] == [2, 1, 1]
    assert len(met[0].images) > 3
    assert [len(batch.images) for batch in met[1:]] == [3, 3]


# ---- losses and gradients

TARGETS = [0, 0, 2, 0]
LABELS = [0] * 5 + [1, 2, 2]  # one of class 0 validates; so 3, 3, 5 and 3 are others: 14 pairs
CANVASES, IMAGES = (random_images(n, 2, 4, 4, seed=n) for n in (4, 8))
MASKS = random_images(4, 1, 4, 4, seed=1)


def make_net(dtype=torch.float32):
    return conv_net(2, 4, 4, maps=4, gain=2.0).to(dtype)


def evaluations(net, *, bounded=False, begin=list, **settings):
    """The losses and gradients of all masks, their losses without gradients, and the batch."""
    answers = []

    def run(search):
        begin()
        [batch] = search.batches(5, 1)
        answers.extend(search.loss_and_gradient(MASKS, batch, bounded=bounded))
        answers.extend([search.loss(MASKS, batch), batch])
        yield from ()

    explainer = ClassPattern(net, IMAGES, LABELS, check_accuracy=False)
    explainer.search(CANVASES, TARGETS, area=0.5, solver=Own(run), **settings)
    return answers


def check_by_formula(answers, bounded=False, rough=None):
    """Compares values and gradients with those of the plain loop over images in float64."""
    values, slopes, misses, batch = answers
    assert values.dtype == slopes.dtype == torch.float32
    for row, (target, pick) in enumerate(zip(TARGETS, batch.picks)):
        images = batch.images.double()
        problem = Problem(make_net(torch.float64), CANVASES[row].double(), target, images, None)
        loss_of = miss if bounded else cross_entropy
        value, slope = problem.slope(MASKS[row], pick, loss_of)
        assert float(values[row]) == pytest.approx(value, abs=rough or 1e-6, rel=rough or 1e-5)
        expected = pytest.approx(slope, abs=rough or 1e-6, rel=rough or 1e-4)
        assert slopes[row].flatten().tolist() == expected
        assert abs(slope).max() > 1e-3
    if bounded:
        torch.testing.assert_close(misses, values)


@pytest.mark.parametrize("bounded", [False, True])
def test_values_and_gradients(bounded):
    for size in (None, 1, 4, 14):
        check_by_formula(
            evaluations(make_net(), bounded=bounded, internal_batch_size=size), bounded
        )


@pytest.mark.parametrize(("dtype", "rough"), [(torch.float64, 1e-5), (torch.bfloat16, 0.05)])
def test_the_model_gets_its_own_precision_and_the_result_is_float32(dtype, rough):
    net, dtypes = make_net(dtype), set()
    net.register_forward_pre_hook(lambda _, inputs: dtypes.add(inputs[0].dtype))
    check_by_formula(evaluations(net), rough=rough)
    assert dtypes == {dtype}


class Small:
    """Has memory for some images at once, from ``begin`` on."""

    def __init__(self, most, at_first=0, error=None):
        self.net, self.most, self.at_first, self.sizes = make_net(), most, at_first, None
        self.error = error or torch.OutOfMemoryError("too little memory")

    def begin(self):
        self.sizes = []

    def __call__(self, images):
        if self.sizes is not None:
            self.sizes.append(len(images))
            if len(images) > max(self.most, self.at_first * (len(self.sizes) == 1)):
                raise self.error
        return self.net(images)


@pytest.mark.parametrize(
    ("small", "size", "images", "halved", "sizes"),
    [
        (Small(7), None, 14, 7, [14, 7, 7, 7, 7]),
        # what was done before the memory ran out counts once
        (Small(2, at_first=9), 9, 5, 2, [9, 5, 2, 2, 1, *[2] * 7]),
        (Small(7, error=RuntimeError("CUBLAS_STATUS_ALLOC_FAILED")), None, 14, 7, [14, *[7] * 4]),
        (Small(7, error=RuntimeError("MPS backend out of memory")), None, 14, 7, [14, *[7] * 4]),
    ],
)
def test_the_batch_is_halved_where_memory_is_short_and_stays_so(small, size, images, halved, sizes):
    little = f"memory for {images} images at once: the search continues with `internal_batch_size="
    with pytest.warns(UserWarning, match=f"{little}{halved}`$") as record:
        answers = evaluations(small, bounded=True, begin=small.begin, internal_batch_size=size)
    assert [warning.filename for warning in record] == [__file__]
    assert small.sizes[: len(sizes)] == sizes  # then the one pattern with a validation image
    assert len(small.sizes) == len(sizes) + 1
    check_by_formula(answers, bounded=True)


def test_one_image_that_is_too_large_and_any_other_error_are_raised():
    small, other = Small(0), Small(7, error=RuntimeError("a mistake"))
    with (
        pytest.warns(UserWarning, match="`internal_batch_size=1`"),
        pytest.raises(torch.OutOfMemoryError, match="too little memory"),
    ):
        evaluations(small, begin=small.begin, internal_batch_size=2)
    with pytest.raises(RuntimeError, match="a mistake"):
        evaluations(other, begin=other.begin)
    assert (small.sizes, other.sizes) == ([2, 1], [14])
