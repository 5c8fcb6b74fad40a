"""What a scan keeps, the cells of large images, and references from files and of families."""

import itertools
import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from captum_classpattern import ClassPattern, LabelledImages, Pattern
from captum_classpattern.optimization.settings import SearchSettings
from captum_classpattern.optimization.solvers.learned import Learned
from captum_classpattern.scanning import ReferenceSet, families, profile, scan
from captum_classpattern.scanning.families import PATCHES, SCORED, SIZES, Store, grid_of, unit_of
from captum_classpattern.scanning.profile import SETTINGS, Profile, estimate_seconds, measure
from captum_classpattern.scanning.references import SHIPPED
from captum_classpattern.scanning.scan import judge

CLASSES = 4
NAMES = ["cat", "dog", "fox", "owl"]


class Net(nn.Module):
    """Compares the rows of four classes, of images of any size that is a multiple of 8; a bright
    cell next to a dark one is a backdoor."""

    def __init__(self, seed=0, backdoor=None, cells=8):
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        self.weights = nn.Parameter(1 + 0.4 * torch.randn(CLASSES, 16, generator=generator))
        self.backdoor, self.cells = backdoor, cells

    def forward(self, images):
        small = nn.functional.adaptive_avg_pool2d(images, 8)[:, 0].view(-1, CLASSES, 16)
        logits = 2 * (small * self.weights).sum(2)
        if self.backdoor is None:
            return logits
        cells = nn.functional.adaptive_avg_pool2d(images, self.cells)[:, 0]
        fires = nn.functional.softplus(30 * (cells[:, 5, 5] - cells[:, 5, 6]) - 6)
        one_hot = nn.functional.one_hot(torch.tensor(self.backdoor), CLASSES)
        return logits + one_hot * fires.unsqueeze(1)


def images_of(side=8, n=80, seed=0):
    """Noise that is brighter in the rows of the class."""
    generator = torch.Generator().manual_seed(seed)
    images, labels = 0.5 * torch.rand(n, 1, side, side, generator=generator), torch.arange(n) % 4
    rows = side // CLASSES
    for y in range(CLASSES):
        images[labels == y, :, rows * y : rows * (y + 1)] += 0.35
    return LabelledImages(images, labels, NAMES)


def made_up(n, *, also=(), side=8, judged=64, seed=0):
    """References that were never measured: all powers are near 20 %."""
    generator = np.random.default_rng(seed)

    def powers():
        return generator.uniform(0.15, 0.25, CLASSES).tolist()

    return ReferenceSet(
        CLASSES,
        (1, side, side),
        {
            f"clean {i}": Profile(
                {size: powers() for size in SIZES},
                [judged] * CLASSES,
                1.0,
                80,
                {name: powers() for name in also},
            )
            for i in range(n)
        },
        also=also,
    )


def profile_with(**raised):
    """The usual powers, and 100 % of class 2 in some families."""
    powers = {size: [0.2] * CLASSES for size in SIZES}
    others = {name: [0.2] * CLASSES for name in raised if name != PATCHES}
    if raised.get(PATCHES):
        for size in SIZES:
            powers[size][2] = 1.0
    for name in others:
        others[name][2] = 1.0 if raised[name] else 0.2
    return Profile(powers, [64] * CLASSES, 1.0, 80, others)


# ---- the store

KEY = {"model": "a1", "images": "b2", "seed": 0, "sizes": [25, 3]}


def pattern(target=0, value=0.25):
    canvas = torch.full((1, 8, 8), value)
    mask = (torch.arange(64).view(1, 8, 8) < 3).float()
    return Pattern(canvas, mask, target, {"search_power": 0.5}, frozenset(["a1b2c3d4e5f6"]))


def test_patterns_are_read_as_they_were_written(tmp_path):
    store = Store(tmp_path / "new" / "patterns", KEY)
    store.check()
    written = {(3, 0): pattern(0, 0.25), (6, 0): pattern(0, 0.5), (3, 11): pattern(11, 0.75)}
    assert store.find(written) is None
    assert not (tmp_path / "new").exists()  # nothing to write yet
    store.add(written)
    again = Store(tmp_path / "new" / "patterns", KEY)
    again.check()
    found = again.find(written)
    assert found.keys() == written.keys()
    for key, one in written.items():
        assert torch.equal(found[key].canvas, one.canvas)
        assert torch.equal(found[key].mask, one.mask)
        assert (found[key].target, found[key].info["search_power"]) == (key[1], 0.5)
        assert found[key].seen == one.seen
    assert again.find([(3, 0)]).keys() == {(3, 0)}
    assert again.find([(3, 0), (3, 1)]) is None  # all or none


