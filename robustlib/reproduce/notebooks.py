"""The notebooks of the book: where they are, what they hold, and what their results depend on."""

from __future__ import annotations

import difflib
import hashlib
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from robustlib.reproduce.origin import versions
from robustlib.reproduce.solutions import TAG as SOLUTION
from robustlib.reproduce.solutions import solutions

PROFILES = ("quick", "reference")
PARAMETERS = ("profile", "seed")
INJECTED = "injected-parameters"
LIBRARY = Path(__file__).resolve().parents[1]
SEEN_BY_NOTEBOOKS = ("__init__.py", "recording.py", "origin.py", "long_runs.py")


class BookError(ValueError):
    """Something in the book's sources does not fit together; the message says what and where."""


@dataclass(frozen=True)
class Chapter:
    """One notebook: ``name`` is ``PART/NAME``, ``root`` the folder that holds ``notebooks/``."""

    name: str
    root: Path

    @property
    def source(self) -> Path:
        """The MyST source, what people edit."""
        return self.root / "notebooks" / f"{self.name}.md"

    @property
    def recorded(self) -> Path:
        """The recorded run that the book shows."""
        return self.root / "notebooks" / f"{self.name}.ipynb"

    def executed(self, profile: str) -> Path:
        """The last run at ``profile`` on this machine."""
        return self.root / "_build" / "run" / profile / f"{self.name}.ipynb"


def find_root(start: Path) -> Path:
    """The nearest folder at or above ``start`` that holds ``notebooks/`` and ``book/``."""
    for folder in (start.resolve(), *start.resolve().parents):
        if (folder / "notebooks").is_dir() and (folder / "book").is_dir():
            return folder
    raise BookError(
        f"{start.resolve()} is not inside the book's repository (no notebooks/ and book/ at or "
        "above it); change into your clone first."
    )


def chapters(root: Path, only: list[str] | None = None) -> list[Chapter]:
    """All chapters ``notebooks/**/NAME.md`` in the order of their names, or those in ``only``.

    Assignments are no chapters: `robustlib.course` reads them.
    """
    base = root / "notebooks"
    names = sorted(
        path.relative_to(base).with_suffix("").as_posix()
        for path in base.rglob("*.md")
        if _is_notebook(path) and path.relative_to(base).parts[0] != "assignments"
    )
    for name in only or []:
        if name not in names:
            near = difflib.get_close_matches(name, names, n=3, cutoff=0.3)
            hint = f" Did you mean {' or '.join(near)}?" if near else ""
            raise BookError(f"no notebook {name!r} in {base}.{hint} There are: {', '.join(names)}.")
    return [Chapter(name, root) for name in names if not only or name in only]


def _is_notebook(path: Path) -> bool:
    with path.open(encoding="utf-8") as file:
        return file.readline().strip() == "---" and "jupytext" in file.read(2000)


def load_source(chapter: Chapter) -> Any:
    """The source as a notebook without outputs, with cell ids that depend on the text alone.

    Raises
    ------
    BookError
        A source without a cell tagged ``parameters``, or whose parameters are not ``profile`` and
        ``seed`` (papermill would only warn).
    """
    import jupytext

    notebook = jupytext.read(chapter.source)
    notebook.nbformat, notebook.nbformat_minor = 4, 5
    notebook.metadata.get("jupytext", {}).pop("text_representation", None)
    seen: dict[str, int] = {}
    for cell in notebook.cells:
        count = seen[cell.source] = seen.get(cell.source, -1) + 1
        cell.id = hashlib.sha256(f"{count}:{cell.source}".encode()).hexdigest()[:12]
    missing = [name for name in PARAMETERS if name not in parameters(notebook)]
    if missing:
        raise BookError(
            f"{chapter.name}: no parameter {' and no parameter '.join(missing)}; the first code "
            "cell is tagged 'parameters' and sets profile and seed."
        )
    return notebook


def parameters(notebook: Any) -> dict[str, Any]:
    """The names and default values (Python literals) in the cell tagged ``parameters``."""
    import ast

    for cell in code_cells(notebook):
        if "parameters" in cell.metadata.get("tags", []):
            pairs = [
                (target.id, ast.literal_eval(statement.value))
                for statement in ast.parse(cell.source).body
                if isinstance(statement, ast.Assign)
                for target in statement.targets
                if isinstance(target, ast.Name)
            ]
            return dict(pairs)
    return {}


