"""The method of Tjeng, Xiao, Tedrake (2019), as they describe it: one program an image.

First the bounds of every unit (progressive tightening, restricted to the inputs that are meant),
then the labels that they eliminate, then one program in which any label that is left may win, as a
maximum (their eq. 2, and eq. 7 for the maximum). ``verify`` is faster by asking other questions in
another order; this is what it is compared with, and every part can be left out for their Table 1.

An engine that finds a point is believed if the point is a strict witness, one that finds none is
not believed at all. What it says is then proved apart, by bounds that are safe under rounding: for
each label CROWN with the tightened bounds, and where that is not enough the tree of relaxations.
Time is reported in the paper's parts, build and solve, and that of the proof beside them.
"""

from __future__ import annotations

import math
import time
from dataclasses import asdict, dataclass, field, replace

import numpy as np

from robustlib import checks
from robustlib.bounds import Box, interval_step, rows_lower_bound
from robustlib.encoders.exact import ExactEncoding
from robustlib.encoders.tightening import STAGES, Tightening, tighten
from robustlib.network import Affine, MaxPool, Network, ReLU, margin_rows
from robustlib.solvers import Program, Solution, SolverError, prove_at_least, solve
from robustlib.verification.question import Question
from robustlib.verification.result import NEAR_TIE, OVERFLOW, TIME_LIMIT, Verdict
from robustlib.verification.witness import Witness

OBJECTIVES = ("feasibility", "closest", "worst")
# The other label must win by LEAD, far above an engine's tolerance; the proof asks for PROVED.
LEAD, PROVED = 1e-5, 1e-9
# The nearest point is a tie. A witness must win: by the smallest of these that is accepted.
LEADS = (1e-6, 1e-5, 1e-4, 1e-3)
TANGENTS = 20  # rounds of tangents of an l2 ball; a point that is still outside is projected


@dataclass(frozen=True)
class PaperSettings:
    """What the paper's method does; every switch at its default is their control.

    Attributes
    ----------
    tightening : the last stage of the bounds, "interval", "lp" or "mip".
    progressive : False leaves out the stages before it.
    restricted_domain : False takes bounds over all valid inputs instead of those within eps. They
        are the same for all inputs of a network: compute them once with `domain_bounds`.
    asymmetric : False replaces the bounds l, u of a unit by −M, M with M = max(−l, u).
    label_elimination : False keeps every other label in the program.
    objective : "feasibility", any label but the true one (eq. 2); "closest", the nearest such point
        (eqs. 3–5); "worst", the smallest margin.
    """

    tightening: str = "lp"
    progressive: bool = True
    restricted_domain: bool = True
    asymmetric: bool = True
    label_elimination: bool = True
    objective: str = "feasibility"

    def __post_init__(self) -> None:
        checks.choice("tightening", self.tightening, STAGES)
        checks.choice("objective", self.objective, OBJECTIVES)

    @property
    def stages(self) -> tuple[str, ...]:
        last = STAGES.index(self.tightening)
        return STAGES[: last + 1] if self.progressive else (self.tightening,)


CONTROL = PaperSettings()


def domain_bounds(
    network: Network,
    bounds: tuple[float, float] = (0.0, 1.0),
    *,
    settings: PaperSettings = CONTROL,
    solver: str = "highs",
    time_limit: float = math.inf,
) -> Tightening:
    """Bounds over all valid inputs, for ``restricted_domain=False``: the paper's one-off build.

    A unit that ``time_limit`` (wall seconds) does not reach keeps the bounds of intervals.
    """
    low, high = checks.box(bounds)
    everything = Box(np.full(network.input_size, low), np.full(network.input_size, high))
    return tighten(
        network,
        everything,
        stages=settings.stages,
        asymmetric=settings.asymmetric,
        solver=solver,
        time_limit=time_limit,
    )


