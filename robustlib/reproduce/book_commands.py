"""The commands that make the book: reproduce, check, book, serve."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from robustlib.reproduce.notebooks import chapters, find_root


def reproduce(options: argparse.Namespace) -> int:
    """Run the notebooks; 1 if one of them fails."""
    from robustlib.reproduce.reference import renew_prose
    from robustlib.reproduce.runner import reproduce

    root = find_root(Path.cwd())
    only = [_plain_name(name) for name in options.only or []]
    found = chapters(root, only)
    if options.prose:
        for chapter in found:
            print(f"{chapter.name}: {'renewed' if renew_prose(chapter) else 'unchanged'}")
        return 0
    outcomes = reproduce(
        found,
        options.profile,
        jobs=options.jobs,
        force=options.force,
        record=options.record,
    )
    failed = [outcome for outcome in outcomes if outcome.status == "failed"]
    for outcome in failed:
        print(f"\n{outcome.error}", file=sys.stderr)
    counts = ", ".join(
        f"{sum(outcome.status == status for outcome in outcomes)} {status}"
        for status in ("ran", "kept", "failed")
    )
    print(f"notebooks at profile {options.profile}: {counts}")
    return 1 if failed else 0


def _plain_name(name: str) -> str:
    return name.removeprefix("notebooks/").removesuffix(".md").removesuffix(".ipynb")


def check(options: argparse.Namespace) -> int:
    """Compare the claims with what was recorded; 1 if something required does not hold."""
    from robustlib.reproduce.comparison import compare
    from robustlib.reproduce.report import as_json, summary
    from robustlib.reproduce.site import report_page, site_index

    root = find_root(Path.cwd())
    comparison = compare(root, options.profile)
    for line in [*comparison.problems, *comparison.failing()]:
        print(line, file=sys.stderr)
    if options.json:
        print(as_json(comparison))
        return 0 if comparison.ok else 1
    rows = comparison.rows
    print(f"reference run: {summary([row.reference_verdict for row in rows])}")
    print(f"{options.profile} run here: {summary([row.verdict for row in rows])}")
    if site_index(root).exists():
        print(f"book:   {site_index(root)}")
        print(f"report: {report_page(root)}")
    print("all that is required holds" if comparison.ok else "NOT all that is required holds")
    return 0 if comparison.ok else 1


def book(options: argparse.Namespace) -> int:
    """Build the book with the report of the last run."""
    from robustlib.reproduce.comparison import compare
    from robustlib.reproduce.site import build, report_page

    root = find_root(Path.cwd())
    index = build(root, compare(root, options.profile))
    print(f"book:   {index}")
    print(f"report: {report_page(root)}")
    return 0


def serve(options: argparse.Namespace) -> int:
    """Show the built book until Ctrl-C."""
    from robustlib.reproduce import site

    try:
        site.serve(find_root(Path.cwd()), options.port)
    except KeyboardInterrupt:
        print()
    return 0
