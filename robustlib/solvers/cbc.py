"""COIN-OR Cbc, the program that the package pulp brings along: an engine of the paper's Table 4."""

from __future__ import annotations

import math
import re
import subprocess
import tempfile
import time
from pathlib import Path

import numpy as np

from robustlib.solvers.highs import HighsModel
from robustlib.solvers.program import Program, Solution


def run(program: Program, *, time_limit: float, first: bool) -> Solution:
    import pulp

    start = time.perf_counter()
    options = ["-threads", "0", "-ratioGap", "0", "-allowableGap", "1e-7"]
    if time_limit < math.inf:
        options += ["-timeMode", "elapsed", "-seconds", f"{time_limit:.3f}"]
    if first:
        options += ["-maxSolutions", "1"]
    with tempfile.TemporaryDirectory() as folder:
        model, answer = Path(folder, "program.mps"), Path(folder, "answer")
        HighsModel(program).write(model)
        command = [pulp.PULP_CBC_CMD().path, str(model), *options, "-solve"]
        log = subprocess.run(
            [*command, "-solution", str(answer), "-quit"],
            capture_output=True, text=True, check=False,
        ).stdout  # fmt: skip
        said, *rows = answer.read_text().splitlines() if answer.exists() else [""]
    nodes = re.search(r"Enumerated nodes:\s+(\d+)", log)
    seconds = time.perf_counter() - start
    if said.startswith(("Infeasible", "Integer infeasible")):
        return Solution("infeasible", None, None, math.inf, None, int(nodes[1]) if nodes else 0,
                        seconds)  # fmt: skip
    if not said.startswith(("Optimal", "Stopped")):
        raise RuntimeError(f"Cbc stopped with {said or log[-200:]!r}")
    finished = said.startswith("Optimal")
    point = None
    if finished or "no integer solution" not in said:
        point = np.zeros(program.variables)
        for row in rows:  # the variables that are not 0
            name, value = row.replace("**", "").split()[1:3]
            point[int(name[1:])] = float(value)
    objective = None if point is None else float(program.objective @ point)
    return Solution(
        status="optimal" if finished else "limit",
        x=point,
        objective=objective,
        bound=objective if finished and objective is not None else -math.inf,
        duals=None,
        nodes=int(nodes[1]) if nodes else 0,
        seconds=seconds,
    )
