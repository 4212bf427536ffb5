"""The linear programs of one input: ρ̂(f, x*, ℓ) for a target ℓ, and the witness beside it."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import torch
from scipy import sparse
from torch import Tensor, nn

from robustlib.encoders.frozen import OUTSIDE, Frozen, first_matrix
from robustlib.encoders.layered import Constraints, Rows, layered_program
from robustlib.encoders.restriction import TIED, linear_region, nearest_program
from robustlib.network import Network, from_torch
from robustlib.pointwise.result import Answer
from robustlib.solvers import LazyProgram, NearestPoint, Program, SolverError
from robustlib.solvers.lazy import More

FORMS = ("reduced", "layered")
STRICT = 1e-6  # the margin, in logits, that a witness is asked for: above the solvers' tolerances
LEADS = (STRICT, 1e-5, 1e-4, 1e-3)  # a forward pass decides which of them suffices
AT_ONCE = 30  # half-spaces that join the reduced program together, of all layers about as many


@dataclass(frozen=True, eq=False)
class Problem:
    """A network in float64, and how its programs are written: see `pointwise_robustness`."""

    net: nn.Module
    input_shape: tuple[int, ...]
    bounds: tuple[float, float] | None
    alpha: float
    pixels: int | None
    limit: float
    form: str
    lazy: bool
    solver: str

    @cached_property
    def network(self) -> Network:
        return from_torch(self.net, self.input_shape)

    @cached_property
    def constraints(self) -> Constraints:
        return Constraints(self.network)

    @cached_property
    def first(self) -> sparse.csr_array | None:
        return first_matrix(self.net, self.input_shape)

    def logits(self, point: np.ndarray) -> np.ndarray:
        """By a forward pass of the module in float64."""
        with torch.no_grad():
            x = torch.from_numpy(point.copy()).reshape(1, *self.input_shape)
            values: np.ndarray = self.net(x)[0].numpy()
        return values


@dataclass(frozen=True, eq=False)
class Posed:
    """A program, its rows that make the target win, and how many half-spaces it begins with."""

    program: LazyProgram | NearestPoint
    wins: range
    first: int


class Search:
    """The search around one input ``x``, a float64 Tensor."""

    def __init__(self, problem: Problem, x: Tensor) -> None:
        self.problem, self.x = problem, x
        self.frozen = Frozen(problem.net, x, first=problem.first)
        self.center = self.frozen.center
        order = np.argsort(-self.frozen.logits, kind="stable")
        self.label, self.second = int(order[0]), int(order[1])

    def run(
        self, targets: Sequence[int] | None, reach: Callable[[int, float], Answer] | None = None
    ) -> Answer:
        """The nearest of ``targets``; None for the second most probable label.

        ``reach`` searches for one of them, by default the optimum in the linear region of x*.
        Undecided if one target is, since that one might be the nearest.
        """
        reach = reach or self.reach
        start = time.perf_counter()
        tried = [self.second] if targets is None else [j for j in targets if j != self.label]
        best = nothing(self.label)
        iterations = used = constraints = 0
        for target in tried:
            found = reach(target, min(best.rho, self.problem.limit))
            iterations += found.iterations
            used += found.used
            constraints += found.constraints
            if found.status == "undecided":
                best = found
                break
            if found.rho < best.rho or best.nearest is None:
                best = found
        return replace(
            best,
            iterations=iterations,
            used=used,
            constraints=constraints,
            seconds=time.perf_counter() - start,
        )

    def reach(self, target: int, limit: float) -> Answer:
        """ρ̂ and the witness for one target; "none" where they are beyond ``limit``."""
        posed = self.pose(target)
        total = len(self.frozen) + len(self.frozen.logits) - 1
        answer = replace(nothing(self.label), constraints=total)
        try:
            optimum = posed.program.minimize(limit)
            if optimum.x is not None:
                answer = self.with_witness(answer, posed, self.inside(optimum.x), target)
        except SolverError as error:
            note = " ".join(str(error).split())
            answer = replace(answer, status="undecided", rho=math.nan, note=note)
        used = posed.first + posed.program.added
        return replace(answer, iterations=posed.program.solves, used=used)

    def with_witness(self, answer: Answer, posed: Posed, point: np.ndarray, target: int) -> Answer:
        """Beside the optimum, the point where the target leads by more than rounding.

        Where there is none, the region meets the target's in its border at most: rho stays inf.
        """
        optimum, alpha, asked = point, self.problem.alpha, 0.0
        for lead in (0.0, *LEADS) if alpha >= STRICT else LEADS:
            if lead:
                posed.program.shift(posed.wins, lead - asked)
                asked = lead
                strict = posed.program.minimize()
                if strict.x is None:
                    return replace(answer, nearest=self.tensor(optimum))
                point = self.inside(strict.x)
            if self.lead(point, target) >= (alpha + lead) / 2:
                return replace(
                    answer,
                    status="found",
                    rho=self.away(optimum),
                    nearest=self.tensor(optimum),
                    distance=self.away(point),
                    witness=self.tensor(point),
                    rounded=self.rounded(point, target),
                    target=target,
                )
        raise SolverError("the forward pass gives the optimum another label than the program does.")

    def toward(self, target: int) -> np.ndarray | None:
        """Where a step from x* gains on f(x*) fastest, in the box; None where nothing is tied."""
        if self.frozen.slack.min(initial=math.inf) > TIED:
            return None
        rows, _ = self.frozen.target_rows(target)
        way = -np.sign(rows[self.label - (self.label > target)])
        low, high = self.problem.bounds or (-math.inf, math.inf)
        inward = (self.center > low) | (way > 0), (self.center < high) | (way < 0)
        return np.asarray(way * (inward[0] & inward[1]))

    def pose(self, target: int) -> Posed:
        """The program for a target in the form that was asked for."""
        problem, frozen, toward = self.problem, self.frozen, self.toward(target)
        others = len(frozen.logits) - 1
        if problem.form == "layered":
            return self.pose_layered(target, toward)
        if not problem.lazy:
            region = linear_region(problem.network, self.center, toward)
            program = nearest_program(region, target, bounds=problem.bounds, alpha=problem.alpha)
            m = len(region.bound)
            made = LazyProgram(program, _nothing_more(program), problem.solver)
            return Posed(made, range(m, m + others), m + others)
        if toward is not None:
            way = torch.from_numpy(toward).reshape(self.x.shape)
            frozen = Frozen(problem.net, self.x, way, problem.first)
        rows, limits = frozen.target_rows(target)
        limits -= problem.alpha
        if problem.solver == "highs" and problem.bounds is not None:
            low, high = (np.full(len(self.center), end) for end in problem.bounds)
            more = missing_half_spaces(frozen, 0)
            nearest = NearestPoint(self.center, low, high, rows, limits, more)
            return Posed(nearest, range(others), others)
        few = Rows(sparse.csr_array(rows), limits)
        none = Rows(sparse.csr_array((0, len(self.center))), np.zeros(0))
        program = layered_program(few, none, self.center, bounds=problem.bounds)
        lazy = LazyProgram(program, missing_half_spaces(frozen, 1), problem.solver)
        return Posed(lazy, range(others), others)

    def pose_layered(self, target: int, toward: np.ndarray | None) -> Posed:
        """The paper's variables; lazily it begins with the equalities and the target's rows."""
        problem = self.problem
        constraints = problem.constraints
        equal, less = constraints.restricted(constraints.values(self.center), toward)
        wins = constraints.wins(target)
        first = Rows(wins.matrix, wins.upper - problem.alpha)
        if not problem.lazy:
            first = Rows(
                sparse.csr_array(sparse.vstack([first.matrix, less.matrix])),
                np.append(first.upper, less.upper),
            )
        program = layered_program(first, equal, self.center, bounds=problem.bounds)
        more = _violated(less, program) if problem.lazy else _nothing_more(program)
        made = LazyProgram(program, more, problem.solver)
        return Posed(made, range(len(wins)), len(first))

    def inside(self, x: np.ndarray) -> np.ndarray:
        """The inputs of a program's point, inside the box exactly."""
        point = x[: len(self.center)]
        return point if self.problem.bounds is None else np.clip(point, *self.problem.bounds)

    def away(self, point: np.ndarray) -> float:
        return float(np.abs(point - self.center).max())

    def lead(self, point: np.ndarray, target: int) -> float:
        """By how much the target's logit exceeds all others, by a forward pass."""
        logits = self.problem.logits(point)
        return float(logits[target] - np.delete(logits, target).max())

    def rounded(self, point: np.ndarray, target: int) -> Tensor | None:
        """The point in whole pixels, as a data set of float32 holds them, if the target leads."""
        if self.problem.pixels is None:
            return None
        whole = whole_pixels(torch.from_numpy(point), self.problem.pixels)
        if self.lead(whole.numpy(), target) < STRICT / 2:
            return None
        return whole.reshape(self.problem.input_shape)

    def tensor(self, point: np.ndarray) -> Tensor:
        return torch.from_numpy(point.copy()).reshape(self.problem.input_shape)


