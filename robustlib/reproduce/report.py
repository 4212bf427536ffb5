"""The reproducibility report: a generated page of the book, with the same as JSON and CSV."""

from __future__ import annotations

import csv
import io
import json
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from robustlib.reproduce.claims import Claim, in_words, load_yaml
from robustlib.reproduce.comparison import NOT_REPRODUCED, NOT_RUN, REPRODUCED, Comparison, Row
from robustlib.reproduce.notebooks import BookError, write
from robustlib.reproduce.recording import Value

SYMBOLS = {REPRODUCED: "✓", NOT_REPRODUCED: "✗", NOT_RUN: "–"}
MARKS = {
    "quoted": "",
    "digitised": "digitized, about",
    "derived": "derived",
    "recalled-unverified": "recalled, unverified",
    "statement": "statement",
}


@dataclass(frozen=True)
class Item:
    """A figure, table or theorem of a paper.

    ``chapter`` names a page that shows it; ``because`` says why none does.
    """

    paper: str
    item: str
    title: str
    chapter: str | None = None
    because: str | None = None


def load_targets(root: Path) -> tuple[dict[str, str], list[Item]]:
    """Read ``book/targets.yml``: the papers' titles by key, and all items in order.

    Raises
    ------
    BookError
        An unknown or missing field, or an item that is there twice; named.
    """
    path = root / "book" / "targets.yml"
    titles: dict[str, str] = {}
    items: list[Item] = []
    for paper in load_yaml(path) or []:
        try:
            titles[paper["paper"]] = paper["title"]
            found = [Item(paper["paper"], **item) for item in paper["items"]]
        except (KeyError, TypeError) as error:
            raise BookError(f"{path}: an entry of {paper!r:.60} does not fit: {error}") from None
        items += found
    twice = [key for key, n in Counter((i.paper, i.item) for i in items).items() if n > 1]
    if twice:
        raise BookError(f"{path}: {twice[0]} is there twice.")
    return titles, items


def missing_items(items: list[Item], claims: list[Claim]) -> list[Item]:
    """The items that no claim names and that no page shows."""
    claimed = {(claim.paper, claim.item) for claim in claims}
    return [i for i in items if i.chapter is None and (i.paper, i.item) not in claimed]


def write_report(root: Path, folder: Path, comparison: Comparison, pages: set[str]) -> Path:
    """Write the page and its two data files to ``folder``; return the page.

    Parameters
    ----------
    root : Path
        The repository.
    folder : Path
        Where the staged pages of ``book/`` are.
    comparison : Comparison
        What `compare` gave.
    pages : set of str
        The documents of the book, so that only those are linked.
    """
    titles, items = load_targets(root)
    rows = comparison.rows
    write(folder / "reproducibility.json", as_json(comparison))
    write(folder / "reproducibility.csv", as_csv(comparison))
    page = folder / "reproducibility_report.md"
    parts = [_opening(comparison)]
    for paper in dict.fromkeys([*titles, *(row.claim.paper for row in rows)]):
        own = [row for row in rows if row.claim.paper == paper]
        if own:
            parts.append(_section(paper, titles.get(paper, paper), own, pages))
    parts.append(_missing(titles, missing_items(items, [row.claim for row in rows])))
    write(page, "\n\n".join(parts) + "\n")
    return page


def as_json(comparison: Comparison) -> str:
    """The rows as a JSON list."""
    return json.dumps([row.to_dict() for row in comparison.rows], indent=1, ensure_ascii=False)


def as_csv(comparison: Comparison) -> str:
    """The rows as CSV, one line a claim."""
    rows = [row.to_dict() for row in comparison.rows]
    text = io.StringIO()
    if rows:
        table = csv.DictWriter(text, fieldnames=list(rows[0]), lineterminator="\n")
        table.writeheader()
        table.writerows(rows)
    return text.getvalue()


def summary(verdicts: list[str]) -> str:
    """How many verdicts of each kind, in words.

    >>> summary(["reproduced", "not run", "reproduced"])
    '2 reproduced, 0 not reproduced, 1 not run'
    """
    counts = Counter(verdicts)
    return ", ".join(f"{counts[name]} {name}" for name in SYMBOLS)


