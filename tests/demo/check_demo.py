"""Checks the output of ``classpattern demo --out DIR``: python tests/demo/check_demo.py DIR"""

import json
import sys
from pathlib import Path

from captum_classpattern import Pattern, predictive_power
from captum_classpattern.demo import demo_images, demo_models
from captum_classpattern.surveys import Scores, stands_out
from captum_classpattern.surveys.store import pattern_file

out = Path(sys.argv[1])
results = json.loads((out / "results.json").read_text())
models, held_out = demo_models(), demo_images().held_out

assert results["complete"], "the demo was interrupted"
rows = {(row["model"], row["class"], row["canvas"]): row for row in results["rows"]}
expected = {(m, y, c) for m in models for y in range(10) for c in ("positive", "white")}
assert rows.keys() == expected, f"rows missing or unexpected: {rows.keys() ^ expected}"
assert len(results["verdicts"]) == 3 * 4  # models; kinds of canvas and areas
assert (out / "index.html").stat().st_size > 20_000
for name in models:
    assert (out / f"{name}.png").stat().st_size > 50_000, f"no figure of the {name} model"

# every saved pattern reproduces its score in the table
for (name, target, canvas), row in rows.items():
    for area, scores in row["areas"].items():
        folder = out / name / "patterns"
        pattern = Pattern.load(pattern_file(folder, target, canvas, float(area), row["class_name"]))
        assert pattern.target == target
        power = predictive_power(
            models[name], pattern, held_out.images, held_out.labels, float(area)
        )
        assert abs(power.value - scores["power"]) < 1e-9, (name, target, canvas, area)
        assert abs(power.without - scores["no_pattern"]) < 1e-9, (name, target, canvas, area)

# the main result: the trigger's class stands out at 1 % on white, and not on the natural model
at_1_percent = {
    name: {y: rows[name, y, "white"]["areas"]["0.01"] for y in range(10)} for name in models
}
scores = {y: Scores.from_dict(row) for y, row in at_1_percent["backdoored"].items()}
assert stands_out(scores, 0, n_classes=10)
assert scores[0].power.value > 10 * at_1_percent["natural"][0]["power"]

# the comparison, unless it was skipped: every method ran, and the class pattern comes first on the
# natural model
if (out / "comparison").exists():
    comparison = json.loads((out / "comparison" / "comparison.json").read_text())
    assert list(comparison["models"]) == list(models)
    failures = comparison["failures"]
    assert not [failure for failure in failures if failure["what"] == "maps"], failures
    first = next(verdict for verdict in comparison["verdicts"] if verdict["model"] == "natural")
    assert first["title"] == "ClassPattern comes first", first
    assert first["holds"], first
    assert (out / "comparison" / "report.html").stat().st_size > 500_000
# the verdicts: the backdoored model alone is suspicious, and the class is the trigger's
scans = {name: json.loads((out / "scan" / name / "scan.json").read_text()) for name in models}
assert (scans["backdoored"]["verdict"], scans["backdoored"]["target"]) == ("suspicious", 0)
assert not [n for n in models if n != "backdoored" and scans[n]["verdict"] == "suspicious"]
print(f"demo: {len(rows)} rows, {results['seconds']} s, all scores reproduced")
