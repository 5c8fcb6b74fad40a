"""The site that write_gallery makes, read back."""

import json
import re
from collections import Counter
from pathlib import Path
from urllib.parse import unquote
from weakref import WeakSet

import pytest
import torch
from galleries import (
    NAMES,
    PRIVATE,
    fail,
    found,
    source,
    thousand_classes,
    write_survey,
    write_sweep,
)
from PIL import Image
from reports import Page
from torchvision.transforms.functional import pil_to_tensor

from captum_classpattern import Pattern, Survey
from captum_classpattern.pages import gallery
from captum_classpattern.pages.gallery import Pages, read_models, write_gallery
from captum_classpattern.scores.power import power_of
from captum_classpattern.surveys import Scores, stands_out
from captum_classpattern.surveys.sweep_results import begin

EVIL = "</script><script>alert('x')</script>\"&{{ 7 * 7 }}<!--"
SWEEP = {"format": "captum_classpattern sweep", "settings": {}, "classes": []}


@pytest.fixture(scope="module")
def sweep(tmp_path_factory):
    """The folder of a sweep, and its gallery."""
    folder = write_sweep(tmp_path_factory.mktemp("sweep"))
    return folder, write_gallery(folder, tmp_path_factory.mktemp("site") / "site").parent


@pytest.fixture(scope="module")
def survey(tmp_path_factory):
    """The folder of a survey, and its gallery."""
    folder = write_survey(tmp_path_factory.mktemp("survey") / "mine")
    return folder, write_gallery(folder, tmp_path_factory.mktemp("site") / "site").parent


def pages_of(folder):
    return {path: Page(path.read_text(encoding="utf-8")) for path in folder.rglob("*.html")}


def cards_of(page):
    """The data and the address of each card of a page, in order."""
    items = [attrs for tag, attrs in page.tags if tag == "li" and "data-power" in attrs]
    start = [i for i, (tag, attrs) in enumerate(page.tags) if "data-power" in attrs]
    links = [page.tags[i + 1][1]["href"] for i in start]
    return [(float(a["data-power"]), int(a["data-class"]), link) for a, link in zip(items, links)]


def levels_of(path):
    """The channels of an image, uint8 (C, H, W); nothing else is in the file."""
    with Image.open(path) as image:
        assert not image.info
        return pil_to_tensor(image)


def files_of(folder):
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def test_every_class_of_every_model_has_a_page(sweep):
    _, made = sweep
    stems = ["0_ant", "1_bee", "2_crane", "3_crane", "4_elk"]
    for name in ("clean", "bad"):
        pages = sorted(path.stem for path in (made / "models" / name).glob("*.html"))
        assert pages == [*stems, "index"]
    assert len(cards_of(pages_of(made)[made / "index.html"])) == len(NAMES)


def test_links_and_images_resolve(sweep):
    _, made = sweep
    linked = set()
    for path, page in pages_of(made).items():
        for link in [*page.attributes("href"), *page.attributes("src")]:
            if link.startswith(("#", "data:")):
                assert link in ("#main", "data:,")
                continue
            target = (path.parent / unquote(link)).resolve()
            assert target.is_file(), link
            assert target.is_relative_to(made)
            linked.add(target)
    everything = {path for path in made.rglob("*") if path.is_file()}
    assert everything - linked == {made / "gallery.json"}


def test_pages_need_no_network_and_no_inline_script(sweep):
    _, made = sweep
    for page in pages_of(made).values():
        assert not page.attributes("style")
        assert not [name for _, attrs in page.tags for name in attrs if name.startswith("on")]
        assert "default-src 'none'" in page.attributes("content")[0]
        scripts = [attrs for tag, attrs in page.tags if tag == "script"]
        assert [set(attrs) for attrs in scripts] == [{"src", "defer"}]
    for path in made.rglob("*"):
        if path.suffix in (".html", ".css", ".js"):
            assert not re.search(r"https?:|//\w|@import|url\(|@font-face", path.read_text())


