"""The site that write_gallery makes shows what was found, publishes nothing else, and replaces
nothing but a gallery."""

import json
import re
from collections import Counter
from dataclasses import replace
from itertools import count
from pathlib import Path
from urllib.parse import unquote
from weakref import WeakSet

import pytest
import torch
from galleries import NAMES, PRIVATE, fail, forget, found, many_classes, write_survey, write_sweep
from PIL import Image
from refusals import refusal
from reports import Page
from shown import cells_of
from torchvision.transforms.functional import pil_to_tensor

from captum_classpattern import Pattern, Survey
from captum_classpattern.pages import gallery
from captum_classpattern.pages.gallery import Pages, read_models, write_gallery
from captum_classpattern.scores.power import power_of
from captum_classpattern.surveys import Scores, stands_out

EVIL = "</script><script>alert('x')</script>\"&{{ 7 * 7 }}<!--"


@pytest.fixture(scope="module")
def sweep(tmp_path_factory):
    """The folder of a sweep, and its gallery. Of one model two classes are missing; one model could
    not be opened, and one was not searched; a failure of the first was fixed."""
    folder = write_sweep(tmp_path_factory.mktemp("sweep"), failing=("lost", "late"))
    fail(folder, "lost", *range(len(NAMES)))
    forget(folder / "bad", 3, 4)
    fail(folder, "bad", 3)
    fail(folder, "clean", 0)
    assert PRIVATE in (folder / "sweep.json").read_text()
    return folder, write_gallery(folder, tmp_path_factory.mktemp("site") / "site").parent


@pytest.fixture(scope="module")
def survey(tmp_path_factory):
    """The folder of a survey, and its gallery."""
    folder = write_survey(tmp_path_factory.mktemp("survey") / "mine")
    forget(folder, 2, 4)
    return folder, write_gallery(folder, tmp_path_factory.mktemp("site") / "site").parent


def page_of(path):
    return Page(path.read_text(encoding="utf-8"))


def links_of(page):
    """What is loaded or linked to, but for places of the page itself."""
    links = [*page.attributes("href"), *page.attributes("src")]
    assert {link for link in links if link.startswith("#")} <= {"#main"}
    return [unquote(link) for link in links if not link.startswith(("#", "data:,"))]


def rendered(models, title=None):
    """The index and the pages of the classes, which are not written."""
    pages = Pages(models, title, True, True)
    classes = [pages.class_page(model, target) for model in models for target in model.best]
    return [Page(page.decode()) for page in (pages.index(), *classes)]


def cards_of(page):
    """The data and the address of each card of a page, in order."""
    start = [i for i, (_, attrs) in enumerate(page.tags) if "data-power" in attrs]
    items = [(page.tags[i][1], page.tags[i + 1][1]["href"]) for i in start]
    return [(float(a["data-power"]), int(a["data-class"]), link) for a, link in items]


def levels_of(path):
    """The channels of an image, uint8 (C, H, W); nothing else is in the file."""
    with Image.open(path) as image:
        assert not image.info
        return pil_to_tensor(image)


def files_of(folder):
    files = [path for path in folder.rglob("*") if path.is_file()]
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def test_pages_are_well_formed_and_need_nothing_but_what_is_there(sweep, snapshot):
    _, made = sweep
    linked, texts = set(), []
    for path in made.rglob("*.html"):
        page = page_of(path)
        targets = [(path.parent / link).resolve() for link in links_of(page)]
        linked |= {target.relative_to(made).as_posix() for target in targets}
        assert [set(attrs) for tag, attrs in page.tags if tag == "script"] == [{"src", "defer"}]
        names = {name for _, attrs in page.tags for name in attrs}
        assert not [name for name in names if name == "style" or name.startswith("on")]
        assert "default-src 'none'" in page.attributes("content")[0]
        ids = page.attributes("id")
        assert len(ids) == len(set(ids))
        levels = [tag for tag, _ in page.tags if re.fullmatch("h[1-6]", tag)]
        assert (levels[0], {*levels[1:]} - {"h2"}) == ("h1", set())
        for attrs in (attrs for tag, attrs in page.tags if tag == "img"):
            assert attrs["alt"]
            assert {"width", "height"} <= set(attrs)
    files = files_of(made)
    assert set(files) == linked | {"gallery.json"}
    assert sorted(files) == snapshot
    for name, data in files.items():
        assert b"private" not in data, name
        if name.endswith((".html", ".css", ".js")):
            texts.append(data.decode())
        if name.endswith(".html"):  # nor how checkpoints are opened
            assert not re.search(r"\b(num_classes|0\.125|resnet18)\b|>None<", texts[-1]), name
    assert not re.search(r"https?:|//\w|@import|url\(|@font-face", "".join(texts))


