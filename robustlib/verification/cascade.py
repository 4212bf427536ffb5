"""``verify``: cheapest stage first, each stage only for what the ones before left open."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from robustlib import checks
from robustlib.solvers import SOLVERS
from robustlib.verification.attack import attack
from robustlib.verification.batch import Job, answer_all
from robustlib.verification.plan import Image, Open, Task
from robustlib.verification.question import Question
from robustlib.verification.result import (
    LASTING,
    OVERFLOW,
    TIME_LIMIT,
    WORKER_DIED,
    Verdict,
    Verification,
)
from robustlib.verification.search import exact_search
from robustlib.verification.witness import Witness

NORMS = ("inf", "1", "2")
METHODS = {"cascade": ("bounds", "attack", "exact"), "mip": ("bounds", "exact")}  # their stages


def verify(
    net: nn.Module,
    x: Tensor,
    y: Tensor,
    *,
    eps: float,
    norm: str = "inf",
    bounds: tuple[float, float] = (0.0, 1.0),
    method: str = "cascade",
    solver: str = "highs",
    time_limit: float = 60.0,
    workers: int = 1,
    dask: str | None = None,
    store: str | Path | None = None,
    progress: Callable[[dict[str, Any]], None] | None = None,
    seed: int = 0,
) -> Verification:
    """For every input: an adversarial example, or a proof that there is none (Tjeng et al., eq. 2).

    The question is whether some x' with ‖x' − x‖ ≤ eps inside ``bounds`` has a logit above that of
    the label y. The stages are: the clean input; CROWN bounds of the margins; targeted PGD; β-CROWN
    branch and bound (linear relaxations if there is max-pooling); mixed-integer programs. "robust"
    rests on a bound that is safe under rounding, "adversarial" on a witness re-checked without
    tolerance; everything else is "undecided".

    Verdicts do not depend on the number of workers, except where a time limit ends the search.

    Parameters
    ----------
    net : nn.Sequential of supported layers (``network.SUPPORTED``), in evaluation mode.
    x : (n, …) floating point inside ``bounds``.
    y : (n,) the true labels.
    eps : radius, in the unit of x; not larger than the box of ``bounds``.
    norm : "inf", "1" or "2".
    method : "cascade", the stages above, or "mip", the paper's own method.
    solver : engine of the mixed-integer stage: "highs", "scip" or "cvxpy".
    time_limit : wall seconds for the exact stages of one input; 0 leaves them out.
    workers : processes of this machine, of one thread each; 1 does the work in this process.
    dask : address of a Dask scheduler ("tcp://host:port"): the work is done on its cluster.
    store : path of a SQLite file. Verdicts are written to it as they come and found again by the
        next call with the same network and settings; a file of others is refused.
    progress : called after every input with a dict: done, total, verdicts and stages (counts of
        what is decided), left (how many inputs wait for or are in each stage), elapsed (seconds)
        and eta (about how many seconds are left, None while nothing tells).
    seed : of the attack's random starts.

    Raises
    ------
    TypeError, ValueError
        For bad input; the message names the argument, the value and what is allowed.
    OSError
        If the store cannot be written, or nothing answers at ``dask``.
    RuntimeError
        If the Dask cluster goes away; what was decided is in the store.

    Examples
    --------
    >>> net = nn.Sequential(nn.Linear(1, 2)).eval()
    >>> _ = net[0].weight.data.copy_(torch.tensor([[1.0], [-1.0]])), net[0].bias.data.zero_()
    >>> r = verify(net, torch.tensor([[0.9]]), torch.tensor([0]), eps=0.2, bounds=(-1.0, 1.0))
    >>> r.verdict, r.stage
    (['robust'], ['crown'])
    """
    checks.choice("norm", norm, NORMS)
    checks.choice("method", method, METHODS)
    checks.choice("solver", solver, SOLVERS)
    eps = checks.eps(eps)
    time_limit = checks.number("time_limit", time_limit, low=0.0)
    seed = checks.count("seed", seed, low=0)
    bounds = checks.box(bounds)
    checks.eval_mode(net, "net")
    checks.same_dtype(checks.images(x, bounds=bounds), net)
    check_radius(eps, norm, bounds, x[0].numel() if len(x) else 1)
    job = Cascade(
        net, tuple(x.shape[1:]), norm, bounds, solver, time_limit, seed, eps=eps, method=method
    )
    y = checks.labels(y, len(x), job.network.classes)
    return Verification(
        answer_all(job, x, y, workers=workers, dask=dask, store=store, progress=progress)
    )


def check_radius(eps: float, norm: str, bounds: tuple[float, float], size: int) -> None:
    """Refuse a ball that holds the whole box around every point of it: the unit is wrong."""
    side = bounds[1] - bounds[0]
    widest = side * {"inf": 1.0, "1": float(size), "2": math.sqrt(size)}[norm]
    if eps > widest:
        raise ValueError(
            f"eps={eps:g} is larger than the box: in the norm {norm!r} no two points of "
            f"bounds={bounds} are farther apart than {widest:g}; give eps in the unit of x "
            "(8 of 255 gray levels are 8/255)."
        )


@dataclass(frozen=True, eq=False, kw_only=True)
class Cascade(Job[Verdict]):
    """One call of ``verify``."""

    eps: float
    method: str

    answers = Verdict

    @property
    def stages(self) -> tuple[str, ...]:
        return METHODS[self.method]

    def work(self, task: Task) -> list[Verdict | Open]:
        questions = [
            Question(self.module, self.network, i.x, i.label, self.eps, self.bounds, self.norm)
            for i in task.images
        ]
        if task.stage == "bounds":
            return [self.bound(question) for question in questions]
        before = [image.open for image in task.images if image.open is not None]
        if task.stage == "attack":
            return self.attack(questions, before)
        return [self.decide(*pair) for pair in zip(questions, before, strict=True)]

    def bound(self, question: Question) -> Verdict | Open:
        """The clean input, and CROWN; the paper's method makes its own bounds."""
        start = time.perf_counter()
        clean = question.check(question.center)
        if clean is not None:
            spent = time.perf_counter() - start
            return Verdict(
                "misclassified", "clean", -np.inf, clean.margin, None, spent, distance=0.0
            )
        if self.method == "mip":
            return Open(np.full(len(question.targets), -np.inf), time.perf_counter() - start)
        lower = question.crown_margins()
        spent = time.perf_counter() - start
        if not question.finite:
            return Verdict("undecided", "crown", -np.inf, np.nan, None, spent, OVERFLOW)
        if lower.min() > 0:
            return Verdict("robust", "crown", float(lower.min()), np.nan, None, spent)
        return Open(lower, spent)

    def attack(self, questions: list[Question], before: list[Open]) -> list[Verdict | Open]:
        """Targeted PGD on all of them."""
        start = time.perf_counter()
        generator = torch.Generator().manual_seed(self.seed)
        witnesses = attack(questions, [b.lower for b in before], generator=generator)
        share = (time.perf_counter() - start) / len(questions)
        answers: list[Verdict | Open] = []
        for lower, witness in zip((b.lower for b in before), witnesses, strict=True):
            low, spent = float(lower.min()), before[len(answers)].seconds + share
            if witness is not None:
                answers.append(adversarial("pgd", low, witness, spent))
            elif self.time_limit == 0:
                answers.append(Verdict("undecided", "pgd", low, np.nan, None, spent, TIME_LIMIT))
            else:
                answers.append(Open(lower, spent))
        return answers

    def decide(self, question: Question, before: Open) -> Verdict:
        """The exact stages."""
        start = time.perf_counter()
        try:
            if self.method == "mip":
                from robustlib.verification.paper import decide_by_mip

                found = decide_by_mip(question, time_limit=self.time_limit, solver=self.solver)
            else:
                found = self.search(question, before.lower)
        except MemoryError:
            low = float(before.lower.min())
            found = Verdict("undecided", "mip", low, np.nan, None, 0.0, "out of memory")
        return replace(found, seconds=before.seconds + time.perf_counter() - start)

    def search(self, question: Question, lower: np.ndarray) -> Verdict:
        """Branch and bound, and mixed-integer programs for what it leaves."""
        outcome = exact_search(question, lower, solver=self.solver, time_limit=self.time_limit)
        low = float(outcome.lower.min())
        if outcome.witness is not None:
            found = adversarial(outcome.stage, low, outcome.witness, 0.0)
        elif low > 0:
            found = Verdict("robust", outcome.stage, low, np.nan, None, 0.0)
        else:
            found = Verdict("undecided", outcome.stage, low, np.nan, None, 0.0, outcome.note)
        return replace(found, nodes=outcome.nodes)

    def given_up(self, image: Image) -> Verdict:
        lower = -np.inf if image.open is None else float(image.open.lower.min())
        stage = "clean" if image.open is None else "crown"
        return Verdict("undecided", stage, lower, np.nan, None, 0.0, WORKER_DIED)

    def lasts(self, answer: Verdict, had: float) -> bool:
        """An undecided verdict does if it had as much time, and nothing failed."""
        enough = had >= self.time_limit and answer.note in LASTING
        return answer.verdict != "undecided" or enough

    def words(self, answer: Verdict) -> tuple[str, str]:
        return answer.verdict, answer.stage


def adversarial(stage: str, low: float, witness: Witness, seconds: float) -> Verdict:
    """The verdict for a witness."""
    return Verdict(
        "adversarial",
        stage,
        low,
        witness.margin,
        witness.point,
        seconds,
        distance=witness.distance,
    )
