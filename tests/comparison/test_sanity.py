"""sanity_check() on tiny networks: by hand, against slow plain code, and what stays untouched."""

import copy
import statistics
import weakref
from functools import partial

import pytest
import torch
from captum.attr import Attribution, Saliency
from comparisons import METHODS, Searching, conv_net, from_function, plain_hits, plain_mask, rolled
from refusals import refusal
from shown import check as read_page
from shown import read, table_of
from test_captum_contract import state_of_caller
from torch import nn

from captum_classpattern import ClassPattern, Pattern, predictive_power, sanity_check
from captum_classpattern.comparison import Agreement, Failure, RandomPixels, SanityCheck
from captum_classpattern.comparison.sanity import layers_from_top, randomised
from captum_classpattern.scores import rank_correlation
from captum_classpattern.scores.power import random_pixels

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


def checked(net=None, targets=TARGETS, **changes):
    settings = {"search": (SEARCH, LABELS), "methods": METHODS, "area": 0.1, **changes}
    return sanity_check(deep_net() if net is None else net, CANVASES, targets, **settings)


def verdict_of(check, method, test="layers", measure="iou"):
    """Of the signed maps of a method."""
    rows = {(r["method"], r["test"], r["ranking"]): r for r in check.verdicts(measure)}
    return rows[method, test, "signed"]


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
    names = ["head", "shortcut", "plain_norm", "second", "first"]
    assert layers_from_top(net, image) == [(name,) for name in names]
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
    last = copies[-1].state_dict()
    for count, twin in enumerate(copies):
        changed = {layer for (layer,) in layers[:count]}
        for (name, old), new in zip(net.state_dict().items(), twin.state_dict().values()):
            if name.split(".")[0] not in changed:
                assert old.equal(new)
            else:
                assert new.equal(last[name])
                constant = name in ("1.weight", "1.bias", "1.num_batches_tracked")
                assert constant or not old.equal(new)
    assert last["1.running_mean"].eq(0).all()
    assert last["1.running_var"].eq(1).all()
    again, other = (randomised(net, layers, seed)[6].weight for seed in (5, 6))
    assert again.equal(last["6.weight"])
    assert not other.equal(again)


class Scaled(nn.Module):
    """Has parameters, but no ``reset_parameters``."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(5 + 0.1 * torch.randn(400))
        self.single = nn.Parameter(torch.tensor(3.0))


class ResetsBias(Scaled):
    """Its reset leaves the weight as it is."""

    def reset_parameters(self):
        nn.init.uniform_(self.single)


@pytest.mark.parametrize("cls", [Scaled, ResetsBias])
def test_parameters_without_a_reset_are_drawn_with_their_mean_and_deviation(cls):
    net = cls()
    twin = randomised(net, [("",)], 0)
    assert not (twin.weight == net.weight).any()
    assert abs(float(twin.weight.detach().mean()) - 5) < 0.03
    assert abs(float(twin.weight.detach().std()) - 0.1) < 0.02
    assert (twin.single == 3) == (cls is Scaled)


@pytest.mark.parametrize(
    ("n_steps", "steps"), [(1, [0, 4]), (2, [0, 1, 4]), (3, [0, 1, 3, 4]), (9, [0, 1, 2, 3, 4])]
)
def test_the_steps_begin_with_the_last_layer_and_end_with_all(n_steps, steps):
    check = checked(n_steps=n_steps, methods={"Itself": Itself})
    assert check.steps == steps
    lowest = [None, "6", "4", "1", "0"]
    expected = [(count, lowest[count]) for count in steps]
    assert [(row["layers"], row["lowest"]) for row in check.rows()] == expected


# ---- agreement


def plain_correlation(first, second):
    """Spearman's, from ranks that are counted one by one."""
    ranks = [
        [sum(v < w for v in values) + sum(v == w for v in values) / 2 for w in values]
        for values in (first.flatten().tolist(), second.flatten().tolist())
    ]
    return statistics.correlation(*ranks)


@pytest.mark.parametrize("levels", [2, 5, 1000])
def test_the_rank_correlation_is_that_of_slow_plain_code(levels):
    torch.manual_seed(levels)
    first, second = (torch.rand(2, 8, 8) * levels).round()
    assert rank_correlation(first, second) == pytest.approx(plain_correlation(first, second))
    assert rank_correlation(first, second) == rank_correlation(second, first)
    assert rank_correlation(first, 2 * first) == pytest.approx(1)
    assert rank_correlation(first, -first) == pytest.approx(-1)
    flat = torch.zeros(8, 8)
    assert rank_correlation(first, flat) == rank_correlation(flat, first) == 0
    assert rank_correlation(flat, flat.clone()) == 1


