"""Robust logistic regression: the minimum that a convex solver finds, against attacked samples."""

from __future__ import annotations

import cvxpy as cp
import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from robustlib.theory import robust_logistic, worst_points


def samples(n: int = 60, m: int = 5):
    rng = np.random.default_rng(3)
    y = rng.choice([-1, 1], n)
    return y[:, None] * np.linspace(0.0, 0.8, m) + rng.normal(size=(n, m)), y


def loss_of(weights: np.ndarray, bias: float, x, y, eps: float, l1: float, l2: float) -> float:
    """The objective by its definition: the loss at the worst point of each sample."""
    worst = worst_points(y[:, None] * weights, x, eps=eps)
    value = np.logaddexp(0, -y * (worst @ weights + bias)).mean()
    return float(value + l1 * np.abs(weights).sum() + l2 / 2 * weights @ weights)


@pytest.mark.parametrize(
    ("eps", "l1", "l2"), [(0, 0, 0), (0.2, 0, 0), (0.5, 0, 0.01), (0, 0.05, 0), (0.1, 0.02, 0.1)]
)
def test_the_fit_is_the_minimum_that_a_convex_solver_finds(eps, l1, l2) -> None:
    x, y = samples()
    fit = robust_logistic(x, y, eps=eps, l1=l1, l2=l2)
    w, b = cp.Variable(x.shape[1]), cp.Variable()
    size = cp.norm(w, 1)
    losses = cp.logistic(eps * size - cp.multiply(y, x @ w + b))
    penalty = l1 * size + l2 / 2 * cp.sum_squares(w)
    lowest = cp.Problem(cp.Minimize(cp.sum(losses) / len(y) + penalty)).solve(solver=cp.CLARABEL)
    assert fit.loss == pytest.approx(lowest, abs=1e-6)
    assert fit.loss == pytest.approx(loss_of(fit.weights, fit.bias, x, y, eps, l1, l2), abs=1e-12)
    assert fit.slope < 1e-5
    assert fit.weights == pytest.approx(w.value, abs=2e-3)


def test_without_an_adversary_it_is_logistic_regression() -> None:
    x, y = samples()
    known = LogisticRegression(C=1 / (0.1 * len(x)), tol=1e-8, max_iter=1000).fit(x, y)
    fit = robust_logistic(x, y, l2=0.1)
    assert fit.weights == pytest.approx(known.coef_[0], abs=1e-4)
    assert fit.bias == pytest.approx(known.intercept_[0], abs=1e-4)


def test_at_its_minimum_the_adversary_acts_like_l1_decay_of_strength_eps_times_doubt() -> None:
    """The subgradient of the size has the factor ε · doubt, as λ has in l1 decay."""
    x, y = samples()
    eps = 0.3
    fit = robust_logistic(x, y, eps=eps)
    z = eps * np.abs(fit.weights).sum() - y * (x @ fit.weights + fit.bias)
    wrong = 1 / (1 + np.exp(-z))
    pull = x.T @ (wrong * y) / len(y)
    used = fit.weights != 0
    assert used.any()
    assert not used.all()
    assert pull[used] == pytest.approx(eps * fit.doubt * np.sign(fit.weights[used]), abs=1e-5)
    assert (np.abs(pull[~used]) <= eps * fit.doubt + 1e-5).all()


def test_where_samples_are_far_from_the_plane_the_adversary_lets_go_and_decay_does_not() -> None:
    x, y = np.array([[1.0], [-1.0]]), np.array([1, -1])
    few, many = (robust_logistic(x, y, eps=0.5, max_steps=steps) for steps in (1, 50))
    assert many.weights[0] > 2 * few.weights[0]  # no minimum: the weight grows on
    assert many.doubt < 1e-3
    decayed = robust_logistic(x, y, l1=0.1)
    assert decayed.doubt == pytest.approx(0.1, abs=1e-6)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"y": [1, 1]}, "both present"),
        ({"y": [0, 1]}, "-1 and \\+1"),
        ({"y": [1]}, "y has 1 labels"),
        ({"l1": -0.1}, "l1=-0.1"),
        ({"eps": -0.1}, "eps"),
        ({"max_steps": 0}, "max_steps"),
        ({"x": [1.0, 2.0]}, r"x has shape \(2,\)"),
    ],
)
def test_bad_input_is_named(change: dict, message: str) -> None:
    good = {"x": [[1.0], [-1.0]], "y": [1, -1]}
    arguments = good | change
    with pytest.raises(ValueError, match=message):
        robust_logistic(arguments.pop("x"), arguments.pop("y"), **arguments)
