"""CROWN: linear bounds of a network's rows, carried backward from the output to the input.

A row λ of coefficients on the output of step k is replaced, step by step, by a row on its input:
through an affine step by λW, through a ReLU or a maximum by a line below it where the coefficient
is positive and above it where it is negative (Zhang et al. 2018). At the input the minimum of the
row over the set of inputs closes it.

Rounding. Each product λW is computed with an error of at most γ|λ||W| per entry. The error times
the variable it multiplies is at most γ|λ|(|W|M), with M the largest magnitude of that variable in
its box: one matrix–vector product a step, subtracted at the end. So the result is a lower bound of
the real-arithmetic network with exactly the stored weights, whatever the order of the sums.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import sparse

from robustlib.bounds.box import Box, split_by_sign
from robustlib.bounds.interval import interval_step
from robustlib.bounds.region import Region
from robustlib.network import Affine, Matrix, MaxPool, Network, ReLU, Step
from robustlib.rounding import TINY, UNIT, rounding, underflow

DENSE = 0.15  # above this share of non-zeros a dense product is faster


def network_bounds(network: Network, region: Region) -> list[Box]:
    """Bounds of the output of every step over ``region``: intervals, then CROWN where open.

    The last step's bounds (the logits) are interval bounds only: margins are what is asked, and
    ``rows_lower_bound`` gives them directly.
    """
    boxes: list[Box] = []
    current = region.box
    for k, step in enumerate(network.steps):
        result = interval_step(step, current)
        last = k + 1 == len(network.steps)
        if isinstance(step, Affine) and not last:
            if any(isinstance(s, ReLU | MaxPool) for s in network.steps[:k]):
                rows = _open_rows(network.steps[k + 1], result)
            else:  # intervals are exact over a box, and loose over any other region
                rows = np.arange(0 if isinstance(region, Box) else step.size)
            if len(rows):
                result = _tighten(network, boxes, region, k, rows, result)
        boxes.append(result)
        current = result
    return boxes


def unstable_units(network: Network, region: Region, boxes: list[Box]) -> int:
    """How many ReLUs the bounds leave open, and how many inputs of open max-pooling windows."""
    total = 0
    for step, before in zip(network.steps, [region.box, *boxes[:-1]], strict=True):
        if isinstance(step, ReLU):
            total += len(_open_rows(step, before))
        elif isinstance(step, MaxPool):
            _, decided, _ = max_winner(step, before)
            total += int((step.windows[~decided] >= 0).sum())
    return total


def _open_rows(following: Step, box: Box) -> np.ndarray:
    """Rows whose tighter bounds could settle what the following step does."""
    if isinstance(following, ReLU):
        return np.flatnonzero((box.lower < 0) & (box.upper > 0))
    # two affine steps in a row: the second one's rows pass through both
    return np.arange(0 if isinstance(following, Affine) else len(box.lower))


def _tighten(
    network: Network, boxes: list[Box], region: Region, k: int, rows: np.ndarray, result: Box
) -> Box:
    step = network.steps[k]
    assert isinstance(step, Affine)
    unit = sparse.csr_array(
        (np.ones(len(rows)), (np.arange(len(rows)), rows)), shape=(len(rows), step.size)
    )
    both = sparse.csr_array(sparse.vstack([unit, -unit]))
    found = rows_lower_bound(network, boxes, region, both, k)
    lower, upper = result.lower.copy(), result.upper.copy()
    lower[rows] = np.maximum(lower[rows], found[: len(rows)])
    upper[rows] = np.minimum(upper[rows], -found[len(rows) :])
    return result.intersect(Box(lower, upper))


def rows_lower_bound(
    network: Network,
    boxes: list[Box],
    region: Region,
    rows: Matrix,
    k: int | None = None,
    *,
    lines: dict[int, Lines] | None = None,
    inputs: np.ndarray | None = None,
) -> np.ndarray:
    """Lower bounds of rows · (output of step k) over ``region``, safe under rounding.

    Parameters
    ----------
    network, region : the network and the set of inputs: a box or another ``Region``.
    boxes : bounds of the outputs of steps 0 … k−1 at least (``network_bounds``).
    rows : coefficients, shape (r, size of step k); ``margin_rows`` for margins.
    k : index of the step, the last one if not given.
    lines : for each ReLU step, the lines to use instead of ``relu_lines``; any are allowed that
        hold on the part of the region that is meant. ``rows`` must be dense then.
    inputs : (r, input_size), if the bound is to be one of rows · (output) + inputs · x.

    Returns
    -------
    lower : (r,) float64, −∞ where the arithmetic overflows.
    """
    k = len(network.steps) - 1 if k is None else k
    constant = np.zeros(rows.shape[0])
    error = np.zeros(rows.shape[0])
    total = np.zeros(rows.shape[0])  # of the magnitudes that ``constant`` sums
    for i in range(k, -1, -1):
        step = network.steps[i]
        before = boxes[i - 1] if i else region.box
        if isinstance(step, Affine):
            rows, shift, slack = through_affine(rows, step, before)
        elif isinstance(step, ReLU):
            chosen = relu_lines(before) if lines is None else lines[i]
            if chosen.planes is not None:
                rows, direct, shift, slack = _through_planes(
                    rows, chosen.planes, before, region.box
                )
                inputs = direct if inputs is None else inputs + direct
                constant, error, total = constant + shift, error + slack, total + np.abs(shift)
            rows, shift, slack = _through_lines(rows, chosen, before)
        else:
            rows, shift, slack = _through_max(rows, step, before)
        constant = constant + shift
        error = error + slack
        total = total + np.abs(shift)
    if inputs is not None:
        error = error + rounding(k + 2) * ((abs(rows) + abs(inputs)) @ region.box.magnitude)
        rows = rows + inputs
    closed = region.minimum(rows)
    error = error + (2 * k + 5) * UNIT * (total + np.abs(closed) + error)
    lower = closed + constant - 2.0 * error
    return np.where(np.isfinite(lower), lower, -np.inf)


def through_affine(
    rows: Matrix, step: Affine, before: Box
) -> tuple[Matrix, np.ndarray, np.ndarray]:
    """Rows on the step's input, rows · bias, and what rounding can do to their sum."""
    weight = step.weight
    shift = rows @ step.bias
    terms = max(weight.shape)
    scale = step.absolute @ before.magnitude + np.abs(step.bias) + underflow(terms)
    slack = rounding(terms) * (abs(rows) @ scale) + underflow(terms, before.magnitude.sum())
    live = np.flatnonzero(before.magnitude > 0)  # a unit that is always 0 needs no column
    if len(live) < 0.9 * weight.shape[1]:
        product = _product(rows, weight[:, live])
        return _scatter(product, live, weight.shape[1]), shift, slack
    return _product(rows, weight), shift, slack


