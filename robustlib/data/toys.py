"""Toy data in the plane, for pictures of what a network does."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from robustlib import checks

ARCH_RADIUS = 0.36
ARCH_ANGLE = 1.5 * np.pi  # how far round the arch goes; it is open at the bottom
NOISE = 0.03


def two_class(n: int = 160, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Points of an arch (class 0) and of a pillar that stands inside it (class 1).

    No straight line separates the two, eight ReLU units do, and the boundary that they draw has
    corners: what the chapter on linear regions needs.

    Parameters
    ----------
    n : number of points; the classes take turns, so both have n/2 (class 0 one more if n is odd).
    seed : 0, 1, …; the same seed gives the same points.

    Returns
    -------
    x : Tensor (n, 2) float32 in [0, 1]
    y : Tensor (n,) int64, 0 or 1

    Raises
    ------
    TypeError, ValueError
        If ``n`` is not a whole number of at least 1 or ``seed`` not one of at least 0.

    Examples
    --------
    >>> x, y = two_class(4)
    >>> x.shape, y.tolist()
    (torch.Size([4, 2]), [0, 1, 0, 1])
    """
    n, seed = checks.count("n", n), checks.count("seed", seed, low=0)
    rng = np.random.default_rng(seed)
    along, noise = rng.random(n), NOISE * rng.standard_normal((n, 2))
    y = np.arange(n) % 2
    angle = np.pi / 2 + ARCH_ANGLE * (along - 0.5)
    arch = np.stack([0.5 + ARCH_RADIUS * np.cos(angle), 0.45 + ARCH_RADIUS * np.sin(angle)], axis=1)
    pillar = np.stack([0.5 + 0.05 * np.sin(2 * np.pi * along), 0.12 + 0.42 * along], axis=1)
    x = np.where(y[:, None] == 0, arch, pillar) + noise
    return torch.from_numpy(np.clip(x, 0.0, 1.0).astype(np.float32)), torch.from_numpy(y)
