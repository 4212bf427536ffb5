"""Soft-margin training in the model of Tsipras et al. (2019): Theorem 2.2 and its conditions.

The loss is taken over the distribution, not over samples, and the adversary is part of it:

    E max(0, 1 − y wᵀx + ε‖w‖₁) + λ/2 ‖w‖₂²

(eq. 5 at ε = 0). It is strictly convex and treats the weak features alike, so that its minimizer
gives all of them one weight (Lemma D.1). What is left is a problem in two numbers, the weight of
the robust feature and the pooled weight u of the weak ones, u/√d each, and both are at least zero.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike
from scipy.optimize import brentq

from robustlib import checks
from robustlib.theory.matrices import Array
from robustlib.theory.tsipras import _model, _weights

SMALLEST = 1e-9  # a pooled weight whose slope is positive here is taken to be zero
ROOT = {"xtol": 1e-15, "rtol": 1e-14}


def hinge_loss(weights: ArrayLike, *, p: float, eta: float, eps: float = 0.0) -> float:
    r"""Expected hinge loss of a linear classifier under the worst l∞ perturbations, exactly.

    .. math:: E\max_{\|\delta\|_\infty\le\varepsilon}\max(0, 1 - y\,w^\top(x+\delta))
              = E\max(0, 1 - y\,w^\top x + \varepsilon\|w\|_1)

    Given whether the first feature agrees with the label, the last argument is Gaussian, and
    :math:`E\max(0, N(\mu, s^2)) = \mu\,\Phi(\mu/s) + s\,\varphi(\mu/s)`.

    Parameters
    ----------
    weights : array_like, (d + 1,)
    p, eta, eps : float
        As in `tsipras.linear_accuracy`.

    Returns
    -------
    float

    Examples
    --------
    >>> round(hinge_loss([1.0, 0.0, 0.0], p=0.9, eta=0.5, eps=0.2), 12)  # 0.9 · 0.2 + 0.1 · 2.2
    0.4
    """
    weights = _weights(weights)
    p, eta = _model(p, eta)
    mean = 1 - eta * weights[1:].sum() + checks.eps(eps) * np.abs(weights).sum()
    spread = float(np.linalg.norm(weights[1:]))
    agrees, differs = float(mean - weights[0]), float(mean + weights[0])
    return p * _excess(agrees, spread)[0] + (1 - p) * _excess(differs, spread)[0]


def soft_margin_weights(
    dim: int, *, p: float, eta: float, penalty: float, eps: float = 0.0
) -> Array:
    r"""What (adversarial) soft-margin training on the whole distribution converges to.

    With :math:`\varepsilon \ge \eta` the weak features get no weight: by Jensen's inequality a
    pooled weight u adds at least :math:`u\sqrt d(\varepsilon-\eta) \ge 0` to the argument of every
    hinge. Then

    .. math:: w_1 = \min\Big(\frac{\max(0,\, 2p-1-\varepsilon)}\lambda,
              \frac1{1-\varepsilon}\Big) .

    So the minimizer is the robust feature alone for :math:`\eta\le\varepsilon<2p-1`, with accuracy
    p against every perturbation below 1, and the zero vector, which classifies nothing, from
    :math:`\varepsilon = \max(\eta, 2p-1)` on. Lemma D.5 asks for :math:`\varepsilon\ge2\eta`;
    Theorem 2.2 does not print the condition :math:`\varepsilon<2p-1`, without which it fails.
    Below η the minimum is found by two nested roots of the derivatives.

    Parameters
    ----------
    dim : int
        Number d of weak features.
    p, eta : float
    penalty : float
        :math:`\lambda`, positive.
    eps : float
        Radius of the adversary during training; 0 is standard training.

    Returns
    -------
    ndarray, (d + 1,)
        The minimizer; all zero where that is the answer.

    Examples
    --------
    >>> soft_margin_weights(3, p=0.9, eta=0.1, penalty=1.0, eps=0.3).round(12)
    array([0.5, 0. , 0. , 0. ])
    >>> soft_margin_weights(3, p=0.9, eta=0.1, penalty=1.0, eps=0.8)
    array([0., 0., 0., 0.])
    """
    dim = checks.count("dim", dim)
    p, eta = _model(p, eta)
    penalty = checks.number("penalty", penalty, low=0, strict=True)
    first, pooled = _minimizer(dim, p, eta, penalty, checks.eps(eps))
    return np.concatenate([[first], np.full(dim, pooled / math.sqrt(dim))])


def unit_norm_penalty(dim: int, *, p: float, eta: float, eps: float = 0.0) -> float:
    r"""The :math:`\lambda` at which the weights of `soft_margin_weights` have norm 1.

    Theorem 2.2 speaks of this classifier: for :math:`\eta \ge 4/\sqrt d` and
    :math:`p \le 0.975`, standard training (``eps=0``) ends above 99 % standard accuracy and below
    1 % robust accuracy at every radius from 2η on. The norm never rises with λ; where it stays at 1
    for a while, one λ of several is returned. This happens with weak features of little use, as at
    η = 1/√d and p = 0.95: even standard training then ends at the robust feature alone.

    Parameters
    ----------
    dim : int
    p, eta, eps : float
        As in `soft_margin_weights`.

    Returns
    -------
    float

    Raises
    ------
    ValueError
        No penalty, however small, makes the norm reach 1.

    Examples
    --------
    >>> penalty = unit_norm_penalty(100, p=0.95, eta=0.4)
    >>> weights = soft_margin_weights(100, p=0.95, eta=0.4, penalty=penalty)
    >>> round(float(np.linalg.norm(weights)), 9)
    1.0
    """
    dim = checks.count("dim", dim)
    p, eta = _model(p, eta)
    eps = checks.eps(eps)

    def excess(log_penalty: float) -> float:
        return math.hypot(*_minimizer(dim, p, eta, math.exp(log_penalty), eps)) - 1

    # λ/2 ‖w‖₂² ≤ 1, the loss of the zero vector: from λ = 2 on the norm is at most 1.
    low, high = -30.0, math.log(2) + 1e-9
    if excess(low) < 0:
        raise ValueError(
            f"no penalty gives weights of norm 1 at p={p:g}, eta={eta:g}, eps={eps:g}, dim={dim}: "
            f"with {math.exp(low):.1g} the norm is {1 + excess(low):.4g}. Give a larger eta or p, "
            "or a smaller eps."
        )
    return math.exp(brentq(excess, low, high, **ROOT))


def _minimizer(dim: int, p: float, eta: float, penalty: float, eps: float) -> tuple[float, float]:
    """Weight of the robust feature and pooled weight of the weak ones, both at least zero."""
    drift = (eps - eta) * math.sqrt(dim)
    gain = 2 * p - 1 - eps
    alone = min(gain / penalty, 1 / (1 - eps)) if gain > 0 else 0.0
    if drift >= 0:
        return alone, 0.0

    def slopes(first: float, pooled: float) -> tuple[float, float]:
        common = 1 + eps * first + drift * pooled
        _, mean_a, spread_a = _excess(common - first, pooled)
        _, mean_d, spread_d = _excess(common + first, pooled)
        along_first = p * mean_a * (eps - 1) + (1 - p) * mean_d * (eps + 1)
        along_pooled = drift * (p * mean_a + (1 - p) * mean_d) + p * spread_a + (1 - p) * spread_d
        return along_first + penalty * first, along_pooled + penalty * pooled

    def best_first(pooled: float) -> float:
        if slopes(0.0, pooled)[0] >= 0:
            return 0.0
        most = p * (1 - eps) / penalty  # the slope is at least penalty · first − p (1 − eps)
        return float(brentq(lambda first: slopes(first, pooled)[0], 0.0, 2 * most, **ROOT))

    def slope(pooled: float) -> float:
        return slopes(best_first(pooled), pooled)[1]

    most = -drift / penalty  # the slope is at least drift + penalty · pooled
    if slope(SMALLEST) >= 0:
        return alone, 0.0
    pooled = float(brentq(slope, SMALLEST, 2 * most, **ROOT))
    return best_first(pooled), pooled


def _excess(mean: float, spread: float) -> tuple[float, float, float]:
    """E max(0, N(mean, spread²)) and its derivatives by mean and by spread."""
    if spread == 0:
        return max(0.0, mean), float(mean > 0), 0.0
    z = mean / spread
    below = math.erfc(-z / math.sqrt(2)) / 2
    density = math.exp(-z * z / 2) / math.sqrt(2 * math.pi)
    return mean * below + spread * density, below, density
