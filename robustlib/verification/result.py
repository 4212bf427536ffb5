"""What ``verify`` returns."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

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
STAGES = ("clean", "crown", "pgd", "branch", "lp", "mip")


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
    """

    verdict: str
    stage: str
    lower: float
    upper: float
    witness: Tensor | None
    seconds: float
    note: str = ""


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
    def witness(self) -> list[Tensor | None]:
        return [r.witness for r in self.results]

    def counts(self) -> Counter[str]:
        """How many inputs got each verdict."""
        return Counter(self.verdict)

    def to_frame(self) -> pd.DataFrame:
        """One row an input: verdict, stage, lower, upper, seconds, note."""
        names = ("verdict", "stage", "lower", "upper", "seconds", "note")
        return pd.DataFrame({name: [getattr(r, name) for r in self.results] for name in names})
