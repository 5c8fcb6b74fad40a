"""search_masks against plain, slow versions of its two solvers, and its identities."""

import warnings

import numpy as np
import pytest
import torch
from plain_swaps import plain_swaps
from torch import nn
from torch.utils.data import DataLoader, Dataset, IterableDataset, TensorDataset

from captum_classpattern import PixelClassifier, search_masks, select_canvases
from captum_classpattern._validation import Notice
from captum_classpattern.optimization import PaperLoop, Swap
from captum_classpattern.optimization.masks import unit

LABELS = [0, 1, 2, 1, 0, 2, 1, 2, 1, 0, 1, 2]  # 3 of class 0, 5 of 1, 4 of 2
both_solvers = pytest.mark.parametrize("solver", ["swap", "paper"])


def linear_net(channels=1, classes=3, dtype=torch.float32, gain=4.0):
    torch.manual_seed(1)
    net = nn.Sequential(nn.Flatten(), nn.Linear(channels * 36, classes)).to(dtype).eval()
    with torch.no_grad():
        net[1].weight.mul_(gain)
    return net


def conv_net(channels=1, classes=3, gain=1.0):
    torch.manual_seed(2)
    net = nn.Sequential(
        nn.Conv2d(channels, 6, 3), nn.Tanh(), nn.Flatten(), nn.Linear(96, classes)
    ).eval()
    with torch.no_grad():
        net[0].weight.mul_(gain)
        net[3].weight.mul_(gain)
    return net


def random_images(n, channels=1, seed=0, dtype=torch.float32):
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(n, channels, 6, 6, generator=generator, dtype=torch.float64).to(dtype)


def plain_loop(
    net, canvas, target, baselines, labels, steps, *, alpha=0.2, step_size=0.02, batch_size=4, seed
):
    """The loop of method.md with one canvas, image by image."""
    height, width = canvas.shape[1:]
    mask = torch.full((height, width), 0.5, dtype=torch.float64)
    losses, shown, epoch = [], 0, 0
    while len(losses) < steps:
        order = np.random.default_rng([seed, epoch]).permutation(len(baselines))
        others = [i for i in order if labels[i] != target]
        for start in range(0, len(others), batch_size):
            if len(losses) == steps:
                break
            batch = others[start : start + batch_size]
            mask.requires_grad_()
            entropy = torch.zeros((), dtype=torch.float64)
            for i in batch:
                logits = net((mask * canvas + (1 - mask) * baselines[i])[None])[0]
                entropy = entropy + logits.exp().sum().log() - logits[target]
            size = mask.sum() / (height * width / 2)
            loss = alpha * entropy / len(batch) + (1 - alpha) * size
            (gradient,) = torch.autograd.grad(loss, mask)
            mask = torch.clip(mask.detach() - step_size * torch.sign(gradient), 0, 1)
            losses.append(float(loss.detach()))
            shown += len(batch)
        epoch += 1
    return mask, losses, shown


# 9 baselines are not of class 0: batches of 4, 4 and 1, so an epoch is 3 steps
@pytest.mark.parametrize("steps", [1, 2, 3, 4, 5, 30])
@pytest.mark.parametrize("channels", [1, 3])
def test_equals_the_papers_loop_step_by_step(steps, channels):
    net = linear_net(channels, dtype=torch.float64)
    [canvas] = random_images(1, channels, 5, torch.float64)
    baselines = random_images(12, channels, 6, torch.float64)
    mask, losses, shown = plain_loop(net, canvas, 0, baselines, LABELS, steps, seed=3)
    result = search_masks(
        net,
        canvas[None],
        0,
        baselines,
        baseline_labels=LABELS,
        solver="paper",
        n_steps=steps,
        seed=3,
    )
    assert result.losses.shape == (1, steps)
    torch.testing.assert_close(result.masks[0, 0].double(), mask, atol=2e-6, rtol=0)
    torch.testing.assert_close(
        result.losses[0].double(), torch.tensor(losses).double(), atol=1e-5, rtol=1e-5
    )
    assert result.passes.tolist() == [shown]


