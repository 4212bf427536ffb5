"""Branch and bound whose every leaf is closed by a bound that is safe under rounding.

An engine's "optimal" or "infeasible" rests on its tolerances. Here each node is an LP with some
0–1 variables fixed; HiGHS proposes multipliers, ``safe_lower_bound`` recomputes what they prove,
and only that closes a node.
"""

from __future__ import annotations

import heapq
import itertools
import math
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from robustlib.solvers.engines import SolverError
from robustlib.solvers.highs import HighsModel
from robustlib.solvers.program import Program, Solution
from robustlib.solvers.safe import safe_lower_bound


@dataclass(frozen=True)
class Certificate:
    """What the tree proved.

    Attributes
    ----------
    lower : a safe lower bound of the program's optimum (inf: no feasible point).
    nodes : LPs solved.
    finished : whether ``lower`` reached the threshold.
    stopped : whether ``inspect`` asked to stop.
    """

    lower: float
    nodes: int
    finished: bool
    stopped: bool


def prove_at_least(
    program: Program,
    threshold: float,
    *,
    time_limit: float = math.inf,
    node_limit: int | None = None,
    inspect: Callable[[np.ndarray], bool] | None = None,
) -> Certificate:
    """Try to prove that every feasible point of a 0–1 program has objective ≥ threshold.

    Parameters
    ----------
    program : its variables all have finite bounds; the integer ones are 0 or 1.
    threshold : the bound to reach.
    time_limit, node_limit : when to give up; what is proved by then is in ``lower``.
    inspect : called with the point of every LP that was not closed; True stops the search (the
        caller found what it looked for).

    Raises
    ------
    SolverError
        If HiGHS refuses the program (coefficients beyond its range).

    Examples
    --------
    >>> from scipy import sparse
    >>> one = np.ones(1)
    >>> p = Program(one, sparse.csr_array(np.ones((1, 1))), 0.5 * one, one, 0 * one, one, one > 0)
    >>> prove_at_least(p, 0.99).finished
    True
    """
    start = time.perf_counter()
    relaxation = program.relaxed()
    try:
        model = HighsModel(relaxation)
    except RuntimeError as error:
        raise SolverError(f"the proof's linear program failed: {error}") from error
    binaries = np.flatnonzero(program.integer)
    current: dict[int, int] = {}
    order = itertools.count()
    # nodes by the bound of their parent: the weakest first, so that ``lower`` grows
    open_nodes: list[tuple[float, int, dict[int, int]]] = [(-math.inf, next(order), {})]
    closed = math.inf
    nodes = 0
    while open_nodes:
        weakest, _, fixed = heapq.heappop(open_nodes)
        spent = time.perf_counter() - start
        if spent >= time_limit or (node_limit is not None and nodes >= node_limit):
            return Certificate(min(weakest, closed), nodes, False, False)
        _move(model, program, current, fixed)
        current = fixed
        solution = _solve(model, time_limit - spent)
        nodes += 1
        lower, upper = _bounds(program, fixed)
        bound = weakest
        if solution.duals is not None:
            bound = max(
                bound, safe_lower_bound(relaxation, solution.duals, lower=lower, upper=upper)
            )
        if solution.status == "infeasible" and _no_point(model, relaxation, lower, upper):
            bound = math.inf
        if bound >= threshold:
            closed = min(closed, bound)
            continue
        others = open_nodes[0][0] if open_nodes else math.inf  # not looked at yet
        if solution.x is not None and inspect is not None and inspect(solution.x):
            return Certificate(min(bound, closed, others), nodes, False, True)
        column = _branch(binaries, fixed, solution.x)
        if column is None:  # nothing left to fix, and still below: the threshold does not hold
            return Certificate(min(bound, closed, others), nodes, False, False)
        for value in (0, 1):
            heapq.heappush(open_nodes, (bound, next(order), {**fixed, column: value}))
    return Certificate(closed, nodes, True, False)


def _solve(model: HighsModel, time_limit: float) -> Solution:
    """The node's LP; an engine that fails proves nothing, and the node is split further."""
    try:
        return model.solve(time_limit=time_limit)
    except RuntimeError:
        return Solution("limit", None, None, -math.inf, None, 0, 0.0)


def _move(
    model: HighsModel, program: Program, current: dict[int, int], fixed: dict[int, int]
) -> None:
    for column in current.keys() - fixed.keys():
        model.set_bounds(column, program.lower[column], program.upper[column])
    for column, value in fixed.items():
        if current.get(column) != value:
            model.set_bounds(column, value, value)


def _bounds(program: Program, fixed: dict[int, int]) -> tuple[np.ndarray, np.ndarray]:
    lower, upper = program.lower.copy(), program.upper.copy()
    for column, value in fixed.items():
        lower[column] = upper[column] = value
    return lower, upper


def _no_point(model: HighsModel, relaxation: Program, lower: np.ndarray, upper: np.ndarray) -> bool:
    """Whether HiGHS's Farkas ray, with either sign, proves that there is no feasible point."""
    ray = model.infeasibility_multipliers()
    nothing = np.zeros(relaxation.variables)
    return ray is not None and any(
        safe_lower_bound(relaxation, sign * ray, lower=lower, upper=upper, objective=nothing) > 0
        for sign in (1.0, -1.0)
    )


def _branch(binaries: np.ndarray, fixed: dict[int, int], point: np.ndarray | None) -> int | None:
    """The free 0–1 variable that is farthest from both; any free one if the LP gave no point."""
    free = [int(c) for c in binaries if int(c) not in fixed]
    if not free:
        return None
    if point is None:
        return free[0]
    return max(free, key=lambda c: 0.5 - abs(point[c] - 0.5))
