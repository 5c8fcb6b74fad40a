"""A model is checked once in a call: what it may not do, what it is, and what a call changes."""

import copy
import functools
import threading
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from refusals import refusal, warnings_of
from torch import nn

import captum_classpattern as cp
from captum_classpattern.classifier import (
    CheckedModel,
    difference,
    enter_model,
    preserve_state,
)

IMAGES = torch.rand(60, 1, 8, 8, generator=torch.Generator().manual_seed(0))
LABELS = torch.arange(60) % 3
FAST = {"n_steps": 3, "area": 0.1, "precision": "full"}


def network():
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(144, 3)
    )
    with torch.no_grad():
        net[4].weight.mul_(5)
        net(IMAGES)  # statistics
    return net.eval()


def masks(model, *images):
    explainer = cp.ClassPattern(model, *(images or (IMAGES, LABELS)))
    return explainer.attribute(IMAGES[:2], target=2, **FAST)


# ---- train mode, behind anything


def of_list(net):
    nets = [net, net]
    return lambda images: sum(each(images) for each in nets) / 2


def call(net, images):
    return net(images)


class Unregistered(nn.Module):
    """A network that hides another in a plain list."""

    def __init__(self, net):
        super().__init__()
        self.nets, self.training = [net], False

    def forward(self, images):
        return self.nets[0](images)


WAYS = [
    lambda net: net,
    lambda net: net.forward,
    lambda net: lambda images: net.forward(images),
    lambda net: functools.partial(call, net),
    lambda net: SimpleNamespace(call=lambda images: net(images)).call,
    of_list,
    Unregistered,
]


@pytest.mark.parametrize("way", WAYS)
def test_a_network_in_train_mode_is_seen_behind_anything(way):
    net, expected = network(), masks(network())
    net.train()[1].momentum = 0.9
    before = copy.deepcopy(net.state_dict())
    model, found = way(net), []
    warned = warnings_of(lambda: found.append(masks(model)))
    assert sum("the model is in train mode" in text for text in warned) == 1
    assert torch.equal(found[0] > 0, expected > 0)
    torch.testing.assert_close(found[0], expected, atol=1e-4, rtol=0)  # half of two, or one
    assert all(torch.equal(before[name], each) for name, each in net.state_dict().items())
    assert all(part.training for part in net.modules())
    net.eval()
    assert not any("train mode" in text for text in warnings_of(lambda: masks(model)))


# ---- what a model may not do


def random_one(images):
    return F.dropout(NET(images), 0.5, training=True)


def of_batch(images):
    return NET((images - images.mean()) / images.std())


NET = network()
ENTRIES = {
    "attribute": masks,
    "explain_class": lambda model, images: cp.explain_class(model, images, target=1, n_steps=1),
    "survey": lambda model, images: cp.survey(model, images, classes=[1], n_steps=1),
    "scan": lambda model, images: cp.scan(model, images),
    "compare": lambda model, images: cp.compare(
        *({"mine": model}, IMAGES[:1], 0), search=images, held_out=(1 - IMAGES, LABELS),
        methods=["Saliency"], n_seeds=1, area=0.1,
    ),
    "predictive_power": lambda model, images: cp.predictive_power(
        model, cp.Pattern(IMAGES[0], torch.ones(1, 8, 8), 0), images
    ),
    "select_canvases": lambda model, images: cp.select_canvases(model, images, target=1, n=1),
}  # fmt: skip
DATA = torch.utils.data.TensorDataset(IMAGES, LABELS)


@pytest.mark.parametrize("entry", ENTRIES)
@pytest.mark.parametrize(
    ("model", "where"), [(random_one, "in another call"), (of_batch, "next to another image")]
)
def test_a_model_that_is_random_or_looks_at_its_batch_is_refused(entry, model, where):
    assert refusal(lambda: ENTRIES[entry](model, DATA)) == (
        f"ValueError: the model gives the same image other logits {where}, as a network in train "
        "mode does: put each network that it uses into eval mode, by network.eval(), and use no "
        "dropout or batch statistics in functions of your own; if it is random on purpose, set "
        "`model.is_random = True`"
    )


