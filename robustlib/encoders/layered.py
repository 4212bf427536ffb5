"""The constraints C(x, ℓ) of Bastani et al. (2016), with a variable for every value of every layer.

x⁽⁰⁾ is the input, x⁽ᵏ⁾ the logits. An affine layer is a set of equalities. A ReLU is a disjunction,

    (x⁽ⁱ⁻¹⁾ < 0 ∧ x⁽ⁱ⁾ = 0) ∨ (x⁽ⁱ⁻¹⁾ ≥ 0 ∧ x⁽ⁱ⁾ = x⁽ⁱ⁻¹⁾),

and a maximum is one over its inputs: the one that is the largest is the output. C(x, ℓ) adds that
no logit is above logit ℓ.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import sparse

from robustlib.encoders.restriction import active_units, largest_inputs
from robustlib.network import Affine, MaxPool, Network, ReLU, margin_rows
from robustlib.solvers import Program


@dataclass(frozen=True, eq=False)
class Rows:
    """matrix · v ≤ upper, or = upper, in all variables v = (x⁽⁰⁾, …, x⁽ᵏ⁾)."""

    matrix: sparse.csr_array
    upper: np.ndarray

    def __len__(self) -> int:
        return len(self.upper)


class Constraints:
    """C(x, ℓ) of a network.

    Attributes
    ----------
    variables : their number, without the distance.
    starts : (k + 2,) where each layer's variables begin; the last entry is ``variables``.
    affine : the equalities of the affine layers.

    Examples
    --------
    >>> same = Affine(np.eye(2), np.zeros(2))
    >>> constraints = Constraints(Network((same, ReLU(2), same), (2,)))
    >>> values = constraints.values(np.array([0.5, -0.25]))
    >>> values
    array([ 0.5 , -0.25,  0.5 , -0.25,  0.5 ,  0.  ,  0.5 ,  0.  ])
    >>> [constraints.hold(values, label) for label in (0, 1)]
    [True, False]
    """

    def __init__(self, network: Network) -> None:
        self.network = network
        sizes = [network.input_size, *(step.size for step in network.steps)]
        self.starts = np.cumsum([0, *sizes])
        self.variables = int(self.starts[-1])
        parts = [
            self._equal(k, step) for k, step in enumerate(network.steps) if isinstance(step, Affine)
        ]
        self.affine = _stack(parts, self.variables)

    def values(self, x: np.ndarray) -> np.ndarray:
        """The values of all variables in a forward pass from ``x`` (n,)."""
        x = np.asarray(x, dtype=np.float64)
        return np.concatenate([x, *(out[0] for out in self.network.outputs(x[None]))])

    def hold(self, values: np.ndarray, label: int, *, tolerance: float = 1e-9) -> bool:
        """Whether ``values`` satisfy C(x, label), equalities up to ``tolerance``."""
        if np.abs(self.affine.matrix @ values - self.affine.upper).max(initial=0.0) > tolerance:
            return False
        for k, step in enumerate(self.network.steps):
            before, after = self._part(values, k), self._part(values, k + 1)
            if isinstance(step, ReLU | MaxPool) and not _any_disjunct(
                step, before, after, tolerance
            ):
                return False
        logits = self._part(values, len(self.network.steps))
        return bool((logits[label] >= logits).all())

    def restricted(self, values: np.ndarray, toward: np.ndarray | None = None) -> tuple[Rows, Rows]:
        """The disjuncts that ``values`` satisfy: their equalities and their inequalities.

        The convex restriction at x* is that at its ``values``; the inequalities are in the order of
        the half-spaces of `linear_region`, which has eliminated all variables but the inputs, and
        ``toward`` (n,) decides ties as it does there.
        """
        equal, less, slope = [self.affine], [], toward
        for k, step in enumerate(self.network.steps):
            before, first = self._part(values, k), self.starts[k]
            if isinstance(step, Affine):
                slope = None if slope is None else step.weight @ slope
            elif isinstance(step, ReLU):
                active = active_units(before, slope)
                slope = None if slope is None else slope * active
                inputs = first + np.arange(step.size)
                outputs = self.starts[k + 1] + np.arange(step.size)
                equal.append(self._rows([outputs, inputs], [1.0, -1.0 * active], step.size))
                less.append(self._rows([inputs], [np.where(active, -1.0, 1.0)], step.size))
            elif isinstance(step, MaxPool):
                winner = largest_inputs(step, before, slope)
                kept = step.windows[np.arange(step.size), winner]
                slope = None if slope is None else slope[kept]
                loses = (step.windows >= 0) & (np.arange(step.windows.shape[1]) != winner[:, None])
                unit, loser = np.nonzero(loses)[0], step.windows[loses]
                outputs = self.starts[k + 1] + np.arange(step.size)
                equal.append(self._rows([outputs, first + kept], [1.0, -1.0], step.size))
                less.append(
                    self._rows([first + loser, first + kept[unit]], [1.0, -1.0], len(loser))
                )
        return _stack(equal, self.variables), _stack(less, self.variables)

    def wins(self, label: int) -> Rows:
        """logit[l] ≤ logit[label] for every other l."""
        rows = sparse.csr_array(-margin_rows(label, self.network.classes))
        return Rows(self._shifted(rows, self.starts[-2]), np.zeros(rows.shape[0]))

    def _part(self, values: np.ndarray, k: int) -> np.ndarray:
        return values[self.starts[k] : self.starts[k + 1]]

    def _equal(self, k: int, step: Affine) -> Rows:
        """x⁽ᵏ⁺¹⁾ − W x⁽ᵏ⁾ = b."""
        after = sparse.eye_array(step.size, format="csr")
        both = sparse.hstack([-sparse.csr_array(step.weight), after], format="csr")
        return Rows(self._shifted(both, self.starts[k]), step.bias)

    def _shifted(self, matrix: sparse.csr_array, first: int) -> sparse.csr_array:
        """The same rows in all variables; theirs begin at ``first``."""
        m = matrix.shape[0]
        parts = (matrix.data, matrix.indices + first, matrix.indptr)
        return sparse.csr_array(parts, shape=(m, self.variables))

    def _rows(self, columns: list[np.ndarray], values: list, m: int) -> Rows:
        """Rows with one entry from each of the lists of columns, and 0 on the right."""
        rows = np.tile(np.arange(m), len(columns))
        data = np.concatenate([np.broadcast_to(value, m) for value in values])
        entries = (data, (rows, np.concatenate(columns)))
        matrix = sparse.csr_array(entries, shape=(m, self.variables))
        matrix.eliminate_zeros()
        return Rows(matrix, np.zeros(m))


def _any_disjunct(
    step: ReLU | MaxPool, before: np.ndarray, after: np.ndarray, tolerance: float
) -> bool:
    """Whether every disjunction of the layer has a disjunct that holds."""
    if isinstance(step, ReLU):
        off = (before < 0.0) & (np.abs(after) <= tolerance)
        on = (before >= 0.0) & (np.abs(after - before) <= tolerance)
        return bool((off | on).all())
    window = step.gather(before, -np.inf)
    largest = window >= window.max(axis=1, keepdims=True)
    return bool((largest & (np.abs(after[:, None] - window) <= tolerance)).any(axis=1).all())


def layered_program(
    less: Rows, equal: Rows, center: np.ndarray, *, bounds: tuple[float, float] | None = (0.0, 1.0)
) -> Program:
    """min ‖x⁽⁰⁾ − center‖∞ subject to the rows ``less`` (first), ``equal`` and the box.

    Parameters
    ----------
    less, equal : inequalities and equalities, as from ``Constraints.restricted``
    center : (n,), x*
    bounds : the box of valid inputs, None for the whole space

    Returns
    -------
    Program in all variables and, in the last column, the distance.
    """
    n, m = len(center), less.matrix.shape[1]
    near = sparse.eye_array(n, m, format="csr")
    matrix = sparse.vstack([less.matrix, equal.matrix, near, -near])
    away = np.repeat([0.0, -1.0], [len(less) + len(equal), 2 * n])
    low, high = (-np.inf, np.inf) if bounds is None else bounds
    none = np.full(len(less), -np.inf)
    return Program(
        objective=np.append(np.zeros(m), 1.0),
        matrix=sparse.csr_array(sparse.hstack([matrix, sparse.csr_array(away[:, None])])),
        row_lower=np.concatenate([none, equal.upper, np.full(2 * n, -np.inf)]),
        row_upper=np.concatenate([less.upper, equal.upper, center, -center]),
        lower=np.concatenate([np.full(n, low), np.full(m - n, -np.inf), [0.0]]),
        upper=np.concatenate([np.full(n, high), np.full(m - n + 1, np.inf)]),
        integer=np.zeros(m + 1, dtype=bool),
    )


def _stack(parts: list[Rows], variables: int) -> Rows:
    matrices = [sparse.csr_array((0, variables)), *(part.matrix for part in parts)]
    upper = np.concatenate([np.zeros(0), *(part.upper for part in parts)])
    return Rows(sparse.csr_array(sparse.vstack(matrices, format="csr")), upper)
