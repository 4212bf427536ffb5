"""Maxima written with ReLUs: max(a, b) = a + max(b − a, 0).

Branch and bound splits on the signs of ReLUs. A maximum of k values becomes a tournament of
⌈log₂ k⌉ rounds; what waits for the next round passes the ReLUs between as a unit that is never
negative, after a shift that is known to make it so and is taken back at the end. In real arithmetic
the network is the same.

A question about some labels only, "may a target win against all others?", is such a maximum too:
two outputs, the largest logit of the others and the largest of the targets.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy import sparse

from robustlib.bounds import Box, interval_step
from robustlib.network import Affine, MaxPool, Network, ReLU, Step


def without_max_pooling(network: Network, box: Box) -> Network:
    """The same function on ``box`` with ReLUs in place of every maximum.

    >>> pool = MaxPool(np.array([[0, 1, 2]]))
    >>> network = Network((pool, Affine(np.ones((2, 1)), np.zeros(2))), (3,))
    >>> same = without_max_pooling(network, Box(-np.ones(3), np.ones(3)))
    >>> same.forward(np.array([[0.25, -0.5, 0.75]]))
    array([[0.75, 0.75]])
    """
    steps: list[Step] = []
    for step in network.steps:
        if isinstance(step, MaxPool):
            windows = [window[window >= 0].tolist() for window in step.windows]
            steps += largest(windows, box)
        else:
            steps.append(step)
        box = interval_step(step, box)
    return Network(tuple(steps), network.input_shape)


def two_sides(network: Network, box: Box, label: int, targets: Sequence[int]) -> Network:
    """Two outputs on ``box``: the largest logit that is no target, and the largest of ``targets``.

    ``label`` (no target) comes first in the tournament: where it beats the others by far, the
    ReLUs behind it stay inactive.
    """
    for step in network.steps:
        box = interval_step(step, box)
    others = [j for j in range(network.classes) if j not in targets and j != label]
    steps = largest([[label, *others], list(targets)], box)
    return Network((*network.steps, *steps), network.input_shape)


def largest(groups: Sequence[Sequence[int]], box: Box) -> list[Step]:
    """Steps from values z in ``box`` to max z_i over each group of indices."""
    # one more than needed: rounding of the bounds must not make a carried value look open
    shift = np.array([box.lower[list(group)].min() - 1.0 for group in groups])
    steps: list[Step] = []
    # each value still in the game as the indices whose sum it is, and at first less its shift
    players = [[[i] for i in group] for group in groups]
    size, bias = len(box.lower), -shift
    while not steps or max(len(group) for group in players) > 1:
        entries: list[tuple[int, int, float]] = []
        offsets: list[float] = []
        following = []
        for group, start in zip(players, bias, strict=True):
            winners = []
            for a, b in zip(group[::2], [*group[1::2], None], strict=False):
                row = len(offsets)
                winners.append([row] if b is None else [row, row + 1])
                entries += [(row, i, 1.0) for i in a]
                offsets.append(start)
                if b is not None:
                    entries += [(row + 1, i, 1.0) for i in b] + [(row + 1, i, -1.0) for i in a]
                    offsets.append(0.0)
            following.append(winners)
        steps += [_affine(entries, np.array(offsets), size), ReLU(len(offsets))]
        players, size, bias = following, len(offsets), np.zeros(len(groups))
    last = [(j, i, 1.0) for j, (winner,) in enumerate(players) for i in winner]
    return [*steps, _affine(last, shift, size)]


def _affine(entries: list[tuple[int, int, float]], bias: np.ndarray, size: int) -> Affine:
    rows, columns, values = (np.array(part) for part in zip(*entries, strict=True))
    matrix = sparse.csr_array((values, (rows, columns)), shape=(len(bias), size))
    return Affine(matrix, bias)
