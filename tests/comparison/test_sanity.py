"""sanity_check() on tiny networks: by hand, against slow plain code, and what stays untouched."""

import copy
import math
import weakref
from dataclasses import replace

import pytest
import torch
from captum.attr import Attribution, InputXGradient, Saliency
from comparisons import (
    Searching,
    conv_net,
    from_function,
    linear_net,
    plain_hits,
    plain_mask,
)
from shown import HOSTILE, read, table_of
from shown import check as read_page
from test_captum_contract import state_of_caller
from torch import nn

from captum_classpattern import ClassPattern, sanity_check
from captum_classpattern.comparison import Agreement, ClassMean, RandomPixels, SanityCheck
from captum_classpattern.comparison.sanity import layers_from_top, randomised
from captum_classpattern.scores import rank_correlation

SEARCH, HELD_OUT = torch.rand(2, 60, 3, 6, 6, generator=torch.Generator().manual_seed(3))
LABELS = torch.arange(60) % 6
CANVASES, TARGETS = SEARCH[:6], list(range(6))
CHANCE = 4 / (2 * 36 - 4)


def deep_net(seed=1):
    """Six classes; layers 0, 1, 4 and 6 have parameters."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        net = nn.Sequential(
            *(nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten()),
            *(nn.Linear(144, 16), nn.ReLU(), nn.Linear(16, 6)),
        )
        net(SEARCH)  # the batch norm gets running statistics
    return net.eval()


class Itself(Attribution):
    """The map is the image, whatever the model is."""

    def attribute(self, inputs, target=None):
        return inputs.clone()


def checked(net=None, **changes):
    settings = {
        "search": (SEARCH, LABELS),
        "methods": {"Saliency": Saliency, "InputXGradient": InputXGradient},
        "area": 0.1,
    }
    net = deep_net() if net is None else net
    canvases, targets = changes.pop("canvases", CANVASES), changes.pop("targets", TARGETS)
    return sanity_check(net, canvases, targets, **{**settings, **changes})


def verdict_of(check, method, test="layers", ranking="signed"):
    [found] = [
        row
        for row in check.verdicts()
        if (row["method"], row["test"], row["ranking"]) == (method, test, ranking)
    ]
    return found


# ---- layers


class Residual(nn.Module):
    """Defined in another order than it runs; one layer is not used."""

    def __init__(self):
        super().__init__()
        self.head = nn.Linear(4, 2)
        self.unused = nn.Linear(3, 3)
        self.shortcut = nn.Conv2d(1, 4, 1)
        self.second = nn.Conv2d(4, 4, 3, padding=1)
        self.first = nn.Conv2d(1, 4, 3, padding=1)
        self.plain_norm = nn.BatchNorm2d(4, affine=False)

    def forward(self, x):
        y = self.plain_norm(self.second(self.first(x).relu()))
        y = self.second(y)  # once more
        return self.head((y + self.shortcut(x)).mean((2, 3)))


def test_layers_go_from_the_output_to_the_input():
    assert layers_from_top(deep_net(), CANVASES[:1]) == [("6",), ("4",), ("1",), ("0",)]
    net, image = Residual(), torch.rand(1, 1, 4, 4)
    before = state_of_caller(net)
    assert layers_from_top(net, image) == [
        ("head",), ("shortcut",), ("plain_norm",), ("second",), ("first",),
    ]  # fmt: skip
    assert state_of_caller(net) == before


class Attending(nn.Module):
    """Its attention uses the parameters of its ``out_proj`` without a call; a token is its own."""

    def __init__(self):
        super().__init__()
        self.token = nn.Parameter(torch.randn(1, 1, 4))
        self.attention = nn.MultiheadAttention(4, 2, batch_first=True)
        self.head = nn.Linear(4, 2)

    def forward(self, x):
        x = x.flatten(2).transpose(1, 2) + self.token
        return self.head(self.attention(x, x, x)[0].mean(1))


def test_parameters_that_are_used_without_a_call_belong_to_the_module_around_them():
    net = Attending().eval()
    layers = layers_from_top(net, torch.rand(1, 4, 3, 3))
    assert layers == [("head",), ("attention", "attention.out_proj"), ("",)]
    other = randomised(net, layers, 1)
    for name, values in net.named_parameters():
        if name != "attention.out_proj.bias" and name != "attention.in_proj_bias":  # both are 0
            assert not values.equal(other.get_parameter(name))


def test_only_the_chosen_layers_change_and_the_first_ones_stay_as_more_follow():
    net = deep_net()
    layers = layers_from_top(net, CANVASES[:1])
    copies = [randomised(net, layers[:count], 5) for count in range(5)]
    assert [all(p.equal(q) for p, q in zip(net.parameters(), copies[0].parameters()))] == [True]
    for count, twin in enumerate(copies):
        changed = {layer for (layer,) in layers[:count]}
        for (name, old), new in zip(net.state_dict().items(), twin.state_dict().values()):
            layer = name.split(".")[0]
            if layer not in changed:
                assert old.equal(new)
            else:
                assert new.equal(copies[-1].state_dict()[name])
                constant = name in ("1.weight", "1.bias", "1.num_batches_tracked")
                assert constant or not old.equal(new)
    norm = copies[-1][1]
    assert norm.running_mean.eq(0).all()
    assert norm.running_var.eq(1).all()
    again, other = randomised(net, layers, 5), randomised(net, layers, 6)
    assert again[6].weight.equal(copies[-1][6].weight)
    assert not other[6].weight.equal(again[6].weight)


class Scaled(nn.Module):
    """Has parameters, but no ``reset_parameters``."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(5 + 0.1 * torch.randn(400))
        self.single = nn.Parameter(torch.tensor(3.0))


