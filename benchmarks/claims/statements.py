"""The verdicts of ``claims/pooled.py`` as tables: lines of Markdown, made from the rows."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from findings import Table, head, line, read_rows

from captum_classpattern.comparison.records import grouped
from claims.models import CIFAR10, FASHION
from claims.pooled import LEAST_SEEDS, NATURAL, Pooled, claim_2, pooled
from claims.rows import FILE, TRANSFER, Measured, by_kind
from claims.tables import powers
from claims.verdicts import FAILS, HOLDS, ITSELF, OPEN, Kinds, backdoored, has_learnt

DATA = (CIFAR10, FASHION)  # the paper's first
TRIGGER = "works as a trigger on"
FORMS = {"components": "+.1f", "total variation": "+.3f", "high frequency share": "+.3f"}

Found = Mapping[str, Sequence[Pooled]]  # all statements, by data set


def kinds_in(folder: Path) -> dict[str, Kinds]:
    """The networks of each data set."""
    rows = read_rows(folder / FILE)
    return {data: by_kind(row for row in rows if row["data"] == data) for data in DATA}


def statements_in(folder: Path) -> dict[str, list[Pooled]]:
    """All statements on each data set."""
    pairs = read_rows(folder / TRANSFER)
    return {
        data: [*pooled(kinds, [row for row in pairs if row["data"] == data], data)]
        for data, kinds in kinds_in(folder).items()
    }


def number(each: Pooled, value: float) -> str:
    """A value of a statement: points, but for the scores of a shape."""
    score = each.statement.partition("simpler, ")[2]
    return f"{value:{FORMS[score]}}" if score else f"{100 * value:+.1f}"


def said(each: Pooled | None) -> str:
    """A verdict with the estimate and its interval, cut at the possible; without an interval where
    seeds do not differ, or with the number of seeds if there are too few."""
    if each is None:
        return ""
    if len(each.values) < LEAST_SEEDS:
        seeds = "one seed" if len(each.values) == 1 else f"{len(each.values) or 'no'} seeds"
        return f"{each.verdict} ({seeds})"
    shown = f"{each.verdict}: {number(each, each.mean)}"
    ends = each.interval
    if each.claim == "2":  # differences of two shares
        ends = max(ends[0], -1.0), min(ends[1], 1.0)
    low, high = (number(each, end) for end in ends)
    return f"{shown} ({'the same in all seeds' if low == high else f'{low} to {high}'})"


def words_of(each: Pooled) -> str:
    """A statement as a column, or a row of the summary."""
    if each.claim == "3":
        own = each.models == ITSELF
        return f"{TRIGGER} {'its own network' if own else 'other networks'}"
    words = each.statement.removeprefix("target: ")
    return words.replace("simpler, components", "simpler, pieces")


def whose(each: Pooled) -> str:
    return "ours" if each.ours else "paper"


def summary(found: Found) -> Iterator[str]:
    """How many of the settings (networks, canvas, area) of each statement have which verdict."""
    yield head(
        *("statement", "claim", "data", "whose", "settings"),
        *(FAILS, OPEN, HOLDS, "estimates"),
    )
    for data, each_of in found.items():
        groups = grouped(((one.claim, words_of(one), whose(one)), one) for one in each_of)
        for (claim, words, by), group in groups.items():
            said_of = [one.verdict for one in group]
            counts = map(said_of.count, (FAILS, OPEN, HOLDS))
            yield line(words, claim, data, by, len(group), *counts, ends_of(group))


def ends_of(group: Sequence[Pooled]) -> str:
    """The lowest and the highest estimate, of those with enough seeds."""
    known = [each for each in group if len(each.values) >= LEAST_SEEDS]
    ends = sorted(known, key=lambda each: each.mean)[:: max(1, len(known) - 1)]
    return " to ".join(number(each, each.mean) for each in ends)


def by_statement(found: Found, claim: str) -> Iterator[str]:
    """All verdicts of a claim: a row for each setting, a column for each statement."""
    of_claim = {
        data: [each for each in found_in if each.claim == claim] for data, found_in in found.items()
    }
    names = {words_of(each): whose(each) for group in of_claim.values() for each in group}
    yield head("data", "networks", "canvas, area", *(f"{w} ({by})" for w, by in names.items()))
    for data, group in of_claim.items():
        rows = grouped(((each.models, each.setting), each) for each in group)
        for key, of_row in rows.items():
            columns = {words_of(each): each for each in of_row}
            yield line(data, *key, *(said(columns.get(name)) for name in names))


def below_the_bound(folder: Path) -> dict[str, list[Pooled]]:
    """Claim 2 on the networks whose trigger missed the bound, as if they had learnt it. This is
    exploratory: by the rule, these networks do not count."""
    found: dict[str, list[Pooled]] = {}
    for data, kinds in kinds_in(folder).items():
        short = {k for k in backdoored(kinds, data) if not has_learnt(*kinds[k].values())}
        counted = {
            kind: {seed: Measured({**each.row, "learnt": 1.0}) for seed, each in runs.items()}
            for kind, runs in kinds.items()
            if kind in short
        }
        if counted:
            found[data] = [*claim_2({NATURAL: kinds.get(NATURAL, {}), **counted}, data)]
    return found


def classes(found: Found) -> Iterator[str]:
    """In how many classes both patterns beat their controls, so that claim 4 takes them."""
    yield head("data", "networks", "canvas, area", "classes that count, by seed")
    for data, group in found.items():
        rows = {(each.models, each.setting): each.classes for each in group if each.classes}
        for key, by_seed in rows.items():
            yield line(data, *key, ", ".join(map(str, by_seed.values())))


def natural(folder: Path) -> Iterator[str]:
    """The power of natural networks, next to the strongest control."""
    for data, kinds in kinds_in(folder).items():
        some = {kind: runs for kind, runs in kinds.items() if kind.split()[-1] == NATURAL}
        title, *rows = powers(some)
        if data == DATA[0]:
            yield title.replace("| ", "| data | ", 1).replace("|---|", "|---|---|", 1)
        yield from (f"| {data} {row}" for row in rows)


def tables(folder: Path) -> Iterator[Table]:
    found = statements_in(folder)
    made: dict[str, Callable[[], Iterator[str]]] = {
        "the verdicts in short": lambda: summary(found),
        "natural networks": lambda: natural(folder),
        **{f"claim {n}": lambda n=n: by_statement(found, n) for n in "1234"},
        "claim 4: classes that count": lambda: classes(found),
    }
    if short := below_the_bound(folder):
        made["claim 2: networks below the bound (exploratory)"] = lambda: by_statement(short, "2")
    for title, table in made.items():
        yield title, [*table()]
