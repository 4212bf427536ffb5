"""What a search for ρ̂ says: an answer for each input, and all of them together."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

STATUSES = ("found", "none", "undecided")


@dataclass(frozen=True, eq=False)
class Answer:
    """One row of `PointwiseRobustness`, whose fields are described there."""

    status: str
    rho: float
    distance: float
    label: int
    target: int
    nearest: Tensor | None
    witness: Tensor | None
    rounded: Tensor | None
    iterations: int
    used: int
    constraints: int
    seconds: float
    note: str = ""


@dataclass(frozen=True, eq=False)
class PointwiseRobustness:
    """What was found, one entry for each of n inputs x*.

    Attributes
    ----------
    status : "found": there is a witness; "none": the search ended without one, which by linear
        programs means that the linear region of x* holds none (within ``limit``); "undecided": the
        engine failed, see ``note``.
    rho : (n,) float64. ρ̂(f, x*), the infimum of the l∞ distances from x* to the points of its
        linear region that have the target label; ``inf`` where there is none, NaN where it is
        undecided. Never below the pointwise robustness ρ, up to the solver's tolerance. By "cegar"
        and "lbfgs" the distance of the witness.
    nearest : for each input the optimum of the linear program, or None. Without a margin α it lies
        on the tie, so its label is a matter of rounding.
    witness : for each input an adversarial example in float64: inside ``bounds``, and given the
        target label by a forward pass in float64, with a lead far above rounding. Else None.
    distance : (n,) the l∞ distance of the witness, a hair above rho; ``inf`` where there is none.
    rounded : for each input the witness rounded to whole pixels, if it still has the target label;
        else None.
    label : (n,) int, f(x*), the first label of the largest logit in float64
    target : (n,) int, the label of the witness; −1 where there is none
    iterations : (n,) linear programs solved, of all targets
    used : (n,) inequalities of the network that these programs held in the end
    constraints : (n,) inequalities of the network that there are, for all targets that were tried:
        one for each ReLU, k − 1 for a maximum of k, classes − 1 for the label
    seconds : (n,) wall time
    note : why an input is undecided, or ""
    """

    status: list[str]
    rho: np.ndarray
    nearest: list[Tensor | None]
    witness: list[Tensor | None]
    distance: np.ndarray
    rounded: list[Tensor | None]
    label: np.ndarray
    target: np.ndarray
    iterations: np.ndarray
    used: np.ndarray
    constraints: np.ndarray
    seconds: np.ndarray
    note: list[str]

    def __len__(self) -> int:
        return len(self.status)

    def to_frame(self) -> pd.DataFrame:
        """One row an input: every number and word, without the points."""
        names = [f.name for f in fields(self) if f.name not in ("nearest", "witness", "rounded")]
        return pd.DataFrame({name: getattr(self, name) for name in names})


def together(answers: tuple[Answer, ...]) -> PointwiseRobustness:
    """The answers, field by field."""
    columns: dict[str, Any] = {}
    for field in fields(PointwiseRobustness):
        values = [getattr(answer, field.name) for answer in answers]
        kind = {"float": float, "int": int}.get(_KINDS[field.name])
        if kind is not None:
            columns[field.name] = np.array(values, dtype=kind)
        elif field.name in ("status", "note"):
            columns[field.name] = values
        else:
            columns[field.name] = [None if v is None else v.to(torch.float64) for v in values]
    return PointwiseRobustness(**columns)


_KINDS = {field.name: str(field.type) for field in fields(Answer)}
