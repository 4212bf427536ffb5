"""Three engines, one answer; and bounds that do not depend on any of them."""

import math
import sys

import cvxpy as cp
import highspy
import numpy as np
import pyscipopt
import pytest
from scipy import sparse
from scipy.optimize import linprog

from robustlib.solvers import (
    SOLVERS,
    Program,
    SolverError,
    prove_at_least,
    safe_lower_bound,
    solve,
)


def random_program(seed, *, integers):
    """A feasible program over the unit box with equality, inequality and two-sided rows."""
    rng = np.random.default_rng(seed)
    n, m = rng.integers(2, 9), rng.integers(1, 8)
    matrix = rng.normal(size=(m, n))
    integer = (rng.random(n) < 0.5) & integers
    point = np.where(integer, np.round(rng.random(n)), rng.random(n))
    value = matrix @ point
    return Program(
        objective=rng.normal(size=n),
        matrix=sparse.csr_array(matrix),
        row_lower=np.where(rng.random(m) < 0.4, value, -np.inf),
        row_upper=value + rng.random(m) * (rng.random(m) < 0.7),
        lower=np.zeros(n),
        upper=np.ones(n),
        integer=integer,
    )


def infeasible_program():
    """x ≥ 0.7 and x ≤ 0.3."""
    one = np.ones(1)
    return Program(
        one,
        sparse.csr_array(np.ones((2, 1))),
        np.array([0.7, -np.inf]),
        np.array([np.inf, 0.3]),
        0 * one,
        one,
        np.zeros(1, dtype=bool),
    )


@pytest.mark.parametrize("integers", [False, True])
def test_engines_agree(integers):
    for seed in range(25):
        program = random_program(seed, integers=integers)
        answers = [solve(program, solver=solver) for solver in SOLVERS]
        assert {a.status for a in answers} == {"optimal"}
        assert np.ptp([a.objective for a in answers]) < 1e-6, seed
        for answer in answers:
            rows = program.matrix @ answer.x
            assert (rows >= program.row_lower - 1e-6).all()
            assert (rows <= program.row_upper + 1e-6).all()


@pytest.mark.parametrize("solver", SOLVERS)
def test_cutoff_first_and_infeasible(solver):
    program = random_program(3, integers=True)
    best = solve(program, solver=solver).objective
    assert solve(program, solver=solver, cutoff=best - 0.1).status == "infeasible"
    some = solve(program, solver=solver, cutoff=best + 0.1, first=True)
    assert some.x is not None
    assert some.objective <= best + 0.1 + 1e-6
    nothing = solve(infeasible_program(), solver=solver)
    assert nothing.status == "infeasible"
    assert nothing.x is None


@pytest.mark.parametrize("status", [cp.INFEASIBLE_INACCURATE, cp.OPTIMAL_INACCURATE])
def test_an_inaccurate_answer_of_cvxpy_decides_nothing(status, monkeypatch):
    """It proves no bound: neither that there is no point, nor that none is better."""
    solvable = status == cp.OPTIMAL_INACCURATE
    monkeypatch.setattr(cp.Problem, "status", status)
    program = random_program(3, integers=False) if solvable else infeasible_program()
    answer = solve(program, solver="cvxpy")
    assert (answer.status, answer.bound) == ("limit", -math.inf)
    assert (answer.x is not None) == solvable


@pytest.mark.parametrize("solver", SOLVERS)
def test_infeasible_or_unbounded_is_not_infeasible(solver, monkeypatch):
    class Unsure(pyscipopt.Model):
        def getStatus(self):
            return "inforunbd"

    unsure = highspy.HighsModelStatus.kUnboundedOrInfeasible
    monkeypatch.setattr("robustlib.solvers.scip.Model", Unsure)
    monkeypatch.setattr(highspy.Highs, "getModelStatus", lambda _: unsure)
    monkeypatch.setattr(cp.Problem, "status", cp.settings.INFEASIBLE_OR_UNBOUNDED)
    with pytest.raises(SolverError, match=f"solver='{solver}' failed: .* stopped with"):
        solve(infeasible_program(), solver=solver)


