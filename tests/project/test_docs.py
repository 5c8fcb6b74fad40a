"""The examples of README and documentation run, each once, and its API reference is complete."""

import ast
import builtins
import importlib
import inspect
import re
import runpy
import sys
from pathlib import Path

import matplotlib
import pytest
import torch
import torchvision
from extend import DEFINITIONS
from own_models import Net, write_images
from scripts import ROOT

import captum_classpattern as cp
from captum_classpattern import demo
from captum_classpattern.adapters import load_model
from captum_classpattern.optimization import canvases

DOCS = ROOT / "docs"
FOLD = re.MULTILINE | re.DOTALL
PUBLIC = ["adapters", "comparison", "datasets", "optimization", "pages", "scanning", "scores"]
PUBLIC += ["surveys", "triggers", "visualization"]


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    matplotlib.use("Agg")


@pytest.fixture
def _few_images(monkeypatch):
    """A part of the embedded images is enough to see that a page runs."""
    halves = demo.demo_images()
    few = demo.DemoImages(
        *(half.stratified_sample(300) for half in (halves.search, halves.held_out))
    )
    monkeypatch.setattr(cp, "demo_images", lambda: few)


def text_of(page, heading=None):
    """A page, or one section of it; "" is what comes before the first heading."""
    text = page.read_text(encoding="utf-8")
    if heading is not None:
        before, *sections = re.split(r"^## ", text, flags=re.MULTILINE)
        [text] = [s for s in sections if s.startswith(f"{heading}\n")] if heading else [before]
    return text


def blocks_of(page, heading=None):
    return re.findall(r"```python\n(.*?)```", text_of(page, heading), re.DOTALL)


def run(code, names=None, **quicker):
    """Runs Python code with other values in some places; returns the code's variables."""
    for slow, quick in quicker.items():
        [there] = re.findall(rf"\b{slow}=[\"\w.]+", code)
        code = code.replace(there, quick)
    names = names or {}
    exec(compile(code, "an example", "exec"), names)
    matplotlib.pyplot.close("all")
    return names


def run_page(name, heading=None, **quicker):
    return run("".join(blocks_of(DOCS / name, heading)), **quicker)


def size_of(file):
    return Path(file).stat().st_size


# ---- pages with the embedded models


@pytest.mark.page
def test_the_quick_start_finds_the_backdoor_and_prints_the_quoted_line(capsys):
    """The numbers depend on the kind of device: here, most images are predicted as the class."""
    page = DOCS / "index.md"
    [code] = blocks_of(page)
    names = run(code)
    share = r"\d+\.\d %"
    powers = "".join(rf"{kind} canvas {share}, " for kind in ("positive", "white", "black"))
    shape = (
        rf"Finding\(T-shirt; 1 % of the pixels: {powers}controls at most {share}; "
        rf"the model's accuracy {share} on the held-out images\)"
    )
    assert re.fullmatch(shape, capsys.readouterr().out.strip())
    assert len(re.findall(rf"prints `{shape}`", text_of(page))) == 1
    scores = names["found"].scores[0.01]
    assert scores.power.value > 0.5 > 10 * scores.strongest_control
    assert scores.power.interval[0] > scores.power.without
    assert size_of("pattern.png") > 10_000


@pytest.mark.page
def test_the_page_on_scans_finds_the_backdoor():
    found = run_page("scan.md")["found"]
    assert found.target_name == "T-shirt"
    assert found.verdict in ("inconclusive", "suspicious")  # one search or two, by rounding
    assert size_of("scanned/scan.json")


@pytest.mark.page
def test_the_page_on_the_method_shows_a_pattern_above_its_controls():
    pattern, *controls = run_page("method.md", budget="n_steps=4")["powers"]
    assert all(pattern.interval[0] > 0.5 > control.interval[1] for control in controls)
    assert size_of("controls.png") > 10_000


def choose_canvases(names):
    assert sorted(names["found"]) == sorted(canvases.STRATEGIES)
    text = text_of(DOCS / "read_a_pattern.md", "Choose canvases")
    assert re.findall(r"^\| `(\w+)` \|", text, re.MULTILINE) == list(canvases.STRATEGIES)


def small_areas(names):
    """The page explains all keys of a pattern's info."""
    text = text_of(DOCS / "api" / "json.md", "What `info` holds")
    rows = re.findall(r"^\| (`.*?`) \|", text, re.MULTILINE)
    [pattern] = names["found"][0.05]
    assert sorted(re.findall(r"`(\w+)`", " ".join(rows))) == sorted(pattern.info)


def invariance(names):
    assert names["powers"][0].value > 0.5 > names["powers"][1].value


