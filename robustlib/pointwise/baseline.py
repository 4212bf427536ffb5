"""ρ as the paper's baseline measures it: the distance of what L-BFGS finds."""

from __future__ import annotations

import copy
import math
import time
from dataclasses import replace

import torch
from torch import Tensor, nn

from robustlib.attacks import lbfgs
from robustlib.pointwise.result import Answer
from robustlib.pointwise.search import STRICT, nothing, whole_pixels

TOLERANCE = 1e-6  # of L-BFGS-B: distances as at scipy's 2.2e-9, for a third of the evaluations


def baseline(
    net: nn.Module,
    x: Tensor,
    targets: str | Tensor,
    *,
    bounds: tuple[float, float],
    alpha: float,
    pixels: int | None,
    limit: float,
) -> list[Answer]:
    """The answers for a batch; a point counts only where float64 gives it the target label too."""
    start = time.perf_counter()
    with torch.no_grad():
        order = net(x).argsort(dim=1, descending=True, stable=True)
    exact = copy.deepcopy(net).to(device="cpu", dtype=torch.float64)
    best = [nothing(int(label)) for label in order[:, 0]]
    if isinstance(targets, Tensor):
        tried = [targets.to(order.device)]
    else:
        tried = [*order[:, 1:2].T] if targets == "second" else [*order[:, 1:].T]
    for wanted in tried:
        points = lbfgs(net, x, targets=wanted, margin=alpha, tolerance=TOLERANCE, bounds=bounds)
        points = points.detach().cpu().double()
        away = (points - x.detach().cpu().double()).flatten(1).abs().amax(1).tolist()
        leads = _leads(exact, points, wanted.cpu())
        whole, survives = points, torch.zeros_like(leads, dtype=torch.bool)
        if pixels is not None:
            whole = whole_pixels(points, pixels).to(x.dtype).double()
            survives = _leads(exact, whole, wanted.cpu()) >= STRICT / 2
        for i, answer in enumerate(best):
            if leads[i] >= STRICT / 2 and away[i] <= min(limit, math.nextafter(answer.rho, 0.0)):
                best[i] = replace(
                    answer,
                    status="found",
                    rho=away[i],
                    distance=away[i],
                    target=int(wanted[i]),
                    witness=points[i].to(x.dtype),  # no rounding: that is where it comes from
                    rounded=whole[i].to(x.dtype) if survives[i] else None,
                )
    each = (time.perf_counter() - start) / max(1, len(x))
    return [replace(answer, seconds=each) for answer in best]


def _leads(net: nn.Module, x: Tensor, targets: Tensor) -> Tensor:
    """By how much the target's logit exceeds all others."""
    with torch.no_grad():
        logits = net(x)
    index = targets[:, None]
    return logits.gather(1, index)[:, 0] - logits.scatter(1, index, -torch.inf).amax(1)
