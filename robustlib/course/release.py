"""Make what is handed out, and what grades it, from the source of an assignment.

A release of NAME is a folder:

``student/NAME.ipynb``
    For the students: prompts, and public tests in the metadata. No solution, no hidden test.
``solution/NAME.ipynb``
    The same with the solutions, still without hidden tests: what a self-learner reads.
``autograder/NAME-autograder.zip``
    All tests, as Otter-Grader and Gradescope want them.
``points.json``
    What each test is worth, and the hint of each: no code.

It depends on the source alone, byte for byte.
"""

from __future__ import annotations

import json
import re
import shutil
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from robustlib.course import sources
from robustlib.course.feedback import points
from robustlib.course.manifest import Manifest, Question, Test, number, read
from robustlib.course.sandbox import Outcome, judge
from robustlib.reproduce.notebooks import BookError, write, write_notebook

STUDENT_SEED, GRADING_SEED = 0, 20_197
TIME_LIMIT = 300.0  # seconds of processor time a notebook
MEMORY = 4.0  # GiB a process
CONFIG = {
    "export_cell": {
        "pdf": False,
        "ignore_log": True,
        "instructions": "Hand in that zip file, or the notebook itself.",
    },
    "check_all_cell": False,
    "suppress_no_tests_warning": False,
    "tests": {"files": False, "ok_format": False},
    "seed": {
        "variable": "seed",
        "student_value": STUDENT_SEED,
        "autograder_value": GRADING_SEED,
    },
}
HEADING = re.compile(r"^## (?P<number>\d+)\. (?P<title>.+)$", re.MULTILINE)
MARK = re.compile(r"^ *# (?:BEGIN|END) SOLUTION.*\n?|  # SOLUTION$", re.MULTILINE)
ZIP_DATE = (1980, 1, 1, 0, 0, 0)


@dataclass(frozen=True)
class Release:
    """The folder of a release, and what stands in it."""

    folder: Path
    name: str

    @property
    def student(self) -> Path:
        return self.folder / "student" / f"{self.name}.ipynb"

    @property
    def solution(self) -> Path:
        return self.folder / "solution" / f"{self.name}.ipynb"

    @property
    def autograder(self) -> Path:
        return self.folder / "autograder" / f"{self.name}-autograder.zip"

    @property
    def manifest(self) -> Manifest:
        return read(self.folder / "points.json")

    def tests(self) -> dict[str, str]:
        """For each question the source of its tests, hidden ones too."""
        with zipfile.ZipFile(self.autograder) as archive:
            return {
                Path(entry).stem: archive.read(entry).decode()
                for entry in archive.namelist()
                if entry.startswith("tests/") and entry.endswith(".py")
            }


def found(name: str, folder: Path) -> Release:
    """The release of ``name`` in ``folder``, made before.

    Raises
    ------
    BookError
        If it is not there or not complete.
    """
    release = Release(folder / name, name)
    wanted = [release.student, release.solution, release.autograder, release.folder / "points.json"]
    if not all(path.is_file() for path in wanted):
        raise BookError(
            f"assignment={name!r} is not released in {str(folder)!r}; make it: "
            f"robustlib course release --assignment {name}"
        )
    return release


def release(name: str, root: Path, folder: Path) -> Release:
    """Make the release of ``name`` in ``folder``; what was there of it is replaced.

    Raises
    ------
    BookError
        If the source does not fit together; the message says what and where.
    ImportError
        Without Otter-Grader.
    """
    source = sources.path_of(name, root)
    made = Release(folder / name, name)
    notebook = sources.load(source)
    with tempfile.TemporaryDirectory() as scratch:
        master, dist = Path(scratch) / f"{name}.ipynb", Path(scratch) / "dist"
        write_notebook(master, _configured(notebook, name))
        _assign(master, dist, source)
        (archive,) = (dist / "autograder").glob("*.zip")
        tests = _tests(archive)
        manifest = _manifest(name, notebook, tests, source)
        student = _read(dist / "student" / master.name)
        solution = _read(dist / "autograder" / master.name)
        solution.metadata["otter"] = student.metadata["otter"]  # the public tests alone
        for cell in solution.cells:
            cell.source = MARK.sub("", cell.source)
        shutil.rmtree(made.folder, ignore_errors=True)
        for path, page in ((made.student, student), (made.solution, solution)):
            _finish(page, manifest)
            write_notebook(path, page)
        _pack(archive, made.autograder)
    write(made.folder / "points.json", manifest.dumps())
    return made


def _configured(notebook: Any, name: str) -> Any:
    """The source with the settings that all assignments share as its first cell."""
    import nbformat

    settings = json.dumps({"name": name, **CONFIG})  # JSON is YAML too
    first = nbformat.v4.new_raw_cell(f"# ASSIGNMENT CONFIG\n{settings}", id="settings")
    result = notebook.copy()
    result.cells = [first, *notebook.cells]
    return result