def decide_by_mip(
    question: Question,
    *,
    time_limit: float,
    solver: str = "highs",
    settings: PaperSettings = CONTROL,
    shared: Tightening | None = None,
) -> Verdict:
    """The verdict of the paper's method.

    Parameters
    ----------
    question : an input, its label, the norm and eps.
    time_limit : wall seconds for bounds, engine and proof together; 0 tries nothing.
    solver : engine of the program: "highs", "scip" or "cvxpy".
    settings : what to leave out, and the objective.
    shared : with ``restricted_domain=False``, the result of `domain_bounds`; computed if not given.

    Returns
    -------
    Verdict with ``nodes`` of the engine, ``build_seconds`` (bounds and encoding),
    ``solve_seconds`` (the engine's search), ``distance`` of the witness ("closest": the smallest),
    and ``details``:

    engine : what the engine said: "optimal", "infeasible", "limit" (time, an inaccurate answer, or
        the first point found where any will do), or "" if all labels were eliminated and no program
        was left
    objective : the engine's, or None
    confirm_seconds, confirm_nodes : the proof: what it takes not to believe the engine
    labels_eliminated : labels that cannot win, by the bounds of the logits
    active, inactive, unstable : units, of the ReLUs
    settled, stage_seconds, programs, exits : see `Tightening`
    binaries : 0–1 variables of the program

    Examples
    --------
    >>> import torch
    >>> from robustlib.network import from_torch
    >>> net = torch.nn.Sequential(torch.nn.Linear(1, 2)).eval()
    >>> _ = net[0].weight.data.copy_(torch.tensor([[1.0], [-1.0]])), net[0].bias.data.zero_()
    >>> x, network = torch.tensor([0.5]), from_torch(net, (1,))
    >>> question = Question(net, network, x, 0, 0.6, (-1.0, 1.0))
    >>> verdict = decide_by_mip(question, time_limit=10, settings=PaperSettings(objective="worst"))
    >>> verdict.verdict, round(verdict.upper, 3), round(verdict.distance, 3)
    ('adversarial', -0.2, 0.6)
    """
    return _Decision(question, time_limit, solver, settings, shared).verdict()


@dataclass
class _Report:
    """The ``details`` of a verdict, and the clocks."""

    engine: str = ""
    objective: float | None = None
    confirm_seconds: float = 0.0
    confirm_nodes: int = 0
    labels_eliminated: int = 0
    active: int = 0
    inactive: int = 0
    unstable: int = 0
    settled: dict[str, int] = field(default_factory=dict)
    stage_seconds: dict[str, float] = field(default_factory=dict)
    programs: int = 0
    exits: int = 0
    binaries: int = 0


