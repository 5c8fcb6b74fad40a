"""Captum's contract, tried with Captum's own consumers."""

import inspect
import random

import numpy as np
import pytest
import torch
from captum.attr import Attribution, NoiseTunnel
from captum.metrics import sensitivity_max
from captum.robust import AttackComparator
from refusals import refusals
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from captum_classpattern import ClassPattern
from captum_classpattern.optimization import PaperLoop

LABELS = torch.arange(15) % 3
# enough for masks that are not trivial; the model is called itself, and no copy of it
LOOP = PaperLoop(alpha=0.9, step_size=0.1)
FAST = {"n_steps": 5, "area": 0.25, "precision": "full"}
START, ROUND = 25, 4  # calls of the model: all steps of the start, and each round
CHECKS = 4  # calls before the search
CHECKPOINT = CHECKS + START + 3 * ROUND  # calls before any mask is scored
PAPER = {**FAST, "solver": LOOP}
both_solvers = pytest.mark.parametrize("fast", [FAST, PAPER], ids=["swap", "paper"])
TRAIN_MODE = "the model is in train mode"


def make_net(channels=3, dtype=torch.float32):
    with torch.random.fork_rng():
        torch.manual_seed(1)
        net = nn.Sequential(
            nn.Conv2d(channels, 4, 3, padding=1),
            nn.BatchNorm2d(4),
            nn.Tanh(),
            nn.Dropout(0.5),
            nn.Flatten(),
            nn.Linear(256, 3),
        )
        net[1].running_mean.normal_(std=0.3)
        net[1].running_var.uniform_(0.5, 2)
    net.eval()
    with torch.no_grad():  # all classes are said, and pixels matter
        net[5].weight.mul_(4)
        net[5].bias.sub_(net(random_images(64, channels, seed=9)).mean(0))
    return net.to(dtype)


def random_images(n, channels=3, seed=0, dtype=torch.float32):
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(n, channels, 8, 8, generator=generator, dtype=torch.float64).to(dtype)


NET = make_net()
SOME, BASELINES = random_images(3, seed=5), random_images(15, seed=6)
EXPLAINER = ClassPattern(NET, BASELINES, LABELS)
attribute, search = EXPLAINER.attribute, EXPLAINER.search


@pytest.fixture(autouse=True)
def _every_warning():
    """Torch gives some warnings once a process: here each test gets them."""
    before = torch.is_warn_always_enabled()
    torch.set_warn_always(True)
    yield
    torch.set_warn_always(before)


def fresh():
    """A model, images and baselines that a test may change."""
    return make_net(), SOME.clone(), BASELINES.clone()


def masks_of(patterns):
    return torch.stack([pattern.mask for pattern in patterns])


def masks_alone(explainer, images, targets, **settings):
    """The mask of each image from a search of its own, for all channels."""
    found = [
        explainer.search(image[None], target, **{**FAST, **settings})
        for image, target in zip(images, map(int, targets))
    ]
    return masks_of([pattern for [pattern] in found]).expand(-1, 3, -1, -1)


# ---- the class and its arguments


def test_names_are_captums():
    assert isinstance(EXPLAINER, Attribution)
    assert EXPLAINER.forward_func is NET
    assert EXPLAINER.get_name() == "Class Pattern"
    assert not EXPLAINER.has_convergence_delta()
    constructor = list(inspect.signature(ClassPattern).parameters)
    assert constructor[:3] == ["forward_func", "baselines", "baseline_labels"]
    assert "multiply_by_inputs" in constructor
    names = list(inspect.signature(ClassPattern.attribute).parameters)
    assert names[1:4] == ["inputs", "target", "additional_forward_args"]
    assert {"n_steps", "internal_batch_size", "show_progress"} <= set(names)


