"""The folder of a survey: its files, and what happens if several write to it."""

import json
import pickle
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from refusals import refusal, warnings_of
from safetensors import safe_open
from safetensors.torch import save
from surveyed import finding, stamped

from captum_classpattern.pattern import MovingPattern, Pattern
from captum_classpattern.surveys import Survey
from captum_classpattern.surveys.folder import SurveyFolder

WITHOUT_VERSION = {"seed": 0, "canvases": {"positive": 1, "white": 1}}
SETTINGS = {**WITHOUT_VERSION, "captum_classpattern": "1"}


def class_of(target):
    return [finding(target, "positive", 10 + target), finding(target, "white", 20)]


def targets(store):
    return [(f.target, f.canvas) for f in store.contents()[1]]


def with_images(one):
    return replace(one, stamped={a: stamped(p.topk(a)) for a, p in one.patterns.items()})


@pytest.mark.parametrize("name", [None, "guinea pig, Cavia cobaya", "white"])
def test_all_of_a_class_is_one_file_that_is_read_back_and_copied(name, tmp_path):
    """The patterns, scores and stamped images of each canvas and area."""
    found = [with_images(replace(one, class_name=name)) for one in class_of(2)]
    Survey(found, info={"settings": SETTINGS}).save(tmp_path / "new")
    assert [path.name for path in (tmp_path / "new/findings").iterdir()] == ["2.safetensors"]
    read = Survey.load(tmp_path / "new").findings
    Survey(read, info={"settings": SETTINGS}).save(tmp_path / "again")
    again = Survey.load(tmp_path / "again").findings
    for one, *others in zip(found, read, again, pickle.loads(pickle.dumps(read)), strict=True):
        for other in others:
            assert (other.target, other.canvas, other.scores) == (2, one.canvas, one.scores)
            assert (other.class_name, other.as_dict()) == (name, one.as_dict())
            for area, pattern in one.patterns.items():
                assert torch.equal(other.patterns[area].canvas, pattern.canvas)
                assert torch.equal(other.patterns[area].mask, pattern.mask)
                assert other.patterns[area].info == pattern.info
                images, expected = other.stamped[area], one.stamped[area]
                assert torch.allclose(images.images, expected.images)
                assert images.captions == expected.captions
                assert images.labels == expected.labels
    assert again[0].examples is again[0].stamped[0.05]


def test_what_is_changed_in_a_finding_that_was_read_is_what_is_saved(tmp_path):
    Survey(class_of(2), info={"settings": SETTINGS}).save(tmp_path / "one")
    changed = replace(Survey.load(tmp_path / "one").findings[0], canvas="black", class_name="fox")
    Survey([changed], info={"settings": SETTINGS}).save(tmp_path / "other")
    [read] = Survey.load(tmp_path / "other").findings
    assert (read.canvas, read.class_name, read.target) == ("black", "fox", 2)
    assert read.search_powers == changed.search_powers == class_of(2)[0].search_powers


@pytest.mark.parametrize("seen", [None, frozenset({"0" * 12, "a" * 12})])
def test_a_moving_patch_and_the_hashes_of_search_images_are_read_back(seen, tmp_path):
    one = finding(2, "patch", 5)
    patches = {
        area: MovingPattern(p.canvas, p.mask, 2, {**p.info, "seen": area}, seen, size=(16, 9))
        for area, p in one.patterns.items()
    }
    SurveyFolder(tmp_path).add([replace(one, patterns=patches)])
    [read] = SurveyFolder(tmp_path).contents()[1]
    for area, patch in patches.items():
        assert (read.patterns[area].size, read.patterns[area].seen) == ((16, 9), seen)
        assert read.patterns[area].info == patch.info
    assert all(scores.moving for scores in read.scores.values())


def test_a_survey_gives_the_finding_of_a_class_with_the_others():
    better, worse = finding(1, "white", 5, search_power=0.9), finding(1, "positive", 50)
    named = [replace(one, class_name="tabby, tabby cat") for one in (worse, better)]
    found = Survey([finding(0, "white", 5), *named])
    for target in (1, "Tabby cat", "tabby, tabby cat"):
        assert found.finding(target).patterns is better.patterns
        assert [each.patterns for each in found.finding(target).others] == [worse.patterns]
    assert found.finding("class 0").target == 0
    for target in (7, "dog"):
        with pytest.raises(ValueError, match=f"has no class {target!r}"):
            found.finding(target)


def test_patterns_are_read_when_they_are_used(tmp_path, monkeypatch):
    Survey(class_of(2), info={"settings": SETTINGS}).save(tmp_path)
    read, unpacked = [], Pattern.unpacked
    monkeypatch.setattr(Pattern, "unpacked", lambda *of: read.append(of) or unpacked(*of))
    found = Survey.load(tmp_path)
    assert [f.as_dict() for f in found] == [f.as_dict() for f in class_of(2)]
    assert [f.target for f in found.best_canvases()] == [2]
    assert (len(found.table()), len(found.findings[0].table()), read) == (4, 2, [])
    assert found.findings[1].pattern is found.findings[1].pattern
    assert len(read) == 1
    (tmp_path / "findings" / "2.safetensors").unlink()
    with pytest.raises(FileNotFoundError, match=r"2\.safetensors is gone"):
        found.findings[1].patterns[0.01]


