"""The interior-point method finds the nearest point that scipy finds."""

from __future__ import annotations

import math

import clarabel
import numpy as np
import pytest

from robustlib.solvers import InteriorPoint, SolverError
from tests.solvers.test_lazy import nearest_by_scipy


@pytest.mark.parametrize("seed", range(12))
def test_nearest_point_is_that_of_scipy(seed: int) -> None:
    """Rows of very different length, a center on the border; rows that join later count too."""
    rng = np.random.default_rng(seed)
    n, m = 6, 40
    center = rng.random(n)
    center[:2] = [0.0, 1.0]
    rows = rng.standard_normal((m, n)) * rng.choice([0.01, 1.0, 100.0], (m, 1))
    rows[rng.random((m, n)) < 0.3] = 0.0
    limits = rows @ center + np.abs(rows).sum(1) * rng.uniform(0.0, 0.3, m)
    limits[0] = rows[0] @ center - np.abs(rows[0]).sum() * rng.uniform(0.02, 0.15)
    search = InteriorPoint(center, np.zeros(n), np.ones(n), rows[:1], limits[:1])
    for last in (1, m // 2, m):
        search.add(rows[len(search._limits) : last], limits[len(search._limits) : last])
        expected = nearest_by_scipy(center, rows[:last], limits[:last])
        found = search.minimize()
        assert found.objective == pytest.approx(expected, rel=1e-5)
        if found.x is not None:
            assert (found.x >= 0).all()
            assert (found.x <= 1).all()
            length = np.abs(rows[:last]).sum(1)
            assert (rows[:last] @ found.x <= limits[:last] + 1e-5 * expected * length).all()
            assert np.abs(found.x - center).max() == found.objective
            assert search.minimize(0.999 * expected).x is None
            assert search.minimize(1.001 * expected).x is not None
    assert search.added == m - 1


def test_rows_that_nothing_satisfies() -> None:
    """Two of them together, one alone, and one without coefficients."""
    center, low, high = np.full(2, 0.5), np.zeros(2), np.ones(2)
    rows, limits = np.array([[1.0, 1.0], [-1.0, -1.0]]), np.array([0.5, -1.5])
    assert InteriorPoint(center, low, high, rows, limits).minimize().x is None
    far = np.array([-3.0])
    assert InteriorPoint(center, low, high, rows[:1], far).minimize().x is None
    never = InteriorPoint(center, low, high, np.zeros((1, 2)), far).minimize()
    assert (never.x, never.objective) == (None, math.inf)


def test_a_center_that_satisfies_all_rows_is_the_answer() -> None:
    search = InteriorPoint(np.full(2, 0.5), np.zeros(2), np.ones(2), np.eye(2), np.ones(2))
    found = search.minimize()
    assert found.objective == search.solves == 0
    np.testing.assert_array_equal(found.x, [0.5, 0.5])


def test_an_engine_that_stops_early_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    settings = clarabel.DefaultSettings

    def few() -> clarabel.DefaultSettings:
        made = settings()
        made.max_iter = 1
        return made

    monkeypatch.setattr("clarabel.DefaultSettings", few)
    rows = rng.standard_normal((5, 4))
    limits = rows @ np.full(4, 0.5) - 0.1
    with pytest.raises(SolverError, match=r"clarabel.*MaxIterations"):
        InteriorPoint(np.full(4, 0.5), np.zeros(4), np.ones(4), rows, limits).minimize()


def test_an_optimum_far_beyond_the_lower_bound_is_an_error() -> None:
    """A narrow wedge: each row is met at 1e-5, both together at 0.02 only."""
    center, rows = np.full(2, 0.5), np.array([[1.0, -1.0], [-0.999, 1.0]])
    limits = rows @ center - np.array([2e-5, 0.0])
    with pytest.raises(SolverError, match="beyond 1000 lower bounds"):
        InteriorPoint(center, np.zeros(2), np.ones(2), rows, limits).minimize()
