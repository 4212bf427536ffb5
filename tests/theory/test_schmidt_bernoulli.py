"""The Bernoulli model of Schmidt et al.: exact errors against enumeration, and the threshold."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from robustlib.theory import schmidt_bernoulli as bernoulli

seeds = st.integers(0, 2**32 - 1)
taus = st.floats(0.01, 0.5)


def enumerated_error(weights, theta, tau, eps):
    """Over all 2^d inputs of class +1; a margin of zero is an error."""
    flips = np.array(list(itertools.product([1, -1], repeat=len(theta))))
    chances = np.prod(np.where(flips == 1, 0.5 + tau, 0.5 - tau), axis=1)
    margins = (flips * theta) @ weights - eps * np.abs(weights).sum()
    return chances[margins <= 1e-9].sum()


def within_four_standard_errors(wrong, n, error):
    return abs(wrong / n - error) <= 4 * math.sqrt(error * (1 - error) / n) + 1e-9


@settings(max_examples=150, deadline=None)
@given(seeds, st.integers(1, 8), taus, st.sampled_from([0.0, 0.1, 0.25, 1 / 3, 0.5, 0.9, 1.0, 2.0]))
def test_the_error_is_the_sum_over_all_inputs(seed, dim, tau, eps):
    rng = np.random.default_rng(seed)
    theta = rng.choice([-1.0, 1.0], dim)
    weights = rng.integers(-4, 5, dim).astype(float)
    weights[rng.integers(dim)] = 3
    error = bernoulli.linear_error(weights, theta, tau=tau, eps=eps)
    assert error == pytest.approx(enumerated_error(weights, theta, tau, eps), abs=1e-12)


@pytest.mark.parametrize("dim", [1, 2, 777, 5000])
def test_equal_weights_give_a_binomial(dim):
    error = bernoulli.linear_error(np.ones(dim), np.ones(dim), tau=0.02, eps=0.0)
    expected = stats.binom.cdf(dim // 2, dim, 0.52)
    assert error == pytest.approx(expected, abs=1e-10)


@pytest.mark.parametrize("eps", [0.0, 0.2, 0.6, 1.0, 1.5])
@pytest.mark.parametrize("thresholded", [False, True])
def test_the_error_lies_within_four_standard_errors(eps, thresholded):
    """Ties included: the weights add up to an even number."""
    theta = np.array([1, -1, 1, 1, -1, 1, -1, 1])
    weights = np.array([3, -1, 2, -1, -2, 0, -4, 1])
    n = 40_000
    correct = bernoulli.simulate_correct(
        weights,
        theta,
        n,
        tau=0.2,
        eps=eps,
        thresholded=thresholded,
        generator=np.random.default_rng(0),
    )
    exact = bernoulli.threshold_error if thresholded else bernoulli.linear_error
    assert within_four_standard_errors(n - correct, n, exact(weights, theta, tau=0.2, eps=eps))


@settings(max_examples=40, deadline=None)
@given(seeds, st.integers(50, 400), taus, st.floats(0, 1))
def test_the_normal_law_is_within_the_bound_of_berry_and_esseen(seed, dim, tau, eps):
    rng = np.random.default_rng(seed)
    theta = rng.choice([-1.0, 1.0], dim)
    weights = rng.integers(-3, 6, dim).astype(float)
    weights[0] = 1
    tau = min(tau, 0.45)
    exact = bernoulli.linear_error(weights, theta, tau=tau, eps=eps)
    normal = bernoulli.linear_error(weights, theta, tau=tau, eps=eps, method="normal")
    variance = 1 - 4 * tau**2
    third = variance * (1 + 4 * tau**2)  # E|z − Ez|³ of one sign
    ratio = third * np.sum(np.abs(weights) ** 3) / (variance * np.sum(weights**2)) ** 1.5
    assert abs(exact - normal) <= 0.56 * ratio + 1e-9


@settings(max_examples=60, deadline=None)
@given(seeds, st.integers(1, 200), taus, st.floats(0, 1))
def test_the_error_rises_with_the_radius_and_falls_with_tau(seed, dim, tau, eps):
    rng = np.random.default_rng(seed)
    theta = rng.choice([-1.0, 1.0], dim)
    error = bernoulli.linear_error(theta, theta, tau=tau, eps=eps)
    assert bernoulli.linear_error(theta, theta, tau=tau, eps=eps + 0.1) >= error - 1e-10
    assert bernoulli.linear_error(theta, theta, tau=tau / 2, eps=eps) >= error - 1e-10
    assert bernoulli.linear_error(5 * theta, theta, tau=tau, eps=eps) == pytest.approx(error)
    assert bernoulli.linear_error(theta, theta, tau=tau, eps=1.0) == pytest.approx(1)


@settings(max_examples=60, deadline=None)
@given(seeds, st.integers(1, 100), taus)
def test_lemma_26_is_above_the_standard_error(seed, dim, tau):
    """exp(−2τ²⟨w, θ*⟩²) for weights of norm 1 on the right side of θ*."""
    rng = np.random.default_rng(seed)
    weights = rng.integers(-3, 6, dim).astype(float)
    weights[0] = 5
    along = max(0.0, weights.sum()) / np.linalg.norm(weights)
    error = bernoulli.linear_error(weights, np.ones(dim), tau=tau)
    assert error <= math.exp(-2 * (tau * along) ** 2) + 1e-10


@pytest.mark.parametrize(("dim", "tau"), [(100, 0.25), (400, 0.15)])
def test_theorem_27_holds_on_training_sets(dim, tau):
    rng, theta, trials = np.random.default_rng(1), np.ones(dim), 300
    bound = bernoulli.single_sample_error_bound(dim, tau=tau)
    failed = 0
    for _ in range(trials):
        weights = bernoulli.sum_weights(*bernoulli.sample(theta, 1, tau=tau, generator=rng))
        failed += bernoulli.linear_error(weights, theta, tau=tau) > bound
    allowed = math.exp(-(tau**2) * dim / 2)
    assert allowed < 0.05
    assert failed / trials <= allowed + 4 * math.sqrt(allowed / trials)


@settings(max_examples=50, deadline=None)
@given(st.integers(1, 10**6), st.floats(0.001, 0.999))
def test_corollary_28_inverts_theorem_27(dim, error):
    tau = bernoulli.single_sample_tau(dim, error=error)
    if tau <= 0.5:
        assert bernoulli.single_sample_error_bound(dim, tau=tau) == pytest.approx(error)


# The threshold


@settings(max_examples=60, deadline=None)
@given(seeds, st.integers(1, 50), st.floats(0, 0.999))
def test_the_threshold_undoes_every_perturbation_below_one(seed, dim, eps):
    rng = np.random.default_rng(seed)
    x = rng.choice([-1.0, 1.0], (20, dim))
    moved = x + eps * rng.uniform(-1, 1, x.shape)
    np.testing.assert_array_equal(bernoulli.threshold(moved), x)
    np.testing.assert_array_equal(bernoulli.threshold(x - eps * np.sign(x)), x)


def test_one_sample_makes_the_threshold_robust_and_no_linear_classifier():
    """Theorem 10 at d = 2500 and the τ of Corollary 28, over 30 training sets of one sample."""
    dim = 2500
    tau, theta = bernoulli.single_sample_tau(dim), np.ones(dim)
    rng, robust, linear = np.random.default_rng(2), [], []
    for _ in range(30):
        weights = bernoulli.sum_weights(*bernoulli.sample(theta, 1, tau=tau, generator=rng))
        robust.append(bernoulli.threshold_error(weights, theta, tau=tau, eps=0.999))
        linear.append(bernoulli.linear_error(weights, theta, tau=tau, eps=0.2))
    assert max(robust) < 0.01
    assert min(linear) > 0.9
    assert tau < 0.2 < 2 * tau  # with θ* known a linear classifier would withstand this radius
    assert bernoulli.linear_error(theta, theta, tau=tau, eps=0.2) < 0.01


def test_from_radius_one_on_the_adversary_chooses_the_signs():
    theta = np.ones(6)
    for eps, expected in ((0.999, None), (1.0, 1.0), (3.0, 1.0)):
        error = bernoulli.threshold_error(theta, theta, tau=0.3, eps=eps)
        standard = bernoulli.linear_error(theta, theta, tau=0.3)
        assert error == (standard if expected is None else expected)


@pytest.mark.parametrize(("dim", "tau", "eps"), [(100, 0.004, 0.0119), (40, 0.002, 0.005)])
def test_theorem_31_is_below_the_error_of_the_linear_learner(dim, tau, eps):
    """Where it says something: at most n samples, error at least ½ − γ on average."""
    gamma = 0.4
    n = math.floor(bernoulli.linear_necessary_samples(dim, tau=tau, eps=eps, gamma=gamma))
    assert n >= 1
    curve = bernoulli.error_curve(
        dim, tau=tau, n=[n], eps=[eps], trials=30, generator=np.random.default_rng(3)
    )
    assert curve.low[0, 0] >= 0.5 - gamma


# Samples and curves


def test_samples_have_the_law_asked_for():
    n, theta = 40_000, np.array([1.0, -1.0])
    x, y = bernoulli.sample(theta, n, tau=0.2, generator=np.random.default_rng(4))
    assert set(np.unique(x)) == set(np.unique(y)) == {-1.0, 1.0}
    assert abs(y.mean()) < 4 / math.sqrt(n)
    kept = x * y[:, None] == theta
    for column in kept.T:
        assert within_four_standard_errors(column.sum(), n, 0.7)
    assert within_four_standard_errors(np.sum(kept[:, 0] & kept[:, 1]), n, 0.49)


def test_the_curve_draws_from_the_law_of_the_learner():
    """Means over trials agree with those of real training sets, within four standard errors."""
    rng, dim, tau, n, trials = np.random.default_rng(5), 60, 0.15, 4, 200
    curve = bernoulli.error_curve(dim, tau=tau, n=[n], eps=[0.0, 0.1], trials=trials, generator=rng)
    theta = rng.choice([-1.0, 1.0], dim)
    weights = [
        bernoulli.sum_weights(*bernoulli.sample(theta, n, tau=tau, generator=rng))
        for _ in range(trials)
    ]
    for j, eps in enumerate((0.0, 0.1)):
        errors = np.array([bernoulli.linear_error(w, theta, tau=tau, eps=eps) for w in weights])
        spread = errors.std() * math.sqrt(2 / trials)
        assert abs(curve.mean[0, j] - errors.mean()) < 4 * spread


def test_linear_robust_learning_needs_more_samples_by_the_root_of_the_dimension():
    """At ε = 1.6 τ, for an error of 40 %: about 4 times as many when d grows by 16.

    One sample is enough for 1 % standard error, and so for the threshold at every ε < 1.
    """
    needed = []
    for dim in (1024, 16_384):
        tau = 1.05 * bernoulli.single_sample_tau(dim)
        curve = bernoulli.error_curve(
            dim,
            tau=tau,
            n=[1, 2, 3, 4, 5, 6, 8, 10, 12, 14, 17, 20, 24],
            eps=[0.0, 1.6 * tau],
            trials=3,
            generator=np.random.default_rng(6),
        )
        assert curve.samples_for(0.01)[0] == 1
        needed.append(curve.samples_for(0.4)[1])
    assert needed[0] > 1
    assert 2.5 < needed[1] / needed[0] < 7


ONES = np.ones(3)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: bernoulli.sample([1, 0], 2, tau=0.1), "theta holds other numbers than −1 and"),
        (lambda: bernoulli.sample(ONES, 2, tau=0.0), "tau=0.0 is out of range"),
        (lambda: bernoulli.sample(ONES, 2, tau=0.6), "tau=0.6 is out of range"),
        (lambda: bernoulli.linear_error([1, 1], ONES, tau=0.1), r"theta asks for \(3,\)"),
        (lambda: bernoulli.linear_error([0, 0, 0], ONES, tau=0.1), "weights is the zero vector"),
        (lambda: bernoulli.linear_error([0.5, 1, 1], ONES, tau=0.1), "not whole numbers; multiply"),
        (lambda: bernoulli.linear_error([1e9, 1, 1], ONES, tau=0.1), r"add up to 1e\+09 in size"),
        (
            lambda: bernoulli.linear_error(ONES, ONES, tau=0.1, method="fast"),
            "method='fast' is not known",
        ),
        (lambda: bernoulli.sum_weights([[1, 1]], [0]), "label, −1 or"),
        (
            lambda: bernoulli.linear_necessary_samples(9, tau=0.1, eps=0.31, gamma=0.1),
            "eps=0.31 is out of range: give less than 3 tau = 0.3",
        ),
        (
            lambda: bernoulli.linear_necessary_samples(9, tau=0.3, eps=0.1, gamma=0.1),
            "tau=0.3 is out of range",
        ),
        (
            lambda: bernoulli.linear_necessary_samples(9, tau=0.1, eps=0.1, gamma=0.5),
            "gamma=0.5 is out of range",
        ),
        (lambda: bernoulli.single_sample_tau(9, error=0.0), "error=0.0 is out of range"),
        (lambda: bernoulli.error_curve(0, tau=0.1, n=[1], eps=[0.0]), "dim=0 is too small"),
    ],
)
def test_bad_arguments_are_refused(call, words):
    with pytest.raises(ValueError, match=words):
        call()
