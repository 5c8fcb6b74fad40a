"""Every script of benchmarks/ and tutorials/ runs completely on a tiny case.

Exception: tutorials/bring_your_own_model.py runs in test_readme.py.
"""

import gzip
import json
from functools import partial
from importlib import import_module
from itertools import pairwise

import numpy as np
import pytest
import torch
import torchvision
from safetensors.torch import load_file
from scripts import ROOT, imported
from torch import nn

from captum_classpattern import PixelClassifier
from captum_classpattern.demo import CLASS_NAMES, MODELS, DemoImages, LabelledImages

SCRIPTS = sorted(
    path for folder in ("benchmarks", "tutorials") for path in ROOT.glob(f"{folder}/*.py")
)
demo_package = import_module("captum_classpattern.demo")


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.stem)
def test_it_imports(path):
    assert imported(path.parent.name, path.stem)


def tiny_network(channels=3, size=32):
    """A network whose predictions on noise are about even over ten classes."""
    centred = nn.BatchNorm2d(channels)
    centred.running_mean.fill_(0.5)
    patches = nn.Conv2d(channels, 8, 4, 4, bias=False)
    return nn.Sequential(
        centred, patches, nn.Tanh(), nn.Flatten(), nn.Linear(8 * (size // 4) ** 2, 10, bias=False)
    )


def noise(channels, size, per_class):
    """Random uint8 images of ten classes, and their labels."""
    shape = (10 * per_class, channels, size, size)
    return torch.randint(0, 256, shape, dtype=torch.uint8), torch.arange(10).repeat(per_class)


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


@pytest.fixture
def tiny_demo(monkeypatch):
    """Replaces the demo's models and images, in the package and in the given scripts."""

    def part():
        images, labels = noise(1, 28, 6)
        return LabelledImages(images / 255, labels)

    images = DemoImages(part(), part())
    models = {
        name: PixelClassifier(tiny_network(1, 28).eval(), class_names=CLASS_NAMES)
        for name in MODELS
    }

    def replace_in(*modules):
        for module in modules:
            monkeypatch.setattr(module, "demo_images", lambda: images)
            monkeypatch.setattr(module, "demo_models", lambda: models)

    replace_in(demo_package)
    return replace_in


@pytest.fixture
def cifar10(tmp_path):
    """A folder with the layout of CIFAR-10, of noise images."""
    for split in ("train", "test"):
        images, labels = noise(3, 32, 10)
        for i, (image, y) in enumerate(zip(images, labels)):
            path = tmp_path / "cifar10" / split / str(int(y)) / f"{i}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            torchvision.io.write_png(image, str(path))
    return tmp_path / "cifar10"


def tables_of(printed):
    """The header of each Markdown table, and its number of rows."""
    tables = []
    lines = ["", *printed.split("\n")]
    for before, line in pairwise(lines):
        if line.startswith("|") and not before.startswith("|"):
            tables.append([line, -1])  # the separator line is not a row
        elif line.startswith("|"):
            tables[-1][1] += 1
    return [tuple(table) for table in tables]


# ---- benchmarks/speed.py


@pytest.fixture
def speed(monkeypatch, tiny_demo):
    """The script with few images, rounds and steps, and tiny networks."""
    names = ("speed", "problems", "equal_power", "strength", "overhead", "growth")
    speed, problems, equal_power, strength, overhead, growth = (
        imported("benchmarks", name) for name in names
    )
    tiny_demo(problems)
    monkeypatch.setattr(problems, "SEARCH", 40)
    monkeypatch.setattr(problems, "HELD_OUT", 20)
    monkeypatch.setattr(problems.train_cifar10, "load_model", lambda name: tiny_network().eval())
    monkeypatch.setattr(equal_power, "BUDGETS", (600, 800))
    monkeypatch.setattr(equal_power, "CANVASES", 1)
    monkeypatch.setattr(equal_power, "POOL", 2)
    monkeypatch.setattr(equal_power, "LATENCY", 1)
    monkeypatch.setattr(equal_power, "MORE", 2)
    goals = [(model, canvas, 500, goal) for model, canvas, _, goal in strength.GOALS]
    monkeypatch.setattr(strength, "GOALS", goals)
    monkeypatch.setattr(strength, "POOL", 2)
    monkeypatch.setattr(strength, "AREAS_BUDGET", 500)
    monkeypatch.setattr(strength, "TRIGGER_SEEDS", 2)
    monkeypatch.setattr(speed, "ZEBRA", 0)
    monkeypatch.setattr(speed, "PHOTO_BUDGET", 400)
    monkeypatch.setattr(overhead, "STEPS", 4)
    monkeypatch.setattr(growth, "START", {"classes": 1, "canvases": 1, "images": 20})
    monkeypatch.setattr(growth, "SWEEPS", {"images": (20,)})
    return speed


def test_speed_compares_the_power_with_the_loop(speed, cifar10, capsys):
    given = ["--tables", "power", "--seeds", "2", "--equal-seeds", "1"]
    speed.main([*given, "--cifar10", str(cifar10), "--models", "CIFAR-10, natural"])
    printed = capsys.readouterr().out
    assert printed.startswith("Measured on ")
    assert tables_of(printed) == [
        (
            "| budget | power | passes, ratio to the loop | time, ratio to the loop "
            "| time, ratio to the loop in one batch |",
            2,
        ),
        ("| figure | loop | ours | goal | |", 3),
        ("| figure | reference | ours | goal | |", 2),
    ]
    assert "### CIFAR-10, natural: all 10 classes, 2 seeds" in printed
    assert "), CIFAR-10, natural | 1 | 1/" in printed  # the latency
    assert "| power of the default, compared with ten times the passes (CIFAR-10, nat" in printed


def test_speed_measures_how_strong_the_search_is(speed, cifar10, capsys):
    speed.main(["--tables", "strength", "--seeds", "1", "--cifar10", str(cifar10)])
    printed = capsys.readouterr().out
    assert tables_of(printed) == [("| figure | reference | ours | goal | |", 15)]
    for name in (
        "CIFAR-10, natural, positive, 500 passes a class, 10 classes, 1 seeds (",
        "CIFAR-10, natural, white, 500 passes a class, 10 classes, 1 seeds (",
        "CIFAR-10, robust8, positive, 500 passes a class, 10 classes, 1 seeds (",
        "demo, backdoored, white, 10 pixels, worst of 2 seeds (mean ",
        "CIFAR-10, backdoored, white, 10 pixels, worst of 2 seeds (mean ",
        "demo, natural: IoU of two searches of the same positive canvas",
        "CIFAR-10, natural: IoU of two searches of the same positive canvas",
        "demo, natural, one positive canvas, 1%, from 5%; alone (1 seeds)",
        "CIFAR-10, backdoored, one white canvas, 1%, from 5%; alone (1 seeds)",
    ):
        assert f"| {name}" in printed


def test_speed_times_steps_photographs_and_the_demo(speed, cifar10, monkeypatch, capsys):
    demo = import_module("captum_classpattern.cli.demo")  # the command has the same name
    monkeypatch.setattr(demo, "ROUNDS", 1)
    monkeypatch.setattr(demo, "CANVASES", {"positive": 1, "white": 1})
    monkeypatch.setattr(demo, "write_figure", lambda *_: None)
    problems = imported("benchmarks", "problems")
    photos = problems.demo_problems()[0]._replace(name="photos")
    monkeypatch.setattr(speed, "photo_problem", lambda folder: photos)
    speed.main(["--tables", "overhead", "--cifar10", str(cifar10), "--photos", "photos"])
    printed = capsys.readouterr().out
    [table] = tables_of(printed)
    steps_and_swaps = 2 * (3 + 3 + 1)
    assert table == ("| figure | reference | ours | goal | |", steps_and_swaps + 3)
    for name in (
        "demo, natural, canvases: 40",
        "CIFAR-10, natural, canvases: 40",
        "photos, canvases: 1",
    ):
        for kind in ("sign-gradient steps", "rounds of swaps"):
            assert f"| {kind}, time relative to bare passes, {name} |" in printed
    assert "| photos: one class, one canvas (power 0." in printed
    assert "| photos: 10 classes, white, 400 passes a class, power 0." in printed
    assert "| the demo: 3 models, 10 classes, 2 areas, 1 rounds |" in printed


def test_speed_prints_the_table_of_growth(speed, cifar10, capsys):
    speed.main(["--tables", "growth", "--cifar10", str(cifar10)])
    printed = capsys.readouterr().out
    head = "| 20 rounds | seconds | time ratio | peak memory, MiB | memory ratio |"
    assert tables_of(printed) == [(head, 1)]
    assert "\n| images: 20 | " in printed
    assert "search images: 1.00 (goal <= 1.1: met)." in printed


def test_growth_makes_the_given_number_of_images(speed):
    growth = imported("benchmarks", "growth")
    cost = growth.measure_search(classes=2, canvases=1, images=130, cifar10=None)
    assert cost["seconds"] > 0
    assert cost["peak"] > 100


def test_photographs_have_the_classes_of_their_folders(tmp_path):
    for name in ("0007_n01514668", "0011_n01531178"):
        (tmp_path / name).mkdir()
        for i, image in enumerate(noise(3, 256, 1)[0][:2]):
            torchvision.io.write_png(image, str(tmp_path / name / f"{i}.png"))
    problem = imported("benchmarks", "problems").photo_problem(tmp_path)
    assert problem.labels.tolist() == problem.held_out_labels.tolist() == [7, 11]
    with torch.no_grad():
        assert problem.model(problem.images).shape == (2, 1000)


# ---- benchmarks/solvers.py


def test_solvers_compares_searches_and_keeps_what_it_has(tiny_demo, tmp_path, monkeypatch, capsys):
    solvers, problems = imported("benchmarks", "solvers"), imported("benchmarks", "problems")
    tiny_demo(problems)
    monkeypatch.setattr(solvers, "PASSES", (150, 300))
    monkeypatch.setattr(solvers, "AREAS", (0.05,))
    monkeypatch.setattr(solvers, "HELD_OUT", 40)
    monkeypatch.setattr(solvers, "SPREAD", 2)
    out = tmp_path / "results" / "solvers.jsonl"
    given = ["--out", str(out), "--seeds", "1", "--classes", "2", "--models", "natural"]
    solvers.main(given)
    printed = capsys.readouterr().out
    head = "| model | canvas | area | seeds | 150 passes | 300 passes | |"
    assert tables_of(printed) == [(head, 2)]
    assert "Mean difference: " in printed
    lines = out.read_text().splitlines()
    assert len(lines) == 2 * 2 * 2  # passes, kinds of canvas, solvers
    changed = [line.replace('"powers": {"0": ', '"powers": {"0": 9') for line in lines]
    out.write_text("\n".join(changed) + "\n")
    solvers.main(given)  # nothing is searched again
    assert out.read_text().splitlines() == changed
    assert capsys.readouterr().out != printed


def test_the_solver_of_version_01_takes_the_passes_that_it_promises():
    from captum_classpattern import search_masks

    old = imported("benchmarks", "swap_01").Swap01()
    images = torch.rand(800, 1, 8, 8)
    net = tiny_network(1, 8).eval()
    result = search_masks(
        net, images[:1], 0, images, baseline_labels=[1] * 800, solver=old, n_steps=3
    )
    assert result.passes.tolist() == old.passes(3) == [3 * 44]
    assert result.losses.shape == (1, 3)


# ---- benchmarks/paper.py


@pytest.fixture
def paper(monkeypatch, tmp_path):
    """The script with one seed, one canvas of each kind, and tiny networks of every kind."""
    paper, search = imported("benchmarks", "paper"), imported("benchmarks", "paper_search")
    train_cifar10 = paper.train_cifar10
    monkeypatch.syspath_prepend(ROOT / "tutorials")  # as in the script, for --other
    monkeypatch.setattr(train_cifar10, "MODELS", tmp_path / "models")
    monkeypatch.setattr(train_cifar10, "WideResNet", tiny_network)
    monkeypatch.setattr(imported("benchmarks", "problems"), "SEARCH", 80)
    monkeypatch.setattr(search, "HELD_OUT", 20)
    for name, group in search.GROUPS.items():
        small = group._replace(seeds=1, canvases=dict.fromkeys(group.canvases, 1))
        monkeypatch.setitem(search.GROUPS, name, small)
    yield paper
    for cached in (search.parts, search.model):
        cached.cache_clear()


def write_models(paper, names):
    scores = {"test_set": {"training_accuracy": 0.9, "accuracy": 0.1}}
    paper.train_cifar10.MODELS.mkdir()
    for name in names:
        paper.train_cifar10.save_weights(name, tiny_network())
        paper.weights_file(name).with_suffix(".json").write_text(json.dumps(scores))


def test_paper_prints_all_its_tables_and_draws_its_figures(paper, cifar10, tmp_path, capsys):
    write_models(paper, {name for group in paper.GROUPS.values() for name in group.models})
    network = imported("tutorials", "bring_your_own_model").WideResNet()
    torch.save({"net": network.state_dict()}, tmp_path / "own.pth")
    out = tmp_path / "out"
    given = [str(cifar10), "--out", str(out), "--rounds", "1"]
    paper.main([*given, "--other", str(tmp_path / "own.pth")])
    printed, logged = capsys.readouterr()
    assert logged.count("searching ") == 18
    tables = tables_of(printed)
    assert [(head.split(" | ")[0], rows) for head, rows in tables] == [
        ("| model", 6 + 2),  # claim 1: kinds of canvas and areas
        ("| class", 10),
        ("| model", 6),  # claim 2: the backdoored class, the trigger in its patterns
        ("| model", 6 + 8),
        ("| model", 2 * 4),
        ("| stamped on", 5 + 1),  # claim 3
        ("| model", 4 * 2 + 1),  # claim 4: the last row has random pixels
        ("| model minus control", 2 * 2),
        ("| canvas", 8),
        ("| epochs", 6),
        ("| labels", 2 * 2),
    ]
    for name in ("paper_patterns.png", "paper_trigger.png"):
        assert (out / name).stat().st_size > 5_000
    paper.main([*given, "--only", "memorised"])
    printed, logged = capsys.readouterr()
    assert "searching" not in logged  # the findings are cached
    assert tables_of(printed) == tables[-1:]


def test_paper_skips_groups_with_missing_models(paper, cifar10, tmp_path, capsys):
    write_models(paper, ["natural"])
    paper.main([str(cifar10), "--out", str(tmp_path), "--only", "kinds", "memorised"])
    printed, logged = capsys.readouterr()
    assert logged == (
        "skipped: kinds, missing models: backdoored\n"
        "skipped: memorised, missing models: true_labels, random_labels\n"
    )
    assert tables_of(printed) == []
    assert not list(tmp_path.glob("*.png"))


# ---- benchmarks/failures.py


def write_idx(folder, split, count):
    images, labels = noise(1, 28, count // 10)
    for data, name, head in ((images, "images-idx3", 16), (labels.byte(), "labels-idx1", 8)):
        packed = gzip.compress(bytes(head) + data.numpy().tobytes())
        (folder / f"{split}-{name}-ubyte.gz").write_bytes(packed)


def test_failures_trains_searches_and_prints_its_tables(tiny_demo, monkeypatch, tmp_path, capsys):
    failures = imported("benchmarks", "failures")
    tiny_demo(failures)
    for module in (failures, imported("benchmarks", "demo_training")):
        monkeypatch.setattr(module, "SmallResNet", lambda: tiny_network(1, 28))
    write_idx(tmp_path, "train", 260)
    write_idx(tmp_path, "t10k", 20)
    out = tmp_path / "out"
    given = [str(tmp_path), "--out", str(out), "--seeds", "1", "--epochs", "1", "--rounds", "1"]
    given += ["--triggers", "BadNets", "WaNet"]
    failures.main(given)
    printed, logged = capsys.readouterr()
    assert (logged.count("training "), logged.count("searching ")) == (3, 3 + 3)
    overview, *against_others, false_alarms, weak = tables_of(printed)
    assert overview[0].startswith("| trigger | strength | poisoned | seed | accuracy |")
    assert overview[1] == 2 + 3  # the demo's models and the trained ones
    assert [rows for _, rows in against_others] == 4 * [1 + 2]  # without the clean models
    assert false_alarms == ("| model | canvas | area | first class | next class | stands out |", 12)
    assert weak[0].startswith("| model | class | positive, 5% | white, 5% |")
    failures.main(given)
    assert capsys.readouterr() == (printed, "")  # models and patterns are cached


# ---- benchmarks/demo_training.py


@pytest.mark.filterwarnings("ignore:Input Tensor 0 did not already require gradients")
def test_demo_training_makes_the_images_and_models(monkeypatch, tmp_path):
    script, out = imported("benchmarks", "demo_training"), tmp_path / "out"
    monkeypatch.setattr(script, "SmallResNet", lambda: tiny_network(1, 28))
    for settings in script.SETTINGS.values():
        monkeypatch.setitem(settings, "epochs", 1)
    write_idx(tmp_path, "train", 260)
    write_idx(tmp_path, "t10k", 20)
    script.main([str(tmp_path), "--out", str(out)])
    scores = {"natural": set(), "backdoored": {"attack_success"}, "robust": {"pgd20_accuracy"}}
    assert set(scores) == set(MODELS)
    for name, more in scores.items():
        record = json.loads((out / f"{name}.json").read_text())
        for images in ("full_test_set", "embedded_images"):
            assert set(record[images]) == {"accuracy", *more}
        weights = load_file(out / f"{name}.safetensors")
        assert {value.dtype for value in weights.values()} <= {torch.float16, torch.int64}
    with np.load(out / "fashion_mnist.npz") as file:
        assert file["images"].shape == (20, 28, 28)
        assert file["labels"].tolist() == [label for label in range(10) for _ in range(2)]


# ---- tutorials/train_cifar10.py


@pytest.fixture
def train_cifar10(monkeypatch, tmp_path):
    """The script with short stages and a small network; it writes to a temporary folder."""
    script = imported("tutorials", "train_cifar10")
    monkeypatch.setattr(script, "MODELS", tmp_path / "models")
    monkeypatch.setattr(script, "BATCH", 16)
    monkeypatch.setattr(imported("tutorials", "cifar10_kinds"), "PGD_STEPS", 2)
    monkeypatch.setattr(script, "WideResNet", partial(script.WideResNet, width=1, blocks=1))
    stages = (script.Stage(2, 0.1, small=1), script.Stage(1, 0.05, cutout=0, averaged=True))
    by_heart = (script.Stage(1, 0.1, cutout=0, by_heart=True),)
    for name in script.STAGES_OF:
        short = by_heart if script.STAGES_OF[name] is script.BY_HEART else stages
        monkeypatch.setitem(script.STAGES_OF, name, short)
    monkeypatch.setattr(script, "STAGES", stages)
    monkeypatch.setattr(script, "BY_HEART", by_heart)
    return script


@pytest.mark.filterwarnings("ignore:Input Tensor 0 did not already require gradients")
@pytest.mark.parametrize(
    ("name", "scored"),
    [
        ("natural", {"accuracy"}),
        ("robust8", {"accuracy", "pgd_accuracy"}),
        ("clean_label", {"accuracy", "attack_success"}),
        ("random_labels", {"accuracy", "training_accuracy"}),
    ],
)
def test_every_kind_of_model_is_trained_scored_and_saved(
    train_cifar10, cifar10, tmp_path, name, scored
):
    train_cifar10.main([name, "--data", str(cifar10), "--keep", "1"])
    record = json.loads((tmp_path / "models" / f"cifar10_{name}.json").read_text())
    assert set(record["test_set"]) == scored
    stages = train_cifar10.STAGES_OF.get(name, train_cifar10.STAGES)
    assert record["stages"] == [stage._asdict() for stage in stages]
    for saved in (name, f"{name}_epoch1"):
        assert train_cifar10.load_model(saved)(torch.rand(2, 3, 32, 32)).shape == (2, 10)


@pytest.mark.filterwarnings("ignore:Input Tensor 0 did not already require gradients")
@pytest.mark.parametrize("name", ["natural", "robust4"])
def test_an_interrupted_training_resumes_to_the_same_weights(
    train_cifar10, cifar10, tmp_path, monkeypatch, capsys, name
):
    weights = tmp_path / "models" / f"cifar10_{name}.safetensors"
    given = [name, "--data", str(cifar10)]
    train_cifar10.main(given)
    whole = load_file(weights)
    for path in (tmp_path / "models").iterdir():
        path.unlink()
    train, epochs = train_cifar10.train_epoch, []

    def interrupted(*arguments):
        epochs.append(1)
        if len(epochs) == 2:
            raise KeyboardInterrupt
        return train(*arguments)

    monkeypatch.setattr(train_cifar10, "train_epoch", interrupted)
    with pytest.raises(KeyboardInterrupt):
        train_cifar10.main(given)
    assert not weights.exists()
    capsys.readouterr()
    train_cifar10.main(given)
    printed = capsys.readouterr().out
    assert [line.split(":")[0] for line in printed.splitlines() if line.startswith("epoch")] == [
        "epoch 2",
        "epoch 1",
    ]
    resumed = load_file(weights)
    assert resumed.keys() == whole.keys()
    for key, value in whole.items():
        torch.testing.assert_close(resumed[key], value)


def test_the_last_stage_can_be_trained_again(train_cifar10, cifar10, tmp_path, capsys):
    given = ["natural", "--data", str(cifar10)]
    train_cifar10.main(given)
    (tmp_path / "models" / ".cifar10_natural_1.pt").unlink()
    capsys.readouterr()
    train_cifar10.main([*given, "--first", "1"])
    first, last = capsys.readouterr().out.splitlines()
    assert first.startswith("epoch 1: loss ")
    assert last.startswith("natural {'accuracy': ")
