"""The quantities of `robustlib.theory.gaussian`, estimated from samples instead of formulas."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
import torch
from numpy.typing import ArrayLike

from robustlib import checks
from robustlib.theory.gaussian import _admissible
from robustlib.theory.matrices import Array, numbers, spectrum, vector

CHUNK = 2**16  # samples held in memory at once


@dataclass(frozen=True)
class MonteCarlo:
    """A mean over independent samples, with its standard error.

    Attributes
    ----------
    value : float
        The mean.
    standard_error : float
        The samples' standard deviation over the square root of ``n``.
    n : int
        The number of samples.
    """

    value: float
    standard_error: float
    n: int

    @classmethod
    def of(cls, samples: ArrayLike) -> MonteCarlo:
        """The result for these samples, at least two independent draws of one quantity.

        >>> MonteCarlo.of([1.0, 2.0, 3.0, 2.0]).value
        2.0
        """
        drawn = numbers("samples", samples, 1)
        n = checks.count("number of samples", len(drawn), low=2)
        return cls(float(drawn.mean()), float(drawn.std(ddof=1) / math.sqrt(n)), n)

    def interval(self, level: float = 0.95) -> tuple[float, float]:
        """The normal confidence interval (low, high) at ``level``.

        >>> low, high = MonteCarlo(value=4.0, standard_error=0.01, n=1000).interval()
        >>> round(low, 4), round(high, 4)
        (3.9804, 4.0196)
        """
        level = checks.number("level", level, low=0, high=1, strict=True)
        half = NormalDist().inv_cdf((1 + level) / 2) * self.standard_error
        return self.value - half, self.value + half


def sample(
    mean: ArrayLike, cov: ArrayLike, n: int, *, generator: torch.Generator | None = None
) -> tuple[Array, Array]:
    """Draw labeled inputs of the Gaussian model: y ~ U{−1, +1}, x ~ N(y μ*, Σ*).

    Parameters
    ----------
    mean : array_like, (d,)
    cov : array_like, (d, d)
    n : int
        Number of samples.
    generator : torch.Generator, optional
        Source of randomness; torch's default generator if none is given.

    Returns
    -------
    x : ndarray, (n, d)
    y : ndarray, (n,)
        Labels −1.0 and +1.0.

    Examples
    --------
    >>> x, y = sample([7.5, 1.5], np.diag([25.0, 1.0]), 4, generator=torch.Generator())
    >>> x.shape, y.shape
    ((4, 2), (4,))
    """
    values, vectors = spectrum("cov", cov)
    mean = vector("mean", mean, len(values))
    n = checks.count("n", n)
    checks.generator(generator)
    y = 2.0 * torch.randint(2, (n,), generator=generator).numpy() - 1.0
    return y[:, None] * mean + _noise(n, values, vectors, generator), y


def simulate_vulnerability(
    cov: ArrayLike, penalty: float, n: int, *, generator: torch.Generator | None = None
) -> MonteCarlo:
    r"""Estimate `adversarial_vulnerability` by attacking ``n`` samples.

    For each :math:`z \sim N(0, \Sigma^*)` the perturbation :math:`(C\Sigma^* - I)^{-1}z` is added
    and the rise of the quadratic form is measured.

    Parameters
    ----------
    cov : array_like, (d, d)
    penalty : float
        :math:`C`, above one over the smallest eigenvalue of ``cov``.
    n : int
        Number of samples, at least 2.
    generator : torch.Generator, optional

    Returns
    -------
    MonteCarlo

    Examples
    --------
    >>> cov = np.diag([0.5, 1.0, 2.5])
    >>> seeded = torch.Generator().manual_seed(1)
    >>> low, high = simulate_vulnerability(cov, 4.0, 20_000, generator=seeded).interval()
    >>> bool(low < 4.0123 < high)
    True
    """
    values, vectors = spectrum("cov", cov)
    penalty = _admissible(penalty, values)
    n = checks.count("n", n, low=2)
    checks.generator(generator)
    precision = (vectors / values) @ vectors.T
    attack = np.linalg.inv(penalty * (vectors * values) @ vectors.T - np.eye(len(values)))
    rises = []
    for size in _chunks(n):
        z = _noise(size, values, vectors, generator)
        attacked = z + z @ attack
        rises.append(np.sum(attacked @ precision * attacked - z @ precision * z, axis=1))
    return MonteCarlo.of(np.concatenate(rises))


def simulate_correct(
    weights: ArrayLike,
    mean: ArrayLike,
    cov: ArrayLike,
    n: int,
    *,
    eps: float = 0.0,
    norm: str = "2",
    generator: torch.Generator | None = None,
) -> int:
    """Attack ``n`` samples of a linear classifier and count those that stay correct.

    The attack is the exact worst case, −ε y w/‖w‖₂ or −ε y sign(w).

    Parameters
    ----------
    weights, mean : array_like, (d,)
    cov : array_like, (d, d)
        Covariance of each class.
    n : int
        Number of samples.
    eps : float
        Radius of the perturbations in ``norm``.
    norm : {"2", "inf"}
    generator : torch.Generator, optional

    Returns
    -------
    int
        Correct predictions out of ``n``; divided by ``n`` it estimates `linear_accuracy`.

    Examples
    --------
    >>> seeded = torch.Generator().manual_seed(0)
    >>> simulate_correct([1, 0], [7.5, 1.5], np.diag([25.0, 1.0]), 1000, generator=seeded)
    948
    """
    values, _ = spectrum("cov", cov)
    weights = vector("weights", weights, len(values))
    norm = checks.choice("norm", norm, ["2", "inf"])
    direction = weights / np.linalg.norm(weights) if norm == "2" else np.sign(weights)
    eps = checks.eps(eps)
    correct = 0
    for size in _chunks(checks.count("n", n)):
        x, y = sample(mean, cov, size, generator=generator)
        attacked = x - eps * y[:, None] * direction
        correct += int(np.sum(y * (attacked @ weights) > 0))
    return correct


def _noise(n: int, values: Array, vectors: Array, generator: torch.Generator | None) -> Array:
    """Samples (n, d) of a Gaussian with mean zero and this spectrum."""
    normal = torch.randn(n, len(values), dtype=torch.float64, generator=generator).numpy()
    noise: Array = normal * np.sqrt(values) @ vectors.T
    return noise


def _chunks(n: int) -> Iterator[int]:
    """Sizes that add up to ``n``, none above `CHUNK`."""
    for start in range(0, n, CHUNK):
        yield min(CHUNK, n - start)