def test_pages_are_well_formed(sweep):
    _, made = sweep
    for page in pages_of(made).values():
        ids = page.attributes("id")
        assert len(ids) == len(set(ids))
        assert ("html", {"lang": "en"}) in page.tags
        levels = [int(tag[1]) for tag, _ in page.tags if re.fullmatch("h[1-6]", tag)]
        assert Counter(levels)[1] == 1
        assert max(levels) == 2
        for tag, attrs in page.tags:
            if tag == "img":
                assert attrs["alt"]
                assert {"width", "height"} <= set(attrs)


def test_powers_and_controls_are_those_of_the_survey(sweep):
    folder, made = sweep
    for name in ("clean", "bad"):
        for finding in Survey.load(folder / name):
            [path] = (made / "models" / name).glob(f"{finding.target}_*.html")
            page = Page(path.read_text())
            for area, scores in finding.scores.items():
                low, high = (100 * end for end in scores.power.interval)
                row = [
                    finding.canvas,
                    *(f"{100 * area:g} %", f"{100 * scores.power.value:.1f} %"),
                    *(f"{low:.1f}\N{EN DASH}{high:.1f}", f"{scores.power.n}"),
                    f"{100 * scores.power.without:.1f} %",
                    f"{100 * scores.random_pixels:.1f} %",
                    f"{100 * scores.other_canvas:.1f} %",
                    "yes" if scores.beats_controls else "no",
                ]
                row = [text.replace(" %", "\xa0%") for text in row]
                assert row in page.tables[None]
                kind = f"{finding.canvas} canvas, {100 * area:g}\xa0% of the pixels"
                [said] = [a["data-status"] for _, a in page.tags if a.get("aria-label") == kind]
                assert said == f"Power {row[2]}"


def test_a_class_is_shown_by_what_did_best_on_the_judging_images(sweep):
    folder, made = sweep
    surveys = [Survey.load(folder / name) for name in ("clean", "bad")]
    shown = {target: (power, link) for power, target, link in
             cards_of(pages_of(made)[made / "index.html"])}  # fmt: skip
    for target in range(len(NAMES)):
        findings = [
            (f.pattern.info["search_power"], name, f)
            for name, survey in zip(("clean", "bad"), surveys)
            for f in survey
            if f.target == target
        ]
        _, name, best = max(findings, key=lambda entry: entry[0])
        power, link = shown[target]
        assert power == pytest.approx(best.scores[0.05].power.value, abs=1e-6)
        assert link.startswith(f"models/{name}/{target}_")
    powers = [power for power, _, _ in cards_of(pages_of(made)[made / "index.html"])]
    assert powers == sorted(powers, reverse=True)


def test_the_table_of_models_has_the_columns_of_the_sweep(sweep):
    _, made = sweep
    head, first, second = Page((made / "index.html").read_text()).tables[None]
    assert head == ["model", "accuracy", "classes", "above controls", "strongest class", "width"]
    assert [first[0], second[0]] == ["clean", "bad"]
    assert [first[-1], second[-1]] == ["64", ""]  # the second has no width
    assert first[1] == "87.5\xa0%"
    models = read_models(sweep[0])
    above = [sum(f.scores[f.area].beats_controls for f in m.best.values()) for m in models]
    assert [first[3], second[3]] == [str(count) for count in above]


def test_no_file_says_where_checkpoints_are(tmp_path):
    folder = write_sweep(tmp_path / "sweep", failing=("lost",))
    fail(folder, "lost", *range(len(NAMES)))
    fail(folder, "clean", 7)
    assert PRIVATE in (folder / "sweep.json").read_text()
    made = write_gallery(folder, tmp_path / "site").parent
    for name, data in files_of(made).items():
        assert b"private" not in data, name
        if name.endswith(".html"):  # nor how they are opened
            assert not re.search(r"\b(num_classes|0\.125|resnet18)\b|>None<", data.decode()), name
    pages = [Page((made / f"models/{name}/0_ant.html").read_text()) for name in ("clean", "bad")]
    assert ["width 64" in page.text for page in pages] == [True, False]


def test_the_same_class_of_other_models_is_on_the_page(sweep):
    _, made = sweep
    page = Page((made / "models/clean/2_crane.html").read_text())
    links = [link for _, _, link in cards_of(page)]
    assert links == [f"../../models/{name}/2_crane.html" for name in ("clean", "bad")]
    assert page.attributes("aria-current") == ["page"]
    assert "The same class in 2 models" in page.text


