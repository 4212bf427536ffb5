"""Sets of inputs: what a bound has to know of one.

Every set lies in a box and knows the minimum of a linear function over itself. For a ball cut by a
box both minima below are Lagrangian duals: any multiplier gives a lower bound, so it may be found
by ordinary floating-point iterations, and only the bound that it gives is rounded with care.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, Self

import numpy as np

from robustlib.bounds.box import Box, outer_ball, sum_and_error
from robustlib.network import Matrix
from robustlib.rounding import rounding, underflow

GROUP = 512  # rows at a time, so that what a ball needs for them stays in the cache
FULL = 0.5  # sparse rows with a larger share of non-zeros are made dense
ROUNDS = 60  # of the iteration for the multiplier of an l2 ball, which ends long before
LEAST = 1e-100  # of its scale t, to keep away from 0 and infinity


class Region(Protocol):
    """A set of inputs (n,), as bounds see it. ``Box`` is one."""

    @property
    def box(self) -> Box:
        """A box around the set."""

    def minimum(self, rows: Matrix) -> np.ndarray:
        """Lower bounds (r,) of rows · x over the set, safe under rounding; rows are (r, n)."""

    def lowest_points(self, rows: np.ndarray) -> np.ndarray:
        """For each of the dense rows (r, n), where rows · x is smallest, up to rounding."""


@dataclass(frozen=True, eq=False)
class Simplex:
    """All x ≥ 0 with Σ x = 1, such as the kernels of a blur.

    >>> Simplex(3).minimum(np.array([[1.0, -2.0, 0.5]]))
    array([-2.])
    """

    size: int

    @property
    def box(self) -> Box:
        return Box(np.zeros(self.size), np.ones(self.size))

    def minimum(self, rows: Matrix) -> np.ndarray:
        return (rows if isinstance(rows, np.ndarray) else rows.toarray()).min(axis=1)

    def lowest_points(self, rows: np.ndarray) -> np.ndarray:
        return np.eye(self.size)[rows.argmin(axis=1)]


@dataclass(frozen=True, eq=False)
class _Ball:
    """‖x − center‖ ≤ eps inside ``box``, which lies in the l∞ ball of this radius.

    ``down`` and ``up`` are how far each coordinate can move inside the box, rounded up.
    """

    center: np.ndarray
    eps: float
    box: Box
    down: np.ndarray
    up: np.ndarray

    @classmethod
    def around(cls, x: np.ndarray, eps: float, bounds: tuple[float, float]) -> Self:
        """The ball of x (n,), which lies inside ``bounds``."""
        center = np.asarray(x, dtype=np.float64)
        box = outer_ball(center, eps, bounds)
        down, down_error = sum_and_error(center, -box.lower)
        up, up_error = sum_and_error(box.upper, -center)
        down = np.where(down_error > 0, np.nextafter(down, np.inf), down)
        up = np.where(up_error > 0, np.nextafter(up, np.inf), up)
        return cls(center, eps, box, down, up)

    def minimum(self, rows: Matrix) -> np.ndarray:
        """Lower bounds of rows · x: rows · center, less the farthest that the ball lets it fall."""
        at_center = rows @ self.center
        parts = [
            self._fall(*self._steep(rows[i : i + GROUP])) for i in range(0, rows.shape[0], GROUP)
        ]
        fall, total = (np.concatenate(part) for part in zip(*parts, strict=True))
        total = total + abs(rows) @ np.abs(self.center)
        n = rows.shape[1]
        return at_center - fall - 2.0 * (rounding(n) * total + underflow(4 * n, self.eps))

    def lowest_points(self, rows: np.ndarray) -> np.ndarray:
        steep, room = self._steep(rows)
        return self.center - np.sign(rows) * self._moves(steep, room)

    def _steep(self, rows: Matrix) -> tuple[np.ndarray, np.ndarray]:
        """|rows| and the room of each coordinate downhill, (r, m); sparse rows are packed."""
        if isinstance(rows, np.ndarray):
            return np.abs(rows), np.where(rows > 0, self.down, self.up)
        counts = np.diff(rows.indptr)
        width = int(counts.max(initial=0))
        if width > FULL * rows.shape[1]:
            return self._steep(rows.toarray())
        filled = np.arange(width) < counts[:, None]
        values = np.zeros(filled.shape)
        columns = np.zeros(filled.shape, dtype=np.intp)
        values[filled], columns[filled] = rows.data, rows.indices
        return np.abs(values), np.where(values > 0, self.down[columns], self.up[columns])

    def _fall(self, steep: np.ndarray, room: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """A dual bound of max Σ steep · s over 0 ≤ s ≤ room in the ball, up to rounding.

        Returned with the sum of the magnitudes in it: times ``rounding``, that is its error.
        """
        raise NotImplementedError

    def _moves(self, steep: np.ndarray, room: np.ndarray) -> np.ndarray:
        """The s (r, m) where that maximum is attained, up to rounding."""
        raise NotImplementedError


class L1Ball(_Ball):
    """Σ |x_i − center_i| ≤ eps inside ``bounds``: minima are those of a fractional knapsack.

    The coordinates of largest |coefficient| move as far as the box lets them until eps is used up.
    With τ the coefficient of the last one, Σ |g_i| s_i ≤ τ eps + Σ max(|g_i| − τ, 0) room_i, and
    that holds for every τ ≥ 0.

    >>> ball = L1Ball.around(np.full(3, 0.5), 0.75, (0.0, 1.0))
    >>> ball.minimum(np.array([[4.0, -2.0, 1.0]])).round(6)  # 1.5 − 4 · 0.5 − 2 · 0.25
    array([-1.])
    """

    def _order(self, steep: np.ndarray, room: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Coordinates from the steepest on, and the room that is used up before each."""
        order = np.argsort(-steep, axis=1)
        ordered = np.take_along_axis(room, order, axis=1)
        return order, np.cumsum(ordered, axis=1) - ordered

    def _fall(self, steep: np.ndarray, room: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        if not steep.shape[1]:
            return np.zeros(len(steep)), np.zeros(len(steep))
        order, before = self._order(steep, room)
        last = np.maximum((before < self.eps).sum(axis=1) - 1, 0)
        rows = np.arange(len(steep))
        threshold = steep[rows, order[rows, last]]
        whole = before[:, -1] + room[rows, order[:, -1]] <= self.eps  # the box, without the ball
        threshold = np.where(whole, 0.0, threshold)
        fall = threshold * self.eps + (np.maximum(steep - threshold[:, None], 0.0) * room).sum(1)
        return fall, fall

    def _moves(self, steep: np.ndarray, room: np.ndarray) -> np.ndarray:
        order, before = self._order(steep, room)
        moves = np.zeros_like(steep)
        ordered = np.take_along_axis(room, order, axis=1)
        used = np.clip(self.eps - before, 0.0, ordered)
        np.put_along_axis(moves, order, used, axis=1)
        return moves


class L2Ball(_Ball):
    """√Σ (x_i − center_i)² ≤ eps inside ``bounds``.

    For every λ > 0, Σ |g_i| s_i ≤ λ eps² + Σ max_s (|g_i| s − λ s²) with 0 ≤ s ≤ room_i, where the
    maximum is at s = min(t |g_i|, room_i), t = 1 / 2λ. The best t makes Σ s_i² = eps².

    >>> ball = L2Ball.around(np.full(2, 0.5), 0.5, (0.0, 1.0))
    >>> ball.minimum(np.array([[3.0, 4.0]])).round(6)  # 3.5 − 0.5 · 5
    array([1.])
    """

    def _scale(self, steep: np.ndarray, room: np.ndarray) -> np.ndarray:
        """t (r,): from below, as more and more coordinates reach the end of their room."""
        squares, rooms = steep * steep, room * room
        free = np.ones(steep.shape, dtype=bool)
        scale = np.full(len(steep), LEAST)
        for _ in range(ROUNDS):
            left = self.eps * self.eps - np.where(free, 0.0, rooms).sum(1)
            slope = np.where(free, squares, 0.0).sum(1)
            # with none free and something left, the ball contains the box downhill: no bend
            found = np.where(slope > 0, left, left > 0) / np.maximum(slope, LEAST**2)
            scale = np.clip(np.sqrt(np.maximum(found, 0.0)), scale, 1 / LEAST)
            inside = free & (steep * scale[:, None] < room)
            if np.array_equal(inside, free):
                break
            free = inside
        return scale

    def _fall(self, steep: np.ndarray, room: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        if self.eps == 0:
            return np.zeros(len(steep)), np.zeros(len(steep))
        scale = self._scale(steep, room)
        moves = np.minimum(steep * scale[:, None], room)
        weight = 0.5 / scale
        linear = (steep * moves).sum(1)
        curved = ((weight[:, None] * moves) * moves).sum(1)
        whole = (weight * self.eps) * self.eps
        return linear - curved + whole, linear + curved + whole

    def _moves(self, steep: np.ndarray, room: np.ndarray) -> np.ndarray:
        return np.minimum(steep * self._scale(steep, room)[:, None], room)


BALLS: dict[str, Callable[..., Region]] = {
    "inf": outer_ball,
    "1": L1Ball.around,
    "2": L2Ball.around,
}


def norm_ball(x: np.ndarray, eps: float, norm: str, bounds: tuple[float, float]) -> Region:
    """{x' : ‖x' − x‖ ≤ eps} ∩ bounds in the norm "inf", "1" or "2", rounded outward: for proofs."""
    return BALLS[norm](x, eps, bounds)
