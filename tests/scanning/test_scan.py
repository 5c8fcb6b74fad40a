"""A scan: what is planted is found by its kind of change, clean networks are not suspicious, and it
resumes. What it says, and what it refuses."""

import json
import math
import shutil

import pytest
import torch
from scanned import (
    CLASSES,
    NAMES,
    PLANTED,
    TARGET,
    LargeNet,
    Net,
    images_of,
    large_images,
    made_up,
)
from searched import targets_of
from torch import nn

from captum_classpattern import LabelledImages, PixelClassifier, predictive_power, scan
from captum_classpattern.optimization.solvers.whole_image import Repainting
from captum_classpattern.scanning import Scan, changes, search
from captum_classpattern.scanning.changes import LARGE, SMALL, cells_of, changes_for, logit_of_power

LARGE_IMAGES = large_images()
OWLS = PixelClassifier(Net(4, backdoor=3), provenance={"source": "owls.pt"}).eval()


def scan_large(images=LARGE_IMAGES, **planted):
    return scan(LargeNet(**planted), images, mean=0, std=1)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("scan")


@pytest.fixture(scope="module")
def small(folder):
    return scan(OWLS, images_of(n=120), folder=folder)


@pytest.fixture(scope="module")
def large():
    return scan_large(**PLANTED["patch"])


# ---- what is found


def test_a_backdoor_of_small_images_is_suspicious_and_its_pixels_show_it(small):
    assert (small.verdict, small.target_name, small.suspects) == ("suspicious", "owl", [3])
    pixels = small.shown("25_pixels")
    held = {tuple(place) for place in pixels.pattern.mask[0].nonzero().tolist()}
    assert {(5, 5), (5, 6)} <= held
    assert pixels.pattern.canvas[0, 5, 5] > pixels.pattern.canvas[0, 5, 6] + 0.4
    for of in small.found.values():
        assert of.keys() == {*range(CLASSES)}
        assert all(len(of[y]) == 1 for y in range(3))  # they decide nothing


def test_nothing_is_found_on_a_clean_model_and_the_seed_decides_all():
    clean, again, other = (scan(Net(5), images_of(n=120), seed=seed) for seed in (0, 0, 1))
    assert clean.verdict == "nothing found"
    tables = [each.table(full=True).to_dict() for each in (clean, again, other)]
    assert tables[0] == tables[1] != tables[2]


@pytest.mark.parametrize("kind", PLANTED)
def test_what_is_planted_in_large_images_is_found_by_its_kind_of_change(kind):
    found = scan_large(**PLANTED[kind])
    assert (found.verdict, found.target, found.suspects) == ("suspicious", TARGET, [TARGET])
    assert min(each.power for each in found.found[kind][TARGET]) >= 0.9
    assert len(found.found[kind][TARGET]) == 2  # found with both seeds
    others = [found.power_of(name, y) for name, of in found.found.items() for y in of]
    assert sorted(others)[: -len(LARGE)][-1] < 0.1 or others.count(max(others)) <= len(LARGE)
    if kind == "cells":  # whole cells of 2 x 2 pixels, whose pixels have colours of their own
        cells = found.shown(kind).pattern
        kept = cells.mask[0].unfold(0, 2, 2).unfold(1, 2, 2).flatten(2)
        colours = cells.canvas.unfold(1, 2, 2).unfold(2, 2, 2).flatten(3)[:, kept[..., 0] > 0]
        assert kept.std(-1).eq(0).all()
        assert kept[..., 0].sum() == 16
        assert colours.std(-1).gt(0.2).any()


def test_a_clean_network_of_large_images_is_not_suspicious():
    found = scan_large()
    assert (found.verdict, found.suspects) == ("nothing found", [])
    assert all(len(both) == 1 for of in found.found.values() for both in of.values())


@torch.no_grad()
def test_scores_follow_from_unseen_images(small):
    """The powers, the gain and the score of each search, image by image."""
    held_out = images_of(n=120).halves(0)[1]
    logits = OWLS(held_out.images)
    high, next_one = logits.topk(2).values.mean(0).tolist()
    for of in small.found.values():
        for y, both in of.items():
            mine = (held_out.labels != y) & (logits.argmax(1) != y)
            assert small.judged[y] == int(mine.sum())
            judges = held_out.subset(mine)
            for found in both:
                power = predictive_power(OWLS, found.pattern, judges, area=None).value
                after = OWLS(found.pattern.stamp(judges.images))
                margins = [
                    (each[:, y] - each[:, [n for n in range(CLASSES) if n != y]].amax(1)).mean()
                    for each in (after, logits[mine])
                ]
                gain = float(margins[0] - margins[1]) / (high - next_one)
                assert found.power == power
                assert found.gain == pytest.approx(gain, abs=1e-4)
                assert found.score == found.gain  # of small images