@pytest.mark.parametrize("name", ["index.html", "models/bad/index.html", "models/clean/0_ant.html"])
def test_the_text_of_a_page_of_a_sweep(name, sweep, snapshot):
    assert page_of(sweep[1] / name).lines == snapshot


def test_the_text_of_the_index_of_a_survey(survey, snapshot):
    assert page_of(survey[1] / "index.html").lines == snapshot
    assert not (survey[1] / "models/mine/index.html").exists()


def test_powers_and_controls_are_those_of_the_survey(sweep):
    folder, made = sweep
    for name in ("clean", "bad"):
        for finding in Survey.load(folder / name):
            [path] = (made / "models" / name).glob(f"{finding.target}_*.html")
            page = Page(path.read_text())
            for area, scores in finding.scores.items():
                canvas, share, cells = finding.canvas, f"{100 * area:g}\xa0%", cells_of(scores)
                assert [canvas, share, *cells] in page.tables[None]
                kind = f"{canvas} canvas, {share} of the pixels"
                [said] = [a["data-status"] for _, a in page.tags if a.get("aria-label") == kind]
                assert said == f"Power {cells[0]}"


def test_a_class_is_shown_by_what_did_best_on_the_judging_images(sweep):
    folder, made = sweep
    findings = [(name, f) for name in ("clean", "bad") for f in Survey.load(folder / name)]
    shown = {}
    for name, finding in sorted(findings, key=lambda each: each[1].pattern.info["search_power"]):
        shown[finding.target] = (name, finding)  # the last is the best
    cards = cards_of(page_of(made / "index.html"))
    assert [power for power, *_ in cards] == sorted((p for p, *_ in cards), reverse=True)
    assert sorted(target for _, target, _ in cards) == [*range(len(NAMES))]
    for power, target, link in cards:
        name, best = shown[target]
        assert power == pytest.approx(best.scores[0.05].power.value, abs=1e-6)
        assert link.startswith(f"models/{name}/{target}_")


@pytest.mark.parametrize("number", [20, 21])
def test_a_class_of_more_than_20_models_is_folded(number, survey):
    [model] = read_models(survey[0])
    _, page, *_ = rendered([replace(model, name=f"m{i}", folder=f"m{i}") for i in range(number)])
    assert len(cards_of(page)) == number
    folded = len([tag for tag, _ in page.tags if tag == "details"]) - 1  # how was searched
    assert (folded, "Show all 21 models" in page.text) == (number - 20, number == 21)


def test_a_page_links_to_the_classes_next_to_it_and_to_the_same_class_of_other_models(sweep):
    stems = [None, "0_ant", "1_bee", "2_crane", "3_crane", "4_elk", None]
    for before, stem, after in zip(stems, stems[1:], stems[2:]):
        page = page_of(sweep[1] / f"models/clean/{stem}.html")
        links = {attrs.get("rel"): attrs["href"] for _, attrs in page.tags if "href" in attrs}
        found = [links.get(rel) for rel in ("prev", "next")]
        assert [link and Path(unquote(link)).stem for link in found] == [before, after]
    page = page_of(sweep[1] / "models/clean/2_crane.html")
    links = [link for _, _, link in cards_of(page)]
    assert links == [f"../../models/{name}/2_crane.html" for name in ("clean", "bad")]
    assert page.attributes("aria-current") == ["page"]


