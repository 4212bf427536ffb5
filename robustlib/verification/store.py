"""Verdicts in SQLite as they come: a kill at any moment loses at most the inputs in flight."""

from __future__ import annotations

import hashlib
import sqlite3
from pathlib import Path
from types import TracebackType

import numpy as np
import torch

from robustlib.network import Affine, MaxPool, Network
from robustlib.verification.question import Question
from robustlib.verification.result import NEAR_TIE, OVERFLOW, TIME_LIMIT, Verdict

# Part of every key: raise it when a stage changes in a way that can change a verdict.
METHOD = "crown-pgd-branch-lp-mip 4"

LASTING = (TIME_LIMIT, NEAR_TIE, OVERFLOW)
_TABLE = """
CREATE TABLE IF NOT EXISTS verdicts (
    key TEXT PRIMARY KEY, verdict TEXT NOT NULL, stage TEXT NOT NULL, lower REAL, upper REAL,
    witness BLOB, seconds REAL NOT NULL, note TEXT NOT NULL, time_limit REAL NOT NULL
)
"""


def network_hash(network: Network) -> str:
    """sha256 of the steps and their numbers."""
    digest = hashlib.sha256(repr(network.input_shape).encode())
    for step in network.steps:
        digest.update(f"{type(step).__name__} {step.size}".encode())
        if isinstance(step, Affine):
            weight = step.weight if isinstance(step.weight, np.ndarray) else step.weight.toarray()
            digest.update(np.ascontiguousarray(weight).tobytes())
            digest.update(step.bias.tobytes())
        elif isinstance(step, MaxPool):
            digest.update(step.windows.astype(np.int64).tobytes())
    return digest.hexdigest()


def question_key(question: Question, network: str, norm: str, solver: str, seed: int) -> str:
    """A key that differs whenever the network, the input or a setting does."""
    digest = hashlib.sha256(network.encode())
    digest.update(question.center.tobytes())
    settings = (METHOD, question.label, question.eps, question.bounds, norm, solver, seed)
    digest.update(repr((settings, str(question.x.dtype))).encode())
    return digest.hexdigest()


class Store:
    """A file of verdicts, opened for one call of ``verify``.

    Raises
    ------
    ValueError
        If the path cannot be written or is not such a file.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        try:
            self._connection = sqlite3.connect(self.path, timeout=60.0)
            self._connection.execute("PRAGMA journal_mode=WAL")
            self._connection.execute(_TABLE)
            self._connection.commit()
        except sqlite3.Error as error:
            raise ValueError(
                f"store={str(self.path)!r} cannot be used ({error}); give a path in an existing, "
                "writable folder, or a file that an earlier run wrote."
            ) from error

    def __enter__(self) -> Store:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._connection.close()

    def get(self, key: str, question: Question, time_limit: float) -> Verdict | None:
        """The stored verdict, or None.

        An undecided one counts only if it had at least ``time_limit`` and no engine failed.
        """
        row = self._connection.execute(
            "SELECT verdict, stage, lower, upper, witness, seconds, note, time_limit "
            "FROM verdicts WHERE key = ?",
            (key,),
        ).fetchone()
        if row is None:
            return None
        if row[0] == "undecided" and (row[7] < time_limit or row[6] not in LASTING):
            return None
        blob = row[4]
        witness = None
        if blob is not None:
            kind = np.float32 if question.x.dtype == torch.float32 else np.float64
            witness = torch.from_numpy(np.frombuffer(blob, dtype=kind).copy())
            witness = witness.reshape(question.x.shape)
        lower, upper = (np.nan if v is None else float(v) for v in row[2:4])
        return Verdict(row[0], row[1], lower, upper, witness, row[5], row[6])

    def put(self, key: str, verdict: Verdict, time_limit: float) -> None:
        witness = None if verdict.witness is None else verdict.witness.numpy().tobytes()
        try:
            with self._connection:
                self._connection.execute(
                    "INSERT OR REPLACE INTO verdicts VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
                    (
                        key,
                        verdict.verdict,
                        verdict.stage,
                        verdict.lower,
                        verdict.upper,
                        witness,
                        verdict.seconds,
                        verdict.note,
                        time_limit,
                    ),
                )
        except sqlite3.Error as error:
            raise OSError(
                f"store={str(self.path)!r} could not be written ({error}); make room and call "
                "again: the verdicts before this one are kept"
            ) from error
