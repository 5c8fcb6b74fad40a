"""Captum's contract, tried with Captum's own consumers."""

import inspect
import random
from typing import get_type_hints

import numpy as np
import pytest
import torch
from captum.attr import Attribution, NoiseTunnel
from captum.attr import visualization as viz
from captum.metrics import infidelity, sensitivity_max
from captum.robust import FGSM, PGD, AttackComparator, MinParamPerturbation, Perturbation
from matplotlib.backends.backend_agg import FigureCanvasAgg
from torch import nn
from torch.utils.data import DataLoader, Dataset, TensorDataset

from captum_classpattern import ClassPattern, Pattern, search_masks
from captum_classpattern.optimization import PaperLoop

LABELS = torch.arange(15) % 3
# enough for masks that are not trivial; the model is called itself, and no copy of it
LOOP = PaperLoop(alpha=0.9, step_size=0.1)
FAST = {"n_steps": 5, "area": 0.25, "precision": "full"}
START, ROUND = 25, 4  # calls of the model: all steps of the start, and each round
CHECKPOINT = 1 + START + 3 * ROUND  # calls before any mask is judged; the first call is a check
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


@pytest.fixture(autouse=True)
def _every_warning():
    """Torch gives some warnings once a process: here each test gets them."""
    before = torch.is_warn_always_enabled()
    torch.set_warn_always(True)
    yield
    torch.set_warn_always(before)


@pytest.fixture
def net():
    return make_net()


@pytest.fixture
def images():
    return random_images(3, seed=5)


@pytest.fixture
def baselines():
    return random_images(15, seed=6)


@pytest.fixture
def explainer(net, baselines):
    return ClassPattern(net, baselines, LABELS)


def masks_alone(explainer, images, targets, arguments=None, **settings):
    """The mask of each image from a search of its own, (N, 1, H, W)."""
    settings = {**FAST, **settings}
    rows = [None] * len(images) if arguments is None else arguments
    return torch.stack(
        [
            explainer.search(image[None], int(target), additional_forward_args=row, **settings)[
                0
            ].mask
            for image, target, row in zip(images, targets, rows)
        ]
    )


class Recorder(nn.Module):
    """Notes what reaches the net inside it."""

    def __init__(self, net):
        super().__init__()
        self.net, self.sizes, self.dtypes = net, [], set()
        self.training = net.training

    def forward(self, images):
        self.sizes.append(len(images))
        self.dtypes.add(images.dtype)
        return self.net(images)


# ---- the class and its arguments


def test_it_is_an_attribution_of_captums(net, baselines):
    explainer = ClassPattern(net, baselines, LABELS)
    assert isinstance(explainer, Attribution)
    assert "attribute" in vars(ClassPattern)  # Captum's own is a bare annotation
    assert explainer.forward_func is net
    assert explainer.get_name() == "Class Pattern"
    assert not explainer.has_convergence_delta()


def test_names_are_captums():
    constructor = list(inspect.signature(ClassPattern).parameters)
    assert constructor[:2] == ["forward_func", "baselines"]
    assert "multiply_by_inputs" in constructor
    attribute = list(inspect.signature(ClassPattern.attribute).parameters)
    assert attribute[1:4] == ["inputs", "target", "additional_forward_args"]
    assert {"n_steps", "internal_batch_size", "show_progress"} <= set(attribute)


def test_noise_tunnel_finds_the_undecorated_attribute(explainer, images):
    undecorated = ClassPattern.attribute.__wrapped__
    assert undecorated is not ClassPattern.attribute
    expected = explainer.attribute(images, 1, **FAST)
    assert torch.equal(undecorated(explainer, images, 1, **FAST), expected)


def test_tensor_for_tensor_and_tuple_for_tuple(explainer, images):
    result = explainer.attribute(images, target=1, **FAST)
    assert isinstance(result, torch.Tensor)
    in_tuple = explainer.attribute((images,), target=1, **FAST)
    assert type(in_tuple) is tuple
    assert len(in_tuple) == 1
    assert torch.equal(in_tuple[0], result)


def test_two_inputs_are_refused(explainer, images):
    with pytest.raises(ValueError, match="a tuple of one, got a tuple of 2"):
        explainer.attribute((images, images), target=1, **FAST)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("n", [1, 3])
@both_solvers
def test_the_result_is_the_mask_for_all_channels(channels, n, fast):
    baselines, images = random_images(15, channels, 6), random_images(n, channels, 5)
    explainer = ClassPattern(make_net(channels), baselines, LABELS)
    result = explainer.attribute(images, target=2, **fast)
    assert result.shape == images.shape
    assert result.is_contiguous()
    assert not result.requires_grad
    patterns = explainer.search(images, target=2, **fast)
    masks = torch.stack([pattern.mask for pattern in patterns])
    assert masks.unique().numel() > 3
    assert torch.equal(result, masks.expand_as(images))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16, torch.bfloat16])
