"""Answers in SQLite as they come: a kill at any moment loses at most the inputs in flight."""

from __future__ import annotations

import hashlib
import json
import sqlite3
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from types import TracebackType
from typing import Any, Generic, TypeVar

import numpy as np
import torch
from torch import Tensor

from robustlib.network import Affine, MaxPool, Network

# Part of every file's settings: raise it when a stage changes in a way that can change a verdict.
METHOD = "bounds-attack-exact 5"

Answer = TypeVar("Answer")

# How a field of an answer is kept, by its annotation.
_COLUMNS = {
    "str": "TEXT NOT NULL",
    "float": "REAL",  # NaN is NULL
    "int": "INTEGER NOT NULL",
    "int | None": "INTEGER",
    "bool": "INTEGER NOT NULL",
    "Tensor | None": "BLOB",
    "dict[str, Any] | None": "TEXT",
}


def network_hash(network: Network) -> str:
    """sha256 of the steps and their numbers."""
    digest = hashlib.sha256(repr(network.input_shape).encode())
    for step in network.steps:
        digest.update(f"{type(step).__name__} {step.size}".encode())
        if isinstance(step, Affine):
            weight = step.weight
            dense = isinstance(weight, np.ndarray)
            parts = [weight] if dense else [weight.indptr, weight.indices, weight.data]
            for part in [*parts, step.bias]:
                digest.update(f"{part.dtype} {part.shape}".encode())
                digest.update(np.ascontiguousarray(part).tobytes())
        elif isinstance(step, MaxPool):
            digest.update(step.windows.astype(np.int64).tobytes())
    return digest.hexdigest()


def input_key(x: Tensor, label: int) -> str:
    """A key that differs whenever the input or its label does."""
    values = x.detach().cpu().contiguous()
    return hashlib.sha256(values.numpy().tobytes() + f" {label}".encode()).hexdigest()


class Store(Generic[Answer]):
    """A file of answers to one question about one network, opened for one call.

    Parameters
    ----------
    path : of the file; it is made where there is none.
    kind : the dataclass of the answers; its fields are the columns.
    settings : what the answers depend on besides the input, by name. A file holds one such set.

    Raises
    ------
    ValueError
        If the path cannot be written, is not such a file, or holds answers of other settings.
    """

    def __init__(self, path: str | Path, kind: type[Answer], settings: Mapping[str, Any]) -> None:
        self.path, self.kind = Path(path), kind
        self._fields = {f.name: str(f.type) for f in fields(kind)}  # type: ignore[arg-type]
        wanted = {name: str(value) for name, value in settings.items()}
        wanted |= {"answers": kind.__name__, "method version": METHOD}
        columns = ", ".join(f'"{name}" {_COLUMNS[text]}' for name, text in self._fields.items())
        try:
            self._connection = sqlite3.connect(self.path, timeout=60.0)
            self._connection.execute("PRAGMA journal_mode=WAL")
            self._connection.execute("BEGIN IMMEDIATE")
            names = {row[0] for row in self._connection.execute("SELECT name FROM sqlite_master")}
            found = wanted
            if "settings" in names:
                found = dict(self._connection.execute("SELECT name, value FROM settings"))
            elif names:
                found = {}
            else:
                self._connection.execute("CREATE TABLE settings (name TEXT PRIMARY KEY, value)")
                self._connection.executemany("INSERT INTO settings VALUES (?, ?)", wanted.items())
                self._connection.execute(
                    f"CREATE TABLE verdicts (key TEXT PRIMARY KEY, {columns}, time_limit REAL)"
                )
            self._connection.commit()
        except sqlite3.Error as error:
            raise ValueError(
                f"store={str(self.path)!r} cannot be used ({error}); give a path in an existing, "
                "writable folder, or a file that an earlier run wrote."
            ) from error
        if found != wanted:
            self._connection.close()
            raise ValueError(self._refusal(found, wanted))

    def _refusal(self, found: dict[str, str], wanted: dict[str, str]) -> str:
        if not found:
            what = "is no file of this version of the library"
        else:
            other = [n for n in [*wanted, *found] if found.get(n) != wanted.get(n)]
            differ = [f"{n} {_short(found.get(n))}, not {_short(wanted.get(n))}" for n in other]
            what = f"holds answers for {'; '.join(dict.fromkeys(differ))}"
        return (
            f"store={str(self.path)!r} {what}; answers of two settings are never mixed: give "
            "another path, repeat the call that wrote this file, or remove it."
        )

    def __enter__(self) -> Store[Answer]:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._connection.close()

    def get(self, key: str, x: Tensor) -> tuple[Answer, float] | None:
        """The answer for an input and the time limit that it had, or None."""
        names = ", ".join(f'"{name}"' for name in [*self._fields, "time_limit"])
        try:
            row = self._connection.execute(
                f"SELECT {names} FROM verdicts WHERE key = ?", (key,)
            ).fetchone()
        except sqlite3.Error as error:
            raise ValueError(
                f"store={str(self.path)!r} cannot be read ({error}); the file is damaged: give "
                "another path, or remove it."
            ) from error
        if row is None:
            return None
        pairs = zip(self._fields.items(), row[:-1], strict=True)
        values = {name: _decode(kind, value, x) for (name, kind), value in pairs}
        return self.kind(**values), float(row[-1])

    def put(self, key: str, answer: Answer, time_limit: float) -> None:
        """Write an answer; it is on the disk when this returns.

        Raises
        ------
        OSError
            If the file cannot be written, as on a full disk.
        """
        values = [_encode(getattr(answer, name)) for name in self._fields]
        marks = ", ".join("?" * (len(values) + 2))
        try:
            with self._connection:
                self._connection.execute(
                    f"INSERT OR REPLACE INTO verdicts VALUES ({marks})", (key, *values, time_limit)
                )
        except sqlite3.Error as error:
            raise OSError(
                f"store={str(self.path)!r} could not be written ({error}); make room and call "
                f"again: the {self._count()} answers in it are kept."
            ) from error

    def _count(self) -> int:
        return int(self._connection.execute("SELECT count(*) FROM verdicts").fetchone()[0])


def _short(text: str | None) -> str:
    return "none" if text is None else text[:12] + "…" if len(text) == 64 else text


def _encode(value: Any) -> Any:
    if isinstance(value, Tensor):
        return value.detach().cpu().contiguous().numpy().tobytes()
    if isinstance(value, dict):
        return json.dumps(value)
    return value.item() if isinstance(value, np.generic) else value


def _decode(kind: str, value: Any, x: Tensor) -> Any:
    if kind == "float":
        return np.nan if value is None else float(value)
    if kind == "bool":
        return bool(value)
    if value is None:
        return None
    if kind == "Tensor | None":
        return torch.frombuffer(bytearray(value), dtype=x.dtype).reshape(x.shape)
    return json.loads(value) if kind.startswith("dict") else value