class _Decision:
    def __init__(
        self,
        question: Question,
        time_limit: float,
        solver: str,
        settings: PaperSettings,
        shared: Tightening | None,
    ) -> None:
        self.question, self.solver, self.settings, self.shared = question, solver, settings, shared
        self.start = time.perf_counter()
        self.deadline = self.start + time_limit
        self.report = _Report()
        self.build_seconds = self.solve_seconds = 0.0
        self.nodes = 0
        self.lower = -np.inf
        self.found: Witness | None = None

    def left(self) -> float:
        return max(0.0, self.deadline - time.perf_counter())

    def verdict(self) -> Verdict:
        clean = self.question.check(self.question.center)
        if clean is not None:
            return self.answer("misclassified", upper=clean.margin, distance=0.0, stage="clean")
        try:
            note = self.search() if self.left() else TIME_LIMIT
        except SolverError as error:
            note = str(error)
        if self.found is not None:
            return self.answer("adversarial", upper=self.found.margin, distance=self.found.distance)
        if self.lower > 0:
            return self.answer("robust")
        return self.answer("undecided", note=note)

    def answer(
        self,
        verdict: str,
        *,
        upper: float = np.nan,
        distance: float = np.nan,
        note: str = "",
        stage: str = "mip",
    ) -> Verdict:
        return Verdict(
            verdict,
            stage,
            self.lower,
            upper,
            None if self.found is None else self.found.point,
            time.perf_counter() - self.start,
            note,
            distance=distance,
            nodes=self.nodes,
            build_seconds=self.build_seconds,
            solve_seconds=self.solve_seconds,
            details=asdict(self.report),
        )

    def search(self) -> str:
        """Build, solve, confirm; returns why the question stays open, if it does."""
        begin = time.perf_counter()
        found = self.bounds()
        remaining = self.labels(found)
        programs = self.programs(found, remaining) if found.finite and remaining else None
        self.build_seconds = time.perf_counter() - begin
        if not found.finite:
            return OVERFLOW
        if not found.finished and self.shared is None:
            return TIME_LIMIT
        if programs is not None:
            if not self.left():
                return TIME_LIMIT
            begin = time.perf_counter()
            any_point = self.settings.objective == "feasibility"
            answer = self.solve(programs.encoding, programs.asked, self.solver, first=any_point)
            self.solve_seconds = time.perf_counter() - begin
            self.nodes = answer.nodes
            self.report.engine, self.report.objective = answer.status, answer.objective
            if self.is_witness(programs, answer):
                return ""
            if answer.status == "limit" and answer.x is None and not self.left():
                return TIME_LIMIT
        begin = time.perf_counter()
        finished = self.confirm(found, remaining)
        self.report.confirm_seconds = time.perf_counter() - begin
        return NEAR_TIE if finished or self.left() else TIME_LIMIT

    def solve(
        self, encoding: ExactEncoding, program: Program, solver: str = "highs", first: bool = False
    ) -> Solution:
        """Solve; for an l2 ball until the solution lies inside, each time with tangents there."""
        nodes = 0
        for _ in range(TANGENTS):
            answer = solve(program, solver=solver, time_limit=self.left(), first=first)
            nodes += answer.nodes
            sharper = None if answer.x is None else encoding.refined(program, answer.x)
            if sharper is None or not self.left():
                break
            program = sharper
        return replace(answer, nodes=nodes)

    def bounds(self) -> Tightening:
        """Bounds of every step, and what they say about the units."""
        question, settings = self.question, self.settings
        if not settings.restricted_domain:
            found = self.shared or domain_bounds(
                question.network,
                question.bounds,
                settings=settings,
                solver=self.solver,
                time_limit=self.left(),
            )
        else:
            found = tighten(
                question.network,
                question.region,
                stages=settings.stages,
                asymmetric=settings.asymmetric,
                label=question.label if settings.label_elimination else None,
                solver=self.solver,
                time_limit=self.left(),
            )
        report = self.report
        report.settled, report.stage_seconds = dict(found.settled), dict(found.seconds)
        report.programs, report.exits = found.programs, found.exits
        for step, before in zip(
            question.network.steps, [question.box, *found.boxes[:-1]], strict=True
        ):
            if isinstance(step, ReLU):
                inactive = before.upper <= 0
                active = ~inactive & (before.lower >= 0)
                report.active += int(active.sum())
                report.inactive += int(inactive.sum())
                report.unstable += int((~active & ~inactive).sum())
        return found

    def labels(self, found: Tightening) -> list[int]:
        """The labels that may win: a label is dropped if another logit is always larger."""
        targets, logits = self.question.targets, found.boxes[-1]
        if not self.settings.label_elimination:
            return targets
        asked = [self.question.label, *targets]
        best = [max(logits.lower[i] for i in asked if i != j) for j in targets]
        remaining = [j for j, low in zip(targets, best, strict=True) if logits.upper[j] >= low]
        self.report.labels_eliminated = len(targets) - len(remaining)
        return remaining

    def programs(self, found: Tightening, remaining: list[int]) -> _Programs:
        question, objective = self.question, self.settings.objective
        network, boxes = _margin_network(
            question.network, found.boxes, question.label, remaining,
            keep=not self.settings.label_elimination,
        )  # fmt: skip
        encoding = ExactEncoding(network, question.region, boxes)
        self.report.binaries = encoding.binaries
        margin = encoding.minimize_logits(np.ones(1))
        if objective == "closest":
            asked = encoding.closest(question.center, np.ones(1), question.norm)
        elif objective == "worst":
            asked = margin
        else:
            no_objective = np.zeros(margin.variables)
            asked = replace(margin.with_cutoff(-LEAD), objective=no_objective)
        return _Programs(encoding, asked, margin)

    def is_witness(self, programs: _Programs, answer: Solution) -> bool:
        """Whether the engine's point, or one with the same pattern, is a strict witness."""
        if answer.x is None:
            return False
        if self.settings.objective == "closest":
            for lead in LEADS:  # ``closest`` puts the row "another label wins" last
                row_upper = programs.asked.row_upper.copy()
                row_upper[-1] -= lead
                winning = _with_pattern(replace(programs.asked, row_upper=row_upper), answer.x)
                if self.check(self.solve(programs.encoding, winning).x):
                    return True
            return False
        if self.check(answer.x):
            return True
        lowest = _with_pattern(programs.margin, answer.x)
        return self.check(self.solve(programs.encoding, lowest).x)

    def check(self, point: np.ndarray | None) -> bool:
        """Whether the inputs of an encoding's point are a strict witness, which is kept."""
        if point is not None:
            self.found = self.question.check(point[: self.question.network.input_size])
        return self.found is not None

    def confirm(self, found: Tightening, remaining: list[int]) -> bool:
        """Prove that no label can win, with all bounds that are there; whether it was completed."""
        question, network = self.question, self.question.network
        boxes = [a.intersect(b) for a, b in zip(question.boxes, found.boxes, strict=True)]
        rows = margin_rows(question.label, network.classes, question.targets)
        lower = rows_lower_bound(network, boxes, question.region, rows)
        logits = boxes[-1]
        apart = np.nextafter(logits.lower[question.label] - logits.upper[question.targets], -np.inf)
        lower = np.maximum(lower, apart)
        # a label that always loses to another one wins only if that one does
        needed = [i for i, j in enumerate(question.targets) if j in remaining or apart[i] > 0]
        encoding = ExactEncoding(network, question.region, boxes)
        finished = True
        for i in sorted(needed, key=lambda i: float(lower[i])):
            if lower[i] <= 0 and finished:
                bound, finished = self.prove(encoding, encoding.minimize_logits(rows[i]))
                lower[i] = max(lower[i], bound)
        self.lower = float(lower[needed].min())
        return finished

    def prove(self, encoding: ExactEncoding, program: Program) -> tuple[float, bool]:
        """A bound of one label's margin by the tree, and whether it is positive."""
        last: list[np.ndarray] = []

        def inspect(point: np.ndarray) -> bool:
            last[:] = [point]
            return self.check(point)

        for _ in range(TANGENTS):
            proof = prove_at_least(program, PROVED, time_limit=self.left(), inspect=inspect)
            self.report.confirm_nodes += proof.nodes
            sharper = encoding.refined(program, last[0]) if last else None
            if proof.finished or proof.stopped or sharper is None or not self.left():
                break
            program = sharper
        return proof.lower, proof.finished