def test_the_result_has_the_dtype_of_the_inputs(explainer, images, dtype):
    images = images.to(dtype)
    result = explainer.attribute(images, target=1, **FAST)
    assert result.dtype == dtype
    expected = explainer.attribute(images.float(), target=1, **FAST)
    assert torch.equal(result, expected.to(dtype))


@pytest.mark.parametrize("seed", [0, 7])
@both_solvers
def test_attribute_gives_the_masks_of_search(explainer, images, seed, fast):
    result = explainer.attribute(images, [0, 1, 2], seed=seed, **fast)
    patterns = explainer.search(images, [0, 1, 2], seed=seed, **fast)
    assert torch.equal(result[:, :1], torch.stack([pattern.mask for pattern in patterns]))
    other = explainer.attribute(images, [0, 1, 2], seed=seed + 1, **fast)
    assert not torch.equal(result, other)


@pytest.mark.parametrize("solver", ["swap", "paper"])
def test_attribute_gives_the_masks_of_search_within_a_budget(explainer, images, solver):
    """Also on a blank canvas, of whose two starts the judging images choose one."""
    images[1] = 1.0
    settings = {"area": 0.25, "solver": solver, "budget": 1_500, "precision": "full"}
    result = explainer.attribute(images, [0, 1, 2], **settings)
    patterns = explainer.search(images, [0, 1, 2], **settings)
    assert torch.equal(result[:, :1], torch.stack([pattern.mask for pattern in patterns]))
    assert ["starts_iou" in pattern.info for pattern in patterns] == [False, True, False]


def test_multiply_by_inputs(net, baselines, images, explainer):
    product = ClassPattern(net, baselines, LABELS, multiply_by_inputs=True)
    assert product.multiplies_by_inputs
    assert not explainer.multiplies_by_inputs
    expected = explainer.attribute(images, target=1, **FAST) * images
    assert torch.equal(product.attribute(images, target=1, **FAST), expected)


@pytest.mark.parametrize(("fast", "largest"), [(FAST, 24), (PAPER, 12)], ids=["swap", "paper"])
def test_internal_batch_size_bounds_the_forward_pass_and_changes_nothing(
    net, baselines, images, fast, largest
):
    """3 canvases on 4 images each; or on the 8 that are not of class 1, of the 12 fitted to."""
    recorder = Recorder(net)
    explainer = ClassPattern(recorder, baselines, LABELS)
    expected = explainer.attribute(images, target=1, **fast)
    assert max(recorder.sizes) == largest
    recorder.sizes.clear()
    result = explainer.attribute(images, target=1, internal_batch_size=5, **fast)
    assert max(recorder.sizes) == 5
    torch.testing.assert_close(result, expected)


@pytest.mark.parametrize(("fast", "end"), [(FAST, "30/30"), (PAPER, "5/5")], ids=["swap", "paper"])
def test_progress_is_drawn_only_when_asked_for(explainer, images, capsys, fast, end):
    explainer.attribute(images, target=1, **fast)
    assert capsys.readouterr() == ("", "")
    explainer.attribute(images, target=1, show_progress=True, **fast)
    assert f" {end} " in capsys.readouterr().err


# ---- targets


@pytest.mark.parametrize(
    "target",
    [
        2,
        torch.tensor(2),
        torch.tensor([2]),
        torch.tensor([2, 2, 2]),
        torch.tensor([2, 2, 2], dtype=torch.int32),
        [2, 2, 2],
    ],
    ids=str,
)
def test_target_types_of_captum(explainer, images, target):
    result = explainer.attribute(images, target, **FAST)
    assert torch.equal(result, explainer.attribute(images, 2, **FAST))
    assert not torch.equal(result, explainer.attribute(images, 1, **FAST))


@pytest.mark.parametrize(
    ("target", "kind"),
    [
        (True, "bool"),
        (1.0, "float"),
        ((1,), "tuple"),
        ((0, 1, 2), "tuple"),
        (None, "NoneType"),
        (torch.tensor(True), r"torch\.bool"),
        (torch.tensor([True, False, True]), r"torch\.bool"),
        (torch.tensor(1.0), r"torch\.float32"),
        (torch.tensor([0.0, 1.0, 2.0]), r"torch\.float32"),
        (torch.tensor([[0, 1, 2]]), r"torch\.int64"),
        ([0, True, 2], "list"),
        ([0, 1.0, 2], "list"),
        ("1", "str"),
    ],
    ids=str,
)
@pytest.mark.parametrize("call", ["attribute", "search"])
def test_other_targets_are_refused(explainer, images, call, target, kind):
    message = (
        r"^target must be an int, a 0-d or 1-d integer Tensor, or a list of ints \(the class, "
        rf"or one for each image\), got {kind}: "
    )
    with pytest.raises(TypeError, match=message):
        getattr(explainer, call)(images, target, **FAST)


