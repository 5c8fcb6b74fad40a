"""The pages for a first try with one's own model: examples that run, errors that exist."""

import re
import sys
import warnings
from collections import OrderedDict
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from PIL import Image
from torch import nn

import captum_classpattern as cp

DOCS = Path(__file__).parents[2] / "docs"
NAMES = ["zebra", "dog", "owl"]


class Net(nn.Module):
    """Three classes of images of any size, by their mean colours."""

    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(3, 3)
        with torch.no_grad():
            self.fc.weight.copy_(10 * torch.eye(3))
            self.fc.bias.zero_()

    def forward(self, images):
        return self.fc(images.mean((2, 3)))


class HuggingFaceNet(Net):
    """With the interface of AutoModelForImageClassification."""

    config = SimpleNamespace(id2label=dict(enumerate(NAMES)), num_labels=3)

    @classmethod
    def from_pretrained(cls, name):
        return cls()

    def forward(self, pixel_values):
        return OrderedDict(logits=super().forward(pixel_values))


class Clip(Net):
    """With the interface of CLIPModel."""

    from_pretrained = classmethod(lambda cls, name: cls())

    def forward(self, input_ids, pixel_values, attention_mask):
        assert input_ids.shape == attention_mask.shape == (3, 4)
        return SimpleNamespace(logits_per_image=super().forward(pixel_values))


class Processor:
    """With the interface of AutoImageProcessor and CLIPProcessor."""

    image_mean, image_std = [0.5, 0.4, 0.3], [0.2, 0.2, 0.2]
    from_pretrained = classmethod(lambda cls, name: cls())

    @property
    def image_processor(self):
        return self

    def __call__(self, text, return_tensors, padding):
        assert text == ["a photo of a cat", "a photo of a dog", "a photo of a owl"]
        return {"input_ids": torch.ones(3, 4), "attention_mask": torch.ones(3, 4)}


@pytest.fixture
def transformers(monkeypatch):
    package = SimpleNamespace(
        AutoImageProcessor=Processor,
        AutoModelForImageClassification=HuggingFaceNet,
        CLIPModel=Clip,
        CLIPProcessor=Processor,
    )
    monkeypatch.setitem(sys.modules, "transformers", package)


def blocks(page):
    return re.findall(r"```python\n(.*?)```", (DOCS / page).read_text(), re.DOTALL)


def save_images(folder, names, sides=(8,)):
    generator = torch.Generator().manual_seed(0)
    for number, name in enumerate(names):
        (folder / name).mkdir(parents=True)
        for i in range(24):
            pixels = 0.6 * torch.rand(3, 8, 8, generator=generator)
            pixels[number] += 0.4
            side = sides[i % len(sides)]
            image = Image.fromarray((255 * pixels).byte().permute(1, 2, 0).numpy())
            image.resize((side, side)).save(folder / name / f"{i}.png")


@pytest.mark.parametrize(
    ("needs", "names"), [("AutoModel", NAMES), ("CLIPModel", ["cat", "dog", "owl"])]
)
def test_the_examples_with_transformers_run(needs, names, transformers, tmp_path, monkeypatch):
    """With stand-ins, and with fewer pixels and passes."""
    [code] = [block for block in blocks("bring_your_own_model.md") if needs in block]
    save_images(tmp_path / "my_images", names)
    monkeypatch.chdir(tmp_path)
    code = code.replace("size=224", "size=8").replace("budget=2000", "n_steps=2, area=0.2")
    values = {}
    exec(compile(code, "bring_your_own_model.md", "exec"), values)
    found = values["found"]
    assert found.label == ("zebra" if needs == "AutoModel" else "dog")
    assert found.accuracy == 1
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in ([0.5, 0.4, 0.3], [0.2] * 3))
    pixels = torch.rand(2, 3, 8, 8)
    torch.testing.assert_close(values["model"](pixels), Net()((pixels - mean) / std), check_dtype=0)


def fails(call):
    with pytest.raises((ValueError, TypeError)) as caught:
        call()
    return str(caught.value)


def wrong_shape(folder):
    network = nn.Sequential(nn.Flatten(), nn.Linear(192, 3)).eval()
    return fails(lambda: cp.explain_class(network, torch.rand(30, 3, 9, 9), [0, 1, 2] * 10, 1))


def guessing(folder):
    images, labels = torch.rand(90, 3, 8, 8), torch.arange(90) % 3
    labels = (Net()(images).argmax(1) + 1) % 3
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        cp.ClassPattern(Net().eval(), images, labels).search(images[:1], 1, n_steps=1, area=0.1)
    return " ".join(str(warning.message) for warning in caught)


def no_gradient(folder):
    forward = torch.no_grad()(Net().eval())
    labels = [0, 1, 2] * 20
    return fails(lambda: cp.explain_class(forward, torch.rand(60, 3, 8, 8), labels, 1))


def pickled(folder):
    torch.save(Net(), folder / "whole.pt")
    return fails(lambda: cp.load_model(folder / "whole.pt"))


def missing_keys(folder):
    torch.save({"head.weight": torch.ones(3, 3)}, folder / "other.pt")
    return fails(lambda: cp.load_model(folder / "other.pt", arch=f"{__name__}:Net"))


def other_names(folder):
    save_images(folder / "names", ["crow", "dog", "owl"])
    images = cp.load_images(folder / "names", cache=False)
    return fails(lambda: cp.explain_class(Net().eval(), images, target=1, class_names=NAMES))


def several_sizes(folder):
    save_images(folder / "sizes", NAMES, sides=(8, 9))
    return fails(lambda: cp.load_images(folder / "sizes", cache=False).images)


def few_images(folder):
    images, labels = torch.rand(8, 3, 8, 8), [0, 1] * 4
    return fails(lambda: cp.explain_class(Net().eval(), images, labels, 1))


RAISED = [
    wrong_shape, guessing, no_gradient, pickled, missing_keys, other_names, several_sizes,
    few_images,
]  # fmt: skip


def test_the_errors_that_the_page_lists_are_raised_in_these_words(tmp_path):
    titles = re.findall("^## (.*)", (DOCS / "troubleshooting.md").read_text(), re.MULTILINE)
    assert len(titles) <= 12
    quoted = [text for title in titles for text in re.findall('"(.*?)"', title)]
    assert len(quoted) == len(RAISED)
    for text, make in zip(quoted, RAISED):
        pattern = ".*".join(re.escape(part) for part in text.split("..."))
        assert re.search(pattern, make(tmp_path)), text


def test_each_answer_is_short():
    _, *answers = re.split("^## .*", (DOCS / "troubleshooting.md").read_text(), flags=re.MULTILINE)
    for answer in answers:
        assert len(answer.split()) <= 75
