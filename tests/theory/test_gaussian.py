"""The closed forms of the Gaussian model against the problems that they solve."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.linalg import sqrtm
from scipy.optimize import minimize, minimize_scalar
from scipy.stats import ortho_group

from robustlib import theory
from robustlib.theory.matrices import Array

TOY = np.diag([1.0, 25.0])


def random_covariance(seed: int, dim: int, spread: float = 30.0) -> Array:
    rng = np.random.default_rng(seed)
    values = np.exp(rng.uniform(-math.log(spread) / 2, math.log(spread) / 2, dim))
    basis = ortho_group.rvs(dim, random_state=rng) if dim > 1 else np.eye(1)
    cov = (basis * values) @ basis.T
    return (cov + cov.T) / 2


def admissible_penalty(cov: Array, factor: float = 1.7) -> float:
    return factor / float(np.linalg.eigvalsh(cov)[0])


seeds = st.integers(0, 2**32 - 1)
dims = st.integers(1, 6)


# Theorem 1


@settings(max_examples=50, deadline=None)
@given(seeds, dims, st.floats(1.05, 20))
def test_vulnerability_is_the_trace_formula_of_the_paper(seed, dim, factor):
    """The sum over eigenvalues equals tr[(I + (CΣ − I)⁻¹)²] − d as it is printed."""
    cov = random_covariance(seed, dim)
    penalty = admissible_penalty(cov, factor)
    stretch = np.eye(dim) + np.linalg.inv(penalty * cov - np.eye(dim))
    printed = np.trace(stretch @ stretch) - dim
    assert theory.adversarial_vulnerability(cov, penalty) == pytest.approx(printed, rel=1e-8)


@pytest.mark.parametrize("seed", range(5))
def test_the_adversary_of_theorem_1_is_a_numerical_maximum(seed):
    """No optimizer finds a better penalized δ than (CΣ − I)⁻¹ z."""
    cov = random_covariance(seed, 4)
    penalty = admissible_penalty(cov)
    precision = np.linalg.inv(cov)
    z = np.random.default_rng(seed).standard_normal(4)

    def loss(delta):
        return penalty * delta @ delta - (z + delta) @ precision @ (z + delta)

    found = minimize(loss, np.zeros(4), method="BFGS", options={"gtol": 1e-10})
    closed = np.linalg.solve(penalty * cov - np.eye(4), z)
    np.testing.assert_allclose(found.x, closed, rtol=1e-4, atol=1e-6)
    assert loss(closed) <= found.fun + 1e-9


def test_half_the_form_and_half_the_penalty_give_half_the_vulnerability():
    """With the log-likelihood's ½ in loss and penalty: the same attack, half the rise."""
    cov, penalty = random_covariance(3, 3), admissible_penalty(random_covariance(3, 3))
    precision = np.linalg.inv(cov)
    attack = np.linalg.inv(penalty * cov - np.eye(3))
    for z in np.random.default_rng(0).standard_normal((5, 3)):
        half = minimize(
            lambda d, z=z: penalty / 2 * d @ d - (z + d) @ precision @ (z + d) / 2, np.zeros(3)
        )
        np.testing.assert_allclose(half.x, attack @ z, rtol=1e-3, atol=1e-4)
    rise = (np.eye(3) + attack) @ precision @ (np.eye(3) + attack) - precision
    expected_half_rise = 0.5 * np.trace(rise @ cov)
    full = theory.adversarial_vulnerability(cov, penalty)
    assert expected_half_rise == pytest.approx(full / 2, rel=1e-10)


def test_a_penalty_on_the_norm_itself_never_stops_the_adversary():
    """Against C‖δ‖₂, not squared, the form grows without limit for every C."""
    for penalty in (1.0, 1e3):
        gains = [size**2 / 25.0 - penalty * size for size in (1e6, 1e7, 1e8)]
        assert gains[0] < gains[1] < gains[2]
        assert gains[2] > 1e10


@pytest.mark.parametrize("penalty", [2.0, 1.99, 0.1])
def test_a_penalty_at_or_below_the_limit_is_refused_with_both_numbers(penalty):
    with pytest.raises(ValueError, match=rf"penalty={penalty:g} .*eigenvalue of cov is 0\.5.*= 2 "):
        theory.adversarial_vulnerability(np.diag([0.5, 1.0, 2.5]), penalty)


