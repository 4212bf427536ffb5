"""The Gaussian model of Ilyas et al. (2019), section 4, in closed form.

A label y is drawn from {−1, +1} with equal chances and an input from x ~ N(y μ*, Σ*). The learner
fits (μ, Σ) by maximum likelihood and classifies with sign(xᵀ Σ⁻¹ μ); the adversary adds δ to x,
measured in the Euclidean norm. With z = x − y μ, everything the adversary can do happens in the
quadratic form (z + δ)ᵀ Σ⁻¹ (z + δ).

Notation of the arguments: ``cov`` is Σ* (d, d), ``mean`` is μ* (d,), ``penalty`` is the price of
one unit of squared perturbation (C in Theorem 1 of the paper, λ in Theorem 2; it is the same
quantity), ``eps`` a perturbation's Euclidean norm, in the unit of x.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike
from scipy.optimize import brentq
from scipy.special import ndtr

from robustlib import checks
from robustlib.theory.matrices import Array, assemble, numbers, spectrum, vector


def adversarial_vulnerability(cov: ArrayLike, penalty: float) -> float:
    r"""How much the loss of the standard parameters rises under attack (Theorem 1).

    The adversary picks, for each sample, the :math:`\delta` that maximizes
    :math:`(z+\delta)^\top(\Sigma^*)^{-1}(z+\delta) - C\|\delta\|_2^2`, which is
    :math:`\delta = (C\Sigma^* - I)^{-1}z`. The quadratic form, without the penalty, then rises in
    expectation by

    .. math:: \operatorname{tr}\big[(I + (C\Sigma^* - I)^{-1})^2\big] - d .

    The negative log-likelihood carries this form with a factor ½. With loss
    :math:`\tfrac12 z^\top(\Sigma^*)^{-1}z` and penalty :math:`\tfrac C2\|\delta\|_2^2` the
    adversary picks the same :math:`\delta` and the rise is half of the value returned here.

    Parameters
    ----------
    cov : array_like, (d, d)
        Covariance :math:`\Sigma^*` of each class.
    penalty : float
        :math:`C`, above one over the smallest eigenvalue of ``cov``.

    Returns
    -------
    float
        The expected rise of the quadratic form, without the factor ½.

    Raises
    ------
    ValueError
        A penalty at which the adversary's problem has no maximum.

    Notes
    -----
    The paper asks for :math:`C \ge 1/\sigma_{\min}`; at equality the maximum is infinite.

    Examples
    --------
    >>> adversarial_vulnerability([[1.0, 0.0], [0.0, 25.0]], penalty=2.0)
    3.0412328196584757
    """
    values, _ = spectrum("cov", cov)
    stretch = 1 / (1 - 1 / (_admissible(penalty, values) * values))
    return float(np.sum(stretch**2 - 1))


def least_vulnerable_covariance(dim: int, trace: float) -> Array:
    r"""The covariance with a given trace at which the vulnerability is smallest (Theorem 1).

    It is :math:`\frac kd I`: the vulnerability is a sum of :math:`(Cs/(Cs-1))^2 - 1` over the
    eigenvalues :math:`s`, and that function is strictly convex, so equal eigenvalues are best.

    Parameters
    ----------
    dim : int
        Dimension :math:`d`.
    trace : float
        Trace :math:`k`, positive.

    Returns
    -------
    ndarray, (d, d)

    Examples
    --------
    >>> least_vulnerable_covariance(2, 26.0)
    array([[13.,  0.],
           [ 0., 13.]])
    """
    dim = checks.count("dim", dim)
    return np.eye(dim) * (checks.number("trace", trace, low=0, strict=True) / dim)


def robust_covariance(cov: ArrayLike, penalty: float) -> Array:
    r"""The covariance that robust training learns; the mean stays as it is (Theorem 2).

    .. math:: \Sigma_r = \tfrac12\Sigma^* + \tfrac1\lambda I
              + \sqrt{\tfrac1\lambda\Sigma^* + \tfrac14(\Sigma^*)^2} ,

    which has the eigenvectors of :math:`\Sigma^*`. It is the minimizer, over :math:`\Sigma`, of
    :math:`E\max_\delta[\tfrac12(z+\delta)^\top\Sigma^{-1}(z+\delta) - \tfrac\lambda2\|\delta\|_2^2]
    + \tfrac12\log\det\Sigma`. In standard deviations it reads
    :math:`\sqrt{s_r} = \tfrac12(\sqrt s + \sqrt{s + 4/\lambda})`, the form computed here.

    Parameters
    ----------
    cov : array_like, (d, d)
        Covariance :math:`\Sigma^*` of each class.
    penalty : float
        :math:`\lambda`, positive; ``math.inf`` is no adversary at all.

    Returns
    -------
    ndarray, (d, d)

    See Also
    --------
    penalty_for_budget : the penalty at which the perturbations have a given size.

    Examples
    --------
    >>> np.round(robust_covariance([[1.0, 0.0], [0.0, 25.0]], penalty=1 / 6), 12)
    array([[ 9.,  0.],
           [ 0., 36.]])
    """
    values, vectors = spectrum("cov", cov)
    return assemble(_robust_deviation(np.sqrt(values), _positive(penalty)) ** 2, vectors)


def average_budget(cov: ArrayLike, penalty: float) -> float:
    r"""Root mean square size of the perturbations against the robust parameters.

    At :math:`\Sigma_r` the adversary of Theorem 2 plays :math:`\delta = (\lambda\Sigma_r-I)^{-1}z`,
    so that

    .. math:: \varepsilon^2 = E\|\delta\|_2^2 = \sum_i \frac{s_i}{(\lambda s_{r,i} - 1)^2}
              = \frac{\operatorname{tr}\Sigma_r^{-1}}{\lambda^2} .

    Parameters
    ----------
    cov : array_like, (d, d)
        Covariance :math:`\Sigma^*` of each class.
    penalty : float
        :math:`\lambda`, positive, ``math.inf`` included.

    Returns
    -------
    float
        :math:`\varepsilon`, in the unit of x.

    Examples
    --------
    >>> round(average_budget([[1.0, 0.0], [0.0, 25.0]], penalty=1 / 6) ** 2, 12)
    5.0
    """
    values, _ = spectrum("cov", cov)
    return _budget(np.sqrt(values), _positive(penalty))


def penalty_for_budget(cov: ArrayLike, eps: float) -> float:
    r"""The penalty :math:`\lambda` at which the root mean square perturbation is ``eps``.

    The inverse of `average_budget`, which falls strictly from infinity to zero as
    :math:`\lambda` rises; found by Brent's method between two bounds in closed form.

    Parameters
    ----------
    cov : array_like, (d, d)
        Covariance :math:`\Sigma^*` of each class.
    eps : float
        Budget :math:`\varepsilon`; zero gives ``math.inf``.

    Returns
    -------
    float

    Examples
    --------
    >>> round(penalty_for_budget([[1.0, 0.0], [0.0, 25.0]], eps=5**0.5), 12)
    0.166666666667
    """
    values, _ = spectrum("cov", cov)
    eps = checks.eps(eps)
    if eps == 0:
        return math.inf
    deviation = np.sqrt(values)
    # s + 1/λ ≤ s_r ≤ s + 2/λ bounds ε² = Σ 1/(λ² s_r) on both sides.
    high = len(values) / eps**2
    low = high / (1 + math.sqrt(1 + values[-1] * high))
    log = brentq(
        lambda log: math.log(_budget(deviation, math.exp(log)) / eps),
        math.log(low) - 1e-6,
        math.log(high) + 1e-6,
        xtol=1e-14,
    )
    return math.exp(log)


def robust_attack(residual: ArrayLike, cov: ArrayLike, penalty: float) -> Array:
    r"""The perturbations of the adversary of Theorem 2 against the robust parameters.

    .. math:: \delta = (\lambda\Sigma_r - I)^{-1}z

    The attacked samples :math:`z + \delta` have covariance :math:`\Sigma_r`: fitted to what the
    adversary makes of the data, the robust parameters reproduce themselves.

    Parameters
    ----------
    residual : array_like, (n, d)
        Samples minus their class mean, :math:`z`.
    cov : array_like, (d, d)
        Covariance :math:`\Sigma^*` of each class.
    penalty : float
        :math:`\lambda`, positive.

    Returns
    -------
    ndarray, (n, d)

    Examples
    --------
    >>> robust_attack([[1.0, 5.0]], [[1.0, 0.0], [0.0, 25.0]], penalty=1 / 6).round(12)
    array([[2., 1.]])
    """
    values, vectors = spectrum("cov", cov)
    residual = numbers("residual", residual, 2)
    if residual.shape[1] != len(values):
        raise ValueError(
            f"residual has shape {residual.shape}; the covariance asks for (n, {len(values)})."
        )
    deviation = np.sqrt(values)
    penalty = checks.number("penalty", penalty, low=0, strict=True)
    factor = 1 / (penalty * deviation * _robust_deviation(deviation, penalty))
    return (residual @ vectors * factor) @ vectors.T


def classifier_weights(mean: ArrayLike, cov: ArrayLike) -> Array:
    r"""Weights :math:`\Sigma^{-1}\mu` of the classifier sign(xᵀ Σ⁻¹ μ): its gradient in x.

    Parameters
    ----------
    mean : array_like, (d,)
    cov : array_like, (d, d)
        The covariance that was learned: Σ* by standard, Σ_r by robust training.

    Returns
    -------
    ndarray, (d,)

    Examples
    --------
    >>> classifier_weights([7.5, 1.5], [[25.0, 0.0], [0.0, 1.0]])
    array([0.3, 1.5])
    """
    values, vectors = spectrum("cov", cov)
    mean = vector("mean", mean, len(values))
    weights: Array = vectors @ ((mean @ vectors) / values)
    return weights


def alignment(mean: ArrayLike, cov: ArrayLike) -> float:
    r"""Cosine of the angle between the means' vector and the classifier's gradient.

    .. math:: \cos\angle(\mu, \Sigma^{-1}\mu)
              = \frac{\mu^\top\Sigma^{-1}\mu}{\|\mu\|_2\,\|\Sigma^{-1}\mu\|_2}

    Parameters
    ----------
    mean : array_like, (d,)
    cov : array_like, (d, d)

    Returns
    -------
    float
        In (0, 1].

    Examples
    --------
    >>> round(alignment([7.5, 1.5], [[25.0, 0.0], [0.0, 1.0]]), 4)
    0.3846
    """
    values, vectors = spectrum("cov", cov)
    along = vector("mean", mean, len(values)) @ vectors
    along = along / np.abs(along).max()
    weights = along * (values[0] / values)
    return float(along @ weights / math.sqrt((along @ along) * (weights @ weights)))


def worst_alignment(cov: ArrayLike) -> float:
    r"""The smallest `alignment` over all means (Theorem 3, Lemma 8).

    With the condition number :math:`\kappa = s_{\max}/s_{\min}` of ``cov``,

    .. math:: \min_\mu \cos\angle(\mu, \Sigma^{-1}\mu) = \frac{2\sqrt\kappa}{1+\kappa} .

    This is Kantorovich's inequality. For unit :math:`\mu` and :math:`A = \Sigma^{-1}` with
    eigenvalues in :math:`[m, M]`, every eigenvalue satisfies :math:`(a-m)(M-a) \ge 0`; averaged
    over :math:`\mu` this is :math:`\|A\mu\|^2 \le (m+M)t - mM` with :math:`t = \mu^\top A\mu`, and
    :math:`t^2/((m+M)t - mM)` is smallest at :math:`t = 2mM/(m+M)`.

    Parameters
    ----------
    cov : array_like, (d, d)

    Returns
    -------
    float
        In (0, 1]; 1 only for a multiple of the identity.

    Examples
    --------
    >>> round(worst_alignment([[25.0, 0.0], [0.0, 1.0]]), 4)
    0.3846
    """
    values, _ = spectrum("cov", cov)
    root = math.sqrt(values[0] / values[-1])
    return 2 * root / (1 + root**2)


def worst_mean(cov: ArrayLike) -> Array:
    r"""A unit vector at which the `alignment` is smallest.

    .. math:: \mu = \frac{\sqrt{s_{\max}}\,v_{\max} + \sqrt{s_{\min}}\,v_{\min}}
                         {\sqrt{s_{\max}+s_{\min}}}

    with eigenvectors :math:`v` to the largest and the smallest eigenvalue: the mean for which
    the two directions are equally useful, :math:`\mu_i^2/s_i` being the same for both.

    Parameters
    ----------
    cov : array_like, (d, d)

    Returns
    -------
    ndarray, (d,)

    Examples
    --------
    >>> cov = np.diag([25.0, 4.0, 1.0])
    >>> alignment(worst_mean(cov), cov) - worst_alignment(cov) < 1e-15
    True
    """
    values, vectors = spectrum("cov", cov)
    if len(values) == 1:
        return np.ones(1)
    mean = math.sqrt(values[-1]) * vectors[:, -1] + math.sqrt(values[0]) * vectors[:, 0]
    return mean / math.sqrt(values[-1] + values[0])


def linear_accuracy(
    weights: ArrayLike, mean: ArrayLike, cov: ArrayLike, *, eps: float = 0.0, norm: str = "2"
) -> float:
    r"""Accuracy of sign(wᵀ x), against every perturbation up to ``eps``.

    A perturbation lowers the margin :math:`y\,w^\top x` by at most :math:`\varepsilon\|w\|_*`, the
    dual norm, and can always do so; the margin is Gaussian, hence

    .. math:: P[\min_{\|\delta\|\le\varepsilon} y\,w^\top(x+\delta) > 0]
              = \Phi\Big(\frac{w^\top\mu^* - \varepsilon\|w\|_*}{\sqrt{w^\top\Sigma^* w}}\Big) .

    Parameters
    ----------
    weights, mean : array_like, (d,)
    cov : array_like, (d, d)
        Covariance :math:`\Sigma^*` of each class (of the data, not the learned one).
    eps : float
        Radius of the perturbations in ``norm``, in the unit of x; 0 is standard accuracy.
    norm : {"2", "inf"}

    Returns
    -------
    float
        A probability.

    Examples
    --------
    Two equally useful features, of which the second is five times easier to move:

    >>> mean, cov = [7.5, 1.5], [[25.0, 0.0], [0.0, 1.0]]
    >>> round(linear_accuracy([1, 0], mean, cov), 4), round(linear_accuracy([0, 1], mean, cov), 4)
    (0.9332, 0.9332)
    >>> round(linear_accuracy([1, 0], mean, cov, eps=2.0), 4)
    0.8643
    >>> round(linear_accuracy([0, 1], mean, cov, eps=2.0), 4)
    0.3085
    """
    values, vectors = spectrum("cov", cov)
    weights = vector("weights", weights, len(values))
    mean = vector("mean", mean, len(values))
    dual = {"2": 2, "inf": 1}[checks.choice("norm", norm, ["2", "inf"])]
    margin = weights @ mean - checks.eps(eps) * np.linalg.norm(weights, dual)
    return float(ndtr(margin / np.linalg.norm((weights @ vectors) * np.sqrt(values))))


def _admissible(penalty: float, values: Array) -> float:
    """The penalty, if the adversary's problem is concave: above 1/σ_min."""
    penalty = checks.number("penalty", penalty, low=0, strict=True)
    if penalty * values[0] <= 1:
        raise ValueError(
            f"penalty={penalty:g} is too small: the smallest eigenvalue of cov is {values[0]:g}, "
            f"and with a penalty of 1/{values[0]:g} = {1 / values[0]:g} or less the adversary "
            "gains without limit. Give a larger penalty."
        )
    return penalty


def _positive(penalty: float) -> float:
    """A positive penalty; infinity stands for no adversary."""
    if isinstance(penalty, float) and penalty == math.inf:
        return penalty
    return checks.number("penalty", penalty, low=0, strict=True)


def _robust_deviation(deviation: Array, penalty: float) -> Array:
    """Standard deviations of Σ_r along the eigenvectors, from those of Σ*."""
    result: Array = (deviation + np.hypot(deviation, 2 / math.sqrt(penalty))) / 2
    return result


def _budget(deviation: Array, penalty: float) -> float:
    """Root mean square perturbation: the deviations of δ are 1/(λ √s_r)."""
    return float(np.linalg.norm(1 / penalty / _robust_deviation(deviation, penalty)))
