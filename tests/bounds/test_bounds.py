"""Bounds contain every activation, whatever the network, and are as tight as CROWN can be."""

import fractions
import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse

from robustlib.bounds import (
    Box,
    inner_ball,
    interval_step,
    network_bounds,
    outer_ball,
    rows_lower_bound,
)
from robustlib.network import Affine, MaxPool, Network, ReLU, from_torch, margin_rows
from tests.brute_force import random_network, smallest_margins


def sample(box, n, rng):
    """Random points of the box, its corners among them."""
    inside = rng.uniform(box.lower, box.upper, size=(n, len(box.lower)))
    corners = np.where(rng.random(inside.shape) < 0.5, box.lower, box.upper)
    return np.vstack([inside, corners])


@settings(max_examples=150, deadline=None)
@given(seed=st.integers(0, 10**6), eps=st.floats(0.0, 1.0))
def test_bounds_contain_every_sampled_activation(seed, eps):
    module, shape = random_network(seed)
    network = from_torch(module, shape)
    rng = np.random.default_rng(seed)
    box = outer_ball(rng.random(network.input_size), eps, (0.0, 1.0))
    boxes = network_bounds(network, box)
    points = sample(box, 200, rng)
    for bound, values in zip(boxes, network.outputs(points), strict=True):
        slack = 1e-12 * (1.0 + np.abs(values).max())  # of this evaluation, not of the bound
        assert (values >= bound.lower - slack).all()
        assert (values <= bound.upper + slack).all()
    rows = margin_rows(0, network.classes)
    margins = network.forward(points) @ rows.T
    assert (margins >= rows_lower_bound(network, boxes, box, rows) - 1e-12).all()


@pytest.mark.parametrize("seed", range(24))
def test_crown_is_below_the_true_minimum(seed):
    module, shape = random_network(seed)
    network = from_torch(module, shape)
    rng = np.random.default_rng(seed)
    box = outer_ball(rng.random(network.input_size), 0.1, (0.0, 1.0))
    boxes = network_bounds(network, box)
    rows = margin_rows(0, network.classes)
    crown = rows_lower_bound(network, boxes, box, rows)
    assert (crown <= smallest_margins(network, 0, box.lower, box.upper) + 1e-9).all()


def dense_crown(weights, biases, boxes, rows, box):
    """The textbook form, dense and without any rounding margin, as the oracle."""
    constant = np.zeros(len(rows))
    for k in range(len(weights) - 1, -1, -1):
        constant = constant + rows @ biases[k]
        rows = rows @ weights[k]
        if k == 0:
            break
        low, high = boxes[k - 1].lower, boxes[k - 1].upper
        open_ = (low < 0) & (high > 0)
        above = np.where(open_, high / np.where(open_, high - low, 1.0), low >= 0)
        below = np.where(open_, high > -low, low >= 0)
        constant = constant + np.minimum(rows, 0) @ np.where(open_, -above * low, 0.0)
        rows = np.maximum(rows, 0) * below + np.minimum(rows, 0) * above
    return np.maximum(rows, 0) @ box.lower + np.minimum(rows, 0) @ box.upper + constant


@pytest.mark.parametrize("density", [0.05, 0.4, 1.0])
def test_sparse_and_dense_rows_give_the_textbook_bound(density):
    """Sparse, unsorted and dense rows and weights: one result, that of the textbook formula."""
    rng = np.random.default_rng(1)
    sizes = [30, 40, 50, 20]
    weights = [
        rng.normal(size=(m, n)) * (rng.random((m, n)) < density)
        for n, m in itertools.pairwise(sizes)
    ]
    biases = [rng.normal(size=m) for m in sizes[1:]]
    for kind in (np.asarray, sparse.csr_array):
        steps = []
        for weight, bias in zip(weights, biases, strict=True):
            steps += [Affine(kind(weight), bias), ReLU(len(bias))]
        network = Network(tuple(steps[:-1]), (30,))
        box = outer_ball(rng.random(30), 0.1, (0.0, 1.0))
        boxes = network_bounds(network, box)
        expected = dense_crown(weights, biases, boxes[0:-1:2], np.eye(20), box)
        unsorted = sparse.csr_array(sparse.coo_array(np.eye(20)[:, ::-1])[:, ::-1])
        for rows in (np.eye(20), sparse.csr_array(np.eye(20)), unsorted):
            assert rows_lower_bound(network, boxes, box, rows) == pytest.approx(expected, abs=1e-9)


@given(
    st.floats(0.0, 1.0, width=32),
    st.floats(0.0, 0.5),
)
def test_balls_round_the_safe_way(x, eps):
    """Outer ball ⊇ exact ball ⊇ inner ball, checked in exact rational arithmetic."""
    exact_low = max(fractions.Fraction(x) - fractions.Fraction(eps), 0)
    exact_high = min(fractions.Fraction(x) + fractions.Fraction(eps), 1)
    outer = outer_ball(np.array([x]), eps, (0.0, 1.0))
    inner = inner_ball(np.array([x]), eps, (0.0, 1.0))
    assert fractions.Fraction(outer.lower[0]) <= exact_low <= fractions.Fraction(inner.lower[0])
    assert fractions.Fraction(inner.upper[0]) <= exact_high <= fractions.Fraction(outer.upper[0])
    assert outer.upper[0] - inner.upper[0] <= 1e-15


