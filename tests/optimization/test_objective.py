"""Objective: losses and gradients by the formula, and what is done where memory is short."""

import warnings

import pytest
import torch
from torch import nn

from captum_classpattern import search_masks
from captum_classpattern.optimization import PaperLoop, Swap
from captum_classpattern.optimization.objective import Batch, Objective

TARGETS = [0, 2, 0]
PICKS = {0: [1, 4, 2], 2: [0, 3, 5, 1, 2]}  # 3 + 5 + 3 = 11 pairs


def rand(*shape, seed):
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed))


CANVASES, IMAGES = rand(3, 2, 4, 4, seed=1), rand(6, 2, 4, 4, seed=2)
MASKS = rand(3, 1, 4, 4, seed=3)
BATCH = Batch(IMAGES, [0, 1, 2], [PICKS[target] for target in TARGETS])


def make_net(dtype=torch.float32):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = nn.Sequential(nn.Conv2d(2, 4, 3), nn.Tanh(), nn.Flatten(), nn.Linear(16, 3))
    with torch.no_grad():
        net[3].weight.mul_(4)
    return net.to(dtype).eval()


def objective(net=None, additional=(), size=None):
    net = make_net() if net is None else net
    return Objective(net, CANVASES, TARGETS, additional, size)


def by_formula(row, bounded, net=None, mask=None):
    """Value and gradient by autograd through the mixing, an image at a time, in float64."""
    net = make_net(torch.float64) if net is None else net
    mask = (MASKS[row] if mask is None else mask).double().requires_grad_()
    total = 0
    for i in PICKS[TARGETS[row]]:
        stamped = mask * CANVASES[row].double() + (1 - mask) * IMAGES[i].double()
        p = net(stamped[None])[0].softmax(0)[TARGETS[row]]
        total = total + (1 - p.sqrt() if bounded else -p.log()) / len(PICKS[TARGETS[row]])
    (slope,) = torch.autograd.grad(total, mask)
    return total.detach().float(), slope.float()


@pytest.mark.parametrize("bounded", [False, True])
@pytest.mark.parametrize("size", [None, 1, 4, 11, 100])
def test_values_and_gradients(bounded, size):
    values, slopes = objective(size=size).evaluate(MASKS, BATCH, bounded=bounded, gradient=True)
    assert slopes.shape == MASKS.shape
    for row in range(3):
        value, slope = by_formula(row, bounded)
        torch.testing.assert_close(values[row], value, atol=1e-6, rtol=1e-5)
        torch.testing.assert_close(slopes[row], slope, atol=1e-6, rtol=1e-4)
    assert slopes.abs().amax((1, 2, 3)).min() > 1e-3


def test_the_value_alone_is_that_of_the_bounded_loss():
    calls, own = [], make_net()

    def net(images):
        calls.append(torch.is_grad_enabled())
        return own(images)

    values = objective(net, size=4).evaluate(MASKS, BATCH, bounded=True, gradient=False)[0]
    expected, _ = objective().evaluate(MASKS, BATCH, bounded=True, gradient=True)
    torch.testing.assert_close(values, expected)
    assert calls == [False] * 3


def test_some_of_the_canvases():
    """Masks belong to the rows that are given."""
    values, slopes = objective().evaluate(
        MASKS[[0, 2]], Batch(IMAGES, [2, 1], [PICKS[0], PICKS[2]]), bounded=False, gradient=True
    )
    for place, row in enumerate([2, 1]):
        value, slope = by_formula(row, False, mask=MASKS[[0, 2]][place])
        torch.testing.assert_close(values[place], value, atol=1e-6, rtol=1e-5)
        torch.testing.assert_close(slopes[place], slope, atol=1e-6, rtol=1e-4)