class Adjustable(nn.Module):
    """A net with a brightness for each image and one temperature for all."""

    def __init__(self, net):
        super().__init__()
        self.net, self.training = net, net.training

    def forward(self, images, brightness, temperature=1.0):
        assert brightness.shape in ((len(images),), ())
        return self.net(images * brightness.view(-1, 1, 1, 1)) / temperature


def made_inside(tensor):
    with torch.inference_mode():
        return tensor.clone()


def adjusted(*arguments):
    explainer = ClassPattern(Adjustable(NET), BASELINES, LABELS)
    return explainer.attribute(SOME, [2, 0, 1], *arguments, **FAST)


def smoothed(explainer=EXPLAINER, images=SOME, **settings):
    settings = {"nt_samples": 2, "stdevs": 1e-9, "target": [2, 0, 1], **FAST, **settings}
    return NoiseTunnel(explainer).attribute(images, **settings)


SAME = {
    "a tuple": lambda: attribute((SOME,), [2, 0, 1], **FAST)[0],
    "a Tensor of targets": lambda: attribute(SOME, torch.tensor([2, 0, 1]), **FAST),
    "int32": lambda: attribute(SOME, torch.tensor([2, 0, 1], dtype=torch.int32), **FAST),
    "undecorated": lambda: ClassPattern.attribute.__wrapped__(EXPLAINER, SOME, [2, 0, 1], **FAST),
    "float64": lambda: attribute(SOME.double(), [2, 0, 1], **FAST).float(),
    "made in inference mode": lambda: ClassPattern(NET, made_inside(BASELINES), LABELS).attribute(
        made_inside(SOME), [2, 0, 1], **FAST
    ),
    "an argument for each": lambda: adjusted(torch.ones(3)),
    "an argument for all": lambda: adjusted(torch.tensor(1.0)),
    "two arguments": lambda: adjusted((torch.ones(3), 1.0)),
    "an argument made in inference mode": lambda: adjusted(made_inside(torch.ones(3))),
    "NoiseTunnel in parts": lambda: smoothed(nt_samples=3, nt_samples_batch_size=2),
    "NoiseTunnel with a tuple": lambda: smoothed(images=(SOME,))[0],
    "NoiseTunnel with arguments": lambda: smoothed(
        ClassPattern(Adjustable(NET), BASELINES, LABELS),
        additional_forward_args=(torch.ones(3), 1.0),
    ),
}


@pytest.mark.parametrize("case", SAME)
def test_the_same_result_in_whatever_form(case):
    expected = attribute(SOME, [2, 0, 1], **FAST)
    result = SAME[case]()
    assert isinstance(result, torch.Tensor)
    torch.testing.assert_close(result, expected, rtol=0, atol=0 if "Noise" not in case else 1e-6)


@pytest.mark.parametrize("target", [2, torch.tensor(2), torch.tensor([2])], ids=str)
def test_one_target_for_all(target):
    result = attribute(SOME, target, **FAST)
    assert torch.equal(result, attribute(SOME, [2, 2, 2], **FAST))
    assert not torch.equal(result, attribute(SOME, [1, 1, 1], **FAST))


@pytest.mark.parametrize(("channels", "n"), [(1, 1), (3, 3)])
@both_solvers
def test_attribute_gives_the_masks_of_search_for_all_channels(channels, n, fast):
    baselines, images = random_images(15, channels, 6), random_images(n, channels, 5)
    explainer, targets = ClassPattern(make_net(channels), baselines, LABELS), [2, 0, 1][:n]
    result = explainer.attribute(images, targets, seed=7, **fast)
    assert result.is_contiguous()
    assert not result.requires_grad
    masks = masks_of(explainer.search(images, targets, seed=7, **fast))
    assert masks.unique().numel() > 3
    assert torch.equal(result, masks.expand_as(images))
    assert not torch.equal(result, explainer.attribute(images, targets, seed=8, **fast))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16])
def test_the_result_has_the_dtype_of_the_inputs(dtype):
    images = SOME.to(dtype)
    result = attribute(images, target=1, **FAST)
    assert result.dtype == dtype
    assert torch.equal(result, attribute(images.float(), target=1, **FAST).to(dtype))


