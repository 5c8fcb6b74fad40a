"""What the statements about the paper's claims are made of, and their tables, of made-up rows."""

import json

import pytest
from scripts import imported

rows, verdicts, models, pooled, statements, tables = (
    imported("benchmarks", f"claims.{name}")
    for name in ("rows", "verdicts", "models", "pooled", "statements", "tables")
)
N = 1_000  # held-out images of other classes
MASK = f"{(1 << 51) - 1:x}"  # of 51 pixels
USUAL = {
    **{"hits": 300, "n": N, "no_pattern": 10, "random_pixels": 30, "other_canvas": 50},
    **{"grey": 250, "blurred": 100, "shuffled": 155},
    **{"canvas": 0, "mask": MASK, "search_power": 0.3, "components": 10},
    **{"total_variation": 0.2, "high_frequency_share": 0.5},
    **{f"fit_{name}": 0.1 for name in models.triggers_of("CIFAR-10")},
    **{f"most_{name}": 0.8 for name in models.triggers_of("CIFAR-10")},
    **{f"common_{name}": 1 for name in models.triggers_of("CIFAR-10")},
}
AS_THEY_ARE = {name for name in USUAL if name in ("n", "mask") or name.startswith("most")}


def spread(value, y):
    """Classes differ a little, so that an interval has a width."""
    return value + y % 3 if isinstance(value, int) else value + 0.001 * (y % 3)


def made_up(kind, seed=0, changed=(), of_class=(), learnt=1.0):
    """A row whose patterns have other values: everywhere, and of one class, {y: values}."""
    values, special = USUAL | dict(changed), dict(of_class)
    settings = [(c, a) for c in ("positive", "white", "black") for a in ("0.05", "0.01")]
    patterns = {"positive": {}, "white": {}, "black": {}}
    for canvas, area in settings:
        names = (
            values if (canvas, area) == ("positive", "0.05") else values.keys() - verdicts.CHANGES
        )
        patterns[canvas][area] = {
            name: [
                special.get(y, {}).get(
                    name, values[name] if name in AS_THEY_ARE else spread(values[name], y)
                )
                for y in range(10)
            ]
            for name in values
            if name in names
        }
    return {
        **{"model": f"{kind}_{seed}", "kind": kind, "seed": seed, "data": "CIFAR-10"},
        "learnt": learnt if verdicts.bound_of(kind) else None,
        **{"accuracy": 0.9, "passes": 70_000, "classes": [*range(10)]},
        "patterns": patterns,
    }


@pytest.mark.parametrize(
    ("kind", "enough", "too_little"),
    [
        ("backdoored_checker", 0.9, 0.899),
        ("robust8", 0.3, 0.299),
        ("random_labels", 0.95, 0.949),
        ("shipped true_labels", 0.95, 0.949),
        ("demo robust", 0.3, 0.299),
    ],
)
def test_a_network_has_learnt_what_its_kind_promises_or_not(kind, enough, too_little):
    usual = rows.Measured(made_up("natural"))
    assert verdicts.has_learnt(usual)
    for value, expected in ((enough, True), (too_little, False)):
        model = rows.Measured(made_up(kind, learnt=value))
        assert verdicts.has_learnt(model) == verdicts.has_learnt(usual, model) == expected


def pair(source, tested, hits, kind="robust4", classes=10):
    return {
        **{"model": f"natural_{source}", "tested": tested, "kind": kind, "data": "CIFAR-10"},
        **{"seed": int(tested[-1]), "classes": [*range(classes)]},
        **{"n": [N] * classes, "no_pattern": [10] * classes},
        **{"hits": [hits + y for y in range(classes)], "one_random_mask": [40] * classes},
    }


def test_most_that_is_left_is_more_than_half_of_what_is_above_no_pattern():
    """Without the 10 images of no pattern 290 are left of the power, half of which is 145."""
    model = rows.Measured(made_up("natural"))
    left = [verdicts.most_left(model, "positive", change)[0] for change in verdicts.CHANGES]
    assert left == pytest.approx([0.095, -0.055, 0.0])  # grey, blurred, shuffled


# ---- the tables


def a_statement(*values, claim="1", words="above all controls", ours=False, **more):
    of_seed = dict(enumerate(values, 1))
    return pooled.Pooled(claim, words, ours, "natural", "white, 5 %", of_seed, **more)


@pytest.mark.parametrize(
    ("each", "expected"),
    [
        (a_statement(0.28, 0.29, 0.3), "holds: +29.0 (+26.5 to +31.5)"),
        (a_statement(-0.1, 0.0, 0.1), "not shown: +0.0 (-24.8 to +24.8)"),
        (a_statement(-0.5, -0.5, -0.5), "does not hold: -50.0 (-50.0 to -50.0)"),
        (a_statement(0.5), "not shown (one seed)"),
        (a_statement(0.5, 0.6), "not shown (2 seeds)"),
        (a_statement(), "not shown (no seeds)"),
        (
            a_statement(-5.0, -5.0, -5.0, claim="4", words="simpler, components", side=-1),
            "holds: -5.0 (-5.0 to -5.0)",
        ),
        (None, ""),
    ],
)
def test_a_verdict_is_written_with_its_estimate_and_interval(each, expected):
    assert statements.said(each) == expected


def test_networks_below_the_bound_are_shown_apart(tmp_path):
    kinds = [("natural", 1.0), ("backdoored_white", 0.89), ("backdoored_second", 0.97)]
    made = [made_up(kind, seed, learnt=value) for kind, value in kinds for seed in (1, 2, 3)]
    (tmp_path / rows.FILE).write_text("".join(json.dumps(row) + "\n" for row in made))
    found = dict(statements.tables(tmp_path))
    white = "| CIFAR-10 | backdoored_white | white, 1 % | "
    [by_rule] = [line for line in found["claim 2"] if line.startswith(white)]
    assert by_rule.count("not shown (no seeds)") == 4
    _, *shown = found["claim 2: networks below the bound (exploratory)"]
    assert all("backdoored_white" in line and "(no seeds)" not in line for line in shown)
    assert len(shown) == 6
