"""Interval arithmetic through one step, rounded outward."""

from __future__ import annotations

import numpy as np

from robustlib.bounds.box import Box
from robustlib.network import Affine, MaxPool, ReLU, Step
from robustlib.rounding import rounding, underflow


def interval_step(step: Step, box: Box) -> Box:
    """Bounds of step(z) for all z in ``box``: W m ± |W| r with m, r the box's center and radius.

    A bound that overflows becomes −∞ or ∞.

    >>> step = Affine(np.array([[1.0, -1.0]]), np.zeros(1))
    >>> box = interval_step(step, Box(np.zeros(2), np.ones(2)))
    >>> bool(box.lower[0] <= -1.0 <= 1.0 <= box.upper[0])
    True
    """
    if isinstance(step, Affine):
        center = 0.5 * (box.lower + box.upper)
        radius = np.maximum(box.upper - center, center - box.lower)
        absolute = step.absolute
        terms = step.weight.shape[1]
        slack = rounding(terms) * (absolute @ (np.abs(center) + radius) + np.abs(step.bias))
        touched = absolute @ (box.magnitude > 0) > 0  # the others are their bias exactly
        slack = slack + np.where(touched, underflow(terms), 0.0)
        middle = step.weight @ center + step.bias
        spread = absolute @ radius + 2.0 * slack
        lower, upper = middle - spread, middle + spread
        rows, inputs = step.copies  # exactly what they copy: a skip's values stay at least 0
        lower[rows], upper[rows] = box.lower[inputs], box.upper[inputs]
        finite = np.isfinite(lower) & np.isfinite(upper)
        return Box(np.where(finite, lower, -np.inf), np.where(finite, upper, np.inf))
    if isinstance(step, ReLU):
        return Box(np.maximum(box.lower, 0.0), np.maximum(box.upper, 0.0))
    if isinstance(step, MaxPool):
        return Box(step(box.lower), step(box.upper))
    raise TypeError(f"no interval bounds for {type(step).__name__}")
