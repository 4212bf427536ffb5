"""The Bernoulli model of Schmidt et al. (2018): a threshold saves the samples.

A label y is −1 or +1 with equal chances; every coordinate of an input is y θ*ᵢ with probability
½ + τ and −y θ*ᵢ otherwise, independently, for a vector θ* of signs. One sample is enough for a
small standard error, but linear classifiers need many to withstand an adversary who moves every
coordinate by up to ε (l∞). Rounding each coordinate to its sign first undoes every ε < 1 and
brings one sample back. Theorem and lemma numbers are those of arXiv:1804.11285v2.

A tie, wᵀx = 0, counts as an error throughout.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike
from scipy import fft
from scipy.special import gammaln, ndtr, xlog1py, xlogy

from robustlib import checks
from robustlib.theory.curves import SampleSizeCurve, sample_size_curve
from robustlib.theory.draws import chunks, labeled, signs, source, stays_correct
from robustlib.theory.matrices import Array, numbers, vector

LARGEST_SUM = 10**7  # of the sizes of integer weights: 0.3 GB of probabilities
TIE = 1e-12  # of the l1 norm of the weights: margins nearer to zero than this are ties


def sample(
    theta: ArrayLike, n: int, *, tau: float, generator: np.random.Generator | None = None
) -> tuple[Array, Array]:
    """Draw labeled inputs of the model (Definition 7).

    Parameters
    ----------
    theta : array_like, (d,)
        Signs θ*, each −1 or +1.
    n : int
        Number of samples.
    tau : float
        τ, in (0, ½]: a coordinate is flipped with probability ½ − τ.
    generator : numpy.random.Generator, optional
        Source of randomness; a fresh one if none is given.

    Returns
    -------
    x : ndarray, (n, d)
        Entries −1.0 and +1.0.
    y : ndarray, (n,)
        Labels −1.0 and +1.0.

    Examples
    --------
    >>> x, y = sample([1, -1, 1], 2, tau=0.5, generator=np.random.default_rng(0))
    >>> x * y[:, None]
    array([[ 1., -1.,  1.],
           [ 1., -1.,  1.]])
    """
    theta, tau = _signs(theta), _bias(tau)
    n, rng = checks.count("n", n), source(generator)
    y = signs(n, rng)
    kept = np.where(rng.random((n, len(theta))) < 0.5 + tau, theta, -theta)
    return y[:, None] * kept, y


def sum_weights(x: ArrayLike, y: ArrayLike) -> Array:
    """The paper's learner up to a factor: the sum of y x, whole numbers.

    Parameters
    ----------
    x : array_like, (n, d)
    y : array_like, (n,)
        Labels −1 and +1.

    Returns
    -------
    ndarray, (d,)

    Examples
    --------
    >>> sum_weights([[1, -1], [1, 1]], [1, 1])
    array([2., 0.])
    """
    x, y = labeled(x, y)
    return vector("the sum of y x", y @ x, x.shape[1])


def threshold(x: ArrayLike) -> Array:
    """Round every coordinate to its sign, −1 or +1; zero becomes +1.

    Every point nearer than 1 (l∞) to an input of the model is taken back to that input.

    Examples
    --------
    >>> threshold([0.3, -0.9, 1.7])
    array([ 1., -1.,  1.])
    """
    return np.where(np.asarray(x, dtype=float) >= 0, 1.0, -1.0)


def linear_error(
    weights: ArrayLike, theta: ArrayLike, *, tau: float, eps: float = 0.0, method: str = "exact"
) -> float:
    r"""Error of sign(wᵀx) under every l∞ perturbation up to ``eps``.

    .. math:: P\Big[\sum_i w_i z_i \le \varepsilon\|w\|_1\Big], \qquad
              z_i = \theta^*_i \text{ with probability } \tfrac12 + \tau,
              \text{ else } -\theta^*_i .

    Exactly: coordinates whose weights have one size are counted by two binomials, and the
    distributions of the sizes are convolved by fast Fourier transforms, with a rounding error
    below 1e-10. This asks for whole-numbered weights, such as those of `sum_weights`. By the
    normal law with the same mean and variance, :math:`2\tau\,w^\top\theta^*` and
    :math:`(1-4\tau^2)\|w\|_2^2`, it goes for all weights, and is wrong by the size of one jump of
    the distribution, about :math:`0.4\cdot2/\sqrt d` for weights ±1.

    The mean margin is at most :math:`(2\tau - \varepsilon)\|w\|_1`: from
    :math:`\varepsilon = 2\tau` on no linear classifier has a positive one, however many samples
    it has seen.

    Parameters
    ----------
    weights : array_like, (d,)
    theta : array_like, (d,)
        Signs θ*, each −1 or +1.
    tau : float
    eps : float
        Radius in the l∞ norm; 0 is standard error.
    method : {"exact", "normal"}

    Returns
    -------
    float
        A probability.

    Raises
    ------
    ValueError
        Weights that are not whole numbers, for the exact error.

    Examples
    --------
    >>> theta = np.ones(3)
    >>> round(linear_error(theta, theta, tau=0.3), 6)  # at most one of three right
    0.104
    >>> round(linear_error(theta, theta, tau=0.3, eps=0.5), 6)  # one flip is now too many
    0.488
    """
    theta, tau = _signs(theta), _bias(tau)
    weights = vector("weights", weights, len(theta), asked_by="theta")
    eps = checks.eps(eps)
    if checks.choice("method", method, ["exact", "normal"]) == "exact":
        return float(_exact_errors(weights, theta, tau, np.array([eps]))[0])
    size_1 = np.abs(weights).sum()
    spread = math.sqrt(1 - 4 * tau**2) * np.linalg.norm(weights)
    excess = eps * size_1 - 2 * tau * weights @ theta
    if spread == 0:
        return float(excess >= -TIE * size_1)
    return float(ndtr(excess / spread))


def threshold_error(weights: ArrayLike, theta: ArrayLike, *, tau: float, eps: float = 0.0) -> float:
    """Error of sign(wᵀT(x)), T the `threshold`, under every l∞ perturbation up to ``eps``.

    For ε < 1 it is the standard error of sign(wᵀx), because T undoes the perturbation
    (Theorem 10). From ε = 1 on the adversary chooses all signs, but for the tie at ε = 1 that is
    counted for the adversary, and the error is 1.

    Parameters
    ----------
    weights, theta, tau, eps
        As in `linear_error`; whole-numbered weights.

    Returns
    -------
    float

    Examples
    --------
    >>> theta = np.ones(3)
    >>> round(threshold_error(theta, theta, tau=0.3, eps=0.99), 6)
    0.104
    >>> threshold_error(theta, theta, tau=0.3, eps=1.0)
    1.0
    """
    standard = linear_error(weights, theta, tau=tau)
    return standard if checks.eps(eps) < 1 else 1.0


def simulate_correct(
    weights: ArrayLike,
    theta: ArrayLike,
    n: int,
    *,
    tau: float,
    eps: float = 0.0,
    thresholded: bool = False,
    generator: np.random.Generator | None = None,
) -> int:
    """Attack ``n`` samples of a linear or a thresholded classifier; count those that stay correct.

    The attack −ε y sign(w) is the worst case for both: it also flips as many signs as can be. A
    coordinate that it brings to zero counts as flipped.

    Parameters
    ----------
    weights, theta : array_like, (d,)
    n : int
        Number of samples.
    tau, eps : float
        As in `linear_error`.
    thresholded : bool
        Whether the classifier rounds the attacked inputs to signs first.
    generator : numpy.random.Generator, optional

    Returns
    -------
    int
        Correct predictions out of ``n``.

    Examples
    --------
    >>> seeded = np.random.default_rng(0)
    >>> simulate_correct([1, 1, 1], [1, 1, 1], 1000, tau=0.3, eps=0.5, generator=seeded)
    504
    """
    theta = _signs(theta)
    weights = vector("weights", weights, len(theta), asked_by="theta")
    n, eps, rng = checks.count("n", n), checks.eps(eps), source(generator)
    correct = 0
    for size in chunks(n, len(theta)):
        x, y = sample(theta, size, tau=tau, generator=rng)
        if thresholded:
            attack = -y[:, None] * np.sign(weights)
            moved = x + eps * attack
            x, radius = np.where(moved == 0, attack, threshold(moved)), 0.0
        else:
            radius = eps
        correct += stays_correct(weights, x, y, radius)
    return correct


def single_sample_error_bound(dim: int, *, tau: float) -> float:
    r"""Standard error after one training sample (Theorem 27): at most :math:`\exp(-2\tau^4d)`.

    Holds but for a chance of :math:`\exp(-\tau^2d/2)` over the sample.

    Examples
    --------
    >>> round(single_sample_error_bound(1000, tau=0.25), 6)
    0.000405
    """
    return math.exp(-2 * _bias(tau) ** 4 * checks.count("dim", dim))


def single_sample_tau(dim: int, *, error: float = 0.01) -> float:
    r"""The τ from which one sample suffices for an error β (Corollary 28).

    .. math:: \tau \ge \Big(\frac{\log(1/\beta)}{2d}\Big)^{1/4}

    With the threshold the same holds against every ε < 1 (Theorem 10, whose constant for β = 1 %
    can thus be :math:`(\tfrac12\log100)^{1/4} = 1.23`).

    Parameters
    ----------
    dim : int
    error : float
        β, in (0, 1].

    Returns
    -------
    float
        Above ½ where no model of this dimension is easy enough.

    Examples
    --------
    >>> round(single_sample_tau(10_000), 4)
    0.1232
    """
    error = checks.number("error", error, low=0, high=1, strict=True)
    return (math.log(1 / error) / (2 * checks.count("dim", dim))) ** 0.25


def linear_necessary_samples(dim: int, *, tau: float, eps: float, gamma: float) -> float:
    r"""With at most this many samples every linear learner fails (Theorem 9, Theorem 31).

    For :math:`n \le \varepsilon^2\gamma^2/(5000\,\tau^4\log(4d/\gamma))`, :math:`\tau\le\frac14`,
    :math:`\varepsilon<3\tau` and :math:`0<\gamma<\frac12` the robust error, averaged over θ*, is
    at least :math:`\tfrac12-\gamma`. The order √d is in :math:`\tau\sim d^{-1/4}`. The constants
    are large: at the τ of `single_sample_tau` the value is below 1, where it says nothing, for
    every d up to some 10⁹.

    Parameters
    ----------
    dim : int
    tau, eps, gamma : float

    Returns
    -------
    float

    Raises
    ------
    ValueError
        Arguments outside the conditions.

    Examples
    --------
    >>> round(linear_necessary_samples(100, tau=0.004, eps=0.01, gamma=0.4), 3)
    1.81
    """
    dim = checks.count("dim", dim)
    tau = checks.number("tau", tau, low=0, high=0.25, strict=True)
    eps = checks.eps(eps)
    if eps >= 3 * tau:
        raise ValueError(f"eps={eps:g} is out of range: give less than 3 tau = {3 * tau:g}.")
    gamma = checks.number("gamma", gamma, low=0, high=0.5, strict=True)
    if gamma == 0.5:
        raise ValueError("gamma=0.5 is out of range: give a number above 0 and below 0.5.")
    return (eps * gamma) ** 2 / (5000 * tau**4 * math.log(4 * dim / gamma))


def error_curve(
    dim: int,
    *,
    tau: float,
    n: ArrayLike,
    eps: ArrayLike,
    trials: int = 50,
    level: float = 0.95,
    generator: np.random.Generator | None = None,
) -> SampleSizeCurve:
    """Robust error of the linear learner against the number of training samples.

    In each trial the sum of n samples is drawn, coordinate by coordinate from a binomial; its
    error is exact (`linear_error`). The model looks the same for every θ*. The column ε = 0 is the
    error of the thresholded classifier at every ε < 1.

    Parameters
    ----------
    dim : int
    tau : float
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
    >>> curve = error_curve(400, tau=0.2, n=[1, 7, 25], eps=[0.0, 0.2], generator=seeded)
    >>> curve.mean.round(3)
    array([[0.001, 0.811],
           [0.   , 0.003],
           [0.   , 0.   ]])
    """
    dim, tau, rng = checks.count("dim", dim), _bias(tau), source(generator)
    trials = checks.count("trials", trials, low=2)
    theta = np.ones(dim)

    def errors(size: int, radii: Array) -> Array:
        sums = 2.0 * rng.binomial(size, 0.5 + tau, (trials, dim)) - size
        return np.stack([_exact_errors(row, theta, tau, radii) for row in sums])

    return sample_size_curve(errors, n=n, eps=eps, trials=trials, level=level)


def _exact_errors(weights: Array, theta: Array, tau: float, eps: Array) -> Array:
    """P[Σ w z ≤ ε‖w‖₁] for every radius, by the distribution of how much weight votes wrongly.

    With B that weight the margin is ‖w‖₁ − 2 B, and B is a sum of sizes times binomials.
    """
    sizes = np.abs(weights)
    total = sizes.sum()
    if total == 0:
        return np.ones(len(eps))
    if not np.array_equal(weights, np.round(weights)):
        raise ValueError(
            "weights are not whole numbers; multiply them (the sum of y x does for the mean), or "
            "give method='normal'."
        )
    if total > LARGEST_SUM:
        raise ValueError(
            f"weights add up to {total:.3g} in size, above {LARGEST_SUM:g}; divide them by a "
            "common factor, or give method='normal'."
        )
    right = np.sign(weights) == theta
    step = np.gcd.reduce(sizes.astype(int))  # for the sum of n samples, n even: 2
    length = int(total) // int(step) + 1
    padded = fft.next_fast_len(length, real=True)
    spectrum: np.ndarray | complex = 1.0
    for size in np.unique(sizes[sizes > 0]):
        chosen = sizes == size
        votes = _wrong_votes(int(np.sum(chosen & right)), int(np.sum(chosen & ~right)), tau)
        spread = np.zeros(padded)
        spread[: int(size // step) * len(votes) : int(size // step)] = votes
        spectrum = spectrum * fft.rfft(spread)
    wrong = np.maximum(fft.irfft(spectrum, padded)[:length], 0)
    at_least = np.clip(np.cumsum(wrong[::-1])[::-1], 0, 1)
    needed = np.ceil(((1 - eps) / 2 - TIE) * total / step).astype(int)
    errors: Array = np.where(needed <= 0, 1.0, at_least[np.clip(needed, 0, length - 1)])
    return errors


def _wrong_votes(right: int, wrong: int, tau: float) -> Array:
    """How many of the votes are wrong: ``right`` of the weights agree with θ*, ``wrong`` do not."""
    padded = fft.next_fast_len(right + wrong + 1, real=True)
    flipped = fft.rfft(_binomial(right, 0.5 - tau), padded)
    kept = fft.rfft(_binomial(wrong, 0.5 + tau), padded)
    votes: Array = np.maximum(fft.irfft(flipped * kept, padded)[: right + wrong + 1], 0)
    return votes


def _binomial(n: int, p: float) -> Array:
    """Probabilities of 0 … n successes, made to add up to 1."""
    k = np.arange(n + 1)
    log = xlogy(k, p) + xlog1py(n - k, -p) - gammaln(k + 1) - gammaln(n - k + 1)
    likely: Array = np.exp(log - log.max())
    return likely / likely.sum()


def _signs(theta: ArrayLike) -> Array:
    theta = numbers("theta", theta, 1)
    if not np.isin(theta, (-1, 1)).all():
        raise ValueError("theta holds other numbers than −1 and +1; give a vector of signs.")
    return theta


def _bias(tau: float) -> float:
    return checks.number("tau", tau, low=0, high=0.5, strict=True)