def test_parameters_without_a_reset_are_drawn_with_their_mean_and_deviation():
    net = Scaled()
    twin = randomised(net, [("",)], 0)
    assert not (twin.weight == net.weight).any()
    assert abs(float(twin.weight.detach().mean()) - 5) < 0.03
    assert abs(float(twin.weight.detach().std()) - 0.1) < 0.02
    assert twin.single == 3


@pytest.mark.parametrize(
    ("n_steps", "steps"), [(1, [0, 4]), (2, [0, 1, 4]), (3, [0, 1, 3, 4]), (9, [0, 1, 2, 3, 4])]
)
def test_the_steps_begin_with_the_last_layer_and_end_with_all(n_steps, steps):
    check = checked(n_steps=n_steps, methods={"Itself": Itself})
    assert check.steps == steps
    rows = check.rows()
    assert [row["layers"] for row in rows] == steps
    lowest = {0: None, 1: "6", 2: "4", 3: "1", 4: "0"}
    assert [row["lowest"] for row in rows] == [lowest[count] for count in steps]


# ---- maps and their agreement


def test_saliency_of_a_linear_model_has_the_new_weights():
    net = nn.Sequential(nn.Flatten(), nn.Linear(108, 6)).eval()
    seen = []

    def method(model):
        class Kept(Saliency):
            def attribute(self, inputs, target=None):
                found = super().attribute(inputs, target)
                seen.append((target[0], found))
                return found

        return Kept(model)

    check = checked(net, methods={"Kept": method})
    new = randomised(net, [("1",)], seed=1)[1].weight.detach().view(6, 3, 6, 6).abs()
    old = net[1].weight.detach().view(6, 3, 6, 6).abs()
    last = dict(seen[-6:])
    for target in range(6):
        assert last[target][0].equal(new[target])
    assert check.steps == [0, 1]
    for a in check.agreements:
        first = old[a.target].double().sum(0)
        second = new[a.target].double().sum(0) if a.randomised else first
        masks = [plain_mask(map, 0.1) for map in (first, second)]
        both, either = (masks[0] & masks[1]).sum(), (masks[0] | masks[1]).sum()
        assert a.iou == pytest.approx(float(both / either))
        assert a.correlation == pytest.approx(plain_correlation(first, second))
    assert [a.randomised for a in check.agreements] == [0] * 6 + [1] * 6


def plain_correlation(first, second):
    """Spearman's, from ranks that are counted one by one."""
    ranks = []
    for map in (first, second):
        values = map.flatten().tolist()
        ranks.append([sum(v < w for v in values) + sum(v == w for v in values) / 2 for w in values])
    means = [sum(rank) / len(rank) for rank in ranks]
    a, b = ([r - mean for r in rank] for rank, mean in zip(ranks, means))
    return sum(x * y for x, y in zip(a, b)) / math.sqrt(
        sum(x * x for x in a) * sum(y * y for y in b)
    )