def test_additional_arguments_follow_their_canvas():
    net, shifts = make_net(), rand(3, 3, seed=4)

    def shifted(images, shift, scale):
        return scale * net(images) + shift

    values, slopes = objective(shifted, (shifts, 0.5)).evaluate(
        MASKS, BATCH, bounded=False, gradient=True
    )
    for row in range(3):
        exact = make_net(torch.float64)
        value, slope = by_formula(row, False, lambda x: 0.5 * exact(x) + shifts[row].double())  # noqa: B023
        torch.testing.assert_close(values[row], value, atol=1e-6, rtol=1e-5)
        torch.testing.assert_close(slopes[row], slope, atol=1e-6, rtol=1e-4)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_the_model_gets_its_own_precision_and_the_result_is_float32(dtype):
    net, dtypes = make_net(dtype), set()
    net.register_forward_pre_hook(lambda _, inputs: dtypes.add(inputs[0].dtype))
    values, slopes = objective(net).evaluate(MASKS, BATCH, bounded=False, gradient=True)
    assert dtypes == {dtype}
    assert values.dtype == slopes.dtype == torch.float32
    value, slope = by_formula(1, False)
    rough = {torch.float64: 1e-5, torch.bfloat16: 0.05}[dtype]
    torch.testing.assert_close(values[1], value, atol=rough, rtol=rough)
    torch.testing.assert_close(slopes[1], slope, atol=rough, rtol=rough)


def test_no_gradients_are_left_behind():
    net = make_net()
    objective(net).evaluate(MASKS, BATCH, bounded=False, gradient=True)
    assert all(parameter.grad is None for parameter in net.parameters())
    assert not MASKS.requires_grad
    assert not CANVASES.requires_grad


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


@pytest.mark.parametrize("bounded", [False, True])
def test_the_batch_is_halved_where_memory_is_short(bounded):
    small = objective(Small(5, at_first=5))
    with pytest.warns(UserWarning, match=LITTLE.format(11, 5)) as record:
        found = small.evaluate(MASKS, BATCH, bounded=bounded, gradient=True)
    assert [warning.filename for warning in record] == [__file__]
    assert small.internal_batch_size == 5
    assert small.forward_func.sizes == [11, 5, 5, 1]
    expected = objective().evaluate(MASKS, BATCH, bounded=bounded, gradient=True)
    torch.testing.assert_close(found, expected)
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # it stays at the new size
        small.evaluate(MASKS, BATCH, bounded=False, gradient=True)


def test_what_was_done_before_the_memory_ran_out_counts_once():
    small = objective(Small(2, at_first=6), size=6)
    with pytest.warns(UserWarning, match=LITTLE.format(5, 2)) as record:
        found = small.evaluate(MASKS, BATCH, bounded=False, gradient=True)
    assert len(record) == 1
    assert small.forward_func.sizes == [6, 5, 2, 2, 1]
    torch.testing.assert_close(
        found, objective().evaluate(MASKS, BATCH, bounded=False, gradient=True)
    )


def test_one_image_that_is_too_large_is_an_error():
    small = objective(Small(0, at_first=0), size=2)
    with (
        pytest.warns(UserWarning, match=LITTLE.format(2, 1)),
        pytest.raises(torch.OutOfMemoryError, match="too little memory"),
    ):
        small.evaluate(MASKS, BATCH, bounded=False, gradient=True)
    assert small.forward_func.sizes == [2, 1]


@pytest.mark.parametrize("solver", ["swap", "paper"])
def test_a_whole_search_with_little_memory(solver):
    """Three canvases on 4 images: 12 pairs, and no more in the swap solver's rounds."""
    solvers = {"paper": PaperLoop(), "swap": Swap(batch_size=4)}
    settings = {"n_steps": 5, "area": 0.3, "solver": solvers[solver]}
    arguments = (CANVASES, [0, 1, 2], rand(12, 2, 4, 4, seed=7))
    labels = {"baseline_labels": [0, 1, 2] * 4}
    expected = search_masks(make_net(), *arguments, **labels, **settings)
    small = Small(7)
    with pytest.warns(UserWarning, match=LITTLE.format(12, 6)) as record:
        found = search_masks(small, *arguments, **labels, **settings)
    assert [warning.filename for warning in record] == [__file__]
    torch.testing.assert_close(found.masks, expected.masks, atol=1e-5, rtol=0)
    torch.testing.assert_close(found.losses, expected.losses, atol=1e-5, rtol=1e-5)
    assert torch.equal(found.passes, expected.passes)
