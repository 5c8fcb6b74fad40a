"""The verdicts on the paper's claims, and their tables, of made-up rows."""

import pytest
from scripts import imported, write_rows

tables, rows, verdicts, models = (
    imported("benchmarks", f"claims.{name}") for name in ("tables", "rows", "verdicts", "models")
)
N = 1_000  # held-out images of other classes
MASK = f"{(1 << 51) - 1:x}"  # of 51 pixels
USUAL = {
    **{"hits": 300, "n": N, "no_pattern": 10, "random_pixels": 30, "other_canvas": 50},
    **{"grey": 250, "blurred": 100, "shuffled": 155},
    **{"canvas": 0, "mask": MASK, "search_power": 0.3, "components": 10},
    **{"total_variation": 0.2, "high_frequency_share": 0.5},
    **{f"{what}_{name}": 0.1 for what in ("fit", "iou") for name in models.triggers_of("CIFAR-10")},
}


def spread(value, y):
    """Classes differ a little, so that an interval has a width."""
    return value + y % 3 if isinstance(value, int) else value + 0.001 * (y % 3)


def made_up(kind, seed=0, changed=(), of_class=()):
    """A row whose patterns have other values: everywhere, and of one class, {y: values}."""
    values, special = USUAL | dict(changed), dict(of_class)
    settings = [(c, a) for c in ("positive", "white") for a in ("0.05", "0.01")]
    patterns = {"positive": {}, "white": {}}
    for canvas, area in settings:
        names = (
            values if (canvas, area) == ("positive", "0.05") else values.keys() - verdicts.CHANGES
        )
        patterns[canvas][area] = {
            name: [
                special.get(y, {}).get(
                    name, values[name] if name in ("n", "mask") else spread(values[name], y)
                )
                for y in range(10)
            ]
            for name in values
            if name in names
        }
    return {
        **{"model": f"{kind}_{seed}", "kind": kind, "seed": seed, "data": "CIFAR-10"},
        **{"accuracy": 0.9, "attack_success": None, "passes": 70_000, "classes": [*range(10)]},
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


def test_claim_1_says_what_a_change_leaves():
    """Without the 10 images of no pattern 290 are left of the power, half of which is 145. Shuffled
    there are 155 less 10: exactly that in all classes, so that nothing is shown."""
    found = list(verdicts.claim_1(kinds_of("natural", changed={"shuffled": 155})))
    for words, most, loses in (
        ("grey", HOLDS, HOLDS),
        ("blurred", FAILS, HOLDS),
        ("shuffled", OPEN, HOLDS),
    ):
        assert said(found, f"{words}: keeps most") == [most]
        assert said(found, f"{words}: loses") == [loses]
    more = list(verdicts.claim_1(kinds_of("natural", changed={"grey": 320})))
    assert said(more, "grey: loses") == [FAILS]
    assert not said(more, "grey", canvas="white, 5 %")


def backdoored(seeds, target_hits=900, natural_hits=300, **more):
    target = models.PATCHES["backdoored_white"].target
    planted = [
        made_up("backdoored_white", s, of_class={target: {"hits": target_hits, **more}})
        for s in range(seeds)
    ]
    clean = [made_up("natural", s) for s in range(2)]
    clean.append(made_up("natural", 2, of_class={target: {"hits": natural_hits}}))
    return rows.by_kind([*planted, *clean])


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"seeds": 3}, HOLDS),
        ({"seeds": 2}, OPEN),
        ({"seeds": 3, "natural_hits": 500}, OPEN),  # stands out in a natural network
        ({"seeds": 3, "target_hits": 310}, FAILS),
        ({"seeds": 3, "other_canvas": 890}, FAILS),  # not above its controls
    ],
)
def test_claim_2_compares_the_target_with_the_natural_networks(given, expected):
    found = list(verdicts.claim_2(backdoored(**given)))
    assert said(found, "suspicious") == [expected]
    assert said(found, "suspicious", canvas="white, 1 %") == [expected]