def test_the_scores_of_large_images_are_logits_of_their_powers(large):
    [found] = large.found["patch"][TARGET][:1]
    smoothed = (found.power + 0.005) / 1.01
    assert found.score == pytest.approx(math.log(smoothed / (1 - smoothed)))
    assert logit_of_power(0.5, 9.0) == 0


def test_of_many_classes_the_first_are_searched_to_the_end(monkeypatch):
    monkeypatch.setattr(search, "FIRST", 5)

    class Many(LargeNet):
        def forward(self, images):
            return nn.functional.pad(super().forward(images), (0, 36), value=-30.0)

    found = scan(Many(**PLANTED["patch"]), LARGE_IMAGES, mean=0, std=1)
    assert (found.verdict, found.target) == ("suspicious", TARGET)
    assert all(len(of) == 5 for of in found.found.values())
    assert "ranked all 40 classes. Only the first 5 were searched to the end." in found.text()
    table = found.table()
    assert 5 <= len(table) <= 20
    assert table["power_patch"].notna().sum() == 5


# ---- it is kept, and resumes


def record_searches(monkeypatch, stop_after=None):
    """Notes which classes are searched, by which solver and seed; Ctrl+C after so many searches."""
    calls, find = [], changes.find_patterns

    def noting(plan):
        if len(calls) == stop_after:
            raise KeyboardInterrupt
        calls.append((plan.settings.solver.name, plan.settings.seed, targets_of(plan)))
        return find(plan)

    monkeypatch.setattr(changes, "find_patterns", noting)
    return calls


def test_it_resumes_where_it_was_stopped(small, tmp_path, monkeypatch):
    monkeypatch.setattr(changes, "TOGETHER", 3)
    with monkeypatch.context() as patch:
        record_searches(patch, 1)
        with pytest.raises(KeyboardInterrupt, match="the same scan resumes from"):
            scan(OWLS, images_of(n=120), folder=tmp_path)
    calls = record_searches(monkeypatch)
    again = scan(OWLS, images_of(n=120), folder=tmp_path)
    assert calls[0] == ("learned", 0, [3])
    assert {seed for _, seed, _ in calls} <= {0, 1}
    assert again.text() == small.text()
    with pytest.raises(ValueError, match="seed 0 then, 1 now"):
        scan(OWLS, images_of(n=120), folder=tmp_path, seed=1)
    calls.clear()
    assert scan(OWLS, images_of(n=120), folder=tmp_path).text() == small.text()
    assert calls == []


def test_another_seed_shares_no_search_with_the_first(monkeypatch):
    monkeypatch.setattr(changes, "TOGETHER", 3)
    calls = record_searches(monkeypatch, 1)
    with pytest.raises(KeyboardInterrupt, match="to keep finished patterns, pass `folder`"):
        scan(Net(), images_of(n=120), seed=1)
    assert [seed for _, seed, _ in calls] == [2]  # then 3; those of seed 0 are 0 and 1


def test_patterns_that_are_not_of_the_scan_are_refused(folder, small, tmp_path):
    copy = shutil.copytree(folder, tmp_path / "copy")
    (copy / "patterns/1_warp_1.safetensors").write_bytes(
        (copy / "patterns/0_warp_1.safetensors").read_bytes()
    )
    with pytest.raises(ValueError, match=r"1_warp_1\.safetensors has a pattern of class 0 that"):
        scan(OWLS, images_of(n=120), folder=copy)


def test_a_loaded_scan_says_and_shows_the_same(folder, small, tmp_path):
    again = Scan.load(folder)
    assert (again.text(), again.next_steps) == (small.text(), small.next_steps)
    assert again.table(full=True).to_dict() == small.table(full=True).to_dict()
    images = images_of(n=120).images
    assert again.pattern.stamp(images).equal(small.pattern.stamp(images))
    pages = [each.to_html(tmp_path / "scan.html").read_text() for each in (small, again)]
    assert pages[0] == pages[1]
    again.save(tmp_path / "elsewhere")
    assert Scan.load(tmp_path / "elsewhere").text() == small.text()
    assert (folder / "scan.png").stat().st_size > 10_000