def test_agreements_are_those_of_a_slow_plain_loop():
    net, other = deep_net(), deep_net(2)
    with torch.no_grad():
        net[6].weight.mul_(6)
        net[6].bias -= net(SEARCH).mean(0)
    methods, held_out = {"Saliency": Saliency}, (HELD_OUT, LABELS)
    check = checked(net, methods=methods, held_out=held_out, other=other, n_steps=1)
    models = {
        ("layers", 0): net,
        ("layers", 4): randomised(net, layers_from_top(net, CANVASES[:1]), 1),
        ("labels", 0): other,
    }
    expected = [(*which, y) for which in models for y in TARGETS]
    assert [(a.test, a.randomised, a.canvas) for a in check.agreements] == expected
    for a in check.agreements:
        image = CANVASES[a.canvas]
        given = image[None].clone().requires_grad_()
        maps = [
            Saliency(copy.deepcopy(model)).attribute(given, a.target)[0].double().sum(0)
            for model in (net, models[a.test, a.randomised])
        ]
        first, second = masks = [plain_mask(map, 0.1) for map in maps]
        assert a.iou == pytest.approx(float((first & second).sum() / (first | second).sum()))
        assert a.correlation == pytest.approx(plain_correlation(*maps))
        hits, n = plain_hits(net, image, masks[1], a.target, HELD_OUT, LABELS)
        assert (n, a.power) == (50, pytest.approx(hits / n))
    assert any(a.power > 0 for a in check.agreements)
    assert set(check.random_pixels) == set(TARGETS)
    for y, [power] in check.random_pixels.items():
        whole, given = Pattern(CANVASES[y], torch.ones(1, 6, 6), y), (HELD_OUT, LABELS)
        draws = [random_pixels(whole, 0.1, seed) for seed in range(3)]
        powers = [predictive_power(net, draw, *given, area=None).value for draw in draws]
        assert power == pytest.approx(sum(powers) / 3)
    predicted = net(HELD_OUT).argmax(1)
    rates = {y: float((predicted[y != LABELS] == y).double().mean()) for y in TARGETS}
    assert check.no_pattern == pytest.approx(rates)
    row, random = verdict_of(check, "Saliency"), sum(p for [p] in check.random_pixels.values()) / 6
    assert row["power_above_random"] == pytest.approx(row["power_after"] - random)
    assert {"power", "power_low", "random_pixels", "no_pattern"} <= set(check.rows()[0])


def test_without_held_out_images_there_is_no_power():
    check = checked()
    assert not check.random_pixels
    assert {a.power for a in check.agreements} == {None}
    assert not [name for name in check.rows()[0] if "power" in name or "random" in name]
    assert {(a.method, a.ranking) for a in check.agreements} == {
        ("Saliency", "signed"), ("InputXGradient", "signed"), ("InputXGradient", "absolute")
    }  # fmt: skip


def test_the_compared_maps_always_have_other_seeds():
    check = checked(methods={"Searching": Searching}, n_seeds=3)
    # the image rolled by one or two pixels, whatever the model is
    by_seed = {}
    for a in check.agreements:
        by_seed.setdefault((a.canvas, a.seed), set()).add((a.iou, a.correlation))
    assert {seed for _, seed in by_seed} == {1, 2}
    assert all(len(values) == 1 for values in by_seed.values())
    for canvas, image in enumerate(CANVASES):
        [(_, correlation)] = by_seed[canvas, 2]
        maps = [rolled(image, 0.1, seed) for seed in (0, 2)]
        assert correlation == pytest.approx(plain_correlation(*maps))
    row = verdict_of(check, "Searching")
    assert row["lost"] == row["lost_low"] == 0
    assert row["between_seeds"] < 1


def test_the_same_model_as_the_other_has_the_same_maps():
    net = deep_net()
    check = checked(net, other=copy.deepcopy(net), n_steps=0)
    assert (check.layers, check.steps) == ([], [0])
    row = verdict_of(check, "Saliency", "labels")
    assert (row["after"], row["verdict"]) == (1, "no change")
    assert table_of(read(check, pictures=0))["Saliency"]["changed"] == "labels"
    functions = checked(net.forward, other=deep_net(9).forward, n_steps=0)
    assert verdict_of(functions, "Saliency", "labels")["lost"] > 0
    assert len(functions.verdicts()) == 3


# ---- verdicts


