"""Minima over balls and the simplex: those of other solvers, and never above any sampled point."""

import fractions

import cvxpy as cp
import numpy as np
import pytest
from scipy import sparse

from robustlib.bounds import Box, Simplex, network_bounds, norm_ball, rows_lower_bound
from robustlib.network import Affine, Network, ReLU, from_torch, margin_rows
from tests.brute_force import random_network, smallest_margins_in_ball

NORMS = ["inf", "1", "2"]


def center(rng, n):
    """Values of [0, 1], some on its ends."""
    x = rng.random(n)
    x[rng.random(n) < 0.3] = 0.0
    x[rng.random(n) < 0.2] = 1.0
    return x


def points_of(rng, x, eps, norm, count):
    """Points of the ball and the box: a share on its surface, some with few changes."""
    steps = rng.normal(size=(count, len(x))) * (rng.random((count, len(x))) < rng.random())
    size = np.linalg.norm(steps, float(norm), axis=1, keepdims=True)
    steps *= eps * np.sqrt(rng.random((count, 1))) * (1 - 1e-12) / np.maximum(size, 1e-300)
    return np.clip(x + steps, 0, 1)


@pytest.mark.parametrize("norm", ["1", "2"])
def test_minima_are_those_of_a_cone_solver(norm):
    rng = np.random.default_rng(0)
    for _ in range(25):
        n = int(rng.integers(1, 8))
        x, eps = center(rng, n), float(rng.choice([0.01, 0.3, 1.0, 3.0]))
        rows = rng.normal(size=(4, n)) * (rng.random((4, n)) < 0.8)
        ball = norm_ball(x, eps, norm, (0.0, 1.0))
        found, points = ball.minimum(rows), ball.lowest_points(rows)
        assert ball.minimum(sparse.csr_array(rows)) == pytest.approx(found, abs=1e-13)
        v, g = cp.Variable(n), cp.Parameter(n)
        problem = cp.Problem(cp.Minimize(g @ v), [v >= 0, v <= 1, cp.norm(v - x, int(norm)) <= eps])
        for row, bound, point in zip(rows, found, points, strict=True):
            g.value = row
            problem.solve(solver=cp.CLARABEL)
            assert bound == pytest.approx(problem.value, abs=1e-6)
            assert row @ point == pytest.approx(bound, abs=1e-12)  # it is attained
            assert np.linalg.norm(point - x, int(norm)) <= eps + 1e-12
            assert point.min() >= 0
            assert point.max() <= 1


def test_l1_minimum_is_below_the_exact_one_in_rational_arithmetic():
    """The knapsack in fractions is the truth: never above it, and at most rounding below it."""
    rng = np.random.default_rng(1)
    for _ in range(100):
        x, eps, row = center(rng, 6), float(rng.uniform(0, 3)), rng.normal(size=6)
        bound = norm_ball(x, eps, "1", (0.0, 1.0)).minimum(row[None])[0]
        left, exact = fractions.Fraction(eps), fractions.Fraction(0)
        for i in np.argsort(-np.abs(row)):
            at = fractions.Fraction(x[i])
            move = min(left, at if row[i] > 0 else 1 - at)
            left -= move
            exact += fractions.Fraction(row[i]) * at - abs(fractions.Fraction(row[i])) * move
        assert fractions.Fraction(bound) <= exact
        assert float(exact) - bound < 1e-13


@pytest.mark.parametrize("norm", NORMS)
def test_a_radius_of_zero_and_one_beyond_the_box(norm):
    x, rows = np.array([0.25, 1.0, 0.0]), np.array([[1.0, -2.0, 0.5], [0.0, 0.0, 0.0]])
    point = norm_ball(x, 0.0, norm, (0.0, 1.0)).minimum(rows)
    assert point == pytest.approx([-1.75, 0.0], abs=1e-13)
    assert (point <= rows @ x).all()
    whole = norm_ball(x, 9.0, norm, (0.0, 1.0)).minimum(rows)
    assert whole == pytest.approx([-2.0, 0.0], abs=1e-13)


def test_the_simplex_has_its_minimum_at_a_corner():
    rows = np.array([[0.5, -1.0, 2.0], [3.0, 1.0, 1.0]])
    for given in (rows, sparse.csr_array(rows)):
        assert Simplex(3).minimum(given).tolist() == [-1.0, 1.0]
    assert Simplex(3).lowest_points(rows).tolist() == [[0, 1, 0], [0, 1, 0]]


@pytest.mark.parametrize("norm", NORMS)
def test_no_sampled_point_is_below_its_bound(norm):
    """10⁵ points in all: every activation in its box, every margin above its bound."""
    for seed in range(50):
        module, shape = random_network(seed)
        network = from_torch(module, shape)
        rng = np.random.default_rng(seed)
        x = center(rng, network.input_size)
        eps = float(rng.uniform(0.02, 1.0))
        region = norm_ball(x, eps, norm, (0.0, 1.0))
        boxes = network_bounds(network, region)
        rows = margin_rows(0, network.classes)
        bound = rows_lower_bound(network, boxes, region, rows)
        points = points_of(rng, x, eps, norm, 2000)
        for box, values in zip(boxes, network.outputs(points), strict=True):
            slack = 1e-12 * (1.0 + np.abs(values).max())
            assert (values >= box.lower - slack).all()
            assert (values <= box.upper + slack).all()
        assert (network.forward(points) @ rows.T >= bound - 1e-12).all()


@pytest.mark.parametrize("norm", ["1", "2"])
def test_crown_is_below_the_true_minimum_over_a_ball(norm):
    for seed in range(12):
        module, shape = random_network(seed)
        network = from_torch(module, shape)
        rng = np.random.default_rng(seed)
        x, eps = rng.random(network.input_size), 0.3
        region = norm_ball(x, eps, norm, (0.0, 1.0))
        bound = rows_lower_bound(
            network, network_bounds(network, region), region, margin_rows(0, network.classes)
        )
        assert (
            bound <= smallest_margins_in_ball(network, x, 0, eps, norm, (0.0, 1.0)) + 1e-6
        ).all()


def test_the_first_layer_is_bounded_over_the_ball_and_not_its_box():
    """x₀ + … + x₉₉ from 0.5 each with Σ|x' − x| ≤ 1 lies in [49, 51]; over the box in [0, 100]."""
    step = Affine(np.ones((1, 100)), np.zeros(1))
    network = Network((step, ReLU(1), Affine(np.ones((2, 1)), np.zeros(2))), (100,))
    boxes = network_bounds(network, norm_ball(np.full(100, 0.5), 1.0, "1", (0.0, 1.0)))
    assert (boxes[0].lower[0], boxes[0].upper[0]) == pytest.approx((49.0, 51.0))
    boxes = network_bounds(network, norm_ball(np.full(100, 0.5), 1.0, "2", (0.0, 1.0)))
    assert (boxes[0].lower[0], boxes[0].upper[0]) == pytest.approx((40.0, 60.0))


def test_a_box_is_a_region():
    box = Box(np.array([-1.0, 0.0]), np.array([2.0, 1.0]))
    rows = np.array([[1.0, -1.0], [-2.0, 0.0]])
    assert box.minimum(rows) == pytest.approx([-2.0, -4.0])
    assert box.lowest_points(rows).tolist() == [[-1.0, 1.0], [2.0, 0.5]]
