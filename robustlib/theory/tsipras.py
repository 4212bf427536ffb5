"""The data model of Tsipras et al. (2019), section 2: one robust feature and many weak ones.

A label y is −1 or +1 with equal chances. The first feature is y with probability p and −y
otherwise; the d others are drawn from N(η y, 1), all independently (eq. 3). The adversary moves
every feature by up to ε (l∞). A linear classifier predicts sign(wᵀx); a tie counts as an error.

Arguments: ``dim`` is d, so that inputs and weights have d + 1 entries; ``p`` lies in [½, 1];
``eta`` is η, not negative.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import ndtr

from robustlib import checks
from robustlib.theory.draws import chunks, signs, source, stays_correct
from robustlib.theory.matrices import Array, numbers


def sample(
    dim: int, n: int, *, p: float, eta: float, generator: np.random.Generator | None = None
) -> tuple[Array, Array]:
    """Draw labeled inputs of the model (eq. 3).

    Parameters
    ----------
    dim : int
        Number d of weak features.
    n : int
        Number of samples.
    p : float
        Probability, in [½, 1], that the first feature is the label.
    eta : float
        Mean η of the weak features of class +1.
    generator : numpy.random.Generator, optional
        Source of randomness; a fresh one if none is given.

    Returns
    -------
    x : ndarray, (n, d + 1)
    y : ndarray, (n,)
        Labels −1.0 and +1.0.

    Examples
    --------
    >>> x, y = sample(3, 2, p=0.9, eta=0.5, generator=np.random.default_rng(0))
    >>> x.shape, y
    ((2, 4), array([-1.,  1.]))
    """
    dim, n = checks.count("dim", dim), checks.count("n", n)
    p, eta = _model(p, eta)
    rng = source(generator)
    y = signs(n, rng)
    x = np.empty((n, dim + 1))
    x[:, 0] = np.where(rng.random(n) < p, y, -y)
    x[:, 1:] = eta * y[:, None] + rng.standard_normal((n, dim))
    return x, y


def average_weights(dim: int) -> Array:
    """The classifier that averages the weak features and ignores the robust one (eq. 4).

    Its standard accuracy is Φ(η√d), above 99 % from η = 3/√d on; its robust accuracy is
    Φ((η − ε)√d), below 1 % at ε = 2η.

    Parameters
    ----------
    dim : int
        Number d of weak features.

    Returns
    -------
    ndarray, (d + 1,)

    Examples
    --------
    >>> average_weights(4)
    array([0.  , 0.25, 0.25, 0.25, 0.25])
    >>> f"{linear_accuracy(average_weights(100), p=0.95, eta=0.3):.4f}"
    '0.9987'
    >>> f"{linear_accuracy(average_weights(100), p=0.95, eta=0.3, eps=0.6):.4f}"
    '0.0013'
    """
    dim = checks.count("dim", dim)
    return np.concatenate([[0.0], np.full(dim, 1 / dim)])


def robust_weights(dim: int) -> Array:
    """The classifier that uses the robust feature alone: accuracy p, against every ε < 1 too.

    Examples
    --------
    >>> robust_weights(3)
    array([1., 0., 0., 0.])
    >>> linear_accuracy(robust_weights(3), p=0.95, eta=0.3, eps=0.99)
    0.95
    """
    dim = checks.count("dim", dim)
    return np.concatenate([[1.0], np.zeros(dim)])


def bayes_weights(dim: int, *, p: float, eta: float) -> Array:
    r"""The classifier with the highest standard accuracy of all, which is linear.

    The log-odds of the label are :math:`x_1\log\frac p{1-p} + 2\eta\sum_{i\ge2}x_i`; the weights
    are half of these.

    Parameters
    ----------
    dim : int
    p : float
        Below 1: at 1 the first feature is the label and its weight infinite.
    eta : float

    Returns
    -------
    ndarray, (d + 1,)

    Examples
    --------
    >>> bayes_weights(2, p=0.9, eta=0.5).round(4)
    array([1.0986, 0.5   , 0.5   ])
    """
    dim = checks.count("dim", dim)
    p, eta = _model(p, eta)
    return np.concatenate([[math.log(p / _below_one(p)) / 2], np.full(dim, eta)])


def linear_accuracy(weights: ArrayLike, *, p: float, eta: float, eps: float = 0.0) -> float:
    r"""Accuracy of sign(wᵀx) against every l∞ perturbation up to ``eps``, exactly.

    The adversary lowers the margin :math:`y\,w^\top x` by :math:`\varepsilon\|w\|_1`, for every
    sample. Given whether the first feature agrees with the label, the margin is Gaussian:

    .. math:: p\,\Phi\Big(\frac{m + w_1}s\Big) + (1-p)\,\Phi\Big(\frac{m - w_1}s\Big),
              \qquad m = \eta\sum_{i\ge2}w_i - \varepsilon\|w\|_1,\quad
              s^2 = \sum_{i\ge2}w_i^2 .

    With :math:`s = 0` each :math:`\Phi` becomes 1 for a positive margin and 0 otherwise.

    Parameters
    ----------
    weights : array_like, (d + 1,)
        Not all zero; the weight of the robust feature comes first.
    p, eta : float
    eps : float
        Radius in the l∞ norm, in the unit of x; 0 is standard accuracy.

    Returns
    -------
    float
        A probability.

    Raises
    ------
    ValueError
        Weights that are all zero or fewer than two, p outside [½, 1], negative eta or eps.

    Examples
    --------
    >>> round(linear_accuracy([1.0, 0.5, 0.5], p=0.9, eta=1.0), 4)
    0.9479
    >>> round(linear_accuracy([1.0, 0.5, 0.5], p=0.9, eta=1.0, eps=0.5), 4)
    0.8371
    """
    given = _weights(weights)
    scaled: Array = given / np.abs(given).max()  # squares of very small ones would vanish
    p, eta = _model(p, eta)
    mean = eta * scaled[1:].sum() - checks.eps(eps) * np.abs(scaled).sum()
    margins = np.array([mean + scaled[0], mean - scaled[0]])
    spread = np.linalg.norm(scaled[1:])
    correct = ndtr(margins / spread) if spread > 0 else (margins > 0).astype(float)
    return float(p * correct[0] + (1 - p) * correct[1])


def simulate_correct(
    weights: ArrayLike,
    n: int,
    *,
    p: float,
    eta: float,
    eps: float = 0.0,
    generator: np.random.Generator | None = None,
) -> int:
    """Attack ``n`` samples of a linear classifier and count those that stay correct.

    The attack is the exact worst case, −ε y sign(w), added to the samples.

    Parameters
    ----------
    weights : array_like, (d + 1,)
    n : int
        Number of samples.
    p, eta, eps : float
        As in `linear_accuracy`.
    generator : numpy.random.Generator, optional

    Returns
    -------
    int
        Correct predictions out of ``n``; divided by ``n`` it estimates `linear_accuracy`.

    Examples
    --------
    >>> seeded = np.random.default_rng(0)
    >>> simulate_correct([1.0, 0.0], 1000, p=0.9, eta=0.5, eps=0.5, generator=seeded)
    897
    """
    weights = _weights(weights)
    n, eps, rng = checks.count("n", n), checks.eps(eps), source(generator)
    dim = len(weights) - 1
    return sum(
        stays_correct(weights, *sample(dim, size, p=p, eta=eta, generator=rng), eps)
        for size in chunks(n, dim + 1)
    )


def robust_accuracy_bound(accuracy: float, *, p: float) -> float:
    r"""No classifier with this standard accuracy is more robust than this (Theorem 2.1).

    For every classifier, linear or not, of standard accuracy :math:`1-\delta`, and every
    :math:`\varepsilon \ge 2\eta`,

    .. math:: \text{robust accuracy} \le \frac p{1-p}\,\delta .

    It also is at most the standard accuracy itself; both limits meet in :math:`p`, where the
    robust feature alone attains them. Here :math:`\tfrac12 \le p < 1`. Below :math:`2\eta` the
    adversary cannot give the weak features the law of the other class and the bound fails: with
    η√d large, their average is accurate and robust for every ε < η.

    Parameters
    ----------
    accuracy : float
        Standard accuracy 1 − δ, in [0, 1].
    p : float
        In [½, 1).

    Returns
    -------
    float
        Largest robust accuracy at ε ≥ 2η.

    Examples
    --------
    >>> round(robust_accuracy_bound(0.99, p=0.95), 12), robust_accuracy_bound(0.95, p=0.95)
    (0.19, 0.95)
    """
    accuracy = checks.number("accuracy", accuracy, low=0, high=1)
    p, _ = _model(p, 0.0)
    odds = p / _below_one(p)
    return min(accuracy, odds * (1 - accuracy))


def _model(p: float, eta: float) -> tuple[float, float]:
    return checks.number("p", p, low=0.5, high=1), checks.number("eta", eta, low=0)


def _below_one(p: float) -> float:
    """1 − p, if it is not zero."""
    if p == 1:
        raise ValueError("p=1 is out of range: give a probability of at least 0.5 and below 1.")
    return 1 - p


def _weights(value: ArrayLike) -> Array:
    weights = numbers("weights", value, 1)
    if len(weights) < 2:
        raise ValueError(
            f"weights has shape {weights.shape}; give one weight for the robust feature and at "
            "least one for the weak ones: (d + 1,)."
        )
    if not weights.any():
        raise ValueError("weights is the zero vector; give a vector with a direction.")
    return weights
