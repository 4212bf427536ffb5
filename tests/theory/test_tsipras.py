"""The robust and the weak features: exact accuracies, simulations, Theorem 2.1 and its limits."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from robustlib.theory import draws, tsipras

seeds = st.integers(0, 2**32 - 1)


def normal_cdf(z):
    return math.erfc(-z / math.sqrt(2)) / 2


def within_four_standard_errors(correct, n, accuracy):
    return abs(correct / n - accuracy) <= 4 * math.sqrt(accuracy * (1 - accuracy) / n) + 1e-12


CASES = [
    ([1.0, 0.5, 0.5], 0.9, 1.0, 0.0),
    ([1.0, 0.5, 0.5], 0.9, 1.0, 0.5),
    ([0.0, 1.0, 1.0, 1.0], 0.7, 0.4, 0.3),
    ([2.0, -0.3, 0.8], 0.95, 0.2, 0.1),
    ([-1.0, 0.7], 0.6, 0.5, 0.05),
    ([1.0, 0.0, 0.0], 0.8, 0.5, 0.9),
    ([1.0, 0.0, 0.0], 0.8, 0.5, 1.0),
]


@pytest.mark.parametrize(("weights", "p", "eta", "eps"), CASES)
def test_accuracy_lies_within_four_standard_errors(weights, p, eta, eps):
    n = 40_000
    correct = tsipras.simulate_correct(
        weights, n, p=p, eta=eta, eps=eps, generator=np.random.default_rng(1)
    )
    exact = tsipras.linear_accuracy(weights, p=p, eta=eta, eps=eps)
    assert within_four_standard_errors(correct, n, exact)


def test_the_check_above_can_fail():
    """One tenth of η or ε more, and the same simulation contradicts the formula."""
    weights, n = [1.0, 0.5, 0.5], 40_000
    correct = tsipras.simulate_correct(
        weights, n, p=0.9, eta=1.0, eps=0.5, generator=np.random.default_rng(1)
    )
    for eta, eps in ((1.1, 0.5), (1.0, 0.55)):
        wrong = tsipras.linear_accuracy(weights, p=0.9, eta=eta, eps=eps)
        assert not within_four_standard_errors(correct, n, wrong)


def test_no_corner_of_the_box_is_worse_than_the_attack():
    """All 2³ corners of the l∞ ball around each of 300 samples leave just as many correct."""
    weights, eps = np.array([0.8, -0.5, 1.1]), 0.4
    x, y = tsipras.sample(2, 300, p=0.8, eta=0.5, generator=np.random.default_rng(2))
    corners = eps * np.array(list(itertools.product([-1, 1], repeat=3)))
    margins = y[:, None] * ((x[:, None] + corners) @ weights)
    expected = int(np.sum(margins.min(axis=1) > 0))
    assert 0 < expected < 300
    assert (
        tsipras.simulate_correct(
            weights, 300, p=0.8, eta=0.5, eps=eps, generator=np.random.default_rng(2)
        )
        == expected
    )


def test_samples_have_the_law_asked_for():
    n = 50_000
    x, y = tsipras.sample(2, n, p=0.8, eta=0.3, generator=np.random.default_rng(3))
    assert abs(y.mean()) < 4 / math.sqrt(n)
    assert within_four_standard_errors(np.sum(x[:, 0] == y), n, 0.8)
    assert set(np.unique(x[:, 0])) == {-1.0, 1.0}
    weak = y[:, None] * x[:, 1:]
    np.testing.assert_allclose(weak.mean(axis=0), 0.3, atol=4 / math.sqrt(n))
    np.testing.assert_allclose(np.cov(weak.T), np.eye(2), atol=4 * math.sqrt(2 / n))
    agree = (x[:, 0] == y).astype(float)
    assert abs(np.corrcoef(agree, weak[:, 0])[0, 1]) < 4 / math.sqrt(n)


@pytest.mark.parametrize("dim", [1, 9, 400])
def test_the_average_of_the_weak_features_is_accurate_and_not_robust(dim):
    """Φ(η√d) is above 99 % from η = 3/√d on, Φ((η − ε)√d) below 1 % from ε = 2η on."""
    weights, eta = tsipras.average_weights(dim), 3 / math.sqrt(dim)
    standard = tsipras.linear_accuracy(weights, p=0.95, eta=eta)
    assert standard == pytest.approx(normal_cdf(3), rel=1e-12)
    assert standard > 0.99
    robust = tsipras.linear_accuracy(weights, p=0.95, eta=eta, eps=2 * eta)
    assert robust == pytest.approx(normal_cdf(-3), rel=1e-9)
    assert robust < 0.01


@pytest.mark.parametrize("p", [0.5, 0.7, 1.0])
def test_the_robust_feature_alone_has_accuracy_p_below_radius_one(p):
    weights = tsipras.robust_weights(5)
    for eps in (0.0, 0.5, 0.999999):
        assert tsipras.linear_accuracy(weights, p=p, eta=0.2, eps=eps) == p
    assert tsipras.linear_accuracy(weights, p=p, eta=0.2, eps=1.0) == 0.0


@settings(max_examples=60, deadline=None)
@given(seeds, st.integers(1, 6), st.floats(0.5, 0.999), st.floats(0, 2))
def test_no_linear_classifier_beats_the_log_odds(seed, dim, p, eta):
    if eta == 0 and p == 0.5:
        return  # nothing to learn: all weights are zero
    best = tsipras.linear_accuracy(tsipras.bayes_weights(dim, p=p, eta=eta), p=p, eta=eta)
    weights = np.random.default_rng(seed).standard_normal(dim + 1)
    assert tsipras.linear_accuracy(weights, p=p, eta=eta) <= best + 1e-12


@settings(max_examples=60, deadline=None)
@given(seeds, st.integers(1, 6), st.floats(0.5, 1), st.floats(0, 2), st.floats(0, 2))
def test_accuracy_falls_with_the_radius_and_ignores_the_scale(seed, dim, p, eta, eps):
    weights = np.random.default_rng(seed).standard_normal(dim + 1)
    here = tsipras.linear_accuracy(weights, p=p, eta=eta, eps=eps)
    assert tsipras.linear_accuracy(weights, p=p, eta=eta, eps=eps + 0.1) <= here
    assert tsipras.linear_accuracy(7 * weights, p=p, eta=eta, eps=eps) == pytest.approx(here)
    helpful = np.abs(weights)
    assert tsipras.linear_accuracy(helpful, p=p, eta=eta + 0.1, eps=eps) >= (
        tsipras.linear_accuracy(helpful, p=p, eta=eta, eps=eps)
    )


# Theorem 2.1


@settings(max_examples=150, deadline=None)
@given(
    seeds, st.integers(1, 8), st.floats(0.5, 0.999), st.floats(0, 2), st.floats(1, 2), st.booleans()
)
def test_no_linear_classifier_breaks_the_trade_off(seed, dim, p, eta, factor, helpful):
    weights = np.random.default_rng(seed).standard_normal(dim + 1)
    weights = np.abs(weights) if helpful else weights
    standard = tsipras.linear_accuracy(weights, p=p, eta=eta)
    robust = tsipras.linear_accuracy(weights, p=p, eta=eta, eps=2 * eta * factor)
    assert robust <= tsipras.robust_accuracy_bound(standard, p=p) + 1e-12


@pytest.mark.parametrize("p", [0.5, 0.6, 0.95])
def test_the_trade_off_holds_for_every_classifier(p):
    """With P[f = +1] for each sign of x₁ and each law of the weak features, all is linear.

    So it is enough to try the 16 corners. The adversary of the proof gives the weak features the
    law of the other class.
    """
    for pp, pm, mp, mm in itertools.product([0.0, 1.0], repeat=4):  # (sign of x₁, weak law)
        standard = (p * pp + (1 - p) * mp + p * (1 - mm) + (1 - p) * (1 - pm)) / 2
        shifted = (p * pm + (1 - p) * mm + p * (1 - mp) + (1 - p) * (1 - pp)) / 2
        assert shifted <= p / (1 - p) * (1 - standard) + 1e-12
        assert min(standard, shifted) <= tsipras.robust_accuracy_bound(standard, p=p) + 1e-12


def test_the_trade_off_is_tight_where_the_paper_says_so():
    """δ = 1 − p: the robust feature alone attains both limits."""
    assert tsipras.robust_accuracy_bound(0.95, p=0.95) == pytest.approx(0.95)
    assert tsipras.robust_accuracy_bound(0.99, p=0.95) == pytest.approx(19 * 0.01)
    peak = max(tsipras.robust_accuracy_bound(a, p=0.8) for a in np.linspace(0, 1, 1001))
    assert peak == pytest.approx(0.8)
    assert tsipras.robust_accuracy_bound(1.0, p=0.8) == 0.0


def test_below_twice_eta_the_trade_off_does_not_hold():
    """η√d = 10: at ε = η/2 the average is accurate and robust, against the bound."""
    weights, eta = tsipras.average_weights(400), 0.5
    standard = tsipras.linear_accuracy(weights, p=0.95, eta=eta)
    robust = tsipras.linear_accuracy(weights, p=0.95, eta=eta, eps=eta / 2)
    assert robust > 0.999
    assert robust > tsipras.robust_accuracy_bound(standard, p=0.95) + 0.9


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: tsipras.sample(0, 5, p=0.9, eta=0.1), "dim=0 is too small"),
        (lambda: tsipras.sample(3, 0, p=0.9, eta=0.1), "n=0 is too small"),
        (lambda: tsipras.sample(3, 5, p=0.4, eta=0.1), "p=0.4 is out of range: .* at least 0.5"),
        (lambda: tsipras.sample(3, 5, p=0.9, eta=-0.1), "eta=-0.1 is out of range"),
        (lambda: tsipras.linear_accuracy([0, 0], p=0.9, eta=0.1), "weights is the zero vector"),
        (lambda: tsipras.linear_accuracy([1], p=0.9, eta=0.1), r"weights has shape \(1,\)"),
        (lambda: tsipras.linear_accuracy([1, 1], p=0.9, eta=0.1, eps=-1), "eps=-1 is out of range"),
        (lambda: tsipras.simulate_correct([1, math.nan], 5, p=0.9, eta=0.1), "weights holds 1 NaN"),
        (lambda: tsipras.bayes_weights(3, p=1.0, eta=0.1), "p=1 is out of range"),
        (lambda: tsipras.robust_accuracy_bound(0.9, p=1.0), "p=1 is out of range"),
        (lambda: tsipras.robust_accuracy_bound(1.1, p=0.9), "accuracy=1.1 is out of range"),
    ],
)
def test_bad_arguments_are_refused(call, words):
    with pytest.raises(ValueError, match=words):
        call()


def test_a_generator_of_torch_is_refused_by_name():
    with pytest.raises(TypeError, match=r"generator=.* is not a numpy\.random\.Generator"):
        tsipras.sample(2, 2, p=0.9, eta=0.1, generator=torch.Generator())


def test_the_same_generator_gives_the_same_samples_and_global_state_is_left_alone():
    state = np.random.get_state()[1].copy()  # noqa: NPY002 it must not change
    first, second = (
        tsipras.sample(3, 9, p=0.9, eta=0.1, generator=np.random.default_rng(0)) for _ in range(2)
    )
    assert all(np.array_equal(a, b) for a, b in zip(first, second, strict=True))
    tsipras.sample(3, 9, p=0.9, eta=0.1)
    assert np.array_equal(state, np.random.get_state()[1])  # noqa: NPY002


def test_chunks_do_not_change_the_law(monkeypatch):
    monkeypatch.setattr(draws, "CHUNK", 300)
    weights, n = [1.0, 0.5, 0.5], 5_000
    correct = tsipras.simulate_correct(
        weights, n, p=0.9, eta=1.0, generator=np.random.default_rng(4)
    )
    exact = tsipras.linear_accuracy(weights, p=0.9, eta=1.0)
    assert within_four_standard_errors(correct, n, exact)
