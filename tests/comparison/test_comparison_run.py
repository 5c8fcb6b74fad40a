"""compare() does what a slow, plain loop does, and leaves everything else untouched."""

from functools import partial
from itertools import product
from unittest.mock import Mock

import pytest
import torch
from captum.attr import Attribution, IntegratedGradients, Saliency
from comparisons import (
    AREAS,
    CANVASES,
    HELD_OUT,
    LABELS,
    LOCALISATION,
    METHODS,
    SEARCH,
    TARGETS,
    Searching,
    all_facts,
    compared,
    conv_net,
    facts,
    from_function,
    linear_net,
    plain_hits,
    plain_mask,
    rolled,
)
from refusals import refusal
from test_captum_contract import lived_in_inputs, state_of_caller
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from captum_classpattern import ClassPattern, Pattern, PixelClassifier
from captum_classpattern._support import progress
from captum_classpattern.comparison import (
    DEFAULT,
    Interrupted,
    RandomPixels,
    known_methods,
    run,
)
from captum_classpattern.images import LabelledImages
from captum_classpattern.pattern import MovingPattern

TWO_MODELS = {"one": linear_net(1), "other": linear_net(2)}
SEEDED = {
    **METHODS,
    "RandomPixels": RandomPixels,
    "ClassPattern": (lambda m: ClassPattern(m, SEARCH, LABELS), {"n_steps": 2}),
}


def hashes(images):
    return LabelledImages.of(images, argument="images").hashes


# ---- the slow plain loop


def plain_maps(net, image, target):
    """By the weights of a linear model, summed over the channels."""
    weight = net[1].weight[target].detach().view(image.shape)
    return {
        "Saliency": weight.abs().double().sum(0),
        "InputXGradient": (weight * image).double().sum(0),
    }


def test_all_records_are_those_of_a_slow_plain_loop():
    comparison = compared(models=TWO_MODELS, seed=5)
    expected = [*product(TWO_MODELS, METHODS, range(4))]
    assert [(r.model, r.method, r.canvas) for r in comparison.records] == expected
    for r in comparison.records:
        net, image = TWO_MODELS[r.model], CANVASES[r.canvas]
        map = plain_maps(net, image, r.target)[r.method]
        torch.testing.assert_close(r.map, map, rtol=1e-5, atol=1e-6)
        assert list(r.masks) == list(r.powers) == AREAS
        bare, _ = plain_hits(net, image, torch.zeros(6, 6, dtype=torch.bool), r.target)
        for area in AREAS:
            mask = plain_mask(map, area)
            assert torch.equal(r.masks[area][0], mask)
            hits, n = plain_hits(net, image, mask, r.target)
            power = r.powers[area]
            assert (power.value, power.n, power.without) == (hits / n, n, bare / n)
        assert (r.target, r.control, r.kind) == (TARGETS[r.canvas], False, "canvas")
        assert "iou" not in r.scores
    values = {r.powers[0.3].value for r in comparison.records}
    assert len(values) > 5
    assert max(values) > 0.8
    for name, accuracy in comparison.models.items():
        right = TWO_MODELS[name](HELD_OUT).argmax(1) == LABELS
        assert accuracy == pytest.approx(int(right.sum()) / 60)
    assert (comparison.failures, comparison.settings["backdoored"]) == ([], [])
    assert {len(images) for images in comparison.stamped.values()} == {0}


def test_a_method_with_an_area_is_called_anew_for_each():
    comparison, net = compared(methods={"Searching": Searching}, seed=4), linear_net()
    assert [r.canvas for r in comparison.records] == [0, 1, 2, 3]
    for r, image in zip(comparison.records, CANVASES):
        maps = {a: rolled(image, a, 4) for a in AREAS}
        torch.testing.assert_close(r.map, maps[0.1])
        masks = {a: plain_mask(maps[a], a) for a in AREAS}
        assert all(torch.equal(r.masks[a][0], masks[a]) for a in AREAS)
        hits = {a: plain_hits(net, image, masks[a], r.target)[0] / 40 for a in AREAS}
        assert {a: power.value for a, power in r.powers.items()} == hits


# ---- arguments


def test_the_area_is_always_among_the_areas():
    comparison = compared(area=0.2, areas=[0.3, 0.06])
    assert comparison.areas == [0.06, 0.2, 0.3]
    assert all(list(r.powers) == [0.06, 0.2, 0.3] for r in comparison.records)
    assert compared(areas=None).areas == [0.02, 0.05, 0.1, 0.2]  # that keep one of 36 pixels


