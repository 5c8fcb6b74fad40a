"""The verdicts on the paper's claims, of made-up rows."""

import pytest
from scripts import imported

rows, verdicts, models = (
    imported("benchmarks", f"claims.{name}") for name in ("rows", "verdicts", "models")
)
CONTROL = verdicts.CONTROL
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


def kinds_of(*kinds, seeds=3, **more):
    """Models of the same kinds with some seeds; of one kind with values of each seed."""
    return rows.by_kind(made_up(kind, s, **more) for kind in kinds for s in range(seeds))


def said(found, *words, canvas="positive, 5 %"):
    """The verdicts on a statement."""
    found = [each for each in found if each.setting == canvas and words[0] in each.statement]
    return [each.verdict for each in found if all(word in each.models for word in words[1:])]


HOLDS, FAILS, OPEN = verdicts.HOLDS, verdicts.FAILS, verdicts.OPEN


def test_a_statement_needs_three_runs_that_agree():
    yes, no, neither = (
        verdicts.Run(*pair) for pair in ((True, False), (False, True), (False, False))
    )
    for runs, expected in (
        ([yes] * 3, HOLDS),
        ([no] * 4, FAILS),
        ([yes] * 2, OPEN),
        ([yes, yes, neither], OPEN),
        ([yes, yes, no], OPEN),
        ([no, no, neither], OPEN),
        ([], OPEN),
    ):
        assert verdicts.Verdict("1", "", "", "", runs).verdict == expected
    both = [verdicts.Verdict("1", "", "", "", [run] * 3) for run in (yes, no)]
    assert [verdicts.together(part) for part in (both[:1], both[1:], both)] == [HOLDS, FAILS, OPEN]


@pytest.mark.parametrize(
    ("strong", "expected"), [(10, HOLDS), (9, OPEN), (6, OPEN), (5, FAILS), (0, FAILS)]
)
def test_claim_1_needs_all_classes(strong, expected):
    found = verdicts.claim_1(
        kinds_of("natural", of_class={y: {"hits": 900} for y in range(strong)})
    )
    assert said([*found], "almost any image") == [expected]


def test_claim_1_needs_more_power_than_each_control():
    for control in ("no_pattern", "random_pixels", "other_canvas"):
        for classes, expected in ((0, HOLDS), (1, OPEN), (5, FAILS)):
            weak = {y: {control: 290} for y in range(classes)}
            found = verdicts.claim_1(kinds_of("natural", of_class=weak))
            assert said([*found], "above all controls") == [expected]


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


def test_claim_1_says_what_a_change_leaves():
    """Without the 10 images of no pattern 290 are left of the power, half of which is 145. Shuffled
    there are 155 less 10: exactly that in most classes, so that nothing is shown."""
    found = list(verdicts.claim_1(kinds_of("natural", changed={"shuffled": 155})))
    for words, expected in (("grey", HOLDS), ("blurred", FAILS), ("shuffled", OPEN)):
        assert said(found, f"{words}: keeps most") == [expected]
        assert not said(found, f"{words}: keeps most", canvas="white, 5 %")
    assert not said(found, "loses power")


WHITE = models.PATCHES["white"]


def backdoored(seeds=3, target_hits=900, control_hits=300, learnt=1.0, control=(), **more):
    """Networks with the white trigger, and three controls; the last one has other values."""
    target = {WHITE.target: {"hits": target_hits, **more}}
    planted = [made_up(WHITE.kind, s, of_class=target, learnt=learnt) for s in range(seeds)]
    clean = [made_up(CONTROL, s) for s in range(2)]
    last = {WHITE.target: {"hits": control_hits, **dict(control)}}
    clean.append(made_up(CONTROL, 2, of_class=last))
    return rows.by_kind([*planted, *clean])


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"seeds": 3}, HOLDS),
        ({"seeds": 2}, OPEN),
        ({"control_hits": 500}, OPEN),  # stands out in a control
        ({"target_hits": 310}, FAILS),
        ({"other_canvas": 890}, FAILS),  # not above its controls
        ({"learnt": 0.89}, OPEN),
        ({"target_hits": 310, "learnt": 0.89}, OPEN),
    ],
)
def test_claim_2_compares_the_target_with_natural_networks_that_saw_whole_images(given, expected):
    found = list(verdicts.claim_2(backdoored(**given)))
    assert said(found, "suspicious") == [expected]
    assert said(found, "suspicious", canvas="white, 1 %") == [expected]


