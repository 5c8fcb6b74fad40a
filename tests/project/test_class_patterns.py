"""benchmarks/class_patterns.py: a whole run on tiny networks, and what all models share."""

import json
import shutil
from dataclasses import replace
from functools import partial

import pytest
import torch
from filelock import FileLock
from scripts import (
    ROOT,
    change,
    imported,
    read_rows,
    tables_of,
    tiny_network,
    write_cifar10,
    write_fashion_mnist,
    write_rows,
)

from captum_classpattern import LabelledImages, Pattern, PixelClassifier
from captum_classpattern.scores.power import Scorer
from captum_classpattern.triggers import BadNets

script, problems = imported("benchmarks", "class_patterns", "problems")
changes, controls, figure, fit, images, learnt, measure, models, rows, training = (
    imported("benchmarks", f"claims.{name}")
    for name in (
        *("changes", "controls", "figure", "fit", "images", "learnt", "measure", "models", "rows"),
        "training",
    )
)
train_cifar10, kinds = problems.train_cifar10, imported("tutorials", "cifar10_kinds")
pytestmark = [
    pytest.mark.script,
    pytest.mark.filterwarnings("ignore:Input Tensor 0 did not already require gradients"),
]


# ---- a run


@pytest.fixture
def given(monkeypatch, tmp_path):
    """Three classes, tiny networks that train for two epochs, and searches of one step; the
    options of the script."""
    torch.manual_seed(0)
    network = partial(tiny_network, classes=3)
    stage = train_cifar10.Stage(2, 0.01, cutout=0)
    change(monkeypatch, models, CIFAR10_EPOCHS=2)
    change(monkeypatch, train_cifar10, MODELS=tmp_path / "models", WideResNet=network, BATCH=16)
    change(monkeypatch, train_cifar10, SHORT=(stage,), BY_HEART=(stage._replace(by_heart=True),))
    change(monkeypatch, problems, SEARCH=80)
    change(monkeypatch, kinds, PGD_STEPS=2)
    change(monkeypatch, images, HELD_OUT=22, CLASS_NAMES=("ant", "bee", "cat"))
    monkeypatch.setitem(images.CANVASES, "positive", 2)
    monkeypatch.setitem(measure.SETTINGS, "n_steps", 1)
    for target, (name, patch) in enumerate(models.PATCHES.items()):
        monkeypatch.setitem(models.PATCHES, name, replace(patch, target=target))
    train_cifar10.MODELS.mkdir()
    train_cifar10.save_weights("natural", network())
    record = {"model": "tiny", "stages": [], "test_set": {"accuracy": 0.3}}
    (train_cifar10.MODELS / "cifar10_natural.json").write_text(json.dumps(record))
    cifar10 = write_cifar10(tmp_path / "cifar10", 34, 3)
    return ["--data", str(cifar10), "--out", str(tmp_path / "out")]


CHOSEN = ("shipped_natural", "natural_1", "backdoored_white_1", "robust8_1", "natural_2")


