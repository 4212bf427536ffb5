"""The engines by name."""

from __future__ import annotations

import importlib
import math
from typing import Protocol, cast

from robustlib import checks
from robustlib.solvers.program import Program, Solution


class SolverError(RuntimeError):
    """An engine is missing, or gave up without an answer."""


class Engine(Protocol):
    """A module with ``run``: what an engine has to offer."""

    def run(self, program: Program, *, time_limit: float, first: bool) -> Solution: ...


# name → module, package that it needs
SOLVERS = {
    "highs": ("robustlib.solvers.highs", "highspy"),
    "scip": ("robustlib.solvers.scip", "pyscipopt"),
    "cvxpy": ("robustlib.solvers.cvxpy_engine", "cvxpy"),
}
# The others of Tjeng et al.'s Table 4, for comparison only: their packages are not required.
COMPARED = {
    "cbc": ("robustlib.solvers.cbc", "pulp"),
    "glpk": ("robustlib.solvers.glpk", "swiglpk"),
}


def solve(
    program: Program,
    *,
    solver: str = "highs",
    time_limit: float | None = None,
    cutoff: float | None = None,
    first: bool = False,
) -> Solution:
    """Minimize ``program`` with one of the engines.

    Parameters
    ----------
    solver : "highs", "scip" or "cvxpy" (which hands a mixed-integer program to SCIP, an LP to
        Clarabel: other algorithms than HiGHS's simplex); also "cbc" and "glpk", where installed.
    time_limit : wall seconds, or None.
    cutoff : look only for points with objective ≤ cutoff; "infeasible" then says there is none.
    first : stop at the first feasible point (status "limit").

    Raises
    ------
    SolverError
        If the engine is not installed or fails.

    Examples
    --------
    >>> import numpy as np
    >>> from scipy import sparse
    >>> one = np.ones(1)
    >>> p = Program(one, sparse.csr_array(np.ones((1, 1))), 0.5 * one, one, 0 * one, one, one > 0)
    >>> solve(p).objective
    1.0
    """
    engines = SOLVERS | COMPARED
    module, package = engines[checks.choice("solver", solver, engines)]
    limit = math.inf if time_limit is None else checks.number("time_limit", time_limit, low=0.0)
    try:
        return cast(Engine, importlib.import_module(module)).run(
            program if cutoff is None else program.with_cutoff(cutoff),
            time_limit=limit,
            first=first,
        )
    except ImportError as error:
        raise SolverError(
            f"solver={solver!r} needs the package {package}, which cannot be imported ({error}); "
            f"install it with: pip install {package}"
        ) from error
    except (RuntimeError, ArithmeticError, ValueError) as error:
        raise SolverError(f"solver={solver!r} failed: {error}") from error
