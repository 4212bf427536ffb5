"""Progressive bounds tightening (Tjeng, Xiao, Tedrake 2019, section 4 and appendix C).

Bounds decide how large the program is: a ReLU whose sign they settle needs no 0–1 variable, and for
one that stays open they are the big-M of its rows. Better bounds cost more time, so each unit goes
through the stages in turn, from the cheapest on, and stops as soon as its sign is settled. Their
GETBOUNDSFORRELU, for the stages f = interval, lp, mip:

    u = min(u, f's upper bound); stop if u ≤ 0
    l = max(l, f's lower bound); stop if l ≥ 0

For a maximum a unit stops when some other unit of its window is always at least as large.

interval: interval arithmetic, layer by layer; then, for what that leaves open, of the unit written
in the inputs and the outputs of open units, stably active ones substituted (what MIPVerify does,
where an output is an expression). lp: `Relaxation`. mip: `ExactEncoding`. An engine's word is taken
for no bound: each is recomputed from the multipliers of the engine's linear programs.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from scipy import sparse

from robustlib.bounds import Box, Lines, Region, interval_step, rows_lower_bound
from robustlib.encoders.exact import ExactEncoding
from robustlib.encoders.relaxation import Relaxation
from robustlib.network import Affine, MaxPool, Network, ReLU
from robustlib.solvers import Program, prove_at_least, safe_lower_bound, solve
from robustlib.solvers.highs import HighsModel

STAGES = ("interval", "lp", "mip")
TREE_NODES, GAP = 2_000, 1e-6  # of the proof of one bound by the stage "mip"


@dataclass(eq=False)
class Tightening:
    """Bounds of every step, and what they took.

    Attributes
    ----------
    boxes : bounds of the output of every step, safe under rounding.
    settled : stage → how many units (of the ReLUs, the inputs of maxima) it settled; "open" → how
        many stay open.
    seconds : stage → wall seconds.
    programs : linear and mixed-integer programs solved, two for a unit that stays open; those of
        the logits too.
    exits : programs left out, because the upper bound had settled the unit.
    finished : False if time ran out: later bounds are those of interval arithmetic.
    """

    boxes: list[Box] = field(default_factory=list)
    settled: dict[str, int] = field(default_factory=lambda: dict.fromkeys((*STAGES, "open"), 0))
    seconds: dict[str, float] = field(default_factory=lambda: dict.fromkeys(STAGES, 0.0))
    programs: int = 0
    exits: int = 0
    finished: bool = True

    @property
    def finite(self) -> bool:
        """Whether no bound overflowed: an encoding needs them all."""
        return all(np.isfinite([*box.lower, *box.upper]).all() for box in self.boxes)


def tighten(
    network: Network,
    region: Region,
    *,
    stages: tuple[str, ...] = ("interval", "lp"),
    asymmetric: bool = True,
    label: int | None = None,
    solver: str = "highs",
    time_limit: float = math.inf,
) -> Tightening:
    """Bounds of every step over ``region``, layer by layer, by the ``stages`` in turn.

    Interval arithmetic is always computed, as what is left when a program fails; where "interval"
    is not among the stages it settles nothing (the ablation without progressive tightening). It
    is exact on the first layer, which is therefore left out of the later stages.

    Parameters
    ----------
    network, region : the network and the set of inputs.
    stages : some of ``STAGES`` in their order.
    asymmetric : False replaces the bounds of a unit that a ReLU or a maximum follows by −M and M,
        M = max(−l, u), before they are used: no unit is stable then (the ablation).
    label : the true label: of another logit only the upper bound is computed if that is below the
        label's lower bound. None: both bounds of every logit.
    solver : engine of the stage "mip".
    time_limit : wall seconds.

    Raises
    ------
    SolverError
        From the engine of the stage "mip".

    Examples
    --------
    >>> first = Affine(np.array([[1.0], [-1.0]]), np.zeros(2))  # z = (x, −x): one is active
    >>> second = Affine(-np.ones((1, 2)), np.full(1, 1.5))  # 1.5 − |x| > 0 needs the triangles
    >>> net = Network((first, ReLU(2), second, ReLU(1), Affine(np.eye(1), np.zeros(1))), (1,))
    >>> tighten(net, Box(-np.ones(1), np.ones(1))).settled
    {'interval': 0, 'lp': 1, 'mip': 0, 'open': 2}
    """
    return _Tightener(network, region, stages, asymmetric, label, solver, time_limit).run()


class _Tightener:
    def __init__(
        self,
        network: Network,
        region: Region,
        stages: tuple[str, ...],
        asymmetric: bool,
        label: int | None,
        solver: str,
        time_limit: float,
    ) -> None:
        self.network, self.region, self.stages = network, region, stages
        self.asymmetric, self.label, self.solver = asymmetric, label, solver
        self.deadline = time.perf_counter() + time_limit
        self.found = Tightening()

    def left(self) -> float:
        return max(0.0, self.deadline - time.perf_counter())

    def run(self) -> Tightening:
        steps, boxes = self.network.steps, self.found.boxes
        for k, step in enumerate(steps):
            start = time.perf_counter()
            box = interval_step(step, boxes[k - 1] if k else self.region.box)
            following = steps[k + 1] if k + 1 < len(steps) else None
            if not isinstance(following, Affine):
                by_intervals = "interval" in self.stages or self.is_first(k)
                goal = _goal(following, box, self.label) if by_intervals else None
                counts = dict.fromkeys((*STAGES, "open"), 0)
                if goal is not None:
                    self.composed_interval(k, goal)
                    counts["interval"] = goal.settled_units
                else:
                    whole = np.full(step.size, np.inf)
                    goal = _goal(following, Box(-whole, whole), self.label)
                self.found.seconds["interval"] += time.perf_counter() - start
                if np.isfinite([*box.lower, *box.upper]).all() and not self.is_first(k):
                    self.programs(k, goal, counts)
                counts["open"] = len(goal.units) - goal.settled_units
                if following is not None:
                    for stage, number in counts.items():
                        self.found.settled[stage] += number
                box = box.intersect(goal.box)
            if not self.asymmetric and isinstance(following, ReLU | MaxPool):
                box = Box(-box.magnitude, box.magnitude)
            boxes.append(box)
        return self.found

    def is_first(self, k: int) -> bool:
        """Whether intervals are exact: nothing but affine steps up to step k."""
        return all(isinstance(step, Affine) for step in self.network.steps[: k + 1])

    def composed_interval(self, k: int, goal: _Goal) -> None:
        """Interval arithmetic of what stays open, written in inputs and outputs of open units."""
        lines = {}
        for i, step in enumerate(self.network.steps[: k + 1]):
            if isinstance(step, ReLU):
                before = self.found.boxes[i - 1] if i else self.region.box
                active = (before.lower >= 0).astype(float)
                is_open = (before.lower < 0) & (before.upper > 0)
                lines[i] = Lines(active, active, np.where(is_open, before.upper, 0.0))
        units = np.array([unit for unit in goal.units if not goal.is_settled(unit)], dtype=int)
        if not len(units):
            return
        size = self.network.steps[k].size
        picked = (np.ones(len(units)), (np.arange(len(units)), units))
        rows = sparse.csr_array(picked, shape=(len(units), size))
        both = sparse.csr_array(sparse.vstack([rows, -rows]))
        bounds = rows_lower_bound(self.network, self.found.boxes, self.region, both, k, lines=lines)
        goal.raise_lower(units, bounds[: len(units)])
        goal.cut_upper(units, -bounds[len(units) :])

    def programs(self, k: int, goal: _Goal, counts: dict[str, int]) -> None:
        """The later stages: two programs a unit, or one if that settles it."""
        found = self.found
        engine = _Engine(self.network, self.region, found.boxes, k, self.solver)
        for stage in (stage for stage in self.stages if stage != "interval"):
            start, settled = time.perf_counter(), goal.settled_units
            for unit in goal.order():
                if goal.is_settled(unit):
                    continue
                if not self.left():
                    found.finished = False
                    break
                goal.cut_upper(unit, -engine.lower_bound(stage, unit, -1.0, self.left()))
                found.programs += 1
                if goal.is_settled(unit):
                    found.exits += 1
                    continue
                goal.raise_lower(unit, engine.lower_bound(stage, unit, 1.0, self.left()))
                found.programs += 1
            found.seconds[stage] += time.perf_counter() - start
            counts[stage] = goal.settled_units - settled


class _Engine:
    """Safe lower bounds of ± one output of step k, from programs over the steps before it."""

    def __init__(
        self, network: Network, region: Region, boxes: list[Box], k: int, solver: str
    ) -> None:
        step = network.steps[k]
        self.region, self.solver = region, solver
        self.affine = step if isinstance(step, Affine) else None
        self.prefix = Network(network.steps[: k if self.affine else k + 1], network.input_shape)
        self.boxes, self.size = boxes[: len(self.prefix.steps)], step.size
        if self.affine is None:  # its own variables need bounds too
            before = self.boxes[-1] if self.boxes else region.box
            self.boxes = [*self.boxes, interval_step(step, before)]

    def lower_bound(self, stage: str, unit: int, sign: float, time_limit: float) -> float:
        row, constant = self.row(unit)
        find = self.by_lp if stage == "lp" else self.by_mip
        bound = find(sign * row, time_limit) + sign * constant
        return float(np.nextafter(bound, -np.inf))

    def row(self, unit: int) -> tuple[np.ndarray, float]:
        """The unit as coefficients on the prefix's outputs and a constant."""
        if self.affine is None:
            return np.eye(1, self.size, unit)[0], 0.0
        weight = self.affine.weight[[unit]]
        dense = weight if isinstance(weight, np.ndarray) else weight.toarray()
        return dense[0], float(self.affine.bias[unit])

    @cached_property
    def relaxation(self) -> tuple[Relaxation, Program, HighsModel | None]:
        encoding = Relaxation(self.prefix, self.region, self.boxes)
        program = encoding.minimize_logits(np.zeros(len(encoding.logits)))
        try:
            return encoding, program, HighsModel(program)
        except RuntimeError:  # coefficients beyond its range
            return encoding, program, None

    @cached_property
    def exact(self) -> ExactEncoding:
        return ExactEncoding(self.prefix, self.region, self.boxes)

    def by_lp(self, row: np.ndarray, time_limit: float) -> float:
        """One model for all units: only the objective changes, the basis stays."""
        encoding, program, model = self.relaxation
        if model is None:
            return -math.inf
        objective = encoding.objective(row)
        model.set_objective(objective)
        try:
            duals = model.solve(time_limit=time_limit).duals
        except RuntimeError:  # an engine that fails bounds nothing
            return -math.inf
        return -math.inf if duals is None else safe_lower_bound(program, duals, objective=objective)

    def by_mip(self, row: np.ndarray, time_limit: float) -> float:
        """The engine finds the optimum, the tree of relaxations proves what is just below it."""
        start = time.perf_counter()
        program = self.exact.minimize_logits(row)
        limit = time_limit if math.isfinite(time_limit) else None
        answer = solve(program, solver=self.solver, time_limit=limit)
        if answer.status != "optimal" or answer.objective is None:
            return -math.inf
        aim = answer.objective - GAP * (1.0 + abs(answer.objective))
        left = max(0.0, time_limit - (time.perf_counter() - start))
        return prove_at_least(program, aim, time_limit=left, node_limit=TREE_NODES).lower


