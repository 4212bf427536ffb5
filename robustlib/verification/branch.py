"""β-CROWN: branch on the signs of unstable units, with bounds of many branches at a time.

A branch fixes some units to z ≥ 0 or z ≤ 0. CROWN bounds the margin on it with a slope α ∈ [0, 1]
below each open unit and a multiplier β ≥ 0 for each fixed one (Wang et al. 2021); both are climbed
by gradient steps, for all branches of a batch at once, on the reduced form of the network. A branch
is closed only when the same α and β, put into the network itself, give a bound that is safe under
rounding.
"""

from __future__ import annotations

import heapq
import itertools
import time
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from robustlib.bounds import Lines, relu_lines, rows_lower_bound
from robustlib.bounds.reduced import Rows, reduce_network, reduce_rows
from robustlib.encoders.exact import ExactEncoding
from robustlib.solvers import Program, prove_at_least
from robustlib.verification.question import Question
from robustlib.verification.witness import Witness

BATCH = 64
STEPS = 20  # gradient steps for a batch; children start from their parent's α and β
ROOT_STEPS = 100
RATE, DECAY = 0.1, 0.97
DESCENT = 10  # projected steps from the corner of every branch, in search of a witness
CLOSED = 1e-7  # a bound above this is worth the safe recomputation
PROVED = 1e-9  # the margin that the linear program of a leaf has to reach


@dataclass(frozen=True, eq=False)
class Branching:
    """How far it came: a safe lower bound of the margin, the witness if there is one, branches."""

    lower: float
    witness: Witness | None
    branches: int


@dataclass(eq=False)
class _Branches:
    """A batch: signs fixed (−1, 0, 1), α and β, each (branches, units), and the bounds."""

    signs: Tensor
    alpha: Tensor
    beta: Tensor
    bound: Tensor
    weight: Tensor  # of each unit in the relaxation: what branching on it could gain

    def take(self, which: np.ndarray | list[int]) -> _Branches:
        return _Branches(*(value[which] for value in vars(self).values()))

    @staticmethod
    def join(parts: list[_Branches]) -> _Branches:
        columns = zip(*(vars(part).values() for part in parts), strict=True)
        return _Branches(*(torch.cat(column) for column in columns))