@pytest.mark.parametrize("levels", [2, 5, 1000])
def test_the_rank_correlation_is_that_of_slow_plain_code(levels):
    torch.manual_seed(levels)
    first, second = (torch.rand(2, 8, 8) * levels).round()
    assert rank_correlation(first, second) == pytest.approx(plain_correlation(first, second))
    assert rank_correlation(first, second) == rank_correlation(second, first)


def test_the_rank_correlation_at_its_ends():
    map = torch.rand(5, 5)
    flat = torch.zeros(5, 5)
    assert rank_correlation(map, 2 * map) == pytest.approx(1)
    assert rank_correlation(map, -map) == pytest.approx(-1)
    assert rank_correlation(map, flat) == rank_correlation(flat, map) == 0
    assert rank_correlation(flat, flat.clone()) == 1
    with pytest.raises(ValueError, match=r"one shape, got \(5, 5\) and \(2, 2\)"):
        rank_correlation(map, map[:2, :2])


def test_absolute_rankings_are_compared_if_maps_have_negative_values():
    check = checked()
    found = {(a.method, a.ranking) for a in check.agreements}
    assert found == {
        ("Saliency", "signed"), ("InputXGradient", "signed"), ("InputXGradient", "absolute")
    }  # fmt: skip


class ResetsBias(nn.Linear):
    """Its reset leaves the weight as it is, once it is built."""

    def reset_parameters(self):
        if self.weight.std() == 0:
            super().reset_parameters()
        nn.init.uniform_(self.bias)


def test_weights_that_a_reset_leaves_are_random_too():
    net = nn.Sequential(nn.Flatten(), ResetsBias(108, 6)).eval()
    nn.init.normal_(net[1].weight)
    other = randomised(net, layers_from_top(net, SEARCH[:1]), seed=1)
    for name, values in other.named_parameters():
        assert not (values == net.get_parameter(name)).any(), name
    assert float(other[1].weight.detach().std()) == pytest.approx(
        float(net[1].weight.detach().std()), rel=0.1
    )


# ---- verdicts


def test_a_map_of_the_image_does_not_change_and_random_ones_cannot_be_judged():
    check = checked(
        methods={
            "Itself": Itself,
            "ClassMean": lambda model: ClassMean(model, SEARCH, LABELS),
            "RandomPixels": RandomPixels,
            "Saliency": Saliency,
            "Function": from_function(lambda images, target: images),
        }
    )
    for name in ("Itself", "ClassMean", "Function"):
        for measure in ("iou", "correlation"):
            [row] = [r for r in check.verdicts(measure) if r["method"] == name]
            assert row["verdict"] == "no change"
            assert row["after"] == row["between_seeds"] == row["after_low"] == 1
            assert row["lost"] == 0
    random = verdict_of(check, "RandomPixels")
    assert random["verdict"] == "random"
    many = checked(methods={"RandomPixels": RandomPixels}, n_seeds=30, n_steps=1)
    assert verdict_of(many, "RandomPixels")["after"] == pytest.approx(CHANCE, abs=0.02)
    assert verdict_of(check, "Saliency")["lost"] > 0.3
    assert check.chance == CHANCE
    assert {a.correlation for a in check.agreements if a.method == "Itself"} == {1}


def test_the_compared_maps_always_have_other_seeds():
    check = checked(methods={"Searching": Searching}, n_seeds=3)
    # the image rolled by one or two pixels, whatever the model is
    by_seed = {}
    for a in check.agreements:
        by_seed.setdefault((a.canvas, a.seed), set()).add((a.iou, a.correlation))
    assert {seed for _, seed in by_seed} == {1, 2}
    assert all(len(values) == 1 for values in by_seed.values())
    for canvas, image in enumerate(CANVASES):
        first, second = (image.roll(4 + seed, -1).double().sum(0) for seed in (0, 2))
        [(_, correlation)] = by_seed[canvas, 2]
        assert correlation == pytest.approx(plain_correlation(first, second))
    row = verdict_of(check, "Searching")
    assert row["lost"] == row["lost_low"] == 0
    assert row["between_seeds"] < 1
    is_random = row["between_seeds_low"] <= check.chance
    assert row["verdict"] == ("random" if is_random else "no change")


def agreement(target, randomised, iou, correlation=0.5, power=0.0, test="layers"):
    return Agreement("m", "signed", test, randomised, 1, target, target, iou, correlation, power)