def compare(names):
    assert {"ClassPattern", "Smooth"} <= {record.method for record in names["comparison"].records}
    assert not names["comparison"].failures
    assert size_of("report.html") > 10_000
    metrics = run("".join(blocks_of(DOCS / "compare.md", AFTER)), names)
    assert metrics["masks"].shape == metrics["smooth"].shape == metrics["canvases"].shape
    assert metrics["unfaithful"].shape == metrics["moved"].shape == (2,)
    assert metrics["drawn"].axes[0].images


def extend(names):
    assert names["pattern"].info["settings"]["solver"] == "random swaps"
    assert names["classifier"].provenance["format"] == "training run"
    assert names["comparison"].table(full=True).query("area == 0.05")["distance"].notna().all()
    assert "distance from the centre (pixels)" in Path("report.html").read_text()
    assert not names["own"].failures
    assert {record.method for record in names["own"].records} == {"Unusual"}
    assert Path("mean.html").read_text().count("<img ") == 1
    assert names["axes"].shape == (1, 2)
    assert all(len(definition.strip().splitlines()) < 30 for definition in DEFINITIONS)


def sweep(names):
    powers = names["table"].set_index(["model", "name"])["power"]
    assert len(powers) == 3 * 2
    assert powers["backdoored", "T-shirt"] > 5 * powers["natural", "T-shirt"]
    assert [len(each) for each in names["both"].values()] == [2, 2, 2]
    assert names["figure"].axes[0].images
    pages = {path.name for path in names["index"].parent.iterdir()}
    of_models = {f"model_{n}_{name}.html" for n, name in enumerate(cp.demo_models())}
    assert pages == {"index.html", "0_T-shirt.html", "8_Bag.html", *of_models}


def stability(names):
    assert [pattern.info["seed"] for pattern in names["patterns"]] == [0, 1, 2]


def quantus(names):
    assert list(names["scores"]) == list(names["metrics"])
    assert all(len(values) == 2 for values in names["scores"].values())
    assert max(map(abs, names["scores"]["MPRT"])) < 0.3  # masks depend on what was learnt


FEWER = {  # what makes a page quicker
    choose_canvases: {"budget": "n_steps=1"},
    compare: {"n_steps": "n_steps=2"},
    sweep: {"n_steps": "n_steps=1"},
}
AFTER = "With Captum"  # the section that continues the first code of compare.md
NEEDS = {quantus: "quantus"}  # its OpenCV needs libGL
PAGES = {  # a page, and the section that a check runs
    choose_canvases: ("read_a_pattern.md", "Choose canvases"),
    compare: ("compare.md", ""),
    extend: ("extend.md", None),
    invariance: ("results/invariance.md", None),
    quantus: ("compare.md", "Quantus"),
    small_areas: ("read_a_pattern.md", "Choose the area"),
    stability: ("results/stability.md", None),
    sweep: ("many_models.md", ""),
}


@pytest.mark.page
@pytest.mark.parametrize("check", PAGES, ids=lambda check: check.__name__)
@pytest.mark.usefixtures("_few_images")
def test_pages_run(check):
    if check in NEEDS:
        pytest.importorskip(NEEDS[check], exc_type=ImportError)
    check(run_page(*PAGES[check], **FEWER.get(check, {})))


# ---- the examples for models of one's own


@pytest.mark.page
def test_the_readme_explains_a_model_of_your_own():
    write_images("my_images")
    code, _ = blocks_of(ROOT / "README.md")
    with pytest.warns(cp.Notice, match="alphabetical order of the folders"):
        run(
            code,
            {"my_model": Net()},
            std="std=std, n_steps=2",
            size="size=8",
            target='target="owl"',
        )
    assert "Class pattern: owl" in Path("ship.html").read_text()


@pytest.mark.page
@pytest.mark.usefixtures("_few_images")
def test_the_readme_uses_captums_tools():
    _, code = blocks_of(ROOT / "README.md")
    names = run(code)
    mask, smooth = names["mask"], names["smooth"]
    assert mask.shape == smooth.shape == (1, 1, 28, 28)
    assert mask.count_nonzero() == 39  # 5 % of the pixels
    assert smooth.count_nonzero() > 39


@pytest.mark.page
def test_the_page_on_own_models_runs():
    write_images("my_images")
    torch.manual_seed(0)
    torch.save(torchvision.models.resnet18(num_classes=3).state_dict(), "my_model.pt")
    code = blocks_of(DOCS / "bring_your_own_model.md")[0]
    found = run(code, budget="n_steps=2", size="size=32")["found"]
    assert found.scores[0.05].power.n > 0
    assert (found.target, found.label) == (1, "dog")
    assert size_of("dog.png") > 10_000


