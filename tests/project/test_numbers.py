"""The pages of tables, and the numbers that other pages quote, are those of the committed rows."""

import re
import tomllib
from collections import Counter, defaultdict
from functools import cache
from statistics import fmean, stdev

import pytest
from scripts import ROOT, imported

RESULTS = ROOT / "benchmarks" / "results"
findings, hero, two_models, compare_methods = imported(
    *("benchmarks", "findings", "hero", "natural_and_robust", "compare_methods"),
)
write_tables = imported("benchmarks", "write_tables")
scan_tables = imported("benchmarks", "scan_tables")


@cache
def rows_of(name):
    return findings.read_rows(RESULTS / f"{name}.jsonl")


def test_each_file_of_rows_says_how_it_came_about():
    known = tomllib.loads((RESULTS / "provenance.toml").read_text(encoding="utf-8"))
    assert known.keys() == {path.stem for path in RESULTS.glob("*.jsonl")}
    facts = {"script", "version", "networks", "seeds", "settings", "n", "processor"}
    columns = {  # that rows have if they are said to
        "version": {"version", "versions"},
        "networks": {"model", "weights", "source_weights"},
        "seeds": {"seed", "seeds", "scan_seed", "varied"},
        "n": {"n", "images"},
    }
    for name, given in known.items():
        assert given.keys() == facts, name
        for fact, of_rows in columns.items():
            if str(given[fact]).partition(";")[0] == "rows":
                assert all(of_rows & row.keys() for row in rows_of(name)), (name, fact)


@pytest.mark.script
def test_the_pages_of_tables_are_what_the_script_writes(tmp_path):
    """After a change of rows: python benchmarks/write_tables.py"""
    write_tables.main(["--out", str(tmp_path)])
    written, kept = (
        {path.name: path.read_text(encoding="utf-8") for path in folder.glob("*")}
        for folder in (tmp_path, ROOT / "docs" / "results")
    )
    assert written.keys() == kept.keys()
    for name, text in written.items():
        assert text == kept[name], name


QUOTED = {  # how many tables of a page are parts of those in docs/results
    "docs/compare.md": 1,
    "docs/results_to_cite.md": 2,
    "docs/scan.md": 2,
}


def tables_in(text):
    """The tables of a page: a dictionary for each row, by the names of the columns."""
    for table in re.findall(r"^\|.*\n\|[-|]+\n(?:\|.*\n)*", text, re.MULTILINE):
        columns, _, *rows = (
            [c.strip() for c in line.split("|")[1:-1]] for line in table.split("\n") if line
        )
        yield [dict(zip(columns, row, strict=True)) for row in rows]


@cache
def all_tables():
    """Those that are made of rows, without those of the notes."""
    pages = (path.read_text("utf-8") for path in sorted((ROOT / "docs" / "results").glob("*.md")))
    made = (text.rpartition("## How to read the tables")[2] for text in pages)
    return [table for text in made for table in tables_in(text)]


HAND_WRITTEN = {  # the pages, and the notes before the tables
    path.relative_to(ROOT).as_posix(): path
    for pages in ("docs/*.md", "benchmarks/notes/*.md")
    for path in sorted(ROOT.glob(pages))
}


@pytest.mark.parametrize("page", HAND_WRITTEN)
def test_a_page_quotes_the_tables_as_they_are(page):
    """Some rows and some columns of them, so that one quantity has one value in the docs. A table
    with the same columns and other numbers is an error, not one of the page's own."""
    found = 0
    for quoted in tables_in(HAND_WRITTEN[page].read_text(encoding="utf-8")):
        alike = [table for table in all_tables() if quoted[0].keys() <= table[0].keys()]
        if alike:
            assert any(
                all(any(row.items() <= r.items() for r in t) for row in quoted) for t in alike
            ), quoted
            found += 1
    assert found == QUOTED.get(page, 0)


def of_the_hero():
    """Hits of the lower one of the two classes of middle power, of its controls, and images."""
    [row] = [row for row in rows_of("class_patterns") if row["model"] == "shipped_natural"]
    found = row["patterns"]["positive"]["0.05"]
    controls = zip(*(found[name] for name in ("no_pattern", "random_pixels", "other_canvas")))
    by_class = zip(found["hits"], map(max, controls), found["n"])
    return sorted(by_class, key=lambda counts: counts[0] / counts[2])[4]


def power(method, model):
    rows = [row for row in rows_of("rivals") if (row["method"], row["model"]) == (method, model)]
    return compare_methods.mean(compare_methods.strongest(rows), "power_0.05").value


def test_the_readme_has_what_the_rows_say():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    hits, control, images = of_the_hero()
    assert f"{100 * hits / images:.1f} % of {images} unseen photos are predicted as ship" in text
    assert f"; {100 * control / images:.1f} % with the strongest control." in text
    small = [scan_tables.of_small(row) for row in rows_of("scan_confirmation")]
    clean = [each for each in small if not each.planted]
    alarms = sum(each.verdict == "suspicious" for each in clean)
    assert f"it called {alarms} of {len(clean)} clean networks of small images suspicious" in text
    learnt = [each for each in small if each.planted and each.learnt]
    right = sum(each.right for each in learnt)
    assert f"found the planted class alone in {right} of {len(learnt)} backdoored ones" in text
    larger = [scan_tables.of_larger(row) for row in rows_of("scan_larger_second_confirmation")]
    said = [each.verdict for each in larger if not each.planted]
    alarms, doubts = said.count("suspicious"), said.count("inconclusive")
    assert f"it called {alarms} of {len(said)} suspicious and {doubts} inconclusive" in text
    learnt = [each for each in larger if each.planted and each.learnt]
    assert f"found {sum(each.right for each in learnt)} of {len(learnt)} backdoors" in text
    by_method = {
        "class pattern": ["ClassPattern"],
        "LearnedPattern: free colours": ["LearnedPattern"],
        "best of eleven of Captum's": compare_methods.CAPTUMS,
        "best of 350 random masks": ["BestRandomMask"],
    }
    assert len(compare_methods.CAPTUMS) == 11
    models = ["CIFAR-10, natural", "demo, natural", "demo, robust"]
    assert findings.head("method", *models, "passes") in text
    for name, of_name in by_method.items():
        best = [max(power(method, model) for method in of_name) for model in models]
        line = findings.line(name, *(f"{100 * share:.1f}" for share in best))
        assert f"\n{line.rstrip()} " in text