@pytest.mark.parametrize(
    ("provenance", "name", "folder"),
    [
        ({"source": f"{PRIVATE}/bad net.v2.pt", "arch": "resnet18"}, "bad net.v2", "bad_net.v2"),
        ({"source": "D:\\private\\net.pth"}, "net", "net"),
        ({"source": "timm:resnet18.a1_in1k"}, "resnet18.a1_in1k", "resnet18.a1_in1k"),
        ({"arch": "timm:resnet18"}, "resnet18", "resnet18"),
        ({"source": f"timm:local-dir:{PRIVATE}/net"}, "net", "net"),
        ({"arch": f"timm:local-dir:{PRIVATE}/net"}, "net", "net"),
        ({"source": ".."}, "..", "model"),
        ({"source": 3}, "mine", "mine"),
        (None, "mine", "mine"),
    ],
)
def test_a_survey_is_named_by_its_checkpoint(provenance, name, folder, tmp_path):
    made = write_survey(tmp_path / "mine", NAMES[:1], info={"provenance": provenance})
    [model] = read_models(made)
    assert (model.name, model.folder) == (name, folder)
    index, page = rendered([model])
    assert f"Class patterns of {name}" in index.text
    assert f"Class 0 of {name}" in page.text
    assert "private" not in index.text + page.text


@pytest.mark.parametrize("several", [False, True])
def test_a_title_takes_the_place_of_the_name_of_a_single_model(several, sweep, survey, snapshot):
    index, page, *_ = rendered(read_models((sweep if several else survey)[0]), "What it learnt")
    assert [index.lines.splitlines()[:4], page.lines.splitlines()[:12]] == snapshot


def write_scored(folder, *powers):
    """A survey of classes on white canvases with these powers: (hits, images)."""
    findings = []
    for target, (hits, n) in enumerate(powers):
        one = found(target, "white", 9, name=f"c{target}")
        scores = {area: Scores(power_of(hits, n, 0), 0, 0) for area in one.scores}
        findings.append(replace(one, scores=scores))
    info = {"settings": {"canvases": {"white": 1}}}
    Survey(findings, len(findings), info=info).save(folder)
    return folder


@pytest.mark.parametrize("hits", [95, 31])
def test_standing_out_is_the_verdict_of_the_survey(hits, tmp_path):
    [model] = read_models(write_scored(tmp_path / "s", (hits, 100), (20, 100), (30, 100)))
    scores = model.survey.scores("white", 0.05)
    expected = [stands_out(scores, y, 3) for y in scores]
    assert expected == [hits == 95, False, False]
    _, *pages = rendered([model])
    assert ["and it stands out among all" in page.text for page in pages] == expected


FEW, STRONG, WEAK = (9, 10), (90, 100), (0, 100)


@pytest.mark.parametrize(
    "powers", [[FEW], [FEW, FEW], [STRONG], [WEAK], [STRONG, WEAK], [STRONG, WEAK, FEW]]
)
def test_only_what_has_enough_images_is_compared(powers, tmp_path, snapshot):
    index, *pages = rendered(read_models(write_scored(tmp_path / "s", *powers)))
    assert index.text.partition("Each class is")[0] == snapshot
    few = ["Too few images to compare it with its controls" in page.text for page in pages]
    assert few == [power == FEW for power in powers]


def test_a_failure_in_the_first_look_is_said_too(tmp_path):
    two = NAMES[:2]
    folder = write_sweep(tmp_path / "sweep", names=two, failing=("lost", "weak"))
    look = folder / "first_look"
    write_sweep(look, (), two, failing=("clean", "bad", "lost", "weak"))
    fail(look, "lost", 0, 1)
    fail(look, "weak", 0, 1)
    write_survey(look / "weak")  # it could be opened
    forget(look / "weak", *range(len(NAMES)))
    remarks = {model.name: model.remark for model in read_models(folder)}
    assert remarks == {
        "lost": "could not be opened", "weak": "2 classes failed", "clean": "", "bad": "",
    }  # fmt: skip