def noise(images):
    return NET(images + 0.02 * torch.randn_like(images))


def of_the_row_before(images):
    return NET(images + 0.2 * images.roll(1, 0))


def certain(images):
    """Its softmax is nearly certain, which hides what is random, but its logarithm shows it."""
    return (10 * random_one(images)).softmax(1)


@pytest.mark.filterwarnings("ignore::captum_classpattern.Notice")
@pytest.mark.parametrize(
    ("model", "where"),
    [(noise, "another call"), (of_the_row_before, "another image"), (certain, "another call")],
)
def test_a_little_randomness_and_any_place_in_the_batch_are_noticed(model, where):
    with pytest.raises(ValueError, match=f"other logits (in|next to) {where}"):
        masks(model)


def test_a_network_that_some_images_alone_reach_is_put_into_eval_mode():
    net, other = network(), network().train()

    def cascade(images):
        is_first = bool((images == IMAGES[0]).all())
        return net(images) if is_first else other(images)

    before = copy.deepcopy(other.state_dict())
    with pytest.warns(UserWarning, match="the model is in train mode"):
        masks(cascade)
    assert all(torch.equal(before[name], each) for name, each in other.state_dict().items())


def test_a_model_may_take_one_image_at_a_time():
    def alone(images):
        assert len(images) == 1
        return NET(images)

    explainer = cp.ClassPattern(alone, IMAGES, LABELS)
    assert explainer.attribute(IMAGES[:1], 2, internal_batch_size=1, **FAST).any()


def test_compiled_parts_are_not_compiled_again_for_the_checks():
    net, compiled = network(), []

    def count(graph, _):
        compiled.append(graph)
        return graph.forward

    model = torch.compile(lambda images: net(images), backend=count, fullgraph=True)
    model(IMAGES[:2])
    before = len(compiled)
    with enter_model(model, IMAGES):
        pass
    assert len(compiled) == before


def test_a_model_that_is_random_on_purpose_says_so():
    class Noisy(nn.Module):
        is_random = True

        def forward(self, images):
            return NET(images + 0.1 * torch.randn_like(images))

    noisy = Noisy().eval()
    for model in (noisy, noisy.forward, cp.PixelClassifier(noisy)):
        assert torch.equal(masks(model), masks(model))  # its numbers are those of the seed


# ---- what a model is


def identity(model, images=IMAGES[:2]) -> dict:
    with enter_model(model, IMAGES) as checked:
        return checked.identity(images)


def test_one_model_is_the_same_whatever_wraps_it():
    same = [
        *(NET, lambda images: NET(images), of_list(NET), lambda images: NET(images) * 1.001),
        *(cp.PixelClassifier(NET, 0, 1), nn.DataParallel(NET).eval()),
        torch.compile(NET, backend="eager"),
    ]
    for model in same:
        assert difference(identity(NET), identity(model)) == ""


class Changed(nn.Module):
    """A network whose answers depend on a plain attribute."""

    def __init__(self, how):
        super().__init__()
        self.net, self.how, self.training = NET, how, False

    def forward(self, images):
        return self.how(self.net, images)


def blank_stickers(net, images):
    """Takes white pixels away where they are a few."""
    white = (images > 0.995).float().mean((1, 2, 3), keepdim=True)
    return net(images.where((images < 0.995) | (white > 0.3), 0))


OTHERS = {
    "a few white pixels are taken away": blank_stickers,
    "white pixels are taken away": lambda net, x: net(x.where(x < 0.995, 0)),
    "bright pixels are cut": lambda net, x: net(x.clamp(0, 0.9)),
    "all is mirrored": lambda net, x: net(x.flip(3)),
    "another order of the classes": lambda net, x: net(x).flip(1),
    "one class is easier": lambda net, x: net(x) + torch.tensor([0.0, 3.0, 0.0]),
    "grey images": lambda net, x: net(0.5 + x / 2),
}


@pytest.mark.parametrize("case", OTHERS)
def test_another_answer_is_another_model(case):
    plain, other = Changed(lambda net, x: net(x)), Changed(OTHERS[case])
    assert difference(identity(plain), identity(other)).startswith("its logits for ")