def test_equals_the_papers_loop_with_other_settings():
    net = linear_net(dtype=torch.float64)
    [canvas], baselines = random_images(1, 1, 5, torch.float64), random_images(12, 1, 6).double()
    settings = {"alpha": 0.6, "step_size": 0.07, "batch_size": 3, "seed": 11}
    mask, losses, _ = plain_loop(net, canvas, 1, baselines, LABELS, 20, **settings)
    result = search_masks(
        net,
        canvas[None],
        1,
        baselines,
        baseline_labels=LABELS,
        solver=PaperLoop(alpha=0.6, step_size=0.07, batch_size=3),
        n_steps=20,
        seed=11,
    )
    torch.testing.assert_close(result.masks[0, 0].double(), mask, atol=2e-6, rtol=0)
    assert result.losses[0].tolist() == pytest.approx(losses, abs=1e-5)


@pytest.mark.parametrize("seed", [0, 3, 8])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(
    ("rounds", "area", "settings"),
    [
        (1, 0.3, {}),
        (2, 0.1, {}),
        (7, 0.45, {"batch_size": 5}),
        (12, 0.1, {"batch_size": 3}),
        (30, 0.25, {"batch_size": 4, "proposals": 1}),
        (6, 0.8, {"proposals": 5}),
    ],
)
def test_equals_the_plain_swaps(rounds, area, settings, channels, seed):
    net = conv_net(channels, gain=4.0).double()
    [canvas] = random_images(1, channels, 5, torch.float64)
    baselines = random_images(12, channels, 6, torch.float64)
    plain = plain_swaps(net, canvas, 0, baselines, LABELS, rounds, area=area, seed=seed, **settings)
    result = search_masks(
        net,
        canvas[None],
        0,
        baselines,
        baseline_labels=LABELS,
        solver=Swap(**settings),
        n_steps=rounds,
        area=area,
        seed=seed,
    )
    found = result.masks[0, 0].numpy()
    assert ((found > 0) == (plain.mask > 0)).all()
    np.testing.assert_allclose(found, plain.mask, atol=1e-4)
    assert result.losses.shape == (1, rounds)
    assert result.losses[0].tolist() == pytest.approx(plain.losses, abs=1e-5)
    assert result.passes.tolist() == [plain.passes]


def test_the_swaps_change_pixels_lower_the_loss_and_are_refused_at_times():
    """So that the comparison above is one of swaps."""
    net, canvases, baselines = conv_net(gain=4.0), random_images(4, seed=5), random_images(12)
    settings = {"area": 0.3, "seed": 1}
    given = {"baseline_labels": LABELS, **settings}
    short, long = (search_masks(net, canvases, 0, baselines, n_steps=n, **given) for n in (1, 30))
    assert ((short.masks > 0) != (long.masks > 0)).sum() >= 4
    assert (long.losses[:, -3:].mean(1) < long.losses[:, :3].mean(1)).all()
    arguments = (canvases[0].double(), 0, baselines.double(), LABELS, 30)
    plain = plain_swaps(net.double(), *arguments, batch_size=3, **settings)
    assert 0 < plain.refused < 90


def test_tiny_gradients_are_normalised_too():
    slope = torch.zeros(3, 1, 2, 2)
    slope[0], slope[1, 0, 0] = 1e-30, torch.tensor([3e10, -4e10])
    norms = unit(slope).flatten(1).norm(dim=1)
    torch.testing.assert_close(norms, torch.tensor([1.0, 1.0, 0.0]))


def test_no_other_mask_of_the_area_is_better_on_a_linear_model():
    """On 2 classes of a linear model, a pixel's worth does not depend on the other pixels'."""
    net, [canvas] = linear_net(classes=2, gain=1.0), random_images(1, seed=5)
    baseline = random_images(1, seed=6)
    mask = search_masks(
        net, canvas[None], 1, baseline, baseline_labels=[0], n_steps=60, area=0.25
    ).masks[0]
    weight = (net[1].weight[1] - net[1].weight[0]).view(1, 6, 6)
    gains = (weight * (canvas - baseline[0])).flatten()
    best = gains.argsort(descending=True)[:9]
    assert set(mask.flatten().nonzero().flatten().tolist()) == set(best.tolist())


