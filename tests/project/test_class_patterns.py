"""benchmarks/class_patterns.py: a whole run on tiny networks, and what all models share."""

import json
from dataclasses import replace
from functools import partial

import pytest
import torch
from scripts import change, imported, read_rows, tables_of, tiny_network, write_cifar10

from captum_classpattern import LabelledImages, Pattern, PixelClassifier
from captum_classpattern.scores.power import Scorer
from captum_classpattern.triggers import BadNets

script, problems = imported("benchmarks", "class_patterns", "problems")
changes, controls, fit, images, measure, models, training = (
    imported("benchmarks", f"claims.{name}")
    for name in ("changes", "controls", "fit", "images", "measure", "models", "training")
)
train_cifar10 = problems.train_cifar10


# ---- a run


@pytest.fixture
def given(monkeypatch, tmp_path):
    """Three classes, tiny networks that train for two epochs, and searches of one step; the
    options of the script."""
    torch.manual_seed(0)
    network = partial(tiny_network, classes=3)
    stage = train_cifar10.Stage(2, 0.01, cutout=0)
    change(monkeypatch, train_cifar10, MODELS=tmp_path / "models", WideResNet=network, BATCH=16)
    change(monkeypatch, train_cifar10, SHORT=(stage,), BY_HEART=(stage._replace(by_heart=True),))
    change(monkeypatch, problems, SEARCH=80)
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


CHOSEN = ("natural_0", "robust4_0", "backdoored_white_0", "shipped_natural")


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
    weights = (out / "cifar10_natural_0.safetensors").read_bytes()
    assert not (out / "class_patterns.jsonl").exists()
    capsys.readouterr()
    script.main(["measure", *given, "--names", *CHOSEN])
    said = [line.partition(":")[0] for line in capsys.readouterr().out.splitlines()]
    assert said[:3] == ["natural_0", "natural_0, class 1", "natural_0, class 2"]
    assert said.count("epoch 1") == said.count("epoch 2") == 2  # of the other trained ones
    assert (out / "cifar10_natural_0.safetensors").read_bytes() == weights
    rows = read_rows(out / "class_patterns.jsonl")
    assert [row["model"] for row in rows] == list(CHOSEN)
    for row in rows:
        assert list(row["patterns"]) == ["positive", "white", "black"]
        for by_area in row["patterns"].values():
            assert all(len(values) == 3 for by in by_area.values() for values in by.values())
        assert ("shuffled" in row["patterns"]["positive"]["0.05"]) == (row["data"] == "CIFAR-10")
        assert "shuffled" not in row["patterns"]["white"]["0.05"]
    assert [row["attack_success"] is None for row in rows] == [True, True, False, True]
    assert len({row["canvases"] for row in rows}) == 1
    assert rows[2]["training"]["trigger"]["colours"] == "white"

    script.main(["transfer", *given])
    pairs = read_rows(out / "class_patterns_transfer.jsonl")
    assert [pair["tested"] for pair in pairs] == list(CHOSEN[:-1])
    own = rows[0]["patterns"]["positive"]["0.05"]
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
    assert sizes[1:] == [4, 24, 3, 4, 6, 6, 3, 3, 12, 0, sizes[-1]]
    assert sizes[-1] > sizes[0] > 10

    settings = {**rows[0], "canvases": "others"}
    with pytest.raises(ValueError, match="natural_0 was measured with other canvases than x"):
        imported("benchmarks", "claims.rows").check_shared({**rows[1], "model": "x"}, [settings])


def test_networks_of_other_kinds_and_seeds_differ(given, tmp_path):
    kinds, out = models.trainings(), tmp_path / "out"
    states = []
    for number, (kind, seed) in enumerate(
        [("natural", 0), ("natural", 1), ("natural_adam", 0), ("random_labels", 0)]
    ):
        training.train(str(number), kinds[kind], seed, tmp_path / "cifar10", out)
        network = train_cifar10.load_model(str(number), out)
        states.append(torch.cat([each.flatten() for each in network.state_dict().values()]))
    assert len({tuple(state.tolist()) for state in states}) == 4
    assert all(state.isfinite().all() for state in states)
    assert sorted(path.suffix for path in out.iterdir()) == [".safetensors"] * 4


