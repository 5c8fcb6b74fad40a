"""The pages of tables, and the numbers that other pages quote, are those of the committed rows."""

import re
from collections import defaultdict
from functools import cache
from itertools import combinations
from statistics import fmean

import pytest
from scripts import ROOT, imported

from captum_classpattern.scanning import references

RESULTS = ROOT / "benchmarks" / "results"
findings, hero, compare_methods, scan_evidence, imagenet_class, write_tables = imported(
    *("benchmarks", "findings", "hero", "compare_methods", "scan_evidence", "imagenet_class"),
    "write_tables",
)
LIST = "each network"  # the title of tables that no page has


@cache
def rows_of(name):
    return findings.read_rows(RESULTS / f"{name}.jsonl")


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


QUOTED = {  # how many tables of a page are parts of those in docs/results
    "claims.md": 11,
    "demo.md": 1,
    "other_methods.md": 5,
    "photographs.md": 8,
    "results_to_cite.md": 4,
    "scan_evidence.md": 5,
    "what_changes_a_pattern.md": 3,
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


def test_each_number_of_a_shorter_search_is_in_a_table_of_the_results_or_the_mean_of_the_hero():
    page = (ROOT / "docs" / "results_to_cite.md").read_text(encoding="utf-8")
    [listed] = [table for table in tables_in(page) if "cite it for" in table[0]]
    cells = {cell.split("%")[0] for table in all_tables() for row in table for cell in row.values()}
    cells.add(f"{100 * means(rows_of('hero'), 'power', model='natural'):.1f}")
    assert len(listed) > 10
    for row in listed:
        assert row["predictive power"].removesuffix(" %") in cells, row


def of_both_protocols():
    print(*imported("benchmarks", "protocol").tables(rows_of("protocol")), sep="\n")


def of_the_readme():
    at_random = (
        fmean(row["random_pixels"] for row in rows_of("hero") if row["model"] == name)
        for name in hero.MODELS
    )
    low, high = sorted(round(100 * share) for share in at_random)
    print(f"with random pixels, {low} to {high} % on average.\n")
    counts = counted()
    print(*counts["fashion"], sep="\n")
    found, whole, clean = (" ".join(each.split()[:3]) for each in counts["cifar10"])
    print(f"on CIFAR-10, {found}, {whole} and {clean}.\n")
    by_method = {
        "class pattern": ["ClassPattern"],
        "best of eleven of Captum's": compare_methods.CAPTUMS,
        "best random mask of 350": ["BestRandomMask"],
        "random pixels": ["RandomPixels"],
        "LearnedPattern (free colours)": ["LearnedPattern"],
    }
    assert len(compare_methods.CAPTUMS) == 11
    models = ["demo, natural", "demo, backdoored", "demo, robust", "CIFAR-10, natural"]
    print(findings.head("method", *models))
    for name, of_name in by_method.items():
        best = [max(power(method, model) for method in of_name) for model in models]
        print(findings.line(name, *(f"{100 * share:.1f}" for share in best)))


def power(method, model):
    rows = [row for row in rows_of("rivals") if (row["method"], row["model"]) == (method, model)]
    return compare_methods.mean(compare_methods.strongest(rows), "power_0.05").value


def counted():
    """The counts that pages quote, by data set: patches, other triggers, clean networks."""
    zoo, known = (scan_evidence.read(RESULTS, name) for name in ("confirmation", "references"))
    return {
        data: [*scan_evidence.in_words(scan_evidence.by_kind(networks, known[data]))]
        for data, networks in zoo.items()
    }


def of_the_scan():
    columns = [
        [" ".join(each.split()[:3]) for each in counted()[data]] for data in ("fashion", "cifar10")
    ]
    names = "learnt patches, right class", "learnt triggers that change all pixels, right class"
    names += ("clean networks of new recipes, suspicious",)
    for name, *cells in zip(names, *columns):
        print(findings.line(name, *cells))


PAGES = {
    "README.md": of_the_readme,
    "docs/claims.md": of_both_protocols,
    "docs/results_to_cite.md": of_the_scan,
    "docs/scan_evidence.md": of_the_scan,
}


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
    natural = [row for row in rows if (row["model"], row["solver"]) == ("natural", "paper")]
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


def test_the_readme_is_short():
    assert len((ROOT / "README.md").read_text(encoding="utf-8").split()) <= 700


def test_the_rows_of_the_figures():
    """The last one has the strongest class of the gallery."""
    for row in rows_of("hero"):
        assert row["beats_controls"] == hero.Scores.from_dict(row).beats_controls
    first = rows_of("imagenet_class")[0]
    assert imagenet_class.strongest_class() == first["class"] == 70
    [same] = [row for row in rows_of("gallery") if row["class"] == 70]
    assert first["power"] == same["power"]


def test_the_reference_sets_of_the_package_are_made_of_the_rows(tmp_path):
    found = scan_evidence.read(RESULTS, "references")
    for data, name in (("fashion", "demo"), ("cifar10", "cifar10")):
        made = scan_evidence.reference_set([each.row for each in found[data]])
        made.save(tmp_path / "made.json")
        shipped = references.SHIPPED[name]
        assert (tmp_path / "made.json").read_bytes() == shipped.read_bytes()
