"""Where data files live, and how one is read: never before its size and sha256 are checked."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path

import pooch

VARIABLE = "ROBUSTLIB_DATA"


class DataError(RuntimeError):
    """Data that is missing, damaged or cannot be fetched; the message says what to do."""


def home() -> Path:
    """The folder of all data files: ``ROBUSTLIB_DATA`` if it is set, else the user's cache.

    Its layout is torchvision's: ``MNIST/raw/…``, ``cifar-10-batches-py/…``; the networks of other
    authors lie in ``networks/NAME/…``. The folder need not exist yet.
    """
    named = os.environ.get(VARIABLE)
    return Path(named).expanduser() if named else Path(pooch.os_cache("robustlib"))


def is_named() -> bool:
    """Whether the user named a data folder, so that nothing may be downloaded behind their back."""
    return bool(os.environ.get(VARIABLE))


@dataclass(frozen=True)
class File:
    """A published file: its ``path`` below :func:`home`, size in bytes, sha256 and address."""

    path: str
    size: int
    sha256: str
    url: str = ""

    def read(self, root: Path) -> bytes:
        """The content below ``root``, if it is exactly the published one.

        The bytes that are checked are the bytes that are returned, so a file that changes later
        cannot slip in between.

        Raises
        ------
        FileNotFoundError
            If there is no such file.
        DataError
            If it cannot be read, or has another size or sha256.
        """
        place = root / self.path
        try:
            content = place.read_bytes()
        except FileNotFoundError:
            raise
        except OSError as error:
            raise DataError(f"{place} cannot be read: {error.strerror or error}.") from error
        if len(content) != self.size:
            kind = "truncated" if len(content) < self.size else "too long"
            raise DataError(f"{place} is {kind}: expected {self.size} bytes, found {len(content)}.")
        found = hashlib.sha256(content).hexdigest()
        if found != self.sha256:
            raise DataError(
                f"{place} is corrupted or another file: expected sha256 {self.sha256}, "
                f"found {found}."
            )
        return content


@dataclass(frozen=True)
class FileSet:
    """The files of one data set or network; ``torchvision`` names the class that downloads them."""

    name: str
    title: str
    files: tuple[File, ...]
    torchvision: str = ""

    def file(self, end: str) -> File:
        """The file whose path ends in ``end``."""
        (found,) = (file for file in self.files if file.path.endswith(f"/{end}"))
        return found
