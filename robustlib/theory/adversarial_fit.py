"""Adversarial training of a Gaussian, with the exact worst case for every sample.

The closed form of Theorem 2 belongs to an adversary with an average budget. Here every sample has
its own, ‖δ‖₂ ≤ ε, as in the definition of the robust parameters (Ilyas et al. 2019, eq. 12).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy.optimize import minimize

from robustlib import checks
from robustlib.theory.matrices import Array, numbers, spectrum

NEWTON_STEPS = 30  # 10 were enough for every spectrum and radius tried
HARD_CASE = 1e-100  # least part of a residual, in units of eps, along the weakest direction


@dataclass(frozen=True)
class GaussianFit:
    """Parameters of a Gaussian fitted under attack.

    Attributes
    ----------
    mean : ndarray, (d,)
    cov : ndarray, (d, d)
    loss : float
        Mean over the samples of the worst ½(z+δ)ᵀΣ⁻¹(z+δ), plus ½ log det Σ.
    gap : float
        The loss is proved to be at most this far above the smallest possible one.
    steps : int
        Steps that the optimizer took.
    """

    mean: Array
    cov: Array
    loss: float
    gap: float
    steps: int


def worst_perturbation(residual: ArrayLike, cov: ArrayLike, *, eps: float) -> Array:
    r"""Raise :math:`(z+\delta)^\top\Sigma^{-1}(z+\delta)` as far as a radius allows, exactly.

    The trust-region problem of Lemma 1, :math:`\|\delta\|_2\le\varepsilon`, solved for every
    sample at once. In the eigenbasis the
    solution is :math:`\delta_i = z_i/(\nu s_i - 1)` with the multiplier
    :math:`\nu \ge 1/s_{\min}` that makes :math:`\|\delta\|_2 = \varepsilon`. Newton's method on
    :math:`1/\|\delta(\nu)\|_2`, which is concave and increasing in :math:`\nu`, rises to it from
    below without ever passing it.

    Parameters
    ----------
    residual : array_like, (n, d)
        Samples minus their class mean, :math:`z`.
    cov : array_like, (d, d)
        Covariance :math:`\Sigma` of the loss.
    eps : float
        Radius :math:`\varepsilon`, in the unit of ``residual``.

    Returns
    -------
    ndarray, (n, d)
        One perturbation of norm ``eps`` per sample. Where a residual has no part along the
        eigenvectors of the smallest eigenvalue, the two signs are equally good and one is chosen.

    Examples
    --------
    >>> worst_perturbation([[3.0, 0.0], [0.0, -1.0]], np.eye(2), eps=0.5)
    array([[ 0.5,  0. ],
           [ 0. , -0.5]])
    """
    values, vectors = spectrum("cov", cov)
    residual = numbers("residual", residual, 2)
    if residual.shape[1] != len(values):
        raise ValueError(
            f"residual has shape {residual.shape}; the covariance asks for (n, {len(values)})."
        )
    eps = checks.eps(eps)
    if eps == 0:
        return np.zeros_like(residual)
    z = residual @ vectors
    weakest = values <= values[0]
    lost = np.abs(z[:, weakest]).max(axis=1) < HARD_CASE * eps
    z[lost, 0] = HARD_CASE * eps
    # ν = (1 + τ)/s_min: then ν s − 1 = gap + τ ratio, and |z_weakest|/ε ≤ τ ≤ ‖z‖/ε.
    ratio = values / values[0]
    gap = ratio - 1
    tau = np.linalg.norm(z[:, weakest], axis=1, keepdims=True) / eps
    for _ in range(NEWTON_STEPS):
        denominator = gap + tau * ratio
        delta = z / denominator
        size = np.linalg.norm(delta, axis=1, keepdims=True)
        slope = np.sum((delta / size) ** 2 * ratio / denominator, axis=1, keepdims=True)
        step = (size / eps - 1) / slope
        tau = tau + np.maximum(step, 0)
        if np.all(step <= 1e-14 * tau):
            break
    delta = z / (gap + tau * ratio)
    delta *= eps / np.linalg.norm(delta, axis=1, keepdims=True)
    return delta @ vectors.T


def adversarial_fit(
    x: ArrayLike, y: ArrayLike, *, eps: float, tolerance: float = 1e-4, max_steps: int = 500
) -> GaussianFit:
    r"""Fit mean and covariance to labeled samples under attack.

    .. math:: \min_{\mu,\Sigma}\ \frac1n\sum_j \max_{\|\delta\|_2\le\varepsilon}
              \tfrac12(x_j+\delta-y_j\mu)^\top\Sigma^{-1}(x_j+\delta-y_j\mu)
              + \tfrac12\log\det\Sigma

    In :math:`(\Sigma^{-1}, \Sigma^{-1}\mu)` this is convex. The inner maximum is exact
    (`worst_perturbation`), the gradient is by Danskin's theorem the one at the attacked samples,
    and L-BFGS runs on the mean and a triangular factor of the precision.

    Any attacked samples :math:`x_j + \delta_j` also bound the minimum from below, by the smallest
    loss that a Gaussian fitted to just these samples can have, :math:`\tfrac d2 +
    \tfrac12\log\det` of their covariance. The distance between the two is the ``gap``. It need not
    fall to zero: the loss has a kink wherever a sample changes sides along the weakest direction,
    and those weigh 1/n each.

    Parameters
    ----------
    x : array_like, (n, d)
    y : array_like, (n,)
        Labels −1 and +1.
    eps : float
        Radius of the attack in the Euclidean norm; 0 is maximum likelihood.
    tolerance : float
        Largest gap that is accepted.
    max_steps : int
        Steps of the optimizer before it gives up.

    Returns
    -------
    GaussianFit

    Raises
    ------
    RuntimeError
        The gap is above ``tolerance`` after the last step.

    Examples
    --------
    >>> fit = adversarial_fit([[1.0], [3.0], [-1.0], [-3.0]], [1, 1, -1, -1], eps=0.0)
    >>> fit.mean.round(6), fit.cov.round(6)
    (array([2.]), array([[1.]]))
    """
    x = numbers("x", x, 2)
    n, dim = x.shape
    labels = numbers("y", y, 1)
    if labels.shape != (n,) or not np.isin(labels, (-1, 1)).all():
        raise ValueError(
            f"y has shape {labels.shape}; give one label, −1 or +1, per sample: ({n},)."
        )
    eps = checks.eps(eps)
    tolerance = checks.number("tolerance", tolerance, low=0, strict=True)
    folded = labels[:, None] * x  # the model is symmetric: y x ~ N(μ, Σ)
    center = folded.mean(axis=0)
    scatter = np.atleast_2d(np.cov(folded, rowvar=False, bias=True))
    spectrum("the covariance of the samples", scatter)
    lower = np.tril_indices(dim)
    diagonal = lower[0] == lower[1]

    def unpack(flat: Array) -> tuple[Array, Array]:
        factor = np.zeros((dim, dim))
        factor[lower] = np.where(diagonal, np.exp(np.where(diagonal, flat[dim:], 0)), flat[dim:])
        return flat[:dim], factor

    def loss(flat: Array) -> tuple[float, Array, Array]:
        mean, factor = unpack(flat)
        cov = np.linalg.inv(factor @ factor.T)
        z = folded - mean
        z = z + worst_perturbation(z, (cov + cov.T) / 2, eps=eps)
        second = z.T @ z / n
        value = 0.5 * np.sum(second * (factor @ factor.T)) - np.log(np.diag(factor)).sum()
        pull = (second @ factor)[lower]
        pull = np.where(diagonal, pull * factor[lower] - 1, pull)
        gradient = np.concatenate([-factor @ (factor.T @ z.mean(axis=0)), pull])
        return float(value), gradient, z

    start = np.linalg.cholesky(np.linalg.inv(scatter + np.eye(dim) * eps**2 / dim))
    flat = np.concatenate([center, np.where(diagonal, 0, start[lower])])
    flat[dim:][diagonal] = np.log(np.diag(start))
    found = minimize(
        lambda flat: loss(flat)[:2],
        flat,
        jac=True,
        method="L-BFGS-B",
        options={"maxiter": max_steps, "gtol": 1e-8, "ftol": 0.0},
    )
    value, _, attacked = loss(found.x)
    refit = np.atleast_2d(np.cov(attacked, rowvar=False, bias=True))
    gap = max(value - (dim + np.linalg.slogdet(refit)[1]) / 2, 0.0)
    if gap > tolerance:
        raise RuntimeError(
            f"the fit stopped after {found.nit} steps with gap {gap:.2g}, above "
            f"tolerance={tolerance:.2g}: raise max_steps={max_steps}, or give more samples."
        )
    mean, factor = unpack(found.x)
    cov = np.linalg.inv(factor @ factor.T)
    return GaussianFit(mean.copy(), (cov + cov.T) / 2, value, float(gap), int(found.nit))
