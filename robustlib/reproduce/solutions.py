"""The code in the solutions of a chapter's exercises, run after the chapter's own cells.

A solution is a folded ``{solution}`` block of the prose; its ``python`` fences are shown and not
executed when the book's run is recorded. A run at profile ``quick`` executes each of them after the
last cell, in the state that the chapter has left, and fails where one fails: so the solutions are
tested wherever the notebooks are, and no chapter runs twice.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

TAG = "solution-of-an-exercise"
BLOCK = r"^(?P<ticks>`{3,})%s[ ]*\n(?P<text>.*?)^(?P=ticks)`*[ ]*$"
SOLUTION = re.compile(BLOCK % r"\{solution\}[ ]*(?P<exercise>\S+)", re.MULTILINE | re.DOTALL)
FENCE = re.compile(BLOCK % "python", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True)
class Solution:
    """The code of one solution: the label of its exercise, and its fences one after the other."""

    exercise: str
    code: str


def solutions(notebook: Any) -> list[Solution]:
    """The solutions of a chapter that hold code, in the order of the page."""
    found = []
    for cell in notebook.cells:
        if cell.cell_type != "markdown":
            continue
        for block in SOLUTION.finditer(cell.source):
            code = "\n".join(fence["text"] for fence in FENCE.finditer(block["text"]))
            if code:
                found.append(Solution(block["exercise"], code))
    return found


def with_solutions(notebook: Any) -> Any:
    """The notebook with one more cell for each solution, at its end.

    Each runs in a copy of the chapter's names: what one solution defines, another does not see, as
    for a reader who tries one exercise and leaves the others.
    """
    import nbformat

    cells = list(notebook.cells)
    for number, solution in enumerate(solutions(notebook), start=1):
        code = f"exec(compile({solution.code!r}, {solution.exercise!r}, 'exec'), dict(globals()))"
        about = {"tags": [TAG], "exercise": solution.exercise, "shown": solution.code}
        cells.append(nbformat.v4.new_code_cell(code, id=f"solution-{number}", metadata=about))
    return nbformat.from_dict({**notebook, "cells": cells})