def test_a_class_of_many_models_can_be_folded(tmp_path):
    for count, folded in ((20, 1), (21, 2)):  # one is on how patterns were searched
        folder = write_sweep(tmp_path / f"{count}", [f"m{i}" for i in range(count)], NAMES[:1])
        made = write_gallery(folder, tmp_path / f"site{count}", downloads=False).parent
        page = Page((made / "models/m3/0_ant.html").read_text())
        assert len(cards_of(page)) == count
        assert len([tag for tag, _ in page.tags if tag == "details"]) == folded
        assert ("Show all 21 models" in page.text) is (folded == 2)


@pytest.mark.parametrize(
    "file", ["index.html", "models/clean/index.html", "models/bad/2_crane.html"]
)
def test_every_page_says_how_patterns_were_searched(file, sweep):
    text = Page((sweep[1] / file).read_text()).text
    assert "How the patterns were searched and scored" in text
    assert "None of these images was used in the search." in text


def test_a_card_is_read_by_its_class_first(sweep):
    page = (sweep[1] / "index.html").read_text()
    for card in re.findall("<li data-power.*?</li>", page):
        assert card.index('class="name"') < card.index("alt=") < card.index("<b>")


def test_previous_and_next_follow_the_class_numbers(survey):
    _, made = survey
    stems = ["0_ant", "1_bee", "2_crane", "3_crane", "4_elk"]
    for place, stem in enumerate(stems):
        page = Page((made / f"models/mine/{stem}.html").read_text())
        links = {attrs["rel"]: Path(unquote(attrs["href"])).stem
                 for tag, attrs in page.tags if tag == "a" and "rel" in attrs}  # fmt: skip
        expected = {"prev": stems[place - 1]} if place else {}
        expected |= {"next": stems[place + 1]} if place < 4 else {}
        assert links == expected


def test_a_survey_is_one_model_named_after_its_folder(survey):
    _, made = survey
    assert [path.name for path in (made / "models").iterdir()] == ["mine"]
    assert not (made / "models/mine/index.html").exists()
    assert "Class patterns of mine" in Page((made / "index.html").read_text()).text


@pytest.mark.parametrize(
    ("provenance", "name", "folder"),
    [
        ({"source": f"{PRIVATE}/bad net.v2.pt", "arch": "resnet18"}, "bad net.v2", "bad_net.v2"),
        ({"source": "D:\\private\\net.pth"}, "net", "net"),
        ({"source": "timm:resnet18.a1_in1k"}, "resnet18.a1_in1k", "resnet18.a1_in1k"),
        ({"source": f"timm:local-dir:{PRIVATE}/net"}, "net", "net"),
        ({"arch": f"timm:local-dir:{PRIVATE}/net"}, "net", "net"),
        ({"arch": "timm:resnet18"}, "resnet18", "resnet18"),
        ({"source": ".."}, "..", "model"),
        ({"source": 3}, "mine", "mine"),
        (None, "mine", "mine"),
    ],
)
def test_a_survey_is_named_by_its_checkpoint(provenance, name, folder, tmp_path):
    made = write_survey(tmp_path / "mine", NAMES[:1], info={"provenance": provenance})
    site = write_gallery(made, tmp_path / "site").parent
    assert [path.name for path in (site / "models").iterdir()] == [folder]
    index, page = (
        Page((site / file).read_text()) for file in ("index.html", f"models/{folder}/0_ant.html")
    )
    assert f"Class patterns of {name}" in index.text
    assert f"Class 0 of {name}" in page.text
    for text in (index.text, page.text):
        assert "private" not in text


def test_a_title_takes_the_place_of_the_models_name(tmp_path):
    folder = write_survey(tmp_path / "mine", NAMES[:1])
    made = write_gallery(folder, tmp_path / "site", title="What it learnt").parent
    index = (made / "index.html").read_text()
    assert "<h1>What it learnt</h1>" in index
    assert "<title>What it learnt</title>" in index
    page = (made / "models/mine/0_ant.html").read_text()
    assert '<a href="../../index.html">What it learnt</a>' in page
    assert "<title>ant \N{EN DASH} What it learnt</title>" in page
    assert "mine" not in Page(index).text + Page(page).text


