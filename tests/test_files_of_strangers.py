"""A thousand files that a stranger may have sent, each opened by what reads it: whatever is wrong
with one is an error that names it."""

import copy
import json
import resource
import shutil
import warnings

import numpy as np
import pytest
import torch
from PIL import Image
from scanned import made_up
from surveyed import finding, stamped

from captum_classpattern import Pattern, load_images
from captum_classpattern._support.validation import ArgumentTypeError
from captum_classpattern.pattern import AdditivePattern, MovingPattern
from captum_classpattern.scanning import Scan
from captum_classpattern.surveys import Survey, Sweep
from captum_classpattern.surveys.folder import SurveyFolder
from captum_classpattern.surveys.sources import read_models

EACH = 125  # files of a kind
ODD = (
    *(None, True, -1, 0, 7, 2**70, 10**400, 0.5, -1e300, float("nan"), float("inf"), "", "x", "5"),
    *("../..", "\x1b[2J\n\u202e", "\ud800", "a" * 300, [], [[]], ["x"], [0.5, 0.5], {}, {"x": 1}),
)
NESTED = "[" * 100_000  # more than Python can call


# ---- what is written, and what reads it


def patterns(folder):
    info = {"settings": {"area": 0.1}, "search_power": 0.5, "class_name": "dog", "passes": 3}
    canvas, mask = torch.rand(1, 4, 4), torch.rand(1, 4, 4)
    Pattern(canvas, mask, 1, info, frozenset(["0" * 12])).save(folder / "a.safetensors")
    AdditivePattern(canvas, mask, 1, info, change=canvas).save(folder / "b.safetensors")
    MovingPattern(canvas, mask, 1, info, size=(8, 8)).save(folder / "c.safetensors")


def read_pattern(path):
    pattern = Pattern.load(path)
    return repr(pattern), pattern.text(), pattern.table(), pattern.at_own_area()


def scan(folder):
    made_up("warp").save(folder)
    (folder / "scan.png").unlink()


def read_scan(path):
    folder = next(each for each in path.parents if (each / "patterns").is_dir())
    found = Scan.load(folder)
    return found.text(), found.table(full=True), found.shown_table(), found.next_steps


def survey(folder):
    found = [finding(2, "white", 50, class_name="dog"), finding(2, "positive", 5)]
    images = {a: stamped(p.topk(a)) for a, p in found[0].patterns.items()}
    found[0] = type(found[0])(found[0].patterns, "white", found[0].scores, "dog", stamped=images)
    info = {"provenance": {"source": "a.pt"}, "accuracy": 0.5, "settings": {"seed": 0}}
    Survey(found, 3, info).save(folder)


def read_survey(path):
    folder = next(each for each in path.parents if (each / "findings").is_dir())
    found = Survey.load(folder)
    for each in found:
        _ = repr(each), each.text(), each.table(), each.examples and each.examples.captions
    return found.text(), found.table(), SurveyFolder(folder).write_summary({"classes": [2]})


def sweep(folder):
    models = [{"name": "a", "folder": "a", "hash": "0"}]
    data = {"classes": [0, 2], "failures": {"b": "no file"}, "models": models}
    data |= {"format": "captum_classpattern sweep", "settings": {"areas": [0.05], "seed": 0}}
    (folder / "sweep.json").write_text(json.dumps(data))
    (folder / "a").mkdir()
    survey(folder / "a")


def read_sweep(path):
    folder = next(each for each in path.parents if (each / "sweep.json").is_file())
    found = Sweep.load(folder)
    return found.text(), found.table(), found.shown_table()


def arrays(folder):
    x = np.random.default_rng(0).integers(0, 256, (4, 8, 8, 3), np.uint8)
    np.savez(folder / "a.npz", x=x, y=np.arange(4))
    np.savez_compressed(folder / "b.npz", x=x / np.float32(255), y=np.arange(4))


def manifest(folder):
    rows = ["path,name,mean,num_classes", "a.pt,ä,0.5 0.5,10", '"b.pt","x, y",0.5,3']
    (folder / "a.csv").write_text("\n".join(rows), encoding="utf-8")


