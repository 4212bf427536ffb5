"""The exact worst case of a linear model, in closed form.

A linear function w·x changes by at most ε times the dual norm of w when x moves by at most ε
(Hölder's inequality), and the point that attains it is known: no search is needed. The box of valid
inputs only cuts the way short, coordinate by coordinate.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from robustlib import checks
from robustlib.theory.matrices import Array, numbers

DUAL = {"inf": 1, "2": 2, "1": np.inf}  # the norm of the weights, for each norm of the change


def dual_norm(weights: ArrayLike, *, norm: str) -> float:
    r"""How much a linear function grows for a change of size 1.

    .. math:: \|w\|_* = \max_{\|\delta\|\le1} w\cdot\delta

    It is :math:`\|w\|_1` for the l∞ norm, :math:`\|w\|_2` for l2, :math:`\|w\|_\infty` for l1.

    Parameters
    ----------
    weights : array_like, (m,)
    norm : {"inf", "2", "1"}
        The norm in which the *change* is measured.

    Returns
    -------
    float

    Raises
    ------
    TypeError, ValueError
        For another norm, and weights that are not a vector of finite numbers.

    Examples
    --------
    >>> [dual_norm([3.0, -4.0], norm=norm) for norm in ("inf", "2", "1")]
    [7.0, 5.0, 4.0]
    """
    norm = checks.choice("norm", norm, DUAL)
    return float(np.linalg.norm(numbers("weights", weights, 1), DUAL[norm]))


def worst_points(
    weights: ArrayLike,
    x: ArrayLike,
    *,
    eps: float,
    norm: str = "inf",
    bounds: tuple[float, float] | None = None,
) -> Array:
    r"""Where a linear function is smallest in the ball around each input.

    .. math:: \arg\min_{\|\delta\|\le\varepsilon,\ x+\delta\in[l,u]^m} w\cdot(x+\delta)

    In l∞ every coordinate moves by ε against the sign of its weight (Goodfellow et al. 2015, the
    fast gradient sign); in l2 the input moves straight against w; in l1 all of ε goes into the
    coordinate of the largest weight. With a box, a coordinate that reaches its end stays there,
    and what it leaves of the budget goes to the others: in l2 to all of them in proportion to their
    weights, in l1 to the one of the next largest weight. All three are exact but for rounding.

    Parameters
    ----------
    weights : array_like, (m,) or (n, m)
        One function for all inputs, or one for each.
    x : array_like, (n, m)
        Inputs, inside ``bounds``.
    eps : float
        Radius of the ball, in the unit of ``x``.
    norm : {"inf", "2", "1"}
    bounds : (float, float), optional
        The box of valid inputs; default: none.

    Returns
    -------
    ndarray, (n, m)

    Raises
    ------
    TypeError, ValueError
        For an argument that is not as described; the message names it and what is allowed.

    Examples
    --------
    >>> w, x = [1.0, -2.0, 3.0], [[0.5, 0.5, 0.5]]
    >>> worst_points(w, x, eps=0.25)
    array([[0.25, 0.75, 0.25]])
    >>> worst_points(w, x, eps=0.75, norm="1", bounds=(0, 1))
    array([[0.5 , 0.75, 0.  ]])
    """
    norm, eps = checks.choice("norm", norm, DUAL), checks.eps(eps)
    x = numbers("x", x, 2)
    weights = np.asarray(weights)
    weights = numbers("weights", weights, 2 if weights.ndim == 2 else 1)
    if weights.shape not in (x.shape, x.shape[1:]):
        raise ValueError(
            f"weights has shape {weights.shape}; inputs of shape {x.shape} ask for "
            f"({x.shape[1]},), or {x.shape} for a function of its own for each."
        )
    slope = np.broadcast_to(np.abs(weights), x.shape)
    if bounds is None:
        room = np.full(x.shape, np.inf)
    else:
        low, high = _box(bounds, x)
        room = np.where(weights > 0, x - low, high - x)
    distance = {"inf": _linf, "2": _l2, "1": _l1}[norm](slope, room, eps)
    return x - np.sign(weights) * distance


def worst_margins(
    weight: ArrayLike,
    bias: ArrayLike,
    x: ArrayLike,
    y: ArrayLike,
    *,
    eps: float,
    norm: str = "inf",
    bounds: tuple[float, float] | None = None,
) -> Array:
    r"""The smallest margin of a linear classifier in the ball around each input.

    .. math:: \min_{j\ne y}\ \min_{\|\delta\|\le\varepsilon}
              (w_y-w_j)\cdot(x+\delta) + b_y - b_j
              = \min_{j\ne y}\ (w_y-w_j)\cdot x + b_y - b_j - \varepsilon\|w_y-w_j\|_*

    The last expression without a box. An input is robust exactly where this is positive: for a
    linear classifier verification is one formula for each other class.

    Parameters
    ----------
    weight : array_like, (c, m)
        One row for each class, as in ``torch.nn.Linear``.
    bias : array_like, (c,)
    x : array_like, (n, m)
        Inputs, inside ``bounds``.
    y : array_like, (n,), integers
        Labels, 0 to c − 1.
    eps, norm, bounds
        As in `worst_points`.

    Returns
    -------
    ndarray, (n,)
        Exact but for rounding; `robustlib.verify` gives proofs that are safe under rounding too.

    Raises
    ------
    TypeError, ValueError
        For an argument that is not as described; the message names it and what is allowed.

    Examples
    --------
    >>> weight, bias = [[1.0, -1.0], [0.0, 0.0]], [0.0, 0.0]
    >>> worst_margins(weight, bias, [[0.75, 0.25]], [0], eps=0.125)
    array([0.25])
    """
    weight, x = numbers("weight", weight, 2), numbers("x", x, 2)
    bias, y = numbers("bias", bias, 1), _labels(y, len(x), len(weight))
    if weight.shape[1] != x.shape[1] or len(bias) != len(weight):
        raise ValueError(
            f"weight has shape {weight.shape}, bias {bias.shape}, x {x.shape}; give "
            "(c, m), (c,) and (n, m)."
        )
    if len(weight) < 2:
        raise ValueError("weight has one row; a classifier has a row for each of its classes.")
    lowest = np.full(len(x), np.inf)
    for j in range(len(weight)):
        others = np.flatnonzero(y != j)
        if not len(others):
            continue
        difference = weight[y[others]] - weight[j]
        z = worst_points(difference, x[others], eps=eps, norm=norm, bounds=bounds)
        margin = np.einsum("nm,nm->n", difference, z) + bias[y[others]] - bias[j]
        lowest[others] = np.minimum(lowest[others], margin)
    return lowest


def _linf(slope: Array, room: Array, eps: float) -> Array:
    """How far each coordinate moves: ε, or to the end of the box."""
    return np.where(slope > 0, np.minimum(eps, room), 0.0)


def _l2(slope: Array, room: Array, eps: float) -> Array:
    """min(t · slope, room), with t so large that ε is used up, or that everything is at its end.

    Coordinates reach their ends in the order of room / slope. With the first k at their ends,
    the others share what is left: t² Σ slope² = ε² − Σ room².
    """
    slope = slope / np.maximum(slope.max(axis=1, keepdims=True), np.finfo(float).tiny)
    with np.errstate(divide="ignore", invalid="ignore"):
        ends = np.where(slope > 0, room / slope, np.inf)
    order = np.argsort(ends, axis=1)
    ends = np.take_along_axis(ends, order, 1)
    steep = np.take_along_axis(slope, order, 1) ** 2
    full = np.where(np.isfinite(ends), np.take_along_axis(room, order, 1), 0.0) ** 2
    spent = np.cumsum(full, axis=1) - full  # by those before
    moving = np.cumsum(steep[:, ::-1], axis=1)[:, ::-1]  # this one and those after
    with np.errstate(divide="ignore", invalid="ignore"):
        reach = np.sqrt(np.maximum(eps**2 - spent, 0.0) / moving)
    reach = np.where(moving > 0, reach, np.inf)
    # The first coordinate that t does not bring to its end decides; if none does, all are there.
    last = (reach <= ends).argmax(axis=1)
    t = np.take_along_axis(reach, last[:, None], 1)
    t[~(reach <= ends).any(axis=1)] = np.inf
    with np.errstate(invalid="ignore"):
        return np.where(slope > 0, np.minimum(t * slope, room), 0.0)


def _l1(slope: Array, room: Array, eps: float) -> Array:
    """The steepest coordinate first, up to its end, then the next, until ε is used up."""
    order = np.argsort(-slope, axis=1, kind="stable")
    room = np.where(np.take_along_axis(slope, order, 1) > 0, np.take_along_axis(room, order, 1), 0)
    room = np.minimum(room, eps)
    before = np.cumsum(room, axis=1) - room
    moves = np.empty_like(room)
    np.put_along_axis(moves, order, np.clip(eps - before, 0.0, room), axis=1)
    return moves


def _box(bounds: tuple[float, float], x: Array) -> tuple[float, float]:
    low, high = (checks.number("bounds", end) for end in bounds)
    if low >= high:
        raise ValueError(f"bounds={bounds!r} is empty; give (low, high) with low < high.")
    if x.min() < low or x.max() > high:
        raise ValueError(
            f"x has values in [{x.min():g}, {x.max():g}]; bounds={bounds!r} does not hold them."
        )
    return low, high


def _labels(y: ArrayLike, n: int, classes: int) -> np.ndarray:
    labels = np.asarray(y)
    if labels.shape != (n,) or not np.issubdtype(labels.dtype, np.integer):
        raise ValueError(
            f"y has shape {labels.shape} and type {labels.dtype}; give {n} integer labels."
        )
    if labels.min() < 0 or labels.max() >= classes:
        raise ValueError(
            f"y has labels in [{labels.min()}, {labels.max()}]; allowed is [0, {classes - 1}]."
        )
    return labels
