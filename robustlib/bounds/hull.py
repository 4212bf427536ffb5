"""Planes above a unit of the first ReLU layer, over the inputs themselves.

The line of CROWN above max(z, 0) sees an interval of z. Over the inputs there is more to use: where
z = w · x + b is near the middle of its interval, the inputs are hardly ever all at the ends that
make z large or small. For any slopes g,

    max(w · x + b, 0) ≤ g · x + t,    t = max( max_x −g · x,  max_x (w − g) · x + b ),

because max(z, 0) is the larger of 0 and z, and each of the two is bounded apart. Each maximum is
that of a linear function over a box. With g = s w this is CROWN's line; all g together describe the
convex hull of the unit over the box, which otherwise takes exponentially many cuts of a linear
program (Anderson et al. 2020).
"""

from __future__ import annotations

import numpy as np

from robustlib.bounds.box import Box
from robustlib.bounds.crown import rows_lower_bound
from robustlib.bounds.region import Region
from robustlib.network import Network


def plane_offsets(
    network: Network,
    boxes: list[Box],
    region: Region,
    k: int,
    units: np.ndarray,
    slopes: np.ndarray,
) -> np.ndarray:
    """The offsets t (units,) of planes above units of the ReLU step k, safe under rounding.

    Parameters
    ----------
    network, boxes, region : as for ``rows_lower_bound``.
    k : the first ReLU step of the network.
    units : which of its units.
    slopes : (units, input_size), any numbers.

    Examples
    --------
    max(x₁ + x₂ − 1, 0) ≤ x₁ / 2 + x₂ / 2 on the unit square, which touches it at two corners:

    >>> from robustlib.bounds import network_bounds
    >>> from robustlib.network import Affine, ReLU
    >>> first, last = Affine(np.ones((1, 2)), -np.ones(1)), Affine(np.ones((1, 1)), np.zeros(1))
    >>> net, square = Network((first, ReLU(1), last), (2,)), Box(np.zeros(2), np.ones(2))
    >>> boxes = network_bounds(net, square)
    >>> plane_offsets(net, boxes, square, 1, np.arange(1), np.array([[0.5, 0.5]])).round(9)
    array([0.])
    """
    unit = np.zeros((len(units), boxes[k - 1].lower.size if k else network.input_size))
    unit[np.arange(len(units)), units] = 1.0
    inactive = -region.minimum(slopes)
    active = -rows_lower_bound(network, boxes, region, -unit, k - 1, inputs=slopes)
    return np.maximum(inactive, active)
