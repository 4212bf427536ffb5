"""The minimum adversarial distortion: how far the nearest other label is, exactly."""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from robustlib import checks
from robustlib.bounds import unstable_units
from robustlib.encoders.exact import ExactEncoding
from robustlib.network import MaxPool, from_torch, margin_rows
from robustlib.solvers import SOLVERS, Program, prove_at_least, solve
from robustlib.verification.attack import attack
from robustlib.verification.branch import branch
from robustlib.verification.question import Question
from robustlib.verification.search import exact_search
from robustlib.verification.witness import Witness

NORMS = ("inf", "1")
# The proof: in a ball with few open units a tree of the nearest-point program, which comes close to
# the engine's optimum; else branch and bound of the margins in balls that come closer and closer.
TREE_UNITS, TREE_GAP = 50, 1e-6
GAPS = (1e-3, 1e-4, 1e-5)
# The optimum is a tie of two logits. A witness must win: by the smallest of these that the
# strict check accepts.
LEADS = (1e-6, 1e-5, 1e-4, 1e-3)
QUICK_BISECTIONS, THOROUGH_BISECTIONS = 10, 4  # of the attack's radius
CROWN_BISECTIONS = 10
GROWTH = 1.3  # of the ball, from one encoding to the next
FEW_UNITS = 200  # with no more open units over the whole box, the attack costs more than it saves


@dataclass(frozen=True, eq=False)
class Distortion:
    """The nearest point with another label.

    Attributes
    ----------
    distance : distance of ``witness``, inf if none was found.
    lower : no point nearer than this has another label: proved, safe under rounding. Where the
        time sufficed it is within about 1e-5 of ``distance`` (a witness must win, not tie).
    witness : the adversarial example, of x's shape and dtype, or None.
    label : its label, or None.
    finished : whether ``lower`` was proved up to the engine's optimum: not if time was too short
        or the bounds overflow.
    nodes : nodes of the engine and, in the norm "1", of the proof tree.
    seconds : wall seconds.
    """

    distance: float
    lower: float
    witness: Tensor | None
    label: int | None
    finished: bool
    nodes: int
    seconds: float


def min_distortion(
    net: nn.Module,
    x: Tensor,
    y: Tensor | int,
    *,
    norm: str = "inf",
    bounds: tuple[float, float] = (0.0, 1.0),
    solver: str = "highs",
    time_limit: float = 600.0,
    seed: int = 0,
) -> Distortion:
    """min ‖x' − x‖ over all x' inside ``bounds`` labeled other than y (Tjeng et al., eqs. 3–5).

    An attack finds a first witness (on a network of more than a few units); the exact encoding over
    the ball that it spans then finds the nearest, label by label, and a tree of relaxations proves
    that there is no nearer one.

    Parameters
    ----------
    net : nn.Sequential of supported layers, in evaluation mode.
    x : one input, without a batch dimension, inside ``bounds``: ``x[0]``, not ``x[:1]``.
    y : its true label.
    norm : "inf" or "1".
    solver : "highs", "scip" or "cvxpy".
    time_limit : wall seconds, for all labels together.

    Raises
    ------
    TypeError, ValueError
        For bad input; the message names the argument, the value and what is allowed.

    Examples
    --------
    >>> net = nn.Sequential(nn.Linear(1, 2)).eval()
    >>> _ = net[0].weight.data.copy_(torch.tensor([[1.0], [-1.0]])), net[0].bias.data.zero_()
    >>> d = min_distortion(net, torch.tensor([0.5]), 0, bounds=(-1.0, 1.0))
    >>> round(d.distance, 4), d.lower > 0.4999, d.label
    (0.5, True, 1)
    """
    start = time.perf_counter()
    checks.choice("norm", norm, NORMS)
    checks.choice("solver", solver, SOLVERS)
    time_limit = checks.number("time_limit", time_limit, low=0.0)
    seed = checks.count("seed", seed, low=0)
    low, high = bounds = checks.box(bounds)
    checks.eval_mode(net, "net")
    point = checks.images(x[None] if isinstance(x, Tensor) else x, bounds=bounds)[0]
    checks.same_dtype(point, net)
    network = from_torch(net, tuple(point.shape))
    y = y.reshape(-1) if isinstance(y, Tensor) else torch.tensor([checks.count("y", y, low=0)])
    label = int(checks.labels(y, 1, network.classes)[0])

    reach = float(np.nextafter(high - low, np.inf))  # every l∞ ball of this radius covers the box
    whole = Question(net, network, point, label, reach, bounds)
    if whole.check(whole.center) is not None:
        seconds = time.perf_counter() - start
        prediction = int(network.forward(whole.center[None])[0].argmax())
        return Distortion(0.0, 0.0, point.clone(), prediction, True, 0, seconds)
    search = _Search(whole, norm, solver, start + time_limit)
    if unstable_units(network, whole.box, whole.boxes) > FEW_UNITS:
        search.attack(seed)
    lower, finished = search.exact()
    witness = search.witness
    label_found = None
    if witness is not None:
        flat = witness.point.double().reshape(1, -1).numpy()
        label_found = int(network.forward(flat)[0].argmax())
    return Distortion(
        distance=search.distance,
        lower=min(lower, search.distance),
        witness=None if witness is None else witness.point,
        label=label_found,
        finished=finished and (witness is not None or lower == np.inf),
        nodes=search.nodes,
        seconds=time.perf_counter() - start,
    )