def test_inputs_are_multiplied_with_and_their_excursions_clamped_for_the_search():
    product = ClassPattern(NET, BASELINES, LABELS, multiply_by_inputs=True)
    assert product.multiplies_by_inputs
    assert not EXPLAINER.multiplies_by_inputs
    outside = SOME * 1.5 - 0.25
    assert outside.min() < -0.2
    assert outside.max() > 1.2
    masks = attribute(outside.clamp(0, 1), target=1, **FAST)
    assert torch.equal(product.attribute(outside, target=1, **FAST), masks * outside)


def test_labels_are_predicted_in_batches_of_the_internal_size():
    sizes = []

    def recorded(images):
        sizes.append(len(images))
        return NET(images)

    ClassPattern(recorded, BASELINES).attribute(SOME, 1, internal_batch_size=5, **FAST)
    assert max(sizes) == 5


def test_progress_is_drawn_only_when_asked_for(terminal):
    attribute(SOME, target=1, **FAST)
    assert terminal.readouterr() == ("", "")
    attribute(SOME, target=1, show_progress=True, **FAST)
    assert "\rsearch: 100%|" in terminal.readouterr().err


def test_a_repeated_canvas_and_target_is_searched_once():
    seen = []

    def recorded(images):
        seen.append(len(images))
        return NET(images)

    explainer, (a, b, _) = ClassPattern(recorded, BASELINES, LABELS), SOME
    expected = explainer.attribute(torch.stack([a, b, a]), [1, 1, 2], **FAST)
    once = sum(seen)
    result = explainer.attribute(torch.stack([b, a, a, b, a]), [1, 1, 2, 1, 1], **FAST)
    assert sum(seen) == 2 * once
    torch.testing.assert_close(result, expected[[1, 0, 2, 1, 0]])
    torch.testing.assert_close(result[:3], masks_alone(EXPLAINER, [b, a, a], [1, 1, 2]))
    assert not torch.equal(result[1], result[2])


# ---- NoiseTunnel


@pytest.mark.parametrize(
    ("nt_type", "target", "of_masks"),
    [
        ("smoothgrad", [2, 0, 1], lambda masks: masks.mean(1)),
        ("smoothgrad_sq", torch.tensor([2, 0, 1]), lambda masks: masks.square().mean(1)),
        ("vargrad", 1, lambda masks: masks.var(1, correction=0)),
    ],
)
def test_noise_tunnel(nt_type, target, of_masks):
    torch.manual_seed(3)
    noise = torch.normal(0, torch.full((6, 3, 8, 8), 0.05))  # as NoiseTunnel draws it
    noisy = SOME.repeat_interleave(2, 0) + noise
    assert noisy.min() < 0
    assert noisy.max() > 1
    targets = torch.as_tensor(target).expand(3).repeat_interleave(2)
    expected = of_masks(masks_alone(EXPLAINER, noisy.clamp(0, 1), targets).unflatten(0, (3, 2)))
    assert expected.abs().max() > 0.001
    torch.manual_seed(3)
    result = smoothed(nt_type=nt_type, stdevs=0.05, target=target)
    torch.testing.assert_close(result, expected, atol=1e-6, rtol=0)


# ---- captum.metrics and captum.robust


def test_sensitivity_max():
    before, after = (attribute(images, [2, 0, 1], **FAST) for images in (SOME, SOME.flip(-1)))
    expected = (after - before).flatten(1).norm(dim=1) / before.flatten(1).norm(dim=1)
    assert expected.min() > 0.01
    for change, sensitivity in ((lambda x: x.flip(-1), expected), (lambda x: x, 0 * expected)):
        settings = {"target": [2, 0, 1], "n_perturb_samples": 2, **FAST}
        result = sensitivity_max(attribute, SOME, change, **settings)
        torch.testing.assert_close(result, sensitivity)