def test_an_error_inside_scip_is_a_solver_error(monkeypatch):
    """pyscipopt raises a plain Exception, which nobody above should have to catch."""

    class Broken(pyscipopt.Model):
        def optimize(self):
            raise Exception("SCIP: error in LP solver!")

    monkeypatch.setattr("robustlib.solvers.scip.Model", Broken)
    with pytest.raises(SolverError, match="solver='scip' failed: SCIP: error in LP solver!"):
        solve(random_program(3, integers=True), solver="scip")


def test_a_safe_bound_is_below_the_optimum_for_any_multipliers_and_meets_it_for_the_best():
    for seed in range(40):
        program = random_program(seed, integers=False)
        answer = solve(program)
        safe = safe_lower_bound(program, answer.duals)
        oracle = linprog(
            program.objective,
            A_ub=np.vstack([program.matrix.toarray(), -program.matrix.toarray()]),
            b_ub=np.minimum(np.concatenate([program.row_upper, -program.row_lower]), 1e6),
            bounds=(0, 1),
        ).fun
        assert safe <= oracle + 1e-9
        assert safe == pytest.approx(oracle, abs=1e-7)
        wild = np.random.default_rng(seed).normal(size=len(answer.duals))
        assert safe_lower_bound(program, wild) <= oracle + 1e-9


def test_a_safe_bound_survives_wrong_duals_of_the_engine():
    program = random_program(0, integers=False)
    duals = solve(program).duals
    for broken in (duals * np.nan, duals * 1e300, duals + np.inf):
        assert safe_lower_bound(program, broken) <= solve(program).objective + 1e-9


def test_the_tree_proves_exactly_what_is_true():
    for seed in range(25):
        program = random_program(seed, integers=True)
        best = solve(program).objective
        proof = prove_at_least(program, best - 1e-6)
        assert proof.finished
        assert best - 1e-6 <= proof.lower <= best + 1e-6  # the engine is off by its tolerance
        beyond = prove_at_least(program, best + 1e-4)
        assert not beyond.finished
        assert beyond.lower <= best + 1e-6
    assert prove_at_least(infeasible_program(), 5.0).lower == np.inf


def test_the_tree_keeps_what_it_proved_when_time_or_nodes_run_out():
    program = random_program(7, integers=True)
    best = solve(program).objective
    for limits in ({"node_limit": 1}, {"time_limit": 0.0}):
        proof = prove_at_least(program, best + 1.0, **limits)
        assert not proof.finished
        assert proof.lower <= best + 1e-9


def test_bad_programs_and_solvers_are_refused():
    program = infeasible_program()
    with pytest.raises(ValueError, match="Did you mean 'highs'"):
        solve(program, solver="high")
    with pytest.raises(ValueError, match="time_limit=-1"):
        solve(program, time_limit=-1)
    with pytest.raises(ValueError, match=r"objective has shape \(2,\)"):
        Program(
            np.ones(2), program.matrix, program.row_lower, program.row_upper, program.lower,
            program.upper, program.integer,
        )  # fmt: skip
    with pytest.raises(ValueError, match="lower holds NaN"):
        Program(
            program.objective, program.matrix, program.row_lower, program.row_upper,
            program.lower * np.nan, program.upper, program.integer,
        )  # fmt: skip


def test_a_missing_engine_is_named_with_its_remedy(monkeypatch):
    monkeypatch.setitem(SOLVERS, "highs", ("robustlib.solvers.not_there", "highspy"))
    with pytest.raises(SolverError, match="pip install highspy"):
        solve(infeasible_program())


