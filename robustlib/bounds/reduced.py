"""A ReLU network over a box in terms of its unstable units alone.

A unit whose sign is settled on the box is linear there and drops out. What is left is small and
dense: with y_j = max(z_j, 0) for the unstable units of layer j,

    z_k = A_k x + Σ_{j<k} B_kj y_j + c_k,        row · logits = a x + Σ_j b_j y_j + c.

It is used to search: many bounds of many branches, fast. What the search finds is recomputed on the
network itself (``rows_lower_bound``), or allows for the rounding errors of the coefficients, which
are bounded as those of CROWN are.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from robustlib.bounds.box import Box
from robustlib.bounds.crown import through_affine
from robustlib.network import Affine, MaxPool, Network
from robustlib.rounding import UNIT


@dataclass(frozen=True, eq=False)
class Rows:
    """inputs · x + Σ_j units[j] · y_j + constant, for r rows.

    Attributes
    ----------
    inputs : (r, input_size)
    units : for each ReLU layer before, (r, its unstable units)
    constant : (r,)
    error : (r,) by how much that can be off, wherever the bounds hold that it was made with
    """

    inputs: np.ndarray
    units: list[np.ndarray]
    constant: np.ndarray
    error: np.ndarray


@dataclass(frozen=True, eq=False)
class ReducedLayer:
    """The unstable units of one ReLU step: which they are, z as rows, and bounds of z.

    ``active`` marks, among all units of the step, those that are never below 0.
    """

    step: int
    index: np.ndarray
    active: np.ndarray
    rows: Rows
    lower: np.ndarray
    upper: np.ndarray


def reduce_network(network: Network, box: Box, boxes: list[Box]) -> list[ReducedLayer]:
    """The unstable units of every ReLU step, in order, each as rows over what lies before it.

    Raises
    ------
    ValueError
        For a network with max-pooling, whose choices are not settled by signs.
    """
    if any(isinstance(step, MaxPool) for step in network.steps):
        raise ValueError("a network with max-pooling has no reduced form")
    layers: list[ReducedLayer] = []
    for k, step in enumerate(network.steps):
        if isinstance(step, Affine):
            continue
        before = boxes[k - 1] if k else box
        index = np.flatnonzero((before.lower < 0) & (before.upper > 0))
        unit = np.zeros((len(index), len(before.lower)))
        unit[np.arange(len(index)), index] = 1.0
        rows = reduce_rows(network, box, boxes, layers, unit, k - 1)
        layers.append(
            ReducedLayer(
                k, index, before.lower >= 0, rows, before.lower[index], before.upper[index]
            )
        )
    return layers


def reduce_rows(
    network: Network,
    box: Box,
    boxes: list[Box],
    layers: list[ReducedLayer],
    rows: np.ndarray,
    k: int,
) -> Rows:
    """rows · (output of step k) in terms of the input and the unstable units of ``layers``."""
    known = {layer.step: place for place, layer in enumerate(layers)}
    units = [np.zeros((len(rows), len(layer.index))) for layer in layers]
    constant, error, total = np.zeros(len(rows)), np.zeros(len(rows)), np.zeros(len(rows))
    for i in range(k, -1, -1):
        step = network.steps[i]
        if isinstance(step, Affine):
            rows, shift, slack = through_affine(rows, step, boxes[i - 1] if i else box)
            constant, error, total = constant + shift, error + slack, total + np.abs(shift)
            continue
        place = known[i]
        units[place] = rows[:, layers[place].index]
        rows = rows * layers[place].active  # the other units are 0 or set apart
    return Rows(rows, units, constant, 2.0 * (error + (2 * k + 5) * UNIT * (total + error)))