def test_a_pattern_in_attack_comparator():
    [pattern] = search(SOME[:1], target=1, **FAST)
    others, mask = random_images(30, seed=8), pattern.mask

    def share_of_class_1(logits):
        return (logits.argmax(1) == 1).float().mean()

    comparator = AttackComparator(NET, share_of_class_1)
    comparator.add_attack(pattern)
    comparator.add_attack(pattern.topk(0.5), "strong")
    comparator.add_attack(pattern, "weak", attack_kwargs={"strength": 0.1})
    result = comparator.evaluate(others)
    for name, m in {"Pattern": mask, "strong": pattern.topk(0.5).mask, "weak": 0.1 * mask}.items():
        assert result[name]["mean"] == share_of_class_1(NET(m * SOME[0] + (1 - m) * others))
    assert result["Pattern"]["mean"] > result["Original"] == share_of_class_1(NET(others))


# ---- the caller's circumstances


@pytest.mark.parametrize(
    ("mode", "created_inside", "fast"),
    [
        (torch.no_grad, True, PAPER),
        (torch.inference_mode, False, PAPER),
        (torch.inference_mode, True, FAST),
    ],
)
def test_gradients_switched_off_around_the_call(mode, created_inside, fast):
    net, images, baselines = fresh()
    plain = ClassPattern(net, baselines, LABELS, multiply_by_inputs=True)
    expected = plain.attribute(images, [2, 0, 1], **fast)
    [expected_pattern] = plain.search(images[:1], 1, **fast)
    with mode():
        if created_inside:
            images, baselines = images.clone(), baselines.clone()
        explainer = ClassPattern(net, baselines, LABELS.clone(), multiply_by_inputs=True)
        result = explainer.attribute(images, [2, 0, 1], **fast)
        [pattern] = explainer.search(images[:1], 1, **fast)
        assert not torch.is_grad_enabled()
        assert torch.is_inference_mode_enabled() == (mode is torch.inference_mode)
    assert torch.equal(result, expected)
    assert torch.equal(pattern.mask, expected_pattern.mask)
    assert pattern.info["search_power"] == expected_pattern.info["search_power"]
    for tensor in (result, pattern.mask, pattern.canvas):
        assert not tensor.is_inference()
        assert not tensor.requires_grad


@pytest.mark.parametrize(("call", "training"), [("search", range(6)), ("attribute", [1, 4])])
def test_a_model_in_train_mode(call, training):
    net = make_net()
    expected = getattr(EXPLAINER, call)(SOME, target=1, **FAST)
    net.training = len(training) == 6
    for i in training:
        net[i].training = True
    modes = [part.training for part in net.modules()]
    explainer = ClassPattern(net, BASELINES, LABELS)
    with pytest.warns(UserWarning, match=TRAIN_MODE) as warnings:
        result = getattr(explainer, call)(SOME, target=1, **FAST)
    assert [part.training for part in net.modules()] == modes
    files = [each.filename for each in warnings if TRAIN_MODE in str(each.message)]
    assert files == [__file__]
    if call == "search":
        result, expected = masks_of(result), masks_of(expected)
    assert torch.equal(result, expected)


# ---- the caller is left untouched


def contents(tensor):
    return tensor.detach().double().numpy().tobytes()


def state_of_tensor(tensor):
    grad = None if tensor.grad is None else (id(tensor.grad), contents(tensor.grad))
    return id(tensor), tensor._version, contents(tensor), tensor.requires_grad, grad


def state_of_caller(net, *tensors):
    """All that a call might disturb, in a form that == compares."""
    name, keys, *rest = np.random.get_state()
    return {
        "parameters": {n: state_of_tensor(p) for n, p in net.named_parameters()},
        "buffers": {n: state_of_tensor(b) for n, b in net.named_buffers()},
        "modes": {n: m.training for n, m in net.named_modules()},
        "hooks": {
            n: [list(m._forward_hooks), list(m._forward_pre_hooks), list(m._backward_hooks)]
            for n, m in net.named_modules()
        },
        "tensors": [state_of_tensor(tensor) for tensor in tensors],
        "torch": contents(torch.get_rng_state()),
        "numpy": (name, keys.tobytes(), *rest),
        "python": random.getstate(),
        "switches": (torch.is_grad_enabled(), torch.is_inference_mode_enabled()),
    }


