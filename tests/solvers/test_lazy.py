"""Lazy programs find the optimum of the whole program, by scipy, and look at few of its rows."""

from __future__ import annotations

import math

import highspy
import numpy as np
import pytest
from scipy import sparse
from scipy.optimize import linprog

from robustlib.solvers import LazyProgram, NearestPoint, Program, SolverError
from robustlib.solvers.highs import HighsModel
from robustlib.solvers.lazy import More, reach


def in_turn(rows: np.ndarray, limits: np.ndarray, at_once: int = 2, extra: int = 0) -> More:
    """The most violated rows, a few at a time."""
    given = np.zeros(len(limits), dtype=bool)

    def more(x: np.ndarray) -> tuple[sparse.csr_array, np.ndarray]:
        slack = limits - rows @ x[: rows.shape[1]]
        which = np.flatnonzero((slack < -1e-9) & ~given)
        which = which[np.argsort(slack[which])][:at_once]
        given[which] = True
        return sparse.csr_array(np.pad(rows[which], ((0, 0), (0, extra)))), limits[which]

    return more


def nearest_by_scipy(center: np.ndarray, rows: np.ndarray, limits: np.ndarray) -> float:
    n = len(center)
    one = np.ones((n, 1))
    answer = linprog(
        np.append(np.zeros(n), 1.0),
        A_ub=np.vstack(
            [
                np.pad(rows, ((0, 0), (0, 1))),
                np.hstack([np.eye(n), -one]),
                np.hstack([-np.eye(n), -one]),
            ]
        ),
        b_ub=np.concatenate([limits, center, -center]),
        bounds=[(0, 1)] * n + [(0, None)],
    )
    assert answer.status in (0, 2)
    return float(answer.fun) if answer.status == 0 else math.inf


@pytest.mark.parametrize("seed", range(12))
def test_nearest_point_is_that_of_scipy(seed: int) -> None:
    rng = np.random.default_rng(seed)
    n, m = 6, 40
    center = rng.random(n)
    center[:2] = [0.0, 1.0]  # on the border of the box
    rows = rng.standard_normal((m, n)) * rng.choice([0.01, 1.0, 100.0], (m, 1))
    rows[rng.random((m, n)) < 0.3] = 0.0
    limits = rows @ center + np.abs(rows).sum(1) * rng.uniform(0.0, 0.3, m)
    limits[0] = rows[0] @ center - np.abs(rows[0]).sum() * rng.uniform(0.02, 0.15)
    low, high = np.zeros(n), np.ones(n)
    search = NearestPoint(center, low, high, rows[:1], limits[:1], in_turn(rows[1:], limits[1:]))
    for shifted in (0.0, 0.01 * np.abs(rows[0]).sum()):
        if shifted:
            search.shift(range(1), shifted)
            limits = np.append(limits[0] - shifted, limits[1:])
        expected = nearest_by_scipy(center, rows, limits)
        found = search.minimize()
        assert found.objective == pytest.approx(expected, abs=1e-8)
        if found.x is not None:
            assert (rows @ found.x <= limits + 1e-8 * np.abs(rows).sum(1)).all()
            assert np.abs(found.x - center).max() == found.objective
    assert search.added < m - 1


def test_some_of_these_programs_have_no_solution() -> None:
    """Two rows that no point satisfies together, and one that none satisfies alone."""
    center, low, high = np.full(2, 0.5), np.zeros(2), np.ones(2)
    rows, limits = np.array([[1.0, 1.0], [-1.0, -1.0]]), np.array([0.5, -1.5])
    more = in_turn(rows[1:], limits[1:])
    assert NearestPoint(center, low, high, rows[:1], limits[:1], more).minimize().x is None
    far, nothing = np.array([-3.0]), in_turn(rows[:0], limits[:0])
    assert NearestPoint(center, low, high, rows[:1], far, nothing).minimize().x is None
    never = NearestPoint(center, low, high, np.zeros((1, 2)), far, nothing).minimize()
    assert (never.x, never.objective) == (None, math.inf)