def test_images_may_come_as_data_sets_or_without_labels():
    expected = compared()
    given = compared(
        search=DataLoader(TensorDataset(SEARCH, LABELS), batch_size=7, shuffle=True),
        search_labels=None,
        held_out=TensorDataset(HELD_OUT, LABELS),
        held_out_labels=None,
    )
    assert all_facts(given) == all_facts(expected)
    with torch.no_grad():
        search, held_out = (linear_net()(images).argmax(1) for images in (SEARCH, HELD_OUT))
    predicted = compared(search_labels=None, held_out_labels=None)
    labelled = compared(search_labels=search, held_out_labels=held_out)
    assert all_facts(predicted) == all_facts(labelled) != all_facts(expected)
    assert predicted.models == {"linear": None}  # no accuracy is claimed


def test_the_settings_are_complete():
    keywords = {"n_steps": 7, "baselines": torch.zeros(1, *SEARCH.shape[1:]), "method": None}
    methods = {"IG": (IntegratedGradients, keywords), "S": Saliency}
    comparison = compared(methods=methods, seed=3, max_images=9)
    assert {p.n for r in comparison.records for p in r.powers.values()} == {6}
    settings, shown = comparison.settings, {**keywords, "baselines": "Tensor (1, 3, 6, 6)"}
    wanted = {"area": 0.1, "areas": AREAS, "stamped": 2, "max_images": 9}
    wanted |= {"seed": 3, "n_seeds": 2, "search_images": 60, "held_out_images": 9}
    wanted |= {"methods": {"IG": shown, "S": {}}, "complete": True}
    assert {name: settings[name] for name in wanted} == wanted
    assert settings["search_images_hash"] != settings["held_out_images_hash"]
    assert settings["versions"]["torch"] == torch.__version__


def test_class_names_and_the_trigger_are_found_behind_what_wraps_a_model():
    trigger, names = Pattern(WHITE, CORNER, 1), ["a", "b", "c"]
    known = PixelClassifier(linear_net(), class_names=names, trigger=trigger)
    for model in (known, nn.DataParallel(known).eval(), known.forward):
        found = compared(methods={}, models={"m": model})
        assert (found.class_names, found.settings["backdoored"]) == (names, ["m"])
    assert compared(methods={}).class_names is None


WHITE = torch.ones(3, 6, 6)
CORNER, EDGE = torch.zeros(2, 1, 6, 6)
CORNER[0, 4:, 4:], EDGE[0, :, 0] = 1, 1
SHARED = HELD_OUT.clone()
SHARED[7], SHARED[40] = SEARCH[0], SEARCH[59]
REFUSED = {
    "models in no dict": {"models": linear_net()},
    "no models": {"models": {}},
    "an attribution object": {"methods": {"S": Saliency(linear_net())}},
    "an unknown method": {"methods": "Magic"},
    "too few kinds": {"canvas_kinds": ["a", "b", "c"]},
    "the kind of stamped canvases": {"canvas_kinds": ["stamped"] * 4},
    "an area of no pixel": {"area": 0.01},
    "held-out images of another shape": {"held_out": torch.rand(60, 3, 7, 7)},
    "held-out images of one class": {"held_out_labels": [1] * 60},
    "held-out images that were searched": {"held_out": SHARED},
    "a held-out canvas": {"canvases": torch.stack([SEARCH[0], HELD_OUT[9]]), "targets": [0, 1]},
    "no held-out image": {"max_images": 0},
    "models that number the classes differently": {
        "models": {
            name: PixelClassifier(linear_net(), class_names=[*name]) for name in ("abc", "bac")
        }
    },
    "a trigger for an unknown model": {"triggers": {"nobody": Pattern(WHITE, CORNER, 0)}},
    "a trigger of another shape": {"triggers": {"linear": Pattern(WHITE[:, :5], CORNER[:, :5], 0)}},
    "a trigger of no pixel": {"triggers": {"linear": Pattern(WHITE, CORNER * 0, 0)}},
    "a trigger that moves": {
        "triggers": {"linear": MovingPattern(WHITE[:, :2, :2], CORNER[:, :2, :2], 0, size=(6, 6))}
    },
    "a trigger of all pixels": {"triggers": {"linear": Pattern(WHITE + 0, CORNER * 0 + 1, 0)}},
}