def test_estimates_are_printed_without_work(tmp_path, capsys):
    script.main(["measure", "--out", str(tmp_path / "out"), "--dry-run"])
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 38
    assert lines[0].startswith("natural_0: about training ")
    assert not (tmp_path / "out").exists()


# ---- its parts


def test_the_models_are_those_of_the_plan():
    known = list(models.entries())
    assert len({entry.name for entry in known}) == len(known) == 9 * 3 + 7 + 3
    places = {
        name: patch.pattern().mask.nonzero()[0].tolist() for name, patch in models.PATCHES.items()
    }
    assert len({tuple(place) for place in places.values()}) == 3
    assert len({patch.target for patch in models.PATCHES.values()}) == 3
    for entry in known:
        json.dumps(entry.facts())
        assert ("backdoored" in entry.kind) == (entry.trigger is not None)
    checker = models.PATCHES["backdoored_checker"].pattern()
    [pixels] = [checker.canvas[0][checker.mask[0] > 0].tolist()]
    assert pixels == [1, 0, 1, 0, 1, 0, 1, 0, 1]


def test_poisoned_images_depend_on_the_seed_and_get_the_targets_label():
    shown, labels = torch.zeros(200, 3, 32, 32), torch.arange(200) % 10
    patch = models.PATCHES["backdoored_white"]
    recipe = models.Training(train_cifar10.SHORT[0], trigger=patch)
    chosen = []
    for seed in (0, 1):
        trigger, poisoned, learnt = training.planted(recipe, shown, labels, seed)
        assert int(poisoned.sum()) == 10
        assert learnt[poisoned].tolist() == [patch.target] * 10
        assert torch.equal(learnt[~poisoned], labels[~poisoned])
        assert int((trigger(shown[:1]) != 0).sum()) == 27
        chosen.append(poisoned)
    assert not torch.equal(*chosen)


def test_canvases_are_spread_over_the_confidence_in_images_that_are_right():
    """Confidence grows with the brightness; of 20 images the two darkest are wrong."""

    def classifier(batch):
        bright = batch.mean((1, 2, 3))
        return torch.stack([torch.full_like(bright, 0.125), bright], 1)

    shades = torch.linspace(0.05, 1, 20).view(-1, 1, 1, 1).expand(-1, 1, 4, 4)
    dark = torch.zeros(6, 1, 4, 4)
    search = LabelledImages(torch.cat([shades, dark]), [1] * 20 + [0] * 6)
    found = images.shared_canvases(classifier, images.Images(search, search))
    levels = found["positive"][1][:, 0, 0, 0]
    assert len(levels) == 18  # fewer than 32
    assert float(levels.min()) > 0.125
    assert levels.tolist() == sorted(levels.tolist(), reverse=True)
    assert len(found["positive"][0]) == 6
    assert [float(found[kind][0].mean()) for kind in ("white", "black")] == [1, 0]
    first = images.hash_of_canvases(found)
    found["positive"][1] = found["positive"][1].flip(0)
    assert images.hash_of_canvases(found) != first
    assert [float(each) for each in images.evenly(torch.arange(8.0), 2)] == [2, 6]


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
    assert (fit.best_fit(trigger, trigger), fit.in_place(trigger, trigger)) == (1, 1)
    moved = replace(
        trigger,
        canvas=trigger.canvas.roll((-3, -2), (1, 2)),
        mask=trigger.mask.roll((-3, -2), (1, 2)),
    )
    assert fit.best_fit(moved, trigger) == 1
    assert fit.in_place(moved, trigger) < 0.3
    white = replace(trigger, canvas=torch.ones(3, 8, 8))
    assert fit.best_fit(white, trigger) == pytest.approx(1 / 9)  # five agree, four are opposite
    grey = replace(trigger, canvas=torch.full((3, 8, 8), 0.5))
    assert fit.best_fit(grey, trigger) == pytest.approx(0)


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