def made(before, after, **changes):
    """A check with these IoUs of five classes."""
    agreements = [agreement(y, 0, iou) for y, iou in enumerate(before)]
    agreements += [agreement(y, 1, 0.77) for y in range(5)]
    agreements += [agreement(y, 2, iou) for y, iou in enumerate(after)]
    return SanityCheck([("top",), ("low",)], [0, 1, 2], agreements, [], 0.05, **changes)


@pytest.mark.parametrize(
    ("before", "after", "verdict"),
    [
        ([1] * 5, [1] * 5, "no change"),
        ([1] * 5, [1, 1, 1, 1, 0.99], "no change"),
        ([1] * 5, [0.5, 0.6, 0.5, 0.4, 0.5], "part stays"),
        ([1] * 5, [0.04, 0.06, 0.05, 0.05, 0.05], "gone"),
        ([1] * 5, [0.0] * 5, "gone"),
        ([1] * 5, [0.6] * 5, "most stays"),
        ([1] * 5, [0.52] * 5, "part stays"),  # half-way is (1 + 0.05) / 2
        ([1] * 5, [0.53] * 5, "most stays"),
        ([0.3, 0.4, 0.3, 0.2, 0.3], [0.2, 0.5, 0.3, 0.1, 0.4], "no change"),
        ([0.3, 0.4, 0.3, 0.2, 0.3], [0.2, 0.3, 0.1, 0.1, 0.2], "part stays"),
        ([0.04, 0.06, 0.05, 0.05, 0.05], [0.05, 0.05, 0.05, 0.06, 0.04], "random"),
        ([0.04, 0.06, 0.05, 0.05, 0.05], [0.0] * 5, "random"),
    ],
)
def test_the_rule_of_the_verdicts(before, after, verdict):
    check = made(before, after)
    [row] = check.verdicts()
    assert row["verdict"] == verdict
    assert row["between_seeds"] == pytest.approx(sum(before) / 5)
    assert row["after"] == pytest.approx(sum(after) / 5)
    assert row["lost"] == pytest.approx(sum(before) / 5 - sum(after) / 5)
    [by_correlation] = check.verdicts("correlation")
    assert by_correlation["verdict"] == "no change"


def test_a_method_that_fails_on_all_random_layers_has_no_verdict():
    check = made([1] * 5, [])
    assert check.verdicts() == []
    with pytest.raises(ValueError, match="measure must be 'iou' or 'correlation', got 'ssim'"):
        check.verdicts("ssim")


def test_fewer_than_five_classes_have_no_intervals_and_no_verdicts():
    check = checked(canvases=CANVASES[:4], targets=[0, 1, 2, 3])
    assert {row["iou_low"] for row in check.rows()} == {None}
    assert {row["verdict"] for row in check.verdicts()} == {None}
    assert {row["between_seeds"] for row in check.verdicts()} == {1}


# ---- power and the other model


def test_powers_are_those_of_a_slow_plain_loop_on_the_original_model():
    net, other = deep_net(), deep_net(2)
    with torch.no_grad():
        net[6].weight.mul_(6)
        net[6].bias -= net(SEARCH).mean(0)
    check = checked(
        net, methods={"Saliency": Saliency}, held_out=(HELD_OUT, LABELS), other=other, n_steps=1
    )
    models = {
        ("layers", 0): net,
        ("layers", 4): randomised(net, layers_from_top(net, CANVASES[:1]), 1),
        ("labels", 0): other,
    }
    assert {(a.test, a.randomised) for a in check.agreements} == set(models)
    for a in check.agreements:
        model = copy.deepcopy(models[a.test, a.randomised])
        image = CANVASES[a.canvas][None]
        map = Saliency(model).attribute(image.clone().requires_grad_(), a.target)[0].double().sum(0)
        mask = plain_mask(map, 0.1)
        hits, n = plain_hits(net, image[0], mask, a.target, HELD_OUT, LABELS)
        assert (n, a.power) == (50, pytest.approx(hits / n))
    assert any(a.power > 0 for a in check.agreements)
    assert set(check.random_pixels) == set(check.no_pattern) == set(range(6))
    predicted = net(HELD_OUT).argmax(1)
    for y, rate in check.no_pattern.items():
        assert rate == pytest.approx(float((predicted[y != LABELS] == y).double().mean()))
    row = verdict_of(check, "Saliency")
    means = [sum(values) / len(values) for values in check.random_pixels.values()]
    assert row["power_above_random"] == pytest.approx(row["power_after"] - sum(means) / 6)
    assert {"power", "power_low", "random_pixels", "no_pattern"} <= set(check.rows()[0])