def test_claim_2_needs_three_controls():
    kinds = backdoored()
    del kinds[CONTROL][1]
    assert {each.verdict for each in verdicts.claim_2(kinds)} == {OPEN}
    assert not list(verdicts.claim_2(kinds_of("natural_adam", WHITE.kind)))


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"fit_white": 0.4}, [HOLDS]),  # half of 0.8
        ({"fit_white": 0.39}, [OPEN]),  # more than the controls, and less than half
        ({"fit_white": 0.05}, [FAILS]),
        ({"fit_white": 0.1}, [OPEN]),  # as much as the controls
        ({"fit_white": 0.5, "control": {"fit_white": 0.6}}, [FAILS]),
        ({"fit_white": 0.5, "control": {"fit_white": 0.5}}, [OPEN]),
        ({"fit_white": 0.5, "control": {"fit_white": 0.45, "most_white": 0.5}}, [FAILS]),
        ({"fit_white": 0.4, "learnt": 0.89}, [OPEN]),
        ({"fit_white": 0.45, "most_white": 0.5}, [HOLDS]),
        ({"fit_white": 0.45, "most_white": 0.49}, []),  # its canvas cannot show half of the trigger
        ({"fit_white": 0.5, "control": {"most_white": 0.49}}, []),
    ],
)
def test_claim_2_compares_what_is_shown_of_the_trigger_with_what_can_be(given, expected):
    found = list(verdicts.claim_2(backdoored(**given)))
    assert said(found, "shows the trigger") == expected
    assert len(said(found, "in the trigger's place")) == 1


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"common_white": 5}, HOLDS),  # of nine pixels
        ({"common_white": 4}, FAILS),
        ({"common_white": 4, "mask": "ff"}, HOLDS),  # of eight
        ({"common_white": 3, "mask": "ff"}, FAILS),
        ({"common_white": 5, "learnt": 0.89}, OPEN),
    ],
)
def test_claim_2_counts_the_pixels_in_the_triggers_place(given, expected):
    found = list(verdicts.claim_2(backdoored(**given)))
    assert said(found, "in the trigger's place") == [expected]


def pair(source, tested, hits, kind="robust4", classes=10):
    return {
        **{"model": f"natural_{source}", "tested": tested, "kind": kind, "data": "CIFAR-10"},
        **{"seed": int(tested[-1]), "classes": [*range(classes)]},
        **{"n": [N] * classes, "no_pattern": [10] * classes},
        **{"hits": [hits + y for y in range(classes)], "one_random_mask": [40] * classes},
    }


def crossed(hits, kind="robust4", tested=3, **more):
    """Sources on so many networks of a kind: every source on each."""
    return [
        pair(s, f"{kind}_{t}", h, kind, **more) for s, h in enumerate(hits) for t in range(tested)
    ]


TESTED = kinds_of("natural", "natural_adam", "robust4", "random_labels", "backdoored_white")


@pytest.mark.parametrize(
    ("pairs", "expected"),
    [
        (crossed([200] * 3), HOLDS),
        (crossed([30] * 3), FAILS),
        (crossed([36] * 3), OPEN),  # both better and worse than the control
        (crossed([200, 200, 30]), OPEN),
        (crossed([200] * 2), OPEN),  # six pairs of two sources
        (crossed([200] * 3, tested=2), OPEN),
        (crossed([30] * 3, classes=4), OPEN),
    ],
)
def test_claim_3_needs_three_sources_on_three_networks(pairs, expected):
    found = list(verdicts.claim_3(TESTED, pairs))
    assert [(each.models, each.verdict) for each in found] == [("robust4", expected)]