def test_findings_without_their_summary_are_shown(tmp_path):
    folder = write_sweep(tmp_path / "sweep", names=NAMES[:2])
    (folder / "bad" / "results.json").unlink()  # as an error about a damaged file suggests
    models = read_models(folder)
    assert [(model.remark, [*model.best]) for model in models] == [("", [0, 1])] * 2


def patterns_of(made, finding, end):
    """A file of a finding, by the end of its name."""
    [path] = made.glob(f"models/mine/patterns/{finding.target}_*_{finding.canvas}_{end}")
    return path


@pytest.mark.parametrize("canvases", ["show", "hide"])
def test_images_and_downloads_are_the_pixels_that_were_scored(canvases, survey, tmp_path):
    folder = survey[0]
    made = write_gallery(folder, tmp_path / "site", canvases=canvases).parent
    hidden, findings = canvases == "hide", [*Survey.load(folder)]
    kinds = Counter(Path(name).suffix for name in files_of(made))
    assert set(kinds) == {".html", ".json", ".css", ".js", ".png", ".safetensors"}
    assert kinds[".safetensors"] == 2 * len(findings)
    assert kinds[".png"] == (2 if hidden else 3 + 2 * 2) * len(findings)
    assert ('class="canvas"' in (made / "models/mine/0_ant.html").read_text()) is not hidden
    for path in made.glob("models/mine/*.html"):
        assert ("cat → dog 75" in page_of(path).text) is not hidden
    for finding in findings:
        canvas = finding.pattern.canvas
        if not hidden:
            drawn = levels_of(patterns_of(made, finding, "canvas.png"))
            assert torch.equal(drawn, (255 * canvas).round().byte())
        for area, pattern in finding.patterns.items():
            for number, stamped in enumerate(finding.stamped[area].images, 1):
                assert hidden or torch.equal(
                    levels_of(patterns_of(made, finding, f"{area:g}_{number}.png")),
                    (255 * stamped).round().byte(),
                )
            binary = pattern.topk(area)
            image = patterns_of(made, finding, f"{area:g}.png")
            download = patterns_of(made, finding, f"{area:g}.safetensors")
            levels, loaded = levels_of(image), Pattern.load(download)
            assert torch.equal(levels[3:] == 255, binary.mask == 1)
            assert torch.equal(levels[:3], (255 * binary.pixels).round().byte())  # else black
            assert loaded.seen == {"00112233aabb"}
            assert torch.equal(loaded.canvas, canvas * binary.mask if hidden else canvas)
            other = torch.rand(1, *canvas.shape)
            assert torch.equal(loaded.topk(area).stamp(other), binary.stamp(other))
            assert hidden or torch.equal(loaded.mask, pattern.mask)
            for file in (image, download):  # nor in the bytes
                assert not (hidden and canvas.numpy().tobytes() in file.read_bytes())


def test_grey_patterns_canvases_with_other_areas_and_no_downloads(tmp_path):
    grey = replace(found(0, "white", 90, name="ant"), stamped=None)  # as of earlier versions
    for area, pattern in grey.patterns.items():
        grey.patterns[area] = replace(pattern, canvas=pattern.canvas[:1])
    colour = found(0, "positive", 40, name="ant", areas=(0.01,))
    Survey([grey, colour], 1).save(tmp_path / "s")
    made = write_gallery(tmp_path / "s", tmp_path / "site", downloads=False).parent
    assert {path.name: len(levels_of(path)) for path in made.rglob("*.png")} == {
        "0_ant_white_0.05.png": 2,
        "0_ant_white_0.01.png": 2,
        "0_ant_white_canvas.png": 1,
        "0_ant_positive_0.01.png": 4,
        "0_ant_positive_0.01_1.png": 3,
        "0_ant_positive_0.01_2.png": 3,
        "0_ant_positive_canvas.png": 3,
    }
    assert not list(made.rglob("*.safetensors"))
    assert "Download" not in (made / "models/s/0_ant.html").read_text()