@pytest.mark.parametrize("case", REFUSED)
def test_refusals(case, snapshot):
    called = []
    spied = {"methods": {"spy": called.append}, **REFUSED[case]}
    assert refusal(partial(compared, **spied)) == snapshot
    assert not called  # before any method runs


# ---- identities


@pytest.mark.parametrize("name", SEEDED)
def test_no_method_depends_on_another(name, together):
    alone = compared(methods={name: SEEDED[name]})
    assert all_facts(alone) == all_facts(together, method=name)


@pytest.fixture(scope="module")
def together():
    return compared(methods=SEEDED)


def test_gradients_switched_off_around_the_call(together):
    with torch.inference_mode():
        given = {"canvases": CANVASES, "search": SEARCH, "held_out": HELD_OUT}
        created_inside = {name: images.clone() for name, images in given.items()}
        inside = compared(**created_inside, methods=SEEDED)
    assert not inside.failures
    assert all_facts(inside) == all_facts(together)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_canvases_of_another_precision(dtype):
    few = {name: SEEDED[name] for name in ("Saliency", "ClassPattern")}
    few = {"targets": [0, 1], "methods": few, "areas": [0.1], "n_seeds": 1}
    given = CANVASES[:2].to(dtype)
    found, expected = (compared(canvases=given, **few), compared(canvases=given.float(), **few))
    assert not found.failures
    for ours, theirs in zip(found.records, expected.records, strict=True):
        assert torch.equal(ours.masks[0.1], theirs.masks[0.1])
        assert ours.powers == theirs.powers


# ---- who sees what


def test_known_methods_get_the_search_images_alone(monkeypatch):
    noted = Mock(return_value=METHODS)
    monkeypatch.setattr(run, "known_methods", noted)
    compared(methods=None)
    [baselines] = noted.call_args.args
    assert baselines.hashes == hashes(SEARCH)
    assert torch.equal(baselines.labels, LABELS)
    assert noted.call_args.kwargs == {"names": DEFAULT}


# ---- nobody is harmed


class Careless(Attribution):
    """Doubles the model's weights, leaves a hook in it and changes its inputs in place."""

    def attribute(self, inputs, target=None, additional_forward_args=None):
        with torch.no_grad():
            self.forward_func[1].weight.mul_(2)
        self.forward_func.register_forward_hook(lambda part, inputs, output: output * 0)
        self.forward_func(inputs)
        return inputs.mul_(0).requires_grad_().detach()


def failing(images, targets):
    raise RuntimeError("half\nway")


def test_careless_and_failing_methods_harm_no_other_one():
    net = linear_net()
    before = state_of_caller(net, CANVASES)
    expected = compared(models={"linear": net})
    careless = {"careless": Careless, "fails": from_function(failing), "no": lambda m: 1 / 0}
    found = compared(models={"linear": net}, methods={**careless, **METHODS})
    assert state_of_caller(net, CANVASES) == before
    kept = [record for record in found.records if record.method != "careless"]
    assert [facts(record) for record in kept] == all_facts(expected)
    assert [(f.model, f.method, f.what, f.reason) for f in found.failures] == [
        ("linear", "fails", "maps", "RuntimeError: half way"),
        ("linear", "no", "maps", "ZeroDivisionError: division by zero"),
    ]


def test_the_caller_is_left_untouched():
    net, plain = conv_net(), conv_net()
    for parameter in net.parameters():
        parameter.grad = torch.full_like(parameter, 0.5)
    net[0].bias.requires_grad_(False)
    net[1].train()
    canvases, search = lived_in_inputs(CANVASES.clone()), SEARCH.clone()
    before = state_of_caller(net, canvases, search, HELD_OUT)
    names = ["ClassPattern", "DeepLift", "GuidedGradCam"]
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


def test_what_was_finished_outlives_an_interrupt():
    class Stopping(Attribution):
        def attribute(self, inputs, target=None):
            raise KeyboardInterrupt

    with pytest.raises(Interrupted) as stopped:
        compared(methods={"Saliency": Saliency, "stop": Stopping, "never": Saliency})
    finished = stopped.value.comparison
    assert isinstance(stopped.value, KeyboardInterrupt)
    assert {record.method for record in finished.records} == {"Saliency"}
    assert (finished.failures, finished.settings["complete"]) == ([], False)
    assert "methods: Saliency;" in repr(finished)