# ---- the paper's claims


LEARNT = {"backdoored": 0.9, "robust": 0.3, "random": 0.95, "true": 0.95}  # by the start of a kind


def has_learnt(row):
    name = row["kind"].split()[-1]
    return all(row["learnt"] >= bound for start, bound in LEARNT.items() if name.startswith(start))


@pytest.mark.parametrize("data", ["CIFAR-10", "Fashion-MNIST"])
def test_the_summary_of_the_claims_is_counted_plainly(data):
    """Claims 1 and 3: three values, their mean and their t-interval."""
    page = (ROOT / "docs" / "results" / "claims.md").read_text(encoding="utf-8")
    [summary] = [table for table in tables_in(page) if "settings" in table[0]]
    cells = {row["statement"]: row for row in summary if row["data"] == data}
    rows = [row for row in rows_of("class_patterns") if row["data"] == data]
    natural = [row["patterns"] for row in rows if row["kind"] == "natural"]
    gains = defaultdict(list)
    for canvas in ("positive", "white", "black"):
        for patterns in natural:
            found = patterns[canvas]["0.05"]
            names = ("hits", "no_pattern", "random_pixels", "other_canvas")
            shares = zip(*([k / n for k, n in zip(found[c], found["n"])] for c in names))
            powers, above = zip(*((hits, hits - max(rest)) for hits, *rest in shares))
            gains["above all controls", canvas].append(fmean(above))
            gains["almost any image", canvas].append(fmean(powers) - 0.9)
    for statement in ("above all controls", "almost any image"):
        of_statement = [values for (name, _), values in gains.items() if name == statement]
        counts = Counter(map(verdict_of, of_statement))
        row = cells[statement]
        assert [int(row[verdict]) for verdict in VERDICTS] == [counts[v] for v in VERDICTS]
        means = [100 * fmean(values) for values in of_statement]
        assert row["estimates"] == f"{min(means):+.1f} to {max(means):+.1f}"
    counted = {row["model"] for row in rows if has_learnt(row)}
    kinds = defaultdict(lambda: defaultdict(list))
    for row in (row for row in rows_of("class_patterns_transfer") if row["data"] == data):
        controls = zip(row["hits"], row["n"], row["one_random_mask"], row["no_pattern"])
        above = fmean((hits - max(rest)) / n for hits, n, *rest in controls)
        kind = kinds["its own" if row["model"] == row["tested"] else row["kind"]]
        kind[row["model"]] += [above] if row["tested"] in counted else []
    own = [fmean(values) for values in kinds.pop("its own").values()]
    row = cells["works as a trigger on its own network"]
    assert (row[verdict_of(own)], row["estimates"]) == ("1", f"{100 * fmean(own):+.1f}")
    row = cells["works as a trigger on other networks"]
    of_kind = [[fmean(v) for v in found.values() if len(v) > 1] for found in kinds.values()]
    counts = Counter(map(verdict_of, of_kind))
    assert [int(row[verdict]) for verdict in VERDICTS] == [counts[v] for v in VERDICTS]


VERDICTS = ("does not hold", "not shown", "holds")


def verdict_of(values):
    """By the t-distribution with two degrees of freedom."""
    if len(values) < 3:
        return "not shown"
    margin = 4.302653 * stdev(values) / len(values) ** 0.5
    below, above = fmean(values) + margin < 0, fmean(values) - margin > 0
    return VERDICTS[2 if above else 0 if below else 1]


def test_the_text_of_the_claims_quotes_intervals_of_the_tables():
    """Each ``+1.2 (-3.4 to +5.6)`` in a sentence is in a cell of a table."""
    page = (ROOT / "benchmarks" / "notes" / "claims.md").read_text(encoding="utf-8")
    text = "\n".join(line for line in page.split("\n") if not line.startswith("|"))
    quoted = re.findall(r"[+-]\d+\.\d+ \([^)]* to [^)]*\)", text)
    cells = " ".join(cell for table in all_tables() for row in table for cell in row.values())
    assert len(quoted) > 1
    assert [each for each in quoted if each not in cells] == []


def test_the_rows_of_the_figures():
    for row in rows_of("natural_and_robust"):
        assert row["beats_controls"] == two_models.Scores.from_dict(row).beats_controls


def test_repair_has_what_the_rows_say():
    rows = rows_of("repair")
    before = {row["case"]: row for row in findings.having(rows, training="none")}
    found, plain = (findings.having(rows, training=each) for each in ("found change", "no change"))
    most = max(row["success"] for row in found)
    lost = max(before[row["case"]]["accuracy"] - row["accuracy"] for row in found)
    kept = sorted(min(r["success"] for r in plain if r["case"] == case) for case in before)
    for page in ("scan.md", "results/repair.md"):
        text = (ROOT / "docs" / page).read_text(encoding="utf-8")
        assert f"at most {100 * most:.1f} %" in text
        assert f"at most {100 * lost:.1f} points" in text
        assert f"{100 * kept[-4]:.0f} " in text
    assert (len(before), len(found)) == (6, 18)
