"""Objective: losses and gradients by the formula, and what is done where memory is short."""

import warnings

import pytest
import torch
from plain_solvers import Problem, cross_entropy, miss
from small_models import conv_net, random_images

from captum_classpattern.optimization.objective import Batch, Objective, _add_runs

TARGETS = [0, 2, 0]
PICKS = {0: [1, 4, 2], 2: [0, 3, 5, 1, 2]}  # 3 + 5 + 3 = 11 pairs
CANVASES, IMAGES = (random_images(n, 2, 4, 4, seed=n) for n in (3, 6))
MASKS = random_images(3, 1, 4, 4, seed=1)


def batch(rows=(0, 1, 2)):
    return Batch(IMAGES, list(rows), [PICKS[TARGETS[row]] for row in rows])


def make_net(dtype=torch.float32):
    return conv_net(2, 4, 4, maps=4, gain=2.0).to(dtype)


def objective(net=None, additional=(), size=None):
    net = make_net() if net is None else net
    return Objective(net, CANVASES.clone(), TARGETS, additional, size)


def check_by_formula(found, bounded, rows=(0, 1, 2), nets=None, rough=None):
    """Compares values and gradients with those of the plain loop over images in float64."""
    values, slopes = found
    for place, row in enumerate(rows):
        net = make_net(torch.float64) if nets is None else nets[row]
        problem = Problem(net, CANVASES[row].double(), TARGETS[row], IMAGES.double(), None)
        loss_of = miss if bounded else cross_entropy
        value, slope = problem.slope(MASKS[place], PICKS[TARGETS[row]], loss_of)
        assert float(values[place]) == pytest.approx(value, abs=rough or 1e-6, rel=rough or 1e-5)
        expected = pytest.approx(slope, abs=rough or 1e-6, rel=rough or 1e-4)
        assert slopes[place].flatten().tolist() == expected
        assert abs(slope).max() > 1e-3


@pytest.mark.parametrize("bounded", [False, True])
@pytest.mark.parametrize(
    ("size", "rows"),
    [(None, (0, 1, 2)), (1, (0, 1, 2)), (4, (0, 1, 2)), (11, (0, 1, 2)), (100, (2, 1))],
)
def test_values_and_gradients(bounded, size, rows):
    net, masks = make_net(), MASKS[: len(rows)]
    found = objective(net, size=size).evaluate(masks, batch(rows), bounded=bounded, gradient=True)
    assert found[1].shape == masks.shape
    check_by_formula(found, bounded, rows)
    alone = objective(size=size).evaluate(masks, batch(rows), bounded=bounded, gradient=False)[0]
    torch.testing.assert_close(alone, found[0])
    assert all(parameter.grad is None for parameter in net.parameters())
    assert not MASKS.requires_grad


def test_additional_arguments_follow_their_canvas():
    net, exact = make_net(), make_net(torch.float64)
    shifts = torch.tensor([[0.5, 0.1, 0.9], [0.2, 0.8, 0.3], [0.7, 0.4, 0.6]])

    def shifted(images, shift, scale):
        return scale * net(images) + shift

    nets = [lambda images, shift=shift: 0.5 * exact(images) + shift for shift in shifts]
    several = objective(shifted, (shifts, 0.5), size=4)
    found = several.evaluate(MASKS, batch([2, 0, 1]), bounded=False, gradient=True)
    check_by_formula(found, False, rows=(2, 0, 1), nets=nets)


@pytest.mark.parametrize(("dtype", "rough"), [(torch.float64, 1e-5), (torch.bfloat16, 0.05)])
def test_the_model_gets_its_own_precision_and_the_result_is_float32(dtype, rough):
    net, dtypes = make_net(dtype), set()
    net.register_forward_pre_hook(lambda _, inputs: dtypes.add(inputs[0].dtype))
    values, slopes = objective(net).evaluate(MASKS, batch(), bounded=False, gradient=True)
    assert dtypes == {dtype}
    assert values.dtype == slopes.dtype == torch.float32
    check_by_formula((values, slopes), False, rough=rough)


class Small:
    """Has memory for some images at once."""

    def __init__(self, most, at_first=1000, error=None):
        self.net, self.most, self.at_first, self.sizes = make_net(), most, at_first, []
        self.error = error or torch.OutOfMemoryError("too little memory")

    def __call__(self, images):
        self.sizes.append(len(images))
        if len(images) > (self.at_first if len(self.sizes) == 1 else self.most):
            raise self.error
        return self.net(images)


LITTLE = (
    "too little memory for {} images at once: the search continues with `internal_batch_size={}`$"
)


@pytest.mark.parametrize(
    ("most", "at_first", "size", "images", "halved", "sizes"),
    [
        (5, 5, None, 11, 5, [11, 5, 5, 1]),
        (2, 6, 6, 5, 2, [6, 5, 2, 2, 1]),  # what was done before the memory ran out counts once
    ],
)
@pytest.mark.parametrize("bounded", [False, True])
def test_the_batch_is_halved_where_memory_is_short(
    bounded, most, at_first, size, images, halved, sizes
):
    small = objective(Small(most, at_first), size=size)
    with pytest.warns(UserWarning, match=LITTLE.format(images, halved)) as record:
        found = small.evaluate(MASKS, batch(), bounded=bounded, gradient=True)
    assert [warning.filename for warning in record] == [__file__]
    assert small.internal_batch_size == halved
    assert small.forward_func.sizes == sizes
    check_by_formula(found, bounded)
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # it stays at the new size
        small.evaluate(MASKS, batch(), bounded=False, gradient=True)


@pytest.mark.parametrize("text", ["CUBLAS_STATUS_ALLOC_FAILED", "MPS backend out of memory"])
def test_other_words_for_too_little_memory(text):
    small = objective(Small(5, 5, RuntimeError(text)))
    with pytest.warns(UserWarning, match=LITTLE.format(11, 5)):
        small.evaluate(MASKS, batch(), bounded=False)
    assert small.forward_func.sizes == [11, 5, 5, 1]


def test_any_other_error_is_raised():
    small = objective(Small(5, 5, RuntimeError("a mistake")))
    with pytest.raises(RuntimeError, match="a mistake"):
        small.evaluate(MASKS, batch(), bounded=False)
    assert small.forward_func.sizes == [11]


@pytest.mark.parametrize(
    "places", [[0, 0, 1, 1, 2, 2], [1, 1, 1, 2, 2, 2], [0, 0, 0, 1, 1, 2, 2, 2], [0, 0, 2, 2], [1]]
)
@pytest.mark.parametrize("shape", [(), (2, 9, 9)])
def test_runs_are_added_as_one_by_one_bit_for_bit(places, shape):
    values = torch.randn(len(places), *shape, generator=torch.Generator().manual_seed(0))
    totals, expected = torch.ones(3, *shape), torch.ones(3, *shape)
    for place in dict.fromkeys(places):
        rows = [i for i, each in enumerate(places) if each == place]
        expected[place] += values[rows].sum(0)
    _add_runs(totals, values, places)
    assert torch.equal(totals, expected)


def test_one_image_that_is_too_large_is_an_error():
    small = objective(Small(0, at_first=0), size=2)
    with (
        pytest.warns(UserWarning, match=LITTLE.format(2, 1)),
        pytest.raises(torch.OutOfMemoryError, match="too little memory"),
    ):
        small.evaluate(MASKS, batch(), bounded=False, gradient=True)
    assert small.forward_func.sizes == [2, 1]