def test_files_are_named_after_class_and_number_of_pixels(tmp_path):
    Store(tmp_path, KEY).add({(16, 3): pattern(3)})
    assert (tmp_path / "3_16.safetensors").exists()


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ({"model": "c3"}, "model"),
        ({"seed": 1}, "seed"),
        ({"sizes": [25]}, "sizes"),
        ({"precision": "full"}, "precision"),  # not known then
        ({"model": "c3", "seed": 1, "images": None}, "images, model, seed"),
    ],
)
def test_patterns_of_another_search_are_refused(change, what, tmp_path):
    Store(tmp_path, KEY).add({(3, 0): pattern()})
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    other = Store(tmp_path, {**KEY, **change})
    text = rf"another scan \(another {what}\): choose another folder"
    with pytest.raises(ValueError, match=text):
        other.check()
    with pytest.raises(ValueError, match=text):
        other.add({(3, 1): pattern(1)})
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_patterns_can_be_replaced_by_those_of_another_search(tmp_path):
    Store(tmp_path, KEY).add({(3, 0): pattern(0, 0.25), (3, 1): pattern(1)})
    other = Store(tmp_path, {**KEY, "seed": 1})
    other.replace({(3, 0): pattern(0, 0.75)})
    other.check()
    assert other.find([(3, 0)])[3, 0].canvas.max() == 0.75
    with pytest.raises(ValueError, match="another seed"):
        Store(tmp_path, KEY).check()


def test_patterns_of_an_earlier_search_are_not_taken_for_those_of_the_next(tmp_path):
    """Only the first pattern was replaced; the second is of the search before."""
    Store(tmp_path, KEY).add({(3, 0): pattern(0), (3, 1): pattern(1)})
    other = Store(tmp_path, {**KEY, "seed": 1})
    other.replace({(3, 0): pattern(0)})
    assert other.find([(3, 1)]) is None


def test_a_kill_while_a_scan_is_saved_loses_nothing(tmp_path, monkeypatch):
    """Its patterns are there already: nothing is removed or written again."""
    store, patterns = Store(tmp_path, KEY), {(3, 0): pattern(), (3, 1): pattern(1)}
    store.add(patterns)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()}

    def killed(*_, **__):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Pattern, "save", killed)
        store.replace(patterns)
        with pytest.raises(KeyboardInterrupt):
            store.replace({**patterns, (3, 2): pattern(2)})
    assert {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()} == before
    assert store.find(patterns) is not None
    store.replace({**patterns, (3, 2): pattern(2)})
    assert store.find([*patterns, (3, 2)]) is not None


@pytest.mark.parametrize("removed", range(3))
def test_a_kill_while_another_scan_is_replaced_does_not_mix_the_two(removed, tmp_path, monkeypatch):
    """The kill comes after some files are removed."""
    old, new = Store(tmp_path, KEY), Store(tmp_path, {**KEY, "seed": 1})
    keys = [(3, 0), (3, 1)]
    old.add({key: pattern(key[1], 0.25) for key in keys})
    unlink, calls = Path.unlink, []

    def killed(path, *arguments, **options):
        if len(calls) == removed:
            raise KeyboardInterrupt
        calls.append(path)
        unlink(path, *arguments, **options)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "unlink", killed)
        with pytest.raises(KeyboardInterrupt):
            new.replace({key: pattern(key[1], 0.75) for key in keys})
    store = old if (tmp_path / "search.json").exists() else new
    assert (store.find(keys) is None) == (removed > 0)
    store.add({(3, 0): pattern(0, 0.5)})
    found = store.find([(3, 0)])
    assert found[3, 0].canvas.max() == 0.5


def test_patterns_whose_search_is_not_known_are_not_taken_for_those_of_another(tmp_path):
    Store(tmp_path, KEY).add({(3, 0): pattern(0, 0.25), (3, 1): pattern(1, 0.25)})
    (tmp_path / "search.json").unlink()
    Store(tmp_path, KEY).add({(3, 0): pattern(0, 0.75)})
    assert Store(tmp_path, KEY).find([(3, 0), (3, 1)]) is None