def test_models_are_compared_by_what_is_known_of_both():
    known, other = identity(NET), identity(Changed(OTHERS["all is mirrored"]), IMAGES[5:7])
    assert "white" in known["probes"]
    assert known["probes"].keys() & other["probes"].keys() == {"white", "black"}
    assert difference(known, known | {"weights": "0"}) == "its weights"
    assert difference("0", known) == difference(None, None) == "what is known of it"
    assert difference(None, {"weights": None, "probes": {}}) == "what is known of it"
    fewer = {name: text.rpartition(" ")[0] for name, text in known["probes"].items()}
    assert difference(known, known | {"probes": fewer}) == "the number of its classes"


def test_of_many_classes_ten_sums_of_all_logits_are_kept():
    def many(images):
        return 5 * images.flatten(1).repeat(1, 16)[:, :1000]

    def swapped(images):
        order = [*range(1000)]
        order[5], order[40] = 40, 5
        return many(images)[:, order]

    one, other = identity(many), identity(swapped)
    assert len(one["probes"]["white"].split()) == 10
    assert len(identity(NET)["probes"]["white"].split()) == 3
    assert difference(one, other).startswith("its logits for image ")


def test_one_loud_probe_hides_no_other_difference():
    def loud(images):
        return NET(images) + 1000 * (images.mean((1, 2, 3)) > 0.99)[:, None] * torch.arange(3)

    assert difference(identity(loud), identity(lambda x: loud(x).roll(1, 1))) != ""


class Keeps(nn.Module):
    """A network that keeps its last output, and a constant of its own."""

    def __init__(self, constant, noise=0.0):
        super().__init__()
        self.net, self.constant, self.noise, self.training = NET, constant, noise, False

    def forward(self, images):
        self.last = self.net(images) * (1 + self.noise)
        return self.last


def test_constants_count_as_weights_and_the_last_output_does_not():
    one, other = torch.zeros(1), torch.full((1,), 1e-9)
    assert difference(identity(Keeps(one)), identity(Keeps(one.clone(), noise=1e-6))) == ""
    assert difference(identity(Keeps(one)), identity(Keeps(other))) == "its weights"


def test_a_model_that_divides_by_the_contrast_can_be_kept():
    def standardised(images):
        contrast = images.std((1, 2, 3), keepdim=True)
        return NET((images - images.mean((1, 2, 3), keepdim=True)) / contrast)

    known = identity(standardised)
    assert "nan" in known["probes"]["white"]
    assert difference(known, identity(standardised)) == ""
    assert difference(known, identity(NET)) != ""


# ---- what a call changes


class LowRank(nn.Linear):
    """As in loralib: eval() merges a low-rank update into the weight, train() takes it out."""

    def __init__(self):
        super().__init__(64, 3)
        self.down, self.up = (nn.Parameter(torch.randn(*size)) for size in ((2, 64), (3, 2)))
        self.merged = False

    def train(self, mode=True):
        super().train(mode)
        with torch.no_grad():
            if mode == self.merged:
                self.weight += (1 - 2 * mode) * self.up @ self.down
                self.merged = not mode
        return self


@pytest.mark.filterwarnings("ignore:the model is in train mode")
def test_what_eval_does_besides_is_undone():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Flatten(), LowRank(), nn.Sequential(LowRank()).eval()[0]).train()
    net.pop(2)
    before = copy.deepcopy(net.state_dict())
    for way in (net, lambda images: net(images)):
        with enter_model(way, IMAGES):
            assert net[1].merged
            assert not net[1].training
        assert not net[1].merged
        assert net[1].training
        assert all(torch.equal(before[name], each) for name, each in net.state_dict().items())


def test_one_thread_at_a_time_changes_what_belongs_to_the_process():
    inside, entered = threading.Event(), []

    def other():
        inside.wait(5)
        with preserve_state(NET, 1):
            entered.append("other")

    thread = threading.Thread(target=other)
    thread.start()
    with preserve_state(NET, 0):
        inside.set()
        thread.join(0.2)
        entered.append("first")
    thread.join()
    assert entered == ["first", "other"]