def test_a_radius_of_zero_is_the_point_itself():
    x = np.array([0.1, 0.7])
    for ball in (outer_ball(x, 0.0, (0.0, 1.0)), inner_ball(x, 0.0, (0.0, 1.0))):
        assert ball.lower.tolist() == ball.upper.tolist() == x.tolist()


def test_interval_bounds_are_exact_for_one_layer():
    step = Affine(np.array([[1.0, -2.0], [0.5, 0.5]]), np.array([0.25, -1.0]))
    bound = interval_step(step, Box(np.array([0.0, -1.0]), np.array([1.0, 1.0])))
    assert bound.lower == pytest.approx([-1.75, -1.5], abs=1e-12)
    assert bound.upper == pytest.approx([3.25, 0.0], abs=1e-12)


def test_rounding_is_taken_off():
    """0.1 + 0.2 − 0.3 is 2.8e-17 for the stored numbers; a bound of 0 or above would be wrong."""
    step = Affine(np.array([[0.1, 0.2, -0.3]]), np.zeros(1))
    bound = interval_step(step, Box(np.ones(3), np.ones(3)))
    exact = sum(map(fractions.Fraction, (0.1, 0.2, -0.3)))
    assert fractions.Fraction(bound.lower[0]) <= exact <= fractions.Fraction(bound.upper[0])


def test_what_underflows_is_taken_off():
    """1e-18 − 2e-18 x, where the product of the last two weights is below the smallest number."""
    weights = [[[1e153]], [[1e153]], [[2e-162]], [[0.0], [1e-162]]]
    biases = [[0.0], [0.0], [0.0], [1e-18, 0.0]]
    steps = [Affine(np.array(w), np.array(b)) for w, b in zip(weights, biases, strict=True)]
    network = Network(tuple(steps), (1,))
    box = Box(np.zeros(1), np.ones(1))
    lower = rows_lower_bound(network, network_bounds(network, box), box, margin_rows(0, 2))
    assert lower[0] <= -1e-18
    product = interval_step(Affine(np.array([[1e-200, -1e-200]]), np.zeros(1)),
                            Box(np.array([1e-200, 0.0]), np.array([1e-200, 0.0])))  # fmt: skip
    assert product.upper[0] > 0  # the true value is 1e-400
    nothing = interval_step(Affine(np.array([[0.0, 1.0]]), np.zeros(1)), Box(*2 * [np.zeros(2)]))
    assert nothing.lower.tolist() == nothing.upper.tolist() == [0.0]


def test_the_partial_sums_of_a_deep_network_are_taken_off():
    """120 additions of ±1e16 and 1 in turn: the bound stays below the exact rational sum."""
    biases = [1e16, 1.0, -1e16] * 40
    steps = [Affine(np.eye(1), np.array([b])) for b in biases]
    network = Network((*steps, Affine(np.array([[1.0], [0.0]]), np.zeros(2))), (1,))
    box = Box(np.zeros(1), np.zeros(1))
    lower = rows_lower_bound(network, network_bounds(network, box), box, margin_rows(0, 2))
    assert fractions.Fraction(lower[0]) <= sum(map(fractions.Fraction, biases))


def test_an_overflow_proves_nothing():
    steps = (Affine(np.full((2, 1), 1e200), np.zeros(2)), ReLU(2),
             Affine(np.array([[1e200, -1e200], [0.0, 0.0]]), np.array([1.0, 0.0])))  # fmt: skip
    network = Network(steps, (1,))
    box = Box(np.zeros(1), np.ones(1))
    with np.errstate(all="ignore"):
        boxes = network_bounds(network, box)
        lower = rows_lower_bound(network, boxes, box, margin_rows(0, 2))
    assert boxes[-1].lower[0] == -np.inf
    assert boxes[-1].upper[0] == np.inf
    assert lower.tolist() == [-np.inf]


def test_a_padded_window_of_inputs_without_bounds_proves_nothing():
    """Where every lower bound is −∞ the largest one is not that of the padding."""
    steps = (Affine(np.full((2, 1), 1e200), np.zeros(2)), ReLU(2),
             Affine(np.array([[1e200, -1e200]]), np.zeros(1)), MaxPool(np.array([[-1, 0]])),
             Affine(np.array([[1.0], [0.0]]), np.zeros(2)))  # fmt: skip
    network, box = Network(steps, (1,)), Box(np.zeros(1), np.ones(1))
    with np.errstate(all="ignore"):
        boxes = network_bounds(network, box)
        assert rows_lower_bound(network, boxes, box, margin_rows(0, 2)).tolist() == [-np.inf]
