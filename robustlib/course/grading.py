"""A folder of submissions to one table: a row and a page of feedback for each student.

Whatever a submission is or does, it gets its row and its reason, and the others go on. What was
graded is kept beside the table, so the same command goes on where it was stopped, and runs again
only what changed or could not be graded.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from robustlib.course import feedback
from robustlib.course.feedback import points
from robustlib.course.manifest import Manifest, number
from robustlib.course.release import Release
from robustlib.course.sandbox import Outcome, judge
from robustlib.course.submissions import (
    RefusedError,
    Submission,
    file_name,
    find,
    notebook_of,
)
from robustlib.reproduce.notebooks import write

__all__ = ["Grade", "grade", "points", "table"]


@dataclass(frozen=True)
class Grade:
    """One row: ``status`` is ``graded``, ``stopped`` (it died, or took too long) or ``refused``."""

    student: str
    status: str
    reason: str
    outcome: Outcome


def grade(
    folder: Path,
    release: Release,
    out: Path,
    *,
    time_limit: float,
    memory: float,
    workers: int = 1,
    progress: Callable[[int, int, Grade], None] | None = None,
) -> list[Grade]:
    """Grade every submission in ``folder``.

    Parameters
    ----------
    folder : of submissions, as `submissions.find` reads it.
    release : of the assignment.
    out : the table; feedback goes into the folder beside it whose name ends in ``_feedback``.
    time_limit, memory : of one submission: seconds of processor time, and GiB.
    workers : how many run at once.
    progress : called after each submission with how many are done, of how many, and its grade.

    Returns
    -------
    list of Grade
        In the order of the students' names.
    """
    manifest = release.manifest
    submissions = find(folder)
    tests = release.tests()
    store = Store(out.with_suffix(".jsonl"), manifest, tests)
    pages = out.with_name(f"{out.stem}_feedback")
    pages.mkdir(parents=True, exist_ok=True)

    def one(submission: Submission) -> Grade:
        try:
            notebook = notebook_of(submission, release.name)
        except RefusedError as refused:
            return Grade(submission.student, "refused", str(refused), Outcome(end="refused"))
        except OSError as error:
            reason = f"it cannot be read ({error.strerror})"
            return Grade(submission.student, "refused", reason, Outcome(end="refused"))
        kept = store.kept(notebook)
        outcome = kept or judge(
            notebook,
            tests,
            name=release.name,
            seed=manifest.seed,
            time_limit=time_limit,
            memory=memory,
        )
        if outcome.end != "done":
            return Grade(submission.student, "stopped", outcome.end, outcome)
        if kept is None:
            store.keep(notebook, outcome)
        return Grade(submission.student, "graded", "", outcome)

    grades: dict[Submission, Grade] = {}
    names = dict(zip(submissions, _file_names(submissions), strict=True))
    with ThreadPoolExecutor(workers) as pool:
        waiting = {pool.submit(one, submission): submission for submission in submissions}
        try:
            for done in as_completed(waiting):
                submission = waiting[done]
                result = grades[submission] = done.result()
                text = feedback.page(manifest, result.student, result.outcome, result.reason)
                write(pages / f"{names[submission]}.md", text)
                if progress:
                    progress(len(grades), len(submissions), result)
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    ordered = [grades[submission] for submission in submissions]
    write(out, table(manifest, ordered))
    return ordered


def _file_names(submissions: list[Submission]) -> Iterator[str]:
    """A name for each file of feedback, none of them twice, also where case does not count."""
    taken: set[str] = set()
    for submission in submissions:
        name = plain = file_name(submission.student)
        count = 1
        while name.lower() in taken:
            count += 1
            name = f"{plain}_{count}"
        taken.add(name.lower())
        yield name


def table(manifest: Manifest, grades: list[Grade]) -> str:
    """The grades as CSV: student, status, points, of how many, percent, each question, reason."""
    names = [question.name for question in manifest.questions]
    fields = ["student", "status", "points", "possible", "percent", *names]
    fields += ["errors", "seconds", "reason"]
    text = io.StringIO()
    rows = csv.DictWriter(text, fieldnames=fields, lineterminator="\n")
    rows.writeheader()
    for given in grades:
        earned = points(manifest, given.outcome)
        total = sum(earned.values())
        rows.writerow(
            {
                "student": cell(given.student),
                "status": given.status,
                "points": number(total),
                "possible": number(manifest.points()),
                "percent": f"{100 * total / manifest.points():.1f}",
                **{name: number(value) for name, value in earned.items()},
                "errors": len(given.outcome.errors),
                "seconds": f"{given.outcome.seconds:.1f}",
                "reason": given.reason,
            }
        )
    return text.getvalue()


def cell(text: str) -> str:
    """A name as a cell that no spreadsheet takes for a formula.

    >>> cell("ada"), cell("=1+1")
    ('ada', "'=1+1")
    """
    text = " ".join(text.split())
    return f"'{text}" if text.startswith(("=", "+", "-", "@")) else text


class Store:
    """Outcomes that are kept in a file, by notebook and tests; only those that came to an end."""

    def __init__(self, path: Path, manifest: Manifest, tests: dict[str, str]) -> None:
        self.path = path
        self.basis = json.dumps([manifest.dumps(), tests], sort_keys=True)
        self.known: dict[str, dict[str, Any]] = {}
        if path.exists():
            for line in path.read_text(encoding="utf-8").splitlines():
                try:
                    entry = json.loads(line)
                    self.known[entry["key"]] = entry["outcome"]
                except (ValueError, KeyError, TypeError):
                    continue  # cut off when it was stopped

    def key(self, notebook: str) -> str:
        return hashlib.sha256(f"{self.basis}\0{notebook}".encode()).hexdigest()

    def kept(self, notebook: str) -> Outcome | None:
        """The outcome of this notebook under these tests, if it is known."""
        found = self.known.get(self.key(notebook))
        if found is None:
            return None
        errors = [(int(cell), str(kind)) for cell, kind in found["errors"]]
        return Outcome(found["passed"], errors, found["end"], found["seconds"])

    def keep(self, notebook: str, outcome: Outcome) -> None:
        """Add an outcome to the file."""
        line = json.dumps({"key": self.key(notebook), "outcome": asdict(outcome)})
        with self.path.open("a", encoding="utf-8") as file:
            file.write(line + "\n")
