"""benchmarks/paper.py: all tables and figures on tiny networks, and each table by hand."""

import json
from functools import partial

import pytest
import torch
from scripts import (
    AREA,
    ROOT,
    change,
    finishes,
    found,
    imported,
    of_classes,
    tables_of,
    tiny_network,
    write_cifar10,
)
from torch import nn

from captum_classpattern import PixelClassifier, Survey
from captum_classpattern.optimization import PaperLoop
from captum_classpattern.scores.intervals import bootstrap_over_classes
from captum_classpattern.scores.shape import simplicity
from captum_classpattern.triggers import BadNets

NAMES = ("ant", "bee", "cat")
backdoor, figures, paper, problems, protocol, search, tables = imported(
    *("benchmarks", "paper_backdoor", "paper_figures", "paper", "problems", "paper_protocol"),
    *("paper_search", "paper_tables"),
)


# ---- a run


@pytest.fixture
def script(monkeypatch, tmp_path):
    """The script with one seed, one canvas of each kind, and tiny networks of three classes of the
    given kinds."""
    torch.manual_seed(0)
    network = partial(tiny_network, classes=3)
    train_cifar10 = paper.train_cifar10
    monkeypatch.syspath_prepend(ROOT / "tutorials")  # as in the script, for --other
    change(monkeypatch, train_cifar10, MODELS=tmp_path / "models", WideResNet=network)
    change(monkeypatch, problems, SEARCH=80)
    change(monkeypatch, search, HELD_OUT=20, CLASS_NAMES=NAMES)
    drawn = {"positive", "white", "black", "grey", "noise"}
    for name, group in search.GROUPS.items():
        canvases = {kind: 1 for kind in group.canvases if kind in drawn}
        small = group._replace(seeds=1, canvases=canvases, areas=group.areas[:2])
        monkeypatch.setitem(search.GROUPS, name, small)
    monkeypatch.setattr(paper, "EPOCHS", (1,))
    epochs = search.GROUPS["epochs"]._replace(models=("natural_short_epoch1", "natural_short"))
    monkeypatch.setitem(search.GROUPS, "epochs", epochs)
    train_cifar10.MODELS.mkdir()

    def write_models(names):
        scores = {"test_set": {"training_accuracy": 0.9, "accuracy": 0.1}}
        for name in names:
            train_cifar10.save_weights(name, network())
            search.weights_file(name).with_suffix(".json").write_text(json.dumps(scores))

    yield write_models
    for cached in (search.parts, search.model):
        cached.cache_clear()


def test_all_tables_are_printed_and_both_figures_drawn(script, tmp_path, capsys):
    script({name for group in search.GROUPS.values() for name in group.models})
    other = imported("tutorials", "bring_your_own_model").WideResNet()
    torch.save({"net": other.state_dict()}, tmp_path / "own.pth")
    out, cifar10 = tmp_path / "out", write_cifar10(tmp_path / "cifar10", 34, 3)
    given = [str(cifar10), "--out", str(out), "--rounds", "1"]
    paper.main([*given, "--other", str(tmp_path / "own.pth")])
    printed, logged = capsys.readouterr()
    assert logged.count("searching ") == 14
    printed_tables = tables_of(printed)
    assert [(head.split(" | ")[0], rows) for head, rows in printed_tables] == [
        ("| model", 4 + 2),  # claim 1: kinds of canvas and areas
        ("| class", 3),
        ("| model", 4),  # claim 2: the backdoored class, the trigger in its patterns
        ("| model", 4 + 5),
        ("| model", 2 * 4),
        ("| stamped on", 5 + 1),  # claim 3
        ("| model", 4 * 2 + 1),  # claim 4: the last row has random pixels
        ("| model minus control", 2 * 2),
        ("| canvas", 5),
        ("| epochs", 2),
        ("| labels", 2 * 2),
    ]
    for name in ("paper_patterns.png", "paper_trigger.png"):
        assert (out / name).stat().st_size > 5_000
    paper.main([*given, "--only", "memorised"])
    printed, logged = capsys.readouterr()
    assert "searching" not in logged  # the findings are cached
    assert tables_of(printed) == printed_tables[-1:]


def test_groups_with_missing_models_are_skipped(script, tmp_path, capsys):
    script(["natural"])
    paper.main([str(tmp_path), "--out", str(tmp_path), "--only", "kinds", "memorised"])
    printed, logged = capsys.readouterr()
    assert logged == (
        "skipped: kinds, missing models: backdoored\n"
        "skipped: memorised, missing models: true_labels, random_labels\n"
    )
    assert tables_of(printed) == []
    assert not list(tmp_path.glob("*.png"))


