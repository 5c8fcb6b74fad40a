"""The folder of a survey: its files, and what happens if several write to it."""

import json
import pickle
import shutil
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from refusals import refusal, warnings_of
from surveyed import finding, stamped

from captum_classpattern import Pattern
from captum_classpattern.surveys import Survey
from captum_classpattern.surveys.folder import SurveyFolder, read_finding

WITHOUT_VERSION = {"seed": 0, "canvases": {"positive": 1, "white": 1}}
SETTINGS = {**WITHOUT_VERSION, "captum_classpattern": "1"}


def class_of(target):
    return [finding(target, "positive", 10 + target), finding(target, "white", 20)]


def targets(store):
    return [(f.target, f.canvas) for f in store.findings()]


@pytest.mark.parametrize(
    ("name", "part"), [(None, ""), ("T-shirt/top", "T-shirt_top_"), ("white", "white_")]
)
def test_patterns_are_saved_under_class_canvas_and_area(tmp_path, name, part):
    SurveyFolder(tmp_path).add([finding(3, "white", 5, class_name=name)])
    files = sorted((tmp_path / "patterns").iterdir())
    for path, area in zip(files, (0.01, 0.05), strict=True):
        assert path.name == f"3_{part}white_{area}.safetensors"
        pattern = Pattern.load(path)
        assert pattern.target == 3
        assert pattern.area == pytest.approx(area)


@pytest.mark.parametrize("name", [None, "guinea pig, Cavia cobaya", "white"])
def test_a_finding_is_read_back(name, tmp_path):
    original = finding(3, "white", 5, class_name=name)
    others = [finding(13, "white", 5), finding(3, "positive", 5), finding(1, "white", 5)]
    for one in (*others, original):
        SurveyFolder(tmp_path, {}).add([one])
    patterns = tmp_path / "patterns"
    read = read_finding(json.loads(json.dumps(original.as_dict())), patterns)
    assert (read.target, read.canvas, read.scores) == (3, "white", original.scores)
    assert read.class_name == name
    for area, pattern in original.patterns.items():
        assert torch.equal(read.patterns[area].mask, pattern.mask)
        assert read.patterns[area].info == pattern.info


def with_images(one):
    return replace(one, stamped={a: stamped(p.topk(a)) for a, p in one.patterns.items()})


def test_stamped_images_are_read_back_and_copied(tmp_path):
    """Those of each canvas, with the pattern of each area; earlier versions have none."""
    found = [with_images(one) for one in class_of(2)]
    Survey(found, info={"settings": SETTINGS}).save(tmp_path / "new")
    read = [*Survey.load(tmp_path / "new")]
    Survey(read, info={"settings": SETTINGS}).save(tmp_path / "again")
    for loaded in (read, Survey.load(tmp_path / "again"), pickle.loads(pickle.dumps(read))):
        for one, other in zip(found, loaded, strict=True):
            for area, images in one.stamped.items():
                assert torch.allclose(other.stamped[area].images, images.images)
                assert other.stamped[area].captions == images.captions
                assert other.stamped[area].labels == images.labels
            assert other.examples is other.stamped[0.05]
    shutil.rmtree(tmp_path / "new" / "examples")
    assert [one.examples for one in Survey.load(tmp_path / "new")] == [None, None]


def test_patterns_are_read_when_they_are_used(tmp_path, monkeypatch):
    Survey(class_of(2), info={"settings": SETTINGS}).save(tmp_path)
    read, load = [], Pattern.load
    monkeypatch.setattr(Pattern, "load", lambda path: read.append(path.name) or load(path))
    found = Survey.load(tmp_path)
    assert [f.as_dict() for f in found] == [f.as_dict() for f in class_of(2)]
    assert [f.target for f in found.best_canvases()] == [2]
    assert (len(found.table()), len(found.findings[0].table()), read) == (4, 2, [])
    assert found.findings[1].pattern is found.findings[1].pattern
    assert read == ["2_white_0.05.safetensors"]
    (tmp_path / "patterns" / "2_white_0.01.safetensors").unlink()
    with pytest.raises(FileNotFoundError, match=r"2_white_0\.01"):
        found.findings[1].patterns[0.01]