def test_models_are_trained_searched_and_scored_once_and_all_tables_are_printed(
    given, tmp_path, monkeypatch, capsys
):
    out = tmp_path / "out"
    usual, done = measure.Study.of_class, []

    def interrupted(study, target):
        if len(done) == 1:
            raise KeyboardInterrupt
        done.append(target)
        return usual(study, target)

    with monkeypatch.context() as patch:
        patch.setattr(measure.Study, "of_class", interrupted)
        with pytest.raises(KeyboardInterrupt):
            script.main(["measure", *given, "--names", *CHOSEN])
    weights = (out / "natural_1.safetensors").read_bytes()
    assert not (out / "class_patterns.jsonl").exists()
    capsys.readouterr()
    script.main(["measure", *given, "--names", *CHOSEN])
    said = [line.partition(":")[0] for line in capsys.readouterr().out.splitlines()]
    assert said[:3] == ["natural_1", "natural_1, class 1", "natural_1, class 2"]
    assert said.count("epoch 1") == said.count("epoch 2") == 3  # of the other trained ones
    assert (out / "natural_1.safetensors").read_bytes() == weights
    kept = read_rows(out / "class_patterns.jsonl")
    assert [row["model"] for row in kept] == list(CHOSEN)
    for row in kept:
        assert list(row["patterns"]) == ["positive", "white", "black"]
        for by_area in row["patterns"].values():
            assert all(len(values) == 3 for by in by_area.values() for values in by.values())
        assert "shuffled" in row["patterns"]["positive"]["0.05"]
        assert "shuffled" not in row["patterns"]["white"]["0.05"]
    assert [row["learnt"] is None for row in kept] == [True, True, False, False, True]
    assert len({row["canvases"] for row in kept}) == 1
    assert kept[2]["training"]["trigger"]["colours"] == "white"

    script.main(["transfer", *given])
    pairs = read_rows(out / "class_patterns_transfer.jsonl")
    assert [pair["tested"] for pair in pairs] == list(CHOSEN[1:])
    own = kept[1]["patterns"]["positive"]["0.05"]
    assert (pairs[0]["hits"], pairs[0]["n"]) == (own["hits"], own["n"])
    capsys.readouterr()
    script.main(["measure", *given, "--names", *CHOSEN])
    script.main(["transfer", *given])
    assert {line.split(": ")[1] for line in capsys.readouterr().out.splitlines()} == {
        "measured already"
    }
    assert read_rows(out / "class_patterns_transfer.jsonl") == pairs
    script.main(["tables", str(out)])
    printed = tables_of(capsys.readouterr().out)
    sizes = [count for _, count in printed]
    assert sizes[1:] == [5, 30, 3, 3, 5, 6, 6, 4, 3, 15, sizes[-1]]
    assert sizes[-1] == sizes[0] > 20  # one kind of model for each statement

    (out / "natural_1.json").unlink()
    (out / "class_patterns.jsonl").write_text(json.dumps({**kept[3], "canvases": "others"}))
    with monkeypatch.context() as patch:
        patch.setattr(measure.Study, "of_class", None)  # no class is searched
        with pytest.raises(ValueError, match="robust8_1 was measured with other canvases than nat"):
            script.main(["measure", *given, "--names", "natural_1"])


def test_a_model_that_another_process_works_on_is_skipped(given, tmp_path, capsys):
    out = tmp_path / "out"
    out.mkdir()
    with FileLock(out / ".natural_1.lock"):
        for command in ("measure", "transfer"):
            script.main([command, *given, "--names", "natural_1"])
            assert capsys.readouterr().out == (
                "natural_1: skipped, since another process works on it\n"
            )
    assert [path.name for path in out.iterdir()] == [".natural_1.lock"]


def test_networks_of_other_kinds_and_seeds_differ(given, tmp_path):
    known, out = {entry.name: entry for entry in models.entries()}, tmp_path / "out"
    states = []
    for name in ("natural_1", "natural_2", "robust8_1", "backdoored_second_1"):
        network = training.classifier_of(known[name], tmp_path / "cifar10", out)
        states.append(torch.cat([each.flatten() for each in network.state_dict().values()]))
    assert len({tuple(state.tolist()) for state in states}) == 4
    assert all(state.isfinite().all() for state in states)
    assert sorted(path.suffix for path in out.iterdir()) == [".json"] * 4 + [".safetensors"] * 4


