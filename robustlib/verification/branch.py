"""Branch and bound on the signs of unstable units, with bounds of many branches at a time.

All rows of a question share one tree: the branches with the lowest bounds are split next, whichever
row they belong to. The bounds are those of ``bounds.alpha``; a branch is closed only by one that is
safe under rounding. A row that is still open after a while gets a tree of its own, if the bounds of
its hidden units shrink where an attack would succeed (``verification.tighten``). In a box, with few
unstable units, a tree of small linear programs is faster, and comes closer to a tie.
"""

from __future__ import annotations

import heapq
import itertools
import time
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from robustlib.attacks.balls import BALLS
from robustlib.bounds import Box, L2Ball
from robustlib.bounds.alpha import CLOSED, BranchBounds, Branches
from robustlib.encoders.reduced import ReducedEncoding
from robustlib.solvers import Program, prove_at_least, safe_lower_bound, solve_in_ball
from robustlib.verification.question import Question
from robustlib.verification.tighten import CUT, tightened
from robustlib.verification.witness import Witness

BATCH = 64
STEPS = 20  # gradient steps for a batch; children start from their parent's α and β
FEW, FEW_STEPS = 16, 60  # a small batch costs less: more steps are worth it
ROOT_STEPS = 60
FEW_ROOT_STEPS = 5  # before linear programs
PLANE_STEPS = 100  # for the planes above the first layer, at the root
REFIT_STEPS = 5  # and for each batch
DESCENT = 10  # projected steps from where each bound is attained, in search of a witness
PROVED = CUT  # the margin that the linear program of a leaf has to reach
FEW_UNITS = 150  # that are left for linear programs
EARLY = 512  # branches before the bounds of the hidden units are tightened


@dataclass(frozen=True, eq=False)
class Branching:
    """How far it came.

    Attributes
    ----------
    lower : (rows,) safe lower bounds of the rows, −∞ for those with an open branch.
    witness : the adversarial example that was met, or None.
    branches : how many were bounded, the rows themselves included.
    """

    lower: np.ndarray
    witness: Witness | None
    branches: int


def branch(question: Question, rows: np.ndarray, *, time_limit: float) -> Branching:
    """Bound rows · logits from below over the question's ball, branch by branch, until above 0.

    It ends when all rows are above 0, at the first witness, at a branch with all units fixed that
    is not above 0, or when time is over.

    Parameters
    ----------
    question : of a network without max-pooling.
    rows : (rows, classes), some rows of ``margin_rows``.
    time_limit : wall seconds; the roots are bounded in any case.
    """
    deadline = time.perf_counter() + time_limit
    tree = _Tree(question, rows, question.boxes, deadline)
    programs = not isinstance(question.region, L2Ball)
    few = isinstance(question.region, Box) and tree.bounds.units <= FEW_UNITS
    witness = tree.root(FEW_ROOT_STEPS) if few else tree.grow(EARLY)
    more = 0
    for row in sorted(set(tree.open_rows())) if witness is None else []:
        now = time.perf_counter()
        boxes: list[Box] | None = question.boxes
        if not few:
            boxes = tightened(
                question.network, question.region, question.boxes, rows[[row]], deadline
            )
        if boxes is None:
            tree.settle(row, CUT)
        elif few or boxes is not question.boxes:
            own = _Tree(question, rows[[row]], boxes, now + 0.5 * (deadline - now))
            few_left = programs and own.bounds.units <= FEW_UNITS
            witness = own.prove() if few_left else own.grow()
            more += own.branches
            if witness is not None:
                break
            if not own.open_rows():
                tree.settle(row, min(CUT, own.closed[0]))
    witness = witness or tree.grow()
    lower = tree.closed
    lower[tree.open_rows()] = -np.inf
    return Branching(lower, witness, tree.branches + more)


