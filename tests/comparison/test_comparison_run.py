"""compare() against a slow plain loop, its identities, and what it leaves untouched."""

import warnings
from threading import Lock

import pytest
import torch
from captum.attr import Attribution, IntegratedGradients, Saliency
from comparisons import (
    AREAS,
    CANVASES,
    HELD_OUT,
    LABELS,
    METHODS,
    SEARCH,
    TARGETS,
    FunctionMethod,
    Searching,
    all_facts,
    compared,
    conv_net,
    facts,
    from_function,
    linear_net,
    plain_hits,
    plain_mask,
)
from test_captum_contract import lived_in_inputs, state_of_caller
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from captum_classpattern import ClassPattern, Pattern, PixelClassifier
from captum_classpattern.comparison import (
    BestCrop,
    Interrupted,
    RandomPixels,
    known_methods,
    run,
)
from captum_classpattern.images import LabelledImages

# ---- the slow plain loop


def plain_choice(target, class_images=3, seed=0):
    """Random search images of a class."""
    indices = [i for i in range(60) if LABELS[i] == target]
    order = torch.randperm(len(indices), generator=torch.Generator().manual_seed(seed)).tolist()
    return [SEARCH[indices[place]] for place in order[:class_images]]


def plain_maps(net, image, target):
    """By the weights of a linear model, summed over the channels."""
    weight = net[1].weight[target].detach().view(image.shape)
    return {
        "Saliency": weight.abs().double().sum(0),
        "InputXGradient": (weight * image).double().sum(0),
    }


def plain_comparison(models, area=0.1):
    found = []
    for model, net in models.items():
        for method in METHODS:
            for level in ("image", "class"):
                for ranking in ("signed", "absolute"):
                    if method == "Saliency" and ranking == "absolute":
                        continue
                    for canvas, (image, target) in enumerate(zip(CANVASES, TARGETS)):
                        images = [image] if level == "image" else plain_choice(target)
                        maps = [plain_maps(net, one, target)[method] for one in images]
                        map = sum(maps) / len(maps)
                        ranked = map.abs() if ranking == "absolute" else map
                        masks = {a: plain_mask(ranked, a) for a in AREAS}
                        found.append(
                            {
                                "which": (model, method, level, ranking, canvas, target),
                                "map": map,
                                "masks": masks,
                                "hits": {
                                    a: plain_hits(net, image, mask, target)
                                    for a, mask in masks.items()
                                },
                                "transfer": {
                                    name: plain_hits(other, image, masks[area], target)
                                    for name, other in models.items()
                                    if name != model
                                },
                            }
                        )
    return found


def test_all_records_are_those_of_a_slow_plain_loop():
    models = {"one": linear_net(1), "other": linear_net(2)}
    comparison = compared(models=models)
    expected = plain_comparison(models)
    assert len(comparison.records) == len(expected) == 48
    assert not comparison.failures
    for r, plain in zip(comparison.records, expected):
        assert (r.model, r.method, r.level, r.ranking, r.canvas, r.target) == plain["which"]
        torch.testing.assert_close(r.map, plain["map"], rtol=1e-12, atol=1e-12)
        assert list(r.masks) == list(r.powers) == AREAS
        for area in AREAS:
            assert torch.equal(r.masks[area][0], plain["masks"][area])
            hits, n = plain["hits"][area]
            assert (r.powers[area].value, r.powers[area].n) == (hits / n, n)
            bare, _ = plain_hits(
                models[r.model], CANVASES[0], torch.zeros(6, 6, dtype=torch.bool), r.target
            )
            assert r.powers[area].without == bare / n
        usual = (r.level, r.ranking) == ("image", "signed")
        assert {k: p.value for k, p in r.scores.get("on", {}).items()} == {
            k: hits / n for k, (hits, n) in plain["transfer"].items() if usual
        }
        assert not r.control
        assert r.kind == "canvas"
        assert r.rethresholded == {}
    values = {r.powers[0.3].value for r in comparison.records}
    assert len(values) > 5
    assert max(values) > 0.8