def test_an_engine_that_fails_at_a_node_makes_the_tree_slower_and_not_wrong(monkeypatch):
    from robustlib.solvers.highs import HighsModel

    program = random_program(7, integers=True)
    best = solve(program).objective
    honest = HighsModel.solve
    calls = iter(range(10**6))

    def moody(model, **options):
        if next(calls) % 2 == 0:
            raise RuntimeError("HiGHS returned an error")
        return honest(model, **options)

    monkeypatch.setattr(HighsModel, "solve", moody)
    proof = prove_at_least(program, best - 1e-6, node_limit=200)
    assert proof.lower <= best + 1e-6


def test_an_open_leaf_does_not_speak_for_the_nodes_that_were_not_looked_at():
    """min 1e-3 a − 3 b is −3, below every threshold here, wherever the search ends."""
    one, zero = np.ones(2), np.zeros(2)
    program = Program(
        np.array([1e-3, -3.0]), sparse.csr_array(np.ones((1, 2))), zero[:1], 2 * one[:1], zero, one,
        one > 0,
    )  # fmt: skip
    assert prove_at_least(program, 0.5).lower <= -3.0
    seen = []
    stop = prove_at_least(program, 0.5, inspect=lambda x: seen.append(x) or len(seen) == 3)
    assert stop.stopped
    assert stop.lower <= -3.0


def test_the_tree_finds_the_variable_that_matters_among_many_that_do_not():
    """|a − ½| + 1e-3 Σ |b_i − ½| is at least ½: a alone proves it, 2²¹ nodes would too."""
    n = 21
    far = sparse.eye_array(n)
    program = Program(
        np.concatenate([np.zeros(n), np.full(n - 1, 1e-3), np.ones(1)]),
        sparse.csr_array(sparse.block_array([[-far, far], [far, far]])),
        np.concatenate([np.full(n, -0.5), np.full(n, 0.5)]), np.full(2 * n, np.inf),
        np.zeros(2 * n), np.ones(2 * n), np.arange(2 * n) < n,
    )  # fmt: skip
    proof = prove_at_least(program, 0.5 - 1e-6)
    assert proof.finished
    assert proof.nodes < 500


def test_a_bound_that_overflows_or_underflows_is_safe():
    """x = 1e-400 · y at most, by a row and a multiplier whose product underflows."""
    program = Program(
        np.zeros(1), sparse.csr_array(np.array([[1e-200]])), np.zeros(1), np.ones(1),
        np.zeros(1), np.array([1e300]), np.zeros(1, dtype=bool),
    )  # fmt: skip
    assert safe_lower_bound(program, np.array([1e-200])) <= -1e-100
    assert safe_lower_bound(random_program(0, integers=False), np.full(9, 1e308)[:1]) == -np.inf


def test_coefficients_that_the_engine_refuses_are_an_error_of_the_solver():
    program = infeasible_program()
    huge = Program(
        program.objective, program.matrix * 1e30, program.row_lower, program.row_upper,
        program.lower, program.upper, program.integer,
    )  # fmt: skip
    with pytest.raises(SolverError, match="refused"):
        prove_at_least(huge, 0.0)


@pytest.mark.parametrize(("solver", "package"), [("cbc", "pulp"), ("glpk", "swiglpk")])
def test_engines_for_comparison_agree_with_the_others_where_they_are_installed(solver, package):
    pytest.importorskip(package)
    for seed in range(12):
        program = random_program(seed, integers=bool(seed % 2))
        expected, answer = solve(program), solve(program, solver=solver)
        assert answer.status == expected.status == "optimal"
        assert answer.objective == pytest.approx(expected.objective, abs=1e-5), seed
    best = solve(program).objective
    assert solve(program, solver=solver, cutoff=best - 0.1).status == "infeasible"
    assert solve(program, solver=solver, cutoff=best + 0.1, first=True).x is not None


def test_a_missing_engine_is_named_with_its_package(monkeypatch):
    monkeypatch.setitem(sys.modules, "swiglpk", None)
    monkeypatch.delitem(sys.modules, "robustlib.solvers.glpk", raising=False)
    with pytest.raises(SolverError, match="pip install swiglpk"):
        solve(infeasible_program(), solver="glpk")
