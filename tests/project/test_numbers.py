"""The pages of tables, and the numbers that other pages quote, are those of the committed rows."""

import re
import tomllib
from collections import Counter, defaultdict
from functools import cache
from itertools import combinations
from statistics import fmean, stdev

import pytest
import torch
from scripts import ROOT, imported

import captum_classpattern
from captum_classpattern.scanning import references

RESULTS = ROOT / "benchmarks" / "results"
findings, hero, two_models, compare_methods = imported(
    *("benchmarks", "findings", "hero", "natural_and_robust", "compare_methods"),
)
scan_evidence, write_tables = imported("benchmarks", "scan_evidence", "write_tables")
LIST = "each network"  # the title of tables that no page has


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


def test_new_rows_say_where_they_were_measured(tmp_path):
    findings.append_rows(tmp_path / "rows.jsonl", [{"power": 0.5}])
    [row] = findings.read_rows(tmp_path / "rows.jsonl")
    assert row.pop("power") == 0.5
    assert row == {
        "version": captum_classpattern.__version__,
        "torch": torch.__version__,
        "processor": findings.processor(),
    }


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


def test_one_page_of_tables_can_be_written(tmp_path):
    write_tables.main(["--only", "gallery", "--out", str(tmp_path)])
    assert {path.name for path in tmp_path.glob("*")} == {"gallery.md", "index.md"}


