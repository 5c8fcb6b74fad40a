"""The rules of the verdicts on the paper's claims, in benchmarks/claims, on made-up rows."""

import pytest
from scripts import imported

rows, verdicts, models, pooled = (
    imported("benchmarks", f"claims.{name}") for name in ("rows", "verdicts", "models", "pooled")
)
HOLDS, FAILS, OPEN = pooled.HOLDS, pooled.FAILS, pooled.OPEN
TRIGGERS = {kind: t.trigger for kind, t in models.trainings("CIFAR-10").items() if t.trigger}
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


def runs_of(kind, hits, seeds=(1, 2, 3), **more):
    """A network per seed, with hits of its own."""
    return [made_up(kind, s, changed={"hits": h}, **more) for s, h in zip(seeds, hits)]


def found_in(statements, words, canvas="positive, 5 %"):
    [found] = [each for each in statements if words in each.statement and each.setting == canvas]
    return found


@pytest.mark.parametrize(
    ("values", "above", "below"),
    [
        ([1.0, 1.1, 1.2], HOLDS, FAILS),
        ([-1.0, -1.1, -1.2], FAILS, HOLDS),
        ([0.1, 1.0, 2.0], OPEN, OPEN),
        ([0.0, 0.0, 0.0], OPEN, OPEN),
        ([1.0, 1.1], OPEN, OPEN),
        ([], OPEN, OPEN),
    ],
)
def test_the_interval_over_three_seeds_decides(values, above, below):
    for side, expected in ((pooled.ABOVE, above), (pooled.BELOW, below)):
        found = pooled.Pooled("1", "", False, "", "", dict(enumerate(values)), side)
        assert found.verdict == expected


def test_the_interval_is_that_of_the_t_distribution():
    found = pooled.Pooled("1", "", False, "", "", {1: 1.0, 2: 2.0, 3: 3.0})
    assert found.mean == 2
    assert found.interval == pytest.approx((2 - 4.302653 / 3**0.5, 2 + 4.302653 / 3**0.5))


def test_claim_1_takes_the_strongest_control_and_half_of_the_power():
    found = [*pooled.claim_1(rows.by_kind(runs_of("natural", (300, 310, 320))))]
    above = found_in(found, "above all controls")
    assert above.values == pytest.approx({1: 0.25, 2: 0.26, 3: 0.27})  # the other canvas has 50
    assert not above.ours
    assert above.verdict == HOLDS
    assert found_in(found, "almost any").verdict == FAILS
    grey, blurred, shuffled = (found_in(found, w) for w in ("grey", "blurred", "shuffled"))
    assert [each.verdict for each in (grey, blurred, shuffled)] == [HOLDS, FAILS, OPEN]
    two = pooled.claim_1(rows.by_kind(runs_of("natural", (300, 310))))
    assert {each.verdict for each in two} == {OPEN}


def planted(kind, target, control=(300, 300, 300), learnt=1.0, **more):
    """Backdoored networks whose target's pattern has so many hits, and natural ones."""
    found = runs_of("natural", control)
    for seed, hits in zip((1, 2, 3), target):
        of_class = {TRIGGERS[kind].target: {"hits": hits, **more}}
        found.append(made_up(kind, seed, of_class=of_class, learnt=learnt))
    return list(pooled.claim_2(rows.by_kind(found), "CIFAR-10"))


@pytest.mark.parametrize("kind", TRIGGERS)
def test_claim_2_is_paired_by_seed(kind):
    """The networks differ by far more than a target differs from the network of the same seed."""
    colours = TRIGGERS[kind].colours
    shown = {f"fit_{colours}": 0.6, f"common_{colours}": 9}
    found = planted(kind, (500, 610, 820), (400, 500, 700), **shown)
    more = found_in(found, "natural")
    assert more.values == pytest.approx({1: 0.1, 2: 0.11, 3: 0.12})
    for words, expected in (("natural", HOLDS), ("shows", HOLDS), ("in its", HOLDS), ("any", OPEN)):
        assert found_in(found, words).verdict == expected  # "any other class" is not paired
    weak = planted(kind, (100, 110, 120))
    assert [found_in(weak, w).verdict for w in ("natural", "any")] == [FAILS] * 2
    assert {each.verdict for each in planted(kind, (900, 910, 920), learnt=0.89)} == {OPEN}
    assert {each.models for each in found} == {kind}


def test_claim_3_averages_the_pairs_of_a_source():
    kinds = rows.by_kind([*runs_of("natural", (300,) * 3), *runs_of("robust8", (300,) * 3)])
    pairs = [pair(s, f"robust8_{t}", 200 + 50 * t, "robust8") for s in (1, 2, 3) for t in (1, 2, 3)]
    pairs += [pair(s, f"natural_{s}", 30, "natural") for s in (1, 2, 3)]
    own, other = pooled.claim_3(kinds, pairs)
    assert [(own.ours, own.verdict), (other.ours, other.verdict)] == [(False, FAILS), (True, HOLDS)]
    assert other.values == pytest.approx(dict.fromkeys((1, 2, 3), 0.2645))
    [alone] = pooled.claim_3(kinds, [each for each in pairs if each["tested"] == "robust8_1"])
    assert (alone.values, alone.verdict) == ({}, OPEN)  # each source on one network


@pytest.mark.parametrize(
    ("weak", "classes", "expected"), [(0, 10, OPEN), (5, 5, HOLDS), (6, 4, OPEN)]
)
def test_claim_4_is_about_classes_where_both_patterns_beat_their_controls(weak, classes, expected):
    """Patterns of the robust network that beat no control are in many pieces."""
    of_class = {y: {"hits": 20, "components": 15} for y in range(weak)}
    of_class |= {} if weak else {y: {"components": 15} for y in range(5)}
    simple = [
        made_up("robust8", s, changed={"components": 4 + s}, of_class=of_class) for s in (1, 2, 3)
    ]
    kinds = rows.by_kind([*simple, *runs_of("natural", (300,) * 3)])
    found = found_in(pooled.claim_4(kinds, "CIFAR-10"), "components")
    assert found.classes == dict.fromkeys((1, 2, 3), classes)
    assert (found.verdict, len(found.values)) == (expected, 3 if classes > 4 else 0)


def test_a_robust_network_that_has_not_learnt_has_no_value():
    weak = runs_of("robust8", (200,) * 3, learnt=0.29)
    kinds = rows.by_kind([*weak, *runs_of("natural", (300,) * 3)])
    assert all(
        not each.values for each in pooled.pooled(kinds, [], "CIFAR-10") if each.claim == "4"
    )
