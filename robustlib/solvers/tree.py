"""Branch and bound whose every leaf is closed by a bound that is safe under rounding.

An engine's "optimal" or "infeasible" rests on its tolerances. Here each node is an LP with some
0–1 variables fixed; HiGHS proposes multipliers, ``safe_lower_bound`` recomputes what they prove,
and only that closes a node.

The variable to branch on is the one whose two sides promise the most, by what fixing it gained
before (its pseudo-costs); a variable without a past is tried first (strong branching).
"""

from __future__ import annotations

import heapq
import itertools
import math
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from highspy import HighsBasis

from robustlib.solvers.engines import SolverError
from robustlib.solvers.highs import HighsModel
from robustlib.solvers.program import Program
from robustlib.solvers.safe import safe_lower_bound

PROBES = 8  # variables that are tried at a node, at most
LEAST_GAIN = 1e-12  # a side that gains nothing must not make the other side's gain worth nothing


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
    inspect : called with the point of every node that was not closed; True stops the search (the
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
    tree = _Tree(program, threshold, time.perf_counter() + time_limit)
    order = itertools.count()
    waiting: list[tuple[float, int, _Node]] = []  # the weakest bound first, so that it grows
    closed = math.inf
    nodes: list[_Node] | None = [tree.node({})]
    while nodes is not None:
        for node in nodes:
            if node.bound >= threshold:
                closed = min(closed, node.bound)
            else:
                heapq.heappush(waiting, (node.bound, -next(order), node))
        lower = min([closed, *(bound for bound, _, _ in waiting[:1])])
        if not waiting:
            return Certificate(lower, tree.solved, True, False)
        if inspect is not None:
            points = [n.point for n in nodes if n.bound < threshold and n.point is not None]
            if any(inspect(point) for point in points):
                return Certificate(lower, tree.solved, False, True)
        spent = node_limit is not None and tree.solved >= node_limit
        if spent or time.perf_counter() >= tree.deadline:
            break
        nodes = tree.split(heapq.heappop(waiting)[2])
    # out of time, or nothing left to fix and still below: the threshold does not hold
    return Certificate(lower, tree.solved, False, False)


@dataclass(frozen=True, eq=False)
class _Node:
    """0–1 variables that are fixed, what is proved with them, and where the LP is lowest.

    Nodes are taken by their bounds, so the next one is often far away in the tree: its children
    start from the basis of their parent, not from the last one.
    """

    fixed: dict[int, int]
    bound: float
    point: np.ndarray | None
    basis: HighsBasis | None = None


class _Tree:
    """The linear program that all nodes share, and what fixing each variable gained so far."""

    def __init__(self, program: Program, threshold: float, deadline: float) -> None:
        self.program, self.threshold, self.deadline = program, threshold, deadline
        self.relaxed = program.relaxed()
        try:
            self.model = HighsModel(self.relaxed)
        except RuntimeError as error:
            raise SolverError(f"the proof's linear program failed: {error}") from error
        self.binaries = np.flatnonzero(program.integer).tolist()
        self.current: dict[int, int] = {}
        self.solved = 0
        # by column and value: how much the bound rose for each unit by which the variable moved
        self.gains: dict[tuple[int, int], list[float]] = {}

    def node(self, fixed: dict[int, int], parent: _Node | None = None) -> _Node:
        """Solve its LP; an engine that fails proves nothing, and the node is split further."""
        program, model = self.program, self.model
        bound, point = -math.inf if parent is None else parent.bound, None
        self.move(fixed)
        if parent is not None and parent.basis is not None:
            model.start_from(parent.basis)
        self.solved += 1
        try:
            solution = model.solve(time_limit=max(0.0, self.deadline - time.perf_counter()))
        except RuntimeError:
            return _Node(fixed, bound, point)
        lower, upper = program.lower.copy(), program.upper.copy()
        for column, value in fixed.items():
            lower[column] = upper[column] = value
        if solution.duals is not None:
            proved = safe_lower_bound(self.relaxed, solution.duals, lower=lower, upper=upper)
            bound = max(bound, proved)
        if solution.status == "infeasible" and _no_point(model, self.relaxed, lower, upper):
            bound = math.inf
        return _Node(fixed, bound, solution.x, model.basis())

    def move(self, fixed: dict[int, int]) -> None:
        for column in self.current.keys() - fixed.keys():
            self.model.set_bounds(column, self.program.lower[column], self.program.upper[column])
        for column, value in fixed.items():
            if self.current.get(column) != value:
                self.model.set_bounds(column, value, value)
        self.current = fixed

    def split(self, node: _Node) -> list[_Node] | None:
        """Both children on the variable that promises the most; None if all are fixed."""
        free = [column for column in self.binaries if column not in node.fixed]
        if not free:
            return None
        point = node.point
        if point is None:
            return self.children(node, free[0])
        between = [column for column in free if 0 < point[column] < 1] or free[:1]
        new = [c for c in between if (c, 0) not in self.gains or (c, 1) not in self.gains]
        tried = {}
        for column in sorted(new, key=lambda c: abs(point[c] - 0.5))[:PROBES]:
            if time.perf_counter() >= self.deadline:
                break
            tried[column] = self.children(node, column)
        best = max(between, key=lambda column: self.promise(point, column))
        return tried[best] if best in tried else self.children(node, best)

    def children(self, node: _Node, column: int) -> list[_Node]:
        found = [self.node({**node.fixed, column: value}, node) for value in (0, 1)]
        for value, child in enumerate(found):
            moved = 0.0 if node.point is None else abs(value - node.point[column])
            gain = min(child.bound, self.threshold) - node.bound
            if moved > 0 and math.isfinite(gain):
                self.gains.setdefault((column, value), []).append(gain / moved)
        return found

    def promise(self, point: np.ndarray, column: int) -> float:
        """The product of what both sides are expected to gain."""
        product = 1.0
        for value in (0, 1):
            past = self.gains.get((column, value), [0.0])
            expected = sum(past) / len(past) * abs(value - point[column])
            product *= max(expected, LEAST_GAIN)
        return product


def _no_point(model: HighsModel, relaxation: Program, lower: np.ndarray, upper: np.ndarray) -> bool:
    """Whether HiGHS's Farkas ray, with either sign, proves that there is no feasible point."""
    ray = model.infeasibility_multipliers()
    nothing = np.zeros(relaxation.variables)
    return ray is not None and any(
        safe_lower_bound(relaxation, sign * ray, lower=lower, upper=upper, objective=nothing) > 0
        for sign in (1.0, -1.0)
    )
