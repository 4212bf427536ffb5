"""Shares, means and their intervals, against scipy and by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from robustlib.metrics import (
    Estimate,
    adversarial_accuracy,
    adversarial_error,
    adversarial_frequency,
    adversarial_severity,
    certified_accuracy,
    frequency_curve,
    paired_change,
    proportion,
    wilson,
)

RHO = [0.0, 0.02, 0.05, 0.1, 0.3, math.inf]


@given(
    n=st.integers(1, 500),
    share=st.floats(0, 1),
    level=st.sampled_from([0.5, 0.9, 0.95, 0.99]),
)
def test_wilson_is_that_of_scipy(n, share, level):
    k = round(share * n)
    expected = stats.binomtest(k, n).proportion_ci(level, method="wilson")
    assert wilson(k, n, level) == pytest.approx((expected.low, expected.high), abs=1e-12)


@given(n=st.integers(0, 200), data=st.data())
def test_wilson_contains_the_share_and_stays_in_the_unit_interval(n, data):
    k = data.draw(st.integers(0, n))
    low, high = wilson(k, n)
    assert 0 <= low < high <= 1
    assert n == 0 or low <= k / n <= high


def test_no_trials_say_nothing():
    estimate = proportion(0, 0)
    assert math.isnan(estimate.value)
    assert (estimate.low, estimate.high, estimate.n) == (0.0, 1.0, 0)


def test_frequency_counts_distances_up_to_and_with_eps():
    assert adversarial_frequency(RHO, 0.1) == Estimate(4 / 6, *wilson(4, 6), 6)
    assert adversarial_frequency(np.array(RHO), 0.0).value == 1 / 6
    assert adversarial_frequency([math.inf], 10).value == 0


def test_severity_is_the_mean_of_what_the_frequency_counts():
    near = RHO[:4]
    expected = stats.t.interval(0.95, 3, loc=np.mean(near), scale=stats.sem(near))
    found = adversarial_severity(RHO, 0.1)
    assert found.value == pytest.approx(np.mean(near))
    assert found.low == max(0, expected[0]) == 0
    assert found.high == pytest.approx(min(0.1, expected[1]))
    assert found.n == 4


def test_severity_interval_is_students_where_it_is_not_cut():
    rho = [0.4, 0.5, 0.45, 0.52, 0.47]
    expected = stats.t.interval(0.9, 4, loc=np.mean(rho), scale=stats.sem(rho))
    found = adversarial_severity(rho, 1.0, level=0.9)
    assert (found.low, found.high) == pytest.approx(expected)


def test_severity_of_few_distances():
    none = adversarial_severity([0.3, math.inf], 0.1)
    assert none.n == 0
    assert all(map(math.isnan, (none.value, none.low, none.high)))
    assert adversarial_severity([0.05, 0.3], 0.1) == Estimate(0.05, 0.0, 0.1, 1)


def test_severity_at_radius_zero_is_zero_or_that_of_no_distance():
    assert adversarial_severity(RHO, 0) == Estimate(0.0, 0.0, 0.0, 1)
    assert adversarial_severity([0.0, *RHO], 0) == Estimate(0.0, 0.0, 0.0, 2)
    none = adversarial_severity(RHO[1:], 0)
    assert none.n == 0
    assert all(map(math.isnan, (none.value, none.low, none.high)))


def test_undecided_counts_against_the_lower_and_for_the_upper_end():
    verdicts = ["robust"] * 6 + ["adversarial"] * 2 + ["misclassified"] + ["undecided"]
    accuracy, error = adversarial_accuracy(verdicts), adversarial_error(verdicts)
    assert (accuracy.lower.value, accuracy.upper.value) == (0.6, 0.7)
    assert (error.lower.value, error.upper.value) == (0.3, 0.4)
    assert certified_accuracy(verdicts) == accuracy.lower
    assert not accuracy.exact
    assert adversarial_accuracy(verdicts[:-1]).exact
    for bracket in (accuracy, error):
        for end in (bracket.lower, bracket.upper):
            assert (end.low, end.high) == wilson(round(10 * end.value), 10)


def test_accuracy_and_error_are_complements_with_their_intervals():
    verdicts = ["robust", "robust", "adversarial", "undecided", "misclassified"]
    accuracy, error = adversarial_accuracy(verdicts), adversarial_error(verdicts)
    assert accuracy.lower.value == pytest.approx(1 - error.upper.value)
    assert accuracy.lower.low == pytest.approx(1 - error.upper.high)
    assert accuracy.upper.high == pytest.approx(1 - error.lower.low)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: wilson(3, 2), ValueError, "k=3 is more than n=2"),
        (lambda: wilson(-1, 2), ValueError, "k=-1 is too small"),
        (lambda: wilson(1.5, 2), TypeError, "k=1.5 is not a whole number"),
        (lambda: wilson(1, 2, level=0), ValueError, "level=0 is out of range"),
        (lambda: wilson(1, 2, level=95), ValueError, "level=95 is out of range"),
        (lambda: adversarial_frequency([0.1, math.nan], 0.1), ValueError, "rho holds 1 NaN"),
        (lambda: adversarial_severity([-0.1], 0.1), ValueError, "rho holds 1 NaN or negative"),
        (lambda: adversarial_frequency([[0.1]], 0.1), ValueError, r"rho has shape \(1, 1\)"),
        (lambda: adversarial_severity([0.1], -1), ValueError, "eps=-1 is out of range"),
        (lambda: adversarial_frequency(["far"], 0.1), TypeError, "rho is a list; give distances"),
        (lambda: certified_accuracy(["robus"]), ValueError, "'robus' is not known. Did you mean"),
    ],
)
def test_bad_input_is_refused_by_name(call, error, message):
    with pytest.raises(error, match=message):
        call()


def test_the_curve_is_the_frequency_at_each_radius():
    curve = frequency_curve(RHO, [0.0, 0.02, 0.049, 0.3, 1.0])
    assert curve.count.tolist() == [1, 2, 2, 5, 5]
    assert curve.n == 6
    for k, eps in enumerate(curve.eps):
        one = adversarial_frequency(RHO, eps)
        assert (curve.frequency[k], curve.low[k], curve.high[k]) == (one.value, one.low, one.high)


@given(st.lists(st.one_of(st.floats(0, 1), st.just(math.inf)), min_size=1))
def test_the_curve_never_falls(rho):
    curve = frequency_curve(rho, np.linspace(0, 1, 21))
    assert (np.diff(curve.count) >= 0).all()
    assert curve.count[-1] == sum(r <= 1 for r in rho)


def test_a_curve_of_nothing_and_bad_radii():
    assert math.isnan(frequency_curve([], [0.1]).frequency[0])
    with pytest.raises(ValueError, match=r"eps=-0\.1"):
        frequency_curve(RHO, [0.1, -0.1])


def test_a_result_stands_for_its_distances():
    class Result:
        rho = np.array(RHO)

    assert adversarial_frequency(Result(), 0.1) == adversarial_frequency(RHO, 0.1)
    assert adversarial_severity(Result(), 0.1) == adversarial_severity(RHO, 0.1)
    assert frequency_curve(Result(), [0.1]).count.tolist() == [4]


@given(pairs=st.lists(st.tuples(st.booleans(), st.booleans()), max_size=60))
def test_a_change_counts_pairs_and_its_p_is_that_of_fair_coins(pairs):
    before, after = ([pair[k] for pair in pairs] for k in (0, 1))
    change = paired_change(before, after)
    gone = pairs.count((True, False))
    new = pairs.count((False, True))
    assert (change.gone, change.new, change.n) == (gone, new, len(pairs))
    coins = gone + new
    uneven = abs(gone - new)  # as uneven as this, or more so, by coins that are thrown in all ways
    ways = sum(math.comb(coins, k) for k in range(coins + 1) if abs(2 * k - coins) >= uneven)
    assert change.p == pytest.approx(ways / 2**coins)
    assert change.fewer == (gone > new and change.p < 0.05)


def test_five_of_five_pairs_are_too_few_and_six_of_six_are_not():
    assert not paired_change([True] * 5, [False] * 5).fewer
    assert paired_change([True] * 6, [False] * 6).fewer
    assert not paired_change([False] * 6, [True] * 6).fewer  # more, not fewer


@pytest.mark.parametrize(
    ("before", "after", "match"),
    [
        ([True], [True, False], "after has shape"),
        ([[True]], [[True]], "before has shape"),
        ([0.5], [1.0], "before holds"),
        ([True], [math.nan], "after holds"),
    ],
)
def test_pairs_that_are_none_are_refused(before, after, match):
    with pytest.raises((TypeError, ValueError), match=match):
        paired_change(before, after)
