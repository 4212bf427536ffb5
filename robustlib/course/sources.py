"""The sources of the assignments: which there are, and how one is read."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

from robustlib import checks
from robustlib.reproduce.notebooks import BookError

FOLDER = Path("notebooks") / "assignments"


def names(root: Path) -> list[str]:
    """The names of all assignments of the project in ``root``."""
    return sorted(path.stem for path in (root / FOLDER).glob("*.md"))


def path_of(name: str, root: Path) -> Path:
    """The source of the assignment ``name``.

    Raises
    ------
    BookError
        If there is none; the message holds the nearest names.
    """
    try:
        checks.choice("assignment", name, names(root))
    except ValueError as error:
        raise BookError(str(error)) from None
    return root / FOLDER / f"{name}.md"


def load(path: Path) -> Any:
    """The source as a notebook, its cells with ids that depend on their text alone."""
    import jupytext

    notebook = jupytext.read(path)
    notebook.nbformat, notebook.nbformat_minor = 4, 5
    notebook.metadata.pop("jupytext", None)
    name_cells(notebook)
    return notebook


def name_cells(notebook: Any) -> None:
    """Give each cell an id that depends on its text, and on nothing else, in place."""
    seen: dict[str, int] = {}
    for cell in notebook.cells:
        count = seen[cell.source] = seen.get(cell.source, -1) + 1
        cell.id = hashlib.sha256(f"{count}:{cell.source}".encode()).hexdigest()[:12]
