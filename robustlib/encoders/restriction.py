"""The convex restriction of Bastani et al. (2016): a network inside the linear region of one input.

A ReLU is a disjunction, (z < 0 and y = 0) or (z ≥ 0 and y = z), and a maximum is one over its
window. The restriction keeps, in each disjunction, the disjunct that x* itself satisfies. What is
left is a polytope around x* on which the network is affine, and the nearest adversarial example in
it is a linear program.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import sparse

from robustlib.network import Affine, MaxPool, Network, ReLU, margin_rows
from robustlib.solvers import Program

HalfSpaces = tuple[np.ndarray, np.ndarray]  # (rows, bounds): rows · x ≤ bounds
TIED = 1e-12  # values that are no farther apart are a tie, up to rounding


@dataclass(frozen=True, eq=False)
class Region:
    """The linear region Z(x*) = {x : matrix · x ≤ bound}, where the logits are weight · x + bias.

    Attributes
    ----------
    center : (n,) float64, the input x* whose disjuncts were kept
    matrix, bound : (m, n) and (m,), the half-spaces, one for each ReLU and k − 1 for a maximum of k
    units : (m, 2) int, the step of the network and the unit in it that a half-space comes from
    pattern : for each ReLU and max-pooling step in turn, which disjunct was kept: ReLU (units,)
        bool, True where z ≥ 0; max-pooling (units,) int, the input that is the largest
    weight, bias : (classes, n) and (classes,), the logits as an affine function
    """

    center: np.ndarray
    matrix: np.ndarray
    bound: np.ndarray
    units: np.ndarray
    pattern: tuple[np.ndarray, ...]
    weight: np.ndarray
    bias: np.ndarray

    def contains(self, x: np.ndarray) -> np.ndarray:
        """Whether x (batch, n) lies in the region, its border included; no tolerance."""
        return (x @ self.matrix.T <= self.bound).all(axis=1)

    def logits(self, x: np.ndarray) -> np.ndarray:
        """The logits (batch, classes) that the network has in the region, for x (batch, n)."""
        return x @ self.weight.T + self.bias


def linear_region(network: Network, x: np.ndarray, toward: np.ndarray | None = None) -> Region:
    """The convex restriction of ``network`` at ``x`` (n,), written in the inputs alone.

    On a border more than one disjunct holds, and any choice is a restriction: the half-spaces are
    closed, so x lies in every region that could be taken. With ``toward`` (n,) it is the region
    that x + δ · toward lies in for every small δ > 0. Without it, or where that leaves a tie, a
    ReLU with z = 0 counts as active, as in the paper (z ≥ 0), and of equal inputs of a maximum the
    first one is kept, as torch does. Such choices need not fit together: they may leave a region
    without an inside.

    Examples
    --------
    >>> same = Affine(np.eye(2), np.zeros(2))
    >>> region = linear_region(Network((same, ReLU(2), same), (2,)), np.array([0.5, -0.25]))
    >>> region.pattern[0], region.logits(np.array([[0.1, -0.9]]))
    (array([ True, False]), array([[0.1, 0. ]]))
    """
    center = np.asarray(x, dtype=np.float64)
    n = len(center)
    weight, bias, value = np.eye(n), np.zeros(n), center
    slope = None if toward is None else np.asarray(toward, dtype=np.float64)
    matrix, bound = [np.zeros((0, n))], [np.zeros(0)]
    units, pattern = [np.zeros((0, 2), dtype=int)], []
    for number, step in enumerate(network.steps):
        if isinstance(step, Affine):
            weight, bias = step.weight @ weight, step.weight @ bias + step.bias
            slope = None if slope is None else step.weight @ slope
        else:
            if isinstance(step, ReLU):
                active = active_units(value, slope)
                half_spaces, unit, kept = _keep_relu(active, weight, bias)
                weight, bias = weight * kept[:, None], bias * kept
                slope = None if slope is None else slope * kept
            else:
                half_spaces, unit, kept = _keep_maximum(step, value, slope, weight, bias)
                weight, bias = weight[kept], bias[kept]
                slope = None if slope is None else slope[kept]
            matrix.append(half_spaces[0])
            bound.append(half_spaces[1])
            units.append(np.stack([np.full(len(unit), number), unit], axis=1))
            pattern.append(kept)
        value = step(value[None])[0]
    return Region(
        center=center,
        matrix=np.concatenate(matrix),
        bound=np.concatenate(bound),
        units=np.concatenate(units),
        pattern=tuple(pattern),
        weight=weight,
        bias=bias,
    )


def active_units(value: np.ndarray, slope: np.ndarray | None) -> np.ndarray:
    """Which ReLUs are kept active, (units,); ``slope`` is the derivative of ``value`` along a way.

    >>> active_units(np.zeros(3), np.array([1.0, 0.0, -1.0]))
    array([ True,  True, False])
    """
    if slope is None:
        return value >= 0.0
    return np.where(np.abs(value) <= TIED, slope >= 0.0, value >= 0.0)


def largest_inputs(step: MaxPool, value: np.ndarray, slope: np.ndarray | None) -> np.ndarray:
    """The place in its window of the input that each maximum keeps, (units,)."""
    window = step.gather(value, -np.inf)
    if slope is None:
        return window.argmax(axis=1)
    tied = window >= window.max(axis=1, keepdims=True) - TIED
    slopes = np.where(tied, step.gather(slope, -np.inf), -np.inf)
    return (slopes >= slopes.max(axis=1, keepdims=True) - TIED).argmax(axis=1)


def _keep_relu(
    active: np.ndarray, weight: np.ndarray, bias: np.ndarray
) -> tuple[HalfSpaces, np.ndarray, np.ndarray]:
    """z ≥ 0 where the unit is active, z ≤ 0 where it is not, with z = weight · x + bias."""
    sign = np.where(active, -1.0, 1.0)
    return (sign[:, None] * weight, -sign * bias), np.arange(len(active)), active


def _keep_maximum(
    step: MaxPool,
    value: np.ndarray,
    slope: np.ndarray | None,
    weight: np.ndarray,
    bias: np.ndarray,
) -> tuple[HalfSpaces, np.ndarray, np.ndarray]:
    """z_i ≤ z_k for every other i of the window, where k is the input that is the largest."""
    winner = largest_inputs(step, value, slope)
    kept = step.windows[np.arange(step.size), winner]
    loses = (step.windows >= 0) & (np.arange(step.windows.shape[1]) != winner[:, None])
    unit, loser = np.nonzero(loses)[0], step.windows[loses]
    rows = weight[loser] - weight[kept[unit]]
    return (rows, bias[kept[unit]] - bias[loser]), unit, kept


def nearest_program(
    region: Region,
    target: int,
    *,
    bounds: tuple[float, float] | None = (0.0, 1.0),
    alpha: float = 0.0,
) -> Program:
    """min ‖x − x*‖∞ over the region, subject to logit[target] ≥ logit[l] + alpha for every other l.

    Parameters
    ----------
    region : from `linear_region`
    target : the label ℓ that the nearest point has to reach
    bounds : the box of valid inputs, None for the whole space
    alpha : by how much the target has to win (the paper's α, in logits; 0 asks for the bare tie)

    Returns
    -------
    Program in the n inputs and the distance t: min t with −t ≤ x − x* ≤ t.
    """
    n = len(region.center)
    wins = margin_rows(target, len(region.bias))
    rows = np.concatenate([region.matrix, -wins @ region.weight, np.eye(n), -np.eye(n)])
    away = np.repeat([0.0, -1.0], [len(rows) - 2 * n, 2 * n])  # the column of t
    upper = np.concatenate(
        [region.bound, wins @ region.bias - alpha, region.center, -region.center]
    )
    low, high = (-np.inf, np.inf) if bounds is None else bounds
    return Program(
        objective=np.append(np.zeros(n), 1.0),
        matrix=sparse.csr_array(np.column_stack([rows, away])),
        row_lower=np.full(len(upper), -np.inf),
        row_upper=upper,
        lower=np.append(np.full(n, low), 0.0),
        upper=np.append(np.full(n, high), np.inf),
        integer=np.zeros(n + 1, dtype=bool),
    )
