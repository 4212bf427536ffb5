"""What the simulations of Tsipras et al. and Schmidt et al. share: labels, chunks, intervals."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from robustlib.theory.matrices import Array, numbers

CHUNK = 2**22  # numbers held in memory at once


def source(value: Any, argument: str = "generator") -> np.random.Generator:
    """A source of random numbers of numpy; None is a fresh one, seeded by the system.

    >>> source(np.random.default_rng(0)).integers(10)
    np.int64(8)
    """
    if value is None:
        return np.random.default_rng()
    if not isinstance(value, np.random.Generator):
        raise TypeError(
            f"{argument}={value!r} is not a numpy.random.Generator; give for example "
            "numpy.random.default_rng(0), or None for a fresh one."
        )
    return value


def signs(n: int, generator: np.random.Generator) -> Array:
    """``n`` labels, −1.0 and +1.0 with equal chances."""
    drawn: Array = np.where(generator.random(n) < 0.5, 1.0, -1.0)
    return drawn


def chunks(n: int, dim: int) -> Iterator[int]:
    """Sizes that add up to ``n``, so that a chunk of ``dim`` coordinates fits into `CHUNK`."""
    size = max(1, CHUNK // dim)
    for start in range(0, n, size):
        yield min(size, n - start)


def labeled(x: ArrayLike, y: ArrayLike) -> tuple[Array, Array]:
    """Samples (n, d) and their labels (n,), each −1 or +1."""
    x = numbers("x", x, 2)
    y = numbers("y", y, 1)
    if y.shape != (len(x),) or not np.isin(y, (-1, 1)).all():
        raise ValueError(
            f"y has shape {y.shape}; give one label, −1 or +1, per sample: ({len(x)},)."
        )
    return x, y


def stays_correct(weights: Array, x: Array, y: Array, eps: float) -> int:
    """How many samples sign(wᵀx) still gets right after the worst l∞ perturbation of each.

    The perturbation −ε y sign(w) is added to the sample itself. A tie counts as an error; what
    rounding leaves of one must not count as a margin.
    """
    attacked = x - eps * y[:, None] * np.sign(weights)
    size = float(np.abs(weights).sum()) * (1 + eps + float(np.abs(x).max()))
    slack = math.sqrt(len(weights)) * np.finfo(float).eps * size
    return int(np.sum(y * (attacked @ weights) > slack))
