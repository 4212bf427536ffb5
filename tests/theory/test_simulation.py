"""The simulations agree with the formulas, and touch no global randomness."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from robustlib import theory
from robustlib.theory import simulation

COV = np.array([[2.0, 0.6, 0.0], [0.6, 1.0, -0.2], [0.0, -0.2, 0.5]])
MEAN = np.array([1.0, -0.5, 0.8])


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_vulnerability_lies_within_four_standard_errors():
    penalty = 3.0 / float(np.linalg.eigvalsh(COV)[0])
    result = theory.simulate_vulnerability(COV, penalty, 200_000, generator=seeded())
    formula = theory.adversarial_vulnerability(COV, penalty)
    assert result.standard_error < 0.01 * formula
    assert abs(result.value - formula) < 4 * result.standard_error


def test_the_standard_error_is_right_and_intervals_cover():
    """Over 100 runs the scores have unit spread: a wrong error would show in their variance."""
    formula = theory.adversarial_vulnerability(COV, 8.0)
    runs = [theory.simulate_vulnerability(COV, 8.0, 2_000, generator=seeded(s)) for s in range(100)]
    scores = np.array([(run.value - formula) / run.standard_error for run in runs])
    assert abs(scores.mean()) < 0.4
    assert 0.75 < scores.std() < 1.3
    covered = sum(low < formula < high for low, high in (run.interval(0.95) for run in runs))
    assert covered >= 88


@pytest.mark.parametrize(("norm", "eps"), [("2", 0.0), ("2", 0.4), ("inf", 0.4)])
def test_accuracy_lies_within_four_standard_errors(norm, eps):
    weights = theory.classifier_weights(MEAN, COV)
    n = 200_000
    correct = theory.simulate_correct(
        weights, MEAN, COV, n, eps=eps, norm=norm, generator=seeded(1)
    )
    formula = theory.linear_accuracy(weights, MEAN, COV, eps=eps, norm=norm)
    assert abs(correct / n - formula) < 4 * math.sqrt(formula * (1 - formula) / n)


def test_samples_have_the_mean_and_covariance_asked_for():
    x, y = theory.sample(MEAN, COV, 100_000, generator=seeded(2))
    assert set(np.unique(y)) == {-1.0, 1.0}
    assert abs(y.mean()) < 0.02
    folded = x * y[:, None]
    np.testing.assert_allclose(folded.mean(axis=0), MEAN, atol=0.03)
    np.testing.assert_allclose(np.cov(folded.T), COV, atol=0.04)


def test_the_same_generator_state_gives_the_same_samples_and_global_state_is_left_alone():
    state = torch.random.get_rng_state()
    first = theory.sample(MEAN, COV, 10, generator=seeded(3))
    second = theory.sample(MEAN, COV, 10, generator=seeded(3))
    assert all(np.array_equal(a, b) for a, b in zip(first, second, strict=True))
    theory.simulate_vulnerability(COV, 8.0, 10, generator=seeded(3))
    theory.simulate_correct(MEAN, MEAN, COV, 10, generator=seeded(3))
    assert torch.equal(state, torch.random.get_rng_state())


def test_chunks_change_neither_the_count_nor_the_law(monkeypatch):
    monkeypatch.setattr(simulation, "CHUNK", 64)
    result = theory.simulate_vulnerability(COV, 8.0, 1_000, generator=seeded())
    assert result.n == 1_000
    assert abs(result.value - theory.adversarial_vulnerability(COV, 8.0)) < (
        4 * result.standard_error
    )
    assert theory.simulate_correct(MEAN, MEAN, COV, 1_000, eps=100.0, generator=seeded()) == 0


def test_the_interval_of_a_monte_carlo_result_widens_with_the_level():
    result = theory.MonteCarlo(value=1.0, standard_error=0.1, n=50)
    low, high = result.interval()
    assert high - 1.0 == pytest.approx(0.1959964, rel=1e-6)
    assert result.interval(0.99)[0] < low
    with pytest.raises(ValueError, match="level=0"):
        result.interval(0)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: theory.MonteCarlo.of([1.0]), "number of samples=1 is too small"),
        (lambda: theory.sample(MEAN, COV, 0), "n=0 is too small"),
        (lambda: theory.simulate_vulnerability(COV, 8.0, 1), "n=1 is too small"),
        (lambda: theory.simulate_vulnerability(COV, 0.1, 10), "penalty=0.1 is too small"),
        (lambda: theory.simulate_correct(MEAN, MEAN, COV, 10, norm="1"), "norm='1' is not known"),
    ],
)
def test_bad_arguments_are_refused(call, words):
    with pytest.raises(ValueError, match=words):
        call()


@pytest.mark.parametrize(
    "call",
    [
        lambda generator: theory.sample(MEAN, COV, 5, generator=generator),
        lambda generator: theory.simulate_vulnerability(COV, 8.0, 5, generator=generator),
        lambda generator: theory.simulate_correct(MEAN, MEAN, COV, 5, generator=generator),
    ],
)
def test_a_generator_of_numpy_is_refused_by_name(call):
    with pytest.raises(TypeError, match=r"generator=.* is not a torch\.Generator"):
        call(np.random.default_rng(0))
