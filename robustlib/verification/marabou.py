"""The same question asked of Marabou, the successor of Reluplex: a peer to compare with.

Marabou is an SMT solver for networks (Katz et al. 2019). It decides whether a box holds a point of
another label; the minimum distortion follows by bisection on the radius, as Weng et al. (2018) did
with Reluplex. What it says is Marabou's word: nothing here is recomputed, and no verdict of this
library rests on it.
"""

from __future__ import annotations

import multiprocessing
import os
import time
import warnings
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any

import numpy as np
from torch import Tensor, nn

from robustlib import checks
from robustlib.bounds import Box
from robustlib.network import Affine, MaxPool, Network, from_torch, margin_rows


@dataclass(frozen=True)
class MarabouAnswer:
    """What Marabou said of the box: "sat" (a point was found), "unsat", "timeout" or "error".

    ``seconds`` are CPU seconds, of the process that it ran in too.
    """

    status: str
    point: np.ndarray | None
    seconds: float


@dataclass(frozen=True)
class MarabouDistortion:
    """Bisection's result: the distortion lies in [lower, upper], by Marabou's word.

    ``finished`` is false where a question ran out of time; ``questions`` counts them. ``seconds``
    are CPU seconds of Marabou, queries included.
    """

    lower: float
    upper: float
    questions: int
    finished: bool
    seconds: float


def ask_marabou(
    network: Network, box: Box, rows: np.ndarray, *, time_limit: float
) -> MarabouAnswer:
    """Is there a point of ``box`` with row · logits ≤ 0 for every one of the rows?

    Parameters
    ----------
    network : Network without max-pooling.
    box : of the flattened input.
    rows : (rows, classes).
    time_limit : wall seconds. Marabou runs in a process of its own, which is ended then: its own
        limit is not always kept, and a crash of it must not be ours.

    Raises
    ------
    ValueError
        For a network with max-pooling.
    ModuleNotFoundError
        If maraboupy is not installed.
    """
    core = _core()
    start = _cpu_seconds()
    query, inputs = _query(core, network, box, rows)
    status, point = _solve_apart(core, query, inputs, time_limit)
    return MarabouAnswer(status, point, _cpu_seconds() - start)


def _cpu_seconds() -> float:
    """CPU seconds of this process and of the processes that it has waited for."""
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


def marabou_distortion(
    net: nn.Module,
    x: Tensor,
    y: int,
    *,
    target: int,
    upper: float,
    tolerance: float = 1e-3,
    bounds: tuple[float, float] = (0.0, 1.0),
    time_limit: float = 60.0,
) -> MarabouDistortion:
    """Bisect the l∞ radius at which Marabou finds a point where no logit is above the target's.

    Parameters
    ----------
    x : one input, with or without the batch dimension.
    y, target : the label, and the one that the change has to reach.
    upper : a radius at which such a point is known (that of an attack).
    tolerance : the bisection stops when the interval is no wider.
    time_limit : wall seconds for all questions together.

    Examples
    --------
    >>> net = nn.Sequential(nn.Linear(1, 2)).eval()  # doctest: +SKIP
    >>> marabou_distortion(net, torch.tensor([0.5]), 0, target=1, upper=0.5)  # doctest: +SKIP
    """
    upper = checks.eps(upper)
    tolerance = checks.number("tolerance", tolerance, low=1e-9)
    time_limit = checks.number("time_limit", time_limit, low=0.0)
    low_bound, high_bound = checks.box(bounds)
    network = from_torch(net, tuple(x.shape[-3:] if x.ndim > 2 else x.shape[-1:]))
    if y == target or not 0 <= target < network.classes:
        raise ValueError(f"target={target} must be a label of the network other than y={y}.")
    center = x.detach().double().reshape(-1).numpy()
    rows = -margin_rows(target, network.classes)
    start = time.perf_counter()
    lower, questions, finished, seconds = 0.0, 0, True, 0.0
    while upper - lower > tolerance:
        left = time_limit - (time.perf_counter() - start)
        if left <= 0:
            finished = False
            break
        eps = 0.5 * (lower + upper)
        box = Box(np.maximum(center - eps, low_bound), np.minimum(center + eps, high_bound))
        answer = ask_marabou(network, box, rows, time_limit=left)
        questions, seconds = questions + 1, seconds + answer.seconds
        if answer.status == "sat":
            upper = eps
        elif answer.status == "unsat":
            lower = eps
        else:
            finished = False
            break
    return MarabouDistortion(lower, upper, questions, finished, seconds)


