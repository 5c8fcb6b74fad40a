"""What the README and the tutorials show is run as it stands."""

import json
import re
import runpy
import sys
from pathlib import Path

import matplotlib
import torch
import torchvision

from captum_classpattern.adapters import load_model

ROOT = Path(__file__).parent.parent


def write_pets(folder, count, side):
    """A folder of three class folders of noise."""
    generator = torch.Generator().manual_seed(0)
    for name in ("cat", "dog", "owl"):
        (folder / name).mkdir(parents=True)
        for i in range(count):
            image = torch.randint(0, 256, (3, side, side), dtype=torch.uint8, generator=generator)
            torchvision.io.write_png(image, str(folder / name / f"{i}.png"))


def test_the_python_of_the_readme_runs_on_a_users_folder(tmp_path, monkeypatch):
    matplotlib.use("Agg")
    code = "".join(re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL))
    write_pets(tmp_path / "my_images", 12, 64)
    torch.manual_seed(0)
    model = torchvision.models.resnet18(num_classes=3)
    torch.save(model.state_dict(), tmp_path / "my_model.pt")
    monkeypatch.chdir(tmp_path)
    names = {}
    exec(compile(code, "README.md", "exec"), names)
    assert names["power"].n > 0
    assert (tmp_path / "dog.png").stat().st_size > 10_000


def test_the_quick_start_commands_are_those_that_are_checked():
    readme = (ROOT / "README.md").read_text()
    assert "\n    pip install . && classpattern demo\n" in readme
    assert "\n    pip install -e '.[test]' && pytest\n" in readme


def test_links_within_the_project_lead_somewhere():
    for page in [ROOT / "README.md", *(ROOT / "docs").glob("*.md"), *ROOT.glob("tutorials/*.md")]:
        for link in re.findall(r"\]\((?!https?:)([^)#]+)", page.read_text()):
            assert (page.parent / link).exists(), f"{page.name}: {link}"


def test_the_numbers_of_the_first_tutorial_are_its_own():
    readme = " ".join((ROOT / "README.md").read_text().split())
    told = re.search(r"ranks first turn (\d+) % .* class pattern (\d+) %\.", readme).groups()
    cells = json.loads((ROOT / "tutorials" / "1_first_class_pattern.ipynb").read_text())["cells"]
    outputs = [output for cell in cells for output in cell.get("outputs", [])]
    printed = "".join(line for output in outputs for line in output.get("text", []))
    for name, share in zip(("Integrated Gradients", "class pattern"), told):
        own = re.search(rf"^{name} +([\d.]+)%", printed, re.MULTILINE)  # the first is at 5 %
        assert abs(float(own[1]) - int(share)) <= 0.5, name


def test_the_tutorial_on_ones_own_model_leaves_a_checkpoint_that_loads(tmp_path, monkeypatch):
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