def test_a_title_of_several_models_leaves_them_their_names(tmp_path):
    made = write_gallery(
        write_sweep(tmp_path / "sweep"), tmp_path / "site", title="Two nets"
    ).parent
    page = (made / "models/clean/0_ant.html").read_text()
    assert "<title>ant \N{EN DASH} clean \N{EN DASH} Two nets</title>" in page
    assert "Class 0 of clean" in Page(page).text
    assert "<h1>clean</h1>" in (made / "models/clean/index.html").read_text()


def test_standing_out_is_the_verdict_of_the_survey(tmp_path):
    findings = [
        found(target, "white", hits, name=name)
        for target, (name, hits) in enumerate([("ant", 95), ("bee", 20), ("cow", 30)])
    ]
    info = {"settings": {"canvases": {"white": 1}}}
    survey = Survey(findings, 3, info=info)
    survey.save(tmp_path / "s")
    [model] = read_models(tmp_path / "s")
    scores = survey.scores("white", 0.05)
    expected = {y for y in scores if stands_out(scores, y, 3)}
    assert expected == {y for y, canvas, area in model.outstanding if area == 0.05} == {0}
    made = write_gallery(tmp_path / "s", tmp_path / "site").parent
    text = "and it stands out among all classes"
    assert text in Page((made / "models/s/0_ant.html").read_text()).text
    assert text not in Page((made / "models/s/1_bee.html").read_text()).text


def test_images_are_the_pixels_that_were_scored(survey):
    folder, made = survey
    for finding in Survey.load(folder):
        [path] = (made / "models/mine/patterns").glob(
            f"{finding.target}_*_{finding.canvas}_0.05.png"
        )
        image = levels_of(path)
        binary = finding.pattern.topk(0.05)
        assert torch.equal(image[3:] == 255, binary.mask == 1)
        assert torch.equal(image[:3], (255 * binary.pixels).round().byte())


def test_a_download_is_the_pattern_and_can_be_scored(survey):
    folder, made = survey
    for finding in Survey.load(folder):
        for area, pattern in finding.patterns.items():
            [path] = (made / "models/mine/patterns").glob(
                f"{finding.target}_*_{finding.canvas}_{area:g}.safetensors"
            )
            loaded = Pattern.load(path)
            assert torch.equal(loaded.canvas, pattern.canvas)
            assert torch.equal(loaded.mask, pattern.mask)
            assert loaded.seen == {"00112233aabb"}


def test_hidden_canvases_are_in_no_file(tmp_path):
    folder = write_survey(tmp_path / "mine")
    made = write_gallery(folder, tmp_path / "site", canvases="hide").parent
    assert not list(made.rglob("*_canvas.png"))
    images, downloads = sorted(made.rglob("*.png")), sorted(made.rglob("*.safetensors"))
    assert len(images) == len(downloads) == len(NAMES) * 2 * 2
    for finding in Survey.load(folder):
        for area, pattern in finding.patterns.items():
            binary = pattern.topk(area)
            outside = (binary.mask == 0).expand(3, -1, -1)
            pixels = (255 * binary.pixels).round().byte()
            name = f"{finding.target}_*_{finding.canvas}_{area:g}"
            [image] = (made / "models/mine/patterns").glob(f"{name}.png")
            [download] = (made / "models/mine/patterns").glob(f"{name}.safetensors")
            levels = levels_of(image)
            assert torch.equal(levels[:3], pixels)  # black outside of the mask
            loaded = Pattern.load(download)
            assert not loaded.canvas[outside].any()
            other = torch.rand(1, *pattern.canvas.shape)
            assert torch.equal(loaded.topk(area).stamp(other), binary.stamp(other))
            for file in (image, download):  # nor in the bytes
                assert pattern.canvas.numpy().tobytes() not in file.read_bytes()
    kinds = Counter(path.suffix for path in made.rglob("*") if path.is_file())
    assert set(kinds) == {".html", ".json", ".css", ".js", ".png", ".safetensors"}
    assert 'class="canvas"' not in (made / "models/mine/0_ant.html").read_text()