class _Tree:
    """The branches that wait, and the bounds of those that are closed, row by row."""

    def __init__(
        self, question: Question, rows: np.ndarray, boxes: list[Box], deadline: float
    ) -> None:
        self.question, self.rows, self.boxes, self.deadline = question, rows, boxes, deadline
        self.bounds = BranchBounds(question.network, question.region, boxes, rows)
        self.closed = np.full(len(rows), np.inf)
        self.branches = 0
        self.waiting: list[tuple[float, int, Branches]] = []
        self._stuck: list[int] = []
        self._witness: Witness | None = None
        self._order = itertools.count()
        self._programs: dict[int, Program] = {}
        double = question.x.detach().cpu().double()[None]
        self._ball = BALLS[question.norm].around(double, question.eps, question.bounds)

    def root(self, steps: int) -> Witness | None:
        """Bound all rows with no unit fixed."""
        self.branches = len(self.rows)
        return self.add(*self.bounds.improve(self.bounds.roots(), steps))

    def grow(self, limit: float = np.inf) -> Witness | None:
        """Split until nothing waits or ``limit`` is reached; the witness that ended it, if any."""
        witness = None
        if not self.branches:
            witness = self.root(ROOT_STEPS)
            if self.waiting and witness is None and self.bounds.has_hull:
                roots = self.bounds.fit_planes(self.worst(len(self.rows)), PLANE_STEPS)
                witness = self.add(*self.bounds.improve(roots, STEPS))
        while self.waiting and witness is None and self.branches < limit:
            if self._stuck or time.perf_counter() >= self.deadline:
                return self._witness
            parents = self.close_leaves(self.worst(BATCH // 2))
            if self._stuck or not len(parents.bound):
                continue
            children = self.split(parents)
            self.branches += len(children.bound)
            if self.bounds.has_hull:
                children = self.bounds.fit_planes(children, REFIT_STEPS)
            steps = STEPS if len(children.bound) > FEW else FEW_STEPS
            witness = self.add(*self.bounds.improve(children, steps))
        return witness or self._witness

    def prove(self) -> Witness | None:
        """Branch on linear programs instead, for one row with few units and a margin near 0.

        Gradient steps lose more there than is left to prove.
        """
        left = max(0.0, self.deadline - time.perf_counter())
        proof = prove_at_least(self.program(0), PROVED, time_limit=left, inspect=self.inspect)
        self.branches += proof.nodes
        self.closed[0] = proof.lower
        if not proof.finished:
            self._stuck.append(0)
        return self._witness

    def settle(self, row: int, lower: float) -> None:
        """Drop the branches of a row that was proved elsewhere."""
        self.closed[row] = lower
        self.waiting = [entry for entry in self.waiting if int(entry[2].row[0]) != row]
        heapq.heapify(self.waiting)
        self._stuck = [other for other in self._stuck if other != row]

    def open_rows(self) -> list[int]:
        """Rows with a branch that is not closed."""
        return [int(waiting[2].row[0]) for waiting in self.waiting] + self._stuck

    def worst(self, count: int) -> Branches:
        """Take the waiting branches with the lowest bounds."""
        count = min(count, len(self.waiting))
        return Branches.join([heapq.heappop(self.waiting)[2] for _ in range(count)])

    def add(self, batch: Branches, points: Tensor) -> Witness | None:
        """Close what can be closed and let the others wait, or find a witness near ``points``."""
        witness = self.try_points(points, batch.row)
        safe = np.full(len(batch.bound), -np.inf)
        done = np.flatnonzero((batch.bound > CLOSED).numpy())
        if len(done):
            safe[done] = self.bounds.safe(batch.take(done))
        for i, value in enumerate(safe):
            row = int(batch.row[i])
            if value > 0:
                self.closed[row] = min(self.closed[row], value)
            else:
                key = float(batch.bound[i])
                heapq.heappush(self.waiting, (key, next(self._order), batch.take([i])))
        return witness

    def split(self, parents: Branches) -> Branches:
        """Both children of every parent, on the open unit with the most to gain."""
        gain = torch.where(parents.signs == 0, parents.weight + 1e-12 * self.bounds.lift, -1.0)
        unit = gain.argmax(1)
        places = torch.arange(len(unit))
        children = []
        for sign in (1.0, -1.0):
            signs = parents.signs.clone()
            signs[places, unit] = sign
            children.append(replace(parents, signs=signs))
        return Branches.join(children)

    def close_leaves(self, batch: Branches) -> Branches:
        """Solve the linear program of every branch whose units are all fixed; return the others.

        Gradient steps come near its optimum, the program reaches it.
        """
        leaf = (batch.signs != 0).all(1).numpy()
        for i in np.flatnonzero(leaf):
            row, signs = int(batch.row[i]), batch.signs[i].numpy()
            program = self.program(row)
            binaries = np.flatnonzero(program.integer)
            lower, upper = program.lower.copy(), program.upper.copy()
            lower[binaries[signs > 0]] = 1.0
            upper[binaries[signs < 0]] = 0.0
            bound = self.leaf_bound(replace(program, lower=lower, upper=upper))
            if bound >= PROVED:
                self.closed[row] = min(self.closed[row], bound)
            else:
                self._stuck.append(row)
        rest = batch.take(np.flatnonzero(~leaf))
        if self._stuck:
            self._stuck.extend(rest.row.tolist())
        return rest

    def leaf_bound(self, program: Program) -> float:
        """A safe lower bound of a program whose 0–1 variables are all fixed.

        Where it is not above 0, the program's solution may be the witness.
        """
        left = max(0.0, self.deadline - time.perf_counter())
        region = self.question.region
        if isinstance(region, L2Ball):
            solution = solve_in_ball(program, region.center, region.eps, time_limit=left)
            if solution.duals is None:
                return -np.inf
            if solution.status == "infeasible":
                nothing = np.zeros(program.variables)
                ray = solution.duals
                empty = safe_lower_bound(program, ray, objective=nothing, region=region) > 0
                return np.inf if empty else -np.inf
            bound = safe_lower_bound(program, solution.duals, region=region)
            if bound < PROVED and solution.x is not None:
                self.inspect(solution.x)
            return bound
        return prove_at_least(
            program, PROVED, time_limit=left, node_limit=1, inspect=self.inspect
        ).lower

    def inspect(self, point: np.ndarray) -> bool:
        """Keep the witness that a program's solution is, if it is one."""
        found = self.question.check(point[: self.question.network.input_size])
        self._witness = self._witness or found
        return found is not None

    def program(self, row: int) -> Program:
        """The exact encoding of a row; its 0–1 variables are in the order of the units."""
        if row not in self._programs:
            q = self.question
            inputs = q.box if isinstance(q.region, L2Ball) else q.region  # the ball: leaf_bound
            encoding = ReducedEncoding(q.network, inputs, self.boxes, self.rows[[row]])
            self._programs[row] = encoding.minimize_logits(np.ones(1))
        return self._programs[row]

    def try_points(self, points: Tensor, row: Tensor) -> Witness | None:
        """The point with the lowest margin after a descent, if it is a witness."""
        candidates = self.descend(points, row).numpy()
        margins = (self.question.network.forward(candidates) @ self.rows.T).min(1)
        worst = int(margins.argmin())
        return self.question.check(candidates[worst]) if margins[worst] < 0 else None

    def descend(self, points: Tensor, row: Tensor) -> Tensor:
        """Projected steps down the margin: where a relaxation is lowest only points the way."""
        shape = (len(points), *self.question.x.shape)
        best, lowest = points, torch.full((len(points),), torch.inf, dtype=torch.float64)
        x = points
        for step in range(DESCENT):
            margin, gradient = self.bounds.row_and_gradient(x, row)
            lower = margin < lowest
            best, lowest = torch.where(lower[:, None], x, best), torch.minimum(margin, lowest)
            length = 0.5 * (1 - step / DESCENT) * self.question.eps
            moved = self._ball.step(x.reshape(shape), -gradient.reshape(shape), length)
            x = self._ball.project(moved).reshape(len(points), -1)
        return best
