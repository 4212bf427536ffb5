"""When a point counts as an adversarial example."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from robustlib.bounds import Box, interval_step
from robustlib.network import Network, margin_rows


@dataclass(frozen=True, eq=False)
class Witness:
    """A point that is adversarial beyond doubt, and its margin (below 0)."""

    point: Tensor
    margin: float


def strict_witness(
    module: nn.Module,
    network: Network,
    candidate: np.ndarray,
    ball: Box,
    label: int,
    like: Tensor,
) -> Witness | None:
    """Turn ``candidate`` into a witness, or return None: there is no tolerance anywhere.

    The candidate is clipped to ``ball`` (an ``inner_ball``) and rounded to a number of ``like``'s
    dtype that is still in the ball. Some other logit must then exceed the label's in real
    arithmetic (an interval evaluation at the point, rounded outward) and in the module's own
    forward pass.

    Parameters
    ----------
    candidate : (input_size,) float64.
    ball : where the witness must lie.
    like : the input, for shape and dtype.
    """
    point = _round_inside(np.clip(candidate, ball.lower, ball.upper), ball, like.dtype)
    if point is None:
        return None
    exact = point.astype(np.float64)
    box = Box(exact, exact)
    for step in network.steps:
        box = interval_step(step, box)
    others = [j for j in range(network.classes) if j != label]
    target = max(others, key=lambda j: box.lower[j])
    if not box.lower[target] > box.upper[label]:
        return None
    tensor = torch.from_numpy(point).reshape(like.shape)
    with torch.no_grad():
        # a copy: a leading ReLU(inplace=True) would change the witness itself
        logits = module(tensor.to(like.device)[None].clone())[0]
    if int(logits.argmax()) == label or not bool((logits > logits[label]).any()):
        return None
    margin = float((margin_rows(label, network.classes) @ network.forward(exact[None])[0]).min())
    return Witness(tensor, margin)


def _round_inside(point: np.ndarray, ball: Box, dtype: torch.dtype) -> np.ndarray | None:
    kind = np.float32 if dtype == torch.float32 else np.float64
    rounded = point.astype(kind)
    low = rounded.astype(np.float64) < ball.lower
    high = rounded.astype(np.float64) > ball.upper
    rounded = np.where(low, np.nextafter(rounded, kind(np.inf)), rounded)
    rounded = np.where(high, np.nextafter(rounded, kind(-np.inf)), rounded)
    back = rounded.astype(np.float64)
    return rounded if ((back >= ball.lower) & (back <= ball.upper)).all() else None
