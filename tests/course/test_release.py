"""What is handed out: the same bytes every time, and nothing in it that a student must not see."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest

from robustlib.course import release, sources
from robustlib.reproduce.cli import main
from robustlib.reproduce.notebooks import BookError
from tests.course.helpers import NAMES, ROOT

WORDS = 24  # a line of code at least so long is nobody's by chance


def secret_lines(path: Path) -> set[str]:
    """The lines of a source that only its solution or its hidden tests have."""
    notebook = sources.load(path)
    secret: set[str] = set()
    open_: set[str] = set()
    for cell in notebook.cells:
        if cell.cell_type != "code":
            open_.update(line.strip() for line in cell.source.splitlines())
            continue
        hidden = "hidden: true" in cell.source
        inside = False
        for line in cell.source.splitlines():
            if "BEGIN SOLUTION" in line:
                inside = True
            elif "END SOLUTION" in line:
                inside = False
            elif hidden or inside or line.endswith("# SOLUTION"):
                secret.add(line.strip().removesuffix("# SOLUTION").strip())
            else:
                open_.add(line.strip())
    known = "\n".join(open_)
    return {line for line in secret if len(line) >= WORDS and line not in known}


def all_files(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


@pytest.mark.parametrize("name", NAMES)
def test_a_release_is_the_same_byte_for_byte(name, releases, tmp_path):
    again = release.release(name, ROOT, tmp_path)
    assert all_files(again.folder) == all_files(releases(name).folder)


@pytest.mark.parametrize("name", NAMES)
def test_the_students_notebook_holds_no_solution_and_no_hidden_test(name, releases):
    made = releases(name)
    secret = secret_lines(sources.path_of(name, ROOT))
    assert len(secret) > 20
    student = json.dumps(json.loads(made.student.read_text()), ensure_ascii=False)
    for path in (made.student, made.folder / "points.json"):
        text = path.read_text()
        assert [line for line in secret if json.dumps(line)[1:-1] in text] == []
    hints = [t.hint for q in made.manifest.questions for t in q.tests if t.hidden]
    assert [hint for hint in hints if json.dumps(hint, ensure_ascii=False)[1:-1] in student] == []
    assert "# HIDDEN" not in student
    assert "SOLUTION" not in student


@pytest.mark.parametrize("name", NAMES)
def test_the_autograder_has_the_hidden_tests_and_the_solution_does_not(name, releases):
    made = releases(name)
    secret = secret_lines(sources.path_of(name, ROOT))
    tests = "\n".join(made.tests().values())
    assert sum(line in tests for line in secret) > 5
    public = json.loads(made.solution.read_text())["metadata"]["otter"]["tests"]
    assert all("hidden=True" not in test for test in public.values())
    assert "# BEGIN SOLUTION" not in made.solution.read_text()


@pytest.mark.parametrize("name", NAMES)
def test_the_students_notebook_is_complete(name, releases):
    """It can be read, checks every question, is exported at the end, and has the student's seed."""
    notebook = nbformat.read(str(releases(name).student), as_version=4)
    nbformat.validate(notebook)
    code = [cell.source for cell in notebook.cells if cell.cell_type == "code"]
    for cell in code:
        ast.parse(cell)
    for question in releases(name).manifest.questions:
        assert f'grader.check("{question.name}")' in code
    assert "grader.export(pdf=False" in code[-1]
    assert any(f"seed = {release.STUDENT_SEED}" in cell for cell in code)
    assert release.STUDENT_SEED != release.GRADING_SEED
    prose = "\n".join(cell.source for cell in notebook.cells if cell.cell_type == "markdown")
    assert prose.count("for hidden tests.*") == len(releases(name).manifest.questions)


def test_a_check_in_the_students_notebook_teaches(releases, tmp_path):
    """A wrong answer gets the hint of the public test; the export makes a zip file."""
    made = releases("linear_regions")
    notebook = tmp_path / "linear_regions.ipynb"
    notebook.write_bytes(made.student.read_bytes())
    code = (
        "import otter\n"
        "grader = otter.Notebook('linear_regions.ipynb')\n"
        "frequency = severity = lambda rho, eps: 1.0\n"
        "print(grader.check('q6'))\n"
        "grader.export(pdf=False)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=120
    )
    assert "Of 0.1, 0.2 and 0.4, two are at most 0.3." in done.stdout, done.stderr
    assert "stay in the denominator" not in done.stdout, "that is the hidden test's hint"
    assert len(list(tmp_path.glob("*.zip"))) == 1


def test_a_source_that_does_not_fit_is_refused(tmp_path):
    folder = tmp_path / sources.FOLDER
    folder.mkdir(parents=True)
    text = sources.path_of("linear_regions", ROOT).read_text()
    (folder / "wrong.md").write_text(text.replace("## 3. The network", "## 8. The network"))
    with pytest.raises(BookError, match=r"question q1 stands under '## 1\. Its title'"):
        release.release("wrong", tmp_path, tmp_path / "out")
    (folder / "wrong.md").write_text(text.replace("def test_nothing_to", "def test_on_the_toy"))
    (folder / "wrong.md").write_text(
        text.replace("def test_nothing_to_find", "def test_on_the_toy")
    )
    with pytest.raises(BookError, match="give the tests of a question different names"):
        release.release("wrong", tmp_path, tmp_path / "out")
    with pytest.raises(BookError, match="Did you mean 'wrong'"):
        release.release("wrng", tmp_path, tmp_path / "out")


def test_the_command_says_what_it_made(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(ROOT)
    command = ("course", "release", "--assignment", "linear_models", "--out", str(tmp_path))
    assert main([*command, "--no-check"]) == 0
    assert "linear_models: 7 questions, 20 points" in capsys.readouterr().out
    assert (tmp_path / "linear_models" / "student" / "linear_models.ipynb").exists()