@pytest.mark.page
def test_the_tutorial_on_own_models_writes_a_checkpoint_that_loads(monkeypatch):
    write_images("images", count=8, sides=(32,))
    line = ["bring_your_own_model.py", "--images", "images", "--out", "own.pth"]
    monkeypatch.setattr(sys, "argv", [*line, "--epochs", "1", "--target", "1"])
    monkeypatch.syspath_prepend(str(ROOT / "tutorials"))
    runpy.run_path(str(ROOT / "tutorials" / line[0]), run_name="__main__")
    arch = "bring_your_own_model:WideResNet"
    classifier = load_model("own.pth", arch=arch, output=-1, mean=0, std=1)
    assert classifier(torch.rand(2, 3, 32, 32)).shape == (2, 3)
    assert classifier.provenance["weights"] == "net"


# ---- text


@pytest.mark.parametrize("code", blocks_of(ROOT / "README.md"))
def test_each_block_of_the_readme_runs_alone_next_to_the_readers_own_model(code):
    names = [node for node in ast.walk(ast.parse(code)) if isinstance(node, ast.Name)]
    made = {node.id for node in names if isinstance(node.ctx, ast.Store)}
    imported = [node.names for node in ast.parse(code).body if hasattr(node, "names")]
    made |= {alias.asname or alias.name for aliases in imported for alias in aliases}
    assert {node.id for node in names} - made - {*dir(builtins)} <= {"my_model"}


def test_the_readme_has_the_commands_that_ci_runs():
    readme = (ROOT / "README.md").read_text()
    assert "\n    pip install . && classpattern demo\n" in readme
    assert "\n    pip install -e '.[test]' && pytest\n" in readme


def test_links_within_the_project_exist():
    pages = ("*.md", "docs/*.md", "docs/results/*.md", "tutorials/*.md", "benchmarks/*.md")
    for page in (page for pattern in pages for page in ROOT.glob(pattern)):
        text = without_code(page)
        for link in re.findall(r"\]\((?!https?:)([^)#]+)", text):
            assert (page.parent / link).exists(), f"{page.name}: {link}"
        for link, anchor in re.findall(r"\]\((?!https?:)([^)#]*)#([^)]+)\)", text):
            linked = page.parent / link if link else page
            if linked.suffix == ".md":
                assert anchor in anchors_of(linked), f"{page.name}: {link}#{anchor}"


def without_code(page):
    return re.sub(r"```.*?```", "", page.read_text(), flags=re.DOTALL)


def anchors_of(page):
    """The headings of a page, as a code host and the site name them in links."""
    headings = re.findall(r"^#+ (.+)$", without_code(page), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", each.lower()).replace(" ", "-") for each in headings}


def test_pages_are_plain_markdown_with_folds_that_are_closed():
    """Without markup that a code host shows as text. A heading in a fold would start a section
    that the fold does not contain."""
    for page in (*DOCS.glob("*.md"), *DOCS.glob("api/*.md"), *DOCS.glob("results/*.md")):
        text = page.read_text()
        assert not re.search(r"^(:::|```\{)|\{[a-z:]+\}`", text, re.MULTILINE), page.name
        fold = r"^<details><summary>[^\n]+</summary>\n\n(.*?)\n\n</details>$"
        folds = re.findall(fold, text, FOLD)
        assert len(folds) == text.count("<details") == text.count("</details>"), page.name
        assert not any(re.search(r"^#", fold, re.MULTILINE) for fold in folds), page.name


# ---- the API reference


def documented():
    """(module, name, options) of every entry of the API reference."""
    for page in sorted((DOCS / "api").glob("*.rst")):
        module = ""
        entry = r"^\.\. (currentmodule|auto\w+):: ([\w.]+)((?:\n   :.*)*)"
        for kind, name, options in re.findall(entry, page.read_text(), re.MULTILINE):
            if kind == "currentmodule":
                module = name
            else:
                yield module, name, options


def test_the_reference_lists_all_public_names():
    entries = [getattr(importlib.import_module(module), name) for module, name, _ in documented()]
    for module in (cp, *(importlib.import_module(f"{cp.__name__}.{name}") for name in PUBLIC)):
        for name in getattr(module, "__all__", dir(module)):
            thing = getattr(module, name)
            if inspect.isclass(thing) or inspect.isfunction(thing):
                assert any(entry is thing for entry in entries), f"{module.__name__}.{name}"


def test_the_members_in_the_reference_exist():
    for module, name, options in documented():
        entry = getattr(importlib.import_module(module), name)
        for member in re.findall(r"\w+", "".join(re.findall(r":members: (.*)", options))):
            known = hasattr(entry, member) or member in getattr(entry, "__annotations__", ())
            assert known, f"{name}.{member}"
