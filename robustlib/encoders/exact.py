"""The exact mixed-integer encoding of a piecewise-linear network (Tjeng, Xiao, Tedrake 2019).

For a ReLU y = max(z, 0) with l ≤ z ≤ u and l < 0 < u, one 0–1 variable a (their eq. 6):

    y ≤ z − l (1 − a),   y ≥ z,   y ≤ u a,   y ≥ 0.

For a maximum y = max_i x_i, inputs with u_i ≤ max_k l_k are dropped; the others get a_i (eq. 7):

    y ≤ x_i + (1 − a_i)(u_max,−i − l_i),   y ≥ x_i,   Σ a_i = 1.

A unit that is stably active shares its input's column, one that is stably inactive has none. All
coefficients are exact: the network's own weights, and the bounds as computed.

Besides a box the inputs may be an l1 ball, which linear rows say exactly, an l2 ball or a simplex.
Squares are kept linear: t_i stands for (x'_i − x_i)² and is held from below by tangents,

    t_i ≥ 2 d (x'_i − x_i) − d²   for some d,   Σ t_i ≤ ε²,

so the program allows a little more than the ball: proofs hold, and a solution outside of it gets
its own tangents (``refined``).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace

import numpy as np
from scipy import sparse

from robustlib.bounds.box import Box
from robustlib.bounds.region import L1Ball, L2Ball, Region, Simplex
from robustlib.network import Affine, MaxPool, Network, ReLU
from robustlib.rounding import TINY, UNIT
from robustlib.solvers.program import Program

ZERO = -1  # stands for a column where the value is 0 throughout
CURVED = 1e-7  # share of Σ t by which a point may exceed its tangents


@dataclass
class _Rows:
    """Columns and rows of a program as they are added."""

    lower: list[np.ndarray] = field(default_factory=list)
    upper: list[np.ndarray] = field(default_factory=list)
    integer: list[np.ndarray] = field(default_factory=list)
    entries: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = field(default_factory=list)
    row_lower: list[np.ndarray] = field(default_factory=list)
    row_upper: list[np.ndarray] = field(default_factory=list)
    columns: int = 0
    rows: int = 0

    def variables(
        self, lower: np.ndarray, upper: np.ndarray, *, integer: bool = False
    ) -> np.ndarray:
        """New columns; returns their indices."""
        n = len(lower)
        self.lower.append(np.asarray(lower, dtype=float))
        self.upper.append(np.asarray(upper, dtype=float))
        self.integer.append(np.full(n, integer))
        self.columns += n
        return np.arange(self.columns - n, self.columns)

    def constrain(
        self,
        terms: list[tuple[np.ndarray, np.ndarray | float]],
        lower: np.ndarray | float,
        upper: np.ndarray | float,
    ) -> None:
        """Rows: lower ≤ Σ coefficient · column ≤ upper, place by place; ``ZERO`` is skipped."""
        n = len(terms[0][0])
        index = np.arange(self.rows, self.rows + n)
        for columns, coefficient in terms:
            present = columns != ZERO
            values = np.broadcast_to(np.asarray(coefficient, dtype=float), (n,))
            self.entries.append((index[present], columns[present], values[present]))
        self._close(n, lower, upper)

    def constrain_matrix(
        self, matrix: sparse.coo_array, lower: np.ndarray | float, upper: np.ndarray | float
    ) -> None:
        """lower ≤ matrix x ≤ upper, for a matrix over all present columns."""
        self.entries.append((matrix.coords[0] + self.rows, matrix.coords[1], matrix.data))
        self._close(matrix.shape[0], lower, upper)

    def _close(self, n: int, lower: np.ndarray | float, upper: np.ndarray | float) -> None:
        self.row_lower.append(np.broadcast_to(np.asarray(lower, dtype=float), (n,)))
        self.row_upper.append(np.broadcast_to(np.asarray(upper, dtype=float), (n,)))
        self.rows += n

    def program(self, objective: np.ndarray) -> Program:
        none = np.zeros(0, dtype=int), np.zeros(0, dtype=int), np.zeros(0)  # no row is fine too
        entries = zip(none, *self.entries, strict=True)
        rows, columns, values = (np.concatenate(part) for part in entries)
        return Program(
            objective=objective,
            matrix=sparse.csr_array((values, (rows, columns)), shape=(self.rows, self.columns)),
            row_lower=np.concatenate([np.zeros(0), *self.row_lower]),
            row_upper=np.concatenate([np.zeros(0), *self.row_upper]),
            lower=np.concatenate(self.lower),
            upper=np.concatenate(self.upper),
            integer=np.concatenate(self.integer),
        )


class ExactEncoding:
    """A network over a region as the constraints of a mixed-integer program.

    Parameters
    ----------
    network : the network.
    region : the inputs: a box, a ball or a simplex.
    boxes : bounds of the output of every step (``bounds.network_bounds``).

    Attributes
    ----------
    inputs : (input_size,) columns of the input.
    logits : (classes,) columns of the logits.
    binaries : number of 0–1 variables.

    Examples
    --------
    >>> from robustlib.bounds import network_bounds
    >>> same = Affine(np.eye(1), np.zeros(1))
    >>> net = Network((same, ReLU(1), same), (1,))
    >>> box = Box(-np.ones(1), np.ones(1))
    >>> ExactEncoding(net, box, network_bounds(net, box)).binaries
    1
    """

    def __init__(self, network: Network, region: Region, boxes: list[Box]) -> None:
        self._rows = _Rows()
        box = region.box
        self.inputs = self._rows.variables(box.lower, box.upper)
        self._squares: tuple[np.ndarray, np.ndarray] | None = None  # columns t, x
        self._stay_inside(region)
        self.logits = self._outputs(network, region, boxes)
        self.binaries = int(sum(flags.sum() for flags in self._rows.integer))

    def _outputs(self, network: Network, region: Region, boxes: list[Box]) -> np.ndarray:
        """The columns of the last step's output, after all that leads there."""
        columns = self.inputs
        for k, step in enumerate(network.steps):
            before = boxes[k - 1] if k else region.box
            if isinstance(step, Affine):
                following = network.steps[k + 1] if k + 1 < len(network.steps) else None
                columns = self._affine(step, columns, boxes[k], _needed(following, boxes[k]))
            elif isinstance(step, ReLU):
                columns = self._relu(columns, before)
            elif isinstance(step, MaxPool):
                columns = self._apart(self._max(step, columns, before), boxes[k])
        return columns

    def minimize_logits(self, row: np.ndarray) -> Program:
        """Minimize row · logits; with a row of ``margin_rows``, the margin over one target."""
        return self.program(self.objective(row))

    def objective(self, row: np.ndarray) -> np.ndarray:
        """The coefficients of row · logits on the columns."""
        objective = np.zeros(self._rows.columns)
        present = self.logits != ZERO
        objective[self.logits[present]] = row[present]
        return objective

    def program(self, objective: np.ndarray) -> Program:
        return self._rows.program(objective)

    def closest(self, x: np.ndarray, row: np.ndarray, norm: str) -> Program:
        """Minimize ‖x' − x‖ subject to row · logits ≤ 0 (their eqs. 3–5), in the norm "inf" or "1".

        In the norm "2" the objective is the squared distance, as far as the tangents show it:
        solve, and go on with what ``refined`` makes of the solution until that is None.

        Use it once: its rows stay in the encoding.
        """
        rows, n = self._rows, len(x)
        if norm == "inf":
            reach = max(
                float(np.max(rows.upper[0] - x, initial=0.0)),
                float(np.max(x - rows.lower[0], initial=0.0)),
            )
            t = np.repeat(rows.variables(np.zeros(1), np.array([2.0 * reach + 1.0])), n)
            self._at_least_moves(t, x, np.arange(n))
        elif norm == "1":
            t = rows.variables(np.zeros(n), 2.0 * (rows.upper[0] - rows.lower[0]) + 1.0)
            self._at_least_moves(t, x, np.arange(n))
        else:
            t = self._at_least_squares(x)
        targets = np.flatnonzero(row)
        rows.constrain([(self.logits[i : i + 1], row[i]) for i in targets], -np.inf, 0.0)
        objective = np.zeros(rows.columns)
        objective[t] = 1.0
        return rows.program(objective)

    def refined(self, program: Program, point: np.ndarray) -> Program | None:
        """A program of this encoding with the tangents at a solution whose Σ t lies below Σ d².

        None if the tangents hold there: the point is in the ball, or its distance is the true one.
        """
        if self._squares is None:
            return None
        t, x = self._squares
        moves = point[self.inputs] - x
        short = moves**2 - point[t]
        allowed = CURVED * float(moves @ moves)
        which = np.flatnonzero(short > allowed / (2 * len(x)))
        if short[which].sum() <= 0.5 * allowed:
            return None
        columns, values, lower = self._tangents(t, x, moves, which)
        places = np.repeat(np.arange(len(which)), 2)
        shape = (len(which), program.variables)
        added = sparse.csr_array((values.ravel(), (places, columns.ravel())), shape=shape)
        return replace(
            program,
            matrix=sparse.csr_array(sparse.vstack([program.matrix, added])),
            row_lower=np.append(program.row_lower, lower),
            row_upper=np.append(program.row_upper, np.full(len(which), np.inf)),
        )

    def _stay_inside(self, region: Region) -> None:
        """What a region asks of the inputs besides its box."""
        rows, n = self._rows, len(self.inputs)
        if isinstance(region, Simplex):
            rows.constrain([(self.inputs[i : i + 1], 1.0) for i in range(n)], 1.0, 1.0)
        elif isinstance(region, L1Ball):
            self._add_up_to(region)
        elif isinstance(region, L2Ball):
            t = self._at_least_squares(region.center)
            limit = np.nextafter(region.eps * region.eps, np.inf)
            rows.constrain([(t[i : i + 1], 1.0) for i in range(n)], -np.inf, limit)
        elif not isinstance(region, Box):
            raise TypeError(f"no constraints are known for a {type(region).__name__}")

    def _add_up_to(self, ball: L1Ball) -> None:
        """Σ |x' − x| ≤ eps: x' itself where it can only grow or only fall, else t ≥ |x' − x|."""
        only_up, only_down = (ball.down == 0) & (ball.up > 0), (ball.up == 0) & (ball.down > 0)
        both = np.flatnonzero((ball.down > 0) & (ball.up > 0))
        t = self._rows.variables(np.zeros(len(both)), np.maximum(ball.down, ball.up)[both])
        self._at_least_moves(t, ball.center, both)
        sign = only_up.astype(float) - only_down
        ways = np.flatnonzero(sign)
        terms: list[tuple[np.ndarray, np.ndarray | float]]
        terms = [(t[i : i + 1], 1.0) for i in range(len(t))]
        terms += [(self.inputs[i : i + 1], sign[i]) for i in ways]
        limit = math.fsum([ball.eps, *(sign[ways] * ball.center[ways])])
        if terms:
            self._rows.constrain(terms, -np.inf, math.nextafter(limit, math.inf))

    def _at_least_moves(self, t: np.ndarray, x: np.ndarray, which: np.ndarray) -> None:
        """t ≥ |x' − x| for some of the inputs."""
        inputs = self.inputs[which]
        self._rows.constrain([(inputs, 1.0), (t, -1.0)], -np.inf, x[which])
        self._rows.constrain([(inputs, -1.0), (t, -1.0)], -np.inf, -x[which])

    def _at_least_squares(self, x: np.ndarray) -> np.ndarray:
        """New columns t ≥ (x' − x)², as far as the first tangents show it."""
        if self._squares is not None:  # those of the region, around the same x
            return self._squares[0]
        rows = self._rows
        reach = np.maximum(rows.upper[0] - x, x - rows.lower[0])
        t = rows.variables(np.zeros(len(x)), 2.0 * reach * reach + TINY)
        self._squares = t, x
        for sign in (1.0, -1.0):
            for share in (1.0, 1.0 / np.sqrt(len(x))):
                moves = sign * share * reach
                columns, values, lower = self._tangents(t, x, moves, np.arange(len(x)))
                pairs = zip(columns.T, values.T, strict=True)
                rows.constrain(list(pairs), lower, np.inf)
        return t

    def _tangents(
        self, t: np.ndarray, x: np.ndarray, moves: np.ndarray, which: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """t − 2 d x' ≥ −d (2 x + d) for d = moves: columns, coefficients, left sides, rounded."""
        d, at = moves[which], x[which]
        columns = np.column_stack([t[which], self.inputs[which]])
        values = np.column_stack([np.ones(len(which)), -2.0 * d])
        size = np.abs(d) * (2.0 * np.abs(at) + np.abs(d))
        return columns, values, -d * (2.0 * at + d) - 8.0 * UNIT * size - TINY

    def _affine(
        self, step: Affine, columns: np.ndarray, after: Box, needed: np.ndarray
    ) -> np.ndarray:
        live = np.flatnonzero(columns != ZERO)
        kept = np.flatnonzero(needed)
        result = np.full(step.size, ZERO)
        result[kept] = self._rows.variables(after.lower[kept], after.upper[kept])
        part = sparse.coo_array(step.weight[kept][:, live])
        cols = np.concatenate([columns[live][part.coords[1]], result[kept]])
        rows = np.concatenate([part.coords[0], np.arange(len(kept))])
        data = np.concatenate([part.data, -np.ones(len(kept))])
        matrix = sparse.coo_array((data, (rows, cols)), shape=(len(kept), self._rows.columns))
        self._rows.constrain_matrix(matrix, -step.bias[kept], -step.bias[kept])
        return result

    def _relu(self, columns: np.ndarray, before: Box) -> np.ndarray:
        result = np.where(before.upper <= 0, ZERO, columns)
        is_open = (before.lower < 0) & (before.upper > 0)
        unstable = np.flatnonzero(is_open & (columns != ZERO))
        if not len(unstable):
            return result
        lower, upper = before.lower[unstable], before.upper[unstable]
        z, zero = columns[unstable], np.zeros(len(unstable))
        variables, constrain = self._rows.variables, self._rows.constrain
        y = variables(zero, upper)
        a = variables(zero, zero + 1.0, integer=True)
        constrain([(y, 1.0), (z, -1.0), (a, -lower)], -np.inf, -lower)
        constrain([(y, 1.0), (z, -1.0)], 0.0, np.inf)
        constrain([(y, 1.0), (a, -upper)], -np.inf, 0.0)
        result[unstable] = y
        return result

    def _max(self, step: MaxPool, columns: np.ndarray, before: Box) -> np.ndarray:
        result = np.full(step.size, ZERO)
        for j, window in enumerate(step.windows):
            places = _candidates(window[window >= 0], before)
            if len(places) == 1:
                result[j] = columns[places[0]]
                continue
            x, low, high = columns[places], before.lower[places], before.upper[places]
            y = self._rows.variables(low.max(keepdims=True), high.max(keepdims=True))
            a = self._rows.variables(np.zeros(len(x)), np.ones(len(x)), integer=True)
            others = np.array([np.delete(high, i).max() for i in range(len(x))])
            big_m = np.nextafter(others - low, np.inf)
            out = np.repeat(y, len(x))
            self._rows.constrain([(out, 1.0), (x, -1.0), (a, big_m)], -np.inf, big_m)
            self._rows.constrain([(out, 1.0), (x, -1.0)], 0.0, np.inf)
            self._rows.constrain([(a[i : i + 1], 1.0) for i in range(len(x))], 1.0, 1.0)
            result[j] = y[0]
        return result

    def _apart(self, columns: np.ndarray, box: Box) -> np.ndarray:
        """Give a column that stands in several places an equal copy in all but the first.

        Otherwise the weights of these places would be summed into one coefficient, and rounded.
        """
        again = np.ones(len(columns), dtype=bool)
        again[np.unique(columns, return_index=True)[1]] = False
        again &= columns != ZERO
        if not again.any():
            return columns
        result = columns.copy()
        result[again] = self._rows.variables(box.lower[again], box.upper[again])
        self._rows.constrain([(result[again], 1.0), (columns[again], -1.0)], 0.0, 0.0)
        return result


def _candidates(window: np.ndarray, before: Box) -> np.ndarray:
    """The inputs of a window that can be its maximum (at least one)."""
    best = window[before.lower[window].argmax()]
    rivals = window[(before.upper[window] > before.lower[best]) & (window != best)]
    return np.append(best, rivals)


def _needed(following: object, box: Box) -> np.ndarray:
    """Which outputs of an affine step anything behind it depends on."""
    if isinstance(following, ReLU):
        return box.upper > 0
    needed = np.ones(len(box.lower), dtype=bool)
    if isinstance(following, MaxPool):
        needed[:] = False
        for window in following.windows:
            needed[_candidates(window[window >= 0], box)] = True
    return needed