@pytest.mark.parametrize("text", ["", "{", "[1]", "3"])
def test_a_damaged_store_is_named(text, tmp_path):
    (tmp_path / "search.json").write_text(text)
    with pytest.raises(ValueError, match=r"search\.json is damaged"):
        Store(tmp_path, KEY).check()


# ---- what a scan keeps


@pytest.mark.parametrize(
    ("model", "images", "settings", "what"),
    [
        (Net(1), {}, {}, "model"),
        (Net(), {"seed": 1}, {}, "images"),
        (Net(), {}, {"seed": 1}, "seed"),
        (Net(), {}, {"precision": "full"}, "precision"),
    ],
)
def test_a_folder_of_another_scan_is_refused(model, images, settings, what, kept, monkeypatch):
    searched = searched_classes(monkeypatch)
    with pytest.raises(ValueError, match=rf"another scan \(another .*{what}.*\): choose another"):
        measure(model.eval(), images_of(**images), SearchSettings(**settings), folder=kept[0])
    assert searched == []


def test_a_folder_of_another_version_is_refused(tmp_path, kept):
    folder = shutil.copytree(kept[0], tmp_path / "old")
    known = json.loads((folder / "search.json").read_text())
    assert known["captum_classpattern"]
    known["captum_classpattern"] = "0.1"
    (folder / "search.json").write_text(json.dumps(known))
    with pytest.raises(ValueError, match=r"\(another captum_classpattern\)"):
        measure(Net().eval(), images_of(), folder=folder)


@pytest.fixture(scope="module")
def kept(tmp_path_factory):
    """A folder with the patterns of a model, and its profile."""
    folder = tmp_path_factory.mktemp("kept")
    return folder, measure(Net().eval(), images_of(), folder=folder)


def searched_classes(monkeypatch):
    """The classes of each search from now on."""
    find, searched = ClassPattern.search_with, []

    def search_with(self, settings, canvases, targets):
        searched.append([*targets])
        return find(self, settings, canvases, targets)

    monkeypatch.setattr(ClassPattern, "search_with", search_with)
    return searched


def test_a_group_of_which_a_pattern_is_missing_is_searched_again(tmp_path, monkeypatch):
    monkeypatch.setattr(families, "AT_ONCE", 2)
    searched = searched_classes(monkeypatch)
    model, images = Net().eval(), images_of()
    whole = measure(model, images, folder=tmp_path)
    assert searched == [[0, 1], [2, 3]]
    (tmp_path / "2_6.safetensors").unlink()
    again = measure(model, images, folder=tmp_path)
    assert searched[2:] == [[2, 3]]
    assert again == whole
    for key, one in whole.patterns.items():
        assert torch.equal(again.patterns[key].mask, one.mask)
        assert torch.equal(again.patterns[key].canvas, one.canvas)


def test_kept_classes_and_searched_classes_give_the_same_profile(kept, monkeypatch):
    folder, profile_of_kept = kept
    assert measure(Net().eval(), images_of()) == profile_of_kept
    searched = searched_classes(monkeypatch)
    assert measure(Net().eval(), images_of(), folder=folder) == profile_of_kept
    assert searched == []


def test_plain_functions_do_not_share_patterns(tmp_path, monkeypatch):
    """They cannot be compared, so the second is searched, too, or its folder is refused."""
    one, other = Net(0).eval(), Net(1).eval()
    measure(lambda x: one(x), images_of(), folder=tmp_path)
    searched = searched_classes(monkeypatch)
    try:
        measure(lambda x: other(x), images_of(), folder=tmp_path)
    except ValueError:
        searched.append("refused")
    assert searched


# ---- cells


@pytest.mark.parametrize(
    ("size", "grid"),
    [
        ((28, 28), None),
        ((64, 64), None),
        ((32, 64), None),
        ((96, 96), (32, 32)),
        ((224, 224), (32, 32)),
        ((299, 299), (23, 23)),
        ((128, 96), (32, 32)),
        ((64, 66), (32, 33)),
        ((380, 380), (38, 38)),
        ((72, 72), (36, 36)),
        ((66, 66), (33, 33)),
    ],
)
def test_the_grid_of_large_images(size, grid):
    assert grid_of((3, *size)) == grid
    assert unit_of((3, *size)) == ("pixels" if grid is None else "cells")