@settings(max_examples=50, deadline=None)
@given(seeds, st.integers(2, 6), st.floats(1.05, 10))
def test_no_covariance_with_the_same_trace_is_less_vulnerable(seed, dim, factor):
    """(k/d) I is at most as vulnerable as any other Σ with trace k."""
    cov = random_covariance(seed, dim)
    penalty = admissible_penalty(cov, factor)
    best = theory.least_vulnerable_covariance(dim, float(np.trace(cov)))
    assert np.trace(best) == pytest.approx(np.trace(cov))
    lowest = theory.adversarial_vulnerability(best, penalty)
    assert lowest <= theory.adversarial_vulnerability(cov, penalty) * (1 + 1e-12)


def test_an_optimizer_over_the_trace_simplex_ends_at_equal_eigenvalues():
    def share(logits):
        weights = np.exp(logits - logits.max())
        return 12.0 * (0.1 * weights / weights.sum() + 0.9 / 4)  # keeps C s > 1

    def value(logits):
        return theory.adversarial_vulnerability(np.diag(share(logits)), 0.5)

    found = minimize(value, np.array([1.0, -2.0, 0.3, 0.0]), method="BFGS")
    np.testing.assert_allclose(share(found.x), 3.0, atol=1e-3)


# Theorem 2


def test_the_toy_comes_out_in_whole_numbers():
    """Deviations 1 and 5 with λ = 1/6 become 3 and 6; the perturbations' are 2 and 1."""
    np.testing.assert_allclose(
        theory.robust_covariance(TOY, 1 / 6), np.diag([9.0, 36.0]), atol=1e-12
    )
    assert theory.average_budget(TOY, 1 / 6) == pytest.approx(math.sqrt(2**2 + 1**2))


@settings(max_examples=40, deadline=None)
@given(seeds, dims, st.floats(-4, 4))
def test_robust_covariance_is_the_matrix_formula_of_the_paper(seed, dim, log_penalty):
    """½Σ + I/λ + (Σ/λ + Σ²/4)^½ with scipy's matrix square root."""
    cov, penalty = random_covariance(seed, dim), math.exp(log_penalty)
    printed = cov / 2 + np.eye(dim) / penalty + np.real(sqrtm(cov / penalty + cov @ cov / 4))
    np.testing.assert_allclose(
        theory.robust_covariance(cov, penalty), printed, rtol=1e-6, atol=1e-8 * printed.max()
    )


@pytest.mark.parametrize("variance", [0.2, 1.0, 7.0])
@pytest.mark.parametrize("penalty", [0.05, 1.0, 30.0])
def test_robust_variance_minimizes_the_penalized_loss(variance, penalty):
    """A search over the learned variance finds no lower loss than the closed form."""

    def loss(log_learned):  # E max_δ of the form, for a learned variance above 1/λ
        learned = 1 / penalty + math.exp(log_learned)
        worst = penalty * variance / (penalty * learned - 1)
        return 0.5 * worst + 0.5 * math.log(learned)

    found = minimize_scalar(loss, bounds=(-12, 12), method="bounded", options={"xatol": 1e-12})
    closed = float(theory.robust_covariance([[variance]], penalty)[0, 0])
    assert closed == pytest.approx(1 / penalty + math.exp(found.x), rel=1e-5)
    assert loss(math.log(closed - 1 / penalty)) <= found.fun + 1e-13


@settings(max_examples=60, deadline=None)
@given(seeds, dims, st.floats(-8, 8))
def test_the_attack_on_the_robust_parameters_always_has_a_maximum(seed, dim, log_penalty):
    """λ σ_min(Σ_r) > 1 for every λ, so Theorem 2 needs no upper limit on ε."""
    cov, penalty = random_covariance(seed, dim), math.exp(log_penalty)
    assert penalty * np.linalg.eigvalsh(theory.robust_covariance(cov, penalty))[0] > 1


@settings(max_examples=60, deadline=None)
@given(seeds, dims, st.floats(-9, 9))
def test_budget_and_penalty_are_inverse(seed, dim, log_eps):
    cov, eps = random_covariance(seed, dim), math.exp(log_eps)
    penalty = theory.penalty_for_budget(cov, eps)
    assert theory.average_budget(cov, penalty) == pytest.approx(eps, rel=1e-9)
    robust = np.linalg.eigvalsh(theory.robust_covariance(cov, penalty))
    paper = np.sum(np.linalg.eigvalsh(cov) / (penalty * robust - 1) ** 2)
    assert paper == pytest.approx(eps**2, rel=1e-4)