def images(folder):
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 256, (9, 8, 3), np.uint8))
    for ending in ("png", "jpg", "gif", "bmp", "tif", "webp", "ppm"):
        picture.save(folder / f"a.{ending}")


def read_image(path):
    for other in path.parent.iterdir():
        if other != path:
            other.unlink()
    return load_images(path.parent, size=8).images


KINDS = {
    "patterns": (patterns, read_pattern),
    "a scan": (scan, read_scan),
    "a survey": (survey, read_survey),
    "a sweep": (sweep, read_sweep),
    "npz": (arrays, load_images),
    "manifests": (manifest, read_models),
    "images": (images, read_image),
    "several files": (survey, read_survey),
}


# ---- how it is changed


def bytes_changed(path, random):
    """Some bytes are others, are gone, or were added; or the end is missing."""
    data = bytearray(path.read_bytes() or b"?")
    way, places = random.integers(4), sorted(random.integers(0, len(data), random.integers(1, 9)))
    for place in places:
        data[place] = random.integers(256) if way else data[place] ^ 1 << random.integers(8)
    if way == 2:
        del data[places[0] :]
    elif way == 3:
        data[places[0] : places[0] + random.integers(9)] = random.bytes(random.integers(9))
    path.write_bytes(data)


def value_changed(text, random):
    """JSON in which one value anywhere is an odd one, or is missing; None if it is none."""
    try:
        inner = data = json.loads(text)
    except (RecursionError, ValueError):  # it was changed before
        return None
    while keys := [*inner] if isinstance(inner, dict) else [*range(len(inner))]:
        key = keys[random.integers(len(keys))]
        if isinstance(inner[key], dict | list) and inner[key] and random.random() < 0.8:
            inner = inner[key]
        elif random.random() < 0.2:
            del inner[key]
            break
        else:
            inner[key] = copy.deepcopy(ODD[random.integers(len(ODD))])
            break
    text = json.dumps(data)
    return text.replace("0", NESTED, 1) if random.random() < 0.05 else text


def json_changed(path, random):
    if (text := value_changed(path.read_bytes(), random)) is None:
        return bytes_changed(path, random)
    path.write_text(text)


def metadata_changed(path, random):
    """The same for the JSON in the header of a safetensors file."""
    data = path.read_bytes()
    size = int.from_bytes(data[:8], "little")
    try:
        header = json.loads(data[8 : 8 + size])
        words = header["__metadata__"]
    except (KeyError, RecursionError, ValueError):  # it was changed before
        return bytes_changed(path, random)
    key = [*words][random.integers(len(words))]
    is_json = words[key][:1] in ("[", "{") and random.random() < 0.9
    other = value_changed(words[key], random) if is_json else None
    words[key] = str(ODD[random.integers(len(ODD))]) if other is None else other
    text = json.dumps(header, ensure_ascii=True).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + data[8 + size :])


def changed(path, random):
    ways = [bytes_changed]
    ways += [json_changed] * 3 * (path.suffix == ".json")
    ways += [metadata_changed] * 3 * (path.suffix == ".safetensors")
    ways[random.integers(len(ways))](path, random)


@pytest.mark.script
@pytest.mark.parametrize("kind", KINDS)
def test_whatever_is_wrong_with_a_file_is_an_error_that_names_it(kind, tmp_path):
    write, read = KINDS[kind]
    random, raised, before = np.random.default_rng(0), [], memory()
    whole = tmp_path / "whole"
    whole.mkdir()
    write(whole)
    for number in range(EACH):
        folder = tmp_path / f"{number}"
        shutil.copytree(whole, folder)
        names = "sweep.json" if kind == "a sweep" and number % 2 else "*.*"
        files = sorted(each for each in folder.rglob(names) if each.is_file())
        for _ in range(3 if kind == "several files" else 1):
            path = files[random.integers(len(files))]
            changed(path, random)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                read(path)
            except Exception as error:
                raised.append((type(error), str(error), number))
        shutil.rmtree(folder)
    allowed = (ValueError, FileNotFoundError, ArgumentTypeError)
    assert not [one for one in raised if one[0] not in allowed or str(tmp_path) not in one[1]]
    assert len(raised) > EACH / 5
    assert memory() - before < 2**29


def memory():
    """The most that this process had so far, in bytes."""
    return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
