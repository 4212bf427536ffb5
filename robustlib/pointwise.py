"""Pointwise robustness ρ̂ of Bastani et al. (2016): the best that one linear region holds."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from robustlib import checks, solvers
from robustlib.encoders.restriction import Region, linear_region, nearest_program
from robustlib.network import Network, from_torch

STRICT = 1e-6  # the margin, in logits, that a witness is asked for: above the solvers' tolerances


@dataclass(frozen=True, eq=False)
class PointwiseRobustness:
    """What the linear programs found, one entry for each of n inputs x*.

    Attributes
    ----------
    rho : (n,) float64. ρ̂(f, x*), the l∞ distance from x* to the nearest point of its linear region
        where the target ties with the label; ``inf`` where the region holds no such point. Never
        below the pointwise robustness ρ, up to the solver's tolerance.
    nearest : for each input the point at distance rho, or None. It lies on the tie, so its label is
        a matter of rounding.
    witness : for each input an adversarial example in float64: inside ``bounds`` and given another
        label by a forward pass in float64, strictly. None where no such point was found.
    distance : (n,) the l∞ distance of the witness, a hair above rho; ``inf`` where there is none.
    label : (n,) int, f(x*), the first label of the largest logit in float64
    target : (n,) int, the label that is reached at distance rho; −1 where there is none
    seconds : (n,) wall time
    """

    rho: np.ndarray
    nearest: list[Tensor | None]
    witness: list[Tensor | None]
    distance: np.ndarray
    label: np.ndarray
    target: np.ndarray
    seconds: np.ndarray


def pointwise_robustness(
    net: nn.Module,
    x: Tensor,
    *,
    labels: str = "second",
    bounds: tuple[float, float] | None = (0.0, 1.0),
    solver: str = "highs",
) -> PointwiseRobustness:
    """ρ̂(f, x*) = min_ℓ ρ̂(f, x*, ℓ), each a linear program over the convex restriction at x*.

    Parameters
    ----------
    net : nn.Sequential as `robustlib.network.from_torch` reads it, eval mode
    x : Tensor (n, …), one input x* a row, values in ``bounds``
    labels : which ℓ to try. "second": the second most probable label, as in the paper's
        experiments; "all": every label but f(x*).
    bounds : the box of valid inputs, None for the whole space
    solver : "highs", "scip" or "cvxpy"

    Returns
    -------
    PointwiseRobustness

    Raises
    ------
    TypeError, ValueError
        For inputs that are not finite floating-point numbers in ``bounds``, a network that is not
        piecewise linear or is in training mode, and unknown ``labels`` or ``solver``.
    RuntimeError
        If the solver neither solves a program nor proves that it has no solution.

    Notes
    -----
    Searching one linear region over-estimates: ρ̂ ≥ ρ, so frequencies computed from it are too low.
    A minimum over the closed set {logit[ℓ] ≥ logit[l]} is attained on the tie. The witness
    therefore comes from a second program that asks ℓ to win by 1e-6, and counts only if the
    forward pass agrees. Where the region meets the decision surface in no more than a border
    point, the second program has no solution: rho is finite and the witness None.

    Examples
    --------
    >>> net = nn.Sequential(nn.Linear(2, 2)).eval()
    >>> net[0].weight.data, net[0].bias.data = torch.eye(2), torch.zeros(2)
    >>> result = pointwise_robustness(net, torch.tensor([[0.75, 0.25]]))
    >>> result.rho.round(9), result.target
    (array([0.25]), array([1]))
    """
    checks.choice("labels", labels, ["second", "all"])
    checks.eval_mode(net, "net")
    bounds = None if bounds is None else checks.box(bounds)
    checks.images(x, bounds=bounds)
    network = from_torch(net, tuple(x.shape[1:]))
    points = x.detach().to(device="cpu", dtype=torch.float64).flatten(1).numpy()
    found = [_search(network, point, labels, bounds, solver) for point in points]

    def tensor(point: np.ndarray | None) -> Tensor | None:
        return None if point is None else torch.from_numpy(point).reshape(x.shape[1:])

    return PointwiseRobustness(
        rho=np.array([f.rho for f in found], dtype=float),
        nearest=[tensor(f.nearest) for f in found],
        witness=[tensor(f.witness) for f in found],
        distance=np.array([f.distance for f in found], dtype=float),
        label=np.array([f.label for f in found], dtype=int),
        target=np.array([f.target for f in found], dtype=int),
        seconds=np.array([f.seconds for f in found], dtype=float),
    )


class _Found(NamedTuple):
    rho: float
    nearest: np.ndarray | None
    witness: np.ndarray | None
    distance: float
    label: int
    target: int
    seconds: float


def _search(
    network: Network,
    x: np.ndarray,
    labels: str,
    bounds: tuple[float, float] | None,
    solver: str,
) -> _Found:
    start = time.perf_counter()
    region = linear_region(network, x)
    logits = network.forward(x[None])[0]
    label, *others = np.argsort(-logits, kind="stable")
    rho, nearest, target = np.inf, None, -1
    witness, distance = None, np.inf
    for other in others[:1] if labels == "second" else others:
        tie = _minimum(region, other, bounds, solver, alpha=0.0)
        if tie is None:
            continue
        if tie[0] < rho:
            rho, nearest, target = *tie, int(other)
        strict = _minimum(region, other, bounds, solver, alpha=STRICT)
        if strict is not None and strict[0] < distance and _fools(network, strict[1], label):
            distance, witness = strict
    return _Found(rho, nearest, witness, distance, int(label), target, time.perf_counter() - start)


def _minimum(
    region: Region, target: int, bounds: tuple[float, float] | None, solver: str, *, alpha: float
) -> tuple[float, np.ndarray] | None:
    """The optimum (distance, point) of the program, the point inside ``bounds`` exactly."""
    program = nearest_program(region, target, bounds=bounds, alpha=alpha)
    solution = solvers.solve(program, solver=solver)
    if solution.status == "infeasible":
        return None
    if solution.status != "optimal" or solution.x is None:
        raise RuntimeError(f"solver={solver!r} stopped with status {solution.status!r}.")
    point = solution.x[:-1]
    if bounds is not None:
        point = np.clip(point, *bounds)
    return float(np.abs(point - region.center).max()), point


def _fools(network: Network, point: np.ndarray, label: int) -> bool:
    """Whether another label's logit is strictly the largest, by a forward pass in float64."""
    logits = network.forward(point[None])[0]
    return bool(np.delete(logits, label).max() > logits[label])