class _Goal:
    """The bounds of one layer as they grow, and when a unit needs no better ones."""

    def __init__(self, box: Box, units: np.ndarray) -> None:
        self.lower, self.upper, self.units = box.lower.copy(), box.upper.copy(), units

    @property
    def box(self) -> Box:
        return Box(self.lower, self.upper)

    def raise_lower(self, units: np.ndarray | int, bound: np.ndarray | float) -> None:
        self.lower[units] = np.maximum(self.lower[units], bound)

    def cut_upper(self, units: np.ndarray | int, bound: np.ndarray | float) -> None:
        self.upper[units] = np.minimum(self.upper[units], bound)

    def is_settled(self, unit: int) -> bool:
        """For a ReLU: its sign."""
        return bool(self.upper[unit] <= 0 or self.lower[unit] >= 0)

    @property
    def settled_units(self) -> int:
        return sum(self.is_settled(unit) for unit in self.units)

    def order(self) -> list[int]:
        return self.units.tolist()


class _Largest(_Goal):
    """For a maximum: in every window of it, the unit always loses to another or always wins."""

    def __init__(self, box: Box, windows: list[np.ndarray]) -> None:
        super().__init__(box, np.unique(np.concatenate(windows)))
        self.rivals: dict[int, list[np.ndarray]] = {int(unit): [] for unit in self.units}
        for window in windows:
            for unit in window:
                self.rivals[int(unit)].append(window[window != unit])

    def is_settled(self, unit: int) -> bool:
        return all(
            not len(rivals)
            or self.lower[rivals].max() >= self.upper[unit]
            or self.lower[unit] >= self.upper[rivals].max()
            for rivals in self.rivals[unit]
        )

    def order(self) -> list[int]:
        """Likely winners first: their lower bounds settle the others."""
        return self.units[np.argsort(-self.lower[self.units], kind="stable")].tolist()


class _All(_Goal):
    """Nothing is settled before both bounds are as tight as they get."""

    def is_settled(self, unit: int) -> bool:
        return False


def _goal(following: object, box: Box, label: int | None) -> _Goal:
    units = np.arange(len(box.lower))
    if isinstance(following, MaxPool):
        return _Largest(box, [window[window >= 0] for window in following.windows])
    if isinstance(following, ReLU):
        return _Goal(box, units)
    return _All(box, units) if label is None else _Largest(box, [units])