def code_cells(notebook: Any) -> list[Any]:
    """The code cells of a notebook, without those that running it puts in."""
    added = {INJECTED, SOLUTION}
    return [
        cell
        for cell in notebook.cells
        if cell.cell_type == "code" and not added & set(cell.metadata.get("tags", []))
    ]


def same_code(first: Any, second: Any) -> bool:
    """Whether two notebooks have the same code cells; prose and outputs are left out."""
    codes = [[cell.source.strip() for cell in code_cells(notebook)] for notebook in (first, second)]
    return codes[0] == codes[1]


def with_outputs(source: Any, executed: Any) -> Any:
    """The cells of ``source`` with the outputs of ``executed``, which has the same code.

    Prose and cell metadata come from the source, so that a corrected sentence needs no new run.
    """
    result = source.copy()
    result.cells = [cell.copy() for cell in source.cells]
    for number, (cell, ran) in enumerate(
        zip(code_cells(result), code_cells(executed), strict=True), start=1
    ):
        cell.execution_count = number
        cell.outputs = [output.copy() for output in ran.outputs]
        for output in cell.outputs:
            if "execution_count" in output:
                output.execution_count = number
    result.metadata = source.metadata.copy()
    for name in ("language_info", "robustlib"):
        if name in executed.metadata:
            result.metadata[name] = executed.metadata[name]
    return result


def run_key(notebook: Any, profile: str) -> str:
    """What the results of a notebook depend on, as a hash.

    That is its code, the profile, the library's source, the trained checkpoints in it, and the
    versions of the packages; at ``quick`` the code of the solutions too. Prose is left out: a new
    sentence needs no new run.
    """
    parts: dict[str, Any] = {
        "code": [cell.source.strip() for cell in code_cells(notebook)],
        "profile": profile,
        "library": library_hash(),
        "versions": versions(),
    }
    if profile == "quick":
        parts["solutions"] = [solution.code for solution in solutions(notebook)]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def code_hash(notebook: Any) -> str:
    """A hash of the code cells alone."""
    code = json.dumps([cell.source.strip() for cell in code_cells(notebook)])
    return hashlib.sha256(code.encode()).hexdigest()


def library_hash() -> str:
    """A hash of the library's files that a notebook can see: modules, data, checkpoints."""
    total = hashlib.sha256()
    for path in sorted(LIBRARY.rglob("*")):
        relative = path.relative_to(LIBRARY)
        unseen = relative.parts[0] == "reproduce" and relative.name not in SEEN_BY_NOTEBOOKS
        unseen = unseen or relative.parts[0] == "course"
        if not path.is_file() or "__pycache__" in relative.parts or unseen:
            continue
        total.update(f"{relative.as_posix()}:{path.stat().st_size}:".encode())
        total.update(path.read_bytes())
    return total.hexdigest()


def read(path: Path) -> Any | None:
    """The notebook at ``path``; ``None`` where there is none."""
    import nbformat

    if not path.exists():
        return None
    try:
        return nbformat.read(path, as_version=4)
    except Exception as error:
        raise BookError(f"{path} is not a readable notebook ({error}); remove it.") from error


def check_writable(path: Path, argument: str = "") -> None:
    """Refuse before any work, with a `BookError`, when no file can be written at ``path``."""
    name = f"{argument}={str(path)!r}" if argument else repr(str(path))
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        probe = path.with_name(f".{path.name}.{os.getpid()}")
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise BookError(
            f"{name} cannot be written ({error.strerror}); give a place where you may write."
        ) from None
    if path.is_dir():
        raise BookError(f"{name} is a folder; give the name of a file.")


def write(path: Path, text: str) -> None:
    """Write ``text`` so that a reader sees the old file or the whole new one, never a part."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.{os.getpid()}")
    part.write_text(text, encoding="utf-8")
    os.replace(part, path)


def write_notebook(path: Path, notebook: Any) -> None:
    """Write a notebook in one step, in the layout that Jupyter uses."""
    import nbformat

    nbformat.validate(notebook)
    write(path, nbformat.writes(notebook) + "\n")
