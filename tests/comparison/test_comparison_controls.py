"""The controls against plain loops, and in Captum's contract."""

import pytest
import torch
from captum.attr import NoiseTunnel
from captum.metrics import infidelity, infidelity_perturb_func_decorator, sensitivity_max
from comparisons import CANVASES, LABELS, SEARCH, conv_net, linear_net
from torch.utils.data import TensorDataset

from captum_classpattern.comparison import BestCrop, ClassMean, RandomPixels
from captum_classpattern.comparison.controls import Control, square

MAKERS = {
    "RandomPixels": lambda net: RandomPixels(net),
    "ClassMean": lambda net: ClassMean(net, SEARCH, LABELS),
    "BestCrop": lambda net: BestCrop(net, SEARCH, LABELS),
}
each = pytest.mark.parametrize("name", list(MAKERS))


# ---- maps


def test_random_pixels_are_seeded_uniform_and_alike_in_all_channels():
    images = torch.rand(3, 3, 64, 64)
    before = torch.get_rng_state()
    maps = RandomPixels(linear_net()).attribute(images, seed=5)
    assert torch.equal(before, torch.get_rng_state())
    assert maps.shape == images.shape
    assert torch.equal(maps, maps[:, :1].expand_as(maps))
    assert torch.equal(maps, RandomPixels(linear_net()).attribute(images * 0, 2, seed=5))
    assert not torch.equal(maps, RandomPixels(linear_net()).attribute(images, seed=6))
    values = maps[:, 0].flatten()
    assert 0 <= values.min() < 0.001
    assert 0.999 < values.max() < 1
    counts = torch.histc(values, 10, 0, 1)  # 1229 are expected in each, with a deviation of 33
    assert (counts - len(values) / 10).abs().max() < 5 * 33
    assert not torch.equal(maps[0], maps[1])
    assert maps.unique().numel() > 3 * 64 * 64 * 0.99
    with pytest.raises(ValueError, match="`seed` must be a whole number"):
        RandomPixels(linear_net()).attribute(images, seed=-1)


def plain_nearness(image, target):
    images = [one for one, label in zip(SEARCH, LABELS.tolist()) if label == target]
    return 1 - (image - sum(images) / len(images)).abs()


def test_class_mean_is_that_of_a_plain_loop():
    maps = ClassMean(linear_net(), SEARCH, LABELS).attribute(CANVASES, [2, 0, 1, 1])
    for map, image, target in zip(maps, CANVASES, [2, 0, 1, 1]):
        torch.testing.assert_close(map, plain_nearness(image, target))
    of_data = ClassMean(linear_net(), TensorDataset(SEARCH, LABELS)).attribute(CANVASES, 1)
    torch.testing.assert_close(of_data[0], plain_nearness(CANVASES[0], 1))


def test_class_mean_without_labels_goes_by_the_classifier():
    net = linear_net()
    expected = ClassMean(net, SEARCH, net(SEARCH).argmax(1)).attribute(CANVASES, 0)
    assert torch.equal(ClassMean(net, SEARCH).attribute(CANVASES, 0), expected)
    with pytest.raises(ValueError, match="none of the 60 baselines is of class 7"):
        ClassMean(net, SEARCH, LABELS).attribute(CANVASES, 7)


