"""SCIP, through pyscipopt."""

from __future__ import annotations

import math
import time

import numpy as np
from pyscipopt import Model, quicksum

from robustlib.solvers.program import Program, Solution


def run(program: Program, *, time_limit: float, first: bool) -> Solution:
    start = time.perf_counter()
    model = Model()
    model.hideOutput()
    variables = [
        model.addVar(
            vtype="I" if integer else "C",
            lb=None if low == -math.inf else float(low),
            ub=None if high == math.inf else float(high),
            obj=float(cost),
        )
        for low, high, cost, integer in zip(
            program.lower, program.upper, program.objective, program.integer, strict=True
        )
    ]
    matrix = program.matrix.tocsr()
    for row in range(matrix.shape[0]):
        place = slice(matrix.indptr[row], matrix.indptr[row + 1])
        low, high = program.row_lower[row], program.row_upper[row]
        if low == -math.inf and high == math.inf:
            continue
        total = quicksum(
            float(value) * variables[column]
            for value, column in zip(matrix.data[place], matrix.indices[place], strict=True)
        )
        if low == high:
            model.addCons(total == float(low))
            continue
        if low > -math.inf:
            model.addCons(total >= float(low))
        if high < math.inf:
            model.addCons(total <= float(high))
    if time_limit < math.inf:
        model.setParam("limits/time", time_limit)
    if first:
        model.setParam("limits/solutions", 1)
    try:
        model.optimize()
    except Exception as error:  # pyscipopt has no class of its own for an error inside SCIP
        raise RuntimeError(str(error)) from error
    status = model.getStatus()
    if status == "infeasible":
        name = "infeasible"
    elif status == "optimal":
        name = "optimal"
    elif status in ("timelimit", "sollimit", "bestsollimit", "userinterrupt", "gaplimit"):
        name = "limit"
    else:
        raise RuntimeError(f"SCIP stopped with {status}")
    point = None
    if name != "infeasible" and model.getNSols() > 0:
        best = model.getBestSol()
        point = np.array([model.getSolVal(best, v) for v in variables])
    return Solution(
        status=name,
        x=point,
        objective=None if point is None else float(program.objective @ point),
        bound=math.inf if name == "infeasible" else float(model.getDualbound()),
        duals=None,
        nodes=int(model.getNTotalNodes()),
        seconds=time.perf_counter() - start,
    )