def _assign(master: Path, dist: Path, source: Path) -> None:
    """Otter Assign, quietly, and without its own run of the tests."""
    try:
        from otter.assign import main
    except ImportError as error:
        raise ImportError(
            "coursework needs Otter-Grader; install it: pip install 'robustlib[course]'"
        ) from error
    try:
        main(str(master), str(dist), no_run_tests=True)
    except Exception as error:
        raise BookError(f"{source} is not what Otter Assign reads: {error}") from error


def _read(path: Path) -> Any:
    import nbformat

    return nbformat.read(path, as_version=4)


def _tests(archive: Path) -> dict[str, Any]:
    """Otter's test files by question, in the order in which a person would count."""
    from otter.test_files import ExceptionTestFile

    with zipfile.ZipFile(archive) as zipped:
        files = {
            Path(entry).stem: ExceptionTestFile.from_string(zipped.read(entry).decode(), entry)
            for entry in zipped.namelist()
            if entry.startswith("tests/")
        }
    return dict(sorted(files.items(), key=lambda pair: int(pair[0].removeprefix("q"))))


def _manifest(name: str, notebook: Any, tests: dict[str, Any], source: Path) -> Manifest:
    text = "\n".join(cell.source for cell in notebook.cells if cell.cell_type == "markdown")
    titles = {f"q{match['number']}": match["title"] for match in HEADING.finditer(text)}
    if list(titles) != list(tests) or not tests:
        raise BookError(
            f"{source} has the questions {', '.join(tests)} and the headings {', '.join(titles)}; "
            "question q1 stands under '## 1. Its title', and so on."
        )
    code = "\n".join(cell.source for cell in notebook.cells if cell.cell_type == "code")
    written = len(re.findall(r"^def test_", code, re.MULTILINE))
    kept = sum(len(file.test_cases) for file in tests.values())
    if written != kept:
        raise BookError(
            f"{source} has {written} tests, but {kept} names of tests within their questions; "
            "give the tests of a question different names."
        )
    for question, file in tests.items():
        for case in file.test_cases:
            if not case.failure_message or not case.points:
                raise BookError(f"{source}: a test of {question} has no points or no hint.")
    return Manifest(
        name=name,
        title=text.split("\n", 1)[0].removeprefix("# "),
        seed=GRADING_SEED,
        questions=tuple(
            Question(
                question,
                titles[question],
                tuple(
                    Test(float(case.points), bool(case.hidden), case.failure_message)
                    for case in file.test_cases
                ),
            )
            for question, file in tests.items()
        ),
    )


def _finish(notebook: Any, manifest: Manifest) -> None:
    """Say what each question is worth below its heading, and make the ids depend on the text."""
    worth = {question.name: question for question in manifest.questions}

    def with_points(match: re.Match[str]) -> str:
        question = worth[f"q{match['number']}"]
        public, hidden = (number(question.points(hidden=kind)) for kind in (False, True))
        return (
            f"{match[0]}\n\n*{number(question.points())} points: {public} for what "
            f'`grader.check("{question.name}")` sees, {hidden} for hidden tests.*'
        )

    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            cell.source = HEADING.sub(with_points, cell.source)
        elif cell.cell_type == "code":
            cell.execution_count, cell.outputs = None, []
    notebook.metadata.pop("jupytext", None)
    sources.name_cells(notebook)


def _pack(archive: Path, out: Path) -> None:
    """The same zip file with its entries in order and without the time at which it was made."""
    out.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(archive) as made, zipfile.ZipFile(out, "w") as zipped:
        for entry in sorted(made.namelist()):
            info = zipfile.ZipInfo(entry, ZIP_DATE)
            info.external_attr = 0o644 << 16
            zipped.writestr(info, made.read(entry), zipfile.ZIP_DEFLATED)


def run(release: Release, notebook: Path) -> Outcome:
    """Run a notebook of our own, the solution or the blank one, as a submission is run."""
    manifest = release.manifest
    return judge(
        notebook.read_text(encoding="utf-8"),
        release.tests(),
        name=release.name,
        seed=manifest.seed,
        time_limit=TIME_LIMIT,
        memory=MEMORY,
    )


def problems(release: Release) -> list[str]:
    """What is wrong with a release: the solution has to earn all points, the blank none."""
    manifest = release.manifest
    wrong = []
    for what, path, due in (
        ("solution", release.solution, 1.0),
        ("blank notebook", release.student, 0.0),
    ):
        outcome = run(release, path)
        earned = points(manifest, outcome)
        if outcome.end != "done":
            wrong.append(f"{release.name}: the {what} did not come to its end: {outcome.end}")
        for question in manifest.questions:
            if earned[question.name] != due * question.points():
                wrong.append(
                    f"{release.name}: the {what} earns {number(earned[question.name])} of "
                    f"{number(question.points())} points in {question.name}"
                )
        if due == 1.0:
            wrong += [
                f"{release.name}: cell {cell} of the {what} raises {kind}"
                for cell, kind in outcome.errors
            ]
    return wrong
