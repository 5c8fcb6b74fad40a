"""benchmarks/paper.py --protocol authors on a tiny network, and its table by hand."""

import json

import pytest
import torch
from PIL import Image
from scripts import ROOT, imported
from torch import nn

from captum_classpattern import PixelClassifier
from captum_classpattern.optimization import PaperLoop

protocol = imported("benchmarks", "paper_protocol")
paper = imported("benchmarks", "paper")


@pytest.fixture
def tiny(monkeypatch):
    """Five classes of 32 x 32 grey pixels, 100 test images of which 40 are searched."""
    torch.manual_seed(0)
    network = nn.Sequential(nn.Flatten(), nn.Linear(1024, 5)).eval()
    test = protocol.TestSet(
        torch.rand(100, 1, 32, 32), torch.arange(100) % 5, torch.arange(100) // 5 % 5 < 2
    )
    monkeypatch.setattr(protocol.TestSet, "read", classmethod(lambda cls, folder: test))
    monkeypatch.setattr(protocol, "model", lambda name: PixelClassifier(network))
    monkeypatch.setattr(protocol, "PaperLoop", lambda: PaperLoop(epochs=1))
    monkeypatch.setattr(protocol, "ROUNDS", 2)
    monkeypatch.setattr(protocol, "EVERY", 3)  # labels repeat after 5
    return test


