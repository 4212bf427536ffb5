"""Logistic regression that is trained against the exact worst case of each sample."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy.optimize import minimize
from scipy.special import expit

from robustlib import checks
from robustlib.theory.matrices import Array, numbers


@dataclass(frozen=True, eq=False)
class LogisticFit:
    """A linear classifier sign(w·x + b).

    Attributes
    ----------
    weights : ndarray, (m,)
    bias : float
    loss : float
        The training objective.
    doubt : float
        Mean over the training samples of the probability that the classifier gives to the wrong
        label, at the worst points.
    slope : float
        The largest entry of the smallest subgradient of the objective: 0 at the minimum.
    """

    weights: Array
    bias: float
    loss: float
    doubt: float
    slope: float


def robust_logistic(
    x: ArrayLike,
    y: ArrayLike,
    *,
    eps: float = 0.0,
    l1: float = 0.0,
    l2: float = 0.0,
    max_steps: int = 1000,
) -> LogisticFit:
    r"""Fit a linear classifier to samples that an l∞ adversary may move by ``eps``.

    With :math:`\zeta(z) = \log(1+e^z)` the objective is (Goodfellow et al. 2015, section 5)

    .. math:: \frac1n\sum_i \max_{\|\delta\|_\infty\le\varepsilon}
              \zeta\big(-y_i(w\cdot(x_i+\delta)+b)\big) + \lambda_1\|w\|_1
              + \tfrac{\lambda_2}2\|w\|_2^2
              = \frac1n\sum_i \zeta\big(\varepsilon\|w\|_1 - y_i(w\cdot x_i+b)\big)
              + \lambda_1\|w\|_1 + \tfrac{\lambda_2}2\|w\|_2^2 .

    It is convex; with w = u − v, u, v ≥ 0, it is smooth, and L-BFGS-B minimizes it.

    Parameters
    ----------
    x : array_like, (n, m)
    y : array_like, (n,)
        Labels −1 and +1, both present.
    eps : float
        Radius of the adversary, in the unit of ``x``; 0 is standard training.
    l1, l2 : float
        Weight decay: factors of the absolute and of half the squared weights.
    max_steps : int
        Steps of the optimizer. Samples that a plane separates have no minimum without decay (with
        ``eps``: if the plane keeps that distance): then the steps decide how large the weights get.

    Returns
    -------
    LogisticFit

    Raises
    ------
    TypeError, ValueError
        For an argument that is not as described; the message names it and what is allowed.

    Examples
    --------
    Two samples, one feature of size 1, of which eps = 0.5 leaves half; the weight is where the
    derivative l2 · w − 0.5 · doubt vanishes.

    >>> fit = robust_logistic([[1.0], [-1.0]], [1, -1], eps=0.5, l2=0.25)
    >>> bool(np.isclose(0.25 * fit.weights[0], 0.5 * fit.doubt)), abs(round(fit.bias, 6))
    (True, 0.0)
    """
    x, y = numbers("x", x, 2), numbers("y", y, 1)
    if len(y) != len(x) or set(np.unique(y)) != {-1.0, 1.0}:
        raise ValueError(
            f"y has {len(y)} labels, among them {sorted(set(y.tolist()))[:3]}; give one of -1 and "
            f"+1 for each of the {len(x)} samples, both present."
        )
    eps = checks.eps(eps)
    l1, l2 = (checks.number(name, value, low=0.0) for name, value in (("l1", l1), ("l2", l2)))
    n, m = x.shape

    def objective(parameters: Array) -> tuple[float, Array]:
        plus, minus, bias = parameters[:m], parameters[m:-1], parameters[-1]
        weights, size = plus - minus, plus.sum() + minus.sum()
        z = eps * size - y * (x @ weights + bias)
        wrong = expit(z)  # the probability of the wrong label
        value = np.logaddexp(0, z).mean() + l1 * size + l2 / 2 * weights @ weights
        pull = l2 * weights - x.T @ (wrong * y) / n
        push = eps * wrong.mean() + l1
        return value, np.concatenate([push + pull, push - pull, [-(wrong * y).mean()]])

    found = minimize(
        objective,
        np.zeros(2 * m + 1),
        jac=True,
        method="L-BFGS-B",
        bounds=[(0, None)] * (2 * m) + [(None, None)],
        options={
            "maxiter": checks.count("max_steps", max_steps),
            "maxfun": 10 * max_steps,
            "ftol": 1e-13,
            "gtol": 1e-8,
        },
    )
    weights, bias = found.x[:m] - found.x[m:-1], float(found.x[-1])
    z = eps * np.abs(weights).sum() - y * (x @ weights + bias)
    slope = found.jac.copy()
    slope[:-1] = np.where(found.x[:-1] > 0, slope[:-1], np.minimum(slope[:-1], 0))
    return LogisticFit(
        weights, bias, float(found.fun), float(expit(z).mean()), float(np.abs(slope).max())
    )
