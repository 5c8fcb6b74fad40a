"""``classpattern sweep``: manifests, checkpoints that fail, interruptions, the site."""

import csv
import json
import re

import pytest
from command_line import interrupt_searches, run
from matplotlib.figure import Figure

from captum_classpattern.surveys import Sweep

PLAIN = "--arch own_models:Net --mean 0 --std 1"
QUICK = "--data images --canvases 1 --n-steps 2 --area 0.3"


@pytest.fixture(autouse=True)
def _empty_figures(monkeypatch):
    """Drawing would take most of the time of these tests."""
    monkeypatch.setattr(Sweep, "plot", lambda *_, **__: (Figure((1, 1)), None))


def test_a_manifest_becomes_a_table_and_says_what_failed(tmp_path, place):
    net = "own_models:Net"
    (tmp_path / "models.csv").write_text(
        "path,name,arch,mean,std,trained by\n"
        f"{place}/broken.pt,broken,{net},0,1,Lee\n"
        f"{place}/named.pt,old,{net},0,1,Kim\n"
        f'{place}/noisy.pt,,,"0.5,0.5,0.5","0.5,0.5,0.5",\n'
    )
    out = tmp_path / "out"
    line = f"sweep {tmp_path}/models.csv {QUICK} --arch {net} --classes dog,2 --out {out}"
    result = run(line)
    assert result.exit_code == 0, result.output
    assert "3 models, 2 classes; 30 images to search with, 30 held out." in result.stdout
    printed = " ".join(result.stdout.split())
    assert "Failed: broken: " in printed
    assert "above controls" in printed
    assert re.search(r" old \d+\.\d % 2 of 2 too few images ((dog|owl), \+\d+ points )?", printed)
    assert result.stdout.endswith(f"; the site is {out}/site/index.html.\n")
    assert {path.name for path in (out / "site").iterdir()} == {
        *("index.html", "1_dog.html", "2_owl.html", "model_1_old.html", "model_2_noisy.html")
    }
    with (out / "table.csv").open() as file:
        rows = [*csv.DictReader(file)]
    assert len(rows) == 2 * 2 * 3 + 1
    found = [row for row in rows if row["model"] == "old"]
    assert {row["name"] for row in found} == {"dog", "owl"}
    [failed] = [row for row in rows if row["model"] == "broken"]
    assert "broken.pt" in failed["error"]
    models = json.loads((out / "sweep.json").read_text())["models"]
    assert [row["name"] for row in models] == ["broken", "old", "noisy"]
    assert models[2]["mean"] == [0.5, 0.5, 0.5]
    assert models[2]["arch"] == net  # the option of the command
    assert "trust_pickle" not in models[0]


def test_gpus_of_a_task_need_ray(tmp_path, place):
    line = f"sweep {place}/noisy.pt {PLAIN} {QUICK} --out {tmp_path}/out --ray-options"
    result = run(f"{line} '{{\"num_gpus\":1}}'")
    assert "num_gpus in --ray-options, are for Ray: also pass --ray" in result.stderr


def test_an_interrupted_sweep_is_resumed_by_the_same_command(tmp_path, monkeypatch, place):
    out = tmp_path / "out"
    line = f"sweep {place}/noisy.pt old={place}/named.pt {PLAIN} {QUICK} --classes 0 --out {out}"
    with monkeypatch.context() as patch:
        searched = interrupt_searches(patch, after=0)
        result = run(line)
        assert (result.exit_code, searched) == (130, [[0]])
    assert f"Interrupted: the same command resumes the sweep in {out}." in result.stderr
    assert run(line).exit_code == 0
    assert Sweep.load(out).models == ["noisy", "old"]
    searched = interrupt_searches(monkeypatch, after=None)
    assert run(line).exit_code == 0
    assert searched == []
