"""What the commands of the tests are given."""

import os
import sys

import pytest
import torch
from own_models import NAMES, Net, write_images


@pytest.fixture(scope="session")
def place(tmp_path_factory):
    """Checkpoints, images, files of class names, and folders of results, good and bad."""
    folder = tmp_path_factory.mktemp("place")
    torch.manual_seed(0)
    net = Net()
    torch.save(net.state_dict(), folder / "m.pt")  # knows no names of its classes
    torch.save({"net": net.state_dict(), "classes": [*NAMES]}, folder / "named.pt")
    torch.save({"net": net.state_dict(), "classes": [*NAMES[::-1]]}, folder / "turned.pt")
    noisy = {key: value + 0.01 * torch.rand_like(value) for key, value in net.state_dict().items()}
    torch.save({"net": noisy, "classes": [*NAMES]}, folder / "noisy.pt")
    torch.save(net, folder / "whole.pt")
    (folder / "broken.pt").write_bytes(b"nothing")

    write_images(folder / "images")
    write_images(folder / "two", ["cat", "dog"], count=4)
    write_images(folder / "damaged", count=4)
    (folder / "damaged" / "dog" / "2.png").write_bytes(b"no image")
    for name in ("flat", "other"):
        (folder / name).mkdir()
    for path in folder.glob("images/*/*.png"):
        os.symlink(path, folder / "flat" / f"{path.parent.name}_{path.name}")

    (folder / "other" / "results.json").write_text('{"rows": []}')
    (folder / "names.txt").write_text("cat\ndog\nowl\n")
    (folder / "open.txt").write_text('["a"')
    return folder


@pytest.fixture(autouse=True)
def _here(request, monkeypatch):
    """In the folder of the files, where a command adds its working folder to ``sys.path``."""
    monkeypatch.chdir(request.getfixturevalue("place"))
    monkeypatch.setattr(sys, "path", [*sys.path])
