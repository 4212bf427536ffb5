"""Execute the notebooks: with progress, resumable, two at a time, and record the reference run."""

from __future__ import annotations

import contextlib
import datetime
import logging
import os
import sys
import time
from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from robustlib.reproduce.long_runs import KEEP, RECORDING, RENEW
from robustlib.reproduce.notebooks import (
    BookError,
    Chapter,
    check_writable,
    code_hash,
    load_source,
    parameters,
    read,
    run_key,
    with_outputs,
    write_notebook,
)
from robustlib.reproduce.origin import commit, cores, machine, versions
from robustlib.reproduce.progress import Progress, clock
from robustlib.reproduce.reference import last_seconds, record_run
from robustlib.reproduce.solutions import with_solutions


@dataclass(frozen=True)
class Outcome:
    """How one notebook ended: ``ran``, ``kept`` (nothing had changed) or ``failed``."""

    chapter: Chapter
    status: str
    seconds: float
    error: str = ""


def reproduce(
    chapters: list[Chapter],
    profile: str,
    *,
    jobs: int | None = None,
    force: bool = False,
    record: bool = False,
) -> list[Outcome]:
    """Execute notebooks at a profile; results go to ``_build/run/PROFILE/PART/NAME.ipynb``.

    A notebook that ran before is kept while its code, the library, the checkpoints and the
    versions are the same. A failing notebook does not stop the others. At ``quick`` the code in the
    solutions of the exercises runs after each notebook, and counts like a cell of it; no trace of
    it is in the result.

    Parameters
    ----------
    chapters : list of Chapter
        What to execute.
    profile : str
        ``quick`` or ``reference``.
    jobs : int, optional
        How many at once; by default one a core, two at most.
    force : bool
        Run again what could be kept.
    record : bool
        Also write each result beside its source, as the run that the book shows.

    Raises
    ------
    BookError
        A source without the parameters, no usable kernel, or a folder that cannot be written.
    KeyboardInterrupt
        After Ctrl-C, when the kernels are stopped; what had finished is kept.
    """
    check_kernel()
    for chapter in chapters:
        check_writable(chapter.executed(profile))
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    os.environ[RECORDING] = (RENEW if force else KEEP) if record else ""
    sources = {chapter: load_source(chapter) for chapter in chapters}
    kept = [] if force else [c for c in chapters if _is_finished(c, sources[c], profile)]
    todo = [chapter for chapter in chapters if chapter not in kept]
    expected = {chapter: last_seconds(chapter, profile) for chapter in todo}
    todo.sort(key=lambda chapter: -(expected[chapter] or float("inf")))

    outcomes = [Outcome(chapter, "kept", last_seconds(chapter, profile) or 0.0) for chapter in kept]
    for chapter in kept:
        print(f"{chapter.name}: unchanged since its last run, kept")
    jobs = jobs or min(cores(), 2)
    progress = Progress({chapter.name: expected[chapter] for chapter in todo}, jobs=jobs)
    outcomes += _run_all(todo, profile, jobs, progress)
    if record:
        for outcome in outcomes:
            if outcome.status != "failed":
                record_run(outcome.chapter, profile)
    return sorted(outcomes, key=lambda outcome: outcome.chapter.name)


def _run_all(todo: list[Chapter], profile: str, jobs: int, progress: Progress) -> list[Outcome]:
    pool = ThreadPoolExecutor(max_workers=jobs)
    pending: set[Future[Outcome]] = set()
    try:
        pending = {pool.submit(run_one, chapter, profile, progress) for chapter in todo}
        outcomes: list[Outcome] = []
        while pending:
            done, pending = wait(pending, timeout=0.5, return_when=FIRST_COMPLETED)
            outcomes += [future.result() for future in done]
            progress.tick()
        return outcomes
    except KeyboardInterrupt:
        progress.stop()
        logging.getLogger("papermill").disabled = True  # it would complain of dead kernels
        raise
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
        while any(not future.done() for future in pending):  # a kernel may be just starting
            _stop_kernels()
            time.sleep(0.2)


def _stop_kernels() -> None:
    """End the kernels that are still running: only after Ctrl-C are there any."""
    import psutil

    for child in psutil.Process().children():
        with contextlib.suppress(psutil.Error):  # it ended by itself
            if any("ipykernel" in part for part in child.cmdline()):
                child.kill()


