"""A linear program whose first variables lie in an l2 ball: a second-order cone program."""

from __future__ import annotations

import math
import time

import clarabel
import numpy as np
from scipy import sparse

from robustlib.solvers.program import Program, Solution


def solve_in_ball(
    program: Program, center: np.ndarray, eps: float, *, time_limit: float = math.inf
) -> Solution:
    """Minimize over ‖x − center‖₂ ≤ eps too, with Clarabel; integrality is left out.

    Parameters
    ----------
    program : all variables have finite bounds.
    center : (k,) of the ball in which the first k variables x lie.

    Returns
    -------
    solution : its ``duals`` are the multipliers of the rows, for ``safe_lower_bound``.
    """
    start = time.perf_counter()
    n, k = program.variables, len(center)
    matrix = sparse.csr_array(program.matrix)
    equal = program.row_lower == program.row_upper
    below = np.flatnonzero(~equal & np.isfinite(program.row_upper))
    above = np.flatnonzero(~equal & np.isfinite(program.row_lower))
    same = np.flatnonzero(equal)
    one = sparse.eye_array(n, format="csr")
    rows = sparse.vstack(
        [matrix[same], matrix[below], -matrix[above], one, -one,
         sparse.csr_array((1, n)), -one[:k]]
    )  # fmt: skip
    limits = np.concatenate(
        [program.row_upper[same], program.row_upper[below], -program.row_lower[above],
         program.upper, -program.lower, [eps], -center]
    )  # fmt: skip
    cones = [
        clarabel.ZeroConeT(len(same)),
        clarabel.NonnegativeConeT(len(below) + len(above) + 2 * n),
        clarabel.SecondOrderConeT(k + 1),
    ]
    settings = clarabel.DefaultSettings()
    settings.verbose = False
    if math.isfinite(time_limit):
        settings.time_limit = time_limit
    nothing = sparse.csc_matrix((n, n))
    engine = clarabel.DefaultSolver(
        nothing, program.objective, sparse.csc_matrix(rows), limits, cones, settings
    )
    answer = engine.solve()
    dual, point = np.array(answer.z), np.array(answer.x)
    duals = None
    if np.isfinite(dual).all():
        duals = np.zeros(len(equal))
        ends = np.cumsum([len(same), len(below), len(above)])
        duals[same] = -dual[: ends[0]]
        duals[below] -= dual[ends[0] : ends[1]]
        duals[above] += dual[ends[1] : ends[2]]
    solved = answer.status == clarabel.SolverStatus.Solved
    infeasible = answer.status == clarabel.SolverStatus.PrimalInfeasible
    return Solution(
        status="optimal" if solved else "infeasible" if infeasible else "limit",
        x=point if solved else None,
        objective=float(program.objective @ point) if solved else None,
        bound=float(answer.obj_val_dual) if solved else -math.inf,
        duals=duals,
        nodes=0,
        seconds=time.perf_counter() - start,
    )
