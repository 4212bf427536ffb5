"""Grading a folder: whatever a submission is or does, it gets its row, and the others go on."""

from __future__ import annotations

import csv
import json
import os
import zipfile
from pathlib import Path

import nbformat
import pytest

from robustlib.course import sources
from robustlib.course.submissions import RefusedError, Submission, file_name, find, notebook_of
from robustlib.reproduce.cli import main
from tests.course.helpers import ROOT
from tests.course.test_release import secret_lines

NAME = "linear_models"


def with_cell(path: Path, source: Path, code: str) -> None:
    """The notebook at ``source`` with one more cell, before the third question is checked."""
    notebook = nbformat.read(str(source), as_version=4)
    (place,) = (i for i, cell in enumerate(notebook.cells) if cell.source == 'grader.check("q3")')
    notebook.cells.insert(place, nbformat.v4.new_code_cell(code))
    nbformat.write(notebook, str(path))


def grade(folder: Path, out: Path, releases: Path, *more: str) -> int:
    command = ["course", "grade", str(folder), "--assignment", NAME, "--out", str(out)]
    return main([*command, "--releases", str(releases), "--allow-root", *more])


def rows(out: Path) -> dict[str, dict[str, str]]:
    with out.open(newline="") as file:
        return {row["student"]: row for row in csv.DictReader(file)}


@pytest.fixture(scope="module")
def graded(releases, tmp_path_factory):
    """A folder with every kind of submission, and what became of it."""
    made = releases(NAME)
    place = tmp_path_factory.mktemp("grading")
    folder, outside = place / "submissions", place / "outside"
    folder.mkdir()
    outside.mkdir()
    marker = f"marker-{os.getpid()}"
    (folder / "good.ipynb").write_bytes(made.solution.read_bytes())
    (folder / "blank.ipynb").write_bytes(made.student.read_bytes())
    (folder / "empty.ipynb").touch()
    (folder / "no_notebook.ipynb").write_text("import numpy")
    (folder / "essay.docx").write_text("My answers")
    (folder / "link.ipynb").symlink_to(made.solution)
    with_cell(folder / "error.ipynb", made.solution, "1 / 0")
    with_cell(folder / "crash.ipynb", made.solution, "import os\nos._exit(0)")
    with_cell(
        folder / "endless.ipynb",
        made.solution,
        "import subprocess, sys\n"
        f"subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)', '{marker}'])\n"
        "while True:\n    pass",
    )
    with_cell(
        folder / "curious.ipynb",
        made.solution,
        "text = open('tests/q1.py').read()\nprint(text)\nraise type(text, (Exception,), {})(text)",
    )
    with_cell(folder / "=1+1.ipynb", made.solution, "%matplotlib inline\ndisplay(1)")
    (folder / "ada").mkdir()
    (folder / "ada" / "work.ipynb").write_bytes(made.solution.read_bytes())
    with zipfile.ZipFile(folder / "exported.zip", "w") as archive:
        archive.writestr(f"{NAME}.ipynb", made.solution.read_text())
        archive.writestr("__zip_filename__", "x")
    with zipfile.ZipFile(folder / "slip.zip", "w") as archive:
        archive.writestr(f"../outside/{NAME}.ipynb", made.solution.read_text())
    out = place / "grades.csv"
    code = grade(folder, out, made.folder.parent, "--time-limit", "8")
    return folder, out, code, marker, outside, made


def test_each_submission_has_its_row_and_its_reason(graded):
    _, out, code, _, outside, _ = graded
    found = rows(out)
    assert code == 1, "not all could be graded to their end"
    statuses = {student: row["status"] for student, row in found.items()}
    assert statuses == {
        "good": "graded",
        "blank": "graded",
        "error": "graded",
        "curious": "graded",
        "'=1+1": "graded",
        "ada": "graded",
        "exported": "graded",
        "crash": "stopped",
        "endless": "stopped",
        "empty": "refused",
        "no_notebook": "refused",
        "essay.docx": "refused",
        "link": "refused",
        "slip": "refused",
    }
    points = {student: row["points"] for student, row in found.items()}
    for student in ("good", "error", "curious", "'=1+1", "ada", "exported"):
        assert points[student] == "20", student
        assert found[student]["percent"] == "100.0"
    # What stood before the cell that ended it counts.
    before = str(int(found["good"]["q1"]) + int(found["good"]["q2"]))
    assert points["crash"] == points["endless"] == before
    for student in ("blank", "empty", "no_notebook", "essay.docx", "link", "slip"):
        assert points[student] == "0", student
    assert found["error"]["errors"] == "1"
    for student, reason in (
        ("crash", "the process left with exit code 0"),
        ("endless", "time limit of 8 s"),
        ("empty", "the file is empty"),
        ("no_notebook", "not a readable notebook"),
        ("essay.docx", "it is not a notebook"),
        ("link", "symbolic link"),
        ("slip", "outside its own folder"),
    ):
        assert reason in found[student]["reason"]
    assert list(outside.iterdir()) == []


def test_nothing_that_a_submission_started_is_left(graded):
    marker = graded[3]
    lines = [
        path.read_bytes().decode(errors="replace")
        for path in Path("/proc").glob("[0-9]*/cmdline")
        if _readable(path)
    ]
    assert [line for line in lines if marker in line] == []


def _readable(path: Path) -> bool:
    try:
        path.read_bytes()
    except OSError:
        return False
    return True


