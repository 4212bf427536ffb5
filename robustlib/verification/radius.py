"""Certified radii: how far a relaxation alone proves the label. Lower bounds of the distortion."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace

import numpy as np
import torch
from scipy import sparse
from torch import Tensor, nn

from robustlib import checks
from robustlib.bounds import (
    Box,
    L2Ball,
    Lines,
    Region,
    interval_step,
    network_bounds,
    norm_ball,
    relu_lines,
    rows_lower_bound,
)
from robustlib.encoders.relaxation import Relaxation
from robustlib.network import Affine, MaxPool, Network, ReLU, from_torch, margin_rows
from robustlib.solvers import safe_lower_bound, solve_in_ball
from robustlib.solvers.highs import HighsModel

METHODS = ("fastlin", "crown", "lp", "lp_full")


def certified_radius(
    net: nn.Module,
    x: Tensor,
    y: Tensor | int,
    *,
    target: int | None = None,
    norm: str = "inf",
    method: str = "fastlin",
    bounds: tuple[float, float] = (0.0, 1.0),
    tolerance: float = 1e-3,
    time_limit: float = math.inf,
) -> float:
    """The largest ε, up to a bisection, for which a relaxation proves that y stays above a label.

    It is proved that logit[y] > logit[target] for all x' with ‖x' − x‖ ≤ ε inside ``bounds``. Hence
    ε is a lower bound of the distortion, safe under rounding. The methods, from the cheapest on:

    - "fastlin": both lines of an open ReLU have the slope u/(u − l) (Weng et al. 2018), bounds of
      every layer included;
    - "crown": the lower line has the slope 0 or 1 (Zhang et al. 2018);
    - "lp": the linear program of the triangles, with the layers' bounds of "fastlin";
    - "lp_full": with layers' bounds from linear programs too.

    Parameters
    ----------
    net : nn.Sequential of supported layers, in evaluation mode.
    x : one input, without a batch dimension, inside ``bounds``.
    y : its label.
    target : the label that must stay below; None for all others.
    norm : "inf", "1" or "2".
    tolerance : where the bisection ends, as a share of ε.
    time_limit : wall seconds; what is proved by then is returned.

    Raises
    ------
    TypeError, ValueError
        For bad input; the message names the argument, the value and what is allowed.

    Examples
    --------
    >>> net = nn.Sequential(nn.Linear(1, 2)).eval()
    >>> _ = net[0].weight.data.copy_(torch.tensor([[1.0], [-1.0]])), net[0].bias.data.zero_()
    >>> 0.499 < certified_radius(net, torch.tensor([0.5]), 0, bounds=(-1.0, 1.0)) <= 0.5
    True
    """
    start = time.perf_counter()
    checks.choice("norm", norm, ("inf", "1", "2"))
    checks.choice("method", method, METHODS)
    tolerance = checks.number("tolerance", tolerance, low=0.0, high=1.0, strict=True)
    if time_limit != math.inf:
        time_limit = checks.number("time_limit", time_limit, low=0.0)
    low, high = bounds = checks.box(bounds)
    checks.eval_mode(net, "net")
    point = checks.images(x[None] if isinstance(x, Tensor) else x, bounds=bounds)[0]
    network = from_torch(net, tuple(point.shape))
    y = y.reshape(-1) if isinstance(y, Tensor) else torch.tensor([checks.count("y", y, low=0)])
    label = int(checks.labels(y, 1, network.classes)[0])
    if target is not None:
        target = checks.count("target", target, low=0)
        if target >= network.classes or target == label:
            raise ValueError(
                f"target={target} is not allowed: give a label in [0, {network.classes - 1}] other "
                f"than the true one, {label}."
            )
    rows = margin_rows(label, network.classes, None if target is None else [target])
    center = point.detach().cpu().double().reshape(-1).numpy()

    def margin(method: str) -> Callable[[float], float]:
        def at(eps: float) -> float:
            region = norm_ball(center, eps, norm, bounds)
            return float(_lower_bounds(network, region, rows, method).min())

        return at

    n = network.input_size
    reach = (high - low) * {"inf": 1.0, "1": float(n), "2": math.sqrt(n)}[norm]
    deadline = start + time_limit
    first = 0.0
    if method.startswith("lp"):  # what Fast-Lin proves they prove too
        first = _root(margin("fastlin"), reach / 1024, reach, 0.1, deadline)
    return max(first, _root(margin(method), first or reach / 1024, reach, tolerance, deadline))


def _root(
    margin: Callable[[float], float], first: float, reach: float, tolerance: float, deadline: float
) -> float:
    """The largest radius found with a margin above 0, which falls with the radius.

    The radius grows until the margin is not above 0; then the zero is approached by false
    positions, with the margin of the side that stays halved each time.
    """
    proved, value = 0.0, math.inf
    failed, below = min(first, reach), -math.inf
    while time.perf_counter() < deadline:
        below = margin(failed)
        if below <= 0:
            break
        proved, value = failed, below
        if failed == reach:
            return proved
        failed = min(1.25 * failed if first > reach / 1024 else 2.0 * failed, reach)
    while failed - proved > tolerance * failed and failed > 1e-9 * reach:
        if time.perf_counter() >= deadline:
            break
        share = value / (value - below) if math.isfinite(value - below) else 0.5
        middle = proved + min(max(share, 0.02), 0.98) * (failed - proved)
        now = margin(middle)
        if now > 0:
            proved, value, below = middle, now, 0.5 * below
        else:
            failed, below, value = middle, now, 0.5 * value
    return proved


def _lower_bounds(network: Network, region: Region, rows: np.ndarray, method: str) -> np.ndarray:
    """Safe lower bounds of rows · logits over the region."""
    if method == "crown":
        return rows_lower_bound(network, network_bounds(network, region), region, rows)
    boxes = _layer_bounds(network, region, by_programs=method == "lp_full")
    if method == "fastlin":
        return rows_lower_bound(
            network, boxes, region, rows, lines=_parallel(network, region, boxes)
        )
    programs = _Programs(network, region, boxes)
    return np.array([programs.minimum(row) for row in rows])


def _layer_bounds(network: Network, region: Region, *, by_programs: bool) -> list[Box]:
    """Bounds of the output of every step, each from those of the steps before it."""
    boxes: list[Box] = []
    for k, step in enumerate(network.steps):
        box = interval_step(step, boxes[k - 1] if k else region.box)
        following = network.steps[k + 1] if k + 1 < len(network.steps) else None
        if isinstance(step, Affine) and isinstance(following, ReLU | MaxPool):
            units = sparse.csr_array(sparse.eye_array(step.size))
            both = sparse.csr_array(sparse.vstack([units, -units]))
            lines = _parallel(network, region, [*boxes, box])
            found = rows_lower_bound(network, boxes, region, both, k, lines=lines)
            box = box.intersect(Box(found[: step.size], -found[step.size :]))
            if by_programs and any(isinstance(s, ReLU | MaxPool) for s in network.steps[:k]):
                box = _by_programs(network, region, boxes, box, k, following)
        boxes.append(box)
    return boxes


def _parallel(network: Network, region: Region, boxes: list[Box]) -> dict[int, Lines]:
    """Fast-Lin: below an open unit a line of the slope of the one above it."""
    lines = {}
    for k, step in enumerate(network.steps[: len(boxes) + 1]):
        if isinstance(step, ReLU):
            crown = relu_lines(boxes[k - 1] if k else region.box)
            lines[k] = Lines(crown.above, crown.above, crown.intercept)
    return lines


def _by_programs(
    network: Network, region: Region, boxes: list[Box], box: Box, k: int, following: object
) -> Box:
    """Both bounds of every unit that is open."""
    is_open = (box.lower < 0) & (box.upper > 0)
    if not isinstance(following, ReLU):  # a maximum: all its inputs
        is_open[:] = True
    programs = _Programs(network, region, [*boxes, box])
    lower, upper = box.lower.copy(), box.upper.copy()
    for unit in np.flatnonzero(is_open):
        row = np.zeros(len(lower))
        row[unit] = 1.0
        upper[unit] = min(upper[unit], -programs.minimum(-row))
        if upper[unit] > 0 or not isinstance(following, ReLU):
            lower[unit] = max(lower[unit], programs.minimum(row))
    return box.intersect(Box(lower, upper))


class _Programs:
    """Linear programs over the triangles of the steps that have bounds."""

    def __init__(self, network: Network, region: Region, boxes: list[Box]) -> None:
        prefix = Network(network.steps[: len(boxes)], network.input_shape)
        self.region = region
        self.model: HighsModel | None = None
        if not all(np.isfinite([*box.lower, *box.upper]).all() for box in boxes):
            return  # no programs, and no bounds
        # an l2 ball is left to the cone program
        inputs = region.box if isinstance(region, L2Ball) else region
        self.encoding = Relaxation(prefix, inputs, boxes)

        self.program = self.encoding.minimize_logits(np.zeros(len(self.encoding.logits)))
        with suppress(RuntimeError):  # coefficients beyond the engine's range
            self.model = HighsModel(self.program)

    def minimum(self, row: np.ndarray) -> float:
        """A safe lower bound of row · (output of the last step)."""
        if self.model is None:
            return -math.inf
        objective = self.encoding.objective(row)
        if isinstance(self.region, L2Ball):
            ball = self.region
            duals = solve_in_ball(
                replace(self.program, objective=objective), ball.center, ball.eps
            ).duals
        else:
            ball = None
            self.model.set_objective(objective)  # the basis stays
            try:
                duals = self.model.solve().duals
            except RuntimeError:  # an engine that fails bounds nothing
                duals = None
        if duals is None:
            return -math.inf
        return safe_lower_bound(self.program, duals, objective=objective, region=ball)
