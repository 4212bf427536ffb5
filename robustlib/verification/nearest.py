"""The nearest adversarial point inside one linear region: a convex program, whatever the norm.

It finds witnesses, and proves nothing.
"""

from __future__ import annotations

import math

import clarabel
import numpy as np
from scipy import sparse

from robustlib.encoders.restriction import linear_region
from robustlib.network import MaxPool, ReLU
from robustlib.solvers import Program, solve
from robustlib.verification.question import Question


def nearest_in_region(
    question: Question, point: np.ndarray, *, lead: float, solver: str, time_limit: float
) -> np.ndarray | None:
    """min ‖x' − x‖ where every unit decides as at ``point`` and the label loses by ``lead``.

    Parameters
    ----------
    question : units whose sign its bounds settle are left out, so that the answer counts only
        inside its ball.
    point : (input_size,) where another logit is above the label's; the largest one there has to
        win.
    solver : engine of the linear programs, in the norms "inf" and "1".

    Returns
    -------
    nearest : (input_size,), or None if the engine found none.
    """
    region = linear_region(question.network, point)
    logits = region.logits(point[None])[0]
    logits[question.label] = -np.inf
    wins = region.weight[question.label] - region.weight[logits.argmax()]
    constant = region.bias[question.label] - region.bias[logits.argmax()]
    is_open = np.array([_is_open(question, *unit) for unit in region.units], dtype=bool)
    matrix = np.vstack([region.matrix[is_open], wins])
    bound = np.append(region.bound[is_open], -constant - lead)
    if question.norm == "2":
        return _nearest_l2(question, matrix, bound, time_limit)
    program = _linear(question, matrix, bound)
    found = solve(program, solver=solver, time_limit=time_limit).x
    return None if found is None else found[: len(point)]


def _is_open(question: Question, number: int, unit: int) -> bool:
    step = question.network.steps[number]
    before = question.boxes[number - 1] if number else question.box
    if isinstance(step, ReLU):
        return bool(before.lower[unit] < 0 < before.upper[unit])
    assert isinstance(step, MaxPool)
    return True


def _linear(question: Question, matrix: np.ndarray, bound: np.ndarray) -> Program:
    """Columns x' and t: one for the largest change, or one for each."""
    x, box = question.center, question.box
    n = len(x)
    spread = np.ones((n, 1)) if question.norm == "inf" else np.eye(n)
    t = spread.shape[1]
    near = sparse.block_array([[sparse.eye_array(n), -spread], [-sparse.eye_array(n), -spread]])
    rows = sparse.block_array([[sparse.csr_array(matrix), sparse.csr_array((len(matrix), t))]])
    upper = np.concatenate([bound, x, -x])
    return Program(
        objective=np.append(np.zeros(n), np.ones(t)),
        matrix=sparse.csr_array(sparse.vstack([rows, near])),
        row_lower=np.full(len(upper), -np.inf),
        row_upper=upper,
        lower=np.append(box.lower, np.zeros(t)),
        upper=np.append(box.upper, np.full(t, np.inf)),
        integer=np.zeros(n + t, dtype=bool),
    )


def _nearest_l2(
    question: Question, matrix: np.ndarray, bound: np.ndarray, time_limit: float
) -> np.ndarray | None:
    """min ½‖d‖², matrix (x + d) ≤ bound, x + d in the box."""
    x, box = question.center, question.box
    n = len(x)
    one = sparse.eye_array(n, format="csc")
    rows = sparse.csc_array(sparse.vstack([sparse.csr_array(matrix), one, -one]))
    limits = np.concatenate([bound - matrix @ x, box.upper - x, x - box.lower])
    settings = clarabel.DefaultSettings()
    settings.verbose = False
    if math.isfinite(time_limit):
        settings.time_limit = time_limit
    cones = [clarabel.NonnegativeConeT(len(limits))]
    as_csc = sparse.csc_matrix  # what clarabel reads
    engine = clarabel.DefaultSolver(as_csc(one), np.zeros(n), as_csc(rows), limits, cones, settings)
    answer = engine.solve()
    solved = (clarabel.SolverStatus.Solved, clarabel.SolverStatus.AlmostSolved)
    return x + np.array(answer.x) if answer.status in solved else None