@settings(max_examples=30, deadline=None)
@given(seeds, dims, st.floats(-4, 4))
def test_robust_parameters_reproduce_themselves_on_the_attacked_data(seed, dim, log_penalty):
    """δ = (λΣ_r − I)⁻¹ z, its mean square is the budget, and z + δ has covariance Σ_r."""
    cov, penalty = random_covariance(seed, dim), math.exp(log_penalty)
    robust = theory.robust_covariance(cov, penalty)
    attack = theory.robust_attack(np.eye(dim), cov, penalty).T
    np.testing.assert_allclose(attack @ (penalty * robust - np.eye(dim)), np.eye(dim), atol=1e-8)
    stretch = np.eye(dim) + attack
    np.testing.assert_allclose(stretch @ cov @ stretch.T, robust, rtol=1e-7, atol=1e-9)
    squared = np.trace(attack @ cov @ attack.T)
    assert squared == pytest.approx(theory.average_budget(cov, penalty) ** 2, rel=1e-9)


def test_no_budget_leaves_the_covariance_and_a_larger_one_always_adds_to_it():
    cov = random_covariance(1, 4)
    assert theory.penalty_for_budget(cov, 0.0) == math.inf
    np.testing.assert_allclose(theory.robust_covariance(cov, math.inf), cov, rtol=1e-12)
    learned = [
        theory.robust_covariance(cov, theory.penalty_for_budget(cov, eps))
        for eps in (0.0, 0.1, 1.0, 10.0)
    ]
    for smaller, larger in pairwise(learned):
        assert np.linalg.eigvalsh(larger - smaller)[0] > 0


@pytest.mark.parametrize("dim", [1, 3, 10])
def test_equal_variances_grow_by_the_budget_per_dimension(dim):
    """For Σ = s I the robust deviation is √s + ε/√d."""
    learned = theory.robust_covariance(
        4.0 * np.eye(dim), theory.penalty_for_budget(4.0 * np.eye(dim), 3.0)
    )
    np.testing.assert_allclose(learned, (2 + 3 / math.sqrt(dim)) ** 2 * np.eye(dim), rtol=1e-10)


def test_the_penalty_scales_like_one_over_eps_and_then_like_one_over_eps_squared():
    """ε λ → √tr Σ⁻¹ for small and ε² λ → d for large budgets."""
    assert 1e-5 * theory.penalty_for_budget(TOY, 1e-5) == pytest.approx(math.sqrt(1.04), rel=1e-4)
    assert 1e10 * theory.penalty_for_budget(TOY, 1e5) == pytest.approx(2.0, rel=1e-3)


# Theorem 3


@pytest.mark.parametrize("seed", range(4))
def test_worst_alignment_is_what_a_search_over_means_finds(seed):
    cov = random_covariance(seed, 4)
    rng = np.random.default_rng(seed)
    found = min(
        minimize(lambda mean: theory.alignment(mean, cov), rng.standard_normal(4)).fun
        for _ in range(8)
    )
    assert found == pytest.approx(theory.worst_alignment(cov), abs=1e-6)
    at_worst = theory.alignment(theory.worst_mean(cov), cov)
    assert at_worst == pytest.approx(theory.worst_alignment(cov), abs=1e-12)


@settings(max_examples=60, deadline=None)
@given(seeds, st.integers(2, 6), st.floats(-5, 5))
def test_robust_training_improves_the_worst_alignment(seed, dim, log_eps):
    """Theorem 3: strictly, for every budget, because the condition number falls."""
    cov = random_covariance(seed, dim)
    robust = theory.robust_covariance(cov, theory.penalty_for_budget(cov, math.exp(log_eps)))
    assert np.linalg.cond(robust) < np.linalg.cond(cov)
    assert theory.worst_alignment(robust) > theory.worst_alignment(cov)


@settings(max_examples=100, deadline=None)
@given(seeds, st.integers(2, 6), st.floats(-4, 4), st.floats(-4, 4))
def test_robust_training_improves_the_alignment_of_every_mean(seed, dim, log_eps, log_other):
    """Stronger than Theorem 3: for each mean apart, and the more so the larger the budget."""
    cov = random_covariance(seed, dim)
    mean = np.random.default_rng(seed).standard_normal(dim)
    small, large = sorted((math.exp(log_eps), math.exp(log_other)))
    cosines = [
        theory.alignment(mean, theory.robust_covariance(cov, theory.penalty_for_budget(cov, eps)))
        for eps in (0.0, small, large)
    ]
    assert cosines[0] - 1e-12 <= cosines[1] <= cosines[2] + 1e-12


