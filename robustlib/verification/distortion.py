"""The minimum adversarial distortion: how far the nearest other label is, exactly."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from robustlib import checks
from robustlib.attacks import pgd
from robustlib.bounds import outer_ball, unstable_units
from robustlib.encoders.maxima import two_sides, without_max_pooling
from robustlib.network import MaxPool, Network, from_torch, margin_rows
from robustlib.solvers import SOLVERS, SolverError
from robustlib.verification.attack import QUICK, THOROUGH
from robustlib.verification.branch import branch
from robustlib.verification.nearest import nearest_in_region
from robustlib.verification.question import Question
from robustlib.verification.witness import Witness, distance, is_within, strict_witness

NORMS = ("inf", "1", "2")
TOLERANCE = 5e-6  # how far below the witness the proof reaches, in units of max(1, distance)
FINE = 5e-7  # the same for a last proof, which may fail: a witness must win by more than rounding
COARSE = 1e-2  # the same for a first proof, in units of the distance: it often finds a nearer point
# The optimum is a tie of two logits. A witness must win: by the smallest of these that the
# strict check accepts.
LEADS = (1e-6, 2e-6, 5e-6, 1e-5, 1e-4, 1e-3)
REGIONS = 20  # neighboring linear regions in which a witness is moved nearer
QUICK_BISECTIONS, THOROUGH_BISECTIONS = 10, 4  # of the attack's radius
CROWN_BISECTIONS = 12
GROWTH = 1.3  # of the radius that is tried, while there is no witness
FEW_UNITS = 200  # with no more open units over the whole box, the attack costs more than it saves


@dataclass(frozen=True, eq=False)
class Distortion:
    """The nearest point with another label, or with one of the labels that were asked for.

    Attributes
    ----------
    distance : distance of ``witness``, rounded up; inf if none was found.
    lower : no point nearer than this has such a label: proved, safe under rounding; inf if none
        has one at all.
    witness : the adversarial example, of x's shape and dtype, or None.
    label : its label, or None.
    finished : whether ``lower`` was proved up to ``TOLERANCE`` below ``distance`` (a witness must
        win, not tie): not if time was too short or the bounds overflow.
    nodes : branches that were bounded.
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
    targets: int | Sequence[int] | None = None,
    bounds: tuple[float, float] = (0.0, 1.0),
    solver: str = "highs",
    time_limit: float = 600.0,
    progress: Callable[[dict[str, Any]], None] | None = None,
    seed: int = 0,
) -> Distortion:
    """min ‖x' − x‖ over all x' inside ``bounds`` labeled other than y (Tjeng et al., eqs. 3–5).

    A witness is moved to the nearest point of its linear region, a convex program. Branch and bound
    then proves the label in a ball that almost reaches it, or finds a nearer witness there, with
    which it starts again.

    Parameters
    ----------
    net : nn.Sequential of supported layers, in evaluation mode.
    x : one input, without a batch dimension, inside ``bounds``: ``x[0]``, not ``x[:1]``.
    y : its true label.
    norm : "inf", "1" or "2".
    targets : only x' with one of these labels count; None for all but y.
    solver : "highs", "scip" or "cvxpy", for the linear programs.
    time_limit : wall seconds.
    progress : called after every step with a dict: distance and lower so far, nodes, seconds.
    seed : of the attack that finds a first witness on a network of more than a few units.

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
    bounds = checks.box(bounds)
    checks.eval_mode(net, "net")
    point = checks.images(x[None] if isinstance(x, Tensor) else x, bounds=bounds)[0]
    checks.same_dtype(point, net)
    network = from_torch(net, tuple(point.shape))
    y = y.reshape(-1) if isinstance(y, Tensor) else torch.tensor([checks.count("y", y, low=0)])
    label = int(checks.labels(y, 1, network.classes)[0])
    wanted = _targets(targets, label, network.classes)

    whole = _whole_box(net, network, point, label, wanted, norm, bounds)
    search = _Search(whole, solver, start, time_limit, progress)
    search.consider(whole.check(whole.center))
    lower, finished = (0.0, True) if search.distance == 0 else search.run(seed)
    witness = search.witness
    found = None
    if witness is not None:
        logits = network.forward(witness.point.double().reshape(1, -1).numpy())[0]
        found = max(wanted, key=lambda j: logits[j])
    return Distortion(
        distance=search.distance,
        lower=min(lower, search.distance),
        witness=None if witness is None else witness.point,
        label=found,
        finished=finished,
        nodes=search.nodes,
        seconds=time.perf_counter() - start,
    )


def _targets(targets: int | Sequence[int] | None, label: int, classes: int) -> tuple[int, ...]:
    if targets is None:
        return tuple(j for j in range(classes) if j != label)
    values = [targets] if hasattr(targets, "__index__") else list(targets)
    wanted = tuple(sorted({checks.count("targets", value, low=0) for value in values}))
    if not wanted or wanted[-1] >= classes or label in wanted:
        raise ValueError(
            f"targets={targets!r} is not allowed: give labels in [0, {classes - 1}] other than the "
            f"true one, {label}."
        )
    return wanted


@dataclass(frozen=True, eq=False)
class _Question(Question):
    """A question in another form of the network, whose witnesses are checked on the network."""

    original: tuple[Network, int, tuple[int, ...]] = field(kw_only=True)  # label and targets too

    def check(self, candidate: np.ndarray) -> Witness | None:
        network, label, wanted = self.original
        near = torch.from_numpy(candidate).to(self.x.dtype).reshape(1, *self.x.shape)
        point = self.ball.project(near)[0]
        found = strict_witness(self.module, network, point, label, list(wanted))
        flat = point.double().reshape(-1).numpy()
        if found is None or not is_within(flat, self.center, self.eps, self.norm):
            return None
        return replace(found, distance=distance(flat, self.center, self.norm))


def _whole_box(
    net: nn.Module,
    network: Network,
    x: Tensor,
    label: int,
    wanted: tuple[int, ...],
    norm: str,
    bounds: tuple[float, float],
) -> _Question:
    """The question with a ball that covers the box."""
    side = float(np.nextafter(bounds[1] - bounds[0], np.inf))
    n = network.input_size
    reach = side * {"inf": 1.0, "1": float(n), "2": math.nextafter(math.sqrt(n), math.inf)}[norm]
    box = outer_ball(x.detach().cpu().double().reshape(-1).numpy(), side, bounds)
    form, place = network, label
    if any(isinstance(step, MaxPool) for step in network.steps):
        form = without_max_pooling(network, box)
    if len(wanted) < network.classes - 1:
        form, place = two_sides(form, box, label, wanted), 0
    widest = math.nextafter(reach, math.inf)
    original = (network, label, wanted)
    return _Question(net, form, x, place, widest, bounds, norm, original=original)


class _Search:
    """The best witness so far, and what is proved."""

    def __init__(
        self,
        whole: _Question,
        solver: str,
        start: float,
        time_limit: float,
        progress: Callable[[dict[str, Any]], None] | None,
    ) -> None:
        self.whole, self.solver, self.progress = whole, solver, progress
        self.start, self.deadline = start, start + time_limit
        self.witness: Witness | None = None
        self.distance = np.inf
        self.proved = 0.0
        self.nodes = 0

    def left(self) -> float:
        return max(0.0, self.deadline - time.perf_counter())

    def question(self, eps: float) -> _Question:
        return replace(self.whole, eps=eps)

    def run(self, seed: int) -> tuple[float, bool]:
        """The proved lower bound of the distance, and whether it comes up to the witness."""
        if not self.whole.finite:
            return 0.0, False
        if unstable_units(self.whole.network, self.whole.region, self.whole.boxes) > FEW_UNITS:
            self.attack(seed)
        self.certify(min(self.distance, self.whole.eps))
        if self.witness is None and not self.grow():
            return self.proved, False
        rounds = [(COARSE, TOLERANCE), (0.0, TOLERANCE)]
        if self.whole.norm == "inf":  # where linear programs prove it fast
            rounds.append((0.0, FINE))
        for gap, tolerance in rounds:
            if tolerance == FINE:  # at most as long again as all before
                now = time.perf_counter()
                self.deadline = min(self.deadline, now + (now - self.start))
            while self.witness is not None:
                aim = self.distance - max(gap * self.distance, tolerance * max(1.0, self.distance))
                if aim <= self.proved:
                    break
                known = self.distance
                if not self.decide(aim) and self.distance == known:
                    return self.proved, tolerance == FINE
        return (self.proved if self.witness is not None else np.inf), True

    def grow(self) -> bool:
        """Prove larger and larger balls until one holds a witness or the box is proved."""
        while self.witness is None and self.proved < self.whole.eps:
            radius = max(self.proved * GROWTH, self.whole.eps / 1000)
            if not self.decide(min(radius, self.whole.eps)) and self.witness is None:
                return False
        return True

    def decide(self, eps: float) -> bool:
        """Whether the ball of this radius is proved; a witness in it is kept."""
        question = self.question(eps)
        lower = question.crown_margins()
        rows = margin_rows(question.label, question.network.classes)[lower <= 0]
        proved = not len(rows)
        if not proved:
            outcome = branch(question, rows, time_limit=self.left())
            self.nodes += outcome.branches
            proved = bool(outcome.lower.min() > 0)
            if outcome.witness is not None:
                self.consider(outcome.witness)
                self.move_nearer()
        if proved:
            self.proved = max(self.proved, eps)
        self.report()
        return proved

    def consider(self, witness: Witness | None) -> bool:
        """Keep the witness if it is nearer than the best."""
        if witness is None or witness.distance >= self.distance:
            return False
        self.distance, self.witness = witness.distance, witness
        return True

    def move_nearer(self) -> None:
        """Go to the nearest point of the witness's linear region, and on from there."""
        for _ in range(REGIONS):
            assert self.witness is not None
            question = self.question(self.distance)
            point = self.witness.point.double().reshape(-1).numpy()
            before = self.distance
            for lead in LEADS:
                try:
                    found = nearest_in_region(
                        question, point, lead=lead, solver=self.solver, time_limit=self.left()
                    )
                except SolverError:
                    return
                if found is None or self.consider(question.check(found)):
                    break
            if self.distance > before - TOLERANCE * before:
                return

    def certify(self, high: float) -> None:
        """The largest radius, up to a bisection, at which CROWN proves the label."""
        low = 0.0
        for _ in range(CROWN_BISECTIONS):
            middle = 0.5 * (low + high)
            proved = self.question(middle).crown_margins().min() > 0
            low, high = (middle, high) if proved else (low, middle)
        self.proved = low

    def attack(self, seed: int) -> None:
        """Bisect the radius of an attack: a first witness."""
        low, high = 0.0, self.whole.eps
        for budget in [QUICK] * QUICK_BISECTIONS + [THOROUGH] * THOROUGH_BISECTIONS:
            if budget is THOROUGH and low < 0.9 * high:
                low = 0.9 * high  # the quick attack's failures below are no proof: look again
            question = self.question(high if self.witness is None else 0.5 * (low + high))
            found = self.attacked(question, seed, budget)
            if not found and self.witness is None:
                return
            low, high = (low, question.eps) if found else (question.eps, high)
        self.move_nearer()

    def attacked(self, question: _Question, seed: int, budget: dict[str, Any]) -> bool:
        """Whether PGD finds a nearer witness: toward any label, or toward each that was asked."""
        network, label, wanted = question.original
        some = len(wanted) < network.classes - 1
        x = question.x[None].expand(len(wanted) if some else 1, *question.x.shape)
        points = pgd(
            question.module, x, torch.full((len(x),), label, device=x.device), eps=question.eps,
            norm=question.norm, bounds=question.bounds, loss="margin", decay=True,
            step_size=question.eps / 4, targets=torch.tensor(wanted) if some else None,
            generator=torch.Generator().manual_seed(seed), **budget,
        )  # fmt: skip
        flat = points.detach().cpu().double().reshape(len(points), -1).numpy()
        return any([self.consider(question.check(point)) for point in flat])

    def report(self) -> None:
        if self.progress is not None:
            seconds = time.perf_counter() - self.start
            state = {"distance": self.distance, "lower": self.proved, "nodes": self.nodes}
            self.progress({**state, "seconds": seconds})
