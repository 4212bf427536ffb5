"""What ``verify`` returns."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import pandas as pd
from torch import Tensor

VERDICTS = ("robust", "adversarial", "misclassified", "undecided")
# Why an input stays undecided however often the same call is made (an engine's error is none):
TIME_LIMIT, NEAR_TIE, OVERFLOW = (
    "time limit",
    "margin within rounding of 0",
    "the bounds overflow",
)
LASTING = (TIME_LIMIT, NEAR_TIE, OVERFLOW)
WORKER_DIED = "the worker process died twice with this input"
STAGES = ("clean", "crown", "pgd", "alpha", "branch", "lp", "mip")


@dataclass(frozen=True, eq=False)
class Verdict:
    """The answer for one input.

    Attributes
    ----------
    verdict : "robust": no point of the ball and the box gets another label (real arithmetic, the
        stored weights); "adversarial": ``witness`` is such a point; "misclassified": the input
        itself has another label, as strictly as a witness; "undecided": none of these could be
        shown. An input whose best logits tie is not misclassified.
    stage : the stage that decided, or the last one that tried: one of ``STAGES``.
    lower : a lower bound, safe under rounding, of the smallest margin logit[y] − logit[j] over the
        ball, the box and all j ≠ y; above 0 for "robust", −∞ where none was computed
        ("misclassified", or the bounds overflow).
    upper : the margin at the witness (below 0), or at the input if it is misclassified; else NaN.
    witness : the adversarial example, of the input's shape and dtype, or None.
    seconds : wall seconds spent on this input (its share of batched stages).
    note : why an undecided input stayed so, or "".
    distance : of the witness from the input, in the norm asked; 0 if the input is misclassified,
        NaN if there is no witness.
    nodes : branches, or nodes of the engine, that the exact stages looked at.
    build_seconds, solve_seconds : wall seconds that ``method="mip"`` spent on bounds and encoding,
        and in the engine.
    details : what else a method reports, or None.
    """

    verdict: str
    stage: str
    lower: float
    upper: float
    witness: Tensor | None
    seconds: float
    note: str = ""
    distance: float = np.nan
    nodes: int = 0
    build_seconds: float = 0.0
    solve_seconds: float = 0.0
    details: dict[str, Any] | None = None


@dataclass(frozen=True, eq=False)
class Verification:
    """The answers for a batch, in the order of the inputs; ``results[i]`` is a ``Verdict``."""

    results: tuple[Verdict, ...]

    def __len__(self) -> int:
        return len(self.results)

    @property
    def verdict(self) -> list[str]:
        return [r.verdict for r in self.results]

    @property
    def stage(self) -> list[str]:
        return [r.stage for r in self.results]

    @property
    def lower(self) -> np.ndarray:
        return np.array([r.lower for r in self.results])

    @property
    def upper(self) -> np.ndarray:
        return np.array([r.upper for r in self.results])

    @property
    def seconds(self) -> np.ndarray:
        return np.array([r.seconds for r in self.results])

    @property
    def distance(self) -> np.ndarray:
        return np.array([r.distance for r in self.results])

    @property
    def witness(self) -> list[Tensor | None]:
        return [r.witness for r in self.results]

    def counts(self) -> Counter[str]:
        """How many inputs got each verdict."""
        return Counter(self.verdict)

    def to_frame(self) -> pd.DataFrame:
        """One row an input: every number and word of its verdict, without witness and details."""
        names = [f.name for f in fields(Verdict) if f.name not in ("witness", "details")]
        return pd.DataFrame({name: [getattr(r, name) for r in self.results] for name in names})