def test_alignment_is_the_cosine_of_the_gradient():
    cov, mean = random_covariance(5, 3), np.array([1.0, -2.0, 0.5])
    gradient = theory.classifier_weights(mean, cov)
    np.testing.assert_allclose(cov @ gradient, mean, rtol=1e-9)
    cosine = gradient @ mean / np.linalg.norm(gradient) / np.linalg.norm(mean)
    assert theory.alignment(mean, cov) == pytest.approx(cosine, rel=1e-12)


# Accuracy


def test_standard_weights_have_the_best_standard_accuracy():
    """Σ⁻¹μ attains Φ(√(μᵀΣ⁻¹μ)) and no direction nearby does better."""
    cov, mean = random_covariance(7, 3), np.array([0.5, 1.0, -0.3])
    weights = theory.classifier_weights(mean, cov)
    best = theory.linear_accuracy(weights, mean, cov)
    bayes = 0.5 * math.erfc(-math.sqrt(mean @ weights) / math.sqrt(2))
    assert best == pytest.approx(bayes, rel=1e-12)
    for step in np.random.default_rng(0).standard_normal((20, 3)):
        assert theory.linear_accuracy(weights + 0.1 * step, mean, cov) < best


@pytest.mark.parametrize("norm", ["2", "inf"])
def test_accuracy_falls_with_eps_and_ignores_the_scale_of_the_weights(norm):
    cov, mean, weights = random_covariance(2, 3), np.ones(3), np.array([1.0, 0.4, 0.2])
    accuracies = [
        theory.linear_accuracy(weights, mean, cov, eps=eps, norm=norm) for eps in (0, 0.5, 1, 2)
    ]
    assert accuracies == sorted(accuracies, reverse=True)
    scaled = theory.linear_accuracy(7 * weights, mean, cov, eps=1, norm=norm)
    assert scaled == pytest.approx(accuracies[2], rel=1e-12)


# Bad input


@pytest.mark.parametrize(
    ("cov", "error", "words"),
    [
        ([[1.0, 2.0], [0.0, 1.0]], ValueError, "cov is not symmetric.*differ by 2"),
        ([[1.0, 0.0], [0.0, 0.0]], ValueError, "cov is not positive definite.*eigenvalue is 0"),
        ([[1.0, 0.0], [0.0, -1.0]], ValueError, "cov is not positive definite"),
        ([[1.0, 0.0]], ValueError, r"cov has shape \(1, 2\).*square"),
        ([1.0, 2.0], ValueError, r"cov has shape \(2,\).*2 dimensions"),
        (np.zeros((0, 0)), ValueError, r"cov has shape \(0, 0\)"),
        ([[math.nan]], ValueError, "cov holds 1 NaN"),
        ("identity", TypeError, "cov is a str"),
        ([[1j]], TypeError, "cov holds complex numbers"),
    ],
)
def test_a_bad_covariance_is_refused_by_name(cov, error, words):
    with pytest.raises(error, match=words):
        theory.robust_covariance(cov, 1.0)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: theory.robust_covariance(TOY, 0.0), "penalty=0.0 is out of range"),
        (lambda: theory.robust_covariance(TOY, math.nan), "penalty=nan is out of range"),
        (lambda: theory.average_budget(TOY, -1.0), "penalty=-1.0 is out of range"),
        (lambda: theory.penalty_for_budget(TOY, -1.0), "eps=-1.0 is out of range"),
        (lambda: theory.penalty_for_budget(TOY, math.inf), "eps=inf is out of range"),
        (lambda: theory.adversarial_vulnerability(TOY, math.inf), "penalty=inf is out of range"),
        (lambda: theory.least_vulnerable_covariance(0, 1.0), "dim=0 is too small"),
        (lambda: theory.least_vulnerable_covariance(2, 0.0), "trace=0.0 is out of range"),
        (lambda: theory.robust_attack([[1.0]], TOY, 1.0), r"residual has shape \(1, 1\)"),
        (lambda: theory.robust_attack([[1.0, 1.0]], TOY, 0), "penalty=0 is out of range"),
        (lambda: theory.alignment([0.0, 0.0], TOY), "mean is the zero vector"),
        (lambda: theory.alignment([1.0], TOY), r"mean has shape \(1,\).*\(2,\)"),
        (lambda: theory.linear_accuracy([1, 0], [1, 1], TOY, norm="l2"), "norm='l2' is not known"),
        (lambda: theory.linear_accuracy([1, 0], [1, 1], TOY, eps=-1), "eps=-1 is out of range"),
    ],
)
def test_bad_arguments_are_refused_with_name_value_and_remedy(call, words):
    with pytest.raises(ValueError, match=words):
        call()