def _opening(comparison: Comparison) -> str:
    rows = comparison.rows
    runs = list(comparison.runs.values())
    lines = [
        "# Reproducibility report",
        "Every value that this book claims, next to the paper's value. The *reference run* is the "
        "recorded run that the pages show; *this run* is what executing the notebooks gave on the "
        "machine that built this copy of the book. In parentheses stands the interval of a "
        "value; seconds are those of the whole notebook. "
        "`make book` makes this page anew.",
        f"**Reference run**, {len(rows)} claims: "
        f"{summary([row.reference_verdict for row in rows])}.",
    ]
    if runs:
        lines.append(
            f"**This run**, profile `{comparison.profile}`: "
            f"{summary([row.verdict for row in rows])}. " + _how_made(runs)
        )
        lines.append(
            "A claim that needs the scale of the reference run counts as *not run* in a "
            "`quick` run; its recorded value stands beside it."
        )
    else:
        lines.append(
            f"**This run**: there is none. Make one with "
            f"`robustlib reproduce --profile {comparison.profile}`."
        )
    if comparison.problems:
        lines.append("**Out of order**:")
        lines.append("\n".join(f"* {problem}" for problem in comparison.problems))
    lines.append(
        "All rows to download: {download}`CSV <reproducibility.csv>`, "
        "{download}`JSON <reproducibility.json>`."
    )
    return "\n\n".join(lines)


def _how_made(runs: list[dict[str, Any]]) -> str:
    def all_of(field: str) -> str:
        return "; ".join(sorted({str(run[field]) for run in runs if field in run}))

    packages = {f"{n} {v}" for run in runs for n, v in run.get("versions", {}).items()}
    seconds = sum(run.get("seconds", 0.0) for run in runs)
    return (
        f"{len(runs)} notebooks in {seconds:.0f} s, made {all_of('date')} on {all_of('machine')}, "
        f"{all_of('commit')}, with {', '.join(sorted(packages, key=str.lower))}."
    )


COLUMNS = ("Claim", "Paper", "Reference run", "This run")


def _section(paper: str, title: str, rows: list[Row], pages: set[str]) -> str:
    verdicts = summary([row.reference_verdict for row in rows])
    table = ["```{list-table}\n:header-rows: 1\n:widths: 34 24 21 21"]
    table.append(f":name: report-{paper}\n:class: report-table\n")
    table.append(_cells(COLUMNS))
    table += [_cells(_row(row, pages)) for row in rows]
    return f"## {title}\n\n{{cite}}`{paper}`; reference run: {verdicts}.\n\n" + "\n".join(
        [*table, "```"]
    )


def _cells(cells: tuple[str, ...]) -> str:
    return "\n".join(f"{'*' if n == 0 else ' '} - {cell}" for n, cell in enumerate(cells))


def _row(row: Row, pages: set[str]) -> tuple[str, ...]:
    claim = row.claim
    where = f"notebooks/{claim.notebook}"
    name = claim.notebook.rsplit("/", 1)[-1].replace("_", " ")
    page = f"{{doc}}`{name} </{where}>`" if where in pages else name
    claimed = claim.statement if claim.claimed is None else f"{claim.claimed:g}"
    mark = f" ({MARKS[claim.status]})" if MARKS[claim.status] else ""
    reason = f" Why: {claim.because}" if claim.because else ""
    return (
        f"**{claim.item}.** {claim.quantity} ({page}).{reason}",
        f"{claimed}{mark}",
        _result(
            row.reference,
            row.reference_interval,
            row.reference_verdict,
            row.reference_seconds,
            claim,
        ),
        _result(row.run, row.run_interval, row.verdict, row.seconds, claim),
    )


def _result(
    value: Value | None,
    interval: tuple[float, float] | None,
    verdict: str,
    seconds: float | None,
    claim: Claim,
) -> str:
    shown = "" if value is None else f"{number(value)} "
    if interval is not None:
        shown += f"({number(interval[0])} to {number(interval[1])}) "
    badge = f"[{SYMBOLS[verdict]} {verdict}]{{.verdict .verdict-{verdict.replace(' ', '-')}}}"
    wanted = f" wanted {in_words(claim)}," if verdict == NOT_REPRODUCED else ""
    took = "" if seconds is None else f" {seconds:.0f}\u00a0s"
    return shown + badge + wanted + took


def number(value: Value) -> str:
    """A value in a table: six significant digits, whole numbers in full.

    >>> number(0.04381234), number(10000), number(True)
    ('0.0438123', '10000', 'true')
    """
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def _missing(titles: dict[str, str], items: list[Item]) -> str:
    lines = ["## Not there yet"]
    if not items:
        return "\n\n".join([*lines, "Nothing: every figure, table and theorem has its place."])
    lines.append("Figures, tables and theorems of the papers that this book does not show yet.")
    for paper, title in titles.items():
        own = [item for item in items if item.paper == paper]
        if own:
            lines.append(f"### {title}")
            lines.append("\n".join(_absent(item) for item in own))
    return "\n\n".join(lines)


def _absent(item: Item) -> str:
    reason = f". Not shown: {item.because}" if item.because else ""
    return f"* **{item.item}.** {item.title}{reason}"
