"""Boxes, and the l∞ ball as a box with its floating-point faces rounded the safe way."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from robustlib.network import Matrix
from robustlib.rounding import rounding, underflow


@dataclass(frozen=True, eq=False)
class Box:
    """All z with lower ≤ z ≤ upper, coordinate by coordinate; both float64 of shape (n,)."""

    lower: np.ndarray
    upper: np.ndarray

    @property
    def magnitude(self) -> np.ndarray:
        """The largest |z| in every coordinate."""
        return np.maximum(np.abs(self.lower), np.abs(self.upper))

    @property
    def box(self) -> Box:
        """Itself: a box is the simplest ``Region``."""
        return self

    def minimum(self, rows: Matrix) -> np.ndarray:
        """Lower bounds (r,) of rows · z over the box, safe under rounding; rows are (r, n)."""
        positive, negative = split_by_sign(rows)
        error = rounding(rows.shape[1]) * (abs(rows) @ self.magnitude) + underflow(rows.shape[1])
        return positive @ self.lower + negative @ self.upper - 2.0 * error

    def lowest_points(self, rows: np.ndarray) -> np.ndarray:
        """For each of the dense rows (r, n), a corner where rows · z is smallest."""
        center = 0.5 * (self.lower + self.upper)
        return np.where(rows > 0, self.lower, np.where(rows < 0, self.upper, center))

    def intersect(self, other: Box) -> Box:
        """Both hold; where rounding makes them cross by a hair, the first one stands."""
        lower = np.maximum(self.lower, other.lower)
        upper = np.minimum(self.upper, other.upper)
        crossed = lower > upper
        return Box(np.where(crossed, self.lower, lower), np.where(crossed, self.upper, upper))


def split_by_sign(rows: Matrix) -> tuple[Matrix, Matrix]:
    """max(rows, 0) and min(rows, 0), dense or sparse as ``rows`` is."""
    if isinstance(rows, np.ndarray):
        return np.maximum(rows, 0.0), np.minimum(rows, 0.0)
    positive, negative = rows.copy(), rows.copy()
    positive.data = np.maximum(rows.data, 0.0)
    negative.data = np.minimum(rows.data, 0.0)
    return positive, negative


def sum_and_error(a: np.ndarray, b: np.ndarray | float) -> tuple[np.ndarray, np.ndarray]:
    """Knuth's two-sum: fl(a + b), and a + b − fl(a + b) exactly."""
    total = a + b
    part = total - a
    return total, (a - (total - part)) + (b - part)


def _ball(x: np.ndarray, eps: float, bounds: tuple[float, float], *, outward: bool) -> Box:
    x = np.asarray(x, dtype=np.float64)
    low, low_error = sum_and_error(x, -eps)
    high, high_error = sum_and_error(x, eps)
    down, up = np.nextafter(low, -np.inf), np.nextafter(high, np.inf)
    inside_low, inside_high = np.nextafter(low, np.inf), np.nextafter(high, -np.inf)
    if outward:
        low = np.where(low_error < 0, down, low)
        high = np.where(high_error > 0, up, high)
    else:
        low = np.where(low_error > 0, inside_low, low)
        high = np.where(high_error < 0, inside_high, high)
    return Box(np.maximum(low, bounds[0]), np.minimum(high, bounds[1]))


def outer_ball(x: np.ndarray, eps: float, bounds: tuple[float, float]) -> Box:
    """The smallest floating-point box that contains {x' : |x' − x| ≤ eps} ∩ bounds: for proofs."""
    return _ball(x, eps, bounds, outward=True)


def inner_ball(x: np.ndarray, eps: float, bounds: tuple[float, float]) -> Box:
    """The largest floating-point box that lies in {x' : |x' − x| ≤ eps} ∩ bounds: for witnesses."""
    return _ball(x, eps, bounds, outward=False)