def test_feedback_says_what_to_think_about_and_no_code_of_a_test(graded):
    folder, out, _, _, _, made = graded
    pages = {page.stem: page.read_text() for page in (out.parent / "grades_feedback").iterdir()}
    assert len(pages) == len(list(folder.iterdir()))
    secret = secret_lines(sources.path_of(NAME, ROOT))
    tests = {line.strip() for text in made.tests().values() for line in text.splitlines()}
    code = secret | {line for line in tests if len(line) >= 24}
    hints = {t.hint for q in made.manifest.questions for t in q.tests}
    for page in pages.values():
        bare = page
        for hint in hints:
            bare = bare.replace(hint, "")
        assert [line for line in code if line in bare] == []
    assert "**20 of 20 points.**" in pages["good"]
    assert "What to think about" not in pages["good"]
    assert "code cell" in pages["error"]
    assert "ZeroDivisionError" in pages["error"]
    assert "an error" in pages["curious"]
    assert made.manifest.questions[0].tests[0].hint in pages["blank"]
    assert "time limit" in pages["endless"]
    assert "**q3** was not reached" in pages["endless"]


def test_the_same_command_goes_on_with_what_it_kept(graded, capsys):
    folder, out, _, _, _, made = graded
    before = rows(out)
    for name in ("endless", "crash"):  # these would run again
        (folder / f"{name}.ipynb").unlink()
    (folder / "blank.ipynb").write_bytes(made.solution.read_bytes())  # handed in again
    assert grade(folder, out, made.folder.parent) == 1
    assert "7 graded, 0 stopped, 5 refused" in capsys.readouterr().out
    after = rows(out)
    assert after["blank"]["points"] == "20"
    assert after["good"] == before["good"], "its seconds too: it did not run again"


def test_progress_names_the_student_and_says_how_long(graded, capsys):
    folder, out, _, _, _, made = graded
    grade(folder, out, made.folder.parent)
    err = capsys.readouterr().err
    assert "12/12" in err
    assert "elapsed, about" in err
    assert "refused: the file is empty" in err


def test_root_has_to_say_that_it_may(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    command = ["course", "grade", str(tmp_path), "--assignment", NAME]
    assert main([*command, "--out", str(tmp_path / "grades.csv")]) == 2
    assert "may be thrown away" in capsys.readouterr().err


def test_bad_input_is_one_line(tmp_path, capsys):
    command = ["course", "grade", "--assignment", NAME, "--allow-root"]
    assert main([*command, str(tmp_path / "none")]) == 2
    assert "is not a folder" in capsys.readouterr().err
    out = ["--out", str(tmp_path / "g" / "grades.csv")]
    (tmp_path / "in").mkdir()
    assert main([*command, str(tmp_path / "in"), "--releases", str(tmp_path), *out]) == 2
    assert f"robustlib course release --assignment {NAME}" in capsys.readouterr().err


def zipped(path: Path, **members: str) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for name, text in members.items():
            archive.writestr(name, text)
    return path


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        ("two", "holds 2 notebooks"),
        ("none", "holds 0 notebooks"),
        ("link", "holds a symbolic link"),
        ("damaged", "damaged"),
        ("windows", "outside its own folder"),
        ("folder", "the folder holds 0 notebooks"),
        ("deep", "not a readable notebook"),
        ("other", "another assignment"),
        ("foreign", "not made from the notebook"),
        ("pipe", "not a file"),
    ],
)
def test_what_cannot_be_graded_is_refused_with_a_reason(kind, reason, tmp_path):
    cell = {"cell_type": "code", "id": "a", "metadata": {}, "source": "1", "outputs": []}
    plain = {
        "cells": [{**cell, "execution_count": None}],
        "metadata": {},
        "nbformat": 4,
        "nbformat_minor": 5,
    }
    path = tmp_path / "work.zip"
    if kind == "two":
        zipped(path, **{"a.ipynb": "{}", "b.ipynb": "{}"})
    elif kind == "none":
        zipped(path, **{"a.txt": ""})
    elif kind == "link":
        with zipfile.ZipFile(path, "w") as archive:
            entry = zipfile.ZipInfo("a.ipynb")
            entry.external_attr = 0o120777 << 16
            archive.writestr(entry, "/etc/passwd")
    elif kind == "damaged":
        path.write_bytes(b"PK\x03\x04 no")
    elif kind == "windows":
        zipped(path, **{"..\\a.ipynb": "{}"})
    elif kind == "folder":
        path = tmp_path / "folder"
        path.mkdir()
    elif kind == "deep":
        path = tmp_path / "deep.ipynb"
        path.write_text("[" * 100_000)
    elif kind == "pipe":
        path = tmp_path / "pipe.ipynb"
        os.mkfifo(path)
    else:
        path = tmp_path / "work.ipynb"
        if kind == "other":
            plain["metadata"] = {"otter": {"assignment_name": "big_m"}}
        path.write_text(json.dumps(plain))
    with pytest.raises(RefusedError, match=reason):
        notebook_of(Submission("a", path), NAME)


def test_names_of_files_stay_in_their_folder(tmp_path):
    for name in ("..", "../x", "a/b", "-rf", "", "a\nb", "ü" * 300):
        made = file_name(name)
        assert (tmp_path / f"{made}.md").parent == tmp_path
        assert "/" not in made
        assert not made.startswith((".", "-"))
        assert 0 < len(made) <= 100


def test_an_empty_folder_is_said_to_be_empty(tmp_path):
    with pytest.raises(ValueError, match="is empty; give a folder of notebooks"):
        find(tmp_path)