def nothing(label: int) -> Answer:
    """The answer where no adversarial example was found."""
    return Answer(
        status="none",
        rho=math.inf,
        distance=math.inf,
        label=label,
        target=-1,
        nearest=None,
        witness=None,
        rounded=None,
        iterations=0,
        used=0,
        constraints=0,
        seconds=0.0,
    )


def whole_pixels(x: Tensor, pixels: int) -> Tensor:
    """The nearest of the values 0, 1, …, ``pixels``, over ``pixels``, in float32 as float64.

    >>> whole_pixels(torch.tensor([0.25], dtype=torch.float64), 2)
    tensor([0.], dtype=torch.float64)
    """
    return ((x * pixels).round().float() / pixels).double()


def missing_half_spaces(frozen: Frozen, extra: int) -> More:
    """Those that a point violates most, in the inputs and ``extra`` columns of zeros."""
    given = np.zeros(len(frozen), dtype=bool)

    def more(point: np.ndarray) -> tuple[sparse.csr_array, np.ndarray]:
        each = -(-AT_ONCE // max(1, frozen.layers))
        slack = frozen.slacks(point[: len(frozen.center)])
        which = frozen.most_violated(slack, given, each)
        given[which] = True
        rows, limits = frozen.rows(which)
        return sparse.csr_array(np.pad(rows, ((0, 0), (0, extra)))), limits

    return more


def _violated(rows: Rows, program: Program) -> More:
    """All rows that a point violates and that were not given before, as the paper adds them."""
    extra = program.variables - rows.matrix.shape[1]
    given = np.zeros(len(rows), dtype=bool)

    def more(point: np.ndarray) -> tuple[sparse.csr_array, np.ndarray]:
        slack = rows.upper - rows.matrix @ point[: rows.matrix.shape[1]]
        which = np.flatnonzero((slack < -OUTSIDE) & ~given)
        given[which] = True
        wide = sparse.hstack([rows.matrix[which], sparse.csr_array((len(which), extra))])
        return sparse.csr_array(wide), rows.upper[which]

    return more


def _nothing_more(program: Program) -> More:
    none = sparse.csr_array((0, program.variables)), np.zeros(0)
    return lambda point: none
