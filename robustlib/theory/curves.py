"""Error against the number of training samples: means over trials, with their intervals."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import stdtrit

from robustlib import checks
from robustlib.theory.matrices import Array, numbers


@dataclass(frozen=True)
class SampleSizeCurve:
    """Mean error of a learner for several sample sizes k and radii m.

    Attributes
    ----------
    n : ndarray, (k,)
        Numbers of training samples, ascending.
    eps : ndarray, (m,)
        Radii of the perturbations in the l∞ norm; 0 is standard error.
    mean : ndarray, (k, m)
        Mean error over the trials. In each trial the error of the learned classifier is computed,
        not sampled; only the training samples are random.
    low, high : ndarray, (k, m)
        Student's t interval for the mean, cut to [0, 1].
    trials : int
        Number of training sets that were drawn for each n.
    """

    n: Array
    eps: Array
    mean: Array
    low: Array
    high: Array
    trials: int

    def samples_for(self, error: float) -> Array:
        """The smallest n of the curve from which on the mean error is at most ``error``.

        Parameters
        ----------
        error : float
            In [0, 1].

        Returns
        -------
        ndarray, (m,)
            One number per radius; nan where the largest n is not enough.

        Examples
        --------
        >>> mean = np.array([[0.2, 0.5], [0.01, 0.3]])
        >>> n, eps = np.array([1.0, 10.0]), np.array([0.0, 0.1])
        >>> SampleSizeCurve(n, eps, mean, mean, mean, trials=2).samples_for(0.01)
        array([10., nan])
        """
        error = checks.number("error", error, low=0, high=1)
        enough = np.logical_and.accumulate((self.mean <= error)[::-1])[::-1]
        first = self.n[np.argmax(enough, axis=0)]
        return np.where(enough.any(axis=0), first, math.nan)


def sample_size_curve(
    errors: Callable[[int, Array], Array],
    *,
    n: ArrayLike,
    eps: ArrayLike,
    trials: int,
    level: float = 0.95,
) -> SampleSizeCurve:
    """Repeat ``errors(size, radii)``, which draws one training set after another, and average.

    Parameters
    ----------
    errors : callable
        Given a sample size and the radii (m,), the errors (trials, m) of as many classifiers.
    n : array_like, (k,)
        Sample sizes, whole numbers of at least 1.
    eps : array_like, (m,)
        Radii, not negative.
    trials : int
        How many rows ``errors`` returns, at least 2.
    level : float
        Coverage of the intervals.

    Returns
    -------
    SampleSizeCurve

    Examples
    --------
    >>> halves = sample_size_curve(
    ...     lambda size, eps: np.full((5, len(eps)), 0.5 / size), n=[1, 2], eps=[0.0], trials=5
    ... )
    >>> halves.mean.ravel()
    array([0.5 , 0.25])
    """
    sizes = np.unique([checks.count("n", int(v) if v == int(v) else v) for v in numbers("n", n, 1)])
    radii = numbers("eps", eps, 1)
    for radius in radii:
        checks.eps(radius)
    trials = checks.count("trials", trials, low=2)
    level = checks.number("level", level, low=0, high=1, strict=True)
    drawn = np.stack([errors(int(size), radii) for size in sizes])  # (k, trials, m)
    mean = drawn.mean(axis=1)
    quantile = float(stdtrit(trials - 1, (1 + level) / 2))
    half = quantile * drawn.std(axis=1, ddof=1) / math.sqrt(trials)
    low, high = np.maximum(mean - half, 0), np.minimum(mean + half, 1)
    return SampleSizeCurve(sizes.astype(float), radii, mean, low, high, trials)