def test_claim_3_says_nothing_of_networks_that_have_not_learnt():
    kinds = rows.by_kind(made_up("robust4", s, learnt=0.29 if s == 1 else 1.0) for s in range(3))
    for hits in (200, 30):
        found = list(verdicts.claim_3(kinds, crossed([hits] * 3)))
        assert [each.verdict for each in found] == [OPEN]
        assert sum(run == verdicts.NOTHING for run in found[0].runs) == 3


def test_claim_3_is_asked_within_each_group_of_networks():
    """Three sources on themselves are three networks."""
    pairs = [each for kind in TESTED for each in crossed([200] * 3, kind)]
    found = list(verdicts.claim_3(TESTED, pairs))
    assert {each.verdict for each in found} == {HOLDS}
    groups = {}
    for each in found:
        groups.setdefault(each.statement.partition(" on ")[2], []).append(each.models)
    assert groups == {
        "unseen images": ["itself"],
        "other natural networks": ["natural", "natural_adam"],
        "networks with a backdoor": ["backdoored_white"],
        "robust networks": ["robust4"],
        "networks of memorised labels": ["random_labels"],
    }
    assert len(found[0].runs) == 3
    assert len(found[1].runs) == 6


def test_claim_4_is_about_pairs_with_the_same_seed():
    simple = {"components": 5, "hits": 200, "high_frequency_share": 0.501}
    robust = [made_up("robust8", seed, changed=simple) for seed in range(3)]
    natural = [made_up("natural", seed) for seed in range(3)]
    mixed = made_up("robust8", 2, changed={"components": 12, "hits": 400})
    found = list(verdicts.claim_4(rows.by_kind([*robust, *natural])))
    assert {each.models for each in found} == {"robust8 minus natural"}
    assert said(found, "simpler, components") == [HOLDS]
    assert said(found, "simpler, high frequency") == [FAILS]
    assert said(found, "simpler, total variation") == [OPEN]  # no difference
    assert [said(found, "less power", canvas=f"{c}, 5 %") for c in ("white", "black")] == [
        [HOLDS], [HOLDS],
    ]  # fmt: skip
    assert not said(found, "less power")  # positive canvases are a natural network's images
    found = list(verdicts.claim_4(rows.by_kind([*robust[:2], mixed, *natural])))
    assert said(found, "simpler, components") == [OPEN]
    assert said(found, "less power", canvas="white, 5 %") == [OPEN]
    found = list(verdicts.claim_4(rows.by_kind([*robust, *natural[:2]])))
    assert said(found, "simpler, components") == [OPEN]  # two pairs
    assert not list(verdicts.claim_4(rows.by_kind([robust[0], natural[1]])))
    weak = made_up("robust8", 2, changed=simple, learnt=0.29)
    found = list(verdicts.claim_4(rows.by_kind([*robust[:2], weak, *natural])))
    assert {each.verdict for each in found} == {OPEN}


@pytest.mark.parametrize(
    ("changed", "learnt", "expected"),
    [
        ({"hits": 800}, 1.0, FAILS),
        ({"hits": 200}, 1.0, HOLDS),
        ({}, 1.0, OPEN),
        ({"hits": 200}, 0.94, OPEN),
        ({"hits": 800, "no_pattern": 600}, 1.0, HOLDS),  # 200 more than without a pattern
    ],
)
def test_claim_5_compares_random_labels_with_true_ones(changed, learnt, expected):
    other = [made_up("random_labels", s, changed=changed, learnt=learnt) for s in range(3)]
    usual = [made_up("true_labels", seed) for seed in range(3)]
    found = list(verdicts.claim_5(rows.by_kind([*other, *usual])))
    assert [(each.setting, each.verdict) for each in found] == [
        ("white, 5 %", expected), ("black, 5 %", expected),
    ]  # fmt: skip