def test_a_class_is_there_whole_or_not_at_all(tmp_path, monkeypatch):
    store = SurveyFolder(tmp_path, SETTINGS)
    store.add(class_of(2))
    before = [path.read_bytes() for path in tmp_path.rglob("*.safetensors")]

    def interrupted(descriptor):
        raise KeyboardInterrupt

    monkeypatch.setattr("os.fsync", interrupted)
    for target in (0, 2):
        with pytest.raises(KeyboardInterrupt):
            store.add([finding(target, "black", 1)])
    assert targets(SurveyFolder(tmp_path, SETTINGS)) == [(2, "positive"), (2, "white")]
    assert [path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()] == before


def test_no_class_is_lost_if_summaries_are_written_at_the_same_time(tmp_path):
    stores = [SurveyFolder(tmp_path, SETTINGS) for _ in range(16)]

    def write(target):
        stores[target].add(class_of(target))
        stores[target].write_summary({"settings": SETTINGS, "classes": [target]})

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(write, range(16)))
    rows = json.loads((tmp_path / "results.json").read_text())["rows"]
    expected = [(y, kind) for y in range(16) for kind in ("positive", "white")]
    assert [(row["class"], row["canvas"]) for row in rows] == expected
    assert targets(SurveyFolder(tmp_path)) == expected
    assert not [path for path in tmp_path.rglob("*") if path.name.startswith(".")]


@pytest.mark.parametrize("before", [{**SETTINGS, "captum_classpattern": "2"}, WITHOUT_VERSION])
def test_another_version_is_a_notice(before, tmp_path, snapshot):
    SurveyFolder(tmp_path, before).add(class_of(0))
    texts = warnings_of(SurveyFolder(tmp_path, SETTINGS).contents)
    assert [text.replace(str(tmp_path), "FOLDER") for text in texts] == snapshot


def begun():
    SurveyFolder(HERE, SETTINGS).add(class_of(0))


def holding(text):
    Path("results.json").write_text(text)
    return Survey.load(HERE)


def saved(change, words="rows"):
    """A survey whose file of a class was changed, as its patterns are read."""
    Survey(class_of(2), info={"settings": SETTINGS}).save(HERE)
    path = HERE / "findings" / "2.safetensors"
    with safe_open(path, "pt") as file:
        metadata = file.metadata()
        tensors = {name: file.get_tensor(name) for name in [*file.keys()]}
    if change is None:
        old, new = words
        tensors[new] = tensors.pop(old)
    else:
        data = json.loads(metadata[words])
        change(data[0] if words == "rows" else data)
        metadata[words] = json.dumps(data)
    path.write_bytes(save(tensors, metadata))
    for each in Survey.load(HERE):
        _ = [*each.patterns.values()]


HERE = Path()
REFUSALS = {
    "another seed": lambda: (begun(), SurveyFolder(HERE, {**SETTINGS, "seed": 1}).contents()),
    "no settings": lambda: (begun(), SurveyFolder(HERE, {}).contents()),
    "a setting that was added later": lambda: (
        begun(),
        SurveyFolder(HERE, {**SETTINGS, "later": 1}).contents(),
    ),
    "a damaged summary": lambda: holding('{"rows": ['),
    "another file": lambda: holding('{"rows": []}'),
    "an empty folder": lambda: Survey.load(HERE),
    "no control": lambda: saved(lambda row: row["areas"]["0.05"].pop("random_pixels")),
    "brackets without end": lambda: holding("[" * 200_000),
    "infinity": lambda: holding('{"settings": {}, "n_classes": 1e999}'),
    "a number as provenance": lambda: holding('{"settings": {}, "provenance": 3}'),
    "settings of a word": lambda: holding('{"settings": "x"}'),
    "a power of 2": lambda: saved(lambda row: row["areas"]["0.05"].update(power=2)),
    "a power in words": lambda: saved(lambda row: row["areas"]["0.05"].update(power="x")),
    "no images": lambda: saved(lambda row: row["areas"]["0.05"].update(n=0)),
    "a class of -1": lambda: saved(lambda row: row.update({"class": -1})),
    "a list as name": lambda: saved(lambda row: row.update(class_name=["x"])),
    "another class": lambda: saved(lambda row: row.update({"class": 3})),
    "no pattern": lambda: saved(lambda of: of.pop("white/0.05"), "patterns"),
    "another tensor": lambda: saved(None, ("white/0.05/mask", "white/0.05/masks")),
    "a canvas 3": lambda: saved(lambda row: row.update(canvas=3)),
}


@pytest.mark.parametrize("case", REFUSALS)
def test_refusals(case, snapshot, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert refusal(REFUSALS[case]).replace(f"{tmp_path}/", "") == snapshot


@pytest.mark.parametrize("file", ["findings/2.safetensors", "results.json"])
def test_a_changed_byte_is_a_clear_error_or_can_be_read(file, tmp_path):
    """Every so many bytes of a file in turn, by another letter, a digit, a brace or a quote."""
    found = [with_images(one) for one in class_of(2)]
    Survey(found, info={"settings": SETTINGS}).save(tmp_path)
    path, texts = tmp_path / file, []
    original = path.read_bytes()
    header = len(original)
    if path.suffix == ".safetensors":  # then come pixels
        header = 8 + int.from_bytes(original[:8], "little")
    for number, place in enumerate(range(0, header, header // 200)):
        changed = bytearray(original)
        changed[place] = b'x7}"'[number % 4]
        path.write_bytes(changed)
        try:
            found = Survey.load(tmp_path)
            assert all(len([*f.patterns.values()]) == len(f.scores) for f in found)
            assert all(len([*f.stamped.values()]) == 2 for f in found if f.stamped)
        except (ValueError, FileNotFoundError) as error:
            texts.append(str(error))
    assert len(texts) > 50
    assert all(str(tmp_path) in text for text in texts)