def test_a_map_of_the_image_does_not_change_and_random_ones_cannot_be_judged():
    same = {"Itself": Itself, "Function": from_function(lambda i, target: i)}
    check = checked(methods={**same, "RandomPixels": RandomPixels, "Saliency": Saliency})
    for name in same:
        for measure in ("iou", "correlation"):
            row = verdict_of(check, name, measure=measure)
            assert row["verdict"] == "no change"
            assert row["after"] == row["between_seeds"] == row["after_low"] == 1
            assert row["lost"] == 0
    assert verdict_of(check, "RandomPixels")["verdict"] == "random"
    many = checked(methods={"RandomPixels": RandomPixels}, n_seeds=30, n_steps=1)
    assert verdict_of(many, "RandomPixels")["after"] == pytest.approx(CHANCE, abs=0.02)
    assert verdict_of(check, "Saliency")["lost"] > 0.3
    assert check.chance == CHANCE


def made(before, after, failures=(), **changes):
    """A check with these IoUs and correlations, of a class each."""
    agreements = [
        Agreement("m", "signed", "layers", randomised, 1, y, y, iou, iou, 0.0)
        for randomised, values in enumerate((before, [0.77] * len(before), after))
        for y, iou in enumerate(values)
    ]
    return SanityCheck([("top",), ("low",)], [0, 1, 2], agreements, failures, 0.05, **changes)


@pytest.mark.parametrize(
    ("before", "after", "verdict", "by_correlation"),  # whose chance is 0
    [
        ([1] * 5, [1] * 5, "no change", "no change"),
        ([1] * 5, [1, 1, 1, 1, 0.99], "no change", "no change"),
        ([1] * 5, [0.5, 0.6, 0.5, 0.4, 0.5], "part stays", "part stays"),
        ([1] * 5, [0.04, 0.06, 0.05, 0.05, 0.05], "gone", "part stays"),
        ([1] * 5, [0.0] * 5, "gone", "gone"),
        ([1] * 5, [0.6] * 5, "most stays", "most stays"),
        ([1] * 5, [0.52] * 5, "part stays", "most stays"),  # half-way is (1 + 0.05) / 2
        ([1] * 5, [0.53] * 5, "most stays", "most stays"),
        ([0.3, 0.4, 0.3, 0.2, 0.3], [0.2, 0.5, 0.3, 0.1, 0.4], "no change", "no change"),
        ([0.3, 0.4, 0.3, 0.2, 0.3], [0.2, 0.3, 0.1, 0.1, 0.2], "part stays", "part stays"),
        ([0.04, 0.06, 0.05, 0.05, 0.05], [0.05, 0.05, 0.05, 0.06, 0.04], "random", "no change"),
        ([0.04, 0.06, 0.05, 0.05, 0.05], [0.0] * 5, "random", "gone"),
        ([1] * 4, [0.0] * 4, None, None),  # fewer than five classes
    ],
)
def test_the_rule_of_the_verdicts(before, after, verdict, by_correlation):
    check, n = made(before, after), len(before)
    [row] = check.verdicts()
    assert row["verdict"] == verdict
    assert verdict_of(check, "m", measure="correlation")["verdict"] == by_correlation
    assert row["between_seeds"] == pytest.approx(sum(before) / n)
    assert row["after"] == pytest.approx(sum(after) / n)
    assert row["lost"] == pytest.approx(sum(before) / n - sum(after) / n)
    assert (check.rows()[0]["iou_low"] is None) == (verdict is None)


# ---- what stays, what repeats, what goes wrong


def test_the_model_is_as_before():
    net, other = deep_net(), deep_net(4)
    net[1].training = True
    for parameter in net.parameters():
        parameter.grad = torch.ones_like(parameter)
    before = [state_of_caller(model, CANVASES, SEARCH) for model in (net, other)]
    with pytest.warns(UserWarning, match="the model is in train mode"):
        checked(net, other=other, held_out=(HELD_OUT, LABELS), n_steps=2)
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


def test_methods_do_not_affect_each_other_and_a_seed_repeats_the_result():
    methods = {
        "ClassPattern": (lambda model: ClassPattern(model, SEARCH, LABELS), {"n_steps": 2}),
        "Saliency": Saliency,
        "RandomPixels": RandomPixels,
    }
    together = checked(methods=methods, n_steps=1)
    for name, method in methods.items():
        alone = checked(methods={name: method}, n_steps=1)
        assert alone.agreements == [a for a in together.agreements if a.method == name]
    other = checked(methods="Saliency", n_steps=1, seed=7)  # known by its name
    assert other.settings["methods"] == {"Saliency": {}}
    ours = [a.correlation for a in together.agreements if a.method == "Saliency"]
    assert ours != [a.correlation for a in other.agreements]


