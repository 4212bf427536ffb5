"""The exact stages for one input: branch and bound, or relaxations, then mixed-integer programs."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace

import numpy as np

from robustlib.encoders.exact import ExactEncoding
from robustlib.encoders.maxima import without_max_pooling
from robustlib.network import MaxPool, margin_rows
from robustlib.solvers import SolverError, prove_at_least, solve
from robustlib.verification.branch import branch
from robustlib.verification.question import Question
from robustlib.verification.result import NEAR_TIE, OVERFLOW, TIME_LIMIT
from robustlib.verification.witness import Witness

# An engine looks for margins below −CUTOFF: what lies between −CUTOFF and 0 is its own tolerance
# and is left to the proof tree, which asks for a margin of at least PROVED.
CUTOFF = 1e-5
PROVED = 1e-9
BRANCH_SHARE = 0.75  # of the time, for branch and bound before mixed-integer programs


@dataclass(frozen=True, eq=False)
class Outcome:
    """Lower bounds of the margins, the witness if there is one, the stage, why it ended.

    ``nodes`` counts branches below the roots: of branch and bound, the engine, and the proof tree.
    """

    lower: np.ndarray
    witness: Witness | None
    stage: str
    note: str = ""
    nodes: int = 0


def exact_search(
    question: Question, lower: np.ndarray, *, solver: str, time_limit: float
) -> Outcome:
    """Decide the targets whose lower bound is not above 0 yet.

    Without max-pooling each target is first searched by β-CROWN branch and bound, for half of the
    time; with max-pooling its linear relaxation is tried. For targets that are left, ``solver``
    minimizes the margin over the exact encoding: what it finds is re-checked as a witness, and what
    it does not find is proved by a tree of relaxations (``solvers.prove_at_least``), because only
    such a bound is safe under rounding.
    """
    start = time.perf_counter()
    lower = lower.copy()
    if not question.finite:
        return Outcome(lower, None, "lp", OVERFLOW)
    pooled = any(isinstance(step, MaxPool) for step in question.network.steps)
    if pooled and question.norm != "inf":  # only branch and bound closes at such a ball exactly
        plain = without_max_pooling(question.network, question.box)
        question, pooled = replace(question, network=plain), False
    encoding = ExactEncoding(question.network, question.region, question.boxes)
    rows = margin_rows(question.label, question.network.classes)
    inputs = slice(0, question.network.input_size)
    found: list[Witness] = []
    stage = "lp" if pooled else "branch"
    nodes = 0

    def inspect(point: np.ndarray) -> bool:
        witness = question.check(point[inputs])
        found.extend([] if witness is None else [witness])
        return witness is not None

    def left() -> float:
        return max(0.0, time_limit - (time.perf_counter() - start))

    hardest = [int(i) for i in np.argsort(lower) if lower[i] <= 0]
    try:
        if hardest and not pooled:
            search = branch(question, rows[hardest], time_limit=BRANCH_SHARE * left())
            lower[hardest] = np.maximum(lower[hardest], search.lower)
            nodes += search.branches - len(hardest)
            stage = "branch" if nodes else "alpha"
            if search.witness is not None:
                return Outcome(lower, search.witness, stage, nodes=nodes)
        for i in hardest if pooled else []:
            program = encoding.minimize_logits(rows[i])
            root = prove_at_least(program, PROVED, time_limit=left(), node_limit=1, inspect=inspect)
            lower[i] = max(lower[i], root.lower)
            if found:
                return Outcome(lower, found[0], "lp")
        for i in (i for i in hardest if lower[i] <= 0):
            stage = "mip"
            program = encoding.minimize_logits(rows[i])
            if left() <= 0:
                return Outcome(lower, None, "mip", TIME_LIMIT, nodes)
            answer = solve(program, solver=solver, time_limit=left(), cutoff=-CUTOFF, first=True)
            nodes += answer.nodes
            if answer.x is not None and inspect(answer.x):
                return Outcome(lower, found[0], "mip", nodes=nodes)
            proof = prove_at_least(program, PROVED, time_limit=left(), inspect=inspect)
            nodes += max(0, proof.nodes - 1)
            lower[i] = max(lower[i], proof.lower)
            if found:
                return Outcome(lower, found[0], "mip", nodes=nodes)
            if not proof.finished:
                note = TIME_LIMIT if left() <= 0 else NEAR_TIE
                return Outcome(lower, None, "mip", note, nodes)
    except SolverError as error:
        return Outcome(lower, None, "mip", str(error), nodes)
    return Outcome(lower, None, stage, nodes=nodes)