def test_names_from_strangers_are_escaped(tmp_path):
    names = [EVIL, "../../up", "a\ud800b", "é?#%20.html"]
    models = (EVIL, "up/../..", "A", "b", "con/é?#")
    folder = write_sweep(tmp_path / "sweep", models, names)
    data = json.loads((folder / "sweep.json").read_text())
    data["models"][0][EVIL] = EVIL
    (folder / "sweep.json").write_text(json.dumps(data))
    made = write_gallery(folder, tmp_path / "site", title=EVIL).parent
    assert {path.name for path in tmp_path.iterdir()} == {"sweep", "site"}
    assert len({path.name.casefold() for path in (made / "models").iterdir()}) == 5
    for path in made.rglob("*.html"):
        page, root = page_of(path), "" if path.parent == made else "../../"
        scripts = [attrs.get("src") for tag, attrs in page.tags if tag == "script"]
        assert scripts == [f"{root}assets/gallery.js"]
        assert "49" not in page.text.replace("49.", "")
        assert all((path.parent / link).is_file() for link in links_of(page))
    assert EVIL in page_of(made / "index.html").text


def test_addresses_stay_when_other_models_and_classes_are_added(tmp_path):
    long = ["long" * 20 + end for end in "ab"]  # with addresses of their own
    others, names = ("a net", "B*net2", *long), NAMES[:2]
    folder = write_sweep(tmp_path / "sweep", ("b net",), names, failing=others)
    forget(folder / "b_net", 1)
    before = set(files_of(write_gallery(folder, tmp_path / "one").parent))
    write_sweep(folder, ("b net", *others), names)
    after = set(files_of(write_gallery(folder, tmp_path / "two").parent))
    assert before < after
    added = {"models/b_net/1_bee.html", "models/B_net2/0_ant.html"}
    assert added | {f"models/{name}/0_ant.html" for name in long} <= after - before


def test_a_gallery_is_replaced_as_a_whole_and_is_always_the_same(tmp_path):
    folder = write_survey(tmp_path / "a", NAMES[:2])
    (tmp_path / "empty").mkdir()
    made = write_gallery(folder, tmp_path / "empty", downloads=False).parent
    first = files_of(made)
    assert files_of(write_gallery(folder, tmp_path / "b", downloads=False).parent) == first
    write_gallery(write_survey(tmp_path / "c", NAMES[:1]), made)
    assert [path.name for path in (made / "models").iterdir()] == ["c"]
    assert {path.name for path in tmp_path.iterdir()} == {"a", "b", "c", "empty"}


@pytest.mark.parametrize(
    ("owner", "name", "at"),
    [(gallery, "pattern_png", 1), (gallery, "pattern_png", 7), (Path, "rename", 2)],
)
def test_an_interrupted_run_leaves_the_old_gallery(owner, name, at, tmp_path, monkeypatch):
    folder = write_survey(tmp_path / "a", NAMES[:2])
    made = write_gallery(folder, tmp_path / "site").parent
    before, calls, real = files_of(made), count(1), getattr(owner, name)

    def interrupted(*given):
        if next(calls) == at:
            raise KeyboardInterrupt
        return real(*given)

    monkeypatch.setattr(owner, name, interrupted)
    with pytest.raises(KeyboardInterrupt):
        write_gallery(folder, made)
    assert files_of(made) == before
    assert {path.name for path in tmp_path.iterdir()} == {"a", "site"}


def test_what_file_managers_leave_does_not_matter(tmp_path):
    folder = write_survey(tmp_path / "a", NAMES[:1])
    (tmp_path / "site").mkdir()
    for name in (".DS_Store", "Thumbs.db", "desktop.ini"):
        (tmp_path / "site" / name).touch()
        made = write_gallery(folder, tmp_path / "site").parent
        assert name not in files_of(made)
        (made / name).touch()
        assert name not in files_of(write_gallery(folder, made).parent)