def test_canvases_are_shown_by_default(survey):
    folder, made = survey
    for finding in Survey.load(folder):
        [path] = (made / "models/mine/patterns").glob(
            f"{finding.target}_*_{finding.canvas}_canvas.png"
        )
        expected = (255 * finding.pattern.canvas).round().byte()
        assert torch.equal(levels_of(path), expected)


def test_grey_patterns_and_no_downloads(tmp_path):
    findings = [found(0, "white", 90, name="ant")]
    for one in findings:
        one.patterns.update(
            {area: Pattern(p.canvas[:1], p.mask, 0, p.info) for area, p in one.patterns.items()}
        )
    Survey(findings, 1, info={"settings": {"canvases": {"white": 1}}}).save(tmp_path / "s")
    made = write_gallery(tmp_path / "s", tmp_path / "site", downloads=False).parent
    channels = {path.name: len(levels_of(path)) for path in made.rglob("*.png")}
    assert channels == {
        "0_ant_white_0.05.png": 2,
        "0_ant_white_0.01.png": 2,
        "0_ant_white_canvas.png": 1,
    }
    assert not list(made.rglob("*.safetensors"))
    assert "Download" not in (made / "models/s/0_ant.html").read_text()


def test_names_from_strangers_are_escaped(tmp_path):
    names = [EVIL, f"{EVIL}2", "../../up", "a\ud800b", "é?#%20.html"]
    folder = write_sweep(
        tmp_path / "sweep", models=(EVIL, "up/../..", "A", "b", "con/é?#"), names=names
    )
    data = json.loads((folder / "sweep.json").read_text())
    data["models"][0][EVIL] = EVIL
    (folder / "sweep.json").write_text(json.dumps(data))
    made = write_gallery(folder, tmp_path / "site", title=EVIL).parent
    assert {path.name for path in tmp_path.iterdir()} == {"sweep", "site"}
    models = [path.name for path in (made / "models").iterdir()]
    assert len({name.casefold() for name in models}) == 5
    for path, page in pages_of(made).items():
        assert [attrs.get("src") for tag, attrs in page.tags if tag == "script"] == [
            f"{'' if path.parent == made else '../../'}assets/gallery.js"
        ]
        assert "49" not in page.text.replace("49.", "")
        for link in [*page.attributes("href"), *page.attributes("src")]:
            if not link.startswith(("#", "data:")):
                assert (path.parent / unquote(link)).is_file()
    assert EVIL in Page((made / "index.html").read_text()).text


def test_class_numbers_from_strangers_are_no_paths(tmp_path):
    folder = write_survey(tmp_path / "a", NAMES[:1])
    for path in (folder / "results.json", folder / "findings/0.json"):
        path.write_text(path.read_text().replace('"class": 0', '"class": "../../up"'))
    with pytest.raises(ValueError, match=r"is damaged .* it has a class '\.\./\.\./up'"):
        write_gallery(folder, tmp_path / "site")


@pytest.mark.parametrize(
    ("row", "message"),
    [
        *(
            ({"name": "a", "folder": folder}, f"names the folder '{folder}', which is not the name")
            for folder in ("../m0", "/m0", "m0/inner", "..", ".", "", ".hidden")
        ),
        ({"name": "a"}, r"needs a name and a folder, got \{'name': 'a'\}"),
        ("a", "needs a name and a folder, got 'a'"),
    ],
)
def test_a_sweep_stays_in_its_folder(row, message, tmp_path):
    (tmp_path / "sweep.json").write_text(json.dumps({**SWEEP, "models": [row]}))
    with pytest.raises(ValueError, match=message):
        write_gallery(tmp_path, tmp_path / "site")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "is damaged"),
        ("[]", "is not from a sweep"),
        ('{"format": "other", "models": []}', "is not from a sweep"),
        (json.dumps({**SWEEP, "models": 3}), "must hold settings, classes and a list of models"),
        ('{"format": "captum_classpattern sweep", "models": []}', "must hold settings, classes"),
        (json.dumps({**SWEEP, "models": []}), "no class in .* is finished yet"),
        (
            json.dumps({**SWEEP, "models": [{"name": n, "folder": n} for n in "aA"]}),
            "names the folder 'A' twice",
        ),
    ],
)
def test_a_wrong_sweep_is_refused(text, message, tmp_path):
    (tmp_path / "sweep.json").write_text(text)
    with pytest.raises(ValueError, match=message):
        write_gallery(tmp_path, tmp_path / "site")