def test_one_command_measures_both_protocols_and_continues(tiny, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(protocol.measure, "__defaults__", (("natural",),))
    given = ["data", "--out", str(tmp_path), "--protocol", "authors"]
    paper.main(given)
    printed, progress = capsys.readouterr()
    assert progress.count("class ") == 3 * 5
    rows = [json.loads(row) for row in (tmp_path / "protocol.jsonl").read_text().splitlines()]
    found = [(row["canvases"], row["solver"], row["class"], row["canvas"]) for row in rows]
    assert found == [
        *(
            ("first", solver, y, i)
            for solver in ("paper", "swap")
            for y in range(5)
            for i in (0, 1)
        ),
        *(("positive", "swap", y, 0) for y in range(5)),
    ]
    theirs, ours = rows[0], rows[-1]
    sizes = {group: n for group, (_, n) in theirs["power"].items()}
    assert sizes == {
        "own, searched": 8, "own, unseen": 12, "others, searched": 32, "others, unseen": 48
    }  # fmt: skip
    assert {group for group, (_, n) in ours["power"].items() if n} == {
        "own, unseen", "others, unseen"
    }  # fmt: skip
    lines = printed.splitlines()
    titles = [row.split("|")[1].strip() for row in lines if row]
    steps, changes = len(protocol.STEPS), len(protocol.CHANGES)
    assert titles[2 : 2 + steps] == [step.title for step in protocol.STEPS]
    assert titles[-changes:] == [title for title, *_ in protocol.CHANGES]

    kept = rows[:-1]
    (tmp_path / "protocol.jsonl").write_text("".join(json.dumps(row) + "\n" for row in kept))
    paper.main(given)
    again, progress = capsys.readouterr()
    assert progress.count("class ") == 1
    assert again == printed


def test_the_counts_are_those_of_a_plain_loop(tiny):
    predicted = (torch.arange(100) * 7 + 3) % 5
    counts = tiny.counts(predicted, 2)
    plain = dict.fromkeys(counts, (0, 0))
    for guess, label, searched in zip(predicted, tiny.labels, tiny.searched):
        who, when = ("own" if label == 2 else "others"), ("searched" if searched else "unseen")
        hits, n = plain[f"{who}, {when}"]
        plain[f"{who}, {when}"] = hits + int(guess == 2), n + 1
    assert {group: tuple(of_group) for group, of_group in counts.items()} == plain


def test_the_masks_are_stored_before_the_last_update():
    assert protocol.published_steps(1_800) == 5 * 450 - 1
    assert protocol.published_steps(7) == 5 * 2 - 1


def row(target, search, own, others):
    """A row of 70 seen and 50 unseen images, with controls of its own."""

    def counts(own, others):
        return {
            "own, searched": [own, 10], "own, unseen": [own, 10],
            "others, searched": [others + 10, 50], "others, unseen": [others, 50],
        }  # fmt: skip

    scores = dict(zip(protocol.SCORES, (counts(own, others), counts(5, 2), counts(9, 1))))
    return {"model": "m", "class": target, "canvas": 0, **search._asdict(), **scores}


def test_the_tables_by_hand():
    rows = [row(y, protocol.AUTHORS, 10, 20) for y in range(5)]
    rows += [row(y, protocol.OUR_SOLVER, 0, 30) for y in range(5)]
    rows += [row(y, protocol.OURS, 0, 40) for y in range(5)]
    powers, changes = "\n".join(protocol.tables(rows)).split("\n\n")
    head, _, *lines = powers.split("\n")
    assert head == "| searched with, scored on | m: power | m: random pixels, no pattern |"
    assert [row.split(" | ")[1:] for row in lines] == [
        ["58.3% (58.3 to 58.3)", "20.0%, 25.0% |"],  # 70, 24 and 30 of 120
        ["50.0% (50.0 to 50.0)", "14.0%, 12.0% |"],
        ["40.0% (40.0 to 40.0)", "4.0%, 2.0% |"],
        ["60.0% (60.0 to 60.0)", "4.0%, 2.0% |"],
        ["80.0% (80.0 to 80.0)", "4.0%, 2.0% |"],
        ["60.0% (60.0 to 60.0)", "24.0%, 22.0% |"],
    ]
    assert [row.split(" | ")[1] for row in changes.split("\n")[2:]] == [
        "8.3 (8.3 to 8.3) |",
        "10.0 (10.0 to 10.0) |",
        "-4.7 (-4.7 to -4.7) |",  # 58.3 - 25 - (40 - 2)
        "20.0 (20.0 to 20.0) |",
        "20.0 (20.0 to 20.0) |",
        "20.0 (20.0 to 20.0) |",
    ]


def test_a_fifth_of_the_test_images_is_searched_as_in_the_other_tables(tmp_path, monkeypatch):
    problems = imported("benchmarks", "problems")
    for label in range(2):
        (tmp_path / "test" / str(label)).mkdir(parents=True)
        for number in range(10):
            value = 20 * number + 5 * label
            path = tmp_path / "test" / str(label) / f"{number}.png"
            Image.new("RGB", (32, 32), (value, 0, 0)).save(path)
    monkeypatch.setattr(problems, "SEARCH", 4)
    monkeypatch.setattr(protocol, "SEARCH", 4)
    test = protocol.TestSet.read(tmp_path)
    parts = problems.cifar10_parts(tmp_path, 0, 4)
    assert len(test.images) == 20
    assert test.searched.sum() == 4
    searched = {float(image[0, 0, 0]) for image in test.images[test.searched]}
    assert searched == {float(image[0, 0, 0]) for image in parts.images}
    assert not searched & {float(image[0, 0, 0]) for image in parts.held_out}


def test_the_authors_take_the_first_images_of_the_class(tiny):
    network = protocol.model("natural")
    found = protocol.patterns(network, tiny, protocol.AUTHORS, 3)
    assert [pattern.canvas.equal(tiny.images[i]) for pattern, i in zip(found, (3, 8))] == [True] * 2
    assert {int(pattern.mask.sum()) for pattern in found} == {50}
    unstamped = protocol.predictions(network, tiny.images, None)
    scores = protocol.score(network, tiny, found[0], unstamped, protocol.AUTHORS)
    with torch.no_grad():
        hits = [int(network(found[0].stamp(x[None])).argmax()) == 3 for x in tiny.images]
    groups = zip(tiny.labels.tolist(), tiny.searched.tolist())
    unseen = [hit for hit, (label, seen) in zip(hits, groups) if label != 3 and not seen]
    assert scores["power"]["others, unseen"] == [sum(unseen), 48]


def test_the_options_of_the_other_tables_are_refused(capsys):
    with pytest.raises(SystemExit):
        paper.main(["data", "--protocol", "authors", "--only", "kinds"])
    assert "takes no --only, --other or --rounds" in capsys.readouterr().err


def test_the_page_has_the_tables_of_the_committed_rows():
    rows = protocol.read_rows(ROOT / "benchmarks" / "results" / "protocol.jsonl")
    page = (ROOT / "docs" / "claims.md").read_text()
    powers, changes = "\n".join(protocol.tables(rows)).split("\n\n")
    assert powers in page
    assert changes in page
