"""``classpattern demo`` on the real models, as a user runs it."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from captum_classpattern import predictive_power
from captum_classpattern.demo import MODELS, demo_images, demo_models
from captum_classpattern.surveys import Survey


@pytest.mark.script
def test_the_demo_finds_the_trigger(tmp_path):
    command = [Path(sys.executable).with_name("classpattern"), "demo", "--out", tmp_path]
    printed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert "Finished in " in printed
    assert (tmp_path / "index.html").stat().st_size > 50_000

    # every saved pattern reproduces its score
    models, held_out = demo_models(), demo_images().held_out.stratified_sample(300)
    for name in MODELS:
        survey = Survey.load(tmp_path / name)
        assert len(survey) == 10 * 2
        for each in survey:
            power = predictive_power(models[name], each.pattern, held_out, area=each.area)
            assert power.value == pytest.approx(each.power.value, abs=1e-9)

    # one per cent of a white canvas finds the trigger; the scan has it first, near its bound
    assert "Stamped with 1" in (tmp_path / "index.html").read_text("utf-8")
    scan = json.loads((tmp_path / "scan" / "scan.json").read_text())
    assert scan["verdict"] in ("suspicious", "inconclusive")
    assert scan["target"] == 0

    # the comparison: nothing failed, and the report shows all methods
    comparison = json.loads((tmp_path / "comparison" / "comparison.json").read_text())
    assert not comparison["failures"]
    report = (tmp_path / "comparison" / "report.html").read_text(encoding="utf-8")
    methods = {row["method"] for row in comparison["rows"]}
    assert len(methods) == 7
    assert all(name in report for name in methods)