def test_a_folder_without_findings_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"neither results\.json nor sweep"):
        write_gallery(tmp_path, tmp_path / "site")


def remarks_of(made):
    """What the table of models says at the end of each row, by model."""
    head, *rows = Page((made / "index.html").read_text()).tables[None]
    assert head[-1] == "remarks"
    return {row[0]: row[-1] for row in rows}


def forget(folder, *targets):
    """Removes classes, as if they were still to be searched."""
    for target in targets:
        (folder / f"findings/{target}.json").unlink()
    results = folder / "results.json"
    data = json.loads(results.read_text())
    rows = [row for row in data["rows"] if row["class"] not in targets]
    results.write_text(json.dumps({**data, "complete": False, "rows": rows}))


def test_what_failed_or_is_missing_is_said_for_each_model(tmp_path):
    folder = write_sweep(tmp_path / "sweep", models=("clean", "bad"), failing=("lost", "late"))
    fail(folder, "lost", *range(len(NAMES)))
    forget(folder / "bad", 1, 2, 3)
    fail(folder, "bad", 1, 2)
    made = write_gallery(folder, tmp_path / "site").parent
    assert remarks_of(made) == {
        "clean": "",
        "bad": "2 classes failed, 1 class not searched",
        "lost": "could not be opened",
        "late": "5 classes not searched",
    }
    page = Page((made / "models/bad/index.html").read_text())
    text = "Only finished classes are shown: 2 classes failed, 1 class not searched."
    assert text in page.text
    assert "Only finished" not in Page((made / "models/clean/index.html").read_text()).text
    assert sorted(path.name for path in (made / "models").iterdir()) == ["bad", "clean"]
    assert "Class patterns of 2 models" in Page((made / "index.html").read_text()).text


def test_a_failure_in_the_first_look_is_said_too(tmp_path):
    folder = write_sweep(tmp_path / "sweep", failing=("lost", "weak"))
    look = write_sweep(folder / "first_look", models=(), failing=("clean", "bad", "lost", "weak"))
    fail(look, "lost", *range(len(NAMES)))
    fail(look, "weak", *range(len(NAMES)))
    write_survey(look / "weak")  # it could be opened
    forget(look / "weak", *range(len(NAMES)))
    made = write_gallery(folder, tmp_path / "site").parent
    remarks = remarks_of(made)
    assert remarks["lost"] == "could not be opened"
    assert remarks["weak"] == "5 classes failed"


def test_a_failure_that_was_mended_is_not_said(tmp_path):
    folder = write_sweep(tmp_path / "sweep")
    fail(folder, "clean", 0)
    made = write_gallery(folder, tmp_path / "site").parent
    assert "failed" not in Page((made / "index.html").read_text()).text


def test_findings_without_their_summary_are_shown(tmp_path):
    folder = write_sweep(tmp_path / "sweep")
    (folder / "bad" / "results.json").unlink()  # as an error about a damaged file suggests
    made = write_gallery(folder, tmp_path / "site").parent
    assert "not searched" not in (made / "index.html").read_text()
    assert len(list((made / "models/bad").glob("*.html"))) == len(NAMES) + 1


def test_canvases_may_have_other_areas(tmp_path):
    findings = [
        found(0, "white", 90, name="ant", areas=(0.05,)),
        found(0, "positive", 40, name="ant", areas=(0.01,)),
    ]
    Survey(findings, 1).save(tmp_path / "mine")
    made = write_gallery(tmp_path / "mine", tmp_path / "site").parent
    assert len(list((made / "models/mine/patterns").glob("*_0.0?.png"))) == 2


def test_a_survey_that_is_not_finished_says_so(tmp_path):
    folder = write_survey(tmp_path / "mine")
    forget(folder, 2, 4)
    made = write_gallery(folder, tmp_path / "site").parent
    text = Page((made / "index.html").read_text()).text
    assert "3 classes. For" in text
    assert "Only finished classes are shown: 2 classes not searched." in text


