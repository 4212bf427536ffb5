"""One notebook in a process of its own: run its cells, then Otter's tests, and note what passed.

The processes are forked from a server that has imported what notebooks import, so that a notebook
costs what its own cells cost. A notebook runs in an empty folder with the tests beside it, a bare
environment, no input, no output, and limits on memory, processor time and file size. Those limits
stop accidents. They do not stop malice: the notebook runs with all rights of the account.
"""

from __future__ import annotations

import builtins
import json
import math
import multiprocessing
import os
import resource
import signal
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

NOTES = "notes.jsonl"
KEPT = ("PATH", "LANG", "LC_ALL", "VIRTUAL_ENV", "PYTHONPATH", "ROBUSTLIB_DATA")
PATIENCE = 3  # seconds of wall time for a second of processor time
LARGEST_FILE = 256 * 2**20
LARGEST_NOTES = 2**20
IMPORTED = (  # once, by the server from which the processes are forked
    "cvxpy",
    "matplotlib.pyplot",
    "nbformat",
    "otter",
    "otter.execute",
    "pandas",
    "pyscipopt",
    "robustlib.course.sandbox",
    "robustlib.data",
    "robustlib.verification",
    "robustlib.zoo",
    "torch",
    "IPython.core.interactiveshell",
)
CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(list(IMPORTED))


@dataclass
class Outcome:
    """What a notebook did.

    Attributes
    ----------
    passed : dict of str to list of bool
        For each question that was tested, whether each of its tests passed.
    errors : list of (int, str)
        The code cells that raised an error, counted from 1, with its type; only Python's own types
        are named, because a student may name a class as he likes.
    end : str
        ``done``, ``time limit``, or ``died`` with what is known of it.
    seconds : float
        Wall time.
    """

    passed: dict[str, list[bool]] = field(default_factory=dict)
    errors: list[tuple[int, str]] = field(default_factory=list)
    end: str = "done"
    seconds: float = 0.0


def judge(
    notebook: str,
    tests: dict[str, str],
    *,
    name: str,
    seed: int,
    time_limit: float,
    memory: float,
) -> Outcome:
    """Run a notebook and its tests in a process of its own.

    Parameters
    ----------
    notebook : the notebook, as JSON.
    tests : for each question the source of its tests, as Otter writes them.
    name : of the assignment: the notebook calls itself NAME.ipynb.
    seed : what the variable ``seed`` is before each cell.
    time_limit : in seconds of processor time, for each process; after three times as many of wall
        time, the process and all that it started are killed.
    memory : in GiB, for each process.
    """
    begun = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="submission-", ignore_cleanup_errors=True) as made:
        folder = Path(made)
        notes = folder / NOTES
        work = folder / "work"
        (work / "tests").mkdir(parents=True)
        (work / f"{name}.ipynb").write_text(notebook, encoding="utf-8")
        for question, source in tests.items():
            (work / "tests" / f"{question}.py").write_text(source, encoding="utf-8")
        process = CONTEXT.Process(
            target=_run, args=(work, notes, name, seed, time_limit, memory), daemon=True
        )
        process.start()
        try:
            process.join(PATIENCE * time_limit)
            late = process.is_alive()
        finally:
            _kill(process)
        outcome = _read(notes)
        outcome.seconds = time.monotonic() - begun
        if late or process.exitcode == -signal.SIGXCPU:
            outcome.end = f"time limit of {time_limit:g} s"
        elif outcome.end != "done":
            outcome.end = f"died: {_cause(process.exitcode)}"
        return outcome


def _kill(process: Any) -> None:
    """Kill the process and its whole group, which it leads; what was started in it goes too."""
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):  # none left, or it does not lead a group yet
        process.kill()
    process.join()


def _cause(code: int | None) -> str:
    if code is None or code >= 0:
        return f"the process left with exit code {code}"
    return f"the process was ended by {signal.Signals(-code).name}"