@pytest.mark.parametrize(("area", "pixels"), [(0.05, 2), (0.25, 9), (0.9, 32)])
def test_masks_of_swaps_hold_the_area_in_weights_from_a_half_to_one(area, pixels):
    masks = search(area=area, n_steps=4).masks.flatten(1)
    assert masks.count_nonzero(1).tolist() == [pixels, pixels]
    assert masks.where(masks > 0, 1).amin(1).tolist() == [0.5, 0.5]
    assert masks.amax(1).tolist() == [1.0, 1.0]


@both_solvers
def test_canvases_together_equal_searches_alone(solver):
    """Also where a target with fewer baselines finishes earlier, as with the paper's solver."""
    net, canvases, baselines = conv_net(), random_images(4, seed=5), random_images(12, seed=6)
    labels, targets = [0] * 7 + [1, 1, 2, 2, 2], [0, 2, 0, 1]
    solvers = {"paper": PaperLoop(epochs=3, batch_size=2), "swap": Swap(rounds=18, batch_size=2)}
    settings = {"baseline_labels": labels, "seed": 4, "solver": solvers[solver], "area": 0.25}
    together = search_masks(net, canvases, targets, baselines, **settings)
    steps = {"paper": [9, 15, 9, 15], "swap": [18] * 4}[solver]
    assert together.losses.isfinite().sum(1).tolist() == steps
    if solver == "paper":
        assert together.passes.tolist() == [15, 27, 15, 30]
    for i, target in enumerate(targets):
        alone = search_masks(net, canvases[i : i + 1], target, baselines, **settings)
        steps = alone.losses.shape[1]
        torch.testing.assert_close(together.masks[i], alone.masks[0], atol=1e-6, rtol=0)
        torch.testing.assert_close(
            together.losses[i, :steps], alone.losses[0], atol=1e-5, rtol=1e-5
        )
        assert together.losses[i, steps:].isnan().all()
        assert together.passes[i] == alone.passes[0]