def _product(rows: Matrix, weight: Matrix) -> Matrix:
    result = rows @ weight
    if isinstance(result, np.ndarray):
        return result
    if result.nnz > DENSE * result.shape[0] * result.shape[1]:
        return result.toarray()
    return _canonical(sparse.csr_array(result))


def _canonical(rows: sparse.csr_array) -> sparse.csr_array:
    """Entries in order: scipy reorders an unsorted matrix in place when asked for its abs()."""
    rows.sum_duplicates()
    return rows


def _scatter(product: Matrix, columns: np.ndarray, width: int) -> Matrix:
    if isinstance(product, np.ndarray):
        full = np.zeros((product.shape[0], width))
        full[:, columns] = product
        return full
    return sparse.csr_array(
        (product.data, columns[product.indices], product.indptr), shape=(product.shape[0], width)
    )


@dataclass(frozen=True, eq=False)
class Planes:
    """max(z, 0) ≤ slopes · x + offset with x the network's input, unit by unit (``bounds.hull``).

    Attributes
    ----------
    slopes : (units, input_size)
    offsets : (units,)
    share : (rows, units) in [0, 1], how much of the upper bound is this one in each row.
    """

    slopes: np.ndarray
    offsets: np.ndarray
    share: np.ndarray


@dataclass(frozen=True, eq=False)
class Lines:
    """below · z ≤ max(z, 0) ≤ above · z + intercept, unit by unit.

    Each is (units,), the same for all rows, or (rows, units). ``added`` is added to the
    coefficients of z: λ · z with λ z ≤ 0 wherever the bound is meant to hold, such as −β for a
    unit that a branch fixed to z ≥ 0. ``planes`` are used above in place of the line.
    """

    below: np.ndarray
    above: np.ndarray
    intercept: np.ndarray
    added: np.ndarray | None = None
    planes: Planes | None = None