def test_no_target_is_an_error(explainer, images):
    with pytest.raises(TypeError, match=r"target must be an int.* got NoneType: None"):
        explainer.attribute(images, **FAST)


@pytest.mark.parametrize(
    ("target", "message"),
    [
        (3, "target 3 is out of range: the model has 3 classes, so targets go from 0 to 2"),
        (-1, "target -1 is out of range: classes count from 0"),
        ([0, 1], "there are 3 images, but 2 targets"),
        (torch.tensor([0, 1, 2, 0]), "there are 3 images, but 4 targets"),
    ],
    ids=str,
)
def test_targets_that_do_not_fit_are_refused(explainer, images, target, message):
    with pytest.raises(ValueError, match=message):
        explainer.attribute(images, target, **FAST)


@pytest.mark.parametrize("as_target", [list, torch.tensor])
def test_mixed_targets_together_equal_each_alone(explainer, images, as_target):
    images = torch.cat([images, images[:1]])  # one image under two targets
    targets = [2, 0, 1, 0]
    result = explainer.attribute(images, as_target(targets), **FAST)
    expected = masks_alone(explainer, images, targets).expand_as(images)
    torch.testing.assert_close(result, expected)
    assert not torch.equal(result[0], result[3])


def test_a_repeated_canvas_and_target_is_searched_once(net, baselines, images):
    recorder = Recorder(net)
    explainer = ClassPattern(recorder, baselines, LABELS)
    a, b = images[0], images[1]
    expected = explainer.attribute(torch.stack([a, b, a]), [1, 1, 2], **FAST)
    images_seen = sum(recorder.sizes)
    recorder.sizes.clear()
    result = explainer.attribute(torch.stack([b, a, a, b, a]), [1, 1, 2, 1, 1], **FAST)
    assert sum(recorder.sizes) == images_seen
    torch.testing.assert_close(result, expected[[1, 0, 2, 1, 0]])
    assert not torch.equal(result[1], result[2])


# ---- pixels


def test_excursions_of_the_inputs_are_clamped(net, baselines, images):
    explainer = ClassPattern(net, baselines, LABELS, multiply_by_inputs=True)
    outside = images * 1.5 - 0.25
    assert outside.min() < -0.2
    assert outside.max() > 1.2
    mask = masks_alone(explainer, outside.clamp(0, 1), [1, 1, 1])
    result = explainer.attribute(outside, target=1, **FAST)
    torch.testing.assert_close(result, mask * outside)


@pytest.mark.parametrize("pixel", [-0.26, 1.26])
def test_normalised_inputs_are_refused(explainer, images, pixel):
    images[0, 0, 0, 0] = pixel
    with pytest.raises(ValueError, match=r"inputs must have pixels in \[0, 1\].*normalised images"):
        explainer.attribute(images, target=1, **FAST)


@pytest.mark.parametrize("pixel", [-0.01, 1.01])
def test_canvases_and_baselines_are_strict(net, baselines, images, explainer, pixel):
    images[0, 0, 0, 0] = baselines[0, 0, 0, 0] = pixel
    with pytest.raises(ValueError, match=r"canvases must have pixels in \[0, 1\]"):
        explainer.search(images, target=1, **FAST)
    with pytest.raises(ValueError, match=r"canvases must have pixels in \[0, 1\]"):
        search_masks(net, images, 1, random_images(5), baseline_labels=[0] * 5, **FAST)
    with pytest.raises(ValueError, match=r"baselines must have pixels in \[0, 1\]"):
        ClassPattern(net, baselines, LABELS)


# ---- NoiseTunnel


@pytest.mark.parametrize(
    "target", [1, [2, 0, 1], torch.tensor([2, 0, 1])], ids=["int", "list", "tensor"]
)
@pytest.mark.parametrize("nt_type", ["smoothgrad", "smoothgrad_sq", "vargrad"])
def test_noise_tunnel(explainer, images, nt_type, target):
    torch.manual_seed(3)
    noise = torch.normal(0, torch.full((6, 3, 8, 8), 0.05))  # as NoiseTunnel draws it
    noisy = images.repeat_interleave(2, 0) + noise
    assert noisy.min() < 0
    assert noisy.max() > 1
    targets = torch.as_tensor(target).expand(3).repeat_interleave(2)
    masks = masks_alone(explainer, noisy.clamp(0, 1), targets).expand_as(noisy)
    masks = masks.unflatten(0, (3, 2))
    mean, mean_of_squares = masks.mean(1), masks.square().mean(1)
    expected = {
        "smoothgrad": mean,
        "smoothgrad_sq": mean_of_squares,
        "vargrad": mean_of_squares - mean**2,
    }[nt_type]

    torch.manual_seed(3)
    result = NoiseTunnel(explainer).attribute(
        images, nt_type=nt_type, nt_samples=2, stdevs=0.05, target=target, **FAST
    )
    assert expected.abs().max() > 0.001
    torch.testing.assert_close(result, expected, atol=1e-6, rtol=0)


