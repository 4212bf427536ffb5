"""Lower bounds of a linear program recomputed from multipliers, safe under rounding."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from robustlib.rounding import UNIT, rounding, underflow
from robustlib.solvers.program import Program

if TYPE_CHECKING:
    from robustlib.bounds import Region


def safe_lower_bound(
    program: Program,
    multipliers: np.ndarray,
    *,
    lower: np.ndarray | None = None,
    upper: np.ndarray | None = None,
    objective: np.ndarray | None = None,
    region: Region | None = None,
) -> float:
    """A lower bound of the LP's optimum, whatever the engine did (Neumaier, Shcherbina 2004).

    For any y, objective · x = y · (A x) + (objective − Aᵀ y) · x, so

        min ≥ Σ_i min(y_i row_lower_i, y_i row_upper_i) + Σ_j min(d_j lower_j, d_j upper_j),

    d = objective − Aᵀ y. Every sum's rounding error is bounded by the sum of its magnitudes and
    taken off. Integrality is ignored, so the bound holds for the mixed-integer program too.

    Parameters
    ----------
    multipliers : (m,) any numbers; the nearer to the dual optimum, the better the bound.
    lower, upper : (n,) the variables' bounds if not the program's own; they must be finite.
    objective : (n,) if not the program's own; zeros turn a Farkas ray into a proof that there is
        no feasible point: a bound above 0.
    region : a set in which the first variables lie, besides their bounds; its minimum of d takes
        the place of theirs.

    Returns
    -------
    bound : float, −inf where a multiplier pulls at an infinite side or the arithmetic overflows.
    """
    lower = program.lower if lower is None else lower
    upper = program.upper if upper is None else upper
    cost = program.objective if objective is None else objective
    y = np.where(np.isfinite(multipliers), multipliers, 0.0)
    y = np.where((y > 0) & (program.row_lower == -np.inf), 0.0, y)
    y = np.where((y < 0) & (program.row_upper == np.inf), 0.0, y)
    side = np.where(y > 0, program.row_lower, np.where(y < 0, program.row_upper, 0.0))
    rows = y * side
    reduced = cost - program.matrix.T @ y
    magnitude = np.abs(cost) + abs(program.matrix).T @ np.abs(y)
    m = program.matrix.shape[0]
    gap = rounding(m) * magnitude + underflow(m + 1)
    with np.errstate(invalid="ignore"):
        columns = np.minimum(
            np.minimum((reduced - gap) * lower, (reduced - gap) * upper),
            np.minimum((reduced + gap) * lower, (reduced + gap) * upper),
        )
    if not np.isfinite(columns).all():  # a column that takes no part may be unbounded
        part = (cost != 0) | (abs(program.matrix).T @ (y != 0) > 0)
        columns = np.where(part, columns, 0.0)
    if region is not None:
        n = len(region.box.lower)
        least = region.minimum(reduced[None, :n])[0] - 2.0 * (gap[:n] @ region.box.magnitude)
        columns = np.append(columns[n:], least)
    if not np.isfinite(columns).all():
        return -np.inf
    terms = len(rows) + len(columns)
    error = (rounding(terms) + 4 * UNIT) * (np.abs(rows).sum() + np.abs(columns).sum())
    bound = float(rows.sum() + columns.sum() - error - underflow(terms))
    return bound if np.isfinite(bound) else -np.inf