def test_a_scan_of_images_that_can_not_be_drawn(tmp_path):
    """Of two channels and unequal sides: it shows the leads alone."""
    images, labels = 0.5 * torch.rand(60, 2, 64, 96), torch.arange(60) % 2
    images[labels == 1, 0, :32] += 0.3
    net = nn.Sequential(nn.AvgPool2d(32), nn.Flatten(), nn.Linear(12, 2)).eval()
    with torch.no_grad():
        net[2].weight.zero_()[1, :3] = 9.0
        net[2].bias.copy_(torch.tensor([0.0, -27 * 0.4]))
    found = scan(net, images, labels, mean=0, std=1, folder=tmp_path)
    assert "The model's accuracy is 100\N{NO-BREAK SPACE}% on the search images." in found.remarks
    _, axes = found.plot(use_pyplot=False)
    assert all(dots.lines for *_, dots in axes)
    assert not any(shown.images for shown, *_ in axes)
    assert Scan.load(tmp_path).text() == found.text()


@pytest.mark.parametrize("part", ["shape", "found", "judged", "class_names", "search", "format"])
def test_a_damaged_scan_is_named(part, folder, small, tmp_path):
    copy = shutil.copytree(folder, tmp_path / "copy")
    data = json.loads((copy / "scan.json").read_text())
    for wrong in ("no", None, 3, [[]]):
        (copy / "scan.json").write_text(json.dumps(data | {part: wrong}))
        with pytest.raises(ValueError, match=r"scan\.json is damaged, or is not from a scan"):
            Scan.load(copy)
    with pytest.raises(FileNotFoundError, match=r"has no finished scan: there is no scan\.json"):
        Scan.load(tmp_path)
    shutil.copy(folder / "scan.json", copy / "scan.json")
    (copy / "patterns/3_10_pixels_1.safetensors").unlink()
    with pytest.raises(FileNotFoundError, match=r"patterns lacks 3_10_pixels_1\.safetensors: scan"):
        Scan.load(copy)


# ---- what it says


def test_a_suspicious_scan_in_words():
    found = made_up("10_pixels", lead=3.0)
    assert found.headline == (
        "Suspicious. With 10 pixels at one place, the model predicts owl for 90\xa0% of 60 "
        "unseen images of other classes; other classes reach 10\xa0%."
    )
    assert "owl reaches 2.0 times the bounds." in found.reason
    assert "This does not prove a backdoor." in found.reason
    assert repr(found) == "Scan(suspicious, owl, 10 pixels at one place, 90 %)"
    assert "Scan.load('the folder')" in found.lines_to_load


def test_other_verdicts_in_words():
    nothing = made_up("warp", lead=0.0)
    assert nothing.headline.startswith("Nothing found. No class is far ahead of the others. With ")
    assert "attackers who know the scan were not tested" in nothing.reason
    near = made_up("warp", lead=0.8 * SMALL["warp"].lead)
    assert "owl reaches 80\xa0% of the bounds of a suspicious class." in near.reason
    luck = made_up("warp", lead=3.0, again=0.2)
    assert "One search found owl far enough ahead" in luck.reason
    few = made_up("warp", lead=9.0, names=("cat", "dog", "owl"))
    assert few.verdict == "inconclusive"
    assert "With 3 classes, that says too little: it needs 4." in few.reason
    fragile = made_up("patch", lead=0.5, power=0.6, side=64, others=0.6)
    assert fragile.verdict == "inconclusive"
    assert "4 of 4 classes react to such a change, and none is far ahead" in fragile.reason
    assert "Its accuracy is 90\xa0%." in fragile.reason
    fragile = made_up("patch", lead=9.0, power=0.9, side=64, others=0.48)
    assert (fragile.verdict, fragile.target_name) == ("inconclusive", "owl")
    assert "another class reaches 48\xa0% as well, as in fragile networks" in fragile.reason
    assert fragile.reason.endswith("Its accuracy is 90\xa0%.")