def lived_in(net):
    """Gives a model what a user's has: gradients, a frozen parameter, hooks, mixed modes."""
    for parameter in net.parameters():
        parameter.grad = torch.full_like(parameter, 0.5)
    net[0].bias.requires_grad_(False)
    net[5].bias.grad = None
    net[1].training = True
    net[3].training = True
    calls = []
    net[0].register_forward_hook(lambda *_: calls.append("forward"))
    net[5].register_full_backward_hook(lambda *_: None)
    return calls


def lived_in_inputs(images):
    images.requires_grad_()
    images.grad = torch.full_like(images, 2.0)
    return images


class Drawing(TensorDataset):
    """Images that draw from all three global random states when fetched."""

    def __getitem__(self, i):
        _ = torch.rand(1), np.random.rand(), random.random()
        return super().__getitem__(i)


def as_source(kind, baselines):
    if kind == "tensors":
        return baselines, LABELS
    generator = torch.Generator().manual_seed(4) if kind == "own generator" else None
    data = Drawing(baselines, LABELS)
    return DataLoader(data, batch_size=4, shuffle=True, num_workers=0, generator=generator), None


@pytest.mark.filterwarnings(f"ignore:{TRAIN_MODE}")
@pytest.mark.parametrize(("call", "fast"), [("attribute", FAST), ("search", PAPER)])
@pytest.mark.parametrize("kind", ["tensors", "shuffled loader", "own generator"])
def test_a_call_changes_nothing(call, kind, fast):
    net, images, baselines = fresh()
    hook_calls, images = lived_in(net), lived_in_inputs(images)
    source, labels = as_source(kind, baselines)
    generator = getattr(source, "generator", None) or torch.Generator()
    before = state_of_caller(net, images, baselines, LABELS), contents(generator.get_state())
    explainer = ClassPattern(net, source, labels)
    result = getattr(explainer, call)(images, target=[2, 0, 1], **fast)
    after = state_of_caller(net, images, baselines, LABELS), contents(generator.get_state())
    assert after == before
    assert len(hook_calls) >= FAST["n_steps"]  # the user's hooks ran: they were not taken off
    masks = result[:, :1] if call == "attribute" else masks_of(result)
    expected = masks_alone(EXPLAINER, images.detach(), [2, 0, 1], **fast)
    torch.testing.assert_close(masks, expected[:, :1])
    assert not masks.requires_grad


class Failing(nn.Module):
    """Goes wrong from its k-th call on."""

    def __init__(self, net, k, how):
        super().__init__()
        self.net, self.k, self.how, self.calls = net, k, how, 0
        self.training = net.training

    def forward(self, images):
        self.calls += 1
        if self.calls < self.k:
            return self.net(images)
        if self.how == "nan":
            return self.net(images) * float("nan")
        raise {"error": RuntimeError, "interrupt": KeyboardInterrupt}[self.how]("the k-th call")