def test_a_method_with_an_area_is_called_anew_for_each():
    comparison = compared(methods={"Searching": Searching}, seed=4)
    net = linear_net()
    assert [(r.level, r.ranking, r.canvas) for r in comparison.records] == [
        ("image", "signed", i) for i in range(4)
    ]
    for r, image in zip(comparison.records, CANVASES):
        maps = {a: image.double().sum(0).roll(round(a * 36) + 4, -1) for a in AREAS}
        torch.testing.assert_close(r.map, maps[0.1])
        for area in AREAS:
            searched, cut = plain_mask(maps[area], area), plain_mask(maps[0.1], area)
            assert torch.equal(r.masks[area][0], searched)
            hits, n = plain_hits(net, image, searched, r.target)
            assert r.powers[area].value == hits / n
            if area != 0.1:
                hits, n = plain_hits(net, image, cut, r.target)
                assert r.rethresholded[area].value == hits / n
        assert list(r.rethresholded) == [0.06, 0.3]


def test_the_area_is_always_among_the_areas():
    comparison = compared(area=0.2, areas=[0.3, 0.06])
    assert comparison.areas == [0.06, 0.2, 0.3]
    assert all(list(r.powers) == [0.06, 0.2, 0.3] for r in comparison.records)


def test_default_areas_are_those_that_keep_a_pixel():
    assert compared(areas=None).areas == [0.02, 0.05, 0.1, 0.2]  # of 36 pixels


def test_each_model_has_its_accuracy():
    models = {"one": linear_net(1), "other": linear_net(2)}
    for name, accuracy in compared(models=models).models.items():
        right = [
            int(models[name](image[None]).argmax()) == label
            for image, label in zip(HELD_OUT, LABELS.tolist())
        ]
        assert accuracy == pytest.approx(sum(right) / 60)


def test_images_may_come_as_data_sets_or_without_labels():
    expected = compared()
    given = compared(
        search=DataLoader(TensorDataset(SEARCH, LABELS), batch_size=7, shuffle=True),
        search_labels=None,
        held_out=TensorDataset(HELD_OUT, LABELS),
        held_out_labels=None,
    )
    assert all_facts(given) == all_facts(expected)
    net = linear_net()
    with torch.no_grad():
        search, held_out = net(SEARCH).argmax(1), net(HELD_OUT).argmax(1)
    predicted = compared(search_labels=None, held_out_labels=None)
    assert all_facts(predicted) == all_facts(
        compared(search_labels=search, held_out_labels=held_out)
    )
    assert all_facts(predicted) != all_facts(expected)


def test_held_out_images_are_cut_down_evenly_over_the_classes():
    comparison = compared(max_images=9)
    assert {p.n for r in comparison.records for p in r.powers.values()} == {6}
    assert comparison.settings["held_out_images"] == 9


def test_the_settings_are_complete():
    keywords = {"n_steps": 7, "baselines": torch.zeros(1, *SEARCH.shape[1:]), "method": None}
    comparison = compared(methods={"IG": (IntegratedGradients, keywords), "S": Saliency}, seed=3)
    settings = comparison.settings
    assert settings["methods"] == {
        "IG": {"n_steps": 7, "baselines": "Tensor (1, 3, 6, 6)", "method": None},
        "S": {},
    }
    wanted = {"area": 0.1, "areas": AREAS, "class_images": 3, "stamped": 2, "max_images": 500}
    wanted |= {"seed": 3, "n_seeds": 2, "search_images": 60, "held_out_images": 60}
    assert {name: settings[name] for name in wanted} == wanted
    assert settings["search_images_hash"] != settings["held_out_images_hash"]
    assert settings["versions"]["torch"] == torch.__version__


def test_class_names_are_the_first_models_or_those_given():
    named = PixelClassifier(linear_net(), class_names=["a", "b", "c"])
    assert compared(models={"m": named}).class_names == ["a", "b", "c"]
    given = compared(models={"m": named}, class_names=("x", "y"))
    assert [given.class_name(i) for i in range(3)] == ["x", "y", "class 2"]
    assert compared().class_names is None
    assert compared().class_name(2) == "class 2"