# ---- its tables by hand


def corner():
    mask = torch.zeros(1, 8, 8)
    mask[0, -2:, -2:] = 1.0
    return mask


def test_all_tables(snapshot):
    """Of means of 92.5, 25 and 3 %. The cat beats its controls in one of two seeds. The backdoored
    class's 90 and 40 % stand out in the first seed; the bee of the clean model does in both."""
    weak = [found(0, 900), found(1, 300), found(2, 30, control=0.5)]
    seeds, scores = [of_classes(950, 200, 30), Survey(weak)], {"training_accuracy": 0.99}
    positive = [of_classes(100, 200, 300, canvas="positive")]
    of_trigger = [of_classes(100, 200, 300, canvas="positive", areas=(0.01,))]
    suspect = [of_classes(900, 200, 30), of_classes(400, 395, 30)]
    clean = [of_classes(20, 300, 30)] * 2
    stamped = [
        {"class": y, "on": model, "power": power, "random_pixels": 0.1, "no_pattern": 0.2}
        | {"above_both": power > 0.3}
        for model, powers in {"itself": (0.5, 0.6), "other": (0.25, 0.4)}.items()
        for y, power in enumerate(powers)
    ]
    for name, table in {
        "all classes": tables.predictive({"a model": seeds}, NAMES),
        "each class": tables.each_class(seeds, NAMES),
        "memorised": tables.memorisation({"random": (scores | {"accuracy": 0.1}, seeds)}, NAMES),
        "kinds of canvas": tables.canvas_kinds(positive, NAMES, of_trigger, 2),
        "epochs": tables.over_training({"1": (0.4, positive), "16": (0.9, positive)}, AREA),
        "backdoored class": backdoor.suspicious({"suspect": suspect}, clean, 0, NAMES),
        "transfer": tables.transferred(stamped),
    }.items():
        assert "\n".join(table) == snapshot(name=name)


def test_a_pattern_is_compared_with_the_trigger_at_its_place_and_anywhere():
    trigger = BadNets((1, 8, 8)).pattern(0)
    white = trigger.mask * (trigger.canvas > 0)  # the five white pixels
    moved = white.roll((-3, -3), (1, 2))
    seeds = [of_classes(900, 200, 1, masks=(white, moved, None))]
    clean = [of_classes(20, 1, 1, masks=(corner().flip(2), None, None))]
    rows = backdoor.trigger_found({"suspect": seeds}, clean, 0, trigger, trigger.mask > 0)
    *_, row = rows
    # five of nine; class 1 has the five at another place, class 2 a square of four, one of which
    # agrees with the trigger; none in the clean model but one anywhere
    assert row.split(" | ")[2:] == ["0.56", "5.00", "0.04", "3.00", "0.00", "1.00 |"]


def test_the_interval_is_over_the_means_of_the_classes():
    values = {0: [0.1, 0.3], 1: [0.5, 0.5], 2: [0.8, 1.0], 3: [0.4], 4: [0.1]}
    low, high = bootstrap_over_classes(values).interval
    assert tables.percent(values) == f"42.0% ({100 * low:.1f}-{100 * high:.1f})"
    assert tables.number(values, 3) == f"0.420 ({low:.3f} to {high:.3f})"
    assert low < 0.3 < 0.6 < high
    del values[4]
    assert tables.percent(values) == "50.0%"  # too few classes for an interval
    assert tables.number(values, 1) == "0.5"


def test_shapes_are_compared_with_random_pixels_and_class_by_class():
    two, one = torch.zeros(1, 8, 8), torch.zeros(1, 8, 8)
    two[0, 0, :2] = two[0, 5, :2] = 1.0
    one[0, 0, :4] = 1.0
    ours = [of_classes(*[500] * 5)]
    rows = "\n".join(tables.shapes({"a model": ("0", ours)}, AREA)).split("\n")
    shown, random = ([cell.strip() for cell in row.split("|")[1:-1]] for row in rows[2:])
    square = simplicity(corner())
    assert shown[4] == "5"
    assert shown[5].startswith(f"{square.total_variation:.3f} (")
    assert shown[7] == "1.0 (1.0 to 1.0)"
    assert random[0] == "*random pixels*"
    assert float(random[7].split()[0]) > 2
    assert float(random[6].split()[0]) > square.high_frequency_share

    control = [of_classes(*[500] * 5, masks=(two, two, one, one, two))]
    robust = {"robust": [of_classes(*[500] * 5, masks=(one,) * 5)]}
    *_, row = tables.simpler(control, robust, AREA)
    differences = {0: [-1.0], 1: [-1.0], 2: [0.0], 3: [0.0], 4: [-1.0]}
    low, high = bootstrap_over_classes(differences).interval
    assert row.startswith("| robust | white | ")
    assert row.endswith(f" | -0.6 ({low:.1f} to {high:.1f}) |")


