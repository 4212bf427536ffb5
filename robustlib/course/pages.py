"""The pages of the assignments in the book: their notebook, and their points."""

from __future__ import annotations

import tempfile
from pathlib import Path

from robustlib.course.manifest import Manifest, Question, number
from robustlib.course.release import GRADING_SEED, STUDENT_SEED, release
from robustlib.course.sources import FOLDER, names

PAGES = Path("book") / "assignments"


def write(root: Path, source: Path, documents: set[str]) -> None:
    """Complete the pages of the assignments in the staged book.

    Parameters
    ----------
    root : of the project.
    source : the staged book; the students' notebooks are written beside the chapters, and the
        places ``{{ … }}`` of the pages are filled. Nothing else of an assignment gets there.
    documents : of the table of contents.
    """
    order = (root / "book" / "_toc.yml").read_text(encoding="utf-8")
    wanted = [name for name in names(root) if (PAGES / name).as_posix() in documents]
    wanted.sort(key=lambda name: order.find((PAGES / name).as_posix()))
    manifests = {}
    with tempfile.TemporaryDirectory() as folder:
        for name in wanted:
            made = release(name, root, Path(folder))
            manifests[name] = made.manifest
            place = source / FOLDER / f"{name}.ipynb"
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_bytes(made.student.read_bytes())
    shared = {
        key: (source / PAGES / f"_{key}.md").read_text(encoding="utf-8").strip()
        for key in ("how_to_work", "rules")
    }
    for name, manifest in manifests.items():
        parts = {key: text.replace("NAME", name) for key, text in shared.items()}
        parts |= {"points": points(manifest), "questions": questions(manifest)}
        fill(source / PAGES / f"{name}.md", parts)
    fill(
        source / PAGES / "instructors.md",
        {
            "assignments": "\n".join(map(row, manifests.values())),
            "student_seed": str(STUDENT_SEED),
            "grading_seed": str(GRADING_SEED),
        },
    )


def fill(page: Path, parts: dict[str, str]) -> None:
    """Put each part into its place ``{{ key }}`` of the page."""
    text = page.read_text(encoding="utf-8")
    for key, part in parts.items():
        text = text.replace(f"{{{{ {key} }}}}", part)
    page.write_text(text, encoding="utf-8")


def points(manifest: Manifest) -> str:
    """How much there is to earn, in a sentence.

    >>> points(Manifest("a", "A", 0, ()))
    '0, of which 0 are for hidden tests.'
    """
    hidden = number(manifest.points(hidden=True))
    return f"{number(manifest.points())}, of which {hidden} are for hidden tests."


def questions(manifest: Manifest) -> str:
    """A table of the questions and their points."""
    rows = [
        "| question | points | for public tests | for hidden tests |",
        "| --- | ---: | ---: | ---: |",
    ]
    for question in manifest.questions:
        rows.append(_line(f"{question.name[1:]}. {question.title}", question))
    return "\n".join([*rows, _line("**together**", manifest)])


def _line(what: str, worth: Question | Manifest) -> str:
    total, public, hidden = (number(worth.points(hidden=kind)) for kind in (None, False, True))
    return f"| {what} | {total} | {public} | {hidden} |"


def row(manifest: Manifest) -> str:
    """An assignment in the instructor's table."""
    total, hidden = number(manifest.points()), number(manifest.points(hidden=True))
    return f"| {{doc}}`{manifest.name}` | {total} | {hidden} |"