@pytest.mark.parametrize(
    "wrapped", [lambda model: nn.DataParallel(model).eval(), lambda model: model.forward]
)
def test_wrapped_models_keep_the_names_of_their_classes(wrapped):
    named = PixelClassifier(linear_net(), class_names=["a", "b", "c"])
    assert compared(models={"m": wrapped(named)}).class_names == ["a", "b", "c"]


# ---- identities

SEEDED = {
    **METHODS,
    "RandomPixels": RandomPixels,
    "ClassPattern": (lambda m: ClassPattern(m, SEARCH, LABELS), {"n_steps": 2}),
}


@pytest.mark.parametrize("left_out", list(SEEDED))
def test_no_method_depends_on_another(left_out):
    together = compared(methods=SEEDED)
    others = {name: how for name, how in reversed(SEEDED.items()) if name != left_out}
    apart = compared(methods=others)
    for name in others:
        assert all_facts(apart, method=name) == all_facts(together, method=name)
    assert not apart.select(method=left_out)


def test_no_model_depends_on_another():
    models = {"one": conv_net(1), "other": conv_net(2)}
    together = compared(models=models, methods=SEEDED)
    for name, net in models.items():
        alone = compared(models={name: net}, methods=SEEDED)
        for ours, theirs in zip(alone.records, together.select(model=name), strict=True):
            expected = facts(theirs)
            expected["scores"].pop("on", None)
            assert facts(ours) == expected


def test_no_canvas_depends_on_another():
    together = compared()
    for canvas in range(4):
        alone = compared(canvases=CANVASES[canvas : canvas + 1], targets=TARGETS[canvas])
        theirs = together.select(canvas=canvas)
        assert len(alone.records) == len(theirs) == 6
        for one, other in zip(alone.records, theirs):
            one, other = facts(one), {**facts(other), "canvas": 0}
            for scores in (one["scores"], other["scores"]):
                scores.pop("stability_canvases", None)  # the other image may be a canvas here
            assert one == other


def test_the_same_seed_twice_is_the_same():
    assert all_facts(compared(methods=SEEDED)) == all_facts(compared(methods=SEEDED))


def test_another_seed_makes_other_random_choices():
    methods = {**METHODS, "RandomPixels": RandomPixels}
    one, other = compared(methods=methods), compared(methods=methods, seed=5)
    random, class_mean = {"method": "RandomPixels"}, {"method": "InputXGradient", "level": "class"}
    for wanted in (random, class_mean):
        for ours, theirs in zip(one.select(**wanted), other.select(**wanted), strict=True):
            assert not torch.equal(ours.map, theirs.map)
    for ours, theirs in zip(one.select(method="Saliency"), other.select(method="Saliency")):
        assert torch.equal(ours.map, theirs.map)


def test_random_maps_differ_from_canvas_to_canvas_however_many():
    many = compared(canvases=SEARCH[:20], targets=0, methods={"RandomPixels": RandomPixels})
    assert len({record.map.numpy().tobytes() for record in many.records}) == 20


# ---- what goes wrong


def refused(match, error=ValueError, **changes):
    with pytest.raises(error, match=match):
        compared(**changes)


def test_arguments_that_do_not_fit_are_refused():
    refused("models is empty: give a dict of classifiers by name", models={})
    refused("there are 4 canvases, but 3 canvas_kinds", canvas_kinds=["a", "b", "c"])
    refused(
        "'stamped' is the kind of stamped canvases; use another word", canvas_kinds=["stamped"] * 4
    )
    refused(r"`area` is the share of pixels to keep: 0\.01 of 6x6 = 36 pixels", area=0.01)
    refused(r"`area` is the share of pixels to keep: 0\.001 of", areas=[0.1, 0.001])
    refused("there are 4 images, but 2 targets", targets=[0, 1])
    refused("target 3 is out of range: the model has 3 classes", targets=3)
    refused("target must be an int", TypeError, targets=True)
    refused(r"canvases must have pixels in \[0, 1\]", canvases=CANVASES * 2)
    refused("canvases and baselines must be of one shape", search=torch.rand(60, 3, 5, 5))
    refused(
        r"held-out images must have the canvases' shape \(3, 6, 6\), got \(3, 7, 7\)",
        held_out=torch.rand(60, 3, 7, 7),
    )
    refused("`class_images` must be a whole number from 0, got -1", class_images=-1)
    for name in ("stamped", "max_images", "n_seeds"):
        refused(f"`{name}` must be a whole number from 1, got 0", **{name: 0})
    refused("`seed` must be a whole number", seed=-1)