@pytest.mark.filterwarnings(f"ignore:{TRAIN_MODE}")
@pytest.mark.parametrize(
    ("call", "kind", "k", "how"),
    [
        ("attribute", "tensors", CHECKS + 1, "error"),
        ("attribute", "tensors", CHECKS + START + 5 * ROUND, "nan"),  # the last swap
        ("search", "shuffled loader", 4, "interrupt"),
        ("search", "shuffled loader", CHECKPOINT, "nan"),  # the last swap before validation
        ("search", "shuffled loader", CHECKPOINT + 1, "error"),  # while scoring
    ],
)
def test_a_call_that_fails_half_way_changes_nothing(call, kind, k, how):
    net, images, baselines = fresh()
    lived_in(net)
    images = lived_in_inputs(images)
    failing = Failing(net, k, how)
    before = state_of_caller(failing, images, baselines)
    explainer = ClassPattern(failing, *as_source(kind, baselines))
    error, message = {
        "error": (RuntimeError, "the k-th call"),
        "interrupt": (KeyboardInterrupt, "the k-th call"),
        "nan": (ValueError, "NaN"),
    }[how]
    with pytest.raises(error, match=message):
        getattr(explainer, call)(images, target=1, **FAST)
    slow = how == "nan" and CHECKS < k < CHECKPOINT  # losses are not looked at after each step
    assert k < failing.calls <= k + 16 if slow else failing.calls == k
    assert state_of_caller(failing, images, baselines) == before

    failing.k = 10**6  # fixed, it works as if nothing had happened
    result = explainer.attribute(images, target=1, **FAST)
    assert torch.equal(result, attribute(images.detach(), target=1, **FAST))


# ---- additional_forward_args


BRIGHTNESS = torch.tensor([0.1, 1.0, 2.0])


def test_additional_arguments_for_each_image_and_for_all():
    explainer, targets = ClassPattern(Adjustable(NET), BASELINES, LABELS), [2, 0, 1]
    result = explainer.attribute(SOME, targets, (BRIGHTNESS, 0.5), **FAST)
    given = {"additional_forward_args": (BRIGHTNESS, 0.5), **FAST}
    patterns = explainer.search(SOME, targets, **given)
    without = attribute(SOME, targets, **FAST)
    for i, brightness in enumerate(BRIGHTNESS.tolist()):
        own = ClassPattern(lambda x, b=brightness: NET(x * b) / 0.5, BASELINES, LABELS)
        [alone] = own.search(SOME[i : i + 1], targets[i], **FAST)
        torch.testing.assert_close(result[i, :1], alone.mask)
        torch.testing.assert_close(patterns[i].mask, alone.mask)
        assert patterns[i].info["search_power"] == alone.info["search_power"]
        assert not torch.equal(result[i], without[i])


# ---- what is refused


def with_pixel(value):
    images = SOME.clone()
    images[0, 0, 0, 0] = value
    return images


REFUSALS = {
    "two inputs": lambda: attribute((SOME, SOME), 1),
    "target True": lambda: attribute(SOME, True),
    "target None": lambda: attribute(SOME, None),
    "targets with True": lambda: attribute(SOME, [0, True, 2]),
    "target by name": lambda: attribute(SOME, "1"),
    "target 3 of 3": lambda: attribute(SOME, 3),
    "target -1": lambda: attribute(SOME, -1),
    "too few targets": lambda: attribute(SOME, [0, 1]),
    "inputs below -0.25": lambda: attribute(with_pixel(-0.26), 1),
    "inputs above 1.25": lambda: attribute(with_pixel(1.26), 1),
    "canvases above 1": lambda: search(with_pixel(1.01), 1),
    "canvases of NumPy": lambda: search(SOME.numpy(), 1),
    "baselines above 1": lambda: ClassPattern(make_net(), with_pixel(1.01)),
    "search, area []": lambda: search(SOME, 1, area=[]),
    "attribute, area [0.1]": lambda: attribute(SOME, 1, area=[0.1]),
    "no baselines": lambda: ClassPattern(NET),
    "a convergence delta": lambda: attribute(SOME, 1, return_convergence_delta=True),
    "baselines of attribute": lambda: attribute(SOME, 1, baselines=SOME),
    "keep of attribute": lambda: attribute(SOME, 1, keep=1),
    "a misspelled argument of search": lambda: search(SOME, 1, n_step=1),
    "attribute_future": lambda: EXPLAINER.attribute_future(SOME, 0),
}


def test_refusals(snapshot):
    assert refusals(REFUSALS) == snapshot