@dataclass(frozen=True, eq=False)
class _Programs:
    """What the engine is asked, and the smallest margin on the same columns."""

    encoding: ExactEncoding
    asked: Program
    margin: Program


def _with_pattern(program: Program, point: np.ndarray) -> Program:
    """The linear program with the 0–1 variables as they are in ``point``."""
    fixed = np.round(point[: program.variables])
    return replace(
        program,
        lower=np.where(program.integer, fixed, program.lower),
        upper=np.where(program.integer, fixed, program.upper),
    ).relaxed()


def _margin_network(
    network: Network, boxes: list[Box], label: int, targets: list[int], *, keep: bool
) -> tuple[Network, list[Box]]:
    """The network followed by logit[label] − max over the targets, and the bounds of its steps.

    ``keep`` loosens the logits' bounds until none of the targets is dropped from the maximum.
    """
    windows = np.full((2, len(targets)), -1)
    windows[0], windows[1, 0] = targets, label
    logits = boxes[-1]
    if keep:
        lower = logits.lower.copy()
        below_all = np.nextafter(logits.upper[targets].min(), -np.inf)
        lower[targets] = np.minimum(lower[targets], below_all)
        logits = Box(lower, logits.upper)
    extended = [*boxes[:-1], logits]
    added = (MaxPool(windows), Affine(np.array([[-1.0, 1.0]]), np.zeros(1)))
    for step in added:
        extended.append(interval_step(step, extended[-1]))
    return Network((*network.steps, *added), network.input_shape), extended