class _Search:
    """The best witness so far, and what remains to be asked."""

    def __init__(self, whole: Question, norm: str, solver: str, deadline: float) -> None:
        self.whole, self.norm, self.solver, self.deadline = whole, norm, solver, deadline
        self.witness: Witness | None = None
        self.distance = np.inf
        self.nodes = 0

    def left(self) -> float:
        return max(0.0, self.deadline - time.perf_counter())

    def question(self, eps: float) -> Question:
        q = self.whole
        return Question(q.module, q.network, q.x, q.label, eps, q.bounds)

    def consider(self, witness: Witness | None) -> None:
        """Keep the witness if it is nearer than the best."""
        if witness is None:
            return
        step = witness.point.double().reshape(-1).numpy() - self.whole.center
        distance = float(np.linalg.norm(step, np.inf if self.norm == "inf" else 1))
        if distance < self.distance:
            self.distance, self.witness = distance, witness

    def attack(self, seed: int) -> None:
        """Bisect the radius of an attack: a first witness and a small ball for the encoding."""
        generator = torch.Generator().manual_seed(seed)
        low, high = 0.0, self.whole.eps
        for thorough in [False] * QUICK_BISECTIONS + [True] * THOROUGH_BISECTIONS:
            if thorough and low < 0.9 * high:
                low = 0.9 * high  # the quick attack's failures below are no proof: look again
            question = self.question(high if self.witness is None else 0.5 * (low + high))
            margins = question.crown_margins()
            found = None
            if margins.min() <= 0:
                found = attack([question], [margins], generator=generator, thorough=thorough)[0]
            if found is None and self.witness is None:
                return
            self.consider(found)
            low, high = (question.eps, high) if found is None else (low, question.eps)

    def exact(self) -> tuple[float, bool]:
        """The proved lower bound of the distance, and whether it reached the optimum.

        The ball of the encoding grows from the radius that CROWN certifies: in a small ball few
        units are open. A point that the engine finds in the ball is the nearest one if it is no
        farther than the ball's radius: in the norm "1" it can be farther, and the ball grows to it.
        """
        widest = min(self.distance, self.whole.eps)
        reached = self.certified_radius(widest)
        radius = max(reached * GROWTH, widest / 32)
        while True:
            widest = min(self.distance, self.whole.eps)
            question = self.question(min(radius, widest))
            if not question.finite:
                return reached, False
            programs = self.open_programs(question)
            optimum = self.optimum(programs)
            if optimum <= question.eps or question.eps == widest or not self.left():
                break
            radius = max(radius * GROWTH, optimum if np.isfinite(optimum) else 0.0)
        nearest = min(optimum, self.distance)
        open_units = unstable_units(question.network, question.box, question.boxes)
        if self.norm == "inf" and open_units > TREE_UNITS:
            return self.proved_radius(nearest, reached)
        lower = question.eps if question.eps < self.whole.eps else np.inf
        for program in programs:
            proof = prove_at_least(program, nearest - TREE_GAP, time_limit=self.left())
            self.nodes += proof.nodes
            lower = min(lower, proof.lower)
        lower = max(reached, lower)  # a ball of the norm "1" lies inside that of "inf"
        return lower, lower >= nearest - TREE_GAP

    def proved_radius(self, nearest: float, proved: float) -> tuple[float, bool]:
        """Prove the label in balls that come closer and closer to ``nearest``."""
        if np.isinf(nearest):
            everywhere = self.is_robust(self.whole.eps)
            return (np.inf if everywhere else proved), everywhere
        for gap in GAPS:
            if nearest - gap > proved:
                if not self.is_robust(nearest - gap):
                    return proved, False
                proved = nearest - gap
        return proved, True

    def is_robust(self, eps: float) -> bool:
        """Whether the label is proved in the ball of this radius, near a tie as it may be."""
        question = self.question(eps)
        lower = question.crown_margins()
        if lower.min() > 0:
            return True
        if any(isinstance(step, MaxPool) for step in question.network.steps):
            outcome = exact_search(question, lower, solver=self.solver, time_limit=self.left())
            return bool(outcome.lower.min() > 0)
        rows = margin_rows(question.label, question.network.classes)
        return all(
            branch(question, row, time_limit=self.left()).lower > 0 for row in rows[lower <= 0]
        )

    def open_programs(self, question: Question) -> list[Program]:
        """The nearest-point program of every label that CROWN does not exclude from the ball."""
        margins = question.crown_margins()
        rows = margin_rows(question.label, question.network.classes)
        return [self.closest(question, rows[i]) for i in np.argsort(margins) if margins[i] <= 0]

    def optimum(self, programs: list[Program]) -> float:
        """The smallest distance that the engine finds, inf if it finds no point."""
        best = np.inf
        for program in programs:
            nearest = min(best, self.distance)
            answer = solve(
                program,
                solver=self.solver,
                time_limit=self.left(),
                cutoff=nearest if np.isfinite(nearest) else None,
            )
            self.nodes += answer.nodes
            if answer.x is not None and answer.objective is not None:
                best = min(best, answer.objective)
                self.strict(program, answer.x)
        return best

    def certified_radius(self, high: float) -> float:
        """The largest radius, up to a bisection, at which CROWN proves the label."""
        low = 0.0
        for _ in range(CROWN_BISECTIONS):
            middle = 0.5 * (low + high)
            proved = self.question(middle).crown_margins().min() > 0
            low, high = (middle, high) if proved else (low, middle)
        return low

    def closest(self, question: Question, row: np.ndarray) -> Program:
        encoding = ExactEncoding(question.network, question.box, question.boxes)
        return encoding.closest(question.center, row, self.norm)

    def strict(self, program: Program, point: np.ndarray) -> None:
        """Keep the solution's activation pattern and ask for a lead: an LP per lead."""
        fixed = np.round(point)
        lower = np.where(program.integer, fixed, program.lower)
        upper = np.where(program.integer, fixed, program.upper)
        for lead in LEADS:
            row_upper = program.row_upper.copy()
            row_upper[-1] -= lead  # ``closest`` puts the row "other logit wins" last
            winning = Program(
                program.objective, program.matrix, program.row_lower, row_upper, lower, upper,
                np.zeros(program.variables, dtype=bool),
            )  # fmt: skip
            answer = solve(winning, time_limit=self.left())
            if answer.x is None:
                return
            found = self.whole.check(answer.x[: self.whole.network.input_size])
            if found is not None:
                self.consider(found)
                return