def branch(question: Question, row: np.ndarray, *, time_limit: float) -> Branching:
    """Bound row · logits from below over the question's ball, branch by branch, until above 0.

    Parameters
    ----------
    question : of a network without max-pooling.
    row : (classes,) a row of ``margin_rows``.
    time_limit : wall seconds.
    """
    start = time.perf_counter()
    search = _Search(question, row)
    fresh, corners = search.improve(search.root(), ROOT_STEPS)
    order = itertools.count()
    waiting: list[tuple[float, int, _Branches]] = []
    closed, branches = np.inf, 1
    while True:
        witness = search.try_corners(corners)
        if witness is not None:
            return Branching(-np.inf, witness, branches)
        safe = np.full(len(fresh.bound), -np.inf)
        done = (fresh.bound > CLOSED).numpy()
        if done.any():
            safe[done] = search.safe_bounds(fresh, np.flatnonzero(done))
        for i, value in enumerate(safe):
            if value > 0:
                closed = min(closed, float(value))
            else:
                heapq.heappush(waiting, (float(fresh.bound[i]), next(order), fresh.take([i])))
        if not waiting:
            return Branching(closed, None, branches)
        if time.perf_counter() - start >= time_limit:
            return Branching(-np.inf, None, branches)
        worst = [heapq.heappop(waiting)[2] for _ in range(min(BATCH // 2, len(waiting)))]
        parents = _Branches.join(worst)
        parents, leaves = search.close_leaves(parents, start + time_limit)
        closed = min(closed, leaves)
        if closed == -np.inf:
            return Branching(closed, None, branches)
        if not len(parents.bound):
            fresh, corners = parents, corners[:0]
            continue
        children = search.split(parents)
        branches += len(children.bound)
        fresh, corners = search.improve(children, STEPS)


class _Search:
    """The reduced network as tensors, and what is done with a batch of branches."""

    def __init__(self, question: Question, row: np.ndarray) -> None:
        self.question, self.row = question, row
        network, boxes = question.network, question.boxes
        self.layers = reduce_network(network, question.box, boxes)
        last = len(network.steps) - 1
        self.margin = _tensors(reduce_rows(network, boxes, self.layers, row[None], last))
        self.rows = [_tensors(layer.rows) for layer in self.layers]
        self.sizes = [len(layer.index) for layer in self.layers]
        self.lower, self.upper = (
            torch.from_numpy(np.hstack([*(getattr(s, side) for s in self.layers), np.zeros(0)]))
            for side in ("lower", "upper")
        )
        self.above = self.upper / (self.upper - self.lower)
        self.lift = -self.above * self.lower
        center = 0.5 * (question.box.lower + question.box.upper)
        self.center = torch.from_numpy(center)
        self.radius = torch.from_numpy(question.box.upper - center)

    @cached_property
    def program(self) -> Program:
        """The exact encoding; its 0–1 variables are in the order of the units."""
        encoding = ExactEncoding(self.question.network, self.question.box, self.question.boxes)
        return encoding.minimize_logits(self.row)

    def root(self) -> _Branches:
        units = sum(self.sizes)
        zeros = torch.zeros(1, units, dtype=torch.float64)
        alpha = (self.upper > -self.lower).double()[None]
        return _Branches(zeros, alpha, zeros, torch.zeros(1, dtype=torch.float64), zeros)

    def evaluate(self, signs: Tensor, alpha: Tensor, beta: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The bounds (branches,), every unit's coefficient (branches, units), and the input's."""
        inputs, units, constant = self.margin
        n = len(signs)
        on_x = inputs.expand(n, -1)
        on_y = [u.expand(n, -1) for u in units]
        bound = constant.expand(n)
        parts = [s.split(self.sizes, 1) for s in (signs, alpha, beta)]
        above = self.above.split(self.sizes)
        lift = self.lift.split(self.sizes)
        coefficients: list[Tensor] = [torch.empty(0)] * len(self.sizes)
        for k in range(len(self.sizes) - 1, -1, -1):
            sign, slope, multiplier = (part[k] for part in parts)
            a = coefficients[k] = on_y[k]
            open_ = sign == 0
            relaxed = a.clamp(min=0) * slope + a.clamp(max=0) * above[k]
            bound = bound + (open_ * a.clamp(max=0) * lift[k]).sum(1)
            z = torch.where(open_, relaxed, a * (sign > 0)) - multiplier * sign
            layer_inputs, layer_units, layer_constant = self.rows[k]
            on_x = on_x + z @ layer_inputs
            bound = bound + z @ layer_constant
            for j in range(k):
                on_y[j] = on_y[j] + z @ layer_units[j]
        bound = bound + on_x @ self.center - on_x.abs() @ self.radius
        return bound, torch.cat([*coefficients, on_x[:, :0]], 1), on_x

    def improve(self, batch: _Branches, steps: int) -> tuple[_Branches, Tensor]:
        """Climb the bounds over α and β with Adam; every branch keeps its best.

        The second result has, for each branch, the corner of the box where its bound is attained.
        """
        alpha = batch.alpha.clone().requires_grad_(True)
        beta = batch.beta.clone().requires_grad_(True)
        optimizer = torch.optim.Adam([alpha, beta], lr=RATE)
        best = torch.full_like(batch.bound, -torch.inf)
        kept = [batch.alpha, batch.beta, batch.weight, self.center.expand(len(best), -1)]
        for _ in range(steps):
            bound, coefficient, on_x = self.evaluate(batch.signs, alpha, beta)
            better = (bound > best).detach()
            best = torch.where(better, bound.detach(), best)
            weight = coefficient.detach().clamp(max=0).abs() * self.lift
            corner = self.center - on_x.detach().sign() * self.radius
            now = [alpha.detach(), beta.detach(), weight, corner]
            kept = [torch.where(better[:, None], a, b) for a, b in zip(now, kept, strict=True)]
            if bool((best > CLOSED).all()) or not alpha.numel():
                break
            optimizer.zero_grad()
            (-bound.sum()).backward()
            optimizer.step()
            optimizer.param_groups[0]["lr"] *= DECAY
            with torch.no_grad():
                alpha.clamp_(0, 1)
                beta.clamp_(min=0).mul_(batch.signs != 0)
        return _Branches(batch.signs, kept[0], kept[1], best, kept[2]), kept[3]

    def close_leaves(self, batch: _Branches, deadline: float) -> tuple[_Branches, float]:
        """Solve the linear program of every branch whose units are all fixed.

        Gradient steps come near its optimum, the program reaches it. Returns the branches that
        have units left, and the smallest safe bound of the others: −∞ if one stays open.
        """
        leaf = (batch.signs != 0).all(1).numpy()
        closed = np.inf
        for signs in batch.signs[leaf].numpy():
            binaries = np.flatnonzero(self.program.integer)
            lower, upper = self.program.lower.copy(), self.program.upper.copy()
            lower[binaries[signs > 0]] = 1.0
            upper[binaries[signs < 0]] = 0.0
            proof = prove_at_least(
                replace(self.program, lower=lower, upper=upper),
                PROVED,
                time_limit=max(0.0, deadline - time.perf_counter()),
                node_limit=1,
            )
            if not proof.finished:
                return batch, -np.inf
            closed = min(closed, proof.lower)
        return batch.take(np.flatnonzero(~leaf)), closed

    def split(self, parents: _Branches) -> _Branches:
        """Both children of every parent, on the open unit with the most to gain."""
        gain = torch.where(parents.signs == 0, parents.weight + 1e-12 * self.lift, -1.0)
        unit = gain.argmax(1)
        rows = torch.arange(len(unit))
        children = []
        for sign in (1.0, -1.0):
            signs = parents.signs.clone()
            signs[rows, unit] = sign
            values = {**vars(parents), "signs": signs}
            children.append(_Branches(**values))
        return _Branches.join(children)

    def try_corners(self, points: Tensor) -> Witness | None:
        """The corner with the lowest margin, if it is a witness."""
        if not len(points):
            return None
        corners = self.descend(points).numpy()
        margins = self.question.network.forward(corners) @ self.row
        worst = int(margins.argmin())
        return self.question.check(corners[worst]) if margins[worst] < 0 else None

    def descend(self, points: Tensor) -> Tensor:
        """Projected steps down the margin, from every corner: a relaxation only points the way."""
        best, lowest = points, torch.full((len(points),), torch.inf, dtype=torch.float64)
        x = points
        for step in range(DESCENT):
            margin, gradient = self.margin_and_gradient(x)
            lower = margin < lowest
            best, lowest = torch.where(lower[:, None], x, best), torch.minimum(margin, lowest)
            x = x - 0.5 * (1 - step / DESCENT) * self.radius * gradient.sign()
            x = torch.clamp(x, self.center - self.radius, self.center + self.radius)
        return best

    def margin_and_gradient(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """row · logits at every x (points, input_size), on the reduced form, and its gradient."""
        outputs: list[Tensor] = []
        active: list[Tensor] = []
        for inputs, units, constant in self.rows:
            z = x @ inputs.T + constant
            z = z + sum((y @ u.T for y, u in zip(outputs, units, strict=True)), torch.zeros(1))
            active.append(z > 0)
            outputs.append(z.clamp(min=0))
        inputs, units, constant = self.margin
        margin = x @ inputs[0] + constant
        gradient = inputs.expand(len(x), -1)
        on_y = [u.expand(len(x), -1) for u in units]
        for k in range(len(outputs) - 1, -1, -1):
            margin = margin + outputs[k] @ units[k][0]
            z = on_y[k] * active[k]
            layer_inputs, layer_units, _ = self.rows[k]
            gradient = gradient + z @ layer_inputs
            for j in range(k):
                on_y[j] = on_y[j] + z @ layer_units[j]
        return margin, gradient

    def safe_bounds(self, batch: _Branches, which: np.ndarray) -> np.ndarray:
        """The bounds of these branches recomputed on the network itself, safe under rounding."""
        network, boxes, box = self.question.network, self.question.boxes, self.question.box
        offset, lines = 0, {}
        for layer, size in zip(self.layers, self.sizes, strict=True):
            part = slice(offset, offset + size)
            sign, slope, multiplier = (
                value[which, part].numpy() for value in (batch.signs, batch.alpha, batch.beta)
            )
            common = relu_lines(boxes[layer.step - 1] if layer.step else box)
            full = [
                np.repeat(line[None], len(which), axis=0)
                for line in (common.below, common.above, common.intercept)
            ]
            below, above, intercept = full
            below[:, layer.index] = np.where(sign == 0, slope, sign > 0)
            above[:, layer.index] = np.where(sign == 0, above[:, layer.index], sign > 0)
            intercept[:, layer.index] *= sign == 0
            added = np.zeros_like(below)
            added[:, layer.index] = -multiplier * sign
            lines[layer.step] = Lines(below, above, intercept, added)
            offset += size
        rows = np.repeat(self.row[None], len(which), axis=0)
        return rows_lower_bound(network, boxes, box, rows, lines=lines)


def _tensors(rows: Rows) -> tuple[Tensor, list[Tensor], Tensor]:
    return (
        torch.from_numpy(np.asarray(rows.inputs)),
        [torch.from_numpy(u) for u in rows.units],
        torch.from_numpy(rows.constant),
    )
