"""Objective: losses and gradients by the formula, and what is done where memory is short."""

import warnings

import pytest
import torch
from plain_solvers import Problem, cross_entropy, miss
from small_models import conv_net, random_images
from torch import nn

from captum_classpattern import search_masks
from captum_classpattern.optimization import PaperLoop, Swap
from captum_classpattern.optimization.objective import Batch, Objective

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
@pytest.mark.parametrize("size", [None, 1, 4, 11, 100])
def test_values_and_gradients(bounded, size):
    net = make_net()
    found = objective(net, size=size).evaluate(MASKS, batch(), bounded=bounded, gradient=True)
    assert found[1].shape == MASKS.shape
    check_by_formula(found, bounded)
    assert all(parameter.grad is None for parameter in net.parameters())
    assert not MASKS.requires_grad


def test_the_value_alone_needs_no_gradients():
    calls, own = [], make_net()

    def net(images):
        calls.append(torch.is_grad_enabled())
        return own(images)

    values = objective(net, size=4).evaluate(MASKS, batch(), bounded=True, gradient=False)[0]
    expected, _ = objective().evaluate(MASKS, batch(), bounded=True, gradient=True)
    torch.testing.assert_close(values, expected)
    assert calls == [False] * 3


def test_masks_belong_to_the_rows_that_are_given():
    found = objective().evaluate(MASKS[:2], batch([2, 1]), bounded=False, gradient=True)
    check_by_formula(found, False, rows=(2, 1))


def test_additional_arguments_follow_their_canvas():
    net, exact, shifts = (
        make_net(),
        make_net(torch.float64),
        torch.tensor([[0.5, 0.1, 0.9], [0.2, 0.8, 0.3], [0.7, 0.4, 0.6]]),
    )

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


@pytest.mark.parametrize("bounded", [False, True])
def test_the_gradients_of_colours_hold_that_of_the_mask(bounded):
    loss, both = objective(size=3).evaluate(MASKS, batch(), bounded=bounded, colours=True)
    g, at_images = both.chunk(2, dim=1)
    of_mask = (g * CANVASES - at_images).sum(1, keepdim=True)
    check_by_formula((loss, of_mask), bounded)


class Small(nn.Module):
    """Has memory for some images at once."""

    def __init__(self, most, at_first=1000):
        super().__init__()
        self.net, self.most, self.sizes = make_net(), most, []
        self.at_first, self.training = at_first, False

    def forward(self, images):
        self.sizes.append(len(images))
        if len(images) > (self.at_first if len(self.sizes) == 1 else self.most):
            raise torch.OutOfMemoryError("too little memory")
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


def test_one_image_that_is_too_large_is_an_error():
    small = objective(Small(0, at_first=0), size=2)
    with (
        pytest.warns(UserWarning, match=LITTLE.format(2, 1)),
        pytest.raises(torch.OutOfMemoryError, match="too little memory"),
    ):
        small.evaluate(MASKS, batch(), bounded=False, gradient=True)
    assert small.forward_func.sizes == [2, 1]


@pytest.mark.parametrize("solver", [PaperLoop(), Swap(batch_size=4)])
def test_a_whole_search_with_little_memory(solver):
    """Three canvases on 4 images: 12 pairs, and no more in the swap solver's rounds."""
    arguments = CANVASES, [0, 1, 2], random_images(12, 2, 4, 4, seed=7)
    settings = {"baseline_labels": [0, 1, 2] * 4, "n_steps": 5, "area": 0.3, "solver": solver}
    expected = search_masks(make_net(), *arguments, **settings)
    with pytest.warns(UserWarning, match=LITTLE.format(12, 6)) as record:
        found = search_masks(Small(7), *arguments, **settings)
    assert [warning.filename for warning in record] == [__file__]
    torch.testing.assert_close(found.masks, expected.masks, atol=1e-5, rtol=0)
    torch.testing.assert_close(found.losses, expected.losses, atol=1e-5, rtol=1e-5)
    assert torch.equal(found.passes, expected.passes)
