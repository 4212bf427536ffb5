"""What an assignment asks, and what each of its tests is worth: without the code of any test."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Test:
    """One test of a question; ``hint`` is what a student may read when it fails."""

    __test__ = False  # not one for pytest

    points: float
    hidden: bool
    hint: str


@dataclass(frozen=True)
class Question:
    """A question with its tests, in their order."""

    name: str
    title: str
    tests: tuple[Test, ...]

    def points(self, *, hidden: bool | None = None) -> float:
        """What the tests are worth: all of them, or the hidden or public ones alone."""
        return sum(t.points for t in self.tests if hidden is None or t.hidden == hidden)


@dataclass(frozen=True)
class Manifest:
    """An assignment: its questions, and the seed that the grader puts in place of the student's."""

    name: str
    title: str
    seed: int
    questions: tuple[Question, ...]

    def points(self, *, hidden: bool | None = None) -> float:
        """What the questions are worth together: as in `Question.points`."""
        return sum(question.points(hidden=hidden) for question in self.questions)

    def dumps(self) -> str:
        """As JSON."""
        return json.dumps(asdict(self), indent=1) + "\n"


def read(path: Path) -> Manifest:
    """A manifest that was written with `Manifest.dumps`."""
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    questions = tuple(
        Question(q["name"], q["title"], tuple(Test(**test) for test in q["tests"]))
        for q in found["questions"]
    )
    return Manifest(found["name"], found["title"], found["seed"], questions)


def number(points: float) -> str:
    """Points as a person writes them.

    >>> number(4.0), number(2.5)
    ('4', '2.5')
    """
    return f"{round(points, 2):g}"