def plain_crop(net, image, target, k, n_images=12):
    """All positions, and all their scores."""
    others = [one for one, label in zip(SEARCH, LABELS.tolist()) if label != target]
    stamped_on = [others[round(i * (len(others) - 1) / (n_images - 1))] for i in range(n_images)]
    side = round(k**0.5)
    rows = -(-k // side)
    scores = {}
    for top in range(6 - rows + 1):
        for left in range(6 - side + 1):
            mask = torch.zeros(6, 6, dtype=torch.bool)
            for number in range(k):
                mask[top + number // side, left + number % side] = True
            probabilities = [
                net(torch.where(mask, image, one)[None]).softmax(1) for one in stamped_on
            ]
            scores[top, left] = (
                float(sum(one[0, target] for one in probabilities)) / n_images,
                mask,
            )
    return scores


@pytest.mark.parametrize("k", [1, 2, 4, 5, 7, 9, 12])
@pytest.mark.parametrize("target", [0, 2])
@torch.no_grad()
def test_the_best_crop_of_all_positions(k, target):
    net = conv_net()
    maps = BestCrop(net, SEARCH, LABELS).attribute(CANVASES[:2], target, area=k / 36)
    for map, image in zip(maps, CANVASES):
        assert torch.equal(map, map[:1].expand_as(map))
        scores = plain_crop(net, image, target, k)
        best = max(score for score, _ in scores.values())
        [place] = [place for place, (_, mask) in scores.items() if torch.equal(mask, map[0] > 0)]
        assert scores[place][0] == pytest.approx(best, abs=1e-6)
        assert int(map[0].sum()) == k
        assert set(map.unique().tolist()) == {0, 1}


@pytest.mark.parametrize(("top", "left"), [(0, 0), (0, 3), (3, 0), (3, 3)])
def test_the_best_crop_may_touch_the_edges(top, left):
    weight = torch.zeros(6, 6)
    weight[top : top + 3, left : left + 3] = 1

    def net(images):
        score = (images.mean(1) * weight).sum((1, 2))
        return torch.stack([score, torch.full_like(score, 7)], 1)

    crop = BestCrop(net, SEARCH * 0.5, LABELS)
    map = crop.attribute(torch.ones(1, 3, 6, 6), 0, area=9 / 36)
    assert torch.equal(map[0, 0], weight)


def test_few_positions_are_refined_around_the_best():
    """One peak on 28 x 28: a coarse grid finds its slope, and the finer steps its top."""
    rows, columns = torch.meshgrid(torch.arange(28.0), torch.arange(28.0), indexing="ij")
    weight = torch.exp(-((rows - 9) ** 2 + (columns - 17) ** 2) / 60)
    calls = []

    def net(images):
        calls.append(len(images))
        score = (images[:, 0] * weight).sum((1, 2))
        return torch.stack([score, torch.zeros_like(score)], 1)

    baselines = torch.zeros(10, 1, 28, 28)
    crop = BestCrop(net, baselines, [1] * 10)
    map = crop.attribute(torch.ones(1, 1, 28, 28), 0, area=9 / 784, n_positions=40, n_images=4)
    expected = torch.zeros(28, 28)
    expected[8:11, 16:19] = 1
    assert torch.equal(map[0, 0], expected)
    assert max(calls) == 48  # twelve squares on four images
    assert sum(calls) < 4 * 26 * 26 / 2


def test_the_number_of_coarse_positions_is_a_bound():
    calls = []

    def net(images):
        calls.append(len(images))
        return torch.tensor([[1.0, 0.0]]).expand(len(images), 2)

    for n_positions in (1, 5, 16):
        calls.clear()
        crop = BestCrop(net, SEARCH, LABELS)
        crop.attribute(CANVASES[:1], 0, area=1 / 36, n_positions=n_positions, n_images=4)
        assert 1 <= sum(calls) / 4 <= 36
    assert int(crop.attribute(CANVASES[:1], 0, area=1 / 36).sum()) == 3


def test_best_crop_stamps_no_image_of_the_target():
    seen = []

    def net(images):
        seen.extend(images)
        return torch.zeros(len(images), 3)

    white = torch.ones(1, 3, 6, 6)
    BestCrop(net, SEARCH, LABELS).attribute(white, 1, area=1 / 36, n_images=6)
    stamped = [(one, (one != 1).all(0)) for one in seen]
    assert all(int(kept.sum()) == 35 for _, kept in stamped)
    sources = {
        i
        for i in range(60)
        for one, kept in stamped
        if torch.equal(SEARCH[i][:, kept], one[:, kept])
    }
    assert len(sources) == 6
    assert all(LABELS[i] != 1 for i in sources)


def test_best_crop_refuses_what_it_cannot_do():
    crop = BestCrop(linear_net(), SEARCH, LABELS)
    with pytest.raises(ValueError, match="rounds to none or all"):
        crop.attribute(CANVASES, 0, area=0.01)
    for name in ("n_images", "n_positions"):
        with pytest.raises(ValueError, match=f"`{name}` must be a whole number from 1, got 0"):
            crop.attribute(CANVASES, 0, **{name: 0})
    with pytest.raises(ValueError, match="all 60 baselines are of class 2"):
        BestCrop(linear_net(), SEARCH, [2] * 60).attribute(CANVASES, 2)
    flat = BestCrop(lambda x: x.mean((2, 3)), torch.rand(4, 2, 2, 60), [0] * 4)
    with pytest.raises(ValueError, match="a square of 36 pixels does not fit into 2x60"):
        flat.attribute(torch.rand(1, 2, 2, 60), 1, area=0.3)


@pytest.mark.parametrize("k", range(1, 30))
def test_a_square_has_its_pixels_in_reading_order(k):
    side = round(k**0.5)
    mask = square(k, side, 2, 1, 9, 9)[0]
    assert [divmod(i, 9) for i in torch.nonzero(mask.flatten()).flatten().tolist()] == [
        (2 + number // side, 1 + number % side) for number in range(k)
    ]


def test_which_methods_are_controls():
    assert all(isinstance(make(linear_net()), Control) for make in MAKERS.values())
    assert not isinstance(NoiseTunnel(RandomPixels(linear_net())), Control)


# ---- Captum's contract


@each
def test_tensor_for_tensor_and_tuple_for_tuple(name):
    method = MAKERS[name](linear_net())
    result = method.attribute(CANVASES, 1)
    assert isinstance(result, torch.Tensor)
    assert result.shape == CANVASES.shape
    assert result.is_contiguous()
    assert not result.requires_grad
    in_tuple = method.attribute((CANVASES,), 1)
    assert type(in_tuple) is tuple
    assert torch.equal(in_tuple[0], result)
    assert method.attribute(CANVASES.double(), 1).dtype == torch.float64
    with pytest.raises(ValueError, match="a tuple of one, got a tuple of 2"):
        method.attribute((CANVASES, CANVASES), 1)


@pytest.mark.parametrize("name", ["ClassMean", "BestCrop"])
def test_targets_as_captum_has_them(name):
    method = MAKERS[name](linear_net())
    expected = torch.cat(
        [method.attribute(CANVASES[i : i + 1], t) for i, t in enumerate([2, 0, 1])]
    )
    for targets in ([2, 0, 1], torch.tensor([2, 0, 1])):
        assert torch.equal(method.attribute(CANVASES[:3], targets), expected)
    same = method.attribute(CANVASES[:3], [1, 1, 1])
    for target in (1, torch.tensor(1), torch.tensor([1]), [1]):
        assert torch.equal(method.attribute(CANVASES[:3], target), same)
    assert not torch.equal(expected, same)
    with pytest.raises(TypeError, match="target must be an int"):
        method.attribute(CANVASES)


@each
@pytest.mark.parametrize("target", [1, [2, 0, 1, 1], torch.tensor([2, 0, 1, 1])], ids=type)
def test_noise_tunnel(name, target):
    method = MAKERS[name](linear_net())
    torch.manual_seed(0)
    settings = {"nt_samples": 2, "stdevs": 0.05, "target": target}
    result = NoiseTunnel(method).attribute(CANVASES, **settings)
    torch.manual_seed(0)
    noisy = CANVASES.repeat_interleave(2, 0)
    noisy = noisy + torch.normal(0, torch.full_like(noisy, 0.05))
    repeated = torch.as_tensor(target).expand(4).repeat_interleave(2)
    expected = method.attribute(noisy, repeated).unflatten(0, (4, 2)).mean(1)
    torch.testing.assert_close(result, expected)


@each
def test_sensitivity_max(name):
    method, settings = MAKERS[name](linear_net()), {"target": [2, 0, 1, 1], "n_perturb_samples": 1}
    same = sensitivity_max(method.attribute, CANVASES, lambda inputs: inputs, **settings)
    assert same.tolist() == [0, 0, 0, 0]
    before, after = (method.attribute(x, [2, 0, 1, 1]).flatten(1) for x in (CANVASES, 1 - CANVASES))
    moved = sensitivity_max(method.attribute, CANVASES, lambda inputs: 1 - inputs, **settings)
    torch.testing.assert_close(moved, (after - before).norm(dim=1) / before.norm(dim=1))


@each
def test_infidelity(name):
    net = linear_net()
    maps = MAKERS[name](net).attribute(CANVASES, 1)

    @infidelity_perturb_func_decorator(False)
    def halved(inputs):
        return inputs / 2

    found = infidelity(net, halved, CANVASES, maps, target=1, n_perturb_samples=1)
    with torch.no_grad():
        happened = net(CANVASES)[:, 1] - net(CANVASES / 2)[:, 1]
    predicted = (maps * CANVASES / 2).sum((1, 2, 3))
    torch.testing.assert_close(found, (predicted - happened).square(), rtol=1e-4, atol=1e-4)