def test_held_out_images_of_one_class_are_refused_before_any_method_runs():
    called = []
    methods = {"spy": lambda model: called.append(model)}
    refused(
        "all 60 held-out images are of class 1: give images of other classes too",
        held_out_labels=[1] * 60,
        methods=methods,
    )
    assert not called
    assert not compared(held_out_labels=[1] * 60, targets=0).failures  # no image of class 0 is fine


def test_images_in_both_sets_are_refused():
    mixed = HELD_OUT.clone()
    mixed[7], mixed[40] = SEARCH[0], SEARCH[59]
    refused(
        "2 of the 60 held-out images are among the search images, or are exact copies",
        held_out=mixed,
    )


def test_a_canvas_among_the_held_out_images_is_refused():
    canvases = torch.stack([SEARCH[0], HELD_OUT[9]])
    refused("canvas 1 is one of the held-out images", canvases=canvases, targets=[0, 1])


# ---- who sees what


class Watched(nn.Module):
    """Notes what reaches it and its copies."""

    def __init__(self, net, seen):
        super().__init__()
        self.net, self.seen = net, seen

    def __deepcopy__(self, memo):
        return Watched(self.net, self.seen).train(self.training)

    def forward(self, images):
        hashes = LabelledImages.of(images.detach().clamp(0, 1), argument="images").hashes
        self.seen.setdefault(id(self), []).extend(hashes)
        return self.net(images)


def test_no_method_sees_a_held_out_image(monkeypatch):
    seen, given = {}, []

    def noted(baselines, **kwargs):
        given.append(baselines)
        names = ["ClassPattern", "Saliency", "BestCrop", "ClassMean", "GradientShap"]
        return known_methods(baselines, names=names, n_steps=1)

    monkeypatch.setattr(run, "known_methods", noted)
    model = Watched(linear_net(), seen).eval()
    comparison = compared(models={"watched": model}, methods=None, n_seeds=1)
    assert len({r.method for r in comparison.records}) == 5
    [baselines] = given
    assert baselines.hashes == LabelledImages.of(SEARCH, argument="images").hashes
    assert torch.equal(baselines.labels, LABELS)
    held_out = set(LabelledImages.of(HELD_OUT, argument="images").hashes)
    assert held_out <= set(seen.pop(id(model)))  # the scorer's
    by_methods = {one for hashes in seen.values() for one in hashes}
    assert len(by_methods) > 100
    assert not by_methods & held_out


def test_methods_explain_canvases_and_search_images_of_the_class_alone():
    seen = []

    def function(images, targets):
        seen.extend(zip(LabelledImages.of(images, argument="images").hashes, list(targets)))
        return images.clone()

    searched = LabelledImages.of(SEARCH, argument="images").hashes

    compared(methods={"spy": from_function(function)})
    explained = [(searched.index(one), target) for one, target in seen if one in searched]
    canvases = set(enumerate(TARGETS))
    of_class = {pair for pair in explained if pair not in canvases}
    assert canvases <= set(explained)
    assert all(int(LABELS[index]) == target for index, target in of_class)
    assert 3 <= len(of_class) <= 9


# ---- nobody is harmed


class Careless(FunctionMethod):
    """Doubles the model's weights, leaves a hook in it and changes its inputs in place."""

    def attribute(self, inputs, target=None, additional_forward_args=None):
        with torch.no_grad():
            self.forward_func[1].weight.mul_(2)
        self.forward_func.register_forward_hook(lambda part, inputs, output: output * 0)
        self.forward_func(inputs[0] if isinstance(inputs, tuple) else inputs)
        return super().attribute(inputs, target)


def spoiling(images, targets):
    return images.mul_(0).requires_grad_().detach()