def test_without_held_out_images_there_is_no_power():
    check = checked()
    assert not check.random_pixels
    assert {a.power for a in check.agreements} == {None}
    assert not [name for name in check.rows()[0] if "power" in name or "random" in name]


def test_the_same_model_as_the_other_has_the_same_maps():
    net = deep_net()
    check = checked(net, other=copy.deepcopy(net), n_steps=0)
    assert (check.layers, check.steps) == ([], [0])
    for name in ("Saliency", "InputXGradient"):
        row = verdict_of(check, name, "labels")
        assert (row["after"], row["verdict"]) == (1, "no change")
    assert verdict_of(checked(net, other=deep_net(9), n_steps=0), "Saliency", "labels")["lost"] > 0
    with pytest.raises(ValueError, match="no layer was randomised"):
        check.plot(use_pyplot=False)


def test_functions_have_no_layers_but_can_be_compared():
    net, other = linear_net(1), linear_net(2)
    three = {"canvases": CANVASES[:3], "targets": [0, 1, 2], "search": (SEARCH, LABELS % 3)}
    check = checked(lambda x: net(x), other=lambda x: other(x), n_steps=0, **three)
    assert len(check.verdicts()) == 3
    with pytest.raises(TypeError, match=r"only the layers of a torch\.nn\.Module can be random"):
        checked(lambda x: net(x), **three)


# ---- what stays, what repeats, what goes wrong


def test_the_model_is_as_before():
    net, other = deep_net(), deep_net(4)
    net[1].training = True
    for parameter in net.parameters():
        parameter.grad = torch.ones_like(parameter)
    before = [state_of_caller(model, CANVASES, SEARCH) for model in (net, other)]
    with pytest.warns(UserWarning, match="the model is in train mode"):
        checked(net, other=other, held_out=(HELD_OUT, LABELS))
    assert [state_of_caller(model, CANVASES, SEARCH) for model in (net, other)] == before


def test_there_is_one_random_model_at_a_time(monkeypatch):
    made, alive = [], []

    def remembered(*arguments):
        alive.append(sum(model() is not None for model in made))
        model = randomised(*arguments)
        made.append(weakref.ref(model))
        return model

    monkeypatch.setattr("captum_classpattern.comparison.sanity.randomised", remembered)
    checked(n_steps=2, n_seeds=3)
    assert alive == [0, 0, 0, 0]


def test_the_same_arguments_give_the_same_result_and_methods_do_not_affect_each_other():
    methods = {
        "ClassPattern": (lambda model: ClassPattern(model, SEARCH, LABELS), {"n_steps": 2}),
        "Saliency": Saliency,
        "RandomPixels": RandomPixels,
    }
    one, again = (checked(methods=methods, n_steps=2) for _ in range(2))
    assert one.agreements == again.agreements
    for name, method in methods.items():
        alone = checked(methods={name: method}, n_steps=2)
        assert alone.agreements == [a for a in one.agreements if a.method == name]
    assert checked(methods=methods, n_steps=2, seed=7).agreements != one.agreements


def test_a_method_that_fails_is_a_row_with_the_reason():
    class Fragile(Saliency):
        def attribute(self, inputs, target=None):
            if self.forward_func[6].weight.equal(net[6].weight):
                return super().attribute(inputs, target)
            raise RuntimeError("not with\nthese weights")

    def broken(model):
        raise ImportError("needs more")

    net = deep_net()
    check = checked(
        net, methods={"Fragile": Fragile, "broken": broken, "Itself": Itself}, n_steps=2
    )
    assert repr(check) == "SanityCheck(2 methods, 6 canvases, 4 layers in 2 steps, 3 failures)"
    assert check.rows()[-3:] == [
        {"method": "broken", "failure": "original: ImportError: needs more"},
        {
            "method": "Fragile",
            "failure": "1 of 4 layers: RuntimeError: not with these weights",
        },
        {
            "method": "Fragile",
            "failure": "4 of 4 layers: RuntimeError: not with these weights",
        },
    ]
    assert [row["method"] for row in check.verdicts()] == ["Itself"]
    assert len(check.table()) == len(check.rows())


def refused(match, error=ValueError, **changes):
    with pytest.raises(error, match=match):
        checked(**changes)


