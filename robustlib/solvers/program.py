"""The problem that every engine understands, and its answer."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from scipy import sparse


@dataclass(frozen=True, eq=False)
class Program:
    """Minimize objective · x subject to row_lower ≤ matrix x ≤ row_upper, lower ≤ x ≤ upper.

    Attributes
    ----------
    objective, lower, upper : (n,) float64; bounds may be ±inf for a plain LP.
    matrix : (m, n) scipy.sparse CSR.
    row_lower, row_upper : (m,) float64, ±inf for a one-sided row.
    integer : (n,) bool, the variables that must be whole numbers.
    """

    objective: np.ndarray
    matrix: sparse.csr_array
    row_lower: np.ndarray
    row_upper: np.ndarray
    lower: np.ndarray
    upper: np.ndarray
    integer: np.ndarray

    def __post_init__(self) -> None:
        m, n = self.matrix.shape
        for name, size in [
            ("objective", n),
            ("lower", n),
            ("upper", n),
            ("integer", n),
            ("row_lower", m),
            ("row_upper", m),
        ]:
            shape = getattr(self, name).shape
            if shape != (size,):
                raise ValueError(
                    f"{name} has shape {shape}; a matrix of shape {(m, n)} needs ({size},)."
                )
        for name in ("objective", "lower", "upper", "row_lower", "row_upper"):
            if np.isnan(getattr(self, name)).any():
                raise ValueError(f"{name} holds NaN.")
        if not np.isfinite(self.matrix.data).all():
            raise ValueError("matrix holds NaN or infinite values.")

    @property
    def variables(self) -> int:
        return self.matrix.shape[1]

    def relaxed(self) -> Program:
        """The same without the integrality."""
        return replace(self, integer=np.zeros(self.variables, dtype=bool))

    def with_cutoff(self, cutoff: float) -> Program:
        """The same with the row objective · x ≤ cutoff."""
        return replace(
            self,
            matrix=sparse.csr_array(sparse.vstack([self.matrix, self.objective[None]])),
            row_lower=np.append(self.row_lower, -np.inf),
            row_upper=np.append(self.row_upper, cutoff),
        )


@dataclass(frozen=True, eq=False)
class Solution:
    """What an engine answered.

    Attributes
    ----------
    status : "optimal", "infeasible" or "limit" (time is over, or it was told to stop early).
    x : (n,) the best point found, or None.
    objective : its value, or None.
    bound : the engine's own lower bound of the optimum (−inf if it gave none): not a proof.
    duals : (m,) multipliers of the rows (LPs solved by HiGHS only), else None.
    nodes : branch-and-bound nodes.
    seconds : wall seconds.
    """

    status: str
    x: np.ndarray | None
    objective: float | None
    bound: float
    duals: np.ndarray | None
    nodes: int
    seconds: float
