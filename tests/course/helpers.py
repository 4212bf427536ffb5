"""Which assignments there are, and how a student changes a notebook."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from robustlib.course import sources

ROOT = Path(__file__).parents[2]
NAMES = sources.names(ROOT)


def edited(notebook: Any, old: str, new: str) -> Any:
    """A copy of a notebook with one piece of code changed; it has to be there exactly once."""
    result = notebook.copy()
    result.cells = [cell.copy() for cell in notebook.cells]
    places = [cell for cell in result.cells if cell.cell_type == "code" and old in cell.source]
    assert len(places) == 1, f"{old!r} stands in {len(places)} cells"
    assert places[0].source.count(old) == 1
    places[0].source = places[0].source.replace(old, new)
    return result
