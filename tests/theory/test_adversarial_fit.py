"""The exact inner maximum and the fit around it, against duality, brute force and symmetry."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize, minimize_scalar

from robustlib import theory

TOY = np.diag([1.0, 25.0])


def form(points, cov):
    return np.einsum("ni,ij,nj->n", points, np.linalg.inv(cov), points)


def dual_bound(z, values, eps):
    """min over ν of ν ε² + Σ ν z²/(ν s − 1): at least the maximum, for every ν (weak duality)."""

    def bound(log_gap):
        nu = (1 + math.exp(log_gap)) / values.min()
        return nu * eps**2 + np.sum(nu * z**2 / (nu * values - 1))

    return minimize_scalar(bound, bounds=(-35, 35), method="bounded", options={"xatol": 1e-9}).fun


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 6), st.floats(-6, 6), st.floats(0, 8))
def test_the_perturbation_reaches_the_dual_bound(seed, dim, log_eps, log_spread):
    """Primal value = dual bound proves that no perturbation in the ball is better."""
    rng = np.random.default_rng(seed)
    values = np.exp(rng.uniform(0, log_spread, dim))
    z = rng.standard_normal((3, dim)) * np.sqrt(values)
    eps = math.exp(log_eps)
    delta = theory.worst_perturbation(z, np.diag(values), eps=eps)
    np.testing.assert_allclose(np.linalg.norm(delta, axis=1), eps, rtol=1e-12)
    reached = form(z + delta, np.diag(values))
    for sample, value in zip(z, reached, strict=True):
        assert value == pytest.approx(dual_bound(sample, values, eps), rel=1e-7)


def test_no_point_on_the_circle_is_better_in_a_rotated_basis():
    cov = np.array([[3.0, 1.2], [1.2, 1.0]])
    z = np.random.default_rng(0).standard_normal((50, 2)) * 2
    angle = np.linspace(0, 2 * np.pi, 20_001)
    circle = 0.7 * np.stack([np.cos(angle), np.sin(angle)], axis=1)
    reached = form(z + theory.worst_perturbation(z, cov, eps=0.7), cov)
    for sample, value in zip(z, reached, strict=True):
        best = form(sample + circle, cov).max()
        assert best - 1e-9 <= value <= best + 1e-5


@pytest.mark.parametrize("z", [[0.0, 0.0], [0.0, 2.0], [1e-200, 2.0], [0.0, 1e-3]])
def test_a_residual_without_a_part_in_the_weakest_direction_is_solved_too(z):
    """The hard case of the trust region: what is left of the ball goes into that direction."""
    delta = theory.worst_perturbation([z], TOY, eps=1.5)
    assert np.linalg.norm(delta) == pytest.approx(1.5, rel=1e-12)
    rest = z[1] / (25 - 1)
    assert abs(delta[0, 1]) == pytest.approx(rest, abs=1e-9)
    assert form(np.array([z]) + delta, TOY)[0] == pytest.approx(
        1.5**2 - rest**2 + (z[1] + rest) ** 2 / 25, rel=1e-9
    )


def test_a_residual_outside_the_hard_case_keeps_the_ordinary_solution():
    """With no weak part but a ball too small for the hard case, δ follows the residual."""
    delta = theory.worst_perturbation([[0.0, 100.0]], TOY, eps=1.5)
    np.testing.assert_allclose(delta, [[0.0, 1.5]], atol=1e-9)


def test_equal_variances_and_zero_radius_have_the_obvious_answers():
    z = np.array([[3.0, 4.0], [-1.0, 0.0]])
    pushed = theory.worst_perturbation(z, 2 * np.eye(2), eps=0.5)
    np.testing.assert_allclose(pushed, [[0.3, 0.4], [-0.5, 0.0]], atol=1e-12)
    np.testing.assert_array_equal(theory.worst_perturbation(z, TOY, eps=0.0), np.zeros((2, 2)))


def test_without_an_attack_the_fit_is_maximum_likelihood():
    x, y = theory.sample([2.0, 1.0], TOY, 500, generator=torch.Generator().manual_seed(0))
    fit = theory.adversarial_fit(x, y, eps=0.0)
    folded = x * y[:, None]
    np.testing.assert_allclose(fit.mean, folded.mean(axis=0), atol=1e-5)
    np.testing.assert_allclose(fit.cov, np.cov(folded.T, bias=True), atol=1e-4)


def test_one_dimension_has_a_closed_form():
    """For a symmetric sample the mean stays and the variance is the mean of (|z| + ε)²."""
    z = np.random.default_rng(1).standard_normal(200)
    z = np.concatenate([z, -z])
    fit = theory.adversarial_fit(5 + z[:, None], np.ones(400), eps=0.8)
    assert fit.mean[0] == pytest.approx(5, abs=1e-5)
    assert fit.cov[0, 0] == pytest.approx(np.mean((np.abs(z) + 0.8) ** 2), rel=1e-5)


def test_a_round_sample_has_a_closed_form():
    """Points on hexagons look the same from six sides, so the fit is round: E(‖z‖ + ε)²/2."""
    angle = np.arange(6) * np.pi / 3
    radius = np.array([0.5, 1.0, 2.0])
    z = (radius[:, None, None] * np.stack([np.cos(angle), np.sin(angle)], axis=1)).reshape(-1, 2)
    fit = theory.adversarial_fit(z + np.array([1.0, -2.0]), np.ones(len(z)), eps=0.6)
    np.testing.assert_allclose(fit.mean, [1.0, -2.0], atol=1e-5)
    expected = np.mean((radius + 0.6) ** 2) / 2
    np.testing.assert_allclose(fit.cov, expected * np.eye(2), atol=1e-5)


def test_no_parameters_nearby_have_a_lower_loss():
    """A derivative-free search from the fit finds nothing better: the gradient is not trusted."""
    x, y = theory.sample([2.0, 1.0], TOY, 40, generator=torch.Generator().manual_seed(1))
    eps = 1.0
    fit = theory.adversarial_fit(x, y, eps=eps)
    assert fit.gap < 1e-4
    folded = x * y[:, None]

    def loss(flat):
        factor = np.array([[math.exp(flat[2]), 0.0], [flat[3], math.exp(flat[4])]])
        cov = factor @ factor.T
        z = folded - flat[:2]
        attacked = z + theory.worst_perturbation(z, cov, eps=eps)
        return 0.5 * form(attacked, cov).mean() + 0.5 * np.linalg.slogdet(cov)[1]

    root = np.linalg.cholesky(fit.cov)
    start = np.array([*fit.mean, math.log(root[0, 0]), root[1, 0], math.log(root[1, 1])])
    assert loss(start) == pytest.approx(fit.loss, rel=1e-9)
    searched = minimize(loss, start + 0.05, method="Nelder-Mead", options={"maxfev": 800})
    assert fit.loss <= searched.fun + 1e-9


def test_the_learned_mean_stays_and_the_covariance_grows_toward_the_identity():
    """Theorem 2 in the per-sample game: same mean, same eigenvectors, smaller condition number."""
    x, y = theory.sample([7.5, 1.5], TOY, 2_000, generator=torch.Generator().manual_seed(2))
    x, y = np.concatenate([x, 2 * y[:, None] * [7.5, 1.5] - x]), np.concatenate([y, y])
    fits = [theory.adversarial_fit(x, y, eps=eps) for eps in (0.0, 1.0, 10.0)]
    for fit in fits:
        np.testing.assert_allclose(fit.mean, [7.5, 1.5], atol=1e-4)
    conditions = [np.linalg.cond(fit.cov) for fit in fits]
    assert conditions[0] > conditions[1] > conditions[2]
    for smaller, larger in pairwise(fits):
        assert np.linalg.eigvalsh(larger.cov - smaller.cov)[0] > 0


def test_a_fit_that_did_not_finish_says_so():
    x, y = theory.sample([7.5, 1.5], TOY, 100, generator=torch.Generator().manual_seed(2))
    with pytest.raises(RuntimeError, match=r"after 1 steps with gap .* raise max_steps=1"):
        theory.adversarial_fit(x, y, eps=5.0, max_steps=1)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: theory.worst_perturbation([[1.0]], TOY, eps=1.0), r"residual has shape \(1, 1\)"),
        (
            lambda: theory.worst_perturbation([[1.0, 2.0]], TOY, eps=-1.0),
            "eps=-1.0 is out of range",
        ),
        (
            lambda: theory.worst_perturbation([[math.inf, 2.0]], TOY, eps=1.0),
            "residual holds 1 NaN",
        ),
        (lambda: theory.adversarial_fit([[1.0], [2.0]], [0, 1], eps=1.0), "label, −1 or"),
        (lambda: theory.adversarial_fit([[1.0], [2.0]], [1], eps=1.0), r"y has shape \(1,\)"),
        (
            lambda: theory.adversarial_fit([[1.0], [1.0]], [1, 1], eps=1.0),
            "covariance of the samples is not positive definite",
        ),
    ],
)
def test_bad_arguments_are_refused(call, words):
    with pytest.raises(ValueError, match=words):
        call()
