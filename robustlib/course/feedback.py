"""One page a student: what was earned, and what to think about. No code of any test is in it."""

from __future__ import annotations

from robustlib.course.manifest import Manifest, Question, number
from robustlib.course.sandbox import Outcome


def page(manifest: Manifest, student: str, outcome: Outcome, reason: str) -> str:
    """The feedback on one submission, in Markdown.

    Parameters
    ----------
    manifest : what the assignment asks.
    student : the name, which goes into the page in plain letters only.
    outcome : what the notebook did.
    reason : why it could not be graded to its end; empty if it could.
    """
    earned = points(manifest, outcome)
    lines = [
        f"# {manifest.title}",
        "",
        f"Submission: {plain(student)}",
        "",
        f"**{number(sum(earned.values()))} of {number(manifest.points())} points.**",
        "",
    ]
    if reason:
        lines += [f"Not graded to its end: {reason}.", ""]
    lines += [
        "| question | public tests | hidden tests | points |",
        "| --- | ---: | ---: | ---: |",
    ]
    for question in manifest.questions:
        passed = outcome.passed.get(question.name, [])
        cells = [f"{question.name[1:]}. {question.title}"]
        for hidden in (False, True):
            due = question.points(hidden=hidden)
            got = sum(
                test.points
                for test, ok in zip(question.tests, passed, strict=False)
                if ok and test.hidden == hidden
            )
            cells.append(f"{number(got)} of {number(due)}" if due else "none")
        cells.append(f"{number(earned[question.name])} of {number(question.points())}")
        lines.append("| " + " | ".join(cells) + " |")
    hints = [hint for question in manifest.questions for hint in _hints(question, outcome)]
    if hints:
        lines += ["", "## What to think about", "", *hints]
    if outcome.errors:
        lines += ["", "## Cells that raised an error", ""]
        lines += [f"- code cell {cell}: {kind}" for cell, kind in outcome.errors]
    return "\n".join(lines) + "\n"


def _hints(question: Question, outcome: Outcome) -> list[str]:
    passed = outcome.passed.get(question.name)
    if passed is None:
        return [f"- **{question.name}** was not reached."]
    return [
        f"- **{question.name}**, {'hidden' if test.hidden else 'public'} test: {test.hint}"
        for test, ok in zip(question.tests, passed, strict=False)
        if not ok
    ]


def points(manifest: Manifest, outcome: Outcome) -> dict[str, float]:
    """What each question earned; a result of another shape than the question's earns nothing."""
    earned = {}
    for question in manifest.questions:
        passed = outcome.passed.get(question.name, [])
        fits = len(passed) == len(question.tests)
        earned[question.name] = (
            sum(test.points for test, ok in zip(question.tests, passed, strict=True) if ok)
            if fits
            else 0.0
        )
    return earned


def plain(text: str) -> str:
    """Letters, digits and a few marks; everything else becomes ``?``, so that nothing is markup.

    >>> plain("ada <b>"), plain("=cmd()")
    ('ada ?b?', '?cmd??')
    """
    return "".join(c if c.isalnum() or c in " ._-" else "?" for c in text)[:100]