def test_noise_tunnel_in_parts_and_with_a_tuple(explainer, images):
    [result] = NoiseTunnel(explainer).attribute(
        (images,), nt_samples=3, nt_samples_batch_size=2, stdevs=1e-9, target=[2, 0, 1], **FAST
    )
    expected = explainer.attribute(images, [2, 0, 1], **FAST)
    torch.testing.assert_close(result, expected)


def test_noise_tunnels_default_noise_is_named_in_the_error(explainer, images):
    torch.manual_seed(0)
    with pytest.raises(ValueError, match=r"NoiseTunnel adds noise with stdevs=1\.0 by default"):
        NoiseTunnel(explainer).attribute(images, target=1, **FAST)


# ---- captum.metrics


def test_infidelity():
    double = torch.float64
    net, images = make_net(dtype=double), random_images(3, seed=5, dtype=double)
    explainer = ClassPattern(net, random_images(15, seed=6, dtype=double), LABELS)
    targets = [2, 0, 1]
    kept = torch.ones(2, 3, 8, 8, dtype=double)
    kept[0, :, :4], kept[1, :, :, :4] = 0, 0  # two perturbations: the upper half, the left half

    def perturb(inputs):
        perturbed = inputs * kept.repeat(len(inputs) // 2, 1, 1, 1)
        return inputs - perturbed, perturbed

    attributions = explainer.attribute(images, targets, **PAPER)
    result = infidelity(
        net, perturb, images, attributions, target=targets, n_perturb_samples=2, normalize=True
    )
    for i, target in enumerate(targets):
        change = images[i] * (1 - kept)
        predicted = (change * attributions[i]).sum((1, 2, 3))
        with torch.no_grad():
            happened = net(images[i : i + 1])[0, target] - net(images[i] - change)[:, target]
        beta = (predicted * happened).sum() / predicted.square().sum()
        expected = (beta * predicted - happened).square().mean()
        torch.testing.assert_close(result[i], expected)
    assert result.min() > 1e-4


def test_sensitivity_max(explainer, images):
    targets = [2, 0, 1]

    def mirror(inputs):
        return inputs.flip(-1)

    settings = {"target": targets, "n_perturb_samples": 2, **FAST}
    before = explainer.attribute(images, targets, **FAST)
    after = explainer.attribute(images.flip(-1), targets, **FAST)
    expected = (after - before).flatten(1).norm(dim=1) / before.flatten(1).norm(dim=1)
    result = sensitivity_max(explainer.attribute, images, mirror, **settings)
    torch.testing.assert_close(result, expected)
    assert result.min() > 0.01
    unchanged = sensitivity_max(explainer.attribute, images, lambda inputs: inputs, **settings)
    assert unchanged.tolist() == [0, 0, 0]


def test_sensitivity_max_with_its_own_noise(explainer, images):
    images[0, 0, 0] = 1.0  # so that the noise leaves [0, 1]
    torch.manual_seed(0)
    result = sensitivity_max(
        explainer.attribute, images, perturb_radius=0.2, n_perturb_samples=2, target=1, **FAST
    )
    assert result.shape == (3,)
    assert result.min() > 0


# ---- plots


def drawn(axis):
    return np.asarray(axis.images[-1].get_array())


def rescaled(values):
    """Captum's scale: the smallest value at which the sum of all up to it reaches 98 %."""
    ascending = np.sort(values, axis=None)
    sums = np.cumsum(ascending)
    return np.clip(values / ascending[np.argmax(sums >= 0.98 * sums[-1])], -1, 1)


@pytest.mark.parametrize("sign", ["positive", "absolute_value"])
@pytest.mark.parametrize("channels", [1, 3])
def test_visualize_image_attr(channels, sign):
    images = random_images(1, channels, 5)
    explainer = ClassPattern(make_net(channels), random_images(15, channels, 6), LABELS)
    attribution = explainer.attribute(images, target=1, **FAST)[0].permute(1, 2, 0).numpy()
    figure, axis = viz.visualize_image_attr(
        attribution, images[0].permute(1, 2, 0).numpy(), sign=sign, use_pyplot=False
    )
    FigureCanvasAgg(figure).draw()
    mask = attribution[..., 0].astype(np.float64)
    np.testing.assert_allclose(drawn(axis), rescaled(mask), atol=1e-5)
    assert np.unique(drawn(axis)).size > 3


def test_visualize_image_attr_multiple(explainer, images):
    attribution = explainer.attribute(images, target=1, **FAST)[0].permute(1, 2, 0).numpy()
    image = images[0].permute(1, 2, 0).numpy()
    figure, axes = viz.visualize_image_attr_multiple(
        attribution,
        image,
        methods=["original_image", "heat_map", "blended_heat_map", "masked_image"],
        signs=["all", "positive", "absolute_value", "positive"],
        use_pyplot=False,
    )
    FigureCanvasAgg(figure).draw()
    heat = rescaled(attribution[..., 0].astype(np.float64))
    np.testing.assert_allclose(drawn(axes[0]), image * 255, atol=1)
    np.testing.assert_allclose(drawn(axes[1]), heat, atol=1e-5)
    np.testing.assert_allclose(drawn(axes[2]), heat, atol=1e-5)
    np.testing.assert_allclose(drawn(axes[3]), image * heat[..., None] * 255, atol=2)


# ---- captum.robust


def attack(kind, net, images, labels):
    settings = {
        "loss_func": nn.CrossEntropyLoss(reduction="none"),
        "lower_bound": 0.0,
        "upper_bound": 1.0,
    }
    if kind == "FGSM":
        return FGSM(net, **settings).perturb(images, epsilon=0.1, target=labels)
    return PGD(net, **settings).perturb(
        images, radius=0.1, step_size=0.05, step_num=3, target=labels
    )


@pytest.mark.filterwarnings("ignore:Input Tensor 0 did not already require gradients")
@pytest.mark.parametrize("kind", ["FGSM", "PGD"])
def test_attacks_run_beside_it_on_the_same_model(net, explainer, images, kind):
    labels = torch.tensor([2, 0, 1])
    loss = nn.CrossEntropyLoss(reduction="none")
    expected_attack = attack(kind, make_net(), images, labels)
    expected_masks = explainer.attribute(images, labels, **FAST)

    attacked = attack(kind, net, images, labels)
    assert torch.equal(attacked, expected_attack)
    assert (loss(net(attacked), labels) > loss(net(images), labels)).all()
    assert torch.equal(explainer.attribute(images, labels, **FAST), expected_masks)
    result = explainer.attribute(attacked, labels, **FAST)
    torch.testing.assert_close(result, masks_alone(explainer, attacked, labels).expand_as(attacked))


def test_a_pattern_in_attack_comparator(net, explainer, images):
    [pattern] = explainer.search(images[:1], target=1, **FAST)
    assert isinstance(pattern, Perturbation)
    others = random_images(30, seed=8)

    def share_of_class_1(logits):
        return (logits.argmax(1) == 1).float().mean()

    comparator = AttackComparator(net, share_of_class_1)
    comparator.add_attack(pattern)
    comparator.add_attack(pattern.topk(0.5), "strong")
    comparator.add_attack(pattern, "weak", attack_kwargs={"strength": 0.1})
    comparator.add_attack(pattern, "none", attack_kwargs={"strength": 0.0})
    result = comparator.evaluate(others)

    mask, canvas = pattern.mask, images[0]
    half = pattern.topk(0.5).mask
    assert result["Original"] == share_of_class_1(net(others))
    assert result["none"]["mean"] == result["Original"]
    for name, m in {"Pattern": mask, "strong": half, "weak": 0.1 * mask}.items():
        assert result[name]["mean"] == share_of_class_1(net(m * canvas + (1 - m) * others))
    assert result["Pattern"]["mean"] > result["Original"]


@pytest.mark.parametrize("mode", ["linear", "binary"])
def test_a_pattern_in_min_param_perturbation(net, mode):
    images = random_images(30, seed=8)
    classes = net(images).argmax(1)
    image, label = images[:1], classes[:1]
    canvas = images[classes != label][0]
    pattern = Pattern(canvas, torch.linspace(0.5, 1, 64).view(1, 8, 8), target=0)
    search = MinParamPerturbation(
        net, pattern, "strength", arg_min=0.0, arg_max=1.0, arg_step=0.125, mode=mode
    )
    stamped, strength = search.evaluate(image, target=label)
    strengths = np.arange(0, 1, 0.125)
    wrong = [s for s in strengths if net(pattern.perturb(image, s)).argmax(1) != label]
    assert 0 < strength < 1
    assert strength == wrong[0]
    assert torch.equal(stamped, pattern.perturb(image, strength))


# ---- the caller's circumstances


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
@pytest.mark.parametrize("created_inside", [True, False])
@both_solvers
def test_gradients_switched_off_around_the_call(net, baselines, images, mode, created_inside, fast):
    plain = ClassPattern(net, baselines, LABELS, multiply_by_inputs=True)
    expected = plain.attribute(images, [2, 0, 1], **fast)
    expected_pattern = plain.search(images[:1], 1, **fast)[0]
    with mode():
        if created_inside:
            images, baselines = images.clone(), baselines.clone()
            assert images.is_inference() == (mode is torch.inference_mode)
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


def test_inputs_made_in_inference_mode_are_taken_outside_of_it(net, baselines, images):
    expected = ClassPattern(net, baselines, LABELS).attribute(images, 1, **FAST)
    with torch.inference_mode():
        images, baselines = images.clone(), baselines.clone()
    assert torch.equal(ClassPattern(net, baselines, LABELS).attribute(images, 1, **FAST), expected)


def test_data_parallel(net, explainer, images, baselines):
    device = "cuda" if torch.cuda.is_available() else "cpu"
    expected = explainer.attribute(images, [2, 0, 1], **FAST)
    parallel = nn.DataParallel(make_net().to(device).train())
    with pytest.warns(UserWarning, match=TRAIN_MODE):
        result = ClassPattern(parallel, baselines, LABELS).attribute(
            images.to(device), [2, 0, 1], **FAST
        )
    torch.testing.assert_close(result.cpu(), expected)
    assert parallel.training
    assert parallel.module[3].training


def test_channels_last():
    images = random_images(3, seed=5, dtype=torch.float64)
    baselines = random_images(15, seed=6, dtype=torch.float64)
    net = make_net(dtype=torch.float64)
    expected = ClassPattern(net, baselines, LABELS).attribute(images, [2, 0, 1], **FAST)
    last = torch.channels_last
    net = net.to(memory_format=last)
    images, baselines = images.to(memory_format=last), baselines.to(memory_format=last)
    explainer = ClassPattern(net, baselines, LABELS, multiply_by_inputs=False)
    result = explainer.attribute(images, [2, 0, 1], **FAST)
    assert result.is_contiguous()
    torch.testing.assert_close(result, expected)
    assert images.is_contiguous(memory_format=last)
    assert net[0].weight.is_contiguous(memory_format=last)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_the_model_is_run_in_its_own_precision(images, baselines, dtype):
    recorder = Recorder(make_net(dtype=dtype))
    explainer = ClassPattern(recorder, baselines)
    result = explainer.attribute(images, [2, 0, 1], **FAST)
    assert recorder.dtypes == {dtype}
    assert result.dtype == torch.float32
    labels = recorder.net(baselines.to(dtype)).argmax(1)
    expected = ClassPattern(make_net(), baselines, labels).attribute(images, [2, 0, 1], **FAST)
    agreeing = ((result - expected).abs() < 1e-5).double().mean()
    assert agreeing > {torch.float64: 0.99, torch.bfloat16: 0.7}[dtype]
    [pattern] = explainer.search(images[:1], target=2, **FAST)
    torch.testing.assert_close(pattern.mask, result[0, :1])
    assert recorder.dtypes == {dtype}
    assert 0 <= pattern.info["search_power"] <= 1


@pytest.mark.parametrize("call", ["attribute", "search"])
@pytest.mark.parametrize("training", [[0, 1, 2, 3, 4, 5], [3], [1, 4]], ids=str)
def test_a_model_in_train_mode(net, explainer, images, call, training):
    expected = getattr(explainer, call)(images, target=1, **FAST)
    net.training = len(training) == 6
    for i in training:
        net[i].training = True
    modes = [part.training for part in net.modules()]
    with pytest.warns(UserWarning, match=TRAIN_MODE) as warnings:
        result = getattr(explainer, call)(images, target=1, **FAST)
    assert [part.training for part in net.modules()] == modes
    assert len(warnings) == 1
    assert warnings[0].filename == __file__
    if call == "search":
        result, expected = [p.mask for p in result], [p.mask for p in expected]
    assert all(torch.equal(ours, theirs) for ours, theirs in zip(result, expected))


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


def as_source(kind, baselines):
    if kind == "tensors":
        return baselines, LABELS
    generator = torch.Generator().manual_seed(4) if kind == "own generator" else None
    data = TensorDataset(baselines, LABELS)
    return DataLoader(data, batch_size=4, shuffle=True, num_workers=0, generator=generator), None


@pytest.mark.filterwarnings(f"ignore:{TRAIN_MODE}")
@pytest.mark.parametrize("call", ["attribute", "search"])
@pytest.mark.parametrize("kind", ["tensors", "shuffled loader", "own generator"])
@both_solvers
def test_a_call_changes_nothing(net, images, baselines, call, kind, fast):
    hook_calls, images = lived_in(net), lived_in_inputs(images)
    source, labels = as_source(kind, baselines)
    generator = getattr(source, "generator", None)
    generator_before = None if generator is None else contents(generator.get_state())
    before = state_of_caller(net, images, baselines, LABELS)
    explainer = ClassPattern(net, source, labels)
    result = getattr(explainer, call)(images, target=[2, 0, 1], **fast)
    assert state_of_caller(net, images, baselines, LABELS) == before
    assert generator is None or contents(generator.get_state()) == generator_before
    assert len(hook_calls) >= FAST["n_steps"]  # the user's hooks ran: they were not taken off
    masks = result[:, :1] if call == "attribute" else torch.stack([p.mask for p in result])
    plain = ClassPattern(make_net(), baselines, LABELS)
    torch.testing.assert_close(masks, masks_alone(plain, images.detach(), [2, 0, 1], **fast))
    assert not masks.requires_grad


def test_inputs_with_a_history_get_no_gradient(net, images, baselines):
    explainer = ClassPattern(net, baselines, LABELS, multiply_by_inputs=True)
    images.requires_grad_()
    derived = images * 0.5
    result = explainer.attribute(derived, target=1, **FAST)
    [pattern] = explainer.search(derived[:1], target=1, **FAST)
    for tensor in (result, pattern.canvas, pattern.mask):
        assert not tensor.requires_grad
    derived.sum().backward()  # its graph is still there
    assert torch.equal(images.grad, torch.full_like(images, 0.5))


class Dice(Dataset):
    """Images that draw from all three global random states when fetched."""

    def __init__(self, images):
        self.images = images

    def __len__(self):
        return len(self.images)

    def __getitem__(self, i):
        noise = torch.rand(1) + np.random.rand() + random.random()
        return self.images[i] * (1 - 0.01 * noise.float()), int(LABELS[i])


def test_a_data_set_that_draws_random_numbers(net, images, baselines):
    before = state_of_caller(net, images)
    explainer = ClassPattern(net, DataLoader(Dice(baselines), shuffle=True))
    first = explainer.attribute(images, target=1, **FAST)
    assert state_of_caller(net, images) == before
    torch.rand(3), np.random.rand(3), random.random()
    explainer = ClassPattern(net, DataLoader(Dice(baselines), shuffle=True))
    assert torch.equal(explainer.attribute(images, target=1, **FAST), first)


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
@pytest.mark.parametrize("kind", ["tensors", "shuffled loader"])
@pytest.mark.parametrize("how", ["error", "interrupt", "nan"])
@pytest.mark.parametrize(
    ("call", "k"),
    [
        ("attribute", 1),
        ("attribute", 2),
        ("attribute", 4),
        ("search", 1),
        ("search", 4),
        ("attribute", 1 + START + 5 * ROUND),  # the last swap
        ("search", CHECKPOINT),  # the last swap before the masks are judged
        ("search", CHECKPOINT + 1),  # while judging
    ],
)
def test_a_call_that_fails_half_way_changes_nothing(net, images, baselines, call, k, how, kind):
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
    slow = how == "nan" and 1 < k < CHECKPOINT  # losses are not looked at after each step
    assert k < failing.calls <= k + 16 if slow else failing.calls == k
    assert state_of_caller(failing, images, baselines) == before

    failing.k = 10**6  # mended, it works as if nothing had happened
    result = explainer.attribute(images, target=1, **FAST)
    fresh = ClassPattern(make_net(), baselines, LABELS)
    assert torch.equal(result, fresh.attribute(images.detach(), target=1, **FAST))


# ---- additional_forward_args


class Adjustable(nn.Module):
    """A net with a brightness for each image and one temperature for all."""

    def __init__(self, net):
        super().__init__()
        self.net, self.training = net, net.training

    def forward(self, images, brightness, temperature=1.0):
        assert brightness.shape in ((len(images),), ())
        return self.net(images * brightness.view(-1, 1, 1, 1)) / temperature


BRIGHTNESS = torch.tensor([0.1, 1.0, 2.0])


def test_additional_arguments_for_each_image_and_for_all(net, images, baselines):
    explainer = ClassPattern(Adjustable(net), baselines, LABELS)
    result = explainer.attribute(images, [2, 0, 1], (BRIGHTNESS, 0.5), **FAST)
    patterns = explainer.search(
        images, [2, 0, 1], additional_forward_args=(BRIGHTNESS, 0.5), **FAST
    )
    for i, target in enumerate([2, 0, 1]):

        def fixed(stamped, brightness=float(BRIGHTNESS[i])):
            return net(stamped * brightness) / 0.5

        alone = ClassPattern(fixed, baselines, LABELS).search(images[i : i + 1], target, **FAST)[0]
        torch.testing.assert_close(result[i, :1], alone.mask)
        torch.testing.assert_close(patterns[i].mask, alone.mask)
        assert patterns[i].info["search_power"] == alone.info["search_power"]
        without = ClassPattern(net, baselines, LABELS).attribute(images[i : i + 1], target, **FAST)
        assert not torch.equal(result[i : i + 1], without)


@pytest.mark.parametrize("brightness", [torch.tensor(2.0), torch.tensor([2.0, 2.0, 2.0])], ids=str)
def test_one_additional_argument_needs_no_tuple(net, images, baselines, brightness):
    explainer = ClassPattern(Adjustable(net), baselines, LABELS)
    result = explainer.attribute(images, 1, brightness, **FAST)
    twice = ClassPattern(lambda stamped: net(stamped * 2), baselines, LABELS)
    assert torch.equal(result, twice.attribute(images, 1, **FAST))


def test_the_same_canvas_with_other_arguments_is_another_search(net, images, baselines):
    explainer = ClassPattern(Adjustable(net), baselines, LABELS)
    same = images[:1].expand(3, -1, -1, -1)
    brightness = torch.tensor([0.1, 2.0, 0.1])
    result = explainer.attribute(same, 1, (brightness, 1.0), **FAST)
    rows = [(row[None], 1.0) for row in brightness]
    expected = masks_alone(explainer, same, [1, 1, 1], rows).expand_as(same)
    torch.testing.assert_close(result, expected)
    assert torch.equal(result[0], result[2])
    assert not torch.equal(result[0], result[1])


def test_judging_uses_each_canvas_own_argument(net, images, baselines):
    def shifted(stamped, shift):
        return net(stamped) + shift

    shift = torch.tensor([[0, 1e3, 0], [0, -1e3, 0], [0, 1e3, 0]])
    patterns = ClassPattern(shifted, baselines, LABELS).search(
        images, target=1, additional_forward_args=shift, **FAST
    )
    assert [pattern.info["search_power"] for pattern in patterns] == [1.0, 0.0, 1.0]


def test_an_argument_for_all_stays_one_when_repeated_canvases_are_dropped(net, images, baselines):
    def two_numbers(stamped, scale_and_offset):
        assert scale_and_offset.shape == (2,)
        return net(stamped * scale_and_offset[0] + scale_and_offset[1])

    explainer = ClassPattern(two_numbers, baselines, LABELS)
    repeated = images[[0, 0, 1]]  # 3 images, so 2 numbers are none for each; but 2 searches
    numbers = torch.tensor([0.5, 0.2])
    result = explainer.attribute(repeated, 1, numbers, **FAST)
    fixed = ClassPattern(lambda stamped: net(stamped * 0.5 + 0.2), baselines, LABELS)
    torch.testing.assert_close(result, fixed.attribute(repeated, 1, **FAST))


def test_additional_arguments_made_in_inference_mode(net, images, baselines):
    explainer = ClassPattern(Adjustable(net), baselines, LABELS)
    expected = explainer.attribute(images, 1, (BRIGHTNESS, torch.tensor(0.5)), **FAST)
    with torch.inference_mode():
        arguments = (BRIGHTNESS.clone(), torch.tensor(0.5))
        assert torch.equal(explainer.attribute(images, 1, arguments, **FAST), expected)


def test_additional_arguments_get_no_gradient(net, images, baselines):
    brightness = BRIGHTNESS.clone().requires_grad_()
    explainer = ClassPattern(Adjustable(net), baselines, LABELS)
    result = explainer.attribute(images, 1, (brightness, 0.5), **FAST)
    assert torch.equal(result, explainer.attribute(images, 1, (BRIGHTNESS, 0.5), **FAST))
    assert not result.requires_grad
    assert brightness.grad is None


def test_additional_arguments_through_noise_tunnel_and_sensitivity_max(net, images, baselines):
    explainer = ClassPattern(Adjustable(net), baselines, LABELS)
    expected = explainer.attribute(images, [2, 0, 1], (BRIGHTNESS, 0.5), **FAST)
    settings = {
        "target": [2, 0, 1],
        "additional_forward_args": (BRIGHTNESS, 0.5),
        **FAST,
    }
    smooth = NoiseTunnel(explainer).attribute(images, nt_samples=2, stdevs=1e-9, **settings)
    torch.testing.assert_close(smooth, expected)
    same = sensitivity_max(
        explainer.attribute, images, lambda inputs: inputs, n_perturb_samples=2, **settings
    )
    assert same.tolist() == [0, 0, 0]


# ---- arguments of others


@pytest.mark.parametrize(
    ("method", "given", "text"),
    [
        ("attribute", "baselines", r"give it to the constructor, as in ClassPattern\(model, base"),
        ("attribute", "baseline_labels", "give it to the constructor"),
        ("attribute", "n_samples", r"see help\(ClassPattern\.attribute\)"),
        ("search", "areas", r"use search_areas\(canvases, target, areas\)"),
        ("search", "baselines", "give it to the constructor"),
    ],
)
def test_arguments_that_belong_elsewhere(method, given, text):
    explainer = ClassPattern(make_net(), random_images(15, seed=3), LABELS)
    with pytest.raises(TypeError, match=f"{method} has no argument `{given}`: {text}"):
        getattr(explainer, method)(random_images(1), 0, **{given: None})


def test_attribute_future_is_not_implemented_as_in_captum():
    explainer = ClassPattern(make_net(), random_images(15, seed=3), LABELS)
    with pytest.raises(NotImplementedError, match="not implemented for ClassPattern: use attri"):
        explainer.attribute_future(random_images(1), target=0)


def test_types_say_that_a_tensor_gives_a_tensor_and_a_tuple_a_tuple():
    hints = get_type_hints(ClassPattern.attribute)
    assert hints["inputs"] is hints["return"]
    assert hints["inputs"].__constraints__ == (torch.Tensor, tuple[torch.Tensor, ...])
    assert get_type_hints(ClassPattern.search)["return"] == list[Pattern]
    assert get_type_hints(ClassPattern.search_areas)["return"] == dict[float, list[Pattern]]
