"""The search that Bastani et al. published: it ends at the first point that fools the network.

The text of the paper minimizes over the linear region of x*. The authors' program solves the same
linear programs with few of their rows, but runs the network at every optimum, and where the label
has changed it takes the point, though that need not lie in the region. In the words of program
analysis this is counterexample-guided abstraction refinement (Clarke et al. 2000): a point whose
label has not changed is spurious, and the rows that it violates refine the program.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import torch
from scipy import sparse

from robustlib.encoders.frozen import OUTSIDE
from robustlib.pointwise.result import Answer
from robustlib.pointwise.search import AT_ONCE, STRICT, Search, nothing, whole_pixels
from robustlib.solvers import InteriorPoint, NearestPoint, SolverError

PROGRAMS = 5  # as published: linear programs after which the search gives up
ROWS = 700  # as published: violated rows that join a program, in the order of the layers


def refine(search: Search, target: int, limit: float) -> Answer:
    """The first optimum within ``limit`` that has another label than x*, or none.

    With ``pixels`` it is rounded to whole pixels before the network sees it.
    """
    frozen = search.frozen
    rows, limits = frozen.target_rows(target)
    given = np.zeros(len(frozen), dtype=bool)
    program, give = _program(search, rows, limits - search.problem.alpha, given)
    answer = replace(nothing(search.label), constraints=len(frozen) + len(rows))
    try:
        for left in reversed(range(PROGRAMS)):
            optimum = program.minimize(limit)
            if optimum.x is None:
                break
            point = search.inside(optimum.x)
            answer = _labeled(search, answer, point, limit)
            outside = np.flatnonzero((frozen.slacks(point) < -OUTSIDE) & ~given)[:ROWS]
            if not left or not len(outside) or answer.status == "found":
                break
            given[outside] = True
            give(outside)
    except SolverError as error:
        note = " ".join(str(error).split())
        answer = replace(answer, status="undecided", rho=math.nan, note=note)
    return replace(answer, iterations=program.solves, used=len(rows) + program.added)


def _program(
    search: Search, rows: np.ndarray, limits: np.ndarray, given: np.ndarray
) -> tuple[NearestPoint | InteriorPoint, Callable[[np.ndarray], None]]:
    """The program of the engine that was asked for, and what gives it more rows of the network.

    HiGHS sees those rows only that its own points violate, so it looks them up in ``given``.
    """
    problem, frozen, center = search.problem, search.frozen, search.center
    assert problem.bounds is not None
    low, high = (np.full(len(center), end) for end in problem.bounds)
    if problem.solver == "clarabel":
        whole = InteriorPoint(center, low, high, rows, limits)
        return whole, lambda which: whole.add(*frozen.rows(which))
    solved = np.zeros(len(given), dtype=bool)

    def more(point: np.ndarray) -> tuple[sparse.csr_array, np.ndarray]:
        which = frozen.most_violated(frozen.slacks(point), ~given | solved, AT_ONCE)
        solved[which] = True
        found, ends = frozen.rows(which)
        return sparse.csr_array(found), ends

    return NearestPoint(center, low, high, rows, limits, more), lambda which: None


def _labeled(search: Search, answer: Answer, point: np.ndarray, limit: float) -> Answer:
    """``answer`` with ``point`` as its witness, if the network gives it another label."""
    pixels, tried = search.problem.pixels, point
    rho = search.away(point)
    if pixels is not None:
        tried = whole_pixels(torch.from_numpy(point), pixels).numpy()
        rho = round(search.away(tried) * pixels) / pixels
    label = int(search.problem.logits(tried).argmax())
    if label == search.label or rho > limit or search.lead(tried, label) < STRICT / 2:
        return answer
    witness = search.tensor(tried)
    return replace(
        answer,
        status="found",
        rho=rho,
        distance=search.away(tried),
        target=label,
        nearest=search.tensor(point),
        witness=witness,
        rounded=None if pixels is None else witness,
    )