def test_a_bar_moves_with_each_run_of_a_method_and_is_drawn_with_each_pass(monkeypatch, terminal):
    noted = []

    class Bar(progress.tqdm):
        def update(self, n=1):
            noted.extend([] if self.disable else [n])
            super().update(n)

    compared(methods=SEEDED)
    assert terminal.readouterr().err == ""  # it took less than five seconds
    monkeypatch.setattr(progress, "tqdm", Bar)
    compared(methods=SEEDED, show_progress=True)
    assert sum(noted) == pytest.approx(len(SEEDED))
    assert max(noted) <= 1
    assert len([n for n in noted if n]) >= 3 * len(SEEDED)
    assert noted.count(0) > 100  # so that a log gets its lines also in a long run
    shown = terminal.readouterr().err
    assert "Comparing: 100%" in shown
    assert "ClassPattern, linear" in shown
    monkeypatch.setattr(progress, "BAR_AFTER", 0.0)
    compared(methods={"Saliency": Saliency})
    assert "Saliency, linear" in terminal.readouterr().err


# ---- triggers

PERFECT = {
    "corner": from_function(lambda images, targets: CORNER.expand_as(images).clone()),
    "edge": from_function(lambda images, targets: EDGE.expand_as(images).clone()),
}


def test_stamped_canvases_carry_the_trigger_and_are_no_images_of_its_class():
    comparison = compared(triggers={"linear": Pattern(WHITE, CORNER, 2)}, stamped=3)
    stamped = comparison.stamped["linear"]
    of_others = torch.where(CORNER > 0, 1.0, SEARCH[LABELS != 2])
    same = (stamped[:, None] == of_others).flatten(2).all(2)
    assert same.sum(1).tolist() == [1, 1, 1]
    assert len({*hashes(stamped)}) == 3
    records = comparison.select(kind="stamped")
    assert {record.canvas for record in records} == {4, 5, 6}
    for record in records:
        assert (record.target, record.powers, list(record.masks)) == (2, {}, [0.1])
        assert "stability_seeds" not in record.scores
        maps = plain_maps(linear_net(), stamped[record.canvas - 4], 2)
        torch.testing.assert_close(record.map, maps[record.method], rtol=1e-5, atol=1e-6)


def test_each_model_has_its_own_trigger_and_a_perfect_map_is_localised_perfectly():
    triggers = {"one": Pattern(WHITE, CORNER, 0), "other": Pattern(WHITE, EDGE, 1)}
    models = {**TWO_MODELS, "third": linear_net(3)}
    comparison = compared(models=models, triggers=triggers, methods=PERFECT, stamped=1)
    assert comparison.settings["backdoored"] == ["one", "other"]
    places = {("one", 0): ("corner", {0, 4}), ("other", 1): ("edge", {1, 3, 4})}
    for (model, target), (perfect, canvases) in places.items():
        for record in comparison.select(model=model, target=target):
            assert record.canvas in canvases
            found = {record.scores[name] for name in LOCALISATION}
            assert (found == {1.0}) == (record.method == perfect)
    for record in comparison.records:
        measured = {*LOCALISATION} if (record.model, record.target) in places else set()
        assert {*LOCALISATION} & {*record.scores} == measured
    assert comparison.stamped["one"][0, :, 4:, 4:].eq(1).all()
    assert comparison.stamped["other"][0, :, :, 0].eq(1).all()
    assert len(comparison.stamped["third"]) == 0


def test_a_model_without_a_trigger_is_measured_with_the_only_one():
    trigger = Pattern(WHITE, CORNER, 1)
    bad, clean = PixelClassifier(linear_net(1), trigger=trigger), linear_net(2)
    models, methods = {"clean": clean, "bad": bad}, {"corner": PERFECT["corner"]}
    comparison = compared(models=models, methods=methods)
    assert comparison.settings["backdoored"] == ["bad"]
    for model in models:
        found = [r for r in comparison.select(model=model) if "iou" in r.scores]
        assert {r.canvas for r in found} == {1, 3, 4, 5}
        assert {r.scores["iou"] for r in found} == {1.0}
    without = compared(models=models, triggers={}, methods=methods)
    assert not [r for r in without.records if "iou" in r.scores]
