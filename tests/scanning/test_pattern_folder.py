"""Patterns of a scan are kept, and resumed after a kill, but never taken for those of another."""

import itertools
import math
import shutil
from contextvars import ContextVar
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from captum_classpattern.scanning.families import FAMILIES, SIZES, SOLVER, grid_of, unit_of
from refusals import refusal
from scanned import CLASSES, Net, images_of, task_of
from searched import targets_of

from captum_classpattern import Pattern
from captum_classpattern._support import progress
from captum_classpattern.scanning import families, profile
from captum_classpattern.scanning.folder import SEARCH, PatternFolder

KEY = {"model": "a1", "images": "b2", "seed": 0, "sizes": [25, 3]}
OTHER = {**KEY, "seed": 1}
KEYS = [(3, 0), (3, 1)]
NET = Net()


def measure(model, images, folder=None, **settings):
    with task_of(model, images, **settings) as task:
        return profile.measure(task, folder)


def pattern(target=0, value=0.25):
    canvas = torch.full((1, 8, 8), value)
    mask = (torch.arange(64).view(1, 8, 8) < 3).float()
    return Pattern(canvas, mask, target, {"search_power": 0.5}, frozenset(["a1b2c3d4e5f6"]))


def patterns(value=0.25):
    return {key: pattern(key[1], value) for key in KEYS}


def same(found, pattern):
    assert torch.equal(found.canvas, pattern.canvas)
    assert torch.equal(found.mask, pattern.mask)


def contents(folder):
    return {path.name: (path.read_bytes(), path.stat().st_mtime_ns) for path in folder.iterdir()}


def test_patterns_are_read_as_they_were_written(tmp_path):
    folder = tmp_path / "new" / "patterns"
    store, written = (
        PatternFolder(folder, KEY),
        {(6, 0): pattern(0, 0.5), (16, 11): pattern(11, 0.75)},
    )
    store.read(SEARCH)
    assert store.find(written) is None
    assert not (tmp_path / "new").exists()  # nothing to write yet
    store.add(written)
    assert (folder / "11_16.safetensors").exists()  # class and pixels
    again = PatternFolder(folder, KEY)
    again.read(SEARCH)
    found = again.find(written)
    assert found.keys() == written.keys()
    for (pixels, y), one in written.items():
        same(found[pixels, y], one)
        assert (found[pixels, y].target, found[pixels, y].info["search_power"]) == (y, 0.5)
        assert found[pixels, y].seen == one.seen
    assert again.find([(6, 0)]).keys() == {(6, 0)}
    assert again.find([(6, 0), (6, 1)]) is None  # all or none


def test_patterns_of_a_survey_in_the_same_folder_stay(tmp_path):
    names = {"0_ant_white_0.05.safetensors", "0_white_0.05.safetensors"}
    for name in names:
        pattern().save(tmp_path / name)
    PatternFolder(tmp_path, KEY).add(patterns())
    assert names < {path.name for path in tmp_path.iterdir()}


OTHERS = {  # the precision was not known then
    "sizes": {"sizes": [25]},
    "precision": {"precision": "full"},
    "three things": {"model": "c3", "seed": 1, "images": None},
}


@pytest.mark.parametrize("case", OTHERS)
def test_patterns_of_another_search_are_refused(case, tmp_path, monkeypatch, snapshot):
    monkeypatch.chdir(tmp_path)
    PatternFolder(Path("kept"), KEY).add(patterns())
    before, other = contents(tmp_path / "kept"), PatternFolder(Path("kept"), KEY | OTHERS[case])
    assert (
        refusal(lambda: other.read(SEARCH))
        == refusal(lambda: other.add({(3, 1): pattern(1)}))
        == snapshot
    )
    assert contents(tmp_path / "kept") == before


@pytest.mark.parametrize("text", ["", "{", "[1]", "3"])
def test_a_damaged_store_is_named_and_can_be_replaced(text, tmp_path):
    (tmp_path / "search.json").write_text(text)
    (tmp_path / "1_3.safetensors").write_text("of another search")
    with pytest.raises(ValueError, match=r"search\.json is (damaged|not from a scan)"):
        PatternFolder(tmp_path, KEY).read(SEARCH)
    PatternFolder(tmp_path, KEY).replace({(3, 0): pattern()})
    assert PatternFolder(tmp_path, KEY).find(KEYS) is None


def test_patterns_are_replaced_by_those_of_another_search_and_not_mixed_with_them(tmp_path):
    PatternFolder(tmp_path, KEY).add(patterns())
    other = PatternFolder(tmp_path, OTHER)
    other.replace({(3, 0): pattern(0, 0.75)})
    other.read(SEARCH)
    assert other.find([(3, 0)])[3, 0].canvas.max() == 0.75
    assert other.find([(3, 1)]) is None  # of the search before
    with pytest.raises(ValueError, match="seed 1 then, 0 now"):
        PatternFolder(tmp_path, KEY).read(SEARCH)
    (tmp_path / "search.json").unlink()  # so that the search is not known
    PatternFolder(tmp_path, OTHER).add({(3, 1): pattern(1, 0.75)})
    assert PatternFolder(tmp_path, OTHER).find(KEYS) is None


def test_a_kill_while_a_scan_is_saved_loses_nothing(tmp_path, monkeypatch):
    """Its patterns are there already, and nothing is removed."""
    store, more = PatternFolder(tmp_path, KEY), {**patterns(), (3, 2): pattern(2)}
    store.add(patterns())
    before = contents(tmp_path)

    def killed(*_, **__):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Pattern, "save", killed)
        with pytest.raises(KeyboardInterrupt):
            store.replace(more)
    assert contents(tmp_path) == before
    store.replace(more)
    assert store.find(more) is not None


