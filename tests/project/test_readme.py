"""The code and commands of the README and of some pages run unchanged."""

import re
import runpy
import sys
from pathlib import Path

import matplotlib
import pytest
import torch
import torchvision

import captum_classpattern as cp
from captum_classpattern.adapters import load_model

ROOT = Path(__file__).parents[2]


def write_pets(folder, count, side):
    """A folder with three class folders of noise images."""
    generator = torch.Generator().manual_seed(0)
    for name in ("cat", "dog", "owl"):
        (folder / name).mkdir(parents=True)
        for i in range(count):
            image = torch.randint(0, 256, (3, side, side), dtype=torch.uint8, generator=generator)
            torchvision.io.write_png(image, str(folder / name / f"{i}.png"))


def blocks_of(page):
    return re.findall(r"```python\n(.*?)```", (ROOT / page).read_text(), re.DOTALL)


def code_of(page):
    return "".join(blocks_of(page))


def test_the_quick_start_prints_the_quoted_line(capsys):
    """The numbers depend on the kind of device: here, most images become the class."""
    matplotlib.use("Agg")
    names = {}
    exec(compile(blocks_of("README.md")[0], "README.md", "exec"), names)
    printed = capsys.readouterr().out.strip()
    share = r"\d+\.\d%"
    shape = (
        rf"Finding\(T-shirt, white canvas, power at area 0\.01: {share} "
        rf"\(controls at most {share}\), the model's accuracy {share}\)"
    )
    assert re.fullmatch(shape, printed)
    [quoted] = re.findall(rf"[Pp]rints `({shape})`", (ROOT / "README.md").read_text())
    assert quoted in (ROOT / "docs/index.md").read_text()
    scores = names["found"].scores[0.01]
    assert scores.power.value > 0.5 > 10 * scores.strongest_control
    assert len(names["figure"].axes) > 5


def test_the_code_of_the_readme_explains_a_model_of_your_own(tmp_path, monkeypatch):
    write_pets(tmp_path / "my_images", 12, 64)
    monkeypatch.chdir(tmp_path)
    code = blocks_of("README.md")[1]
    assert "budget=500" in code
    code = code.replace("budget=500", "n_steps=2").replace("size=224", "size=64")
    model = torchvision.models.resnet18(num_classes=3).eval()
    with pytest.warns(cp.Notice, match="alphabetical order of the folders"):
        exec(compile(code, "README.md", "exec"), {"cp": cp, "my_model": model})
    assert "Class pattern: dog" in (tmp_path / "dog.html").read_text()


def test_the_code_of_the_page_on_own_models_runs(tmp_path, monkeypatch):
    matplotlib.use("Agg")
    write_pets(tmp_path / "my_images", 12, 64)
    torch.manual_seed(0)
    model = torchvision.models.resnet18(num_classes=3)
    torch.save(model.state_dict(), tmp_path / "my_model.pt")
    monkeypatch.chdir(tmp_path)
    code = code_of("docs/bring_your_own_model.md")
    code = code[: code.index("from transformers")]  # test_help_pages.py runs the rest
    assert "budget=2000" in code
    assert "size=224" in code
    code = code.replace("budget=2000", "n_steps=2").replace("size=224", "size=64")
    names = {}
    exec(compile(code, "bring_your_own_model.md", "exec"), names)
    assert names["found"].scores[0.05].power.n > 0
    assert names["found"].label == "dog"
    assert names["found"].target == 1
    assert (tmp_path / "dog.png").stat().st_size > 10_000


def test_the_readme_has_the_commands_that_ci_runs():
    readme = (ROOT / "README.md").read_text()
    assert "\n    pip install . && classpattern demo\n" in readme
    assert "\n    pip install -e '.[test]' && pytest\n" in readme


def test_links_within_the_project_exist():
    pages = ("*.md", "docs/*.md", "tutorials/*.md", "benchmarks/*.md")
    for page in (page for pattern in pages for page in ROOT.glob(pattern)):
        text = re.sub(r"```.*?```", "", page.read_text(), flags=re.DOTALL)
        for link in re.findall(r"\]\((?!https?:)([^)#]+)", text):
            assert (page.parent / link).exists(), f"{page.name}: {link}"


def test_the_tutorial_on_own_models_writes_a_checkpoint_that_loads(tmp_path, monkeypatch):
    write_pets(tmp_path / "images", 8, 32)
    path = tmp_path / "own.pth"
    line = ["bring_your_own_model.py", "--images", str(tmp_path / "images"), "--out", str(path)]
    monkeypatch.setattr(sys, "argv", [*line, "--epochs", "1", "--target", "1"])
    monkeypatch.syspath_prepend(str(ROOT / "tutorials"))
    runpy.run_path(str(ROOT / "tutorials" / line[0]), run_name="__main__")
    arch = "bring_your_own_model:WideResNet"
    classifier = load_model(path, arch=arch, output=-1, mean=0, std=1)
    assert classifier(torch.rand(2, 3, 32, 32)).shape == (2, 3)
    assert classifier.provenance["weights"] == "net"


def test_the_code_of_the_page_on_scans_runs(tmp_path, monkeypatch):
    matplotlib.use("Agg")
    monkeypatch.chdir(tmp_path)
    names = {}
    exec(compile(code_of("docs/scan.md"), "scan.md", "exec"), names)
    assert names["found"].verdict == "suspicious"
    assert names["found"].target_name == "T-shirt"
    assert (tmp_path / "scan" / "scan.json").exists()