def _read(notes: Path) -> Outcome:
    """What the process noted before it ended; ``end`` is ``done`` only if it came to the end."""
    outcome = Outcome(end="")
    try:
        with notes.open(encoding="utf-8", errors="replace") as file:
            text = file.read(LARGEST_NOTES)
    except OSError:
        return outcome
    for line in text.splitlines():
        try:
            note = json.loads(line)
            if "question" in note:
                outcome.passed[str(note["question"])] = [bool(p) for p in note["passed"]]
            elif "cell" in note:
                outcome.errors.append((int(note["cell"]), str(note["error"])))
            else:
                outcome.end = "done"
        except (ValueError, TypeError, KeyError):
            continue  # cut off, or not ours
    return outcome


def _run(
    work: Path, notes: Path, name: str, seed: int, time_limit: float, memory: float
) -> None:  # pragma: no cover (in the other process)
    os.setsid()
    _limit(time_limit, memory)
    nothing = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1, 2):
        os.dup2(nothing, stream)
    home = work.parent / "home"
    home.mkdir()
    kept = {key: os.environ[key] for key in KEPT if key in os.environ}
    os.environ.clear()
    os.environ |= kept | {"HOME": str(home), "TMPDIR": str(home), "IPYTHONDIR": str(home)}
    os.environ |= {"MPLBACKEND": "agg", "OMP_NUM_THREADS": "1"}
    os.chdir(work)
    with notes.open("a", encoding="utf-8") as file:

        def note(**what: Any) -> None:
            file.write(json.dumps(what) + "\n")
            file.flush()

        run_cells(Path(f"{name}.ipynb"), seed, note)
        note(end=True)


def _limit(time_limit: float, memory: float) -> None:
    seconds = math.ceil(time_limit)
    resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds + 5))
    for what, most in (
        (resource.RLIMIT_DATA, int(memory * 2**30)),
        (resource.RLIMIT_FSIZE, LARGEST_FILE),
        (resource.RLIMIT_CORE, 0),
    ):
        resource.setrlimit(what, (most, most))


def run_cells(path: Path, seed: int, note: Any) -> None:
    """Run the code cells of the notebook, and the tests in ``tests`` beside it, in this process.

    As Otter does it: ``grader.check`` runs the tests of a question where it stands; a question
    that the notebook does not check is tested at the end; the last result of a question counts.
    """
    import random

    import nbformat
    import numpy
    import torch
    from IPython.core.interactiveshell import InteractiveShell
    from otter import Notebook
    from otter.execute import Checker

    torch.set_num_threads(1)
    for sow in (torch.manual_seed, numpy.random.seed, random.seed):
        sow(seed)  # the same notebook gets the same grade, also where it draws without a generator
    notebook: Any = nbformat.read(path, as_version=4)
    Notebook.init_grading_mode("./tests")
    shell = _shell(InteractiveShell)
    told = 0

    def tell() -> None:
        nonlocal told
        for file in Checker.get_results()[told:]:
            passed = [bool(result.passed) for result in file.test_case_results]
            note(question=file.name, passed=passed)
        told = len(Checker.get_results())

    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    for count, cell in enumerate(cells, start=1):
        shell.user_ns["seed"] = seed
        done = shell.run_cell(cell.source, store_history=False)
        error = done.error_before_exec or done.error_in_exec
        if error is not None:
            note(cell=count, error=kind(error))
        tell()
    for test in sorted(Path("tests").glob("*.py")):
        Checker.check_if_not_already_checked(f"./{test}", global_env=shell.user_ns)
        tell()


def kind(error: BaseException) -> str:
    """The type of an error if it is one of Python's own, else ``an error``.

    >>> kind(ValueError("secret")), kind(type("Secret", (Exception,), {})())
    ('ValueError', 'an error')
    """
    own = getattr(builtins, type(error).__name__, None) is type(error)
    return type(error).__name__ if own else "an error"


def _shell(base: Any) -> Any:
    """IPython without a terminal: magics and ``display`` work, and nobody sees a traceback."""
    from IPython.core.history import HistoryManager

    class Quiet(base):
        def enable_gui(self, gui: str | None = None) -> None:
            """There is no window."""

        def showtraceback(self, *_: Any, **__: Any) -> None:
            """The type of the error is noted, and nothing else."""

        showsyntaxerror = showindentationerror = showtraceback

    history: Any = HistoryManager
    history.enabled = False
    shell = Quiet.instance()
    shell.display_formatter.active_types = ["text/plain"]
    return shell
