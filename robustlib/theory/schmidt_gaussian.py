"""The Gaussian model of Schmidt et al. (2018): robust learning takes more samples.

A label y is −1 or +1 with equal chances and an input is drawn from N(y θ*, σ² I) in d dimensions,
with ‖θ*‖₂ = √d in the theorems. The learner knows n labeled samples and predicts sign(wᵀx); the
adversary moves every coordinate by up to ε (l∞). Theorem and lemma numbers are those of
arXiv:1804.11285v2.

The formulas for the error of given weights hold for every θ*; the bounds take only the dimension.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import ndtr

from robustlib import checks
from robustlib.theory.curves import SampleSizeCurve, sample_size_curve
from robustlib.theory.draws import chunks, labeled, signs, source, stays_correct
from robustlib.theory.matrices import Array, numbers, vector

LARGEST_NOISE = 1 / 32  # of d^¼, Corollary 22


def sample(
    theta: ArrayLike, n: int, *, sigma: float, generator: np.random.Generator | None = None
) -> tuple[Array, Array]:
    """Draw labeled inputs: y ~ U{−1, +1}, x ~ N(y θ*, σ² I).

    Parameters
    ----------
    theta : array_like, (d,)
        Mean θ* of class +1.
    n : int
        Number of samples.
    sigma : float
        Standard deviation σ of every coordinate, positive.
    generator : numpy.random.Generator, optional
        Source of randomness; a fresh one if none is given.

    Returns
    -------
    x : ndarray, (n, d)
    y : ndarray, (n,)
        Labels −1.0 and +1.0.

    Examples
    --------
    >>> x, y = sample(np.ones(4), 3, sigma=0.5, generator=np.random.default_rng(0))
    >>> x.shape, y
    ((3, 4), array([-1.,  1.,  1.]))
    """
    theta, n, rng = _mean(theta), checks.count("n", n), source(generator)
    sigma = _noise(sigma)
    y = signs(n, rng)
    return y[:, None] * theta + sigma * rng.standard_normal((n, len(theta))), y


def mean_weights(x: ArrayLike, y: ArrayLike) -> Array:
    r"""The paper's learner: :math:`\hat w = \bar z/\|\bar z\|_2` with :math:`\bar z` the mean of
    :math:`y_i x_i`.

    Parameters
    ----------
    x : array_like, (n, d)
    y : array_like, (n,)
        Labels −1 and +1.

    Returns
    -------
    ndarray, (d,)
        A unit vector.

    Examples
    --------
    >>> mean_weights([[3.0, 4.0], [-3.0, -4.0]], [1, -1])
    array([0.6, 0.8])
    """
    x, y = labeled(x, y)
    mean = vector("the mean of y x", y @ x / len(y), x.shape[1])
    return mean / float(np.linalg.norm(mean))


def robust_weights(theta: ArrayLike, eps: float) -> Array:
    r"""The linear classifier with the smallest l∞-robust error for a known mean.

    :math:`w_i = \operatorname{sign}(\theta_i)\max(0, |\theta_i| - \varepsilon)`: the maximizer of
    :math:`(w^\top\theta - \varepsilon\|w\|_1)/\|w\|_2`, by Cauchy–Schwarz on the coordinates above
    ε. Its robust error is :math:`\Phi(-\|w\|_2/\sigma)`. Not in the paper: it shows what is left
    of the error when samples are no longer the limit.

    Parameters
    ----------
    theta : array_like, (d,)
    eps : float
        Below the largest :math:`|\theta_i|`; from there on no linear classifier is right more
        often than wrong.

    Returns
    -------
    ndarray, (d,)

    Examples
    --------
    >>> robust_weights([2.0, -1.0, 0.25], 0.5)
    array([ 1.5, -0.5,  0. ])
    """
    theta, eps = _mean(theta), checks.eps(eps)
    if eps >= np.abs(theta).max():
        raise ValueError(
            f"eps={eps:g} is out of range: the largest entry of theta is {np.abs(theta).max():g} "
            "in size, and no linear classifier withstands that. Give a smaller eps."
        )
    return np.sign(theta) * np.maximum(np.abs(theta) - eps, 0)


def linear_error(
    weights: ArrayLike, theta: ArrayLike, *, sigma: float, eps: float = 0.0, norm: str = "inf"
) -> float:
    r"""Error of sign(wᵀx) under every perturbation up to ``eps``, exactly.

    .. math:: P[\min_{\|\delta\|\le\varepsilon} y\,w^\top(x+\delta) \le 0]
              = \Phi\Big(\frac{\varepsilon\|w\|_* - w^\top\theta^*}{\sigma\|w\|_2}\Big)

    with the dual norm :math:`\|w\|_*`, for l∞ the l1 norm. The same as
    ``1 - theory.linear_accuracy(w, theta, sigma**2 * np.eye(d))``, without the matrix.

    Parameters
    ----------
    weights, theta : array_like, (d,)
    sigma : float
    eps : float
        Radius in ``norm``, in the unit of x; 0 is standard error.
    norm : {"inf", "2"}

    Returns
    -------
    float
        A probability.

    Examples
    --------
    >>> theta = np.ones(100)
    >>> round(linear_error(theta, theta, sigma=5.0), 4)  # Φ(−2)
    0.0228
    >>> round(linear_error(theta, theta, sigma=5.0, eps=0.5), 4)  # Φ(−1)
    0.1587
    """
    return float(ndtr(-_margin(weights, theta, eps, norm) / _noise(sigma)))


def error_bound(
    weights: ArrayLike, theta: ArrayLike, *, sigma: float, eps: float = 0.0, norm: str = "inf"
) -> float:
    r"""The paper's bound on `linear_error` (Lemma 20).

    .. math:: \exp\Big(-\frac{(\hat w^\top\theta^* - \varepsilon\|\hat w\|_*)^2}{2\sigma^2}\Big),
              \qquad \hat w = w/\|w\|_2,

    where the difference is not negative, and 1 elsewhere, where the lemma says nothing.

    Parameters
    ----------
    weights, theta, sigma, eps, norm
        As in `linear_error`.

    Returns
    -------
    float

    Examples
    --------
    >>> theta = np.ones(100)
    >>> round(error_bound(theta, theta, sigma=5.0), 4)  # exp(−2)
    0.1353
    """
    margin = max(0.0, _margin(weights, theta, eps, norm))
    return math.exp(-((margin / _noise(sigma)) ** 2) / 2)


def simulate_correct(
    weights: ArrayLike,
    theta: ArrayLike,
    n: int,
    *,
    sigma: float,
    eps: float = 0.0,
    generator: np.random.Generator | None = None,
) -> int:
    """Attack ``n`` samples of a linear classifier in the l∞ norm; count those that stay correct.

    Parameters
    ----------
    weights, theta : array_like, (d,)
    n : int
        Number of samples.
    sigma, eps : float
        As in `linear_error`.
    generator : numpy.random.Generator, optional

    Returns
    -------
    int
        Correct predictions out of ``n``; divided by ``n`` it estimates 1 − `linear_error`.

    Examples
    --------
    >>> seeded = np.random.default_rng(0)
    >>> simulate_correct([1, 1], [1, 1], 1000, sigma=1.0, eps=0.5, generator=seeded)
    768
    """
    theta = _mean(theta)
    weights = vector("weights", weights, len(theta), asked_by="theta")
    n, eps, rng = checks.count("n", n), checks.eps(eps), source(generator)
    return sum(
        stays_correct(weights, *sample(theta, size, sigma=sigma, generator=rng), eps)
        for size in chunks(n, len(theta))
    )


def alignment_bound(n: int, *, sigma: float) -> float:
    r"""What the cosine of the angle between `mean_weights` and θ* exceeds (Lemma 16).

    .. math:: \frac{\hat w^\top\theta^*}{\sqrt d} > \frac{2\sqrt n - 1}{2\sqrt n + 4\sigma}

    with probability at least one minus `failure_probability`; needs ‖θ*‖₂ = √d.

    Examples
    --------
    >>> alignment_bound(4, sigma=1.0)
    0.375
    """
    root = 2 * math.sqrt(checks.count("n", n))
    return (root - 1) / (root + 4 * _noise(sigma))


def failure_probability(dim: int, *, sigma: float) -> float:
    r"""How often, at most, the training set is a bad one: :math:`2\exp(-d/(8(\sigma^2+1)))`.

    The chance with which Lemma 16, Theorem 21 and Corollary 22 may fail; above 1 they say nothing.

    Examples
    --------
    >>> round(failure_probability(100, sigma=1.0), 6)
    0.003861
    """
    return 2 * math.exp(-checks.count("dim", dim) / (8 * (_noise(sigma) ** 2 + 1)))


def robust_radius(n: int, dim: int, *, sigma: float, error: float) -> float:
    r"""A radius up to which ``n`` samples suffice for a robust error (Theorem 21).

    .. math:: \varepsilon \le \frac{2\sqrt n - 1}{2\sqrt n + 4\sigma}
              - \frac{\sigma\sqrt{2\log(1/\beta)}}{\sqrt d}

    implies, but for `failure_probability`, that `mean_weights` have l∞-robust error at most β.

    Parameters
    ----------
    n, dim : int
        Training samples and dimension d.
    sigma : float
    error : float
        β, positive and at most 1.

    Returns
    -------
    float
        The largest such ε; negative where the theorem promises nothing, standard error included.

    Examples
    --------
    >>> round(robust_radius(100, 10_000, sigma=5 / 16, error=0.01), 4)
    0.8846
    """
    error = checks.number("error", error, low=0, high=1, strict=True)
    dim = checks.count("dim", dim)
    loss = _noise(sigma) * math.sqrt(2 * math.log(1 / error) / dim)
    return alignment_bound(n, sigma=sigma) - loss


def sufficient_samples(dim: int, *, sigma: float, eps: float) -> int:
    r"""Samples that suffice for a robust error of 1 % (Theorem 5, Corollary 22).

    With :math:`\sigma \le \frac1{32}d^{1/4}` one sample suffices for
    :math:`\varepsilon\le\frac14d^{-1/4}`, standard error (ε = 0) included, and
    :math:`64\,\varepsilon^2\sqrt d` for ε between that and ¼, but for `failure_probability`.

    Parameters
    ----------
    dim : int
    sigma : float
        At most d^¼/32.
    eps : float
        At most ¼.

    Returns
    -------
    int

    Raises
    ------
    ValueError
        Noise or a radius for which the corollary promises nothing.

    Examples
    --------
    >>> [sufficient_samples(10_000, sigma=0.3, eps=eps) for eps in (0.0, 0.1, 0.2)]
    [1, 64, 256]
    """
    dim = checks.count("dim", dim)
    checks.number("sigma", _noise(sigma), high=LARGEST_NOISE * dim**0.25)
    eps = checks.number("eps", eps, low=0, high=0.25)
    if eps <= dim**-0.25 / 4:
        return 1
    return max(1, math.ceil(64 * eps**2 * math.sqrt(dim) * (1 - 1e-12)))


def least_error(n: int, dim: int, *, sigma: float, eps: float) -> float:
    r"""No learner of any kind has a smaller robust error than this on average (Theorem 11).

    .. math:: \tfrac12\,P\big[\|v\|_\infty \le \varepsilon\sqrt{(\sigma^2+n)/n}\big]
              = \tfrac12\big(2\Phi(\varepsilon\sqrt{1+\sigma^2/n}) - 1\big)^d ,
              \qquad v \sim N(0, I),

    is at most the expected l∞-robust error when θ* itself is drawn from N(0, I). Given the samples
    θ* is Gaussian around :math:`\mu' = \frac n{n+\sigma^2}\bar z`; an adversary who may move by
    :math:`-y\mu'` leaves an input that says nothing about its label, and :math:`\mu'` has
    variance :math:`n/(n+\sigma^2)` in every coordinate.

    Parameters
    ----------
    n, dim : int
    sigma, eps : float

    Returns
    -------
    float
        In [0, ½].

    Examples
    --------
    >>> round(least_error(1, 10_000, sigma=6.0, eps=0.7), 4)
    0.4068
    >>> least_error(10, 10_000, sigma=6.0, eps=0.7) < 1e-9
    True
    """
    n, dim = checks.count("n", n), checks.count("dim", dim)
    reach = checks.eps(eps) * math.sqrt((1 + _noise(sigma) ** 2 / n) / 2)
    inside = math.erf(reach)
    if inside < 0.5:
        return 0.5 * inside**dim
    return 0.5 * math.exp(dim * math.log1p(-math.erfc(reach)))


def necessary_samples(dim: int, *, sigma: float, eps: float) -> float:
    r"""With at most this many samples every learner fails (Theorem 6, Corollary 23).

    For :math:`n \le \varepsilon^2\sigma^2/(8\log d)` the expected robust error of any learner,
    with θ* from N(0, I), is at least :math:`\tfrac12(1 - \tfrac1d)`. It follows from
    Theorem 11 and is far from tight: at :math:`\sigma = d^{1/4}/32` and ε = ¼ it is below 1, where
    it says nothing, up to d = 10¹³. `least_error` says more.

    Parameters
    ----------
    dim : int
        At least 2.
    sigma, eps : float

    Returns
    -------
    float

    Examples
    --------
    >>> round(necessary_samples(10_000, sigma=10.0, eps=0.9), 4)
    1.0993
    """
    dim = checks.count("dim", dim, low=2)
    return (checks.eps(eps) * _noise(sigma)) ** 2 / (8 * math.log(dim))


def error_curve(
    theta: ArrayLike,
    *,
    sigma: float,
    n: ArrayLike,
    eps: ArrayLike,
    trials: int = 50,
    level: float = 0.95,
    generator: np.random.Generator | None = None,
) -> SampleSizeCurve:
    r"""Robust error of `mean_weights` against the number of training samples.

    In each trial the mean of n samples is drawn, from :math:`N(\theta^*, \frac{\sigma^2}n I)`
    and thus at a cost that does not grow with n; its error is exact (`linear_error`).

    Parameters
    ----------
    theta : array_like, (d,)
    sigma : float
    n : array_like, (k,)
        Numbers of training samples.
    eps : array_like, (m,)
        Radii in the l∞ norm.
    trials : int
        Training sets for each n.
    level : float
        Coverage of the intervals.
    generator : numpy.random.Generator, optional

    Returns
    -------
    SampleSizeCurve

    Examples
    --------
    >>> seeded = np.random.default_rng(0)
    >>> curve = error_curve(
    ...     np.ones(400), sigma=2.5, n=[1, 8, 64], eps=[0.0, 0.4], generator=seeded
    ... )
    >>> curve.mean.round(3)
    array([[0.002, 0.335],
           [0.   , 0.001],
           [0.   , 0.   ]])
    >>> curve.samples_for(0.01)
    array([1., 8.])
    """
    theta, sigma, rng = _mean(theta), _noise(sigma), source(generator)
    trials = checks.count("trials", trials, low=2)

    def errors(size: int, radii: Array) -> Array:
        rows = []
        for part in chunks(trials, len(theta)):
            mean = theta + sigma / math.sqrt(size) * rng.standard_normal((part, len(theta)))
            along, size_1 = mean @ theta, np.abs(mean).sum(axis=1)
            margins = along[:, None] - size_1[:, None] * radii
            rows.append(ndtr(-margins / (sigma * np.linalg.norm(mean, axis=1)[:, None])))
        return np.concatenate(rows)

    return sample_size_curve(errors, n=n, eps=eps, trials=trials, level=level)


def _margin(weights: ArrayLike, theta: ArrayLike, eps: float, norm: str) -> float:
    """Mean of the worst margin of the weights scaled to norm 1."""
    theta = _mean(theta)
    weights = vector("weights", weights, len(theta), asked_by="theta")
    dual = {"2": 2, "inf": 1}[checks.choice("norm", norm, ["inf", "2"])]
    unit = weights / np.abs(weights).max()  # squares of very small ones would vanish
    unit /= np.linalg.norm(unit)
    return float(unit @ theta - checks.eps(eps) * np.linalg.norm(unit, dual))


def _mean(theta: ArrayLike) -> Array:
    theta = numbers("theta", theta, 1)
    return vector("theta", theta, len(theta))


def _noise(sigma: float) -> float:
    return checks.number("sigma", sigma, low=0, strict=True)
