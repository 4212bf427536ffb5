"""``verify``: cheapest stage first, each stage only for what the ones before left open."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from robustlib import checks
from robustlib.network import from_torch
from robustlib.solvers import SOLVERS
from robustlib.verification.attack import attack
from robustlib.verification.question import Question
from robustlib.verification.result import OVERFLOW, TIME_LIMIT, Verdict, Verification
from robustlib.verification.search import exact_search
from robustlib.verification.store import Store, network_hash, question_key
from robustlib.verification.witness import Witness

NORMS = ("inf",)
GROUP = 64  # inputs that share one call of the attack; memory does not grow beyond them


def verify(
    net: nn.Module,
    x: Tensor,
    y: Tensor,
    *,
    eps: float,
    norm: str = "inf",
    bounds: tuple[float, float] = (0.0, 1.0),
    solver: str = "highs",
    time_limit: float = 60.0,
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

    Parameters
    ----------
    net : nn.Sequential of supported layers (``network.SUPPORTED``), in evaluation mode.
    x : (n, …) floating point inside ``bounds``.
    y : (n,) the true labels.
    eps : radius, in the unit of x.
    norm : "inf".
    solver : engine of the mixed-integer stage: "highs", "scip" or "cvxpy".
    time_limit : wall seconds for the exact stages of one input; 0 leaves them out.
    store : path of a SQLite file. Verdicts are written to it as they come and found again by the
        next call with the same network, inputs and settings.
    progress : called after every input with a dict: done, total, verdicts (counts by verdict).
    seed : of the attack's random starts.

    Raises
    ------
    TypeError, ValueError
        For bad input; the message names the argument, the value and what is allowed.

    Examples
    --------
    >>> net = nn.Sequential(nn.Linear(1, 2)).eval()
    >>> _ = net[0].weight.data.copy_(torch.tensor([[1.0], [-1.0]])), net[0].bias.data.zero_()
    >>> r = verify(net, torch.tensor([[0.9]]), torch.tensor([0]), eps=0.2, bounds=(-1.0, 1.0))
    >>> r.verdict, r.stage
    (['robust'], ['crown'])
    """
    checks.choice("norm", norm, NORMS)
    checks.choice("solver", solver, SOLVERS)
    eps = checks.eps(eps)
    time_limit = checks.number("time_limit", time_limit, low=0.0)
    seed = checks.count("seed", seed, low=0)
    bounds = checks.box(bounds)
    checks.eval_mode(net, "net")
    checks.same_dtype(checks.images(x, bounds=bounds), net)
    network = from_torch(net, tuple(x.shape[1:]))
    y = checks.labels(y, len(x), network.classes)
    questions = [Question(net, network, x[i], int(y[i]), eps, bounds) for i in range(len(x))]
    name = network_hash(network) if store is not None else ""
    keys = [question_key(q, name, norm, solver, seed) for q in questions] if name else []

    results: list[Verdict | None] = [None] * len(questions)
    counts: Counter[str] = Counter()

    def report(i: int, verdict: Verdict) -> None:
        results[i] = verdict
        counts[verdict.verdict] += 1
        if progress is not None:
            progress({"done": sum(counts.values()), "total": len(x), "verdicts": dict(counts)})

    with nullcontext() if store is None else Store(store) as saved:
        for i, question in enumerate(questions):
            known = saved.get(keys[i], question, time_limit) if saved is not None else None
            if known is not None:
                report(i, known)
        remaining = [i for i, r in enumerate(results) if r is None]
        for start in range(0, len(remaining), GROUP):
            group = remaining[start : start + GROUP]
            for i, verdict in _decide({i: questions[i] for i in group}, solver, time_limit, seed):
                if saved is not None:
                    saved.put(keys[i], verdict, time_limit)
                report(i, verdict)
            for i in group:  # let go of the bounds
                questions[i] = Question(net, network, x[i], int(y[i]), eps, bounds)
    return Verification(tuple(r for r in results if r is not None))


def _decide(
    questions: dict[int, Question], solver: str, time_limit: float, seed: int
) -> Iterator[tuple[int, Verdict]]:
    """The verdicts of one group, each as soon as it is known."""
    open_lower: dict[int, np.ndarray] = {}
    seconds: dict[int, float] = {}
    for i, question in questions.items():
        start = time.perf_counter()
        clean = question.check(question.center)
        if clean is not None:
            spent = time.perf_counter() - start
            yield i, Verdict("misclassified", "clean", -np.inf, clean.margin, None, spent)
            continue
        lower = question.crown_margins()
        seconds[i] = time.perf_counter() - start
        if not question.finite:
            yield i, Verdict("undecided", "crown", -np.inf, np.nan, None, seconds[i], OVERFLOW)
        elif lower.min() > 0:
            yield i, Verdict("robust", "crown", float(lower.min()), np.nan, None, seconds[i])
        else:
            open_lower[i] = lower
    if not open_lower:
        return

    start = time.perf_counter()
    generator = torch.Generator().manual_seed(seed)
    witnesses = attack(
        [questions[i] for i in open_lower], list(open_lower.values()), generator=generator
    )
    share = (time.perf_counter() - start) / len(open_lower)
    for (i, lower), witness in zip(open_lower.items(), witnesses, strict=True):
        seconds[i] += share
        if witness is not None:
            yield i, _adversarial("pgd", lower, witness, seconds[i])
            continue
        if time_limit == 0:
            low = float(lower.min())
            yield i, Verdict("undecided", "pgd", low, np.nan, None, seconds[i], TIME_LIMIT)
            continue
        start = time.perf_counter()
        outcome = exact_search(questions[i], lower, solver=solver, time_limit=time_limit)
        spent = seconds[i] + time.perf_counter() - start
        low = float(outcome.lower.min())
        if outcome.witness is not None:
            yield i, _adversarial(outcome.stage, outcome.lower, outcome.witness, spent)
        elif low > 0:
            yield i, Verdict("robust", outcome.stage, low, np.nan, None, spent)
        else:
            yield i, Verdict("undecided", outcome.stage, low, np.nan, None, spent, outcome.note)


def _adversarial(stage: str, lower: np.ndarray, witness: Witness, seconds: float) -> Verdict:
    low = float(lower.min())
    return Verdict("adversarial", stage, low, witness.margin, witness.point, seconds)