def test_the_index_of_a_thousand_classes_is_small_and_lazy():
    html = Pages([many_classes()], None, True, True).index()
    assert len(html) < 1_000_000
    page = Page(html.decode())
    assert len(cards_of(page)) == 1000
    images = [attrs for tag, attrs in page.tags if tag == "img"]
    assert {attrs["loading"] for attrs in images} == {"lazy"}
    assert not [attrs for attrs in images if attrs["src"].startswith("data:")]


def test_patterns_are_read_one_class_at_a_time(tmp_path, monkeypatch):
    folder = write_sweep(tmp_path / "sweep")
    alive, load, most = WeakSet(), Pattern.load, []

    def counted(path):
        pattern = load(path)
        alive.add(pattern)
        most.append(len(alive))
        return pattern

    monkeypatch.setattr(Pattern, "load", counted)
    write_gallery(folder, tmp_path / "site")
    assert len(most) > 2 * len(NAMES) * 4
    assert max(most) <= 2 * 4  # two kinds of canvas at two areas, and those of the class before


SWEEP = {"format": "captum_classpattern sweep", "settings": {}, "classes": []}


def of_sweep(*rows, text=None):
    """Of a sweep with these models, or with this text in its file."""

    def write():
        Path("sweep.json").write_text(text or json.dumps({**SWEEP, "models": rows}))
        write_gallery(".", "../site")

    return write


def of_survey(out="site", damage=lambda: None, **options):
    """Of a survey, after some damage, to a folder."""

    def write():
        write_survey(Path("a"), NAMES[:1])
        damage()
        before = files_of(Path())
        try:
            write_gallery("a", out, **options)
        finally:
            assert files_of(Path()) == before

    return write


def number_the_class_by_a_path():
    for path in (Path("a/results.json"), Path("a/findings/0.json")):
        path.write_text(path.read_text().replace('"class": 0', '"class": "../../up"'))


def add_to_a_gallery():
    write_gallery("a", "site")
    Path("site/CNAME").write_text("x")


REFUSALS = {
    "a class number that is a path": of_survey(damage=number_the_class_by_a_path),
    "a missing pattern": of_survey(damage=Path("a/patterns/0_ant_white_0.01.safetensors").unlink),
    "into itself": of_survey("a"),
    "into the folder above": of_survey("."),
    "into another survey": of_survey("b", lambda: write_survey(Path("b"))),
    "into a gallery with a file of mine": of_survey(damage=add_to_a_gallery),
    "into what has no mark": of_survey(damage=lambda: Path("site/assets").mkdir(parents=True)),
    "into a file": of_survey("file", Path("file").touch),
    "canvases": of_survey(canvases="no"),
    "nothing": lambda: write_gallery(".", "../site"),
    "no JSON": of_sweep(text="{"),
    "a list": of_sweep(text="[]"),
    "another format": of_sweep(text='{"format": "other", "models": []}'),
    "a number of models": of_sweep(text=json.dumps({**SWEEP, "models": 3})),
    "no settings": of_sweep(text='{"format": "captum_classpattern sweep", "models": []}'),
    "no models": of_sweep(),
    "one folder, but for case": of_sweep(*({"name": n, "folder": n} for n in "aA")),
    "no folder": of_sweep({"name": "a"}),
    "a text as model": of_sweep("a"),
    **{
        f"folder {folder!r}": of_sweep({"name": "a", "folder": folder})
        for folder in ("../m0", "/m0", "m0/inner", "..", ".", "", ".hidden")
    },
}


@pytest.mark.parametrize("case", REFUSALS)
def test_refusals(case, snapshot, tmp_path, monkeypatch):
    (tmp_path / "in").mkdir()
    monkeypatch.chdir(tmp_path / "in")
    assert refusal(REFUSALS[case]).replace(str(tmp_path), "TMP") == snapshot
    assert [path.name for path in tmp_path.iterdir()] == ["in"]