def failing(images, targets):
    raise RuntimeError("half way")


def failing_in_a_metric(images, targets):
    if len(images) > 1:
        raise RuntimeError("too many for sensitivity_max")
    return images


@pytest.mark.parametrize("function", [spoiling, failing, failing_in_a_metric])
def test_a_careless_method_harms_no_other_one(function):
    net = linear_net()
    before = state_of_caller(net, CANVASES)
    expected = compared(models={"linear": net})
    careless = compared(
        models={"linear": net}, methods={"careless": lambda m: Careless(m, function), **METHODS}
    )
    assert state_of_caller(net, CANVASES) == before
    kept = [record for record in careless.records if record.method != "careless"]
    assert [facts(record) for record in kept] == all_facts(expected)
    what = {spoiling: [], failing: ["maps"], failing_in_a_metric: ["sensitivity_max"]}[function]
    assert [(f.method, f.what) for f in careless.failures] == [("careless", one) for one in what]


def test_a_failure_gives_the_reason_and_the_others_go_on():
    comparison = compared(
        methods={"broken": from_function(failing), "no": lambda m: 1 / 0, **METHODS}
    )
    assert [f.as_dict() for f in comparison.failures] == [
        {
            "model": "linear",
            "method": "broken",
            "what": "maps",
            "reason": "RuntimeError: half way",
        },
        {
            "model": "linear",
            "method": "no",
            "what": "maps",
            "reason": "ZeroDivisionError: division by zero",
        },
    ]
    assert {record.method for record in comparison.records} == set(METHODS)


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_gradients_switched_off_around_the_call(mode):
    expected = compared(methods=SEEDED)
    with mode():
        inside = compared(
            canvases=CANVASES.clone(),
            search=SEARCH.clone(),
            held_out=HELD_OUT.clone(),
            methods=SEEDED,
        )
    assert not inside.failures
    assert all_facts(inside) == all_facts(expected)


def lived_in(net):
    for parameter in net.parameters():
        parameter.grad = torch.full_like(parameter, 0.5)
    net[0].bias.requires_grad_(False)
    net[1].train()
    return net


def test_the_caller_is_left_untouched():
    net, plain = lived_in(conv_net()), conv_net()
    canvases, search = lived_in_inputs(CANVASES.clone()), SEARCH.clone()
    before = state_of_caller(net, canvases, search, HELD_OUT)
    names = ["ClassPattern", "DeepLift", "GuidedGradCam", "GradientShap", "LRP", "KernelShap"]
    methods = {**known_methods(SEARCH, LABELS, names=names, n_steps=2), "R": RandomPixels}
    with pytest.warns(UserWarning, match="the model is in train mode"):
        comparison = compared(
            models={"conv": net}, canvases=canvases, search=search, methods=methods, n_seeds=1
        )
    assert state_of_caller(net, canvases, search, HELD_OUT) == before
    expected = compared(models={"conv": plain}, methods=methods, n_seeds=1)
    assert [f.method for f in comparison.failures] == [f.method for f in expected.failures]
    for ours, theirs in zip(comparison.records, expected.records, strict=True):
        assert torch.equal(ours.map, theirs.map)


def test_a_model_of_double_precision_and_its_forward_alone():
    net = linear_net(dtype=torch.float64)
    expected = compared()
    references = SEARCH[:5]
    methods = {**METHODS, "ours": SEEDED["ClassPattern"]}
    for model in (net, net.forward, lambda images: net(images.double())):
        found = compared(models={"linear": model}, methods=methods)
        assert not found.failures
        for ours, theirs in zip(
            found.select(method="Saliency"), expected.select(method="Saliency")
        ):
            torch.testing.assert_close(ours.map, theirs.map)
    shap = {"IG": (IntegratedGradients, {"baselines": references[:1]})}
    assert not compared(models={"linear": net}, methods=shap).failures


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_canvases_of_another_precision(dtype):
    found = compared(canvases=CANVASES.to(dtype), methods=SEEDED)
    expected = compared(canvases=CANVASES.to(dtype).float(), methods=SEEDED)
    assert not found.failures
    for ours, theirs in zip(found.records, expected.records, strict=True):
        assert all(torch.equal(ours.masks[area], theirs.masks[area]) for area in AREAS)
        assert ours.powers == theirs.powers