def test_a_precision_that_is_asked_for_is_not_changed_by_autocast():
    explainer = cp.ClassPattern(NET, IMAGES, LABELS)
    [outside] = explainer.search(IMAGES[:1], 2, **FAST)
    with torch.autocast("cpu", torch.bfloat16):
        [inside] = explainer.search(IMAGES[:1], 2, **FAST)
        assert torch.is_autocast_enabled("cpu")
    assert inside.info["precision"] == "float32"
    assert torch.equal(inside.mask, outside.mask)
    assert inside.info["loss_curve"] == outside.info["loss_curve"]


# ---- once in a call


def test_a_model_is_checked_once_in_a_call():
    calls = []

    def counted(images):
        calls.append(len(images))
        return NET(images)

    with enter_model(counted, IMAGES) as checked:
        assert calls == [1, 2, 2, 2]
        assert isinstance(checked, CheckedModel)
        assert (checked.n_classes, checked.device.type, checked.names) == (3, "cpu", None)
        assert checked.networks == [NET]
        with enter_model(counted, IMAGES) as again:
            assert again is checked
    assert calls == [1, 2, 2, 2]
    with enter_model(counted, IMAGES) as later:
        assert later is not checked


def test_what_a_model_says_of_itself_is_found_behind_what_wraps_it():
    trigger = cp.Pattern(torch.ones(1, 8, 8), torch.ones(1, 8, 8), 1)
    model = cp.PixelClassifier(
        NET, class_names=["ant", "bee", "cat"], trigger=trigger, provenance={"source": "a file"}
    )
    for way in (model, model.forward, nn.DataParallel(model).eval()):
        with enter_model(way, IMAGES) as checked:
            assert checked.trigger is trigger
            assert checked.provenance == {"source": "a file"}
            assert checked.names == ("ant", "bee", "cat")
    with enter_model(model, IMAGES, class_names=["x", "y", "z"]) as checked:
        assert checked.names == ("x", "y", "z")


# ---- mean and std


class Normalize(nn.Module):
    def __init__(self):
        super().__init__()
        self.image_mean = 0.5

    def forward(self, images):
        return (images - self.image_mean) / 0.25


class Own(nn.Module):
    def __init__(self):
        super().__init__()
        self.net = network()
        self.register_buffer("mean", torch.tensor(0.5))

    def forward(self, images):
        return self.net(images - self.mean)


NOTICE = "Notice: the network gets pixels in [0, 1] as they are: if it was trained on normalised "


@pytest.mark.filterwarnings("default:the network gets pixels")
def test_a_forgotten_mean_and_std_is_said_once():
    def said(model, **normal):
        explain = functools.partial(cp.explain_class, model, IMAGES, LABELS, 1, n_steps=1, **normal)
        return [text for text in warnings_of(explain) if "pixels" in text]

    net = network()
    [text] = said(net)
    assert text == (
        f"{NOTICE}images, give PixelClassifier(model, mean, std); PixelClassifier(model, 0, 1) "
        "says that it was not, without this notice (explain_class, survey and scan also take "
        "`mean` and `std`)"
    )
    assert said(net) == []
    assert len(said(network(), class_names=["a", "b", "c"])) == 1
    assert said(network(), mean=0, std=1) == said(network(), mean=0.5, std=0.25) == []
    assert said(cp.PixelClassifier(network())) == []
    assert said(nn.Sequential(Normalize(), network()).eval()) == said(Own().eval()) == []
    net = network()
    assert said(lambda images: net(images)) == []  # a function may do so itself


# ---- images that draw random numbers


class Dice(torch.utils.data.TensorDataset):
    def __getitem__(self, i):
        image, label = super().__getitem__(i)
        return (image * (1 - 0.01 * torch.rand(1))).clamp(0, 1), label


@pytest.mark.parametrize("entry", ENTRIES)
def test_the_generators_stay_also_where_images_draw_from_them(entry):
    before = torch.get_rng_state()
    ENTRIES[entry](NET, Dice(IMAGES.repeat(2, 1, 1, 1), LABELS.repeat(2)))
    assert torch.equal(torch.get_rng_state(), before)