def test_networks_of_fashion_mnist_learn_images_as_they_are(given, tmp_path, monkeypatch):
    """The memorised images are a part of all images; the trigger is a trigger for 28 x 28."""
    (tmp_path / "fashion").mkdir()
    write_fashion_mnist(tmp_path / "fashion", 60, 20)
    change(monkeypatch, training, SmallResNet=partial(tiny_network, 1, 28))
    monkeypatch.setitem(models.BY_HEART, "Fashion-MNIST", 32)
    known = {entry.name: entry for entry in models.entries()}
    parts = images.images_of("Fashion-MNIST", None)
    for name in ("random_labels_1", "robust05_1", "backdoored_checker_1"):
        entry = known[f"fashion_{name}"]
        network = training.classifier_of(entry, tmp_path / "fashion", tmp_path / "out")
        assert 0 <= learnt.learnt(entry, network, parts, tmp_path / "fashion") <= 1
    shown, labels = training.training_set("Fashion-MNIST", "random_labels", tmp_path / "fashion", 1)
    assert (shown.shape, shown.dtype, len(labels)) == ((32, 1, 28, 28), torch.uint8, 32)
    batch, _ = next(train_cifar10.epoch_batches(
        shown, labels, torch.zeros(32, dtype=torch.bool), torch.nn.Identity(), 0, 32,
        models.trainings("Fashion-MNIST")["natural"].stage,
    ))  # fmt: skip
    assert {tuple(image.flatten().tolist()) for image in batch} <= {
        tuple(image.flatten().tolist()) for image in shown / 255
    }
    with pytest.raises(ValueError, match=r"fashion_natural_1 is trained on images of Fashion-MN"):
        training.classifier_of(known["fashion_natural_1"], None, tmp_path / "out")


def test_the_figure_has_a_row_for_each_network(tmp_path):
    """On the committed canvases."""
    shutil.copy(ROOT / "benchmarks" / "results" / "canvases_Fashion-MNIST.json", tmp_path)
    values = {"canvas": 1, "mask": "f0f", "hits": 50, "n": 100, "no_pattern": 1}
    values |= {"random_pixels": 2, "other_canvas": 3}
    at_5 = {"0.05": {name: [value] * 10 for name, value in values.items()}}
    patterns = {"positive": at_5, "white": {"0.05": at_5["0.05"] | {"canvas": [0] * 10}}}
    write_rows(
        tmp_path / rows.FILE,
        [
            {"model": name, "classes": [*range(10)], "patterns": patterns}
            for name in dict.fromkeys(name for name, *_ in figure.SHOWN)
        ],
    )
    file = tmp_path / "claims.png"
    script.main(["figure", str(tmp_path), "--figure", str(file)])
    assert file.stat().st_size > 10_000
    assert not list(tmp_path.glob("*.lock"))


def test_estimates_are_printed_without_work(tmp_path, capsys):
    folders = ["--data", "cifar10", "--fashion", "fashion"]
    script.main(["measure", *folders, "--out", str(tmp_path / "out"), "--dry-run"])
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 50
    assert lines[0].startswith("shipped_natural: about training 0 s, search ")
    assert not (tmp_path / "out").exists()


# ---- its parts


def test_the_models_are_those_of_the_plan():
    known = list(models.entries())
    assert len({entry.name for entry in known}) == len(known) == 7 + 4 * 3 + 9 * 3 + 3
    places = {
        (data, name): tuple(patch.pattern(data).mask.nonzero()[0].tolist())
        for data in models.SHAPES
        for name, patch in models.PATCHES.items()
    }
    assert len({place for (data, _), place in places.items() if data == "CIFAR-10"}) == 3
    assert places["CIFAR-10", "checker"] == (0, 28, 1)
    assert places["Fashion-MNIST", "checker"] == (0, 24, 1)
    assert len({patch.target for patch in models.PATCHES.values()}) == 3
    for entry in known:
        json.dumps(entry.facts())
        assert ("backdoored" in entry.kind) == (entry.trigger is not None)
        assert ("robust" in entry.kind) == (entry.epsilon > 0)
        assert ("labels" in entry.kind) == bool(entry.memorised)
    assert {entry.seed for entry in known if entry.training} == {1, 2, 3}  # shipped ones have 0
    control, white, robust, second = models.trainings("CIFAR-10").values()
    assert control == models.Training(train_cifar10.SHORT[0]._replace(epochs=10, small=0))
    assert replace(white, trigger=None) == replace(second, trigger=None) == control
    assert robust == replace(control, epsilon=8 / 255, attack_steps=3)
    assert white.trigger.target == second.trigger.target == 3
    masks = [each.trigger.pattern("CIFAR-10").mask for each in (white, second)]
    assert int((masks[0] * masks[1]).sum()) == 0
    assert [entry.name for entry in known][7:12] == [
        "natural_1", "backdoored_white_1", "robust8_1", "backdoored_second_1", "natural_2",
    ]  # fmt: skip
    fashion = models.trainings("Fashion-MNIST")
    assert replace(fashion["backdoored_white"], trigger=None) == fashion["natural"]
    checker = models.PATCHES["checker"].pattern("CIFAR-10")
    [pixels] = [checker.canvas[0][checker.mask[0] > 0].tolist()]
    assert pixels == [1, 0, 1, 0, 1, 0, 1, 0, 1]