def test_no_warning_of_captums_reaches_the_caller():
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        compared(models={"conv": conv_net()}, methods=known_methods(SEARCH, LABELS, n_steps=1))
    assert not [w for w in caught if "close to guessing" not in str(w.message)]  # it is random


# ---- triggers

LOCALISATION = {
    "iou", "average_precision", "pointing_game", "relevance_mass", "relevance_rank"
}  # fmt: skip
CORNER, EDGE = torch.zeros(2, 1, 6, 6)
CORNER[0, 4:, 4:], EDGE[0, :, 0] = 1, 1
WHITE = torch.ones(3, 6, 6)


def perfect(pixels):
    return from_function(lambda images, targets: pixels.expand_as(images).clone())


def test_stamped_canvases_carry_the_trigger_and_are_no_images_of_its_class():
    comparison = compared(triggers={"linear": Pattern(WHITE, CORNER, 2)}, stamped=3)
    searched = LabelledImages.of(SEARCH, argument="images").hashes
    stamped = comparison.stamped["linear"]
    assert stamped.shape == (3, 3, 6, 6)
    for image in stamped:
        assert image[:, 4:, 4:].eq(1).all()
        sources = [
            i for i in range(60) if torch.equal(torch.where(CORNER > 0, 1.0, SEARCH[i]), image)
        ]
        assert len(sources) == 1
        assert LABELS[sources[0]] != 2
    assert len(set(LabelledImages.of(stamped, argument="images").hashes)) == 3
    assert not set(LabelledImages.of(stamped, argument="images").hashes) & set(searched)
    for record in comparison.select(kind="stamped"):
        assert record.target == 2
        assert record.powers == {}
        assert not {"on", "stability_seeds", "stability_canvases", "infidelity"} & set(
            record.scores
        )
        assert list(record.masks) == [0.1]
        canvas = comparison.canvas_of(record)
        assert torch.equal(canvas, stamped[record.canvas - 4])
        if record.method == "Saliency" and record.level == "image":
            weight = linear_net()[1].weight[2].detach().view(3, 6, 6).abs().double().sum(0)
            assert torch.equal(record.map, weight)


@pytest.mark.parametrize("mask", [CORNER, EDGE], ids=["corner", "edge"])
def test_a_perfect_map_is_localised_perfectly(mask):
    comparison = compared(
        methods={"perfect": perfect(mask), **METHODS}, triggers={"linear": Pattern(WHITE, mask, 1)}
    )
    for record in comparison.records:
        if record.target != 1:
            assert not LOCALISATION & set(record.scores)
        elif record.method == "perfect":
            assert {record.scores[name] for name in LOCALISATION} == {1.0}
        else:
            assert 0 <= record.scores["average_precision"] < 0.9
    assert {r.canvas for r in comparison.records if "iou" in r.scores} == {1, 3, 4, 5}


def test_without_a_trigger_nothing_is_localised_or_stamped():
    comparison = compared()
    assert all("iou" not in record.scores for record in comparison.records)
    assert comparison.triggers == {}
    assert comparison.stamped["linear"].shape == (0, 3, 6, 6)


def test_a_model_without_a_trigger_is_measured_with_the_only_one():
    trigger = Pattern(WHITE, CORNER, 1)
    bad, clean = PixelClassifier(linear_net(1), trigger=trigger), linear_net(2)
    comparison = compared(models={"clean": clean, "bad": bad}, methods={"all": perfect(CORNER)})
    assert comparison.triggers == {"clean": trigger, "bad": trigger}
    for model in ("clean", "bad"):
        found = [r for r in comparison.select(model=model) if "iou" in r.scores]
        assert {r.canvas for r in found} == {1, 3, 4, 5}
        assert {r.scores["iou"] for r in found} == {1.0}
    given = compared(models={"clean": clean, "bad": bad}, triggers={}, methods=METHODS)
    assert given.triggers == {}


