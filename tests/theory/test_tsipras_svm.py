"""Theorem 2.2: the exact loss, its minimizer, and what its conditions are needed for."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize

from robustlib.theory import tsipras, tsipras_svm


def objective(weights, p, eta, penalty, eps):
    weights = np.asarray(weights, dtype=float)
    loss = tsipras_svm.hinge_loss(weights, p=p, eta=eta, eps=eps) if weights.any() else 1.0
    return loss + penalty / 2 * float(weights @ weights)


@pytest.mark.parametrize("eps", [0.0, 0.3])
@pytest.mark.parametrize("weights", [[0.8, 0.4, 0.2], [-0.5, 1.0, -0.2], [1.2, 0.0, 0.0]])
def test_the_loss_lies_within_four_standard_errors(weights, eps):
    """Mean hinge loss of attacked samples against the closed form."""
    x, y = tsipras.sample(2, 40_000, p=0.8, eta=0.5, generator=np.random.default_rng(0))
    attacked = x - eps * y[:, None] * np.sign(weights)
    losses = np.maximum(0, 1 - y * (attacked @ weights))
    exact = tsipras_svm.hinge_loss(weights, p=0.8, eta=0.5, eps=eps)
    assert abs(losses.mean() - exact) < 4 * losses.std() / math.sqrt(len(losses))


@pytest.mark.parametrize(
    ("p", "eta", "penalty", "eps"),
    [
        (0.9, 0.6, 0.3, 0.0),  # standard
        (0.9, 0.6, 0.3, 0.3),  # an adversary too weak to drop the weak features
        (0.7, 0.9, 0.5, 0.6),  # beyond 2p − 1 but below η: only weak features
        (0.9, 0.3, 0.3, 0.6),  # the theorem
        (0.9, 0.3, 0.02, 0.4),  # the theorem, at the kink of the hinge
        (0.9, 0.42, 0.02, 0.4),  # at the kink the weak features stay out even a little below η
        (0.7, 0.1, 0.3, 0.5),  # beyond 2p − 1: the zero vector
    ],
)
def test_no_other_weights_have_a_lower_loss(p, eta, penalty, eps):
    """A derivative-free search in all three weights, any signs, finds nothing better."""
    best = tsipras_svm.soft_margin_weights(2, p=p, eta=eta, penalty=penalty, eps=eps)
    lowest = objective(best, p, eta, penalty, eps)
    reached = []
    for start in (best + 0.05, np.array([0.5, 0.5, -0.2])):
        search = minimize(
            objective,
            start,
            args=(p, eta, penalty, eps),
            method="Nelder-Mead",
            options={"maxfev": 600, "xatol": 1e-7, "fatol": 1e-12},
        )
        reached.append(search.fun)
    assert lowest <= min(reached) + 1e-12
    assert min(reached) <= lowest + 1e-4  # a search came near, so it could have won


dims, penalties = st.integers(1, 500), st.floats(0.01, 3)


@settings(max_examples=100, deadline=None)
@given(dims, st.floats(0.55, 1), st.floats(0, 1), penalties, st.floats(0, 1))
def test_the_robust_feature_is_learned_alone_under_the_condition(dim, p, share, penalty, size):
    """η ≤ ε < 2p − 1: weak weights are zero; accuracy p at every radius below 1."""
    eps = share * 0.999 * (2 * p - 1)
    weights = tsipras_svm.soft_margin_weights(dim, p=p, eta=size * eps, penalty=penalty, eps=eps)
    assert weights[0] > 0
    assert not weights[1:].any()
    for radius in (0.0, 0.999):
        assert tsipras.linear_accuracy(weights, p=p, eta=size * eps, eps=radius) == p


@settings(max_examples=50, deadline=None)
@given(dims, st.floats(0.5, 1), st.floats(0, 1), penalties, st.floats(0, 0.5))
def test_outside_the_condition_nothing_is_learned(dim, p, size, penalty, more):
    """ε ≥ 2p − 1 and ε ≥ η: the minimizer is the zero vector, though Theorem 2.2 reads p there."""
    eps = 2 * p - 1 + more
    eta = size * eps
    weights = tsipras_svm.soft_margin_weights(dim, p=p, eta=eta, penalty=penalty, eps=eps)
    assert not weights.any()
    with pytest.raises(ValueError, match="weights is the zero vector"):
        tsipras.linear_accuracy(weights, p=p, eta=eta)


def test_the_weak_features_leave_at_eta_and_not_only_at_twice_eta():
    """Lemma D.5 asks for ε ≥ 2η; with a penalty that keeps the hinge active, η is the limit."""
    shares = [0.5, 0.9, 0.999, 1.0, 1.5]
    weak = [
        tsipras_svm.soft_margin_weights(50, p=0.95, eta=0.4, penalty=0.6, eps=0.4 * s)[1]
        for s in shares
    ]
    assert weak[0] > weak[1] > weak[2] > 0
    assert weak[3] == weak[4] == 0


@pytest.mark.parametrize(
    ("dim", "p", "factor"), [(1, 0.975, 4), (100, 0.5, 4), (100, 0.95, 4), (10_000, 0.975, 6)]
)
def test_standard_training_ends_accurate_and_not_robust(dim, p, factor):
    """First half of Theorem 2.2: η ≥ 4/√d, p ≤ 0.975, weights of norm 1."""
    eta = factor / math.sqrt(dim)
    penalty = tsipras_svm.unit_norm_penalty(dim, p=p, eta=eta)
    weights = tsipras_svm.soft_margin_weights(dim, p=p, eta=eta, penalty=penalty)
    assert np.linalg.norm(weights) == pytest.approx(1, abs=1e-9)
    assert weights[1:].sum() / math.sqrt(dim) >= 1 / math.sqrt(2)  # Lemma D.2
    assert tsipras.linear_accuracy(weights, p=p, eta=eta) > 0.99
    assert tsipras.linear_accuracy(weights, p=p, eta=eta, eps=2 * eta) < 0.01


def test_with_weaker_features_standard_training_can_end_at_the_robust_one():
    """η = 1/√d, p = 0.95 is outside the theorem: no weak weight, accuracy p, robust as it is."""
    penalty = tsipras_svm.unit_norm_penalty(100, p=0.95, eta=0.1)
    for c in (penalty, 0.01):
        weights = tsipras_svm.soft_margin_weights(100, p=0.95, eta=0.1, penalty=c)
        np.testing.assert_allclose(weights, tsipras.robust_weights(100), atol=1e-9)


def test_the_norm_falls_as_the_penalty_rises():
    norms = [
        np.linalg.norm(tsipras_svm.soft_margin_weights(20, p=0.9, eta=0.5, penalty=c, eps=0.1))
        for c in (0.01, 0.1, 1.0, 10.0)
    ]
    assert norms == sorted(norms, reverse=True)
    assert norms[0] > 2 * norms[-1]


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (
            lambda: tsipras_svm.soft_margin_weights(3, p=0.9, eta=0.1, penalty=0.0),
            "penalty=0.0 is out of range: give a finite number above 0",
        ),
        (
            lambda: tsipras_svm.soft_margin_weights(0, p=0.9, eta=0.1, penalty=1.0),
            "dim=0 is too small",
        ),
        (
            lambda: tsipras_svm.soft_margin_weights(3, p=0.3, eta=0.1, penalty=1.0),
            "p=0.3 is out of range",
        ),
        (
            lambda: tsipras_svm.unit_norm_penalty(3, p=0.6, eta=0.1, eps=0.5),
            "no penalty gives weights of norm 1 at p=0.6, eta=0.1, eps=0.5, dim=3",
        ),
        (lambda: tsipras_svm.hinge_loss([0.0, 0.0], p=0.9, eta=0.1), "weights is the zero vector"),
    ],
)
def test_bad_arguments_are_refused(call, words):
    with pytest.raises(ValueError, match=words):
        call()
