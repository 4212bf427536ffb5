"""Bounds of the hidden units on the part of a region where an attack would succeed.

To prove row · logits > c on a region it is enough to show that its part with row · logits ≤ c is
empty: a point there would be the counterexample. So everything that a proof uses need hold on that
part alone, the bounds of the hidden units included. For z_j of a unit, a sign s and λ > 0,

    s z_j ≥ λ (L − c) where row · logits ≤ c,    L = min over the region of row · logits + s z_j / λ

(Lagrange's relaxation of the constraint), and L is a bound like any other: CROWN's, with slopes α
and the multiplier λ climbed together, recomputed safely. Where the margin is nearly proved the part
is small, and the bounds shrink until it is seen to be empty.
"""

from __future__ import annotations

import time
from dataclasses import replace

import numpy as np
import torch

from robustlib.bounds import Box, Region
from robustlib.bounds.alpha import BranchBounds
from robustlib.network import Network
from robustlib.rounding import TINY, UNIT

CUT = 1e-9  # c: a margin that is proved with a cut is proved to be at least this
STEPS, RATE, DECAY = 30, 0.2, 0.95
ROUNDS = 10
LEAST_GAIN = 0.02  # a round in which the intervals shrink by less is the last


def tightened(
    network: Network, region: Region, boxes: list[Box], row: np.ndarray, deadline: float
) -> list[Box] | None:
    """Tighten again and again for as long as it pays; None once nothing is left of the part.

    Parameters
    ----------
    network, region, boxes : as for ``BranchBounds``; ``boxes`` itself is returned if nothing paid.
    row : (1, classes)
    deadline : of ``time.perf_counter``.
    """
    for _ in range(ROUNDS):
        bounds = BranchBounds(network, region, boxes, row)
        if not bounds.units or time.perf_counter() >= deadline:
            break
        closer = tighten(bounds)
        if closer is None:
            return None
        if _shrinkage(bounds, closer) < LEAST_GAIN:
            break
        boxes = closer
    return boxes


def _shrinkage(bounds: BranchBounds, closer: list[Box]) -> float:
    """By what share the intervals of the unstable units became shorter, on average."""

    def widths(boxes: list[Box]) -> np.ndarray:
        parts = [(boxes[layer.step - 1], layer.index) for layer in bounds.layers if layer.step]
        return np.hstack([*((box.upper - box.lower)[index] for box, index in parts), np.ones(1)])

    return float(1 - (widths(closer) / widths(bounds.boxes)).mean())


def tighten(bounds: BranchBounds) -> list[Box] | None:
    """Bounds of every step that hold wherever the row is at most ``CUT``; None if it never is.

    Parameters
    ----------
    bounds : of one row.
    """
    units = bounds.units
    found = _climb(bounds)
    lower, upper = found[:units], -found[units:]
    boxes, offset = list(bounds.boxes), 0
    for layer, size in zip(bounds.layers, bounds.sizes, strict=True):
        part = slice(offset, offset + size)
        offset += size
        if not layer.step:  # a ReLU of the inputs, whose box stays
            continue
        before = boxes[layer.step - 1]
        low, high = before.lower.copy(), before.upper.copy()
        low[layer.index] = np.maximum(low[layer.index], lower[part])
        high[layer.index] = np.minimum(high[layer.index], upper[part])
        if (low > high).any():
            return None
        boxes[layer.step - 1] = Box(low, high)
        boxes[layer.step] = Box(np.maximum(low, 0.0), np.maximum(high, 0.0))
    return boxes


def _climb(bounds: BranchBounds) -> np.ndarray:
    """Safe lower bounds of z and −z of every unstable unit where the row is at most ``CUT``."""
    units = bounds.units
    sides = torch.cat([torch.eye(units), -torch.eye(units)]).double()
    roots = bounds.roots().take([0] * (2 * units))
    alpha = roots.alpha.clone().requires_grad_(True)
    scale = torch.zeros(2 * units, 1, dtype=torch.float64, requires_grad=True)  # log λ
    optimizer = torch.optim.Adam([alpha, scale], lr=RATE)
    best = torch.full((2 * units,), -torch.inf, dtype=torch.float64)
    kept = alpha.detach(), scale.detach()
    for _ in range(STEPS):
        added = sides * torch.exp(-scale)
        value = bounds.evaluate(roots.row, roots.signs, alpha, roots.beta, added)[0]
        reached = (value - CUT) * torch.exp(scale)[:, 0]
        better = (reached > best).detach()
        best = torch.where(better, reached.detach(), best)
        now = alpha.detach(), scale.detach()
        kept = (
            torch.where(better[:, None], now[0], kept[0]),
            torch.where(better[:, None], now[1], kept[1]),
        )
        optimizer.zero_grad()
        (-reached.sum()).backward()
        optimizer.step()
        optimizer.param_groups[0]["lr"] *= DECAY
        with torch.no_grad():
            alpha.clamp_(0, 1)
    extra = (sides * torch.exp(-kept[1])).numpy()
    factor = 1.0 / np.abs(extra).max(axis=1)  # the λ that goes with ``extra`` as it was rounded
    safe = factor * (bounds.safe(replace(roots, alpha=kept[0]), extra) - CUT)
    return np.where(np.isfinite(safe), safe - 4 * UNIT * np.abs(safe) - TINY, -np.inf)