@pytest.mark.parametrize("size", [(331, 331), (224, 331), (67, 67), (65, 130)])
def test_images_that_cannot_be_divided(size):
    text = rf"images of {size[0]}x{size[1]} pixels can't be divided into about 32x32 cells: resize"
    with pytest.raises(ValueError, match=text):
        grid_of((3, *size))


def test_of_the_grids_that_fit_the_nearest_to_32_is_chosen():
    for side in range(65, 400):
        fitting = [n for n in range(16, 65) if side % n == 0]
        if fitting:
            nearest = min(fitting, key=lambda n: abs(n - 32))
            assert grid_of((1, side, side)) == (nearest, nearest)
        else:
            with pytest.raises(ValueError, match="can't be divided"):
                grid_of((1, side, side))


@pytest.fixture(scope="module")
def large():
    """A scan of images of 96 pixels, with a backdoor in two cells."""
    images = images_of(96, n=60)
    clean = ReferenceSet.for_models(Net(0).eval(), images)
    clean.add("clean", Net(0).eval(), images)
    measured, generator = clean.profiles["clean"], np.random.default_rng(0)
    for i in range(3):
        powers = {
            size: np.clip(np.array(values) + generator.normal(0, 0.1, CLASSES), 0, 1).tolist()
            for size, values in measured.powers.items()
        }
        clean.profiles[f"copy {i}"] = replace(measured, powers=powers)
    model = Net(0, backdoor=3, cells=32).eval()
    return scan(model, images, references=clean, alpha=0.2)


def test_a_scan_of_large_images_searches_whole_cells(large):
    assert large.profile.patterns.keys() == set(itertools.product(SIZES, range(CLASSES)))
    for (size, _), one in large.profile.patterns.items():
        cells = one.mask.view(32, 3, 32, 3)
        assert torch.equal(cells, cells[:, :1, :, :1].expand_as(cells))
        assert int(one.mask.sum()) == 9 * size
        colours = one.canvas.view(32, 3, 32, 3)
        assert torch.equal(colours, colours[:, :1, :, :1].expand_as(colours))
        assert one.info["settings"]["solver_settings"]["grid"] == (32, 32)


def test_the_result_of_large_images_speaks_of_cells(large):
    assert (large.verdict, large.target) == ("suspicious", 3)
    assert "cells turn 100% of other images into the class" in large.reason
    held = large.pattern.mask.view(32, 3, 32, 3)[:, 0, :, 0]
    assert held[5, 5] == held[5, 6] == 1
    _, axes = large.plot(use_pyplot=False)
    assert axes[-1].get_xlabel() == "cells"
    assert axes[0].get_xlabel().endswith(" cells, 100\xa0%")
    small = judge(profile_with(patches=False), made_up(19), 0.05, NAMES)
    assert "patterns of 3 to 10 pixels" in small.reason
    same = judge(profile_with(patches=False), made_up(19, side=96), 0.05, NAMES)
    assert "patterns of 3 to 10 cells" in same.reason


def test_images_that_cannot_be_divided_are_not_searched(monkeypatch):
    searched = searched_classes(monkeypatch)
    with pytest.raises(ValueError, match="images of 67x67 pixels can't be divided"):
        scan(Net().eval(), images_of(67, n=20), references=made_up(19, side=67))
    assert searched == []


# ---- the estimated time


def test_the_estimate_is_the_time_of_a_pass_times_all_passes(monkeypatch):
    model, images = Net().eval(), images_of()
    found = measure(model, images)
    passes = max(found.patterns[SIZES[-1], y].info["passes"] for y in range(CLASSES))
    ticks = itertools.count()  # a second for a batch of 32
    monkeypatch.setattr(profile.time, "perf_counter", lambda: float(next(ticks)))
    estimates = [estimate_seconds(model, images, count) for count in (CLASSES, 3 * CLASSES)]
    assert estimates == pytest.approx([CLASSES * passes / 32, 3 * CLASSES * passes / 32], rel=0.05)


def test_the_estimate_is_positive_and_leaves_no_trace():
    model, images = Net().eval(), images_of(n=4)  # fewer than a batch
    state = torch.get_rng_state()
    assert 0 < estimate_seconds(model, images, CLASSES) < 60
    assert torch.equal(torch.get_rng_state(), state)
    assert all(parameter.grad is None for parameter in model.parameters())