def test_addresses_stay_when_other_models_and_classes_are_added(tmp_path):
    folder = write_sweep(tmp_path / "sweep", models=("b net",), failing=("a net", "B*net2"))
    forget(folder / "b_net", 3)
    before = set(files_of(write_gallery(folder, tmp_path / "one").parent))
    write_sweep(folder, models=("b net", "a net", "B*net2"))
    after = set(files_of(write_gallery(folder, tmp_path / "two").parent))
    assert before < after
    assert {"models/b_net/3_crane.html", "models/B_net2/0_ant.html"} <= after - before


def test_long_names_that_end_differently_have_addresses_of_their_own(tmp_path):
    models = [f"{'long' * 20}{end}" for end in "ab"]
    made = write_gallery(write_sweep(tmp_path / "sweep", models), tmp_path / "site").parent
    assert sorted(path.name for path in (made / "models").iterdir()) == models


def write_scored(folder, *powers):
    """A survey of classes on white canvases with these powers: (hits, images)."""
    findings = []
    for target, (hits, n) in enumerate(powers):
        one = found(target, "white", 9, name=f"c{target}")
        scores = {area: Scores(power_of(hits, n, 0), 0, 0) for area in one.scores}
        findings.append(type(one)(one.patterns, "white", scores, one.class_name))
    info = {"settings": {"canvases": {"white": 1}}}
    Survey(findings, len(findings), info=info).save(folder)
    return folder


@pytest.mark.parametrize(
    ("powers", "text", "absent"),
    [
        ([(9, 10)], "1 class. Too few images to compare it with its controls: at least 100", "For"),
        ([(9, 10)] * 2, "2 classes. Too few images to compare them with their controls", "For"),
        ([(90, 100)], "1 class. Its pattern is stronger than all its controls.", "100 are"),
        ([(0, 100)], "1 class. Its pattern is not stronger than all its controls.", "100 are"),
        ([(90, 100), (0, 100)], "2 classes. For 1 of them, the pattern shown is", "100 are"),
        (
            [(90, 100), (0, 100), (9, 10)],
            "3 classes. For 1 of the 2 with enough images, the pattern shown is stronger than all "
            "its controls. Some patterns were scored on too few images",
            "of them",
        ),
    ],
)
def test_the_index_counts_only_what_can_be_compared(powers, text, absent, tmp_path):
    made = write_gallery(write_scored(tmp_path / "s", *powers), tmp_path / "site").parent
    summary = Page((made / "index.html").read_text()).text.partition("Each class is")[0]
    assert text in summary
    assert absent not in summary


def test_few_images_are_said_to_be_few(tmp_path):
    folder = write_sweep(tmp_path / "sweep")
    write_scored(folder / "few", (9, 10))
    begin(folder, {"areas": [0.05, 0.01]}, [source("few")], range(len(NAMES)))
    made = write_gallery(folder, tmp_path / "site").parent
    _, *rows = Page((made / "index.html").read_text()).tables[None]
    assert [row[3] for row in rows][-1] == "too few images"
    assert "at least 100 are needed" in Page((made / "models/few/0_c0.html").read_text()).text


def test_a_gallery_is_replaced_as_a_whole(tmp_path):
    made = write_gallery(write_survey(tmp_path / "a"), tmp_path / "site").parent
    write_gallery(write_survey(tmp_path / "b", NAMES[:2]), made)
    assert [path.name for path in (made / "models").iterdir()] == ["b"]
    assert {path.name for path in tmp_path.iterdir()} == {"a", "b", "site"}


def test_the_same_folder_gives_the_same_files(tmp_path):
    folder = write_survey(tmp_path / "a")
    first = files_of(write_gallery(folder, tmp_path / "one", downloads=False).parent)
    assert files_of(write_gallery(folder, tmp_path / "two", downloads=False).parent) == first


