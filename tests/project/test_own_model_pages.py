"""The pages for one's own model: examples with transformers that run, errors that exist."""

import re
import sys
from types import SimpleNamespace

import pytest
import torch
from own_models import NAMES, Net, write_images
from refusals import refusal, warnings_of
from scripts import ROOT
from torch import nn

import captum_classpattern as cp

DOCS = ROOT / "docs"
ZEBRAS = ["zebra", "dog", "owl"]


class Clip(Net):
    """With the interface of CLIPModel."""

    from_pretrained = classmethod(lambda cls, name: cls())

    def forward(self, input_ids, pixel_values, attention_mask):
        assert input_ids.shape == attention_mask.shape == (3, 4)
        return SimpleNamespace(logits_per_image=super().forward(pixel_values))


class Processor:
    """With the interface of CLIPProcessor."""

    image_mean, image_std = [0.5, 0.4, 0.3], [0.2, 0.2, 0.2]
    from_pretrained = classmethod(lambda cls, name: cls())
    image_processor = property(lambda self: self)

    def __call__(self, text, return_tensors, padding):
        assert text == ["a photo of a cat", "a photo of a dog", "a photo of a owl"]
        return {"input_ids": torch.ones(3, 4), "attention_mask": torch.ones(3, 4)}


def run_example(needs, names, tmp_path, monkeypatch):
    """What an example of the page leaves, with fewer pixels and passes."""
    monkeypatch.chdir(tmp_path)
    write_images(tmp_path / "my_images", names, brighter=0.4)
    page = (DOCS / "bring_your_own_model.md").read_text()
    [code] = [code for code in re.findall(r"```python\n(.*?)```", page, re.DOTALL) if needs in code]
    code = code.replace("size=224", "size=8").replace("budget=500", "n_steps=2, area=0.2")
    values = {}
    exec(compile(code, "bring_your_own_model.md", "exec"), values)
    return values


@pytest.mark.filterwarnings("ignore:FigureCanvasAgg is non-interactive")
def test_the_example_of_hugging_face_runs(tmp_path, monkeypatch):
    transformers = pytest.importorskip("transformers")
    names = {"id2label": dict(enumerate(ZEBRAS)), "label2id": {z: i for i, z in enumerate(ZEBRAS)}}
    sizes = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1}
    config = transformers.ViTConfig(**sizes, image_size=8, patch_size=4, **names)
    transformers.ViTForImageClassification(config).save_pretrained(tmp_path / "net")
    transformers.ViTImageProcessor(size=8).save_pretrained(tmp_path / "net")
    monkeypatch.setattr("huggingface_hub.snapshot_download", lambda *_, **__: tmp_path / "net")
    found = run_example("huggingface:", ZEBRAS, tmp_path, monkeypatch)["found"]
    assert (found.label, found.target) == ("zebra", 0)


def test_the_example_of_clip_runs(tmp_path, monkeypatch):
    """With stand-ins."""
    stand_ins = SimpleNamespace(CLIPModel=Clip, CLIPProcessor=Processor)
    monkeypatch.setitem(sys.modules, "transformers", stand_ins)
    values = run_example("CLIPModel", NAMES, tmp_path, monkeypatch)
    assert values["found"].label == NAMES[1]
    assert values["found"].accuracy == 1
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in ([0.5, 0.4, 0.3], [0.2] * 3))
    pixels = torch.rand(2, 3, 8, 8)
    torch.testing.assert_close(values["model"](pixels), Net()((pixels - mean) / std), check_dtype=0)


NET = Net().eval()
IMAGES, LABELS = torch.rand(90, 3, 8, 8, generator=torch.Generator().manual_seed(0)), [0, 1, 2] * 30
GUESSED = (NET(IMAGES).argmax(1) + 1) % 3


def saved(content, path):
    torch.save(content, path)
    return path


def opened(*, sides=(8,), names=NAMES):
    return cp.load_images(write_images("images", names, sides=sides))


RAISED = [  # in the order of the page
    lambda: cp.explain_class(
        nn.Sequential(nn.Flatten(), nn.Linear(9, 3)).eval(), IMAGES, LABELS, 1
    ),
    lambda: cp.ClassPattern(NET, IMAGES, GUESSED).search(IMAGES[:1], 1, n_steps=1, area=0.1),
    lambda: cp.explain_class(torch.no_grad()(NET), IMAGES, LABELS, 1),
    lambda: cp.load_model(saved(Net(), "whole.pt")),
    lambda: cp.load_model(saved({"head.weight": torch.ones(3, 3)}, "o.pt"), arch="own_models:Net"),
    lambda: cp.explain_class(NET, opened(names=["fox", "dog", "owl"]), target=1, class_names=NAMES),
    lambda: opened(sides=(8, 9)).images,
    lambda: cp.explain_class(NET, IMAGES[:8], LABELS[:8], 1),
]


def test_the_errors_that_the_page_lists_are_raised_in_these_words(tmp_path, monkeypatch):
    page = (DOCS / "bring_your_own_model.md").read_text()
    [section] = re.findall(r"^## If something goes wrong\n(.*?)(?=^## |\Z)", page, re.M | re.S)
    quoted = re.findall(r'^\| "(.*?)" \|', section, re.MULTILINE)
    assert len(quoted) == len(RAISED)
    for number, (text, call) in enumerate(zip(quoted, RAISED)):
        (tmp_path / str(number)).mkdir()
        monkeypatch.chdir(tmp_path / str(number))
        said = " ".join(warnings_of(call)) if "guessing" in text else refusal(call)
        pattern = ".*".join(re.escape(part) for part in text.split("..."))
        assert re.search(pattern, said, re.DOTALL), text