SEEN_BEFORE = "verazuo_badnet"  # probably: see benchmarks/zoo/PROTOCOL.md
QUOTED = {  # how many tables of a page are parts of those in docs/results
    "claims.md": 4,
    "photographs.md": 6,
    "read_a_pattern.md": 1,
    "results_to_cite.md": 9,
    "scan_evidence.md": 4,
    "what_changes_a_pattern.md": 4,
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
    pages = sorted((ROOT / "docs" / "results").glob("*.md"))
    return [table for page in pages for table in tables_in(page.read_text(encoding="utf-8"))]


@pytest.mark.parametrize("page", sorted(path.name for path in (ROOT / "docs").glob("*.md")))
def test_a_page_quotes_the_tables_as_they_are(page):
    """Some rows and some columns of them, so that one quantity has one value in the docs. A table
    with the same columns and other numbers is an error, not one of the page's own."""
    found = 0
    for quoted in tables_in((ROOT / "docs" / page).read_text(encoding="utf-8")):
        alike = [table for table in all_tables() if quoted[0].keys() <= table[0].keys()]
        if alike:
            assert any(
                all(any(row.items() <= r.items() for r in t) for row in quoted) for t in alike
            ), quoted
            found += 1
    assert found == QUOTED.get(page, 0)


def test_each_number_of_a_shorter_search_is_in_a_table_of_the_results_or_the_mean_of_a_figure():
    page = (ROOT / "docs" / "results_to_cite.md").read_text(encoding="utf-8")
    [listed] = [table for table in tables_in(page) if "cite it for" in table[0]]
    cells = {cell.split("%")[0] for table in all_tables() for row in table for cell in row.values()}
    cells |= {f"{100 * value:.1f}" for value in of_two_models("natural")}
    assert len(listed) > 10
    for row in listed:
        assert row["predictive power"].removesuffix(" %") in cells, row
        assert row["strongest control"].split(" %")[0] in {*cells, "not measured"}, row


def of_two_models(model):
    """The mean power, and that of the strongest of the controls, class by class."""
    rows = [row for row in rows_of("natural_and_robust") if row["model"] == model]
    controls = ("no_pattern", "random_pixels", "other_canvas")
    strongest = fmean(max(row[name] for name in controls) for row in rows)
    return fmean(row["power"] for row in rows), strongest


def of_the_hero():
    """Hits of the lower one of the two classes of middle power, of its controls, and images."""
    [row] = [row for row in rows_of("class_patterns") if row["model"] == "shipped_natural"]
    found = row["patterns"]["positive"]["0.05"]
    controls = zip(*(found[name] for name in ("no_pattern", "random_pixels", "other_canvas")))
    by_class = zip(found["hits"], map(max, controls), found["n"])
    return sorted(by_class, key=lambda counts: counts[0] / counts[2])[4]


def of_the_readme():
    hits, control, images = of_the_hero()
    of_ship = f"{100 * hits / images:.1f} % of {images} unseen photos are predicted as ship"
    print(f"{of_ship}; {100 * control / images:.1f} % with the strongest control.\n")
    groups = scan_evidence.read(RESULTS)
    said = []
    for kinds in (["clean"], ["patch"], ["Blended", "SIG", "WaNet"]):
        own = [p for name in ("cifar10", "fashion") for kind in kinds for p in groups[name][kind]]
        said.append(f"{sum(network.right(scan) for network, scan in own)} of {len(own)}")
    clean, patches, others = said
    print(f"Ours: {clean} if clean, {patches} with patches, {others} with other triggers;\n")
    count = len(references.ReferenceSet.load("cifar10"))
    print(f"The set `cifar10` has {count} small clean models;\n")
    counts = {True: [0, 0], False: [0, 0]}  # clean or not: suspicious ones, scans
    for kind, pairs in groups["others"].items():
        for network, scan in pairs:
            if network.row["name"] == SEEN_BEFORE:
                continue
            counts[kind == "clean"][0] += network.right(scan)
            counts[kind == "clean"][1] += 1
    (alarms, clean), (hits, planted) = counts[True], counts[False]
    accused = f"suspicious in {alarms} of {clean} scans if clean"
    print(f"{accused}, {hits} of {planted} if backdoored (FTrojan).\n")
    by_method = {
        "class pattern": ["ClassPattern"],
        "best of eleven of Captum's": compare_methods.CAPTUMS,
        "best of 350 random masks": ["BestRandomMask"],
    }
    assert len(compare_methods.CAPTUMS) == 11
    models = ["CIFAR-10, natural", "demo, natural", "demo, robust"]
    print(findings.head("method", *models))
    for name, of_name in by_method.items():
        best = [max(power(method, model) for method in of_name) for model in models]
        print(findings.line(name, *(f"{100 * share:.1f}" for share in best)))


def power(method, model):
    rows = [row for row in rows_of("rivals") if (row["method"], row["model"]) == (method, model)]
    return compare_methods.mean(compare_methods.strongest(rows), "power_0.05").value


def test_the_hero_has_the_class_of_median_power():
    scores = hero.measured().scores(hero.POSITIVE, hero.AREA)
    target = hero.median_class(scores)
    hits, control, images = of_the_hero()
    assert hero.CLASS_NAMES[target] == "ship"
    assert scores[target].power.value == pytest.approx(hits / images)
    assert scores[target].strongest_control == pytest.approx(control / images)
    index = (ROOT / "docs" / "index.md").read_text(encoding="utf-8")
    assert f"{100 * hits / images:.1f} % of {images} unseen photos" in index
    assert f"{100 * control / images:.1f} % with the same places" in index
    above = [each for each in scores.values() if each.power.value > hits / images]
    assert (len(above), len(scores)) == (5, 10)


PAGES = {"README.md": of_the_readme}


@pytest.mark.parametrize("page", PAGES)
def test_a_page_has_what_the_rows_say(page, capsys):
    PAGES[page]()
    text = (ROOT / page).read_text(encoding="utf-8")
    printed = "### \n" + capsys.readouterr().out
    sections = re.findall(r"### ([^\n]*)\n(.*?)(?=\n### |\Z)", printed, re.DOTALL)
    quoted = [(title, parts.strip()) for title, parts in sections if not title.endswith(LIST)]
    assert any(parts for _, parts in quoted)
    for title, parts in quoted:
        below = text.partition(f"<summary>{title}</summary>")[2] or text
        for part in parts.split("\n\n"):
            assert part in below


def means(rows, name, **wanted):
    """The plain mean of a value of the rows with these values."""
    rows = [row for row in rows if all(row[key] == value for key, value in wanted.items())]
    return fmean(row[name] for row in rows)


def of_stability(rows):
    name, of_single = {"model": "CIFAR-10, natural", "canvas": "positive"}, {"kind": "one search"}
    masks = defaultdict(list)
    for row in rows:
        if {**row, **name, **of_single} == row:
            masks[row["class"]].append({*row["pixels"]})
    pairs = [pair for of_class in masks.values() for pair in combinations(of_class, 2)]
    iou = fmean(len(a & b) / len(a | b) for a, b in pairs)
    single = means(rows, "power", **of_single, **name)
    yield f"| CIFAR-10, natural, positive | {iou:.3f} ("
    yield f"| CIFAR-10, natural, positive | {single:.1%} ("


def of_sanity(rows):
    """Saliency: the IoU between seeds and with 1, 8 and all 19 layers random."""
    [row] = [r for r in rows if (r["model"], r["method"]) == ("demo, natural", "Saliency")]
    maps = [each for each in row["maps"] if each["ranking"] == "signed"]
    ious = {each["randomised"]: fmean(each["iou"]) for each in maps if each["test"] == "layers"}
    yield f"| Saliency | {' | '.join(f'{ious[count]:.2f}' for count in (0, 1, 8, 19))} ("


def of_architectures(rows):
    """The powers of the linear models' patterns on models of other seeds."""
    powers = defaultdict(list)
    for row in rows:
        names = row.get("network"), row.get("canvas"), row["kind"]
        if names == ("linear", "white", "transfer") and row["seed"] != row["tested_seed"]:
            powers[row["tested"]] += row["powers"].values()
    names = ("linear", "mlp", "shallow", "distilled", "plain", "resnet", "vit")
    yield f"| linear | {' | '.join(f'{fmean(powers[name]):.0%}' for name in names)} |"


def of_rivals(rows):
    ours, rival = (
        {"method": m, "model": "demo, natural"} for m in ("ClassPattern", "NeuralCleanse")
    )
    own, size = (100 * means(rows, name, **rival) for name in ("own_form", "share_changed"))
    yield f"| **class pattern** | {100 * means(rows, 'power_0.05', **ours):.1f} % ("
    yield f"| {own:.1f} % ("
    yield f") | {size:.1f} % | {means(rows, 'passes', **rival):,.0f} |"


def of_invariance(rows):
    shift = {"model": "CIFAR-10, natural", "transform": "shift"}
    halves = [row["half_power"] for row in rows if {**row, **shift} == row]
    low, high = (fmean(half[end] for half in halves) for end in ("low", "high"))
    yield f"| shift | pixels | {low:.3g} to {high:.3g} |"


def of_class_patterns(rows):
    """The mean power of the natural networks' patterns, and how many have 90 %."""
    natural = [row for row in rows if (row["kind"], row["data"]) == ("natural", "Fashion-MNIST")]
    found = [row["patterns"]["positive"]["0.05"] for row in natural]
    shares = [[hits / n for hits, n in zip(each["hits"], each["n"])] for each in found]
    begin = f"| natural | positive, 5 % | {fmean(map(fmean, shares)):.1%} ("
    strong = ", ".join(str(sum(share >= 0.9 for share in of_seed)) for of_seed in shares)
    yield re.compile(rf"^{re.escape(begin)}.* \| {strong} \| ", re.MULTILINE)


def of_protocol(rows):
    names = {f"natural_{seed}" for seed in (1, 2, 3)}
    natural = [row for row in rows if row["model"] in names and row["solver"] == "paper"]
    hits, n = ([sum(c[i] for c in row["power"].values()) for row in natural] for i in (0, 1))
    power = fmean(a / b for a, b in zip(hits, n))
    yield f"| the authors' protocol: all test images | {power:.1%} ("


PLAIN = {
    "architectures": of_architectures,
    "class_patterns": of_class_patterns,
    "gallery": lambda rows: [f"| mean power | {means(rows, 'power'):.1%} ("],
    "invariance": of_invariance,
    "protocol": of_protocol,
    "rivals": of_rivals,
    "sanity": of_sanity,
    "stability": of_stability,
}


@pytest.mark.parametrize("name", PLAIN)
def test_a_few_numbers_are_computed_plainly(name):
    page = (ROOT / "docs" / "results" / f"{name}.md").read_text(encoding="utf-8")
    for text in PLAIN[name](rows_of(name)):
        assert re.search(text if isinstance(text, re.Pattern) else re.escape(text), page), text


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


def test_the_first_lines_of_the_claims_count_the_papers_statements_in_the_summary():
    page = (ROOT / "docs" / "claims.md").read_text(encoding="utf-8")
    [summary] = [table for table in tables_in(page) if "settings" in table[0]]
    held = defaultdict(list)
    for row in summary:
        held[row["data"], row["claim"]].append((int(row["holds"]), int(row["settings"])))
    for data in ("CIFAR-10", "Fashion-MNIST"):
        assert all(a == b for claim in "13" for a, b in held[data, claim])
    assert all(a == b for a, b in held["CIFAR-10", "4"])
    assert all(0.4 < a / b < 0.65 for a, b in held["Fashion-MNIST", "2"])
    assert all(a <= b / 2 for a, b in held["Fashion-MNIST", "4"])
    assert "claim 2 in about half of the settings, and claim 4 in at most half" in page


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
    page = (ROOT / "docs" / "claims.md").read_text(encoding="utf-8")
    text = "\n".join(line for line in page.split("\n") if not line.startswith("|"))
    quoted = re.findall(r"[+-]\d+\.\d+ \([^)]* to [^)]*\)", text)
    cells = " ".join(cell for table in all_tables() for row in table for cell in row.values())
    assert len(quoted) > 1
    assert [each for each in quoted if each not in cells] == []


def test_shares_of_a_power_are_those_of_the_rows():
    """What is left of a power on other networks, and by adversarial training."""
    claims, pattern = (
        (ROOT / "docs" / name).read_text(encoding="utf-8")
        for name in ("claims.md", "what_a_pattern_is.md")
    )
    powers = defaultdict(list)
    for row in (row for row in rows_of("class_patterns_transfer") if row["data"] != "CIFAR-10"):
        kind = "own" if row["model"] == row["tested"] else row["kind"]
        powers[kind].append(fmean(hits / n for hits, n in zip(row["hits"], row["n"])))
    own = fmean(powers.pop("own"))
    del powers["random_labels"]  # hardly above no pattern
    lost = [round(100 * (1 - fmean(found) / own)) for found in powers.values()]
    assert f"lose [{min(lost)} to {max(lost)} % of their power]" in claims
    ratios = [
        round(100 * mean_share(robust, "hits", canvas) / mean_share(natural, "hits", canvas))
        for robust in ("robust05", "robust10")
        for natural in ("natural", "natural_adam")
        for canvas in ("positive", "white", "black")
    ]
    assert f"{min(ratios)} to {max(ratios)} % of the power" in pattern
    robust, natural = (
        [mean_share(kind, "hits", canvas, "CIFAR-10") for canvas in ("positive", "white", "black")]
        for kind in ("robust8", "natural")
    )
    ratios = [round(100 * a / b) for a, b in zip(robust, natural)]
    assert f"On CIFAR-10, they have {min(ratios)} to {max(ratios)} %" in pattern


def mean_share(kind, name, canvas="positive", data="Fashion-MNIST"):
    """The mean over networks and classes of a count, as a share of the held-out images."""
    rows = [row for row in rows_of("class_patterns") if (row["kind"], row["data"]) == (kind, data)]
    found = [row["patterns"][canvas]["0.05"] for row in rows]
    return fmean(k / n for each in found for k, n in zip(each[name], each["n"]))


def test_the_page_of_the_claims_is_short():
    page = (ROOT / "docs" / "claims.md").read_text(encoding="utf-8")
    lines = [line for line in page.split("\n") if not line.startswith("|")]
    assert len(" ".join(lines).split()) <= 1_100  # without its tables
    assert len([*tables_in(page)]) <= 5


def test_the_readme_is_short():
    assert len((ROOT / "README.md").read_text(encoding="utf-8").split()) <= 600


def test_the_docs_are_short():
    """Without code, tables, links and what describes pictures."""
    left_out = re.compile(r"```[\s\S]*?```|^(?: *\||    ).*$|!\[[^\]]*\]|\]\([^)]*\)", re.M)
    pages = [path.read_text(encoding="utf-8") for path in (ROOT / "docs").glob("*.md")]
    assert len(pages) <= 16
    assert sum(len(re.sub(left_out, "", text).split()) for text in pages) <= 15_000


def test_the_rows_of_the_figures():
    for row in rows_of("natural_and_robust"):
        assert row["beats_controls"] == two_models.Scores.from_dict(row).beats_controls


def test_the_references_of_the_freeze_are_all_but_thirteen():
    known = scan_evidence.references_in(RESULTS, scan_evidence.LATER)["cifar10"]
    made = scan_evidence.reference_set([each.row for each in known])
    assert (len(scan_evidence.LATER), len(made)) == (13, 50)


def test_the_reference_sets_of_the_package_are_made_of_the_rows(tmp_path):
    found = scan_evidence.references_in(RESULTS)
    for data, name in (("fashion", "demo"), ("cifar10", "cifar10")):
        made = scan_evidence.reference_set([each.row for each in found[data]])
        made.save(tmp_path / "made.safetensors")
        shipped = references.SHIPPED[name]
        assert (tmp_path / "made.safetensors").read_bytes() == shipped.read_bytes()
