"""Long computations of the notebooks: done once, kept with how they were made, shown as such.

A chapter at reference scale can hold hours of computation. Each such part has a name and settings;
its result is kept in two places:

* ``_build/runs/NAME.json``: this machine's own, so that an interrupted reproduction goes on;
* ``notebooks/runs/NAME.json``: the book's own, in the repository. It is read and written only while
  the book's recorded run is being made (``robustlib reproduce --record``; with ``--force`` it is
  written only), so that an edited figure does not cost hours. Whoever reproduces the book computes
  everything anew.

Where two notebooks that run at once need the same result, the second waits for the first. Every use
of a kept result is listed at the foot of the chapter, with date, commit and seconds.
"""

from __future__ import annotations

import base64
import datetime
import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from filelock import FileLock

from robustlib.reproduce import notebooks
from robustlib.reproduce.notebooks import BookError, find_root, write
from robustlib.reproduce.origin import commit, machine

RECORDING = "ROBUSTLIB_RECORDING"  # the runner sets it while it makes the recorded run
KEEP, RENEW = "keep", "renew"
_used: list[str] = []  # what the foot of this chapter has to say


def long_run(name: str, settings: dict[str, Any], compute: Callable[[], Any]) -> Any:
    """The result of ``compute()``, or the kept result of the same computation.

    Parameters
    ----------
    name : str
        ``CHAPTER.what``; also the name of the file.
    settings : dict
        All that the result depends on, as JSON: scale, seeds, ε, limits. A kept result counts only
        if it has the same settings.
    compute : callable
        Without arguments; returns numbers, texts, lists, dicts and NumPy arrays.

    Returns
    -------
    Any
        The result as it reads from JSON (arrays come back as arrays), kept or fresh alike.

    Examples
    --------
    >>> long_run("doctest.sum", {"n": 3}, lambda: sum(range(3)))  # doctest: +SKIP
    3
    """
    lock = find_root(Path.cwd()) / "_build" / "runs" / f".{name}.lock"
    lock.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(lock):
        return _long_run(name, settings, compute)


def _long_run(name: str, settings: dict[str, Any], compute: Callable[[], Any]) -> Any:
    wanted = json.loads(json.dumps(settings, default=_plain))
    renew = os.environ.get(RECORDING) == RENEW
    for path, own in [] if renew else _places(name):
        found = _read(path)
        if found is None or found["settings"] != wanted:
            continue
        if own and found["made"]["library"] != notebooks.library_hash():
            continue
        made = found["made"]
        _used.append(
            f"`{name}`: {made['date']}, {made['seconds']:.0f} s on {made['machine']}, "
            f"{made['commit']}"
        )
        return _decode(found["result"])
    start = time.perf_counter()
    result = compute()
    record = {
        "settings": wanted,
        "made": {
            "date": datetime.date.today().isoformat(),
            "seconds": round(time.perf_counter() - start, 1),
            "machine": machine(),
            "commit": commit(),
            "library": notebooks.library_hash(),
        },
        "result": result,
    }
    text = json.dumps(record, default=_plain)
    for path, _ in _places(name):
        write(path, text + "\n")
    return _decode(json.loads(text)["result"])


def work_folder(name: str) -> Path:
    """A folder of this machine for what a long run keeps on its way: stores, data, checkpoints."""
    folder = find_root(Path.cwd()) / "_build" / "runs" / name
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def used_runs() -> list[str]:
    """The kept results that this notebook has used, in words."""
    return list(_used)


def _places(name: str) -> list[tuple[Path, bool]]:
    """Where the result of ``name`` may be, and whether it has to come from the same library."""
    root = find_root(Path.cwd())
    places = [(root / "_build" / "runs" / f"{name}.json", True)]
    if os.environ.get(RECORDING):
        places.insert(0, (root / "notebooks" / "runs" / f"{name}.json", False))
    return places


def _read(path: Path) -> dict[str, Any] | None:
    if not path.exists():
        return None
    try:
        found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        _ = found["settings"], found["result"], found["made"]["library"]
    except (ValueError, KeyError, TypeError) as error:
        raise BookError(f"{path} is not a record of a long run ({error}); remove it.") from None
    return found


def _plain(value: Any) -> Any:
    """What JSON does not know: arrays as base64 with type and shape, scalars as numbers."""
    import numpy as np

    if isinstance(value, np.ndarray) and value.ndim:
        data = base64.b64encode(np.ascontiguousarray(value).tobytes()).decode()
        return {"array": data, "dtype": str(value.dtype), "shape": list(value.shape)}
    if hasattr(value, "item"):
        return value.item()
    if isinstance(value, Path):
        return str(value)
    raise TypeError(f"a long run returned a {type(value).__name__}; return plain data and arrays.")


def _decode(value: Any) -> Any:
    import numpy as np  # only here: `robustlib --help` should not wait for it

    if isinstance(value, list):
        return [_decode(item) for item in value]
    if not isinstance(value, dict):
        return value
    if set(value) == {"array", "dtype", "shape"}:
        flat = np.frombuffer(base64.b64decode(value["array"]), dtype=value["dtype"])
        return flat.reshape(value["shape"]).copy()
    return {key: _decode(item) for key, item in value.items()}