def test_poisoned_images_depend_on_the_seed_and_get_the_targets_label():
    shown, labels = torch.zeros(200, 3, 32, 32), torch.arange(200) % 10
    patch = models.PATCHES["white"]
    recipe = models.Training(train_cifar10.SHORT[0], trigger=patch)
    chosen = []
    for seed in (0, 1):
        entry = models.Entry("x", "x", seed, training=recipe)
        trigger, poisoned, learnt = training.planted(entry, shown, labels)
        assert int(poisoned.sum()) == 10
        assert learnt[poisoned].tolist() == [patch.target] * 10
        assert torch.equal(learnt[~poisoned], labels[~poisoned])
        assert int((trigger(shown[:1]) != 0).sum()) == 27
        chosen.append(poisoned)
    assert not torch.equal(*chosen)


def by_brightness(batch):
    """Confidence in class 1 grows with the brightness."""
    bright = batch.mean((1, 2, 3))
    return torch.stack([torch.full_like(bright, 0.125), bright], 1)


@pytest.fixture
def shades():
    """Images of 20 shades, of which the two darkest are wrong, and six black ones."""
    grey = torch.linspace(0.05, 1, 20).view(-1, 1, 1, 1).expand(-1, 1, 4, 4)
    search = LabelledImages(torch.cat([grey, torch.zeros(6, 1, 4, 4)]), [1] * 20 + [0] * 6)
    return images.Images(search, search)


def test_canvases_are_spread_over_the_confidence_in_images_that_are_right(shades):
    chosen = images.chosen_images(by_brightness, shades)
    assert chosen[1] == [*range(19, 1, -1)]  # fewer than 32
    assert len(chosen[0]) == 6
    found = images.with_blank_ones(shades, chosen)
    assert torch.equal(found["positive"][1], shades.search.images[2:20].flip(0))
    assert [float(found[kind][0].mean()) for kind in ("white", "black")] == [1, 0]
    first = images.hash_of_canvases(found)
    found["positive"][1] = found["positive"][1].flip(0)
    assert images.hash_of_canvases(found) != first
    assert [float(each) for each in images.evenly(torch.arange(8.0), 2)] == [2, 6]


def test_canvases_are_chosen_once_and_then_read(shades, tmp_path, monkeypatch):
    file = tmp_path / "new" / "canvases.json"
    monkeypatch.setattr(images, "reference_of", lambda data: by_brightness)
    first = images.shared_canvases(file, "grey", shades)
    monkeypatch.setattr(images, "reference_of", None)  # is not asked again
    again = images.shared_canvases(file, "grey", shades)
    assert images.hash_of_canvases(again) == images.hash_of_canvases(first)
    others = LabelledImages(1 - shades.search.images, shades.search.labels)
    with pytest.raises(ValueError, match=r"canvases\.json are not among these images of grey"):
        images.shared_canvases(file, "grey", images.Images(others, others))