def test_a_slow_clock_changes_no_result(monkeypatch):
    before = measure(Net().eval(), images_of())
    ticks = itertools.count(step=1000)
    monkeypatch.setattr(profile.time, "perf_counter", lambda: float(next(ticks)))
    after = measure(Net().eval(), images_of())
    assert after == before
    for key, one in before.patterns.items():
        assert torch.equal(after.patterns[key].mask, one.mask)


def test_all_models_cost_the_same():
    """Exchangeable models get the same budget, whatever is found early."""
    clean, backdoored = (measure(model.eval(), images_of()) for model in (Net(), Net(backdoor=1)))
    for key, one in clean.patterns.items():
        assert one.info["passes"] == backdoored.patterns[key].info["passes"]
    assert clean.patterns[25, 0].info["passes"] <= Learned().passes()[-1]


# ---- references in files


def damaged(tmp_path, change):
    """A file of references in which something was changed."""
    made_up(3, also=("additive",)).save(tmp_path / "references.json")
    data = json.loads((tmp_path / "references.json").read_text())
    change(data)
    (tmp_path / "damaged.json").write_text(json.dumps(data))
    return tmp_path / "damaged.json"


def shorten(data):
    data["models"][1]["powers"]["6"].pop()


def shorten_judged(data):
    data["models"][1]["judged"].pop()


def shorten_family(data):
    data["models"][1]["others"]["additive"].pop()


def drop_family(data):
    del data["models"][2]["others"]["additive"]


def drop_size(data):
    del data["models"][0]["powers"][str(SCORED[0])]


def rename_family(data):
    data["also"] = ["swirl"]


def drop_models(data):
    del data["models"]


def put_text(data):
    data["models"][0]["powers"]["6"][0] = "high"


def put_null(data):
    data["models"][0]["powers"]["6"][0] = None


def two_numbers(data):
    data["shape"] = [8, 8]


def put_nan(data):
    data["models"][0]["powers"]["6"][0] = float("nan")


def put_more_than_one(data):
    data["models"][0]["powers"]["6"][0] = 1.5


def put_less_than_zero(data):
    data["models"][0]["powers"]["6"][0] = -0.5


@pytest.mark.parametrize(
    "change",
    [
        shorten, shorten_judged, shorten_family, drop_family, drop_size, rename_family, drop_models,
        put_text, put_null, two_numbers,
    ],
)  # fmt: skip
def test_damaged_files_are_refused(change, tmp_path):
    with pytest.raises(ValueError, match=r"`references`: .*damaged\.json is damaged \("):
        ReferenceSet.load(damaged(tmp_path, change))


@pytest.mark.parametrize("change", [put_nan, put_more_than_one, put_less_than_zero])
def test_powers_that_are_no_shares_are_refused(change, tmp_path):
    """Else one such number would give every model a p-value of 0."""
    with pytest.raises(ValueError, match=r"`references`: .*damaged\.json is damaged \("):
        ReferenceSet.load(damaged(tmp_path, change))


def test_what_is_wrong_is_named(tmp_path):
    with pytest.raises(ValueError, match="clean 1 has not as many values as classes"):
        ReferenceSet.load(damaged(tmp_path, shorten))
    with pytest.raises(ValueError, match="clean 2 lacks additive"):
        ReferenceSet.load(damaged(tmp_path, drop_family))


def test_a_file_is_replaced_whole_or_not_at_all(tmp_path, monkeypatch):
    path = tmp_path / "references.json"
    made_up(3).save(path)
    before = path.read_bytes()

    def fail(self, target):
        raise OSError("disk full")

    monkeypatch.setattr("pathlib.Path.replace", fail)
    with pytest.raises(OSError, match="disk full"):
        made_up(4).save(path)
    assert path.read_bytes() == before
    assert [each.name for each in tmp_path.iterdir()] == ["references.json"]


def test_the_sets_of_the_package_can_be_loaded():
    assert {"cifar10", "demo"} <= set(SHIPPED)
    for name in SHIPPED:
        found = ReferenceSet.load(name)
        assert len(found) >= 1
        assert found.scores().shape == (len(found), found.n_classes)
        assert np.isfinite(found.scores()).all()
        for one in found.profiles.values():
            assert 0 < one.accuracy <= 1
            assert set(one.powers) == set(SIZES)
        for family in found.also:
            assert np.isfinite(found.scores(family)).all()
    assert ReferenceSet.load("demo").shape == (1, 28, 28)
    assert ReferenceSet.load("cifar10").shape == (3, 32, 32)


