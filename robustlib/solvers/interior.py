"""The nearest point under rows, by an interior-point method: all rows at once, to a tolerance."""

from __future__ import annotations

import math

import clarabel
import numpy as np
from scipy import sparse

from robustlib.solvers.engines import SolverError
from robustlib.solvers.lazy import Found, reach

TOLERANCE = 1e-6  # of the optimum and the rows, relative to a lower bound of the distance
FAR = 1e3  # such lower bounds: a bound of the box that is so far away is left out


class InteriorPoint:
    """min ‖x − center‖∞ over lower ≤ x ≤ upper and rows · x ≤ limits, with Clarabel.

    The same program as `NearestPoint`, which takes the few rows that matter one by one and is exact
    to the tolerances of a simplex method. Here every solve begins anew with all rows and takes
    about twenty factorizations of a sparse matrix, whatever the number of rows that matter: better
    where that is large and each row reads few inputs. The point is the middle of the optimal ones,
    not a corner.

    Parameters
    ----------
    center, lower, upper : (n,), lower ≤ center ≤ upper, all finite.
    rows, limits : (k, n) and (k,), the rows to begin with.

    Attributes
    ----------
    solves, added : programs solved and rows added so far.

    Examples
    --------
    >>> one = np.ones(2)
    >>> search = InteriorPoint(0.25 * one, 0 * one, one, -np.eye(2)[:1], -0.75 * one[:1])
    >>> round(search.minimize().objective, 6)
    0.5
    """

    def __init__(
        self,
        center: np.ndarray,
        lower: np.ndarray,
        upper: np.ndarray,
        rows: np.ndarray,
        limits: np.ndarray,
    ) -> None:
        self._center, self._lower, self._upper = center, lower, upper
        self._rows, self._limits = sparse.csr_array((0, len(center))), np.zeros(0)
        self._radius = 0.0  # nothing nearer satisfies the rows, one by one
        self.solves = self.added = 0
        self.add(rows, limits)
        self.added = 0

    def add(self, rows: np.ndarray, limits: np.ndarray) -> None:
        """From now on x has to satisfy rows · x ≤ limits too."""
        length = np.abs(rows).sum(axis=1)
        scale = 1.0 / np.where(length > 0, length, 1.0)
        rows, limits = rows * scale[:, None], limits * scale
        away = self._center - self._lower, self._upper - self._center
        missing = rows @ self._center - limits
        for row, miss in zip(rows, missing, strict=True):
            self._radius = max(self._radius, reach(row, float(miss), *away))
        self._rows = sparse.csr_array(sparse.vstack([self._rows, sparse.csr_array(rows)]))
        self._limits = np.append(self._limits, limits)
        self.added += len(rows)

    def minimize(self, limit: float = math.inf) -> Found:
        """The nearest point that satisfies all rows; none where it is farther than ``limit``.

        Raises
        ------
        SolverError
            If Clarabel fails or stops early.
        """
        if self._radius == math.inf or self._radius > limit:
            return Found(None, math.inf)
        if self._radius == 0.0:  # x* satisfies every row
            return Found(self._center.copy(), 0.0)
        self.solves += 1
        answer = self._solve()
        if answer.status == clarabel.SolverStatus.PrimalInfeasible:
            return Found(None, math.inf)
        if answer.status != clarabel.SolverStatus.Solved:
            raise SolverError(f"solver='clarabel' stopped with {answer.status}.")
        if answer.obj_val > FAR:  # where the bounds that were left out may matter
            raise SolverError(f"solver='clarabel': the optimum is beyond {FAR:g} lower bounds.")
        moved = self._radius * np.array(answer.x)[:-1]
        x = np.clip(self._center + moved, self._lower, self._upper)
        distance = float(np.abs(x - self._center).max(initial=0.0))
        return Found(x, distance) if distance <= limit else Found(None, math.inf)

    def _solve(self) -> clarabel.DefaultSolution:
        """For the step d from the center and t ≥ |d|, both in units of the radius."""
        n, unit = len(self._center), self._radius
        one, column = sparse.eye_array(n, format="csr"), np.ones((n, 1))
        ends = (self._upper - self._center) / unit, (self._center - self._lower) / unit
        up, down = (np.flatnonzero(end < FAR) for end in ends)
        none = (sparse.csr_array((k, 1)) for k in (len(self._limits), len(up), len(down)))
        rows = sparse.vstack(
            [
                sparse.hstack([self._rows, next(none)]),
                sparse.hstack([one, -column]),
                sparse.hstack([-one, -column]),
                sparse.hstack([one[up], next(none)]),
                sparse.hstack([-one[down], next(none)]),
            ]
        )
        missing = (self._limits - self._rows @ self._center) / unit
        limits = np.concatenate([missing, np.zeros(2 * n), ends[0][up], ends[1][down]])
        settings = clarabel.DefaultSettings()
        settings.verbose, settings.max_threads = False, 1
        settings.direct_solve_method = "faer"
        settings.tol_gap_abs = settings.tol_gap_rel = settings.tol_feas = TOLERANCE
        engine = clarabel.DefaultSolver(
            sparse.csc_matrix((n + 1, n + 1)),
            np.append(np.zeros(n), 1.0),
            sparse.csc_matrix(rows),
            limits,
            [clarabel.NonnegativeConeT(len(limits))],
            settings,
        )
        return engine.solve()
