"""Read, download and list the pinned files."""

from __future__ import annotations

import contextlib
import http.client
import io
import logging
import os
import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pooch

from robustlib import checks
from robustlib.data.files import VARIABLE, DataError, File, FileSet, home, is_named
from robustlib.data.pinned import FILE_SETS

EMBEDDED = {
    "digits": "scikit-learn's handwritten digits, 1297 + 500 of 1×8×8, embedded",
    "shapes": "drawn colored shapes, 4000 + 1000 of 3×16×16, drawn on demand",
}
PATIENCE = 30.0  # seconds without an answer before a download gives up


def read(name: str, end: str) -> bytes:
    """The checked content of the file ``end`` of the pinned set ``name``.

    In the user's cache a missing file is downloaded first; in a folder named by ``ROBUSTLIB_DATA``
    nothing is.

    Raises
    ------
    DataError
        If the file is missing and cannot or may not be downloaded, or is not the published one.
    """
    pinned = FILE_SETS[name]
    file = pinned.file(end)
    try:
        return file.read(home())
    except FileNotFoundError:
        if is_named():
            raise DataError(_not_in_named_folder(name, file)) from None
    except DataError as error:
        raise DataError(f"{error} Nothing was loaded. {_remedy(name)}") from error
    download(name)
    return file.read(home())


def download(name: str, *, progress: bool = False) -> Path:
    """Fetch whatever is missing or damaged of a data set or network into :func:`home`.

    The files arrive in a temporary folder and are moved into place only after their sha256 is
    checked, so an interrupted download leaves nothing half-written.

    Parameters
    ----------
    name : str
        A data set (``"mnist"``, ``"cifar10"``) or a network of other authors (``"wk17a"``,
        ``"rsl18a"``); for embedded sets there is nothing to do.
    progress : bool
        Show the downloader's progress bars on the standard error stream.

    Returns
    -------
    Path
        The folder that holds the data.

    Raises
    ------
    ValueError
        If ``name`` is not known.
    DataError
        If the files cannot be fetched or stored, or what arrives is not the published content.

    Examples
    --------
    >>> from robustlib import data
    >>> folder = data.download("digits")  # embedded: no file, no network
    """
    checks.choice("name", name, [*FILE_SETS, *EMBEDDED])
    root = home()
    if name in EMBEDDED:
        return root
    if is_named() and not root.is_dir():
        raise DataError(
            f"{VARIABLE}={root} does not exist: create that folder, or unset {VARIABLE} to use "
            "your cache folder."
        )
    pinned = FILE_SETS[name]
    wanted = [file for file in pinned.files if _problem(file, root)]
    if not wanted:
        return root
    try:
        root.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".download-", dir=root) as folder:
            _fetch(pinned, wanted, Path(folder), progress)
            for file in wanted:
                file.read(Path(folder))
            for file in wanted:
                (root / file.path).parent.mkdir(parents=True, exist_ok=True)
                os.replace(Path(folder) / file.path, root / file.path)
    except PermissionError as error:
        raise DataError(
            f"{name} cannot be stored: {root} is not writable ({error.strerror}). Set {VARIABLE} "
            "to a folder that holds the data or that you may write to."
        ) from error
    except (OSError, RuntimeError, ValueError, EOFError, http.client.HTTPException) as error:
        raise DataError(
            f"{name} is not in {root} and could not be downloaded ({_one_line(error)}). "
            f"With a network, run `robustlib data download {name}`. Without one, set {VARIABLE} "
            f"to a folder that holds {wanted[0].path}"
            + (f" and {len(wanted) - 1} more files of the set." if len(wanted) > 1 else ".")
        ) from error
    return root


def status() -> list[dict[str, Any]]:
    """What data is at hand: one row for every data set and every network of other authors.

    Returns
    -------
    list of dict
        Keys ``name``, ``title``, ``place`` (folder, or "embedded"), ``present`` (every file there),
        ``files`` (how many are there), ``expected`` (how many belong to the set), ``bytes`` (of
        the files there) and ``checksum`` ("ok", or what is wrong with which file). Every file that
        is there is read and hashed.

    Examples
    --------
    >>> from robustlib import data
    >>> [row["name"] for row in data.status() if row["place"] == "embedded"]
    ['digits', 'shapes']
    """
    rows = [_row(pinned) for pinned in FILE_SETS.values()]
    embedded = {"place": "embedded", "present": True, "files": 0, "expected": 0, "bytes": 0}
    rows += [{"name": n, "title": t, **embedded, "checksum": "ok"} for n, t in EMBEDDED.items()]
    return rows


def _row(pinned: FileSet) -> dict[str, Any]:
    root = home()
    there = [file for file in pinned.files if (root / file.path).is_file()]
    problems = [problem for file in pinned.files if (problem := _problem(file, root))]
    if is_named() and not root.is_dir():
        problems = [f"{VARIABLE}={root} does not exist"]
    elif not there:
        problems = [f"no file is there; `robustlib data download {pinned.name}` fetches them"]
    return {
        "name": pinned.name,
        "title": pinned.title,
        "place": str((root / pinned.files[0].path).parent),
        "present": len(there) == len(pinned.files),
        "files": len(there),
        "expected": len(pinned.files),
        "bytes": sum((root / file.path).stat().st_size for file in there),
        "checksum": "; ".join(problems) or "ok",
    }


def _problem(file: File, root: Path) -> str:
    """What is wrong with a file below ``root``; empty if nothing is."""
    try:
        file.read(root)
    except FileNotFoundError:
        return f"{file.path} is missing"
    except DataError as error:
        return str(error)
    return ""


def _fetch(pinned: FileSet, wanted: list[File], folder: Path, progress: bool) -> None:
    if pinned.torchvision:
        from robustlib.data._torchvision import torchvision

        with _downloading(progress):
            getattr(torchvision.datasets, pinned.torchvision)(str(folder), download=True)
        return
    with _downloading(progress):
        for file in wanted:
            place = folder / file.path
            pooch.retrieve(
                file.url,
                known_hash=f"sha256:{file.sha256}",
                fname=place.name,
                path=place.parent,
                progressbar=progress,
            )


@contextlib.contextmanager
def _downloading(progress: bool) -> Iterator[None]:
    """Silence the downloaders unless asked, and let none of them wait for ever."""
    log = pooch.get_logger()
    before = socket.getdefaulttimeout(), log.level
    socket.setdefaulttimeout(PATIENCE)
    log.setLevel(logging.WARNING)
    try:
        with contextlib.ExitStack() as stack:
            stack.enter_context(contextlib.redirect_stdout(io.StringIO()))
            if not progress:
                stack.enter_context(contextlib.redirect_stderr(io.StringIO()))
            yield
    finally:
        socket.setdefaulttimeout(before[0])
        log.setLevel(before[1])


def _not_in_named_folder(name: str, file: File) -> str:
    root = home()
    if not root.is_dir():
        return (
            f"{VARIABLE}={root} does not exist, so {name} cannot be read. Set {VARIABLE} to the "
            "folder that holds the data, or unset it to use your cache folder."
        )
    return (
        f"{name} is not in {VARIABLE}={root}: {file.path} is missing. Run `robustlib data download "
        f"{name}` to put it there, or unset {VARIABLE} to use your cache folder."
    )


def _remedy(name: str) -> str:
    return (
        f"`robustlib data download {name}` fetches the published file again; or set {VARIABLE} to "
        "a folder that holds it."
    )


def _one_line(error: BaseException) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= 300 else text[:297] + "…"