def test_arguments_that_do_not_fit_are_refused():
    refused("`n_seeds` must be a whole number from 2, got 1: one for the original maps", n_seeds=1)
    refused("`n_steps` must be a whole number from 0, got -1", n_steps=-1)
    refused("nothing to test: give `n_steps`, another model, or both", n_steps=0)
    refused("`seed` must be a whole number", seed=-1)
    refused("`area` must be a number", TypeError, area="5 %")
    refused(r"`area` is the share of pixels to keep: 0\.001", area=0.001)
    refused("target 6 is out of range: the model has 6 classes", targets=6)
    refused("target 3 is out of range: the model has 3 classes", other=conv_net())
    refused("there is no method 'Salient'", methods=["Salient"])
    refused("method 'a' must be a function from a model", TypeError, methods={"a": Saliency(len)})
    refused("the 60 held-out images are among the search images", held_out=(SEARCH, LABELS))
    refused("canvases and baselines must be of one shape", search=torch.rand(9, 3, 5, 5))
    plain = nn.Sequential(nn.AdaptiveAvgPool2d((2, 3)), nn.Flatten()).eval()
    refused(
        "the model has no layers with parameters",
        net=plain,
        targets=0,
        methods={"Itself": Itself},
    )


def test_names_are_those_of_known_methods():
    check = checked(methods="InputXGradient", n_steps=1)
    assert {a.method for a in check.agreements} == {"InputXGradient"}
    assert check.settings["methods"] == {"InputXGradient": {}}


# ---- figure


def test_the_figure_has_a_panel_for_each_method():
    check = checked()
    figure, axes = check.plot(title="Random layers", use_pyplot=False)
    assert [axis.get_title() for axis in axes] == ["Saliency", "InputXGradient"]
    for axis, name in zip(axes, ("Saliency", "InputXGradient")):
        lines = {line.get_label(): line for line in axis.get_lines()}
        rows = [r for r in check.rows() if (r["method"], r["ranking"]) == (name, "signed")]
        iou = lines["IoU of the highest pixels"]
        assert iou.get_xdata().tolist() == [0, 0.25, 0.5, 0.75, 1]
        assert iou.get_ydata().tolist() == [row["iou"] for row in rows]
        assert lines["rank correlation"].get_ydata().tolist() == [r["correlation"] for r in rows]
        assert set(lines["IoU of random masks"].get_ydata()) == {CHANCE}
        assert axis.texts[0].get_text() == verdict_of(check, name)["verdict"]
    assert figure.get_suptitle() == "Random layers"
    _, [absolute] = check.plot(ranking="absolute", use_pyplot=False)
    assert absolute.get_title() == "InputXGradient"
    with pytest.raises(ValueError, match="no method has the ranking 'both'"):
        check.plot(ranking="both", use_pyplot=False)


# ---- what a notebook shows


def test_a_notebook_shows_figure_verdicts_and_failures(tmp_path):
    def broken(model):
        raise ImportError(f"needs {HOSTILE}")

    check = checked(methods={"Saliency": Saliency, "broken": broken}, n_steps=2)
    page = read(check, pictures=1)
    row, verdict = table_of(page)["Saliency"], verdict_of(check, "Saliency")
    assert row["verdict"] == verdict["verdict"]
    ends = [verdict[f"after{end}"] for end in ("", "_low", "_high")]
    assert row["after"] == "{:.2f} ({:.2f} to {:.2f})".format(*ends)
    assert f"Random masks have {CHANCE:.3f}" in page.text
    assert "1 failure" in page.text
    assert "needs <img src=x onerror=alert(1)>" in page.text
    path = check.to_html(tmp_path / "check.html")
    assert read_page(path.read_text(encoding="utf-8")).tables == page.tables


def test_without_layers_or_with_few_classes_there_is_less_to_show():
    labels = checked(methods={"Saliency": Saliency}, n_steps=0, other=deep_net(2))
    assert table_of(read(labels, pictures=0))["Saliency"]["changed"] == "labels"
    few = made([1, 1, 1], [0.5, 0.5, 0.5])
    few = replace(few, agreements=[a for a in few.agreements if a.target < 3])
    row = table_of(read(few, pictures=1))["m"]
    assert (row["after"], row["verdict"]) == ("0.50", "fewer than 5 classes")


def test_the_power_after_is_shown_with_held_out_images():
    check = made([1] * 5, [0] * 5, random_pixels={y: [0.1] for y in range(5)}, no_pattern={0: 0.0})
    column = "power after, above random pixels"
    assert table_of(read(check))["m"][column] == "-10.0 (-10.0 to -10.0) points"
