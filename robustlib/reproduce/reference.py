"""The recorded reference run beside each source: is it up to date, write it, renew its prose."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from robustlib.reproduce.notebooks import (
    BookError,
    Chapter,
    load_source,
    read,
    same_code,
    with_outputs,
    write_notebook,
)


def remedy(*names: str) -> str:
    """The command that records the reference run of these notebooks."""
    only = " ".join(f"--only {name}" for name in names)
    return f"`robustlib reproduce --profile reference --record {only}`"


def stale(chapter: Chapter) -> str | None:
    """What is wrong with the recorded run of a chapter, in words; ``None`` if nothing is."""
    name, renew = chapter.name, remedy(chapter.name)
    recorded = read(chapter.recorded)
    if recorded is None:
        return f"{name} has no recorded run; make it: {renew}"
    if recorded.metadata.get("robustlib", {}).get("profile") != "reference":
        return f"{name}: the recorded run is not a reference run; renew it: {renew}"
    if not same_code(load_source(chapter), recorded):
        return f"{name}: the recorded run is stale, its code differs; renew it: {renew}"
    return None


def recorded_seconds(chapter: Chapter, profile: str) -> float | None:
    """How long a notebook took at a profile, as its recorded run says."""
    recorded = read(chapter.recorded)
    about = {} if recorded is None else recorded.metadata.get("robustlib", {})
    if about.get("profile") == profile:
        return about.get("seconds")
    return about.get("quick_seconds") if profile == "quick" else None


def last_seconds(chapter: Chapter, profile: str) -> float | None:
    """How long a notebook took last time at a profile: on this machine, else when recorded."""
    executed = read(chapter.executed(profile))
    here = None if executed is None else executed.metadata.get("robustlib", {}).get("seconds")
    return recorded_seconds(chapter, profile) if here is None else here


def record_run(chapter: Chapter, profile: str) -> Path:
    """Write the finished run of a notebook beside its source; return the path.

    What differs from run to run without meaning (papermill's times, cell stamps) is not in it.
    """
    executed = read(chapter.executed(profile))
    source = load_source(chapter)
    if executed is None or not same_code(source, executed):
        raise BookError(f"{chapter.name}: there is no finished run of the present code.")
    write_notebook(chapter.recorded, _timed(chapter, with_outputs(source, executed)))
    return chapter.recorded


def renew_prose(chapter: Chapter) -> bool:
    """Take changed prose, and the time of a quick run here, over into the recorded run.

    Nothing is executed. Returns whether the recorded run changed. Raises `BookError` where the
    code differs.
    """
    problem = stale(chapter)
    if problem:
        raise BookError(problem)
    recorded = read(chapter.recorded)
    renewed = _timed(chapter, with_outputs(load_source(chapter), recorded))
    if renewed == recorded:
        return False
    write_notebook(chapter.recorded, renewed)
    return True


def _timed(chapter: Chapter, notebook: Any) -> Any:
    """The notebook, to be recorded, with the time that the chapter takes at profile quick."""
    quick = last_seconds(chapter, "quick")
    if quick is not None:
        about = notebook.metadata["robustlib"]
        notebook.metadata["robustlib"] = {**about, "quick_seconds": quick}
    return notebook
