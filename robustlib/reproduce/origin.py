"""Where a result comes from: commit, versions, machine, seed, profile, seconds, date."""

from __future__ import annotations

import datetime
import os
import platform
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

PACKAGES = ("robustlib", "torch", "numpy", "scipy", "highspy", "pyscipopt", "cvxpy", "matplotlib")


def provenance(*, profile: str, seed: int) -> Any:
    """The foot of a chapter, as Markdown: how the numbers above it were made.

    Parameters
    ----------
    profile : str
        The profile of this run, ``quick`` or ``reference``.
    seed : int
        The seed of this run.

    Returns
    -------
    IPython.display.Markdown
        One line. Seconds are counted from the start of the kernel.

    Examples
    --------
    >>> foot = provenance(profile="quick", seed=0)
    >>> "profile `quick`, seed 0" in foot.data
    True
    """
    import psutil
    from IPython.display import Markdown

    from robustlib.reproduce.long_runs import used_runs

    seconds = datetime.datetime.now().timestamp() - psutil.Process().create_time()
    parts = [
        f"profile `{profile}`, seed {seed}",
        f"{seconds:.0f} s on {machine()}",
        commit(),
        ", ".join(f"{name} {version}" for name, version in versions().items()),
        datetime.date.today().isoformat(),
    ]
    text = "**Provenance.** " + "; ".join(parts) + "."
    if used_runs():
        text += "\n\nTaken from kept runs with the same settings:\n\n"
        text += "\n".join(f"* {run}" for run in used_runs())
    return Markdown(f'<div class="provenance">\n\n{text}\n\n</div>')


def versions() -> dict[str, str]:
    """Python's version and those of the packages that numbers depend on, as installed."""
    found = {"Python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def machine() -> str:
    """The processor in words, with its number of usable cores; the GPU if torch sees one."""
    cpu = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        names = [line for line in info.read_text().splitlines() if line.startswith("model name")]
        cpu = names[0].split(":", 1)[1].strip() if names else cpu
    count = cores()
    words = f"{cpu}, {count} core{'s' if count != 1 else ''}"
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available():
        words += f", {torch.cuda.get_device_name()}"
    return words


def cores() -> int:
    """The number of cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def commit(root: Path | None = None) -> str:
    """The commit of the library's source in words, and whether files were changed since."""
    where = root or Path(__file__).resolve().parents[2]
    name = _git(where, "rev-parse", "--short=10", "HEAD")
    if not name:
        return "no commit"
    changed = _git(where, "status", "--porcelain", "--", "robustlib", "notebooks/*.md")
    return f"commit `{name}`" + (" with changes" if changed else "")


def _git(where: Path, *arguments: str) -> str:
    try:
        done = subprocess.run(
            ["git", "-C", str(where), *arguments],
            capture_output=True,
            text=True,
            timeout=10,
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""
