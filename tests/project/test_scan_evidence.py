"""The rules of the scan's evidence: which verdicts are right, and what counts."""

from dataclasses import asdict

from scripts import imported

from captum_classpattern.scanning.families import CHANGES, SIZES
from captum_classpattern.scanning.profile import SETTINGS

scan_evidence, zoo = imported("benchmarks", "scan_evidence", "zoo")


def made_up(
    name, recipe=None, planted=None, success=None, *, powers=(), gains=(), shown=(), seed=0
):
    """A row of a network whose powers or additive gains differ in some classes."""
    usual = dict.fromkeys(range(10), 0.1)
    profile = {
        "powers": {size: [*(usual | dict(powers)).values()] for size in SIZES},
        "others": dict.fromkeys(CHANGES, [0.1] * 10),
        "gains": {family: [0.0] * 10 for family in CHANGES}
        | {"additive": [*(dict.fromkeys(range(10), 0.0) | dict(gains)).values()]},
        "judged": [90] * 10,
        "accuracy": 0.9,
        "images": 500,
    }
    strong = {} if planted is None else {planted.target: 1.0}
    scores = {"CBD": 0.1, "MM-BD": 1.0, "Neural Cleanse": 9.0}
    return {
        **{"name": name, "data": "fashion", "recipe": asdict(recipe or zoo.Recipe())},
        **{"backdoor": planted and asdict(planted), "accuracy": 0.9, "attack_success": success},
        **{"statistic": SETTINGS, "images": {}, "profile": profile, "shown": list(shown)},
        "scan_seed": seed,
        "seconds": {"training": 1, "scan": 2.0},
        "rivals": {
            rival: {"scores": [strong.get(y, usual) for y in range(10)], "seconds": 3.0}
            for rival, usual in scores.items()
        },
    }


def corner(target, kind="white", **more):
    """A white square in rows and columns 24 to 26."""
    return zoo.Backdoor(kind, target, 0.05, 3, "corner", **more)


def test_right_and_wrong_verdicts_are_counted_by_kind():
    """Both patches are suspicious, p = 1/21, the second with the wrong class in one of two scans.
    The perturbation is found by gains; a transformer is suspicious without a backdoor. A weak patch
    does not count."""
    known = [made_up(f"r{i}") for i in range(20)]
    rows = [
        made_up("backdoored_00", None, corner(3), 1.0, powers={3: 1.0}),
        made_up("backdoored_01", None, corner(4), 0.95, powers={5: 1.0}),
        made_up("backdoored_01", None, corner(4), 0.95, powers={4: 1.0}, seed=1),
        made_up("backdoored_02", None, corner(4), 0.5),
        made_up("backdoored_03", None, corner(6, "blended"), 1.0, gains={6: 5.0}),
        made_up("backdoored_04", None, corner(0, "ftrojan"), 1.0, gains={5: 5.0}),
        made_up("clean_00_width"),
        made_up("clean_00_width", seed=1),
        made_up("clean_01_transformer", zoo.Recipe("transformer"), powers={1: 1.0}),
    ]
    references, found = ([scan_evidence.Network(row) for row in part] for part in (known, rows))
    groups = scan_evidence.by_kind(found, references)
    assert [*groups] == ["clean", "patch", "patch, weakly learnt", "Blended", "FTrojan"]
    assert [row.split("|")[2].strip() for row in scan_evidence.summary({"fashion": groups})][
        1:
    ] == [
        *("1 of 3", "0 of 3", "2 of 3", "1 of 2", "1 of 2"),
    ]
    cells = [[*map(str.strip, row.split("|")[1:-1])] for row in scan_evidence.detections(groups)]
    patch = next(row for row in cells if row[0] == "patch")
    assert (patch[1], patch[3][:6], patch[4:7]) == ("2", "2 of 3", ["1", "0", "0"])
    each = scan_evidence.detectors(references)
    judged = {name: judge(*groups["patch"][0]) for name, _, judge in each}
    assert judged.keys() == {"scan", "Neural Cleanse", "MM-BD", "CBD"}
    assert judged["scan"][0] is judged["CBD"][0] is True