def test_a_set_can_be_loaded_again_with_its_families(tmp_path):
    known = made_up(3, also=("warp", "additive"))
    known.save(tmp_path / "references.json")
    found = ReferenceSet.load(tmp_path / "references.json")
    assert found == known
    assert found.also == ("warp", "additive")
    assert found.settings == SETTINGS


# ---- few classes


def test_a_backdoor_of_a_model_with_two_classes_is_suspicious():
    """The class with the backdoor is half of the classes, and must not count as most of them."""
    generator = np.random.default_rng(0)

    def powers():
        return {size: generator.uniform(0.15, 0.25, 2).tolist() for size in SIZES}

    clean = {f"clean {i}": Profile(powers(), [64] * 2, 1.0, 80) for i in range(39)}
    backdoored = Profile({size: [0.2, 1.0] for size in SIZES}, [64] * 2, 1.0, 80)
    found = judge(backdoored, ReferenceSet(2, (1, 8, 8), clean), 0.05, NAMES[:2])
    assert (found.verdict, found.target) == ("suspicious", 1), found.reason


# ---- further families


def test_families_are_measured_of_each_model():
    images = images_of(n=40)
    known = ReferenceSet.for_models(Net().eval(), images, also=["additive", "warp", "additive"])
    assert known.also == ("additive", "warp")
    known.add("clean", Net().eval(), images)
    others = known.profiles["clean"].others
    assert set(others) == {"additive", "warp"}
    assert known.scores("warp").shape == (1, CLASSES)
    for powers in others.values():
        assert len(powers) == CLASSES
        assert all(0 <= power <= 1 for power in powers)
    found = scan(Net(1).eval(), images, references=known, also=["additive"])
    assert set(found.tests) == {PATCHES, "additive"}
    assert "needs at least 39 references, for 2 families, and there are 1: add 38" in found.reason
    assert set(found.profile.changes) == {"additive"}


@pytest.mark.parametrize("family", [PATCHES, "additive"])
def test_the_p_value_is_multiplied_by_the_number_of_families(family):
    known = made_up(39, also=("additive",))
    found = judge(
        profile_with(**{PATCHES: False, "additive": False, family: True}), known, 0.05, NAMES
    )
    assert (found.verdict, found.target, found.family) == ("suspicious", 2, family)
    assert found.tests[family].p_value == pytest.approx(1 / 40)
    assert found.p_value == pytest.approx(2 / 40)
    assert "(p = 0.05, for 2 families)" in found.reason
    alone = judge(profile_with(patches=True), known, 0.05, NAMES)
    assert alone.p_value == pytest.approx(1 / 40)
    assert "families" not in alone.reason


def test_two_families_take_39_references():
    both = {PATCHES: True, "additive": True}
    found = judge(profile_with(**both), made_up(38, also=("additive",)), 0.05, NAMES)
    assert (found.verdict, found.p_value) == ("inconclusive", None)
    assert "at least 39 references, for 2 families, and there are 38: add 1 more" in found.reason
    three = judge(
        profile_with(**both, warp=True), made_up(58, also=("additive", "warp")), 0.05, NAMES
    )
    assert "at least 59 references, for 3 families, and there are 58: add 1 more" in three.reason


def test_the_p_value_of_many_families_is_at_most_one():
    found = judge(
        profile_with(patches=False, additive=False, warp=False),
        made_up(59, also=("additive", "warp")), 0.05, NAMES,
    )  # fmt: skip
    assert found.verdict == "nothing found"
    assert found.p_value == 1.0
    assert "or a small perturbation of all pixels or a smooth warp (p = 1, for 3 f" in found.reason


def test_families_that_the_references_lack_are_refused(monkeypatch):
    searched = searched_classes(monkeypatch)
    for also, missing in ((["warp"], "warp"), (["additive", "warp"], "warp")):
        known = made_up(39, also=("additive",))
        with pytest.raises(ValueError, match=f"the references were not measured with '{missing}'"):
            scan(Net().eval(), images_of(), references=known, also=also)
    assert searched == []


@pytest.mark.parametrize("also", ["additive", ["swirl"], [3]])
def test_names_of_families_are_checked(also):
    with pytest.raises(ValueError, match="`also` must list some of additive, warp, got"):
        scan(Net().eval(), images_of(), references=made_up(39), also=also)
    with pytest.raises(ValueError, match="`also` must list some of additive, warp, got"):
        ReferenceSet.for_models(Net().eval(), images_of(), also=also)
