"""The exact encoding in terms of the inputs and the open units alone.

Units whose sign is settled are put into the rows of those that are open (``bounds.reduced``), so a
network of thousands of units of which a few dozen are open becomes a program with a few dozen rows
of its own. That costs the exactness of the coefficients: each row holds up to a bound of their
rounding errors, which widens it to an interval. Every point of the network stays feasible, and so
what is proved of the program holds for the network.
"""

from __future__ import annotations

import numpy as np
from scipy import sparse

from robustlib.bounds import Box, Region
from robustlib.bounds.reduced import Rows, reduce_network, reduce_rows
from robustlib.encoders.exact import ExactEncoding
from robustlib.network import Network


class ReducedEncoding(ExactEncoding):
    """rows · logits of a network without max-pooling over a region.

    Parameters
    ----------
    network, region, boxes : as for `ExactEncoding`.
    rows : (r, classes), such as ``margin_rows``: they take the place of the logits.

    Examples
    --------
    >>> from robustlib.bounds import network_bounds
    >>> from robustlib.network import Affine, ReLU
    >>> from robustlib.solvers import solve
    >>> net = Network((Affine(np.eye(2), np.array([1.0, -1.5])), ReLU(2)) * 2, (2,))
    >>> box = Box(np.zeros(2), 2 * np.ones(2))
    >>> encoding = ReducedEncoding(net, box, network_bounds(net, box), np.array([[1.0, -1.0]]))
    >>> encoding.binaries, round(solve(encoding.minimize_logits(np.ones(1))).objective, 6)
    (1, 2.0)
    """

    def __init__(
        self, network: Network, region: Region, boxes: list[Box], rows: np.ndarray
    ) -> None:
        self._asked = rows
        super().__init__(network, region, boxes)

    def _outputs(self, network: Network, region: Region, boxes: list[Box]) -> np.ndarray:
        layers = reduce_network(network, region.box, boxes)
        units: list[np.ndarray] = []
        for layer in layers:
            before = Box(layer.lower, layer.upper)
            units.append(self._relu(self._sums(layer.rows, units, before), before))
        last = len(network.steps) - 1
        found = reduce_rows(network, region.box, boxes, layers, self._asked, last)
        reach = 2.0 * (np.abs(self._asked) @ boxes[-1].magnitude) + 1.0
        return self._sums(found, units, Box(-reach, reach))

    def _sums(self, rows: Rows, units: list[np.ndarray], box: Box) -> np.ndarray:
        """New columns that hold the rows, up to their error."""
        result = self._rows.variables(box.lower, box.upper)
        columns = np.concatenate([self.inputs, *units, result])
        dense = np.hstack([rows.inputs, *rows.units, -np.eye(len(result))])
        places = np.nonzero(dense)
        shape = (len(result), self._rows.columns)
        matrix = sparse.coo_array((dense[places], (places[0], columns[places[1]])), shape=shape)
        self._rows.constrain_matrix(
            matrix,
            np.nextafter(-rows.constant - rows.error, -np.inf),
            np.nextafter(-rows.constant + rows.error, np.inf),
        )
        return result