def relu_lines(before: Box) -> Lines:
    """The lines of CROWN for z in the box ``before``, with 0 or 1 as the slope below."""
    lower, upper = before.lower, before.upper
    unstable = (lower < 0) & (upper > 0)
    width = np.where(unstable, upper - lower, 1.0)
    active = (lower >= 0).astype(float)
    above = np.where(unstable, upper / width, active)
    below = np.where(unstable, (upper > -lower).astype(float), active)
    # t must lift the line over max(z, 0) at both ends, however s was rounded
    lift = np.maximum(-above * lower, upper - above * upper) + 4.0 * UNIT * (upper - lower) + TINY
    return Lines(below, above, np.where(unstable, lift, 0.0))


def _through_lines(
    rows: Matrix, lines: Lines, before: Box
) -> tuple[Matrix, np.ndarray, np.ndarray]:
    positive, negative = split_by_sign(rows)
    shift = _dot(negative, lines.intercept)
    terms = rows.shape[1]
    slack = rounding(terms) * _dot(abs(rows), before.magnitude + lines.intercept)
    slack = slack + underflow(terms, before.magnitude.sum())
    if isinstance(rows, np.ndarray):
        result = positive * lines.below + negative * lines.above
        if lines.added is not None:
            result = result + lines.added
            slack = slack + rounding(terms) * (np.abs(lines.added) @ before.magnitude)
        return result, shift, slack
    scaled = _scale_columns(positive, lines.below) + _scale_columns(negative, lines.above)
    scaled.eliminate_zeros()
    return _canonical(scaled), shift, slack


def _through_planes(
    rows: np.ndarray, planes: Planes, before: Box, box: Box
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """The rows that remain, those on the input, and the constants."""
    taken = np.minimum(rows, 0.0) * planes.share
    shift = taken @ planes.offsets
    scale = np.abs(planes.slopes) @ box.magnitude + np.abs(planes.offsets)
    slack = rounding(rows.shape[1]) * (np.abs(taken) @ scale + np.abs(rows) @ before.magnitude)
    reach = box.magnitude.sum() + before.magnitude.sum()
    return rows - taken, taken @ planes.slopes, shift, slack + underflow(rows.shape[1], reach)


def _dot(rows: Matrix, values: np.ndarray) -> np.ndarray:
    """rows · values, with the same values for all rows or values of each row's own."""
    return rows @ values if values.ndim == 1 else (rows * values).sum(axis=1)


def _through_max(rows: Matrix, step: MaxPool, before: Box) -> tuple[Matrix, np.ndarray, np.ndarray]:
    """y ≥ x_i for the input of largest lower bound; y ≤ x_i where i always wins, else y ≤ u."""
    best, decided, top = max_winner(step, before)
    n = len(before.lower)
    pick = sparse.csr_array(
        (np.ones(step.size), (np.arange(step.size), best)), shape=(step.size, n)
    )
    positive, negative = split_by_sign(rows)
    open_part = np.where(decided, 0.0, top)
    shift = negative @ open_part
    kept = positive + _scale_columns(negative, decided.astype(float))
    slack = rounding(step.size) * (abs(rows) @ np.maximum(before.magnitude[best], np.abs(top)))
    slack = slack + underflow(step.size)
    return _product(kept, pick), shift, slack


def _scale_columns(rows: Matrix, factor: np.ndarray) -> Matrix:
    if isinstance(rows, np.ndarray):
        return rows * factor
    scaled = rows.copy()
    scaled.data = rows.data * factor[rows.indices]
    return scaled


def max_winner(step: MaxPool, before: Box) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Per window: the input of largest lower bound, whether it always wins, the largest upper."""
    lower = step.gather(before.lower, -np.inf)
    upper = step.gather(before.upper, -np.inf)
    real = np.maximum(before.lower, np.finfo(float).min)  # above the padding's −∞
    place = step.gather(real, -np.inf).argmax(axis=1)
    rows = np.arange(step.size)
    others = upper.copy()
    others[rows, place] = -np.inf
    decided = lower[rows, place] >= others.max(axis=1)
    return step.windows[rows, place], decided, upper.max(axis=1)
