"""What students handed in: found in a folder, read as text, and trusted in nothing.

A submission is a notebook, the zip file of ``grader.export()``, or a folder that holds one of the
two and is named after the student. Nothing is unpacked, no path inside a zip file is followed, and
symbolic links are refused.
"""

from __future__ import annotations

import json
import re
import stat
import zipfile
from dataclasses import dataclass
from pathlib import Path, PurePosixPath, PureWindowsPath

LARGEST = 32 * 2**20  # bytes of a notebook, pictures included
ENDINGS = (".ipynb", ".zip")


class RefusedError(ValueError):
    """A submission that cannot be graded; the message is the reason, in words for its student."""


@dataclass(frozen=True)
class Submission:
    """What lies at ``path``; ``student`` is the name of the file or folder."""

    student: str
    path: Path


def find(folder: Path) -> list[Submission]:
    """All submissions in ``folder``, sorted; hidden files are left out.

    Raises
    ------
    ValueError
        If the folder holds none.
    """
    entries = sorted(entry for entry in folder.iterdir() if not entry.name.startswith("."))
    if not entries:
        raise ValueError(
            f"SUBMISSIONS={str(folder)!r} is empty; give a folder of notebooks, one a student."
        )
    return [
        Submission(entry.name if entry.is_dir() else name_of(entry), entry) for entry in entries
    ]


def name_of(path: Path) -> str:
    """The name of a file without an ending that submissions have."""
    return path.stem if path.suffix.lower() in ENDINGS else path.name


def file_name(student: str) -> str:
    """The student's name as a file may be called on every system.

    >>> file_name("Ada L."), file_name("../../etc/passwd"), file_name("")
    ('Ada_L.', '_.._etc_passwd', '_')
    """
    return re.sub(r"[^\w.-]", "_", student, flags=re.ASCII).lstrip(".-")[:100] or "_"


def notebook_of(submission: Submission, assignment: str) -> str:
    """The notebook that was handed in, as JSON in Jupyter's present format.

    Raises
    ------
    RefusedError
        If there is none that can be run; says why.
    """
    return checked(_bytes(_single(submission.path)), assignment)


def _single(path: Path) -> Path:
    """The one file of a submission."""
    if path.is_symlink():
        raise RefusedError("it is a symbolic link; hand in the file itself")
    if not path.is_dir():
        return path
    found = sorted(entry for entry in path.iterdir() if entry.suffix.lower() in ENDINGS)
    if len(found) != 1:
        raise RefusedError(
            f"the folder holds {len(found)} notebooks and zip files; hand in exactly one"
        )
    if found[0].is_dir():
        raise RefusedError("it is a folder in a folder; hand in the file itself")
    return _single(found[0])


def _bytes(path: Path) -> bytes:
    if not stat.S_ISREG(path.lstat().st_mode):
        raise RefusedError("it is not a file; hand in a notebook")
    if path.stat().st_size > LARGEST:
        raise RefusedError(f"the file is larger than {LARGEST // 2**20} MB; clear the outputs")
    if path.suffix.lower() == ".zip":
        return _from_zip(path)
    if path.suffix.lower() != ".ipynb":
        raise RefusedError("it is not a notebook; hand in the .ipynb file or its exported zip file")
    return path.read_bytes()


def _from_zip(path: Path) -> bytes:
    try:
        with zipfile.ZipFile(path) as archive:
            for entry in archive.infolist():
                if leads_outside(entry.filename):
                    raise RefusedError("the zip file names a path outside its own folder")
                if stat.S_ISLNK(entry.external_attr >> 16):
                    raise RefusedError("the zip file holds a symbolic link")
            found = [e for e in archive.infolist() if e.filename.lower().endswith(".ipynb")]
            if len(found) != 1:
                raise RefusedError(f"the zip file holds {len(found)} notebooks; hand in one")
            with archive.open(found[0]) as file:
                content = file.read(LARGEST + 1)
    except (zipfile.BadZipFile, NotImplementedError, RuntimeError, EOFError, OSError) as error:
        raise RefusedError(
            "the zip file is damaged, or locked with a password; export it again"
        ) from error
    if len(content) > LARGEST:
        raise RefusedError(f"the notebook is larger than {LARGEST // 2**20} MB; clear the outputs")
    return content


def leads_outside(name: str) -> bool:
    """Whether a path of a zip file leaves the folder in which it would be unpacked.

    >>> [leads_outside(name) for name in ("a/b.ipynb", "../a.ipynb", "/a", r"C:\\a", r"..\\a")]
    [False, True, True, True, True]
    """
    return any(
        kind(name).is_absolute() or bool(kind(name).drive) or ".." in kind(name).parts
        for kind in (PurePosixPath, PureWindowsPath)
    )


def checked(content: bytes, assignment: str) -> str:
    """The notebook in ``content``, checked and without its outputs."""
    import nbformat

    if not content.strip():
        raise RefusedError("the file is empty; save the notebook and hand it in again")
    try:
        plain = json.loads(content)
        notebook = nbformat.reads(json.dumps(plain), as_version=4)
        nbformat.validate(notebook)
        cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    except (RecursionError, Exception) as error:
        raise RefusedError("it is not a readable notebook; open it in Jupyter and save it") from (
            error
        )
    if not any(cell.source.strip() for cell in cells):
        raise RefusedError("the notebook has no code")
    about = notebook.metadata.get("otter", {})
    given = about.get("assignment_name") if isinstance(about, dict) else None
    if given != assignment:
        raise RefusedError(
            "it is the notebook of another assignment"
            if given
            else "it was not made from the notebook of this assignment"
        )
    for cell in cells:
        cell.outputs, cell.execution_count = [], None
    return str(nbformat.writes(notebook))
