"""The commands of coursework: release assignments, and grade what comes back."""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from robustlib.reproduce.notebooks import check_writable, find_root
from robustlib.reproduce.progress import clock

if TYPE_CHECKING:
    from robustlib.course.grading import Grade

RELEASES = Path("_build") / "assignments"


def release(options: argparse.Namespace) -> int:
    """Release assignments and check them; 1 if one of them is not as it has to be."""
    from robustlib.course import sources
    from robustlib.course.manifest import number
    from robustlib.course.release import problems
    from robustlib.course.release import release as make

    root = find_root(Path.cwd())
    folder = options.out or root / RELEASES
    wrong: list[str] = []
    for name in [options.assignment] if options.assignment else sources.names(root):
        begun = time.monotonic()
        made = make(name, root, folder)
        faults = [] if options.no_check else problems(made)
        wrong += faults
        manifest = made.manifest
        checked = "not checked" if options.no_check else "solution 100 %, blank 0 %"
        print(
            f"{name}: {len(manifest.questions)} questions, {number(manifest.points())} points, "
            f"{number(manifest.points(hidden=True))} of them hidden; "
            f"{'NOT as it has to be' if faults else checked}; "
            f"{time.monotonic() - begun:.1f} s; {_short(made.folder)}"
        )
    for line in wrong:
        print(line, file=sys.stderr)
    return 1 if wrong else 0


def grade(options: argparse.Namespace) -> int:
    """Grade a folder; 1 if a submission could not be graded to its end."""
    if hasattr(os, "geteuid") and os.geteuid() == 0 and not options.allow_root:
        raise PermissionError(
            "grading runs the students' code, and you are root: use an account that may be "
            "thrown away, or say --allow-root in a container that is."
        )
    if not options.submissions.is_dir():
        raise NotADirectoryError(
            f"SUBMISSIONS={str(options.submissions)!r} is not a folder; give a folder of notebooks."
        )
    check_writable(options.out, "out")

    from robustlib.course.grading import grade as run
    from robustlib.course.release import found

    released = options.releases
    if released is None:
        released = find_root(Path.cwd()) / RELEASES
    begun = time.monotonic()
    live = sys.stderr.isatty()

    def progress(done: int, total: int, given: Grade) -> None:
        elapsed = time.monotonic() - begun
        left = elapsed / done * (total - done)
        text = given.status if given.status == "graded" else f"{given.status}: {given.reason}"
        line = (
            f"{done}/{total} {given.student!a}: {text}; {clock(elapsed)} elapsed, "
            f"about {clock(left)} left"
        )
        if live and given.status == "graded" and done < total:
            line = "\r\x1b[K" + line[: shutil.get_terminal_size().columns - 1]
            print(line, end="", file=sys.stderr, flush=True)
        else:
            print(("\r\x1b[K" if live else "") + line, file=sys.stderr, flush=True)

    grades = run(
        options.submissions,
        found(options.assignment, released),
        options.out,
        time_limit=options.time_limit,
        memory=options.memory,
        workers=options.workers,
        progress=progress,
    )
    counts = ", ".join(
        f"{sum(given.status == status for given in grades)} {status}"
        for status in ("graded", "stopped", "refused")
    )
    print(f"{counts}; {_short(options.out)}; feedback in {options.out.stem}_feedback")
    return 0 if all(given.status == "graded" for given in grades) else 1


def _short(path: Path) -> str:
    relative = os.path.relpath(path)
    return str(path) if relative.startswith("..") else relative
