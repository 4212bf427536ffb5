"""When a point counts as an adversarial example, and how far it is: nothing here is rounded."""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
import torch
from torch import Tensor, nn

from robustlib.bounds import Box, interval_step
from robustlib.network import Network, margin_rows


@dataclass(frozen=True, eq=False)
class Witness:
    """A point that is adversarial beyond doubt, its margin (below 0), its distance rounded up."""

    point: Tensor
    margin: float
    distance: float = math.nan


def strict_witness(
    module: nn.Module, network: Network, point: Tensor, label: int, targets: list[int]
) -> Witness | None:
    """The point as a witness, or None: there is no tolerance anywhere.

    The logit of one of ``targets`` must exceed the label's and those of all that are no targets,
    in real arithmetic (an interval evaluation at the point, rounded outward) and in the module's
    own forward pass.

    Parameters
    ----------
    point : of the input's shape and dtype.
    targets : labels other than ``label``; usually all of them.
    """
    exact = point.detach().cpu().double().reshape(-1).numpy()
    box = Box(exact, exact)
    for step in network.steps:
        box = interval_step(step, box)
    others = [j for j in range(network.classes) if j not in targets]
    winner = max(targets, key=lambda j: box.lower[j])
    if not box.lower[winner] > box.upper[others].max():
        return None
    device = next((p.device for p in module.parameters()), point.device)
    with torch.no_grad():
        # a copy: a leading ReLU(inplace=True) would change the witness itself
        logits = module(point.to(device)[None].clone())[0].cpu()
    if not bool(logits[targets].max() > logits[others].max()):
        return None
    values = network.forward(exact[None])[0]
    margin = float((margin_rows(label, network.classes, targets) @ values).min())
    return Witness(point.cpu(), margin)


def distance(a: np.ndarray, b: np.ndarray, norm: str) -> float:
    """‖a − b‖ in the norm "inf", "1" or "2", rounded up to the next float.

    >>> distance(np.array([0.1, 0.7]), np.array([0.3, 0.5]), "1") > 0.4 - 1e-16
    True
    """
    exact = _exact_power(a, b, norm)
    if norm == "2":
        digits = 1 << 64  # of the root, behind the point of a fraction whose denominator is square
        root = math.isqrt(exact.numerator * exact.denominator * digits**2) + 1
        exact = Fraction(root, exact.denominator * digits) if exact else exact
    result = float(exact)
    return result if result >= exact else math.nextafter(result, math.inf)


def is_within(a: np.ndarray, b: np.ndarray, eps: float, norm: str) -> bool:
    """Whether ‖a − b‖ ≤ eps, exactly."""
    return _exact_power(a, b, norm) <= Fraction(eps) ** (2 if norm == "2" else 1)


def _exact_power(a: np.ndarray, b: np.ndarray, norm: str) -> Fraction:
    """‖a − b‖, squared in the norm "2": floats are fractions with a power of two below."""
    ratios = [value.as_integer_ratio() for value in [*a.tolist(), *b.tolist()]]
    common = max((low for _, low in ratios), default=1)
    whole = [high * (common // low) for high, low in ratios]
    gaps = [abs(p - q) for p, q in zip(whole[: len(a)], whole[len(a) :], strict=True)]
    if norm == "2":
        return Fraction(sum(gap * gap for gap in gaps), common * common)
    return Fraction(max(gaps, default=0) if norm == "inf" else sum(gaps), common)
