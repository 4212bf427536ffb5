"""The linear relaxation of a network: the triangle of every open ReLU, no 0–1 variables.

Over l ≤ z ≤ u with l < 0 < u the convex hull of y = max(z, 0) is the triangle

    y ≥ 0,   y ≥ z,   y ≤ u (z − l) / (u − l),

which is also what is left of the paper's eq. 6 when its 0–1 variable may be any number in [0, 1].
A maximum keeps the rows of eq. 7 with such variables.
"""

from __future__ import annotations

import numpy as np

from robustlib.bounds import Box, Region, relu_lines
from robustlib.encoders.exact import ZERO, ExactEncoding
from robustlib.network import Network
from robustlib.solvers import Program


class Relaxation(ExactEncoding):
    """`ExactEncoding` with the triangle in place of eq. 6; its programs are LPs."""

    def program(self, objective: np.ndarray) -> Program:
        return self._rows.program(objective).relaxed()

    def _relu(self, columns: np.ndarray, before: Box) -> np.ndarray:
        result = np.where(before.upper <= 0, ZERO, columns)
        is_open = (before.lower < 0) & (before.upper > 0)
        unstable = np.flatnonzero(is_open & (columns != ZERO))
        if not len(unstable):
            return result
        lines = relu_lines(before)  # the upper one is lifted over what rounding does to its slope
        above, intercept = lines.above[unstable], lines.intercept[unstable]
        z = columns[unstable]
        y = self._rows.variables(np.zeros(len(unstable)), before.upper[unstable])
        self._rows.constrain([(y, 1.0), (z, -1.0)], 0.0, np.inf)
        self._rows.constrain([(y, 1.0), (z, -above)], -np.inf, intercept)
        result[unstable] = y
        return result


def relaxation_program(
    network: Network, region: Region, boxes: list[Box], row: np.ndarray, k: int | None = None
) -> Program:
    """min row · (output of step k) over the relaxation of the steps up to k.

    Parameters
    ----------
    network, region : the network and the set of inputs.
    boxes : bounds of the outputs of steps 0 … k at least; what they are decides how tight it is.
    row : (size of step k,), such as one of ``margin_rows`` for the last step.
    k : the step, the last one if not given.

    Returns
    -------
    Program : an LP. Its optimum as an engine reports it is no proof: `safe_lower_bound` of the
        engine's multipliers is.

    Examples
    --------
    >>> from robustlib.bounds import network_bounds
    >>> from robustlib.network import Affine, ReLU
    >>> from robustlib.solvers import solve
    >>> same = Affine(np.eye(1), np.zeros(1))
    >>> net, box = Network((same, ReLU(1), same), (1,)), Box(-np.ones(1), np.ones(1))
    >>> program = relaxation_program(net, box, network_bounds(net, box), -np.ones(1))
    >>> program.integer.any(), solve(program).objective
    (np.False_, -1.0)
    """
    end = len(network.steps) if k is None else k + 1
    prefix = Network(network.steps[:end], network.input_shape)
    return Relaxation(prefix, region, boxes[:end]).minimize_logits(row)