# ---- the authors' protocol


@pytest.fixture
def test_set(monkeypatch):
    """Five classes of 32 x 32 grey pixels, 100 test images of which 40 are searched."""
    torch.manual_seed(0)
    network = nn.Sequential(nn.Flatten(), nn.Linear(1024, 5)).eval()
    test = protocol.TestSet(
        torch.rand(100, 1, 32, 32), torch.arange(100) % 5, torch.arange(100) // 5 % 5 < 2
    )
    loop, model = PaperLoop(epochs=1), PixelClassifier(network)
    change(monkeypatch, protocol, model=lambda name: model, PaperLoop=lambda: loop)
    change(monkeypatch, protocol, ROUNDS=2, EVERY=3)  # labels repeat after 5
    monkeypatch.setattr(protocol.TestSet, "read", classmethod(lambda cls, folder: test))
    return test


def test_both_protocols_are_measured(test_set, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(protocol.measure, "__defaults__", (("natural",),))
    given = ["data", "--out", str(tmp_path), "--protocol", "authors"]
    out = tmp_path / "protocol.jsonl"

    def lost(row):
        return (row["canvases"], row["class"]) == ("positive", 4)

    said, rows, lines = finishes(paper.main, given, out, lost, capsys)
    assert said == ["natural, positive canvases, swap, class 4"]
    measured = [(row["canvases"], row["solver"], row["class"], row["canvas"]) for row in rows]
    assert measured == [
        *(("first", name, y, i) for name in ("paper", "swap") for y in range(5) for i in (0, 1)),
        *(("positive", "swap", y, 0) for y in range(5)),
    ]
    theirs, ours = rows[0]["power"], rows[-1]["power"]
    assert {group: n for group, (_, n) in theirs.items()} == {
        "own, searched": 8, "own, unseen": 12, "others, searched": 32, "others, unseen": 48
    }  # fmt: skip
    assert [group for group, (_, n) in ours.items() if n] == ["own, unseen", "others, unseen"]
    titles = [row.split("|")[1].strip() for row in lines if row]
    steps, changes = len(protocol.STEPS), len(protocol.CHANGES)
    assert titles[2 : 2 + steps] == [step.title for step in protocol.STEPS]
    assert titles[-changes:] == [title for title, *_ in protocol.CHANGES]


def test_the_counts_are_those_of_a_plain_loop(test_set):
    predicted = (torch.arange(100) * 7 + 3) % 5
    counts = test_set.counts(predicted, 2)
    plain = dict.fromkeys(counts, (0, 0))
    for guess, label, searched in zip(predicted, test_set.labels, test_set.searched):
        who, when = ("own" if label == 2 else "others"), ("searched" if searched else "unseen")
        hits, n = plain[f"{who}, {when}"]
        plain[f"{who}, {when}"] = hits + int(guess == 2), n + 1
    assert {group: tuple(of_group) for group, of_group in counts.items()} == plain


def test_the_masks_are_stored_before_the_last_update():
    assert protocol.published_steps(1_800) == 5 * 450 - 1
    assert protocol.published_steps(7) == 5 * 2 - 1


def test_the_authors_take_the_first_images_of_the_class(test_set):
    network = protocol.model("natural")
    patterns = protocol.patterns(network, test_set, protocol.AUTHORS, 3)
    for pattern, place in zip(patterns, (3, 8), strict=True):
        assert pattern.canvas.equal(test_set.images[place])
        assert int(pattern.mask.sum()) == 50
    unstamped = protocol.predictions(network, test_set.images, None)
    scores = protocol.score(network, test_set, patterns[0], unstamped, protocol.AUTHORS)
    with torch.no_grad():
        stamped = (patterns[0].stamp(image[None]) for image in test_set.images)
        hits = [int(network(image).argmax()) == 3 for image in stamped]
    groups = zip(test_set.labels.tolist(), test_set.searched.tolist())
    unseen = [hit for hit, (label, seen) in zip(hits, groups) if label != 3 and not seen]
    assert scores["power"]["others, unseen"] == [sum(unseen), 48]