def test_a_class_is_there_whole_or_not_at_all(tmp_path, monkeypatch):
    store = SurveyFolder(tmp_path, SETTINGS)
    store.add(class_of(2))
    saved = []

    def interrupted(pattern, path, **kwargs):
        saved.append(path)
        if len(saved) == 3:
            raise KeyboardInterrupt

    monkeypatch.setattr(Pattern, "save", interrupted)
    with pytest.raises(KeyboardInterrupt):
        store.add(class_of(0))
    assert targets(SurveyFolder(tmp_path, SETTINGS)) == [(2, "positive"), (2, "white")]


def test_classes_of_which_a_canvas_is_missing_are_read_as_they_are(tmp_path):
    store = SurveyFolder(tmp_path, SETTINGS)
    store.add(class_of(0))
    store.add(class_of(1)[:1])
    read = targets(SurveyFolder(tmp_path, SETTINGS))
    assert read == [(0, "positive"), (0, "white"), (1, "positive")]


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
    texts = warnings_of(SurveyFolder(tmp_path, SETTINGS).findings)
    assert [text.replace(str(tmp_path), "FOLDER") for text in texts] == snapshot


def begun():
    SurveyFolder(HERE, SETTINGS).add(class_of(0))


def holding(text):
    Path("results.json").write_text(text)
    return Survey.load(HERE)


def saved(change):
    """A survey whose file of a class was changed, as its patterns are read."""
    Survey(class_of(2), info={"settings": SETTINGS}).save(HERE)
    path = HERE / "findings" / "2.json"
    data = json.loads(path.read_text())
    change(data["rows"][0])
    path.write_text(json.dumps(data))
    return Survey.load(HERE)


HERE = Path()
REFUSALS = {
    "another seed": lambda: (begun(), SurveyFolder(HERE, {**SETTINGS, "seed": 1}).findings()),
    "no settings": lambda: (begun(), SurveyFolder(HERE, {}).findings()),
    "a setting that was added later": lambda: (
        begun(),
        SurveyFolder(HERE, {**SETTINGS, "later": 1}).findings(),
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
    "a canvas above": lambda: saved(lambda row: row.update(canvas="/../../../white")),
    "a canvas in a folder": lambda: saved(lambda row: row.update(canvas="a/white")),
    "a canvas 3": lambda: saved(lambda row: row.update(canvas=3)),
}


@pytest.mark.parametrize("case", REFUSALS)
def test_refusals(case, snapshot, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert refusal(REFUSALS[case]) == snapshot


@pytest.mark.parametrize(
    "file", ["findings/2.json", "results.json", "patterns/2_white_0.05", "examples/2_w"]
)
def test_a_changed_byte_is_a_clear_error_or_can_be_read(file, tmp_path):
    """Each fifth byte of a file in turn, by another letter, a digit, a brace or a quote."""
    found = [with_images(one) if "examples" in file else one for one in class_of(2)]
    Survey(found, info={"settings": SETTINGS}).save(tmp_path)
    [path] = tmp_path.glob(f"{file}*")
    original, texts = path.read_bytes(), []
    header = (
        len(original) if path.suffix == ".json" else min(600, len(original))
    )  # then come pixels
    for place in range(0, header, 5):
        changed = bytearray(original)
        changed[place] = b'x7}"'[place % 4]
        path.write_bytes(changed)
        try:
            found = Survey.load(tmp_path)
            assert all(len([*f.patterns.values()]) == len(f.scores) for f in found)
            assert all(len([*f.stamped.values()]) == 2 for f in found if f.stamped)
        except (ValueError, FileNotFoundError) as error:
            texts.append(str(error))
    assert len(texts) > header / 20
    assert all(str(tmp_path) in text for text in texts)
