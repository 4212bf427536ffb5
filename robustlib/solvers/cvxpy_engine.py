"""The same program written in cvxpy: Clarabel for an LP, SCIP for a mixed-integer program."""

from __future__ import annotations

import math
import time
from typing import Any

import cvxpy as cp
import numpy as np

from robustlib.solvers.program import Program, Solution

# Clarabel stalled near its end, or SCIP ran out of time: there may be a point, and a better one.
INACCURATE = (cp.OPTIMAL_INACCURATE, cp.INFEASIBLE_INACCURATE)


def run(program: Program, *, time_limit: float, first: bool) -> Solution:
    """``first`` has no counterpart here: the optimum is found in any case."""
    start = time.perf_counter()
    n = program.variables
    mixed = bool(program.integer.any())
    x = cp.Variable(n, integer=(np.flatnonzero(program.integer),) if mixed else False)
    product = program.matrix @ x
    equal = program.row_lower == program.row_upper
    below = ~equal & np.isfinite(program.row_upper)
    above = ~equal & np.isfinite(program.row_lower)
    constraints: list[Any] = []
    for mask, make in [
        (equal, lambda rows, i: rows == program.row_lower[i]),
        (below, lambda rows, i: rows <= program.row_upper[i]),
        (above, lambda rows, i: rows >= program.row_lower[i]),
    ]:
        index = np.flatnonzero(mask)
        if len(index):
            constraints.append(make(product[index], index))
    low, high = (
        np.flatnonzero(np.isfinite(program.lower)),
        np.flatnonzero(np.isfinite(program.upper)),
    )
    if len(low):
        constraints.append(x[low] >= program.lower[low])
    if len(high):
        constraints.append(x[high] <= program.upper[high])
    problem = cp.Problem(cp.Minimize(program.objective @ x), constraints)
    options: dict[str, Any] = {}
    if time_limit < math.inf:
        options = (
            {"scip_params": {"limits/time": time_limit}} if mixed else {"time_limit": time_limit}
        )
    try:
        problem.solve(solver=cp.SCIP if mixed else cp.CLARABEL, **options)
    except cp.SolverError as error:
        if time_limit < math.inf and time.perf_counter() - start >= time_limit:
            return Solution("limit", None, None, -math.inf, None, 0, time.perf_counter() - start)
        raise RuntimeError(str(error)) from error
    seconds = time.perf_counter() - start
    if problem.status == cp.INFEASIBLE:
        return Solution("infeasible", None, None, math.inf, None, 0, seconds)
    if problem.status == cp.OPTIMAL:
        best = float(problem.value)
        return Solution("optimal", np.array(x.value), best, best, None, 0, seconds)
    if problem.status in (cp.USER_LIMIT, *INACCURATE):
        point = None if x.value is None else np.array(x.value)
        value = None if point is None else float(program.objective @ point)
        return Solution("limit", point, value, -math.inf, None, 0, seconds)
    raise RuntimeError(f"cvxpy stopped with {problem.status}")