def _solve_apart(
    core: Any, query: Any, inputs: range, time_limit: float
) -> tuple[str, np.ndarray | None]:
    """Solve in a forked process: status, and the point if one was found."""
    context = multiprocessing.get_context("fork")
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(target=_solve, args=(core, query, inputs, theirs), daemon=True)
    process.start()
    theirs.close()
    try:
        if not ours.poll(time_limit):
            return "timeout", None
        status, values = ours.recv()
    except EOFError:  # it died
        return "error", None
    finally:
        process.kill()
        process.join()
        ours.close()
    if status not in ("sat", "unsat"):
        return "error", None
    return status, np.array(values) if status == "sat" else None


def _solve(core: Any, query: Any, inputs: range, answers: Connection) -> None:
    options = core.Options()
    options._verbosity = 0
    status, values, _ = core.solve(query, options, os.devnull)
    answers.send((status, [values[i] for i in inputs] if status == "sat" else []))


def _core() -> Any:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of parsers that are not needed
            from maraboupy import MarabouCore
    except ImportError as error:
        raise ModuleNotFoundError(
            f"Marabou cannot be asked ({error}); install it: pip install maraboupy==2.0.0 "
            "(Python 3.11 or older)."
        ) from error
    return MarabouCore


def _query(core: Any, network: Network, box: Box, rows: np.ndarray) -> tuple[Any, range]:
    """One variable for every input, pre-activation and activation; one equation for each row."""
    query = core.InputQuery()
    count = network.input_size + sum(step.size for step in network.steps)
    query.setNumberOfVariables(count)
    inputs = range(network.input_size)
    for i in inputs:
        query.setLowerBound(i, float(box.lower[i]))
        query.setUpperBound(i, float(box.upper[i]))
        query.markInputVariable(i, i)
    before, free = inputs, network.input_size
    for step in network.steps:
        after = range(free, free + step.size)
        free += step.size
        if isinstance(step, MaxPool):
            raise ValueError("Marabou is asked about networks without max-pooling only.")
        if isinstance(step, Affine):
            for j, terms in zip(after, _terms(step), strict=True):
                equation = core.Equation()
                for i, coefficient in terms:
                    equation.addAddend(coefficient, before[i])
                equation.addAddend(-1.0, j)
                equation.setScalar(-float(step.bias[j - after[0]]))
                query.addEquation(equation)
        else:
            for i, j in zip(before, after, strict=True):
                core.addReluConstraint(query, i, j)
        before = after
    for place, variable in enumerate(before):
        query.markOutputVariable(variable, place)
    for row in rows:
        margin = core.Equation(core.Equation.LE)
        for variable, coefficient in zip(before, row, strict=True):
            if coefficient:
                margin.addAddend(float(coefficient), variable)
        margin.setScalar(0.0)
        query.addEquation(margin)
    return query, inputs


def _terms(step: Affine) -> list[list[tuple[int, float]]]:
    """The non-zero coefficients of every row."""
    rows = []
    for j in range(step.size):
        if isinstance(step.weight, np.ndarray):
            columns = np.flatnonzero(step.weight[j])
            values = step.weight[j, columns]
        else:
            part = slice(step.weight.indptr[j], step.weight.indptr[j + 1])
            columns, values = step.weight.indices[part], step.weight.data[part]
        rows.append([(int(i), float(v)) for i, v in zip(columns, values, strict=True)])
    return rows
