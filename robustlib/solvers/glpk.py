"""GLPK, through swiglpk: an engine of the paper's Table 4. It reports no number of nodes."""

from __future__ import annotations

import math
import tempfile
import time
from pathlib import Path

import numpy as np

from robustlib.solvers.highs import HighsModel
from robustlib.solvers.program import Program, Solution


def run(program: Program, *, time_limit: float, first: bool) -> Solution:
    """``first`` has no counterpart here: the optimum is found in any case."""
    import swiglpk as glpk

    start = time.perf_counter()
    glpk.glp_term_out(glpk.GLP_OFF)
    problem = glpk.glp_create_prob()
    try:
        with tempfile.TemporaryDirectory() as folder:
            model = Path(folder, "program.mps")
            HighsModel(program).write(model)
            if glpk.glp_read_mps(problem, glpk.GLP_MPS_FILE, None, str(model)):
                raise RuntimeError("GLPK refused the model")
        options = glpk.glp_iocp()
        glpk.glp_init_iocp(options)
        options.presolve = glpk.GLP_ON
        if time_limit < math.inf:
            options.tm_lim = max(1, int(1000 * time_limit))
        code = glpk.glp_intopt(problem, options)
        status = glpk.glp_mip_status(problem)
        seconds = time.perf_counter() - start
        if code == glpk.GLP_ENOPFS or status == glpk.GLP_NOFEAS:
            return Solution("infeasible", None, None, math.inf, None, 0, seconds)
        if code not in (0, glpk.GLP_ETMLIM):
            raise RuntimeError(f"GLPK stopped with the code {code}")
        point = None
        if status in (glpk.GLP_OPT, glpk.GLP_FEAS):
            columns = range(1, program.variables + 1)
            point = np.array([glpk.glp_mip_col_val(problem, j) for j in columns])
    finally:
        glpk.glp_delete_prob(problem)
    objective = None if point is None else float(program.objective @ point)
    finished = status == glpk.GLP_OPT and objective is not None
    bound = objective if finished and objective is not None else -math.inf
    name = "optimal" if finished else "limit"
    return Solution(name, point, objective, bound, None, 0, seconds)