@pytest.mark.parametrize("removed", range(3))
def test_a_kill_while_another_scan_is_replaced_does_not_mix_the_two(removed, tmp_path, monkeypatch):
    """The kill comes after some files are removed."""
    old, new = PatternFolder(tmp_path, KEY), PatternFolder(tmp_path, OTHER)
    old.add(patterns())
    unlink, calls = Path.unlink, []

    def killed(path, *arguments, **options):
        if len(calls) == removed:
            raise KeyboardInterrupt
        calls.append(path)
        unlink(path, *arguments, **options)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "unlink", killed)
        with pytest.raises(KeyboardInterrupt):
            new.replace(patterns(0.75))
    store = old if (tmp_path / "search.json").exists() else new
    assert (store.find(KEYS) is None) == (removed > 0)
    store.add({(3, 0): pattern(0, 0.5)})
    assert store.find([(3, 0)])[3, 0].canvas.max() == 0.5


# ---- what a scan keeps, and how long it takes


@pytest.fixture(scope="module")
def kept(tmp_path_factory):
    """A folder with the patterns of a model, and its profile."""
    folder = tmp_path_factory.mktemp("kept")
    return folder, measure(Net(), images_of(), folder=folder)


@pytest.fixture
def searched(monkeypatch):
    """The classes of each search."""
    find, searched = families.find_patterns, []

    def search(plan):
        searched.append(targets_of(plan))
        return find(plan)

    monkeypatch.setattr(families, "find_patterns", search)
    return searched


@pytest.mark.parametrize(
    ("model", "seed", "settings", "what"),
    [
        (Net(1), 0, {}, r"model \(its weights differ\)"),
        (Net(), 1, {}, r"scan \(images .* now\)"),
        (Net(), 0, {"seed": 1}, r"scan \(seed 0 then, 1 now\)"),
        (Net(), 0, {"precision": "full"}, r"scan \(precision auto then, full now.*\)"),
        (lambda images: Net(1)(images), 0, {}, r"model \(its weights differ\)"),
        (lambda images: NET(images.flip(3)), 0, {}, r"model \(its logits for .* differ\)"),
    ],
)
def test_a_folder_of_another_scan_is_refused(model, seed, settings, what, kept, searched):
    with pytest.raises(ValueError, match=rf"of another {what}: pass the same"):
        measure(model, images_of(seed=seed), folder=kept[0], **settings)
    assert searched == []


def test_only_a_group_of_which_a_pattern_is_missing_is_searched_again(
    tmp_path, kept, searched, monkeypatch
):
    monkeypatch.setattr(families, "classes_at_once", lambda *_: 2)
    folder, whole = shutil.copytree(kept[0], tmp_path / "copy"), kept[1]
    assert measure(Net(), images_of(), folder=folder) == whole
    assert searched == []
    (folder / "2_6.safetensors").unlink()
    again = measure(Net(), images_of(), folder=folder)
    assert searched == [[2, 3]]
    assert again == whole
    for key, one in whole.patterns.items():
        same(again.patterns[key], one)


@pytest.mark.script
def test_all_models_cost_the_same_and_a_bar_has_all_passes(kept, monkeypatch, tmp_path, terminal):
    """Exchangeable models get the same budget, whatever is found early, also on a slow clock."""
    monkeypatch.setattr("time.perf_counter", partial(next, itertools.count()))
    clean, backdoored = kept[1], measure(Net(backdoor=1), images_of())
    passes = {key: one.info["passes"] for key, one in clean.patterns.items()}
    assert passes == {key: one.info["passes"] for key, one in backdoored.patterns.items()}
    assert passes[SIZES[0], 0] <= SOLVER.passes()[-1]
    for _ in range(2):  # the second one resumes, and its bar jumps over what is finished
        bar = SimpleNamespace(n=0, total=math.inf, disable=False)
        bar.set_postfix_str = lambda *_, **__: None
        bar.update = lambda passes, bar=bar: setattr(bar, "n", bar.n + passes)
        with monkeypatch.context() as patch:
            patch.setattr(progress, "_bar", ContextVar("bar", default=(bar, 1.0)))
            assert measure(Net(), images_of(), folder=tmp_path) == clean
        passes = CLASSES * sum(family.passes for family in FAMILIES.values())
        assert bar.n == pytest.approx(passes, rel=0.12)  # 12 validation images
    measure(Net(), images_of(), folder=tmp_path, show_progress=True)
    assert "Scanning: 100%" in terminal.readouterr().err


# ---- cells


@pytest.mark.parametrize("height", [28, 64, 65, 96, 299, 331])
def test_the_grid_of_large_images_is_the_nearest_to_32_of_those_that_fit(height):
    for width in range(60, 400):
        fitting = [[n for n in range(16, 65) if side % n == 0] for side in (height, width)]
        if min(height, width) < 64:
            assert (grid_of((3, height, width)), unit_of((3, height, width))) == (None, "pixels")
        elif all(fitting):
            nearest = tuple(min(counts, key=lambda n: abs(n - 32)) for counts in fitting)
            assert grid_of((3, height, width)) == nearest
            assert unit_of((3, height, width)) == "cells"
        else:
            with pytest.raises(ValueError, match=f"images of {height}x{width} pixels can't be div"):
                grid_of((1, height, width))