def test_each_model_has_its_own_trigger():
    triggers = {"one": Pattern(WHITE, CORNER, 0), "other": Pattern(WHITE, EDGE, 1)}
    models = {"one": linear_net(1), "other": linear_net(2), "third": linear_net(3)}
    methods = {"corner": perfect(CORNER), "edge": perfect(EDGE)}
    comparison = compared(models=models, triggers=triggers, methods=methods, stamped=1)
    assert comparison.triggers == triggers
    found = {
        (r.model, r.method, r.target, r.scores["iou"] == 1)
        for r in comparison.records
        if "iou" in r.scores
    }
    assert found == {
        ("one", "corner", 0, True),
        ("one", "edge", 0, False),
        ("other", "corner", 1, False),
        ("other", "edge", 1, True),
    }
    assert torch.equal(comparison.stamped["one"][0, :, 4:, 4:], torch.ones(3, 2, 2))
    assert torch.equal(comparison.stamped["other"][0, :, :, 0], torch.ones(3, 6))
    assert len(comparison.stamped["third"]) == 0


def test_a_trigger_for_an_unknown_model_is_refused():
    refused(
        r"there is a trigger for 'nobody', but the models are \['linear'\]",
        triggers={"nobody": Pattern(WHITE, CORNER, 0)},
    )


def test_a_search_is_localised_at_the_triggers_own_area():
    calls = []

    class Noted(Searching):
        def attribute(self, inputs, target=None, additional_forward_args=None, *, area, seed=0):
            calls.append((round(area * 36, 6), seed, list(target)))
            return super().attribute(inputs, target, area=area, seed=seed)

    compared(methods={"noted": Noted}, triggers={"linear": Pattern(WHITE, EDGE, 1)}, seed=7)
    assert [one for one in calls if one[0] == 6] == [(6, 7, [1, 1, 1, 1]), (6, 8, [1, 1, 1, 1])]


def test_controls_are_marked():
    methods = {"crop": lambda m: BestCrop(m, SEARCH, LABELS), "random": RandomPixels, **METHODS}
    found = {(r.method, r.control) for r in compared(methods=methods).records}
    assert found == {
        ("crop", True),
        ("random", True),
        ("Saliency", False),
        ("InputXGradient", False),
    }
    assert {r.level for r in compared(methods=methods).records if r.control} == {"image"}


def test_what_was_finished_outlives_an_interrupt():
    class Stopping(Attribution):
        def attribute(self, inputs, target=None):
            raise KeyboardInterrupt

    with pytest.raises(Interrupted) as stopped:
        compared(methods={"Saliency": Saliency, "stop": Stopping, "never": Saliency})
    finished = stopped.value.comparison
    assert isinstance(stopped.value, KeyboardInterrupt)
    assert {record.method for record in finished.records} == {"Saliency"}
    assert finished.failures == []
    assert finished.verdicts()


def test_without_labels_no_accuracy_is_claimed():
    assert compared(held_out_labels=None).models == {"linear": None}
    assert compared().models["linear"] is not None


@pytest.mark.parametrize(
    ("changes", "kind", "words"),
    [
        ({"models": linear_net()}, TypeError, 'give {"mine": model}'),
        ({"methods": {"S": Saliency(linear_net())}}, TypeError, "an object is bound to one model"),
        ({"methods": "Magic"}, ValueError, "there is no method 'Magic'"),
    ],
)
def test_models_and_methods_in_another_form_are_refused(changes, kind, words):
    with pytest.raises(kind, match=words):
        compared(**changes)


def test_a_method_may_be_given_by_its_name():
    assert {r.method for r in compared(methods="Saliency").records} == {"Saliency"}


def test_a_model_that_cannot_be_copied_is_a_failure():
    class Locked(nn.Module):
        def __init__(self):
            super().__init__()
            self.net, self.lock = linear_net(), Lock()

        def forward(self, images):
            return self.net(images)

    found = compared(models={"locked": Locked().eval(), "linear": linear_net()})
    assert {failure.model for failure in found.failures} == {"locked"}
    assert {record.model for record in found.records} == {"linear"}
    assert found.settings["complete"]