def test_the_best_of_as_many_controls_is_chosen_by_the_judging_images():
    """The class of an image is whether its first pixel is white. Only one mask has that pixel."""

    def classifier(batch):
        return torch.stack([1 - batch[:, 0, 0, 0], batch[:, 0, 0, 0]], 1)

    pattern = Pattern(torch.ones(1, 4, 4), torch.eye(4)[None], 1)
    drawn = controls.random_masks(pattern, torch.ones(32, 1, 4, 4))
    assert len(drawn) == 32
    assert {int(each.mask.sum()) for each in drawn} == {4}
    assert len(controls.random_masks(pattern, torch.ones(1, 1, 4, 4))) == 2
    judges = LabelledImages(torch.zeros(60, 1, 4, 4), [0, 1] * 30)
    best = controls.best_judged(classifier, drawn, judges)
    assert best.mask[0, 0, 0] == 1
    assert best is next(each for each in drawn if each.mask[0, 0, 0] == 1)
    moved = controls.on_other_canvases(pattern, torch.ones(1, 1, 4, 4), torch.rand(8, 1, 4, 4))
    assert len(moved) == 2
    assert all(torch.equal(each.mask, pattern.mask) for each in moved)


def test_changes_keep_what_they_should():
    torch.manual_seed(0)
    mask = (torch.rand(1, 8, 8) < 0.3).float()
    pattern = Pattern(torch.rand(3, 8, 8), mask, 0)
    found = dict(changes.changes(pattern))
    assert [len(draws) for draws in found.values()] == [1, 1, changes.DRAWS]
    places = mask[0] > 0
    [grey] = found["grey"]
    assert torch.equal(grey.canvas[0], grey.canvas[2])
    for draw in found["shuffled"]:
        before, after = (each.canvas[:, places].T.tolist() for each in (pattern, draw))
        assert before != after
        assert sorted(before) == sorted(after)
        assert torch.equal(draw.canvas[:, ~places], pattern.canvas[:, ~places])
    white = Pattern(torch.ones(3, 8, 8), mask, 0)
    for draws in dict(changes.changes(white)).values():
        for draw in draws:
            torch.testing.assert_close(draw.canvas, white.canvas)
    assert list(dict(changes.changes(Pattern(torch.rand(1, 8, 8), mask, 0)))) == [
        "blurred", "shuffled",
    ]  # fmt: skip


def test_a_pattern_fits_a_trigger_anywhere_and_in_place():
    trigger = BadNets((3, 8, 8)).pattern(0)
    assert (fit.best_fit(trigger, trigger), fit.in_common(trigger, trigger)) == (1, 9)
    moved = replace(
        trigger,
        canvas=trigger.canvas.roll((-3, -2), (1, 2)),
        mask=trigger.mask.roll((-3, -2), (1, 2)),
    )
    assert fit.best_fit(moved, trigger) == 1
    assert fit.in_common(moved, trigger) == 0
    white = replace(trigger, canvas=torch.ones(3, 8, 8))
    assert fit.best_fit(white, trigger) == pytest.approx(1 / 9)  # five agree, four are opposite
    grey = replace(trigger, canvas=torch.full((3, 8, 8), 0.5))
    assert fit.best_fit(grey, trigger) == pytest.approx(0)


def test_the_most_that_a_canvas_can_show_of_a_trigger_is_that_of_the_best_mask():
    """On random canvases, all masks of one position are tried."""
    trigger = BadNets((3, 8, 8)).pattern(0)
    for value, expected in ((1.0, 5 / 9), (0.0, 4 / 9), (0.5, 0.0)):
        plain = replace(trigger, canvas=torch.full((3, 8, 8), value))
        assert fit.most_fit(plain, trigger) == pytest.approx(expected)
    small = Pattern(torch.ones(3, 4, 4), torch.zeros(1, 4, 4), 0)
    small.mask[0, 2:, 2:] = 1
    torch.manual_seed(0)
    canvas = torch.rand(3, 4, 4)
    corners = [(row, column) for row in range(3) for column in range(3)]
    best = 0.0
    for row, column in corners:
        for chosen in range(16):
            mask = torch.zeros(1, 4, 4)
            bits = torch.tensor([float(chosen >> bit & 1) for bit in range(4)])
            mask[0, row : row + 2, column : column + 2] = bits.view(2, 2)
            best = max(best, fit.best_fit(Pattern(canvas, mask, 0), small))
    assert 0 < best < 1
    assert fit.most_fit(Pattern(canvas, small.mask, 0), small) == pytest.approx(best)