def test_a_method_that_fails_is_a_row_with_the_reason():
    class Fragile(Saliency):
        def attribute(self, inputs, target=None):
            if self.forward_func[6].weight.equal(net[6].weight):
                return super().attribute(inputs, target)
            raise RuntimeError("not with\nthese weights")

    net, methods = deep_net(), {"Fragile": Fragile, "broken": lambda m: 1 / 0, "Itself": Itself}
    check = checked(net, methods=methods, n_steps=2)
    assert repr(check) == "SanityCheck(2 methods, 6 canvases, 4 layers in 2 steps, 3 failures)"
    assert [(row["method"], row["failure"]) for row in check.rows()[-3:]] == [
        ("broken", "original: ZeroDivisionError: division by zero"),
        ("Fragile", "1 of 4 layers: RuntimeError: not with these weights"),
        ("Fragile", "4 of 4 layers: RuntimeError: not with these weights"),
    ]
    assert [row["method"] for row in check.verdicts()] == ["Itself"]
    assert len(check.table()) == len(check.rows())


POOLED = nn.Sequential(nn.AdaptiveAvgPool2d((2, 3)), nn.Flatten()).eval()
REFUSALS = {
    "one seed": partial(checked, n_seeds=1),
    "fewer than no steps": partial(checked, n_steps=-1),
    "nothing to test": partial(checked, n_steps=0),
    "a seed below 0": partial(checked, seed=-1),
    "an area in words": partial(checked, area="5 %"),
    "an area of no pixel": partial(checked, area=0.001),
    "a target out of range": partial(checked, targets=6),
    "another model of three classes": partial(checked, other=conv_net()),
    "an unknown method": partial(checked, methods=["Salient"]),
    "an attribution object": partial(checked, methods={"a": Saliency(len)}),
    "held-out images that were searched": partial(checked, held_out=(SEARCH, LABELS)),
    "search images of another shape": partial(checked, search=torch.rand(9, 3, 5, 5)),
    "no layers": partial(checked, POOLED, targets=0, methods={"Itself": Itself}),
    "layers of a function": partial(checked, deep_net().forward),
    "maps of two shapes": lambda: rank_correlation(torch.rand(5, 5), torch.rand(2, 2)),
    "an unknown measure": lambda: made([1] * 5, [1] * 5).verdicts("ssim"),
    "a plot of both rankings": lambda: made([1] * 5, [1] * 5).plot(ranking="both"),
    "a plot of no layers": lambda: SanityCheck([], [0], [], [], 0.1).plot(),
}


@pytest.mark.parametrize("case", REFUSALS)
def test_refusals(case, snapshot):
    assert refusal(REFUSALS[case]) == snapshot


# ---- figure and notebook


def test_the_figure_has_a_panel_for_each_method():
    check = checked()
    _, axes = check.plot(use_pyplot=False)
    assert [axis.get_title() for axis in axes] == [*METHODS]
    for axis, name in zip(axes, METHODS):
        lines = {line.get_label(): line for line in axis.get_lines()}
        rows = [r for r in check.rows() if (r["method"], r["ranking"]) == (name, "signed")]
        iou = lines["IoU of the highest pixels"]
        assert iou.get_xdata().tolist() == [0, 0.25, 0.5, 0.75, 1]
        assert iou.get_ydata().tolist() == [row["iou"] for row in rows]
        assert lines["rank correlation"].get_ydata().tolist() == [r["correlation"] for r in rows]
        assert set(lines["IoU of random masks"].get_ydata()) == {CHANCE}
        assert axis.texts[0].get_text() == verdict_of(check, name)["verdict"]
    _, [absolute] = check.plot(ranking="absolute", use_pyplot=False)
    assert absolute.get_title() == "InputXGradient"


PAGES = {
    "a failure": made([1] * 5, [0.5] * 5, [Failure("original", "no", "maps", "needs <img src=x>")]),
    "few classes": made([1] * 3, [0.5] * 3),
    "power": made(
        [1] * 5, [0] * 5, random_pixels={y: [0.1] for y in range(5)}, no_pattern={0: 0.0}
    ),
}


@pytest.mark.parametrize("case", PAGES)
def test_what_a_notebook_shows(case, tmp_path, snapshot):
    page = read(PAGES[case])
    pictures = [tag for tag, _ in page.tags].count("img")
    assert (pictures, page.text) == snapshot
    path = PAGES[case].to_html(tmp_path / "check.html")
    assert read_page(path.read_text(encoding="utf-8")).tables == page.tables