@pytest.mark.parametrize("at", [1, 7])
def test_an_interrupted_run_leaves_the_old_gallery(at, tmp_path, monkeypatch):
    folder = write_survey(tmp_path / "a")
    made = write_gallery(folder, tmp_path / "site").parent
    before, drawn = files_of(made), []

    def interrupted(pattern):
        drawn.append(pattern)
        if len(drawn) == at:
            raise KeyboardInterrupt
        return b""

    monkeypatch.setattr(gallery, "pattern_png", interrupted)
    with pytest.raises(KeyboardInterrupt):
        write_gallery(folder, made)
    drawn.clear()
    with pytest.raises(KeyboardInterrupt):
        write_gallery(folder, tmp_path / "new")
    assert files_of(made) == before
    assert {path.name for path in tmp_path.iterdir()} == {"a", "site"}


def test_an_interrupt_between_the_renames_brings_the_old_gallery_back(tmp_path, monkeypatch):
    folder = write_survey(tmp_path / "a")
    made = write_gallery(folder, tmp_path / "site").parent
    before, rename = files_of(made), Path.rename

    def interrupted(self, target):
        if self.suffix == ".new":
            raise KeyboardInterrupt
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", interrupted)
    with pytest.raises(KeyboardInterrupt):
        write_gallery(folder, made)
    assert files_of(made) == before
    assert {path.name for path in tmp_path.iterdir()} == {"a", "site"}


def test_a_folder_with_anything_else_is_refused(tmp_path):
    folder = write_survey(tmp_path / "a")
    before = files_of(folder)
    with pytest.raises(ValueError, match="which is replaced"):
        write_gallery(folder, folder)
    with pytest.raises(ValueError, match="which is replaced"):
        write_gallery(folder, tmp_path)
    with pytest.raises(ValueError, match="is not a gallery, or not only: it holds findings"):
        write_gallery(folder, write_survey(tmp_path / "b"))
    assert files_of(folder) == before
    made = write_gallery(folder, tmp_path / "site").parent
    (made / "CNAME").write_text("x")
    with pytest.raises(ValueError, match=r"it holds CNAME\. A gallery replaces its folder"):
        write_gallery(folder, made)
    (tmp_path / "file").touch()
    with pytest.raises(ValueError, match="is a file: give a folder"):
        write_gallery(folder, tmp_path / "file")
    (tmp_path / "empty").mkdir()
    assert write_gallery(folder, tmp_path / "empty").is_file()


@pytest.mark.parametrize("name", [".DS_Store", "Thumbs.db", "desktop.ini"])
def test_what_file_managers_leave_does_not_matter(name, tmp_path):
    folder = write_survey(tmp_path / "a", NAMES[:1])
    (tmp_path / "site").mkdir()
    for _ in range(2):
        (tmp_path / "site" / name).touch()
        made = write_gallery(folder, tmp_path / "site").parent
    assert not (made / name).exists()


def test_canvases_must_be_shown_or_hidden(tmp_path):
    with pytest.raises(ValueError, match="`canvases` must be 'show' or 'hide', got 'no'"):
        write_gallery(tmp_path, tmp_path / "site", canvases="no")


def test_a_missing_pattern_is_named_and_nothing_is_written(tmp_path):
    folder = write_survey(tmp_path / "a")
    (folder / "patterns/3_crane_white_0.01.safetensors").unlink()
    with pytest.raises(FileNotFoundError, match="no pattern file at"):
        write_gallery(folder, tmp_path / "site")
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_the_index_of_a_thousand_classes_is_small_and_lazy():
    model = thousand_classes()
    html = Pages([model], None, True, True).index()
    assert len(html) < 1_000_000
    page = Page(html.decode())
    assert len(cards_of(page)) == 1000
    images = [attrs for tag, attrs in page.tags if tag == "img"]
    assert {attrs["loading"] for attrs in images} == {"lazy"}
    assert not [attrs for attrs in images if attrs["src"].startswith("data:")]


def test_patterns_are_read_one_class_at_a_time(tmp_path, monkeypatch):
    folder = write_sweep(tmp_path / "sweep")
    alive = WeakSet()
    load, most = Pattern.load, []

    def counted(path):
        pattern = load(path)
        alive.add(pattern)
        most.append(len(alive))
        return pattern

    monkeypatch.setattr(Pattern, "load", counted)
    write_gallery(folder, tmp_path / "site")
    assert len(most) > 2 * len(NAMES) * 4
    assert max(most) <= 2 * 4  # two kinds of canvas at two areas, and those of the class before