class Bright(torch.nn.Module):
    """Class 1 for images that are brighter than 0.5."""

    def forward(self, batch):
        bright = batch.mean((1, 2, 3))
        return torch.stack([torch.full_like(bright, 0.5), bright], 1)


def test_what_a_network_has_learnt_is_measured_as_its_kind_promises(monkeypatch):
    """Of four dark and four bright held-out images, an attack moves those near 0.5, and a white
    trigger of nine pixels the dark one of the two."""
    levels = torch.tensor([0.0, 0.1, 0.2, 0.496, 0.504, 0.8, 0.9, 1.0])
    shown, labels = levels.view(-1, 1, 1, 1).expand(-1, 3, 32, 32), [0] * 4 + [1] * 4
    held_out = LabelledImages(shown, labels)
    parts = PixelClassifier(Bright().eval()), images.Images(held_out, held_out), None
    of_kind = {entry.name: entry for entry in models.entries()}
    assert learnt.learnt(of_kind["natural_1"], *parts) is None
    assert learnt.learnt(of_kind["robust8_1"], *parts) == 0.75
    assert learnt.learnt(of_kind["demo_robust"], *parts) == 0.75
    assert learnt.learnt(of_kind["shipped_natural"], *parts) is None
    patch = replace(models.PATCHES["white"], target=1)
    planted = models.Training(train_cifar10.SHORT[0], trigger=patch)
    assert learnt.learnt(models.Entry("x", "x", training=planted), *parts) == 0.25
    asked = []
    by_heart = models.Training(train_cifar10.BY_HEART[0], labels="random_labels")

    def memorised(*given):
        asked.append(given)
        return (255 * shown).byte(), torch.tensor([1, *labels[1:]])

    monkeypatch.setattr(learnt, "training_set", memorised)
    assert learnt.learnt(models.Entry("x", "x", 2, training=by_heart), *parts) == 0.875
    assert learnt.learnt(of_kind["shipped_true_labels"], *parts) == 0.875
    assert asked == [
        ("CIFAR-10", "random_labels", None, 2), ("CIFAR-10", "true_labels", None, 0),
    ]  # fmt: skip


def test_scores_are_those_of_a_plain_loop():
    """The power after a change, and of the chosen controls, image by image."""
    torch.manual_seed(0)
    network = tiny_network(3, 32, 3).eval()
    parts = [LabelledImages(torch.rand(60, 3, 32, 32), torch.arange(60) % 3) for _ in range(2)]
    pool = {y: torch.rand(2, 3, 32, 32) for y in range(3)}
    blank = {
        kind: {y: torch.full((1, 3, 32, 32), v) for y in range(3)}
        for kind, v in (("white", 1.0), ("black", 0.0))
    }
    entry = models.Entry("x", "x")
    study = measure.Study(
        entry, PixelClassifier(network), images.Images(*parts), {"positive": pool, **blank}
    )
    mask = torch.zeros(1, 32, 32)
    mask[0, :, :2] = 1
    pattern = Pattern(pool[1][1], mask, 1, {"search_power": 0.5}, seen=frozenset())
    found = study.scores(pattern, "positive", 0.05)
    others = parts[1].images[parts[1].known_labels != 1]

    @torch.no_grad()
    def hits(draws):
        return sum(
            int(network(draws[i % len(draws)].stamp(image[None])).argmax()) == 1
            for i, image in enumerate(others)
        )

    assert found["canvas"] == 1
    assert found["n"] == 40
    assert found["hits"] == hits([pattern])
    assert found["no_pattern"] == hits([replace(pattern, mask=torch.zeros_like(mask))])
    for name, draws in changes.changes(pattern):
        assert found[name] == hits(draws)
    for name, candidates in (
        ("random_pixels", controls.random_masks(pattern, pool[1])),
        ("other_canvas", controls.on_other_canvases(pattern, pool[1], pool[2])),
    ):
        powers = [Scorer(network, study._judges).power(each).value for each in candidates]
        assert found[name] == hits([candidates[powers.index(max(powers))]])
    assert not {"grey", "blurred"} & study.scores(pattern, "positive", 0.01).keys()
