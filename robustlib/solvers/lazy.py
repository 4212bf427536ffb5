"""Linear programs that begin with few of their rows and get the others where they are violated.

A program with few of its rows has an optimum that is no worse. If its point satisfies the others
too, it is optimal for all; if not, the rows that it violates join the program. At worst all of them
do, and as a rule few are needed (Bastani et al. 2016, "iterative constraint solving").
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from scipy import sparse

from robustlib.solvers.engines import SolverError, solve
from robustlib.solvers.highs import HighsModel
from robustlib.solvers.program import Program

# Rows · x ≤ limits that a point violates and that were not given before; no row: there is none.
More = Callable[[np.ndarray], tuple[sparse.csr_array, np.ndarray]]

TOLERANCE = 1e-9  # of the engine, in the rows' unit
STUCK = 1e-7  # a violation that the multipliers do not explain
ROUNDS = 10_000


@dataclass(frozen=True, eq=False)
class Found:
    """What a lazy search found.

    Attributes
    ----------
    x : (n,) an optimal point, or None if no point satisfies all rows.
    objective : its value, inf without one.
    """

    x: np.ndarray | None
    objective: float


class LazyProgram:
    """A linear program, the rows that it may still get, and how often it was solved.

    Parameters
    ----------
    program : a plain LP; the rows that ``shift`` names have an upper limit only.
    more : gives the missing rows.
    solver : HiGHS keeps its basis from one solve to the next; other engines begin anew.

    Attributes
    ----------
    solves, added : programs solved and rows added so far.
    """

    def __init__(self, program: Program, more: More, solver: str = "highs") -> None:
        self._program, self._more, self._solver = program, more, solver
        self._model: HighsModel | None = None
        if solver == "highs":
            self._model = _model(program)
        self.solves = self.added = 0

    def minimize(self, limit: float = math.inf) -> Found:
        """Solve, add what is violated, and so on; nothing is found where all costs above ``limit``.

        Raises
        ------
        SolverError
            If the engine fails or stops early.
        """
        for _ in range(ROUNDS):
            found = self._solve()
            if found.x is None or found.objective > limit:
                return Found(None, math.inf)
            matrix, limits = self._more(found.x)
            if not len(limits):
                return found
            self.added += len(limits)
            self._add(matrix, limits)
        raise SolverError(f"solver={self._solver!r}: no end after {ROUNDS} rounds.")

    def shift(self, rows: range, amount: float) -> None:
        """Take ``amount`` from the upper limits of ``rows``, which the program began with."""
        upper = self._program.row_upper.copy()
        upper[rows.start : rows.stop] -= amount
        self._program = replace(self._program, row_upper=upper)
        if self._model is not None:
            for row in rows:
                self._model.set_row_upper(row, float(upper[row]))

    def _add(self, matrix: sparse.csr_array, limits: np.ndarray) -> None:
        if self._model is not None:
            try:
                self._model.add_rows(matrix, limits)
            except RuntimeError as error:
                raise SolverError(str(error)) from error
            return
        old = self._program
        self._program = replace(
            old,
            matrix=sparse.csr_array(sparse.vstack([old.matrix, matrix])),
            row_lower=np.append(old.row_lower, np.full(len(limits), -np.inf)),
            row_upper=np.append(old.row_upper, limits),
        )

    def _solve(self) -> Found:
        self.solves += 1
        if self._model is None:
            solution = solve(self._program, solver=self._solver)
        else:
            try:
                solution = self._model.solve()
            except RuntimeError as error:
                raise SolverError(f"solver='highs' failed: {error}") from error
        if solution.status == "infeasible":
            return Found(None, math.inf)
        if solution.status != "optimal" or solution.x is None or solution.objective is None:
            raise SolverError(f"solver={self._solver!r} stopped with {solution.status!r}.")
        return Found(solution.x, solution.objective)


class NearestPoint:
    """min ‖x − center‖∞ over lower ≤ x ≤ upper and rows · x ≤ limits, with rows on demand.

    For a radius t the points of the box that are at most t away are a box again, B(t). The program

        violation(t) = min { s ≥ 0 : rows · x − s ≤ limits,  x in B(t) }

    has no row for the norm, and its few rows are all that a simplex method works with. Where it is
    positive, its multipliers λ add the rows up to one row that no point of B(t) satisfies; the
    least radius at which some point does is found by sorting, and is a lower bound of the distance
    whatever the engine did. The search goes on there. It ends at the least radius with violation 0,
    or with a sum of rows that nothing in the box satisfies. Rows are scaled to ‖row‖₁ = 1, so that
    a violation is a distance.

    Parameters
    ----------
    center, lower, upper : (n,), lower ≤ center ≤ upper, all finite.
    rows, limits : (k, n) and (k,), the rows to begin with.
    more : gives the missing rows.

    Attributes
    ----------
    solves, added : programs solved and rows added so far.

    Examples
    --------
    >>> def nothing(x):
    ...     return sparse.csr_array((0, 2)), np.zeros(0)
    >>> one = np.ones(2)
    >>> search = NearestPoint(0.25 * one, 0 * one, one, -np.eye(2)[:1], -0.75 * one[:1], nothing)
    >>> round(search.minimize().objective, 9)
    0.5
    """

    def __init__(
        self,
        center: np.ndarray,
        lower: np.ndarray,
        upper: np.ndarray,
        rows: np.ndarray,
        limits: np.ndarray,
        more: More,
    ) -> None:
        self._center, self._lower, self._upper, self._more = center, lower, upper, more
        n = len(center)
        empty = Program(
            objective=np.append(np.zeros(n), 1.0),
            matrix=sparse.csr_array((0, n + 1)),
            row_lower=np.zeros(0),
            row_upper=np.zeros(0),
            lower=np.append(center, 0.0),
            upper=np.append(center, np.inf),
            integer=np.zeros(n + 1, dtype=bool),
        )
        self._model = _model(empty)
        self._rows, self._limits, self._scale = np.zeros((0, n)), np.zeros(0), np.zeros(0)
        self.solves = self.added = 0
        self.add(rows, limits)
        self._radius = 0.0  # proved: nothing nearer satisfies the rows that are there
        self._radius = max(
            (self._reach(row, limit) for row, limit in zip(self._rows, self._limits, strict=True)),
            default=0.0,
        )
        self.solves = self.added = 0

    def minimize(self, limit: float = math.inf) -> Found:
        """The nearest point that satisfies all rows; none where it is farther than ``limit``.

        Raises
        ------
        SolverError
            If HiGHS fails or stops early.
        """
        center, n = self._center, len(self._center)
        for _ in range(ROUNDS):
            if self._radius == math.inf or self._radius > limit:
                return Found(None, math.inf)
            low = np.maximum(self._lower, center - self._radius)
            high = np.minimum(self._upper, center + self._radius)
            self._model.set_all_bounds(low, high)
            self.solves += 1
            try:
                solution = self._model.solve()
            except RuntimeError as error:
                raise SolverError(f"solver='highs' failed: {error}") from error
            if solution.status != "optimal" or solution.x is None or solution.duals is None:
                raise SolverError(f"solver='highs' stopped with {solution.status!r}.")
            x, violation = np.clip(solution.x[:n], low, high), solution.x[n]
            grown = self._grow(solution.duals) if violation > TOLERANCE else False
            matrix, limits = self._more(x)
            if len(limits):
                self.add(np.asarray(matrix.todense()), limits)
            elif not grown:
                if violation > STUCK:
                    raise SolverError(f"solver='highs' is stuck at a violation of {violation:.2g}.")
                return Found(x, float(np.abs(x - center).max(initial=0.0)))
        raise SolverError(f"solver='highs': no end after {ROUNDS} rounds.")

    def shift(self, rows: range, amount: float) -> None:
        """Take ``amount``, in the rows' own unit, from the limits of ``rows``."""
        self._limits[rows.start : rows.stop] -= amount * self._scale[rows.start : rows.stop]
        for row in rows:
            self._model.set_row_upper(row, float(self._limits[row]))

    def _reach(self, row: np.ndarray, limit: float) -> float:
        room = self._center - self._lower, self._upper - self._center
        return reach(row, float(row @ self._center - limit), *room)

    def _grow(self, duals: np.ndarray) -> bool:
        """Raise the radius to what the multipliers prove; whether that is more than before."""
        weights = np.maximum(-duals, 0.0)
        used = np.flatnonzero(weights)
        radius = self._reach(weights[used] @ self._rows[used], weights[used] @ self._limits[used])
        grown = radius > self._radius * (1 + 1e-12)
        self._radius = max(self._radius, radius)
        return grown

    def add(self, rows: np.ndarray, limits: np.ndarray) -> None:
        """From now on x has to satisfy rows · x ≤ limits too."""
        length = np.abs(rows).sum(axis=1)
        scale = 1.0 / np.where(length > 0, length, 1.0)  # a row 0 · x ≤ −1 has to stay
        rows, limits = rows * scale[:, None], limits * scale
        away = -np.ones((len(rows), 1))
        try:
            self._model.add_rows(sparse.csr_array(np.hstack([rows, away])), limits)
        except RuntimeError as error:
            raise SolverError(str(error)) from error
        self._rows = np.vstack([self._rows, rows])
        self._limits = np.append(self._limits, limits)
        self._scale = np.append(self._scale, scale)
        self.added += len(rows)


def reach(row: np.ndarray, missing: float, below: np.ndarray, above: np.ndarray) -> float:
    """The least t for which steps of at most t lower row · x by ``missing``; inf if none do.

    No coordinate may fall by more than ``below`` or rise by more than ``above``, both (n,).
    """
    if missing <= 0:
        return 0.0
    # A coordinate moves at speed |row| until it meets its bound at ``room``.
    room = np.where(row > 0, below, above)
    order = np.argsort(room)
    room, speed = room[order], np.abs(row)[order]
    moving = np.append(np.cumsum(speed[::-1])[::-1], 0.0)  # from each place on
    ended = np.append(0.0, np.cumsum(speed * room))
    gained = ended[1:] + moving[1:] * room
    last = int(np.searchsorted(gained, missing))  # the next one to meet its bound
    if last == len(gained):
        return math.inf
    return float((missing - ended[last]) / moving[last])


def _model(program: Program) -> HighsModel:
    try:
        model = HighsModel(program)
    except RuntimeError as error:
        raise SolverError(f"solver='highs' failed: {error}") from error
    model.set_tolerance(TOLERANCE)
    return model
