"""The Gaussian model of Schmidt et al.: exact errors, the bounds around them, and the curves."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from robustlib import theory
from robustlib.theory import schmidt_gaussian as gaussian
from robustlib.theory.curves import sample_size_curve

seeds = st.integers(0, 2**32 - 1)


def learned_errors(theta, sigma, n, eps, trials, seed):
    """Errors of `mean_weights` from samples, one training set after another."""
    rng = np.random.default_rng(seed)
    weights = [
        gaussian.mean_weights(*gaussian.sample(theta, n, sigma=sigma, generator=rng))
        for _ in range(trials)
    ]
    return np.array([gaussian.linear_error(w, theta, sigma=sigma, eps=eps) for w in weights])


@settings(max_examples=40, deadline=None)
@given(seeds, st.integers(1, 6), st.floats(0.1, 3), st.floats(0, 1), st.sampled_from(["2", "inf"]))
def test_the_error_is_that_of_the_general_gaussian_model(seed, dim, sigma, eps, norm):
    weights, theta = np.random.default_rng(seed).standard_normal((2, dim))
    expected = 1 - theory.linear_accuracy(
        weights, theta, sigma**2 * np.eye(dim), eps=eps, norm=norm
    )
    error = gaussian.linear_error(weights, theta, sigma=sigma, eps=eps, norm=norm)
    assert error == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("eps", [0.0, 0.25, 0.8])
def test_the_error_lies_within_four_standard_errors(eps):
    weights, theta, n = [1.0, -0.5, 0.2], [1.2, -0.8, -0.1], 40_000
    correct = gaussian.simulate_correct(
        weights, theta, n, sigma=0.9, eps=eps, generator=np.random.default_rng(0)
    )
    error = gaussian.linear_error(weights, theta, sigma=0.9, eps=eps)
    assert abs(1 - correct / n - error) < 4 * math.sqrt(error * (1 - error) / n)


@settings(max_examples=60, deadline=None)
@given(seeds, st.integers(1, 8), st.floats(0.1, 3), st.floats(0, 1))
def test_lemma_20_is_above_the_error(seed, dim, sigma, eps):
    weights, theta = np.random.default_rng(seed).standard_normal((2, dim))
    weights = weights if seed % 2 else theta + 0.3 * weights
    error = gaussian.linear_error(weights, theta, sigma=sigma, eps=eps)
    assert error <= gaussian.error_bound(weights, theta, sigma=sigma, eps=eps) + 1e-15


@settings(max_examples=60, deadline=None)
@given(seeds, st.integers(1, 8), st.floats(0, 0.99), st.floats(0, 1))
def test_no_weights_are_more_robust_than_the_shrunken_mean(seed, dim, share, noise):
    rng = np.random.default_rng(seed)
    theta = rng.standard_normal(dim)
    eps = share * np.abs(theta).max()
    best = gaussian.robust_weights(theta, eps)
    lowest = gaussian.linear_error(best, theta, sigma=0.7, eps=eps)
    assert lowest < 0.5
    for weights in (rng.standard_normal(dim), best + noise * rng.standard_normal(dim), theta):
        assert gaussian.linear_error(weights, theta, sigma=0.7, eps=eps) >= lowest - 1e-12


# Theorems


def test_lemma_16_fails_no_more_often_than_it_says():
    """d = 60, σ = 1, n = 2: at most 2 exp(−60/16) = 4.7 % of the cosines are below the bound."""
    dim, sigma, n, trials = 60, 1.0, 2, 2_000
    mean = np.ones(dim) + sigma / math.sqrt(n) * np.random.default_rng(0).standard_normal(
        (trials, dim)
    )
    cosines = mean.sum(axis=1) / np.linalg.norm(mean, axis=1) / math.sqrt(dim)
    allowed = gaussian.failure_probability(dim, sigma=sigma)
    assert allowed == pytest.approx(0.047, abs=1e-3)
    failed = np.mean(cosines <= gaussian.alignment_bound(n, sigma=sigma))
    assert failed <= allowed + 4 * math.sqrt(allowed / trials)


@pytest.mark.parametrize(("dim", "sigma", "n"), [(60, 0.5, 1), (100, 1.0, 16)])
def test_theorem_21_holds_on_training_sets(dim, sigma, n):
    eps = gaussian.robust_radius(n, dim, sigma=sigma, error=0.05)
    assert eps > 0
    errors = learned_errors(np.ones(dim), sigma, n, eps, 300, seed=1)
    allowed = gaussian.failure_probability(dim, sigma=sigma)
    assert np.mean(errors > 0.05) <= allowed + 4 * math.sqrt(allowed / 300)


@settings(max_examples=200, deadline=None)
@given(st.integers(1, 10**9), st.floats(0.001, 1), st.floats(0, 1))
def test_corollary_22_follows_from_theorem_21(dim, noise, size):
    """At the number of samples it names, the radius of Theorem 21 for 1 % is large enough."""
    sigma, eps = noise * dim**0.25 / 32, size / 4
    n = gaussian.sufficient_samples(dim, sigma=sigma, eps=eps)
    assert gaussian.robust_radius(n, dim, sigma=sigma, error=0.01) >= eps - 1e-12


@pytest.mark.parametrize("dim", [16, 256, 4096])
def test_one_sample_is_enough_for_one_percent_at_the_noise_of_the_paper(dim):
    """Theorem 4, with σ = d^¼/32: on average over 50 training sets of one sample."""
    sigma = dim**0.25 / 32
    curve = gaussian.error_curve(
        np.ones(dim),
        sigma=sigma,
        n=[1],
        eps=[0.0, dim**-0.25 / 4],
        generator=np.random.default_rng(2),
    )
    assert (curve.high <= 0.01).all()


def test_theorem_11_is_the_chance_that_it_names():
    """½ P[√(n/(σ²+n)) ‖v‖∞ ≤ ε] by drawing v."""
    n, dim, sigma, eps = 3, 20, 2.0, 1.6
    v = np.random.default_rng(3).standard_normal((20_000, dim))
    inside = np.mean(np.abs(v).max(axis=1) * math.sqrt(n / (sigma**2 + n)) <= eps)
    bound = gaussian.least_error(n, dim, sigma=sigma, eps=eps)
    assert abs(inside / 2 - bound) < 4 * math.sqrt(inside * (1 - inside) / 20_000) / 2


@pytest.mark.parametrize(("n", "sigma", "eps"), [(1, 3.0, 0.9), (2, 2.0, 1.0), (10, 3.0, 1.5)])
def test_theorem_11_is_below_the_error_of_learners(n, sigma, eps):
    """Averaged over θ* from N(0, I): the plain mean, and the mean that forgets small entries."""
    rng, dim, trials = np.random.default_rng(4), 50, 400
    plain, shrunk = [], []
    for _ in range(trials):
        theta = rng.standard_normal(dim)
        x, y = gaussian.sample(theta, n, sigma=sigma, generator=rng)
        mean = n / (n + sigma**2) * (y @ x / n)
        plain.append(gaussian.linear_error(mean, theta, sigma=sigma, eps=eps))
        reach = min(eps, 0.9 * np.abs(mean).max())
        weights = gaussian.robust_weights(mean, reach)
        shrunk.append(gaussian.linear_error(weights, theta, sigma=sigma, eps=eps))
    bound = gaussian.least_error(n, dim, sigma=sigma, eps=eps)
    assert bound > 0.005
    for errors in (plain, shrunk):
        assert np.mean(errors) >= bound - 4 * np.std(errors) / math.sqrt(trials)


@settings(max_examples=100, deadline=None)
@given(st.integers(2, 10**6), st.floats(0.1, 100), st.floats(0, 10))
def test_corollary_23_follows_from_theorem_11(dim, sigma, eps):
    limit = gaussian.necessary_samples(dim, sigma=sigma, eps=eps)
    if limit >= 1:
        least = gaussian.least_error(math.floor(limit), dim, sigma=sigma, eps=eps)
        assert least >= (1 - 1 / dim) / 2 - 1e-12


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 1000), st.integers(1, 10**5), st.floats(0.01, 50), st.floats(0, 3))
def test_the_bounds_move_the_right_way(n, dim, sigma, eps):
    least = gaussian.least_error(n, dim, sigma=sigma, eps=eps)
    assert 0 <= least <= 0.5
    assert gaussian.least_error(n + 1, dim, sigma=sigma, eps=eps) <= least
    assert gaussian.least_error(n, dim, sigma=sigma, eps=eps + 0.1) >= least
    radius = gaussian.robust_radius(n, dim, sigma=sigma, error=0.01)
    assert radius < 1
    assert gaussian.robust_radius(n + 1, dim, sigma=sigma, error=0.01) > radius
    assert gaussian.robust_radius(n, dim, sigma=sigma, error=0.02) > radius


def test_with_many_samples_and_no_noise_the_limits_are_reached():
    assert gaussian.least_error(10**12, 100, sigma=1.0, eps=0.5) < 1e-30
    assert gaussian.least_error(1, 100, sigma=1e9, eps=1.0) == pytest.approx(0.5)
    assert gaussian.robust_radius(10**12, 10**12, sigma=0.1, error=0.01) == pytest.approx(1, 1e-4)


# Curves


def test_the_curve_draws_from_the_law_of_the_learner():
    """Means over trials agree with those of real training sets, within four standard errors."""
    theta = np.concatenate([np.ones(10), -2 * np.ones(10)])
    curve = gaussian.error_curve(
        theta, sigma=2.0, n=[3], eps=[0.0, 0.5], trials=400, generator=np.random.default_rng(5)
    )
    for j, eps in enumerate((0.0, 0.5)):
        errors = learned_errors(theta, 2.0, 3, eps, 400, seed=6)
        spread = errors.std() * math.sqrt(2 / 400)
        assert abs(curve.mean[0, j] - errors.mean()) < 4 * spread


def test_robust_learning_needs_more_samples_by_the_root_of_the_dimension():
    """σ = 0.6 d^¼: one sample is enough for 1 % standard error, in every dimension.

    At ε = 0.8 the number for a robust error of 40 % grows with √d: by about 4 when d grows by 16.
    """
    needed = []
    for dim in (1024, 16_384):
        curve = gaussian.error_curve(
            np.ones(dim),
            sigma=0.6 * dim**0.25,
            n=np.unique(np.round(1.15 ** np.arange(32))),
            eps=[0.0, 0.8],
            trials=20,
            generator=np.random.default_rng(7),
        )
        assert curve.samples_for(0.01)[0] == 1
        needed.append(curve.samples_for(0.4)[1])
    assert needed[0] > 3
    assert 2.8 < needed[1] / needed[0] < 5.7


def test_the_intervals_are_those_of_student():
    values = np.array([[0.1], [0.2], [0.6], [0.3]])
    curve = sample_size_curve(lambda size, eps: values, n=[5], eps=[0.0], trials=4, level=0.9)
    low, high = stats.t.interval(0.9, 3, loc=values.mean(), scale=stats.sem(values[:, 0]))
    assert curve.low[0, 0] == pytest.approx(max(0, low))
    assert curve.high[0, 0] == pytest.approx(high)
    assert curve.trials == 4


def test_a_dip_by_chance_does_not_count_as_enough():
    mean = np.array([[0.2], [0.005], [0.02], [0.001]])
    n = np.array([1.0, 2, 3, 4])
    curve = theory.SampleSizeCurve(n, np.zeros(1), mean, mean, mean, trials=2)
    assert curve.samples_for(0.01) == [4]
    assert np.isnan(curve.samples_for(0.0001)).all()


ONES = [1.0, 1.0]


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: gaussian.sample(ONES, 1, sigma=0.0), "sigma=0.0 is out of range"),
        (lambda: gaussian.sample([0.0, 0.0], 1, sigma=1.0), "theta is the zero vector"),
        (lambda: gaussian.sample([], 1, sigma=1.0), r"theta has shape \(0,\)"),
        (lambda: gaussian.linear_error([1.0], ONES, sigma=1.0), r"\(1,\); theta asks for \(2,\)"),
        (
            lambda: gaussian.linear_error(ONES, ONES, sigma=1.0, norm="1"),
            "norm='1' is not known",
        ),
        (lambda: gaussian.mean_weights([ONES], [0]), "label, −1 or"),
        (lambda: gaussian.mean_weights([ONES, ONES], [1, -1]), "the mean of y x is the zero"),
        (lambda: gaussian.robust_weights(ONES, 1.0), "eps=1 is out of range: the largest entry"),
        (
            lambda: gaussian.sufficient_samples(16, sigma=1.0, eps=0.1),
            "sigma=1.0 .* at most 0.0625",
        ),
        (lambda: gaussian.sufficient_samples(16, sigma=0.05, eps=0.3), "eps=0.3 .* at most 0.25"),
        (lambda: gaussian.robust_radius(1, 4, sigma=1.0, error=0.0), "error=0.0 is out of range"),
        (lambda: gaussian.necessary_samples(1, sigma=1.0, eps=0.1), "dim=1 is too small"),
        (lambda: gaussian.error_curve(ONES, sigma=1.0, n=[0], eps=[0.0]), "n=0 is too small"),
        (lambda: gaussian.error_curve(ONES, sigma=1.0, n=[1], eps=[-1.0]), "eps=.*-1.0.* is out"),
        (
            lambda: gaussian.error_curve(ONES, sigma=1.0, n=[1], eps=[0.0], trials=1),
            "trials=1 is too small",
        ),
    ],
)
def test_bad_arguments_are_refused(call, words):
    with pytest.raises(ValueError, match=words):
        call()


def test_a_fraction_of_a_sample_is_refused():
    with pytest.raises(TypeError, match=r"n=.*1\.5.* is not a whole number"):
        gaussian.error_curve(ONES, sigma=1.0, n=[1.5], eps=[0.0])