def test_claim_2_compares_the_pattern_with_the_trigger():
    """The IoU of 51 pixels with the nine of a trigger is 5 / 55 if five are in common."""
    for fit, expected in ((0.6, HOLDS), (0.4, OPEN), (0.05, FAILS)):
        found = list(verdicts.claim_2(backdoored(3, fit_white=fit)))
        assert said(found, "shows the trigger") == [expected]
    for common, expected in ((5, HOLDS), (4, FAILS)):
        iou = round(common / (60 - common), 4)
        found = list(verdicts.claim_2(backdoored(3, iou_white=iou)))
        assert said(found, "in the trigger's place") == [expected]


def pair(source, tested, hits, kind="robust4", classes=10):
    return {
        **{"model": f"natural_{source}", "tested": tested, "kind": kind, "seed": 0},
        **{"classes": [*range(classes)], "n": [N] * classes, "no_pattern": [10] * classes},
        **{"hits": [hits + y for y in range(classes)], "random_pixels": [40] * classes},
    }


def test_claim_3_needs_more_than_both_controls_in_each_pair():
    for hits, expected in (([200] * 3, HOLDS), ([30] * 3, FAILS), ([200, 200, 30], OPEN)):
        found = list(verdicts.claim_3([pair(s, "robust4_0", h) for s, h in enumerate(hits)]))
        assert said(found, "on other networks", "robust4") == [expected]
    few = [pair(s, "robust4_0", 30, classes=4) for s in range(3)]
    assert [each.verdict for each in verdicts.claim_3(few)] == [OPEN]
    own = verdicts.claim_3([pair(s, f"natural_{s}", 300, "natural") for s in range(3)])
    assert [(each.models, each.verdict) for each in own] == [("itself", HOLDS)]


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
    assert said(found, "less power", canvas="white, 5 %") == [HOLDS]
    found = list(verdicts.claim_4(rows.by_kind([*robust[:2], mixed, *natural])))
    assert said(found, "simpler, components") == said(found, "less power") == [OPEN]
    found = list(verdicts.claim_4(rows.by_kind([*robust, *natural[:2]])))
    assert said(found, "simpler, components") == [OPEN]  # two pairs
    assert not list(verdicts.claim_4(rows.by_kind([robust[0], natural[1]])))


def test_claim_5_compares_random_labels_with_true_ones():
    strong = [made_up("random_labels", seed, changed={"hits": 800}) for seed in range(3)]
    usual = [made_up("true_labels", seed) for seed in range(3)]
    found = list(verdicts.claim_5(rows.by_kind([*strong, *usual])))
    assert said(found, "random labels") == [FAILS]


def test_all_tables_by_hand(tmp_path, snapshot):
    """Three seeds of each kind, 2 points of power apart, and one shipped model."""
    found = [
        made_up(kind, seed, changed={"hits": hits + 20 * seed, "components": pieces})
        for kind, hits, pieces in (
            *(("natural", 300, 20), ("robust4", 250, 9)),
            *(("random_labels", 900, 25), ("true_labels", 400, 22)),
        )
        for seed in range(3)
    ]
    planted = {models.PATCHES["backdoored_white"].target: {"hits": 950, "fit_white": 0.9}}
    found += [made_up("backdoored_white", seed, of_class=planted) for seed in range(3)]
    found.append(made_up("shipped natural"))
    write_rows(tmp_path / rows.FILE, found)
    pairs = [pair(s, f"natural_{s}", 300, "natural") for s in range(3)]
    pairs += [pair(s, "robust4_0", 50) for s in range(3)]
    write_rows(tmp_path / rows.TRANSFER, pairs)
    for title, lines in tables.tables(tmp_path):
        assert "\n".join(lines) == snapshot(name=title)


def test_rows_are_added_in_the_order_of_the_models(tmp_path):
    path = tmp_path / "new" / rows.FILE
    for name in ("demo_natural", "robust4_1", "natural_2"):
        rows.add_rows(path, [{"model": name}])
    assert [row["model"] for row in rows.read_rows(path)] == [
        *("natural_2", "robust4_1", "demo_natural")
    ]