def test_nothing_is_found_beyond_the_limit() -> None:
    center, low, high = np.full(2, 0.5), np.zeros(2), np.ones(2)
    row, limit = np.array([[1.0, 0.0]]), np.array([0.2])
    nothing = in_turn(row[:0], limit[:0])
    search = NearestPoint(center, low, high, row, limit, nothing)
    assert search.minimize(0.29).x is None
    assert search.minimize(0.31).objective == pytest.approx(0.3)


def test_reach_is_where_the_box_meets_the_half_space() -> None:
    """By hand: coordinates move together until each meets its bound; against a fine search."""
    rng = np.random.default_rng(0)
    for _ in range(50):
        n = int(rng.integers(1, 6))
        center, row = rng.random(n), rng.standard_normal(n)
        missing = rng.uniform(0, 0.6)
        radii = np.linspace(0, 1, 2001)
        lowest = [
            np.minimum(row * np.maximum(0, center - t), row * np.minimum(1, center + t)).sum()
            for t in radii
        ]
        reached = np.flatnonzero(np.array(lowest) <= row @ center - missing)
        expected = radii[reached[0]] if len(reached) else math.inf
        found = reach(row, missing, center, 1 - center)
        assert found == pytest.approx(expected, abs=1 / 2000)


@pytest.mark.parametrize("solver", ["highs", "scip", "cvxpy"])
def test_a_lazy_program_has_the_optimum_of_the_whole_one(solver: str) -> None:
    rng = np.random.default_rng(0)
    rows, limits = rng.standard_normal((30, 4)), rng.uniform(0.1, 1.0, 30)
    cost = rng.standard_normal(4)
    whole = linprog(cost, A_ub=rows, b_ub=limits, bounds=(-1, 1))
    first = Program(
        objective=cost,
        matrix=sparse.csr_array(rows[:3]),
        row_lower=np.full(3, -np.inf),
        row_upper=limits[:3],
        lower=-np.ones(4),
        upper=np.ones(4),
        integer=np.zeros(4, dtype=bool),
    )
    program = LazyProgram(first, in_turn(rows[3:], limits[3:]), solver)
    assert program.minimize().objective == pytest.approx(whole.fun, abs=1e-6)
    assert 0 < program.added < 27
    assert program.solves > 1
    program.shift(range(3), 0.05)
    limits[:3] -= 0.05
    shifted = linprog(cost, A_ub=rows, b_ub=limits, bounds=(-1, 1))
    assert program.minimize().objective == pytest.approx(shifted.fun, abs=1e-6)
    assert program.minimize(shifted.fun - 0.1).x is None


def test_an_engine_that_fails_is_an_error_and_no_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    def failing(*_: object, **__: object) -> None:
        raise RuntimeError("out of luck")

    monkeypatch.setattr("robustlib.solvers.highs.HighsModel.solve", failing)
    row, limit = np.array([[1.0, 0.0]]), np.array([0.2])
    nothing = in_turn(row[:0], limit[:0])
    search = NearestPoint(np.full(2, 0.5), np.zeros(2), np.ones(2), row, limit, nothing)
    with pytest.raises(SolverError, match="out of luck"):
        search.minimize()


@pytest.mark.parametrize("times", [1, 2])
def test_numerical_trouble_is_tried_once_more_from_the_start(
    times: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """HiGHS said so of image 313 of a sample of MNIST: without the old basis it found the end."""
    program = Program(
        objective=np.ones(2),
        matrix=sparse.csr_array(np.array([[-1.0, -2.0]])),
        row_lower=np.array([-math.inf]),
        row_upper=np.array([-1.0]),
        lower=np.zeros(2),
        upper=np.ones(2),
        integer=np.zeros(2, dtype=bool),
    )
    model = HighsModel(program)
    engine, cleared = model._highs, []

    class Troubled:
        def __getattr__(self, name: str) -> object:
            return getattr(engine, name)

        def getModelStatus(self) -> highspy.HighsModelStatus:
            if len(cleared) < times:
                return highspy.HighsModelStatus.kUnknown
            return engine.getModelStatus()

        def clearSolver(self) -> None:
            cleared.append(1)
            engine.clearSolver()

    monkeypatch.setattr(model, "_highs", Troubled())
    found = model.solve()
    assert len(cleared) == 1
    assert found.status == ("optimal" if times == 1 else "limit")
    if times == 1:
        assert found.objective == pytest.approx(0.5)