def run_one(chapter: Chapter, profile: str, progress: Progress) -> Outcome:
    """Execute one notebook; its result appears in one step, when all of it ran."""
    from papermill.exceptions import PapermillExecutionError

    notebook = load_source(chapter)
    key = run_key(notebook, profile)
    asked = with_solutions(notebook) if profile == "quick" else notebook
    code = [cell for cell in asked.cells if cell.cell_type == "code"]
    numbers = {cell.id: n for n, cell in enumerate(code, start=1)}
    target = chapter.executed(profile)
    partial = target.with_suffix(".partial.ipynb")
    progress.started(chapter.name, len(numbers))
    start = time.monotonic()
    try:
        executed = _execute(
            asked,
            partial,
            chapter.root,
            profile,
            lambda cell: progress.cell(chapter.name, numbers.get(cell.id, 1)),
        )
    except Exception as error:
        seconds = time.monotonic() - start
        progress.finished(chapter.name, "FAILED")
        if isinstance(error, PapermillExecutionError):
            where, source = _place(error.source, code)
            detail = f"{error.ename}: {error.evalue}\n\n{_indent(source)}"
        else:
            where, detail = "its kernel", f"{type(error).__name__}: {error}"
        text = f"{chapter.name} failed in {where}: {detail}\n  the notebook so far: {partial}"
        return Outcome(chapter, "failed", seconds, text)
    seconds = time.monotonic() - start
    result = with_outputs(notebook, executed)
    result.metadata["robustlib"] = {
        "profile": profile,
        "seed": parameters(notebook)["seed"],
        "seconds": round(seconds, 1),
        "date": datetime.date.today().isoformat(),
        "commit": commit(chapter.root),
        "machine": machine(),
        "versions": versions(),
        "source_hash": code_hash(notebook),
        "key": key,
    }
    write_notebook(target, result)
    partial.unlink(missing_ok=True)
    progress.finished(chapter.name, f"done in {clock(seconds)}")
    return Outcome(chapter, "ran", seconds)


def _execute(
    notebook: Any, partial: Path, root: Path, profile: str, on_cell: Callable[[Any], None]
) -> Any:
    import papermill

    return papermill.execute_notebook(
        notebook,
        partial,
        parameters={"profile": profile},
        kernel_name="python3",
        progress_bar=False,
        resources={"metadata": {"path": str(root)}},
        extra_arguments=["--log-level=40"],
        coalesce_streams=True,
        on_cell_execute=lambda cell, cell_index: on_cell(cell),
    )


def _place(source: str, code: list[Any]) -> tuple[str, str]:
    """Where the cell that failed stands, in words, and its code as the page shows it."""
    own = [cell for cell in code if "exercise" not in cell.metadata]
    for number, cell in enumerate(code, start=1):
        if cell.source == source:
            if cell in own:
                return f"cell {number} of {len(own)}", source
            return f"the solution of {cell.metadata.exercise}", cell.metadata.shown
    return "a cell", source


def _indent(source: str, lines: int = 12) -> str:
    shown = source.splitlines()
    rest = ["…"] if len(shown) > lines else []
    return "\n".join(f"    {line}" for line in shown[:lines] + rest)


def check_kernel() -> None:
    """Refuse to run when the kernel ``python3`` is missing or belongs to another Python."""
    from jupyter_client.kernelspec import KernelSpecManager, NoSuchKernel

    remedy = f"{sys.executable} -m ipykernel install --sys-prefix --name python3"
    try:
        program = KernelSpecManager().get_kernel_spec("python3").argv[0]
    except NoSuchKernel:
        raise BookError(f"there is no Jupyter kernel 'python3'; install it: {remedy}") from None
    if os.path.isabs(program) and Path(program).parent != Path(sys.executable).parent:
        raise BookError(
            f"the Jupyter kernel 'python3' starts {program}, not {sys.executable}, so notebooks "
            f"would run in another environment; install it here: {remedy}"
        )


def _is_finished(chapter: Chapter, source: Any, profile: str) -> bool:
    executed = read(chapter.executed(profile))
    about = {} if executed is None else executed.metadata.get("robustlib", {})
    return about.get("key") == run_key(source, profile)