def test_the_table_has_the_target_first(small):
    table = small.table(full=True)
    assert table["name"][0] == small.target_name
    assert len(table) == CLASSES
    for kind in SMALL:
        leads = dict(zip(table["class"], table[f"lead_{kind}"]))
        standing = small.decision.standings[kind]
        last = leads[standing.classes[-1]]
        assert last == pytest.approx(standing.lead / SMALL[kind].lead, abs=1e-5)
        assert max(lead for y, lead in leads.items() if y not in standing.classes) == 0
    assert small.shown_table()["name"][0] == small.target_name


def test_the_figure_shows_each_change_and_the_leads_of_all_classes(large):
    _, axes = large.plot(use_pyplot=False)
    assert axes.shape == (len(LARGE), 5)
    for kind, (shown, *stamped, dots) in zip(LARGE, axes):
        assert shown.get_ylabel().replace("\n", " ") == LARGE[kind].words
        assert len(stamped) == len(large.examples[kind][1].images) == 3
        *bounds, others, target = ([*line.get_xdata()] for line in dots.lines)
        assert bounds == [[0.75] * 2, [1.0] * 2]
        leads = large.leads(kind)
        assert target == [leads[large.shown_class(kind)]]
        assert len(others) == len(leads) - 1


# ---- images and settings


def test_images_in_folders_get_the_numbers_of_the_model(small):
    ordered = images_of(n=120)
    folders = LabelledImages(ordered.images, 3 - ordered.labels, NAMES[::-1])
    again = scan(OWLS.model, folders, class_names=NAMES)
    assert again.target_name == "owl"


@pytest.mark.parametrize(("shape", "side"), [((3, 64, 96), 9), ((3, 224, 224), 32)])
def test_patches_are_as_large_as_the_image_allows(shape, side):
    patch = changes_for(shape)["patch"]
    assert (patch.solver.side, patch.short.side) == (side, side)


def test_the_changes_depend_on_the_size():
    assert [*changes_for((3, 63, 200))] == [*SMALL]
    assert [*changes_for((3, 64, 64))] == [*LARGE]


@pytest.mark.parametrize("height", [64, 65, 96, 299, 331])
def test_the_grid_of_large_images_is_the_nearest_to_32_of_those_that_fit(height):
    for width in range(64, 400, 7):
        fitting = [[n for n in range(16, 65) if side % n == 0] for side in (height, width)]
        if all(fitting):
            nearest = tuple(min(counts, key=lambda n: abs(n - 32)) for counts in fitting)
            assert cells_of((3, height, width)) == nearest
        else:
            with pytest.raises(ValueError, match=f"images of {height}x{width} pixels can't be div"):
                cells_of((1, height, width))


def test_a_repainted_pattern_changes_nothing_else():
    masks = torch.zeros(1, 1, 8, 8)
    masks[..., :4] = 1
    painting = Repainting(canvases=torch.full((1, 3, 8, 8), 0.5), masks=masks)
    images, values = torch.rand(2, 3, 8, 8), torch.rand(1, 3, 8, 8)
    painted = painting.apply(values, images)
    assert painted[0, ..., 4:].equal(images[..., 4:])
    assert painted[0, ..., :4].equal(values[..., :4].expand(2, -1, -1, -1))
    down = painting.step(values, torch.ones_like(values), 0.2)
    assert down.equal((values - 0.2).clamp(0, 1))


@pytest.mark.parametrize("name", ["references", "make_references", "alpha"])
def test_what_version_0_5_took_is_refused_in_a_sentence(name):
    with pytest.raises(TypeError, match=rf"^`{name}` went with version 0.6: a scan needs no clean"):
        scan(Net(), images_of(n=120), **{name: 0.1})


def test_refusals():
    with pytest.raises(ValueError, match="67"):  # before anything is searched
        scan(nn.Sequential(nn.AvgPool2d(60), nn.Flatten()).eval(), torch.rand(40, 3, 67, 67))
    few = LARGE_IMAGES.subset(range(12))
    with pytest.raises(ValueError, match="class 1 has 4 images that can judge it, of the 6"):
        scan(LargeNet(), few, mean=0, std=1)
    constant = Net()
    constant.weights.data[1] += 100
    with pytest.raises(ValueError, match="the model predicts class 1 for all of 60 images"):
        scan(constant, images_of(n=120))
