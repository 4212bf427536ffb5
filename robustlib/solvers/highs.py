"""HiGHS: the default engine, and the LP that is solved again and again with other bounds."""

from __future__ import annotations

import math
import time
from pathlib import Path

import highspy
import numpy as np
from scipy import sparse

from robustlib.solvers.program import Program, Solution

_STATUS = highspy.HighsModelStatus
_STOPPED = {
    _STATUS.kTimeLimit,
    _STATUS.kSolutionLimit,
    _STATUS.kObjectiveTarget,
    _STATUS.kObjectiveBound,
    _STATUS.kIterationLimit,
    _STATUS.kInterrupt,
    _STATUS.kUnknown,  # numerical trouble: no answer, but no harm either
}


class HighsModel:
    """A program kept inside HiGHS: bounds and objective may change, the last basis is reused."""

    def __init__(self, program: Program) -> None:
        self._has_integers = bool(program.integer.any())
        lp = highspy.HighsLp()
        lp.num_col_ = program.variables
        lp.num_row_ = program.matrix.shape[0]
        lp.col_cost_ = program.objective
        lp.col_lower_, lp.col_upper_ = program.lower, program.upper
        lp.row_lower_, lp.row_upper_ = program.row_lower, program.row_upper
        matrix = program.matrix.tocsr()
        lp.a_matrix_.format_ = highspy.MatrixFormat.kRowwise
        lp.a_matrix_.start_ = matrix.indptr.astype(np.int32)
        lp.a_matrix_.index_ = matrix.indices.astype(np.int32)
        lp.a_matrix_.value_ = matrix.data
        if self._has_integers:
            kinds = [highspy.HighsVarType.kContinuous, highspy.HighsVarType.kInteger]
            lp.integrality_ = [kinds[int(flag)] for flag in program.integer]
        self._highs = highspy.Highs()
        self._highs.setOptionValue("output_flag", False)
        self._highs.setOptionValue("threads", 1)
        self._highs.setOptionValue("random_seed", 0)
        self._highs.setOptionValue("mip_rel_gap", 0.0)
        self._highs.setOptionValue("mip_abs_gap", 1e-7)
        if self._highs.passModel(lp) == highspy.HighsStatus.kError:
            raise RuntimeError("HiGHS refused the model")

    def set_bounds(self, column: int, lower: float, upper: float) -> None:
        self._highs.changeColBounds(column, lower, upper)

    def set_objective(self, objective: np.ndarray) -> None:
        columns = np.arange(len(objective), dtype=np.int32)
        self._highs.changeColsCost(len(objective), columns, objective)

    def basis(self) -> highspy.HighsBasis:
        """Where the last solve ended."""
        return self._highs.getBasis()

    def start_from(self, basis: highspy.HighsBasis) -> None:
        """Begin the next solve at a basis of an earlier one."""
        self._highs.setBasis(basis)

    def set_all_bounds(self, lower: np.ndarray, upper: np.ndarray) -> None:
        """Of the first columns, as many as there are values."""
        columns = np.arange(len(lower), dtype=np.int32)
        self._highs.changeColsBounds(len(lower), columns, lower, upper)

    def set_row_upper(self, row: int, upper: float) -> None:
        """The upper limit of a row that has no lower one."""
        self._highs.changeRowBounds(row, -math.inf, upper)

    def add_rows(self, matrix: sparse.csr_array, upper: np.ndarray) -> None:
        """More rows matrix · x ≤ upper; the last basis is reused."""
        status = self._highs.addRows(
            len(upper),
            np.full(len(upper), -math.inf),
            upper,
            matrix.nnz,
            matrix.indptr[:-1].astype(np.int32),
            matrix.indices.astype(np.int32),
            matrix.data,
        )
        if status == highspy.HighsStatus.kError:
            raise RuntimeError("HiGHS refused the rows")

    def set_tolerance(self, tolerance: float) -> None:
        """How far a point may be outside a row or a bound, and a reduced cost below 0."""
        for side in ("primal", "dual"):
            self._highs.setOptionValue(f"{side}_feasibility_tolerance", tolerance)

    def write(self, path: Path) -> None:
        """As an MPS file, the columns named c0, c1, …, for engines that read one."""
        if self._highs.writeModel(str(path)) == highspy.HighsStatus.kError:
            raise RuntimeError(f"HiGHS could not write {path}")

    def solve(self, *, time_limit: float = math.inf, first: bool = False) -> Solution:
        start = time.perf_counter()
        highs = self._highs
        highs.setOptionValue(
            "time_limit", min(1e20, highs.getRunTime() + time_limit)
        )  # HiGHS counts from the first solve
        if first:
            highs.setOptionValue("mip_max_improving_sols", 1)
        failed = highs.run() == highspy.HighsStatus.kError
        status = highs.getModelStatus()
        if failed or (status == _STATUS.kUnknown and not self._has_integers):
            highs.clearSolver()  # forget the basis that led there, and try once more
            if highs.run() == highspy.HighsStatus.kError:
                raise RuntimeError("HiGHS returned an error")
            status = highs.getModelStatus()
        info = highs.getInfo()
        solution = highs.getSolution()
        has_point = info.primal_solution_status == highspy.SolutionStatus.kSolutionStatusFeasible
        if status == _STATUS.kOptimal:
            name = "optimal"
        elif status == _STATUS.kInfeasible:
            name = "infeasible"
        elif status in _STOPPED:
            name = "limit"
        else:
            raise RuntimeError(f"HiGHS stopped with {highs.modelStatusToString(status)}")
        has_duals = solution.dual_valid and not self._has_integers
        if name == "infeasible":
            bound = math.inf
        elif self._has_integers:
            bound = info.mip_dual_bound
        else:
            bound = info.objective_function_value if name == "optimal" else -math.inf
        return Solution(
            status=name,
            x=np.array(solution.col_value) if has_point else None,
            objective=info.objective_function_value if has_point else None,
            bound=bound,
            duals=np.array(solution.row_dual) if has_duals else None,
            nodes=max(0, info.mip_node_count) if self._has_integers else 0,
            seconds=time.perf_counter() - start,
        )

    def infeasibility_multipliers(self) -> np.ndarray | None:
        """Row multipliers of a Farkas proof, after an infeasible LP; None if HiGHS has none."""
        status, has_ray, ray = self._highs.getDualRay()  # type: ignore[attr-defined]
        return np.array(ray) if status == highspy.HighsStatus.kOk and has_ray else None


def run(program: Program, *, time_limit: float, first: bool) -> Solution:
    return HighsModel(program).solve(time_limit=time_limit, first=first)