@both_solvers
@pytest.mark.parametrize("size", [1, 3, 7])
def test_internal_batch_size_never_changes_the_result(size, solver):
    net, canvases, baselines = conv_net(), random_images(3, seed=5), random_images(12, seed=6)
    largest = []
    watched = net.register_forward_pre_hook(lambda _, inputs: largest.append(len(inputs[0])))
    results = [
        search_masks(
            net,
            canvases,
            [0, 1, 2],
            baselines,
            baseline_labels=LABELS,
            solver=solver,
            area=0.25,
            n_steps=12,
            internal_batch_size=limit,
        )
        for limit in (size, None)
    ]
    watched.remove()
    torch.testing.assert_close(results[0].masks, results[1].masks, atol=1e-6, rtol=0)
    torch.testing.assert_close(results[0].losses, results[1].losses, atol=1e-5, rtol=1e-5)
    assert max(largest[: len(largest) // 2]) == size
    # 4 for each canvas, or all of an epoch: 9, 7 and 8
    assert max(largest) == {"paper": 12, "swap": 24}[solver]


def search(net=None, canvases=None, target=0, baselines=None, **kwargs):
    kwargs = {"baseline_labels": LABELS, "n_steps": 8, "area": 0.25, **kwargs}
    return search_masks(
        linear_net() if net is None else net,
        random_images(2, seed=5) if canvases is None else canvases,
        target,
        random_images(12, seed=6) if baselines is None else baselines,
        **kwargs,
    )


@both_solvers
def test_a_seed_gives_one_result_and_another_seed_another(solver):
    first, again, other = (search(seed=seed, solver=solver) for seed in (1, 1, 2))
    assert torch.equal(first.masks, again.masks)
    assert torch.equal(first.losses, again.losses)
    assert not torch.equal(first.losses, other.losses)
    assert not torch.equal(first.masks, other.masks)


@pytest.mark.parametrize(("target", "left"), [(0, 9), (1, 7), (2, 8)])
def test_five_epochs_of_batches_of_four_by_default_of_the_papers_solver(target, left):
    result = search(target=target, solver="paper", n_steps=None)
    assert result.losses.shape == (2, 5 * -(-left // 4))
    assert result.passes.tolist() == [5 * left] * 2
    assert result.passes.dtype == torch.int64


def test_steps_count_their_passes():
    assert search(solver="paper", n_steps=4).passes.tolist() == [4 + 4 + 1 + 4] * 2
    # 25 sign steps: 4, 4, 1 of eight epochs, 4 of the ninth; then its rest, and whole ones
    assert search(n_steps=4).passes.tolist() == [8 * 9 + 4 + 4 * (5 + 3 * 9)] * 2


@pytest.mark.parametrize("target", [0, 1, 2])
def test_the_passes_of_a_search_are_those_that_were_promised(target):
    """Where no epoch ends: of 2,000 other images."""
    labels = [(target + 1) % 3] * 2000
    given = {"target": target, "baselines": random_images(2000), "baseline_labels": labels}
    for n_steps in (None, 1, 7):
        result = search(n_steps=n_steps, **given)
        assert result.losses.shape == (2, n_steps or Swap().rounds)
        assert result.passes.tolist() == [Swap().passes(n_steps)[-1]] * 2
    assert search(n_steps=7, solver="paper", **given).passes.tolist() == PaperLoop().passes(7) * 2


@both_solvers
def test_tensors_data_sets_and_loaders_give_equal_masks(solver):
    images = random_images(12, seed=6)
    data = TensorDataset(images, torch.tensor(LABELS))
    expected = search(baselines=images, solver=solver).masks
    loader = DataLoader(data, batch_size=5, shuffle=True)
    for source in (data, loader):
        found = search(baselines=source, baseline_labels=None, solver=solver)
        assert torch.equal(found.masks, expected)
    assert torch.equal(search(baselines=TensorDataset(images), solver=solver).masks, expected)


@pytest.mark.parametrize("target", [0, torch.tensor(0), torch.tensor([0]), [0, 0]])
def test_forms_of_target(target):
    assert torch.equal(search(target=target).masks, search(target=0).masks)


@both_solvers
def test_baselines_of_the_target_never_reach_the_model(solver):
    """Those of class y have a mark at pixel y, where the canvases are black."""
    baselines, canvases = random_images(12, seed=6), random_images(3, seed=5)
    baselines[:, 0, 0, :3], canvases[:, 0, 0, :3] = 0, 0
    for i, label in enumerate(LABELS):
        baselines[i, 0, 0, label] = 1
    net, targets, seen = linear_net(), torch.tensor([2, 0, 1]), []

    def spy(images, own):
        marks = images[:, 0, 0, :3].detach()
        assert not marks[torch.arange(len(own)), own].any()
        seen.append((marks > 0).any(0))
        return net(images)

    settings = {"solver": {"paper": PaperLoop(epochs=2), "swap": Swap(rounds=2)}[solver]}
    settings["n_steps"] = None
    search(spy, canvases, targets, baselines, additional_forward_args=targets, **settings)
    assert torch.stack(seen).any(0).all()


@both_solvers
def test_additional_arguments_reach_the_model(solver):
    net, canvases = linear_net(), random_images(2, seed=5)
    plain = search(net, canvases, [0, 1], solver=solver)
    shifts = torch.tensor([[5.0, 0.0, 0.0], [0.0, 5.0, 0.0]])
    shifted = search(
        lambda images, shift, scale: scale * net(images) + shift,
        canvases,
        [0, 1],
        additional_forward_args=(shifts, 1.0),
        solver=solver,
    )
    assert (shifted.losses[:, 0] < plain.losses[:, 0] - 0.1).all()


def centre_pixel(images):
    """Class 1 where the pixel (2, 3) is bright."""
    bright = 20 * (images[:, 0, 2, 3] - 0.5)
    return torch.stack([-bright, bright], dim=1)


@pytest.mark.parametrize(
    "settings", [{"solver": "paper", "n_steps": 40}, {"solver": "swap", "n_steps": 5, "area": 0.03}]
)
def test_finds_the_pixel_that_decides(settings):
    canvases, baselines = random_images(1, seed=5), random_images(10, seed=6)
    canvases[0, 0, 2, 3], baselines[:, 0, 2, 3] = 1, 0
    masks, losses, _ = search(
        centre_pixel, canvases, 1, baselines, baseline_labels=[0] * 10, **settings
    )
    if settings["solver"] == "swap":
        assert losses[0, -1] < 1e-3
        assert masks[0, 0, 2, 3] >= 0.5
        assert masks.count_nonzero() == 1
        return
    assert losses[0, -5:].mean() < losses[0, :5].mean() / 2
    assert masks[0, 0, 2, 3] > 0.5
    masks[0, 0, 2, 3] = 0
    assert not masks.any()


@both_solvers
@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_masks_are_float32_whatever_the_model(dtype, solver):
    net = linear_net(dtype=dtype)
    result = search(net, solver=solver)
    assert result.masks.dtype == result.losses.dtype == torch.float32
    assert {parameter.dtype for parameter in net.parameters()} == {dtype}
    reference = search(linear_net(), solver=solver)
    assert (result.masks - reference.masks).abs().mean() < 0.02


@pytest.mark.parametrize("step_size", [0.02, 0.3, 5.0])
def test_masks_stay_between_0_and_1(step_size):
    masks = search(solver=PaperLoop(step_size=step_size, alpha=0.9), n_steps=60).masks
    assert masks.min() == 0
    assert masks.max() <= 1
    assert masks.max() > 0.5


@both_solvers
def test_without_labels_the_models_predictions_are_taken(solver):
    net, images = conv_net(), random_images(12, seed=6)
    with torch.no_grad():  # the median splits the images in two classes
        net[3].bias[0] -= (net(images)[:, 0] - net(images)[:, 1:].amax(1)).median()
        predicted = net(images).argmax(1).tolist()
    assert 0 < predicted.count(0) < 12
    own = search(net, baseline_labels=None, solver=solver)
    given = search(net, baseline_labels=predicted, solver=solver)
    assert torch.equal(own.masks, given.masks)
    assert torch.equal(own.passes, given.passes)
    assert not torch.equal(own.losses, search(net, solver=solver).losses)


@both_solvers
def test_a_thousand_classes(solver):
    net = linear_net(classes=1000)
    result = search(net, target=[0, 999], solver=solver)
    assert result.masks.shape == (2, 1, 6, 6)
    assert torch.equal(result.masks[1], search(net, target=999, solver=solver).masks[1])


@both_solvers
def test_leaves_model_inputs_and_randomness_alone(solver):
    net, canvases = linear_net(), random_images(2, seed=5).requires_grad_()
    before = {name: value.clone() for name, value in net.state_dict().items()}
    states = torch.get_rng_state(), np.random.get_state()[1].copy()
    with torch.no_grad():
        masks = search(net, canvases, solver=solver).masks
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    assert all(parameter.grad is None for parameter in net.parameters())
    assert canvases.grad is None
    assert not masks.requires_grad
    assert torch.equal(torch.get_rng_state(), states[0])
    assert (np.random.get_state()[1] == states[1]).all()


@pytest.mark.parametrize(
    ("kwargs", "text"),
    [
        ({"target": 3}, r"target 3 is out of range: the model has 3 classes, .* from 0 to 2"),
        ({"target": [0, 7]}, "target 7 is out of range"),
        ({"target": -1}, "target -1 is out of range: classes count from 0"),
        ({"target": [0, 1, 2]}, "there are 2 images, but 3 targets"),
        ({"canvases": torch.rand(2, 1, 5, 6)}, r"canvases of \(1, 5, 6\) and .* \(1, 6, 6\)"),
        ({"canvases": torch.rand(1, 6, 6)}, r"canvases must be \(N, C, H, W\), got .*\(1, 6, 6\)"),
        ({"canvases": torch.rand(0, 1, 6, 6)}, "canvases has no images or no pixels"),
        ({"canvases": torch.randn(2, 1, 6, 6)}, r"canvases must have .*\[0, 1\].*PixelClassifier"),
        ({"baselines": torch.randn(12, 1, 6, 6)}, r"baselines must have .*PixelClassifier\(model"),
        ({"canvases": torch.full((2, 1, 6, 6), torch.nan)}, "canvases has NaN or infinite pixels"),
        ({"baselines": torch.full((12, 1, 6, 6), torch.inf)}, "baselines has NaN or infinite"),
        ({"baselines": torch.rand(12, 6, 6)}, r"baselines must be \(N, C, H, W\)"),
        ({"baseline_labels": [0] * 12}, "no baselines are left for target 0: all 12 are labelled"),
        ({"baseline_labels": LABELS[:-1]}, r"has 12 images, .* shape \(12,\), got \(11,\)"),
        ({"solver": "adam"}, "solver must be one of swap, paper.*, or .*, got 'adam'"),
        ({"precision": "half"}, "`precision` must be one of auto, full, bfloat16, got 'half'"),
        ({"area": 0.01}, "0.01 of 6x6 = 36 pixels rounds to none or all"),
        ({"area": 1.5}, "1.5 of 6x6 = 36 pixels rounds to a number out of range"),
        ({"n_steps": 0}, "`n_steps` must be a whole number from 1, got 0"),
        ({"internal_batch_size": 0}, "`internal_batch_size` must be a whole number from 1"),
        ({"seed": -1}, "`seed` must be a whole number from 0 to .*, got -1"),
        ({"seed": 0.5}, r"`seed` must be a whole number from 0 to .*, got 0\.5"),
    ],
)
def test_value_errors(kwargs, text):
    with pytest.raises(ValueError, match=text):
        search(**kwargs)


class Stream(IterableDataset):
    def __iter__(self):
        return iter(random_images(12))


class Dicts(Dataset):
    def __len__(self):
        return 12

    def __getitem__(self, index):
        return {"pixels": random_images(12)[index], "label": LABELS[index]}


def bytes_of(images):
    return (images * 255).to(torch.uint8)


LABELS_0_TO_2 = torch.tensor(LABELS)


@pytest.mark.parametrize(
    ("kwargs", "text"),
    [
        ({"area": None}, "`area` must be a number, the share of pixels to keep, got None"),
        ({"target": None}, "target must be an int, .*got NoneType"),
        ({"target": 1.0}, "target must be an int, .*got float"),
        ({"target": True}, "target must be an int, .*got bool"),
        ({"target": [0, "cat"]}, "target must be an int, .*got list"),
        ({"target": torch.tensor([0.0, 1.0])}, r"target must be an int, .*got torch\.float32"),
        ({"target": torch.zeros(2, 1, dtype=torch.long)}, "target must be an int, a 0-d or 1-d"),
        ({"canvases": bytes_of(random_images(2))}, r"canvases must .*got torch\.uint8: divide by"),
        ({"canvases": random_images(2).numpy()}, "canvases must be a .* Tensor .*got ndarray"),
        ({"baselines": bytes_of(random_images(12))}, r"baselines .*torch\.uint8: divide by 255"),
        (
            {"baselines": TensorDataset(bytes_of(random_images(12)), LABELS_0_TO_2)},
            r"baselines must be a floating .*got torch\.uint8: divide by 255",
        ),
        ({"baselines": Stream()}, "baselines must be .*access by index .*got Stream"),
        ({"baselines": DataLoader(Stream())}, "baselines must be .*got Stream"),
        ({"baselines": 3}, "baselines must be .*got int"),
        ({"baselines": DataLoader(Dicts())}, r"got a dict with keys \['pixels', 'label'\]: map it"),
        ({"baseline_labels": LABELS_0_TO_2.float()}, r"must be integers, got torch\.float32"),
        ({"baseline_labels": ["cat"] * 12}, r"labels of baselines must be integers, got \['cat'"),
    ],
)
def test_type_errors(kwargs, text):
    with pytest.raises(TypeError, match=text):
        search(**kwargs)


def returns(change):
    net = linear_net()
    return lambda images: change(net(images))


@pytest.mark.parametrize(
    ("change", "error", "text"),
    [
        (lambda z: (z, z), TypeError, "got a tuple: say which part holds the logits"),
        (lambda z: z[:, :1], ValueError, r"returns one column, .*torch\.cat"),
        (lambda z: z[:, None], ValueError, r"must return logits \(1, K\) .* \(1, 1, 3\)"),
        (lambda z: z[0], ValueError, r"must return logits \(1, K\) for 1 images, got shape \(3,\)"),
        (lambda z: z * torch.nan, ValueError, "the model's logits are NaN or infinite: check its"),
    ],
)
def test_models_that_return_no_logits(change, error, text):
    with pytest.raises(error, match=text):
        search(returns(change))


@pytest.mark.parametrize(("call", "step"), [(5, 3), (20, 18)])
@both_solvers
def test_logits_that_become_nan_half_way(solver, call, step):
    """The swap solver's steps count those by the sign, of which there are 40 here."""
    calls = []

    def spoil(logits):
        calls.append(1)
        return logits * torch.nan if len(calls) == call else logits

    settings = {"precision": "full", "n_steps": {"paper": 24, "swap": 8}[solver]}
    with pytest.raises(ValueError, match=f"the loss is NaN or infinite at step {step}:"):
        search(returns(spoil), solver=solver, **settings)  # the first call checks the model
    assert len(calls) < call + 16  # it is seen before long


def test_logits_that_are_nan_for_the_last_swap_alone():
    calls = []

    def spoil(logits):
        calls.append(1)
        return logits * torch.nan if len(calls) == 1 + 40 + 8 * 4 else logits

    with pytest.raises(ValueError, match="the loss is NaN or infinite at step 47:"):
        search(returns(spoil), precision="full", n_steps=8)


@pytest.mark.parametrize("solver", ["swap", "paper"])
def test_the_logarithm_of_probabilities_is_used(solver):
    """A model that ends in a softmax gives the masks of its logits."""
    with pytest.warns(Notice, match="look like probabilities: the search takes their log") as w:
        found = search(returns(lambda logits: logits.softmax(1)), solver=solver)
    assert [warning.filename for warning in w] == [__file__]
    expected = search(returns(lambda logits: logits), solver=solver)
    torch.testing.assert_close(found.losses, expected.losses, atol=1e-5, rtol=1e-5)
    assert torch.equal(found.masks > 0, expected.masks > 0)


def test_there_is_one_notice_per_model():
    net = returns(lambda logits: logits.softmax(1))
    with pytest.warns(Notice):
        search(net)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        search(net)


def test_canvases_are_chosen_by_the_logarithm_of_probabilities():
    net = returns(lambda logits: 30 * logits)  # the softmax is 1 for many images
    soft = returns(lambda logits: (30 * logits).double().softmax(1))
    images, labels = random_images(30, seed=3), torch.arange(30) % 3
    with pytest.warns(Notice):
        found = select_canvases(soft, images, labels, 1)
    assert torch.equal(found, select_canvases(net, images, labels, 1))


def test_a_wrapped_tuple_is_a_classifier():
    class Pair(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = linear_net()

        def forward(self, images):
            return images, self.net(images)

    wrapped = search(PixelClassifier(Pair().eval(), output=1))
    assert torch.equal(wrapped.masks, search().masks)


@both_solvers
def test_a_model_without_gradients_is_named(solver):
    with pytest.raises(ValueError, match="logits carry no gradient"):
        search(returns(lambda logits: logits.detach()), solver=solver)
