"""One small problem type, three engines, and bounds that do not take an engine's word."""

from robustlib.solvers.cone import solve_in_ball
from robustlib.solvers.engines import SOLVERS, SolverError, solve
from robustlib.solvers.interior import InteriorPoint
from robustlib.solvers.lazy import LazyProgram, NearestPoint
from robustlib.solvers.program import Program, Solution
from robustlib.solvers.safe import safe_lower_bound
from robustlib.solvers.tree import Certificate, prove_at_least

__all__ = [
    "SOLVERS",
    "Certificate",
    "InteriorPoint",
    "LazyProgram",
    "NearestPoint",
    "Program",
    "Solution",
    "SolverError",
    "prove_at_least",
    "safe_lower_bound",
    "solve",
    "solve_in_ball",
]
