"""benchmarks/protocol.py: the authors' protocol beside ours."""

import pytest
import torch
from scripts import change, finishes, imported
from torch import nn

from captum_classpattern import PixelClassifier
from captum_classpattern.optimization import PaperLoop

protocol = imported("benchmarks", "protocol")


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


def test_both_protocols_are_measured(test_set, tmp_path, capsys):
    given = ["data", "--out", str(tmp_path / "protocol.jsonl"), "--names", "natural"]
    out = tmp_path / "protocol.jsonl"

    def lost(row):
        return (row["canvases"], row["class"]) == ("positive", 4)

    said, rows, lines = finishes(protocol.main, given, out, lost, capsys)
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
